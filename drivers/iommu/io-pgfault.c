// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page fault core: from a decoded page request to one answered group
 *
 * An IOMMU driver decodes one hardware entry and calls
 * iommu_report_device_fault(). Requests that are not the last of their group
 * are collected here; the last one completes the group, which is routed by
 * {device, PASID} to the domain attached there and handed to that domain's
 * iopf_handler. The handler owns the group from then on. Whoever claims the
 * group answers the hardware, exactly once.
 *
 * States of a group (struct iopf_group::state), one atomic transition each:
 *
 *	            iopf_collect()          iopf_complete()
 *	    GONE ------------------> COLLECTING ----------> QUEUED
 *	      ^  \______________________________________________^
 *	      |          (a group of one request)             |  ^
 *	      |                           iopf_group_deliver()|  |iopf_group_restore()
 *	      |                                               v  |
 *	      |   iopf_answer_groups()       iopf_group_claim()
 *	      +-------------------- ANSWERING <----- QUEUED or DELIVERED
 *
 * Memory: requests and groups live in pages that belong to struct iopf_device.
 * The pool starts small, grows by whole pages up to a limit and is returned
 * when the device has left the queue and the last group was freed. The limit
 * is twice the number of requests that the device may have outstanding (its
 * credits), and some: a device that was answered may send its next group before
 * the memory of the last one is back. Nothing is allocated for a fault once the
 * pool has grown. What finds no room is answered INVALID at once.
 *
 * Locks, outermost first:
 *
 *	iopf_queue::lock (mutex)	the queue's list of devices
 *	dev_iommu::lock (mutex)		publishing and removing fault_param
 *	iopf_device::lock (spin)	the pool, the table of collecting
 *					groups, and the time from the look-up
 *					of an attach handle until the handler
 *					has queued the group under it
 *	the handler's own locks
 *
 * No lock is held while the hardware is answered.
 */

#include <linux/hash.h>
#include <linux/iommu.h>
#include <linux/memcontrol.h>
#include <linux/pci.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "iommu-priv.h"

/* Credits of a device that does not state them in a PRI capability */
#define IOPF_DEFAULT_CREDITS	4096
/* The most that any device gets, whatever its capability says */
#define IOPF_MAX_CREDITS	4096
/* Groups that several threads may have answered and not freed yet */
#define IOPF_ANSWER_SLACK	256
/* Marks for groups that lost a request; two groups may share one */
#define IOPF_LOST_BITS		10

/**
 * struct iopf_device - fault state of one device
 * @param: the part that handlers see, and what &dev_iommu.fault_param points to
 * @users: one for the queue, one for each report under way and each group that
 *         a handler holds
 * @rcu: delays the free until report's look-up cannot see it any more
 * @queue_list: node in &iopf_queue.devices, protected by &iopf_queue.lock
 * @idle: woken for each answer once @dying is set
 * @memcg: charged for the pool: that of the task which added the device
 * @lock: protects everything below it
 * @dying: the device left the queue; no group is collected or queued any more
 * @limit: how many requests, and groups, the pool may grow to
 * @allocated: how many it has grown to
 * @free_groups: groups without a request in them
 * @free_requests: requests without a group
 * @pages: every page of the pool, newest first
 * @partial_bits: log2 of the number of buckets in @partial
 * @partial: collecting groups by {PASID or none, group id}
 * @lost: groups of which a request found no room, until their last request
 */
struct iopf_device {
	struct iommu_fault_param param;
	refcount_t users;
	struct rcu_head rcu;
	struct list_head queue_list;
	wait_queue_head_t idle;
	struct mem_cgroup *memcg;

	spinlock_t lock;	/* all below */
	bool dying;
	unsigned int limit;
	unsigned int allocated;
	struct list_head free_groups;
	struct list_head free_requests;
	struct iopf_page *pages;
	unsigned int partial_bits;
	struct hlist_head *partial;
	DECLARE_BITMAP(lost, 1 << IOPF_LOST_BITS);
};

