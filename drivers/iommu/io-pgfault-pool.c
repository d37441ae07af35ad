// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page fault core: the memory of requests and groups
 *
 * io-pgfault.c tells how much a device gets, and in whose name.
 *
 * Reports take what is free, under the device's lock. Whoever lets go of a group, with
 * whatever locks, gives it back without that lock, which reports need: to lists of
 * their own, that a report takes whole when it has nothing left.
 */
#include <kunit/visibility.h>
#include <linux/iommu.h>
#include <linux/memcontrol.h>
#include <linux/moduleparam.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "io-pgfault.h"

/* The longest time from one try to get memory for a pool to the next */
#define IOPF_GROW_MS		1000
/* So many of a pool are left when it is to grow, for what comes until it has. */
#define IOPF_SPARE		3

#undef MODULE_PARAM_PREFIX
#define MODULE_PARAM_PREFIX "io_pgfault."

VISIBLE_IF_KUNIT unsigned int iopf_reserve;
EXPORT_SYMBOL_IF_KUNIT(iopf_reserve);
module_param_named(reserve, iopf_reserve, uint, 0644);
MODULE_PARM_DESC(reserve,
		 "Page requests of a device that there is memory for from the start; for more it grows");

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

/* What is free is linked by the next of its list node alone. */
static inline struct llist_node *iopf_link(struct list_head *node)
{
	static_assert(offsetof(struct list_head, next) == offsetof(struct llist_node, next));
	return (struct llist_node *)node;
}

static inline void iopf_push(struct llist_node **free, struct list_head *node)
{
	iopf_link(node)->next = *free;
	*free = iopf_link(node);
}

static inline struct llist_node *iopf_pop(struct llist_node **free, struct llist_head *returned)
{
	struct llist_node *node = *free;

	/* An order of its own: behind this, the memory is as who gave it back left it. */
	if (!node)
		node = llist_del_all(returned);
	if (node)
		*free = node->next;
	return node;
}

static void iopf_pool_add(struct iopf_device *fdev, struct iopf_page *page)
{
	unsigned int i = min(IOPF_PAIRS_PER_PAGE, fdev->limit - fdev->allocated);

	fdev->allocated += i;
	/* Used in the order of the page, in which they will be found by who recalls them */
	while (i--) {
		iopf_push(&fdev->free_groups, &page->pairs[i].group.node);
		iopf_push(&fdev->free_requests, &page->pairs[i].request.list);
	}
	page->next = fdev->pages;
	fdev->pages = page;
}

/* The pool has grown, or has its limit. */
static void iopf_pool_set_mark(struct iopf_device *fdev)
{
	static_assert(struct_size_t(struct iopf_page, pairs,
				    IOPF_VOID_GROUPS + IOPF_SPARE + 1) <= PAGE_SIZE);
	fdev->grow_at = UINT_MAX;
	if (iopf_pool_may_grow(fdev))
		fdev->grow_at = fdev->allocated - IOPF_VOID_GROUPS - IOPF_SPARE;
}

/* What a device has before it sends anything, in the name of who enables its requests */
int iopf_pool_fill(struct iopf_device *fdev)
{
	u64 wanted = (u64)READ_ONCE(iopf_reserve) + IOPF_VOID_GROUPS + IOPF_SPARE;
	struct iopf_page *page;

	do {
		page = iopf_page_alloc(fdev, GFP_KERNEL);
		if (!page)
			return -ENOMEM;
		iopf_pool_add(fdev, page);
	} while (fdev->allocated < min(wanted, fdev->limit));
	iopf_pool_set_mark(fdev);
	return 0;
}

/*
 * Few are left. A report allocates nothing, and waits for no memory: a work item grows
 * the pool in the owner's name, on no workqueue that another owner's device waits for.
 */
void iopf_pool_ask(struct iopf_device *fdev)
{
	fdev->grow_at = UINT_MAX;
	fdev->missed = 0;
	if (iopf_pool_may_grow(fdev))
		queue_delayed_work(system_dfl_wq, &fdev->grow_work, 0);
}

/* By one page. Returns false if that is enough, or there is none: then again, later. */
static bool iopf_pool_grow(struct iopf_device *fdev, struct iopf_page *page)
{
	if (!page) {
		fdev->grow_delay = clamp(2 * fdev->grow_delay, 1UL,
					 msecs_to_jiffies(IOPF_GROW_MS));
		queue_delayed_work(system_dfl_wq, &fdev->grow_work, fdev->grow_delay);
		return false;
	}
	fdev->grow_delay = 0;
	iopf_pool_add(fdev, page);
	iopf_pool_set_mark(fdev);
	/* What has found no room comes again, all of it at once. */
	fdev->missed -= min(fdev->missed, IOPF_PAIRS_PER_PAGE);
	if ((fdev->missed || iopf_pool_used(fdev) >= fdev->grow_at) &&
	    iopf_pool_may_grow(fdev)) {
		fdev->grow_at = UINT_MAX;
		return true;
	}
	/* There is room now: no need to let it wait any longer. */
	if (!list_empty(&fdev->parked))
		mod_delayed_work(fdev->param.queue->wq, &fdev->retry_work, 0);
	return false;
}

