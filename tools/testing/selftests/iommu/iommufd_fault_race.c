// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults and answers without end, while devices are attached and detached, and go.
 */
#include "../../../iommu/lib/iopf.h"
#include "iommufd_fault_devs.h"

#define CHANGES 150 /* of what the device is attached to */
#define ENDS 25 /* of a device, or of a queue */

/* Answers may be late, when the group was taken away; nothing else may happen. */
static void *race_server(void *arg)
{
	struct race *r = arg;
	struct iommu_hwpt_pgfault m[32];
	struct iopf_group group;
	struct iopf_iter iter;
	ssize_t n;
	int rc;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		fault_poll(r->fault_fd, 1);
		n = fault_read(r->fault_fd, m, 32);
		if (n == -EBADF)
			break;
		iter = iopf_groups(m, n > 0 ? n : 0);
		while (iopf_next_group(&iter, &group) == 1) {
			rc = fault_answer(r->fault_fd, group.cookie, SUCCESS);
			r->answered += !rc;
			r->late += rc == -EINVAL;
			r->wrong += rc && rc != -EINVAL && rc != -EBADF;
			r->wrong += group.n != 2 && group.n != 1;
		}
		r->wrong += n < 0 || iter.next != iter.end;
	}
	return NULL;
}

static void race_start(struct __test_metadata *_metadata, struct race *r)
{
	ASSERT_EQ(0, pthread_create(&r->injector, NULL, race_injector, r));
	ASSERT_EQ(0, pthread_create(&r->server, NULL, race_server, r));
	while (!__atomic_load_n(&r->injected, __ATOMIC_RELAXED))
		usleep(100);
}

static void race_stop(struct __test_metadata *_metadata, struct race *r)
{
	__atomic_store_n(&r->stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(r->injector, NULL));
	ASSERT_EQ(0, pthread_join(r->server, NULL));
	EXPECT_EQ(0, r->wrong);
	EXPECT_EQ(0, r->failed);
}

FIXTURE(race)
{
	struct env env;
	struct mock_device *dev;
	struct mock_device *peer;
	struct queue *q[2];
	uint32_t hwpt[2];
	uint32_t plain_id;
	struct race race;
};

FIXTURE_VARIANT(race)
{
	bool nested;
};

FIXTURE_VARIANT_ADD(race, nested)
{
	.nested = true,
};

FIXTURE_VARIANT_ADD(race, paging)
{
	.nested = false,
};

FIXTURE_SETUP(race)
{
	const uint32_t flags = MOCK_FLAGS_DEVICE_SHARED_GROUP | MOCK_FLAGS_DEVICE_PASID;
	struct env *env = &self->env;
	int i;

	self->dev = env_open_device(_metadata, env, flags);
	if (!self->dev)
		return;
	for (i = 0; i < 2; i++) {
		self->q[i] = env_queue(_metadata, env);
		self->hwpt[i] = env_hwpt(_metadata, env, self->dev, variant->nested,
					 IOMMU_HWPT_ALLOC_PASID, self->q[i]);
	}
	self->plain_id = env_hwpt(_metadata, env, self->dev, false, IOMMU_HWPT_ALLOC_PASID, NULL);
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, self->hwpt[0]));
	self->peer = env_device(_metadata, env, self->hwpt[0], flags);
	self->race = (struct race){
		.iommufd = env->fd, .fault_fd = self->q[0]->fd, .dev_id = self->dev->idev_id,
	};
}

FIXTURE_TEARDOWN(race)
{
	env_close(_metadata, &self->env);
}

TEST_F_TIMEOUT(race, replace, 120)
{
	const uint32_t hwpts[] = { self->hwpt[1], self->plain_id, self->hwpt[0] };
	struct iommu_test_iopf_stats s;
	unsigned int i;

	race_start(_metadata, &self->race);
	for (i = 0; i < CHANGES; i++) {
		ASSERT_EQ(0, mock_replace(self->env.fd, self->dev->stdev_id, hwpts[i % 3]));
		if (i % 10 == 2)
			usleep(1000);
	}
	race_stop(_metadata, &self->race);
	ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
	/* beside those that the kernel gave in a replace */
	EXPECT_LE(self->race.answered, s.responses[SUCCESS]);
	EXPECT_EQ(self->race.injected, s.groups);
}

