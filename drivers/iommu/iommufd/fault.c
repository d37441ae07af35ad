// SPDX-License-Identifier: GPL-2.0-only
/*
 * The iommufd fault object: from a group that the fault core hands over to the
 * answer that user space gives
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
 * slot, under the object's lock. It is lost only to the core: to a recall, of
 * which fault_recall() hears at once, and to the removal of the device. In both
 * cases the core has done what there was to do for the hardware.
 * The hardware is answered, and user memory is touched, with no lock held.
 *
 * Who keeps a group: &iopf_group.refs counts its slot or, after the slot, its
 * claimer, and a reader that copies its messages from the group itself. Most
 * readers need no reference: they make the messages on their stack while they
 * take the group off the queue, and know it by its cookie afterwards. The
 * attachment that it came through waits in iommufd_fault_drain() until none of its
 * groups is outstanding; a reader does not delay that.
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
 *					and &iommufd_attachment.outstanding
 *	locks of the wait queues, of the timer, of the workqueue
 *
 * iopf_free_groups() takes the device's lock, so it is never called under the
 * object's; what was recalled is freed by @work. Nothing here is looked up by
 * readers without a lock but &iommufd_fault.queued, see iommufd_fault_poll().
 */
#define pr_fmt(fmt) "iommufd: " fmt

#include <linux/file.h>
#include <linux/iommufd.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <uapi/linux/iommufd.h>

#include "../iommu-priv.h"
#include "iommufd_private.h"

/* Slots that are looked at without letting go of the lock */
#define FAULT_SCAN	1024

/*
 * Groups that were taken out of their slots, to be finished by fault_finish().
 * Clearing the array costs more than answering one group does.
 */
struct fault_claims {
	/* From the front those to answer, from the back those somebody else has */
	struct iopf_answer answers[IOMMUFD_FAULT_BATCH];
	unsigned int won;
	unsigned int lost;
};

static u32 fault_used(struct iommufd_fault *fault)
{
	return fault->queued + fault->delivered;
}

/* Longest free first: the cookies of one slot come around as late as can be. */
static struct iommufd_fault_slot *fault_slot_get(struct iommufd_fault *fault)
{
	struct iommufd_fault_slot *slot;
	u32 used = fault_used(fault);

	lockdep_assert_held(&fault->lock);

	if (used > fault->mask)
		return NULL;
	if (used >= fault->stats.peak)
		fault->stats.peak = used + 1;

	slot = &fault->slots[fault->free_first];
	fault->free_first = slot->next;
	slot->cookie += fault->mask + 1;
	if (unlikely(!slot->cookie))
		slot->cookie += fault->mask + 1;
	return slot;
}

/* To be called when the group no longer counts as used */
static __always_inline void
fault_slot_put(struct iommufd_fault *fault, struct iommufd_fault_slot *slot,
	       enum iommufd_fault_slot_state state)
{
	u32 index = slot - fault->slots;

	lockdep_assert_held(&fault->lock);

	slot->state = state;
	if (fault_used(fault) == fault->mask)
		fault->free_first = index;
	else
		fault->slots[fault->free_last].next = index;
	fault->free_last = index;
}

/**
 * iommufd_fault_unlock_wake() - Drop the lock, and wake who waits for what was queued
 * @fault: the object
 *
 * Those who had found the queue empty are woken once, and the first FETCH that
 * waits is started, if there is something to read now.
 *
 * Context: Under the object's lock, which is dropped.
 */
void iommufd_fault_unlock_wake(struct iommufd_fault *fault)
	__releases(&fault->lock)
{
	struct io_uring_cmd *fetch = iommufd_fault_uring_next(fault);
	bool wake = fault->wake && !iommufd_fault_is_empty(fault);

	fault->wake = false;
	spin_unlock(&fault->lock);

	if (fetch)
		iommufd_fault_uring_start(fetch);
	if (!wake)
		return;
	if (wq_has_sleeper(&fault->poll_wait))
		wake_up_poll(&fault->poll_wait, EPOLLIN | EPOLLRDNORM);
	iommufd_fault_wake_next(fault);
}

static void fault_note_loss(struct iommufd_fault *fault)
{
	fault->lost = fault->flags & IOMMU_FAULT_ALLOC_REPORT_LOSS;
}

