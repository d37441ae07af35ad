// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page fault core: from a decoded page request to one answered group
 *
 * An IOMMU driver decodes one hardware entry and calls
 * iommu_report_device_fault(). Requests that are not the last of their group
 * are collected here; the last one completes the group, which is routed by
 * {device, PASID} to the domain attached there and handed to that domain's
 * iopf_handler. The handler owns the group from then on. Whoever claims the
 * group answers the hardware, once. One that the core recalls has no answer.
 *
 * States of a group (struct iopf_group::state), one atomic transition each:
 *
 *	            iopf_start()            iopf_complete()
 *	    GONE ------------------> COLLECTING ----------> QUEUED
 *	    ^ ^  \____________________________________________^ | |
 *	    | |          (a group of one request)               | |
 *	    | |   iopf_answer_groups()        iopf_group_claim()| |
 *	    | +-------------------- ANSWERING <-----------------+ |
 *	    +-----------------------------------------------------+
 *	         iopf_recall(): nobody waits for an answer
 *
 * Groups without their last request: they are found by {device, PASID or none,
 * group id} in a hash table with as many buckets as the device has credits, so
 * that a request costs the same however many others there are. The hash has a key
 * that nobody knows, so that a device cannot choose ids that share a bucket.
 *
 * Such a group is void when no answer of a handler can be one for all its requests:
 * one of them found no room, or the driver has refused it. It stays in the table without
 * its requests, and its &iopf_group.verdict is what the last request is answered by the
 * core. There is no other memory of what was lost. IOPF_VOID_GROUPS groups are kept back
 * for this; a device that makes more void, which takes more requests than it has
 * credits, is as after an overflow.
 *
 * A handler that has no room for a group now says -EAGAIN. The device is told to try
 * again (SUCCESS, with nothing mapped), but not at once: it would ask again at once,
 * in the thread that other devices need, too. Until then the group is parked: the core
 * itself is its handler, and answers it, with all others that are there, IOPF_RETRY_MS
 * later. So a device that only tries again costs its credits in that time.
 *
 * What ends a group without its last request, void or not:
 *
 *	hardware overflow	forgotten: the hardware has answered lost last
 *				requests by itself; one that comes after all is a
 *				group of its own. To be told SUCCESS for a page
 *				that nobody saw is no harm, the device asks again
 *	age, detach, reset	the same
 *	stop marker		the same
 *
 * The rules for odd devices follow from that. A second last request, or one
 * without others before it, is a group of one. A group id that is used again
 * before its answer makes a second group, with an answer of its own. Groups of
 * different PASIDs are different groups, whatever their id.
 *
 * Immediate delivery: a handler with iopf_handler_ops::request is shown the group at
 * its first request: it is open. It stays in the table, COLLECTING, so that nobody can
 * claim it; as any other it is completed by its last request, or dropped, and then the
 * handler, which has the memory, is told by a recall.
 *
 * Memory: requests and groups live in pages that belong to struct iopf_device.
 * The pool starts small, or with what the administrator reserves, grows by whole pages
 * up to a limit and is returned
 * when the device has left the queue and the last group was freed. The limit
 * is twice the number of requests that the device may have outstanding (its
 * credits), and some: a device that was answered may send its next group before
 * the memory of the last one is back. Nothing is allocated for a fault once the
 * pool has grown. What finds no room beyond the limit is answered INVALID at once.
 *
 * A report is in a thread, or a softirq, of all devices: it allocates nothing. When few
 * of the pool are free it schedules a work item, which asks for pages in the owner's
 * name, without killing for them, and if there are none less and less often. What finds
 * no room before these have come is told to try again.
 *
 * Locks, outermost first. A driver may hold mutexes of its own while it reports,
 * and iommufd holds igroup->lock while it attaches and detaches:
 *
 *	iopf_queue::lock (mutex)	the queue's list of devices
 *	dev_iommu::lock (mutex)		publishing and removing fault_param
 *	iopf_debugfs_dir() (mutex)	making the directory once
 *	iopf_device::lock (spin)	the pool, the table of groups without last
 *					request, the counters; and the time from the
 *					look-up of an attach handle until the handler
 *					has queued the group under it
 *	the handler's own locks
 *
 * Requests are reported in softirqs, too, so the spinlocks are taken with bottom
 * halves disabled. RCU protects the way from a device to its iopf_device, which a reference keeps
 * after that, and the way from {group, PASID} to the attach handle, which is kept
 * by iopf_device::lock: see iopf_quiesce(). None of these locks is held while the
 * hardware is answered, or waited for.
 *
 * What breaks without the parts of this is in tools/iommu/models/claims.pml: GET_NO_RCU,
 * GET_FROM_ZERO, REMOVE_NO_MUTEX. Comments name more of that model's changes.
 */

