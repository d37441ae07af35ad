// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nested page tables come and go while the device has faults in flight: replace, detach,
 * close, and a device that moves to another machine.
 */
#include <pthread.h>

#include "iommufd_pri_nested.h"

static int copy_from(const struct nested *n, uint64_t first, uint64_t length, uint32_t group,
		     uint32_t depth)
{
	struct pri_device *pri = &n->unit->pri;

	pri_set(pri, PTD_PASID, PASID);
	pri_set(pri, PTD_FLAGS, with(n, 0));
	pri_set64(pri, PTD_SRC, SRC + first);
	pri_set64(pri, PTD_DST, DST + first);
	pri_set64(pri, PTD_LENGTH, length - first);
	pri_set(pri, PTD_GROUP, group);
	pri_set(pri, PTD_DEPTH, depth);
	return pri_command(pri, PTD_CMD_START);
}

static int copy(const struct nested *n, uint64_t length, uint32_t group, uint32_t depth)
{
	return copy_from(n, 0, length, group, depth);
}

static bool has_copied(const struct nested *n, uint64_t length)
{
	return reg(n->unit, PTD_STATE) == PTD_STATE_DONE &&
	       !memcmp(n->guest.memory + GUEST_SRC, n->guest.memory + GUEST_DST, length);
}

/* A page that a fault asks for, in the guest's table and, if there is one, in an IOAS. */
static int resolve(struct nested *n, const struct stage *stage, uint32_t ioas, uint64_t addr)
{
	void *page = guest_at(&n->guest, guest_page(addr));
	int rc = ioas ? iopf_map(n->guest.io, ioas, addr, page, PAGE, READ_WRITE) : 0;

	guest_map(&n->guest, stage, addr);
	return rc == -EEXIST ? 0 : rc;
}

/* Serve a copy as a guest's kernel does. */
static void serve_both(struct __test_metadata *_metadata, struct nested *n,
		       const struct stage *stage, uint32_t ioas)
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
			ASSERT_EQ(0, resolve(n, stage, ioas, m[i].addr));
			/* the kernel may have answered in a replace what was read */
			if (m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)
				answer(&n->server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS);
			end = now_ms() + WAIT_MS;
		}
	}
}

static void serve_guest(struct __test_metadata *_metadata, struct nested *n,
			const struct stage *stage)
{
	serve_both(_metadata, n, stage, 0);
}

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
	unsigned int pause_us;
	bool stop;
	int rc;
};

static void *move(void *arg)
{
	struct nested_mover *mover = arg;
	unsigned int i;

	for (i = 0; i < mover->rounds; i++) {
		mover->rc |= attach(mover->nested, mover->hwpts[i % 2]);
		if (mover->pause_us)
			usleep(mover->pause_us);
	}
	__atomic_store_n(&mover->stop, true, __ATOMIC_RELEASE);
	return NULL;
}

#define TURN_PAGES 16

static void forget_pages(struct __test_metadata *_metadata, struct nested *n, uint32_t ioas)
{
	struct guest *guest = &n->guest;
	uint64_t at, iova;

	for (at = 0; at < 2 * TURN_PAGES; at++) {
		iova = (at % 2 ? SRC : DST) + at / 2 * PAGE;
		set_pte(guest_pte(guest, &n->stage, iova, 1), 0);
		if (ioas)
			iopf_unmap(guest->io, ioas, iova, PAGE);
	}
	EXPECT_EQ(0, guest_invalidate(guest, &n->stage, 0, UINT64_MAX));
}

/*
 * The guest's table and another one take turns while the device copies by faults. @stage:
 * the other, if it is nested, too; @ioas: whose table it is, if not.
 */
static void take_turns(struct __test_metadata *_metadata, struct nested *n, uint32_t other,
		       const struct stage *stage, uint32_t ioas)
{
	struct nested_mover mover = {
		.nested = n, .hwpts = { other, n->stage.hwpt },
		.rounds = times("PRI_ROUNDS", 200),
		/* it takes long, and a device that is told to try again all the time gives up */
		.pause_us = stage ? 0 : 5000,
	};
	unsigned int copies = 0, starts = 0;
	const uint64_t length = TURN_PAGES * PAGE;
	struct guest *guest = &n->guest;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, move, &mover));
	do {
		memset(guest_at(guest, GPA + GUEST_DST), 0, length);
		ASSERT_EQ(0, copy(n, length, 2, 4));
		serve_both(_metadata, n, &n->stage, ioas);
		EXPECT_NE(PTD_STATE_STOPPED_INVALID, reg(n->unit, PTD_STATE));
		copies += has_copied(n, length);
		starts++;
		forget_pages(_metadata, n, ioas);
		if (stage)
			EXPECT_EQ(0, guest_invalidate(guest, stage, 0, UINT64_MAX));
	} while (!__atomic_load_n(&mover.stop, __ATOMIC_ACQUIRE));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, mover.rc);
	EXPECT_EQ(0, reg(n->unit, PTD_N_INVALID));
	ksft_print_msg("%u replaces, %u copies of %u\n", mover.rounds, copies, starts);
	ASSERT_EQ(0, copy(n, length, 2, 4));
	serve_both(_metadata, n, &n->stage, ioas);
	EXPECT_TRUE(has_copied(n, length));
	ASSERT_EQ(0, attach(n, n->stage.hwpt));
}

