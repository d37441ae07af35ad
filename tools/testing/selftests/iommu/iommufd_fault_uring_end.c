// SPDX-License-Identifier: GPL-2.0-only
/*
 * How a posted read ends that waits: by its fault, with its ring, thread or process,
 * and with the device and the queue.
 */
#include "iommufd_fault_reads.h"

TEST_F(reads, async_cancel)
{
	struct io_uring_sqe *sqe;
	struct io_uring_cqe cqe;
	unsigned int i;

	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, post(self, 2, 1));
	sqe = io_uring_get_sqe(&self->ring);
	io_uring_prep_cancel64(sqe, 0, 0);
	io_uring_sqe_set_data64(sqe, 1);
	ASSERT_EQ(0, submit(&self->ring));
	for (i = 0; i < 2; i++) {
		ASSERT_NE(-ETIME, completion(&self->ring, LONG_MS, &cqe));
		EXPECT_EQ(cqe.user_data ? 0 : -ECANCELED, cqe.res);
	}
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	EXPECT_EQ(MSG, result(&self->ring, 2));
	expect_quiet(&self->ring);
}

static void post_eight(struct __test_metadata *_metadata, reads_t *self)
{
	unsigned int i;

	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, post(self, i, 1));
}

static void *submit_and_end(void *ring)
{
	return (void *)(intptr_t)submit(ring);
}

/*
 * The thread that waits ends, its ring does not: its reads are cancelled when
 * their turn comes, and what they were woken for is another's.
 */
TEST_F(reads, thread_end)
{
	unsigned int i, got = 0;
	struct io_uring_cqe cqe;
	pthread_t thread;
	void *rc;

	if (variant->flags)
		SKIP(return, "no ring whose submitter can end before it");
	for (i = 0; i < 8; i++)
		prep_read(&self->ring, self->env.queue, self->m[i], MSG, i);
	ASSERT_EQ(0, pthread_create(&thread, NULL, submit_and_end, &self->ring));
	ASSERT_EQ(0, pthread_join(thread, &rc));
	ASSERT_EQ(NULL, rc);
	ASSERT_EQ(0, post(self, 8, 1));
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	while (!got) {
		ASSERT_NE(-ETIME, completion(&self->ring, LONG_MS, &cqe));
		EXPECT_EQ(cqe.user_data == 8 ? MSG : -ECANCELED, cqe.res);
		got = cqe.user_data == 8;
	}
	EXPECT_EQ(1, self->m[8][0].grpid);
}

/* What comes when they end, or then, is there for a read. */
TEST_F(reads, ring_exit)
{
	post_eight(_metadata, self);
	close_ring(self);
	ASSERT_EQ(0, inject(&self->env, 1, 8, 1));
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(self->env.queue, 0));
	EXPECT_EQ(1, take(_metadata, self->env.queue).grpid);
}

TEST_F(reads, ring_exit_started)
{
	if (!(variant->flags & IORING_SETUP_DEFER_TASKRUN))
		SKIP(return, "no time for that before task work runs");
	post_eight(_metadata, self);
	ASSERT_EQ(0, inject(&self->env, 1, 2, 1));
	close_ring(self);
	EXPECT_EQ(1, take(_metadata, self->env.queue).grpid);
	usleep(SHORT_MS * 1000);
	EXPECT_EQ(2, take(_metadata, self->env.queue).grpid);
}

/* What the reads of a ring that ends were woken for the next has. */
TEST_F(reads, ring_exit_passes_on)
{
	struct io_uring other;

	ASSERT_EQ(0, ring_open(&other, 0));
	post_eight(_metadata, self);
	prep_read(&other, self->env.queue, self->m[9], 2 * MSG, 9);
	ASSERT_EQ(0, submit(&other));
	if (variant->flags & IORING_SETUP_DEFER_TASKRUN)
		ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	close_ring(self);
	if (!(variant->flags & IORING_SETUP_DEFER_TASKRUN))
		ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	EXPECT_EQ(MSG, result(&other, 9));
	EXPECT_EQ(1, self->m[9][0].grpid);
	io_uring_queue_exit(&other);
}

/* How many groups somebody was given and has not answered */
static long count_delivered(reads_t *self)
{
	return fdinfo_number(self->env.queue, "iommufd-fault-delivered");
}

