/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * I/O page fault core: what it shares with handlers and with IOMMU drivers
 *
 * Both are below drivers/iommu. What device drivers and others see of page faults is in
 * linux/iommu.h.
 */
#ifndef __IO_PGFAULT_PRIV_H
#define __IO_PGFAULT_PRIV_H

#include <linux/atomic.h>
#include <linux/iommu.h>
#include <linux/list.h>
#include <linux/tracepoint-defs.h>
#include <linux/workqueue.h>

/**
 * enum iopf_group_state - Who may do what with a page request group
 * @IOPF_GROUP_GONE: answered, or not in use
 * @IOPF_GROUP_COLLECTING: waits in the core for its last request
 * @IOPF_GROUP_QUEUED: with the handler, waits for the answer
 * @IOPF_GROUP_ANSWERING: claimed; only the claimer may answer it
 */
enum iopf_group_state {
	IOPF_GROUP_GONE,
	IOPF_GROUP_COLLECTING,
	IOPF_GROUP_QUEUED,
	IOPF_GROUP_ANSWERING,
};

/**
 * enum iopf_cause - Who answers a group, or why nobody does
 * @IOPF_CAUSE_USER: user space
 * @IOPF_CAUSE_HANDLER: a handler in the kernel, like that of SVA
 * @IOPF_CAUSE_DETACH: the domain is detached or replaced
 * @IOPF_CAUSE_CLOSE: user space has closed its end
 * @IOPF_CAUSE_DEADLINE: user space took too long
 * @IOPF_CAUSE_NO_HANDLER: nobody handles faults of this device and PASID, or the
 *                         driver knows that nobody can
 * @IOPF_CAUSE_NO_ROOM: the device has more outstanding than there is room for
 * @IOPF_CAUSE_REMOVE: the device leaves its queue
 * @IOPF_CAUSE_OVERFLOW: the hardware queue overflowed, requests are lost
 * @IOPF_CAUSE_RESET: the device was reset and waits for no answer any more
 * @IOPF_CAUSE_AGE: the last request of the group did not come in time
 * @IOPF_CAUSE_STOP: a stop marker came: the device sends no more for this PASID
 * @IOPF_NR_CAUSES: number of causes
 */
enum iopf_cause {
	IOPF_CAUSE_USER,
	IOPF_CAUSE_HANDLER,
	IOPF_CAUSE_DETACH,
	IOPF_CAUSE_CLOSE,
	IOPF_CAUSE_DEADLINE,
	IOPF_CAUSE_NO_HANDLER,
	IOPF_CAUSE_NO_ROOM,
	IOPF_CAUSE_REMOVE,
	IOPF_CAUSE_OVERFLOW,
	IOPF_CAUSE_RESET,
	IOPF_CAUSE_AGE,
	IOPF_CAUSE_STOP,
	IOPF_NR_CAUSES,
};

/**
 * struct iopf_group - Page requests that are answered together
 * @last_fault: the request that completed the group
 * @faults: all its requests in the order of arrival, @last_fault at the end. To
 *          an @open group the core appends under the device's fault lock; who
 *          looks at it without that lock stops at the request that it knows to
 *          be the last
 * @fault_count: number of @faults
 * @state: enum iopf_group_state, moved by the functions below it alone
 * @open: the handler has seen it, but its last request has not come, so that it is
 *        COLLECTING yet; only with &iopf_handler_ops.request
 * @delivered: has been passed on, see iopf_group_deliver()
 * @verdict: of the core: that a group which waits for its last request is void, and
 *           what that is told; else 0
 * @key: {PASID or none, group id}, for the core
 * @partial_node: node in the core's table of groups without a last request
 * @partial_list: node in the core's list of the same groups, oldest first
 * @queued: jiffies when it was queued; before that, when its first request came
 * @time: local_clock() when it was queued, 0 if nobody traces answers
 * @attach_handle: the attachment that routed it, fixed when it is queued
 * @fault_param: the device it came from; the group holds a reference
 * @work: for a handler that works on &iopf_queue.wq
 * @node: for the handler's own list
 * @priv: for the handler
 * @dev_id: for the handler, what it calls the device
 * @cookie: for the handler
 * @refs: for the handler
 * @length: a hint how many bytes are going to be accessed, or 0
 * @answer: in place of the IOMMU driver, for a group that did not come from
 *          there, else NULL; called once, in process context, without locks
 * @release: called in place of giving the memory back, with @answer
 */
