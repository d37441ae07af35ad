// SPDX-License-Identifier: GPL-2.0-only
/*
 * Event loops and the fault queue: whichever way a program waits until it can
 * read, and however little it reads then, it is told of every group.
 *
 * Each group that is queued is an event, and so is what a read leaves behind. So
 * a program that reads one group for each event has them all, and one that reads
 * until there is nothing is not woken for ever.
 */
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <sys/wait.h>

#include "iommufd_fault_env.h"

#define GROUPS 6

enum by { BY_POLL, BY_SELECT, BY_EPOLL, BY_RING };

struct loop {
	enum by by;
	int fd;
	uint32_t events;	/* of epoll */
	bool multishot;		/* of the ring */
	bool armed;
	int epfd[2];
	unsigned int n_epfds;
	struct io_uring ring;
	unsigned int count;	/* events that came */
};

FIXTURE(loop)
{
	struct fault_env env;
	struct loop loop;
	struct iommu_hwpt_pgfault m[ROOM];
};

typedef FIXTURE_DATA(loop) loop_t;

FIXTURE_VARIANT(loop)
{
	enum by by;
	uint32_t events;
	unsigned int n_epfds;
	unsigned int ring_flags;
	bool multishot;
};

FIXTURE_VARIANT_ADD(loop, poll)
{
	.by = BY_POLL,
};

FIXTURE_VARIANT_ADD(loop, select)
{
	.by = BY_SELECT,
};

FIXTURE_VARIANT_ADD(loop, level)
{
	.by = BY_EPOLL, .events = EPOLLIN, .n_epfds = 1,
};

FIXTURE_VARIANT_ADD(loop, edge)
{
	.by = BY_EPOLL, .events = EPOLLIN | EPOLLET, .n_epfds = 1,
};

/* As the run-times of Go and Rust ask */
FIXTURE_VARIANT_ADD(loop, edge_both)
{
	.by = BY_EPOLL, .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .n_epfds = 1,
};

FIXTURE_VARIANT_ADD(loop, exclusive)
{
	.by = BY_EPOLL, .events = EPOLLIN | EPOLLEXCLUSIVE, .n_epfds = 2,
};

FIXTURE_VARIANT_ADD(loop, exclusive_edge)
{
	.by = BY_EPOLL, .events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLET, .n_epfds = 2,
};

FIXTURE_VARIANT_ADD(loop, oneshot)
{
	.by = BY_EPOLL, .events = EPOLLIN | EPOLLONESHOT, .n_epfds = 1,
};

FIXTURE_VARIANT_ADD(loop, oneshot_edge)
{
	.by = BY_EPOLL, .events = EPOLLIN | EPOLLONESHOT | EPOLLET, .n_epfds = 1,
};

FIXTURE_VARIANT_ADD(loop, poll_add)
{
	.by = BY_RING,
};

FIXTURE_VARIANT_ADD(loop, poll_add_defer)
{
	.by = BY_RING, .ring_flags = DEFER,
};

FIXTURE_VARIANT_ADD(loop, multishot)
{
	.by = BY_RING, .multishot = true,
};

/* Several events may come as one, before the task looks. */
FIXTURE_VARIANT_ADD(loop, multishot_defer)
{
	.by = BY_RING, .multishot = true, .ring_flags = DEFER,
};

FIXTURE_VARIANT_ADD(loop, multishot_sqpoll)
{
	.by = BY_RING, .multishot = true, .ring_flags = IORING_SETUP_SQPOLL,
};

/* ---- a loop, of any kind ---- */

static int epoll_change(struct loop *loop, int op)
{
	struct epoll_event event = { .events = loop->events };
	unsigned int i;
	int rc = 0;

	for (i = 0; i < loop->n_epfds && !rc; i++)
		rc = epoll_ctl(loop->epfd[i], op, loop->fd, &event);
	return rc;
}

static int arm(struct loop *loop)
{
	struct io_uring_sqe *sqe;

	if (loop->by == BY_EPOLL)
		return epoll_change(loop, EPOLL_CTL_MOD);
	sqe = io_uring_get_sqe(&loop->ring);
	if (loop->multishot)
		io_uring_prep_poll_multishot(sqe, loop->fd, POLLIN);
	else
		io_uring_prep_poll_add(sqe, loop->fd, POLLIN);
	return submit(&loop->ring);
}

static int poll_event(struct loop *loop, unsigned int ms)
{
	struct pollfd pfd = { .fd = loop->fd, .events = POLLIN };

	return poll(&pfd, 1, ms);
}

