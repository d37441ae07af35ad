// SPDX-License-Identifier: GPL-2.0-only
/*
 * Immediate delivery: requests of groups that are not complete yet, one by one, what
 * becomes of such groups, and how their readers are told.
 */
#include "../../../iommu/lib/iopf.h"
#include "iommufd_fault_object.h"

#define OPEN IOMMU_PGFAULT_FLAGS_OPEN
#define LAST IOMMU_PGFAULT_FLAGS_LAST_PAGE
#define RECALLED IOMMU_PGFAULT_FLAGS_RECALLED

static int immediate(struct __test_metadata *_metadata, struct _test_data_object *self,
		     uint32_t deadline_ms)
{
	struct iommu_fault_alloc fields = {
		.flags = IOMMU_FAULT_ALLOC_IMMEDIATE,
		.deadline_ms = deadline_ms,
		.deadline_code = deadline_ms ? INVALID : 0,
	};

	return object_attach(_metadata, self, fields);
}

/* One request of an open group; the n-th in address. */
static void inject_open(struct __test_metadata *_metadata, struct _test_data_object *self,
			uint32_t grpid, uint32_t n)
{
	ASSERT_EQ(0, iopf_inject(self->env.fd, self->dev->idev_id, 0, grpid, ADDR + n * PAGE, 1,
				 1, IOMMU_TEST_IOPF_NO_LAST));
}

static void inject_last(struct __test_metadata *_metadata, struct _test_data_object *self,
			uint32_t grpid, uint32_t n)
{
	ASSERT_EQ(0, iopf_inject(self->env.fd, self->dev->idev_id, 0, grpid, ADDR + n * PAGE, 1,
				 1, 0));
}

/* The next message: that request with these flags; its cookie. */
static uint32_t take_part(struct __test_metadata *_metadata, int fd, uint32_t grpid, uint32_t n,
			  uint32_t flags)
{
	struct iommu_hwpt_pgfault m = {};

	EXPECT_EQ(1, fault_read(fd, &m, 1));
	EXPECT_EQ(flags, m.flags);
	EXPECT_EQ(grpid, m.grpid);
	EXPECT_EQ(ADDR + n * PAGE, m.addr);
	EXPECT_NE(0, m.cookie);
	return m.cookie;
}

static void take_recalled(struct __test_metadata *_metadata, int fd, uint32_t grpid,
			  uint32_t cookie)
{
	struct iommu_hwpt_pgfault m = {};

	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(fd, 0));
	EXPECT_EQ(1, fault_read(fd, &m, 1));
	EXPECT_EQ(RECALLED, m.flags);
	EXPECT_EQ(grpid, m.grpid);
	EXPECT_EQ(cookie, m.cookie);
	EXPECT_EQ(0, m.addr);
	expect_empty(_metadata, fd);
	EXPECT_EQ(-ESTALE, fault_answer(fd, cookie, SUCCESS));
}

/* Requests come as they arrive; the answer is for all, when all were read. */
TEST_F(object, immediate)
{
	int fd = immediate(_metadata, self, 0);
	uint32_t cookie = 0;
	unsigned int i;

	for (i = 0; i < 5; i++) {
		inject_open(_metadata, self, 7, i);
		EXPECT_EQ(POLLIN | POLLOUT, fault_poll(fd, 0));
		if (!i)
			cookie = take_part(_metadata, fd, 7, i, OPEN);
		else
			EXPECT_EQ(cookie, take_part(_metadata, fd, 7, i, OPEN));
		EXPECT_EQ(-EBUSY, fault_answer(fd, cookie, SUCCESS));
		expect_empty(_metadata, fd);
	}
	inject_last(_metadata, self, 7, 5);
	EXPECT_EQ(-EBUSY, fault_answer(fd, cookie, SUCCESS));
	EXPECT_EQ(cookie, take_part(_metadata, fd, 7, 5, LAST));
	expect_answers_of(_metadata, &self->env, self->dev, 0, 0);
	EXPECT_EQ(0, fault_answer(fd, cookie, SUCCESS));
	EXPECT_EQ(-EINVAL, fault_answer(fd, cookie, SUCCESS));
	expect_empty(_metadata, fd);
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
	EXPECT_EQ(6, fdinfo_number(fd, "iommufd-fault-answers-early"));
	EXPECT_EQ(6, fdinfo_number(fd, "iommufd-fault-total-requests"));
	EXPECT_EQ(1, fdinfo_number(fd, "iommufd-fault-total-groups"));
	EXPECT_EQ(1, fdinfo_number(fd, "iommufd-fault-total-delivered"));
}

