// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of arm-smmu-v3-iopf.c: raw queue entries in, exact commands out
 *
 * The SMMU is memory: queues that the test writes entries to and reads commands
 * from, and words that stand for the index registers. What lies between, the
 * fault core and the attachments to a RID and to a PASID, is real.
 */
#include <kunit/device.h>
#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/io-pgtable.h>
#include <linux/irq.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/property.h>
#include <linux/timer.h>

#include "arm-smmu-v3.h"
#include "../../iommu-priv.h"

#define EVTQ_SHIFT	7	/* more than a bottom half handles */
#define PRIQ_SHIFT	6
#define CMDQ_SHIFT	9
#define STREAMS		3
#define FIRST_SID	0x8000abc0
#define UNKNOWN_SID	0x1234
#define PASID		0x2a
#define STORM		100000
#define NO_IRQ		INT_MAX	/* a number that no interrupt has: the tests call the threads */

#define RETRY		1
#define ABORT		2

/* One stall or page request as the test means it; the raw words are made from it. */
struct request {
	u32 sid, ssid;
	bool ssv, write, exec, priv;
	bool last, none;	/* page requests: neither read nor write */
	u16 id;
	u64 addr;
};

struct fake {
	struct kunit *test;
	struct arm_smmu_device smmu;
	u32 evtq_regs[2], priq_regs[2], cmdq_regs[2];	/* PROD, CONS */
	unsigned int commands;				/* taken from the command queue */

	struct platform_device *pdev;
	struct device *dev;
	struct fwnode_handle *fwnode;
	bool registered;
	struct arm_smmu_master master;
	struct arm_smmu_stream streams[STREAMS];

	struct iommu_domain domain;
	bool attached;
	struct iommu_attach_handle rid, pasid;
	spinlock_t lock;		/* groups, queued */
	struct list_head groups;
	unsigned int queued;
	void (*on_group)(struct fake *f);
	struct iopf_answer answers[128];

	unsigned int functions;

	struct work_struct drain;
	struct completion drained;
	struct timer_list consume;	/* commands, so that there is room for others */
	u32 found_pending;		/* before that */
};

static struct fake *fake_of_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct fake, domain);
}

/* ---- The domain: keeps the groups until the test answers ---- */

static int fake_handler(struct iopf_group *group)
{
	struct fake *f = fake_of_domain(group->attach_handle->domain);

	spin_lock_bh(&f->lock);
	list_add_tail(&group->node, &f->groups);
	f->queued++;
	spin_unlock_bh(&f->lock);
	if (f->on_group)
		f->on_group(f);
	return 0;
}

static int fake_attach(struct iommu_domain *domain, struct device *dev)
{
	return 0;
}

static int fake_set_pasid(struct iommu_domain *domain, struct device *dev, ioasid_t pasid,
			  struct iommu_domain *old)
{
	return 0;
}

static void fake_remove_pasid(struct device *dev, ioasid_t pasid, struct iommu_domain *domain)
{
}

static const struct iommu_domain_ops fake_domain_ops = {
	.attach_dev = fake_attach,
	.set_dev_pasid = fake_set_pasid,
};

static struct iommu_domain fake_blocked = {
	.type = IOMMU_DOMAIN_BLOCKED,
	.ops = &fake_domain_ops,
};

static struct iommu_domain fake_identity = {
	.type = IOMMU_DOMAIN_IDENTITY,
	.ops = &fake_domain_ops,
};

static struct iommu_device *fake_probe(struct device *dev)
{
	struct fake *f = platform_get_drvdata(to_platform_device(dev));

	dev_iommu_priv_set(dev, &f->master);
	return &f->smmu.iommu;
}

static int fake_default_domain(struct device *dev)
{
	return IOMMU_DOMAIN_IDENTITY;
}

static const struct iommu_ops fake_ops = {
	.identity_domain = &fake_identity,
	.blocked_domain = &fake_blocked,
	.probe_device = fake_probe,
	.device_group = generic_device_group,
	.def_domain_type = fake_default_domain,
	.remove_dev_pasid = fake_remove_pasid,
	.page_response = arm_smmu_page_response,
	.page_response_batch = arm_smmu_page_response_batch,
};

/* ---- The SMMU ---- */

