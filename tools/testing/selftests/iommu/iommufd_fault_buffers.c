// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffers of io_uring for reads of the fault queue: of sizes that are no multiple
 * of a message, provided ones of either kind, and those that are too small.
 */
#include <stdio.h>
#include <string.h>

#include "../../../iommu/lib/uring.h"
#include "iommufd_fault_env.h"

#define BUFFERS 4
#define LARGEST 4096

FIXTURE(buffers)
{
	struct fault_env env;
	struct io_uring ring;
	struct io_uring_buf_ring *provided;
	char *bytes;
	/* of each buffer, what was used */
	unsigned int used[BUFFERS];
};

typedef FIXTURE_DATA(buffers) buffers_t;

FIXTURE_VARIANT(buffers)
{
	unsigned int flags;	/* of the ring of buffers */
	uint32_t min_left;
	unsigned int size;	/* of a buffer */
};

typedef FIXTURE_VARIANT(buffers) buffers_variant_t;

FIXTURE_VARIANT_ADD(buffers, page)
{
	.size = 4096,
};

FIXTURE_VARIANT_ADD(buffers, ten_messages)
{
	.size = 400,
};

FIXTURE_VARIANT_ADD(buffers, nine_messages)
{
	.size = 360,
};

FIXTURE_VARIANT_ADD(buffers, odd)
{
	.size = 4 * MSG + 39,
};

FIXTURE_VARIANT_ADD(buffers, inc_page)
{
	.flags = BUFFERS_IN_PIECES, .size = 4096,
};

FIXTURE_VARIANT_ADD(buffers, inc_ten_messages)
{
	.flags = BUFFERS_IN_PIECES, .size = 400,
};

FIXTURE_VARIANT_ADD(buffers, inc_nine_messages)
{
	.flags = BUFFERS_IN_PIECES, .size = 360,
};

FIXTURE_VARIANT_ADD(buffers, inc_min_left)
{
	.flags = BUFFERS_IN_PIECES, .size = 4096, .min_left = 4 * MSG,
};

static void provide(buffers_t *self, unsigned int id, unsigned int size)
{
	io_uring_buf_ring_add(self->provided, self->bytes + id * LARGEST, size, id,
			      io_uring_buf_ring_mask(BUFFERS), 0);
	io_uring_buf_ring_advance(self->provided, 1);
}

/* A ring of buffers, group 1; the library does not know @min_left. */
static int make_ring(buffers_t *self, unsigned int flags, uint32_t min_left)
{
	struct io_uring_buf_reg reg = { .ring_entries = BUFFERS, .bgid = 1 };

	self->provided = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			      -1, 0);
	if (self->provided == MAP_FAILED)
		return -errno;
	reg.ring_addr = (uintptr_t)self->provided;
	buffers_flags(&reg, flags);
	/* The field behind the flags */
	memcpy((char *)&reg + 16, &min_left, sizeof(min_left));
	return io_uring_register_buf_ring(&self->ring, &reg, 0);
}

FIXTURE_SETUP(buffers)
{
	unsigned int i;

	fault_env_flags(_metadata, &self->env, 0);
	if (_metadata->exit_code)
		return;
	ASSERT_EQ(0, ring_open(&self->ring, 0));
	ASSERT_EQ(0, make_ring(self, variant->flags, variant->min_left));
	self->bytes = calloc(BUFFERS, LARGEST);
	ASSERT_NE(NULL, self->bytes);
	for (i = 0; i < BUFFERS; i++)
		provide(self, i, variant->size);
}

FIXTURE_TEARDOWN(buffers)
{
	io_uring_queue_exit(&self->ring);
	fault_env_close(_metadata, &self->env);
	free(self->bytes);
}

static void start_multishot(struct __test_metadata *_metadata, buffers_t *self)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);

	prep_read_multishot(sqe, self->env.queue, 1);
	ASSERT_EQ(0, submit(&self->ring));
}

/*
 * A completion with a buffer: whole groups, which are answered. The buffer is used
 * up by that and is provided again; but if the ring says how much is enough, the
 * rest of it may be next.
 */
