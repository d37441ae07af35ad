// SPDX-License-Identifier: GPL-2.0-only
/*
 * pri-testdev: a PCIe endpoint with ATS, PASID and PRI for QEMU's emulated
 * VT-d, added to an unmodified qemu-system-x86_64 at run time:
 *
 *	cc -O2 -Wall -Wextra -shared -fPIC -o pri-testdev.so pri-testdev.c
 *	qemu-system-x86_64 ... -plugin /path/to/pri-testdev.so[,debug=on] \
 *		-device intel-iommu,scalable-mode=on,fsts=on,device-iotlb=on,svm=on,pasid-bits=20 \
 *		-device pri-testdev [-device pri-testdev ...]
 *
 * With the plugin's argument flr=on the devices have Function Level Reset, with pm=on
 * they have D3hot, and lose their state there, with pm=keep they keep it, and with
 * failure=stops a response of that kind ends their page requests, as it should.
 *
 * pri-testdev.h is its data sheet, and qemu-plugin.h says how a plugin adds a
 * device.  The device cannot be unplugged or migrated.
 *
 * Everything here runs under QEMU's big lock: register accesses and page
 * responses from a vCPU, the DMA engine from a timer of the virtual clock.  A
 * response only takes notes and starts that timer, because it is called from
 * the midst of the IOMMU's invalidation queue.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define PLUGIN_NAME "pri-testdev"
#include "pri-testdev.h"
#include "qemu-plugin.h"

/* ---- what is relied on of QEMU's inside ---- */
typedef struct QEMUTimer QEMUTimer;

struct iotlb_entry {
	AddressSpace *target;
	hwaddr iova, addr, mask;
	int perm;
	uint32_t pasid;
	uint64_t spare[32];
};

/* with room to spare */
struct tlb_notifier {
	_Alignas(64) uint8_t spare[256];
};

#define CLOCK_OF_GUEST		1	/* QEMU_CLOCK_VIRTUAL */

WEAK int pci_pm_init(PCIDevice *dev, uint8_t at, void **errp);
WEAK void qemu_register_reset(void (*reset)(void *opaque), void *opaque);
WEAK void pci_iommu_init_iotlb_notifier(PCIDevice *dev, struct tlb_notifier *n,
					void (*notify)(struct tlb_notifier *n, void *entry),
					void *opaque);
WEAK int pci_iommu_register_iotlb_notifier(PCIDevice *dev, uint32_t pasid,
					   struct tlb_notifier *n);
WEAK void pci_iommu_unregister_iotlb_notifier(PCIDevice *dev, uint32_t pasid,
					      struct tlb_notifier *n);
WEAK Object *object_resolve_path_type(const char *path, const char *type, bool *ambiguous);
WEAK void pci_host_config_write_common(PCIDevice *dev, uint32_t at, uint32_t limit,
				       uint32_t value, uint32_t size);
WEAK void pcie_cap_flr_init(PCIDevice *dev);
WEAK void pcie_cap_flr_write_config(PCIDevice *dev, uint32_t at, uint32_t value, int size);
WEAK void pcie_ats_init(PCIDevice *dev, uint16_t at, bool aligned);
WEAK void pcie_pri_init(PCIDevice *dev, uint16_t at, uint32_t capacity, bool resp_pasid);
WEAK void pci_default_write_config(PCIDevice *dev, uint32_t at, uint32_t value, int size);
WEAK int pci_pri_register_notifier(PCIDevice *dev, uint32_t pasid, struct pri_notifier *n);
WEAK void pci_pri_unregister_notifier(PCIDevice *dev, uint32_t pasid);
WEAK int pci_pri_request_page(PCIDevice *dev, uint32_t pasid, bool priv, bool exec, hwaddr iova,
			      bool last, uint16_t group_id, bool read, bool write);
WEAK ssize_t pci_ats_request_translation(PCIDevice *dev, uint32_t pasid, bool priv, bool exec,
					 hwaddr iova, size_t size, bool no_write,
					 struct iotlb_entry *entries, size_t max,
					 uint32_t *errors);
WEAK void timer_init_full(QEMUTimer *timer, void *group, int clock, int scale, int attributes,
			  void (*expired)(void *opaque), void *opaque);
WEAK void timer_mod(QEMUTimer *timer, int64_t when);
WEAK int64_t qemu_clock_get_ns(int clock);

/* ---- the device ---- */
#define PAGE		4096ull
#define PAGE_OF(addr)	((addr) & ~(PAGE - 1))
#define ADDR_MAX	(1ull << 57)
#define CONFIG_PM	0x40
#define CONFIG_EXPRESS	0x60
#define CONFIG_ATS	0x100
#define CONFIG_PASID	0x110
#define CONFIG_PRI	0x120
#define STEP_CHUNKS	64		/* moves before the guest gets its turn */
#define REFUSED_WAIT_NS	1000000

/* In the capabilities */
#define PM_STATE	0x3
#define PM_D3HOT	0x3
#define PM_KEEPS_STATE	0x8
#define ATS_ENABLE	0x8000
#define PRI_ENABLE	0x1
#define PRI_RESET	0x2
#define PRI_FAILED	0x1		/* in the status, until a one is written */
#define PRI_UNEXPECTED	0x2
#define PRI_STOPPED	0x100

struct device;

/* One PASID's unanswered groups, by id.  A burst may use an id many times. */
struct listener {
	struct pri_notifier notifier;		/* first: QEMU hands it back */
	struct tlb_notifier tlb;
	struct device *dev;
	bool used;
	bool told;				/* of invalidations */
	uint32_t pasid;
	uint32_t requests[PTD_GROUP_IDS];	/* sent, in groups not answered */
	uint32_t open[PTD_GROUP_IDS];		/* LASTs sent, not answered */
	uint32_t stale[PTD_GROUP_IDS];		/* the same, sent before a RESET */
	int64_t sent[PTD_GROUP_IDS];		/* when the first of those open was, or -1 */
};

