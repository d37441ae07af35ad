// SPDX-License-Identifier: GPL-2.0-only
/*
 * The file of an iommufd fault object: read, write, poll, fdinfo
 *
 * A read gets whole groups of struct iommu_hwpt_pgfault, a write gives any
 * number of struct iommu_hwpt_page_response. Both work the same by read(2) and
 * write(2), by readv and writev, and by io_uring.
 *
 * What a read does on an empty queue depends on who asks:
 *
 *	read(2)				returns 0, as pollers of old expect;
 *					of a blocking object: sleeps, or
 *					-EAGAIN if the file is O_NONBLOCK
 *	IOCB_NOWAIT			-EAGAIN: io_uring then waits by poll, or
 *					passes it on if the SQE had RWF_NOWAIT
 *	async without IOCB_NOWAIT	sleeps: an io_uring worker
 *
 * So a read through io_uring stays posted until there is something to read,
 * also on a file that is O_NONBLOCK.
 *
 * With immediate delivery a read gets single messages, as many as fit.
 */
#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/iommufd.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/seq_file.h>
#include <linux/uio.h>
#include <uapi/linux/iommufd.h>

#include "iommufd_private.h"

#define FAULT_MESSAGE_SIZE	sizeof(struct iommu_hwpt_pgfault)
#define FAULT_RESPONSE_SIZE	sizeof(struct iommu_hwpt_page_response)
/* Messages that are taken and copied to user space together */
#define FAULT_COPY_BATCH	16

/* Copy messages; returns how many whole ones arrived. */
static size_t fault_copy(const struct iommu_hwpt_pgfault *messages, size_t count,
			 struct iov_iter *to)
{
	size_t size = count * FAULT_MESSAGE_SIZE;
	size_t copied = copy_to_iter(messages, size, to);

	return likely(copied == size) ? count : copied / FAULT_MESSAGE_SIZE;
}

/* The same to one piece of user memory: by words, as there are just a few. */
static __always_inline size_t fault_store(const struct iommu_hwpt_pgfault *messages,
					  size_t count, void __user *to)
{
	const u64 *word = (const u64 *)messages;
	u64 __user *next = to;
	size_t copied = 0;

	static_assert(FAULT_MESSAGE_SIZE == 5 * sizeof(u64));

	might_fault();
	if (!user_write_access_begin(next, count * FAULT_MESSAGE_SIZE))
		return 0;
	for (; copied < count; copied++, word += 5, next += 5) {
		unsafe_put_user(word[0], &next[0], out_end);
		unsafe_put_user(word[1], &next[1], out_end);
		unsafe_put_user(word[2], &next[2], out_end);
		unsafe_put_user(word[3], &next[3], out_end);
		unsafe_put_user(word[4], &next[4], out_end);
	}
out_end:
	user_write_access_end();
	return copied;
}

static struct iov_iter *fault_user_iter(struct iov_iter *iter, void __user *to, size_t room)
{
	iov_iter_ubuf(iter, ITER_DEST, to, room * FAULT_MESSAGE_SIZE);
	return iter;
}

/* The message that a group has ended which user space has read a part of */
static void fault_recall_message(struct iommu_hwpt_pgfault *message,
				 const struct iopf_group *group)
{
	const struct iopf_fault *iopf;

	iopf = list_first_entry(&group->faults, struct iopf_fault, list);
	*message = (struct iommu_hwpt_pgfault) {
		.flags = (iopf->fault.prm.flags & IOMMU_PGFAULT_FLAGS_PASID_VALID) |
			 IOMMU_PGFAULT_FLAGS_RECALLED,
		.dev_id = group->dev_id,
		.pasid = iopf->fault.prm.pasid,
		.grpid = iopf->fault.prm.grpid,
		.cookie = group->cookie,
	};
}

/* Copy what was taken of one group; returns how many whole messages arrived. */
static size_t fault_copy_part(const struct iopf_group *group,
			      const struct iommufd_fault_part *part,
			      struct iov_iter *to, u32 flags)
{
	struct iopf_fault *iopf = part->first;
	struct iommu_hwpt_pgfault message;
	size_t copied = 0;

	if (!part->taken) {
		fault_recall_message(&message, group);
		message.flags |= flags;
		return fault_copy(&message, 1, to);
	}
	for (;;) {
		iommufd_fault_message(&message, group, &iopf->fault.prm);
		if (!(message.flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE))
			message.flags |= IOMMU_PGFAULT_FLAGS_OPEN;
		message.flags |= flags;
		flags = 0;
		if (!fault_copy(&message, 1, to) || ++copied == part->taken)
			return copied;
		iopf = list_next_entry(iopf, list);
	}
}

