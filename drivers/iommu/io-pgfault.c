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
 *	            iopf_start()            iopf_complete(), iopf_offer()
 *	    GONE ------------------> COLLECTING ----------> QUEUED
 *	      ^  \______________________________________________^
 *	      |          (a group of one request)             |  ^
 *	      |                           iopf_group_deliver()|  |iopf_group_restore()
 *	      |                                               v  |
 *	      |   iopf_answer_groups()       iopf_group_claim()
 *	      +-------------------- ANSWERING <----- QUEUED or DELIVERED
 *	      ^                                               |
 *	      +-----------------------------------------------+
 *	         iopf_recall(): nobody waits for an answer
 *
 * Groups without their last request: they are found by {device, PASID or none,
 * group id} in a hash table with as many buckets as the device has credits, so
 * that a request costs the same however many others there are. The hash has a key
 * that nobody knows, so that a device cannot choose ids that share a bucket.
 *
 * Such a group is void when no answer of a handler can be one for all its requests:
 * one of them found no room, or the driver has refused it, or the group was claimed
 * before its last request was here. It stays in the table without its requests, and
 * its &iopf_group.verdict is what the last request is answered by the core. There
 * is no other memory of what was lost. IOPF_VOID_GROUPS groups are kept back for
 * this; a device that makes more void, which takes more requests than it has
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
 * Immediate delivery: a handler with iopf_handler_ops::request gets the group at
 * its first request, while it stays in the table: it is open. A claim of an open
 * group ends it like a request without room does, as the device expects nothing
 * before it has sent the last one.
 *
 * Memory: requests and groups live in pages that belong to struct iopf_device.
 * The pool starts small, grows by whole pages up to a limit and is returned
 * when the device has left the queue and the last group was freed. The limit
 * is twice the number of requests that the device may have outstanding (its
 * credits), and some: a device that was answered may send its next group before
 * the memory of the last one is back. Nothing is allocated for a fault once the
 * pool has grown. What finds no room beyond the limit is answered INVALID at once.
 *
 * A report is in a thread, or a softirq, of all devices: it takes a page if there is
 * one, and neither reclaims memory nor waits, whatever the limits of the device's
 * owner. If there is none, the device is told to try again, and a work item asks for
 * a page in the owner's name, without killing for it, less and less often.
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

#include <linux/debugfs.h>
#include <linux/iommu.h>
#include <linux/memcontrol.h>
#include <linux/moduleparam.h>
#include <linux/pci.h>
#include <linux/random.h>
#include <linux/sched/clock.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/siphash.h>
#include <linux/slab.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "iommu-priv.h"

#define CREATE_TRACE_POINTS
#include <trace/events/iopf.h>

/* SUCCESS, INVALID, FAILURE */
#define IOPF_NR_CODES		3
/* Credits of a device that does not state them in a PRI capability */
#define IOPF_DEFAULT_CREDITS	4096
/* The most that any device gets, whatever its capability says */
#define IOPF_MAX_CREDITS	4096
/* Groups that several threads may have answered and not freed yet */
#define IOPF_ANSWER_SLACK	256
/* How long a device waits that is told to try again */
#define IOPF_RETRY_MS		1
/* Answers to such devices that are given together */
#define IOPF_RETRY_BATCH	16
/* Groups that are found too old under one lock */
#define IOPF_AGE_BATCH		64
/* The longest time from one try to get memory for a pool to the next */
#define IOPF_GROW_MS		1000
/* Groups of the pool that are only used to remember that a group is void */
#define IOPF_VOID_GROUPS	4

/* Far longer than a device takes from the first to the last request of a group */
static unsigned int iopf_partial_timeout_ms = 10000;
module_param_named(partial_timeout_ms, iopf_partial_timeout_ms, uint, 0644);
MODULE_PARM_DESC(partial_timeout_ms,
		 "Age in ms at which a group whose last request is missing is forgotten");

/**
 * struct iopf_counters - What happened to the faults of one device
 * @requests: page requests reported
 * @groups: groups that were completed, by their last request
 * @answered: groups by who answered them and how; index 0: recalled, or ended
 *            before their last request, which is counted when it is answered
 * @delivered: groups that a handler had passed on
 * @no_room: requests that found no room
 * @overflows: overflows of the hardware queue
 * @recalled: groups taken back from a handler, by the reason
 * @stale: groups whose last request did not come in time
 * @partials: groups without their last request, now
 * @depth: groups that handlers hold, now
 * @depth_peak: the most that handlers held
 *
 * @answered and @delivered count a group when its memory is returned.
 */
struct iopf_counters {
	u64 requests;
	u64 groups;
	u64 answered[1 + IOPF_NR_CAUSES * IOPF_NR_CODES];
	u64 delivered;
	u64 no_room;
	u64 overflows;
	u64 recalled[IOPF_NR_CAUSES];
	u64 stale;
	unsigned int partials;
	unsigned int depth;
	unsigned int depth_peak;
};

/**
 * struct iopf_device - fault state of one device
 * @param: the part that handlers see, and what &dev_iommu.fault_param points to
 * @users: one for the queue, one for each report under way and each group that
 *         a handler holds
 * @rcu: delays the free until report's look-up cannot see it any more
 * @queue_list: node in &iopf_queue.devices, protected by &iopf_queue.lock
 * @idle: woken for each answer while there are @waiters
 * @iommu: its IOMMU
 * @memcg: charged for the pool: that of the task which added the device
 * @age_work: forgets groups whose last request does not come
 * @retry_work: answers and frees what is @parked
 * @grow_work: adds a page to the pool that a report could not get
 * @debugfs: file with the counters
 * @lock: protects everything below it
 * @dying: the device left the queue; no group is collected or queued any more
 * @aging: @age_work is scheduled
 * @waiters: tasks that wait until no answer is under way
 * @limit: how many requests, and groups, the pool may grow to
 * @allocated: how many it has grown to
 * @grow_delay: until the next try of @grow_work, in jiffies; 0: reports try
 * @free_groups: groups without a request in them
 * @free_requests: requests without a group
 * @pages: every page of the pool, newest first
 * @partial_key: of the hash of @partial
 * @partial_bits: log2 of the number of buckets in @partial
 * @partial: groups without last request by {PASID or none, group id}
 * @partials: the same groups, oldest first
 * @parked: groups whose device is to try again
 * @count: for the operator
 */
