// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page request queue: from a raw descriptor to the fault core, and back from a
 * group's answer to the invalidation queue
 *
 * The hardware writes page requests to a ring, moves the tail and interrupts. What
 * is between head and tail is handed, request by request, to the fault core
 * (io-pgfault.c), which collects groups and finds out who serves them, and the head
 * is moved. A group's answer is a descriptor of the invalidation queue.
 *
 *	prq_irq()		schedules the bottom half
 *	prq_bottom_half()	in a softirq, where a switch to a thread and back
 *				would cost as much as all the rest: up to PRQ_BUDGET
 *				requests. It leaves to the thread what is beyond,
 *				and an overflow
 *	prq_event_thread()	all that is there
 *
 * How all this is set up, and put away while the system sleeps, is in prq-setup.c.
 *
 * The two never run at the same time: the thread disables the bottom half, which ends
 * it. While either runs an interrupt has no effect; so both look at the pending bit
 * when they have ended, in prq_ended(). A bottom half that left something to the
 * thread is the last one until the thread has run, however late that is. So a flood
 * of requests takes no more of a processor's softirqs than the budget before it is
 * the scheduler's.
 *
 * Every last request of a group is answered once: by the handler the core found,
 * by the core, or, if nothing is known of the device, here. While the queue
 * overflows, the hardware answers what it cannot write.
 *
 * Section numbers are those of the "Intel Virtualization Technology for Directed
 * I/O" specification, revision 5.10.
 *
 * Who may touch what:
 *
 *	head register, prq_seq_number,	the thread, or the bottom half
 *	prq_passes
 *	prq_behind			the same; read by the interrupt
 *	prq_overflows			the thread alone; read by drainers, as is
 *					prq_passes
 *	device of a source id		stays until iopf_lock is free and the bottom
 *					half has ended: see intel_iommu_forget_prq().
 *					Looked up once for a run of requests from one
 *					source
 */

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/bitfield.h>
#include <linux/bitops.h>
#include <linux/device.h>
#include <linux/interrupt.h>
#include <linux/irq_poll.h>
#include <linux/pci.h>
#include <linux/rcupdate.h>
#include <linux/wait.h>

#include "iommu.h"
#include "pasid.h"
#include "prq.h"
#include "../iommu-pages.h"
#include "trace.h"

#define PRQ_DSC_SIZE	sizeof(struct page_req_dsc)

/* Third word of a PASID table entry (9.6): SRE, and FSPM for 5 levels */
#define PASID_SUPERVISOR	BIT_ULL(0)
#define PASID_FIVE_LEVELS	BIT_ULL(2)

/* After so many requests of a run the hardware has their slots back. */
#define PRQ_HEAD_STEP	16

/* Answers that share one doorbell: as many as the stack has room for */
#define PRQ_ANSWERS	16

static u32 prq_head(struct intel_iommu *iommu)
{
	return readq(iommu->reg + DMAR_PQH_REG) & PRQ_RING_MASK;
}

static u32 prq_tail(struct intel_iommu *iommu)
{
	return readq(iommu->reg + DMAR_PQT_REG) & PRQ_RING_MASK;
}

static u32 prq_next(u32 offset)
{
	return (offset + PRQ_DSC_SIZE) & PRQ_RING_MASK;
}

static struct page_req_dsc *prq_at(struct intel_iommu *iommu, u32 offset)
{
	return iommu->prq + offset / PRQ_DSC_SIZE;
}

static u16 prq_source(const struct page_req_dsc *req)
{
	return FIELD_GET(PRQ_SID, READ_ONCE(req->qw[0]));
}

/* IOMMU_NO_PASID if the request has none */
static u32 prq_pasid(const struct page_req_dsc *req)
{
	u64 qw0 = READ_ONCE(req->qw[0]);

	return qw0 & PRQ_PASID_PRESENT ? FIELD_GET(PRQ_PASID, qw0) : IOMMU_NO_PASID;
}

