// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the page request queue's start and sleep, and of a device's capability
 */
#include <linux/pci-ats.h>

#include "prq-test.h"
#include "../../pci/pci.h"

/* Scalable mode, in the Extended Capability Register (11.4.3) */
#define ECAP_SMTS	BIT_ULL(43)

/* Page Request Enable of a scalable-mode context entry (9.4) */
#define CONTEXT_PRE	BIT_ULL(4)

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
	KUNIT_EXPECT_EQ(test, 0, fake->kicks);
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

/* ---- a device's capability ---- */

/*
 * A device with PRI at PRI_CAP, and ATS at ATS_CAP. It has stopped when its status was
 * read @busy times.
 */
#define PRI_CAP		0x100
#define ATS_CAP		0x200

struct fake_pci {
	struct pci_dev pdev;
	struct pci_bus bus;
	struct dev_iommu iommu;
	struct device_domain_info info;
	u32 control, ats;
	unsigned int busy, resets, early;
	/* not even a reset makes it stop */
	bool stuck;
};

static int config_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	struct fake_pci *pci = container_of(bus, struct fake_pci, bus);

	*value = where == PRI_CAP + PCI_PRI_CTRL ? pci->control :
		 where == ATS_CAP + PCI_ATS_CTRL ? pci->ats :
		 where == ATS_CAP + PCI_ATS_CAP ? PCI_ATS_CAP_PAGE_ALIGNED :
		 where == PRI_CAP + PCI_PRI_STATUS && !pci->busy ? PCI_PRI_STATUS_STOPPED : 0;
	if (where == PRI_CAP + PCI_PRI_STATUS && pci->busy)
		pci->busy--;
	return 0;
}

static int config_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	struct fake_pci *pci = container_of(bus, struct fake_pci, bus);

	if (where == ATS_CAP + PCI_ATS_CTRL)
		pci->ats = value;
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

/* The driver is told that the device is there. */
static bool enable(struct fake_pci *pci)
{
	intel_iommu_ops.probe_finalize(&pci->pdev.dev);
	return pci->info.pri_enabled;
}

static void enable_and_disable(struct kunit *test, struct fake_pci *pci)
{
	KUNIT_EXPECT_TRUE(test, enable(pci));
	KUNIT_EXPECT_EQ(test, PCI_PRI_CTRL_ENABLE, pci->control);
	pci_disable_pri(&pci->pdev);
	pci->info.pri_enabled = 0;
	KUNIT_EXPECT_EQ(test, 0, pci->control);
}

/*
 * A device that uses PASIDs, but wants none in its answers, could not tell whose
 * answer it got: its page requests stay off.
 */
static void prq_test_enable(struct kunit *test)
{
	struct fake_pci *pci = pci_init(test, test->priv);

	KUNIT_EXPECT_FALSE(test, enable(pci));
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
	KUNIT_EXPECT_FALSE(test, enable(pci));
	KUNIT_EXPECT_EQ(test, 0, pci->early);
}

/* What follows the attach of a default domain, and what of it is for the device's TLB */
static void finalize(struct kunit *test, struct fake_pci *pci, unsigned int tags)
{
	struct dmar_domain *domain = pci->info.domain;
	struct device *dev = &pci->pdev.dev;

	intel_iommu_ops.probe_finalize(dev);
	KUNIT_EXPECT_EQ(test, tags ? PCI_ATS_CTRL_ENABLE : 0, pci->ats & PCI_ATS_CTRL_ENABLE);
	KUNIT_EXPECT_EQ(test, !!tags, !!pci->info.ats_enabled);
	KUNIT_EXPECT_EQ(test, tags, list_count_nodes(&domain->cache_tags));
}

/*
 * ATS goes on when the default domain is attached, not before, and unmaps of that domain
 * reach the device from then on. Without scalable mode it goes on with the attach itself.
 */
static void prq_test_ats_after_attach(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_pci *pci = pci_init(test, fake);
	struct dmar_domain *domain = kunit_kzalloc(test, sizeof(*domain), GFP_KERNEL);
	struct iommu_domain_info here = { .iommu = &fake->iommu, .did = 5 };
	struct cache_tag *tag;
	u64 ecap = fake->iommu.ecap;

	KUNIT_ASSERT_NOT_NULL(test, domain);
	spin_lock_init(&domain->cache_lock);
	INIT_LIST_HEAD(&domain->cache_tags);
	xa_init(&domain->iommu_array);
	KUNIT_ASSERT_EQ(test, 0, xa_err(xa_store(&domain->iommu_array, fake->iommu.seq_id, &here,
						 GFP_KERNEL)));
	pci->pdev.ats_cap = ATS_CAP;
	pci->info.ats_supported = 1;
	pci->info.ats_enabled = 0;
	pci->info.domain = domain;

	fake->iommu.ecap = 0;
	finalize(test, pci, 0);
	fake->iommu.ecap = ECAP_SMTS;
	finalize(test, pci, 1);
	fake->iommu.ecap = ecap;

	tag = list_first_entry_or_null(&domain->cache_tags, struct cache_tag, node);
	KUNIT_ASSERT_NOT_NULL(test, tag);
	KUNIT_EXPECT_EQ(test, CACHE_TAG_DEVTLB, tag->type);
	KUNIT_EXPECT_EQ(test, 5, tag->domain_id);
	KUNIT_EXPECT_PTR_EQ(test, &pci->pdev.dev, tag->dev);
	kfree(tag);
	xa_destroy(&domain->iommu_array);
}

