// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page request queue: its ring, registers and interrupt, from the start of an IOMMU
 * to its end, and across the sleep of the system
 *
 * Section numbers are those of the "Intel Virtualization Technology for Directed
 * I/O" specification, revision 5.10.
 */

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "iommu.h"
#include "prq.h"
#include "../iommu-pages.h"

/* The ring, if there is one, and what of it is to be read */
static void prq_write_ring(struct intel_iommu *iommu, u64 head, u64 tail, void *ring)
{
	writeq(head, iommu->reg + DMAR_PQH_REG);
	writeq(tail, iommu->reg + DMAR_PQT_REG);
	writeq(ring ? virt_to_phys(ring) | PRQ_ORDER : 0, iommu->reg + DMAR_PQA_REG);
}

/*
 * With a bit of the status set, a request interrupts no more, and with the bit of an
 * overflow none is written (7.5): whoever had the IOMMU before, as the kernel that
 * started this one, may have left both, and a head and a tail of its own ring. That
 * ends before there is an interrupt, which one of that kernel's may be waiting for.
 */
VISIBLE_IF_KUNIT void prq_start(struct intel_iommu *iommu)
{
	prq_write_ring(iommu, 0, 0, iommu->prq);
	prq_acknowledge(iommu, DMA_PRS_PPR | DMA_PRS_PRO);
}

static int prq_request_irq(struct intel_iommu *iommu)
{
	int irq, ret;

	irq = dmar_alloc_hwirq(IOMMU_IRQ_ID_OFFSET_PRQ + iommu->seq_id, iommu->node, iommu);
	if (irq <= 0)
		return -EINVAL;

	/* By its number the MSI code knows which registers it belongs to. */
	iommu->pr_irq = irq;
	snprintf(iommu->prq_name, sizeof(iommu->prq_name), "dmar%d-prq", iommu->seq_id);
	/* ONESHOT: with threadirqs, too, the handler is what schedules the bottom half. */
	ret = request_threaded_irq(irq, prq_irq, prq_event_thread, IRQF_ONESHOT,
				   iommu->prq_name, iommu);
	if (!ret)
		return 0;

	iommu->pr_irq = 0;
	dmar_free_hwirq(irq);
	return ret;
}

static void prq_free_irq(struct intel_iommu *iommu)
{
	int irq = iommu->pr_irq;

	if (!irq)
		return;
	/* Its number stays known until it is masked, see prq_request_irq(). */
	free_irq(irq, iommu);
	/* The thread, which would wait for ever now, has ended; nothing wakes it any more. */
	irq_poll_disable(&iommu->prq_poll);
	iommu->pr_irq = 0;
	dmar_free_hwirq(irq);
}

/* The ring and the fault queue, as far as they are there */
static void prq_free(struct intel_iommu *iommu)
{
	if (iommu->iopf_queue)
		iopf_queue_free(iommu->iopf_queue);
	if (iommu->prq)
		iommu_free_pages(iommu->prq);
	iommu->iopf_queue = NULL;
	iommu->prq = NULL;
}

static int prq_alloc(struct intel_iommu *iommu)
{
	snprintf(iommu->iopfq_name, sizeof(iommu->iopfq_name), "dmar%d-iopfq", iommu->seq_id);
	iommu->iopf_queue = iopf_queue_alloc(iommu->iopfq_name);
	iommu->prq = iommu_alloc_pages_node_sz(iommu->node, GFP_KERNEL, PRQ_SIZE);
	return iommu->iopf_queue && iommu->prq ? 0 : -ENOMEM;
}

static void prq_resumed(struct irq_work *work)
{
	prq_kick(container_of(work, struct intel_iommu, prq_resumed));
}

/**
 * intel_iommu_enable_prq() - Let an IOMMU write page requests
 * @iommu: the IOMMU, with the capability for it
 *
 * Context: Process context, sleeps.
 *
 * Return: 0, -ENOMEM, or what stands in the way of an interrupt.
 */
