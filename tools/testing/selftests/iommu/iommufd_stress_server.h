/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A server for stress tests: takes faults in one of several ways, checks every
 * message, gives random answers, forgets some, gives wrong ones, and ends as it
 * pleases. It neither knows nor cares which device the faults come from.
 */
#ifndef __SELFTEST_IOMMUFD_STRESS_SERVER_H
#define __SELFTEST_IOMMUFD_STRESS_SERVER_H

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "iommufd_stress_utils.h"

/* What all processes of a run share. */
struct stress_shared {
	bool stop;
	uint64_t faults;	/* requests that were handed to the kernel */
	uint64_t groups;	/* groups that servers read */
	uint64_t answered;	/* answers that were taken */
	uint64_t refused;	/* answers to what was gone, or never was */
	uint64_t servers;
	int failed;
	char failure[240];
};

#define SERVER_ROOM 64
#define SERVER_ROUNDS 20 /* at the least, however slow the machine is */
#define STRESS_PERM 3 /* read and write, as every stress fault asks for */

enum server_mode {
	SERVER_READ,	/* the library's ring: posted reads */
	SERVER_MULTISHOT,
	SERVER_SERVE,	/* IOMMU_FAULT_SERVE, with every kind of timeout */
	SERVER_CANCEL,	/* posted reads, of which many are cancelled */
	SERVER_EVENTS,	/* a multishot poll of io_uring, a read for each event */
	SERVER_EPOLL,	/* the same by epoll's edges */
	SERVER_POLL,	/* poll, read(2), write(2) */
	SERVER_SLEEP,	/* read(2) that blocks, if the queue was made so */
	SERVER_HOARD,	/* reads and never answers */
	SERVER_MODES,
};

/* How a server leaves. */
enum server_end { SERVER_CLOSE, SERVER_EXIT, SERVER_KILLED, SERVER_ENDS };

struct server_plan {
	struct stress_shared *shared;
	int fd;
	bool immediate;	/* requests come one by one, as they arrive; not with the library */
	enum server_mode mode;
	enum server_end end;
	uint32_t ms;	/* how long it serves */
	uint64_t seed;
	struct rng rng;
};

static inline bool stress_over(const struct stress_shared *shared)
{
	return __atomic_load_n(&shared->stop, __ATOMIC_RELAXED);
}

static inline void stress_count(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* The first failure is kept, and the run ends. */
static inline __attribute__((format(printf, 2, 3)))
void stress_fail(struct stress_shared *shared, const char *what, ...)
{
	va_list args;

	if (!__atomic_exchange_n(&shared->failed, 1, __ATOMIC_SEQ_CST)) {
		va_start(args, what);
		vsnprintf(shared->failure, sizeof(shared->failure), what, args);
		va_end(args);
	}
	__atomic_store_n(&shared->stop, true, __ATOMIC_SEQ_CST);
}

static inline uint32_t server_code(struct rng *rng)
{
	uint32_t n = rng_below(rng, 16);

	return n == 0 ? IOMMUFD_PAGE_RESP_FAILURE : n == 1 ? IOMMUFD_PAGE_RESP_INVALID :
						       IOMMUFD_PAGE_RESP_SUCCESS;
}

/* What every message must be, whatever happens beside. */
static inline void server_check(struct server_plan *plan, const struct iommu_hwpt_pgfault *m)
{
	uint32_t flags = IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE |
			 IOMMU_PGFAULT_FLAGS_LOST;

	if (plan->immediate)
		flags |= IOMMU_PGFAULT_FLAGS_OPEN;
	if (m->flags & ~flags || m->__reserved || m->length || m->addr & 0xfff ||
	    m->perm != STRESS_PERM || !m->dev_id || !m->cookie)
		stress_fail(plan->shared, "message: %#x %u %#x %#x %#llx %u %u", m->flags,
			    m->dev_id, m->perm, m->__reserved, (unsigned long long)m->addr,
			    m->length, m->cookie);
}

/* The answer to a group; false if the server forgets it. */
static inline bool server_answer(struct server_plan *plan, uint32_t cookie,
				 struct iommu_hwpt_page_response *answer)
{
	struct rng *rng = &plan->rng;

	stress_count(&plan->shared->groups, 1);
	answer->cookie = cookie;
	answer->code = server_code(rng);
	if (rng_one_in(rng, 100))
		answer->cookie ^= 1 << rng_below(rng, 32);
	return !rng_one_in(rng, 100);
}

/* write(2) all answers; one that is refused is skipped. */
static inline void server_write(struct server_plan *plan,
				const struct iommu_hwpt_page_response *answers, unsigned int n)
{
	unsigned int done = 0;
	ssize_t rc;

	while (done < n) {
		rc = write(plan->fd, &answers[done], (n - done) * sizeof(*answers));
		if (rc > 0) {
			done += (unsigned int)rc / sizeof(*answers);
			stress_count(&plan->shared->answered, (uint64_t)rc / sizeof(*answers));
			continue;
		}
		/* Nobody's, timed out, or of a group that is not complete */
		if (rc == 0 || (errno != EINVAL && errno != ESTALE && errno != EBUSY)) {
			stress_fail(plan->shared, "write: %zd, %s", rc, strerror(errno));
			return;
		}
		stress_count(&plan->shared->refused, 1);
		done++;
	}
}

/* Take the groups of @n messages; returns how many are to be answered. */
static inline unsigned int server_groups(struct server_plan *plan,
					 const struct iommu_hwpt_pgfault *messages, size_t n,
					 struct iommu_hwpt_page_response *answers)
{
	struct iopf_iter iter = iopf_groups(messages, n);
	unsigned int n_answers = 0, i;
	struct iopf_group group;
	int next;

	while ((next = iopf_next_group(&iter, &group)) > 0) {
		for (i = 0; i < group.n; i++)
			server_check(plan, &group.requests[i]);
		n_answers += server_answer(plan, group.cookie, &answers[n_answers]);
	}
	if (next < 0)
		stress_fail(plan->shared, "no whole groups in %zu messages", n);
	return n_answers;
}

/* The same for requests that come one by one, those of several groups mixed. */
static inline unsigned int server_requests(struct server_plan *plan,
					   const struct iommu_hwpt_pgfault *messages, size_t n,
					   struct iommu_hwpt_page_response *answers)
{
	unsigned int n_answers = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		if (messages[i].flags & IOMMU_PGFAULT_FLAGS_RECALLED)
			continue;
		server_check(plan, &messages[i]);
		if (!(messages[i].flags & IOMMU_PGFAULT_FLAGS_OPEN))
			n_answers += server_answer(plan, messages[i].cookie, &answers[n_answers]);
	}
	return n_answers;
}

