// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that were written for the fault queue of Linux 6.11, as clients: what
 * they do and rely on must go on working.
 *
 *	qemu	a VMM: O_NONBLOCK, POLLIN by level, reads of 100 messages, an
 *		answer at a time, EAGAIN and EINTR are no errors
 *	vfn	a user-space driver: reads without asking, 0 bytes mean no fault
 *	suite	the kernel's own selftest: readable when the trigger returns, and
 *		its order of taking things apart
 *	rings	two threads, each with a ring: one reads, one writes
 *	library	libiopf in each of its modes, or what it falls back to
 *
 * Every test ends with a look at what the mock device has counted: one answer
 * for each group.  The suite passes on a kernel that has the injector and
 * nothing else of this series, too.
 */
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

/* Some send more requests than most devices may have outstanding. */
#define HARNESS_RESERVE 8448

#include "../../../iommu/lib/iopf.h"
#include "iommufd_harness.h"
#include "iommufd_fault_utils.h"

#define ADDR 0x40000000ULL
#define MSG sizeof(struct iommu_hwpt_pgfault)
#define ANSWER sizeof(struct iommu_hwpt_page_response)
#define SUCCESS IOMMUFD_PAGE_RESP_SUCCESS
#define WAIT_MS 60000
/* as QEMU has it */
#define QEMU_MESSAGES 100
/* More groups than any client has room for. */
#define MANY 300

struct client {
	int fd;
	uint32_t ioas_id, parent_id, hwpt_id, fault_id;
	int fault_fd;
	struct mock_device dev;
	uint32_t sent;
	/* the kernel has more of this series than the injector */
	bool additions;
};

/* With the structure of that time */
static int fault_queue_alloc_6_12(int fd, uint32_t *fault_id, int *fault_fd)
{
	struct iommu_fault_alloc cmd = { .size = offsetof(struct iommu_fault_alloc, depth) };
	int rc = iommufd_call(fd, IOMMU_FAULT_QUEUE_ALLOC, &cmd);

	*fault_id = cmd.out_fault_id;
	*fault_fd = cmd.out_fault_fd;
	return rc;
}

FIXTURE(client)
{
	struct client c;
};

FIXTURE_SETUP(client)
{
	self->c.fd = open("/dev/iommu", O_RDWR);
	if (self->c.fd < 0)
		SKIP(return, "no /dev/iommu");
	if (iopf_stats_reset(self->c.fd, 0))
		SKIP(return, "no page request injector");
	ASSERT_EQ(0, ioas_alloc(self->c.fd, &self->c.ioas_id));
	ASSERT_EQ(0, mock_device_create(self->c.fd, self->c.ioas_id, 0, &self->c.dev));
	self->c.additions = fault_additions(self->c.fd);
	ASSERT_EQ(0, hwpt_alloc_paging(self->c.fd, self->c.dev.idev_id, self->c.ioas_id,
				       IOMMU_HWPT_ALLOC_NEST_PARENT, 0, &self->c.parent_id));
	ASSERT_EQ(0, fault_queue_alloc_6_12(self->c.fd, &self->c.fault_id, &self->c.fault_fd));
	ASSERT_EQ(0, hwpt_alloc_nested(self->c.fd, self->c.dev.idev_id, self->c.parent_id,
				       IOMMU_HWPT_FAULT_ID_VALID, self->c.fault_id,
				       &self->c.hwpt_id));
	ASSERT_EQ(0, mock_replace(self->c.fd, self->c.dev.stdev_id, self->c.hwpt_id));
}

FIXTURE_TEARDOWN(client)
{
	struct iommu_test_iopf_stats s;

	EXPECT_EQ(0, iommufd_destroy(self->c.fd, self->c.dev.stdev_id));
	ASSERT_EQ(0, iopf_stats(self->c.fd, 0, &s));
	EXPECT_EQ(self->c.sent, s.groups);
	EXPECT_EQ(self->c.sent, s.responses[SUCCESS]);
	EXPECT_EQ(0, s.outstanding);
	EXPECT_EQ(0, s.unmatched);
	EXPECT_EQ(0, s.bad_codes);
	if (self->c.fault_fd >= 0)
		EXPECT_EQ(0, close(self->c.fault_fd));
	EXPECT_EQ(0, close(self->c.fd));
}

