// SPDX-License-Identifier: GPL-2.0-only
/*
 * poll and epoll of a queue, and readers that share it.
 */
#include "../../../iommu/lib/iopf.h"
#include "iommufd_fault_queue.h"

TEST_F(fault, poll_levels)
{
	struct iommu_hwpt_pgfault m;
	int fd = self->queue->fd;

	EXPECT_EQ(POLLOUT, fault_poll(fd, SHORT_MS));
	inject_from(_metadata, &self->env, self->dev, 0, 2, 1);
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(fd, 0));
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(fd, 0));
	m = take(_metadata, fd);
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(fd, 0));
	EXPECT_EQ(0, fault_answer(fd, m.cookie, SUCCESS));
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(fd, 0));
	m = take(_metadata, fd);
	EXPECT_EQ(POLLOUT, fault_poll(fd, 0));
	EXPECT_EQ(0, fault_answer(fd, m.cookie, SUCCESS));
	EXPECT_EQ(POLLOUT, fault_poll(fd, 0));
}

/* How many times there is news */
static unsigned int epoll_news(int epfd)
{
	unsigned int n = 0;

	while (epoll_events(epfd, n ? SHORT_MS : LONG_MS) == EPOLLIN)
		n++;
	return n;
}

/* By edge, each of two groups is news, and so is what a read leaves. */
TEST_F(fault, epoll)
{
	struct epoll_event level = { .events = EPOLLIN };
	struct epoll_event edge = { .events = EPOLLIN | EPOLLET };
	int i, fd = self->queue->fd, lt = epoll_create1(0), et = epoll_create1(0);
	unsigned int n;

	ASSERT_EQ(0, epoll_ctl(lt, EPOLL_CTL_ADD, fd, &level));
	ASSERT_EQ(0, epoll_ctl(et, EPOLL_CTL_ADD, fd, &edge));
	EXPECT_EQ(0, epoll_events(lt, SHORT_MS));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, epoll_events(et, 0));
		inject_from(_metadata, &self->env, self->dev, 0, 2, 1);
		EXPECT_EQ(EPOLLIN, epoll_events(lt, LONG_MS));
		n = epoll_news(et);
		EXPECT_LE(1, n);
		EXPECT_GE(2, n);
		take(_metadata, fd);
		EXPECT_EQ(EPOLLIN, epoll_events(lt, 0));
		if (self->env.additions)
			EXPECT_EQ(1, epoll_news(et));
		take(_metadata, fd);
		EXPECT_EQ(0, epoll_events(lt, 0));
		EXPECT_EQ(0, epoll_events(et, SHORT_MS));
	}
	close(lt);
	close(et);
}

struct epoll_sleeper {
	pthread_t thread;
	int epfd;
	unsigned int *woken;
};

static void *epoll_sleeper_thread(void *arg)
{
	struct epoll_sleeper *s = arg;

	if (epoll_events(s->epfd, LONG_MS) == EPOLLIN)
		__atomic_fetch_add(s->woken, 1, __ATOMIC_RELAXED);
	return NULL;
}

/* Of the threads that share the work by EPOLLEXCLUSIVE, a fault wakes one. */
TEST_F(fault, epoll_exclusive)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE };
	struct epoll_sleeper s[4];
	unsigned int i, woken = 0;

	for (i = 0; i < 4; i++) {
		s[i] = (struct epoll_sleeper){ .epfd = epoll_create1(0), .woken = &woken };
		ASSERT_EQ(0, epoll_ctl(s[i].epfd, EPOLL_CTL_ADD, self->queue->fd, &event));
		ASSERT_EQ(0, pthread_create(&s[i].thread, NULL, epoll_sleeper_thread, &s[i]));
	}
	for (i = 0; i < 4; i++) {
		usleep(SHORT_MS * 1000);
		EXPECT_EQ(i, __atomic_load_n(&woken, __ATOMIC_RELAXED));
		inject_from(_metadata, &self->env, self->dev, 0, 1, 1);
		usleep(SHORT_MS * 1000);
		take(_metadata, self->queue->fd);
	}
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, pthread_join(s[i].thread, NULL));
		close(s[i].epfd);
	}
	EXPECT_EQ(4, woken);
}

