// SPDX-License-Identifier: GPL-2.0-only
/*
 * The end of a fault queue: while its iommufd is there a fault may come, whatever
 * was detached and destroyed. Without it none can, and whoever waits is told:
 * reads end with 0, IOMMU_FAULT_SERVE with ENODEV, poll with POLLHUP.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "../../../iommu/lib/uring.h"
#include "iommufd_fault_env.h"

enum { READ, SERVE, TIMED, POLL, EPOLL, THREADS };
enum { POSTED, MULTISHOT, POLL_ADD, POLL_MULTI, REQUESTS };

#define BUFFERS 4
#define HUNG_UP (POLLIN | POLLOUT | POLLHUP)

FIXTURE(end)
{
	struct fault_env env;
	struct io_uring ring;
	struct iommu_hwpt_pgfault m[ROOM];
	struct io_uring_buf_ring *buffers;
	struct iommu_hwpt_pgfault provided[BUFFERS][ROOM];
	struct waiter w[THREADS];
};

typedef FIXTURE_DATA(end) end_t;

FIXTURE_VARIANT(end)
{
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(end, plain)
{
	.flags = 0,
};

FIXTURE_VARIANT_ADD(end, defer)
{
	.flags = DEFER,
};

FIXTURE_VARIANT_ADD(end, sqpoll)
{
	.flags = IORING_SETUP_SQPOLL,
};

static void open_ring(struct __test_metadata *_metadata, end_t *self, unsigned int flags)
{
	int rc, i;

	ASSERT_EQ(0, ring_open(&self->ring, flags));
	self->buffers = setup_buffers(&self->ring, BUFFERS, 1, &rc);
	ASSERT_NE(NULL, self->buffers);
	for (i = 0; i < BUFFERS; i++)
		io_uring_buf_ring_add(self->buffers, self->provided[i], sizeof(self->provided[i]),
				      i, io_uring_buf_ring_mask(BUFFERS), i);
	io_uring_buf_ring_advance(self->buffers, BUFFERS);
}

FIXTURE_SETUP(end)
{
	fault_env_flags(_metadata, &self->env, IOMMU_FAULT_ALLOC_BLOCKING);
	if (!_metadata->exit_code)
		open_ring(_metadata, self, variant->flags);
}

/* What was sent was answered: the counters are those of any iommufd. */
FIXTURE_TEARDOWN(end)
{
	struct iommu_test_iopf_stats s;
	int fd;

	io_uring_queue_exit(&self->ring);
	if (self->env.queue >= 0)
		close(self->env.queue);
	if (self->env.fd >= 0)
		close(self->env.fd);
	fd = open("/dev/iommu", O_RDWR);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, iopf_stats(fd, 0, &s));
	EXPECT_EQ(s.groups, s.responses[0] + s.responses[1] + s.responses[2]);
	EXPECT_EQ(0, s.outstanding);
	EXPECT_EQ(0, s.unmatched);
	close(fd);
}

/* ---- a waiter of each kind ---- */

static void start_requests(struct __test_metadata *_metadata, end_t *self)
{
	struct io_uring *ring = &self->ring;
	struct io_uring_sqe *sqe;

	prep_read(ring, self->env.queue, self->m, sizeof(self->m), POSTED);
	sqe = io_uring_get_sqe(ring);
	prep_read_multishot(sqe, self->env.queue, 1);
	io_uring_sqe_set_data64(sqe, MULTISHOT);
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_poll_add(sqe, self->env.queue, POLLIN);
	io_uring_sqe_set_data64(sqe, POLL_ADD);
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_poll_multishot(sqe, self->env.queue, POLLIN);
	io_uring_sqe_set_data64(sqe, POLL_MULTI);
	ASSERT_EQ(0, submit(ring));
}

