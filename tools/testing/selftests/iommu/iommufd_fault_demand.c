// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory on demand, on the mock device: what the kernel resolves and what it does not, what
 * is refused, and how areas, devices and processes end.
 */
#include <sys/resource.h>
#include <sys/wait.h>

#include "iommufd_fault_devs.h"
#include "iommufd_demand_utils.h"

#define PAGES 1024
#define LENGTH ((uint64_t)PAGES * PAGE)
#define PERM_READ IOMMU_PGFAULT_PERM_READ
#define PERM_WRITE IOMMU_PGFAULT_PERM_WRITE

FIXTURE(demand)
{
	struct env env;
	struct mock_device *dev;
	char *memory;
	uint32_t hwpt_id;
	uint32_t grpid;
};

FIXTURE_SETUP(demand)
{
	struct env *env = &self->env;

	self->dev = env_open_device(_metadata, env, 0);
	if (!self->dev)
		return;
	self->memory = anonymous(_metadata, LENGTH);
	env_destroy_device(_metadata, env, self->dev);
	ASSERT_EQ(0, iommufd_destroy(env->fd, env->ioas_id));
	ASSERT_EQ(0, ioas_alloc(env->fd, &env->ioas_id));
}

FIXTURE_TEARDOWN(demand)
{
	env_close(_metadata, &self->env);
}

/* A device on an IOAS of its own, which is thrown away, so that the other one is empty */
static void attach(struct __test_metadata *_metadata, struct _test_data_demand *self,
		   const struct queue *queue)
{
	struct env *env = &self->env;
	uint32_t other;

	ASSERT_EQ(0, ioas_alloc(env->fd, &other));
	self->dev = env_device(_metadata, env, other, 0);
	self->hwpt_id = env_hwpt(_metadata, env, self->dev, false, IOMMU_HWPT_ALLOC_ON_FAULT,
				 queue);
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, self->hwpt_id));
}

static void map(struct __test_metadata *_metadata, struct _test_data_demand *self, uint32_t flags)
{
	ASSERT_EQ(0, ioas_map(self->env.fd, self->env.ioas_id, ADDR, self->memory, LENGTH,
			      ON_FAULT | flags));
}

/* A group for @n pages from the @page-th on; not waited for */
static void ask(struct __test_metadata *_metadata, struct _test_data_demand *self,
		unsigned int page, unsigned int n, uint32_t perm)
{
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)&self->dev->idev_id,
		.addr = ADDR + (uint64_t)page * PAGE,
		.nr_devs = 1,
		.groups = 1,
		.requests = n,
		.grpid = self->grpid++,
		.nr_pasids = 1,
		.perm = perm,
	};

	ASSERT_EQ(0, iopf_batch(self->env.fd, &batch));
}

static struct iommu_test_iopf_stats wait_answered(struct __test_metadata *_metadata,
						  struct _test_data_demand *self)
{
	struct iommu_test_iopf_stats s;
	int ms;

	for (ms = 0; ms < LONG_MS; ms++) {
		EXPECT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
		if (!s.outstanding)
			break;
		usleep(1000);
	}
	EXPECT_EQ(0, s.outstanding);
	return s;
}

/* Wait for the answer to all, and expect so many of each. */
static void expect(struct __test_metadata *_metadata, struct _test_data_demand *self,
		   uint64_t success, uint64_t invalid)
{
	struct iommu_test_iopf_stats s = wait_answered(_metadata, self);

	EXPECT_EQ(success, s.responses[SUCCESS]);
	EXPECT_EQ(invalid, s.responses[INVALID]);
}

static struct iommu_test_demand_audit audit(struct __test_metadata *_metadata,
					    struct _test_data_demand *self)
{
	struct iommu_test_demand_audit a = {};

	EXPECT_EQ(0, demand_audit(self->env.fd, self->env.ioas_id, &a));
	EXPECT_EQ(0, a.wrong);
	return a;
}

static int wait_readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, LONG_MS);
}

static long counter(struct _test_data_demand *self, const char *name)
{
	return demand_counter(self->env.fd, self->env.ioas_id, name);
}

/* ---- what is resolved ---- */

