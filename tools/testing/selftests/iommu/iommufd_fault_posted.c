// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads, polls and writes of a queue through io_uring: posted, linked, of registered
 * buffers, multishot, and by the client library.
 */
#include <sys/uio.h>

#include "../../../iommu/lib/iopf.h"
#include "../../../iommu/lib/uring.h"
#include "iommufd_fault_posted.h"

TEST_F(uring, stays_posted)
{
	post_read(_metadata, self, 0, 0);
	expect_quiet(&self->ring);
	send_one(_metadata, self);
	got_one(_metadata, self);
	expect_quiet(&self->ring);
}

/* As any read that could wait by polling: O_NONBLOCK does not end it, least of all with 0. */
TEST_F(uring, nonblock_stays_posted)
{
	ASSERT_EQ(0, fcntl(self->queue->fd, F_SETFL, O_RDWR | O_NONBLOCK));
	post_read(_metadata, self, 0, 0);
	post_read(_metadata, self, 1, IOSQE_ASYNC);
	expect_quiet(&self->ring);
	send_one(_metadata, self);
	got_one(_metadata, self);
	expect_quiet(&self->ring);
	send_one(_metadata, self);
	got_one(_metadata, self);
}

TEST_F(uring, nowait)
{
	struct io_uring_cqe cqe;
	struct io_uring_sqe *sqe;
	int i;

	for (i = 0; i < 2; i++) {
		sqe = get_sqe(_metadata, &self->ring, 0);
		io_uring_prep_read(sqe, self->queue->fd, self->m[0], MSG, 0);
		sqe->rw_flags = RWF_NOWAIT;
		ASSERT_EQ(0, submit(&self->ring));
		EXPECT_EQ(i ? (int)MSG : -EAGAIN, completion(&self->ring, LONG_MS, &cqe));
		if (!i)
			send_one(_metadata, self);
	}
}

TEST_F(uring, read_errors)
{
	static const struct {
		unsigned int size;
		int64_t offset;
		int want;
	} reads[] = {
		{ MSG, MSG, -ESPIPE }, { MSG, 1, -ESPIPE }, { MSG - 1, 0, -EINVAL },
		{ 2 * MSG - 1, 0, -EINVAL }, { 0, 0, 0 }, { MSG, -1, -EINVAL },
		{ 3 * MSG - 1, -1, 2 * MSG },
	};
	struct io_uring_cqe cqe;
	struct io_uring_sqe *sqe;
	unsigned int i;

	inject_from(_metadata, &self->env, self->dev, 1, 1, 2);
	for (i = 0; i < 7; i++) {
		sqe = get_sqe(_metadata, &self->ring, i);
		io_uring_prep_read(sqe, self->queue->fd, self->m[0], reads[i].size,
				   reads[i].offset);
		ASSERT_EQ(0, submit(&self->ring));
		EXPECT_EQ(reads[i].want, completion(&self->ring, LONG_MS, &cqe));
	}
}

