// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of arm-smmu-v3-iopf.c: the queues, and who handles them
 */
#include <linux/interrupt.h>

#include "arm-smmu-v3-iopf-test.h"

static void wrap_around(struct kunit *test)
{
	struct fake *f = stalling(test);
	struct request r = { .sid = FIRST_SID };
	unsigned int round, i, n;
	u16 first = 0;

	/* every length of burst, so that every slot is the first one of some */
	for (round = 0; round < 256; round++) {
		n = round % 64 + 1;
		for (i = 0; i < n; i++) {
			r.id = first + i;
			KUNIT_ASSERT_TRUE(test, push_stall(f, &r));
		}
		run_evtq(f);
		KUNIT_ASSERT_EQ(test, answer_all(f, IOMMU_PAGE_RESP_SUCCESS), n);
		for (i = 0; i < n; i++)
			expect_resume(f, FIRST_SID, (u16)(first + i), RETRY);
		first += n;
	}
	expect_no_command(f);
}

static void event_overflow(struct kunit *test)
{
	const struct request r = { .sid = FIRST_SID, .id = 1 };
	struct fake *f = stalling(test);
	unsigned int i;

	for (i = 0; i < 1 << EVTQ_SHIFT; i++)
		KUNIT_ASSERT_TRUE(test, push_stall(f, &r));
	KUNIT_EXPECT_FALSE(test, push_stall(f, &r));
	/* some event that did not stall was lost */
	f->evtq_regs[0] ^= Q_OVERFLOW_FLAG;
	run_evtq(f);
	KUNIT_EXPECT_FALSE(test, overflowed(f->evtq_regs));
	KUNIT_EXPECT_EQ(test, answer_all(f, IOMMU_PAGE_RESP_SUCCESS), 1 << EVTQ_SHIFT);

	/* and with nothing in the queue */
	f->evtq_regs[0] ^= Q_OVERFLOW_FLAG;
	run_evtq(f);
	KUNIT_EXPECT_FALSE(test, overflowed(f->evtq_regs));
}

/*
 * Group 1 is whole, of group 2 the last request is lost. The SMMU has answered it,
 * so that index 2 may be used again at once: the old request must not be part of
 * the new group.
 */
static void pri_overflow(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .id = 1, .addr = 0x1000 };
	struct fake *f = requesting(test);
	struct iopf_group *group;

	push_ppr(f, &r);
	r.last = true;
	push_ppr(f, &r);
	r.last = false;
	r.id = 2;
	while (push_ppr(f, &r))
		;
	KUNIT_EXPECT_TRUE(test, overflowed(f->priq_regs));
	run_priq(f);
	KUNIT_EXPECT_FALSE(test, overflowed(f->priq_regs));
	answer(expect_group(f, 2), IOMMU_PAGE_RESP_SUCCESS);
	expect_pri_resp(f, FIRST_SID, false, 0, 1, 2);
	expect_no_group(f);

	r.last = true;
	r.addr = 0x8000;
	KUNIT_ASSERT_TRUE(test, push_ppr(f, &r));
	run_priq(f);
	group = expect_group(f, 1);
	KUNIT_EXPECT_EQ(test, group->last_fault.fault.prm.addr, 0x8000);
	answer(group, IOMMU_PAGE_RESP_SUCCESS);
	expect_pri_resp(f, FIRST_SID, false, 0, 2, 2);
	expect_no_command(f);
}

static void pri_aborted(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .id = 1 };
	struct fake *f = requesting(test);

	smmu_fake_request_irq(f, &f->smmu.priq.q, arm_smmu_priq_thread);
	push_ppr(f, &r);
	arm_smmu_priq_aborted(&f->smmu);
	synchronize_irq(f->smmu.priq.q.irq);
	smmu_fake_free_irq(f, &f->smmu.priq.q);
	KUNIT_EXPECT_EQ(test, f->priq_regs[0], f->priq_regs[1]);
	r.last = true;
	push_ppr(f, &r);
	run_priq(f);
	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	expect_pri_resp(f, FIRST_SID, false, 0, 1, 2);

	/* once only */
	r.last = false;
	push_ppr(f, &r);
	run_priq(f);
	r.last = true;
	push_ppr(f, &r);
	run_priq(f);
	answer(expect_group(f, 2), IOMMU_PAGE_RESP_SUCCESS);
}