static void start_all(struct __test_metadata *_metadata, end_t *self)
{
	static const enum wait_by by[THREADS] = {
		[READ] = WAIT_READ, [SERVE] = WAIT_SERVE, [TIMED] = WAIT_SERVE,
		[POLL] = WAIT_POLL, [EPOLL] = WAIT_EPOLL,
	};
	unsigned int i;

	start_requests(_metadata, self);
	for (i = 0; i < THREADS; i++) {
		self->w[i] = (struct waiter){
			.by = by[i], .fd = self->env.queue, .room = ROOM,
			.timeout_ns = i == TIMED ? 100 * LONG_NS : FOREVER,
		};
		waiter_start(_metadata, &self->w[i]);
	}
}

static void expect_all_wait(struct __test_metadata *_metadata, end_t *self)
{
	unsigned int i;

	expect_quiet(&self->ring);
	for (i = 0; i < THREADS; i++)
		EXPECT_EQ(-ETIME, waiter_result(&self->w[i], 0));
	EXPECT_EQ(POLLOUT, fault_poll(self->env.queue, 0));
}

/* Each request completes once, and is over; but a poll that says so and stays. */
static void expect_requests_end(struct __test_metadata *_metadata, end_t *self)
{
	unsigned int seen = 0;
	struct io_uring_cqe cqe;
	int rc;

	while (seen != (1 << REQUESTS) - 1) {
		rc = completion(&self->ring, LONG_MS, &cqe);
		ASSERT_NE(-ETIME, rc) {
			TH_LOG("ended: %#x", seen);
		}
		switch (cqe.user_data) {
		case POSTED:
		case MULTISHOT:
			EXPECT_EQ(0, rc);
			EXPECT_FALSE(cqe.flags & IORING_CQE_F_MORE);
			EXPECT_FALSE(seen & 1 << cqe.user_data);
			break;
		default:
			EXPECT_EQ(POLLIN | POLLHUP, rc);
		}
		seen |= 1 << cqe.user_data;
	}
}

static void expect_waits_end(struct __test_metadata *_metadata, end_t *self)
{
	EXPECT_EQ(0, waiter_result(&self->w[READ], LONG_MS));
	EXPECT_EQ(-ENODEV, waiter_result(&self->w[SERVE], LONG_MS));
	EXPECT_EQ(-ENODEV, waiter_result(&self->w[TIMED], LONG_MS));
	EXPECT_EQ(0, self->w[SERVE].cmd.message_num);
	EXPECT_EQ(EPOLLIN | EPOLLHUP, waiter_result(&self->w[EPOLL], LONG_MS));
}

static void expect_threads_end(struct __test_metadata *_metadata, end_t *self)
{
	expect_waits_end(_metadata, self);
	EXPECT_EQ(POLLIN | POLLHUP, waiter_result(&self->w[POLL], LONG_MS));
}

/* Who comes later is told the same, at once, and each time. */
static void expect_ended(struct __test_metadata *_metadata, int queue)
{
	struct iommu_hwpt_page_response r = { .cookie = 1, .code = SUCCESS };
	struct iommu_fault_serve cmd;
	struct iommu_hwpt_pgfault m;
	int i;

	for (i = 0; i < 3; i++) {
		EXPECT_EQ(HUNG_UP, fault_poll(queue, 0));
		EXPECT_EQ(0, fault_read(queue, &m, 1));
		EXPECT_EQ(-ENODEV, fault_serve(queue, &cmd, NULL, 0, &m, 1, 0));
		EXPECT_EQ(-ENODEV, fault_serve(queue, &cmd, NULL, 0, &m, 1, FOREVER));
		EXPECT_EQ(-EINVAL, fault_write(queue, &r, 1));
		EXPECT_EQ(0, fcntl(queue, F_SETFL, O_RDWR | (i ? 0 : O_NONBLOCK)));
	}
}

static void close_iommufd(struct __test_metadata *_metadata, end_t *self)
{
	ASSERT_EQ(0, close(self->env.fd));
	self->env.fd = -1;
}

/* ---- the end ---- */

