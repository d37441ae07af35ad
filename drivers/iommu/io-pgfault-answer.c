// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page fault core: answers
 *
 * Who claims a group answers it here, many at a time, by IOMMU. What is recalled is
 * answered by nobody.
 */
#include <linux/iommu.h>
#include <linux/sched/clock.h>

#include <trace/events/iopf.h>

#include "io-pgfault.h"

/*
 * Take a group back from its handler, if nobody has claimed it. The owner of the
 * handle frees it after iopf_recall_sync(), so it is there as long as the group
 * can be taken and fdev->lock is held.
 */
void iopf_recall(struct iopf_device *fdev, struct iopf_group *group,
		 enum iopf_cause cause)
{
	lockdep_assert_held(&fdev->lock);

	if (!__iopf_group_take(group, IOPF_GROUP_GONE))
		return;

	fdev->count.recalled[cause]++;
	trace_iopf_group_recalled(group, cause);
	if (iopf_ops(group->attach_handle)->recall)
		iopf_ops(group->attach_handle)->recall(group, cause);
}

static struct iommu_device *iopf_iommu(const struct iopf_answer *answer)
{
	return to_iopf_device(answer->group->fault_param)->iommu;
}

static void iopf_answer_one(const struct iommu_ops *ops, const struct iopf_answer *answer)
{
	struct iommu_fault_page_request *prm = &answer->group->last_fault.fault.prm;
	struct device *dev = answer->group->fault_param->dev;
	struct iommu_page_response resp = {
		.pasid = prm->pasid,
		.grpid = prm->grpid,
		.code = answer->code,
	};

	ops->page_response(dev, &answer->group->last_fault, &resp);
}

/* Nanoseconds since the group was queued; ticks if nobody traced it then */
static u64 iopf_latency(const struct iopf_group *group)
{
	return group->time ? local_clock() - group->time :
	       jiffies_to_nsecs(jiffies - group->queued);
}

/**
 * __iopf_trace_delivered() - Trace a delivery
 * @group: the group
 *
 * For iopf_group_deliver() alone, which is inlined into modules.
 *
 * Context: Any.
 */
void __iopf_trace_delivered(const struct iopf_group *group)
{
	trace_iopf_group_delivered(group, iopf_latency(group));
}
EXPORT_SYMBOL_GPL(__iopf_trace_delivered);
EXPORT_TRACEPOINT_SYMBOL_GPL(iopf_group_delivered);

static noinline void iopf_trace_answer(const struct iopf_answer *answer)
{
	const struct iopf_group *group = answer->group;

	trace_iopf_page_response(group->fault_param->dev, &group->last_fault.fault.prm,
				 answer->code, answer->cause, iopf_latency(group));
}

/* Nobody has to do with the group any more but who frees it. */
static inline void iopf_group_gone(struct iopf_group *group)
{
	struct iopf_device *fdev = to_iopf_device(group->fault_param);

	/*
	 * The exchange orders the new state before the look at @waiters; who
	 * waits counts himself before he looks at the states. One of the two
	 * sees the other (claims.pml: ANSWERED_NO_BARRIER).
	 */
	atomic_xchg(&group->state, IOPF_GROUP_GONE);
	if (unlikely(READ_ONCE(fdev->waiters)))
		wake_up_all(&fdev->idle);
}

static inline void iopf_answered(const struct iopf_answer *answer)
{
	if (trace_iopf_page_response_enabled())
		iopf_trace_answer(answer);
	iopf_group_gone(answer->group);
}

/*
 * A claimed group without a last request: the hardware expects nothing yet, and what
 * is told to the last request is counted when that is done
 * (immediate.pml: OPEN_NO_LOCK, OPEN_NO_UNHASH).
 */
static bool iopf_end_open(struct iopf_group *group, enum iopf_cause cause)
{
	struct iopf_device *fdev = to_iopf_device(group->fault_param);
	bool open;

	spin_lock_bh(&fdev->lock);
	open = group->open;
	/* Unless it was dropped meanwhile, its last request may still come. */
	if (open && !hlist_unhashed(&group->partial_node)) {
		iopf_unhash(fdev, group);
		iopf_mark_void(fdev, group->key,
			       iopf_verdict(cause, IOMMU_PAGE_RESP_INVALID));
	}
	spin_unlock_bh(&fdev->lock);
	return open;
}

