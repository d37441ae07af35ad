// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page fault core: the memory of requests and groups
 *
 * io-pgfault.c tells how much a device gets, and in whose name.
 */
#include <linux/iommu.h>
#include <linux/memcontrol.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "io-pgfault.h"

/* The longest time from one try to get memory for a pool to the next */
#define IOPF_GROW_MS		1000

/* A page of groups and requests, in the name of who enabled page requests */
struct iopf_page *iopf_page_alloc(struct iopf_device *fdev, gfp_t gfp)
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

/* To the head: what was used last is used next. */
static void iopf_push_groups(struct iopf_device *fdev, struct list_head *first,
			     struct list_head *last)
{
	last->next = fdev->free_groups;
	fdev->free_groups = first;
}

void iopf_pool_add(struct iopf_device *fdev, struct iopf_page *page)
{
	unsigned int i = min(IOPF_PAIRS_PER_PAGE, fdev->limit - fdev->allocated);
	struct list_head *node;

	fdev->allocated += i;
	/* Used in the order of the page, in which they will be found by who recalls them */
	while (i--) {
		node = &page->pairs[i].group.node;
		iopf_push_groups(fdev, node, node);
		list_add(&page->pairs[i].request.list, &fdev->free_requests);
	}
	page->next = fdev->pages;
	fdev->pages = page;
}

/* No page came without waiting: in the owner's name it is waited for, not for long. */
void iopf_grow(struct work_struct *work)
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

/* There is not, so the pool grows by a page, or more where a page is small. */
void __iopf_make_room(struct iopf_device *fdev)
{
	struct iopf_page *page;

	while (!iopf_pool_has_room(fdev) && iopf_pool_may_grow(fdev) &&
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
struct iopf_group *__iopf_pool_get(struct iopf_device *fdev)
{
	struct list_head *node = fdev->free_groups;
	struct iopf_group *group;

	if (!node)
		return NULL;

	fdev->free_groups = node->next;
	group = list_entry(node, struct iopf_group, node);
	INIT_LIST_HEAD(&group->faults);
	group->fault_count = 0;
	group->open = false;
	group->verdict = 0;
	group->fault_param = &fdev->param;
	atomic_set(&group->state, IOPF_GROUP_COLLECTING);
	return group;
}

/* The group is not in use any more, nor are its requests; it is on no list of ours. */
static inline void iopf_group_end(struct iopf_device *fdev, struct iopf_group *group)
{
	lockdep_assert_held(&fdev->lock);

	/* The last request, if there is one, is part of the group itself. */
	if (unlikely(group->faults.next != &group->last_fault.list)) {
		if (list_last_entry(&group->faults, struct iopf_fault, list) ==
		    &group->last_fault)
			list_del(&group->last_fault.list);
		list_splice(&group->faults, &fdev->free_requests);
	}
	atomic_set(&group->state, IOPF_GROUP_GONE);
}

void iopf_pool_put(struct iopf_device *fdev, struct iopf_group *group)
{
	iopf_group_end(fdev, group);
	iopf_push_groups(fdev, &group->node, &group->node);
}

/**
 * iopf_free_groups() - Give the memory of answered groups back
 * @groups: the groups, linked by &iopf_group.node; empty on return
 *
 * Context: Process or softirq, but not under a lock that the handler itself
 * takes.
 */
void iopf_free_groups(struct list_head *groups)
{
	struct list_head *first, *last, *node = groups->next;
	struct iopf_device *fdev;
	struct iopf_group *group;
	int freed;

	while (node != groups) {
		first = node;
		group = list_entry(node, struct iopf_group, node);
		if (unlikely(group->release)) {
			node = node->next;
			group->release(group);
			continue;
		}
		fdev = to_iopf_device(group->fault_param);
		freed = 0;

		/* As many as come from the same device in a row */
		spin_lock_bh(&fdev->lock);
		do {
			fdev->count.delivered += group->delivered;
			group->delivered = false;
			iopf_group_end(fdev, group);
			freed++;
			last = node;
			node = node->next;
			group = list_entry(node, struct iopf_group, node);
		} while (node != groups && group->fault_param == &fdev->param);
		iopf_push_groups(fdev, first, last);
		fdev->count.depth -= freed;
		/* The last reference goes behind the lock, claims.pml: PUT_UNDER_LOCK */
		spin_unlock_bh(&fdev->lock);
		iopf_device_put_many(fdev, freed);
	}
	INIT_LIST_HEAD(groups);
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