/* A page request group of the engine: pages [first, end) of one stream. */
struct flight {
	bool used;
	uint16_t id;
	const struct stream *stream;
	uint64_t first, end;
};

/* One side of a copy. */
struct stream {
	bool on;
	uint32_t access;			/* PTD_F_READ or PTD_F_WRITE */
	uint64_t base, end;			/* end: after the last page */
	uint64_t scan;				/* pages before it were looked at */
	uint64_t stuck;				/* the page the copy asks for, */
	unsigned int asks;			/* this often already */
};

struct engine {
	uint32_t pasid, group, depth;
	uint64_t length, data;
	struct stream src, dst;
	struct flight flight[PTD_CREDITS_MAX];
	unsigned int flights, refusals;
	uint16_t next_id;
	uint8_t buffer[PAGE];
};

struct device {
	/* QEMU's structures, with room to spare and aligned for Int128 */
	_Alignas(64) uint8_t mr[4096];
	_Alignas(64) uint8_t timer[512];
	PCIDevice *pci;
	struct device *older;
	unsigned int instance;
	uint8_t power;				/* of PM_STATE; QEMU stores none */
	uint16_t pri_status;			/* PRI_FAILED, PRI_UNEXPECTED */
	bool lost;				/* its state, and has no ATS yet */
	uint32_t regs[PTD_REGISTERS_END / 4];
	struct engine engine;
	struct listener listener[PTD_PASIDS_MAX];
};

#define R(s, reg) ((s)->regs[(reg) / 4])

static bool debug, flr, pm, pm_keeps, failure_stops;
#define say(s, fmt, ...) do { \
	if (debug) \
		fprintf(stderr, "pri-testdev.%u: " fmt "\n", (s)->instance, ##__VA_ARGS__); \
} while (0)

static uint64_t get64(const struct device *s, unsigned int reg)
{
	return R(s, reg) | (uint64_t)R(s, reg + 4) << 32;
}

static void set64(struct device *s, unsigned int reg, uint64_t value)
{
	R(s, reg) = value;
	R(s, reg + 4) = value >> 32;
}

static void run_engine_at(struct device *s, int64_t delay)
{
	timer_mod((QEMUTimer *)s->timer, qemu_clock_get_ns(CLOCK_OF_GUEST) + delay);
}

static bool running(const struct device *s)
{
	return R(s, PTD_STATE) == PTD_STATE_RUNNING;
}

static void set_state(struct device *s, uint32_t state, uint32_t stage, int rc, uint64_t addr)
{
	memset(s->engine.flight, 0, sizeof(s->engine.flight));
	s->engine.flights = 0;
	R(s, PTD_STATE) = state;
	R(s, PTD_STAGE) = stage;
	R(s, PTD_ERRNO) = rc;
	set64(s, PTD_FAULT_ADDR, addr);
	say(s, "engine state=%u stage=%u errno=%d addr=%#llx", state, stage, rc,
	    (unsigned long long)addr);
}

/* ---- power, resets and the PRI capability ---- */

static bool in_d3(const struct device *s)
{
	return s->power == PM_D3HOT;
}

static bool mute(const struct device *s)
{
	return s->lost || in_d3(s);
}

static bool pri_on(const struct device *s)
{
	return pci_default_read_config(s->pci, CONFIG_PRI + 4, 2) & PRI_ENABLE;
}

static uint16_t pri_status(const struct device *s)
{
	bool awaits = R(s, PTD_OPEN_REQUESTS) && !(s->pri_status & PRI_FAILED);

	return s->pri_status | (pri_on(s) || awaits ? 0 : PRI_STOPPED);
}

/* ---- page requests and responses ---- */

/* Give up requests whose LAST never got out: nobody will answer them. */
static void forget_group(struct listener *l, uint16_t id)
{
	if (l->open[id])
		return;
	R(l->dev, PTD_OPEN_REQUESTS) -= l->requests[id];
	l->requests[id] = 0;
}

/* Only of the first of several that have the same id it is known when they were sent. */
static void count_latency(struct listener *l, uint16_t id)
{
	int64_t ns = qemu_clock_get_ns(CLOCK_OF_GUEST) - l->sent[id];
	unsigned int bucket = 0;

	while (ns >> bucket > 1 && bucket < PTD_LATENCIES - 1)
		bucket++;
	if (l->sent[id] >= 0)
		R(l->dev, PTD_LATENCY + 4 * bucket)++;
	l->sent[id] = -1;
}

static void close_group(struct listener *l, uint16_t id)
{
	/* exact for the equal groups of a burst, the only user of one id twice */
	uint32_t requests = l->requests[id] / l->open[id];

	l->requests[id] -= requests;
	l->open[id]--;
	R(l->dev, PTD_OPEN_REQUESTS) -= requests;
	R(l->dev, PTD_OPEN_GROUPS)--;
}

static void engine_answered(struct device *s, uint32_t pasid, uint16_t id, int code)
{
	struct engine *e = &s->engine;
	unsigned int i;

	if (!running(s))
		return;
	for (i = 0; i < PTD_CREDITS_MAX; i++) {
		struct flight *f = &e->flight[i];

		if (!f->used || f->id != id || pasid != e->pasid)
			continue;
		f->used = false;
		e->flights--;
		if (code == PTD_RESP_INVALID)
			set_state(s, PTD_STATE_STOPPED_INVALID, PTD_STAGE_PRI, 0, f->first);
		else if (code != PTD_RESP_SUCCESS)
			set_state(s, PTD_STATE_STOPPED_FAILURE, PTD_STAGE_PRI, 0, f->first);
		break;
	}
	/* any answer frees credits, so it may be what the engine waits for */
	if (running(s))
		run_engine_at(s, 0);
}

