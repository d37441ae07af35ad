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
/* Messages that are copied to user space together */
#define FAULT_COPY_BATCH	16

/* The bits of &iommu_fault_page_request.flags that user space is told */
static_assert((int)IOMMU_PGFAULT_FLAGS_PASID_VALID ==
	      (int)IOMMU_FAULT_PAGE_REQUEST_PASID_VALID);
static_assert((int)IOMMU_PGFAULT_FLAGS_LAST_PAGE ==
	      (int)IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE);
#define FAULT_USER_FLAGS \
	(IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE)

static void fault_message(struct iommu_hwpt_pgfault *message,
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

/* Copy messages; returns how many whole ones arrived. */
static size_t fault_copy_some(const struct iommu_hwpt_pgfault *messages, size_t count,
			      struct iov_iter *to)
{
	size_t size = count * FAULT_MESSAGE_SIZE;
	size_t copied = copy_to_iter(messages, size, to);

	return likely(copied == size) ? count : copied / FAULT_MESSAGE_SIZE;
}

/* Copy the messages of all groups; returns how many whole ones arrived. */
static size_t fault_copy(struct list_head *batch, struct iov_iter *to)
{
	/* Each message is written as a whole before it is copied. */
	struct iommu_hwpt_pgfault messages[FAULT_COPY_BATCH] __uninitialized;
	size_t filled = 0, copied = 0, n;
	struct iopf_group *group;
	struct iopf_fault *iopf;

	list_for_each_entry(group, batch, node) {
		list_for_each_entry(iopf, &group->faults, list) {
			fault_message(&messages[filled++], group, &iopf->fault.prm);
			if (filled < FAULT_COPY_BATCH)
				continue;
			n = fault_copy_some(messages, filled, to);
			copied += n;
			if (n < filled)
				return copied;
			filled = 0;
		}
	}
	if (filled)
		copied += fault_copy_some(messages, filled, to);
	return copied;
}

/* The number of messages among the first @copied that end a whole group */
static size_t fault_whole_groups(struct list_head *batch, size_t copied)
{
	struct iopf_group *group;
	size_t whole = 0;

	list_for_each_entry(group, batch, node) {
		if (group->fault_count > copied - whole)
			break;
		whole += group->fault_count;
	}
	return whole;
}

/**
 * iommufd_fault_read() - One attempt to read whole groups
 * @fault: the object
 * @to: where to; the size is a multiple of that of a message
 *
 * Context: Process context, may sleep to fault user memory in.
 *
 * Return: bytes read, 0 if nothing is queued, -EINVAL if the first group does
 * not fit, -EFAULT if it could not be copied; it stays queued then.
 */
ssize_t iommufd_fault_read(struct iommufd_fault *fault, struct iov_iter *to)
{
	size_t room = iov_iter_count(to) / FAULT_MESSAGE_SIZE;
	ssize_t messages, copied;
	LIST_HEAD(batch);

	messages = iommufd_fault_deliver(fault, &batch, room);
	if (messages <= 0)
		return messages;

	copied = fault_copy(&batch, to);
	if (unlikely(copied < messages))
		copied = fault_whole_groups(&batch, copied);
	iommufd_fault_delivered(fault, &batch, copied);
	return copied ? copied * FAULT_MESSAGE_SIZE : -EFAULT;
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
		if (is_sync_kiocb(iocb) && !fault->blocking)
			return 0;
		if (is_sync_kiocb(iocb) && iocb->ki_filp->f_flags & O_NONBLOCK)
			return -EAGAIN;
		rc = wait_event_interruptible_exclusive(fault->read_wait,
							!iommufd_fault_is_empty(fault));
		if (rc)
			return rc;
	}
}

/**
 * iommufd_fault_write() - Answer groups
 * @fault: the object
 * @from: the answers; the size is a multiple of that of one
 *
 * Context: Process context, may sleep.
 *
 * Return: bytes of the answers that were given. It stops at one that cannot be
 * copied or is wrong; if that is the first, -EFAULT or -EINVAL is returned.
 */
ssize_t iommufd_fault_write(struct iommufd_fault *fault, struct iov_iter *from)
{
	struct iommu_hwpt_page_response responses[IOMMUFD_FAULT_BATCH] __uninitialized;
	size_t wanted, copied, given, done = 0;

	while (iov_iter_count(from)) {
		wanted = min(sizeof(responses), iov_iter_count(from));
		copied = copy_from_iter(responses, wanted, from) / FAULT_RESPONSE_SIZE;
		given = iommufd_fault_respond(fault, responses, copied);
		done += given * FAULT_RESPONSE_SIZE;
		if (given < copied)
			return done ?: -EINVAL;
		if (copied * FAULT_RESPONSE_SIZE < wanted)
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

static void iommufd_fault_show_fdinfo(struct seq_file *m, struct file *filep)
{
	struct iommufd_fault *fault = filep->private_data;
	unsigned int queued, delivered;

	spin_lock(&fault->lock);
	queued = fault->queued;
	delivered = fault->delivered;
	spin_unlock(&fault->lock);

	seq_printf(m, "iommufd-fault-id:\t%u\n", fault->obj.id);
	seq_printf(m, "iommufd-fault-depth:\t%u\n", IOMMUFD_FAULT_DEPTH);
	seq_printf(m, "iommufd-fault-queued:\t%u\n", queued);
	seq_printf(m, "iommufd-fault-delivered:\t%u\n", delivered);
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