/* Groups of so many requests each. */
static void send_groups(struct __test_metadata *_metadata, struct client *c,
			uint32_t groups, uint32_t requests)
{
	ASSERT_EQ(0, iopf_inject(c->fd, c->dev.idev_id, 0, c->sent, ADDR, groups,
				 requests, 0));
	c->sent += groups;
}

/* ---- qemu ---- */

/* Read all there is; answer each group with the cookie of its last message. */
static unsigned int qemu_drain(struct __test_metadata *_metadata, int fd)
{
	struct iommu_hwpt_pgfault m[QEMU_MESSAGES];
	unsigned int groups = 0, i, n;
	uint32_t cookie = 0;
	uint64_t addr = 0;
	ssize_t bytes;

	for (;;) {
		bytes = read(fd, m, sizeof(m));
		if (bytes < 0 && errno == EINTR)
			continue;
		if (bytes < 0)
			ASSERT_EQ(EAGAIN, errno);
		if (bytes <= 0) {
			/* it ends with a group */
			EXPECT_EQ(0, cookie);
			return groups;
		}
		ASSERT_EQ(0, bytes % MSG);
		n = bytes / MSG;
		for (i = 0; i < n; i++) {
			/* the messages of a group follow each other */
			if (cookie) {
				EXPECT_EQ(cookie, m[i].cookie);
				EXPECT_EQ(addr + 4096, m[i].addr);
			}
			cookie = m[i].cookie;
			addr = m[i].addr;
			if (!(m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE))
				continue;
			ASSERT_EQ(0, fault_answer(fd, cookie, SUCCESS));
			cookie = 0;
			groups++;
		}
	}
}

