// SPDX-License-Identifier: GPL-2.0-only
/*
 * What iommufd does with fault queues when an allocation fails: each in its turn.
 */
#include <dirent.h>

/* Few: each allocation of an attach fails once here. */
#define HARNESS_RESERVE 32

#include "iommufd_fault_sides.h"
#include "iommufd_demand_utils.h"

struct nth {
	int fd;
	unsigned int n;
	unsigned int failed; /* of how many rounds it was the last that failed */
};

static bool nth_open(struct nth *nth)
{
	*nth = (struct nth){ .fd = open("/proc/thread-self/fail-nth", O_RDWR) };
	write_file("/sys/kernel/debug/failslab/ignore-gfp-wait", "N");
	write_file("/sys/kernel/debug/failslab/verbose", "0");
	write_file("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N");
	write_file("/sys/kernel/debug/fail_page_alloc/min-order", "0");
	write_file("/sys/kernel/debug/fail_page_alloc/verbose", "0");
	return nth->fd >= 0;
}

static void nth_set(struct nth *nth, unsigned int n)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", n);
	if (pwrite(nth->fd, text, strlen(text), 0) < 0)
		perror("fail-nth");
}

/* The next allocation in turn is to fail. */
static void nth_begin(struct nth *nth)
{
	nth_set(nth, ++nth->n);
}

/* Did it? If not, all of them have. */
static bool nth_end(struct nth *nth)
{
	char text[16] = "";
	bool failed = pread(nth->fd, text, sizeof(text) - 1, 0) > 0 && !atoi(text);

	nth_set(nth, 0);
	if (failed)
		nth->failed = nth->n;
	return failed;
}

/* Beside allocations iommufd lets look-ups fail, as if the id were wrong. */
static bool may_say(int rc)
{
	return !rc || rc == -ENOMEM || rc == -ENOENT || rc == -EINVAL;
}

FIXTURE(fail_nth)
{
	struct sides env;
	struct nth nth;
};

FIXTURE_SETUP(fail_nth)
{
	sides_open(_metadata, &self->env);
	if (!self->env.plain_id)
		return;
	if (!nth_open(&self->nth))
		SKIP(return, "this kernel injects no failures");
}

FIXTURE_TEARDOWN(fail_nth)
{
	sides_close(_metadata, &self->env);
	close(self->nth.fd);
}

TEST_F(fail_nth, alloc_queue)
{
	int before = dup(0), after, fd = -1, rc;
	struct nth *nth = &self->nth;
	uint32_t id = 0;

	close(before);
	do {
		nth_begin(nth);
		rc = fault_queue_alloc(self->env.fd, &id, &fd);
		if (!nth_end(nth))
			break;
		if (rc) {
			EXPECT_TRUE(may_say(rc));
			after = dup(0);
			EXPECT_EQ(before, after);
			close(after);
			continue;
		}
		close(fd);
		EXPECT_EQ(0, iommufd_destroy(self->env.fd, id));
	} while (1);
	EXPECT_EQ(0, rc);
	EXPECT_LE(3, nth->failed);
	EXPECT_EQ(0, close(fd));
	EXPECT_EQ(0, iommufd_destroy(self->env.fd, id));
}

TEST_F(fail_nth, alloc_hwpt)
{
	struct sides *env = &self->env;
	struct nth *nth = &self->nth;
	bool failed;
	uint32_t id;
	int rc;

	do {
		nth_begin(nth);
		rc = hwpt_alloc_paging(env->fd, env->bad.dev.idev_id, env->ioas_id,
				       IOMMU_HWPT_FAULT_ID_VALID, env->bad.queue_id, &id);
		failed = nth_end(nth);
		EXPECT_TRUE(may_say(rc));
		if (!rc)
			EXPECT_EQ(0, iommufd_destroy(env->fd, id));
	} while (failed);
	EXPECT_EQ(0, rc);
	EXPECT_LE(2, nth->failed);
}

