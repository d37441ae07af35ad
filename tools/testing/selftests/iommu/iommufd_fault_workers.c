// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads posted in io_uring that end otherwise than by a fault: they are cancelled, or
 * their ring, thread or process ends; and those that a worker waits in.
 */
#include <dirent.h>

#include "iommufd_fault_posted.h"

#define SQPOLL_SUBMITS "the kernel's own thread submits, and none of its allocations fails"

/* Is this thread of ours one of io_uring's workers; one that sleeps, but not in its pool? */
static bool is_worker(const char *task, bool sleeping)
{
	char path[300], comm[16] = "", wchan[64] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%s/comm", task);
	f = fopen(path, "r");
	if (f) {
		fread(comm, 1, sizeof(comm) - 1, f);
		fclose(f);
	}
	if (strncmp(comm, "iou-wrk", 7))
		return false;
	if (!sleeping)
		return true;
	snprintf(path, sizeof(path), "/proc/self/task/%s/wchan", task);
	f = fopen(path, "r");
	if (f) {
		fread(wchan, 1, sizeof(wchan) - 1, f);
		fclose(f);
	}
	return wchan[0] && strcmp(wchan, "0") && strcmp(wchan, "io_wq_worker");
}

static unsigned int count_workers(bool sleeping)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *task;
	unsigned int n = 0;

	while (dir && (task = readdir(dir)))
		n += is_worker(task->d_name, sleeping);
	if (dir)
		closedir(dir);
	return n;
}

/*
 * Post read 0 while there is no memory to let it wait by polling, which is the
 * first that io_uring allocates without sleeping: then a worker waits in it.
 */
static void make_worker_sleep(struct __test_metadata *_metadata, struct _test_data_uring *self)
{
	int ms, fail_nth = open("/proc/thread-self/fail-nth", O_RDWR);
	char left[8] = "";

	if (fail_nth < 0)
		SKIP(return, "no fault injection in this kernel");
	ASSERT_EQ(1, pwrite(fail_nth, "1", 1, 0));
	post_read(_metadata, self, 0, 0);
	EXPECT_LT(0, pread(fail_nth, left, sizeof(left) - 1, 0));
	EXPECT_EQ(0, atoi(left));
	pwrite(fail_nth, "0", 1, 0);
	close(fail_nth);
	for (ms = 0; ms < LONG_MS && !count_workers(true); ms++)
		usleep(1000);
	ASSERT_EQ(1, count_workers(true));
}

TEST_F(uring, worker_sleeps)
{
	if (variant->flags & IORING_SETUP_SQPOLL)
		SKIP(return, SQPOLL_SUBMITS);
	make_worker_sleep(_metadata, self);
	expect_quiet(&self->ring);
	send_one(_metadata, self);
	EXPECT_EQ(0, got_one(_metadata, self));
	expect_quiet(&self->ring);
}