static int select_event(struct loop *loop, unsigned int ms)
{
	struct timeval time = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
	fd_set fds;

	FD_ZERO(&fds);
	FD_SET(loop->fd, &fds);
	return select(loop->fd + 1, &fds, NULL, NULL, &time);
}

/* Of any of the sets. What another has told already is no news. */
static int epoll_event(struct loop *loop, unsigned int ms)
{
	struct pollfd pfds[2] = {
		{ .fd = loop->epfd[0], .events = POLLIN },
		{ .fd = loop->epfd[1], .events = POLLIN },
	};
	struct epoll_event event;
	unsigned int i;
	int rc;

	if (loop->n_epfds == 1) {
		rc = epoll_wait(loop->epfd[0], &event, 1, ms);
	} else {
		rc = poll(pfds, loop->n_epfds, ms);
		for (i = 0; rc > 0 && !(pfds[i].revents & POLLIN); i++)
			;
		if (rc > 0)
			rc = epoll_wait(loop->epfd[i], &event, 1, 0);
	}
	if (rc == 1 && loop->events & EPOLLONESHOT)
		loop->armed = false;
	return rc;
}

static int ring_event(struct loop *loop, unsigned int ms)
{
	struct io_uring_cqe cqe;
	int rc = completion(&loop->ring, ms, &cqe);

	if (rc == -ETIME)
		return 0;
	loop->armed = cqe.flags & IORING_CQE_F_MORE;
	return rc & POLLIN ? 1 : rc;
}

/* 1 if there is an event within the time, 0 if not */
static int next_event(struct loop *loop, unsigned int ms)
{
	int rc = 0;

	if (!loop->armed) {
		rc = arm(loop);
		loop->armed = true;
	}
	if (rc)
		return rc;
	switch (loop->by) {
	case BY_POLL:
		rc = poll_event(loop, ms);
		break;
	case BY_SELECT:
		rc = select_event(loop, ms);
		break;
	case BY_EPOLL:
		rc = epoll_event(loop, ms);
		break;
	case BY_RING:
		rc = ring_event(loop, ms);
		break;
	}
	loop->count += rc == 1;
	return rc;
}

FIXTURE_SETUP(loop)
{
	struct loop *loop = &self->loop;
	unsigned int i;

	fault_env_flags(_metadata, &self->env, IOMMU_FAULT_ALLOC_BLOCKING);
	if (_metadata->exit_code)
		return;
	ASSERT_EQ(0, fcntl(self->env.queue, F_SETFL, O_RDWR | O_NONBLOCK));
	*loop = (struct loop){
		.by = variant->by, .fd = self->env.queue, .events = variant->events,
		.n_epfds = variant->n_epfds, .multishot = variant->multishot,
		.armed = variant->by != BY_RING,
	};
	for (i = 0; i < loop->n_epfds; i++)
		loop->epfd[i] = epoll_create1(EPOLL_CLOEXEC);
	ASSERT_EQ(0, epoll_change(loop, EPOLL_CTL_ADD));
	if (loop->by == BY_RING)
		ASSERT_EQ(0, ring_open(&loop->ring, variant->ring_flags));
	/* that it can be written is told once */
	EXPECT_EQ(!!(loop->events & EPOLLOUT), next_event(loop, SHORT_MS));
	loop->count = 0;
}

FIXTURE_TEARDOWN(loop)
{
	unsigned int i;

	for (i = 0; i < self->loop.n_epfds; i++)
		close(self->loop.epfd[i]);
	if (self->loop.by == BY_RING)
		io_uring_queue_exit(&self->loop.ring);
	fault_env_close(_metadata, &self->env);
}

/* ---- what is read for an event ---- */

/* One read with room for @room messages; returns the groups, which are answered. */
static int serve_some(struct __test_metadata *_metadata, loop_t *self, unsigned int room,
		      ssize_t *messages)
{
	int groups = 0;
	ssize_t i;

	*messages = fault_read(self->env.queue, self->m, room);
	for (i = 0; i < *messages; i++) {
		if (!(self->m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE))
			continue;
		EXPECT_EQ(0, fault_answer(self->env.queue, self->m[i].cookie, SUCCESS));
		groups++;
	}
	return groups;
}

static int serve_one(struct __test_metadata *_metadata, loop_t *self)
{
	ssize_t messages;

	return serve_some(_metadata, self, 1, &messages);
}

