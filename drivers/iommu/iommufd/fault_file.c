// SPDX-License-Identifier: GPL-2.0-only
/*
 * The file of an iommufd fault object: read, write, poll, fdinfo
 *
 * A read gets whole groups of struct iommu_hwpt_pgfault, a write gives any
 * number of struct iommu_hwpt_page_response. Both work the same by read(2) and
 * write(2), by readv and writev, and by io_uring. IOMMU_FAULT_SERVE does both in
 * one call, see fault_serve.c.
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
 * also on a file that is O_NONBLOCK. When no fault can come any more every read
 * returns 0.
 *
 * The size that read(2) gives is a multiple of that of a message. Buffers that
 * are provided to io_uring have sizes of their own; such a read uses as much as
 * holds whole messages.
 */
#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/iommufd.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/seq_file.h>
#include <linux/uio.h>
#include <uapi/linux/iommufd.h>

#include "fault_answer.h"
#include "fault_file.h"
#include "fault_object.h"
#include "fault_read.h"
#include "fault_wake.h"

static ssize_t fault_file_wait(struct iommufd_fault *fault, struct kiocb *iocb)
{
	if (READ_ONCE(fault->hung_up))
		return 0;
	if (iocb->ki_flags & IOCB_NOWAIT)
		return -EAGAIN;
	if (is_sync_kiocb(iocb) && !(fault->flags & IOMMU_FAULT_ALLOC_BLOCKING))
		return 0;
	if (is_sync_kiocb(iocb) && iocb->ki_filp->f_flags & O_NONBLOCK)
		return -EAGAIN;
	return iommufd_fault_wait(fault, NULL) ?: 1;
}

static ssize_t iommufd_fault_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct iommufd_fault *fault = iocb->ki_filp->private_data;
	size_t room = iov_iter_count(to) / FAULT_MESSAGE_SIZE;
	ssize_t rc, waited = 1;

	if (iocb->ki_pos)
		return -ESPIPE;
	/* A multishot read of io_uring has no completion, and does not wait. */
	if (is_sync_kiocb(iocb) && !(iocb->ki_flags & IOCB_NOWAIT) &&
	    iov_iter_count(to) % FAULT_MESSAGE_SIZE)
		return -ESPIPE;
	if (!room)
		return iov_iter_count(to) ? -EINVAL : 0;

	for (;;) {
		rc = iommufd_fault_read(fault, to, room);
		if (rc > 0)
			return rc * FAULT_MESSAGE_SIZE;
		if (rc || waited <= 0)
			return rc ?: waited;
		waited = fault_file_wait(fault, iocb);
		/* Only who did wait must try again, see iommufd_fault_wait(). */
		if (!waited || waited == -EAGAIN)
			return waited;
	}
}

static ssize_t iommufd_fault_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	size_t done = 0, count = iov_iter_count(from) / FAULT_RESPONSE_SIZE;
	struct iommufd_fault *fault = iocb->ki_filp->private_data;
	int rc = 0;

	if (iocb->ki_pos || iov_iter_count(from) % FAULT_RESPONSE_SIZE)
		return -ESPIPE;
	while (!rc && done < count)
		done += iommufd_fault_write(fault, from, count - done, &rc);
	return done ? done * FAULT_RESPONSE_SIZE : rc;
}

static __poll_t iommufd_fault_poll(struct file *filep, struct poll_table_struct *wait)
{
	struct iommufd_fault *fault = filep->private_data;
	__poll_t events = EPOLLOUT;

	/* A read that io_uring has posted waits its turn among the readers. */
	poll_wait(filep, io_uring_is_read_wait(wait) ? &fault->readers : &fault->pollers, wait);
	if (!iommufd_fault_is_empty(fault))
		events |= EPOLLIN | EPOLLRDNORM;
	if (READ_ONCE(fault->hung_up))
		events |= EPOLLIN | EPOLLRDNORM | EPOLLHUP;
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

	spin_lock_bh(&fault->lock);
	queued = fault->queued;
	delivered = fault->delivered;
	stats = fault->stats;
	spin_unlock_bh(&fault->lock);

	fault_show(m, "id", fault->id);
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

	iommufd_fault_close(fault);
	/* In this order, claims.pml: PUT_BEFORE_LEAVE */
	iommufd_fault_leave(fault);
	iommufd_fault_put(fault);
	return 0;
}

static const struct file_operations iommufd_fault_fops = {
	.owner = THIS_MODULE,
	.fop_flags = FOP_READ_MESSAGES,
	.read_iter = iommufd_fault_read_iter,
	.write_iter = iommufd_fault_write_iter,
	.poll = iommufd_fault_poll,
	.unlocked_ioctl = iommufd_fault_file_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.show_fdinfo = iommufd_fault_show_fdinfo,
	.release = iommufd_fault_release,
};

/**
 * iommufd_fault_file_create() - Create the file of a fault object
 * @fault: the object
 *
 * The file holds a reference of @fault, and as long as the context is there a user
 * of its id: see iommufd_fault_leave().
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

	refcount_inc(&fault->refs);
	refcount_inc(&fault->obj->users);
	fault->has_file = true;
	return filep;
}
