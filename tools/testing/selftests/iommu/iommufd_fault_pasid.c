// SPDX-License-Identifier: GPL-2.0-only
/*
 * RIDs and PASIDs: two devices in one IOMMU group, and a device with HWPTs of several
 * queues at its PASIDs.
 */
#include "iommufd_fault_devs.h"

FIXTURE(group)
{
	struct env env;
	struct queue *queue;
	struct mock_device *a;
	struct mock_device *b;
	uint32_t hwpt_id;
	uint32_t plain_id;
};

FIXTURE_SETUP(group)
{
	const uint32_t flags = MOCK_FLAGS_DEVICE_SHARED_GROUP | MOCK_FLAGS_DEVICE_PASID;
	struct env *env = &self->env;

	self->a = env_open_device(_metadata, env, flags);
	if (!self->a)
		return;
	self->queue = env_queue(_metadata, env);
	self->hwpt_id = env_hwpt(_metadata, env, self->a, false, IOMMU_HWPT_ALLOC_PASID,
				 self->queue);
	self->plain_id = env_hwpt(_metadata, env, self->a, false, IOMMU_HWPT_ALLOC_PASID, NULL);
	ASSERT_EQ(0, mock_replace(env->fd, self->a->stdev_id, self->hwpt_id));
	self->b = env_device(_metadata, env, self->hwpt_id, flags);
}

FIXTURE_TEARDOWN(group)
{
	env_close(_metadata, &self->env);
}

