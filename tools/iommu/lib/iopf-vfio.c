// SPDX-License-Identifier: GPL-2.0 OR MIT
/* PCI devices behind an iommufd: driver binding, VFIO's character device, config space, BARs. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "impl.h"

#define PCI_SYSFS "/sys/bus/pci/"
#define VFIO_DRIVER "vfio-pci"
#define CDEV_PATH 300
/* In hundredths of a second */
#define BIND_TRIES 50
#define DRIVER_NAME sizeof(((struct iopf_device *)0)->old_driver)

static int write_text(struct iopf *io, const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return iopf_fail(io, errno, "open %s", path);
	if (write(fd, text, strlen(text)) < 0)
		rc = iopf_fail(io, errno, "write '%s' to %s", text, path);
	close(fd);
	return rc;
}

static int device_write(const struct iopf_device *dev, const char *file, const char *text)
{
	char path[160];

	snprintf(path, sizeof(path), PCI_SYSFS "devices/%s/%s", dev->bdf, file);
	return write_text(dev->io, path, text);
}

static int driver_write(const struct iopf_device *dev, const char *driver, const char *file)
{
	char path[160];

	snprintf(path, sizeof(path), PCI_SYSFS "drivers/%s/%s", driver, file);
	return write_text(dev->io, path, dev->bdf);
}

/* The name of the driver that has the device now, or "". */
static void current_driver(const struct iopf_device *dev, char name[DRIVER_NAME])
{
	char path[160], target[256];
	const char *base;
	ssize_t n;

	name[0] = 0;
	snprintf(path, sizeof(path), PCI_SYSFS "devices/%s/driver", dev->bdf);
	n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return;
	target[n] = 0;
	base = strrchr(target, '/');
	base = base ? base + 1 : target;
	if (strlen(base) < DRIVER_NAME)
		memcpy(name, base, strlen(base) + 1);
}

/* What driver_override says; a newline, which clears it, when there is none. */
static void current_override(const struct iopf_device *dev, char text[DRIVER_NAME])
{
	char path[160];
	ssize_t n = 0;
	int fd;

	snprintf(path, sizeof(path), PCI_SYSFS "devices/%s/driver_override", dev->bdf);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, text, DRIVER_NAME - 1);
		close(fd);
	}
	text[n > 0 ? n : 0] = 0;
	if (n <= 0 || !strcmp(text, "(null)\n"))
		memcpy(text, "\n", 2);
}

/*
 * A device goes from driver to driver in steps, in which nobody else may take it for
 * one that has no driver: who opens or closes it holds this.  Returns a descriptor.
 */
static int lock_device(struct iopf_device *dev)
{
	char path[160];
	int fd, rc;

	snprintf(path, sizeof(path), PCI_SYSFS "devices/%s", dev->bdf);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return iopf_say(dev->io, ENODEV, "there is no PCI device %s", dev->bdf);
	if (fd < 0)
		return iopf_fail(dev->io, errno, "open %s", path);
	if (!flock(fd, LOCK_EX))
		return fd;
	rc = iopf_fail(dev->io, errno, "wait for who opens or closes %s", dev->bdf);
	close(fd);
	return rc;
}

