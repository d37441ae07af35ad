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

/* A report that may not allocate does nothing where it would have to. */
static void nothing_allocated(struct kunit *test)
{
	struct iopf_fault evt = test_request_of(IOMMU_NO_PASID, 99, true);
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev;
	struct device *dev;
	u32 i, room, allocated;

	iopf_test_set_credits(test, 64);
	dev = test_dev(ft, 0);
	fdev = test_fdev(ft);
	allocated = fdev->allocated;
	room = allocated - IOPF_VOID_GROUPS;
	for (i = 0; i < room; i++) {
		evt.fault.prm.grpid = i;
		KUNIT_EXPECT_TRUE(test, iommu_try_report_device_fault(dev, &evt));
	}
	evt.fault.prm.grpid = i;
	KUNIT_EXPECT_FALSE(test, iommu_try_report_device_fault(dev, &evt));
	KUNIT_EXPECT_EQ(test, fdev->allocated, allocated);
	KUNIT_EXPECT_EQ(test, fdev->count.requests, room);
	KUNIT_EXPECT_EQ(test, fdev->count.no_room, 0);
	KUNIT_EXPECT_EQ(test, ft->queued, room);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);

	KUNIT_EXPECT_EQ(test, iommu_report_device_fault(dev, &evt), 0);
	KUNIT_EXPECT_GT(test, fdev->allocated, allocated);
	KUNIT_EXPECT_TRUE(test, iommu_try_report_device_fault(dev, &evt));
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), room + 2);

	/* Without memory it is not put off for ever: the device tries again. */
	for (i = 0; atomic_read(&fdev->depth) < fdev->allocated - IOPF_VOID_GROUPS; i++)
		KUNIT_ASSERT_EQ(test, test_last(ft, i), 0);
	spin_lock_bh(&fdev->lock);
	fdev->grow_delay = 1;
	spin_unlock_bh(&fdev->lock);
	KUNIT_EXPECT_TRUE(test, iommu_try_report_device_fault(dev, &evt));
	KUNIT_EXPECT_EQ(test, fdev->count.no_room, 1);
}

/* No page can be had without waiting: the device tries again until there is one. */
static void memory_short(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev;
	u32 i, room;

	iopf_test_set_credits(test, 8);
	fdev = test_fdev(ft);
	room = fdev->allocated - IOPF_VOID_GROUPS;
	spin_lock_bh(&fdev->lock);
	fdev->grow_delay = 1;
	spin_unlock_bh(&fdev->lock);
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
	KUNIT_EXPECT_EQ(test, ft->lost[IOPF_CAUSE_NO_ROOM], IOPF_VOID_GROUPS + 2);
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

	queue_delayed_work(system_dfl_wq, &fdev->grow_work, 0);
	flush_delayed_work(&fdev->grow_work);
	KUNIT_EXPECT_GT(test, fdev->allocated, room + IOPF_VOID_GROUPS);
	for (; atomic_read(&fdev->depth) < fdev->limit - IOPF_VOID_GROUPS; i++)
		KUNIT_ASSERT_EQ(test, test_last(ft, i), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, i), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
}

static struct kunit_case iopf_room_cases[] = {
	KUNIT_CASE(no_room_for_group),
	KUNIT_CASE(no_room_for_request),
	KUNIT_CASE(void_by_pasid),
	KUNIT_CASE(void_without_room),
	KUNIT_CASE(try_again),
	KUNIT_CASE(try_again_immediate),
	KUNIT_CASE(try_again_too_late),
	KUNIT_CASE(nothing_allocated),
	KUNIT_CASE(memory_short),
	{ }
};

static struct kunit_suite iopf_room_suite = {
	.name = "iopf-room",
	.init = iopf_test_init,
	.exit = iopf_test_exit,
	.test_cases = iopf_room_cases,
};

kunit_test_suite(iopf_room_suite);