static struct iommufd_attachment *
fault_find_attachment(struct iommufd_attach_handle *handle, struct device *dev)
{
	struct iommufd_attachment *attachment;

	list_for_each_entry(attachment, &handle->attachments, node) {
		if (attachment->idev->dev == dev)
			return attachment;
	}
	return NULL;
}

/* Set the timer for the oldest group, if there is one. */
static void fault_set_timer(struct iommufd_fault *fault)
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
		fault_set_timer(fault);
}

static void fault_stop_aging(struct iommufd_fault *fault,
			     const struct iommufd_fault_slot *slot)
{
	if (unlikely(fault->ages))
		list_del_init(&fault->ages[slot - fault->slots].node);
}

/**
 * iommufd_fault_admit() - Give a group a slot and queue it
 * @fault: the object
 * @attachment: where it comes from
 * @group: the group
 *
 * Context: Under the object's lock.
 *
 * Return: 0, -EPIPE if the file is closed, -ENOSPC if the object is full.
 */
int iommufd_fault_admit(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			struct iopf_group *group)
{
	struct iommufd_fault_slot *slot;

	lockdep_assert_held(&fault->lock);

	if (fault->closed)
		return -EPIPE;
	slot = fault_slot_get(fault);
	if (unlikely(!slot)) {
		fault->stats.refused++;
		fault_note_loss(fault);
		return -ENOSPC;
	}

	group->priv = attachment;
	group->dev_id = attachment->dev_id;
	group->cookie = slot->cookie;
	group->refs = 1;
	attachment->outstanding++;
	slot->group = group;
	slot->state = FAULT_SLOT_QUEUED;
	list_add_tail(&group->node, &fault->deliver);
	iommufd_fault_count_queued(fault);
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
 * another one of its iommu group is), -EPIPE if the file is closed, -ENOSPC if
 * the object is full. With an error the core answers.
 */
int iommufd_fault_iopf_handler(struct iopf_group *group)
{
	struct iommufd_attach_handle *handle = to_iommufd_handle(group->attach_handle);
	struct iommufd_fault *fault = handle->hwpt->fault;
	struct iommufd_attachment *attachment;
	int rc;

	spin_lock(&fault->lock);
	attachment = fault_find_attachment(handle, group->fault_param->dev);
	rc = attachment ? fault_enqueue(fault, attachment, group) : -ENODEV;
	/* Those who wait are woken for all groups of a batch at once. */
	if (iopf_queue_batching(group))
		spin_unlock(&fault->lock);
	else
		iommufd_fault_unlock_wake(fault);
	return rc;
}

/**
 * iommufd_fault_queue() - Queue a group that is not from the fault core
 * @fault: the object
 * @attachment: where it comes from; kept by the caller
 * @group: the group, in state IOPF_GROUP_QUEUED; owned by @fault on success
 *
 * Context: Any that may take a spinlock; does not sleep.
 *
 * Return: 0, -EPIPE if the file is closed, -ENOSPC if the object is full.
 */
int iommufd_fault_queue(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			struct iopf_group *group)
{
	int rc;

	spin_lock(&fault->lock);
	rc = fault_enqueue(fault, attachment, group);
	iommufd_fault_unlock_wake(fault);
	return rc;
}

/* The group at the head of the queue goes to user space; its node is the caller's. */
static __always_inline void fault_deliver(struct iommufd_fault *fault,
					  struct iopf_group *group)
{
	/* Fails if the device is gone; then its answer will fail too. */
	iopf_group_deliver(group);
	iommufd_fault_slot(fault, group->cookie)->state = FAULT_SLOT_DELIVERED;
}

static void fault_count_delivered(struct iommufd_fault *fault, unsigned int groups)
{
	fault->delivered += groups;
	fault->stats.delivered += groups;
	iommufd_fault_set_queued(fault, fault->queued - groups);
}

/**
 * iommufd_fault_take() - Take whole groups off the head of the queue
 * @fault: the object
 * @messages: gets what user space is told of them
 * @room: number of @messages that there is room for
 *
 * The groups count as delivered from here on. What of them does not reach user
 * space is to be given back to iommufd_fault_untake().
 *
 * Return: number of messages, 0 if nothing is queued, or if the first group has
 * more than @room.
 */
