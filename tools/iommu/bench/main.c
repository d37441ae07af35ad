// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: iopf-bench [--faults N] [--syscalls N] [--allocations N] [--bare] CASE...
 *        iopf-bench --floors
 *        iopf-bench --isolation WAITERS
 *
 * The numbers say how many faults the run for each figure has; 0 leaves that
 * one out.  With --bare inject is not measured: all that runs is the total, for
 * a profiler.
 *
 * CASE is MODE[,KEY=VALUE]..., and gives one line of JSON.  Modes:
 *   serve       one ioctl gives the answers and takes what comes next
 *   poll        poll(2), read(2), write(2)
 *   read        read(2), write(2), without asking first
 *   posted      one-shot reads of io_uring, each posted again with the answers
 *   multishot   multishot reads, buffers from a ring
 *   sqpoll      multishot, a thread of the kernel submits, we look at memory
 *   kernel      nobody: the kernel resolves them, with source=demand or scattered
 * Keys: batch (faults injected together, 1), waiters (reads posted for each
 * object, 1), buffers (of multishot, a power of two, 64), devices (1), each=1
 * (an object for each device, else one for all), eager=1 (serve: answer by a call of
 * its own), eager=1 and plain=1 (io_uring: see uring.c), asleep=1 (whoever serves
 * sleeps when the fault comes: see sleeper.c), awake=1 (kernel: its thread does not, as it
 * has a second CPU), source=pri (the emulated device, else the selftests' mock),
 * source=demand (that device, and 16 pages are mapped for each fault, by the kernel or by
 * who serves; they lie together in physical memory), source=scattered (the same, but they
 * do not), source=nested (that device, which takes the faults of a guest's page table; for
 * a machine with two stages).
 *
 * What is measured, per fault, in nanoseconds of CLOCK_MONOTONIC, which under
 * QEMU's -icount are instructions of the guest, of kernel and program:
 *   total     a long run of "inject a batch, serve it", begin to end
 *   inject    the injecting ioctl alone, in a run before that with the same
 *             batch and devices while nobody waits for the queue; what it
 *             injected is taken out of the queue between the clock's readings
 *   serve     total - inject: to wake whoever waits, to deliver, to respond
 *   reported  the part of inject that went into the core's report function
 *   seen      with source=pri: from the doorbell until the program has the last
 *             message of a batch in its memory, in a run after that
 * With a source that is the device nothing is subtracted: total is from the doorbell to
 * its response.  The clock's own cost is measured, and taken off.  Each
 * time is the least of three runs.
 *   syscalls     by ptrace, in a run of its own; the injecting ioctls not counted
 *   allocations  by kmem's tracepoints (kmalloc, slab caches, pages), in a run of
 *                its own; all of the task's, core's report included, but the
 *                injector's
 *   spurious     completions, or reads, that brought no message
 * Each run ends with the count of groups raised, messages taken, answers given
 * and responses at the device: all equal, else the case has an error instead of
 * numbers.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "../../testing/selftests/iommu/iommufd_fdinfo.h"

#define WARM_UP 512
#define CLOCK_READINGS 1000
/* A case that gets stuck is ended by a signal after that. */
#define STUCK_S 30
/*
 * Whether the injector's kmalloc meets slab's fast path for the whole run or
 * never is luck: the least of some runs counts.
 */
#define TIME_RUNS 3

enum figure { FIGURE_TIME, FIGURE_SYSCALLS, FIGURE_ALLOCATIONS, FIGURES };

static bool bare;

/* What a child tells its parent, in shared memory. */
struct outcome {
	char why[200];
	double total, inject, reported, seen;
	uint64_t spurious, allocations;
	char sites[600];
};

static const struct mode *const modes[] = {
	&serve_mode, &poll_mode, &read_mode, &posted_mode, &multishot_mode, &sqpoll_mode,
	&kernel_mode,
};

uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static double clock_cost(void)
{
	uint64_t sum = 0, before;
	unsigned int i;

	for (i = 0; i < CLOCK_READINGS; i++) {
		before = now();
		sum += now() - before;
	}
	return (double)sum / CLOCK_READINGS;
}

/* ---- one run ---- */

static int steps(struct bench *b, unsigned int n)
{
	int rc = 0;

	while (n-- && !rc) {
		rc = b->spec.source->inject(b);
		if (!rc)
			rc = b->sleeper ? sleeper_serve(b) : b->spec.mode->serve(b);
	}
	return rc;
}

static int flush(struct bench *b)
{
	if (b->sleeper)
		return sleeper_flush(b);
	return b->spec.mode->flush ? b->spec.mode->flush(b) : 0;
}

static int drain(struct bench *b)
{
	unsigned int left = b->spec.batch, i;
	int n;

	while (left) {
		for (i = 0; i < b->n_queues; i++) {
			n = take_by_read(b, &b->queues[i]);
			if (n < 0)
				return n;
			left -= n;
		}
	}
	return 0;
}

static int time_inject(struct bench *b, unsigned int n, struct outcome *out)
{
	double cost = clock_cost();
	uint64_t sum = 0, before;
	unsigned int i;
	int rc;

	b->reported = 0;
	for (i = 0; i < n; i++) {
		before = now();
		rc = b->spec.source->inject(b);
		sum += now() - before;
		if (!rc)
			rc = drain(b);
		if (rc)
			return rc;
	}
	out->inject = sum / (double)n - cost;
	out->reported = b->reported / (double)n;
	return 0;
}

static int time_total(struct bench *b, unsigned int n, struct outcome *out)
{
	uint64_t begin, spurious = b->spurious;
	int rc;

	begin = now();
	rc = steps(b, n);
	if (!rc)
		rc = flush(b);
	out->total = (now() - begin - clock_cost()) / (double)n;
	out->spurious = b->spurious - spurious;
	return rc;
}

static int time_seen(struct bench *b, unsigned int n, struct outcome *out)
{
	double cost = clock_cost();
	uint64_t sum = 0, before;
	unsigned int i;
	int rc = 0;

	b->want_seen = true;
	for (i = 0; i < n && !rc; i++) {
		before = now();
		rc = steps(b, 1);
		sum += b->seen - before;
	}
	b->want_seen = false;
	out->seen = sum / (double)n - cost;
	return rc;
}

static int run_figure(struct bench *b, enum figure which, unsigned int n, struct outcome *out)
{
	int on, rc;

	switch (which) {
	case FIGURE_TIME:
		return time_total(b, n, out);
	case FIGURE_SYSCALLS:
		count_mark();
		rc = steps(b, n);
		count_mark();
		return rc;
	default:
		rc = count_allocations_begin(&b->io, &on);
		if (rc)
			return rc;
		rc = write(on, "1", 1) == 1 ? steps(b, n) : -EIO;
		if (write(on, "0", 1) != 1 && !rc)
			rc = iopf_fail(&b->io, errno, "stop the trace");
		close(on);
		if (!rc)
			rc = count_allocations_end(&b->io, &out->allocations, out->sites,
						   sizeof(out->sites));
		return rc;
	}
}

/* The objects are there: warm up, run, and see that nothing was lost. */
static int run_opened(struct bench *b, enum figure which, unsigned int n, struct outcome *out)
{
	unsigned int warm_up = WARM_UP / b->spec.batch + 1, injected = warm_up + n;
	bool mock = b->spec.source == &mock_source, seen = false;
	uint64_t groups;
	int rc = 0;

	if (which == FIGURE_TIME && mock && !bare) {
		struct outcome unused;

		rc = time_inject(b, warm_up, &unused);
		if (!rc)
			rc = time_inject(b, n, out);
		injected += warm_up + n;
	} else if (which == FIGURE_TIME && !bare && !b->spec.asleep &&
		   b->spec.mode != &kernel_mode) {
		seen = true;
		injected += n;
	}
	groups = (uint64_t)injected * b->spec.batch;
	if (!rc)
		rc = b->spec.asleep ? sleeper_open(b, warm_up + n) : b->spec.mode->open(b);
	if (!rc)
		rc = steps(b, warm_up);
	if (!rc)
		rc = run_figure(b, which, n, out);
	if (!rc && seen)
		rc = time_seen(b, n, out);
	if (!rc)
		rc = flush(b);
	if (!rc && (b->messages != groups || b->answers != groups))
		rc = iopf_fail(&b->io, EPROTO, "%llu groups, %llu messages, %llu answers",
			       (unsigned long long)groups, (unsigned long long)b->messages,
			       (unsigned long long)b->answers);
	if (!rc)
		rc = b->spec.source->check(b, groups);
	if (!b->sleeper)
		b->spec.mode->close(b);
	return rc;
}

static int run(const struct spec *spec, enum figure which, unsigned int n, struct outcome *out)
{
	struct bench b = { .spec = *spec };
	int rc;

	rc = iopf_open(&b.io);
	while (!rc && b.n_queues < spec->objects) {
		rc = iopf_queue_alloc(&b.io, 0, &b.queues[b.n_queues]);
		b.n_queues++;
	}
	if (!rc)
		rc = spec->source->open(&b);
	if (!rc)
		rc = run_opened(&b, which, n, out);
	spec->source->close(&b);
	if (rc)
		snprintf(out->why, sizeof(out->why), "%s", iopf_error(&b.io));
	iopf_close(&b.io);
	return rc;
}

/* ---- its child ---- */

static void child(const struct spec *spec, enum figure which, unsigned int n, struct outcome *out)
{
	cpu_set_t first;

	CPU_ZERO(&first);
	CPU_SET(0, &first);
	/* Of this process are the threads that the kernel resolves faults in, too. */
	if (!spec->awake)
		sched_setaffinity(0, sizeof(first), &first);
	alarm(STUCK_S);
	if (which == FIGURE_SYSCALLS) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
	}
	_exit(run(spec, which, n, out) != 0);
}

