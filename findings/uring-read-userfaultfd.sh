#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# A read posted on a blocking userfaultfd ends with -EINTR, and nobody sent a signal.
#
# Expected: io_uring's read of a descriptor without O_NONBLOCK waits for a page fault, as read(2)
#   does, and as posted reads of other files do.
# Seen: it completes at once with -EINTR. poll() of a userfaultfd without O_NONBLOCK says POLLERR
#   and nothing else, whatever happens, and that is what io_uring waits by. With O_NONBLOCK, or
#   with IOSQE_ASYNC, the same read stays posted, and brings the message when a fault comes.
# Versions: Debian's Linux 7.3.4-1~bpo13+1 and 6.12.117-1 (amd64).
# Why it matters: who posts a read anew after -EINTR, as is usual, spins. The flag that makes
#   read(2) return early is the one that makes io_uring's read wait.
# Date: 2026-11-29
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

compile wait <<'C'
#include <fcntl.h>
#include <liburing.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096

static struct io_uring ring;

static void *touch(void *page)
{
	*(volatile char *)page;
	return NULL;
}

static void result(int milliseconds)
{
	struct __kernel_timespec limit = { .tv_nsec = milliseconds * 1000000LL };
	struct io_uring_cqe *cqe;

	if (io_uring_wait_cqe_timeout(&ring, &cqe, &limit)) {
		printf(" stays posted");
		return;
	}
	if (cqe->res < 0)
		printf(" -%s", strerrorname_np(-cqe->res));
	else
		printf(" %d", cqe->res);
	io_uring_cqe_seen(&ring, cqe);
}

static void try(const char *name, int flags, int async)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | flags);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_zeropage zero = { };
	struct pollfd state = { .fd = fd, .events = POLLIN };
	struct uffd_msg message;
	struct io_uring_sqe *sqe;
	pthread_t thread;
	void *page;

	ioctl(fd, UFFDIO_API, &api);
	page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	range.range.start = (unsigned long)page;
	range.range.len = PAGE;
	ioctl(fd, UFFDIO_REGISTER, &range);
	poll(&state, 1, 0);
	printf("%s: poll %#x, read", name, state.revents);
	io_uring_queue_init(4, &ring, 0);
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read(sqe, fd, &message, sizeof(message), -1);
	if (async)
		sqe->flags |= IOSQE_ASYNC;
	io_uring_submit(&ring);
	result(900);
	if (flags || async) {
		pthread_create(&thread, NULL, touch, page);
		printf(", with a fault");
		result(9000);
		zero.range = range.range;
		ioctl(fd, UFFDIO_ZEROPAGE, &zero);
		pthread_join(thread, NULL);
	}
	printf("\n");
	io_uring_queue_exit(&ring);
	close(fd);
}

int main(void)
{
	try("blocking", 0, 0);
	try("blocking, IOSQE_ASYNC", 0, 1);
	try("O_NONBLOCK", O_NONBLOCK, 0);
	return 0;
}
C

for version in 73 612; do
	kernel "$version"
	boot "$tmp/wait"
	expect '^blocking: poll 0x8, read -EINTR$' "a read of a blocking userfaultfd"
	waits='read stays posted, with a fault 32$'
	expect "^blocking, IOSQE_ASYNC: poll 0x8, $waits" "the same with IOSQE_ASYNC"
	expect "^O_NONBLOCK: poll 0, $waits" "the same with O_NONBLOCK"
done
say "as described: -EINTR without a signal, unless the descriptor is O_NONBLOCK"