/* Copy what was taken of groups that are delivered as they arrive. */
static size_t fault_copy_parts(struct iommufd_fault *fault, struct list_head *batch,
			       struct iov_iter *to, u32 flags)
{
	const struct iommufd_fault_part *part;
	struct iopf_group *group;
	size_t copied = 0, n;

	list_for_each_entry(group, batch, node) {
		part = iommufd_fault_part(fault, group->cookie);
		n = fault_copy_part(group, part, to, flags);
		copied += n;
		if (n < (part->taken ?: 1))
			break;
		flags = 0;
	}
	return copied;
}

static noinline_for_stack ssize_t fault_read_parts(struct iommufd_fault *fault, size_t room,
						   void __user *user, struct iov_iter *to)
{
	struct iov_iter iter;
	LIST_HEAD(batch);
	size_t copied;
	u32 flags;

	if (!to)
		to = fault_user_iter(&iter, user, room);
	if (!iommufd_fault_part_deliver(fault, &batch, room, &flags))
		return 0;
	copied = fault_copy_parts(fault, &batch, to, flags);
	iommufd_fault_part_delivered(fault, &batch, copied, flags);
	return copied ? copied * FAULT_MESSAGE_SIZE : -EFAULT;
}

/* Copy a group of any size; returns whether all of it arrived. */
static bool fault_copy_group(const struct iopf_group *group, u32 flags,
			     struct iov_iter *to)
{
	struct iommu_hwpt_pgfault message;
	struct iopf_fault *iopf;

	list_for_each_entry(iopf, &group->faults, list) {
		iommufd_fault_message(&message, group, &iopf->fault.prm);
		message.flags |= flags;
		flags = 0;
		if (!fault_copy(&message, 1, to))
			return false;
	}
	return true;
}

/*
 * Read one group that is too large for iommufd_fault_take(), to @user or, if there
 * is one, @to; returns the number of messages.
 */
static noinline_for_stack ssize_t fault_read_large(struct iommufd_fault *fault, size_t room,
						   void __user *user, struct iov_iter *to)
{
	struct iopf_group *group;
	struct iov_iter iter;
	ssize_t count;
	bool copied;
	u32 flags;

	group = iommufd_fault_hold(fault, room, &flags);
	if (IS_ERR_OR_NULL(group))
		return PTR_ERR_OR_ZERO(group);

	if (!to)
		to = fault_user_iter(&iter, user, room);
	count = group->fault_count;
	copied = fault_copy_group(group, flags, to);
	iommufd_fault_unhold(fault, group, flags, copied);
	return copied ? count : -EFAULT;
}

/*
 * Read groups until there is no room or none is left, to @user or, if there is
 * one, @to; returns bytes or an error. Inline: one copy for each kind of memory.
 */
static __always_inline ssize_t fault_read(struct iommufd_fault *fault, size_t room,
					  void __user *user, struct iov_iter *to)
{
	struct iommu_hwpt_pgfault messages[FAULT_COPY_BATCH] __uninitialized;
	size_t done = 0, copied;
	ssize_t count = 0;

	while (done < room && !iommufd_fault_is_empty(fault)) {
		count = iommufd_fault_take(fault, messages, min(room - done, FAULT_COPY_BATCH));
		if (unlikely(!count)) {
			count = fault_read_large(fault, room - done, user, to);
			if (count < 0)
				break;
		} else {
			copied = to ? fault_copy(messages, count, to) :
				      fault_store(messages, count, user);
			if (unlikely(copied < count)) {
				done += iommufd_fault_untake(fault, messages, count, copied);
				count = -EFAULT;
				break;
			}
		}
		user += count * FAULT_MESSAGE_SIZE;
		done += count;
	}
	return done ? done * FAULT_MESSAGE_SIZE : count;
}

/**
 * iommufd_fault_read_user() - iommufd_fault_read() into one piece of user memory
 * @fault: the object
 * @to: where to
 * @room: number of messages that it has room for
 *
 * Context: Process context, may sleep to fault user memory in.
 *
 * Return: as iommufd_fault_read().
 */
ssize_t iommufd_fault_read_user(struct iommufd_fault *fault, void __user *to, size_t room)
{
	if (unlikely(fault->parts))
		return fault_read_parts(fault, room, to, NULL);
	return fault_read(fault, room, to, NULL);
}

/**
 * iommufd_fault_read() - One attempt to read whole groups
 * @fault: the object
 * @to: where to; the size is a multiple of that of a message
 *
 * Context: Process context, may sleep to fault user memory in.
 *
 * Return: bytes read, 0 if nothing is queued, -EINVAL if the first group does
 * not fit, -EFAULT if it could not be copied; it stays queued then. Groups that
 * are delivered immediately need room for one message only.
 */
