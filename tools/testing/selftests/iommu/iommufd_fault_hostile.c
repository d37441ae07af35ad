// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices that flood: memory, log lines, and what another device notices.
 */
#include <time.h>

/* Some send as many requests as a mock device ever may have outstanding. */
#define HARNESS_RESERVE 8448

#include "iommufd_cgroup.h"
#include "iommufd_fault_sides.h"

#define FLOOD 200000

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
	rmdir(CGROUP);
}

/* Kernel memory charged to this test, in bytes, or -1 */
static long long kernel_memory(void)
{
	return named_number(CGROUP "/memory.stat", "kernel", ' ');
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

	measured = cgroup_enter();
	/* Attached anew, so that its memory is charged to the cgroup, all of it at once */
	ASSERT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, env->plain_id));
	before = kernel_memory();
	ASSERT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, bad->hwpt_id));
	for (i = 0; i < groups; i += batch)
		ASSERT_EQ(0, iopf_inject(env->fd, bad->dev.idev_id, 0, i * grpid_step, ADDR, batch,
					 requests, flags));
	grown = kernel_memory() - before;
	cgroup_leave();
	if (measured) {
		TH_LOG("kernel memory grew by %lld KiB", grown / 1024);
		EXPECT_GT(pool_bound(), grown);
	}
	EXPECT_TRUE(works(env, &env->good));
}

TEST_F(hostile, flood_of_lasts)
{
	int ms;

	flood(_metadata, &self->env, FLOOD, 1, 1, 0);
	/* Those that found room are still good, all others are answered. */
	for (ms = 0; ms < LONG_MS && stats_of(&self->env, &self->env.bad).outstanding > 4096; ms++)
		usleep(1000);
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

static long long memory_current(void)
{
	FILE *f = fopen(CGROUP "/memory.current", "r");
	long long value = -1;

	if (f && fscanf(f, "%lld", &value) != 1)
		value = -1;
	if (f)
		fclose(f);
	return value;
}

#define MEMORY_MAX (16ll << 20)

/* A process of the cgroup that uses what is left of its memory, and waits. */
static pid_t use_all_memory(void)
{
	long long left = MEMORY_MAX / PAGE;
	pid_t pid = fork();
	char *p;

	if (pid)
		return pid;
	cgroup_enter();
	p = mmap(NULL, MEMORY_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	while (p != MAP_FAILED && left-- && memory_current() < MEMORY_MAX - 2 * PAGE)
		p[left * PAGE] = 1;
	raise(SIGSTOP);
	_exit(0);
}

/*
 * The bad device's pool begins anew in a cgroup that is full. Returns the process that holds
 * the memory, or 0 if there are no such cgroups.
 */
static pid_t starve(struct __test_metadata *_metadata, struct sides *env)
{
	struct side *bad = &env->bad;
	int status;
	pid_t pid;

	if (!cgroup_enter()) {
		cgroup_leave();
		return 0;
	}
	write_file(CGROUP "/memory.max", "16777216");
	ASSERT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, env->plain_id));
	/* It begins with a page, and is to get no more. */
	reserve_requests(0);
	ASSERT_EQ(0, mock_replace(env->fd, bad->dev.stdev_id, bad->hwpt_id));
	reserve_requests(HARNESS_RESERVE);
	cgroup_leave();
	pid = use_all_memory();
	ASSERT_LT(0, pid);
	ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
	return pid;
}

static void feed(struct __test_metadata *_metadata, pid_t pid)
{
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	write_file(CGROUP "/memory.max", "max");
}

/*
 * The owner's cgroup is full. Page requests kill nobody for memory, nor wait for it:
 * the device tries again, until there is some.
 */
