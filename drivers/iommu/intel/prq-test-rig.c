// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the page request queue: the IOMMU and the devices that they share
 */
#include <kunit/device.h>
#include <kunit/static_stub.h>

#include "prq-test.h"

static struct fake *fake_of(struct intel_iommu *iommu)
{
	return container_of(iommu, struct fake, iommu);
}

/* ---- the page request queue's registers, and what the driver asks for ---- */

static void fake_acknowledge(struct intel_iommu *iommu, u32 bits)
{
	struct fake *fake = fake_of(iommu);

	/* An overflow may be cleared only when the queue is empty. */
	if (bits & DMA_PRS_PRO)
		KUNIT_EXPECT_EQ(fake->test, reg_get(fake, DMAR_PQH_REG),
				reg_get(fake, DMAR_PQT_REG));
	fake->cleared |= bits;
	reg_set(fake, DMAR_PRS_REG, reg_get(fake, DMAR_PRS_REG) & ~bits);
	if (fake->on_acknowledge)
		fake->on_acknowledge(fake, bits);
}

/* As irq_poll_sched(): neither twice, nor while the thread runs */
static void fake_schedule(struct intel_iommu *iommu)
{
	unsigned long *state = &iommu->prq_poll.state;

	if (!test_bit(IRQ_POLL_F_DISABLE, state) && !test_and_set_bit(IRQ_POLL_F_SCHED, state))
		fake_of(iommu)->scheduled = true;
}

static void fake_wake_thread(struct intel_iommu *iommu)
{
	fake_of(iommu)->woken = true;
}

static void fake_kick(struct intel_iommu *iommu)
{
	fake_of(iommu)->kicks++;
}

/* ---- the invalidation queue's hardware ---- */

static void fake_execute(struct fake *fake, const struct qi_desc *desc)
{
	switch (desc->qw0 & 0xf) {
	case QI_PGRP_RESP_TYPE:
		fake->last = *desc;
		fake->n_answers++;
		fake->n_code[desc->qw0 >> 12 & 0xf]++;
		fake->answered[desc->qw1 >> 3 & (GROUP_IDS - 1)]++;
		break;
	case QI_DEIOTLB_TYPE:
		fake->n_invalidations++;
		fake->iommu.prq_overflows += fake->overflow_amid;
		if (fake->mute)
			fake->error = (struct fake_error){ .status = DMA_FSTS_ITE };
		break;
	case QI_IWD_TYPE:
		if (desc->qw0 & QI_IWD_STATUS_WRITE)
			*(int *)phys_to_virt(desc->qw1) = upper_32_bits(desc->qw0);
		break;
	}
}

/*
 * The error that was set comes now: status to software, no more fetching. A wait
 * that was fetched is aborted by a time-out, it never writes its status.
 */
static unsigned int fake_fail(struct fake *fake, const struct qi_desc *desc)
{
	bool aborted = fake->error.status == DMA_FSTS_ITE && (desc->qw0 & 0xf) == QI_IWD_TYPE;

	reg_set(fake, DMAR_FSTS_REG, fake->error.status);
	writeq((u64)fake->error.sid << 32, fake->iommu.reg + DMAR_IQER_REG);
	fake->error = (struct fake_error){};
	fake->stalled = true;
	return aborted;
}

void prq_fake_fetch(struct fake *fake)
{
	unsigned int shift = qi_shift(&fake->iommu);
	unsigned int head = reg_get(fake, DMAR_IQH_REG) >> shift;
	unsigned int tail = reg_get(fake, DMAR_IQT_REG) >> shift;
	struct qi_desc *desc;

	while (head != tail && !fake->stalled) {
		desc = fake->qi.desc + (head << shift);
		if (fake->error.status && !fake->error.after--) {
			head = (head + fake_fail(fake, desc)) % QI_LENGTH;
			break;
		}
		fake_execute(fake, desc);
		head = (head + 1) % QI_LENGTH;
	}
	reg_set(fake, DMAR_IQH_REG, head << shift);
}

static void fake_doorbell(struct intel_iommu *iommu)
{
	struct fake *fake = fake_of(iommu);

	fake->doorbells++;
	reg_set(fake, DMAR_IQT_REG, fake->qi.free_head << qi_shift(iommu));
	if (!fake->hold)
		prq_fake_fetch(fake);
}

static void fake_clear_fault(struct intel_iommu *iommu, u32 bits)
{
	struct fake *fake = fake_of(iommu);

	reg_set(fake, DMAR_FSTS_REG, reg_get(fake, DMAR_FSTS_REG) & ~bits);
	fake->stalled = false;
	prq_fake_fetch(fake);
}

