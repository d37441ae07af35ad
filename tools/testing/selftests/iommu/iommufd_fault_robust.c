// SPDX-License-Identifier: GPL-2.0-only
/*
 * What iommufd's fault queue does when something fails, and when somebody means
 * it no good: allocations and user memory that fail, memory that does not come,
 * devices that flood, servers that die or stop, and those who have no right.
 */
#include <linux/userfaultfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "iommufd_fault_sides.h"

#define FLOOD 200000
#define CGROUP "/tmp/iommufd-robust"

/* ---- devices that flood ---- */

FIXTURE(hostile)
{
	struct sides env;
};

FIXTURE_SETUP(hostile)
{
	sides_open(_metadata, &self->env);
}

FIXTURE_TEARDOWN(hostile)
{
	sides_close(_metadata, &self->env);
}

/* Kernel memory charged to this test, in bytes, or -1 */
static long long kernel_memory(void)
{
	char line[128];
	long long value = -1;
	FILE *f = fopen(CGROUP "/robust/memory.stat", "r");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "kernel %lld", &value);
	if (f)
		fclose(f);
	return value;
}

static bool enter_cgroup(void)
{
	char pid[16];

	mkdir(CGROUP, 0755);
	mount("cgroup2", CGROUP, "cgroup2", 0, NULL);
	put(CGROUP "/cgroup.subtree_control", "+memory");
	mkdir(CGROUP "/robust", 0755);
	snprintf(pid, sizeof(pid), "%d", getpid());
	put(CGROUP "/robust/cgroup.procs", pid);
	return kernel_memory() >= 0;
}

static void leave_cgroup(void)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", getpid());
	put(CGROUP "/cgroup.procs", pid);
}

/*
 * However much a device sends, its pool grows to what was documented: room for 8448
 * requests and as many groups, 2.8 MiB. A cgroup is charged some more, ahead of use.
 */
#define POOL_BOUND (7ll << 19)

/* The kernels that look for their own mistakes need twice the memory. */
static long long pool_bound(void)
{
	return access("/sys/kernel/debug/kmemleak", F_OK) ? POOL_BOUND : 2 * POOL_BOUND;
}

static void flood(struct __test_metadata *_metadata, struct sides *env, uint32_t groups,
		  uint32_t requests, uint32_t grpid_step, uint32_t flags)
{
	struct side *bad = &env->bad;
	uint32_t i, batch = 4096 / requests;
	long long before, grown;
	bool measured;

	measured = enter_cgroup();
	/* Attached anew, so that its memory is charged to the cgroup */
	ASSERT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, env->plain_id));
	ASSERT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, bad->hwpt_id));
	before = kernel_memory();
	for (i = 0; i < groups; i += batch)
		ASSERT_EQ(0, iopf_inject(env->fd, bad->dev.idev_id, 0, i * grpid_step, ADDR, batch,
					 requests, flags));
	grown = kernel_memory() - before;
	leave_cgroup();
	if (measured) {
		TH_LOG("kernel memory grew by %lld KiB", grown / 1024);
		EXPECT_GT(pool_bound(), grown);
	}
	EXPECT_TRUE(works(env, &env->good));
}

TEST_F(hostile, flood_of_lasts)
{
	flood(_metadata, &self->env, FLOOD, 1, 1, 0);
	/* Those that found room are still good, all others were answered. */
	EXPECT_EQ(4096, stats_of(&self->env, &self->env.bad).outstanding);
	EXPECT_EQ(4096, serve_all(self->env.bad.queue));
	EXPECT_TRUE(works(&self->env, &self->env.bad));
}

TEST_F(hostile, partials_that_never_end)
{
	struct sides *env = &self->env;

	flood(_metadata, env, FLOOD, 1, 1, IOMMU_TEST_IOPF_NO_LAST);
	EXPECT_EQ(0, stats_of(env, &env->bad).groups);
	/* An end is put to them. */
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->plain_id));
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->bad.hwpt_id));
	EXPECT_TRUE(works(env, &env->bad));
}

TEST_F(hostile, one_group_id)
{
	struct sides *env = &self->env;
	uint32_t i;

	flood(_metadata, env, 4096, 1, 0, IOMMU_TEST_IOPF_NO_LAST);
	for (i = 0; i < FLOOD / 4096; i++)
		ASSERT_EQ(0, iopf_inject(env->fd, env->bad.dev.idev_id, 0, 7, ADDR, 1, 4096,
					 IOMMU_TEST_IOPF_NO_LAST));
	/* A group that lost requests is answered for the server. */
	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 7, 1, 1));
	EXPECT_EQ(1, stats_of(env, &env->bad).responses[INVALID]);
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->plain_id));
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->bad.hwpt_id));
	EXPECT_TRUE(works(env, &env->bad));
}