#include <linux/iommu.h>
#include <linux/sched/clock.h>
#include <linux/workqueue.h>

#include "iommu-priv.h"
#include "io-pgfault.h"

/* No error: the core itself has the group, and answers it later. */
#define IOPF_PARKED	1

#define CREATE_TRACE_POINTS
#include <trace/events/iopf.h>

static struct iommu_attach_handle *
iopf_find_handle(struct device *dev, const struct iommu_fault_page_request *prm)
{
	struct iommu_group *group = dev->iommu_group;
	struct iommu_attach_handle *handle;
	ioasid_t pasid = IOMMU_NO_PASID;

	if (prm->flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID)
		pasid = prm->pasid;

	handle = iommu_attach_handle_get(group, pasid, 0);
	/*
	 * Where user space owns the PASID table, only the nested domain on the
	 * RID is attached, and it stands for every PASID.
	 */
	if (IS_ERR(handle) && pasid != IOMMU_NO_PASID && dev_iommu_ops(dev)->user_pasid_table)
		handle = iommu_attach_handle_get(group, IOMMU_NO_PASID, IOMMU_DOMAIN_NESTED);

	if (IS_ERR_OR_NULL(handle) || !handle->domain->iopf_handler)
		return NULL;
	return handle;
}

/*
 * Count a request that found no room. Returns -EAGAIN while the pool may grow, and
 * nothing is lost. One beyond the limit is, -ENOMEM: who handles such requests is told.
 */
static int iopf_no_room(struct iopf_device *fdev,
			const struct iommu_fault_page_request *prm)
{
	struct iommu_attach_handle *handle;

	fdev->count.no_room++;
	if (iopf_pool_may_grow(fdev)) {
		fdev->missed++;
		return -EAGAIN;
	}
	handle = iopf_find_handle(fdev->param.dev, prm);
	if (handle && iopf_ops(handle)->lost)
		iopf_ops(handle)->lost(handle, IOPF_CAUSE_NO_ROOM);
	return -ENOMEM;
}

/*
 * The group goes to the handler. From here on another processor may claim it, answer it
 * and give it back, so it is counted before (claims.pml: HELD_LATE). Its memory is used for
 * another one only under fdev->lock. Returns how many groups handlers have.
 */
static unsigned int iopf_hand_over(struct iopf_device *fdev, struct iopf_group *group,
				   struct iommu_attach_handle *handle,
				   enum iopf_group_state state)
{
	unsigned int depth = atomic_inc_return(&fdev->depth);

	refcount_inc(&fdev->users);
	group->attach_handle = handle;
	group->queued = jiffies;
	/* The clock is read for those alone who print what came of it. */
	group->time = trace_iopf_page_response_enabled() ||
		      trace_iopf_group_delivered_enabled() ? local_clock() : 0;
	atomic_set(&group->state, state);
	return depth;
}

/* The handler has it. */
static void iopf_held(struct iopf_device *fdev, struct iopf_group *group, unsigned int depth)
{
	if (depth > fdev->count.depth_peak)
		fdev->count.depth_peak = depth;
	trace_iopf_group_queued(group, depth);
}

/* The handler does not want it. The queue has a reference, too: @dying is not set. */
static void iopf_take_back(struct iopf_device *fdev)
{
	atomic_dec(&fdev->depth);
	refcount_dec(&fdev->users);
}

static int iopf_append(struct iopf_device *fdev, struct iopf_group *group,
		       const struct iommu_fault *fault)
{
	struct iopf_fault *iopf = iopf_request_get(fdev);

	if (!iopf)
		return -ENOMEM;

	iopf->fault = *fault;
	list_add_tail(&iopf->list, &group->faults);
	group->fault_count++;
	return 0;
}

