// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory on demand: from a group of page requests to the answer, by the kernel
 *
 * The handler is called with a spinlock held, and for all devices of an IOMMU; what a
 * fault costs is the owner's. So it only queues the group, for a thread of the process
 * that has mapped the area. The thread handles the fault in the owner's memory, maps the
 * page and answers.
 *
 *	iopf handler ----> queued ----> busy ----> claimed, answered SUCCESS
 *	      |                          |  \
 *	      v (in no such area)        |   +---> cannot be resolved
 *	 fault queue <-------------------|-----------/    without a queue: INVALID
 *	                                 v
 *	                      claimed by detach, recalled, removed
 *
 * A group on one of the two lists is claimed by iopf_group_claim() under
 * &iommufd_demand.lock, by whoever comes first. The thread may sleep for the owner's
 * memory, with a userfaultfd for as long as that likes: nobody waits for it. It holds its
 * owner, the area and a reference of the group; it finds afterwards that the group
 * has left the list, and lets go of it. What it does not hold: the attachment and its
 * handle, the HWPT, the IOAS.
 *
 * Here a group has the cookie 0, which no group of a fault queue has. &iopf_group.refs
 * is one for the list, or for the claimer after that, and one for the thread.
 *
 * Threads: one works on all groups as long as what is asked for is there. Only when it has
 * to handle a fault it lets another one go on with the list.
 *
 * Locks, outermost first:
 *
 *	the device's lock (spin)	the core's; it calls the handler under it
 *	iommufd_demand::lock (spin)	the lists, &iommufd_attachment.resolving
 *	iommufd_fault::lock (spin)	the attachments, and to pass a group on
 */
#include <linux/iommu.h>
#include <linux/iommufd.h>
#include <linux/seq_file.h>
#include <uapi/linux/iommufd.h>

#include "fault_slot.h"
#include "iommufd_private.h"

/* Requests of a group that are looked at to find out whether it is for us */
#define DEMAND_LOOK	8

/* ---- groups ---- */

/* The attachment has a group less here; it may be gone when the lock is let go. */
static void demand_let_go(struct iommufd_demand *demand, const struct iopf_group *group)
{
	struct iommufd_attachment *attachment = group->priv;

	lockdep_assert_held(&demand->lock);
	attachment->resolving--;
}

static void demand_wake_settle(struct iommufd_demand *demand)
{
	if (wq_has_sleeper(&demand->settle_wait))
		wake_up_all(&demand->settle_wait);
}

/* Take a group off its list that the core has claimed. Returns whether it is to be freed. */
static bool demand_forget(struct iommufd_demand *demand, struct iopf_group *group)
{
	list_del_init(&group->node);
	demand_let_go(demand, group);
	iommufd_demand_count(demand, DEMAND_DROPPED, 1);
	return !--group->refs;
}

/*
 * Whose threads are to look at a group: the owner of the first area that is asked for. Of
 * a long group only the begin is looked at here, as others wait meanwhile: any owner's
 * thread will see the rest.
 */
static struct demand_owner *demand_owner_of(struct iommufd_demand *demand,
					    const struct iopf_group *group)
{
	struct iommufd_demand_area *area = NULL;
	struct demand_owner *owner;
	struct iopf_fault *iopf;
	unsigned int n = 0;

	list_for_each_entry(iopf, &group->faults, list) {
		area = demand_first_area(demand, iopf->fault.prm.addr, iopf->fault.prm.addr);
		if (area || ++n == DEMAND_LOOK)
			break;
	}
	owner = area ? area->owner : NULL;
	if (!owner && group->fault_count > DEMAND_LOOK)
		owner = list_first_entry_or_null(&demand->owners, struct demand_owner, node);
	if (!owner)
		iommufd_demand_count(demand, DEMAND_OUTSIDE, 1);
	return owner && !owner->gone ? owner : NULL;
}

static int demand_queue(struct iommufd_demand *demand, struct demand_owner *owner,
			struct iommufd_attach_handle *handle, struct iopf_group *group)
{
	struct iommufd_fault *fault = handle->hwpt->fault;
	struct iommufd_attachment *attachment;

	spin_lock(&fault->lock);
	attachment = iommufd_fault_find_attachment(handle, group->fault_param->dev);
	spin_unlock(&fault->lock);
	if (IS_ERR(attachment))
		return PTR_ERR(attachment);

	/* Until iommufd_demand_settle() of it, which takes demand->lock */
	attachment->resolving++;
	group->priv = attachment;
	group->cookie = 0;
	group->refs = 1;
	list_add_tail(&group->node, &owner->queued);
	iommufd_demand_wake(owner);
	return 0;
}

/**
 * iommufd_demand_iopf_handler() - Queue a group for a thread, or for user space
 * @group: the group; owned by the resolver or by the fault object on success
 *
 * The &iommu_domain.iopf_handler of every HWPT that is resolved on fault.
 *
 * Context: Any that may take a spinlock; does not sleep.
 *
 * Return: as iommufd_fault_iopf_handler().
 */
