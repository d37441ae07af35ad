// SPDX-License-Identifier: GPL-2.0-only
/*
 * pri-testdev: translation, access, and the DMA engine, which asks for what is missing
 */
#include "pri-testdev-device.h"

/* ---- translation and access ---- */

int translate(struct device *s, uint32_t pasid, uint32_t access, uint64_t iova,
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

int access_memory(uint64_t addr, void *buffer, uint64_t len, bool write)
{
	return address_space_rw(&address_space_memory, addr, 0, buffer, len, write) ? -EIO : 0;
}

void set_state(struct device *s, uint32_t state, uint32_t stage, int rc, uint64_t addr)
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

void engine_step(void *opaque)
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

int start_engine(struct device *s, uint32_t pasid)
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