/* One group id from both at a time: each message names the device it is of. */
TEST_F(group, dev_id)
{
	struct iommu_hwpt_pgfault m[2];
	int fd = self->queue->fd;

	inject_from(_metadata, &self->env, self->b, 1, 1, 1);
	inject_from(_metadata, &self->env, self->a, 1, 1, 1);
	ASSERT_EQ(2, fault_read(fd, m, 2));
	EXPECT_EQ(self->b->idev_id, m[0].dev_id);
	EXPECT_EQ(self->a->idev_id, m[1].dev_id);
	EXPECT_EQ(0, fault_answer(fd, m[1].cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->a, 1, 0);
	expect_answers_of(_metadata, &self->env, self->b, 0, 0);
	EXPECT_EQ(0, fault_answer(fd, m[0].cookie, INVALID));
	expect_answers_of(_metadata, &self->env, self->b, 0, 1);
}

/* Requests of both under one group id are two groups. */
TEST_F(group, same_grpid)
{
	struct iommu_hwpt_pgfault m[5];
	int fd = self->queue->fd;

	inject_partial(_metadata, &self->env, self->a, 0, 3, 1);
	inject_partial(_metadata, &self->env, self->b, 0, 3, 2);
	inject_from(_metadata, &self->env, self->a, 3, 1, 1);
	inject_from(_metadata, &self->env, self->b, 3, 1, 1);
	ASSERT_EQ(5, fault_read(fd, m, 5));
	EXPECT_EQ(self->a->idev_id, m[0].dev_id);
	EXPECT_EQ(self->a->idev_id, m[1].dev_id);
	EXPECT_EQ(self->b->idev_id, m[2].dev_id);
	EXPECT_EQ(self->b->idev_id, m[4].dev_id);
	EXPECT_EQ(m[2].cookie, m[4].cookie);
	EXPECT_NE(m[1].cookie, m[2].cookie);
}

/* Whichever goes first, the other one's groups stay and it can fault on. */
static void detach_one(struct __test_metadata *_metadata, struct env *env, int fd,
		       struct mock_device *gone, struct mock_device *stays)
{
	struct iommu_hwpt_pgfault m;
	uint32_t cookie;

	inject_from(_metadata, env, gone, 1, 2, 1);
	inject_from(_metadata, env, stays, 1, 2, 1);
	take(_metadata, fd);
	inject_from(_metadata, env, gone, 9, 1, 1);
	env_destroy_device(_metadata, env, gone);
	expect_gone(_metadata, env, 0, 3);
	expect_answers_of(_metadata, env, stays, 0, 0);
	m = take(_metadata, fd);
	EXPECT_EQ(stays->idev_id, m.dev_id);
	EXPECT_EQ(0, fault_answer(fd, m.cookie, SUCCESS));
	cookie = take(_metadata, fd).cookie;
	EXPECT_EQ(0, fault_answer(fd, cookie, SUCCESS));
	inject_from(_metadata, env, stays, 5, 1, 1);
	m = take(_metadata, fd);
	EXPECT_EQ(stays->idev_id, m.dev_id);
	EXPECT_EQ(0, fault_answer(fd, m.cookie, SUCCESS));
	expect_answers_of(_metadata, env, stays, 3, 0);
}

TEST_F(group, detach_first)
{
	detach_one(_metadata, &self->env, self->queue->fd, self->a, self->b);
}

TEST_F(group, detach_second)
{
	detach_one(_metadata, &self->env, self->queue->fd, self->b, self->a);
}

/* What has gone is on no fault queue: the next overflow is not told to it. */
static void only_one_reports(struct __test_metadata *_metadata, struct env *env,
			     struct mock_device *stays)
{
	EXPECT_EQ(0, device_counter("overflows"));
	ASSERT_EQ(0, iopf_event(env->fd, stays->idev_id, IOMMU_TEST_IOPF_OVERFLOW));
	EXPECT_EQ(1, device_counter("overflows"));
}

TEST_F(group, gone_while_attached)
{
	env_destroy_device(_metadata, &self->env, self->b);
	only_one_reports(_metadata, &self->env, self->a);
}

/* The PASID is on both, as the group's; one that has not attached it has no say. */
TEST_F(group, gone_with_a_pasid)
{
	struct env *env = &self->env;

	ASSERT_EQ(0, mock_replace(env->fd, self->a->stdev_id, self->plain_id));
	ASSERT_EQ(0, mock_pasid_attach(env->fd, self->a->stdev_id, 8, self->hwpt_id));
	env_destroy_device(_metadata, env, self->b);
	only_one_reports(_metadata, env, self->a);
	inject_pasid(_metadata, env, self->a, 8, 1);
	EXPECT_EQ(self->a->idev_id, take(_metadata, self->queue->fd).dev_id);
}

/* A replacement through one moves both. */
TEST_F(group, replace_moves_both)
{
	struct queue *other = env_queue(_metadata, &self->env);
	uint32_t hwpt = env_hwpt(_metadata, &self->env, self->a, false, IOMMU_HWPT_ALLOC_PASID,
				 other);

	inject_from(_metadata, &self->env, self->a, 1, 3, 1);
	inject_from(_metadata, &self->env, self->b, 1, 2, 1);
	take(_metadata, self->queue->fd);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->b->stdev_id, hwpt));
	expect_answers_of(_metadata, &self->env, self->a, 3, 0);
	expect_answers_of(_metadata, &self->env, self->b, 2, 0);
	EXPECT_EQ(0, iommufd_destroy(self->env.fd, self->hwpt_id));
	inject_from(_metadata, &self->env, self->a, 1, 1, 1);
	EXPECT_EQ(self->a->idev_id, take(_metadata, other->fd).dev_id);
	inject_from(_metadata, &self->env, self->b, 1, 1, 1);
	EXPECT_EQ(self->b->idev_id, take(_metadata, other->fd).dev_id);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->a->stdev_id, self->plain_id));
	expect_answers_of(_metadata, &self->env, self->a, 4, 0);
	expect_answers_of(_metadata, &self->env, self->b, 3, 0);
	EXPECT_EQ(0, iommufd_destroy(self->env.fd, hwpt));
}