/* Any buffer is large enough; a group goes on where the last read ended. */
TEST_F(object, immediate_small_reads)
{
	int fd = immediate(_metadata, self, 0);
	struct iommu_hwpt_pgfault m[8];
	unsigned int i, n;

	for (n = 1; n <= 4; n++) {
		inject_from(_metadata, &self->env, self->dev, 5, 1, 4);
		for (i = 0; i < 4; i += n) {
			ASSERT_EQ(4 - i < n ? 4 - i : n, fault_read(fd, m + i, n));
			EXPECT_EQ(i + n < 4 ? -EBUSY : 0, fault_answer(fd, m[i].cookie, SUCCESS));
		}
		for (i = 0; i < 4; i++) {
			EXPECT_EQ(i < 3 ? OPEN : LAST, m[i].flags);
			EXPECT_EQ(ADDR + i * PAGE, m[i].addr);
			EXPECT_EQ(m[0].cookie, m[i].cookie);
		}
	}
	expect_answers_of(_metadata, &self->env, self->dev, 4, 0);
}

/* Groups side by side: each in its order, answered in another. */
TEST_F(object, immediate_interleaved)
{
	enum { GROUPS = 5, REQUESTS = 4 };
	int fd = immediate(_metadata, self, 0);
	struct iommu_hwpt_pgfault m[GROUPS * REQUESTS];
	uint32_t cookies[GROUPS] = {};
	unsigned int i, seen[GROUPS] = {};

	ASSERT_EQ(0, iopf_inject(self->env.fd, self->dev->idev_id, 0, 0, ADDR, GROUPS, REQUESTS,
				 IOMMU_TEST_IOPF_INTERLEAVE));
	ASSERT_EQ(GROUPS * REQUESTS, fault_read(fd, m, GROUPS * REQUESTS));
	for (i = 0; i < GROUPS * REQUESTS; i++) {
		ASSERT_GT(GROUPS, m[i].grpid);
		EXPECT_EQ(ADDR + (m[i].grpid + GROUPS * seen[m[i].grpid]++) * PAGE, m[i].addr);
		if (seen[m[i].grpid] == 1)
			cookies[m[i].grpid] = m[i].cookie;
		EXPECT_EQ(cookies[m[i].grpid], m[i].cookie);
	}
	for (i = GROUPS; i--;) {
		EXPECT_EQ(REQUESTS, seen[i]);
		EXPECT_EQ(0, fault_answer(fd, cookies[i], SUCCESS));
	}
	expect_answers_of(_metadata, &self->env, self->dev, GROUPS, 0);
}

