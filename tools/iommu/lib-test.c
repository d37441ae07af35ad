// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the client library: the decoder, the histogram, and the ring with a socket
 * in the place of the fault queue's file.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib-test.h"
#include "lib-test-socket.h"
#include "server/server.h"
#include "../testing/selftests/iommu/iommufd_harness.h"

#define READS 8

static struct iommu_hwpt_pgfault message(uint32_t cookie, uint64_t addr, bool last)
{
	return (struct iommu_hwpt_pgfault){
		.flags = IOMMU_PGFAULT_FLAGS_PASID_VALID |
			 (last ? IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0),
		.dev_id = 3, .pasid = 7, .grpid = cookie + 100, .addr = addr, .cookie = cookie,
	};
}

TEST(groups)
{
	struct iommu_hwpt_pgfault m[] = {
		message(1, 0x1000, true),
		message(2, 0x2000, false), message(2, 0x3000, false), message(2, 0x4000, true),
		message(2, 0x5000, true),
	};
	struct iopf_iter iter = iopf_groups(m, 5);
	struct iopf_group group;

	ASSERT_EQ(1, iopf_next_group(&iter, &group));
	EXPECT_EQ(1, group.n);
	EXPECT_EQ(1, group.cookie);
	EXPECT_EQ(&m[0], group.requests);
	EXPECT_EQ(3, group.dev_id);
	EXPECT_EQ(7, group.pasid);
	EXPECT_TRUE(group.has_pasid);
	EXPECT_EQ(101, group.grpid);
	ASSERT_EQ(1, iopf_next_group(&iter, &group));
	EXPECT_EQ(3, group.n);
	EXPECT_EQ(2, group.cookie);
	EXPECT_EQ(0x4000, group.requests[2].addr);
	ASSERT_EQ(1, iopf_next_group(&iter, &group));
	EXPECT_EQ(1, group.n);
	EXPECT_EQ(&m[4], group.requests);
	EXPECT_EQ(0, iopf_next_group(&iter, &group));
}

/* With a loss that no fault tells of */
TEST(lost)
{
	struct iommu_hwpt_pgfault m[] = {
		{ .flags = IOMMU_PGFAULT_FLAGS_LOST }, message(1, 0x1000, true),
		{ .flags = IOMMU_PGFAULT_FLAGS_LOST },
	};
	struct iopf_iter iter = iopf_groups(m, 3);
	struct iopf_group group;

	ASSERT_EQ(1, iopf_next_group(&iter, &group));
	EXPECT_EQ(&m[1], group.requests);
	EXPECT_EQ(1, group.n);
	EXPECT_EQ(0, iopf_next_group(&iter, &group));
	EXPECT_TRUE(iopf_lost(m, 3));
	EXPECT_FALSE(iopf_lost(m + 1, 1));
	EXPECT_FALSE(iopf_lost(m, 0));
}

TEST(group_without_end)
{
	struct iommu_hwpt_pgfault m[] = {
		message(1, 0x1000, false), message(2, 0x2000, true),
	};
	struct iopf_iter iter = iopf_groups(m, 2);
	struct iopf_group group;

	EXPECT_EQ(-EPROTO, iopf_next_group(&iter, &group));
	iter = iopf_groups(m, 1);
	EXPECT_EQ(-EPROTO, iopf_next_group(&iter, &group));
	iter = iopf_groups(m, 0);
	EXPECT_EQ(0, iopf_next_group(&iter, &group));
}

TEST(errors_say_what_failed)
{
	struct iopf io = { .fd = -1 };

	EXPECT_STREQ("no error", iopf_error(&io));
	EXPECT_EQ(-ENOENT, iopf_fail(&io, ENOENT, "open %s", "nothing"));
	EXPECT_STREQ("open nothing: No such file or directory", iopf_error(&io));
	EXPECT_EQ(-EBADF, iopf_destroy(&io, 5));
	EXPECT_STREQ("destroy object 5: Bad file descriptor", iopf_error(&io));
}

