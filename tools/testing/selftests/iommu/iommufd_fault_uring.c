// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the io_uring commands of iommufd's fault queue (FETCH, RESPOND, both
 * at once), of its blocking reads, and of the client library's ring, with the
 * page requests of a mock device.
 *
 * Most run with each kind of ring. At their end all that was sent and all that
 * was answered are compared, and the queue is destroyed: that fails as long as
 * a command holds its file, so no command may stay behind.
 */
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "../../../iommu/lib/iopf.h"
#include "../kselftest_harness.h"
#include "iommufd_fault_utils.h"

#define ADDR 0x40000000ULL
#define PAGE 4096
#define MSG ((int)sizeof(struct iommu_hwpt_pgfault))
#define ANSWER ((int)sizeof(struct iommu_hwpt_page_response))
#define SHORT_MS 30 /* waiting for what must not happen */
#define LONG_MS 10000 /* waiting for what must happen */
#define ENTRIES 64
#define SLOTS 16
#define ROOM 8

#define SUCCESS IOMMUFD_PAGE_RESP_SUCCESS
#define INVALID IOMMUFD_PAGE_RESP_INVALID
#define FAILURE IOMMUFD_PAGE_RESP_FAILURE

#define DEFER (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)

/* ---- a ring, and single steps on it ---- */

static int ring_open(struct io_uring *ring, unsigned int flags)
{
	struct io_uring_params p = { .flags = flags, .sq_thread_idle = 20 };

	return io_uring_queue_init_params(ENTRIES, ring, &p);
}

/* Returns when the kernel has issued all, but what goes to a worker. */
static int submit(struct io_uring *ring)
{
	int rc = io_uring_submit(ring);

	while (io_uring_sq_ready(ring))
		sched_yield();
	return rc < 0 ? rc : 0;
}

static struct io_uring_sqe *prep(struct io_uring *ring, uint32_t op, int fd, const void *buffer,
				 size_t size, uint64_t user_data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd, buffer, size, 0);
	sqe->cmd_op = op;
	io_uring_sqe_set_data64(sqe, user_data);
	return sqe;
}

static void set_answer(struct io_uring_sqe *sqe, uint32_t cookie, uint32_t code)
{
	struct iommu_fault_uring_cmd *cmd = (void *)sqe->cmd;

	*cmd = (struct iommu_fault_uring_cmd){ .response = { cookie, code } };
}

static void set_answers(struct io_uring_sqe *sqe, const void *answers, uint32_t count)
{
	struct iommu_fault_uring_cmd *cmd = (void *)sqe->cmd;

	*cmd = (struct iommu_fault_uring_cmd){
		.responses_uptr = (uintptr_t)answers, .count = count,
	};
}

/* The result of the next completion, which is to be that of @user_data. */
static int result_in(struct __test_metadata *_metadata, struct io_uring *ring,
		     uint64_t user_data, unsigned int ms)
{
	struct __kernel_timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000LL };
	struct io_uring_cqe *cqe;
	int rc;

	do {
		rc = io_uring_wait_cqe_timeout(ring, &cqe, &ts);
	} while (rc == -EINTR);
	if (rc)
		return rc;
	EXPECT_EQ(user_data, cqe->user_data);
	rc = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return rc;
}

#define result(ring, user_data) result_in(_metadata, ring, user_data, LONG_MS)
#define expect_quiet(ring) EXPECT_EQ(-ETIME, result_in(_metadata, ring, 0, SHORT_MS))

/* ---- a device whose faults go to a queue ---- */

FIXTURE(fetch)
{
	int fd;
	uint32_t ioas_id;
	struct mock_device dev;
	uint32_t queue_id;
	int queue;
	uint32_t hwpt_id;
	/* a HWPT without a queue */
	uint32_t plain_id;
	struct io_uring ring;
	bool has_ring;
	struct iommu_hwpt_pgfault m[SLOTS][ROOM];
};

typedef FIXTURE_DATA(fetch) fetch_t;

FIXTURE_VARIANT(fetch)
{
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(fetch, plain)
{
	.flags = 0,
};

FIXTURE_VARIANT_ADD(fetch, defer)
{
	.flags = DEFER,
};

FIXTURE_VARIANT_ADD(fetch, large)
{
	.flags = DEFER | IORING_SETUP_SQE128 | IORING_SETUP_CQE32,
};

FIXTURE_VARIANT_ADD(fetch, sqpoll)
{
	.flags = IORING_SETUP_SQPOLL,
};

static int post(fetch_t *self, unsigned int slot, unsigned int room)
{
	prep(&self->ring, IOMMU_FAULT_URING_FETCH, self->queue, self->m[slot], room * MSG, slot);
	return submit(&self->ring);
}

FIXTURE_SETUP(fetch)
{
	self->fd = open("/dev/iommu", O_RDWR);
	if (self->fd < 0)
		SKIP(return, "no /dev/iommu");
	if (iopf_stats_reset(self->fd, 0))
		SKIP(return, "no page request injector");
	ASSERT_EQ(0, ioas_alloc(self->fd, &self->ioas_id));
	ASSERT_EQ(0, mock_device_create(self->fd, self->ioas_id, 0, &self->dev));
	ASSERT_EQ(0, fault_queue_alloc(self->fd, &self->queue_id, &self->queue));
	ASSERT_EQ(0, ring_open(&self->ring, variant->flags));
	self->has_ring = true;
	post(self, 0, 0);
	if (result(&self->ring, 0) == -EOPNOTSUPP)
		SKIP(return, "a kernel without these commands");
	ASSERT_EQ(0, hwpt_alloc_paging(self->fd, self->dev.idev_id, self->ioas_id,
				       IOMMU_HWPT_FAULT_ID_VALID, self->queue_id,
				       &self->hwpt_id));
	ASSERT_EQ(0, hwpt_alloc_paging(self->fd, self->dev.idev_id, self->ioas_id, 0, 0,
				       &self->plain_id));
	ASSERT_EQ(0, mock_replace(self->fd, self->dev.stdev_id, self->hwpt_id));
}

static void close_ring(fetch_t *self)
{
	if (self->has_ring)
		io_uring_queue_exit(&self->ring);
	self->has_ring = false;
}

static void close_queue(fetch_t *self)
{
	if (self->queue >= 0)
		close(self->queue);
	self->queue = -1;
}

/* A ring that was closed lets go of its files a moment later. */
static int destroy_queue(int fd, uint32_t queue_id)
{
	int rc, ms;

	for (ms = 0; ms < LONG_MS; ms++) {
		rc = iommufd_destroy(fd, queue_id);
		if (rc != -EBUSY)
			break;
		usleep(1000);
	}
	return rc;
}

FIXTURE_TEARDOWN(fetch)
{
	struct iommu_test_iopf_stats s;

	close_ring(self);
	EXPECT_EQ(0, iommufd_destroy(self->fd, self->dev.stdev_id));
	ASSERT_EQ(0, iopf_stats(self->fd, 0, &s));
	EXPECT_EQ(s.groups, s.responses[0] + s.responses[1] + s.responses[2]);
	EXPECT_EQ(0, s.outstanding);
	EXPECT_EQ(0, s.unmatched);
	close_queue(self);
	if (self->hwpt_id)
		EXPECT_EQ(0, iommufd_destroy(self->fd, self->hwpt_id));
	EXPECT_EQ(0, destroy_queue(self->fd, self->queue_id));
	EXPECT_EQ(0, close(self->fd));
}

/* Group i has id @grpid + i. */
static int inject(fetch_t *self, uint32_t grpid, uint32_t groups, uint32_t requests)
{
	return iopf_inject(self->fd, self->dev.idev_id, 0, grpid, ADDR, groups, requests, 0);
}

static void expect_answers(struct __test_metadata *_metadata, fetch_t *self,
			   uint64_t success, uint64_t invalid)
{
	struct iommu_test_iopf_stats s;

	ASSERT_EQ(0, iopf_stats(self->fd, self->dev.idev_id, &s));
	EXPECT_EQ(success, s.responses[SUCCESS]);
	EXPECT_EQ(invalid, s.responses[INVALID]);
	EXPECT_EQ(0, s.responses[FAILURE]);
}

/* The next group of one request, by read(2). */
static struct iommu_hwpt_pgfault take(struct __test_metadata *_metadata, int queue)
{
	struct iommu_hwpt_pgfault m = {};

	EXPECT_EQ(1, fault_read(queue, &m, 1));
	EXPECT_NE(0, m.cookie);
	return m;
}

static void take_many(struct __test_metadata *_metadata, int queue,
		      struct iommu_hwpt_page_response *answers, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		answers[i] = (struct iommu_hwpt_page_response){
			take(_metadata, queue).cookie, SUCCESS
		};
}

/* The end of a page behind which nothing can be accessed. */
static char *fence(struct __test_metadata *_metadata)
{
	char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, mprotect(p + PAGE, PAGE, PROT_NONE));
	return p + PAGE;
}

