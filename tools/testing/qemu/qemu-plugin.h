/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a PCI device is added to an unmodified QEMU by a plugin, and what that relies
 * on of QEMU's inside. For the plugins here, and vmm-prq.c, which define PLUGIN_NAME.
 *
 * No QEMU headers are used, only functions that the executable exports and the
 * declarations here and in the plugins, so each of them is checked as far as a check
 * can reach. A QEMU that does not match gets one line on stderr and exit status 3; one
 * that has another plugin API says so itself and exits with 1.
 */
#ifndef QEMU_PLUGIN_H
#define QEMU_PLUGIN_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXIT_UNKNOWN_QEMU	3
#define QEMU_MAJOR		11	/* the major release this was written for, */
#define QEMU_MINOR		1	/* from this minor release on */
#define PLUGIN_API		7
#define DEVICE_LITTLE_ENDIAN	2
#define NO_PASID		UINT32_MAX

typedef struct Object Object;
typedef struct ObjectClass ObjectClass;
typedef struct PCIDevice PCIDevice;
typedef struct MemoryRegion MemoryRegion;
typedef struct AddressSpace AddressSpace;
typedef uint64_t hwaddr;

struct type_info {
	const char *name, *parent;
	size_t instance_size, instance_align;	/* 0: as the parent's */
	void (*instance_init)(Object *obj);
	void (*instance_post_init)(Object *obj);
	void (*instance_finalize)(Object *obj);
	bool abstract;
	size_t class_size;			/* 0: as the parent's */
	void (*class_init)(ObjectClass *klass, const void *data);
	void (*class_base_init)(ObjectClass *klass, const void *data);
	const void *class_data;
	const struct interface { const char *type; } *interfaces;
};

struct mmio_ops {
	uint64_t (*read)(void *opaque, hwaddr addr, unsigned int size);
	void (*write)(void *opaque, hwaddr addr, uint64_t value, unsigned int size);
	void *read_with_attrs, *write_with_attrs;
	int endianness;
	struct { unsigned int min, max; bool unaligned; void *accepts; } valid;
	struct { unsigned int min, max; bool unaligned; } impl;
};

/* PCIDeviceClass after its DeviceClass; where that ends is found at run time */
struct pci_class_tail {
	void (*realize)(PCIDevice *dev, void **errp);
	void (*exit)(PCIDevice *dev);
	uint32_t (*config_read)(PCIDevice *dev, uint32_t at, int size);
	void (*config_write)(PCIDevice *dev, uint32_t at, uint32_t value, int size);
	uint16_t vendor_id, device_id;
	uint8_t revision;
	uint16_t class_id, subsystem_vendor_id, subsystem_id;
};

struct pri_response { int code; uint16_t group_id; };
struct pri_notifier { void (*notify)(struct pri_notifier *n, struct pri_response *response); };

struct version_info {
	const struct { int64_t major, minor, micro; } *qemu;
	const char *package;
};

struct plugin_info {
	const char *target;
	struct { int min, cur; } version;
	bool system_emulation;
};

/* Weak, so that check_symbols() can name the one that is missing. */
#define WEAK __attribute__((weak))
extern AddressSpace address_space_memory WEAK;
WEAK void *type_register_static(const struct type_info *info);
WEAK ObjectClass *object_class_by_name(const char *name);
WEAK int pcie_endpoint_cap_init(PCIDevice *dev, uint8_t at);
WEAK void pcie_pasid_init(PCIDevice *dev, uint16_t at, uint8_t width, bool exec, bool priv);
WEAK void pci_register_bar(PCIDevice *dev, int bar, uint8_t type, MemoryRegion *mr);
WEAK uint32_t pci_default_read_config(PCIDevice *dev, uint32_t at, int size);
WEAK void memory_region_init_io(MemoryRegion *mr, Object *owner, const struct mmio_ops *ops,
				void *opaque, const char *name, uint64_t size);
WEAK uint32_t address_space_rw(AddressSpace *as, hwaddr addr, uint64_t attrs, void *buffer,
			       hwaddr size, bool write);
WEAK const struct version_info *qmp_query_version(void **errp);

static inline void __attribute__((noreturn, format(printf, 1, 2))) refuse(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs(PLUGIN_NAME ": ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	fflush(stderr);
	_exit(EXIT_UNKNOWN_QEMU);
}

/* Where an initialised class has the ids of a stock device: once, or it is no use. */
static inline ptrdiff_t find_ids(const char *type, uint16_t vendor, uint16_t device)
{
	const uint8_t *class = (const uint8_t *)object_class_by_name(type);
	ptrdiff_t i, at = -1;

	for (i = 0; class && i < 480; i += 2) {
		if (memcmp(class + i, &vendor, 2) || memcmp(class + i + 2, &device, 2))
			continue;
		if (at >= 0)
			return -1;
		at = i;
	}
	return at;
}

/* Make an initialised class that of the device. */
static inline struct pci_class_tail *set_class(ObjectClass *class,
					       void (*realize)(PCIDevice *pci, void **errp),
					       uint16_t vendor, uint16_t device,
					       uint8_t revision)
{
	const ptrdiff_t ids = offsetof(struct pci_class_tail, vendor_id);
	ptrdiff_t at = find_ids("edu", 0x1234, 0x11e8);
	struct pci_class_tail *tail;

	if (at < ids || at != find_ids("pci-testdev", 0x1b36, 0x0005))
		refuse("unknown QEMU: PCIDeviceClass not recognised");
	tail = (void *)((uint8_t *)class + at - ids);
	tail->realize = realize;
	tail->vendor_id = vendor;
	tail->device_id = device;
	tail->revision = revision;
	tail->class_id = 0x00ff;
	return tail;
}

struct symbol {
	const char *name;
	const void *addr;
};

#define SYMBOL(name) { #name, (const void *)(uintptr_t)&(name) }

static inline void check_symbols(const struct symbol *symbols, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (!symbols[i].addr)
			refuse("unknown QEMU: it does not export %s", symbols[i].name);
	}
}

/* @pretended, for tests: a version to check instead of QEMU's own */
static inline void check_version(const char *pretended)
{
	const struct version_info *v = qmp_query_version(NULL);
	int major = v->qemu->major, minor = v->qemu->minor;

	if (pretended && sscanf(pretended, "%d.%d", &major, &minor) != 2)
		refuse("version=%s: a number like 11.1 is wanted", pretended);
	if (major != QEMU_MAJOR || minor < QEMU_MINOR)
		refuse("unknown QEMU: version %d.%d, wanted %d.%d or a later %d.x", major, minor,
		       QEMU_MAJOR, QEMU_MINOR, QEMU_MAJOR);
}

/* The plugin is for @target, and for @other if that is not NULL. */
static inline void check_host(const struct plugin_info *info, const char *target,
			      const char *other)
{
	if (info->version.cur < PLUGIN_API || info->version.min > PLUGIN_API ||
	    !info->system_emulation ||
	    (strcmp(info->target, target) && (!other || strcmp(info->target, other))))
		refuse("unknown QEMU: wanted is a system emulation of %s%s%s with plugin API %d",
		       target, other ? " or " : "", other ? other : "", PLUGIN_API);
}

/* Weak: each file of a plugin that has several brings it. */
__attribute__((visibility("default"), weak)) int qemu_plugin_version = PLUGIN_API;

#endif