/* The answers to @n messages that were read. */
static inline unsigned int server_take(struct server_plan *plan,
				       const struct iommu_hwpt_pgfault *messages, size_t n,
				       struct iommu_hwpt_page_response *answers)
{
	if (plan->immediate)
		return server_requests(plan, messages, n, answers);
	return server_groups(plan, messages, n, answers);
}

/* One read(2) and the answers to what it got. */
static inline void server_read(struct server_plan *plan)
{
	struct iommu_hwpt_page_response answers[SERVER_ROOM];
	struct iommu_hwpt_pgfault messages[SERVER_ROOM];
	unsigned int room = 1 + rng_below(&plan->rng, SERVER_ROOM), n;
	ssize_t rc;

	rc = read(plan->fd, messages, room * sizeof(messages[0]));
	/* EINVAL: the first group is larger than the room */
	if (rc < 0 && errno != EINTR && errno != EAGAIN && errno != EINVAL)
		stress_fail(plan->shared, "read: %s", strerror(errno));
	if (rc <= 0)
		return;
	n = server_take(plan, messages, (size_t)rc / sizeof(messages[0]), answers);
	if (plan->mode != SERVER_HOARD)
		server_write(plan, answers, n);
}

static inline bool server_goes_on(const struct server_plan *plan, uint64_t end, int round)
{
	return (round < SERVER_ROUNDS || clock_ms() < end) && !stress_over(plan->shared);
}

static inline void serve_by_read(struct server_plan *plan, uint64_t end)
{
	struct pollfd pfd = { .fd = plan->fd, .events = POLLIN };
	int round;

	for (round = 0; server_goes_on(plan, end, round); round++) {
		if (plan->mode != SERVER_SLEEP)
			poll(&pfd, 1, 5);
		else if (rng_one_in(&plan->rng, 8))
			usleep(rng_below(&plan->rng, 1000));
		server_read(plan);
	}
}

/* By edge, sometimes shared with others; one read for each event, or for none */
static inline void serve_by_epoll(struct server_plan *plan, uint64_t end)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int epfd = epoll_create1(EPOLL_CLOEXEC), round;

	if (rng_one_in(&plan->rng, 2))
		event.events |= EPOLLEXCLUSIVE;
	if (epoll_ctl(epfd, EPOLL_CTL_ADD, plan->fd, &event))
		return; /* no memory */
	for (round = 0; server_goes_on(plan, end, round); round++) {
		epoll_wait(epfd, &event, 1, 5);
		server_read(plan);
	}
	if (plan->end == SERVER_CLOSE)
		close(epfd);
}

static inline uint64_t server_timeout(struct rng *rng)
{
	switch (rng_below(rng, 4)) {
	case 0:
		return 0;
	case 1:
		return rng_below(rng, 100000);
	case 2:
		return rng_below(rng, 5000000);
	default:
		/* until the next signal */
		return IOMMU_FAULT_SERVE_FOREVER;
	}
}

