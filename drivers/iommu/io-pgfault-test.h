/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the KUnit tests of the I/O page fault core share
 *
 * Two IOMMUs are registered like real ones, with a device and a fault queue each.
 * A domain is attached to the devices' RIDs and to two PASIDs of the first one.
 * Its handler keeps the groups, and the IOMMUs count what they are answered.
 */
#ifndef __IO_PGFAULT_TEST_H
#define __IO_PGFAULT_TEST_H

#include <kunit/test.h>
#include <linux/platform_device.h>

#include "iommu-priv.h"
#include "io-pgfault.h"

#define TEST_IOMMUS	2
#define TEST_PASIDS	2
#define TEST_BATCH	64
/* What the pool of a device has from the start: all of it, with few credits */
#define TEST_RESERVE	300

struct test_iommu {
	struct iommu_device iommu;
	struct iopf_queue *queue;
	struct platform_device *pdev;
	struct iommu_attach_handle rid;

	spinlock_t lock;	/* the answers below */
	unsigned int responses[IOPF_NR_CODES];
	unsigned int batches;
	unsigned int drains;
	bool late_request;
	bool switch_request;
	int switch_error;
	struct iommu_page_response last;
};

struct iopf_test {
	struct test_iommu iommus[TEST_IOMMUS];
	struct iommu_ops ops;
	struct iommu_domain domain;
	struct iommu_attach_handle pasids[TEST_PASIDS];

	spinlock_t lock;	/* what the handler knows: all below */
	struct list_head held;
	struct list_head recalled_groups;
	unsigned int queued;
	unsigned int requests;
	unsigned int closed;
	unsigned int recalled[IOPF_NR_CAUSES];
	unsigned int lost[IOPF_NR_CAUSES];
	int request_error;
	int handler_error;
};

extern const struct iommu_domain_ops iopf_test_domain_ops;
extern const struct iopf_handler_ops iopf_test_immediate_ops;

int iopf_test_init(struct kunit *test);
void iopf_test_exit(struct kunit *test);

/* Let the first device join its queue again with so many credits. */
void iopf_test_set_credits(struct kunit *test, unsigned int credits);

/* Answer what the handler holds. Returns how many groups could be claimed. */
unsigned int iopf_test_answer(struct iopf_test *ft, enum iommu_page_response_code code);
void iopf_test_free_recalled(struct iopf_test *ft);

/* What the file in debugfs says of @name, or -1 */
long long iopf_test_counter(struct kunit *test, const char *name);

static inline struct device *test_dev(struct iopf_test *ft, unsigned int i)
{
	return &ft->iommus[i].pdev->dev;
}

static inline struct iopf_device *test_fdev(struct iopf_test *ft)
{
	return to_iopf_device(rcu_access_pointer(test_dev(ft, 0)->iommu->fault_param));
}

static inline struct iopf_fault test_request_of(ioasid_t pasid, u32 grpid, bool last)
{
	struct iopf_fault evt = {
		.fault.type = IOMMU_FAULT_PAGE_REQ,
		.fault.prm = { .pasid = pasid, .grpid = grpid },
	};

	if (pasid != IOMMU_NO_PASID)
		evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
	if (last)
		evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	return evt;
}

static inline int test_report(struct iopf_test *ft, unsigned int i, ioasid_t pasid, u32 grpid,
			      bool last)
{
	struct iopf_fault evt = test_request_of(pasid, grpid, last);

	return iommu_report_device_fault(test_dev(ft, i), &evt);
}

static inline int test_partial(struct iopf_test *ft, u32 grpid)
{
	return test_report(ft, 0, IOMMU_NO_PASID, grpid, false);
}

static inline int test_last(struct iopf_test *ft, u32 grpid)
{
	return test_report(ft, 0, IOMMU_NO_PASID, grpid, true);
}

/* The newest group that the handler holds */
static inline struct iopf_group *test_newest(struct iopf_test *ft)
{
	return list_last_entry(&ft->held, struct iopf_group, node);
}

static inline unsigned int test_responses(struct iopf_test *ft, unsigned int i)
{
	unsigned int *responses = ft->iommus[i].responses;

	return responses[IOMMU_PAGE_RESP_SUCCESS] + responses[IOMMU_PAGE_RESP_INVALID] +
	       responses[IOMMU_PAGE_RESP_FAILURE];
}

static inline unsigned int test_invalid(struct iopf_test *ft)
{
	return ft->iommus[0].responses[IOMMU_PAGE_RESP_INVALID];
}

#endif
