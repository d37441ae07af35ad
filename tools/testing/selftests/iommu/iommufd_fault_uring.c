// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of reads and writes of iommufd's fault queue through io_uring, posted and
 * multishot, and of its blocking reads, with the page requests of a mock device.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "../../../iommu/lib/uring.h"
#include "iommufd_fault_reads.h"

/* ---- posted reads ---- */

TEST_F(reads, one_group)
{
	struct iommu_hwpt_pgfault *m = self->m[0];
	struct iommu_hwpt_page_response r = {};
	unsigned int i;

	ASSERT_EQ(0, post(self, 0, ROOM));
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(&self->env, 7, 1, 3));
	ASSERT_EQ(3 * MSG, result(&self->ring, 0));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(7, m[i].grpid);
		EXPECT_EQ(ADDR + i * PAGE, m[i].addr);
		EXPECT_EQ(self->env.dev.idev_id, m[i].dev_id);
		EXPECT_EQ(m[0].cookie, m[i].cookie);
		EXPECT_EQ(i == 2 ? IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0, m[i].flags);
	}
	EXPECT_EQ(0, m[3].cookie);
	r.cookie = m[0].cookie;
	prep_answers(&self->ring, self->env.queue, &r, 1, 5);
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(ANSWER, result(&self->ring, 5));
	expect_answers(_metadata, &self->env, 1, 0);
}

/* What is queued already comes at once, as many whole groups as fit. */
TEST_F(reads, several_groups)
{
	ASSERT_EQ(0, inject(&self->env, 1, 5, 2));
	ASSERT_EQ(0, post(self, 0, 5));
	EXPECT_EQ(4 * MSG, result(&self->ring, 0));
	EXPECT_EQ(2, self->m[0][3].grpid);
	EXPECT_EQ(0, self->m[0][4].cookie);
	ASSERT_EQ(0, post(self, 1, ROOM));
	EXPECT_EQ(6 * MSG, result(&self->ring, 1));
	EXPECT_EQ(3, self->m[1][0].grpid);
	EXPECT_EQ(5, self->m[1][5].grpid);
	ASSERT_EQ(0, post(self, 2, ROOM));
	expect_quiet(&self->ring);
}

/* A group that does not fit is left to the next that waits. */
TEST_F(reads, too_large)
{
	struct io_uring_cqe cqe;
	unsigned int i;
	int rc;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, post(self, i, i + 1));
	ASSERT_EQ(0, inject(&self->env, 1, 1, 3));
	do {
		rc = completion(&self->ring, LONG_MS, &cqe);
		EXPECT_EQ(cqe.user_data == 2 ? 3 * MSG : -EINVAL, rc);
	} while (rc == -EINVAL);

	/* one that is there already; those above that were not told may be now */
	ASSERT_EQ(0, inject(&self->env, 2, 1, 3));
	ASSERT_EQ(0, post(self, 3, 2));
	do {
		EXPECT_EQ(-EINVAL, completion(&self->ring, LONG_MS, &cqe));
	} while (cqe.user_data != 3);
	ASSERT_EQ(0, post(self, 4, 3));
	do {
		rc = completion(&self->ring, LONG_MS, &cqe);
		EXPECT_EQ(cqe.user_data == 4 ? 3 * MSG : -EINVAL, rc);
	} while (rc == -EINVAL);
}

/* A child injects groups, @n at a time, while its parent waits. */
static pid_t inject_later(reads_t *self, unsigned int times, unsigned int n)
{
	pid_t pid = fork();
	unsigned int i;

	if (pid)
		return pid;
	for (i = 0; i < times; i++) {
		usleep(20000);
		if (inject(&self->env, i * n, n, 1))
			_exit(1);
	}
	_exit(0);
}

