/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The slots of a fault object, for the files that take groups out of them
 */
#ifndef __IOMMUFD_FAULT_SLOT_H
#define __IOMMUFD_FAULT_SLOT_H

#include "attach.h"
#include "fault.h"
#include "fault_wake.h"

static inline u32 iommufd_fault_used(const struct iommufd_fault *fault)
{
	return fault->queued + fault->delivered;
}

/*
 * Slots become free behind all others. They are linked from @first to @last, and no
 * longer count as used.
 */
static __always_inline void
iommufd_fault_slots_put(struct iommufd_fault *fault, u32 first, u32 last, u32 count)
{
	lockdep_assert_held(&fault->lock);

	if (unlikely(iommufd_fault_used(fault) + count > fault->mask))
		fault->free_first = first;
	else
		fault->slots[fault->free_last].next = first;
	fault->free_last = last;
}

static inline void iommufd_fault_stop_aging(struct iommufd_fault *fault,
					    const struct iommufd_fault_slot *slot)
{
	if (unlikely(fault->ages))
		list_del_init(&fault->ages[slot - fault->slots].node);
}

/* The group's slot is none of its device's any more. */
static __always_inline void iommufd_fault_count_off(struct iommufd_fault *fault,
						    const struct iopf_group *group)
{
	struct iommufd_attachment *attachment = group->priv;

	if (--attachment->member->slots < fault->share)
		fault->reserved++;
}

/*
 * Take a group out of its slot, which is FAULT_SLOT_FREE then, or FAULT_SLOT_STALE to
 * remember the cookie. The caller gets the slot's reference of the group. Under the
 * object's lock.
 */
static inline void iommufd_fault_take_out(struct iommufd_fault *fault,
					  struct iommufd_fault_slot *slot,
					  enum iommufd_fault_slot_state state)
{
	u32 index = slot - fault->slots;

	iommufd_fault_stop_aging(fault, slot);
	iommufd_fault_count_off(fault, slot->group);
	if (slot->state == FAULT_SLOT_QUEUED) {
		list_del(&slot->group->node);
		iommufd_fault_set_queued(fault, fault->queued - 1);
	} else {
		fault->delivered--;
	}
	slot->state = state;
	iommufd_fault_slots_put(fault, index, index, 1);
}

/* The group is answered: it no longer keeps its attachment. Returns whether none does. */
static inline bool iommufd_fault_let_go(const struct iopf_group *group)
{
	struct iommufd_attachment *attachment = group->priv;

	return atomic_dec_and_test(&attachment->outstanding);
}

/* With immediate delivery an end may leave a message that says so. */
static inline void iommufd_fault_wake_ended(struct iommufd_fault *fault)
{
	if (unlikely(fault->parts) && !iommufd_fault_is_empty(fault))
		iommufd_fault_wake(fault);
}

#endif
