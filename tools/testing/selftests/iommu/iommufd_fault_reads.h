/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A queue that one device feeds, with a ring of each kind, and its posted reads.
 *
 * At their end all that was sent and all that was answered are compared, and the
 * queue is destroyed: that fails as long as a request holds its file, so none may
 * stay behind.
 */
#ifndef __SELFTEST_IOMMUFD_FAULT_READS_H
#define __SELFTEST_IOMMUFD_FAULT_READS_H

#include "iommufd_fault_env.h"

#define SLOTS 16

FIXTURE(reads)
{
	struct fault_env env;
	struct io_uring ring;
	bool has_ring;
	struct iommu_hwpt_pgfault m[SLOTS][ROOM];
};

typedef FIXTURE_DATA(reads) reads_t;

FIXTURE_VARIANT(reads)
{
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(reads, plain)
{
	.flags = 0,
};

FIXTURE_VARIANT_ADD(reads, defer)
{
	.flags = DEFER,
};

FIXTURE_VARIANT_ADD(reads, large)
{
	.flags = DEFER | IORING_SETUP_SQE128 | IORING_SETUP_CQE32,
};

FIXTURE_VARIANT_ADD(reads, sqpoll)
{
	.flags = IORING_SETUP_SQPOLL,
};

FIXTURE_SETUP(reads)
{
	fault_env_flags(_metadata, &self->env, 0);
	if (_metadata->exit_code)
		return;
	ASSERT_EQ(0, ring_open(&self->ring, variant->flags));
	self->has_ring = true;
}

static inline void close_ring(reads_t *self)
{
	if (self->has_ring)
		io_uring_queue_exit(&self->ring);
	self->has_ring = false;
}

FIXTURE_TEARDOWN(reads)
{
	close_ring(self);
	fault_env_close(_metadata, &self->env);
}

static inline int post(reads_t *self, unsigned int slot, unsigned int room)
{
	prep_read(&self->ring, self->env.queue, self->m[slot], room * MSG, slot);
	return submit(&self->ring);
}

static inline struct io_uring_sqe *prep_answers(struct io_uring *ring, int queue,
						const struct iommu_hwpt_page_response *answers,
						unsigned int n, uint64_t user_data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	io_uring_prep_write(sqe, queue, answers, n * ANSWER, 0);
	io_uring_sqe_set_data64(sqe, user_data);
	return sqe;
}

#endif
