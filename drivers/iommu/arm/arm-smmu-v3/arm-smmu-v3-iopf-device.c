// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices with I/O page faults behind an Arm SMMUv3: enabled, disabled, and their
 * PRI capability in between
 *
 * A device uses page requests if it, the root complex and the SMMU can do them, else
 * stalls. What comes of a fault then is in arm-smmu-v3-iopf.c, as are the sections
 * that numbers refer to.
 *
 * Locks: arm_smmu_asid_lock, under which ATS goes on and off, protects what is done
 * to the PRI capability. streams_mutex protects &arm_smmu_master.iopf_enabled and
 * &arm_smmu_priq.credits. Enabling, attaching and disabling one device is for the
 * caller to serialise.
 */
#include <linux/iopoll.h>
#include <linux/pci.h>
#include <linux/pci-ats.h>
#include <kunit/visibility.h>

#include "arm-smmu-v3.h"

/* No device gets more page requests than the fault core keeps room for. */
#define ARM_SMMU_PRI_MAX_CREDITS	4096

/* ---- The PRI capability ---- */

#ifdef CONFIG_PCI_PRI
/**
 * arm_smmu_pri_probe() - Learn how a function wants its responses
 * @master: a PCI device
 *
 * Before its STE is written: STE.PPAR tells the SMMU the same, for the responses
 * that it gives on its own (8.1).
 */
void arm_smmu_pri_probe(struct arm_smmu_master *master)
{
	master->prg_resp_pasid = master->smmu->features & ARM_SMMU_FEAT_PRI &&
				 pci_prg_resp_pasid_required(to_pci_dev(master->dev));
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_pri_probe);

/* A VF has no PRI of its own: whether it may request pages is up to its PF's owner. */
static bool arm_smmu_can_pri(struct arm_smmu_master *master)
{
	struct arm_smmu_device *smmu = master->smmu;

	return smmu->priq.iopf && arm_smmu_queue_is_served(smmu, &smmu->priq.q) &&
	       arm_smmu_ats_supported(master) && !to_pci_dev(master->dev)->is_virtfn &&
	       pci_pri_supported(to_pci_dev(master->dev));
}

/*
 * Share out the PRI queue, half of what is left at a time, so that devices which
 * stay within their credits never overflow it.
 */
static int arm_smmu_pri_reserve(struct arm_smmu_master *master)
{
	struct pci_dev *pdev = to_pci_dev(master->dev);
	struct arm_smmu_device *smmu = master->smmu;
	struct arm_smmu_priq *priq = &smmu->priq;
	u32 capacity, left;

	if (pci_read_config_dword(pdev, pdev->pri_cap + PCI_PRI_MAX_REQ, &capacity))
		return -EIO;

	mutex_lock(&smmu->streams_mutex);
	left = (1U << priq->q.llq.max_n_shift) - priq->credits;
	master->pri_credits = min3(capacity, left / 2, ARM_SMMU_PRI_MAX_CREDITS);
	priq->credits += master->pri_credits;
	mutex_unlock(&smmu->streams_mutex);

	return master->pri_credits ? 0 : -ENOSPC;
}

static void arm_smmu_pri_unreserve(struct arm_smmu_master *master)
{
	mutex_lock(&master->smmu->streams_mutex);
	master->smmu->priq.credits -= master->pri_credits;
	master->pri_credits = 0;
	mutex_unlock(&master->smmu->streams_mutex);
}

/* The answers to what was requested before PRI went off last must have arrived. */
static int arm_smmu_pri_wait_stopped(struct arm_smmu_master *master)
{
	struct pci_dev *pdev = to_pci_dev(master->dev);
	u16 status = 0;
	int ret, err;

	ret = read_poll_timeout(pci_read_config_word, err,
				err || status & PCI_PRI_STATUS_STOPPED,
				1000, 100 * USEC_PER_MSEC, false,
				pdev, pdev->pri_cap + PCI_PRI_STATUS, &status);
	if (err)
		return -EIO;
	return ret ? -EBUSY : 0;
}

/**
 * arm_smmu_pri_ready() - Make sure that PRI can go on with ATS
 * @master: the device
 * @ats: whether ATS will be on
 *
 * Called before anything is changed, as arm_smmu_pri_start() after the change is
 * too late to refuse it. Waits only for a function that was detached with requests
 * outstanding, and whose answers are still under way.
 *
 * Context: Process context, sleeps.
 *
 * Return: false if it does not come to rest, or cannot be reached.
 */
bool arm_smmu_pri_ready(struct arm_smmu_master *master, bool ats)
{
	if (!master->iopf_enabled || !master->iopf_pri || !ats || master->ats_enabled)
		return true;
	return !arm_smmu_pri_wait_stopped(master);
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_pri_ready);

/**
 * arm_smmu_pri_start() - Let a function request pages, if it is to and can
 * @master: the device, its STE and the function's ATS as they shall be
 *
 * Called whenever ATS was switched on, and when faults are enabled. A function may
 * use PRI while ATS is on in both it and the STE.
 *
 * Context: Under arm_smmu_asid_lock.
 *
 * Return: 0, also if there is nothing to do; an error of pci_enable_pri().
 */
int arm_smmu_pri_start(struct arm_smmu_master *master)
{
	struct pci_dev *pdev;
	int ret;

	lockdep_assert_held(&arm_smmu_asid_lock);

	if (!master->iopf_enabled || !master->iopf_pri || !master->ats_enabled)
		return 0;

	pdev = to_pci_dev(master->dev);
	if (pdev->pri_enabled)
		return 0;

	/* The reset also clears a failure that was reported to the function. */
	ret = pci_reset_pri(pdev) ?: pci_enable_pri(pdev, master->pri_credits);
	if (ret)
		dev_err(master->dev, "failed to enable PRI: %d\n", ret);
	return ret;
}

