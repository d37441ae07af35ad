// SPDX-License-Identifier: GPL-2.0-only
/*
 * End-to-end tests of I/O page faults: a PCIe device's page requests go through
 * the IOMMU and iommufd to a server in user space, and its answers go back.
 *
 * They want pri-testdev (1234:9171, see tools/testing/qemu), the only device of
 * which all page requests and all responses can be counted, behind an IOMMU
 * with PASIDs.  Tests for which there are too few of them are skipped.
 *
 * After each test every group that a device has sent must have had exactly one
 * response.  The counters are read through sysfs, so that this holds for what
 * happens while, and after, the VFIO device is closed as well.
 */
#include "iommufd_pri_device.h"

/* The request as user space sees it, the answer as the device sees it, and the data. */
TEST_F(pri, single_fault)
{
	struct pollfd pfd = { .fd = self->server.queue.fd, .events = POLLIN };
	struct iommu_hwpt_pgfault m[2];

	EXPECT_EQ(0, poll(&pfd, 1, 0));
	EXPECT_EQ(0, dma_read(self->unit, PASID, SRC));
	ASSERT_EQ(0, request(self->unit, PASID, SRC, FLAGS_READ | PTD_F_WRITE, 7));
	ASSERT_EQ(1, read_some(&self->server.queue, m, 2, WAIT_MS));
	EXPECT_EQ(0, poll(&pfd, 1, 0));
	EXPECT_EQ(IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE, m[0].flags);
	EXPECT_EQ(self->unit->pri.vfio.id, m[0].dev_id);
	EXPECT_EQ(PASID, m[0].pasid);
	EXPECT_EQ(7, m[0].grpid);
	EXPECT_EQ(IOMMU_PGFAULT_PERM_READ | IOMMU_PGFAULT_PERM_WRITE, m[0].perm);
	EXPECT_EQ(SRC, m[0].addr);

	EXPECT_EQ(1, reg(self->unit, PTD_OPEN_GROUPS));
	ASSERT_EQ(0, map_page(&self->server, self->unit, SRC, READ_WRITE));
	ASSERT_EQ(1, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(1, wait_reg(self->unit, PTD_N_SUCCESS, 1));
	EXPECT_EQ(7, reg(self->unit, PTD_RESP_GRPID));
	EXPECT_EQ(PASID, reg(self->unit, PTD_RESP_PASID));

	EXPECT_EQ(memory_read(self->unit, SRC + 8), dma_read(self->unit, PASID, SRC + 8));
	pri_set64(&self->unit->pri, PTD_DATA, 0x1122334455667788);
	EXPECT_EQ(0, command(self->unit, PTD_CMD_DMA_WRITE, PASID, SRC + 16, FLAGS_WRITE));
	EXPECT_EQ(0x1122334455667788, memory_read(self->unit, SRC + 16));
}

/* Permissions, and addresses outside of every table, pass through unchanged. */
TEST_F(pri, address_and_permission)
{
	const uint64_t high = 0xffff800000000000;
	struct iommu_hwpt_pgfault m[3];
	int i;

	ASSERT_EQ(0, request(self->unit, PASID, 0, FLAGS_READ, 0));
	ASSERT_EQ(0, request(self->unit, PASID, DST, FLAGS_WRITE, 511));
	ASSERT_EQ(0, request(self->unit, PASID, high, FLAGS_READ | PTD_F_WRITE, 1));
	ASSERT_EQ(3, read_all(&self->server.queue, m, 3));
	EXPECT_EQ(0, m[0].addr);
	EXPECT_EQ(IOMMU_PGFAULT_PERM_READ, m[0].perm);
	EXPECT_EQ(511, m[1].grpid);
	EXPECT_EQ(IOMMU_PGFAULT_PERM_WRITE, m[1].perm);
	EXPECT_EQ(high, m[2].addr);
	EXPECT_EQ(IOMMU_PGFAULT_PERM_READ | IOMMU_PGFAULT_PERM_WRITE, m[2].perm);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(1, answer(&self->server, m[i].cookie, IOMMUFD_PAGE_RESP_INVALID));
	EXPECT_EQ(3, wait_reg(self->unit, PTD_N_INVALID, 3));
}

/*
 * What no mapping could satisfy is refused by VT-d's driver: a privileged access
 * from a device that has none enabled, an address that the table cannot hold. The
 * group goes with the request, and the next of its id begins anew.
 */
TEST_F(pri, refused_by_the_kernel)
{
	const uint64_t nowhere = 0x0123456789abc000;
	struct iommu_hwpt_pgfault m[2];

	if (access("/sys/class/iommu/dmar0", F_OK))
		SKIP(return, "VT-d's driver does this, SMMUv3's leaves it to user space");
	ASSERT_EQ(0, request(self->unit, PASID, SRC, FLAGS_READ | PTD_F_PRIV, 1));
	EXPECT_EQ(1, wait_reg(self->unit, PTD_N_INVALID, 1));
	ASSERT_EQ(0, request(self->unit, PASID, nowhere, FLAGS_READ, 2));
	EXPECT_EQ(2, wait_reg(self->unit, PTD_N_INVALID, 2));

	pri_set(&self->unit->pri, PTD_GRPID, 3);
	ASSERT_EQ(0, command(self->unit, PTD_CMD_PRI, PASID, nowhere, FLAGS_READ));
	ASSERT_EQ(0, request(self->unit, PASID, SRC, FLAGS_READ, 3));
	EXPECT_EQ(3, wait_reg(self->unit, PTD_N_INVALID, 3));
	EXPECT_EQ(0, read_some(&self->server.queue, m, 2, QUIET_MS));

	ASSERT_EQ(0, request(self->unit, PASID, SRC, FLAGS_READ, 3));
	ASSERT_EQ(1, read_some(&self->server.queue, m, 2, WAIT_MS));
	EXPECT_EQ(1, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(1, wait_reg(self->unit, PTD_N_SUCCESS, 1));
}

/* n requests in one group: one cookie, LAST on the last, one response for all. */
static void check_group(struct __test_metadata *_metadata, struct server *server, int n)
{
	struct iommu_hwpt_pgfault m[PTD_CREDITS_MAX];
	struct unit *unit = &server->unit[0];
	int i;

	ASSERT_EQ(n, burst(unit, PASID, n, n, 0));
	ASSERT_EQ(n, read_all(&server->queue, m, n));
	for (i = 0; i < n; i++) {
		EXPECT_EQ(m[0].cookie, m[i].cookie);
		EXPECT_EQ(SRC + i * PAGE, m[i].addr);
		EXPECT_EQ(i == n - 1, !!(m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE));
		ASSERT_EQ(0, map_page(server, unit, m[i].addr, READ_WRITE));
	}
	EXPECT_EQ(n, reg(unit, PTD_OPEN_REQUESTS));
	EXPECT_EQ(1, answer(server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(0, wait_reg(unit, PTD_OPEN_REQUESTS, 0));
	EXPECT_EQ(1, reg(unit, PTD_N_RESPONSES));
	EXPECT_EQ(-EINVAL, answer(server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	for (i = 0; i < n; i++)
		EXPECT_EQ(memory_read(unit, SRC + i * PAGE),
			  dma_read(unit, PASID, SRC + i * PAGE));
}

TEST_F(pri, group_of_3)
{
	check_group(_metadata, &self->server, 3);
}

TEST_F(pri, group_of_32)
{
	check_group(_metadata, &self->server, 32);
}

TEST_F(pri, group_of_all_credits)
{
	check_group(_metadata, &self->server, PTD_CREDITS_MAX);
}

/* The device's engine stops with the answer that it gets. */
static void check_refusal(struct __test_metadata *_metadata, struct server *server, uint32_t code,
			  enum ptd_state state)
{
	struct unit *unit = &server->unit[0];
	struct iommu_hwpt_pgfault m[1];

	ASSERT_EQ(0, map_page(server, unit, SRC, READ_WRITE));
	ASSERT_EQ(0, start_copy(unit, PAGE, 1, 1));
	ASSERT_EQ(1, read_some(&server->queue, m, 1, WAIT_MS));
	EXPECT_EQ(DST, m[0].addr);
	EXPECT_EQ(PTD_STATE_RUNNING, reg(unit, PTD_STATE));
	ASSERT_EQ(1, answer(server, m[0].cookie, code));
	EXPECT_EQ(state, wait_stopped(unit));
	EXPECT_EQ(DST, pri_get64(&unit->regs, PTD_FAULT_ADDR));
	EXPECT_EQ(0, pri_get64(&unit->regs, PTD_BYTES));
}

TEST_F(pri, invalid)
{
	check_refusal(_metadata, &self->server, IOMMUFD_PAGE_RESP_INVALID,
		      PTD_STATE_STOPPED_INVALID);
	EXPECT_EQ(1, reg(self->unit, PTD_N_INVALID));
}

TEST_F(pri, failure)
{
	check_refusal(_metadata, &self->server, IOMMUFD_PAGE_RESP_FAILURE,
		      PTD_STATE_STOPPED_FAILURE);
	EXPECT_EQ(1, reg(self->unit, PTD_N_FAILURE));
}

/* A PASID that nothing is attached to: user space hears nothing. */
TEST_F(pri, unmapped_pasid)
{
	struct pri_copy copy = {
		.src = SRC, .dst = DST, .length = PAGE, .pasid = OTHER_PASID,
		.group = 1, .depth = 1,
	};
	struct iommu_hwpt_pgfault m[1];

	EXPECT_TRUE(is_refused(self->unit, OTHER_PASID));
	ASSERT_EQ(0, pri_start(&self->unit->pri, &copy));
	EXPECT_LT(PTD_STATE_DONE, wait_stopped(self->unit));
	EXPECT_EQ(reg(self->unit, PTD_N_REQUESTS), reg(self->unit, PTD_N_INVALID));
	EXPECT_EQ(0, read_some(&self->server.queue, m, 1, QUIET_MS));
	ASSERT_EQ(0, start_copy(self->unit, PAGE, 1, 1));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, PAGE));
}

/* A PASID whose table has no queue: the kernel itself answers INVALID. */
TEST_F(pri, pasid_without_queue)
{
	struct iommu_hwpt_pgfault m[1];

	ASSERT_EQ(0, iopf_device_attach_pasid(&self->unit->pri.vfio, OTHER_PASID,
					      self->unit->plain));
	ASSERT_EQ(0, request(self->unit, OTHER_PASID, SRC, FLAGS_READ, 1));
	EXPECT_EQ(1, wait_reg(self->unit, PTD_N_INVALID, 1));
	EXPECT_EQ(0, read_some(&self->server.queue, m, 1, QUIET_MS));
	ASSERT_EQ(0, map_page(&self->server, self->unit, SRC, READ_WRITE));
	EXPECT_EQ(memory_read(self->unit, SRC), dma_read(self->unit, OTHER_PASID, SRC));
	EXPECT_EQ(0, iopf_device_detach_pasid(&self->unit->pri.vfio, OTHER_PASID));
}

/* All the requests that the device may have in flight, each a group, in one go. */
TEST_F(pri, burst_of_256)
{
	struct iommu_hwpt_page_response responses[PTD_CREDITS_MAX];
	struct iommu_hwpt_pgfault m[PTD_CREDITS_MAX + 1];
	int i, round;

	ASSERT_EQ(PTD_CREDITS_MAX, reg(self->unit, PTD_CREDITS));
	for (round = 1; round <= 4; round++) {
		ASSERT_EQ(PTD_CREDITS_MAX, burst(self->unit, PASID, PTD_CREDITS_MAX, 1, 0));
		ASSERT_EQ(PTD_CREDITS_MAX, read_all(&self->server.queue, m, PTD_CREDITS_MAX));
		for (i = 0; i < PTD_CREDITS_MAX; i++) {
			EXPECT_EQ(SRC + i * PAGE, m[i].addr);
			EXPECT_EQ(i, m[i].grpid);
			responses[i] = (struct iommu_hwpt_page_response){ .cookie = m[i].cookie };
		}
		/* no credit is left, and nothing else is queued */
		EXPECT_EQ(-EBUSY, burst(self->unit, PASID, 1, 1, 0));
		EXPECT_EQ(0, read_some(&self->server.queue, m, 1, 0));
		EXPECT_EQ(PTD_CREDITS_MAX,
			  iopf_queue_write(&self->server.queue, responses, PTD_CREDITS_MAX));
		EXPECT_EQ(round * PTD_CREDITS_MAX,
			  wait_reg(self->unit, PTD_N_SUCCESS, round * PTD_CREDITS_MAX));
	}
}

/*
 * A device that ignores its credits fills the page request queue.  The IOMMU
 * then sets the overflow bit and writes no request until that is cleared; what
 * it drops, it settles with the device alone: hardware answers a dropped LAST,
 * QEMU refuses the request, which the device counts.  So from the kernel one
 * response is due for each LAST that was taken.  Those beyond the credits are
 * answered INVALID by the kernel, and the group in which the overflow fell has
 * lost its LAST: its beginning must not become part of the next group of the
 * same id.
 */
TEST_F_TIMEOUT(pri, prq_overflow, 600)
{
	const uint32_t n = 5000, size = PTD_CREDITS_MAX;
	uint32_t groups = 0, refused;
	struct iommu_hwpt_pgfault m[2];
	int round, taken;

	for (round = 0; round < 3; round++) {
		refused = reg(self->unit, PTD_N_REFUSED);
		taken = burst(self->unit, PASID, n, size, PTD_F_NO_CREDIT);
		ASSERT_GT(taken, 0);
		ASSERT_LT(taken, n);
		groups += taken / size;
		EXPECT_EQ(n - taken, reg(self->unit, PTD_N_REFUSED) - refused);
		EXPECT_EQ(groups, reg(self->unit, PTD_N_GROUPS));
		EXPECT_EQ(0, serve(&self->server));
		EXPECT_EQ(groups, reg(self->unit, PTD_N_RESPONSES));
		EXPECT_EQ(self->server.groups + round, reg(self->unit, PTD_N_SUCCESS));

		/* the group that was cut off begins anew */
		ASSERT_EQ(0, request_when_cleared(self->unit, taken / size));
		groups++;
		ASSERT_EQ(1, read_some(&self->server.queue, m, 2, WAIT_MS));
		EXPECT_EQ(taken / size, m[0].grpid);
		EXPECT_EQ(1, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
		EXPECT_EQ(groups, wait_reg(self->unit, PTD_N_RESPONSES, groups));
	}
	ASSERT_EQ(0, start_copy(self->unit, HALF, 8, 8));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, HALF));
}

/* Ranges that begin and end within pages; what is around them stays as it was. */
TEST_F_TIMEOUT(pri, copy, 600)
{
	struct pri_copy copy = {
		.src = SRC + 0x123, .dst = DST + 0xfedc, .length = 0x54321, .pasid = PASID,
		.group = 4, .depth = 8,
	};
	unsigned char *src = self->unit->memory + 0x123, *dst = self->unit->memory + HALF + 0xfedc;
	uint64_t sum = 0, i;

	memset(self->unit->memory + HALF, 0x5a, HALF);
	ASSERT_EQ(0, pri_start(&self->unit->pri, &copy));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_EQ(PTD_STATE_DONE, reg(self->unit, PTD_STATE));
	EXPECT_EQ(0, memcmp(src, dst, copy.length));
	EXPECT_EQ(0x5a, dst[-1]);
	EXPECT_EQ(0x5a, dst[copy.length]);
	for (i = 0; i < copy.length; i++)
		sum += src[i];
	EXPECT_EQ(sum, pri_get64(&self->unit->regs, PTD_SUM));
}

/* Pages that are mapped before do not fault; those around them do. */
TEST_F(pri, mapped_pages_do_not_fault)
{
	uint64_t addr;

	for (addr = SRC + 16 * PAGE; addr < SRC + 32 * PAGE; addr += PAGE)
		ASSERT_EQ(0, map_page(&self->server, self->unit, addr, READ_WRITE));
	pri_watch(&self->unit->pri, SRC + 16 * PAGE, SRC + 32 * PAGE);
	ASSERT_EQ(0, start_copy(self->unit, 64 * PAGE, 8, 4));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, 64 * PAGE));
	EXPECT_EQ(0, reg(self->unit, PTD_N_WATCH));
	EXPECT_GE(reg(self->unit, PTD_N_REQUESTS), 64 + 48);
}

/* A write to a read-only page faults as a write; the page can then be mapped anew. */
TEST_F(pri, write_to_read_only)
{
	struct iommu_hwpt_pgfault m[2];

	ASSERT_EQ(0, map_page(&self->server, self->unit, SRC, IOMMU_IOAS_MAP_READABLE));
	ASSERT_EQ(0, map_page(&self->server, self->unit, DST, IOMMU_IOAS_MAP_READABLE));
	memset(self->unit->memory + HALF, 0x5a, PAGE);
	EXPECT_EQ(0x5a5a5a5a5a5a5a5a, dma_read(self->unit, PASID, DST));
	ASSERT_EQ(0, start_copy(self->unit, PAGE, 1, 1));
	ASSERT_EQ(1, read_some(&self->server.queue, m, 2, WAIT_MS));
	EXPECT_EQ(DST, m[0].addr);
	EXPECT_EQ(IOMMU_PGFAULT_PERM_WRITE, m[0].perm);
	EXPECT_EQ(0x5a, self->unit->memory[HALF]);

	ASSERT_EQ(0, iopf_unmap(&self->server.io, self->unit->ioas, DST, PAGE));
	ASSERT_EQ(0, map_page(&self->server, self->unit, DST, READ_WRITE));
	ASSERT_EQ(1, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(PTD_STATE_DONE, wait_stopped(self->unit));
	EXPECT_TRUE(copied(self->unit, PAGE));
	EXPECT_EQ(1, reg(self->unit, PTD_N_REQUESTS));
}

/* An answer that promises too much: the device asks again, and the first cookie is void. */
TEST_F(pri, success_without_page)
{
	struct iommu_hwpt_pgfault first[1], second[1];

	ASSERT_EQ(0, map_page(&self->server, self->unit, DST, READ_WRITE));
	ASSERT_EQ(0, start_copy(self->unit, PAGE, 1, 1));
	ASSERT_EQ(1, read_some(&self->server.queue, first, 1, WAIT_MS));
	ASSERT_EQ(1, answer(&self->server, first[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	ASSERT_EQ(1, read_some(&self->server.queue, second, 1, WAIT_MS));
	EXPECT_EQ(SRC, second[0].addr);
	EXPECT_NE(first[0].cookie, second[0].cookie);
	EXPECT_EQ(-EINVAL, answer(&self->server, first[0].cookie, IOMMUFD_PAGE_RESP_INVALID));
	ASSERT_EQ(0, map_page(&self->server, self->unit, SRC, READ_WRITE));
	ASSERT_EQ(1, answer(&self->server, second[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(PTD_STATE_DONE, wait_stopped(self->unit));
	EXPECT_TRUE(copied(self->unit, PAGE));
}

/* What was unmapped is gone for the device, from the IOMMU's caches too. */
TEST_F(pri, unmap)
{
	struct iommu_hwpt_pgfault m[1];

	ASSERT_EQ(0, map_page(&self->server, self->unit, SRC, READ_WRITE));
	EXPECT_EQ(memory_read(self->unit, SRC), dma_read(self->unit, PASID, SRC));
	ASSERT_EQ(0, iopf_unmap(&self->server.io, self->unit->ioas, SRC, PAGE));
	EXPECT_EQ(-EFAULT, command(self->unit, PTD_CMD_DMA_READ, PASID, SRC, FLAGS_READ));
	ASSERT_EQ(0, start_copy(self->unit, PAGE, 1, 1));
	ASSERT_EQ(1, read_some(&self->server.queue, m, 1, WAIT_MS));
	EXPECT_EQ(SRC, m[0].addr);
	EXPECT_EQ(1, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_INVALID));
	EXPECT_EQ(PTD_STATE_STOPPED_INVALID, wait_stopped(self->unit));
}

/* More than fits in one descriptor of VT-d: QEMU's takes 1 GiB at most. */
#define LARGE 0x100000000ull
#define LARGE_SIZE ((2ull << 30) + HALF)

/* HALF of memory: a huge page, one entry of each table, or many small ones. */
static int memory_file(void)
{
	int fd = memfd_create("iommufd_pri", MFD_CLOEXEC | MFD_HUGETLB);

	if (fd >= 0 && !fallocate(fd, 0, 0, HALF))
		return fd;
	if (fd >= 0)
		close(fd);
	fd = memfd_create("iommufd_pri", MFD_CLOEXEC);
	return fd >= 0 && ftruncate(fd, HALF) ? -1 : fd;
}

/* LARGE_SIZE of addresses that show the same memory over and over, or NULL. */
static unsigned char *map_repeated(int fd)
{
	unsigned char *space, *start, *at;

	space = mmap(NULL, LARGE_SIZE + HALF, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (space == MAP_FAILED)
		return NULL;
	start = space + (-(uintptr_t)space & (HALF - 1));
	for (at = start; at < start + LARGE_SIZE; at += HALF) {
		if (mmap(at, HALF, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != at)
			return NULL;
	}
	return start;
}

/* One unmap of more than the IOMMU can be told of in one go: none of it may stay cached. */
TEST_F_TIMEOUT(pri, unmap_large, 600)
{
	struct pri_copy touch = {
		.src = LARGE + LARGE_SIZE / 2, .length = PAGE, .pasid = PASID,
		.flags = PTD_F_TOUCH, .group = 1, .depth = 1,
	};
	const uint64_t step = LARGE_SIZE / 2 - PAGE / 2;
	struct iommu_hwpt_pgfault m[1];
	unsigned char *space;
	uint64_t iova;
	int kmsg, fd;

	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_GE(kmsg, 0);
	ASSERT_GE(lseek(kmsg, 0, SEEK_END), 0);
	fd = memory_file();
	ASSERT_GE(fd, 0);
	space = map_repeated(fd);
	ASSERT_NE(NULL, space);
	memcpy(space, self->unit->memory, HALF);
	ASSERT_EQ(0, iopf_map(&self->server.io, self->unit->ioas, LARGE, space, LARGE_SIZE,
			      READ_WRITE));
	ASSERT_EQ(0, map_page(&self->server, self->unit, SRC, READ_WRITE));
	for (iova = LARGE; iova < LARGE + LARGE_SIZE; iova += step)
		EXPECT_EQ(*(uint64_t *)(space + (iova - LARGE)),
			  dma_read(self->unit, PASID, iova));

	ASSERT_EQ(0, iopf_unmap(&self->server.io, self->unit->ioas, LARGE, LARGE_SIZE));
	EXPECT_EQ(0, log_lines(kmsg, "VT-d detected Invalidation"));
	for (iova = LARGE; iova < LARGE + LARGE_SIZE; iova += step)
		EXPECT_EQ(-EFAULT, command(self->unit, PTD_CMD_DMA_READ, PASID, iova, FLAGS_READ));
	EXPECT_EQ(memory_read(self->unit, SRC), dma_read(self->unit, PASID, SRC));

	ASSERT_EQ(0, pri_start(&self->unit->pri, &touch));
	ASSERT_EQ(1, read_some(&self->server.queue, m, 1, WAIT_MS));
	EXPECT_EQ(touch.src, m[0].addr);
	EXPECT_EQ(1, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_INVALID));
	EXPECT_EQ(PTD_STATE_STOPPED_INVALID, wait_stopped(self->unit));
	close(fd);
	close(kmsg);
}

/* ---- io_uring ---- */

/* Reads that wait stay posted; each fault of the device completes exactly one. */
TEST_F(pri, posted_reads)
{
	struct iopf_ring ring;
	struct iopf_slot *slot;
	int i;

	ASSERT_EQ(0, iopf_ring_init_mode(&ring, &self->server.queue, IOPF_READ, 8, 4));
	EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&ring, QUIET_MS, &slot));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, request(self->unit, PASID, SRC + i * PAGE, FLAGS_READ, i));
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&ring, WAIT_MS, &slot));
		ASSERT_EQ(1, slot->n_messages);
		EXPECT_EQ(SRC + i * PAGE, slot->messages[0].addr);
		iopf_slot_answer(slot, slot->messages[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS);
		iopf_ring_reply(&ring, slot);
		EXPECT_EQ(IOPF_ANSWERED, iopf_ring_next(&ring, WAIT_MS, &slot));
		EXPECT_EQ(i + 1, wait_reg(self->unit, PTD_N_SUCCESS, i + 1));
		EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&ring, QUIET_MS, &slot));
	}
	EXPECT_EQ(8, iopf_ring_in_flight(&ring));
	iopf_ring_exit(&ring);
	EXPECT_EQ(0, iopf_ring_in_flight(&ring));
}

TEST_F_TIMEOUT(pri, copy_by_posted_reads, 600)
{
	struct iopf_ring ring;

	ASSERT_EQ(0, iopf_ring_init_mode(&ring, &self->server.queue, IOPF_READ, 8,
					 PTD_CREDITS_MAX));
	ASSERT_EQ(0, start_copy(self->unit, HALF, 4, 8));
	EXPECT_EQ(0, serve_ring(&self->server, &ring, NULL));
	EXPECT_TRUE(copied(self->unit, HALF));
	EXPECT_GE(self->server.groups, HALF_PAGES * 2 / 4);
	EXPECT_EQ(self->server.groups, reg(self->unit, PTD_N_SUCCESS));
	iopf_ring_exit(&ring);
}

TEST_HARNESS_MAIN