TEST_F(demand, pages_come_when_asked_for)
{
	attach(_metadata, self, NULL);
	map(_metadata, self, WRITE_TOO);
	EXPECT_EQ(0, audit(_metadata, self).pages);
	ask(_metadata, self, 0, 3, PERM_READ | PERM_WRITE);
	expect(_metadata, self, 1, 0);
	EXPECT_EQ(3, audit(_metadata, self).pages);
	EXPECT_EQ(3, audit(_metadata, self).writable);
	EXPECT_EQ(3, counter(self, "pages"));
	EXPECT_EQ(1, counter(self, "groups"));
	EXPECT_EQ(0, counter(self, "flushes"));
	ask(_metadata, self, 0, 3, PERM_READ | PERM_WRITE);
	expect(_metadata, self, 2, 0);
	EXPECT_EQ(3, counter(self, "present"));
}

TEST_F(demand, neighbours_that_are_there_come_too)
{
	attach(_metadata, self, NULL);
	map(_metadata, self, WRITE_TOO);
	memset(self->memory, 1, 64 * PAGE);
	ask(_metadata, self, 20, 1, PERM_READ);
	expect(_metadata, self, 1, 0);
	EXPECT_EQ(16, audit(_metadata, self).pages);
	EXPECT_EQ(0, audit(_metadata, self).writable);
	EXPECT_EQ(15, counter(self, "around"));
	EXPECT_EQ(0, counter(self, "faulted"));
}

/* How many of the pages the process has in memory */
static unsigned int resident(struct __test_metadata *_metadata, char *memory)
{
	unsigned char there[PAGES] = {};
	unsigned int n = 0, i;

	EXPECT_EQ(0, mincore(memory, LENGTH, there));
	for (i = 0; i < PAGES; i++)
		n += there[i] & 1;
	return n;
}

/* What the device does not touch needs no memory. */
TEST_F(demand, memory_is_of_touched_pages_alone)
{
	attach(_metadata, self, NULL);
	/* A kernel without huge pages does not know this. */
	if (madvise(self->memory, LENGTH, MADV_NOHUGEPAGE))
		ASSERT_EQ(EINVAL, errno);
	map(_metadata, self, WRITE_TOO);
	EXPECT_EQ(0, resident(_metadata, self->memory));
	ask(_metadata, self, 7, 1, PERM_WRITE);
	ask(_metadata, self, 500, 30, PERM_WRITE);
	ask(_metadata, self, PAGES - 1, 1, PERM_WRITE);
	expect(_metadata, self, 3, 0);
	EXPECT_EQ(32, resident(_metadata, self->memory));
	EXPECT_EQ(32, audit(_metadata, self).pages);
	EXPECT_EQ(32, counter(self, "faulted"));
}

/* A read maps for reading alone: the zero page, and what others share, stay as they are. */
TEST_F(demand, writing_after_reading)
{
	attach(_metadata, self, NULL);
	map(_metadata, self, WRITE_TOO);
	ask(_metadata, self, 5, 1, PERM_READ);
	expect(_metadata, self, 1, 0);
	EXPECT_EQ(0, audit(_metadata, self).writable);
	ask(_metadata, self, 5, 1, PERM_WRITE);
	expect(_metadata, self, 2, 0);
	EXPECT_EQ(1, audit(_metadata, self).writable);
	EXPECT_EQ(1, audit(_metadata, self).pages);
}

TEST_F(demand, stolen_pages_come_again)
{
	attach(_metadata, self, NULL);
	map(_metadata, self, WRITE_TOO);
	ask(_metadata, self, 0, 8, PERM_WRITE);
	expect(_metadata, self, 1, 0);
	ASSERT_EQ(0, madvise(self->memory + 2 * PAGE, 2 * PAGE, MADV_DONTNEED));
	EXPECT_EQ(6, audit(_metadata, self).pages);
	EXPECT_EQ(2, counter(self, "stolen"));
	EXPECT_EQ(1, counter(self, "flushes"));
	ask(_metadata, self, 0, 8, PERM_WRITE);
	expect(_metadata, self, 2, 0);
	EXPECT_EQ(8, audit(_metadata, self).pages);
	ASSERT_EQ(0, mprotect(self->memory, 4 * PAGE, PROT_READ));
	/* at least those */
	EXPECT_GE(4, audit(_metadata, self).pages);
	ASSERT_EQ(0, munmap(self->memory, 8 * PAGE));
	EXPECT_EQ(0, audit(_metadata, self).pages);
	ask(_metadata, self, 0, 1, PERM_READ);
	expect(_metadata, self, 2, 1);
}