static void set_nonblock(struct __test_metadata *_metadata, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	ASSERT_LE(0, flags);
	ASSERT_EQ(0, fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

TEST_F(client, qemu_empty)
{
	set_nonblock(_metadata, self->c.fault_fd);
	EXPECT_EQ(0, fault_poll(self->c.fault_fd, 0) & POLLIN);
	EXPECT_EQ(0, qemu_drain(_metadata, self->c.fault_fd));
}

TEST_F(client, qemu_one)
{
	set_nonblock(_metadata, self->c.fault_fd);
	send_groups(_metadata, &self->c, 1, 1);
	EXPECT_TRUE(fault_poll(self->c.fault_fd, WAIT_MS) & POLLIN);
	EXPECT_EQ(1, qemu_drain(_metadata, self->c.fault_fd));
	EXPECT_EQ(0, fault_poll(self->c.fault_fd, 0) & POLLIN);
}

/* More than a read takes, in groups of several sizes. */
TEST_F(client, qemu_many)
{
	unsigned int size, sent = 0;

	set_nonblock(_metadata, self->c.fault_fd);
	for (size = 1; size <= 32; size++) {
		send_groups(_metadata, &self->c, 10, size);
		sent += 10;
	}
	EXPECT_TRUE(fault_poll(self->c.fault_fd, WAIT_MS) & POLLIN);
	EXPECT_EQ(sent, qemu_drain(_metadata, self->c.fault_fd));
	EXPECT_EQ(0, fault_poll(self->c.fault_fd, 0) & POLLIN);
}

/* Groups for which its buffer is too small, among others. */
TEST_F(client, qemu_large)
{
	static const unsigned int sizes[] = { 1, 101, 3, 300, 100, 1024, 200, 2000 };
	unsigned int i, sent = 0;

	if (!self->c.additions)
		SKIP(return, "a read gets none of a group that is too large");
	set_nonblock(_metadata, self->c.fault_fd);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		send_groups(_metadata, &self->c, 2, sizes[i]);
		sent += 2;
		EXPECT_TRUE(fault_poll(self->c.fault_fd, WAIT_MS) & POLLIN);
		if (i % 3 == 2) {
			EXPECT_EQ(sent, qemu_drain(_metadata, self->c.fault_fd));
			sent = 0;
		}
	}
	EXPECT_EQ(sent, qemu_drain(_metadata, self->c.fault_fd));
	EXPECT_EQ(0, fault_poll(self->c.fault_fd, 0) & POLLIN);
}

/* No answer before its end, no end without its rest; one with too little room waits. */
TEST_F(client, qemu_large_answered_early)
{
	struct iommu_hwpt_pgfault m[QEMU_MESSAGES];
	int fd = self->c.fault_fd;

	if (!self->c.additions)
		SKIP(return, "a read gets none of a group that is too large");
	set_nonblock(_metadata, fd);
	send_groups(_metadata, &self->c, 1, 150);
	EXPECT_EQ(-EINVAL, fault_read(fd, m, 10));
	ASSERT_EQ(QEMU_MESSAGES, fault_read(fd, m, QEMU_MESSAGES));
	EXPECT_EQ(-EBUSY, fault_answer(fd, m[0].cookie, SUCCESS));
	EXPECT_TRUE(fault_poll(fd, 0) & POLLIN);
	EXPECT_EQ(-EINVAL, fault_read(fd, m, 10));
	ASSERT_EQ(50, fault_read(fd, m, QEMU_MESSAGES));
	EXPECT_TRUE(m[49].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE);
	EXPECT_EQ(0, fault_answer(fd, m[49].cookie, SUCCESS));
	EXPECT_EQ(-EINVAL, fault_answer(fd, m[49].cookie, SUCCESS));
}

/* It was detached in the middle of one: no rest is left for the next reader. */
TEST_F(client, qemu_large_detached)
{
	struct iommu_hwpt_pgfault m[QEMU_MESSAGES];
	struct client *c = &self->c;
	struct iommu_test_iopf_stats s;

	if (!c->additions)
		SKIP(return, "a read gets none of a group that is too large");
	set_nonblock(_metadata, c->fault_fd);
	send_groups(_metadata, c, 1, 150);
	ASSERT_EQ(QEMU_MESSAGES, fault_read(c->fault_fd, m, QEMU_MESSAGES));
	ASSERT_EQ(0, mock_replace(c->fd, c->dev.stdev_id, c->ioas_id));
	EXPECT_EQ(0, fault_poll(c->fault_fd, 0) & POLLIN);
	EXPECT_EQ(-EINVAL, fault_answer(c->fault_fd, m[0].cookie, SUCCESS));
	ASSERT_EQ(0, iopf_stats(c->fd, 0, &s));
	EXPECT_EQ(0, s.outstanding);
	ASSERT_EQ(0, mock_replace(c->fd, c->dev.stdev_id, c->hwpt_id));
	send_groups(_metadata, c, 3, 70);
	EXPECT_EQ(3, qemu_drain(_metadata, c->fault_fd));
}

/* POLLIN stays for what a read has left behind. */
TEST_F(client, qemu_level)
{
	struct iommu_hwpt_pgfault m[QEMU_MESSAGES];
	unsigned int left = MANY, n, i;

	set_nonblock(_metadata, self->c.fault_fd);
	send_groups(_metadata, &self->c, MANY, 1);
	for (; left; left -= n) {
		EXPECT_TRUE(fault_poll(self->c.fault_fd, 0) & POLLIN);
		n = fault_read(self->c.fault_fd, m, QEMU_MESSAGES);
		ASSERT_EQ(QEMU_MESSAGES, n);
		for (i = 0; i < n; i++)
			ASSERT_EQ(0, fault_answer(self->c.fault_fd, m[i].cookie, SUCCESS));
	}
	EXPECT_EQ(0, fault_poll(self->c.fault_fd, 0) & POLLIN);
}

/* The guest answers in an order of its own, while others come in. */
TEST_F(client, qemu_late_answers)
{
	struct iommu_hwpt_pgfault m[QEMU_MESSAGES];
	unsigned int i;

	set_nonblock(_metadata, self->c.fault_fd);
	send_groups(_metadata, &self->c, QEMU_MESSAGES, 1);
	ASSERT_EQ(QEMU_MESSAGES, fault_read(self->c.fault_fd, m, QEMU_MESSAGES));
	send_groups(_metadata, &self->c, QEMU_MESSAGES, 2);
	for (i = QEMU_MESSAGES; i--;)
		ASSERT_EQ(0, fault_answer(self->c.fault_fd, m[i].cookie, SUCCESS));
	EXPECT_EQ(QEMU_MESSAGES, qemu_drain(_metadata, self->c.fault_fd));
}

static volatile sig_atomic_t ticks;

static void on_tick(int number)
{
	(void)number;
	ticks++;
}

/* A timer of the VMM interrupts whatever it does. */
TEST_F(client, qemu_signals)
{
	struct sigaction action = { .sa_handler = on_tick };
	struct itimerval every = { { 0, 1000 }, { 0, 1000 } }, off = {};
	unsigned int left = 0;

	set_nonblock(_metadata, self->c.fault_fd);
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &every, NULL));
	while (ticks < 50 || left) {
		struct pollfd pfd = { .fd = self->c.fault_fd, .events = POLLIN };

		if (!left) {
			send_groups(_metadata, &self->c, 20, 3);
			left = 20;
		}
		if (poll(&pfd, 1, WAIT_MS) == 1)
			left -= qemu_drain(_metadata, self->c.fault_fd);
	}
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &off, NULL));
}

