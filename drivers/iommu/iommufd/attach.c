// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices and PASIDs on HWPTs
 *
 * An iommu group's RID, and each of its PASIDs, has at most one HWPT attached.
 * The attach handle stands for that; the fault core finds it for every page
 * request group. Below it hangs one attachment for each device of the group
 * that user space has attached: only those may fault, each under its own id.
 *
 * The first device attaches the whole group in the IOMMU core, the last one
 * detaches it. Everything here runs under igroup->lock.
 *
 * The order when a device leaves, so that nobody meets a handle that is freed:
 *
 *	1. The IOMMU core forgets the handle (if it was the last device), and
 *	   the driver drains the hardware queue.
 *	2. The attachment leaves the handle's list under the fault object's
 *	   lock: what the core still routes here is refused, or told to ask
 *	   again if another handle has taken the place of this one.
 *	3. iopf_quiesce(): no report is between finding the handle and queueing.
 *	4. iommufd_demand_settle(), iommufd_fault_settle(): what is being resolved,
 *	   or was queued, is answered.
 *	5. iopf_recall_sync(): what the core took back has left the object.
 *
 * tools/iommu/models/claims.pml: LISTED_LATE, NO_QUIESCE, NO_SETTLE_WAIT, NO_RECALL_SYNC
 *
 * Locks, outermost first:
 *
 *	igroup->lock (mutex)		all of this file
 *	iommu_group::mutex		the IOMMU core's: attaching, and going through
 *					the devices of a group
 *	the device's lock (spin)	iopf_quiesce() and iopf_recall_sync() take it
 *	iommufd_fault::lock (spin)	the lists of attachments, against the handler
 *
 * Only the mutexes are held while the hardware is answered or waited for. The core
 * finds a handle under RCU, and keeps it by the device's lock.
 *
 * The same is done when attaching or replacing fails: page requests were enabled
 * already, and a new handle may be shown before all devices moved.
 */
#include <linux/iommu.h>
#include <linux/iommufd.h>
#include <linux/pci-ats.h>
#include <linux/pci.h>
#include <linux/slab.h>

#include "../iommu-priv.h"
#include "fault_answer.h"
#include "iommufd_private.h"

static struct iommufd_attach_handle *
attach_find_handle(struct iommufd_device *idev, ioasid_t pasid)
{
	struct iommu_attach_handle *handle;

	lockdep_assert_held(&idev->igroup->lock);

	handle = iommu_attach_handle_get(idev->igroup->group, pasid, 0);
	return IS_ERR_OR_NULL(handle) ? NULL : to_iommufd_handle(handle);
}

static struct iommufd_attachment *
attach_find(struct iommufd_attach_handle *handle, struct iommufd_device *idev)
{
	struct iommufd_attachment *attachment;

	if (!handle)
		return NULL;
	list_for_each_entry(attachment, &handle->attachments, node) {
		if (attachment->idev == idev)
			return attachment;
	}
	return NULL;
}

/**
 * iommufd_find_attachment() - Find how a device is attached
 * @idev: the device
 * @pasid: the PASID, or IOMMU_NO_PASID for the RID
 * @fault: gets the fault object of the HWPT, or NULL
 *
 * Context: Under igroup->lock, which also keeps what is returned.
 *
 * Return: the attachment, or NULL if the device is not attached there.
 */
struct iommufd_attachment *
iommufd_find_attachment(struct iommufd_device *idev, ioasid_t pasid,
			struct iommufd_fault **fault)
{
	struct iommufd_attach_handle *handle = attach_find_handle(idev, pasid);

	*fault = handle ? handle->hwpt->fault : NULL;
	return attach_find(handle, idev);
}

static struct iommufd_attach_handle *attach_new_handle(struct iommufd_hw_pagetable *hwpt,
						       struct iommufd_group *igroup)
{
	struct iommufd_attach_handle *handle;

	handle = kzalloc_obj(*handle, GFP_KERNEL_ACCOUNT);
	if (!handle)
		return NULL;

	handle->hwpt = hwpt;
	handle->igroup = igroup;
	INIT_LIST_HEAD(&handle->attachments);
	return handle;
}

