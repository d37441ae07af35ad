// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stress of memory on demand, on a mock device: processes lose their memory in every way
 * while the device asks for it, from a seed.
 *
 * Threads unmap pages, drop them, forbid to access them, share them with a child, cut the
 * file that they come from, and map the area itself anew; another one asks for what is
 * there and for what is not. Beside that owners, each a process, map an area of their own
 * and do the same, until they end by _exit(), by exec() or by SIGKILL.
 *
 * Each actor draws its numbers from a stream of its own, so a seed gives the same decisions
 * again; how they interleave is up to the scheduler. What must hold however they do:
 *
 *	- each group is answered once, by SUCCESS or INVALID;
 *	- what is mapped is what the process has there, in the end;
 *	- nothing is mapped after its area is unmapped, and all objects can be destroyed.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "../kselftest.h"
#include "iommufd_fault_utils.h"
#include "iommufd_demand_utils.h"
#include "iommufd_stress_utils.h"

#define PAGE 4096ull
#define PAGES 1024
#define LENGTH (PAGES * PAGE)
#define ADDR 0x40000000ull
#define STEP 0x10000000ull /* from part to part; holes are asked for, too */
#define OUTSTANDING 256
#define STUCK_MS 600000

enum { PART_ANONYMOUS, PART_FILE, PART_OWNER, PARTS };
enum owner_end { OWNER_EXITS, OWNER_EXECS, OWNER_IS_KILLED, OWNER_ENDS };

struct stress {
	struct stress_options opt;
	int fd;
	uint32_t ioas_id;
	uint32_t hwpt_id;
	struct mock_device dev;
	char *memory[PARTS];
	int file;
	int zero;
	bool stop;
	uint64_t changes;
	uint64_t requests;
	char failure[120];
};

/* A thread that changes a part, or asks */
struct actor {
	struct stress *stress;
	unsigned int part;
	bool maps; /* the area itself, which one thread does */
	struct rng rng;
	pthread_t thread;
};

static void fail(struct stress *s, const char *what, int rc)
{
	snprintf(s->failure, sizeof(s->failure), "%s: %s", what, strerror(-rc));
	__atomic_store_n(&s->stop, true, __ATOMIC_RELAXED);
}

static bool is_over(const struct stress *s)
{
	return __atomic_load_n(&s->stop, __ATOMIC_RELAXED);
}

static uint64_t iova_of(unsigned int part)
{
	return ADDR + part * STEP;
}

/* ---- memory ---- */

static void *map_memory(const struct stress *s, unsigned int part, void *at, unsigned int page,
			unsigned int n)
{
	int fixed = at ? MAP_FIXED : 0;

	if (part == PART_FILE)
		return mmap(at, n * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | fixed, s->file,
			    page * PAGE);
	return mmap(at, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1,
		    0);
}

/* What a child shares is copied as soon as somebody writes. */
static void share(const struct stress *s, char *at, size_t length)
{
	pid_t pid = fork();

	if (!pid)
		_exit(read(s->zero, at, length) < 0);
	if (pid > 0) {
		if (read(s->zero, at, PAGE) < 0)
			at = NULL;
		waitpid(pid, NULL, 0);
	}
}

/* Some pages go, change or come; an access that fails does so in the kernel. */
static void change(const struct stress *s, unsigned int part, struct rng *rng)
{
	static const int advice[] = { MADV_DONTNEED, MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT };
	static const int prot[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE };
	unsigned int page = rng_below(rng, PAGES), n = 1 + rng_below(rng, 40);
	char *at = s->memory[part] + page * PAGE;

	n = n < PAGES - page ? n : PAGES - page;
	switch (rng_below(rng, 16)) {
	case 0:
		munmap(at, n * PAGE);
		if (rng_one_in(rng, 2))
			usleep(rng_below(rng, 300));
		map_memory(s, part, at, page, n);
		break;
	case 1 ... 2:
		mprotect(at, n * PAGE, prot[rng_below(rng, 3)]);
		if (rng_one_in(rng, 2))
			usleep(rng_below(rng, 300));
		mprotect(at, n * PAGE, PROT_READ | PROT_WRITE);
		break;
	case 3:
		if (rng_one_in(rng, 8))
			share(s, at, n * PAGE);
		break;
	case 4:
		if (part != PART_FILE || ftruncate(s->file, page * PAGE) ||
		    ftruncate(s->file, LENGTH))
			map_memory(s, part, at, page, n);
		break;
	case 5 ... 9:
		madvise(at, n * PAGE, advice[rng_below(rng, 4)]);
		break;
	default:
		if (read(s->zero, at, n * PAGE) < 0)
			usleep(rng_below(rng, 50));
	}
}

