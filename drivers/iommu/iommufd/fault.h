/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The iommufd fault object: what is in it, and its way from a group to the queue
 */
#ifndef __IOMMUFD_FAULT_H
#define __IOMMUFD_FAULT_H

#include <linux/hrtimer.h>
#include <linux/list.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <uapi/linux/iommufd.h>

#include "../iommu-priv.h"

struct iommufd_attach_handle;
struct iommufd_attachment;
struct iommufd_object;

/* Groups that a fault object holds unless user space says otherwise, and the most */
#define IOMMUFD_FAULT_DEPTH	4096
#define IOMMUFD_FAULT_MAX_DEPTH	65536
/* The longest deadline: an hour */
#define IOMMUFD_FAULT_MAX_MS	(3600 * MSEC_PER_SEC)
/* What the file is read and written in */
#define FAULT_MESSAGE_SIZE	sizeof(struct iommu_hwpt_pgfault)
#define FAULT_RESPONSE_SIZE	sizeof(struct iommu_hwpt_page_response)
/* Answers that are claimed, given and finished together */
#define IOMMUFD_FAULT_BATCH	32

/**
 * enum iommufd_fault_slot_state - What an answer to a slot's cookie meets
 * @FAULT_SLOT_FREE: no group, -EINVAL
 * @FAULT_SLOT_STALE: no group; the last one was recalled or timed out, -ESTALE
 * @FAULT_SLOT_QUEUED: a group on &iommufd_fault.queue; -EINVAL, or -EBUSY if
 *                     user space has seen a part of it
 * @FAULT_SLOT_OPEN: a group of which a reader is copying a part, or (immediate
 *                   delivery) of which more requests are to come; -EBUSY
 * @FAULT_SLOT_DELIVERED: a group that user space was given whole; it is answered
 */
enum iommufd_fault_slot_state {
	FAULT_SLOT_FREE,
	FAULT_SLOT_STALE,
	FAULT_SLOT_QUEUED,
	FAULT_SLOT_OPEN,
	FAULT_SLOT_DELIVERED,
};

/**
 * struct iommufd_fault_slot - What a cookie stands for
 * @group: the group, if @state is not one of the two without
 * @cookie: number of uses times the depth, plus the index of the slot; never 0
 * @next: index of the next free slot
 * @read: of a group: messages that reads have got which had no room for all
 * @state: enum iommufd_fault_slot_state
 */
struct iommufd_fault_slot {
	struct iopf_group *group;
	u32 cookie;
	union {
		u16 next;
		u16 read;
	};
	u8 state;
};

/**
 * struct iommufd_fault_age - A slot's place in the order of the deadlines
 * @node: node in &iommufd_fault.aging, empty if the group is not complete
 * @expires: when the group is answered by the kernel
 */
struct iommufd_fault_age {
	struct list_head node;
	ktime_t expires;
};

/**
 * struct iommufd_fault_part - How much of a group is delivered
 * @first: the oldest request that user space was not given
 * @pending: number of those, from @first on
 * @open: the last request has not come
 * @seen: user space was given one and knows the cookie
 * @ended: nobody answers it any more; a message that says so is to be read
 *
 * For immediate delivery, one beside each slot.
 */
struct iommufd_fault_part {
	struct iopf_fault *first;
	unsigned int pending;
	bool open;
	bool seen;
	bool ended;
};

/**
 * struct iommufd_fault_member - A device that feeds a fault object
 * @node: node in &iommufd_fault.members
 * @device: the &struct iommufd_device or &struct iommufd_access, for comparison alone
 * @attachments: number of its attachments
 * @slots: number of its groups that have a slot
 *
 * Protected by the object's lock. One for all PASIDs of a device, so that it has one
 * share of the slots, and not as many as it has PASIDs.
 */
struct iommufd_fault_member {
	struct list_head node;
	const void *device;
	u32 attachments;
	u32 slots;
};

