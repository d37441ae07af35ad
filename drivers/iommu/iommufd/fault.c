// SPDX-License-Identifier: GPL-2.0-only
/*
 * The iommufd fault object: from a group that the fault core hands over to the
 * queue that user space reads
 *
 * Every group that the object holds sits in one slot of a fixed array, from
 * the moment it is queued until it is claimed. The cookie that user space
 * answers with is the slot's index plus a multiple of the depth that grows
 * with each use, so a late or invented cookie never names a newer group, and
 * neither a look-up nor a read allocates anything.
 *
 *	iopf handler ----> queued -----> delivered -----> claimed, answered
 *	                     ^  read       |      by the owner's answer, detach,
 *	                     +-------------+      replace, close of the file, or
 *	                       copy failed        the deadline
 *
 * A claim moves the state by iopf_group_claim() and takes the group out of its
 * slot, under the object's lock. It fails only against the core: a recall, of
 * which fault_recall() hears at once, and to the removal of the device. In both
 * cases the core has done what there was to do for the hardware. What breaks without
 * a step of this is in tools/iommu/models/claims.pml: COOKIE_NO_COUNT, CLAIM_BY_SLOT
 * The hardware is answered, and user memory is touched, with no lock held.
 *
 * Who keeps a group: &iopf_group.refs counts its slot or, after the slot, its
 * claimer, and a reader that copies its messages from the group itself. Most
 * readers need no reference: they make the messages on their stack while they
 * take the group off the queue, and know it by its cookie afterwards. The
 * attachment that it came through waits in iommufd_fault_settle() until none of its
 * groups is outstanding; a reader does not delay that. The answers are in fault_answer.c.
 *
 * Deadlines: complete groups are in one list, in the order in which they were
 * queued, and one timer is set for the oldest that was there when it was set.
 * What it queues answers all whose time is over and sets it for the next one.
 * So a fault costs an entry in a list, and a clock is set once in a deadline.
 *
 * Locks, outermost first:
 *
 *	igroup->lock (mutex)		attaching and detaching
 *	the device's lock (spin)	the core's; it calls the handler and the
 *					operations below under it
 *	iommufd_fault::lock (spin)	what struct iommufd_fault says, and what
 *					feeds it: &iommufd_attach_handle.attachments
 *	locks of the wait queues, of the timer, of the workqueue
 *
 * Who drops the last reference of a group frees it there, under whatever lock. Nothing
 * here is looked up by readers without a lock but &iommufd_fault.queued and
 * &iommufd_fault.alarm, see iommufd_fault_is_empty().
 */
#define pr_fmt(fmt) "iommufd: " fmt

#include <linux/file.h>
#include <linux/iommufd.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <uapi/linux/iommufd.h>

#include "fault_immediate.h"
#include "fault_slot.h"
#include "iommufd_private.h"

/* Slots that are kept for a device, as it does not use its share */
static u32 fault_unused(const struct iommufd_fault *fault,
			const struct iommufd_fault_member *member)
{
	return fault->share - min(member->slots, fault->share);
}

/* Half of the slots are divided among the devices; each has one at least. */
static void fault_set_share(struct iommufd_fault *fault)
{
	u32 share = max((fault->mask + 1) / 2 / max(fault->n_members, 1), 1);
	struct iommufd_fault_member *member;

	if (share == fault->share)
		return;
	fault->share = share;
	fault->reserved = 0;
	list_for_each_entry(member, &fault->members, node)
		fault->reserved += fault_unused(fault, member);
}

static struct iommufd_fault_member *fault_find_member(const struct iommufd_fault *fault,
						      const void *device)
{
	struct iommufd_fault_member *member;

	list_for_each_entry(member, &fault->members, node) {
		if (member->device == device)
			return member;
	}
	return NULL;
}

/**
 * iommufd_fault_join() - An attachment begins to feed the object
 * @fault: the object
 * @attachment: the attachment
 * @device: the device that is attached, to be told from others
 *
 * The device has a share of the slots from now on, one for all its attachments. The
 * shares of all others become smaller, in at most twice the root of the depth
 * different sizes: the n-th device goes through all only if its coming changes the size.
 *
 * Context: Process context, may sleep.
 *
 * Return: 0, or -ENOMEM.
 */
