// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page fault core: answers
 *
 * Who claims a group answers it here, many at a time, by IOMMU. What is recalled is
 * answered by nobody.
 */
#include <linux/iommu.h>
#include <linux/sched/clock.h>

#include "io-pgfault.h"

#include <trace/events/iopf.h>

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

/* Nobody has to do with the groups any more but who frees them. */
static inline void iopf_groups_gone(const struct iopf_answer *answer, const struct iopf_answer *end)
{
	struct iommu_fault_param *param;

	do {
		param = answer->group->fault_param;
		/* As many as are from the same device in a row */
		do {
			atomic_set_release(&answer->group->state, IOPF_GROUP_GONE);
		} while (++answer < end && answer->group->fault_param == param);
		/*
		 * Orders the new states before the look at @waiters; who waits counts
		 * himself before he looks at the states. One of the two sees the other
		 * (claims.pml: ANSWERED_NO_BARRIER).
		 */
		smp_mb();
		if (unlikely(READ_ONCE(to_iopf_device(param)->waiters)))
			wake_up_all(&to_iopf_device(param)->idle);
	} while (answer < end);
}

static inline void iopf_answered(const struct iopf_answer *answers, const struct iopf_answer *end)
{
	const struct iopf_answer *answer;

	if (trace_iopf_page_response_enabled()) {
		for (answer = answers; answer < end; answer++)
			iopf_trace_answer(answer);
	}
	iopf_groups_gone(answers, end);
}

/* Give an answer that does not go to an IOMMU, if it is one. */
static bool iopf_answer_apart(const struct iopf_answer *answer)
{
	struct iopf_group *group = answer->group;

	if (likely(!group->answer))
		return false;
	if (trace_iopf_page_response_enabled())
		iopf_trace_answer(answer);
	group->answer(group, answer->code);
	return true;
}

/*
 * Give the answers that do not go to an IOMMU, which moves @end. Of the others move those
 * for the first one's IOMMU to the front, and count them; returns the end of these.
 */
static inline struct iopf_answer *iopf_sort_out(struct iopf_answer *answers,
						struct iopf_answer **end)
{
	struct iopf_answer *answer = answers, *to = answers;
	struct iommu_device *iommu = NULL;
	struct iopf_device *fdev;

	while (answer < *end) {
		if (unlikely(iopf_answer_apart(answer))) {
			--*end;
			swap(*answer, **end);
			continue;
		}
		fdev = to_iopf_device(answer->group->fault_param);
		if (fdev->iommu == iommu || !iommu) {
			iommu = fdev->iommu;
			atomic64_inc(&fdev->answered[answer->cause][answer->code]);
			if (unlikely(answer != to))
				swap(*answer, *to);
			to++;
		}
		answer++;
	}
	return to;
}

/* Give answers that go to one IOMMU. */
static inline void iopf_answer_iommu(const struct iopf_answer *answer,
				     const struct iopf_answer *end)
{
	struct iommu_device *iommu = to_iopf_device(answer->group->fault_param)->iommu;

	if (likely(iommu->ops->page_response_batch)) {
		iommu->ops->page_response_batch(iommu, answer, end - answer);
		return;
	}
	for (; answer < end; answer++)
		iopf_answer_one(iommu->ops, answer);
}

/**
 * iopf_answer_groups() - Answer the hardware for claimed groups
 * @answers: the groups, each claimed by the caller with iopf_group_claim(), and
 *           what their devices are told; in another order on return
 * @count: number of @answers
 *
 * One call of the driver for each IOMMU, if it has page_response_batch. The
 * caller still owns the memory of the groups and frees it.
 *
 * Context: Process context, may sleep. No lock of the fault core is held while
 * the driver answers.
 */
void iopf_answer_groups(struct iopf_answer *answers, unsigned int count)
{
	struct iopf_answer *next, *end = answers + count;

	for (; answers < end; answers = next) {
		next = iopf_sort_out(answers, &end);
		if (unlikely(next == answers))
			break;
		iopf_answer_iommu(answers, next);
		iopf_answered(answers, next);
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
