// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page faults with the Arm SMMUv3: stalls and PCIe page requests
 *
 * Section numbers are those of the Arm System Memory Management Unit Architecture
 * Specification, SMMU architecture version 3 (IHI 0070).
 *
 * Two kinds of hardware fault, each with a queue and a command of its own:
 *
 *	a transaction stalls		Event queue (7)		CMD_RESUME (4.7.1)
 *	a PCIe function requests pages	PRI queue (8)		CMD_PRI_RESP (4.5.2)
 *
 * Which of them a device uses is chosen when its faults are enabled, see
 * arm-smmu-v3-iopf-device.c. The commands are in arm-smmu-v3-iopf-answer.c.
 *
 *	     SMMU: PROD			   iommu_report_device_fault()
 *	       |				    ^
 *	    queue --> arm_smmu_pass_batch() --> decode, find the stream
 *	       |				    |
 *	     CONS <--- after the report		    +--> no such device: answered here
 *
 * An entry stays in its slot until it was reported, so that "CONS went past it"
 * means "the core or a handler has it". arm_smmu_iopf_drain() waits for that.
 *
 *	arm_smmu_queue_irq()	schedules the bottom half
 *	arm_smmu_queue_poll()	in a softirq: up to ARM_SMMU_BUDGET entries. It leaves
 *				to the thread what is beyond, and an overflow
 *	arm_smmu_queue_thread()	all that is there
 *
 * A queue's bottom half and thread never run at the same time: the thread disables
 * the bottom half. While either runs an interrupt has no effect; so both look at PROD
 * when they have ended, in arm_smmu_queue_ended(). A bottom half that left something is
 * the last one until the thread has begun.
 *
 * Locks: streams_lock protects the tree of streams, streams_mutex
 * &arm_smmu_master.iopf_enabled and &arm_smmu_priq.credits. A device that is
 * reported for is not released meanwhile: the thread holds streams_mutex, and
 * arm_smmu_iopf_forget() waits for the bottom halves.
 */
#include <kunit/visibility.h>
#include <linux/interrupt.h>
#include <linux/irq_poll.h>
#include <linux/rcupdate.h>

#include "arm-smmu-v3.h"

/* Entries between two writes of CONS: room comes back early, MMIO stays rare */
#define ARM_SMMU_PASS_BATCH	64

/* Entries that are handled in one softirq */
#define ARM_SMMU_BUDGET		64

/* ---- Entries ---- */

/*
 * A record of a stalled transaction (7.3, "Event records"), as the only request
 * of its group. Returns false if it is some other event.
 */
static bool arm_smmu_decode_stall(const u64 *evt, struct iommu_fault_page_request *prm)
{
	switch (FIELD_GET(EVTQ_0_ID, evt[0])) {
	case EVT_ID_TRANSLATION_FAULT:
	case EVT_ID_ADDR_SIZE_FAULT:
	case EVT_ID_ACCESS_FAULT:
	case EVT_ID_PERMISSION_FAULT:
		break;
	default:
		return false;
	}
	if (!(evt[1] & EVTQ_1_STALL))
		return false;

	*prm = (struct iommu_fault_page_request) {
		.flags = IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE,
		.grpid = FIELD_GET(EVTQ_1_STAG, evt[1]),
		.perm = evt[1] & EVTQ_1_RnW ? IOMMU_FAULT_PERM_READ : IOMMU_FAULT_PERM_WRITE,
		.addr = FIELD_GET(EVTQ_2_ADDR, evt[2]),
	};
	if (evt[1] & EVTQ_1_InD)
		prm->perm |= IOMMU_FAULT_PERM_EXEC;
	if (evt[1] & EVTQ_1_PnU)
		prm->perm |= IOMMU_FAULT_PERM_PRIV;
	if (evt[0] & EVTQ_0_SSV) {
		prm->flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
		prm->pasid = FIELD_GET(EVTQ_0_SSID, evt[0]);
	}
	return true;
}

