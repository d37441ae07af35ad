// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a queue is allocated with: depth, deadline, reports of loss; and its counters.
 */
#include <time.h>

/* Some send as many requests as a mock device ever may have outstanding. */
#define HARNESS_RESERVE 8448

#include "iommufd_fault_object.h"

/* Take @n groups of one request; their cookies. */
static void take_cookies(struct __test_metadata *_metadata, int fd, unsigned int n,
			 uint32_t *cookies)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		cookies[i] = take(_metadata, fd).cookie;
}

TEST_F(object, alloc_fields)
{
	static const struct {
		struct iommu_fault_alloc fields;
		int rc;
		unsigned int depth;
	} cases[] = {
		{ {}, 0, DEPTH },
		{ { .depth = 1 }, 0, 1 },
		{ { .depth = 100 }, 0, 128 },
		{ { .depth = 65536 }, 0, 65536 },
		{ { .depth = 65537 }, -EINVAL },
		{ { .depth = UINT32_MAX }, -EINVAL },
		{ { .deadline_ms = 1, .deadline_code = INVALID }, 0, DEPTH },
		{ { .deadline_ms = 3600000, .deadline_code = FAILURE }, 0, DEPTH },
		{ { .deadline_ms = 3600001 }, -EINVAL },
		{ { .deadline_ms = 1, .deadline_code = FAILURE + 1 }, -EINVAL },
		{ { .deadline_code = INVALID }, -EINVAL },
		{ { .__reserved = 1 }, -EOPNOTSUPP },
		{ { .flags = 1 << 4 }, -EOPNOTSUPP },
		{ { .flags = 15, .depth = 3, .deadline_ms = 5 }, 0, 4 },
	};
	int fd = self->env.fd;
	struct queue q = {};
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		EXPECT_EQ(cases[i].rc, fault_queue_alloc_fields(fd, &cases[i].fields, &q.id,
								&q.fd)) {
			TH_LOG("case %u", i);
		}
		if (cases[i].rc)
			continue;
		EXPECT_EQ(cases[i].depth, fdinfo_number(q.fd, "iommufd-fault-depth"));
		EXPECT_EQ(cases[i].fields.flags, fdinfo_number(q.fd, "iommufd-fault-flags"));
		EXPECT_EQ(cases[i].fields.deadline_ms,
			  fdinfo_number(q.fd, "iommufd-fault-deadline-ms"));
		EXPECT_EQ(0, close(q.fd));
		EXPECT_EQ(0, iommufd_destroy(fd, q.id));
	}
}

/* Callers of old pass 16 bytes; what is behind them is not looked at. */
TEST_F(object, alloc_16_bytes)
{
	struct iommu_fault_alloc cmd = {
		.size = 16, .depth = UINT32_MAX, .deadline_code = UINT32_MAX, .__reserved = 1,
	};
	int fd = self->env.fd;

	ASSERT_EQ(0, iommufd_call(fd, IOMMU_FAULT_QUEUE_ALLOC, &cmd));
	EXPECT_EQ(UINT32_MAX, cmd.depth);
	EXPECT_EQ(DEPTH, fdinfo_number(cmd.out_fault_fd, "iommufd-fault-depth"));
	EXPECT_EQ(0, close(cmd.out_fault_fd));
	EXPECT_EQ(0, iommufd_destroy(fd, cmd.out_fault_id));
	cmd.size = 20;
	EXPECT_EQ(-EINVAL, iommufd_call(fd, IOMMU_FAULT_QUEUE_ALLOC, &cmd));
}