/* As many pairs of a group and a request as one page takes */
struct iopf_page {
	struct iopf_page *next;
	struct iopf_pair {
		struct iopf_group group;
		struct iopf_fault request;
	} pairs[];
};

#define IOPF_PAIRS_PER_PAGE \
	((PAGE_SIZE - sizeof(struct iopf_page)) / sizeof(struct iopf_pair))

static struct iopf_device *to_iopf_device(struct iommu_fault_param *param)
{
	return param ? container_of(param, struct iopf_device, param) : NULL;
}

static struct iopf_device *iopf_device_get(struct device *dev)
{
	struct iopf_device *fdev;

	rcu_read_lock();
	fdev = to_iopf_device(rcu_dereference(dev->iommu->fault_param));
	if (fdev && !refcount_inc_not_zero(&fdev->users))
		fdev = NULL;
	rcu_read_unlock();

	return fdev;
}

static void iopf_device_put_many(struct iopf_device *fdev, int references)
{
	struct iopf_page *page, *next;

	if (!refcount_sub_and_test(references, &fdev->users))
		return;

	for (page = fdev->pages; page; page = next) {
		next = page->next;
		kfree(page);
	}
	kvfree(fdev->partial);
	mem_cgroup_put(fdev->memcg);
	kfree_rcu(fdev, rcu);
}

static void iopf_device_put(struct iopf_device *fdev)
{
	iopf_device_put_many(fdev, 1);
}

/* Add a page of groups and requests. Context: may sleep, takes fdev->lock. */
static int iopf_pool_grow(struct iopf_device *fdev)
{
	struct mem_cgroup *old_memcg;
	struct iopf_page *page;
	unsigned int i;

	old_memcg = set_active_memcg(fdev->memcg);
	page = kzalloc(PAGE_SIZE, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	set_active_memcg(old_memcg);
	if (!page)
		return -ENOMEM;

	for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++)
		atomic_set(&page->pairs[i].group.state, IOPF_GROUP_GONE);

	spin_lock(&fdev->lock);
	/* Another report may have been faster, or the device is gone by now. */
	for (i = 0; i < IOPF_PAIRS_PER_PAGE && !fdev->dying &&
	     fdev->allocated < fdev->limit; i++) {
		list_add_tail(&page->pairs[i].group.node, &fdev->free_groups);
		list_add_tail(&page->pairs[i].request.list, &fdev->free_requests);
		fdev->allocated++;
	}
	if (i) {
		page->next = fdev->pages;
		fdev->pages = page;
	}
	spin_unlock(&fdev->lock);

	if (!i)
		kfree(page);
	return 0;
}

static bool iopf_pool_has_room(struct iopf_device *fdev)
{
	return !list_empty(&fdev->free_groups) && !list_empty(&fdev->free_requests);
}

/* Take fdev->lock with a group and a request free, if the limit allows it. */
static void iopf_lock_with_room(struct iopf_device *fdev)
{
	spin_lock(&fdev->lock);
	while (unlikely(!iopf_pool_has_room(fdev)) && !fdev->dying &&
	       fdev->allocated < fdev->limit) {
		int rc;

		spin_unlock(&fdev->lock);
		rc = iopf_pool_grow(fdev);
		spin_lock(&fdev->lock);
		if (rc)
			break;
	}
}

static struct iopf_group *iopf_pool_get(struct iopf_device *fdev)
{
	struct iopf_group *group;

	group = list_first_entry_or_null(&fdev->free_groups, struct iopf_group, node);
	if (!group)
		return NULL;

	list_del(&group->node);
	INIT_LIST_HEAD(&group->faults);
	group->fault_count = 0;
	group->incomplete = false;
	group->fault_param = &fdev->param;
	atomic_set(&group->state, IOPF_GROUP_COLLECTING);
	return group;
}