/* Where the errno alone would lead nowhere, the words say what it is about. */
TEST(errors_say_what_the_kernel_lacks)
{
	struct iopf_queue queue;
	struct iopf io;
	int fd[2];

	EXPECT_EQ(-EBUSY, iopf_say(&io, EBUSY, "%s is taken", "it"));
	EXPECT_STREQ("it is taken", iopf_error(&io));
	/* no ioctl but IOMMU_FAULT_SERVE is known there */
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd));
	socket_that_serves = fd[0];
	io.fd = fd[0];
	EXPECT_EQ(-ENOTTY, iopf_queue_alloc(&io, 0, &queue));
	EXPECT_STREQ("the kernel has no fault queues (Linux 6.11)", iopf_error(&io));
	socket_that_serves = -1;
	close(fd[0]);
	close(fd[1]);
	if (iopf_open(&io))
		SKIP(return, "no iommufd");
	EXPECT_EQ(-EOPNOTSUPP, iopf_queue_alloc(&io, 1u << 31, &queue));
	EXPECT_STREQ("the kernel has no fault queues with flags 0x80000000", iopf_error(&io));
	iopf_close(&io);
}

/* Percentiles are within an eighth, and never above the greatest value. */
TEST(histogram)
{
	static struct histogram h;
	uint64_t i, p;

	EXPECT_EQ(0, histogram_percentile(&h, 50));
	for (i = 1; i <= 1000; i++)
		histogram_add(&h, i * 1000, 1);
	p = histogram_percentile(&h, 50);
	EXPECT_LE(500000, p);
	EXPECT_GE(562500, p);
	p = histogram_percentile(&h, 99);
	EXPECT_LE(990000, p);
	EXPECT_GE(1000000, p);
	EXPECT_EQ(1000000, histogram_percentile(&h, 100));
	histogram_add(&h, UINT64_MAX, 2000);
	EXPECT_EQ(3000, h.total);
	EXPECT_EQ(UINT64_MAX, histogram_percentile(&h, 50));
}

TEST(histogram_of_small_values)
{
	static struct histogram h;
	uint64_t i;

	for (i = 0; i < 16; i++)
		histogram_add(&h, i, 1);
	EXPECT_EQ(7, histogram_percentile(&h, 50));
	EXPECT_EQ(15, histogram_percentile(&h, 100));
}

/*
 * kernel is the other end of the queue's file.  A socket alone does not know
 * IOMMU_FAULT_SERVE, so that IOPF_SERVE must find out and do with poll.
 */
FIXTURE(ring)
{
	struct iopf io;
	struct iopf_queue queue;
	struct iopf_ring ring;
	int kernel;
};

FIXTURE_VARIANT(ring)
{
	enum iopf_mode asked, got;
};

FIXTURE_VARIANT_ADD(ring, read)
{
	.asked = IOPF_READ,
	.got = IOPF_READ,
};

FIXTURE_VARIANT_ADD(ring, multishot)
{
	.asked = IOPF_MULTISHOT,
	.got = IOPF_MULTISHOT,
};

FIXTURE_VARIANT_ADD(ring, by_call)
{
	.asked = IOPF_SERVE,
	.got = IOPF_SERVE,
};

FIXTURE_VARIANT_ADD(ring, no_call)
{
	.asked = IOPF_SERVE,
	.got = IOPF_POLL,
};

FIXTURE_VARIANT_ADD(ring, poll)
{
	.asked = IOPF_POLL,
	.got = IOPF_POLL,
};

FIXTURE_SETUP(ring)
{
	int fd[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd));
	self->queue = (struct iopf_queue){ .io = &self->io, .id = 1, .fd = fd[0] };
	self->kernel = fd[1];
	if (variant->got == IOPF_SERVE)
		socket_that_serves = fd[0];
	EXPECT_EQ(variant->got == IOPF_SERVE, iopf_queue_has_serve(&self->queue));
	ASSERT_EQ(0, iopf_ring_init_mode(&self->ring, &self->queue, variant->asked, READS,
					 SLOT_SIZE));
	EXPECT_EQ(variant->got, self->ring.mode);
}