static void count_response(struct device *s, uint32_t pasid, uint16_t id, int code)
{
	R(s, PTD_RESP_CODE) = code;
	R(s, PTD_RESP_GRPID) = id;
	R(s, PTD_RESP_PASID) = pasid;
	R(s, code == PTD_RESP_SUCCESS ? PTD_N_SUCCESS :
	     code == PTD_RESP_INVALID ? PTD_N_INVALID : PTD_N_FAILURE)++;
	if (code != PTD_RESP_SUCCESS && code != PTD_RESP_INVALID)
		s->pri_status |= PRI_FAILED;
	R(s, PTD_N_RESPONSES)++;
}

static void got_response(struct pri_notifier *n, struct pri_response *response)
{
	struct listener *l = (struct listener *)n;
	uint16_t id = response->group_id;
	int code = response->code;
	struct device *s = l->dev;

	say(s, "response code=%d pasid=%#x group=%u", code, l->pasid, id);
	if (id < PTD_GROUP_IDS && l->open[id]) {
		count_latency(l, id);
		close_group(l, id);
		count_response(s, l->pasid, id, code);
		engine_answered(s, l->pasid, id, code);
	} else if (id < PTD_GROUP_IDS && l->stale[id]) {
		l->stale[id]--;
		R(s, PTD_N_STALE)++;
	} else {
		s->pri_status |= PRI_UNEXPECTED;
		R(s, PTD_N_UNMATCHED)++;
	}
}

static void got_invalidation(struct tlb_notifier *n, void *entry)
{
	struct listener *l = (void *)((uint8_t *)n - offsetof(struct listener, tlb));

	(void)entry;
	R(l->dev, PTD_N_INVALIDATED)++;
	if (mute(l->dev))
		R(l->dev, PTD_N_MUTE)++;
}

static bool is_idle(const struct listener *l)
{
	static const uint32_t none[PTD_GROUP_IDS];

	return !memcmp(l->requests, none, sizeof(none)) && !memcmp(l->open, none, sizeof(none)) &&
	       !memcmp(l->stale, none, sizeof(none));
}

static struct listener *find_listener(struct device *s, uint32_t pasid)
{
	unsigned int i;

	for (i = 0; i < PTD_PASIDS_MAX; i++) {
		if (s->listener[i].used && s->listener[i].pasid == pasid)
			return &s->listener[i];
	}
	return NULL;
}

static void drop_listener(struct listener *l)
{
	pci_pri_unregister_notifier(l->dev->pci, l->pasid);
	if (l->told)
		pci_iommu_unregister_iotlb_notifier(l->dev->pci, l->pasid, &l->tlb);
	l->used = false;
}

static struct listener *new_listener(struct device *s, uint32_t pasid)
{
	struct listener *l = NULL;
	unsigned int i;

	for (i = 0; i < PTD_PASIDS_MAX && !l; i++) {
		if (!s->listener[i].used)
			l = &s->listener[i];
	}
	for (i = 0; i < PTD_PASIDS_MAX && !l; i++) {
		if (is_idle(&s->listener[i])) {
			l = &s->listener[i];
			drop_listener(l);
		}
	}
	if (!l)
		return NULL;
	l->notifier.notify = got_response;
	l->dev = s;
	l->pasid = pasid;
	pci_iommu_init_iotlb_notifier(s->pci, &l->tlb, got_invalidation, NULL);
	/* An SMMU tells of no invalidations: then none is counted. */
	l->told = !pci_iommu_register_iotlb_notifier(s->pci, pasid, &l->tlb);
	l->used = true;
	return l;
}

/* Be told of PASID's responses.  Again for each request: cheap, and never lost. */
static int listen_to(struct device *s, uint32_t pasid, struct listener **out)
{
	struct listener *l = find_listener(s, pasid);
	int rc;

	if (!l)
		l = new_listener(s, pasid);
	if (!l)
		return -ENOMEM;
	*out = l;
	rc = pci_pri_register_notifier(s->pci, pasid, &l->notifier);
	if (rc && is_idle(l))
		drop_listener(l);
	return rc;
}

static void count_request(struct device *s, uint64_t iova)
{
	R(s, PTD_N_REQUESTS)++;
	if (iova >= get64(s, PTD_WATCH_LO) && iova < get64(s, PTD_WATCH_HI))
		R(s, PTD_N_WATCH)++;
	if (iova < get64(s, PTD_LOWEST))
		set64(s, PTD_LOWEST, iova);
	if (iova > get64(s, PTD_HIGHEST))
		set64(s, PTD_HIGHEST, iova);
}

static int request_page(struct device *s, uint32_t pasid, uint64_t iova, uint32_t flags,
			uint16_t id)
{
	struct listener *l;
	int rc;

	rc = mute(s) || (failure_stops && s->pri_status & PRI_FAILED) ? -EPERM :
	     listen_to(s, pasid, &l);
	if (rc) {
		R(s, PTD_N_REFUSED)++;
		return rc;
	}
	rc = pci_pri_request_page(s->pci, pasid, flags & PTD_F_PRIV, flags & PTD_F_EXEC, iova,
				  flags & PTD_F_LAST, id, flags & PTD_F_READ, flags & PTD_F_WRITE);
	say(s, "request pasid=%#x group=%u iova=%#llx flags=%#x -> %d", pasid, id,
	    (unsigned long long)iova, flags, rc);
	if (rc) {
		R(s, PTD_N_REFUSED)++;
		if (flags & PTD_F_LAST)
			forget_group(l, id);
		return rc;
	}
	count_request(s, iova);
	l->requests[id]++;
	R(s, PTD_OPEN_REQUESTS)++;
	if (flags & PTD_F_LAST) {
		if (!l->open[id])
			l->sent[id] = qemu_clock_get_ns(CLOCK_OF_GUEST);
		l->open[id]++;
		R(s, PTD_N_GROUPS)++;
		R(s, PTD_OPEN_GROUPS)++;
	}
	return 0;
}