/* ---- FETCH ---- */

TEST_F(fetch, one_group)
{
	struct iommu_hwpt_pgfault *m = self->m[0];
	unsigned int i;

	ASSERT_EQ(0, post(self, 0, ROOM));
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(self, 7, 1, 3));
	ASSERT_EQ(3 * MSG, result(&self->ring, 0));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(7, m[i].grpid);
		EXPECT_EQ(ADDR + i * PAGE, m[i].addr);
		EXPECT_EQ(self->dev.idev_id, m[i].dev_id);
		EXPECT_EQ(m[0].cookie, m[i].cookie);
		EXPECT_EQ(i == 2 ? IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0, m[i].flags);
	}
	EXPECT_EQ(0, m[3].cookie);
	set_answer(prep(&self->ring, IOMMU_FAULT_URING_RESPOND, self->queue, NULL, 0, 5),
		   m[0].cookie, SUCCESS);
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(1, result(&self->ring, 5));
	expect_answers(_metadata, self, 1, 0);
}

/* What is queued already comes at once, as many whole groups as fit. */
TEST_F(fetch, several_groups)
{
	ASSERT_EQ(0, inject(self, 1, 5, 2));
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
TEST_F(fetch, too_large)
{
	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, post(self, 1, 2));
	ASSERT_EQ(0, post(self, 2, 3));
	ASSERT_EQ(0, inject(self, 1, 1, 3));
	EXPECT_EQ(-EINVAL, result(&self->ring, 0));
	EXPECT_EQ(-EINVAL, result(&self->ring, 1));
	EXPECT_EQ(3 * MSG, result(&self->ring, 2));

	ASSERT_EQ(0, inject(self, 1, 1, 2));
	ASSERT_EQ(0, post(self, 3, 1));
	EXPECT_EQ(-EINVAL, result(&self->ring, 3));
	ASSERT_EQ(0, post(self, 4, 2));
	EXPECT_EQ(2 * MSG, result(&self->ring, 4));
}

/* Each fault completes one command, and that is the oldest. */
TEST_F(fetch, one_fault_one_fetch)
{
	unsigned int i;

	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, post(self, i, ROOM));
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(0, inject(self, 50 + i, 1, 1));
		ASSERT_EQ(MSG, result(&self->ring, i));
		EXPECT_EQ(50 + i, self->m[i][0].grpid);
		expect_quiet(&self->ring);
	}
}

TEST_F(fetch, burst)
{
	unsigned int i;

	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, post(self, i, 1));
	ASSERT_EQ(0, inject(self, 50, 8, 1));
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(MSG, result(&self->ring, i));
		EXPECT_EQ(50 + i, self->m[i][0].grpid);
	}
	expect_quiet(&self->ring);
}

/* A child injects groups, @n at a time, while its parent waits. */
static pid_t inject_later(fetch_t *self, unsigned int times, unsigned int n)
{
	pid_t pid = fork();
	unsigned int i;

	if (pid)
		return pid;
	for (i = 0; i < times; i++) {
		usleep(20000);
		if (inject(self, i * n, n, 1))
			_exit(1);
	}
	_exit(0);
}

