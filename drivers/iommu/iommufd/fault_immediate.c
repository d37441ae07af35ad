// SPDX-License-Identifier: GPL-2.0-only
/*
 * Immediate delivery: page requests reach user space one by one, as they arrive
 *
 * A group gets its slot with its first request. What user space was not given
 * of it is accounted in the struct iommufd_fault_part beside the slot:
 *
 *	faults of the group:   r1 -- r2 -- r3 -- r4 -- r5
 *	                       seen       |first  pending
 *	                                   \ a reader has taken some of these
 *
 * The slot is on &iommufd_fault.deliver while something is pending and no reader
 * has it. So each group has one reader at a time, and its requests arrive in
 * their order. A reader that could copy only some leaves the rest pending.
 *
 *	         first request                 all pending ones copied
 *	  FREE ----------------> QUEUED <====> OPEN ------------------> DELIVERED
 *	                           a reader takes it, or is done;       (was the
 *	                           another request comes                last one)
 *
 * The hardware takes one answer a group, after its last request. Until user
 * space has read that one, an answer fails with -EBUSY.
 *
 * The end of a group that user space knows, by recall or deadline, is a message
 * of its own: the slot stays in use, ended and QUEUED, until that one is copied.
 * A detach or close drops the message. While a reader has the slot it is only
 * marked; the reader frees it.
 *
 * A request that is accounted stays as it is, and so does its link to the next
 * accounted one: the core appends behind the last. The reader's reference keeps
 * the memory, whoever ends the group.
 */
#include <linux/iommufd.h>
#include <uapi/linux/iommufd.h>

#include "../iommu-priv.h"
#include "iommufd_private.h"

static struct iommufd_fault_part *fault_part_of(const struct iommufd_fault *fault,
						const struct iommufd_fault_slot *slot)
{
	return &fault->parts[slot - fault->slots];
}

static void part_queue(struct iommufd_fault *fault, struct iommufd_fault_slot *slot)
{
	slot->state = FAULT_SLOT_QUEUED;
	list_add_tail(&slot->group->node, &fault->deliver);
	fault->delivered--;
	iommufd_fault_count_queued(fault);
}

/* Another request of a group that has its slot was appended. */
static void part_append(struct iommufd_fault *fault, struct iommufd_fault_slot *slot)
{
	struct iommufd_fault_part *part = fault_part_of(fault, slot);
	struct iopf_group *group = slot->group;

	if (!part->pending++)
		part->first = list_last_entry(&group->faults, struct iopf_fault, list);
	part->open = group->open;
	fault->stats.requests++;
	iommufd_fault_start_aging(fault, group);
	if (slot->state == FAULT_SLOT_OPEN && !part->reading)
		part_queue(fault, slot);
}

/**
 * iommufd_fault_part_add() - Queue the next request of a group
 * @fault: the object
 * @attachment: where it comes from
 * @group: the group, with the request at its end
 *
 * Context: Under the object's lock, and that of the device.
 *
 * Return: 0, or an error as of iommufd_fault_admit().
 */
int iommufd_fault_part_add(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			   struct iopf_group *group)
{
	struct iommufd_fault_slot *slot = iommufd_fault_slot(fault, group->cookie);
	int rc;

	/* Claimed under this lock, after the core has looked: it is not ours now. */
	if (atomic_read(&group->state) == IOPF_GROUP_ANSWERING ||
	    atomic_read(&group->state) == IOPF_GROUP_GONE)
		return 0;
	if (iommufd_fault_slot_holds(slot, group)) {
		part_append(fault, slot);
		return 0;
	}

	rc = iommufd_fault_admit(fault, attachment, group);
	if (rc)
		return rc;
	*iommufd_fault_part(fault, group->cookie) = (struct iommufd_fault_part){
		.first = list_first_entry(&group->faults, struct iopf_fault, list),
		.pending = group->fault_count,
		.open = group->open,
	};
	return 0;
}

/**
 * iommufd_fault_part_end() - A group has ended that user space did not answer
 * @fault: the object
 * @slot: its slot
 * @tell: user space is to be told, if it knows the group
 *
 * Context: Under the object's lock.
 *
 * Return: true if the slot stays in use, by a reader or for the message; its
 * reference of the group is kept then. False if the caller may free it.
 */
bool iommufd_fault_part_end(struct iommufd_fault *fault, struct iommufd_fault_slot *slot,
			    bool tell)
{
	struct iommufd_fault_part *part = fault_part_of(fault, slot);

	tell &= !fault->closed;
	if (!part->reading && !(tell && part->seen))
		return false;

	part->ended = true;
	part->tell = tell;
	part->pending = 0;
	part->open = false;
	if (!part->reading && slot->state != FAULT_SLOT_QUEUED)
		part_queue(fault, slot);
	return true;
}

/**
 * iommufd_fault_part_drop() - Drop the message that a group has ended
 * @fault: the object
 * @slot: a slot in use, which is detached or closed
 *
 * Context: Under the object's lock.
 *
 * Return: false if the group has not ended: it is to be claimed.
 */
bool iommufd_fault_part_drop(struct iommufd_fault *fault, struct iommufd_fault_slot *slot)
{
	struct iommufd_fault_part *part = fault_part_of(fault, slot);

	if (!part->ended)
		return false;

	part->tell = false;
	if (!part->reading) {
		iommufd_fault_take_out(fault, slot, FAULT_SLOT_FREE);
		iommufd_fault_put_group(slot->group, &fault->unused);
		queue_work(system_unbound_wq, &fault->work);
	}
	return true;
}

