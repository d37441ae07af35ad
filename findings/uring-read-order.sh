#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Four reads posted on one file complete in the order 4, 1, 3, 2.
#
# Expected: reads that io_uring has posted on one empty file (eventfd, pipe, datagram socket) are
#   served first come, first served; or else the latest first.
# Seen: neither. Four messages, sent one at a time, complete the requests number 4, 1, 3, 2, in
#   this order, every time, with and without DEFER_TASKRUN; IORING_OP_RECV does the same. A
#   message wakes all the requests that wait, the latest first. One gets it, the others wait anew,
#   and that turns round the order of the rest.
# Versions: Debian's Linux 7.3.4-1~bpo13+1 and 6.12.117-1 (amd64).
# Why it matters: a server that posts N reads and takes the Nth buffer for the Nth message is
#   wrong, a message costs a wake-up of every read that waits, and a latency measured by request
#   is not one by arrival.
# Date: 2026-11-29
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

compile order <<'C'
#include <liburing.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define READS 4

static void try(const char *name, int in, int out, int recv, unsigned int setup)
{
	static char buffer[READS][8];
	struct __kernel_timespec limit = { .tv_sec = 10 };
	unsigned long message = 1;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	int i;

	io_uring_queue_init(8, &ring, setup);
	for (i = 0; i < READS; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

		if (recv)
			io_uring_prep_recv(sqe, in, buffer[i], 8, 0);
		else
			io_uring_prep_read(sqe, in, buffer[i], 8, -1);
		sqe->user_data = i + 1;
		io_uring_submit(&ring);
	}
	printf("%s%s:", name, setup ? ", DEFER_TASKRUN" : "");
	for (i = 0; i < READS; i++) {
		write(out, &message, 8);
		if (io_uring_wait_cqe_timeout(&ring, &cqe, &limit)) {
			printf(" none");
			continue;
		}
		printf(" %llu%s", cqe->user_data, cqe->res == 8 ? "" : " (not 8 bytes)");
		io_uring_cqe_seen(&ring, cqe);
	}
	printf("\n");
	io_uring_queue_exit(&ring);
}

int main(void)
{
	unsigned int setups[] = { 0, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN };
	int i, fd, p[2];

	for (i = 0; i < 2; i++) {
		fd = eventfd(0, 0);
		try("eventfd", fd, fd, 0, setups[i]);
		pipe(p);
		try("pipe", p[0], p[1], 0, setups[i]);
		socketpair(AF_UNIX, SOCK_DGRAM, 0, p);
		try("socket", p[0], p[1], 0, setups[i]);
		try("socket with RECV", p[0], p[1], 1, setups[i]);
	}
	return 0;
}
C

for version in 73 612; do
	kernel "$version"
	boot "$tmp/order"
	for file in eventfd pipe socket 'socket with RECV'; do
		for mode in '' ', DEFER_TASKRUN'; do
			expect "^$file$mode: 4 1 3 2$" "the order of four reads, $file$mode"
		done
	done
done
say "as described: the reads complete in the order 4, 1, 3, 2"