/*
 * An entry of the PRI queue (8, "Page request queue"). Returns false for a Stop
 * Marker: "last" without an access, and with a PASID. It has no answer, and what
 * it says, that no older request of the PASID follows, is known by then.
 */
static bool arm_smmu_decode_ppr(const u64 *ppr, struct iommu_fault_page_request *prm)
{
	const u64 access = PRIQ_0_PERM_READ | PRIQ_0_PERM_WRITE;

	if (!(ppr[0] & access) && ppr[0] & PRIQ_0_PRG_LAST && ppr[0] & PRIQ_0_SSID_V)
		return false;

	*prm = (struct iommu_fault_page_request) {
		.grpid = FIELD_GET(PRIQ_1_PRG_IDX, ppr[1]),
		.addr = ppr[1] & PRIQ_1_ADDR_MASK,
	};
	if (ppr[0] & PRIQ_0_PRG_LAST)
		prm->flags |= IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	if (ppr[0] & PRIQ_0_SSID_V) {
		prm->flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
		prm->pasid = FIELD_GET(PRIQ_0_SSID, ppr[0]);
	}
	if (ppr[0] & PRIQ_0_PERM_READ)
		prm->perm |= IOMMU_FAULT_PERM_READ;
	if (ppr[0] & PRIQ_0_PERM_WRITE)
		prm->perm |= IOMMU_FAULT_PERM_WRITE;
	if (ppr[0] & PRIQ_0_PERM_EXEC)
		prm->perm |= IOMMU_FAULT_PERM_EXEC;
	if (ppr[0] & PRIQ_0_PERM_PRIV)
		prm->perm |= IOMMU_FAULT_PERM_PRIV;
	return true;
}

/**
 * struct arm_smmu_batch - Entries that are reported in a row
 * @stream: that of the entry before, most often the same one, or NULL
 * @softirq: what may sleep is left to the thread
 */
struct arm_smmu_batch {
	struct arm_smmu_stream *stream;
	bool softirq;
};

static struct arm_smmu_stream *arm_smmu_lookup(struct arm_smmu_device *smmu, u32 sid,
					       struct arm_smmu_batch *batch)
{
	if (!batch->stream || batch->stream->id != sid) {
		spin_lock_bh(&smmu->streams_lock);
		batch->stream = arm_smmu_find_stream(smmu, sid);
		spin_unlock_bh(&smmu->streams_lock);
	}
	return batch->stream;
}

static void arm_smmu_report(struct arm_smmu_device *smmu, u32 sid, bool pri,
			    const struct iommu_fault_page_request *prm,
			    struct arm_smmu_batch *batch)
{
	struct arm_smmu_stream *stream = arm_smmu_lookup(smmu, sid, batch);
	struct iopf_fault fault = {
		.fault.type = IOMMU_FAULT_PAGE_REQ,
		.fault.prm = *prm,
	};
	struct arm_smmu_master *master = stream ? stream->master : NULL;

	if (!master || !READ_ONCE(master->iopf_enabled) || master->iopf_pri != pri) {
		arm_smmu_refuse(smmu, sid, pri, master, prm);
		return;
	}

	fault.fault.prm.grpid |= FIELD_PREP(ARM_SMMU_GROUP_STREAM, stream - master->streams);
	/* With an error it has been answered. */
	iommu_report_device_fault(master->dev, &fault);
}

/* Returns false for one that is left to the thread. */
static bool arm_smmu_handle_event(struct arm_smmu_device *smmu, u64 *evt,
				  struct arm_smmu_batch *batch)
{
	struct iommu_fault_page_request prm;

	if (!arm_smmu_decode_stall(evt, &prm))
		return arm_smmu_handle_other_event(smmu, evt, batch->softirq);
	arm_smmu_report(smmu, FIELD_GET(EVTQ_0_SID, evt[0]), false, &prm, batch);
	return true;
}

static bool arm_smmu_handle_ppr(struct arm_smmu_device *smmu, u64 *ppr,
				struct arm_smmu_batch *batch)
{
	struct iommu_fault_page_request prm;

