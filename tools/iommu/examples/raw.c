// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A whole server without a library:  iopf-raw BDF [wait]
 *
 * It takes a PCI device from its driver, gives it an address space in which nothing is
 * mapped, and serves its page requests out of a memfd: system calls alone, one thread,
 * one epoll.  Faults, a device that is to leave and signals are events of one loop.
 * In the end the device goes back to its driver.
 *
 * The device is an emulated pri-testdev.  For another one write drive() and what is
 * above it down to "the device" anew; the rest stays.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/iommufd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "pri-testdev.h"

#define PCI "/sys/bus/pci/"
#define PASID 1
#define IOVA 0x40000000ull
#define PAGE 4096u
#define PAGES 128u
#define HALF (PAGES / 2 * PAGE)
/* Groups that the queue holds: few, so that more can come. */
#define DEPTH 16
/* The largest group of this device; see its PRI capability. */
#define ROOM 256
#define PATTERN 0x5a5a5a5au

static int iommufd = -1, vfio = -1, queue = -1, loop, leave, signals;
static uint32_t ioas_id, dev_id, queue_id, own_hwpt, pasid_hwpt;
static char bdf[16], old_driver[64], old_override[64] = "\n";
static bool taken, leaving, stopped;
static volatile uint32_t *registers;
static uint64_t config;
static char *memory;
/* What each page is mapped for: 0 or IOMMU_IOAS_MAP_*. */
static uint32_t mapped[PAGES];
static unsigned int groups, largest, upgrades, refused, losses;

/* ---- sysfs: from driver to driver ---- */

static int write_file(const char *directory, const char *name, const char *text)
{
	char path[200];
	int fd, rc;

	snprintf(path, sizeof(path), PCI "%s/%s", directory, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	rc = fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0;
	if (rc)
		fprintf(stderr, "write '%s' to %s: %s\n", text, path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return rc;
}

static const char *device_directory(void)
{
	static char path[40];

	snprintf(path, sizeof(path), "devices/%s", bdf);
	return path;
}

/* A file or link of the device; empty if it has none. */
static void read_sysfs(const char *name, bool is_link, char text[64])
{
	char path[100], buf[256] = "", *base;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), PCI "devices/%s/%s", bdf, name);
	if (is_link) {
		n = readlink(path, buf, sizeof(buf) - 1);
	} else {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = read(fd, buf, sizeof(buf) - 1);
		close(fd);
	}
	buf[n > 0 ? n : 0] = 0;
	base = is_link ? strrchr(buf, '/') : NULL;
	snprintf(text, 64, "%.63s", base ? base + 1 : buf);
}

static bool is_our_kind(void)
{
	char vendor[64], device[64];

	read_sysfs("vendor", false, vendor);
	read_sysfs("device", false, device);
	return strtoul(vendor, NULL, 16) == PTD_VENDOR_ID &&
	       strtoul(device, NULL, 16) == PTD_DEVICE_ID;
}

static int take_device(void)
{
	char override[64];

	if (!is_our_kind()) {
		fprintf(stderr, "%s is no pri-testdev\n", bdf);
		return -1;
	}
	read_sysfs("driver", true, old_driver);
	read_sysfs("driver_override", false, override);
	if (strcmp(override, "(null)\n"))
		strcpy(old_override, override);
	if (write_file(device_directory(), "driver_override", "vfio-pci"))
		return -1;
	taken = true;
	if (old_driver[0] && write_file(device_directory(), "driver/unbind", bdf))
		return -1;
	return write_file("", "drivers_probe", bdf);
}

/* One that was asked back is left alone: who asked decides what comes next. */
static void give_device_back(void)
{
	if (!taken)
		return;
	write_file(device_directory(), "driver_override", old_override);
	if (leaving)
		return;
	write_file("drivers/vfio-pci", "unbind", bdf);
	if (old_driver[0])
		write_file("", "drivers_probe", bdf);
}

/* ---- iommufd and VFIO ---- */

