// SPDX-License-Identifier: GPL-2.0-only
/*
 * vtd-nest: what QEMU's emulated VT-d lacks for a guest's own page tables, added to
 * an unmodified qemu-system-x86_64 at run time: the second stage beside the first,
 * the two nested, accessed and dirty bits in both, and page requests without a PASID
 * or for any kind of table.
 *
 *	cc -O2 -Wall -Wextra -shared -fPIC -o vtd-nest.so vtd-nest.c
 *	qemu-system-x86_64 -M q35 ... -plugin /path/to/vtd-nest.so[,debug=on] \
 *		-device intel-iommu,scalable-mode=on,fsts=on,device-iotlb=on,svm=on,pasid-bits=20
 *
 * There is no device to be added: when the machine is complete, the plugin takes the
 * place of the IOMMU for translation requests (ATS) and page requests (PRI) of the root
 * complex, and lays windows of its own over some of the IOMMU's registers: NEST, SSTS,
 * SSADS, and SMPWC, which Linux wants to see beside that, in ECAP; the tail of the
 * invalidation queue; the page request queue.
 * Devices that access memory without ATS stay with QEMU, which walks a first stage or
 * none for them. What cannot be translated grants nothing; it is not recorded as a
 * fault, as VT-d does not for what a device may ask the page for.
 *
 * A translation that was found is remembered, as by an IOTLB and by the device's own
 * cache at once, and used until the guest has invalidated both. So a guest that
 * forgets one of the two goes on with the old page, as it would with hardware.
 *
 * Section numbers are those of the VT-d specification, revision 5.10. All of this runs
 * under QEMU's big lock, but guest processors write to the tables at the same time:
 * accessed and dirty bits are set by compare and exchange.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLUGIN_NAME "vtd-nest"
#include "qemu-iommu.h"

/* ---- what is relied on of QEMU's inside ---- */
struct notifier {
	void (*notify)(struct notifier *notifier, void *data);
	void *node[2];
};

#define SIZE_4		2		/* of an access, as QEMU writes it: log2 of the bytes */
#define SIZE_8		3

WEAK Object *object_resolve_path(const char *path, bool *ambiguous);
WEAK Object *object_resolve_path_component(Object *parent, const char *part);
WEAK void *address_space_map(AddressSpace *as, hwaddr addr, hwaddr *len, bool write,
			     uint64_t attrs);
WEAK void address_space_unmap(AddressSpace *as, void *buffer, hwaddr len, bool write,
			      hwaddr accessed);
WEAK void qemu_register_reset(void (*reset)(void *opaque), void *opaque);
WEAK void qemu_add_machine_init_done_notifier(struct notifier *notifier);

/* ---- registers (11.4) ---- */
#define ECAP		0x10
#define ECAP_NEST	(1ull << 26)
#define ECAP_PRS	(1ull << 29)
#define ECAP_PASID	(1ull << 40)
#define ECAP_SMTS	(1ull << 43)
#define ECAP_SSADS	(1ull << 45)
#define ECAP_SSTS	(1ull << 46)
#define ECAP_FSTS	(1ull << 47)
#define ECAP_SMPWC	(1ull << 48)
#define ECAP_ADDED	(ECAP_NEST | ECAP_SSADS | ECAP_SSTS | ECAP_SMPWC)
#define GSTS		0x1c
#define GSTS_TES	(1u << 31)
#define GSTS_QIES	(1u << 26)
#define RTADDR		0x20
#define IQH		0x80
#define IQT		0x88
#define IQA		0x90
#define IQA_WIDE	(1u << 11)
#define PQH		0xc0
#define PQT		0xc8
#define PQA		0xd0
#define PRS		0xdc
#define PRS_PENDING	1u
#define PRS_OVERFLOW	2u
#define PECTL		0xe0
#define PECTL_MASK	(1u << 31)
#define PECTL_PENDING	(1u << 30)
#define PEDATA		0xe4
#define PEADDR		0xe8
#define PQ_END		0xf0

#define PAGE		4096ull
#define READ		1
#define WRITE		2
#define ADDR(entry)	((entry) & 0x000ffffffffff000ull)
/* What translates to itself or not at all has no size of its own. */
#define ANY_SHIFT	30

static MemoryRegion *csr;
static const struct iommu_ops *qemu_ops;
static uint32_t pq[(PQ_END - PQH) / 4];
static bool debug;