/* Nothing is pinned or locked: with no right to lock a page all works. */
TEST_F(demand, nothing_is_pinned)
{
	struct rlimit none = {};

	attach(_metadata, self, NULL);
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &none));
	map(_metadata, self, WRITE_TOO);
	ask(_metadata, self, 0, 32, PERM_WRITE);
	expect(_metadata, self, 1, 0);
	EXPECT_EQ(32, audit(_metadata, self).pages);
	EXPECT_EQ(0, named_number("/proc/self/status", "VmPin", ':'));
	EXPECT_EQ(0, named_number("/proc/self/status", "VmLck", ':'));
}

TEST_F(demand, two_page_tables_have_the_same)
{
	uint32_t second;

	attach(_metadata, self, NULL);
	map(_metadata, self, WRITE_TOO);
	ask(_metadata, self, 0, 4, PERM_WRITE);
	expect(_metadata, self, 1, 0);
	second = env_hwpt(_metadata, &self->env, self->dev, false, IOMMU_HWPT_ALLOC_ON_FAULT, NULL);
	EXPECT_EQ(0, audit(_metadata, self).pages);
	ask(_metadata, self, 0, 4, PERM_WRITE);
	expect(_metadata, self, 2, 0);
	EXPECT_EQ(4, audit(_metadata, self).pages);
	ASSERT_EQ(0, iommufd_destroy(self->env.fd, second));
	EXPECT_EQ(4, audit(_metadata, self).pages);
}

/* ---- what is not ---- */

TEST_F(demand, without_a_queue_invalid)
{
	attach(_metadata, self, NULL);
	map(_metadata, self, READ_ONLY);
	ask(_metadata, self, 0, 1, PERM_WRITE);
	ask(_metadata, self, PAGES, 1, PERM_READ);
	ask(_metadata, self, PAGES - 1, 2, PERM_READ);
	ask(_metadata, self, 0, 1, IOMMU_PGFAULT_PERM_EXEC);
	expect(_metadata, self, 0, 4);
	ask(_metadata, self, 0, 1, PERM_READ);
	expect(_metadata, self, 1, 4);
}

TEST_F(demand, queue_gets_the_rest)
{
	struct queue *queue = env_queue(_metadata, &self->env);
	struct iommu_hwpt_pgfault m[4];

	attach(_metadata, self, queue);
	map(_metadata, self, WRITE_TOO);
	ask(_metadata, self, 0, 2, PERM_READ);
	expect(_metadata, self, 1, 0);
	expect_empty(_metadata, queue->fd);

	/* the last page of the area and the first one behind it, as one group */
	ask(_metadata, self, PAGES - 1, 2, PERM_READ);
	EXPECT_EQ(1, wait_readable(queue->fd));
	ASSERT_EQ(2, fault_read(queue->fd, m, 4));
	EXPECT_EQ(ADDR + LENGTH - PAGE, m[0].addr);
	EXPECT_EQ(ADDR + LENGTH, m[1].addr);
	EXPECT_EQ(0, fault_answer(queue->fd, m[0].cookie, SUCCESS));
	expect(_metadata, self, 2, 0);
	EXPECT_EQ(1, counter(self, "passed-on"));

	/* a pinned window beside it has nothing to do with it */
	ask(_metadata, self, PAGES + 5, 1, PERM_READ);
	EXPECT_EQ(1, wait_readable(queue->fd));
	ASSERT_EQ(1, fault_read(queue->fd, m, 4));
	EXPECT_EQ(0, fault_answer(queue->fd, m[0].cookie, INVALID));
	expect(_metadata, self, 2, 1);
	EXPECT_EQ(1, counter(self, "passed-on"));
	EXPECT_EQ(1, counter(self, "outside"));
}

