// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the page request queue itself: ring, overflow, and who handles it
 */
#include <kunit/static_stub.h>
#include <linux/interrupt.h>
#include <linux/prandom.h>

#include "prq-test.h"

static void forget_device(struct fake *fake, struct iopf_group *group)
{
	fake->on_group = NULL;
	rb_erase(&fake->device[0].info.node, &fake->iommu.device_rbtree);
}

/* A run of requests looks its device up once: at its beginning. */
static void prq_test_run(struct kunit *test)
{
	struct fake *fake = test->priv;
	unsigned int n;

	fake->on_group = forget_device;
	for (n = 0; n < 20; n++)
		put(fake, &fake->device[0], PASID, n, true);
	put(fake, &fake->device[1], PASID, 20, true);
	put(fake, &fake->device[0], PASID, 21, true);
	run_thread(fake);
	KUNIT_EXPECT_EQ(test, 21, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 1, fake->n_answers);
	KUNIT_EXPECT_EQ(test, 1, fake->answered[21]);
}

/* Slots come back while the thread still works. */
static void check_head_moves(struct fake *fake, struct iopf_group *group)
{
	u32 used = (reg_get(fake, DMAR_PQT_REG) - reg_get(fake, DMAR_PQH_REG)) & PRQ_RING_MASK;
	u32 left = SLOTS - 1 - (fake->n_groups - 1);

	KUNIT_EXPECT_LT(fake->test, used / DSC_SIZE - left, 16);
}

/* Begin anywhere, fill the ring, cross its end. */
static void prq_test_full_ring(struct kunit *test)
{
	struct fake *fake = test->priv;
	static const unsigned int starts[] = { 0, 1, SLOTS / 2 + 5, SLOTS - 1 };
	unsigned int i, n;

	fake->on_group = check_head_moves;
	for (i = 0; i < ARRAY_SIZE(starts); i++) {
		reg_set(fake, DMAR_PQH_REG, starts[i] * DSC_SIZE);
		reg_set(fake, DMAR_PQT_REG, starts[i] * DSC_SIZE);
		fake->n_groups = 0;
		for (n = 0; n < SLOTS - 1; n++)
			put(fake, &fake->device[0], PASID, n % GROUP_IDS, true);
		run(fake);
		KUNIT_EXPECT_EQ(test, SLOTS - 1, fake->n_groups);
		KUNIT_EXPECT_EQ(test, (starts[i] + SLOTS - 1) % SLOTS * DSC_SIZE,
				reg_get(fake, DMAR_PQH_REG));
		prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	}
	KUNIT_EXPECT_EQ(test, ARRAY_SIZE(starts) * (SLOTS - 1), fake->n_answers);
}

/* Nothing was in the queue: an interrupt for what the last pass has handled. */
static void prq_test_empty(struct kunit *test)
{
	struct fake *fake = test->priv;

	run(fake);
	KUNIT_EXPECT_EQ(test, DMA_PRS_PPR, fake->cleared);
	KUNIT_EXPECT_EQ(test, 0, fake->doorbells);
}

/* The hardware had a few more before the queue was full. */
static void overflow_late(struct fake *fake, u32 bits)
{
	if (!(bits & DMA_PRS_PPR))
		return;

	fake->on_acknowledge = NULL;
	put(fake, &fake->device[0], PASID, 30, true);
	reg_set(fake, DMAR_PRS_REG, DMA_PRS_PPR | DMA_PRS_PRO);
}

/* More requests arrive while the first ones are handled, then the overflow. */
static void overflow_amid(struct fake *fake, struct iopf_group *group)
{
	fake->on_group = NULL;
	put(fake, &fake->device[1], PASID, 31, true);
	reg_set(fake, DMAR_PRS_REG, DMA_PRS_PPR | DMA_PRS_PRO);
}

/*
 * Cleared when the queue is empty, not before. Collecting groups of all devices
 * are gone then: their last requests were lost. Whole groups stay.
 */
