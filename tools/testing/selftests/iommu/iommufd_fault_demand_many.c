// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory on demand, on mock devices: pages are asked for, taken out, and asked for again,
 * a million times if you like.
 *
 * iommufd_fault_demand_stress has all ways to lose memory, and most of them take long. Here
 * are those that are quick, nearly all for one page that is mapped. There are two
 * memories, each with a device of its own, a thread that asks, and one that takes:
 *
 *	- anonymous memory, which is always there: the only answer is SUCCESS;
 *	- a file, in blocks of pages that are mapped one by one, and not merged. So to
 *	  protect one, or to move it, takes out no other. While it cannot be accessed
 *	  the answer is INVALID.
 *
 * A block goes to and fro between the two threads, most of the time: the one asks for
 * blocks that are gone, the other one takes away what was asked for, page by page, whether
 * it is mapped already or about to be. What counts is what the kernel says of it: the
 * invalidations that found something mapped, and the requests that were resolved. Then
 * must hold:
 *
 *	- each group is answered once, and the kernel knows of each what became of it;
 *	- what is mapped is what the process has there, at any time, and in the end all is.
 */
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "../kselftest.h"
#include "iommufd_fault_utils.h"
#include "iommufd_demand_utils.h"
#include "iommufd_stress_utils.h"

#define PAGE 4096ull
#define BLOCKS 64
#define BLOCK_PAGES 16
#define BLOCK_LENGTH (BLOCK_PAGES * PAGE)
#define PAGES (BLOCKS * BLOCK_PAGES)
#define LENGTH (PAGES * PAGE)
#define AREAS 8 /* of a memory: a page that goes from one holds up none that comes in another */
#define AREA_LENGTH (LENGTH / AREAS)
#define ADDR 0x40000000ull
#define STEP 0x10000000ull /* from memory to memory */
#define OUTSTANDING 64
#define READ_PERM IOMMU_PGFAULT_PERM_READ
#define WRITE_PERM (IOMMU_PGFAULT_PERM_READ | IOMMU_PGFAULT_PERM_WRITE)
#define STUCK_MS 600000
#define TELL_MS 10000

enum { ANONYMOUS, FILE_PIECES, MEMORIES };

struct many;

/* Memory, and who asks for it and takes it away */
struct memory {
	struct many *many;
	struct mock_device dev;
	char *va;
	char *aside; /* where a block is moved to */
	uint64_t iova;
	bool asked[BLOCKS]; /* since the block was taken away */
	uint32_t grpid;
	struct rng rng[2];
	pthread_t threads[2];
};

struct many {
	struct stress_options opt;
	int fd;
	int file;
	uint32_t ioas_id;
	uint32_t hwpt_id;
	struct memory memories[MEMORIES];
	bool stop;
	bool late; /* --seconds are over */
	uint64_t begin;
	char failure[120];
};

static void fail(struct many *m, const char *what, int rc)
{
	snprintf(m->failure, sizeof(m->failure), "%s: %s", what, strerror(-rc));
	__atomic_store_n(&m->stop, true, __ATOMIC_RELAXED);
}

static bool is_over(const struct many *m)
{
	return __atomic_load_n(&m->stop, __ATOMIC_RELAXED);
}

/* A random block that was asked for, or was not; or -1 */
static int find_block(struct memory *memory, struct rng *rng, bool asked)
{
	unsigned int first = rng_below(rng, BLOCKS), i, block;

	for (i = 0; i < BLOCKS; i++) {
		block = (first + i) % BLOCKS;
		if (__atomic_load_n(&memory->asked[block], __ATOMIC_RELAXED) == asked)
			return block;
	}
	return -1;
}

static void set_asked(struct memory *memory, unsigned int block, bool asked)
{
	__atomic_store_n(&memory->asked[block], asked, __ATOMIC_RELAXED);
}

/* ---- the owner ---- */

/* From the end of the file to its begin: no block is the next one of the one before. */
static void *map_block(const struct many *m, char *at, unsigned int block)
{
	return mmap(at, BLOCK_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, m->file,
		    (BLOCKS - 1 - block) * BLOCK_LENGTH);
}

static int toggle(char *at, int prot)
{
	return mprotect(at, BLOCK_LENGTH, prot) ||
	       mprotect(at, BLOCK_LENGTH, PROT_READ | PROT_WRITE);
}

static int move_to_and_fro(const struct memory *memory, char *at)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	return mremap(at, BLOCK_LENGTH, BLOCK_LENGTH, flags, memory->aside) == MAP_FAILED ||
	       mremap(memory->aside, BLOCK_LENGTH, BLOCK_LENGTH, flags, at) == MAP_FAILED;
}

