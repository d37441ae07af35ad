// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the I/O page fault core: which requests are one group, and whose it is
 */
#include <linux/hash.h>
#include <linux/ktime.h>

#include "io-pgfault-test.h"

static void one_group_one_answer(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, ft->queued, 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_ASSERT_EQ(test, ft->queued, 1);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 3);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&test_newest(ft)->faults), 3);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_FAILURE), 1);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].responses[IOMMU_PAGE_RESP_FAILURE], 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);
}

/* A last request without others, and one that comes twice */
static void last_alone(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

static void id_reused_before_answer(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

static void interleaved_groups(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	u32 i, grpid;

	for (i = 0; i < 5; i++) {
		for (grpid = 0; grpid < 8; grpid++)
			KUNIT_EXPECT_EQ(test, test_partial(ft, grpid), 0);
	}
	for (grpid = 8; grpid--;) {
		KUNIT_EXPECT_EQ(test, test_last(ft, grpid), 0);
		KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 6);
		KUNIT_EXPECT_EQ(test, test_newest(ft)->last_fault.fault.prm.grpid, grpid);
	}
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 8);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 8);
}

/* One group id without a PASID and on two: three groups */
static void one_id_two_pasids(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	ioasid_t pasid;

	for (pasid = 0; pasid <= TEST_PASIDS; pasid++) {
		KUNIT_EXPECT_EQ(test, test_report(ft, 0, pasid, 7, false), 0);
		KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, pasid + 1);
	}
	for (pasid = 0; pasid <= TEST_PASIDS; pasid++) {
		KUNIT_EXPECT_EQ(test, test_report(ft, 0, pasid, 7, true), 0);
		KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
		KUNIT_EXPECT_PTR_EQ(test, test_newest(ft)->attach_handle,
				    pasid ? &ft->pasids[pasid - 1] : &ft->iommus[0].rid);
	}
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1 + TEST_PASIDS);
}

/* Requests that are not the last are never answered, the last one always is. */
static void nobody_handles(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	ioasid_t pasid = TEST_PASIDS + 1;

	KUNIT_EXPECT_EQ(test, test_report(ft, 0, pasid, 7, false), 0);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, pasid, 7, true), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].last.pasid, pasid);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].last.grpid, 7);

	iopf_queue_remove_device(ft->iommus[0].queue, test_dev(ft, 0));
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -ENODEV);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -ENODEV);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 2);
	KUNIT_EXPECT_EQ(test, ft->queued, 0);
	iopf_queue_add_device(ft->iommus[0].queue, test_dev(ft, 0));
}

/* A request that the driver refuses takes its whole group with it. */
static void refused_by_driver(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_fault evt = {
		.fault.type = IOMMU_FAULT_PAGE_REQ,
		.fault.prm.grpid = 7,
		.fault.prm.flags = IOMMU_FAULT_PAGE_REQUEST_REFUSED,
	};

	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, iommu_report_device_fault(test_dev(ft, 0), &evt), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
	KUNIT_EXPECT_NE(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);

	evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, iommu_report_device_fault(test_dev(ft, 0), &evt), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 2);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	KUNIT_EXPECT_EQ(test, ft->queued, 0);
}

/* Where user space owns the PASID table, the RID's domain stands for all PASIDs. */
static void nested_takes_all_pasids(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->ops.user_pasid_table = 1;
	ft->domain.type = IOMMU_DOMAIN_NESTED;
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 77, 7, true), 0);
	KUNIT_ASSERT_EQ(test, ft->queued, 1);
	KUNIT_EXPECT_PTR_EQ(test, test_newest(ft)->attach_handle, &ft->iommus[0].rid);
}

/* How many groups a look-up meets, summed over all that are there */
static unsigned int test_visits(struct iopf_device *fdev)
{
	unsigned int i, length, visits = 0;
	struct iopf_group *group;

	for (i = 0; i < 1U << fdev->partial_bits; i++) {
		length = 0;
		hlist_for_each_entry(group, &fdev->partial[i], partial_node)
			visits += ++length;
	}
	return visits;
}

