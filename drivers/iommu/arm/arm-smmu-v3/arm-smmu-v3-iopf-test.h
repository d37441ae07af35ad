/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the KUnit tests of arm-smmu-v3-iopf.c share: raw queue entries in, exact commands out
 *
 * The SMMU is memory: queues that the test writes entries to and reads commands
 * from, and words that stand for the index registers. What lies between, the
 * fault core and the attachments to a RID and to a PASID, is real.
 */
#ifndef _ARM_SMMU_V3_IOPF_TEST_H
#define _ARM_SMMU_V3_IOPF_TEST_H

#include <kunit/test.h>
#include <linux/interrupt.h>
#include <linux/irq_poll.h>
#include <linux/timer.h>

#include "arm-smmu-v3.h"
#include "../../iommu-priv.h"

#define EVTQ_SHIFT	7	/* more than a bottom half handles */
#define PRIQ_SHIFT	6
#define CMDQ_SHIFT	9
#define STREAMS		3
#define FIRST_SID	0x8000abc0
#define UNKNOWN_SID	0x1234
#define PASID		0x2a
#define NO_IRQ		INT_MAX	/* a number that no interrupt has: the tests call the threads */

#define RETRY		1
#define ABORT		2

/* One stall or page request as the test means it; the raw words are made from it. */
struct request {
	u32 sid, ssid;
	bool ssv, write, exec, priv;
	bool last, none;	/* page requests: neither read nor write */
	u16 id;
	u64 addr;
};

struct fake {
	struct kunit *test;
	struct arm_smmu_device smmu;
	u32 evtq_regs[2], priq_regs[2], cmdq_regs[2];	/* PROD, CONS */
	unsigned int commands;				/* taken from the command queue */

	struct platform_device *pdev;
	struct device *dev;
	struct fwnode_handle *fwnode;
	bool registered;
	struct arm_smmu_master master;
	struct arm_smmu_stream streams[STREAMS];

	struct iommu_domain domain;
	bool attached;
	struct iommu_attach_handle rid, pasid;
	spinlock_t lock;		/* groups, queued */
	struct list_head groups;
	unsigned int queued;
	void (*on_group)(struct fake *f);
	struct iopf_answer answers[128];

	unsigned int functions;

	struct work_struct drain;
	struct completion drained;
	struct timer_list consume;	/* commands, so that there is room for others */
	u32 found_pending;		/* before that */
};

int smmu_fake_init(struct kunit *test);
void smmu_fake_exit(struct kunit *test);
int smmu_fake_handler(struct iopf_group *group);

/* The device's streams, as the SMMU finds them */
void smmu_fake_insert_streams(struct fake *f);
void smmu_fake_remove_streams(struct fake *f);

/* An interrupt that nothing raises, with the queue's thread. */
void smmu_fake_request_irq(struct fake *f, struct arm_smmu_queue *q, irq_handler_t thread);
void smmu_fake_free_irq(struct fake *f, struct arm_smmu_queue *q);

/* ---- The SMMU ---- */

static inline u32 pending(const struct arm_smmu_queue *q, const u32 *regs)
{
	return (READ_ONCE(regs[0]) - READ_ONCE(regs[1])) & ((2U << q->llq.max_n_shift) - 1);
}

static inline bool overflowed(const u32 *regs)
{
	return (regs[0] ^ regs[1]) & Q_OVERFLOW_FLAG;
}

/*
 * Write an entry as the SMMU does: false if the queue is full. A PRI queue then
 * is in overflow, and takes nothing until that is acknowledged.
 */
static inline bool push(struct arm_smmu_queue *q, u32 *regs, const u64 *words, bool loses)
{
	u32 mask = (2U << q->llq.max_n_shift) - 1;
	__le64 *slot = Q_ENT(q, regs[0]);
	size_t i;

	if (pending(q, regs) == 1U << q->llq.max_n_shift || (loses && overflowed(regs))) {
		if (loses && !overflowed(regs))
			regs[0] ^= Q_OVERFLOW_FLAG;
		return false;
	}
	for (i = 0; i < q->ent_dwords; i++)
		slot[i] = cpu_to_le64(words[i]);
	regs[0] = ((regs[0] + 1) & mask) | Q_OVF(regs[0]);
	return true;
}

static inline bool push_event(struct fake *f, const u64 *evt)
{
	return push(&f->smmu.evtq.q, f->evtq_regs, evt, false);
}

static inline bool push_stall(struct fake *f, const struct request *r)
{
	const u64 evt[EVTQ_ENT_DWORDS] = {
		EVT_ID_TRANSLATION_FAULT | (r->ssv ? BIT_ULL(11) : 0) | (u64)r->ssid << 12 |
			(u64)r->sid << 32,
		r->id | BIT_ULL(31) | (r->priv ? BIT_ULL(33) : 0) | (r->exec ? BIT_ULL(34) : 0) |
			(r->write ? 0 : BIT_ULL(35)),
		r->addr,
	};

	return push_event(f, evt);
}

