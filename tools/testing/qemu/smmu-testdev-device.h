/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The inside of smmu-testdev, for its files: smmu-testdev.c, the SMMU's registers, tables
 * and queues and the function that stalls, and -bus.c, ATS and PRI of PCI functions.
 */
#ifndef SMMU_TESTDEV_DEVICE_H
#define SMMU_TESTDEV_DEVICE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLUGIN_NAME "smmu-testdev"
#include "smmu-testdev.h"
#include "qemu-iommu.h"

/* ---- what is relied on of QEMU's inside ---- */
typedef struct IRQState *qemu_irq;

#define MACHINE_FDT		0x28	/* MachineState's device tree */
#define FDT_MAGIC		0xedfe0dd0u	/* as a little-endian host reads it */

WEAK void qemu_set_irq(qemu_irq irq, int level);
WEAK qemu_irq sysbus_get_connected_irq(const Object *dev, int n);
WEAK MemoryRegion *sysbus_mmio_get_region(Object *dev, int n);
WEAK int qemu_fdt_setprop(void *fdt, const char *node, const char *property, const void *value,
			  int size);
extern void *current_machine WEAK;

/* ---- the SMMU: registers, IHI 0070, 6.3 ---- */
#define PAGE			4096ull
#define SMMU_SIZE		0x20000
#define IDR0			0x000
#define IDR1			0x004
#define IDR5			0x014
#define CR0			0x020
#define IRQ_CTRL		0x050
#define STRTAB_BASE		0x080
#define STRTAB_BASE_CFG		0x088
#define CMDQ_BASE		0x090
#define CMDQ_PROD		0x098
#define EVENTQ_BASE		0x0a0
#define EVENTQ_PROD		0x0a8
#define EVENTQ_CONS		0x0ac
#define PRIQ_BASE		0x0c0
#define PRIQ_PROD		0x0c8
#define PRIQ_CONS		0x0cc
#define PRIQ_END		0x0e0
#define OVERFLOW		(1u << 31)

#define IDR0_ADDED		(1u << 16 | 1u << 10)	/* PRI, ATS */
#define IDR0_STALL_MODEL	(3u << 24)		/* 0: stall and terminate */
#define SSID_BITS		10
#define PRIQ_SHIFT		10

#define CR0_SMMUEN		(1u << 0)
#define CR0_PRIQEN		(1u << 1)
#define CR0_EVENTQEN		(1u << 2)
#define EVENTQ_IRQ		0		/* of QEMU's device, and in IRQ_CTRL */
#define PRIQ_IRQ		1

#define CMD_ATC_INV		0x40
#define CMD_PRI_RESP		0x41
#define CMD_RESUME		0x44
#define F_TRANSLATION		0x10

#define LISTENERS		256

/* Who is told of responses to page requests */
struct listener {
	struct pri_notifier *notifier;		/* NULL: free */
	int sid;
	uint32_t pasid;
};

/* Who is told of invalidations of a device's TLB; @told while it wants to be */
struct watcher {
	void *notifier;				/* NULL: free */
	void (*notify)(void *notifier, void *entry);
	bool told;
	int sid;
	uint32_t pasid;
};

struct smmu {
	_Alignas(64) uint8_t over[4096];	/* our registers, on top of */
	MemoryRegion *registers;		/* QEMU's */
	Object *object;
	uint32_t priq[(PRIQ_END - PRIQ_BASE) / 4];
	struct listener listener[LISTENERS];
	struct watcher watcher[LISTENERS];
};

extern struct smmu smmu;

struct access {
	int sid;
	uint32_t pasid;
	uint64_t iova;
	bool write, exec, priv;
};

struct translation {
	uint64_t addr;
	bool readable, writable;
	bool ats;				/* STE.EATS */
	bool stalls;
};

extern bool debug;
#define say(fmt, ...) do { \
	if (debug) \
		fprintf(stderr, "smmu-testdev: " fmt "\n", ##__VA_ARGS__); \
} while (0)

static inline uint64_t smmu_get(hwaddr at, unsigned int size)
{
	uint64_t value = 0;

	memory_region_dispatch_read(smmu.registers, at, &value, size == 8 ? 3 : 2, 0);
	return value;
}

static inline void smmu_set(hwaddr at, uint64_t value, unsigned int size)
{
	memory_region_dispatch_write(smmu.registers, at, value, size == 8 ? 3 : 2, 0);
}

static inline uint32_t *priq(hwaddr at)
{
	return &smmu.priq[(at - PRIQ_BASE) / 4];
}

static inline bool memory(uint64_t addr, void *buffer, uint64_t len, bool write)
{
	return !address_space_rw(&address_space_memory, addr, 0, buffer, len, write);
}

static inline uint64_t bits(uint64_t value, int high, int low)
{
	return value >> low & (~0ull >> (63 - high + low));
}

/* ---- smmu-testdev.c ---- */

bool find_ste(int sid, uint64_t ste[8]);

/* What the tables say to an access; false if there is no context for it. */
bool translate(int sid, uint32_t pasid, uint64_t iova, struct translation *t);

bool put_page_request(const uint64_t request[2]);

/* ---- smmu-testdev-bus.c ---- */

extern const struct iommu_ops iommu_ops;

void pri_response(const uint64_t cmd[2]);
void atc_invalidation(const uint64_t cmd[2]);

#endif