/* Why a child that could not say so itself has ended. */
static void explain(int status, char *why, size_t room)
{
	if (status < 0)
		snprintf(why, room, "%s", strerror(-status));
	else if (!WIFSIGNALED(status))
		snprintf(why, room, "status %d", status);
	else if (WTERMSIG(status) == SIGALRM)
		snprintf(why, room, "no completion");
	else
		snprintf(why, room, "killed by signal %d", WTERMSIG(status));
}

static int run_child(const struct spec *spec, enum figure which, unsigned int faults,
		     struct outcome *out, uint64_t *syscalls)
{
	unsigned int n = (faults + spec->batch - 1) / spec->batch;
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		child(spec, which, n, out);
	if (pid < 0)
		status = -errno;
	else if (which == FIGURE_SYSCALLS)
		status = count_syscalls(pid, syscalls);
	else if (waitpid(pid, &status, 0) < 0)
		status = -errno;
	if (status && !out->why[0])
		explain(status, out->why, sizeof(out->why));
	return status;
}

/* The faults that run_child() makes of those that were asked for */
static double rounded(const struct spec *spec, unsigned int faults)
{
	return (faults + spec->batch - 1) / spec->batch * (double)spec->batch;
}

static double least(double a, double b)
{
	return a && a < b ? a : b;
}

