// SPDX-License-Identifier: GPL-2.0-only
/*
 * The iommufd fault object: from a group that the fault core hands over to the
 * answer that user space gives
 *
 * Every group that the object holds sits in one slot of a fixed array, from
 * the moment it is queued until it is claimed. The cookie that user space
 * answers with is the slot's index plus a multiple of the depth that grows
 * with each use, so a late or invented cookie never names a newer group, and
 * neither a look-up nor a read allocates anything.
 *
 *	iopf handler ----> queued -----> delivered -----> claimed, answered
 *	                     ^  read       |      by the owner's answer, detach,
 *	                     +-------------+      replace, or close of the file
 *	                       copy failed
 *
 * A claim takes the group out of its slot under the object's lock and then
 * moves its state by iopf_group_claim(). The second step is lost only to the
 * removal of the device, which has then answered in the claimer's place.
 * The hardware is answered, and user memory is touched, with no lock held.
 *
 * Who keeps a group: &iopf_group.refs counts its slot or, after the slot, its
 * claimer, and a reader that copies its messages. The attachment that it came
 * through waits in iommufd_fault_drain() until none of its groups is
 * outstanding; a reader does not delay that, as it only looks at the group.
 *
 * Locks: the core calls iommufd_fault_iopf_handler() under the device's fault
 * lock and iopf_free_groups() takes that lock, so it is never called under
 * iommufd_fault::lock.
 */
#define pr_fmt(fmt) "iommufd: " fmt

#include <linux/file.h>
#include <linux/iommufd.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <uapi/linux/iommufd.h>

#include "../iommu-priv.h"
#include "iommufd_private.h"

/*
 * Groups that were taken out of their slots, to be finished by fault_finish().
 * Clearing the array costs more than answering one group does.
 */
struct fault_claims {
	/* From the front those to answer, from the back those somebody else has */
	struct iopf_answer answers[IOMMUFD_FAULT_BATCH];
	unsigned int won;
	unsigned int lost;
};

static struct iommufd_fault_slot *fault_slot(struct iommufd_fault *fault, u32 cookie)
{
	return &fault->slots[cookie % IOMMUFD_FAULT_DEPTH];
}

/* The slot that holds the group of @cookie, or NULL */
static struct iommufd_fault_slot *fault_find(struct iommufd_fault *fault, u32 cookie)
{
	struct iommufd_fault_slot *slot = fault_slot(fault, cookie);

	return slot->group && slot->cookie == cookie ? slot : NULL;
}

static u32 fault_used(struct iommufd_fault *fault)
{
	return fault->queued + fault->delivered;
}

/* Longest free first: the cookies of one slot come around as late as can be. */
static struct iommufd_fault_slot *fault_slot_get(struct iommufd_fault *fault)
{
	struct iommufd_fault_slot *slot;

	lockdep_assert_held(&fault->lock);

	if (fault_used(fault) == IOMMUFD_FAULT_DEPTH)
		return NULL;

	slot = &fault->slots[fault->free_first];
	fault->free_first = slot->next;
	slot->cookie += IOMMUFD_FAULT_DEPTH;
	if (unlikely(!slot->cookie))
		slot->cookie += IOMMUFD_FAULT_DEPTH;
	return slot;
}

/* To be called when the group no longer counts as used */
static void fault_slot_put(struct iommufd_fault *fault, struct iommufd_fault_slot *slot)
{
	u32 index = slot - fault->slots;

	lockdep_assert_held(&fault->lock);

	slot->group = NULL;
	if (fault_used(fault) == IOMMUFD_FAULT_DEPTH - 1)
		fault->free_first = index;
	else
		fault->slots[fault->free_last].next = index;
	fault->free_last = index;
}

static void fault_set_queued(struct iommufd_fault *fault, unsigned int queued)
{
	/* Pollers read it without the lock. */
	WRITE_ONCE(fault->queued, queued);
}

/*
 * To be called after groups were queued, with whether the queue was empty, and
 * the FETCH that was picked under the lock, or NULL
 */
static void fault_wake(struct iommufd_fault *fault, bool was_empty,
		       struct io_uring_cmd *fetch)
{
	if (fetch)
		iommufd_fault_uring_start(fetch);
	if (!was_empty)
		return;
	if (wq_has_sleeper(&fault->poll_wait))
		wake_up_poll(&fault->poll_wait, EPOLLIN | EPOLLRDNORM);
	if (wq_has_sleeper(&fault->read_wait))
		wake_up_interruptible(&fault->read_wait);
}