#define STORM	100000

static u32 storm_sid(unsigned int n)
{
	return FIRST_SID + n % STREAMS;
}

/* 100,000 entries, each answered once, in order, by the stream that it came from */
static void storm(struct fake *f, bool (*push_one)(struct fake *f, const struct request *r),
		  void (*run)(struct fake *f), u64 word0, u64 word1)
{
	struct request r = { .last = true };
	unsigned int sent = 0, answered = 0;
	u64 words[CMDQ_ENT_DWORDS];

	while (answered < STORM) {
		do {
			r.sid = storm_sid(sent);
			r.id = sent & 0x1ff;
			r.ssv = sent & 1;
			r.ssid = r.ssv ? PASID : 0;
		} while (sent < STORM && sent - answered < 64 && push_one(f, &r) && ++sent);
		run(f);
		answered += answer_all(f, IOMMU_PAGE_RESP_SUCCESS);
		while (take_command(f, words)) {
			unsigned int n = f->commands - 1;

			KUNIT_ASSERT_EQ(f->test, words[0], word0 | (u64)storm_sid(n) << 32);
			KUNIT_ASSERT_EQ(f->test, words[1], word1 | (n & 0x1ff));
		}
		KUNIT_ASSERT_EQ(f->test, answered, sent);
		KUNIT_ASSERT_EQ(f->test, answered, f->commands);
	}
	KUNIT_EXPECT_EQ(f->test, f->queued, STORM);
}

static void stall_storm(struct kunit *test)
{
	struct fake *f = stalling(test);

	storm(f, push_stall, run_evtq, 0x44 | RETRY << 12, 0);
}

static void pri_storm(struct kunit *test)
{
	struct fake *f = requesting(test);

	storm(f, push_ppr, run_priq, 0x41, 2 << 12);
}

/* ---- Tests: the bottom half ---- */

static void push_stalls(struct fake *f, unsigned int n)
{
	struct request r = { .sid = FIRST_SID };

	for (r.id = 0; r.id < n; r.id++)
		KUNIT_ASSERT_TRUE(f->test, push_stall(f, &r));
}

/* A bottom half that is scheduled, wherever, has run. */
static void flush_bottom_half(struct arm_smmu_queue *q)
{
	irq_poll_disable(&q->poll);
	irq_poll_enable(&q->poll);
}

static void interrupt(struct fake *f)
{
	KUNIT_EXPECT_EQ(f->test, arm_smmu_evtq_irq(0, &f->smmu), IRQ_HANDLED);
	flush_bottom_half(&f->smmu.evtq.q);
}

/* All groups that were queued, in the order of push_stalls() */
static void expect_stalls(struct fake *f, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct iopf_group *group = expect_group(f, 1);

		KUNIT_EXPECT_EQ(f->test, group->last_fault.fault.prm.grpid, i);
		answer(group, IOMMU_PAGE_RESP_SUCCESS);
		expect_resume(f, FIRST_SID, i, RETRY);
	}
	expect_no_group(f);
	f->queued = 0;
}

static bool in_softirq;

static void look_for_softirq(struct fake *f)
{
	in_softirq = in_serving_softirq();
}

/* An interrupt has its entries reported in a softirq, of either queue. */
static void bottom_half(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .id = 1, .last = true };
	struct fake *f = stalling(test);

	f->on_group = look_for_softirq;
	push_stalls(f, 3);
	interrupt(f);
	KUNIT_EXPECT_TRUE(test, in_softirq);
	KUNIT_EXPECT_EQ(test, f->evtq_regs[0], f->evtq_regs[1]);
	expect_stalls(f, 3);
	arm_smmu_iopf_disable(&f->master);

	requesting(test);
	in_softirq = false;
	push_ppr(f, &r);
	KUNIT_EXPECT_EQ(test, arm_smmu_priq_irq(0, &f->smmu), IRQ_HANDLED);
	flush_bottom_half(&f->smmu.priq.q);
	KUNIT_EXPECT_TRUE(test, in_softirq);
	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	expect_pri_resp(f, FIRST_SID, false, 0, 1, 2);
}

