// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory on demand: the areas of an IOAS and its page tables, as they come and go
 *
 * What is mapped, and the order of the locks, is in fault_demand_map.c.
 */
#include <linux/iommu.h>
#include <linux/iommufd.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "fault_demand.h"
#include "io_pagetable.h"

/* The first slab ends where the others begin: at a multiple of their size. */
static unsigned long slab_end(unsigned long va, unsigned long offset, unsigned long length)
{
	unsigned long next = ALIGN_DOWN(va + offset, DEMAND_SLAB_SIZE) + DEMAND_SLAB_SIZE - va;

	return min(next, length);
}

static void area_free(struct iommufd_demand_area *area)
{
	struct demand_chunk *chunk;
	unsigned long index;
	unsigned int i;

	for (i = 0; i < area->n_slabs; i++) {
		xa_for_each(&area->slabs[i].chunks, index, chunk)
			kfree(chunk);
		xa_destroy(&area->slabs[i].chunks);
		mutex_destroy(&area->slabs[i].mutex);
	}
	mmdrop(area->mm);
	iommufd_demand_put(area->demand);
	kvfree(area);
}

/**
 * iommufd_demand_area_get() - Find an area by IOVA
 * @demand: of the IOAS
 * @first: the first address that it may have
 * @last: the last one
 *
 * Context: Process context.
 *
 * Return: the first such area, with a reference, or NULL.
 */
struct iommufd_demand_area *iommufd_demand_area_get(struct iommufd_demand *demand,
						    unsigned long first, unsigned long last)
{
	struct iommufd_demand_area *area;

	spin_lock_bh(&demand->lock);
	area = demand_first_area(demand, first, last);
	if (area)
		refcount_inc(&area->refs);
	spin_unlock_bh(&demand->lock);
	return area;
}

/**
 * iommufd_demand_area_put() - Let go of an area
 * @area: the area
 *
 * Context: Process context, may sleep.
 */
void iommufd_demand_area_put(struct iommufd_demand_area *area)
{
	if (refcount_dec_and_test(&area->refs))
		area_free(area);
}

static void area_remove_notifiers(struct iommufd_demand_area *area, unsigned int n)
{
	while (n--)
		mmu_interval_notifier_remove(&area->slabs[n].notifier);
}

static int area_insert_notifiers(struct iommufd_demand_area *area)
{
	struct demand_slab *slab;
	unsigned int i;
	int rc;

	for (i = 0; i < area->n_slabs; i++) {
		slab = &area->slabs[i];
		rc = mmu_interval_notifier_insert(&slab->notifier, area->mm,
						  demand_slab_va(slab), slab->length,
						  &iommufd_demand_notifier_ops);
		if (rc) {
			area_remove_notifiers(area, i);
			return rc;
		}
	}
	return 0;
}

static struct iommufd_demand_area *area_new(unsigned long va, unsigned long length)
{
	struct iommufd_demand_area *area;
	unsigned long offset, end;
	struct demand_slab *slab;
	unsigned int n = 0;

	for (offset = 0; offset < length; offset = slab_end(va, offset, length))
		n++;
	area = kvzalloc(struct_size(area, slabs, n), GFP_KERNEL_ACCOUNT);
	if (!area)
		return NULL;

	refcount_set(&area->refs, 1);
	INIT_LIST_HEAD(&area->node);
	area->va = va;
	area->length = length;
	area->n_slabs = n;
	slab = area->slabs;
	for (offset = 0; offset < length; offset = end) {
		end = slab_end(va, offset, length);
		slab->area = area;
		slab->offset = offset;
		slab->length = end - offset;
		mutex_init(&slab->mutex);
		xa_init_flags(&slab->chunks, XA_FLAGS_ACCOUNT);
		slab++;
	}
	return area;
}

/**
 * iommufd_demand_area_alloc() - Make an area that is resolved on fault
 * @iopt: the IOAS that it will be part of
 * @mm: whose memory it is
 * @va: where it is there
 * @length: its length
 *
 * The faults will be resolved by threads of the calling process.
 *
 * Context: Process context, without any lock of iommufd.
 *
 * Return: the area, which has no IOVA yet, or an ERR_PTR: -EINVAL if it does not consist
 * of whole pages, -EFAULT if there is nothing of @mm any more, -EOVERFLOW, -ENOMEM, or
 * why there cannot be a thread.
 */