void iopf_grow(struct work_struct *work)
{
	struct iopf_device *fdev = container_of(to_delayed_work(work),
						struct iopf_device, grow_work);
	struct iopf_page *page;
	bool more;

	do {
		page = iopf_page_alloc(fdev, GFP_KERNEL | __GFP_NORETRY);
		spin_lock_bh(&fdev->lock);
		more = iopf_pool_may_grow(fdev);
		if (more) {
			more = iopf_pool_grow(fdev, page);
			page = NULL;
		}
		spin_unlock_bh(&fdev->lock);
		kfree(page);
	} while (more);
}

/* The next free group, if there is one. */
struct iopf_group *__iopf_pool_get(struct iopf_device *fdev)
{
	struct llist_node *node = iopf_pop(&fdev->free_groups, &fdev->returned_groups);
	struct iopf_group *group;

	if (!node)
		return NULL;

	group = list_entry((struct list_head *)node, struct iopf_group, node);
	fdev->count.delivered += group->delivered;
	group->delivered = false;
	INIT_LIST_HEAD(&group->faults);
	group->fault_count = 0;
	group->open = false;
	group->verdict = 0;
	group->fault_param = &fdev->param;
	atomic_set(&group->state, IOPF_GROUP_COLLECTING);
	return group;
}

/* A free request, if there is one. */
struct iopf_fault *iopf_request_get(struct iopf_device *fdev)
{
	struct llist_node *node = iopf_pop(&fdev->free_requests, &fdev->returned_requests);

	if (!node)
		return NULL;

	atomic_inc(&fdev->requests);
	return list_entry((struct list_head *)node, struct iopf_fault, list);
}

/* The requests of a group are not in use any more, but for one that is part of it. */
static inline void iopf_return_requests(struct iopf_device *fdev, struct iopf_group *group)
{
	struct list_head *last = group->faults.prev;
	int returned = group->fault_count;

	if (likely(group->faults.next == &group->last_fault.list))
		return;
	if (last == &group->last_fault.list) {
		last = last->prev;
		returned--;
	}
	if (last == &group->faults)
		return;
	llist_add_batch(iopf_link(group->faults.next), iopf_link(last),
			&fdev->returned_requests);
	/* Behind the list, as groups are: see iopf_free_groups(). */
	atomic_sub(returned, &fdev->requests);
}

/* No handler has the group, and it is on no list of ours. */
void iopf_pool_put(struct iopf_device *fdev, struct iopf_group *group)
{
	iopf_return_requests(fdev, group);
	atomic_set(&group->state, IOPF_GROUP_GONE);
	llist_add(iopf_link(&group->node), &fdev->returned_groups);
}

/**
 * iopf_free_groups() - Give the memory of answered groups back
 * @answer: the groups, as iopf_answer_groups() left them
 * @count: their number
 *
 * Context: Any, under any lock.
 */
void iopf_free_groups(const struct iopf_answer *answer, unsigned int count)
{
	const struct iopf_answer *end = answer + count;
	struct llist_node *first, *last;
	struct iopf_device *fdev;
	struct iopf_group *group;
	int freed;

	while (answer < end) {
		group = answer++->group;
		if (unlikely(group->release)) {
			group->release(group);
			continue;
		}
		fdev = to_iopf_device(group->fault_param);
		iopf_return_requests(fdev, group);
		first = iopf_link(&group->node);
		last = first;
		freed = 1;

		/* As many as come from the same device in a row */
		for (; answer < end && answer->group->fault_param == &fdev->param; answer++) {
			iopf_return_requests(fdev, answer->group);
			last->next = iopf_link(&answer->group->node);
			last = last->next;
			freed++;
		}
		llist_add_batch(first, last, &fdev->returned_groups);
		/*
		 * Behind the list, which is a full barrier: else iopf_pool_has_groups()
		 * would say so, and a report find none.
		 */
		atomic_sub(freed, &fdev->depth);
		iopf_device_put_many(fdev, freed);
	}
}
EXPORT_SYMBOL_GPL(iopf_free_groups);

/**
 * iopf_free_group() - Give the memory of one answered group back
 * @group: the group; on no list, and not to be used afterwards
 *
 * Context: Any, under any lock.
 */
void iopf_free_group(struct iopf_group *group)
{
	const struct iopf_answer answer = { .group = group };

	iopf_free_groups(&answer, 1);
}
EXPORT_SYMBOL_GPL(iopf_free_group);

/*
 * Pages come in front and stay as long as @fdev: what is there now can be walked with
 * no lock, or one page after the other under it.
 */
struct iopf_page *iopf_first_page(struct iopf_device *fdev)
{
	struct iopf_page *page;

	spin_lock_bh(&fdev->lock);
	page = fdev->pages;
	spin_unlock_bh(&fdev->lock);
	return page;
}
