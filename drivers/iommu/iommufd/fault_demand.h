/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory on demand: areas of an IOAS that the kernel maps as devices ask for them
 *
 * See Documentation/driver-api/iopf-on-demand.rst for the storage and the locks.
 */
#ifndef __IOMMUFD_FAULT_DEMAND_H
#define __IOMMUFD_FAULT_DEMAND_H

#include <linux/bitmap.h>
#include <linux/interval_tree.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/sizes.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "../iommu-priv.h"

struct io_pagetable;
struct iommufd_attachment;
struct iommufd_hw_pagetable;
struct seq_file;
struct vhost_task;

/* What a chunk covers: as much as a huge page of the CPU */
#define DEMAND_CHUNK_PAGES	(PMD_SIZE / PAGE_SIZE)
/* The most that is covered by one notifier */
#define DEMAND_SLAB_SIZE	SZ_1G
/* Pages around the one that is asked for, which are mapped as well if they are there */
#define DEMAND_WINDOW		16UL
/* Threads of each owner; more than one is used while others wait for a page */
#define DEMAND_THREADS		4
/* Groups that are answered together */
#define DEMAND_BATCH		16

/**
 * enum iommufd_demand_counter - What has happened to the areas of an IOAS
 * @DEMAND_GROUPS: groups that were answered SUCCESS
 * @DEMAND_POLLED: times that a thread was still awake when a group came
 * @DEMAND_PAGES: pages that were mapped because a device asked for them
 * @DEMAND_AROUND: pages that were mapped as they were there and near to such a page
 * @DEMAND_HUGE: huge pages that were mapped
 * @DEMAND_PRESENT: requests whose page was mapped already
 * @DEMAND_UPGRADED: pages that were mapped for reading, and now for writing
 * @DEMAND_FAULTED: pages that the owner did not have at hand: its fault was handled
 * @DEMAND_RETRIED: requests that were stolen from again and again: the device was told
 *                  to ask again
 * @DEMAND_NO_MEMORY: times that memory for an I/O page table was missing
 * @DEMAND_PASSED_ON: groups that the fault queue got, as the kernel could not resolve them
 * @DEMAND_REFUSED: groups that were answered INVALID, as there was no queue either
 * @DEMAND_OUTSIDE: groups that asked for no area on demand: they go where faults go
 *                  without one. What is pinned beside the areas is never asked for.
 * @DEMAND_DROPPED: groups that were detached, recalled or removed before that
 * @DEMAND_STEALS: invalidations that found something mapped
 * @DEMAND_STOLEN: pages that they took out
 * @DEMAND_FLUSHES: times that entries were flushed from the TLBs of a page table
 * @DEMAND_NR_COUNTERS: number of counters
 */
enum iommufd_demand_counter {
	DEMAND_GROUPS,
	DEMAND_POLLED,
	DEMAND_PAGES,
	DEMAND_AROUND,
	DEMAND_HUGE,
	DEMAND_PRESENT,
	DEMAND_UPGRADED,
	DEMAND_FAULTED,
	DEMAND_RETRIED,
	DEMAND_NO_MEMORY,
	DEMAND_PASSED_ON,
	DEMAND_REFUSED,
	DEMAND_OUTSIDE,
	DEMAND_DROPPED,
	DEMAND_STEALS,
	DEMAND_STOLEN,
	DEMAND_FLUSHES,
	DEMAND_NR_COUNTERS,
};

/**
 * struct iommufd_demand - The areas of an IOAS that are resolved on fault
 * @refs: one for the IOAS, each HWPT, each area and each owner
 * @rwsem: protects @domains, @pgsizes and @areas: who changes one of them has it for
 *         writing, who maps or unmaps for reading
 * @domains: struct demand_domain: the page tables that all have the same entries
 * @pgsizes: page sizes that all of them have had since the first one came
 * @areas: the areas
 * @owner_mutex: one owner is made at a time
 * @settle_wait: woken when an attachment may have no group here any more
 * @lock: protects all below, the lists of the owners, and &iommufd_attachment.resolving
 * @ranges: the areas by IOVA
 * @owners: the owners
 * @counters: by enum iommufd_demand_counter
 */
