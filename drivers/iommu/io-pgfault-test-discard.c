// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the I/O page fault core: groups that are not worth an answer any more
 */
#include <linux/workqueue.h>

#include "io-pgfault-test.h"

static void overflow(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, iopf_queue_discard_partial(ft->iommus[0].queue), 0);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.overflows, 1);
	/* Everybody whom the device may have asked, nobody else */
	KUNIT_EXPECT_EQ(test, ft->lost[IOPF_CAUSE_OVERFLOW], 1 + TEST_PASIDS);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

static void reset(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 2), 0);
	iopf_group_deliver(test_newest(ft));
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 1, IOMMU_NO_PASID, 1, true), 0);

	ft->iommus[0].late_request = true;
	iopf_device_reset(test_dev(ft, 0));
	/* The two, and what the hardware queue held; and answers are pushed out. */
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_RESET], 3);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].drains, 2);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	KUNIT_EXPECT_FALSE(test, iopf_group_claim(list_first_entry(&ft->recalled_groups,
								   struct iopf_group, node)));
	/* Of the other device, and of the time after */
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 1), 1);
}

static void age(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev = test_fdev(ft);
	struct iopf_group *group;

	KUNIT_EXPECT_FALSE(test, fdev->aging);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 2), 0);
	KUNIT_EXPECT_TRUE(test, fdev->aging);
	spin_lock_bh(&fdev->lock);
	list_for_each_entry(group, &fdev->partials, partial_list)
		group->queued -= iopf_partial_timeout();
	spin_unlock_bh(&fdev->lock);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 3), 0);

	mod_delayed_work(fdev->param.queue->wq, &fdev->age_work, 0);
	flush_delayed_work(&fdev->age_work);
	KUNIT_EXPECT_EQ(test, fdev->count.stale, 2);
	KUNIT_EXPECT_EQ(test, fdev->count.partials, 1);
	KUNIT_EXPECT_TRUE(test, fdev->aging);
	KUNIT_EXPECT_EQ(test, test_last(ft, 3), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);

	/* Nobody is waited for any more */
	mod_delayed_work(fdev->param.queue->wq, &fdev->age_work, 0);
	flush_delayed_work(&fdev->age_work);
	KUNIT_EXPECT_FALSE(test, fdev->aging);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
}

/* A stop marker: no more requests of one PASID */
static void stopped_pasid(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, false), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, false), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	iopf_discard_pasid(test_dev(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 2);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, true), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
}

static void detach(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, false), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, false), 0);
	iommu_detach_device_pasid(&ft->domain, test_dev(ft, 0), 1);
	iopf_quiesce(test_dev(ft, 0), 1, &ft->pasids[0]);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 1);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, true), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, true), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
	KUNIT_EXPECT_EQ(test, iommu_attach_device_pasid(&ft->domain, test_dev(ft, 0), 1,
							&ft->pasids[0]), 0);
}

/*
 * What a device asks for while its domain is replaced reaches a handler, if the old
 * domain or the new one has any; and if the driver refuses, the old one goes on.
 */
static void replace_midway(struct kunit *test)
{
	struct iommu_attach_handle plain_handle = {}, other = {};
	struct iopf_test *ft = test->priv;
	struct test_iommu *ti = &ft->iommus[0];
	struct iommu_domain plain = {
		.type = IOMMU_DOMAIN_UNMANAGED, .ops = &iopf_test_domain_ops, .owner = &ft->ops,
	};
	struct iommu_group *group = test_dev(ft, 0)->iommu_group;

	ti->switch_request = true;
	/* Both queue: the old one has it. */
	KUNIT_EXPECT_EQ(test, iommu_replace_device_pasid(&plain, test_dev(ft, 0), 1,
							 &plain_handle), 0);
	KUNIT_ASSERT_EQ(test, ft->queued, 1);
	KUNIT_EXPECT_PTR_EQ(test, test_newest(ft)->attach_handle, &ft->pasids[0]);
	/* The driver refuses; what came is the new one's to answer. */
	ti->switch_error = -EINVAL;
	KUNIT_EXPECT_EQ(test, iommu_replace_device_pasid(&ft->domain, test_dev(ft, 0), 1,
							 &other), -EINVAL);
	KUNIT_EXPECT_EQ(test, ft->queued, 2);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, true), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	/* The new one has a handler, the old one none. */
	KUNIT_EXPECT_EQ(test, iommu_replace_device_pasid(&ft->domain, test_dev(ft, 0), 1,
							 &ft->pasids[0]), 0);
	KUNIT_EXPECT_EQ(test, ft->queued, 3);
	KUNIT_EXPECT_PTR_EQ(test, test_newest(ft)->attach_handle, &ft->pasids[0]);

	KUNIT_EXPECT_EQ(test, iommu_replace_group_handle(group, &plain, &plain_handle), 0);
	KUNIT_EXPECT_EQ(test, ft->queued, 4);
	ti->switch_error = -EINVAL;
	KUNIT_EXPECT_NE(test, iommu_replace_group_handle(group, &ft->domain, &other), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -EINVAL);
	KUNIT_EXPECT_EQ(test, iommu_replace_group_handle(group, &ft->domain, &ti->rid), 0);
	KUNIT_EXPECT_PTR_EQ(test, test_newest(ft)->attach_handle, &ti->rid);
	ti->switch_request = false;
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 2);
	iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS);
}

/* What was collected outlives an attach that the driver refuses. */
static void refused_attach(struct kunit *test)
{
	struct iommu_attach_handle other = {};
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, false), 0);
	iopf_quiesce(test_dev(ft, 0), IOMMU_PASID_INVALID, &other);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, true), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
}

static struct kunit_case iopf_discard_cases[] = {
	KUNIT_CASE(overflow),
	KUNIT_CASE(reset),
	KUNIT_CASE(age),
	KUNIT_CASE(stopped_pasid),
	KUNIT_CASE(detach),
	KUNIT_CASE(replace_midway),
	KUNIT_CASE(refused_attach),
	{ }
};

static struct kunit_suite iopf_discard_suite = {
	.name = "iopf-discard",
	.init = iopf_test_init,
	.exit = iopf_test_exit,
	.test_cases = iopf_discard_cases,
};

kunit_test_suite(iopf_discard_suite);