size_t iommufd_fault_take(struct iommufd_fault *fault, struct iommu_hwpt_pgfault *messages,
			  size_t room)
{
	struct iommu_hwpt_pgfault *next = messages;
	size_t left = room;
	struct iopf_group *group;
	struct iopf_fault *iopf;
	struct list_head *node;
	unsigned int groups = 0;
	bool more;

	spin_lock(&fault->lock);
	list_for_each(node, &fault->deliver) {
		group = list_entry(node, struct iopf_group, node);
		if (group->fault_count > left)
			break;
		left -= group->fault_count;
		list_for_each_entry(iopf, &group->faults, list)
			iommufd_fault_message(next++, group, &iopf->fault.prm);
		fault_deliver(fault, group);
		groups++;
	}
	/* All before @node are off, at once: nobody needs their links any more. */
	__list_del(&fault->deliver, node);
	fault_count_delivered(fault, groups);
	if (groups)
		messages->flags |= iommufd_fault_take_loss(fault);
	more = fault->queued;
	spin_unlock(&fault->lock);

	if (more)
		iommufd_fault_wake_next(fault);
	return room - left;
}

/**
 * iommufd_fault_hold() - Take the first group of the queue, to be copied in pieces
 * @fault: the object
 * @room: number of messages that the caller has room for
 * @flags: gets flags for the first message
 *
 * As iommufd_fault_take(), for a group of any size. It is the caller's to look at
 * until iommufd_fault_unhold(), whoever answers it.
 *
 * Return: the group, NULL if nothing is queued, or -EINVAL as an ERR_PTR if the
 * group has more than @room.
 */
struct iopf_group *iommufd_fault_hold(struct iommufd_fault *fault, size_t room, u32 *flags)
{
	struct iopf_group *group;
	bool more;

	spin_lock(&fault->lock);
	group = list_first_entry_or_null(&fault->deliver, struct iopf_group, node);
	if (group && group->fault_count > room) {
		group = ERR_PTR(-EINVAL);
	} else if (group) {
		list_del(&group->node);
		fault_deliver(fault, group);
		fault_count_delivered(fault, 1);
		group->refs++;
		*flags = iommufd_fault_take_loss(fault);
	}
	more = fault->queued;
	spin_unlock(&fault->lock);

	if (more)
		iommufd_fault_wake_next(fault);
	return group;
}

/* Put a group that reached nobody back to the head of the queue. */
static void fault_restore(struct iommufd_fault *fault, u32 cookie)
{
	struct iommufd_fault_slot *slot = iommufd_fault_slot(fault, cookie);

	/* While it was being copied somebody may have claimed it. */
	if (slot->cookie != cookie || slot->state != FAULT_SLOT_DELIVERED)
		return;
	iopf_group_restore(slot->group);
	slot->state = FAULT_SLOT_QUEUED;
	list_add(&slot->group->node, &fault->deliver);
	fault->delivered--;
	fault->stats.delivered--;
	iommufd_fault_count_queued(fault);
}

/**
 * iommufd_fault_unhold() - Finish what iommufd_fault_hold() began
 * @fault: the object
 * @group: the group
 * @flags: the flags that came with it
 * @copied: all of it has reached user space; else it is queued again, ahead of
 *          all others
 */
void iommufd_fault_unhold(struct iommufd_fault *fault, struct iopf_group *group, u32 flags,
			  bool copied)
{
	LIST_HEAD(unused);

	spin_lock(&fault->lock);
	if (!copied) {
		iommufd_fault_untake_loss(fault, flags);
		fault_restore(fault, group->cookie);
	}
	iommufd_fault_put_group(group, &unused);
	iommufd_fault_unlock_wake(fault);

	iopf_free_groups(&unused);
}

/* The number of messages among the first @copied that make up whole groups */
static size_t fault_whole_groups(const struct iommu_hwpt_pgfault *messages, size_t copied)
{
	while (copied && messages[copied - 1].cookie == messages[copied].cookie)
		copied--;
	return copied;
}

/**
 * iommufd_fault_untake() - Give back what did not reach user space
 * @fault: the object
 * @messages: those of iommufd_fault_take()
 * @count: number of @messages
 * @copied: how many of them, but not all, reached user space
 *
 * Groups of which not all messages did are queued again in their old order, ahead
 * of all others.
 *
 * Return: number of messages of the other groups.
 */
