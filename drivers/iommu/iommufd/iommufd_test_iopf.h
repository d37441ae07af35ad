/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Page request injector of the mock device: what tests and benchmarks say to
 * drivers/iommu/iommufd/selftest_iopf.c through IOMMU_TEST_CMD.
 *
 * The peer kernel of the benchmarks carries the injector too, without the rest
 * of this tree's test interface, so it has a header of its own.
 */
#ifndef _UAPI_IOMMUFD_TEST_IOPF_H
#define _UAPI_IOMMUFD_TEST_IOPF_H

#include "iommufd_test.h"

/* Well away from the numbers that mainline hands out. */
enum {
	IOMMU_TEST_OP_IOPF_BATCH = 0x1000,
	IOMMU_TEST_OP_IOPF_STATS,
	/* Not in the peer; those between are in iommufd_test.h */
	IOMMU_TEST_OP_IOPF_EVENT = 0x1010,
	IOMMU_TEST_OP_DEMAND_AUDIT = 0x1020,
	IOMMU_TEST_OP_SVA_BIND = 0x1030,
};

/* IOMMU_TEST_CMD's argument for these, as long as struct iommu_test_cmd. */
struct iommu_test_iopf_cmd {
	__u32 size;
	__u32 op;
	/*
	 * STATS, EVENT: a mock device's idev id; STATS: 0 for all that have gone away.
	 * DEMAND_AUDIT: an IOAS; SVA_BIND: a device
	 */
	__u32 id;
	/* STATS: IOMMU_TEST_IOPF_STATS_RESET; EVENT: enum iommu_test_iopf_event */
	__u32 flags;
	/* User address and size of the structure below that goes with @op */
	__aligned_u64 arg;
	__u32 arg_size;
	__u8 pad[sizeof(struct iommu_test_cmd) - 28];
};

enum {
	/* Send no LAST request: the groups stay partial */
	IOMMU_TEST_IOPF_NO_LAST = 1 << 0,
	/* First requests of all groups first, then all second ones, ... */
	IOMMU_TEST_IOPF_INTERLEAVE = 1 << 1,
	/*
	 * As real hardware, don't wait for an attach, replace or detach of the
	 * device that is going on; for a core that orders these itself.
	 */
	IOMMU_TEST_IOPF_UNLOCKED = 1 << 2,
};

enum {
	IOMMU_TEST_IOPF_MAX_DEVS = 64,
	IOMMU_TEST_IOPF_MAX_REQUESTS = 1 << 20,
};

/**
 * struct iommu_test_iopf_batch - Inject @groups groups of @requests requests
 * @dev_ids: User address of the idev ids of @nr_devs mock devices
 * @addr: Address of the first request; each further one is a page higher
 * @out_elapsed: Nanoseconds that handing all of them to the core took
 * @nr_devs: Group i comes from device i % @nr_devs
 * @flags: IOMMU_TEST_IOPF_*
 * @groups: Number of groups
 * @requests: Number of requests in each; the last one says so
 * @grpid: Group id of the first group; consecutive from there
 * @pasid: First PASID, or 0 (IOMMU_NO_PASID) for requests without one
 * @nr_pasids: Group i carries PASID @pasid + (i / @nr_devs) % @nr_pasids
 * @perm: IOMMU_PGFAULT_PERM_* of each request, taken as it is
 * @prm_flags: More flags of struct iommu_fault_page_request for each request
 * @out_accepted: Requests for which iommu_report_device_fault() returned 0
 */
struct iommu_test_iopf_batch {
	__aligned_u64 dev_ids;
	__aligned_u64 addr;
	__aligned_u64 out_elapsed;
	__u32 nr_devs;
	__u32 flags;
	__u32 groups;
	__u32 requests;
	__u32 grpid;
	__u32 pasid;
	__u32 nr_pasids;
	__u32 perm;
	__u32 prm_flags;
	__u32 out_accepted;
};

/**
 * struct iommu_test_demand_audit - What is mapped of the areas on demand of an IOAS
 * @pages: Pages that are mapped
 * @writable: Those of them that are mapped for writing
 * @huge: Huge pages that are mapped by one leaf
 * @chunks: Chunks that there are
 * @wrong: Pages that are mapped but not in all page tables, or in one although they are
 *         not; or that are mapped although the owner does not have that page there, or
 *         for writing although it cannot write. Of any IOAS, at any time: 0.
 */
struct iommu_test_demand_audit {
	__aligned_u64 pages;
	__aligned_u64 writable;
	__aligned_u64 huge;
	__aligned_u64 chunks;
	__aligned_u64 wrong;
};

/**
 * struct iommu_test_sva - The caller's memory, as a device has it
 * @fd: As long as this is open
 * @pasid: With this PASID
 */
struct iommu_test_sva {
	__s32 fd;
	__u32 pasid;
};

enum {
	IOMMU_TEST_IOPF_STATS_RESET = 1 << 0,
};

/**
 * enum iommu_test_iopf_event - What happens to a device's page requests
 * @IOMMU_TEST_IOPF_OVERFLOW: The hardware queue of all mock devices overflows
 * @IOMMU_TEST_IOPF_RESET: The device is reset: it forgets its groups
 */
enum iommu_test_iopf_event {
	IOMMU_TEST_IOPF_OVERFLOW = 1,
	IOMMU_TEST_IOPF_RESET,
};

/**
 * struct iommu_test_iopf_stats - What a mock device sent and was answered
 * @requests: Requests handed to the core, by any of the test operations
 * @groups: Those of them that were the last of a group, so want one answer
 * @responses: Answers by code (enum iommu_page_response_code)
 * @bad_codes: Answers with another code
 * @unmatched: Answers, of all these, to which no unanswered group belongs
 * @outstanding: Groups not answered yet; not cleared by a reset. For the
 *               devices that have gone away: groups that never were answered.
 * @last_pasid: PASID of the latest answer, or 0
 * @last_grpid: Group id of the latest answer
 * @last_code: Code of the latest answer
 * @last_flags: Flags of the request that the latest answer is for
 * @forgotten: Groups that a reset of the device took the answer from
 */
struct iommu_test_iopf_stats {
	__aligned_u64 requests;
	__aligned_u64 groups;
	__aligned_u64 responses[3];
	__aligned_u64 bad_codes;
	__aligned_u64 unmatched;
	__aligned_u64 outstanding;
	__u32 last_pasid;
	__u32 last_grpid;
	__u32 last_code;
	__u32 last_flags;
	__aligned_u64 forgotten;
};

#endif