/* What finds no slot is refused, and counted; the others are served. */
TEST_F(object, depth)
{
	struct iommu_fault_alloc fields = { .flags = IOMMU_FAULT_ALLOC_REFUSE, .depth = 4 };
	int fd = object_attach(_metadata, self, fields);
	uint32_t cookies[4], again;
	unsigned int i;

	inject_from(_metadata, &self->env, self->dev, 0, 6, 2);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 2);
	EXPECT_EQ(2, fdinfo_number(fd, "iommufd-fault-refused"));
	EXPECT_EQ(4, fdinfo_number(fd, "iommufd-fault-peak"));
	for (i = 0; i < 4; i++) {
		struct iommu_hwpt_pgfault m[2];

		ASSERT_EQ(2, fault_read(fd, m, 2));
		EXPECT_EQ(i, m[0].grpid);
		EXPECT_EQ(0, m[0].flags);
		cookies[i] = m[0].cookie;
	}
	inject_from(_metadata, &self->env, self->dev, 7, 1, 1);
	EXPECT_EQ(3, fdinfo_number(fd, "iommufd-fault-refused"));
	EXPECT_EQ(0, fault_answer(fd, cookies[2], SUCCESS));
	inject_from(_metadata, &self->env, self->dev, 8, 1, 1);
	again = take(_metadata, fd).cookie;
	EXPECT_NE(cookies[2], again);
	EXPECT_EQ(-EINVAL, fault_answer(fd, cookies[2], SUCCESS));
	EXPECT_EQ(0, fault_answer(fd, again, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 2, 3);
	EXPECT_EQ(4, fdinfo_number(fd, "iommufd-fault-peak"));
	EXPECT_EQ(5, fdinfo_number(fd, "iommufd-fault-total-groups"));
}

/* What finds no slot is told to try again, and does so until it finds one. */
TEST_F(object, try_again)
{
	int fd = object_attach(_metadata, self, (struct iommu_fault_alloc){ .depth = 4 });
	struct iommu_hwpt_pgfault m[4];
	unsigned int i;

	inject_from(_metadata, &self->env, self->dev, 0, 10, 1);
	wait_outstanding(_metadata, &self->env, self->dev, 4);
	expect_answers_of(_metadata, &self->env, self->dev, 6, 0);
	EXPECT_EQ(6, fdinfo_number(fd, "iommufd-fault-refused"));
	EXPECT_EQ(6, device_counter("answered_by_no_room"));
	ASSERT_EQ(4, fault_read(fd, m, 4));
	inject_from(_metadata, &self->env, self->dev, 4, 1, 1);
	wait_outstanding(_metadata, &self->env, self->dev, 4);
	for (i = 0; i < 4; i++)
		EXPECT_EQ(0, fault_answer(fd, m[i].cookie, SUCCESS));
	inject_from(_metadata, &self->env, self->dev, 4, 1, 1);
	EXPECT_EQ(4, take(_metadata, fd).grpid);
	expect_answers_of(_metadata, &self->env, self->dev, 11, 0);
}

/* A detach does not return before the device has been told. */
TEST_F(object, try_again_detach)
{
	int i, fd = object_attach(_metadata, self, (struct iommu_fault_alloc){ .depth = 1 });
	struct iommu_test_iopf_stats s;

	for (i = 0; i < ROUNDS; i++) {
		inject_from(_metadata, &self->env, self->dev, 0, 5, 2);
		ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->plain_id));
		ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
		ASSERT_EQ(0, s.outstanding);
		ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->hwpt_id));
	}
	expect_empty(_metadata, fd);
}

/*
 * One device of @n floods the queue, which nobody reads. The others find their shares,
 * and when groups are answered, those that have less go first.
 */
