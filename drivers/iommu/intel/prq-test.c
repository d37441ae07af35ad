// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the page request queue, from raw descriptors to the words of
 * their answers, through the fault core
 *
 * The IOMMU is memory: a page of registers, the ring, and an invalidation queue
 * whose hardware is fake_fetch(). What it executes is logged, so that each answer
 * can be counted. The devices are on a fault queue and have domains attached, as
 * if a driver had probed them.
 *
 * Requests are handled by the bottom half, as far as it goes, and by the thread, if
 * that was woken. Stubs work in the test's task alone, so the bottom half is called
 * from there, but for prq_test_interrupt.
 */

#include <kunit/device.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/bitfield.h>
#include <linux/bottom_half.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/iommu.h>
#include <linux/kthread.h>
#include <linux/moduleparam.h>
#include <linux/pci.h>
#include <linux/prandom.h>

#include "iommu.h"
#include "pasid.h"
#include "prq.h"
#include "../iommu-priv.h"

/* Page Request Enable of a scalable-mode context entry (9.4) */
#define CONTEXT_PRE	BIT_ULL(4)

#define SLOTS		PRQ_DEPTH
#define DSC_SIZE	sizeof(struct page_req_dsc)
#define DEVICES		2
#define PASIDS		4
#define MAX_PASIDS	64
/* Where a PASID is needed and does not matter */
#define PASID		1
#define GROUP_IDS	512

struct fake_device {
	struct device *dev;
	struct dev_iommu iommu;
	struct device_domain_info info;
	struct pasid_table pasid_table;
	struct iommu_group *group;
	struct iommu_attach_handle handles[PASIDS];
};

/* When the hardware stops, and what it says */
struct fake_error {
	unsigned int after;	/* so many more descriptors are executed before */
	u32 status;		/* bit of the Fault Status Register, or 0 */
	u16 sid;		/* of the time-out */
};

struct fake {
	struct kunit *test;
	struct intel_iommu iommu;
	struct iommu_ops ops;
	struct iommu_domain domain;
	struct iommu_domain_ops domain_ops;
	struct fake_device device[DEVICES];

	/* what the handler got and nobody has answered */
	struct list_head groups;
	unsigned int n_groups;
	unsigned int n_requests;
	void (*on_group)(struct fake *fake, struct iopf_group *group);

	/* of the page request queue's hardware */
	void (*on_acknowledge)(struct fake *fake, u32 bits);
	u32 cleared;
	bool woken;			/* the thread */
	unsigned int kicks;		/* of the driver, as if the queue had interrupted */

	/* of the invalidation queue's hardware */
	struct q_inval qi;
	int status[QI_LENGTH];
	bool hold;			/* does not react to the doorbell */
	bool stalled;			/* by an error */
	struct fake_error error;
	unsigned int doorbells;
	unsigned int n_invalidations;
	bool overflow_amid;		/* the thread clears one during each of them */
	struct qi_desc last;
	unsigned int n_answers;
	unsigned int n_code[16];
	unsigned int answered[GROUP_IDS];
	struct hrtimer timer;

	/* for a thread beside the test */
	struct completion begin, end;
	struct mover *mover;
};

static struct fake *fake_of(struct intel_iommu *iommu)
{
	return container_of(iommu, struct fake, iommu);
}

static u16 sid_of(const struct fake_device *device)
{
	return PCI_DEVID(device->info.bus, device->info.devfn);
}

/* ---- registers ---- */

static u32 reg_get(struct fake *fake, unsigned int offset)
{
	return readl(fake->iommu.reg + offset);
}

static void reg_set(struct fake *fake, unsigned int offset, u32 value)
{
	writel(value, fake->iommu.reg + offset);
}

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

static void fake_fetch(struct fake *fake)
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
		fake_fetch(fake);
}

static void fake_clear_fault(struct intel_iommu *iommu, u32 bits)
{
	struct fake *fake = fake_of(iommu);

	reg_set(fake, DMAR_FSTS_REG, reg_get(fake, DMAR_FSTS_REG) & ~bits);
	fake->stalled = false;
	fake_fetch(fake);
}

/* ---- devices and the handler ---- */

static int fake_set_dev_pasid(struct iommu_domain *domain, struct device *dev, ioasid_t pasid,
			      struct iommu_domain *old)
{
	return 0;
}

static void fake_remove_dev_pasid(struct device *dev, ioasid_t pasid,
				  struct iommu_domain *domain)
{
}

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

/* Answer what the handler has, in batches of @batch. */
static void answer_all(struct fake *fake, unsigned int batch,
		       enum iommu_page_response_code code)
{
	struct iopf_answer *answers;
	struct iopf_group *group;
	unsigned int n = 0;
	LIST_HEAD(done);

