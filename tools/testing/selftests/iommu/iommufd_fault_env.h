/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For tests of those who wait for faults: a mock device that feeds one queue,
 * rings of io_uring, and threads that wait in one call.
 *
 * At the end all that was sent and all that was answered are compared, and the
 * queue is destroyed: that fails as long as anything holds its file.
 */
#ifndef __SELFTEST_IOMMUFD_FAULT_ENV_H
#define __SELFTEST_IOMMUFD_FAULT_ENV_H

#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "iommufd_harness.h"
#include "iommufd_fault_utils.h"

#define ADDR 0x40000000ULL
#define PAGE 4096
#define MSG ((int)sizeof(struct iommu_hwpt_pgfault))
#define ANSWER ((int)sizeof(struct iommu_hwpt_page_response))
#define SHORT_MS 50 /* waiting for what must not happen */
#define LONG_MS 20000 /* waiting for what must happen */
#define LONG_NS (LONG_MS * 1000000ULL)
#define ROOM 8 /* messages that most reads here have room for */
#define ROUNDS 20 /* of what nearly always goes in order */
#define FOREVER IOMMU_FAULT_SERVE_FOREVER

/*
 * Each had its turn, which was asserted. The order is that of those who come within a
 * millisecond, and on a busy machine there may be none.
 */
#define NEVER_IN_ORDER "never in order: a busy machine"

#define SUCCESS IOMMUFD_PAGE_RESP_SUCCESS
#define INVALID IOMMUFD_PAGE_RESP_INVALID
#define FAILURE IOMMUFD_PAGE_RESP_FAILURE

#define DEFER (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)

/* ---- a device whose faults go to a queue ---- */

struct fault_env {
	int fd;
	uint32_t ioas_id;
	struct mock_device dev;
	uint32_t queue_id;
	int queue;
	uint32_t hwpt_id;
	/* a HWPT without a queue */
	uint32_t plain_id;
};

static inline void fault_env_open(struct __test_metadata *_metadata, struct fault_env *env,
				  const struct iommu_fault_alloc *fields)
{
	env->fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (env->fd < 0)
		SKIP(return, "no /dev/iommu");
	if (iopf_stats_reset(env->fd, 0))
		SKIP(return, "no page request injector");
	ASSERT_EQ(0, ioas_alloc(env->fd, &env->ioas_id));
	ASSERT_EQ(0, mock_device_create(env->fd, env->ioas_id, 0, &env->dev));
	ASSERT_EQ(0, fault_queue_alloc_fields(env->fd, fields, &env->queue_id, &env->queue));
	ASSERT_EQ(0, hwpt_alloc_paging(env->fd, env->dev.idev_id, env->ioas_id,
				       IOMMU_HWPT_FAULT_ID_VALID, env->queue_id, &env->hwpt_id));
	ASSERT_EQ(0, hwpt_alloc_paging(env->fd, env->dev.idev_id, env->ioas_id, 0, 0,
				       &env->plain_id));
	ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->hwpt_id));
}

static inline void fault_env_flags(struct __test_metadata *_metadata, struct fault_env *env,
				   uint32_t flags)
{
	struct iommu_fault_alloc fields = { .flags = flags };

	fault_env_open(_metadata, env, &fields);
}

static inline void fault_env_close_queue(struct fault_env *env)
{
	if (env->queue >= 0)
		close(env->queue);
	env->queue = -1;
}

/* A ring that was closed lets go of its files a moment later. */
static inline int fault_env_destroy_queue(struct fault_env *env)
{
	int rc, ms;

	for (ms = 0; ms < LONG_MS; ms++) {
		rc = iommufd_destroy(env->fd, env->queue_id);
		if (rc != -EBUSY)
			break;
		usleep(1000);
	}
	return rc;
}

static inline void fault_env_close(struct __test_metadata *_metadata, struct fault_env *env)
{
	struct iommu_test_iopf_stats s;

	EXPECT_EQ(0, iommufd_destroy(env->fd, env->dev.stdev_id));
	ASSERT_EQ(0, iopf_stats(env->fd, 0, &s));
	EXPECT_EQ(s.groups, s.responses[0] + s.responses[1] + s.responses[2]);
	EXPECT_EQ(0, s.outstanding);
	EXPECT_EQ(0, s.unmatched);
	fault_env_close_queue(env);
	if (env->hwpt_id)
		EXPECT_EQ(0, iommufd_destroy(env->fd, env->hwpt_id));
	EXPECT_EQ(0, fault_env_destroy_queue(env));
	EXPECT_EQ(0, close(env->fd));
}

