// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What the running kernel can do.  Asked by trying, never by its version: parts
 * of the series may be carried by a kernel of any version.
 */
#include <errno.h>
#include <sys/uio.h>

#include "impl.h"

/*
 * A file whose reads io_uring can leave posted knows RWF_NOWAIT.  One byte is no
 * message, so a fault queue that does know it refuses, and gives nothing away.
 */
bool has_posted_reads(int fd)
{
	char byte;
	struct iovec iov = { &byte, sizeof(byte) };

	return preadv2(fd, &iov, 1, -1, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}

static uint32_t probe_file(int fd)
{
	uint32_t features = has_serve(fd) ? IOPF_HAS_SERVE : 0;
	struct io_uring uring;

	if (!has_posted_reads(fd) || io_uring_queue_init(2, &uring, 0))
		return features;
	io_uring_queue_exit(&uring);
	return features | IOPF_HAS_POSTED_READ;
}

static bool can_alloc(struct iopf *io, const struct iopf_queue_options *options)
{
	struct iopf_queue queue;

	if (iopf_queue_alloc_with(io, options, &queue))
		return false;
	return !iopf_queue_close(&queue);
}

static const struct {
	struct iopf_queue_options options;
	uint32_t feature;
} queue_features[] = {
	{ { .flags = IOMMU_FAULT_ALLOC_BLOCKING }, IOPF_HAS_BLOCKING },
	{ { .flags = IOMMU_FAULT_ALLOC_IMMEDIATE }, IOPF_HAS_IMMEDIATE },
	{ { .flags = IOMMU_FAULT_ALLOC_REPORT_LOSS }, IOPF_HAS_REPORT_LOSS },
	{ { .depth = 64, .deadline_ms = 1000, .deadline_code = IOMMUFD_PAGE_RESP_INVALID },
	  IOPF_HAS_LIMITS },
};

int iopf_probe(struct iopf *io, uint32_t *features)
{
	struct iopf_queue queue;
	size_t i;
	int rc;

	*features = 0;
	rc = iopf_queue_alloc(io, 0, &queue);
	/* an ioctl that the kernel does not know */
	if (rc == -ENOTTY)
		return 0;
	if (rc)
		return rc;
	*features = IOPF_HAS_QUEUE | probe_file(queue.fd);
	rc = iopf_queue_close(&queue);
	for (i = 0; !rc && i < sizeof(queue_features) / sizeof(queue_features[0]); i++) {
		if (can_alloc(io, &queue_features[i].options))
			*features |= queue_features[i].feature;
	}
	io->error[0] = 0;
	return rc;
}

static bool can_make_hwpt(struct iopf *io, uint32_t dev_id, uint32_t ioas_id, uint32_t flags,
			  uint32_t fault_id)
{
	uint32_t hwpt_id;

	return !iopf_hwpt_alloc(io, dev_id, ioas_id, flags, fault_id, &hwpt_id) &&
	       !iopf_destroy(io, hwpt_id);
}

int iopf_probe_device(struct iopf *io, uint32_t dev_id, uint32_t *features)
{
	struct iopf_queue queue;
	uint32_t ioas_id;
	int rc;

	rc = iopf_probe(io, features);
	if (rc || !(*features & IOPF_HAS_QUEUE))
		return rc;
	rc = iopf_ioas_alloc(io, &ioas_id);
	if (rc)
		return rc;
	rc = iopf_queue_alloc(io, 0, &queue);
	if (!rc) {
		if (can_make_hwpt(io, dev_id, ioas_id, 0, queue.id))
			*features |= IOPF_HAS_PAGING;
		if (can_make_hwpt(io, dev_id, ioas_id, IOMMU_HWPT_ALLOC_PASID, 0))
			*features |= IOPF_HAS_PASID;
		rc = iopf_queue_close(&queue);
	}
	io->error[0] = 0;
	iopf_destroy(io, ioas_id);
	return rc;
}

const char *iopf_feature_name(enum iopf_feature feature)
{
	static const char *const names[] = {
		"queue", "posted-read", "serve", "blocking", "limits", "immediate", "report-loss",
		"paging", "pasid",
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (feature == 1u << i)
			return names[i];
	}
	return NULL;
}