struct iopf_group {
	struct iopf_fault last_fault;
	struct list_head faults;
	size_t fault_count;
	atomic_t state;
	bool open;
	bool delivered;
	u8 verdict;
	u64 key;
	struct hlist_node partial_node;
	struct list_head partial_list;
	unsigned long queued;
	u64 time;
	struct iommu_attach_handle *attach_handle;
	struct iommu_fault_param *fault_param;
	struct work_struct work;
	struct list_head node;
	void *priv;
	u32 dev_id;
	u32 cookie;
	u32 refs;
	u32 length;
	void (*answer)(struct iopf_group *group,
		       enum iommu_page_response_code code);
	void (*release)(struct iopf_group *group);
};

#ifdef CONFIG_IOMMU_IOPF
DECLARE_TRACEPOINT(iopf_group_delivered);
void __iopf_trace_delivered(const struct iopf_group *group);

static inline void iopf_trace_delivered(const struct iopf_group *group)
{
	if (tracepoint_enabled(iopf_group_delivered))
		__iopf_trace_delivered(group);
}
#else
static inline void iopf_trace_delivered(const struct iopf_group *group)
{
}
#endif

/**
 * iopf_group_deliver() - Note that the handler has passed a group on
 * @group: the group, not freed yet
 *
 * For the operator, who is told of it and finds it counted. The handler serializes
 * this and iopf_group_restore().
 */
static inline void iopf_group_deliver(struct iopf_group *group)
{
	if (group->delivered)
		return;
	group->delivered = true;
	iopf_trace_delivered(group);
}

/**
 * iopf_group_restore() - Take a delivery back that did not reach anybody
 * @group: the group
 */
static inline void iopf_group_restore(struct iopf_group *group)
{
	group->delivered = false;
}

/* For iopf_group_claim(), and for the core */
static inline bool __iopf_group_take(struct iopf_group *group, enum iopf_group_state to)
{
	int state = IOPF_GROUP_QUEUED;

	return atomic_try_cmpxchg(&group->state, &state, to);
}

/**
 * iopf_group_claim() - Become the one who answers a group
 * @group: a group that the handler has
 *
 * One look and one write, in one operation (claims.pml: CLAIM_IN_TWO).
 *
 * Return: true if the caller must now call iopf_answer_groups(), false if
 * somebody else answers or has answered it, or the core has recalled it.
 */
static inline bool iopf_group_claim(struct iopf_group *group)
{
	return __iopf_group_take(group, IOPF_GROUP_ANSWERING);
}

/**
 * struct iopf_answer - A claimed group and what its device is told
 * @group: the group
 * @code: the answer
 * @cause: who gives it
 */
struct iopf_answer {
	struct iopf_group *group;
	enum iommu_page_response_code code;
	enum iopf_cause cause;
};

/**
 * struct iopf_handler_ops - What a handler may offer beside iopf_handler()
 *
 * All are optional. They are called under the device's fault lock, and must not
 * sleep.
 *
 * @request: Immediate delivery: a request that is not the last of @group was
 *	appended to &iopf_group.faults. At the first one the group is open, and has its
 *	attach_handle. It cannot be claimed. When the last request comes the group is
 *	open no more, and iopf_handler() is called for it; if that never comes, @recall
 *	is. With an error from the first call the handler has forgotten the group; with
 *	one from a later call, iopf_handler() included, it is recalled. In both cases
 *	the core answers the last request INVALID, or with -EAGAIN SUCCESS.
 * @recall: @group means nothing to its device any more: requests of an open
 *	group were lost, or it got too old, or the device was reset. The core has
 *	taken it, so that it cannot be claimed, and nothing is sent to hardware. The
 *	handler forgets it, and frees it by iopf_free_group(), here or later.
 *	Without this operation the handler finds out when it tries to claim.
 * @lost: Requests for @handle were answered by the core for want of room, or may
 *	have been lost by the hardware. May only count and mark.
 */
struct iopf_handler_ops {
	int (*request)(struct iopf_group *group);
	void (*recall)(struct iopf_group *group, enum iopf_cause cause);
	void (*lost)(struct iommu_attach_handle *handle, enum iopf_cause cause);
};

#ifdef CONFIG_IOMMU_IOPF
void iopf_free_groups(const struct iopf_answer *answer, unsigned int count);
void iopf_answer_groups(struct iopf_answer *answers, unsigned int count);
void iopf_quiesce(struct device *dev, ioasid_t pasid, struct iommu_attach_handle *handle);
void iopf_recall_sync(struct device *dev);
#endif

#if IS_ENABLED(CONFIG_KUNIT)
extern unsigned int iopf_reserve;
#endif

#endif /* __IO_PGFAULT_PRIV_H */