FIXTURE_TEARDOWN(ring)
{
	if (self->ring.impl)
		iopf_ring_exit(&self->ring);
	close(self->queue.fd);
	close(self->kernel);
}

static bool send_fault(int kernel, uint32_t cookie)
{
	struct iommu_hwpt_pgfault m[] = {
		message(cookie, 0x1000, false), message(cookie, 0x2000, true),
	};

	return write(kernel, m, sizeof(m)) == sizeof(m);
}

/* Without io_uring a read is under way only while somebody waits. */
static bool reads_ahead(enum iopf_mode mode)
{
	return mode == IOPF_READ || mode == IOPF_MULTISHOT;
}

/* How long to wait for what is there, or is said when a wait is over. */
static unsigned int patience(enum iopf_mode mode)
{
	return mode == IOPF_SERVE ? 1 : WAIT_MS;
}

/* Is the answer with this code there? */
static bool got_answer(int kernel, uint32_t cookie, uint32_t code)
{
	struct iommu_hwpt_page_response r[2];

	return recv(kernel, r, sizeof(r), MSG_DONTWAIT) == sizeof(r[0]) &&
	       r[0].cookie == cookie && r[0].code == code;
}

/* Many more faults than there are slots. */
TEST_F(ring, one_by_one)
{
	struct iopf_slot *slot;
	uint32_t cookie;

	EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&self->ring, 0, &slot));
	for (cookie = 1; cookie <= 3 * READS; cookie++) {
		ASSERT_TRUE(send_fault(self->kernel, cookie));
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, WAIT_MS, &slot));
		EXPECT_EQ(2, slot->n_messages);
		EXPECT_EQ(cookie, slot->messages[1].cookie);
		iopf_slot_answer(slot, cookie, IOMMUFD_PAGE_RESP_SUCCESS);
		iopf_ring_reply(&self->ring, slot);
		ASSERT_EQ(IOPF_ANSWERED,
			  iopf_ring_next(&self->ring, patience(variant->got), &slot));
		EXPECT_EQ(1, slot->n_answers);
		EXPECT_EQ(0, slot->n_refused);
		ASSERT_TRUE(got_answer(self->kernel, cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	}
}

static uint32_t odd_is_invalid(void *arg, const struct iopf_group *group)
{
	*(unsigned int *)arg += group->n;
	return group->cookie % 2 ? IOMMUFD_PAGE_RESP_INVALID : IOMMUFD_PAGE_RESP_SUCCESS;
}

/* Each group gets the answer that the function returned for it. */
TEST_F(ring, serve)
{
	struct iommu_hwpt_pgfault open = message(9, 0x1000, false);
	unsigned int requests = 0;
	uint32_t cookie;

	EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_serve(&self->ring, 0, odd_is_invalid, &requests));
	for (cookie = 1; cookie <= READS; cookie++) {
		ASSERT_TRUE(send_fault(self->kernel, cookie));
		ASSERT_EQ(IOPF_FAULTS,
			  iopf_ring_serve(&self->ring, WAIT_MS, odd_is_invalid, &requests));
		ASSERT_EQ(IOPF_ANSWERED,
			  iopf_ring_serve(&self->ring, patience(variant->got), odd_is_invalid,
					  &requests));
		EXPECT_TRUE(got_answer(self->kernel, cookie, cookie % 2));
	}
	EXPECT_EQ(2 * READS, requests);
	ASSERT_EQ(sizeof(open), write(self->kernel, &open, sizeof(open)));
	EXPECT_EQ(-EPROTO, iopf_ring_serve(&self->ring, WAIT_MS, odd_is_invalid, &requests));
}

TEST_F(ring, as_many_as_slots)
{
	struct iopf_slot *slot;
	uint32_t n;

	for (n = 0; n < READS; n++)
		ASSERT_TRUE(send_fault(self->kernel, n + 1));
	for (n = 0; n < READS; n++)
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, WAIT_MS, &slot));
	EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&self->ring, 0, &slot));
	EXPECT_EQ(variant->got == IOPF_MULTISHOT ? 1 : 0, iopf_ring_in_flight(&self->ring));
}