/* Bits of the Page Request Status Register (11.4.11.4) are cleared by writing ones. */
void prq_acknowledge(struct intel_iommu *iommu, u32 bits)
{
	KUNIT_STATIC_STUB_REDIRECT(prq_acknowledge, iommu, bits);

	writel(bits, iommu->reg + DMAR_PRS_REG);
}

static u32 prq_status(struct intel_iommu *iommu)
{
	return readl(iommu->reg + DMAR_PRS_REG);
}

static bool prq_overflowed(struct intel_iommu *iommu)
{
	return prq_status(iommu) & DMA_PRS_PRO;
}

/* ---- answers ---- */

/*
 * Page Group Response Descriptor (7.6.1). The core's codes are PCIe's numbers (table
 * 32) except for FAILURE. It only ever answers the last request of a group (7.6).
 */
static struct qi_desc prq_answer(u16 sid, const struct iommu_fault_page_request *prm,
				 enum iommu_page_response_code code)
{
	u64 response = code == IOMMU_PAGE_RESP_FAILURE ? QI_RESP_FAILURE :
		       code == IOMMU_PAGE_RESP_INVALID ? QI_RESP_INVALID : QI_RESP_SUCCESS;
	struct qi_desc desc = {
		.qw0 = QI_PGRP_RESP_TYPE | QI_PGRP_RESP_CODE(response) | QI_PGRP_DID(sid),
		.qw1 = QI_PGRP_IDX(prm->grpid),
	};

	if (prm->flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID)
		desc.qw0 |= QI_PGRP_PASID_P(1) | QI_PGRP_PASID(prm->pasid);

	return desc;
}

static u16 prq_source_of(struct device *dev)
{
	struct device_domain_info *info = dev_iommu_priv_get(dev);

	return PCI_DEVID(info->bus, info->devfn);
}

/**
 * intel_iommu_page_response() - Answer one page request group
 * @dev: the device that waits
 * @evt: the last request of the group
 * @msg: the code
 *
 * Context: Any. The answer is queued on return, see qi_post().
 */
void intel_iommu_page_response(struct device *dev, struct iopf_fault *evt,
			       struct iommu_page_response *msg)
{
	struct device_domain_info *info = dev_iommu_priv_get(dev);
	struct qi_desc desc = prq_answer(prq_source_of(dev), &evt->fault.prm, msg->code);

	qi_post(info->iommu, &desc, 1);
}

static struct qi_desc prq_answer_of(const struct iopf_answer *answer)
{
	const struct iopf_group *group = answer->group;

	return prq_answer(prq_source_of(group->fault_param->dev), &group->last_fault.fault.prm,
			  answer->code);
}

static noinline void prq_post_many(struct intel_iommu *iommu, const struct iopf_answer *answers,
				   unsigned int count)
{
	struct qi_desc desc[PRQ_ANSWERS];
	unsigned int i, n;

	for (; count; count -= n, answers += n) {
		n = min(count, ARRAY_SIZE(desc));
		for (i = 0; i < n; i++)
			desc[i] = prq_answer_of(&answers[i]);
		qi_post(iommu, desc, n);
	}
}

/**
 * intel_iommu_page_response_batch() - Answer page request groups together
 * @iommu_dev: the IOMMU that all of their devices are behind
 * @answers: the groups and their codes
 * @count: number of @answers
 *
 * Context: Any. The answers are queued on return, see qi_post().
 */
void intel_iommu_page_response_batch(struct iommu_device *iommu_dev,
				     const struct iopf_answer *answers, unsigned int count)
{
	struct intel_iommu *iommu = container_of(iommu_dev, struct intel_iommu, iommu);
	struct qi_desc desc;

	/* Where the stack is cleared, that of the many would cost one more than itself. */
	if (count != 1) {
		prq_post_many(iommu, answers, count);
		return;
	}
	desc = prq_answer_of(answers);
	qi_post(iommu, &desc, 1);
}

/* ---- requests ---- */