static void iopf_pool_put(struct iopf_device *fdev, struct iopf_group *group)
{
	lockdep_assert_held(&fdev->lock);

	/* The last request, if there is one, is part of the group itself. */
	if (!list_empty(&group->faults) &&
	    list_last_entry(&group->faults, struct iopf_fault, list) == &group->last_fault)
		list_del(&group->last_fault.list);
	list_splice(&group->faults, &fdev->free_requests);
	atomic_set(&group->state, IOPF_GROUP_GONE);
	list_add(&group->node, &fdev->free_groups);
}

/* What tells one group from another among those of one device */
static u64 iopf_key(const struct iommu_fault_page_request *prm)
{
	u32 pasid = prm->flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID ?
		    prm->pasid : IOMMU_PASID_INVALID;

	return (u64)prm->grpid << 32 | pasid;
}

/* The PASID that a group's handle is found by */
static ioasid_t iopf_key_pasid(u64 key)
{
	u32 pasid = lower_32_bits(key);

	return pasid == IOMMU_PASID_INVALID ? IOMMU_NO_PASID : pasid;
}

static unsigned int iopf_lost_bit(u64 key)
{
	return hash_64(key, IOPF_LOST_BITS);
}

static struct hlist_head *iopf_bucket(struct iopf_device *fdev, u64 key)
{
	return &fdev->partial[hash_64(key, fdev->partial_bits)];
}

static struct iopf_group *iopf_find(struct iopf_device *fdev, u64 key)
{
	struct iopf_group *group;

	hlist_for_each_entry(group, iopf_bucket(fdev, key), partial_node) {
		if (group->key == key)
			return group;
	}
	return NULL;
}

/*
 * Forget collecting groups: all of the device, or those of one PASID. A device
 * that still sends the last request of one gets an answer for that one alone.
 */
static void iopf_discard(struct iopf_device *fdev, bool all, ioasid_t pasid)
{
	struct iopf_group *group;
	struct hlist_node *next;
	unsigned int i;

	lockdep_assert_held(&fdev->lock);

	for (i = 0; i < 1U << fdev->partial_bits; i++) {
		hlist_for_each_entry_safe(group, next, &fdev->partial[i], partial_node) {
			if (!all && iopf_key_pasid(group->key) != pasid)
				continue;
			hlist_del(&group->partial_node);
			iopf_pool_put(fdev, group);
		}
	}
	if (all)
		bitmap_zero(fdev->lost, 1 << IOPF_LOST_BITS);
}

/* Keep a request until the last one of its group is here. */
static int iopf_collect(struct iopf_device *fdev, const struct iommu_fault *fault)
{
	u64 key = iopf_key(&fault->prm);
	struct iopf_group *group;
	struct iopf_fault *iopf;
	int rc = 0;

	iopf_lock_with_room(fdev);
	if (fdev->dying) {
		rc = -ENODEV;
		goto out_unlock;
	}

	group = iopf_find(fdev, key);
	if (!group) {
		group = iopf_pool_get(fdev);
		if (!group) {
			__set_bit(iopf_lost_bit(key), fdev->lost);
			rc = -ENOMEM;
			goto out_unlock;
		}
		group->key = key;
		hlist_add_head(&group->partial_node, iopf_bucket(fdev, key));
	}
	if (fault->prm.flags & IOMMU_FAULT_PAGE_REQUEST_REFUSED) {
		group->incomplete = true;
		goto out_unlock;
	}

	iopf = list_first_entry_or_null(&fdev->free_requests, struct iopf_fault, list);
	if (!iopf) {
		group->incomplete = true;
		rc = -ENOMEM;
		goto out_unlock;
	}
	iopf->fault = *fault;
	list_move_tail(&iopf->list, &group->faults);
	group->fault_count++;

out_unlock:
	spin_unlock(&fdev->lock);
	return rc;
}

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