struct iopf_device {
	struct iommu_fault_param param;
	refcount_t users;
	struct rcu_head rcu;
	struct list_head queue_list;
	wait_queue_head_t idle;
	struct iommu_device *iommu;
	struct mem_cgroup *memcg;
	struct delayed_work age_work;
	struct delayed_work retry_work;
	struct delayed_work grow_work;
	struct dentry *debugfs;

	spinlock_t lock;	/* all below */
	bool dying;
	bool aging;
	unsigned int waiters;
	unsigned int limit;
	unsigned int allocated;
	unsigned long grow_delay;
	struct list_head free_groups;
	struct list_head free_requests;
	struct iopf_page *pages;
	hsiphash_key_t partial_key;
	unsigned int partial_bits;
	struct hlist_head *partial;
	struct list_head partials;
	struct list_head parked;
	struct iopf_counters count;
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

static noinline void iopf_device_free(struct iopf_device *fdev)
{
	struct iopf_page *page, *next;

	for (page = fdev->pages; page; page = next) {
		next = page->next;
		kfree(page);
	}
	kvfree(fdev->partial);
	mem_cgroup_put(fdev->memcg);
	kfree_rcu(fdev, rcu);
}

static __always_inline void iopf_device_put_many(struct iopf_device *fdev, int references)
{
	if (refcount_sub_and_test(references, &fdev->users))
		iopf_device_free(fdev);
}

static void iopf_device_put(struct iopf_device *fdev)
{
	iopf_device_put_many(fdev, 1);
}

/* A page of groups and requests, in the name of who enabled page requests */
static struct iopf_page *iopf_page_alloc(struct iopf_device *fdev, gfp_t gfp)
{
	struct mem_cgroup *old_memcg;
	struct iopf_page *page;
	unsigned int i;

	old_memcg = set_active_memcg(fdev->memcg);
	page = kzalloc(PAGE_SIZE, gfp | __GFP_ACCOUNT | __GFP_NOWARN);
	set_active_memcg(old_memcg);
	for (i = 0; page && i < IOPF_PAIRS_PER_PAGE; i++)
		atomic_set(&page->pairs[i].group.state, IOPF_GROUP_GONE);
	return page;
}

static bool iopf_pool_may_grow(const struct iopf_device *fdev)
{
	return !fdev->dying && fdev->allocated < fdev->limit;
}

static void iopf_pool_add(struct iopf_device *fdev, struct iopf_page *page)
{
	unsigned int i;

	for (i = 0; i < IOPF_PAIRS_PER_PAGE && fdev->allocated < fdev->limit; i++) {
		list_add_tail(&page->pairs[i].group.node, &fdev->free_groups);
		list_add_tail(&page->pairs[i].request.list, &fdev->free_requests);
		fdev->allocated++;
	}
	page->next = fdev->pages;
	fdev->pages = page;
}

/* No page came without waiting: in the owner's name it is waited for, not for long. */
static void iopf_grow(struct work_struct *work)
{
	struct iopf_device *fdev = container_of(to_delayed_work(work),
						struct iopf_device, grow_work);
	struct iopf_page *page = iopf_page_alloc(fdev, GFP_KERNEL | __GFP_NORETRY);

	spin_lock_bh(&fdev->lock);
	if (!iopf_pool_may_grow(fdev)) {
		fdev->grow_delay = 0;
	} else if (page) {
		iopf_pool_add(fdev, page);
		page = NULL;
		fdev->grow_delay = 0;
	} else {
		fdev->grow_delay = min(2 * fdev->grow_delay, msecs_to_jiffies(IOPF_GROW_MS));
		queue_delayed_work(fdev->param.queue->wq, &fdev->grow_work, fdev->grow_delay);
	}
	spin_unlock_bh(&fdev->lock);
	kfree(page);
}

/* An open group counts twice here: it is with its handler, and in the table. */
static bool iopf_pool_has_groups(struct iopf_device *fdev)
{
	return fdev->count.depth + fdev->count.partials + IOPF_VOID_GROUPS < fdev->allocated;
}

static bool iopf_pool_has_room(struct iopf_device *fdev)
{
	return iopf_pool_has_groups(fdev) && !list_empty(&fdev->free_requests);
}

/* See that a group and a request are free, if the limit and the memory allow it. */
static void iopf_make_room(struct iopf_device *fdev)
{
	struct iopf_page *page;

	while (unlikely(!iopf_pool_has_room(fdev)) && iopf_pool_may_grow(fdev) &&
	       !fdev->grow_delay) {
		page = iopf_page_alloc(fdev, GFP_NOWAIT);
		if (page) {
			iopf_pool_add(fdev, page);
			continue;
		}
		fdev->grow_delay = 1;
		queue_delayed_work(fdev->param.queue->wq, &fdev->grow_work, 0);
	}
}

/* The next free group, if there is one. */
static struct iopf_group *__iopf_pool_get(struct iopf_device *fdev)
{
	struct iopf_group *group;

	group = list_first_entry_or_null(&fdev->free_groups, struct iopf_group, node);
	if (!group)
		return NULL;

