// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of what ends page requests: a drain, a teardown, a device that leaves
 */
#include <kunit/static_stub.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>

#include "prq-test.h"

/* As a driver's release: afterwards no report may look at the device. */
static int vanish_thread(void *data)
{
	struct fake *fake = data;
	struct fake_device *device = &fake->device[0];

	wait_for_completion(&fake->begin);
	iopf_queue_remove_device(fake->iommu.iopf_queue, device->dev);
	mutex_lock(&fake->iommu.iopf_lock);
	rb_erase(&device->info.node, &fake->iommu.device_rbtree);
	mutex_unlock(&fake->iommu.iopf_lock);
	intel_iommu_forget_prq(&fake->iommu);
	device->iommu.priv = NULL;
	complete(&fake->end);
	return 0;
}

static void vanish_begin(struct fake *fake, struct iopf_group *group)
{
	if (fake->n_groups == 100)
		complete(&fake->begin);
}

static void prq_test_device_vanishes(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct task_struct *thread;
	unsigned int n;

	init_completion(&fake->begin);
	init_completion(&fake->end);
	thread = kthread_run(vanish_thread, fake, "prq-vanish");
	KUNIT_ASSERT_FALSE(test, IS_ERR(thread));
	prq_fake_timer_start(fake);

	fake->on_group = vanish_begin;
	for (n = 0; n < SLOTS - 1; n++)
		put(fake, &fake->device[n / 8 % DEVICES], PASID, n % GROUP_IDS, true);
	run(fake);
	wait_for_completion(&fake->end);

	for (n = 0; n < 100; n++)
		put(fake, &fake->device[0], PASID, n, true);
	run(fake);
	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	while (READ_ONCE(fake->n_answers) < SLOTS - 1 + 100 && hrtimer_active(&fake->timer))
		usleep_range(100, 200);
	hrtimer_cancel(&fake->timer);
	KUNIT_EXPECT_EQ(test, SLOTS - 1 + 100, fake->n_answers);
	KUNIT_EXPECT_GE(test, fake->n_code[QI_RESP_INVALID], 100);
}

static int drain_thread(void *data)
{
	struct fake *fake = data;

	wait_for_completion(&fake->begin);
	schedule_timeout_uninterruptible(1);
	current->kunit_test = fake->test;
	run_bottom_half(fake);
	current->kunit_test = NULL;
	complete(&fake->end);
	return 0;
}

/* A drain returns when what was in the queue is reported, by the bottom half here. */
static void prq_test_drain(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct task_struct *thread;
	unsigned int i, before;

	init_completion(&fake->begin);
	init_completion(&fake->end);
	thread = kthread_run(drain_thread, fake, "prq-drain");
	KUNIT_ASSERT_FALSE(test, IS_ERR(thread));

	/* nothing of this PASID is in the queue: no need to wait */
	for (i = 0; i < 8; i++)
		put(fake, &fake->device[i % DEVICES], 1 + i / 4, i, true);
	intel_iommu_drain_pasid_prq(fake->device[0].dev, 3, FLPT_DEFAULT_DID);
	KUNIT_EXPECT_EQ(test, 0, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 1, fake->doorbells);

	complete(&fake->begin);
	intel_iommu_drain_pasid_prq(fake->device[0].dev, 2, FLPT_DEFAULT_DID);
	before = READ_ONCE(fake->n_groups);
	KUNIT_EXPECT_GE(test, before, 7);
	intel_iommu_drain_pasid_prq(fake->device[1].dev, IOMMU_NO_PASID, FLPT_DEFAULT_DID);
	wait_for_completion(&fake->end);
	KUNIT_EXPECT_EQ(test, 8, fake->n_groups);
}

static void run_at_once(struct intel_iommu *iommu)
{
	struct fake *fake = container_of(iommu, struct fake, iommu);

	set_bit(IRQ_POLL_F_SCHED, &iommu->prq_poll.state);
	fake->scheduled = true;
	run_scheduled(fake);
}

/* No interrupt comes: the drain itself sees to the queue. */
static void prq_test_drain_by_hand(struct kunit *test)
{
	struct fake *fake = test->priv;

	kunit_deactivate_static_stub(test, prq_kick);
	kunit_activate_static_stub(test, prq_schedule, run_at_once);
	put(fake, &fake->device[0], PASID, 1, true);
	put(fake, &fake->device[1], PASID, 2, true);
	intel_iommu_page_drain(fake->device[0].dev);
	KUNIT_EXPECT_EQ(test, 2, fake->n_groups);
	KUNIT_EXPECT_EQ(test, reg_get(fake, DMAR_PQT_REG), reg_get(fake, DMAR_PQH_REG));
}