static struct iommufd_attachment *
fault_find_attachment(struct iommufd_attach_handle *handle, struct device *dev)
{
	struct iommufd_attachment *attachment;

	list_for_each_entry(attachment, &handle->attachments, node) {
		if (attachment->idev->dev == dev)
			return attachment;
	}
	return NULL;
}

/* Put a group at the end of the queue. */
static int fault_enqueue(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			 struct iopf_group *group)
{
	struct iommufd_fault_slot *slot;

	lockdep_assert_held(&fault->lock);

	if (fault->closed)
		return -EPIPE;
	slot = fault_slot_get(fault);
	if (!slot)
		return -ENOSPC;

	group->priv = attachment;
	group->dev_id = attachment->dev_id;
	group->cookie = slot->cookie;
	group->refs = 1;
	attachment->outstanding++;
	slot->group = group;
	slot->queued = true;
	list_add_tail(&group->node, &fault->deliver);
	fault_set_queued(fault, fault->queued + 1);
	return 0;
}

/**
 * iommufd_fault_iopf_handler() - Queue a group for user space
 * @group: the group; owned by the fault object on success
 *
 * The &iommu_domain.iopf_handler of every HWPT that has a fault object.
 *
 * Context: Any that may take a spinlock; does not sleep.
 *
 * Return: 0, -ENODEV if its device is not attached to the HWPT (although
 * another one of its iommu group is), -EPIPE if the file is closed, -ENOSPC if
 * the object is full. With an error the core answers.
 */
int iommufd_fault_iopf_handler(struct iopf_group *group)
{
	struct iommufd_attach_handle *handle = to_iommufd_handle(group->attach_handle);
	struct iommufd_fault *fault = handle->hwpt->fault;
	struct iommufd_attachment *attachment;
	struct io_uring_cmd *fetch = NULL;
	bool was_empty;
	int rc;

	spin_lock(&fault->lock);
	was_empty = !fault->queued;
	attachment = fault_find_attachment(handle, group->fault_param->dev);
	rc = attachment ? fault_enqueue(fault, attachment, group) : -ENODEV;
	if (!rc)
		fetch = iommufd_fault_uring_next(fault);
	spin_unlock(&fault->lock);

	if (!rc)
		fault_wake(fault, was_empty, fetch);
	return rc;
}

/**
 * iommufd_fault_queue() - Queue a group that is not from the fault core
 * @fault: the object
 * @attachment: where it comes from; kept by the caller
 * @group: the group, in state IOPF_GROUP_QUEUED; owned by @fault on success
 *
 * Context: Any that may take a spinlock; does not sleep.
 *
 * Return: 0, -EPIPE if the file is closed, -ENOSPC if the object is full.
 */
int iommufd_fault_queue(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			struct iopf_group *group)
{
	struct io_uring_cmd *fetch;
	bool was_empty;
	int rc;

	spin_lock(&fault->lock);
	was_empty = !fault->queued;
	rc = fault_enqueue(fault, attachment, group);
	fetch = rc ? NULL : iommufd_fault_uring_next(fault);
	spin_unlock(&fault->lock);

	if (!rc)
		fault_wake(fault, was_empty, fetch);
	return rc;
}

/* Drop a reference; what nobody holds goes to @unused, to be freed. */
static void fault_put_group(struct iopf_group *group, struct list_head *unused)
{
	if (!--group->refs)
		list_add_tail(&group->node, unused);
}

/**
 * iommufd_fault_deliver() - Take whole groups off the head of the queue
 * @fault: the object
 * @batch: gets the groups, linked by &iopf_group.node
 * @room: number of messages that the caller has room for
 *
 * The groups count as delivered from here on, and stay valid until the caller
 * says with iommufd_fault_delivered() how far it came.
 *
 * Return: number of messages in @batch, 0 if nothing is queued, -EINVAL if the
 * first group has more than @room.
 */
ssize_t iommufd_fault_deliver(struct iommufd_fault *fault,
			      struct list_head *batch, size_t room)
{
	struct iopf_group *group, *next;
	unsigned int groups = 0;
	size_t messages = 0;
	bool more;

	spin_lock(&fault->lock);
	list_for_each_entry_safe(group, next, &fault->deliver, node) {
		if (group->fault_count > room - messages)
			break;
		/* Fails if the device is gone; then its answer will fail too. */
		iopf_group_deliver(group);
		fault_slot(fault, group->cookie)->queued = false;
		list_move_tail(&group->node, batch);
		group->refs++;
		messages += group->fault_count;
		groups++;
	}
	fault->delivered += groups;
	fault_set_queued(fault, fault->queued - groups);
	more = fault->queued;
	spin_unlock(&fault->lock);

