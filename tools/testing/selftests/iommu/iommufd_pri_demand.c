// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory on demand, with a device behind an IOMMU: its DMA goes on while its memory is
 * taken away, given back, copied, moved and split, and reads and writes what the process
 * has there.
 */
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "iommufd_pri_utils.h"
#include "../../../../drivers/iommu/iommufd/iommufd_test_iopf.h"
#include "iommufd_cgroup.h"
#include "iommufd_demand_utils.h"

/* What the device copies: the first half of the area to the second one */
#define BASE SRC
#define SIZE (4ull << 20)
#define PART (SIZE / 2)
#define HUGE_SIZE (2ull << 20)
/* What the kernel maps with a page, if it is there */
#define AROUND (16 * PAGE)

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

/* The device with a table that maps on demand; if that fails the device is given back. */
static int open_device(struct iopf *io, const char *bdf, struct unit *unit, uint32_t *table)
{
	int rc = unit_open_device(io, bdf, unit);

	if (rc)
		return rc;
	rc = iopf_hwpt_alloc(io, unit->pri.vfio.id, unit->ioas,
			     IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_ALLOC_ON_FAULT, 0, table);
	if (!rc)
		rc = iopf_device_attach(&unit->pri.vfio, *table);
	if (!rc)
		rc = iopf_device_attach_pasid(&unit->pri.vfio, PASID, *table);
	if (rc)
		pri_close(&unit->pri);
	return rc;
}

