// SPDX-License-Identifier: GPL-2.0-only
/*
 * A fault queue beside a vIOMMU: a nested HWPT of the vIOMMU whose page requests go to
 * the queue, a vDEVICE, a vEVENTQ that takes the device's other events, and a queue that
 * the hardware reads from the guest's memory.
 */
#include <sys/mman.h>

#include "iommufd_fault_devs.h"

#define VIRT_ID 0x99
#define VEVENTS 4

struct vevent {
	struct iommufd_vevent_header header;
	struct iommu_viommu_event_selftest event;
};

FIXTURE(viommu)
{
	struct env env;
	struct mock_device *dev;
	struct queue *q;
	uint32_t viommu_id;
	uint32_t vdevice_id;
	uint32_t vevents_id;
	int vevents;
	uint32_t hwpt_id;
};

static int new_viommu(int fd, uint32_t dev_id, uint32_t parent_id, uint32_t *id)
{
	struct iommu_viommu_alloc cmd = {
		.size = sizeof(cmd),
		.type = IOMMU_VIOMMU_TYPE_SELFTEST,
		.dev_id = dev_id,
		.hwpt_id = parent_id,
	};
	int rc = iommufd_call(fd, IOMMU_VIOMMU_ALLOC, &cmd);

	*id = cmd.out_viommu_id;
	return rc;
}

static int new_vdevice(int fd, uint32_t dev_id, uint32_t viommu_id, uint32_t *id)
{
	struct iommu_vdevice_alloc cmd = {
		.size = sizeof(cmd),
		.viommu_id = viommu_id,
		.dev_id = dev_id,
		.virt_id = VIRT_ID,
	};
	int rc = iommufd_call(fd, IOMMU_VDEVICE_ALLOC, &cmd);

	*id = cmd.out_vdevice_id;
	return rc;
}

static int new_veventq(int fd, uint32_t viommu_id, uint32_t *id, int *vevents)
{
	struct iommu_veventq_alloc cmd = {
		.size = sizeof(cmd),
		.viommu_id = viommu_id,
		.type = IOMMU_VEVENTQ_TYPE_SELFTEST,
		.veventq_depth = VEVENTS,
	};
	int rc = iommufd_call(fd, IOMMU_VEVENTQ_ALLOC, &cmd);

	*id = cmd.out_veventq_id;
	*vevents = cmd.out_veventq_fd;
	return rc;
}

static int new_hw_queue(int fd, uint32_t viommu_id, uint64_t iova, uint32_t *id)
{
	struct iommu_hw_queue_alloc cmd = {
		.size = sizeof(cmd),
		.viommu_id = viommu_id,
		.type = IOMMU_HW_QUEUE_TYPE_SELFTEST,
		.nesting_parent_iova = iova,
		.length = PAGE,
	};
	int rc = iommufd_call(fd, IOMMU_HW_QUEUE_ALLOC, &cmd);

	*id = cmd.out_hw_queue_id;
	return rc;
}

static int trigger_vevent(int fd, uint32_t dev_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_TRIGGER_VEVENT,
		.trigger_vevent.dev_id = dev_id,
	};

	return iommufd_call(fd, IOMMU_TEST_CMD, &cmd);
}

FIXTURE_SETUP(viommu)
{
	struct env *env = &self->env;

	self->vevents = -1;
	self->dev = env_open_device(_metadata, env, 0);
	if (!self->dev)
		return;
	self->q = env_queue(_metadata, env);
	ASSERT_EQ(0, hwpt_alloc_paging(env->fd, self->dev->idev_id, env->ioas_id,
				       IOMMU_HWPT_ALLOC_NEST_PARENT, 0, &env->parent_id));
	ASSERT_EQ(0, new_viommu(env->fd, self->dev->idev_id, env->parent_id, &self->viommu_id));
	ASSERT_EQ(0, new_vdevice(env->fd, self->dev->idev_id, self->viommu_id,
				 &self->vdevice_id));
	ASSERT_EQ(0, new_veventq(env->fd, self->viommu_id, &self->vevents_id, &self->vevents));
	ASSERT_EQ(0, hwpt_alloc_nested(env->fd, self->dev->idev_id, self->viommu_id,
				       IOMMU_HWPT_FAULT_ID_VALID, self->q->id, &self->hwpt_id));
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, self->hwpt_id));
}