#define Q(reg) pq[((reg) - PQH) / 4]
#define say(...) do { \
	if (debug) { \
		fprintf(stderr, PLUGIN_NAME ": " __VA_ARGS__); \
		fputc('\n', stderr); \
	} \
} while (0)

/* A register of QEMU's own */
static uint64_t get(hwaddr at, unsigned int size)
{
	uint64_t value = 0;

	memory_region_dispatch_read(csr, at, &value, size == 8 ? SIZE_8 : SIZE_4, 0);
	return value;
}

static bool read_memory(uint64_t addr, void *buffer, uint64_t len)
{
	return !address_space_rw(&address_space_memory, addr, 0, buffer, len, false);
}

static bool write_memory(uint64_t addr, void *buffer, uint64_t len)
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

static bool find_context(uint16_t sid, uint64_t context[4])
{
	uint64_t root;

	if (!(get(GSTS, 4) & GSTS_TES))
		return false;
	/* a root entry has a table for either half of the functions of a bus */
	if (!read_memory(ADDR(get(RTADDR, 8)) + (sid >> 8) * 16 + (sid >> 7 & 1) * 8, &root, 8) ||
	    !(root & 1))
		return false;
	return read_memory(ADDR(root) + (sid & 127) * 32, context, 32) &&
	       context[0] & CONTEXT_PRESENT;
}

static bool find_entry(const uint64_t context[4], uint32_t pasid, struct pasid_entry *pe)
{
	uint64_t directory;

	if (pasid >> 6 >= 1u << (CONTEXT_PDTS(context[0]) + 7))
		return false;
	if (!read_memory(ADDR(context[0]) + (pasid >> 6) * 8, &directory, 8) || !(directory & 1))
		return false;
	return read_memory(ADDR(directory) + (pasid & 63) * 64, pe, 64) && PE_PRESENT(pe);
}

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

/* Bits of an entry that a guest's processor may be changing: AGAIN if it did. */
static enum outcome set_bits(uint64_t at, uint64_t entry, uint64_t bits)
{
	hwaddr len = 8;
	uint64_t *where;
	bool done;

	if ((entry & bits) == bits)
		return DONE;
	where = address_space_map(&address_space_memory, at, &len, true, 0);
	if (!where)
		return FAULT;
	done = len == 8 && __atomic_compare_exchange_n(where, &entry, entry | bits, false,
						       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	address_space_unmap(&address_space_memory, where, len, true, done ? 8 : 0);
	return done ? DONE : AGAIN;
}

static uint64_t entry_at(uint64_t table, uint64_t addr, unsigned int shift)
{
	return table + (addr >> shift & 511) * 8;
}

static uint64_t within(uint64_t page, uint64_t addr, unsigned int shift)
{
	uint64_t mask = (1ull << shift) - 1;

	return (page & ~mask) | (addr & mask);
}

#define LARGE		(1ull << 7)	/* in both stages, of the levels of 2 MiB and 1 GiB */
#define SS_ACCESSED	(1ull << 8)
#define SS_DIRTY	(1ull << 9)

/*
 * Second stage (9.9). With @write the leaf becomes dirty. @addr becomes the result, and
 * @perm and @shift lose what it has less.
 */
static enum outcome second_stage(const struct pasid_entry *pe, bool write, uint64_t *addr,
				 int *perm, unsigned int *shift)
{
	unsigned int now = 12 + 9 * (PE_AW(pe) + 1);
	uint64_t table = ADDR(pe->word[0]), at, entry, bits;
	enum outcome outcome;
	int allowed = READ | WRITE;
	bool leaf;

	if (PE_AW(pe) < 1 || PE_AW(pe) > 3 || *addr >> (now + 9))
		return FAULT;
	for (;; now -= 9) {
		at = entry_at(table, *addr, now);
		if (!read_memory(at, &entry, 8) || !(entry & (READ | WRITE)))
			return FAULT;
		if (entry & LARGE && now > 30)
			return FAULT;
		leaf = now == 12 || entry & LARGE;
		allowed &= entry & (READ | WRITE);
		bits = SS_ACCESSED | (leaf && write && allowed & WRITE ? SS_DIRTY : 0);
		outcome = PE_SSADE(pe) ? set_bits(at, entry, bits) : DONE;
		if (outcome != DONE)
			return outcome;
		table = ADDR(entry);
		if (leaf)
			break;
	}
	*addr = within(table, *addr, now);
	*perm &= allowed;
	if (now < *shift)
		*shift = now;
	return DONE;
}

#define FS_PRESENT	(1ull << 0)
#define FS_WRITE	(1ull << 1)
#define FS_USER		(1ull << 2)
#define FS_ACCESSED	(1ull << 5)
#define FS_DIRTY	(1ull << 6)
#define FS_EXTENDED	(1ull << 10)	/* accessed by a device */

/* Where an entry of a first stage is; of a nested one its table is the guest's memory. */
static enum outcome table_addr(const struct walk *w, bool write, uint64_t *at)
{
	unsigned int shift = ANY_SHIFT;
	int perm = READ | WRITE;
	enum outcome outcome;