/* Who waits for eight completions is not left asleep with less under way. */
TEST_F(reads, wait_for_eight)
{
	struct __kernel_timespec ts = { .tv_sec = LONG_MS / 1000 };
	unsigned int i, round, seen;
	struct io_uring_cqe *cqe, copy;
	int status;
	pid_t pid;

	for (round = 0; round < 2; round++) {
		for (i = 0; i < 8; i++)
			prep_read(&self->ring, self->env.queue, self->m[i], MSG, i);
		ASSERT_EQ(0, submit(&self->ring));
		pid = round ? inject_later(self, 8, 1) : inject_later(self, 1, 8);
		ASSERT_LE(0, io_uring_wait_cqes(&self->ring, &cqe, 8, &ts, NULL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(0, status);
		for (i = 0, seen = 0; i < 8; i++) {
			EXPECT_EQ(MSG, completion(&self->ring, 0, &copy));
			seen |= 1 << self->m[copy.user_data][0].grpid;
		}
		EXPECT_EQ(0xff, seen);
	}
}

/* Two reads of one group each end, with the groups @id and @id + 1. */
static void expect_two(struct __test_metadata *_metadata, reads_t *self, uint32_t id)
{
	unsigned int i, seen = 0;
	struct io_uring_cqe cqe;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(MSG, completion(&self->ring, LONG_MS, &cqe));
		seen |= 1 << (self->m[cqe.user_data][0].grpid - id);
	}
	EXPECT_EQ(3, seen);
}

/* A read(2) is faster than a read that was woken: that stays posted. */
TEST_F(reads, read_steals)
{
	if (!(variant->flags & IORING_SETUP_DEFER_TASKRUN))
		SKIP(return, "no time for that before task work runs");
	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, post(self, 1, 1));
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	EXPECT_EQ(1, take(_metadata, self->env.queue).grpid);
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(&self->env, 2, 1, 1));
	EXPECT_EQ(2, take(_metadata, self->env.queue).grpid);
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(&self->env, 3, 2, 1));
	expect_two(_metadata, self, 3);
}

