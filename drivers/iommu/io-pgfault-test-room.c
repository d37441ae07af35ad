// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the I/O page fault core: groups and requests that find no room
 */
#include <linux/workqueue.h>

#include "io-pgfault-test.h"

static void no_room_for_group(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev;
	u32 i, room;

	iopf_test_set_credits(test, 8);
	fdev = test_fdev(ft);
	room = fdev->limit - IOPF_VOID_GROUPS;
	for (i = 0; i < room; i++)
		KUNIT_ASSERT_EQ(test, test_last(ft, i), 0);
	KUNIT_EXPECT_EQ(test, fdev->allocated, fdev->limit);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);

	KUNIT_EXPECT_EQ(test, test_last(ft, i), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, fdev->count.no_room, 1);
	KUNIT_EXPECT_EQ(test, ft->lost[IOPF_CAUSE_NO_ROOM], 1);
	KUNIT_EXPECT_EQ(test, fdev->count.depth_peak, room);

	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), room);
	KUNIT_EXPECT_EQ(test, test_last(ft, i), 0);
	KUNIT_EXPECT_EQ(test, fdev->allocated, fdev->limit);
}

/* A group that lost a request is not answered as if it were complete. */
static void no_room_for_request(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev;
	unsigned int i;

	iopf_test_set_credits(test, 8);
	fdev = test_fdev(ft);
	KUNIT_ASSERT_EQ(test, test_partial(ft, 1), 0);
	for (i = 0; i < fdev->limit - 1; i++)
		KUNIT_ASSERT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -ENOMEM);
	KUNIT_EXPECT_EQ(test, fdev->count.partials, 2);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, ft->queued, 0);

	/* The others, and the next one with that id, are as good as ever. */
	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
}

/* Which group is void is known exactly, as long as the device keeps to its credits. */
static void void_by_pasid(struct kunit *test)
{
	struct iopf_fault evt = test_request_of(1, 7, false);
	struct iopf_test *ft = test->priv;

	evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_REFUSED;
	KUNIT_EXPECT_EQ(test, iommu_report_device_fault(test_dev(ft, 0), &evt), -EINVAL);
	/* The same id without a PASID and with another one, and other ids with this one */
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, true), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7 + 1024, true), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, false), -ENOMEM);
	KUNIT_EXPECT_NE(test, test_report(ft, 0, 1, 7, true), 0);
	KUNIT_EXPECT_EQ(test, ft->queued, 3);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	/* The next one of that name is a new group. */
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, true), 0);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 4);
}

/* More void groups than are kept back: the others are as after an overflow. */
static void void_without_room(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev;
	u32 i;

	iopf_test_set_credits(test, 8);
	fdev = test_fdev(ft);
	for (i = 0; i < fdev->limit - IOPF_VOID_GROUPS; i++)
		KUNIT_ASSERT_EQ(test, test_partial(ft, i), 0);
	for (; i < fdev->limit + 8; i++)
		KUNIT_EXPECT_EQ(test, test_partial(ft, i), -ENOMEM);
	KUNIT_EXPECT_EQ(test, fdev->count.partials, fdev->limit);
	for (i = 0; i < IOPF_VOID_GROUPS; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), 0);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), IOPF_VOID_GROUPS);
	KUNIT_EXPECT_EQ(test, test_last(ft, fdev->limit - 1), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, fdev->limit + 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
}

/* A handler that has no room now: the device is told to try again, a moment later. */
static void try_again(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev = test_fdev(ft);
	u32 i;

	ft->handler_error = -EAGAIN;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 0), 0);
	for (i = 0; i < 2 * IOPF_RETRY_BATCH + 1; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), -EAGAIN);
	flush_delayed_work(&fdev->retry_work);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].responses[IOMMU_PAGE_RESP_SUCCESS], i);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), i);
	KUNIT_EXPECT_EQ(test, atomic_read(&fdev->depth), 0);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "answered_by_no_room"), i);
	ft->handler_error = 0;
	KUNIT_EXPECT_EQ(test, test_last(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
}

/* With immediate delivery that is known at the first request, and told at the last. */
static void try_again_immediate(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &iopf_test_immediate_ops;
	ft->request_error = -EAGAIN;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -EAGAIN);
	ft->request_error = 0;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -EAGAIN);
	flush_delayed_work(&test_fdev(ft)->retry_work);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].responses[IOMMU_PAGE_RESP_SUCCESS], 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, ft->requests, 1);
}

