/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * I/O page fault core: what its files share
 *
 * io-pgfault.c tells the life of a group. The files, in the order of that life:
 *
 *	io-pgfault-pool.c	the memory of requests and groups, out and back
 *	io-pgfault.c		report: collect a group, find its handler, or reject it
 *	io-pgfault-partial.c	the groups whose last request has not come
 *	io-pgfault-answer.c	claimed groups are answered, or recalled
 *	io-pgfault-device.c	a device joins a queue, is reset, leaves
 *	io-pgfault-debugfs.c	what an operator sees
 */
#ifndef __IO_PGFAULT_H
#define __IO_PGFAULT_H

#include <linux/llist.h>
#include <linux/refcount.h>
#include <linux/siphash.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "io-pgfault-priv.h"

struct dentry;
struct mem_cgroup;
struct seq_file;

/* SUCCESS, INVALID, FAILURE */
#define IOPF_NR_CODES		3
/* How long a device waits that is told to try again */
#define IOPF_RETRY_MS		1
/* Answers to such devices that are given together */
#define IOPF_RETRY_BATCH	16
/* Groups of the pool that are only used to remember that a group is void */
#define IOPF_VOID_GROUPS	4

/**
 * struct iopf_counters - What happened to the faults of one device
 * @requests: page requests reported
 * @groups: groups that were completed, by their last request
 * @delivered: groups that a handler had passed on and whose memory is in use for
 *             something else now; the others say so themselves
 * @no_room: requests that found no room
 * @overflows: overflows of the hardware queue
 * @recalled: groups taken back from a handler, by the reason
 * @stale: groups whose last request did not come in time
 * @partials: groups without their last request, now
 * @depth_peak: the most that handlers held
 */
struct iopf_counters {
	u64 requests;
	u64 groups;
	u64 delivered;
	u64 no_room;
	u64 overflows;
	u64 recalled[IOPF_NR_CAUSES];
	u64 stale;
	unsigned int partials;
	unsigned int depth_peak;
};

/**
 * struct iopf_device - fault state of one device
 * @param: the part that handlers see, and what &dev_iommu.fault_param points to
 * @users: one for the queue, one for each group that a handler holds, and for who
 *         has called iopf_device_get()
 * @rcu: delays the free until no report uses it any more
 * @queue_list: node in &iopf_queue.devices, protected by &iopf_queue.lock
 * @idle: woken for each answer while there are @waiters
 * @iommu: its IOMMU
 * @memcg: charged for the pool: that of the task which added the device
 * @age_work: forgets groups whose last request does not come
 * @retry_work: answers and frees what is @parked
 * @grow_work: adds pages to the pool when few are free
 * @debugfs: file with the counters
 * @answered: groups by who answered them and how. Counted before the answer is sent:
 *            who has seen the device get it finds it here
 * @depth: groups that handlers hold
 * @requests: requests that are in use, beside the last ones of their groups
 * @returned_groups: groups that came back since a report has looked; linked as
 *                   @free_groups are
 * @returned_requests: the same for requests
 * @lock: protects everything below it
 * @dying: the device left the queue; no group is collected or queued any more
 * @aging: @age_work is scheduled
 * @waiters: tasks that wait until no answer is under way
 * @limit: how many requests, and groups, the pool may grow to
 * @allocated: how many it has grown to
 * @grow_at: how many in use let @grow_work be scheduled; UINT_MAX while it is, and
 *           at the limit
 * @grow_delay: until the next try of @grow_work, in jiffies, after one that failed
 * @missed: requests that have found no room since the pool was to grow, and for which it
 *          has not grown yet
 * @free_groups: groups without a request in them, see iopf_link()
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
	atomic64_t answered[IOPF_NR_CAUSES][IOPF_NR_CODES];

	atomic_t depth;
	atomic_t requests;
	struct llist_head returned_groups;
	struct llist_head returned_requests;

	spinlock_t lock;	/* all below */
	bool dying;
	bool aging;
	unsigned int waiters;
	unsigned int limit;
	unsigned int allocated;
	unsigned int grow_at;
	unsigned int missed;
	unsigned long grow_delay;
	struct llist_node *free_groups;
	struct llist_node *free_requests;
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

static inline struct iopf_device *to_iopf_device(struct iommu_fault_param *param)
{
	return param ? container_of(param, struct iopf_device, param) : NULL;
}

/* io-pgfault-device.c */

void iopf_device_free(struct iopf_device *fdev);