	if (PE_TYPE(w->pe) != NESTED)
		return DONE;
	outcome = second_stage(w->pe, write, at, &perm, &shift);
	if (outcome != DONE)
		return outcome;
	return perm & READ && (!write || perm & WRITE) ? DONE : FAULT;
}

/* @at: of the entry, as the first stage has it */
static enum outcome mark_entry(const struct walk *w, uint64_t at, uint64_t entry, uint64_t bits)
{
	enum outcome outcome;

	if ((entry & bits) == bits)
		return DONE;
	outcome = table_addr(w, true, &at);
	return outcome == DONE ? set_bits(at, entry, bits) : outcome;
}

/* May the walk go on through this entry? */
static bool entry_allows(uint64_t entry, unsigned int shift)
{
	if (!(entry & FS_PRESENT) || !(entry & FS_USER))
		return false;
	if (!(entry & LARGE) || shift == 12)
		return true;
	/* bit 12 of a large page is no part of its address */
	return shift <= 30 && !(entry & ((1ull << shift) - 1) & ~0x1fffull);
}

static bool is_canonical(uint64_t addr, unsigned int bits)
{
	return (uint64_t)((int64_t)(addr << (64 - bits)) >> (64 - bits)) == addr;
}

/* The leaf of a first stage: through the second, and dirty if it may be written to. */
static enum outcome finish_leaf(struct walk *w, uint64_t at, uint64_t entry)
{
	uint64_t bits = FS_ACCESSED | (PE_EAFE(w->pe) ? FS_EXTENDED : 0);
	bool write = w->perm & WRITE && !w->no_write;
	enum outcome outcome = DONE;

	if (PE_TYPE(w->pe) == NESTED)
		outcome = second_stage(w->pe, write, &w->addr, &w->perm, &w->shift);
	if (outcome != DONE)
		return outcome;
	if (write && w->perm & WRITE)
		bits |= FS_DIRTY;
	return mark_entry(w, at, entry, bits);
}

/* First stage (9.8), nested if the entry says so */
static enum outcome first_stage(struct walk *w)
{
	unsigned int levels = 4 + PE_FSPM(w->pe), now = 12 + 9 * (levels - 1);
	uint64_t bits = FS_ACCESSED | (PE_EAFE(w->pe) ? FS_EXTENDED : 0);
	uint64_t table = ADDR(w->pe->word[2]), at, host, entry;
	enum outcome outcome;

	if (levels > 5 || !is_canonical(w->addr, now + 9))
		return FAULT;
	for (;; now -= 9) {
		at = entry_at(table, w->addr, now);
		host = at;
		outcome = table_addr(w, false, &host);
		if (outcome != DONE)
			return outcome;
		if (!read_memory(host, &entry, 8) || !entry_allows(entry, now))
			return FAULT;
		if (!(entry & FS_WRITE))
			w->perm &= ~WRITE;
		table = ADDR(entry);
		if (now == 12 || entry & LARGE)
			break;
		outcome = mark_entry(w, at, entry, bits);
		if (outcome != DONE)
			return outcome;
	}
	w->addr = within(table, w->addr, now);
	w->shift = now;
	return finish_leaf(w, at, entry);
}

static enum outcome walk_entry(struct walk *w)
{
	switch (PE_TYPE(w->pe)) {
	case FIRST:
	case NESTED:
		return first_stage(w);
	case SECOND:
		return second_stage(w->pe, !w->no_write, &w->addr, &w->perm, &w->shift);
	case PASS:
		w->shift = 12;
		return DONE;
	}
	return FAULT;
}

/* Who does not mean to write gets no right to, as nothing becomes dirty for it. */
static enum outcome walk(struct walk *w, uint64_t addr)
{
	enum outcome outcome;

