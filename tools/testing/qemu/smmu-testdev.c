// SPDX-License-Identifier: GPL-2.0-only
/*
 * smmu-testdev: stalls and page requests for the SMMUv3 of QEMU's arm64 "virt"
 * machine, added to an unmodified qemu-system-aarch64 at run time:
 *
 *	cc -O2 -Wall -Wextra -shared -fPIC -fvisibility=hidden -o smmu-testdev.so \
 *		smmu-testdev*.c
 *	qemu-system-aarch64 -M virt,iommu=smmuv3 -plugin /path/to/smmu-testdev.so \
 *		-device smmu-testdev [-plugin .../pri-testdev.so -device pri-testdev ...]
 *
 * QEMU's SMMUv3 neither stalls nor has a PRI queue, and knows one context
 * descriptor a stream. Three things change that:
 *
 * - A region over the SMMU's registers. It adds the features to the ID registers,
 *   has the PRI queue's registers itself, and reads the commands that the driver
 *   submits after QEMU's SMMU has executed them: of CMD_RESUME and CMD_PRI_RESP,
 *   which that skips, it does the work.
 * - The PCI bus gets IOMMU callbacks that walk the stream table, the context
 *   descriptors and the page tables of the guest: QEMU's pci-ats and pci-pri
 *   calls, and with them pri-testdev, work as with the emulated VT-d.
 * - A PCI function (smmu-testdev.h is its data sheet) whose accesses go the same
 *   way and stall.
 *
 * Nothing is cached: functions are told of invalidations, which have nothing else to do.
 * Stage 1 with 4 KiB pages only. Differences from the architecture: a page request that finds the
 * queue in overflow is refused to the device, where an SMMU would answer "success".
 *
 * qemu-plugin.h says how a plugin adds a device.
 */
#include "smmu-testdev-device.h"

bool debug;
struct smmu smmu;

static void pulse(int irq)
{
	qemu_irq line = sysbus_get_connected_irq(smmu.object, irq);

	/* IRQ_CTRL: PRI queue is bit 1, event queue is bit 2 */
	if (!(smmu_get(IRQ_CTRL, 4) & (irq == PRIQ_IRQ ? 2 : 4)))
		return;
	qemu_set_irq(line, 1);
	qemu_set_irq(line, 0);
}

/* ---- tables: 5.2 stream table entry, 5.4 context descriptor ---- */

bool find_ste(int sid, uint64_t ste[8])
{
	uint64_t base = smmu_get(STRTAB_BASE, 8) & 0xfffffffffffc0ull, l1;
	uint32_t cfg = smmu_get(STRTAB_BASE_CFG, 4);
	int split = bits(cfg, 10, 6);

	if (!(smmu_get(CR0, 4) & CR0_SMMUEN))
		return false;
	if (bits(cfg, 17, 16) == 1) {
		if (!memory(base + (sid >> split) * 8, &l1, 8, false) || !bits(l1, 4, 0))
			return false;
		base = l1 & 0xfffffffffffc0ull;
		sid &= (1 << split) - 1;
	}
	return memory(base + sid * 64, ste, 64, false) && ste[0] & 1;
}

static bool find_cd(const uint64_t ste[8], uint32_t pasid, uint64_t cd[8])
{
	uint32_t ssid = pasid == NO_PASID ? 0 : pasid;

	if (bits(ste[0], 3, 1) != 5 || bits(ste[0], 5, 4))	/* stage 1, linear table */
		return false;
	if (ssid >> bits(ste[0], 63, 59))
		return false;
	/* without a PASID: descriptor 0 if there is just that one, or S1DSS says so */
	if (pasid == NO_PASID && bits(ste[0], 63, 59) && bits(ste[1], 1, 0) != 2)
		return false;
	if (pasid != NO_PASID && !ssid && bits(ste[1], 1, 0) == 2)
		return false;
	return memory((ste[0] & 0xfffffffffffc0ull) + ssid * 64ull, cd, 64, false) &&
	       cd[0] & 1ull << 31;
}

