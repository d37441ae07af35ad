// SPDX-License-Identifier: GPL-2.0-only
/*
 * io_uring commands of an iommufd fault object: FETCH, RESPOND and both at once
 *
 * A FETCH that finds nothing waits in &iommufd_fault.fetches, first come first
 * served. When there is something, the first one is started: its task work
 * reads in the context of the task that submitted it. One is under way at a
 * time; it starts the next if it leaves groups behind. So a fault wakes one
 * waiter, however many there are, and
 *
 *	groups are queued and a FETCH waits => one FETCH is started
 *
 * holds whenever iommufd_fault::lock is free. A waiter that was started and
 * finds that a read was faster goes back to the front.
 *
 * A waiting command ends with -ECANCELED when its ring or its task goes away.
 * It holds the file, so the object outlives it. IORING_ASYNC_CANCEL does not
 * find commands in this kernel and says -ENOENT.
 */
#include <linux/io_uring/cmd.h>
#include <linux/iommufd.h>
#include <linux/uio.h>
#include <uapi/linux/iommufd.h>

#include "iommufd_private.h"

/* What is kept of the SQE while a FETCH waits */
struct fault_fetch {
	struct list_head node;
	u64 addr;
	u32 len;
};

static struct fault_fetch *to_fetch(struct io_uring_cmd *cmd)
{
	return io_uring_cmd_to_pdu(cmd, struct fault_fetch);
}

static struct io_uring_cmd *fetch_to_cmd(struct fault_fetch *fetch)
{
	return container_of((void *)fetch, struct io_uring_cmd, pdu);
}

/* One attempt: bytes, 0 if nothing is queued, or an error */
static ssize_t fault_uring_read(struct iommufd_fault *fault, struct io_uring_cmd *cmd)
{
	struct fault_fetch *fetch = to_fetch(cmd);
	struct iov_iter iter;
	int rc;

	if (!(cmd->flags & IORING_URING_CMD_FIXED))
		return iommufd_fault_read_user(fault, u64_to_user_ptr(fetch->addr),
					       fetch->len / sizeof(struct iommu_hwpt_pgfault));

	rc = io_uring_cmd_import_fixed(fetch->addr, fetch->len, ITER_DEST, &iter, cmd);
	return rc ?: iommufd_fault_read(fault, &iter);
}

/**
 * iommufd_fault_uring_next() - Pick the waiting FETCH that is to start
 * @fault: the object
 *
 * Context: Under the object's lock.
 *
 * Return: what the caller passes to iommufd_fault_uring_start() when it has
 * dropped the lock, or NULL.
 */
struct io_uring_cmd *iommufd_fault_uring_next(struct iommufd_fault *fault)
{
	struct fault_fetch *fetch;

	lockdep_assert_held(&fault->lock);

	if (!fault->queued || fault->fetching || list_empty(&fault->fetches))
		return NULL;

	fetch = list_first_entry(&fault->fetches, struct fault_fetch, node);
	list_del_init(&fetch->node);
	WRITE_ONCE(fault->fetching, true);
	return fetch_to_cmd(fetch);
}

static void fault_uring_work(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	struct iommufd_fault *fault = cmd->file->private_data;
	struct io_uring_cmd *next;
	ssize_t rc = -ECANCELED;

	/* The memory of a task that is gone is not its memory any more. */
	if (!(issue_flags & IO_URING_F_TASK_DEAD))
		rc = fault_uring_read(fault, cmd);

	spin_lock(&fault->lock);
	WRITE_ONCE(fault->fetching, false);
	if (!rc)
		list_add(&to_fetch(cmd)->node, &fault->fetches);
	next = iommufd_fault_uring_next(fault);
	spin_unlock(&fault->lock);

	/* @cmd may hold the last reference of the file: it goes last. */
	if (next)
		iommufd_fault_uring_start(next);
	if (rc)
		io_uring_cmd_done(cmd, rc, 0, issue_flags);
}

/**
 * iommufd_fault_uring_start() - Let a FETCH read in its task's context
 * @cmd: from iommufd_fault_uring_next()
 *
 * Not by lazy task work: that may wait for more completions than one FETCH at
 * a time can bring.
 */
void iommufd_fault_uring_start(struct io_uring_cmd *cmd)
{
	io_uring_cmd_complete_in_task(cmd, fault_uring_work);
}

/*
 * May a new FETCH read at once, with nobody before it? Without the lock: the
 * FETCHes that its own task posted before are seen, and none is before or
 * behind those that others post at this moment.
 */
static bool fault_uring_is_first(struct iommufd_fault *fault)
{
	return !iommufd_fault_is_empty(fault) && !READ_ONCE(fault->fetching) &&
	       list_empty(&fault->fetches);
}

