// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of arm-smmu-v3-iopf.c: answers, as commands
 */
#include <linux/timer.h>

#include "arm-smmu-v3-iopf-test.h"

static void stall_answers(struct kunit *test)
{
	static const struct { enum iommu_page_response_code code; u64 action; } codes[] = {
		{ IOMMU_PAGE_RESP_SUCCESS, RETRY },
		{ IOMMU_PAGE_RESP_INVALID, ABORT },
		{ IOMMU_PAGE_RESP_FAILURE, ABORT },
	};
	const struct request r = { .sid = FIRST_SID + 1, .id = 0xbeef, .addr = 0x1000,
				   .ssv = true, .ssid = PASID };
	struct fake *f = stalling(test);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(codes); i++) {
		KUNIT_ASSERT_TRUE(test, push_stall(f, &r));
		run_evtq(f);
		expect_no_command(f);
		answer(expect_group(f, 1), codes[i].code);
		expect_resume(f, FIRST_SID + 1, 0xbeef, codes[i].action);
		expect_no_command(f);
	}
}

static void pri_answers(struct kunit *test)
{
	static const struct { enum iommu_page_response_code code; u64 resp; } codes[] = {
		{ IOMMU_PAGE_RESP_SUCCESS, 2 },
		{ IOMMU_PAGE_RESP_INVALID, 1 },
		{ IOMMU_PAGE_RESP_FAILURE, 0 },
	};
	struct fake *f = requesting(test);
	struct request r = { .sid = FIRST_SID, .id = 0x155, .last = true };
	size_t i;
	int way;

	/* the request with and without a PASID, to a function that wants it back or not */
	for (way = 0; way < 4; way++) {
		bool wanted = way & 1;

		r.ssv = way & 2;
		r.ssid = r.ssv ? PASID : 0;
		f->master.prg_resp_pasid = wanted;
		for (i = 0; i < ARRAY_SIZE(codes); i++) {
			KUNIT_ASSERT_TRUE(test, push_ppr(f, &r));
			run_priq(f);
			expect_no_command(f);
			answer(expect_group(f, 1), codes[i].code);
			expect_pri_resp(f, FIRST_SID, r.ssv && wanted,
					r.ssv && wanted ? PASID : 0, 0x155, codes[i].resp);
			expect_no_command(f);
		}
	}
}

static void several_streams(struct kunit *test)
{
	struct fake *f = stalling(test);
	struct request r = { .id = 5, .addr = 0x1000 };
	int i;

	/* equal tags of different streams are different stalls */
	for (i = 0; i < STREAMS; i++) {
		r.sid = FIRST_SID + i;
		KUNIT_ASSERT_TRUE(test, push_stall(f, &r));
	}
	run_evtq(f);
	for (i = 0; i < STREAMS; i++) {
		answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
		expect_resume(f, FIRST_SID + i, 5, RETRY);
	}
}

/* More than one list of commands, in the order of the answers, and nothing else */
static void batched_answers(struct kunit *test)
{
	struct fake *f = stalling(test);
	struct request r = { .sid = FIRST_SID };
	unsigned int i;

	for (i = 0; i < 128; i++) {
		r.id = i * 3;
		KUNIT_ASSERT_TRUE(test, push_stall(f, &r));
		if (i % 64 == 63)
			run_evtq(f);
	}
	KUNIT_EXPECT_EQ(test, answer_all(f, IOMMU_PAGE_RESP_SUCCESS), 128);
	for (i = 0; i < 128; i++)
		expect_resume(f, FIRST_SID, i * 3, RETRY);
	expect_no_command(f);
}

static void consume_some(struct timer_list *timer)
{
	struct fake *f = container_of(timer, struct fake, consume);
	u32 cons = f->cmdq_regs[1];

	f->found_pending = pending(&f->smmu.cmdq.q, f->cmdq_regs);
	WRITE_ONCE(f->cmdq_regs[1], (cons + CMDQ_BATCH_ENTRIES) & ((2U << CMDQ_SHIFT) - 1));
}

/* Answers never overrun the command queue: a list waits until there is room for it. */
static void full_command_queue(struct kunit *test)
{
	const unsigned int others = (1 << CMDQ_SHIFT) - CMDQ_BATCH_ENTRIES / 2;
	struct request r = { .sid = UNKNOWN_SID };
	struct fake *f = stalling(test);
	unsigned int i;

	for (i = 0; i < others; i++) {
		KUNIT_ASSERT_TRUE(test, push_stall(f, &r));
		if (i % 32 == 31)
			run_evtq(f);
	}
	r.sid = FIRST_SID;
	for (r.id = 0; r.id < CMDQ_BATCH_ENTRIES; r.id++)
		KUNIT_ASSERT_TRUE(test, push_stall(f, &r));
	run_evtq(f);

	timer_setup(&f->consume, consume_some, 0);
	mod_timer(&f->consume, jiffies + 2);
	KUNIT_EXPECT_EQ(test, answer_all(f, IOMMU_PAGE_RESP_SUCCESS), CMDQ_BATCH_ENTRIES);
	timer_delete_sync(&f->consume);
	KUNIT_EXPECT_EQ(test, f->found_pending, others);

	for (i = CMDQ_BATCH_ENTRIES; i < others; i++)
		expect_resume(f, UNKNOWN_SID, 0, ABORT);
	for (i = 0; i < CMDQ_BATCH_ENTRIES; i++)
		expect_resume(f, FIRST_SID, i, RETRY);
	expect_no_command(f);
}

static struct kunit_case arm_smmu_v3_iopf_answers_cases[] = {
	KUNIT_CASE(stall_answers),
	KUNIT_CASE(pri_answers),
	KUNIT_CASE(several_streams),
	KUNIT_CASE(batched_answers),
	KUNIT_CASE(full_command_queue),
	{}
};

static struct kunit_suite arm_smmu_v3_iopf_answers_suite = {
	.name = "arm-smmu-v3-iopf-answers",
	.init = smmu_fake_init,
	.exit = smmu_fake_exit,
	.test_cases = arm_smmu_v3_iopf_answers_cases,
};

kunit_test_suite(arm_smmu_v3_iopf_answers_suite);