/* Faults come while rings end: each is read, once, or still there. */
TEST_F(reads, ring_exit_race)
{
	enum { EXITS = 30 };
	struct iommu_hwpt_pgfault m[ROOM];
	struct io_uring_cqe *cqe;
	unsigned int round;
	int ms = 0;
	pid_t pid;

	for (round = 0; round < EXITS; round++) {
		if (!self->has_ring)
			ASSERT_EQ(0, ring_open(&self->ring, variant->flags));
		self->has_ring = true;
		post_eight(_metadata, self);
		pid = fork();
		if (!pid)
			_exit(inject(&self->env, 0, 8, 1));
		if (round % 3 == 1)
			ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		if (round % 3)
			while (io_uring_wait_cqe(&self->ring, &cqe) == -EINTR)
				;
		close_ring(self);
		waitpid(pid, NULL, 0);
	}
	/* The last rings may still be ending, with reads that are woken. */
	while (count_delivered(self) < 8 * EXITS && ms++ < LONG_MS) {
		if (fault_read(self->env.queue, m, ROOM) <= 0)
			usleep(1000);
	}
	EXPECT_EQ(8 * EXITS, count_delivered(self));
	EXPECT_EQ(0, fault_read(self->env.queue, m, ROOM));
}

static pid_t start_victim(struct __test_metadata *_metadata, reads_t *self,
			  unsigned int flags)
{
	struct io_uring ring;
	int ready[2];
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid) {
		if (ring_open(&ring, flags))
			_exit(1);
		for (c = 0; c < 4; c++)
			prep_read(&ring, self->env.queue, self->m[0], MSG, c);
		if (submit(&ring) || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	EXPECT_EQ(1, read(ready[0], &c, 1));
	close(ready[0]);
	return pid;
}

TEST_F(reads, sigkill_pending)
{
	pid_t pid = start_victim(_metadata, self, variant->flags);

	kill_victim(_metadata, pid);
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	ASSERT_EQ(0, post(self, 0, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(1, self->m[0][0].grpid);
}

/* Its first read was woken, but the process does not come to run it. */
TEST_F(reads, sigkill_started)
{
	pid_t pid;

	if (!(variant->flags & IORING_SETUP_DEFER_TASKRUN))
		SKIP(return, "no time for that before task work runs");
	pid = start_victim(_metadata, self, variant->flags);
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, inject(&self->env, 2, 1, 1));
	kill_victim(_metadata, pid);
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(1, self->m[0][0].grpid);
	EXPECT_EQ(2, take(_metadata, self->env.queue).grpid);
}

/* A read keeps the file, and so the queue, until its ring goes. */
TEST_F(reads, close_queue)
{
	struct fault_env *env = &self->env;

	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, post(self, 1, 1));
	fault_env_close_queue(env);
	ASSERT_EQ(0, inject(env, 1, 1, 1));
	ASSERT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(1, self->m[0][0].grpid);
	EXPECT_EQ(-EBUSY, iommufd_destroy(env->fd, env->queue_id));
	expect_answers(_metadata, env, 0, 0);
	ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->plain_id));
	ASSERT_EQ(0, iommufd_destroy(env->fd, env->hwpt_id));
	env->hwpt_id = 0;
	EXPECT_EQ(-EBUSY, iommufd_destroy(env->fd, env->queue_id));
	expect_quiet(&self->ring);
	close_ring(self);
	EXPECT_EQ(0, fault_env_destroy_queue(env));
	ASSERT_EQ(0, fault_queue_alloc(env->fd, &env->queue_id, &env->queue));
}

/* Devices and HWPTs come and go; a read waits for whatever comes. */
TEST_F(reads, detach)
{
	struct fault_env *env = &self->env;

	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->plain_id));
	ASSERT_EQ(0, iommufd_destroy(env->fd, env->hwpt_id));
	EXPECT_EQ(-EBUSY, iommufd_destroy(env->fd, env->queue_id));
	expect_quiet(&self->ring);
	ASSERT_EQ(0, hwpt_alloc_paging(env->fd, env->dev.idev_id, env->ioas_id,
				       IOMMU_HWPT_FAULT_ID_VALID, env->queue_id, &env->hwpt_id));
	ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->hwpt_id));
	ASSERT_EQ(0, inject(env, 3, 1, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(3, self->m[0][0].grpid);
}

TEST_HARNESS_MAIN