/* Lines of the kernel log since the last call */
static unsigned int log_lines(int kmsg)
{
	unsigned int lines = 0;
	char record[1024];

	while (read(kmsg, record, sizeof(record)) > 0 || errno == EPIPE)
		lines++;
	return lines;
}

TEST_F(hostile, unknown_pasids)
{
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK), i;
	struct sides *env = &self->env;
	struct timespec begin, end;
	unsigned int lines;

	ASSERT_LE(0, kmsg);
	log_lines(kmsg);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (i = 0; i < FLOOD / 4096; i++)
		ASSERT_EQ(0, inject_side(env, &env->bad, 1000 + i, i, 4096, 1));
	clock_gettime(CLOCK_MONOTONIC, &end);
	EXPECT_EQ(FLOOD / 4096 * 4096, stats_of(env, &env->bad).responses[INVALID]);
	/* Ten lines in five seconds is what the kernel lets a place say. */
	lines = log_lines(kmsg);
	TH_LOG("%u lines in the log for %u faults", lines, FLOOD / 4096 * 4096);
	EXPECT_GE(12 * (2 + (end.tv_sec - begin.tv_sec) / 5), lines);
	EXPECT_TRUE(works(env, &env->good));
	EXPECT_TRUE(works(env, &env->bad));
	close(kmsg);
}

/* One fault of the good device, from its request to its answer, in nanoseconds */
static uint64_t service_ns(const struct sides *env)
{
	struct timespec begin, end;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	if (iopf_trigger(env->fd, env->good.dev.idev_id, 0, 1, 3, ADDR) ||
	    serve_all(env->good.queue) != 1)
		return ~0ull;
	clock_gettime(CLOCK_MONOTONIC, &end);
	return (uint64_t)(end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

#define SERVICES 1000

static uint64_t service_p99(struct __test_metadata *_metadata, struct sides *env, bool hostile)
{
	static uint64_t ns[SERVICES];
	int i;

	for (i = 0; i < SERVICES; i++) {
		/* Full groups, groups that never end, PASIDs that nobody has */
		if (hostile) {
			EXPECT_EQ(0, inject_side(env, &env->bad, 0, i * 64, 64, 1));
			EXPECT_EQ(0, inject_side(env, &env->bad, 9, i * 64, 64, 1));
			EXPECT_EQ(0, iopf_inject(env->fd, env->bad.dev.idev_id, 0, i * 64, ADDR, 64,
						 2, IOMMU_TEST_IOPF_NO_LAST));
		}
		ns[i] = service_ns(env);
	}
	qsort(ns, SERVICES, sizeof(ns[0]), compare_u64);
	return ns[SERVICES * 99 / 100];
}

/*
 * On a clock that counts instructions (scripts/vm --icount, which has one
 * processor) a well-behaved device is served as fast as alone, while another
 * one's queue, pool and table of groups are as full as they get.
 */
TEST_F_TIMEOUT(hostile, p99_of_another_device, 300)
{
	uint64_t alone, beside;

	alone = service_p99(_metadata, &self->env, false);
	beside = service_p99(_metadata, &self->env, true);
	TH_LOG("p99: %llu alone, %llu beside a hostile device", (unsigned long long)alone,
	       (unsigned long long)beside);
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
		SKIP(return, "a clock that does not count instructions is not judged");
	EXPECT_GE(4 * alone, beside);
}

/* ---- servers that die or stop, and those without a right ---- */

FIXTURE(server)
{
	struct sides env;
	int pipe[2];
	pid_t pid;
};

FIXTURE_SETUP(server)
{
	sides_open(_metadata, &self->env);
	ASSERT_EQ(0, pipe(self->pipe));
}

FIXTURE_TEARDOWN(server)
{
	close(self->pipe[0]);
	close(self->pipe[1]);
	sides_close(_metadata, &self->env);
}

static void tell(const struct _test_data_server *self, const void *what, size_t size)
{
	if (write(self->pipe[1], what, size) != (ssize_t)size)
		_exit(1);
}

static void child_end(struct __test_metadata *_metadata, struct _test_data_server *self, int sig)
{
	int status;

	if (sig)
		ASSERT_EQ(0, kill(self->pid, sig));
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, 0));
	EXPECT_EQ(sig, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	if (!sig)
		EXPECT_EQ(0, WEXITSTATUS(status));
}

/*
 * A server that is stopped, with no deadline set: what it holds waits, others do
 * not, and a detach does not either; what it says when it goes on is too late.
 */
TEST_F(server, sigstop)
{
	struct sides *env = &self->env;
	struct iommu_hwpt_pgfault m;
	int rc, status;

	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 2, 1));
	self->pid = fork();
	if (!self->pid) {
		rc = (int)fault_read(env->bad.queue, &m, 1);
		raise(SIGSTOP);
		if (rc == 1)
			rc = fault_answer(env->bad.queue, m.cookie, SUCCESS);
		tell(self, &rc, sizeof(rc));
		_exit(0);
	}
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
	EXPECT_EQ(2, stats_of(env, &env->bad).outstanding);
	EXPECT_TRUE(works(env, &env->good));
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->plain_id));
	EXPECT_EQ(0, stats_of(env, &env->bad).outstanding);
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->bad.hwpt_id));
	EXPECT_TRUE(works(env, &env->bad));
	ASSERT_EQ(0, kill(self->pid, SIGCONT));
	ASSERT_EQ((ssize_t)sizeof(rc), read(self->pipe[0], &rc, sizeof(rc)));
	EXPECT_EQ(-EINVAL, rc);
	child_end(_metadata, self, 0);
}