/* The device's entry in vfio-dev/ names its character device: vfio0, or noiommu-vfio0. */
static bool find_cdev(const struct iopf_device *dev, char path[CDEV_PATH])
{
	char entries[160];
	struct dirent *entry;
	DIR *dir;

	snprintf(entries, sizeof(entries), PCI_SYSFS "devices/%s/vfio-dev", dev->bdf);
	dir = opendir(entries);
	path[0] = 0;
	while (dir && (entry = readdir(dir))) {
		if (strstr(entry->d_name, "vfio"))
			snprintf(path, CDEV_PATH, "/dev/vfio/devices/%s", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return path[0];
}

static int take_device(struct iopf_device *dev)
{
	char now[DRIVER_NAME], path[CDEV_PATH];
	unsigned int tries;
	int rc;

	current_driver(dev, dev->old_driver);
	if (!strcmp(dev->old_driver, VFIO_DRIVER))
		return 0;
	current_override(dev, dev->old_override);
	rc = device_write(dev, "driver_override", VFIO_DRIVER);
	if (rc)
		return rc;
	dev->rebind = true;
	if (dev->old_driver[0])
		rc = driver_write(dev, dev->old_driver, "unbind");
	if (!rc)
		rc = write_text(dev->io, PCI_SYSFS "drivers_probe", dev->bdf);
	/* One that has just been plugged in is bound a moment later, by who has found it. */
	for (tries = 0; !rc && !find_cdev(dev, path) && tries < BIND_TRIES; tries++)
		usleep(10000);
	current_driver(dev, now);
	if (!rc && strcmp(now, VFIO_DRIVER))
		rc = iopf_say(dev->io, ENODEV, "%s did not bind to " VFIO_DRIVER
			      ": is that module loaded?", dev->bdf);
	return rc;
}

static bool is_there(const struct iopf_device *dev)
{
	char path[160];

	snprintf(path, sizeof(path), PCI_SYSFS "devices/%s", dev->bdf);
	return !access(path, F_OK);
}

/* An override that is not ours is of somebody who has plans for the device. */
static int restore_override(const struct iopf_device *dev)
{
	char text[DRIVER_NAME];

	current_override(dev, text);
	if (strcmp(text, VFIO_DRIVER "\n"))
		return 0;
	return device_write(dev, "driver_override", dev->old_override);
}

static int give_back(struct iopf_device *dev, bool leaving)
{
	char now[DRIVER_NAME];
	int rc;

	if (!dev->rebind)
		return 0;
	dev->rebind = false;
	rc = restore_override(dev);
	/* it may be unplugged at any time now */
	if (leaving)
		return is_there(dev) ? rc : 0;
	current_driver(dev, now);
	if (!rc && !strcmp(now, VFIO_DRIVER))
		rc = driver_write(dev, VFIO_DRIVER, "unbind");
	if (!rc && dev->old_driver[0])
		rc = driver_write(dev, dev->old_driver, "bind");
	return rc;
}

static int open_cdev(struct iopf_device *dev, char path[CDEV_PATH])
{
	if (!find_cdev(dev, path))
		return iopf_say(dev->io, ENODEV,
				"%s has no VFIO character device (CONFIG_VFIO_DEVICE_CDEV)",
				dev->bdf);
	dev->fd = open(path, O_RDWR | O_CLOEXEC);
	if (dev->fd < 0)
		return iopf_fail(dev->io, errno, "open %s", path);
	return 0;
}

static int region_info(struct iopf_device *dev, unsigned int index,
		       struct vfio_region_info *info)
{
	*info = (struct vfio_region_info){ .argsz = sizeof(*info), .index = index };
	if (ioctl(dev->fd, VFIO_DEVICE_GET_REGION_INFO, info))
		return iopf_fail(dev->io, errno, "%s: ask for region %u", dev->bdf, index);
	return 0;
}

/* VFIO says EINVAL of a device that somebody else has bound. */
static int bind_failed(struct iopf_device *dev, int err, const char *path)
{
	char who[80];

	if ((err == EINVAL || err == EBUSY) && find_holder(path, dev->fd, who, sizeof(who)))
		return iopf_say(dev->io, EBUSY, "%s is in use by %s", dev->bdf, who);
	if (err == EBUSY)
		return iopf_say(dev->io, err, "%s: another device of its IOMMU group has a driver",
				dev->bdf);
	return iopf_fail(dev->io, err, "%s: bind to the iommufd", dev->bdf);
}

static int find_config(struct iopf_device *dev)
{
	struct vfio_region_info config;
	int rc = region_info(dev, VFIO_PCI_CONFIG_REGION_INDEX, &config);

	dev->config_offset = config.offset;
	return rc;
}

static int bind_iommufd(struct iopf_device *dev, const char *path)
{
	struct vfio_device_bind_iommufd cmd = { .argsz = sizeof(cmd), .iommufd = dev->io->fd };

	if (ioctl(dev->fd, VFIO_DEVICE_BIND_IOMMUFD, &cmd))
		return bind_failed(dev, errno, path);
	dev->id = cmd.out_devid;
	return find_config(dev);
}

int iopf_full_bdf(struct iopf *io, const char *bdf, char full[16])
{
	unsigned int domain = 0, bus, slot, function;
	char end;

	if (sscanf(bdf, "%x:%x:%x.%x%c", &domain, &bus, &slot, &function, &end) != 4) {
		domain = 0;
		if (sscanf(bdf, "%x:%x.%x%c", &bus, &slot, &function, &end) != 3)
			return iopf_say(io, EINVAL, "'%s' is no PCI address", bdf);
	}
	if (domain > 0xffff || bus > 0xff || slot > 0x1f || function > 7)
		return iopf_say(io, EINVAL, "'%s' is no PCI address", bdf);
	snprintf(full, 16, "%04x:%02x:%02x.%x", domain, bus, slot, function);
	return 0;
}

static int close_locked(struct iopf_device *dev)
{
	bool leaving = iopf_device_is_leaving(dev);
	unsigned int i;

	/* they keep the device open */
	for (i = 0; i < IOPF_BARS; i++) {
		if (dev->bars[i])
			iopf_device_unmap_bar(dev->bars[i]);
	}
	if (dev->fd >= 0)
		close(dev->fd);
	dev->fd = -1;
	if (dev->watched)
		close(dev->leave_fd);
	dev->watched = false;
	return give_back(dev, leaving);
}

static int open_locked(struct iopf_device *dev)
{
	char error[sizeof(dev->io->error)], path[CDEV_PATH];
	int rc;

	rc = take_device(dev);
	if (!rc)
		rc = open_cdev(dev, path);
	if (!rc)
		rc = bind_iommufd(dev, path);
	if (rc) {
		/* what failed first is of interest, not what closing makes of it */
		memcpy(error, dev->io->error, sizeof(error));
		close_locked(dev);
		memcpy(dev->io->error, error, sizeof(error));
	}
	return rc;
}

int iopf_device_open(struct iopf *io, const char *bdf, struct iopf_device *dev)
{
	int rc, lock;

	*dev = (struct iopf_device){ .io = io, .fd = -1 };
	rc = iopf_full_bdf(io, bdf, dev->bdf);
	if (rc)
		return rc;
	lock = lock_device(dev);
	if (lock < 0)
		return lock;
	rc = open_locked(dev);
	close(lock);
	return rc;
}

int iopf_device_adopt(struct iopf *io, const char *bdf, int fd, uint32_t id,
		      struct iopf_device *dev)
{
	int rc;

	*dev = (struct iopf_device){ .io = io, .fd = fd, .id = id };
	rc = iopf_full_bdf(io, bdf, dev->bdf);
	return rc ? rc : find_config(dev);
}

/* What sysfs has of the configuration space, which needs no driver; -1 if it does not. */
static int open_config(const char *bdf)
{
	char path[160];

	snprintf(path, sizeof(path), PCI_SYSFS "devices/%s/config", bdf);
	return open(path, O_RDONLY | O_CLOEXEC);
}

int iopf_pci_expect(struct iopf *io, const char *bdf, uint16_t vendor, uint16_t device)
{
	uint16_t ids[2];
	char full[16];
	ssize_t n;
	int fd, rc;

	rc = iopf_full_bdf(io, bdf, full);
	if (rc)
		return rc;
	fd = open_config(full);
	if (fd < 0)
		return iopf_say(io, ENODEV, "there is no PCI device %s", full);
	n = pread(fd, ids, sizeof(ids), PCI_VENDOR_ID);
	close(fd);
	if (n != sizeof(ids))
		return iopf_fail(io, n < 0 ? errno : EIO, "read the ids of %s", full);
	if (ids[0] == vendor && ids[1] == device)
		return 0;
	return iopf_say(io, ENODEV, "%s is a device %04x:%04x, not %04x:%04x", full, ids[0],
			ids[1], vendor, device);
}

int iopf_device_pri_capacity(struct iopf_device *dev)
{
	unsigned int at = PCI_CFG_SPACE_SIZE, tries = PCI_CFG_SPACE_EXP_SIZE / 8;
	uint32_t header, capacity = 0;
	int rc;

	/* no capability, or no more configuration space: the end */
	while (at >= PCI_CFG_SPACE_SIZE && tries-- &&
	       pread(dev->fd, &header, sizeof(header), (off_t)(dev->config_offset + at)) ==
	       sizeof(header)) {
		if (PCI_EXT_CAP_ID(header) == PCI_EXT_CAP_ID_PRI) {
			rc = iopf_device_config_read(dev, at + PCI_PRI_MAX_REQ, &capacity,
						     sizeof(capacity));
			if (rc)
				return rc;
			break;
		}
		at = PCI_EXT_CAP_NEXT(header);
	}
	return capacity < INT_MAX ? (int)capacity : INT_MAX;
}

int iopf_device_close(struct iopf_device *dev)
{
	int rc, lock = -1;

	/* before the device is free for others; a signal does not keep it from its driver */
	while (dev->rebind && lock < 0) {
		lock = lock_device(dev);
		if (lock < 0 && lock != -EINTR)
			break;
	}
	rc = close_locked(dev);
	if (lock >= 0)
		close(lock);
	return rc;
}

static int set_leave_fd(struct iopf_device *dev, int fd)
{
	union {
		struct vfio_irq_set head;
		char room[sizeof(struct vfio_irq_set) + sizeof(int)];
	} set = {
		.head = {
			.argsz = sizeof(set),
			.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = VFIO_PCI_REQ_IRQ_INDEX,
			.count = 1,
		},
	};

	memcpy(set.head.data, &fd, sizeof(fd));
	return ioctl(dev->fd, VFIO_DEVICE_SET_IRQS, &set) ? -errno : 0;
}

int iopf_device_watch(struct iopf_device *dev)
{
	int fd, rc;

	if (dev->watched)
		return dev->leave_fd;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = fd < 0 ? -errno : set_leave_fd(dev, fd);
	if (!rc) {
		dev->watched = true;
		dev->leave_fd = fd;
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return iopf_fail(dev->io, -rc, "%s: ask to be told when it is to leave", dev->bdf);
}

bool iopf_device_is_leaving(const struct iopf_device *dev)
{
	struct pollfd pfd = { .fd = dev->leave_fd, .events = POLLIN };

	return dev->watched && poll(&pfd, 1, 0) > 0;
}

static int attach_pt(struct iopf_device *dev, uint32_t flags, uint32_t pasid, uint32_t pt_id)
{
	struct vfio_device_attach_iommufd_pt cmd = {
		.argsz = sizeof(cmd),
		.flags = flags,
		.pt_id = pt_id,
		.pasid = pasid,
	};

	if (!ioctl(dev->fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &cmd))
		return 0;
	if (flags)
		return iopf_fail(dev->io, errno, "%s: attach PASID %u to object %u", dev->bdf,
				 pasid, pt_id);
	return iopf_fail(dev->io, errno, "%s: attach to object %u", dev->bdf, pt_id);
}

static int detach_pt(struct iopf_device *dev, uint32_t flags, uint32_t pasid)
{
	struct vfio_device_detach_iommufd_pt cmd = {
		.argsz = sizeof(cmd),
		.flags = flags,
		.pasid = pasid,
	};

	if (!ioctl(dev->fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &cmd))
		return 0;
	if (flags)
		return iopf_fail(dev->io, errno, "%s: detach PASID %u", dev->bdf, pasid);
	return iopf_fail(dev->io, errno, "%s: detach", dev->bdf);
}

int iopf_device_attach(struct iopf_device *dev, uint32_t pt_id)
{
	return attach_pt(dev, 0, 0, pt_id);
}

int iopf_device_detach(struct iopf_device *dev)
{
	return detach_pt(dev, 0, 0);
}

int iopf_device_attach_pasid(struct iopf_device *dev, uint32_t pasid, uint32_t pt_id)
{
	return attach_pt(dev, VFIO_DEVICE_ATTACH_PASID, pasid, pt_id);
}

int iopf_device_detach_pasid(struct iopf_device *dev, uint32_t pasid)
{
	return detach_pt(dev, VFIO_DEVICE_DETACH_PASID, pasid);
}

/* A page table that allows for PASIDs, with a queue or without (0). */
static int alloc_pasid_table(struct iopf_device *dev, uint32_t ioas_id, uint32_t queue_id,
			     uint32_t *hwpt_id)
{
	int rc = iopf_hwpt_alloc(dev->io, dev->id, ioas_id, IOMMU_HWPT_ALLOC_PASID, queue_id,
				 hwpt_id);

	if (rc != -EOPNOTSUPP)
		return rc;
	return iopf_say(dev->io, EOPNOTSUPP,
			"%s: this kernel or IOMMU does not serve page faults of PASIDs", dev->bdf);
}

int iopf_device_attach_queue(struct iopf_device *dev, uint32_t ioas_id, uint32_t pasid,
			     const struct iopf_queue *queue, uint32_t hwpt_ids[2])
{
	struct iopf *io = dev->io;
	int rc;

	rc = alloc_pasid_table(dev, ioas_id, 0, &hwpt_ids[0]);
	if (rc)
		return rc;
	rc = alloc_pasid_table(dev, ioas_id, queue->id, &hwpt_ids[1]);
	if (rc)
		goto destroy_first;
	rc = iopf_device_attach(dev, hwpt_ids[0]);
	if (rc)
		goto destroy_both;
	rc = iopf_device_attach_pasid(dev, pasid, hwpt_ids[1]);
	if (!rc)
		return 0;
	/* what failed first stays in io->error: this does not fail */
	iopf_device_detach(dev);
destroy_both:
	iopf_destroy(io, hwpt_ids[1]);
destroy_first:
	iopf_destroy(io, hwpt_ids[0]);
	return rc;
}

void iopf_device_detach_queue(struct iopf_device *dev, uint32_t pasid,
			      const uint32_t hwpt_ids[2])
{
	iopf_device_detach_pasid(dev, pasid);
	iopf_device_detach(dev);
	iopf_destroy(dev->io, hwpt_ids[1]);
	iopf_destroy(dev->io, hwpt_ids[0]);
}

static int config_failed(struct iopf_device *dev, unsigned int reg, ssize_t n)
{
	return iopf_fail(dev->io, n < 0 ? errno : EIO, "%s: access to config register %#x",
			 dev->bdf, reg);
}

int iopf_device_config_read(struct iopf_device *dev, unsigned int reg, void *buf, size_t len)
{
	ssize_t n = pread(dev->fd, buf, len, (off_t)(dev->config_offset + reg));

	return n == (ssize_t)len ? 0 : config_failed(dev, reg, n);
}

int iopf_device_config_write(struct iopf_device *dev, unsigned int reg, const void *buf,
			     size_t len)
{
	ssize_t n = pwrite(dev->fd, buf, len, (off_t)(dev->config_offset + reg));

	return n == (ssize_t)len ? 0 : config_failed(dev, reg, n);
}

int iopf_device_bus_master(struct iopf_device *dev, bool on)
{
	uint16_t command;
	int rc;

	rc = iopf_device_config_read(dev, PCI_COMMAND, &command, sizeof(command));
	if (rc)
		return rc;
	command &= ~PCI_COMMAND_MASTER;
	if (on)
		command |= PCI_COMMAND_MASTER;
	return iopf_device_config_write(dev, PCI_COMMAND, &command, sizeof(command));
}

int iopf_device_map_bar(struct iopf_device *dev, unsigned int index, struct iopf_bar *bar)
{
	struct vfio_region_info info;
	void *base;
	int rc;

	*bar = (struct iopf_bar){ 0 };
	if (index >= IOPF_BARS || dev->bars[index])
		return iopf_fail(dev->io, index < IOPF_BARS ? EBUSY : EINVAL, "%s: map BAR %u",
				 dev->bdf, index);
	rc = region_info(dev, VFIO_PCI_BAR0_REGION_INDEX + index, &info);
	if (rc)
		return rc;
	base = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, dev->fd,
		    (off_t)info.offset);
	if (base == MAP_FAILED)
		return iopf_fail(dev->io, errno, "%s: map BAR %u", dev->bdf, index);
	*bar = (struct iopf_bar){ base, info.size, dev, index };
	dev->bars[index] = bar;
	return 0;
}

void iopf_device_unmap_bar(struct iopf_bar *bar)
{
	if (bar->base)
		munmap((void *)bar->base, bar->size);
	bar->base = NULL;
	if (bar->dev)
		bar->dev->bars[bar->index] = NULL;
	bar->dev = NULL;
}