/**
 * struct iommufd_fault_stats - What has happened to a fault object
 * @requests: page requests of the groups that were queued
 * @groups: groups that were queued
 * @delivered: groups that user space began to read
 * @answers: answers to the hardware, by code
 * @causes: those of them that user space did not give, by cause
 * @taken: groups that the core answered because their device was removed
 * @withdrawn: groups that the driver which had reported them took back
 * @recalled: groups that were recalled
 * @refused: groups that found no slot
 * @overflows: times that a hardware queue may have lost requests
 * @no_room: requests and groups for which the core had no room
 * @stale: answers to groups that were recalled or timed out
 * @unknown: answers to what is no cookie of a delivered group, nor stale
 * @busy: answers to groups that were not read to the end
 * @peak: the most slots that were in use at a time
 */
struct iommufd_fault_stats {
	u64 requests;
	u64 groups;
	u64 delivered;
	u64 answers[IOMMU_PAGE_RESP_FAILURE + 1];
	u64 causes[IOPF_NR_CAUSES];
	u64 taken;
	u64 withdrawn;
	u64 recalled;
	u64 refused;
	u64 overflows;
	u64 no_room;
	u64 stale;
	u64 unknown;
	u64 busy;
	u32 peak;
};

/**
 * struct iommufd_fault - Delivers page request groups to user space
 * @refs: one for the id, one for the file, one for who withdraws a group
 * @obj: the id, there as long as it has users
 * @id: its number
 * @flags: enum iommu_fault_alloc_flags, set when the object is allocated
 * @mask: number of slots, a power of two, less 1
 * @deadline_ms: when the kernel answers a group, 0 for never
 * @deadline_code: what it answers then
 * @readers: who waits for a group to take, see fault_wake.c
 * @pollers: who waits to be told of groups
 * @wake: bits of fault_wake.c
 * @wake_work: wakes pollers, and readers when others did not come
 * @look: looks whether readers come
 * @looked: @taken when @look was set
 * @nudge: how many readers are woken if none has come
 * @settle_wait: woken when an attachment has no group outstanding any more
 * @timer: queues @work when the oldest deadline is over
 * @work: answers groups whose deadline is over
 * @lock: protects all below and the attachments of every handle that feeds it
 * @closed: the file is gone; nothing is queued any more
 * @hung_up: the id is gone; nothing will be queued any more. Read without @lock.
 * @splits: reads with some room get a group that is larger in several parts
 * @has_file: the file is one of the users of @obj
 * @lost: requests were lost, and user space asked to be told and was not yet
 * @alarm: so was one that need not come again: this counts as something to read. Read
 *         without @lock.
 * @timing: @timer is started, or @work will start it
 * @queue: groups with something to read, oldest first
 * @queued: number of groups on @queue. Read without @lock.
 * @taken: number of times that a reader took a group off @queue, or was told of a
 *         loss alone. Read without @lock.
 * @delivered: number of other groups that have a slot
 * @free_first: index of the free slot that is used next
 * @free_last: index of the free slot that is used last
 * @slots: the slots
 * @members: the devices that feed the object
 * @n_members: number of these
 * @share: slots that each of them can have, whatever the others do
 * @reserved: how many slots of their shares they do not use, together
 * @ages: one for each slot if there is a deadline, else NULL
 * @aging: those of complete groups, oldest first
 * @parts: one for each slot if delivery is immediate, else NULL
 * @stats: counters
 */
struct iommufd_fault {
	refcount_t refs;
	struct iommufd_object *obj;
	u32 id;
	u32 flags;
	u32 mask;
	u32 deadline_ms;
	enum iommu_page_response_code deadline_code;

	wait_queue_head_t readers;
	wait_queue_head_t pollers;
	unsigned long wake;
	struct work_struct wake_work;
	struct hrtimer look;
	unsigned int looked;
	unsigned int nudge;

	wait_queue_head_t settle_wait;
	struct hrtimer timer;
	struct work_struct work;

	spinlock_t lock;	/* all below, and attachments */
	bool closed;
	bool hung_up;
	bool splits;
	bool has_file;
	bool lost;
	bool alarm;
	bool timing;
	struct list_head queue;
	unsigned int queued;
	unsigned int taken;
	unsigned int delivered;
	u32 free_first;
	u32 free_last;
	struct iommufd_fault_slot *slots;
	struct list_head members;
	u32 n_members;
	u32 share;
	u32 reserved;
	struct iommufd_fault_age *ages;
	struct list_head aging;
	struct iommufd_fault_part *parts;
	struct iommufd_fault_stats stats;
};