/* A PASID is the group's, but only the device that attached it may fault on it. */
TEST_F(group, pasid_of_one)
{
	struct env *env = &self->env;
	int fd = self->queue->fd;

	ASSERT_EQ(0, mock_pasid_attach(env->fd, self->a->stdev_id, 8, self->hwpt_id));
	EXPECT_EQ(0, mock_pasid_check(env->fd, self->b->stdev_id, 8, self->hwpt_id));
	inject_pasid(_metadata, env, self->b, 8, 1);
	expect_answers_of(_metadata, env, self->b, 0, 1);
	inject_pasid(_metadata, env, self->a, 8, 1);
	EXPECT_EQ(self->a->idev_id, take(_metadata, fd).dev_id);
	EXPECT_EQ(-EINVAL, mock_pasid_attach(env->fd, self->b->stdev_id, 8, self->plain_id));
	EXPECT_EQ(-EINVAL, mock_pasid_replace(env->fd, self->b->stdev_id, 8, self->plain_id));
	ASSERT_EQ(0, mock_pasid_attach(env->fd, self->b->stdev_id, 8, self->hwpt_id));
	inject_pasid(_metadata, env, self->b, 8, 1);
	EXPECT_EQ(self->b->idev_id, take(_metadata, fd).dev_id);
	ASSERT_EQ(0, mock_pasid_detach(env->fd, self->a->stdev_id, 8));
	expect_answers_of(_metadata, env, self->a, 0, 1);
	expect_answers_of(_metadata, env, self->b, 0, 1);
	EXPECT_EQ(0, mock_pasid_check(env->fd, self->a->stdev_id, 8, self->hwpt_id));
	ASSERT_EQ(0, mock_pasid_detach(env->fd, self->b->stdev_id, 8));
	expect_answers_of(_metadata, env, self->b, 0, 2);
	EXPECT_EQ(0, mock_pasid_check(env->fd, self->a->stdev_id, 8, 0));
}

TEST_F(group, pasid_replace_moves_both)
{
	struct env *env = &self->env;
	uint32_t hwpt = env_hwpt(_metadata, env, self->a, false, IOMMU_HWPT_ALLOC_PASID,
				 self->queue);

	ASSERT_EQ(0, mock_pasid_attach(env->fd, self->a->stdev_id, 8, self->hwpt_id));
	ASSERT_EQ(0, mock_pasid_attach(env->fd, self->b->stdev_id, 8, self->hwpt_id));
	inject_pasid(_metadata, env, self->a, 8, 1);
	inject_pasid(_metadata, env, self->b, 8, 1);
	/* the driver refuses on the second device: all is as it was */
	ASSERT_EQ(0, mock_pasid_fail_next(env->fd, self->b->stdev_id, 8));
	EXPECT_EQ(-ENOMEM, mock_pasid_replace(env->fd, self->a->stdev_id, 8, hwpt));
	EXPECT_EQ(0, mock_pasid_check(env->fd, self->a->stdev_id, 8, self->hwpt_id));
	expect_answers_of(_metadata, env, self->a, 0, 0);
	ASSERT_EQ(0, mock_pasid_replace(env->fd, self->a->stdev_id, 8, hwpt));
	EXPECT_EQ(0, mock_pasid_check(env->fd, self->b->stdev_id, 8, hwpt));
	expect_answers_of(_metadata, env, self->a, 1, 0);
	expect_answers_of(_metadata, env, self->b, 1, 0);
	EXPECT_EQ(-EBUSY, iommufd_destroy(env->fd, hwpt));
	ASSERT_EQ(0, mock_pasid_detach(env->fd, self->a->stdev_id, 8));
	EXPECT_EQ(-EBUSY, iommufd_destroy(env->fd, hwpt));
	ASSERT_EQ(0, mock_pasid_detach(env->fd, self->b->stdev_id, 8));
	EXPECT_EQ(0, iommufd_destroy(env->fd, hwpt));
}

/* ---- PASIDs ---- */

FIXTURE(pasid)
{
	struct env env;
	struct mock_device *dev;
	/* of the RID, and two more */
	struct queue *rid;
	struct queue *q[2];
	uint32_t rid_id;
	uint32_t hwpt[2];
	/* for PASIDs, without a queue; with a queue, not for PASIDs */
	uint32_t plain_id;
	uint32_t unfit_id;
};

FIXTURE_VARIANT(pasid)
{
	bool nested;
};

FIXTURE_VARIANT_ADD(pasid, nested)
{
	.nested = true,
};