/* The buffer ends early, behind each message and amid each: the rest comes next. */
TEST_F(object, immediate_efault)
{
	enum { TOTAL = 9 };
	int fd = immediate(_metadata, self, 0);
	char *end = fence(_metadata, PAGE);
	struct iommu_hwpt_pgfault m[TOTAL];
	unsigned int i, cut, extra, rounds = 0;

	for (cut = 0; cut < TOTAL; cut++) {
		for (extra = 0; extra < MSG; extra += 16, rounds++) {
			inject_from(_metadata, &self->env, self->dev, 10, 3, 3);
			ASSERT_EQ(cut ? (ssize_t)(cut * MSG) : -EFAULT,
				  fault_read_bytes(fd, end - cut * MSG - extra, TOTAL * MSG));
			memcpy(m, end - cut * MSG - extra, cut * MSG);
			EXPECT_EQ(POLLIN | POLLOUT, fault_poll(fd, 0));
			ASSERT_EQ(TOTAL - cut, fault_read(fd, m + cut, TOTAL));
			for (i = 0; i < TOTAL; i++) {
				ASSERT_EQ(10 + i / 3, m[i].grpid);
				ASSERT_EQ(ADDR + i * PAGE, m[i].addr);
				ASSERT_EQ(i % 3 < 2 ? OPEN : LAST, m[i].flags);
				ASSERT_EQ(m[i / 3 * 3].cookie, m[i].cookie);
			}
			for (i = 0; i < 3; i++)
				EXPECT_EQ(0, fault_answer(fd, m[3 * i].cookie, SUCCESS));
			expect_empty(_metadata, fd);
		}
	}
	expect_answers_of(_metadata, &self->env, self->dev, 3 * rounds, 0);
}

/* A reader whose memory is not there yet has taken nothing; another one can. */
TEST_F(object, immediate_amid_read)
{
	int fd = immediate(_metadata, self, 0);
	struct held_page held = { .room = 2 };
	uint32_t cookie;

	inject_open(_metadata, self, 3, 0);
	hold_reader(_metadata, &held, fd);
	cookie = take_part(_metadata, fd, 3, 0, OPEN);
	inject_open(_metadata, self, 3, 1);
	inject_last(_metadata, self, 3, 2);
	EXPECT_EQ(2, release_reader(_metadata, &held));
	EXPECT_EQ(cookie, ((struct iommu_hwpt_pgfault *)held.page)->cookie);
	EXPECT_EQ(ADDR + PAGE, ((struct iommu_hwpt_pgfault *)held.page)->addr);
	expect_empty(_metadata, fd);
	EXPECT_EQ(0, fault_answer(fd, cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
}

/* After an overflow the rest of an open group may never come. */
TEST_F(object, immediate_overflow)
{
	int fd = immediate(_metadata, self, 0);
	uint32_t cookie, complete;

	inject_last(_metadata, self, 1, 0);
	complete = take_part(_metadata, fd, 1, 0, LAST);
	inject_open(_metadata, self, 2, 0);
	cookie = take_part(_metadata, fd, 2, 0, OPEN);
	inject_open(_metadata, self, 2, 1);
	inject_open(_metadata, self, 3, 0);
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_OVERFLOW));
	/* of group 3 user space knows nothing */
	take_recalled(_metadata, fd, 2, cookie);
	EXPECT_EQ(2, fdinfo_number(fd, "iommufd-fault-recalled"));
	EXPECT_EQ(0, fault_answer(fd, complete, SUCCESS));
	inject_last(_metadata, self, 2, 4);
	EXPECT_EQ(0, fault_answer(fd, take_part(_metadata, fd, 2, 4, LAST), SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 2, 0);
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-delivered"));
}

/* The message that a group is over is as safe as any other. */
TEST_F(object, immediate_recall_efault)
{
	int fd = immediate(_metadata, self, 0);
	char *end = fence(_metadata, PAGE);
	uint32_t cookie;

	inject_open(_metadata, self, 2, 0);
	cookie = take_part(_metadata, fd, 2, 0, OPEN);
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_OVERFLOW));
	EXPECT_EQ(-ESTALE, fault_answer(fd, cookie, SUCCESS));
	EXPECT_EQ(-EFAULT, fault_read(fd, (void *)end, 1));
	EXPECT_EQ(-EFAULT, fault_read(fd, (void *)(end - 16), 1));
	take_recalled(_metadata, fd, 2, cookie);
}

