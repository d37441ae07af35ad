// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Reads of a fault queue, posted ahead through io_uring.
 *
 * A slot's life: read under way -> IOPF_FAULTS, the caller's -> reply: a write
 * of the answers with the next read linked behind it.  A write that ends early
 * (an answer was refused, its group being gone) breaks the link: the read comes
 * back cancelled, and then the rest is sent in the same way.
 */
#include <errno.h>
#include <stdlib.h>

#include "iopf.h"

#define USER_DATA_CANCEL UINT64_MAX
/* A cancellation misses a read that is just being issued: try again after this long. */
#define CANCEL_MS 100
#define CANCEL_TRIES 10

static uint64_t user_data_of(struct iopf_ring *ring, struct iopf_slot *slot, bool write)
{
	return (uint64_t)(slot - ring->slots) << 1 | write;
}

static void post_write(struct iopf_ring *ring, struct iopf_slot *slot)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	slot->n_writing = slot->n_answers - slot->n_written;
	io_uring_prep_write(sqe, ring->queue->fd, slot->answers + slot->n_written,
			    slot->n_writing * sizeof(*slot->answers), -1);
	io_uring_sqe_set_data64(sqe, user_data_of(ring, slot, true));
	if (!ring->stopping)
		sqe->flags |= IOSQE_IO_LINK;
	ring->in_flight++;
}

static void post_read(struct iopf_ring *ring, struct iopf_slot *slot)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	io_uring_prep_read(sqe, ring->queue->fd, slot->messages,
			   ring->slot_size * sizeof(*slot->messages), -1);
	io_uring_sqe_set_data64(sqe, user_data_of(ring, slot, false));
	ring->in_flight++;
}

static void post(struct iopf_ring *ring, struct iopf_slot *slot)
{
	slot->cut = false;
	if (slot->n_written < slot->n_answers)
		post_write(ring, slot);
	if (!ring->stopping)
		post_read(ring, slot);
}

void iopf_slot_answer(struct iopf_slot *slot, uint32_t cookie, uint32_t code)
{
	slot->answers[slot->n_answers++] = (struct iommu_hwpt_page_response){ cookie, code };
}

void iopf_ring_reply(struct iopf_ring *ring, struct iopf_slot *slot)
{
	post(ring, slot);
}

static int read_done(struct iopf_ring *ring, struct iopf_slot *slot, int res)
{
	if (res > 0) {
		slot->n_messages = (unsigned int)res / sizeof(*slot->messages);
		slot->n_answers = 0;
		slot->n_refused = 0;
		slot->n_written = 0;
		return IOPF_FAULTS;
	}
	if (ring->stopping && !slot->cut)
		return IOPF_TIMEOUT;
	if (slot->cut || res == -EINTR) {
		post(ring, slot);
		return IOPF_TIMEOUT;
	}
	return iopf_fail(ring->queue->io, res ? -res : ENODATA, "posted read of the fault queue");
}

static int write_done(struct iopf_ring *ring, struct iopf_slot *slot, int res)
{
	unsigned int wanted = slot->n_writing;

	slot->n_writing = 0;
	if (res < 0 && res != -EINVAL)
		return iopf_fail(ring->queue->io, -res, "write of %u answers", wanted);
	if (res < 0) {
		slot->n_refused++;
		slot->n_written++;
	} else {
		slot->n_written += (unsigned int)res / sizeof(*slot->answers);
	}
	slot->cut = res != (int)(wanted * sizeof(*slot->answers));
	if (slot->n_written == slot->n_answers)
		return IOPF_ANSWERED;
	if (ring->stopping)
		post(ring, slot);
	return IOPF_TIMEOUT;
}

static int complete(struct iopf_ring *ring, const struct io_uring_cqe *cqe,
		    struct iopf_slot **slot)
{
	uint64_t user_data = io_uring_cqe_get_data64(cqe);

	if (user_data == USER_DATA_CANCEL)
		return IOPF_TIMEOUT;
	ring->in_flight--;
	*slot = &ring->slots[user_data >> 1];
	if (user_data & 1)
		return write_done(ring, *slot, cqe->res);
	return read_done(ring, *slot, cqe->res);
}