/* An area on demand, with the threads of its owner, and a page table for it */
TEST_F(fail_nth, map_on_demand)
{
	const size_t length = 64ul << 20;
	uint32_t hwpt_id = 0, ioas_id, flags = IOMMU_IOAS_MAP_ON_FAULT | IOMMU_IOAS_MAP_READABLE;
	void *memory = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sides *env = &self->env;
	struct nth *nth = &self->nth;
	bool failed;
	int map, hwpt;

	ASSERT_NE(MAP_FAILED, memory);
	do {
		/* One that has never had any: what belongs to it is allocated anew. */
		ASSERT_EQ(0, ioas_alloc(env->fd, &ioas_id));
		nth_begin(nth);
		map = ioas_map(env->fd, ioas_id, ADDR, memory, length, flags);
		hwpt = hwpt_alloc_paging(env->fd, env->bad.dev.idev_id, ioas_id,
					 IOMMU_HWPT_ALLOC_ON_FAULT, 0, &hwpt_id);
		failed = nth_end(nth);
		EXPECT_TRUE(may_say(map));
		EXPECT_TRUE(may_say(hwpt));
		if (!hwpt)
			EXPECT_EQ(0, iommufd_destroy(env->fd, hwpt_id));
		if (!map)
			EXPECT_EQ(0, ioas_unmap(env->fd, ioas_id, ADDR, length));
		EXPECT_EQ(0, iommufd_destroy(env->fd, ioas_id));
	} while (failed);
	EXPECT_EQ(0, map);
	EXPECT_EQ(0, hwpt);
	EXPECT_LE(12, nth->failed);
	munmap(memory, length);
}

/* From a HWPT without a queue: page requests are switched on, with their memory. */
TEST_F(fail_nth, attach)
{
	struct sides *env = &self->env;
	struct side *bad = &env->bad;
	struct nth *nth = &self->nth;
	int rc, no_memory = 0;
	bool failed;

	do {
		ASSERT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, env->plain_id));
		nth_begin(nth);
		rc = mock_replace(env->fd, bad->dev.stdev_id, bad->hwpt_id);
		failed = nth_end(nth);
		EXPECT_TRUE(may_say(rc));
		no_memory += rc == -ENOMEM;
		EXPECT_EQ(!rc, works(env, bad));
	} while (failed);
	EXPECT_EQ(0, rc);
	EXPECT_LE(4, nth->failed);
	EXPECT_LT(0, no_memory);
}

/*
 * With groups queued and delivered: they are answered if the replacement is made,
 * and as good as before if it fails.
 */
TEST_F(fail_nth, replace)
{
	struct sides *env = &self->env;
	struct side *bad = &env->bad;
	struct nth *nth = &self->nth;
	struct iommu_hwpt_pgfault m;
	bool failed;
	int rc;

	do {
		ASSERT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, bad->hwpt_id));
		ASSERT_EQ(0, inject_side(env, bad, 0, 1, 3, 1));
		ASSERT_EQ(1, fault_read(bad->queue, &m, 1));
		nth_begin(nth);
		rc = mock_replace(env->fd, bad->dev.stdev_id, env->good.hwpt_id);
		failed = nth_end(nth);
		EXPECT_TRUE(may_say(rc));
		EXPECT_EQ(rc ? 0 : -EINVAL, fault_answer(bad->queue, m.cookie, SUCCESS));
		EXPECT_EQ(rc ? 2 : 0, serve_all(bad->queue));
		EXPECT_EQ(0, stats_of(env, bad).outstanding);
	} while (failed);
	EXPECT_EQ(0, rc);
	EXPECT_LE(2, nth->failed);
	EXPECT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, bad->hwpt_id));
}

TEST_F(fail_nth, pasid)
{
	struct sides *env = &self->env;
	struct side *bad = &env->bad;
	struct nth *nth = &self->nth;
	uint32_t dev = bad->dev.stdev_id;
	bool failed;
	int rc;

	do {
		nth_begin(nth);
		rc = mock_pasid_attach(env->fd, dev, 1, bad->hwpt_id);
		failed = nth_end(nth);
		EXPECT_EQ(0, inject_side(env, bad, 1, 1, 1, 1));
		EXPECT_EQ(!rc, serve_all(bad->queue));
		EXPECT_EQ(rc ? 0 : -EINVAL, mock_pasid_check(env->fd, dev, 1, 0));
		EXPECT_EQ(0, mock_pasid_detach(env->fd, dev, 1));
	} while (failed);
	EXPECT_EQ(0, rc);
	EXPECT_LE(2, nth->failed);
	ASSERT_EQ(0, mock_pasid_attach(env->fd, dev, 1, bad->hwpt_id));
	nth->n = 0;
	do {
		nth_begin(nth);
		rc = mock_pasid_replace(env->fd, dev, 1, env->good.hwpt_id);
		failed = nth_end(nth);
		EXPECT_EQ(0, inject_side(env, bad, 1, 1, 1, 1));
		EXPECT_EQ(!rc, serve_all(env->good.queue));
		EXPECT_EQ(!!rc, serve_all(bad->queue));
		if (!rc)
			EXPECT_EQ(0, mock_pasid_replace(env->fd, dev, 1, bad->hwpt_id));
	} while (failed);
	EXPECT_EQ(0, rc);
}