/* Who waits for eight completions is not left asleep with less under way. */
TEST_F(fetch, wait_for_eight)
{
	struct __kernel_timespec ts = { .tv_sec = LONG_MS / 1000 };
	unsigned int i, round;
	struct io_uring_cqe *cqe;
	int status;
	pid_t pid;

	for (round = 0; round < 2; round++) {
		for (i = 0; i < 8; i++)
			prep(&self->ring, IOMMU_FAULT_URING_FETCH, self->queue, self->m[i], MSG, i);
		ASSERT_EQ(0, submit(&self->ring));
		pid = round ? inject_later(self, 8, 1) : inject_later(self, 1, 8);
		ASSERT_LE(0, io_uring_wait_cqes(&self->ring, &cqe, 8, &ts, NULL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(0, status);
		for (i = 0; i < 8; i++) {
			EXPECT_EQ(MSG, result(&self->ring, i));
			EXPECT_EQ(i, self->m[i][0].grpid);
		}
	}
}

/* A read is faster than a command that was started: it goes back to the front. */
TEST_F(fetch, read_steals)
{
	if (!(variant->flags & IORING_SETUP_DEFER_TASKRUN))
		SKIP(return, "no time for that before task work runs");
	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, post(self, 1, 1));
	ASSERT_EQ(0, inject(self, 1, 1, 1));
	EXPECT_EQ(1, take(_metadata, self->queue).grpid);
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(self, 2, 1, 1));
	EXPECT_EQ(2, take(_metadata, self->queue).grpid);
	ASSERT_EQ(0, inject(self, 3, 2, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(3, self->m[0][0].grpid);
	EXPECT_EQ(MSG, result(&self->ring, 1));
	EXPECT_EQ(4, self->m[1][0].grpid);
}

/* The same, with detaching in the place of the read. */
TEST_F(fetch, detach_steals)
{
	if (!(variant->flags & IORING_SETUP_DEFER_TASKRUN))
		SKIP(return, "no time for that before task work runs");
	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, inject(self, 1, 3, 1));
	ASSERT_EQ(0, mock_replace(self->fd, self->dev.stdev_id, self->plain_id));
	expect_answers(_metadata, self, 0, 3);
	expect_quiet(&self->ring);
	ASSERT_EQ(0, mock_replace(self->fd, self->dev.stdev_id, self->hwpt_id));
	ASSERT_EQ(0, inject(self, 2, 1, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(2, self->m[0][0].grpid);
}

TEST_F(fetch, registered_buffer)
{
	struct iovec iov = { self->m, sizeof(self->m) };
	char *last = (char *)(self->m + SLOTS) - 2 * MSG;
	struct io_uring_sqe *sqe;

	ASSERT_EQ(0, io_uring_register_buffers(&self->ring, &iov, 1));
	sqe = prep(&self->ring, IOMMU_FAULT_URING_FETCH, self->queue, self->m[3], 2 * MSG, 1);
	sqe->uring_cmd_flags = IORING_URING_CMD_FIXED;
	ASSERT_EQ(0, submit(&self->ring));
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(self, 9, 1, 2));
	EXPECT_EQ(2 * MSG, result(&self->ring, 1));
	EXPECT_EQ(9, self->m[3][1].grpid);

	/* one message more than there is to the end of it */
	ASSERT_EQ(0, inject(self, 10, 1, 1));
	sqe = prep(&self->ring, IOMMU_FAULT_URING_FETCH, self->queue, last, 3 * MSG, 2);
	sqe->uring_cmd_flags = IORING_URING_CMD_FIXED;
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(-EFAULT, result(&self->ring, 2));
	sqe = prep(&self->ring, IOMMU_FAULT_URING_FETCH, self->queue, last, 2 * MSG, 3);
	sqe->uring_cmd_flags = IORING_URING_CMD_FIXED;
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(MSG, result(&self->ring, 3));
	EXPECT_EQ(10, self->m[SLOTS - 1][ROOM - 2].grpid);
	/* no such buffer */
	sqe = prep(&self->ring, IOMMU_FAULT_URING_FETCH, self->queue, last, 2 * MSG, 4);
	sqe->uring_cmd_flags = IORING_URING_CMD_FIXED;
	sqe->buf_index = 1;
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(-EFAULT, result(&self->ring, 4));
}

/* Whether there is something to fetch or not, and nothing is lost. */
TEST_F(fetch, bad_sizes)
{
	static const size_t sizes[] = { 0, 1, MSG - 1, MSG + 1, 2 * MSG - 8, UINT32_MAX };
	struct io_uring *ring = &self->ring;
	unsigned int i, round;

	for (round = 0; round < 2; round++) {
		for (i = 0; i < 6; i++) {
			prep(ring, IOMMU_FAULT_URING_FETCH, self->queue, self->m[0], sizes[i], i);
			ASSERT_EQ(0, submit(ring));
			EXPECT_EQ(-EINVAL, result(ring, i));
		}
		for (i = 1; i < 8; i++) {
			prep(ring, IOMMU_FAULT_URING_FETCH, self->queue, (char *)self->m[0] + i,
			     MSG, i);
			ASSERT_EQ(0, submit(ring));
			EXPECT_EQ(-EINVAL, result(ring, i));
		}
		if (!round)
			ASSERT_EQ(0, inject(self, 1, 1, 1));
	}
	EXPECT_EQ(1, take(_metadata, self->queue).grpid);
}

TEST_F(fetch, bad_commands)
{
	static const uint32_t ops[] = {
		0, IOMMU_FAULT_URING_FETCH - 1, IOMMU_FAULT_URING_RESPOND_AND_FETCH + 1,
		IOMMU_FAULT_QUEUE_ALLOC, IOMMU_FAULT_URING_FETCH & 0xff, UINT32_MAX,
	};
	struct io_uring_sqe *sqe;
	unsigned int i;

	for (i = 0; i < 6; i++) {
		prep(&self->ring, ops[i], self->queue, self->m[0], MSG, i);
		ASSERT_EQ(0, submit(&self->ring));
		EXPECT_EQ(-EOPNOTSUPP, result(&self->ring, i));
	}
	sqe = prep(&self->ring, IOMMU_FAULT_URING_FETCH, self->queue, self->m[0], MSG, 7);
	sqe->uring_cmd_flags = 1 << 5;
	submit(&self->ring);
	EXPECT_EQ(-EINVAL, result(&self->ring, 7));
}

/* A ring that polls for completions is for files that can be asked for them. */
TEST_F(fetch, polled_ring)
{
	struct io_uring ring;

	if (variant->flags & IORING_SETUP_SQPOLL)
		SKIP(return, "its thread would poll");
	ASSERT_EQ(0, ring_open(&ring, variant->flags | IORING_SETUP_IOPOLL));
	prep(&ring, IOMMU_FAULT_URING_FETCH, self->queue, self->m[0], MSG, 1);
	ASSERT_EQ(0, submit(&ring));
	EXPECT_EQ(-EOPNOTSUPP, result(&ring, 1));
	io_uring_prep_read(io_uring_get_sqe(&ring), self->queue, self->m[0], MSG, 0);
	ASSERT_EQ(0, submit(&ring));
	EXPECT_EQ(-EOPNOTSUPP, result(&ring, 0));
	io_uring_queue_exit(&ring);
}

/* Bad memory costs a command its turn, but no group. */
TEST_F(fetch, unmapped)
{
	char *end = fence(_metadata);
	struct io_uring *ring = &self->ring;

	prep(ring, IOMMU_FAULT_URING_FETCH, self->queue, end, MSG, 0);
	prep(ring, IOMMU_FAULT_URING_FETCH, self->queue, end - 3 * 8, MSG, 1);
	prep(ring, IOMMU_FAULT_URING_FETCH, self->queue, NULL, MSG, 2);
	ASSERT_EQ(0, submit(ring));
	ASSERT_EQ(0, post(self, 3, 1));
	ASSERT_EQ(0, inject(self, 1, 1, 1));
	EXPECT_EQ(-EFAULT, result(ring, 0));
	EXPECT_EQ(-EFAULT, result(ring, 1));
	EXPECT_EQ(-EFAULT, result(ring, 2));
	EXPECT_EQ(MSG, result(ring, 3));
	EXPECT_EQ(1, self->m[3][0].grpid);

	/* whole groups that can be copied are; the others come next, in order */
	ASSERT_EQ(0, inject(self, 2, 3, 2));
	prep(ring, IOMMU_FAULT_URING_FETCH, self->queue, end - 8, 6 * MSG, 4);
	ASSERT_EQ(0, submit(ring));
	EXPECT_EQ(-EFAULT, result(ring, 4));
	prep(ring, IOMMU_FAULT_URING_FETCH, self->queue, end - 3 * MSG, 6 * MSG, 5);
	ASSERT_EQ(0, submit(ring));
	EXPECT_EQ(2 * MSG, result(ring, 5));
	ASSERT_EQ(0, post(self, 6, 4));
	EXPECT_EQ(4 * MSG, result(ring, 6));
	EXPECT_EQ(3, self->m[6][0].grpid);
	EXPECT_EQ(4, self->m[6][3].grpid);
	/* an address that no process has */
	prep(ring, IOMMU_FAULT_URING_FETCH, self->queue, (void *)(1UL << 63), MSG, 7);
	ASSERT_EQ(0, submit(ring));
	ASSERT_EQ(0, inject(self, 8, 1, 1));
	EXPECT_EQ(-EFAULT, result(ring, 7));
	EXPECT_EQ(8, take(_metadata, self->queue).grpid);
}

/* From a worker of io_uring, which may come before or after the fault. */
TEST_F(fetch, async)
{
	struct io_uring_sqe *sqe;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		sqe = prep(&self->ring, i ? IOMMU_FAULT_URING_RESPOND_AND_FETCH :
			   IOMMU_FAULT_URING_FETCH, self->queue, self->m[i % 2], MSG, i);
		sqe->flags |= IOSQE_ASYNC;
		if (i)
			set_answer(sqe, self->m[!(i % 2)][0].cookie, SUCCESS);
		ASSERT_EQ(0, submit(&self->ring));
		if (i % 3)
			usleep(5000);
		ASSERT_EQ(0, inject(self, i, 1, 1));
		ASSERT_EQ(MSG, result(&self->ring, i));
		EXPECT_EQ(i, self->m[i % 2][0].grpid);
	}
	expect_answers(_metadata, self, 19, 0);
}

TEST_F(fetch, linked)
{
	struct io_uring_sqe *sqe;

	sqe = prep(&self->ring, IOMMU_FAULT_URING_FETCH, self->queue, self->m[0], MSG, 0);
	sqe->flags |= IOSQE_IO_LINK;
	io_uring_prep_nop(sqe = io_uring_get_sqe(&self->ring));
	io_uring_sqe_set_data64(sqe, 1);
	ASSERT_EQ(0, submit(&self->ring));
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(self, 1, 1, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(0, result(&self->ring, 1));

	/* the answer first, then what comes next */
	sqe = prep(&self->ring, IOMMU_FAULT_URING_RESPOND, self->queue, NULL, 0, 2);
	set_answer(sqe, self->m[0][0].cookie, SUCCESS);
	sqe->flags |= IOSQE_IO_LINK;
	ASSERT_EQ(0, inject(self, 2, 1, 1));
	ASSERT_EQ(0, post(self, 3, 1));
	EXPECT_EQ(1, result(&self->ring, 2));
	EXPECT_EQ(MSG, result(&self->ring, 3));

	/* one that fails breaks the chain */
	sqe = prep(&self->ring, IOMMU_FAULT_URING_RESPOND, self->queue, NULL, 0, 4);
	set_answer(sqe, self->m[0][0].cookie, SUCCESS);
	sqe->flags |= IOSQE_IO_LINK;
	ASSERT_EQ(0, post(self, 5, 1));
	EXPECT_EQ(-EINVAL, result(&self->ring, 4));
	EXPECT_EQ(-ECANCELED, result(&self->ring, 5));
	expect_answers(_metadata, self, 1, 0);
}

/* ---- RESPOND ---- */

static int respond(struct __test_metadata *_metadata, fetch_t *self,
		   const struct iommu_hwpt_page_response *answers, uint32_t count)
{
	set_answers(prep(&self->ring, IOMMU_FAULT_URING_RESPOND, self->queue, NULL, 0, 1),
		    answers, count);
	submit(&self->ring);
	return result(&self->ring, 1);
}

static int respond_one(struct __test_metadata *_metadata, fetch_t *self,
		       uint32_t cookie, uint32_t code)
{
	set_answer(prep(&self->ring, IOMMU_FAULT_URING_RESPOND, self->queue, NULL, 0, 1), cookie,
		   code);
	submit(&self->ring);
	return result(&self->ring, 1);
}

TEST_F(fetch, respond_one)
{
	uint32_t cookie;

	ASSERT_EQ(0, inject(self, 1, 2, 1));
	cookie = take(_metadata, self->queue).cookie;
	EXPECT_EQ(-EINVAL, respond_one(_metadata, self, 0, SUCCESS));
	EXPECT_EQ(-EINVAL, respond_one(_metadata, self, cookie + 1, SUCCESS));
	EXPECT_EQ(-EINVAL, respond_one(_metadata, self, cookie, FAILURE + 1));
	EXPECT_EQ(-EINVAL, respond_one(_metadata, self, cookie, UINT32_MAX));
	EXPECT_EQ(1, respond_one(_metadata, self, cookie, INVALID));
	EXPECT_EQ(-EINVAL, respond_one(_metadata, self, cookie, INVALID));
	expect_answers(_metadata, self, 0, 1);
	/* one that was fetched by a read, and the other way around */
	ASSERT_EQ(0, post(self, 0, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(0, fault_answer(self->queue, self->m[0][0].cookie, SUCCESS));
	expect_answers(_metadata, self, 1, 1);
}

TEST_F(fetch, respond_many)
{
	static const unsigned int bad[] = { 1, 2, 31, 32, 33, 63, 99 };
	struct iommu_hwpt_page_response r[100];
	unsigned int i;

	for (i = 0; i < 7; i++) {
		ASSERT_EQ(0, iopf_stats_reset(self->fd, self->dev.idev_id));
		ASSERT_EQ(0, inject(self, 0, 100, 1));
		take_many(_metadata, self->queue, r, 100);
		r[bad[i]].code = FAILURE + 1;
		EXPECT_EQ(bad[i], respond(_metadata, self, r, 100));
		expect_answers(_metadata, self, bad[i], 0);
		EXPECT_EQ(-EINVAL, respond(_metadata, self, r + bad[i], 100 - bad[i]));
		r[bad[i]].code = INVALID;
		EXPECT_EQ(100 - bad[i], respond(_metadata, self, r + bad[i], 100 - bad[i]));
		expect_answers(_metadata, self, 99, 1);
		EXPECT_EQ(-EINVAL, respond(_metadata, self, r, 1));
	}
}

TEST_F(fetch, respond_errors)
{
	struct iovec iov = { self->m, sizeof(self->m) };
	struct iommu_hwpt_page_response r[3];
	struct iommu_fault_uring_cmd *cmd;
	char *end = fence(_metadata);
	struct io_uring_sqe *sqe;

	ASSERT_EQ(0, inject(self, 0, 3, 1));
	take_many(_metadata, self->queue, r, 3);
	EXPECT_EQ(-EFAULT, respond(_metadata, self, (void *)end, 3));
	EXPECT_EQ(-EFAULT, respond(_metadata, self, (void *)(end - 7), 1));
	EXPECT_EQ(-EFAULT, respond(_metadata, self, NULL, UINT32_MAX));
	EXPECT_EQ(-EFAULT, respond(_metadata, self, (void *)(1UL << 63), 1));

	sqe = prep(&self->ring, IOMMU_FAULT_URING_RESPOND, self->queue, NULL, 0, 2);
	set_answer(sqe, r[0].cookie, SUCCESS);
	cmd = (void *)sqe->cmd;
	cmd->__reserved = 1;
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(-EINVAL, result(&self->ring, 2));

	ASSERT_EQ(0, io_uring_register_buffers(&self->ring, &iov, 1));
	sqe = prep(&self->ring, IOMMU_FAULT_URING_RESPOND, self->queue, NULL, 0, 3);
	set_answer(sqe, r[0].cookie, SUCCESS);
	sqe->uring_cmd_flags = IORING_URING_CMD_FIXED;
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(-EINVAL, result(&self->ring, 3));
	expect_answers(_metadata, self, 0, 0);

	/* two that can be read, and five bytes of the third */
	memcpy(end - 2 * ANSWER - 5, r, 2 * ANSWER + 5);
	EXPECT_EQ(2, respond(_metadata, self, (void *)(end - 2 * ANSWER - 5), 3));
	EXPECT_EQ(1, respond(_metadata, self, r + 2, 1));
	expect_answers(_metadata, self, 3, 0);
}

/* ---- RESPOND_AND_FETCH ---- */

static struct io_uring_sqe *prep_both(fetch_t *self, unsigned int slot,
				      unsigned int room)
{
	return prep(&self->ring, IOMMU_FAULT_URING_RESPOND_AND_FETCH, self->queue,
		    self->m[slot], room * MSG, slot);
}

TEST_F(fetch, respond_and_fetch)
{
	unsigned int i;

	ASSERT_EQ(0, post(self, 0, 1));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, inject(self, i, 1, 1));
		ASSERT_EQ(MSG, result(&self->ring, i % 2));
		EXPECT_EQ(i, self->m[i % 2][0].grpid);
		set_answer(prep_both(self, !(i % 2), 1), self->m[i % 2][0].cookie, SUCCESS);
		ASSERT_EQ(0, submit(&self->ring));
		/* the answer does not wait for the next fault */
		expect_answers(_metadata, self, i + 1, 0);
	}
	expect_quiet(&self->ring);
}

TEST_F(fetch, respond_and_fetch_queued)
{
	struct iommu_hwpt_page_response r[4];

	ASSERT_EQ(0, inject(self, 1, 6, 1));
	take_many(_metadata, self->queue, r, 4);
	set_answers(prep_both(self, 0, ROOM), r, 4);
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(2 * MSG, result(&self->ring, 0));
	EXPECT_EQ(5, self->m[0][0].grpid);
	expect_answers(_metadata, self, 4, 0);
}

/* A bad answer: nothing is fetched. Nothing to fetch into: nothing is answered. */
TEST_F(fetch, respond_and_fetch_errors)
{
	struct iommu_hwpt_page_response r[3];

	ASSERT_EQ(0, inject(self, 1, 4, 1));
	take_many(_metadata, self->queue, r, 3);
	set_answer(prep_both(self, 0, 1), r[0].cookie, FAILURE + 1);
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(-EINVAL, result(&self->ring, 0));
	set_answer(prep_both(self, 1, 0), r[0].cookie, SUCCESS);
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(-EINVAL, result(&self->ring, 1));
	set_answers(prep_both(self, 2, 1), fence(_metadata), 1);
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(-EFAULT, result(&self->ring, 2));
	expect_answers(_metadata, self, 0, 0);
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(self->queue, 0));

	/* those ahead of it are given */
	r[1].code = FAILURE + 1;
	set_answers(prep_both(self, 3, 1), r, 3);
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(-EINVAL, result(&self->ring, 3));
	expect_answers(_metadata, self, 1, 0);
	EXPECT_EQ(0, self->m[3][0].cookie);

	/* the answer is good, but the group does not fit */
	EXPECT_EQ(4, take(_metadata, self->queue).grpid);
	ASSERT_EQ(0, inject(self, 5, 1, 2));
	set_answer(prep_both(self, 4, 1), r[2].cookie, SUCCESS);
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(-EINVAL, result(&self->ring, 4));
	expect_answers(_metadata, self, 2, 0);
	ASSERT_EQ(0, post(self, 5, 2));
	EXPECT_EQ(2 * MSG, result(&self->ring, 5));
}

/* ---- how a command that waits can end ---- */

/* This kernel does not find commands to cancel: it says so, and they go on. */
TEST_F(fetch, async_cancel)
{
	struct io_uring_sqe *sqe;

	ASSERT_EQ(0, post(self, 0, 1));
	sqe = io_uring_get_sqe(&self->ring);
	io_uring_prep_cancel64(sqe, 0, 0);
	io_uring_sqe_set_data64(sqe, 1);
	ASSERT_EQ(0, submit(&self->ring));
	EXPECT_EQ(-ENOENT, result(&self->ring, 1));
	ASSERT_EQ(0, inject(self, 1, 1, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
}

static void post_eight(struct __test_metadata *_metadata, fetch_t *self)
{
	unsigned int i;

	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, post(self, i, 1));
}

static void *submit_and_end(void *ring)
{
	return (void *)(intptr_t)submit(ring);
}

/*
 * The thread that waits ends, its ring does not: its commands are cancelled when
 * their turn comes, and pass on what they were to fetch.
 */
TEST_F(fetch, thread_end)
{
	pthread_t thread;
	unsigned int i;
	void *rc;

	if (variant->flags)
		SKIP(return, "no ring whose submitter can end before it");
	for (i = 0; i < 8; i++)
		prep(&self->ring, IOMMU_FAULT_URING_FETCH, self->queue, self->m[i], MSG, 7);
	ASSERT_EQ(0, pthread_create(&thread, NULL, submit_and_end, &self->ring));
	ASSERT_EQ(0, pthread_join(thread, &rc));
	ASSERT_EQ(NULL, rc);
	ASSERT_EQ(0, post(self, 8, 1));
	expect_quiet(&self->ring);
	ASSERT_EQ(0, inject(self, 1, 1, 1));
	for (i = 0; i < 8; i++)
		EXPECT_EQ(-ECANCELED, result(&self->ring, 7));
	EXPECT_EQ(MSG, result(&self->ring, 8));
	EXPECT_EQ(1, self->m[8][0].grpid);
}

/* What comes when they end, or then, is there for a read. */
TEST_F(fetch, ring_exit)
{
	post_eight(_metadata, self);
	close_ring(self);
	ASSERT_EQ(0, inject(self, 1, 8, 1));
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(self->queue, 0));
	EXPECT_EQ(1, take(_metadata, self->queue).grpid);
}

TEST_F(fetch, ring_exit_started)
{
	if (!(variant->flags & IORING_SETUP_DEFER_TASKRUN))
		SKIP(return, "no time for that before task work runs");
	post_eight(_metadata, self);
	ASSERT_EQ(0, inject(self, 1, 2, 1));
	close_ring(self);
	EXPECT_EQ(1, take(_metadata, self->queue).grpid);
	usleep(SHORT_MS * 1000);
	EXPECT_EQ(2, take(_metadata, self->queue).grpid);
}

/* A ring that ends passes what it was to fetch on to the next. */
TEST_F(fetch, ring_exit_passes_on)
{
	struct io_uring other;

	ASSERT_EQ(0, ring_open(&other, 0));
	post_eight(_metadata, self);
	prep(&other, IOMMU_FAULT_URING_FETCH, self->queue, self->m[9], 2 * MSG, 9);
	ASSERT_EQ(0, submit(&other));
	if (variant->flags & IORING_SETUP_DEFER_TASKRUN)
		ASSERT_EQ(0, inject(self, 1, 1, 1));
	close_ring(self);
	if (!(variant->flags & IORING_SETUP_DEFER_TASKRUN))
		ASSERT_EQ(0, inject(self, 1, 1, 1));
	EXPECT_EQ(MSG, result(&other, 9));
	EXPECT_EQ(1, self->m[9][0].grpid);
	io_uring_queue_exit(&other);
}

/* How many groups somebody was given and has not answered */
static long count_delivered(fetch_t *self)
{
	return fdinfo_number(self->queue, "iommufd-fault-delivered");
}

/* Faults come while rings end: each is fetched, once, or still there. */
TEST_F(fetch, ring_exit_race)
{
	enum { ROUNDS = 30 };
	struct iommu_hwpt_pgfault m[ROOM];
	struct io_uring_cqe *cqe;
	unsigned int round;
	int ms = 0;
	pid_t pid;

	for (round = 0; round < ROUNDS; round++) {
		if (!self->has_ring)
			ASSERT_EQ(0, ring_open(&self->ring, variant->flags));
		self->has_ring = true;
		post_eight(_metadata, self);
		pid = fork();
		if (!pid)
			_exit(inject(self, 0, 8, 1));
		if (round % 3 == 1)
			ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		if (round % 3)
			while (io_uring_wait_cqe(&self->ring, &cqe) == -EINTR)
				;
		close_ring(self);
		waitpid(pid, NULL, 0);
	}
	/* The last rings may still be ending, and give groups back. */
	while (count_delivered(self) < 8 * ROUNDS && ms++ < LONG_MS) {
		if (fault_read(self->queue, m, ROOM) <= 0)
			usleep(1000);
	}
	EXPECT_EQ(8 * ROUNDS, count_delivered(self));
	EXPECT_EQ(0, fault_read(self->queue, m, ROOM));
}

static pid_t start_victim(struct __test_metadata *_metadata, fetch_t *self,
			  unsigned int flags)
{
	struct io_uring ring;
	int ready[2];
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid) {
		if (ring_open(&ring, flags))
			_exit(1);
		for (c = 0; c < 4; c++)
			prep(&ring, IOMMU_FAULT_URING_FETCH, self->queue, self->m[0], MSG, c);
		if (submit(&ring) || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	EXPECT_EQ(1, read(ready[0], &c, 1));
	close(ready[0]);
	return pid;
}

static void kill_victim(struct __test_metadata *_metadata, pid_t pid)
{
	int status;

	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
}

TEST_F(fetch, sigkill_pending)
{
	pid_t pid = start_victim(_metadata, self, variant->flags);

	kill_victim(_metadata, pid);
	ASSERT_EQ(0, inject(self, 1, 1, 1));
	ASSERT_EQ(0, post(self, 0, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(1, self->m[0][0].grpid);
}

/* Its first command was started, but the process does not come to run it. */
TEST_F(fetch, sigkill_started)
{
	pid_t pid;

	if (!(variant->flags & IORING_SETUP_DEFER_TASKRUN))
		SKIP(return, "no time for that before task work runs");
	pid = start_victim(_metadata, self, variant->flags);
	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, inject(self, 1, 1, 1));
	expect_quiet(&self->ring);
	kill_victim(_metadata, pid);
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(1, self->m[0][0].grpid);
}

/* A command keeps the file, and so the queue, until its ring goes. */
TEST_F(fetch, close_queue)
{
	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, post(self, 1, 1));
	close_queue(self);
	ASSERT_EQ(0, inject(self, 1, 1, 1));
	ASSERT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(1, self->m[0][0].grpid);
	EXPECT_EQ(-EBUSY, iommufd_destroy(self->fd, self->queue_id));
	expect_answers(_metadata, self, 0, 0);
	ASSERT_EQ(0, mock_replace(self->fd, self->dev.stdev_id, self->plain_id));
	ASSERT_EQ(0, iommufd_destroy(self->fd, self->hwpt_id));
	self->hwpt_id = 0;
	EXPECT_EQ(-EBUSY, iommufd_destroy(self->fd, self->queue_id));
	expect_quiet(&self->ring);
	close_ring(self);
	EXPECT_EQ(0, destroy_queue(self->fd, self->queue_id));
	ASSERT_EQ(0, fault_queue_alloc(self->fd, &self->queue_id, &self->queue));
}

/* Devices and HWPTs come and go; a command waits for whatever comes. */
TEST_F(fetch, detach)
{
	ASSERT_EQ(0, post(self, 0, 1));
	ASSERT_EQ(0, mock_replace(self->fd, self->dev.stdev_id, self->plain_id));
	ASSERT_EQ(0, iommufd_destroy(self->fd, self->hwpt_id));
	EXPECT_EQ(-EBUSY, iommufd_destroy(self->fd, self->queue_id));
	expect_quiet(&self->ring);
	ASSERT_EQ(0, hwpt_alloc_paging(self->fd, self->dev.idev_id, self->ioas_id,
				       IOMMU_HWPT_FAULT_ID_VALID, self->queue_id,
				       &self->hwpt_id));
	ASSERT_EQ(0, mock_replace(self->fd, self->dev.stdev_id, self->hwpt_id));
	ASSERT_EQ(0, inject(self, 3, 1, 1));
	EXPECT_EQ(MSG, result(&self->ring, 0));
	EXPECT_EQ(3, self->m[0][0].grpid);
}

/* ---- several that wait ---- */

TEST_F(fetch, two_rings)
{
	struct io_uring other, *ring[2] = { &self->ring, &other };
	unsigned int i;

	ASSERT_EQ(0, ring_open(&other, variant->flags));
	for (i = 0; i < 8; i++) {
		prep(ring[i % 2], IOMMU_FAULT_URING_FETCH, self->queue, self->m[i], MSG, i);
		ASSERT_EQ(0, submit(ring[i % 2]));
	}
	ASSERT_EQ(0, inject(self, 0, 4, 1));
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(MSG, result(ring[i % 2], i));
		EXPECT_EQ(i, self->m[i][0].grpid);
		if (i == 3) {
			expect_quiet(ring[0]);
			expect_quiet(ring[1]);
			ASSERT_EQ(0, inject(self, 4, 4, 1));
		}
	}
	io_uring_queue_exit(&other);
}

/* Each kind of waiter hears of it: those who read, and who only look. */
TEST_F(fetch, mixed)
{
	struct io_uring_sqe *sqe;
	struct io_uring other;
	unsigned int i, seen;
	uint64_t data;
	int rc;

	ASSERT_EQ(0, ring_open(&other, DEFER));
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, post(self, 0, 1));
		sqe = io_uring_get_sqe(&other);
		io_uring_prep_poll_add(sqe, self->queue, POLLIN);
		io_uring_sqe_set_data64(sqe, 1);
		sqe = io_uring_get_sqe(&other);
		io_uring_prep_read(sqe, self->queue, self->m[2], MSG, 0);
		io_uring_sqe_set_data64(sqe, 2);
		ASSERT_EQ(0, submit(&other));
		ASSERT_EQ(0, inject(self, 1, 3, 1));
		EXPECT_EQ(MSG, result(&self->ring, 0));
		for (seen = 0; seen != 3; seen |= 1 << (data - 1)) {
			struct io_uring_cqe *cqe;

			ASSERT_EQ(0, io_uring_wait_cqe(&other, &cqe));
			data = cqe->user_data;
			rc = cqe->res;
			io_uring_cqe_seen(&other, cqe);
			EXPECT_TRUE(data == 1 ? rc & POLLIN : rc == MSG);
		}
		take(_metadata, self->queue);
		EXPECT_EQ(POLLOUT, fault_poll(self->queue, 0));
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

/* RESPOND_AND_FETCH all the time, with eight under way. */
static void *serve(void *arg)
{
	struct __kernel_timespec ts = { .tv_nsec = 2000000 };
	struct iommu_hwpt_pgfault m[8][4];
	struct iommu_hwpt_page_response r[8][4];
	struct worker *w = arg;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	unsigned int i, n;
	int rc;

	rc = ring_open(&ring, w->flags);
	for (i = 0; !rc && i < 8; i++)
		prep(&ring, IOMMU_FAULT_URING_FETCH, w->queue, m[i], sizeof(m[i]), i);
	while (!rc && !*w->stop) {
		rc = io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &ts, NULL);
		rc = rc < 0 && rc != -ETIME && rc != -EINTR ? rc : 0;
		while (!rc && !io_uring_peek_cqe(&ring, &cqe)) {
			i = cqe->user_data;
			rc = cqe->res < 0 ? cqe->res : 0;
			for (n = 0; !rc && n < (unsigned int)(cqe->res / MSG); n++)
				r[i][n] = (struct iommu_hwpt_page_response){
					m[i][n].cookie, SUCCESS
				};
			io_uring_cqe_seen(&ring, cqe);
			if (rc)
				break;
			set_answers(prep(&ring, IOMMU_FAULT_URING_RESPOND_AND_FETCH, w->queue,
					 m[i], sizeof(m[i]), i), r[i], n);
			w->groups += n;
		}
	}
	if (rc)
		w->groups = rc;
	io_uring_queue_exit(&ring);
	return NULL;
}