	answers = kcalloc(batch, sizeof(*answers), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(fake->test, answers);
	while ((group = list_first_entry_or_null(&fake->groups, struct iopf_group, node))) {
		list_move_tail(&group->node, &done);
		/* the core may have claimed it for a device that left */
		if (iopf_group_claim(group))
			answers[n++] = (struct iopf_answer){ .group = group, .code = code };
		if (n < batch && !list_empty(&fake->groups))
			continue;
		iopf_answer_groups(answers, n);
		iopf_free_groups(&done);
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

static struct pasid_entry *entry_of(struct fake_device *device, u32 pasid)
{
	struct pasid_dir_entry *dir = device->pasid_table.table;

	return get_pasid_table_from_pde(&dir[0]) + pasid;
}

/* What the IOMMU translates by: see "Scalable-Mode PASID Table Entry" */
static void set_entry(struct fake_device *device, u32 pasid, u64 type, u64 bits)
{
	struct pasid_entry *entry = entry_of(device, pasid);

	entry->val[2] = bits;
	entry->val[0] = type << 6 | PASID_PTE_PRESENT;
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

	iommu->reg = (void __iomem *)kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	iommu->prq = kunit_kcalloc(test, SLOTS, DSC_SIZE, GFP_KERNEL);
	iommu->qi = &fake->qi;
	iommu->ecap = BIT_ULL(43);	/* scalable mode: 256-bit descriptors */
	iommu->cap = 47 << 16;		/* 48 bits of second-stage addresses */
	fake->qi.desc = kunit_kcalloc(test, QI_LENGTH, sizeof(struct qi_desc), GFP_KERNEL);
	fake->qi.desc_status = fake->status;
	fake->qi.free_cnt = QI_LENGTH;
	KUNIT_ASSERT_NOT_NULL(test, (void *)iommu->reg);
	KUNIT_ASSERT_NOT_NULL(test, iommu->prq);
	KUNIT_ASSERT_NOT_NULL(test, fake->qi.desc);

	raw_spin_lock_init(&iommu->register_lock);
	raw_spin_lock_init(&fake->qi.q_lock);
	spin_lock_init(&iommu->lock);
	mutex_init(&iommu->iopf_lock);
	spin_lock_init(&iommu->device_rbtree_lock);
	iommu->device_rbtree = RB_ROOT;
	init_waitqueue_head(&iommu->prq_wait);
	INIT_WORK(&iommu->prq_work, prq_bottom_half);
	strscpy(iommu->name, "fake");
	iommu->iopf_queue = iopf_queue_alloc("prq-test");
	KUNIT_ASSERT_NOT_NULL(test, iommu->iopf_queue);
}

static int prq_test_init(struct kunit *test)
{
	struct fake *fake = kunit_kzalloc(test, sizeof(*fake), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, fake);
	test->priv = fake;
	fake->test = test;
	INIT_LIST_HEAD(&fake->groups);
	queues_init(test, fake);

	fake->ops.page_response = intel_iommu_page_response;
	fake->ops.page_response_batch = intel_iommu_page_response_batch;
	fake->ops.remove_dev_pasid = fake_remove_dev_pasid;
	fake->iommu.iommu.ops = &fake->ops;
	fake->domain_ops.set_dev_pasid = fake_set_dev_pasid;
	fake->domain.type = IOMMU_DOMAIN_UNMANAGED;
	fake->domain.owner = &fake->ops;
	fake->domain.ops = &fake->domain_ops;
	fake->domain.iopf_handler = fake_handler;
	kunit_activate_static_stub(test, qi_ring_doorbell, fake_doorbell);
	kunit_activate_static_stub(test, qi_clear_fault, fake_clear_fault);
	kunit_activate_static_stub(test, prq_acknowledge, fake_acknowledge);
	kunit_activate_static_stub(test, prq_wake_thread, fake_wake_thread);
	kunit_activate_static_stub(test, prq_kick, fake_kick);
	kunit_activate_static_stub(test, prq_kick_later, fake_kick);
	for (i = 0; i < DEVICES; i++)
		device_init(test, fake, i);
	return 0;
}

/* Every test ends with all answered, once. */
static void prq_test_exit(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device;
	ioasid_t pasid;

	if (!fake || !fake->iommu.iopf_queue)
		return;

	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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

/* ---- requests ---- */

/* The device writes a request to the queue, whatever stands in there. */
static void put_raw(struct fake *fake, u64 qw0, u64 qw1)
{
	u32 tail = reg_get(fake, DMAR_PQT_REG);
	struct page_req_dsc *req = fake->iommu.prq + tail / DSC_SIZE;

	*req = (struct page_req_dsc){ .qw = { qw0, qw1, ~0ULL, ~0ULL } };
	reg_set(fake, DMAR_PQT_REG, (tail + DSC_SIZE) & PRQ_RING_MASK);
	reg_set(fake, DMAR_PRS_REG, reg_get(fake, DMAR_PRS_REG) | DMA_PRS_PPR);
}

static u64 word0(const struct fake_device *device, u32 pasid)
{
	u64 qw0 = PRQ_TYPE_REQUEST | FIELD_PREP(PRQ_SID, sid_of(device));

	return pasid == IOMMU_NO_PASID ? qw0 :
	       qw0 | PRQ_PASID_PRESENT | FIELD_PREP(PRQ_PASID, pasid);
}

static void put(struct fake *fake, struct fake_device *device, u32 pasid, u32 grpid, bool last)
{
	put_raw(fake, word0(device, pasid), 0x1000 | FIELD_PREP(PRQ_INDEX, grpid) |
		PRQ_READ | (last ? PRQ_LPIG : 0));
}

/* Returns whether the thread is to go on. */
static bool run_bottom_half(struct fake *fake)
{
	fake->woken = false;
	local_bh_disable();
	prq_bottom_half(&fake->iommu.prq_work);
	local_bh_enable();
	return fake->woken;
}

static void run_thread(struct fake *fake)
{
	KUNIT_EXPECT_EQ(fake->test, IRQ_HANDLED, prq_event_thread(0, &fake->iommu));
}

static void run(struct fake *fake)
{
	if (run_bottom_half(fake))
		run_thread(fake);
	KUNIT_EXPECT_EQ(fake->test, reg_get(fake, DMAR_PQH_REG), reg_get(fake, DMAR_PQT_REG));
}

struct field_case {
	const char *name;
	u64 qw0, qw1;
	u64 entry, bits;		/* the PASID's entry: type, third word */
	struct iommu_fault_page_request prm;
};

#define WITH_PASID	(PRQ_PASID_PRESENT | FIELD_PREP_CONST(PRQ_PASID, PASID))
#define FIRST		PASID_ENTRY_PGTT_FL_ONLY
#define SECOND		PASID_ENTRY_PGTT_SL_ONLY
#define NESTED		PASID_ENTRY_PGTT_NESTED
#define SUPERVISOR	BIT_ULL(0)
#define FIVE_LEVELS	BIT_ULL(2)
#define FLAGS_LAST	IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE
#define FLAGS_PASID	(FLAGS_LAST | IOMMU_FAULT_PAGE_REQUEST_PASID_VALID | \
			 IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID)

static const struct field_case field_cases[] = {
	{ "read", WITH_PASID, 0x7000 | PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0x7000 } },
	{ "write", WITH_PASID, 0x7000 | PRQ_WRITE | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_WRITE, 0x7000 } },
	{ "execute", WITH_PASID | PRQ_EXEC, PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_EXEC, 0 } },
	{ "execute bit without read", WITH_PASID | PRQ_EXEC, PRQ_WRITE | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_WRITE, 0 } },
	{ "privileged", WITH_PASID | PRQ_PRIV, PRQ_WRITE | PRQ_LPIG, FIRST, SUPERVISOR,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_WRITE | IOMMU_FAULT_PERM_PRIV, 0 } },
	{ "privileged, nested", WITH_PASID | PRQ_PRIV, PRQ_READ | PRQ_LPIG, NESTED, SUPERVISOR,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_PRIV, 0 } },
	{ "privileged, second stage", WITH_PASID | PRQ_PRIV, PRQ_READ | PRQ_LPIG, SECOND, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_PRIV, 0 } },
	{ "no PASID", 0, 0x7000 | PRQ_READ | PRQ_WRITE | PRQ_LPIG, FIRST, 0,
	  { FLAGS_LAST, IOMMU_NO_PASID, 0, IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_WRITE,
	    0x7000 } },
	{ "PASID bits without the present bit", WITH_PASID & ~PRQ_PASID_PRESENT,
	  PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_LAST, IOMMU_NO_PASID, 0, IOMMU_FAULT_PERM_READ, 0 } },
	{ "highest group", WITH_PASID, PRQ_INDEX | PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 511, IOMMU_FAULT_PERM_READ, 0 } },
	{ "lower half", WITH_PASID, 0x7ffffffff000 | PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0x7ffffffff000 } },
	{ "upper half", WITH_PASID, 0xffff800000000000 | PRQ_READ | PRQ_LPIG, NESTED, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0xffff800000000000 } },
	{ "five levels", WITH_PASID, 0x800000000000 | PRQ_READ | PRQ_LPIG, FIRST, FIVE_LEVELS,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0x800000000000 } },
	{ "second stage", WITH_PASID, 0x800000000000 | PRQ_READ | PRQ_LPIG, SECOND, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0x800000000000 } },
	{ "reserved bits", WITH_PASID | GENMASK_ULL(15, 9) | GENMASK_ULL(63, 54),
	  PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0 } },
};

