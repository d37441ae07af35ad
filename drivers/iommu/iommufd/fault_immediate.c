// SPDX-License-Identifier: GPL-2.0-only
/*
 * Immediate delivery: page requests reach user space one by one, as they arrive
 *
 * A group gets its slot with its first request. What user space was not given
 * of it is accounted in the struct iommufd_fault_part beside the slot:
 *
 *	faults of the group:   r1 -- r2 -- r3 -- r4 -- r5
 *	                       seen       |first  pending
 *
 * The slot is on &iommufd_fault.queue while something is pending:
 *
 *	         first request                 all pending ones read
 *	  FREE ----------------> QUEUED <====> OPEN ------------------> DELIVERED
 *	                           another request comes                (was the
 *	                                                                last one)
 *
 * Until its last request is here a group is the core's: it cannot be claimed, and ends
 * by a recall alone. The close of the file leaves it where it is, too; its next request
 * is refused. Until user space has read the last one, an answer fails with -EBUSY.
 *
 * The end of a group that user space knows, by recall or deadline, is a message
 * of its own: the slot stays in use, ended and QUEUED, until that one is read.
 * A detach or close drops the message.
 *
 * Messages are copied under the object's lock, to memory that was faulted in before.
 * So who reads a group has nothing to do with who ends it. The core appends requests
 * under the device's lock, and accounts them here under the object's; the link of one
 * to the next is followed only when both are accounted.
 *
 * What breaks without a step of this is in tools/iommu/models/immediate.pml:
 * CLOSE_OPEN, END_NO_REFERENCE, END_CLOSED, READ_NO_OPEN
 */
#include <linux/iommufd.h>
#include <linux/uio.h>
#include <uapi/linux/iommufd.h>

#include "fault_immediate.h"
#include "fault_slot.h"

/* Messages that are copied without letting go of the lock */
#define PART_TAKE	64
/* How often memory is faulted in that is gone when it is written to */
#define PART_TRIES	16

static struct iommufd_fault_part *fault_part_of(const struct iommufd_fault *fault,
						const struct iommufd_fault_slot *slot)
{
	return &fault->parts[slot - fault->slots];
}

static void part_queue(struct iommufd_fault *fault, struct iommufd_fault_slot *slot)
{
	if (slot->state == FAULT_SLOT_QUEUED)
		return;
	slot->state = FAULT_SLOT_QUEUED;
	list_add_tail(&slot->group->node, &fault->queue);
	fault->delivered--;
	iommufd_fault_set_queued(fault, fault->queued + 1);
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
	struct iommufd_fault_part *part;
	int rc;

	if (!iommufd_fault_slot_holds(slot, group)) {
		rc = iommufd_fault_admit(fault, attachment, group);
		if (rc)
			return rc;
		slot = iommufd_fault_slot(fault, group->cookie);
		*fault_part_of(fault, slot) = (struct iommufd_fault_part){
			.first = list_first_entry(&group->faults, struct iopf_fault, list),
			.pending = group->fault_count,
			.open = group->open,
		};
		return 0;
	}
	if (fault->closed)
		return -EPIPE;

	part = fault_part_of(fault, slot);
	if (!part->pending++)
		part->first = list_last_entry(&group->faults, struct iopf_fault, list);
	part->open = group->open;
	fault->stats.requests++;
	iommufd_fault_start_aging(fault, group);
	part_queue(fault, slot);
	return 0;
}

/**
 * iommufd_fault_part_end() - A group has ended that user space did not answer
 * @fault: the object
 * @slot: its slot
 *
 * Context: Under the object's lock.
 *
 * Return: true if the slot stays in use for a message, as user space knows the group;
 * its reference of the group is kept then. False if the caller may free it.
 */
bool iommufd_fault_part_end(struct iommufd_fault *fault, struct iommufd_fault_slot *slot)
{
	struct iommufd_fault_part *part = fault_part_of(fault, slot);

	if (!part->seen || fault->closed)
		return false;

	part->ended = true;
	part->open = false;
	part_queue(fault, slot);
	return true;
}

/**
 * iommufd_fault_part_drop() - Leave what a detach or close does not answer
 * @fault: the object
 * @slot: a slot in use
 *
 * Context: Under the object's lock.
 *
 * Return: false if the group is to be claimed. Else it is open, and the core will
 * recall it; or it has ended, and the message that says so is dropped.
 */
