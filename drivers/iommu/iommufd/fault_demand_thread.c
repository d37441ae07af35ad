// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory on demand: the threads that handle the faults, and how they do it
 *
 * The threads are part of the process that has mapped the area: memory and time are
 * charged to it, its limits apply, and they end with it. A fault is handled with no lock
 * of ours held, so that it may change the owner's page table, call our notifier and sleep
 * as it likes. Afterwards the page table is looked at, and what is there is mapped if the
 * sequence of the notifier says that it is still so; else all is done again.
 */
#include <linux/hmm.h>
#include <linux/iommu.h>
#include <linux/iommufd.h>
#include <linux/module.h>
#include <linux/sched/clock.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/sched/vhost_task.h>
#include <linux/slab.h>

#include "iommufd_private.h"

/* How often a request is tried before its device is told to ask again */
#define DEMAND_TRIES	8

static struct workqueue_struct *demand_wq;

static unsigned int demand_poll_us = 50;
module_param(demand_poll_us, uint, 0644);
MODULE_PARM_DESC(demand_poll_us,
		 "Memory on demand: microseconds that a thread looks for a fault before it sleeps, 0 for none (50)");

/* ---- resolving ---- */

/* The thread may sleep for long: it answers what it has, and others take the list. */
static void batch_pause(struct demand_batch *batch)
{
	struct demand_owner *owner = batch->thread->owner;

	iommufd_demand_flush(batch);
	spin_lock_bh(&owner->demand->lock);
	owner->active--;
	if (!list_empty(&owner->queued))
		iommufd_demand_wake(owner);
	spin_unlock_bh(&owner->demand->lock);
}

static void batch_resume(struct demand_batch *batch)
{
	struct demand_owner *owner = batch->thread->owner;

	spin_lock_bh(&owner->demand->lock);
	owner->active++;
	spin_unlock_bh(&owner->demand->lock);
}

/* What a request asks for, as far as it is seen */
struct demand_request {
	struct demand_slab *slab;
	unsigned long iova;
	bool write;
	bool handled;		/* the owner's fault was, and went well */
	unsigned long seq;
	unsigned long first;	/* IOVA of the window */
	unsigned int n;		/* its pages */
	unsigned long pfns[DEMAND_WINDOW];
};

static unsigned long request_va(const struct demand_request *rq, unsigned long iova)
{
	return demand_slab_va(rq->slab) + (iova - demand_slab_iova(rq->slab));
}

/* The pages around, without leaving the chunk or the slab */
static void request_set_window(struct demand_request *rq)
{
	unsigned long slab_first = demand_slab_iova(rq->slab), last;

	rq->first = max(ALIGN_DOWN(rq->iova, DEMAND_WINDOW * PAGE_SIZE), slab_first);
	last = min(ALIGN_DOWN(rq->iova, DEMAND_WINDOW * PAGE_SIZE) +
		   (DEMAND_WINDOW * PAGE_SIZE - 1), slab_first + (rq->slab->length - 1));
	rq->n = (last - rq->first) / PAGE_SIZE + 1;
}

/* Look at the owner's page table, without a fault. */
static int request_look(struct demand_request *rq)
{
	struct mm_struct *mm = rq->slab->area->mm;
	struct hmm_range range = {
		.notifier = &rq->slab->notifier,
		.start = request_va(rq, rq->first),
		.end = request_va(rq, rq->first) + rq->n * PAGE_SIZE,
		.hmm_pfns = rq->pfns,
	};
	unsigned long pfn;
	int rc;

	rq->seq = mmu_interval_read_begin(&rq->slab->notifier);
	range.notifier_seq = rq->seq;
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	rc = hmm_range_fault(&range);
	mmap_read_unlock(mm);
	if (rc)
		return rc == -EBUSY ? -EAGAIN : rc;

	pfn = rq->pfns[(rq->iova - rq->first) / PAGE_SIZE];
	/* Such as memory of devices: to handle the fault does not help. */
	if (pfn & HMM_PFN_ERROR)
		return rq->handled ? -EFAULT : -ENODATA;
	if (!(pfn & HMM_PFN_VALID) || (rq->write && !(pfn & HMM_PFN_WRITE)))
		return -ENODATA;
	return 0;
}

/* Handle the owner's fault, as if the owner itself had it. */
static int request_handle(struct demand_batch *batch, struct demand_request *rq)
{
	struct mm_struct *mm = rq->slab->area->mm;
	unsigned int flags = FAULT_FLAG_REMOTE;
	bool unlocked = false;
	int rc;

	if (rq->write)
		flags |= FAULT_FLAG_WRITE;
	iommufd_demand_count(demand_of_batch(batch), DEMAND_FAULTED, 1);
	batch_pause(batch);
	rc = mmap_read_lock_killable(mm);
	if (!rc) {
		rc = fixup_user_fault(mm, request_va(rq, rq->iova), flags, &unlocked);
		mmap_read_unlock(mm);
	}
	batch_resume(batch);
	rq->handled = !rc;
	return rc ?: -EAGAIN;
}