static struct {
	unsigned int count;
	struct device *dev;
	struct iommu_fault fault;
} reported;

static void keep_report(struct device *dev, struct iopf_fault *evt)
{
	reported.count++;
	reported.dev = dev;
	reported.fault = evt->fault;
}

/* Each field, as the core is told of it */
static void prq_test_fields(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[1];
	const struct field_case *c;

	kunit_activate_static_stub(test, prq_report, keep_report);
	for (c = field_cases; c < field_cases + ARRAY_SIZE(field_cases); c++) {
		set_entry(device, PASID, c->entry, c->bits);
		reported.count = 0;
		put_raw(fake, word0(device, IOMMU_NO_PASID) | c->qw0, c->qw1);
		run(fake);
		KUNIT_EXPECT_EQ_MSG(test, 1, reported.count, "%s", c->name);
		KUNIT_EXPECT_PTR_EQ(test, device->dev, reported.dev);
		KUNIT_EXPECT_EQ(test, IOMMU_FAULT_PAGE_REQ, reported.fault.type);
		KUNIT_EXPECT_MEMEQ_MSG(test, &c->prm, &reported.fault.prm, sizeof(c->prm), "%s",
				       c->name);
	}
}

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
		answer_all(fake, 1, codes[i]);
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

/* What cannot be served is answered INVALID, with nobody bothered. */
static const struct field_case refused_cases[] = {
	{ "privileged, not allowed by the domain", WITH_PASID | PRQ_PRIV, PRQ_READ, FIRST, 0 },
	{ "privileged, nested and not allowed", WITH_PASID | PRQ_PRIV, PRQ_READ, NESTED, 0 },
	{ "privileged without PASID", PRQ_PRIV, PRQ_READ, FIRST, SUPERVISOR },
	{ "execute without PASID", PRQ_EXEC, PRQ_READ, FIRST, 0 },
	{ "nothing, without PASID", 0, 0, FIRST, 0 },
	{ "not canonical", WITH_PASID, 0x800000000000 | PRQ_READ, FIRST, 0 },
	{ "not canonical, upper", WITH_PASID, 0xffff7ffffffff000 | PRQ_READ, NESTED, 0 },
	{ "not canonical, five levels", WITH_PASID, 1ULL << 56 | PRQ_READ, FIRST, FIVE_LEVELS },
	{ "beyond the second stage", WITH_PASID, 0xffff800000000000 | PRQ_READ, SECOND, 0 },
	{ "PASID that nothing is attached to",
	  PRQ_PASID_PRESENT | FIELD_PREP_CONST(PRQ_PASID, PASIDS), PRQ_READ, FIRST, 0 },
	{ "PASID beyond the table", PRQ_PASID_PRESENT | PRQ_PASID, PRQ_READ, FIRST, 0 },
};

static void prq_test_refused(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[0];
	const struct field_case *c;
	u64 expected;

	for (c = refused_cases; c < refused_cases + ARRAY_SIZE(refused_cases); c++) {
		set_entry(device, PASID, c->entry, c->bits);
		put_raw(fake, word0(device, IOMMU_NO_PASID) | c->qw0, c->qw1 | PRQ_LPIG);
		run(fake);
		KUNIT_EXPECT_EQ_MSG(test, 0, fake->n_groups, "%s", c->name);
		expected = 0x20081009;
		if (c->qw0 & PRQ_PASID_PRESENT)
			expected |= BIT_ULL(4) | (c->qw0 & PRQ_PASID);
		KUNIT_EXPECT_EQ_MSG(test, expected, fake->last.qw0, "%s", c->name);
	}
	KUNIT_EXPECT_EQ(test, ARRAY_SIZE(refused_cases), fake->n_answers);
}

/* The device's capability must have a permission enabled. */
static void prq_test_device_permissions(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[0];

	device->info.pasid_supported = 1;
	set_entry(device, PASID, FIRST, SUPERVISOR);
	put_raw(fake, word0(device, PASID) | PRQ_EXEC, PRQ_READ | PRQ_LPIG);
	put_raw(fake, word0(device, PASID) | PRQ_PRIV, PRQ_READ | PRQ_LPIG);
	put_raw(fake, word0(device, PASID), PRQ_READ | PRQ_LPIG);
	run(fake);
	KUNIT_EXPECT_EQ(test, 2, fake->n_code[QI_RESP_INVALID]);
	KUNIT_EXPECT_EQ(test, 2, fake->n_answers);
	KUNIT_EXPECT_EQ(test, 1, fake->n_groups);
}

/* One bad request spoils its group, and leaves nothing behind for the next. */
static void prq_test_refused_in_group(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[0];

	put(fake, device, PASID, 7, false);
	put_raw(fake, word0(device, PASID), 1ULL << 60 | FIELD_PREP(PRQ_INDEX, 7) | PRQ_READ);
	put(fake, device, PASID, 8, false);
	put(fake, device, PASID, 7, true);
	run(fake);
	KUNIT_EXPECT_EQ(test, 0, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 1, fake->n_code[QI_RESP_INVALID]);
	KUNIT_EXPECT_EQ(test, 1, fake->answered[7]);

	/* a bad last one */
	put_raw(fake, word0(device, PASID),
		1ULL << 60 | FIELD_PREP(PRQ_INDEX, 8) | PRQ_READ | PRQ_LPIG);
	put(fake, device, PASID, 7, true);
	put(fake, device, PASID, 8, true);
	run(fake);
	KUNIT_EXPECT_EQ(test, 2, fake->n_code[QI_RESP_INVALID]);
	KUNIT_EXPECT_EQ(test, 2, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 2, fake->n_requests);
}