/* A group is recalled while its reader waits for memory, and knows nothing of it. */
TEST_F(object, immediate_recall_amid_read)
{
	int fd = immediate(_metadata, self, 0);
	struct held_page held = { .room = 1 };

	inject_open(_metadata, self, 3, 0);
	hold_reader(_metadata, &held, fd);
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_OVERFLOW));
	EXPECT_EQ(0, release_reader(_metadata, &held));
	expect_empty(_metadata, fd);
	EXPECT_EQ(1, fdinfo_number(fd, "iommufd-fault-recalled"));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-delivered"));
}

TEST_F(object, immediate_reset)
{
	int fd = immediate(_metadata, self, 0);
	struct iommu_test_iopf_stats s;
	uint32_t cookie;

	inject_last(_metadata, self, 1, 0);
	cookie = take_part(_metadata, fd, 1, 0, LAST);
	inject_from(_metadata, &self->env, self->dev, 2, 2, 2);
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_RESET));
	take_recalled(_metadata, fd, 1, cookie);
	ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
	EXPECT_EQ(3, s.forgotten);
	EXPECT_EQ(0, s.responses[SUCCESS] + s.responses[INVALID]);
}

/* Only complete groups have a deadline; who has read a part is told. */
TEST_F(object, immediate_deadline)
{
	int fd = immediate(_metadata, self, 50);
	uint32_t cookie;

	inject_open(_metadata, self, 2, 0);
	cookie = take_part(_metadata, fd, 2, 0, OPEN);
	usleep(2 * SHORT_MS * 1000);
	EXPECT_EQ(-EBUSY, fault_answer(fd, cookie, SUCCESS));
	inject_last(_metadata, self, 2, 1);
	wait_outstanding(_metadata, &self->env, self->dev, 0);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 1);
	take_recalled(_metadata, fd, 2, cookie);
	EXPECT_EQ(1, fdinfo_number(fd, "iommufd-fault-by-deadline"));

	/* one that was never read just goes */
	inject_from(_metadata, &self->env, self->dev, 3, 1, 2);
	wait_outstanding(_metadata, &self->env, self->dev, 0);
	expect_empty(_metadata, fd);
}

/* Groups in every state are detached: no message, no answer before the last request. */
TEST_F(object, immediate_detach)
{
	int fd = immediate(_metadata, self, 0);
	uint32_t open, recalled, whole;

	inject_open(_metadata, self, 1, 0);
	recalled = take_part(_metadata, fd, 1, 0, OPEN);
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_OVERFLOW));
	take_recalled(_metadata, fd, 1, recalled);
	inject_open(_metadata, self, 2, 0);
	open = take_part(_metadata, fd, 2, 0, OPEN);
	inject_open(_metadata, self, 3, 0);
	inject_last(_metadata, self, 4, 0);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->plain_id));
	expect_empty(_metadata, fd);
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
	EXPECT_EQ(-EINVAL, fault_answer(fd, open, SUCCESS));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-delivered"));
	/* their rest goes where the device is attached now */
	inject_last(_metadata, self, 2, 1);
	expect_answers_of(_metadata, &self->env, self->dev, 1, 1);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->hwpt_id));
	inject_last(_metadata, self, 3, 1);
	whole = take_part(_metadata, fd, 3, 1, LAST);
	EXPECT_EQ(0, fault_answer(fd, whole, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 2, 1);
}

/*
 * Groups end before their last requests are here, as nobody can read them any more.
 * Each is answered, and counted, once.
 */
TEST_F(object, immediate_close_counts)
{
	int i, fd = immediate(_metadata, self, 0);
	long groups = device_counter("groups");
	long invalid = device_counter("answered_invalid");
	long success = device_counter("answered_success");

	for (i = 0; i < 10; i++)
		inject_open(_metadata, self, i, 0);
	take_part(_metadata, fd, 0, 0, OPEN);
	close(fd);
	self->queue->fd = -1;
	EXPECT_EQ(invalid, device_counter("answered_invalid"));
	for (i = 0; i < 10; i++)
		inject_last(_metadata, self, i, 1);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 10);
	EXPECT_EQ(groups + 10, device_counter("groups"));
	EXPECT_EQ(invalid + 10, device_counter("answered_invalid"));
	EXPECT_EQ(success, device_counter("answered_success"));
	EXPECT_EQ(0, device_counter("depth"));
	EXPECT_EQ(0, device_counter("partials"));
}

