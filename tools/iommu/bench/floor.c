// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the kernel takes for doing nothing in the same way: the floors that the
 * figures of the modes stand on.
 */
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define ROUNDS 4096

struct floor {
	const char *name;
	int (*open)(void);
	int (*once)(void);
	void (*close)(void);
};

static struct io_uring uring;
static int event = -1;

static int nothing(void)
{
	return 0;
}

static void no_close(void)
{
}

static int syscall_once(void)
{
	return syscall(SYS_getppid) < 0;
}

static int event_open(void)
{
	event = eventfd(0, EFD_CLOEXEC);
	return event < 0;
}

static int event_once(void)
{
	uint64_t n = 1;

	return write(event, &n, sizeof(n)) != sizeof(n) || read(event, &n, sizeof(n)) != sizeof(n);
}

static void event_close(void)
{
	close(event);
}

static int nop_open(void)
{
	struct io_uring_params p = { .flags = DEFER_RING };

	return io_uring_queue_init_params(2, &uring, &p) || io_uring_register_ring_fd(&uring) < 0;
}

static int nop_once(void)
{
	struct io_uring_cqe *cqe;
	unsigned int head, n = 0;

	io_uring_prep_nop(io_uring_get_sqe(&uring));
	if (io_uring_submit_and_wait(&uring, 1) < 0)
		return 1;
	io_uring_for_each_cqe(&uring, head, cqe)
		n++;
	io_uring_cq_advance(&uring, n);
	return n != 1;
}

static void nop_close(void)
{
	io_uring_queue_exit(&uring);
}

static const struct floor floors[] = {
	{ "empty system call", nothing, syscall_once, no_close },
	{ "eventfd, write and read", event_open, event_once, event_close },
	{ "io_uring NOP, submit and wait", nop_open, nop_once, nop_close },
};

static uint64_t run(const struct floor *floor, unsigned int rounds)
{
	uint64_t begin = now();

	while (rounds--)
		if (floor->once())
			return 0;
	return now() - begin;
}

int print_floors(void)
{
	unsigned int i;
	uint64_t ns;

	for (i = 0; i < sizeof(floors) / sizeof(*floors); i++) {
		if (floors[i].open())
			return 1;
		run(&floors[i], ROUNDS);
		ns = run(&floors[i], ROUNDS);
		floors[i].close();
		if (!ns)
			return 1;
		printf("{\"case\": \"floor: %s\", \"total\": %.1f, \"error\": \"\"}\n",
		       floors[i].name, ns / (double)ROUNDS);
	}
	return 0;
}
