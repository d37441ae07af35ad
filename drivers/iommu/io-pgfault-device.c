// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page fault core: a device joins a queue, is reset, and leaves
 *
 * io-pgfault.c has the order of the locks.
 */
#include <linux/debugfs.h>
#include <linux/iommu.h>
#include <linux/memcontrol.h>
#include <linux/pci.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "iommu-priv.h"
#include "io-pgfault.h"

/* Credits of a device that does not state them in a PRI capability */
#define IOPF_DEFAULT_CREDITS	4096
/* The most that any device gets, whatever its capability says */
#define IOPF_MAX_CREDITS	4096
/* Groups that several threads may have answered and not freed yet */
#define IOPF_ANSWER_SLACK	256

static void iopf_device_free_rcu(struct rcu_head *rcu)
{
	struct iopf_device *fdev = container_of(rcu, struct iopf_device, rcu);
	struct iopf_page *page, *next;

	for (page = fdev->pages; page; page = next) {
		next = page->next;
		kfree(page);
	}
	kvfree(fdev->partial);
	mem_cgroup_put(fdev->memcg);
	kfree(fdev);
}

/* The last user is gone: the queue, or a group. A report may still be under way. */
void iopf_device_free(struct iopf_device *fdev)
{
	call_rcu(&fdev->rcu, iopf_device_free_rcu);
}

/* How many page requests the device may have outstanding (PCIe 6.0, 10.5.2.4) */
static unsigned int iopf_credits(struct iopf_queue *queue, struct device *dev)
{
	u32 credits = queue->credits ?: IOPF_DEFAULT_CREDITS;

#ifdef CONFIG_PCI_PRI
	if (dev_is_pci(dev) && to_pci_dev(dev)->pri_cap)
		pci_read_config_dword(to_pci_dev(dev),
				      to_pci_dev(dev)->pri_cap + PCI_PRI_MAX_REQ, &credits);
#endif
	return clamp_t(u32, credits, 1, IOPF_MAX_CREDITS);
}

static struct iopf_device *iopf_device_alloc(struct iopf_queue *queue, struct device *dev)
{
	struct iopf_device *fdev;
	unsigned int credits;

	fdev = kzalloc_obj(*fdev, GFP_KERNEL_ACCOUNT);
	if (!fdev)
		return NULL;

	credits = iopf_credits(queue, dev);
	fdev->limit = 2 * credits + IOPF_ANSWER_SLACK;
	get_random_bytes(&fdev->partial_key, sizeof(fdev->partial_key));
	fdev->partial_bits = max(order_base_2(credits), 1);
	fdev->partial = kvcalloc(1U << fdev->partial_bits, sizeof(*fdev->partial),
				 GFP_KERNEL_ACCOUNT);
	if (!fdev->partial) {
		kfree(fdev);
		return NULL;
	}

	fdev->memcg = get_mem_cgroup_from_mm(current->mm);
	spin_lock_init(&fdev->lock);
	refcount_set(&fdev->users, 1);
	init_waitqueue_head(&fdev->idle);
	INIT_LIST_HEAD(&fdev->partials);
	INIT_LIST_HEAD(&fdev->parked);
	INIT_DELAYED_WORK(&fdev->age_work, iopf_age);
	INIT_DELAYED_WORK(&fdev->retry_work, iopf_retry);
	INIT_DELAYED_WORK(&fdev->grow_work, iopf_grow);
	fdev->param.dev = dev;
	fdev->param.queue = queue;
	fdev->iommu = dev->iommu->iommu_dev;

	if (iopf_pool_fill(fdev)) {
		iopf_device_put(fdev);
		return NULL;
	}
	return fdev;
}

/**
 * iopf_queue_add_device() - Let a device report page requests
 * @queue: the queue that it joins
 * @dev: the device
 *
 * The memory for its faults is charged to the calling task's memory cgroup, also
 * what is added when it sends more. For io_pgfault.reserve requests there is memory on
 * return, as far as its credits allow so many.
 *
 * Context: Process context, may sleep.
 *
 * Return: 0 on success, -ENODEV if its IOMMU cannot answer page requests,
 * -EBUSY if it is on a queue already, -ENOMEM.
 */
