// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults from the emulated PRI device, from end to end: the doorbell, the page
 * request queue's interrupt and thread, the queue's file, and the response
 * that the device gets.  Nothing is mapped, as the device is not to go on.
 */
#include <errno.h>
#include <stdlib.h>

#include "bench.h"
#include "../pri.h"

#define PASID 5
#define FIRST_IOVA 0x100000000ull

struct pri_state {
	struct pri_device pri;
	uint32_t ioas_id;
	uint32_t rid_hwpt, pasid_hwpt;
	bool opened;
};

static int pri_attach(struct bench *b, struct pri_state *s)
{
	struct iopf_device *vfio = &s->pri.vfio;
	int rc;

	rc = iopf_ioas_alloc(&b->io, &s->ioas_id);
	if (!rc)
		rc = iopf_hwpt_alloc(&b->io, vfio->id, s->ioas_id, IOMMU_HWPT_ALLOC_PASID, 0,
				     &s->rid_hwpt);
	if (!rc)
		rc = iopf_hwpt_alloc(&b->io, vfio->id, s->ioas_id, IOMMU_HWPT_ALLOC_PASID,
				     b->queues[0].id, &s->pasid_hwpt);
	if (!rc)
		rc = iopf_device_attach(vfio, s->rid_hwpt);
	if (!rc)
		rc = iopf_device_attach_pasid(vfio, PASID, s->pasid_hwpt);
	if (!rc)
		rc = iopf_device_bus_master(vfio, true);
	return rc;
}

static int pri_source_open(struct bench *b)
{
	struct pri_state *s = calloc(1, sizeof(*s));
	struct pri_address found[1];
	int rc;

	if (!s)
		return iopf_fail(&b->io, ENOMEM, "PRI device");
	b->source = s;
	if (!pri_find(found, 1))
		return iopf_fail(&b->io, ENODEV, "look for a PRI device");
	rc = pri_open(&b->io, found[0].bdf, &s->pri);
	if (rc)
		return rc;
	s->opened = true;
	rc = pri_attach(b, s);
	if (rc)
		return rc;
	pri_set(&s->pri, PTD_PASID, PASID);
	pri_set(&s->pri, PTD_FLAGS, PTD_F_PASID | PTD_F_READ);
	pri_set64(&s->pri, PTD_IOVA, FIRST_IOVA);
	pri_set64(&s->pri, PTD_STRIDE, 4096);
	pri_set(&s->pri, PTD_GROUP, 1);
	pri_set(&s->pri, PTD_COUNT, b->spec.batch);
	return 0;
}

/*
 * The command's result is not asked for: a read of a register is a trip of its
 * own, and the counters tell in the end.
 */
static int pri_inject(struct bench *b)
{
	struct pri_state *s = b->source;

	pri_set(&s->pri, PTD_COMMAND, PTD_CMD_BURST);
	return 0;
}

static int pri_check(struct bench *b, uint64_t groups)
{
	struct pri_state *s = b->source;
	struct pri_counts counts;

	pri_counts(&s->pri, &counts);
	if (counts.groups == groups && counts.success == groups && counts.responses == groups &&
	    !counts.unmatched && !counts.refused)
		return 0;
	return iopf_fail(&b->io, EPROTO,
			 "%llu groups wanted, %u raised, %u refused, %u answered, %u unmatched",
			 (unsigned long long)groups, counts.groups, counts.refused,
			 counts.success, counts.unmatched);
}

static void pri_source_close(struct bench *b)
{
	struct pri_state *s = b->source;

	if (s && s->opened) {
		iopf_device_bus_master(&s->pri.vfio, false);
		iopf_device_detach_pasid(&s->pri.vfio, PASID);
		iopf_device_detach(&s->pri.vfio);
		iopf_destroy(&b->io, s->pasid_hwpt);
		iopf_destroy(&b->io, s->rid_hwpt);
		pri_close(&s->pri);
	}
	free(s);
}

const struct source pri_source = {
	.name = "pri", .open = pri_source_open, .inject = pri_inject, .check = pri_check,
	.close = pri_source_close,
};
