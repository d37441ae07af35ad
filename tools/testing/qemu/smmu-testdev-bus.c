// SPDX-License-Identifier: GPL-2.0-only
/*
 * smmu-testdev: ATS and PRI of PCI functions, as QEMU has them ask their IOMMU, and the
 * SMMU's commands that answer. The stream id is the number of bus, device and function.
 */
#include "smmu-testdev-device.h"

static int stream(PCIBus *bus, int devfn)
{
	return pci_bus_num(bus) << 8 | devfn;
}

static AddressSpace *bus_address_space(PCIBus *bus, void *opaque, int devfn)
{
	(void)bus;
	(void)opaque;
	(void)devfn;
	return &address_space_memory;
}

static ssize_t bus_ats(PCIBus *bus, void *opaque, int devfn, uint32_t pasid, bool priv, bool exec,
		       hwaddr addr, size_t length, bool no_write, struct iotlb_entry *result,
		       size_t max, uint32_t *errors)
{
	struct translation t;

	(void)opaque;
	(void)priv;
	(void)exec;
	(void)length;
	(void)no_write;
	if (!max)
		return -ENOMEM;
	*errors = 0;
	*result = (struct iotlb_entry) {
		.target = &address_space_memory, .iova = addr & ~(PAGE - 1), .mask = PAGE - 1,
		.pasid = pasid,
	};
	if (translate(stream(bus, devfn), pasid, addr, &t) && t.ats && t.readable) {
		result->addr = t.addr & ~(PAGE - 1);
		result->perm = 1 | (t.writable ? 2 : 0);
	} else {
		*errors = 1;
	}
	return 1;
}

static struct listener *find_listener(int sid, uint32_t pasid)
{
	unsigned int i;

	for (i = 0; i < LISTENERS; i++) {
		if (smmu.listener[i].notifier && smmu.listener[i].sid == sid &&
		    smmu.listener[i].pasid == pasid)
			return &smmu.listener[i];
	}
	return NULL;
}

static void bus_pri_register(PCIBus *bus, void *opaque, int devfn, uint32_t pasid,
			     struct pri_notifier *n)
{
	struct listener *l = find_listener(stream(bus, devfn), pasid);
	unsigned int i;

	(void)opaque;
	for (i = 0; i < LISTENERS && !l; i++) {
		if (!smmu.listener[i].notifier)
			l = &smmu.listener[i];
	}
	if (l)
		*l = (struct listener) { .notifier = n, .sid = stream(bus, devfn), .pasid = pasid };
}

static void bus_pri_unregister(PCIBus *bus, void *opaque, int devfn, uint32_t pasid)
{
	struct listener *l = find_listener(stream(bus, devfn), pasid);

	(void)opaque;
	if (l)
		l->notifier = NULL;
}

static int bus_pri_request(PCIBus *bus, void *opaque, int devfn, uint32_t pasid, bool priv,
			   bool exec, hwaddr addr, bool last, uint16_t group_id, bool read,
			   bool write)
{
	const uint32_t enabled = CR0_SMMUEN | CR0_PRIQEN;
	uint64_t ste[8], request[2] = {
		stream(bus, devfn) | (priv ? 1ull << 58 : 0) | (exec ? 1ull << 59 : 0) |
			(read ? 1ull << 60 : 0) | (write ? 1ull << 61 : 0) |
			(last ? 1ull << 62 : 0),
		(addr & ~(PAGE - 1)) | group_id,
	};

	(void)opaque;
	/* 8.2: without ATS in the STE a request is denied */
	if ((smmu_get(CR0, 4) & enabled) != enabled || !find_ste(stream(bus, devfn), ste) ||
	    bits(ste[1], 29, 28) != 1)
		return -EPERM;
	if (pasid != NO_PASID)
		request[0] |= 1ull << 63 | (uint64_t)pasid << 32;
	return put_page_request(request) ? 0 : -ENOSPC;
}

/* ---- invalidations of what a function has cached ---- */

static struct watcher *find_watcher(const void *notifier)
{
	unsigned int i;

	for (i = 0; i < LISTENERS; i++) {
		if (smmu.watcher[i].notifier == notifier)
			return &smmu.watcher[i];
	}
	return NULL;
}

static void bus_init_watcher(PCIBus *bus, void *opaque, int devfn, void *notifier,
			     void (*notify)(void *notifier, void *entry), void *data)
{
	struct watcher *w = find_watcher(notifier);

	(void)opaque;
	(void)data;
	if (!w)
		w = find_watcher(NULL);
	if (w)
		*w = (struct watcher) { .notifier = notifier, .notify = notify,
					.sid = stream(bus, devfn) };
}

static void bus_watch(PCIBus *bus, void *opaque, int devfn, uint32_t pasid, void *notifier)
{
	struct watcher *w = find_watcher(notifier);

	(void)bus;
	(void)opaque;
	(void)devfn;
	if (w) {
		w->pasid = pasid;
		w->told = true;
	}
}

static void bus_unwatch(PCIBus *bus, void *opaque, int devfn, uint32_t pasid, void *notifier)
{
	struct watcher *w = find_watcher(notifier);

	(void)bus;
	(void)opaque;
	(void)devfn;
	(void)pasid;
	if (w)
		w->notifier = NULL;
}

/* CMD_ATC_INV (4.5.1): without a PASID it concerns what was cached with one, too. */
void atc_invalidation(const uint64_t cmd[2])
{
	bool all = !(cmd[0] & 1ull << 11) || cmd[0] & 1ull << 9;
	unsigned int i;

	say("CMD_ATC_INV %016llx %016llx", (unsigned long long)cmd[0],
	    (unsigned long long)cmd[1]);
	for (i = 0; i < LISTENERS; i++) {
		struct watcher *w = &smmu.watcher[i];

		if (w->notifier && w->told && w->sid == (int)bits(cmd[0], 63, 32) &&
		    (all || w->pasid == bits(cmd[0], 31, 12)))
			w->notify(w->notifier, NULL);
	}
}

const struct iommu_ops iommu_ops = {
	.get_address_space = bus_address_space,
	.init_iotlb_notifier = bus_init_watcher,
	.register_iotlb_notifier = bus_watch,
	.unregister_iotlb_notifier = bus_unwatch,
	.ats_request = bus_ats,
	.pri_register = bus_pri_register,
	.pri_unregister = bus_pri_unregister,
	.pri_request = bus_pri_request,
};

/* ---- commands of the driver ---- */

void pri_response(const uint64_t cmd[2])
{
	/* ResponseFailure, InvalidRequest, Success; IOMMUPRIResponseCode */
	static const int codes[] = { 2, 1, 0, 2 };
	struct pri_response response = {
		.code = codes[bits(cmd[1], 13, 12)], .group_id = bits(cmd[1], 8, 0),
	};
	uint32_t pasid = cmd[0] & 1ull << 11 ? bits(cmd[0], 31, 12) : NO_PASID;
	struct listener *l = find_listener(bits(cmd[0], 63, 32), pasid);

	say("CMD_PRI_RESP %016llx %016llx", (unsigned long long)cmd[0],
	    (unsigned long long)cmd[1]);
	if (l)
		l->notifier->notify(l->notifier, &response);
}