static bool walk(const uint64_t cd[8], uint64_t iova, struct translation *t)
{
	int width = 64 - bits(cd[0], 5, 0), level, shift;
	uint64_t table = cd[1] & 0xffffffffff000ull, entry;

	if (bits(cd[0], 7, 6) || iova >> width)		/* 4 KiB granule */
		return false;
	for (level = 3 - (width - 13) / 9; level <= 3; level++) {
		shift = 12 + 9 * (3 - level);
		if (!memory(table + ((iova >> shift) & 511) * 8, &entry, 8, false) || !(entry & 1))
			return false;
		table = entry & 0xfffffffff000ull;
		if (level == 3 ? !(entry & 2) : false)
			return false;
		if (level == 3 || !(entry & 2)) {
			t->addr = (table & ~((1ull << shift) - 1)) | (iova & ((1ull << shift) - 1));
			t->readable = true;
			t->writable = !(entry & 1ull << 7);
			return true;
		}
	}
	return false;
}

bool translate(int sid, uint32_t pasid, uint64_t iova, struct translation *t)
{
	uint64_t ste[8], cd[8];

	memset(t, 0, sizeof(*t));
	if (!find_ste(sid, ste))
		return false;
	t->ats = bits(ste[1], 29, 28) == 1;
	if (!find_cd(ste, pasid, cd))
		return false;
	t->stalls = cd[0] & 1ull << 44 && !(ste[1] & 1ull << 27);
	walk(cd, iova, t);
	return true;
}

/* ---- queues that the SMMU writes: 3.5, 7, 8 ---- */

static bool queue_put(uint64_t base, uint32_t *prod, uint32_t cons, const void *entry, int size)
{
	int shift = bits(base, 4, 0);
	uint32_t mask = (2u << shift) - 1, index = *prod & (mask >> 1);

	if (((*prod - cons) & mask) == 1u << shift)
		return false;
	memory((base & 0xfffffffffffe0ull) + (uint64_t)index * size, (void *)(uintptr_t)entry, size,
	       true);
	*prod = ((*prod + 1) & mask) | (*prod & OVERFLOW);
	return true;
}

static bool put_event(const uint64_t event[4])
{
	uint32_t prod = smmu_get(EVENTQ_PROD, 4);

	if (!(smmu_get(CR0, 4) & CR0_EVENTQEN) ||
	    !queue_put(smmu_get(EVENTQ_BASE, 8), &prod, smmu_get(EVENTQ_CONS, 4), event, 32))
		return false;
	smmu_set(EVENTQ_PROD, prod, 4);
	pulse(EVENTQ_IRQ);
	return true;
}

bool put_page_request(const uint64_t request[2])
{
	uint32_t *prod = priq(PRIQ_PROD), cons = *priq(PRIQ_CONS);
	uint64_t base = *priq(PRIQ_BASE) | (uint64_t)*priq(PRIQ_BASE + 4) << 32;

	if ((*prod ^ cons) & OVERFLOW)
		return false;
	if (!queue_put(base, prod, cons, request, 16)) {
		*prod ^= OVERFLOW;
		pulse(PRIQ_IRQ);
		return false;
	}
	pulse(PRIQ_IRQ);
	return true;
}

/* ---- the function that stalls ---- */

struct slot {
	enum std_state state;
	struct access access;
	uint64_t data;
	uint16_t tag;
};

static struct device {
	_Alignas(64) uint8_t mr[4096];
	PCIDevice *pci;
	uint32_t regs[STD_REGISTERS_END / 4];
	struct slot slot[STD_SLOTS];
	uint16_t next_tag;
} device;

#define R(reg) (device.regs[(reg) / 4])