/* Two first stages with the same tables below the top */
TEST_F_TIMEOUT(nested, replace_while_it_copies, 600)
{
	struct nested *n = &self->nested;
	struct guest *guest = &n->guest;
	struct stage other;

	guest_map(guest, &n->stage, SRC);
	guest_map(guest, &n->stage, DST);
	ASSERT_EQ(0, stage_open(guest, n->server.queue.id, &other));
	memcpy(guest_at(guest, other.top), guest_at(guest, n->stage.top), PAGE);
	take_turns(_metadata, n, other.hwpt, &other, 0);
	EXPECT_EQ(0, iopf_destroy(guest->io, other.hwpt));
}

/*
 * A page that is in both of them: a PASID finds it at any time, as the entry of a guest's
 * PASID table is changed in place, too. The entry of a RID is not there in between.
 */
TEST_F(nested, replace_without_a_gap)
{
	struct nested *n = &self->nested;
	struct nested_mover mover = {
		.nested = n, .rounds = times("PRI_ROUNDS", 200),
	};
	struct guest *guest = &n->guest;
	unsigned int reads = 0, gaps = 0;
	struct stage other;
	pthread_t thread;
	uint64_t value;

	if (!n->pasid)
		SKIP(return, "the RID has no table in between");
	guest_map(guest, &n->stage, SRC);
	ASSERT_EQ(0, stage_open(guest, n->server.queue.id, &other));
	memcpy(guest_at(guest, other.top), guest_at(guest, n->stage.top), PAGE);
	mover.hwpts[0] = other.hwpt;
	mover.hwpts[1] = n->stage.hwpt;
	ASSERT_EQ(0, pthread_create(&thread, NULL, move, &mover));
	do {
		gaps += !!read_at(n, SRC, &value);
		reads++;
	} while (!__atomic_load_n(&mover.stop, __ATOMIC_ACQUIRE));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, mover.rc);
	EXPECT_EQ(0, gaps)
		TH_LOG("%u of %u reads", gaps, reads);
	EXPECT_READS(GPA + GUEST_SRC, SRC);
	ASSERT_EQ(0, attach(n, n->stage.hwpt));
	EXPECT_EQ(0, iopf_destroy(guest->io, other.hwpt));
}