FIXTURE_VARIANT_ADD(pasid, paging)
{
	.nested = false,
};

FIXTURE_SETUP(pasid)
{
	struct env *env = &self->env;
	int i;

	self->dev = env_open_device(_metadata, env, MOCK_FLAGS_DEVICE_PASID);
	if (!self->dev)
		return;
	self->rid = env_queue(_metadata, env);
	self->rid_id = env_hwpt(_metadata, env, self->dev, variant->nested,
				IOMMU_HWPT_ALLOC_PASID, self->rid);
	for (i = 0; i < 2; i++) {
		self->q[i] = env_queue(_metadata, env);
		self->hwpt[i] = env_hwpt(_metadata, env, self->dev, variant->nested,
					 IOMMU_HWPT_ALLOC_PASID, self->q[i]);
	}
	self->plain_id = env_hwpt(_metadata, env, self->dev, false, IOMMU_HWPT_ALLOC_PASID, NULL);
	self->unfit_id = env_hwpt(_metadata, env, self->dev, variant->nested, 0, self->rid);
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, self->rid_id));
}

FIXTURE_TEARDOWN(pasid)
{
	env_close(_metadata, &self->env);
}

TEST_F(pasid, attach_errors)
{
	uint32_t dev = self->dev->stdev_id;
	int fd = self->env.fd;

	EXPECT_EQ(20, mock_max_pasid_log2(fd, self->dev->idev_id));
	EXPECT_EQ(-EINVAL, mock_pasid_attach(fd, dev, 5, self->unfit_id));
	EXPECT_EQ(-ENOENT, mock_pasid_attach(fd, dev, 5, UINT32_MAX));
	EXPECT_EQ(-EINVAL, mock_pasid_attach(fd, dev, 5, self->rid->id));
	EXPECT_EQ(-EINVAL, mock_pasid_attach(fd, dev, 0, self->hwpt[0]));
	EXPECT_EQ(-EINVAL, mock_pasid_attach(fd, dev, 1 << 20, self->hwpt[0]));
	EXPECT_EQ(-EINVAL, mock_pasid_replace(fd, dev, 5, self->hwpt[0]));
	EXPECT_EQ(0, mock_pasid_detach(fd, dev, 5));
	EXPECT_EQ(0, mock_pasid_check(fd, dev, 5, 0));

	ASSERT_EQ(0, mock_pasid_attach(fd, dev, 5, self->hwpt[0]));
	EXPECT_EQ(0, mock_pasid_check(fd, dev, 5, self->hwpt[0]));
	EXPECT_EQ(-EBUSY, mock_pasid_attach(fd, dev, 5, self->hwpt[0]));
	EXPECT_EQ(-EBUSY, mock_pasid_attach(fd, dev, 5, self->hwpt[1]));
	EXPECT_EQ(-EINVAL, mock_pasid_replace(fd, dev, 5, self->unfit_id));
	EXPECT_EQ(-EINVAL, mock_pasid_replace(fd, dev, 6, self->hwpt[1]));
	EXPECT_EQ(0, mock_pasid_replace(fd, dev, 5, self->hwpt[0]));
	EXPECT_EQ(-EBUSY, iommufd_destroy(fd, self->hwpt[0]));
	EXPECT_EQ(0, mock_pasid_check(fd, dev, 5, self->hwpt[0]));
	ASSERT_EQ(0, mock_pasid_detach(fd, dev, 5));
	EXPECT_EQ(0, mock_pasid_check(fd, dev, 5, 0));
	EXPECT_EQ(0, iommufd_destroy(fd, self->hwpt[0]));
	ASSERT_EQ(0, mock_pasid_attach(fd, dev, (1 << 20) - 1, self->hwpt[1]));
}

