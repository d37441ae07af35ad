// SPDX-License-Identifier: GPL-2.0-only
/*
 * Threads that sleep in read(2) of a queue which was allocated to block.
 */
#include <sys/uio.h>

#include "iommufd_fault_devs.h"

#define FEW 4 /* messages that most reads here have room for: not two groups of three */

FIXTURE(blocking)
{
	struct env env;
	struct queue *queue;
	struct mock_device *dev;
};

FIXTURE_SETUP(blocking)
{
	struct env *env = &self->env;
	uint32_t hwpt;

	self->dev = env_open_device(_metadata, env, 0);
	if (!self->dev)
		return;
	self->queue = &env->queues[env->n_queues++];
	ASSERT_EQ(0, fault_queue_alloc_flags(env->fd, IOMMU_FAULT_ALLOC_BLOCKING,
					     &self->queue->id, &self->queue->fd));
	hwpt = env_hwpt(_metadata, env, self->dev, false, 0, self->queue);
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, hwpt));
}

FIXTURE_TEARDOWN(blocking)
{
	env_close(_metadata, &self->env);
}

/* Start a read with room for @room messages, and let it fall asleep. */
static void reader_start(struct __test_metadata *_metadata, struct waiter *w, int fd,
			 unsigned int room)
{
	*w = (struct waiter){ .by = WAIT_READ, .fd = fd, .room = room, .to = w->to };
	waiter_start(_metadata, w);
}

TEST_F(blocking, alloc_flags)
{
	struct queue q;

	EXPECT_EQ(-EOPNOTSUPP,
		  fault_queue_alloc_flags(self->env.fd, IOMMU_FAULT_ALLOC_BLOCKING | 1U << 31,
					  &q.id, &q.fd));
}

TEST_F(blocking, read_waits)
{
	struct waiter s = {};

	reader_start(_metadata, &s, self->queue->fd, FEW);
	EXPECT_EQ(-ETIME, waiter_result(&s, SHORT_MS));
	inject_from(_metadata, &self->env, self->dev, 3, 1, 1);
	EXPECT_EQ(1, waiter_result(&s, LONG_MS));
	EXPECT_EQ(3, s.m->grpid);
	EXPECT_EQ(0, fault_answer(self->queue->fd, s.m->cookie, SUCCESS));
	/* what is there already is not waited for */
	inject_from(_metadata, &self->env, self->dev, 4, 1, 1);
	EXPECT_EQ(4, take(_metadata, self->queue->fd).grpid);
	EXPECT_EQ(0, fault_read(self->queue->fd, s.m, 0));
}

TEST_F(blocking, nonblock)
{
	struct iommu_hwpt_pgfault m;
	struct iovec iov = { &m, sizeof(m) };
	int fd = self->queue->fd;

	EXPECT_EQ(-1, preadv2(fd, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK));
	EXPECT_EQ(-EAGAIN, fault_read(fd, &m, 1));
	EXPECT_EQ(POLLOUT, fault_poll(fd, 0));
	inject_from(_metadata, &self->env, self->dev, 3, 1, 1);
	take(_metadata, fd);
	EXPECT_EQ(-EAGAIN, fault_read(fd, &m, 1));
}

TEST_F(blocking, signal)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct waiter s = {};

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	reader_start(_metadata, &s, self->queue->fd, FEW);
	ASSERT_EQ(0, pthread_kill(s.thread, SIGUSR1));
	EXPECT_EQ(-EINTR, waiter_result(&s, LONG_MS));
	inject_from(_metadata, &self->env, self->dev, 3, 1, 1);
	take(_metadata, self->queue->fd);
}