/* Group i has id @grpid + i. */
static inline int inject(const struct fault_env *env, uint32_t grpid, uint32_t groups,
			 uint32_t requests)
{
	return iopf_inject(env->fd, env->dev.idev_id, 0, grpid, ADDR, groups, requests, 0);
}

static inline void expect_answers(struct __test_metadata *_metadata, const struct fault_env *env,
				  uint64_t success, uint64_t invalid)
{
	struct iommu_test_iopf_stats s;

	ASSERT_EQ(0, iopf_stats(env->fd, env->dev.idev_id, &s));
	EXPECT_EQ(success, s.responses[SUCCESS]);
	EXPECT_EQ(invalid, s.responses[INVALID]);
	EXPECT_EQ(0, s.responses[FAILURE]);
}

/* The next group of one request, by read(2). */
static inline struct iommu_hwpt_pgfault take(struct __test_metadata *_metadata, int queue)
{
	struct iommu_hwpt_pgfault m = {};

	ASSERT_EQ(1, fault_read(queue, &m, 1));
	EXPECT_TRUE(m.flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE);
	EXPECT_NE(0, m.cookie);
	return m;
}

/* The answers to the next @n of these. */
static inline void take_many(struct __test_metadata *_metadata, int queue,
			     struct iommu_hwpt_page_response *answers, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		answers[i] = (struct iommu_hwpt_page_response){
			take(_metadata, queue).cookie, SUCCESS
		};
}

static inline void *anonymous(struct __test_metadata *_metadata, size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, p);
	return p;
}

/* The end of @size bytes of memory behind which nothing can be accessed. */
static inline char *fence(struct __test_metadata *_metadata, size_t size)
{
	char *p = anonymous(_metadata, size + PAGE);

	ASSERT_EQ(0, size % PAGE);
	ASSERT_EQ(0, mprotect(p + size, PAGE, PROT_NONE));
	return p + size;
}

/* ---- a ring, and single steps on it ---- */

static inline int ring_open(struct io_uring *ring, unsigned int flags)
{
	/* Its thread does not spin for long: this takes a processor of its own. */
	struct io_uring_params p = { .flags = flags, .sq_thread_idle = 1 };

	return io_uring_queue_init_params(64, ring, &p);
}

/* Returns when the kernel has issued all, but what goes to a worker. */
static inline int submit(struct io_uring *ring)
{
	int rc = io_uring_submit(ring);

	while (io_uring_sq_ready(ring))
		sched_yield();
	return rc < 0 ? rc : 0;
}

/* A read into the @bytes at @to; with its completion comes @user_data. */
static inline struct io_uring_sqe *prep_read(struct io_uring *ring, int fd, void *to,
					     unsigned int bytes, uint64_t user_data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	io_uring_prep_read(sqe, fd, to, bytes, 0);
	io_uring_sqe_set_data64(sqe, user_data);
	return sqe;
}

/* Wait for a completion: its result, or -ETIME. */
static inline int completion(struct io_uring *ring, unsigned int ms, struct io_uring_cqe *copy)
{
	struct __kernel_timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000LL };
	struct io_uring_cqe *cqe;
	int rc;

	do {
		rc = io_uring_wait_cqe_timeout(ring, &cqe, &ts);
	} while (rc == -EINTR);
	if (rc)
		return rc;
	memcpy(copy, cqe, sizeof(*copy));
	io_uring_cqe_seen(ring, cqe);
	return copy->res;
}

/* The result of the next completion, which is to be that of @user_data. */
static inline int result_in(struct __test_metadata *_metadata, struct io_uring *ring,
			    uint64_t user_data, unsigned int ms)
{
	struct io_uring_cqe cqe;
	int rc = completion(ring, ms, &cqe);

	if (rc != -ETIME)
		EXPECT_EQ(user_data, cqe.user_data);
	return rc;
}

#define result(ring, user_data) result_in(_metadata, ring, user_data, LONG_MS)
#define expect_quiet(ring) EXPECT_EQ(-ETIME, result_in(_metadata, ring, 0, SHORT_MS))

/* ---- threads that wait ---- */