static void share(struct __test_metadata *_metadata, struct _test_data_object *self,
		  unsigned int n)
{
	enum { SLOTS = 128 };
	int fd = object_attach(_metadata, self, (struct iommu_fault_alloc){ .depth = SLOTS });
	const unsigned int guaranteed = SLOTS / 2 / n;
	struct iommu_hwpt_pgfault m[SLOTS];
	struct env *env = &self->env;
	struct mock_device devs[16];
	unsigned int i, of_first = 0;

	for (i = 1; i < n; i++)
		ASSERT_EQ(0, mock_device_create(env->fd, self->hwpt_id, 0, &devs[i]));
	inject_from(_metadata, env, self->dev, 0, 2 * SLOTS, 1);
	EXPECT_EQ(SLOTS / 2 + guaranteed, fdinfo_number(fd, "iommufd-fault-queued"));
	for (i = 1; i < n; i++)
		inject_from(_metadata, env, &devs[i], 0, guaranteed, 1);
	EXPECT_EQ(SLOTS, fdinfo_number(fd, "iommufd-fault-queued"));
	for (i = 1; i < n; i++)
		expect_answers_of(_metadata, env, &devs[i], 0, 0);

	/* All are answered but the first one's: the others still have their shares. */
	ASSERT_EQ(SLOTS, fault_read(fd, m, SLOTS));
	for (i = 0; i < SLOTS; i++) {
		if (m[i].dev_id == self->dev->idev_id)
			of_first++;
		else
			EXPECT_EQ(0, fault_answer(fd, m[i].cookie, SUCCESS));
	}
	EXPECT_EQ(SLOTS / 2 + guaranteed, of_first);
	inject_from(_metadata, env, self->dev, 0, SLOTS, 1);
	expect_empty(_metadata, fd);
	for (i = 1; i < n; i++) {
		inject_from(_metadata, env, &devs[i], 0, guaranteed, 1);
		expect_answers_of(_metadata, env, &devs[i], guaranteed, 0);
	}
	EXPECT_EQ(SLOTS / 2 - guaranteed, fdinfo_number(fd, "iommufd-fault-queued"));

	/* When the others have left, the first one has all. */
	for (i = 1; i < n; i++)
		ASSERT_EQ(0, iommufd_destroy(env->fd, devs[i].stdev_id));
	wait_outstanding(_metadata, env, self->dev, of_first);
	inject_from(_metadata, env, self->dev, 0, SLOTS, 1);
	EXPECT_EQ(SLOTS - of_first, fdinfo_number(fd, "iommufd-fault-queued"));
	env_destroy_device(_metadata, env, self->dev);
}

TEST_F(object, share_of_2)
{
	share(_metadata, self, 2);
}

TEST_F(object, share_of_8)
{
	share(_metadata, self, 8);
}

TEST_F(object, share_of_16)
{
	share(_metadata, self, 16);
}

/* A device with many PASIDs has one share, like another that has none. */
TEST_F(object, share_of_pasids)
{
	enum { SLOTS = 128, PASIDS = 30 };
	int fd = object_attach(_metadata, self, (struct iommu_fault_alloc){ .depth = SLOTS });
	struct env *env = &self->env;
	struct mock_device *many;
	uint32_t pasid, hwpt_id;

	many = env_device(_metadata, env, env->ioas_id, MOCK_FLAGS_DEVICE_PASID);
	hwpt_id = env_hwpt(_metadata, env, many, false, IOMMU_HWPT_ALLOC_PASID, NULL);
	ASSERT_EQ(0, mock_replace(env->fd, many->stdev_id, hwpt_id));
	hwpt_id = env_hwpt(_metadata, env, many, false, IOMMU_HWPT_ALLOC_PASID, self->queue);
	for (pasid = 1; pasid <= PASIDS; pasid++)
		ASSERT_EQ(0, mock_pasid_attach(env->fd, many->stdev_id, pasid, hwpt_id));

	/* Each can have a quarter, and one of them the half that is nobody's. */
	inject_from(_metadata, env, self->dev, 0, 2 * SLOTS, 1);
	EXPECT_EQ(SLOTS * 3 / 4, fdinfo_number(fd, "iommufd-fault-queued"));
	for (pasid = 1; pasid <= PASIDS; pasid++) {
		inject_pasid(_metadata, env, many, pasid, 0);
		inject_pasid(_metadata, env, many, pasid, 1);
	}
	EXPECT_EQ(SLOTS, fdinfo_number(fd, "iommufd-fault-queued"));

	/* It keeps its share until the last one is detached. */
	for (pasid = 1; pasid < PASIDS; pasid++)
		ASSERT_EQ(0, mock_pasid_detach(env->fd, many->stdev_id, pasid));
	inject_from(_metadata, env, self->dev, 0, SLOTS, 1);
	EXPECT_EQ(SLOTS * 3 / 4, fdinfo_number(fd, "iommufd-fault-queued"));
	ASSERT_EQ(0, mock_pasid_detach(env->fd, many->stdev_id, PASIDS));
	inject_from(_metadata, env, self->dev, 0, SLOTS, 1);
	EXPECT_EQ(SLOTS, fdinfo_number(fd, "iommufd-fault-queued"));
}