/* No slot is left for a while, and then all are, in any order. */
TEST_F(ring, more_than_slots)
{
	struct iopf_slot *slots[READS], *slot;
	struct iommu_hwpt_page_response answer;
	uint32_t n, round, answered;

	for (round = 0; round < 5; round++) {
		for (n = 0; n < READS + 3; n++)
			ASSERT_TRUE(send_fault(self->kernel, n + 1));
		for (n = 0; n < READS; n++) {
			ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, WAIT_MS, &slots[n]));
			EXPECT_EQ(n + 1, slots[n]->messages[0].cookie);
		}
		EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&self->ring, 0, &slot));
		while (n--) {
			iopf_slot_answer(slots[n], n + 1, IOMMUFD_PAGE_RESP_SUCCESS);
			iopf_ring_reply(&self->ring, slots[n]);
		}
		for (n = 0, answered = 0; n < 3 || answered < READS + 3;) {
			int event = iopf_ring_next(&self->ring, patience(variant->got), &slot);

			ASSERT_LT(IOPF_TIMEOUT, event);
			answered += event == IOPF_ANSWERED;
			if (event == IOPF_ANSWERED)
				continue;
			EXPECT_EQ(READS + ++n, slot->messages[0].cookie);
			iopf_slot_answer(slot, READS + n, IOMMUFD_PAGE_RESP_SUCCESS);
			iopf_ring_reply(&self->ring, slot);
		}
		for (n = 0; n < READS + 3; n++)
			EXPECT_EQ(sizeof(answer), recv(self->kernel, &answer, sizeof(answer), 0));
	}
}

/* What a posted read got when the ring ends is refused, and no read stays behind. */
TEST_F(ring, exit_loses_nothing)
{
	char rest[2 * sizeof(struct iommu_hwpt_pgfault)];

	ASSERT_TRUE(send_fault(self->kernel, 5));
	iopf_ring_exit(&self->ring);
	EXPECT_EQ(0, iopf_ring_in_flight(&self->ring));
	EXPECT_EQ(reads_ahead(variant->got),
		  got_answer(self->kernel, 5, IOMMUFD_PAGE_RESP_INVALID));
	ASSERT_TRUE(send_fault(self->kernel, 6));
	EXPECT_EQ(sizeof(rest), recv(self->queue.fd, rest, sizeof(rest), MSG_DONTWAIT));
}

/* The other side is gone: no fault can come any more. */
TEST_F(ring, no_more_faults)
{
	struct iopf_slot *slot;

	shutdown(self->kernel, SHUT_RDWR);
	EXPECT_EQ(-ENODEV, iopf_ring_next(&self->ring, WAIT_MS, &slot));
	EXPECT_NE(NULL, strstr(iopf_error(&self->io), "the fault queue: No such device"));
}

/* How many answers the other side gets, up to n: it waits for each. */
static unsigned int answers_that_come(int kernel, unsigned int n)
{
	struct pollfd pfd = { .fd = kernel, .events = POLLIN };
	struct iommu_hwpt_page_response answer;
	unsigned int i;

	for (i = 0; i < n && poll(&pfd, 1, WAIT_MS) > 0; i++) {
		if (recv(kernel, &answer, sizeof(answer), 0) != sizeof(answer))
			break;
	}
	return i;
}

/* By the rule of the header: nothing is left behind when the loop goes back to sleep. */
TEST_F(ring, own_event_loop)
{
	struct epoll_event event = { .events = EPOLLIN };
	unsigned int requests = 0, round, n;
	int epoll = epoll_create1(0);

	ASSERT_EQ(0, epoll_ctl(epoll, EPOLL_CTL_ADD, iopf_ring_fd(&self->ring), &event));
	for (round = 0; round < 10; round++) {
		for (n = 0; n < round % 3 * READS / 2 + 1; n++)
			ASSERT_TRUE(send_fault(self->kernel, n + 1));
		while (requests < 2 * n) {
			/* posted reads are submitted by the first call that waits */
			ASSERT_EQ(round > 0, round > 0 && epoll_wait(epoll, &event, 1, WAIT_MS));
			while (iopf_ring_serve(&self->ring, 0, odd_is_invalid, &requests) > 0)
				;
		}
		EXPECT_EQ(2 * n, requests);
		EXPECT_EQ(n, answers_that_come(self->kernel, n));
		requests = 0;
	}
	close(epoll);
}

