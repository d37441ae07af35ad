/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * iopf-bench: what it costs to bring a page fault to user space and its answer
 * back.  main.c tells what is measured; the other files are one room each:
 * where faults come from (mock.c, pri.c), how they are served (files.c,
 * uring.c), by whom (sleeper.c), what is counted apart from time (count.c), what
 * is no case of this kind (floor.c, isolation.c).
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <liburing.h>

#include "../lib/iopf.h"

#define MAX_DEVICES 64
#define MAX_BATCH 512
#define MAX_WAITERS 1024
#define MAX_BUFFERS 64

/* What a thread that owns its ring asks for, as io_uring's documentation advises */
#define DEFER_RING (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)

struct bench;

/* Where faults come from. */
struct source {
	const char *name;
	int (*open)(struct bench *b);
	/* One step of the measurement: spec.batch groups of one request each. */
	int (*inject)(struct bench *b);
	/* Were exactly so many groups raised, and each answered with success once? */
	int (*check)(struct bench *b, uint64_t groups);
	/* What a server does for a fault before it answers, and its answer; NULL for nothing. */
	uint32_t (*resolve)(struct bench *b, const struct iommu_hwpt_pgfault *message);
	void (*close)(struct bench *b);
};

/* How they are served. */
struct mode {
	const char *name;
	int (*open)(struct bench *b);
	/* Take spec.batch faults that were injected, and answer them. */
	int (*serve)(struct bench *b);
	/* Give answers that serve() has put off; NULL if it never does. */
	int (*flush)(struct bench *b);
	void (*close)(struct bench *b);
};

struct spec {
	const char *text;
	const struct mode *mode;
	const struct source *source;
	unsigned int batch;
	/* posted reads for each object */
	unsigned int waiters;
	/* multishot: buffers that are provided */
	unsigned int buffers;
	unsigned int devices;
	unsigned int objects;
	/* answer at once, by a system call of its own if need be */
	bool eager;
	/* io_uring for reads alone: answer by write(2) */
	bool plain;
	/* a thread serves, and sleeps whenever there is nothing */
	bool asleep;
	/* the kernel's thread is awake when the fault comes, on a CPU of its own */
	bool awake;
};

struct bench {
	struct spec spec;
	struct iopf io;
	struct iopf_queue queues[MAX_DEVICES];
	unsigned int n_queues;
	void *source;
	void *mode;
	void *sleeper;

	/* of injections: ns that the fault core says it took */
	uint64_t reported;
	/* when the last messages were here, if somebody asks */
	bool want_seen;
	uint64_t seen;
	/* of the modes: messages taken, answers given, and completions without a fault */
	uint64_t messages;
	uint64_t answers;
	uint64_t spurious;
};

/* Nanoseconds of CLOCK_MONOTONIC */
uint64_t now(void);

extern const struct source mock_source, pri_source, nested_source;
extern const struct source demand_source, scattered_source;
extern const struct mode serve_mode, poll_mode, read_mode;
extern const struct mode posted_mode, multishot_mode, sqpoll_mode, kernel_mode;

/* Read what one queue has and answer it, by read(2) and write(2); returns how many. */
int take_by_read(struct bench *b, const struct iopf_queue *queue);
/* An answer for each of n messages, which are whole groups of one. */
static inline void answer_all(struct bench *b, const struct iommu_hwpt_pgfault *messages,
			      unsigned int n, struct iommu_hwpt_page_response *answers)
{
	unsigned int i;

	if (b->want_seen)
		b->seen = now();
	for (i = 0; i < n; i++)
		answers[i] = (struct iommu_hwpt_page_response){
			.cookie = messages[i].cookie,
			.code = b->spec.source->resolve ?
				b->spec.source->resolve(b, &messages[i]) :
				IOMMUFD_PAGE_RESP_SUCCESS,
		};
	b->messages += n;
	b->answers += n;
}

/* sleeper.c: instead of the mode's open, serve and flush, whose thread also closes it. */
int sleeper_open(struct bench *b, unsigned int steps);
int sleeper_serve(struct bench *b);
int sleeper_flush(struct bench *b);

/* A line for each way to do nothing. */
int print_floors(void);
/* What a queue that many reads wait for costs a device that reports to it, and others. */
int print_isolation(unsigned int waiters);

/*
 * The system calls of a child, but for ioctls that inject, between its two count_mark().
 * The child has called ptrace(PTRACE_TRACEME) and stopped.  Waits for its end.
 */
int count_syscalls(pid_t child, uint64_t *calls);
void count_mark(void);

/*
 * The kernel's allocations for the calling task between writes of "1" and "0"
 * to the file *on, but for the injector's own; sites names the callers, with
 * their numbers.
 */
int count_allocations_begin(struct iopf *io, int *on);
int count_allocations_end(struct iopf *io, uint64_t *n, char *sites, size_t room);

#endif
