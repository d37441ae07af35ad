// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory on demand: what is mapped of an area, and how it goes again
 *
 * An area is cut into slabs, each with an interval notifier and a mutex, and a slab
 * along the IOVA into chunks. A chunk says which pages are mapped, in all page tables
 * of the IOAS alike. No page is pinned: a page is mapped only with the slab's mutex
 * held and the sequence of its notifier unchanged since the owner's page table was
 * looked at, and goes when the notifier is called.
 *
 * Unmapped is exactly what was mapped, in whole leaves and never from their middle, and
 * never where there is a hole. The one exception is a chunk that goes as a whole while
 * it has a table of small leaves: that is one unmap, which frees the table, too.
 * IOMMU drivers do not check this, and some would clear what is not theirs.
 *
 * Locks, outermost first; the notifier may take the last two alone, as it is called
 * under most locks of memory management, and amid reclaim:
 *
 *	iommufd's: domains_rwsem, iova_rwsem
 *	the mm's, and reclaim
 *	iommufd_demand::rwsem
 *	demand_slab::mutex
 *
 * Under these two nothing is allocated that reclaims, and no mmap_lock is taken.
 */
#include <linux/hmm.h>
#include <linux/iommu.h>
#include <linux/iommufd.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "fault_demand.h"
#include "io_pagetable.h"

#define DEMAND_MAP_GFP	(GFP_NOWAIT | __GFP_ACCOUNT | __GFP_NOWARN)

static unsigned long chunk_first(unsigned long index)
{
	return index << PMD_SHIFT;
}

/* Whether all of a chunk's IOVA is in the slab; else others have entries in its tables. */
static bool chunk_is_whole(const struct demand_slab *slab, unsigned long index)
{
	unsigned long first = demand_slab_iova(slab);

	return chunk_first(index) >= first &&
	       chunk_first(index) - first + PMD_SIZE <= slab->length;
}

/* ---- unmapping ---- */

static void domain_unmap(struct iommu_domain *domain, unsigned long iova, size_t size,
			 struct iommu_iotlb_gather *gather)
{
	size_t done = iommu_unmap_fast(domain, iova, size, gather);

	WARN_ONCE(done != size, "%zu of %zu bytes were unmapped\n", done, size);
}

/*
 * Unmap what is present of the pages from @from to @to of a chunk; no bit changes. A driver
 * that walks over holes frees the table when it unmaps all of it. Another one stops at the
 * first hole, and lets a huge leaf take the place of an empty table.
 */
static void chunk_unmap(const struct demand_slab *slab, const struct demand_chunk *chunk,
			unsigned long index, unsigned int from, unsigned int to,
			struct iommu_domain *domain, struct iommu_iotlb_gather *gather)
{
	bool all = !from && to == DEMAND_CHUNK_PAGES - 1;
	unsigned int first = from, end;

	if (chunk->huge) {
		domain_unmap(domain, chunk_first(index), PMD_SIZE, gather);
		return;
	}
	if (all && chunk->table)
		first = iommu_unmap_fast(domain, chunk_first(index), PMD_SIZE, gather) / PAGE_SIZE;
	for_each_set_bitrange_from(first, end, chunk->present, to + 1)
		domain_unmap(domain, chunk_first(index) + first * PAGE_SIZE,
			     (end - first) * PAGE_SIZE, gather);
}

/* Free the table of small leaves, an empty one, of every page table. */
static void chunk_free_table(const struct demand_slab *slab, struct demand_chunk *chunk,
			     unsigned long index)
{
	struct demand_domain *table;

	if (!chunk->table)
		return;
	list_for_each_entry(table, &slab->area->demand->domains, node)
		iommu_unmap(table->domain, chunk_first(index), PMD_SIZE);
	chunk->table = false;
}

static unsigned int chunk_forget(struct demand_chunk *chunk, unsigned int from, unsigned int to)
{
	bool all = !from && to == DEMAND_CHUNK_PAGES - 1;
	unsigned int before = bitmap_weight(chunk->present, DEMAND_CHUNK_PAGES);

	if (chunk->huge || all) {
		bitmap_zero(chunk->present, DEMAND_CHUNK_PAGES);
		bitmap_zero(chunk->writable, DEMAND_CHUNK_PAGES);
		chunk->huge = false;
		chunk->table = false;
		return before;
	}
	bitmap_clear(chunk->present, from, to - from + 1);
	bitmap_clear(chunk->writable, from, to - from + 1);
	return before - bitmap_weight(chunk->present, DEMAND_CHUNK_PAGES);
}