/**
 * iommufd_fault_part_refuse() - Why a group cannot be answered
 * @fault: the object
 * @slot: its slot, not FAULT_SLOT_DELIVERED
 *
 * Context: Under the object's lock.
 *
 * Return: -ESTALE if it has ended, -EBUSY if user space has not read it to the
 * end, -EINVAL if it has not read any of it or the group is detached.
 */
int iommufd_fault_part_refuse(const struct iommufd_fault *fault,
			      const struct iommufd_fault_slot *slot)
{
	const struct iommufd_fault_part *part = fault_part_of(fault, slot);

	if (!iommufd_fault_slot_used(slot) || !(part->seen || part->reading))
		return -EINVAL;
	if (part->ended)
		return part->tell ? -ESTALE : -EINVAL;
	return -EBUSY;
}

/**
 * iommufd_fault_part_deliver() - Let a reader take what fits
 * @fault: the object
 * @batch: gets the groups, linked by &iopf_group.node
 * @room: number of messages that the caller has room for
 * @flags: gets flags for the first message
 *
 * The &iommufd_fault_part of each group in @batch is the caller's to look at,
 * until it says with iommufd_fault_part_delivered() how far it came.
 *
 * Return: number of messages that it is to copy, 0 if nothing is queued.
 */
size_t iommufd_fault_part_deliver(struct iommufd_fault *fault, struct list_head *batch,
				  size_t room, u32 *flags)
{
	struct iopf_group *group, *next;
	struct iommufd_fault_part *part;
	unsigned int groups = 0;
	size_t messages = 0;
	bool more;

	spin_lock(&fault->lock);
	list_for_each_entry_safe(group, next, &fault->deliver, node) {
		if (messages == room)
			break;
		iopf_group_deliver(group);
		part = iommufd_fault_part(fault, group->cookie);
		part->taken = min_t(size_t, part->pending, room - messages);
		part->reading = true;
		messages += part->taken ?: 1;
		iommufd_fault_slot(fault, group->cookie)->state = FAULT_SLOT_OPEN;
		list_move_tail(&group->node, batch);
		group->refs++;
		groups++;
	}
	fault->delivered += groups;
	iommufd_fault_set_queued(fault, fault->queued - groups);
	*flags = groups ? iommufd_fault_take_loss(fault) : 0;
	more = fault->queued;
	spin_unlock(&fault->lock);

	if (more)
		iommufd_fault_wake_next(fault);
	return messages;
}

/* Account what was copied. */
static void part_advance(struct iommufd_fault *fault, struct iommufd_fault_part *part,
			 size_t copied)
{
	if (copied && !part->seen) {
		part->seen = true;
		fault->stats.delivered++;
	}
	if (part->ended)
		return;
	part->pending -= copied;
	for (; copied && part->pending; copied--)
		part->first = list_next_entry(part->first, list);
}

/* The reader is done with a group; returns whether it is to be queued again. */
static bool part_settle(struct iommufd_fault *fault, struct iommufd_fault_slot *slot,
			size_t copied, struct list_head *unused)
{
	struct iommufd_fault_part *part = fault_part_of(fault, slot);
	bool told = part->ended && !part->taken && copied;

	part->reading = false;
	part_advance(fault, part, copied);
	if (part->ended && (told || !part->tell || !part->seen)) {
		iommufd_fault_take_out(fault, slot,
				       part->tell ? FAULT_SLOT_STALE : FAULT_SLOT_FREE);
		iommufd_fault_put_group(slot->group, unused);
		return false;
	}
	if (part->ended || part->pending)
		return true;
	slot->state = part->open ? FAULT_SLOT_OPEN : FAULT_SLOT_DELIVERED;
	return false;
}

/**
 * iommufd_fault_part_delivered() - Finish what iommufd_fault_part_deliver() began
 * @fault: the object
 * @batch: the groups that it gave
 * @copied: how many of the messages reached user space
 * @flags: the flags that it gave
 *
 * Groups of which messages were not copied are queued again in their old order,
 * ahead of all others; those that got more meanwhile, behind them.
 */
void iommufd_fault_part_delivered(struct iommufd_fault *fault, struct list_head *batch,
				  size_t copied, u32 flags)
{
	struct iopf_group *group, *next;
	struct iommufd_fault_slot *slot;
	LIST_HEAD(unused);
	LIST_HEAD(again);
	size_t n, all;

	spin_lock(&fault->lock);
	if (!copied)
		iommufd_fault_untake_loss(fault, flags);
	list_for_each_entry_safe(group, next, batch, node) {
		slot = iommufd_fault_slot(fault, group->cookie);
		all = iommufd_fault_part(fault, group->cookie)->taken ?: 1;
		n = min(copied, all);
		copied -= n;
		list_del(&group->node);
		if (part_settle(fault, slot, n, &unused)) {
			part_queue(fault, slot);
			if (n < all)
				list_move_tail(&group->node, &again);
		}
		iommufd_fault_put_group(group, &unused);
	}
	list_splice(&again, &fault->deliver);
	iommufd_fault_unlock_wake(fault);

	iopf_free_groups(&unused);
}
