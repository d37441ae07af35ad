// SPDX-License-Identifier: GPL-2.0-only
/*
 * Groups of requests, complete and not, and what a device and a queue have room
 * for.
 */
/* Some send as many requests as a mock device ever may have outstanding. */
#define HARNESS_RESERVE 8448

#include "iommufd_fault_queue.h"

/* ---- groups ---- */

TEST_F(fault, partial_then_last)
{
	struct iommu_hwpt_pgfault m[4];
	int fd = self->queue->fd;

	inject_partial(_metadata, &self->env, self->dev, 0, 5, 3);
	expect_empty(_metadata, fd);
	ASSERT_EQ(0, iopf_inject(self->env.fd, self->dev->idev_id, 0, 5, ADDR + 3 * PAGE, 1, 1,
				 0));
	ASSERT_EQ(4, fault_read(fd, m, 4));
	EXPECT_EQ(ADDR, m[0].addr);
	EXPECT_EQ(ADDR + PAGE, m[1].addr);
	EXPECT_EQ(ADDR + 2 * PAGE, m[2].addr);
	EXPECT_EQ(ADDR + 3 * PAGE, m[3].addr);
	EXPECT_EQ(IOMMU_PGFAULT_FLAGS_LAST_PAGE, m[3].flags);
	EXPECT_EQ(0, m[0].flags | m[1].flags | m[2].flags);
	EXPECT_EQ(0, fault_answer(fd, m[3].cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
}

TEST_F(fault, interleaved_groups)
{
	struct iommu_hwpt_pgfault m[12];
	unsigned int i;

	ASSERT_EQ(0, iopf_inject(self->env.fd, self->dev->idev_id, 0, 30, ADDR, 4, 3,
				 IOMMU_TEST_IOPF_INTERLEAVE));
	ASSERT_EQ(12, fault_read(self->queue->fd, m, 12));
	for (i = 0; i < 12; i++) {
		EXPECT_EQ(30 + i / 3, m[i].grpid);
		EXPECT_EQ(m[i / 3 * 3].cookie, m[i].cookie);
		EXPECT_EQ(ADDR + (i % 3 * 4 + i / 3) * PAGE, m[i].addr);
	}
}

/* A group takes any number of requests that the device may have outstanding. */
TEST_F(fault, large_group)
{
	enum { N = 1000 };
	struct iommu_hwpt_pgfault *m = anonymous(_metadata, (N + 1) * MSG);
	int fd = self->queue->fd;
	unsigned int i;

	inject_from(_metadata, &self->env, self->dev, 1, 1, N);
	EXPECT_EQ(-EINVAL, fault_read(fd, m, N - 1));
	ASSERT_EQ(N, fault_read(fd, m, N + 1));
	for (i = 0; i < N; i++) {
		ASSERT_EQ(ADDR + i * PAGE, m[i].addr);
		ASSERT_EQ(m[0].cookie, m[i].cookie);
		ASSERT_EQ(i == N - 1 ? IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0, m[i].flags);
	}
	EXPECT_EQ(0, fault_answer(fd, m[0].cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
}

/* Requests of the old attachment are not the next one's. */
TEST_F(fault, partial_across_replace)
{
	struct queue *other = env_queue(_metadata, &self->env);
	uint32_t hwpt = env_hwpt(_metadata, &self->env, self->dev, variant->nested, 0, other);
	struct iommu_hwpt_pgfault m[4];

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	inject_partial(_metadata, &self->env, self->dev, 0, 5, 2);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, hwpt));
	inject_from(_metadata, &self->env, self->dev, 5, 1, 1);
	expect_empty(_metadata, self->queue->fd);
	EXPECT_EQ(1, fault_read(other->fd, m, 4));
}

/* The device goes with requests whose last one has not come: no answer, no leak. */
TEST_F(fault, partial_then_detach)
{
	struct iommu_test_iopf_stats s;

	inject_partial(_metadata, &self->env, self->dev, 0, 5, 3);
	env_destroy_device(_metadata, &self->env, self->dev);
	ASSERT_EQ(0, iopf_stats(self->env.fd, 0, &s));
	EXPECT_EQ(3, s.requests);
	EXPECT_EQ(0, s.groups);
	EXPECT_EQ(0, s.responses[0] + s.responses[1] + s.responses[2]);
	expect_empty(_metadata, self->queue->fd);
}

/* Nobody handles faults on the HWPT, and none has ever been attached that would. */
TEST_F(fault, no_handler)
{
	struct mock_device *dev = env_device(_metadata, &self->env, self->env.ioas_id, 0);

	inject_from(_metadata, &self->env, dev, 1, 2, 3);
	expect_answers_of(_metadata, &self->env, dev, 0, 2);
	expect_empty(_metadata, self->queue->fd);
}

/* ---- limits ---- */

/* A device that was told to try again has its answer a moment later. */
static void expect_success(struct __test_metadata *_metadata, struct env *env,
			   const struct mock_device *dev, uint64_t n)
{
	struct iommu_test_iopf_stats s;
	int ms;

	for (ms = 0; ms < LONG_MS; ms++) {
		ASSERT_EQ(0, iopf_stats(env->fd, dev->idev_id, &s));
		if (s.responses[SUCCESS] >= n)
			break;
		usleep(1000);
	}
	EXPECT_EQ(n, s.responses[SUCCESS]);
	EXPECT_EQ(0, s.responses[INVALID]);
}

/* As many groups as the queue holds wait; the others are to come again. */
TEST_F(fault, depth_of_device)
{
	struct iommu_hwpt_page_response *r = anonymous(_metadata, DEPTH * ANSWER);
	uint32_t id = self->dev->idev_id, i;
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)&id, .nr_devs = 1, .nr_pasids = 1, .groups = DEPTH + 100,
		.requests = 1,
	};
	int fd = self->queue->fd;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	ASSERT_EQ(0, iopf_batch(self->env.fd, &batch));
	EXPECT_EQ(DEPTH, batch.out_accepted);
	expect_success(_metadata, &self->env, self->dev, 100);
	EXPECT_EQ(DEPTH, fdinfo_number(fd, "iommufd-fault-queued"));
	for (i = 0; i < DEPTH; i++) {
		struct iommu_hwpt_pgfault m = take(_metadata, fd);

		ASSERT_EQ(i, m.grpid);
		r[i] = (struct iommu_hwpt_page_response){ m.cookie, SUCCESS };
	}
	expect_empty(_metadata, fd);
	EXPECT_EQ(DEPTH, fault_write(fd, r, DEPTH));
	expect_answers_of(_metadata, &self->env, self->dev, DEPTH + 100, 0);
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	EXPECT_EQ(0, fault_answer(fd, take(_metadata, fd).cookie, SUCCESS));
}

