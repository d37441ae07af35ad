// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the I/O page fault core: requests that are handed on at once
 */
#include "io-pgfault-test.h"

static void immediate(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &iopf_test_immediate_ops;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, ft->requests, 1);
	KUNIT_EXPECT_TRUE(test, test_newest(ft)->open);
	iopf_group_deliver(test_newest(ft));
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, ft->requests, 2);
	KUNIT_EXPECT_EQ(test, ft->queued, 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, ft->closed, 1);
	KUNIT_EXPECT_FALSE(test, test_newest(ft)->open);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 3);
	KUNIT_EXPECT_TRUE(test, list_is_singular(&ft->held));
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&test_fdev(ft)->depth), 0);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "delivered"), 1);
}

static void immediate_refused(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &iopf_test_immediate_ops;
	ft->request_error = -ENOSPC;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -ENOSPC);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);

	ft->request_error = 0;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 8), 0);
	ft->request_error = -ENOSPC;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 8), -ENOSPC);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_NO_ROOM], 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 8), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 2);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

/* Open groups are taken back, complete ones stay. */
static void immediate_overflow(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &iopf_test_immediate_ops;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	iopf_queue_discard_partial(ft->iommus[0].queue);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_OVERFLOW], 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

/* An open group is the core's: nobody can claim it, and a handler that fails loses it. */
static void immediate_not_claimed(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &iopf_test_immediate_ops;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_FALSE(test, iopf_group_claim(test_newest(ft)));
	ft->handler_error = -EPIPE;
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -EPIPE);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_NO_HANDLER], 1);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);

	KUNIT_EXPECT_EQ(test, test_partial(ft, 8), 0);
	ft->handler_error = -EAGAIN;
	KUNIT_EXPECT_EQ(test, test_last(ft, 8), -EAGAIN);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_NO_ROOM], 1);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].responses[IOMMU_PAGE_RESP_SUCCESS], 1);
	KUNIT_EXPECT_TRUE(test, list_empty(&ft->held));

	ft->handler_error = 0;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 9), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 9), 0);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 3);
}

static void immediate_detach(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &iopf_test_immediate_ops;
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, false), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, false), 0);
	iopf_quiesce(test_dev(ft, 0), 1, &ft->pasids[0]);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_DETACH], 1);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 1);
	/* A stop marker is no reset. */
	iopf_discard_pasid(test_dev(ft, 0), 2);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_STOP], 1);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_RESET], 0);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
}

static struct kunit_case iopf_immediate_cases[] = {
	KUNIT_CASE(immediate),
	KUNIT_CASE(immediate_refused),
	KUNIT_CASE(immediate_overflow),
	KUNIT_CASE(immediate_not_claimed),
	KUNIT_CASE(immediate_detach),
	{ }
};

static struct kunit_suite iopf_immediate_suite = {
	.name = "iopf-immediate",
	.init = iopf_test_init,
	.exit = iopf_test_exit,
	.test_cases = iopf_immediate_cases,
};

kunit_test_suite(iopf_immediate_suite);