/* What the driver has allowed in the PRI capability. */
static uint32_t credits(struct device *s)
{
	uint32_t allowed = pci_default_read_config(s->pci, CONFIG_PRI + 0x0c, 4);

	return allowed < PTD_CREDITS_MAX ? allowed : PTD_CREDITS_MAX;
}

static uint32_t free_credits(struct device *s)
{
	uint32_t all = credits(s), used = R(s, PTD_OPEN_REQUESTS);

	return used < all ? all - used : 0;
}

/* ---- translation and access ---- */

/* 1: translated with all of access, 0: it is not there, else a negative errno. */
static int translate(struct device *s, uint32_t pasid, uint32_t access, uint64_t iova,
		     uint64_t *addr, uint32_t *perm)
{
	struct iotlb_entry entry = { .mask = PAGE - 1 };
	uint32_t need, errors = 0;
	ssize_t n;

	*addr = 0;
	*perm = 0;
	if (mute(s))
		return -EPERM;
	n = pci_ats_request_translation(s->pci, pasid, access & PTD_F_PRIV, access & PTD_F_EXEC,
					PAGE_OF(iova), PAGE, !(access & PTD_F_WRITE), &entry, 1,
					&errors);
	if (n < 0)
		return n;
	if (n != 1 || !(entry.perm & 3))
		return 0;
	/* this is where another layout of the entry would show */
	if (PAGE_OF(iova) != (entry.iova | (PAGE_OF(iova) & entry.mask)) || entry.mask < PAGE - 1)
		return -EPROTO;
	*addr = (entry.addr & ~entry.mask) | (iova & entry.mask);
	*perm = entry.perm & 3;
	need = access & (PTD_F_READ | PTD_F_WRITE);
	return (*perm & need) == need;
}

static int access_memory(uint64_t addr, void *buffer, uint64_t len, bool write)
{
	return address_space_rw(&address_space_memory, addr, 0, buffer, len, write) ? -EIO : 0;
}

/* ---- the DMA engine ---- */

static int engine_translate(struct device *s, const struct stream *st, uint64_t iova,
			    uint64_t *addr)
{
	uint32_t perm;
	int rc;

	rc = translate(s, s->engine.pasid, st->access, iova, addr, &perm);
	if (rc < 0)
		set_state(s, PTD_STATE_STOPPED_ERROR, PTD_STAGE_ATS, rc, PAGE_OF(iova));
	else
		R(s, rc ? PTD_N_ATS_HIT : PTD_N_ATS_MISS)++;
	return rc;
}

static const struct flight *flight_over(const struct engine *e, const struct stream *st,
					uint64_t page)
{
	unsigned int i;

	for (i = 0; e->flights && i < PTD_CREDITS_MAX; i++) {
		const struct flight *f = &e->flight[i];

		if (f->used && f->stream == st && page >= f->first && page < f->end)
			return f;
	}
	return NULL;
}

/* A group id that no response, however late, can belong to; or -1. */
static int free_group_id(struct device *s)
{
	struct listener *l = find_listener(s, s->engine.pasid);
	unsigned int i;

	for (i = 0; i < PTD_GROUP_IDS; i++) {
		uint16_t id = s->engine.next_id++ % PTD_GROUP_IDS;

		if (!l || (!l->requests[id] && !l->open[id] && !l->stale[id]))
			return id;
	}
	return -1;
}

/* The run of missing pages from first on that one group may ask for. */
static uint64_t group_end(struct device *s, const struct stream *st, uint64_t first)
{
	uint32_t room = free_credits(s), most = s->engine.group < room ? s->engine.group : room;
	uint64_t end = first + PAGE, addr;

	while (end < st->end && end < first + most * PAGE &&
	       !flight_over(&s->engine, st, end) && !engine_translate(s, st, end, &addr))
		end += PAGE;
	return end;
}

static void group_refused(struct device *s, int rc, uint64_t page)
{
	/* a full queue drains: the IOMMU wants the request again later */
	if (rc == -ENOSPC && s->engine.refusals++ < PTD_REFUSALS_MAX)
		run_engine_at(s, REFUSED_WAIT_NS);
	else
		set_state(s, PTD_STATE_STOPPED_ERROR, PTD_STAGE_PRI, rc, page);
}

static int send_pages(struct device *s, const struct stream *st, const struct flight *f)
{
	struct engine *e = &s->engine;
	uint64_t page;
	int rc = 0;

	for (page = f->first; page < f->end && !rc; page += PAGE)
		rc = request_page(s, e->pasid, page,
				  st->access | (page + PAGE == f->end ? PTD_F_LAST : 0), f->id);
	if (rc) {
		struct listener *l = find_listener(s, e->pasid);

		if (l)
			forget_group(l, f->id);
		group_refused(s, rc, f->first);
		return rc;
	}
	e->refusals = 0;
	return 0;
}

/* Ask for first and missing pages behind it; false if that must wait. */
static bool ask(struct device *s, const struct stream *st, uint64_t first)
{
	struct engine *e = &s->engine;
	struct flight *f = e->flight;
	int id;

	if (e->flights >= e->depth)
		return false;
	id = free_credits(s) ? free_group_id(s) : -1;
	if (id < 0) {
		/* with nothing to wait for, nothing will ever change */
		if (!R(s, PTD_OPEN_GROUPS))
			set_state(s, PTD_STATE_STOPPED_ERROR, PTD_STAGE_PRI, -EBUSY, first);
		return false;
	}
	while (f->used)
		f++;
	f->stream = st;
	f->id = id;
	f->first = first;
	f->end = group_end(s, st, first);
	if (!running(s) || send_pages(s, st, f))
		return false;
	f->used = true;
	e->flights++;
	return true;
}

