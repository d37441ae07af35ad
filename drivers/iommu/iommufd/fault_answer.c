// SPDX-License-Identifier: GPL-2.0-only
/*
 * From an answer to the hardware: by user space, or by the kernel at a detach, a close,
 * a deadline
 *
 * Who answers claims groups, under the object's lock, which takes them out of their
 * slots; gives the answers with no lock held; and lets go of the groups. What user space
 * answers comes from its memory here, a batch at a time.
 *
 * What was not answered when an attachment or the file goes is answered INVALID. A detach
 * also waits for what others have claimed and are answering.
 */
#include <linux/iommufd.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <uapi/linux/iommufd.h>

#include "fault_answer.h"
#include "fault_immediate.h"
#include "fault_object.h"
#include "fault_slot.h"
#include "fault_take.h"

/* Slots that are looked at without letting go of the lock */
#define FAULT_SCAN	1024

/*
 * Groups that the kernel took out of their slots, to be finished by fault_finish_claims().
 * Clearing the array costs more than answering one group does.
 */
struct fault_claims {
	struct iopf_answer answers[IOMMUFD_FAULT_BATCH];	/* to be given */
	unsigned int won;		/* number of @answers */
	bool settled;			/* an attachment has no group left */
};

static void fault_claims_init(struct fault_claims *claims)
{
	claims->won = 0;
	claims->settled = false;
}

/* Let go of a group that a reader copies. */
static noinline void fault_put_read(struct iommufd_fault *fault, struct iopf_group *group)
{
	spin_lock_bh(&fault->lock);
	iommufd_fault_put_group(group);
	spin_unlock_bh(&fault->lock);
}

/*
 * Answer the hardware for claimed groups and let go of them. An attachment may go as soon
 * as it has no group outstanding, see iommufd_fault_settle(). Nobody can get a reference of
 * a claimed group: with one left, it is ours (claims.pml: SHARED_UNLOCKED).
 */
static __always_inline void fault_finish(struct iommufd_fault *fault,
					 struct iopf_answer *answers, unsigned int won,
					 bool settled)
{
	struct iopf_answer *answer, *end = answers + won;
	struct iopf_group *group;

	iopf_answer_groups(answers, won);

	for (answer = answers; answer < end; answer++) {
		group = answer->group;
		settled |= iommufd_fault_let_go(group);
		/* Pairs with iommufd_fault_put_group() */
		if (likely(smp_load_acquire(&group->refs) == 1))
			continue;
		fault_put_read(fault, group);
		*answer-- = *--end;
	}

	/*
	 * Who waits looks after it is queued; the count came down before this looks
	 * (claims.pml: SETTLE_NO_ORDER).
	 */
	if (unlikely(settled) && waitqueue_active(&fault->settle_wait))
		wake_up_all(&fault->settle_wait);
	iopf_free_groups(answers, end - answers);
}

static void fault_finish_claims(struct iommufd_fault *fault, struct fault_claims *claims)
{
	fault_finish(fault, claims->answers, claims->won, claims->settled);
}

/* Why the group of @cookie cannot be answered, if there ever was one */
static noinline int fault_refuse(struct iommufd_fault *fault, u32 cookie)
{
	struct iommufd_fault_slot *slot = iommufd_fault_slot(fault, cookie);
	int rc = -EINVAL;

	if (slot->cookie == cookie && slot->state == FAULT_SLOT_STALE)
		rc = -ESTALE;
	else if (slot->cookie == cookie && fault->parts)
		rc = iommufd_fault_part_refuse(fault, slot);
	else if (slot->cookie == cookie &&
		 (slot->state == FAULT_SLOT_OPEN ||
		  (slot->state == FAULT_SLOT_QUEUED && slot->read)))
		rc = -EBUSY;

	if (rc == -ESTALE)
		fault->stats.stale++;
	else if (rc == -EBUSY)
		fault->stats.busy++;
	else
		fault->stats.unknown++;
	return rc;
}

/*
 * Claim one group for user space's answer. Its slot goes behind @last, to become free with
 * others. Delivered, it has not ended, so it still counts at its attachment.
 */
static __always_inline int
fault_claim_delivered(struct iommufd_fault *fault,
		      const struct iommu_hwpt_page_response *response,
		      struct iopf_answer *answer, struct iommufd_fault_slot **last)
{
	u32 index = response->cookie & fault->mask;
	struct iommufd_fault_slot *slot = &fault->slots[index];
	struct iopf_group *group = slot->group;

