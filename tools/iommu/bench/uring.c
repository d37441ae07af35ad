// SPDX-License-Identifier: GPL-2.0-only
/*
 * The modes that use the queues through io_uring.
 *
 * Files and the ring itself are registered.  Answers are writes that complete
 * silently unless they fail.  They go into the kernel with the system call that
 * waits for the next fault; with spec.eager they do not wait for that, and the
 * kernel completes reads at any return to user space (no DEFER_TASKRUN), so
 * that a completion is often there without a system call to wait for it.  With
 * spec.plain they are given by write(2): the peer's file needs that, as its
 * writes through io_uring are tried over and over.
 */
#include <errno.h>
#include <stdlib.h>

#include "bench.h"
#include "lib/uring.h"

#define BUFFER_GROUP 1
/* of a submission queue, which is emptied if it is full */
#define MAX_ENTRIES 4096
#define SQPOLL_IDLE_MS 60000
#define SQPOLL_CPU 1

/* user_data: the number of a slot (posted) or queue (multishot), or a write */
#define IS_WRITE (1ull << 63)

struct slot {
	struct iommu_hwpt_pgfault *messages;
	struct iommu_hwpt_page_response *answers;
	unsigned int queue;
};

struct ring {
	struct io_uring uring;
	/* posted: one for each that waits; multishot: one for each buffer */
	struct slot *slots;
	unsigned int n_slots;
	struct io_uring_buf_ring *buffers;
	void (*completed)(struct bench *b, struct ring *ring, const struct io_uring_cqe *cqe);
	bool spin;
};

static inline struct io_uring_sqe *get_sqe(struct ring *ring)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&ring->uring)))
		io_uring_submit(&ring->uring);
	return sqe;
}

static void write_answers(struct bench *b, struct ring *ring, struct slot *slot, unsigned int n)
{
	struct io_uring_sqe *sqe;

	answer_all(b, slot->messages, n, slot->answers);
	if (b->spec.plain) {
		if (iopf_queue_write(&b->queues[slot->queue], slot->answers, n) != (int)n)
			b->answers -= n;
		return;
	}
	sqe = get_sqe(ring);
	io_uring_prep_write(sqe, slot->queue, slot->answers, n * sizeof(*slot->answers), 0);
	io_uring_sqe_set_data64(sqe, IS_WRITE);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
}

static void post_read(struct bench *b, struct ring *ring, unsigned int i)
{
	struct io_uring_sqe *sqe = get_sqe(ring);
	struct slot *slot = &ring->slots[i];

	io_uring_prep_read(sqe, slot->queue, slot->messages,
			   b->spec.batch * sizeof(*slot->messages), 0);
	io_uring_sqe_set_data64(sqe, i);
	sqe->flags |= IOSQE_FIXED_FILE;
}

static void post_multishot(struct ring *ring, unsigned int queue)
{
	struct io_uring_sqe *sqe = get_sqe(ring);

	prep_read_multishot(sqe, queue, BUFFER_GROUP);
	io_uring_sqe_set_data64(sqe, queue);
	sqe->flags |= IOSQE_FIXED_FILE;
}

static void posted_completed(struct bench *b, struct ring *ring, const struct io_uring_cqe *cqe)
{
	struct slot *slot = &ring->slots[cqe->user_data];

	if (cqe->res > 0)
		write_answers(b, ring, slot, cqe->res / sizeof(*slot->messages));
	else
		b->spurious++;
	post_read(b, ring, cqe->user_data);
}

static void put_buffer(struct bench *b, struct ring *ring, unsigned int i)
{
	io_uring_buf_ring_add(ring->buffers, ring->slots[i].messages,
			      b->spec.batch * sizeof(*ring->slots[i].messages), i,
			      io_uring_buf_ring_mask(b->spec.buffers), 0);
	io_uring_buf_ring_advance(ring->buffers, 1);
}

static void multishot_completed(struct bench *b, struct ring *ring,
				const struct io_uring_cqe *cqe)
{
	if (cqe->res > 0) {
		unsigned int i = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
		struct slot *slot = &ring->slots[i];

		slot->queue = cqe->user_data;
		write_answers(b, ring, slot, cqe->res / sizeof(*slot->messages));
		put_buffer(b, ring, i);
	} else {
		b->spurious++;
	}
	if (!(cqe->flags & IORING_CQE_F_MORE))
		post_multishot(ring, cqe->user_data);
}

/* Give the kernel what was prepared, and see that there is a completion. */
static int submit_and_wait(struct bench *b, struct ring *ring)
{
	int rc = 0;

	/* They may be there without a system call. */
	if (ring->spin || b->spec.eager)
		while (rc >= 0 && !io_uring_cq_ready(&ring->uring))
			rc = ring->spin ? io_uring_submit(&ring->uring) :
					  io_uring_submit_and_wait(&ring->uring, 1);
	else
		rc = io_uring_submit_and_wait(&ring->uring, 1);
	return rc < 0 ? iopf_fail(&b->io, -rc, "io_uring_enter") : 0;
}

static int complete(struct bench *b, struct ring *ring, const struct io_uring_cqe *cqe)
{
	if (cqe->user_data & IS_WRITE)
		return iopf_fail(&b->io, cqe->res < 0 ? -cqe->res : EIO, "write of answers");
	if (cqe->res < 0 && cqe->res != -ENOBUFS)
		return iopf_fail(&b->io, -cqe->res, "read through io_uring");
	ring->completed(b, ring, cqe);
	return 0;
}

