// SPDX-License-Identifier: GPL-2.0-only
/*
 * From the queue of a fault object to the memory of a reader
 *
 * A reader takes whole groups off the head of the queue, as many as it has room
 * for. Where its memory is one piece and is there, the messages are written to it
 * under the object's lock, with page faults off: a group is delivered once its
 * messages have arrived, so there is nothing to take back. The lock is dropped
 * after FAULT_TAKE messages.
 *
 * What this cannot do is done for one group at a time with no lock held: memory
 * that must be faulted in first or is in several pieces, groups that have more
 * than FAULT_TAKE messages, and the first one after a loss. Such a group counts as
 * delivered while it is copied, may be answered or recalled meanwhile, and goes back
 * to the head of the queue if the copy fails. The reader's reference keeps its memory.
 *
 * Programs of Linux 6.12 have a buffer of some size, 100 messages say, and would never
 * get past a group that is larger. Where they read it is copied in parts, and goes back
 * to the head of the queue until the last is copied.
 *
 * What was lost is told by a flag of the next message. Where that may not come, it is
 * something to read by itself, a message that is no fault.
 *
 * With immediate delivery a read gets single messages, as many as fit; see
 * fault_immediate.c.
 */
#include <linux/iommufd.h>
#include <linux/uio.h>
#include <uapi/linux/iommufd.h>

#include "fault_immediate.h"
#include "fault_read.h"
#include "fault_take.h"
#include "fault_wake.h"

/* Returns the number of messages, 0 if they must be copied with no lock held. */
static __always_inline size_t fault_take(struct iommufd_fault *fault, struct iov_iter *to,
					 size_t room)
{
	size_t done;

	if (!iter_is_ubuf(to) || fault->parts)
		return 0;
	spin_lock_bh(&fault->lock);
	done = iommufd_fault_take(fault, to->ubuf + to->iov_offset, room);
	spin_unlock_bh(&fault->lock);
	iov_iter_advance(to, done * FAULT_MESSAGE_SIZE);
	return done;
}

/* What one reader copies of a group, with no lock held */
struct fault_piece {
	struct iopf_group *group;
	/* messages of it that came before, and how many are to be copied */
	size_t first, count;
	/* more will be left */
	bool part;
	u32 flags;
};

/*
 * Take the first group, or what there is room for, to be copied with no lock held
 * (claims.pml: COPY_NO_REFERENCE). Returns how many messages that is, or an error.
 */
static ssize_t fault_hold(struct iommufd_fault *fault, size_t room, struct fault_piece *piece)
{
	struct iommufd_fault_slot *slot;
	struct iopf_group *group;
	ssize_t count = 0;

	spin_lock_bh(&fault->lock);
	group = list_first_entry_or_null(&fault->queue, struct iopf_group, node);
	if (!group)
		goto out_unlock;
	slot = iommufd_fault_slot(fault, group->cookie);
	count = group->fault_count - slot->read;
	piece->part = count > room;
	if (piece->part && (!fault->splits || room < FAULT_TAKE)) {
		count = -EINVAL;
		goto out_unlock;
	}
	count = min_t(size_t, count, room);
	piece->group = group;
	piece->first = slot->read;
	piece->count = count;
	piece->flags = iommufd_fault_loss(fault);

	list_del(&group->node);
	iommufd_fault_deliver(fault, group);
	if (piece->part)
		slot->state = FAULT_SLOT_OPEN;
	iommufd_fault_count_delivered(fault, 1);
	group->refs++;
	iommufd_fault_told(fault);
out_unlock:
	spin_unlock_bh(&fault->lock);
	return count;
}

/* Put a group that nobody has, or not all of it, back to the head of the queue. */
static void fault_restore(struct iommufd_fault *fault, const struct fault_piece *piece,
			  bool copied)
{
	struct iopf_group *group = piece->group;
	struct iommufd_fault_slot *slot = iommufd_fault_slot(fault, group->cookie);

	/* Somebody may have claimed it while it was copied (claims.pml: RESTORE_NO_CHECK). */
	if (slot->cookie != group->cookie || slot->state < FAULT_SLOT_OPEN)
		return;
	iopf_group_restore(group);
	if (copied)
		slot->read = piece->first + piece->count;
	slot->state = FAULT_SLOT_QUEUED;
	list_add(&group->node, &fault->queue);
	fault->delivered--;
	fault->stats.delivered--;
	iommufd_fault_set_queued(fault, fault->queued + 1);
}

static void fault_unhold(struct iommufd_fault *fault, const struct fault_piece *piece,
			 bool copied)
{
	spin_lock_bh(&fault->lock);
	if (!copied && piece->flags)
		iommufd_fault_note_loss(fault, true);
	if (!copied || piece->part)
		fault_restore(fault, piece, copied);
	iommufd_fault_put_group(piece->group);
	spin_unlock_bh(&fault->lock);
}

/* Returns whether all of it arrived. */
static bool fault_copy_message(const struct iommu_hwpt_pgfault *message, struct iov_iter *to)
{
	return copy_to_iter(message, FAULT_MESSAGE_SIZE, to) == FAULT_MESSAGE_SIZE;
}