FIXTURE_SETUP(demand)
{
	struct iopf *io = &self->server.io;
	struct pri_address found;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	self->server.queue.fd = -1;
	/* first: after a setup that failed nobody would give the device back */
	set_memory(_metadata, &self->unit, 0, -1);
	ASSERT_EQ(0, iopf_open(io));
	ASSERT_EQ(0, open_device(io, found.bdf, &self->unit, &self->table)) {
		ksft_print_msg("%s\n", iopf_error(io));
	}
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

static unsigned char filled_byte(size_t i, unsigned int seed)
{
	return (unsigned char)(i * 7 + i / PAGE + seed);
}

static void fill_with(struct unit *unit, unsigned int seed)
{
	size_t i;

	for (i = 0; i < PART; i++)
		unit->memory[i] = filled_byte(i, seed);
}

/* 8 bytes of that */
static uint64_t filled_word(size_t at, unsigned int seed)
{
	unsigned char bytes[sizeof(uint64_t)];
	uint64_t value;
	size_t i;

	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = filled_byte(at + i, seed);
	memcpy(&value, bytes, sizeof(value));
	return value;
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

	if (madvise(unit->memory, SIZE, MADV_HUGEPAGE))
		SKIP(return, "no huge pages here");
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

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* Small pages become a huge one, somewhere else. */
TEST_F(demand, huge_page_is_made)
{
	struct unit *unit = &self->unit;

	map_all(_metadata, self);
	fill_with(unit, 14);
	copy(_metadata, unit, PART);
	EXPECT_EQ(0, audit(_metadata, self).huge);
	if (madvise(unit->memory, SIZE, MADV_COLLAPSE))
		SKIP(return, "no huge pages here");
	EXPECT_EQ(0, audit(_metadata, self).pages);
	EXPECT_NE(0, command(unit, PTD_CMD_DMA_READ, PASID, BASE, FLAGS_READ));
	EXPECT_EQ(filled_word(PART - PAGE, 14), asked_read_at(unit, PART - PAGE));
	EXPECT_EQ(1, audit(_metadata, self).huge);
	memset(unit->memory + PART, 0, PART);
	copy(_metadata, unit, PART);
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
	pfd.fd = demand_userfaultfd(unit->memory, SIZE, UFFDIO_REGISTER_MODE_MISSING, 0);
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

/* The page of a fault that a userfaultfd tells of, with these flags; else NULL */
static void *told_of(int uffd, uint64_t flags)
{
	struct pollfd pfd = { .fd = uffd, .events = POLLIN };
	struct uffd_msg message;

	if (poll(&pfd, 1, WAIT_MS) < 1 || read(uffd, &message, sizeof(message)) < 1)
		return NULL;
	if (message.event != UFFD_EVENT_PAGEFAULT || message.arg.pagefault.flags != flags)
		return NULL;
	return (void *)(uintptr_t)(message.arg.pagefault.address & ~(PAGE - 1));
}

/* A snapshot: whoever keeps it sees the old page before the device writes to it. */
TEST_F(demand, write_protected)
{
	struct unit *unit = &self->unit;
	struct uffdio_writeprotect protect = {
		.range = { .start = (uintptr_t)unit->memory, .len = PART },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	unsigned char *page = unit->memory + 3 * PAGE;
	uint32_t n;
	int uffd;

	map_all(_metadata, self);
	fill_with(unit, 12);
	EXPECT_EQ(0, write_at(unit, 3 * PAGE, 0x1111));
	uffd = demand_userfaultfd(unit->memory, PART, UFFDIO_REGISTER_MODE_WP,
				  UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &protect));
	EXPECT_NE(0, command(unit, PTD_CMD_DMA_WRITE, PASID, BASE + 3 * PAGE, FLAGS_WRITE));
	EXPECT_EQ(0x1111, asked_read_at(unit, 3 * PAGE));

	n = reg(unit, PTD_N_RESPONSES);
	ASSERT_EQ(0, request(unit, PASID, BASE + 3 * PAGE, FLAGS_WRITE, 1));
	ASSERT_EQ(page, told_of(uffd, UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE));
	EXPECT_EQ(n, reg(unit, PTD_N_RESPONSES));
	EXPECT_EQ(0x1111, word_at(unit, 3 * PAGE));
	protect.range = (struct uffdio_range){ .start = (uintptr_t)page, .len = PAGE };
	protect.mode = 0;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &protect));
	EXPECT_EQ(n + 1, wait_reg(unit, PTD_N_RESPONSES, n + 1));
	EXPECT_EQ(0, write_at(unit, 3 * PAGE, 0x2222));
	EXPECT_EQ(0x2222, word_at(unit, 3 * PAGE));
	close(uffd);
}

/* The memory is there, by another mapping; whoever has put it there lets it be used. */
TEST_F(demand, minor_faults)
{
	int fd = memfd_create("demand", MFD_CLOEXEC), uffd;
	struct uffdio_continue go = { .range.len = PAGE };
	struct unit *unit = &self->unit;
	uint64_t *there;
	uint32_t n;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	there = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, (void *)there);
	set_memory(_metadata, unit, MAP_SHARED, fd);
	map_all(_metadata, self);
	there[5 * PAGE / sizeof(*there)] = 0xbbbb;
	uffd = demand_userfaultfd(unit->memory, SIZE, UFFDIO_REGISTER_MODE_MINOR,
				  UFFD_FEATURE_MINOR_SHMEM);
	ASSERT_LE(0, uffd);

	n = reg(unit, PTD_N_RESPONSES);
	ASSERT_EQ(0, request(unit, PASID, BASE + 5 * PAGE, FLAGS_READ, 1));
	go.range.start = (uintptr_t)told_of(uffd, UFFD_PAGEFAULT_FLAG_MINOR);
	ASSERT_EQ((uintptr_t)unit->memory + 5 * PAGE, go.range.start);
	EXPECT_EQ(n, reg(unit, PTD_N_RESPONSES));
	there[5 * PAGE / sizeof(*there)] = 0xcccc;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_CONTINUE, &go));
	EXPECT_EQ(n + 1, wait_reg(unit, PTD_N_RESPONSES, n + 1));
	EXPECT_EQ(0xcccc, read_at(unit, 5 * PAGE));
	close(uffd);
	close(fd);
}

/* ---- reclaim, merging, other nodes ---- */

static long swapped_kb(void)
{
	return named_number("/proc/self/status", "VmSwap", ':');
}

static bool swap_is_on(void)
{
	return named_number("/proc/meminfo", "SwapTotal", ':') > 0;
}