/* What is parked when its device is detached, reset or removed */
static void try_again_too_late(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev = test_fdev(ft);

	ft->handler_error = -EAGAIN;
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, true), -EAGAIN);
	iopf_quiesce(test_dev(ft, 0), 1, &ft->pasids[0]);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);

	/* The work does not run before these two have come. */
	disable_delayed_work_sync(&fdev->retry_work);
	KUNIT_EXPECT_EQ(test, test_last(ft, 8), -EAGAIN);
	iopf_device_reset(test_dev(ft, 0));
	KUNIT_EXPECT_EQ(test, fdev->count.recalled[IOPF_CAUSE_RESET], 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 9), -EAGAIN);
	iopf_test_set_credits(test, 0);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

/* A pool that begins with a page, as it does if nothing is reserved */
static struct iopf_device *small_pool(struct kunit *test, unsigned int credits)
{
	iopf_reserve = 0;
	iopf_test_set_credits(test, credits);
	return test_fdev(test->priv);
}

static void let_grow(struct iopf_device *fdev)
{
	enable_delayed_work(&fdev->grow_work);
	queue_delayed_work(system_dfl_wq, &fdev->grow_work, 0);
	flush_delayed_work(&fdev->grow_work);
}

/* A device that does not send faster than memory comes never finds none. */
static void grows_ahead(struct kunit *test)
{
	struct iopf_device *fdev = small_pool(test, 64);
	struct iopf_test *ft = test->priv;
	u32 i, room = fdev->limit - IOPF_VOID_GROUPS;

	KUNIT_EXPECT_LT(test, fdev->allocated, 64);
	for (i = 0; i < room; i++) {
		KUNIT_ASSERT_EQ(test, test_last(ft, i), 0);
		flush_delayed_work(&fdev->grow_work);
	}
	KUNIT_EXPECT_EQ(test, fdev->allocated, fdev->limit);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), room);

	/* The same of requests, in one group */
	fdev = small_pool(test, 64);
	for (i = 0; i < fdev->limit; i++) {
		KUNIT_ASSERT_EQ(test, test_partial(ft, 7), 0);
		flush_delayed_work(&fdev->grow_work);
	}
	KUNIT_EXPECT_EQ(test, fdev->allocated, fdev->limit);
	KUNIT_EXPECT_EQ(test, fdev->count.no_room, 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&fdev->requests), fdev->limit);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&fdev->requests), 0);
}

/* A pool grows by what is outstanding at once, and by no more, however long it goes on. */
static void grows_with_need(struct kunit *test)
{
	struct iopf_device *fdev = small_pool(test, 256);
	struct iopf_test *ft = test->priv;
	u32 i, round, allocated;

	for (round = 0; round < 8; round++) {
		for (i = 0; i < 40; i++) {
			KUNIT_ASSERT_EQ(test, test_partial(ft, i), 0);
			flush_delayed_work(&fdev->grow_work);
			KUNIT_ASSERT_EQ(test, test_last(ft, i), 0);
		}
		if (!round)
			allocated = fdev->allocated;
		KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 40);
	}
	KUNIT_EXPECT_EQ(test, fdev->allocated, allocated);
	KUNIT_EXPECT_LT(test, allocated, 40 + IOPF_VOID_GROUPS + 2 * IOPF_PAIRS_PER_PAGE);
	KUNIT_EXPECT_EQ(test, fdev->count.no_room, 0);
}