/* Hand a whole group to the handler of the domain that is attached. */
static int iopf_route(struct device *dev, struct iopf_group *group)
{
	group->attach_handle = iopf_find_handle(dev, &group->last_fault.fault.prm);
	if (!group->attach_handle)
		return -EINVAL;

	/*
	 * From here on another processor may claim the group, but it cannot
	 * free it: that takes fdev->lock.
	 */
	atomic_set(&group->state, IOPF_GROUP_QUEUED);
	return group->attach_handle->domain->iopf_handler(group);
}

/* The last request of a group: on success the handler owns @fdev's reference. */
static int iopf_complete(struct iopf_device *fdev, struct iopf_fault *evt)
{
	u64 key = iopf_key(&evt->fault.prm);
	struct iopf_group *group;
	bool lost;
	int rc;

	iopf_lock_with_room(fdev);
	if (fdev->dying) {
		rc = -ENODEV;
		goto out_unlock;
	}

	lost = __test_and_clear_bit(iopf_lost_bit(key), fdev->lost);
	group = iopf_find(fdev, key);
	if (group)
		hlist_del(&group->partial_node);
	else
		group = iopf_pool_get(fdev);
	if (!group) {
		rc = -ENOMEM;
		goto out_unlock;
	}

	group->key = key;
	group->last_fault.fault = evt->fault;
	list_add_tail(&group->last_fault.list, &group->faults);
	group->fault_count++;

	/* A handler's answer would also be one for the requests that are missing. */
	if (lost || group->incomplete)
		rc = -ENOMEM;
	else if (evt->fault.prm.flags & IOMMU_FAULT_PAGE_REQUEST_REFUSED)
		rc = -EINVAL;
	else
		rc = iopf_route(fdev->param.dev, group);
	if (rc)
		iopf_pool_put(fdev, group);

out_unlock:
	spin_unlock(&fdev->lock);
	return rc;
}

/* Answer a group that no handler took. Only its last request asks for one. */
static void iopf_reject(struct device *dev, struct iopf_fault *evt)
{
	struct iommu_fault_page_request *prm = &evt->fault.prm;
	struct iommu_page_response resp = {
		.pasid = prm->pasid,
		.grpid = prm->grpid,
		.code = IOMMU_PAGE_RESP_INVALID,
	};

	if (!(prm->flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE))
		return;

	dev_warn_ratelimited(dev, "page request group %u, pasid %u: answered invalid\n",
			     prm->grpid, prm->pasid);
	dev_iommu_ops(dev)->page_response(dev, evt, &resp);
}

/**
 * iommu_report_device_fault() - Report one page request of a device
 * @dev: the device that made the request
 * @evt: the request; copied, it may live on the caller's stack
 *
 * Requests of one group share {PASID or none, group id}; the one flagged
 * IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE completes the group (PCIe 6.0, 10.4.1).
 * Every last request is answered exactly once through ops->page_response():
 * by the handler of the attached domain, or before this function returns when
 * there is no such handler or no room. Requests that are not the last never
 * have an answer of their own.
 *
 * A driver that knows that a request cannot be served reports it all the same,
 * flagged IOMMU_FAULT_PAGE_REQUEST_REFUSED: its whole group is answered INVALID
 * when the last request is here, and no handler sees it.
 *
 * Stop markers are not page requests: drivers call iopf_discard_pasid() instead.
 *
 * A driver must not report for a PASID once its domain is detached and the
 * hardware queue is drained; until then a handle that is being detached is
 * protected as iopf_quiesce() describes.
 *
 * Context: Process context, may sleep. Takes the device's fault lock, under
 * which the domain's iopf_handler is called: handlers must not sleep.
 *
 * Return: 0 if the request was collected or its group was taken by a handler.
 * -EINVAL: nobody handles faults of this device and PASID; -ENOMEM: the
 * device sends more than its credits, or no memory; -ENODEV: the device is not on
 * a queue (any more); or what the handler returned. With an error, a last
 * request has been answered with IOMMU_PAGE_RESP_INVALID.
 */