static void set_slot(struct slot *slot, enum std_state state)
{
	if (slot->state == STD_STATE_STALLED)
		R(STD_STALLED)--;
	if (state == STD_STATE_STALLED)
		R(STD_STALLED)++;
	slot->state = state;
}

static bool stall(struct slot *slot)
{
	const struct access *a = &slot->access;
	uint64_t event[4] = {
		F_TRANSLATION | (uint64_t)a->sid << 32,
		1ull << 31 | (a->priv ? 1ull << 33 : 0) | (a->exec ? 1ull << 34 : 0) |
			(a->write ? 0 : 1ull << 35) | 2ull << 40,
		a->iova,
	};

	slot->tag = device.next_tag++;
	event[1] |= slot->tag;
	if (a->pasid != NO_PASID)
		event[0] |= 1ull << 11 | (uint64_t)a->pasid << 12;
	if (!put_event(event))
		return false;
	R(STD_N_STALLS)++;
	return true;
}

static void try_access(struct slot *slot)
{
	const struct access *a = &slot->access;
	enum std_state state = STD_STATE_TERMINATED;
	struct translation t;

	if (!translate(a->sid, a->pasid, a->iova, &t))
		state = STD_STATE_TERMINATED;
	else if (t.readable && (t.writable || !a->write) &&
		 memory(t.addr, &slot->data, 8, a->write))
		state = STD_STATE_DONE;
	else if (t.stalls && stall(slot))
		state = STD_STATE_STALLED;
	say("access pasid=%#x iova=%#llx write=%d -> %d tag %u", a->pasid,
	    (unsigned long long)a->iova, a->write, state, slot->tag);
	set_slot(slot, state);
}

static void resume(int sid, uint16_t tag, bool retry)
{
	unsigned int i;

	for (i = 0; i < STD_SLOTS; i++) {
		struct slot *slot = &device.slot[i];

		if (slot->state != STD_STATE_STALLED || slot->tag != tag ||
		    slot->access.sid != sid)
			continue;
		R(retry ? STD_N_RETRY : STD_N_ABORT)++;
		if (retry)
			try_access(slot);
		else
			set_slot(slot, STD_STATE_ABORTED);
		return;
	}
	R(STD_N_UNMATCHED)++;
}

static void start_access(uint32_t number)
{
	struct slot *slot = &device.slot[number];

	if (number >= STD_SLOTS || slot->state == STD_STATE_STALLED)
		return;
	/* bus mastering */
	if (!(pci_default_read_config(device.pci, 4, 2) & 4))
		return;
	slot->access = (struct access) {
		.sid = pci_requester_id(device.pci),
		.pasid = R(STD_FLAGS) & STD_F_PASID ? R(STD_PASID) : NO_PASID,
		.iova = R(STD_IOVA) | (uint64_t)R(STD_IOVA + 4) << 32,
		.write = R(STD_FLAGS) & STD_F_WRITE,
		.exec = R(STD_FLAGS) & STD_F_EXEC,
		.priv = R(STD_FLAGS) & STD_F_PRIV,
	};
	slot->data = slot->access.write ? R(STD_DATA) | (uint64_t)R(STD_DATA + 4) << 32 : 0;
	R(STD_N_ACCESSES)++;
	try_access(slot);
}

static uint64_t device_read(void *opaque, hwaddr addr, unsigned int size)
{
	unsigned int n = (addr - STD_SLOT) / 16;

	(void)opaque;
	(void)size;
	if (addr < STD_REGISTERS_END)
		return R(addr);
	if (addr < STD_SLOT || n >= STD_SLOTS)
		return 0;
	switch (addr % 16) {
	case STD_SLOT_STATE:
		return device.slot[n].state;
	case STD_SLOT_DATA:
		return (uint32_t)device.slot[n].data;
	case STD_SLOT_DATA + 4:
		return device.slot[n].data >> 32;
	}
	return 0;
}