/* "Execute Requested" has a meaning beside "Read Requested" alone (7.4.1.1). */
static bool prq_executes(const struct page_req_dsc *req)
{
	return req->qw[0] & PRQ_EXEC && req->qw[1] & PRQ_READ;
}

/*
 * Page Request Descriptor (7.4.1.1); what is reserved in it is not looked at. @fault
 * is clear.
 */
static void prq_decode(const struct page_req_dsc *req, struct iommu_fault *fault)
{
	struct iommu_fault_page_request *prm = &fault->prm;
	u64 qw0 = req->qw[0], qw1 = req->qw[1];

	fault->type = IOMMU_FAULT_PAGE_REQ;
	prm->addr = qw1 & PRQ_ADDR;
	prm->grpid = FIELD_GET(PRQ_INDEX, qw1);
	prm->pasid = prq_pasid(req);

	if (qw0 & PRQ_PASID_PRESENT)
		prm->flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID |
			      IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID;
	if (qw1 & PRQ_LPIG)
		prm->flags |= IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;

	if (qw1 & PRQ_READ)
		prm->perm |= IOMMU_FAULT_PERM_READ;
	if (qw1 & PRQ_WRITE)
		prm->perm |= IOMMU_FAULT_PERM_WRITE;
	if (prq_executes(req))
		prm->perm |= IOMMU_FAULT_PERM_EXEC;
	if (qw0 & PRQ_PRIV)
		prm->perm |= IOMMU_FAULT_PERM_PRIV;
}

/* The entry that translates for @pasid, or NULL while there is none */
static struct pasid_entry *prq_pasid_entry(struct device_domain_info *info, u32 pasid)
{
	struct pasid_table *table = info->pasid_table;
	struct pasid_dir_entry *dir;
	struct pasid_entry *entry;

	if (!table || pasid >= table->max_pasid)
		return NULL;

	dir = table->table;
	entry = get_pasid_table_from_pde(&dir[pasid >> PASID_PDE_SHIFT]);
	if (!entry)
		return NULL;

	entry += pasid & PASID_PTE_MASK;
	return pasid_pte_is_present(entry) ? entry : NULL;
}

static bool prq_is_first_stage(struct pasid_entry *entry)
{
	u16 type = pasid_pte_get_pgtt(entry);

	return type == PASID_ENTRY_PGTT_FL_ONLY || type == PASID_ENTRY_PGTT_NESTED;
}

/* Can the tables that @entry points to hold the address at all? */
static bool prq_translatable(struct intel_iommu *iommu, struct pasid_entry *entry, u64 addr)
{
	unsigned int bits;

	if (!prq_is_first_stage(entry))
		return fls64(addr) <= cap_mgaw(iommu->cap);

	bits = READ_ONCE(entry->val[2]) & PASID_FIVE_LEVELS ? 57 : 48;
	return (u64)sign_extend64(addr, bits - 1) == addr;
}

/*
 * Why a request cannot be served whatever a handler maps, or NULL. Permissions
 * beyond read and write need the device's PASID capability to have them enabled.
 * A first stage refuses privileged accesses unless Supervisor Request Enable is set
 * in its entry (9.6); so far only user-managed tables ask for that.
 *
 * Without an entry the domain is being detached, and the core knows what to do.
 */
static const char *prq_refusal(struct device_domain_info *info, const struct page_req_dsc *req)
{
	u64 qw0 = req->qw[0], qw1 = req->qw[1];
	struct pasid_entry *entry;

	if (!(qw1 & (PRQ_READ | PRQ_WRITE)))
		return "asks for no access";
	if ((prq_executes(req) || qw0 & PRQ_PRIV) && !(qw0 & PRQ_PASID_PRESENT))
		return "execute or privileged, but without a PASID";
	if (prq_executes(req) && !(info->pasid_supported & PCI_PASID_CAP_EXEC))
		return "the device may not execute";
	if (qw0 & PRQ_PRIV && !(info->pasid_supported & PCI_PASID_CAP_PRIV))
		return "the device may not be privileged";

	entry = prq_pasid_entry(info, prq_pasid(req));
	if (!entry)
		return NULL;
	if (!prq_translatable(info->iommu, entry, qw1 & PRQ_ADDR))
		return "address not canonical";
	if (qw0 & PRQ_PRIV && prq_is_first_stage(entry) &&
	    !(READ_ONCE(entry->val[2]) & PASID_SUPERVISOR))
		return "the domain allows no privileged access";

	return NULL;
}