size_t iommufd_fault_untake(struct iommufd_fault *fault,
			    const struct iommu_hwpt_pgfault *messages, size_t count,
			    size_t copied)
{
	size_t i, whole = fault_whole_groups(messages, copied);

	spin_lock(&fault->lock);
	if (!whole)
		iommufd_fault_untake_loss(fault, messages->flags & IOMMU_PGFAULT_FLAGS_LOST);
	for (i = count; i > whole; i--) {
		/* once for each group, at its first message */
		if (i - 1 == whole || messages[i - 2].cookie != messages[i - 1].cookie)
			fault_restore(fault, messages[i - 1].cookie);
	}
	iommufd_fault_unlock_wake(fault);
	return whole;
}

static __always_inline void
fault_take_out(struct iommufd_fault *fault, struct iommufd_fault_slot *slot,
	       enum iommufd_fault_slot_state state)
{
	fault_stop_aging(fault, slot);
	if (slot->state == FAULT_SLOT_QUEUED) {
		list_del(&slot->group->node);
		iommufd_fault_set_queued(fault, fault->queued - 1);
	} else {
		fault->delivered--;
	}
	fault_slot_put(fault, slot, state);
}

/**
 * iommufd_fault_take_out() - Take a group out of its slot
 * @fault: the object
 * @slot: the slot
 * @state: FAULT_SLOT_FREE, or FAULT_SLOT_STALE to remember the cookie
 *
 * The caller gets the slot's reference of the group.
 *
 * Context: Under the object's lock.
 */
void iommufd_fault_take_out(struct iommufd_fault *fault, struct iommufd_fault_slot *slot,
			    enum iommufd_fault_slot_state state)
{
	fault_take_out(fault, slot, state);
}

/*
 * The same for a group that user space did not answer. @tell: its cookie was
 * taken from user space, which shall be told so. If the slot stays in use for
 * that, the caller gets a reference of its own.
 */
static void fault_end(struct iommufd_fault *fault, struct iommufd_fault_slot *slot, bool tell)
{
	if (unlikely(fault->parts) && iommufd_fault_part_end(fault, slot, tell)) {
		fault_stop_aging(fault, slot);
		slot->group->refs++;
		return;
	}
	fault_take_out(fault, slot, tell ? FAULT_SLOT_STALE : FAULT_SLOT_FREE);
}

/* The group is answered: it no longer keeps its attachment from being freed. */
static bool fault_let_go(struct iopf_group *group, struct list_head *unused)
{
	struct iommufd_attachment *attachment = group->priv;

	iommufd_fault_put_group(group, unused);
	return !--attachment->outstanding;
}

/* Answer the hardware for groups that were claimed, then let go of them. */
static void fault_finish(struct iommufd_fault *fault, struct fault_claims *claims)
{
	bool drained = false;
	LIST_HEAD(unused);
	unsigned int i;

	iopf_answer_groups(claims->answers, claims->won);

	spin_lock(&fault->lock);
	for (i = 0; i < claims->won; i++)
		drained |= fault_let_go(claims->answers[i].group, &unused);
	for (i = IOMMUFD_FAULT_BATCH - claims->lost; i < IOMMUFD_FAULT_BATCH; i++)
		drained |= fault_let_go(claims->answers[i].group, &unused);
	spin_unlock(&fault->lock);

	if (drained && wq_has_sleeper(&fault->drain_wait))
		wake_up_all(&fault->drain_wait);
	iopf_free_groups(&unused);
}

/* Why the group of @cookie cannot be answered, if there ever was one */
static int fault_refuse(struct iommufd_fault *fault, u32 cookie)
{
	struct iommufd_fault_slot *slot = iommufd_fault_slot(fault, cookie);
	int rc = -EINVAL;

	if (slot->cookie == cookie && slot->state == FAULT_SLOT_STALE)
		rc = -ESTALE;
	else if (slot->cookie == cookie && fault->parts)
		rc = iommufd_fault_part_refuse(fault, slot);

	if (rc == -ESTALE)
		fault->stats.stale++;
	else if (rc == -EBUSY)
		fault->stats.busy++;
	else
		fault->stats.unknown++;
	return rc;
}

/* Claim one group for user space's answer. */
static int fault_claim_delivered(struct iommufd_fault *fault,
				 const struct iommu_hwpt_page_response *response,
				 struct iopf_answer *answer)
{
	struct iommufd_fault_slot *slot = iommufd_fault_slot(fault, response->cookie);