/* Wait until less than @most groups of the device are without an answer. */
static int wait_outstanding(fetch_t *self, unsigned int most)
{
	struct iommu_test_iopf_stats s;
	int rc, i;

	for (i = 0; i < LONG_MS * 5; i++) {
		rc = iopf_stats(self->fd, self->dev.idev_id, &s);
		if (rc || s.outstanding < most)
			return rc;
		usleep(200);
	}
	return -ETIMEDOUT;
}

/* Threads with rings of their own, and a reader between them. */
TEST_F_TIMEOUT(fetch, stress, 120)
{
	enum { GROUPS = 4000, MOST = 500 };
	struct worker w[3] = {};
	struct iommu_hwpt_pgfault m;
	volatile bool stop = false;
	long answered = 0;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		w[i] = (struct worker){
			.queue = self->queue, .stop = &stop,
			.flags = i ? variant->flags : 0,
		};
		ASSERT_EQ(0, pthread_create(&w[i].thread, NULL, serve, &w[i]));
	}
	for (i = 0; i < GROUPS; i += 8) {
		ASSERT_EQ(0, inject(self, i % MOST, 8, 1));
		if (i % 64 == 0 && fault_read(self->queue, &m, 1) == 1) {
			EXPECT_EQ(0, fault_answer(self->queue, m.cookie, SUCCESS));
			answered++;
		}
		ASSERT_EQ(0, wait_outstanding(self, MOST));
	}
	ASSERT_EQ(0, wait_outstanding(self, 1));
	stop = true;
	for (i = 0; i < 3; i++) {
		pthread_join(w[i].thread, NULL);
		EXPECT_LE(0, w[i].groups);
		answered += w[i].groups;
	}
	EXPECT_EQ(GROUPS, answered);
	expect_answers(_metadata, self, GROUPS, 0);
}