static inline struct iommufd_fault_slot *
iommufd_fault_slot(struct iommufd_fault *fault, u32 cookie)
{
	return &fault->slots[cookie & fault->mask];
}

static inline bool iommufd_fault_slot_used(const struct iommufd_fault_slot *slot)
{
	return slot->state > FAULT_SLOT_STALE;
}

static inline bool iommufd_fault_slot_holds(const struct iommufd_fault_slot *slot,
					    const struct iopf_group *group)
{
	return slot->group == group && iommufd_fault_slot_used(slot);
}

/* Without the lock: see fault_wake.c for what makes this safe. */
static inline bool iommufd_fault_is_empty(struct iommufd_fault *fault)
{
	return !READ_ONCE(fault->queued) && !READ_ONCE(fault->alarm);
}

static inline void iommufd_fault_set_queued(struct iommufd_fault *fault,
					    unsigned int queued)
{
	/* Who waits reads it without the lock. */
	WRITE_ONCE(fault->queued, queued);
}

/* Drop a reference, under the object's lock. */
static inline void iommufd_fault_put_group(struct iopf_group *group)
{
	u32 refs = group->refs - 1;

	/* Who has claimed the group may see that he is the last now, and free it. */
	smp_store_release(&group->refs, refs);
	if (!refs)
		iopf_free_group(group);
}

/* The bits of &iommu_fault_page_request.flags that user space is told */
static_assert((int)IOMMU_PGFAULT_FLAGS_PASID_VALID ==
	      (int)IOMMU_FAULT_PAGE_REQUEST_PASID_VALID);
static_assert((int)IOMMU_PGFAULT_FLAGS_LAST_PAGE ==
	      (int)IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE);
#define FAULT_USER_FLAGS \
	(IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE)

/* What user space is told of one request of a group */
static inline void iommufd_fault_message(struct iommu_hwpt_pgfault *message,
					 const struct iopf_group *group,
					 const struct iommu_fault_page_request *prm)
{
	*message = (struct iommu_hwpt_pgfault) {
		.flags = prm->flags & FAULT_USER_FLAGS,
		.dev_id = group->dev_id,
		.pasid = prm->pasid,
		.grpid = prm->grpid,
		.perm = prm->perm,
		.length = group->length,
		.addr = prm->addr,
		.cookie = group->cookie,
	};
}

/* A flag for a read's first message; who delivers that has told. Under the object's lock. */
static inline u32 iommufd_fault_loss(const struct iommufd_fault *fault)
{
	return unlikely(fault->lost) ? IOMMU_PGFAULT_FLAGS_LOST : 0;
}

static inline void iommufd_fault_told(struct iommufd_fault *fault)
{
	fault->lost = false;
	WRITE_ONCE(fault->alarm, false);
}

int iommufd_fault_iopf_handler(struct iopf_group *group);
void iommufd_fault_recall(struct iopf_group *group, enum iopf_cause cause);
void iommufd_fault_lost(struct iommu_attach_handle *handle, enum iopf_cause cause);
bool iommufd_fault_note_loss(struct iommufd_fault *fault, bool alarm);
const struct iopf_handler_ops *iommufd_fault_iopf_ops(const struct iommufd_fault *fault);
struct iommufd_attachment *
iommufd_fault_find_attachment(struct iommufd_attach_handle *handle, struct device *dev);
int iommufd_fault_join(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
		       const void *device);
void iommufd_fault_part_with(struct iommufd_fault *fault, struct iommufd_attachment *attachment);
int iommufd_fault_admit(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			struct iopf_group *group);
void iommufd_fault_start_aging(struct iommufd_fault *fault, const struct iopf_group *group);
int iommufd_fault_queue(struct iommufd_fault *fault,
			struct iommufd_attachment *attachment,
			struct iopf_group *group);
void iommufd_fault_end(struct iommufd_fault *fault, struct iommufd_fault_slot *slot,
		       bool tell);
void iommufd_fault_set_timer(struct iommufd_fault *fault);
enum hrtimer_restart iommufd_fault_timeout(struct hrtimer *timer);

#endif