static void fake_queue(struct fake *f, struct arm_smmu_queue *q, unsigned int shift,
		       size_t dwords, u32 *regs)
{
	q->llq.max_n_shift = shift;
	q->ent_dwords = dwords;
	q->base = kunit_kcalloc(f->test, dwords << shift, sizeof(*q->base), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(f->test, q->base);
	q->prod_reg = (u32 __iomem *)&regs[0];
	q->cons_reg = (u32 __iomem *)&regs[1];
	q->irq = NO_IRQ;
}

static u32 pending(const struct arm_smmu_queue *q, const u32 *regs)
{
	return (READ_ONCE(regs[0]) - READ_ONCE(regs[1])) & ((2U << q->llq.max_n_shift) - 1);
}

static bool overflowed(const u32 *regs)
{
	return (regs[0] ^ regs[1]) & Q_OVERFLOW_FLAG;
}

/*
 * Write an entry as the SMMU does: false if the queue is full. A PRI queue then
 * is in overflow, and takes nothing until that is acknowledged.
 */
static bool push(struct arm_smmu_queue *q, u32 *regs, const u64 *words, bool loses)
{
	u32 mask = (2U << q->llq.max_n_shift) - 1;
	__le64 *slot = Q_ENT(q, regs[0]);
	size_t i;

	if (pending(q, regs) == 1U << q->llq.max_n_shift || (loses && overflowed(regs))) {
		if (loses && !overflowed(regs))
			regs[0] ^= Q_OVERFLOW_FLAG;
		return false;
	}
	for (i = 0; i < q->ent_dwords; i++)
		slot[i] = cpu_to_le64(words[i]);
	regs[0] = ((regs[0] + 1) & mask) | Q_OVF(regs[0]);
	return true;
}

static bool push_event(struct fake *f, const u64 *evt)
{
	return push(&f->smmu.evtq.q, f->evtq_regs, evt, false);
}

static bool push_stall(struct fake *f, const struct request *r)
{
	const u64 evt[EVTQ_ENT_DWORDS] = {
		EVT_ID_TRANSLATION_FAULT | (r->ssv ? BIT_ULL(11) : 0) | (u64)r->ssid << 12 |
			(u64)r->sid << 32,
		r->id | BIT_ULL(31) | (r->priv ? BIT_ULL(33) : 0) | (r->exec ? BIT_ULL(34) : 0) |
			(r->write ? 0 : BIT_ULL(35)),
		r->addr,
	};

	return push_event(f, evt);
}

static bool push_ppr(struct fake *f, const struct request *r)
{
	const u64 ppr[PRIQ_ENT_DWORDS] = {
		r->sid | (u64)r->ssid << 32 | (r->priv ? BIT_ULL(58) : 0) |
			(r->exec ? BIT_ULL(59) : 0) |
			(r->write || r->none ? 0 : BIT_ULL(60)) |
			(r->write ? BIT_ULL(61) : 0) | (r->last ? BIT_ULL(62) : 0) |
			(r->ssv ? BIT_ULL(63) : 0),
		r->addr | r->id,
	};

	return push(&f->smmu.priq.q, f->priq_regs, ppr, true);
}

static void run_evtq(struct fake *f)
{
	KUNIT_EXPECT_EQ(f->test, arm_smmu_evtq_thread(0, &f->smmu), IRQ_HANDLED);
	KUNIT_EXPECT_EQ(f->test, f->evtq_regs[0], f->evtq_regs[1]);
}

/* An interrupt that nothing raises, with the queue's thread. */
static void request_irq_of(struct fake *f, struct arm_smmu_queue *q, irq_handler_t thread)
{
	int irq = irq_alloc_desc(NUMA_NO_NODE);

	KUNIT_ASSERT_GT(f->test, irq, 0);
	irq_set_chip_and_handler(irq, &dummy_irq_chip, handle_simple_irq);
	KUNIT_ASSERT_EQ(f->test, request_threaded_irq(irq, NULL, thread, IRQF_ONESHOT,
						      "fake-smmu", &f->smmu), 0);
	q->irq = irq;
}

static void free_irq_of(struct fake *f, struct arm_smmu_queue *q)
{
	free_irq(q->irq, &f->smmu);
	irq_free_desc(q->irq);
	q->irq = NO_IRQ;
}

static void run_priq(struct fake *f)
{
	KUNIT_EXPECT_EQ(f->test, arm_smmu_priq_thread(0, &f->smmu), IRQ_HANDLED);
	KUNIT_EXPECT_EQ(f->test, f->priq_regs[0], f->priq_regs[1]);
}

/* Consume the oldest command; false if there is none. */
static bool take_command(struct fake *f, u64 *words)
{
	struct arm_smmu_queue *q = &f->smmu.cmdq.q;
	__le64 *slot = Q_ENT(q, f->cmdq_regs[1]);

	if (!pending(q, f->cmdq_regs))
		return false;
	words[0] = le64_to_cpu(slot[0]);
	words[1] = le64_to_cpu(slot[1]);
	f->cmdq_regs[1] = (f->cmdq_regs[1] + 1) & ((2U << CMDQ_SHIFT) - 1);
	f->commands++;
	return true;
}

static void expect_command(struct fake *f, u64 word0, u64 word1)
{
	u64 words[CMDQ_ENT_DWORDS] = {};

	KUNIT_ASSERT_TRUE(f->test, take_command(f, words));
	KUNIT_EXPECT_EQ(f->test, words[0], word0);
	KUNIT_EXPECT_EQ(f->test, words[1], word1);
}

static void expect_no_command(struct fake *f)
{
	u64 words[CMDQ_ENT_DWORDS];

	KUNIT_EXPECT_FALSE(f->test, take_command(f, words));
}

static void expect_resume(struct fake *f, u32 sid, u16 stag, u64 action)
{
	expect_command(f, 0x44 | action << 12 | (u64)sid << 32, stag);
}

static void expect_pri_resp(struct fake *f, u32 sid, bool ssv, u32 ssid, u16 index, u64 resp)
{
	expect_command(f, 0x41 | (ssv ? BIT_ULL(11) : 0) | (u64)ssid << 12 | (u64)sid << 32,
		       index | resp << 12);
}

/* ---- Groups ---- */

static struct iopf_group *take_group(struct fake *f)
{
	struct iopf_group *group;

	spin_lock_bh(&f->lock);
	group = list_first_entry_or_null(&f->groups, struct iopf_group, node);
	if (group)
		list_del_init(&group->node);
	spin_unlock_bh(&f->lock);
	return group;
}

static struct iopf_group *expect_group(struct fake *f, size_t requests)
{
	struct iopf_group *group = take_group(f);

	KUNIT_ASSERT_NOT_NULL(f->test, group);
	KUNIT_EXPECT_EQ(f->test, group->fault_count, requests);
	return group;
}

static void expect_no_group(struct fake *f)
{
	KUNIT_EXPECT_TRUE(f->test, list_empty(&f->groups));
}

static void answer(struct iopf_group *group, enum iommu_page_response_code code)
{
	iopf_group_response(group, code);
	iopf_free_group(group);
}

/* Answer all groups in one batch; returns how many there were. */
static unsigned int answer_all(struct fake *f, enum iommu_page_response_code code)
{
	struct iopf_group *group;
	LIST_HEAD(done);
	unsigned int n = 0;

	while (n < ARRAY_SIZE(f->answers) && (group = take_group(f))) {
		KUNIT_ASSERT_TRUE(f->test, iopf_group_claim(group));
		f->answers[n++] = (struct iopf_answer) { .group = group, .code = code };
		list_add_tail(&group->node, &done);
	}
	if (n)
		iopf_answer_groups(f->answers, n);
	iopf_free_groups(&done);
	return n;
}

/* ---- Set up ---- */

static struct arm_smmu_stream *find_parent(struct fake *f, u32 sid, struct rb_node ***link)
{
	struct arm_smmu_stream *parent = NULL;

	*link = &f->smmu.streams.rb_node;
	while (**link) {
		parent = rb_entry(**link, struct arm_smmu_stream, node);
		*link = sid < parent->id ? &(**link)->rb_left : &(**link)->rb_right;
	}
	return parent;
}

static void insert_streams(struct fake *f)
{
	struct arm_smmu_stream *parent;
	struct rb_node **link;
	int i;

	for (i = 0; i < STREAMS; i++) {
		f->streams[i].id = FIRST_SID + i;
		f->streams[i].master = &f->master;
		parent = find_parent(f, f->streams[i].id, &link);
		rb_link_node(&f->streams[i].node, parent ? &parent->node : NULL, link);
		rb_insert_color(&f->streams[i].node, &f->smmu.streams);
	}
	f->master.streams = f->streams;
	f->master.num_streams = STREAMS;
}

static void remove_streams(struct fake *f)
{
	int i;

	for (i = 0; i < STREAMS; i++)
		rb_erase(&f->streams[i].node, &f->smmu.streams);
}

static void init_smmu(struct fake *f)
{
	struct arm_smmu_device *smmu = &f->smmu;

	smmu->dev = kunit_device_register(f->test, "fake-smmu");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(f->test, smmu->dev);
	smmu->features = ARM_SMMU_FEAT_STALLS | ARM_SMMU_FEAT_PRI;
	mutex_init(&smmu->streams_mutex);
	spin_lock_init(&smmu->streams_lock);
	smmu->streams = RB_ROOT;
	fake_queue(f, &smmu->evtq.q, EVTQ_SHIFT, EVTQ_ENT_DWORDS, f->evtq_regs);
	fake_queue(f, &smmu->priq.q, PRIQ_SHIFT, PRIQ_ENT_DWORDS, f->priq_regs);
	fake_queue(f, &smmu->cmdq.q, CMDQ_SHIFT, CMDQ_ENT_DWORDS, f->cmdq_regs);
	smmu->cmdq.valid_map = kunit_kcalloc(f->test, BITS_TO_LONGS(1 << CMDQ_SHIFT),
					     sizeof(long), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(f->test, smmu->cmdq.valid_map);
	KUNIT_ASSERT_EQ(f->test, arm_smmu_iopf_init(smmu), 0);
}

/* So that the core finds fake_ops for the device, as it finds an SMMU's for others */
static void register_iommu(struct fake *f)
{
	f->fwnode = fwnode_create_software_node(NULL, NULL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(f->test, f->fwnode);
	device_set_node(f->smmu.dev, f->fwnode);
	KUNIT_ASSERT_EQ(f->test, iommu_device_sysfs_add(&f->smmu.iommu, f->smmu.dev, NULL,
							"fake-smmu"), 0);
	KUNIT_ASSERT_EQ(f->test, iommu_device_register(&f->smmu.iommu, &fake_ops, f->smmu.dev), 0);
	f->registered = true;
}

static void init_device(struct fake *f)
{
	struct kunit *test = f->test;

	f->pdev = platform_device_alloc("fake-master", PLATFORM_DEVID_AUTO);
	KUNIT_ASSERT_NOT_NULL(test, f->pdev);
	f->dev = &f->pdev->dev;
	f->master.dev = f->dev;
	f->master.smmu = &f->smmu;
	insert_streams(f);

	platform_set_drvdata(f->pdev, f);
	KUNIT_ASSERT_EQ(test, iommu_fwspec_init(f->dev, f->fwnode), 0);
	KUNIT_ASSERT_EQ(test, platform_device_add(f->pdev), 0);
	KUNIT_ASSERT_PTR_EQ(test, dev_iommu_priv_get(f->dev), &f->master);
	f->dev->iommu->max_pasids = 1 << 20;
}

static void attach(struct fake *f)
{
	struct kunit *test = f->test;

	f->domain.type = IOMMU_DOMAIN_UNMANAGED;
	f->domain.ops = &fake_domain_ops;
	f->domain.owner = &fake_ops;
	f->domain.iopf_handler = fake_handler;
	KUNIT_ASSERT_EQ(test, iommu_attach_group_handle(&f->domain, f->dev->iommu_group,
							&f->rid), 0);
	KUNIT_ASSERT_EQ(test, iommu_attach_device_pasid(&f->domain, f->dev, PASID, &f->pasid), 0);
	f->attached = true;
}

static int fake_init(struct kunit *test)
{
	struct fake *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, f);
	test->priv = f;
	f->test = test;
	spin_lock_init(&f->lock);
	INIT_LIST_HEAD(&f->groups);
	init_completion(&f->drained);
	init_smmu(f);
	register_iommu(f);
	init_device(f);
	attach(f);
	return 0;
}

/* A device whose faults are stalls */
static struct fake *stalling(struct kunit *test)
{
	struct fake *f = test->priv;

	f->master.stall_enabled = true;
	KUNIT_ASSERT_EQ(test, arm_smmu_iopf_enable(&f->master), 0);
	KUNIT_ASSERT_FALSE(test, f->master.iopf_pri);
	return f;
}

/* A device whose faults are page requests; its capability is not part of the test. */
static struct fake *requesting(struct kunit *test)
{
	struct fake *f = test->priv;

	f->master.iopf_pri = true;
	KUNIT_ASSERT_EQ(test, iopf_queue_add_device(f->smmu.priq.iopf, f->dev), 0);
	f->master.iopf_enabled = true;
	return f;
}

static void fake_exit(struct kunit *test)
{
	struct fake *f = test->priv;

	if (!f)
		return;
	if (f->master.iopf_enabled)
		iopf_queue_remove_device(f->master.iopf_pri ? f->smmu.priq.iopf :
					 f->smmu.evtq.iopf, f->dev);
	if (f->attached) {
		answer_all(f, IOMMU_PAGE_RESP_INVALID);
		iommu_detach_device_pasid(&f->domain, f->dev, PASID);
		iommu_detach_group_handle(&f->domain, f->dev->iommu_group);
		platform_device_unregister(f->pdev);
	}
	if (f->registered) {
		iommu_device_unregister(&f->smmu.iommu);
		iommu_device_sysfs_remove(&f->smmu.iommu);
		device_set_node(f->smmu.dev, NULL);
		fwnode_remove_software_node(f->fwnode);
	}
}

/* ---- Tests: fields ---- */

static void expect_fault(struct kunit *test, const struct iopf_group *group,
			 const struct request *r, u32 perm)
{
	const struct iommu_fault_page_request *prm = &group->last_fault.fault.prm;
	u32 flags = IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;

	if (r->ssv)
		flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
	KUNIT_EXPECT_EQ(test, group->last_fault.fault.type, IOMMU_FAULT_PAGE_REQ);
	KUNIT_EXPECT_EQ(test, prm->flags, flags);
	KUNIT_EXPECT_EQ(test, prm->pasid, r->ssv ? r->ssid : 0);
	KUNIT_EXPECT_EQ(test, prm->grpid, r->id | (r->sid - FIRST_SID) << 16);
	KUNIT_EXPECT_EQ(test, prm->perm, perm);
	KUNIT_EXPECT_EQ(test, prm->addr, r->addr);
}

static const struct {
	struct request r;
	u32 perm;
} accesses[] = {
	{ { .sid = FIRST_SID, .id = 0, .addr = 0 }, IOMMU_FAULT_PERM_READ },
	{ { .sid = FIRST_SID, .id = 0x1ff, .addr = ~0xfffULL, .write = true },
	  IOMMU_FAULT_PERM_WRITE },
	{ { .sid = FIRST_SID, .id = 1, .addr = 0x1000, .exec = true },
	  IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_EXEC },
	{ { .sid = FIRST_SID, .id = 2, .addr = 0x123456789000, .priv = true },
	  IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_PRIV },
	{ { .sid = FIRST_SID, .id = 3, .addr = 0x2000, .ssv = true, .ssid = PASID },
	  IOMMU_FAULT_PERM_READ },
	{ { .sid = FIRST_SID + 2, .id = 4, .addr = 0x3000, .ssv = true, .ssid = PASID,
	    .write = true, .priv = true }, IOMMU_FAULT_PERM_WRITE | IOMMU_FAULT_PERM_PRIV },
	/* without a PASID its field is unknown */
	{ { .sid = FIRST_SID, .id = 5, .addr = 0x4000, .ssid = 0xabcde }, IOMMU_FAULT_PERM_READ },
};

static void stall_fields(struct kunit *test)
{
	struct fake *f = stalling(test);
	struct iopf_group *group;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		KUNIT_ASSERT_TRUE(test, push_stall(f, &accesses[i].r));
		run_evtq(f);
		group = expect_group(f, 1);
		expect_fault(test, group, &accesses[i].r, accesses[i].perm);
		answer(group, IOMMU_PAGE_RESP_SUCCESS);
		expect_resume(f, accesses[i].r.sid, accesses[i].r.id, RETRY);
	}
}

/* What the access table, shared with page requests, cannot say */
static void stall_bits(struct kunit *test)
{
	const struct request r = {
		.sid = FIRST_SID, .id = 0xffff, .addr = 0xfedcba9876543210,
	};
	struct fake *f = stalling(test);
	struct iopf_group *group;
	u64 id;

	KUNIT_ASSERT_TRUE(test, push_stall(f, &r));
	run_evtq(f);
	group = expect_group(f, 1);
	expect_fault(test, group, &r, IOMMU_FAULT_PERM_READ);
	answer(group, IOMMU_PAGE_RESP_SUCCESS);
	expect_resume(f, FIRST_SID, 0xffff, RETRY);

	/* F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION; all reserved bits set */
	for (id = 0x10; id <= 0x13; id++) {
		const u64 evt[EVTQ_ENT_DWORDS] = {
			id | (u64)FIRST_SID << 32 | GENMASK_ULL(10, 8),
			7 | BIT_ULL(31) | BIT_ULL(35) | GENMASK_ULL(30, 16) | BIT_ULL(32),
			0x5000, ~0ULL,
		};

		KUNIT_ASSERT_TRUE(test, push_event(f, evt));
		run_evtq(f);
		group = expect_group(f, 1);
		KUNIT_EXPECT_EQ(test, group->last_fault.fault.prm.perm, IOMMU_FAULT_PERM_READ);
		answer(group, IOMMU_PAGE_RESP_INVALID);
		expect_resume(f, FIRST_SID, 7, ABORT);
	}
}

static void other_events(struct kunit *test)
{
	static const u64 events[][EVTQ_ENT_DWORDS] = {
		/* a translation fault that did not stall */
		{ 0x10 | (u64)FIRST_SID << 32, BIT_ULL(35) | 5, 0x1000 },
		/* C_BAD_STREAMID, F_UUT, E_PAGE_REQUEST, with the bit that is Stall elsewhere */
		{ 0x02 | (u64)UNKNOWN_SID << 32, BIT_ULL(31), 0 },
		{ 0x01 | (u64)FIRST_SID << 32, BIT_ULL(31), 0x1000 },
		{ 0x24 | (u64)FIRST_SID << 32, BIT_ULL(31), 0x1000 },
	};
	struct fake *f = stalling(test);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(events); i++)
		KUNIT_ASSERT_TRUE(test, push_event(f, events[i]));
	run_evtq(f);
	expect_no_group(f);
	expect_no_command(f);
}

