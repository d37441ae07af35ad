// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two guests with a device each, as their VMMs see it: of its own are the iommufd, the
 * fault queue, the memory, and the page table of the device's PASID. One guest is served
 * as it should be. The other floods its queue with what nobody answers, changes its tables
 * all the time, and fills them with nonsense.
 *
 * This needs an IOMMU of two stages and two devices (scripts/vm --nest --pri=2).
 */
#include <pthread.h>
#include <time.h>

#include "iommufd_pri_guest.h"

#define NONSENSE 0x5a5a5a5a5a5a5a5aull
#define FLOOD 64
#define SERVICES 500
#define COPIES 4

struct vm {
	struct server server;
	struct unit *unit;
	struct guest guest;
	struct stage stage, other;
};

FIXTURE(guests)
{
	struct vm good, bad;
	bool opened;
};

/* If that fails the device is given back, but not if there is no nested translation. */
static int vm_open(struct vm *vm, int first)
{
	int rc = server_open(&vm->server, first, 1);

	if (rc)
		return rc;
	vm->unit = &vm->server.unit[0];
	rc = guest_open(&vm->guest, &vm->server.io, vm->unit->pri.vfio.id, 0, 0);
	if (!rc)
		rc = stage_open(&vm->guest, vm->server.queue.id, &vm->stage);
	if (!rc)
		rc = stage_open(&vm->guest, vm->server.queue.id, &vm->other);
	if (!rc)
		rc = iopf_device_attach_pasid(&vm->unit->pri.vfio, PASID, vm->stage.hwpt);
	if (rc && rc != -EOPNOTSUPP)
		server_give_back(&vm->server);
	return rc;
}

FIXTURE_SETUP(guests)
{
	struct pri_address found[2];
	int rc;

	if (pri_find(found, 2) < 2)
		SKIP(return, "no two pri-testdevs (1234:9171) here");
	rc = vm_open(&self->good, 0);
	if (rc == -EOPNOTSUPP) {
		check_server(_metadata, &self->good.server);
		SKIP(return, "the IOMMU has no nested translation");
	}
	ASSERT_EQ(0, rc);
	rc = vm_open(&self->bad, 1);
	if (rc)
		server_give_back(&self->good.server);
	ASSERT_EQ(0, rc);
	self->opened = true;
}

static void vm_close(struct __test_metadata *_metadata, struct vm *vm)
{
	EXPECT_EQ(0, pri_close(&vm->unit->pri));
	EXPECT_EQ(0, iopf_destroy(&vm->server.io, vm->stage.hwpt));
	EXPECT_EQ(0, iopf_destroy(&vm->server.io, vm->other.hwpt));
	EXPECT_EQ(0, guest_close(&vm->guest));
	check_server(_metadata, &vm->server);
}

FIXTURE_TEARDOWN(guests)
{
	if (!self->opened)
		return;
	vm_close(_metadata, &self->bad);
	vm_close(_metadata, &self->good);
}

/* ---- the hostile guest, and its VMM that does as it says ---- */

static void be_hostile(struct vm *vm, unsigned int turn)
{
	static const uint32_t kinds[] = { 0, PTD_F_NO_LAST };
	struct iommu_hwpt_vtd_s1_invalidate what = { .addr = NONSENSE, .npages = NONSENSE };
	struct stage *now = turn / 8 % 2 ? &vm->other : &vm->stage;
	uint64_t *top = guest_at(&vm->guest, now->top);
	uint32_t n = 1;
	unsigned int i;

	for (i = 0; i < 2; i++)
		burst(vm->unit, PASID, FLOOD, 1, PTD_F_NO_CREDIT | kinds[i]);
	burst(vm->unit, OTHER_PASID, FLOOD, 1, PTD_F_NO_CREDIT);
	set_pte(&top[turn % 512], NONSENSE << turn % 8 | PTE_PRESENT);
	guest_invalidate_many(&vm->guest, now->hwpt, &what, &n);
	guest_invalidate(&vm->guest, now, 0, UINT64_MAX);
	answer(&vm->server, NONSENSE + turn, IOMMUFD_PAGE_RESP_FAILURE);
	if (turn % 8 == 7)
		iopf_device_attach_pasid(&vm->unit->pri.vfio, PASID, now->hwpt);
}