bool iommufd_fault_part_drop(struct iommufd_fault *fault, struct iommufd_fault_slot *slot)
{
	struct iommufd_fault_part *part = fault_part_of(fault, slot);

	if (!part->ended)
		return part->open;

	iommufd_fault_take_out(fault, slot, FAULT_SLOT_FREE);
	iommufd_fault_put_group(slot->group);
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
 * end, -EINVAL if it has not read any of it.
 */
int iommufd_fault_part_refuse(const struct iommufd_fault *fault,
			      const struct iommufd_fault_slot *slot)
{
	const struct iommufd_fault_part *part = fault_part_of(fault, slot);

	if (!iommufd_fault_slot_used(slot) || !part->seen)
		return -EINVAL;
	return part->ended ? -ESTALE : -EBUSY;
}

/* The next message of a group: a request, or that it has ended */
static struct iommu_hwpt_pgfault part_message(const struct iopf_group *group,
					      const struct iommufd_fault_part *part)
{
	const struct iopf_fault *iopf = part->first;
	struct iommu_hwpt_pgfault message;

	if (part->ended)
		iopf = list_first_entry(&group->faults, struct iopf_fault, list);
	iommufd_fault_message(&message, group, &iopf->fault.prm);
	if (part->ended) {
		message.flags &= IOMMU_PGFAULT_FLAGS_PASID_VALID;
		message.flags |= IOMMU_PGFAULT_FLAGS_RECALLED;
		message.perm = 0;
		message.addr = 0;
	} else if (!(message.flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)) {
		message.flags |= IOMMU_PGFAULT_FLAGS_OPEN;
	}
	return message;
}

/* One message of the slot at the head of the queue has arrived. */
static void part_delivered(struct iommufd_fault *fault, struct iommufd_fault_slot *slot,
			   struct iommufd_fault_part *part)
{
	struct iopf_group *group = slot->group;

	if (part->ended) {
		iommufd_fault_take_out(fault, slot, FAULT_SLOT_STALE);
		iommufd_fault_put_group(group);
		return;
	}
	if (!part->seen) {
		part->seen = true;
		fault->stats.delivered++;
		iopf_group_deliver(group);
	}
	if (--part->pending) {
		part->first = list_next_entry(part->first, list);
		return;
	}
	list_del(&group->node);
	slot->state = part->open ? FAULT_SLOT_OPEN : FAULT_SLOT_DELIVERED;
	fault->delivered++;
	iommufd_fault_set_queued(fault, fault->queued - 1);
}

/* Copy messages to memory that is there; returns how many. */
static size_t part_copy(struct iommufd_fault *fault, struct iov_iter *to, size_t room)
{
	struct iommu_hwpt_pgfault message;
	struct iommufd_fault_slot *slot;
	struct iommufd_fault_part *part;
	struct iopf_group *group;
	size_t done, copied;

	for (done = 0; done < room && !list_empty(&fault->queue); done++) {
		group = list_first_entry(&fault->queue, struct iopf_group, node);
		slot = iommufd_fault_slot(fault, group->cookie);
		part = fault_part_of(fault, slot);
		message = part_message(group, part);
		message.flags |= iommufd_fault_loss(fault);
		copied = copy_to_iter(&message, FAULT_MESSAGE_SIZE, to);
		if (copied < FAULT_MESSAGE_SIZE) {
			iov_iter_revert(to, copied);
			break;
		}
		part_delivered(fault, slot, part);
		iommufd_fault_told(fault);
	}
	if (done)
		WRITE_ONCE(fault->taken, fault->taken + 1);
	return done;
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
	unsigned int tries;
	size_t done;

	for (tries = 0; tries < PART_TRIES; tries++) {
		if (fault_in_iov_iter_writeable(to, FAULT_MESSAGE_SIZE))
			return -EFAULT;
		spin_lock_bh(&fault->lock);
		pagefault_disable();
		done = part_copy(fault, to, min(room, PART_TAKE));
		pagefault_enable();
		spin_unlock_bh(&fault->lock);
		if (done || !READ_ONCE(fault->queued))
			return done;
	}
	return -EFAULT;
}