/* The same, with detaching in the place of the read. */
TEST_F(reads, detach_steals)
{
	struct fault_env *env = &self->env;

	if (!(variant->flags & IORING_SETUP_DEFER_TASKRUN))
		SKIP(return, "no time for that before task work runs");
	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, inject(env, 1, 3, 1));
	ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->plain_id));
	expect_answers(_metadata, env, 3, 0);
	expect_quiet(&self->ring);
	ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->hwpt_id));
	ASSERT_EQ(0, inject(env, 2, 1, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(2, self->m[0][0].grpid);
}

/* There are no commands of its own. */
TEST_F(reads, uring_cmd)
{
	static const uint32_t ops[] = {
		0, IOMMU_FAULT_SERVE, IOMMU_FAULT_QUEUE_ALLOC, _IO(IOMMUFD_TYPE, 0xc0), UINT32_MAX,
	};
	struct io_uring_sqe *sqe;
	unsigned int i;

	for (i = 0; i < 5; i++) {
		sqe = prep_read(&self->ring, self->env.queue, self->m[0], MSG, i);
		sqe->opcode = IORING_OP_URING_CMD;
		sqe->cmd_op = ops[i];
		ASSERT_EQ(0, submit(&self->ring));
		EXPECT_EQ(-EOPNOTSUPP, result(&self->ring, i));
	}
}

/* A ring that polls for completions is for files that can be asked for them. */
TEST_F(reads, polled_ring)
{
	struct io_uring ring;

	if (variant->flags & IORING_SETUP_SQPOLL)
		SKIP(return, "its thread would poll");
	ASSERT_EQ(0, ring_open(&ring, variant->flags | IORING_SETUP_IOPOLL));
	prep_read(&ring, self->env.queue, self->m[0], MSG, 1);
	ASSERT_EQ(0, submit(&ring));
	EXPECT_EQ(-EOPNOTSUPP, result(&ring, 1));
	io_uring_queue_exit(&ring);
}

/* Bad memory costs a read its turn, but no group. */
TEST_F(reads, unmapped)
{
	char *end = fence(_metadata, PAGE);
	struct io_uring *ring = &self->ring;
	struct io_uring_cqe cqe;
	unsigned int ended = 0;
	int rc;

	prep_read(ring, self->env.queue, end, MSG, 0);
	prep_read(ring, self->env.queue, end - 3 * 8, MSG, 1);
	prep_read(ring, self->env.queue, NULL, MSG, 2);
	ASSERT_EQ(0, submit(ring));
	ASSERT_EQ(0, post(self, 3, 1));
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	do {
		rc = completion(ring, LONG_MS, &cqe);
		EXPECT_EQ(cqe.user_data == 3 ? MSG : -EFAULT, rc);
		ended++;
	} while (rc == -EFAULT);
	EXPECT_EQ(1, self->m[3][0].grpid);
	/* those that were not woken for it are woken for the next */
	for (; ended < 4; ended++) {
		ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
		EXPECT_EQ(-EFAULT, completion(ring, LONG_MS, &cqe));
		take(_metadata, self->env.queue);
	}

	/* whole groups that can be copied are; the others come next, in order */
	ASSERT_EQ(0, inject(&self->env, 2, 3, 2));
	prep_read(ring, self->env.queue, end - 8, 6 * MSG, 4);
	ASSERT_EQ(0, submit(ring));
	EXPECT_EQ(-EFAULT, result(ring, 4));
	prep_read(ring, self->env.queue, end - 3 * MSG, 6 * MSG, 5);
	ASSERT_EQ(0, submit(ring));
	EXPECT_EQ(2 * MSG, result(ring, 5));
	ASSERT_EQ(0, post(self, 6, 4));
	EXPECT_EQ(4 * MSG, result(ring, 6));
	EXPECT_EQ(3, self->m[6][0].grpid);
	EXPECT_EQ(4, self->m[6][3].grpid);
}

/* From a worker of io_uring, which may come before or after the fault. */
TEST_F(reads, async)
{
	struct iommu_hwpt_page_response r = {};
	struct io_uring_sqe *sqe;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		if (i) {
			sqe = prep_answers(&self->ring, self->env.queue, &r, 1, 100);
			sqe->flags |= IOSQE_ASYNC | IOSQE_IO_LINK;
		}
		sqe = prep_read(&self->ring, self->env.queue, self->m[0], MSG, i);
		sqe->flags |= IOSQE_ASYNC;
		ASSERT_EQ(0, submit(&self->ring));
		if (i % 3)
			usleep(5000);
		ASSERT_EQ(0, inject(&self->env, i, 1, 1));
		if (i)
			ASSERT_EQ(ANSWER, result(&self->ring, 100));
		ASSERT_EQ(MSG, result(&self->ring, i));
		EXPECT_EQ(i, self->m[0][0].grpid);
		r.cookie = self->m[0][0].cookie;
	}
	expect_answers(_metadata, &self->env, 19, 0);
}

TEST_F(reads, linked)
{
	struct iommu_hwpt_page_response r = {};
	struct io_uring_sqe *sqe;

	sqe = prep_read(&self->ring, self->env.queue, self->m[0], MSG, 0);
	sqe->flags |= IOSQE_IO_LINK;
	io_uring_prep_nop(sqe = io_uring_get_sqe(&self->ring));
	io_uring_sqe_set_data64(sqe, 1);
	ASSERT_EQ(0, submit(&self->ring));
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(0, result(&self->ring, 1));

	/* the answer first, then what comes next */
	r.cookie = self->m[0][0].cookie;
	sqe = prep_answers(&self->ring, self->env.queue, &r, 1, 2);
	sqe->flags |= IOSQE_IO_LINK;
	ASSERT_EQ(0, inject(&self->env, 2, 1, 1));
	ASSERT_EQ(0, post(self, 3, 1));
	EXPECT_EQ(ANSWER, result(&self->ring, 2));
	EXPECT_EQ(MSG, result(&self->ring, 3));

	/* one that fails breaks the chain */
	sqe = prep_answers(&self->ring, self->env.queue, &r, 1, 4);
	sqe->flags |= IOSQE_IO_LINK;
	ASSERT_EQ(0, post(self, 5, 1));
	EXPECT_EQ(-EINVAL, result(&self->ring, 4));
	EXPECT_EQ(-ECANCELED, result(&self->ring, 5));
	expect_answers(_metadata, &self->env, 1, 0);
}