struct iommufd_demand {
	refcount_t refs;
	struct rw_semaphore rwsem;
	struct list_head domains;
	unsigned long pgsizes;
	struct list_head areas;
	struct mutex owner_mutex;	/* one owner is made at a time */
	wait_queue_head_t settle_wait;

	spinlock_t lock;	/* all below */
	struct rb_root_cached ranges;
	struct list_head owners;

	atomic64_t counters[DEMAND_NR_COUNTERS];
};

/**
 * struct demand_domain - A page table of the IOAS
 * @node: node in &iommufd_demand.domains
 * @domain: the page table
 */
struct demand_domain {
	struct list_head node;
	struct iommu_domain *domain;
};

/**
 * struct demand_thread - A thread that resolves faults
 * @owner: whose thread it is
 * @task: the thread
 * @idle: it sleeps, and is woken for a group
 */
struct demand_thread {
	struct demand_owner *owner;
	struct vhost_task *task;
	bool idle;
};

/**
 * struct demand_owner - The threads of a process that has mapped areas
 * @node: node in &iommufd_demand.owners
 * @demand: the IOAS; holds a reference
 * @mm: that of the process, to be compared only
 * @end_work: stops the threads
 * @areas: number of areas that the process has mapped. Like all below it is protected
 *         by &iommufd_demand.lock.
 * @gone: nothing is queued any more: the process has ended, or the last area has
 * @ended: @end_work is queued
 * @active: number of threads that are awake, and not waiting for the owner's memory
 * @queued: groups that no thread has taken, oldest first
 * @busy: groups that a thread works on
 * @threads: the threads
 * @poll: the last group came soon after @rested. Like that one it is a hint, and may be
 *        read without the lock.
 * @rested: when a thread had nothing left to do, by local_clock()
 */
struct demand_owner {
	struct list_head node;
	struct iommufd_demand *demand;
	struct mm_struct *mm;
	struct work_struct end_work;

	unsigned int areas;
	bool gone;
	bool ended;
	unsigned int active;
	struct list_head queued;
	struct list_head busy;
	struct demand_thread threads[DEMAND_THREADS];

	bool poll;
	u64 rested;
};

/**
 * struct demand_chunk - What is mapped of an aligned huge page's worth of IOVA
 * @huge: by one leaf; else by leaves of PAGE_SIZE
 * @table: there is a table of such leaves in all page tables, maybe an empty one
 * @present: the pages that are mapped
 * @writable: those of them that are mapped for writing
 */
struct demand_chunk {
	bool huge;
	bool table;
	DECLARE_BITMAP(present, DEMAND_CHUNK_PAGES);
	DECLARE_BITMAP(writable, DEMAND_CHUNK_PAGES);
};

/**
 * struct demand_slab - A part of an area with a notifier of its own
 * @notifier: called before the owner's pages go, or change
 * @area: the area
 * @offset: where the slab begins in the area
 * @length: its length
 * @mutex: protects the chunks; with it held and the sequence of @notifier unchanged,
 *         what was seen of the owner's page table is true
 * @dead: the area is unmapped: nothing is mapped any more
 * @chunks: struct demand_chunk by IOVA / PMD_SIZE; none goes before the area
 */
struct demand_slab {
	struct mmu_interval_notifier notifier;
	struct iommufd_demand_area *area;
	unsigned long offset;
	unsigned long length;
	struct mutex mutex;	/* the chunks */
	bool dead;
	struct xarray chunks;
};

/**
 * struct iommufd_demand_area - An area that is resolved on fault
 * @refs: one for its &struct iopt_area, one for each thread that works on it
 * @demand: the IOAS; holds a reference
 * @iopt: the same; valid unless the area is dead
 * @owner: whose threads resolve its faults
 * @mm: whose memory it is; holds a reference of the structure
 * @va: where it is there
 * @length: its length
 * @range: node in &iommufd_demand.ranges, once it has an IOVA
 * @node: node in &iommufd_demand.areas, once it has an IOVA
 * @prot: IOMMU_READ, IOMMU_WRITE, ...
 * @n_slabs: number of @slabs
 * @slabs: all but the first begin at a multiple of DEMAND_SLAB_SIZE of the owner's
 */
struct iommufd_demand_area {
	refcount_t refs;
	struct iommufd_demand *demand;
	struct io_pagetable *iopt;
	struct demand_owner *owner;
	struct mm_struct *mm;
	unsigned long va;
	unsigned long length;
	struct interval_tree_node range;
	struct list_head node;
	int prot;
	unsigned int n_slabs;
	struct demand_slab slabs[] __counted_by(n_slabs);
};