/* Messages end in the middle of a vector's parts. */
TEST_F(uring, readv)
{
	char *m = (char *)self->m[0];
	struct iovec parts[] = { { m, 8 }, { m + 8, MSG }, { m + 8 + MSG, 2 * MSG - 8 } };
	struct iovec odd = { m, MSG - 1 }, bad[] = { { m, 8 }, { NULL, MSG - 8 } };
	struct io_uring_cqe cqe = {};
	struct io_uring_sqe *sqe;

	sqe = get_sqe(_metadata, &self->ring, 1);
	io_uring_prep_readv(sqe, self->queue->fd, &odd, 1, 0);
	sqe->user_data = 1;
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(-EINVAL, completion(&self->ring, LONG_MS, &cqe));

	sqe = get_sqe(_metadata, &self->ring, 2);
	io_uring_prep_readv(sqe, self->queue->fd, bad, 2, 0);
	sqe->user_data = 2;
	ASSERT_EQ(0, submit(&self->ring));
	expect_quiet(&self->ring);
	inject_from(_metadata, &self->env, self->dev, 7, 1, 1);
	EXPECT_EQ(-EFAULT, completion(&self->ring, LONG_MS, &cqe));

	/* what could not be copied is there for this one; it has room for three messages */
	sqe = get_sqe(_metadata, &self->ring, 3);
	io_uring_prep_readv(sqe, self->queue->fd, parts, 3, 0);
	sqe->user_data = 3;
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(MSG, completion(&self->ring, LONG_MS, &cqe));
	EXPECT_EQ(7, self->m[0]->grpid);

	sqe = get_sqe(_metadata, &self->ring, 4);
	io_uring_prep_readv(sqe, self->queue->fd, parts, 3, 0);
	sqe->user_data = 4;
	ASSERT_EQ(0, submit(&self->ring));
	expect_quiet(&self->ring);
	inject_from(_metadata, &self->env, self->dev, 9, 1, 3);
	EXPECT_EQ(3 * MSG, completion(&self->ring, LONG_MS, &cqe));
	EXPECT_EQ(9, self->m[0][2].grpid);
	EXPECT_EQ(self->m[0][0].cookie, self->m[0][2].cookie);
	EXPECT_EQ(0, fault_answer(self->queue->fd, self->m[0]->cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
}

static void post_read_fixed(struct __test_metadata *_metadata, struct _test_data_uring *self,
			    void *to, unsigned int size)
{
	struct io_uring_sqe *sqe = get_sqe(_metadata, &self->ring, 0);

	/* file 0 and buffer 0 of the ring */
	io_uring_prep_read_fixed(sqe, 0, to, size, 0, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	ASSERT_EQ(0, submit(&self->ring));
}

/* A registered buffer and a registered file, which outlives its descriptor. */
TEST_F(uring, read_fixed)
{
	struct iovec buffer = { self->m, 2 * MSG };
	struct io_uring_cqe cqe = {};

	ASSERT_EQ(0, io_uring_register_buffers(&self->ring, &buffer, 1));
	ASSERT_EQ(0, io_uring_register_files(&self->ring, &self->queue->fd, 1));
	post_read_fixed(_metadata, self, self->m, 3 * MSG);
	EXPECT_EQ(-EFAULT, completion(&self->ring, LONG_MS, &cqe));
	post_read_fixed(_metadata, self, self->m, MSG - 8);
	EXPECT_EQ(-EINVAL, completion(&self->ring, LONG_MS, &cqe));

	post_read_fixed(_metadata, self, (char *)self->m + 4, MSG + 8);
	expect_quiet(&self->ring);
	send_one(_metadata, self);
	ASSERT_EQ(MSG, completion(&self->ring, LONG_MS, &cqe));
	memmove(self->m, (char *)self->m + 4, MSG);
	EXPECT_EQ(self->grpid, self->m[0]->grpid);
	EXPECT_EQ(0, fault_answer(self->queue->fd, self->m[0]->cookie, SUCCESS));

	env_close_queue(_metadata, self->queue);
	post_read_fixed(_metadata, self, self->m, 2 * MSG);
	inject_from(_metadata, &self->env, self->dev, 9, 1, 2);
	ASSERT_EQ(2 * MSG, completion(&self->ring, LONG_MS, &cqe));
	EXPECT_EQ(9, self->m[0][1].grpid);
	ring_exit(&self->ring);
	self->queue->fd = open("/dev/null", O_RDWR);
	expect_released(_metadata, self);
}

/*
 * The cookie is the last of a message: with a zero behind it, an answer. So a
 * read and a write that is linked to it serve a fault on their own.
 */
TEST_F(uring, read_then_write)
{
	struct {
		struct iommu_hwpt_pgfault m;
		uint32_t code;
	} fault = { .code = SUCCESS };
	struct io_uring_cqe cqe = {};
	struct io_uring_sqe *sqe;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		sqe = get_sqe(_metadata, &self->ring, 0);
		io_uring_prep_read(sqe, self->queue->fd, &fault.m, MSG, 0);
		sqe->flags |= IOSQE_IO_LINK;
		sqe->user_data = 1;
		sqe = get_sqe(_metadata, &self->ring, 0);
		io_uring_prep_write(sqe, self->queue->fd, &fault.m.cookie, ANSWER, 0);
		sqe->user_data = 2;
		ASSERT_EQ(0, submit(&self->ring));
		if (i < 2)
			expect_quiet(&self->ring);
		send_one(_metadata, self);
		ASSERT_EQ(MSG, completion(&self->ring, LONG_MS, &cqe));
		EXPECT_EQ(1, cqe.user_data);
		ASSERT_EQ(ANSWER, completion(&self->ring, LONG_MS, &cqe));
		EXPECT_EQ(2, cqe.user_data);
		EXPECT_EQ(self->grpid, fault.m.grpid);
	}
	expect_answers_of(_metadata, &self->env, self->dev, 20, 0);
}

static void post_poll(struct __test_metadata *_metadata, struct _test_data_uring *self,
		      uint64_t data, unsigned int events, bool multishot)
{
	struct io_uring_sqe *sqe = get_sqe(_metadata, &self->ring, 0);

	if (multishot)
		io_uring_prep_poll_multishot(sqe, self->queue->fd, events);
	else
		io_uring_prep_poll_add(sqe, self->queue->fd, events);
	sqe->user_data = data;
	ASSERT_EQ(0, submit(&self->ring));
}

/* One-shot polls complete when there is something; at once if it is there already. */
TEST_F(uring, poll)
{
	struct io_uring_cqe cqe = {};

	post_poll(_metadata, self, 1, POLLIN, false);
	expect_quiet(&self->ring);
	send_one(_metadata, self);
	EXPECT_EQ(POLLIN, completion(&self->ring, LONG_MS, &cqe));
	post_poll(_metadata, self, 2, POLLIN, false);
	EXPECT_EQ(POLLIN, completion(&self->ring, LONG_MS, &cqe));
	take(_metadata, self->queue->fd);
	post_poll(_metadata, self, 3, POLLIN, false);
	expect_quiet(&self->ring);
	post_poll(_metadata, self, 4, POLLIN | POLLOUT, false);
	EXPECT_EQ(POLLOUT, completion(&self->ring, LONG_MS, &cqe));
	EXPECT_EQ(4, cqe.user_data);
}

/* A multishot poll completes for each group, and for what a read leaves. */
TEST_F(uring, poll_multishot)
{
	struct io_uring_cqe cqe = {};
	unsigned int i, n;

	post_poll(_metadata, self, 1, POLLIN, true);
	expect_quiet(&self->ring);
	for (i = 0; i < 4; i++) {
		for (n = 0; n < 3; n++) {
			if (n < 2)
				send_one(_metadata, self);
			else
				take(_metadata, self->queue->fd);
			EXPECT_EQ(POLLIN, completion(&self->ring, LONG_MS, &cqe));
			EXPECT_TRUE(cqe.flags & IORING_CQE_F_MORE);
			expect_quiet(&self->ring);
		}
		take(_metadata, self->queue->fd);
		expect_quiet(&self->ring);
	}
}

TEST_F(uring, poll_exclusive)
{
	struct io_uring_cqe cqe = {};
	unsigned int i, done = 0;

	for (i = 0; i < 4; i++)
		post_poll(_metadata, self, i, POLLIN | EPOLLEXCLUSIVE, false);
	expect_quiet(&self->ring);
	for (i = 0; i < 4; i++) {
		send_one(_metadata, self);
		EXPECT_EQ(POLLIN, completion(&self->ring, LONG_MS, &cqe));
		done |= 1 << cqe.user_data;
		expect_quiet(&self->ring);
		take(_metadata, self->queue->fd);
	}
	EXPECT_EQ(0xf, done);
}

/* Eight reads, one fault: exactly one completes. The other seven wait for theirs. */
TEST_F(uring, eight_reads_one_fault)
{
	unsigned int i, done = 0;

	for (i = 0; i < READS; i++)
		post_read(_metadata, self, i, 0);
	expect_quiet(&self->ring);
	for (i = 0; i < READS; i++) {
		send_one(_metadata, self);
		done |= 1 << got_one(_metadata, self);
		expect_quiet(&self->ring);
	}
	EXPECT_EQ((1 << READS) - 1, done);
	expect_answers_of(_metadata, &self->env, self->dev, READS, 0);
}

TEST_F(uring, eight_reads_burst)
{
	unsigned int i, groups = 0, reads = 0;
	struct io_uring_cqe cqe = {};

	for (i = 0; i < READS; i++)
		post_read(_metadata, self, i, i % 2 ? IOSQE_ASYNC : 0);
	inject_from(_metadata, &self->env, self->dev, 0, 2 * READS, 2);
	while (groups < 2 * READS && reads < READS) {
		ASSERT_LT(0, completion(&self->ring, LONG_MS, &cqe));
		EXPECT_EQ(0, cqe.res % (2 * MSG));
		groups += cqe.res / (2 * MSG);
		reads++;
	}
	/* what is left, if reads of one group each have used up all of them */
	while (groups < 2 * READS) {
		ssize_t n = fault_read(self->queue->fd, self->m[0], FEW);

		ASSERT_LT(0, n);
		groups += n / 2;
	}
	EXPECT_EQ(2 * READS, groups);
	expect_empty(_metadata, self->queue->fd);
}

/* The first read is too small for the group; a larger one gets it. */
TEST_F(uring, small_read_fails_alone)
{
	struct io_uring_cqe cqe = {};
	struct io_uring_sqe *sqe;
	int i, small = 0, large = 0;

	sqe = get_sqe(_metadata, &self->ring, READS);
	io_uring_prep_read(sqe, self->queue->fd, self->m[READS - 1], MSG, 0);
	ASSERT_EQ(0, submit(&self->ring));
	post_read(_metadata, self, 0, 0);
	expect_quiet(&self->ring);
	inject_from(_metadata, &self->env, self->dev, 1, 1, 3);
	for (i = 0; i < 2; i++) {
		/* the small one may also be the later one, and wait on */
		if (completion(&self->ring, i ? SHORT_MS : LONG_MS, &cqe) == -ETIME)
			break;
		if (cqe.user_data == READS)
			small = cqe.res;
		else
			large = cqe.res;
	}
	EXPECT_TRUE(!small || small == -EINVAL);
	EXPECT_EQ(3 * MSG, large);
}

TEST_F(uring, writes)
{
	static const struct {
		unsigned int first, n;
		int64_t offset;
		int want;
	} writes[] = {
		{ 0, 1, ANSWER, -ESPIPE }, { 2, 1, 0, -EINVAL }, { 0, 0, 0, 0 },
		{ 0, 4, 0, 2 * ANSWER }, { 0, 1, 0, -EINVAL }, { 3, 1, -1, ANSWER },
	};
	struct iommu_hwpt_page_response r[4];
	struct io_uring_cqe cqe;
	struct io_uring_sqe *sqe;
	int i;

	inject_from(_metadata, &self->env, self->dev, 1, 4, 1);
	take_many(_metadata, self->queue->fd, r, 4);
	r[2].cookie = 0;
	for (i = 0; i < 6; i++) {
		sqe = get_sqe(_metadata, &self->ring, 0);
		io_uring_prep_write(sqe, self->queue->fd, r + writes[i].first,
				    writes[i].n * ANSWER, writes[i].offset);
		sqe->flags |= i == 3 ? IOSQE_ASYNC : 0;
		ASSERT_EQ(0, submit(&self->ring));
		EXPECT_EQ(writes[i].want, completion(&self->ring, LONG_MS, &cqe));
	}
	expect_answers_of(_metadata, &self->env, self->dev, 3, 0);
}

/* Answer and next read in one: the read behind the write waits for the next fault. */
TEST_F(uring, write_then_read)
{
	struct iommu_hwpt_page_response r = { .code = SUCCESS };
	struct io_uring_cqe cqe;
	struct io_uring_sqe *sqe;
	unsigned int i;

	inject_from(_metadata, &self->env, self->dev, 0, 1, 1);
	r.cookie = take(_metadata, self->queue->fd).cookie;
	for (i = 1; i < 20; i++) {
		sqe = get_sqe(_metadata, &self->ring, 100);
		io_uring_prep_write(sqe, self->queue->fd, &r, ANSWER, 0);
		sqe->flags |= IOSQE_IO_LINK;
		sqe->user_data = 100;
		post_read(_metadata, self, 0, 0);
		ASSERT_EQ(ANSWER, completion(&self->ring, LONG_MS, &cqe));
		EXPECT_EQ(100, cqe.user_data);
		inject_from(_metadata, &self->env, self->dev, i, 1, 1);
		ASSERT_EQ(MSG, completion(&self->ring, LONG_MS, &cqe));
		EXPECT_EQ(i, self->m[0]->grpid);
		r.cookie = self->m[0]->cookie;
	}
	expect_answers_of(_metadata, &self->env, self->dev, 19, 0);
}

/* Provided buffers of whole messages, and reads that go on by themselves. */
struct buffers {
	struct io_uring_buf_ring *ring;
	struct iommu_hwpt_pgfault m[4][FEW];
};

static void buffers_add(struct buffers *b, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		io_uring_buf_ring_add(b->ring, b->m[i], sizeof(b->m[i]), i,
				      io_uring_buf_ring_mask(4), i);
	io_uring_buf_ring_advance(b->ring, n);
}

static void post_multishot(struct __test_metadata *_metadata, struct _test_data_uring *self,
			   struct buffers *b, unsigned int sqe_flags)
{
	struct io_uring_sqe *sqe = get_sqe(_metadata, &self->ring, 0);
	int rc;

	if (!b->ring) {
		b->ring = setup_buffers(&self->ring, 4, 1, &rc);
		ASSERT_NE(NULL, b->ring);
		buffers_add(b, 4);
	}
	prep_read_multishot(sqe, self->queue->fd, 1);
	sqe->flags |= sqe_flags;
	ASSERT_EQ(0, submit(&self->ring));
}

static void multishot(struct __test_metadata *_metadata, struct _test_data_uring *self,
		      unsigned int sqe_flags)
{
	struct io_uring_cqe cqe = {};
	struct buffers b = {};
	unsigned int i, id;

	post_multishot(_metadata, self, &b, sqe_flags);
	expect_quiet(&self->ring);
	for (i = 0; i < 4; i++) {
		inject_from(_metadata, &self->env, self->dev, 50 + i, 1, 1 + i);
		ASSERT_EQ((1 + i) * MSG, completion(&self->ring, LONG_MS, &cqe));
		ASSERT_TRUE(cqe.flags & IORING_CQE_F_BUFFER);
		EXPECT_TRUE(cqe.flags & IORING_CQE_F_MORE);
		id = cqe.flags >> IORING_CQE_BUFFER_SHIFT;
		ASSERT_GT(4, id);
		EXPECT_EQ(50 + i, b.m[id][i].grpid);
		EXPECT_EQ(IOMMU_PGFAULT_FLAGS_LAST_PAGE, b.m[id][i].flags);
		EXPECT_EQ(0, fault_answer(self->queue->fd, b.m[id][i].cookie, SUCCESS));
		if (i < 3)
			expect_quiet(&self->ring);
	}
	expect_answers_of(_metadata, &self->env, self->dev, 4, 0);
	/* no buffer any more: it ends, and the fault waits for the next read */
	inject_from(_metadata, &self->env, self->dev, 9, 1, 2);
	EXPECT_EQ(-ENOBUFS, completion(&self->ring, LONG_MS, &cqe));
	EXPECT_FALSE(cqe.flags & IORING_CQE_F_MORE);
	buffers_add(&b, 4);
	post_multishot(_metadata, self, &b, sqe_flags);
	ASSERT_EQ(2 * MSG, completion(&self->ring, LONG_MS, &cqe));
	EXPECT_TRUE(cqe.flags & IORING_CQE_F_MORE);
	free_buffers(&self->ring, b.ring, 4, 1);
}

TEST_F(uring, multishot)
{
	multishot(_metadata, self, 0);
}

TEST_F(uring, multishot_async)
{
	multishot(_metadata, self, IOSQE_ASYNC);
}

/* Several groups that wait already: as many completions as buffers are needed. */
TEST_F(uring, multishot_drains)
{
	struct io_uring_cqe cqe;
	struct buffers b = {};
	unsigned int i;

	inject_from(_metadata, &self->env, self->dev, 0, 2, 3);
	post_multishot(_metadata, self, &b, 0);
	inject_from(_metadata, &self->env, self->dev, 2, 1, 3);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(3 * MSG, completion(&self->ring, LONG_MS, &cqe));
		EXPECT_EQ(i, b.m[cqe.flags >> IORING_CQE_BUFFER_SHIFT]->grpid);
	}
	/* larger than a buffer: the multishot read ends with that */
	inject_from(_metadata, &self->env, self->dev, 3, 1, FEW + 1);
	EXPECT_EQ(-EINVAL, completion(&self->ring, LONG_MS, &cqe));
	EXPECT_FALSE(cqe.flags & IORING_CQE_F_MORE);
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(self->queue->fd, 0));
}