/* A part of a slab, as chunks see it */
struct slab_part {
	unsigned long first;	/* IOVA */
	unsigned long last;
};

static unsigned int part_from(const struct slab_part *part, unsigned long index)
{
	return (max(part->first, chunk_first(index)) - chunk_first(index)) / PAGE_SIZE;
}

static unsigned int part_to(const struct slab_part *part, unsigned long index)
{
	unsigned long last = chunk_first(index) + (PMD_SIZE - 1);

	return (min(part->last, last) - chunk_first(index)) / PAGE_SIZE;
}

static bool chunk_has(const struct demand_chunk *chunk, const struct slab_part *part,
		      unsigned long index)
{
	unsigned int to = part_to(part, index);

	return find_next_bit(chunk->present, to + 1, part_from(part, index)) <= to;
}

/* Unmap a part of a slab in one page table, and flush. */
static void slab_unmap_domain(struct demand_slab *slab, const struct slab_part *part,
			      struct iommu_domain *domain)
{
	struct iommu_iotlb_gather gather;
	struct demand_chunk *chunk;
	unsigned long index;

	iommu_iotlb_gather_init(&gather);
	xa_for_each_range(&slab->chunks, index, chunk, part->first >> PMD_SHIFT,
			  part->last >> PMD_SHIFT) {
		if (chunk_has(chunk, part, index))
			chunk_unmap(slab, chunk, index, part_from(part, index),
				    part_to(part, index), domain, &gather);
	}
	iommu_iotlb_sync(domain, &gather);
	iommufd_demand_count(slab->area->demand, DEMAND_FLUSHES, 1);
}

/*
 * Unmap what is present of a part of a slab, from all page tables and from the TLBs of
 * the devices. Returns how many pages that were. A huge leaf goes as a whole.
 */
static unsigned int slab_unmap(struct demand_slab *slab, const struct slab_part *part)
{
	struct demand_domain *table;
	struct demand_chunk *chunk;
	unsigned int pages = 0;
	unsigned long index;

	lockdep_assert_held(&slab->mutex);
	lockdep_assert_held(&slab->area->demand->rwsem);

	xa_for_each_range(&slab->chunks, index, chunk, part->first >> PMD_SHIFT,
			  part->last >> PMD_SHIFT)
		pages += chunk_has(chunk, part, index);
	if (!pages)
		return 0;

	list_for_each_entry(table, &slab->area->demand->domains, node)
		slab_unmap_domain(slab, part, table->domain);

	pages = 0;
	xa_for_each_range(&slab->chunks, index, chunk, part->first >> PMD_SHIFT,
			  part->last >> PMD_SHIFT) {
		if (chunk_has(chunk, part, index))
			pages += chunk_forget(chunk, part_from(part, index),
					      part_to(part, index));
	}
	return pages;
}

static struct slab_part slab_all(const struct demand_slab *slab)
{
	unsigned long first = demand_slab_iova(slab);

	return (struct slab_part){ first, first + (slab->length - 1) };
}

/* Memory of the owner goes, or changes. */
static bool slab_invalidate(struct mmu_interval_notifier *notifier,
			    const struct mmu_notifier_range *range, unsigned long seq)
{
	struct demand_slab *slab = container_of(notifier, struct demand_slab, notifier);
	unsigned long va = demand_slab_va(slab), iova = demand_slab_iova(slab);
	struct iommufd_demand *demand = slab->area->demand;
	struct slab_part part;
	unsigned int pages;

	/* The OOM reaper does not wait, and comes again. */
	if (mmu_notifier_range_blockable(range)) {
		down_read(&demand->rwsem);
		mutex_lock(&slab->mutex);
	} else if (!down_read_trylock(&demand->rwsem)) {
		return false;
	} else if (!mutex_trylock(&slab->mutex)) {
		up_read(&demand->rwsem);
		return false;
	}

	mmu_interval_set_seq(notifier, seq);
	part.first = iova + (max(range->start, va) - va);
	part.last = iova + (min(range->end, va + slab->length) - 1 - va);
	pages = slab_unmap(slab, &part);
	if (pages) {
		iommufd_demand_count(demand, DEMAND_STEALS, 1);
		iommufd_demand_count(demand, DEMAND_STOLEN, pages);
	}
	mutex_unlock(&slab->mutex);
	up_read(&demand->rwsem);
	return true;
}

