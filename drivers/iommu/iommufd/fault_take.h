/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From the queue of a fault object to memory that is there, under the object's lock
 *
 * For who reads, and for who answers and reads in one call: that has the lock already.
 * fault_read.c tells what else can happen to a read.
 */
#ifndef __IOMMUFD_FAULT_TAKE_H
#define __IOMMUFD_FAULT_TAKE_H

#include <linux/uaccess.h>

#include "fault.h"

/* Messages that are written without letting go of the lock */
#define FAULT_TAKE		64

/*
 * Write the messages of the groups at the head of the queue to memory that is there.
 * Returns how many are written, all of whole groups; @end gets what comes behind them.
 * Field by field: what iommufd_fault_message() makes would be copied once more.
 */
static __always_inline size_t iommufd_fault_store(struct iommufd_fault *fault,
						  struct iommu_hwpt_pgfault __user *to,
						  size_t room, struct list_head **end)
{
	const struct iommu_fault_page_request *prm;
	const bool splits = fault->splits;
	const struct iopf_fault *iopf;
	struct iopf_group *group;
	struct list_head *node;
	size_t left = room;

	*end = fault->queue.next;
	if (!user_write_access_begin(to, room * FAULT_MESSAGE_SIZE))
		return 0;
	for (node = *end; node != &fault->queue; node = node->next) {
		group = list_entry(node, struct iopf_group, node);
		if (group->fault_count > left ||
		    (unlikely(splits) && iommufd_fault_slot(fault, group->cookie)->read))
			break;
		list_for_each_entry(iopf, &group->faults, list) {
			prm = &iopf->fault.prm;
			unsafe_put_user(prm->flags & FAULT_USER_FLAGS, &to->flags, not_there);
			unsafe_put_user(group->dev_id, &to->dev_id, not_there);
			unsafe_put_user(prm->pasid, &to->pasid, not_there);
			unsafe_put_user(prm->grpid, &to->grpid, not_there);
			unsafe_put_user(prm->perm, &to->perm, not_there);
			unsafe_put_user(0, &to->__reserved, not_there);
			unsafe_put_user(prm->addr, &to->addr, not_there);
			unsafe_put_user(group->length, &to->length, not_there);
			unsafe_put_user(group->cookie, &to->cookie, not_there);
			to++;
		}
		left -= group->fault_count;
	}
not_there:
	*end = node;
	user_write_access_end();
	return room - left;
}

/* The group at the head of the queue goes to user space; its node is the caller's. */
static __always_inline void iommufd_fault_deliver(struct iommufd_fault *fault,
						  struct iopf_group *group)
{
	iopf_group_deliver(group);
	iommufd_fault_slot(fault, group->cookie)->state = FAULT_SLOT_DELIVERED;
}

static __always_inline void iommufd_fault_count_delivered(struct iommufd_fault *fault,
							  unsigned int groups)
{
	fault->delivered += groups;
	fault->stats.delivered += groups;
	WRITE_ONCE(fault->taken, fault->taken + groups);
	iommufd_fault_set_queued(fault, fault->queued - groups);
}

/*
 * Deliver what can be written under the lock; returns the number of messages. A loss is
 * told with a group that is copied without it.
 */
static __always_inline size_t iommufd_fault_take(struct iommufd_fault *fault,
						 struct iommu_hwpt_pgfault __user *to,
						 size_t room)
{
	struct list_head *node, *end;
	unsigned int groups = 0;
	size_t done;

	lockdep_assert_held(&fault->lock);

	if (unlikely(fault->lost))
		return 0;
	pagefault_disable();
	done = iommufd_fault_store(fault, to, min(room, FAULT_TAKE), &end);
	pagefault_enable();
	for (node = fault->queue.next; node != end; node = node->next) {
		iommufd_fault_deliver(fault, list_entry(node, struct iopf_group, node));
		groups++;
	}
	/* All before @end are off, at once: nobody needs their links any more. */
	__list_del(&fault->queue, end);
	iommufd_fault_count_delivered(fault, groups);
	return done;
}

#endif