/*
 * A Stop Marker (PCIe 6.0, 10.4.1.2.1) ends the use of a PASID. It is not a
 * request: it takes no credit and gets no answer. The device has sent all it
 * will of this PASID, so a group that lacks its last request now will not get it.
 * The same without a PASID is a request that asks for nothing.
 */
static bool prq_is_stop_marker(const struct page_req_dsc *req)
{
	return (req->qw[1] & (PRQ_LPIG | PRQ_WRITE | PRQ_READ)) == PRQ_LPIG &&
	       req->qw[0] & PRQ_PASID_PRESENT;
}

/* Nobody to be told of the request: the device has left, or never was here. */
static void prq_reject(struct intel_iommu *iommu, const struct page_req_dsc *req)
{
	struct iommu_fault fault = {};
	struct qi_desc desc;

	pr_err_ratelimited("%s: page request of unknown device %04x: %016llx %016llx\n",
			   iommu->name, prq_source(req), req->qw[0], req->qw[1]);
	if (!(req->qw[1] & PRQ_LPIG))
		return;

	prq_decode(req, &fault);
	desc = prq_answer(prq_source(req), &fault.prm, IOMMU_PAGE_RESP_INVALID);
	qi_post(iommu, &desc, 1);
}

VISIBLE_IF_KUNIT void prq_report(struct device *dev, struct iopf_fault *evt)
{
	KUNIT_STATIC_STUB_REDIRECT(prq_report, dev, evt);

	/* With an error it has been answered. */
	iommu_report_device_fault(dev, evt);
}

static void prq_handle(struct intel_iommu *iommu, struct device *dev,
		       const struct page_req_dsc *req)
{
	struct iopf_fault evt = {};
	const char *refusal;

	if (FIELD_GET(PRQ_TYPE, req->qw[0]) != PRQ_TYPE_REQUEST) {
		pr_err_ratelimited("%s: unknown descriptor in the page request queue: %016llx %016llx\n",
				   iommu->name, req->qw[0], req->qw[1]);
		return;
	}
	if (prq_is_stop_marker(req)) {
		if (dev)
			iopf_discard_pasid(dev, prq_pasid(req));
		return;
	}
	if (!dev) {
		prq_reject(iommu, req);
		return;
	}

	prq_decode(req, &evt.fault);
	refusal = prq_refusal(dev_iommu_priv_get(dev), req);
	if (refusal) {
		dev_err_ratelimited(dev, "page request refused, %s: %016llx %016llx\n",
				    refusal, req->qw[0], req->qw[1]);
		evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_REFUSED;
	}
	prq_report(dev, &evt);
	trace_prq_report(iommu, dev, req->qw[0], req->qw[1], req->qw[2], req->qw[3],
			 iommu->prq_seq_number++);
}

/*
 * Requests that follow each other from one source; returns the new head. Slots
 * are given back as they are used, so that a burst finds room while this works.
 */
static u32 prq_run(struct intel_iommu *iommu, u32 head, u32 end)
{
	u16 sid = prq_source(prq_at(iommu, head));
	struct device *dev = device_rbtree_find(iommu, sid);
	struct page_req_dsc req;

	do {
		req = *prq_at(iommu, head);
		prq_handle(iommu, dev, &req);
		head = prq_next(head);
		if (!(head % (PRQ_HEAD_STEP * PRQ_DSC_SIZE)))
			writeq(head, iommu->reg + DMAR_PQH_REG);
	} while (head != end && prq_source(prq_at(iommu, head)) == sid);
	writeq(head, iommu->reg + DMAR_PQH_REG);

	return head;
}

