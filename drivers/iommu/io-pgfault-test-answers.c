// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the I/O page fault core: answers, who gives them, how they are counted
 */
#include <linux/completion.h>
#include <linux/kthread.h>

#include "io-pgfault-test.h"

static void batch_for_two_iommus(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	u32 grpid;

	for (grpid = 0; grpid < 6; grpid++)
		KUNIT_EXPECT_EQ(test, test_report(ft, grpid % 2, IOMMU_NO_PASID, grpid, true),
				0);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 6);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 3);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 1), 3);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].batches, 1);
	KUNIT_EXPECT_EQ(test, ft->iommus[1].batches, 1);
}

static void removal_answers(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 2), 0);
	iopf_group_deliver(test_newest(ft));
	iopf_test_set_credits(test, 0);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 2);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 0);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

struct test_racer {
	struct iopf_group **groups;
	struct completion *start;
	struct completion done;
	unsigned int won;
};

static int test_race(void *data)
{
	struct test_racer *racer = data;
	unsigned int i;

	wait_for_completion(racer->start);
	for (i = 0; i < TEST_BATCH; i++) {
		struct iopf_answer answer = { racer->groups[i] };

		if (iopf_group_claim(answer.group)) {
			iopf_answer_groups(&answer, 1);
			racer->won++;
		}
	}
	complete(&racer->done);
	return 0;
}

/* Several threads claim the same groups; then @against happens to them as well. */
static unsigned int test_run_race(struct kunit *test, void (*against)(struct kunit *test))
{
	struct iopf_group *groups[TEST_BATCH], *group;
	struct iopf_test *ft = test->priv;
	DECLARE_COMPLETION_ONSTACK(start);
	struct test_racer racers[4] = {};
	unsigned int i, won = 0;

	for (i = 0; i < TEST_BATCH; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), 0);
	i = 0;
	list_for_each_entry(group, &ft->held, node)
		groups[i++] = group;

	for (i = 0; i < ARRAY_SIZE(racers); i++) {
		racers[i].groups = groups;
		racers[i].start = &start;
		init_completion(&racers[i].done);
		if (IS_ERR(kthread_run(test_race, &racers[i], "iopf-test/%u", i)))
			complete(&racers[i].done);
	}
	complete_all(&start);
	against(test);
	for (i = 0; i < ARRAY_SIZE(racers); i++) {
		wait_for_completion(&racers[i].done);
		won += racers[i].won;
	}
	return won;
}

static void test_race_reset(struct kunit *test)
{
	iopf_device_reset(test_dev(test->priv, 0));
}

static void test_race_remove(struct kunit *test)
{
	iopf_test_set_credits(test, 0);
}

static void racing_claims(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	unsigned int round, won = 0;

	for (round = 0; round < 20; round++) {
		won += test_run_race(test, test_race_reset);
		KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 0);
		iopf_test_free_recalled(ft);
	}
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), won);
	KUNIT_EXPECT_EQ(test, won + ft->recalled[IOPF_CAUSE_RESET], round * TEST_BATCH);
	KUNIT_EXPECT_EQ(test, atomic_read(&test_fdev(ft)->depth), 0);
}

static void racing_removal(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	unsigned int round, won = 0;

	for (round = 0; round < 20; round++) {
		won += test_run_race(test, test_race_remove);
		KUNIT_EXPECT_EQ(test, test_responses(ft, 0), (round + 1) * TEST_BATCH);
		KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 0);
	}
	KUNIT_EXPECT_EQ(test, won + test_invalid(ft), round * TEST_BATCH);
}

static void counters(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_partial(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	iopf_group_deliver(test_newest(ft));
	KUNIT_EXPECT_EQ(test, test_last(ft, 2), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 3), 0);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "requests"), 4);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "groups"), 2);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "delivered"), 1);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "depth"), 2);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "partials"), 1);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "answered_success"), 0);

	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, TEST_PASIDS + 1, 1, true), -EINVAL);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "answered_success"), 2);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "answered_by_user"), 2);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "answered_invalid"), 1);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "answered_by_no_handler"), 1);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "delivered"), 1);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "depth"), 0);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "depth_peak"), 2);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "pool_limit"), 2 * 4096 + 256);

	KUNIT_EXPECT_EQ(test, test_last(ft, 4), 0);
	iopf_device_reset(test_dev(ft, 0));
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "recalled_reset"), 1);
}

/* Of a group that its handler has seen, but does not take, one answer is counted. */
static void open_groups_counted_once(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	u32 i;

	ft->domain.iopf_ops = &iopf_test_immediate_ops;
	for (i = 0; i < 10; i++)
		KUNIT_EXPECT_EQ(test, test_partial(ft, i), 0);
	ft->handler_error = -EPIPE;
	for (i = 0; i < 10; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), -EPIPE);
	KUNIT_EXPECT_EQ(test, iopf_test_answer(ft, IOMMU_PAGE_RESP_INVALID), 0);
	iopf_test_free_recalled(ft);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "depth"), 0);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 10);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "groups"), 10);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "answered_invalid"), 10);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "answered_by_no_handler"), 10);
	KUNIT_EXPECT_EQ(test, iopf_test_counter(test, "answered_success"), 0);
}

static struct kunit_case iopf_answers_cases[] = {
	KUNIT_CASE(batch_for_two_iommus),
	KUNIT_CASE(removal_answers),
	KUNIT_CASE(counters),
	KUNIT_CASE(open_groups_counted_once),
	KUNIT_CASE(racing_claims),
	KUNIT_CASE(racing_removal),
	{ }
};

static struct kunit_suite iopf_answers_suite = {
	.name = "iopf-answers",
	.init = iopf_test_init,
	.exit = iopf_test_exit,
	.test_cases = iopf_answers_cases,
};

kunit_test_suite(iopf_answers_suite);