	if (arm_smmu_decode_ppr(ppr, &prm))
		arm_smmu_report(smmu, FIELD_GET(PRIQ_0_SID, ppr[0]), true, &prm, batch);
	return true;
}

/* ---- Queues ---- */

/*
 * Read PROD: how far the queue was written. Not relaxed, as no entry may be read
 * before the index that covers it. Returns true if there is an overflow that
 * was not acknowledged.
 */
static bool arm_smmu_queue_refresh(struct arm_smmu_queue *q)
{
	q->llq.prod = readl(q->prod_reg);
	return Q_OVF(q->llq.prod) != Q_OVF(q->llq.cons);
}

/* Of an index and its wrap bit */
static u32 arm_smmu_queue_mask(const struct arm_smmu_queue *q)
{
	return (2U << q->llq.max_n_shift) - 1;
}

static u32 arm_smmu_queue_count(const struct arm_smmu_queue *q)
{
	return (q->llq.prod - q->llq.cons) & arm_smmu_queue_mask(q);
}

/* Give @n slots back, and acknowledge the overflow if @flag says so. */
static void arm_smmu_queue_release(struct arm_smmu_queue *q, u32 n, u32 flag)
{
	q->llq.cons = ((q->llq.cons + n) & arm_smmu_queue_mask(q)) | flag;

	/* The slots were read before the SMMU may write to them. */
	dma_mb();
	writel_relaxed(q->llq.cons, q->cons_reg);

	WRITE_ONCE(q->handled, q->handled + n);
	if (wq_has_sleeper(&q->handled_wait))
		wake_up_all(&q->handled_wait);
}

struct arm_smmu_pass {
	struct arm_smmu_queue *q;
	bool (*handle)(struct arm_smmu_device *smmu, u64 *entry,
		       struct arm_smmu_batch *batch);
	/* The queue was read to its end, and entries that belonged behind are lost. */
	void (*lost)(struct arm_smmu_device *smmu);
};

/* Report @n entries, which stay where they are. Returns how many were reported. */
static u32 arm_smmu_pass_batch(struct arm_smmu_device *smmu,
			       const struct arm_smmu_pass *pass, u32 n, bool softirq)
{
	struct arm_smmu_batch batch = { .softirq = softirq };
	struct arm_smmu_queue *q = pass->q;
	u64 entry[EVTQ_ENT_DWORDS];
	u32 i, j;

	for (i = 0; i < n; i++) {
		__le64 *slot = Q_ENT(q, q->llq.cons + i);

		for (j = 0; j < q->ent_dwords; j++)
			entry[j] = le64_to_cpu(slot[j]);
		if (!pass->handle(smmu, entry, &batch))
			break;
	}
	return i;
}

/*
 * Until the queue is empty. After an overflow of the PRI queue nothing is written
 * before it is acknowledged, so the end of the queue really is the end; the same
 * write of CONS that gives the last slots back does that (8.1).
 */
static void arm_smmu_pass_queue(struct arm_smmu_device *smmu,
				const struct arm_smmu_pass *pass)
{
	struct arm_smmu_queue *q = pass->q;
	bool overflow;
	u32 left, n;

	for (;;) {
		overflow = arm_smmu_queue_refresh(q);
		left = arm_smmu_queue_count(q);
		if (!left && !overflow)
			return;

		do {
			n = min(left, ARM_SMMU_PASS_BATCH);
			left -= n;
			mutex_lock(&smmu->streams_mutex);
			arm_smmu_pass_batch(smmu, pass, n, false);
			mutex_unlock(&smmu->streams_mutex);
			if (overflow && !left)
				pass->lost(smmu);
			arm_smmu_queue_release(q, n, Q_OVF(left ? q->llq.cons : q->llq.prod));
			cond_resched();
		} while (left);
	}
}

/*
 * The same, in a bottom half: within the budget. To the end, as the SMMU interrupts when
 * a queue was empty, and not for each entry (3.18).
 * Returns false if something is left.
 */