static void device_write(void *opaque, hwaddr addr, uint64_t value, unsigned int size)
{
	(void)opaque;
	(void)size;
	if (addr >= STD_IOVA && addr < STD_ACCESS)
		R(addr) = value;
	else if (addr == STD_ACCESS)
		start_access(value);
}

/* ---- the driver's commands and registers ---- */

/* What QEMU's SMMU has consumed of the command queue */
static void read_commands(uint32_t from, uint32_t to)
{
	uint64_t base = smmu_get(CMDQ_BASE, 8), cmd[2];
	int shift = bits(base, 4, 0);
	uint32_t mask = (2u << shift) - 1;

	for (; ((to - from) & mask) != 0; from++) {
		if (!memory((base & 0xfffffffffffe0ull) + (from & (mask >> 1)) * 16ull, cmd, 16,
			    false))
			continue;
		if (bits(cmd[0], 7, 0) == CMD_RESUME)
			resume(cmd[0] >> 32, bits(cmd[1], 15, 0), bits(cmd[0], 12, 12));
		else if (bits(cmd[0], 7, 0) == CMD_PRI_RESP)
			pri_response(cmd);
		else if (bits(cmd[0], 7, 0) == CMD_ATC_INV)
			atc_invalidation(cmd);
	}
}

static uint64_t over_read(void *opaque, hwaddr addr, unsigned int size)
{
	hwaddr at = addr & ~0x10000ull;		/* page 1 shows the same registers */
	uint64_t value;

	(void)opaque;
	if (at >= PRIQ_BASE && at < PRIQ_END)
		return *priq(at) | (size == 8 ? (uint64_t)*priq(at + 4) << 32 : 0);

	value = smmu_get(addr, size);
	switch (at) {
	case IDR0:
		return (value & ~(uint64_t)IDR0_STALL_MODEL) | IDR0_ADDED;
	case IDR1:
		return value | SSID_BITS << 6 | PRIQ_SHIFT << 11;
	case IDR5:
		return value | STD_SLOTS << 16;
	}
	return value;
}

static void over_write(void *opaque, hwaddr addr, uint64_t value, unsigned int size)
{
	hwaddr at = addr & ~0x10000ull;
	uint32_t before;

	(void)opaque;
	if (at >= PRIQ_BASE && at < PRIQ_END) {
		*priq(at) = value;
		if (size == 8)
			*priq(at + 4) = value >> 32;
		return;
	}
	before = at == CMDQ_PROD ? smmu_get(CMDQ_PROD, 4) : 0;
	smmu_set(addr, value, size);
	if (at == CMDQ_PROD && smmu_get(CR0, 4) & 8)
		read_commands(before, value);
}

/* ---- getting into QEMU ---- */

static const struct mmio_ops over_ops = {
	.read = over_read, .write = over_write, .endianness = DEVICE_LITTLE_ENDIAN,
	.valid = { .min = 4, .max = 8 }, .impl = { .min = 4, .max = 8 },
};

static const struct mmio_ops device_ops = {
	.read = device_read, .write = device_write, .endianness = DEVICE_LITTLE_ENDIAN,
	.valid = { .min = 4, .max = 8 }, .impl = { .min = 4, .max = 4 },
};

static void check_config(PCIDevice *pci)
{
	if (pci_default_read_config(pci, 0, 4) != ((uint32_t)STD_DEVICE_ID << 16 | STD_VENDOR_ID) ||
	    (pci_default_read_config(pci, 0x100, 4) & 0xffff) != 0x1b)
		refuse("unknown QEMU: config space does not read as expected");
}

/* The host bridge's node says that the root complex does ATS; else nobody enables it. */
static void allow_ats(void)
{
	uint32_t *fdt = *(uint32_t **)((char *)current_machine + MACHINE_FDT);

	if (!fdt || *fdt != FDT_MAGIC)
		refuse("unknown QEMU: no device tree where it should be");
	qemu_fdt_setprop(fdt, "/pcie@10000000", "ats-supported", NULL, 0);
}