	w->addr = addr;
	w->perm = READ | WRITE;
	w->shift = ANY_SHIFT;
	outcome = walk_entry(w);
	if (w->no_write)
		w->perm &= ~WRITE;
	return outcome;
}

/* ---- what was found before ---- */

#define CACHED		1024
#define IN_IOTLB	1
#define IN_DEVICE	2

struct cached {
	unsigned int where;		/* IN_*: good for as long as it is in either */
	uint16_t sid, did;
	uint32_t pasid, entry;		/* as the device says, and as the table has it */
	unsigned int type, shift;
	uint64_t iova, addr;		/* the page that was asked for, and its place */
	int perm;
};

static struct cached cache[CACHED];

static struct cached *slot_of(uint16_t sid, uint32_t pasid, uint64_t iova)
{
	return &cache[(iova / PAGE + pasid * 31 + sid * 7) % CACHED];
}

/* Which part of the pages [first, first + pages) is in the leaf of @c? */
static bool covers(const struct cached *c, uint64_t first, unsigned int order)
{
	unsigned int shift = c->shift > order ? c->shift : order;

	return shift >= 64 || c->iova >> shift == first >> shift;
}

/* Who waits for answers without a PASID, by source */
static struct pri_notifier *waiting[1 << 16];

/* Device-TLB invalidations give 2^order bytes by the number of ones from bit 12 on. */
static unsigned int order_of(uint64_t addr, bool sized)
{
	return sized ? 13 + __builtin_ctzll(~(addr >> 12)) : 12;
}

#define IOTLB_G(d)	((d)[0] >> 4 & 3)
#define IOTLB_DID(d)	((d)[0] >> 16 & 0xffff)
#define IOTLB_PASID(d)	((d)[0] >> 32 & 0xfffff)
#define IOTLB_ORDER(d)	(12 + ((d)[1] & 0x3f))

#define RESPONSE_PASID	(1u << 4)

enum { BY_DOMAIN = 2, BY_PAGE = 3 };

static unsigned int type_of(const uint64_t *d)
{
	return (d[0] & 0xf) | (d[0] >> 5 & 0x70);
}

/* IOTLB Invalidate (6.5.2.3): pages are those of the second stage. */
static bool hits_iotlb(const struct cached *c, const uint64_t *d)
{
	if (IOTLB_G(d) < BY_DOMAIN)
		return true;
	if (c->did != IOTLB_DID(d))
		return false;
	if (IOTLB_G(d) == BY_DOMAIN || c->type == NESTED)
		return true;
	return c->type == SECOND && covers(c, ADDR(d[1]), IOTLB_ORDER(d));
}

/* PASID-based IOTLB Invalidate (6.5.2.4): pages are those of the first. */
static bool hits_pasid_iotlb(const struct cached *c, const uint64_t *d)
{
	if (c->did != IOTLB_DID(d) || c->entry != IOTLB_PASID(d) || c->type == SECOND)
		return false;
	return IOTLB_G(d) == BY_DOMAIN || covers(c, d[1] & ~(PAGE - 1), IOTLB_ORDER(d));
}

/* Device-TLB Invalidate (6.5.2.5) is for requests without a PASID. */
static bool hits_device(const struct cached *c, const uint64_t *d)
{
	return c->sid == (d[0] >> 32 & 0xffff) && c->pasid == NO_PASID &&
	       covers(c, d[1], order_of(d[1], d[1] & 1));
}

/* PASID-based Device-TLB Invalidate (6.5.2.6) */
static bool hits_pasid_device(const struct cached *c, const uint64_t *d)
{
	if (c->sid != (d[0] >> 16 & 0xffff) || c->pasid == NO_PASID)
		return false;
	return (d[1] & 1 || c->pasid == IOTLB_PASID(d)) &&
	       covers(c, d[1], order_of(d[1], d[1] & 1 << 11));
}

static void invalidate(const uint64_t *d)
{
	static const struct {
		unsigned int type, where;
		bool (*hits)(const struct cached *c, const uint64_t *d);
	} kinds[] = {
		{ 2, IN_IOTLB, hits_iotlb }, { 6, IN_IOTLB, hits_pasid_iotlb },
		{ 3, IN_DEVICE, hits_device }, { 8, IN_DEVICE, hits_pasid_device },
	};
	unsigned int i, n;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (type_of(d) != kinds[i].type)
			continue;
		say("invalidate type %u: %#llx %#llx", kinds[i].type, (unsigned long long)d[0],
		    (unsigned long long)d[1]);
		for (n = 0; n < CACHED; n++) {
			if (cache[n].where & kinds[i].where && kinds[i].hits(&cache[n], d))
				cache[n].where &= ~kinds[i].where;
		}
	}
}

