/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest without a guest: memory that a nested page table sees as physical, and first
 * stages in it, which the test writes as a guest's kernel would.
 */
#ifndef __SELFTEST_IOMMUFD_PRI_GUEST_H
#define __SELFTEST_IOMMUFD_PRI_GUEST_H

#include <sys/ioctl.h>

#include "iommufd_pri_utils.h"

/* Where the guest's memory begins: tables, then what is read and what is written. */
#define GPA 0x100000000ull
#define GUEST_TABLES (2ull << 20)
#define GUEST_SRC GUEST_TABLES
#define GUEST_DST (GUEST_SRC + HALF)
#define GUEST_MEMORY (GUEST_DST + HALF)

/* Entries of a first stage, which are x86's; the last one is software's to use. */
#define PTE_PRESENT (1ull << 0)
#define PTE_WRITE (1ull << 1)
#define PTE_USER (1ull << 2)
#define PTE_ACCESSED (1ull << 5)
#define PTE_DIRTY (1ull << 6)
#define PTE_LARGE (1ull << 7)
#define PTE_SOFTWARE (1ull << 52)
#define PTE_ADDR 0x000ffffffffff000ull
#define PTE_ALL (PTE_PRESENT | PTE_WRITE | PTE_USER)

#define LEVELS 4
#define ADDR_WIDTH 48
#define LARGE_PAGE (2ull << 20)

struct guest {
	struct iopf *io;
	uint32_t dev_id;
	uint32_t ioas;
	/* the second stage */
	uint32_t parent;
	unsigned char *memory;
	unsigned int tables;
};

/* A first stage, and the HWPT that makes it known to the IOMMU */
struct stage {
	uint64_t top;
	uint32_t hwpt;
};

static void *guest_at(const struct guest *guest, uint64_t gpa)
{
	return guest->memory + (gpa - GPA);
}

static uint64_t guest_table(struct guest *guest)
{
	return GPA + guest->tables++ * PAGE;
}

static uint64_t *pte_in(const struct guest *guest, uint64_t table, uint64_t iova, int level)
{
	return (uint64_t *)guest_at(guest, table) + (iova >> (12 + 9 * (level - 1)) & 511);
}

/* The entry for @iova at @level, whose leaves are 1; the tables above it are made. */
static uint64_t *guest_pte(struct guest *guest, const struct stage *stage, uint64_t iova,
			   int level)
{
	uint64_t table = stage->top, *pte;
	int at;

	for (at = LEVELS; at > level; at--) {
		pte = pte_in(guest, table, iova, at);
		if (!*pte)
			*pte = guest_table(guest) | PTE_ALL;
		table = *pte & PTE_ADDR;
	}
	return pte_in(guest, table, iova, level);
}

static void set_pte(uint64_t *pte, uint64_t value)
{
	__atomic_store_n(pte, value, __ATOMIC_SEQ_CST);
}

/* Where in the guest's memory the windows of iommufd_pri_utils.h lead to. */
static uint64_t guest_page(uint64_t iova)
{
	if (iova >= SRC && iova < SRC + WINDOW)
		return GPA + GUEST_SRC + (iova - SRC) % HALF;
	if (iova >= DST && iova < DST + WINDOW)
		return GPA + GUEST_DST + (iova - DST) % HALF;
	return 0;
}

static void guest_map(struct guest *guest, const struct stage *stage, uint64_t iova)
{
	set_pte(guest_pte(guest, stage, iova, 1), guest_page(iova & -PAGE) | PTE_ALL);
}

static int guest_invalidate_many(const struct guest *guest, uint32_t hwpt,
				 const struct iommu_hwpt_vtd_s1_invalidate *what, uint32_t *n)
{
	struct iommu_hwpt_invalidate cmd = {
		.size = sizeof(cmd), .hwpt_id = hwpt, .data_uptr = (uintptr_t)what,
		.data_type = IOMMU_HWPT_INVALIDATE_DATA_VTD_S1, .entry_len = sizeof(*what),
		.entry_num = *n,
	};
	int rc = ioctl(guest->io->fd, IOMMU_HWPT_INVALIDATE, &cmd) ? -errno : 0;

	*n = cmd.entry_num;
	return rc;
}

static int guest_invalidate(const struct guest *guest, const struct stage *stage, uint64_t iova,
			    uint64_t pages)
{
	struct iommu_hwpt_vtd_s1_invalidate what = { .addr = iova, .npages = pages };
	uint32_t n = 1;

	return guest_invalidate_many(guest, stage->hwpt, &what, &n);
}

static int nested_alloc(const struct guest *guest, uint32_t flags, uint32_t fault_id,
			const struct iommu_hwpt_vtd_s1 *data, uint32_t *hwpt)
{
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd), .dev_id = guest->dev_id, .pt_id = guest->parent,
		.flags = flags | (fault_id ? IOMMU_HWPT_FAULT_ID_VALID : 0), .fault_id = fault_id,
		.data_type = IOMMU_HWPT_DATA_VTD_S1, .data_len = sizeof(*data),
		.data_uptr = (uintptr_t)data,
	};

	if (ioctl(guest->io->fd, IOMMU_HWPT_ALLOC, &cmd))
		return -errno;
	*hwpt = cmd.out_hwpt_id;
	return 0;
}

/* An empty first stage that reports to the queue, or to none for 0. */
static int stage_open(struct guest *guest, uint32_t fault_id, struct stage *stage)
{
	struct iommu_hwpt_vtd_s1 data = { .addr_width = ADDR_WIDTH };

	stage->top = guest_table(guest);
	data.pgtbl_addr = stage->top;
	return nested_alloc(guest, IOMMU_HWPT_ALLOC_PASID, fault_id, &data, &stage->hwpt);
}

static int guest_map_part(const struct guest *guest, uint64_t offset, uint64_t len)
{
	return iopf_map(guest->io, guest->ioas, GPA + offset, guest->memory + offset, len,
			READ_WRITE);
}

/* Tables and both halves of the data are areas of their own. */
static int guest_open(struct guest *guest, struct iopf *io, uint32_t dev_id, int mmap_flags,
		      uint32_t parent_flags)
{
	*guest = (struct guest){ .io = io, .dev_id = dev_id };
	guest->memory = mmap(NULL, GUEST_MEMORY, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS | mmap_flags, -1, 0);
	if (guest->memory == MAP_FAILED)
		return iopf_fail(io, errno, "allocate the guest's memory");
	fill(guest->memory + GUEST_SRC);
	return iopf_ioas_alloc(io, &guest->ioas) ?:
	       iopf_hwpt_alloc(io, dev_id, guest->ioas,
			       IOMMU_HWPT_ALLOC_NEST_PARENT | parent_flags, 0, &guest->parent) ?:
	       guest_map_part(guest, 0, GUEST_TABLES) ?:
	       guest_map_part(guest, GUEST_SRC, HALF) ?:
	       guest_map_part(guest, GUEST_DST, HALF);
}

/* Nothing may be nested on it any more. */
static int guest_close(struct guest *guest)
{
	int rc = iopf_destroy(guest->io, guest->parent) ?: iopf_destroy(guest->io, guest->ioas);

	munmap(guest->memory, GUEST_MEMORY);
	return rc;
}

#endif