/* Malformed, and no request at all: no answer, and what follows is unharmed. */
static void prq_test_malformed(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[0];

	put_raw(fake, 0, 0);
	put_raw(fake, ~0ULL, ~0ULL);
	put_raw(fake, word0(device, PASID) ^ PRQ_TYPE_REQUEST ^ 2, PRQ_READ | PRQ_LPIG);
	put_raw(fake, word0(device, PASID), FIELD_PREP(PRQ_INDEX, 3));
	run(fake);
	KUNIT_EXPECT_EQ(test, 0, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 0, fake->n_answers);

	/* it was asked for nothing in group 3, so nothing is granted to it */
	put(fake, device, PASID, 3, true);
	put(fake, device, PASID, 4, true);
	run(fake);
	KUNIT_EXPECT_EQ(test, 1, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 1, fake->answered[3]);
}

static void prq_test_unknown_device(struct kunit *test)
{
	struct fake *fake = test->priv;
	u64 qw0 = word0(&fake->device[0], PASID) ^ FIELD_PREP(PRQ_SID, 0xffff);

	put_raw(fake, qw0, PRQ_READ);
	put_raw(fake, qw0, PRQ_READ | PRQ_LPIG | FIELD_PREP(PRQ_INDEX, 5));
	put(fake, &fake->device[0], PASID, 6, true);
	put_raw(fake, qw0, PRQ_LPIG);
	run(fake);
	KUNIT_EXPECT_EQ(test, 1, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 1, fake->n_answers);
	KUNIT_EXPECT_EQ(test, 0x00000001dff71019, fake->last.qw0);
	KUNIT_EXPECT_EQ(test, 5 << 3, fake->last.qw1);
}

/* It has no answer and ends the PASID's collecting groups, those alone. */
static void prq_test_stop_marker(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[0];

	put(fake, device, 1, 5, false);
	put(fake, device, 2, 5, false);
	put(fake, &fake->device[1], 1, 5, false);
	/* what else it may have of the PASID's prefix is reserved */
	put_raw(fake, word0(device, 1) | PRQ_EXEC | PRQ_PRIV, PRQ_LPIG);
	run(fake);
	KUNIT_EXPECT_EQ(test, 0, fake->n_answers);

	put(fake, device, 1, 5, true);
	run(fake);
	KUNIT_EXPECT_EQ(test, 1, fake->n_requests);
	put(fake, device, 2, 5, true);
	put(fake, &fake->device[1], 1, 5, true);
	run(fake);
	KUNIT_EXPECT_EQ(test, 3, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 5, fake->n_requests);
}

/* The same group id under several PASIDs and none, from two devices, mixed */
static void prq_test_mixed(struct kunit *test)
{
	struct fake *fake = test->priv;
	unsigned int i, pass, seen[DEVICES][PASIDS] = {};
	struct iopf_group *group;
	struct iopf_fault *iopf;
	u32 pasid;

	for (pass = 0; pass < 3; pass++) {
		for (i = 0; i < DEVICES * PASIDS; i++)
			put(fake, &fake->device[i % DEVICES], i / DEVICES, 9, pass == 2);
	}
	run(fake);
	/* no domain is on the RIDs */
	KUNIT_EXPECT_EQ(test, DEVICES, fake->n_code[QI_RESP_INVALID]);
	KUNIT_EXPECT_EQ(test, DEVICES * (PASIDS - 1), fake->n_groups);
	list_for_each_entry(group, &fake->groups, node) {
		i = group->fault_param->dev == fake->device[1].dev;
		pasid = group->last_fault.fault.prm.pasid;
		seen[i][pasid]++;
		KUNIT_EXPECT_EQ(test, 3, group->fault_count);
		KUNIT_EXPECT_PTR_EQ(test, &fake->device[i].handles[pasid], group->attach_handle);
		list_for_each_entry(iopf, &group->faults, list)
			KUNIT_EXPECT_EQ(test, pasid, iopf->fault.prm.pasid);
	}
	for (i = DEVICES; i < DEVICES * PASIDS; i++)
		KUNIT_EXPECT_EQ(test, 1, seen[i % DEVICES][i / DEVICES]);
	answer_all(fake, 3, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(test, DEVICES * PASIDS, fake->answered[9]);
}

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
		answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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
		answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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

/* Let the pool of the device grow to @n groups, and the head be at 0 again. */
static void grow(struct fake *fake, unsigned int n)
{
	put_some(fake, n);
	run(fake);
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	reg_set(fake, DMAR_PQH_REG, 0);
	reg_set(fake, DMAR_PQT_REG, 0);
	fake->n_groups = 0;
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

	fake->on_group = look_for_softirq;
	put_some(fake, 3);
	KUNIT_EXPECT_EQ(test, IRQ_HANDLED, prq_irq(0, &fake->iommu));
	flush_work(&fake->iommu.prq_work);
	KUNIT_EXPECT_TRUE(test, in_softirq);
	KUNIT_EXPECT_EQ(test, 3, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 1, fake->iommu.prq_passes);
}

static irqreturn_t interrupted;

static void interrupt_amid(struct fake *fake, struct iopf_group *group)
{
	interrupted = prq_irq(0, &fake->iommu);
}

/* While the thread runs there is no bottom half: it is for the thread to look again. */
static void prq_test_interrupt_of_thread(struct kunit *test)
{
	struct fake *fake = test->priv;

	fake->on_group = interrupt_amid;
	put_some(fake, 1);
	run_thread(fake);
	KUNIT_EXPECT_EQ(test, IRQ_WAKE_THREAD, interrupted);
	KUNIT_EXPECT_FALSE(test, work_busy(&fake->iommu.prq_work));

	/* a second interrupt before the bottom half has come */
	fake->on_group = NULL;
	put_some(fake, 1);
	local_bh_disable();
	KUNIT_EXPECT_EQ(test, IRQ_HANDLED, prq_irq(0, &fake->iommu));
	KUNIT_EXPECT_EQ(test, IRQ_WAKE_THREAD, prq_irq(0, &fake->iommu));
	local_bh_enable();
	run_thread(fake);
	KUNIT_EXPECT_FALSE(test, work_busy(&fake->iommu.prq_work));
	KUNIT_EXPECT_EQ(test, 2, fake->n_groups);
}

#define BUDGET	64

/* It ends after so many requests, and that is no pass yet. */
static void prq_test_budget(struct kunit *test)
{
	struct fake *fake = test->priv;
	unsigned int passes;

	grow(fake, BUDGET + 2);
	put_some(fake, BUDGET);
	passes = fake->iommu.prq_passes;
	KUNIT_EXPECT_FALSE(test, run_bottom_half(fake));
	KUNIT_EXPECT_EQ(test, BUDGET, head_slot(fake));
	KUNIT_EXPECT_EQ(test, passes + 1, fake->iommu.prq_passes);
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);

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
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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
	KUNIT_EXPECT_EQ(test, 0, fake->iommu.prq_passes);
	run_thread(fake);
	KUNIT_EXPECT_EQ(test, 0, reg_get(fake, DMAR_PRS_REG));
	KUNIT_EXPECT_EQ(test, 1, fake->iommu.prq_overflows);
}