static inline void iopf_count(const struct iopf_answer *answer)
{
	struct iopf_device *fdev = to_iopf_device(answer->group->fault_param);

	atomic64_inc(&fdev->answered[answer->cause][answer->code]);
}

/* Give an answer that does not go to an IOMMU, if it is one. */
static bool iopf_answer_apart(const struct iopf_answer *answer)
{
	struct iopf_group *group = answer->group;

	/* Pairs with iopf_close(): closed, the last request is there. */
	if (unlikely(smp_load_acquire(&group->open)) && iopf_end_open(group, answer->cause)) {
		iopf_group_gone(group);
		return true;
	}
	if (likely(!group->answer))
		return false;
	if (trace_iopf_page_response_enabled())
		iopf_trace_answer(answer);
	group->answer(group, answer->code);
	return true;
}

/* Move the answers for the first one's IOMMU to the front; returns their number. */
static unsigned int iopf_first_iommu(struct iopf_answer *answers, unsigned int count)
{
	struct iommu_device *iommu = iopf_iommu(answers);
	unsigned int i, n = 1;

	for (i = 1; i < count; i++) {
		if (iopf_iommu(&answers[i]) != iommu)
			continue;
		if (i != n)
			swap(answers[i], answers[n]);
		n++;
	}
	return n;
}

/* Give the answers that do not go to an IOMMU, count the others; returns their number. */
static unsigned int iopf_answer_all_apart(struct iopf_answer *answers, unsigned int count)
{
	unsigned int i = 0;

	while (i < count) {
		if (likely(!iopf_answer_apart(&answers[i]))) {
			iopf_count(&answers[i]);
			i++;
			continue;
		}
		count--;
		swap(answers[i], answers[count]);
	}
	return count;
}

/* Answer the groups of the first one's IOMMU; returns their number. */
static unsigned int iopf_answer_iommu(struct iopf_answer *answers, unsigned int count)
{
	struct iommu_device *iommu = iopf_iommu(answers);
	const struct iommu_ops *ops = iommu->ops;
	unsigned int n = 0;

	if (!ops->page_response_batch) {
		do {
			iopf_answer_one(ops, &answers[n]);
		} while (++n < count && iopf_iommu(&answers[n]) == iommu);
		return n;
	}
	count = iopf_first_iommu(answers, count);
	ops->page_response_batch(iommu, answers, count);
	return count;
}

/**
 * iopf_answer_groups() - Answer the hardware for claimed groups
 * @answers: the groups, each claimed by the caller with iopf_group_claim(), and
 *           what their devices are told; in another order on return
 * @count: number of @answers
 *
 * One call of the driver for each IOMMU, if it has page_response_batch. For an
 * open group nothing is sent now; its last request will be answered INVALID. The
 * caller still owns the memory of the groups and frees it.
 *
 * Context: Process context, may sleep. No lock of the fault core is held while
 * the driver answers.
 */
void iopf_answer_groups(struct iopf_answer *answers, unsigned int count)
{
	unsigned int i, n;

	count = iopf_answer_all_apart(answers, count);
	for (; count; count -= n, answers += n) {
		n = iopf_answer_iommu(answers, count);
		for (i = 0; i < n; i++)
			iopf_answered(&answers[i]);
	}
}
EXPORT_SYMBOL_GPL(iopf_answer_groups);

/**
 * iopf_group_response() - Claim a group and answer it
 * @group: the group of faults
 * @status: what the device is told
 *
 * For handlers in the kernel with a single path that answers. Does nothing if the
 * group was answered already because its device went away.
 *
 * Context: Process context, may sleep.
 */
void iopf_group_response(struct iopf_group *group, enum iommu_page_response_code status)
{
	struct iopf_answer answer = {
		.group = group,
		.code = status,
		.cause = IOPF_CAUSE_HANDLER,
	};

	if (iopf_group_claim(group))
		iopf_answer_groups(&answer, 1);
}
EXPORT_SYMBOL_GPL(iopf_group_response);