/* Once the device is found there is nothing that could fail. */
TEST_F(fail_nth, detach)
{
	struct sides *env = &self->env;
	struct nth *nth = &self->nth;
	bool failed;
	int rc;

	do {
		ASSERT_EQ(0, mock_pasid_attach(env->fd, env->bad.dev.stdev_id, 1,
					       env->bad.hwpt_id));
		ASSERT_EQ(0, inject_side(env, &env->bad, 1, 1, 5, 2));
		nth_begin(nth);
		rc = mock_pasid_detach(env->fd, env->bad.dev.stdev_id, 1);
		failed = nth_end(nth);
		if (rc == -ENOENT)
			rc = mock_pasid_detach(env->fd, env->bad.dev.stdev_id, 1);
		EXPECT_EQ(0, rc);
		EXPECT_EQ(0, stats_of(env, &env->bad).outstanding);
	} while (failed);
}

/* More than there is memory for yet: each group is queued, or answered. */
TEST_F(fail_nth, fault)
{
	struct sides *env = &self->env;
	struct side *bad = &env->bad;
	struct nth *nth = &self->nth;
	bool failed;
	int rc, ms;

	do {
		/* Attached anew, with the least memory */
		ASSERT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, env->plain_id));
		ASSERT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, bad->hwpt_id));
		nth_begin(nth);
		rc = inject_side(env, bad, 0, 1, 40, 3);
		failed = nth_end(nth);
		EXPECT_TRUE(may_say(rc));
		serve_all(bad->queue);
		/* what was told to try again is answered a moment later */
		for (ms = 0; ms < LONG_MS && stats_of(env, bad).outstanding; ms++)
			usleep(1000);
		EXPECT_EQ(0, stats_of(env, bad).outstanding);
		EXPECT_TRUE(works(env, bad));
	} while (failed);
	EXPECT_EQ(0, rc);
	EXPECT_LE(3, nth->failed);
}

/* None of them allocates anything, so there is nothing that could fail. */
TEST_F(fail_nth, read_write_poll_serve)
{
	struct nth *nth = &self->nth;
	int queue = self->env.bad.queue;
	struct iommu_hwpt_page_response r = {};
	struct iommu_fault_serve cmd;
	struct iommu_hwpt_pgfault m;

	ASSERT_EQ(0, inject_side(&self->env, &self->env.bad, 0, 1, 3, 1));
	nth_begin(nth);
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(queue, 0));
	EXPECT_EQ(1, fault_read(queue, &m, 1));
	r.cookie = m.cookie;
	EXPECT_EQ(1, fault_write(queue, &r, 1));
	EXPECT_EQ(0, fault_serve(queue, &cmd, NULL, 0, &m, 1, 0));
	r.cookie = m.cookie;
	EXPECT_EQ(0, fault_serve(queue, &cmd, &r, 1, &m, 1, IOMMU_FAULT_SERVE_FOREVER));
	r.cookie = m.cookie;
	EXPECT_EQ(0, fault_serve(queue, &cmd, &r, 1, &m, 1, 1000000));
	EXPECT_FALSE(nth_end(nth));
	EXPECT_EQ(0, stats_of(&self->env, &self->env.bad).outstanding);
}

/* One request with a failure; what was not done is done the second time. */
static int request(struct nth *nth, struct io_uring *ring, uint8_t op, int fd, void *bytes,
		   unsigned int size, bool *failed)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int rc;

	io_uring_prep_rw(op, sqe, fd, bytes, size, 0);
	nth_begin(nth);
	rc = io_uring_submit(ring);
	*failed = nth_end(nth);
	if (rc <= 0)
		rc = io_uring_submit(ring);
	if (rc != 1 || io_uring_wait_cqe(ring, &cqe))
		return -EIO;
	rc = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return rc;
}