int iommu_report_device_fault(struct device *dev, struct iopf_fault *evt)
{
	bool last = evt->fault.prm.flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	struct iopf_device *fdev = iopf_device_get(dev);
	int rc = -ENODEV;

	if (fdev) {
		rc = last ? iopf_complete(fdev, evt) :
			    iopf_collect(fdev, &evt->fault);
		if (rc || !last)
			iopf_device_put(fdev);
	}
	if (unlikely(rc))
		iopf_reject(dev, evt);
	return rc;
}
EXPORT_SYMBOL_GPL(iommu_report_device_fault);

static struct iommu_device *iopf_iommu(const struct iopf_answer *answer)
{
	return answer->group->fault_param->dev->iommu->iommu_dev;
}

static void iopf_answer_one(const struct iopf_answer *answer)
{
	struct iommu_fault_page_request *prm = &answer->group->last_fault.fault.prm;
	struct device *dev = answer->group->fault_param->dev;
	struct iommu_page_response resp = {
		.pasid = prm->pasid,
		.grpid = prm->grpid,
		.code = answer->code,
	};

	dev_iommu_ops(dev)->page_response(dev, &answer->group->last_fault, &resp);
}

static void iopf_answered(struct iopf_group *group)
{
	struct iopf_device *fdev = to_iopf_device(group->fault_param);

	/*
	 * The exchange orders the new state before the look at @dying; the
	 * remover sets @dying before it looks at the states. One of the two
	 * sees the other.
	 */
	atomic_xchg(&group->state, IOPF_GROUP_GONE);
	if (unlikely(READ_ONCE(fdev->dying)))
		wake_up_all(&fdev->idle);
}

/* Move the answers for the first one's IOMMU to the front; returns their number. */
static unsigned int iopf_first_iommu(struct iopf_answer *answers, unsigned int count)
{
	struct iommu_device *iommu = iopf_iommu(answers);
	unsigned int i, n = 1;

	for (i = 1; i < count; i++) {
		if (iopf_iommu(&answers[i]) != iommu)
			continue;
		if (i != n)
			swap(answers[i], answers[n]);
		n++;
	}
	return n;
}

/**
 * iopf_answer_groups() - Answer the hardware for claimed groups
 * @answers: the groups, each claimed by the caller with iopf_group_claim(), and
 *           what their devices are told; in another order on return
 * @count: number of @answers
 *
 * One call of the driver for each IOMMU, if it has page_response_batch. The
 * caller still owns the memory of the groups and frees it.
 *
 * Context: Process context, may sleep. No lock of the fault core is held while
 * the driver answers.
 */
void iopf_answer_groups(struct iopf_answer *answers, unsigned int count)
{
	struct iommu_device *iommu;
	unsigned int i, n;

	for (; count; count -= n, answers += n) {
		iommu = iopf_iommu(answers);
		n = 1;
		if (iommu->ops->page_response_batch) {
			n = iopf_first_iommu(answers, count);
			iommu->ops->page_response_batch(iommu, answers, n);
		} else {
			iopf_answer_one(answers);
		}
		for (i = 0; i < n; i++)
			iopf_answered(answers[i].group);
	}
}
EXPORT_SYMBOL_GPL(iopf_answer_groups);

/**
 * iopf_group_response() - Claim a group and answer it
 * @group: the group of faults
 * @status: what the device is told
 *
 * For handlers with a single path that answers. Does nothing if the group was
 * answered already because its device went away.
 *
 * Context: Process context, may sleep.
 */
void iopf_group_response(struct iopf_group *group, enum iommu_page_response_code status)
{
	struct iopf_answer answer = { .group = group, .code = status };

	if (iopf_group_claim(group))
		iopf_answer_groups(&answer, 1);
}
EXPORT_SYMBOL_GPL(iopf_group_response);

/**
 * iopf_free_groups() - Give the memory of answered groups back
 * @groups: the groups, linked by &iopf_group.node; empty on return
 *
 * Context: Any context that may take a spinlock, but not under a lock that the
 * handler itself takes.
 */