/* A linked time-out ends a read that waits, and only one that waits. */
TEST_F(reads, linked_timeout)
{
	static const int want[2][2] = { { -ECANCELED, -ETIME }, { MSG, -ECANCELED } };
	struct __kernel_timespec times[] = { { .tv_nsec = 1000000 }, { .tv_sec = 1000 } };
	struct io_uring_sqe *sqe;
	struct io_uring_cqe cqe;
	unsigned int i, n;

	for (i = 0; i < 2; i++) {
		sqe = prep_read(&self->ring, self->env.queue, self->m[0], MSG, 0);
		sqe->flags |= IOSQE_IO_LINK;
		sqe = io_uring_get_sqe(&self->ring);
		io_uring_prep_link_timeout(sqe, &times[i], 0);
		io_uring_sqe_set_data64(sqe, 1);
		ASSERT_EQ(0, submit(&self->ring));
		if (i)
			ASSERT_EQ(0, inject(&self->env, 3, 1, 1));
		for (n = 0; n < 2; n++) {
			cqe.user_data = 2;
			completion(&self->ring, LONG_MS, &cqe);
			ASSERT_GT(2, cqe.user_data);
			EXPECT_EQ(want[i][cqe.user_data], cqe.res);
		}
	}
	EXPECT_EQ(3, self->m[0][0].grpid);
}

/* ---- several that wait ---- */

/* Two rings with four reads each: each group completes one of them. */
TEST_F(reads, two_rings)
{
	struct io_uring other, *ring[2] = { &self->ring, &other };
	unsigned int i, seen = 0, ended = 0, ms;
	struct io_uring_cqe cqe;

	ASSERT_EQ(0, ring_open(&other, variant->flags));
	for (i = 0; i < 8; i++) {
		prep_read(ring[i % 2], self->env.queue, self->m[i], MSG, i);
		ASSERT_EQ(0, submit(ring[i % 2]));
	}
	ASSERT_EQ(0, inject(&self->env, 0, 4, 1));
	for (ms = 0; ended < 8 && ms < LONG_MS; ms++) {
		if (completion(ring[ms % 2], 1, &cqe) != MSG)
			continue;
		seen |= 1 << self->m[cqe.user_data][0].grpid;
		if (++ended == 4) {
			expect_quiet(ring[0]);
			expect_quiet(ring[1]);
			ASSERT_EQ(0, inject(&self->env, 4, 4, 1));
		}
	}
	EXPECT_EQ(8, ended);
	EXPECT_EQ(0xff, seen);
	io_uring_queue_exit(&other);
}

/* Each kind of waiter hears of it: those who read, and who only look. */
TEST_F(reads, mixed)
{
	struct io_uring_sqe *sqe;
	struct io_uring_cqe cqe;
	struct io_uring other;
	unsigned int i, seen;

	ASSERT_EQ(0, ring_open(&other, DEFER));
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, post(self, 0, 1));
		sqe = io_uring_get_sqe(&other);
		io_uring_prep_poll_add(sqe, self->env.queue, POLLIN);
		io_uring_sqe_set_data64(sqe, 1);
		prep_read(&other, self->env.queue, self->m[2], MSG, 2);
		ASSERT_EQ(0, submit(&other));
		ASSERT_EQ(0, inject(&self->env, 1, 3, 1));
		EXPECT_EQ(MSG, result(&self->ring, 0));
		for (seen = 0; seen != 3; seen |= 1 << (cqe.user_data - 1)) {
			ASSERT_LT(0, completion(&other, LONG_MS, &cqe));
			EXPECT_EQ(cqe.user_data == 1 ? POLLIN : MSG, cqe.res);
		}
		take(_metadata, self->env.queue);
		EXPECT_EQ(POLLOUT, fault_poll(self->env.queue, 0));
	}
	io_uring_queue_exit(&other);
}

