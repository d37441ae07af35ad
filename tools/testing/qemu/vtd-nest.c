// SPDX-License-Identifier: GPL-2.0-only
/*
 * vtd-nest: what QEMU's emulated VT-d lacks for a guest's own page tables, added to
 * an unmodified qemu-system-x86_64 at run time: the second stage beside the first,
 * the two nested, accessed and dirty bits in both, and page requests without a PASID
 * or for any kind of table.
 *
 *	cc -O2 -Wall -Wextra -shared -fPIC -o vtd-nest.so vtd-nest*.c
 *	qemu-system-x86_64 -M q35 ... -plugin /path/to/vtd-nest.so[,debug=on] \
 *		-device intel-iommu,scalable-mode=on,fsts=on,device-iotlb=on,svm=on,pasid-bits=20
 *
 * With only=smpwc nothing is added but SMPWC in ECAP: that the IOMMU sees the tables as
 * the processors do, which is so of any that is emulated, and which Linux wants to see
 * before a process may hand its memory to a device (SVA).
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vtd-nest-device.h"

/* ---- what is relied on of QEMU's inside ---- */
struct notifier {
	void (*notify)(struct notifier *notifier, void *data);
	void *node[2];
};

#define SIZE_4		2		/* of an access, as QEMU writes it: log2 of the bytes */
#define SIZE_8		3

WEAK Object *object_resolve_path(const char *path, bool *ambiguous);
WEAK Object *object_resolve_path_component(Object *parent, const char *part);
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

static MemoryRegion *csr;
static const struct iommu_ops *qemu_ops;
static uint32_t pq[(PQ_END - PQH) / 4];
static uint64_t added = ECAP_ADDED;
static bool debug;

#define Q(reg) pq[((reg) - PQH) / 4]
#define say(...) do { \
	if (debug) { \
		fprintf(stderr, PLUGIN_NAME ": " __VA_ARGS__); \
		fputc('\n', stderr); \
	} \
} while (0)

uint64_t get(hwaddr at, unsigned int size)
{
	uint64_t value = 0;

	memory_region_dispatch_read(csr, at, &value, size == 8 ? SIZE_8 : SIZE_4, 0);
	return value;
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
		value |= size == 8 ? added : (uint32_t)added;
	if (at == ECAP + 4)
		value |= added >> 32;
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
	lay_window(ECAP, 8, mr[0]);
	if (added != ECAP_ADDED)
		return;
	qemu_ops = find_iommu_ops(bus, vtd);
	ops = *qemu_ops;
	ops.ats_request = ats_request;
	ops.pri_register = pri_register;
	ops.pri_unregister = pri_unregister;
	ops.pri_request = pri_request;
	pci_setup_iommu(bus, &ops, vtd);
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

/*
 * Arguments: debug=on traces to stderr; version=X.Y tries out the version check;
 * only=smpwc is explained above.
 */
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
		else if (!strcmp(argv[i], "only=smpwc"))
			added = ECAP_SMPWC;
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