static bool arm_smmu_try_pass(struct arm_smmu_device *smmu,
			      const struct arm_smmu_pass *pass, u32 budget)
{
	struct arm_smmu_queue *q = pass->q;
	u32 n, done;

	for (; !arm_smmu_queue_refresh(q); budget -= n) {
		n = arm_smmu_queue_count(q);
		if (!n)
			return true;
		if (!budget)
			return false;
		n = min(n, budget);
		done = arm_smmu_pass_batch(smmu, pass, n, true);
		arm_smmu_queue_release(q, done, Q_OVF(q->llq.cons));
		if (done < n)
			return false;
	}
	return false;
}

/* For when there may be work, but no interrupt */
static void arm_smmu_wake_thread(struct arm_smmu_device *smmu, struct arm_smmu_queue *q)
{
	irq_wake_thread(smmu->combined_irq ?: q->irq, smmu);
}

static irqreturn_t arm_smmu_queue_irq(struct arm_smmu_queue *q)
{
	if (unlikely(READ_ONCE(q->behind)))
		return IRQ_WAKE_THREAD;
	irq_poll_sched(&q->poll);
	return IRQ_HANDLED;
}

/*
 * The bottom half or the thread has ended, which left CONS at @cons, and can be scheduled
 * again. Entries that came while it could not are seen here, and later ones interrupt.
 */
static void arm_smmu_queue_ended(struct arm_smmu_device *smmu, struct arm_smmu_queue *q, u32 cons)
{
	/* An interrupt has either found that it can be, or PROD was moved before the read. */
	smp_mb();
	if (unlikely(READ_ONCE(q->behind)))
		arm_smmu_wake_thread(smmu, q);
	else if (unlikely(readl(q->prod_reg) != cons))
		irq_poll_sched(&q->poll);
}

/* Whether something is left is known here, so the queue is never polled on. */
static int arm_smmu_queue_poll(struct arm_smmu_device *smmu, const struct arm_smmu_pass *pass,
			       int budget)
{
	struct arm_smmu_queue *q = pass->q;
	u32 cons;

	/* The first: scheduled before it was so */
	if (likely(!READ_ONCE(q->behind)) && unlikely(!arm_smmu_try_pass(smmu, pass, budget)))
		WRITE_ONCE(q->behind, true);
	cons = q->llq.cons;
	irq_poll_complete(&q->poll);
	arm_smmu_queue_ended(smmu, q, cons);
	return 0;
}

static void arm_smmu_queue_thread(struct arm_smmu_device *smmu,
				  const struct arm_smmu_pass *pass)
{
	struct arm_smmu_queue *q = pass->q;
	u32 cons;

	/* What was to be done there is done here. */
	irq_poll_disable(&q->poll);
	WRITE_ONCE(q->behind, false);
	arm_smmu_pass_queue(smmu, pass);
	cons = q->llq.cons;
	irq_poll_enable(&q->poll);
	arm_smmu_queue_ended(smmu, q, cons);
}

/* Records of stalls wait until they are written (7.4): only others are lost. */
static void arm_smmu_evtq_lost(struct arm_smmu_device *smmu)
{
	dev_err_ratelimited(smmu->dev, "event queue overflow, events lost\n");
}

static struct arm_smmu_pass arm_smmu_evtq_pass(struct arm_smmu_device *smmu)
{
	return (struct arm_smmu_pass){
		.q = &smmu->evtq.q,
		.handle = arm_smmu_handle_event,
		.lost = arm_smmu_evtq_lost,
	};
}

irqreturn_t arm_smmu_evtq_irq(int irq, void *dev)
{
	struct arm_smmu_device *smmu = dev;

	return arm_smmu_queue_irq(&smmu->evtq.q);
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_evtq_irq);

static int arm_smmu_evtq_poll(struct irq_poll *poll, int budget)
{
	struct arm_smmu_device *smmu = container_of(poll, struct arm_smmu_device, evtq.q.poll);
	const struct arm_smmu_pass pass = arm_smmu_evtq_pass(smmu);

	return arm_smmu_queue_poll(smmu, &pass, budget);
}