/* One call; returns how many of the answers are dealt with, or -1 for the end. */
static inline int server_call(struct server_plan *plan, struct iommu_fault_serve *cmd)
{
	uint32_t n = cmd->response_num, room = cmd->message_num;
	int rc = ioctl(plan->fd, IOMMU_FAULT_SERVE, cmd) ? errno : 0;

	stress_count(&plan->shared->answered, cmd->response_num);
	if (cmd->response_num > n || (!rc && cmd->response_num < n) ||
	    (rc == EMSGSIZE && cmd->message_num <= room) ||
	    (rc != EMSGSIZE && cmd->message_num > (rc ? 0 : room)))
		stress_fail(plan->shared, "serve: %d, %u of %u answers, %u messages, room for %u",
			    rc, cmd->response_num, n, cmd->message_num, room);
	if (cmd->response_num < n && (rc == EINVAL || rc == ESTALE || rc == EBUSY)) {
		stress_count(&plan->shared->refused, 1);
		return (int)cmd->response_num + 1;
	}
	if (rc && rc != EINTR && rc != EAGAIN && rc != EMSGSIZE && rc != ENODEV)
		stress_fail(plan->shared, "serve: %s", strerror(rc));
	return rc == ENODEV ? -1 : (int)cmd->response_num;
}

static inline void serve_by_call(struct server_plan *plan, uint64_t end)
{
	struct iommu_hwpt_page_response answers[SERVER_ROOM];
	struct iommu_hwpt_pgfault messages[SERVER_ROOM];
	unsigned int n = 0;
	int round, done;

	for (round = 0; server_goes_on(plan, end, round); round++) {
		struct iommu_fault_serve cmd = {
			.size = sizeof(cmd),
			.responses_uptr = (uintptr_t)answers, .response_num = n,
			.messages_uptr = (uintptr_t)messages,
			.message_num = rng_below(&plan->rng, SERVER_ROOM + 1),
			.timeout_ns = server_timeout(&plan->rng),
		};
		uint32_t room = cmd.message_num;

		done = server_call(plan, &cmd);
		if (done < 0)
			return;
		n -= (unsigned int)done;
		memmove(answers, answers + done, n * sizeof(answers[0]));
		/* EMSGSIZE says what it would take */
		if (!n && cmd.message_num <= room)
			n = server_take(plan, messages, cmd.message_num, answers);
	}
}

#define SERVER_READS 8

struct server_reads {
	struct io_uring ring;
	struct iommu_hwpt_pgfault messages[SERVER_READS][SERVER_ROOM];
	unsigned int posted;	/* a bit each */
};

/* Post a read, also by a descriptor that is closed at once, or cancel one or all. */
static inline void server_post(struct server_plan *plan, struct server_reads *reads)
{
	unsigned int i = rng_below(&plan->rng, SERVER_READS);
	unsigned int room = 1 + rng_below(&plan->rng, SERVER_ROOM);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&reads->ring);
	int fd = -1;

	if (!sqe)
		return;
	if (reads->posted & 1 << i) {
		if (rng_one_in(&plan->rng, 4))
			io_uring_prep_cancel(sqe, NULL, IORING_ASYNC_CANCEL_ANY |
					     IORING_ASYNC_CANCEL_ALL);
		else
			io_uring_prep_cancel64(sqe, i, 0);
		io_uring_sqe_set_data64(sqe, SERVER_READS);
	} else {
		if (rng_one_in(&plan->rng, 4))
			fd = dup(plan->fd);
		/* a size like any */
		io_uring_prep_read(sqe, fd < 0 ? plan->fd : fd, reads->messages[i],
				   room * sizeof(struct iommu_hwpt_pgfault) -
					   rng_below(&plan->rng, 2), 0);
		io_uring_sqe_set_data64(sqe, i);
		if (rng_one_in(&plan->rng, 8))
			sqe->flags |= IOSQE_ASYNC;
		reads->posted |= 1 << i;
	}
	io_uring_submit(&reads->ring);
	if (fd >= 0)
		close(fd);
}

static inline void server_completion(struct server_plan *plan, struct server_reads *reads,
				     uint64_t i, int res)
{
	struct iommu_hwpt_page_response answers[SERVER_ROOM];
	unsigned int n;

	if (i == SERVER_READS)
		return;
	reads->posted &= ~(1u << i);
	if (res > 0) {
		n = server_take(plan, reads->messages[i],
				(size_t)res / sizeof(struct iommu_hwpt_pgfault), answers);
		server_write(plan, answers, n);
	}
	/* EINVAL: too small for the first group, or for any */
	if (res < 0 && res != -ECANCELED && res != -EINTR && res != -EINVAL && res != -ENOMEM)
		stress_fail(plan->shared, "posted read: %s", strerror(-res));
}

