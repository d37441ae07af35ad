// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the client library with faults of iommufd's mock device.  They are skipped
 * by a kernel that has none.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/iopf.h"
#include "lib-test.h"
#include "../testing/selftests/iommu/iommufd_fault_utils.h"
#include "../testing/selftests/iommu/iommufd_harness.h"

/*
 * A fault queue with faults of the mock device.  Where there is no IOMMU_FAULT_SERVE,
 * and where it is not to be used, the same is expected of write, poll and read.
 */
FIXTURE(serve)
{
	struct iopf io;
	struct iopf_queue queue;
	struct mock_device dev;
	uint32_t features;
};

FIXTURE_VARIANT(serve)
{
	bool by_call;
};

FIXTURE_VARIANT_ADD(serve, by_call)
{
	.by_call = true,
};

FIXTURE_VARIANT_ADD(serve, by_files)
{
};

/* Of a kernel without it every such call fails in the same way. */
static bool has_mock(struct iopf *io)
{
	struct iommu_test_iopf_stats stats;

	return !iopf_stats(io->fd, 0, &stats) || errno != ENOTTY;
}

/* A mock device with a nested page table that reports to the queue: as every kernel can. */
static bool attach_mock(struct iopf *io, uint32_t ioas_id, const struct iopf_queue *queue,
			struct mock_device *dev)
{
	uint32_t parent_id, hwpt_id;

	return !mock_device_create(io->fd, ioas_id, 0, dev) &&
	       !hwpt_alloc_paging(io->fd, dev->idev_id, ioas_id, IOMMU_HWPT_ALLOC_NEST_PARENT, 0,
				  &parent_id) &&
	       !hwpt_alloc_nested(io->fd, dev->idev_id, parent_id, IOMMU_HWPT_FAULT_ID_VALID,
				  queue->id, &hwpt_id) &&
	       !mock_replace(io->fd, dev->stdev_id, hwpt_id);
}

FIXTURE_SETUP(serve)
{
	uint32_t ioas_id;

	if (iopf_open(&self->io))
		SKIP(return, "no iommufd");
	ASSERT_EQ(0, iopf_probe(&self->io, &self->features));
	if (variant->by_call && !(self->features & IOPF_HAS_SERVE))
		SKIP(return, "no IOMMU_FAULT_SERVE");
	ASSERT_EQ(0, iopf_queue_alloc(&self->io, 0, &self->queue));
	EXPECT_EQ(!!(self->features & IOPF_HAS_SERVE), iopf_queue_has_serve(&self->queue));
	self->queue.no_serve = !variant->by_call;
	EXPECT_EQ(variant->by_call, iopf_queue_has_serve(&self->queue));
	ASSERT_EQ(0, iopf_ioas_alloc(&self->io, &ioas_id));
	if (!has_mock(&self->io))
		SKIP(return, "no mock device");
	ASSERT_TRUE(attach_mock(&self->io, ioas_id, &self->queue, &self->dev));
}

FIXTURE_TEARDOWN(serve)
{
	if (self->queue.fd > 0)
		close(self->queue.fd);
	iopf_close(&self->io);
}

/* Groups of so many requests each. */
static int fault(struct iopf *io, const struct mock_device *dev, unsigned int groups,
		 unsigned int requests)
{
	return iopf_inject(io->fd, dev->idev_id, 0, 1, MOCK_APERTURE_START, groups, requests,
			   0);
}

/* Answers to all groups, which have one request each. */
static void answer(struct iopf_serve *serve, struct iommu_hwpt_page_response *answers, int n)
{
	int i;

	for (i = 0; i < n; i++)
		answers[i] = (struct iommu_hwpt_page_response){ serve->messages[i].cookie,
								IOMMUFD_PAGE_RESP_SUCCESS };
	serve->answers = answers;
	serve->n_answers = (unsigned int)n;
	serve->n_done = 0;
}

static unsigned int successes(struct iopf *io, const struct mock_device *dev)
{
	struct iommu_test_iopf_stats stats = {};

	iopf_stats(io->fd, dev->idev_id, &stats);
	return stats.responses[IOMMUFD_PAGE_RESP_SUCCESS];
}

