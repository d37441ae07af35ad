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
 * cases the core has done what there was to do for the hardware. What breaks without
 * a step of this is in tools/iommu/models/claims.pml: COOKIE_NO_COUNT, CLAIM_BY_SLOT
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
	struct iopf_answer answers[IOMMUFD_FAULT_BATCH];	/* to be given */
	unsigned int won;		/* number of @answers */
	bool drained;			/* an attachment has no group left */
	struct list_head unused;	/* groups to be freed */
};

static void fault_claims_init(struct fault_claims *claims)
{
	claims->won = 0;
	claims->drained = false;
	INIT_LIST_HEAD(&claims->unused);
}

static u32 fault_used(struct iommufd_fault *fault)
{
	return fault->queued + fault->delivered;
}

/* Slots that are kept for an attachment, as it does not use its share */
static u32 fault_unused(const struct iommufd_fault *fault,
			const struct iommufd_attachment *attachment)
{
	return fault->share - min(attachment->slots, fault->share);
}

/* Half of the slots are divided among the attachments; each has one at least. */
static void fault_set_share(struct iommufd_fault *fault)
{
	u32 share = max((fault->mask + 1) / 2 / max(fault->members, 1), 1);
	struct iommufd_attachment *attachment;

	if (share == fault->share)
		return;
	fault->share = share;
	fault->reserved = 0;
	list_for_each_entry(attachment, &fault->sharing, sharing)
		fault->reserved += fault_unused(fault, attachment);
}

/**
 * iommufd_fault_join() - An attachment begins to feed the object
 * @fault: the object
 * @attachment: the attachment
 *
 * It has a share of the slots from now on. The shares of all others become smaller,
 * in at most twice the root of the depth different sizes: the n-th attachment goes
 * through all only if its coming changes the size.
 *
 * Context: Under the object's lock.
 */
void iommufd_fault_join(struct iommufd_fault *fault, struct iommufd_attachment *attachment)
{
	lockdep_assert_held(&fault->lock);

	list_add_tail(&attachment->sharing, &fault->sharing);
	fault->members++;
	fault->reserved += fault_unused(fault, attachment);
	fault_set_share(fault);
}

/**
 * iommufd_fault_part_with() - An attachment feeds the object no more
 * @fault: the object
 * @attachment: the attachment; its groups may still have slots
 *
 * Context: Under the object's lock.
 */
void iommufd_fault_part_with(struct iommufd_fault *fault, struct iommufd_attachment *attachment)
{
	lockdep_assert_held(&fault->lock);

	fault->reserved -= fault_unused(fault, attachment);
	list_del_init(&attachment->sharing);
	fault->members--;
	fault_set_share(fault);
}

/* What others do not use of their shares is not for this one, beyond its own. */
static bool fault_has_room(const struct iommufd_fault *fault,
			   const struct iommufd_attachment *attachment, u32 used)
{
	u32 free = fault->mask + 1 - used;

	return attachment->slots < fault->share ? free : free > fault->reserved;
}

/* Longest free first: the cookies of one slot come around as late as can be. */
static struct iommufd_fault_slot *fault_slot_get(struct iommufd_fault *fault,
						 struct iommufd_attachment *attachment)
{
	struct iommufd_fault_slot *slot;
	u32 used = fault_used(fault);

	lockdep_assert_held(&fault->lock);

	if (unlikely(!fault_has_room(fault, attachment, used)))
		return NULL;
	if (attachment->slots++ < fault->share)
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
	slot = fault_slot_get(fault, attachment);
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
	slot->counted = true;
	list_add_tail(&group->node, &fault->deliver);
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
 * has no room: -EAGAIN, or -ENOSPC if user space wants such groups refused. With an
 * error the core answers.
 */
int iommufd_fault_iopf_handler(struct iopf_group *group)
{
	struct iommufd_attach_handle *handle = to_iommufd_handle(group->attach_handle);
	struct iommufd_fault *fault = handle->hwpt->fault;
	struct iommufd_attachment *attachment;
	int rc;

	spin_lock_bh(&fault->lock);
	attachment = fault_find_attachment(handle, group->fault_param->dev);
	rc = attachment ? fault_enqueue(fault, attachment, group) : -ENODEV;
	spin_unlock_bh(&fault->lock);

	if (likely(!rc))
		iommufd_fault_wake(fault);
	else if (rc == -ENOSPC && !(fault->flags & IOMMU_FAULT_ALLOC_REFUSE))
		rc = -EAGAIN;
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

	spin_lock_bh(&fault->lock);
	rc = fault_enqueue(fault, attachment, group);
	spin_unlock_bh(&fault->lock);

	if (!rc)
		iommufd_fault_wake(fault);
	return rc;
}

/* The slot is none of its attachment's any more, which has no share if it was left. */
static __always_inline void fault_uncount(struct iommufd_fault *fault,
					  struct iommufd_fault_slot *slot)
{
	struct iommufd_attachment *attachment = slot->group->priv;