TEST_F(end, iommufd)
{
	struct fault_env *env = &self->env;

	start_all(_metadata, self);
	expect_all_wait(_metadata, self);
	ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->plain_id));
	ASSERT_EQ(0, iommufd_destroy(env->fd, env->hwpt_id));
	expect_all_wait(_metadata, self);
	ASSERT_EQ(0, iommufd_destroy(env->fd, env->dev.stdev_id));
	ASSERT_EQ(0, iommufd_destroy(env->fd, env->plain_id));
	ASSERT_EQ(0, iommufd_destroy(env->fd, env->ioas_id));
	expect_all_wait(_metadata, self);
	close_iommufd(_metadata, self);
	expect_threads_end(_metadata, self);
	expect_requests_end(_metadata, self);
	expect_ended(_metadata, env->queue);
}

/* Nothing was taken down: closing does all of it. */
TEST_F(end, iommufd_with_everything)
{
	start_all(_metadata, self);
	close_iommufd(_metadata, self);
	expect_threads_end(_metadata, self);
	expect_requests_end(_metadata, self);
	expect_ended(_metadata, self->env.queue);
}

/* A table can come back as long as there is an iommufd to make it in. */
TEST_F(end, not_yet)
{
	struct fault_env *env = &self->env;

	ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->plain_id));
	ASSERT_EQ(0, iommufd_destroy(env->fd, env->hwpt_id));
	start_requests(_metadata, self);
	expect_quiet(&self->ring);
	ASSERT_EQ(0, hwpt_alloc_paging(env->fd, env->dev.idev_id, env->ioas_id,
				       IOMMU_HWPT_FAULT_ID_VALID, env->queue_id, &env->hwpt_id));
	ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->hwpt_id));
	ASSERT_EQ(0, inject(env, 5, 1, 1));
	EXPECT_EQ(MSG, result(&self->ring, POSTED));
	EXPECT_EQ(5, self->m[0].grpid);
}

/* A queue that no table ever used */
TEST_F(end, queue_without_table)
{
	struct fault_env *env = &self->env;
	int old = env->queue;
	uint32_t id;

	ASSERT_EQ(0, fault_queue_alloc_flags(env->fd, IOMMU_FAULT_ALLOC_BLOCKING, &id,
					     &env->queue));
	start_all(_metadata, self);
	expect_all_wait(_metadata, self);
	close_iommufd(_metadata, self);
	expect_threads_end(_metadata, self);
	expect_requests_end(_metadata, self);
	expect_ended(_metadata, env->queue);
	expect_ended(_metadata, old);
	close(old);
}

/* Without anybody who waits, also of a queue whose reads do not wait */
TEST_F(end, nobody_waits)
{
	struct fault_env *env = &self->env;
	int plain;
	uint32_t id;

	ASSERT_EQ(0, fault_queue_alloc(env->fd, &id, &plain));
	close_iommufd(_metadata, self);
	expect_ended(_metadata, env->queue);
	expect_ended(_metadata, plain);
	start_requests(_metadata, self);
	expect_requests_end(_metadata, self);
	close(plain);
}

/* Groups that nobody has read, or answered, are answered with the table's end. */
TEST_F(end, with_groups)
{
	struct fault_env *env = &self->env;
	struct iommu_hwpt_page_response r;
	struct iommu_fault_serve cmd;

	ASSERT_EQ(0, inject(env, 1, 3, 2));
	ASSERT_EQ(2, fault_read(env->queue, self->m, 2));
	r = (struct iommu_hwpt_page_response){ self->m[0].cookie, SUCCESS };
	close_iommufd(_metadata, self);
	EXPECT_EQ(-EINVAL, fault_serve(env->queue, &cmd, &r, 1, self->m, ROOM, FOREVER));
	EXPECT_EQ(0, cmd.response_num);
	EXPECT_EQ(-EINVAL, fault_write(env->queue, &r, 1));
	expect_ended(_metadata, env->queue);
}