/* ---- multishot reads, beside all that ---- */

static int put_buffers(fetch_t *self, struct io_uring_buf_ring *buffers,
		       unsigned int n)
{
	struct io_uring_sqe *sqe;
	unsigned int i;

	for (i = 0; i < n; i++)
		io_uring_buf_ring_add(buffers, self->m[i], sizeof(self->m[i]), i,
				      io_uring_buf_ring_mask(SLOTS), i);
	io_uring_buf_ring_advance(buffers, n);
	sqe = io_uring_get_sqe(&self->ring);
	io_uring_prep_read_multishot(sqe, self->queue, 0, 0, 1);
	io_uring_sqe_set_data64(sqe, 77);
	return submit(&self->ring);
}

/* Buffers run out again and again: that ends the read, and loses no group. */
TEST_F(fetch, multishot_runs_out)
{
	struct __kernel_timespec ts = { .tv_sec = LONG_MS / 1000 };
	unsigned int n = 0, ended = 0, i, buffer;
	struct io_uring_buf_ring *buffers;
	struct io_uring_cqe *cqe;
	int rc;

	buffers = io_uring_setup_buf_ring(&self->ring, SLOTS, 1, 0, &rc);
	ASSERT_NE(NULL, buffers);
	ASSERT_EQ(0, inject(self, 0, 200, 2));
	ASSERT_EQ(0, put_buffers(self, buffers, 4));
	while (n < 200) {
		ASSERT_EQ(0, io_uring_wait_cqe_timeout(&self->ring, &cqe, &ts));
		rc = cqe->res;
		buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
		ASSERT_EQ(77, cqe->user_data);
		i = cqe->flags & IORING_CQE_F_MORE;
		io_uring_cqe_seen(&self->ring, cqe);
		if (rc == -ENOBUFS) {
			ASSERT_EQ(0, i);
			ASSERT_EQ(0, put_buffers(self, buffers, 4));
			ended++;
			continue;
		}
		ASSERT_EQ(ROOM * MSG, rc);
		for (i = 0; i < ROOM; i += 2, n++) {
			ASSERT_EQ(n, self->m[buffer][i].grpid);
			EXPECT_EQ(0, fault_answer(self->queue, self->m[buffer][i].cookie, SUCCESS));
		}
	}
	EXPECT_LE(11, ended);
	expect_answers(_metadata, self, 200, 0);
}