static int attach_add(struct iommufd_attach_handle *handle, struct iommufd_device *idev)
{
	struct iommufd_fault *fault = handle->hwpt->fault;
	struct iommufd_attachment *attachment;
	int rc;

	if (!iommufd_hwpt_compatible_device(handle->hwpt, idev))
		return -EINVAL;

	/* What a driver finds does not come from the IOMMU, whose page table we would fill. */
	if (handle->hwpt->demand && idev->reports_faults)
		return -EOPNOTSUPP;

	attachment = kzalloc_obj(*attachment, GFP_KERNEL_ACCOUNT);
	if (!attachment)
		return -ENOMEM;
	attachment->idev = idev;
	attachment->dev_id = idev->obj.id;

	if (!fault) {
		list_add_tail(&attachment->node, &handle->attachments);
		return 0;
	}

	rc = iommufd_iopf_enable(idev);
	if (rc)
		goto err_free;
	rc = iommufd_fault_join(fault, attachment, idev);
	if (rc)
		goto err_disable;
	spin_lock_bh(&fault->lock);
	list_add_tail(&attachment->node, &handle->attachments);
	spin_unlock_bh(&fault->lock);
	return 0;

err_disable:
	iommufd_iopf_disable(idev);
err_free:
	kfree(attachment);
	return rc;
}

/*
 * How devices leave an attachment. Where another one takes its place, what is
 * outstanding is answered SUCCESS, so that the device asks that one. Of an attachment
 * that never was one, as the driver has refused it, nothing was collected.
 */
struct attach_leave {
	struct iommufd_attach_handle *handle;
	ioasid_t forget;	/* the PASID, or IOMMU_PASID_INVALID */
	enum iommu_page_response_code code;
};

/* Steps 2 to 4 of a device leaving */
static void attach_del(const struct attach_leave *leave, struct iommufd_attachment *attachment)
{
	struct iommufd_attach_handle *handle = leave->handle;
	struct iommufd_demand *demand = handle->hwpt->demand;
	struct iommufd_fault *fault = handle->hwpt->fault;

	if (fault) {
		spin_lock_bh(&fault->lock);
		list_del(&attachment->node);
		handle->moved = leave->code == IOMMU_PAGE_RESP_SUCCESS;
		spin_unlock_bh(&fault->lock);

		iopf_quiesce(attachment->idev->dev, leave->forget, &handle->handle);
		if (demand)
			iommufd_demand_settle(demand, attachment, leave->code);
		iommufd_fault_settle(fault, attachment, leave->code);
		iopf_recall_sync(attachment->idev->dev);
		iommufd_fault_part_with(fault, attachment);
		iommufd_iopf_disable(attachment->idev);
	} else {
		list_del(&attachment->node);
	}
	kfree(attachment);
}

static int attach_quiesce(struct device *dev, void *data)
{
	struct attach_leave *leave = data;

	iopf_quiesce(dev, leave->forget, &leave->handle->handle);
	return 0;
}

static void attach_free_handle(struct attach_leave leave)
{
	struct iommufd_attachment *attachment, *next;

	list_for_each_entry_safe(attachment, next, &leave.handle->attachments, node)
		attach_del(&leave, attachment);
	/*
	 * A device that is not attached here can find the handle all the same, and
	 * a report looks at its domain to see that this takes no faults.
	 */
	iommu_group_for_each_dev(leave.handle->igroup->group, &leave, attach_quiesce);
	kfree(leave.handle);
}

/* No fault comes this way any more. */
static void attach_end(struct iommufd_attach_handle *handle, ioasid_t pasid)
{
	attach_free_handle((struct attach_leave){ handle, pasid, IOMMU_PAGE_RESP_INVALID });
}

/* Another handle has taken its place, or has kept it. */
static void attach_move(struct iommufd_attach_handle *handle, ioasid_t forget)
{
	attach_free_handle((struct attach_leave){ handle, forget, IOMMU_PAGE_RESP_SUCCESS });
}

static bool attach_is_compatible(struct iommufd_hw_pagetable *hwpt,
				 struct iommufd_device *idev, ioasid_t pasid)
{
	/* The IOMMU core skips devices without PASIDs, and says it went well. */
	if (pasid != IOMMU_NO_PASID && !idev->dev->iommu->max_pasids)
		return false;
	return !iommufd_hwpt_pasid_compat(hwpt, idev, pasid);
}

static int attach_first(struct iommufd_hw_pagetable *hwpt,
			struct iommufd_device *idev, ioasid_t pasid)
{
	struct iommufd_attach_handle *handle;
	int rc;

	handle = attach_new_handle(hwpt, idev->igroup);
	if (!handle)
		return -ENOMEM;

	rc = attach_add(handle, idev);
	if (rc)
		goto err_free;

	if (pasid == IOMMU_NO_PASID)
		rc = iommu_attach_group_handle(hwpt->domain, idev->igroup->group,
					       &handle->handle);
	else
		rc = iommu_attach_device_pasid(hwpt->domain, idev->dev, pasid,
					       &handle->handle);
	if (rc)
		goto err_free;