/* The device copies what is not there, to where nothing is there. */
TEST_F(demand, swapped_out_and_in)
{
	struct unit *unit = &self->unit;

	if (!swap_is_on())
		SKIP(return, "nothing to swap to here");
	map_all(_metadata, self);
	fill_with(unit, 7);
	copy(_metadata, unit, PART);
	memset(unit->memory + PART, 0, PART);
	ASSERT_EQ(0, madvise(unit->memory, SIZE, MADV_PAGEOUT));
	EXPECT_LT(SIZE / 2 / 1024, swapped_kb());
	EXPECT_GT(HALF_PAGES, audit(_metadata, self).pages);
	copy(_metadata, unit, PART);
	EXPECT_EQ(filled_word(PART - PAGE, 7), word_at(unit, PART - PAGE));
	EXPECT_EQ(filled_word(PART - PAGE, 7), word_at(unit, SIZE - PAGE));
}

/* The owner may have less than the device touches: what it had is swapped out meanwhile. */
TEST_F(demand, memory_high)
{
	struct unit *unit = &self->unit;
	unsigned int i;

	if (!swap_is_on())
		SKIP(return, "nothing to swap to here");
	if (!cgroup_enter()) {
		cgroup_leave();
		SKIP(return, "no memory cgroups here");
	}
	EXPECT_EQ(0, write_file(CGROUP "/memory.high", "3145728"));
	map_all(_metadata, self);
	for (i = 0; i < 3; i++) {
		fill_with(unit, 20 + i);
		copy(_metadata, unit, PART);
	}
	EXPECT_LT(0, cgroup_event("high"));
	EXPECT_LT(0, swapped_kb());
	EXPECT_LT(0, counter(self, "stolen"));
	cgroup_leave();
	EXPECT_EQ(0, write_file(CGROUP "/memory.high", "max"));
}

/*
 * The owner may have less than the device touches, and nothing can be swapped out: it is
 * killed, and the device is told so. Another process's memory is as good as ever.
 */
TEST_F(demand, owner_runs_out_of_memory)
{
	struct unit *unit = &self->unit;
	int status, ready[2];
	char byte;
	long kills = -1;
	pid_t pid;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (!cgroup_enter())
			_exit(KSFT_SKIP);
		write_file(CGROUP "/memory.swap.max", "0");
		write_file(CGROUP "/memory.max", "1048576");
		if (iopf_map(&self->server.io, unit->ioas, BASE, unit->memory, SIZE,
			     WRITE_TOO | ON_FAULT) || write(ready[1], "y", 1) != 1)
			_exit(1);
		pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1) {
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(KSFT_SKIP, WEXITSTATUS(status));
		SKIP(return, "no memory cgroups here");
	}
	close(ready[0]);
	start(_metadata, unit, PART);
	EXPECT_EQ(PTD_STATE_STOPPED_INVALID, wait_stopped(unit));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	if (cgroup_enter())
		kills = cgroup_event("oom_kill");
	write_file(CGROUP "/memory.max", "max");
	write_file(CGROUP "/memory.swap.max", "max");
	cgroup_leave();
	EXPECT_LT(0, kills);

	ASSERT_EQ(0, iopf_unmap(&self->server.io, unit->ioas, BASE, SIZE));
	map_all(_metadata, self);
	fill_with(unit, 30);
	copy(_metadata, unit, PART);
}

#define KSM "/sys/kernel/mm/ksm/"