static inline struct iopf_device *iopf_device_get(struct device *dev)
{
	struct iopf_device *fdev;

	rcu_read_lock();
	fdev = to_iopf_device(rcu_dereference(dev->iommu->fault_param));
	if (fdev && !refcount_inc_not_zero(&fdev->users))
		fdev = NULL;
	rcu_read_unlock();

	return fdev;
}

static __always_inline void iopf_device_put_many(struct iopf_device *fdev, int references)
{
	if (refcount_sub_and_test(references, &fdev->users))
		iopf_device_free(fdev);
}

static inline void iopf_device_put(struct iopf_device *fdev)
{
	iopf_device_put_many(fdev, 1);
}

/* io-pgfault-pool.c; all under &iopf_device.lock, but for the first four */

int iopf_pool_fill(struct iopf_device *fdev);
struct iopf_page *iopf_first_page(struct iopf_device *fdev);
void iopf_grow(struct work_struct *work);
void iopf_pool_put(struct iopf_device *fdev, struct iopf_group *group);
void iopf_pool_ask(struct iopf_device *fdev);
struct iopf_group *__iopf_pool_get(struct iopf_device *fdev);
struct iopf_fault *iopf_request_get(struct iopf_device *fdev);

static inline bool iopf_pool_may_grow(const struct iopf_device *fdev)
{
	return !fdev->dying && fdev->allocated < fdev->limit;
}

/* An open group counts twice here: it is with its handler, and in the table. */
static inline bool iopf_pool_has_groups(struct iopf_device *fdev)
{
	/* A group comes back before it is counted off. */
	return atomic_read(&fdev->depth) + fdev->count.partials + IOPF_VOID_GROUPS <
	       fdev->allocated;
}

/* Of groups or of requests, whichever are more */
static inline unsigned int iopf_pool_used(struct iopf_device *fdev)
{
	return max((unsigned int)atomic_read(&fdev->depth) + fdev->count.partials,
		   (unsigned int)atomic_read(&fdev->requests));
}

/* See that the pool grows before it is empty. */
static inline void iopf_pool_watch(struct iopf_device *fdev)
{
	if (unlikely(iopf_pool_used(fdev) >= fdev->grow_at))
		iopf_pool_ask(fdev);
}

static inline struct iopf_group *iopf_pool_get(struct iopf_device *fdev)
{
	return iopf_pool_has_groups(fdev) ? __iopf_pool_get(fdev) : NULL;
}

/* io-pgfault-partial.c; all under &iopf_device.lock, but for the last two */

u64 iopf_key(const struct iommu_fault_page_request *prm);
struct iopf_group *iopf_find(struct iopf_device *fdev, u64 key);
struct iopf_group *iopf_start(struct iopf_device *fdev, struct iopf_group *group, u64 key);
void iopf_unhash(struct iopf_device *fdev, struct iopf_group *group);
void iopf_drop(struct iopf_device *fdev, struct iopf_group *group, enum iopf_cause cause);
void iopf_mark_void(struct iopf_device *fdev, u64 key, u8 verdict);
unsigned long iopf_partial_timeout(void);
void iopf_drop_all(struct iopf_device *fdev, enum iopf_cause cause);
void iopf_age(struct work_struct *work);

/* &iopf_group.verdict: who answers with which code, and 0 for none */
static inline u8 iopf_verdict(enum iopf_cause cause, enum iommu_page_response_code code)
{
	return 1 + cause * IOPF_NR_CODES + code;
}

static inline enum iopf_cause iopf_verdict_cause(u8 verdict)
{
	return (verdict - 1) / IOPF_NR_CODES;
}

static inline enum iommu_page_response_code iopf_verdict_code(u8 verdict)
{
	return (verdict - 1) % IOPF_NR_CODES;
}

static inline const struct iopf_handler_ops *iopf_ops(const struct iommu_attach_handle *handle)
{
	static const struct iopf_handler_ops none;

	/* A parked group has no handle. */
	return handle && handle->domain->iopf_ops ? handle->domain->iopf_ops : &none;
}

/* io-pgfault.c */

void iopf_retry(struct work_struct *work);

/* io-pgfault-answer.c; under &iopf_device.lock */

void iopf_recall(struct iopf_device *fdev, struct iopf_group *group, enum iopf_cause cause);

/* io-pgfault-debugfs.c */

int iopf_counters_show(struct seq_file *file, void *unused);
struct dentry *iopf_debugfs_create(struct iopf_device *fdev);

#endif /* __IO_PGFAULT_H */
