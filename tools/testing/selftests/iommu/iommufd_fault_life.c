// SPDX-License-Identifier: GPL-2.0-only
/*
 * The life of a queue: replace, detach, close and destroy in each order, processes that
 * share it, and those that die.
 */
#include "iommufd_fault_queue.h"

/* Five groups that are delivered, five that are queued. */
static uint32_t leave_ten(struct __test_metadata *_metadata, struct env *env,
			  const struct mock_device *dev, int fault_fd)
{
	struct iommu_hwpt_pgfault m[10];

	inject_from(_metadata, env, dev, 20, 10, 2);
	EXPECT_EQ(10, fault_read(fault_fd, m, 10));
	return m[9].cookie;
}

TEST_F(fault, detach_answers)
{
	int fd = self->queue->fd;
	uint32_t cookie = leave_ten(_metadata, &self->env, self->dev, fd);

	env_destroy_device(_metadata, &self->env, self->dev);
	expect_gone(_metadata, &self->env, 0, 10);
	EXPECT_EQ(-EINVAL, fault_answer(fd, cookie, SUCCESS));
	expect_empty(_metadata, fd);
}

TEST_F(fault, replace_answers)
{
	struct queue *other = env_queue(_metadata, &self->env);
	uint32_t hwpt = env_hwpt(_metadata, &self->env, self->dev, variant->nested, 0, other);
	int fd = self->queue->fd;
	uint32_t cookie;

	/* to a HWPT with another queue */
	cookie = leave_ten(_metadata, &self->env, self->dev, fd);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, hwpt));
	expect_answers_of(_metadata, &self->env, self->dev, 10, 0);
	EXPECT_EQ(-EINVAL, fault_answer(fd, cookie, SUCCESS));
	expect_empty(_metadata, fd);
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	expect_empty(_metadata, fd);
	EXPECT_EQ(-EINVAL, fault_answer(fd, cookie, SUCCESS));
	EXPECT_EQ(0, fault_answer(other->fd, take(_metadata, other->fd).cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 11, 0);

	/* to one that has none: what comes later is answered at once */
	leave_ten(_metadata, &self->env, self->dev, other->fd);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->plain_id));
	expect_answers_of(_metadata, &self->env, self->dev, 21, 0);
	inject_from(_metadata, &self->env, self->dev, 1, 3, 2);
	expect_answers_of(_metadata, &self->env, self->dev, 21, 3);
	expect_empty(_metadata, other->fd);

	/* and back */
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->hwpt_id));
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	EXPECT_EQ(0, fault_answer(fd, take(_metadata, fd).cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 22, 3);
}

TEST_F(fault, replace_with_same_queue)
{
	uint32_t hwpt = env_hwpt(_metadata, &self->env, self->dev, variant->nested, 0,
				 self->queue);
	int fd = self->queue->fd;
	uint32_t cookie;

	cookie = leave_ten(_metadata, &self->env, self->dev, fd);
	/* by itself: nothing happens */
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->hwpt_id));
	expect_answers_of(_metadata, &self->env, self->dev, 0, 0);
	EXPECT_EQ(0, fault_answer(fd, cookie, SUCCESS));
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, hwpt));
	expect_answers_of(_metadata, &self->env, self->dev, 10, 0);
	expect_empty(_metadata, fd);
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	EXPECT_EQ(0, fault_answer(fd, take(_metadata, fd).cookie, SUCCESS));
	EXPECT_EQ(0, iommufd_destroy(self->env.fd, self->hwpt_id));
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	EXPECT_EQ(0, fault_answer(fd, take(_metadata, fd).cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 12, 0);
}

TEST_F(fault, close_answers)
{
	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	leave_ten(_metadata, &self->env, self->dev, self->queue->fd);
	env_close_queue(_metadata, self->queue);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 10);
	inject_from(_metadata, &self->env, self->dev, 1, 4, 2);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 14);
	/* attaching to it again is no error, but brings nothing */
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->plain_id));
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->hwpt_id));
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 15);
}

TEST_F(fault, destroy_order)
{
	int fd = self->env.fd;

	leave_ten(_metadata, &self->env, self->dev, self->queue->fd);
	EXPECT_EQ(-EBUSY, iommufd_destroy(fd, self->hwpt_id));
	EXPECT_EQ(-EBUSY, iommufd_destroy(fd, self->queue->id));
	ASSERT_EQ(0, mock_replace(fd, self->dev->stdev_id, self->plain_id));
	EXPECT_EQ(-EBUSY, iommufd_destroy(fd, self->queue->id));
	EXPECT_EQ(0, iommufd_destroy(fd, self->hwpt_id));
	EXPECT_EQ(-EBUSY, iommufd_destroy(fd, self->queue->id));
	env_close_queue(_metadata, self->queue);
	EXPECT_EQ(0, iommufd_destroy(fd, self->queue->id));
	expect_answers_of(_metadata, &self->env, self->dev, 10, 0);
}

