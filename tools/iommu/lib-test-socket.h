/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A socket that knows IOMMU_FAULT_SERVE, if it is socket_that_serves: all ioctls of
 * the program come by here.  Answers to cookies from LATE on are refused.
 */
#ifndef LIB_TEST_SOCKET_H
#define LIB_TEST_SOCKET_H

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/iopf.h"

#define LATE 1000
#define UNKNOWN 2000

static int socket_that_serves = -1;

int __real_ioctl(int fd, unsigned long op, ...);
int __wrap_ioctl(int fd, unsigned long op, ...);

static int give(int fd, struct iommu_fault_serve *cmd)
{
	const struct iommu_hwpt_page_response *answers = (void *)(uintptr_t)cmd->responses_uptr;
	unsigned int n = cmd->response_num;

	for (cmd->response_num = 0; cmd->response_num < n; cmd->response_num++) {
		const struct iommu_hwpt_page_response *answer = &answers[cmd->response_num];

		if (answer->cookie >= LATE)
			return answer->cookie >= UNKNOWN ? EINVAL : ESTALE;
		if (write(fd, answer, sizeof(*answer)) != sizeof(*answer))
			return errno;
	}
	return 0;
}

static int take(int fd, struct iommu_fault_serve *cmd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	unsigned int room = cmd->message_num;
	ssize_t n;
	int rc;

	cmd->message_num = 0;
	if (!room)
		return 0;
	rc = poll(&pfd, 1, cmd->timeout_ns == IOMMU_FAULT_SERVE_FOREVER ? -1 :
			   (int)(cmd->timeout_ns / 1000000));
	if (rc <= 0)
		return rc ? errno : 0;
	n = read(fd, (void *)(uintptr_t)cmd->messages_uptr,
		 room * sizeof(struct iommu_hwpt_pgfault));
	if (n <= 0)
		return n ? errno : ENODEV;
	cmd->message_num = n / sizeof(struct iommu_hwpt_pgfault);
	return 0;
}

int __wrap_ioctl(int fd, unsigned long op, ...)
{
	va_list args;
	void *arg;

	va_start(args, op);
	arg = va_arg(args, void *);
	va_end(args);
	if (fd < 0 || fd != socket_that_serves)
		return __real_ioctl(fd, op, arg);
	errno = op == IOMMU_FAULT_SERVE ? give(fd, arg) : ENOTTY;
	if (errno) {
		((struct iommu_fault_serve *)arg)->message_num = 0;
		return -1;
	}
	errno = take(fd, arg);
	return errno ? -1 : 0;
}

#endif