/* ---- the other ---- */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* One fault, from the device's request to the answer that the device has. */
static uint64_t service_ns(struct __test_metadata *_metadata, struct vm *vm, unsigned int turn)
{
	uint64_t addr = SRC + turn % HALF_PAGES * PAGE, begin = now_ns();
	uint32_t before = reg(vm->unit, PTD_N_SUCCESS);
	struct iommu_hwpt_pgfault m[2];

	ASSERT_EQ(0, request(vm->unit, PASID, addr, FLAGS_READ, 1));
	ASSERT_EQ(1, read_some(&vm->server.queue, m, 2, WAIT_MS));
	EXPECT_EQ(addr, m[0].addr);
	guest_map(&vm->guest, &vm->stage, addr);
	ASSERT_EQ(1, answer(&vm->server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(before + 1, reg(vm->unit, PTD_N_SUCCESS));
	return now_ns() - begin;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t service_p99(struct __test_metadata *_metadata, struct vm *good, struct vm *bad)
{
	static uint64_t ns[SERVICES];
	unsigned int i;

	for (i = 0; i < SERVICES; i++) {
		if (bad)
			be_hostile(bad, i);
		ns[i] = service_ns(_metadata, good, i);
	}
	qsort(ns, SERVICES, sizeof(ns[0]), compare_u64);
	return ns[SERVICES * 99 / 100];
}

/*
 * On a clock that counts instructions (scripts/vm --icount, which has one processor): what
 * the IOMMU's one thread does for the hostile guest may delay the other's fault, by as much
 * as one flood costs, but what is there of earlier floods may not.
 */
TEST_F_TIMEOUT(guests, p99_of_the_other, 300)
{
	uint64_t alone, beside;

	if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
		SKIP(return, "a clock that does not count instructions is not judged");
	alone = service_p99(_metadata, &self->good, NULL);
	beside = service_p99(_metadata, &self->good, &self->bad);
	TH_LOG("p99: %llu ns alone, %llu ns beside a hostile guest", (unsigned long long)alone,
	       (unsigned long long)beside);
	EXPECT_GE(alone + alone / 5, beside);
}

struct hostile {
	struct vm *vm;
	bool stop;
	unsigned int turns;
};

static void *hostile_thread(void *arg)
{
	struct hostile *hostile = arg;

	while (!__atomic_load_n(&hostile->stop, __ATOMIC_ACQUIRE))
		be_hostile(hostile->vm, hostile->turns++);
	return NULL;
}

/* Copies by faults are whole, and each fault has its one answer, while the other floods. */
TEST_F_TIMEOUT(guests, copies_beside_a_flood, 600)
{
	struct hostile hostile = { .vm = &self->bad };
	struct vm *vm = &self->good;
	struct iommu_hwpt_pgfault m[PTD_CREDITS_MAX];
	pthread_t thread;
	uint64_t at;
	int n, got, i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, hostile_thread, &hostile));
	for (n = 0; n < COPIES; n++) {
		memset(guest_at(&vm->guest, GPA + GUEST_DST), 0, HALF / 8);
		ASSERT_EQ(0, start_copy(vm->unit, HALF / 8, 2, 4));
		while (is_busy(&vm->server)) {
			got = read_some(&vm->server.queue, m, PTD_CREDITS_MAX, 1);
			ASSERT_LE(0, got);
			for (i = 0; i < got; i++) {
				guest_map(&vm->guest, &vm->stage, m[i].addr);
				if (m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)
					EXPECT_EQ(1, answer(&vm->server, m[i].cookie,
							    IOMMUFD_PAGE_RESP_SUCCESS));
			}
		}
		EXPECT_EQ(PTD_STATE_DONE, reg(vm->unit, PTD_STATE));
		EXPECT_EQ(0, memcmp(vm->guest.memory + GUEST_SRC, vm->guest.memory + GUEST_DST,
				    HALF / 8));
		for (at = 0; at < HALF / 8; at += PAGE) {
			set_pte(guest_pte(&vm->guest, &vm->stage, SRC + at, 1), 0);
			set_pte(guest_pte(&vm->guest, &vm->stage, DST + at, 1), 0);
		}
		EXPECT_EQ(0, guest_invalidate(&vm->guest, &vm->stage, 0, UINT64_MAX));
	}
	__atomic_store_n(&hostile.stop, true, __ATOMIC_RELEASE);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_LT(0, hostile.turns);
	EXPECT_EQ(0, reg(vm->unit, PTD_N_INVALID));
}

TEST_HARNESS_MAIN
