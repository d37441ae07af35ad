// SPDX-License-Identifier: GPL-2.0-only
/*
 * Servers that die or stop, and those who have no right: what iommufd's fault queue
 * does for the device, and for others.
 */
#include <linux/userfaultfd.h>
#include <sys/syscall.h>

#include "iommufd_fault_sides.h"

FIXTURE(server)
{
	struct sides env;
	int pipe[2];
	pid_t pid;
};

FIXTURE_SETUP(server)
{
	sides_open(_metadata, &self->env);
	ASSERT_EQ(0, pipe(self->pipe));
}

FIXTURE_TEARDOWN(server)
{
	close(self->pipe[0]);
	close(self->pipe[1]);
	sides_close(_metadata, &self->env);
}

static void tell(const struct _test_data_server *self, const void *what, size_t size)
{
	if (write(self->pipe[1], what, size) != (ssize_t)size)
		_exit(1);
}

static void child_end(struct __test_metadata *_metadata, struct _test_data_server *self, int sig)
{
	int status;

	if (sig)
		ASSERT_EQ(0, kill(self->pid, sig));
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, 0));
	EXPECT_EQ(sig, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	if (!sig)
		EXPECT_EQ(0, WEXITSTATUS(status));
}

/*
 * A server that is stopped, with no deadline set: what it holds waits, others do
 * not, and a detach does not either; what it says when it goes on is too late.
 */
TEST_F(server, sigstop)
{
	struct sides *env = &self->env;
	struct iommu_hwpt_pgfault m;
	int rc, status;

	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 2, 1));
	self->pid = fork();
	if (!self->pid) {
		rc = (int)fault_read(env->bad.queue, &m, 1);
		raise(SIGSTOP);
		if (rc == 1)
			rc = fault_answer(env->bad.queue, m.cookie, SUCCESS);
		tell(self, &rc, sizeof(rc));
		_exit(0);
	}
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
	EXPECT_EQ(2, stats_of(env, &env->bad).outstanding);
	EXPECT_TRUE(works(env, &env->good));
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->plain_id));
	EXPECT_EQ(0, stats_of(env, &env->bad).outstanding);
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->bad.hwpt_id));
	EXPECT_TRUE(works(env, &env->bad));
	ASSERT_EQ(0, kill(self->pid, SIGCONT));
	ASSERT_EQ((ssize_t)sizeof(rc), read(self->pipe[0], &rc, sizeof(rc)));
	EXPECT_EQ(-EINVAL, rc);
	child_end(_metadata, self, 0);
}

/* With a deadline nobody has to come and detach. */
TEST_F(server, sigstop_with_deadline)
{
	struct sides *env = &self->env;
	struct iommu_fault_alloc cmd = {
		.size = sizeof(cmd), .deadline_ms = 20, .deadline_code = INVALID,
	};
	struct iommu_hwpt_pgfault m;
	int rc, status, i, queue;
	uint32_t hwpt_id;

	ASSERT_EQ(0, iommufd_call(env->fd, IOMMU_FAULT_QUEUE_ALLOC, &cmd));
	queue = (int)cmd.out_fault_fd;
	ASSERT_EQ(0, hwpt_alloc_paging(env->fd, env->bad.dev.idev_id, env->ioas_id,
				       IOMMU_HWPT_FAULT_ID_VALID, cmd.out_fault_id, &hwpt_id));
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, hwpt_id));
	self->pid = fork();
	if (!self->pid) {
		fault_poll(queue, LONG_MS);
		rc = (int)fault_read(queue, &m, 1);
		raise(SIGSTOP);
		if (rc == 1)
			rc = fault_answer(queue, m.cookie, SUCCESS);
		tell(self, &rc, sizeof(rc));
		_exit(0);
	}
	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
	for (i = 0; i < LONG_MS && stats_of(env, &env->bad).outstanding; i++)
		usleep(1000);
	EXPECT_EQ(1, stats_of(env, &env->bad).responses[INVALID]);
	ASSERT_EQ(0, kill(self->pid, SIGCONT));
	ASSERT_EQ((ssize_t)sizeof(rc), read(self->pipe[0], &rc, sizeof(rc)));
	/* Too late; -EINVAL if it never had it: the deadline may be over by the read */
	EXPECT_TRUE(rc == -ESTALE || rc == -EINVAL || rc == 0);
	EXPECT_EQ(0, stats_of(env, &env->bad).responses[SUCCESS]);
	child_end(_metadata, self, 0);
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->bad.hwpt_id));
	EXPECT_EQ(0, iommufd_destroy(env->fd, hwpt_id));
	EXPECT_EQ(0, close(queue));
	EXPECT_EQ(0, iommufd_destroy(env->fd, cmd.out_fault_id));
	EXPECT_TRUE(works(env, &env->bad));
}

/* The last reference of the queue's file is that of a read on a ring. */
TEST_F(server, last_reference_is_a_ring)
{
	struct sides *env = &self->env;
	struct iommu_test_iopf_stats s;
	struct iommu_hwpt_pgfault m[2];
	struct io_uring_sqe *sqe;
	struct io_uring ring;
	int i;

	ASSERT_EQ(0, io_uring_queue_init(4, &ring, 0));
	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	ASSERT_EQ(1, fault_read(env->bad.queue, &m[0], 1));
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read(sqe, env->bad.queue, &m[1], MSG, 0);
	ASSERT_EQ(1, io_uring_submit(&ring));
	ASSERT_EQ(0, close(env->bad.queue));
	EXPECT_EQ(1, stats_of(env, &env->bad).outstanding);
	io_uring_queue_exit(&ring);
	for (i = 0; i < LONG_MS; i++) {
		s = stats_of(env, &env->bad);
		if (!s.outstanding)
			break;
		usleep(1000);
	}
	EXPECT_EQ(1, s.responses[INVALID]);
	/* The next server has a queue of its own, and the device at once. */
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->good.hwpt_id));
	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	EXPECT_EQ(1, serve_all(env->good.queue));
	env->bad.queue = -1;
}