/* One that comes late has its share as soon as groups of the first are answered. */
TEST_F(object, share_of_latecomer)
{
	int fd = object_attach(_metadata, self, (struct iommu_fault_alloc){ .depth = 8 });
	struct iommu_hwpt_pgfault m[8];
	struct env *env = &self->env;
	struct mock_device *late;
	unsigned int i;

	inject_from(_metadata, env, self->dev, 0, 8, 1);
	late = env_device(_metadata, env, self->hwpt_id, 0);
	inject_from(_metadata, env, late, 0, 1, 1);
	wait_outstanding(_metadata, env, late, 0);
	expect_answers_of(_metadata, env, late, 1, 0);
	ASSERT_EQ(8, fault_read(fd, m, 8));
	/* the share of two is two, and the first one may not take it again */
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, fault_answer(fd, m[i].cookie, SUCCESS));
	inject_from(_metadata, env, self->dev, 0, 2, 1);
	expect_empty(_metadata, fd);
	inject_from(_metadata, env, late, 5, 3, 1);
	for (i = 0; i < 2; i++)
		EXPECT_EQ(late->idev_id, take(_metadata, fd).dev_id);
	expect_empty(_metadata, fd);
	EXPECT_EQ(0, fault_answer(fd, m[2].cookie, SUCCESS));
	inject_from(_metadata, env, self->dev, 0, 1, 1);
	EXPECT_EQ(self->dev->idev_id, take(_metadata, fd).dev_id);
}

/* One slot, used over and over: each time another cookie, and the last one is dead. */
TEST_F(object, depth_of_one)
{
	int fd = object_attach(_metadata, self, (struct iommu_fault_alloc){ .depth = 1 });
	uint32_t cookie, last = 0;
	unsigned int i;

	for (i = 0; i < 1000; i++) {
		inject_from(_metadata, &self->env, self->dev, 0, 1, 1);
		cookie = take(_metadata, fd).cookie;
		ASSERT_NE(last, cookie);
		ASSERT_EQ(-EINVAL, fault_answer(fd, last, SUCCESS));
		ASSERT_EQ(0, fault_answer(fd, cookie, SUCCESS));
		last = cookie;
	}
	expect_answers_of(_metadata, &self->env, self->dev, 1000, 0);
}

/* More groups than one device may have, all of them at once. */
TEST_F(object, largest_depth)
{
	struct iommu_fault_alloc fields = { .depth = 65536, .deadline_ms = 3600000 };
	int fd = object_attach(_metadata, self, fields);
	struct env *env = &self->env;
	unsigned int i;

	for (i = 0; i < 2; i++) {
		struct mock_device *dev = env_device(_metadata, env, env->ioas_id, 0);

		ASSERT_EQ(0, mock_replace(env->fd, dev->stdev_id, self->hwpt_id));
		inject_from(_metadata, env, dev, 0, DEPTH, 1);
	}
	inject_from(_metadata, env, self->dev, 0, DEPTH, 1);
	EXPECT_EQ(3 * DEPTH, fdinfo_number(fd, "iommufd-fault-queued"));
	EXPECT_EQ(0, fault_answer(fd, take(_metadata, fd).cookie, SUCCESS));
	env_close_queue(_metadata, self->queue);
	expect_answers_of(_metadata, env, self->dev, 0, DEPTH);
}