/* The HWPT alone keeps the queue, after the file was closed. */
TEST_F(fault, destroy_order_file_first)
{
	int fd = self->env.fd;

	leave_ten(_metadata, &self->env, self->dev, self->queue->fd);
	env_close_queue(_metadata, self->queue);
	EXPECT_EQ(-EBUSY, iommufd_destroy(fd, self->queue->id));
	env_destroy_device(_metadata, &self->env, self->dev);
	expect_gone(_metadata, &self->env, 0, 10);
	EXPECT_EQ(-EBUSY, iommufd_destroy(fd, self->queue->id));
	EXPECT_EQ(0, iommufd_destroy(fd, self->hwpt_id));
	EXPECT_EQ(0, iommufd_destroy(fd, self->queue->id));
}

/* With the iommufd goes all that was in it. The file of the queue says so. */
TEST_F(fault, iommufd_closed_first)
{
	int queue = self->queue->fd, again = open("/dev/iommu", O_RDWR);
	uint32_t cookie;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	cookie = leave_ten(_metadata, &self->env, self->dev, queue);
	ASSERT_EQ(self->env.fd, dup2(again, self->env.fd));
	expect_gone(_metadata, &self->env, 0, 10);
	EXPECT_EQ(-EINVAL, fault_answer(queue, cookie, SUCCESS));
	EXPECT_EQ(POLLIN | POLLOUT | POLLHUP, fault_poll(queue, 0));
	env_close_queue(_metadata, self->queue);
	self->env.n_devs = 0;
	close(again);
}

TEST_F(fault, dup)
{
	int copy = dup(self->queue->fd);
	uint32_t cookie;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	inject_from(_metadata, &self->env, self->dev, 1, 2, 1);
	cookie = take(_metadata, copy).cookie;
	env_close_queue(_metadata, self->queue);
	EXPECT_EQ(0, fault_answer(copy, cookie, SUCCESS));
	take(_metadata, copy);
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
	close(copy);
	expect_answers_of(_metadata, &self->env, self->dev, 1, 1);
}

/* What a child has read its parent can answer. */
TEST_F(fault, fork)
{
	uint32_t *cookie = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				-1, 0);
	struct iommu_hwpt_pgfault m;
	int status;
	pid_t pid;

	inject_from(_metadata, &self->env, self->dev, 1, 2, 1);
	pid = fork();
	if (!pid) {
		if (fault_read(self->queue->fd, &m, 1) == 1)
			*cookie = m.cookie;
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, fault_answer(self->queue->fd, *cookie, SUCCESS));
	EXPECT_EQ(2, take(_metadata, self->queue->fd).grpid);
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
}

/* A child reads until it has @n groups, says so, and waits for its end. */
static pid_t start_victim(struct __test_metadata *_metadata, const struct env *env,
			  int fault_fd, unsigned int n, bool keep_iommufd)
{
	struct iommu_hwpt_pgfault m;
	int ready[2];
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid) {
		if (!keep_iommufd)
			close(env->fd);
		while (n && fault_read(fault_fd, &m, 1) == 1)
			n--;
		if (n || write(ready[1], "", 1) != 1)
			_exit(1);
		pause();
		_exit(1);
	}
	close(ready[1]);
	EXPECT_EQ(1, read(ready[0], &c, 1));
	close(ready[0]);
	return pid;
}

/* A server dies that was the only one to hold the queue's file. */
TEST_F(fault, sigkill_server)
{
	pid_t pid;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	inject_from(_metadata, &self->env, self->dev, 1, 8, 1);
	pid = start_victim(_metadata, &self->env, self->queue->fd, 5, false);
	env_close_queue(_metadata, self->queue);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 0);
	kill_victim(_metadata, pid);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 8);
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	expect_answers_of(_metadata, &self->env, self->dev, 0, 9);
}

/* A process dies that has everything: the devices go with it. */
TEST_F(fault, sigkill_owner)
{
	int again = open("/dev/iommu", O_RDWR);
	pid_t pid;

	inject_from(_metadata, &self->env, self->dev, 1, 8, 1);
	pid = start_victim(_metadata, &self->env, self->queue->fd, 5, true);
	env_close_queue(_metadata, self->queue);
	ASSERT_EQ(self->env.fd, dup2(again, self->env.fd));
	self->env.n_devs = 0;
	expect_gone(_metadata, &self->env, 0, 0);
	kill_victim(_metadata, pid);
	expect_gone(_metadata, &self->env, 0, 8);
	close(again);
}

TEST_F(fault, fdinfo)
{
	struct iommu_hwpt_page_response r[5];
	int fd = self->queue->fd;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	EXPECT_EQ(self->queue->id, fdinfo_number(fd, "iommufd-fault-id"));
	EXPECT_EQ(DEPTH, fdinfo_number(fd, "iommufd-fault-depth"));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-queued"));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-delivered"));
	inject_from(_metadata, &self->env, self->dev, 1, 8, 1);
	take_many(_metadata, fd, r, 5);
	EXPECT_EQ(3, fdinfo_number(fd, "iommufd-fault-queued"));
	EXPECT_EQ(5, fdinfo_number(fd, "iommufd-fault-delivered"));
	EXPECT_EQ(2, fault_write(fd, r, 2));
	EXPECT_EQ(3, fdinfo_number(fd, "iommufd-fault-delivered"));
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->plain_id));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-queued"));
	EXPECT_EQ(0, fdinfo_number(fd, "iommufd-fault-delivered"));
}

TEST_HARNESS_MAIN
