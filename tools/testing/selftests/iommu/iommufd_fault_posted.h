/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A queue that one device feeds, and a ring of io_uring that reads it.
 */
#ifndef __SELFTEST_IOMMUFD_FAULT_POSTED_H
#define __SELFTEST_IOMMUFD_FAULT_POSTED_H

#include "iommufd_fault_devs.h"

#define FEW 4 /* messages that a read here has room for */

#define READS 8
#define MANY_READS 32

FIXTURE(uring)
{
	struct env env;
	struct queue *queue;
	struct mock_device *dev;
	struct io_uring ring;
	struct iommu_hwpt_pgfault m[READS][FEW];
	uint32_t grpid;
};

FIXTURE_VARIANT(uring)
{
	unsigned int flags;
	unsigned int many_faults;
};

FIXTURE_VARIANT_ADD(uring, plain)
{
	.flags = 0,
	.many_faults = 4000,
};

FIXTURE_VARIANT_ADD(uring, defer_taskrun)
{
	.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	.many_faults = 4000,
};

/* For each fault its thread and ours wait for each other, long where processors are few. */
FIXTURE_VARIANT_ADD(uring, sqpoll)
{
	.flags = IORING_SETUP_SQPOLL,
	.many_faults = 500,
};

FIXTURE_SETUP(uring)
{
	/* Its thread does not spin for long: this takes a processor of its own. */
	struct io_uring_params params = { .flags = variant->flags, .sq_thread_idle = 1 };
	struct env *env = &self->env;
	uint32_t hwpt;

	self->dev = env_open_device(_metadata, env, 0);
	if (!self->dev)
		return;
	self->queue = env_queue(_metadata, env);
	hwpt = env_hwpt(_metadata, env, self->dev, false, 0, self->queue);
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, hwpt));
	ASSERT_EQ(0, io_uring_queue_init_params(64, &self->ring, &params));
}

static inline void ring_exit(struct io_uring *ring)
{
	if (ring->ring_fd >= 0)
		io_uring_queue_exit(ring);
	ring->ring_fd = -1;
}

/* With reads that are still posted the ring must go as well. */
FIXTURE_TEARDOWN(uring)
{
	ring_exit(&self->ring);
	env_close(_metadata, &self->env);
}

static inline struct io_uring_sqe *get_sqe(struct __test_metadata *_metadata, struct io_uring *ring,
					   uint64_t data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	ASSERT_NE(NULL, sqe);
	memset(sqe, 0, sizeof(*sqe));
	io_uring_sqe_set_data64(sqe, data);
	return sqe;
}

/* Post one read into m[i]; its completion carries i. */
static inline void post_read(struct __test_metadata *_metadata, struct _test_data_uring *self,
			     unsigned int i, unsigned int sqe_flags)
{
	struct io_uring_sqe *sqe = get_sqe(_metadata, &self->ring, i);

	io_uring_prep_read(sqe, self->queue->fd, self->m[i], sizeof(self->m[i]), 0);
	sqe->flags |= sqe_flags;
	sqe->user_data = i;
	ASSERT_EQ(0, submit(&self->ring));
}

static inline void send_one(struct __test_metadata *_metadata, struct _test_data_uring *self)
{
	inject_from(_metadata, &self->env, self->dev, ++self->grpid % 512, 1, 1);
}

/* The next completion is that of a read that got the group sent last. Returns which. */
static inline unsigned int got_one(struct __test_metadata *_metadata, struct _test_data_uring *self)
{
	struct io_uring_cqe cqe = {};

	ASSERT_EQ(MSG, completion(&self->ring, LONG_MS, &cqe));
	ASSERT_GT(READS, cqe.user_data);
	EXPECT_EQ(self->grpid % 512, self->m[cqe.user_data]->grpid);
	EXPECT_EQ(0, fault_answer(self->queue->fd, self->m[cqe.user_data]->cookie, SUCCESS));
	return cqe.user_data;
}

/*
 * Close the queue, and wait until nobody holds its file any more: then its one
 * group is answered. Reads that a ring has not let go of would keep the file.
 */
static inline void expect_released(struct __test_metadata *_metadata, struct _test_data_uring *self)
{
	struct iommu_test_iopf_stats s = {};
	int i;

	env_close_queue(_metadata, self->queue);
	for (i = 0; i < LONG_MS && !s.responses[INVALID]; i += SHORT_MS) {
		usleep(SHORT_MS * 1000);
		ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
	}
	EXPECT_EQ(1, s.responses[INVALID]);
}

#endif