static void ppr_fields(struct kunit *test)
{
	struct fake *f = requesting(test);
	struct iopf_group *group;
	struct request r;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		r = accesses[i].r;
		r.last = true;
		KUNIT_ASSERT_TRUE(test, push_ppr(f, &r));
		run_priq(f);
		group = expect_group(f, 1);
		expect_fault(test, group, &r, accesses[i].perm);
		answer(group, IOMMU_PAGE_RESP_SUCCESS);
		expect_pri_resp(f, r.sid, false, 0, r.id, 2);
	}
}

/* What the access table, shared with stalls, cannot say; all reserved bits set */
static void ppr_bits(struct kunit *test)
{
	const u64 ppr[PRIQ_ENT_DWORDS] = {
		FIRST_SID | GENMASK_ULL(57, 52) | BIT_ULL(60) | BIT_ULL(61) | BIT_ULL(62),
		0x7000 | GENMASK_ULL(11, 9) | 9,
	};
	struct fake *f = requesting(test);
	struct iopf_group *group;

	KUNIT_ASSERT_TRUE(test, push(&f->smmu.priq.q, f->priq_regs, ppr, true));
	run_priq(f);
	group = expect_group(f, 1);
	KUNIT_EXPECT_EQ(test, group->last_fault.fault.prm.perm,
			IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_WRITE);
	KUNIT_EXPECT_EQ(test, group->last_fault.fault.prm.addr, 0x7000);
	KUNIT_EXPECT_EQ(test, group->last_fault.fault.prm.grpid, 9);
	answer(group, IOMMU_PAGE_RESP_SUCCESS);
	expect_pri_resp(f, FIRST_SID, false, 0, 9, 2);
}