/* Whoever is in use cannot be destroyed, in this order all can. */
FIXTURE_TEARDOWN(viommu)
{
	int fd = self->env.fd;

	if (!self->hwpt_id)
		return;
	EXPECT_EQ(-EBUSY, iommufd_destroy(fd, self->q->id));
	EXPECT_EQ(-EBUSY, iommufd_destroy(fd, self->viommu_id));
	EXPECT_EQ(0, mock_replace(fd, self->dev->stdev_id, self->env.ioas_id));
	EXPECT_EQ(0, iommufd_destroy(fd, self->hwpt_id));
	EXPECT_EQ(0, iommufd_destroy(fd, self->vdevice_id));
	EXPECT_EQ(0, close(self->vevents));
	EXPECT_EQ(0, iommufd_destroy(fd, self->vevents_id));
	EXPECT_EQ(0, iommufd_destroy(fd, self->viommu_id));
	env_close(_metadata, &self->env);
}

static void expect_vevent(struct __test_metadata *_metadata, int vevents)
{
	struct vevent v;

	ASSERT_EQ(sizeof(v), read(vevents, &v, sizeof(v)));
	EXPECT_EQ(0, v.header.flags);
	EXPECT_EQ(VIRT_ID, v.event.virt_id);
}

/* Each file has its own kind, and only that. */
TEST_F(viommu, side_by_side)
{
	struct iommu_hwpt_pgfault m;

	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	EXPECT_EQ(0, fault_poll(self->vevents, 0) & POLLIN);
	m = take(_metadata, self->q->fd);
	EXPECT_EQ(self->dev->idev_id, m.dev_id);

	ASSERT_EQ(0, trigger_vevent(self->env.fd, self->dev->idev_id));
	expect_empty(_metadata, self->q->fd);
	expect_vevent(_metadata, self->vevents);
	EXPECT_EQ(0, fault_poll(self->vevents, 0) & POLLIN);

	EXPECT_EQ(0, fault_answer(self->q->fd, m.cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
}

/* Faults that nobody takes are in nobody's way, nor are events. */
TEST_F(viommu, floods)
{
	struct vevent v;
	unsigned int i;

	inject_from(_metadata, &self->env, self->dev, 1, 64, 1);
	ASSERT_EQ(0, trigger_vevent(self->env.fd, self->dev->idev_id));
	expect_vevent(_metadata, self->vevents);

	for (i = 0; i < 2 * VEVENTS; i++)
		ASSERT_EQ(0, trigger_vevent(self->env.fd, self->dev->idev_id));
	for (i = 0; i < 64; i++)
		EXPECT_EQ(0, fault_answer(self->q->fd, take(_metadata, self->q->fd).cookie,
					  SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 64, 0);
	for (i = 0; i < VEVENTS; i++)
		expect_vevent(_metadata, self->vevents);
	ASSERT_EQ(sizeof(v.header), read(self->vevents, &v, sizeof(v)));
	EXPECT_EQ(IOMMU_VEVENTQ_FLAG_LOST_EVENTS, v.header.flags);
}

/* What was taken, and what was not, is answered when the device moves away. */
TEST_F(viommu, replaced)
{
	inject_from(_metadata, &self->env, self->dev, 1, 2, 1);
	take(_metadata, self->q->fd);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->env.ioas_id));
	expect_answers_of(_metadata, &self->env, self->dev, 2, 0);
	expect_empty(_metadata, self->q->fd);
	ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, self->hwpt_id));
	inject_from(_metadata, &self->env, self->dev, 3, 1, 1);
	EXPECT_EQ(3, take(_metadata, self->q->fd).grpid);
}

/* Its memory stays where it is, faults and their HWPT come and go. */
TEST_F(viommu, hw_queue)
{
	struct env *env = &self->env;
	struct iommu_hwpt_pgfault m;
	uint32_t id;
	void *va;

	va = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	ASSERT_NE(MAP_FAILED, va);
	ASSERT_EQ(0, ioas_map(env->fd, env->ioas_id, ADDR, va, PAGE, IOMMU_IOAS_MAP_READABLE));
	ASSERT_EQ(0, new_hw_queue(env->fd, self->viommu_id, ADDR, &id));
	EXPECT_EQ(-EBUSY, ioas_unmap(env->fd, env->ioas_id, ADDR, PAGE));

	inject_from(_metadata, env, self->dev, 1, 2, 1);
	m = take(_metadata, self->q->fd);
	EXPECT_EQ(0, fault_answer(self->q->fd, m.cookie, SUCCESS));
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, env->ioas_id));
	expect_answers_of(_metadata, env, self->dev, 2, 0);
	EXPECT_EQ(-EBUSY, ioas_unmap(env->fd, env->ioas_id, ADDR, PAGE));
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, self->hwpt_id));

	inject_from(_metadata, env, self->dev, 3, 1, 1);
	ASSERT_EQ(0, iommufd_destroy(env->fd, id));
	EXPECT_EQ(0, ioas_unmap(env->fd, env->ioas_id, ADDR, PAGE));
	EXPECT_EQ(3, take(_metadata, self->q->fd).grpid);
	EXPECT_EQ(0, munmap(va, PAGE));
}

TEST_HARNESS_MAIN