static int ring_serve(struct bench *b)
{
	uint64_t end = b->messages + b->spec.batch;
	struct ring *ring = b->mode;
	struct io_uring_cqe *cqe;
	unsigned int head, n;
	int rc = 0;

	while (b->messages < end && !rc) {
		rc = submit_and_wait(b, ring);
		n = 0;
		io_uring_for_each_cqe(&ring->uring, head, cqe) {
			if (!rc)
				rc = complete(b, ring, cqe);
			n++;
		}
		io_uring_cq_advance(&ring->uring, n);
	}
	if (!rc && (b->spec.eager || ring->spin))
		io_uring_submit(&ring->uring);
	return rc;
}

static int ring_flush(struct bench *b)
{
	struct ring *ring = b->mode;
	int rc = io_uring_submit(&ring->uring);

	/* SQPOLL: the kernel's thread has taken it, but is it done? */
	while (rc >= 0 && ring->spin && io_uring_sq_ready(&ring->uring))
		;
	return rc < 0 ? iopf_fail(&b->io, -rc, "submit the last answers") : 0;
}

static int alloc_slots(struct bench *b, struct ring *ring, unsigned int n)
{
	unsigned int i;

	ring->slots = calloc(n, sizeof(*ring->slots));
	if (!ring->slots)
		return iopf_fail(&b->io, ENOMEM, "slots");
	ring->n_slots = n;
	for (i = 0; i < n; i++) {
		struct slot *slot = &ring->slots[i];

		slot->queue = i % b->n_queues;
		slot->messages = calloc(b->spec.batch, sizeof(*slot->messages));
		slot->answers = calloc(b->spec.batch, sizeof(*slot->answers));
		if (!slot->messages || !slot->answers)
			return iopf_fail(&b->io, ENOMEM, "slots");
	}
	return 0;
}

static int init_uring(struct bench *b, struct ring *ring, unsigned int entries)
{
	struct io_uring_params p = { .flags = DEFER_RING };
	int files[MAX_DEVICES], rc;
	unsigned int i;

	if (ring->spin) {
		p.flags = IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF;
		p.sq_thread_idle = SQPOLL_IDLE_MS;
		p.sq_thread_cpu = SQPOLL_CPU;
	} else if (b->spec.eager) {
		p.flags = IORING_SETUP_SINGLE_ISSUER;
	}
	if (entries > MAX_ENTRIES)
		entries = MAX_ENTRIES;
	rc = io_uring_queue_init_params(entries, &ring->uring, &p);
	if (rc)
		return iopf_fail(&b->io, -rc, "set up io_uring");
	for (i = 0; i < b->n_queues; i++)
		files[i] = b->queues[i].fd;
	rc = io_uring_register_files(&ring->uring, files, b->n_queues);
	if (rc >= 0)
		rc = io_uring_register_ring_fd(&ring->uring);
	return rc < 0 ? iopf_fail(&b->io, -rc, "register files") : 0;
}

static struct ring *new_ring(struct bench *b)
{
	struct ring *ring = calloc(1, sizeof(*ring));

	b->mode = ring;
	if (!ring)
		iopf_fail(&b->io, ENOMEM, "ring");
	return ring;
}

static int posted_open(struct bench *b)
{
	unsigned int n = b->spec.waiters * b->n_queues, i;
	struct ring *ring = new_ring(b);
	int rc;

	if (!ring)
		return -ENOMEM;
	ring->completed = posted_completed;
	rc = init_uring(b, ring, 2 * n);
	if (!rc)
		rc = alloc_slots(b, ring, n);
	for (i = 0; i < n && !rc; i++)
		post_read(b, ring, i);
	return rc ?: ring_flush(b);
}

static int open_multishot(struct bench *b, bool sqpoll)
{
	struct ring *ring = new_ring(b);
	unsigned int i, n = b->spec.waiters * b->n_queues;
	int rc;

	if (!ring)
		return -ENOMEM;
	ring->completed = multishot_completed;
	ring->spin = sqpoll;
	rc = init_uring(b, ring, b->spec.buffers + n);
	if (!rc)
		rc = alloc_slots(b, ring, b->spec.buffers);
	if (rc)
		return rc;
	ring->buffers = setup_buffers(&ring->uring, b->spec.buffers, BUFFER_GROUP, &rc);
	if (!ring->buffers)
		return iopf_fail(&b->io, -rc, "set up a buffer ring");
	for (i = 0; i < b->spec.buffers; i++)
		put_buffer(b, ring, i);
	for (i = 0; i < n; i++)
		post_multishot(ring, i % b->n_queues);
	return ring_flush(b);
}

static int multishot_open(struct bench *b)
{
	return open_multishot(b, false);
}

static int sqpoll_open(struct bench *b)
{
	return open_multishot(b, true);
}

static void ring_close(struct bench *b)
{
	struct ring *ring = b->mode;
	unsigned int i;

	if (!ring)
		return;
	io_uring_queue_exit(&ring->uring);
	for (i = 0; i < ring->n_slots; i++) {
		free(ring->slots[i].messages);
		free(ring->slots[i].answers);
	}
	free(ring->slots);
	free(ring);
}

const struct mode posted_mode = {
	.name = "posted", .open = posted_open, .serve = ring_serve, .flush = ring_flush,
	.close = ring_close,
};

const struct mode multishot_mode = {
	.name = "multishot", .open = multishot_open, .serve = ring_serve, .flush = ring_flush,
	.close = ring_close,
};

const struct mode sqpoll_mode = {
	.name = "sqpoll", .open = sqpoll_open, .serve = ring_serve, .flush = ring_flush,
	.close = ring_close,
};