	if (response->code > IOMMUFD_PAGE_RESP_FAILURE)
		return -EINVAL;
	if (slot->cookie != response->cookie || slot->state != FAULT_SLOT_DELIVERED)
		return fault_refuse(fault, response->cookie);
	if (unlikely(!iopf_group_claim(slot->group))) {
		/* It is being recalled, or the device goes: both clean up the slot. */
		fault->stats.stale++;
		return -ESTALE;
	}
	*answer = (struct iopf_answer){
		.group = slot->group,
		.code = response->code,
		.cause = IOPF_CAUSE_USER,
	};
	fault->stats.answers[response->code]++;
	fault_take_out(fault, slot, FAULT_SLOT_FREE);
	return 0;
}

/**
 * iommufd_fault_respond() - Answer delivered groups
 * @fault: the object
 * @responses: the answers
 * @count: number of @responses, IOMMUFD_FAULT_BATCH at the most
 *
 * Context: Process context, may sleep.
 *
 * Return: how many were given, if @count is 0 or at least one was. It stops at
 * a bad one. If that is the first: -EINVAL if its code is unknown, or its cookie
 * names no delivered group, -ESTALE if that group was recalled or timed out,
 * -EBUSY if user space has not read it to the end.
 */
int iommufd_fault_respond(struct iommufd_fault *fault,
			  const struct iommu_hwpt_page_response *responses,
			  unsigned int count)
{
	struct fault_claims claims __uninitialized;
	unsigned int won;
	int rc = 0;

	static_assert((int)IOMMUFD_PAGE_RESP_SUCCESS == (int)IOMMU_PAGE_RESP_SUCCESS);
	static_assert((int)IOMMUFD_PAGE_RESP_INVALID == (int)IOMMU_PAGE_RESP_INVALID);
	static_assert((int)IOMMUFD_PAGE_RESP_FAILURE == (int)IOMMU_PAGE_RESP_FAILURE);

	spin_lock(&fault->lock);
	for (won = 0; won < count; won++) {
		rc = fault_claim_delivered(fault, &responses[won], &claims.answers[won]);
		if (rc)
			break;
	}
	spin_unlock(&fault->lock);

	if (!won)
		return rc;
	claims.won = won;
	claims.lost = 0;
	fault_finish(fault, &claims);
	return won;
}

/**
 * iommufd_fault_claim() - Take a group out of its slot, not to be answered by others
 * @fault: the object that the group was queued at
 * @group: the group; kept by the caller
 *
 * Context: Any that may take a spinlock; does not sleep.
 *
 * Return: true if the caller must call iommufd_fault_finish(), which also keeps
 * the object; false if somebody else answers or has answered it.
 */
bool iommufd_fault_claim(struct iommufd_fault *fault, struct iopf_group *group)
{
	struct iommufd_fault_slot *slot;
	bool claimed = false;

	spin_lock(&fault->lock);
	slot = iommufd_fault_slot(fault, group->cookie);
	if (iommufd_fault_slot_holds(slot, group) && iopf_group_claim(group)) {
		fault->stats.withdrawn++;
		fault_end(fault, slot, false);
		claimed = true;
	}
	spin_unlock(&fault->lock);
	return claimed;
}

/**
 * iommufd_fault_finish() - Answer a group that iommufd_fault_claim() gave
 * @fault: the object
 * @group: the group
 * @code: the answer
 *
 * Context: Process context, may sleep.
 */
void iommufd_fault_finish(struct iommufd_fault *fault, struct iopf_group *group,
			  enum iommu_page_response_code code)
{
	struct fault_claims claims __uninitialized;

	claims.answers[0] = (struct iopf_answer){
		.group = group,
		.code = code,
		.cause = IOPF_CAUSE_HANDLER,
	};
	claims.won = 1;
	claims.lost = 0;
	fault_finish(fault, &claims);
}

/* Claim a group for the kernel's answer; somebody else may be about to give one. */
static void fault_claim(struct iommufd_fault *fault, struct iommufd_fault_slot *slot,
			enum iopf_cause cause, struct fault_claims *claims)
{
	struct iopf_answer answer = {
		.group = slot->group,
		.code = IOMMU_PAGE_RESP_INVALID,
		.cause = cause,
	};

