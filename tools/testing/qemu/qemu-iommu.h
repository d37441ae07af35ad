/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How an IOMMU is reached in an unmodified QEMU, and what that relies on of its inside.
 * For smmu-testdev.c, vtd-nest.c and vmm-prq.c, beside qemu-plugin.h.
 */
#ifndef QEMU_IOMMU_H
#define QEMU_IOMMU_H

#include <sys/types.h>

#include "qemu-plugin.h"

typedef struct PCIBus PCIBus;

struct iotlb_entry {
	AddressSpace *target;
	hwaddr iova, addr, mask;
	int perm;
	uint32_t pasid;
};

/* PCIIOMMUOps */
struct iommu_ops {
	void *supports_address_space;
	AddressSpace *(*get_address_space)(PCIBus *bus, void *opaque, int devfn);
	void *set_iommu_device, *unset_iommu_device, *get_viommu_flags, *get_host_iommu_quirks;
	void *get_iotlb_info;
	void (*init_iotlb_notifier)(PCIBus *bus, void *opaque, int devfn, void *notifier,
				    void (*notify)(void *notifier, void *entry), void *data);
	void (*register_iotlb_notifier)(PCIBus *bus, void *opaque, int devfn, uint32_t pasid,
					void *notifier);
	void (*unregister_iotlb_notifier)(PCIBus *bus, void *opaque, int devfn,
					  uint32_t pasid, void *notifier);
	ssize_t (*ats_request)(PCIBus *bus, void *opaque, int devfn, uint32_t pasid, bool priv,
			       bool exec, hwaddr addr, size_t length, bool no_write,
			       struct iotlb_entry *result, size_t max, uint32_t *errors);
	void (*pri_register)(PCIBus *bus, void *opaque, int devfn, uint32_t pasid,
			     struct pri_notifier *notifier);
	void (*pri_unregister)(PCIBus *bus, void *opaque, int devfn, uint32_t pasid);
	int (*pri_request)(PCIBus *bus, void *opaque, int devfn, uint32_t pasid, bool priv,
			   bool exec, hwaddr addr, bool last, uint16_t group, bool read,
			   bool write);
	void *get_msi_direct_gpa;
};

WEAK PCIBus *pci_device_root_bus(const PCIDevice *dev);
WEAK int pci_bus_num(PCIBus *bus);
WEAK uint16_t pci_requester_id(PCIDevice *dev);
WEAK void pci_setup_iommu(PCIBus *bus, const struct iommu_ops *ops, void *opaque);
WEAK Object *object_resolve_path_type(const char *path, const char *type, bool *ambiguous);
WEAK Object *x86_iommu_get_default(void);
WEAK void memory_region_add_subregion_overlap(MemoryRegion *mr, hwaddr at, MemoryRegion *sub,
					      int priority);
WEAK uint32_t memory_region_dispatch_read(MemoryRegion *mr, hwaddr addr, uint64_t *value,
					  int op, uint64_t attrs);
WEAK uint32_t memory_region_dispatch_write(MemoryRegion *mr, hwaddr addr, uint64_t value,
					   int op, uint64_t attrs);

#define BUS_WORDS	64		/* the ops of a bus and their argument are among these */

/* The operations of the bus, in front of their argument, which is the IOMMU */
static inline const struct iommu_ops *find_iommu_ops(const PCIBus *bus, const Object *iommu)
{
	const void *const *words = (const void *const *)bus;
	const struct iommu_ops *ops;
	unsigned int i;

	for (i = 1; i < BUS_WORDS; i++) {
		ops = words[i - 1];
		if (words[i] != iommu || !ops)
			continue;
		if (ops->get_address_space && ops->ats_request && ops->pri_register &&
		    ops->pri_unregister && ops->pri_request)
			return ops;
	}
	refuse("unknown QEMU: the operations of an IOMMU are not where they are looked for");
}

#endif