/* One try to map a page: 0, -EAGAIN to be called again, or why it cannot be */
static int request_try(struct demand_batch *batch, struct demand_request *rq)
{
	int rc;

	rc = request_look(rq);
	if (rc == -ENODATA)
		return request_handle(batch, rq);
	if (rc)
		return rc;
	return iommufd_demand_map(rq->slab, rq->iova, rq->write, rq->seq, rq->first, rq->pfns,
				  rq->n);
}

/* No memory without reclaim: so reclaim, in the owner's name. */
static void demand_reclaim(struct demand_batch *batch)
{
	struct page *page;

	iommufd_demand_count(demand_of_batch(batch), DEMAND_NO_MEMORY, 1);
	batch_pause(batch);
	page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (page)
		__free_page(page);
	else
		schedule_timeout_killable(msecs_to_jiffies(10));
	batch_resume(batch);
}

static int request_resolve(struct demand_batch *batch, struct demand_request *rq)
{
	struct iommufd_demand *demand = demand_of_batch(batch);
	unsigned int tries;
	int rc;

	if (iommufd_demand_present(rq->slab, rq->iova, rq->write)) {
		iommufd_demand_count(demand, DEMAND_PRESENT, 1);
		return 0;
	}
	for (tries = 0; tries < DEMAND_TRIES; tries++) {
		rc = iommufd_demand_make_chunk(rq->slab, rq->iova);
		if (!rc)
			rc = request_try(batch, rq);
		if (rc == -ENOMEM)
			demand_reclaim(batch);
		else if (rc != -EAGAIN)
			return rc;
		if (fatal_signal_pending(current))
			return -EINTR;
	}
	iommufd_demand_count(demand, DEMAND_RETRIED, 1);
	return 0;
}

static bool area_permits(const struct iommufd_demand_area *area, u32 perm)
{
	if (perm & IOMMU_FAULT_PERM_EXEC)
		return false;
	if (perm & IOMMU_FAULT_PERM_WRITE && !(area->prot & IOMMU_WRITE))
		return false;
	return !(perm & IOMMU_FAULT_PERM_READ) || area->prot & IOMMU_READ;
}

static struct demand_slab *area_slab(struct iommufd_demand_area *area, unsigned long iova)
{
	struct demand_slab *slab = area->slabs;

	/* The first one is shorter, all others but the last have one size. */
	if (iova - area->range.start >= slab->length)
		slab += 1 + (iova - area->range.start - slab->length) / DEMAND_SLAB_SIZE;
	return slab;
}

/* Returns 0 if the device is to try again, or why that would be in vain. */
static int demand_resolve(struct demand_batch *batch, const struct iommu_fault_page_request *prm)
{
	struct iommufd_demand_area *area;
	struct demand_request rq;
	int rc = -EACCES;

	/* The window is filled in when it is looked at. */
	rq.iova = prm->addr & PAGE_MASK;
	rq.write = prm->perm & IOMMU_FAULT_PERM_WRITE;
	rq.handled = false;
	area = iommufd_demand_area_get(demand_of_batch(batch), rq.iova, rq.iova);
	if (!area)
		return -ENOENT;
	if (!area_permits(area, prm->perm))
		goto out_put;

	rc = -EFAULT;
	if (area->mm != current->mm && !mmget_not_zero(area->mm))
		goto out_put;
	rq.slab = area_slab(area, rq.iova);
	request_set_window(&rq);
	rc = request_resolve(batch, &rq);
	if (area->mm != current->mm)
		mmput_async(area->mm);

out_put:
	iommufd_demand_area_put(area);
	return rc;
}

/* All requests of a group, until one cannot be resolved */
static void demand_resolve_group(struct demand_batch *batch, struct iopf_group *group)
{
	struct iopf_fault *iopf;
	int rc = 0;

	list_for_each_entry(iopf, &group->faults, list) {
		rc = demand_resolve(batch, &iopf->fault.prm);
		if (rc)
			break;
	}
	iommufd_demand_finish(batch, group, rc);
}

/* ---- threads ---- */

static u64 poll_ns(void)
{
	return (u64)READ_ONCE(demand_poll_us) * NSEC_PER_USEC;
}