int iommufd_fault_join(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
		       const void *device)
{
	struct iommufd_fault_member *member, *new;

	new = kzalloc_obj(*new, GFP_KERNEL_ACCOUNT);
	if (!new)
		return -ENOMEM;

	spin_lock_bh(&fault->lock);
	member = fault_find_member(fault, device);
	if (!member) {
		swap(member, new);
		member->device = device;
		list_add_tail(&member->node, &fault->members);
		fault->n_members++;
		fault->reserved += fault_unused(fault, member);
		fault_set_share(fault);
	}
	member->attachments++;
	attachment->member = member;
	spin_unlock_bh(&fault->lock);

	kfree(new);
	return 0;
}

/**
 * iommufd_fault_part_with() - An attachment feeds the object no more
 * @fault: the object
 * @attachment: the attachment, which is settled
 *
 * Context: Process context.
 */
void iommufd_fault_part_with(struct iommufd_fault *fault, struct iommufd_attachment *attachment)
{
	struct iommufd_fault_member *member = attachment->member, *last = NULL;

	spin_lock_bh(&fault->lock);
	if (!--member->attachments) {
		last = member;
		fault->reserved -= fault_unused(fault, member);
		list_del(&member->node);
		fault->n_members--;
		fault_set_share(fault);
	}
	spin_unlock_bh(&fault->lock);

	kfree(last);
}

/* What others do not use of their shares is not for this one, beyond its own. */
static bool fault_has_room(const struct iommufd_fault *fault,
			   const struct iommufd_fault_member *member, u32 used)
{
	u32 free = fault->mask + 1 - used;

	return member->slots < fault->share ? free : free > fault->reserved;
}

/* Longest free first: the cookies of one slot come around as late as can be. */
static struct iommufd_fault_slot *fault_slot_get(struct iommufd_fault *fault,
						 struct iommufd_fault_member *member)
{
	struct iommufd_fault_slot *slot;
	u32 used = iommufd_fault_used(fault);

	lockdep_assert_held(&fault->lock);

	if (unlikely(!fault_has_room(fault, member, used)))
		return NULL;
	if (member->slots++ < fault->share)
		fault->reserved--;
	if (used >= fault->stats.peak)
		fault->stats.peak = used + 1;

	slot = &fault->slots[fault->free_first];
	fault->free_first = slot->next;
	slot->cookie += fault->mask + 1;
	if (unlikely(!slot->cookie))
		slot->cookie += fault->mask + 1;
	return slot;
}

/**
 * iommufd_fault_note_loss() - User space is to be told that something was lost
 * @fault: the object
 * @alarm: also if no fault comes; else the device asks again, and the flag goes along
 *
 * Context: Under the object's lock.
 *
 * Return: whether who waits is to be woken for it (wake.pml: LOSS_NO_WAKE).
 */
bool iommufd_fault_note_loss(struct iommufd_fault *fault, bool alarm)
{
	if (!(fault->flags & IOMMU_FAULT_ALLOC_REPORT_LOSS))
		return false;
	fault->lost = true;
	if (!alarm || fault->alarm)
		return false;
	WRITE_ONCE(fault->alarm, true);
	return true;
}

/**
 * iommufd_fault_find_attachment() - Find through which attachment a device faults
 * @handle: the handle
 * @dev: the device
 *
 * Context: Under the lock of the fault object.
 *
 * Return: the attachment, or an ERR_PTR: -EAGAIN if the fault was on its way here when
 * another handle took the place of this one: the device is to ask that. -ENODEV if user
 * space has not attached the device.
 */
struct iommufd_attachment *
iommufd_fault_find_attachment(struct iommufd_attach_handle *handle, struct device *dev)
{
	struct iommufd_attachment *attachment;

	list_for_each_entry(attachment, &handle->attachments, node) {
		if (attachment->idev->dev == dev)
			return attachment;
	}
	return ERR_PTR(handle->moved ? -EAGAIN : -ENODEV);
}

/**
 * iommufd_fault_set_timer() - Set the timer for the oldest group, if there is one
 * @fault: the object
 *
 * Context: Under the object's lock.
 */
void iommufd_fault_set_timer(struct iommufd_fault *fault)
{
	struct iommufd_fault_age *age;

	age = list_first_entry_or_null(&fault->aging, struct iommufd_fault_age, node);
	fault->timing = age;
	if (age)
		hrtimer_start(&fault->timer, age->expires, HRTIMER_MODE_ABS);
}

/**
 * iommufd_fault_start_aging() - From now on a group's deadline counts
 * @fault: the object
 * @group: the group; nothing is done if it is not complete
 *
 * Context: Under the object's lock.
 */
