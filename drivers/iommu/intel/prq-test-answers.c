// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of answers: their words, and their way through the invalidation queue
 */
#include <linux/delay.h>

#include "prq-test.h"

/* The words of the answers: codes, PASID and source id as the request had them */
static void prq_test_answer_words(struct kunit *test)
{
	static const enum iommu_page_response_code codes[] = {
		IOMMU_PAGE_RESP_SUCCESS, IOMMU_PAGE_RESP_INVALID, IOMMU_PAGE_RESP_FAILURE,
	};
	static const u64 hardware_codes[] = { 0x0, 0x1, 0xf };
	struct iommu_page_response msg = {};
	struct iopf_fault evt = {};
	struct fake *fake = test->priv;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(codes); i++) {
		put(fake, &fake->device[0], 3, 0x155, true);
		run(fake);
		prq_fake_answer_all(fake, 1, codes[i]);
		KUNIT_EXPECT_EQ(test, 0x0000000320080019 | hardware_codes[i] << 12, fake->last.qw0);
		KUNIT_EXPECT_EQ(test, 0x155 << 3, fake->last.qw1);

		evt.fault.prm.grpid = 1;
		msg.code = codes[i];
		intel_iommu_page_response(fake->device[1].dev, &evt, &msg);
		KUNIT_EXPECT_EQ(test, 0x0000000020100009 | hardware_codes[i] << 12, fake->last.qw0);
		KUNIT_EXPECT_EQ(test, 1 << 3, fake->last.qw1);
		KUNIT_EXPECT_EQ(test, 0, fake->last.qw2 | fake->last.qw3);
	}
}

static void put_groups(struct fake *fake, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		put(fake, &fake->device[i % DEVICES], PASID, i % GROUP_IDS, true);
	run(fake);
}

static void check_answered_once(struct fake *fake, unsigned int times)
{
	unsigned int i;

	for (i = 0; i < GROUP_IDS; i++)
		KUNIT_EXPECT_EQ_MSG(fake->test, times, fake->answered[i], "group %u", i);
}

static void prq_test_batch(struct kunit *test)
{
	struct fake *fake = test->priv;

	put_groups(fake, GROUP_IDS);
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_LE(test, fake->doorbells, 32);
	check_answered_once(fake, 1);

	/* more in one call than the queue has slots */
	fake->doorbells = 0;
	put_groups(fake, GROUP_IDS);
	prq_fake_answer_all(fake, GROUP_IDS, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_LE(test, fake->doorbells, 32);
	check_answered_once(fake, 2);
}

/* Answers wait for slots while the hardware is slow. */
static void prq_test_slow_hardware(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct qi_desc none = {};

	put_groups(fake, GROUP_IDS);
	fake->hold = true;
	prq_fake_timer_start(fake);
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	while (READ_ONCE(fake->n_answers) < GROUP_IDS)
		usleep_range(100, 200);
	hrtimer_cancel(&fake->timer);
	check_answered_once(fake, 1);

	/* nothing is left of them but free slots */
	fake->hold = false;
	KUNIT_EXPECT_EQ(test, 0, qi_submit_sync(&fake->iommu, &none, 0, 0));
	put_groups(fake, GROUP_IDS);
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	check_answered_once(fake, 2);
}

/* Dead hardware: answers are given up, and taken again when it has moved. */
static void prq_test_dead_hardware(struct kunit *test)
{
	struct fake *fake = test->priv;
	u64 patience = qi_patience;

	qi_patience = NSEC_PER_MSEC;
	put_groups(fake, GROUP_IDS);
	fake->hold = true;
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(test, 0, fake->n_answers);
	/* found dead, it is not waited for again: else this never ended */
	qi_patience = 1ULL << 62;
	put_groups(fake, 64);
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	qi_patience = patience;

	fake->hold = false;
	prq_fake_fetch(fake);
	KUNIT_EXPECT_GE(test, fake->n_answers, QI_LENGTH - 1 - 32);
	KUNIT_EXPECT_LT(test, fake->n_answers, QI_LENGTH);
	fake->n_answers = 0;
	put_groups(fake, GROUP_IDS);
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(test, GROUP_IDS, fake->n_answers);
}

/*
 * 100 answers stand in the queue when an invalidation is submitted behind them;
 * the hardware has the error after so many descriptors.
 */
static int invalidate_with_error(struct fake *fake, unsigned int after, u32 status, u16 sid)
{
	struct qi_desc desc = { .qw0 = QI_DEIOTLB_TYPE };

	put_groups(fake, 100);
	fake->hold = true;
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(fake->test, 0, fake->n_answers);
	fake->hold = false;
	fake->error = (struct fake_error){ after, status, sid };
	return qi_submit_sync(&fake->iommu, &desc, 1, 0);
}

/* After any error the queue is in order: round it several times. */
static void check_queue_works(struct fake *fake)
{
	unsigned int before = fake->n_answers;

	put_groups(fake, 3 * QI_LENGTH);
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(fake->test, before + 3 * QI_LENGTH, fake->n_answers);
}

/* A timeout costs no answer, and what came of the invalidation is known. */
static void check_timeout(struct fake *fake, unsigned int after, u16 sid, int wanted,
			  unsigned int invalidations)
{
	int rc = invalidate_with_error(fake, after, DMA_FSTS_ITE, sid);

	KUNIT_EXPECT_EQ(fake->test, wanted, rc);
	KUNIT_EXPECT_EQ(fake->test, 100, fake->n_answers);
	KUNIT_EXPECT_EQ(fake->test, invalidations, fake->n_invalidations);
	check_queue_works(fake);
}

/* The invalidation's wait is aborted and both are submitted again; no answer is. */
static void prq_test_timeout_after_answers(struct kunit *test)
{
	check_timeout(test->priv, 101, 0, 0, 2);
}

/* The hardware stops among the answers; neither they nor the wait were aborted. */
static void prq_test_timeout_amid_answers(struct kunit *test)
{
	check_timeout(test->priv, 40, 0, 0, 1);
}

/* The same with a device that is gone: only what was aborted is given up. */
static void prq_test_timeout_of_absent_device(struct kunit *test)
{
	check_timeout(test->priv, 40, 0x4000, 0, 1);
}

static void prq_test_timeout_given_up(struct kunit *test)
{
	check_timeout(test->priv, 101, 0x4000, -ETIMEDOUT, 1);
}

/* A device that never answers is given up: no wait is endless. */
static void prq_test_timeout_for_ever(struct kunit *test)
{
	struct qi_desc desc = { .qw0 = QI_DEIOTLB_TYPE };
	struct fake *fake = test->priv;

	fake->mute = true;
	KUNIT_EXPECT_EQ(test, -ETIMEDOUT, qi_submit_sync(&fake->iommu, &desc, 1, 0));
	KUNIT_EXPECT_EQ(test, 3, fake->n_invalidations);
	check_queue_works(fake);
}

/* A descriptor that the hardware does not take costs that answer and no other. */
static void prq_test_queue_error(struct kunit *test)
{
	struct fake *fake = test->priv;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, 0, invalidate_with_error(fake, 40, DMA_FSTS_IQE, 0));
	KUNIT_EXPECT_EQ(test, 99, fake->n_answers);
	KUNIT_EXPECT_EQ(test, 1, fake->n_invalidations);
	for (i = 0; i < 100; i++)
		KUNIT_EXPECT_EQ(test, i != 40, fake->answered[i]);
	check_queue_works(fake);
}

