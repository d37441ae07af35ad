// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nested page tables on a PCIe device that faults: the first stage is written by the
 * test, in memory that only the second stage finds. The device's RID is nested, or a
 * PASID of it.
 *
 * This needs an IOMMU of two stages (scripts/vm --nest). That one caches what it has
 * found until it is told to forget it, so tests can tell that something was invalidated.
 */
#include <pthread.h>

#include "iommufd_pri_guest.h"

struct nested {
	struct server server;
	struct unit *unit;
	struct guest guest;
	struct stage stage;
	bool pasid;
	bool opened;
};

FIXTURE(nested)
{
	struct nested nested;
};

FIXTURE_VARIANT(nested)
{
	bool pasid;
	int mmap_flags;
};

FIXTURE_VARIANT_ADD(nested, rid)
{
};

FIXTURE_VARIANT_ADD(nested, pasid)
{
	.pasid = true,
};

FIXTURE_VARIANT_ADD(nested, pasid_on_large_pages)
{
	.pasid = true,
	.mmap_flags = MAP_HUGETLB,
};

static int attach(const struct nested *n, uint32_t hwpt)
{
	struct iopf_device *vfio = &n->unit->pri.vfio;

	return n->pasid ? iopf_device_attach_pasid(vfio, PASID, hwpt) :
			  iopf_device_attach(vfio, hwpt);
}

static int detach(const struct nested *n)
{
	struct iopf_device *vfio = &n->unit->pri.vfio;

	return n->pasid ? iopf_device_detach_pasid(vfio, PASID) : iopf_device_detach(vfio);
}

FIXTURE_SETUP(nested)
{
	struct nested *n = &self->nested;
	struct pri_address found;
	int rc;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	n->pasid = variant->pasid;
	n->unit = &n->server.unit[0];
	ASSERT_EQ(0, server_open(&n->server, 0, 1));
	rc = guest_open(&n->guest, &n->server.io, n->unit->pri.vfio.id,
			variant->mmap_flags, 0);
	if (rc == -EOPNOTSUPP) {
		check_server(_metadata, &n->server);
		SKIP(return, "the IOMMU has no nested translation");
	}
	ASSERT_EQ(0, rc);
	n->opened = true;
	ASSERT_EQ(0, stage_open(&n->guest, n->server.queue.id, &n->stage));
	/* from the paging table that server_open() has attached */
	ASSERT_EQ(0, attach(n, n->stage.hwpt));
}

FIXTURE_TEARDOWN(nested)
{
	struct nested *n = &self->nested;

	if (!n->opened)
		return;
	EXPECT_EQ(0, pri_close(&n->unit->pri));
	EXPECT_EQ(0, iopf_destroy(&n->server.io, n->stage.hwpt));
	EXPECT_EQ(0, guest_close(&n->guest));
	check_server(_metadata, &n->server);
}

/* ---- what the device does, with the PASID or without ---- */

static uint32_t with(const struct nested *n, uint32_t flags)
{
	return n->pasid ? flags | PTD_F_PASID : flags;
}

static int read_at(const struct nested *n, uint64_t iova, uint64_t *value)
{
	int rc = command(n->unit, PTD_CMD_DMA_READ, PASID, iova, with(n, PTD_F_READ));

	*value = pri_get64(&n->unit->pri, PTD_DATA);
	return rc;
}

static int write_at(const struct nested *n, uint64_t iova, uint64_t value)
{
	pri_set64(&n->unit->pri, PTD_DATA, value);
	return command(n->unit, PTD_CMD_DMA_WRITE, PASID, iova, with(n, PTD_F_WRITE));
}

static int ask(const struct nested *n, uint64_t iova, uint32_t flags, uint32_t id)
{
	return request(n->unit, PASID, iova, with(n, flags), id);
}

static uint64_t content(const struct guest *guest, uint64_t gpa)
{
	uint64_t value;

	__atomic_load((uint64_t *)guest_at(guest, gpa), &value, __ATOMIC_RELAXED);
	return value;
}