TEST_F(hostile, full_cgroup)
{
	struct sides *env = &self->env;
	struct side *bad = &env->bad;
	struct iommu_test_iopf_stats s;
	int status, ms;
	pid_t pid;

	pid = starve(_metadata, env);
	if (!pid)
		SKIP(return, "no memory cgroups here");

	ASSERT_EQ(0, inject_side(env, bad, 0, 0, 2000, 1));
	ASSERT_EQ(0, inject_side(env, bad, 0, 0, 100, 3));
	EXPECT_TRUE(works(env, &env->good));
	EXPECT_EQ(0, cgroup_event("oom"));
	EXPECT_EQ(0, cgroup_event("oom_kill"));
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	/* What the cgroup had left is used up by some; the others are to try again. */
	EXPECT_GT(2100, serve_all(bad->queue));
	for (ms = 0; ms < LONG_MS && stats_of(env, bad).outstanding; ms++)
		usleep(1000);
	s = stats_of(env, bad);
	EXPECT_EQ(2100, s.responses[SUCCESS]);
	EXPECT_EQ(0, s.outstanding + s.responses[INVALID]);

	/* There is memory again. */
	feed(_metadata, pid);
	for (ms = 0; ms < LONG_MS; ms += 10) {
		ASSERT_EQ(0, inject_side(env, bad, 0, 0, 200, 1));
		if (serve_all(bad->queue) == 200)
			break;
		usleep(10000);
	}
	EXPECT_GT(LONG_MS, ms);
	for (ms = 0; ms < LONG_MS && stats_of(env, bad).outstanding; ms++)
		usleep(1000);
	EXPECT_TRUE(works(env, bad));
}

TEST_F(hostile, unknown_pasids)
{
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK), i;
	struct sides *env = &self->env;
	struct timespec begin, end;
	unsigned int lines;

	ASSERT_LE(0, kmsg);
	log_lines(kmsg, "");
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (i = 0; i < FLOOD / 4096; i++)
		ASSERT_EQ(0, inject_side(env, &env->bad, 1000 + i, i, 4096, 1));
	clock_gettime(CLOCK_MONOTONIC, &end);
	EXPECT_EQ(FLOOD / 4096 * 4096, stats_of(env, &env->bad).responses[INVALID]);
	/* Ten lines in five seconds is what the kernel lets a place say. */
	lines = log_lines(kmsg, "");
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

/* Of a clock that counts instructions: there is one processor. */
static bool judged(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) == 1;
}

static uint64_t service_p99(struct __test_metadata *_metadata, struct sides *env, bool hostile)
{
	const int n = judged() ? SERVICES : SERVICES / 20;
	static uint64_t ns[SERVICES];
	int i;

	for (i = 0; i < n; i++) {
		/* Full groups, groups that never end, PASIDs that nobody has */
		if (hostile) {
			EXPECT_EQ(0, inject_side(env, &env->bad, 0, i * 64, 64, 1));
			EXPECT_EQ(0, inject_side(env, &env->bad, 9, i * 64, 64, 1));
			EXPECT_EQ(0, iopf_inject(env->fd, env->bad.dev.idev_id, 0, i * 64, ADDR, 64,
						 2, IOMMU_TEST_IOPF_NO_LAST));
		}
		ns[i] = service_ns(env);
	}
	qsort(ns, n, sizeof(ns[0]), compare_u64);
	return ns[n * 99 / 100];
}

/*
 * On a clock that counts instructions (scripts/vm --icount, which has one
 * processor) a well-behaved device is served as fast as alone, while another
 * one's queue, pool and table of groups are as full as they get, or have no memory.
 */
TEST_F_TIMEOUT(hostile, p99_of_another_device, 300)
{
	unsigned long long alone, beside, starved = 0;
	pid_t pid;

	alone = service_p99(_metadata, &self->env, false);
	pid = starve(_metadata, &self->env);
	if (pid) {
		starved = service_p99(_metadata, &self->env, true);
		EXPECT_EQ(0, cgroup_event("oom"));
		feed(_metadata, pid);
	}
	beside = service_p99(_metadata, &self->env, true);
	TH_LOG("p99: %llu alone, %llu beside a hostile device, %llu with its cgroup full", alone,
	       beside, starved);
	if (!judged())
		SKIP(return, "a clock that does not count instructions is not judged");
	EXPECT_GE(alone + alone / 5, beside);
	EXPECT_GE(alone + alone / 5, starved);
}

TEST_HARNESS_MAIN