/* One after the other, from any of them on: each is an invalidation of its own. */
static int take_pages(char *at, int advice, struct rng *rng)
{
	unsigned int first = rng_below(rng, BLOCK_PAGES), i;
	int rc = 0;

	for (i = 0; i < BLOCK_PAGES && !rc; i++)
		rc = madvise(at + (first + i) % BLOCK_PAGES * PAGE, PAGE, advice);
	return rc;
}

/*
 * What is dropped has to be faulted in again, page by page. What may be freed stays, and as
 * the process does not touch it no other CPU need be told: that is the quickest way.
 */
static int take_anonymous(char *at, struct rng *rng)
{
	return take_pages(at, rng_one_in(rng, 16) ? MADV_DONTNEED : MADV_FREE, rng);
}

/* Each of these interrupts the other CPUs; so this is not done all the time. */
static int take_file(const struct memory *memory, char *at, unsigned int block, struct rng *rng)
{
	usleep(rng_below(rng, 100000));
	switch (rng_below(rng, 32)) {
	case 0:
		return toggle(at, PROT_NONE);
	case 1:
		return toggle(at, PROT_READ);
	case 2:
		return move_to_and_fro(memory, at);
	case 3:
		return map_block(memory->many, at, block) == MAP_FAILED;
	case 4:
		return take_pages(at, MADV_REMOVE, rng);
	default:
		return take_pages(at, MADV_DONTNEED, rng);
	}
}

static int take_block(const struct memory *memory, unsigned int block, struct rng *rng)
{
	bool anonymous = memory == &memory->many->memories[ANONYMOUS];
	char *at = memory->va + block * BLOCK_LENGTH;
	int rc;

	rc = anonymous ? take_anonymous(at, rng) : take_file(memory, at, block, rng);
	return rc ? -errno : 0;
}

static void *take_thread(void *arg)
{
	struct memory *memory = arg;
	struct many *m = memory->many;
	struct rng *rng = &memory->rng[0];
	int block, rc;

	while (!is_over(m)) {
		block = find_block(memory, rng, true);
		if (block < 0) {
			usleep(2000);
			continue;
		}
		/* Some are asked for again while they are taken away. */
		if (rng_one_in(rng, 16))
			set_asked(memory, block, false);
		rc = take_block(memory, block, rng);
		if (rc)
			fail(m, "take a page away", rc);
		set_asked(memory, block, false);
	}
	return NULL;
}

/* ---- the device ---- */

static uint64_t outstanding(struct memory *memory)
{
	struct iommu_test_iopf_stats stats = {};
	int rc = iopf_stats(memory->many->fd, memory->dev.idev_id, &stats);

	if (rc)
		fail(memory->many, "counters of the device", rc);
	return stats.outstanding;
}

/* Ask for pages of a block, as groups of @requests. */
static void ask(struct memory *memory, unsigned int block, unsigned int requests,
		unsigned int perm)
{
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)&memory->dev.idev_id,
		.addr = memory->iova + block * BLOCK_LENGTH,
		.nr_devs = 1,
		.flags = IOMMU_TEST_IOPF_UNLOCKED,
		.groups = BLOCK_PAGES / requests,
		.requests = requests,
		.grpid = memory->grpid,
		.nr_pasids = 1,
		.perm = perm,
	};
	int rc = iopf_batch(memory->many->fd, &batch);

	memory->grpid += batch.groups;
	if (!rc && batch.out_accepted != BLOCK_PAGES)
		rc = -ENOSPC;
	if (rc)
		fail(memory->many, "ask", rc);
}

static void *ask_thread(void *arg)
{
	struct memory *memory = arg;
	struct many *m = memory->many;
	struct rng *rng = &memory->rng[1];
	int block;

	while (!is_over(m)) {
		block = find_block(memory, rng, false);
		if (block < 0 || outstanding(memory) > OUTSTANDING) {
			usleep(2000);
			continue;
		}
		set_asked(memory, block, true);
		ask(memory, block, 1 << rng_below(rng, 5),
		    rng_one_in(rng, 8) ? WRITE_PERM : READ_PERM);
	}
	return NULL;
}

/* ---- all of it ---- */

static int map_areas(const struct memory *memory)
{
	uint64_t at;
	int rc = 0;

	for (at = 0; at < LENGTH && !rc; at += AREA_LENGTH)
		rc = ioas_map(memory->many->fd, memory->many->ioas_id, memory->iova + at,
			      memory->va + at, AREA_LENGTH, ON_FAULT | WRITE_TOO);
	return rc;
}