static inline bool push_ppr(struct fake *f, const struct request *r)
{
	const u64 ppr[PRIQ_ENT_DWORDS] = {
		r->sid | (u64)r->ssid << 32 | (r->priv ? BIT_ULL(58) : 0) |
			(r->exec ? BIT_ULL(59) : 0) |
			(r->write || r->none ? 0 : BIT_ULL(60)) |
			(r->write ? BIT_ULL(61) : 0) | (r->last ? BIT_ULL(62) : 0) |
			(r->ssv ? BIT_ULL(63) : 0),
		r->addr | r->id,
	};

	return push(&f->smmu.priq.q, f->priq_regs, ppr, true);
}

static inline void run_evtq(struct fake *f)
{
	KUNIT_EXPECT_EQ(f->test, arm_smmu_evtq_thread(0, &f->smmu), IRQ_HANDLED);
	KUNIT_EXPECT_EQ(f->test, f->evtq_regs[0], f->evtq_regs[1]);
}

static inline void run_priq(struct fake *f)
{
	KUNIT_EXPECT_EQ(f->test, arm_smmu_priq_thread(0, &f->smmu), IRQ_HANDLED);
	KUNIT_EXPECT_EQ(f->test, f->priq_regs[0], f->priq_regs[1]);
}

/* Consume the oldest command; false if there is none. */
static inline bool take_command(struct fake *f, u64 *words)
{
	struct arm_smmu_queue *q = &f->smmu.cmdq.q;
	__le64 *slot = Q_ENT(q, f->cmdq_regs[1]);

	if (!pending(q, f->cmdq_regs))
		return false;
	words[0] = le64_to_cpu(slot[0]);
	words[1] = le64_to_cpu(slot[1]);
	f->cmdq_regs[1] = (f->cmdq_regs[1] + 1) & ((2U << CMDQ_SHIFT) - 1);
	f->commands++;
	return true;
}

static inline void expect_command(struct fake *f, u64 word0, u64 word1)
{
	u64 words[CMDQ_ENT_DWORDS] = {};

	KUNIT_ASSERT_TRUE(f->test, take_command(f, words));
	KUNIT_EXPECT_EQ(f->test, words[0], word0);
	KUNIT_EXPECT_EQ(f->test, words[1], word1);
}

static inline void expect_no_command(struct fake *f)
{
	u64 words[CMDQ_ENT_DWORDS];

	KUNIT_EXPECT_FALSE(f->test, take_command(f, words));
}

static inline void expect_resume(struct fake *f, u32 sid, u16 stag, u64 action)
{
	expect_command(f, 0x44 | action << 12 | (u64)sid << 32, stag);
}

static inline void expect_pri_resp(struct fake *f, u32 sid, bool ssv, u32 ssid, u16 index, u64 resp)
{
	expect_command(f, 0x41 | (ssv ? BIT_ULL(11) : 0) | (u64)ssid << 12 | (u64)sid << 32,
		       index | resp << 12);
}

/* ---- Groups ---- */

static inline struct iopf_group *take_group(struct fake *f)
{
	struct iopf_group *group;

	spin_lock_bh(&f->lock);
	group = list_first_entry_or_null(&f->groups, struct iopf_group, node);
	if (group)
		list_del_init(&group->node);
	spin_unlock_bh(&f->lock);
	return group;
}

static inline struct iopf_group *expect_group(struct fake *f, size_t requests)
{
	struct iopf_group *group = take_group(f);

	KUNIT_ASSERT_NOT_NULL(f->test, group);
	KUNIT_EXPECT_EQ(f->test, group->fault_count, requests);
	return group;
}

static inline void expect_no_group(struct fake *f)
{
	KUNIT_EXPECT_TRUE(f->test, list_empty(&f->groups));
}

static inline void answer(struct iopf_group *group, enum iommu_page_response_code code)
{
	iopf_group_response(group, code);
	iopf_free_group(group);
}

/* Answer all groups in one batch; returns how many there were. */
static inline unsigned int answer_all(struct fake *f, enum iommu_page_response_code code)
{
	struct iopf_group *group;
	unsigned int n = 0;

	while (n < ARRAY_SIZE(f->answers) && (group = take_group(f))) {
		KUNIT_ASSERT_TRUE(f->test, iopf_group_claim(group));
		f->answers[n++] = (struct iopf_answer) { .group = group, .code = code };
	}
	if (n)
		iopf_answer_groups(f->answers, n);
	iopf_free_groups(f->answers, n);
	return n;
}

/* ---- Devices ---- */

static inline int enable_faults(struct arm_smmu_master *master)
{
	guard(mutex)(&arm_smmu_asid_lock);
	return arm_smmu_iopf_enable(master);
}

/* A device whose faults are stalls */
static inline struct fake *stalling(struct kunit *test)
{
	struct fake *f = test->priv;

	f->master.stall_enabled = true;
	KUNIT_ASSERT_EQ(test, enable_faults(&f->master), 0);
	KUNIT_ASSERT_FALSE(test, f->master.iopf_pri);
	return f;
}

/* A device whose faults are page requests; its capability is not part of the test. */
static inline struct fake *requesting(struct kunit *test)
{
	struct fake *f = test->priv;

	f->master.iopf_pri = true;
	KUNIT_ASSERT_EQ(test, iopf_queue_add_device(f->smmu.priq.iopf, f->dev), 0);
	f->master.iopf_enabled = true;
	return f;
}

#endif