const struct mmu_interval_notifier_ops iommufd_demand_notifier_ops = {
	.invalidate = slab_invalidate,
};

/* Free the tables of small leaves that are empty; a new page table does not have them. */
static void slab_free_tables(struct demand_slab *slab)
{
	struct demand_chunk *chunk;
	unsigned long index;

	xa_for_each(&slab->chunks, index, chunk)
		chunk_free_table(slab, chunk, index);
}

/**
 * iommufd_demand_slab_clear() - Take everything of a slab out of all page tables
 * @slab: the slab
 * @dead: nothing is mapped any more
 *
 * Context: Process context, under &iommufd_demand.rwsem. May sleep.
 */
void iommufd_demand_slab_clear(struct demand_slab *slab, bool dead)
{
	struct slab_part part = slab_all(slab);

	mutex_lock(&slab->mutex);
	slab->dead |= dead;
	slab_unmap(slab, &part);
	slab_free_tables(slab);
	mutex_unlock(&slab->mutex);
}

/**
 * iommufd_demand_slab_leave() - Take everything of a slab out of one page table
 * @slab: the slab; the other page tables keep what they have
 * @domain: the page table, which goes
 *
 * Context: Under &iommufd_demand.rwsem for writing.
 */
void iommufd_demand_slab_leave(struct demand_slab *slab, struct iommu_domain *domain)
{
	struct slab_part part = slab_all(slab);

	lockdep_assert_held_write(&slab->area->demand->rwsem);
	slab_unmap_domain(slab, &part, domain);
}

/* ---- mapping ---- */

/**
 * iommufd_demand_make_chunk() - Make the chunk of a page, if it is not there
 * @slab: the slab
 * @iova: the page
 *
 * Context: Process context, without the locks of this file.
 *
 * Return: 0 or -ENOMEM.
 */
int iommufd_demand_make_chunk(struct demand_slab *slab, unsigned long iova)
{
	unsigned long index = iova >> PMD_SHIFT;
	struct demand_chunk *chunk;
	int rc;

	if (likely(xa_load(&slab->chunks, index)))
		return 0;
	chunk = kzalloc_obj(*chunk, GFP_KERNEL_ACCOUNT);
	if (!chunk)
		return -ENOMEM;
	rc = xa_insert(&slab->chunks, index, chunk, GFP_KERNEL_ACCOUNT);
	if (rc)
		kfree(chunk);
	return rc == -EBUSY ? 0 : rc;
}

static bool chunk_serves(const struct demand_chunk *chunk, unsigned int page, bool write)
{
	return test_bit(page, write ? chunk->writable : chunk->present);
}

static unsigned int chunk_page(unsigned long iova)
{
	return (iova & ~PMD_MASK) / PAGE_SIZE;
}

/**
 * iommufd_demand_present() - Look whether a page is mapped
 * @slab: the slab
 * @iova: the page
 * @write: for writing
 *
 * Context: Process context, may sleep.
 *
 * Return: true if it was mapped a moment ago.
 */
bool iommufd_demand_present(struct demand_slab *slab, unsigned long iova, bool write)
{
	struct demand_chunk *chunk;
	bool present;

	mutex_lock(&slab->mutex);
	chunk = xa_load(&slab->chunks, iova >> PMD_SHIFT);
	present = chunk && chunk_serves(chunk, chunk_page(iova), write);
	mutex_unlock(&slab->mutex);
	return present;
}

/* Map in all page tables of the IOAS, or in none. */
static int map_all(struct iommufd_demand *demand, unsigned long iova, phys_addr_t phys,
		   size_t size, int prot)
{
	struct demand_domain *table;
	int rc;

	list_for_each_entry(table, &demand->domains, node) {
		rc = iommu_map(table->domain, iova, phys, size, prot, DEMAND_MAP_GFP);
		if (rc)
			goto err_unmap;
	}
	return 0;

err_unmap:
	list_for_each_entry_continue_reverse(table, &demand->domains, node)
		iommu_unmap(table->domain, iova, size);
	return rc;
}