ssize_t iommufd_fault_read(struct iommufd_fault *fault, struct iov_iter *to)
{
	size_t room = iov_iter_count(to) / FAULT_MESSAGE_SIZE;
	ssize_t rc;

	if (unlikely(fault->parts))
		return fault_read_parts(fault, room, NULL, to);
	if (!iter_is_ubuf(to))
		return fault_read(fault, room, NULL, to);

	rc = iommufd_fault_read_user(fault, to->ubuf + to->iov_offset, room);
	if (rc > 0)
		iov_iter_advance(to, rc);
	return rc;
}

static ssize_t iommufd_fault_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct iommufd_fault *fault = iocb->ki_filp->private_data;
	ssize_t rc;

	if (iocb->ki_pos || iov_iter_count(to) % FAULT_MESSAGE_SIZE)
		return -ESPIPE;
	if (!iov_iter_count(to))
		return 0;

	for (;;) {
		rc = iommufd_fault_read(fault, to);
		if (rc)
			return rc;
		if (iocb->ki_flags & IOCB_NOWAIT)
			return -EAGAIN;
		if (is_sync_kiocb(iocb) && !(fault->flags & IOMMU_FAULT_ALLOC_BLOCKING))
			return 0;
		if (is_sync_kiocb(iocb) && iocb->ki_filp->f_flags & O_NONBLOCK)
			return -EAGAIN;
		rc = wait_event_interruptible_exclusive(fault->read_wait,
							!iommufd_fault_is_empty(fault));
		if (rc)
			return rc;
	}
}

/* Answers in one piece of user memory, by words; returns how many could be read. */
static size_t fault_load(struct iommu_hwpt_page_response *responses, size_t count,
			 const void __user *from)
{
	u64 *word = (u64 *)responses;
	const u64 __user *next = from;
	size_t copied = 0;

	static_assert(sizeof(*responses) == sizeof(u64));

	might_fault();
	if (!user_read_access_begin(next, count * FAULT_RESPONSE_SIZE))
		return 0;
	for (; copied < count; copied++)
		unsafe_get_user(word[copied], &next[copied], out_end);
out_end:
	user_read_access_end();
	return copied;
}

/* Get up to @count answers, all that can be read of one piece of memory. */
static size_t fault_get_answers(struct iommu_hwpt_page_response *responses, size_t count,
				struct iov_iter *from)
{
	size_t copied;

	if (!iter_is_ubuf(from))
		return copy_from_iter(responses, count * FAULT_RESPONSE_SIZE, from) /
		       FAULT_RESPONSE_SIZE;

	copied = fault_load(responses, count, from->ubuf + from->iov_offset);
	iov_iter_advance(from, copied * FAULT_RESPONSE_SIZE);
	return copied;
}

/**
 * iommufd_fault_write() - Answer groups
 * @fault: the object
 * @from: the answers; the size is a multiple of that of one
 *
 * Context: Process context, may sleep.
 *
 * Return: bytes of the answers that were given. It stops at one that cannot be
 * copied or is wrong; if that is the first, -EFAULT is returned, or an error as
 * of iommufd_fault_respond().
 */
ssize_t iommufd_fault_write(struct iommufd_fault *fault, struct iov_iter *from)
{
	struct iommu_hwpt_page_response responses[IOMMUFD_FAULT_BATCH] __uninitialized;
	size_t wanted, copied, done = 0;
	int given;

	while (iov_iter_count(from)) {
		wanted = min(IOMMUFD_FAULT_BATCH, iov_iter_count(from) / FAULT_RESPONSE_SIZE);
		copied = fault_get_answers(responses, wanted, from);
		given = iommufd_fault_respond(fault, responses, copied);
		if (given < 0)
			return done ?: given;
		done += given * FAULT_RESPONSE_SIZE;
		if (given < copied)
			return done;
		if (copied < wanted)
			return done ?: -EFAULT;
	}
	return done;
}

static ssize_t iommufd_fault_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	if (iocb->ki_pos || iov_iter_count(from) % FAULT_RESPONSE_SIZE)
		return -ESPIPE;
	return iommufd_fault_write(iocb->ki_filp->private_data, from);
}

/*
 * No lock: a fault that arrives meanwhile is not missed, because
 *
 *	poller					producer
 *	poll_wait(): join the wait queue	queued becomes non-zero
 *	full barrier				full barrier in wq_has_sleeper()
 *	read queued				is somebody on the wait queue?
 *
 * At least one of the two sees what the other wrote. That the producer only
 * looks when the queue was empty is enough: a poller which finds it non-empty
 * does not go to sleep.
 */