/* With a deadline nobody has to come and detach. */
TEST_F(server, sigstop_with_deadline)
{
	struct sides *env = &self->env;
	struct iommu_fault_alloc cmd = {
		.size = sizeof(cmd), .deadline_ms = 20, .deadline_code = INVALID,
	};
	struct iommu_hwpt_pgfault m;
	int rc, status, i, queue;
	uint32_t hwpt_id;

	ASSERT_EQ(0, iommufd_call(env->fd, IOMMU_FAULT_QUEUE_ALLOC, &cmd));
	queue = (int)cmd.out_fault_fd;
	ASSERT_EQ(0, hwpt_alloc_paging(env->fd, env->bad.dev.idev_id, env->ioas_id,
				       IOMMU_HWPT_FAULT_ID_VALID, cmd.out_fault_id, &hwpt_id));
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, hwpt_id));
	self->pid = fork();
	if (!self->pid) {
		fault_poll(queue, LONG_MS);
		rc = (int)fault_read(queue, &m, 1);
		raise(SIGSTOP);
		if (rc == 1)
			rc = fault_answer(queue, m.cookie, SUCCESS);
		tell(self, &rc, sizeof(rc));
		_exit(0);
	}
	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
	for (i = 0; i < LONG_MS && stats_of(env, &env->bad).outstanding; i++)
		usleep(1000);
	EXPECT_EQ(1, stats_of(env, &env->bad).responses[INVALID]);
	ASSERT_EQ(0, kill(self->pid, SIGCONT));
	ASSERT_EQ((ssize_t)sizeof(rc), read(self->pipe[0], &rc, sizeof(rc)));
	/* Too late; -EINVAL if it never had it: the deadline may be over by the read */
	EXPECT_TRUE(rc == -ESTALE || rc == -EINVAL || rc == 0);
	EXPECT_EQ(0, stats_of(env, &env->bad).responses[SUCCESS]);
	child_end(_metadata, self, 0);
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->bad.hwpt_id));
	EXPECT_EQ(0, iommufd_destroy(env->fd, hwpt_id));
	EXPECT_EQ(0, close(queue));
	EXPECT_EQ(0, iommufd_destroy(env->fd, cmd.out_fault_id));
	EXPECT_TRUE(works(env, &env->bad));
}

/* The last reference of the queue's file is that of a read on a ring. */
TEST_F(server, last_reference_is_a_ring)
{
	struct sides *env = &self->env;
	struct iommu_test_iopf_stats s;
	struct iommu_hwpt_pgfault m[2];
	struct io_uring_sqe *sqe;
	struct io_uring ring;
	int i;

	ASSERT_EQ(0, io_uring_queue_init(4, &ring, 0));
	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	ASSERT_EQ(1, fault_read(env->bad.queue, &m[0], 1));
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read(sqe, env->bad.queue, &m[1], MSG, 0);
	ASSERT_EQ(1, io_uring_submit(&ring));
	ASSERT_EQ(0, close(env->bad.queue));
	EXPECT_EQ(1, stats_of(env, &env->bad).outstanding);
	io_uring_queue_exit(&ring);
	for (i = 0; i < LONG_MS; i++) {
		s = stats_of(env, &env->bad);
		if (!s.outstanding)
			break;
		usleep(1000);
	}
	EXPECT_EQ(1, s.responses[INVALID]);
	/* The next server has a queue of its own, and the device at once. */
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->good.hwpt_id));
	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	EXPECT_EQ(1, serve_all(env->good.queue));
	env->bad.queue = -1;
}