	/* Only one reader was woken, and the queue is not empty yet. */
	if (more && wq_has_sleeper(&fault->read_wait))
		wake_up_interruptible(&fault->read_wait);
	return more && !messages ? -EINVAL : messages;
}

/* Put a group that reached nobody back to the head of the queue. */
static void fault_restore(struct iommufd_fault *fault, struct iopf_group *group,
			  struct list_head *unused)
{
	struct iommufd_fault_slot *slot = fault_find(fault, group->cookie);

	list_del(&group->node);
	/* While it was being copied somebody may have claimed it. */
	if (slot) {
		iopf_group_restore(group);
		slot->queued = true;
		list_add(&group->node, &fault->deliver);
		fault->delivered--;
		fault_set_queued(fault, fault->queued + 1);
	}
	fault_put_group(group, unused);
}

/**
 * iommufd_fault_delivered() - Finish what iommufd_fault_deliver() began
 * @fault: the object
 * @batch: the groups that it gave
 * @copied: how many of their messages reached user space
 *
 * Groups of which not all messages were copied are queued again in their old
 * order, ahead of all others.
 */
void iommufd_fault_delivered(struct iommufd_fault *fault,
			     struct list_head *batch, size_t copied)
{
	struct io_uring_cmd *fetch = NULL;
	struct iopf_group *group, *next;
	bool was_empty, restored;
	LIST_HEAD(unused);

	spin_lock(&fault->lock);
	was_empty = !fault->queued;
	list_for_each_entry_safe(group, next, batch, node) {
		if (group->fault_count > copied)
			break;
		copied -= group->fault_count;
		list_del(&group->node);
		fault_put_group(group, &unused);
	}
	restored = !list_empty(batch);
	if (unlikely(restored)) {
		list_for_each_entry_safe_reverse(group, next, batch, node)
			fault_restore(fault, group, &unused);
		fetch = iommufd_fault_uring_next(fault);
	}
	spin_unlock(&fault->lock);

	if (unlikely(restored))
		fault_wake(fault, was_empty, fetch);
	if (unlikely(!list_empty(&unused)))
		iopf_free_groups(&unused);
}

/* Take the group out of its slot; from now on its cookie is unknown. */
static void fault_take(struct iommufd_fault *fault, struct iommufd_fault_slot *slot)
{
	if (slot->queued) {
		list_del(&slot->group->node);
		fault_set_queued(fault, fault->queued - 1);
	} else {
		fault->delivered--;
	}
	fault_slot_put(fault, slot);
}

/*
 * Take the group out of its slot and claim it. Returns
 * whether the caller answers it.
 */
static bool fault_claim(struct iommufd_fault *fault, struct iommufd_fault_slot *slot,
			enum iommu_page_response_code code, struct fault_claims *claims)
{
	struct iopf_answer answer = { .group = slot->group, .code = code };
	bool won = iopf_group_claim(slot->group);

	if (won)
		claims->answers[claims->won++] = answer;
	else
		claims->answers[IOMMUFD_FAULT_BATCH - ++claims->lost] = answer;

	fault_take(fault, slot);
	return won;
}

/* The group is answered: it no longer keeps its attachment from being freed. */
static bool fault_let_go(struct iopf_group *group, struct list_head *unused)
{
	struct iommufd_attachment *attachment = group->priv;

	fault_put_group(group, unused);
	return !--attachment->outstanding;
}

/* Answer the hardware for groups that were claimed, then let go of them. */
static void fault_finish(struct iommufd_fault *fault, struct fault_claims *claims)
{
	bool drained = false;
	LIST_HEAD(unused);
	unsigned int i;

	iopf_answer_groups(claims->answers, claims->won);

	spin_lock(&fault->lock);
	for (i = 0; i < claims->won; i++)
		drained |= fault_let_go(claims->answers[i].group, &unused);
	for (i = IOMMUFD_FAULT_BATCH - claims->lost; i < IOMMUFD_FAULT_BATCH; i++)
		drained |= fault_let_go(claims->answers[i].group, &unused);
	spin_unlock(&fault->lock);

	if (drained && wq_has_sleeper(&fault->drain_wait))
		wake_up_all(&fault->drain_wait);
	iopf_free_groups(&unused);
}

