// SPDX-License-Identifier: GPL-2.0-only
/*
 * A queue with depth, deadline and immediate delivery as a device's page requests meet
 * them, overflow of the IOMMU's queue, and resets of the function and of its bus.
 */
#include <linux/vfio.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include "iommufd_pri_utils.h"

/* ---- depth, deadline, immediate delivery, recall ---- */

/* Each test opens the server with a queue of its own kind. */
FIXTURE(pri_queue)
{
	struct server server;
	struct unit *unit;
};

FIXTURE_SETUP(pri_queue)
{
	struct pri_address found;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	self->server.queue.fd = -1;
	self->unit = &self->server.unit[0];
}

FIXTURE_TEARDOWN(pri_queue)
{
	check_server(_metadata, &self->server);
}

static int open_queue(struct server *server, uint32_t flags, uint32_t depth)
{
	struct iopf_queue_options options = { .flags = flags, .depth = depth };

	return server_open_with(server, &options, 0, 1);
}

static int open_deadline(struct server *server, uint32_t ms, uint32_t code)
{
	struct iopf_queue_options options = { .deadline_ms = ms, .deadline_code = code };

	return server_open_with(server, &options, 0, 1);
}

static long queue_counter(const struct server *server, const char *name)
{
	return fdinfo_number(server->queue.fd, name);
}

/* A counter of the device, in debugfs */
static long device_counter(const struct unit *unit, const char *name)
{
	char path[80];

	snprintf(path, sizeof(path), "/sys/kernel/debug/iommu/iopf/%s", unit->pri.vfio.bdf);
	return named_number(path, name, ' ');
}

/* Wait until it has the value; what it has in the end. */
static long wait_counter(const struct unit *unit, const char *name, long value)
{
	uint64_t end = now_ms() + WAIT_MS;
	long now;

	while ((now = device_counter(unit, name)) != value && now_ms() < end)
		usleep(200);
	return now;
}

/* All that is queued when nothing more is to be answered by the kernel */
static int wait_delivered(struct server *server, struct unit *unit,
			  struct iommu_hwpt_pgfault *m)
{
	int n = 0, more;

	do {
		more = read_some(&server->queue, m + n, PTD_CREDITS_MAX - n, 20);
		if (more < 0)
			return more;
		n += more;
	} while (more || reg(unit, PTD_OPEN_GROUPS) > (uint32_t)n);
	return n;
}

/* A request that is not the last of its group */
static int request_more(struct unit *unit, uint64_t iova, uint32_t id)
{
	pri_set(&unit->pri, PTD_GRPID, id);
	return command(unit, PTD_CMD_PRI, PASID, iova, FLAGS_READ);
}

/*
 * What finds no place is answered, is counted, and user space is told. The device
 * asks again if it is not refused, see no_room.
 */