/*
 * All that is in the queue now. What comes later interrupts again, because the
 * pending bit is cleared before the tail is read (7.5).
 *
 * iopf_lock keeps the device of a run: who takes it out of the tree holds that
 * lock, and waits for at most one ring of requests here.
 */
static void prq_pass(struct intel_iommu *iommu)
{
	u32 head, tail;

	prq_acknowledge(iommu, DMA_PRS_PPR);
	tail = prq_tail(iommu);
	head = prq_head(iommu);
	while (head != tail) {
		mutex_lock(&iommu->iopf_lock);
		head = prq_run(iommu, head, tail);
		mutex_unlock(&iommu->iopf_lock);
	}
}

/* The same, in a bottom half: within the budget */
static bool prq_try_pass(struct intel_iommu *iommu, u32 budget)
{
	u32 head, tail, end;

	prq_acknowledge(iommu, DMA_PRS_PPR);
	tail = prq_tail(iommu);
	head = prq_head(iommu);
	end = tail;
	if (((tail - head) & PRQ_RING_MASK) > budget * PRQ_DSC_SIZE)
		end = (head + budget * PRQ_DSC_SIZE) & PRQ_RING_MASK;
	while (head != end)
		head = prq_run(iommu, head, end);

	return head == tail;
}

/* A pass that went to the tail has ended: see prq_wait_reported(). */
static void prq_passed(struct intel_iommu *iommu)
{
	WRITE_ONCE(iommu->prq_passes, iommu->prq_passes + 1);
	if (wq_has_sleeper(&iommu->prq_wait))
		wake_up_all(&iommu->prq_wait);
}

/*
 * After an overflow nothing is written to the queue until the overflow bit is
 * cleared. Of what the hardware drops, it answers the last requests, with SUCCESS
 * (7.4.1, table 31): the device asks again. The bit is cleared when the queue is
 * empty: only then are the last requests that the core still waits for known to
 * be lost. The count of overflows comes first, see intel_iommu_drain_pasid_prq().
 *
 * Return: false if there are requests to be handled first.
 */
static bool prq_recover(struct intel_iommu *iommu)
{
	if (likely(!prq_overflowed(iommu)))
		return true;
	if (prq_head(iommu) != prq_tail(iommu))
		return false;

	pr_info_ratelimited("%s: page request queue overflow\n", iommu->name);
	iopf_queue_discard_partial(iommu->iopf_queue);
	WRITE_ONCE(iommu->prq_overflows, iommu->prq_overflows + 1);
	prq_acknowledge(iommu, DMA_PRS_PRO);
	return true;
}

VISIBLE_IF_KUNIT void prq_wake_thread(struct intel_iommu *iommu)
{
	KUNIT_STATIC_STUB_REDIRECT(prq_wake_thread, iommu);

	irq_wake_thread(iommu->pr_irq, iommu);
}

VISIBLE_IF_KUNIT void prq_schedule(struct intel_iommu *iommu)
{
	KUNIT_STATIC_STUB_REDIRECT(prq_schedule, iommu);

	irq_poll_sched(&iommu->prq_poll);
}

/*
 * The bottom half or the thread has ended, and can be scheduled again. Requests that
 * came while it could not have left their bit, and what is later interrupts.
 */
static void prq_ended(struct intel_iommu *iommu)
{
	u32 status;

	/* An interrupt has either found that it can be, or set its bit before the read. */
	smp_mb();
	status = prq_status(iommu);
	if (unlikely(status & DMA_PRS_PRO))
		WRITE_ONCE(iommu->prq_behind, true);
	if (unlikely(READ_ONCE(iommu->prq_behind)))
		prq_wake_thread(iommu);
	else if (unlikely(status & DMA_PRS_PPR))
		prq_schedule(iommu);
}