int iopf_queue_add_device(struct iopf_queue *queue, struct device *dev)
{
	struct dev_iommu *iommu = dev->iommu;
	struct iopf_device *fdev;

	if (!dev_iommu_ops(dev)->page_response)
		return -ENODEV;

	fdev = iopf_device_alloc(queue, dev);
	if (!fdev)
		return -ENOMEM;

	mutex_lock(&queue->lock);
	mutex_lock(&iommu->lock);
	if (rcu_access_pointer(iommu->fault_param)) {
		mutex_unlock(&iommu->lock);
		mutex_unlock(&queue->lock);
		iopf_device_put(fdev);
		return -EBUSY;
	}
	list_add_tail(&fdev->queue_list, &queue->devices);
	fdev->debugfs = iopf_debugfs_create(fdev);
	rcu_assign_pointer(iommu->fault_param, &fdev->param);
	mutex_unlock(&iommu->lock);
	mutex_unlock(&queue->lock);
	return 0;
}
EXPORT_SYMBOL_GPL(iopf_queue_add_device);

static bool iopf_is_answering(struct iopf_device *fdev)
{
	struct iopf_page *page = iopf_first_page(fdev);
	unsigned int i;

	for (; page; page = page->next) {
		for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++) {
			if (atomic_read(&page->pairs[i].group.state) == IOPF_GROUP_ANSWERING)
				return true;
		}
	}
	return false;
}

/* Wait for all answers that are under way. */
static void iopf_wait_answered(struct iopf_device *fdev)
{
	spin_lock_bh(&fdev->lock);
	WRITE_ONCE(fdev->waiters, fdev->waiters + 1);
	spin_unlock_bh(&fdev->lock);

	wait_event(fdev->idle, !iopf_is_answering(fdev));

	spin_lock_bh(&fdev->lock);
	WRITE_ONCE(fdev->waiters, fdev->waiters - 1);
	spin_unlock_bh(&fdev->lock);
}

static void iopf_drain_hardware(struct device *dev)
{
	if (dev_iommu_ops(dev)->page_drain)
		dev_iommu_ops(dev)->page_drain(dev);
}

/**
 * iopf_recall_sync() - Wait until no recall uses a detached handle
 * @dev: the device that was detached
 *
 * A handler whose groups may be recalled loses the claim of a group a moment
 * before &iopf_handler_ops.recall is called for it. So who frees an attach handle
 * calls this first, when the handler has let go of all its groups.
 *
 * Context: Process or softirq, but not under a lock that the handler itself
 * takes.
 */
void iopf_recall_sync(struct device *dev)
{
	struct iopf_device *fdev = iopf_device_get(dev);

	if (!fdev)
		return;

	spin_lock_bh(&fdev->lock);
	spin_unlock_bh(&fdev->lock);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_recall_sync);

/**
 * iopf_queue_flush_dev() - Wait for handlers that work on the queue's workqueue
 * @dev: the device whose faults are to be handled first
 *
 * IOMMU drivers call this when a PASID is released, after they have drained
 * the hardware queue and with no new faults coming.
 *
 * Context: Process context, sleeps until the work is done.
 *
 * Return: 0, or -ENODEV if the device is not on a queue.
 */
int iopf_queue_flush_dev(struct device *dev)
{
	struct iopf_device *fdev = iopf_device_get(dev);

	if (!fdev)
		return -ENODEV;

	flush_workqueue(fdev->param.queue->wq);
	iopf_device_put(fdev);
	return 0;
}
EXPORT_SYMBOL_GPL(iopf_queue_flush_dev);

/**
 * iopf_device_reset() - The device was reset and has forgotten its page requests
 * @dev: the device, with or without an IOMMU
 *
 * Groups without their last request are forgotten, all that a handler holds are
 * recalled, and nothing is sent to the device. Answers that were under way are out
 * when this returns: they would hit the groups that it sends next. To be called
 * before it may send any.
 *
 * Context: Process context, sleeps until the last answer is out. The caller keeps
 * @dev from being removed from its bus.
 */
void iopf_device_reset(struct device *dev)
{
	struct iopf_device *fdev = dev->iommu ? iopf_device_get(dev) : NULL;
	struct iopf_page *page;
	unsigned int i;

	if (!fdev)
		return;

	/* What the hardware still holds is of before the reset, too. */
	iopf_drain_hardware(dev);

	iopf_drop_all(fdev, IOPF_CAUSE_RESET);
	for (page = iopf_first_page(fdev); page; page = page->next) {
		spin_lock_bh(&fdev->lock);
		for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++)
			iopf_recall(fdev, &page->pairs[i].group, IOPF_CAUSE_RESET);
		spin_unlock_bh(&fdev->lock);
	}

	/* claims.pml: RESET_NO_WAIT */
	iopf_wait_answered(fdev);
	iopf_drain_hardware(dev);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_device_reset);