/*
 * The device may write from now on, and nobody is told when it does. This cannot come too
 * late: the pages stay in the owner's page table as long as the notifier waits for the
 * slab's mutex. Whoever cleans a page calls the notifier first, too.
 */
static void mark_dirty(unsigned long pfn, unsigned int n)
{
	/* A filesystem may allocate here; reclaim would wait for our mutex. */
	unsigned int flags = memalloc_noreclaim_save();
	unsigned long end = pfn + n;
	struct folio *folio;

	while (pfn < end) {
		folio = page_folio(pfn_to_page(pfn));
		folio_mark_dirty(folio);
		/* Where it is may be in the flags, others of which may change meanwhile. */
		pfn = data_race(folio_pfn(folio)) + folio_nr_pages(folio);
	}
	memalloc_noreclaim_restore(flags);
}

static int map_prot(const struct demand_slab *slab, bool write)
{
	return write ? slab->area->prot : slab->area->prot & ~IOMMU_WRITE;
}

/* Whether the owner has a huge page there that fits one leaf of every page table */
static bool can_map_huge(const struct demand_slab *slab, unsigned long iova, unsigned long pfn)
{
	unsigned long va = demand_slab_va(slab) + (iova - demand_slab_iova(slab));

	return hmm_pfn_to_map_order(pfn) >= PMD_SHIFT - PAGE_SHIFT &&
	       slab->area->demand->pgsizes & PMD_SIZE &&
	       chunk_is_whole(slab, iova >> PMD_SHIFT) &&
	       !((va ^ iova) & ~PMD_MASK) &&
	       !(((pfn & ~HMM_PFN_FLAGS) ^ (iova >> PAGE_SHIFT)) % DEMAND_CHUNK_PAGES) &&
	       !READ_ONCE(slab->area->iopt->disable_large_pages);
}

static int map_huge(struct demand_slab *slab, struct demand_chunk *chunk, unsigned long iova,
		    unsigned long pfn, bool write)
{
	unsigned long index = iova >> PMD_SHIFT, first = chunk_first(index);
	const struct slab_part part = { first, first + (PMD_SIZE - 1) };
	struct iommufd_demand *demand = slab->area->demand;
	int rc;

	if (slab_unmap(slab, &part))
		iommufd_demand_count(demand, DEMAND_UPGRADED, 1);
	/* It must be gone before the leaf takes its place. */
	chunk_free_table(slab, chunk, index);
	rc = map_all(demand, first,
		     PFN_PHYS(ALIGN_DOWN(pfn & ~HMM_PFN_FLAGS, DEMAND_CHUNK_PAGES)), PMD_SIZE,
		     map_prot(slab, write));
	if (rc)
		return rc;
	chunk->huge = true;
	bitmap_fill(chunk->present, DEMAND_CHUNK_PAGES);
	if (write) {
		bitmap_fill(chunk->writable, DEMAND_CHUNK_PAGES);
		mark_dirty(pfn & ~HMM_PFN_FLAGS, 1);
	}
	iommufd_demand_count(demand, DEMAND_HUGE, 1);
	return 0;
}

/* The part of the owner's page table that is looked at together, in one chunk */
struct map_window {
	struct demand_slab *slab;
	struct demand_chunk *chunk;
	unsigned long first;	/* IOVA */
	const unsigned long *pfns;
	unsigned int n;
	bool write;
};

/* How a page of a window is to be mapped; 0 if it cannot be */
static int window_prot(const struct map_window *w, unsigned int i)
{
	unsigned long pfn = w->pfns[i];
	int prot = map_prot(w->slab, w->write && pfn & HMM_PFN_WRITE);

	if ((pfn & (HMM_PFN_VALID | HMM_PFN_ERROR)) != HMM_PFN_VALID)
		return 0;
	/* an area that is not for reading */
	return prot & (IOMMU_READ | IOMMU_WRITE) ? prot : 0;
}

/* The pages from the @i-th on that are not mapped, and one piece of physical memory */
static unsigned int window_run(const struct map_window *w, unsigned int i)
{
	unsigned int page = chunk_page(w->first), n = 1;
	unsigned int end = find_next_bit(w->chunk->present, page + w->n, page + i) - page;

	/* The flags are in there, too: they are alike in all of them. */
	while (i + n < end && w->pfns[i + n] == w->pfns[i] + n)
		n++;
	return n;
}

