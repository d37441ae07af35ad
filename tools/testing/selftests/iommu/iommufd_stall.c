// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device that stalls on its faults, behind an SMMUv3: from the access to user
 * space, and back by CMD_RESUME.
 *
 * Needs smmu-testdev, an emulated device (tools/testing/qemu); skipped without it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/iopf.h"
#include "smmu-testdev.h"
#include "iommufd_harness.h"

#define DEVICES "/sys/bus/pci/devices"
#define HOST_BRIDGE "0000:00:00.0"

#define PAGE 0x1000ull
#define PAGES STD_SLOTS
#define IOVA 0x10000000ull
#define PASID 5
#define OTHER_PASID 6
#define LAST_PASID 1023
#define WRITTEN 0x9abcdef012345678
#define WAIT_MS 60000
#define QUIET_MS 50

#define SUCCESS IOMMUFD_PAGE_RESP_SUCCESS
#define INVALID IOMMUFD_PAGE_RESP_INVALID
#define FAILURE IOMMUFD_PAGE_RESP_FAILURE
#define READ_WRITE (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)

/* The device's id in the directory of all of them, or false */
static bool find_device(char bdf[16])
{
	DIR *dir = opendir(DEVICES);
	char path[320], text[32];
	struct dirent *entry;
	bool found = false;
	FILE *file;

	while (dir && !found && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), DEVICES "/%s/modalias", entry->d_name);
		file = fopen(path, "re");
		if (!file)
			continue;
		found = fgets(text, sizeof(text), file) &&
			!strncmp(text, "pci:v000019E5d0000A250", 22);
		fclose(file);
		if (found)
			snprintf(bdf, 16, "%.15s", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

static uint32_t get(const struct iopf_bar *bar, unsigned int reg)
{
	return ((volatile uint32_t *)bar->base)[reg / 4];
}

static void set(const struct iopf_bar *bar, unsigned int reg, uint32_t value)
{
	((volatile uint32_t *)bar->base)[reg / 4] = value;
}

/* The device, and user space as it sees it */
struct rig {
	struct iopf io;
	struct iopf_queue queue;
	struct iopf_device dev;
	/* BAR 0 by way of sysfs: works without the VFIO device */
	struct iopf_bar bar;
	/* the counters when the test began */
	uint32_t stalls, retries, aborts;
	uint32_t ioas, plain, faulting;
	uint64_t *memory;
	bool device_open, queue_open;
};

static uint32_t state(const struct rig *rig, unsigned int slot)
{
	return get(&rig->bar, STD_SLOT + 16 * slot + STD_SLOT_STATE);
}

/* What the slot's state is when it has changed, or in the end. */
static uint32_t wait_state(const struct rig *rig, unsigned int slot, uint32_t wanted)
{
	unsigned int ms;

	for (ms = 0; ms < WAIT_MS && state(rig, slot) != wanted; ms++)
		usleep(1000);
	return state(rig, slot);
}

static uint64_t data(const struct rig *rig, unsigned int slot)
{
	unsigned int reg = STD_SLOT + 16 * slot + STD_SLOT_DATA;

	return get(&rig->bar, reg) | (uint64_t)get(&rig->bar, reg + 4) << 32;
}

/* One access of 8 bytes; what became of it at once. */
static uint32_t touch(const struct rig *rig, unsigned int slot, uint32_t pasid,
		      uint64_t iova, uint32_t flags)
{
	set(&rig->bar, STD_IOVA, iova);
	set(&rig->bar, STD_IOVA + 4, iova >> 32);
	set(&rig->bar, STD_PASID, pasid);
	set(&rig->bar, STD_FLAGS, flags | (pasid ? STD_F_PASID : 0));
	set(&rig->bar, STD_DATA, (uint32_t)WRITTEN);
	set(&rig->bar, STD_DATA + 4, WRITTEN >> 32);
	set(&rig->bar, STD_ACCESS, slot);
	return state(rig, slot);
}

static int read_some(const struct rig *rig, struct iommu_hwpt_pgfault *messages,
		     size_t n, int timeout_ms)
{
	struct pollfd pfd = { .fd = rig->queue.fd, .events = POLLIN };
	int rc = poll(&pfd, 1, timeout_ms);

	return rc < 0 ? -errno : iopf_queue_read(&rig->queue, messages, n);
}

/* Read until there are n messages. */
static void read_all(struct __test_metadata *_metadata, const struct rig *rig,
		     struct iommu_hwpt_pgfault *messages, size_t n)
{
	size_t got = 0;
	int rc;

	while (got < n) {
		rc = read_some(rig, messages + got, n - got, WAIT_MS);
		ASSERT_LT(0, rc);
		got += rc;
	}
}

static int answer(const struct rig *rig, uint32_t cookie, uint32_t code)
{
	struct iommu_hwpt_page_response response = { .cookie = cookie, .code = code };

	return iopf_queue_write(&rig->queue, &response, 1);
}

static int map_page(struct rig *rig, unsigned int page, uint32_t access)
{
	return iopf_map(&rig->io, rig->ioas, IOVA + page * PAGE,
			rig->memory + page * PAGE / 8, PAGE, access);
}

static int map_bar(struct rig *rig, const char *bdf)
{
	char path[80];
	void *base;
	int fd;

	snprintf(path, sizeof(path), DEVICES "/%s/resource0", bdf);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	base = mmap(NULL, STD_BAR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (base == MAP_FAILED)
		return -errno;
	rig->bar = (struct iopf_bar){ base, STD_BAR_SIZE };
	return 0;
}

static int close_device(struct rig *rig)
{
	if (!rig->device_open)
		return 0;
	rig->device_open = false;
	return iopf_device_close(&rig->dev);
}

static int rig_open(struct rig *rig, const char *bdf)
{
	const uint32_t flags = IOMMU_HWPT_ALLOC_PASID;
	int rc;

	rc = iopf_open(&rig->io);
	if (!rc)
		rc = iopf_queue_alloc(&rig->io, 0, &rig->queue);
	rig->queue_open = !rc;
	if (!rc)
		rc = iopf_device_open(&rig->io, bdf, &rig->dev);
	rig->device_open = !rc;
	if (!rc)
		rc = map_bar(rig, bdf);
	if (!rc && (get(&rig->bar, STD_MAGIC) != STD_MAGIC_VALUE || get(&rig->bar, STD_STALLED)))
		rc = -ENODEV;
	if (rc)
		return rc;
	rig->stalls = get(&rig->bar, STD_N_STALLS);
	rig->retries = get(&rig->bar, STD_N_RETRY);
	rig->aborts = get(&rig->bar, STD_N_ABORT);
	rc = iopf_device_bus_master(&rig->dev, true);
	if (!rc)
		rc = iopf_ioas_alloc(&rig->io, &rig->ioas);
	if (!rc)
		rc = iopf_hwpt_alloc(&rig->io, rig->dev.id, rig->ioas, flags, 0, &rig->plain);
	if (!rc)
		rc = iopf_hwpt_alloc(&rig->io, rig->dev.id, rig->ioas, flags, rig->queue.id,
				     &rig->faulting);
	return rc;
}

FIXTURE(stall) {
	struct rig rig;
};

FIXTURE_SETUP(stall)
{
	struct rig *rig = &self->rig;
	char bdf[16];
	size_t i;
	int rc;

	if (!find_device(bdf))
		SKIP(return, "no smmu-testdev");
	rig->memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)rig->memory);
	for (i = 0; i < PAGES * PAGE / 8; i++)
		rig->memory[i] = i * 0x0101010101010101ull;

	/* After a setup that failed nobody runs a teardown. */
	rc = rig_open(rig, bdf);
	if (rc) {
		TH_LOG("%s", iopf_error(&rig->io));
		close_device(rig);
	}
	ASSERT_EQ(0, rc);
}

