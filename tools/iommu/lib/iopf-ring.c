// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Faults of a queue, by slots; and how io_uring brings them.
 *
 * A slot's life with IOPF_READ: read under way -> IOPF_FAULTS, the caller's ->
 * reply: a write of the answers with the next read linked behind it.  A write
 * that ends early (an answer was refused, its group being gone) breaks the link:
 * the read comes back cancelled, and then the rest is sent in the same way.
 *
 * With IOPF_MULTISHOT a slot is a buffer of one read that does not end, so there
 * is nothing to link: the slot goes back to the kernel when its write is done.
 * The read ends when it finds no buffer, and is posted again with the next.
 *
 * A group that has no room in a slot ends a read with -EINVAL and stays the queue's
 * first.  It is read into the large slot at once; while the caller has that, such
 * reads are not posted again.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "impl.h"
#include "uring.h"

#define USER_DATA_CANCEL UINT64_MAX
#define USER_DATA_MULTISHOT (UINT64_MAX - 1)
#define BUFFER_GROUP 0
/* A cancellation misses a read that is just being issued: try again after this long. */
#define CANCEL_MS 100
#define CANCEL_TRIES 10

static uint64_t user_data_of(struct iopf_ring_impl *ring, struct ring_slot *slot, bool write)
{
	return (uint64_t)(slot - ring->slots) << 1 | write;
}

/* Is a read linked behind the slot's write? */
static bool links(struct iopf_ring_impl *ring, const struct ring_slot *slot)
{
	return ring->mode == IOPF_READ && !ring->stopping && slot != large_slot(ring);
}

static void post_write(struct iopf_ring_impl *ring, struct ring_slot *slot)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	slot->n_writing = slot->pub.n_answers - slot->n_written;
	io_uring_prep_write(sqe, ring->queue->fd, slot->pub.answers + slot->n_written,
			    slot->n_writing * sizeof(*slot->pub.answers), -1);
	io_uring_sqe_set_data64(sqe, user_data_of(ring, slot, true));
	if (links(ring, slot))
		sqe->flags |= IOSQE_IO_LINK;
	ring->in_flight++;
}

static void post_read(struct iopf_ring_impl *ring, struct ring_slot *slot)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	io_uring_prep_read(sqe, ring->queue->fd, slot->pub.messages,
			   ring->slot_size * sizeof(*slot->pub.messages), -1);
	io_uring_sqe_set_data64(sqe, user_data_of(ring, slot, false));
	ring->in_flight++;
}

static void post_multishot(struct iopf_ring_impl *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	prep_read_multishot(sqe, ring->queue->fd, BUFFER_GROUP);
	io_uring_sqe_set_data64(sqe, USER_DATA_MULTISHOT);
	ring->armed = true;
	ring->in_flight++;
}

static void give_buffer(struct iopf_ring_impl *ring, struct ring_slot *slot)
{
	io_uring_buf_ring_add(ring->buffers, slot->pub.messages,
			      ring->slot_size * sizeof(*slot->pub.messages), slot - ring->slots,
			      io_uring_buf_ring_mask(ring->n_entries), 0);
	io_uring_buf_ring_advance(ring->buffers, 1);
	ring->n_given++;
	if (!ring->armed)
		post_multishot(ring);
}

/* The next large group can be taken, so reads that would meet it go on. */
static void free_large(struct iopf_ring_impl *ring)
{
	unsigned int i;

	large_slot(ring)->state = SLOT_FREE;
	if (ring->stopping)
		return;
	if (ring->mode == IOPF_MULTISHOT && !ring->armed && ring->n_given)
		post_multishot(ring);
	for (i = 0; i < ring->n_slots; i++) {
		if (!ring->slots[i].parked)
			continue;
		ring->slots[i].parked = false;
		post_read(ring, &ring->slots[i]);
	}
}