/* ---- read(2) of a queue that was allocated to block ---- */

FIXTURE(blocking)
{
	int fd;
	uint32_t ioas_id;
	struct mock_device dev;
	uint32_t queue_id;
	int queue;
	uint32_t hwpt_id;
};

typedef FIXTURE_DATA(blocking) blocking_t;

FIXTURE_SETUP(blocking)
{
	int rc;

	self->fd = open("/dev/iommu", O_RDWR);
	if (self->fd < 0)
		SKIP(return, "no /dev/iommu");
	if (iopf_stats_reset(self->fd, 0))
		SKIP(return, "no page request injector");
	rc = fault_queue_alloc_flags(self->fd, IOMMU_FAULT_ALLOC_BLOCKING, &self->queue_id,
				     &self->queue);
	if (rc == -EOPNOTSUPP)
		SKIP(return, "no blocking queues in this kernel");
	ASSERT_EQ(0, rc);
	ASSERT_EQ(0, ioas_alloc(self->fd, &self->ioas_id));
	ASSERT_EQ(0, mock_device_create(self->fd, self->ioas_id, 0, &self->dev));
	ASSERT_EQ(0, hwpt_alloc_paging(self->fd, self->dev.idev_id, self->ioas_id,
				       IOMMU_HWPT_FAULT_ID_VALID, self->queue_id,
				       &self->hwpt_id));
	ASSERT_EQ(0, mock_replace(self->fd, self->dev.stdev_id, self->hwpt_id));
}