/* A recall that nobody has read of is dropped with the rest. */
TEST_F(object, immediate_detach_recalled)
{
	int fd = immediate(_metadata, self, 0);
	struct held_page held = {};

	inject_open(_metadata, self, 1, 0);
	take_part(_metadata, fd, 1, 0, OPEN);
	ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_OVERFLOW));
	EXPECT_EQ(1, fdinfo_number(fd, "iommufd-fault-queued"));
	inject_open(_metadata, self, 2, 0);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->plain_id));
	expect_empty(_metadata, fd);

	/* detached while a reader waits for its memory: there is nothing to read then */
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->hwpt_id));
	inject_open(_metadata, self, 3, 0);
	hold_reader(_metadata, &held, fd);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->plain_id));
	EXPECT_EQ(0, release_reader(_metadata, &held));
	expect_empty(_metadata, fd);
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-delivered"));
}

/* The file is closed amid groups; their last requests are answered when they come. */
TEST_F(object, immediate_close)
{
	int fd = immediate(_metadata, self, 0);

	inject_open(_metadata, self, 1, 0);
	take_part(_metadata, fd, 1, 0, OPEN);
	inject_open(_metadata, self, 2, 0);
	inject_from(_metadata, &self->env, self->dev, 3, 1, 2);
	env_close_queue(_metadata, self->queue);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 1);
	inject_open(_metadata, self, 1, 1);
	inject_last(_metadata, self, 1, 2);
	inject_last(_metadata, self, 2, 1);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 3);
}

/* A full object takes no new group, but the rest of those that it has. */
TEST_F(object, immediate_depth)
{
	struct iommu_fault_alloc fields = {
		.flags = IOMMU_FAULT_ALLOC_IMMEDIATE | IOMMU_FAULT_ALLOC_REPORT_LOSS |
			 IOMMU_FAULT_ALLOC_REFUSE,
		.depth = 1,
	};
	int fd = object_attach(_metadata, self, fields);
	uint32_t cookie;

	inject_open(_metadata, self, 1, 0);
	cookie = take_part(_metadata, fd, 1, 0, OPEN);
	inject_from(_metadata, &self->env, self->dev, 2, 1, 3);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 1);
	inject_last(_metadata, self, 1, 1);
	EXPECT_EQ(cookie, take_part(_metadata, fd, 1, 1, LAST | IOMMU_PGFAULT_FLAGS_LOST));
	EXPECT_EQ(0, fault_answer(fd, cookie, SUCCESS));
	inject_from(_metadata, &self->env, self->dev, 2, 1, 1);
	EXPECT_EQ(0, fault_answer(fd, take_part(_metadata, fd, 2, 0, LAST), SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 2, 1);
}

/* The same, but the device is told to try again, when the last request has come. */
TEST_F(object, immediate_try_again)
{
	struct iommu_fault_alloc fields = { .flags = IOMMU_FAULT_ALLOC_IMMEDIATE, .depth = 1 };
	int fd = object_attach(_metadata, self, fields);

	inject_open(_metadata, self, 1, 0);
	take_part(_metadata, fd, 1, 0, OPEN);
	inject_from(_metadata, &self->env, self->dev, 2, 1, 3);
	wait_outstanding(_metadata, &self->env, self->dev, 0);
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
	expect_empty(_metadata, fd);
}

/* Requests of open groups complete reads of io_uring. */
static void immediate_ring(struct __test_metadata *_metadata, struct _test_data_object *self,
			   enum iopf_mode mode)
{
	struct iopf_queue queue = { .id = 0 };
	struct iopf_slot *slot;
	struct iopf_ring ring;
	uint32_t cookie = 0;
	unsigned int i;