/**
 * iommufd_fault_respond() - Answer delivered groups
 * @fault: the object
 * @responses: the answers
 * @count: number of @responses, IOMMUFD_FAULT_BATCH at the most
 *
 * Context: Process context, may sleep.
 *
 * Return: how many were given. It is less than @count if the answer at that
 * index has an unknown code, or a cookie that names no delivered group.
 */
unsigned int
iommufd_fault_respond(struct iommufd_fault *fault,
		      const struct iommu_hwpt_page_response *responses,
		      unsigned int count)
{
	struct fault_claims claims __uninitialized;
	struct iommufd_fault_slot *slot;
	unsigned int given;

	static_assert((int)IOMMUFD_PAGE_RESP_SUCCESS == (int)IOMMU_PAGE_RESP_SUCCESS);
	static_assert((int)IOMMUFD_PAGE_RESP_INVALID == (int)IOMMU_PAGE_RESP_INVALID);
	static_assert((int)IOMMUFD_PAGE_RESP_FAILURE == (int)IOMMU_PAGE_RESP_FAILURE);

	claims.won = 0;
	claims.lost = 0;

	spin_lock(&fault->lock);
	for (given = 0; given < count; given++) {
		if (responses[given].code > IOMMUFD_PAGE_RESP_FAILURE)
			break;
		slot = fault_find(fault, responses[given].cookie);
		if (!slot || slot->queued)
			break;
		if (!fault_claim(fault, slot, responses[given].code, &claims))
			break;
	}
	spin_unlock(&fault->lock);

	if (claims.won || claims.lost)
		fault_finish(fault, &claims);
	return given;
}

/**
 * iommufd_fault_claim() - Take a group out of its slot, not to be answered by others
 * @fault: the object that the group was queued at
 * @group: the group; kept by the caller
 *
 * Context: Any that may take a spinlock; does not sleep.
 *
 * Return: true if the caller must call iommufd_fault_finish(), which also keeps
 * the object; false if somebody else answers or has answered it.
 */
bool iommufd_fault_claim(struct iommufd_fault *fault, struct iopf_group *group)
{
	struct iommufd_fault_slot *slot;
	bool claimed = false;

	spin_lock(&fault->lock);
	slot = fault_find(fault, group->cookie);
	if (slot && slot->group == group && iopf_group_claim(group)) {
		fault_take(fault, slot);
		claimed = true;
	}
	spin_unlock(&fault->lock);
	return claimed;
}

/**
 * iommufd_fault_finish() - Answer a group that iommufd_fault_claim() gave
 * @fault: the object
 * @group: the group
 * @code: the answer
 *
 * Context: Process context, may sleep.
 */
void iommufd_fault_finish(struct iommufd_fault *fault, struct iopf_group *group,
			  enum iommu_page_response_code code)
{
	struct fault_claims claims __uninitialized;

	claims.answers[0] = (struct iopf_answer){ .group = group, .code = code };
	claims.won = 1;
	claims.lost = 0;
	fault_finish(fault, &claims);
}

/* Claim up to a batch of groups of one attachment, or of all with NULL. */
static void fault_claim_batch(struct iommufd_fault *fault,
			      struct iommufd_attachment *attachment,
			      struct fault_claims *claims)
{
	struct iommufd_fault_slot *slot;
	u32 i;

	claims->won = 0;
	claims->lost = 0;

	spin_lock(&fault->lock);
	for (i = 0; i < IOMMUFD_FAULT_DEPTH; i++) {
		if (claims->won + claims->lost == IOMMUFD_FAULT_BATCH)
			break;
		if (attachment && !attachment->outstanding)
			break;
		slot = &fault->slots[i];
		if (!slot->group || (attachment && slot->group->priv != attachment))
			continue;
		fault_claim(fault, slot, IOMMU_PAGE_RESP_INVALID, claims);
	}
	spin_unlock(&fault->lock);
}

static void fault_answer_all(struct iommufd_fault *fault,
			     struct iommufd_attachment *attachment)
{
	struct fault_claims claims __uninitialized;

	for (;;) {
		fault_claim_batch(fault, attachment, &claims);
		if (!claims.won && !claims.lost)
			break;
		fault_finish(fault, &claims);
	}
}

static bool fault_is_drained(struct iommufd_fault *fault,
			     struct iommufd_attachment *attachment)
{
	bool drained;