irqreturn_t arm_smmu_evtq_thread(int irq, void *dev)
{
	const struct arm_smmu_pass pass = arm_smmu_evtq_pass(dev);

	arm_smmu_queue_thread(dev, &pass);
	return IRQ_HANDLED;
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_evtq_thread);

/*
 * The SMMU has answered the lost requests that were the last of their group, with
 * "success": the device asks again. Groups that were begun are void, and their
 * index may come again with another meaning (8.1.1).
 */
static void arm_smmu_priq_lost(struct arm_smmu_device *smmu)
{
	dev_err_ratelimited(smmu->dev, "PRI queue overflow, page requests lost\n");
	if (smmu->priq.iopf)
		iopf_queue_discard_partial(smmu->priq.iopf);
}

static struct arm_smmu_pass arm_smmu_priq_pass(struct arm_smmu_device *smmu)
{
	return (struct arm_smmu_pass){
		.q = &smmu->priq.q,
		.handle = arm_smmu_handle_ppr,
		.lost = arm_smmu_priq_lost,
	};
}

irqreturn_t arm_smmu_priq_irq(int irq, void *dev)
{
	struct arm_smmu_device *smmu = dev;

	return arm_smmu_queue_irq(&smmu->priq.q);
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_priq_irq);

static int arm_smmu_priq_poll(struct irq_poll *poll, int budget)
{
	struct arm_smmu_device *smmu = container_of(poll, struct arm_smmu_device, priq.q.poll);
	const struct arm_smmu_pass pass = arm_smmu_priq_pass(smmu);

	return arm_smmu_queue_poll(smmu, &pass, budget);
}

irqreturn_t arm_smmu_priq_thread(int irq, void *dev)
{
	struct arm_smmu_device *smmu = dev;
	const struct arm_smmu_pass pass = arm_smmu_priq_pass(smmu);
	bool aborted = xchg(&smmu->priq.aborted, false);

	arm_smmu_queue_thread(smmu, &pass);
	if (aborted)
		arm_smmu_priq_lost(smmu);
	return IRQ_HANDLED;
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_priq_thread);

/**
 * arm_smmu_priq_aborted() - The SMMU failed to write to the PRI queue
 * @smmu: the SMMU
 *
 * What it wanted to write is gone, so that groups may miss a request. As after
 * an overflow the thread discards those that are not complete.
 *
 * Context: The GERROR interrupt.
 */
void arm_smmu_priq_aborted(struct arm_smmu_device *smmu)
{
	WRITE_ONCE(smmu->priq.aborted, true);
	if (arm_smmu_queue_is_served(smmu, &smmu->priq.q))
		arm_smmu_wake_thread(smmu, &smmu->priq.q);
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_priq_aborted);

/* Only a queue that is broken takes so long; what it holds finds no handler later. */
#define SMMU_DRAIN_TIMEOUT	(30 * HZ)

/**
 * arm_smmu_iopf_drain() - Wait for the faults of a translation that is gone
 * @master: the device whose STE or CD was changed
 *
 * The caller has changed the STE or CD, invalidated it, and a CMD_SYNC has
 * completed: all records of transactions that stalled with it are in the queue
 * then (4.7.3). For page requests the CMD_SYNC after the CMD_ATC_INV counts: the
 * function's Invalidate Completion pushes its requests ahead of it. No command is
 * needed here; what is left is to wait until what the queue holds now was passed.
 * Later entries, which a device that goes on may cause for ever, do
 * not count.
 *
 * Context: Process context, sleeps. No lock that the thread or a handler on the
 * fault core's workqueue takes, so not under streams_mutex.
 */