/* ---- vfn ---- */

/* Neither flag nor poll: 0 bytes mean that there is none, each time. */
TEST_F(client, vfn_read_until_one)
{
	struct iommu_hwpt_pgfault m;
	unsigned int i;

	for (i = 0; i < MANY; i++) {
		ASSERT_EQ(0, fault_read(self->c.fault_fd, &m, 1));
		if (i % 3)
			continue;
		send_groups(_metadata, &self->c, 1, 1);
		ASSERT_EQ(1, fault_read(self->c.fault_fd, &m, 1));
		ASSERT_EQ(0, fault_answer(self->c.fault_fd, m.cookie, SUCCESS));
	}
}

/* One thread spins on the file. */
static void *vfn_thread(void *arg)
{
	struct client *c = arg;
	struct iommu_hwpt_pgfault m;
	unsigned long answered = 0;
	ssize_t n;

	while (answered < MANY) {
		n = fault_read(c->fault_fd, &m, 1);
		if (n < 0)
			break;
		if (n && fault_answer(c->fault_fd, m.cookie, SUCCESS))
			break;
		answered += n;
	}
	return (void *)answered;
}

TEST_F(client, vfn_spin)
{
	pthread_t thread;
	void *answered;
	unsigned int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, vfn_thread, &self->c));
	for (i = 0; i < MANY; i += 10)
		send_groups(_metadata, &self->c, 10, 1);
	ASSERT_EQ(0, pthread_join(thread, &answered));
	EXPECT_EQ(MANY, (unsigned long)answered);
}

/* ---- suite ---- */

/* Nothing is asked first: the message is there when the trigger returns. */
TEST_F(client, suite_trigger_read_write)
{
	struct iommu_hwpt_page_response answer = { .code = SUCCESS };
	struct iommu_hwpt_pgfault m;
	uint32_t round;

	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, iopf_trigger(self->c.fd, self->c.dev.idev_id, 0, 0x2, 0x3,
					  0xdeadbeaf));
		self->c.sent++;
		ASSERT_EQ(MSG, read(self->c.fault_fd, &m, sizeof(m)));
		EXPECT_EQ(self->c.dev.idev_id, m.dev_id);
		EXPECT_EQ(0x2, m.grpid);
		EXPECT_EQ(0xdeadbeaf, m.addr);
		answer.cookie = m.cookie;
		ASSERT_EQ(ANSWER, write(self->c.fault_fd, &answer, sizeof(answer)));
	}
}

TEST_F(client, suite_take_apart)
{
	EXPECT_EQ(-EBUSY, iommufd_destroy(self->c.fd, self->c.hwpt_id));
	EXPECT_EQ(-EBUSY, iommufd_destroy(self->c.fd, self->c.fault_id));
	ASSERT_EQ(0, mock_replace(self->c.fd, self->c.dev.stdev_id, self->c.ioas_id));
	EXPECT_EQ(0, iommufd_destroy(self->c.fd, self->c.hwpt_id));
	EXPECT_EQ(0, close(self->c.fault_fd));
	self->c.fault_fd = -1;
	EXPECT_EQ(0, iommufd_destroy(self->c.fd, self->c.fault_id));
}

