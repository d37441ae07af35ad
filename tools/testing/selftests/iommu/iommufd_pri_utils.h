/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A server of I/O page faults, small enough to be driven step by step, and the
 * commands of pri-testdev that make such faults.
 *
 * Functions return 0 (or a count, where it says so) or -errno; what failed in
 * opening and closing is printed.
 */
#ifndef __SELFTEST_IOMMUFD_PRI_UTILS_H
#define __SELFTEST_IOMMUFD_PRI_UTILS_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "iommufd_fdinfo.h"
#include "pri.h"
#include "iommufd_harness.h"

#define MAX_UNITS 8
#define PAGE 0x1000ull
#define WAIT_MS 60000
#define QUIET_MS 50

/*
 * What a device sees: a window to read from and one to write to, each of which
 * shows its half of the unit's memory over and over.
 */
#define SRC 0x10000000ull
#define DST 0x80000000ull
#define WINDOW 0x40000000ull
#define HALF (2ull << 20)
#define HALF_PAGES (HALF / PAGE)

#define PASID 1
#define OTHER_PASID 2
#define READ_WRITE (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)

/* A device, with an address space of its own. */
struct unit {
	struct pri_device pri;
	/* BAR 0 by way of sysfs: works without the VFIO device */
	struct pri_device regs;
	uint32_t ioas;
	/* tables on the IOAS: for the RID, and for PASIDs, with the queue */
	uint32_t plain;
	uint32_t faulting;
	unsigned char *memory;
};

struct server {
	struct iopf io;
	struct iopf_queue queue;
	struct unit unit[MAX_UNITS];
	int n_units;
	unsigned long groups;
};

/* ---- registers and time ---- */

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint32_t reg(const struct unit *unit, unsigned int number)
{
	return pri_get(&unit->regs, number);
}

/* Wait until a register has the value; what it has in the end. */
static uint32_t wait_reg(const struct unit *unit, unsigned int number, uint32_t value)
{
	uint64_t end = now_ms() + WAIT_MS;

	while (reg(unit, number) != value && now_ms() < end)
		usleep(200);
	return reg(unit, number);
}

/* Wait until the engine has stopped, and why. */
static enum ptd_state wait_stopped(const struct unit *unit)
{
	uint64_t end = now_ms() + WAIT_MS;

	while (reg(unit, PTD_STATE) == PTD_STATE_RUNNING && now_ms() < end)
		usleep(200);
	return reg(unit, PTD_STATE);
}