#define EXPECT_READS(gpa, iova) do {						\
	uint64_t _value;							\
										\
	EXPECT_EQ(0, read_at(n, iova, &_value));			\
	EXPECT_EQ(content(&n->guest, gpa), _value);				\
} while (0)

#define EXPECT_NOT_THERE(iova) do {						\
	uint64_t _value;							\
										\
	EXPECT_EQ(-EFAULT, read_at(n, iova, &_value));		\
} while (0)

static int copy(const struct nested *n, uint64_t length, uint32_t group, uint32_t depth)
{
	struct pri_device *pri = &n->unit->pri;

	pri_set(pri, PTD_PASID, PASID);
	pri_set(pri, PTD_FLAGS, with(n, 0));
	pri_set64(pri, PTD_SRC, SRC);
	pri_set64(pri, PTD_DST, DST);
	pri_set64(pri, PTD_LENGTH, length);
	pri_set(pri, PTD_GROUP, group);
	pri_set(pri, PTD_DEPTH, depth);
	return pri_command(pri, PTD_CMD_START);
}

static bool has_copied(const struct nested *n, uint64_t length)
{
	return reg(n->unit, PTD_STATE) == PTD_STATE_DONE &&
	       !memcmp(n->guest.memory + GUEST_SRC, n->guest.memory + GUEST_DST, length);
}

/* Serve a copy as a guest's kernel does: it maps the pages in its own table. */
static void serve_guest(struct __test_metadata *_metadata, struct nested *n,
			const struct stage *stage)
{
	struct iommu_hwpt_pgfault m[PTD_CREDITS_MAX];
	uint64_t end = now_ms() + WAIT_MS;
	int i, got;

	while (is_busy(&n->server)) {
		got = read_some(&n->server.queue, m, PTD_CREDITS_MAX, 1);
		ASSERT_LE(0, got);
		ASSERT_GT(end, now_ms());
		for (i = 0; i < got; i++) {
			ASSERT_NE(0, guest_page(m[i].addr));
			guest_map(&n->guest, stage, m[i].addr);
			/* the kernel may have answered in a replace what was read */
			if (m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)
				answer(&n->server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS);
			end = now_ms() + WAIT_MS;
		}
	}
}

/* One fault, for the page of @iova, with these permissions; *cookie answers it. */
static void expect_fault(struct __test_metadata *_metadata, struct nested *n, uint64_t iova,
			 uint32_t perm, uint32_t *cookie)
{
	uint32_t flags = IOMMU_PGFAULT_FLAGS_LAST_PAGE;
	struct iommu_hwpt_pgfault m[2];

	if (n->pasid)
		flags |= IOMMU_PGFAULT_FLAGS_PASID_VALID;
	ASSERT_EQ(0, ask(n, iova, perm, 3));
	ASSERT_EQ(1, read_some(&n->server.queue, m, 2, WAIT_MS));
	EXPECT_EQ(iova & -PAGE, m[0].addr);
	EXPECT_EQ(flags, m[0].flags);
	EXPECT_EQ(perm, m[0].perm);
	EXPECT_EQ(3, m[0].grpid);
	if (n->pasid)
		EXPECT_EQ(PASID, m[0].pasid);
	*cookie = m[0].cookie;
}

