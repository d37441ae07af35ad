// SPDX-License-Identifier: GPL-2.0-only
/*
 * pri-testdev: page requests, and who is told of their responses
 */
#include "pri-testdev-device.h"

/* Give up requests whose LAST never got out: nobody will answer them. */
void forget_group(struct listener *l, uint16_t id)
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
		pri_owner(s)->pri_status |= PRI_FAILED;
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
		pri_owner(s)->pri_status |= PRI_UNEXPECTED;
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

struct listener *find_listener(struct device *s, uint32_t pasid)
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

void drop_listeners(struct device *s)
{
	unsigned int i;

	for (i = 0; i < PTD_PASIDS_MAX; i++) {
		if (s->listener[i].used)
			drop_listener(&s->listener[i]);
	}
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

int request_page(struct device *s, uint32_t pasid, uint64_t iova, uint32_t flags,
		 uint16_t id)
{
	struct listener *l;
	int rc;

	rc = mute(s) || (failure_stops && pri_owner(s)->pri_status & PRI_FAILED) ? -EPERM :
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

uint32_t credits(struct device *s)
{
	uint32_t allowed = pci_default_read_config(pri_owner(s)->pci, CONFIG_PRI + 0x0c, 4);

	return allowed < PTD_CREDITS_MAX ? allowed : PTD_CREDITS_MAX;
}

uint32_t free_credits(struct device *s)
{
	uint32_t all = credits(s), used = awaited(pri_owner(s));

	return used < all ? all - used : 0;
}

void forget_requests(struct device *s)
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