struct iommufd_demand_area *
iommufd_demand_area_alloc(struct io_pagetable *iopt, struct mm_struct *mm,
			  unsigned long va, unsigned long length)
{
	struct iommufd_demand_area *area;
	struct iommufd_demand *demand;
	struct demand_owner *owner;
	int rc;

	if (!PAGE_ALIGNED(va) || !PAGE_ALIGNED(length) || !length)
		return ERR_PTR(-EINVAL);
	if (va + length < va)
		return ERR_PTR(-EOVERFLOW);

	demand = iommufd_demand_get(iopt);
	if (IS_ERR(demand))
		return ERR_CAST(demand);
	owner = iommufd_demand_owner_get(demand);
	if (IS_ERR(owner)) {
		rc = PTR_ERR(owner);
		goto err_demand;
	}
	area = area_new(va, length);
	if (!area) {
		rc = -ENOMEM;
		goto err_owner;
	}
	if (!mmget_not_zero(mm)) {
		rc = -EFAULT;
		goto err_free;
	}
	area->mm = mm;
	rc = area_insert_notifiers(area);
	if (rc) {
		mmput_async(mm);
		goto err_free;
	}
	mmgrab(mm);
	mmput_async(mm);
	area->demand = demand;
	area->iopt = iopt;
	area->owner = owner;
	return area;

err_free:
	kvfree(area);
err_owner:
	iommufd_demand_owner_put(owner);
err_demand:
	iommufd_demand_put(demand);
	return ERR_PTR(rc);
}

/**
 * iommufd_demand_area_start() - An area has its place: its faults are resolved from now on
 * @area: the area
 * @iova: where it begins
 * @prot: IOMMU_READ, IOMMU_WRITE, ...
 *
 * Context: Process context, under io_pagetable::domains_rwsem.
 */
void iommufd_demand_area_start(struct iommufd_demand_area *area, unsigned long iova, int prot)
{
	struct iommufd_demand *demand = area->demand;

	down_write(&demand->rwsem);
	area->prot = prot;
	area->range.start = iova;
	area->range.last = iova + (area->length - 1);
	list_add_tail(&area->node, &demand->areas);
	up_write(&demand->rwsem);

	spin_lock_bh(&demand->lock);
	interval_tree_insert(&area->range, &demand->ranges);
	spin_unlock_bh(&demand->lock);
}

/**
 * iommufd_demand_area_stop() - An area goes: nothing of it is mapped any more
 * @area: the area, which may not have been started; the caller's reference goes
 *
 * Context: Process context. Waits for notifiers, but for no thread that resolves a fault.
 */
void iommufd_demand_area_stop(struct iommufd_demand_area *area)
{
	struct iommufd_demand *demand = area->demand;
	unsigned int i;

	if (!list_empty(&area->node)) {
		spin_lock_bh(&demand->lock);
		interval_tree_remove(&area->range, &demand->ranges);
		spin_unlock_bh(&demand->lock);
	}
	for (i = 0; i < area->n_slabs; i++) {
		down_read(&demand->rwsem);
		iommufd_demand_slab_clear(&area->slabs[i], true);
		up_read(&demand->rwsem);
	}
	down_write(&demand->rwsem);
	list_del_init(&area->node);
	up_write(&demand->rwsem);

	area_remove_notifiers(area, area->n_slabs);
	iommufd_demand_owner_put(area->owner);
	iommufd_demand_area_put(area);
}

/* ---- the IOAS ---- */

static struct iommufd_demand *demand_new(void)
{
	struct iommufd_demand *demand;

	demand = kzalloc_obj(*demand, GFP_KERNEL_ACCOUNT);
	if (!demand)
		return NULL;
	refcount_set(&demand->refs, 1);
	init_rwsem(&demand->rwsem);
	INIT_LIST_HEAD(&demand->domains);
	demand->pgsizes = ULONG_MAX;
	INIT_LIST_HEAD(&demand->areas);
	mutex_init(&demand->owner_mutex);
	init_waitqueue_head(&demand->settle_wait);
	spin_lock_init(&demand->lock);
	demand->ranges = RB_ROOT_CACHED;
	INIT_LIST_HEAD(&demand->owners);
	return demand;
}

/**
 * iommufd_demand_get() - Get what an IOAS has for memory on demand
 * @iopt: the IOAS; it has it from now on
 *
 * Context: Process context, without any lock of iommufd.
 *
 * Return: it, with a reference for the caller, or ERR_PTR(-ENOMEM).
 */
struct iommufd_demand *iommufd_demand_get(struct io_pagetable *iopt)
{
	struct iommufd_demand *demand = READ_ONCE(iopt->demand), *unused = NULL;

	if (!demand) {
		unused = demand_new();
		if (!unused)
			return ERR_PTR(-ENOMEM);
		down_write(&iopt->iova_rwsem);
		if (!iopt->demand)
			WRITE_ONCE(iopt->demand, no_free_ptr(unused));
		demand = iopt->demand;
		up_write(&iopt->iova_rwsem);
		kfree(unused);
	}
	refcount_inc(&demand->refs);
	return demand;
}

/**
 * iommufd_demand_put() - Let go of it
 * @demand: what an IOAS has for memory on demand
 *
 * Context: Process context, may sleep.
 */
void iommufd_demand_put(struct iommufd_demand *demand)
{
	if (!refcount_dec_and_test(&demand->refs))
		return;
	WARN_ON(!list_empty(&demand->domains) || !list_empty(&demand->areas));
	mutex_destroy(&demand->owner_mutex);
	kfree(demand);
}