/* Not even that helps: the drain ends, and what is reported later is served as ever. */
static void prq_test_drain_gives_up(struct kunit *test)
{
	struct fake *fake = test->priv;
	unsigned int patience = prq_patience;

	prq_patience = 2;
	put(fake, &fake->device[0], PASID, 1, true);
	intel_iommu_page_drain(fake->device[0].dev);
	intel_iommu_drain_pasid_prq(fake->device[0].dev, PASID, FLPT_DEFAULT_DID);
	prq_patience = patience;
	KUNIT_EXPECT_EQ(test, 4, fake->kicks);
	KUNIT_EXPECT_EQ(test, 0, fake->n_groups);
	run(fake);
	KUNIT_EXPECT_EQ(test, 1, fake->n_groups);
}

/* A device that will not answer gets no invalidation, of a drain or of a teardown. */
static void prq_test_mute(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct device *dev = fake->device[0].dev;

	intel_iommu_drain_pasid_prq(dev, PASID, FLPT_DEFAULT_DID);
	KUNIT_EXPECT_EQ(test, 1, fake->n_invalidations);
	intel_iommu_device_mute(dev, true);
	intel_iommu_drain_pasid_prq(dev, PASID, FLPT_DEFAULT_DID);
	KUNIT_EXPECT_EQ(test, 1, fake->n_invalidations);
	intel_iommu_device_mute(dev, false);
	intel_iommu_drain_pasid_prq(dev, PASID, FLPT_DEFAULT_DID);
	KUNIT_EXPECT_EQ(test, 2, fake->n_invalidations);
}

/*
 * The RID's domain goes, and its requests are out of the queue by then. They are
 * handled later than a teardown would end that does not wait for it.
 */
static void prq_test_rid_teardown(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct task_struct *thread;

	init_completion(&fake->begin);
	init_completion(&fake->end);
	thread = kthread_run(drain_thread, fake, "prq-drain");
	KUNIT_ASSERT_FALSE(test, IS_ERR(thread));

	put(fake, &fake->device[0], IOMMU_NO_PASID, 1, true);
	complete(&fake->begin);
	intel_pasid_tear_down_entry(&fake->iommu, fake->device[0].dev, IOMMU_NO_PASID, false);
	KUNIT_EXPECT_EQ(test, reg_get(fake, DMAR_PQT_REG), reg_get(fake, DMAR_PQH_REG));
	wait_for_completion(&fake->end);
}

/* Two rounds if there was an overflow, even while it lasts; else one */
static void prq_test_drain_overflow(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct device *dev = fake->device[0].dev;

	intel_iommu_drain_pasid_prq(dev, PASID, FLPT_DEFAULT_DID);
	KUNIT_EXPECT_EQ(test, 1, fake->n_invalidations);

	reg_set(fake, DMAR_PRS_REG, DMA_PRS_PRO);
	intel_iommu_drain_pasid_prq(dev, PASID, FLPT_DEFAULT_DID);
	KUNIT_EXPECT_EQ(test, 3, fake->n_invalidations);
	run(fake);
	intel_iommu_drain_pasid_prq(dev, PASID, FLPT_DEFAULT_DID);
	KUNIT_EXPECT_EQ(test, 4, fake->n_invalidations);

	/* come and gone */
	fake->overflow_amid = true;
	intel_iommu_drain_pasid_prq(dev, PASID, FLPT_DEFAULT_DID);
	KUNIT_EXPECT_EQ(test, 6, fake->n_invalidations);
}

static struct kunit_case prq_test_drain_cases[] = {
	KUNIT_CASE(prq_test_device_vanishes),
	KUNIT_CASE(prq_test_drain),
	KUNIT_CASE(prq_test_drain_by_hand),
	KUNIT_CASE(prq_test_drain_gives_up),
	KUNIT_CASE(prq_test_mute),
	KUNIT_CASE(prq_test_rid_teardown),
	KUNIT_CASE(prq_test_drain_overflow),
	{}
};

static struct kunit_suite prq_test_drain_suite = {
	.name = "intel-prq-drain",
	.init = prq_test_init,
	.exit = prq_test_exit,
	.test_cases = prq_test_drain_cases,
};

kunit_test_suite(prq_test_drain_suite);