void iopf_free_groups(struct list_head *groups)
{
	struct iopf_group *group, *next;
	struct iopf_device *fdev;
	int freed;

	while (!list_empty(groups)) {
		group = list_first_entry(groups, struct iopf_group, node);
		fdev = to_iopf_device(group->fault_param);
		freed = 0;

		/* As many as come from the same device in a row */
		spin_lock(&fdev->lock);
		list_for_each_entry_safe(group, next, groups, node) {
			if (group->fault_param != &fdev->param)
				break;
			list_del(&group->node);
			iopf_pool_put(fdev, group);
			freed++;
		}
		spin_unlock(&fdev->lock);
		iopf_device_put_many(fdev, freed);
	}
}
EXPORT_SYMBOL_GPL(iopf_free_groups);

/**
 * iopf_free_group() - Give the memory of one answered group back
 * @group: the group; on no list, and not to be used afterwards
 *
 * Context: As iopf_free_groups().
 */
void iopf_free_group(struct iopf_group *group)
{
	LIST_HEAD(groups);

	list_add(&group->node, &groups);
	iopf_free_groups(&groups);
}
EXPORT_SYMBOL_GPL(iopf_free_group);

/**
 * iopf_quiesce() - Wait until no report uses a detached handle
 * @dev: the device that was detached
 * @pasid: the PASID it was detached from; IOMMU_NO_PASID stands for the RID
 *         and, where user space owns the PASID table, for all PASIDs
 *
 * To be called after the attach handle was taken out of the group's table and
 * before it is freed. On return every group that was routed by it has been
 * passed to the handler, and none will be. Requests whose last one has not
 * come are forgotten, so that they cannot reach the next domain.
 *
 * Context: Process context. Takes the device's fault lock.
 */
void iopf_quiesce(struct device *dev, ioasid_t pasid)
{
	bool all = pasid == IOMMU_NO_PASID && dev_iommu_ops(dev)->user_pasid_table;
	struct iopf_device *fdev = iopf_device_get(dev);

	if (!fdev)
		return;

	spin_lock(&fdev->lock);
	iopf_discard(fdev, all, pasid);
	spin_unlock(&fdev->lock);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_quiesce);

/**
 * iopf_discard_pasid() - Forget the collecting groups of a PASID
 * @dev: the device
 * @pasid: of which the device will send no more page requests; IOMMU_NO_PASID
 *         stands for those without one
 *
 * For drivers that see a stop marker (PCIe 6.0, 10.4.1.2.1). Groups that a handler
 * has are answered as ever.
 *
 * Context: Process context. Takes the device's fault lock.
 */
void iopf_discard_pasid(struct device *dev, ioasid_t pasid)
{
	struct iopf_device *fdev = iopf_device_get(dev);

	if (!fdev)
		return;

	spin_lock(&fdev->lock);
	iopf_discard(fdev, false, pasid);
	spin_unlock(&fdev->lock);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_discard_pasid);

/**
 * iopf_queue_flush_dev() - Wait for handlers that work on the queue's workqueue
 * @dev: the device whose faults are to be handled first
 *
 * IOMMU drivers call this when a PASID is released, after they have drained
 * the hardware queue and with no new faults coming.
 *
 * Context: Process context, sleeps until the work is done.
 *
 * Return: 0, or -ENODEV if the device is not on a queue.
 */
int iopf_queue_flush_dev(struct device *dev)
{
	struct iopf_device *fdev = iopf_device_get(dev);

	if (!fdev)
		return -ENODEV;

	flush_workqueue(fdev->param.queue->wq);
	iopf_device_put(fdev);
	return 0;
}
EXPORT_SYMBOL_GPL(iopf_queue_flush_dev);

/**
 * iopf_queue_discard_partial() - Forget all collecting groups of a queue
 * @queue: the queue
 *
 * After a hardware queue overflow the last request of a group may be among
 * those that were lost. The caller must not report on this queue meanwhile.
 *
 * Context: Process context, may sleep.
 *
 * Return: 0, or -EINVAL without a queue.
 */