static int map_regs(struct iopf *io, const char *bdf, struct unit *unit)
{
	char path[80];
	void *base;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource0", bdf);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return iopf_fail(io, errno, "open %s", path);
	base = mmap(NULL, PTD_BAR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (base == MAP_FAILED)
		return iopf_fail(io, errno, "map %s", path);
	unit->regs.bar = (struct iopf_bar){ base, PTD_BAR_SIZE };
	return 0;
}

/* How often a test does what it repeats: @name in the environment, for longer runs. */
static unsigned int times(const char *name, unsigned int otherwise)
{
	const char *value = getenv(name);

	return value && *value ? (unsigned int)strtoul(value, NULL, 0) : otherwise;
}

/* ---- opening and closing ---- */

static void fill(unsigned char *memory)
{
	size_t i;

	for (i = 0; i < HALF; i++)
		memory[i] = (unsigned char)(i * 7 + i / PAGE);
}

/* The device, its registers and an address space; if that fails the device is given back. */
static int unit_open_device(struct iopf *io, const char *bdf, struct unit *unit)
{
	int rc = pri_open(io, bdf, &unit->pri);

	if (rc)
		return rc;
	rc = map_regs(io, bdf, unit);
	if (!rc)
		rc = iopf_device_bus_master(&unit->pri.vfio, true);
	if (!rc)
		rc = iopf_ioas_alloc(io, &unit->ioas);
	if (rc)
		pri_close(&unit->pri);
	return rc;
}

static int unit_open(struct server *server, const char *bdf, struct unit *unit)
{
	struct iopf *io = &server->io;
	int rc;

	unit->memory = mmap(NULL, 2 * HALF, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			    -1, 0);
	if (unit->memory == MAP_FAILED)
		return iopf_fail(io, errno, "allocate memory");
	fill(unit->memory);
	rc = unit_open_device(io, bdf, unit);
	if (rc)
		return rc;
	rc = iopf_hwpt_alloc(io, unit->pri.vfio.id, unit->ioas, IOMMU_HWPT_ALLOC_PASID, 0,
			     &unit->plain);
	if (!rc)
		rc = iopf_hwpt_alloc(io, unit->pri.vfio.id, unit->ioas, IOMMU_HWPT_ALLOC_PASID,
				     server->queue.id, &unit->faulting);
	if (!rc)
		rc = iopf_device_attach(&unit->pri.vfio, unit->plain);
	if (!rc)
		rc = iopf_device_attach_pasid(&unit->pri.vfio, PASID, unit->faulting);
	if (rc)
		pri_close(&unit->pri);
	return rc;
}

/* After a setup that failed nobody runs a teardown: what was opened goes back here. */
static void server_give_back(struct server *server)
{
	while (server->n_units)
		pri_close(&server->unit[--server->n_units].pri);
	iopf_queue_close(&server->queue);
	iopf_close(&server->io);
}

/*
 * Open n devices, from the first-th on, with such a queue; 0, or a negative errno
 * and a line that says why.
 */
static int server_open_with(struct server *server, const struct iopf_queue_options *options,
			    int first, int n)
{
	struct pri_address found[MAX_UNITS];
	int rc;

	*server = (struct server){ .queue.fd = -1 };
	rc = iopf_open(&server->io);
	if (!rc && pri_find(found, MAX_UNITS) < first + n)
		rc = iopf_fail(&server->io, ENODEV, "find the devices");
	if (!rc)
		rc = iopf_queue_alloc_with(&server->io, options, &server->queue);
	while (!rc && server->n_units < n) {
		rc = unit_open(server, found[first + server->n_units].bdf,
			       &server->unit[server->n_units]);
		server->n_units += !rc;
	}
	if (rc) {
		ksft_print_msg("%s\n", iopf_error(&server->io));
		server_give_back(server);
	}
	return rc;
}

static int server_open(struct server *server, int first, int n)
{
	return server_open_with(server, &(struct iopf_queue_options){ 0 }, first, n);
}

/* Every object must be free by then: 0, or what the first one that is not said. */
static int server_close(struct server *server)
{
	int rc = 0, i;

	for (i = 0; i < server->n_units && !rc; i++)
		rc = pri_close(&server->unit[i].pri);
	for (i = 0; i < server->n_units && !rc; i++) {
		rc = iopf_destroy(&server->io, server->unit[i].plain);
		if (!rc)
			rc = iopf_destroy(&server->io, server->unit[i].faulting);
		if (!rc)
			rc = iopf_destroy(&server->io, server->unit[i].ioas);
	}
	if (!rc)
		rc = iopf_queue_close(&server->queue);
	if (rc)
		ksft_print_msg("%s\n", iopf_error(&server->io));
	iopf_close(&server->io);
	return rc;
}

/* ---- serving ---- */

static void *memory_at(const struct unit *unit, uint64_t addr)
{
	if (addr >= SRC && addr < SRC + WINDOW)
		return unit->memory + (addr - SRC) % HALF;
	if (addr >= DST && addr < DST + WINDOW)
		return unit->memory + HALF + (addr - DST) % HALF;
	return NULL;
}

static int map_page(struct server *server, const struct unit *unit, uint64_t addr,
		    uint32_t access)
{
	int rc = iopf_map(&server->io, unit->ioas, addr, memory_at(unit, addr), PAGE, access);

	return rc == -EEXIST ? 0 : rc;
}

static struct unit *unit_of(struct server *server, uint32_t dev_id)
{
	int i;

	for (i = 0; i < server->n_units; i++) {
		if (server->unit[i].pri.vfio.id == dev_id)
			return &server->unit[i];
	}
	return NULL;
}

/* Map what a group asks for; the answer to it. */
static uint32_t serve_group(struct server *server, const struct iopf_group *group)
{
	const struct unit *unit = unit_of(server, group->dev_id);
	unsigned int i;

	server->groups++;
	for (i = 0; unit && i < group->n; i++) {
		if (!memory_at(unit, group->requests[i].addr))
			return IOMMUFD_PAGE_RESP_INVALID;
		if (map_page(server, unit, group->requests[i].addr, READ_WRITE))
			return IOMMUFD_PAGE_RESP_FAILURE;
	}
	return unit ? IOMMUFD_PAGE_RESP_SUCCESS : IOMMUFD_PAGE_RESP_FAILURE;
}

static int answer(struct server *server, uint32_t cookie, uint32_t code)
{
	struct iommu_hwpt_page_response response = { .cookie = cookie, .code = code };

	return iopf_queue_write(&server->queue, &response, 1);
}

/* Read what is there within timeout_ms; the number of messages. */
static int read_some(const struct iopf_queue *queue, struct iommu_hwpt_pgfault *messages, size_t n,
		     int timeout_ms)
{
	struct pollfd pfd = { .fd = queue->fd, .events = POLLIN };
	int rc = poll(&pfd, 1, timeout_ms);

	return rc < 0 ? -errno : iopf_queue_read(queue, messages, n);
}

/* Read until there are n messages. */
static int read_all(const struct iopf_queue *queue, struct iommu_hwpt_pgfault *messages, int n)
{
	int done = 0, rc = 1;

	while (done < n && rc > 0) {
		rc = read_some(queue, messages + done, (size_t)(n - done), WAIT_MS);
		if (rc > 0)
			done += rc;
	}
	return rc < 0 ? rc : done;
}

/* Serve, by read(2) and write(2), what comes within timeout_ms; how many groups there were. */
static int serve_some(struct server *server, int timeout_ms)
{
	struct iommu_hwpt_pgfault messages[PTD_CREDITS_MAX];
	struct iopf_group group;
	struct iopf_iter iter;
	int n, groups = 0;

	n = read_some(&server->queue, messages, PTD_CREDITS_MAX, timeout_ms);
	if (n < 0)
		return n;
	iter = iopf_groups(messages, (size_t)n);
	while ((n = iopf_next_group(&iter, &group)) > 0) {
		n = answer(server, group.cookie, serve_group(server, &group));
		if (n != 1)
			return n < 0 ? n : -EIO;
		groups++;
	}
	return n < 0 ? n : groups;
}

/* Answer all that the device waits for: it is to ask again, later and elsewhere. */
static inline int put_off(struct server *server, const struct iommu_hwpt_pgfault *read, int n)
{
	struct iommu_hwpt_pgfault m[PTD_CREDITS_MAX];
	int i;

	do {
		for (i = 0; i < n; i++) {
			if (read[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE &&
			    answer(server, read[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS) != 1)
				return -EIO;
		}
		read = m;
		n = read_some(&server->queue, m, PTD_CREDITS_MAX, QUIET_MS);
	} while (n > 0);
	return n;
}

static bool is_busy(const struct server *server)
{
	int i;

	for (i = 0; i < server->n_units; i++) {
		if (reg(&server->unit[i], PTD_STATE) == PTD_STATE_RUNNING ||
		    reg(&server->unit[i], PTD_OPEN_GROUPS))
			return true;
	}
	return false;
}

/* Serve until no device is busy. */
static int serve(struct server *server)
{
	uint64_t end = now_ms() + WAIT_MS;
	int rc = 0;

	while (is_busy(server) && rc >= 0) {
		rc = serve_some(server, 1);
		if (rc > 0)
			end = now_ms() + WAIT_MS;
		else if (!rc && now_ms() > end)
			rc = -ETIMEDOUT;
	}
	return rc < 0 ? rc : 0;
}

/* Serve through the posted reads of a ring; count: as groups are served, for others to see. */
static int serve_ring(struct server *server, struct iopf_ring *ring, volatile unsigned long *count)
{
	struct iopf_group group;
	struct iopf_slot *slot;
	struct iopf_iter iter;
	int event = 0;

	while (is_busy(server) && event >= 0) {
		event = iopf_ring_next(ring, 5, &slot);
		if (event != IOPF_FAULTS)
			continue;
		iter = iopf_groups(slot->messages, slot->n_messages);
		while (iopf_next_group(&iter, &group) > 0)
			iopf_slot_answer(slot, group.cookie, serve_group(server, &group));
		iopf_ring_reply(ring, slot);
		if (count)
			*count = server->groups;
	}
	return event < 0 ? event : 0;
}

/* ---- driving the device ---- */

#define FLAGS_READ (PTD_F_PASID | PTD_F_READ)
#define FLAGS_WRITE (PTD_F_PASID | PTD_F_WRITE)

static int command(struct unit *unit, enum ptd_command what, uint32_t pasid, uint64_t iova,
		   uint32_t flags)
{
	pri_set64(&unit->pri, PTD_IOVA, iova);
	pri_set(&unit->pri, PTD_PASID, pasid);
	pri_set(&unit->pri, PTD_FLAGS, flags);
	return pri_command(&unit->pri, what);
}

/* A page request that is a group of its own. */
static int request(struct unit *unit, uint32_t pasid, uint64_t iova, uint32_t flags, uint32_t id)
{
	pri_set(&unit->pri, PTD_GRPID, id);
	return command(unit, PTD_CMD_PRI, pasid, iova, flags | PTD_F_LAST);
}

/* Whether VFIO resets the device at each open and close, and with it what it has counted. */
static inline bool can_be_reset(const struct pri_address *device)
{
	char path[80], methods[64];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset_method", device->bdf);
	first_line(path, methods, sizeof(methods));
	return strstr(methods, "flr") || strstr(methods, "bus");
}

/* n requests for following pages, as groups of so many; how many were taken. */
static int burst(struct unit *unit, uint32_t pasid, uint32_t n, uint32_t group, uint32_t flags)
{
	pri_set(&unit->pri, PTD_GRPID, 0);
	pri_set(&unit->pri, PTD_COUNT, n);
	pri_set(&unit->pri, PTD_GROUP, group);
	pri_set64(&unit->pri, PTD_STRIDE, PAGE);
	return command(unit, PTD_CMD_BURST, pasid, SRC, FLAGS_READ | flags);
}

/* A request for a PASID without a table: VT-d refuses it, behind an SMMU the kernel answers. */
static bool is_refused(struct unit *unit, uint32_t pasid)
{
	uint32_t invalid = reg(unit, PTD_N_INVALID);
	int rc = request(unit, pasid, SRC, FLAGS_READ, 1);

	if (rc)
		return rc == -EINVAL;
	return wait_reg(unit, PTD_N_INVALID, invalid + 1) == invalid + 1;
}

/* After an overflow the device is refused until the kernel has cleared it. */
static int request_when_cleared(struct unit *unit, uint32_t id)
{
	uint64_t end = now_ms() + WAIT_MS;
	int rc;

	do {
		rc = request(unit, PASID, SRC, FLAGS_READ, id);
	} while (rc == -ENOSPC && now_ms() < end);
	return rc;
}

static int start_copy(struct unit *unit, uint64_t length, uint32_t group, uint32_t depth)
{
	struct pri_copy copy = {
		.src = SRC, .dst = DST, .length = length, .pasid = PASID,
		.group = group, .depth = depth,
	};

	return pri_start(&unit->pri, &copy);
}

static bool copied(const struct unit *unit, uint64_t length)
{
	return reg(unit, PTD_STATE) == PTD_STATE_DONE &&
	       !memcmp(unit->memory, unit->memory + HALF, length);
}

/* 8 bytes as the device reads them, or 0 if it cannot. */
static uint64_t dma_read(struct unit *unit, uint32_t pasid, uint64_t iova)
{
	return command(unit, PTD_CMD_DMA_READ, pasid, iova, FLAGS_READ) ? 0 :
	       pri_get64(&unit->pri, PTD_DATA);
}

static uint64_t memory_read(const struct unit *unit, uint64_t iova)
{
	uint64_t value;

	memcpy(&value, memory_at(unit, iova), sizeof(value));
	return value;
}

/* ---- groups that wait for an answer ---- */

#define PENDING 8

/* Groups of the PASID, the first half of them read, none answered. */
static void make_pending(struct __test_metadata *_metadata, struct server *server,
			 struct iommu_hwpt_pgfault *read)
{
	struct unit *unit = &server->unit[0];
	uint64_t end = now_ms() + WAIT_MS;

	ASSERT_EQ(PENDING / 2, burst(unit, PASID, PENDING / 2, 1, 0));
	ASSERT_EQ(PENDING / 2, read_all(&server->queue, read, PENDING / 2));
	ASSERT_EQ(PENDING / 2, burst(unit, PASID, PENDING / 2, 1, 0));
	/* where a host passes the device through they are on their way for a while */
	while (fdinfo_number(server->queue.fd, "iommufd-fault-queued") < PENDING / 2 &&
	       now_ms() < end)
		usleep(1000);
	EXPECT_EQ(PENDING, reg(unit, PTD_OPEN_GROUPS));
}

struct churn {
	struct server *server;
	const struct iopf_queue *queue;
	volatile bool *stop;
};

/* Answers most of what it reads, with all codes, and leaves the rest to the kernel. */
static void *churn_answers(void *arg)
{
	struct iommu_hwpt_page_response response;
	struct iommu_hwpt_pgfault m[64];
	struct churn *churn = arg;
	unsigned int n = 0;
	int i, got;

	while (!*churn->stop) {
		got = read_some(churn->queue, m, 64, 5);
		for (i = 0; i < got; i++) {
			if (!(m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE) || n++ % 5 == 0)
				continue;
			response.cookie = m[i].cookie;
			response.code = n % 3;
			/* it may be gone */
			iopf_queue_write(churn->queue, &response, 1);
		}
	}
	return NULL;
}

/* ---- the checks after each test ---- */

static void check_unit(struct __test_metadata *_metadata, const struct unit *unit)
{
	struct pri_counts n;

	EXPECT_EQ(0, wait_reg(unit, PTD_OPEN_GROUPS, 0));
	EXPECT_EQ(0, reg(unit, PTD_OPEN_REQUESTS));
	pri_counts(&unit->regs, &n);
	EXPECT_EQ(n.groups, n.responses);
	EXPECT_EQ(n.responses, n.success + n.invalid + n.failure);
	EXPECT_EQ(0, n.unmatched);
	EXPECT_EQ(0, reg(unit, PTD_N_STALE));
}

static void check_server(struct __test_metadata *_metadata, struct server *server)
{
	int i;

	EXPECT_EQ(0, server_close(server));
	for (i = 0; i < server->n_units; i++)
		check_unit(_metadata, &server->unit[i]);
}

#endif
