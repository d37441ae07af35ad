// SPDX-License-Identifier: GPL-2.0-only
/*
 * The coming and going of an iommufd fault object
 *
 * Its id lives as long as the iommufd context, or until IOMMU_DESTROY. What is
 * behind the id is reference counted: by the id, by the open file, and by who
 * answers a group that keeps it no more.
 *
 * The id has users: the HWPTs and the emulated devices that faults come from, and
 * the file, so that IOMMU_DESTROY says -EBUSY as long as that is open. The file
 * does not keep the context. When all descriptors of the context are closed and no
 * driver holds it, iommufd_fault_leave() takes the file's user away. The HWPTs
 * then go as ever, the id goes after the last of them, and whoever waits at the
 * file learns that no fault can come any more.
 *
 *	alloc		id, file -> users 2, refs 2
 *	HWPT alloc	users +1		HWPT destroy	users -1
 *	file closed	iommufd_fault_leave(), refs -1
 *	context gone	iommufd_fault_leave(), then as IOMMU_DESTROY
 *	IOMMU_DESTROY	if users is 1: hang up, refs -1
 *	refs 0		freed
 */
#include <linux/file.h>
#include <linux/iommufd.h>
#include <linux/slab.h>
#include <uapi/linux/iommufd.h>

#include "fault_answer.h"
#include "fault_file.h"
#include "fault_object.h"
#include "fault_wake.h"

/* claims.pml: FREE_NO_CANCEL, FREE_TIMER_LATE */
static void fault_free(struct iommufd_fault *fault)
{
	WARN_ON(fault->queued || fault->delivered);
	iommufd_fault_stop_wake(fault);
	hrtimer_cancel(&fault->timer);
	cancel_work_sync(&fault->work);
	kvfree(fault->parts);
	kvfree(fault->ages);
	kvfree(fault->slots);
	kfree(fault);
}

/**
 * iommufd_fault_put() - Let go of a fault object
 * @fault: the object
 *
 * Context: Process context, may sleep.
 */
void iommufd_fault_put(struct iommufd_fault *fault)
{
	if (refcount_dec_and_test(&fault->refs))
		fault_free(fault);
}

/**
 * iommufd_fault_leave() - The file is no user of the id any more
 * @fault: the object
 *
 * Called when the file is closed and when the context goes, whichever is first
 * (claims.pml: LEAVE_NO_CHECK).
 *
 * Context: Process context. Takes the object's lock, under which the id cannot
 * go: iommufd_fault_destroy() takes it as well.
 */
void iommufd_fault_leave(struct iommufd_fault *fault)
{
	spin_lock_bh(&fault->lock);
	if (fault->has_file)
		refcount_dec(&fault->obj->users);
	fault->has_file = false;
	spin_unlock_bh(&fault->lock);
}

/**
 * iommufd_fault_destroy() - The id goes
 * @obj: the embedded iommufd object, which has no users
 *
 * Detaching from a HWPT settles, and a HWPT is a user: no group is outstanding
 * here, and none will be queued.
 *
 * Context: Process context, may sleep.
 */
void iommufd_fault_destroy(struct iommufd_object *obj)
{
	struct iommufd_fault *fault = iommufd_obj_to_fault(obj);

	/* Whoever took the last user away is done with @obj. */
	spin_lock_bh(&fault->lock);
	fault->obj = NULL;
	spin_unlock_bh(&fault->lock);

	iommufd_fault_hang_up(fault);
	iommufd_fault_put(fault);
}

static int fault_alloc_slots(struct iommufd_fault *fault)
{
	u32 i, depth = fault->mask + 1;

	fault->slots = kvcalloc(depth, sizeof(*fault->slots), GFP_KERNEL_ACCOUNT);
	if (!fault->slots)
		return -ENOMEM;
	for (i = 0; i < depth; i++) {
		fault->slots[i].cookie = i;
		fault->slots[i].next = i + 1;
	}
	fault->free_last = fault->mask;

	if (fault->deadline_ms) {
		fault->ages = kvcalloc(depth, sizeof(*fault->ages), GFP_KERNEL_ACCOUNT);
		if (!fault->ages)
			return -ENOMEM;
		for (i = 0; i < depth; i++)
			INIT_LIST_HEAD(&fault->ages[i].node);
	}
	if (fault->flags & IOMMU_FAULT_ALLOC_IMMEDIATE) {
		fault->parts = kvcalloc(depth, sizeof(*fault->parts), GFP_KERNEL_ACCOUNT);
		if (!fault->parts)
			return -ENOMEM;
	}
	return 0;
}