/* Take everything out of @leaving, while the others keep it; without it out of all. */
static void demand_unmap(struct iommufd_demand *demand, struct iommu_domain *leaving)
{
	struct iommufd_demand_area *area;
	unsigned int i;

	lockdep_assert_held_write(&demand->rwsem);

	list_for_each_entry(area, &demand->areas, node) {
		for (i = 0; i < area->n_slabs; i++) {
			if (leaving)
				iommufd_demand_slab_leave(&area->slabs[i], leaving);
			else
				iommufd_demand_slab_clear(&area->slabs[i], false);
		}
	}
}

/*
 * A page table comes, an empty one. All page tables of an IOAS have the same entries, so
 * all are empty after this, and the devices ask again.
 */
static int demand_add_domain(struct iommufd_demand *demand, struct iommu_domain *domain)
{
	struct demand_domain *table;

	/* Else a driver could make one of them from pages that go one by one. */
	if (domain->pgsize_bitmap & (PMD_SIZE - 1) & ~(2 * PAGE_SIZE - 1))
		return -EOPNOTSUPP;

	table = kzalloc_obj(*table, GFP_KERNEL_ACCOUNT);
	if (!table)
		return -ENOMEM;
	table->domain = domain;
	down_write(&demand->rwsem);
	demand_unmap(demand, NULL);
	demand->pgsizes &= domain->pgsize_bitmap;
	list_add_tail(&table->node, &demand->domains);
	up_write(&demand->rwsem);
	return 0;
}

/**
 * iommufd_demand_join() - A HWPT is to be resolved on fault
 * @hwpt: the HWPT, to become one of the IOAS
 * @iopt: the IOAS
 *
 * Context: Process context. iommufd_demand_leave() undoes it.
 *
 * Return: 0, -EOPNOTSUPP if its page sizes are not fit for it, -ENOMEM.
 */
int iommufd_demand_join(struct iommufd_hw_pagetable *hwpt, struct io_pagetable *iopt)
{
	struct iommufd_demand *demand = iommufd_demand_get(iopt);
	int rc;

	if (IS_ERR(demand))
		return PTR_ERR(demand);
	rc = demand_add_domain(demand, hwpt->domain);
	if (rc)
		iommufd_demand_put(demand);
	else
		hwpt->demand = demand;
	return rc;
}

/**
 * iommufd_demand_leave() - A HWPT goes
 * @hwpt: the HWPT, which no device uses any more
 *
 * Context: Process context, may sleep.
 */
void iommufd_demand_leave(struct iommufd_hw_pagetable *hwpt)
{
	struct iommufd_demand *demand = hwpt->demand;
	struct demand_domain *table, *next;

	if (!demand)
		return;
	hwpt->demand = NULL;
	down_write(&demand->rwsem);
	list_for_each_entry_safe(table, next, &demand->domains, node) {
		if (table->domain != hwpt->domain)
			continue;
		demand_unmap(demand, hwpt->domain);
		list_del(&table->node);
		kfree(table);
	}
	up_write(&demand->rwsem);
	iommufd_demand_put(demand);
}

static bool demand_has_domain(struct iommufd_demand *demand, struct iommu_domain *domain)
{
	struct demand_domain *table;
	bool found = false;

	down_read(&demand->rwsem);
	list_for_each_entry(table, &demand->domains, node)
		found |= table->domain == domain;
	up_read(&demand->rwsem);
	return found;
}

/**
 * iommufd_demand_check_domain() - Look whether a page table may join an IOAS
 * @iopt: the IOAS
 * @domain: the page table
 *
 * Context: Under io_pagetable::domains_rwsem and iova_rwsem, for writing.
 *
 * Return: 0, or -EOPNOTSUPP if there are areas that are resolved on fault, but not in
 * this one.
 */
int iommufd_demand_check_domain(struct io_pagetable *iopt, struct iommu_domain *domain)
{
	struct iopt_area *area;

	if (!iopt->demand || demand_has_domain(iopt->demand, domain))
		return 0;
	for (area = iopt_area_iter_first(iopt, 0, ULONG_MAX); area;
	     area = iopt_area_iter_next(area, 0, ULONG_MAX)) {
		if (area->onfault)
			return -EOPNOTSUPP;
	}
	return 0;
}

/**
 * iommufd_demand_check_domains() - Look whether an IOAS may have areas on demand
 * @iopt: the IOAS
 *
 * Context: Under io_pagetable::domains_rwsem.
 *
 * Return: 0, or -EOPNOTSUPP if one of its page tables is not resolved on fault.
 */
int iommufd_demand_check_domains(struct io_pagetable *iopt)
{
	struct iommu_domain *domain;
	unsigned long index;

	xa_for_each(&iopt->domains, index, domain) {
		if (!demand_has_domain(iopt->demand, domain))
			return -EOPNOTSUPP;
	}
	return 0;
}