/* A request of one PASID is lost: its own group is void, that of the other is not. */
TEST_F(pasid, void_group)
{
	uint32_t id = self->dev->idev_id;
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)&id, .nr_devs = 1, .pasid = 1, .nr_pasids = 1,
		.groups = 1, .requests = 1, .grpid = 5, .flags = IOMMU_TEST_IOPF_NO_LAST,
		.prm_flags = PRM_REFUSED,
	};
	int fd = self->env.fd;
	uint32_t pasid;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	for (pasid = 1; pasid <= 2; pasid++)
		ASSERT_EQ(0, mock_pasid_attach(fd, self->dev->stdev_id, pasid,
					       self->hwpt[pasid - 1]));
	ASSERT_EQ(0, iopf_batch(fd, &batch));
	ASSERT_EQ(0, iopf_inject(fd, id, 2, 5, ADDR, 1, 1, 0));
	ASSERT_EQ(0, iopf_inject(fd, id, 0, 5, ADDR, 1, 1, 0));
	expect_answers_of(_metadata, &self->env, self->dev, 0, 0);
	ASSERT_EQ(0, iopf_inject(fd, id, 1, 5, ADDR, 1, 1, 0));
	expect_answers_of(_metadata, &self->env, self->dev, 0, 1);
	expect_empty(_metadata, self->q[0]->fd);
	EXPECT_EQ(2, take(_metadata, self->q[1]->fd).pasid);
	EXPECT_EQ(0, take(_metadata, self->rid->fd).flags & IOMMU_PGFAULT_FLAGS_PASID_VALID);

	ASSERT_EQ(0, iopf_inject(fd, id, 1, 5, ADDR, 1, 1, 0));
	EXPECT_EQ(1, take(_metadata, self->q[0]->fd).pasid);
}

/* The RID of a device with PASIDs needs a HWPT that was made for them, too. */
TEST_F(pasid, rid_must_fit)
{
	uint32_t dev = self->dev->stdev_id;
	int fd = self->env.fd;

	ASSERT_EQ(0, mock_pasid_attach(fd, dev, 5, self->hwpt[0]));
	EXPECT_EQ(-EINVAL, mock_replace(fd, dev, self->unfit_id));
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	take(_metadata, self->rid->fd);
	ASSERT_EQ(0, mock_pasid_detach(fd, dev, 5));
	EXPECT_EQ(0, mock_replace(fd, dev, self->unfit_id));
	EXPECT_EQ(-EINVAL, mock_pasid_attach(fd, dev, 5, self->hwpt[0]));
	ASSERT_EQ(0, mock_replace(fd, dev, self->plain_id));
	ASSERT_EQ(0, mock_pasid_attach(fd, dev, 5, self->hwpt[0]));
}

/* A device whose IOMMU has no PASIDs for it. */
TEST_F(pasid, device_without)
{
	struct mock_device *dev = env_device(_metadata, &self->env, self->plain_id, 0);
	int rc;

	EXPECT_EQ(0, mock_max_pasid_log2(self->env.fd, dev->idev_id));
	rc = mock_pasid_attach(self->env.fd, dev->stdev_id, 5, self->hwpt[0]);
	EXPECT_EQ(-EINVAL, rc);
	EXPECT_EQ(0, mock_pasid_check(self->env.fd, dev->stdev_id, 5, 0));
}

/* An IOAS instead of a HWPT: Linux 6.12 finds or makes one that fits, 7.3 refuses it. */
TEST_F(pasid, attach_ioas)
{
	uint32_t dev = self->dev->stdev_id;
	int fd = self->env.fd;
	int rc = mock_pasid_attach(fd, dev, 5, self->env.ioas_id);

	if (rc == -EINVAL)
		SKIP(return, "a PASID is attached to a HWPT only");
	ASSERT_EQ(0, rc);
	EXPECT_EQ(-EINVAL, mock_pasid_check(fd, dev, 5, 0));
	inject_pasid(_metadata, &self->env, self->dev, 5, 1);
	ASSERT_EQ(0, mock_pasid_replace(fd, dev, 5, self->hwpt[0]));
	inject_pasid(_metadata, &self->env, self->dev, 5, 1);
	EXPECT_EQ(5, take(_metadata, self->q[0]->fd).pasid);
	ASSERT_EQ(0, mock_pasid_replace(fd, dev, 5, self->env.ioas_id));
	expect_empty(_metadata, self->q[0]->fd);
	ASSERT_EQ(0, mock_pasid_detach(fd, dev, 5));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 1);
}