static void fault_init(struct iommufd_fault *fault, const struct iommu_fault_alloc *cmd)
{
	fault->flags = cmd->flags;
	fault->mask = roundup_pow_of_two(cmd->depth ?: IOMMUFD_FAULT_DEPTH) - 1;
	fault->deadline_ms = cmd->deadline_ms;
	fault->deadline_code = cmd->deadline_code;
	refcount_set(&fault->refs, 1);
	iommufd_fault_init_wake(fault);
	init_waitqueue_head(&fault->settle_wait);
	hrtimer_setup(&fault->timer, iommufd_fault_timeout, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
	INIT_WORK(&fault->work, iommufd_fault_work);
	spin_lock_init(&fault->lock);
	INIT_LIST_HEAD(&fault->queue);
	INIT_LIST_HEAD(&fault->members);
	INIT_LIST_HEAD(&fault->aging);
}

static int fault_check(const struct iommu_fault_alloc *cmd)
{
	const u32 flags = IOMMU_FAULT_ALLOC_BLOCKING | IOMMU_FAULT_ALLOC_IMMEDIATE |
			  IOMMU_FAULT_ALLOC_REPORT_LOSS | IOMMU_FAULT_ALLOC_REFUSE;

	if ((cmd->flags & ~flags) || cmd->__reserved)
		return -EOPNOTSUPP;
	if (cmd->depth > IOMMUFD_FAULT_MAX_DEPTH || cmd->deadline_ms > IOMMUFD_FAULT_MAX_MS)
		return -EINVAL;
	if (cmd->deadline_code > IOMMUFD_PAGE_RESP_FAILURE ||
	    (cmd->deadline_code && !cmd->deadline_ms))
		return -EINVAL;
	return 0;
}

static struct iommufd_fault *fault_alloc(const struct iommu_fault_alloc *cmd)
{
	struct iommufd_fault *fault;
	int rc;

	fault = kzalloc_obj(*fault, GFP_KERNEL_ACCOUNT);
	if (!fault)
		return ERR_PTR(-ENOMEM);

	fault_init(fault, cmd);
	rc = fault_alloc_slots(fault);
	if (!rc)
		return fault;

	iommufd_fault_put(fault);
	return ERR_PTR(rc);
}

/**
 * iommufd_fault_alloc_closed() - Make an object without an id, that takes no group
 *
 * For a HWPT that must have one, but was not given one by user space.
 *
 * Return: the object, with a reference for the caller, or an ERR_PTR.
 */
struct iommufd_fault *iommufd_fault_alloc_closed(void)
{
	struct iommufd_fault *fault = fault_alloc(&(struct iommu_fault_alloc){ .depth = 1 });

	if (!IS_ERR(fault))
		fault->closed = true;
	return fault;
}

/**
 * iommufd_fault_put_hwpt() - A HWPT is no user of its object any more
 * @fault: the object
 *
 * Context: Process context, may sleep.
 */
void iommufd_fault_put_hwpt(struct iommufd_fault *fault)
{
	/* As long as it has users an id stays. */
	if (fault->obj)
		refcount_dec(&fault->obj->users);
	else
		iommufd_fault_put(fault);
}

/**
 * iommufd_fault_alloc() - ioctl(IOMMU_FAULT_QUEUE_ALLOC)
 * @ucmd: the ioctl
 *
 * Return: 0, -EOPNOTSUPP for unknown flags or a reserved field that is not 0,
 * -EINVAL for values out of range, -ENOMEM, -EMFILE or -ENFILE, or -EFAULT.
 */
int iommufd_fault_alloc(struct iommufd_ucmd *ucmd)
{
	struct iommu_fault_alloc *cmd = ucmd->cmd;
	struct iommufd_fault_id *id;
	struct iommufd_fault *fault;
	struct file *filep;
	int fd, rc;

	rc = fault_check(cmd);
	if (rc)
		return rc;

	id = iommufd_object_alloc(ucmd->ictx, id, IOMMUFD_OBJ_FAULT);
	if (IS_ERR(id))
		return PTR_ERR(id);

	fault = fault_alloc(cmd);
	if (IS_ERR(fault)) {
		iommufd_object_abort(ucmd->ictx, &id->obj);
		return PTR_ERR(fault);
	}
	id->fault = fault;
	fault->obj = &id->obj;
	fault->id = id->obj.id;
	/* A program that knows the structure's rest knows how large its buffer must be. */
	fault->splits = ucmd->user_size <= offsetof(struct iommu_fault_alloc, depth) &&
			!fault->parts;

	filep = iommufd_fault_file_create(fault);
	if (IS_ERR(filep)) {
		rc = PTR_ERR(filep);
		goto err_abort;
	}
	/* From here on the abort also closes the file. */
	id->filep = filep;

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		rc = fd;
		goto err_abort;
	}

	cmd->out_fault_id = fault->id;
	cmd->out_fault_fd = fd;
	rc = iommufd_ucmd_respond(ucmd, sizeof(*cmd));
	if (rc)
		goto err_put_fd;

	iommufd_object_finalize(ucmd->ictx, &id->obj);
	fd_install(fd, filep);
	return 0;

err_put_fd:
	put_unused_fd(fd);
err_abort:
	iommufd_object_abort_and_destroy(ucmd->ictx, &id->obj);
	return rc;
}