/* ---- what is refused ---- */

TEST_F(demand, refused_maps)
{
	int fd = self->env.fd;
	uint32_t ioas = self->env.ioas_id;
	char *va = self->memory;

	EXPECT_EQ(-EINVAL, ioas_map(fd, ioas, ADDR + 1, va, PAGE, ON_FAULT | READ_ONLY));
	EXPECT_EQ(-EINVAL, ioas_map(fd, ioas, ADDR, va + 1, PAGE, ON_FAULT | READ_ONLY));
	EXPECT_EQ(-EINVAL, ioas_map(fd, ioas, ADDR, va, PAGE + 1, ON_FAULT | READ_ONLY));
	EXPECT_EQ(-EINVAL, ioas_map(fd, ioas, ADDR, va, 0, ON_FAULT | READ_ONLY));
	EXPECT_EQ(-EINVAL, ioas_map(fd, ioas, ADDR, va, PAGE, ON_FAULT));
	EXPECT_EQ(0, ioas_map(fd, ioas, ADDR, va, PAGE, ON_FAULT | READ_ONLY));
	EXPECT_EQ(-EEXIST, ioas_map(fd, ioas, ADDR, va, PAGE, ON_FAULT | READ_ONLY));
	EXPECT_EQ(-EEXIST, ioas_map(fd, ioas, ADDR, va, PAGE, READ_ONLY));
	EXPECT_EQ(-EOPNOTSUPP, ioas_map(fd, ioas, ADDR + LENGTH, va, PAGE,
					ON_FAULT << 1 | READ_ONLY));
	EXPECT_EQ(0, ioas_unmap(fd, ioas, ADDR, PAGE));
	EXPECT_EQ(-ENOENT, ioas_unmap(fd, ioas, ADDR, PAGE));
}

TEST_F(demand, refused_page_tables)
{
	struct env *env = &self->env;
	uint32_t other, id = 0;
	struct queue now;

	ASSERT_EQ(0, ioas_alloc(env->fd, &other));
	self->dev = env_device(_metadata, env, other, 0);
	/* the device has put a page table without the flag there */
	EXPECT_EQ(-EOPNOTSUPP, ioas_map(env->fd, other, ADDR, self->memory, PAGE,
					ON_FAULT | READ_ONLY));
	map(_metadata, self, READ_ONLY);
	EXPECT_EQ(-EOPNOTSUPP, hwpt_alloc_paging(env->fd, self->dev->idev_id, env->ioas_id, 0, 0,
						 &id));
	EXPECT_EQ(-EOPNOTSUPP, mock_replace(env->fd, self->dev->stdev_id, env->ioas_id));
	EXPECT_EQ(-EOPNOTSUPP, hwpt_alloc_paging(env->fd, self->dev->idev_id, env->ioas_id,
						 IOMMU_HWPT_ALLOC_ON_FAULT |
						 IOMMU_HWPT_ALLOC_NEST_PARENT, 0, &id));
	EXPECT_EQ(-EOPNOTSUPP, hwpt_alloc_paging(env->fd, self->dev->idev_id, env->ioas_id,
						 IOMMU_HWPT_ALLOC_ON_FAULT |
						 IOMMU_HWPT_ALLOC_DIRTY_TRACKING, 0, &id));
	ASSERT_EQ(0, fault_queue_alloc_flags(env->fd, IOMMU_FAULT_ALLOC_IMMEDIATE, &now.id,
					     &now.fd));
	EXPECT_EQ(-EOPNOTSUPP, hwpt_alloc_paging(env->fd, self->dev->idev_id, env->ioas_id,
						 IOMMU_HWPT_ALLOC_ON_FAULT |
						 IOMMU_HWPT_FAULT_ID_VALID, now.id, &id));
	env_close_queue(_metadata, &now);
	EXPECT_EQ(0, hwpt_alloc_paging(env->fd, self->dev->idev_id, env->ioas_id,
				       IOMMU_HWPT_ALLOC_ON_FAULT, 0, &id));
	EXPECT_EQ(0, iommufd_destroy(env->fd, id));
}