/* Killed while it holds groups and a copy of it is held up by userfaultfd. */
TEST_F(server, sigkill_in_a_copy)
{
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	struct sides *env = &self->env;
	struct uffd_msg msg;
	int uffd, i;
	char *page;

	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 2, 1));
	self->pid = fork();
	if (!self->pid) {
		uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
		page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		area.range.start = (uintptr_t)page;
		area.range.len = PAGE;
		if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) ||
		    ioctl(uffd, UFFDIO_REGISTER, &area))
			_exit(4);
		close(env->fd);
		if (!fork()) {
			/* Sees the parent's copy begin, and tells. */
			i = read(uffd, &msg, sizeof(msg)) != (ssize_t)sizeof(msg);
			tell(self, &i, sizeof(i));
			_exit(0);
		}
		fault_read(env->bad.queue, (void *)page, 1);
		_exit(0);
	}
	close(env->bad.queue);
	env->bad.queue = -1;
	ASSERT_EQ((ssize_t)sizeof(i), read(self->pipe[0], &i, sizeof(i)));
	ASSERT_EQ(0, i);
	child_end(_metadata, self, SIGKILL);
	for (i = 0; i < LONG_MS && stats_of(env, &env->bad).outstanding; i++)
		usleep(1000);
	EXPECT_EQ(2, stats_of(env, &env->bad).responses[INVALID]);
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->good.hwpt_id));
	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	EXPECT_EQ(1, serve_all(env->good.queue));
}

/* A server with one queue gives the cookies of another, and all others it can guess. */
TEST_F(server, cookies_of_another_queue)
{
	struct sides *env = &self->env;
	struct iommu_hwpt_pgfault m;
	uint32_t cookie;

	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	ASSERT_EQ(1, fault_read(env->bad.queue, &m, 1));
	EXPECT_EQ(-EINVAL, fault_answer(env->good.queue, m.cookie, SUCCESS));
	for (cookie = 0; cookie < 100000; cookie++)
		ASSERT_EQ(-EINVAL, fault_answer(env->good.queue, cookie, SUCCESS));
	EXPECT_EQ(1, stats_of(env, &env->bad).outstanding);
	EXPECT_EQ(0, fault_answer(env->bad.queue, m.cookie, SUCCESS));
}

/* A second iommufd names the objects of the first: it has no such objects. */
TEST_F(server, other_iommufd)
{
	struct sides *env = &self->env;
	int other = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	struct iommu_test_iopf_stats s;
	uint32_t id;

	ASSERT_LE(0, other);
	for (id = 0; id < 64; id++)
		EXPECT_EQ(-ENOENT, iommufd_destroy(other, id));
	EXPECT_EQ(-ENOENT, hwpt_alloc_paging(other, env->bad.dev.idev_id, env->ioas_id,
					     IOMMU_HWPT_FAULT_ID_VALID, env->bad.queue_id, &id));
	EXPECT_EQ(-ENOENT, mock_replace(other, env->bad.dev.stdev_id, env->plain_id));
	EXPECT_EQ(-ENOENT, mock_pasid_attach(other, env->bad.dev.stdev_id, 1, env->bad.hwpt_id));
	EXPECT_EQ(-ENOENT, iopf_stats(other, env->bad.dev.idev_id, &s));
	EXPECT_TRUE(works(env, &env->bad));
	close(other);
}

/*
 * A user who was handed the queue's file, and nothing else, may serve what comes
 * out of it. That is all: no iommufd, no object, not the other queue.
 */
TEST_F(server, other_user)
{
	struct sides *env = &self->env;
	struct iommu_hwpt_pgfault m;
	char path[64];
	int rc = 0;

	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	ASSERT_EQ(0, inject_side(env, &env->good, 0, 1, 1, 1));
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), env->good.queue);
	self->pid = fork();
	if (!self->pid) {
		close(env->fd);
		close(env->good.queue);
		if (setgid(65534) || setuid(65534))
			_exit(1);
		rc |= (open("/dev/iommu", O_RDWR) != -1) << 0;
		rc |= (open(path, O_RDWR) != -1) << 1;
		rc |= (iommufd_destroy(env->bad.queue, env->bad.queue_id) != -ENOTTY) << 2;
		rc |= (fault_read(env->bad.queue, &m, 1) != 1) << 3;
		rc |= (fault_answer(env->bad.queue, m.cookie, SUCCESS) != 0) << 4;
		rc |= (fault_read(env->bad.queue, &m, 1) != 0) << 5;
		_exit(rc);
	}
	child_end(_metadata, self, 0);
	EXPECT_EQ(1, stats_of(env, &env->bad).responses[SUCCESS]);
	EXPECT_EQ(1, stats_of(env, &env->good).outstanding);
	EXPECT_EQ(1, serve_all(env->good.queue));
}

TEST_HARNESS_MAIN