	/* The lock, so that the last to count down is done with @attachment. */
	spin_lock(&fault->lock);
	drained = !attachment->outstanding;
	spin_unlock(&fault->lock);
	return drained;
}

/**
 * iommufd_fault_drain() - Answer every group of an attachment with INVALID
 * @fault: the object
 * @attachment: the attachment, already taken off its handle's list
 *
 * Also waits for the answers that others are giving. Afterwards no group of
 * @attachment is known to the object.
 *
 * Context: Process context, sleeps until the hardware is answered, but never
 * for user space.
 */
void iommufd_fault_drain(struct iommufd_fault *fault,
			 struct iommufd_attachment *attachment)
{
	fault_answer_all(fault, attachment);
	wait_event(fault->drain_wait, fault_is_drained(fault, attachment));
}

/**
 * iommufd_fault_close() - Nobody can read or answer any more
 * @fault: the object, whose file is being released
 *
 * What is outstanding is answered INVALID, as is every later fault.
 *
 * Context: Process context, may sleep.
 */
void iommufd_fault_close(struct iommufd_fault *fault)
{
	spin_lock(&fault->lock);
	fault->closed = true;
	spin_unlock(&fault->lock);

	fault_answer_all(fault, NULL);
}

/**
 * iommufd_fault_destroy() - Free the object
 * @obj: its embedded iommufd object
 *
 * The file and every HWPT hold a user of the object, and detaching from a HWPT
 * drains: nothing is outstanding here.
 */
void iommufd_fault_destroy(struct iommufd_object *obj)
{
	struct iommufd_fault *fault = container_of(obj, struct iommufd_fault, obj);

	WARN_ON(fault->queued || fault->delivered);
	kvfree(fault->slots);
}

static int fault_init(struct iommufd_fault *fault, struct iommufd_ctx *ictx)
{
	u32 i;

	fault->ictx = ictx;
	init_waitqueue_head(&fault->poll_wait);
	init_waitqueue_head(&fault->read_wait);
	init_waitqueue_head(&fault->drain_wait);
	spin_lock_init(&fault->lock);
	INIT_LIST_HEAD(&fault->deliver);
	INIT_LIST_HEAD(&fault->fetches);

	fault->slots = kvcalloc(IOMMUFD_FAULT_DEPTH, sizeof(*fault->slots),
				GFP_KERNEL_ACCOUNT);
	if (!fault->slots)
		return -ENOMEM;

	for (i = 0; i < IOMMUFD_FAULT_DEPTH; i++) {
		fault->slots[i].cookie = i;
		fault->slots[i].next = i + 1;
	}
	fault->free_last = IOMMUFD_FAULT_DEPTH - 1;
	return 0;
}

/**
 * iommufd_fault_alloc() - ioctl(IOMMU_FAULT_QUEUE_ALLOC)
 * @ucmd: the ioctl
 *
 * Return: 0, -EOPNOTSUPP for unknown flags, -ENOMEM, -EMFILE or -ENFILE, or
 * -EFAULT.
 */
int iommufd_fault_alloc(struct iommufd_ucmd *ucmd)
{
	struct iommu_fault_alloc *cmd = ucmd->cmd;
	struct iommufd_fault *fault;
	struct file *filep;
	int fd, rc;

	if (cmd->flags & ~IOMMU_FAULT_ALLOC_BLOCKING)
		return -EOPNOTSUPP;

	fault = iommufd_object_alloc(ucmd->ictx, fault, IOMMUFD_OBJ_FAULT);
	if (IS_ERR(fault))
		return PTR_ERR(fault);

	rc = fault_init(fault, ucmd->ictx);
	if (rc)
		goto err_abort;
	fault->blocking = cmd->flags & IOMMU_FAULT_ALLOC_BLOCKING;

	filep = iommufd_fault_file_create(fault);
	if (IS_ERR(filep)) {
		rc = PTR_ERR(filep);
		goto err_abort;
	}
	/* From here on the abort also closes the file. */
	fault->filep = filep;

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		rc = fd;
		goto err_abort;
	}

	cmd->out_fault_id = fault->obj.id;
	cmd->out_fault_fd = fd;
	rc = iommufd_ucmd_respond(ucmd, sizeof(*cmd));
	if (rc)
		goto err_put_fd;

	iommufd_object_finalize(ucmd->ictx, &fault->obj);
	fd_install(fd, filep);
	return 0;

err_put_fd:
	put_unused_fd(fd);
err_abort:
	iommufd_object_abort_and_destroy(ucmd->ictx, &fault->obj);
	return rc;
}