/* Leaves of 1 MiB, which nobody here could take out page by page */
TEST_F(demand, refused_page_sizes)
{
	uint32_t other, id;

	ASSERT_EQ(0, ioas_alloc(self->env.fd, &other));
	self->dev = env_device(_metadata, &self->env, other, MOCK_FLAGS_DEVICE_HUGE_IOVA);
	EXPECT_EQ(-EOPNOTSUPP, hwpt_alloc_paging(self->env.fd, self->dev->idev_id,
						 self->env.ioas_id, IOMMU_HWPT_ALLOC_ON_FAULT, 0,
						 &id));
}

TEST_F(demand, refused_device)
{
	uint32_t other, id;

	ASSERT_EQ(0, ioas_alloc(self->env.fd, &other));
	self->dev = env_device(_metadata, &self->env, other, MOCK_FLAGS_DEVICE_REPORTS_FAULTS);
	id = env_hwpt(_metadata, &self->env, self->dev, false, IOMMU_HWPT_ALLOC_ON_FAULT, NULL);
	EXPECT_EQ(-EOPNOTSUPP, mock_replace(self->env.fd, self->dev->stdev_id, id));
}

/* Of a copy its own flag counts. */
TEST_F(demand, copies)
{
	struct iommu_ioas_copy copy = {
		.size = sizeof(copy),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | WRITE_TOO,
		.dst_ioas_id = self->env.ioas_id,
		.src_ioas_id = self->env.ioas_id,
		.length = LENGTH,
		.src_iova = ADDR,
		.dst_iova = ADDR + LENGTH,
	};
	long pinned = named_number("/proc/self/status", "VmPin", ':');

	attach(_metadata, self, NULL);
	map(_metadata, self, WRITE_TOO);
	copy.flags |= ON_FAULT;
	ASSERT_EQ(0, ioctl(self->env.fd, IOMMU_IOAS_COPY, &copy));
	ask(_metadata, self, PAGES, 1, PERM_WRITE);
	expect(_metadata, self, 1, 0);
	EXPECT_EQ(1, audit(_metadata, self).pages);
	EXPECT_EQ(pinned, named_number("/proc/self/status", "VmPin", ':'));

	copy.flags &= ~ON_FAULT;
	copy.dst_iova += LENGTH;
	ASSERT_EQ(0, ioctl(self->env.fd, IOMMU_IOAS_COPY, &copy));
	EXPECT_EQ(1, audit(_metadata, self).pages);
}

/* ---- what else there is for an IOAS ---- */

TEST_F(demand, unmap_takes_whole_areas)
{
	uint64_t half = LENGTH / 2;
	int fd = self->env.fd;
	uint32_t ioas = self->env.ioas_id;

	attach(_metadata, self, NULL);
	ASSERT_EQ(0, ioas_map(fd, ioas, ADDR, self->memory, half, ON_FAULT | WRITE_TOO));
	ASSERT_EQ(0, ioas_map(fd, ioas, ADDR + half, self->memory, half, ON_FAULT | WRITE_TOO));
	ask(_metadata, self, 0, 4, PERM_WRITE);
	ask(_metadata, self, PAGES / 2, 4, PERM_WRITE);
	expect(_metadata, self, 2, 0);
	EXPECT_EQ(-ENOENT, ioas_unmap(fd, ioas, ADDR, PAGE));
	EXPECT_EQ(-ENOENT, ioas_unmap(fd, ioas, ADDR + PAGE, half - PAGE));
	EXPECT_EQ(8, audit(_metadata, self).pages);
	EXPECT_EQ(0, ioas_unmap(fd, ioas, ADDR, LENGTH));
	EXPECT_EQ(0, audit(_metadata, self).pages);
	ask(_metadata, self, 0, 1, PERM_READ);
	expect(_metadata, self, 2, 1);
}

static uint32_t n_ranges(int fd, uint32_t ioas_id, struct iommu_iova_range *ranges, uint32_t room)
{
	struct iommu_ioas_iova_ranges cmd = {
		.size = sizeof(cmd),
		.ioas_id = ioas_id,
		.num_iovas = room,
		.allowed_iovas = (uintptr_t)ranges,
	};

	return iommufd_call(fd, IOMMU_IOAS_IOVA_RANGES, &cmd) ? 0 : cmd.num_iovas;
}