/* Claim and answer what handlers still hold; they find out when they try. */
static void iopf_abort(struct iopf_device *fdev)
{
	struct iopf_answer answer = {
		.code = IOMMU_PAGE_RESP_INVALID,
		.cause = IOPF_CAUSE_REMOVE,
	};
	struct iopf_page *page;
	unsigned int i;

	for (page = fdev->pages; page; page = page->next) {
		for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++) {
			answer.group = &page->pairs[i].group;
			if (iopf_group_claim(answer.group))
				iopf_answer_groups(&answer, 1);
		}
	}
	iopf_wait_answered(fdev);
}

/**
 * iopf_queue_remove_device() - Stop a device from reporting page requests
 * @queue: the queue that it is on
 * @dev: the device
 *
 * The driver stops the source first, in the device or in the IOMMU, and drains
 * the hardware queue. Groups which a handler still holds are answered INVALID
 * here, and no answer for @dev is under way when this returns. Late answers of
 * handlers are ignored; a late request is answered by the report itself.
 *
 * Context: Process context, sleeps until the last answer is out.
 */
void iopf_queue_remove_device(struct iopf_queue *queue, struct device *dev)
{
	struct dev_iommu *iommu = dev->iommu;
	struct iopf_device *fdev;

	mutex_lock(&queue->lock);
	mutex_lock(&iommu->lock);
	fdev = to_iopf_device(rcu_dereference_protected(iommu->fault_param,
							lockdep_is_held(&iommu->lock)));
	if (WARN_ON(!fdev || fdev->param.queue != queue)) {
		mutex_unlock(&iommu->lock);
		mutex_unlock(&queue->lock);
		return;
	}
	RCU_INIT_POINTER(iommu->fault_param, NULL);
	list_del(&fdev->queue_list);
	mutex_unlock(&iommu->lock);
	mutex_unlock(&queue->lock);

	/*
	 * With @dying seen under the lock the pool's pages cannot change, and nothing
	 * comes behind iopf_abort() (claims.pml: DYING_LATE).
	 */
	spin_lock_bh(&fdev->lock);
	fdev->dying = true;
	spin_unlock_bh(&fdev->lock);
	iopf_drop_all(fdev, IOPF_CAUSE_REMOVE);

	debugfs_remove(fdev->debugfs);
	cancel_delayed_work_sync(&fdev->age_work);
	cancel_delayed_work_sync(&fdev->grow_work);
	cancel_delayed_work_sync(&fdev->retry_work);
	iopf_abort(fdev);
	/* frees what was parked */
	iopf_retry(&fdev->retry_work.work);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_queue_remove_device);

/**
 * iopf_queue_alloc() - Create a fault queue
 * @name: names the queue's workqueue
 *
 * Usually one for each IOMMU.
 *
 * Context: Process context, may sleep.
 *
 * Return: the queue, or NULL if there is no memory.
 */
struct iopf_queue *iopf_queue_alloc(const char *name)
{
	struct iopf_queue *queue;

	queue = kzalloc_obj(*queue, GFP_KERNEL);
	if (!queue)
		return NULL;

	mutex_init(&queue->lock);
	INIT_LIST_HEAD(&queue->devices);
	/* Unbound: groups are independent of each other, the device waits. */
	queue->wq = alloc_workqueue("iopf_queue/%s", WQ_UNBOUND, 0, name);
	if (queue->wq)
		return queue;

	kfree(queue);
	return NULL;
}
EXPORT_SYMBOL_GPL(iopf_queue_alloc);

/**
 * iopf_queue_free() - Free a fault queue
 * @queue: the queue, or NULL
 *
 * Removes the devices that are still on it. Nothing may report on it or be
 * added to it any more.
 *
 * Context: Process context, may sleep.
 */
void iopf_queue_free(struct iopf_queue *queue)
{
	struct iopf_device *fdev, *next;

	if (!queue)
		return;

	list_for_each_entry_safe(fdev, next, &queue->devices, queue_list)
		iopf_queue_remove_device(queue, fdev->param.dev);
	destroy_workqueue(queue->wq);
	kfree(queue);
}
EXPORT_SYMBOL_GPL(iopf_queue_free);
