// SPDX-License-Identifier: GPL-2.0 OR MIT
/* iommufd objects, the fault queue's file, and its messages. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "iopf.h"

/* How long a ring that has ended may keep a queue's file. */
#define CLOSE_MS 1000

int iopf_fail(struct iopf *io, int err, const char *what, ...)
{
	size_t used, room = sizeof(io->error);
	va_list args;

	va_start(args, what);
	vsnprintf(io->error, room, what, args);
	va_end(args);
	used = strlen(io->error);
	snprintf(io->error + used, room - used, ": %s", strerror(err));
	return -err;
}

int iopf_say(struct iopf *io, int err, const char *what, ...)
{
	va_list args;

	va_start(args, what);
	vsnprintf(io->error, sizeof(io->error), what, args);
	va_end(args);
	return -err;
}

const char *iopf_error(const struct iopf *io)
{
	return io->error[0] ? io->error : "no error";
}

int iopf_open(struct iopf *io)
{
	io->error[0] = 0;
	io->fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (io->fd >= 0)
		return 0;
	if (errno == ENOENT)
		return iopf_say(io, ENOENT,
				"there is no /dev/iommu: the kernel needs CONFIG_IOMMUFD (a module?)");
	return iopf_fail(io, errno, "open /dev/iommu");
}

void iopf_adopt(struct iopf *io, int fd)
{
	io->error[0] = 0;
	io->fd = fd;
}

void iopf_close(struct iopf *io)
{
	if (io->fd >= 0)
		close(io->fd);
	io->fd = -1;
}

int iopf_destroy(struct iopf *io, uint32_t id)
{
	struct iommu_destroy cmd = { .size = sizeof(cmd), .id = id };

	if (ioctl(io->fd, IOMMU_DESTROY, &cmd))
		return iopf_fail(io, errno, "destroy object %u", id);
	return 0;
}

int iopf_ioas_alloc(struct iopf *io, uint32_t *ioas_id)
{
	struct iommu_ioas_alloc cmd = { .size = sizeof(cmd) };

	if (ioctl(io->fd, IOMMU_IOAS_ALLOC, &cmd))
		return iopf_fail(io, errno, "allocate an IOAS");
	*ioas_id = cmd.out_ioas_id;
	return 0;
}

int iopf_map(struct iopf *io, uint32_t ioas_id, uint64_t iova, void *va, uint64_t len,
	     uint32_t access)
{
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd),
		.flags = access | IOMMU_IOAS_MAP_FIXED_IOVA,
		.ioas_id = ioas_id,
		.user_va = (uintptr_t)va,
		.length = len,
		.iova = iova,
	};

	if (ioctl(io->fd, IOMMU_IOAS_MAP, &cmd))
		return iopf_fail(io, errno, "map %#llx bytes at IOVA %#llx of IOAS %u",
				 (unsigned long long)len, (unsigned long long)iova, ioas_id);
	return 0;
}

int iopf_unmap(struct iopf *io, uint32_t ioas_id, uint64_t iova, uint64_t len)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd),
		.ioas_id = ioas_id,
		.iova = iova,
		.length = len,
	};

	if (ioctl(io->fd, IOMMU_IOAS_UNMAP, &cmd))
		return iopf_fail(io, errno, "unmap %#llx bytes at IOVA %#llx of IOAS %u",
				 (unsigned long long)len, (unsigned long long)iova, ioas_id);
	return 0;
}

int iopf_hwpt_alloc(struct iopf *io, uint32_t dev_id, uint32_t pt_id, uint32_t flags,
		    uint32_t fault_id, uint32_t *hwpt_id)
{
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd),
		.flags = flags | (fault_id ? IOMMU_HWPT_FAULT_ID_VALID : 0),
		.dev_id = dev_id,
		.pt_id = pt_id,
		.fault_id = fault_id,
	};

	if (ioctl(io->fd, IOMMU_HWPT_ALLOC, &cmd))
		return iopf_fail(io, errno, "allocate an HWPT (flags %#x) on object %u",
				 cmd.flags, pt_id);
	*hwpt_id = cmd.out_hwpt_id;
	return 0;
}

