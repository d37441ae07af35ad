// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page fault core: groups whose last request has not come
 *
 * io-pgfault.c tells what becomes of them. They are in a table, to be found, and in
 * a list by age.
 */
#include <linux/iommu.h>
#include <linux/moduleparam.h>
#include <linux/siphash.h>

#include "iommu-priv.h"
#include "io-pgfault.h"

/* Groups that are found too old under one lock */
#define IOPF_AGE_BATCH		64
/* Attachments that are told of an overflow under one lock */
#define IOPF_TELL_BATCH		64

#undef MODULE_PARAM_PREFIX
#define MODULE_PARAM_PREFIX "io_pgfault."

/* Far longer than a device takes from the first to the last request of a group */
static unsigned int iopf_partial_timeout_ms = 10000;
module_param_named(partial_timeout_ms, iopf_partial_timeout_ms, uint, 0644);
MODULE_PARM_DESC(partial_timeout_ms,
		 "Age in ms at which a group whose last request is missing is forgotten");

/* What tells one group from another among those of one device */
u64 iopf_key(const struct iommu_fault_page_request *prm)
{
	u32 pasid = prm->flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID ?
		    prm->pasid : IOMMU_PASID_INVALID;

	return (u64)prm->grpid << 32 | pasid;
}

/* The PASID that a group's handle is found by */
static ioasid_t iopf_key_pasid(u64 key)
{
	u32 pasid = lower_32_bits(key);

	return pasid == IOMMU_PASID_INVALID ? IOMMU_NO_PASID : pasid;
}

static struct hlist_head *iopf_bucket(struct iopf_device *fdev, u64 key)
{
	u32 hash = hsiphash_2u32(upper_32_bits(key), lower_32_bits(key), &fdev->partial_key);

	return &fdev->partial[hash & GENMASK(fdev->partial_bits - 1, 0)];
}

struct iopf_group *iopf_find(struct iopf_device *fdev, u64 key)
{
	struct iopf_group *group;

	hlist_for_each_entry(group, iopf_bucket(fdev, key), partial_node) {
		if (group->key == key)
			return group;
	}
	return NULL;
}

unsigned long iopf_partial_timeout(void)
{
	return msecs_to_jiffies(READ_ONCE(iopf_partial_timeout_ms)) + 1;
}

static void iopf_start_aging(struct iopf_device *fdev, unsigned long delay)
{
	if (fdev->aging || fdev->dying)
		return;
	fdev->aging = true;
	queue_delayed_work(fdev->param.queue->wq, &fdev->age_work, delay);
}

/* A new group in the table, of which this is the first request and not the last */
struct iopf_group *iopf_start(struct iopf_device *fdev, struct iopf_group *group,
			      u64 key)
{
	if (!group)
		return NULL;

	group->key = key;
	group->queued = jiffies;
	hlist_add_head(&group->partial_node, iopf_bucket(fdev, key));
	list_add_tail(&group->partial_list, &fdev->partials);
	fdev->count.partials++;
	iopf_start_aging(fdev, iopf_partial_timeout());
	return group;
}

void iopf_unhash(struct iopf_device *fdev, struct iopf_group *group)
{
	hlist_del_init(&group->partial_node);
	list_del(&group->partial_list);
	fdev->count.partials--;
}

/* Forget a group whose last request has not come. */
void iopf_drop(struct iopf_device *fdev, struct iopf_group *group,
	       enum iopf_cause cause)
{
	iopf_unhash(fdev, group);
	if (!group->open) {
		iopf_pool_put(fdev, group);
		return;
	}
	/* Nobody can claim it here: its handler waits for the last request. */
	group->open = false;
	atomic_set(&group->state, IOPF_GROUP_QUEUED);
	iopf_recall(fdev, group, cause);
}

/* Remember that a group is void which is in the table no more, or never was. */
void iopf_mark_void(struct iopf_device *fdev, u64 key, u8 verdict)
{
	struct iopf_group *group = iopf_start(fdev, __iopf_pool_get(fdev), key);

	if (group)
		group->verdict = verdict;
}

/* Which groups without their last request are forgotten, and why */
struct iopf_doomed {
	bool all;
	ioasid_t pasid;		/* else, as in the key, or with @handle that of the handle */
	struct iommu_attach_handle *handle;	/* of open ones, or NULL */
	enum iopf_cause cause;
};

static bool iopf_is_doomed(const struct iopf_group *group, const struct iopf_doomed *doomed)
{
	if (hlist_unhashed(&group->partial_node))
		return false;
	if (!doomed->handle)
		return doomed->all || lower_32_bits(group->key) == doomed->pasid;
	if (group->open)
		return group->attach_handle == doomed->handle;
	return doomed->all || iopf_key_pasid(group->key) == doomed->pasid;
}

/*
 * Forget groups, a page at a time under the lock, which is taken once at least. Those
 * that begin meanwhile stay: the caller has seen to it that there are none, or that
 * they are not meant.
 */
static void iopf_drop_doomed(struct iopf_device *fdev, const struct iopf_doomed *doomed)
{
	struct iopf_page *page = iopf_first_page(fdev);
	bool more = true;
	unsigned int i;

	for (; page && more; page = page->next) {
		spin_lock_bh(&fdev->lock);
		for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++) {
			if (iopf_is_doomed(&page->pairs[i].group, doomed))
				iopf_drop(fdev, &page->pairs[i].group, doomed->cause);
		}
		more = fdev->count.partials;
		spin_unlock_bh(&fdev->lock);
	}
}

