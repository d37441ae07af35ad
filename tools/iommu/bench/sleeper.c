// SPDX-License-Identifier: GPL-2.0-only
/*
 * With asleep=1 a thread serves that sleeps whenever a fault comes, so that its
 * wake-up is measured, too.  Who injects has the policy SCHED_IDLE: all that a fault
 * wakes, threads of the kernel as well, runs until it sleeps again before the next
 * fault is injected, and nobody has to tell of it.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "bench.h"

struct sleeper {
	struct bench *bench;
	pthread_t thread;
	/* to serve, served, and waited for by who injects */
	unsigned int steps, done, injected;
	bool ready, ended;
	int rc;
};

static int set_policy(int policy)
{
	struct sched_param param = {};

	return sched_setscheduler(0, policy, &param) ? -errno : 0;
}

/* The mode is opened by who uses it, as rings want that. */
static void *serve_all(void *arg)
{
	struct sleeper *s = arg;
	struct bench *b = s->bench;
	int rc = set_policy(SCHED_OTHER);

	if (!rc)
		rc = b->spec.mode->open(b);
	__atomic_store_n(&s->ready, true, __ATOMIC_RELEASE);
	while (!rc && s->done < s->steps) {
		rc = b->spec.mode->serve(b);
		__atomic_store_n(&s->done, s->done + !rc, __ATOMIC_RELEASE);
	}
	if (!rc && b->spec.mode->flush)
		rc = b->spec.mode->flush(b);
	b->spec.mode->close(b);
	s->rc = rc;
	__atomic_store_n(&s->ended, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Begin to serve so many steps. */
int sleeper_open(struct bench *b, unsigned int steps)
{
	struct sleeper *s = calloc(1, sizeof(*s));
	int rc = s ? set_policy(SCHED_IDLE) : -ENOMEM;

	if (rc)
		return iopf_fail(&b->io, -rc, "a thread that serves");
	*s = (struct sleeper){ .bench = b, .steps = steps };
	b->sleeper = s;
	rc = pthread_create(&s->thread, NULL, serve_all, s);
	if (rc) {
		s->ended = true;
		return iopf_fail(&b->io, rc, "a thread that serves");
	}
	while (!__atomic_load_n(&s->ready, __ATOMIC_ACQUIRE))
		sched_yield();
	return 0;
}

/* What was injected has been taken. */
int sleeper_serve(struct bench *b)
{
	struct sleeper *s = b->sleeper;

	s->injected++;
	while (__atomic_load_n(&s->done, __ATOMIC_ACQUIRE) < s->injected) {
		if (__atomic_load_n(&s->ended, __ATOMIC_ACQUIRE))
			return s->rc;
		sched_yield();
	}
	return 0;
}

/* All was injected: see that it was answered. */
int sleeper_flush(struct bench *b)
{
	struct sleeper *s = b->sleeper;

	while (!__atomic_load_n(&s->ended, __ATOMIC_ACQUIRE))
		sched_yield();
	return s->rc;
}