static int run_time(const struct spec *spec, unsigned int faults, struct outcome *out)
{
	struct outcome best = {};
	unsigned int i;
	int rc = 0;

	for (i = 0; i < (bare ? 1 : TIME_RUNS) && !rc; i++) {
		rc = run_child(spec, FIGURE_TIME, faults, out, NULL);
		best.total = least(best.total, out->total);
		best.inject = least(best.inject, out->inject);
		best.reported = least(best.reported, out->reported);
		best.seen = least(best.seen, out->seen);
		best.spurious += out->spurious;
	}
	if (rc)
		return rc;
	*out = best;
	return 0;
}

static void print_time(const struct spec *spec, unsigned int faults, const struct outcome *out)
{
	unsigned int batch = spec->batch;

	printf("\"faults\": %.0f, ", rounded(spec, faults) * (bare ? 1 : TIME_RUNS));
	printf("\"total\": %.1f, \"inject\": %.1f, ", out->total / batch, out->inject / batch);
	printf("\"serve\": %.1f, ", (out->total - out->inject) / batch);
	printf("\"reported\": %.1f, \"seen\": %.1f, ", out->reported / batch, out->seen / batch);
	printf("\"spurious\": %llu, ", (unsigned long long)out->spurious);
}

static void print_allocations(const struct spec *spec, unsigned int faults,
			      const struct outcome *out)
{
	printf("\"allocations\": %llu, ", (unsigned long long)out->allocations);
	printf("\"allocations_of\": %.0f, ", rounded(spec, faults));
	printf("\"sites\": \"%s\", ", out->sites);
}

static int run_case(const struct spec *spec, const unsigned int faults[FIGURES],
		    struct outcome *out)
{
	/* A batch is to be delivered whole, also the first one. */
	long reserved = reserve_requests(MAX_BATCH);
	uint64_t syscalls = 0;
	int rc;