/* Immediate delivery: show a request to the handler, if it wants to see it now. */
static int iopf_offer(struct iopf_device *fdev, struct iopf_group *group,
		      const struct iommu_fault_page_request *prm)
{
	struct iommu_attach_handle *handle;
	unsigned int depth;
	int rc;

	if (group->open)
		return iopf_ops(group->attach_handle)->request(group);
	if (group->fault_count > 1)
		return 0;

	handle = iopf_find_handle(fdev->param.dev, prm);
	if (!handle || !iopf_ops(handle)->request)
		return 0;

	group->open = true;
	depth = iopf_hand_over(fdev, group, handle, IOPF_GROUP_COLLECTING);
	rc = iopf_ops(handle)->request(group);
	if (rc) {
		group->open = false;
		iopf_take_back(fdev);
		return rc;
	}
	iopf_held(fdev, group, depth);
	return 0;
}

/* Why a group that fails with @rc is answered or forgotten by the core */
static enum iopf_cause iopf_reject_cause(int rc)
{
	switch (rc) {
	case -ENODEV:
		return IOPF_CAUSE_REMOVE;
	case -EAGAIN:
	case -ENOMEM:
	case -ENOSPC:
		return IOPF_CAUSE_NO_ROOM;
	default:
		return IOPF_CAUSE_NO_HANDLER;
	}
}

/* No answer for the group of @key can be one for all its requests any more. */
static void iopf_make_void(struct iopf_device *fdev, u64 key, struct iopf_group *group, int rc)
{
	enum iopf_cause cause = iopf_reject_cause(rc);

	if (group)
		iopf_drop(fdev, group, cause);
	iopf_mark_void(fdev, key, iopf_verdict(cause, rc == -EAGAIN ? IOMMU_PAGE_RESP_SUCCESS :
					       IOMMU_PAGE_RESP_INVALID));
}

/* The device is to try again. The group is on no list, and has its last request. */
static void iopf_park(struct iopf_device *fdev, struct iopf_group *group)
{
	unsigned int depth = iopf_hand_over(fdev, group, NULL, IOPF_GROUP_QUEUED);

	list_add_tail(&group->node, &fdev->parked);
	iopf_held(fdev, group, depth);
	queue_delayed_work(fdev->param.queue->wq, &fdev->retry_work,
			   msecs_to_jiffies(IOPF_RETRY_MS));
}

/* Groups that somebody else has answered meanwhile, in a removal say, are freed alike. */
void iopf_retry(struct work_struct *work)
{
	struct iopf_device *fdev = container_of(to_delayed_work(work),
						struct iopf_device, retry_work);
	struct iopf_answer answers[IOPF_RETRY_BATCH];
	struct iopf_group *group;
	LIST_HEAD(parked);
	unsigned int n;

	spin_lock_bh(&fdev->lock);
	list_splice_init(&fdev->parked, &parked);
	spin_unlock_bh(&fdev->lock);

	while (!list_empty(&parked)) {
		for (n = 0; n < IOPF_RETRY_BATCH && !list_empty(&parked);) {
			group = list_first_entry(&parked, struct iopf_group, node);
			list_del(&group->node);
			if (iopf_group_claim(group))
				answers[n++] = (struct iopf_answer){
					.group = group,
					.code = IOMMU_PAGE_RESP_SUCCESS,
					.cause = IOPF_CAUSE_NO_ROOM,
				};
			else
				iopf_free_group(group);
		}
		iopf_answer_groups(answers, n);
		iopf_free_groups(answers, n);
	}
}

/* Keep a request until the last one of its group is here. */
static int iopf_collect(struct iopf_device *fdev, const struct iommu_fault *fault)
{
	u64 key = iopf_key(&fault->prm);
	struct iopf_group *group;
	int rc = -ENOMEM;

	lockdep_assert_held(&fdev->lock);

	if (fdev->dying)
		return -ENODEV;
	fdev->count.requests++;

	group = iopf_find(fdev, key);
	if (group && group->verdict) {
		/* The group comes again, and is to find room for each of its requests. */
		if (iopf_verdict_cause(group->verdict) == IOPF_CAUSE_NO_ROOM)
			fdev->missed++;
		return -ENOMEM;
	}
	if (fault->prm.flags & IOMMU_FAULT_PAGE_REQUEST_REFUSED) {
		rc = -EINVAL;
		goto make_void;
	}
	if (!group)
		group = iopf_start(fdev, iopf_pool_get(fdev), key);
	if (group)
		rc = iopf_append(fdev, group, fault);
	if (rc)
		rc = iopf_no_room(fdev, &fault->prm);
	else
		rc = iopf_offer(fdev, group, &fault->prm);
	if (!rc)
		return 0;

make_void:
	iopf_make_void(fdev, key, group, rc);
	return rc;
}