static void take_smmu(Object *owner, PCIDevice *pci)
{
	smmu.object = object_resolve_path_type("", "arm-smmuv3", NULL);
	if (!smmu.object)
		refuse("no SMMUv3: use -M virt,iommu=smmuv3");
	smmu.registers = sysbus_mmio_get_region(smmu.object, 0);
	/* stage 1 and the queues of an SMMU, or this is something else */
	if (!(smmu_get(IDR0, 4) & 2) || !bits(smmu_get(IDR1, 4), 20, 16))
		refuse("unknown QEMU: the SMMU's registers do not read as expected");
	memory_region_init_io((MemoryRegion *)smmu.over, owner, &over_ops, NULL, "smmu-testdev",
			      SMMU_SIZE);
	memory_region_add_subregion_overlap(smmu.registers, 0, (MemoryRegion *)smmu.over, 1);
	pci_setup_iommu(pci_device_root_bus(pci), &iommu_ops, NULL);
	allow_ats();
}

static void realize(PCIDevice *pci, void **errp)
{
	(void)errp;
	if (device.pci)
		refuse("one device is all there can be");
	device.pci = pci;
	R(STD_MAGIC) = STD_MAGIC_VALUE;
	take_smmu((Object *)pci, pci);
	memory_region_init_io((MemoryRegion *)device.mr, (Object *)pci, &device_ops, NULL,
			      "smmu-testdev", STD_BAR_SIZE);
	pci_register_bar(pci, 0, 0, (MemoryRegion *)device.mr);
	pcie_endpoint_cap_init(pci, 0x60);
	pcie_pasid_init(pci, 0x100, SSID_BITS, false, false);
	check_config(pci);
	say("realized");
}

static void class_init(ObjectClass *class, const void *data)
{
	(void)data;
	set_class(class, realize, STD_VENDOR_ID, STD_DEVICE_ID, STD_REVISION);
}

static const struct symbol symbols[] = {
	SYMBOL(address_space_memory),
	SYMBOL(current_machine),
	SYMBOL(type_register_static),
	SYMBOL(object_class_by_name),
	SYMBOL(object_resolve_path_type),
	SYMBOL(pcie_endpoint_cap_init),
	SYMBOL(pcie_pasid_init),
	SYMBOL(pci_register_bar),
	SYMBOL(pci_default_read_config),
	SYMBOL(pci_requester_id),
	SYMBOL(pci_device_root_bus),
	SYMBOL(pci_bus_num),
	SYMBOL(pci_setup_iommu),
	SYMBOL(memory_region_init_io),
	SYMBOL(memory_region_add_subregion_overlap),
	SYMBOL(memory_region_dispatch_read),
	SYMBOL(memory_region_dispatch_write),
	SYMBOL(sysbus_mmio_get_region),
	SYMBOL(sysbus_get_connected_irq),
	SYMBOL(qemu_set_irq),
	SYMBOL(address_space_rw),
	SYMBOL(qemu_fdt_setprop),
	SYMBOL(qmp_query_version),
};

/* Arguments: debug=on traces to stderr. */
__attribute__((visibility("default")))
int qemu_plugin_install(uint64_t id, const struct plugin_info *info, int argc, char **argv)
{
	static const struct interface interfaces[] = { { "pci-express-device" }, { NULL } };
	static const struct type_info type = {
		.name = "smmu-testdev", .parent = "pci-device", .class_init = class_init,
		.interfaces = interfaces,
	};
	int i;

	(void)id;
	for (i = 0; i < argc; i++) {
		if (!strcmp(argv[i], "debug=on"))
			debug = true;
		else if (strcmp(argv[i], "debug=off"))
			refuse("unknown argument %s", argv[i]);
	}
	check_symbols(symbols, sizeof(symbols) / sizeof(symbols[0]));
	check_host(info, "aarch64", NULL);
	check_version(NULL);
	type_register_static(&type);
	return 0;
}