/* ---- Tests: answers ---- */

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
	struct fake *f = from_timer(f, timer, consume);
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
	del_timer_sync(&f->consume);
	KUNIT_EXPECT_EQ(test, f->found_pending, others);

	for (i = CMDQ_BATCH_ENTRIES; i < others; i++)
		expect_resume(f, UNKNOWN_SID, 0, ABORT);
	for (i = 0; i < CMDQ_BATCH_ENTRIES; i++)
		expect_resume(f, FIRST_SID, i, RETRY);
	expect_no_command(f);
}

/* ---- Tests: groups ---- */

static void groups(struct kunit *test)
{
	struct request a = { .sid = FIRST_SID, .id = 1, .addr = 0x1000 };
	struct request b = { .sid = FIRST_SID, .id = 1, .addr = 0x9000,
			     .ssv = true, .ssid = PASID };
	struct fake *f = requesting(test);
	struct iopf_group *group;

	/* one index, with and without a PASID: two groups, interleaved */
	push_ppr(f, &a);
	push_ppr(f, &b);
	a.addr = 0x2000;
	push_ppr(f, &a);
	run_priq(f);
	expect_no_group(f);
	b.last = true;
	push_ppr(f, &b);
	a.last = true;
	push_ppr(f, &a);
	run_priq(f);

	group = expect_group(f, 2);
	KUNIT_EXPECT_PTR_EQ(test, group->attach_handle, &f->pasid);
	answer(group, IOMMU_PAGE_RESP_SUCCESS);
	group = expect_group(f, 3);
	KUNIT_EXPECT_PTR_EQ(test, group->attach_handle, &f->rid);
	answer(group, IOMMU_PAGE_RESP_INVALID);
	expect_pri_resp(f, FIRST_SID, false, 0, 1, 2);
	expect_pri_resp(f, FIRST_SID, false, 0, 1, 1);
	expect_no_command(f);
}