static unsigned int cancel_all(struct __test_metadata *_metadata, struct io_uring *ring,
			       unsigned int reads)
{
	struct io_uring_sqe *sqe = get_sqe(_metadata, ring, 0);
	unsigned int cancelled = 0;
	struct io_uring_cqe cqe;
	int rc;

	io_uring_prep_cancel(sqe, NULL, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
	sqe->user_data = 1000;
	ASSERT_EQ(0, submit(ring));
	while (reads + 1) {
		rc = completion(ring, LONG_MS, &cqe);
		if (rc == -ETIME)
			break;
		reads--;
		cancelled += cqe.user_data != 1000 && (rc == -ECANCELED || rc == -EINTR);
	}
	return cancelled;
}

TEST_F(uring, cancel)
{
	unsigned int i;

	for (i = 0; i < READS; i++)
		post_read(_metadata, self, i, i % 2 ? IOSQE_ASYNC : 0);
	usleep(SHORT_MS * 1000);
	EXPECT_EQ(READS, cancel_all(_metadata, &self->ring, READS));
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	expect_quiet(&self->ring);
	take(_metadata, self->queue->fd);
}

TEST_F(uring, cancel_worker)
{
	if (variant->flags & IORING_SETUP_SQPOLL)
		SKIP(return, SQPOLL_SUBMITS);
	make_worker_sleep(_metadata, self);
	EXPECT_EQ(1, cancel_all(_metadata, &self->ring, 1));
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	take(_metadata, self->queue->fd);
}

TEST_F(uring, exit_with_posted_reads)
{
	unsigned int i;

	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	take(_metadata, self->queue->fd);
	for (i = 0; i < READS; i++)
		post_read(_metadata, self, i, i % 2 ? IOSQE_ASYNC : 0);
	usleep(SHORT_MS * 1000);
	ring_exit(&self->ring);
	expect_released(_metadata, self);
}

TEST_F(uring, exit_with_worker)
{
	if (variant->flags & IORING_SETUP_SQPOLL)
		SKIP(return, SQPOLL_SUBMITS);
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	take(_metadata, self->queue->fd);
	make_worker_sleep(_metadata, self);
	ring_exit(&self->ring);
	expect_released(_metadata, self);
}

/*
 * Each fault completes one of the reads that are posted, with a message. One that
 * was woken in vain is posted again, more often than io_uring lets a request of other
 * files: none may move to a worker.
 */
TEST_F_TIMEOUT(uring, many_reads_many_faults, 300)
{
	struct iommu_hwpt_pgfault *m = anonymous(_metadata, MANY_READS * sizeof(*m));
	unsigned int i, next, used = 0;
	struct io_uring_cqe cqe = {};
	struct io_uring_sqe *sqe;

	for (i = 0; i < variant->many_faults + MANY_READS; i++) {
		next = i;
		if (i >= MANY_READS) {
			send_one(_metadata, self);
			ASSERT_EQ(MSG, completion(&self->ring, LONG_MS, &cqe));
			next = cqe.user_data;
			used |= 1U << next;
			ASSERT_EQ(self->grpid % 512, m[next].grpid);
			ASSERT_EQ(0, fault_answer(self->queue->fd, m[next].cookie, SUCCESS));
		}
		sqe = get_sqe(_metadata, &self->ring, next);
		io_uring_prep_read(sqe, self->queue->fd, &m[next], MSG, 0);
		sqe->user_data = next;
		ASSERT_EQ(0, submit(&self->ring));
		if (i % 1000 == 999)
			ASSERT_EQ(0, count_workers(false));
	}
	expect_quiet(&self->ring);
	EXPECT_EQ(0, count_workers(false));
	EXPECT_NE(0, used);
	EXPECT_EQ(MANY_READS, cancel_all(_metadata, &self->ring, MANY_READS));
	expect_answers_of(_metadata, &self->env, self->dev, variant->many_faults, 0);
}

static void *post_and_end(void *arg)
{
	struct io_uring *ring = arg;

	return (void *)(intptr_t)io_uring_submit(ring);
}

/*
 * A thread ends with reads posted, the ring lives on: io_uring cancels them when
 * their turn comes, and the fault is there for the read of another thread.
 */
TEST_F(uring, thread_end)
{
	unsigned int i, got = 0, cancelled = 0;
	struct io_uring_cqe cqe = {};
	struct io_uring_sqe *sqe;
	pthread_t thread;
	void *rc;

	if (variant->flags)
		SKIP(return, "no ring whose submitter can end before it");
	for (i = 1; i < READS; i++) {
		sqe = get_sqe(_metadata, &self->ring, i);
		io_uring_prep_read(sqe, self->queue->fd, self->m[i], MSG, 0);
	}
	ASSERT_EQ(0, pthread_create(&thread, NULL, post_and_end, &self->ring));
	ASSERT_EQ(0, pthread_join(thread, &rc));
	ASSERT_EQ(READS - 1, (intptr_t)rc);
	post_read(_metadata, self, 0, 0);
	expect_quiet(&self->ring);
	send_one(_metadata, self);
	for (i = 0; i < READS; i++) {
		int res = completion(&self->ring, LONG_MS, &cqe);

		got += res == (int)MSG;
		cancelled += res == -ECANCELED;
	}
	EXPECT_EQ(1, got);
	EXPECT_EQ(READS - 1, cancelled);
	EXPECT_EQ(self->grpid, self->m[0]->grpid);
}

/* A process ends, by itself or by force, with reads posted. */
TEST_F(uring, process_end)
{
	struct io_uring_sqe *sqe;
	struct io_uring ring;
	int i, n, status;
	pid_t pid;

	for (i = 0; i < 2; i++) {
		pid = fork();
		if (!pid) {
			if (io_uring_queue_init(16, &ring, 0))
				_exit(1);
			for (n = 0; n < READS; n++) {
				sqe = io_uring_get_sqe(&ring);
				io_uring_prep_read(sqe, self->queue->fd, self->m[n], MSG, 0);
				sqe->flags |= n % 2 ? IOSQE_ASYNC : 0;
			}
			n = io_uring_submit(&ring);
			usleep(SHORT_MS * 1000);
			if (i)
				kill(getpid(), SIGKILL);
			_exit(n != READS);
		}
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(i ? SIGKILL : 0, status);
		usleep(4 * SHORT_MS * 1000);
		inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
		take(_metadata, self->queue->fd);
	}
}

/* A posted read keeps the file, so the fault is delivered, and answered at the end. */
TEST_F(uring, close_with_posted_read)
{
	struct io_uring_cqe cqe = {};

	post_read(_metadata, self, 0, 0);
	expect_quiet(&self->ring);
	env_close_queue(_metadata, self->queue);
	send_one(_metadata, self);
	EXPECT_EQ(MSG, completion(&self->ring, LONG_MS, &cqe));
	EXPECT_EQ(1, self->m[0]->grpid);
	ring_exit(&self->ring);
	self->queue->fd = open("/dev/null", O_RDWR);
	expect_released(_metadata, self);
}

TEST_HARNESS_MAIN