/**
 * arm_smmu_pri_stop() - No new page requests from a function
 * @master: the device
 *
 * Called before ATS goes off, and when faults are disabled. What was requested
 * until then is in the queue or on its way there, and gets an answer.
 *
 * Context: Under arm_smmu_asid_lock.
 */
void arm_smmu_pri_stop(struct arm_smmu_master *master)
{
	lockdep_assert_held(&arm_smmu_asid_lock);

	if (master->iopf_pri && to_pci_dev(master->dev)->pri_enabled)
		pci_disable_pri(to_pci_dev(master->dev));
}
#else
void arm_smmu_pri_probe(struct arm_smmu_master *master)
{
}

static bool arm_smmu_can_pri(struct arm_smmu_master *master)
{
	return false;
}

static int arm_smmu_pri_reserve(struct arm_smmu_master *master)
{
	return -EOPNOTSUPP;
}

static void arm_smmu_pri_unreserve(struct arm_smmu_master *master)
{
}

static int arm_smmu_pri_wait_stopped(struct arm_smmu_master *master)
{
	return -EOPNOTSUPP;
}

bool arm_smmu_pri_ready(struct arm_smmu_master *master, bool ats)
{
	return true;
}

int arm_smmu_pri_start(struct arm_smmu_master *master)
{
	return 0;
}

void arm_smmu_pri_stop(struct arm_smmu_master *master)
{
}
#endif /* CONFIG_PCI_PRI */

/* ---- Devices ---- */

/**
 * arm_smmu_device_mute() - Send a device no invalidations, or do so again
 * @dev: the device, its ATS off
 * @mute: whether it will not answer
 *
 * Who sends one looks at &arm_smmu_master.mute, and waits for the CMD_SYNC behind it,
 * in one RCU read-side critical section.
 *
 * Context: Process context, sleeps until those that were sent are complete.
 */
void arm_smmu_device_mute(struct device *dev, bool mute)
{
	struct arm_smmu_master *master = dev_iommu_priv_get(dev);

	WRITE_ONCE(master->mute, mute);
	if (mute)
		synchronize_rcu();
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_device_mute);

static bool arm_smmu_can_stall(struct arm_smmu_master *master)
{
	return master->stall_enabled && master->smmu->evtq.iopf &&
	       arm_smmu_queue_is_served(master->smmu, &master->smmu->evtq.q);
}

static struct iopf_queue *arm_smmu_iopf_queue(struct arm_smmu_master *master)
{
	return master->iopf_pri ? master->smmu->priq.iopf : master->smmu->evtq.iopf;
}

static int arm_smmu_pri_prepare(struct arm_smmu_master *master)
{
	return arm_smmu_pri_wait_stopped(master) ?: arm_smmu_pri_reserve(master);
}

static void arm_smmu_set_iopf_enabled(struct arm_smmu_master *master, bool enabled)
{
	mutex_lock(&master->smmu->streams_mutex);
	WRITE_ONCE(master->iopf_enabled, enabled);
	mutex_unlock(&master->smmu->streams_mutex);
}

/* Off its queue, unless a handler holds it there, and without its share of the PRI queue */
static void arm_smmu_iopf_leave(struct arm_smmu_master *master)
{
	iopf_queue_leave(arm_smmu_iopf_queue(master), master->dev);
	arm_smmu_set_iopf_enabled(master, false);
	if (master->iopf_pri)
		arm_smmu_pri_unreserve(master);
}

/**
 * arm_smmu_iopf_enable() - Report the faults of a device from now on
 * @master: the device
 *
 * Before it is attached to the domain that is to handle them. If ATS is off, as it
 * is while the device is blocked, PRI follows when attaching switches ATS on.
 *
 * Context: Process context, under arm_smmu_asid_lock, sleeps.
 *
 * Return: 0; -EOPNOTSUPP if the device can neither stall nor request pages;
 * -EBUSY if its faults are reported already, or if it waits for answers to page
 * requests of its last owner; -ENOSPC if the PRI queue has no room for one more
 * device's requests; -EIO if its config space cannot be read; -ENOMEM.
 */
int arm_smmu_iopf_enable(struct arm_smmu_master *master)
{
	bool pri = arm_smmu_can_pri(master);
	int ret;

	if (master->iopf_enabled)
		return -EBUSY;
	if (!pri && !arm_smmu_can_stall(master))
		return -EOPNOTSUPP;

	if (pri) {
		ret = arm_smmu_pri_prepare(master);
		if (ret)
			return ret;
	}

	master->iopf_pri = pri;
	ret = iopf_queue_join(arm_smmu_iopf_queue(master), master->dev);
	if (ret) {
		if (pri)
			arm_smmu_pri_unreserve(master);
		return ret;
	}
	arm_smmu_set_iopf_enabled(master, true);

	ret = arm_smmu_pri_start(master);
	if (ret)
		arm_smmu_iopf_leave(master);
	return ret;
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_iopf_enable);

/**
 * arm_smmu_iopf_disable() - Stop reporting the faults of a device
 * @master: the device, which is detached from domains that handle faults
 *
 * First the source, then the queue, then what handlers hold. Whatever still
 * comes is answered by the thread.
 *
 * Context: Process context, not under arm_smmu_asid_lock, sleeps.
 */
void arm_smmu_iopf_disable(struct arm_smmu_master *master)
{
	if (!master->iopf_enabled)
		return;

	mutex_lock(&arm_smmu_asid_lock);
	arm_smmu_pri_stop(master);
	mutex_unlock(&arm_smmu_asid_lock);

	arm_smmu_iopf_drain(master);
	arm_smmu_iopf_leave(master);
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_iopf_disable);