	if (iopf_group_claim(slot->group)) {
		claims->answers[claims->won++] = answer;
		fault->stats.answers[answer.code]++;
		fault->stats.causes[cause]++;
	} else {
		claims->answers[IOMMUFD_FAULT_BATCH - ++claims->lost] = answer;
		fault->stats.taken++;
	}
	fault_end(fault, slot, false);
}

/*
 * Claim up to a batch of groups of one attachment, or of all with NULL, among
 * the slots from @from on. Returns where to go on, or the number of slots.
 */
static u32 fault_claim_some(struct iommufd_fault *fault,
			    struct iommufd_attachment *attachment, u32 from,
			    struct fault_claims *claims)
{
	enum iopf_cause cause = attachment ? IOPF_CAUSE_DETACH : IOPF_CAUSE_CLOSE;
	u32 i, end = min(from + FAULT_SCAN, fault->mask + 1);
	struct iommufd_fault_slot *slot;

	claims->won = 0;
	claims->lost = 0;

	spin_lock(&fault->lock);
	for (i = from; i < end; i++) {
		if (claims->won + claims->lost == IOMMUFD_FAULT_BATCH)
			break;
		slot = &fault->slots[i];
		if (!iommufd_fault_slot_used(slot))
			continue;
		if (attachment && slot->group->priv != attachment)
			continue;
		if (unlikely(fault->parts) && iommufd_fault_part_drop(fault, slot))
			continue;
		fault_claim(fault, slot, cause, claims);
	}
	spin_unlock(&fault->lock);
	return i;
}

static void fault_answer_all(struct iommufd_fault *fault,
			     struct iommufd_attachment *attachment)
{
	struct fault_claims claims __uninitialized;
	u32 i = 0;

	while (i <= fault->mask) {
		i = fault_claim_some(fault, attachment, i, &claims);
		if (claims.won || claims.lost)
			fault_finish(fault, &claims);
	}
}

static bool fault_is_drained(struct iommufd_fault *fault,
			     struct iommufd_attachment *attachment)
{
	bool drained;

	/* The lock, so that the last to count down is done with @attachment. */
	spin_lock(&fault->lock);
	drained = !attachment->outstanding;
	spin_unlock(&fault->lock);
	return drained;
}

/**
 * iommufd_fault_drain() - Answer every group of an attachment with INVALID
 * @fault: the object
 * @attachment: the attachment, already taken off its handle's list
 *
 * Also waits for the answers that others are giving. Afterwards no group of
 * @attachment is known to the object.
 *
 * Context: Process context, sleeps until the hardware is answered, but never
 * for user space.
 */
void iommufd_fault_drain(struct iommufd_fault *fault,
			 struct iommufd_attachment *attachment)
{
	/* With immediate delivery, messages of ended groups may be left besides. */
	if (fault->parts || !fault_is_drained(fault, attachment))
		fault_answer_all(fault, attachment);
	wait_event(fault->drain_wait, fault_is_drained(fault, attachment));
}

/**
 * iommufd_fault_close() - Nobody can read or answer any more
 * @fault: the object, whose file is being released
 *
 * What is outstanding is answered INVALID, as is every later fault.
 *
 * Context: Process context, may sleep.
 */
void iommufd_fault_close(struct iommufd_fault *fault)
{
	spin_lock(&fault->lock);
	fault->closed = true;
	spin_unlock(&fault->lock);

	fault_answer_all(fault, NULL);
}

/* Claim groups whose deadline is over. */
static void fault_claim_expired(struct iommufd_fault *fault, struct fault_claims *claims)
{
	struct iommufd_fault_age *age, *next;
	struct iommufd_fault_slot *slot;
	ktime_t now = ktime_get();

	list_for_each_entry_safe(age, next, &fault->aging, node) {
		if (claims->won == IOMMUFD_FAULT_BATCH || ktime_after(age->expires, now))
			break;
		slot = &fault->slots[age - fault->ages];
		list_del_init(&age->node);
		/* Whoever was faster, in the core, cleans up the slot. */
		if (!iopf_group_claim(slot->group))
			continue;
		claims->answers[claims->won++] = (struct iopf_answer){
			.group = slot->group,
			.code = fault->deadline_code,
			.cause = IOPF_CAUSE_DEADLINE,
		};
		fault->stats.answers[fault->deadline_code]++;
		fault->stats.causes[IOPF_CAUSE_DEADLINE]++;
		fault_end(fault, slot, true);
	}
	if (claims->won < IOMMUFD_FAULT_BATCH)
		fault_set_timer(fault);
}