/* The flag comes once, with the first message of a read that arrives. */
TEST_F(object, report_loss)
{
	struct iommu_fault_alloc fields = {
		.flags = IOMMU_FAULT_ALLOC_REPORT_LOSS | IOMMU_FAULT_ALLOC_REFUSE,
		.depth = 2,
	};
	int fd = object_attach(_metadata, self, fields);
	const uint32_t last = IOMMU_PGFAULT_FLAGS_LAST_PAGE, lost = IOMMU_PGFAULT_FLAGS_LOST;
	struct iommu_hwpt_pgfault m[4];

	inject_from(_metadata, &self->env, self->dev, 0, 2, 2);
	ASSERT_EQ(2, fault_read(fd, m, 2));
	EXPECT_EQ(0, m[0].flags);
	EXPECT_EQ(0, fault_answer(fd, m[0].cookie, SUCCESS));
	inject_from(_metadata, &self->env, self->dev, 2, 2, 2);
	EXPECT_EQ(-EFAULT, fault_read(fd, (void *)fence(_metadata, PAGE), 2));
	EXPECT_EQ(-EINVAL, fault_read(fd, m, 1));
	ASSERT_EQ(4, fault_read(fd, m, 4));
	EXPECT_EQ(lost, m[0].flags);
	EXPECT_EQ(last, m[1].flags);
	EXPECT_EQ(0, m[2].flags);
	EXPECT_EQ(last, m[3].flags);
	EXPECT_EQ(0, fault_answer(fd, m[0].cookie, SUCCESS));
	EXPECT_EQ(0, fault_answer(fd, m[2].cookie, SUCCESS));

	/* an overflow of the hardware's queue is told the same way */
	inject_from(_metadata, &self->env, self->dev, 5, 2, 1);
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_OVERFLOW));
	ASSERT_EQ(1, fault_read(fd, m, 1));
	EXPECT_EQ(lost | last, m[0].flags);
	ASSERT_EQ(1, fault_read(fd, m + 1, 1));
	EXPECT_EQ(last, m[1].flags);
	EXPECT_LE(1, fdinfo_number(fd, "iommufd-fault-overflows"));
}

static void expect_loss_alone(struct __test_metadata *_metadata, int fd)
{
	const struct iommu_hwpt_pgfault alone = { .flags = IOMMU_PGFAULT_FLAGS_LOST };
	struct iommu_hwpt_pgfault m[2];

	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(fd, 0));
	EXPECT_EQ(-EFAULT, fault_read(fd, (void *)fence(_metadata, PAGE), 2));
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(fd, 0));
	ASSERT_EQ(1, fault_read(fd, m, 2));
	EXPECT_EQ(0, memcmp(&alone, m, sizeof(alone)));
	expect_empty(_metadata, fd);
	EXPECT_EQ(-EINVAL, fault_answer(fd, 0, SUCCESS));
}

/* Where nothing is queued that could say so, a loss is an event of its own. */
TEST_F(object, loss_alone)
{
	struct iommu_fault_alloc fields = {
		.flags = IOMMU_FAULT_ALLOC_REPORT_LOSS | IOMMU_FAULT_ALLOC_REFUSE,
		.depth = 1,
	};
	int fd = object_attach(_metadata, self, fields), epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	uint32_t cookie;

	ASSERT_LE(0, epoll);
	ASSERT_EQ(0, epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
	ASSERT_EQ(0, epoll_events(epoll, 0));
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_OVERFLOW));
	EXPECT_EQ(EPOLLIN, epoll_events(epoll, LONG_MS));
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_OVERFLOW));
	expect_loss_alone(_metadata, fd);

	/* all that is queued is read, and what comes then is refused */
	inject_from(_metadata, &self->env, self->dev, 0, 1, 1);
	EXPECT_EQ(EPOLLIN, epoll_events(epoll, LONG_MS));
	cookie = take(_metadata, fd).cookie;
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	EXPECT_EQ(EPOLLIN, epoll_events(epoll, LONG_MS));
	expect_loss_alone(_metadata, fd);
	EXPECT_EQ(0, fault_answer(fd, cookie, SUCCESS));
	close(epoll);
}