static void post(struct iopf_ring_impl *ring, struct ring_slot *slot)
{
	slot->cut = false;
	if (slot->n_written < slot->pub.n_answers)
		post_write(ring, slot);
	else if (slot == large_slot(ring))
		free_large(ring);
	else if (ring->mode == IOPF_MULTISHOT && !ring->stopping)
		give_buffer(ring, slot);
	if (links(ring, slot))
		post_read(ring, slot);
}

int slot_filled(struct ring_slot *slot, unsigned int n)
{
	slot->pub.n_messages = n;
	slot->pub.n_answers = 0;
	slot->pub.n_refused = 0;
	slot->n_written = 0;
	return IOPF_FAULTS;
}

static int faults_came(struct ring_slot *slot, int bytes)
{
	return slot_filled(slot, (unsigned int)bytes / sizeof(*slot->pub.messages));
}

/* Read the group that no slot has room for; IOPF_TIMEOUT: another reader was quicker. */
static int take_large(struct iopf_ring_impl *ring, struct ring_slot **slot)
{
	struct ring_slot *large = large_slot(ring);
	struct iovec iov = { large->pub.messages, MAX_GROUP * sizeof(*large->pub.messages) };
	ssize_t n = preadv2(ring->queue->fd, &iov, 1, -1, RWF_NOWAIT);

	if (n < 0 && errno != EAGAIN)
		return iopf_fail(ring->queue->io, errno, "read of a large group");
	if (n <= 0)
		return IOPF_TIMEOUT;
	large->state = SLOT_TAKEN;
	*slot = large;
	return faults_came(large, (int)n);
}

static int read_has_no_room(struct iopf_ring_impl *ring, struct ring_slot **slot)
{
	struct ring_slot *small = *slot;
	int rc = IOPF_TIMEOUT;

	small->parked = large_slot(ring)->state != SLOT_FREE;
	if (!small->parked) {
		rc = take_large(ring, slot);
		post_read(ring, small);
	}
	return rc;
}

static int read_done(struct iopf_ring_impl *ring, struct ring_slot **found, int res)
{
	struct ring_slot *slot = *found;

	if (res > 0)
		return faults_came(slot, res);
	if (ring->stopping && !slot->cut)
		return IOPF_TIMEOUT;
	if (slot->cut || res == -EINTR) {
		post(ring, slot);
		return IOPF_TIMEOUT;
	}
	if (res == -EINVAL)
		return read_has_no_room(ring, found);
	/* nothing: no fault can come any more */
	return iopf_fail(ring->queue->io, res ? -res : ENODEV, "posted read of the fault queue");
}

static int write_done(struct iopf_ring_impl *ring, struct ring_slot *slot, int res)
{
	unsigned int wanted = slot->n_writing;

	slot->n_writing = 0;
	/* an unknown cookie, or one whose group the kernel has answered meanwhile */
	if (res < 0 && res != -EINVAL && res != -ESTALE)
		return iopf_fail(ring->queue->io, -res, "write of %u answers", wanted);
	if (res < 0) {
		slot->pub.n_refused++;
		slot->n_written++;
	} else {
		slot->n_written += (unsigned int)res / sizeof(*slot->pub.answers);
	}
	slot->cut = res != (int)(wanted * sizeof(*slot->pub.answers));
	/* The read that is linked to it posts the rest, if there is one. */
	if (!links(ring, slot))
		post(ring, slot);
	return slot->n_written == slot->pub.n_answers ? IOPF_ANSWERED : IOPF_TIMEOUT;
}

/* The read has ended; while the caller has the large slot it stays so. */
static int multishot_has_no_room(struct iopf_ring_impl *ring, struct ring_slot **slot)
{
	int rc;

	if (large_slot(ring)->state != SLOT_FREE)
		return IOPF_TIMEOUT;
	rc = take_large(ring, slot);
	if (ring->n_given)
		post_multishot(ring);
	return rc;
}