	queue.fd = immediate(_metadata, self, 0);
	ASSERT_EQ(0, iopf_ring_init_mode(&ring, &queue, mode, 4, 8));
	ASSERT_EQ(mode, ring.mode);
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&ring, i ? 0 : SHORT_MS, &slot));
		if (i < 3)
			inject_open(_metadata, self, 6, i);
		else
			inject_last(_metadata, self, 6, i);
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&ring, LONG_MS, &slot));
		ASSERT_EQ(1, slot->n_messages);
		EXPECT_EQ(i < 3 ? OPEN : LAST, slot->messages[0].flags);
		EXPECT_EQ(ADDR + i * PAGE, slot->messages[0].addr);
		cookie = cookie ?: slot->messages[0].cookie;
		EXPECT_EQ(cookie, slot->messages[0].cookie);
		if (i == 3)
			iopf_slot_answer(slot, cookie, SUCCESS);
		iopf_ring_reply(&ring, slot);
	}
	iopf_ring_next(&ring, SHORT_MS, &slot);
	wait_outstanding(_metadata, &self->env, self->dev, 0);
	iopf_ring_exit(&ring);
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
}

TEST_F(object, immediate_posted_reads)
{
	immediate_ring(_metadata, self, IOPF_READ);
}

TEST_F(object, immediate_multishot)
{
	immediate_ring(_metadata, self, IOPF_MULTISHOT);
}

/* Reads what comes, checks the order within each group, answers at its end. */
static void *immediate_server(void *arg)
{
	struct iommu_hwpt_pgfault m[7];
	struct race *r = arg;
	ssize_t i, n;
	int rc;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		fault_poll(r->fault_fd, 1);
		n = fault_read(r->fault_fd, m, 7);
		__atomic_fetch_add(&r->wrong, n < 0, __ATOMIC_RELAXED);
		for (i = 0; i < n; i++) {
			if (!(m[i].flags & LAST))
				continue;
			rc = fault_answer(r->fault_fd, m[i].cookie, SUCCESS);
			if (!rc)
				__atomic_fetch_add(&r->answered, 1, __ATOMIC_RELAXED);
			else if (rc == -EINVAL || rc == -ESTALE)
				__atomic_fetch_add(&r->late, 1, __ATOMIC_RELAXED);
			else
				__atomic_fetch_add(&r->wrong, 1, __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

/* Two readers; groups are injected, recalled, timed out, detached, all at once. */
TEST_F_TIMEOUT(object, immediate_race, 120)
{
	struct race race = {
		.iommufd = self->env.fd, .dev_id = self->dev->idev_id,
		.fault_fd = immediate(_metadata, self, 3),
	};
	struct iommu_test_iopf_stats s;
	pthread_t threads[3];
	unsigned int i;

	ASSERT_EQ(0, pthread_create(&threads[0], NULL, race_injector, &race));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, immediate_server, &race));
	ASSERT_EQ(0, pthread_create(&threads[2], NULL, immediate_server, &race));
	for (i = 0; i < 150; i++) {
		ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id,
					  i % 3 ? self->hwpt_id : self->plain_id));
		if (i % 3 == 1)
			ASSERT_EQ(0, object_event(self, IOMMU_TEST_IOPF_OVERFLOW));
		if (i % 5 == 1)
			usleep(5000);
	}
	__atomic_store_n(&race.stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->plain_id));
	EXPECT_EQ(0, race.wrong);
	EXPECT_EQ(0, race.failed);
	EXPECT_EQ(0, fdinfo_number(race.fault_fd, "iommufd-fault-queued"));
	EXPECT_EQ(0, fdinfo_number(race.fault_fd, "iommufd-fault-delivered"));
	ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
	/* beside those that the kernel gave in a replace */
	EXPECT_LE(race.answered, s.responses[SUCCESS]);
	EXPECT_EQ(0, s.outstanding);
}

TEST_HARNESS_MAIN