/* The client library's ring, with a device that faults in bursts. */
TEST_F(uring, library)
{
	struct iopf io = { .fd = self->env.fd };
	struct iopf_queue queue = { &io, self->queue->id, self->queue->fd };
	unsigned int round, answered, total = 0;
	struct iopf_group group;
	struct iopf_slot *slot;
	struct iopf_ring ring;
	struct iopf_iter iter;
	int rc;

	ASSERT_EQ(0, iopf_ring_init_mode(&ring, &queue, IOPF_READ, READS, 16));
	for (round = 0; round < 20; round++) {
		inject_from(_metadata, &self->env, self->dev, 0, 25, round % 4 + 1);
		for (answered = 0; answered < 25;) {
			rc = iopf_ring_next(&ring, LONG_MS, &slot);
			ASSERT_LT(0, rc);
			if (rc == IOPF_ANSWERED) {
				EXPECT_EQ(0, slot->n_refused);
				answered += slot->n_answers;
				continue;
			}
			iter = iopf_groups(slot->messages, slot->n_messages);
			while (iopf_next_group(&iter, &group) == 1)
				iopf_slot_answer(slot, group.cookie, SUCCESS);
			EXPECT_EQ(iter.end, iter.next);
			iopf_ring_reply(&ring, slot);
		}
		total += answered;
	}
	expect_answers_of(_metadata, &self->env, self->dev, total, 0);
	iopf_ring_exit(&ring);
}

TEST_HARNESS_MAIN
