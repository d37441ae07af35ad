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
	/* its read is to be posted when the large slot is free */
	bool parked;
	/*
	 * without io_uring, and of the large slot: whose it is; its answers are to be
	 * given, or were given and the caller was not told; n_read messages are there that
	 * the caller was not told of
	 */
	enum { SLOT_FREE, SLOT_TAKEN, SLOT_REPLIED, SLOT_ANSWERED, SLOT_FILLED } state;
	unsigned int n_read;
};

struct iopf_ring_impl {
	struct io_uring uring;
	const struct iopf_queue *queue;
	enum iopf_mode mode;
	/* and one more behind them, for a group that they have no room for */
	struct ring_slot *slots;
	unsigned int n_slots;
	unsigned int slot_size;
	/* reads and writes that the kernel has not completed */
	unsigned int in_flight;
	/* multishot: buffers, those that the kernel has, and whether the read is posted */
	struct io_uring_buf_ring *buffers;
	unsigned int n_entries, n_given;
	bool armed;
	bool stopping;
};

/* The most that a group can have. */
#define MAX_GROUP 4096

static inline struct ring_slot *large_slot(struct iopf_ring_impl *ring)
{
	return &ring->slots[ring->n_slots];
}

static inline unsigned int room_of(struct iopf_ring_impl *ring, struct ring_slot *slot)
{
	return slot == large_slot(ring) ? MAX_GROUP : ring->slot_size;
}

/* iopf-ring.c: n messages are in the slot, so it is at the caller; returns IOPF_FAULTS. */
int slot_filled(struct ring_slot *slot, unsigned int n);
/* The answer of every group in the slot is INVALID. */
void slot_refuse(struct ring_slot *slot);

/* iopf-serve.c: iopf_serve(), with IOMMU_FAULT_SERVE or without; does the file know that? */
int serve_queue(const struct iopf_queue *queue, struct iopf_serve *serve,
		unsigned int timeout_ms, bool by_call);
bool has_serve(int fd);

/* iopf-plain.c: IOPF_SERVE and IOPF_POLL */
int plain_next(struct iopf_ring_impl *ring, unsigned int timeout_ms, struct ring_slot **slot);
void plain_reply(struct iopf_ring_impl *ring, struct ring_slot *slot);
/* Give the answers that were not given. */
int plain_flush(struct iopf_ring_impl *ring);
/* The same, and refuse what the caller was not told of. */
void plain_stop(struct iopf_ring_impl *ring);

/* iopf-probe.c: do reads of this file wait in io_uring? */
bool has_posted_reads(int fd);

/* iopf-holder.c: who has the file at path open, but for our descriptor fd; false if nobody. */
bool find_holder(const char *path, int fd, char *who, size_t size);

#endif