/* The copy is at a page that is missing. */
static void ask_for_stuck(struct device *s, struct stream *st, uint64_t page)
{
	if (st->stuck != page) {
		st->stuck = page;
		st->asks = 0;
	}
	if (st->asks == PTD_ASKS_MAX)
		set_state(s, PTD_STATE_STOPPED_ERROR, PTD_STAGE_RETRY, -EFAULT, page);
	else if (ask(s, st, page))
		st->asks++;
}

/* Look at the pages that depth groups from the copy's place on can hold. */
static void ask_ahead(struct device *s, struct stream *st)
{
	struct engine *e = &s->engine;
	uint64_t page = PAGE_OF(st->base + get64(s, PTD_BYTES)), end, addr;
	uint32_t ahead = e->depth * e->group;

	if (ahead > PTD_CREDITS_MAX)
		ahead = PTD_CREDITS_MAX;
	end = page + ahead * PAGE < st->end ? page + ahead * PAGE : st->end;
	if (st->scan < page)
		st->scan = page;
	while (running(s) && st->scan < end && e->flights < e->depth) {
		const struct flight *f = flight_over(e, st, st->scan);

		if (f)
			st->scan = f->end;
		else if (engine_translate(s, st, st->scan, &addr) == 1)
			st->scan += PAGE;
		else if (!running(s) || !ask(s, st, st->scan))
			break;
	}
}

/*
 * Translate one side of the next chunk: true when the data can move.  A page
 * that was asked for is left alone until the answer, which may be a refusal.
 */
static bool ready(struct device *s, struct stream *st, uint64_t *addr)
{
	uint64_t iova = st->base + get64(s, PTD_BYTES);
	int rc;

	if (!st->on || !running(s))
		return running(s);
	if (flight_over(&s->engine, st, PAGE_OF(iova)))
		return false;
	rc = engine_translate(s, st, iova, addr);
	if (!rc)
		ask_for_stuck(s, st, PAGE_OF(iova));
	return rc == 1;
}

static uint64_t chunk_size(struct device *s)
{
	uint64_t done = get64(s, PTD_BYTES), n = s->engine.length - done;
	const struct stream *side[] = { &s->engine.src, &s->engine.dst };
	unsigned int i;

	for (i = 0; i < 2; i++) {
		uint64_t left = PAGE - ((side[i]->base + done) & (PAGE - 1));

		if (side[i]->on && left < n)
			n = left;
	}
	return n;
}

static void fill_buffer(struct engine *e, uint64_t iova, uint64_t n)
{
	uint64_t i;

	for (i = 0; i < n; i++)
		e->buffer[i] = e->data >> ((iova + i) % 8 * 8);
}

/* Move up to the next page boundary of either side; false: wait or stopped. */
static bool move_chunk(struct device *s)
{
	struct engine *e = &s->engine;
	uint64_t done = get64(s, PTD_BYTES), from, to, n, i, sum = get64(s, PTD_SUM);
	bool src_ready = ready(s, &e->src, &from), dst_ready = ready(s, &e->dst, &to);
	int rc = 0;

	if (!src_ready || !dst_ready)
		return false;
	n = chunk_size(s);
	if (e->src.on)
		rc = access_memory(from, e->buffer, n, false);
	else
		fill_buffer(e, e->dst.base + done, n);
	if (!rc && e->dst.on)
		rc = access_memory(to, e->buffer, n, true);
	if (rc) {
		set_state(s, PTD_STATE_STOPPED_ERROR, PTD_STAGE_DMA, rc,
			  (e->src.on ? e->src.base : e->dst.base) + done);
		return false;
	}
	for (i = 0; i < n; i++)
		sum += e->buffer[i];
	set64(s, PTD_SUM, sum);
	set64(s, PTD_BYTES, done + n);
	R(s, PTD_N_CHUNKS)++;
	return true;
}

static void engine_step(void *opaque)
{
	struct device *s = opaque;
	struct engine *e = &s->engine;
	unsigned int moves = 0;

	while (running(s) && get64(s, PTD_BYTES) < e->length && moves < STEP_CHUNKS &&
	       move_chunk(s))
		moves++;
	if (!running(s))
		return;
	if (get64(s, PTD_BYTES) == e->length) {
		set_state(s, PTD_STATE_DONE, PTD_STAGE_NONE, 0, 0);
		return;
	}
	if (e->src.on)
		ask_ahead(s, &e->src);
	if (e->dst.on && running(s))
		ask_ahead(s, &e->dst);
	if (running(s) && moves == STEP_CHUNKS)
		run_engine_at(s, 0);
}

static bool init_stream(struct stream *st, bool on, uint32_t access, uint64_t base, uint64_t length)
{
	*st = (struct stream){ .on = on, .access = access, .base = base, .stuck = UINT64_MAX };
	if (!on)
		return true;
	if (base > ADDR_MAX || length > ADDR_MAX - base)
		return false;
	st->end = PAGE_OF(base + length - 1) + PAGE;
	return true;
}

static int start_engine(struct device *s, uint32_t pasid)
{
	struct engine *e = &s->engine;
	uint32_t flags = R(s, PTD_FLAGS), group = R(s, PTD_GROUP), depth = R(s, PTD_DEPTH);
	uint64_t length = get64(s, PTD_LENGTH);
	uint16_t next_id = e->next_id;

	if (running(s))
		return -EBUSY;
	if (!length || !group || group > PTD_CREDITS_MAX || !depth || depth > PTD_CREDITS_MAX ||
	    (flags & PTD_F_TOUCH && flags & PTD_F_FILL))
		return -EINVAL;
	*e = (struct engine){
		.pasid = pasid, .group = group, .depth = depth,
		.length = length, .data = get64(s, PTD_DATA), .next_id = next_id,
	};
	if (!init_stream(&e->src, !(flags & PTD_F_FILL), PTD_F_READ, get64(s, PTD_SRC), length) ||
	    !init_stream(&e->dst, !(flags & PTD_F_TOUCH), PTD_F_WRITE, get64(s, PTD_DST), length))
		return -EINVAL;
	set64(s, PTD_BYTES, 0);
	set64(s, PTD_SUM, 0);
	set_state(s, PTD_STATE_RUNNING, PTD_STAGE_NONE, 0, 0);
	run_engine_at(s, 0);
	return 0;
}