static int open_memory(struct many *m, unsigned int i, uint32_t other)
{
	struct memory *memory = &m->memories[i];
	unsigned int block;
	int rc;

	*memory = (struct memory){
		.many = m,
		.iova = ADDR + i * STEP,
		.rng = { rng_of(m->opt.seed, 2 * i), rng_of(m->opt.seed, 2 * i + 1) },
	};
	memory->va = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memory->aside = mmap(NULL, BLOCK_LENGTH, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory->va == MAP_FAILED || memory->aside == MAP_FAILED)
		return -errno;
	for (block = 0; i == FILE_PIECES && block < BLOCKS; block++) {
		if (map_block(m, memory->va + block * BLOCK_LENGTH, block) == MAP_FAILED)
			return -errno;
	}
	/* the device puts a page table of the usual kind there */
	rc = mock_device_create(m->fd, other, 0, &memory->dev);
	if (!rc && !m->hwpt_id)
		rc = hwpt_alloc_paging(m->fd, memory->dev.idev_id, m->ioas_id,
				       IOMMU_HWPT_ALLOC_ON_FAULT, 0, &m->hwpt_id);
	rc = rc ?: mock_replace(m->fd, memory->dev.stdev_id, m->hwpt_id);
	return rc ?: map_areas(memory);
}

static int open_all(struct many *m)
{
	uint32_t other = 0;
	unsigned int i;
	int rc;

	m->file = memfd_create("many", MFD_CLOEXEC);
	if (m->file < 0 || ftruncate(m->file, LENGTH))
		return -errno;
	rc = ioas_alloc(m->fd, &m->ioas_id) ?: ioas_alloc(m->fd, &other);
	for (i = 0; i < MEMORIES && !rc; i++)
		rc = open_memory(m, i, other);
	return rc;
}

static uint64_t counter(const struct many *m, const char *name)
{
	return demand_counter(m->fd, m->ioas_id, name);
}

/* Requests whose page was mapped for them, or had been by the one before */
static uint64_t resolved(const struct many *m)
{
	return counter(m, "pages") + counter(m, "present");
}

static bool is_enough(const struct many *m)
{
	return counter(m, "steals") >= m->opt.count && resolved(m) >= m->opt.count;
}

/* What is mapped is right even now. */
static void look(struct many *m)
{
	struct iommu_test_demand_audit audit = {};
	int rc = demand_audit(m->fd, m->ioas_id, &audit);

	printf("# %llu s: %llu requests, %llu invalidations; ",
	       (unsigned long long)(clock_ms() - m->begin) / 1000,
	       (unsigned long long)resolved(m),
	       (unsigned long long)counter(m, "steals"));
	printf("%llu pages are mapped, %llu of them wrong\n",
	       (unsigned long long)audit.pages, (unsigned long long)audit.wrong);
	fflush(stdout);
	if (rc || audit.wrong)
		fail(m, "what is mapped", rc ?: -EUCLEAN);
}

/* Until enough is done, time is over, or nothing goes on */
static void watch(struct many *m)
{
	uint64_t told = m->begin, went_on = m->begin, before = 0, now;

	while (!is_over(m) && !is_enough(m) && !m->late) {
		usleep(1000000);
		m->late = clock_ms() - m->begin >= 1000 * m->opt.seconds;
		now = counter(m, "steals");
		if (now != before)
			went_on = clock_ms();
		before = now;
		if (clock_ms() - went_on > STUCK_MS)
			fail(m, "nothing is taken away any more", -ETIME);
		if (clock_ms() - told < TELL_MS)
			continue;
		look(m);
		told = clock_ms();
	}
}

static void run(struct many *m)
{
	void *(*const bodies[])(void *) = { take_thread, ask_thread };
	struct memory *memory;
	unsigned int i, n;
	int rc = 0;

	m->begin = clock_ms();
	for (n = 0; n < 2 * MEMORIES && !rc; n++) {
		memory = &m->memories[n / 2];
		rc = -pthread_create(&memory->threads[n % 2], NULL, bodies[n % 2], memory);
	}
	if (rc)
		fail(m, "make a thread", rc);
	watch(m);
	__atomic_store_n(&m->stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < n; i++) {
		memory = &m->memories[i / 2];
		if (memory->threads[i % 2])
			pthread_join(memory->threads[i % 2], NULL);
	}
}

static void wait_for_answers(struct memory *memory)
{
	unsigned int ms;

	for (ms = 0; ms < STUCK_MS && outstanding(memory); ms++)
		usleep(1000);
}