/**
 * struct demand_batch - Groups that a thread has claimed, to be answered together
 * @thread: the thread
 * @n: number of @answers
 * @answers: the groups, and what their devices are told
 */
struct demand_batch {
	struct demand_thread *thread;
	unsigned int n;
	struct iopf_answer answers[DEMAND_BATCH];
};

static inline void iommufd_demand_count(struct iommufd_demand *demand,
					enum iommufd_demand_counter counter, s64 n)
{
	atomic64_add(n, &demand->counters[counter]);
}

static inline struct iommufd_demand *demand_of_batch(const struct demand_batch *batch)
{
	return batch->thread->owner->demand;
}

/* The first area that has an address from @first to @last */
static inline struct iommufd_demand_area *
demand_first_area(struct iommufd_demand *demand, unsigned long first, unsigned long last)
{
	struct interval_tree_node *node;

	lockdep_assert_held(&demand->lock);

	node = interval_tree_iter_first(&demand->ranges, first, last);
	return node ? container_of(node, struct iommufd_demand_area, range) : NULL;
}

static inline unsigned long demand_slab_iova(const struct demand_slab *slab)
{
	return slab->area->range.start + slab->offset;
}

static inline unsigned long demand_slab_va(const struct demand_slab *slab)
{
	return slab->area->va + slab->offset;
}

/* fault_demand_area.c: areas and page tables */
struct iommufd_demand *iommufd_demand_get(struct io_pagetable *iopt);
void iommufd_demand_put(struct iommufd_demand *demand);
int iommufd_demand_join(struct iommufd_hw_pagetable *hwpt, struct io_pagetable *iopt);
void iommufd_demand_leave(struct iommufd_hw_pagetable *hwpt);
int iommufd_demand_check_domain(struct io_pagetable *iopt, struct iommu_domain *domain);
int iommufd_demand_check_domains(struct io_pagetable *iopt);
struct iommufd_demand_area *
iommufd_demand_area_alloc(struct io_pagetable *iopt, struct mm_struct *mm,
			  unsigned long va, unsigned long length);
void iommufd_demand_area_start(struct iommufd_demand_area *area, unsigned long iova, int prot);
void iommufd_demand_area_stop(struct iommufd_demand_area *area);
struct iommufd_demand_area *iommufd_demand_area_get(struct iommufd_demand *demand,
						    unsigned long first, unsigned long last);
void iommufd_demand_area_put(struct iommufd_demand_area *area);

/* fault_demand_map.c: what is mapped, and how it goes again */
extern const struct mmu_interval_notifier_ops iommufd_demand_notifier_ops;
void iommufd_demand_slab_clear(struct demand_slab *slab, bool dead);
void iommufd_demand_slab_leave(struct demand_slab *slab, struct iommu_domain *domain);
bool iommufd_demand_present(struct demand_slab *slab, unsigned long iova, bool write);
int iommufd_demand_make_chunk(struct demand_slab *slab, unsigned long iova);
int iommufd_demand_map(struct demand_slab *slab, unsigned long iova, bool write,
		       unsigned long seq, unsigned long first, const unsigned long *pfns,
		       unsigned int n);

/* fault_demand.c: groups, from the fault core to the answer */
int iommufd_demand_iopf_handler(struct iopf_group *group);
int iommufd_demand_offer(struct iommufd_hw_pagetable *hwpt);
void iommufd_demand_flush(struct demand_batch *batch);
void iommufd_demand_finish(struct demand_batch *batch, struct iopf_group *group, int rc);
void iommufd_demand_settle(struct iommufd_demand *demand, struct iommufd_attachment *attachment,
			   enum iommu_page_response_code code);
void iommufd_demand_show(struct seq_file *m, u32 ioas_id, struct iommufd_demand *demand);

/* fault_demand_thread.c: the threads that handle the faults */
struct demand_owner *iommufd_demand_owner_get(struct iommufd_demand *demand);
void iommufd_demand_owner_put(struct demand_owner *owner);
void iommufd_demand_wake(struct demand_owner *owner);
int iommufd_demand_init(void);
void iommufd_demand_exit(void);

#endif
