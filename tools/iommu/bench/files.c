// SPDX-License-Identifier: GPL-2.0-only
/* The modes that use the queues' files by plain system calls. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "bench.h"

#define POLL_MS 2000

int take_by_read(struct bench *b, const struct iopf_queue *queue)
{
	struct iommu_hwpt_page_response answers[MAX_BATCH];
	struct iommu_hwpt_pgfault messages[MAX_BATCH];
	int n, written;

	n = iopf_queue_read(queue, messages, b->spec.batch);
	if (n < 0)
		return iopf_fail(&b->io, -n, "read of the fault queue");
	if (!n) {
		b->spurious++;
		return 0;
	}
	answer_all(b, messages, n, answers);
	written = iopf_queue_write(queue, answers, n);
	if (written != n)
		return iopf_fail(&b->io, written < 0 ? -written : EIO, "write of %d answers", n);
	return n;
}

/* Serve spec.batch faults of the queues that are ready. */
static int serve_ready(struct bench *b, int (*take)(struct bench *b, unsigned int queue))
{
	struct pollfd fds[MAX_DEVICES];
	unsigned int left = b->spec.batch, i;
	int n;

	for (i = 0; i < b->n_queues; i++)
		fds[i] = (struct pollfd){ .fd = b->queues[i].fd, .events = POLLIN };
	while (left) {
		n = poll(fds, b->n_queues, POLL_MS);
		if (n <= 0)
			return iopf_fail(&b->io, n ? errno : ETIMEDOUT, "poll");
		for (i = 0; i < b->n_queues; i++) {
			if (!(fds[i].revents & POLLIN))
				continue;
			n = take(b, i);
			if (n < 0)
				return n;
			left -= n;
		}
	}
	return 0;
}

static int take_queue_by_read(struct bench *b, unsigned int queue)
{
	return take_by_read(b, &b->queues[queue]);
}

static int poll_serve(struct bench *b)
{
	return serve_ready(b, take_queue_by_read);
}

static int read_serve(struct bench *b)
{
	unsigned int left = b->spec.batch, i;
	int n;

	while (left) {
		for (i = 0; i < b->n_queues && left; i++) {
			n = take_by_read(b, &b->queues[i]);
			if (n < 0)
				return n;
			left -= n;
		}
	}
	return 0;
}

static int files_open(struct bench *b)
{
	(void)b;
	return 0;
}

static void files_close(struct bench *b)
{
	(void)b;
}

const struct mode poll_mode = {
	.name = "poll", .open = files_open, .serve = poll_serve, .close = files_close,
};

const struct mode read_mode = {
	.name = "read", .open = files_open, .serve = read_serve, .close = files_close,
};

/* Messages of a queue and the answers to them, which go in with the next call. */
struct exchange {
	struct iommu_hwpt_page_response answers[MAX_BATCH];
	struct iommu_hwpt_pgfault messages[MAX_BATCH];
	struct iommu_fault_serve cmd;
};

/* The call itself, as the least that a server needs */
static inline int call(struct bench *b, unsigned int queue, unsigned int room, uint64_t timeout_ns)
{
	struct exchange *x = (struct exchange *)b->mode + queue;
	int n;

	x->cmd.message_num = room;
	x->cmd.timeout_ns = timeout_ns;
	if (ioctl(b->queues[queue].fd, IOMMU_FAULT_SERVE, &x->cmd))
		return iopf_fail(&b->io, errno, "serve the fault queue");
	n = x->cmd.message_num;
	answer_all(b, x->messages, n, x->answers);
	x->cmd.response_num = n;
	return n;
}

static int serve_one(struct bench *b)
{
	unsigned int left = b->spec.batch;
	int n;

	while (left) {
		n = call(b, 0, left, IOMMU_FAULT_SERVE_FOREVER);
		if (n > 0 && b->spec.eager && call(b, 0, 0, 0))
			return -EIO;
		if (n < 0)
			return n;
		b->spurious += !n;
		left -= n;
	}
	return 0;
}

/* Messages and answers of one queue that is ready, by a call each. */
static int take_by_call(struct bench *b, unsigned int queue)
{
	int n = call(b, queue, b->spec.batch, 0);
	int rc = n > 0 ? call(b, queue, 0, 0) : 0;

	b->spurious += !n;
	return rc < 0 ? rc : n;
}

/* The call waits for one queue, poll(2) for many. */
static int serve_serve(struct bench *b)
{
	return b->n_queues == 1 ? serve_one(b) : serve_ready(b, take_by_call);
}

static int serve_flush(struct bench *b)
{
	unsigned int i;
	int rc = 0;

	for (i = 0; i < b->n_queues && !rc; i++)
		rc = call(b, i, 0, 0);
	return rc;
}

static int serve_open(struct bench *b)
{
	struct exchange *x = calloc(b->n_queues, sizeof(*x));
	unsigned int i;

	b->mode = x;
	if (!x)
		return iopf_fail(&b->io, ENOMEM, "messages");
	for (i = 0; i < b->n_queues; i++) {
		if (!iopf_queue_has_serve(&b->queues[i]))
			return iopf_fail(&b->io, ENOTTY, "serve the fault queue");
		x[i].cmd.size = sizeof(x[i].cmd);
		x[i].cmd.responses_uptr = (uintptr_t)x[i].answers;
		x[i].cmd.messages_uptr = (uintptr_t)x[i].messages;
	}
	return 0;
}

static void serve_close(struct bench *b)
{
	free(b->mode);
}

const struct mode serve_mode = {
	.name = "serve", .open = serve_open, .serve = serve_serve, .flush = serve_flush,
	.close = serve_close,
};
