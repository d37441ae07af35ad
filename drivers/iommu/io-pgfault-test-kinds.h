/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of IOMMU drivers: one request of each kind, and what it is to a handler,
 * whoever the hardware is from
 */
#ifndef IO_PGFAULT_TEST_KINDS_H
#define IO_PGFAULT_TEST_KINDS_H

#include <kunit/test.h>
#include <linux/iommu.h>

/* The last request of its group */
struct iopf_kind {
	const char *name;
	bool with_pasid;
	u32 perm;
	u32 grpid;
	u64 addr;
};

/* Reads and writes apart: a transaction that stalls is one of the two. */
static const struct iopf_kind iopf_kinds[] = {
	{ "read", true, IOMMU_FAULT_PERM_READ, 1, 0x7000 },
	{ "write", true, IOMMU_FAULT_PERM_WRITE, 2, 0x7000 },
	{ "execute", true, IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_EXEC, 3, 0x7000 },
	{ "privileged", true, IOMMU_FAULT_PERM_WRITE | IOMMU_FAULT_PERM_PRIV, 4, 0x7000 },
	{ "read without PASID", false, IOMMU_FAULT_PERM_READ, 5, 0x7000 },
	{ "write without PASID", false, IOMMU_FAULT_PERM_WRITE, 6, 0x7000 },
	{ "highest group, highest page", true, IOMMU_FAULT_PERM_READ, 511, 0x7ffffffff000 },
};

/* What a driver made of @kind, which came with @pasid; how it answers is its own matter. */
static inline void iopf_kind_expect(struct kunit *test, const struct iopf_kind *kind, u32 pasid,
				    const struct iommu_fault *fault)
{
	struct iommu_fault_page_request prm = fault->prm;
	const struct iommu_fault_page_request expected = {
		.flags = IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE |
			 (kind->with_pasid ? IOMMU_FAULT_PAGE_REQUEST_PASID_VALID : 0),
		.pasid = kind->with_pasid ? pasid : IOMMU_NO_PASID,
		.grpid = kind->grpid,
		.perm = kind->perm,
		.addr = kind->addr,
	};

	prm.flags &= ~IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID;
	KUNIT_EXPECT_EQ_MSG(test, IOMMU_FAULT_PAGE_REQ, fault->type, "%s", kind->name);
	KUNIT_EXPECT_MEMEQ_MSG(test, &expected, &prm, sizeof(prm), "%s", kind->name);
}

#endif