/* ---- the other commands ---- */

static int single_request(struct device *s, uint32_t pasid)
{
	if (R(s, PTD_GRPID) >= PTD_GROUP_IDS)
		return -EINVAL;
	return request_page(s, pasid, get64(s, PTD_IOVA), R(s, PTD_FLAGS), R(s, PTD_GRPID));
}

static int burst(struct device *s, uint32_t pasid)
{
	uint32_t flags = R(s, PTD_FLAGS) & ~PTD_F_LAST, group = R(s, PTD_GROUP), i, taken = 0;
	uint32_t count = R(s, PTD_COUNT), id = R(s, PTD_GRPID);
	uint64_t iova = get64(s, PTD_IOVA), stride = get64(s, PTD_STRIDE);

	if (!count || count > PTD_BURST_MAX || !group || group > PTD_CREDITS_MAX ||
	    id >= PTD_GROUP_IDS)
		return -EINVAL;
	if (!(flags & PTD_F_NO_CREDIT) && count > free_credits(s))
		return -EBUSY;
	for (i = 0; i < count; i++, iova += stride) {
		bool last = i % group == group - 1 || i == count - 1;
		uint16_t now = (id + i / group) % PTD_GROUP_IDS;
		struct listener *l;
		int rc;

		rc = request_page(s, pasid, iova,
				  flags | (last && !(flags & PTD_F_NO_LAST) ? PTD_F_LAST : 0), now);
		/* go on past a full queue, as a device that ignores credits would */
		if (rc && rc != -ENOSPC) {
			/* The PASID left amid the burst: this group gets no LAST. */
			l = find_listener(s, pasid);
			if (l)
				forget_group(l, now);
			return rc;
		}
		taken += !rc;
	}
	return taken;
}

static int ats(struct device *s, uint32_t pasid)
{
	uint64_t addr;
	int rc;

	rc = translate(s, pasid, R(s, PTD_FLAGS), get64(s, PTD_IOVA), &addr, &R(s, PTD_ATS_PERM));
	set64(s, PTD_ATS_ADDR, addr);
	return rc > 0 ? 0 : rc ? rc : -EFAULT;
}

static int single_access(struct device *s, uint32_t pasid, bool write)
{
	uint64_t iova = get64(s, PTD_IOVA), addr, data = get64(s, PTD_DATA);
	uint32_t perm;
	int rc;

	if (iova % 8)
		return -EINVAL;
	rc = translate(s, pasid, write ? PTD_F_WRITE : PTD_F_READ, iova, &addr, &perm);
	if (rc <= 0)
		return rc ? rc : -EFAULT;
	rc = access_memory(addr, &data, sizeof(data), write);
	if (!rc)
		set64(s, PTD_DATA, data);
	return rc;
}

static void clear_counters(struct device *s)
{
	memset(&R(s, PTD_N_REQUESTS), 0, PTD_REGISTERS_END - PTD_N_REQUESTS);
	set64(s, PTD_LOWEST, UINT64_MAX);
}

/* A response that still comes is one to a group of before. */
static void forget_requests(struct device *s)
{
	unsigned int i, id;

	for (i = 0; i < PTD_PASIDS_MAX; i++) {
		struct listener *l = &s->listener[i];

		for (id = 0; id < PTD_GROUP_IDS; id++) {
			l->stale[id] += l->open[id];
			l->open[id] = 0;
			l->requests[id] = 0;
		}
	}
	R(s, PTD_OPEN_GROUPS) = 0;
	R(s, PTD_OPEN_REQUESTS) = 0;
}

static void reset(struct device *s)
{
	struct engine *e = &s->engine;

	forget_requests(s);
	memset(s->regs, 0, sizeof(s->regs));
	memset(e->flight, 0, sizeof(e->flight));
	e->flights = 0;
	R(s, PTD_MAGIC) = PTD_MAGIC_VALUE;
	R(s, PTD_VERSION) = PTD_VERSION_VALUE;
	R(s, PTD_GROUP) = 1;
	R(s, PTD_DEPTH) = 1;
	set64(s, PTD_STRIDE, PAGE);
	clear_counters(s);
}

static int command(struct device *s, uint32_t cmd)
{
	uint32_t pasid = R(s, PTD_FLAGS) & PTD_F_PASID ? R(s, PTD_PASID) : NO_PASID;

	if (pasid != NO_PASID && pasid >> 20)
		return -EINVAL;
	switch (cmd) {
	case PTD_CMD_PRI:
		return single_request(s, pasid);
	case PTD_CMD_ATS:
		return ats(s, pasid);
	case PTD_CMD_DMA_READ:
	case PTD_CMD_DMA_WRITE:
		return single_access(s, pasid, cmd == PTD_CMD_DMA_WRITE);
	case PTD_CMD_BURST:
		return burst(s, pasid);
	case PTD_CMD_START:
		return start_engine(s, pasid);
	case PTD_CMD_ABORT:
		if (running(s))
			set_state(s, PTD_STATE_STOPPED_ERROR, PTD_STAGE_ABORT, -ECANCELED, 0);
		return 0;
	case PTD_CMD_CLEAR:
		if (running(s) || R(s, PTD_OPEN_GROUPS))
			return -EBUSY;
		clear_counters(s);
		return 0;
	case PTD_CMD_RESET:
		reset(s);
		return 0;
	}
	return -EINVAL;
}

static uint64_t mmio_read(void *opaque, hwaddr addr, unsigned int size)
{
	struct device *s = opaque;

	(void)size;
	if (addr == PTD_CREDITS)
		return credits(s);
	return addr < PTD_REGISTERS_END ? R(s, addr) : 0;
}