TEST_F(pasid, attach_fails)
{
	uint32_t dev = self->dev->stdev_id;
	int fd = self->env.fd;

	ASSERT_EQ(0, mock_pasid_fail_next(fd, dev, 5));
	EXPECT_EQ(-ENOMEM, mock_pasid_attach(fd, dev, 5, self->hwpt[0]));
	EXPECT_EQ(0, mock_pasid_check(fd, dev, 5, 0));
	EXPECT_EQ(0, iommufd_destroy(fd, self->hwpt[0]));
	ASSERT_EQ(0, mock_pasid_attach(fd, dev, 5, self->hwpt[1]));
	inject_pasid(_metadata, &self->env, self->dev, 5, 1);
	ASSERT_EQ(0, mock_pasid_fail_next(fd, dev, 5));
	EXPECT_EQ(-ENOMEM, mock_pasid_replace(fd, dev, 5, self->plain_id));
	EXPECT_EQ(0, mock_pasid_check(fd, dev, 5, self->hwpt[1]));
	expect_answers_of(_metadata, &self->env, self->dev, 0, 0);
	EXPECT_EQ(0, fault_answer(self->q[1]->fd, take(_metadata, self->q[1]->fd).cookie, 0));
	inject_pasid(_metadata, &self->env, self->dev, 5, 2);
	take(_metadata, self->q[1]->fd);
}

/* A replace that fails changes nothing, also not what is collected of a group. */
TEST_F(pasid, replace_fails)
{
	uint32_t dev = self->dev->stdev_id;
	struct iommu_hwpt_pgfault m[5];
	struct env *env = &self->env;
	unsigned int i;

	ASSERT_EQ(0, mock_pasid_attach(env->fd, dev, 5, self->hwpt[0]));
	for (i = 0; i < 2; i++) {
		inject_partial(_metadata, env, self->dev, 5, 9, 3);
		inject_pasid(_metadata, env, self->dev, 5, 8);
		ASSERT_EQ(0, mock_pasid_fail_next(env->fd, dev, 5));
		EXPECT_EQ(-ENOMEM, mock_pasid_replace(env->fd, dev, 5,
						      i ? self->plain_id : self->hwpt[1]));
		EXPECT_EQ(-EINVAL, mock_pasid_replace(env->fd, dev, 5, self->unfit_id));
		EXPECT_EQ(0, mock_pasid_check(env->fd, dev, 5, self->hwpt[0]));
		inject_pasid(_metadata, env, self->dev, 5, 9);
		ASSERT_EQ(5, fault_read(self->q[0]->fd, m, 5));
		EXPECT_EQ(8, m[0].grpid);
		EXPECT_EQ(9, m[1].grpid);
		EXPECT_EQ(m[1].cookie, m[4].cookie);
		EXPECT_EQ(0, fault_answer(self->q[0]->fd, m[0].cookie, SUCCESS));
		EXPECT_EQ(0, fault_answer(self->q[0]->fd, m[4].cookie, SUCCESS));
	}
	expect_empty(_metadata, self->q[1]->fd);
	expect_answers_of(_metadata, env, self->dev, 4, 0);
}

/* RID and PASIDs each to their own queue, under one group id. */
TEST_F(pasid, routing)
{
	struct env *env = &self->env;
	struct iommu_hwpt_pgfault m;
	int i;

	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, mock_pasid_attach(env->fd, self->dev->stdev_id, 10 + i,
					       self->hwpt[i]));
	inject_from(_metadata, env, self->dev, 1, 1, 1);
	inject_pasid(_metadata, env, self->dev, 11, 1);
	inject_pasid(_metadata, env, self->dev, 10, 1);
	for (i = 0; i < 2; i++) {
		m = take(_metadata, self->q[i]->fd);
		EXPECT_EQ(10 + i, m.pasid);
		EXPECT_EQ(self->dev->idev_id, m.dev_id);
		EXPECT_EQ(IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE,
			  m.flags);
		expect_empty(_metadata, self->q[i]->fd);
		EXPECT_EQ(-EINVAL, fault_answer(self->rid->fd, m.cookie + DEPTH, SUCCESS));
		EXPECT_EQ(0, fault_answer(self->q[i]->fd, m.cookie, SUCCESS));
	}
	m = take(_metadata, self->rid->fd);
	EXPECT_EQ(0, m.pasid);
	EXPECT_EQ(IOMMU_PGFAULT_FLAGS_LAST_PAGE, m.flags);
	expect_answers_of(_metadata, env, self->dev, 2, 0);
}