static u64 test_time_last(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	u64 begin, least = U64_MAX;
	unsigned int i;

	for (i = 0; i < 16; i++) {
		KUNIT_ASSERT_EQ(test, test_partial(ft, 5000 + i), 0);
		begin = ktime_get_ns();
		KUNIT_ASSERT_EQ(test, test_last(ft, 5000 + i), 0);
		least = min(least, ktime_get_ns() - begin);
		KUNIT_ASSERT_EQ(test, test_newest(ft)->fault_count, 2);
		iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS);
	}
	return least;
}

/*
 * The last request must cost the same with 4096 other groups as with one. How
 * long it takes is printed, for a machine whose clock counts instructions; what
 * is judged here is how many groups a look-up meets.
 */
static void last_among_many(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	u64 among_one, among_many;
	u32 grpid;

	iopf_reserve = 4096;
	iopf_test_set_credits(test, 4096);
	KUNIT_ASSERT_EQ(test, test_partial(ft, 0), 0);
	among_one = test_time_last(test);
	for (grpid = 1; grpid < 4096; grpid++)
		KUNIT_ASSERT_EQ(test, test_partial(ft, grpid), 0);
	among_many = test_time_last(test);

	kunit_info(test, "iopf last request among 1: %llu ns, among 4096: %llu ns\n",
		   among_one, among_many);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 4096);
	KUNIT_EXPECT_LE(test, test_visits(test_fdev(ft)), 2 * 4096);
}

/*
 * Ids that an adversary has chosen for one bucket of a hash without a key: how many
 * groups a look-up meets is as with any others.
 */
static void chosen_ids(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	unsigned int bits, n = 0;
	u32 grpid;

	iopf_reserve = 1024;
	iopf_test_set_credits(test, 4096);
	bits = test_fdev(ft)->partial_bits;
	for (grpid = 0; n < 1024; grpid++) {
		if (hash_64((u64)grpid << 32 | IOMMU_PASID_INVALID, bits))
			continue;
		KUNIT_ASSERT_EQ(test, test_partial(ft, grpid), 0);
		n++;
	}
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, n);
	KUNIT_EXPECT_LE(test, test_visits(test_fdev(ft)), 2 * n);
}

/* Without a PASID and with PASID 0: two groups, and one stop marker ends one. */
static void no_pasid_and_pasid_0(struct kunit *test)
{
	struct iopf_fault evt = test_request_of(0, 7, false);
	struct iopf_test *ft = test->priv;

	evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, iommu_report_device_fault(test_dev(ft, 0), &evt), 0);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 2);
	iopf_discard_pasid(test_dev(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 1);
	evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	KUNIT_EXPECT_EQ(test, iommu_report_device_fault(test_dev(ft, 0), &evt), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
	iopf_discard_pasid(test_dev(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);

	KUNIT_EXPECT_EQ(test, test_partial(ft, 8), 0);
	iopf_discard_pasid(test_dev(ft, 0), IOMMU_PASID_INVALID);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
}

static struct kunit_case iopf_groups_cases[] = {
	KUNIT_CASE(one_group_one_answer),
	KUNIT_CASE(last_alone),
	KUNIT_CASE(id_reused_before_answer),
	KUNIT_CASE(interleaved_groups),
	KUNIT_CASE(one_id_two_pasids),
	KUNIT_CASE(nobody_handles),
	KUNIT_CASE(refused_by_driver),
	KUNIT_CASE(nested_takes_all_pasids),
	KUNIT_CASE(last_among_many),
	KUNIT_CASE(chosen_ids),
	KUNIT_CASE(no_pasid_and_pasid_0),
	{ }
};

static struct kunit_suite iopf_groups_suite = {
	.name = "iopf-groups",
	.init = iopf_test_init,
	.exit = iopf_test_exit,
	.test_cases = iopf_groups_cases,
};

kunit_test_suite(iopf_groups_suite);