static void stop_marker(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .last = true, .none = true,
			     .ssv = true, .ssid = PASID };
	struct fake *f = requesting(test);
	struct iopf_group *group;

	push_ppr(f, &r);
	run_priq(f);
	expect_no_group(f);
	expect_no_command(f);

	/* without a PASID it is a request, and has an answer */
	r.ssv = false;
	r.ssid = 0;
	push_ppr(f, &r);
	run_priq(f);
	group = expect_group(f, 1);
	KUNIT_EXPECT_EQ(test, group->last_fault.fault.prm.perm, 0);
	answer(group, IOMMU_PAGE_RESP_SUCCESS);
	expect_pri_resp(f, FIRST_SID, false, 0, 0, 2);
}

/* ---- Tests: who is not served ---- */

static void unknown_stream(struct kunit *test)
{
	struct request r = { .sid = UNKNOWN_SID, .id = 0x101, .addr = 0x1000 };
	struct fake *f = stalling(test);

	push_stall(f, &r);
	run_evtq(f);
	expect_resume(f, UNKNOWN_SID, 0x101, ABORT);

	push_ppr(f, &r);
	run_priq(f);
	expect_no_command(f);	/* not the last of its group: no answer */
	r.last = true;
	push_ppr(f, &r);
	r.ssv = true;
	r.ssid = 0xfffff;
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, UNKNOWN_SID, false, 0, 0x101, 1);
	expect_pri_resp(f, UNKNOWN_SID, true, 0xfffff, 0x101, 1);
	expect_no_group(f);
	expect_no_command(f);
}

static void vanished_master(struct kunit *test)
{
	const struct request r = { .sid = FIRST_SID, .id = 3 };
	struct fake *f = stalling(test);

	push_stall(f, &r);
	push_stall(f, &r);
	run_evtq(f);
	push_stall(f, &r);
	/* gone between the stall and the thread, with groups in the handler's hands */
	remove_streams(f);
	run_evtq(f);
	expect_resume(f, FIRST_SID, 3, ABORT);
	expect_no_command(f);
	arm_smmu_iopf_disable(&f->master);
	expect_resume(f, FIRST_SID, 3, ABORT);
	expect_resume(f, FIRST_SID, 3, ABORT);
	expect_no_command(f);

	/* the handler's late answers do nothing */
	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	expect_no_command(f);
	insert_streams(f);
}

/* The same of a function, with one group that is not complete */
static void vanished_function(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .id = 3, .last = true };
	struct fake *f = requesting(test);

	push_ppr(f, &r);
	r.id = 4;
	r.last = false;
	push_ppr(f, &r);
	run_priq(f);
	push_ppr(f, &r);
	r.last = true;
	push_ppr(f, &r);
	remove_streams(f);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, false, 0, 4, 1);
	expect_no_command(f);
	iopf_queue_remove_device(f->smmu.priq.iopf, f->dev);
	f->master.iopf_enabled = false;
	expect_pri_resp(f, FIRST_SID, false, 0, 3, 1);
	expect_no_command(f);

	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	expect_no_group(f);
	expect_no_command(f);
	insert_streams(f);
}

static void not_enabled(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .id = 3, .last = true };
	struct fake *f = test->priv;

	push_stall(f, &r);
	run_evtq(f);
	expect_resume(f, FIRST_SID, 3, ABORT);
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, false, 0, 3, 1);

	/* the PASID as the function wants it, although nobody asked it to request */
	r.ssv = true;
	r.ssid = PASID;
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, false, 0, 3, 1);
	f->master.prg_resp_pasid = true;
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, true, PASID, 3, 1);
	r.ssv = false;

	/* a device that stalls is not asked to request pages, and the reverse */
	stalling(test);
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, false, 0, 3, 1);
	arm_smmu_iopf_disable(&f->master);
	requesting(test);
	push_stall(f, &r);
	run_evtq(f);
	expect_resume(f, FIRST_SID, 3, ABORT);
	expect_no_group(f);
	expect_no_command(f);
}

static void no_handler(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .id = 3, .ssv = true, .ssid = PASID + 1 };
	struct fake *f = stalling(test);

	push_stall(f, &r);
	run_evtq(f);
	expect_resume(f, FIRST_SID, 3, ABORT);
	arm_smmu_iopf_disable(&f->master);

	requesting(test);
	r.last = true;
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, false, 0, 3, 1);
	expect_no_command(f);
}

/* ---- Tests: queues ---- */

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

	request_irq_of(f, &f->smmu.priq.q, arm_smmu_priq_thread);
	push_ppr(f, &r);
	arm_smmu_priq_aborted(&f->smmu);
	synchronize_irq(f->smmu.priq.q.irq);
	free_irq_of(f, &f->smmu.priq.q);
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

