/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Page request queue: its descriptors, and what its KUnit tests see of it
 */
#ifndef _INTEL_IOMMU_PRQ_H
#define _INTEL_IOMMU_PRQ_H

#include <linux/bits.h>
#include <linux/interrupt.h>
#include <linux/types.h>

#include "../io-pgfault-priv.h"

struct device;
struct intel_iommu;
struct irq_poll;

/*
 * Page Request Descriptor, 7.4.1.1 of the VT-d specification, revision 5.10: 256
 * bits. The two upper words, once private data of the device, are reserved.
 */
struct page_req_dsc {
	u64 qw[4];
};

/* First word */
#define PRQ_TYPE		GENMASK_ULL(7, 0)
#define PRQ_TYPE_REQUEST	0x1
#define PRQ_PASID_PRESENT	BIT_ULL(8)
#define PRQ_SID			GENMASK_ULL(31, 16)
#define PRQ_PASID		GENMASK_ULL(51, 32)
#define PRQ_EXEC		BIT_ULL(52)
#define PRQ_PRIV		BIT_ULL(53)

/* Second word */
#define PRQ_READ		BIT_ULL(0)
#define PRQ_WRITE		BIT_ULL(1)
#define PRQ_LPIG		BIT_ULL(2)
#define PRQ_INDEX		GENMASK_ULL(11, 3)
#define PRQ_ADDR		GENMASK_ULL(63, 12)

/* As many requests are handled in a softirq, less than a burst of one device is. */
#define PRQ_BUDGET	64

irqreturn_t prq_irq(int irq, void *data);
irqreturn_t prq_event_thread(int irq, void *data);
int prq_bottom_half(struct irq_poll *poll, int budget);
void prq_acknowledge(struct intel_iommu *iommu, u32 bits);
void prq_kick(struct intel_iommu *iommu);

#if IS_ENABLED(CONFIG_KUNIT)
extern unsigned int prq_patience;
void prq_start(struct intel_iommu *iommu);
void prq_kick_later(struct intel_iommu *iommu);
void prq_schedule(struct intel_iommu *iommu);
void prq_wake_thread(struct intel_iommu *iommu);
void prq_report(struct device *dev, struct iopf_fault *evt);
#endif

#endif
