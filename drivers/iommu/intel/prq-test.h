/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the KUnit tests of the page request queue share
 *
 * The IOMMU is memory: a page of registers, the ring, and an invalidation queue
 * whose hardware is prq_fake_fetch(). What it executes is logged, so that each answer
 * can be counted. The devices are on a fault queue and have domains attached, as
 * if a driver had probed them.
 *
 * Requests are handled by the bottom half, as far as it goes, and by the thread, if
 * that was woken. Stubs work in the test's task alone, and a softirq may be ksoftirqd's
 * at any time; so the bottom half is called from the task, but in prq_test_interrupt.
 */
#ifndef _INTEL_IOMMU_PRQ_TEST_H
#define _INTEL_IOMMU_PRQ_TEST_H

#include <kunit/test.h>
#include <linux/bitfield.h>
#include <linux/bottom_half.h>
#include <linux/hrtimer.h>
#include <linux/iommu.h>
#include <linux/irq_poll.h>
#include <linux/pci.h>

#include "iommu.h"
#include "pasid.h"
#include "prq.h"
#include "../iommu-priv.h"

#define SLOTS		PRQ_DEPTH
#define DSC_SIZE	sizeof(struct page_req_dsc)
#define DEVICES		2
#define PASIDS		4
#define MAX_PASIDS	64
/* Where a PASID is needed and does not matter */
#define PASID		1
#define GROUP_IDS	512

/* Types of a PASID table's entry */
#define FIRST		PASID_ENTRY_PGTT_FL_ONLY
#define SECOND		PASID_ENTRY_PGTT_SL_ONLY
#define NESTED		PASID_ENTRY_PGTT_NESTED

struct fake_device {
	struct device *dev;
	struct dev_iommu iommu;
	struct device_domain_info info;
	struct pasid_table pasid_table;
	struct iommu_group *group;
	struct iommu_attach_handle handles[PASIDS];
};

/* When the hardware stops, and what it says */
struct fake_error {
	unsigned int after;	/* so many more descriptors are executed before */
	u32 status;		/* bit of the Fault Status Register, or 0 */
	u16 sid;		/* of the time-out */
};

struct fake {
	struct kunit *test;
	struct intel_iommu iommu;
	struct iommu_ops ops;
	struct iommu_domain domain;
	struct iommu_domain_ops domain_ops;
	struct fake_device device[DEVICES];

	/* what the handler got and nobody has answered */
	struct list_head groups;
	unsigned int n_groups;
	unsigned int n_requests;
	void (*on_group)(struct fake *fake, struct iopf_group *group);

	/* of the page request queue's hardware */
	void (*on_acknowledge)(struct fake *fake, u32 bits);
	u32 cleared;
	bool scheduled;			/* the bottom half */
	bool woken;			/* the thread */
	unsigned int kicks;		/* of the driver, as if the queue had interrupted */

	/* of the invalidation queue's hardware */
	struct q_inval qi;
	int status[QI_LENGTH];
	bool hold;			/* does not react to the doorbell */
	bool stalled;			/* by an error */
	struct fake_error error;
	unsigned int doorbells;
	unsigned int n_invalidations;
	bool overflow_amid;		/* the thread clears one during each of them */
	bool mute;			/* the device answers none of them */
	struct qi_desc last;
	unsigned int n_answers;
	unsigned int n_code[16];
	unsigned int answered[GROUP_IDS];
	struct hrtimer timer;

	/* for a thread beside the test */
	struct completion begin, end;
	struct mover *mover;
};

int prq_test_init(struct kunit *test);
void prq_test_exit(struct kunit *test);

/* Answer what the handler has, in batches of @batch. */
void prq_fake_answer_all(struct fake *fake, unsigned int batch,
			 enum iommu_page_response_code code);

/* The invalidation queue's hardware: fetch now, and from now on once in a while. */
void prq_fake_fetch(struct fake *fake);
void prq_fake_timer_start(struct fake *fake);

static inline u16 sid_of(const struct fake_device *device)
{
	return PCI_DEVID(device->info.bus, device->info.devfn);
}

/* ---- registers ---- */

static inline u32 reg_get(struct fake *fake, unsigned int offset)
{
	return readl(fake->iommu.reg + offset);
}

static inline void reg_set(struct fake *fake, unsigned int offset, u32 value)
{
	writel(value, fake->iommu.reg + offset);
}

/* ---- the PASID table ---- */

static inline struct pasid_entry *entry_of(struct fake_device *device, u32 pasid)
{
	struct pasid_dir_entry *dir = device->pasid_table.table;

	return get_pasid_table_from_pde(&dir[0]) + pasid;
}

/* What the IOMMU translates by: see "Scalable-Mode PASID Table Entry" */
static inline void set_entry(struct fake_device *device, u32 pasid, u64 type, u64 bits)
{
	struct pasid_entry *entry = entry_of(device, pasid);

	entry->val[2] = bits;
	entry->val[0] = type << 6 | PASID_PTE_PRESENT;
}

/* ---- requests ---- */

/* The device writes a request to the queue, whatever stands in there. */
static inline void put_raw(struct fake *fake, u64 qw0, u64 qw1)
{
	u32 tail = reg_get(fake, DMAR_PQT_REG);
	struct page_req_dsc *req = fake->iommu.prq + tail / DSC_SIZE;

	*req = (struct page_req_dsc){ .qw = { qw0, qw1, ~0ULL, ~0ULL } };
	reg_set(fake, DMAR_PQT_REG, (tail + DSC_SIZE) & PRQ_RING_MASK);
	reg_set(fake, DMAR_PRS_REG, reg_get(fake, DMAR_PRS_REG) | DMA_PRS_PPR);
}

static inline u64 word0(const struct fake_device *device, u32 pasid)
{
	u64 qw0 = PRQ_TYPE_REQUEST | FIELD_PREP(PRQ_SID, sid_of(device));

	return pasid == IOMMU_NO_PASID ? qw0 :
	       qw0 | PRQ_PASID_PRESENT | FIELD_PREP(PRQ_PASID, pasid);
}

static inline void put(struct fake *fake, struct fake_device *device, u32 pasid, u32 grpid,
		       bool last)
{
	put_raw(fake, word0(device, pasid), 0x1000 | FIELD_PREP(PRQ_INDEX, grpid) |
		PRQ_READ | (last ? PRQ_LPIG : 0));
}

/* What irq_poll's softirq does, until nothing is scheduled */
static inline void run_scheduled(struct fake *fake)
{
	struct irq_poll *poll = &fake->iommu.prq_poll;

	while (fake->scheduled) {
		fake->scheduled = false;
		INIT_LIST_HEAD(&poll->list);
		local_bh_disable();
		prq_bottom_half(poll, poll->weight);
		local_bh_enable();
	}
}

/* Returns whether the thread is to go on. */
static inline bool run_bottom_half(struct fake *fake)
{
	fake->woken = false;
	prq_schedule(&fake->iommu);
	run_scheduled(fake);
	return fake->woken;
}

static inline void run_thread(struct fake *fake)
{
	KUNIT_EXPECT_EQ(fake->test, IRQ_HANDLED, prq_event_thread(0, &fake->iommu));
}

static inline void run(struct fake *fake)
{
	if (run_bottom_half(fake))
		run_thread(fake);
	KUNIT_EXPECT_EQ(fake->test, reg_get(fake, DMAR_PQH_REG), reg_get(fake, DMAR_PQT_REG));
}

#endif