	if (unlikely(response->code > IOMMUFD_PAGE_RESP_FAILURE))
		return -EINVAL;
	if (unlikely(slot->cookie != response->cookie || slot->state != FAULT_SLOT_DELIVERED))
		return fault_refuse(fault, response->cookie);
	if (unlikely(!iopf_group_claim(group))) {
		/* It is being recalled, or the device goes: both clean up the slot. */
		fault->stats.stale++;
		return -ESTALE;
	}
	*answer = (struct iopf_answer){
		.group = group,
		.code = response->code,
		.cause = IOPF_CAUSE_USER,
	};
	fault->stats.answers[response->code]++;
	iommufd_fault_stop_aging(fault, slot);
	iommufd_fault_count_off(fault, group);
	slot->state = FAULT_SLOT_FREE;
	(*last)->next = index;
	*last = slot;
	return 0;
}

/*
 * Claim delivered groups. Returns how many; unless these are all, @rc gets what is wrong
 * with the next one. If they are all, and there is room for messages, these are taken
 * while the lock is held, and @rc is their number: the answers wait for no more than
 * FAULT_TAKE of them.
 */
static __always_inline unsigned int
fault_claim_answered(struct iommufd_fault *fault,
		     const struct iommu_hwpt_page_response *responses, unsigned int count,
		     struct iopf_answer *answers, struct iommu_hwpt_pgfault __user *to,
		     size_t room, int *rc)
{
	struct iommufd_fault_slot taken __uninitialized, *last = &taken;
	unsigned int won;
	int error;

	static_assert((int)IOMMUFD_PAGE_RESP_SUCCESS == (int)IOMMU_PAGE_RESP_SUCCESS);
	static_assert((int)IOMMUFD_PAGE_RESP_INVALID == (int)IOMMU_PAGE_RESP_INVALID);
	static_assert((int)IOMMUFD_PAGE_RESP_FAILURE == (int)IOMMU_PAGE_RESP_FAILURE);

	spin_lock_bh(&fault->lock);
	for (won = 0; won < count; won++) {
		error = fault_claim_delivered(fault, &responses[won], &answers[won], &last);
		if (unlikely(error)) {
			*rc = error;
			break;
		}
	}
	if (likely(won)) {
		fault->delivered -= won;
		iommufd_fault_slots_put(fault, taken.next, last - fault->slots, won);
	}
	if (room && won == count && fault->queued && !fault->parts)
		*rc = iommufd_fault_take(fault, to, room);
	spin_unlock_bh(&fault->lock);
	return won;
}

/* Answers in one piece of user memory, by words; returns how many could be read. */
static __always_inline size_t fault_load(struct iommu_hwpt_page_response *responses, size_t count,
					 const struct iommu_hwpt_page_response __user *from)
{
	const u64 __user *next = (const u64 __user *)from;
	u64 *word = (u64 *)responses;
	size_t copied = 0;

	static_assert(sizeof(*responses) == sizeof(u64));

	might_fault();
	if (!user_read_access_begin(next, count * FAULT_RESPONSE_SIZE))
		return 0;
	for (; copied < count; copied++)
		unsafe_get_user(word[copied], &next[copied], out_end);
out_end:
	user_read_access_end();
	return copied;
}

/*
 * Give as many answers as could be read, of @count; and if those are all, take messages
 * for which there is @room.
 */
static __always_inline struct iommufd_fault_exchanged
fault_give(struct iommufd_fault *fault, const struct iommu_hwpt_page_response *responses,
	   size_t loaded, size_t count, struct iommu_hwpt_pgfault __user *to, size_t room)
{
	struct iopf_answer answers[IOMMUFD_FAULT_BATCH] __uninitialized;
	unsigned int won;
	int rc = 0;

	if (unlikely(loaded < count)) {
		rc = -EFAULT;
		room = 0;
	}
	won = fault_claim_answered(fault, responses, loaded, answers, to, room, &rc);
	if (likely(won))
		fault_finish(fault, answers, won, false);
	return (struct iommufd_fault_exchanged){ won, rc };
}

/**
 * iommufd_fault_write() - Answer delivered groups
 * @fault: the object
 * @from: the answers; it is advanced over what was read of them
 * @count: number of answers; no more than IOMMUFD_FAULT_BATCH are given
 * @rc: 0; left so if all of these were given. Else gets why the next one was not: -EFAULT
 *      if it cannot be copied, -EINVAL if its code is unknown, or its cookie names no
 *      delivered group, -ESTALE if that group was recalled or timed out, -EBUSY if user
 *      space has not read it to the end.
 *
 * Context: Process context, may sleep.
 *
 * Return: the number of answers that were given.
 */