static bool fault_copy(const struct fault_piece *piece, struct iov_iter *to)
{
	struct iommu_hwpt_pgfault message;
	u32 flags = piece->flags;
	struct iopf_fault *iopf;
	size_t at = 0;

	list_for_each_entry(iopf, &piece->group->faults, list) {
		if (at++ < piece->first)
			continue;
		if (at > piece->first + piece->count)
			break;
		iommufd_fault_message(&message, piece->group, &iopf->fault.prm);
		message.flags |= flags;
		flags = 0;
		if (!fault_copy_message(&message, to))
			return false;
	}
	return true;
}

/*
 * Read one group, or a part of it; returns the number of messages, 0 if none is queued, or
 * an error.
 */
static ssize_t fault_read_group(struct iommufd_fault *fault, struct iov_iter *to, size_t room)
{
	struct fault_piece piece;
	ssize_t count;
	bool copied;

	count = fault_hold(fault, room, &piece);
	if (count <= 0)
		return count;
	copied = fault_copy(&piece, to);
	fault_unhold(fault, &piece, copied);
	return copied ? count : -EFAULT;
}

/*
 * Nothing is queued, but something was lost: that is a message of its own. Returns 1, 0 if
 * somebody else has it, or an error.
 */
static ssize_t fault_read_loss(struct iommufd_fault *fault, struct iov_iter *to)
{
	const struct iommu_hwpt_pgfault message = { .flags = IOMMU_PGFAULT_FLAGS_LOST };
	bool alarm;

	spin_lock_bh(&fault->lock);
	alarm = fault->alarm && list_empty(&fault->queue);
	if (alarm) {
		iommufd_fault_told(fault);
		WRITE_ONCE(fault->taken, fault->taken + 1);
	}
	spin_unlock_bh(&fault->lock);
	if (!alarm)
		return 0;

	if (fault_copy_message(&message, to))
		return 1;
	spin_lock_bh(&fault->lock);
	iommufd_fault_note_loss(fault, true);
	spin_unlock_bh(&fault->lock);
	return -EFAULT;
}

/* Read what cannot be written under the lock; as fault_read_group(). */
static noinline_for_stack ssize_t fault_read_apart(struct iommufd_fault *fault,
						   struct iov_iter *to, size_t room)
{
	if (!READ_ONCE(fault->queued))
		return fault_read_loss(fault, to);
	if (fault->parts)
		return iommufd_fault_read_parts(fault, to, room);
	return fault_read_group(fault, to, room);
}

/**
 * iommufd_fault_read_on() - Go on to read what the first messages left
 * @fault: the object
 * @to: where to, behind what was read
 * @room: number of messages that there was room for at first
 * @done: number of messages that were read
 *
 * Context: Process context, may sleep to fault user memory in.
 *
 * Return: as iommufd_fault_read(), @done included.
 */
ssize_t iommufd_fault_read_on(struct iommufd_fault *fault, struct iov_iter *to, size_t room,
			      size_t done)
{
	ssize_t count = 0;

	while (done < room && !iommufd_fault_is_empty(fault)) {
		count = fault_take(fault, to, room - done) ?:
			fault_read_apart(fault, to, room - done);
		if (count <= 0)
			break;
		done += count;
	}
	if (!iommufd_fault_is_empty(fault)) {
		/*
		 * A poller that reads with too little room would get no rest.
		 * wake.pml: LEFT_NO_EDGE, RESTORE_NO_WAKE, SMALL_NO_WAKE, UNTOLD_NO_WAKE
		 */
		if (done || count == -EFAULT)
			iommufd_fault_wake(fault);
		else
			iommufd_fault_wake_next(fault);
	}
	return done ?: count;
}

/**
 * iommufd_fault_read() - Read until there is no room or nothing is queued
 * @fault: the object
 * @to: where to; it is advanced over what was read
 * @room: number of messages that there is room for
 *
 * Who waits is told of what is left behind.
 *
 * Context: Process context, may sleep to fault user memory in.
 *
 * Return: the number of messages, 0 if nothing is queued, -EINVAL if the first
 * group does not fit (and is not split), -EFAULT if it could not be copied; it stays
 * queued then.
 * Groups that are delivered immediately need room for one message only.
 */
ssize_t iommufd_fault_read(struct iommufd_fault *fault, struct iov_iter *to, size_t room)
{
	size_t done = 0;

	/* Mostly that is all. */
	if (likely(READ_ONCE(fault->queued)))
		done = fault_take(fault, to, room);
	if (likely(iommufd_fault_is_empty(fault)))
		return done;
	return iommufd_fault_read_on(fault, to, room, done);
}

/**
 * iommufd_fault_first() - How much room a reader needs at least
 * @fault: the object
 *
 * Return: the number of messages of the first group, 0 if none is queued.
 */
u32 iommufd_fault_first(struct iommufd_fault *fault)
{
	struct iopf_group *group;
	u32 count;

	spin_lock_bh(&fault->lock);
	group = list_first_entry_or_null(&fault->queue, struct iopf_group, node);
	count = group ? group->fault_count -
			iommufd_fault_slot(fault, group->cookie)->read : 0;
	spin_unlock_bh(&fault->lock);
	return count;
}