/* Forget all such groups of a device. */
void iopf_drop_all(struct iopf_device *fdev, enum iopf_cause cause)
{
	iopf_drop_doomed(fdev, &(struct iopf_doomed){ .all = true, .cause = cause });
}

/*
 * One work for all groups of a device. It runs once in a timeout while there are
 * some, and looks at the oldest ones only, at so many in one run.
 */
void iopf_age(struct work_struct *work)
{
	struct iopf_device *fdev = container_of(to_delayed_work(work),
						struct iopf_device, age_work);
	unsigned long timeout = iopf_partial_timeout();
	struct iopf_group *group, *next;
	unsigned long delay = timeout;
	unsigned int n = 0;

	spin_lock_bh(&fdev->lock);
	fdev->aging = false;
	list_for_each_entry_safe(group, next, &fdev->partials, partial_list) {
		if (time_before(jiffies, group->queued + timeout)) {
			delay = group->queued + timeout - jiffies;
			break;
		}
		if (n++ == IOPF_AGE_BATCH) {
			delay = 0;
			break;
		}
		fdev->count.stale++;
		iopf_drop(fdev, group, IOPF_CAUSE_AGE);
	}
	if (!list_empty(&fdev->partials))
		iopf_start_aging(fdev, delay);
	spin_unlock_bh(&fdev->lock);
}

/**
 * iopf_quiesce() - Wait until no report uses a detached handle
 * @dev: the device that was detached
 * @pasid: the PASID it was detached from; IOMMU_NO_PASID stands for the RID
 *         and, where user space owns the PASID table, for all PASIDs;
 *         IOMMU_PASID_INVALID if @handle was not attached after all
 * @handle: the attach handle
 *
 * To be called after the attach handle was taken out of the group's table and
 * before it is freed. On return every group that was routed by it has been
 * passed to the handler, and none will be. Requests of @pasid whose last one has
 * not come are forgotten, so that they cannot reach the next domain; open groups
 * of @handle are recalled.
 *
 * Context: Process context, may sleep. Takes the device's fault lock, under which it
 * calls &iopf_handler_ops.recall.
 */
void iopf_quiesce(struct device *dev, ioasid_t pasid, struct iommu_attach_handle *handle)
{
	const struct iopf_doomed doomed = {
		.all = pasid == IOMMU_NO_PASID && dev_iommu_ops(dev)->user_pasid_table,
		.pasid = pasid,
		.handle = handle,
		.cause = IOPF_CAUSE_DETACH,
	};
	struct iopf_device *fdev = iopf_device_get(dev);

	if (!fdev)
		return;

	iopf_drop_doomed(fdev, &doomed);
	/* What its handler had no room for is answered, too. */
	flush_delayed_work(&fdev->retry_work);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_quiesce);

/**
 * iopf_discard_pasid() - Forget the groups of a PASID that are not complete
 * @dev: the device
 * @pasid: of which the device will send no more page requests;
 *         IOMMU_PASID_INVALID stands for those without one
 *
 * For drivers that see a stop marker (PCIe 6.0, 10.4.1.2.1). Open groups are
 * recalled, complete ones answered as ever.
 *
 * Context: Process or softirq. Takes the device's fault lock, under which it calls
 * &iopf_handler_ops.recall.
 */
void iopf_discard_pasid(struct device *dev, ioasid_t pasid)
{
	const struct iopf_doomed doomed = { .pasid = pasid, .cause = IOPF_CAUSE_STOP };
	struct iopf_device *fdev = iopf_device_get(dev);

	if (!fdev)
		return;

	iopf_drop_doomed(fdev, &doomed);
	iopf_device_put(fdev);
}
EXPORT_SYMBOL_GPL(iopf_discard_pasid);

/* Tell the handlers of a device, so many under one lock. */
static void iopf_tell_overflow(struct iopf_device *fdev)
{
	struct iommu_group *group = fdev->param.dev->iommu_group;
	struct iommu_attach_handle *handle;
	unsigned long pasid = 0;
	unsigned int n;

	do {
		spin_lock_bh(&fdev->lock);
		for (n = 0; n < IOPF_TELL_BATCH; n++) {
			handle = iommu_attach_handle_next(group, &pasid);
			if (!handle)
				break;
			if (iopf_ops(handle)->lost)
				iopf_ops(handle)->lost(handle, IOPF_CAUSE_OVERFLOW);
		}
		spin_unlock_bh(&fdev->lock);
	} while (handle);
}

/**
 * iopf_queue_discard_partial() - The hardware queue overflowed: forget what is
 *                                not complete
 * @queue: the queue
 *
 * After a hardware queue overflow the last request of a group may be among
 * those that were lost. The groups of all devices without their last request are
 * forgotten, or recalled if the handler has them already. All handlers of these
 * devices are told. Groups that are complete are not affected: the device waits for
 * their answers. The caller must not report on this queue meanwhile.
 *
 * Context: Process context, may sleep.
 *
 * Return: 0, or -EINVAL without a queue.
 */
int iopf_queue_discard_partial(struct iopf_queue *queue)
{
	struct iopf_device *fdev;

	if (!queue)
		return -EINVAL;

	mutex_lock(&queue->lock);
	list_for_each_entry(fdev, &queue->devices, queue_list) {
		iopf_drop_all(fdev, IOPF_CAUSE_OVERFLOW);
		spin_lock_bh(&fdev->lock);
		fdev->count.overflows++;
		spin_unlock_bh(&fdev->lock);
		iopf_tell_overflow(fdev);
	}
	mutex_unlock(&queue->lock);
	return 0;
}
EXPORT_SYMBOL_GPL(iopf_queue_discard_partial);
