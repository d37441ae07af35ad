// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmm-prq: what QEMU 11.1 lacks as a VMM for I/O page faults of a device that it
 * passes through, preloaded into an unmodified qemu-system-x86_64:
 *
 *	ld.so --preload vmm-prq.so ... qemu-system-x86_64 -M q35 \
 *		-device intel-iommu,scalable-mode=on,fsts=on,svm=on,caching-mode=on,... \
 *		-object iommufd,id=i0 -device vfio-pci,host=...,iommufd=i0
 *
 * That QEMU makes the guest's tables known to the host (nested HWPTs, for the RID and
 * for PASIDs), but asks for no page requests. The series "intel_iommu: Enable PRQ
 * support for passthrough device", on QEMU's mailing list, does; this stands for it
 * until a QEMU has it. One that brings its own fault queue is left alone, and this says
 * that it is not needed any more. It is also an example of what a VMM has to do, in this
 * order:
 *
 *	a nested HWPT is made		it gets the fault queue of the iommufd
 *	a PASID is attached to it	the guest's answers for the PASID are listened to
 *	a message is there		into the guest's page request queue, and its
 *					cookie to the end of the list of {PASID, group id}
 *	the guest answers		the cookie at the head of that list
 *	a PASID is attached elsewhere,	the host has answered, the guest does not know it:
 *	or detached			the entries stay, but answer nothing
 *	the machine is reset		there is nobody who would answer: no entry stays
 *
 * The entries that stay keep a late answer from being taken for that of a later group with
 * the same id: a guest answers in the order in which it was asked. What does not fit
 * into the guest's queue is answered as the hardware would: SUCCESS, so that the device
 * asks again. A guest that never answers gets HELD_MAX groups, then INVALID; what the device
 * waits for meanwhile ends with VMM_PRQ_DEADLINE_MS, milliseconds in the environment, by
 * the host's kernel.
 *
 * All of this runs under QEMU's big lock. One device is passed through. At the end there
 * is a line of what was done: each group was answered by the guest, late or in time, or
 * for it, or it is still open.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/vfio.h>

#include "lib/iopf.h"

#define PLUGIN_NAME "vmm-prq"
#include "qemu-iommu.h"

/* ---- what is relied on of QEMU's inside ---- */
WEAK void qemu_set_fd_handler(int fd, void (*can_read)(void *opaque),
			      void (*can_write)(void *opaque), void *opaque);
WEAK void qemu_register_reset(void (*reset)(void *opaque), void *opaque);

static const struct symbol symbols[] = {
	SYMBOL(x86_iommu_get_default),
	SYMBOL(object_resolve_path_type),
	SYMBOL(pci_device_root_bus),
	SYMBOL(pci_requester_id),
	SYMBOL(qemu_register_reset),
	SYMBOL(qemu_set_fd_handler),
	SYMBOL(qmp_query_version),
};

/* ---- groups that the guest has, by PASID and id ---- */
#define GROUP_IDS	512
#define MESSAGES	4096	/* the largest group that a device can send */
#define HELD_MAX	65536	/* groups that the guest has, gone ones included */

struct given {
	struct given *next;
	uint32_t cookie;
	/* the host has answered */
	bool gone;
};

struct listener {
	struct pri_notifier notifier;	/* first: QEMU hands it back */
	struct listener *next;
	uint32_t pasid;
	struct given *head[GROUP_IDS], **tail[GROUP_IDS];
};

static int (*real_ioctl)(int fd, unsigned long request, ...);
static const struct iommu_ops *ops;
static Object *vtd;
static PCIBus *bus;
static int devfn;
static struct iopf io = { .fd = -1 };
static struct iopf_queue queue;
static struct listener *listeners;
static unsigned int held;
static struct { unsigned long groups, answered, late, refused, reset, unknown; } count;

#define say(...) do { \
	fprintf(stderr, PLUGIN_NAME ": " __VA_ARGS__); \
	fputc('\n', stderr); \
} while (0)

/* Whether the host took it: it may have answered, if the deadline is over for example. */
static bool write_answer(uint32_t cookie, uint32_t code)
{
	struct iommu_hwpt_page_response response = { .cookie = cookie, .code = code };

	return iopf_queue_write(&queue, &response, 1) == 1;
}

static void set_empty(struct listener *listener, unsigned int id)
{
	listener->head[id] = NULL;
	listener->tail[id] = &listener->head[id];
}