static void interrupt(struct fake *f)
{
	KUNIT_EXPECT_EQ(f->test, arm_smmu_evtq_irq(0, &f->smmu), IRQ_HANDLED);
	flush_work(&f->smmu.evtq.q.work);
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

/* Let the pool of the device grow. */
static void grow(struct fake *f, unsigned int n)
{
	push_stalls(f, n);
	run_evtq(f);
	expect_stalls(f, n);
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
	flush_work(&f->smmu.priq.q.work);
	KUNIT_EXPECT_TRUE(test, in_softirq);
	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	expect_pri_resp(f, FIRST_SID, false, 0, 1, 2);
}

#define BUDGET 64

/* What is beyond is for the thread, and so is every interrupt until it has begun. */
static void budget(struct kunit *test)
{
	struct fake *f = stalling(test);

	grow(f, BUDGET + 1);
	push_stalls(f, BUDGET);
	interrupt(f);
	expect_stalls(f, BUDGET);
	KUNIT_EXPECT_FALSE(test, f->smmu.evtq.q.behind);

	push_stalls(f, BUDGET + 1);
	interrupt(f);
	KUNIT_EXPECT_EQ(test, f->queued, BUDGET);
	KUNIT_EXPECT_EQ(test, pending(&f->smmu.evtq.q, f->evtq_regs), 1);
	KUNIT_EXPECT_EQ(test, arm_smmu_evtq_irq(0, &f->smmu), IRQ_WAKE_THREAD);
	KUNIT_EXPECT_FALSE(test, work_busy(&f->smmu.evtq.q.work));
	run_evtq(f);
	expect_stalls(f, BUDGET + 1);

	push_stalls(f, 1);
	interrupt(f);
	expect_stalls(f, 1);
}

static irqreturn_t interrupted;

static void interrupt_amid(struct fake *f)
{
	interrupted = arm_smmu_evtq_irq(0, &f->smmu);
}

/* While the thread runs there is no bottom half: it is for the thread to look again. */
static void interrupt_of_thread(struct kunit *test)
{
	struct fake *f = stalling(test);

	f->on_group = interrupt_amid;
	push_stalls(f, 1);
	run_evtq(f);
	KUNIT_EXPECT_EQ(test, interrupted, IRQ_WAKE_THREAD);
	KUNIT_EXPECT_FALSE(test, work_busy(&f->smmu.evtq.q.work));
	f->on_group = NULL;
	expect_stalls(f, 1);
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
	flush_work(&f->smmu.priq.q.work);
	KUNIT_EXPECT_EQ(test, f->queued, 0);
	KUNIT_EXPECT_TRUE(test, overflowed(f->priq_regs));
	run_priq(f);
	KUNIT_EXPECT_EQ(test, f->queued, n);
	KUNIT_EXPECT_EQ(test, answer_all(f, IOMMU_PAGE_RESP_SUCCESS), n);
}

/* ---- Tests: enabling, draining ---- */

static void enable(struct kunit *test)
{
	const struct request r = { .sid = FIRST_SID, .id = 3 };
	struct fake *f = test->priv;

	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&f->master), -EOPNOTSUPP);
	f->master.stall_enabled = true;
	f->smmu.evtq.q.irq = 0;
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&f->master), -EOPNOTSUPP);
	f->smmu.evtq.q.irq = NO_IRQ;
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&f->master), 0);
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&f->master), -EBUSY);

	push_stall(f, &r);
	run_evtq(f);
	arm_smmu_iopf_disable(&f->master);
	expect_resume(f, FIRST_SID, 3, ABORT);
	KUNIT_EXPECT_FALSE(test, f->master.iopf_enabled);
	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	expect_no_command(f);
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&f->master), 0);
}

static void drain_work(struct work_struct *work)
{
	struct fake *f = container_of(work, struct fake, drain);

	arm_smmu_iopf_drain(&f->master);
	complete(&f->drained);
}

/* Draining waits for the thread, and only for what was in the queue by then. */
static void drain(struct kunit *test)
{
	struct fake *f = stalling(test);
	struct request r = { .sid = FIRST_SID };
	unsigned int round;

	INIT_WORK_ONSTACK(&f->drain, drain_work);
	/* until the indices have wrapped */
	for (round = 0; round < 40; round++) {
		arm_smmu_iopf_drain(&f->master);
		for (r.id = 0; r.id < 10; r.id++)
			push_stall(f, &r);
		reinit_completion(&f->drained);
		schedule_work(&f->drain);
		fsleep(1000);
		KUNIT_EXPECT_FALSE(test, completion_done(&f->drained));
		run_evtq(f);
		wait_for_completion(&f->drained);
		KUNIT_EXPECT_EQ(test, answer_all(f, IOMMU_PAGE_RESP_SUCCESS), 10);
		f->cmdq_regs[1] = f->cmdq_regs[0];
	}
	flush_work(&f->drain);
	destroy_work_on_stack(&f->drain);
}

/* The message that is the interrupt got lost: the entries are handled all the same. */
static void lost_interrupt(struct kunit *test)
{
	const struct request r = { .sid = FIRST_SID };
	struct fake *f = stalling(test);

	request_irq_of(f, &f->smmu.evtq.q, arm_smmu_evtq_thread);
	KUNIT_EXPECT_TRUE(test, push_stall(f, &r));
	INIT_WORK_ONSTACK(&f->drain, drain_work);
	schedule_work(&f->drain);
	KUNIT_EXPECT_GT(test, wait_for_completion_timeout(&f->drained, 10 * HZ), 0);
	free_irq_of(f, &f->smmu.evtq.q);
	run_evtq(f);
	flush_work(&f->drain);
	destroy_work_on_stack(&f->drain);
	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	expect_resume(f, FIRST_SID, 0, RETRY);
}

/* ---- Tests: the PRI capability ---- */

#define ATS_CAP 0x100
#define PRI_CAP 0x120

/* A PCI function whose PRI capability is these fields */
struct function {
	struct pci_bus bus;
	struct pci_dev pdev;
	char name[24];
	struct iommu_fwspec fwspec;
	struct dev_iommu iommu;
	struct arm_smmu_stream stream;
	struct arm_smmu_master master;
	u16 status;
	u32 capacity;
	unsigned int busy_reads;	/* of the status, before it is "stopped" */
	bool reset_fails;		/* it is busy again */
	struct { int where; u32 value; } writes[8];
	unsigned int n_writes;
};

static int function_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	struct function *fn = container_of(bus, struct function, bus);

	*value = 0;
	if (where == PRI_CAP + PCI_PRI_MAX_REQ)
		*value = fn->capacity;
	if (where != PRI_CAP + PCI_PRI_STATUS)
		return PCIBIOS_SUCCESSFUL;
	*value = fn->status;
	if (fn->busy_reads && !--fn->busy_reads)
		fn->status |= PCI_PRI_STATUS_STOPPED;
	return PCIBIOS_SUCCESSFUL;
}

static int function_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	struct function *fn = container_of(bus, struct function, bus);

	if (fn->n_writes < ARRAY_SIZE(fn->writes)) {
		fn->writes[fn->n_writes].where = where;
		fn->writes[fn->n_writes].value = value;
	}
	fn->n_writes++;
	if (fn->reset_fails)
		fn->status &= ~PCI_PRI_STATUS_STOPPED;
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops function_ops = {
	.read = function_read,
	.write = function_write,
};

/* A function that can request pages, and is at rest */
static struct function *new_function(struct fake *f, u32 capacity)
{
	struct function *fn = kunit_kzalloc(f->test, sizeof(*fn), GFP_KERNEL);
	struct device *dev;

	KUNIT_ASSERT_NOT_NULL(f->test, fn);
	f->smmu.features |= ARM_SMMU_FEAT_ATS;
	fn->capacity = capacity;
	fn->status = PCI_PRI_STATUS_STOPPED;
	fn->bus.ops = &function_ops;
	fn->pdev.bus = &fn->bus;
	fn->pdev.ats_cap = ATS_CAP;
	fn->pdev.pri_cap = PRI_CAP;
	fn->fwspec.flags = IOMMU_FWSPEC_PCI_RC_ATS;
	mutex_init(&fn->iommu.lock);
	fn->iommu.fwspec = &fn->fwspec;
	fn->iommu.iommu_dev = &f->smmu.iommu;
	fn->iommu.priv = &fn->master;