unsigned int iommufd_fault_write(struct iommufd_fault *fault, struct iov_iter *from,
				 size_t count, int *rc)
{
	struct iommu_hwpt_page_response responses[IOMMUFD_FAULT_BATCH] __uninitialized;
	struct iommufd_fault_exchanged did;
	size_t loaded;

	count = min(count, IOMMUFD_FAULT_BATCH);
	loaded = copy_from_iter(responses, count * FAULT_RESPONSE_SIZE, from) /
		 FAULT_RESPONSE_SIZE;
	did = fault_give(fault, responses, loaded, count, NULL, 0);
	*rc = did.taken;
	return did.given;
}

/**
 * iommufd_fault_exchange() - Answer delivered groups, and take messages of others
 * @fault: the object
 * @from: the answers
 * @count: number of answers; no more than IOMMUFD_FAULT_BATCH are given
 * @to: where messages go
 * @room: how many there is room for. With the last of @count, and if all were given, what
 *        can be had without waiting for memory is taken; iommufd_fault_read_on() is to be
 *        called if something is left
 *
 * Context: Process context, may sleep.
 *
 * Return: how much was given and taken, with the errors of iommufd_fault_write().
 */
struct iommufd_fault_exchanged
iommufd_fault_exchange(struct iommufd_fault *fault,
		       const struct iommu_hwpt_page_response __user *from, size_t count,
		       struct iommu_hwpt_pgfault __user *to, size_t room)
{
	struct iommu_hwpt_page_response responses[IOMMUFD_FAULT_BATCH] __uninitialized;

	/* Who takes messages has given all answers before. */
	if (unlikely(count > IOMMUFD_FAULT_BATCH)) {
		count = IOMMUFD_FAULT_BATCH;
		room = 0;
	}
	return fault_give(fault, responses, fault_load(responses, count, from), count, to, room);
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
		iommufd_fault_end(fault, slot, false);
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
	struct iopf_answer answer = {
		.group = group,
		.code = code,
		.cause = IOPF_CAUSE_HANDLER,
	};

	fault_finish(fault, &answer, 1, false);
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
		iommufd_fault_end(fault, slot, false);
	} else {
		fault->stats.taken++;
		iommufd_fault_end(fault, slot, false);
		claims->settled |= iommufd_fault_let_go(group);
		iommufd_fault_put_group(group);
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
		if (unlikely(fault->parts) && iommufd_fault_part_drop(fault, slot))
			continue;
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
		fault_finish_claims(fault, &claims);
	}
}

static bool fault_is_settled(const struct iommufd_attachment *attachment)
{
	/* Pairs with iommufd_fault_let_go(): the last one is done with the attachment. */
	return !atomic_read_acquire(&attachment->outstanding);
}

/**
 * iommufd_fault_settle() - Answer every group of an attachment
 * @fault: the object
 * @attachment: the attachment, already taken off its handle's list
 * @code: the answer
 *
 * Also waits for the answers that others are giving (claims.pml: NO_SETTLE_WAIT).
 * Afterwards no group of @attachment is known to the object.
 *
 * Context: Process context, sleeps until the hardware is answered, but never
 * for user space.
 */
void iommufd_fault_settle(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			  enum iommu_page_response_code code)
{
	/* Messages of ended groups may be left besides (immediate.pml: SETTLE_NO_DROP). */
	if (fault->parts || !fault_is_settled(attachment))
		fault_answer_all(fault, attachment, code);
	wait_event(fault->settle_wait, fault_is_settled(attachment));
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

/* Claim some of the groups whose deadline is over; returns whether there may be more. */
static bool fault_claim_expired(struct iommufd_fault *fault, struct fault_claims *claims)
{
	struct iommufd_fault_age *age, *next;
	struct iommufd_fault_slot *slot;
	ktime_t now = ktime_get();
	unsigned int n = 0;

	list_for_each_entry_safe(age, next, &fault->aging, node) {
		if (n++ == IOMMUFD_FAULT_BATCH)
			return true;
		if (ktime_after(age->expires, now))
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
		iommufd_fault_end(fault, slot, true);
	}
	iommufd_fault_set_timer(fault);
	return false;
}

/**
 * iommufd_fault_work() - Answer what is overdue
 * @work: &iommufd_fault.work
 *
 * Context: Process context, may sleep.
 */
void iommufd_fault_work(struct work_struct *work)
{
	struct iommufd_fault *fault = container_of(work, struct iommufd_fault, work);
	struct fault_claims claims __uninitialized;
	bool more;

	do {
		fault_claims_init(&claims);
		spin_lock_bh(&fault->lock);
		more = fault_claim_expired(fault, &claims);
		spin_unlock_bh(&fault->lock);

		iommufd_fault_wake_ended(fault);
		fault_finish_claims(fault, &claims);
	} while (more);
}