struct worker {
	pthread_t thread;
	int queue;
	unsigned int flags;
	volatile bool *stop;
	/* groups answered, or -errno */
	volatile long groups;
};

enum { UNDER_WAY = 8, WRITE = 1 << 8 };

/* The completion of a read: a write of its answers, and behind it the read again */
static int serve_slot(struct io_uring *ring, struct worker *w, struct iommu_hwpt_pgfault *m,
		      struct iommu_hwpt_page_response *r, const struct io_uring_cqe *cqe)
{
	int n = cqe->res / MSG, i;

	if (cqe->user_data & WRITE) {
		w->groups += cqe->res > 0 ? cqe->res / ANSWER : 0;
		return cqe->res < 0 ? cqe->res : 0;
	}
	if (cqe->res <= 0)
		return cqe->res ?: -EIO;
	for (i = 0; i < n; i++)
		r[i] = (struct iommu_hwpt_page_response){ m[i].cookie, SUCCESS };
	prep_answers(ring, w->queue, r, n, WRITE)->flags |= IOSQE_IO_LINK;
	prep_read(ring, w->queue, m, 4 * MSG, cqe->user_data);
	return 0;
}

/* Write and read all the time, with eight reads under way */
static void *serve(void *arg)
{
	struct __kernel_timespec ts = { .tv_nsec = 2000000 };
	struct iommu_hwpt_page_response r[UNDER_WAY][4];
	struct iommu_hwpt_pgfault m[UNDER_WAY][4];
	struct worker *w = arg;
	struct io_uring_cqe *cqe, copy;
	struct io_uring ring;
	unsigned int i;
	int rc;

	rc = ring_open(&ring, w->flags);
	if (!rc) {
		for (i = 0; i < UNDER_WAY; i++)
			prep_read(&ring, w->queue, m[i], sizeof(m[i]), i);
	}
	while (!rc && !*w->stop) {
		rc = io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &ts, NULL);
		rc = rc < 0 && rc != -ETIME && rc != -EINTR ? rc : 0;
		while (!rc && !io_uring_peek_cqe(&ring, &cqe)) {
			memcpy(&copy, cqe, sizeof(copy));
			io_uring_cqe_seen(&ring, cqe);
			i = copy.user_data % UNDER_WAY;
			rc = serve_slot(&ring, w, m[i], r[i], &copy);
		}
	}
	if (rc)
		w->groups = rc;
	io_uring_queue_exit(&ring);
	return NULL;
}

/* Wait until less than @most groups of the device are without an answer. */
static int wait_outstanding(reads_t *self, unsigned int most)
{
	struct iommu_test_iopf_stats s;
	int rc, i;

	for (i = 0; i < LONG_MS * 5; i++) {
		rc = iopf_stats(self->env.fd, self->env.dev.idev_id, &s);
		if (rc || s.outstanding < most)
			return rc;
		usleep(200);
	}
	return -ETIMEDOUT;
}

/* Threads with rings of their own, and a reader between them. */
TEST_F_TIMEOUT(reads, stress, 120)
{
	enum { GROUPS = 4000, MOST = 500 };
	struct worker w[3] = {};
	struct iommu_hwpt_pgfault m;
	volatile bool stop = false;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		w[i] = (struct worker){
			.queue = self->env.queue, .stop = &stop,
			.flags = i ? variant->flags : 0,
		};
		ASSERT_EQ(0, pthread_create(&w[i].thread, NULL, serve, &w[i]));
	}
	for (i = 0; i < GROUPS; i += 8) {
		ASSERT_EQ(0, inject(&self->env, i % MOST, 8, 1));
		if (i % 64 == 0 && fault_read(self->env.queue, &m, 1) == 1)
			EXPECT_EQ(0, fault_answer(self->env.queue, m.cookie, SUCCESS));
		ASSERT_EQ(0, wait_outstanding(self, MOST));
	}
	ASSERT_EQ(0, wait_outstanding(self, 1));
	stop = true;
	for (i = 0; i < 3; i++) {
		pthread_join(w[i].thread, NULL);
		EXPECT_LE(0, w[i].groups);
	}
	expect_answers(_metadata, &self->env, GROUPS, 0);
}