/* ---- whose end it is ---- */

/* Each descriptor of the iommufd keeps it. */
TEST_F(end, dup_of_iommufd)
{
	int other = dup(self->env.fd);

	start_all(_metadata, self);
	close_iommufd(_metadata, self);
	expect_all_wait(_metadata, self);
	ASSERT_EQ(0, close(other));
	expect_threads_end(_metadata, self);
	expect_requests_end(_metadata, self);
}

/* Also one of another process; it ends by itself or by force. */
static void child_keeps_iommufd(struct __test_metadata *_metadata, end_t *self, int number)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		pause();
		_exit(0);
	}
	start_all(_metadata, self);
	close_iommufd(_metadata, self);
	expect_all_wait(_metadata, self);
	ASSERT_EQ(0, kill(pid, number));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	expect_threads_end(_metadata, self);
	expect_requests_end(_metadata, self);
}

TEST_F(end, fork)
{
	ASSERT_NE(SIG_ERR, signal(SIGUSR1, on_signal));
	child_keeps_iommufd(_metadata, self, SIGUSR1);
}

TEST_F(end, fork_and_kill)
{
	child_keeps_iommufd(_metadata, self, SIGKILL);
}

/* All who wait for the same file are told, by whichever descriptor. */
TEST_F(end, dup_of_queue)
{
	int old = self->env.queue, status;
	struct iommu_hwpt_pgfault m;
	pid_t pid = fork();

	if (!pid) {
		close(self->env.fd);
		_exit(fault_read(self->env.queue, &m, 1) != 0);
	}
	ASSERT_TRUE(task_falls_asleep(pid));
	self->env.queue = dup(old);
	ASSERT_EQ(0, close(old));
	start_all(_metadata, self);
	close_iommufd(_metadata, self);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	expect_threads_end(_metadata, self);
	expect_requests_end(_metadata, self);
}

/*
 * The other order: the file first, by its last descriptor; what waits keeps it. But
 * poll looks for its descriptor again when it is woken.
 */
TEST_F(end, file_first)
{
	start_all(_metadata, self);
	fault_env_close_queue(&self->env);
	expect_quiet(&self->ring);
	EXPECT_EQ(-ETIME, waiter_result(&self->w[SERVE], 0));
	close_iommufd(_metadata, self);
	expect_waits_end(_metadata, self);
	EXPECT_EQ(POLLNVAL, waiter_result(&self->w[POLL], LONG_MS));
	expect_requests_end(_metadata, self);
}

/* File and ring first, then the iommufd, and all at once: nothing is left behind. */
TEST_F(end, all_at_once)
{
	unsigned int i;
	pid_t pid;

	for (i = 0; i < 2; i++) {
		pid = fork();
		if (!pid) {
			/* A ring of its own; the parent's stays the parent's. */
			open_ring(_metadata, self, variant->flags);
			start_all(_metadata, self);
			fault_env_close_queue(&self->env);
			raise(i ? SIGKILL : SIGUSR2);
		}
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	}
	ASSERT_EQ(0, inject(&self->env, 5, 1, 1));
	EXPECT_EQ(5, take(_metadata, self->env.queue).grpid);
	fault_env_close_queue(&self->env);
	close_iommufd(_metadata, self);
}

/* A device that is bound, as one of VFIO is, keeps the context without a descriptor. */
TEST_F(end, bound_device)
{
	struct fault_env *env = &self->env;
	uint32_t dev_id;
	int driver;

	ASSERT_EQ(0, driver_open(env->fd, 0, &dev_id, &driver));
	ASSERT_EQ(0, fault_bind(env->fd, dev_id, env->queue_id));
	start_all(_metadata, self);
	close_iommufd(_metadata, self);
	expect_all_wait(_metadata, self);
	ASSERT_EQ(0, close(driver));
	expect_threads_end(_metadata, self);
	expect_requests_end(_metadata, self);
}

TEST_HARNESS_MAIN
