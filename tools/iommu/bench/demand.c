// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults of the emulated PRI device that nobody serves: the kernel resolves them, from
 * memory that is there.  Each request is for the first page of 16, as many as the kernel
 * maps together: a device that asked for the next page would find it mapped.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "bench.h"
#include "../pri.h"

#define PASID 5
#define FIRST_IOVA 0x100000000ull
#define STRIDE (16 * 4096u)
#define STEPS 5120
#define LENGTH ((uint64_t)STEPS * STRIDE)
#define ACCESS (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_ON_FAULT)

struct demand {
	struct pri_device pri;
	uint32_t ioas_id, hwpt_id;
	void *memory;
	unsigned int step;
};

static int demand_attach(struct bench *b, struct demand *d)
{
	struct iopf_device *vfio = &d->pri.vfio;
	int rc;

	rc = iopf_ioas_alloc(&b->io, &d->ioas_id);
	if (!rc)
		rc = iopf_hwpt_alloc(&b->io, vfio->id, d->ioas_id,
				     IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_ALLOC_ON_FAULT, 0,
				     &d->hwpt_id);
	if (!rc)
		rc = iopf_device_attach(vfio, d->hwpt_id);
	if (!rc)
		rc = iopf_device_attach_pasid(vfio, PASID, d->hwpt_id);
	if (!rc)
		rc = iopf_map(&b->io, d->ioas_id, FIRST_IOVA, d->memory, LENGTH, ACCESS);
	if (!rc)
		rc = iopf_device_bus_master(vfio, true);
	return rc;
}

static int demand_source_open(struct bench *b)
{
	struct pri_address found[1];
	struct demand *d;
	int rc;

	if (b->spec.batch != 1)
		return iopf_fail(&b->io, EINVAL, "resolve more than one at a time");
	if (!pri_find(found, 1))
		return iopf_fail(&b->io, ENODEV, "look for a PRI device");
	d = calloc(1, sizeof(*d));
	if (!d)
		return iopf_fail(&b->io, ENOMEM, "PRI device");
	d->memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (d->memory == MAP_FAILED) {
		free(d);
		return iopf_fail(&b->io, errno, "memory for the device");
	}
	rc = pri_open(&b->io, found[0].bdf, &d->pri);
	if (rc) {
		munmap(d->memory, LENGTH);
		free(d);
		return rc;
	}
	b->source = d;
	pri_set(&d->pri, PTD_PASID, PASID);
	pri_set(&d->pri, PTD_FLAGS, PTD_F_PASID | PTD_F_READ);
	pri_set64(&d->pri, PTD_STRIDE, 4096);
	pri_set(&d->pri, PTD_GROUP, 1);
	pri_set(&d->pri, PTD_COUNT, 1);
	return demand_attach(b, d);
}

static int demand_inject(struct bench *b)
{
	struct demand *d = b->source;

	if (d->step == STEPS)
		return iopf_fail(&b->io, EOVERFLOW, "take more than %u steps", STEPS);
	pri_set64(&d->pri, PTD_IOVA, FIRST_IOVA + (uint64_t)d->step++ * STRIDE);
	pri_set(&d->pri, PTD_COMMAND, PTD_CMD_BURST);
	return 0;
}

static int demand_check(struct bench *b, uint64_t groups)
{
	struct demand *d = b->source;
	struct pri_counts counts;

	pri_counts(&d->pri, &counts);
	if (counts.groups == groups && counts.success == groups && counts.responses == groups)
		return 0;
	return iopf_fail(&b->io, EPROTO, "%llu groups wanted, %u raised, %u answered",
			 (unsigned long long)groups, counts.groups, counts.success);
}

static void demand_source_close(struct bench *b)
{
	struct demand *d = b->source;

	if (!d)
		return;
	iopf_device_bus_master(&d->pri.vfio, false);
	iopf_device_detach_pasid(&d->pri.vfio, PASID);
	iopf_device_detach(&d->pri.vfio);
	iopf_destroy(&b->io, d->hwpt_id);
	iopf_destroy(&b->io, d->ioas_id);
	pri_close(&d->pri);
	munmap(d->memory, LENGTH);
	free(d);
}

const struct source demand_source = {
	.name = "demand", .open = demand_source_open, .inject = demand_inject,
	.check = demand_check, .close = demand_source_close,
};

static int kernel_open(struct bench *b)
{
	if (b->spec.source == &demand_source)
		return 0;
	return iopf_fail(&b->io, EINVAL, "let the kernel serve a fault queue");
}

/* The processor is given to the kernel's thread until the device has its answer. */
static int kernel_serve(struct bench *b)
{
	struct demand *d = b->source;

	while (pri_get(&d->pri, PTD_N_RESPONSES) != d->step)
		sched_yield();
	b->messages++;
	b->answers++;
	return 0;
}

static void kernel_close(struct bench *b)
{
	(void)b;
}

const struct mode kernel_mode = {
	.name = "kernel", .open = kernel_open, .serve = kernel_serve, .close = kernel_close,
};