enum wait_by { WAIT_READ, WAIT_SERVE, WAIT_POLL, WAIT_EPOLL };

struct waiter {
	enum wait_by by;
	int fd;
	unsigned int room;
	/* WAIT_READ: where messages go, if not to @m */
	struct iommu_hwpt_pgfault *to;
	/* WAIT_SERVE: answers that are given first, and how long to wait */
	const struct iommu_hwpt_page_response *answers;
	uint32_t n_answers;
	uint64_t timeout_ns;
	struct iommu_fault_serve cmd;
	struct iommu_hwpt_pgfault m[ROOM];
	/* messages, or events of WAIT_POLL and WAIT_EPOLL; or -errno */
	long rc;
	pthread_t thread;
	pid_t tid;
	bool done;
};

static inline long wait_by_epoll(int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int epfd = epoll_create1(0), rc;

	if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event))
		return -errno;
	rc = epoll_wait(epfd, &event, 1, -1);
	rc = rc < 0 ? -errno : (int)event.events;
	close(epfd);
	return rc;
}

static inline long wait_by_poll(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, -1) < 0 ? -errno : pfd.revents;
}

static inline long wait_by_serve(struct waiter *w)
{
	int rc = fault_serve(w->fd, &w->cmd, w->answers, w->n_answers, w->m, w->room,
			     w->timeout_ns);

	return rc ?: (long)w->cmd.message_num;
}

static inline void *waiter_thread(void *arg)
{
	struct waiter *w = arg;

	__atomic_store_n(&w->tid, gettid(), __ATOMIC_RELEASE);
	switch (w->by) {
	case WAIT_READ:
		w->rc = fault_read(w->fd, w->to ?: w->m, w->room);
		break;
	case WAIT_SERVE:
		w->rc = wait_by_serve(w);
		break;
	case WAIT_POLL:
		w->rc = wait_by_poll(w->fd);
		break;
	case WAIT_EPOLL:
		w->rc = wait_by_epoll(w->fd);
		break;
	}
	__atomic_store_n(&w->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static inline bool task_sleeps(pid_t tid)
{
	char path[64], state = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	f = fopen(path, "r");
	if (f) {
		if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		fclose(f);
	}
	return state == 'S';
}

/* Whether a task falls asleep. */
static inline bool task_falls_asleep(pid_t tid)
{
	unsigned int ms;

	for (ms = 0; ms < LONG_MS && !task_sleeps(tid); ms++)
		usleep(1000);
	return ms < LONG_MS;
}

/* Start one, and let it fall asleep. */
static inline void waiter_start(struct __test_metadata *_metadata, struct waiter *w)
{
	w->tid = 0;
	w->done = false;
	ASSERT_EQ(0, pthread_create(&w->thread, NULL, waiter_thread, w));
	while (!__atomic_load_n(&w->tid, __ATOMIC_ACQUIRE))
		sched_yield();
	ASSERT_TRUE(task_falls_asleep(w->tid));
	ASSERT_FALSE(__atomic_load_n(&w->done, __ATOMIC_ACQUIRE));
}

/* Its result, or -ETIME. */
static inline long waiter_result(struct waiter *w, unsigned int timeout_ms)
{
	unsigned int ms;

	for (ms = 0; !__atomic_load_n(&w->done, __ATOMIC_ACQUIRE); ms++) {
		if (ms >= timeout_ms)
			return -ETIME;
		usleep(1000);
	}
	pthread_join(w->thread, NULL);
	return w->rc;
}

/* Which of @n is done, but for those in @done; @n if none is in that time */
static inline unsigned int next_waiter_in(struct waiter *w, unsigned int n, unsigned int done,
					  unsigned int timeout_ms)
{
	unsigned int ms, i;

	for (ms = 0;; ms++) {
		for (i = 0; i < n; i++) {
			if (!(done & 1 << i) && __atomic_load_n(&w[i].done, __ATOMIC_ACQUIRE))
				return i;
		}
		if (ms >= timeout_ms)
			return n;
		usleep(1000);
	}
}

static inline unsigned int next_waiter(struct waiter *w, unsigned int n, unsigned int done)
{
	return next_waiter_in(w, n, done, LONG_MS);
}

/* A signal that does nothing but to come. */
static inline void on_signal(int number)
{
	(void)number;
}

static inline void kill_victim(struct __test_metadata *_metadata, pid_t pid)
{
	int status;

	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
}

#endif