/*
 * Nothing is left, and after what is told late nobody is woken any more: there was
 * an event of each set for each group, and one for each read that left some.
 */
static void expect_idle(struct __test_metadata *_metadata, loop_t *self, unsigned int groups)
{
	unsigned int most = 2 * groups * (self->loop.n_epfds ?: 1), late;

	for (late = 0; late <= most && next_event(&self->loop, SHORT_MS) == 1; late++)
		EXPECT_EQ(0, serve_one(_metadata, self));
	EXPECT_GE(most, self->loop.count);
	expect_answers(_metadata, &self->env, groups, 0);
}

static void serve_one_an_event(struct __test_metadata *_metadata, loop_t *self,
			       unsigned int groups)
{
	unsigned int served = 0;

	while (served < groups && next_event(&self->loop, LONG_MS) == 1)
		served += serve_one(_metadata, self);
	EXPECT_EQ(groups, served) {
		TH_LOG("%u events", self->loop.count);
	}
	expect_idle(_metadata, self, groups);
}

/* ---- one group for each event ---- */

TEST_F(loop, in_turn)
{
	unsigned int i;

	for (i = 0; i < GROUPS; i++) {
		ASSERT_EQ(0, inject(&self->env, i, 1, 1));
		ASSERT_EQ(1, next_event(&self->loop, LONG_MS));
		EXPECT_EQ(1, serve_one(_metadata, self));
		if (self->loop.n_epfds < 2)
			EXPECT_EQ(0, next_event(&self->loop, SHORT_MS));
	}
	expect_idle(_metadata, self, GROUPS);
}

TEST_F(loop, one_by_one)
{
	unsigned int i;

	for (i = 0; i < GROUPS; i++)
		ASSERT_EQ(0, inject(&self->env, i, 1, 1));
	serve_one_an_event(_metadata, self, GROUPS);
}

TEST_F(loop, burst)
{
	ASSERT_EQ(0, inject(&self->env, 0, GROUPS, 1));
	serve_one_an_event(_metadata, self, GROUPS);
}

/* They come while others are being served. */
TEST_F(loop, slow_reader)
{
	unsigned int served = 0, i;
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		for (i = 0; i < 4 * GROUPS; i++) {
			if (inject(&self->env, i, 1, 1))
				_exit(1);
			usleep(2000);
		}
		_exit(0);
	}
	while (served < 4 * GROUPS && next_event(&self->loop, LONG_MS) == 1) {
		usleep(3000);
		served += serve_one(_metadata, self);
	}
	EXPECT_EQ(4 * GROUPS, served);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	expect_idle(_metadata, self, 4 * GROUPS);
}

/* Also who does not read is told of each. */
TEST_F(loop, event_for_each_group)
{
	unsigned int i;

	for (i = 0; i < GROUPS; i++) {
		ASSERT_EQ(0, inject(&self->env, i, 1, 1));
		ASSERT_EQ(1, next_event(&self->loop, LONG_MS));
	}
}

/* All has been told, and is not read; the rest of each read is news. */
TEST_F(loop, event_for_what_is_left)
{
	unsigned int i;

	ASSERT_EQ(0, inject(&self->env, 0, GROUPS, 1));
	for (i = 0; i < 2 * GROUPS && next_event(&self->loop, SHORT_MS) == 1; i++)
		;
	for (i = 0; i < GROUPS - 1; i++) {
		EXPECT_EQ(1, serve_one(_metadata, self));
		EXPECT_EQ(1, next_event(&self->loop, LONG_MS));
	}
	EXPECT_EQ(1, serve_one(_metadata, self));
	self->loop.count = 0;
	expect_idle(_metadata, self, GROUPS);
}

/* Groups that are larger than the room are left as well: told, and there. */
TEST_F(loop, event_for_what_does_not_fit)
{
	ssize_t messages;

	ASSERT_EQ(0, inject(&self->env, 0, 1, 2));
	ASSERT_EQ(0, inject(&self->env, 1, 1, ROOM));
	ASSERT_EQ(1, next_event(&self->loop, LONG_MS));
	EXPECT_EQ(1, serve_some(_metadata, self, 2, &messages));
	ASSERT_EQ(1, next_event(&self->loop, LONG_MS));
	EXPECT_EQ(0, serve_some(_metadata, self, 2, &messages));
	EXPECT_EQ(-EINVAL, messages);
	EXPECT_EQ(1, serve_some(_metadata, self, ROOM, &messages));
	expect_idle(_metadata, self, 2);
}

/* ---- as much as there is ---- */