/*
 * A device whose answer lets it go on often has its next fault at once, which need not
 * wait for a thread to be woken. So a thread that has nothing to do looks for a moment,
 * if the last group came within such a moment, and nobody else wants the processor. Its time
 * is the owner's.
 */
static void thread_poll(struct demand_thread *thread)
{
	struct demand_owner *owner = thread->owner;
	u64 begin;

	/* It was woken for nothing, or there is something to do. */
	if (READ_ONCE(thread->idle) || !list_empty(&owner->queued))
		return;
	begin = local_clock();
	WRITE_ONCE(owner->rested, begin);
	if (!READ_ONCE(owner->poll))
		return;

	while (list_empty(&owner->queued)) {
		if (need_resched() || !single_task_running() || signal_pending(current) ||
		    local_clock() - begin >= poll_ns())
			return;
		cpu_relax();
	}
	iommufd_demand_count(owner->demand, DEMAND_POLLED, 1);
}

/**
 * iommufd_demand_wake() - See to it that a thread takes what is queued
 * @owner: the owner
 *
 * On return one that does is awake, or all of them wait for memory.
 *
 * Context: Under &iommufd_demand.lock.
 */
void iommufd_demand_wake(struct demand_owner *owner)
{
	unsigned int i;

	lockdep_assert_held(&owner->demand->lock);

	for (i = 0; !owner->active && i < DEMAND_THREADS; i++) {
		if (!owner->threads[i].idle)
			continue;
		owner->threads[i].idle = false;
		owner->active++;
		WRITE_ONCE(owner->poll, local_clock() - READ_ONCE(owner->rested) < poll_ns());
		vhost_task_wake(owner->threads[i].task);
	}
}

static bool owner_is_idle(const struct demand_owner *owner)
{
	unsigned int i;

	for (i = 0; i < DEMAND_THREADS; i++) {
		if (owner->threads[i].task && !owner->threads[i].idle)
			return false;
	}
	return true;
}

/* When nothing is left to do it is ended, by somebody who can wait for the threads. */
static void owner_try_end(struct demand_owner *owner)
{
	lockdep_assert_held(&owner->demand->lock);

	if (owner->areas || owner->ended || !owner_is_idle(owner))
		return;
	owner->gone = true;
	owner->ended = true;
	queue_work(demand_wq, &owner->end_work);
}

/* Take the oldest group that is queued, with a reference, or NULL. */
static struct iopf_group *owner_take(struct demand_owner *owner)
{
	struct iopf_group *group;

	lockdep_assert_held(&owner->demand->lock);

	group = list_first_entry_or_null(&owner->queued, struct iopf_group, node);
	if (group) {
		list_move_tail(&group->node, &owner->busy);
		group->refs++;
	}
	return group;
}

/* The next group for a thread, with a reference; it is idle if there is none. */
static struct iopf_group *thread_next(struct demand_thread *thread, bool may_idle)
{
	struct demand_owner *owner = thread->owner;
	struct iopf_group *group;

	spin_lock_bh(&owner->demand->lock);
	group = owner_take(owner);
	if (group && thread->idle) {
		thread->idle = false;
		owner->active++;
	} else if (!group && may_idle && !thread->idle) {
		thread->idle = true;
		owner->active--;
		owner_try_end(owner);
	}
	spin_unlock_bh(&owner->demand->lock);
	return group;
}

/* Called in state TASK_INTERRUPTIBLE, in which the thread then sleeps if there was nothing. */
static bool thread_run(void *data)
{
	struct demand_thread *thread = data;
	struct demand_batch batch;
	struct iopf_group *group;
	bool worked = false;

	/* The answers are filled in one by one. */
	batch.thread = thread;
	batch.n = 0;
	for (;;) {
		if (!batch.n)
			thread_poll(thread);
		group = thread_next(thread, !batch.n);
		if (!group && !batch.n)
			return worked;
		__set_current_state(TASK_RUNNING);
		worked = true;
		if (group)
			demand_resolve_group(&batch, group);
		if (!group || batch.n == DEMAND_BATCH)
			iommufd_demand_flush(&batch);
		if (fatal_signal_pending(current)) {
			iommufd_demand_flush(&batch);
			return true;
		}
		cond_resched();
	}
}

/* Nobody resolves what an owner has queued: whoever else can gets it. */
static void owner_pass_all_on(struct demand_thread *thread)
{
	struct demand_batch batch = { .thread = thread };
	struct demand_owner *owner = thread->owner;
	struct iopf_group *group;

	for (;;) {
		spin_lock_bh(&owner->demand->lock);
		owner->gone = true;
		group = owner_take(owner);
		spin_unlock_bh(&owner->demand->lock);
		if (!group)
			break;
		iommufd_demand_finish(&batch, group, -ESRCH);
		if (batch.n == DEMAND_BATCH)
			iommufd_demand_flush(&batch);
	}
	iommufd_demand_flush(&batch);
}