/* One HWPT on the RID and on two PASIDs. */
TEST_F(pasid, shared_hwpt)
{
	struct env *env = &self->env;
	uint32_t dev = self->dev->stdev_id;

	ASSERT_EQ(0, mock_pasid_attach(env->fd, dev, 1, self->rid_id));
	ASSERT_EQ(0, mock_pasid_attach(env->fd, dev, 2, self->rid_id));
	inject_pasid(_metadata, env, self->dev, 2, 1);
	inject_pasid(_metadata, env, self->dev, 1, 1);
	inject_from(_metadata, env, self->dev, 1, 1, 1);
	/* only that attachment's groups go with it */
	ASSERT_EQ(0, mock_pasid_detach(env->fd, dev, 2));
	expect_answers_of(_metadata, env, self->dev, 0, 1);
	EXPECT_EQ(1, take(_metadata, self->rid->fd).pasid);
	EXPECT_EQ(0, take(_metadata, self->rid->fd).pasid);
	ASSERT_EQ(0, mock_pasid_detach(env->fd, dev, 1));
	expect_answers_of(_metadata, env, self->dev, 0, 2);
}

/*
 * The mock device leaves the PASID table to user space: a nested domain on the
 * RID stands for PASIDs that are not attached. Without one, nobody does.
 */
TEST_F(pasid, unattached)
{
	struct env *env = &self->env;
	struct iommu_hwpt_pgfault m;

	inject_pasid(_metadata, env, self->dev, 7, 1);
	if (!variant->nested) {
		expect_answers_of(_metadata, env, self->dev, 0, 1);
		return;
	}
	m = take(_metadata, self->rid->fd);
	EXPECT_EQ(7, m.pasid);
	EXPECT_TRUE(m.flags & IOMMU_PGFAULT_FLAGS_PASID_VALID);
	ASSERT_EQ(0, mock_pasid_attach(env->fd, self->dev->stdev_id, 7, self->hwpt[0]));
	inject_pasid(_metadata, env, self->dev, 7, 2);
	take(_metadata, self->q[0]->fd);
	ASSERT_EQ(0, mock_pasid_detach(env->fd, self->dev->stdev_id, 7));
	inject_pasid(_metadata, env, self->dev, 7, 3);
	EXPECT_EQ(3, take(_metadata, self->rid->fd).grpid);
	expect_answers_of(_metadata, env, self->dev, 0, 1);
	/* attached to what takes no faults: the RID does not step in */
	ASSERT_EQ(0, mock_pasid_attach(env->fd, self->dev->stdev_id, 7, self->plain_id));
	inject_pasid(_metadata, env, self->dev, 7, 4);
	expect_answers_of(_metadata, env, self->dev, 0, 2);
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, self->plain_id));
	expect_answers_of(_metadata, env, self->dev, 2, 2);
}