/* Pages that are alike become one, until the device writes to it. */
TEST_F(demand, merged)
{
	struct unit *unit = &self->unit;
	uint64_t end = now_ms() + WAIT_MS;
	long merged = 0;

	if (access(KSM "run", W_OK))
		SKIP(return, "no KSM here");
	map_all(_metadata, self);
	memset(unit->memory, 0x5a, SIZE);
	copy(_metadata, unit, PART);
	ASSERT_EQ(0, madvise(unit->memory, SIZE, MADV_MERGEABLE));
	EXPECT_EQ(0, write_file(KSM "pages_to_scan", "2048"));
	EXPECT_EQ(0, write_file(KSM "sleep_millisecs", "10"));
	EXPECT_EQ(0, write_file(KSM "run", "1"));
	while (merged < (long)(SIZE / PAGE) / 2 && now_ms() < end) {
		usleep(10000);
		merged = named_number("/proc/self/ksm_stat", "ksm_merging_pages", ' ');
	}
	EXPECT_LE((long)(SIZE / PAGE) / 2, merged);
	EXPECT_EQ(0, write_file(KSM "run", "0"));
	EXPECT_EQ(0x5a5a5a5a5a5a5a5aull, asked_read_at(unit, 3 * PAGE));
	EXPECT_EQ(0, write_at(unit, 3 * PAGE, 0x1234));
	EXPECT_EQ(0x1234, word_at(unit, 3 * PAGE));
	EXPECT_EQ(0x5a5a5a5a5a5a5a5aull, word_at(unit, 4 * PAGE));
	EXPECT_EQ(0x5a5a5a5a5a5a5a5aull, asked_read_at(unit, 4 * PAGE));
	copy(_metadata, unit, PART);
	EXPECT_EQ(0, write_file(KSM "run", "2"));
	EXPECT_EQ(0, write_file(KSM "run", "0"));
}

/* Where the pages are: a node for each, or an error; 0 or -errno */
static int move_to(unsigned char *memory, const int *nodes, int *status)
{
	void *pages[HALF_PAGES];
	unsigned int i;

	for (i = 0; i < HALF_PAGES; i++)
		pages[i] = memory + i * PAGE;
	return syscall(__NR_move_pages, 0, HALF_PAGES, pages, nodes, status, MPOL_MF_MOVE) ?
	       -errno : 0;
}

TEST_F(demand, moved_to_another_node)
{
	int nodes[HALF_PAGES], status[HALF_PAGES];
	struct unit *unit = &self->unit;
	unsigned int i, wrong = 0;

	if (access("/sys/devices/system/node/node1", F_OK))
		SKIP(return, "one node here");
	map_all(_metadata, self);
	fill_with(unit, 9);
	copy(_metadata, unit, PART);
	ASSERT_EQ(0, move_to(unit->memory, NULL, status));
	for (i = 0; i < HALF_PAGES; i++)
		nodes[i] = !status[i];
	ASSERT_EQ(0, move_to(unit->memory, nodes, status));
	for (i = 0; i < HALF_PAGES; i++)
		wrong += status[i] != nodes[i];
	EXPECT_EQ(0, wrong);
	/* What was mapped is where it was no more. */
	EXPECT_NE(0, command(unit, PTD_CMD_DMA_READ, PASID, BASE, FLAGS_READ));
	EXPECT_EQ(HALF_PAGES, audit(_metadata, self).pages);
	copy(_metadata, unit, PART);
	EXPECT_EQ(filled_word(PART - PAGE, 9), word_at(unit, SIZE - PAGE));
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
#define POLL_US "/sys/module/iommufd/parameters/demand_poll_us"

/* Its next fault, if it comes soon, finds the thread awake; or never, if that is switched off. */
TEST_F(demand, thread_stays_awake)
{
	const unsigned int half = SIZE / AROUND / 2;
	char before[16] = "";
	unsigned int i, n;
	long polled = 0;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "on one CPU the thread sleeps, as this process wants it");
	map_all(_metadata, self);
	memset(self->unit.memory, 1, SIZE);
	first_line(POLL_US, before, sizeof(before));
	/*
	 * As long as a test may take from one fault to the next: the thread sleeps before that,
	 * also while it shares a processor with this process, which does not last.
	 */
	ASSERT_EQ(0, write_file(POLL_US, "2000000"));
	for (n = 0; n < 50 * half && polled < half / 2; n++) {
		EXPECT_EQ(0, ask(&self->unit, n % half * AROUND, FLAGS_READ, n % 256));
		polled = counter(self, "polled");
	}
	EXPECT_EQ(half / 2, polled);

	EXPECT_EQ(0, write_file(POLL_US, "0"));
	for (i = half; i < 2 * half; i++, n++)
		EXPECT_EQ(0, ask(&self->unit, i * AROUND, FLAGS_READ, i));
	EXPECT_GE(polled + 1, counter(self, "polled"));
	EXPECT_EQ(n, counter(self, "groups"));
	EXPECT_EQ(0, write_file(POLL_US, before));
}

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