TEST_F(pri_queue, depth)
{
	struct iommu_hwpt_pgfault m[9];
	int i;

	ASSERT_EQ(0, open_queue(&self->server, IOMMU_FAULT_ALLOC_REPORT_LOSS |
				IOMMU_FAULT_ALLOC_REFUSE, 4));
	ASSERT_EQ(8, burst(self->unit, PASID, 8, 1, 0));
	EXPECT_EQ(4, wait_reg(self->unit, PTD_N_INVALID, 4));
	EXPECT_EQ(4, reg(self->unit, PTD_OPEN_GROUPS));
	ASSERT_EQ(4, read_all(&self->server.queue, m, 4));
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(i ? 0 : IOMMU_PGFAULT_FLAGS_LOST, m[i].flags & IOMMU_PGFAULT_FLAGS_LOST);
		EXPECT_EQ(SRC + i * PAGE, m[i].addr);
		EXPECT_EQ(1, answer(&self->server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	}
	EXPECT_EQ(4, wait_reg(self->unit, PTD_N_SUCCESS, 4));
	EXPECT_EQ(4, queue_counter(&self->server, "iommufd-fault-refused"));
	EXPECT_EQ(4, queue_counter(&self->server, "iommufd-fault-peak"));
}

/* The server has all that is queued: what is refused now is an event of its own. */
TEST_F(pri_queue, loss_alone)
{
	const struct iommu_hwpt_pgfault alone = { .flags = IOMMU_PGFAULT_FLAGS_LOST };
	struct pollfd pfd = { .events = POLLIN };
	struct iommu_hwpt_pgfault m[2];

	ASSERT_EQ(0, open_queue(&self->server, IOMMU_FAULT_ALLOC_REPORT_LOSS |
				IOMMU_FAULT_ALLOC_REFUSE, 1));
	pfd.fd = self->server.queue.fd;
	ASSERT_EQ(1, burst(self->unit, PASID, 1, 1, 0));
	ASSERT_EQ(1, read_all(&self->server.queue, m, 1));
	EXPECT_EQ(0, poll(&pfd, 1, 0));
	ASSERT_EQ(0, request(self->unit, PASID, SRC + PAGE, FLAGS_READ, 7));
	EXPECT_EQ(1, poll(&pfd, 1, WAIT_MS));
	ASSERT_EQ(1, read_some(&self->server.queue, m + 1, 1, 0));
	EXPECT_EQ(0, memcmp(&alone, &m[1], sizeof(alone)));
	EXPECT_EQ(1, wait_reg(self->unit, PTD_N_INVALID, 1));
	EXPECT_EQ(1, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(1, wait_reg(self->unit, PTD_N_SUCCESS, 1));
}

/* More groups in flight than the queue holds: the device gets through all the same. */
TEST_F(pri_queue, no_room)
{
	uint32_t depth;

	for (depth = 1; depth <= 4; depth *= 4) {
		ASSERT_EQ(0, open_queue(&self->server, 0, depth));
		ASSERT_EQ(0, start_copy(self->unit, 32 * PAGE, 1, 8));
		EXPECT_EQ(0, serve(&self->server));
		EXPECT_TRUE(copied(self->unit, 32 * PAGE));
		EXPECT_EQ(0, reg(self->unit, PTD_N_INVALID));
		EXPECT_LE(1, queue_counter(&self->server, "iommufd-fault-refused"));
		if (depth == 1)
			ASSERT_EQ(0, server_close(&self->server));
	}
}

/*
 * A pool that begins with a page, and a burst of all that the device may have in flight:
 * what finds no memory yet is to try again, nothing is lost, and when it comes again there
 * is room for all.
 */
TEST_F(pri_queue, first_burst)
{
	struct iommu_hwpt_pgfault m[PTD_CREDITS_MAX];
	uint32_t again = 0, sent = 0;
	int i, n = 0, round;

	reserve_requests(0);
	ASSERT_EQ(0, open_queue(&self->server, IOMMU_FAULT_ALLOC_REPORT_LOSS, 0));
	reserve_requests(HARNESS_RESERVE);
	for (round = 0; n < PTD_CREDITS_MAX && round < 100; round++) {
		ASSERT_EQ(PTD_CREDITS_MAX, burst(self->unit, PASID, PTD_CREDITS_MAX, 1, 0));
		sent += PTD_CREDITS_MAX;
		n = wait_delivered(&self->server, self->unit, m);
		again += PTD_CREDITS_MAX - n;
		for (i = 0; i < n; i++) {
			EXPECT_EQ(IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE,
				  m[i].flags);
			EXPECT_EQ(1, answer(&self->server, m[i].cookie,
					    IOMMUFD_PAGE_RESP_SUCCESS));
		}
		EXPECT_EQ(sent, wait_reg(self->unit, PTD_N_SUCCESS, sent));
	}
	EXPECT_EQ(PTD_CREDITS_MAX, n);
	EXPECT_LT(0, again);
	EXPECT_EQ(again, wait_counter(self->unit, "no_room", again));
	EXPECT_EQ(again, wait_counter(self->unit, "answered_by_no_room", again));
	EXPECT_EQ(0, reg(self->unit, PTD_N_INVALID));
}

/* As few groups of as many requests as there can be: the same copy. */
TEST_F(pri_queue, first_large_group)
{
	reserve_requests(0);
	ASSERT_EQ(0, open_queue(&self->server, IOMMU_FAULT_ALLOC_REPORT_LOSS, 0));
	reserve_requests(HARNESS_RESERVE);
	ASSERT_EQ(0, start_copy(self->unit, PTD_CREDITS_MAX * PAGE, PTD_CREDITS_MAX / 2, 2));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, PTD_CREDITS_MAX * PAGE));
	EXPECT_EQ(0, reg(self->unit, PTD_N_INVALID));
	EXPECT_LT(0, device_counter(self->unit, "answered_by_no_room"));
}