/* One group id under two PASIDs and none: three groups, collected side by side. */
TEST_F(pasid, interleaved)
{
	uint32_t pasids[] = { 1, 0, 2 }, i, n;
	struct env *env = &self->env;
	struct iommu_hwpt_pgfault m[3];

	for (i = 0; i < 3; i++) {
		if (pasids[i])
			ASSERT_EQ(0, mock_pasid_attach(env->fd, self->dev->stdev_id, pasids[i],
						       self->rid_id));
		inject_partial(_metadata, env, self->dev, pasids[i], 4, 1);
	}
	for (i = 0; i < 3; i++)
		inject_partial(_metadata, env, self->dev, pasids[i], 4, 1);
	for (i = 0; i < 3; i++) {
		inject_pasid(_metadata, env, self->dev, pasids[i], 4);
		ASSERT_EQ(3, fault_read(self->rid->fd, m, 3));
		for (n = 0; n < 3; n++) {
			EXPECT_EQ(pasids[i], m[n].pasid);
			EXPECT_EQ(m[0].cookie, m[n].cookie);
		}
		EXPECT_EQ(0, fault_answer(self->rid->fd, m[2].cookie, SUCCESS));
	}
	expect_answers_of(_metadata, env, self->dev, 3, 0);
}

TEST_F(pasid, replace_answers)
{
	uint32_t dev = self->dev->stdev_id, cookie;
	struct env *env = &self->env;

	ASSERT_EQ(0, mock_pasid_attach(env->fd, dev, 5, self->hwpt[0]));
	inject_pasid(_metadata, env, self->dev, 5, 1);
	inject_pasid(_metadata, env, self->dev, 5, 2);
	inject_from(_metadata, env, self->dev, 1, 1, 1);
	inject_partial(_metadata, env, self->dev, 5, 3, 2);
	cookie = take(_metadata, self->q[0]->fd).cookie;
	ASSERT_EQ(0, mock_pasid_replace(env->fd, dev, 5, self->hwpt[1]));
	expect_answers_of(_metadata, env, self->dev, 2, 0);
	EXPECT_EQ(-EINVAL, fault_answer(self->q[0]->fd, cookie, SUCCESS));
	expect_empty(_metadata, self->q[0]->fd);
	EXPECT_EQ(0, iommufd_destroy(env->fd, self->hwpt[0]));
	/* the requests that came before are not part of this */
	inject_pasid(_metadata, env, self->dev, 5, 3);
	EXPECT_EQ(0, fault_answer(self->q[1]->fd, take(_metadata, self->q[1]->fd).cookie, 0));
	inject_pasid(_metadata, env, self->dev, 5, 4);
	ASSERT_EQ(0, mock_pasid_detach(env->fd, dev, 5));
	expect_answers_of(_metadata, env, self->dev, 3, 1);
	/* the RID has seen nothing of all this */
	EXPECT_EQ(1, take(_metadata, self->rid->fd).grpid);
}

/* The other way round: PASIDs keep what they have while the RID moves. */
TEST_F(pasid, rid_replace)
{
	struct env *env = &self->env;
	uint32_t cookie;

	ASSERT_EQ(0, mock_pasid_attach(env->fd, self->dev->stdev_id, 5, self->hwpt[0]));
	inject_pasid(_metadata, env, self->dev, 5, 1);
	inject_from(_metadata, env, self->dev, 1, 1, 1);
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, self->plain_id));
	expect_answers_of(_metadata, env, self->dev, 1, 0);
	cookie = take(_metadata, self->q[0]->fd).cookie;
	EXPECT_EQ(0, fault_answer(self->q[0]->fd, cookie, SUCCESS));
	inject_pasid(_metadata, env, self->dev, 5, 1);
	take(_metadata, self->q[0]->fd);
}

/* A device goes with PASIDs attached and faults on each. */
TEST_F(pasid, destroy_device)
{
	struct env *env = &self->env;
	uint32_t pasid;

	for (pasid = 1; pasid <= 20; pasid++) {
		ASSERT_EQ(0, mock_pasid_attach(env->fd, self->dev->stdev_id, pasid,
					       self->hwpt[pasid % 2]));
		inject_pasid(_metadata, env, self->dev, pasid, pasid);
	}
	take(_metadata, self->q[0]->fd);
	inject_from(_metadata, env, self->dev, 1, 1, 1);
	env_destroy_device(_metadata, env, self->dev);
	expect_gone(_metadata, env, 0, 21);
	expect_empty(_metadata, self->q[0]->fd);
	EXPECT_EQ(0, iommufd_destroy(env->fd, self->hwpt[0]));
}

TEST_HARNESS_MAIN