TEST_F_TIMEOUT(race, pasid, 120)
{
	uint32_t dev = self->dev->stdev_id;
	struct iommu_test_iopf_stats s;
	int i, fd = self->env.fd;

	self->race.pasid = 3;
	race_start(_metadata, &self->race);
	for (i = 0; i < CHANGES; i++) {
		ASSERT_EQ(0, mock_pasid_attach(fd, dev, 3, self->hwpt[i % 2]));
		if (i % 3)
			ASSERT_EQ(0, mock_pasid_replace(fd, dev, 3, self->hwpt[(i + 1) % 2]));
		if (i % 10 == 0)
			usleep(1000);
		ASSERT_EQ(0, mock_pasid_detach(fd, dev, 3));
	}
	race_stop(_metadata, &self->race);
	ASSERT_EQ(0, iopf_stats(fd, self->dev->idev_id, &s));
	/* beside those that the kernel gave in a replace */
	EXPECT_LE(self->race.answered, s.responses[SUCCESS]);
	EXPECT_EQ(self->race.injected, s.groups);
}

/*
 * A device faults on a PASID that only the other device of its group attaches
 * and detaches: it finds the handle of that, but is no part of it.
 */
TEST_F_TIMEOUT(race, other_device_of_group, 120)
{
	struct mock_device *peer = self->peer;
	struct env *env = &self->env;
	uint32_t hwpt;
	int i;

	self->race.pasid = 4;
	race_start(_metadata, &self->race);
	for (i = 0; i < CHANGES; i++) {
		hwpt = env_hwpt(_metadata, env, peer, variant->nested, IOMMU_HWPT_ALLOC_PASID,
				self->q[1]);
		ASSERT_EQ(0, mock_pasid_attach(env->fd, peer->stdev_id, 4, hwpt));
		ASSERT_EQ(0, mock_pasid_detach(env->fd, peer->stdev_id, 4));
		ASSERT_EQ(0, iommufd_destroy(env->fd, hwpt));
	}
	race_stop(_metadata, &self->race);
}

/* The device itself goes. */
TEST_F_TIMEOUT(race, destroy_device, 120)
{
	struct env *env = &self->env;
	struct mock_device dev;
	struct race r;
	int i;

	for (i = 0; i < ENDS; i++) {
		ASSERT_EQ(0, mock_device_create(env->fd, self->hwpt[0],
						MOCK_FLAGS_DEVICE_SHARED_GROUP, &dev));
		r = (struct race){ .iommufd = env->fd, .fault_fd = self->q[0]->fd,
				   .dev_id = dev.idev_id };
		race_start(_metadata, &r);
		usleep(2000);
		ASSERT_EQ(0, iommufd_destroy(env->fd, dev.stdev_id));
		race_stop(_metadata, &r);
	}
	expect_all_answered(_metadata, env->fd);
}

/* The server goes, and the queue with it. */
TEST_F_TIMEOUT(race, close_queue, 120)
{
	struct env *env = &self->env;
	struct race *r = &self->race;
	struct queue q;
	uint32_t hwpt;
	int i;

	for (i = 0; i < ENDS; i++) {
		ASSERT_EQ(0, fault_queue_alloc(env->fd, &q.id, &q.fd));
		hwpt = env_hwpt(_metadata, env, self->dev, variant->nested,
				IOMMU_HWPT_ALLOC_PASID, &q);
		ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, hwpt));
		r->fault_fd = q.fd;
		r->injected = 0;
		r->stop = false;
		race_start(_metadata, r);
		usleep(2000);
		EXPECT_EQ(0, close(q.fd));
		usleep(1000);
		race_stop(_metadata, r);
		ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, self->plain_id));
		EXPECT_EQ(0, iommufd_destroy(env->fd, hwpt));
		EXPECT_EQ(0, iommufd_destroy(env->fd, q.id));
	}
}

TEST_HARNESS_MAIN