static unsigned int use_buffer(struct __test_metadata *_metadata, buffers_t *self,
			       const struct io_uring_cqe *cqe,
			       const buffers_variant_t *variant)
{
	unsigned int id = cqe->flags >> IORING_CQE_BUFFER_SHIFT, n, i;
	const struct iommu_hwpt_pgfault *m;

	EXPECT_TRUE(cqe->flags & IORING_CQE_F_BUFFER);
	EXPECT_EQ(0, cqe->res % MSG);
	ASSERT_GT(BUFFERS, id);
	m = (void *)(self->bytes + id * LARGEST + self->used[id]);
	n = cqe->res / MSG;
	for (i = 0; i < n; i++) {
		if (m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)
			EXPECT_EQ(0, fault_answer(self->env.queue, m[i].cookie, SUCCESS));
	}
	EXPECT_TRUE(m[n - 1].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE);
	self->used[id] += cqe->res;
	if (cqe->flags & CQE_MORE_IN_BUFFER) {
		EXPECT_LE(variant->min_left, variant->size - self->used[id]);
		EXPECT_NE(0, variant->min_left);
		return n;
	}
	memset(self->bytes + id * LARGEST, 0, LARGEST);
	self->used[id] = 0;
	provide(self, id, variant->size);
	return n;
}

/* Groups of one and of four, again and again: one read takes them all. */
TEST_F(buffers, multishot)
{
	unsigned int round, n, got;
	struct io_uring_cqe cqe;

	start_multishot(_metadata, self);
	for (round = 0; round < 70; round++) {
		n = round % 2 ? 4 : 1;
		ASSERT_EQ(0, inject(&self->env, round, 1, n));
		ASSERT_LT(0, completion(&self->ring, LONG_MS, &cqe)) {
			TH_LOG("round %u: %d", round, cqe.res);
		}
		EXPECT_TRUE(cqe.flags & IORING_CQE_F_MORE);
		got = use_buffer(_metadata, self, &cqe, variant);
		ASSERT_EQ(n, got);
	}
	expect_answers(_metadata, &self->env, 70, 0);
	expect_quiet(&self->ring);
}

/* Bursts: as many groups as fit into a buffer, and more than fit into all. */
TEST_F(buffers, bursts)
{
	unsigned int groups = 0, got, round;
	struct io_uring_cqe cqe;
	int rc;

	start_multishot(_metadata, self);
	for (round = 0; round < 10; round++) {
		ASSERT_EQ(0, inject(&self->env, 0, 40, 3));
		for (got = 0; got < 120;) {
			rc = completion(&self->ring, LONG_MS, &cqe);
			if (rc == -ENOBUFS) {
				start_multishot(_metadata, self);
				continue;
			}
			ASSERT_LT(0, rc);
			EXPECT_GE(variant->size, rc);
			got += use_buffer(_metadata, self, &cqe, variant);
		}
		EXPECT_EQ(120, got);
		groups += 40;
	}
	expect_answers(_metadata, &self->env, groups, 0);
}

/* Reads that end, each with a buffer of the ring, posted before or after the fault */
TEST_F(buffers, posted)
{
	struct io_uring_sqe *sqe;
	struct io_uring_cqe cqe;
	unsigned int i;

	for (i = 0; i < 4 * BUFFERS; i++) {
		if (i % 2)
			ASSERT_EQ(0, inject(&self->env, i, 1, 4));
		sqe = prep_read(&self->ring, self->env.queue, NULL, 0, i);
		sqe->flags |= IOSQE_BUFFER_SELECT;
		sqe->buf_group = 1;
		ASSERT_EQ(0, submit(&self->ring));
		if (i % 2 == 0) {
			expect_quiet(&self->ring);
			ASSERT_EQ(0, inject(&self->env, i, 1, 4));
		}
		ASSERT_EQ(4 * MSG, completion(&self->ring, LONG_MS, &cqe));
		EXPECT_EQ(i, cqe.user_data);
		EXPECT_EQ(4, use_buffer(_metadata, self, &cqe, variant));
	}
	expect_answers(_metadata, &self->env, 4 * BUFFERS, 0);
}

/* ---- buffers that are too small ---- */

FIXTURE(small)
{
	struct fault_env env;
	struct io_uring ring;
};

typedef FIXTURE_DATA(small) small_t;

FIXTURE_SETUP(small)
{
	fault_env_flags(_metadata, &self->env, 0);
	if (!_metadata->exit_code)
		ASSERT_EQ(0, ring_open(&self->ring, 0));
}

FIXTURE_TEARDOWN(small)
{
	io_uring_queue_exit(&self->ring);
	fault_env_close(_metadata, &self->env);
}