/* A failed read puts its groups back: whoever polls by edge must hear of it. */
TEST_F(fault, efault_wakes)
{
	struct epoll_event edge = { .events = EPOLLIN | EPOLLET };
	int fd = self->queue->fd, et = epoll_create1(0);

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	ASSERT_EQ(0, epoll_ctl(et, EPOLL_CTL_ADD, fd, &edge));
	inject_from(_metadata, &self->env, self->dev, 0, 1, 1);
	EXPECT_EQ(EPOLLIN, epoll_events(et, LONG_MS));
	EXPECT_EQ(-EFAULT, fault_read(fd, (void *)fence(_metadata, PAGE), 1));
	EXPECT_EQ(EPOLLIN, epoll_events(et, LONG_MS));
	take(_metadata, fd);
	close(et);
}

TEST_F(fault, poll_wakes)
{
	struct waiter w = { .by = WAIT_POLL, .fd = self->queue->fd };

	waiter_start(_metadata, &w);
	inject_from(_metadata, &self->env, self->dev, 0, 1, 1);
	EXPECT_EQ(POLLIN, waiter_result(&w, LONG_MS));
}

/* Readers in threads: what they have seen, together. */
struct readers {
	int fd;
	bool stop;
	unsigned int wrong;
	unsigned int late;
	unsigned int seen[3000];
};

/* Groups of test two_readers: the id tells how many requests there are. */
static unsigned int requests_of(uint32_t grpid)
{
	return grpid / 1000 + 1;
}

static void read_some(struct readers *r)
{
	struct iommu_hwpt_page_response answers[16];
	struct iommu_hwpt_pgfault m[16];
	struct iopf_group group;
	struct iopf_iter iter;
	unsigned int n = 0;
	ssize_t rc;

	rc = fault_read(r->fd, m, 16);
	iter = iopf_groups(m, rc > 0 ? rc : 0);
	while (iopf_next_group(&iter, &group) == 1) {
		if (group.grpid >= 3000 || group.n != requests_of(group.grpid)) {
			__atomic_fetch_add(&r->wrong, 1, __ATOMIC_RELAXED);
			continue;
		}
		__atomic_fetch_add(&r->seen[group.grpid], 1, __ATOMIC_RELAXED);
		answers[n++] = (struct iommu_hwpt_page_response){ group.cookie, SUCCESS };
	}
	if (rc < 0 || iter.next != iter.end || fault_write(r->fd, answers, n) != n)
		__atomic_fetch_add(&r->wrong, 1, __ATOMIC_RELAXED);
}

static void *reader_thread(void *arg)
{
	struct readers *r = arg;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		if (fault_poll(r->fd, 10) & POLLIN)
			read_some(r);
	}
	return NULL;
}

TEST_F(fault, two_readers)
{
	struct readers *r = anonymous(_metadata, sizeof(*r));
	struct iommu_test_iopf_stats s;
	pthread_t threads[2];
	unsigned int i;

	r->fd = self->queue->fd;
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, reader_thread, r));
	for (i = 0; i < 3000; i += 20)
		inject_from(_metadata, &self->env, self->dev, i, 20, requests_of(i));
	for (i = 0; i < LONG_MS; i += 10) {
		ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
		if (!s.outstanding)
			break;
		usleep(10000);
	}
	__atomic_store_n(&r->stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
	EXPECT_EQ(0, r->wrong);
	for (i = 0; i < 3000; i++)
		ASSERT_EQ(1, r->seen[i]);
	expect_answers_of(_metadata, &self->env, self->dev, 3000, 0);
}

TEST_HARNESS_MAIN