/* Every stall was resumed or aborted, once; and every object is free. */
FIXTURE_TEARDOWN(stall)
{
	struct rig *rig = &self->rig;

	if (!rig->bar.base)
		return;
	EXPECT_EQ(0, close_device(rig));
	EXPECT_EQ(0, get(&rig->bar, STD_STALLED));
	EXPECT_EQ(0, get(&rig->bar, STD_N_UNMATCHED));
	EXPECT_EQ(get(&rig->bar, STD_N_STALLS) - rig->stalls,
		  get(&rig->bar, STD_N_RETRY) - rig->retries +
		  get(&rig->bar, STD_N_ABORT) - rig->aborts);
	EXPECT_EQ(0, iopf_destroy(&rig->io, rig->plain));
	EXPECT_EQ(0, iopf_destroy(&rig->io, rig->faulting));
	EXPECT_EQ(0, iopf_destroy(&rig->io, rig->ioas));
	EXPECT_EQ(0, rig->queue_open ? iopf_queue_close(&rig->queue) : 0);
	iopf_close(&rig->io);
	munmap((void *)rig->bar.base, STD_BAR_SIZE);
	munmap(rig->memory, PAGES * PAGE);
}

/* A fault of each kind on the RID or a PASID: what user space is told, and the data. */
static void check_faults(struct __test_metadata *_metadata, struct rig *rig,
			 uint32_t pasid)
{
	static const struct { uint32_t flags, perm; } kinds[] = {
		{ 0, IOMMU_PGFAULT_PERM_READ },
		{ STD_F_WRITE, IOMMU_PGFAULT_PERM_WRITE },
		{ STD_F_EXEC, IOMMU_PGFAULT_PERM_READ | IOMMU_PGFAULT_PERM_EXEC },
		{ STD_F_PRIV, IOMMU_PGFAULT_PERM_READ | IOMMU_PGFAULT_PERM_PRIV },
	};
	struct iommu_hwpt_pgfault m;
	uint64_t iova;
	unsigned int i;

	for (i = 0; i < 4; i++) {
		iova = IOVA + i * PAGE + 8 * i;
		ASSERT_EQ(STD_STATE_STALLED, touch(rig, i, pasid, iova, kinds[i].flags));
		ASSERT_EQ(1, read_some(rig, &m, 1, WAIT_MS));
		EXPECT_EQ(IOMMU_PGFAULT_FLAGS_LAST_PAGE |
			  (pasid ? IOMMU_PGFAULT_FLAGS_PASID_VALID : 0), m.flags);
		EXPECT_EQ(rig->dev.id, m.dev_id);
		EXPECT_EQ(pasid, m.pasid);
		EXPECT_EQ(kinds[i].perm, m.perm);
		EXPECT_EQ(iova, m.addr);
		EXPECT_EQ(STD_STATE_STALLED, state(rig, i));
		ASSERT_EQ(0, map_page(rig, i, READ_WRITE));
		ASSERT_EQ(1, answer(rig, m.cookie, SUCCESS));
		EXPECT_EQ(STD_STATE_DONE, state(rig, i));
		EXPECT_EQ(rig->memory[(iova - IOVA) / 8],
			  kinds[i].flags & STD_F_WRITE ? WRITTEN : data(rig, i));
		/* mapped now */
		EXPECT_EQ(STD_STATE_DONE, touch(rig, i, pasid, iova, kinds[i].flags));
	}
	EXPECT_EQ(0, read_some(rig, &m, 1, QUIET_MS));
}