/* An answer that is given later, outside of any wait. */
TEST_F(ring, flush)
{
	struct iopf_slot *slots[2], *slot;
	unsigned int n;

	EXPECT_EQ(0, iopf_ring_flush(&self->ring));
	for (n = 0; n < 2; n++)
		ASSERT_TRUE(send_fault(self->kernel, n + 1));
	for (n = 0; n < 2; n++)
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, WAIT_MS, &slots[n]));
	for (n = 0; n < 2; n++) {
		iopf_slot_answer(slots[n], n + 1, IOMMUFD_PAGE_RESP_SUCCESS);
		iopf_ring_reply(&self->ring, slots[n]);
	}
	EXPECT_EQ(0, iopf_ring_flush(&self->ring));
	EXPECT_EQ(2, answers_that_come(self->kernel, 2));
	for (n = 0; n < 2; n++)
		EXPECT_EQ(IOPF_ANSWERED, iopf_ring_next(&self->ring, WAIT_MS, &slot));
}

/* A signal ends the wait, but takes no answer back. */
TEST_F(ring, signal)
{
	struct iopf_slot *slot;

	ASSERT_TRUE(send_fault(self->kernel, 1));
	ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, WAIT_MS, &slot));
	iopf_slot_answer(slot, 1, IOMMUFD_PAGE_RESP_SUCCESS);
	iopf_ring_reply(&self->ring, slot);
	if (variant->got != IOPF_SERVE)
		ASSERT_EQ(IOPF_ANSWERED, iopf_ring_next(&self->ring, WAIT_MS, &slot));
	alarms(true);
	EXPECT_EQ(-EINTR, iopf_ring_next(&self->ring, IOPF_FOREVER, &slot));
	alarms(false);
	EXPECT_TRUE(got_answer(self->kernel, 1, IOMMUFD_PAGE_RESP_SUCCESS));
	if (variant->got == IOPF_SERVE)
		EXPECT_EQ(IOPF_ANSWERED, iopf_ring_next(&self->ring, 0, &slot));
	ASSERT_TRUE(send_fault(self->kernel, 2));
	EXPECT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, WAIT_MS, &slot));
}

/* Answers and messages of one call, that have one slot between them. */
TEST(one_slot)
{
	struct iopf io = { .fd = -1 };
	struct iopf_queue queue = { .io = &io };
	struct iopf_slot *slot;
	struct iopf_ring ring;
	uint32_t cookie;
	int fd[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd));
	queue.fd = fd[0];
	socket_that_serves = fd[0];
	ASSERT_EQ(0, iopf_ring_init(&ring, &queue, 1, SLOT_SIZE));
	ASSERT_EQ(IOPF_SERVE, ring.mode);
	for (cookie = 1; cookie <= 9; cookie++)
		ASSERT_TRUE(send_fault(fd[1], cookie));
	for (cookie = 1; cookie <= 8; cookie++) {
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&ring, WAIT_MS, &slot));
		EXPECT_EQ(cookie, slot->messages[1].cookie);
		slot->user = cookie;
		iopf_slot_answer(slot, cookie, IOMMUFD_PAGE_RESP_SUCCESS);
		iopf_ring_reply(&ring, slot);
		ASSERT_EQ(IOPF_ANSWERED, iopf_ring_next(&ring, WAIT_MS, &slot));
		EXPECT_EQ(cookie, slot->user);
		EXPECT_EQ(1, slot->n_answers);
		EXPECT_TRUE(got_answer(fd[1], cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	}
	/* What came in with the last answer is refused at the end. */
	iopf_ring_exit(&ring);
	EXPECT_TRUE(got_answer(fd[1], 9, IOMMUFD_PAGE_RESP_INVALID));
	close(fd[0]);
	close(fd[1]);
}