static void fault_work(struct work_struct *work)
{
	struct iommufd_fault *fault = container_of(work, struct iommufd_fault, work);
	struct fault_claims claims __uninitialized;
	LIST_HEAD(unused);

	claims.lost = 0;
	do {
		claims.won = 0;
		spin_lock(&fault->lock);
		list_splice_init(&fault->unused, &unused);
		fault_claim_expired(fault, &claims);
		/* What ended may leave a message that says so. */
		iommufd_fault_unlock_wake(fault);

		fault_finish(fault, &claims);
		iopf_free_groups(&unused);
	} while (claims.won == IOMMUFD_FAULT_BATCH);
}

static enum hrtimer_restart fault_timeout(struct hrtimer *timer)
{
	struct iommufd_fault *fault = container_of(timer, struct iommufd_fault, timer);

	queue_work(system_unbound_wq, &fault->work);
	return HRTIMER_NORESTART;
}

/*
 * The core has claimed the group. The object stays: who frees the attachment,
 * and then lets go of the object, has called iopf_recall_sync() before.
 */
static void fault_recall(struct iopf_group *group, enum iopf_cause cause)
{
	struct iommufd_fault *fault = to_iommufd_handle(group->attach_handle)->hwpt->fault;
	struct iommufd_fault_slot *slot;
	bool drained = false;

	spin_lock(&fault->lock);
	slot = iommufd_fault_slot(fault, group->cookie);
	/* Else somebody has failed to claim it, and drops it. */
	if (iommufd_fault_slot_holds(slot, group)) {
		fault->stats.recalled++;
		fault_end(fault, slot, cause != IOPF_CAUSE_DETACH);
		drained = fault_let_go(group, &fault->unused);
	}
	if (!list_empty(&fault->unused))
		queue_work(system_unbound_wq, &fault->work);
	iommufd_fault_unlock_wake(fault);

	if (drained)
		wake_up_all(&fault->drain_wait);
}

static void fault_lost(struct iommu_attach_handle *handle, enum iopf_cause cause)
{
	struct iommufd_fault *fault = to_iommufd_handle(handle)->hwpt->fault;

	spin_lock(&fault->lock);
	if (cause == IOPF_CAUSE_OVERFLOW)
		fault->stats.overflows++;
	else
		fault->stats.no_room++;
	fault_note_loss(fault);
	spin_unlock(&fault->lock);
}

static void fault_flush(struct iommu_attach_handle *handle)
{
	struct iommufd_fault *fault = to_iommufd_handle(handle)->hwpt->fault;

	spin_lock(&fault->lock);
	iommufd_fault_unlock_wake(fault);
}

static const struct iopf_handler_ops fault_ops = {
	.recall = fault_recall,
	.lost = fault_lost,
	.flush = fault_flush,
};