TEST_F(stall, rid)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->faulting));
	check_faults(_metadata, rig, 0);
}

TEST_F(stall, pasid)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->plain));
	ASSERT_EQ(0, iopf_device_attach_pasid(&rig->dev, PASID, rig->faulting));
	check_faults(_metadata, rig, PASID);
}

/* With nothing on the RID, and with the greatest PASID */
TEST_F(stall, last_pasid_alone)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, iopf_device_attach_pasid(&rig->dev, LAST_PASID, rig->faulting));
	EXPECT_EQ(STD_STATE_TERMINATED, touch(rig, 9, 0, IOVA, 0));
	check_faults(_metadata, rig, LAST_PASID);
	EXPECT_EQ(-EINVAL, iopf_device_attach_pasid(&rig->dev, LAST_PASID + 1, rig->faulting));
}

/* RID and PASID of one device on one queue, told apart */
TEST_F(stall, rid_and_pasid)
{
	struct rig *rig = &self->rig;
	struct iommu_hwpt_pgfault m[2];

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->faulting));
	ASSERT_EQ(0, iopf_device_attach_pasid(&rig->dev, PASID, rig->faulting));
	ASSERT_EQ(STD_STATE_STALLED, touch(rig, 0, 0, IOVA, 0));
	ASSERT_EQ(STD_STATE_STALLED, touch(rig, 1, PASID, IOVA, 0));
	read_all(_metadata, rig, m, 2);
	EXPECT_EQ(0, m[0].flags & IOMMU_PGFAULT_FLAGS_PASID_VALID);
	EXPECT_EQ(PASID, m[1].pasid);
	EXPECT_EQ(1, answer(rig, m[1].cookie, INVALID));
	EXPECT_EQ(STD_STATE_STALLED, state(rig, 0));
	EXPECT_EQ(STD_STATE_ABORTED, state(rig, 1));
	EXPECT_EQ(1, answer(rig, m[0].cookie, FAILURE));
	EXPECT_EQ(STD_STATE_ABORTED, state(rig, 0));
}