/* ---- others beside the thread ---- */

/* Hardware that fetches by itself, once in a while */
static enum hrtimer_restart fake_timer(struct hrtimer *timer)
{
	struct fake *fake = container_of(timer, struct fake, timer);

	raw_spin_lock(&fake->qi.q_lock);
	fake_fetch(fake);
	raw_spin_unlock(&fake->qi.q_lock);
	hrtimer_forward_now(timer, ns_to_ktime(100 * NSEC_PER_USEC));
	return HRTIMER_RESTART;
}

static void timer_start(struct fake *fake)
{
	hrtimer_setup(&fake->timer, fake_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	hrtimer_start(&fake->timer, ns_to_ktime(100 * NSEC_PER_USEC), HRTIMER_MODE_REL_HARD);
}

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
	timer_start(fake);

	fake->on_group = vanish_begin;
	for (n = 0; n < SLOTS - 1; n++)
		put(fake, &fake->device[n / 8 % DEVICES], PASID, n % GROUP_IDS, true);
	run(fake);
	wait_for_completion(&fake->end);

	for (n = 0; n < 100; n++)
		put(fake, &fake->device[0], PASID, n, true);
	run(fake);
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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
	run_bottom_half(fake);
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

/* No interrupt comes: the drain itself sees to the queue. */
static void prq_test_drain_by_hand(struct kunit *test)
{
	struct fake *fake = test->priv;

	kunit_deactivate_static_stub(test, prq_kick);
	put(fake, &fake->device[0], PASID, 1, true);
	put(fake, &fake->device[1], PASID, 2, true);
	intel_iommu_page_drain(fake->device[0].dev);
	/* the other's may be reported a moment later */
	flush_work(&fake->iommu.prq_work);
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

/* ---- start and sleep ---- */

/* Whoever had the IOMMU before left its status set, and its ring. */
static void prq_test_start(struct kunit *test)
{
	struct fake *fake = test->priv;

	put(fake, &fake->device[0], PASID, 1, true);
	reg_set(fake, DMAR_PRS_REG, DMA_PRS_PPR | DMA_PRS_PRO);
	prq_start(&fake->iommu);
	KUNIT_EXPECT_EQ(test, 0, reg_get(fake, DMAR_PRS_REG));
	KUNIT_EXPECT_EQ(test, 0, reg_get(fake, DMAR_PQH_REG));
	KUNIT_EXPECT_EQ(test, 0, reg_get(fake, DMAR_PQT_REG));
	KUNIT_EXPECT_EQ(test, virt_to_phys(fake->iommu.prq) | PRQ_ORDER,
			readq(fake->iommu.reg + DMAR_PQA_REG));
	KUNIT_EXPECT_EQ(test, 1, fake->kicks);
}

/* The hardware forgets all; what stood in the ring is served after it. */
static void prq_test_sleep(struct kunit *test)
{
	static const unsigned int msi[] = {
		DMAR_PECTL_REG, DMAR_PEDATA_REG, DMAR_PEADDR_REG, DMAR_PEUADDR_REG,
	};
	struct fake *fake = test->priv;
	unsigned int i;

	put(fake, &fake->device[0], PASID, 1, true);
	run(fake);
	put(fake, &fake->device[0], PASID, 2, true);
	put(fake, &fake->device[1], PASID, 3, true);
	for (i = 0; i < ARRAY_SIZE(msi); i++)
		reg_set(fake, msi[i], 0x1000 + i);

	intel_iommu_suspend_prq(&fake->iommu);
	memset((void __force *)fake->iommu.reg, 0, PAGE_SIZE);
	reg_set(fake, DMAR_PRS_REG, DMA_PRS_PPR);
	intel_iommu_resume_prq(&fake->iommu);

	for (i = 0; i < ARRAY_SIZE(msi); i++)
		KUNIT_EXPECT_EQ(test, 0x1000 + i, reg_get(fake, msi[i]));
	KUNIT_EXPECT_EQ(test, 0, reg_get(fake, DMAR_PRS_REG));
	KUNIT_EXPECT_EQ(test, virt_to_phys(fake->iommu.prq) | PRQ_ORDER,
			readq(fake->iommu.reg + DMAR_PQA_REG));
	KUNIT_EXPECT_EQ(test, 1, fake->kicks);
	run(fake);
	KUNIT_EXPECT_EQ(test, 3, fake->n_groups);
}

/* Without a queue there is nothing to be saved, and nothing to be started. */
static void prq_test_sleep_without_queue(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct page_req_dsc *prq = fake->iommu.prq;

	fake->iommu.prq = NULL;
	intel_iommu_suspend_prq(&fake->iommu);
	intel_iommu_resume_prq(&fake->iommu);
	fake->iommu.prq = prq;
	KUNIT_EXPECT_EQ(test, 0, readq(fake->iommu.reg + DMAR_PQA_REG));
	KUNIT_EXPECT_EQ(test, 0, fake->kicks);
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

/* ---- a device's capability ---- */

/*
 * A device with the capability at PRI_CAP. It has stopped when its status was read
 * @busy times.
 */
#define PRI_CAP		0x100

struct fake_pci {
	struct pci_dev pdev;
	struct pci_bus bus;
	struct dev_iommu iommu;
	struct device_domain_info info;
	u32 control;
	unsigned int busy, resets, early;
	/* not even a reset makes it stop */
	bool stuck;
};

static int config_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	struct fake_pci *pci = container_of(bus, struct fake_pci, bus);

	*value = where == PRI_CAP + PCI_PRI_CTRL ? pci->control :
		 where == PRI_CAP + PCI_PRI_STATUS && !pci->busy ? PCI_PRI_STATUS_STOPPED : 0;
	if (where == PRI_CAP + PCI_PRI_STATUS && pci->busy)
		pci->busy--;
	return 0;
}

static int config_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	struct fake_pci *pci = container_of(bus, struct fake_pci, bus);

	if (where != PRI_CAP + PCI_PRI_CTRL)
		return 0;
	pci->control = value & PCI_PRI_CTRL_ENABLE;
	if (value & PCI_PRI_CTRL_RESET) {
		pci->resets++;
		pci->busy = pci->stuck ? pci->busy : 0;
	}
	pci->early += pci->control && pci->busy;
	return 0;
}

static struct fake_pci *pci_init(struct kunit *test, struct fake *fake)
{
	static struct pci_ops ops = { .read = config_read, .write = config_write };
	struct fake_pci *pci = kunit_kzalloc(test, sizeof(*pci), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, pci);
	pci->bus.ops = &ops;
	pci->pdev.bus = &pci->bus;
	pci->pdev.pri_cap = PRI_CAP;
	pci->pdev.dev.bus = &pci_bus_type;
	pci->pdev.dev.init_name = "prq-pci";
	pci->pdev.dev.iommu = &pci->iommu;
	mutex_init(&pci->iommu.lock);
	pci->iommu.iommu_dev = &fake->iommu.iommu;
	pci->iommu.priv = &pci->info;
	pci->info = (struct device_domain_info){
		.dev = &pci->pdev.dev, .iommu = &fake->iommu,
		.ats_enabled = 1, .pri_supported = 1, .pasid_enabled = 1,
	};
	return pci;
}

static void enable_and_disable(struct kunit *test, struct fake_pci *pci)
{
	const struct iommu_ops *ops = &intel_iommu_ops;
	struct device *dev = &pci->pdev.dev;

	KUNIT_EXPECT_EQ(test, 0, ops->dev_enable_feat(dev, IOMMU_DEV_FEAT_IOPF));
	KUNIT_EXPECT_EQ(test, PCI_PRI_CTRL_ENABLE, pci->control);
	KUNIT_EXPECT_EQ(test, -EBUSY, ops->dev_enable_feat(dev, IOMMU_DEV_FEAT_IOPF));
	KUNIT_EXPECT_EQ(test, 0, ops->dev_disable_feat(dev, IOMMU_DEV_FEAT_IOPF));
	KUNIT_EXPECT_EQ(test, 0, pci->control);
}

/*
 * A device that uses PASIDs, but wants none in its answers, could not tell whose
 * answer it got: its page requests stay off.
 */
static void prq_test_enable(struct kunit *test)
{
	struct fake_pci *pci = pci_init(test, test->priv);
	const struct iommu_ops *ops = &intel_iommu_ops;

	KUNIT_EXPECT_EQ(test, -EINVAL,
			ops->dev_enable_feat(&pci->pdev.dev, IOMMU_DEV_FEAT_IOPF));
	KUNIT_EXPECT_EQ(test, 0, pci->control);
	pci->pdev.pasid_required = 1;
	enable_and_disable(test, pci);
	pci->pdev.pasid_required = 0;
	pci->info.pasid_enabled = 0;
	enable_and_disable(test, pci);
}

/*
 * It still awaits answers: its capability is not enabled, and not reset either before
 * those that come have come.
 */
static void prq_test_enable_waits(struct kunit *test)
{
	struct fake_pci *pci = pci_init(test, test->priv);
	const struct iommu_ops *ops = &intel_iommu_ops;
	struct device *dev = &pci->pdev.dev;

	pci->pdev.pasid_required = 1;
	pci->busy = 3;
	enable_and_disable(test, pci);
	KUNIT_EXPECT_EQ(test, 0, pci->busy);
	KUNIT_EXPECT_EQ(test, 1, pci->resets);
	KUNIT_EXPECT_EQ(test, 0, pci->early);

	/* One whose group never ends forgets it. */
	pci->busy = UINT_MAX;
	enable_and_disable(test, pci);
	KUNIT_EXPECT_EQ(test, 2, pci->resets);
	KUNIT_EXPECT_EQ(test, 0, pci->early);

	pci->stuck = true;
	pci->busy = UINT_MAX;
	KUNIT_EXPECT_EQ(test, -EBUSY, ops->dev_enable_feat(dev, IOMMU_DEV_FEAT_IOPF));
	KUNIT_EXPECT_EQ(test, 0, pci->early);
}

/* The device may send requests only to a queue that is there. */
static void prq_test_context_entry(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_pci *pci = pci_init(test, fake);
	struct iopf_queue *queue = fake->iommu.iopf_queue;
	struct context_entry *context = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, context);
	pci->info.pasid_table = &fake->device[0].pasid_table;

	context_entry_set_pasid_table(context, &pci->pdev.dev);
	KUNIT_EXPECT_EQ(test, CONTEXT_PRE, context->lo & CONTEXT_PRE);
	fake->iommu.iopf_queue = NULL;
	context_entry_set_pasid_table(context, &pci->pdev.dev);
	KUNIT_EXPECT_EQ(test, 0, context->lo & CONTEXT_PRE);
	fake->iommu.iopf_queue = queue;
	pci->info.pri_supported = 0;
	context_entry_set_pasid_table(context, &pci->pdev.dev);
	KUNIT_EXPECT_EQ(test, 0, context->lo & CONTEXT_PRE);
}

