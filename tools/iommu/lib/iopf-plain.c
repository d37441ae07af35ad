// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A ring's slots without io_uring: IOPF_SERVE and IOPF_POLL.
 *
 * A slot is free, or taken by the caller, who replies to it; its answers are given
 * with the next wait (with IOPF_POLL at once) and the caller is told of that.
 * Messages go to a free slot. If there is none they go to the slot whose answers
 * are given in the same call; the caller is told first that they were.  A group that
 * has no room there goes to the large slot, which takes no other.
 */
#include <errno.h>

#include "impl.h"

static struct ring_slot *slot_in_state(struct iopf_ring_impl *ring, int state,
				       const struct ring_slot *but)
{
	unsigned int n = ring->n_slots + (state != SLOT_FREE), i;

	for (i = 0; i < n; i++) {
		if ((int)ring->slots[i].state == state && &ring->slots[i] != but)
			return &ring->slots[i];
	}
	return NULL;
}

/* An event that the caller was not told of yet, or IOPF_TIMEOUT. */
static int tell(struct iopf_ring_impl *ring, struct ring_slot **slot)
{
	unsigned int n;

	*slot = slot_in_state(ring, SLOT_ANSWERED, NULL);
	if (*slot) {
		(*slot)->state = (*slot)->n_read ? SLOT_FILLED : SLOT_FREE;
		return IOPF_ANSWERED;
	}
	*slot = slot_in_state(ring, SLOT_FILLED, NULL);
	if (!*slot)
		return IOPF_TIMEOUT;
	n = (*slot)->n_read;
	(*slot)->n_read = 0;
	(*slot)->state = SLOT_TAKEN;
	return slot_filled(*slot, n);
}

/* An answer is refused if its group is gone: its device was detached, say. */
static bool refused(int rc, struct iopf_serve *serve)
{
	if (rc != -EINVAL || serve->n_done == serve->n_answers)
		return false;
	serve->n_done++;
	serve->n_late++;
	return true;
}

/* The first group is larger than a slot of the ring. */
static bool has_no_room(int rc, const struct iopf_serve *serve)
{
	return rc == -EMSGSIZE && serve->n_done == serve->n_answers && serve->room < MAX_GROUP;
}

static int failed(struct iopf_ring_impl *ring, int rc, const struct iopf_serve *serve)
{
	if (rc == -EINTR || has_no_room(rc, serve))
		return rc;
	if (serve->n_done < serve->n_answers)
		return iopf_fail(ring->queue->io, -rc, "answer %u of %u", serve->n_done,
				 serve->n_answers);
	return iopf_fail(ring->queue->io, -rc, "serve the fault queue");
}

/*
 * Give the answers of one slot, and wait for messages in another; either may be NULL.
 * -EMSGSIZE: the answers are given, but the first group is larger than that slot.
 */
static int exchange(struct iopf_ring_impl *ring, struct ring_slot *from, struct ring_slot *to,
		    unsigned int timeout_ms)
{
	struct iopf_serve serve = { .room = to ? room_of(ring, to) : 0 };
	int rc;

	if (from) {
		serve.answers = from->pub.answers;
		serve.n_answers = from->pub.n_answers;
		serve.n_done = from->n_written;
	}
	if (to)
		serve.messages = to->pub.messages;
	do {
		rc = serve_queue(ring->queue, &serve, timeout_ms, ring->mode == IOPF_SERVE);
	} while (refused(rc, &serve));
	if (from) {
		from->n_written = serve.n_done;
		from->pub.n_refused += serve.n_late;
		if (serve.n_done == serve.n_answers)
			from->state = SLOT_ANSWERED;
	}
	if (rc > 0) {
		to->n_read = (unsigned int)rc;
		if (to->state == SLOT_FREE)
			to->state = SLOT_FILLED;
	}
	return rc < 0 ? failed(ring, rc, &serve) : 0;
}

int plain_next(struct iopf_ring_impl *ring, unsigned int timeout_ms, struct ring_slot **slot)
{
	struct ring_slot *from, *to;
	int rc = tell(ring, slot);

	if (rc)
		return rc;
	from = slot_in_state(ring, SLOT_REPLIED, NULL);
	to = slot_in_state(ring, SLOT_FREE, NULL);
	if (!to)
		to = from;
	/* None is to wait for messages with answers that could be given. */
	if (from && slot_in_state(ring, SLOT_REPLIED, from))
		to = NULL;
	if (!from && !to)
		return IOPF_TIMEOUT;
	rc = exchange(ring, from, to, timeout_ms);
	if (rc == -EMSGSIZE)
		rc = large_slot(ring)->state == SLOT_FREE ?
			exchange(ring, NULL, large_slot(ring), 0) : 0;
	return rc ? rc : tell(ring, slot);
}

void plain_reply(struct iopf_ring_impl *ring, struct ring_slot *slot)
{
	slot->state = slot->pub.n_answers ? SLOT_REPLIED : SLOT_FREE;
	/* What fails here fails again with the next wait, and is told then. */
	if (slot->state == SLOT_REPLIED && ring->mode == IOPF_POLL)
		exchange(ring, slot, NULL, 0);
}

int plain_flush(struct iopf_ring_impl *ring)
{
	struct ring_slot *slot;
	int rc = 0;

	while (!rc && (slot = slot_in_state(ring, SLOT_REPLIED, NULL)))
		rc = exchange(ring, slot, NULL, 0);
	return rc;
}

void plain_stop(struct iopf_ring_impl *ring)
{
	struct ring_slot *slot;
	unsigned int i;

	for (i = 0; i <= ring->n_slots; i++) {
		slot = &ring->slots[i];
		if (slot->state == SLOT_REPLIED)
			exchange(ring, slot, NULL, 0);
		if (!slot->n_read)
			continue;
		slot_filled(slot, slot->n_read);
		slot_refuse(slot);
		exchange(ring, slot, NULL, 0);
	}
}