/*
 * A queue that one device has filled before another one came takes nothing of that
 * until it is answered, and then nothing of the first until the other has its share.
 */
TEST_F(fault, depth_of_queue)
{
	struct mock_device *dev = env_device(_metadata, &self->env, self->env.ioas_id, 0);
	struct iommu_hwpt_pgfault m;
	int fd = self->queue->fd;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	inject_from(_metadata, &self->env, self->dev, 0, DEPTH, 1);
	ASSERT_EQ(0, mock_replace(self->env.fd, dev->stdev_id, self->hwpt_id));
	inject_from(_metadata, &self->env, dev, 0, 10, 2);
	expect_success(_metadata, &self->env, dev, 10);
	m = take(_metadata, fd);
	inject_from(_metadata, &self->env, dev, 0, 1, 1);
	expect_success(_metadata, &self->env, dev, 11);
	EXPECT_EQ(0, fault_answer(fd, m.cookie, SUCCESS));
	inject_from(_metadata, &self->env, self->dev, 0, 1, 1);
	expect_success(_metadata, &self->env, self->dev, 2);
	inject_from(_metadata, &self->env, dev, 0, 2, 1);
	expect_success(_metadata, &self->env, dev, 12);
	/* detaching the greedy one leaves the other's */
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->plain_id));
	expect_answers_of(_metadata, &self->env, self->dev, DEPTH + 1, 0);
	m = take(_metadata, fd);
	EXPECT_EQ(dev->idev_id, m.dev_id);
	EXPECT_EQ(0, fault_answer(fd, m.cookie, SUCCESS));
	expect_empty(_metadata, fd);
	expect_answers_of(_metadata, &self->env, dev, 13, 0);
}

/* How many requests of one device are kept: what it may send, and not without end. */
static unsigned int find_limit(struct __test_metadata *_metadata, struct env *env,
			       const struct mock_device *dev, uint32_t plain_id, uint32_t hwpt_id)
{
	uint32_t id = dev->idev_id;
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)&id, .nr_devs = 1, .nr_pasids = 1, .groups = 8 * DEPTH,
		.requests = 1, .flags = IOMMU_TEST_IOPF_NO_LAST,
	};

	EXPECT_EQ(0, iopf_batch(env->fd, &batch));
	EXPECT_LE(DEPTH, batch.out_accepted);
	EXPECT_GT(8 * DEPTH, batch.out_accepted);
	/* forget them */
	EXPECT_EQ(0, mock_replace(env->fd, dev->stdev_id, plain_id));
	EXPECT_EQ(0, mock_replace(env->fd, dev->stdev_id, hwpt_id));
	return batch.out_accepted;
}

/*
 * A group that lost a request for want of memory is not whole, so it is answered
 * for the user; the next one with its id is whole again. Group 7 never finds
 * room, of group 8 only the last request does.
 */