/* A guest's table and one of the host's, with the same pages in both */
TEST_F_TIMEOUT(nested, replace_by_paging_while_it_copies, 600)
{
	struct nested *n = &self->nested;
	struct iopf *io = n->guest.io;
	uint32_t ioas, hwpt;

	ASSERT_EQ(0, iopf_ioas_alloc(io, &ioas));
	ASSERT_EQ(0, iopf_hwpt_alloc(io, n->guest.dev_id, ioas, IOMMU_HWPT_ALLOC_PASID,
				     n->server.queue.id, &hwpt));
	take_turns(_metadata, n, hwpt, NULL, ioas);
	EXPECT_EQ(0, iopf_destroy(io, hwpt));
	EXPECT_EQ(0, iopf_destroy(io, ioas));
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

static void serve_one_read(struct __test_metadata *_metadata, struct nested *n)
{
	struct iommu_hwpt_pgfault m[8];
	int i, got = read_some(&n->server.queue, m, 8, WAIT_MS);

	ASSERT_LE(1, got);
	for (i = 0; i < got; i++) {
		guest_map(&n->guest, &n->stage, m[i].addr);
		if (m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)
			ASSERT_EQ(1, answer(&n->server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	}
}

#define GROUP_IDS 512

/* The guest's memory, and what its VMM and its device have to know at another place */
struct image {
	unsigned char *memory;
	unsigned int tables;
	uint64_t top;
	uint64_t done;
	/* groups of each id that the guest will answer, though they are answered */
	unsigned int late[GROUP_IDS];
};

/* All that the device waits for is answered, be it the guest's to answer or still unread. */
static void save_nested(struct __test_metadata *_metadata, struct nested *n,
			const struct iommu_hwpt_pgfault *given, int n_given, struct image *image)
{
	struct guest *guest = &n->guest;
	int i;

	for (i = 0; i < n_given; i++)
		image->late[given[i].grpid] += !!(given[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE);
	ASSERT_EQ(0, pri_command(&n->unit->pri, PTD_CMD_ABORT));
	ASSERT_EQ(0, put_off(&n->server, given, n_given));
	EXPECT_EQ(0, wait_reg(n->unit, PTD_OPEN_GROUPS, 0));
	EXPECT_EQ(0, reg(n->unit, PTD_N_INVALID));
	EXPECT_EQ(0, fdinfo_number(n->server.queue.fd, "iommufd-fault-queued"));
	EXPECT_EQ(0, fdinfo_number(n->server.queue.fd, "iommufd-fault-delivered"));
	image->done = pri_get64(&n->unit->pri, PTD_BYTES);
	image->memory = malloc(GUEST_MEMORY);
	ASSERT_NE(NULL, image->memory);
	memcpy(image->memory, guest->memory, GUEST_MEMORY);
	image->tables = guest->tables;
	image->top = n->stage.top;
	ASSERT_EQ(0, pri_close(&n->unit->pri));
	EXPECT_EQ(0, iopf_destroy(&n->server.io, n->stage.hwpt));
	EXPECT_EQ(0, guest_close(guest));
	check_server(_metadata, &n->server);
}

static void restore_nested(struct __test_metadata *_metadata, struct nested *n,
			   const struct image *image, int mmap_flags)
{
	struct iommu_hwpt_vtd_s1 data = { .addr_width = ADDR_WIDTH, .pgtbl_addr = image->top };

	ASSERT_EQ(0, server_open(&n->server, 0, 1));
	ASSERT_EQ(0, guest_open(&n->guest, &n->server.io, n->unit->pri.vfio.id, mmap_flags, 0));
	memcpy(n->guest.memory, image->memory, GUEST_MEMORY);
	free(image->memory);
	n->guest.tables = image->tables;
	n->stage.top = image->top;
	ASSERT_EQ(0, nested_alloc(&n->guest, IOMMU_HWPT_ALLOC_PASID, n->server.queue.id, &data,
				  &n->stage.hwpt));
	ASSERT_EQ(0, attach(n, n->stage.hwpt));
}

/* The guest answers a group of this id: what a VMM does with it that has come here. */
static void guest_answers(struct __test_metadata *_metadata, struct nested *n,
			  struct image *image, const struct iommu_hwpt_pgfault *m)
{
	if (!(m->flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE))
		return;
	if (image->late[m->grpid])
		image->late[m->grpid]--;
	else
		ASSERT_EQ(1, answer(&n->server, m->cookie, IOMMUFD_PAGE_RESP_SUCCESS));
}

/*
 * The device moves to another host while the guest has faults to answer. It answers them
 * there, after the device has asked again with the same ids: none of these may be taken for
 * an answer to what the device waits for now.
 */
TEST_F_TIMEOUT(nested, migrate, 600)
{
	struct nested *n = &self->nested;
	struct iommu_hwpt_pgfault old[8], new[8];
	static struct image image;
	int i, n_old, n_new;

	memset(&image, 0, sizeof(image));
	ASSERT_EQ(0, copy(n, HALF, 2, 4));
	while (pri_get64(&n->unit->pri, PTD_BYTES) < HALF / 8)
		serve_one_read(_metadata, n);
	n_old = read_some(&n->server.queue, old, 8, WAIT_MS);
	ASSERT_LE(1, n_old);
	ASSERT_EQ(PTD_STATE_RUNNING, reg(n->unit, PTD_STATE));
	save_nested(_metadata, n, old, n_old, &image);
	EXPECT_GT(HALF, image.done);
	restore_nested(_metadata, n, &image, variant->mmap_flags);

	for (i = 0, n_new = 0; i < n_old; i++) {
		if (old[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE) {
			ASSERT_EQ(0, ask(n, SRC + i * PAGE, PTD_F_READ, old[i].grpid));
			n_new++;
		}
	}
	ASSERT_EQ(n_new, read_all(&n->server.queue, new, n_new));
	for (i = 0; i < n_old; i++)
		guest_answers(_metadata, n, &image, &old[i]);
	EXPECT_EQ(0, reg(n->unit, PTD_N_RESPONSES));
	for (i = 0; i < n_new; i++)
		guest_answers(_metadata, n, &image, &new[i]);
	EXPECT_EQ(n_new, wait_reg(n->unit, PTD_N_SUCCESS, n_new));
	ASSERT_EQ(0, copy_from(n, image.done, HALF, 2, 4));
	serve_guest(_metadata, n, &n->stage);
	EXPECT_TRUE(has_copied(n, HALF));
}

TEST_HARNESS_MAIN