/* ---- multishot reads ---- */

static int put_buffers(reads_t *self, struct io_uring_buf_ring *buffers,
		       unsigned int n)
{
	struct io_uring_sqe *sqe;
	unsigned int i;

	for (i = 0; i < n; i++)
		io_uring_buf_ring_add(buffers, self->m[i], sizeof(self->m[i]), i,
				      io_uring_buf_ring_mask(SLOTS), i);
	io_uring_buf_ring_advance(buffers, n);
	sqe = io_uring_get_sqe(&self->ring);
	prep_read_multishot(sqe, self->env.queue, 1);
	io_uring_sqe_set_data64(sqe, 77);
	return submit(&self->ring);
}

/* Buffers run out again and again: that ends the read, and loses no group. */
TEST_F(reads, multishot_runs_out)
{
	unsigned int n = 0, ended = 0, i, buffer;
	struct io_uring_buf_ring *buffers;
	struct io_uring_cqe cqe;
	int rc;

	buffers = setup_buffers(&self->ring, SLOTS, 1, &rc);
	ASSERT_NE(NULL, buffers);
	ASSERT_EQ(0, inject(&self->env, 0, 200, 2));
	ASSERT_EQ(0, put_buffers(self, buffers, 4));
	while (n < 200) {
		rc = completion(&self->ring, LONG_MS, &cqe);
		ASSERT_NE(-ETIME, rc);
		buffer = cqe.flags >> IORING_CQE_BUFFER_SHIFT;
		ASSERT_EQ(77, cqe.user_data);
		if (rc == -ENOBUFS) {
			ASSERT_EQ(0, cqe.flags & IORING_CQE_F_MORE);
			ASSERT_EQ(0, put_buffers(self, buffers, 4));
			ended++;
			continue;
		}
		ASSERT_EQ(ROOM * MSG, rc);
		for (i = 0; i < ROOM; i += 2, n++) {
			ASSERT_EQ(n, self->m[buffer][i].grpid);
			EXPECT_EQ(0, fault_answer(self->env.queue, self->m[buffer][i].cookie,
						  SUCCESS));
		}
	}
	EXPECT_LE(11, ended);
	expect_answers(_metadata, &self->env, 200, 0);
}

/* ---- read(2) of a queue that was allocated to block ---- */

FIXTURE(blocking)
{
	struct fault_env env;
};

typedef FIXTURE_DATA(blocking) blocking_t;

FIXTURE_SETUP(blocking)
{
	fault_env_flags(_metadata, &self->env, IOMMU_FAULT_ALLOC_BLOCKING);
}

FIXTURE_TEARDOWN(blocking)
{
	fault_env_close(_metadata, &self->env);
}

/* A child that reads one message and answers it; its status is the read's errno. */
static pid_t start_reader(blocking_t *self)
{
	struct iommu_hwpt_pgfault m;
	pid_t pid = fork();
	int rc;

	if (pid)
		return pid;
	rc = fault_read(self->env.queue, &m, 1);
	if (rc == 1)
		rc = 1 + fault_answer(self->env.queue, m.cookie, SUCCESS);
	_exit(rc == 1 ? 0 : -rc);
}