static int map_run(const struct map_window *w, unsigned int i, unsigned int n, int prot)
{
	unsigned long pfn = w->pfns[i] & ~HMM_PFN_FLAGS;
	unsigned int page = chunk_page(w->first) + i;
	int rc;

	rc = map_all(w->slab->area->demand, w->first + i * PAGE_SIZE, PFN_PHYS(pfn),
		     n * PAGE_SIZE, prot);
	if (rc)
		return rc;
	bitmap_set(w->chunk->present, page, n);
	if (prot & IOMMU_WRITE) {
		bitmap_set(w->chunk->writable, page, n);
		mark_dirty(pfn, n);
	}
	return 0;
}

/*
 * Map the page that is asked for, and the others as far as they are there and not mapped,
 * as many at a time as lie together. It is no harm if one of the others is not.
 */
static int map_window(const struct map_window *w, unsigned int asked)
{
	unsigned int page = chunk_page(w->first), done = 0, i, n;
	struct iommufd_demand *demand = w->slab->area->demand;
	int prot, rc = 0;

	if (test_bit(page + asked, w->chunk->present)) {
		unsigned long iova = w->first + asked * PAGE_SIZE;

		slab_unmap(w->slab, &(struct slab_part){ iova, iova + (PAGE_SIZE - 1) });
		iommufd_demand_count(demand, DEMAND_UPGRADED, 1);
	}
	for (i = 0; i < w->n && !rc; i += n) {
		n = 1;
		prot = window_prot(w, i);
		if (!prot || test_bit(page + i, w->chunk->present))
			continue;
		n = window_run(w, i);
		rc = map_run(w, i, n, prot);
		if (!rc)
			done += n;
	}
	if (done)
		w->chunk->table = chunk_is_whole(w->slab, w->first >> PMD_SHIFT) &&
				  demand->pgsizes & PMD_SIZE;
	if (!test_bit(page + asked, w->chunk->present)) {
		iommufd_demand_count(demand, DEMAND_AROUND, done);
		return rc ?: -EACCES;
	}
	iommufd_demand_count(demand, DEMAND_PAGES, 1);
	iommufd_demand_count(demand, DEMAND_AROUND, done - 1);
	return 0;
}

/**
 * iommufd_demand_map() - Map a page that a device asks for, and its neighbours
 * @slab: the slab
 * @iova: the page
 * @write: for writing
 * @seq: of the notifier, from before @pfns was filled
 * @first: IOVA of the first page of a window that is in one chunk of the slab
 * @pfns: the owner's page table there, as of hmm_range_fault()
 * @n: number of pages in the window; that at @iova is good for @write
 *
 * Context: Process context, without mmap_lock. May sleep.
 *
 * Return: 0, -EAGAIN if @pfns is not true any more, -ENOMEM if there is no memory for
 * the page table without reclaim, -ENOENT if the area is dead, or what the IOMMU driver
 * says.
 */
int iommufd_demand_map(struct demand_slab *slab, unsigned long iova, bool write,
		       unsigned long seq, unsigned long first, const unsigned long *pfns,
		       unsigned int n)
{
	struct map_window w = {
		.slab = slab, .first = first, .pfns = pfns, .n = n, .write = write,
	};
	struct iommufd_demand *demand = slab->area->demand;
	unsigned int asked = (iova - first) / PAGE_SIZE;
	int rc = 0;

	down_read(&demand->rwsem);
	mutex_lock(&slab->mutex);
	if (slab->dead) {
		rc = -ENOENT;
		goto out_unlock;
	}
	if (mmu_interval_read_retry(&slab->notifier, seq)) {
		rc = -EAGAIN;
		goto out_unlock;
	}

	w.chunk = xa_load(&slab->chunks, iova >> PMD_SHIFT);
	if (chunk_serves(w.chunk, chunk_page(iova), write))
		iommufd_demand_count(demand, DEMAND_PRESENT, 1);
	else if (can_map_huge(slab, iova, pfns[asked]))
		rc = map_huge(slab, w.chunk, iova, pfns[asked], write);
	else
		rc = map_window(&w, asked);

out_unlock:
	mutex_unlock(&slab->mutex);
	up_read(&demand->rwsem);
	return rc;
}
