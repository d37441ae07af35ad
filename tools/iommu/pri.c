// SPDX-License-Identifier: GPL-2.0 OR MIT
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pri.h"

#define DEVICES "/sys/bus/pci/devices"

static unsigned long device_attribute(const char *bdf, const char *name)
{
	unsigned long value = 0;
	char path[320];
	FILE *file;

	snprintf(path, sizeof(path), DEVICES "/%s/%s", bdf, name);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (fscanf(file, "%lx", &value) != 1)
		value = 0;
	fclose(file);
	return value;
}

static bool is_pri_device(const char *bdf)
{
	return device_attribute(bdf, "vendor") == PTD_VENDOR_ID &&
	       device_attribute(bdf, "device") == PTD_DEVICE_ID;
}

static int is_entry_of_one(const struct dirent *entry)
{
	return is_pri_device(entry->d_name);
}

int pri_present(struct iopf *io, const char *bdf)
{
	return iopf_pci_expect(io, bdf, PTD_VENDOR_ID, PTD_DEVICE_ID);
}

int pri_find(struct pri_address *found, int max)
{
	struct dirent **entries;
	int n, i;

	n = scandir(DEVICES, &entries, is_entry_of_one, alphasort);
	for (i = 0; i < n; i++) {
		if (i < max)
			snprintf(found[i].bdf, sizeof(found[i].bdf), "%.15s", entries[i]->d_name);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
	return n > 0 ? n : 0;
}

uint32_t pri_get(const struct pri_device *pri, unsigned int reg)
{
	return ((volatile uint32_t *)pri->bar.base)[reg / 4];
}

uint64_t pri_get64(const struct pri_device *pri, unsigned int reg)
{
	return ((volatile uint64_t *)pri->bar.base)[reg / 8];
}

void pri_set(struct pri_device *pri, unsigned int reg, uint32_t value)
{
	((volatile uint32_t *)pri->bar.base)[reg / 4] = value;
}

void pri_set64(struct pri_device *pri, unsigned int reg, uint64_t value)
{
	((volatile uint64_t *)pri->bar.base)[reg / 8] = value;
}

int pri_command(struct pri_device *pri, enum ptd_command command)
{
	pri_set(pri, PTD_COMMAND, command);
	return (int)pri_get(pri, PTD_RESULT);
}

static int check_device(struct pri_device *pri)
{
	uint32_t magic = pri_get(pri, PTD_MAGIC), version = pri_get(pri, PTD_VERSION);

	if (magic == PTD_MAGIC_VALUE && version == PTD_VERSION_VALUE)
		return 0;
	return iopf_fail(pri->vfio.io, ENODEV, "%s: magic %#x, version %u: no known pri-testdev",
			 pri->vfio.bdf, magic, version);
}

int pri_open(struct iopf *io, const char *bdf, struct pri_device *pri)
{
	int rc;

	pri->bar.base = NULL;
	rc = pri_present(io, bdf);
	if (!rc)
		rc = iopf_device_open(io, bdf, &pri->vfio);
	if (rc)
		return rc;
	rc = iopf_device_map_bar(&pri->vfio, 0, &pri->bar);
	if (!rc)
		rc = check_device(pri);
	if (!rc)
		rc = pri_command(pri, PTD_CMD_RESET);
	if (rc)
		pri_close(pri);
	return rc;
}

int pri_close(struct pri_device *pri)
{
	iopf_device_unmap_bar(&pri->bar);
	return iopf_device_close(&pri->vfio);
}

int pri_start(struct pri_device *pri, const struct pri_copy *copy)
{
	pri_set(pri, PTD_PASID, copy->pasid);
	pri_set(pri, PTD_FLAGS, PTD_F_PASID | copy->flags);
	pri_set64(pri, PTD_SRC, copy->src);
	pri_set64(pri, PTD_DST, copy->dst);
	pri_set64(pri, PTD_LENGTH, copy->length);
	pri_set(pri, PTD_GROUP, copy->group);
	pri_set(pri, PTD_DEPTH, copy->depth);
	return pri_command(pri, PTD_CMD_START);
}

void pri_watch(struct pri_device *pri, uint64_t lo, uint64_t hi)
{
	pri_set64(pri, PTD_WATCH_LO, lo);
	pri_set64(pri, PTD_WATCH_HI, hi);
}

enum ptd_state pri_state(const struct pri_device *pri)
{
	return pri_get(pri, PTD_STATE);
}

const char *pri_state_name(enum ptd_state state)
{
	switch (state) {
	case PTD_STATE_IDLE:
		return "idle";
	case PTD_STATE_RUNNING:
		return "running";
	case PTD_STATE_DONE:
		return "done";
	case PTD_STATE_STOPPED_INVALID:
		return "stopped by an INVALID answer";
	case PTD_STATE_STOPPED_FAILURE:
		return "stopped by a FAILURE answer";
	case PTD_STATE_STOPPED_ERROR:
		return "stopped by an error";
	}
	return "in an unknown state";
}

uint32_t pri_latency(const struct pri_device *pri, unsigned int bucket)
{
	return pri_get(pri, PTD_LATENCY + 4 * bucket);
}

void pri_counts(const struct pri_device *pri, struct pri_counts *counts)
{
	*counts = (struct pri_counts){
		.requests = pri_get(pri, PTD_N_REQUESTS),
		.groups = pri_get(pri, PTD_N_GROUPS),
		.refused = pri_get(pri, PTD_N_REFUSED),
		.responses = pri_get(pri, PTD_N_RESPONSES),
		.success = pri_get(pri, PTD_N_SUCCESS),
		.invalid = pri_get(pri, PTD_N_INVALID),
		.failure = pri_get(pri, PTD_N_FAILURE),
		.unmatched = pri_get(pri, PTD_N_UNMATCHED),
		.watched = pri_get(pri, PTD_N_WATCH),
	};
}
