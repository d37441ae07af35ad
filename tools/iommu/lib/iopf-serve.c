// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Answers in, messages out: by IOMMU_FAULT_SERVE, or where the kernel does not
 * have it by write(2), poll(2) and read(2), which every fault queue knows.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/ioctl.h>

#include "impl.h"

/* A call that has nothing to do succeeds where it is known. */
bool has_serve(int fd)
{
	struct iommu_fault_serve cmd = { .size = sizeof(cmd) };

	return !ioctl(fd, IOMMU_FAULT_SERVE, &cmd);
}

bool iopf_queue_has_serve(const struct iopf_queue *queue)
{
	return !queue->no_serve && has_serve(queue->fd);
}

static int serve_by_call(const struct iopf_queue *queue, struct iopf_serve *serve,
			 unsigned int timeout_ms)
{
	struct iommu_fault_serve cmd = {
		.size = sizeof(cmd),
		.responses_uptr = (uintptr_t)(serve->answers + serve->n_done),
		.messages_uptr = (uintptr_t)serve->messages,
		.response_num = serve->n_answers - serve->n_done,
		.message_num = serve->room,
		.timeout_ns = timeout_ms == IOPF_FOREVER ? IOMMU_FAULT_SERVE_FOREVER :
							   timeout_ms * 1000000ull,
	};
	int rc = 0;

	if (ioctl(queue->fd, IOMMU_FAULT_SERVE, &cmd)) {
		rc = -errno;
		/* it did not get so far as to write the numbers */
		if (rc == -ENOTTY || rc == -EBADF)
			return rc;
	}
	serve->n_done += cmd.response_num;
	serve->needed = rc == -EMSGSIZE ? cmd.message_num : 0;
	return rc ? rc : (int)cmd.message_num;
}

/* A write stops at an answer that is refused, and the next one tells why. */
static int write_answers(const struct iopf_queue *queue, struct iopf_serve *serve)
{
	int n;

	while (serve->n_done < serve->n_answers) {
		n = iopf_queue_write(queue, serve->answers + serve->n_done,
				     serve->n_answers - serve->n_done);
		if (n <= 0)
			return n ? n : -EIO;
		serve->n_done += (unsigned int)n;
	}
	return 0;
}

/* 1: there is something to read; 0: not in time; or an error. *events is what poll(2) says. */
static int wait_readable(int fd, unsigned int timeout_ms, short *events)
{
	bool may_wait = timeout_ms && !(fcntl(fd, F_GETFL) & O_NONBLOCK);
	int ms = timeout_ms == IOPF_FOREVER ? -1 : timeout_ms < INT_MAX ? (int)timeout_ms : INT_MAX;
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int rc = poll(&pfd, 1, may_wait ? ms : 0);

	*events = pfd.revents;
	if (rc < 0)
		return -errno;
	return !rc && timeout_ms && !may_wait ? -EAGAIN : rc;
}

static int serve_by_files(const struct iopf_queue *queue, struct iopf_serve *serve,
			  unsigned int timeout_ms)
{
	int rc = write_answers(queue, serve);
	short events;

	serve->needed = 0;
	if (rc || !serve->room)
		return rc;
	rc = wait_readable(queue->fd, timeout_ms, &events);
	if (rc <= 0)
		return rc;
	rc = iopf_queue_read(queue, serve->messages, serve->room);
	if (!rc && events & POLLHUP)
		return -ENODEV;
	if (rc == -EINVAL)
		return -EMSGSIZE;
	/* another reader was quicker */
	return rc == -EAGAIN ? 0 : rc;
}

int serve_queue(const struct iopf_queue *queue, struct iopf_serve *serve,
		unsigned int timeout_ms, bool by_call)
{
	int rc;

	for (;;) {
		rc = by_call ? serve_by_call(queue, serve, timeout_ms) : -ENOTTY;
		if (rc == -ENOTTY)
			rc = serve_by_files(queue, serve, timeout_ms);
		if (rc != -ESTALE)
			return rc;
		serve->n_done++;
		serve->n_late++;
	}
}

int iopf_serve(const struct iopf_queue *queue, struct iopf_serve *serve, unsigned int timeout_ms)
{
	return serve_queue(queue, serve, timeout_ms, !queue->no_serve);
}
