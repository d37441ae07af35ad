// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory on demand, with a device behind an IOMMU: its DMA goes on while its memory is
 * taken away, given back, copied, moved and split, and reads and writes what the process
 * has there.
 */
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "iommufd_pri_utils.h"
#include "../../../../drivers/iommu/iommufd/iommufd_test_iopf.h"
#include "iommufd_demand_utils.h"

/* What the device copies: the first half of the area to the second one */
#define BASE SRC
#define SIZE (4ull << 20)
#define PART (SIZE / 2)
#define HUGE_SIZE (2ull << 20)

FIXTURE(demand)
{
	struct server server;
	struct unit unit;
	uint32_t table;
};

/* Memory at a multiple of the size of a huge page */
static unsigned char *aligned_memory(int prot)
{
	char *p = mmap(NULL, SIZE + HUGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return MAP_FAILED;
	p = (char *)(((uintptr_t)p + HUGE_SIZE - 1) & ~(HUGE_SIZE - 1));
	return mmap(p, SIZE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void set_memory(struct __test_metadata *_metadata, struct unit *unit, int flags, int fd)
{
	unsigned char *p = aligned_memory(PROT_READ | PROT_WRITE);

	ASSERT_NE(MAP_FAILED, p);
	if (fd >= 0)
		ASSERT_EQ(p, mmap(p, SIZE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0));
	unit->memory = p;
}

FIXTURE_SETUP(demand)
{
	struct iopf *io = &self->server.io;
	struct unit *unit = &self->unit;
	struct pri_address found;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	self->server.queue.fd = -1;
	ASSERT_EQ(0, iopf_open(io));
	ASSERT_EQ(0, pri_open(io, found.bdf, &unit->pri));
	ASSERT_EQ(0, map_regs(io, found.bdf, unit));
	ASSERT_EQ(0, iopf_device_bus_master(&unit->pri.vfio, true));
	ASSERT_EQ(0, iopf_ioas_alloc(io, &unit->ioas));
	ASSERT_EQ(0, iopf_hwpt_alloc(io, unit->pri.vfio.id, unit->ioas,
				     IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_ALLOC_ON_FAULT, 0,
				     &self->table));
	ASSERT_EQ(0, iopf_device_attach(&unit->pri.vfio, self->table));
	ASSERT_EQ(0, iopf_device_attach_pasid(&unit->pri.vfio, PASID, self->table));
	set_memory(_metadata, unit, 0, -1);
}

FIXTURE_TEARDOWN(demand)
{
	struct iommu_test_demand_audit a = {};

	EXPECT_EQ(0, demand_audit(self->server.io.fd, self->unit.ioas, &a));
	EXPECT_EQ(0, a.wrong);
	EXPECT_EQ(0, pri_close(&self->unit.pri));
	EXPECT_EQ(0, iopf_destroy(&self->server.io, self->table));
	EXPECT_EQ(0, iopf_destroy(&self->server.io, self->unit.ioas));
	check_unit(_metadata, &self->unit);
	iopf_close(&self->server.io);
}

static void map_all(struct __test_metadata *_metadata, struct _test_data_demand *self)
{
	ASSERT_EQ(0, iopf_map(&self->server.io, self->unit.ioas, BASE, self->unit.memory, SIZE,
			      WRITE_TOO | ON_FAULT));
}

static struct iommu_test_demand_audit audit(struct __test_metadata *_metadata,
					    struct _test_data_demand *self)
{
	struct iommu_test_demand_audit a = {};

	EXPECT_EQ(0, demand_audit(self->server.io.fd, self->unit.ioas, &a));
	EXPECT_EQ(0, a.wrong);
	return a;
}

static long counter(struct _test_data_demand *self, const char *name)
{
	return demand_counter(self->server.io.fd, self->unit.ioas, name);
}

static void start(struct __test_metadata *_metadata, struct unit *unit, uint64_t length)
{
	struct pri_copy copy = {
		.src = BASE, .dst = BASE + PART, .length = length, .pasid = PASID,
		.group = 4, .depth = 8,
	};

	ASSERT_EQ(0, pri_start(&unit->pri, &copy));
}

/* The device copies, and the process sees the copy. */
static void copy(struct __test_metadata *_metadata, struct unit *unit, uint64_t length)
{
	start(_metadata, unit, length);
	ASSERT_EQ(PTD_STATE_DONE, wait_stopped(unit));
	EXPECT_EQ(0, memcmp(unit->memory, unit->memory + PART, length));
}

static void fill_with(struct unit *unit, unsigned int seed)
{
	size_t i;

	for (i = 0; i < PART; i++)
		unit->memory[i] = (unsigned char)(i * 7 + i / PAGE + seed);
}

static uint64_t read_at(struct unit *unit, uint64_t offset)
{
	return dma_read(unit, PASID, BASE + offset);
}

/* The device asks for a page, and has its answer; 0 or what the device said. */
static int ask(struct unit *unit, uint64_t offset, uint32_t flags, uint32_t id)
{
	uint32_t n = reg(unit, PTD_N_RESPONSES);
	int rc = request(unit, PASID, BASE + offset, flags, id);

	if (!rc)
		wait_reg(unit, PTD_N_RESPONSES, n + 1);
	return rc;
}

/* It asks for a page, and then writes to it; 0 or what the device said. */
static int write_at(struct unit *unit, uint64_t offset, uint64_t value)
{
	int rc = ask(unit, offset, FLAGS_WRITE, 1);

	if (rc)
		return rc;
	pri_set64(&unit->pri, PTD_DATA, value);
	return command(unit, PTD_CMD_DMA_WRITE, PASID, BASE + offset, FLAGS_WRITE);
}

static uint64_t asked_read_at(struct unit *unit, uint64_t offset)
{
	return ask(unit, offset, FLAGS_READ, 2) ? 0 : read_at(unit, offset);
}

static uint64_t word_at(const struct unit *unit, uint64_t offset)
{
	uint64_t value;

	memcpy(&value, unit->memory + offset, sizeof(value));
	return value;
}

/* ---- the data ---- */

TEST_F(demand, copy_without_a_pin)
{
	struct rlimit none = {};

	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &none));
	map_all(_metadata, self);
	fill_with(&self->unit, 1);
	copy(_metadata, &self->unit, PART);
	EXPECT_EQ(0, named_number("/proc/self/status", "VmPin", ':'));
	EXPECT_EQ(2 * HALF_PAGES, audit(_metadata, self).pages);
	EXPECT_LT(0, counter(self, "around"));
	EXPECT_EQ(0, counter(self, "refused"));
}

TEST_F(demand, dontneed)
{
	map_all(_metadata, self);
	fill_with(&self->unit, 2);
	copy(_metadata, &self->unit, PART);
	ASSERT_EQ(0, madvise(self->unit.memory, SIZE, MADV_DONTNEED));
	EXPECT_EQ(0, audit(_metadata, self).pages);
	/* the device has no translation of its own left either */
	EXPECT_NE(0, command(&self->unit, PTD_CMD_DMA_READ, PASID, BASE, FLAGS_READ));
	EXPECT_EQ(0, asked_read_at(&self->unit, 0));
	fill_with(&self->unit, 3);
	copy(_metadata, &self->unit, PART);
}

TEST_F(demand, munmap_and_map_again)
{
	struct unit *unit = &self->unit;

	map_all(_metadata, self);
	fill_with(unit, 4);
	copy(_metadata, unit, 64 * PAGE);
	ASSERT_EQ(0, munmap(unit->memory, 16 * PAGE));
	EXPECT_NE(0, command(unit, PTD_CMD_DMA_READ, PASID, BASE, FLAGS_READ));
	start(_metadata, unit, 16 * PAGE);
	EXPECT_EQ(PTD_STATE_STOPPED_INVALID, wait_stopped(unit));
	ASSERT_EQ(unit->memory, mmap(unit->memory, 16 * PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	memset(unit->memory, 0x77, 16 * PAGE);
	copy(_metadata, unit, 64 * PAGE);
}

TEST_F(demand, mprotect)
{
	struct unit *unit = &self->unit;

	map_all(_metadata, self);
	EXPECT_EQ(0, write_at(unit, 0, 0x1111));
	ASSERT_EQ(0, mprotect(unit->memory, PAGE, PROT_READ));
	EXPECT_NE(0, write_at(unit, 0, 0x2222));
	EXPECT_EQ(0x1111, asked_read_at(unit, 0));
	ASSERT_EQ(0, mprotect(unit->memory, PAGE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, write_at(unit, 0, 0x3333));
	EXPECT_EQ(0x3333, word_at(unit, 0));
}

/* The parent's device writes the parent's copy; the child has what was there. */
TEST_F(demand, fork_and_copy_on_write)
{
	struct unit *unit = &self->unit;
	int go[2], status;
	char byte;
	pid_t pid;

	map_all(_metadata, self);
	EXPECT_EQ(0, write_at(unit, 0, 0x1111));
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(read(go[0], &byte, 1) == 1 && word_at(unit, 0) == 0x1111 ? 0 : 1);
	EXPECT_EQ(0, write_at(unit, 0, 0x2222));
	EXPECT_EQ(0x2222, word_at(unit, 0));
	ASSERT_EQ(1, write(go[1], "", 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(0x2222, asked_read_at(unit, 0));
}

/* What the device has written after MADV_FREE is not thrown away. */
TEST_F(demand, madv_free_and_reclaim)
{
	struct unit *unit = &self->unit;

	map_all(_metadata, self);
	fill_with(unit, 5);
	ASSERT_EQ(0, madvise(unit->memory, 16 * PAGE, MADV_FREE));
	EXPECT_EQ(0, write_at(unit, 3 * PAGE, 0x4444));
	madvise(unit->memory, 16 * PAGE, MADV_PAGEOUT);
	EXPECT_EQ(0x4444, word_at(unit, 3 * PAGE));
	EXPECT_EQ(0x4444, asked_read_at(unit, 3 * PAGE));
}

TEST_F(demand, memfd_is_truncated)
{
	int fd = memfd_create("demand", MFD_CLOEXEC);
	struct unit *unit = &self->unit;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	set_memory(_metadata, unit, MAP_SHARED, fd);
	map_all(_metadata, self);
	fill_with(unit, 6);
	copy(_metadata, unit, PART);
	ASSERT_EQ(0, ftruncate(fd, PAGE));
	EXPECT_EQ(0, command(unit, PTD_CMD_DMA_READ, PASID, BASE, FLAGS_READ));
	EXPECT_NE(0, command(unit, PTD_CMD_DMA_READ, PASID, BASE + PAGE, FLAGS_READ));
	/* SIGBUS, of a process */
	EXPECT_NE(0, write_at(unit, PAGE, 1));
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	EXPECT_EQ(0, write_at(unit, PAGE, 0x5555));
	EXPECT_EQ(0x5555, word_at(unit, PAGE));
	close(fd);
}

/* ---- huge pages ---- */

/* The whole of the second huge page is one; its neighbours keep what they have. */
TEST_F(demand, huge_page_is_split)
{
	struct unit *unit = &self->unit;
	const uint64_t at[] = { 0, 100 * PAGE, PART - PAGE };
	unsigned int i, rounds = 0;
	bool huge;

	ASSERT_EQ(0, madvise(unit->memory, SIZE, MADV_HUGEPAGE));
	map_all(_metadata, self);
	for (i = 0; i < 3; i++) {
		memset(unit->memory, 0x10 + i, SIZE);
		EXPECT_EQ(0, write_at(unit, 8, 0x6666));
		EXPECT_EQ(0, write_at(unit, PART + 8, 0x7777));
		huge = audit(_metadata, self).huge == 2;
		ASSERT_EQ(0, madvise(unit->memory + at[i], PAGE, MADV_DONTNEED));
		if (huge)
			EXPECT_EQ(HUGE_SIZE / PAGE, audit(_metadata, self).pages);
		rounds += huge;
		EXPECT_EQ(0x7777, read_at(unit, PART + 8));
		copy(_metadata, unit, PART);
		ASSERT_EQ(0, madvise(unit->memory, SIZE, MADV_DONTNEED));
		EXPECT_EQ(0, audit(_metadata, self).pages);
	}
	if (!rounds)
		SKIP(return, "no huge pages here");
	EXPECT_LE(2 * rounds, counter(self, "huge"));
}

TEST_F(demand, mremap_away_and_back)
{
	struct unit *unit = &self->unit;
	void *away = mmap(NULL, 16 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	map_all(_metadata, self);
	EXPECT_EQ(0, write_at(unit, 0, 0x8888));
	ASSERT_EQ(away, mremap(unit->memory, 16 * PAGE, 16 * PAGE,
			       MREMAP_MAYMOVE | MREMAP_FIXED, away));
	EXPECT_NE(0, write_at(unit, 0, 0x9999));
	ASSERT_EQ(unit->memory, mremap(away, 16 * PAGE, 16 * PAGE,
				       MREMAP_MAYMOVE | MREMAP_FIXED, unit->memory));
	EXPECT_EQ(0x8888, asked_read_at(unit, 0));
	EXPECT_EQ(0, write_at(unit, 0, 0xaaaa));
	EXPECT_EQ(0xaaaa, word_at(unit, 0));
}

/* ---- post-copy ---- */

/* Pages of a running device come one after the other from somewhere else. */
TEST_F(demand, post_copy)
{
	unsigned char *there = malloc(PART), *zero = calloc(1, PAGE);
	struct unit *unit = &self->unit;
	struct pollfd pfd = { .events = POLLIN };
	uint64_t end = now_ms() + 4 * WAIT_MS, offset;
	struct uffd_msg message;
	unsigned int given = 0;

	ASSERT_NE(NULL, there);
	ASSERT_NE(NULL, zero);
	for (offset = 0; offset < PART; offset++)
		there[offset] = (unsigned char)(offset * 5 + offset / PAGE);
	map_all(_metadata, self);
	pfd.fd = demand_userfaultfd(unit->memory, SIZE);
	ASSERT_LE(0, pfd.fd);
	start(_metadata, unit, 64 * PAGE);
	while (reg(unit, PTD_STATE) == PTD_STATE_RUNNING && now_ms() < end) {
		if (poll(&pfd, 1, 1) < 1 || read(pfd.fd, &message, sizeof(message)) < 1)
			continue;
		offset = (message.arg.pagefault.address & ~(PAGE - 1)) - (uintptr_t)unit->memory;
		given += !demand_give(pfd.fd, unit->memory + offset,
				      offset < PART ? there + offset : zero, PAGE);
	}
	EXPECT_EQ(PTD_STATE_DONE, reg(unit, PTD_STATE));
	EXPECT_EQ(128, given);
	close(pfd.fd);
	EXPECT_EQ(0, memcmp(there, unit->memory + PART, 64 * PAGE));
	free(there);
	free(zero);
}

/* ---- windows, and all at once ---- */

/* A pinned window beside the area never faults. */
TEST_F(demand, pinned_window)
{
	struct unit *unit = &self->unit;
	void *window = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	map_all(_metadata, self);
	memset(window, 0x42, 16 * PAGE);
	ASSERT_EQ(0, iopf_map(&self->server.io, unit->ioas, BASE + SIZE, window, 16 * PAGE,
			      WRITE_TOO));
	EXPECT_EQ(0x4242424242424242ull, read_at(unit, SIZE));
	/* an area's neighbour is not touched when the area's last page goes */
	EXPECT_EQ(0, write_at(unit, SIZE - PAGE, 1));
	ASSERT_EQ(0, madvise(unit->memory + PART, PART, MADV_DONTNEED));
	EXPECT_EQ(0x4242424242424242ull, read_at(unit, SIZE + 15 * PAGE));
	EXPECT_EQ(1, reg(unit, PTD_N_REQUESTS));
	EXPECT_EQ(0, counter(self, "outside"));
}

struct mover {
	unsigned char *memory;
	volatile bool stop;
	unsigned long moves;
};

/* What keeps the data: write protection of what is only read, and compaction */
static void *move(void *arg)
{
	int compact = open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC);
	struct mover *mover = arg;
	unsigned int i = 0;

	while (!mover->stop) {
		unsigned char *at = mover->memory + i % (PART / PAGE - 16) * PAGE;

		mprotect(at, 16 * PAGE, PROT_READ);
		mprotect(at, 16 * PAGE, PROT_READ | PROT_WRITE);
		if (i % 64 == 0 && compact >= 0 && write(compact, "1", 1) != 1)
			break;
		i += 7;
		mover->moves++;
		usleep(500);
	}
	close(compact);
	return NULL;
}

TEST_F(demand, copies_while_pages_move)
{
	struct mover mover = { .memory = self->unit.memory };
	struct unit *unit = &self->unit;
	pthread_t thread;
	unsigned int i;

	map_all(_metadata, self);
	fill_with(unit, 10);
	ASSERT_EQ(0, pthread_create(&thread, NULL, move, &mover));
	for (i = 0; i < times("DEMAND_COPIES", 4); i++) {
		memset(unit->memory + PART, (int)i, PART);
		copy(_metadata, unit, PART);
	}
	mover.stop = true;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_LT(0, mover.moves);
	EXPECT_LT(0, counter(self, "stolen"));
}

TEST_HARNESS_MAIN
