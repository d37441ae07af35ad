// SPDX-License-Identifier: GPL-2.0-only
/* Faults from iommufd's mock devices, through the injector of the selftests. */
#include <errno.h>
#include <stdlib.h>

#include "bench.h"
#include "../../testing/selftests/iommu/iommufd_fault_utils.h"

#define FIRST_IOVA 0x100000000ull

struct mock {
	uint32_t ioas_id;
	struct mock_device devices[MAX_DEVICES];
	/* twice in a row, so that a batch can begin at any of them */
	uint32_t idev_ids[2 * MAX_DEVICES];
	uint32_t hwpt_ids[MAX_DEVICES];
	unsigned int n_devices;
	/* of the next group */
	unsigned int device;
	uint32_t grpid;
	uint64_t groups;
};

static int add_device(struct bench *b, struct mock *mock)
{
	unsigned int i = mock->n_devices;
	struct mock_device *dev = &mock->devices[i];
	uint32_t parent_id;
	int rc;

	rc = mock_device_create(b->io.fd, mock->ioas_id, 0, dev);
	if (rc)
		return iopf_fail(&b->io, -rc, "create mock device %u", i);
	mock->n_devices++;
	mock->idev_ids[i] = dev->idev_id;
	rc = hwpt_alloc_paging(b->io.fd, dev->idev_id, mock->ioas_id,
			       IOMMU_HWPT_ALLOC_NEST_PARENT, 0, &parent_id);
	if (rc)
		return iopf_fail(&b->io, -rc, "allocate a parent HWPT");
	rc = hwpt_alloc_nested(b->io.fd, dev->idev_id, parent_id, IOMMU_HWPT_FAULT_ID_VALID,
			       b->queues[i % b->n_queues].id, &mock->hwpt_ids[i]);
	if (rc)
		return iopf_fail(&b->io, -rc, "allocate a nested HWPT");
	rc = mock_replace(b->io.fd, dev->stdev_id, mock->hwpt_ids[i]);
	if (rc)
		return iopf_fail(&b->io, -rc, "attach mock device %u", i);
	return 0;
}

static int mock_open(struct bench *b)
{
	struct mock *mock = calloc(1, sizeof(*mock));
	unsigned int i;
	int rc;

	if (!mock)
		return iopf_fail(&b->io, ENOMEM, "mock devices");
	b->source = mock;
	rc = iopf_ioas_alloc(&b->io, &mock->ioas_id);
	while (!rc && mock->n_devices < b->spec.devices)
		rc = add_device(b, mock);
	for (i = 0; i < b->spec.devices; i++)
		mock->idev_ids[b->spec.devices + i] = mock->idev_ids[i];
	return rc;
}

static int mock_inject(struct bench *b)
{
	struct mock *mock = b->source;
	unsigned int batch = b->spec.batch, devices = b->spec.devices;
	struct iommu_test_iopf_batch cmd = {
		.dev_ids = (uintptr_t)&mock->idev_ids[mock->device],
		.addr = FIRST_IOVA,
		.nr_devs = devices < batch ? devices : batch,
		.groups = batch,
		.requests = 1,
		.grpid = mock->grpid,
		.nr_pasids = 1,
		.perm = IOMMU_PGFAULT_PERM_READ,
	};
	int rc = iopf_batch(b->io.fd, &cmd);

	if (rc || cmd.out_accepted != batch)
		return iopf_fail(&b->io, rc ? -rc : ENOSPC, "inject %u faults, %u accepted", batch,
				 cmd.out_accepted);
	mock->device = (mock->device + batch) % devices;
	mock->grpid += batch;
	mock->groups += batch;
	b->reported += cmd.out_elapsed;
	return 0;
}

static int add_stats(struct bench *b, struct iommu_test_iopf_stats *sum)
{
	struct iommu_test_iopf_stats stats;
	struct mock *mock = b->source;
	unsigned int i;
	int rc;

	*sum = (struct iommu_test_iopf_stats){};
	for (i = 0; i < mock->n_devices; i++) {
		rc = iopf_stats(b->io.fd, mock->idev_ids[i], &stats);
		if (rc)
			return iopf_fail(&b->io, -rc, "statistics of mock device %u", i);
		sum->groups += stats.groups;
		sum->responses[0] += stats.responses[0];
		sum->unmatched += stats.unmatched;
		sum->outstanding += stats.outstanding;
	}
	return 0;
}

/* The last answers may be in the hands of a worker of io_uring: give it a second. */
static int mock_check(struct bench *b, uint64_t groups)
{
	struct iommu_test_iopf_stats sum;
	unsigned int tries = 1000;
	int rc;

	while (!(rc = add_stats(b, &sum)) && sum.outstanding && --tries)
		usleep(1000);
	if (rc)
		return rc;
	if (sum.groups == groups && sum.responses[0] == groups && !sum.unmatched &&
	    !sum.outstanding)
		return 0;
	return iopf_fail(&b->io, EPROTO, "%llu groups, %llu answered, %llu twice, %llu never",
			 (unsigned long long)sum.groups, (unsigned long long)sum.responses[0],
			 (unsigned long long)sum.unmatched, (unsigned long long)sum.outstanding);
}

static void mock_close(struct bench *b)
{
	struct mock *mock = b->source;

	while (mock && mock->n_devices)
		iommufd_destroy(b->io.fd, mock->devices[--mock->n_devices].stdev_id);
	free(mock);
}

const struct source mock_source = {
	.name = "mock", .open = mock_open, .inject = mock_inject, .check = mock_check,
	.close = mock_close,
};
