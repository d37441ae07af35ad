/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Devices and PASIDs on HWPTs
 */
#ifndef __IOMMUFD_ATTACH_H
#define __IOMMUFD_ATTACH_H

#include <linux/atomic.h>
#include <linux/iommu.h>
#include <linux/list.h>

struct iommufd_device;
struct iommufd_fault;
struct iommufd_fault_member;
struct iommufd_group;
struct iommufd_hw_pagetable;

/**
 * struct iommufd_attach_handle - A HWPT attached to a group's RID or PASID
 * @handle: what the fault core finds by {group, PASID}
 * @hwpt: the HWPT
 * @igroup: the group
 * @attachments: one for each device of the group that user space attached;
 *               changed under igroup->lock and, if the HWPT has a fault object,
 *               also under that object's lock
 * @moved: another handle has taken its place; protected as @attachments
 */
struct iommufd_attach_handle {
	struct iommu_attach_handle handle;
	struct iommufd_hw_pagetable *hwpt;
	struct iommufd_group *igroup;
	struct list_head attachments;
	bool moved;
};

/**
 * struct iommufd_attachment - One device attached through one handle
 * @node: node in &iommufd_attach_handle.attachments
 * @idev: the device, NULL for that of a &struct iommufd_fault_source
 * @dev_id: what user space calls it
 * @outstanding: its groups that are queued, delivered or being answered
 * @resolving: its groups that the kernel resolves, or is answering for that; protected
 *             by &iommufd_demand.lock
 * @member: the same device among those that feed the fault object
 */
struct iommufd_attachment {
	struct list_head node;
	struct iommufd_device *idev;
	u32 dev_id;
	atomic_t outstanding;
	unsigned int resolving;
	struct iommufd_fault_member *member;
};

static inline struct iommufd_attach_handle *
to_iommufd_handle(struct iommu_attach_handle *handle)
{
	return container_of(handle, struct iommufd_attach_handle, handle);
}

struct iommufd_attachment *
iommufd_find_attachment(struct iommufd_device *idev, ioasid_t pasid,
			struct iommufd_fault **fault);
int iommufd_attach(struct iommufd_hw_pagetable *hwpt,
		   struct iommufd_device *idev, ioasid_t pasid);
struct iommufd_hw_pagetable *iommufd_detach(struct iommufd_device *idev,
					    ioasid_t pasid);
int iommufd_replace(struct iommufd_hw_pagetable *hwpt,
		    struct iommufd_device *idev, ioasid_t pasid);

#endif
