// SPDX-License-Identifier: GPL-2.0-only
/*
 * The client library's ring in each of its modes, on the page requests of a mock
 * device.
 */
#include "../../../iommu/lib/iopf.h"
#include "iommufd_fault_env.h"

#define READS 4

FIXTURE(library)
{
	struct iopf io;
	struct iopf_queue queue;
	struct iopf_ring ring;
	uint32_t ioas_id;
	uint32_t hwpt_id;
	struct mock_device dev;
};

typedef FIXTURE_DATA(library) library_t;

FIXTURE_VARIANT(library)
{
	enum iopf_mode mode;
};

FIXTURE_VARIANT_ADD(library, read)
{
	.mode = IOPF_READ,
};

FIXTURE_VARIANT_ADD(library, one_call)
{
	.mode = IOPF_SERVE,
};

FIXTURE_VARIANT_ADD(library, poll)
{
	.mode = IOPF_POLL,
};

FIXTURE_VARIANT_ADD(library, multishot)
{
	.mode = IOPF_MULTISHOT,
};

FIXTURE_SETUP(library)
{
	if (iopf_open(&self->io))
		SKIP(return, "no /dev/iommu");
	if (iopf_stats_reset(self->io.fd, 0))
		SKIP(return, "no page request injector");
	ASSERT_EQ(0, iopf_queue_alloc(&self->io, 0, &self->queue));
	ASSERT_EQ(0, iopf_ioas_alloc(&self->io, &self->ioas_id));
	ASSERT_EQ(0, mock_device_create(self->io.fd, self->ioas_id, 0, &self->dev));
	ASSERT_EQ(0, iopf_hwpt_alloc(&self->io, self->dev.idev_id, self->ioas_id, 0,
				     self->queue.id, &self->hwpt_id));
	ASSERT_EQ(0, mock_replace(self->io.fd, self->dev.stdev_id, self->hwpt_id));
}

static int ring_init(library_t *self, enum iopf_mode mode)
{
	int rc = iopf_ring_init_mode(&self->ring, &self->queue, mode, READS, ROOM);

	return rc ?: self->ring.mode == mode ? 0 : -EOPNOTSUPP;
}

static void ring_exit(library_t *self)
{
	if (self->ring.impl)
		iopf_ring_exit(&self->ring);
	self->ring.impl = NULL;
}

FIXTURE_TEARDOWN(library)
{
	struct iommu_test_iopf_stats s;

	ring_exit(self);
	EXPECT_EQ(0, iommufd_destroy(self->io.fd, self->dev.stdev_id));
	ASSERT_EQ(0, iopf_stats(self->io.fd, 0, &s));
	EXPECT_EQ(0, s.outstanding);
	EXPECT_EQ(0, s.unmatched);
	EXPECT_EQ(0, iopf_destroy(&self->io, self->hwpt_id));
	EXPECT_EQ(0, iopf_queue_close(&self->queue));
	iopf_close(&self->io);
}

static int inject_groups(library_t *self, uint32_t groups, uint32_t requests)
{
	return iopf_inject(self->io.fd, self->dev.idev_id, 0, 1, ADDR, groups, requests, 0);
}

static unsigned int answer_all(struct iopf_ring *ring, struct iopf_slot *slot)
{
	struct iopf_iter iter = iopf_groups(slot->messages, slot->n_messages);
	struct iopf_group group;
	unsigned int n = 0;

	for (; iopf_next_group(&iter, &group) == 1; n++)
		iopf_slot_answer(slot, group.cookie, SUCCESS);
	iopf_ring_reply(ring, slot);
	return n;
}

/* One at a time and many, and the slots are never enough. */
TEST_F(library, serve)
{
	static const unsigned int burst[] = { 1, 1, 200, 3, 17, 1 };
	unsigned int i, groups = 0, answered = 0, served;
	struct iommu_test_iopf_stats s;
	struct iopf_slot *slot;
	int event = 0;

	ASSERT_EQ(0, ring_init(self, variant->mode));
	for (i = 0; i < 6; i++) {
		ASSERT_EQ(0, inject_groups(self, burst[i], 2));
		for (served = 0; served < burst[i] || answered < groups;) {
			event = iopf_ring_next(&self->ring, 200, &slot);
			ASSERT_LT(0, event);
			if (event == IOPF_ANSWERED) {
				answered += slot->n_answers;
				EXPECT_EQ(0, slot->n_refused);
				continue;
			}
			served += answer_all(&self->ring, slot);
			groups = served == burst[i] ? groups + served : groups;
		}
		EXPECT_EQ(burst[i], served);
		EXPECT_EQ(groups, answered);
		ASSERT_EQ(0, iopf_stats(self->io.fd, self->dev.idev_id, &s));
		EXPECT_EQ(groups, s.responses[SUCCESS]);
	}
	EXPECT_EQ(IOPF_TIMEOUT, iopf_ring_next(&self->ring, SHORT_MS, &slot));
}

