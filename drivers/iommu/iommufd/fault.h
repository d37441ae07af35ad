/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The iommufd fault object and the attachments that feed it
 *
 * Included by iommufd_private.h.
 */
#ifndef __IOMMUFD_FAULT_H
#define __IOMMUFD_FAULT_H

#include <linux/iommu.h>
#include <linux/list.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

struct io_uring_cmd;
struct iommufd_access;
struct iommufd_attachment;
struct iommufd_hw_pagetable;

/* Groups that one fault object holds at the most, a power of two */
#define IOMMUFD_FAULT_DEPTH	4096
/* Answers that are claimed, given and finished together */
#define IOMMUFD_FAULT_BATCH	64

/**
 * struct iommufd_fault_slot - What a cookie stands for
 * @group: the group, NULL when the slot is free
 * @cookie: number of uses times the depth, plus the index of the slot; never 0
 * @next: index of the next free slot
 * @queued: @group is on &iommufd_fault.deliver: user space has not seen @cookie
 */
struct iommufd_fault_slot {
	struct iopf_group *group;
	u32 cookie;
	u32 next : 31;
	u32 queued : 1;
};

/**
 * struct iommufd_fault - Delivers page request groups to user space
 * @obj: its user-visible id
 * @ictx: the context, referenced by the open file
 * @filep: the file, only valid until the allocation is finished
 * @blocking: read(2) waits, set when the object is allocated
 * @poll_wait: pollers, woken when @deliver becomes non-empty
 * @read_wait: sleeping readers, one woken for each time there is something
 * @drain_wait: woken when an attachment has no group outstanding any more
 * @lock: protects all below and the attachments of every handle that feeds it
 * @closed: the file is gone; nothing is queued any more
 * @deliver: queued groups, oldest first
 * @queued: number of groups on @deliver
 * @delivered: number of groups that user space was given and has not answered
 * @fetches: FETCH commands that wait, first come first served
 * @fetching: one was taken off @fetches and is about to read
 * @free_first: index of the free slot that is used next
 * @free_last: index of the free slot that is used last
 * @slots: IOMMUFD_FAULT_DEPTH slots
 */
struct iommufd_fault {
	struct iommufd_object obj;
	struct iommufd_ctx *ictx;
	struct file *filep;
	bool blocking;

	wait_queue_head_t poll_wait;
	wait_queue_head_t read_wait;
	wait_queue_head_t drain_wait;

	spinlock_t lock;	/* all below, and attachments */
	bool closed;
	struct list_head deliver;
	unsigned int queued;
	unsigned int delivered;
	struct list_head fetches;
	bool fetching;
	u32 free_first;
	u32 free_last;
	struct iommufd_fault_slot *slots;
};

/**
 * struct iommufd_attach_handle - A HWPT attached to a group's RID or PASID
 * @handle: what the fault core finds by {group, PASID}
 * @hwpt: the HWPT
 * @attachments: one for each device of the group that user space attached;
 *               changed under igroup->lock and, if the HWPT has a fault object,
 *               also under that object's lock
 */
struct iommufd_attach_handle {
	struct iommu_attach_handle handle;
	struct iommufd_hw_pagetable *hwpt;
	struct list_head attachments;
};

/**
 * struct iommufd_attachment - One device attached through one handle
 * @node: node in &iommufd_attach_handle.attachments
 * @idev: the device, NULL for that of a &struct iommufd_fault_source
 * @dev_id: what user space calls it
 * @outstanding: its groups that are queued, delivered or being answered;
 *               protected by the fault object's lock
 */
struct iommufd_attachment {
	struct list_head node;
	struct iommufd_device *idev;
	u32 dev_id;
	unsigned int outstanding;
};

/**
 * struct iommufd_fault_source - A fault object bound to an emulated device
 * @fault: the object; the source is one of its users
 * @attachment: the device, in no handle's list
 */
struct iommufd_fault_source {
	struct iommufd_fault *fault;
	struct iommufd_attachment attachment;
};

static inline struct iommufd_attach_handle *
to_iommufd_handle(struct iommu_attach_handle *handle)
{
	return container_of(handle, struct iommufd_attach_handle, handle);
}

static inline struct iommufd_fault *
iommufd_get_fault(struct iommufd_ucmd *ucmd, u32 id)
{
	return container_of(iommufd_get_object(ucmd->ictx, id, IOMMUFD_OBJ_FAULT),
			    struct iommufd_fault, obj);
}

/* fault.c: the object */
int iommufd_fault_alloc(struct iommufd_ucmd *ucmd);
void iommufd_fault_destroy(struct iommufd_object *obj);
int iommufd_fault_iopf_handler(struct iopf_group *group);
ssize_t iommufd_fault_deliver(struct iommufd_fault *fault,
			      struct list_head *batch, size_t room);
void iommufd_fault_delivered(struct iommufd_fault *fault,
			     struct list_head *batch, size_t copied);
unsigned int
iommufd_fault_respond(struct iommufd_fault *fault,
		      const struct iommu_hwpt_page_response *responses,
		      unsigned int count);
void iommufd_fault_drain(struct iommufd_fault *fault,
			 struct iommufd_attachment *attachment);
void iommufd_fault_close(struct iommufd_fault *fault);
int iommufd_fault_queue(struct iommufd_fault *fault,
			struct iommufd_attachment *attachment,
			struct iopf_group *group);
bool iommufd_fault_claim(struct iommufd_fault *fault, struct iopf_group *group);
void iommufd_fault_finish(struct iommufd_fault *fault, struct iopf_group *group,
			  enum iommu_page_response_code code);

/* Without the lock: see iommufd_fault_poll() for what makes this safe. */
static inline bool iommufd_fault_is_empty(struct iommufd_fault *fault)
{
	return !READ_ONCE(fault->queued);
}

/* fault_file.c: its file */
struct file *iommufd_fault_file_create(struct iommufd_fault *fault);
ssize_t iommufd_fault_read(struct iommufd_fault *fault, struct iov_iter *to);
ssize_t iommufd_fault_write(struct iommufd_fault *fault, struct iov_iter *from);

/* fault_uring.c: its io_uring commands */
int iommufd_fault_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags);
struct io_uring_cmd *iommufd_fault_uring_next(struct iommufd_fault *fault);
void iommufd_fault_uring_start(struct io_uring_cmd *cmd);

/* fault_driver.c: faults that device drivers find */
int iommufd_fault_bind(struct iommufd_ucmd *ucmd);
void iommufd_fault_unbind(struct iommufd_access *access,
			  struct iommufd_fault_source *source);

/* attach.c: devices and PASIDs on HWPTs */
struct iommufd_attachment *
iommufd_find_attachment(struct iommufd_device *idev, ioasid_t pasid,
			struct iommufd_fault **fault);
int iommufd_attach(struct iommufd_hw_pagetable *hwpt,
		   struct iommufd_device *idev, ioasid_t pasid);
struct iommufd_hw_pagetable *iommufd_detach(struct iommufd_device *idev,
					    ioasid_t pasid);
int iommufd_replace(struct iommufd_hw_pagetable *hwpt,
		    struct iommufd_device *idev, ioasid_t pasid);
struct iommufd_hw_pagetable *
iommufd_pasid_replace(struct iommufd_hw_pagetable *hwpt,
		      struct iommufd_device *idev, ioasid_t pasid);

#endif