static void mmio_write(void *opaque, hwaddr addr, uint64_t value, unsigned int size)
{
	struct device *s = opaque;
	int rc;

	(void)size;
	if (addr >= PTD_IOVA && addr < PTD_COMMAND) {
		R(s, addr) = value;
	} else if (addr == PTD_COMMAND) {
		rc = command(s, value);
		R(s, PTD_RESULT) = rc;
		say(s, "command %u -> %d", (uint32_t)value, rc);
	}
}

/* ---- getting into QEMU ---- */

static const struct mmio_ops mmio_ops = {
	.read = mmio_read, .write = mmio_write, .endianness = DEVICE_LITTLE_ENDIAN,
	.valid = { .min = 4, .max = 8 }, .impl = { .min = 4, .max = 4 },
};

/* Were the classes and prototypes what they are taken to be? */
static void check_config(PCIDevice *pci)
{
	static const struct { uint32_t at, mask, value; } expected[] = {
		{ 0x00, UINT32_MAX, PTD_DEVICE_ID << 16 | PTD_VENDOR_ID },
		{ 0x08, 0xffff0000, 0x00ff0000 },
		{ CONFIG_ATS, 0xffff, 0x0f },
		{ CONFIG_PASID, 0xffff, 0x1b },
		{ CONFIG_PASID + 4, UINT32_MAX, 20 << 8 },
		{ CONFIG_PRI, 0xffff, 0x13 },
		{ CONFIG_PRI + 8, UINT32_MAX, PTD_CREDITS_MAX },
	};
	size_t i;

	for (i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		uint32_t value = pci_default_read_config(pci, expected[i].at, 4);

		if ((value & expected[i].mask) != expected[i].value)
			refuse("unknown QEMU: config space at %#x reads %#x", expected[i].at,
			       value);
	}
	if (pm && pci_default_read_config(pci, CONFIG_PM, 1) != 0x01)
		refuse("unknown QEMU: no power management");
}

static struct device *newest;

static struct device *find_device(const PCIDevice *pci)
{
	struct device *s = newest;

	while (s->pci != pci)
		s = s->older;
	return s;
}

/* QEMU itself resets the header alone: the capabilities and the function are ours. */
static void lose_state(void *opaque)
{
	struct device *s = opaque;

	pci_default_write_config(s->pci, CONFIG_ATS + 4, 0, 4);
	pci_default_write_config(s->pci, CONFIG_PASID + 4, 20 << 8, 4);
	pci_default_write_config(s->pci, CONFIG_PRI + 4, 0, 2);
	pci_default_write_config(s->pci, CONFIG_PRI + 12, 0, 4);
	s->pri_status = 0;
	s->power = 0;
	s->lost = true;
	reset(s);
	say(s, "reset");
}

/*
 * A machine that wakes is reset, too. Then q35's firmware leaves off what it does at
 * boot: to switch on the extended configuration space and the ports of power
 * management. Without them the guest can neither restore a device nor switch off.
 */
static bool chipset_asleep;

/* At the first access to a device, which the guest makes by the legacy ports. */
static void wake_chipset(void)
{
	PCIDevice *mch, *lpc;

	if (!chipset_asleep)
		return;
	chipset_asleep = false;
	mch = (PCIDevice *)object_resolve_path_type("", "mch", NULL);
	lpc = (PCIDevice *)object_resolve_path_type("", "ICH9-LPC", NULL);
	if (!mch || !lpc)
		return;
	pci_host_config_write_common(mch, 0x60, 0x100, pci_default_read_config(mch, 0x60, 4) | 1,
				     4);
	pci_host_config_write_common(lpc, 0x40, 0x100, 0x601, 4);
	pci_host_config_write_common(lpc, 0x44, 0x100, 0x80, 1);
}

static void system_reset(void *opaque)
{
	lose_state(opaque);
	chipset_asleep = true;
}

static bool touches(uint32_t at, int size, uint32_t first, uint32_t bytes)
{
	return at < first + bytes && first < at + size;
}

/* The bytes of @value, which has its place at @first, that a read or a write has. */
static uint32_t placed(uint32_t value, uint32_t first, uint32_t at)
{
	return first >= at ? value << 8 * (first - at) : value >> 8 * (at - first);
}

static uint32_t config_read(PCIDevice *pci, uint32_t at, int size)
{
	const struct device *s = find_device(pci);
	uint32_t value = pci_default_read_config(pci, at, size);
	uint32_t mask = size < 4 ? (1u << 8 * size) - 1 : UINT32_MAX;

	wake_chipset();
	if (touches(at, size, CONFIG_PRI + 6, 2)) {
		value &= ~placed(PRI_FAILED | PRI_UNEXPECTED | PRI_STOPPED, CONFIG_PRI + 6, at);
		value |= placed(pri_status(s), CONFIG_PRI + 6, at) & mask;
	}
	if (pm && touches(at, size, CONFIG_PM + 4, 1))
		value |= placed(s->power | (pm_keeps ? PM_KEEPS_STATE : 0), CONFIG_PM + 4, at) &
			 mask;
	return value;
}

/* What a write to the PRI capability does beside being stored */
static void control_pri(struct device *s, bool was_on, bool resets, uint16_t cleared)
{
	bool on = pri_on(s);

	s->pri_status &= ~cleared;
	if (resets && !on)
		forget_requests(s);
	if (on && !was_on) {
		R(s, PTD_N_EARLY) += R(s, PTD_OPEN_REQUESTS) && !(s->pri_status & PRI_FAILED);
		s->pri_status = 0;
	}
}

static void set_power(struct device *s, uint8_t power)
{
	bool wakes = in_d3(s) && power != PM_D3HOT;

	say(s, "D%u", power);
	s->power = power;
	if (!wakes || pm_keeps)
		return;
	pci_default_write_config(s->pci, 0x04, 0, 2);
	pci_default_write_config(s->pci, 0x10, 0, 4);
	lose_state(s);
}