FIXTURE_TEARDOWN(blocking)
{
	struct iommu_test_iopf_stats s;

	EXPECT_EQ(0, iommufd_destroy(self->fd, self->dev.stdev_id));
	ASSERT_EQ(0, iopf_stats(self->fd, 0, &s));
	EXPECT_EQ(0, s.outstanding);
	EXPECT_EQ(0, close(self->queue));
	EXPECT_EQ(0, iommufd_destroy(self->fd, self->hwpt_id));
	EXPECT_EQ(0, destroy_queue(self->fd, self->queue_id));
	EXPECT_EQ(0, close(self->fd));
}

static int inject_one(blocking_t *self, uint32_t grpid, uint32_t groups)
{
	return iopf_inject(self->fd, self->dev.idev_id, 0, grpid, ADDR, groups, 1, 0);
}

/* A child that reads one message and answers it; its status is the read's errno. */
static pid_t start_reader(blocking_t *self)
{
	struct iommu_hwpt_pgfault m;
	pid_t pid = fork();
	int rc;

	if (pid)
		return pid;
	rc = fault_read(self->queue, &m, 1);
	if (rc == 1)
		rc = 1 + fault_answer(self->queue, m.cookie, SUCCESS);
	_exit(rc == 1 ? 0 : -rc);
}

TEST_F(blocking, empty)
{
	struct iommu_hwpt_pgfault m;
	struct iovec iov = { &m, sizeof(m) };

	EXPECT_EQ(-1, preadv2(self->queue, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, fcntl(self->queue, F_SETFL, O_RDWR | O_NONBLOCK));
	EXPECT_EQ(-EAGAIN, fault_read(self->queue, &m, 1));
	EXPECT_EQ(0, fault_read_bytes(self->queue, &m, 0));
	EXPECT_EQ(-ESPIPE, fault_read_bytes(self->queue, &m, 1));
	ASSERT_EQ(0, inject_one(self, 1, 1));
	EXPECT_EQ(1, fault_read(self->queue, &m, 1));
	EXPECT_EQ(-EAGAIN, fault_read(self->queue, &m, 1));
	ASSERT_EQ(0, fcntl(self->queue, F_SETFL, O_RDWR));
	ASSERT_EQ(0, inject_one(self, 2, 1));
	EXPECT_EQ(1, fault_read(self->queue, &m, 1));
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
		ASSERT_EQ(0, inject_one(self, 1, i));
		while (i--) {
			ASSERT_LT(0, wait(&status));
			EXPECT_EQ(0, status);
		}
		i = done < 2 ? 1 : 6;
		if (done + i < 8)
			EXPECT_EQ(0, waitpid(-1, &status, WNOHANG));
	}
	ASSERT_EQ(0, iopf_stats(self->fd, self->dev.idev_id, &s));
	EXPECT_EQ(8, s.responses[SUCCESS]);
}

static void on_alarm(int number)
{
	(void)number;
}