TEST_F(serve, answers_in_messages_out)
{
	struct iommu_hwpt_page_response answers[SLOT_SIZE];
	struct iommu_hwpt_pgfault messages[SLOT_SIZE];
	struct iopf_serve serve = { .messages = messages, .room = SLOT_SIZE };
	int n = 0, round;

	EXPECT_EQ(0, iopf_serve(&self->queue, &serve, 0));
	EXPECT_EQ(0, iopf_serve(&self->queue, &serve, 1));
	for (round = 0; round < 20; round++) {
		ASSERT_EQ(0, fault(&self->io, &self->dev, round % 3 + 1, 1));
		answer(&serve, answers, n);
		n = iopf_serve(&self->queue, &serve, IOPF_FOREVER);
		ASSERT_EQ(round % 3 + 1, n);
		EXPECT_EQ(serve.n_answers, serve.n_done);
	}
	EXPECT_EQ(39 - n, successes(&self->io, &self->dev));
	answer(&serve, answers, n);
	serve.room = 0;
	EXPECT_EQ(0, iopf_serve(&self->queue, &serve, IOPF_FOREVER));
	EXPECT_EQ(39, successes(&self->io, &self->dev));
	EXPECT_EQ(0, serve.n_late);
}

/* An answer that cannot be given is named, takes no message, and can be left out. */
TEST_F(serve, unknown_cookie)
{
	struct iommu_hwpt_page_response answers[3], spare;
	struct iommu_hwpt_pgfault messages[3];
	struct iopf_serve serve = { .messages = messages, .room = 3 };

	ASSERT_EQ(0, fault(&self->io, &self->dev, 3, 1));
	ASSERT_EQ(3, iopf_serve(&self->queue, &serve, WAIT_MS));
	ASSERT_EQ(0, fault(&self->io, &self->dev, 2, 1));
	answer(&serve, answers, 3);
	spare = answers[1];
	answers[1].cookie ^= 0x40000000;
	EXPECT_EQ(-EINVAL, iopf_serve(&self->queue, &serve, WAIT_MS));
	EXPECT_EQ(1, serve.n_done);
	EXPECT_EQ(1, successes(&self->io, &self->dev));
	serve.n_done++;
	EXPECT_EQ(2, iopf_serve(&self->queue, &serve, WAIT_MS));
	EXPECT_EQ(3, serve.n_done);
	EXPECT_EQ(2, successes(&self->io, &self->dev));
	EXPECT_EQ(0, serve.n_late);
	EXPECT_EQ(1, iopf_queue_write(&self->queue, &spare, 1));
}

TEST_F(serve, group_does_not_fit)
{
	struct iommu_hwpt_page_response answers[2];
	struct iommu_hwpt_pgfault messages[8];
	struct iopf_serve serve = { .messages = messages, .room = 2 };

	ASSERT_EQ(0, fault(&self->io, &self->dev, 1, 1));
	ASSERT_EQ(0, fault(&self->io, &self->dev, 1, 5));
	ASSERT_EQ(1, iopf_serve(&self->queue, &serve, WAIT_MS));
	answer(&serve, answers, 1);
	EXPECT_EQ(-EMSGSIZE, iopf_serve(&self->queue, &serve, WAIT_MS));
	EXPECT_EQ(1, serve.n_done);
	EXPECT_EQ(1, successes(&self->io, &self->dev));
	EXPECT_EQ(variant->by_call ? 5 : 0, serve.needed);
	serve.room = 5;
	EXPECT_EQ(5, iopf_serve(&self->queue, &serve, WAIT_MS));
	EXPECT_EQ(0, serve.needed);
}

TEST_F(serve, nonblock)
{
	struct iommu_hwpt_pgfault messages[2];
	struct iopf_serve serve = { .messages = messages, .room = 2 };

	ASSERT_EQ(0, fcntl(self->queue.fd, F_SETFL, O_RDWR | O_NONBLOCK));
	EXPECT_EQ(0, iopf_serve(&self->queue, &serve, 0));
	EXPECT_EQ(-EAGAIN, iopf_serve(&self->queue, &serve, IOPF_FOREVER));
	ASSERT_EQ(0, fault(&self->io, &self->dev, 1, 1));
	EXPECT_EQ(1, iopf_serve(&self->queue, &serve, IOPF_FOREVER));
}

TEST_F(serve, signal)
{
	struct iommu_hwpt_page_response answers[1];
	struct iommu_hwpt_pgfault messages[1];
	struct iopf_serve serve = { .messages = messages, .room = 1 };

	ASSERT_EQ(0, fault(&self->io, &self->dev, 1, 1));
	ASSERT_EQ(1, iopf_serve(&self->queue, &serve, WAIT_MS));
	answer(&serve, answers, 1);
	alarms(true);
	EXPECT_EQ(-EINTR, iopf_serve(&self->queue, &serve, IOPF_FOREVER));
	alarms(false);
	EXPECT_EQ(1, serve.n_done);
	EXPECT_EQ(1, successes(&self->io, &self->dev));
	/* again, as it is: nothing is given twice */
	EXPECT_EQ(0, iopf_serve(&self->queue, &serve, 0));
}

