// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults that a device driver finds itself
 *
 * Some devices have page tables of their own and find a missing page without an
 * IOMMU (NICs with on-demand paging), and the DMA of a mediated device is done
 * by software. Their drivers report such a fault here. User space gets it from
 * the fault object like a group of one page request, and the driver is called
 * back with the answer.
 *
 * Which fault object gets it:
 *
 *	struct iommufd_device	that of the HWPT attached at the fault's PASID
 *	struct iommufd_access	the one that user space bound to it, see
 *				iommufd_fault_bind()
 *
 * A fault that finds no room is told to try again, as a PCIe device is: by the
 * callback, a moment later. Until then nobody but its work item has it.
 *
 * Who keeps a fault: its driver until iommufd_driver_fault_put(), and the fault
 * object until the group is answered and no reader looks at it any more. The
 * memory of the driver is never touched after its callback or after it has
 * withdrawn the fault.
 *
 * Locks, outermost first:
 *
 *	iommufd_access::source_lock	what is bound; igroup->lock in its place
 *	(mutex)				for a device
 *	iommufd_driver_fault::lock	@fault, so that a withdrawal does not meet
 *	(spin)				an object that is gone
 *	iommufd_fault::lock (spin)	see fault.c
 */
#include <linux/completion.h>
#include <linux/iommufd.h>
#include <linux/slab.h>
#include <uapi/linux/iommufd.h>

#include "fault_answer.h"
#include "fault_driver.h"
#include "iommufd_private.h"

/* How long a driver waits that is told to try again */
#define DRIVER_RETRY_MS	1

/**
 * struct iommufd_driver_fault - A fault that a driver reported
 * @group: the group that stands for it, with its only request
 * @param: what @group came from
 * @users: the driver, and the fault object
 * @ended: completed when the driver has been told, or will not be
 * @done: tells the driver
 * @data: for @done
 * @retry: tells the driver to try again, as there was no room
 * @lock: protects @fault and @withdrawn
 * @fault: the fault object that has @group, NULL once it is answered
 * @withdrawn: the driver does not want to be told any more
 */
struct iommufd_driver_fault {
	struct iopf_group group;
	struct iommu_fault_param param;
	refcount_t users;
	struct completion ended;
	void (*done)(void *data, enum iommu_page_response_code code);
	void *data;
	struct delayed_work retry;

	spinlock_t lock;	/* all below */
	struct iommufd_fault *fault;
	bool withdrawn;
};

static struct iommufd_driver_fault *to_driver_fault(struct iopf_group *group)
{
	return container_of(group, struct iommufd_driver_fault, group);
}

/**
 * iommufd_driver_fault_put() - The driver needs the handle no more
 * @df: from iommufd_device_report_fault() or iommufd_access_report_fault()
 *
 * Does not withdraw the fault: the driver's callback may still be called.
 *
 * Context: Any; also from the callback.
 */
void iommufd_driver_fault_put(struct iommufd_driver_fault *df)
{
	if (refcount_dec_and_test(&df->users))
		kfree(df);
}
EXPORT_SYMBOL_NS_GPL(iommufd_driver_fault_put, "IOMMUFD");

static void driver_fault_release(struct iopf_group *group)
{
	iommufd_driver_fault_put(to_driver_fault(group));
}

/* In the place of a hardware answer, by whoever claimed the group */
static void driver_fault_answer(struct iopf_group *group, enum iommu_page_response_code code)
{
	struct iommufd_driver_fault *df = to_driver_fault(group);
	bool withdrawn;

	spin_lock_bh(&df->lock);
	df->fault = NULL;
	withdrawn = df->withdrawn;
	spin_unlock_bh(&df->lock);

	if (!withdrawn)
		df->done(df->data, code);
	complete_all(&df->ended);
}

static void driver_fault_retry(struct work_struct *work)
{
	struct iommufd_driver_fault *df = container_of(to_delayed_work(work),
						       struct iommufd_driver_fault, retry);

	driver_fault_answer(&df->group, IOMMU_PAGE_RESP_SUCCESS);
	iommufd_driver_fault_put(df);
}

static struct iommufd_driver_fault *driver_fault_alloc(const struct iommufd_fault_report *report)
{
	struct iommu_fault_page_request *prm;
	struct iommufd_driver_fault *df;

	if (!report->done || !report->dev)
		return ERR_PTR(-EINVAL);

	df = kzalloc_obj(*df, GFP_KERNEL_ACCOUNT);
	if (!df)
		return ERR_PTR(-ENOMEM);

	df->param.dev = report->dev;
	df->done = report->done;
	df->data = report->data;
	refcount_set(&df->users, 1);
	init_completion(&df->ended);
	INIT_DELAYED_WORK(&df->retry, driver_fault_retry);
	spin_lock_init(&df->lock);