static void expect_answered(struct __test_metadata *_metadata, struct nested *n,
			    uint32_t cookie)
{
	uint32_t before = reg(n->unit, PTD_N_SUCCESS);

	ASSERT_EQ(1, answer(&n->server, cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(before + 1, wait_reg(n->unit, PTD_N_SUCCESS, before + 1));
}

/* ---- translation ---- */

/* Pages of 4 KiB and of 2 MiB, on a second stage of either. */
TEST_F(nested, leaves)
{
	struct nested *n = &self->nested;
	const uint64_t large = SRC + 4 * LARGE_PAGE;
	struct guest *guest = &n->guest;
	uint64_t at;

	guest_map(guest, &n->stage, SRC + PAGE);
	guest_map(guest, &n->stage, DST);
	set_pte(guest_pte(guest, &n->stage, large, 2), (GPA + GUEST_SRC) | PTE_ALL | PTE_LARGE);
	EXPECT_READS(GPA + GUEST_SRC + PAGE + 8, SRC + PAGE + 8);
	EXPECT_NOT_THERE(SRC);
	for (at = 0; at < LARGE_PAGE; at += 37 * PAGE)
		EXPECT_READS(GPA + GUEST_SRC + at, large + at);
	EXPECT_EQ(0, write_at(n, DST + 16, 0x1122334455667788));
	EXPECT_EQ(0x1122334455667788, content(guest, GPA + GUEST_DST + 16));
	EXPECT_EQ(0, write_at(n, large + 3 * PAGE, 99));
	EXPECT_EQ(99, content(guest, GPA + GUEST_SRC + 3 * PAGE));
}

/* A table that is not there, at each level of the first stage. */
TEST_F(nested, fault_of_the_first_stage)
{
	struct nested *n = &self->nested;
	struct guest *guest = &n->guest;
	uint64_t *pte, value;
	uint32_t cookie;
	int level;

	guest_map(guest, &n->stage, SRC);
	for (level = LEVELS; level; level--) {
		EXPECT_READS(GPA + GUEST_SRC, SRC);
		pte = guest_pte(guest, &n->stage, SRC, level);
		value = *pte;
		set_pte(pte, 0);
		ASSERT_EQ(0, guest_invalidate(guest, &n->stage, 0, UINT64_MAX));
		EXPECT_NOT_THERE(SRC);
		expect_fault(_metadata, n, SRC, PTD_F_READ, &cookie);
		set_pte(pte, value);
		expect_answered(_metadata, n, cookie);
	}
	EXPECT_READS(GPA + GUEST_SRC, SRC);
}

/*
 * Memory that the second stage does not have, of the page and of the tables: the device
 * asks for its own address all the same, and unmapping needs no word to the first stage.
 */
TEST_F(nested, fault_of_the_second_stage)
{
	struct nested *n = &self->nested;
	static const struct { uint64_t offset, len; } parts[] = {
		{ GUEST_SRC, HALF }, { 0, GUEST_TABLES },
	};
	struct guest *guest = &n->guest;
	uint32_t cookie;
	size_t i;

	guest_map(guest, &n->stage, SRC);
	for (i = 0; i < 2; i++) {
		EXPECT_READS(GPA + GUEST_SRC, SRC);
		ASSERT_EQ(0, iopf_unmap(guest->io, guest->ioas, GPA + parts[i].offset,
					parts[i].len));
		EXPECT_NOT_THERE(SRC);
		expect_fault(_metadata, n, SRC + 8, PTD_F_READ, &cookie);
		ASSERT_EQ(0, guest_map_part(guest, parts[i].offset, parts[i].len));
		expect_answered(_metadata, n, cookie);
	}
	EXPECT_READS(GPA + GUEST_SRC, SRC);
}

TEST_F(nested, permissions)
{
	struct nested *n = &self->nested;
	struct guest *guest = &n->guest;
	uint32_t cookie;
	uint64_t *pte;

	guest_map(guest, &n->stage, SRC);
	pte = guest_pte(guest, &n->stage, SRC, 1);
	set_pte(pte, *pte & ~PTE_WRITE);
	EXPECT_READS(GPA + GUEST_SRC, SRC);
	EXPECT_EQ(-EFAULT, write_at(n, SRC, 7));
	expect_fault(_metadata, n, SRC, PTD_F_WRITE, &cookie);
	/* rights are added: nothing is to be invalidated */
	set_pte(pte, *pte | PTE_WRITE);
	expect_answered(_metadata, n, cookie);
	EXPECT_EQ(0, write_at(n, SRC, 7));
	EXPECT_EQ(7, content(guest, GPA + GUEST_SRC));

	set_pte(pte, *pte & ~PTE_USER);
	ASSERT_EQ(0, guest_invalidate(guest, &n->stage, SRC, 1));
	EXPECT_NOT_THERE(SRC);
}

TEST_F(nested, accessed_and_dirty)
{
	struct nested *n = &self->nested;
	struct guest *guest = &n->guest;
	uint64_t *pte;

	guest_map(guest, &n->stage, SRC);
	pte = guest_pte(guest, &n->stage, SRC, 1);
	EXPECT_READS(GPA + GUEST_SRC, SRC);
	EXPECT_EQ(PTE_ACCESSED, *pte & (PTE_ACCESSED | PTE_DIRTY));
	EXPECT_EQ(PTE_ACCESSED, *guest_pte(guest, &n->stage, SRC, LEVELS) & PTE_ACCESSED);
	EXPECT_EQ(0, write_at(n, SRC, 7));
	EXPECT_EQ(PTE_ACCESSED | PTE_DIRTY, *pte & (PTE_ACCESSED | PTE_DIRTY));
}

#define COUNT 1000

static void *count_in_entry(void *pte)
{
	int i;

	for (i = 0; i < COUNT; i++)
		__atomic_fetch_add((uint64_t *)pte, PTE_SOFTWARE, __ATOMIC_SEQ_CST);
	return NULL;
}

/* The guest's processor changes the entry while the IOMMU marks it: neither is lost. */
TEST_F(nested, marks_are_atomic)
{
	struct nested *n = &self->nested;
	struct guest *guest = &n->guest;
	pthread_t thread;
	uint64_t *pte;
	int i;

	guest_map(guest, &n->stage, SRC);
	pte = guest_pte(guest, &n->stage, SRC, 1);
	ASSERT_EQ(0, pthread_create(&thread, NULL, count_in_entry, pte));
	for (i = 0; i < 50; i++) {
		__atomic_fetch_and(pte, ~(PTE_ACCESSED | PTE_DIRTY), __ATOMIC_SEQ_CST);
		ASSERT_EQ(0, guest_invalidate(guest, &n->stage, SRC, 1));
		ASSERT_EQ(0, write_at(n, SRC, i));
		ASSERT_EQ(PTE_ACCESSED | PTE_DIRTY, *pte & (PTE_ACCESSED | PTE_DIRTY));
	}
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(COUNT, *pte / PTE_SOFTWARE);
}

/* ---- invalidation ---- */

/* The old page until it is invalidated, by its address, by a range, with all. */
TEST_F(nested, invalidate)
{
	struct nested *n = &self->nested;
	static const struct { uint64_t addr, pages; } ranges[] = {
		{ SRC, 1 }, { SRC - PAGE, 3 }, { SRC & -LARGE_PAGE, 512 }, { 0, UINT64_MAX },
		{ PAGE, UINT64_MAX / PAGE }, { 0, UINT64_MAX - 1 },
	};
	struct guest *guest = &n->guest;
	uint64_t *pte, page = GPA + GUEST_SRC;
	size_t i;

	guest_map(guest, &n->stage, SRC);
	pte = guest_pte(guest, &n->stage, SRC, 1);
	for (i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		EXPECT_READS(page + 8 * i, SRC + 8 * i);
		set_pte(pte, (page + PAGE) | PTE_ALL);
		EXPECT_READS(page + 8 * i, SRC + 8 * i);
		EXPECT_EQ(0, guest_invalidate(guest, &n->stage, SRC, 0));
		EXPECT_EQ(0, guest_invalidate(guest, &n->stage, SRC + 8 * PAGE, 8));
		EXPECT_READS(page + 8 * i, SRC + 8 * i);
		EXPECT_EQ(0, guest_invalidate(guest, &n->stage, ranges[i].addr,
					      ranges[i].pages));
		page += PAGE;
		EXPECT_READS(page + 8 * i, SRC + 8 * i);
	}
}

/* A table of the RID and of two PASIDs: one call reaches what is cached of each. */
TEST_F(nested, invalidate_for_all)
{
	struct nested *n = &self->nested;
	static const uint32_t flags[] = { 0, PTD_F_PASID, PTD_F_PASID };
	static const uint32_t pasids[] = { 0, PASID, OTHER_PASID };
	struct iopf_device *vfio = &n->unit->pri.vfio;
	struct guest *guest = &n->guest;
	uint64_t page = GPA + GUEST_SRC;
	int i, round;

	ASSERT_EQ(0, iopf_device_attach(vfio, n->stage.hwpt));
	ASSERT_EQ(0, iopf_device_attach_pasid(vfio, PASID, n->stage.hwpt));
	ASSERT_EQ(0, iopf_device_attach_pasid(vfio, OTHER_PASID, n->stage.hwpt));
	guest_map(guest, &n->stage, SRC);
	for (round = 0; round < 2; round++) {
		for (i = 0; i < 3; i++) {
			EXPECT_EQ(0, command(n->unit, PTD_CMD_DMA_READ, pasids[i], SRC,
					     flags[i] | PTD_F_READ));
			EXPECT_EQ(content(guest, page), pri_get64(&n->unit->pri, PTD_DATA));
		}
		page += PAGE;
		set_pte(guest_pte(guest, &n->stage, SRC, 1), page | PTE_ALL);
		EXPECT_EQ(0, guest_invalidate(guest, &n->stage, SRC, 1));
	}
	ASSERT_EQ(0, iopf_device_detach_pasid(vfio, OTHER_PASID));
	EXPECT_TRUE(is_refused(n->unit, OTHER_PASID));
	EXPECT_READS(page, SRC);
}

TEST_F(nested, invalidate_nonsense)
{
	struct nested *n = &self->nested;
	struct iommu_hwpt_vtd_s1_invalidate what[3] = {
		{ .addr = SRC, .npages = 1, .flags = IOMMU_VTD_INV_FLAGS_LEAF },
	};
	struct iommu_hwpt_invalidate cmd = {
		.size = sizeof(cmd), .hwpt_id = n->stage.hwpt, .entry_num = 1,
		.data_uptr = (uintptr_t)what, .entry_len = sizeof(what[0]),
	};
	struct guest *guest = &n->guest;
	uint32_t count = 1;
	int rc;

	EXPECT_EQ(0, guest_invalidate_many(guest, n->stage.hwpt, what, &count));
	EXPECT_EQ(1, count);
	EXPECT_EQ(-EINVAL, guest_invalidate(guest, &n->stage, SRC + 1, 1));
	EXPECT_EQ(-EINVAL, guest_invalidate(guest, &n->stage, SRC, UINT64_MAX));
	/* Linux 6.12 finds no nested HWPT of that id, 7.3 a wrong object. */
	rc = guest_invalidate_many(guest, n->unit->plain, what, &count);
	EXPECT_TRUE(rc == -ENOENT || rc == -EINVAL);
	/* up to the first that is wrong */
	what[1].flags = ~0U;
	count = 3;
	EXPECT_EQ(-EOPNOTSUPP, guest_invalidate_many(guest, n->stage.hwpt, what, &count));
	EXPECT_EQ(1, count);
	cmd.data_type = 77;
	EXPECT_EQ(-1, ioctl(guest->io->fd, IOMMU_HWPT_INVALIDATE, &cmd));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, cmd.entry_num);
}

/* ---- attaching ---- */

static void make_pending_here(struct __test_metadata *_metadata, struct nested *n,
			      struct iommu_hwpt_pgfault *read)
{
	int i;

	for (i = 0; i < PENDING; i++) {
		ASSERT_EQ(0, ask(n, SRC + i * PAGE, PTD_F_READ, i));
		if (i == PENDING / 2 - 1)
			ASSERT_EQ(PENDING / 2, read_all(&n->server.queue, read, PENDING / 2));
	}
	EXPECT_EQ(PENDING, reg(n->unit, PTD_OPEN_GROUPS));
}

/* All were answered before the call returned; who answers now is told that it is late. */
static void expect_gone(struct __test_metadata *_metadata, struct nested *n,
			const struct iommu_hwpt_pgfault *read, unsigned int answers, uint32_t total)
{
	struct iommu_hwpt_pgfault m[1];
	int i;

	EXPECT_EQ(0, reg(n->unit, PTD_OPEN_GROUPS));
	EXPECT_EQ(total, reg(n->unit, answers));
	EXPECT_EQ(0, read_some(&n->server.queue, m, 1, 0));
	for (i = 0; i < PENDING / 2; i++)
		EXPECT_EQ(-EINVAL, answer(&n->server, read[i].cookie,
					  IOMMUFD_PAGE_RESP_SUCCESS));
}

/* Nested by nested, by paging, and back: what waited asks the new table. */
TEST_F(nested, replace)
{
	struct nested *n = &self->nested;
	struct iommu_hwpt_pgfault m[PENDING];
	struct guest *guest = &n->guest;
	struct stage other;
	int i;

	ASSERT_EQ(0, stage_open(guest, n->server.queue.id, &other));
	ASSERT_EQ(0, map_page(&n->server, n->unit, SRC + HALF - PAGE, READ_WRITE));
	set_pte(guest_pte(guest, &n->stage, SRC + HALF - PAGE, 1), (GPA + GUEST_SRC) | PTE_ALL);
	set_pte(guest_pte(guest, &other, SRC + HALF - PAGE, 1),
		(GPA + GUEST_SRC + PAGE) | PTE_ALL);
	EXPECT_READS(GPA + GUEST_SRC, SRC + HALF - PAGE);
	for (i = 1; i <= 2; i++) {
		make_pending_here(_metadata, n, m);
		ASSERT_EQ(0, attach(n, other.hwpt));
		expect_gone(_metadata, n, m, PTD_N_SUCCESS, (3 * i - 2) * PENDING);
		EXPECT_READS(GPA + GUEST_SRC + PAGE, SRC + HALF - PAGE);

		make_pending_here(_metadata, n, m);
		ASSERT_EQ(0, attach(n, n->unit->faulting));
		expect_gone(_metadata, n, m, PTD_N_SUCCESS, (3 * i - 1) * PENDING);
		EXPECT_EQ(0, command(n->unit, PTD_CMD_DMA_READ, PASID, SRC + HALF - PAGE,
				     with(n, PTD_F_READ)));
		EXPECT_EQ(memory_read(n->unit, SRC + HALF - PAGE),
			  pri_get64(&n->unit->pri, PTD_DATA));

		make_pending_here(_metadata, n, m);
		ASSERT_EQ(0, attach(n, n->stage.hwpt));
		expect_gone(_metadata, n, m, PTD_N_SUCCESS, 3 * i * PENDING);
		EXPECT_READS(GPA + GUEST_SRC, SRC + HALF - PAGE);
	}
	EXPECT_EQ(0, iopf_destroy(guest->io, other.hwpt));
}

struct nested_mover {
	const struct nested *nested;
	uint32_t hwpts[2];
	unsigned int rounds;
	bool stop;
	int rc;
};

static void *move(void *arg)
{
	struct nested_mover *mover = arg;
	unsigned int i;

	for (i = 0; i < mover->rounds; i++)
		mover->rc |= attach(mover->nested, mover->hwpts[i % 2]);
	__atomic_store_n(&mover->stop, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Two first stages with the same tables below the top take turns under DMA. */
TEST_F_TIMEOUT(nested, replace_while_it_copies, 600)
{
	struct nested *n = &self->nested;
	struct nested_mover mover = {
		.nested = n, .rounds = times("PRI_ROUNDS", 200),
	};
	struct guest *guest = &n->guest;
	unsigned int copies = 0, starts = 0;
	struct stage other;
	pthread_t thread;
	uint64_t at;

	guest_map(guest, &n->stage, SRC);
	guest_map(guest, &n->stage, DST);
	ASSERT_EQ(0, stage_open(guest, n->server.queue.id, &other));
	memcpy(guest_at(guest, other.top), guest_at(guest, n->stage.top), PAGE);
	mover.hwpts[0] = other.hwpt;
	mover.hwpts[1] = n->stage.hwpt;
	ASSERT_EQ(0, pthread_create(&thread, NULL, move, &mover));
	do {
		memset(guest_at(guest, GPA + GUEST_DST), 0, 16 * PAGE);
		ASSERT_EQ(0, copy(n, 16 * PAGE, 2, 4));
		serve_guest(_metadata, n, &n->stage);
		EXPECT_NE(PTD_STATE_STOPPED_INVALID, reg(n->unit, PTD_STATE));
		copies += has_copied(n, 16 * PAGE);
		starts++;
		for (at = 0; at < 16 * PAGE; at += PAGE) {
			set_pte(guest_pte(guest, &n->stage, SRC + at, 1), 0);
			set_pte(guest_pte(guest, &n->stage, DST + at, 1), 0);
		}
		EXPECT_EQ(0, guest_invalidate(guest, &n->stage, 0, UINT64_MAX));
		EXPECT_EQ(0, guest_invalidate(guest, &other, 0, UINT64_MAX));
	} while (!__atomic_load_n(&mover.stop, __ATOMIC_ACQUIRE));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, mover.rc);
	EXPECT_EQ(0, reg(n->unit, PTD_N_INVALID));
	ksft_print_msg("%u replaces, %u copies of %u\n", mover.rounds, copies, starts);
	ASSERT_EQ(0, copy(n, 16 * PAGE, 2, 4));
	serve_guest(_metadata, n, &n->stage);
	EXPECT_TRUE(has_copied(n, 16 * PAGE));
	ASSERT_EQ(0, attach(n, n->stage.hwpt));
	EXPECT_EQ(0, iopf_destroy(guest->io, other.hwpt));
}

/* A whole copy by faults, before and after a detach with faults in flight. */
TEST_F(nested, detach)
{
	struct nested *n = &self->nested;
	struct iommu_hwpt_pgfault m[PENDING];

	ASSERT_EQ(0, copy(n, HALF / 2, 4, 8));
	serve_guest(_metadata, n, &n->stage);
	EXPECT_TRUE(has_copied(n, HALF / 2));
	pri_command(&n->unit->pri, PTD_CMD_CLEAR);
	make_pending_here(_metadata, n, m);
	ASSERT_EQ(0, detach(n));
	expect_gone(_metadata, n, m, PTD_N_INVALID, PENDING);
	ASSERT_EQ(0, attach(n, n->stage.hwpt));
	ASSERT_EQ(0, copy(n, HALF, 3, 8));
	serve_guest(_metadata, n, &n->stage);
	EXPECT_TRUE(has_copied(n, HALF));
}

TEST_F(nested, close_queue)
{
	struct nested *n = &self->nested;
	struct iommu_hwpt_pgfault m[PENDING];

	make_pending_here(_metadata, n, m);
	ASSERT_EQ(0, close(n->server.queue.fd));
	EXPECT_EQ(PENDING, wait_reg(n->unit, PTD_N_INVALID, PENDING));
	ASSERT_EQ(0, ask(n, SRC, PTD_F_READ, 1));
	EXPECT_EQ(PENDING + 1, wait_reg(n->unit, PTD_N_INVALID, PENDING + 1));
	/* for iopf_queue_close() */
	n->server.queue.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
}

TEST_F(nested, close_device)
{
	struct nested *n = &self->nested;
	struct iommu_hwpt_pgfault m[PENDING];

	make_pending_here(_metadata, n, m);
	ASSERT_EQ(0, pri_close(&n->unit->pri));
	expect_gone(_metadata, n, m, PTD_N_INVALID, PENDING);
}

/* What is refused, and that the table in use stays as it is. */
TEST_F(nested, refused)
{
	struct nested *n = &self->nested;
	struct iommu_hwpt_vtd_s1 data = { .addr_width = ADDR_WIDTH, .pgtbl_addr = GPA };
	struct guest *guest = &n->guest;
	uint32_t hwpt, id;

	guest_map(guest, &n->stage, SRC);
	EXPECT_EQ(-EBUSY, iopf_destroy(guest->io, n->stage.hwpt));
	EXPECT_EQ(-EBUSY, iopf_destroy(guest->io, guest->parent));
	EXPECT_EQ(-EOPNOTSUPP, iopf_hwpt_alloc(guest->io, guest->dev_id, guest->ioas,
					       IOMMU_HWPT_ALLOC_NEST_PARENT,
					       n->server.queue.id, &hwpt));
	EXPECT_EQ(-EOPNOTSUPP, nested_alloc(guest, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, 0, &data,
					    &hwpt));
	/* not made for PASIDs, which the device has */
	ASSERT_EQ(0, nested_alloc(guest, 0, 0, &data, &hwpt));
	EXPECT_EQ(-EINVAL, attach(n, hwpt));
	EXPECT_EQ(0, iopf_destroy(guest->io, hwpt));
	/* a paging table has no first stage of another's */
	id = guest->parent;
	guest->parent = n->unit->plain;
	EXPECT_EQ(-EINVAL, nested_alloc(guest, 0, 0, &data, &hwpt));
	guest->parent = id;
	/* what the hardware cannot walk */
	data.addr_width = 47;
	ASSERT_EQ(0, nested_alloc(guest, IOMMU_HWPT_ALLOC_PASID, 0, &data, &hwpt));
	EXPECT_EQ(-EINVAL, attach(n, hwpt));
	EXPECT_EQ(0, iopf_destroy(guest->io, hwpt));
	data.addr_width = ADDR_WIDTH;
	data.flags = IOMMU_VTD_S1_SRE;
	ASSERT_EQ(0, nested_alloc(guest, IOMMU_HWPT_ALLOC_PASID, 0, &data, &hwpt));
	EXPECT_EQ(-EINVAL, attach(n, hwpt));
	EXPECT_EQ(0, iopf_destroy(guest->io, hwpt));
	EXPECT_READS(GPA + GUEST_SRC, SRC);
}

/* What the device writes through the first stage is found dirty in the second. */
TEST_F(nested, dirty_pages)
{
	struct nested *n = &self->nested;
	struct iommu_hwpt_set_dirty_tracking set = { .size = sizeof(set), .flags = 1 };
	uint64_t bits = 0;
	struct iommu_hwpt_get_dirty_bitmap get = {
		.size = sizeof(get), .iova = GPA + GUEST_DST, .length = 8 * PAGE,
		.page_size = PAGE, .data = (uintptr_t)&bits,
	};
	struct guest guest;
	struct stage stage;

	if (variant->mmap_flags)
		SKIP(return, "its pages are not told apart");
	ASSERT_EQ(0, guest_open(&guest, &n->server.io, n->unit->pri.vfio.id, 0,
				IOMMU_HWPT_ALLOC_DIRTY_TRACKING));
	ASSERT_EQ(0, stage_open(&guest, n->server.queue.id, &stage));
	ASSERT_EQ(0, attach(n, stage.hwpt));
	set.hwpt_id = guest.parent;
	get.hwpt_id = guest.parent;
	ASSERT_EQ(0, ioctl(guest.io->fd, IOMMU_HWPT_SET_DIRTY_TRACKING, &set));
	guest_map(&guest, &stage, DST);
	guest_map(&guest, &stage, DST + 3 * PAGE);
	EXPECT_EQ(0, command(n->unit, PTD_CMD_DMA_READ, PASID, DST, with(n, PTD_F_READ)));
	EXPECT_EQ(0, write_at(n, DST + 3 * PAGE, 7));
	ASSERT_EQ(0, ioctl(guest.io->fd, IOMMU_HWPT_GET_DIRTY_BITMAP, &get));
	EXPECT_EQ(1 << 3, bits);
	/* clean again, and that was told to the IOMMU */
	bits = 0;
	ASSERT_EQ(0, ioctl(guest.io->fd, IOMMU_HWPT_GET_DIRTY_BITMAP, &get));
	EXPECT_EQ(0, bits);
	EXPECT_EQ(0, write_at(n, DST + 3 * PAGE, 8));
	ASSERT_EQ(0, ioctl(guest.io->fd, IOMMU_HWPT_GET_DIRTY_BITMAP, &get));
	EXPECT_EQ(1 << 3, bits);
	ASSERT_EQ(0, attach(n, n->stage.hwpt));
	EXPECT_EQ(0, iopf_destroy(guest.io, stage.hwpt));
	EXPECT_EQ(0, guest_close(&guest));
}

TEST_HARNESS_MAIN