int iopf_ring_next(struct iopf_ring *ring, unsigned int timeout_ms, struct iopf_slot **slot)
{
	struct __kernel_timespec ts = {
		.tv_sec = timeout_ms / 1000,
		.tv_nsec = timeout_ms % 1000 * 1000000LL,
	};
	struct io_uring_cqe *cqe = NULL;
	int rc;

	while (ring->in_flight) {
		if (io_uring_peek_cqe(&ring->uring, &cqe)) {
			rc = io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1, &ts, NULL);
			if (rc < 0 && rc != -ETIME)
				return rc == -EINTR ? rc :
				       iopf_fail(ring->queue->io, -rc, "wait in io_uring");
			if (rc == -ETIME || !cqe)
				return IOPF_TIMEOUT;
		}
		rc = complete(ring, cqe, slot);
		io_uring_cqe_seen(&ring->uring, cqe);
		if (rc)
			return rc;
	}
	return IOPF_TIMEOUT;
}

/* Messages, then answers, of all slots in one piece. */
static int alloc_slots(struct iopf_ring *ring)
{
	size_t n = (size_t)ring->n_slots * ring->slot_size;
	struct iommu_hwpt_page_response *answers;
	struct iommu_hwpt_pgfault *messages;
	unsigned int i;

	ring->slots = calloc(ring->n_slots, sizeof(*ring->slots));
	messages = calloc(n, sizeof(*messages) + sizeof(*answers));
	if (!ring->slots || !messages) {
		free(ring->slots);
		free(messages);
		return -ENOMEM;
	}
	answers = (void *)(messages + n);
	for (i = 0; i < ring->n_slots; i++) {
		ring->slots[i].messages = messages + (size_t)i * ring->slot_size;
		ring->slots[i].answers = answers + (size_t)i * ring->slot_size;
	}
	return 0;
}

static void free_slots(struct iopf_ring *ring)
{
	free(ring->slots[0].messages);
	free(ring->slots);
}

/*
 * The submission queue has room for a write and a read of each slot and for a
 * cancellation, and every wait empties it: io_uring_get_sqe() does not fail.
 * Completions are run by the waiting thread alone, where the kernel can do that
 * (6.1).
 */
static int init_uring(struct iopf_ring *ring)
{
	unsigned int entries = ring->n_slots * 2 + 1;
	int rc;

	rc = io_uring_queue_init(entries, &ring->uring,
				 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	if (rc == -EINVAL)
		rc = io_uring_queue_init(entries, &ring->uring, 0);
	return rc;
}

int iopf_ring_init(struct iopf_ring *ring, const struct iopf_queue *queue, unsigned int n_slots,
		   unsigned int slot_size)
{
	unsigned int i;
	int rc;

	*ring = (struct iopf_ring){ .queue = queue, .n_slots = n_slots, .slot_size = slot_size };
	if (!n_slots || !slot_size)
		return iopf_fail(queue->io, EINVAL, "a ring of %u x %u messages", n_slots,
				 slot_size);
	rc = alloc_slots(ring);
	if (rc)
		return iopf_fail(queue->io, -rc, "%u x %u messages", n_slots, slot_size);
	rc = init_uring(ring);
	if (rc) {
		free_slots(ring);
		return iopf_fail(queue->io, -rc, "set up io_uring");
	}
	for (i = 0; i < n_slots; i++)
		post(ring, &ring->slots[i]);
	return 0;
}

static void refuse_all(struct iopf_ring *ring, struct iopf_slot *slot)
{
	struct iopf_iter iter = iopf_groups(slot->messages, slot->n_messages);
	struct iopf_group group;

	while (iopf_next_group(&iter, &group) > 0)
		iopf_slot_answer(slot, group.cookie, IOMMUFD_PAGE_RESP_INVALID);
	iopf_ring_reply(ring, slot);
}

static void cancel_all(struct iopf_ring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	io_uring_prep_cancel(sqe, NULL, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
	io_uring_sqe_set_data64(sqe, USER_DATA_CANCEL);
}

void iopf_ring_exit(struct iopf_ring *ring)
{
	struct iopf_slot *slot;
	int tries, rc;

	ring->stopping = true;
	for (tries = 0; ring->in_flight && tries < CANCEL_TRIES; tries++) {
		cancel_all(ring);
		while ((rc = iopf_ring_next(ring, CANCEL_MS, &slot)) > 0) {
			if (rc == IOPF_FAULTS)
				refuse_all(ring, slot);
		}
	}
	io_uring_queue_exit(&ring->uring);
	free_slots(ring);
}