/* ---- domains that take turns under load ---- */

/* For longer runs: prq_test.moves=2000 on the kernel's command line */
static unsigned int moves = 100;
module_param(moves, uint, 0);
MODULE_PARM_DESC(moves, "How often domains are replaced under load");

/* Requests to a domain, at most; after the first few it may be replaced. */
#define MOVE_REQUESTS 16
#define MOVE_FEW 3

struct move_case {
	const char *name;
	u64 type;			/* of the PASID table's entry */
	unsigned int domain_type;
};

static const struct move_case move_cases[] = {
	{ "first stage", FIRST, IOMMU_DOMAIN_UNMANAGED },
	{ "nested", NESTED, IOMMU_DOMAIN_NESTED },
};

KUNIT_ARRAY_PARAM_DESC(move, move_cases, name);

/* A device that is not stopped, and the thread of its IOMMU */
struct mover {
	struct fake *fake;
	struct fake_device *device;
	const struct move_case *how;
	ioasid_t pasid;
	struct task_struct *thread;
	wait_queue_head_t wait;
	bool stop;
	struct iommu_domain_ops ops;
	struct iommu_domain domain[2];

	spinlock_t bus;			/* below: what the hardware goes by */
	bool present;			/* the entry */
	u64 epoch;			/* number of the domain */
	unsigned int sent;
	unsigned int left;		/* to be sent to this domain */