irqreturn_t prq_event_thread(int irq, void *data)
{
	struct intel_iommu *iommu = data;
	bool done;

	/* What was to be done there is done here. */
	irq_poll_disable(&iommu->prq_poll);
	WRITE_ONCE(iommu->prq_behind, false);
	do {
		prq_pass(iommu);
		done = prq_recover(iommu);
		prq_passed(iommu);
	} while (!done);
	irq_poll_enable(&iommu->prq_poll);
	prq_ended(iommu);

	return IRQ_HANDLED;
}

/* Up to @budget requests. Whether that was all is known here, so it is never polled on. */
int prq_bottom_half(struct irq_poll *poll, int budget)
{
	struct intel_iommu *iommu = container_of(poll, struct intel_iommu, prq_poll);

	/* Else scheduled before it was so */
	if (likely(!READ_ONCE(iommu->prq_behind))) {
		if (likely(prq_try_pass(iommu, budget)))
			prq_passed(iommu);
		else
			WRITE_ONCE(iommu->prq_behind, true);
	}
	irq_poll_complete(poll);
	prq_ended(iommu);
	return 0;
}

/* Nothing is scheduled before the thread has come to what was left to it. */
irqreturn_t prq_irq(int irq, void *data)
{
	struct intel_iommu *iommu = data;

	if (unlikely(READ_ONCE(iommu->prq_behind)))
		return IRQ_WAKE_THREAD;
	prq_schedule(iommu);
	return IRQ_HANDLED;
}

/**
 * prq_kick() - See to the queue as if it had interrupted
 * @iommu: the IOMMU
 *
 * For where its interrupt may have got lost, or does not come yet.
 *
 * Context: Any.
 */
void prq_kick(struct intel_iommu *iommu)
{
	KUNIT_STATIC_STUB_REDIRECT(prq_kick, iommu);

	if (prq_irq(iommu->pr_irq, iommu) == IRQ_WAKE_THREAD)
		prq_wake_thread(iommu);
}

/**
 * intel_iommu_forget_prq() - Wait until no page request uses a device any more
 * @iommu: the IOMMU, out of whose tree the device was taken under iopf_lock
 *
 * Context: Process context, may sleep.
 */
void intel_iommu_forget_prq(struct intel_iommu *iommu)
{
	/* A bottom half is an RCU reader, as all softirqs are. */
	if (iommu->prq)
		synchronize_rcu();
}

/* ---- drain ---- */

/* Does the queue hold a request of @pasid, or IOMMU_PASID_INVALID for any, from @sid? */
static bool prq_has_request(struct intel_iommu *iommu, u16 sid, u32 pasid)
{
	u32 head = prq_head(iommu), tail = prq_tail(iommu);

	for (; head != tail; head = prq_next(head)) {
		struct page_req_dsc *req = prq_at(iommu, head);

		if (prq_source(req) == sid &&
		    (pasid == IOMMU_PASID_INVALID || prq_pasid(req) == pasid))
			return true;
	}

	return false;
}

/* Tenths of a second that a drain waits; the hardware's requests take far less. */
VISIBLE_IF_KUNIT unsigned int prq_patience = 300;

/*
 * Wait until what the queue holds now is reported. The head is moved past a
 * request after that. Passes follow each other, so the second one to end from here
 * on began after now; later requests, which a device that was not stopped may send
 * forever, do not count.
 *
 * The interrupt is not waited for: while the system resumes, devices are restored
 * before it is on again. Where nothing helps the drain ends with a message, and what
 * is reported later finds no handler.
 */
static void prq_wait_reported(struct intel_iommu *iommu, u16 sid, u32 pasid)
{
	unsigned int begin = READ_ONCE(iommu->prq_passes), tries = 0;
	bool done = !prq_has_request(iommu, sid, pasid);

	for (; !done && tries < prq_patience; tries++) {
		prq_kick(iommu);
		done = wait_event_timeout(iommu->prq_wait,
					  !prq_has_request(iommu, sid, pasid) ||
					  READ_ONCE(iommu->prq_passes) - begin >= 2, HZ / 10);
	}
	if (!done)
		pr_err("%s: page requests of %04x stay in the queue\n", iommu->name, sid);
}