void arm_smmu_iopf_drain(struct arm_smmu_master *master)
{
	struct arm_smmu_device *smmu = master->smmu;
	struct arm_smmu_queue *q = master->iopf_pri ? &smmu->priq.q : &smmu->evtq.q;
	u32 end;

	if (!master->iopf_enabled)
		return;

	end = READ_ONCE(q->handled);
	/* The thread may move on in between: @handled first, it must not be newer than PROD. */
	rmb();
	end += (readl(q->prod_reg) - end) & arm_smmu_queue_mask(q);

	/* The message that is the interrupt may have been lost (GERROR.MSI_*_ABT_ERR). */
	arm_smmu_wake_thread(smmu, q);
	if (!wait_event_timeout(q->handled_wait, (s32)(READ_ONCE(q->handled) - end) >= 0,
				SMMU_DRAIN_TIMEOUT))
		dev_err(master->dev, "faults stay in the SMMU's queue\n");

	iopf_queue_flush_dev(master->dev);
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_iopf_drain);

/**
 * arm_smmu_page_drain() - Wait for the requests that a device sent before its reset
 * @dev: the device; it can send no more
 *
 * The reads of its configuration that told the end of the reset have pushed them
 * ahead. Answers are commands, which are taken in order: none that is in the queue
 * passes those of later faults.
 *
 * Context: Process context, sleeps.
 */
void arm_smmu_page_drain(struct device *dev)
{
	arm_smmu_iopf_drain(dev_iommu_priv_get(dev));
}

static void arm_smmu_iopf_queue_free(void *queue)
{
	iopf_queue_free(queue);
}

static int arm_smmu_iopf_queue_alloc(struct arm_smmu_device *smmu, struct iopf_queue **queue)
{
	*queue = iopf_queue_alloc(dev_name(smmu->dev));
	if (!*queue)
		return -ENOMEM;
	return devm_add_action_or_reset(smmu->dev, arm_smmu_iopf_queue_free, *queue);
}

static int arm_smmu_iopf_alloc(struct arm_smmu_device *smmu)
{
	int ret;

	if (!IS_ENABLED(CONFIG_ARM_SMMU_V3_IOPF))
		return 0;

	if (smmu->features & ARM_SMMU_FEAT_STALLS) {
		ret = arm_smmu_iopf_queue_alloc(smmu, &smmu->evtq.iopf);
		if (ret)
			return ret;
		/* No device can have more stalled than all of them (IDR5.STALL_MAX). */
		smmu->evtq.iopf->credits = smmu->evtq.max_stalls;
	}
	if (smmu->features & ARM_SMMU_FEAT_PRI)
		return arm_smmu_iopf_queue_alloc(smmu, &smmu->priq.iopf);
	return 0;
}

/**
 * arm_smmu_iopf_forget() - Wait until no fault uses a device any more
 * @smmu: the SMMU, out of whose streams it was taken, under streams_mutex
 *
 * Context: Process context, may sleep.
 */
void arm_smmu_iopf_forget(struct arm_smmu_device *smmu)
{
	/* A bottom half is an RCU reader, as all softirqs are. */
	synchronize_rcu();
}

static void arm_smmu_iopf_stop(void *data)
{
	struct arm_smmu_device *smmu = data;

	irq_poll_disable(&smmu->evtq.q.poll);
	irq_poll_disable(&smmu->priq.q.poll);
}

/**
 * arm_smmu_iopf_init() - Prepare an SMMU for faults
 * @smmu: the SMMU, its features probed and its queues allocated
 *
 * Return: 0 or -ENOMEM.
 */
int arm_smmu_iopf_init(struct arm_smmu_device *smmu)
{
	int ret;

	init_waitqueue_head(&smmu->evtq.q.handled_wait);
	init_waitqueue_head(&smmu->priq.q.handled_wait);
	irq_poll_init(&smmu->evtq.q.poll, ARM_SMMU_BUDGET, arm_smmu_evtq_poll);
	irq_poll_init(&smmu->priq.q.poll, ARM_SMMU_BUDGET, arm_smmu_priq_poll);
	ret = arm_smmu_iopf_alloc(smmu);
	if (ret)
		return ret;
	/* After the interrupts, before the queues and what faults are reported to */
	return devm_add_action_or_reset(smmu->dev, arm_smmu_iopf_stop, smmu);
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_iopf_init);