	prm = &df->group.last_fault.fault.prm;
	prm->flags = IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	if (report->pasid != IOMMU_NO_PASID) {
		prm->flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
		prm->pasid = report->pasid;
	}
	prm->perm = report->perm;
	prm->addr = report->iova;

	INIT_LIST_HEAD(&df->group.faults);
	list_add(&df->group.last_fault.list, &df->group.faults);
	df->group.fault_count = 1;
	df->group.length = report->length;
	df->group.queued = jiffies;
	df->group.fault_param = &df->param;
	df->group.answer = driver_fault_answer;
	df->group.release = driver_fault_release;
	atomic_set(&df->group.state, IOPF_GROUP_QUEUED);
	return df;
}

/* Under the lock that keeps @attachment, and so the object (claims.pml: WAKE_UNLOCKED) */
static int driver_fault_queue(struct iommufd_driver_fault *df, struct iommufd_fault *fault,
			      struct iommufd_attachment *attachment)
{
	int rc;

	/* First, as it may be answered at once (claims.pml: DRIVER_REF_LATE) */
	refcount_inc(&df->users);
	df->fault = fault;
	rc = iommufd_fault_queue(fault, attachment, &df->group);
	if (likely(!rc))
		return 0;

	df->fault = NULL;
	if (rc == -EAGAIN) {
		queue_delayed_work(system_dfl_wq, &df->retry,
				   msecs_to_jiffies(DRIVER_RETRY_MS));
		return 0;
	}
	refcount_dec(&df->users);
	return rc;
}

/**
 * iommufd_device_reports_faults() - The driver finds the device's faults itself
 * @idev: the device, not attached yet
 *
 * Afterwards the device can be attached to a HWPT with a fault object although
 * it has no page request interface, or its IOMMU does not serve it.
 */
void iommufd_device_reports_faults(struct iommufd_device *idev)
{
	idev->reports_faults = true;
}
EXPORT_SYMBOL_NS_GPL(iommufd_device_reports_faults, "IOMMUFD");

/**
 * iommufd_device_report_fault() - Report a fault that a driver found
 * @idev: the device
 * @report: the fault; copied
 *
 * @report->done is called exactly once, unless the driver withdraws the fault:
 * with the answer of user space; with IOMMU_PAGE_RESP_SUCCESS, a moment later, when
 * the object has no room; or with IOMMU_PAGE_RESP_INVALID when the
 * device is detached or nobody can answer any more. It may be called before
 * this function returns, in process context, possibly under the lock that
 * detaching the device takes: it must not report another fault itself, nor
 * attach, detach or withdraw.
 *
 * Context: Process context, may sleep. Takes igroup->lock.
 *
 * Return: a handle that ends with iommufd_driver_fault_put(), or an ERR_PTR:
 * -ENODEV: the device is not attached at this PASID to a HWPT with a fault
 * object; -ENOSPC: the object is full, and user space wants such faults refused;
 * -EPIPE: its file is closed; -EINVAL: the report is incomplete; -ENOMEM.
 */
struct iommufd_driver_fault *
iommufd_device_report_fault(struct iommufd_device *idev,
			    const struct iommufd_fault_report *report)
{
	struct iommufd_attachment *attachment;
	struct iommufd_driver_fault *df;
	struct iommufd_fault *fault;
	int rc = -ENODEV;

	df = driver_fault_alloc(report);
	if (IS_ERR(df))
		return df;

	mutex_lock(&idev->igroup->lock);
	attachment = iommufd_find_attachment(idev, report->pasid, &fault);
	if (attachment && fault)
		rc = driver_fault_queue(df, fault, attachment);
	mutex_unlock(&idev->igroup->lock);
	if (!rc)
		return df;

	iommufd_driver_fault_put(df);
	return ERR_PTR(rc);
}
EXPORT_SYMBOL_NS_GPL(iommufd_device_report_fault, "IOMMUFD");

/**
 * iommufd_access_reports_faults() - The driver finds the emulated device's faults
 * @access: the emulated device
 *
 * Afterwards user space can bind a fault object to @access. To be called by
 * drivers that will use iommufd_access_report_fault(), when the device is made.
 */
void iommufd_access_reports_faults(struct iommufd_access *access)
{
	WRITE_ONCE(access->reports_faults, true);
}
EXPORT_SYMBOL_NS_GPL(iommufd_access_reports_faults, "IOMMUFD");

/**
 * iommufd_access_report_fault() - Report a fault of an emulated device
 * @access: the emulated device, a mediated one say
 * @report: the fault; copied
 *
 * As iommufd_device_report_fault(), but for the fault object that user space
 * has bound to @access. The message carries the id of @access.
 *
 * Context: Process context, may sleep.
 *
 * Return: a handle, or an ERR_PTR; -ENODEV: no fault object is bound.
 */