/* A device that was told to try again comes back: nobody is woken for that. */
TEST_F(object, loss_to_be_tried_again)
{
	struct iommu_fault_alloc fields = { .flags = IOMMU_FAULT_ALLOC_REPORT_LOSS, .depth = 1 };
	int fd = object_attach(_metadata, self, fields);
	uint32_t cookie;

	inject_from(_metadata, &self->env, self->dev, 0, 1, 1);
	cookie = take(_metadata, fd).cookie;
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	EXPECT_EQ(1, fdinfo_number(fd, "iommufd-fault-refused"));
	expect_empty(_metadata, fd);
	EXPECT_EQ(0, fault_answer(fd, cookie, SUCCESS));
	inject_from(_metadata, &self->env, self->dev, 2, 1, 1);
	EXPECT_EQ(IOMMU_PGFAULT_FLAGS_LOST | IOMMU_PGFAULT_FLAGS_LAST_PAGE,
		  take(_metadata, fd).flags);
}

TEST_F(object, loss_not_asked_for)
{
	int fd = object_attach(_metadata, self, (struct iommu_fault_alloc){ .depth = 1 });

	inject_from(_metadata, &self->env, self->dev, 0, 2, 1);
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_OVERFLOW));
	EXPECT_EQ(IOMMU_PGFAULT_FLAGS_LAST_PAGE, take(_metadata, fd).flags);
	EXPECT_EQ(1, fdinfo_number(fd, "iommufd-fault-refused"));
}

/* Delivered and queued groups alike get the answer that was asked for, once. */
TEST_F(object, deadline)
{
	struct iommu_fault_alloc fields = { .deadline_ms = 1000, .deadline_code = FAILURE };
	int fd = object_attach(_metadata, self, fields);
	struct iommu_test_iopf_stats s;
	uint32_t cookies[100], other;

	inject_from(_metadata, &self->env, self->dev, 0, 200, 1);
	take_cookies(_metadata, fd, 100, cookies);
	wait_outstanding(_metadata, &self->env, self->dev, 0);
	ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
	EXPECT_EQ(200, s.responses[FAILURE]);
	expect_empty(_metadata, fd);
	EXPECT_EQ(200, fdinfo_number(fd, "iommufd-fault-by-deadline"));
	EXPECT_EQ(200, fdinfo_number(fd, "iommufd-fault-answered-failure"));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-by-user"));
	EXPECT_EQ(-ESTALE, fault_answer(fd, cookies[0], SUCCESS));
	EXPECT_EQ(-ESTALE, fault_answer(fd, cookies[99], SUCCESS));
	EXPECT_EQ(-EINVAL, fault_answer(fd, cookies[99] + DEPTH, SUCCESS));
	EXPECT_EQ(2, fdinfo_number(fd, "iommufd-fault-answers-stale"));

	/* the timer is set anew, and what is answered in time is left alone */
	inject_from(_metadata, &self->env, self->dev, 0, 2, 1);
	take_cookies(_metadata, fd, 2, cookies);
	other = cookies[1];
	EXPECT_EQ(0, fault_answer(fd, cookies[0], SUCCESS));
	wait_outstanding(_metadata, &self->env, self->dev, 0);
	EXPECT_EQ(-EINVAL, fault_answer(fd, cookies[0], SUCCESS));
	EXPECT_EQ(-ESTALE, fault_answer(fd, other, SUCCESS));
	ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
	EXPECT_EQ(1, s.responses[SUCCESS]);
	EXPECT_EQ(201, s.responses[FAILURE]);
	EXPECT_EQ(0, s.unmatched);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

/* Groups that came one after the other: none is answered before its time. */
TEST_F(object, deadline_in_order)
{
	enum { N = 5, MS = 200 };
	struct iommu_fault_alloc fields = { .deadline_ms = MS, .deadline_code = INVALID };
	struct iommu_test_iopf_stats s;
	uint64_t begin[N], now;
	unsigned int i, done = 0;

	object_attach(_metadata, self, fields);
	for (i = 0; i < N; i++) {
		begin[i] = now_ms();
		inject_from(_metadata, &self->env, self->dev, i, 1, 1);
		usleep(30000);
	}
	for (i = 0; done < N && i < LONG_MS; i++) {
		ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
		now = now_ms();
		for (; done < s.responses[INVALID]; done++)
			EXPECT_LE(begin[done] + MS, now + 1);
		usleep(1000);
	}
	EXPECT_EQ(N, done);
	EXPECT_EQ(N - 1, s.last_grpid);
}

/* The slot is used again: its old cookie is now as unknown as any. */
TEST_F(object, stale_until_used_again)
{
	struct iommu_fault_alloc fields = {
		.depth = 1, .deadline_ms = 1000, .deadline_code = INVALID,
	};
	int fd = object_attach(_metadata, self, fields);
	uint32_t old;

	inject_from(_metadata, &self->env, self->dev, 0, 1, 1);
	old = take(_metadata, fd).cookie;
	wait_outstanding(_metadata, &self->env, self->dev, 0);
	EXPECT_EQ(-ESTALE, fault_answer(fd, old, SUCCESS));
	inject_from(_metadata, &self->env, self->dev, 0, 1, 1);
	EXPECT_EQ(-EINVAL, fault_answer(fd, old, SUCCESS));
	wait_outstanding(_metadata, &self->env, self->dev, 0);
	EXPECT_EQ(-EINVAL, fault_answer(fd, old, SUCCESS));
}

/* A deadline does not wait for a reader that is stuck, nor does detaching. */
TEST_F(object, deadline_amid_read)
{
	struct iommu_fault_alloc fields = { .deadline_ms = 1000, .deadline_code = INVALID };
	int fd = object_attach(_metadata, self, fields);
	struct iommu_hwpt_pgfault *m;
	struct held_page held = {};

	inject_from(_metadata, &self->env, self->dev, 3, 1, 2);
	hold_reader(_metadata, &held, fd);
	wait_outstanding(_metadata, &self->env, self->dev, 0);
	inject_from(_metadata, &self->env, self->dev, 4, 1, 2);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->plain_id));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 1);
	EXPECT_EQ(2, release_reader(_metadata, &held));
	m = held.page;
	EXPECT_EQ(3, m[1].grpid);
	EXPECT_EQ(-ESTALE, fault_answer(fd, m[1].cookie, SUCCESS));
	expect_empty(_metadata, fd);
}

