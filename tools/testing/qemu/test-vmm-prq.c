// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test vmm-prq.c without QEMU, guest, kernel or device: this program exports what that
 * relies on of QEMU, and is linked with it and with a library whose ioctl() is
 * kernel_ioctl() here (see test-vmm-prq.sh). KTAP on standard output.
 *
 * With an argument the VMM brings a fault queue of its own.
 */
#include <errno.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <linux/iommufd.h>
#include <linux/vfio.h>

#define PLUGIN_NAME "test-vmm-prq"
#include "qemu-iommu.h"

#define QUEUE_ID	7
#define PASID		3
#define OTHER_PASID	5
#define ROOM		8	/* page requests that the guest's queue takes */
#define PASIDS		16

/* ---- QEMU ---- */

static struct { const void *ops, *iommu; } bus_words;
static void (*can_read)(void *opaque), (*on_reset)(void *opaque);
static struct pri_notifier *notifiers[PASIDS];
static unsigned int asked, room = ROOM;

static AddressSpace *get_address_space(PCIBus *bus, void *opaque, int devfn)
{
	(void)bus;
	(void)opaque;
	(void)devfn;
	return NULL;
}

static ssize_t ats_request(PCIBus *bus, void *opaque, int devfn, uint32_t pasid, bool priv,
			   bool exec, hwaddr addr, size_t length, bool no_write,
			   struct iotlb_entry *result, size_t max, uint32_t *errors)
{
	(void)bus, (void)opaque, (void)devfn, (void)pasid, (void)priv, (void)exec, (void)addr;
	(void)length, (void)no_write, (void)result, (void)max, (void)errors;
	return -EPERM;
}

static void pri_register(PCIBus *bus, void *opaque, int devfn, uint32_t pasid,
			 struct pri_notifier *notifier)
{
	(void)bus, (void)opaque, (void)devfn;
	notifiers[pasid % PASIDS] = notifier;
}

static void pri_unregister(PCIBus *bus, void *opaque, int devfn, uint32_t pasid)
{
	pri_register(bus, opaque, devfn, pasid, NULL);
}

static int pri_request(PCIBus *bus, void *opaque, int devfn, uint32_t pasid, bool priv, bool exec,
		       hwaddr addr, bool last, uint16_t group, bool read, bool write)
{
	(void)bus, (void)opaque, (void)devfn, (void)pasid, (void)priv, (void)exec, (void)addr;
	(void)last, (void)group, (void)read, (void)write;
	if (!room)
		return -ENOSPC;
	room--;
	asked++;
	return 0;
}

static const struct iommu_ops iommu_ops = {
	.get_address_space = get_address_space, .ats_request = ats_request,
	.pri_register = pri_register, .pri_unregister = pri_unregister,
	.pri_request = pri_request,
};

Object *x86_iommu_get_default(void)
{
	return (Object *)&bus_words.iommu;
}

Object *object_resolve_path_type(const char *path, const char *type, bool *ambiguous)
{
	(void)path;
	(void)type;
	*ambiguous = false;
	return (Object *)&bus_words;
}

PCIBus *pci_device_root_bus(const PCIDevice *dev)
{
	(void)dev;
	bus_words.ops = &iommu_ops;
	bus_words.iommu = &bus_words.iommu;
	return (PCIBus *)&bus_words;
}

uint16_t pci_requester_id(PCIDevice *dev)
{
	(void)dev;
	return 0x10;
}

void qemu_register_reset(void (*reset)(void *opaque), void *opaque);
void qemu_register_reset(void (*reset)(void *opaque), void *opaque)
{
	(void)opaque;
	on_reset = reset;
}

void qemu_set_fd_handler(int fd, void (*reader)(void *opaque), void (*writer)(void *opaque),
			 void *opaque);
void qemu_set_fd_handler(int fd, void (*reader)(void *opaque), void (*writer)(void *opaque),
			 void *opaque)
{
	(void)fd, (void)writer, (void)opaque;
	can_read = reader;
}

const struct version_info *qmp_query_version(void **errp)
{
	static const int64_t number[3] = { QEMU_MAJOR, QEMU_MINOR };
	static const struct version_info info = { .qemu = (const void *)number };

	(void)errp;
	return &info;
}

/* ---- the kernel ---- */

static int ends[2];		/* of the fault queue: the kernel's, the VMM's */
static unsigned int queues;
static struct iommu_hwpt_alloc made;

int kernel_ioctl(int fd, unsigned long request, void *arg);
int kernel_ioctl(int fd, unsigned long request, void *arg)
{
	struct iommu_fault_alloc *queue = arg;

	(void)fd;
	switch (request) {
	case IOMMU_FAULT_QUEUE_ALLOC:
		queues++;
		queue->out_fault_id = QUEUE_ID;
		queue->out_fault_fd = (uint32_t)ends[1];
		return 0;
	case IOMMU_HWPT_ALLOC:
		memcpy(&made, arg, sizeof(made));
		return 0;
	}
	return 0;
}

static void fault(uint32_t pasid, uint32_t id, uint32_t cookie)
{
	struct iommu_hwpt_pgfault m = {
		.flags = IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE,
		.pasid = pasid, .grpid = id, .cookie = cookie, .perm = IOMMU_PGFAULT_PERM_READ,
	};

	if (send(ends[0], &m, sizeof(m), 0) == sizeof(m))
		can_read(NULL);
}

