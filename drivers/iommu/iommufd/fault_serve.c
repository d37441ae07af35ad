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

#include "fault_answer.h"
#include "fault_file.h"
#include "fault_read.h"
#include "fault_wake.h"

/* Fields of a larger structure, which this kernel does not know, must be 0. */
static int fault_serve_check_size(const struct iommu_fault_serve __user *user, u32 size)
{
	int rc;

	if (size < sizeof(*user))
		return -EINVAL;
	rc = check_zeroed_user(user + 1, size - sizeof(*user));
	return rc < 0 ? rc : rc ? 0 : -E2BIG;
}

/* The structure, as the words that it is copied by */
union fault_serve_words {
	struct iommu_fault_serve cmd;
	u64 word[sizeof(struct iommu_fault_serve) / sizeof(u64)];
};

#define FAULT_SERVE_NUMBERS	(offsetof(struct iommu_fault_serve, response_num) / sizeof(u64))

/*
 * Nothing is answered, and no message taken, for who cannot be told of it: the
 * structure must be writable. Its numbers count as not done from here on.
 */
static __always_inline int fault_serve_begin(union fault_serve_words *words, u64 __user *user)
{
	struct iommu_fault_serve *cmd = &words->cmd;

	static_assert(sizeof(words->cmd) == sizeof(words->word) && ARRAY_SIZE(words->word) == 5);
	static_assert(offsetof(struct iommu_fault_serve, message_num) ==
		      FAULT_SERVE_NUMBERS * sizeof(u64) + sizeof(u32));

	if (!user_access_begin(user, sizeof(*words)))
		return -EFAULT;
	unsafe_get_user(words->word[0], &user[0], not_there);
	unsafe_get_user(words->word[1], &user[1], not_there);
	unsafe_get_user(words->word[2], &user[2], not_there);
	unsafe_get_user(words->word[3], &user[3], not_there);
	unsafe_get_user(words->word[4], &user[4], not_there);
	if (likely(cmd->size >= sizeof(*cmd)))
		unsafe_put_user(0, &user[FAULT_SERVE_NUMBERS], not_there);
	user_access_end();
	if (likely(cmd->size == sizeof(*cmd)))
		return 0;
	return fault_serve_check_size((void __user *)user, cmd->size);

not_there:
	user_access_end();
	return -EFAULT;
}

/* What was done, for user space; its messages may have been written over the structure. */
static __always_inline int fault_serve_end(union fault_serve_words *words, u64 __user *user,
					   u32 given, u32 taken)
{
	words->cmd.response_num = given;
	words->cmd.message_num = taken;
	return put_user(words->word[FAULT_SERVE_NUMBERS], &user[FAULT_SERVE_NUMBERS]);
}

/* Returns 0 if there may be something now; who has waited tries to read again. */
static noinline int fault_serve_wait(struct iommufd_fault *fault, u64 timeout_ns, ktime_t *until)
{
	if (timeout_ns == IOMMU_FAULT_SERVE_FOREVER)
		return iommufd_fault_wait(fault, NULL);
	if (!*until)
		*until = ktime_add_safe(ktime_get(), min_t(u64, timeout_ns, KTIME_MAX));
	return iommufd_fault_wait(fault, until);
}

/* Nothing was taken with the answers. */
static noinline int fault_serve_read(struct file *filep,
				     struct iommu_hwpt_pgfault __user *messages, size_t room,
				     u64 timeout_ns, u32 *taken)
{
	struct iommufd_fault *fault = filep->private_data;
	struct iov_iter to;
	ktime_t until = 0;
	ssize_t count;
	int rc = 0;

	iov_iter_ubuf(&to, ITER_DEST, messages, room * FAULT_MESSAGE_SIZE);
	for (;;) {
		count = iommufd_fault_read(fault, &to, room);
		if (count == -EINVAL) {
			*taken = iommufd_fault_first(fault);
			/* Unless it was answered, or read by somebody, meanwhile */
			if (*taken > room)
				return -EMSGSIZE;
			*taken = 0;
			continue;
		}
		if (count > 0)
			*taken = count;
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

/* There was more, or what is there must be copied otherwise. */
static noinline u32 fault_serve_read_on(struct iommufd_fault *fault,
					struct iommu_hwpt_pgfault __user *messages, size_t room,
					u32 taken)
{
	struct iov_iter to;

	iov_iter_ubuf(&to, ITER_DEST, messages + taken, (room - taken) * FAULT_MESSAGE_SIZE);
	return iommufd_fault_read_on(fault, &to, room, taken);
}

static __always_inline int fault_serve(struct file *filep, const struct iommu_fault_serve *cmd,
				       u32 *given, u32 *taken)
{
	size_t answers = min_t(size_t, cmd->response_num, MAX_RW_COUNT / FAULT_RESPONSE_SIZE);
	size_t room = min_t(size_t, cmd->message_num, MAX_RW_COUNT / FAULT_MESSAGE_SIZE);
	struct iommu_hwpt_page_response __user *responses = u64_to_user_ptr(cmd->responses_uptr);
	struct iommu_hwpt_pgfault __user *messages = u64_to_user_ptr(cmd->messages_uptr);
	struct iommufd_fault *fault = filep->private_data;
	struct iommufd_fault_exchanged did = {};
	u32 number = 0;
	int rc;

	if (cmd->flags)
		return -EOPNOTSUPP;
	/* Nothing is answered on behalf of who then cannot read. */
	if (room) {
		if (cmd->messages_uptr % __alignof__(struct iommu_hwpt_pgfault))
			return -EINVAL;
		if (!access_ok(messages, room * FAULT_MESSAGE_SIZE))
			return -EFAULT;
	}
	while (*given < answers) {
		did = iommufd_fault_exchange(fault, responses + *given, answers - *given,
					     messages, room);
		*given += did.given;
		if (did.taken < 0)
			return did.taken;
	}
	if (!room)
		return 0;
	if (!did.taken) {
		rc = fault_serve_read(filep, messages, room, cmd->timeout_ns, &number);
		*taken = number;
		return rc;
	}
	*taken = did.taken;
	if (unlikely(!iommufd_fault_is_empty(fault)))
		*taken = fault_serve_read_on(fault, messages, room, *taken);
	return 0;
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
	u64 __user *user = (u64 __user *)arg;
	union fault_serve_words words __uninitialized;
	u32 given = 0, taken = 0;
	int rc;

	if (op != IOMMU_FAULT_SERVE)
		return -ENOTTY;
	rc = fault_serve_begin(&words, user);
	if (rc)
		return rc;

	rc = fault_serve(filep, &words.cmd, &given, &taken);
	return fault_serve_end(&words, user, given, taken) ?: rc;
}