/* Each group was answered once, and the kernel has counted it once. */
static void check_answers(struct many *m)
{
	struct iommu_test_iopf_stats stats[MEMORIES] = {};
	uint64_t groups = 0, success = 0, invalid = 0, wrong = 0;
	unsigned int i;

	for (i = 0; i < MEMORIES; i++) {
		iopf_stats(m->fd, m->memories[i].dev.idev_id, &stats[i]);
		groups += stats[i].groups;
		success += stats[i].responses[IOMMUFD_PAGE_RESP_SUCCESS];
		invalid += stats[i].responses[IOMMUFD_PAGE_RESP_INVALID];
		wrong += stats[i].outstanding + stats[i].unmatched + stats[i].bad_codes;
	}
	ksft_test_result(!wrong && groups && success + invalid == groups,
			 "each of %llu groups was answered once, %llu of them SUCCESS\n",
			 (unsigned long long)groups, (unsigned long long)success);
	ksft_test_result(!stats[ANONYMOUS].responses[IOMMUFD_PAGE_RESP_INVALID],
			 "all %llu that asked for anonymous memory got it\n",
			 (unsigned long long)stats[ANONYMOUS].groups);
	ksft_test_result(counter(m, "groups") == success && counter(m, "refused") == invalid &&
			 !counter(m, "passed-on") && !counter(m, "dropped") &&
			 !counter(m, "outside"),
			 "the kernel counted the same: %llu resolved, %llu refused\n",
			 (unsigned long long)counter(m, "groups"),
			 (unsigned long long)counter(m, "refused"));
}

/*
 * If all is asked for once more, all of it is mapped, and right; and each page that was ever
 * mapped was taken out once, or is still there.
 */
static void check_memory(struct many *m)
{
	struct iommu_test_demand_audit audit = {};
	unsigned int i, block;
	uint64_t left;
	int rc;

	for (i = 0; i < MEMORIES; i++) {
		for (block = 0; block < BLOCKS; block++) {
			ask(&m->memories[i], block, BLOCK_PAGES, READ_PERM);
			wait_for_answers(&m->memories[i]);
		}
	}
	rc = demand_audit(m->fd, m->ioas_id, &audit);
	ksft_test_result(!rc && audit.pages == MEMORIES * PAGES && !audit.wrong,
			 "%llu of %llu pages are mapped, %llu of them wrong\n",
			 (unsigned long long)audit.pages, MEMORIES * PAGES * 1ull,
			 (unsigned long long)audit.wrong);
	left = counter(m, "pages") + counter(m, "around") - counter(m, "upgraded") -
	       counter(m, "stolen");
	ksft_test_result(left == audit.pages, "%llu are left of what was mapped and taken out\n",
			 (unsigned long long)left);
}

static void check_end(struct many *m)
{
	struct iommu_test_demand_audit after = {};
	unsigned int i;
	int rc = 0;

	for (i = 0; i < MEMORIES; i++)
		rc = rc ?: ioas_unmap(m->fd, m->ioas_id, m->memories[i].iova, LENGTH);
	rc = rc ?: demand_audit(m->fd, m->ioas_id, &after);
	for (i = 0; i < MEMORIES; i++)
		rc = rc ?: iommufd_destroy(m->fd, m->memories[i].dev.stdev_id);
	rc = rc ?: iommufd_destroy(m->fd, m->hwpt_id);
	rc = rc ?: iommufd_destroy(m->fd, m->ioas_id);
	ksft_test_result(!rc && !after.pages, "all of it goes: %s\n", strerror(-rc));
}

static void check(struct many *m)
{
	unsigned int i;

	look(m);
	for (i = 0; i < MEMORIES; i++)
		wait_for_answers(&m->memories[i]);
	ksft_test_result(m->late ? counter(m, "steals") && resolved(m) : is_enough(m),
			 "%llu invalidations took out %llu pages, %llu requests were resolved\n",
			 (unsigned long long)counter(m, "steals"),
			 (unsigned long long)counter(m, "stolen"),
			 (unsigned long long)resolved(m));
	printf("# %llu pages were mapped as they were asked for, %llu with those\n",
	       (unsigned long long)counter(m, "pages"),
	       (unsigned long long)counter(m, "around"));
	printf("# %llu faults of the owner were handled, %llu given up, %llu short of memory\n",
	       (unsigned long long)counter(m, "faulted"),
	       (unsigned long long)counter(m, "retried"),
	       (unsigned long long)counter(m, "no-memory"));
	check_answers(m);
	check_memory(m);
	ksft_test_result(!m->failure[0], "all system calls %s\n", m->failure);
	check_end(m);
}

int main(int argc, char **argv)
{
	static struct many m = {
		.opt = { .program = "iommufd_fault_demand_many", .unit = "changes",
			 .count = 2000, .seconds = 86400 },
	};
	int rc;

	stress_begin(&m.opt, argc, argv);
	/* Each batch is to be taken whole. */
	reserve_until_exit(2 * OUTSTANDING * BLOCK_PAGES);
	ksft_set_plan(8);
	m.fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (m.fd < 0 || iopf_stats_reset(m.fd, 0))
		ksft_exit_skip("no /dev/iommu, or no page request injector\n");
	rc = open_all(&m);
	if (rc)
		ksft_exit_fail_msg("prepare: %s\n", strerror(-rc));
	run(&m);
	check(&m);
	stress_finish(&m.opt);
}