/* One fault wakes one of two readers; the first, unless that does not run for a millisecond. */
TEST_F(blocking, exclusive)
{
	struct waiter s[2] = {};
	unsigned int i;

	reader_start(_metadata, &s[0], self->queue->fd, FEW);
	reader_start(_metadata, &s[1], self->queue->fd, FEW);
	inject_from(_metadata, &self->env, self->dev, 1, 1, 2);
	i = next_waiter(s, 2, 0);
	ASSERT_GT(2, i);
	EXPECT_EQ(2, waiter_result(&s[i], LONG_MS));
	EXPECT_EQ(-ETIME, waiter_result(&s[!i], SHORT_MS));
	inject_from(_metadata, &self->env, self->dev, 2, 1, 3);
	EXPECT_EQ(3, waiter_result(&s[!i], LONG_MS));
	EXPECT_EQ(2, s[!i].m->grpid);
}

/* Each has room for one group: the first to wake up wakes the second. */
TEST_F(blocking, wakes_next)
{
	struct waiter s[2] = {};

	reader_start(_metadata, &s[0], self->queue->fd, FEW);
	reader_start(_metadata, &s[1], self->queue->fd, FEW);
	inject_from(_metadata, &self->env, self->dev, 1, 2, 3);
	EXPECT_EQ(3, waiter_result(&s[0], LONG_MS));
	EXPECT_EQ(3, waiter_result(&s[1], LONG_MS));
	EXPECT_NE(s[0].m->cookie, s[1].m->cookie);
}

/*
 * The first, @s, ends with @rc and leaves the group: another one gets it. A first that does not
 * run for a millisecond, while the other one is woken as well, has seen nothing: then once more.
 */
static void wakes_another(struct __test_metadata *_metadata, struct _test_data_blocking *self,
			  struct waiter *s, long rc)
{
	struct waiter other = {};
	long first;

	do {
		reader_start(_metadata, &other, self->queue->fd, FEW);
		inject_from(_metadata, &self->env, self->dev, 1, 1, 3);
		EXPECT_EQ(3, waiter_result(&other, LONG_MS));
		first = waiter_result(s, SHORT_MS);
	} while (first == -ETIME);
	EXPECT_EQ(rc, first);
}

TEST_F(blocking, too_small_wakes_next)
{
	struct waiter s = {};

	reader_start(_metadata, &s, self->queue->fd, 2);
	wakes_another(_metadata, self, &s, -EINVAL);
}

/* It has taken the group, and puts it back. */
TEST_F(blocking, efault_wakes_next)
{
	struct waiter s = { .to = (void *)fence(_metadata, PAGE) };

	reader_start(_metadata, &s, self->queue->fd, FEW);
	wakes_another(_metadata, self, &s, -EFAULT);
}

/* A read keeps the file, and so the queue: nothing ends it but a fault or a signal. */
TEST_F(blocking, destroy)
{
	struct iommu_test_iopf_stats stats = {};
	struct waiter s = {};
	unsigned int ms;

	reader_start(_metadata, &s, self->queue->fd, FEW);
	EXPECT_EQ(-EBUSY, iommufd_destroy(self->env.fd, self->queue->id));
	env_close_queue(_metadata, self->queue);
	EXPECT_EQ(-EBUSY, iommufd_destroy(self->env.fd, self->queue->id));
	EXPECT_EQ(-ETIME, waiter_result(&s, SHORT_MS));
	inject_from(_metadata, &self->env, self->dev, 3, 1, 1);
	EXPECT_EQ(1, waiter_result(&s, LONG_MS));
	EXPECT_EQ(3, s.m->grpid);
	/* that was the last who could have answered */
	for (ms = 0; ms < LONG_MS && !stats.responses[INVALID]; ms++) {
		usleep(1000);
		ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &stats));
	}
	EXPECT_EQ(1, stats.responses[INVALID]);
}

TEST_F(blocking, sigkill)
{
	struct iommu_hwpt_pgfault m;
	int status;
	pid_t pid;

	pid = fork();
	if (!pid)
		_exit(fault_read(self->queue->fd, &m, 1) != -ENODEV);
	usleep(SHORT_MS * 1000);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	inject_from(_metadata, &self->env, self->dev, 3, 1, 1);
	take(_metadata, self->queue->fd);
}

TEST_HARNESS_MAIN
