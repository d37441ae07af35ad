// SPDX-License-Identifier: GPL-2.0-only
/*
 * IOMMU_FAULT_SERVE: answers in and messages out, in one system call
 *
 * For who has no io_uring, and for who serves one fault at a time. See struct
 * iommu_fault_serve for what user space is promised.
 */
#include <linux/fs.h>
#include <linux/iommufd.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <uapi/linux/iommufd.h>

#include "iommufd_private.h"

#define FAULT_MESSAGE_SIZE	sizeof(struct iommu_hwpt_pgfault)
#define FAULT_RESPONSE_SIZE	sizeof(struct iommu_hwpt_page_response)

/* Fields of a larger structure, which this kernel does not know, must be 0. */
static int fault_serve_check_size(const struct iommu_fault_serve __user *user, u32 size)
{
	int rc;

	if (size < sizeof(*user))
		return -EINVAL;
	rc = check_zeroed_user(user + 1, size - sizeof(*user));
	return rc < 0 ? rc : rc ? 0 : -E2BIG;
}

/*
 * Nothing is answered, and no message taken, for who cannot be told of it: the
 * structure must be writable. Its numbers count as not done from here on.
 */
static int fault_serve_begin(struct iommu_fault_serve *cmd,
			     struct iommu_fault_serve __user *user)
{
	if (!user_access_begin(user, sizeof(*user)))
		return -EFAULT;
	unsafe_get_user(cmd->size, &user->size, not_there);
	unsafe_get_user(cmd->flags, &user->flags, not_there);
	unsafe_get_user(cmd->responses_uptr, &user->responses_uptr, not_there);
	unsafe_get_user(cmd->messages_uptr, &user->messages_uptr, not_there);
	unsafe_get_user(cmd->response_num, &user->response_num, not_there);
	unsafe_get_user(cmd->message_num, &user->message_num, not_there);
	unsafe_get_user(cmd->timeout_ns, &user->timeout_ns, not_there);
	if (likely(cmd->size >= sizeof(*user))) {
		unsafe_put_user(0, &user->response_num, not_there);
		unsafe_put_user(0, &user->message_num, not_there);
	}
	user_access_end();
	return likely(cmd->size == sizeof(*user)) ? 0 : fault_serve_check_size(user, cmd->size);

not_there:
	user_access_end();
	return -EFAULT;
}

/* What was done, for user space; its messages may have been written over the structure. */
static int fault_serve_end(struct iommu_fault_serve __user *user, u32 given, u32 taken)
{
	if (!user_write_access_begin(user, sizeof(*user)))
		return -EFAULT;
	unsafe_put_user(given, &user->response_num, not_there);
	unsafe_put_user(taken, &user->message_num, not_there);
	user_write_access_end();
	return 0;

not_there:
	user_write_access_end();
	return -EFAULT;
}

/* User memory for @num pieces of @size each, or for as many as one call can have */
static bool fault_serve_memory(struct iov_iter *iter, unsigned int direction, u64 uptr, u32 num,
			       size_t size)
{
	size_t length = min_t(size_t, num, MAX_RW_COUNT / size) * size;
	void __user *memory = u64_to_user_ptr(uptr);

	iov_iter_ubuf(iter, direction, memory, length);
	return access_ok(memory, length);
}

/* Returns 0 if there may be something now; who has waited tries to read again. */
static int fault_serve_wait(struct iommufd_fault *fault, u64 timeout_ns, ktime_t *until)
{
	if (timeout_ns == IOMMU_FAULT_SERVE_FOREVER)
		return iommufd_fault_wait(fault, NULL);
	if (!*until)
		*until = ktime_add_safe(ktime_get(), min_t(u64, timeout_ns, KTIME_MAX));
	return iommufd_fault_wait(fault, until);
}

static int fault_serve_messages(struct file *filep, struct iov_iter *to, u64 timeout_ns,
				u32 *number)
{
	struct iommufd_fault *fault = filep->private_data;
	size_t room = iov_iter_count(to) / FAULT_MESSAGE_SIZE;
	ktime_t until = 0;
	ssize_t count;
	int rc = 0;

	for (;;) {
		count = iommufd_fault_read(fault, to, room);
		if (count == -EINVAL) {
			*number = iommufd_fault_first(fault);
			/* Unless it was answered, or read by somebody, meanwhile */
			if (*number > room)
				return -EMSGSIZE;
			*number = 0;
			continue;
		}
		if (count > 0)
			*number = count;
		if (count)
			return min(count, 0);
		if (READ_ONCE(fault->hung_up))
			return -ENODEV;
		if (!timeout_ns || rc == -ETIME)
			return 0;
		if (rc)
			return -EINTR;
		if (filep->f_flags & O_NONBLOCK)
			return -EAGAIN;
		rc = fault_serve_wait(fault, timeout_ns, &until);
	}
}

static int fault_serve(struct file *filep, struct iommu_fault_serve *cmd, u32 *given,
		       u32 *taken)
{
	struct iov_iter from, to;
	size_t done;
	int rc;

	if (cmd->flags)
		return -EOPNOTSUPP;
	/* Nothing is answered on behalf of who then cannot read. */
	if (cmd->message_num) {
		if (cmd->messages_uptr % __alignof__(struct iommu_hwpt_pgfault))
			return -EINVAL;
		if (!fault_serve_memory(&to, ITER_DEST, cmd->messages_uptr, cmd->message_num,
					FAULT_MESSAGE_SIZE))
			return -EFAULT;
	}
	if (cmd->response_num) {
		if (!fault_serve_memory(&from, ITER_SOURCE, cmd->responses_uptr,
					cmd->response_num, FAULT_RESPONSE_SIZE))
			return -EFAULT;
		rc = iommufd_fault_write(filep->private_data, &from, cmd->response_num, &done);
		*given = done;
		if (rc)
			return rc;
	}
	if (!cmd->message_num)
		return 0;
	return fault_serve_messages(filep, &to, cmd->timeout_ns, taken);
}

/**
 * iommufd_fault_file_ioctl() - The ioctls of a fault object's file
 * @filep: the file
 * @op: IOMMU_FAULT_SERVE
 * @arg: address of a struct iommu_fault_serve
 *
 * Context: Process context, may sleep.
 *
 * Return: 0, or an error as of struct iommu_fault_serve.
 */
long iommufd_fault_file_ioctl(struct file *filep, unsigned int op, unsigned long arg)
{
	struct iommu_fault_serve __user *user = (void __user *)arg;
	struct iommu_fault_serve cmd;
	u32 given = 0, taken = 0;
	int rc;

	if (op != IOMMU_FAULT_SERVE)
		return -ENOTTY;
	rc = fault_serve_begin(&cmd, user);
	if (rc)
		return rc;

	rc = fault_serve(filep, &cmd, &given, &taken);
	return fault_serve_end(user, given, taken) ?: rc;
}