static void expect_ats(struct kunit *test, struct fake_pci *pci, bool on, bool mute)
{
	KUNIT_EXPECT_EQ(test, on, !!(pci->ats & PCI_ATS_CTRL_ENABLE));
	KUNIT_EXPECT_EQ(test, mute, READ_ONCE(pci->info.mute));
}

/*
 * Attached and detached while another task resets the function: it is sent nothing, and
 * has its ATS off, until that task restores it as it is to be then.
 */
static void prq_test_attach_amid_reset(struct kunit *test)
{
	struct fake_pci *pci = pci_init(test, test->priv);
	struct pci_dev *pdev = &pci->pdev;

	pdev->ats_cap = ATS_CAP;
	pci_pause_ats(pdev);
	expect_ats(test, pci, false, true);
	KUNIT_EXPECT_EQ(test, 0, pci_enable_ats(pdev, PAGE_SHIFT));
	expect_ats(test, pci, false, true);
	pci_restore_ats_state(pdev);
	expect_ats(test, pci, true, false);

	pci_pause_ats(pdev);
	pci_pause_ats(pdev);
	expect_ats(test, pci, false, true);
	pci_disable_ats(pdev);
	KUNIT_EXPECT_EQ(test, 0, pci_enable_ats(pdev, PAGE_SHIFT));
	pci_disable_ats(pdev);
	pci_restore_ats_state(pdev);
	/* as long as its ATS is off it is sent nothing either */
	expect_ats(test, pci, false, true);
	KUNIT_EXPECT_EQ(test, 0, pci_enable_ats(pdev, PAGE_SHIFT));
	expect_ats(test, pci, true, false);
}

/* The same in D3hot, which the function leaves with its state. */
static void prq_test_attach_in_d3(struct kunit *test)
{
	struct fake_pci *pci = pci_init(test, test->priv);
	struct pci_dev *pdev = &pci->pdev;

	pdev->ats_cap = ATS_CAP;
	pci_pause_ats(pdev);
	KUNIT_EXPECT_EQ(test, 0, pci_enable_ats(pdev, PAGE_SHIFT));
	KUNIT_EXPECT_EQ(test, 0, pci_enable_pri(pdev, PRQ_DEPTH));
	expect_ats(test, pci, false, true);
	pci_resume_ats(pdev);
	expect_ats(test, pci, true, false);
	KUNIT_EXPECT_EQ(test, PCI_PRI_CTRL_ENABLE, pci->control);

	pci_pause_ats(pdev);
	expect_ats(test, pci, false, true);
	KUNIT_EXPECT_EQ(test, 0, pci->control);
	pci_resume_ats(pdev);
	expect_ats(test, pci, true, false);
	KUNIT_EXPECT_EQ(test, PCI_PRI_CTRL_ENABLE, pci->control);
	KUNIT_EXPECT_EQ(test, 0, pci->early);

	pci_pause_ats(pdev);
	pci_disable_pri(pdev);
	pci_resume_ats(pdev);
	KUNIT_EXPECT_EQ(test, 0, pci->control);
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

static struct kunit_case prq_test_setup_cases[] = {
	KUNIT_CASE(prq_test_start),
	KUNIT_CASE(prq_test_sleep),
	KUNIT_CASE(prq_test_sleep_without_queue),
	KUNIT_CASE(prq_test_enable),
	KUNIT_CASE(prq_test_enable_waits),
	KUNIT_CASE(prq_test_ats_after_attach),
	KUNIT_CASE(prq_test_attach_amid_reset),
	KUNIT_CASE(prq_test_attach_in_d3),
	KUNIT_CASE(prq_test_context_entry),
	{}
};

static struct kunit_suite prq_test_setup_suite = {
	.name = "intel-prq-setup",
	.init = prq_test_init,
	.exit = prq_test_exit,
	.test_cases = prq_test_setup_cases,
};

kunit_test_suite(prq_test_setup_suite);
