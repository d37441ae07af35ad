/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the library's files know of each other, and programs do not. */
#ifndef IOPF_IMPL_H
#define IOPF_IMPL_H

#include <liburing.h>

#include "iopf.h"

struct ring_slot {
	/* what the caller sees, first so that one leads to the other */
	struct iopf_slot pub;
	/* answers dealt with, answers in what is under way, a broken link */
	unsigned int n_written;
	unsigned int n_writing;
	bool cut;
	/* poll: whose it is, the last one's answers were written and the caller not told */
	enum { SLOT_FREE, SLOT_TAKEN, SLOT_ANSWERED } state;
};

struct iopf_ring_impl {
	struct io_uring uring;
	const struct iopf_queue *queue;
	enum iopf_mode mode;
	struct ring_slot *slots;
	unsigned int n_slots;
	unsigned int slot_size;
	/* reads, writes and commands that the kernel has not completed */
	unsigned int in_flight;
	/* multishot: buffers, those that the kernel has, and whether the read is posted */
	struct io_uring_buf_ring *buffers;
	unsigned int n_entries, n_given;
	bool armed;
	/* fetch: slots whose answers were handed in, and the caller was not told */
	unsigned int n_answering;
	bool stopping;
};

/* iopf-ring.c: n messages are in the slot, so it is at the caller; returns IOPF_FAULTS. */
int slot_filled(struct ring_slot *slot, unsigned int n);
/* Write the answers one by one, and count those that are refused. */
void slot_write_answers(struct iopf_ring_impl *ring, struct ring_slot *slot);

/* iopf-poll.c: IOPF_POLL */
int poll_next(struct iopf_ring_impl *ring, unsigned int timeout_ms, struct ring_slot **slot);
void poll_reply(struct iopf_ring_impl *ring, struct ring_slot *slot);

/* iopf-probe.c: do reads of this file wait in io_uring, does it know the commands? */
bool has_posted_reads(int fd);
bool has_fetch(struct io_uring *uring, int fd);

#endif