/* ---- rings ---- */

struct rings {
	struct client *c;
	int link[2];
	const char *failed;
};

static int uring_one(struct io_uring *ring, int *res)
{
	struct io_uring_cqe *cqe;
	int rc;

	do {
		rc = io_uring_submit_and_wait(ring, 1);
	} while (rc == -EINTR);
	if (rc < 0 || io_uring_peek_cqe(ring, &cqe))
		return -EIO;
	*res = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return 0;
}

/* One posted read; what it gets goes through the pipe to the other thread. */
static void *ring_reader(void *arg)
{
	struct rings *r = arg;
	struct iommu_hwpt_pgfault m[8];
	struct io_uring ring;
	int got = 0, res = 0;

	if (io_uring_queue_init(2, &ring, 0)) {
		r->failed = "set up the reading ring";
		return NULL;
	}
	while (got < MANY && !r->failed) {
		io_uring_prep_read(io_uring_get_sqe(&ring), r->c->fault_fd, m, sizeof(m), -1);
		if (uring_one(&ring, &res) || res < 0)
			r->failed = "read";
		else if (write(r->link[1], m, res) != res)
			r->failed = "pass on";
		else
			got += res / MSG;
	}
	io_uring_queue_exit(&ring);
	return NULL;
}

static void *ring_writer(void *arg)
{
	struct rings *r = arg;
	struct iommu_hwpt_page_response answer = { .code = SUCCESS };
	struct iommu_hwpt_pgfault m;
	struct io_uring ring;
	int i, res = 0;

	if (io_uring_queue_init(2, &ring, 0)) {
		r->failed = "set up the writing ring";
		return NULL;
	}
	for (i = 0; i < MANY && !r->failed; i++) {
		if (read(r->link[0], &m, sizeof(m)) != sizeof(m)) {
			r->failed = "receive";
			break;
		}
		answer.cookie = m.cookie;
		io_uring_prep_write(io_uring_get_sqe(&ring), r->c->fault_fd, &answer,
				    sizeof(answer), -1);
		if (uring_one(&ring, &res) || res != sizeof(answer))
			r->failed = "write";
	}
	io_uring_queue_exit(&ring);
	return NULL;
}

TEST_F(client, two_rings)
{
	struct rings r = { .c = &self->c };
	pthread_t reader, writer;
	unsigned int i;

	ASSERT_EQ(0, pipe(r.link));
	ASSERT_EQ(0, pthread_create(&reader, NULL, ring_reader, &r));
	ASSERT_EQ(0, pthread_create(&writer, NULL, ring_writer, &r));
	for (i = 0; i < MANY; i += 10)
		send_groups(_metadata, &self->c, 10, 1);
	ASSERT_EQ(0, pthread_join(reader, NULL));
	ASSERT_EQ(0, close(r.link[1]));
	ASSERT_EQ(0, pthread_join(writer, NULL));
	EXPECT_EQ(NULL, r.failed)
		TH_LOG("failed to %s", r.failed);
	ASSERT_EQ(0, close(r.link[0]));
}

/* One ring for both threads: either submits, under a lock, and the reader alone reaps. */
struct one_ring {
	struct rings r;
	struct io_uring ring;
	pthread_mutex_t submission;
	struct iommu_hwpt_pgfault messages[8];
	struct iommu_hwpt_page_response answers[MANY];
};

static bool one_submit(struct one_ring *o, struct iommu_hwpt_page_response *answer)
{
	struct io_uring_sqe *sqe;
	int fd = o->r.c->fault_fd;
	bool good = false;

	pthread_mutex_lock(&o->submission);
	sqe = io_uring_get_sqe(&o->ring);
	if (sqe) {
		if (answer)
			io_uring_prep_write(sqe, fd, answer, sizeof(*answer), -1);
		else
			io_uring_prep_read(sqe, fd, o->messages, sizeof(o->messages), -1);
		io_uring_sqe_set_data(sqe, answer);
		good = io_uring_submit(&o->ring) == 1;
	}
	pthread_mutex_unlock(&o->submission);
	return good;
}

