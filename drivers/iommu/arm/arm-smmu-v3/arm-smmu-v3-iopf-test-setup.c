// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of arm-smmu-v3-iopf.c: enabling and draining, and what the tables say
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/io-pgtable.h>
#include <linux/pci.h>
#include <linux/workqueue.h>

#include "arm-smmu-v3-iopf-test.h"

static void enable(struct kunit *test)
{
	const struct request r = { .sid = FIRST_SID, .id = 3 };
	struct fake *f = test->priv;

	KUNIT_EXPECT_EQ(test, enable_faults(&f->master), -EOPNOTSUPP);
	f->master.stall_enabled = true;
	f->smmu.evtq.q.irq = 0;
	KUNIT_EXPECT_EQ(test, enable_faults(&f->master), -EOPNOTSUPP);
	f->smmu.evtq.q.irq = NO_IRQ;
	KUNIT_EXPECT_EQ(test, enable_faults(&f->master), 0);
	KUNIT_EXPECT_EQ(test, enable_faults(&f->master), -EBUSY);

	push_stall(f, &r);
	run_evtq(f);
	arm_smmu_iopf_disable(&f->master);
	expect_resume(f, FIRST_SID, 3, ABORT);
	KUNIT_EXPECT_FALSE(test, f->master.iopf_enabled);
	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	expect_no_command(f);
	KUNIT_EXPECT_EQ(test, enable_faults(&f->master), 0);
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

	smmu_fake_request_irq(f, &f->smmu.evtq.q, arm_smmu_evtq_thread);
	KUNIT_EXPECT_TRUE(test, push_stall(f, &r));
	INIT_WORK_ONSTACK(&f->drain, drain_work);
	schedule_work(&f->drain);
	KUNIT_EXPECT_GT(test, wait_for_completion_timeout(&f->drained, 10 * HZ), 0);
	smmu_fake_free_irq(f, &f->smmu.evtq.q);
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
	mutex_init(&fn->iommu.iopf_lock);
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
	KUNIT_EXPECT_EQ(test, enable_faults(&fn->master), 0);
	KUNIT_EXPECT_TRUE(test, fn->master.iopf_pri);
	KUNIT_EXPECT_EQ(test, enable_faults(&fn->master), -EBUSY);
	arm_smmu_iopf_disable(&fn->master);
	KUNIT_EXPECT_EQ(test, fn->n_writes, 0);

	/* a device that could stall as well requests pages */
	fn->master.stall_enabled = true;
	fn->master.ats_enabled = true;
	KUNIT_EXPECT_EQ(test, enable_faults(&fn->master), 0);
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
	KUNIT_EXPECT_EQ(test, enable_faults(&fn->master), -EOPNOTSUPP);
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
	KUNIT_EXPECT_EQ(test, enable_faults(master), 0);
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
		KUNIT_EXPECT_EQ(test, enable_faults(&fn[i]->master), 0);
		expect_write(test, fn[i], 1, PCI_PRI_ALLOC_REQ, shares[i].credits);
	}
	fn[i] = new_function(f, 1000);
	KUNIT_EXPECT_EQ(test, enable_faults(&fn[i]->master), -ENOSPC);
	KUNIT_EXPECT_EQ(test, f->smmu.priq.credits, 63);
	KUNIT_EXPECT_FALSE(test, fn[i]->master.iopf_enabled);

	arm_smmu_iopf_disable(&fn[1]->master);
	KUNIT_EXPECT_EQ(test, enable_faults(&fn[i]->master), 0);
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
	KUNIT_EXPECT_EQ(test, enable_faults(master), -EBUSY);
	fn->busy_reads = 3;
	KUNIT_EXPECT_EQ(test, enable_faults(master), 0);
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
	KUNIT_EXPECT_EQ(test, enable_faults(master), -EBUSY);
	KUNIT_EXPECT_FALSE(test, master->iopf_enabled);
	KUNIT_EXPECT_EQ(test, f->smmu.priq.credits, 0);
	KUNIT_EXPECT_EQ(test, fn->n_writes, 1);
}

/* ---- Tests: tables ---- */

/* What the context descriptor of stage 1 says, and the STE of stage 2 alike */
static bool stalls(struct kunit *test, u32 features, bool can_stall, bool handled, bool pri)
{
	static struct arm_smmu_device smmu;	/* too big for the stack */
	struct arm_smmu_master master = {
		.smmu = &smmu, .stall_enabled = can_stall, .iopf_pri = pri,
	};
	struct io_pgtable table = {};
	struct arm_smmu_domain domain = { .pgtbl_ops = &table.ops };
	struct arm_smmu_ste ste;
	struct arm_smmu_cd cd;

	smmu.features = features;
	if (handled)
		domain.domain.iopf_handler = smmu_fake_handler;
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

static struct kunit_case arm_smmu_v3_iopf_setup_cases[] = {
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

static struct kunit_suite arm_smmu_v3_iopf_setup_suite = {
	.name = "arm-smmu-v3-iopf-setup",
	.init = smmu_fake_init,
	.exit = smmu_fake_exit,
	.test_cases = arm_smmu_v3_iopf_setup_cases,
};

kunit_test_suite(arm_smmu_v3_iopf_setup_suite);
