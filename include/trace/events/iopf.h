/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The life of an I/O page fault: requested, queued, delivered, answered
 *
 * For the meaning of the fields see Documentation/driver-api/iopf.rst.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM iopf

#if !defined(_TRACE_IOPF_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_IOPF_H

#include <linux/iommu.h>
#include <linux/tracepoint.h>

#define iopf_cause_names						\
	{ IOPF_CAUSE_USER,		"user" },			\
	{ IOPF_CAUSE_HANDLER,		"handler" },			\
	{ IOPF_CAUSE_DETACH,		"detach" },			\
	{ IOPF_CAUSE_CLOSE,		"close" },			\
	{ IOPF_CAUSE_DEADLINE,		"deadline" },			\
	{ IOPF_CAUSE_NO_HANDLER,	"no_handler" },			\
	{ IOPF_CAUSE_NO_ROOM,		"no_room" },			\
	{ IOPF_CAUSE_REMOVE,		"remove" },			\
	{ IOPF_CAUSE_OVERFLOW,		"overflow" },			\
	{ IOPF_CAUSE_RESET,		"reset" },			\
	{ IOPF_CAUSE_AGE,		"age" },			\
	{ IOPF_CAUSE_STOP,		"stop" }

#define iopf_code_names							\
	{ IOMMU_PAGE_RESP_SUCCESS,	"success" },			\
	{ IOMMU_PAGE_RESP_INVALID,	"invalid" },			\
	{ IOMMU_PAGE_RESP_FAILURE,	"failure" }

/* Every pass over this file needs these: only so do the formats have the numbers. */
TRACE_DEFINE_ENUM(IOPF_CAUSE_USER);
TRACE_DEFINE_ENUM(IOPF_CAUSE_HANDLER);
TRACE_DEFINE_ENUM(IOPF_CAUSE_DETACH);
TRACE_DEFINE_ENUM(IOPF_CAUSE_CLOSE);
TRACE_DEFINE_ENUM(IOPF_CAUSE_DEADLINE);
TRACE_DEFINE_ENUM(IOPF_CAUSE_NO_HANDLER);
TRACE_DEFINE_ENUM(IOPF_CAUSE_NO_ROOM);
TRACE_DEFINE_ENUM(IOPF_CAUSE_REMOVE);
TRACE_DEFINE_ENUM(IOPF_CAUSE_OVERFLOW);
TRACE_DEFINE_ENUM(IOPF_CAUSE_RESET);
TRACE_DEFINE_ENUM(IOPF_CAUSE_AGE);
TRACE_DEFINE_ENUM(IOPF_CAUSE_STOP);
TRACE_DEFINE_ENUM(IOMMU_PAGE_RESP_SUCCESS);
TRACE_DEFINE_ENUM(IOMMU_PAGE_RESP_INVALID);
TRACE_DEFINE_ENUM(IOMMU_PAGE_RESP_FAILURE);

#ifndef IOPF_TRACE_HELPERS
#define IOPF_TRACE_HELPERS
static inline s64 iopf_trace_pasid(const struct iommu_fault_page_request *prm)
{
	return prm->flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID ? prm->pasid : -1;
}

/* An open group has no last request yet, but it has a first one. */
static inline const struct iommu_fault_page_request *
iopf_trace_request(const struct iopf_group *group)
{
	return &list_first_entry(&group->faults, struct iopf_fault, list)->fault.prm;
}
#endif

/* A device asks for one page; nothing is decided yet. */
TRACE_EVENT(iopf_page_request,
	TP_PROTO(struct device *dev, const struct iommu_fault_page_request *prm),
	TP_ARGS(dev, prm),
	TP_STRUCT__entry(
		__string(device, dev_name(dev))
		__field(s64, pasid)
		__field(u32, grpid)
		__field(u32, perm)
		__field(u64, addr)
		__field(bool, last)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->pasid = iopf_trace_pasid(prm);
		__entry->grpid = prm->grpid;
		__entry->perm = prm->perm;
		__entry->addr = prm->addr;
		__entry->last = prm->flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	),
	TP_printk("%s pasid=%lld group=%u addr=%#llx perm=%s last=%d",
		  __get_str(device), __entry->pasid, __entry->grpid, __entry->addr,
		  __print_flags(__entry->perm, "|",
				{ IOMMU_FAULT_PERM_READ, "read" },
				{ IOMMU_FAULT_PERM_WRITE, "write" },
				{ IOMMU_FAULT_PERM_EXEC, "exec" },
				{ IOMMU_FAULT_PERM_PRIV, "priv" }),
		  __entry->last)
);