/* A cookie that is gone costs nothing but itself. */
TEST_F(library, refused)
{
	unsigned int where;
	struct iommu_test_iopf_stats s;
	struct iopf_slot *slot;

	for (where = 0; where < 4; where++) {
		ASSERT_EQ(0, iopf_stats_reset(self->io.fd, self->dev.idev_id));
		ASSERT_EQ(0, inject_groups(self, 4, 1));
		ASSERT_EQ(0, ring_init(self, variant->mode));
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, LONG_MS, &slot));
		ASSERT_EQ(4, slot->n_messages);
		slot->messages[where].cookie += 1 << 20;
		answer_all(&self->ring, slot);
		/* by one call this is told when the wait for the next fault is over */
		ASSERT_EQ(IOPF_ANSWERED, iopf_ring_next(&self->ring, variant->mode == IOPF_SERVE ?
							SHORT_MS : LONG_MS, &slot));
		EXPECT_EQ(1, slot->n_refused);
		ASSERT_EQ(0, iopf_stats(self->io.fd, self->dev.idev_id, &s));
		EXPECT_EQ(3, s.responses[SUCCESS]);
		/* and the slot is in use again */
		ASSERT_EQ(0, inject_groups(self, 1, 1));
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, LONG_MS, &slot));
		answer_all(&self->ring, slot);
		ring_exit(self);
	}
}

/* What was answered stays so; what was not seen is refused, or left for others. */
TEST_F(library, exit)
{
	struct iommu_hwpt_pgfault m[ROOM];
	struct iommu_test_iopf_stats s;
	struct iopf_slot *slot;
	int round, rest;

	for (round = 0; round < 10; round++) {
		ASSERT_EQ(0, iopf_stats_reset(self->io.fd, self->dev.idev_id));
		ASSERT_EQ(0, inject_groups(self, 2, 1));
		ASSERT_EQ(0, ring_init(self, variant->mode));
		ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, LONG_MS, &slot));
		ASSERT_EQ(2, slot->n_messages);
		answer_all(&self->ring, slot);
		ASSERT_EQ(0, inject_groups(self, 3, 1));
		ring_exit(self);
		rest = fault_read(self->queue.fd, m, ROOM);
		ASSERT_EQ(0, iopf_stats(self->io.fd, self->dev.idev_id, &s));
		EXPECT_EQ(2, s.responses[SUCCESS]);
		EXPECT_EQ(3, s.responses[INVALID] + rest);
		while (rest > 0)
			EXPECT_EQ(0, fault_answer(self->queue.fd, m[--rest].cookie, INVALID));
	}
}

/* A group that no slot has room for comes in one that has, and those behind it go on. */
TEST_F(library, larger_than_a_slot)
{
	struct iommu_test_iopf_stats s;
	struct iopf_slot *slot;

	ASSERT_EQ(0, iopf_stats_reset(self->io.fd, self->dev.idev_id));
	ASSERT_EQ(0, ring_init(self, variant->mode));
	ASSERT_EQ(0, inject_groups(self, 1, ROOM + 1));
	ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, LONG_MS, &slot));
	EXPECT_EQ(ROOM + 1, slot->n_messages);
	EXPECT_EQ(1, answer_all(&self->ring, slot));
	ASSERT_EQ(IOPF_ANSWERED, iopf_ring_next(&self->ring, variant->mode == IOPF_SERVE ?
						SHORT_MS : LONG_MS, &slot));
	EXPECT_EQ(0, slot->n_refused);
	ASSERT_EQ(0, inject_groups(self, 1, 1));
	ASSERT_EQ(IOPF_FAULTS, iopf_ring_next(&self->ring, LONG_MS, &slot));
	answer_all(&self->ring, slot);
	ring_exit(self);
	ASSERT_EQ(0, iopf_stats(self->io.fd, self->dev.idev_id, &s));
	EXPECT_EQ(2, s.responses[SUCCESS]);
}

TEST_HARNESS_MAIN