/* The kernel has answered for a server that was too slow: that is no error. */
TEST_F(serve, late)
{
	struct iopf_queue_options options = {
		.depth = 64, .deadline_ms = 200, .deadline_code = IOMMUFD_PAGE_RESP_INVALID,
	};
	struct iommu_hwpt_page_response answers[3];
	struct iommu_hwpt_pgfault messages[3];
	struct iopf_serve serve = { .messages = messages, .room = 3 };
	struct iommu_test_iopf_stats stats = {};
	struct iopf_queue timed;
	struct mock_device dev;
	uint32_t ioas_id, hwpt_id;
	unsigned int sent = 0;

	if (!(self->features & IOPF_HAS_LIMITS))
		SKIP(return, "no deadlines");
	ASSERT_EQ(0, iopf_queue_alloc_with(&self->io, &options, &timed));
	timed.no_serve = !variant->by_call;
	ASSERT_EQ(0, iopf_ioas_alloc(&self->io, &ioas_id));
	ASSERT_EQ(0, mock_device_create(self->io.fd, ioas_id, 0, &dev));
	ASSERT_EQ(0, iopf_hwpt_alloc(&self->io, dev.idev_id, ioas_id, 0, timed.id, &hwpt_id));
	ASSERT_EQ(0, mock_replace(self->io.fd, dev.stdev_id, hwpt_id));
	/* the kernel may be quicker than the read already */
	do {
		ASSERT_EQ(0, fault(&self->io, &dev, 3, 1));
		sent += 3;
	} while (iopf_serve(&timed, &serve, 0) < 3);
	while (stats.responses[IOMMUFD_PAGE_RESP_INVALID] < sent)
		ASSERT_EQ(0, iopf_stats(self->io.fd, dev.idev_id, &stats));
	answer(&serve, answers, 3);
	EXPECT_EQ(0, iopf_serve(&timed, &serve, 0));
	EXPECT_EQ(3, serve.n_done);
	EXPECT_EQ(3, serve.n_late);
	close(timed.fd);
}

/* Without the iommufd no fault can come. */
TEST_F(serve, no_more_faults)
{
	struct iommu_hwpt_pgfault messages[2];
	struct iopf_serve serve = { .messages = messages, .room = 2 };

	if (!(self->features & IOPF_HAS_SERVE))
		SKIP(return, "the kernel does not tell");
	iopf_close(&self->io);
	EXPECT_EQ(-ENODEV, iopf_serve(&self->queue, &serve, IOPF_FOREVER));
}

/* Counted: what the program and the library allocate. */
static unsigned int allocations;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);

void *__wrap_malloc(size_t size)
{
	allocations++;
	return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	allocations++;
	return __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	allocations++;
	return __real_realloc(old, size);
}

void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
	allocations++;
	return __real_mmap(at, size, prot, flags, fd, offset);
}

/* A ring that serves a mock device, whose slots have room for two messages. */
FIXTURE(served)
{
	struct iopf io;
	struct iopf_queue queue;
	struct iopf_ring ring;
	struct mock_device dev;
	uint32_t ioas_id;
	char *page;
};

FIXTURE_VARIANT(served)
{
	enum iopf_mode mode;
};

FIXTURE_VARIANT_ADD(served, serve)
{
	.mode = IOPF_SERVE,
};

FIXTURE_VARIANT_ADD(served, read)
{
	.mode = IOPF_READ,
};

FIXTURE_VARIANT_ADD(served, multishot)
{
	.mode = IOPF_MULTISHOT,
};

FIXTURE_VARIANT_ADD(served, poll)
{
	.mode = IOPF_POLL,
};

FIXTURE_SETUP(served)
{
	if (iopf_open(&self->io))
		SKIP(return, "no iommufd");
	if (!has_mock(&self->io))
		SKIP(return, "no mock device");
	ASSERT_EQ(0, iopf_queue_alloc(&self->io, 0, &self->queue));
	ASSERT_EQ(0, iopf_ioas_alloc(&self->io, &self->ioas_id));
	ASSERT_TRUE(attach_mock(&self->io, self->ioas_id, &self->queue, &self->dev));
	ASSERT_EQ(0, iopf_ring_init_mode(&self->ring, &self->queue, variant->mode, 2, 2));
	if (self->ring.mode != variant->mode)
		SKIP(return, "not in this kernel");
	self->page = aligned_alloc(4096, 4096);
	ASSERT_NE(NULL, self->page);
}

FIXTURE_TEARDOWN(served)
{
	free(self->page);
	if (self->ring.impl)
		iopf_ring_exit(&self->ring);
	if (self->queue.fd > 0)
		close(self->queue.fd);
	iopf_close(&self->io);
}