	if (unlikely(!slot->counted))
		return;
	slot->counted = false;
	if (--attachment->slots < fault->share && !list_empty(&attachment->sharing))
		fault->reserved++;
}

static __always_inline void
fault_take_out(struct iommufd_fault *fault, struct iommufd_fault_slot *slot,
	       enum iommufd_fault_slot_state state)
{
	fault_stop_aging(fault, slot);
	fault_uncount(fault, slot);
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
 * that, or for a reader, the caller gets a reference of its own. It may outlive the
 * attachment then, unless user space is told: that ends with a detach.
 */
static void fault_end(struct iommufd_fault *fault, struct iommufd_fault_slot *slot, bool tell)
{
	if (unlikely(fault->parts) && iommufd_fault_part_end(fault, slot, tell)) {
		fault_stop_aging(fault, slot);
		if (!tell)
			fault_uncount(fault, slot);
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

/* Answer the hardware for claimed groups, let go of them (claims.pml: FREED_UNDER_LOCK). */
static void fault_finish(struct iommufd_fault *fault, struct fault_claims *claims)
{
	unsigned int i;

	iopf_answer_groups(claims->answers, claims->won);

	spin_lock_bh(&fault->lock);
	for (i = 0; i < claims->won; i++)
		claims->drained |= fault_let_go(claims->answers[i].group, &claims->unused);
	spin_unlock_bh(&fault->lock);

	if (claims->drained && wq_has_sleeper(&fault->drain_wait))
		wake_up_all(&fault->drain_wait);
	iopf_free_groups(&claims->unused);
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
 * @given: gets how many were given; it stops at a bad one
 *
 * Context: Process context, may sleep.
 *
 * Return: 0 if all were given. Else what is wrong with the one after @given:
 * -EINVAL if its code is unknown, or its cookie names no delivered group, -ESTALE
 * if that group was recalled or timed out, -EBUSY if user space has not read it to
 * the end.
 */
int iommufd_fault_respond(struct iommufd_fault *fault,
			  const struct iommu_hwpt_page_response *responses,
			  unsigned int count, unsigned int *given)
{
	struct fault_claims claims __uninitialized;
	int rc = 0;

	static_assert((int)IOMMUFD_PAGE_RESP_SUCCESS == (int)IOMMU_PAGE_RESP_SUCCESS);
	static_assert((int)IOMMUFD_PAGE_RESP_INVALID == (int)IOMMU_PAGE_RESP_INVALID);
	static_assert((int)IOMMUFD_PAGE_RESP_FAILURE == (int)IOMMU_PAGE_RESP_FAILURE);

	fault_claims_init(&claims);
	spin_lock_bh(&fault->lock);
	while (claims.won < count) {
		rc = fault_claim_delivered(fault, &responses[claims.won],
					   &claims.answers[claims.won]);
		if (rc)
			break;
		claims.won++;
	}
	spin_unlock_bh(&fault->lock);

	*given = claims.won;
	if (claims.won)
		fault_finish(fault, &claims);
	return rc;
}

/**
 * iommufd_fault_claim() - Take a group out of its slot, not to be answered by others
 * @fault: the object that the group was queued at
 * @group: the group; kept by the caller
 *
 * Context: Any that may take a spinlock, but not with interrupts off.
 *
 * Return: true if the caller must call iommufd_fault_finish(), and has a
 * reference of @fault until then; false if somebody else answers or has answered
 * the group.
 */
bool iommufd_fault_claim(struct iommufd_fault *fault, struct iopf_group *group)
{
	struct iommufd_fault_slot *slot;
	bool claimed = false;

	spin_lock_bh(&fault->lock);
	slot = iommufd_fault_slot(fault, group->cookie);
	if (iommufd_fault_slot_holds(slot, group) && iopf_group_claim(group)) {
		fault->stats.withdrawn++;
		fault_end(fault, slot, false);
		refcount_inc(&fault->refs);
		claimed = true;
	}
	spin_unlock_bh(&fault->lock);
	return claimed;
}

/**
 * iommufd_fault_finish() - Answer a group that iommufd_fault_claim() gave
 * @fault: the object
 * @group: the group
 * @code: the answer
 *
 * As soon as the group is let go of, the object may be unbound, closed and
 * destroyed by others: the claim's reference keeps it until all is done.
 * claims.pml: WITHDRAW_NO_REFERENCE
 *
 * Context: Process context, may sleep.
 */
void iommufd_fault_finish(struct iommufd_fault *fault, struct iopf_group *group,
			  enum iommu_page_response_code code)
{
	struct fault_claims claims __uninitialized;

	fault_claims_init(&claims);
	claims.answers[claims.won++] = (struct iopf_answer){
		.group = group,
		.code = code,
		.cause = IOPF_CAUSE_HANDLER,
	};
	fault_finish(fault, &claims);
	iommufd_fault_put(fault);
}

/* Claim a group for the kernel's answer, or be too late (claims.pml: LOSER_KEEPS_SLOT). */
static void fault_claim(struct iommufd_fault *fault, struct iommufd_fault_slot *slot,
			enum iopf_cause cause, enum iommu_page_response_code code,
			struct fault_claims *claims)
{
	struct iopf_group *group = slot->group;

	if (iopf_group_claim(group)) {
		claims->answers[claims->won++] = (struct iopf_answer){
			.group = group,
			.code = code,
			.cause = cause,
		};
		fault->stats.answers[code]++;
		fault->stats.causes[cause]++;
		fault_end(fault, slot, false);
	} else {
		fault->stats.taken++;
		fault_end(fault, slot, false);
		claims->drained |= fault_let_go(group, &claims->unused);
	}
}

/*
 * Claim up to a batch of groups of one attachment, or of all with NULL, among
 * the slots from @from on. Returns where to go on, or the number of slots.
 */
static u32 fault_claim_some(struct iommufd_fault *fault,
			    struct iommufd_attachment *attachment,
			    enum iommu_page_response_code code, u32 from,
			    struct fault_claims *claims)
{
	enum iopf_cause cause = attachment ? IOPF_CAUSE_DETACH : IOPF_CAUSE_CLOSE;
	u32 i, end = min(from + FAULT_SCAN, fault->mask + 1);
	struct iommufd_fault_slot *slot;

	fault_claims_init(claims);
	spin_lock_bh(&fault->lock);
	for (i = from; i < end; i++) {
		if (claims->won == IOMMUFD_FAULT_BATCH)
			break;
		slot = &fault->slots[i];
		if (!iommufd_fault_slot_used(slot))
			continue;
		if (attachment && slot->group->priv != attachment)
			continue;
		if (unlikely(fault->parts) && iommufd_fault_part_drop(fault, slot)) {
			/* a reader has it */
			if (iommufd_fault_slot_used(slot))
				fault_uncount(fault, slot);
			continue;
		}
		fault_claim(fault, slot, cause, code, claims);
	}
	spin_unlock_bh(&fault->lock);
	return i;
}

static void fault_answer_all(struct iommufd_fault *fault,
			     struct iommufd_attachment *attachment,
			     enum iommu_page_response_code code)
{
	struct fault_claims claims __uninitialized;
	u32 i = 0;

	while (i <= fault->mask) {
		i = fault_claim_some(fault, attachment, code, i, &claims);
		fault_finish(fault, &claims);
	}
}

static bool fault_is_drained(struct iommufd_fault *fault,
			     struct iommufd_attachment *attachment)
{
	bool drained;

	/* The lock: the last to count down is done with it (claims.pml: DRAIN_NO_ORDER). */
	spin_lock_bh(&fault->lock);
	drained = !attachment->outstanding;
	spin_unlock_bh(&fault->lock);
	return drained;
}

/**
 * iommufd_fault_drain() - Answer every group of an attachment
 * @fault: the object
 * @attachment: the attachment, already taken off its handle's list
 * @code: the answer
 *
 * Also waits for the answers that others are giving (claims.pml: NO_DRAIN_WAIT).
 * Afterwards no group of @attachment is known to the object.
 *
 * Context: Process context, sleeps until the hardware is answered, but never
 * for user space.
 */
void iommufd_fault_drain(struct iommufd_fault *fault,
			 struct iommufd_attachment *attachment,
			 enum iommu_page_response_code code)
{
	/* Messages of ended groups may be left besides (immediate.pml: DRAIN_NO_DROP). */
	if (fault->parts || !fault_is_drained(fault, attachment))
		fault_answer_all(fault, attachment, code);
	wait_event(fault->drain_wait, fault_is_drained(fault, attachment));
}

/**
 * iommufd_fault_close() - Nobody can read or answer any more
 * @fault: the object, whose file is being released
 *
 * What is outstanding is answered INVALID, and every later fault (claims.pml: CLOSED_LATE).
 *
 * Context: Process context, may sleep.
 */
void iommufd_fault_close(struct iommufd_fault *fault)
{
	spin_lock_bh(&fault->lock);
	fault->closed = true;
	spin_unlock_bh(&fault->lock);

	fault_answer_all(fault, NULL, IOMMU_PAGE_RESP_INVALID);
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

/* With immediate delivery an end may leave a message that says so. */
static void fault_wake_ended(struct iommufd_fault *fault)
{
	if (unlikely(fault->parts) && !iommufd_fault_is_empty(fault))
		iommufd_fault_wake(fault);
}

/**
 * iommufd_fault_work() - Answer what is overdue, and free what was recalled
 * @work: &iommufd_fault.work
 *
 * Context: Process context, may sleep.
 */
void iommufd_fault_work(struct work_struct *work)
{
	struct iommufd_fault *fault = container_of(work, struct iommufd_fault, work);
	struct fault_claims claims __uninitialized;
	LIST_HEAD(unused);

	do {
		fault_claims_init(&claims);
		spin_lock_bh(&fault->lock);
		list_splice_init(&fault->unused, &unused);
		fault_claim_expired(fault, &claims);
		spin_unlock_bh(&fault->lock);

		fault_wake_ended(fault);
		fault_finish(fault, &claims);
		iopf_free_groups(&unused);
	} while (claims.won == IOMMUFD_FAULT_BATCH);
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

	spin_lock_bh(&fault->lock);
	slot = iommufd_fault_slot(fault, group->cookie);
	/* Else somebody has failed to claim it, and drops it (claims.pml: RECALL_NO_CHECK). */
	if (iommufd_fault_slot_holds(slot, group)) {
		fault->stats.recalled++;
		fault_end(fault, slot, cause != IOPF_CAUSE_DETACH);
		drained = fault_let_go(group, &fault->unused);
	}
	if (!list_empty(&fault->unused))
		queue_work(system_unbound_wq, &fault->work);
	spin_unlock_bh(&fault->lock);

	fault_wake_ended(fault);
	if (drained)
		wake_up_all(&fault->drain_wait);
}

static void fault_lost(struct iommu_attach_handle *handle, enum iopf_cause cause)
{
	struct iommufd_fault *fault = to_iommufd_handle(handle)->hwpt->fault;

	spin_lock_bh(&fault->lock);
	if (cause == IOPF_CAUSE_OVERFLOW)
		fault->stats.overflows++;
	else
		fault->stats.no_room++;
	fault_note_loss(fault);
	spin_unlock_bh(&fault->lock);
}

static const struct iopf_handler_ops fault_ops = {
	.recall = fault_recall,
	.lost = fault_lost,
};

static const struct iopf_handler_ops fault_immediate_ops = {
	.request = iommufd_fault_iopf_handler,
	.recall = fault_recall,
	.lost = fault_lost,
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