	return 0;

err_free:
	attach_move(handle, IOMMU_PASID_INVALID);
	return rc;
}

/**
 * iommufd_attach() - Attach a device's RID or PASID to a HWPT
 * @hwpt: the HWPT; the caller takes a user of it for the attachment
 * @idev: the device
 * @pasid: the PASID, or IOMMU_NO_PASID for the RID
 *
 * Context: Under igroup->lock.
 *
 * Return: 0, -EBUSY if the device is attached there already, -EINVAL if its
 * group is attached to another HWPT or if @hwpt does not suit the device or
 * PASID, -ENOMEM, or what the IOMMU driver says.
 */
int iommufd_attach(struct iommufd_hw_pagetable *hwpt,
		   struct iommufd_device *idev, ioasid_t pasid)
{
	struct iommufd_attach_handle *handle = attach_find_handle(idev, pasid);

	if (attach_find(handle, idev))
		return -EBUSY;
	if (!attach_is_compatible(hwpt, idev, pasid) || (handle && handle->hwpt != hwpt))
		return -EINVAL;
	return handle ? attach_add(handle, idev) : attach_first(hwpt, idev, pasid);
}

/**
 * iommufd_detach() - Detach a device's RID or PASID
 * @idev: the device
 * @pasid: the PASID, or IOMMU_NO_PASID for the RID
 *
 * On return every page request group of the device that came through this
 * attachment is answered.
 *
 * Context: Under igroup->lock. Sleeps for the hardware, never for user space.
 *
 * Return: the HWPT it was attached to, whose user the caller gives back; NULL
 * if it was not attached.
 */
struct iommufd_hw_pagetable *iommufd_detach(struct iommufd_device *idev, ioasid_t pasid)
{
	struct iommufd_attach_handle *handle = attach_find_handle(idev, pasid);
	struct iommufd_attachment *attachment = attach_find(handle, idev);
	struct iommufd_hw_pagetable *hwpt;

	if (!attachment)
		return NULL;

	hwpt = handle->hwpt;
	if (!list_is_singular(&handle->attachments)) {
		attach_del(&(struct attach_leave){ handle, pasid, IOMMU_PAGE_RESP_INVALID },
			   attachment);
		return hwpt;
	}

	if (pasid == IOMMU_NO_PASID)
		iommu_detach_group_handle(hwpt->domain, idev->igroup->group);
	else
		iommu_detach_device_pasid(hwpt->domain, idev->dev, pasid);
	attach_end(handle, pasid);
	return hwpt;
}

/**
 * iommufd_replace() - Move a group's RID or PASID to another HWPT
 * @hwpt: the new HWPT
 * @idev: a device of the group that is attached
 * @pasid: the PASID, or IOMMU_NO_PASID for the RID
 *
 * All devices of the group that are attached move. What is outstanding through
 * the old HWPT is answered SUCCESS when this returns: the device asks the new one.
 * On failure nothing has changed. The callers move the users of the HWPTs.
 *
 * Context: Under igroup->lock. Sleeps for the hardware, never for user space.
 *
 * Return: 0, -EINVAL if @idev is not attached there or @hwpt does not suit it,
 * -ENOMEM, or what the IOMMU driver says.
 */
int iommufd_replace(struct iommufd_hw_pagetable *hwpt,
		    struct iommufd_device *idev, ioasid_t pasid)
{
	struct iommufd_attach_handle *old = attach_find_handle(idev, pasid);
	struct iommufd_attachment *attachment;
	struct iommufd_attach_handle *handle;
	int rc;

	if (!attach_find(old, idev) || !attach_is_compatible(hwpt, idev, pasid))
		return -EINVAL;

	handle = attach_new_handle(hwpt, idev->igroup);
	if (!handle)
		return -ENOMEM;

	list_for_each_entry(attachment, &old->attachments, node) {
		rc = attach_add(handle, attachment->idev);
		if (rc)
			goto err_free;
	}

	if (pasid == IOMMU_NO_PASID)
		rc = iommu_replace_group_handle(idev->igroup->group, hwpt->domain,
						&handle->handle);
	else
		rc = iommu_replace_device_pasid(hwpt->domain, idev->dev, pasid,
						&handle->handle);
	if (rc)
		goto err_free;

	attach_move(old, pasid);
	return 0;

err_free:
	attach_move(handle, IOMMU_PASID_INVALID);
	return rc;
}