static int fault_uring_fetch(struct iommufd_fault *fault, struct io_uring_cmd *cmd,
			     unsigned int issue_flags)
{
	struct io_uring_cmd *next;
	ssize_t rc;

	if (fault_uring_is_first(fault)) {
		rc = fault_uring_read(fault, cmd);
		if (rc)
			return rc;
	}

	/* Takes a mutex, so before the command is there for others to see */
	io_uring_cmd_mark_cancelable(cmd, issue_flags);

	spin_lock(&fault->lock);
	list_add_tail(&to_fetch(cmd)->node, &fault->fetches);
	next = iommufd_fault_uring_next(fault);
	spin_unlock(&fault->lock);

	if (next)
		iommufd_fault_uring_start(next);
	return -EIOCBQUEUED;
}

static void fault_uring_canceled(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	io_uring_cmd_done(cmd, -ECANCELED, 0, issue_flags);
}

/*
 * io_uring calls this as often as it takes, so one that is started may finish.
 * It completes by task work too: a ring that exits calls from a worker, which
 * must not complete requests of a ring that is for its task alone.
 */
static void fault_uring_cancel(struct iommufd_fault *fault, struct io_uring_cmd *cmd)
{
	struct fault_fetch *fetch = to_fetch(cmd);
	bool waiting;

	spin_lock(&fault->lock);
	waiting = !list_empty(&fetch->node);
	list_del_init(&fetch->node);
	spin_unlock(&fault->lock);

	if (waiting)
		io_uring_cmd_complete_in_task(cmd, fault_uring_canceled);
}

/* The SQE is shared memory that user space can change: each field is read once. */
static int fault_uring_prep_fetch(struct io_uring_cmd *cmd)
{
	struct fault_fetch *fetch = to_fetch(cmd);

	INIT_LIST_HEAD(&fetch->node);
	fetch->addr = READ_ONCE(cmd->sqe->addr);
	fetch->len = READ_ONCE(cmd->sqe->len);
	if (!fetch->len || fetch->len % sizeof(struct iommu_hwpt_pgfault) ||
	    fetch->addr % __alignof__(struct iommu_hwpt_pgfault))
		return -EINVAL;
	return 0;
}

/* Returns how many answers were given, or an error if it was none. */
static ssize_t fault_uring_respond(struct iommufd_fault *fault, struct io_uring_cmd *cmd,
				   u32 *wanted)
{
	const struct iommu_fault_uring_cmd *sqe_cmd = io_uring_sqe_cmd(cmd->sqe);
	struct iommu_fault_uring_cmd ucmd;
	struct iov_iter iter;
	ssize_t rc;

	ucmd.responses_uptr = READ_ONCE(sqe_cmd->responses_uptr);
	ucmd.count = READ_ONCE(sqe_cmd->count);
	if (READ_ONCE(sqe_cmd->__reserved))
		return -EINVAL;

	*wanted = ucmd.count ?: 1;
	if (!ucmd.count)
		return iommufd_fault_respond(fault, &ucmd.response, 1);

	/* A registered buffer is the one to fetch into; answers are not in it. */
	rc = import_ubuf(ITER_SOURCE, u64_to_user_ptr(ucmd.responses_uptr),
			 ucmd.count * sizeof(ucmd.response), &iter);
	if (!rc)
		rc = iommufd_fault_write(fault, &iter);
	return rc < 0 ? rc : rc / sizeof(ucmd.response);
}

/**
 * iommufd_fault_uring_cmd() - The uring_cmd operation of the file
 * @cmd: the command
 * @issue_flags: of io_uring
 *
 * See enum iommu_fault_uring_op for what the commands do.
 *
 * Return: the result of the command, or -EIOCBQUEUED if it completes later.
 */
int iommufd_fault_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	struct iommufd_fault *fault = cmd->file->private_data;
	u32 op = cmd->cmd_op, wanted;
	ssize_t rc = 0;

	if (issue_flags & IO_URING_F_CANCEL) {
		fault_uring_cancel(fault, cmd);
		return 0;
	}

	switch (op) {
	case IOMMU_FAULT_URING_RESPOND:
		if (cmd->flags & IORING_URING_CMD_FIXED)
			return -EINVAL;
		return fault_uring_respond(fault, cmd, &wanted);
	case IOMMU_FAULT_URING_FETCH:
	case IOMMU_FAULT_URING_RESPOND_AND_FETCH:
		/* Nothing is answered on behalf of a fetch that cannot be. */
		rc = fault_uring_prep_fetch(cmd);
		if (rc)
			return rc;
		if (op == IOMMU_FAULT_URING_RESPOND_AND_FETCH) {
			rc = fault_uring_respond(fault, cmd, &wanted);
			if (rc != wanted)
				return rc < 0 ? rc : -EINVAL;
		}
		return fault_uring_fetch(fault, cmd, issue_flags);
	default:
		return -EOPNOTSUPP;
	}
}