/* A ring of buffers, of which one is there */
static void one_buffer(struct __test_metadata *_metadata, small_t *self,
		       unsigned int flags, char *bytes, unsigned int size)
{
	struct io_uring_buf_ring *provided;
	struct io_uring_sqe *sqe;
	int rc;

	provided = setup_buffers_flags(&self->ring, BUFFERS, 1, flags, &rc);
	ASSERT_NE(NULL, provided);
	io_uring_buf_ring_add(provided, bytes, size, 0, io_uring_buf_ring_mask(BUFFERS), 0);
	io_uring_buf_ring_advance(provided, 1);
	sqe = io_uring_get_sqe(&self->ring);
	prep_read_multishot(sqe, self->env.queue, 1);
	ASSERT_EQ(0, submit(&self->ring));
}

/* The read ends with that; a larger buffer gets the group. */
static void group_does_not_fit(struct __test_metadata *_metadata, small_t *self,
			       unsigned int flags, unsigned int size)
{
	struct iommu_hwpt_pgfault m[ROOM];
	struct io_uring_cqe cqe;

	one_buffer(_metadata, self, flags, (char *)m, size);
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(&self->env, 3, 1, 4));
	EXPECT_EQ(-EINVAL, completion(&self->ring, LONG_MS, &cqe));
	EXPECT_FALSE(cqe.flags & IORING_CQE_F_MORE);
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(self->env.queue, 0));
	ASSERT_EQ(0, io_uring_unregister_buf_ring(&self->ring, 1));
	one_buffer(_metadata, self, flags, (char *)m, 4 * MSG + 1);
	EXPECT_EQ(4 * MSG, completion(&self->ring, LONG_MS, &cqe));
	EXPECT_EQ(3, m[3].grpid);
	EXPECT_EQ(0, fault_answer(self->env.queue, m[3].cookie, SUCCESS));
	expect_answers(_metadata, &self->env, 1, 0);
}

TEST_F(small, group_does_not_fit)
{
	group_does_not_fit(_metadata, self, 0, 3 * MSG + 39);
}

TEST_F(small, group_does_not_fit_inc)
{
	group_does_not_fit(_metadata, self, BUFFERS_IN_PIECES, 3 * MSG + 39);
}

/* Nothing ever fits: that is said at once, with a fault or without. */
static void nothing_fits(struct __test_metadata *_metadata, small_t *self,
			 unsigned int flags)
{
	struct io_uring_cqe cqe;
	char bytes[MSG];
	int i;

	for (i = 0; i < 2; i++) {
		one_buffer(_metadata, self, flags, bytes, MSG - 1);
		EXPECT_EQ(-EINVAL, completion(&self->ring, LONG_MS, &cqe));
		EXPECT_FALSE(cqe.flags & IORING_CQE_F_MORE);
		ASSERT_EQ(0, io_uring_unregister_buf_ring(&self->ring, 1));
		if (!i)
			ASSERT_EQ(0, inject(&self->env, 3, 1, 1));
	}
	EXPECT_EQ(3, take(_metadata, self->env.queue).grpid);
}

TEST_F(small, nothing_fits)
{
	nothing_fits(_metadata, self, 0);
}

TEST_F(small, nothing_fits_inc)
{
	nothing_fits(_metadata, self, BUFFERS_IN_PIECES);
}

/* Sizes of a read without a ring of buffers: what fits is read; read(2) wants it exact. */
TEST_F(small, sizes)
{
	static const struct {
		unsigned int size;
		int want;
	} reads[] = {
		{ 1, -EINVAL }, { MSG - 1, -EINVAL }, { 2 * MSG - 1, MSG },
		{ 3 * MSG + 1, 3 * MSG }, { LARGEST, 102 * MSG }, { LARGEST - 1, 102 * MSG },
	};
	char bytes[LARGEST];
	unsigned int i;

	for (i = 0; i < 6; i++) {
		prep_read(&self->ring, self->env.queue, bytes, reads[i].size, i);
		ASSERT_EQ(0, submit(&self->ring));
		if (reads[i].want > 0) {
			expect_quiet(&self->ring);
			ASSERT_EQ(0, inject(&self->env, 0, 1, reads[i].want / MSG));
		}
		EXPECT_EQ(reads[i].want, result(&self->ring, i));
	}
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	for (i = 0; i < 6; i++)
		EXPECT_EQ(-ESPIPE, fault_read_bytes(self->env.queue, bytes, reads[i].size));
	EXPECT_EQ(1, take(_metadata, self->env.queue).grpid);
}

TEST_HARNESS_MAIN
