// SPDX-License-Identifier: GPL-2.0-only
/*
 * pri-testdev: a PCIe endpoint with ATS, PASID and PRI for QEMU's emulated
 * VT-d, added to an unmodified qemu-system-x86_64 at run time:
 *
 *	cc -O2 -Wall -Wextra -shared -fPIC -fvisibility=hidden -o pri-testdev.so \
 *		pri-testdev*.c
 *	qemu-system-x86_64 ... -plugin /path/to/pri-testdev.so[,debug=on] \
 *		-device intel-iommu,scalable-mode=on,fsts=on,device-iotlb=on,svm=on,pasid-bits=20 \
 *		-device pri-testdev [-device pri-testdev ...]
 *
 * With the plugin's argument flr=on the devices have Function Level Reset, with pm=on
 * they have D3hot, and lose their state there, with pm=keep they keep it, and with
 * failure=stops a response of that kind ends their page requests, as it should. With
 * vfs=N each has so many virtual functions, and with aer=on it tells its root port of
 * errors that QEMU's monitor injects.
 *
 * pri-testdev.h is its data sheet, and qemu-plugin.h says how a plugin adds a
 * device.  Behind a root port the device can be unplugged. It cannot be migrated.
 */
#include <stdlib.h>
#include <string.h>

#include "pri-testdev-device.h"

bool debug, failure_stops;
static bool flr, pm, pm_keeps, aer;
static unsigned int vfs;
static struct device *newest;

uint32_t awaited(const struct device *s)
{
	uint32_t requests = 0;
	struct device *d;

	for (d = newest; d; d = d->older)
		requests += pri_owner(d) == s ? R(d, PTD_OPEN_REQUESTS) : 0;
	return requests;
}

static uint16_t pri_status(const struct device *s)
{
	bool awaits = awaited(s) && !(s->pri_status & PRI_FAILED);

	return s->pri_status | (pri_on(s) || awaits ? 0 : PRI_STOPPED);
}

/* ---- getting into QEMU ---- */