	list_del(&group->node);
	INIT_LIST_HEAD(&group->faults);
	group->fault_count = 0;
	group->open = false;
	group->delivered = false;
	group->verdict = 0;
	group->fault_param = &fdev->param;
	atomic_set(&group->state, IOPF_GROUP_COLLECTING);
	return group;
}

static struct iopf_group *iopf_pool_get(struct iopf_device *fdev)
{
	return iopf_pool_has_groups(fdev) ? __iopf_pool_get(fdev) : NULL;
}

/* The group is not in use any more, nor are its requests; it is on no list of ours. */
static void iopf_group_end(struct iopf_device *fdev, struct iopf_group *group)
{
	lockdep_assert_held(&fdev->lock);

	/* The last request, if there is one, is part of the group itself. */
	if (list_first_entry(&group->faults, struct iopf_fault, list) != &group->last_fault) {
		if (list_last_entry(&group->faults, struct iopf_fault, list) ==
		    &group->last_fault)
			list_del(&group->last_fault.list);
		list_splice(&group->faults, &fdev->free_requests);
	}
	atomic_set(&group->state, IOPF_GROUP_GONE);
}

static void iopf_pool_put(struct iopf_device *fdev, struct iopf_group *group)
{
	iopf_group_end(fdev, group);
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

static struct hlist_head *iopf_bucket(struct iopf_device *fdev, u64 key)
{
	u32 hash = hsiphash_2u32(upper_32_bits(key), lower_32_bits(key), &fdev->partial_key);

	return &fdev->partial[hash & GENMASK(fdev->partial_bits - 1, 0)];
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

static void iopf_unhash(struct iopf_device *fdev, struct iopf_group *group)
{
	hlist_del_init(&group->partial_node);
	list_del(&group->partial_list);
	fdev->count.partials--;
}

static const struct iopf_handler_ops *iopf_ops(const struct iommu_attach_handle *handle)
{
	static const struct iopf_handler_ops none;

	/* A parked group has no handle. */
	return handle && handle->domain->iopf_ops ? handle->domain->iopf_ops : &none;
}

/*
 * Take a group back from its handler, if nobody has claimed it. The owner of the
 * handle frees it after iopf_recall_sync(), so it is there as long as the group
 * can be taken and fdev->lock is held.
 */
static void iopf_recall(struct iopf_device *fdev, struct iopf_group *group,
			enum iopf_cause cause)
{
	lockdep_assert_held(&fdev->lock);

	if (!__iopf_group_take(group, IOPF_GROUP_GONE))
		return;

	fdev->count.recalled[cause]++;
	trace_iopf_group_recalled(group, cause);
	if (iopf_ops(group->attach_handle)->recall)
		iopf_ops(group->attach_handle)->recall(group, cause);
}

/* Forget a group whose last request has not come. */
static void iopf_drop(struct iopf_device *fdev, struct iopf_group *group,
		      enum iopf_cause cause)
{
	iopf_unhash(fdev, group);
	if (group->open)
		iopf_recall(fdev, group, cause);
	else
		iopf_pool_put(fdev, group);
}

/*
 * Pages come in front and stay as long as @fdev: what is there now can be walked with
 * no lock, or one page after the other under it.
 */
static struct iopf_page *iopf_first_page(struct iopf_device *fdev)
{
	struct iopf_page *page;

	spin_lock_bh(&fdev->lock);
	page = fdev->pages;
	spin_unlock_bh(&fdev->lock);
	return page;
}

/* Which groups without their last request are forgotten, and why */
struct iopf_doomed {
	bool all;
	ioasid_t pasid;		/* else, as in the key, or with @handle that of the handle */
	struct iommu_attach_handle *handle;	/* of open ones, or NULL */
	enum iopf_cause cause;
};

static bool iopf_is_doomed(const struct iopf_group *group, const struct iopf_doomed *doomed)
{
	if (hlist_unhashed(&group->partial_node))
		return false;
	if (!doomed->handle)
		return doomed->all || lower_32_bits(group->key) == doomed->pasid;
	if (group->open)
		return group->attach_handle == doomed->handle;
	return doomed->all || iopf_key_pasid(group->key) == doomed->pasid;
}

/*
 * Forget groups, a page at a time under the lock, which is taken once at least. Those
 * that begin meanwhile stay: the caller has seen to it that there are none, or that
 * they are not meant.
 */
static void iopf_drop_doomed(struct iopf_device *fdev, const struct iopf_doomed *doomed)
{
	struct iopf_page *page = iopf_first_page(fdev);
	bool more = true;
	unsigned int i;

	for (; page && more; page = page->next) {
		spin_lock_bh(&fdev->lock);
		for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++) {
			if (iopf_is_doomed(&page->pairs[i].group, doomed))
				iopf_drop(fdev, &page->pairs[i].group, doomed->cause);
		}
		more = fdev->count.partials;
		spin_unlock_bh(&fdev->lock);
	}
}

/* Forget all such groups of a device. */
static void iopf_drop_all(struct iopf_device *fdev, enum iopf_cause cause)
{
	iopf_drop_doomed(fdev, &(struct iopf_doomed){ .all = true, .cause = cause });
}

static void iopf_start_aging(struct iopf_device *fdev, unsigned long delay)
{
	if (fdev->aging || fdev->dying)
		return;
	fdev->aging = true;
	queue_delayed_work(fdev->param.queue->wq, &fdev->age_work, delay);
}

static unsigned long iopf_partial_timeout(void)
{
	return msecs_to_jiffies(READ_ONCE(iopf_partial_timeout_ms)) + 1;
}

/*
 * One work for all groups of a device. It runs once in a timeout while there are
 * some, and looks at the oldest ones only, at so many in one run.
 */
static void iopf_age(struct work_struct *work)
{
	struct iopf_device *fdev = container_of(to_delayed_work(work),
						struct iopf_device, age_work);
	unsigned long timeout = iopf_partial_timeout();
	struct iopf_group *group, *next;
	unsigned long delay = timeout;
	unsigned int n = 0;

	spin_lock_bh(&fdev->lock);
	fdev->aging = false;
	list_for_each_entry_safe(group, next, &fdev->partials, partial_list) {
		if (time_before(jiffies, group->queued + timeout)) {
			delay = group->queued + timeout - jiffies;
			break;
		}
		if (n++ == IOPF_AGE_BATCH) {
			delay = 0;
			break;
		}
		fdev->count.stale++;
		iopf_drop(fdev, group, IOPF_CAUSE_AGE);
	}
	if (!list_empty(&fdev->partials))
		iopf_start_aging(fdev, delay);
	spin_unlock_bh(&fdev->lock);
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

/*
 * Count a request that found no room, and tell who handles such requests. Returns
 * -ENOMEM for one beyond the limit, -EAGAIN while there is no memory.
 */
static int iopf_no_room(struct iopf_device *fdev,
			const struct iommu_fault_page_request *prm)
{
	struct iommu_attach_handle *handle = iopf_find_handle(fdev->param.dev, prm);

	fdev->count.no_room++;
	if (handle && iopf_ops(handle)->lost)
		iopf_ops(handle)->lost(handle, IOPF_CAUSE_NO_ROOM);
	return iopf_pool_may_grow(fdev) ? -EAGAIN : -ENOMEM;
}

/*
 * The group goes to the handler. From here on another processor may claim it, but
 * not free it: that takes fdev->lock.
 */
static void iopf_set_queued(struct iopf_group *group, struct iommu_attach_handle *handle)
{
	group->attach_handle = handle;
	group->queued = jiffies;
	/* The clock is read for those alone who print what came of it. */
	group->time = trace_iopf_page_response_enabled() ||
		      trace_iopf_group_delivered_enabled() ? local_clock() : 0;
	atomic_set(&group->state, IOPF_GROUP_QUEUED);
}

/*
 * The handler has it, with the reference of the report that brought it. Under the lock
 * that its end takes (claims.pml: HELD_UNLOCKED).
 */
static void iopf_held(struct iopf_device *fdev, struct iopf_group *group)
{
	fdev->count.depth++;
	if (fdev->count.depth > fdev->count.depth_peak)
		fdev->count.depth_peak = fdev->count.depth;
	trace_iopf_group_queued(group, fdev->count.depth);
}

/* A new group in the table, of which this is the first request and not the last */
static struct iopf_group *iopf_start(struct iopf_device *fdev, struct iopf_group *group,
				     u64 key)
{
	if (!group)
		return NULL;

	group->key = key;
	group->queued = jiffies;
	hlist_add_head(&group->partial_node, iopf_bucket(fdev, key));
	list_add_tail(&group->partial_list, &fdev->partials);
	fdev->count.partials++;
	iopf_start_aging(fdev, iopf_partial_timeout());
	return group;
}

static u8 iopf_verdict(enum iopf_cause cause, enum iommu_page_response_code code)
{
	return 1 + cause * IOPF_NR_CODES + code;
}

static enum iopf_cause iopf_verdict_cause(u8 verdict)
{
	return (verdict - 1) / IOPF_NR_CODES;
}

static enum iommu_page_response_code iopf_verdict_code(u8 verdict)
{
	return (verdict - 1) % IOPF_NR_CODES;
}

/* Remember that a group is void which is in the table no more, or never was. */
static void iopf_mark_void(struct iopf_device *fdev, u64 key, u8 verdict)
{
	struct iopf_group *group = iopf_start(fdev, __iopf_pool_get(fdev), key);

	if (group)
		group->verdict = verdict;
}

static int iopf_append(struct iopf_device *fdev, struct iopf_group *group,
		       const struct iommu_fault *fault)
{
	struct iopf_fault *iopf;

	iopf = list_first_entry_or_null(&fdev->free_requests, struct iopf_fault, list);
	if (!iopf)
		return -ENOMEM;

	iopf->fault = *fault;
	list_move_tail(&iopf->list, &group->faults);
	group->fault_count++;
	return 0;
}

static bool iopf_is_claimed(struct iopf_group *group)
{
	int state = atomic_read(&group->state);

	return state != IOPF_GROUP_QUEUED && state != IOPF_GROUP_DELIVERED;
}

/* Immediate delivery: show a request to the handler, if it wants to see it now. */
static int iopf_offer(struct iopf_device *fdev, struct iopf_group *group,
		      const struct iommu_fault_page_request *prm, bool *taken)
{
	struct iommu_attach_handle *handle;
	int rc;

	if (group->open) {
		rc = 0;
		if (!iopf_is_claimed(group))
			rc = iopf_ops(group->attach_handle)->request(group);
		return rc;
	}
	if (group->fault_count > 1)
		return 0;

	handle = iopf_find_handle(fdev->param.dev, prm);
	if (!handle || !iopf_ops(handle)->request)
		return 0;

	group->open = true;
	iopf_set_queued(group, handle);
	rc = iopf_ops(handle)->request(group);
	if (rc) {
		group->open = false;
		return rc;
	}
	iopf_held(fdev, group);
	*taken = true;
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
	iopf_set_queued(group, NULL);
	list_add_tail(&group->node, &fdev->parked);
	iopf_held(fdev, group);
	queue_delayed_work(fdev->param.queue->wq, &fdev->retry_work,
			   msecs_to_jiffies(IOPF_RETRY_MS));
}

/* Groups that somebody else has answered meanwhile, in a removal say, are freed alike. */
static void iopf_retry(struct work_struct *work)
{
	struct iopf_device *fdev = container_of(to_delayed_work(work),
						struct iopf_device, retry_work);
	struct iopf_answer answers[IOPF_RETRY_BATCH];
	struct iopf_group *group;
	LIST_HEAD(parked);
	LIST_HEAD(done);
	unsigned int n;

	spin_lock_bh(&fdev->lock);
	list_splice_init(&fdev->parked, &parked);
	spin_unlock_bh(&fdev->lock);

	while (!list_empty(&parked)) {
		for (n = 0; n < IOPF_RETRY_BATCH && !list_empty(&parked);) {
			group = list_first_entry(&parked, struct iopf_group, node);
			list_move_tail(&group->node, &done);
			if (iopf_group_claim(group))
				answers[n++] = (struct iopf_answer){
					.group = group,
					.code = IOMMU_PAGE_RESP_SUCCESS,
					.cause = IOPF_CAUSE_NO_ROOM,
				};
		}
		iopf_answer_groups(answers, n);
		iopf_free_groups(&done);
	}
}

/*
 * Keep a request until the last one of its group is here. With @taken the
 * handler owns the reference to @fdev.
 */
static int iopf_collect(struct iopf_device *fdev, const struct iommu_fault *fault,
			bool *taken)
{
	u64 key = iopf_key(&fault->prm);
	struct iopf_group *group;
	int rc = -ENOMEM;

	lockdep_assert_held(&fdev->lock);

	if (fdev->dying)
		return -ENODEV;
	fdev->count.requests++;

	group = iopf_find(fdev, key);
	if (group && group->verdict)
		return -ENOMEM;
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
		rc = iopf_offer(fdev, group, &fault->prm, taken);
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
	int rc;

	handle = iopf_find_handle(fdev->param.dev, &group->last_fault.fault.prm);
	if (!handle)
		return -EINVAL;

	iopf_set_queued(group, handle);
	rc = handle->domain->iopf_handler(group);
	if (!rc)
		iopf_held(fdev, group);
	return rc;
}

/*
 * The handler has had the group since its first request. Who has claimed it
 * answers the hardware if the group is open no more, see iopf_answer_apart().
 */
static void iopf_close(struct iopf_device *fdev, struct iopf_group *group)
{
	group->queued = jiffies;
	/* Pairs with the look at it in iopf_answer_apart(). */
	smp_store_release(&group->open, false);
	if (iopf_is_claimed(group))
		return;
	group->attach_handle->domain->iopf_handler(group);
	trace_iopf_group_queued(group, fdev->count.depth);
}

static void iopf_append_last(struct iopf_group *group, const struct iopf_fault *evt)
{
	group->last_fault.fault = evt->fault;
	list_add_tail(&group->last_fault.list, &group->faults);
	group->fault_count++;
}

/* The last request of a void group */
static int iopf_complete_void(struct iopf_device *fdev, struct iopf_group *group,
			      const struct iopf_fault *evt, bool *taken, enum iopf_cause *cause)
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
	*taken = true;
	return -EAGAIN;
}

/*
 * The last request of a group; @taken as for iopf_collect(). With an error @cause
 * says why, and unless the core itself has taken the group, it is to be answered.
 */
static int iopf_complete(struct iopf_device *fdev, struct iopf_fault *evt, bool *taken,
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
		return iopf_complete_void(fdev, group, evt, taken, cause);
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
		*taken = true;
		return rc;
	}

	group->key = key;
	iopf_append_last(group, evt);
	if (unlikely(group->open)) {
		iopf_close(fdev, group);
		return 0;
	}

	rc = iopf_route(fdev, group);
	if (unlikely(rc == -EAGAIN)) {
		iopf_park(fdev, group);
	} else if (unlikely(rc)) {
		*cause = iopf_reject_cause(rc);
		iopf_pool_put(fdev, group);
		return rc;
	}
	*taken = true;
	return rc;
}

/* Answer a group that no handler took. Only its last request asks for one. */
static void iopf_reject(struct device *dev, struct iopf_device *fdev,
			struct iopf_fault *evt, enum iopf_cause cause,
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

	if (fdev) {
		spin_lock_bh(&fdev->lock);
		fdev->count.answered[iopf_verdict(cause, code)]++;
		spin_unlock_bh(&fdev->lock);
	}
	trace_iopf_page_response(dev, prm, resp.code, cause, 0);
	if (code == IOMMU_PAGE_RESP_INVALID)
		dev_warn_ratelimited(dev, "page request group %u, pasid %u: answered invalid\n",
				     prm->grpid, prm->pasid);
	dev_iommu_ops(dev)->page_response(dev, evt, &resp);
}

static int iopf_take(struct iopf_device *fdev, struct iopf_fault *evt, bool *taken,
		     enum iopf_cause *cause)
{
	int rc;