TEST_F(fault, group_without_room)
{
	struct env *env = &self->env;
	int i, fd = self->queue->fd;
	struct iommu_hwpt_pgfault m[2];
	unsigned int limit;

	if (!env->additions)
		SKIP(return, ONLY_INJECTOR);
	limit = find_limit(_metadata, env, self->dev, self->plain_id, self->hwpt_id);
	ASSERT_EQ(0, iopf_inject(env->fd, self->dev->idev_id, 0, 1000, ADDR, limit, 1,
				 IOMMU_TEST_IOPF_NO_LAST));
	inject_from(_metadata, env, self->dev, 7, 1, 2);
	expect_answers_of(_metadata, env, self->dev, 0, 1);
	inject_partial(_metadata, env, self->dev, 0, 8, 1);

	/* one of the many is completed and makes room */
	inject_from(_metadata, env, self->dev, 1000, 1, 1);
	ASSERT_EQ(2, fault_read(fd, m, 2));
	EXPECT_EQ(0, fault_answer(fd, m[1].cookie, SUCCESS));
	inject_from(_metadata, env, self->dev, 8, 1, 1);
	expect_answers_of(_metadata, env, self->dev, 1, 2);
	expect_empty(_metadata, fd);
	for (i = 7; i <= 8; i++) {
		inject_from(_metadata, env, self->dev, i, 1, 2);
		ASSERT_EQ(2, fault_read(fd, m, 2));
		EXPECT_EQ(i, m[0].grpid);
		EXPECT_EQ(0, fault_answer(fd, m[1].cookie, SUCCESS));
	}
	expect_answers_of(_metadata, env, self->dev, 3, 2);
}

/* A group that lost a request is void, and no other one is. */
TEST_F(fault, void_group)
{
	uint32_t id = self->dev->idev_id;
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)&id, .nr_devs = 1, .nr_pasids = 1, .groups = 1,
		.requests = 1, .grpid = 5, .flags = IOMMU_TEST_IOPF_NO_LAST,
		.prm_flags = PRM_REFUSED,
	};
	struct iommu_hwpt_pgfault m[2];
	int fd = self->queue->fd;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	ASSERT_EQ(0, iopf_batch(self->env.fd, &batch));
	/* ids that only differ in higher bits */
	inject_from(_metadata, &self->env, self->dev, 5 + 1024, 1, 1);
	inject_from(_metadata, &self->env, self->dev, 5 + 4096, 1, 1);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 0);
	inject_from(_metadata, &self->env, self->dev, 5, 1, 2);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 1);
	ASSERT_EQ(2, fault_read(fd, m, 2));
	EXPECT_EQ(5 + 1024, m[0].grpid);
	EXPECT_EQ(5 + 4096, m[1].grpid);
	expect_empty(_metadata, fd);
}

/* A group for which there is not enough memory by itself. */
TEST_F(fault, group_larger_than_limit)
{
	struct env *env = &self->env;
	struct iommu_hwpt_pgfault m[2];
	int fd = self->queue->fd;
	unsigned int limit;

	if (!env->additions)
		SKIP(return, ONLY_INJECTOR);
	limit = find_limit(_metadata, env, self->dev, self->plain_id, self->hwpt_id);
	/* there are some more requests than groups */
	inject_from(_metadata, env, self->dev, 1, 1, limit + 100);
	expect_answers_of(_metadata, env, self->dev, 0, 1);
	expect_empty(_metadata, fd);
	inject_from(_metadata, env, self->dev, 1, 1, 2);
	ASSERT_EQ(2, fault_read(fd, m, 2));
	EXPECT_EQ(0, fault_answer(fd, m[1].cookie, SUCCESS));
	expect_answers_of(_metadata, env, self->dev, 1, 1);
}

struct answerer {
	int fd;
	bool stop;
	unsigned int wrong;
};

/* Answers 32 groups at a time, until told to stop. */
static void *answer_thread(void *arg)
{
	struct iommu_hwpt_page_response r[32];
	struct iommu_hwpt_pgfault m[32];
	struct answerer *a = arg;
	ssize_t i, n;

	while (!__atomic_load_n(&a->stop, __ATOMIC_RELAXED)) {
		n = fault_read(a->fd, m, 32);
		for (i = 0; i < n; i++)
			r[i] = (struct iommu_hwpt_page_response){ m[i].cookie, SUCCESS };
		if (n < 0 || fault_write(a->fd, r, n) != n)
			a->wrong++;
	}
	return NULL;
}

/*
 * A device that always has as many requests outstanding as it may: whenever it
 * has an answer it sends the next one, which must never be refused.
 */
TEST_F_TIMEOUT(fault, at_the_limit_of_credits, 120)
{
	struct answerer answerer = { .fd = self->queue->fd };
	struct env *env = &self->env;
	struct iommu_test_iopf_stats s;
	uint32_t grpid = 0, n;
	pthread_t thread;

	if (!env->additions)
		SKIP(return, ONLY_INJECTOR);
	inject_from(_metadata, env, self->dev, 0, DEPTH, 1);
	ASSERT_EQ(0, pthread_create(&thread, NULL, answer_thread, &answerer));
	while (grpid < 10 * DEPTH) {
		ASSERT_EQ(0, iopf_stats(env->fd, self->dev->idev_id, &s));
		n = DEPTH - s.outstanding;
		if (n)
			inject_from(_metadata, env, self->dev, grpid, n, 1);
		grpid += n;
	}
	__atomic_store_n(&answerer.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, answerer.wrong);
	ASSERT_EQ(0, iopf_stats(env->fd, self->dev->idev_id, &s));
	EXPECT_EQ(0, s.responses[INVALID]);
	EXPECT_EQ(s.groups, s.responses[SUCCESS] + s.outstanding);
}

TEST_HARNESS_MAIN
