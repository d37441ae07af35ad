// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who gets a fault of those that wait for it, and what they get when no fault
 * can come any more: first come, first served, whatever they wait by; one that
 * does not take what it was woken for holds up nobody; and a wait ends with the
 * iommufd.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "../../../iommu/lib/uring.h"
#include "iommufd_fault_env.h"

#define READS 4
#define RINGS 3
#define BUFFERS 8

/* ---- provided buffers, for reads that go on by themselves ---- */

struct multishot {
	struct io_uring ring;
	struct io_uring_buf_ring *buffers;
	struct iommu_hwpt_pgfault m[BUFFERS][ROOM];
};

static void multishot_start(struct __test_metadata *_metadata, struct multishot *shot, int queue)
{
	struct io_uring_sqe *sqe;
	int rc, i;

	ASSERT_EQ(0, ring_open(&shot->ring, 0));
	shot->buffers = setup_buffers(&shot->ring, BUFFERS, 1, &rc);
	ASSERT_NE(NULL, shot->buffers);
	for (i = 0; i < BUFFERS; i++)
		io_uring_buf_ring_add(shot->buffers, shot->m[i], sizeof(shot->m[i]), i,
				      io_uring_buf_ring_mask(BUFFERS), i);
	io_uring_buf_ring_advance(shot->buffers, BUFFERS);
	sqe = io_uring_get_sqe(&shot->ring);
	prep_read_multishot(sqe, queue, 1);
	ASSERT_EQ(0, submit(&shot->ring));
}

/* The id of the next group, and the read goes on; or an error */
static int multishot_next(struct multishot *shot, unsigned int ms)
{
	struct io_uring_cqe cqe;
	int rc = completion(&shot->ring, ms, &cqe), id;

	if (rc <= 0)
		return rc;
	if (rc != MSG || !(cqe.flags & IORING_CQE_F_MORE))
		return -EIO;
	id = cqe.flags >> IORING_CQE_BUFFER_SHIFT;
	rc = shot->m[id][0].grpid;
	io_uring_buf_ring_add(shot->buffers, shot->m[id], sizeof(shot->m[id]), id,
			      io_uring_buf_ring_mask(BUFFERS), 0);
	io_uring_buf_ring_advance(shot->buffers, 1);
	return rc;
}

/*
 * ---- first come, first served ----
 *
 * One that does not come within a millisecond after it was woken may lose its turn
 * to the next, and such a thing happens to any task. So each of these is repeated
 * until it goes in order once, which chance alone does not bring about.
 */

FIXTURE(order)
{
	struct fault_env env;
	struct io_uring ring;
	struct iommu_hwpt_pgfault m[READS];
};

typedef FIXTURE_DATA(order) order_t;

