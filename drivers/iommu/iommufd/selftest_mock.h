/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * State that the mock device of selftest.c carries for the injector
 * (selftest_iopf.c) and for PASIDs (selftest_pasid.c). It is the device's
 * driver data.
 */
#ifndef __IOMMUFD_SELFTEST_MOCK_H
#define __IOMMUFD_SELFTEST_MOCK_H

#include <linux/hash.h>
#include "../iommu-priv.h"
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/xarray.h>

#include "iommufd_test_iopf.h"

struct iopf_answer;

struct iommufd_device;
struct iommufd_ucmd;

#define MOCK_IOPF_HASH_BITS 9

/* A group that waits for its answer, or an entry for one */
struct mock_group {
	struct hlist_node node;
	u32 pasid;
	u32 grpid;
};

/**
 * struct mock_state - Injector and PASID state of a mock device
 * @attach_rwsem: Written around attach, replace and detach, read around a report
 * @installed: Domain that the driver was told to use, by PASID
 * @attached: PASIDs that user space attached through this device itself
 * @fail_pasid: PASID at which the next installation fails, once; else 0
 * @lock: Taken for each request and each answer
 * @stats: Counters
 * @open: Groups that wait for their answer, hashed by PASID and group id
 * @spare: Entries for @open that are not in use
 */
struct mock_state {
	struct rw_semaphore *attach_rwsem;
	struct xarray installed;
	struct xarray attached;
	ioasid_t fail_pasid;

	spinlock_t lock; /* protects all below */
	struct iommu_test_iopf_stats stats;
	struct hlist_head open[1 << MOCK_IOPF_HASH_BITS];
	struct hlist_head spare;
};

static inline struct hlist_head *mock_open_bucket(struct mock_state *state, u32 pasid, u32 grpid)
{
	return &state->open[hash_64((u64)pasid << 32 | grpid, MOCK_IOPF_HASH_BITS)];
}

static inline bool mock_close_group(struct mock_state *state, u32 pasid, u32 grpid)
{
	struct mock_group *group;

	hlist_for_each_entry(group, mock_open_bucket(state, pasid, grpid), node) {
		if (group->pasid != pasid || group->grpid != grpid)
			continue;
		__hlist_del(&group->node);
		hlist_add_head(&group->node, &state->spare);
		state->stats.outstanding--;
		return true;
	}
	return false;
}

/* The device is told the answer to a group. Under @state->lock, as what follows. */
static inline void mock_take_answer(struct mock_state *state,
				    const struct iommu_page_response *resp)
{
	struct iommu_test_iopf_stats *stats = &state->stats;

	if (likely(resp->code < ARRAY_SIZE(stats->responses)))
		stats->responses[resp->code]++;
	else
		stats->bad_codes++;
	if (unlikely(!mock_close_group(state, resp->pasid, resp->grpid)))
		stats->unmatched++;
}

/* The latest answer, and the last request of its group */
static inline void mock_note_answer(struct mock_state *state, const struct iopf_fault *evt,
				    const struct iommu_page_response *resp)
{
	state->stats.last_pasid = resp->pasid;
	state->stats.last_grpid = resp->grpid;
	state->stats.last_code = resp->code;
	state->stats.last_flags = evt->fault.prm.flags;
}

void iommufd_mock_init(struct device *dev, struct mock_state *state,
		       struct rw_semaphore *attach_rwsem);
void iommufd_mock_release(struct mock_state *state);

int iommufd_mock_trigger_iopf(struct device *dev, struct iopf_fault *evt);
void iommufd_mock_page_response(struct device *dev, const struct iopf_fault *evt,
				const struct iommu_page_response *resp);
void iommufd_mock_page_response_batch(struct iommu_device *iommu,
				      const struct iopf_answer *answers, unsigned int count);
int iommufd_mock_iopf_test(struct iommufd_ucmd *ucmd);
int iommufd_mock_iopf_batch(struct iommufd_ucmd *ucmd, const struct iommu_test_iopf_cmd *cmd);
struct iommufd_device *iommufd_mock_get(struct iommufd_ucmd *ucmd, u32 id);
int iommufd_mock_iopf_event(struct iommufd_ucmd *ucmd);
int iommufd_test_demand_audit(struct iommufd_ucmd *ucmd);
int iommufd_test_sva_bind(struct iommufd_ucmd *ucmd);

int iommufd_mock_driver_open(struct iommufd_ucmd *ucmd);

int iommufd_mock_set_dev_pasid(struct iommu_domain *domain, struct device *dev, ioasid_t pasid,
			       struct iommu_domain *old);
void iommufd_mock_remove_dev_pasid(struct device *dev, ioasid_t pasid,
				   struct iommu_domain *domain);
int iommufd_mock_pasid_test(struct iommufd_ucmd *ucmd, struct iommufd_device *idev);
void iommufd_mock_detach_pasids(struct iommufd_device *idev, bool alone);

#endif