/*
 * Page Group Response (6.5.2.8) without a PASID: QEMU would stop the queue at it. The
 * device is told here, and QEMU finds an invalidation for no device in its place.
 */
static void answer(uint64_t at, uint64_t *d)
{
	struct pri_notifier *notifier = waiting[d[0] >> 16 & 0xffff];
	unsigned int code = d[0] >> 12 & 0xf;
	struct pri_response response = {
		.code = code < 2 ? (int)code : 2, .group_id = d[1] >> 3 & 0x1ff,
	};

	if (notifier)
		notifier->notify(notifier, &response);
	d[0] = 3 | 0xffffull << 32;
	d[1] = 0;
	write_memory(at, d, 16);
}

/* Before QEMU does what the guest has queued: it knows nothing of the cache. */
static void invalidate_queued(uint64_t tail)
{
	uint64_t base = get(IQA, 8), head = get(IQH, 8), size = PAGE << (base & 7), d[2];
	unsigned int step = base & IQA_WIDE ? 32 : 16;

	if (!(get(GSTS, 4) & GSTS_QIES))
		return;
	for (; head != tail && head < size && tail < size; head = (head + step) % size) {
		if (!read_memory(ADDR(base) + head, d, sizeof(d)))
			continue;
		if (type_of(d) == 9 && !(d[0] & RESPONSE_PASID))
			answer(ADDR(base) + head, d);
		else
			invalidate(d);
	}
}

/* ---- translation requests ---- */

static ssize_t ats_request(PCIBus *bus, void *opaque, int devfn, uint32_t pasid, bool priv,
			   bool exec, hwaddr addr, size_t length, bool no_write,
			   struct iotlb_entry *result, size_t max, uint32_t *errors)
{
	uint16_t sid = pci_bus_num(bus) << 8 | devfn;
	struct walk w = { .no_write = no_write };
	struct cached *c = slot_of(sid, pasid, addr);
	uint64_t context[4], iova = addr & ~(PAGE - 1);
	enum outcome outcome = FAULT;
	struct pasid_entry pe;
	uint32_t entry;

	(void)opaque;
	(void)length;
	if (!max)
		return -ENOMEM;
	*errors = 0;
	*result = (struct iotlb_entry){ .target = &address_space_memory, .iova = iova,
					.mask = PAGE - 1, .pasid = pasid };
	/* QEMU lets no device ask for these that has not got them in its PASID capability. */
	if (priv || exec)
		return -EPERM;
	if (c->where && c->sid == sid && c->pasid == pasid && c->iova == iova &&
	    (no_write || c->perm & WRITE)) {
		result->addr = c->addr;
		result->perm = c->perm;
		return 1;
	}
	if (!find_context(sid, context) || !(context[0] & CONTEXT_DTE) ||
	    (pasid != NO_PASID && !(context[0] & CONTEXT_PASIDE)))
		goto out;
	entry = pasid == NO_PASID ? RID_PASID(context[1]) : pasid;
	w.pe = &pe;
	do {
		if (!find_entry(context, entry, &pe))
			goto out;
		outcome = walk(&w, iova);
	} while (outcome == AGAIN);
out:
	say("ats %04x pasid %#x iova %#llx -> %#llx perm %d", sid, pasid,
	    (unsigned long long)iova, (unsigned long long)w.addr, outcome == DONE ? w.perm : 0);
	if (outcome != DONE || !(w.perm & READ)) {
		*errors = 1;
		return 1;
	}
	result->addr = w.addr & ~(PAGE - 1);
	result->perm = w.perm;
	*c = (struct cached){ IN_IOTLB | IN_DEVICE, sid, PE_DID(&pe), pasid, entry, PE_TYPE(&pe),
			      w.shift, iova, result->addr, w.perm };
	return 1;
}

/* ---- page requests (7.4) ---- */