/* A child that makes @groups groups of three requests, a few at a time. */
static pid_t start_source(loop_t *self, unsigned int groups)
{
	pid_t pid = fork();
	unsigned int i, n;

	if (pid)
		return pid;
	for (i = 0; i < groups; i += n) {
		n = i % 7 + 1;
		n = n < groups - i ? n : groups - i;
		if (inject(&self->env, i, n, 3))
			_exit(1);
		if (i % 3)
			usleep(i * 7 % 500);
	}
	_exit(0);
}

static void end_source(struct __test_metadata *_metadata, pid_t pid)
{
	int status;

	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/* Until there is nothing, as libuv reads */
TEST_F(loop, until_eagain)
{
	pid_t pid = start_source(self, 200);
	unsigned int served = 0;
	ssize_t messages;

	while (served < 200 && next_event(&self->loop, LONG_MS) == 1) {
		do {
			served += serve_some(_metadata, self, ROOM, &messages);
		} while (messages > 0);
		EXPECT_EQ(-EAGAIN, messages);
	}
	EXPECT_EQ(200, served);
	end_source(_metadata, pid);
	expect_idle(_metadata, self, 200);
}

/* Until a read is short, as tokio reads. Two groups of three leave room for two. */
TEST_F(loop, until_short)
{
	pid_t pid = start_source(self, 200);
	unsigned int served = 0;
	ssize_t messages;

	while (served < 200 && next_event(&self->loop, LONG_MS) == 1) {
		do {
			served += serve_some(_metadata, self, ROOM, &messages);
		} while (messages == ROOM);
	}
	EXPECT_EQ(200, served);
	end_source(_metadata, pid);
	expect_idle(_metadata, self, 200);
}

/* A read first, and an event only if there is nothing, as Go reads */
TEST_F(loop, read_first)
{
	pid_t pid = start_source(self, 200);
	unsigned int served = 0;
	ssize_t messages;

	while (served < 200) {
		served += serve_some(_metadata, self, ROOM, &messages);
		if (messages < 0 && (messages != -EAGAIN || next_event(&self->loop, LONG_MS) != 1))
			break;
	}
	EXPECT_EQ(200, served);
	end_source(_metadata, pid);
	expect_idle(_metadata, self, 200);
}

/* ---- several that share the work ---- */

struct sharer {
	pthread_t thread;
	int fd;
	uint32_t events;
	unsigned int *left;
};

/* One group for each event, from a set of its own */
static void *share(void *arg)
{
	struct sharer *s = arg;
	struct epoll_event event = { .events = s->events };
	struct iommu_hwpt_pgfault m;
	int epfd = epoll_create1(0);

	if (epoll_ctl(epfd, EPOLL_CTL_ADD, s->fd, &event))
		return NULL;
	while (__atomic_load_n(s->left, __ATOMIC_RELAXED)) {
		if (epoll_wait(epfd, &event, 1, 5) != 1)
			continue;
		if (fault_read(s->fd, &m, 1) == 1 && !fault_answer(s->fd, m.cookie, SUCCESS))
			__atomic_fetch_sub(s->left, 1, __ATOMIC_RELAXED);
		usleep(100);
	}
	close(epfd);
	return NULL;
}

static void share_work(struct __test_metadata *_metadata, struct fault_env *env, uint32_t events)
{
	unsigned int left = 200, i, n, ms;
	struct sharer s[4];

	for (i = 0; i < 4; i++) {
		s[i] = (struct sharer){ .fd = env->queue, .events = events, .left = &left };
		ASSERT_EQ(0, pthread_create(&s[i].thread, NULL, share, &s[i]));
	}
	for (i = 0; i < 200; i += n) {
		n = i % 7 + 1;
		n = n < 200 - i ? n : 200 - i;
		ASSERT_EQ(0, inject(env, i, n, 1));
		usleep(i * 7 % 500);
	}
	for (ms = 0; ms < LONG_MS && __atomic_load_n(&left, __ATOMIC_RELAXED); ms++)
		usleep(1000);
	EXPECT_EQ(0, __atomic_exchange_n(&left, 0, __ATOMIC_RELAXED));
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_join(s[i].thread, NULL));
	expect_answers(_metadata, env, 200, 0);
}

TEST_F(loop, threads)
{
	if (variant->by != BY_EPOLL || variant->events & EPOLLONESHOT)
		SKIP(return, "no set of events to share the file with");
	share_work(_metadata, &self->env, variant->events);
}

TEST_HARNESS_MAIN