TEST_F(blocking, empty)
{
	struct iommu_hwpt_pgfault m;
	struct iovec iov = { &m, sizeof(m) };

	EXPECT_EQ(-1, preadv2(self->env.queue, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, fcntl(self->env.queue, F_SETFL, O_RDWR | O_NONBLOCK));
	EXPECT_EQ(-EAGAIN, fault_read(self->env.queue, &m, 1));
	EXPECT_EQ(0, fault_read_bytes(self->env.queue, &m, 0));
	EXPECT_EQ(-ESPIPE, fault_read_bytes(self->env.queue, &m, 1));
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	EXPECT_EQ(1, fault_read(self->env.queue, &m, 1));
	EXPECT_EQ(-EAGAIN, fault_read(self->env.queue, &m, 1));
	ASSERT_EQ(0, fcntl(self->env.queue, F_SETFL, O_RDWR));
	ASSERT_EQ(0, inject(&self->env, 2, 1, 1));
	EXPECT_EQ(1, fault_read(self->env.queue, &m, 1));
	EXPECT_EQ(2, m.grpid);
}

/* Eight sleep; each fault wakes as many as it takes, alone or in a burst. */
TEST_F(blocking, readers)
{
	struct iommu_test_iopf_stats s;
	unsigned int i, done;
	int status;

	for (i = 0; i < 8; i++)
		ASSERT_LT(0, start_reader(self));
	usleep(SHORT_MS * 1000);
	EXPECT_EQ(0, waitpid(-1, &status, WNOHANG));
	for (done = 0; done < 8; done += i) {
		i = done < 2 ? 1 : 6;
		ASSERT_EQ(0, inject(&self->env, 1, i, 1));
		while (i--) {
			ASSERT_LT(0, wait(&status));
			EXPECT_EQ(0, status);
		}
		i = done < 2 ? 1 : 6;
		if (done + i < 8)
			EXPECT_EQ(0, waitpid(-1, &status, WNOHANG));
	}
	ASSERT_EQ(0, iopf_stats(self->env.fd, self->env.dev.idev_id, &s));
	EXPECT_EQ(8, s.responses[SUCCESS]);
}

TEST_F(blocking, signal)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct iommu_hwpt_pgfault m;
	int status;
	pid_t pid;

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	pid = start_reader(self);
	usleep(SHORT_MS * 1000);
	ASSERT_EQ(0, kill(pid, SIGUSR1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(EINTR, WEXITSTATUS(status));

	/* started again by the kernel */
	action.sa_flags = SA_RESTART;
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	pid = start_reader(self);
	usleep(SHORT_MS * 1000);
	ASSERT_EQ(0, kill(pid, SIGUSR1));
	usleep(SHORT_MS * 1000);
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);

	/* killed */
	pid = start_reader(self);
	usleep(SHORT_MS * 1000);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(SIGKILL, WTERMSIG(status));
	ASSERT_EQ(0, inject(&self->env, 2, 1, 1));
	EXPECT_EQ(1, fault_read(self->env.queue, &m, 1));
	EXPECT_EQ(2, m.grpid);
}

/* A group that is too large for the one that wakes up is there for the next. */
TEST_F(blocking, too_large)
{
	struct iommu_hwpt_pgfault m[2];
	int status, errors = 0, i;

	for (i = 0; i < 2; i++)
		ASSERT_LT(0, start_reader(self));
	usleep(SHORT_MS * 1000);
	ASSERT_EQ(0, inject(&self->env, 1, 1, 2));
	for (i = 0; i < 2; i++) {
		ASSERT_LT(0, wait(&status));
		errors += WEXITSTATUS(status) == EINVAL;
	}
	EXPECT_EQ(2, errors);
	EXPECT_EQ(2, fault_read(self->env.queue, m, 2));
}

/* io_uring is as with any other queue: the read waits, and no thread with it. */
TEST_F(blocking, uring)
{
	struct iommu_hwpt_pgfault m = {};
	struct io_uring ring;

	ASSERT_EQ(0, ring_open(&ring, DEFER));
	prep_read(&ring, self->env.queue, &m, MSG, 1);
	ASSERT_EQ(0, submit(&ring));
	expect_quiet(&ring);
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	EXPECT_EQ(MSG, result(&ring, 1));
	EXPECT_EQ(1, m.grpid);
	io_uring_queue_exit(&ring);
}

TEST_HARNESS_MAIN