static void *one_reader(void *arg)
{
	struct one_ring *o = arg;
	int got = 0, written = 0, res;
	struct io_uring_cqe *cqe;
	void *answer;

	if (!one_submit(o, NULL))
		o->r.failed = "submit a read";
	while ((got < MANY || written < MANY) && !o->r.failed) {
		if (io_uring_wait_cqe(&o->ring, &cqe))
			continue;
		res = cqe->res;
		answer = io_uring_cqe_get_data(cqe);
		io_uring_cqe_seen(&o->ring, cqe);
		if (answer) {
			written++;
			if (res != sizeof(*o->answers))
				o->r.failed = "write";
			continue;
		}
		if (res < 0 || write(o->r.link[1], o->messages, res) != res)
			o->r.failed = "read and pass on";
		else
			got += res / MSG;
		if (got < MANY && !o->r.failed && !one_submit(o, NULL))
			o->r.failed = "submit a read";
	}
	return NULL;
}

static void *one_writer(void *arg)
{
	struct one_ring *o = arg;
	struct iommu_hwpt_pgfault m;
	int i;

	for (i = 0; i < MANY && !o->r.failed; i++) {
		if (read(o->r.link[0], &m, sizeof(m)) != sizeof(m)) {
			o->r.failed = "receive";
			break;
		}
		o->answers[i] = (struct iommu_hwpt_page_response){ m.cookie, SUCCESS };
		if (!one_submit(o, &o->answers[i]))
			o->r.failed = "submit a write";
	}
	/* Its writes are cancelled if a thread ends before them: until nobody reaps any more. */
	while (read(o->r.link[0], &m, sizeof(m)) > 0)
		;
	return NULL;
}

TEST_F(client, one_ring)
{
	static struct one_ring o = { .submission = PTHREAD_MUTEX_INITIALIZER };
	pthread_t reader, writer;
	unsigned int i;

	o.r.c = &self->c;
	ASSERT_EQ(0, pipe(o.r.link));
	ASSERT_EQ(0, io_uring_queue_init(16, &o.ring, 0));
	ASSERT_EQ(0, pthread_create(&reader, NULL, one_reader, &o));
	ASSERT_EQ(0, pthread_create(&writer, NULL, one_writer, &o));
	for (i = 0; i < MANY; i += 10)
		send_groups(_metadata, &self->c, 10, 1);
	ASSERT_EQ(0, pthread_join(reader, NULL));
	ASSERT_EQ(0, close(o.r.link[1]));
	ASSERT_EQ(0, pthread_join(writer, NULL));
	EXPECT_EQ(NULL, o.r.failed)
		TH_LOG("failed to %s", o.r.failed);
	io_uring_queue_exit(&o.ring);
	ASSERT_EQ(0, close(o.r.link[0]));
}

/* ---- library ---- */

/*
 * What can be made for a device without PASIDs: Linux 7.3 has faults on an IOAS, and its mock
 * has tables for PASIDs all the same.
 */
static uint32_t can_make(const struct client *c)
{
	uint32_t id, found = 0;

	if (!hwpt_alloc_paging(c->fd, c->dev.idev_id, c->ioas_id, IOMMU_HWPT_FAULT_ID_VALID,
			       c->fault_id, &id) && !iommufd_destroy(c->fd, id))
		found |= IOPF_HAS_PAGING;
	if (!hwpt_alloc_paging(c->fd, c->dev.idev_id, c->ioas_id, IOMMU_HWPT_ALLOC_PASID, 0,
			       &id) && !iommufd_destroy(c->fd, id))
		found |= IOPF_HAS_PASID;
	return found;
}