TEST_F(blocking, signal)
{
	struct sigaction action = { .sa_handler = on_alarm };
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
	ASSERT_EQ(0, inject_one(self, 1, 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);

	/* killed */
	pid = start_reader(self);
	usleep(SHORT_MS * 1000);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(SIGKILL, WTERMSIG(status));
	ASSERT_EQ(0, inject_one(self, 2, 1));
	EXPECT_EQ(1, fault_read(self->queue, &m, 1));
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
	ASSERT_EQ(0, iopf_inject(self->fd, self->dev.idev_id, 0, 1, ADDR, 1, 2, 0));
	for (i = 0; i < 2; i++) {
		ASSERT_LT(0, wait(&status));
		errors += WEXITSTATUS(status) == EINVAL;
	}
	EXPECT_EQ(2, errors);
	EXPECT_EQ(2, fault_read(self->queue, m, 2));
}

/* io_uring is as with any other queue: the read waits, and no thread with it. */
TEST_F(blocking, uring)
{
	struct iommu_hwpt_pgfault m[2] = {};
	struct io_uring_sqe *sqe;
	struct io_uring ring;

	ASSERT_EQ(0, ring_open(&ring, DEFER));
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read(sqe, self->queue, &m[0], MSG, 0);
	io_uring_sqe_set_data64(sqe, 1);
	ASSERT_EQ(0, submit(&ring));
	expect_quiet(&ring);
	ASSERT_EQ(0, inject_one(self, 1, 1));
	EXPECT_EQ(MSG, result(&ring, 1));
	prep(&ring, IOMMU_FAULT_URING_FETCH, self->queue, &m[1], MSG, 2);
	ASSERT_EQ(0, submit(&ring));
	expect_quiet(&ring);
	ASSERT_EQ(0, inject_one(self, 2, 1));
	EXPECT_EQ(MSG, result(&ring, 2));
	EXPECT_EQ(2, m[1].grpid);
	io_uring_queue_exit(&ring);
}

/* ---- the client library's ring ---- */

#define READS 4

FIXTURE(library)
{
	struct iopf io;
	struct iopf_queue queue;
	struct iopf_ring ring;
	uint32_t ioas_id;
	uint32_t hwpt_id;
	struct mock_device dev;
};

typedef FIXTURE_DATA(library) library_t;

FIXTURE_VARIANT(library)
{
	enum iopf_mode mode;
};

FIXTURE_VARIANT_ADD(library, read)
{
	.mode = IOPF_READ,
};

FIXTURE_VARIANT_ADD(library, multishot)
{
	.mode = IOPF_MULTISHOT,
};

FIXTURE_VARIANT_ADD(library, fetch)
{
	.mode = IOPF_FETCH,
};

FIXTURE_SETUP(library)
{
	if (iopf_open(&self->io))
		SKIP(return, "no /dev/iommu");
	if (iopf_stats_reset(self->io.fd, 0))
		SKIP(return, "no page request injector");
	ASSERT_EQ(0, iopf_queue_alloc(&self->io, 0, &self->queue));
	ASSERT_EQ(0, iopf_ioas_alloc(&self->io, &self->ioas_id));
	ASSERT_EQ(0, mock_device_create(self->io.fd, self->ioas_id, 0, &self->dev));
	ASSERT_EQ(0, iopf_hwpt_alloc(&self->io, self->dev.idev_id, self->ioas_id, 0,
				     self->queue.id, &self->hwpt_id));
	ASSERT_EQ(0, mock_replace(self->io.fd, self->dev.stdev_id, self->hwpt_id));
}

static int ring_init(library_t *self, enum iopf_mode mode)
{
	int rc = iopf_ring_init_mode(&self->ring, &self->queue, mode, READS, ROOM);

	return rc ?: self->ring.mode == mode ? 0 : -EOPNOTSUPP;
}

static void ring_exit(library_t *self)
{
	if (self->ring.impl)
		iopf_ring_exit(&self->ring);
	self->ring.impl = NULL;
}

FIXTURE_TEARDOWN(library)
{
	struct iommu_test_iopf_stats s;

	ring_exit(self);
	EXPECT_EQ(0, iommufd_destroy(self->io.fd, self->dev.stdev_id));
	ASSERT_EQ(0, iopf_stats(self->io.fd, 0, &s));
	EXPECT_EQ(0, s.outstanding);
	EXPECT_EQ(0, s.unmatched);
	EXPECT_EQ(0, iopf_destroy(&self->io, self->hwpt_id));
	EXPECT_EQ(0, iopf_queue_close(&self->queue));
	iopf_close(&self->io);
}

static int inject_groups(library_t *self, uint32_t groups, uint32_t requests)
{
	return iopf_inject(self->io.fd, self->dev.idev_id, 0, 1, ADDR, groups, requests, 0);
}

static unsigned int answer_all(struct iopf_ring *ring, struct iopf_slot *slot)
{
	struct iopf_iter iter = iopf_groups(slot->messages, slot->n_messages);
	struct iopf_group group;
	unsigned int n = 0;

	for (; iopf_next_group(&iter, &group) == 1; n++)
		iopf_slot_answer(slot, group.cookie, SUCCESS);
	iopf_ring_reply(ring, slot);
	return n;
}

/* One at a time and many, and the slots are never enough. */
TEST_F(library, serve)
{
	static const unsigned int burst[] = { 1, 1, 200, 3, 17, 1 };
	unsigned int i, groups = 0, answered = 0, served;
	struct iommu_test_iopf_stats s;
	struct iopf_slot *slot;
	int event = 0;

	ASSERT_EQ(0, ring_init(self, variant->mode));
	for (i = 0; i < 6; i++) {
		ASSERT_EQ(0, inject_groups(self, burst[i], 2));
		for (served = 0; served < burst[i] || answered < groups;) {
			event = iopf_ring_next(&self->ring, 200, &slot);
			ASSERT_LT(0, event);
			if (event == IOPF_ANSWERED) {
				answered += slot->n_answers;
				EXPECT_EQ(0, slot->n_refused);
				continue;
			}
			served += answer_all(&self->ring, slot);
			groups = served == burst[i] ? groups + served : groups;
		}
		EXPECT_EQ(burst[i], served);
		EXPECT_EQ(groups, answered);
		ASSERT_EQ(0, iopf_stats(self->io.fd, self->dev.idev_id, &s));
		EXPECT_EQ(groups, s.responses[SUCCESS]);
	}
	EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&self->ring, SHORT_MS, &slot));
}

/* A cookie that is gone costs nothing but itself. */
TEST_F(library, refused)
{
	unsigned int where, count = variant->mode == IOPF_FETCH ? 4 : 1;
	struct iommu_test_iopf_stats s;
	struct iopf_slot *slot;

	for (where = 0; where < 4; where++) {
		ASSERT_EQ(0, iopf_stats_reset(self->io.fd, self->dev.idev_id));
		ASSERT_EQ(0, inject_groups(self, 4, 1));
		ASSERT_EQ(0, ring_init(self, variant->mode));
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, LONG_MS, &slot));
		ASSERT_EQ(4, slot->n_messages);
		slot->messages[where].cookie += 1 << 20;
		answer_all(&self->ring, slot);
		ASSERT_EQ(IOPF_ANSWERED, iopf_ring_next(&self->ring, LONG_MS, &slot));
		EXPECT_LE(1, slot->n_refused);
		EXPECT_GE(count, slot->n_refused);
		ASSERT_EQ(0, iopf_stats(self->io.fd, self->dev.idev_id, &s));
		EXPECT_EQ(3, s.responses[SUCCESS]);
		/* and the slot is in use again */
		ASSERT_EQ(0, inject_groups(self, 1, 1));
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, LONG_MS, &slot));
		answer_all(&self->ring, slot);
		ring_exit(self);
	}
}

/* What was answered stays so; what was not seen is refused, or left for others. */
TEST_F(library, exit)
{
	struct iommu_hwpt_pgfault m[ROOM];
	struct iommu_test_iopf_stats s;
	struct iopf_slot *slot;
	int round, rest;

	for (round = 0; round < 10; round++) {
		ASSERT_EQ(0, iopf_stats_reset(self->io.fd, self->dev.idev_id));
		ASSERT_EQ(0, inject_groups(self, 2, 1));
		ASSERT_EQ(0, ring_init(self, variant->mode));
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, LONG_MS, &slot));
		ASSERT_EQ(2, slot->n_messages);
		answer_all(&self->ring, slot);
		ASSERT_EQ(0, inject_groups(self, 3, 1));
		ring_exit(self);
		rest = fault_read(self->queue.fd, m, ROOM);
		ASSERT_EQ(0, iopf_stats(self->io.fd, self->dev.idev_id, &s));
		EXPECT_EQ(2, s.responses[SUCCESS]);
		EXPECT_EQ(3, s.responses[INVALID] + rest);
		while (rest > 0)
			EXPECT_EQ(0, fault_answer(self->queue.fd, m[--rest].cookie, INVALID));
	}
}

/* A group that no slot has room for is an error that says so. */
TEST_F(library, too_large)
{
	struct iopf_slot *slot;

	ASSERT_EQ(0, ring_init(self, variant->mode));
	ASSERT_EQ(0, inject_groups(self, 1, ROOM + 1));
	EXPECT_EQ(-EINVAL, iopf_ring_next(&self->ring, LONG_MS, &slot));
	EXPECT_NE(NULL, strstr(iopf_error(&self->io), "posted read"));
}

TEST_HARNESS_MAIN