void iommufd_fault_start_aging(struct iommufd_fault *fault, const struct iopf_group *group)
{
	struct iommufd_fault_age *age;

	if (likely(!fault->ages) || group->open)
		return;
	age = &fault->ages[group->cookie & fault->mask];
	age->expires = ktime_add_ms(ktime_get(), fault->deadline_ms);
	list_add_tail(&age->node, &fault->aging);
	if (!fault->timing)
		iommufd_fault_set_timer(fault);
}

/**
 * iommufd_fault_timeout() - The oldest deadline is over
 * @timer: &iommufd_fault.timer
 *
 * Context: Hard interrupt.
 *
 * Return: HRTIMER_NORESTART.
 */
enum hrtimer_restart iommufd_fault_timeout(struct hrtimer *timer)
{
	struct iommufd_fault *fault = container_of(timer, struct iommufd_fault, timer);

	queue_work(system_dfl_wq, &fault->work);
	return HRTIMER_NORESTART;
}

/**
 * iommufd_fault_admit() - Give a group a slot and queue it
 * @fault: the object
 * @attachment: where it comes from
 * @group: the group
 *
 * Context: Under the object's lock.
 *
 * Return: 0, -EPIPE if the file is closed, -ENOSPC if the object has no room for
 * @attachment.
 */
int iommufd_fault_admit(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			struct iopf_group *group)
{
	struct iommufd_fault_slot *slot;

	lockdep_assert_held(&fault->lock);

	if (fault->closed)
		return -EPIPE;
	slot = fault_slot_get(fault, attachment->member);
	if (unlikely(!slot)) {
		fault->stats.refused++;
		iommufd_fault_note_loss(fault, fault->flags & IOMMU_FAULT_ALLOC_REFUSE);
		return -ENOSPC;
	}

	group->priv = attachment;
	group->dev_id = attachment->dev_id;
	group->cookie = slot->cookie;
	group->refs = 1;
	atomic_inc(&attachment->outstanding);
	slot->group = group;
	slot->read = 0;
	slot->state = FAULT_SLOT_QUEUED;
	list_add_tail(&group->node, &fault->queue);
	iommufd_fault_set_queued(fault, fault->queued + 1);
	fault->stats.groups++;
	fault->stats.requests += group->fault_count;
	iommufd_fault_start_aging(fault, group);
	return 0;
}

/* Queue a group, or with immediate delivery the newest request of one. */
static int fault_enqueue(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			 struct iopf_group *group)
{
	if (unlikely(fault->parts))
		return iommufd_fault_part_add(fault, attachment, group);
	return iommufd_fault_admit(fault, attachment, group);
}

/*
 * Tell who waits that a group was queued, or of an alarm if it found no room. Returns
 * @rc, but -EAGAIN where the device is to try again.
 */
static __always_inline int fault_tell(struct iommufd_fault *fault, int rc)
{
	if (likely(!rc) || (rc == -ENOSPC && READ_ONCE(fault->alarm)))
		iommufd_fault_wake(fault);
	if (unlikely(rc == -ENOSPC) && !(fault->flags & IOMMU_FAULT_ALLOC_REFUSE))
		rc = -EAGAIN;
	return rc;
}

/**
 * iommufd_fault_iopf_handler() - Queue a group, or a part of one, for user space
 * @group: the group; owned by the fault object on success
 *
 * The &iommu_domain.iopf_handler of every HWPT that has a fault object. If that
 * delivers immediately, also &iopf_handler_ops.request.
 *
 * Context: Any that may take a spinlock; does not sleep.
 *
 * Return: 0, -ENODEV if its device is not attached to the HWPT (although
 * another one of its iommu group is), -EPIPE if the file is closed. If the object
 * has no room: -EAGAIN, or -ENOSPC if user space wants such groups refused; -EAGAIN
 * also if the HWPT was replaced meanwhile. With an error the core answers.
 */
int iommufd_fault_iopf_handler(struct iopf_group *group)
{
	struct iommufd_attach_handle *handle = to_iommufd_handle(group->attach_handle);
	struct iommufd_fault *fault = handle->hwpt->fault;
	struct iommufd_attachment *attachment;
	int rc;

	spin_lock_bh(&fault->lock);
	attachment = iommufd_fault_find_attachment(handle, group->fault_param->dev);
	rc = PTR_ERR_OR_ZERO(attachment);
	if (likely(!rc))
		rc = fault_enqueue(fault, attachment, group);
	spin_unlock_bh(&fault->lock);

	return fault_tell(fault, rc);
}