int iopf_queue_discard_partial(struct iopf_queue *queue)
{
	struct iopf_device *fdev;

	if (!queue)
		return -EINVAL;

	mutex_lock(&queue->lock);
	list_for_each_entry(fdev, &queue->devices, queue_list) {
		spin_lock(&fdev->lock);
		iopf_discard(fdev, true, 0);
		spin_unlock(&fdev->lock);
	}
	mutex_unlock(&queue->lock);
	return 0;
}
EXPORT_SYMBOL_GPL(iopf_queue_discard_partial);

/* How many page requests the device may have outstanding (PCIe 6.0, 10.5.2.4) */
static unsigned int iopf_credits(struct device *dev)
{
	u32 credits = IOPF_DEFAULT_CREDITS;
	struct pci_dev *pdev;

	if (dev_is_pci(dev)) {
		pdev = to_pci_dev(dev);
		if (pdev->pri_cap)
			pci_read_config_dword(pdev, pdev->pri_cap + PCI_PRI_MAX_REQ, &credits);
	}
	return clamp_t(u32, credits, 1, IOPF_MAX_CREDITS);
}

static struct iopf_device *iopf_device_alloc(struct iopf_queue *queue, struct device *dev)
{
	struct iopf_device *fdev;
	unsigned int credits;

	fdev = kzalloc(sizeof(*fdev), GFP_KERNEL_ACCOUNT);
	if (!fdev)
		return NULL;

	credits = iopf_credits(dev);
	fdev->limit = 2 * credits + IOPF_ANSWER_SLACK;
	fdev->partial_bits = max(order_base_2(credits), 1);
	fdev->partial = kvcalloc(1U << fdev->partial_bits, sizeof(*fdev->partial),
				 GFP_KERNEL_ACCOUNT);
	if (!fdev->partial) {
		kfree(fdev);
		return NULL;
	}

	fdev->memcg = get_mem_cgroup_from_mm(current->mm);
	spin_lock_init(&fdev->lock);
	refcount_set(&fdev->users, 1);
	init_waitqueue_head(&fdev->idle);
	INIT_LIST_HEAD(&fdev->free_groups);
	INIT_LIST_HEAD(&fdev->free_requests);
	fdev->param.dev = dev;
	fdev->param.queue = queue;

	if (iopf_pool_grow(fdev)) {
		iopf_device_put(fdev);
		return NULL;
	}
	return fdev;
}

/**
 * iopf_queue_add_device() - Let a device report page requests
 * @queue: the queue that it joins
 * @dev: the device
 *
 * The memory for its faults is charged to the calling task's memory cgroup.
 *
 * Context: Process context, may sleep.
 *
 * Return: 0 on success, -ENODEV if its IOMMU cannot answer page requests,
 * -EBUSY if it is on a queue already, -ENOMEM.
 */
int iopf_queue_add_device(struct iopf_queue *queue, struct device *dev)
{
	struct dev_iommu *iommu = dev->iommu;
	struct iopf_device *fdev;

	if (!dev_iommu_ops(dev)->page_response)
		return -ENODEV;

	fdev = iopf_device_alloc(queue, dev);
	if (!fdev)
		return -ENOMEM;

	mutex_lock(&queue->lock);
	mutex_lock(&iommu->lock);
	if (rcu_access_pointer(iommu->fault_param)) {
		mutex_unlock(&iommu->lock);
		mutex_unlock(&queue->lock);
		iopf_device_put(fdev);
		return -EBUSY;
	}
	list_add_tail(&fdev->queue_list, &queue->devices);
	rcu_assign_pointer(iommu->fault_param, &fdev->param);
	mutex_unlock(&iommu->lock);
	mutex_unlock(&queue->lock);
	return 0;
}
EXPORT_SYMBOL_GPL(iopf_queue_add_device);