static void prq_test_overflow(struct kunit *test)
{
	struct fake *fake = test->priv;
	unsigned int i;

	for (i = 0; i < DEVICES; i++) {
		put(fake, &fake->device[i], PASID, 1, false);
		put(fake, &fake->device[i], PASID, 2, true);
	}
	fake->on_acknowledge = overflow_late;
	fake->on_group = overflow_amid;
	run_thread(fake);
	KUNIT_EXPECT_EQ(test, 0, reg_get(fake, DMAR_PRS_REG));
	KUNIT_EXPECT_EQ(test, DMA_PRS_PPR | DMA_PRS_PRO, fake->cleared);
	KUNIT_EXPECT_EQ(test, 4, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 0, fake->n_answers);

	for (i = 0; i < DEVICES; i++)
		put(fake, &fake->device[i], PASID, 1, true);
	run(fake);
	KUNIT_EXPECT_EQ(test, 6, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 6, fake->n_requests);
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(test, 6, fake->n_answers);
}

#define STORM	100000

/* Whatever a device could write; what it is owed for that is known beforehand. */
static void prq_test_storm(struct kunit *test)
{
	static const u64 addresses[] = { 0, 0x7ffffffff000, 0xffff800000000000, 1ULL << 50 };
	struct fake *fake = test->priv;
	unsigned int i, n, owed = 0, dropped = 0;
	struct rnd_state rnd;
	u64 qw0, qw1;

	prandom_seed_state(&rnd, 5);
	for (i = 0; i < STORM; i += n) {
		for (n = 0; n < SLOTS - 1 && i + n < STORM; n++) {
			u32 r = prandom_u32_state(&rnd);

			qw0 = word0(&fake->device[r & 1], r >> 1 & 7);
			qw1 = addresses[r >> 4 & 3] | FIELD_PREP(PRQ_INDEX, r >> 6 & 0x1ff) |
			      (r >> 15 & 3) | (r >> 17 & 3 ? PRQ_LPIG : 0);
			qw0 |= r >> 19 & 7 ? 0 : PRQ_PRIV;
			qw0 |= r >> 22 & 7 ? 0 : PRQ_EXEC;
			qw0 ^= r >> 25 & 31 ? 0 : FIELD_PREP(PRQ_SID, 0x40);
			/* all last requests but stop markers */
			if (qw1 & PRQ_LPIG && (qw1 & 3 || !(qw0 & PRQ_PASID_PRESENT)))
				owed++;
			else
				dropped++;
			put_raw(fake, qw0, qw1);
		}
		run(fake);
		prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
		KUNIT_ASSERT_EQ(test, owed, fake->n_answers);
	}
	KUNIT_EXPECT_EQ(test, STORM, owed + dropped);
	KUNIT_EXPECT_GT(test, fake->n_code[QI_RESP_SUCCESS], STORM / 10);
	KUNIT_EXPECT_GT(test, fake->n_code[QI_RESP_INVALID], STORM / 10);
	KUNIT_EXPECT_EQ(test, owed,
			fake->n_code[QI_RESP_SUCCESS] + fake->n_code[QI_RESP_INVALID]);
}

/* ---- the bottom half, and what it leaves to the thread ---- */

static unsigned int head_slot(struct fake *fake)
{
	return reg_get(fake, DMAR_PQH_REG) / DSC_SIZE;
}

static void put_some(struct fake *fake, unsigned int n)
{
	static unsigned int grpid;

	while (n--)
		put(fake, &fake->device[0], PASID, grpid++ % GROUP_IDS, true);
}

static bool in_softirq;

static void look_for_softirq(struct fake *fake, struct iopf_group *group)
{
	in_softirq = in_serving_softirq();
}

/* An interrupt has its requests reported in a softirq. */
static void prq_test_interrupt(struct kunit *test)
{
	struct fake *fake = test->priv;

	put_some(fake, 3);
	KUNIT_EXPECT_EQ(test, IRQ_HANDLED, prq_irq(0, &fake->iommu));
	KUNIT_EXPECT_TRUE(test, fake->scheduled);
	run_scheduled(fake);
	KUNIT_EXPECT_EQ(test, 3, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 1, fake->iommu.prq_passes);

	kunit_deactivate_static_stub(test, prq_schedule);
	fake->on_group = look_for_softirq;
	put_some(fake, 3);
	KUNIT_EXPECT_EQ(test, IRQ_HANDLED, prq_irq(0, &fake->iommu));
	/* It has ended where it can be disabled, whoever runs it. */
	irq_poll_disable(&fake->iommu.prq_poll);
	KUNIT_EXPECT_TRUE(test, in_softirq);
	KUNIT_EXPECT_EQ(test, 6, fake->n_groups);
}

/* A request that comes while others are reported, and whose interrupt has no effect */
static void interrupt_amid(struct fake *fake, struct iopf_group *group)
{
	fake->on_group = NULL;
	put_some(fake, 1);
	KUNIT_EXPECT_EQ(fake->test, IRQ_HANDLED, prq_irq(0, &fake->iommu));
}

