#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Incremental buffers end a multishot read with -EINVAL while fifteen buffers are empty.
#
# Expected: a file that gives whole messages (eventfd: 8 bytes) is read into sixteen incremental
#   buffers (IOU_PBUF_RING_INC) of 20 bytes: two messages in each, 32 in all, and where no other
#   one fits the next buffer is taken.
# Seen: the third read gets the 4 bytes that are left of the first buffer, which eventfd refuses
#   with -EINVAL. That ends the multishot read, and one that is posted again ends alike; the other
#   fifteen buffers are never used. It is the same with inotify. Only min_left in struct
#   io_uring_buf_reg, which is younger than the flag and which liburing 2.9 does not know, brings
#   all 32.
# Versions: Debian's Linux 7.3.4-1~bpo13+1 and 6.12.117-1 (amd64), liburing 2.9-1.
# Why it matters: incremental buffers look made for short messages, and work until the first
#   buffer is full, unless its size is a multiple of the message's, which it cannot be if messages
#   have several sizes.
# Date: 2026-11-29
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

compile incremental <<'C'
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BUFFERS 16

static int event(void)
{
	return eventfd(0, EFD_NONBLOCK);
}

static void event_send(int fd)
{
	unsigned long one = 1;

	write(fd, &one, sizeof(one));
}

static int notify(void)
{
	int fd = inotify_init1(IN_NONBLOCK);

	mkdir("/tmp/watched", 0700);
	inotify_add_watch(fd, "/tmp/watched", IN_CREATE);
	return fd;
}

static void notify_send(int fd)
{
	static int number;
	char name[40];

	snprintf(name, sizeof(name), "/tmp/watched/%d", ++number);
	close(open(name, O_CREAT | O_WRONLY, 0600));
}

static void post(struct io_uring *ring, int fd)
{
	io_uring_prep_read_multishot(io_uring_get_sqe(ring), fd, 0, -1, 1);
	io_uring_submit(ring);
}

static void try(const char *name, int fd, void (*send)(int fd), int size, unsigned int min_left)
{
	struct __kernel_timespec limit = { .tv_sec = 10 };
	struct io_uring_buf_reg reg = {
		.ring_entries = BUFFERS, .bgid = 1, .flags = IOU_PBUF_RING_INC,
	};
	struct io_uring_buf_ring *buffers;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	int i, good = 0, bad = 0;

	io_uring_queue_init(8, &ring, 0);
	posix_memalign((void **)&buffers, 4096, 4096);
	reg.ring_addr = (unsigned long)buffers;
	reg.resv[0] = min_left;	/* the header of liburing 2.9 is older than min_left */
	if (syscall(SYS_io_uring_register, ring.ring_fd, IORING_REGISTER_PBUF_RING, &reg, 1)) {
		printf("%s, min_left %u: refused, %s\n", name, min_left, strerrorname_np(errno));
		return;
	}
	io_uring_buf_ring_init(buffers);
	for (i = 0; i < BUFFERS; i++)
		io_uring_buf_ring_add(buffers, malloc(size), size, i, BUFFERS - 1, i);
	io_uring_buf_ring_advance(buffers, BUFFERS);
	post(&ring, fd);
	while (good < 2 * BUFFERS && !bad) {
		send(fd);
		if (io_uring_wait_cqe_timeout(&ring, &cqe, &limit))
			break;
		if (cqe->res > 0)
			good++;
		else
			bad = cqe->res;
		io_uring_cqe_seen(&ring, cqe);
	}
	printf("%s, min_left %u: %d messages", name, min_left, good);
	if (bad) {
		printf(", then -%s; posted again", strerrorname_np(-bad));
		post(&ring, fd);
		if (io_uring_wait_cqe_timeout(&ring, &cqe, &limit))
			printf(" nothing");
		else
			printf(" %s%s", cqe->res < 0 ? "-" : "it works",
			       cqe->res < 0 ? strerrorname_np(-cqe->res) : "");
	}
	printf("\n");
	io_uring_queue_exit(&ring);
	close(fd);
}

int main(void)
{
	try("eventfd", event(), event_send, 20, 0);
	try("eventfd", event(), event_send, 20, 8);
	try("inotify", notify(), notify_send, 80, 0);
	try("inotify", notify(), notify_send, 80, 32);
	return 0;
}
C

for version in 73 612; do
	kernel "$version"
	boot "$tmp/incremental"
	for file in eventfd inotify; do
		expect "^$file, min_left 0: 2 messages, then -EINVAL; posted again -EINVAL$" \
			"$file's third message"
		expect "^$file, min_left [0-9]+: 32 messages$" "$file's messages with min_left"
	done
done
say "as described: -EINVAL with fifteen empty buffers, unless min_left is the message's size"