static bool iopf_is_answering(struct iopf_device *fdev)
{
	struct iopf_page *page;
	unsigned int i;

	for (page = fdev->pages; page; page = page->next) {
		for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++) {
			if (atomic_read(&page->pairs[i].group.state) == IOPF_GROUP_ANSWERING)
				return true;
		}
	}
	return false;
}

/* Claim and answer what handlers still hold; they find out when they try. */
static void iopf_abort(struct iopf_device *fdev)
{
	struct iopf_page *page;
	unsigned int i;

	for (page = fdev->pages; page; page = page->next) {
		for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++)
			iopf_group_response(&page->pairs[i].group, IOMMU_PAGE_RESP_INVALID);
	}
	wait_event(fdev->idle, !iopf_is_answering(fdev));
}

/**
 * iopf_queue_remove_device() - Stop a device from reporting page requests
 * @queue: the queue that it is on
 * @dev: the device
 *
 * The driver stops the source first, in the device or in the IOMMU, and drains
 * the hardware queue. Groups which a handler still holds are answered INVALID
 * here, and no answer for @dev is under way when this returns. Late answers of
 * handlers are ignored; a late request is answered by the report itself.
 *
 * Context: Process context, sleeps until the last answer is out.
 */
void iopf_queue_remove_device(struct iopf_queue *queue, struct device *dev)
{
	struct dev_iommu *iommu = dev->iommu;
	struct iopf_device *fdev;

	mutex_lock(&queue->lock);
	mutex_lock(&iommu->lock);
	fdev = to_iopf_device(rcu_dereference_protected(iommu->fault_param,
							lockdep_is_held(&iommu->lock)));
	if (WARN_ON(!fdev || fdev->param.queue != queue)) {
		mutex_unlock(&iommu->lock);
		mutex_unlock(&queue->lock);
		return;
	}
	RCU_INIT_POINTER(iommu->fault_param, NULL);
	list_del(&fdev->queue_list);
	mutex_unlock(&iommu->lock);
	mutex_unlock(&queue->lock);

	/* With @dying seen under the lock the pool's pages cannot change. */
	spin_lock(&fdev->lock);
	WRITE_ONCE(fdev->dying, true);
	iopf_discard(fdev, true, 0);
	spin_unlock(&fdev->lock);

	iopf_abort(fdev);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_queue_remove_device);

/**
 * iopf_queue_alloc() - Create a fault queue
 * @name: names the queue's workqueue
 *
 * Usually one for each IOMMU.
 *
 * Context: Process context, may sleep.
 *
 * Return: the queue, or NULL if there is no memory.
 */
struct iopf_queue *iopf_queue_alloc(const char *name)
{
	struct iopf_queue *queue;

	queue = kzalloc(sizeof(*queue), GFP_KERNEL);
	if (!queue)
		return NULL;

	mutex_init(&queue->lock);
	INIT_LIST_HEAD(&queue->devices);
	/* Unbound: groups are independent of each other, the device waits. */
	queue->wq = alloc_workqueue("iopf_queue/%s", WQ_UNBOUND, 0, name);
	if (queue->wq)
		return queue;

	kfree(queue);
	return NULL;
}
EXPORT_SYMBOL_GPL(iopf_queue_alloc);

/**
 * iopf_queue_free() - Free a fault queue
 * @queue: the queue, or NULL
 *
 * Removes the devices that are still on it. Nothing may report on it or be
 * added to it any more.
 *
 * Context: Process context, may sleep.
 */
void iopf_queue_free(struct iopf_queue *queue)
{
	struct iopf_device *fdev, *next;

	if (!queue)
		return;

	list_for_each_entry_safe(fdev, next, &queue->devices, queue_list)
		iopf_queue_remove_device(queue, fdev->param.dev);
	destroy_workqueue(queue->wq);
	kfree(queue);
}
EXPORT_SYMBOL_GPL(iopf_queue_free);
