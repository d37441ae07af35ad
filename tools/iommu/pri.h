/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * User-space driver of pri-testdev, the emulated PCIe device that raises page
 * requests.  Its registers are described in tools/testing/qemu/pri-testdev.h;
 * commands return the device's PTD_RESULT.
 */
#ifndef PRI_H
#define PRI_H

#include "lib/iopf.h"
#include "pri-testdev.h"

struct pri_device {
	struct iopf_device vfio;
	struct iopf_bar bar;
};

struct pri_address {
	char bdf[16];
};

struct pri_copy {
	uint64_t src, dst, length;
	uint32_t pasid;
	/* PTD_F_TOUCH or PTD_F_FILL, or 0 for a copy */
	uint32_t flags;
	/* requests in a group, groups in flight */
	uint32_t group, depth;
};

struct pri_counts {
	uint32_t requests, groups, refused;
	uint32_t responses, success, invalid, failure, unmatched;
	uint32_t watched;
};

/* Fills in the addresses of up to max of these devices, in order; returns how many there are. */
int pri_find(struct pri_address *found, int max);
/* -ENODEV: there is no device with this address, or it is another one. */
int pri_present(struct iopf *io, const char *bdf);

/* The device comes up reset, without bus mastering. */
int pri_open(struct iopf *io, const char *bdf, struct pri_device *pri);
int pri_close(struct pri_device *pri);

uint32_t pri_get(const struct pri_device *pri, unsigned int reg);
uint64_t pri_get64(const struct pri_device *pri, unsigned int reg);
void pri_set(struct pri_device *pri, unsigned int reg, uint32_t value);
void pri_set64(struct pri_device *pri, unsigned int reg, uint64_t value);

int pri_command(struct pri_device *pri, enum ptd_command command);
int pri_start(struct pri_device *pri, const struct pri_copy *copy);
/* Count page requests to [lo, hi). */
void pri_watch(struct pri_device *pri, uint64_t lo, uint64_t hi);
enum ptd_state pri_state(const struct pri_device *pri);
const char *pri_state_name(enum ptd_state state);
/* What pri-testdev.h says of PTD_LATENCY: a bucket. */
uint32_t pri_latency(const struct pri_device *pri, unsigned int bucket);
void pri_counts(const struct pri_device *pri, struct pri_counts *counts);

#endif