	dev = &fn->pdev.dev;
	device_initialize(dev);
	snprintf(fn->name, sizeof(fn->name), "fake-function.%u", f->functions++);
	dev->init_name = fn->name;
	dev->bus = &pci_bus_type;
	dev->iommu = &fn->iommu;

	fn->master.smmu = &f->smmu;
	fn->master.dev = dev;
	fn->master.streams = &fn->stream;
	fn->master.num_streams = 1;
	return fn;
}

static void expect_write(struct kunit *test, struct function *fn, unsigned int n, int reg,
			 u32 value)
{
	KUNIT_ASSERT_LT(test, n, fn->n_writes);
	KUNIT_EXPECT_EQ(test, fn->writes[n].where, PRI_CAP + reg);
	KUNIT_EXPECT_EQ(test, fn->writes[n].value, value);
}

static void pri_enable(struct kunit *test)
{
	struct fake *f = test->priv;
	struct function *fn = new_function(f, 16);

	/* while ATS is off, PRI is off */
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&fn->master), 0);
	KUNIT_EXPECT_TRUE(test, fn->master.iopf_pri);
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&fn->master), -EBUSY);
	arm_smmu_iopf_disable(&fn->master);
	KUNIT_EXPECT_EQ(test, fn->n_writes, 0);

	/* a device that could stall as well requests pages */
	fn->master.stall_enabled = true;
	fn->master.ats_enabled = true;
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&fn->master), 0);
	KUNIT_EXPECT_TRUE(test, fn->master.iopf_pri);
	expect_write(test, fn, 0, PCI_PRI_CTRL, PCI_PRI_CTRL_RESET);
	expect_write(test, fn, 1, PCI_PRI_ALLOC_REQ, 16);
	expect_write(test, fn, 2, PCI_PRI_CTRL, PCI_PRI_CTRL_ENABLE);
	arm_smmu_iopf_disable(&fn->master);
	expect_write(test, fn, 3, PCI_PRI_CTRL, 0);
	KUNIT_EXPECT_EQ(test, fn->n_writes, 4);
	KUNIT_EXPECT_FALSE(test, fn->master.iopf_enabled);
}

static void expect_refused(struct kunit *test, struct function *fn)
{
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&fn->master), -EOPNOTSUPP);
	KUNIT_EXPECT_FALSE(test, fn->master.iopf_enabled);
}

/* What it takes to request pages; without, a device that cannot stall is refused. */
static void pri_probe(struct kunit *test)
{
	struct fake *f = test->priv;
	struct function *fn = new_function(f, 16);
	struct arm_smmu_master *master = &fn->master;
	struct iopf_queue *queue = f->smmu.priq.iopf;

	f->smmu.features &= ~ARM_SMMU_FEAT_ATS;
	expect_refused(test, fn);
	f->smmu.features |= ARM_SMMU_FEAT_ATS;
	f->smmu.priq.iopf = NULL;	/* no ARM_SMMU_FEAT_PRI */
	expect_refused(test, fn);
	f->smmu.priq.iopf = queue;
	f->smmu.priq.q.irq = 0;
	expect_refused(test, fn);
	f->smmu.priq.q.irq = NO_IRQ;
	fn->fwspec.flags = 0;
	expect_refused(test, fn);
	fn->fwspec.flags = IOMMU_FWSPEC_PCI_RC_ATS;
	fn->pdev.ats_cap = 0;
	expect_refused(test, fn);
	fn->pdev.ats_cap = ATS_CAP;
	fn->pdev.pri_cap = 0;
	expect_refused(test, fn);
	fn->pdev.pri_cap = PRI_CAP;
	KUNIT_EXPECT_EQ(test, fn->n_writes, 0);
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(master), 0);
	arm_smmu_iopf_disable(master);

	arm_smmu_pri_probe(master);
	KUNIT_EXPECT_FALSE(test, master->prg_resp_pasid);
	fn->pdev.pasid_required = 1;
	arm_smmu_pri_probe(master);
	KUNIT_EXPECT_TRUE(test, master->prg_resp_pasid);
}

/* All that functions may have outstanding fits into the queue. */
static void pri_credits(struct kunit *test)
{
	static const struct { u32 capacity, credits; } shares[] = {
		{ 8, 8 }, { 1000, 28 }, { 1000, 14 }, { 5, 5 }, { 1000, 4 }, { 1000, 2 },
		{ 1000, 1 }, { 1000, 1 },
	};
	struct function *fn[ARRAY_SIZE(shares) + 1];
	struct fake *f = test->priv;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(shares); i++) {
		fn[i] = new_function(f, shares[i].capacity);
		fn[i]->master.ats_enabled = true;
		KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&fn[i]->master), 0);
		expect_write(test, fn[i], 1, PCI_PRI_ALLOC_REQ, shares[i].credits);
	}
	fn[i] = new_function(f, 1000);
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&fn[i]->master), -ENOSPC);
	KUNIT_EXPECT_EQ(test, f->smmu.priq.credits, 63);
	KUNIT_EXPECT_FALSE(test, fn[i]->master.iopf_enabled);

	arm_smmu_iopf_disable(&fn[1]->master);
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(&fn[i]->master), 0);
	KUNIT_EXPECT_EQ(test, fn[i]->master.pri_credits, 14);
	for (i = 0; i < ARRAY_SIZE(fn); i++)
		arm_smmu_iopf_disable(&fn[i]->master);
	KUNIT_EXPECT_EQ(test, f->smmu.priq.credits, 0);
}