/* What serve_one() was given: the sizes of the groups, in their order. */
struct seen {
	struct iopf *io;
	uint32_t ioas_id;
	void *page;
	unsigned int n, size[8];
};

static uint32_t serve_one(void *arg, const struct iopf_group *group)
{
	struct seen *seen = arg;
	int rc = iopf_map(seen->io, seen->ioas_id, group->requests->addr, seen->page, 4096,
			  IOMMU_IOAS_MAP_READABLE);

	seen->size[seen->n++ % 8] = group->n;
	return rc && rc != -EEXIST ? IOMMUFD_PAGE_RESP_INVALID : IOMMUFD_PAGE_RESP_SUCCESS;
}

/* The next faults, whatever comes before them. */
static struct iopf_slot *next_faults(struct iopf_ring *ring)
{
	struct iopf_slot *slot;
	int event;

	do {
		event = iopf_ring_next(ring, WAIT_MS, &slot);
	} while (event == IOPF_ANSWERED);
	return event == IOPF_FAULTS ? slot : NULL;
}

/* Groups of any size come, in their order, and all are answered. */
TEST_F(served, groups_larger_than_a_slot)
{
	static const unsigned int sizes[] = { 1, 5, 2, 3, 300, 1, 2 };
	struct seen seen = { &self->io, self->ioas_id, self->page };
	unsigned int i, n = sizeof(sizes) / sizeof(sizes[0]);

	EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_serve(&self->ring, 0, serve_one, &seen));
	for (i = 0; i < n; i++)
		ASSERT_EQ(0, fault(&self->io, &self->dev, 1, sizes[i]));
	while (seen.n < n)
		ASSERT_LE(0, iopf_ring_serve(&self->ring, 1, serve_one, &seen));
	EXPECT_EQ(0, iopf_ring_flush(&self->ring));
	EXPECT_EQ(n, successes(&self->io, &self->dev));
	for (i = 0; i < n; i++)
		EXPECT_EQ(sizes[i], seen.size[i]);
}

/* There is one slot for them: until it is free again they wait, and so does what is behind. */
TEST_F(served, large_groups_come_one_by_one)
{
	struct iopf_slot *large, *slot;
	unsigned int round;

	EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&self->ring, 0, &slot));
	ASSERT_EQ(0, fault(&self->io, &self->dev, 4, 3));
	for (round = 0; round < 2; round++) {
		large = next_faults(&self->ring);
		ASSERT_NE(NULL, large);
		/* all that came by then, as there is room for it */
		ASSERT_EQ(12, large->n_messages);
		ASSERT_EQ(0, fault(&self->io, &self->dev, 4, 3));
		EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&self->ring, 1, &slot));
		EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&self->ring, 1, &slot));
		for (unsigned int i = 2; i < 12; i += 3)
			iopf_slot_answer(large, large->messages[i].cookie,
					 IOMMUFD_PAGE_RESP_SUCCESS);
		iopf_ring_reply(&self->ring, large);
	}
	large = next_faults(&self->ring);
	ASSERT_NE(NULL, large);
	EXPECT_EQ(12, large->n_messages);
	EXPECT_EQ(8, successes(&self->io, &self->dev));
}

/* Also while a large one is in the caller's hands when the ring ends. */
TEST_F(served, exit_with_a_large_group)
{
	struct iopf_slot *slot;

	EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&self->ring, 0, &slot));
	ASSERT_EQ(0, fault(&self->io, &self->dev, 1, 3));
	ASSERT_NE(NULL, next_faults(&self->ring));
	ASSERT_EQ(0, fault(&self->io, &self->dev, 1, 3));
	iopf_ring_exit(&self->ring);
	EXPECT_EQ(0, iopf_ring_in_flight(&self->ring));
}

/* From the first fault on nothing allocates, whether the group fits or not. */
TEST_F(served, no_allocations)
{
	struct seen seen = { &self->io, self->ioas_id, self->page };
	unsigned int i;

	EXPECT_LT(0, allocations);
	allocations = 0;
	for (i = 1; i <= 50; i++) {
		ASSERT_EQ(0, fault(&self->io, &self->dev, 1, i % 4 + 1));
		while (seen.n < i)
			ASSERT_LE(0, iopf_ring_serve(&self->ring, 1, serve_one, &seen));
	}
	EXPECT_EQ(0, iopf_ring_flush(&self->ring));
	EXPECT_EQ(0, allocations);
	EXPECT_EQ(50, successes(&self->io, &self->dev));
}

TEST_HARNESS_MAIN