/* After the thread has looked at the queue for the last time, and amid a bottom half */
static void prq_test_interrupt_amid(struct kunit *test)
{
	struct fake *fake = test->priv;

	fake->on_group = interrupt_amid;
	put_some(fake, 1);
	run_thread(fake);
	run_scheduled(fake);
	KUNIT_EXPECT_EQ(test, 2, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 2, fake->iommu.prq_passes);

	fake->on_group = interrupt_amid;
	put_some(fake, 1);
	KUNIT_EXPECT_FALSE(test, run_bottom_half(fake));
	KUNIT_EXPECT_EQ(test, 4, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 4, fake->iommu.prq_passes);
}

#define BUDGET	64

/* It ends after so many requests, and that is no pass yet. */
static void prq_test_budget(struct kunit *test)
{
	struct fake *fake = test->priv;
	unsigned int passes;

	put_some(fake, BUDGET);
	passes = fake->iommu.prq_passes;
	KUNIT_EXPECT_FALSE(test, run_bottom_half(fake));
	KUNIT_EXPECT_EQ(test, BUDGET, head_slot(fake));
	KUNIT_EXPECT_EQ(test, passes + 1, fake->iommu.prq_passes);
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);

	put_some(fake, BUDGET + 1);
	KUNIT_EXPECT_TRUE(test, run_bottom_half(fake));
	KUNIT_EXPECT_EQ(test, 2 * BUDGET, head_slot(fake));
	KUNIT_EXPECT_EQ(test, 2 * BUDGET, fake->n_groups);
	KUNIT_EXPECT_EQ(test, passes + 1, fake->iommu.prq_passes);
	run_thread(fake);
	KUNIT_EXPECT_EQ(test, 2 * BUDGET + 1, fake->n_groups);
	KUNIT_EXPECT_EQ(test, passes + 2, fake->iommu.prq_passes);

	/* across the end of the ring */
	reg_set(fake, DMAR_PQH_REG, (SLOTS - 9) * DSC_SIZE);
	reg_set(fake, DMAR_PQT_REG, (SLOTS - 9) * DSC_SIZE);
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	put_some(fake, BUDGET + 1);
	KUNIT_EXPECT_TRUE(test, run_bottom_half(fake));
	KUNIT_EXPECT_EQ(test, BUDGET - 9, head_slot(fake));
	run_thread(fake);
}

/* What follows an overflow takes mutexes. */
static void prq_test_overflow_is_left(struct kunit *test)
{
	struct fake *fake = test->priv;

	put_some(fake, 1);
	reg_set(fake, DMAR_PRS_REG, DMA_PRS_PPR | DMA_PRS_PRO);
	KUNIT_EXPECT_TRUE(test, run_bottom_half(fake));
	KUNIT_EXPECT_EQ(test, 1, fake->n_groups);
	KUNIT_EXPECT_EQ(test, DMA_PRS_PRO, reg_get(fake, DMAR_PRS_REG));
	KUNIT_EXPECT_EQ(test, 0, fake->iommu.prq_overflows);
	KUNIT_EXPECT_EQ(test, 1, fake->iommu.prq_passes);
	KUNIT_EXPECT_EQ(test, IRQ_WAKE_THREAD, prq_irq(0, &fake->iommu));
	run_thread(fake);
	KUNIT_EXPECT_EQ(test, 0, reg_get(fake, DMAR_PRS_REG));
	KUNIT_EXPECT_EQ(test, 1, fake->iommu.prq_overflows);
}

static struct kunit_case prq_test_queue_cases[] = {
	KUNIT_CASE(prq_test_run),
	KUNIT_CASE(prq_test_full_ring),
	KUNIT_CASE(prq_test_empty),
	KUNIT_CASE(prq_test_overflow),
	KUNIT_CASE(prq_test_storm),
	KUNIT_CASE(prq_test_interrupt),
	KUNIT_CASE(prq_test_interrupt_amid),
	KUNIT_CASE(prq_test_budget),
	KUNIT_CASE(prq_test_overflow_is_left),
	{}
};

static struct kunit_suite prq_test_queue_suite = {
	.name = "intel-prq-queue",
	.init = prq_test_init,
	.exit = prq_test_exit,
	.test_cases = prq_test_queue_cases,
};

kunit_test_suite(prq_test_queue_suite);