static int multishot_done(struct iopf_ring_impl *ring, const struct io_uring_cqe *cqe,
			  struct ring_slot **slot)
{
	if (cqe->res > 0)
		ring->n_given--;
	if (!(cqe->flags & IORING_CQE_F_MORE)) {
		ring->armed = false;
		ring->in_flight--;
		if (!ring->stopping && ring->n_given && (cqe->res > 0 || cqe->res == -ENOBUFS))
			post_multishot(ring);
	}
	if (cqe->res > 0) {
		*slot = &ring->slots[cqe->flags >> IORING_CQE_BUFFER_SHIFT];
		return faults_came(*slot, cqe->res);
	}
	if (ring->stopping || cqe->res == -ENOBUFS)
		return IOPF_TIMEOUT;
	if (cqe->res == -EINVAL)
		return multishot_has_no_room(ring, slot);
	return iopf_fail(ring->queue->io, cqe->res ? -cqe->res : ENODEV,
			 "posted read of the fault queue");
}

static int complete(struct iopf_ring_impl *ring, const struct io_uring_cqe *cqe,
		    struct ring_slot **slot)
{
	uint64_t user_data = io_uring_cqe_get_data64(cqe);

	if (user_data == USER_DATA_CANCEL)
		return IOPF_TIMEOUT;
	if (user_data == USER_DATA_MULTISHOT)
		return multishot_done(ring, cqe, slot);
	*slot = &ring->slots[user_data >> 1];
	ring->in_flight--;
	if (user_data & 1)
		return write_done(ring, *slot, cqe->res);
	return read_done(ring, slot, cqe->res);
}

/* Submit and wait; 0: there is a completion; else -ETIME or another error. */
static int wait_completion(struct iopf_ring_impl *ring, unsigned int timeout_ms,
			   struct io_uring_cqe **cqe)
{
	struct __kernel_timespec ts = {
		.tv_sec = timeout_ms / 1000,
		.tv_nsec = timeout_ms % 1000 * 1000000LL,
	};
	int rc = io_uring_submit_and_wait_timeout(&ring->uring, cqe, 1,
						  timeout_ms == IOPF_FOREVER ? NULL : &ts, NULL);

	if (rc >= 0)
		return *cqe ? 0 : -ETIME;
	if (rc == -EINTR || rc == -ETIME)
		return rc;
	return iopf_fail(ring->queue->io, -rc, "wait in io_uring");
}

static int uring_next(struct iopf_ring_impl *ring, unsigned int timeout_ms,
		      struct ring_slot **slot)
{
	struct io_uring_cqe *cqe = NULL;
	int rc;

	while (ring->in_flight) {
		if (io_uring_peek_cqe(&ring->uring, &cqe)) {
			rc = wait_completion(ring, timeout_ms, &cqe);
			if (rc)
				return rc == -ETIME ? IOPF_TIMEOUT : rc;
		}
		rc = complete(ring, cqe, slot);
		io_uring_cqe_seen(&ring->uring, cqe);
		if (rc)
			return rc;
	}
	return IOPF_TIMEOUT;
}

/*
 * Messages, then answers, of all slots in one piece.  What the large slot has of it
 * costs an address until it is used.
 */
static int alloc_slots(struct iopf_ring_impl *ring)
{
	size_t n = (size_t)ring->n_slots * ring->slot_size + MAX_GROUP;
	struct iommu_hwpt_page_response *answers;
	struct iommu_hwpt_pgfault *messages;
	unsigned int i;

	ring->slots = calloc(ring->n_slots + 1, sizeof(*ring->slots));
	messages = calloc(n, sizeof(*messages) + sizeof(*answers));
	if (!ring->slots || !messages) {
		free(ring->slots);
		free(messages);
		return -ENOMEM;
	}
	answers = (void *)(messages + n);
	for (i = 0; i <= ring->n_slots; i++) {
		ring->slots[i].pub.messages = messages + (size_t)i * ring->slot_size;
		ring->slots[i].pub.answers = answers + (size_t)i * ring->slot_size;
	}
	return 0;
}