	spin_lock_bh(&fdev->lock);
	iopf_make_room(fdev);
	trace_iopf_page_request(fdev->param.dev, &evt->fault.prm);
	if (evt->fault.prm.flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE)
		rc = iopf_complete(fdev, evt, taken, cause);
	else
		rc = iopf_collect(fdev, &evt->fault, taken);
	spin_unlock_bh(&fdev->lock);
	return rc;
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
 * when the last request is here, and no handler gets it.
 *
 * Stop markers are not page requests: drivers call iopf_discard_pasid() instead.
 *
 * A driver must not report for a PASID once its domain is detached and the
 * hardware queue is drained; until then a handle that is being detached is
 * protected as iopf_quiesce() describes.
 *
 * Context: Process context; also softirq, if ops->page_response() does not sleep, as
 * it may be called from here. Takes the device's fault lock, under which the domain's
 * iopf_handler is called, with bottom halves disabled: handlers must not sleep.
 *
 * Return: 0 if the request was collected or its group was taken by a handler.
 * -EINVAL: nobody handles faults of this device and PASID; -ENOMEM: the
 * device sends more than its credits, or no memory; -ENODEV: the device is not on
 * a queue (any more); or what the handler returned. With an error, a last
 * request has been answered with IOMMU_PAGE_RESP_INVALID; but with -EAGAIN it will
 * be with IOMMU_PAGE_RESP_SUCCESS, and the device asks again.
 */
int iommu_report_device_fault(struct device *dev, struct iopf_fault *evt)
{
	struct iopf_device *fdev = iopf_device_get(dev);
	enum iopf_cause cause = IOPF_CAUSE_REMOVE;
	bool taken = false;
	int rc = -ENODEV;

	if (likely(fdev))
		rc = iopf_take(fdev, evt, &taken, &cause);
	else
		trace_iopf_page_request(dev, &evt->fault.prm);
	/* A device that is on no queue has its answer, too. */
	if (unlikely(rc) && !taken)
		iopf_reject(dev, fdev, evt, cause, rc == -EAGAIN ? IOMMU_PAGE_RESP_SUCCESS :
			    IOMMU_PAGE_RESP_INVALID);
	if (!taken && fdev)
		iopf_device_put(fdev);
	return rc;
}
EXPORT_SYMBOL_GPL(iommu_report_device_fault);

static struct iommu_device *iopf_iommu(const struct iopf_answer *answer)
{
	return to_iopf_device(answer->group->fault_param)->iommu;
}

static void iopf_answer_one(const struct iommu_ops *ops, const struct iopf_answer *answer)
{
	struct iommu_fault_page_request *prm = &answer->group->last_fault.fault.prm;
	struct device *dev = answer->group->fault_param->dev;
	struct iommu_page_response resp = {
		.pasid = prm->pasid,
		.grpid = prm->grpid,
		.code = answer->code,
	};

	ops->page_response(dev, &answer->group->last_fault, &resp);
}

/* Nanoseconds since the group was queued; ticks if nobody traced it then */
static u64 iopf_latency(const struct iopf_group *group)
{
	return group->time ? local_clock() - group->time :
	       jiffies_to_nsecs(jiffies - group->queued);
}

/**
 * __iopf_trace_delivered() - Trace a delivery
 * @group: the group
 *
 * For iopf_group_deliver() alone, which is inlined into modules.
 *
 * Context: Any.
 */
void __iopf_trace_delivered(const struct iopf_group *group)
{
	trace_iopf_group_delivered(group, iopf_latency(group));
}
EXPORT_SYMBOL_GPL(__iopf_trace_delivered);
EXPORT_TRACEPOINT_SYMBOL_GPL(iopf_group_delivered);

static noinline void iopf_trace_answer(const struct iopf_answer *answer)
{
	const struct iopf_group *group = answer->group;

	trace_iopf_page_response(group->fault_param->dev, &group->last_fault.fault.prm,
				 answer->code, answer->cause, iopf_latency(group));
}

/* Nobody has to do with the group any more but who frees it. */
static inline void iopf_group_gone(struct iopf_group *group)
{
	struct iopf_device *fdev = to_iopf_device(group->fault_param);

	/*
	 * The exchange orders the new state before the look at @waiters; who
	 * waits counts himself before he looks at the states. One of the two
	 * sees the other (claims.pml: ANSWERED_NO_BARRIER).
	 */
	atomic_xchg(&group->state, IOPF_GROUP_GONE);
	if (unlikely(READ_ONCE(fdev->waiters)))
		wake_up_all(&fdev->idle);
}

static inline void iopf_answered(const struct iopf_answer *answer)
{
	if (trace_iopf_page_response_enabled())
		iopf_trace_answer(answer);
	answer->group->verdict = iopf_verdict(answer->cause, answer->code);
	iopf_group_gone(answer->group);
}

/*
 * A claimed group without a last request: the hardware expects nothing yet, and what
 * is told to the last request is counted when that is done
 * (immediate.pml: OPEN_NO_LOCK, OPEN_NO_UNHASH).
 */
static bool iopf_end_open(struct iopf_group *group, enum iopf_cause cause)
{
	struct iopf_device *fdev = to_iopf_device(group->fault_param);
	bool open;

	spin_lock_bh(&fdev->lock);
	open = group->open;
	/* Unless it was dropped meanwhile, its last request may still come. */
	if (open && !hlist_unhashed(&group->partial_node)) {
		iopf_unhash(fdev, group);
		iopf_mark_void(fdev, group->key,
			       iopf_verdict(cause, IOMMU_PAGE_RESP_INVALID));
	}
	spin_unlock_bh(&fdev->lock);
	return open;
}

/* Give an answer that does not go to an IOMMU, if it is one. */
static bool iopf_answer_apart(const struct iopf_answer *answer)
{
	struct iopf_group *group = answer->group;

	/* Pairs with iopf_close(): closed, the last request is there. */
	if (unlikely(smp_load_acquire(&group->open)) && iopf_end_open(group, answer->cause)) {
		iopf_group_gone(group);
		return true;
	}
	if (likely(!group->answer))
		return false;
	if (trace_iopf_page_response_enabled())
		iopf_trace_answer(answer);
	group->answer(group, answer->code);
	return true;
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

/* Give the answers that do not go to an IOMMU; returns how many are left. */
static unsigned int iopf_answer_all_apart(struct iopf_answer *answers, unsigned int count)
{
	unsigned int i = 0;

	while (i < count) {
		if (likely(!iopf_answer_apart(&answers[i]))) {
			i++;
			continue;
		}
		count--;
		swap(answers[i], answers[count]);
	}
	return count;
}

/* Answer the groups of the first one's IOMMU; returns their number. */
static unsigned int iopf_answer_iommu(struct iopf_answer *answers, unsigned int count)
{
	struct iommu_device *iommu = iopf_iommu(answers);
	const struct iommu_ops *ops = iommu->ops;
	unsigned int n = 0;

	if (!ops->page_response_batch) {
		do {
			iopf_answer_one(ops, &answers[n]);
		} while (++n < count && iopf_iommu(&answers[n]) == iommu);
		return n;
	}
	count = iopf_first_iommu(answers, count);
	ops->page_response_batch(iommu, answers, count);
	return count;
}

/**
 * iopf_answer_groups() - Answer the hardware for claimed groups
 * @answers: the groups, each claimed by the caller with iopf_group_claim(), and
 *           what their devices are told; in another order on return
 * @count: number of @answers
 *
 * One call of the driver for each IOMMU, if it has page_response_batch. For an
 * open group nothing is sent now; its last request will be answered INVALID. The
 * caller still owns the memory of the groups and frees it.
 *
 * Context: Process context, may sleep. No lock of the fault core is held while
 * the driver answers.
 */
void iopf_answer_groups(struct iopf_answer *answers, unsigned int count)
{
	unsigned int i, n;

	count = iopf_answer_all_apart(answers, count);
	for (; count; count -= n, answers += n) {
		n = iopf_answer_iommu(answers, count);
		for (i = 0; i < n; i++)
			iopf_answered(&answers[i]);
	}
}
EXPORT_SYMBOL_GPL(iopf_answer_groups);

/**
 * iopf_group_response() - Claim a group and answer it
 * @group: the group of faults
 * @status: what the device is told
 *
 * For handlers in the kernel with a single path that answers. Does nothing if the
 * group was answered already because its device went away.
 *
 * Context: Process context, may sleep.
 */
void iopf_group_response(struct iopf_group *group, enum iommu_page_response_code status)
{
	struct iopf_answer answer = {
		.group = group,
		.code = status,
		.cause = IOPF_CAUSE_HANDLER,
	};

	if (iopf_group_claim(group))
		iopf_answer_groups(&answer, 1);
}
EXPORT_SYMBOL_GPL(iopf_group_response);

/**
 * iopf_free_groups() - Give the memory of answered groups back
 * @groups: the groups, linked by &iopf_group.node; empty on return
 *
 * Context: Process or softirq, but not under a lock that the handler itself
 * takes.
 */
void iopf_free_groups(struct list_head *groups)
{
	struct list_head *first, *last;
	struct iopf_device *fdev;
	struct iopf_group *group;
	int freed;

	while (!list_empty(groups)) {
		first = groups->next;
		group = list_entry(first, struct iopf_group, node);
		if (unlikely(group->release)) {
			list_del(&group->node);
			group->release(group);
			continue;
		}
		fdev = to_iopf_device(group->fault_param);
		freed = 0;

		/* As many as come from the same device in a row */
		spin_lock_bh(&fdev->lock);
		do {
			fdev->count.answered[group->verdict]++;
			fdev->count.delivered += group->delivered;
			iopf_group_end(fdev, group);
			freed++;
			last = &group->node;
			group = list_next_entry(group, node);
		} while (&group->node != groups && group->fault_param == &fdev->param);
		/* to the head: what was used last is used next */
		list_bulk_move_tail(fdev->free_groups.next, first, last);
		fdev->count.depth -= freed;
		/* The last reference goes behind the lock, claims.pml: PUT_UNDER_LOCK */
		spin_unlock_bh(&fdev->lock);
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
 *         and, where user space owns the PASID table, for all PASIDs;
 *         IOMMU_PASID_INVALID if @handle was not attached after all
 * @handle: the attach handle
 *
 * To be called after the attach handle was taken out of the group's table and
 * before it is freed. On return every group that was routed by it has been
 * passed to the handler, and none will be. Requests of @pasid whose last one has
 * not come are forgotten, so that they cannot reach the next domain; open groups
 * of @handle are recalled.
 *
 * Context: Process context, may sleep. Takes the device's fault lock, under which it
 * calls &iopf_handler_ops.recall.
 */
void iopf_quiesce(struct device *dev, ioasid_t pasid, struct iommu_attach_handle *handle)
{
	const struct iopf_doomed doomed = {
		.all = pasid == IOMMU_NO_PASID && dev_iommu_ops(dev)->user_pasid_table,
		.pasid = pasid,
		.handle = handle,
		.cause = IOPF_CAUSE_DETACH,
	};
	struct iopf_device *fdev = iopf_device_get(dev);

	if (!fdev)
		return;

	iopf_drop_doomed(fdev, &doomed);
	/* What its handler had no room for is answered, too. */
	flush_delayed_work(&fdev->retry_work);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_quiesce);

/**
 * iopf_discard_pasid() - Forget the groups of a PASID that are not complete
 * @dev: the device
 * @pasid: of which the device will send no more page requests;
 *         IOMMU_PASID_INVALID stands for those without one
 *
 * For drivers that see a stop marker (PCIe 6.0, 10.4.1.2.1). Open groups are
 * recalled, complete ones answered as ever.
 *
 * Context: Process or softirq. Takes the device's fault lock, under which it calls
 * &iopf_handler_ops.recall.
 */
void iopf_discard_pasid(struct device *dev, ioasid_t pasid)
{
	const struct iopf_doomed doomed = { .pasid = pasid, .cause = IOPF_CAUSE_STOP };
	struct iopf_device *fdev = iopf_device_get(dev);

	if (!fdev)
		return;

	iopf_drop_doomed(fdev, &doomed);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_discard_pasid);

/**
 * iopf_recall_sync() - Wait until no recall uses a detached handle
 * @dev: the device that was detached
 *
 * A handler whose groups may be recalled loses the claim of a group a moment
 * before &iopf_handler_ops.recall is called for it. So who frees an attach handle
 * calls this first, when the handler has let go of all its groups.
 *
 * Context: Process or softirq, but not under a lock that the handler itself
 * takes.
 */
void iopf_recall_sync(struct device *dev)
{
	struct iopf_device *fdev = iopf_device_get(dev);

	if (!fdev)
		return;

	spin_lock_bh(&fdev->lock);
	spin_unlock_bh(&fdev->lock);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_recall_sync);

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

static void iopf_tell_overflow(struct iommu_attach_handle *handle, void *unused)
{
	if (iopf_ops(handle)->lost)
		iopf_ops(handle)->lost(handle, IOPF_CAUSE_OVERFLOW);
}

/**
 * iopf_queue_discard_partial() - The hardware queue overflowed: forget what is
 *                                not complete
 * @queue: the queue
 *
 * After a hardware queue overflow the last request of a group may be among
 * those that were lost. The groups of all devices without their last request are
 * forgotten, or recalled if the handler has them already. All handlers of these
 * devices are told. Groups that are complete are not affected: the device waits for
 * their answers. The caller must not report on this queue meanwhile.
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
		iopf_drop_all(fdev, IOPF_CAUSE_OVERFLOW);
		spin_lock_bh(&fdev->lock);
		fdev->count.overflows++;
		iommu_group_visit_handles(fdev->param.dev->iommu_group, NULL,
					  iopf_tell_overflow);
		spin_unlock_bh(&fdev->lock);
	}
	mutex_unlock(&queue->lock);
	return 0;
}
EXPORT_SYMBOL_GPL(iopf_queue_discard_partial);

/* Groups of a device that are in a state now */
static unsigned int iopf_count_state(struct iopf_device *fdev, enum iopf_group_state state)
{
	struct iopf_page *page = iopf_first_page(fdev);
	unsigned int i, n = 0;

	for (; page; page = page->next) {
		for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++)
			n += atomic_read(&page->pairs[i].group.state) == state;
	}
	return n;
}

/* Wait for all answers that are under way. */
static void iopf_wait_answered(struct iopf_device *fdev)
{
	spin_lock_bh(&fdev->lock);
	WRITE_ONCE(fdev->waiters, fdev->waiters + 1);
	spin_unlock_bh(&fdev->lock);

	wait_event(fdev->idle, !iopf_count_state(fdev, IOPF_GROUP_ANSWERING));

	spin_lock_bh(&fdev->lock);
	WRITE_ONCE(fdev->waiters, fdev->waiters - 1);
	spin_unlock_bh(&fdev->lock);
}

static void iopf_drain_hardware(struct device *dev)
{
	if (dev_iommu_ops(dev)->page_drain)
		dev_iommu_ops(dev)->page_drain(dev);
}

/**
 * iopf_device_reset() - The device was reset and has forgotten its page requests
 * @dev: the device, with or without an IOMMU
 *
 * Groups without their last request are forgotten, all that a handler holds are
 * recalled, and nothing is sent to the device. Answers that were under way are out
 * when this returns: they would hit the groups that it sends next. To be called
 * before it may send any.
 *
 * Context: Process context, sleeps until the last answer is out. The caller keeps
 * @dev from being removed from its bus.
 */
void iopf_device_reset(struct device *dev)
{
	struct iopf_device *fdev = dev->iommu ? iopf_device_get(dev) : NULL;
	struct iopf_page *page;
	unsigned int i;

	if (!fdev)
		return;

	/* What the hardware still holds is of before the reset, too. */
	iopf_drain_hardware(dev);

	iopf_drop_all(fdev, IOPF_CAUSE_RESET);
	for (page = iopf_first_page(fdev); page; page = page->next) {
		spin_lock_bh(&fdev->lock);
		for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++)
			iopf_recall(fdev, &page->pairs[i].group, IOPF_CAUSE_RESET);
		spin_unlock_bh(&fdev->lock);
	}

	/* claims.pml: RESET_NO_WAIT */
	iopf_wait_answered(fdev);
	iopf_drain_hardware(dev);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_device_reset);

/* Claim and answer what handlers still hold; they find out when they try. */
static void iopf_abort(struct iopf_device *fdev)
{
	struct iopf_answer answer = {
		.code = IOMMU_PAGE_RESP_INVALID,
		.cause = IOPF_CAUSE_REMOVE,
	};
	struct iopf_page *page;
	unsigned int i;

	for (page = fdev->pages; page; page = page->next) {
		for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++) {
			answer.group = &page->pairs[i].group;
			if (iopf_group_claim(answer.group))
				iopf_answer_groups(&answer, 1);
		}
	}
	iopf_wait_answered(fdev);
}

/* How many page requests the device may have outstanding (PCIe 6.0, 10.5.2.4) */
static unsigned int iopf_credits(struct iopf_queue *queue, struct device *dev)
{
	u32 credits = queue->credits ?: IOPF_DEFAULT_CREDITS;

#ifdef CONFIG_PCI_PRI
	if (dev_is_pci(dev) && to_pci_dev(dev)->pri_cap)
		pci_read_config_dword(to_pci_dev(dev),
				      to_pci_dev(dev)->pri_cap + PCI_PRI_MAX_REQ, &credits);
#endif
	return clamp_t(u32, credits, 1, IOPF_MAX_CREDITS);
}

static const char * const iopf_code_name[] = { "success", "invalid", "failure" };

static const char * const iopf_cause_name[] = {
	[IOPF_CAUSE_USER]	= "user",
	[IOPF_CAUSE_HANDLER]	= "handler",
	[IOPF_CAUSE_DETACH]	= "detach",
	[IOPF_CAUSE_CLOSE]	= "close",
	[IOPF_CAUSE_DEADLINE]	= "deadline",
	[IOPF_CAUSE_NO_HANDLER]	= "no_handler",
	[IOPF_CAUSE_NO_ROOM]	= "no_room",
	[IOPF_CAUSE_REMOVE]	= "remove",
	[IOPF_CAUSE_OVERFLOW]	= "overflow",
	[IOPF_CAUSE_RESET]	= "reset",
	[IOPF_CAUSE_AGE]	= "age",
	[IOPF_CAUSE_STOP]	= "stop",
};

static void iopf_show_answered(struct seq_file *file, const struct iopf_counters *count)
{
	u64 codes[IOPF_NR_CODES] = {}, causes[IOPF_NR_CAUSES] = {};
	unsigned int cause, code;
	u64 answered;

	for (cause = 0; cause < IOPF_NR_CAUSES; cause++) {
		for (code = 0; code < IOPF_NR_CODES; code++) {
			answered = count->answered[iopf_verdict(cause, code)];
			codes[code] += answered;
			causes[cause] += answered;
		}
	}
	for (code = 0; code < IOPF_NR_CODES; code++)
		seq_printf(file, "answered_%s %llu\n", iopf_code_name[code], codes[code]);
	for (cause = 0; cause < IOPF_CAUSE_OVERFLOW; cause++)
		seq_printf(file, "answered_by_%s %llu\n", iopf_cause_name[cause],
			   causes[cause]);
}

static int iopf_counters_show(struct seq_file *file, void *unused)
{
	struct iopf_device *fdev = file->private;
	unsigned int allocated, limit, cause;
	struct iopf_counters count;

	spin_lock_bh(&fdev->lock);
	count = fdev->count;
	allocated = fdev->allocated;
	limit = fdev->limit;
	spin_unlock_bh(&fdev->lock);
	/* Those that are with somebody now; @delivered counts the others. */
	count.delivered += iopf_count_state(fdev, IOPF_GROUP_DELIVERED);

	seq_printf(file, "requests %llu\n", count.requests);
	seq_printf(file, "groups %llu\n", count.groups);
	seq_printf(file, "delivered %llu\n", count.delivered);
	iopf_show_answered(file, &count);
	seq_printf(file, "no_room %llu\n", count.no_room);
	seq_printf(file, "overflows %llu\n", count.overflows);
	for (cause = 0; cause < IOPF_NR_CAUSES; cause++) {
		if (cause == IOPF_CAUSE_DETACH || cause >= IOPF_CAUSE_NO_ROOM)
			seq_printf(file, "recalled_%s %llu\n", iopf_cause_name[cause],
				   count.recalled[cause]);
	}
	seq_printf(file, "stale %llu\n", count.stale);
	seq_printf(file, "partials %u\n", count.partials);
	seq_printf(file, "depth %u\n", count.depth);
	seq_printf(file, "depth_peak %u\n", count.depth_peak);
	seq_printf(file, "pool %u\n", allocated);
	seq_printf(file, "pool_limit %u\n", limit);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(iopf_counters);

/* iommu/iopf, also where the IOMMU drivers have nothing to show in iommu */
static struct dentry *iopf_debugfs_dir(void)
{
	static struct dentry *dir;
	static DEFINE_MUTEX(lock);

	guard(mutex)(&lock);
	if (dir)
		return dir;
#ifdef CONFIG_IOMMU_DEBUGFS
	dir = debugfs_create_dir("iopf", iommu_debugfs_dir);
#else
	dir = debugfs_create_dir("iopf", debugfs_create_dir("iommu", NULL));
#endif
	return dir;
}

static struct iopf_device *iopf_device_alloc(struct iopf_queue *queue, struct device *dev)
{
	struct iopf_device *fdev;
	struct iopf_page *page;
	unsigned int credits;

	fdev = kzalloc(sizeof(*fdev), GFP_KERNEL_ACCOUNT);
	if (!fdev)
		return NULL;

	credits = iopf_credits(queue, dev);
	fdev->limit = 2 * credits + IOPF_ANSWER_SLACK;
	get_random_bytes(&fdev->partial_key, sizeof(fdev->partial_key));
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
	INIT_LIST_HEAD(&fdev->partials);
	INIT_LIST_HEAD(&fdev->parked);
	INIT_DELAYED_WORK(&fdev->age_work, iopf_age);
	INIT_DELAYED_WORK(&fdev->retry_work, iopf_retry);
	INIT_DELAYED_WORK(&fdev->grow_work, iopf_grow);
	fdev->param.dev = dev;
	fdev->param.queue = queue;
	fdev->iommu = dev->iommu->iommu_dev;

	page = iopf_page_alloc(fdev, GFP_KERNEL);
	if (!page) {
		iopf_device_put(fdev);
		return NULL;
	}
	iopf_pool_add(fdev, page);
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
	fdev->debugfs = debugfs_create_file(dev_name(dev), 0444, iopf_debugfs_dir(), fdev,
					    &iopf_counters_fops);
	rcu_assign_pointer(iommu->fault_param, &fdev->param);
	mutex_unlock(&iommu->lock);
	mutex_unlock(&queue->lock);
	return 0;
}
EXPORT_SYMBOL_GPL(iopf_queue_add_device);

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

	/*
	 * With @dying seen under the lock the pool's pages cannot change, and nothing
	 * comes behind iopf_abort() (claims.pml: DYING_LATE).
	 */
	spin_lock_bh(&fdev->lock);
	fdev->dying = true;
	spin_unlock_bh(&fdev->lock);
	iopf_drop_all(fdev, IOPF_CAUSE_REMOVE);

	debugfs_remove(fdev->debugfs);
	cancel_delayed_work_sync(&fdev->age_work);
	cancel_delayed_work_sync(&fdev->grow_work);
	cancel_delayed_work_sync(&fdev->retry_work);
	iopf_abort(fdev);
	/* frees what was parked */
	iopf_retry(&fdev->retry_work.work);
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

#if IS_ENABLED(CONFIG_IOMMU_IOPF_KUNIT_TEST)
#include "io-pgfault-test.c"
#endif