/* Without a queue nobody would resume: the access ends at once. */
TEST_F(stall, others_terminate)
{
	struct rig *rig = &self->rig;
	struct iommu_hwpt_pgfault m;

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->plain));
	EXPECT_EQ(STD_STATE_TERMINATED, touch(rig, 0, 0, IOVA, 0));
	ASSERT_EQ(0, iopf_device_attach_pasid(&rig->dev, PASID, rig->plain));
	ASSERT_EQ(0, iopf_device_attach_pasid(&rig->dev, OTHER_PASID, rig->faulting));
	EXPECT_EQ(STD_STATE_TERMINATED, touch(rig, 0, PASID, IOVA, 0));
	EXPECT_EQ(0, read_some(rig, &m, 1, QUIET_MS));
	EXPECT_EQ(STD_STATE_STALLED, touch(rig, 0, OTHER_PASID, IOVA, 0));
	ASSERT_EQ(1, read_some(rig, &m, 1, WAIT_MS));
	EXPECT_EQ(1, answer(rig, m.cookie, INVALID));
}

TEST_F(stall, success_without_page)
{
	struct rig *rig = &self->rig;
	struct iommu_hwpt_pgfault m;
	unsigned int i;

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->faulting));
	ASSERT_EQ(STD_STATE_STALLED, touch(rig, 0, 0, IOVA, 0));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(1, read_some(rig, &m, 1, WAIT_MS));
		ASSERT_EQ(1, answer(rig, m.cookie, SUCCESS));
		EXPECT_EQ(STD_STATE_STALLED, state(rig, 0));
	}
	ASSERT_EQ(1, read_some(rig, &m, 1, WAIT_MS));
	EXPECT_EQ(1, answer(rig, m.cookie, INVALID));
	EXPECT_EQ(4, get(&rig->bar, STD_N_STALLS) - rig->stalls);
}

TEST_F(stall, write_to_read_only)
{
	struct rig *rig = &self->rig;
	struct iommu_hwpt_pgfault m;

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->faulting));
	ASSERT_EQ(0, map_page(rig, 0, IOMMU_IOAS_MAP_READABLE));
	EXPECT_EQ(STD_STATE_DONE, touch(rig, 0, 0, IOVA, 0));
	ASSERT_EQ(STD_STATE_STALLED, touch(rig, 0, 0, IOVA, STD_F_WRITE));
	ASSERT_EQ(1, read_some(rig, &m, 1, WAIT_MS));
	EXPECT_EQ(IOMMU_PGFAULT_PERM_WRITE, m.perm);
	EXPECT_EQ(1, answer(rig, m.cookie, INVALID));
	EXPECT_EQ(STD_STATE_ABORTED, state(rig, 0));
	EXPECT_EQ(0, rig->memory[0]);
}

