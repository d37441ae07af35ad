/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What Linux 7.3 has and 6.12 has not, or has in another form
 *
 * The Makefiles of 6.12 include this before the files that are in the form of 7.3. It is
 * in no header, as the files of 6.12 itself use the older form.
 */
#ifndef __IOMMU_COMPAT_H
#define __IOMMU_COMPAT_H

#include <linux/export.h>
#include <linux/hrtimer.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "iommu-pages.h"

/* Some versions of 6.12 have it. */
#ifndef kzalloc_obj
#define kzalloc_obj(obj, gfp) kzalloc(sizeof(obj), gfp)
#endif

/* The latest versions of 6.12 have it, too: as the same queue. */
#define system_dfl_wq system_unbound_wq

static inline void hrtimer_setup(struct hrtimer *timer,
				 enum hrtimer_restart (*function)(struct hrtimer *),
				 clockid_t clock_id, enum hrtimer_mode mode)
{
	hrtimer_init(timer, clock_id, mode);
	timer->function = function;
}

#define PRQ_SIZE (SZ_4K << PRQ_ORDER)

/* A compound page knows its size, also when it is freed. */
static inline void *iommu_alloc_pages_node_sz(int nid, gfp_t gfp, size_t size)
{
	return iommu_alloc_pages_node(nid, gfp | __GFP_COMP, get_order(size));
}

static inline void iommu_compat_free_pages(void *virt)
{
	iommu_free_pages(virt, compound_order(virt_to_head_page(virt)));
}

#define iommu_free_pages(virt) iommu_compat_free_pages(virt)

/* -1 stands for all of a PASID there. */
#define qi_desc_piotlb_all(did, pasid, desc) qi_desc_piotlb(did, pasid, 0, -1, 0, desc)

/* The name of a namespace is a string. */
#undef EXPORT_SYMBOL_NS_GPL
#define EXPORT_SYMBOL_NS_GPL(sym, ns) __EXPORT_SYMBOL(sym, "GPL", ns)

#endif
