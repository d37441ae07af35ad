// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory on demand: is what is mapped what the owner has?
 */
#include <linux/hmm.h>
#include <linux/iommu.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "iommufd_private.h"
#include "selftest_mock.h"

/* What is wrong with a page: 1 or 0 */
static unsigned int audit_page(const struct demand_slab *slab, const struct demand_chunk *chunk,
			       unsigned int page, unsigned long iova, unsigned long pfn)
{
	bool present = test_bit(page, chunk->present);
	struct demand_domain *table;
	phys_addr_t phys;

	if (test_bit(page, chunk->writable) && !(present && pfn & HMM_PFN_WRITE))
		return 1;
	if (present && !(pfn & HMM_PFN_VALID))
		return 1;
	list_for_each_entry(table, &slab->area->demand->domains, node) {
		phys = iommu_iova_to_phys(table->domain, iova);
		if (phys != (present ? PFN_PHYS(pfn & ~HMM_PFN_FLAGS) : 0))
			return 1;
	}
	return 0;
}

/* What a device asked for may have come since the owner's page table was looked at. */
static bool is_as_before(const struct demand_chunk *chunk, const struct demand_chunk *before,
			 unsigned int page)
{
	return test_bit(page, chunk->present) == test_bit(page, before->present) &&
	       test_bit(page, chunk->writable) == test_bit(page, before->writable);
}

static void audit_chunk(const struct demand_slab *slab, const struct demand_chunk *chunk,
			const struct demand_chunk *before, unsigned long iova,
			const unsigned long *pfns, unsigned int n,
			struct iommu_test_demand_audit *audit)
{
	unsigned int first = (iova & ~PMD_MASK) / PAGE_SIZE, i;

	for (i = 0; i < n; i++) {
		audit->pages += test_bit(first + i, chunk->present);
		audit->writable += test_bit(first + i, chunk->writable);
		if (is_as_before(chunk, before, first + i))
			audit->wrong += audit_page(slab, chunk, first + i, iova + i * PAGE_SIZE,
						   pfns[i]);
	}
	audit->huge += chunk->huge;
	audit->chunks++;
}

/* Compare a chunk with the owner's page table; -EAGAIN if that changes. */
static int audit_try(struct demand_slab *slab, struct demand_chunk *chunk, unsigned long index,
		     unsigned long *pfns, struct iommu_test_demand_audit *audit)
{
	unsigned long slab_first = demand_slab_iova(slab);
	unsigned long iova = max(index << PMD_SHIFT, slab_first);
	unsigned long last = min((index << PMD_SHIFT) + (PMD_SIZE - 1),
				 slab_first + (slab->length - 1));
	struct mm_struct *mm = slab->area->mm;
	struct demand_chunk before;
	struct hmm_range range = {
		.notifier = &slab->notifier,
		.start = demand_slab_va(slab) + (iova - slab_first),
		.end = demand_slab_va(slab) + (last - slab_first) + 1,
		.hmm_pfns = pfns,
	};
	int rc;

	range.notifier_seq = mmu_interval_read_begin(&slab->notifier);
	mutex_lock(&slab->mutex);
	before = *chunk;
	mutex_unlock(&slab->mutex);
	mmap_read_lock(mm);
	rc = hmm_range_fault(&range);
	mmap_read_unlock(mm);
	if (rc)
		return rc == -EBUSY ? -EAGAIN : rc;

	down_read(&slab->area->demand->rwsem);
	mutex_lock(&slab->mutex);
	if (mmu_interval_read_retry(&slab->notifier, range.notifier_seq))
		rc = -EAGAIN;
	else
		audit_chunk(slab, chunk, &before, iova, pfns, (last - iova) / PAGE_SIZE + 1,
			    audit);
	mutex_unlock(&slab->mutex);
	up_read(&slab->area->demand->rwsem);
	return rc;
}

static int audit_area(struct iommufd_demand_area *area, unsigned long *pfns,
		      struct iommu_test_demand_audit *audit)
{
	struct demand_chunk *chunk;
	unsigned long index;
	unsigned int i;
	int rc = 0;

	if (!mmget_not_zero(area->mm))
		return 0;
	for (i = 0; i < area->n_slabs && !rc; i++) {
		xa_for_each(&area->slabs[i].chunks, index, chunk) {
			do {
				rc = fatal_signal_pending(current) ? -EINTR :
				     audit_try(&area->slabs[i], chunk, index, pfns, audit);
			} while (rc == -EAGAIN);
			if (rc)
				break;
		}
	}
	mmput_async(area->mm);
	return rc;
}

static int audit_all(struct iommufd_demand *demand, struct iommu_test_demand_audit *audit)
{
	struct iommufd_demand_area *area;
	unsigned long *pfns, next = 0;
	int rc = 0;

	pfns = kvcalloc(DEMAND_CHUNK_PAGES, sizeof(*pfns), GFP_KERNEL);
	if (!pfns)
		return -ENOMEM;
	while (!rc && (area = iommufd_demand_area_get(demand, next, ULONG_MAX))) {
		rc = audit_area(area, pfns, audit);
		next = area->range.last + 1;
		iommufd_demand_area_put(area);
	}
	kvfree(pfns);
	return rc;
}

/* IOMMU_TEST_OP_DEMAND_AUDIT; nobody unmaps an area meanwhile. */
int iommufd_test_demand_audit(struct iommufd_ucmd *ucmd)
{
	const struct iommu_test_iopf_cmd *cmd = ucmd->cmd;
	struct iommu_test_demand_audit audit = {};
	struct iommufd_ioas *ioas;
	int rc = 0;

	ioas = iommufd_get_ioas(ucmd->ictx, cmd->id);
	if (IS_ERR(ioas))
		return PTR_ERR(ioas);
	if (ioas->iopt.demand)
		rc = audit_all(ioas->iopt.demand, &audit);
	iommufd_put_object(ucmd->ictx, &ioas->obj);
	if (!rc && copy_to_user(u64_to_user_ptr(cmd->arg), &audit,
				min_t(size_t, sizeof(audit), cmd->arg_size)))
		rc = -EFAULT;
	return rc;
}
