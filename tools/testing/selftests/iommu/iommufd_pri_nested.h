/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One device with a guest's page table, by its RID or by a PASID, and the memory of that
 * guest, which the test has.
 *
 * This needs an IOMMU of two stages (scripts/vm --nest). That one caches what it has
 * found until it is told to forget it, so tests can tell that something was invalidated.
 */
#ifndef __SELFTEST_IOMMUFD_PRI_NESTED_H
#define __SELFTEST_IOMMUFD_PRI_NESTED_H

#include "iommufd_pri_guest.h"

struct nested {
	struct server server;
	struct unit *unit;
	struct guest guest;
	struct stage stage;
	bool pasid;
	bool opened;
};

FIXTURE(nested)
{
	struct nested nested;
};

FIXTURE_VARIANT(nested)
{
	bool pasid;
	int mmap_flags;
};

FIXTURE_VARIANT_ADD(nested, rid)
{
};

FIXTURE_VARIANT_ADD(nested, pasid)
{
	.pasid = true,
};

FIXTURE_VARIANT_ADD(nested, pasid_on_large_pages)
{
	.pasid = true,
	.mmap_flags = MAP_HUGETLB,
};

static int attach(const struct nested *n, uint32_t hwpt)
{
	struct iopf_device *vfio = &n->unit->pri.vfio;

	return n->pasid ? iopf_device_attach_pasid(vfio, PASID, hwpt) :
			  iopf_device_attach(vfio, hwpt);
}

static int detach(const struct nested *n)
{
	struct iopf_device *vfio = &n->unit->pri.vfio;

	return n->pasid ? iopf_device_detach_pasid(vfio, PASID) : iopf_device_detach(vfio);
}

FIXTURE_SETUP(nested)
{
	struct nested *n = &self->nested;
	struct pri_address found;
	int rc;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	n->pasid = variant->pasid;
	n->unit = &n->server.unit[0];
	ASSERT_EQ(0, server_open(&n->server, 0, 1));
	rc = guest_open(&n->guest, &n->server.io, n->unit->pri.vfio.id,
			variant->mmap_flags, 0);
	if (rc == -EOPNOTSUPP) {
		check_server(_metadata, &n->server);
		SKIP(return, "the IOMMU has no nested translation");
	}
	if (!rc)
		rc = stage_open(&n->guest, n->server.queue.id, &n->stage);
	/* from the paging table that server_open() has attached */
	if (!rc)
		rc = attach(n, n->stage.hwpt);
	if (rc)
		server_give_back(&n->server);
	ASSERT_EQ(0, rc);
	n->opened = true;
}

FIXTURE_TEARDOWN(nested)
{
	struct nested *n = &self->nested;

	if (!n->opened)
		return;
	EXPECT_EQ(0, pri_close(&n->unit->pri));
	EXPECT_EQ(0, iopf_destroy(&n->server.io, n->stage.hwpt));
	EXPECT_EQ(0, guest_close(&n->guest));
	check_server(_metadata, &n->server);
}

/* ---- what the device does, with the PASID or without ---- */

static uint32_t with(const struct nested *n, uint32_t flags)
{
	return n->pasid ? flags | PTD_F_PASID : flags;
}

static int read_at(const struct nested *n, uint64_t iova, uint64_t *value)
{
	int rc = command(n->unit, PTD_CMD_DMA_READ, PASID, iova, with(n, PTD_F_READ));

	*value = pri_get64(&n->unit->pri, PTD_DATA);
	return rc;
}

static int write_at(const struct nested *n, uint64_t iova, uint64_t value)
{
	pri_set64(&n->unit->pri, PTD_DATA, value);
	return command(n->unit, PTD_CMD_DMA_WRITE, PASID, iova, with(n, PTD_F_WRITE));
}

static int ask(const struct nested *n, uint64_t iova, uint32_t flags, uint32_t id)
{
	return request(n->unit, PASID, iova, with(n, flags), id);
}

static uint64_t content(const struct guest *guest, uint64_t gpa)
{
	uint64_t value;

	__atomic_load((uint64_t *)guest_at(guest, gpa), &value, __ATOMIC_RELAXED);
	return value;
}

#define EXPECT_READS(gpa, iova) do {						\
	uint64_t _value;							\
										\
	EXPECT_EQ(0, read_at(n, iova, &_value));			\
	EXPECT_EQ(content(&n->guest, gpa), _value);				\
} while (0)

#define EXPECT_NOT_THERE(iova) do {						\
	uint64_t _value;							\
										\
	EXPECT_EQ(-EFAULT, read_at(n, iova, &_value));		\
} while (0)

/* One fault, for the page of @iova, with these permissions; *cookie answers it. */
static void expect_fault(struct __test_metadata *_metadata, struct nested *n, uint64_t iova,
			 uint32_t perm, uint32_t *cookie)
{
	uint32_t flags = IOMMU_PGFAULT_FLAGS_LAST_PAGE;
	struct iommu_hwpt_pgfault m[2];

	if (n->pasid)
		flags |= IOMMU_PGFAULT_FLAGS_PASID_VALID;
	ASSERT_EQ(0, ask(n, iova, perm, 3));
	ASSERT_EQ(1, read_some(&n->server.queue, m, 2, WAIT_MS));
	EXPECT_EQ(iova & -PAGE, m[0].addr);
	EXPECT_EQ(flags, m[0].flags);
	EXPECT_EQ(perm, m[0].perm);
	EXPECT_EQ(3, m[0].grpid);
	if (n->pasid)
		EXPECT_EQ(PASID, m[0].pasid);
	*cookie = m[0].cookie;
}

static void expect_answered(struct __test_metadata *_metadata, struct nested *n,
			    uint32_t cookie)
{
	uint32_t before = reg(n->unit, PTD_N_SUCCESS);

	ASSERT_EQ(1, answer(&n->server, cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(before + 1, wait_reg(n->unit, PTD_N_SUCCESS, before + 1));
}

#endif
