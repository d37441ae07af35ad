// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Faults of a queue by poll, read and write: what every kernel with fault
 * queues can do.  A slot is free, or taken by the caller, or has its answers
 * written, which the caller is told next.
 */
#include <errno.h>
#include <poll.h>

#include "impl.h"

static struct ring_slot *slot_in_state(struct iopf_ring_impl *ring, int state)
{
	unsigned int i;

	for (i = 0; i < ring->n_slots; i++) {
		if ((int)ring->slots[i].state == state)
			return &ring->slots[i];
	}
	return NULL;
}

/* 1: there is something to read; 0: not in time; or an error. */
static int wait_readable(struct iopf_ring_impl *ring, unsigned int timeout_ms)
{
	struct pollfd pfd = { .fd = ring->queue->fd, .events = POLLIN };
	int rc = poll(&pfd, 1, (int)timeout_ms);

	if (rc >= 0)
		return rc;
	return errno == EINTR ? -EINTR : iopf_fail(ring->queue->io, errno, "poll");
}

static int read_slot(struct iopf_ring_impl *ring, struct ring_slot *slot)
{
	int n = iopf_queue_read(ring->queue, slot->pub.messages, ring->slot_size);

	/* another reader was quicker, or a signal came */
	if (!n || n == -EAGAIN)
		return IOPF_TIMEOUT;
	if (n < 0)
		return n == -EINTR ? n : iopf_fail(ring->queue->io, -n, "read of the fault queue");
	slot->state = SLOT_TAKEN;
	return slot_filled(slot, (unsigned int)n);
}

int poll_next(struct iopf_ring_impl *ring, unsigned int timeout_ms, struct ring_slot **slot)
{
	int rc;

	*slot = slot_in_state(ring, SLOT_ANSWERED);
	if (*slot) {
		(*slot)->state = SLOT_FREE;
		return IOPF_ANSWERED;
	}
	*slot = slot_in_state(ring, SLOT_FREE);
	if (!*slot)
		return IOPF_TIMEOUT;
	rc = wait_readable(ring, timeout_ms);
	return rc > 0 ? read_slot(ring, *slot) : rc;
}

void poll_reply(struct iopf_ring_impl *ring, struct ring_slot *slot)
{
	slot_write_answers(ring, slot);
	slot->state = slot->pub.n_answers ? SLOT_ANSWERED : SLOT_FREE;
}
