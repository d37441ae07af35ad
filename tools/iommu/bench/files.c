// SPDX-License-Identifier: GPL-2.0-only
/* The modes that use the queues' files by plain system calls. */
#include <errno.h>
#include <poll.h>

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

static int poll_serve(struct bench *b)
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
			n = take_by_read(b, &b->queues[i]);
			if (n < 0)
				return n;
			left -= n;
		}
	}
	return 0;
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