int intel_iommu_enable_prq(struct intel_iommu *iommu)
{
	int ret;

	/* Without the core nothing enables page requests of a device. */
	if (!IS_ENABLED(CONFIG_IOMMU_IOPF))
		return 0;

	init_waitqueue_head(&iommu->prq_wait);
	irq_poll_init(&iommu->prq_poll, PRQ_BUDGET, prq_bottom_half);
	init_irq_work(&iommu->prq_resumed, prq_resumed);
	ret = prq_alloc(iommu);
	if (!ret) {
		prq_start(iommu);
		ret = prq_request_irq(iommu);
	}
	if (ret) {
		intel_iommu_finish_prq(iommu);
		pr_err("%s: no page request queue: %d\n", iommu->name, ret);
		return ret;
	}

	/* What came before the interrupt did */
	prq_kick(iommu);
	return 0;
}

/**
 * intel_iommu_finish_prq() - Take the page request queue from an IOMMU
 * @iommu: the IOMMU, whose devices make no page requests any more
 *
 * Context: Process context, sleeps until bottom half and thread are done.
 *
 * Return: 0.
 */
int intel_iommu_finish_prq(struct intel_iommu *iommu)
{
	prq_write_ring(iommu, 0, 0, NULL);
	prq_free_irq(iommu);
	prq_free(iommu);
	return 0;
}

/* ---- sleep ---- */

/* When interrupts are on again: until then time stands still, and no work can be queued. */
VISIBLE_IF_KUNIT void prq_kick_later(struct intel_iommu *iommu)
{
	KUNIT_STATIC_STUB_REDIRECT(prq_kick_later, iommu);

	irq_work_queue(&iommu->prq_resumed);
}

/**
 * intel_iommu_suspend_prq() - Note what an IOMMU forgets while the system sleeps
 * @iommu: the IOMMU, all of whose devices are suspended
 *
 * Context: Interrupts off, the last processor.
 */
void intel_iommu_suspend_prq(struct intel_iommu *iommu)
{
	if (!iommu->prq)
		return;

	iommu->prq_saved.head = readq(iommu->reg + DMAR_PQH_REG);
	iommu->prq_saved.tail = readq(iommu->reg + DMAR_PQT_REG);
	iommu->prq_saved.control = readl(iommu->reg + DMAR_PECTL_REG);
	iommu->prq_saved.data = readl(iommu->reg + DMAR_PEDATA_REG);
	iommu->prq_saved.addr = readl(iommu->reg + DMAR_PEADDR_REG);
	iommu->prq_saved.addr_high = readl(iommu->reg + DMAR_PEUADDR_REG);
}

/**
 * intel_iommu_resume_prq() - Have an IOMMU write page requests again
 * @iommu: the IOMMU, whose devices send none yet
 *
 * The ring is in memory, and a thread may have been put to sleep amid a pass, so
 * head and tail are as they were. What is between them is seen to as after an
 * interrupt, which may be lost; an overflow is cleared there. The devices' own state
 * is restored after that.
 *
 * Context: Interrupts off, the first processor.
 */
void intel_iommu_resume_prq(struct intel_iommu *iommu)
{
	if (!iommu->prq)
		return;

	prq_write_ring(iommu, iommu->prq_saved.head, iommu->prq_saved.tail, iommu->prq);
	prq_acknowledge(iommu, DMA_PRS_PPR);
	writel(iommu->prq_saved.data, iommu->reg + DMAR_PEDATA_REG);
	writel(iommu->prq_saved.addr, iommu->reg + DMAR_PEADDR_REG);
	writel(iommu->prq_saved.addr_high, iommu->reg + DMAR_PEUADDR_REG);
	writel(iommu->prq_saved.control, iommu->reg + DMAR_PECTL_REG);
	prq_kick_later(iommu);
}