/* A read and a write of io_uring are done, or not; nothing is lost. */
TEST_F(fail_nth, uring)
{
	struct sides *env = &self->env;
	struct nth *nth = &self->nth;
	int queue = env->bad.queue;
	struct iommu_hwpt_page_response r = {};
	struct iommu_hwpt_pgfault m;
	bool failed, failed_too;
	struct io_uring ring;
	unsigned int n;
	int rc;

	do {
		ASSERT_EQ(0, io_uring_queue_init(4, &ring, 0));
		ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
		n = nth->n;
		rc = request(nth, &ring, IORING_OP_READ, queue, &m, MSG, &failed);
		if (rc != MSG) {
			EXPECT_EQ(-ENOMEM, rc);
			ASSERT_EQ(1, fault_read(queue, &m, 1));
		}
		nth->n = n;
		r.cookie = m.cookie;
		rc = request(nth, &ring, IORING_OP_WRITE, queue, &r, ANSWER, &failed_too);
		if (rc != ANSWER) {
			EXPECT_EQ(-ENOMEM, rc);
			EXPECT_EQ(0, fault_answer(queue, m.cookie, SUCCESS));
		}
		EXPECT_EQ(0, stats_of(env, &env->bad).outstanding);
		io_uring_queue_exit(&ring);
	} while (failed || failed_too);
}

/* ---- memory on demand ---- */

static bool is_demand_thread(const char *tid)
{
	char path[300], name[32];

	snprintf(path, sizeof(path), "/proc/self/task/%s/comm", tid);
	first_line(path, name, sizeof(name));
	return !strcmp(name, "iopf-demand\n");
}

/*
 * In each thread that resolves faults for this process let the @n-th allocation fail, or with
 * 0 none any more. Returns in how many one has failed.
 */
static unsigned int demand_threads_nth(unsigned int n)
{
	DIR *tasks = opendir("/proc/self/task");
	unsigned int failed = 0;
	struct dirent *task;
	struct nth nth = {};
	char path[300];

	if (!tasks)
		return 0;
	while ((task = readdir(tasks))) {
		if (!is_demand_thread(task->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/fail-nth", task->d_name);
		nth.fd = open(path, O_RDWR | O_CLOEXEC);
		if (n)
			nth_set(&nth, n);
		else
			failed += nth_end(&nth);
		close(nth.fd);
	}
	closedir(tasks);
	return failed;
}

#define CHUNK (2ull << 20)
#define CHUNKS 64

/*
 * Each request is for a page of another table: what cannot be allocated is tried again. In 6.12
 * one of the failures is not for memory, but the mock page table's own, which ends in INVALID.
 * The mock of 7.3 has a page table of whole pages, so that less can fail.
 */
TEST_F(fail_nth, demand)
{
	struct sides *env = &self->env;
	struct side *bad = &env->bad;
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)&bad->dev.idev_id,
		.nr_devs = 1,
		.groups = 1,
		.requests = 1,
		.nr_pasids = 1,
		.perm = IOMMU_PGFAULT_PERM_WRITE,
	};
	struct iommu_test_iopf_stats before = stats_of(env, bad), after;
	struct iommu_test_demand_audit audit = {};
	uint32_t ioas_id, hwpt_id;
	unsigned int n = 0, failed, invalid, ms;
	char *memory;

	memory = mmap(NULL, CHUNKS * CHUNK, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)memory);
	ASSERT_EQ(0, ioas_alloc(env->fd, &ioas_id));
	ASSERT_EQ(0, hwpt_alloc_paging(env->fd, bad->dev.idev_id, ioas_id,
				       IOMMU_HWPT_ALLOC_ON_FAULT, 0, &hwpt_id));
	ASSERT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, hwpt_id));
	ASSERT_EQ(0, ioas_map(env->fd, ioas_id, ADDR, memory, CHUNKS * CHUNK,
			      ON_FAULT | WRITE_TOO));
	do {
		batch.addr = ADDR + n * CHUNK;
		batch.grpid = n++;
		demand_threads_nth(n);
		ASSERT_EQ(0, iopf_batch(env->fd, &batch));
		for (ms = 0; ms < LONG_MS && stats_of(env, bad).outstanding; ms++)
			usleep(1000);
		failed = demand_threads_nth(0);
	} while (failed && n < CHUNKS);
	after = stats_of(env, bad);
	EXPECT_EQ(0, failed);
	EXPECT_LE(2, n);
	invalid = after.responses[INVALID] - before.responses[INVALID];
	EXPECT_GE(1, invalid);
	EXPECT_EQ(before.responses[SUCCESS] + n - invalid, after.responses[SUCCESS]);
	EXPECT_EQ(0, demand_audit(env->fd, ioas_id, &audit));
	EXPECT_EQ(0, audit.wrong);
	EXPECT_EQ(n - invalid, audit.pages);
	EXPECT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, bad->hwpt_id));
	EXPECT_EQ(0, iommufd_destroy(env->fd, hwpt_id));
	EXPECT_EQ(0, iommufd_destroy(env->fd, ioas_id));
	munmap(memory, CHUNKS * CHUNK);
}

TEST_HARNESS_MAIN