static void stall_all(struct __test_metadata *_metadata, struct rig *rig,
		      uint32_t pasid)
{
	unsigned int i;

	for (i = 0; i < STD_SLOTS; i++)
		ASSERT_EQ(STD_STATE_STALLED, touch(rig, i, pasid, IOVA + i * PAGE, 0));
	EXPECT_EQ(STD_SLOTS, get(&rig->bar, STD_STALLED));
}

static void expect_all(struct __test_metadata *_metadata, const struct rig *rig,
		       uint32_t wanted)
{
	unsigned int i;

	for (i = 0; i < STD_SLOTS; i++)
		EXPECT_EQ(wanted, state(rig, i));
}

/* As many as the device can have, answered by one write */
TEST_F(stall, all_at_once)
{
	struct rig *rig = &self->rig;
	struct iommu_hwpt_page_response r[STD_SLOTS] = {};
	struct iommu_hwpt_pgfault m[STD_SLOTS];
	unsigned int i;

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->faulting));
	stall_all(_metadata, rig, 0);
	read_all(_metadata, rig, m, STD_SLOTS);
	for (i = 0; i < STD_SLOTS; i++) {
		ASSERT_EQ(0, map_page(rig, i, READ_WRITE));
		r[STD_SLOTS - 1 - i].cookie = m[i].cookie;
	}
	EXPECT_EQ(STD_SLOTS, iopf_queue_write(&rig->queue, r, STD_SLOTS));
	expect_all(_metadata, rig, STD_STATE_DONE);
	for (i = 0; i < STD_SLOTS; i++)
		EXPECT_EQ(rig->memory[i * PAGE / 8], data(rig, i));
}

/* Queued and delivered stalls end when the translation goes, before detach returns. */
TEST_F(stall, detach)
{
	struct rig *rig = &self->rig;
	struct iommu_hwpt_pgfault m[10];

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->faulting));
	stall_all(_metadata, rig, 0);
	read_all(_metadata, rig, m, 10);
	ASSERT_EQ(0, iopf_device_detach(&rig->dev));
	expect_all(_metadata, rig, STD_STATE_ABORTED);
	EXPECT_GT(0, answer(rig, m[3].cookie, SUCCESS));
	EXPECT_EQ(STD_STATE_TERMINATED, touch(rig, 0, 0, IOVA, 0));
}

TEST_F(stall, detach_pasid)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->plain));
	ASSERT_EQ(0, iopf_device_attach_pasid(&rig->dev, PASID, rig->faulting));
	stall_all(_metadata, rig, PASID);
	ASSERT_EQ(0, iopf_device_detach_pasid(&rig->dev, PASID));
	expect_all(_metadata, rig, STD_STATE_ABORTED);
	EXPECT_EQ(STD_STATE_TERMINATED, touch(rig, 0, PASID, IOVA, 0));
}

/* From a table with a queue to one without, and back */
TEST_F(stall, replace)
{
	struct rig *rig = &self->rig;
	struct iommu_hwpt_pgfault m;

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->faulting));
	ASSERT_EQ(0, iopf_device_attach_pasid(&rig->dev, PASID, rig->faulting));
	stall_all(_metadata, rig, 0);
	/* tried again, with a table that reports no faults */
	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->plain));
	expect_all(_metadata, rig, STD_STATE_TERMINATED);
	EXPECT_EQ(STD_STATE_TERMINATED, touch(rig, 0, 0, IOVA, 0));
	stall_all(_metadata, rig, PASID);
	ASSERT_EQ(0, iopf_device_attach_pasid(&rig->dev, PASID, rig->plain));
	expect_all(_metadata, rig, STD_STATE_TERMINATED);
	EXPECT_EQ(STD_STATE_TERMINATED, touch(rig, 0, PASID, IOVA, 0));
	ASSERT_EQ(0, iopf_device_attach_pasid(&rig->dev, PASID, rig->faulting));
	EXPECT_EQ(STD_STATE_STALLED, touch(rig, 0, PASID, IOVA, 0));
	ASSERT_EQ(1, read_some(rig, &m, 1, WAIT_MS));
	EXPECT_EQ(1, answer(rig, m.cookie, INVALID));
}