static int check(int rc, const char *what)
{
	if (rc < 0)
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return rc < 0 ? -1 : 0;
}

/* vfio-dev/ has one entry, which names the character device. */
static int open_vfio(void)
{
	char path[300];
	struct dirent *entry;
	unsigned int tries;
	DIR *dir;

	snprintf(path, sizeof(path), PCI "devices/%s/vfio-dev", bdf);
	/* A device that has just been plugged in is bound a moment later, by who has found it. */
	for (tries = 0; !(dir = opendir(path)) && tries < 50; tries++)
		usleep(10000);
	while (dir && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, "vfio", 4))
			continue;
		snprintf(path, sizeof(path), "/dev/vfio/devices/%s", entry->d_name);
		vfio = open(path, O_RDWR | O_CLOEXEC);
	}
	if (dir)
		closedir(dir);
	return check(vfio, path);
}

static int bind_device(void)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind), .iommufd = iommufd };
	struct vfio_region_info info = {
		.argsz = sizeof(info), .index = VFIO_PCI_CONFIG_REGION_INDEX,
	};

	if (check(ioctl(vfio, VFIO_DEVICE_BIND_IOMMUFD, &bind), "bind to the iommufd") ||
	    check(ioctl(vfio, VFIO_DEVICE_GET_REGION_INFO, &info), "find the config region"))
		return -1;
	dev_id = bind.out_devid;
	config = info.offset;
	info = (struct vfio_region_info){
		.argsz = sizeof(info), .index = VFIO_PCI_BAR0_REGION_INDEX,
	};
	if (check(ioctl(vfio, VFIO_DEVICE_GET_REGION_INFO, &info), "find BAR 0"))
		return -1;
	registers = mmap(NULL, PTD_BAR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, vfio, info.offset);
	return check(registers == MAP_FAILED ? -1 : 0, "map BAR 0");
}

static int make_hwpt(uint32_t flags, uint32_t *hwpt_id)
{
	struct iommu_hwpt_alloc alloc = {
		.size = sizeof(alloc),
		.flags = IOMMU_HWPT_ALLOC_PASID | flags,
		.dev_id = dev_id,
		.pt_id = ioas_id,
		.fault_id = flags & IOMMU_HWPT_FAULT_ID_VALID ? queue_id : 0,
	};
	int rc = ioctl(iommufd, IOMMU_HWPT_ALLOC, &alloc);

	*hwpt_id = alloc.out_hwpt_id;
	return check(rc, "allocate a page table");
}

static int attach(uint32_t flags, uint32_t hwpt_id)
{
	struct vfio_device_attach_iommufd_pt attach = {
		.argsz = sizeof(attach), .flags = flags, .pt_id = hwpt_id, .pasid = PASID,
	};

	return check(ioctl(vfio, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), "attach");
}

/* Two page tables on one address space: the device's own, and one that reports faults. */
static int make_address_space(void)
{
	struct iommu_ioas_alloc ioas = { .size = sizeof(ioas) };
	struct iommu_fault_alloc fault = {
		.size = sizeof(fault), .depth = DEPTH,
		.flags = IOMMU_FAULT_ALLOC_REPORT_LOSS | IOMMU_FAULT_ALLOC_REFUSE,
	};

	if (check(ioctl(iommufd, IOMMU_IOAS_ALLOC, &ioas), "allocate an IOAS") ||
	    check(ioctl(iommufd, IOMMU_FAULT_QUEUE_ALLOC, &fault), "allocate a fault queue"))
		return -1;
	ioas_id = ioas.out_ioas_id;
	queue_id = fault.out_fault_id;
	queue = (int)fault.out_fault_fd;
	if (make_hwpt(0, &own_hwpt) || make_hwpt(IOMMU_HWPT_FAULT_ID_VALID, &pasid_hwpt))
		return -1;
	return attach(0, own_hwpt) || attach(VFIO_DEVICE_ATTACH_PASID, pasid_hwpt) ? -1 : 0;
}