/* Answers whose groups are gone are left out, and counted for their slot. */
TEST(refused)
{
	static const uint32_t cookies[] = { LATE, 1, LATE + 1, UNKNOWN, 2, 3, UNKNOWN + 1 };
	struct iopf io = { .fd = -1 };
	struct iopf_queue queue = { .io = &io };
	struct iopf_slot *slot, *other;
	struct iopf_ring ring;
	unsigned int i;
	int fd[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd));
	queue.fd = fd[0];
	socket_that_serves = fd[0];
	ASSERT_EQ(0, iopf_ring_init(&ring, &queue, 2, SLOT_SIZE));
	ASSERT_TRUE(send_fault(fd[1], 1));
	ASSERT_TRUE(send_fault(fd[1], 2));
	ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&ring, WAIT_MS, &slot));
	ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&ring, WAIT_MS, &other));
	for (i = 0; i < sizeof(cookies) / sizeof(cookies[0]); i++)
		iopf_slot_answer(slot, cookies[i], IOMMUFD_PAGE_RESP_SUCCESS);
	iopf_slot_answer(other, 4, IOMMUFD_PAGE_RESP_SUCCESS);
	iopf_ring_reply(&ring, slot);
	iopf_ring_reply(&ring, other);
	ASSERT_EQ(IOPF_ANSWERED, iopf_ring_next(&ring, 1, &slot));
	EXPECT_EQ(4, slot->n_refused);
	ASSERT_EQ(IOPF_ANSWERED, iopf_ring_next(&ring, 1, &slot));
	EXPECT_EQ(0, slot->n_refused);
	for (i = 1; i <= 4; i++)
		EXPECT_TRUE(got_answer(fd[1], i, IOMMUFD_PAGE_RESP_SUCCESS));
	iopf_ring_exit(&ring);
	close(fd[0]);
	close(fd[1]);
}

/* A VMM has its own descriptors: an iommufd, a queue, a device. */
TEST(adopted_device)
{
	struct iopf_device own, adopted;
	struct iopf_queue queue, taken;
	struct pri_address found;
	struct iopf io, mine;
	uint16_t vendor;

	if (!pri_find(&found, 1))
		SKIP(return, "no pri-testdev");
	ASSERT_EQ(0, iopf_open(&mine));
	EXPECT_EQ(0, iopf_pci_expect(&mine, found.bdf, PTD_VENDOR_ID, PTD_DEVICE_ID));
	EXPECT_EQ(-ENODEV, iopf_pci_expect(&mine, found.bdf, PTD_VENDOR_ID, 1));
	EXPECT_NE(NULL, strstr(iopf_error(&mine), "is a device 1234:9171, not 1234:0001"));
	EXPECT_EQ(-ENODEV, iopf_pci_expect(&mine, "ffff:0:0.0", PTD_VENDOR_ID, 1));
	ASSERT_EQ(0, iopf_device_open(&mine, found.bdf, &own));
	iopf_adopt(&io, dup(mine.fd));
	ASSERT_EQ(0, iopf_device_adopt(&io, found.bdf, dup(own.fd), own.id, &adopted));
	EXPECT_EQ(PTD_CREDITS_MAX, iopf_device_pri_capacity(&adopted));
	EXPECT_EQ(0, iopf_device_config_read(&adopted, 0, &vendor, sizeof(vendor)));
	EXPECT_EQ(PTD_VENDOR_ID, vendor);
	ASSERT_EQ(0, iopf_queue_alloc(&mine, 0, &queue));
	iopf_queue_adopt(&io, queue.id, queue.fd, &taken);
	EXPECT_TRUE(iopf_queue_has_serve(&taken));
	EXPECT_EQ(0, iopf_queue_close(&taken));
	EXPECT_EQ(0, iopf_device_close(&adopted));
	iopf_close(&io);
	/* it is ours as before */
	EXPECT_EQ(0, iopf_device_config_read(&own, 0, &vendor, sizeof(vendor)));
	EXPECT_EQ(0, iopf_device_close(&own));
	iopf_close(&mine);
}

TEST_HARNESS_MAIN
