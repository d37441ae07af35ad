/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The inside of pri-testdev, for its files: pri-testdev.c, how it gets into QEMU and what
 * its capabilities do, -commands.c, its registers, -requests.c, page requests and their
 * responses, -engine.c, what reads and writes memory.
 *
 * Everything here runs under QEMU's big lock: register accesses and page
 * responses from a vCPU, the DMA engine from a timer of the virtual clock.  A
 * response only takes notes and starts that timer, because it is called from
 * the midst of the IOMMU's invalidation queue.
 */
#ifndef PRI_TESTDEV_DEVICE_H
#define PRI_TESTDEV_DEVICE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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
WEAK void qemu_unregister_reset(void (*reset)(void *opaque), void *opaque);
WEAK bool pcie_sriov_pf_init(PCIDevice *dev, uint16_t at, const char *vf_type, uint16_t vf_device,
			     uint16_t initial, uint16_t total, uint16_t offset, uint16_t stride,
			     void **errp);
WEAK void pcie_sriov_pf_init_vf_bar(PCIDevice *dev, int bar, uint8_t type, uint64_t size);
WEAK void pcie_sriov_pf_exit(PCIDevice *dev);
WEAK void pcie_sriov_pf_reset(PCIDevice *dev);
WEAK PCIDevice *pcie_sriov_get_pf(PCIDevice *dev);
WEAK void pcie_cap_deverr_init(PCIDevice *dev);
WEAK void device_class_set_legacy_reset(ObjectClass *class, void (*reset)(PCIDevice *dev));
WEAK int pcie_aer_init(PCIDevice *dev, uint8_t version, uint16_t at, uint16_t size, void **errp);
WEAK void pcie_aer_exit(PCIDevice *dev);
WEAK void pcie_aer_write_config(PCIDevice *dev, uint32_t at, uint32_t value, int size);
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
WEAK void timer_del(QEMUTimer *timer);
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
#define CONFIG_SRIOV	0x140
#define CONFIG_AER	0x1c0		/* QEMU resets some bytes behind SR-IOV, too */
#define STEP_CHUNKS	64		/* moves before the guest gets its turn */
#define REFUSED_WAIT_NS	1000000
#define VFS_MAX		6		/* with the function itself they are one device */

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
	struct device *pf;			/* of a virtual function, else NULL */
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

/* The plugin's arguments */
extern bool debug, failure_stops;

#define say(s, fmt, ...) do { \
	if (debug) \
		fprintf(stderr, "pri-testdev.%u: " fmt "\n", (s)->instance, ##__VA_ARGS__); \
} while (0)

static inline uint64_t get64(const struct device *s, unsigned int reg)
{
	return R(s, reg) | (uint64_t)R(s, reg + 4) << 32;
}

static inline void set64(struct device *s, unsigned int reg, uint64_t value)
{
	R(s, reg) = value;
	R(s, reg + 4) = value >> 32;
}

static inline void run_engine_at(struct device *s, int64_t delay)
{
	timer_mod((QEMUTimer *)s->timer, qemu_clock_get_ns(CLOCK_OF_GUEST) + delay);
}

static inline bool running(const struct device *s)
{
	return R(s, PTD_STATE) == PTD_STATE_RUNNING;
}

/* ---- power and the PRI capability ---- */

/* Who has the PRI capability of a function */
static inline struct device *pri_owner(struct device *s)
{
	return s->pf ? s->pf : s;
}

/* Requests of a function and its virtual functions that have no response yet */
uint32_t awaited(const struct device *s);

static inline bool in_d3(const struct device *s)
{
	return s->power == PM_D3HOT;
}

static inline bool mute(const struct device *s)
{
	return s->lost || in_d3(s);
}

static inline bool pri_on(const struct device *s)
{
	return pci_default_read_config(s->pci, CONFIG_PRI + 4, 2) & PRI_ENABLE;
}

/* ---- page requests and responses ---- */

struct listener *find_listener(struct device *s, uint32_t pasid);
void drop_listeners(struct device *s);
void forget_group(struct listener *l, uint16_t id);
int request_page(struct device *s, uint32_t pasid, uint64_t iova, uint32_t flags,
		 uint16_t id);

/* A response that still comes is one to a group of before. */
void forget_requests(struct device *s);

/* What the driver has allowed in the PRI capability, and what is left of it */
uint32_t credits(struct device *s);
uint32_t free_credits(struct device *s);

/* ---- translation, access and the DMA engine ---- */

/* 1: translated with all of access, 0: it is not there, else a negative errno. */
int translate(struct device *s, uint32_t pasid, uint32_t access, uint64_t iova,
	      uint64_t *addr, uint32_t *perm);
int access_memory(uint64_t addr, void *buffer, uint64_t len, bool write);

void set_state(struct device *s, uint32_t state, uint32_t stage, int rc, uint64_t addr);
int start_engine(struct device *s, uint32_t pasid);
void engine_step(void *opaque);

/* ---- registers ---- */

extern const struct mmio_ops mmio_ops;

void reset(struct device *s);

#endif