/*
 * A fence, and invalidations of all that @pasid has, IOTLB and device (7.10), but of
 * no device that will not answer: it has sent nothing since it was drained.
 *
 * Return: how many
 */
static unsigned int prq_drain_descs(struct qi_desc *desc, const struct device_domain_info *info,
				    u16 sid, u32 pasid, u16 did)
{
	bool mute = READ_ONCE(info->mute);
	u16 depth = info->ats_qdep;

	desc[0].qw0 = QI_IWD_STATUS_DATA(QI_DONE) | QI_IWD_FENCE | QI_IWD_TYPE;
	if (pasid != IOMMU_NO_PASID) {
		qi_desc_piotlb_all(did, pasid, &desc[1]);
		qi_desc_dev_iotlb_pasid(sid, info->pfsid, pasid, depth, 0, MAX_AGAW_PFN_WIDTH,
					&desc[2]);
	} else {
		qi_desc_iotlb(info->iommu, did, 0, 0, DMA_TLB_DSI_FLUSH, &desc[1]);
		qi_desc_dev_iotlb(sid, info->pfsid, depth, 0, MAX_AGAW_PFN_WIDTH, &desc[2]);
	}
	return mute ? 2 : 3;
}

/*
 * Push what is on its way into the queue, and answers out, behind @desc. What met
 * an overflow was answered by the hardware itself, and a second round drains such
 * answers (7.10 d). One is enough, however long the overflow lasts: requests later
 * than the first find no entry.
 */
static void prq_push(struct intel_iommu *iommu, struct qi_desc *desc, unsigned int count)
{
	unsigned int overflows = READ_ONCE(iommu->prq_overflows);

	qi_submit_sync(iommu, desc, count, QI_OPT_WAIT_DRAIN);
	if (prq_overflowed(iommu) || READ_ONCE(iommu->prq_overflows) != overflows)
		qi_submit_sync(iommu, desc, count, QI_OPT_WAIT_DRAIN);
}

/**
 * intel_iommu_drain_pasid_prq - Wait for the page requests of a pasid
 * @dev: the device
 * @pasid: whose entry is non-present, its translations invalidated;
 *	   IOMMU_NO_PASID for the requests without one
 * @did: domain id the entry had
 *
 * Pushes what is still between the device and the queue into the queue, by the
 * steps of 7.10, and waits until all of it was reported or answered. Answers that
 * were queued before are out, and handlers on the workqueue have returned as well.
 *
 * Context: Process context, sleeps.
 */
void intel_iommu_drain_pasid_prq(struct device *dev, u32 pasid, u16 did)
{
	struct device_domain_info *info = dev_iommu_priv_get(dev);
	struct intel_iommu *iommu = info->iommu;
	u16 sid = prq_source_of(dev);
	struct qi_desc desc[3] = { };

	if (!info->pri_enabled)
		return;

	/* See intel_iommu_device_mute() */
	rcu_read_lock();
	prq_push(iommu, desc, prq_drain_descs(desc, info, sid, pasid, did));
	rcu_read_unlock();
	prq_wait_reported(iommu, sid, pasid);
	iopf_queue_flush_dev(dev);
}

/**
 * intel_iommu_page_drain() - Wait for what a device sent before it was reset
 * @dev: the device, its ATS and PRI off
 *
 * No invalidation takes part: the device has no translations left. The reads of
 * its configuration that told the end of the reset have pushed its requests to the
 * IOMMU, and the wait descriptor pushes them into the queue.
 *
 * Context: Process context, sleeps.
 */
void intel_iommu_page_drain(struct device *dev)
{
	struct device_domain_info *info = dev_iommu_priv_get(dev);
	struct qi_desc none = { };

	prq_push(info->iommu, &none, 0);
	prq_wait_reported(info->iommu, prq_source_of(dev), IOMMU_PASID_INVALID);
}