static void free_slots(struct iopf_ring_impl *ring)
{
	free(ring->slots[0].pub.messages);
	free(ring->slots);
}

/*
 * The submission queue has room for a write and a read of each slot, one write more,
 * a multishot read and a cancellation, and every wait empties it: io_uring_get_sqe() does
 * not fail.
 * Completions are run by the waiting thread alone, where the kernel can do that
 * (6.1).
 */
static int init_uring(struct iopf_ring_impl *ring)
{
	unsigned int entries = ring->n_slots * 2 + 3;
	int rc;

	rc = io_uring_queue_init(entries, &ring->uring,
				 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	if (rc == -EINVAL)
		rc = io_uring_queue_init(entries, &ring->uring, 0);
	return rc;
}

static int init_buffers(struct iopf_ring_impl *ring)
{
	int rc = 0;

	for (ring->n_entries = 1; ring->n_entries < ring->n_slots; ring->n_entries *= 2)
		;
	ring->buffers = setup_buffers(&ring->uring, ring->n_entries, BUFFER_GROUP, &rc);
	return rc;
}

static bool uses_uring(const struct iopf_ring_impl *ring)
{
	return ring->mode == IOPF_READ || ring->mode == IOPF_MULTISHOT;
}

/*
 * What there is of what was asked for.  A process may be kept from io_uring, by a
 * filter or a setting of the system: then without.
 */
static enum iopf_mode usable_mode(struct iopf_ring_impl *ring)
{
	int fd = ring->queue->fd;

	if (uses_uring(ring) && has_posted_reads(fd) && !init_uring(ring))
		return ring->mode;
	return ring->mode != IOPF_POLL && has_serve(fd) ? IOPF_SERVE : IOPF_POLL;
}

static int start(struct iopf_ring_impl *ring)
{
	unsigned int i;
	int rc = 0;

	ring->mode = usable_mode(ring);
	if (ring->mode == IOPF_MULTISHOT)
		rc = init_buffers(ring);
	if (rc)
		io_uring_queue_exit(&ring->uring);
	for (i = 0; !rc && uses_uring(ring) && i < ring->n_slots; i++)
		post(ring, &ring->slots[i]);
	return rc;
}

int iopf_ring_init_mode(struct iopf_ring *ring, const struct iopf_queue *queue,
			enum iopf_mode mode, unsigned int n_slots, unsigned int slot_size)
{
	struct iopf_ring_impl *impl;
	int rc;

	if (!n_slots || !slot_size)
		return iopf_fail(queue->io, EINVAL, "a ring of %u x %u messages", n_slots,
				 slot_size);
	impl = calloc(1, sizeof(*impl));
	rc = impl ? 0 : -ENOMEM;
	if (!rc) {
		impl->queue = queue;
		impl->mode = mode;
		impl->n_slots = n_slots;
		impl->slot_size = slot_size;
		rc = alloc_slots(impl);
	}
	if (rc) {
		free(impl);
		return iopf_fail(queue->io, -rc, "%u x %u messages", n_slots, slot_size);
	}
	rc = start(impl);
	if (rc) {
		free_slots(impl);
		free(impl);
		return iopf_fail(queue->io, -rc, "set up io_uring");
	}
	*ring = (struct iopf_ring){ impl->mode, impl };
	return 0;
}

int iopf_ring_init(struct iopf_ring *ring, const struct iopf_queue *queue, unsigned int n_slots,
		   unsigned int slot_size)
{
	return iopf_ring_init_mode(ring, queue, IOPF_SERVE, n_slots, slot_size);
}

const char *iopf_mode_name(enum iopf_mode mode)
{
	static const char *const names[] = {
		[IOPF_SERVE] = "serve", [IOPF_READ] = "read", [IOPF_MULTISHOT] = "multishot",
		[IOPF_POLL] = "poll",
	};

	return names[mode];
}

static struct ring_slot *to_ring_slot(struct iopf_slot *slot)
{
	return (struct ring_slot *)slot;
}

void iopf_slot_answer(struct iopf_slot *slot, uint32_t cookie, uint32_t code)
{
	slot->answers[slot->n_answers++] = (struct iommu_hwpt_page_response){ cookie, code };
}

void iopf_ring_reply(struct iopf_ring *ring, struct iopf_slot *slot)
{
	if (uses_uring(ring->impl))
		post(ring->impl, to_ring_slot(slot));
	else
		plain_reply(ring->impl, to_ring_slot(slot));
}

int iopf_ring_next(struct iopf_ring *ring, unsigned int timeout_ms, struct iopf_slot **slot)
{
	struct ring_slot *found = NULL;
	int rc;

	if (uses_uring(ring->impl))
		rc = uring_next(ring->impl, timeout_ms, &found);
	else
		rc = plain_next(ring->impl, timeout_ms, &found);
	*slot = found ? &found->pub : NULL;
	return rc;
}

int iopf_ring_fd(const struct iopf_ring *ring)
{
	return uses_uring(ring->impl) ? ring->impl->uring.ring_fd : ring->impl->queue->fd;
}

int iopf_ring_flush(struct iopf_ring *ring)
{
	int rc;

	if (!uses_uring(ring->impl))
		return plain_flush(ring->impl);
	rc = io_uring_submit(&ring->impl->uring);
	return rc < 0 ? iopf_fail(ring->impl->queue->io, -rc, "submit to io_uring") : 0;
}

void slot_refuse(struct ring_slot *slot)
{
	struct iopf_iter iter = iopf_groups(slot->pub.messages, slot->pub.n_messages);
	struct iopf_group group;

	while (iopf_next_group(&iter, &group) > 0)
		iopf_slot_answer(&slot->pub, group.cookie, IOMMUFD_PAGE_RESP_INVALID);
}

static void cancel_all(struct iopf_ring_impl *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	io_uring_prep_cancel(sqe, NULL, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
	io_uring_sqe_set_data64(sqe, USER_DATA_CANCEL);
}

static void stop_reads(struct iopf_ring_impl *ring)
{
	struct ring_slot *slot;
	int tries, rc;

	for (tries = 0; ring->in_flight && tries < CANCEL_TRIES; tries++) {
		cancel_all(ring);
		while ((rc = uring_next(ring, CANCEL_MS, &slot)) > 0) {
			if (rc != IOPF_FAULTS)
				continue;
			slot_refuse(slot);
			post(ring, slot);
		}
	}
}

static void stop(struct iopf_ring_impl *ring)
{
	ring->stopping = true;
	stop_reads(ring);
	if (ring->buffers)
		free_buffers(&ring->uring, ring->buffers, ring->n_entries, BUFFER_GROUP);
	io_uring_queue_exit(&ring->uring);
}

int iopf_ring_serve(struct iopf_ring *ring, unsigned int timeout_ms,
		    uint32_t (*serve)(void *arg, const struct iopf_group *group), void *arg)
{
	struct iopf_group group;
	struct iopf_slot *slot;
	struct iopf_iter iter;
	int event, rc;

	event = iopf_ring_next(ring, timeout_ms, &slot);
	if (event != IOPF_FAULTS)
		return event;
	iter = iopf_groups(slot->messages, slot->n_messages);
	while ((rc = iopf_next_group(&iter, &group)) > 0)
		iopf_slot_answer(slot, group.cookie, serve(arg, &group));
	if (rc)
		return iopf_fail(ring->impl->queue->io, -rc, "a message that ends no group");
	iopf_ring_reply(ring, slot);
	return event;
}

void iopf_ring_exit(struct iopf_ring *ring)
{
	struct iopf_ring_impl *impl = ring->impl;

	if (uses_uring(impl))
		stop(impl);
	else
		plain_stop(impl);
	free_slots(impl);
	free(impl);
	ring->impl = NULL;
}

unsigned int iopf_ring_in_flight(const struct iopf_ring *ring)
{
	return ring->impl ? ring->impl->in_flight : 0;
}