/* What the kernel has of the features, and nothing else, is found. */
TEST_F(client, library_probe)
{
	uint32_t all = IOPF_HAS_PASID * 2 - 1, features = 0;
	uint32_t device = IOPF_HAS_PAGING | IOPF_HAS_PASID;
	struct iopf io = { .fd = self->c.fd };
	struct mock_device pasid;

	ASSERT_EQ(0, iopf_probe(&io, &features));
	EXPECT_EQ(self->c.additions ? all & ~device : IOPF_HAS_QUEUE, features);
	device = can_make(&self->c);
	ASSERT_EQ(0, iopf_probe_device(&io, self->c.dev.idev_id, &features));
	EXPECT_EQ(self->c.additions ? (all & ~IOPF_HAS_PASID) | device : IOPF_HAS_QUEUE | device,
		  features);
	if (!self->c.additions)
		return;
	ASSERT_EQ(0, mock_device_create(self->c.fd, self->c.ioas_id, MOCK_FLAGS_DEVICE_PASID,
					&pasid));
	ASSERT_EQ(0, iopf_probe_device(&io, pasid.idev_id, &features));
	EXPECT_EQ(all, features);
	EXPECT_EQ(0, iommufd_destroy(self->c.fd, pasid.stdev_id));
}

static unsigned int serve_slot(struct iopf_ring *ring, struct iopf_slot *slot)
{
	struct iopf_iter iter = iopf_groups(slot->messages, slot->n_messages);
	struct iopf_group group;
	unsigned int n = 0;

	for (; iopf_next_group(&iter, &group) > 0; n++)
		iopf_slot_answer(slot, group.cookie, SUCCESS);
	iopf_ring_reply(ring, slot);
	return n;
}

static void serve_all(struct __test_metadata *_metadata, struct client *c,
		      enum iopf_mode mode)
{
	struct iopf io = { .fd = c->fd };
	struct iopf_queue queue = { &io, c->fault_id, c->fault_fd };
	unsigned int round, left, answered = 0;
	struct iopf_ring ring;
	struct iopf_slot *slot;
	int event;

	ASSERT_EQ(0, iopf_ring_init_mode(&ring, &queue, mode, 4, 16));
	EXPECT_EQ(c->additions ? mode : IOPF_POLL, ring.mode);
	EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&ring, 0, &slot));
	for (round = 0; round < 50; round++) {
		send_groups(_metadata, c, 30, 1 + round % 4);
		for (left = 30; left;) {
			event = iopf_ring_next(&ring, WAIT_MS, &slot);
			ASSERT_LT(IOPF_TIMEOUT, event)
				TH_LOG("%s", iopf_error(&io));
			if (event == IOPF_FAULTS)
				left -= serve_slot(&ring, slot);
			else
				answered += slot->n_answers;
			if (event == IOPF_ANSWERED)
				EXPECT_EQ(0, slot->n_refused);
		}
	}
	while (answered < c->sent) {
		ASSERT_EQ(IOPF_ANSWERED, iopf_ring_next(&ring, WAIT_MS, &slot));
		answered += slot->n_answers;
	}
	iopf_ring_exit(&ring);
}

TEST_F(client, library_serve)
{
	serve_all(_metadata, &self->c, IOPF_SERVE);
}

TEST_F(client, library_multishot)
{
	serve_all(_metadata, &self->c, IOPF_MULTISHOT);
}

TEST_F(client, library_read)
{
	serve_all(_metadata, &self->c, IOPF_READ);
}

TEST_F(client, library_poll)
{
	serve_all(_metadata, &self->c, IOPF_POLL);
}

/* An answer to nothing is counted, those before and after it are given. */
TEST_F(client, library_refused)
{
	struct iopf io = { .fd = self->c.fd };
	struct iopf_queue queue = { &io, self->c.fault_id, self->c.fault_fd };
	struct iopf_slot *slot;
	struct iopf_ring ring;

	ASSERT_EQ(0, iopf_ring_init_mode(&ring, &queue, IOPF_POLL, 1, 16));
	send_groups(_metadata, &self->c, 2, 1);
	ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&ring, WAIT_MS, &slot));
	ASSERT_EQ(2, slot->n_messages);
	iopf_slot_answer(slot, slot->messages[0].cookie, SUCCESS);
	iopf_slot_answer(slot, 0, SUCCESS);
	iopf_slot_answer(slot, slot->messages[1].cookie, SUCCESS);
	iopf_ring_reply(&ring, slot);
	ASSERT_EQ(IOPF_ANSWERED, iopf_ring_next(&ring, WAIT_MS, &slot));
	EXPECT_EQ(1, slot->n_refused);
	iopf_ring_exit(&ring);
}

TEST_HARNESS_MAIN
