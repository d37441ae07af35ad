// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of arm-smmu-v3-iopf.c: the SMMU, its device and the domain
 */
#include <kunit/device.h>
#include <linux/irq.h>
#include <linux/platform_device.h>
#include <linux/property.h>

#include "arm-smmu-v3-iopf-test.h"

static struct fake *fake_of_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct fake, domain);
}

/* ---- The domain: keeps the groups until the test answers ---- */

int smmu_fake_handler(struct iopf_group *group)
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

static int fake_attach(struct iommu_domain *domain, struct device *dev,
		       struct iommu_domain *old)
{
	return 0;
}

static int fake_set_pasid(struct iommu_domain *domain, struct device *dev, ioasid_t pasid,
			  struct iommu_domain *old)
{
	return 0;
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

void smmu_fake_request_irq(struct fake *f, struct arm_smmu_queue *q, irq_handler_t thread)
{
	int irq = irq_alloc_desc(NUMA_NO_NODE);

	KUNIT_ASSERT_GT(f->test, irq, 0);
	irq_set_chip_and_handler(irq, &dummy_irq_chip, handle_simple_irq);
	KUNIT_ASSERT_EQ(f->test, request_threaded_irq(irq, NULL, thread, IRQF_ONESHOT,
						      "fake-smmu", &f->smmu), 0);
	q->irq = irq;
}

void smmu_fake_free_irq(struct fake *f, struct arm_smmu_queue *q)
{
	free_irq(q->irq, &f->smmu);
	irq_free_desc(q->irq);
	q->irq = NO_IRQ;
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

void smmu_fake_insert_streams(struct fake *f)
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

void smmu_fake_remove_streams(struct fake *f)
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
	smmu_fake_insert_streams(f);

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
	f->domain.iopf_handler = smmu_fake_handler;
	KUNIT_ASSERT_EQ(test, iommu_attach_group_handle(&f->domain, f->dev->iommu_group,
							&f->rid), 0);
	KUNIT_ASSERT_EQ(test, iommu_attach_device_pasid(&f->domain, f->dev, PASID, &f->pasid), 0);
	f->attached = true;
}

int smmu_fake_init(struct kunit *test)
{
	struct fake *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, f);
	test->priv = f;
	f->test = test;
	spin_lock_init(&f->lock);
	INIT_LIST_HEAD(&f->groups);
	init_completion(&f->drained);
	/* Whatever is in a queue is reported, and not told to try again. */
	iopf_reserve = 1 << EVTQ_SHIFT;
	init_smmu(f);
	register_iommu(f);
	init_device(f);
	attach(f);
	return 0;
}

void smmu_fake_exit(struct kunit *test)
{
	struct fake *f = test->priv;

	iopf_reserve = 0;
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

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_IMPORT_NS("IOMMUFD_INTERNAL");
MODULE_DESCRIPTION("KUnit tests of I/O page faults with arm-smmu-v3");
MODULE_LICENSE("GPL");