#define BUDGET 64

/* What is beyond is for the thread, and so is every interrupt until it has begun. */
static void budget(struct kunit *test)
{
	struct fake *f = stalling(test);

	push_stalls(f, BUDGET);
	interrupt(f);
	expect_stalls(f, BUDGET);
	KUNIT_EXPECT_FALSE(test, f->smmu.evtq.q.behind);

	push_stalls(f, BUDGET + 1);
	interrupt(f);
	KUNIT_EXPECT_EQ(test, f->queued, BUDGET);
	KUNIT_EXPECT_EQ(test, pending(&f->smmu.evtq.q, f->evtq_regs), 1);
	KUNIT_EXPECT_EQ(test, arm_smmu_evtq_irq(0, &f->smmu), IRQ_WAKE_THREAD);
	run_evtq(f);
	expect_stalls(f, BUDGET + 1);

	push_stalls(f, 1);
	interrupt(f);
	expect_stalls(f, 1);
}

/* An entry that comes while others are reported, and whose interrupt has no effect */
static void interrupt_amid(struct fake *f)
{
	struct request r = { .sid = FIRST_SID, .id = 1 };

	f->on_group = NULL;
	KUNIT_EXPECT_TRUE(f->test, push_stall(f, &r));
	KUNIT_EXPECT_EQ(f->test, arm_smmu_evtq_irq(0, &f->smmu), IRQ_HANDLED);
}

/* It is seen when the thread has ended, or the bottom half. */
static void interrupted(struct kunit *test)
{
	struct fake *f = stalling(test);

	f->on_group = interrupt_amid;
	push_stalls(f, 1);
	run_evtq(f);
	flush_bottom_half(&f->smmu.evtq.q);
	expect_stalls(f, 2);

	f->on_group = interrupt_amid;
	push_stalls(f, 1);
	interrupt(f);
	expect_stalls(f, 2);
}

/* What follows an overflow takes mutexes. */
static void overflow_is_left(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .last = true };
	struct fake *f = requesting(test);
	unsigned int n = 0;

	while (push_ppr(f, &r))
		n++;
	KUNIT_EXPECT_EQ(test, arm_smmu_priq_irq(0, &f->smmu), IRQ_HANDLED);
	flush_bottom_half(&f->smmu.priq.q);
	KUNIT_EXPECT_EQ(test, f->queued, 0);
	KUNIT_EXPECT_TRUE(test, overflowed(f->priq_regs));
	run_priq(f);
	KUNIT_EXPECT_EQ(test, f->queued, n);
	KUNIT_EXPECT_EQ(test, answer_all(f, IOMMU_PAGE_RESP_SUCCESS), n);
}

static struct kunit_case arm_smmu_v3_iopf_queue_cases[] = {
	KUNIT_CASE(wrap_around),
	KUNIT_CASE(event_overflow),
	KUNIT_CASE(pri_overflow),
	KUNIT_CASE(pri_aborted),
	KUNIT_CASE_SLOW(stall_storm),
	KUNIT_CASE_SLOW(pri_storm),
	KUNIT_CASE(bottom_half),
	KUNIT_CASE(budget),
	KUNIT_CASE(interrupted),
	KUNIT_CASE(overflow_is_left),
	{}
};

static struct kunit_suite arm_smmu_v3_iopf_queue_suite = {
	.name = "arm-smmu-v3-iopf-queue",
	.init = smmu_fake_init,
	.exit = smmu_fake_exit,
	.test_cases = arm_smmu_v3_iopf_queue_cases,
};

kunit_test_suite(arm_smmu_v3_iopf_queue_suite);