/* A handler has taken the group; an open one is shown again when it is complete. */
TRACE_EVENT(iopf_group_queued,
	TP_PROTO(const struct iopf_group *group, unsigned int depth),
	TP_ARGS(group, depth),
	TP_STRUCT__entry(
		__string(device, dev_name(group->fault_param->dev))
		__field(s64, pasid)
		__field(u32, grpid)
		__field(u32, requests)
		__field(u32, depth)
		__field(bool, open)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->pasid = iopf_trace_pasid(iopf_trace_request(group));
		__entry->grpid = iopf_trace_request(group)->grpid;
		__entry->requests = group->fault_count;
		__entry->depth = depth;
		__entry->open = group->open;
	),
	TP_printk("%s pasid=%lld group=%u requests=%u depth=%u open=%d",
		  __get_str(device), __entry->pasid, __entry->grpid, __entry->requests,
		  __entry->depth, __entry->open)
);

/* The handler has passed the group on; for iommufd: it is being read. */
TRACE_EVENT(iopf_group_delivered,
	TP_PROTO(const struct iopf_group *group, u64 waited),
	TP_ARGS(group, waited),
	TP_STRUCT__entry(
		__string(device, dev_name(group->fault_param->dev))
		__field(s64, pasid)
		__field(u32, grpid)
		__field(u32, cookie)
		__field(u64, waited)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->pasid = iopf_trace_pasid(iopf_trace_request(group));
		__entry->grpid = iopf_trace_request(group)->grpid;
		__entry->cookie = group->cookie;
		__entry->waited = waited;
	),
	TP_printk("%s pasid=%lld group=%u cookie=%u waited=%llu",
		  __get_str(device), __entry->pasid, __entry->grpid, __entry->cookie,
		  __entry->waited)
);

/* The core took the group back from its handler; no answer is given. */
TRACE_EVENT(iopf_group_recalled,
	TP_PROTO(const struct iopf_group *group, enum iopf_cause cause),
	TP_ARGS(group, cause),
	TP_STRUCT__entry(
		__string(device, dev_name(group->fault_param->dev))
		__field(s64, pasid)
		__field(u32, grpid)
		__field(u32, cookie)
		__field(u32, cause)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->pasid = iopf_trace_pasid(iopf_trace_request(group));
		__entry->grpid = iopf_trace_request(group)->grpid;
		__entry->cookie = group->cookie;
		__entry->cause = cause;
	),
	TP_printk("%s pasid=%lld group=%u cookie=%u cause=%s",
		  __get_str(device), __entry->pasid, __entry->grpid, __entry->cookie,
		  __print_symbolic(__entry->cause, iopf_cause_names))
);

/* The device has its answer; latency is from the queueing on, 0 if it was not. */
TRACE_EVENT(iopf_page_response,
	TP_PROTO(struct device *dev, const struct iommu_fault_page_request *prm,
		 enum iommu_page_response_code code, enum iopf_cause cause, u64 latency),
	TP_ARGS(dev, prm, code, cause, latency),
	TP_STRUCT__entry(
		__string(device, dev_name(dev))
		__field(s64, pasid)
		__field(u32, grpid)
		__field(u32, code)
		__field(u32, cause)
		__field(u64, latency)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->pasid = iopf_trace_pasid(prm);
		__entry->grpid = prm->grpid;
		__entry->code = code;
		__entry->cause = cause;
		__entry->latency = latency;
	),
	TP_printk("%s pasid=%lld group=%u code=%s by=%s latency=%llu",
		  __get_str(device), __entry->pasid, __entry->grpid,
		  __print_symbolic(__entry->code, iopf_code_names),
		  __print_symbolic(__entry->cause, iopf_cause_names),
		  __entry->latency)
);

#endif /* _TRACE_IOPF_H */

#include <trace/define_trace.h>