	spinlock_t lock;		/* below, and the groups of a turn */
	unsigned int n_groups;
	unsigned int n_strays;
};

/* A domain's turn; freed when it is over, for KASAN to see who still looks at it */
struct turn {
	struct iommu_attach_handle handle;
	struct mover *mover;
	u64 epoch;
	struct list_head groups;
};

/* The address of a request is the epoch that it was sent in. */
static int mover_handler(struct iopf_group *group)
{
	struct turn *turn = container_of(group->attach_handle, struct turn, handle);
	struct mover *mover = turn->mover;

	spin_lock_bh(&mover->lock);
	mover->n_groups++;
	mover->n_strays += group->last_fault.fault.prm.addr >> PAGE_SHIFT < turn->epoch;
	list_add_tail(&group->node, &turn->groups);
	spin_unlock_bh(&mover->lock);
	return 0;
}

static void mover_send(struct mover *mover)
{
	spin_lock(&mover->bus);
	if (mover->present && mover->left) {
		mover->left--;
		put_raw(mover->fake, word0(mover->device, mover->pasid),
			mover->epoch << PAGE_SHIFT | PRQ_READ | PRQ_LPIG |
			FIELD_PREP(PRQ_INDEX, mover->sent % GROUP_IDS));
		mover->sent++;
	}
	spin_unlock(&mover->bus);
}

static int mover_thread(void *data)
{
	struct mover *mover = data;
	unsigned int n, passes = 0;

	current->kunit_test = mover->fake->test;
	while (!READ_ONCE(mover->stop)) {
		for (n = 0; n < MOVE_FEW; n++)
			mover_send(mover);
		wake_up_all(&mover->wait);
		/* Who drains may meet the one or the other. */
		if (++passes % 2 || run_bottom_half(mover->fake))
			run_thread(mover->fake);
		wait_event(mover->wait, READ_ONCE(mover->stop) ||
			   (READ_ONCE(mover->present) && READ_ONCE(mover->left)));
	}
	current->kunit_test = NULL;
	return 0;
}

static void mover_set_present(struct mover *mover, bool present)
{
	spin_lock(&mover->bus);
	mover->present = present;
	mover->epoch += present;
	mover->left = MOVE_REQUESTS;
	entry_of(mover->device, mover->pasid)->val[0] =
		present ? mover->how->type << 6 | PASID_PTE_PRESENT : 0;
	spin_unlock(&mover->bus);
	wake_up_all(&mover->wait);
}

/* As the driver does it: non-present, drained, and present with another domain */
static int mover_set_dev_pasid(struct iommu_domain *domain, struct device *dev, ioasid_t pasid,
			       struct iommu_domain *old)
{
	struct mover *mover = domain->fault_data;

	if (mover->present) {
		mover_set_present(mover, false);
		intel_iommu_drain_pasid_prq(dev, pasid, FLPT_DEFAULT_DID);
	}
	mover_set_present(mover, true);
	return 0;
}

static struct mover *mover_init(struct kunit *test, ioasid_t pasid)
{
	struct mover *mover = kunit_kzalloc(test, sizeof(*mover), GFP_KERNEL);
	struct fake *fake = test->priv;
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, mover);
	fake->mover = mover;
	mover->fake = fake;
	mover->device = &fake->device[0];
	mover->how = test->param_value;
	mover->pasid = pasid;
	init_waitqueue_head(&mover->wait);
	spin_lock_init(&mover->bus);
	spin_lock_init(&mover->lock);
	mover->ops.set_dev_pasid = mover_set_dev_pasid;
	for (i = 0; i < 2; i++)
		mover->domain[i] = (struct iommu_domain){
			.type = mover->how->domain_type, .owner = &fake->ops,
			.ops = &mover->ops, .iopf_handler = mover_handler, .fault_data = mover,
		};
	return mover;
}

/* From here on the device sends. */
static void mover_start(struct mover *mover)
{
	mover->thread = kthread_run(mover_thread, mover, "prq-mover");
	KUNIT_ASSERT_FALSE(mover->fake->test, IS_ERR(mover->thread));
	get_task_struct(mover->thread);
}

/* Let a few requests go to the domain whose turn it is. */
static void mover_wait(struct mover *mover)
{
	wait_event(mover->wait, READ_ONCE(mover->left) <= MOVE_REQUESTS - MOVE_FEW);
}

static void mover_stop(struct mover *mover)
{
	WRITE_ONCE(mover->stop, true);
	wake_up_all(&mover->wait);
	kthread_stop_put(mover->thread);
}

/* The next domain's turn; the first one's has @old NULL. */
static struct turn *mover_next(struct mover *mover, struct turn *old)
{
	struct iommu_domain *domain = &mover->domain[mover->epoch % 2];
	struct turn *turn = kzalloc(sizeof(*turn), GFP_KERNEL);
	struct device *dev = mover->device->dev;
	int rc;

	KUNIT_ASSERT_NOT_NULL(mover->fake->test, turn);
	turn->mover = mover;
	turn->epoch = mover->epoch + 1;
	INIT_LIST_HEAD(&turn->groups);
	if (old)
		rc = iommu_replace_device_pasid(domain, dev, mover->pasid, &turn->handle);
	else
		rc = iommu_attach_device_pasid(domain, dev, mover->pasid, &turn->handle);
	KUNIT_ASSERT_EQ(mover->fake->test, 0, rc);
	return turn;
}