/* Nobody submits invalidations: who wants slots finds out. */
static void prq_test_queue_error_of_answers(struct kunit *test)
{
	struct fake *fake = test->priv;

	put_groups(fake, GROUP_IDS);
	fake->error = (struct fake_error){ 40, DMA_FSTS_IQE, 0 };
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(test, GROUP_IDS - 1, fake->n_answers);
	KUNIT_EXPECT_EQ(test, 0, fake->answered[40]);
	check_queue_works(fake);
}

/* Nobody at all comes by: the hardware tells. */
static void prq_test_queue_error_when_idle(struct kunit *test)
{
	struct fake *fake = test->priv;

	put_groups(fake, 100);
	fake->error = (struct fake_error){ 40, DMA_FSTS_IQE, 0 };
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(test, 40, fake->n_answers);
	KUNIT_EXPECT_EQ(test, IRQ_HANDLED, dmar_fault(0, &fake->iommu));
	KUNIT_EXPECT_EQ(test, 99, fake->n_answers);
	KUNIT_EXPECT_EQ(test, 0, fake->answered[40]);
	check_queue_works(fake);
}

/* The same of an invalidation that timed out when nobody waited for it any more */
static void prq_test_timeout_when_idle(struct kunit *test)
{
	struct fake *fake = test->priv;

	put_groups(fake, 100);
	fake->error = (struct fake_error){ 40, DMA_FSTS_ITE, 0x4000 };
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(test, 40, fake->n_answers);
	KUNIT_EXPECT_EQ(test, IRQ_HANDLED, dmar_fault(0, &fake->iommu));
	KUNIT_EXPECT_EQ(test, 100, fake->n_answers);
	check_queue_works(fake);
}

/* ... and without that event: who finds the queue full. No answer is lost. */
static void prq_test_timeout_of_answers(struct kunit *test)
{
	struct fake *fake = test->priv;

	put_groups(fake, GROUP_IDS);
	fake->error = (struct fake_error){ 40, DMA_FSTS_ITE, 0x4000 };
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(test, GROUP_IDS, fake->n_answers);
	check_queue_works(fake);
}

static struct kunit_case prq_test_answers_cases[] = {
	KUNIT_CASE(prq_test_answer_words),
	KUNIT_CASE(prq_test_batch),
	KUNIT_CASE(prq_test_slow_hardware),
	KUNIT_CASE(prq_test_dead_hardware),
	KUNIT_CASE(prq_test_timeout_after_answers),
	KUNIT_CASE(prq_test_timeout_amid_answers),
	KUNIT_CASE(prq_test_timeout_of_absent_device),
	KUNIT_CASE(prq_test_timeout_given_up),
	KUNIT_CASE(prq_test_timeout_for_ever),
	KUNIT_CASE(prq_test_queue_error),
	KUNIT_CASE(prq_test_queue_error_of_answers),
	KUNIT_CASE(prq_test_queue_error_when_idle),
	KUNIT_CASE(prq_test_timeout_when_idle),
	KUNIT_CASE(prq_test_timeout_of_answers),
	{}
};

static struct kunit_suite prq_test_answers_suite = {
	.name = "intel-prq-answers",
	.init = prq_test_init,
	.exit = prq_test_exit,
	.test_cases = prq_test_answers_cases,
};

kunit_test_suite(prq_test_answers_suite);