/* Hand a whole group to the handler of the domain that is attached. */
static int iopf_route(struct iopf_device *fdev, struct iopf_group *group)
{
	struct iommu_attach_handle *handle;
	unsigned int depth;
	int rc;

	handle = iopf_find_handle(fdev->param.dev, &group->last_fault.fault.prm);
	if (!handle)
		return -EINVAL;

	depth = iopf_hand_over(fdev, group, handle, IOPF_GROUP_QUEUED);
	rc = handle->domain->iopf_handler(group);
	if (likely(!rc))
		iopf_held(fdev, group, depth);
	else
		iopf_take_back(fdev);
	return rc;
}

/* The handler has had the group since its first request; with an error it loses it. */
static int iopf_close(struct iopf_device *fdev, struct iopf_group *group)
{
	int rc;

	group->open = false;
	group->queued = jiffies;
	atomic_set(&group->state, IOPF_GROUP_QUEUED);
	rc = group->attach_handle->domain->iopf_handler(group);
	if (rc)
		iopf_recall(fdev, group, iopf_reject_cause(rc));
	else
		trace_iopf_group_queued(group, atomic_read(&fdev->depth));
	return rc;
}

static void iopf_append_last(struct iopf_group *group, const struct iopf_fault *evt)
{
	group->last_fault.fault = evt->fault;
	list_add_tail(&group->last_fault.list, &group->faults);
	group->fault_count++;
}

/* The last request of a void group */
static int iopf_complete_void(struct iopf_device *fdev, struct iopf_group *group,
			      const struct iopf_fault *evt, enum iopf_cause *cause)
{
	*cause = iopf_verdict_cause(group->verdict);
	if (iopf_verdict_code(group->verdict) != IOMMU_PAGE_RESP_SUCCESS) {
		iopf_drop(fdev, group, *cause);
		return -ENOMEM;
	}
	iopf_unhash(fdev, group);
	group->verdict = 0;
	iopf_append_last(group, evt);
	iopf_park(fdev, group);
	return IOPF_PARKED;
}

/*
 * The last request of a group. With an error it is to be answered, and @cause says why;
 * returns IOPF_PARKED if the core itself has the group.
 */
static int iopf_complete(struct iopf_device *fdev, struct iopf_fault *evt,
			 enum iopf_cause *cause)
{
	u64 key = iopf_key(&evt->fault.prm);
	struct iopf_group *group = NULL;
	int rc;

	lockdep_assert_held(&fdev->lock);

	if (fdev->dying)
		return -ENODEV;
	fdev->count.requests++;
	fdev->count.groups++;

	if (fdev->count.partials)
		group = iopf_find(fdev, key);
	if (group && group->verdict)
		return iopf_complete_void(fdev, group, evt, cause);
	if (evt->fault.prm.flags & IOMMU_FAULT_PAGE_REQUEST_REFUSED) {
		*cause = IOPF_CAUSE_NO_HANDLER;
		if (group)
			iopf_drop(fdev, group, *cause);
		return -EINVAL;
	}
	if (group)
		iopf_unhash(fdev, group);
	else
		group = iopf_pool_get(fdev);
	if (!group) {
		rc = iopf_no_room(fdev, &evt->fault.prm);
		*cause = IOPF_CAUSE_NO_ROOM;
		group = rc == -EAGAIN ? __iopf_pool_get(fdev) : NULL;
		if (!group)
			return rc;
		iopf_append_last(group, evt);
		iopf_park(fdev, group);
		return IOPF_PARKED;
	}

	group->key = key;
	iopf_append_last(group, evt);
	if (unlikely(group->open)) {
		rc = iopf_close(fdev, group);
		*cause = iopf_reject_cause(rc);
		return rc;
	}

	rc = iopf_route(fdev, group);
	if (likely(!rc))
		return 0;
	if (rc == -EAGAIN) {
		iopf_park(fdev, group);
		return IOPF_PARKED;
	}
	*cause = iopf_reject_cause(rc);
	iopf_pool_put(fdev, group);
	return rc;
}

static enum iommu_page_response_code iopf_reject_code(int rc)
{
	return rc == -EAGAIN ? IOMMU_PAGE_RESP_SUCCESS : IOMMU_PAGE_RESP_INVALID;
}