static inline void serve_by_uring(struct server_plan *plan, uint64_t end)
{
	struct io_uring_params params = {
		.flags = rng_one_in(&plan->rng, 2) ? IORING_SETUP_SINGLE_ISSUER |
						     IORING_SETUP_DEFER_TASKRUN : 0,
	};
	struct server_reads *reads = calloc(1, sizeof(*reads));
	struct __kernel_timespec ts = { .tv_nsec = 5000000 };
	struct io_uring_cqe *cqe;
	bool armed = false;
	uint64_t data;
	int round, res;

	if (!reads || io_uring_queue_init_params(4 * SERVER_READS, &reads->ring, &params))
		return; /* no memory, or no more locked memory */
	for (round = 0; server_goes_on(plan, end, round); round++) {
		if (plan->mode == SERVER_CANCEL) {
			server_post(plan, reads);
			if (rng_one_in(&plan->rng, 2))
				continue;
		} else if (!armed) {
			io_uring_prep_poll_multishot(io_uring_get_sqe(&reads->ring), plan->fd,
						     POLLIN);
			io_uring_submit(&reads->ring);
			armed = true;
		}
		if (io_uring_wait_cqe_timeout(&reads->ring, &cqe, &ts))
			continue;
		data = cqe->user_data;
		res = cqe->res;
		armed = cqe->flags & IORING_CQE_F_MORE;
		io_uring_cqe_seen(&reads->ring, cqe);
		if (plan->mode == SERVER_CANCEL)
			server_completion(plan, reads, data, res);
		else
			server_read(plan);
	}
	if (plan->end == SERVER_CLOSE)
		io_uring_queue_exit(&reads->ring);
}

static inline void serve_by_ring(struct server_plan *plan, uint64_t end)
{
	struct iopf_queue queue = { .fd = plan->fd };
	struct iommu_hwpt_page_response answers[SERVER_ROOM];
	struct iopf io = { .fd = -1 };
	struct iopf_slot *slot;
	struct iopf_ring ring;
	unsigned int i, n;
	int rc, round;

	queue.io = &io;
	rc = iopf_ring_init_mode(&ring, &queue,
				 plan->mode == SERVER_READ ? IOPF_READ : IOPF_MULTISHOT,
				 1 + rng_below(&plan->rng, 16), SERVER_ROOM);
	if (rc)
		return; /* no memory, or no more locked memory */
	for (round = 0; server_goes_on(plan, end, round); round++) {
		rc = iopf_ring_next(&ring, 5, &slot);
		if (rc < 0 && rc != -EINTR)
			break;
		if (rc == IOPF_ANSWERED) {
			stress_count(&plan->shared->refused, slot->n_refused);
			continue;
		}
		if (rc != IOPF_FAULTS)
			continue;
		n = server_groups(plan, slot->messages, slot->n_messages, answers);
		for (i = 0; i < n; i++)
			iopf_slot_answer(slot, answers[i].cookie, answers[i].code);
		stress_count(&plan->shared->answered, n);
		iopf_ring_reply(&ring, slot);
	}
	/* ENODEV: the world is no more */
	if (rc < 0 && rc != -EINTR && rc != -ENODEV)
		stress_fail(plan->shared, "ring, mode %d: %s", ring.mode, strerror(-rc));
	if (plan->end == SERVER_CLOSE)
		iopf_ring_exit(&ring);
}

static inline void server_tick(int signal)
{
	(void)signal;
}

/* Serve for a while and end: does not return. */
static inline void __attribute__((noreturn)) server_run(struct server_plan *plan)
{
	const struct itimerval tick = { { 0, 20000 }, { 0, 20000 } };
	const struct sigaction action = { .sa_handler = server_tick };
	uint64_t end = clock_ms() + plan->ms;

	plan->rng = rng_of(plan->seed, 1);
	if (plan->immediate && plan->mode <= SERVER_MULTISHOT)
		plan->mode = SERVER_POLL;
	stress_count(&plan->shared->servers, 1);
	/* A read that blocks is not to outlive the run. */
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &tick, NULL);
	switch (plan->mode) {
	case SERVER_READ:
	case SERVER_MULTISHOT:
		serve_by_ring(plan, end);
		break;
	case SERVER_SERVE:
		serve_by_call(plan, end);
		break;
	case SERVER_CANCEL:
	case SERVER_EVENTS:
		serve_by_uring(plan, end);
		break;
	case SERVER_EPOLL:
		serve_by_epoll(plan, end);
		break;
	default:
		serve_by_read(plan, end);
	}
	if (plan->end == SERVER_CLOSE)
		close(plan->fd);
	if (plan->end == SERVER_KILLED)
		raise(SIGKILL);
	_exit(0);
}

#endif