/* The process ends, or executes another program. */
static void thread_killed(void *data)
{
	struct demand_thread *thread = data;
	struct demand_owner *owner = thread->owner;

	owner_pass_all_on(thread);
	spin_lock_bh(&owner->demand->lock);
	if (!thread->idle)
		owner->active--;
	thread->idle = true;
	owner_try_end(owner);
	spin_unlock_bh(&owner->demand->lock);
}

static void owner_stop(struct demand_owner *owner)
{
	unsigned int i;

	for (i = 0; i < DEMAND_THREADS; i++) {
		if (owner->threads[i].task)
			vhost_task_stop(owner->threads[i].task);
	}
}

static void owner_end(struct work_struct *work)
{
	struct demand_owner *owner = container_of(work, struct demand_owner, end_work);
	struct iommufd_demand *demand = owner->demand;

	owner_pass_all_on(&owner->threads[0]);
	owner_stop(owner);
	spin_lock_bh(&demand->lock);
	list_del(&owner->node);
	spin_unlock_bh(&demand->lock);
	kfree(owner);
	iommufd_demand_put(demand);
	module_put(THIS_MODULE);
}

static int owner_start(struct demand_owner *owner)
{
	struct demand_thread *thread;
	struct vhost_task *task;
	unsigned int i;

	for (i = 0; i < DEMAND_THREADS; i++) {
		thread = &owner->threads[i];
		thread->owner = owner;
		task = vhost_task_create(thread_run, thread_killed, thread, "iopf-demand");
		if (IS_ERR(task))
			return PTR_ERR(task);
		thread->task = task;
		thread->idle = true;
		vhost_task_start(task);
	}
	return 0;
}

static struct demand_owner *owner_new(struct iommufd_demand *demand)
{
	struct demand_owner *owner;
	int rc;

	owner = kzalloc_obj(*owner, GFP_KERNEL_ACCOUNT);
	if (!owner)
		return ERR_PTR(-ENOMEM);
	owner->demand = demand;
	owner->mm = current->mm;
	owner->areas = 1;
	INIT_WORK(&owner->end_work, owner_end);
	INIT_LIST_HEAD(&owner->queued);
	INIT_LIST_HEAD(&owner->busy);
	rc = owner_start(owner);
	if (rc) {
		owner_stop(owner);
		kfree(owner);
		return ERR_PTR(rc);
	}

	__module_get(THIS_MODULE);
	refcount_inc(&demand->refs);
	spin_lock_bh(&demand->lock);
	list_add_tail(&owner->node, &demand->owners);
	spin_unlock_bh(&demand->lock);
	return owner;
}

static struct demand_owner *owner_find(struct iommufd_demand *demand)
{
	struct demand_owner *owner;

	list_for_each_entry(owner, &demand->owners, node) {
		if (owner->mm == current->mm && !owner->gone) {
			owner->areas++;
			return owner;
		}
	}
	return NULL;
}

/**
 * iommufd_demand_owner_get() - Get the threads that resolve faults for the calling process
 * @demand: the IOAS
 *
 * Context: Process context.
 *
 * Return: the owner, with one area more, or an ERR_PTR.
 */
struct demand_owner *iommufd_demand_owner_get(struct iommufd_demand *demand)
{
	struct demand_owner *owner;

	mutex_lock(&demand->owner_mutex);
	spin_lock_bh(&demand->lock);
	owner = owner_find(demand);
	spin_unlock_bh(&demand->lock);
	if (!owner)
		owner = owner_new(demand);
	mutex_unlock(&demand->owner_mutex);
	return owner;
}

/**
 * iommufd_demand_owner_put() - An owner has an area less
 * @owner: the owner; with none it ends, as soon as its threads have nothing to do
 *
 * Context: Process context; waits for nobody.
 */
void iommufd_demand_owner_put(struct demand_owner *owner)
{
	struct iommufd_demand *demand = owner->demand;

	spin_lock_bh(&demand->lock);
	owner->areas--;
	owner_try_end(owner);
	spin_unlock_bh(&demand->lock);
}

/**
 * iommufd_demand_init() - Get ready to end threads
 *
 * Return: 0 or -ENOMEM.
 */
int iommufd_demand_init(void)
{
	demand_wq = alloc_workqueue("iommufd_demand", WQ_UNBOUND, 0);
	return demand_wq ? 0 : -ENOMEM;
}

/**
 * iommufd_demand_exit() - The module goes: wait until the last threads have ended
 */
void iommufd_demand_exit(void)
{
	destroy_workqueue(demand_wq);
}