/* Answer a group that no handler took. Only its last request asks for one. */
static void iopf_reject(struct device *dev, struct iopf_fault *evt, enum iopf_cause cause,
			enum iommu_page_response_code code)
{
	struct iommu_fault_page_request *prm = &evt->fault.prm;
	struct iommu_page_response resp = {
		.pasid = prm->pasid,
		.grpid = prm->grpid,
		.code = code,
	};

	if (!(prm->flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE))
		return;

	trace_iopf_page_response(dev, prm, resp.code, cause, 0);
	if (code == IOMMU_PAGE_RESP_INVALID)
		dev_warn_ratelimited(dev, "page request group %u, pasid %u: answered invalid\n",
				     prm->grpid, prm->pasid);
	dev_iommu_ops(dev)->page_response(dev, evt, &resp);
}

static int iopf_take(struct iopf_device *fdev, struct iopf_fault *evt, enum iopf_cause *cause)
{
	bool last = evt->fault.prm.flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	int rc;

	spin_lock_bh(&fdev->lock);
	iopf_pool_watch(fdev);
	trace_iopf_page_request(fdev->param.dev, &evt->fault.prm);
	if (last)
		rc = iopf_complete(fdev, evt, cause);
	else
		rc = iopf_collect(fdev, &evt->fault);
	spin_unlock_bh(&fdev->lock);

	if (unlikely(rc < 0) && last)
		atomic64_inc(&fdev->answered[*cause][iopf_reject_code(rc)]);
	return rc;
}

/**
 * iommu_report_device_fault() - Report one page request of a device
 * @dev: the device that made the request
 * @evt: the request; copied, it may live on the caller's stack
 *
 * Requests of one group share {PASID or none, group id}; the one flagged
 * IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE completes the group (PCIe 6.0, 10.4.1).
 * Every last request is answered once through ops->page_response(): by the handler
 * of the attached domain, or before this function returns when there is no such handler
 * or no room. No answer is sent for a group that is recalled, as its device does not wait
 * any more. Requests that are not the last never have an answer of their own.
 *
 * A driver that knows that a request cannot be served reports it all the same,
 * flagged IOMMU_FAULT_PAGE_REQUEST_REFUSED: its whole group is answered INVALID
 * when the last request is here, and no handler gets it.
 *
 * Stop markers are not page requests: drivers call iopf_discard_pasid() instead.
 *
 * A driver must not report for a PASID once its domain is detached and the
 * hardware queue is drained; until then a handle that is being detached is
 * protected as iopf_quiesce() describes.
 *
 * Context: Process context, or a softirq of a driver whose ops->page_response() does not
 * sleep, as it may be called from here. Takes the device's fault lock, under which the
 * domain's iopf_handler is called, with bottom halves disabled: handlers must not sleep.
 * Allocates nothing.
 *
 * Return: 0 if the request was collected or its group was taken by a handler.
 * -EINVAL: nobody handles faults of this device and PASID; -ENOMEM: the
 * device sends more than its credits; -ENODEV: the device is not on
 * a queue (any more); or what the handler returned. With an error, a last
 * request has been answered with IOMMU_PAGE_RESP_INVALID; but with -EAGAIN it will
 * be with IOMMU_PAGE_RESP_SUCCESS, and the device asks again.
 */
int iommu_report_device_fault(struct device *dev, struct iopf_fault *evt)
{
	enum iopf_cause cause = IOPF_CAUSE_REMOVE;
	struct iopf_device *fdev;
	int rc = -ENODEV;

	/*
	 * Keeps @fdev to the end of its lock: others may have given the group back, and
	 * the device may have left its queue, by then (claims.pml: GET_NO_RCU).
	 */
	rcu_read_lock();
	fdev = to_iopf_device(rcu_dereference(dev->iommu->fault_param));
	if (likely(fdev))
		rc = iopf_take(fdev, evt, &cause);
	else
		trace_iopf_page_request(dev, &evt->fault.prm);
	rcu_read_unlock();

	if (likely(!rc))
		return 0;
	if (rc == IOPF_PARKED)
		return -EAGAIN;
	/* A device that is on no queue has its answer, too. */
	iopf_reject(dev, evt, cause, iopf_reject_code(rc));
	return rc;
}
EXPORT_SYMBOL_GPL(iommu_report_device_fault);