/* Those are of what can be mapped, however it is. */
TEST_F(demand, ranges_of_iova_stay)
{
	struct iommu_iova_range before[8] = {}, after[8] = {};
	struct iommu_iova_range narrow = { .start = 0, .last = ADDR + PAGE - 1 };
	struct iommu_ioas_allow_iovas allow = {
		.size = sizeof(allow),
		.ioas_id = self->env.ioas_id,
		.num_iovas = 1,
		.allowed_iovas = (uintptr_t)&narrow,
	};
	uint32_t n;

	attach(_metadata, self, NULL);
	n = n_ranges(self->env.fd, self->env.ioas_id, before, 8);
	EXPECT_LT(0, n);
	map(_metadata, self, WRITE_TOO);
	EXPECT_EQ(n, n_ranges(self->env.fd, self->env.ioas_id, after, 8));
	EXPECT_EQ(0, memcmp(before, after, sizeof(before)));
	EXPECT_EQ(-EADDRINUSE, iommufd_call(self->env.fd, IOMMU_IOAS_ALLOW_IOVAS, &allow));
}

/* As a mdev does: it copies as ever, but does not get pages for itself. */
TEST_F(demand, access_without_a_device)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_CREATE_ACCESS,
		.id = self->env.ioas_id,
		.create_access = { .flags = MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES },
	};
	char word[] = "written";
	int access;

	attach(_metadata, self, NULL);
	map(_metadata, self, WRITE_TOO);
	ASSERT_EQ(0, iommufd_call(self->env.fd, IOMMU_TEST_CMD, &cmd));
	access = cmd.create_access.out_access_fd;
	cmd = (struct iommu_test_cmd){
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_ACCESS_PAGES,
		.id = access,
		.access_pages = {
			.iova = ADDR, .length = PAGE, .uptr = (uintptr_t)self->memory,
		},
	};
	EXPECT_EQ(-EOPNOTSUPP, iommufd_call(self->env.fd, IOMMU_TEST_CMD, &cmd));
	cmd = (struct iommu_test_cmd){
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_ACCESS_RW,
		.id = access,
		.access_rw = {
			.iova = ADDR + PAGE - 3, .length = sizeof(word), .uptr = (uintptr_t)word,
			.flags = MOCK_ACCESS_RW_WRITE | MOCK_ACCESS_RW_SLOW_PATH,
		},
	};
	EXPECT_EQ(0, iommufd_call(self->env.fd, IOMMU_TEST_CMD, &cmd));
	EXPECT_EQ(0, strcmp(self->memory + PAGE - 3, word));
	EXPECT_EQ(0, audit(_metadata, self).pages);
	EXPECT_EQ(0, named_number("/proc/self/status", "VmPin", ':'));
	close(access);
}

TEST_F(demand, dirty_pages_are_not_tracked)
{
	struct iommu_hwpt_set_dirty_tracking set = {
		.size = sizeof(set),
		.flags = IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
	};
	uint64_t bits[PAGES / 64];
	struct iommu_hwpt_get_dirty_bitmap get = {
		.size = sizeof(get),
		.iova = ADDR,
		.length = LENGTH,
		.page_size = PAGE,
		.data = (uintptr_t)bits,
	};

	attach(_metadata, self, NULL);
	map(_metadata, self, WRITE_TOO);
	set.hwpt_id = self->hwpt_id;
	get.hwpt_id = self->hwpt_id;
	EXPECT_EQ(-EOPNOTSUPP, iommufd_call(self->env.fd, IOMMU_HWPT_SET_DIRTY_TRACKING, &set));
	EXPECT_EQ(-EOPNOTSUPP, iommufd_call(self->env.fd, IOMMU_HWPT_GET_DIRTY_BITMAP, &get));
}

/* ---- userfaultfd ---- */