int iommufd_demand_iopf_handler(struct iopf_group *group)
{
	struct iommufd_attach_handle *handle = to_iommufd_handle(group->attach_handle);
	struct iommufd_demand *demand = handle->hwpt->demand;
	struct demand_owner *owner;
	int rc = 0;

	spin_lock_bh(&demand->lock);
	owner = demand_owner_of(demand, group);
	if (owner)
		rc = demand_queue(demand, owner, handle, group);
	spin_unlock_bh(&demand->lock);
	return owner ? rc : iommufd_fault_iopf_handler(group);
}

static bool demand_holds(const struct iopf_group *group)
{
	return !group->cookie && !list_empty(&group->node);
}

/* The core has claimed the group: it means nothing to its device any more. */
static void demand_recall(struct iopf_group *group, enum iopf_cause cause)
{
	struct iommufd_demand *demand = to_iommufd_handle(group->attach_handle)->hwpt->demand;
	bool ours;

	spin_lock_bh(&demand->lock);
	ours = !group->cookie;
	/* Else somebody has failed to claim it, and drops it. */
	if (demand_holds(group) && demand_forget(demand, group))
		iopf_free_group(group);
	demand_wake_settle(demand);
	spin_unlock_bh(&demand->lock);
	if (!ours)
		iommufd_fault_recall(group, cause);
}

static const struct iopf_handler_ops demand_ops = {
	.recall = demand_recall,
	.lost = iommufd_fault_lost,
};

/**
 * iommufd_demand_offer() - A HWPT that is resolved on fault offers this to the core
 * @hwpt: the HWPT; its &iommufd_hw_pagetable.demand is set
 *
 * If it has no fault object it gets one that takes nothing: whatever is passed on is
 * answered INVALID then.
 *
 * Context: Process context, may sleep.
 *
 * Return: 0, -EOPNOTSUPP if the fault object takes requests one by one, -ENOMEM.
 */
int iommufd_demand_offer(struct iommufd_hw_pagetable *hwpt)
{
	struct iommufd_fault *fault = hwpt->fault;

	if (!fault) {
		fault = iommufd_fault_alloc_closed();
		if (IS_ERR(fault))
			return PTR_ERR(fault);
		hwpt->fault = fault;
	}
	if (fault->parts)
		return -EOPNOTSUPP;
	hwpt->domain->iopf_handler = iommufd_demand_iopf_handler;
	hwpt->domain->iopf_ops = &demand_ops;
	return 0;
}

/* ---- answers ---- */

/* Answer what was claimed. */
static void demand_answer(struct iommufd_demand *demand, struct iopf_answer *answers,
			  unsigned int n)
{
	unsigned int i, free = 0;

	if (!n)
		return;
	iopf_answer_groups(answers, n);

	spin_lock_bh(&demand->lock);
	for (i = 0; i < n; i++) {
		demand_let_go(demand, answers[i].group);
		if (!--answers[i].group->refs)
			answers[free++] = answers[i];
	}
	spin_unlock_bh(&demand->lock);
	demand_wake_settle(demand);
	iopf_free_groups(answers, free);
}

/**
 * iommufd_demand_flush() - Answer what a thread has claimed
 * @batch: its groups; none on return
 *
 * Context: Process context, may sleep for the hardware.
 */
void iommufd_demand_flush(struct demand_batch *batch)
{
	demand_answer(demand_of_batch(batch), batch->answers, batch->n);
	batch->n = 0;
}

/* Claim a group that is on a list, for this answer. Returns whether it is to be freed. */
static bool batch_claim(struct demand_batch *batch, struct iopf_group *group,
			enum iommu_page_response_code code)
{
	bool success = code == IOMMU_PAGE_RESP_SUCCESS;

	if (!iopf_group_claim(group))
		return demand_forget(demand_of_batch(batch), group);
	iommufd_demand_count(demand_of_batch(batch), success ? DEMAND_GROUPS : DEMAND_REFUSED, 1);
	list_del_init(&group->node);
	batch->answers[batch->n++] = (struct iopf_answer){
		.group = group,
		.code = code,
		.cause = IOPF_CAUSE_HANDLER,
	};
	return false;
}

/*
 * The fault queue gets a group that is on a list here, with its only reference. Whoever
 * detaches takes demand->lock before the attachment, and so the object, can go. If the
 * core is about to recall the group it finds it there. Without a queue the group is
 * answered. Returns whether it is to be freed.
 */
static bool demand_hand_over(struct demand_batch *batch, struct iopf_group *group)
{
	struct iommufd_fault *fault = to_iommufd_handle(group->attach_handle)->hwpt->fault;
	struct iommufd_attachment *attachment = group->priv;
	struct iommufd_demand *demand = demand_of_batch(batch);
	int rc;

	lockdep_assert_held(&demand->lock);

	list_del_init(&group->node);
	spin_lock(&fault->lock);
	rc = iommufd_fault_admit(fault, attachment, group);
	spin_unlock(&fault->lock);
	if (!rc) {
		/* The group is the object's: it may be answered already. */
		attachment->resolving--;
		iommufd_demand_count(demand, DEMAND_PASSED_ON, 1);
		iommufd_fault_wake(fault);
		return false;
	}
	if (rc == -ENOSPC && !(fault->flags & IOMMU_FAULT_ALLOC_REFUSE))
		return batch_claim(batch, group, IOMMU_PAGE_RESP_SUCCESS);
	return batch_claim(batch, group, IOMMU_PAGE_RESP_INVALID);
}