/* A function that waits for answers to what it requested before */
static void pri_outstanding(struct kunit *test)
{
	struct fake *f = test->priv;
	struct function *fn = new_function(f, 16);
	struct arm_smmu_master *master = &fn->master;

	fn->status = 0;
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(master), -EBUSY);
	fn->busy_reads = 3;
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(master), 0);
	KUNIT_EXPECT_EQ(test, fn->busy_reads, 0);

	/* switching ATS, and with it PRI, on is refused; all else goes */
	fn->status = 0;
	KUNIT_EXPECT_FALSE(test, arm_smmu_pri_ready(master, true));
	KUNIT_EXPECT_TRUE(test, arm_smmu_pri_ready(master, false));
	master->ats_enabled = true;
	KUNIT_EXPECT_TRUE(test, arm_smmu_pri_ready(master, true));
	master->ats_enabled = false;
	fn->busy_reads = 3;
	KUNIT_EXPECT_TRUE(test, arm_smmu_pri_ready(master, true));
	arm_smmu_iopf_disable(master);
	fn->status = 0;
	KUNIT_EXPECT_TRUE(test, arm_smmu_pri_ready(master, true));

	/* PRI does not go on: nothing is left of the attempt */
	fn->status = PCI_PRI_STATUS_STOPPED;
	fn->reset_fails = true;
	master->ats_enabled = true;
	KUNIT_EXPECT_EQ(test, arm_smmu_iopf_enable(master), -EBUSY);
	KUNIT_EXPECT_FALSE(test, master->iopf_enabled);
	KUNIT_EXPECT_EQ(test, f->smmu.priq.credits, 0);
	KUNIT_EXPECT_EQ(test, fn->n_writes, 1);
}

/* ---- Tests: tables ---- */

/* What the context descriptor of stage 1 says, and the STE of stage 2 alike */
static bool stalls(struct kunit *test, u32 features, bool can_stall, bool handled, bool pri)
{
	struct arm_smmu_device smmu = { .features = features };
	struct arm_smmu_master master = {
		.smmu = &smmu, .stall_enabled = can_stall, .iopf_pri = pri,
	};
	struct io_pgtable table = {};
	struct arm_smmu_domain domain = { .pgtbl_ops = &table.ops };
	struct arm_smmu_ste ste;
	struct arm_smmu_cd cd;

	if (handled)
		domain.domain.iopf_handler = fake_handler;
	arm_smmu_make_s1_cd(&cd, &master, &domain);
	KUNIT_EXPECT_TRUE(test, cd.data[0] & cpu_to_le64(CTXDESC_CD_0_R));
	arm_smmu_make_s2_domain_ste(&ste, &master, &domain, false);
	KUNIT_EXPECT_TRUE(test, ste.data[2] & cpu_to_le64(STRTAB_STE_2_S2R));
	KUNIT_EXPECT_EQ(test, !(ste.data[2] & cpu_to_le64(STRTAB_STE_2_S2S)),
			!(cd.data[0] & cpu_to_le64(CTXDESC_CD_0_S)));
	return cd.data[0] & cpu_to_le64(CTXDESC_CD_0_S);
}

static void stall_bit(struct kunit *test)
{
	u32 force = ARM_SMMU_FEAT_STALLS | ARM_SMMU_FEAT_STALL_FORCE;

	KUNIT_EXPECT_TRUE(test, stalls(test, ARM_SMMU_FEAT_STALLS, true, true, false));
	KUNIT_EXPECT_FALSE(test, stalls(test, ARM_SMMU_FEAT_STALLS, true, false, false));
	KUNIT_EXPECT_FALSE(test, stalls(test, ARM_SMMU_FEAT_STALLS, true, true, true));
	KUNIT_EXPECT_FALSE(test, stalls(test, ARM_SMMU_FEAT_STALLS, false, true, false));
	KUNIT_EXPECT_FALSE(test, stalls(test, 0, false, true, false));
	KUNIT_EXPECT_TRUE(test, stalls(test, force, true, true, false));
	KUNIT_EXPECT_TRUE(test, stalls(test, force, true, false, false));
}

static void ste_ppar_bit(struct kunit *test)
{
	struct arm_smmu_device smmu = { .features = ARM_SMMU_FEAT_PRI };
	struct arm_smmu_master master = { .smmu = &smmu };
	__le64 used[STRTAB_STE_DWORDS] = {};
	struct arm_smmu_ste ste;

	arm_smmu_make_cdtable_ste(&ste, &master, true, STRTAB_STE_1_S1DSS_SSID0);
	KUNIT_EXPECT_FALSE(test, ste.data[1] & cpu_to_le64(BIT_ULL(18)));
	master.prg_resp_pasid = true;
	arm_smmu_make_cdtable_ste(&ste, &master, true, STRTAB_STE_1_S1DSS_SSID0);
	KUNIT_EXPECT_TRUE(test, ste.data[1] & cpu_to_le64(BIT_ULL(18)));
	arm_smmu_get_ste_used(ste.data, used);
	KUNIT_EXPECT_TRUE(test, used[1] & cpu_to_le64(BIT_ULL(18)));
}

static struct kunit_case arm_smmu_v3_iopf_cases[] = {
	KUNIT_CASE(stall_fields),
	KUNIT_CASE(stall_bits),
	KUNIT_CASE(other_events),
	KUNIT_CASE(ppr_fields),
	KUNIT_CASE(ppr_bits),
	KUNIT_CASE(stall_answers),
	KUNIT_CASE(pri_answers),
	KUNIT_CASE(several_streams),
	KUNIT_CASE(batched_answers),
	KUNIT_CASE(full_command_queue),
	KUNIT_CASE(groups),
	KUNIT_CASE(stop_marker),
	KUNIT_CASE(unknown_stream),
	KUNIT_CASE(vanished_master),
	KUNIT_CASE(vanished_function),
	KUNIT_CASE(not_enabled),
	KUNIT_CASE(no_handler),
	KUNIT_CASE(wrap_around),
	KUNIT_CASE(event_overflow),
	KUNIT_CASE(pri_overflow),
	KUNIT_CASE(pri_aborted),
	KUNIT_CASE_SLOW(stall_storm),
	KUNIT_CASE_SLOW(pri_storm),
	KUNIT_CASE(bottom_half),
	KUNIT_CASE(budget),
	KUNIT_CASE(interrupt_of_thread),
	KUNIT_CASE(overflow_is_left),
	KUNIT_CASE(enable),
	KUNIT_CASE(drain),
	KUNIT_CASE(lost_interrupt),
	KUNIT_CASE(pri_enable),
	KUNIT_CASE(pri_probe),
	KUNIT_CASE(pri_credits),
	KUNIT_CASE(pri_outstanding),
	KUNIT_CASE(stall_bit),
	KUNIT_CASE(ste_ppar_bit),
	{}
};

static struct kunit_suite arm_smmu_v3_iopf_suite = {
	.name = "arm-smmu-v3-iopf",
	.init = fake_init,
	.exit = fake_exit,
	.test_cases = arm_smmu_v3_iopf_cases,
};

kunit_test_suites(&arm_smmu_v3_iopf_suite);

MODULE_IMPORT_NS(EXPORTED_FOR_KUNIT_TESTING);
MODULE_IMPORT_NS(IOMMUFD_INTERNAL);
MODULE_DESCRIPTION("KUnit tests of I/O page faults with arm-smmu-v3");
MODULE_LICENSE("GPL");