static struct given *take_first(struct listener *listener, unsigned int id)
{
	struct given *given = listener->head[id];

	if (!given)
		return NULL;
	listener->head[id] = given->next;
	if (!given->next)
		set_empty(listener, id);
	held--;
	return given;
}

/* The guest has answered a group. A hostile one answers what it likes: that is not said. */
static void answered(struct pri_notifier *notifier, struct pri_response *response)
{
	struct listener *listener = (struct listener *)notifier;
	struct given *given = take_first(listener, response->group_id % GROUP_IDS);

	if (!given) {
		count.unknown++;
		return;
	}
	if (!given->gone && write_answer(given->cookie, response->code))
		count.answered++;
	else
		count.late++;
	free(given);
}

static struct listener *find_listener(uint32_t pasid)
{
	struct listener *listener;

	for (listener = listeners; listener; listener = listener->next) {
		if (listener->pasid == pasid)
			break;
	}
	return listener;
}

static struct listener *listen_to(uint32_t pasid)
{
	struct listener *listener = find_listener(pasid);
	unsigned int id;

	if (!listener) {
		listener = calloc(1, sizeof(*listener));
		if (!listener)
			return NULL;
		listener->notifier.notify = answered;
		listener->pasid = pasid;
		for (id = 0; id < GROUP_IDS; id++)
			set_empty(listener, id);
		listener->next = listeners;
		listeners = listener;
	}
	/* again: QEMU forgets it when the guest resets its IOMMU */
	ops->pri_register(bus, vtd, devfn, pasid, &listener->notifier);
	return listener;
}

/* Another table, or none: whatever the guest has of this PASID the host has answered. */
static void forget(uint32_t pasid)
{
	struct listener *listener = find_listener(pasid);
	struct given *given;
	unsigned int id;

	for (id = 0; listener && id < GROUP_IDS; id++) {
		for (given = listener->head[id]; given; given = given->next)
			given->gone = true;
	}
}

/* Who would answer is not there any more. */
static void reset(void *opaque)
{
	struct listener *listener;
	struct given *given;
	unsigned int id;

	(void)opaque;
	for (listener = listeners; listener; listener = listener->next) {
		for (id = 0; id < GROUP_IDS; id++) {
			while ((given = take_first(listener, id))) {
				if (!given->gone)
					write_answer(given->cookie, IOMMUFD_PAGE_RESP_INVALID);
				count.reset++;
				free(given);
			}
		}
	}
}

/* ---- from the fault queue to the guest's ---- */

static int request(const struct iommu_hwpt_pgfault *m)
{
	return ops->pri_request(bus, vtd, devfn, m->pasid, m->perm & IOMMU_PGFAULT_PERM_PRIV,
				m->perm & IOMMU_PGFAULT_PERM_EXEC, m->addr,
				m->flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE, m->grpid,
				m->perm & IOMMU_PGFAULT_PERM_READ,
				m->perm & IOMMU_PGFAULT_PERM_WRITE);
}

static void give_group(const struct iopf_group *group)
{
	struct listener *listener = group->has_pasid ? find_listener(group->pasid) : NULL;
	unsigned int id = group->grpid % GROUP_IDS, i;
	struct given *given = NULL;
	int rc = -EINVAL;

	count.groups++;
	if (listener && held < HELD_MAX) {
		given = calloc(1, sizeof(*given));
		rc = given ? 0 : -ENOMEM;
	}
	for (i = 0; i < group->n && !rc; i++)
		rc = request(&group->requests[i]);
	if (rc) {
		free(given);
		count.refused++;
		write_answer(group->cookie, rc == -ENOSPC ? IOMMUFD_PAGE_RESP_SUCCESS :
							    IOMMUFD_PAGE_RESP_INVALID);
		return;
	}
	given->cookie = group->cookie;
	*listener->tail[id] = given;
	listener->tail[id] = &given->next;
	held++;
}

static void readable(void *opaque)
{
	static struct iommu_hwpt_pgfault messages[MESSAGES];
	struct iopf_group group;
	struct iopf_iter iter;
	int n = iopf_queue_read(&queue, messages, MESSAGES);

	(void)opaque;
	if (n < 0 && n != -EAGAIN && n != -EINTR)
		say("%s", iopf_error(&io));
	iter = iopf_groups(messages, n > 0 ? (size_t)n : 0);
	while (iopf_next_group(&iter, &group) > 0)
		give_group(&group);
}

