/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two devices, one of which has to go on whatever is done to the other.
 *
 * Every test ends by taking everything down in order and comparing what the mock
 * devices sent with what they were answered. On a kernel that has kmemleak the
 * end of the guest says what was leaked.
 */
#ifndef __SELFTEST_IOMMUFD_FAULT_SIDES_H
#define __SELFTEST_IOMMUFD_FAULT_SIDES_H

#include "../../../iommu/lib/iopf.h"
#include "iommufd_fault_env.h"

/*
 * Two devices: one that misbehaves in some tests, and one that never does. Each
 * has a queue and a HWPT that feeds it.
 */
struct side {
	struct mock_device dev;
	uint32_t queue_id;
	int queue;
	uint32_t hwpt_id;
};

struct sides {
	int fd;
	uint32_t ioas_id;
	uint32_t plain_id;
	struct side bad, good;
	char *fence; /* the end of memory that can be touched */
};

static inline struct iommu_test_iopf_stats stats_of(const struct sides *env,
						    const struct side *side)
{
	struct iommu_test_iopf_stats s = { .unmatched = 1 };

	iopf_stats(env->fd, side->dev.idev_id, &s);
	return s;
}

static inline int side_open(struct sides *env, struct side *side)
{
	int rc = mock_device_create(env->fd, env->ioas_id, MOCK_FLAGS_DEVICE_PASID, &side->dev);

	if (!rc)
		rc = fault_queue_alloc(env->fd, &side->queue_id, &side->queue);
	if (!rc)
		rc = hwpt_alloc_paging(env->fd, side->dev.idev_id, env->ioas_id,
				       IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_FAULT_ID_VALID,
				       side->queue_id, &side->hwpt_id);
	return rc ?: mock_replace(env->fd, side->dev.stdev_id, side->hwpt_id);
}

static inline void side_close(struct __test_metadata *_metadata, struct sides *env,
			      struct side *side)
{
	EXPECT_EQ(0, iommufd_destroy(env->fd, side->dev.stdev_id));
	EXPECT_EQ(0, iommufd_destroy(env->fd, side->hwpt_id));
	if (side->queue >= 0)
		EXPECT_EQ(0, close(side->queue));
	EXPECT_EQ(0, iommufd_destroy(env->fd, side->queue_id));
}

static inline void sides_open(struct __test_metadata *_metadata, struct sides *env)
{
	env->fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (env->fd < 0 || iopf_stats_reset(env->fd, 0))
		SKIP(return, "no /dev/iommu, or no page request injector");
	ASSERT_EQ(0, ioas_alloc(env->fd, &env->ioas_id));
	ASSERT_EQ(0, side_open(env, &env->bad));
	ASSERT_EQ(0, side_open(env, &env->good));
	ASSERT_EQ(0, hwpt_alloc_paging(env->fd, env->bad.dev.idev_id, env->ioas_id,
				       IOMMU_HWPT_ALLOC_PASID, 0, &env->plain_id));
	env->fence = fence(_metadata, PAGE);
}

static inline void sides_close(struct __test_metadata *_metadata, struct sides *env)
{
	struct iommu_test_iopf_stats s;

	if (!env->plain_id)
		return;
	side_close(_metadata, env, &env->bad);
	side_close(_metadata, env, &env->good);
	EXPECT_EQ(0, iommufd_destroy(env->fd, env->plain_id));
	EXPECT_EQ(0, iommufd_destroy(env->fd, env->ioas_id));
	ASSERT_EQ(0, iopf_stats(env->fd, 0, &s));
	EXPECT_EQ(s.groups, s.responses[0] + s.responses[1] + s.responses[2]);
	EXPECT_EQ(0, s.outstanding);
	EXPECT_EQ(0, s.unmatched);
	EXPECT_EQ(0, s.bad_codes);
	close(env->fd);
}

static inline int inject_side(const struct sides *env, const struct side *side, uint32_t pasid,
			      uint32_t grpid, uint32_t groups, uint32_t requests)
{
	return iopf_inject(env->fd, side->dev.idev_id, pasid, grpid, ADDR, groups, requests, 0);
}

/* Answer all that is queued; how many groups it was. */
static inline int serve_all(int queue)
{
	struct iommu_hwpt_pgfault m[64];
	struct iopf_group group;
	struct iopf_iter iter;
	int groups = 0, n;

	while ((n = (int)fault_read(queue, m, 64)) > 0) {
		iter = iopf_groups(m, (size_t)n);
		while (iopf_next_group(&iter, &group) > 0)
			groups += !fault_answer(queue, group.cookie, SUCCESS);
	}
	return groups;
}

/* A fault of the device is served as if nothing had been. */
static inline bool works(const struct sides *env, const struct side *side)
{
	return !inject_side(env, side, 0, 500, 1, 2) && serve_all(side->queue) == 1;
}

#endif
