/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the parts of vtd-nest share: vtd-nest.c, which is asked by devices and by the
 * guest, and vtd-nest-walk.c, which walks the guest's tables.
 */
#ifndef VTD_NEST_DEVICE_H
#define VTD_NEST_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLUGIN_NAME "vtd-nest"
#include "qemu-iommu.h"

WEAK void *address_space_map(AddressSpace *as, hwaddr addr, hwaddr *len, bool write,
			     uint64_t attrs);
WEAK void address_space_unmap(AddressSpace *as, void *buffer, hwaddr len, bool write,
			      hwaddr accessed);

/* Registers (11.4) that both read */
#define GSTS		0x1c
#define GSTS_TES	(1u << 31)
#define GSTS_QIES	(1u << 26)
#define RTADDR		0x20

#define PAGE		4096ull
#define READ		1
#define WRITE		2
#define ADDR(entry)	((entry) & 0x000ffffffffff000ull)

/* A register of QEMU's own */
uint64_t get(hwaddr at, unsigned int size);

static inline bool read_memory(uint64_t addr, void *buffer, uint64_t len)
{
	return !address_space_rw(&address_space_memory, addr, 0, buffer, len, false);
}

static inline bool write_memory(uint64_t addr, void *buffer, uint64_t len)
{
	return !address_space_rw(&address_space_memory, addr, 0, buffer, len, true);
}

/* ---- tables ---- */

/* Scalable mode context entry (9.4), first word */
#define CONTEXT_PRESENT	(1ull << 0)
#define CONTEXT_DTE	(1ull << 2)
#define CONTEXT_PASIDE	(1ull << 3)
#define CONTEXT_PRE	(1ull << 4)
#define CONTEXT_PDTS(w)	(((w) >> 9) & 7)
#define RID_PASID(w)	((w) & 0xfffff)		/* second word */

/* Scalable mode PASID table entry (9.6) */
struct pasid_entry { uint64_t word[8]; };

#define PE_PRESENT(pe)	((pe)->word[0] & 1)
#define PE_AW(pe)	(((pe)->word[0] >> 2) & 7)
#define PE_TYPE(pe)	(((pe)->word[0] >> 6) & 7)
#define PE_SSADE(pe)	((pe)->word[0] >> 9 & 1)
#define PE_DID(pe)	((pe)->word[1] & 0xffff)
#define PE_FSPM(pe)	(((pe)->word[2] >> 2) & 3)
#define PE_EAFE(pe)	((pe)->word[2] >> 7 & 1)

enum { FIRST = 1, SECOND = 2, NESTED = 3, PASS = 4 };

bool find_context(uint16_t sid, uint64_t context[4]);
bool find_entry(const uint64_t context[4], uint32_t pasid, struct pasid_entry *pe);

/* ---- the walk ---- */

enum outcome { FAULT, DONE, AGAIN };

struct walk {
	const struct pasid_entry *pe;
	bool no_write;
	/* what is allowed, where it leads to, and how much of that is one leaf */
	int perm;
	uint64_t addr;
	unsigned int shift;
};

/* Who does not mean to write gets no right to, as nothing becomes dirty for it. */
enum outcome walk(struct walk *w, uint64_t addr);

#endif