/* VFIO signals the eventfd when somebody unbinds or unplugs the device. */
static int ask_to_be_told(void)
{
	union {
		struct vfio_irq_set head;
		char room[sizeof(struct vfio_irq_set) + sizeof(int)];
	} set = { .head = {
		.argsz = sizeof(set),
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_REQ_IRQ_INDEX,
		.count = 1,
	} };

	leave = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	memcpy(set.head.data, &leave, sizeof(leave));
	return check(ioctl(vfio, VFIO_DEVICE_SET_IRQS, &set), "ask to be told of the end");
}

static int bus_master(bool on)
{
	uint16_t command;

	if (pread(vfio, &command, 2, config + PCI_COMMAND) != 2)
		return check(-1, "read the command register");
	command = on ? command | PCI_COMMAND_MASTER : command & ~PCI_COMMAND_MASTER;
	return check(pwrite(vfio, &command, 2, config + PCI_COMMAND) == 2 ? 0 : -1,
		     "write the command register");
}

/* ---- memory ---- */

static int make_memory(void)
{
	int fd = memfd_create("memory", MFD_CLOEXEC);

	if (check(fd, "memfd") || check(ftruncate(fd, PAGES * PAGE), "size of the memfd"))
		return -1;
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return check(memory == MAP_FAILED ? -1 : 0, "map the memfd");
}

static int map_page(unsigned int page, uint32_t access)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | access,
		.ioas_id = ioas_id,
		.user_va = (uintptr_t)memory + page * PAGE,
		.length = PAGE,
		.iova = IOVA + page * PAGE,
	};
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap), .ioas_id = ioas_id, .iova = map.iova, .length = PAGE,
	};

	/* from read-only to writable by way of nothing, which faults once more at worst */
	if (mapped[page] && check(ioctl(iommufd, IOMMU_IOAS_UNMAP, &unmap), "unmap a page"))
		return -1;
	upgrades += mapped[page] != 0;
	mapped[page] = 0;
	if (check(ioctl(iommufd, IOMMU_IOAS_MAP, &map), "map a page"))
		return -1;
	mapped[page] = access;
	return 0;
}

/* The answer to one request. */
static uint32_t serve_request(const struct iommu_hwpt_pgfault *request)
{
	uint64_t page = (request->addr - IOVA) / PAGE;
	uint32_t access = IOMMU_IOAS_MAP_READABLE;

	if (request->addr < IOVA || page >= PAGES || request->dev_id != dev_id)
		return IOMMUFD_PAGE_RESP_INVALID;
	if (request->perm & IOMMU_PGFAULT_PERM_WRITE)
		access |= IOMMU_IOAS_MAP_WRITEABLE;
	/* another group may have asked for it before */
	if ((mapped[page] & access) == access)
		return IOMMUFD_PAGE_RESP_SUCCESS;
	return map_page(page, access) ? IOMMUFD_PAGE_RESP_INVALID : IOMMUFD_PAGE_RESP_SUCCESS;
}

/* ---- faults ---- */

/* One answer for each group, which ends with the message that says so. */
static unsigned int serve_groups(const struct iommu_hwpt_pgfault *messages, unsigned int n,
				 struct iommu_hwpt_page_response *answers)
{
	uint32_t code = IOMMUFD_PAGE_RESP_SUCCESS, one;
	unsigned int i, size = 0, n_answers = 0;