/* What the VMM has answered since the last time: the cookie and the code, or 0. */
static uint64_t given(void)
{
	struct iommu_hwpt_page_response r;

	if (recv(ends[0], &r, sizeof(r), MSG_DONTWAIT) != sizeof(r))
		return 0;
	return (uint64_t)r.code << 32 | r.cookie;
}

static void respond(uint32_t pasid, uint16_t id, int code)
{
	struct pri_response response = { .code = code, .group_id = id };

	notifiers[pasid]->notify(notifiers[pasid], &response);
}

static void move(unsigned long request, uint32_t pasid)
{
	struct vfio_device_attach_iommufd_pt attach = {
		.argsz = sizeof(attach), .flags = VFIO_DEVICE_ATTACH_PASID, .pasid = pasid,
	};
	struct vfio_device_detach_iommufd_pt detach = {
		.argsz = sizeof(detach), .flags = VFIO_DEVICE_DETACH_PASID, .pasid = pasid,
	};

	ioctl(0, request, request == VFIO_DEVICE_ATTACH_IOMMUFD_PT ? (void *)&attach : &detach);
}

static void alloc_nested(uint32_t flags, uint32_t fault_id)
{
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd), .data_type = IOMMU_HWPT_DATA_VTD_S1, .flags = flags,
		.fault_id = fault_id,
	};

	ioctl(0, IOMMU_HWPT_ALLOC, &cmd);
}

/* ---- tests ---- */

static bool gets_a_queue(void)
{
	alloc_nested(0, 0);
	return queues == 1 && made.flags == IOMMU_HWPT_FAULT_ID_VALID &&
	       made.fault_id == QUEUE_ID && can_read && on_reset;
}

static bool answers(void)
{
	move(VFIO_DEVICE_ATTACH_IOMMUFD_PT, PASID);
	fault(PASID, 1, 100);
	fault(PASID, 1, 101);
	if (asked != 2 || given())
		return false;
	respond(PASID, 1, 0);
	respond(PASID, 1, 1);
	return given() == 100 && given() == (1ull << 32 | 101) && !given();
}

/* The guest has one of an id when its PASID moves, and gets another of the same id. */
static bool late_answers(void)
{
	fault(PASID, 2, 200);
	move(VFIO_DEVICE_ATTACH_IOMMUFD_PT, PASID);
	fault(PASID, 2, 201);
	respond(PASID, 2, 1);
	if (given())
		return false;
	respond(PASID, 2, 0);
	return given() == 201 && !given();
}

static bool late_after_detach(void)
{
	fault(PASID, 3, 300);
	move(VFIO_DEVICE_DETACH_IOMMUFD_PT, PASID);
	respond(PASID, 3, 0);
	move(VFIO_DEVICE_ATTACH_IOMMUFD_PT, PASID);
	fault(PASID, 3, 301);
	if (given())
		return false;
	respond(PASID, 3, 0);
	return given() == 301;
}

static bool answers_to_nothing(void)
{
	fault(PASID, 4, 400);
	respond(PASID, 5, 0);
	respond(PASID, 1, 0);
	if (given())
		return false;
	respond(PASID, 4, 0);
	respond(PASID, 4, 0);
	return given() == 400 && !given();
}

/* The device is to ask again; what nobody listens to is not allowed. */
static bool no_room(void)
{
	room = 0;
	fault(PASID, 6, 600);
	room = ROOM;
	fault(OTHER_PASID, 6, 601);
	return given() == 600 && given() == (1ull << 32 | 601);
}

/* Who had it is gone: it is answered, and the id is free. */
static bool reset(void)
{
	fault(PASID, 7, 700);
	fault(PASID, 8, 800);
	move(VFIO_DEVICE_DETACH_IOMMUFD_PT, PASID);
	move(VFIO_DEVICE_ATTACH_IOMMUFD_PT, PASID);
	fault(PASID, 8, 801);
	on_reset(NULL);
	if (given() != (1ull << 32 | 801) || given())
		return false;
	fault(PASID, 7, 701);
	respond(PASID, 7, 0);
	return given() == 701;
}

static bool left_alone(void)
{
	alloc_nested(IOMMU_HWPT_FAULT_ID_VALID, QUEUE_ID + 1);
	if (queues || made.fault_id != QUEUE_ID + 1)
		return false;
	alloc_nested(0, 0);
	move(VFIO_DEVICE_ATTACH_IOMMUFD_PT, PASID);
	return !queues && !made.flags && !notifiers[PASID];
}

static const struct {
	const char *name;
	bool (*test)(void);
} tests[] = {
	{ "gets_a_queue", gets_a_queue }, { "answers", answers },
	{ "late_answers", late_answers }, { "late_after_detach", late_after_detach },
	{ "answers_to_nothing", answers_to_nothing }, { "no_room", no_room }, { "reset", reset },
};

int main(int argc, char **argv)
{
	unsigned int i, n = sizeof(tests) / sizeof(tests[0]);
	bool good, all = true;

	(void)argv;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends))
		return 1;
	if (argc > 1)
		return !left_alone();
	printf("KTAP version 1\n1..%u\n", n + 1);
	for (i = 0; i < n; i++) {
		good = tests[i].test();
		all &= good;
		printf("%s %u %s\n", good ? "ok" : "not ok", i + 1, tests[i].name);
	}
	fflush(stdout);
	return !all;
}