FIXTURE_VARIANT(order)
{
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(order, plain)
{
	.flags = 0,
};

FIXTURE_VARIANT_ADD(order, defer)
{
	.flags = DEFER,
};

FIXTURE_VARIANT_ADD(order, sqpoll)
{
	.flags = IORING_SETUP_SQPOLL,
};

FIXTURE_SETUP(order)
{
	fault_env_flags(_metadata, &self->env, IOMMU_FAULT_ALLOC_BLOCKING);
	if (!_metadata->exit_code)
		ASSERT_EQ(0, ring_open(&self->ring, variant->flags));
}

FIXTURE_TEARDOWN(order)
{
	io_uring_queue_exit(&self->ring);
	fault_env_close(_metadata, &self->env);
}

static void post(struct __test_metadata *_metadata, order_t *self, unsigned int i)
{
	prep_read(&self->ring, self->env.queue, &self->m[i], MSG, i);
	ASSERT_EQ(0, submit(&self->ring));
}

/* Those that were served wait again, behind the others. */
static bool posted_reads_in_order(struct __test_metadata *_metadata, order_t *self)
{
	unsigned int i, which;
	struct io_uring_cqe cqe;
	bool in_order = true;

	for (i = 0; i < READS; i++)
		post(_metadata, self, i);
	for (i = 0; i < 4 * READS; i++) {
		ASSERT_EQ(0, inject(&self->env, i, 1, 1));
		ASSERT_EQ(MSG, completion(&self->ring, LONG_MS, &cqe));
		which = cqe.user_data;
		EXPECT_EQ(i, self->m[which].grpid);
		in_order &= which == i % READS;
		/* the last ones are not posted again */
		if (i < 3 * READS)
			post(_metadata, self, which);
	}
	return in_order;
}

TEST_F(order, posted_reads)
{
	unsigned int round;

	for (round = 0; round < ROUNDS && !posted_reads_in_order(_metadata, self); round++)
		;
	expect_quiet(&self->ring);
	if (round == ROUNDS)
		SKIP(return, NEVER_IN_ORDER);
}

static bool burst_in_order(struct __test_metadata *_metadata, order_t *self)
{
	struct io_uring_cqe cqe;
	bool in_order = true;
	unsigned int i;

	for (i = 0; i < READS; i++)
		post(_metadata, self, i);
	ASSERT_EQ(0, inject(&self->env, 0, READS, 1));
	for (i = 0; i < READS; i++) {
		ASSERT_EQ(MSG, completion(&self->ring, LONG_MS, &cqe));
		EXPECT_EQ(i, self->m[cqe.user_data].grpid);
		in_order &= cqe.user_data == i;
	}
	return in_order;
}

TEST_F(order, burst)
{
	unsigned int round;

	for (round = 0; round < ROUNDS && !burst_in_order(_metadata, self); round++)
		;
	expect_quiet(&self->ring);
	if (round == ROUNDS)
		SKIP(return, NEVER_IN_ORDER);
}

/* Which of the rings gets the group @id, or RINGS */
static unsigned int next_ring(struct multishot *shots, int id)
{
	unsigned int ms, i;

	for (ms = 0; ms < LONG_MS; ms++) {
		for (i = 0; i < RINGS; i++) {
			if (multishot_next(&shots[i], 0) == id)
				return i;
		}
	}
	return RINGS;
}

/* A read that stays posted goes to the end of the queue each time. */
TEST_F(order, multishot_reads_take_turns)
{
	struct multishot *shots = calloc(RINGS, sizeof(*shots));
	unsigned int i, turn, which, seen = 0;

	ASSERT_NE(NULL, shots);
	for (i = 0; i < RINGS; i++)
		multishot_start(_metadata, &shots[i], self->env.queue);
	for (i = 0, turn = 0; i < ROUNDS * 4 * RINGS && turn < 4 * RINGS; i++) {
		ASSERT_EQ(0, inject(&self->env, 1 + i, 1, 1));
		which = next_ring(shots, 1 + i);
		ASSERT_GT(RINGS, which);
		if (turn % RINGS == 0)
			seen = 0;
		turn = seen & 1 << which ? 0 : turn + 1;
		seen = turn ? seen | 1 << which : 0;
	}
	EXPECT_EQ(4 * RINGS, turn);
	for (i = 0; i < RINGS; i++) {
		EXPECT_EQ(-ETIME, multishot_next(&shots[i], SHORT_MS));
		io_uring_queue_exit(&shots[i].ring);
	}
	free(shots);
}

enum { SHOT, POST, READER, SERVER, KINDS };

/* Which of the kinds has the group @id, or KINDS */
static unsigned int next_kind(order_t *self, struct multishot *shot, struct waiter *w,
			      unsigned int *done, int id)
{
	struct io_uring_cqe cqe;
	unsigned int ms, i;

	for (ms = 0; ms < LONG_MS; ms++) {
		if (multishot_next(shot, 0) == id)
			return SHOT;
		if (completion(&self->ring, 0, &cqe) == MSG)
			return (int)self->m[0].grpid == id ? POST : KINDS;
		i = next_waiter_in(w, 2, *done, 1);
		if (i < 2) {
			*done |= 1 << i;
			pthread_join(w[i].thread, NULL);
			return w[i].rc == 1 && (int)w[i].m[0].grpid == id ? READER + i : KINDS;
		}
	}
	return KINDS;
}

/* None of them is answered: the device has no credits for many more. */
#define MIXED_FAULTS 60

/*
 * Of each kind one, and each in its turn; the multishot read has stayed. On a busy machine
 * that one may have all: the ring's own task is always too late. @faults: so far
 */
static bool mixed_in_order(struct __test_metadata *_metadata, order_t *self,
			   struct multishot *shot, unsigned int *faults)
{
	struct waiter w[2] = {
		{ .by = WAIT_READ, .fd = self->env.queue, .room = 1 },
		{ .by = WAIT_SERVE, .fd = self->env.queue, .room = 1, .timeout_ns = FOREVER },
	};
	unsigned int i, which, done = 0, seen = 0;
	bool in_order = true;

	if (*faults >= MIXED_FAULTS)
		return false;
	post(_metadata, self, 0);
	waiter_start(_metadata, &w[0]);
	waiter_start(_metadata, &w[1]);
	for (i = 0; seen != (1 << KINDS) - 1; i++) {
		ASSERT_EQ(0, inject(&self->env, 1 + i % 500, 1, 1));
		which = next_kind(self, shot, w, &done, 1 + i % 500);
		ASSERT_GT(KINDS, which);
		in_order &= which == i;
		seen |= 1 << which;
		if (++*faults >= MIXED_FAULTS && done == 3)
			return false;
	}
	return in_order;
}

TEST_F(order, mixed)
{
	struct multishot *shot = calloc(1, sizeof(*shot));
	unsigned int round, faults = 0;

	ASSERT_NE(NULL, shot);
	multishot_start(_metadata, shot, self->env.queue);
	for (round = 0; round < ROUNDS && !mixed_in_order(_metadata, self, shot, &faults);
	     round++)
		;
	io_uring_queue_exit(&shot->ring);
	free(shot);
	if (round == ROUNDS)
		SKIP(return, NEVER_IN_ORDER);
}

/* ---- those who were woken and do not come ---- */

/*
 * The ring's task does not come to run the read that was woken: another waiter
 * has the group, and the read stays posted.
 */
static void task_does_not_come(struct __test_metadata *_metadata, order_t *self,
			       enum wait_by by)
{
	struct waiter w = {
		.by = by, .fd = self->env.queue, .room = 1, .timeout_ns = FOREVER,
	};
	unsigned int i;

	post(_metadata, self, 0);
	for (i = 0; i < 3; i++) {
		waiter_start(_metadata, &w);
		ASSERT_EQ(0, inject(&self->env, i, 1, 1));
		ASSERT_EQ(1, waiter_result(&w, LONG_MS));
		EXPECT_EQ(i, w.m[0].grpid);
	}
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(&self->env, 9, 1, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(9, self->m[0].grpid);
}

TEST_F(order, read_behind_a_task_that_does_not_come)
{
	if (variant->flags != DEFER)
		SKIP(return, "no time before task work runs");
	task_does_not_come(_metadata, self, WAIT_READ);
}

TEST_F(order, serve_behind_a_task_that_does_not_come)
{
	if (variant->flags != DEFER)
		SKIP(return, "no time before task work runs");
	task_does_not_come(_metadata, self, WAIT_SERVE);
}

TEST_F(order, multishot_behind_a_task_that_does_not_come)
{
	struct multishot *shot = calloc(1, sizeof(*shot));
	unsigned int i;

	if (variant->flags != DEFER)
		SKIP(return, "no time before task work runs");
	for (i = 0; i < READS; i++)
		post(_metadata, self, i);
	multishot_start(_metadata, shot, self->env.queue);
	for (i = 0; i < BUFFERS; i++) {
		ASSERT_EQ(0, inject(&self->env, i, 1, 1));
		EXPECT_EQ(i, multishot_next(shot, LONG_MS));
	}
	expect_quiet(&self->ring);
	io_uring_queue_exit(&shot->ring);
	free(shot);
}

static int cancel(struct io_uring *ring, uint64_t user_data)
{
	struct io_uring_sync_cancel_reg reg = {
		.addr = user_data, .fd = -1, .timeout = { -1, -1 },
	};

	return io_uring_register_sync_cancel(ring, &reg);
}

/* It is cancelled between its wake-up and its attempt: the next has the group. */
TEST_F(order, cancelled_after_the_wake)
{
	struct waiter w = {
		.by = WAIT_SERVE, .fd = self->env.queue, .room = 1, .timeout_ns = FOREVER,
	};
	struct io_uring_sqe *sqe;
	struct io_uring_cqe cqe;
	unsigned int i, ended;

	if (variant->flags != DEFER)
		SKIP(return, "no time before task work runs");
	for (i = 0; i < 5; i++) {
		post(_metadata, self, 0);
		waiter_start(_metadata, &w);
		sqe = io_uring_get_sqe(&self->ring);
		io_uring_prep_cancel64(sqe, 0, 0);
		io_uring_sqe_set_data64(sqe, 1);
		ASSERT_EQ(0, inject(&self->env, i, 1, 1));
		ASSERT_EQ(0, submit(&self->ring));
		ASSERT_EQ(1, waiter_result(&w, LONG_MS));
		EXPECT_EQ(i, w.m[0].grpid);
		for (ended = 0; ended < 2; ended++) {
			ASSERT_NE(-ETIME, completion(&self->ring, LONG_MS, &cqe));
			EXPECT_EQ(cqe.user_data ? 0 : -ECANCELED, cqe.res);
		}
	}
}

/* Cancelled at any moment, while groups come: each is had by one, or still there. */
TEST_F(order, cancel_race)
{
	struct waiter w = {
		.by = WAIT_SERVE, .fd = self->env.queue, .room = 1, .timeout_ns = FOREVER,
	};
	unsigned int i;
	struct io_uring_cqe cqe;
	int rc, status;
	pid_t pid;

	for (i = 0; i < 50; i++) {
		post(_metadata, self, 0);
		waiter_start(_metadata, &w);
		pid = fork();
		if (!pid)
			_exit(inject(&self->env, i, 1, 1));
		usleep(i * 37 % 400);
		rc = cancel(&self->ring, 0);
		EXPECT_TRUE(rc == 0 || rc == -ENOENT);
		rc = completion(&self->ring, LONG_MS, &cqe);
		EXPECT_TRUE(rc == MSG || rc == -ECANCELED);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(0, status);
		/* nobody else is there to have it */
		if (rc == MSG)
			ASSERT_EQ(0, inject(&self->env, i, 1, 1));
		ASSERT_EQ(1, waiter_result(&w, LONG_MS));
		EXPECT_EQ(i, w.m[0].grpid);
	}
	expect_quiet(&self->ring);
}

/* A ring goes with its reads, of which one was woken. */
TEST_F(order, ring_goes_after_the_wake)
{
	struct waiter w = {
		.by = WAIT_READ, .fd = self->env.queue, .room = 1,
	};
	unsigned int i;

	if (variant->flags != DEFER)
		SKIP(return, "no time before task work runs");
	for (i = 0; i < READS; i++)
		post(_metadata, self, i);
	waiter_start(_metadata, &w);
	ASSERT_EQ(0, inject(&self->env, 7, 1, 1));
	io_uring_queue_exit(&self->ring);
	EXPECT_EQ(1, waiter_result(&w, LONG_MS));
	EXPECT_EQ(7, w.m[0].grpid);
	ASSERT_EQ(0, ring_open(&self->ring, variant->flags));
}

/* A child that waits in a read or a ring; it says with a byte that it is about to. */
static pid_t start_child(struct __test_metadata *_metadata, order_t *self,
			 unsigned int flags, bool ring)
{
	struct iommu_hwpt_pgfault m;
	struct io_uring own;
	pid_t pid = fork();
	unsigned int i;

	if (!pid && !ring)
		_exit(fault_read(self->env.queue, &m, 1) != 1);
	if (!pid) {
		if (ring_open(&own, flags))
			_exit(1);
		for (i = 0; i < READS; i++)
			prep_read(&own, self->env.queue, &self->m[i], MSG, i);
		if (submit(&own))
			_exit(1);
		pause();
	}
	EXPECT_TRUE(task_falls_asleep(pid));
	return pid;
}

/* Who is stopped does not wait: it comes back behind the others. */
TEST_F(order, stopped_reader)
{
	struct waiter w = { .by = WAIT_READ, .fd = self->env.queue, .room = 1 };
	pid_t pid = start_child(_metadata, self, 0, false);
	unsigned int i;
	int status;

	ASSERT_EQ(0, kill(pid, SIGSTOP));
	ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
	for (i = 0; i < 3; i++) {
		waiter_start(_metadata, &w);
		ASSERT_EQ(0, inject(&self->env, i, 1, 1));
		ASSERT_EQ(1, waiter_result(&w, LONG_MS));
		EXPECT_EQ(i, w.m[0].grpid);
	}
	ASSERT_EQ(0, kill(pid, SIGCONT));
	usleep(SHORT_MS * 1000);
	ASSERT_EQ(0, inject(&self->env, 9, 1, 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/* A process ends, or is stopped, with reads posted ahead of everybody else. */
TEST_F(order, processes_with_posted_reads)
{
	struct waiter w = {
		.by = WAIT_SERVE, .fd = self->env.queue, .room = 1, .timeout_ns = FOREVER,
	};
	pid_t pids[2];
	int i, status;

	for (i = 0; i < 2; i++)
		pids[i] = start_child(_metadata, self, variant->flags, true);
	waiter_start(_metadata, &w);
	ASSERT_EQ(0, kill(pids[0], SIGSTOP));
	ASSERT_EQ(pids[0], waitpid(pids[0], &status, WUNTRACED));
	ASSERT_EQ(0, kill(pids[1], SIGKILL));
	ASSERT_EQ(pids[1], waitpid(pids[1], &status, 0));
	/* a stopped task's reads are its own thread's, where that submits */
	if (variant->flags == IORING_SETUP_SQPOLL) {
		ASSERT_EQ(0, kill(pids[0], SIGKILL));
		ASSERT_EQ(pids[0], waitpid(pids[0], &status, 0));
	}
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, inject(&self->env, i, 1, 1));
		ASSERT_EQ(1, waiter_result(&w, LONG_MS));
		EXPECT_EQ(i, w.m[0].grpid);
		waiter_start(_metadata, &w);
	}
	if (variant->flags != IORING_SETUP_SQPOLL) {
		ASSERT_EQ(0, kill(pids[0], SIGKILL));
		ASSERT_EQ(pids[0], waitpid(pids[0], &status, 0));
	}
	ASSERT_EQ(0, inject(&self->env, 9, 1, 1));
	ASSERT_EQ(1, waiter_result(&w, LONG_MS));
	EXPECT_EQ(9, w.m[0].grpid);
}

/* Thirty thousand wait: each fault ends one, with the fault in it. */
TEST_F_TIMEOUT(order, very_many, 200)
{
	enum { ALL = 10000, FAULTS = 1000 };
	struct iommu_hwpt_pgfault *m = calloc(ALL, MSG);
	unsigned int i, which;
	struct io_uring_cqe cqe;

	ASSERT_NE(NULL, m);
	for (i = 0; i < ALL; i++) {
		prep_read(&self->ring, self->env.queue, &m[i], MSG, i);
		if (i % 64 == 63)
			ASSERT_EQ(0, submit(&self->ring));
	}
	ASSERT_EQ(0, submit(&self->ring));
	for (i = 0; i < FAULTS; i++) {
		ASSERT_EQ(0, inject(&self->env, i % 512, 1, 1));
		ASSERT_EQ(MSG, completion(&self->ring, LONG_MS, &cqe));
		which = cqe.user_data;
		ASSERT_EQ(i % 512, m[which].grpid);
		ASSERT_EQ(0, fault_answer(self->env.queue, m[which].cookie, SUCCESS));
	}
	expect_answers(_metadata, &self->env, FAULTS, 0);
	io_uring_queue_exit(&self->ring);
	ASSERT_EQ(0, ring_open(&self->ring, 0));
	free(m);
}

TEST_HARNESS_MAIN