struct iommufd_driver_fault *
iommufd_access_report_fault(struct iommufd_access *access,
			    const struct iommufd_fault_report *report)
{
	struct iommufd_driver_fault *df;
	int rc = -ENODEV;

	df = driver_fault_alloc(report);
	if (IS_ERR(df))
		return df;

	mutex_lock(&access->source_lock);
	if (access->source)
		rc = driver_fault_queue(df, access->source->fault,
					&access->source->attachment);
	mutex_unlock(&access->source_lock);
	if (!rc)
		return df;

	iommufd_driver_fault_put(df);
	return ERR_PTR(rc);
}
EXPORT_SYMBOL_NS_GPL(iommufd_access_report_fault, "IOMMUFD");

/**
 * iommufd_withdraw_fault() - Take a reported fault back
 * @df: the fault
 *
 * Its message is not delivered any more, or if it was, its cookie is unknown
 * from now on. The handle stays valid.
 *
 * Context: Process context. Waits for the driver's own callback where that is
 * running, so not from there; never for user space.
 *
 * Return: true if the callback was not called and will not be; false if it was
 * called. Either way it is not running when this returns.
 */
bool iommufd_withdraw_fault(struct iommufd_driver_fault *df)
{
	struct iommufd_fault *fault;
	bool withdrawn;

	/*
	 * While @fault is set, the group keeps the object from going.
	 * claims.pml: ANSWER_KEEPS_FAULT, WITHDRAW_NO_LOCK, WITHDRAWN_LATE, WITHDRAW_NO_WAIT
	 */
	spin_lock_bh(&df->lock);
	fault = df->fault;
	withdrawn = fault && iommufd_fault_claim(fault, &df->group);
	df->withdrawn |= withdrawn;
	spin_unlock_bh(&df->lock);

	if (withdrawn)
		iommufd_fault_finish(fault, &df->group, IOMMU_PAGE_RESP_INVALID);
	else
		flush_delayed_work(&df->retry);
	wait_for_completion(&df->ended);
	return df->withdrawn;
}
EXPORT_SYMBOL_NS_GPL(iommufd_withdraw_fault, "IOMMUFD");

static struct iommufd_fault_source *source_alloc(struct iommufd_access *access,
						 struct iommufd_fault *fault)
{
	struct iommufd_fault_source *source;

	source = kzalloc_obj(*source, GFP_KERNEL_ACCOUNT);
	if (!source)
		return NULL;

	if (iommufd_fault_join(fault, &source->attachment, access)) {
		kfree(source);
		return NULL;
	}
	refcount_inc(&fault->obj->users);
	source->fault = fault;
	source->attachment.dev_id = access->obj.id;
	return source;
}

/**
 * iommufd_fault_unbind() - Bind another fault object, or none, to an access
 * @access: the access
 * @source: what takes the place of the present one, or NULL
 *
 * What came through the present one is answered INVALID.
 *
 * Context: Process context, sleeps until all is answered, never for user space.
 */
void iommufd_fault_unbind(struct iommufd_access *access, struct iommufd_fault_source *source)
{
	mutex_lock(&access->source_lock);
	swap(access->source, source);
	mutex_unlock(&access->source_lock);

	if (!source)
		return;
	iommufd_fault_settle(source->fault, &source->attachment, IOMMU_PAGE_RESP_INVALID);
	iommufd_fault_part_with(source->fault, &source->attachment);
	refcount_dec(&source->fault->obj->users);
	kfree(source);
}

/**
 * iommufd_fault_bind() - ioctl(IOMMU_FAULT_BIND)
 * @ucmd: the ioctl
 *
 * Return: 0, -EOPNOTSUPP for flags, -ENOENT for an id that is not an emulated
 * device or not a fault object, -ENODEV if its driver never reports, -ENOMEM.
 */
int iommufd_fault_bind(struct iommufd_ucmd *ucmd)
{
	struct iommufd_fault_source *source = NULL;
	struct iommu_fault_bind *cmd = ucmd->cmd;
	struct iommufd_access *access;
	struct iommufd_fault *fault;
	struct iommufd_object *obj;
	int rc = 0;

	if (cmd->flags)
		return -EOPNOTSUPP;

	obj = iommufd_get_object(ucmd->ictx, cmd->dev_id, IOMMUFD_OBJ_ACCESS);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	access = container_of(obj, struct iommufd_access, obj);

	if (!READ_ONCE(access->reports_faults)) {
		rc = -ENODEV;
		goto out_put;
	}
	if (cmd->fault_id) {
		fault = iommufd_get_fault(ucmd, cmd->fault_id);
		if (IS_ERR(fault)) {
			rc = PTR_ERR(fault);
			goto out_put;
		}
		source = source_alloc(access, fault);
		iommufd_put_object(ucmd->ictx, fault->obj);
		if (!source) {
			rc = -ENOMEM;
			goto out_put;
		}
	}
	iommufd_fault_unbind(access, source);

out_put:
	iommufd_put_object(ucmd->ictx, obj);
	return rc;
}
