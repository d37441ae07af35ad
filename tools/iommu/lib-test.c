// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the client library that need no IOMMU: the decoder, the histogram,
 * and the ring with a socket in the place of the fault queue's file.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/server.h"
#include "../testing/selftests/kselftest_harness.h"

#define READS 8
#define SLOT_SIZE 16

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
 * kernel is the other end of the queue's file.  A socket has none of the commands
 * of a fault queue, so IOPF_FETCH must find out and do with reads.
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

FIXTURE_VARIANT_ADD(ring, no_fetch)
{
	.asked = IOPF_FETCH,
	.got = IOPF_READ,
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
	self->queue = (struct iopf_queue){ &self->io, 1, fd[0] };
	self->kernel = fd[1];
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
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, 1000, &slot));
		EXPECT_EQ(2, slot->n_messages);
		EXPECT_EQ(cookie, slot->messages[1].cookie);
		iopf_slot_answer(slot, cookie, IOMMUFD_PAGE_RESP_SUCCESS);
		iopf_ring_reply(&self->ring, slot);
		ASSERT_EQ(IOPF_ANSWERED, iopf_ring_next(&self->ring, 1000, &slot));
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
			  iopf_ring_serve(&self->ring, 1000, odd_is_invalid, &requests));
		ASSERT_EQ(IOPF_ANSWERED,
			  iopf_ring_serve(&self->ring, 1000, odd_is_invalid, &requests));
		EXPECT_TRUE(got_answer(self->kernel, cookie, cookie % 2));
	}
	EXPECT_EQ(2 * READS, requests);
	ASSERT_EQ(sizeof(open), write(self->kernel, &open, sizeof(open)));
	EXPECT_EQ(-EPROTO, iopf_ring_serve(&self->ring, 1000, odd_is_invalid, &requests));
}

TEST_F(ring, as_many_as_slots)
{
	struct iopf_slot *slot;
	uint32_t n;

	for (n = 0; n < READS; n++)
		ASSERT_TRUE(send_fault(self->kernel, n + 1));
	for (n = 0; n < READS; n++)
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, 1000, &slot));
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
			ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, 1000, &slots[n]));
			EXPECT_EQ(n + 1, slots[n]->messages[0].cookie);
		}
		EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&self->ring, 0, &slot));
		while (n--) {
			iopf_slot_answer(slots[n], n + 1, IOMMUFD_PAGE_RESP_SUCCESS);
			iopf_ring_reply(&self->ring, slots[n]);
		}
		for (n = 0, answered = 0; n < 3 || answered < READS + 3;) {
			int event = iopf_ring_next(&self->ring, 1000, &slot);

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
	EXPECT_EQ(variant->got != IOPF_POLL,
		  got_answer(self->kernel, 5, IOMMUFD_PAGE_RESP_INVALID));
	ASSERT_TRUE(send_fault(self->kernel, 6));
	EXPECT_EQ(sizeof(rest), recv(self->queue.fd, rest, sizeof(rest), MSG_DONTWAIT));
}

/*
 * A file that ends a posted read with nothing is no fault queue to work with.
 * After a poll, another reader may have been quicker.
 */
TEST_F(ring, empty_read)
{
	struct iopf_slot *slot;

	shutdown(self->kernel, SHUT_RDWR);
	if (variant->got == IOPF_POLL) {
		EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&self->ring, 1000, &slot));
		return;
	}
	EXPECT_EQ(-ENODATA, iopf_ring_next(&self->ring, 1000, &slot));
	EXPECT_NE(NULL, strstr(iopf_error(&self->io), "posted read"));
}

TEST_HARNESS_MAIN
