// SPDX-License-Identifier: GPL-2.0-only
/*
 * For attach.c, what Linux 7.3 has in device.c and in its IOMMU drivers
 *
 * Nothing here is for 7.3, where device.c knows a group's PASIDs, and a driver enables
 * page requests when a domain that takes them is attached.
 */
#include <linux/iommu.h>
#include <linux/iommufd.h>
#include <linux/pci-ats.h>
#include <linux/pci.h>

#include "../iommu-priv.h"
#include "iommufd_private.h"

/**
 * iommufd_iopf_enable() - Enable the page requests of a device
 * @idev: the device
 *
 * Counted: several HWPTs with faults may be attached.
 *
 * Context: Under igroup->lock, outside of the IOMMU core's locks.
 *
 * Return: 0, or what the IOMMU driver says.
 */
int iommufd_iopf_enable(struct iommufd_device *idev)
{
	int rc = 0;

	if (idev->reports_faults)
		return 0;

	mutex_lock(&idev->iopf_lock);
	if (!idev->iopf_enabled)
		rc = iommu_dev_enable_feature(idev->dev, IOMMU_DEV_FEAT_IOPF);
	if (!rc)
		idev->iopf_enabled++;
	mutex_unlock(&idev->iopf_lock);
	return rc;
}

/**
 * iommufd_iopf_disable() - Undo iommufd_iopf_enable()
 * @idev: the device
 *
 * Context: As there.
 */
void iommufd_iopf_disable(struct iommufd_device *idev)
{
	if (idev->reports_faults)
		return;

	mutex_lock(&idev->iopf_lock);
	if (!WARN_ON(!idev->iopf_enabled) && !--idev->iopf_enabled)
		iommu_dev_disable_feature(idev->dev, IOMMU_DEV_FEAT_IOPF);
	mutex_unlock(&idev->iopf_lock);
}

/**
 * iommufd_hwpt_compatible_device() - May the faults of a device come through a HWPT?
 * @hwpt: the HWPT
 * @idev: the device
 *
 * A VF shares the page request interface with its PF, if that has one. A response
 * failure would stop both, and nobody could start them again. One whose transactions
 * stall concerns nobody else.
 *
 * Return: true if the HWPT takes no faults, or the device's own.
 */
bool iommufd_hwpt_compatible_device(struct iommufd_hw_pagetable *hwpt,
				    struct iommufd_device *idev)
{
	struct pci_dev *pdev;

	if (!hwpt->fault || idev->reports_faults || !dev_is_pci(idev->dev))
		return true;
	pdev = to_pci_dev(idev->dev);
	return !pdev->is_virtfn || !pci_pri_supported(pdev);
}

/**
 * iommufd_hwpt_pasid_compat() - Does a HWPT suit a group that uses PASIDs?
 * @hwpt: the HWPT
 * @idev: a device of the group
 * @pasid: where it is to be attached, IOMMU_NO_PASID for the RID
 *
 * The RID and every PASID alike need HWPTs that were allocated for it: hardware shares
 * state between the two.
 *
 * Context: Under igroup->lock.
 *
 * Return: 0 or -EINVAL.
 */
int iommufd_hwpt_pasid_compat(struct iommufd_hw_pagetable *hwpt,
			      struct iommufd_device *idev, ioasid_t pasid)
{
	struct iommufd_group *igroup = idev->igroup;

	if (pasid == IOMMU_NO_PASID)
		return hwpt->pasid_compat || !igroup->pasids ? 0 : -EINVAL;
	if (!hwpt->pasid_compat || (igroup->hwpt && !igroup->hwpt->pasid_compat))
		return -EINVAL;
	return 0;
}

/* How many devices of the group are attached there, and to what */
static unsigned int pasid_devices(struct iommufd_device *idev, ioasid_t pasid,
				  struct iommufd_hw_pagetable **hwpt)
{
	struct iommu_attach_handle *handle;

	lockdep_assert_held(&idev->igroup->lock);

	handle = iommu_attach_handle_get(idev->igroup->group, pasid, 0);
	if (IS_ERR(handle))
		return 0;
	*hwpt = to_iommufd_handle(handle)->hwpt;
	return list_count_nodes(&to_iommufd_handle(handle)->attachments);
}

/**
 * iommufd_pasid_attach() - Attach a PASID, with a user of the HWPT
 * @hwpt: the HWPT
 * @idev: the device
 * @pasid: the PASID
 *
 * Context: Under igroup->lock.
 *
 * Return: as iommufd_attach().
 */
int iommufd_pasid_attach(struct iommufd_hw_pagetable *hwpt,
			 struct iommufd_device *idev, ioasid_t pasid)
{
	struct iommufd_hw_pagetable *there;
	int rc = iommufd_attach(hwpt, idev, pasid);

	if (rc)
		return rc;
	if (pasid_devices(idev, pasid, &there) == 1)
		idev->igroup->pasids++;
	refcount_inc(&hwpt->obj.users);
	return 0;
}

/**
 * iommufd_pasid_detach() - Detach a PASID
 * @idev: the device
 * @pasid: the PASID
 *
 * Context: Under igroup->lock.
 *
 * Return: as iommufd_detach().
 */
struct iommufd_hw_pagetable *
iommufd_pasid_detach(struct iommufd_device *idev, ioasid_t pasid)
{
	struct iommufd_hw_pagetable *hwpt = iommufd_detach(idev, pasid), *there;

	if (hwpt && !pasid_devices(idev, pasid, &there))
		idev->igroup->pasids--;
	return hwpt;
}

/**
 * iommufd_pasid_replace() - Move a group's PASID and the users of its HWPT
 * @hwpt: the new HWPT
 * @idev: a device of the group that is attached
 * @pasid: the PASID
 *
 * Context: Process context, takes igroup->lock.
 *
 * Return: the old HWPT with one user left for the caller to give back, NULL if
 * @hwpt was attached already, or an ERR_PTR as of iommufd_replace().
 */
struct iommufd_hw_pagetable *
iommufd_pasid_replace(struct iommufd_hw_pagetable *hwpt,
		      struct iommufd_device *idev, ioasid_t pasid)
{
	struct iommufd_hw_pagetable *old = NULL;
	struct iommufd_fault *fault;
	unsigned int devices;
	int rc;

	mutex_lock(&idev->igroup->lock);
	if (!iommufd_find_attachment(idev, pasid, &fault)) {
		old = ERR_PTR(-EINVAL);
		goto out_unlock;
	}
	devices = pasid_devices(idev, pasid, &old);
	if (old == hwpt) {
		old = NULL;
		goto out_unlock;
	}

	rc = iommufd_replace(hwpt, idev, pasid);
	if (rc) {
		old = ERR_PTR(rc);
		goto out_unlock;
	}
	refcount_add(devices, &hwpt->obj.users);
	if (devices > 1)
		WARN_ON(refcount_sub_and_test(devices - 1, &old->obj.users));

out_unlock:
	mutex_unlock(&idev->igroup->lock);
	return old;
}