/* Were the classes and prototypes what they are taken to be? */
static void check_config(PCIDevice *pci, bool is_vf)
{
	const uint32_t id = is_vf ? PTD_VF_DEVICE_ID : PTD_DEVICE_ID;
	const struct { uint32_t at, mask, value; } expected[] = {
		{ 0x00, UINT32_MAX, id << 16 | PTD_VENDOR_ID },
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
	if (pm && !is_vf && pci_default_read_config(pci, CONFIG_PM, 1) != 0x01)
		refuse("unknown QEMU: no power management");
}

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
	uint32_t mute, early;

	pci_default_write_config(s->pci, CONFIG_ATS + 4, 0, 4);
	pci_default_write_config(s->pci, CONFIG_PASID + 4, 20 << 8, 4);
	pci_default_write_config(s->pci, CONFIG_PRI + 4, 0, 2);
	pci_default_write_config(s->pci, CONFIG_PRI + 12, 0, 4);
	s->pri_status = 0;
	s->power = 0;
	s->lost = true;
	/* Mistakes of the driver outlive this. */
	mute = R(s, PTD_N_MUTE);
	early = R(s, PTD_N_EARLY);
	reset(s);
	R(s, PTD_N_MUTE) = mute;
	R(s, PTD_N_EARLY) = early;
	if (vfs && !s->pf)
		pcie_sriov_pf_reset(s->pci);
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

/* Also of the bus, by the port that it is behind */
static void bus_reset(PCIDevice *pci)
{
	lose_state(find_device(pci));
}

static void system_reset(void *opaque)
{
	lose_state(opaque);
	chipset_asleep = true;
}

/* A virtual function has to, or its reset would be that of the slot, with all the others. */
static bool knows_flr(const struct device *s)
{
	return flr || s->pf;
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

/* What a virtual function shows of its configuration: the capability after ATS is the end. */
static uint32_t vf_config_read(PCIDevice *pci, uint32_t at, int size)
{
	uint32_t value = at < CONFIG_PASID ? pci_default_read_config(pci, at, size) : 0;

	if (touches(at, size, CONFIG_ATS, 4))
		value &= ~placed(0xfff00000, CONFIG_ATS, at);
	return value;
}

static uint32_t config_read(PCIDevice *pci, uint32_t at, int size)
{
	const struct device *s = find_device(pci);
	uint32_t value = pci_default_read_config(pci, at, size);
	uint32_t mask = size < 4 ? (1u << 8 * size) - 1 : UINT32_MAX;

	wake_chipset();
	if (s->pf)
		return vf_config_read(pci, at, size);
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
		R(s, PTD_N_EARLY) += awaited(s) && !(s->pri_status & PRI_FAILED);
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
	if (touches(at, size, CONFIG_ATS + 6, 2) &&
	    pci_default_read_config(pci, CONFIG_ATS + 6, 2) & ATS_ENABLE)
		s->lost = false;
	if (knows_flr(s) && at == CONFIG_EXPRESS + 8 && value & 0x8000) {
		pcie_cap_flr_write_config(pci, at, value, size);
		lose_state(s);
	}
	if (s->pf)
		return;
	if (aer)
		pcie_aer_write_config(pci, at, value, size);
	if (touches(at, size, CONFIG_PRI + 4, 4))
		control_pri(s, was_on, placed(value, at, CONFIG_PRI + 4) & PRI_RESET,
			    placed(value, at, CONFIG_PRI + 6) & (PRI_FAILED | PRI_UNEXPECTED));
	if (pm && touches(at, size, CONFIG_PM + 4, 1))
		set_power(s, placed(value, at, CONFIG_PM + 4) & PM_STATE);
}

static void add_aer(PCIDevice *pci)
{
	pcie_cap_deverr_init(pci);
	if (pcie_aer_init(pci, 2, CONFIG_AER, 0x48, NULL) < 0)
		refuse("unknown QEMU: no advanced error reporting");
}

/* Functions 1, 2 and so on of the same device */
static void add_vfs(PCIDevice *pci)
{
	if (!pcie_sriov_pf_init(pci, CONFIG_SRIOV, "pri-testdev-vf", PTD_VF_DEVICE_ID, vfs, vfs,
				1, 1, NULL))
		refuse("unknown QEMU: no virtual functions");
	pcie_sriov_pf_init_vf_bar(pci, 0, 0, PTD_BAR_SIZE);
}

static struct device *new_device(PCIDevice *pci)
{
	static unsigned int instances;
	struct device *s = aligned_alloc(_Alignof(struct device), sizeof(*s));
	PCIDevice *pf = pcie_sriov_get_pf(pci);

	if (!s)
		refuse("out of memory");
	memset(s, 0, sizeof(*s));
	s->pci = pci;
	s->pf = pf ? find_device(pf) : NULL;
	s->instance = instances++;
	s->older = newest;
	newest = s;
	reset(s);
	timer_init_full((QEMUTimer *)s->timer, NULL, CLOCK_OF_GUEST, 1, 0, engine_step, s);
	return s;
}

static void realize(PCIDevice *pci, void **errp)
{
	struct device *s = new_device(pci);

	(void)errp;
	memory_region_init_io((MemoryRegion *)s->mr, (Object *)pci, &mmio_ops, s, "pri-testdev",
			      PTD_BAR_SIZE);
	pci_register_bar(pci, 0, 0, (MemoryRegion *)s->mr);
	pcie_endpoint_cap_init(pci, CONFIG_EXPRESS);
	if (knows_flr(s))
		pcie_cap_flr_init(pci);
	if (pm && !s->pf)
		pci_pm_init(pci, CONFIG_PM, NULL);
	pcie_ats_init(pci, CONFIG_ATS, true);
	pcie_pasid_init(pci, CONFIG_PASID, 20, false, false);
	pcie_pri_init(pci, CONFIG_PRI, PTD_CREDITS_MAX, true);
	check_config(pci, s->pf);
	qemu_register_reset(system_reset, s);
	if (aer && !s->pf)
		add_aer(pci);
	if (vfs && !s->pf)
		add_vfs(pci);
	say(s, "realized");
}

/* Its memory stays: QEMU frees the object, which has a region in there, later. */
static void leave(PCIDevice *pci)
{
	struct device *s = find_device(pci), **link = &newest;

	if (vfs && !s->pf)
		pcie_sriov_pf_exit(pci);
	drop_listeners(s);
	timer_del((QEMUTimer *)s->timer);
	qemu_unregister_reset(system_reset, s);
	if (aer && !s->pf)
		pcie_aer_exit(pci);
	while (*link != s)
		link = &(*link)->older;
	*link = s->older;
	say(s, "unplugged");
}

static void class_init(ObjectClass *class, const void *id)
{
	struct pci_class_tail *tail = set_class(class, realize, PTD_VENDOR_ID, (uintptr_t)id,
						PTD_VERSION_VALUE);

	tail->exit = leave;
	device_class_set_legacy_reset(class, bus_reset);
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
	SYMBOL(qemu_unregister_reset),
	SYMBOL(pcie_sriov_pf_init),
	SYMBOL(pcie_sriov_pf_init_vf_bar),
	SYMBOL(pcie_sriov_pf_exit),
	SYMBOL(pcie_sriov_pf_reset),
	SYMBOL(pcie_sriov_get_pf),
	SYMBOL(pcie_cap_deverr_init),
	SYMBOL(pcie_aer_init),
	SYMBOL(pcie_aer_exit),
	SYMBOL(pcie_aer_write_config),
	SYMBOL(device_class_set_legacy_reset),
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
	SYMBOL(timer_del),
	SYMBOL(timer_mod),
	SYMBOL(qemu_clock_get_ns),
	SYMBOL(qmp_query_version),
};

/*
 * Arguments: debug=on traces to stderr; flr=on adds Function Level Reset, pm=on and
 * pm=keep D3hot; failure=stops has a FAILURE stop page requests; vfs=N adds virtual
 * functions, aer=on error reporting; version=X.Y tries out the version check.
 */
__attribute__((visibility("default")))
int qemu_plugin_install(uint64_t id, const struct plugin_info *info, int argc, char **argv)
{
	static const struct interface interfaces[] = { { "pci-express-device" }, { NULL } };
	static const struct type_info types[] = {
		{ .name = "pri-testdev", .parent = "pci-device", .class_init = class_init,
		  .class_data = (void *)PTD_DEVICE_ID, .interfaces = interfaces },
		{ .name = "pri-testdev-vf", .parent = "pci-device", .class_init = class_init,
		  .class_data = (void *)PTD_VF_DEVICE_ID, .interfaces = interfaces },
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
		else if (!strcmp(argv[i], "aer=on"))
			aer = true;
		else if (sscanf(argv[i], "vfs=%u", &vfs) == 1 && vfs <= VFS_MAX)
			continue;
		else if (strcmp(argv[i], "debug=off") && strcmp(argv[i], "flr=off"))
			refuse("unknown argument %s", argv[i]);
	}
	check_symbols(symbols, sizeof(symbols) / sizeof(symbols[0]));
	check_host(info, "x86_64", "aarch64");
	check_version(version);
	type_register_static(&types[0]);
	type_register_static(&types[1]);
	return 0;
}