static int map_area(const struct stress *s, unsigned int part)
{
	return ioas_map(s->fd, s->ioas_id, iova_of(part), s->memory[part], LENGTH,
			ON_FAULT | WRITE_TOO);
}

static void *change_thread(void *arg)
{
	struct actor *actor = arg;
	struct stress *s = actor->stress;
	int rc = 0;

	while (!is_over(s)) {
		change(s, actor->part, &actor->rng);
		__atomic_fetch_add(&s->changes, 1, __ATOMIC_RELAXED);
		if (!actor->maps || !rng_one_in(&actor->rng, 200))
			continue;
		rc = ioas_unmap(s->fd, s->ioas_id, iova_of(actor->part), LENGTH);
		if (!rc)
			rc = map_area(s, actor->part);
		if (rc)
			fail(s, "map an area anew", rc);
	}
	return NULL;
}

/* ---- the device ---- */

static uint64_t outstanding(struct stress *s)
{
	struct iommu_test_iopf_stats stats = {};
	int rc = iopf_stats(s->fd, s->dev.idev_id, &stats);

	if (rc)
		fail(s, "counters of the device", rc);
	return stats.outstanding;
}

static void *ask_thread(void *arg)
{
	struct actor *actor = arg;
	struct stress *s = actor->stress;
	struct rng *rng = &actor->rng;
	uint32_t grpid = 0;
	int rc;

	while (!is_over(s)) {
		struct iommu_test_iopf_batch batch = {
			.dev_ids = (uintptr_t)&s->dev.idev_id,
			.addr = iova_of(rng_below(rng, PARTS)) + rng_below(rng, PAGES) * PAGE,
			.nr_devs = 1,
			.flags = IOMMU_TEST_IOPF_UNLOCKED,
			.groups = 1 + rng_below(rng, 16),
			.requests = 1 + rng_below(rng, 6),
			.grpid = grpid,
			.nr_pasids = 1,
			.perm = 1 + rng_below(rng, 3), /* to read, to write, both */
		};

		grpid += batch.groups;
		rc = iopf_batch(s->fd, &batch);
		if (rc)
			fail(s, "ask", rc);
		__atomic_fetch_add(&s->requests, (uint64_t)batch.groups * batch.requests,
				   __ATOMIC_RELAXED);
		while (outstanding(s) > OUTSTANDING && !is_over(s))
			usleep(200);
	}
	return NULL;
}

/* ---- owners ---- */

static void owner_main(struct stress *s, enum owner_end end, struct rng *rng)
{
	unsigned int n = 20 + rng_below(rng, 200);

	s->memory[PART_OWNER] = map_memory(s, PART_OWNER, NULL, 0, PAGES);
	if (s->memory[PART_OWNER] == MAP_FAILED || map_area(s, PART_OWNER))
		_exit(1);
	while (n-- || end == OWNER_IS_KILLED)
		change(s, PART_OWNER, rng);
	if (end == OWNER_EXECS) {
		execl("/proc/self/exe", s->opt.program, "--nothing", NULL);
		_exit(2);
	}
	_exit(0);
}

/* Returns what was wrong with it. */
static int run_owner(struct stress *s, struct rng *rng)
{
	enum owner_end end = rng_below(rng, OWNER_ENDS);
	struct rng its = rng_of(rng_next(rng), 0);
	int status, rc;
	pid_t pid;

	pid = fork();
	if (!pid)
		owner_main(s, end, &its);
	if (pid < 0)
		return -errno;
	if (end == OWNER_IS_KILLED) {
		usleep(rng_below(rng, 30000));
		kill(pid, SIGKILL);
	}
	if (waitpid(pid, &status, 0) != pid)
		return -ECHILD;
	rc = ioas_unmap(s->fd, s->ioas_id, iova_of(PART_OWNER), LENGTH);
	if (rc && !(rc == -ENOENT && WIFSIGNALED(status)))
		return rc;
	return !status || WIFSIGNALED(status) ? 0 : -EPROTO;
}

/* ---- all of it ---- */

static int open_all(struct stress *s)
{
	uint32_t other = 0;
	unsigned int part;
	int rc;

	s->zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	s->file = memfd_create("stress", MFD_CLOEXEC);
	if (s->zero < 0 || s->file < 0 || ftruncate(s->file, LENGTH))
		return -errno;
	rc = ioas_alloc(s->fd, &s->ioas_id) ?: ioas_alloc(s->fd, &other);
	/* the device puts a page table of the usual kind there */
	rc = rc ?: mock_device_create(s->fd, other, 0, &s->dev);
	rc = rc ?: hwpt_alloc_paging(s->fd, s->dev.idev_id, s->ioas_id, IOMMU_HWPT_ALLOC_ON_FAULT,
				     0, &s->hwpt_id);
	rc = rc ?: mock_replace(s->fd, s->dev.stdev_id, s->hwpt_id);
	for (part = 0; part < PART_OWNER && !rc; part++) {
		s->memory[part] = map_memory(s, part, NULL, 0, PAGES);
		rc = s->memory[part] == MAP_FAILED ? -errno : map_area(s, part);
	}
	return rc;
}