	for (i = 0; i < n; i++) {
		losses += !!(messages[i].flags & IOMMU_PGFAULT_FLAGS_LOST);
		if (!messages[i].cookie)
			continue;	/* that is all it says: no fault */
		one = serve_request(&messages[i]);
		if (one != IOMMUFD_PAGE_RESP_SUCCESS)
			code = one;
		size++;
		if (!(messages[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE))
			continue;
		answers[n_answers++] = (struct iommu_hwpt_page_response){
			messages[i].cookie, code,
		};
		groups++;
		refused += code != IOMMUFD_PAGE_RESP_SUCCESS;
		largest = size > largest ? size : largest;
		size = 0;
		code = IOMMUFD_PAGE_RESP_SUCCESS;
	}
	return n_answers;
}

/* Answers in, messages out, until there is neither. */
static int serve_queue(void)
{
	static struct iommu_hwpt_pgfault messages[ROOM];
	static struct iommu_hwpt_page_response answers[ROOM];
	struct iommu_fault_serve serve = { .size = sizeof(serve) };
	unsigned int n = 0, done = 0;
	int rc;

	do {
		serve.responses_uptr = (uintptr_t)(answers + done);
		serve.messages_uptr = (uintptr_t)messages;
		serve.response_num = n - done;
		serve.message_num = ROOM;
		rc = ioctl(queue, IOMMU_FAULT_SERVE, &serve);
		done += serve.response_num;
		if (rc && done < n && (errno == ESTALE || errno == EINVAL)) {
			done++;		/* its group is gone: go on behind it */
			continue;
		}
		if (rc)
			return errno == EINTR ? 0 : check(rc, "serve");
		n = serve_groups(messages, serve.message_num, answers);
		done = 0;
	} while (n);
	return 0;
}

/* Wait for events, for a moment, and deal with them. */
static int look(int timeout_ms)
{
	struct epoll_event events[3];
	int n = epoll_wait(loop, events, 3, timeout_ms), i, rc = 0;

	for (i = 0; i < n && !rc; i++) {
		if (events[i].data.fd == queue)
			rc = serve_queue();
		leaving |= events[i].data.fd == leave;
		stopped |= events[i].data.fd == signals;
	}
	return rc;
}

static int make_loop(void)
{
	const int number[] = { SIGINT, SIGTERM, SIGHUP };
	sigset_t set;
	size_t i;

	sigemptyset(&set);
	for (i = 0; i < 3; i++)
		sigaddset(&set, number[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	loop = epoll_create1(EPOLL_CLOEXEC);
	for (i = 0; i < 3; i++) {
		int fd = i == 0 ? queue : i == 1 ? leave : signals;
		struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

		if (check(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event), "epoll"))
			return -1;
	}
	return 0;
}

/* ---- the device ---- */

static void set(unsigned int reg, uint64_t value)
{
	registers[reg / 4] = (uint32_t)value;
	if (reg == PTD_IOVA || reg == PTD_STRIDE || reg == PTD_DATA || reg == PTD_SRC ||
	    reg == PTD_DST || reg == PTD_LENGTH)
		registers[reg / 4 + 1] = (uint32_t)(value >> 32);
}

static uint32_t get(unsigned int reg)
{
	return registers[reg / 4];
}

/* Serve until it has ended and has all its answers, or somebody wants the end. */
static int serve_device(void)
{
	while (get(PTD_STATE) == PTD_STATE_RUNNING || get(PTD_OPEN_GROUPS)) {
		if (look(5))
			return -1;
		if (leaving || stopped)
			return 1;
	}
	return 0;
}

static int start(const char *what, uint64_t src, uint64_t dst, uint32_t flags, uint32_t state)
{
	int rc;

	set(PTD_SRC, src);
	set(PTD_DST, dst);
	set(PTD_LENGTH, flags & PTD_F_TOUCH ? 8 : HALF);
	set(PTD_FLAGS, PTD_F_PASID | PTD_F_READ | flags);
	set(PTD_COMMAND, PTD_CMD_START);
	rc = serve_device();
	if (!rc && get(PTD_STATE) != state)
		rc = -1;
	printf("%s: %s\n", what, rc < 0 ? "WRONG" : rc ? "stopped" : "ok");
	return rc;
}

/*
 * More groups than the queue holds, while the server is busy elsewhere: the kernel refuses
 * what has no room, as the queue was allocated so; else it would tell the device to try again.
 */
static int overflow(void)
{
	int rc;

	set(PTD_COMMAND, PTD_CMD_CLEAR);
	set(PTD_IOVA, IOVA);
	set(PTD_STRIDE, PAGE);
	set(PTD_COUNT, 4 * DEPTH);
	set(PTD_GROUP, 1);
	set(PTD_FLAGS, PTD_F_PASID | PTD_F_READ);
	set(PTD_COMMAND, PTD_CMD_BURST);
	while (get(PTD_OPEN_GROUPS) > DEPTH)
		usleep(1000);
	rc = serve_device();
	if (!rc && (!losses || get(PTD_N_INVALID) != 3 * DEPTH || get(PTD_N_SUCCESS) != DEPTH))
		rc = -1;
	printf("loss: %u told, %u answered, %u refused by the kernel: %s\n", losses,
	       get(PTD_N_SUCCESS), get(PTD_N_INVALID), rc ? "WRONG" : "ok");
	return rc;
}

static bool is_filled(void)
{
	size_t i;

	for (i = 0; i < HALF / 4 && ((uint32_t *)memory)[i] == PATTERN; i++)
		;
	return i == HALF / 4;
}

static int drive(void)
{
	size_t i;
	int rc;

	for (i = 0; i < HALF; i++)
		memory[i] = (char)(i * 7 + i / PAGE);
	set(PTD_COMMAND, PTD_CMD_RESET);
	set(PTD_PASID, PASID);
	set(PTD_GROUP, 4);
	set(PTD_DEPTH, 4);
	rc = start("copy", IOVA, IOVA + HALF, PTD_F_WRITE, PTD_STATE_DONE);
	if (!rc && memcmp(memory, memory + HALF, HALF))
		return check(-1, "the copy differs");
	/* what was read before is written now */
	set(PTD_DATA, (uint64_t)PATTERN << 32 | PATTERN);
	if (!rc)
		rc = start("fill", 0, IOVA, PTD_F_WRITE | PTD_F_FILL, PTD_STATE_DONE);
	if (!rc && (!is_filled() || !upgrades))
		return check(-1, "it is not filled");
	if (!rc)
		rc = start("outside", IOVA + PAGES * PAGE, 0, PTD_F_TOUCH,
			   PTD_STATE_STOPPED_INVALID);
	return rc ? rc : overflow();
}

/* ---- all of it ---- */

static int set_up(void)
{
	iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	return check(iommufd, "open /dev/iommu (CONFIG_IOMMUFD)") || take_device() ||
	       open_vfio() || bind_device() || make_memory() || make_address_space() ||
	       ask_to_be_told() || make_loop() || bus_master(true) ? -1 : 0;
}

/* Stop the device and answer what it has sent; the last close frees the rest. */
static void tear_down(void)
{
	if (registers && registers != MAP_FAILED) {
		set(PTD_COMMAND, PTD_CMD_ABORT);
		if (queue >= 0)
			serve_queue();
		munmap((void *)registers, PTD_BAR_SIZE);
	}
	if (vfio >= 0) {
		bus_master(false);
		close(vfio);
	}
	if (queue >= 0)
		close(queue);
	if (iommufd >= 0)
		close(iommufd);
	give_device_back();
}

int main(int argc, char **argv)
{
	bool wait = argc == 3 && !strcmp(argv[2], "wait");
	int rc;

	if (argc != 2 + wait || strlen(argv[1]) != 12) {
		fprintf(stderr, "usage: iopf-raw DDDD:BB:DD.F [wait]\n");
		return 2;
	}
	strcpy(bdf, argv[1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	rc = set_up();
	if (!rc)
		rc = drive();
	if (!rc && wait)
		puts("waiting");
	while (!rc && wait && !leaving && !stopped)
		rc = look(-1);
	printf("%u groups of up to %u requests, %u pages made writable, %u refused%s\n", groups,
	       largest, upgrades, refused, leaving ? "; asked back" : "");
	tear_down();
	return rc < 0;
}