static void raise_event(void)
{
	uint32_t data = Q(PEDATA);

	if (Q(PECTL) & PECTL_MASK) {
		Q(PECTL) |= PECTL_PENDING;
		return;
	}
	Q(PECTL) &= ~PECTL_PENDING;
	write_memory(Q(PEADDR) | (uint64_t)Q(PEADDR + 4) << 32, &data, sizeof(data));
}

/* A bit of the status that was not set before interrupts. */
static void set_status(uint32_t bit)
{
	bool before = Q(PRS);

	Q(PRS) |= bit;
	if (!before)
		raise_event();
}

/*
 * Refused with -EPERM where no page requests are allowed, and with -ENOSPC while the
 * queue has no room or its overflow is not cleared: the device tries again later.
 */
static int pri_request(PCIBus *bus, void *opaque, int devfn, uint32_t pasid, bool priv, bool exec,
		       hwaddr addr, bool last, uint16_t group, bool read, bool write)
{
	uint64_t base = Q(PQA) | (uint64_t)Q(PQA + 4) << 32, size = PAGE << (base & 7);
	uint32_t tail = Q(PQT), next = (tail + 32) & (size - 1);
	uint16_t sid = pci_bus_num(bus) << 8 | devfn;
	uint64_t context[4], d[4] = { 0 };

	(void)opaque;
	if (!find_context(sid, context) || !(context[0] & CONTEXT_PRE) ||
	    (pasid != NO_PASID && !(context[0] & CONTEXT_PASIDE)))
		return -EPERM;
	if (Q(PRS) & PRS_OVERFLOW)
		return -ENOSPC;
	if (next == Q(PQH)) {
		set_status(PRS_OVERFLOW);
		return -ENOSPC;
	}
	d[0] = 1 | (uint64_t)sid << 16;
	if (pasid != NO_PASID)
		d[0] |= 1 << 8 | (uint64_t)pasid << 32 | (uint64_t)exec << 52 |
			(uint64_t)priv << 53;
	d[1] = (addr & ~(PAGE - 1)) | (group & 511) << 3 | last << 2 | write << 1 | read;
	write_memory(ADDR(base) + tail, d, sizeof(d));
	Q(PQT) = next;
	say("page request %04x pasid %#x iova %#llx group %u last %d", sid, pasid,
	    (unsigned long long)addr, group, last);
	set_status(PRS_PENDING);
	return 0;
}

/* QEMU keeps them by PASID, and has no place for those without one. */
static void pri_register(PCIBus *bus, void *opaque, int devfn, uint32_t pasid,
			 struct pri_notifier *notifier)
{
	if (pasid == NO_PASID)
		waiting[pci_bus_num(bus) << 8 | devfn] = notifier;
	else
		qemu_ops->pri_register(bus, opaque, devfn, pasid, notifier);
}

static void pri_unregister(PCIBus *bus, void *opaque, int devfn, uint32_t pasid)
{
	if (pasid == NO_PASID)
		waiting[pci_bus_num(bus) << 8 | devfn] = NULL;
	else
		qemu_ops->pri_unregister(bus, opaque, devfn, pasid);
}

/* ---- registers ---- */

static uint64_t window_read(void *opaque, hwaddr offset, unsigned int size)
{
	hwaddr at = (uintptr_t)opaque + offset;
	uint64_t value;

	if (at >= PQH && at < PQ_END)
		return Q(at) | (size == 8 ? (uint64_t)Q(at + 4) << 32 : 0);
	value = get(at, size);
	if (at == ECAP)
		value |= size == 8 ? ECAP_ADDED : (uint32_t)ECAP_ADDED;
	if (at == ECAP + 4)
		value |= ECAP_ADDED >> 32;
	return value;
}

static void pq_write(hwaddr at, uint32_t value)
{
	switch (at) {
	case PRS:
		Q(PRS) &= ~value;
		if (!Q(PRS))
			Q(PECTL) &= ~PECTL_PENDING;
		break;
	case PECTL:
		Q(PECTL) = (Q(PECTL) & PECTL_PENDING) | (value & PECTL_MASK);
		if (Q(PECTL) == PECTL_PENDING)
			raise_event();
		break;
	default:
		Q(at) = value;
	}
}