/* A group that was read and one that was not: the kernel answers both, as it was told. */
TEST_F(pri_queue, deadline)
{
	struct iommu_hwpt_pgfault m[2];

	ASSERT_EQ(0, open_deadline(&self->server, 1000, IOMMUFD_PAGE_RESP_FAILURE));
	ASSERT_EQ(0, request(self->unit, PASID, SRC, FLAGS_READ, 1));
	ASSERT_EQ(1, read_some(&self->server.queue, m, 2, WAIT_MS));
	ASSERT_EQ(0, request(self->unit, PASID, SRC, FLAGS_READ, 2));
	EXPECT_EQ(2, wait_reg(self->unit, PTD_N_FAILURE, 2));
	EXPECT_EQ(2, reg(self->unit, PTD_N_RESPONSES));
	EXPECT_EQ(0, read_some(&self->server.queue, m + 1, 1, 0));
	EXPECT_EQ(-ESTALE, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(2, queue_counter(&self->server, "iommufd-fault-by-deadline"));
	EXPECT_EQ(2, wait_counter(self->unit, "answered_by_deadline", 2));
	EXPECT_EQ(2, wait_counter(self->unit, "answered_failure", 2));
}

/* With SUCCESS the device asks again: a server that was too slow once is no harm. */
TEST_F(pri_queue, deadline_renews)
{
	struct iommu_hwpt_pgfault first, again;
	int rc;

	ASSERT_EQ(0, open_deadline(&self->server, 500, IOMMUFD_PAGE_RESP_SUCCESS));
	ASSERT_EQ(0, map_page(&self->server, self->unit, DST, READ_WRITE));
	ASSERT_EQ(0, start_copy(self->unit, PAGE, 1, 1));
	ASSERT_EQ(1, read_some(&self->server.queue, &first, 1, WAIT_MS));
	do {
		ASSERT_EQ(1, read_some(&self->server.queue, &again, 1, WAIT_MS));
		EXPECT_EQ(first.addr, again.addr);
		EXPECT_NE(first.cookie, again.cookie);
		ASSERT_EQ(0, map_page(&self->server, self->unit, SRC, READ_WRITE));
		rc = answer(&self->server, again.cookie, IOMMUFD_PAGE_RESP_SUCCESS);
	} while (rc == -ESTALE);
	EXPECT_EQ(1, rc);
	EXPECT_EQ(-ESTALE, answer(&self->server, first.cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(PTD_STATE_DONE, wait_stopped(self->unit));
	EXPECT_TRUE(copied(self->unit, PAGE));
}

/* One message, with these flags besides that of the PASID; its cookie */
static uint32_t read_one(struct __test_metadata *_metadata, struct server *server, uint64_t addr,
			 uint32_t flags)
{
	struct iommu_hwpt_pgfault m = {};

	EXPECT_EQ(1, read_some(&server->queue, &m, 1, WAIT_MS));
	EXPECT_EQ(flags | IOMMU_PGFAULT_FLAGS_PASID_VALID, m.flags);
	EXPECT_EQ(addr, m.addr);
	return m.cookie;
}

/* Each request as it comes, one answer for all of them. */
TEST_F(pri_queue, immediate)
{
	uint32_t cookie = 0;
	int i;

	ASSERT_EQ(0, open_queue(&self->server, IOMMU_FAULT_ALLOC_IMMEDIATE, 0));
	for (i = 0; i < 3; i++) {
		uint64_t addr = SRC + i * PAGE;
		uint32_t c;

		ASSERT_EQ(0, i < 2 ? request_more(self->unit, addr, 7) :
			     request(self->unit, PASID, addr, FLAGS_READ, 7));
		c = read_one(_metadata, &self->server, addr, i < 2 ? IOMMU_PGFAULT_FLAGS_OPEN :
			     IOMMU_PGFAULT_FLAGS_LAST_PAGE);
		EXPECT_TRUE(!i || c == cookie);
		cookie = c;
		ASSERT_EQ(0, map_page(&self->server, self->unit, addr, READ_WRITE));
		EXPECT_EQ(memory_read(self->unit, addr), dma_read(self->unit, PASID, addr));
		if (i < 2)
			EXPECT_EQ(-EBUSY, answer(&self->server, cookie, IOMMUFD_PAGE_RESP_SUCCESS));
		EXPECT_EQ(0, reg(self->unit, PTD_N_RESPONSES));
	}
	EXPECT_EQ(1, answer(&self->server, cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(1, wait_reg(self->unit, PTD_N_SUCCESS, 1));
	EXPECT_EQ(0, reg(self->unit, PTD_OPEN_REQUESTS));
	EXPECT_EQ(2, queue_counter(&self->server, "iommufd-fault-answers-early"));
}

/* What a server of an immediate queue has seen */
struct seen {
	bool lost;
	bool recalled;
};

/* Answer what is complete until all groups are, looking for the end of the one of @cookie. */
static int serve_immediate(struct server *server, uint32_t cookie, struct seen *seen)
{
	uint64_t end = now_ms() + WAIT_MS;
	struct iommu_hwpt_pgfault m[64];
	int i, n;

	while (now_ms() < end) {
		n = read_some(&server->queue, m, 64, 5);
		if (n < 0)
			return n;
		if (!n && !reg(&server->unit[0], PTD_OPEN_GROUPS))
			return 0;
		for (i = 0; i < n; i++) {
			seen->lost |= m[i].flags & IOMMU_PGFAULT_FLAGS_LOST;
			if (m[i].flags & IOMMU_PGFAULT_FLAGS_RECALLED)
				seen->recalled |= m[i].cookie == cookie;
			else if (m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE &&
				 answer(server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS) != 1)
				return -EIO;
		}
	}
	return -ETIMEDOUT;
}

/*
 * A group is open, and user space has its beginning, when the page request queue
 * overflows: its end may have been lost, so it is recalled.
 */
TEST_F(pri_queue, immediate_overflow)
{
	struct seen seen = {};
	uint32_t cookie;

	ASSERT_EQ(0, open_queue(&self->server, IOMMU_FAULT_ALLOC_IMMEDIATE |
				IOMMU_FAULT_ALLOC_REPORT_LOSS, 0));
	ASSERT_EQ(0, request_more(self->unit, SRC, 500));
	cookie = read_one(_metadata, &self->server, SRC, IOMMU_PGFAULT_FLAGS_OPEN);
	ASSERT_LT(burst(self->unit, PASID, 5000, PTD_CREDITS_MAX, PTD_F_NO_CREDIT), 5000);
	EXPECT_EQ(1, wait_counter(self->unit, "overflows", 1));
	EXPECT_EQ(0, serve_immediate(&self->server, cookie, &seen));
	EXPECT_TRUE(seen.recalled);
	EXPECT_EQ(-ESTALE, answer(&self->server, cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_LE(1, queue_counter(&self->server, "iommufd-fault-overflows"));
	EXPECT_LE(1, queue_counter(&self->server, "iommufd-fault-recalled"));

	/* what comes of it after all is a group of its own */
	ASSERT_EQ(0, request_when_cleared(self->unit, 500));
	EXPECT_EQ(0, serve_immediate(&self->server, 0, &seen));
	EXPECT_TRUE(seen.lost);
	EXPECT_EQ(500, reg(self->unit, PTD_RESP_GRPID));
	EXPECT_EQ(PTD_RESP_SUCCESS, reg(self->unit, PTD_RESP_CODE));
}

/* Groups that are complete, read or not, outlive an overflow: their device waits. */
TEST_F(pri_queue, overflow_keeps_complete_groups)
{
	struct iommu_hwpt_pgfault m[PENDING];
	int i;

	ASSERT_EQ(0, open_queue(&self->server, 0, 0));
	make_pending(_metadata, &self->server, m);
	ASSERT_EQ(PENDING / 2, read_all(&self->server.queue, m + PENDING / 2, PENDING / 2));
	/* groups without end, none of which is ever answered */
	ASSERT_LT(burst(self->unit, PASID, 5000, PTD_CREDITS_MAX, PTD_F_NO_CREDIT |
			PTD_F_NO_LAST), 5000);
	EXPECT_EQ(1, wait_counter(self->unit, "overflows", 1));
	EXPECT_EQ(0, wait_counter(self->unit, "partials", 0));
	EXPECT_EQ(PENDING, reg(self->unit, PTD_OPEN_GROUPS));
	EXPECT_EQ(0, queue_counter(&self->server, "iommufd-fault-recalled"));
	for (i = 0; i < PENDING; i++)
		EXPECT_EQ(1, answer(&self->server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(PENDING, wait_reg(self->unit, PTD_N_SUCCESS, PENDING));
	EXPECT_EQ(PENDING, reg(self->unit, PTD_N_RESPONSES));
	pri_command(&self->unit->pri, PTD_CMD_RESET);
}

/* ---- function level reset ---- */

/* A kind of queue each; the device comes up without the requests of before. */
FIXTURE(pri_reset)
{
	struct server server;
	struct unit *unit;
};

FIXTURE_VARIANT(pri_reset)
{
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(pri_reset, whole_groups)
{
	.flags = 0,
};

FIXTURE_VARIANT_ADD(pri_reset, immediate)
{
	.flags = IOMMU_FAULT_ALLOC_IMMEDIATE,
};

FIXTURE_SETUP(pri_reset)
{
	struct pri_address found;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	if (!can_be_reset(&found))
		SKIP(return, "pri-testdev cannot be reset: no flr=on, nor a port of its own");
	self->unit = &self->server.unit[0];
	ASSERT_EQ(0, open_queue(&self->server, variant->flags, 0));
}

FIXTURE_TEARDOWN(pri_reset)
{
	check_server(_metadata, &self->server);
}

/* Nobody answers what the device has forgotten: neither the kernel nor, late, user space. */
static void check_recalled(struct __test_metadata *_metadata, struct server *server,
			   const struct iommu_hwpt_pgfault *read, int error)
{
	struct unit *unit = &server->unit[0];
	int i;

	EXPECT_EQ(PENDING, queue_counter(server, "iommufd-fault-recalled"));
	for (i = 0; i < PENDING / 2; i++)
		EXPECT_EQ(error, answer(server, read[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(0, reg(unit, PTD_OPEN_GROUPS));
	EXPECT_EQ(0, reg(unit, PTD_N_RESPONSES));
	EXPECT_EQ(0, reg(unit, PTD_N_STALE));
}

/* An immediate queue tells of the groups that were read; nothing else is left. */
static void check_told(struct __test_metadata *_metadata, struct server *server,
		       const struct iommu_hwpt_pgfault *read, uint32_t flags)
{
	struct iommu_hwpt_pgfault m[PENDING];
	int i, n = flags & IOMMU_FAULT_ALLOC_IMMEDIATE ? PENDING / 2 : 0;

	EXPECT_EQ(n, read_some(&server->queue, m, PENDING, 0));
	for (i = 0; i < n; i++) {
		EXPECT_EQ(IOMMU_PGFAULT_FLAGS_RECALLED | IOMMU_PGFAULT_FLAGS_PASID_VALID,
			  m[i].flags);
		EXPECT_EQ(read[i].cookie, m[i].cookie);
	}
}

TEST_F_TIMEOUT(pri_reset, recalls, 600)
{
	struct iommu_hwpt_pgfault m[PENDING];

	make_pending(_metadata, &self->server, m);
	if (!variant->flags)
		ASSERT_EQ(0, request_more(self->unit, SRC, 500));
	ASSERT_EQ(0, ioctl(self->unit->pri.vfio.fd, VFIO_DEVICE_RESET));
	check_recalled(_metadata, &self->server, m, -ESTALE);
	check_told(_metadata, &self->server, m, variant->flags);
	EXPECT_EQ(PENDING, wait_counter(self->unit, "recalled_reset", PENDING));
	EXPECT_EQ(0, wait_counter(self->unit, "partials", 0));

	/* page requests go on, with the ids of those that were forgotten */
	ASSERT_EQ(0, request(self->unit, PASID, SRC, FLAGS_READ, 500));
	ASSERT_EQ(1, read_some(&self->server.queue, m, PENDING, WAIT_MS));
	EXPECT_EQ(IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE, m[0].flags);
	EXPECT_EQ(1, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(1, wait_reg(self->unit, PTD_N_SUCCESS, 1));
	ASSERT_EQ(0, start_copy(self->unit, HALF, 1, 8));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, HALF));
}

/* Answers of another thread, at all times: none reaches the device of after the reset. */
TEST_F(pri_reset, amid_answers)
{
	volatile bool stop = false;
	struct churn churn = { &self->server, &self->server.queue, &stop };
	pthread_t thread;
	uint32_t stale;
	int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, churn_answers, &churn));
	for (i = 0; i < (int)times("PRI_ROUNDS", 10); i++) {
		burst(self->unit, PASID, PTD_CREDITS_MAX, 1, 0);
		ASSERT_EQ(0, ioctl(self->unit->pri.vfio.fd, VFIO_DEVICE_RESET));
		/* what was on its way has come by now, to a device that took no notice */
		stale = reg(self->unit, PTD_N_STALE);
		usleep(2000);
		EXPECT_EQ(stale, reg(self->unit, PTD_N_STALE));
		EXPECT_EQ(0, reg(self->unit, PTD_N_RESPONSES));
		EXPECT_EQ(0, reg(self->unit, PTD_N_UNMATCHED));
	}
	stop = true;
	EXPECT_EQ(0, pthread_join(thread, NULL));
}

/* VFIO resets the device when it is closed, before anything is detached. */
TEST_F(pri_reset, close_device)
{
	struct iommu_hwpt_pgfault m[PENDING];

	make_pending(_metadata, &self->server, m);
	ASSERT_EQ(0, pri_close(&self->unit->pri));
	/* the message that would say so goes with the attachment */
	check_recalled(_metadata, &self->server, m, variant->flags ? -EINVAL : -ESTALE);
}

TEST_HARNESS_MAIN