/* The errno of a kernel that lacks something does not tell what. */
static int queue_failed(struct iopf *io, int err, const struct iommu_fault_alloc *cmd)
{
	switch (err) {
	case ENOTTY:
		return iopf_say(io, err, "the kernel has no fault queues (Linux 6.11)");
	case E2BIG:
		return iopf_say(io, err, "the kernel has no fault queues with depth or deadline");
	case EOPNOTSUPP:
		return iopf_say(io, err, "the kernel has no fault queues with flags %#x",
				cmd->flags);
	}
	return iopf_fail(io, err, "allocate a fault queue (flags %#x, depth %u, %u ms)", cmd->flags,
			 cmd->depth, cmd->deadline_ms);
}

int iopf_queue_alloc_with(struct iopf *io, const struct iopf_queue_options *options,
			  struct iopf_queue *queue)
{
	struct iommu_fault_alloc cmd = {
		.size = sizeof(cmd),
		.flags = options->flags,
		.depth = options->depth,
		.deadline_ms = options->deadline_ms,
		.deadline_code = options->deadline_code,
	};

	*queue = (struct iopf_queue){ .io = io, .fd = -1 };
	if (ioctl(io->fd, IOMMU_FAULT_QUEUE_ALLOC, &cmd))
		return queue_failed(io, errno, &cmd);
	iopf_queue_adopt(io, cmd.out_fault_id, (int)cmd.out_fault_fd, queue);
	return 0;
}

void iopf_queue_adopt(struct iopf *io, uint32_t id, int fd, struct iopf_queue *queue)
{
	*queue = (struct iopf_queue){ .io = io, .id = id, .fd = fd };
	queue->no_serve = !iopf_queue_has_serve(queue);
}

int iopf_queue_alloc(struct iopf *io, uint32_t flags, struct iopf_queue *queue)
{
	struct iopf_queue_options options = { .flags = flags };

	return iopf_queue_alloc_with(io, &options, queue);
}

int iopf_queue_close(struct iopf_queue *queue)
{
	int rc, ms;

	if (queue->fd < 0)
		return 0;
	close(queue->fd);
	queue->fd = -1;
	for (ms = 0; ms < CLOSE_MS; ms++) {
		rc = iopf_destroy(queue->io, queue->id);
		if (rc != -EBUSY)
			break;
		usleep(1000);
	}
	return rc;
}

int iopf_queue_read(const struct iopf_queue *queue, struct iommu_hwpt_pgfault *messages,
		    size_t n)
{
	ssize_t got = read(queue->fd, messages, n * sizeof(*messages));

	return got < 0 ? -errno : (int)(got / (ssize_t)sizeof(*messages));
}

int iopf_queue_write(const struct iopf_queue *queue,
		     const struct iommu_hwpt_page_response *answers, size_t n)
{
	ssize_t put = write(queue->fd, answers, n * sizeof(*answers));

	return put < 0 ? -errno : (int)(put / (ssize_t)sizeof(*answers));
}

/* The cookie tells the groups apart; only the last message of one has LAST_PAGE. */
int iopf_next_group(struct iopf_iter *iter, struct iopf_group *group)
{
	const struct iommu_hwpt_pgfault *first, *m;

	/* What was lost, and no fault */
	while (iter->next != iter->end && !iter->next->cookie)
		iter->next++;
	first = iter->next;
	if (first == iter->end)
		return 0;
	for (m = first; m != iter->end && m->cookie == first->cookie; m++) {
		if (!(m->flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE))
			continue;
		*group = (struct iopf_group){
			.requests = first,
			.n = (unsigned int)(m - first) + 1,
			.cookie = m->cookie,
			.dev_id = m->dev_id,
			.grpid = m->grpid,
			.pasid = m->pasid,
			.has_pasid = m->flags & IOMMU_PGFAULT_FLAGS_PASID_VALID,
		};
		iter->next = m + 1;
		return 1;
	}
	return -EPROTO;
}