static const struct iopf_handler_ops fault_immediate_ops = {
	.request = iommufd_fault_iopf_handler,
	.recall = fault_recall,
	.lost = fault_lost,
	.flush = fault_flush,
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

/**
 * iommufd_fault_destroy() - Free the object
 * @obj: its embedded iommufd object
 *
 * The file and every HWPT hold a user of the object, and detaching from a HWPT
 * drains: nothing is outstanding here.
 */
void iommufd_fault_destroy(struct iommufd_object *obj)
{
	struct iommufd_fault *fault = container_of(obj, struct iommufd_fault, obj);

	WARN_ON(fault->queued || fault->delivered);
	hrtimer_cancel(&fault->timer);
	cancel_work_sync(&fault->work);
	iopf_free_groups(&fault->unused);
	kvfree(fault->parts);
	kvfree(fault->ages);
	kvfree(fault->slots);
}

static int fault_alloc_slots(struct iommufd_fault *fault)
{
	u32 i, depth = fault->mask + 1;

	fault->slots = kvcalloc(depth, sizeof(*fault->slots), GFP_KERNEL_ACCOUNT);
	if (!fault->slots)
		return -ENOMEM;
	for (i = 0; i < depth; i++) {
		fault->slots[i].cookie = i;
		fault->slots[i].next = i + 1;
	}
	fault->free_last = fault->mask;

	if (fault->deadline_ms) {
		fault->ages = kvcalloc(depth, sizeof(*fault->ages), GFP_KERNEL_ACCOUNT);
		if (!fault->ages)
			return -ENOMEM;
		for (i = 0; i < depth; i++)
			INIT_LIST_HEAD(&fault->ages[i].node);
	}
	if (fault->flags & IOMMU_FAULT_ALLOC_IMMEDIATE) {
		fault->parts = kvcalloc(depth, sizeof(*fault->parts), GFP_KERNEL_ACCOUNT);
		if (!fault->parts)
			return -ENOMEM;
	}
	return 0;
}

static void fault_init(struct iommufd_fault *fault, struct iommufd_ctx *ictx,
		       const struct iommu_fault_alloc *cmd)
{
	fault->ictx = ictx;
	fault->flags = cmd->flags;
	fault->mask = roundup_pow_of_two(cmd->depth ?: IOMMUFD_FAULT_DEPTH) - 1;
	fault->deadline_ms = cmd->deadline_ms;
	fault->deadline_code = cmd->deadline_code;
	init_waitqueue_head(&fault->poll_wait);
	init_waitqueue_head(&fault->read_wait);
	init_waitqueue_head(&fault->drain_wait);
	hrtimer_init(&fault->timer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
	fault->timer.function = fault_timeout;
	INIT_WORK(&fault->work, fault_work);
	spin_lock_init(&fault->lock);
	INIT_LIST_HEAD(&fault->deliver);
	INIT_LIST_HEAD(&fault->fetches);
	INIT_LIST_HEAD(&fault->aging);
	INIT_LIST_HEAD(&fault->unused);
}

static int fault_check(const struct iommu_fault_alloc *cmd)
{
	const u32 flags = IOMMU_FAULT_ALLOC_BLOCKING | IOMMU_FAULT_ALLOC_IMMEDIATE |
			  IOMMU_FAULT_ALLOC_REPORT_LOSS;

	if ((cmd->flags & ~flags) || cmd->__reserved)
		return -EOPNOTSUPP;
	if (cmd->depth > IOMMUFD_FAULT_MAX_DEPTH || cmd->deadline_ms > IOMMUFD_FAULT_MAX_MS)
		return -EINVAL;
	if (cmd->deadline_code > IOMMUFD_PAGE_RESP_FAILURE ||
	    (cmd->deadline_code && !cmd->deadline_ms))
		return -EINVAL;
	return 0;
}

/**
 * iommufd_fault_alloc() - ioctl(IOMMU_FAULT_QUEUE_ALLOC)
 * @ucmd: the ioctl
 *
 * Return: 0, -EOPNOTSUPP for unknown flags or a reserved field that is not 0,
 * -EINVAL for values out of range, -ENOMEM, -EMFILE or -ENFILE, or -EFAULT.
 */
int iommufd_fault_alloc(struct iommufd_ucmd *ucmd)
{
	struct iommu_fault_alloc *cmd = ucmd->cmd;
	struct iommufd_fault *fault;
	struct file *filep;
	int fd, rc;

	rc = fault_check(cmd);
	if (rc)
		return rc;

	fault = iommufd_object_alloc(ucmd->ictx, fault, IOMMUFD_OBJ_FAULT);
	if (IS_ERR(fault))
		return PTR_ERR(fault);

	fault_init(fault, ucmd->ictx, cmd);
	rc = fault_alloc_slots(fault);
	if (rc)
		goto err_abort;

	filep = iommufd_fault_file_create(fault);
	if (IS_ERR(filep)) {
		rc = PTR_ERR(filep);
		goto err_abort;
	}
	/* From here on the abort also closes the file. */
	fault->filep = filep;

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		rc = fd;
		goto err_abort;
	}

	cmd->out_fault_id = fault->obj.id;
	cmd->out_fault_fd = fd;
	rc = iommufd_ucmd_respond(ucmd, sizeof(*cmd));
	if (rc)
		goto err_put_fd;

	iommufd_object_finalize(ucmd->ictx, &fault->obj);
	fd_install(fd, filep);
	return 0;

err_put_fd:
	put_unused_fd(fd);
err_abort:
	iommufd_object_abort_and_destroy(ucmd->ictx, &fault->obj);
	return rc;
}
