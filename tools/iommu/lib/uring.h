/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What newer versions of liburing have, and 2.3, which Debian 12 has, does not: made
 * of what each of them has.
 */
#ifndef IOPF_URING_H
#define IOPF_URING_H

#include <errno.h>
#include <liburing.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

/* IORING_OP_READ_MULTISHOT, of Linux 6.7 */
#define OP_READ_MULTISHOT 49
/* IOU_PBUF_RING_INC, of Linux 6.12: a buffer is filled piece by piece */
#define BUFFERS_IN_PIECES 2
/* IORING_CQE_F_BUF_MORE: with that, more will come into the same buffer */
#define CQE_MORE_IN_BUFFER (1U << 4)

static inline void prep_read_multishot(struct io_uring_sqe *sqe, int fd, int group)
{
	io_uring_prep_read(sqe, fd, NULL, 0, 0);
	sqe->opcode = OP_READ_MULTISHOT;
	sqe->buf_group = (__u16)group;
	sqe->flags |= IOSQE_BUFFER_SELECT;
}

static inline size_t buffers_size(unsigned int entries)
{
	return entries * sizeof(struct io_uring_buf);
}

static inline void free_buffers(struct io_uring *uring, struct io_uring_buf_ring *buffers,
				unsigned int entries, int group)
{
	io_uring_unregister_buf_ring(uring, group);
	munmap(buffers, buffers_size(entries));
}

/* They follow the group; 2.3 calls that padding. */
static inline void buffers_flags(struct io_uring_buf_reg *reg, unsigned int flags)
{
	const __u16 value = (__u16)flags;

	memcpy((char *)reg + offsetof(struct io_uring_buf_reg, bgid) + sizeof(reg->bgid),
	       &value, sizeof(value));
}

/* A ring of so many buffers, a power of two; NULL, and a negative errno in *rc. */
static inline struct io_uring_buf_ring *setup_buffers_flags(struct io_uring *uring,
							    unsigned int entries, int group,
							    unsigned int flags, int *rc)
{
	struct io_uring_buf_reg reg = { .ring_entries = entries, .bgid = (__u16)group };
	void *buffers = mmap(NULL, buffers_size(entries), PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);

	*rc = buffers == MAP_FAILED ? -errno : 0;
	if (*rc)
		return NULL;
	reg.ring_addr = (__u64)(uintptr_t)buffers;
	buffers_flags(&reg, flags);
	*rc = io_uring_register_buf_ring(uring, &reg, 0);
	if (!*rc)
		return buffers;
	munmap(buffers, buffers_size(entries));
	return NULL;
}

static inline struct io_uring_buf_ring *setup_buffers(struct io_uring *uring,
						      unsigned int entries, int group, int *rc)
{
	return setup_buffers_flags(uring, entries, group, 0, rc);
}

#endif