/* ---- what QEMU tells the kernel ---- */

static bool find_iommu(void)
{
	bool ambiguous = false;
	PCIDevice *dev;

	if (ops)
		return true;
	check_symbols(symbols, sizeof(symbols) / sizeof(symbols[0]));
	check_version(NULL);
	vtd = x86_iommu_get_default();
	dev = (PCIDevice *)object_resolve_path_type("", "vfio-pci", &ambiguous);
	if (ambiguous)
		refuse("more than one device is passed through");
	if (!vtd || !dev)
		return false;
	bus = pci_device_root_bus(dev);
	devfn = pci_requester_id(dev) & 0xff;
	ops = find_iommu_ops(bus, vtd);
	return true;
}

static bool open_queue(int fd)
{
	const char *deadline = getenv("VMM_PRQ_DEADLINE_MS");
	struct iopf_queue_options options = { 0 };

	if (io.fd >= 0)
		return io.fd == fd;
	options.deadline_ms = deadline ? (uint32_t)strtoul(deadline, NULL, 0) : 0;
	options.deadline_code = options.deadline_ms ? IOMMUFD_PAGE_RESP_INVALID : 0;
	iopf_adopt(&io, fd);
	if (iopf_queue_alloc_with(&io, &options, &queue)) {
		say("%s", iopf_error(&io));
		io.fd = -1;
		return false;
	}
	fcntl(queue.fd, F_SETFL, O_NONBLOCK);
	qemu_set_fd_handler(queue.fd, readable, NULL, NULL);
	qemu_register_reset(reset, NULL);
	say("fault queue %u", queue.id);
	return true;
}

static int hwpt_alloc(int fd, struct iommu_hwpt_alloc *arg)
{
	struct iommu_hwpt_alloc cmd = { 0 };
	static bool not_needed;
	int rc;

	if (arg->data_type == IOMMU_HWPT_DATA_VTD_S1 && arg->flags & IOMMU_HWPT_FAULT_ID_VALID &&
	    !not_needed) {
		not_needed = true;
		say("this QEMU has a fault queue of its own and needs no preload any more");
	}
	if (arg->data_type != IOMMU_HWPT_DATA_VTD_S1 || not_needed || !find_iommu() ||
	    !open_queue(fd))
		return real_ioctl(fd, IOMMU_HWPT_ALLOC, arg);
	memcpy(&cmd, arg, arg->size < sizeof(cmd) ? arg->size : sizeof(cmd));
	cmd.size = sizeof(cmd);
	cmd.flags |= IOMMU_HWPT_FAULT_ID_VALID;
	cmd.fault_id = queue.id;
	rc = real_ioctl(fd, IOMMU_HWPT_ALLOC, &cmd);
	arg->out_hwpt_id = cmd.out_hwpt_id;
	return rc;
}

/* Both begin alike, and have the PASID where they say so. */
static int move_pasid(int fd, unsigned long request, void *arg)
{
	struct vfio_device_attach_iommufd_pt *attach = arg;
	struct vfio_device_detach_iommufd_pt *detach = arg;
	bool pasid = attach->flags & VFIO_DEVICE_ATTACH_PASID;
	int rc = real_ioctl(fd, request, arg);

	if (rc || !pasid || !ops)
		return rc;
	if (request == VFIO_DEVICE_ATTACH_IOMMUFD_PT) {
		forget(attach->pasid);
		listen_to(attach->pasid);
	} else {
		forget(detach->pasid);
	}
	return 0;
}

__attribute__((visibility("default")))
int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (!real_ioctl)
		real_ioctl = dlsym(RTLD_NEXT, "ioctl");
	switch (request) {
	case IOMMU_HWPT_ALLOC:
		return hwpt_alloc(fd, arg);
	case VFIO_DEVICE_ATTACH_IOMMUFD_PT:
	case VFIO_DEVICE_DETACH_IOMMUFD_PT:
		return move_pasid(fd, request, arg);
	}
	return real_ioctl(fd, request, arg);
}

static void __attribute__((destructor)) report(void)
{
	char rest[80];

	if (io.fd < 0)
		return;
	snprintf(rest, sizeof(rest), "%u open, %lu answers to no group", held, count.unknown);
	say("%lu groups: %lu answered, %lu late, %lu refused, %lu reset, %s", count.groups,
	    count.answered, count.late, count.refused, count.reset, rest);
}