static __poll_t iommufd_fault_poll(struct file *filep, struct poll_table_struct *wait)
{
	struct iommufd_fault *fault = filep->private_data;
	__poll_t events = EPOLLOUT;

	poll_wait(filep, &fault->poll_wait, wait);
	if (!iommufd_fault_is_empty(fault))
		events |= EPOLLIN | EPOLLRDNORM;
	return events;
}

static void fault_show(struct seq_file *m, const char *name, u64 value)
{
	seq_printf(m, "iommufd-fault-%s:\t%llu\n", name, value);
}

static void fault_show_answers(struct seq_file *m, const struct iommufd_fault_stats *stats)
{
	const u64 *causes = stats->causes;
	u64 user;

	fault_show(m, "answered-success", stats->answers[IOMMU_PAGE_RESP_SUCCESS]);
	fault_show(m, "answered-invalid", stats->answers[IOMMU_PAGE_RESP_INVALID]);
	fault_show(m, "answered-failure", stats->answers[IOMMU_PAGE_RESP_FAILURE]);

	/* Most answers are user space's: those are not counted one by one. */
	user = stats->answers[IOMMU_PAGE_RESP_SUCCESS] +
	       stats->answers[IOMMU_PAGE_RESP_INVALID] +
	       stats->answers[IOMMU_PAGE_RESP_FAILURE] -
	       causes[IOPF_CAUSE_DETACH] - causes[IOPF_CAUSE_CLOSE] -
	       causes[IOPF_CAUSE_DEADLINE];
	fault_show(m, "by-user", user);
	fault_show(m, "by-detach", causes[IOPF_CAUSE_DETACH]);
	fault_show(m, "by-close", causes[IOPF_CAUSE_CLOSE]);
	fault_show(m, "by-deadline", causes[IOPF_CAUSE_DEADLINE]);
	fault_show(m, "by-removal", stats->taken);
	fault_show(m, "withdrawn", stats->withdrawn);
}

static void iommufd_fault_show_fdinfo(struct seq_file *m, struct file *filep)
{
	struct iommufd_fault *fault = filep->private_data;
	struct iommufd_fault_stats stats;
	unsigned int queued, delivered;

	spin_lock(&fault->lock);
	queued = fault->queued;
	delivered = fault->delivered;
	stats = fault->stats;
	spin_unlock(&fault->lock);

	fault_show(m, "id", fault->obj.id);
	fault_show(m, "flags", fault->flags);
	fault_show(m, "depth", fault->mask + 1);
	fault_show(m, "deadline-ms", fault->deadline_ms);
	fault_show(m, "queued", queued);
	fault_show(m, "delivered", delivered);
	fault_show(m, "peak", stats.peak);
	fault_show(m, "total-requests", stats.requests);
	fault_show(m, "total-groups", stats.groups);
	fault_show(m, "total-delivered", stats.delivered);
	fault_show_answers(m, &stats);
	fault_show(m, "recalled", stats.recalled);
	fault_show(m, "refused", stats.refused);
	fault_show(m, "overflows", stats.overflows);
	fault_show(m, "no-room", stats.no_room);
	fault_show(m, "answers-stale", stats.stale);
	fault_show(m, "answers-early", stats.busy);
	fault_show(m, "answers-unknown", stats.unknown);
}

static int iommufd_fault_release(struct inode *inode, struct file *filep)
{
	struct iommufd_fault *fault = filep->private_data;
	struct iommufd_ctx *ictx = fault->ictx;

	iommufd_fault_close(fault);
	/* Without the file's user the object may be destroyed at any time. */
	refcount_dec(&fault->obj.users);
	iommufd_ctx_put(ictx);
	return 0;
}

static const struct file_operations iommufd_fault_fops = {
	.owner = THIS_MODULE,
	.fop_flags = FOP_POLL_EXACT,
	.read_iter = iommufd_fault_read_iter,
	.write_iter = iommufd_fault_write_iter,
	.poll = iommufd_fault_poll,
	.uring_cmd = iommufd_fault_uring_cmd,
	.show_fdinfo = iommufd_fault_show_fdinfo,
	.release = iommufd_fault_release,
};

/**
 * iommufd_fault_file_create() - Create the file of a fault object
 * @fault: the object
 *
 * The file holds a user of the object and a reference of the context.
 *
 * Return: the file, not yet installed in a descriptor, or an ERR_PTR.
 */
struct file *iommufd_fault_file_create(struct iommufd_fault *fault)
{
	struct file *filep;

	filep = anon_inode_getfile_fmode("[iommufd-pgfault]", &iommufd_fault_fops,
					 fault, O_RDWR, FMODE_NOWAIT);
	if (IS_ERR(filep))
		return filep;

	refcount_inc(&fault->obj.users);
	iommufd_ctx_get(fault->ictx);
	return filep;
}