/* As an owner of domains does it, see iopf_quiesce(). The handle is hidden already. */
static void mover_over(struct mover *mover, struct turn *turn)
{
	struct device *dev = mover->device->dev;

	iopf_quiesce(dev, mover->pasid, &turn->handle);
	list_splice(&turn->groups, &mover->fake->groups);
	answer_all(mover->fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	iopf_recall_sync(dev);
	kfree(turn);
}

/* No request that was sent to a domain reaches the next one, or a handle that is gone. */
static void prq_test_replace(struct kunit *test)
{
	struct mover *mover = mover_init(test, PASIDS);
	struct fake *fake = test->priv;
	struct turn *turn, *old;
	unsigned int i;

	turn = mover_next(mover, NULL);
	mover_start(mover);
	for (i = 0; i < moves; i++) {
		mover_wait(mover);
		old = turn;
		turn = mover_next(mover, old);
		mover_over(mover, old);
	}
	mover_set_present(mover, false);
	intel_iommu_drain_pasid_prq(mover->device->dev, PASIDS, FLPT_DEFAULT_DID);
	iommu_detach_device_pasid(turn->handle.domain, mover->device->dev, PASIDS);
	mover_over(mover, turn);
	mover_stop(mover);
	KUNIT_EXPECT_EQ(test, 0, mover->n_strays);
	KUNIT_EXPECT_GT(test, mover->n_groups, moves);
	KUNIT_EXPECT_EQ(test, mover->sent, fake->n_answers);
}

static void mover_report(struct device *dev, struct iopf_fault *evt)
{
	struct fake *fake = kunit_get_current_test()->priv;
	struct mover *mover = fake->mover;

	mover->n_groups++;
	mover->n_strays += evt->fault.prm.addr >> PAGE_SHIFT < READ_ONCE(mover->epoch);
}

/* The same for the RID, whose domain only a real device can get: the driver's part */
static void prq_test_replace_rid(struct kunit *test)
{
	struct mover *mover = mover_init(test, IOMMU_NO_PASID);
	unsigned int i;

	kunit_activate_static_stub(test, prq_report, mover_report);
	mover_set_present(mover, true);
	mover_start(mover);
	for (i = 0; i < moves; i++) {
		mover_wait(mover);
		mover_set_dev_pasid(&mover->domain[i % 2], mover->device->dev, IOMMU_NO_PASID,
				    NULL);
	}
	mover_set_present(mover, false);
	intel_iommu_drain_pasid_prq(mover->device->dev, IOMMU_NO_PASID, FLPT_DEFAULT_DID);
	KUNIT_EXPECT_EQ(test, mover->sent, mover->n_groups);
	mover_stop(mover);
	KUNIT_EXPECT_EQ(test, 0, mover->n_strays);
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

/* ---- answers ---- */

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
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_LE(test, fake->doorbells, 32);
	check_answered_once(fake, 1);

	/* more in one call than the queue has slots */
	fake->doorbells = 0;
	put_groups(fake, GROUP_IDS);
	answer_all(fake, GROUP_IDS, IOMMU_PAGE_RESP_SUCCESS);
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
	timer_start(fake);
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	while (READ_ONCE(fake->n_answers) < GROUP_IDS)
		usleep_range(100, 200);
	hrtimer_cancel(&fake->timer);
	check_answered_once(fake, 1);

	/* nothing is left of them but free slots */
	fake->hold = false;
	KUNIT_EXPECT_EQ(test, 0, qi_submit_sync(&fake->iommu, &none, 0, 0));
	put_groups(fake, GROUP_IDS);
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(test, 0, fake->n_answers);
	/* found dead, it is not waited for again: else this never ended */
	qi_patience = 1ULL << 62;
	put_groups(fake, 64);
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	qi_patience = patience;

	fake->hold = false;
	fake_fetch(fake);
	KUNIT_EXPECT_GE(test, fake->n_answers, QI_LENGTH - 1 - 32);
	KUNIT_EXPECT_LT(test, fake->n_answers, QI_LENGTH);
	fake->n_answers = 0;
	put_groups(fake, GROUP_IDS);
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
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
	answer_all(fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(test, GROUP_IDS, fake->n_answers);
	check_queue_works(fake);
}

static struct kunit_case prq_test_cases[] = {
	KUNIT_CASE(prq_test_fields),
	KUNIT_CASE(prq_test_answer_words),
	KUNIT_CASE(prq_test_refused),
	KUNIT_CASE(prq_test_device_permissions),
	KUNIT_CASE(prq_test_refused_in_group),
	KUNIT_CASE(prq_test_malformed),
	KUNIT_CASE(prq_test_unknown_device),
	KUNIT_CASE(prq_test_stop_marker),
	KUNIT_CASE(prq_test_mixed),
	KUNIT_CASE(prq_test_run),
	KUNIT_CASE(prq_test_full_ring),
	KUNIT_CASE(prq_test_empty),
	KUNIT_CASE(prq_test_overflow),
	KUNIT_CASE(prq_test_storm),
	KUNIT_CASE(prq_test_interrupt),
	KUNIT_CASE(prq_test_interrupt_of_thread),
	KUNIT_CASE(prq_test_budget),
	KUNIT_CASE(prq_test_overflow_is_left),
	KUNIT_CASE(prq_test_device_vanishes),
	KUNIT_CASE(prq_test_drain),
	KUNIT_CASE(prq_test_drain_by_hand),
	KUNIT_CASE(prq_test_drain_gives_up),
	KUNIT_CASE(prq_test_mute),
	KUNIT_CASE(prq_test_start),
	KUNIT_CASE(prq_test_sleep),
	KUNIT_CASE(prq_test_sleep_without_queue),
	KUNIT_CASE(prq_test_rid_teardown),
	KUNIT_CASE(prq_test_enable),
	KUNIT_CASE(prq_test_enable_waits),
	KUNIT_CASE(prq_test_context_entry),
	KUNIT_CASE(prq_test_drain_overflow),
	KUNIT_CASE_PARAM(prq_test_replace, move_gen_params),
	KUNIT_CASE_PARAM(prq_test_replace_rid, move_gen_params),
	KUNIT_CASE(prq_test_batch),
	KUNIT_CASE(prq_test_slow_hardware),
	KUNIT_CASE(prq_test_dead_hardware),
	KUNIT_CASE(prq_test_timeout_after_answers),
	KUNIT_CASE(prq_test_timeout_amid_answers),
	KUNIT_CASE(prq_test_timeout_of_absent_device),
	KUNIT_CASE(prq_test_timeout_given_up),
	KUNIT_CASE(prq_test_queue_error),
	KUNIT_CASE(prq_test_queue_error_of_answers),
	KUNIT_CASE(prq_test_queue_error_when_idle),
	KUNIT_CASE(prq_test_timeout_when_idle),
	KUNIT_CASE(prq_test_timeout_of_answers),
	{}
};

static struct kunit_suite prq_test_suite = {
	.name = "intel-prq",
	.init = prq_test_init,
	.exit = prq_test_exit,
	.test_cases = prq_test_cases,
};

kunit_test_suite(prq_test_suite);

MODULE_DESCRIPTION("KUnit tests of the VT-d page request queue");
MODULE_LICENSE("GPL");