/* Hardware that fetches by itself, once in a while */
static enum hrtimer_restart fake_timer(struct hrtimer *timer)
{
	struct fake *fake = container_of(timer, struct fake, timer);

	raw_spin_lock(&fake->qi.q_lock);
	prq_fake_fetch(fake);
	raw_spin_unlock(&fake->qi.q_lock);
	hrtimer_forward_now(timer, ns_to_ktime(100 * NSEC_PER_USEC));
	return HRTIMER_RESTART;
}

void prq_fake_timer_start(struct fake *fake)
{
	hrtimer_setup(&fake->timer, fake_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	hrtimer_start(&fake->timer, ns_to_ktime(100 * NSEC_PER_USEC), HRTIMER_MODE_REL_HARD);
}

/* ---- devices and the handler ---- */

static int fake_set_dev_pasid(struct iommu_domain *domain, struct device *dev, ioasid_t pasid,
			      struct iommu_domain *old)
{
	return 0;
}

static struct iommu_domain fake_blocked_domain = {
	.type = IOMMU_DOMAIN_BLOCKED,
	.ops = &(const struct iommu_domain_ops){ .set_dev_pasid = fake_set_dev_pasid },
};

static int fake_handler(struct iopf_group *group)
{
	struct fake *fake = container_of(group->attach_handle->domain, struct fake, domain);

	list_add_tail(&group->node, &fake->groups);
	fake->n_groups++;
	fake->n_requests += group->fault_count;
	if (fake->on_group)
		fake->on_group(fake, group);
	return 0;
}

void prq_fake_answer_all(struct fake *fake, unsigned int batch,
			 enum iommu_page_response_code code)
{
	struct iopf_answer *answers;
	struct iopf_group *group;
	unsigned int n = 0;

	answers = kcalloc(batch, sizeof(*answers), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(fake->test, answers);
	while ((group = list_first_entry_or_null(&fake->groups, struct iopf_group, node))) {
		list_del(&group->node);
		/* the core may have claimed it for a device that left */
		if (iopf_group_claim(group))
			answers[n++] = (struct iopf_answer){ .group = group, .code = code };
		else
			iopf_free_group(group);
		if (n < batch && !list_empty(&fake->groups))
			continue;
		iopf_answer_groups(answers, n);
		iopf_free_groups(answers, n);
		n = 0;
	}
	kfree(answers);
}

static void attach(struct fake *fake, struct fake_device *device, ioasid_t pasid)
{
	struct iommu_attach_handle *handle = &device->handles[pasid];

	KUNIT_ASSERT_EQ(fake->test, 0,
			iommu_attach_device_pasid(&fake->domain, device->dev, pasid, handle));
}

static void device_insert(struct fake *fake, struct fake_device *device)
{
	struct rb_node **link = &fake->iommu.device_rbtree.rb_node, *parent = NULL;

	while (*link) {
		parent = *link;
		link = sid_of(device) < sid_of(rb_entry(parent, struct fake_device, info.node)) ?
		       &parent->rb_left : &parent->rb_right;
	}
	rb_link_node(&device->info.node, parent, link);
	rb_insert_color(&device->info.node, &fake->iommu.device_rbtree);
}

static void device_init(struct kunit *test, struct fake *fake, unsigned int i)
{
	struct fake_device *device = &fake->device[i];
	struct pasid_dir_entry *dir = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	void *table = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	ioasid_t pasid;

	KUNIT_ASSERT_NOT_NULL(test, dir);
	KUNIT_ASSERT_NOT_NULL(test, table);
	dir[0].val = virt_to_phys(table) | PASID_PTE_PRESENT;
	device->pasid_table = (struct pasid_table){ .table = dir, .max_pasid = MAX_PASIDS };

	device->dev = kunit_device_register(test, i ? "prq1" : "prq0");
	KUNIT_ASSERT_FALSE(test, IS_ERR(device->dev));
	device->info = (struct device_domain_info){
		.bus = 0x20, .devfn = 8 * (i + 1), .dev = device->dev, .iommu = &fake->iommu,
		.pasid_table = &device->pasid_table, .pri_enabled = 1,
		.pasid_supported = 1 | PCI_PASID_CAP_EXEC | PCI_PASID_CAP_PRIV,
	};
	mutex_init(&device->iommu.lock);
	device->iommu.iommu_dev = &fake->iommu.iommu;
	device->iommu.priv = &device->info;
	device->iommu.max_pasids = MAX_PASIDS;
	device->dev->iommu = &device->iommu;

	device->group = iommu_group_alloc();
	KUNIT_ASSERT_FALSE(test, IS_ERR(device->group));
	KUNIT_ASSERT_EQ(test, 0, iommu_group_add_device(device->group, device->dev));
	KUNIT_ASSERT_EQ(test, 0, iopf_queue_add_device(fake->iommu.iopf_queue, device->dev));
	for (pasid = 0; pasid < PASIDS; pasid++)
		set_entry(device, pasid, PASID_ENTRY_PGTT_FL_ONLY, 0);
	for (pasid = 1; pasid < PASIDS; pasid++)
		attach(fake, device, pasid);
	device_insert(fake, device);
}

static void queues_init(struct kunit *test, struct fake *fake)
{
	struct intel_iommu *iommu = &fake->iommu;

	iommu->reg = (__force void __iomem *)kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	iommu->prq = kunit_kcalloc(test, SLOTS, DSC_SIZE, GFP_KERNEL);
	iommu->qi = &fake->qi;
	iommu->ecap = BIT_ULL(43);	/* scalable mode: 256-bit descriptors */
	iommu->cap = 47 << 16;		/* 48 bits of second-stage addresses */
	fake->qi.desc = kunit_kcalloc(test, QI_LENGTH, sizeof(struct qi_desc), GFP_KERNEL);
	fake->qi.desc_status = fake->status;
	fake->qi.free_cnt = QI_LENGTH;
	KUNIT_ASSERT_NOT_NULL(test, (__force void *)iommu->reg);
	KUNIT_ASSERT_NOT_NULL(test, iommu->prq);
	KUNIT_ASSERT_NOT_NULL(test, fake->qi.desc);

	raw_spin_lock_init(&iommu->register_lock);
	raw_spin_lock_init(&fake->qi.q_lock);
	spin_lock_init(&iommu->lock);
	mutex_init(&iommu->iopf_lock);
	spin_lock_init(&iommu->device_rbtree_lock);
	iommu->device_rbtree = RB_ROOT;
	init_waitqueue_head(&iommu->prq_wait);
	irq_poll_init(&iommu->prq_poll, PRQ_BUDGET, prq_bottom_half);
	strscpy(iommu->name, "fake");
	iommu->iopf_queue = iopf_queue_alloc("prq-test");
	KUNIT_ASSERT_NOT_NULL(test, iommu->iopf_queue);
}

int prq_test_init(struct kunit *test)
{
	struct fake *fake = kunit_kzalloc(test, sizeof(*fake), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, fake);
	test->priv = fake;
	fake->test = test;
	INIT_LIST_HEAD(&fake->groups);
	/* Whatever is in the ring is reported, and not told to try again. */
	iopf_reserve = SLOTS;
	queues_init(test, fake);

	fake->ops.device_mute = intel_iommu_device_mute;
	fake->ops.page_response = intel_iommu_page_response;
	fake->ops.page_response_batch = intel_iommu_page_response_batch;
	fake->ops.blocked_domain = &fake_blocked_domain;
	fake->iommu.iommu.ops = &fake->ops;
	fake->domain_ops.set_dev_pasid = fake_set_dev_pasid;
	fake->domain.type = IOMMU_DOMAIN_UNMANAGED;
	fake->domain.owner = &fake->ops;
	fake->domain.ops = &fake->domain_ops;
	fake->domain.iopf_handler = fake_handler;
	kunit_activate_static_stub(test, qi_ring_doorbell, fake_doorbell);
	kunit_activate_static_stub(test, qi_clear_fault, fake_clear_fault);
	kunit_activate_static_stub(test, prq_acknowledge, fake_acknowledge);
	kunit_activate_static_stub(test, prq_schedule, fake_schedule);
	kunit_activate_static_stub(test, prq_wake_thread, fake_wake_thread);
	kunit_activate_static_stub(test, prq_kick, fake_kick);
	kunit_activate_static_stub(test, prq_kick_later, fake_kick);
	for (i = 0; i < DEVICES; i++)
		device_init(test, fake, i);
	return 0;
}

/* Every test ends with all answered, once. */
void prq_test_exit(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device;
	ioasid_t pasid;

	iopf_reserve = 0;
	if (!fake || !fake->iommu.iopf_queue)
		return;

	prq_fake_answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	for (device = fake->device; device < fake->device + DEVICES && device->group; device++) {
		for (pasid = 1; pasid < PASIDS; pasid++)
			iommu_detach_device_pasid(&fake->domain, device->dev, pasid);
		if (rcu_access_pointer(device->iommu.fault_param))
			iopf_queue_remove_device(fake->iommu.iopf_queue, device->dev);
		/* no driver to release it */
		device->dev->iommu = NULL;
		iommu_group_remove_device(device->dev);
		iommu_group_put(device->group);
	}
	iopf_queue_free(fake->iommu.iopf_queue);
}

MODULE_DESCRIPTION("KUnit tests of the VT-d page request queue");
MODULE_LICENSE("GPL");