static void config_write(PCIDevice *pci, uint32_t at, uint32_t value, int size)
{
	struct device *s = find_device(pci);
	bool was_on = pri_on(s);

	wake_chipset();
	pci_default_write_config(pci, at, value, size);
	if (touches(at, size, CONFIG_PRI + 4, 4))
		control_pri(s, was_on, placed(value, at, CONFIG_PRI + 4) & PRI_RESET,
			    placed(value, at, CONFIG_PRI + 6) & (PRI_FAILED | PRI_UNEXPECTED));
	if (pm && touches(at, size, CONFIG_PM + 4, 1))
		set_power(s, placed(value, at, CONFIG_PM + 4) & PM_STATE);
	if (touches(at, size, CONFIG_ATS + 6, 2) &&
	    pci_default_read_config(pci, CONFIG_ATS + 6, 2) & ATS_ENABLE)
		s->lost = false;
	if (flr && at == CONFIG_EXPRESS + 8 && value & 0x8000) {
		pcie_cap_flr_write_config(pci, at, value, size);
		lose_state(s);
	}
}

static void realize(PCIDevice *pci, void **errp)
{
	static unsigned int instances;
	struct device *s = aligned_alloc(_Alignof(struct device), sizeof(*s));

	(void)errp;
	if (!s)
		refuse("out of memory");
	memset(s, 0, sizeof(*s));
	s->pci = pci;
	s->instance = instances++;
	s->older = newest;
	newest = s;
	reset(s);
	timer_init_full((QEMUTimer *)s->timer, NULL, CLOCK_OF_GUEST, 1, 0, engine_step, s);
	memory_region_init_io((MemoryRegion *)s->mr, (Object *)pci, &mmio_ops, s, "pri-testdev",
			      PTD_BAR_SIZE);
	pci_register_bar(pci, 0, 0, (MemoryRegion *)s->mr);
	pcie_endpoint_cap_init(pci, CONFIG_EXPRESS);
	if (flr)
		pcie_cap_flr_init(pci);
	if (pm)
		pci_pm_init(pci, CONFIG_PM, NULL);
	pcie_ats_init(pci, CONFIG_ATS, true);
	pcie_pasid_init(pci, CONFIG_PASID, 20, false, false);
	pcie_pri_init(pci, CONFIG_PRI, PTD_CREDITS_MAX, true);
	check_config(pci);
	qemu_register_reset(system_reset, s);
	say(s, "realized");
}

static void class_init(ObjectClass *class, const void *data)
{
	struct pci_class_tail *tail = set_class(class, realize, PTD_VENDOR_ID, PTD_DEVICE_ID,
						PTD_VERSION_VALUE);

	(void)data;
	tail->config_read = config_read;
	tail->config_write = config_write;
}

static const struct symbol symbols[] = {
	SYMBOL(address_space_memory),
	SYMBOL(type_register_static),
	SYMBOL(object_class_by_name),
	SYMBOL(pcie_endpoint_cap_init),
	SYMBOL(pci_pm_init),
	SYMBOL(qemu_register_reset),
	SYMBOL(object_resolve_path_type),
	SYMBOL(pci_host_config_write_common),
	SYMBOL(pci_iommu_init_iotlb_notifier),
	SYMBOL(pci_iommu_register_iotlb_notifier),
	SYMBOL(pci_iommu_unregister_iotlb_notifier),
	SYMBOL(pcie_cap_flr_init),
	SYMBOL(pcie_cap_flr_write_config),
	SYMBOL(pcie_ats_init),
	SYMBOL(pcie_pasid_init),
	SYMBOL(pcie_pri_init),
	SYMBOL(pci_register_bar),
	SYMBOL(pci_default_read_config),
	SYMBOL(pci_default_write_config),
	SYMBOL(memory_region_init_io),
	SYMBOL(pci_pri_register_notifier),
	SYMBOL(pci_pri_unregister_notifier),
	SYMBOL(pci_pri_request_page),
	SYMBOL(pci_ats_request_translation),
	SYMBOL(address_space_rw),
	SYMBOL(timer_init_full),
	SYMBOL(timer_mod),
	SYMBOL(qemu_clock_get_ns),
	SYMBOL(qmp_query_version),
};

/*
 * Arguments: debug=on traces to stderr; flr=on adds Function Level Reset, pm=on and
 * pm=keep D3hot; failure=stops has a FAILURE stop page requests; version=X.Y tries out
 * the version check.
 */
__attribute__((visibility("default")))
int qemu_plugin_install(uint64_t id, const struct plugin_info *info, int argc, char **argv)
{
	static const struct interface interfaces[] = { { "pci-express-device" }, { NULL } };
	static const struct type_info type = {
		.name = "pri-testdev", .parent = "pci-device", .class_init = class_init,
		.interfaces = interfaces,
	};
	const char *version = NULL;
	int i;

	(void)id;
	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "version=", 8))
			version = argv[i] + 8;
		else if (!strcmp(argv[i], "debug=on"))
			debug = true;
		else if (!strcmp(argv[i], "flr=on"))
			flr = true;
		else if (!strcmp(argv[i], "pm=on") || !strcmp(argv[i], "pm=keep"))
			pm = true, pm_keeps = !strcmp(argv[i], "pm=keep");
		else if (!strcmp(argv[i], "failure=stops"))
			failure_stops = true;
		else if (strcmp(argv[i], "debug=off") && strcmp(argv[i], "flr=off"))
			refuse("unknown argument %s", argv[i]);
	}
	check_symbols(symbols, sizeof(symbols) / sizeof(symbols[0]));
	check_host(info, "x86_64", "aarch64");
	check_version(version);
	type_register_static(&type);
	return 0;
}