/* A report allocates nothing: what comes before the memory does is to try again. */
static void memory_short(struct kunit *test)
{
	struct iopf_device *fdev = small_pool(test, 8);
	u32 i, allocated = fdev->allocated, room = allocated - IOPF_VOID_GROUPS;
	struct iopf_test *ft = test->priv;

	disable_delayed_work_sync(&fdev->grow_work);
	for (i = 0; i < room; i++)
		KUNIT_ASSERT_EQ(test, test_last(ft, i), 0);
	/* In the groups that are kept back, and when these are used up, at once */
	disable_delayed_work_sync(&fdev->retry_work);
	for (; i < room + IOPF_VOID_GROUPS; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), -EAGAIN);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, i), -EAGAIN);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].responses[IOMMU_PAGE_RESP_SUCCESS], 1);
	KUNIT_EXPECT_EQ(test, test_partial(ft, i), -EAGAIN);
	KUNIT_EXPECT_EQ(test, fdev->count.no_room, IOPF_VOID_GROUPS + 2);
	enable_delayed_work(&fdev->retry_work);
	mod_delayed_work(fdev->param.queue->wq, &fdev->retry_work, 0);
	flush_delayed_work(&fdev->retry_work);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1 + IOPF_VOID_GROUPS);

	/* A group that loses a request has the same answer. */
	KUNIT_EXPECT_EQ(test, test_partial(ft, 99), -EAGAIN);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 99), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_last(ft, 99), -EAGAIN);
	flush_delayed_work(&fdev->retry_work);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].responses[IOMMU_PAGE_RESP_SUCCESS],
			2 + IOPF_VOID_GROUPS);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 0);
	KUNIT_EXPECT_EQ(test, fdev->allocated, allocated);
	/* Nothing of all that is lost, so nobody is told. */
	KUNIT_EXPECT_EQ(test, ft->lost[IOPF_CAUSE_NO_ROOM], 0);

	/* By as much as the device goes on to ask for */
	fdev->missed = 0;
	let_grow(fdev);
	KUNIT_EXPECT_GT(test, fdev->allocated, allocated);
	KUNIT_EXPECT_LT(test, fdev->allocated, fdev->limit);
	for (; atomic_read(&fdev->depth) < fdev->limit - IOPF_VOID_GROUPS; i++) {
		KUNIT_ASSERT_EQ(test, test_last(ft, i), 0);
		flush_delayed_work(&fdev->grow_work);
	}
	KUNIT_EXPECT_EQ(test, test_last(ft, i), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, ft->lost[IOPF_CAUSE_NO_ROOM], 1);
}

/* A large burst, and a group of many requests, find room when they come again. */
static void grows_by_what_missed(struct kunit *test)
{
	struct iopf_device *fdev = small_pool(test, 256);
	struct iopf_test *ft = test->priv;
	u32 i, n;

	disable_delayed_work_sync(&fdev->grow_work);
	for (n = 0; n < 200; n++) {
		if (test_last(ft, n))
			break;
	}
	KUNIT_EXPECT_GT(test, n, 0);
	for (i = n + 1; i < 200; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), -EAGAIN);
	let_grow(fdev);
	flush_delayed_work(&fdev->retry_work);
	for (i = n; i < 200; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), 0);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 200);
	KUNIT_EXPECT_LT(test, fdev->allocated, 200 + IOPF_VOID_GROUPS + 2 * IOPF_PAIRS_PER_PAGE);

	fdev = small_pool(test, 256);
	disable_delayed_work_sync(&fdev->grow_work);
	for (i = 0; i < 255; i++)
		n = test_partial(ft, 7);
	KUNIT_EXPECT_EQ(test, n, (u32)-ENOMEM);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -EAGAIN);
	let_grow(fdev);
	flush_delayed_work(&fdev->retry_work);
	for (i = 0; i < 255; i++)
		KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 256);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
}

/* What the administrator reserves is there before the first request, up to the limit. */
static void reserved(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev;
	u32 i;

	iopf_reserve = 100;
	iopf_test_set_credits(test, 64);
	fdev = test_fdev(ft);
	disable_delayed_work_sync(&fdev->grow_work);
	for (i = 0; i < 100; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), 0);
	KUNIT_EXPECT_EQ(test, fdev->count.no_room, 0);
	enable_delayed_work(&fdev->grow_work);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 100);

	iopf_reserve = UINT_MAX;
	iopf_test_set_credits(test, 64);
	fdev = test_fdev(ft);
	KUNIT_EXPECT_EQ(test, fdev->allocated, fdev->limit);
}

static struct kunit_case iopf_room_cases[] = {
	KUNIT_CASE(no_room_for_group),
	KUNIT_CASE(no_room_for_request),
	KUNIT_CASE(void_by_pasid),
	KUNIT_CASE(void_without_room),
	KUNIT_CASE(try_again),
	KUNIT_CASE(try_again_immediate),
	KUNIT_CASE(try_again_too_late),
	KUNIT_CASE(grows_ahead),
	KUNIT_CASE(grows_with_need),
	KUNIT_CASE(grows_by_what_missed),
	KUNIT_CASE(memory_short),
	KUNIT_CASE(reserved),
	{ }
};

static struct kunit_suite iopf_room_suite = {
	.name = "iopf-room",
	.init = iopf_test_init,
	.exit = iopf_test_exit,
	.test_cases = iopf_room_cases,
};

kunit_test_suite(iopf_room_suite);