/* The device forgets: nothing is sent, late answers harm nobody. */
TEST_F(object, reset)
{
	int fd = object_attach(_metadata, self, (struct iommu_fault_alloc){});
	struct iommu_test_iopf_stats s;
	uint32_t cookies[3];

	inject_from(_metadata, &self->env, self->dev, 0, 5, 1);
	inject_partial(_metadata, &self->env, self->dev, 0, 9, 2);
	take_cookies(_metadata, fd, 3, cookies);
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_RESET));
	expect_empty(_metadata, fd);
	EXPECT_EQ(-ESTALE, fault_answer(fd, cookies[0], SUCCESS));
	EXPECT_EQ(-ESTALE, fault_answer(fd, cookies[2], INVALID));
	ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
	EXPECT_EQ(5, s.forgotten);
	EXPECT_EQ(0, s.responses[SUCCESS] + s.responses[INVALID] + s.unmatched);
	EXPECT_EQ(5, fdinfo_number(fd, "iommufd-fault-recalled"));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-delivered"));

	inject_from(_metadata, &self->env, self->dev, 9, 1, 1);
	EXPECT_EQ(0, fault_answer(fd, take(_metadata, fd).cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
}

/* The device still waits for what was complete before the overflow. */
TEST_F(object, overflow_keeps_complete_groups)
{
	int fd = object_attach(_metadata, self, (struct iommu_fault_alloc){});
	uint32_t cookie;

	inject_from(_metadata, &self->env, self->dev, 0, 2, 1);
	inject_partial(_metadata, &self->env, self->dev, 0, 5, 2);
	cookie = take(_metadata, fd).cookie;
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_OVERFLOW));
	EXPECT_EQ(0, fault_answer(fd, cookie, SUCCESS));
	EXPECT_EQ(0, fault_answer(fd, take(_metadata, fd).cookie, SUCCESS));
	inject_from(_metadata, &self->env, self->dev, 5, 1, 1);
	EXPECT_EQ(0, fault_answer(fd, take(_metadata, fd).cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 3, 0);
	EXPECT_EQ(1, fdinfo_number(fd, "iommufd-fault-overflows"));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-recalled"));
}