TEST_F(demand, userfaultfd_gives_the_page)
{
	char *page = anonymous(_metadata, PAGE);
	struct pollfd pfd = { .events = POLLIN };

	attach(_metadata, self, NULL);
	map(_metadata, self, WRITE_TOO);
	pfd.fd = demand_userfaultfd(self->memory, LENGTH,
				    UFFDIO_REGISTER_MODE_MISSING, 0);
	ASSERT_LE(0, pfd.fd);
	ask(_metadata, self, 3, 1, PERM_READ);
	ASSERT_EQ(1, poll(&pfd, 1, LONG_MS));
	/* others are not held up by that */
	ASSERT_EQ(0, demand_give(pfd.fd, self->memory + 100 * PAGE, page, PAGE));
	ask(_metadata, self, 100, 1, PERM_READ);
	while (counter(self, "groups") < 1)
		usleep(1000);
	memset(page, 0x5a, PAGE);
	ASSERT_EQ(0, demand_give(pfd.fd, self->memory + 3 * PAGE, page, PAGE));
	expect(_metadata, self, 2, 0);
	EXPECT_EQ(2, audit(_metadata, self).pages);
	EXPECT_EQ(0x5a, self->memory[3 * PAGE]);
	close(pfd.fd);
}

/* More than there are threads wait for ever; who detaches, or ends, does not. */
TEST_F(demand, detach_waits_for_nobody)
{
	enum { WAIT = 8 };
	struct pollfd pfd = { .events = POLLIN };
	unsigned int i;

	attach(_metadata, self, NULL);
	map(_metadata, self, WRITE_TOO);
	pfd.fd = demand_userfaultfd(self->memory, LENGTH,
				    UFFDIO_REGISTER_MODE_MISSING, 0);
	ASSERT_LE(0, pfd.fd);
	for (i = 0; i < WAIT; i++)
		ask(_metadata, self, 32 * i, 1, PERM_READ);
	ASSERT_EQ(1, poll(&pfd, 1, LONG_MS));
	env_destroy_device(_metadata, &self->env, self->dev);
	expect_gone(_metadata, &self->env, 0, WAIT);
	EXPECT_EQ(WAIT, counter(self, "dropped"));
	EXPECT_EQ(0, iommufd_destroy(self->env.fd, self->hwpt_id));
	EXPECT_EQ(0, ioas_unmap(self->env.fd, self->env.ioas_id, ADDR, LENGTH));
	EXPECT_EQ(0, iommufd_destroy(self->env.fd, self->env.ioas_id));
	/* what slept finds that it is late */
	close(pfd.fd);
}

/* ---- the owner goes ---- */

static pid_t owner_maps(struct __test_metadata *_metadata, struct _test_data_demand *self)
{
	int ready[2];
	char byte;
	pid_t pid;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (ioas_map(self->env.fd, self->env.ioas_id, ADDR, self->memory, LENGTH,
			     ON_FAULT | WRITE_TOO))
			_exit(1);
		if (write(ready[1], "", 1) != 1)
			_exit(2);
		pause();
		_exit(3);
	}
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	ask(_metadata, self, 0, 1, PERM_WRITE);
	expect(_metadata, self, 1, 0);
	EXPECT_EQ(1, audit(_metadata, self).pages);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void owner_ends(struct __test_metadata *_metadata, pid_t pid, int signal)
{
	int status;

	ASSERT_EQ(0, kill(pid, signal));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
}

TEST_F(demand, owner_is_killed)
{
	attach(_metadata, self, NULL);
	owner_ends(_metadata, owner_maps(_metadata, self), SIGKILL);
	ask(_metadata, self, 0, 1, PERM_WRITE);
	ask(_metadata, self, 1, 1, PERM_WRITE);
	expect(_metadata, self, 1, 2);
	EXPECT_EQ(0, ioas_unmap(self->env.fd, self->env.ioas_id, ADDR, LENGTH));
	map(_metadata, self, WRITE_TOO);
	ask(_metadata, self, 1, 1, PERM_WRITE);
	expect(_metadata, self, 2, 2);
}

