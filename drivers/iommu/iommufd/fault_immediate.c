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
 *
 * What breaks without a step of this is in tools/iommu/models/immediate.pml:
 * END_NO_REFERENCE, END_NO_READER, SETTLE_NO_OPEN, SETTLE_NO_TELL, DROP_NO_READER
 */
#include <linux/iommufd.h>
#include <linux/uio.h>
#include <uapi/linux/iommufd.h>

#include "../iommu-priv.h"
#include "fault_slot.h"

/* Messages that a reader takes at a time, and so the groups that are moved under a lock */
#define PART_TAKE	64

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
	iommufd_fault_set_queued(fault, fault->queued + 1);
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

	/*
	 * Claimed under this lock, after the core has looked: it is not ours now
	 * (immediate.pml: PART_NO_CHECK).
	 */
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
		iommufd_fault_put_group(slot->group);
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

/*
 * Let a reader take what fits; returns the number of messages that it is to copy.
 * The &iommufd_fault_part of each group in @batch is its to look at, until it says
 * with part_delivered() how far it came.
 */
static size_t part_deliver(struct iommufd_fault *fault, struct list_head *batch, size_t room,
			   u32 *flags)
{
	struct iopf_group *group, *next;
	struct iommufd_fault_part *part;
	unsigned int groups = 0;
	size_t messages = 0;

	spin_lock_bh(&fault->lock);
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
	WRITE_ONCE(fault->taken, fault->taken + groups);
	iommufd_fault_set_queued(fault, fault->queued - groups);
	*flags = iommufd_fault_loss(fault);
	if (groups)
		iommufd_fault_told(fault);
	spin_unlock_bh(&fault->lock);
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
			size_t copied)
{
	struct iommufd_fault_part *part = fault_part_of(fault, slot);
	bool told = part->ended && !part->taken && copied;

	part->reading = false;
	part_advance(fault, part, copied);
	if (part->ended && (told || !part->tell || !part->seen)) {
		iommufd_fault_take_out(fault, slot,
				       part->tell ? FAULT_SLOT_STALE : FAULT_SLOT_FREE);
		iommufd_fault_put_group(slot->group);
		return false;
	}
	if (part->ended || part->pending)
		return true;
	slot->state = part->open ? FAULT_SLOT_OPEN : FAULT_SLOT_DELIVERED;
	return false;
}

/*
 * Account what was copied. Groups of which messages were not are queued again in
 * their old order, ahead of all others; those that got more meanwhile, behind them.
 */
static void part_delivered(struct iommufd_fault *fault, struct list_head *batch,
			   size_t copied, u32 flags)
{
	struct iopf_group *group, *next;
	struct iommufd_fault_slot *slot;
	LIST_HEAD(again);
	size_t n, all;

	spin_lock_bh(&fault->lock);
	if (!copied && flags)
		iommufd_fault_note_loss(fault, true);
	list_for_each_entry_safe(group, next, batch, node) {
		slot = iommufd_fault_slot(fault, group->cookie);
		all = iommufd_fault_part(fault, group->cookie)->taken ?: 1;
		n = min(copied, all);
		copied -= n;
		list_del(&group->node);
		if (part_settle(fault, slot, n)) {
			part_queue(fault, slot);
			if (n < all)
				list_move_tail(&group->node, &again);
		}
		iommufd_fault_put_group(group);
	}
	list_splice(&again, &fault->deliver);
	spin_unlock_bh(&fault->lock);
}

/* The message that a group has ended which user space has read a part of */
static void part_recall_message(struct iommu_hwpt_pgfault *message,
				const struct iopf_group *group)
{
	const struct iopf_fault *iopf;

	iopf = list_first_entry(&group->faults, struct iopf_fault, list);
	*message = (struct iommu_hwpt_pgfault) {
		.flags = (iopf->fault.prm.flags & IOMMU_PGFAULT_FLAGS_PASID_VALID) |
			 IOMMU_PGFAULT_FLAGS_RECALLED,
		.dev_id = group->dev_id,
		.pasid = iopf->fault.prm.pasid,
		.grpid = iopf->fault.prm.grpid,
		.cookie = group->cookie,
	};
}

/* Copy what was taken of one group; returns how many whole messages arrived. */
static size_t part_copy(const struct iopf_group *group, const struct iommufd_fault_part *part,
			struct iov_iter *to, u32 flags)
{
	struct iopf_fault *iopf = part->first;
	struct iommu_hwpt_pgfault message;
	size_t copied = 0;

	if (!part->taken) {
		part_recall_message(&message, group);
		message.flags |= flags;
		return iommufd_fault_copy_message(&message, to);
	}
	for (;;) {
		iommufd_fault_message(&message, group, &iopf->fault.prm);
		if (!(message.flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE))
			message.flags |= IOMMU_PGFAULT_FLAGS_OPEN;
		message.flags |= flags;
		flags = 0;
		if (!iommufd_fault_copy_message(&message, to) || ++copied == part->taken)
			return copied;
		iopf = list_next_entry(iopf, list);
	}
}

/* Copy what was taken of groups that are delivered as they arrive. */
static size_t part_copy_all(struct iommufd_fault *fault, struct list_head *batch,
			    struct iov_iter *to, u32 flags)
{
	const struct iommufd_fault_part *part;
	struct iopf_group *group;
	size_t copied = 0, n;

	list_for_each_entry(group, batch, node) {
		part = iommufd_fault_part(fault, group->cookie);
		n = part_copy(group, part, to, flags);
		copied += n;
		if (n < (part->taken ?: 1))
			break;
		flags = 0;
	}
	return copied;
}

/**
 * iommufd_fault_read_parts() - Read messages, also of groups that are not complete
 * @fault: the object
 * @to: where to
 * @room: number of messages that there is room for
 *
 * Context: Process context, may sleep to fault user memory in.
 *
 * Return: the number of messages, 0 if nothing is queued, or -EFAULT.
 */
ssize_t iommufd_fault_read_parts(struct iommufd_fault *fault, struct iov_iter *to, size_t room)
{
	LIST_HEAD(batch);
	size_t copied;
	u32 flags;

	if (!part_deliver(fault, &batch, min(room, PART_TAKE), &flags))
		return 0;
	copied = part_copy_all(fault, &batch, to, flags);
	part_delivered(fault, &batch, copied, flags);
	return copied ?: -EFAULT;
}