TEST_F(stall, close_device)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->faulting));
	stall_all(_metadata, rig, 0);
	ASSERT_EQ(0, close_device(rig));
	expect_all(_metadata, rig, STD_STATE_ABORTED);
}

TEST_F(stall, close_queue)
{
	struct rig *rig = &self->rig;
	unsigned int i;

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->faulting));
	stall_all(_metadata, rig, 0);
	close(rig->queue.fd);
	rig->queue_open = false;
	/* what the kernel had not taken from the event queue yet ends soon after */
	for (i = 0; i < STD_SLOTS; i++)
		EXPECT_EQ(STD_STATE_ABORTED, wait_state(rig, i, STD_STATE_ABORTED));
	touch(rig, 0, 0, IOVA, 0);
	EXPECT_EQ(STD_STATE_ABORTED, wait_state(rig, 0, STD_STATE_ABORTED));
}

/* Attach, stall some, detach, with answers in between: nothing is lost or comes twice. */
TEST_F(stall, churn)
{
	struct rig *rig = &self->rig;
	struct iommu_hwpt_pgfault m[8];
	unsigned int round, i;
	int n;

	ASSERT_EQ(0, iopf_device_attach(&rig->dev, rig->plain));
	for (round = 0; round < 300; round++) {
		ASSERT_EQ(0, iopf_device_attach_pasid(&rig->dev, PASID, rig->faulting));
		for (i = 0; i < 8; i++)
			ASSERT_EQ(STD_STATE_STALLED,
				  touch(rig, i, PASID, IOVA + i * PAGE, 0));
		n = read_some(rig, m, 8, round % 3 ? WAIT_MS : 0);
		ASSERT_LE(0, n);
		for (i = 0; i < (unsigned int)n && i < round % 9; i++)
			ASSERT_EQ(1, answer(rig, m[i].cookie, round % 2 ? INVALID : FAILURE));
		ASSERT_EQ(0, iopf_device_detach_pasid(&rig->dev, PASID));
		for (i = 0; i < 8; i++)
			ASSERT_EQ(STD_STATE_ABORTED, state(rig, i));
	}
	EXPECT_EQ(300 * 8, get(&rig->bar, STD_N_STALLS) - rig->stalls);
}

/* A function that can neither stall nor request pages: refused, and of use otherwise. */
TEST_F(stall, neither)
{
	struct rig *rig = &self->rig;
	uint32_t plain, faulting, for_pasids;
	struct iopf_device bridge;
	int rc;

	ASSERT_EQ(0, iopf_device_open(&rig->io, HOST_BRIDGE, &bridge))
		TH_LOG("%s", iopf_error(&rig->io));
	ASSERT_EQ(0, iopf_hwpt_alloc(&rig->io, bridge.id, rig->ioas, 0, 0, &plain));
	ASSERT_EQ(0, iopf_hwpt_alloc(&rig->io, bridge.id, rig->ioas, 0, rig->queue.id,
				     &faulting));
	EXPECT_EQ(-EOPNOTSUPP, iopf_device_attach(&bridge, faulting));
	EXPECT_EQ(0, iopf_device_attach(&bridge, plain));
	EXPECT_EQ(-EOPNOTSUPP, iopf_device_attach(&bridge, faulting));
	/* Linux 7.3 makes it for a device without PASIDs, too, but attaches it to none. */
	rc = iopf_hwpt_alloc(&rig->io, bridge.id, rig->ioas, IOMMU_HWPT_ALLOC_PASID, 0,
			     &for_pasids);
	if (rc) {
		EXPECT_EQ(-EOPNOTSUPP, rc);
	} else {
		EXPECT_GT(0, iopf_device_attach_pasid(&bridge, 1, for_pasids));
		EXPECT_EQ(0, iopf_destroy(&rig->io, for_pasids));
	}
	EXPECT_EQ(0, iopf_device_close(&bridge));
	EXPECT_EQ(0, iopf_destroy(&rig->io, faulting));
	EXPECT_EQ(0, iopf_destroy(&rig->io, plain));
}

TEST_HARNESS_MAIN