/* Many groups at once wake who waits. */
TEST_F(object, burst_wakes)
{
	uint32_t id = self->dev->idev_id;
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)&id, .nr_devs = 1, .nr_pasids = 1, .groups = 64,
		.requests = 1,
	};
	int i, fd = object_attach(_metadata, self, (struct iommu_fault_alloc){});
	struct epoll_event edge = { .events = EPOLLIN | EPOLLET };
	struct waiter w = { .by = WAIT_POLL, .fd = fd };
	struct iommu_hwpt_page_response r[64];
	int et = epoll_create1(0);

	ASSERT_EQ(0, epoll_ctl(et, EPOLL_CTL_ADD, fd, &edge));
	for (i = 0; i < 3; i++) {
		waiter_start(_metadata, &w);
		ASSERT_EQ(0, iopf_batch(self->env.fd, &batch));
		EXPECT_EQ(POLLIN, waiter_result(&w, LONG_MS));
		EXPECT_EQ(EPOLLIN, epoll_events(et, LONG_MS));
		take_many(_metadata, fd, r, 64);
		/* Each group is an edge, but there is nothing to read any more. */
		EXPECT_EQ(0, epoll_events(et, 0));
		EXPECT_EQ(64, fault_write(fd, r, 64));
	}
	close(et);
}

TEST_F(object, counters)
{
	int fd = object_attach(_metadata, self, (struct iommu_fault_alloc){});
	struct iommu_hwpt_pgfault m[20];

	inject_from(_metadata, &self->env, self->dev, 0, 10, 2);
	ASSERT_EQ(14, fault_read(fd, m, 15));
	EXPECT_EQ(-EFAULT, fault_read(fd, (void *)fence(_metadata, PAGE), 2));
	EXPECT_EQ(0, fault_answer(fd, m[0].cookie, SUCCESS));
	EXPECT_EQ(0, fault_answer(fd, m[2].cookie, SUCCESS));
	EXPECT_EQ(0, fault_answer(fd, m[4].cookie, INVALID));
	EXPECT_EQ(0, fault_answer(fd, m[6].cookie, FAILURE));
	EXPECT_EQ(-EINVAL, fault_answer(fd, m[6].cookie, SUCCESS));
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->plain_id));
	EXPECT_EQ(20, fdinfo_number(fd, "iommufd-fault-total-requests"));
	EXPECT_EQ(10, fdinfo_number(fd, "iommufd-fault-total-groups"));
	EXPECT_EQ(7, fdinfo_number(fd, "iommufd-fault-total-delivered"));
	EXPECT_EQ(10, fdinfo_number(fd, "iommufd-fault-peak"));
	EXPECT_EQ(8, fdinfo_number(fd, "iommufd-fault-answered-success"));
	EXPECT_EQ(1, fdinfo_number(fd, "iommufd-fault-answered-invalid"));
	EXPECT_EQ(1, fdinfo_number(fd, "iommufd-fault-answered-failure"));
	EXPECT_EQ(4, fdinfo_number(fd, "iommufd-fault-by-user"));
	EXPECT_EQ(6, fdinfo_number(fd, "iommufd-fault-by-detach"));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-by-close"));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-by-deadline"));
	EXPECT_EQ(1, fdinfo_number(fd, "iommufd-fault-answers-unknown"));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-answers-stale"));
}

TEST_HARNESS_MAIN