/**
 * iommufd_fault_queue() - Queue a group that is not from the fault core
 * @fault: the object
 * @attachment: where it comes from; kept by the caller
 * @group: the group, in state IOPF_GROUP_QUEUED; owned by @fault on success
 *
 * Context: Any that may take a spinlock; does not sleep.
 *
 * Return: 0, -EPIPE if the file is closed. If the object has no room: -EAGAIN, or
 * -ENOSPC if user space wants such groups refused.
 */
int iommufd_fault_queue(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			struct iopf_group *group)
{
	int rc;

	spin_lock_bh(&fault->lock);
	rc = fault_enqueue(fault, attachment, group);
	spin_unlock_bh(&fault->lock);

	return fault_tell(fault, rc);
}

/**
 * iommufd_fault_end() - Take a group that user space did not answer out of its slot
 * @fault: the object
 * @slot: the slot
 * @tell: its cookie was taken from user space, which shall be told so
 *
 * The caller gets the slot's reference of the group or, if the slot stays in use for
 * the message, one of its own. A detach ends that.
 *
 * Context: Under the object's lock.
 */
void iommufd_fault_end(struct iommufd_fault *fault, struct iommufd_fault_slot *slot, bool tell)
{
	if (unlikely(fault->parts) && tell && iommufd_fault_part_end(fault, slot)) {
		iommufd_fault_stop_aging(fault, slot);
		slot->group->refs++;
		return;
	}
	iommufd_fault_take_out(fault, slot, tell ? FAULT_SLOT_STALE : FAULT_SLOT_FREE);
}

/**
 * iommufd_fault_recall() - The core has claimed a group
 * @group: the group
 * @cause: why
 *
 * The object stays: who frees the attachment, and then lets go of the object, has
 * called iopf_recall_sync() before.
 *
 * Context: Under the device's fault lock.
 */
void iommufd_fault_recall(struct iopf_group *group, enum iopf_cause cause)
{
	struct iommufd_fault *fault = to_iommufd_handle(group->attach_handle)->hwpt->fault;
	struct iommufd_fault_slot *slot;
	bool settled = false;

	spin_lock_bh(&fault->lock);
	slot = iommufd_fault_slot(fault, group->cookie);
	/* Else somebody has failed to claim it, and drops it (claims.pml: RECALL_NO_CHECK). */
	if (iommufd_fault_slot_holds(slot, group)) {
		fault->stats.recalled++;
		iommufd_fault_end(fault, slot, cause != IOPF_CAUSE_DETACH);
		settled = iommufd_fault_let_go(group);
		iommufd_fault_put_group(group);
	}
	spin_unlock_bh(&fault->lock);

	iommufd_fault_wake_ended(fault);
	if (settled)
		wake_up_all(&fault->settle_wait);
}

/**
 * iommufd_fault_lost() - Requests were answered by the core, or lost
 * @handle: where they came through
 * @cause: why
 *
 * Context: Under the device's fault lock.
 */
void iommufd_fault_lost(struct iommu_attach_handle *handle, enum iopf_cause cause)
{
	struct iommufd_fault *fault = to_iommufd_handle(handle)->hwpt->fault;
	bool news;

	spin_lock_bh(&fault->lock);
	if (cause == IOPF_CAUSE_OVERFLOW)
		fault->stats.overflows++;
	else
		fault->stats.no_room++;
	news = iommufd_fault_note_loss(fault, true);
	spin_unlock_bh(&fault->lock);

	if (news)
		iommufd_fault_wake(fault);
}

static const struct iopf_handler_ops fault_ops = {
	.recall = iommufd_fault_recall,
	.lost = iommufd_fault_lost,
};

static const struct iopf_handler_ops fault_immediate_ops = {
	.request = iommufd_fault_iopf_handler,
	.recall = iommufd_fault_recall,
	.lost = iommufd_fault_lost,
};

/**
 * iommufd_fault_iopf_ops() - What a HWPT with a fault object offers to the core
 * @fault: the object
 *
 * Return: the operations that go with iommufd_fault_iopf_handler().
 */
const struct iopf_handler_ops *iommufd_fault_iopf_ops(const struct iommufd_fault *fault)
{
	return fault->parts ? &fault_immediate_ops : &fault_ops;
}