/**
 * iommufd_demand_finish() - A thread is done with a group
 * @batch: of the thread; has room for a group, which is answered when it is flushed
 * @group: the group; the thread's reference goes
 * @rc: 0 if the device may try again, else why that would be in vain
 *
 * Does nothing if somebody else has claimed the group meanwhile.
 *
 * Context: Process context.
 */
void iommufd_demand_finish(struct demand_batch *batch, struct iopf_group *group, int rc)
{
	struct iommufd_demand *demand = demand_of_batch(batch);
	bool unused;

	spin_lock_bh(&demand->lock);
	unused = !--group->refs;
	if (!unused && demand_holds(group)) {
		if (!rc)
			unused = batch_claim(batch, group, IOMMU_PAGE_RESP_SUCCESS);
		else
			unused = demand_hand_over(batch, group);
	}
	spin_unlock_bh(&demand->lock);
	demand_wake_settle(demand);
	if (unused)
		iopf_free_group(group);
}

/* ---- the end ---- */

/* Claim up to a batch of groups of an attachment, on one list. */
static unsigned int settle_list(struct iommufd_demand *demand, struct list_head *groups,
				struct iommufd_attachment *attachment,
				enum iommu_page_response_code code, struct iopf_answer *answers,
				unsigned int n)
{
	struct iopf_group *group, *next;

	list_for_each_entry_safe(group, next, groups, node) {
		if (n == DEMAND_BATCH)
			break;
		if (group->priv != attachment)
			continue;
		if (!iopf_group_claim(group)) {
			if (demand_forget(demand, group))
				iopf_free_group(group);
			continue;
		}
		list_del_init(&group->node);
		iommufd_demand_count(demand, DEMAND_DROPPED, 1);
		answers[n++] = (struct iopf_answer){
			.group = group,
			.code = code,
			.cause = IOPF_CAUSE_DETACH,
		};
	}
	return n;
}

static bool demand_is_settled(struct iommufd_demand *demand,
			      const struct iommufd_attachment *attachment)
{
	bool settled;

	spin_lock_bh(&demand->lock);
	settled = !attachment->resolving;
	spin_unlock_bh(&demand->lock);
	return settled;
}

/**
 * iommufd_demand_settle() - Answer every group of an attachment that is being resolved
 * @demand: of the IOAS
 * @attachment: the attachment, already taken off its handle's list
 * @code: the answer
 *
 * What the fault object has got is left to iommufd_fault_settle().
 *
 * Context: Process context, sleeps until the hardware is answered, but neither for
 * user space nor for a thread that waits for the owner's memory.
 */
void iommufd_demand_settle(struct iommufd_demand *demand, struct iommufd_attachment *attachment,
			   enum iommu_page_response_code code)
{
	struct iopf_answer answers[DEMAND_BATCH];
	struct demand_owner *owner;
	unsigned int n;

	do {
		n = 0;
		spin_lock_bh(&demand->lock);
		list_for_each_entry(owner, &demand->owners, node) {
			n = settle_list(demand, &owner->queued, attachment, code, answers, n);
			n = settle_list(demand, &owner->busy, attachment, code, answers, n);
		}
		spin_unlock_bh(&demand->lock);
		demand_answer(demand, answers, n);
	} while (n);
	wait_event(demand->settle_wait, demand_is_settled(demand, attachment));
}

/**
 * iommufd_demand_show() - Show what has happened to the areas of an IOAS
 * @m: where to
 * @ioas_id: the IOAS
 * @demand: what it has for memory on demand
 */
void iommufd_demand_show(struct seq_file *m, u32 ioas_id, struct iommufd_demand *demand)
{
	static const char *const names[DEMAND_NR_COUNTERS] = {
		[DEMAND_GROUPS] = "groups",
		[DEMAND_POLLED] = "polled",
		[DEMAND_PAGES] = "pages",
		[DEMAND_AROUND] = "around",
		[DEMAND_HUGE] = "huge",
		[DEMAND_PRESENT] = "present",
		[DEMAND_UPGRADED] = "upgraded",
		[DEMAND_FAULTED] = "faulted",
		[DEMAND_RETRIED] = "retried",
		[DEMAND_NO_MEMORY] = "no-memory",
		[DEMAND_PASSED_ON] = "passed-on",
		[DEMAND_REFUSED] = "refused",
		[DEMAND_OUTSIDE] = "outside",
		[DEMAND_DROPPED] = "dropped",
		[DEMAND_STEALS] = "steals",
		[DEMAND_STOLEN] = "stolen",
		[DEMAND_FLUSHES] = "flushes",
	};
	unsigned int i;

	for (i = 0; i < DEMAND_NR_COUNTERS; i++)
		seq_printf(m, "iommufd-demand-%u-%s:\t%lld\n", ioas_id, names[i],
			   atomic64_read(&demand->counters[i]));
}