static void run(struct stress *s)
{
	struct actor actors[2 * PART_OWNER + 1] = {};
	struct rng rng = rng_of(s->opt.seed, 0);
	uint64_t end = clock_ms() + 1000 * s->opt.seconds;
	unsigned int i, n = sizeof(actors) / sizeof(actors[0]), started;
	int rc = 0;

	for (started = 0; started < n && !rc; started++) {
		actors[started] = (struct actor){
			.stress = s, .part = started / 2, .maps = started % 2,
			.rng = rng_of(s->opt.seed, 1 + started),
		};
		rc = -pthread_create(&actors[started].thread, NULL,
				     started < n - 1 ? change_thread : ask_thread,
				     &actors[started]);
	}
	/* A round is a change, or a page that is asked for. */
	while (!rc && !is_over(s) && clock_ms() < end &&
	       __atomic_load_n(&s->changes, __ATOMIC_RELAXED) +
	       __atomic_load_n(&s->requests, __ATOMIC_RELAXED) < s->opt.count) {
		rc = run_owner(s, &rng);
		usleep(rng_below(&rng, 20000));
	}
	if (rc)
		fail(s, "an owner", rc);
	__atomic_store_n(&s->stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < started; i++) {
		if (actors[i].thread)
			pthread_join(actors[i].thread, NULL);
	}
}

/* All is answered, and right; then it goes. */
static void check(struct stress *s)
{
	struct iommu_test_demand_audit audit = {}, after = {};
	struct iommu_test_iopf_stats stats = {};
	unsigned int ms, part;
	long stolen;
	int rc;

	for (ms = 0; ms < STUCK_MS && outstanding(s); ms++)
		usleep(1000);
	iopf_stats(s->fd, s->dev.idev_id, &stats);
	ksft_test_result(!stats.outstanding && !stats.unmatched && stats.groups &&
			 stats.responses[IOMMUFD_PAGE_RESP_SUCCESS] +
			 stats.responses[IOMMUFD_PAGE_RESP_INVALID] == stats.groups,
			 "each of %llu groups was answered once, %llu of them SUCCESS\n",
			 (unsigned long long)stats.groups,
			 (unsigned long long)stats.responses[IOMMUFD_PAGE_RESP_SUCCESS]);
	rc = demand_audit(s->fd, s->ioas_id, &audit);
	ksft_test_result(!rc && !audit.wrong, "%llu pages are mapped, %llu of them wrong\n",
			 (unsigned long long)audit.pages, (unsigned long long)audit.wrong);
	stolen = demand_counter(s->fd, s->ioas_id, "stolen");
	ksft_test_result(stolen > 0, "%ld pages were taken out by %llu changes, %llu asked for\n",
			 stolen, (unsigned long long)s->changes,
			 (unsigned long long)s->requests);
	for (rc = 0, part = 0; part < PART_OWNER; part++)
		rc = rc ?: ioas_unmap(s->fd, s->ioas_id, iova_of(part), LENGTH);
	rc = rc ?: demand_audit(s->fd, s->ioas_id, &after);
	rc = rc ?: iommufd_destroy(s->fd, s->dev.stdev_id);
	rc = rc ?: iommufd_destroy(s->fd, s->hwpt_id);
	rc = rc ?: iommufd_destroy(s->fd, s->ioas_id);
	ksft_test_result(!rc && !after.pages, "all of it goes: %s\n", strerror(-rc));
}

int main(int argc, char **argv)
{
	static struct stress s = {
		.opt = { .program = "iommufd_fault_demand_stress", .unit = "rounds",
			 .count = 1000000, .seconds = 20 },
	};
	int rc;

	if (argc == 2 && !strcmp(argv[1], "--nothing"))
		return 0;
	stress_begin(&s.opt, argc, argv);
	ksft_set_plan(5);
	s.fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (s.fd < 0 || iopf_stats_reset(s.fd, 0))
		ksft_exit_skip("no /dev/iommu, or no page request injector\n");
	rc = open_all(&s);
	if (rc)
		fail(&s, "prepare", rc);
	else
		run(&s);
	ksft_test_result(!s.failure[0], "all system calls %s\n", s.failure);
	check(&s);
	stress_finish(&s.opt);
}