static void window_write(void *opaque, hwaddr offset, uint64_t value, unsigned int size)
{
	hwaddr at = (uintptr_t)opaque + offset;

	if (at >= PQH && at < PQ_END) {
		pq_write(at, value);
		if (size == 8)
			pq_write(at + 4, value >> 32);
		return;
	}
	if (at == IQT)
		invalidate_queued(value);
	memory_region_dispatch_write(csr, at, value, size == 8 ? SIZE_8 : SIZE_4, 0);
}

static void reset(void *opaque)
{
	(void)opaque;
	memset(pq, 0, sizeof(pq));
	memset(cache, 0, sizeof(cache));
	Q(PECTL) = PECTL_MASK;
}

/* ---- getting into QEMU ---- */

/* Nobody's: the IOMMU's own regions may not be entered from one of its own. */
static void lay_window(hwaddr at, uint64_t size, uint8_t *mr)
{
	static const struct mmio_ops mmio_ops = {
		.read = window_read, .write = window_write, .endianness = DEVICE_LITTLE_ENDIAN,
		.valid = { .min = 4, .max = 8 }, .impl = { .min = 4, .max = 8 },
	};

	memory_region_init_io((MemoryRegion *)mr, NULL, &mmio_ops, (void *)(uintptr_t)at,
			      PLUGIN_NAME, size);
	memory_region_add_subregion_overlap(csr, at, (MemoryRegion *)mr, 1);
}

static void machine_complete(struct notifier *notifier, void *data)
{
	/* QEMU's structures, with room to spare and aligned for Int128 */
	static _Alignas(64) uint8_t mr[3][4096];
	const uint64_t needed = ECAP_PRS | ECAP_PASID | ECAP_SMTS | ECAP_FSTS;
	static struct iommu_ops ops;
	Object *vtd = x86_iommu_get_default();
	PCIBus *bus = (PCIBus *)object_resolve_path("/machine/q35/pcie.0", NULL);

	(void)notifier;
	(void)data;
	csr = vtd ? (MemoryRegion *)object_resolve_path_component(vtd, "intel_iommu[0]") : NULL;
	if (!csr || !bus)
		refuse("unknown QEMU: there is no intel-iommu on a q35 machine");
	if ((get(ECAP, 8) & needed) != needed)
		refuse("unknown QEMU: intel-iommu with fsts and svm is wanted, not ECAP %#llx",
		       (unsigned long long)get(ECAP, 8));
	qemu_ops = find_iommu_ops(bus, vtd);
	ops = *qemu_ops;
	ops.ats_request = ats_request;
	ops.pri_register = pri_register;
	ops.pri_unregister = pri_unregister;
	ops.pri_request = pri_request;
	pci_setup_iommu(bus, &ops, vtd);
	lay_window(ECAP, 8, mr[0]);
	lay_window(IQT, 8, mr[1]);
	lay_window(PQH, PQ_END - PQH, mr[2]);
	reset(NULL);
	qemu_register_reset(reset, NULL);
}

static const struct symbol symbols[] = {
	SYMBOL(address_space_memory),
	SYMBOL(address_space_rw),
	SYMBOL(address_space_map),
	SYMBOL(address_space_unmap),
	SYMBOL(memory_region_init_io),
	SYMBOL(memory_region_add_subregion_overlap),
	SYMBOL(memory_region_dispatch_read),
	SYMBOL(memory_region_dispatch_write),
	SYMBOL(object_resolve_path),
	SYMBOL(object_resolve_path_component),
	SYMBOL(x86_iommu_get_default),
	SYMBOL(pci_bus_num),
	SYMBOL(pci_setup_iommu),
	SYMBOL(qemu_register_reset),
	SYMBOL(qemu_add_machine_init_done_notifier),
	SYMBOL(qmp_query_version),
};

/* Arguments: debug=on traces to stderr; version=X.Y tries out the version check. */
__attribute__((visibility("default")))
int qemu_plugin_install(uint64_t id, const struct plugin_info *info, int argc, char **argv)
{
	static struct notifier complete = { .notify = machine_complete };
	const char *version = NULL;
	int i;

	(void)id;
	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "version=", 8))
			version = argv[i] + 8;
		else if (!strcmp(argv[i], "debug=on"))
			debug = true;
		else if (strcmp(argv[i], "debug=off"))
			refuse("unknown argument %s", argv[i]);
	}
	check_symbols(symbols, sizeof(symbols) / sizeof(symbols[0]));
	check_host(info, "x86_64", NULL);
	check_version(version);
	qemu_add_machine_init_done_notifier(&complete);
	return 0;
}