	memset(out, 0, sizeof(*out));
	printf("{\"case\": \"%s\", ", spec->text);
	rc = run_time(spec, faults[FIGURE_TIME], out);
	if (!rc)
		print_time(spec, faults[FIGURE_TIME], out);
	/* Tracers look at one thread. */
	if (!rc && faults[FIGURE_SYSCALLS] && !spec->asleep) {
		rc = run_child(spec, FIGURE_SYSCALLS, faults[FIGURE_SYSCALLS], out, &syscalls);
		if (!rc)
			printf("\"syscalls\": %.3f, ",
			       syscalls / rounded(spec, faults[FIGURE_SYSCALLS]));
	}
	if (!rc && faults[FIGURE_ALLOCATIONS] && !spec->asleep) {
		rc = run_child(spec, FIGURE_ALLOCATIONS, faults[FIGURE_ALLOCATIONS], out, NULL);
		if (!rc)
			print_allocations(spec, faults[FIGURE_ALLOCATIONS], out);
	}
	printf("\"error\": \"%s\"}\n", out->why);
	if (reserved >= 0)
		reserve_requests(reserved);
	return rc;
}

/* ---- arguments ---- */

static bool set_key(struct spec *spec, const char *key, const char *value)
{
	unsigned int n = strtoul(value, NULL, 10);

	if (!strcmp(key, "batch"))
		spec->batch = n;
	else if (!strcmp(key, "waiters"))
		spec->waiters = n;
	else if (!strcmp(key, "buffers"))
		spec->buffers = n;
	else if (!strcmp(key, "devices"))
		spec->devices = n;
	else if (!strcmp(key, "each"))
		spec->objects = n;
	else if (!strcmp(key, "eager"))
		spec->eager = n;
	else if (!strcmp(key, "plain"))
		spec->plain = n;
	else if (!strcmp(key, "asleep"))
		spec->asleep = n;
	else if (!strcmp(key, "awake"))
		spec->awake = n;
	else if (!strcmp(key, "source") && !strcmp(value, "pri"))
		spec->source = &pri_source;
	else if (!strcmp(key, "source") && !strcmp(value, "nested"))
		spec->source = &nested_source;
	else if (!strcmp(key, "source") && !strcmp(value, "demand"))
		spec->source = &demand_source;
	else if (!strcmp(key, "source") && !strcmp(value, "scattered"))
		spec->source = &scattered_source;
	else
		return false;
	return true;
}

static bool parse(const char *text, struct spec *spec)
{
	char copy[128], *word, *value, *rest = copy;
	unsigned int i;

	*spec = (struct spec){
		.text = text, .source = &mock_source, .batch = 1, .waiters = 1, .devices = 1,
		.buffers = MAX_BUFFERS,
	};
	snprintf(copy, sizeof(copy), "%s", text);
	word = strsep(&rest, ",");
	for (i = 0; i < sizeof(modes) / sizeof(*modes); i++)
		if (!strcmp(modes[i]->name, word))
			spec->mode = modes[i];
	while ((word = strsep(&rest, ","))) {
		value = strchr(word, '=');
		if (!value)
			return false;
		*value++ = 0;
		if (!set_key(spec, word, value))
			return false;
	}
	spec->objects = spec->objects ? spec->devices : 1;
	return spec->mode && (!spec->awake || spec->mode == &kernel_mode) &&
	       spec->batch && spec->batch <= MAX_BATCH && spec->waiters &&
	       spec->waiters <= MAX_WAITERS && spec->devices && spec->devices <= MAX_DEVICES &&
	       spec->buffers && spec->buffers <= MAX_BUFFERS &&
	       !(spec->buffers & (spec->buffers - 1));
}

static int usage(void)
{
	fputs("usage: iopf-bench [--faults N] [--syscalls N] [--allocations N] [--bare] CASE...\n"
	      "       iopf-bench --floors\n"
	      "       iopf-bench --isolation WAITERS\n",
	      stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const char *const options[] = { "--faults", "--syscalls", "--allocations" };
	unsigned int faults[FIGURES] = { 8192, 1024, 0 }, i;
	struct outcome *out;
	struct spec spec;
	int failed = 0;

	out = mmap(NULL, sizeof(*out), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (out == MAP_FAILED || argc < 2)
		return usage();
	while (*++argv) {
		for (i = 0; i < FIGURES; i++)
			if (!strcmp(*argv, options[i]))
				break;
		if (!strcmp(*argv, "--floors"))
			return print_floors();
		if (!strcmp(*argv, "--isolation"))
			return argv[1] ? print_isolation(strtoul(argv[1], NULL, 10)) : usage();
		if (!strcmp(*argv, "--bare")) {
			bare = true;
		} else if (i < FIGURES) {
			if (!argv[1])
				return usage();
			faults[i] = strtoul(*++argv, NULL, 10);
		} else if (!parse(*argv, &spec)) {
			fprintf(stderr, "iopf-bench: case %s is not understood\n", *argv);
			return usage();
		} else if (run_case(&spec, faults, out)) {
			failed = 1;
		}
	}
	return failed;
}
