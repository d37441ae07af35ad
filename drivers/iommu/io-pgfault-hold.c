// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page fault core: how long a device stays on its queue
 *
 * An IOMMU driver puts a device on a fault queue for the first domain with a fault
 * handler, and takes it off with the last one, in the middle of a detach: a handler
 * may still have groups then. It is the handler who knows what these are to be told,
 * that nobody is there any more or that the next domain is to be asked. So it holds
 * the device from before it attaches a domain until it has answered what came through
 * that, and the device leaves when both have let go.
 *
 * A device that is removed lets go of everything, whatever its group is attached to.
 */
#include <linux/iommu.h>
#include <linux/mutex.h>

#include "iommu-priv.h"
#include "io-pgfault.h"

/**
 * iopf_queue_join() - A device gets its first domain with a fault handler
 * @queue: the queue of its IOMMU
 * @dev: the device
 *
 * Context: Process context, may sleep. For IOMMU drivers, under the group's mutex.
 *
 * Return: as iopf_queue_add_device().
 */
int iopf_queue_join(struct iopf_queue *queue, struct device *dev)
{
	struct dev_iommu *iommu = dev->iommu;
	int rc = 0;

	mutex_lock(&iommu->iopf_lock);
	if (iommu->iopf_leaving)
		iommu->iopf_leaving = NULL;
	else
		rc = iopf_queue_add_device(queue, dev);
	mutex_unlock(&iommu->iopf_lock);
	return rc;
}
EXPORT_SYMBOL_GPL(iopf_queue_join);

/**
 * iopf_queue_leave() - A device has no domain with a fault handler any more
 * @queue: the queue that it has joined
 * @dev: the device
 *
 * It may stay on the queue for a while: see iopf_hold_device().
 *
 * Context: As iopf_queue_join(), sleeps as iopf_queue_remove_device() does.
 */
void iopf_queue_leave(struct iopf_queue *queue, struct device *dev)
{
	struct dev_iommu *iommu = dev->iommu;

	mutex_lock(&iommu->iopf_lock);
	if (iommu->iopf_holds)
		iommu->iopf_leaving = queue;
	else
		iopf_queue_remove_device(queue, dev);
	mutex_unlock(&iommu->iopf_lock);
}
EXPORT_SYMBOL_GPL(iopf_queue_leave);

/**
 * iopf_hold_device() - Keep a device on the queue that it joins
 * @dev: the device
 *
 * For a fault handler, before its domain is attached.
 *
 * Context: Process context, may sleep.
 */
void iopf_hold_device(struct device *dev)
{
	mutex_lock(&dev->iommu->iopf_lock);
	dev->iommu->iopf_holds++;
	mutex_unlock(&dev->iommu->iopf_lock);
}
EXPORT_SYMBOL_GPL(iopf_hold_device);

/**
 * iopf_release_device() - Undo iopf_hold_device()
 * @dev: the device
 *
 * For the handler, when the domain is detached and every group that came through it
 * is answered.
 *
 * Context: Process context, sleeps as iopf_queue_remove_device() does.
 */
void iopf_release_device(struct device *dev)
{
	struct dev_iommu *iommu = dev->iommu;

	mutex_lock(&iommu->iopf_lock);
	if (!WARN_ON(!iommu->iopf_holds) && !--iommu->iopf_holds && iommu->iopf_leaving) {
		iopf_queue_remove_device(iommu->iopf_leaving, dev);
		iommu->iopf_leaving = NULL;
	}
	mutex_unlock(&iommu->iopf_lock);
}
EXPORT_SYMBOL_GPL(iopf_release_device);

/**
 * iopf_device_gone() - A device leaves its IOMMU
 * @dev: the device, of which no attachment is left
 *
 * Others of its group may keep the group attached. Then the IOMMU driver has not been
 * told to take a domain with a fault handler off this one, at a PASID at least.
 *
 * Context: Under the group's mutex, sleeps as iopf_queue_remove_device() does. The driver
 * can still send answers.
 */
void iopf_device_gone(struct device *dev)
{
	struct iopf_device *fdev = iopf_device_get(dev);

	if (!fdev)
		return;
	iopf_queue_remove_device(fdev->param.queue, dev);
	iopf_device_put(fdev);
}