/* Killed while it holds groups and a copy of it is held up by userfaultfd. */
TEST_F(server, sigkill_in_a_copy)
{
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	struct sides *env = &self->env;
	struct uffd_msg msg;
	int uffd, i;
	char *page;

	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 2, 1));
	self->pid = fork();
	if (!self->pid) {
		uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
		page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		area.range.start = (uintptr_t)page;
		area.range.len = PAGE;
		if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) ||
		    ioctl(uffd, UFFDIO_REGISTER, &area))
			_exit(4);
		close(env->fd);
		if (!fork()) {
			/* Sees the parent's copy begin, and tells. */
			i = read(uffd, &msg, sizeof(msg)) != (ssize_t)sizeof(msg);
			tell(self, &i, sizeof(i));
			_exit(0);
		}
		fault_read(env->bad.queue, (void *)page, 1);
		_exit(0);
	}
	close(env->bad.queue);
	env->bad.queue = -1;
	ASSERT_EQ((ssize_t)sizeof(i), read(self->pipe[0], &i, sizeof(i)));
	ASSERT_EQ(0, i);
	child_end(_metadata, self, SIGKILL);
	for (i = 0; i < LONG_MS && stats_of(env, &env->bad).outstanding; i++)
		usleep(1000);
	EXPECT_EQ(2, stats_of(env, &env->bad).responses[INVALID]);
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->good.hwpt_id));
	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	EXPECT_EQ(1, serve_all(env->good.queue));
}

/* A server with one queue gives the cookies of another, and all others it can guess. */
TEST_F(server, cookies_of_another_queue)
{
	struct sides *env = &self->env;
	struct iommu_hwpt_pgfault m;
	uint32_t cookie;

	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	ASSERT_EQ(1, fault_read(env->bad.queue, &m, 1));
	EXPECT_EQ(-EINVAL, fault_answer(env->good.queue, m.cookie, SUCCESS));
	for (cookie = 0; cookie < 100000; cookie++)
		ASSERT_EQ(-EINVAL, fault_answer(env->good.queue, cookie, SUCCESS));
	EXPECT_EQ(1, stats_of(env, &env->bad).outstanding);
	EXPECT_EQ(0, fault_answer(env->bad.queue, m.cookie, SUCCESS));
}

/* A second iommufd names the objects of the first: it has no such objects. */
TEST_F(server, other_iommufd)
{
	struct sides *env = &self->env;
	int other = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	struct iommu_test_iopf_stats s;
	uint32_t id;

	ASSERT_LE(0, other);
	for (id = 0; id < 64; id++)
		EXPECT_EQ(-ENOENT, iommufd_destroy(other, id));
	EXPECT_EQ(-ENOENT, hwpt_alloc_paging(other, env->bad.dev.idev_id, env->ioas_id,
					     IOMMU_HWPT_FAULT_ID_VALID, env->bad.queue_id, &id));
	EXPECT_EQ(-ENOENT, mock_replace(other, env->bad.dev.stdev_id, env->plain_id));
	EXPECT_EQ(-ENOENT, mock_pasid_attach(other, env->bad.dev.stdev_id, 1, env->bad.hwpt_id));
	EXPECT_EQ(-ENOENT, iopf_stats(other, env->bad.dev.idev_id, &s));
	EXPECT_TRUE(works(env, &env->bad));
	close(other);
}

/*
 * A user who was handed the queue's file, and nothing else, may serve what comes
 * out of it. That is all: no iommufd, no object, not the other queue.
 */
TEST_F(server, other_user)
{
	struct sides *env = &self->env;
	struct iommu_hwpt_pgfault m;
	char path[64];
	int rc = 0;

	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	ASSERT_EQ(0, inject_side(env, &env->good, 0, 1, 1, 1));
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), env->good.queue);
	self->pid = fork();
	if (!self->pid) {
		close(env->fd);
		close(env->good.queue);
		if (setgid(65534) || setuid(65534))
			_exit(1);
		rc |= (open("/dev/iommu", O_RDWR) != -1) << 0;
		rc |= (open(path, O_RDWR) != -1) << 1;
		rc |= (iommufd_destroy(env->bad.queue, env->bad.queue_id) != -ENOTTY) << 2;
		rc |= (fault_read(env->bad.queue, &m, 1) != 1) << 3;
		rc |= (fault_answer(env->bad.queue, m.cookie, SUCCESS) != 0) << 4;
		rc |= (fault_read(env->bad.queue, &m, 1) != 0) << 5;
		_exit(rc);
	}
	child_end(_metadata, self, 0);
	EXPECT_EQ(1, stats_of(env, &env->bad).responses[SUCCESS]);
	EXPECT_EQ(1, stats_of(env, &env->good).outstanding);
	EXPECT_EQ(1, serve_all(env->good.queue));
}

TEST_HARNESS_MAIN