TEST_F(demand, owner_is_killed_and_a_queue_is_there)
{
	struct queue *queue = env_queue(_metadata, &self->env);
	struct iommu_hwpt_pgfault m[2];

	attach(_metadata, self, queue);
	owner_ends(_metadata, owner_maps(_metadata, self), SIGTERM);
	ask(_metadata, self, 0, 1, PERM_WRITE);
	EXPECT_EQ(1, wait_readable(queue->fd));
	ASSERT_EQ(1, fault_read(queue->fd, m, 2));
	EXPECT_EQ(0, fault_answer(queue->fd, m[0].cookie, SUCCESS));
	expect(_metadata, self, 2, 0);
}

/* Its threads are stopped as all of its threads; the device can leave all the same. */
TEST_F(demand, owner_is_stopped)
{
	struct env *env = &self->env;
	struct iommu_test_iopf_stats s;
	uint32_t other_id;
	int status;
	pid_t pid;

	attach(_metadata, self, NULL);
	other_id = env_hwpt(_metadata, env, self->dev, false, IOMMU_HWPT_ALLOC_ON_FAULT, NULL);
	pid = owner_maps(_metadata, self);
	ASSERT_EQ(0, kill(pid, SIGSTOP));
	ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
	ask(_metadata, self, 1, 1, PERM_WRITE);
	usleep(20000);
	EXPECT_EQ(0, iopf_stats(env->fd, self->dev->idev_id, &s));
	EXPECT_EQ(1, s.outstanding);
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, other_id));
	expect(_metadata, self, 2, 0);
	ask(_metadata, self, 2, 1, PERM_WRITE);
	ASSERT_EQ(0, kill(pid, SIGCONT));
	expect(_metadata, self, 3, 0);
	owner_ends(_metadata, pid, SIGKILL);
}

/* ---- all at once ---- */

struct thief {
	char *memory;
	bool stop;
	unsigned long thefts;
};

static void *steal(void *arg)
{
	struct thief *thief = arg;
	unsigned int i = 0;

	while (!__atomic_load_n(&thief->stop, __ATOMIC_RELAXED)) {
		madvise(thief->memory + i % (PAGES - 16) * PAGE, 16 * PAGE, MADV_DONTNEED);
		i += 61;
		thief->thefts++;
	}
	return NULL;
}

/* Every group is answered once, and what is mapped in the end is what the owner has. */
TEST_F(demand, stealing_while_asking)
{
	enum { GROUPS = 2000 };
	struct thief thief = { .memory = self->memory };
	pthread_t thread;
	unsigned int i;

	attach(_metadata, self, NULL);
	map(_metadata, self, WRITE_TOO);
	ASSERT_EQ(0, pthread_create(&thread, NULL, steal, &thief));
	for (i = 0; i < GROUPS; i++) {
		ask(_metadata, self, i * 37 % (PAGES - 4), 4,
		    i % 2 ? PERM_READ : PERM_READ | PERM_WRITE);
		if (i % 64 == 0) {
			expect(_metadata, self, i + 1, 0);
			audit(_metadata, self);
		}
	}
	expect(_metadata, self, GROUPS, 0);
	__atomic_store_n(&thief.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	audit(_metadata, self);
	EXPECT_LT(0, thief.thefts);
	ASSERT_EQ(0, madvise(self->memory, LENGTH, MADV_DONTNEED));
	EXPECT_EQ(0, audit(_metadata, self).pages);
}

/* The area goes and comes while it is asked for: SUCCESS, or INVALID without it. */
TEST_F(demand, mapping_while_asking)
{
	enum { ROUNDS_HERE = 200 };
	struct iommu_test_iopf_stats s;
	unsigned int i;

	attach(_metadata, self, NULL);
	for (i = 0; i < ROUNDS_HERE; i++) {
		map(_metadata, self, WRITE_TOO);
		ask(_metadata, self, i, 4, PERM_WRITE);
		ASSERT_EQ(0, ioas_unmap(self->env.fd, self->env.ioas_id, ADDR, LENGTH));
	}
	s = wait_answered(_metadata, self);
	EXPECT_EQ(ROUNDS_HERE, s.responses[SUCCESS] + s.responses[INVALID]);
	map(_metadata, self, WRITE_TOO);
	EXPECT_EQ(0, audit(_metadata, self).pages);
}

TEST_HARNESS_MAIN
