/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For tests of iommufd's fault queue with as many mock devices, queues and HWPTs as
 * each needs, under RIDs and PASIDs.
 *
 * Every fixture ends by destroying its devices and then compares what all of
 * them sent with what they were answered: each group exactly one answer, none
 * that nobody waits for. So a test may leave groups behind wherever it likes.
 *
 * These tests also run on a kernel that has the injector and nothing else of
 * this series. What needs more is skipped there; the mock device's own PASID
 * operations, which come with the series, tell the two apart.
 */
#ifndef __SELFTEST_IOMMUFD_FAULT_DEVS_H
#define __SELFTEST_IOMMUFD_FAULT_DEVS_H

#include <glob.h>

#include "iommufd_fault_env.h"

#define DEPTH 4096 /* groups that a queue holds, and requests that a mock device may send */
#define MAX_DEVS 4
#define MAX_QUEUES 4
#define PRM_REFUSED (1U << 31) /* a driver's word to the core, in prm_flags */

#define ONLY_INJECTOR "this kernel only has the injector"

struct queue {
	uint32_t id;
	int fd;
};

/* An iommufd with what the tests make in it. */
struct env {
	int fd;
	uint32_t ioas_id;
	uint32_t parent_id;
	struct mock_device devs[MAX_DEVS];
	unsigned int n_devs;
	struct queue queues[MAX_QUEUES];
	unsigned int n_queues;
	bool additions;
};

static inline void expect_all_answered(struct __test_metadata *_metadata, int fd)
{
	struct iommu_test_iopf_stats s;

	ASSERT_EQ(0, iopf_stats(fd, 0, &s));
	EXPECT_EQ(s.groups, s.responses[0] + s.responses[1] + s.responses[2] + s.forgotten);
	EXPECT_EQ(0, s.outstanding);
	EXPECT_EQ(0, s.unmatched);
	EXPECT_EQ(0, s.bad_codes);
}

/* Answers that a living device has had, by code. */
static inline void expect_answers_of(struct __test_metadata *_metadata, struct env *env,
				     const struct mock_device *dev, uint64_t success,
				     uint64_t invalid)
{
	struct iommu_test_iopf_stats s;

	ASSERT_EQ(0, iopf_stats(env->fd, dev->idev_id, &s));
	EXPECT_EQ(success, s.responses[SUCCESS]);
	EXPECT_EQ(invalid, s.responses[INVALID]);
	EXPECT_EQ(0, s.responses[FAILURE]);
	EXPECT_EQ(0, s.unmatched);
}

/* The same of all devices that were destroyed. */
static inline void expect_gone(struct __test_metadata *_metadata, struct env *env, uint64_t success,
			       uint64_t invalid)
{
	struct iommu_test_iopf_stats s;

	ASSERT_EQ(0, iopf_stats(env->fd, 0, &s));
	EXPECT_EQ(success, s.responses[SUCCESS]);
	EXPECT_EQ(invalid, s.responses[INVALID]);
	EXPECT_EQ(0, s.outstanding);
}

static inline void env_open(struct __test_metadata *_metadata, struct env *env)
{
	env->fd = open("/dev/iommu", O_RDWR);
	if (env->fd < 0)
		SKIP(return, "no /dev/iommu");
	if (iopf_stats_reset(env->fd, 0))
		SKIP(return, "no page request injector");
	ASSERT_EQ(0, ioas_alloc(env->fd, &env->ioas_id));
}

static inline struct mock_device *env_device(struct __test_metadata *_metadata, struct env *env,
					     uint32_t pt_id, uint32_t flags)
{
	struct mock_device *dev = &env->devs[env->n_devs];

	ASSERT_GT(MAX_DEVS, env->n_devs);
	ASSERT_EQ(0, mock_device_create(env->fd, pt_id, flags, dev));
	env->n_devs++;
	env->additions = fault_additions(env->fd);
	return dev;
}

static inline void env_destroy_device(struct __test_metadata *_metadata, struct env *env,
				      struct mock_device *dev)
{
	EXPECT_EQ(0, iommufd_destroy(env->fd, dev->stdev_id));
	dev->stdev_id = 0;
}

/* Open all, with a first device; NULL if the test is skipped, for the kernel has no more. */
static inline struct mock_device *env_open_device(struct __test_metadata *_metadata,
						  struct env *env, uint32_t flags)
{
	struct mock_device *dev;

	env_open(_metadata, env);
	if (_metadata->exit_code)
		return NULL;
	/* such a device can be made by every kernel */
	dev = env_device(_metadata, env, env->ioas_id, 0);
	if (!env->additions)
		SKIP(return NULL, ONLY_INJECTOR);
	if (!flags)
		return dev;
	env_destroy_device(_metadata, env, dev);
	return env_device(_metadata, env, env->ioas_id, flags);
}

static inline struct queue *env_queue(struct __test_metadata *_metadata, struct env *env)
{
	struct queue *queue = &env->queues[env->n_queues];

	ASSERT_GT(MAX_QUEUES, env->n_queues);
	ASSERT_EQ(0, fault_queue_alloc(env->fd, &queue->id, &queue->fd));
	env->n_queues++;
	return queue;
}

static inline void env_close_queue(struct __test_metadata *_metadata, struct queue *queue)
{
	EXPECT_EQ(0, close(queue->fd));
	queue->fd = -1;
}

/* A HWPT for @dev: nested, or paging; without a queue if that is NULL. */
static inline uint32_t env_hwpt(struct __test_metadata *_metadata, struct env *env,
				const struct mock_device *dev, bool nested, uint32_t flags,
				const struct queue *queue)
{
	uint32_t id = 0, fault_id = queue ? queue->id : 0;

	if (queue)
		flags |= IOMMU_HWPT_FAULT_ID_VALID;
	if (!nested) {
		ASSERT_EQ(0, hwpt_alloc_paging(env->fd, dev->idev_id, env->ioas_id, flags,
					       fault_id, &id));
		return id;
	}
	if (!env->parent_id)
		ASSERT_EQ(0, hwpt_alloc_paging(env->fd, dev->idev_id, env->ioas_id,
					       IOMMU_HWPT_ALLOC_NEST_PARENT, 0,
					       &env->parent_id));
	ASSERT_EQ(0, hwpt_alloc_nested(env->fd, dev->idev_id, env->parent_id, flags, fault_id,
				       &id));
	return id;
}

static inline void env_close(struct __test_metadata *_metadata, struct env *env)
{
	unsigned int i;

	for (i = 0; i < env->n_devs; i++) {
		if (env->devs[i].stdev_id)
			env_destroy_device(_metadata, env, &env->devs[i]);
	}
	expect_all_answered(_metadata, env->fd);
	for (i = 0; i < env->n_queues; i++) {
		if (env->queues[i].fd >= 0)
			env_close_queue(_metadata, &env->queues[i]);
	}
	EXPECT_EQ(0, close(env->fd));
}

/* Groups without a PASID; group i has id @grpid + i. */
static inline void inject_from(struct __test_metadata *_metadata, struct env *env,
			       const struct mock_device *dev, uint32_t grpid, uint32_t groups,
			       uint32_t requests)
{
	ASSERT_EQ(0, iopf_inject(env->fd, dev->idev_id, 0, grpid, ADDR, groups, requests, 0));
}

static inline void inject_pasid(struct __test_metadata *_metadata, struct env *env,
				const struct mock_device *dev, uint32_t pasid, uint32_t grpid)
{
	ASSERT_EQ(0, iopf_inject(env->fd, dev->idev_id, pasid, grpid, ADDR, 1, 1, 0));
}

/* Requests that do not complete their groups. */
static inline void inject_partial(struct __test_metadata *_metadata, struct env *env,
				  const struct mock_device *dev, uint32_t pasid, uint32_t grpid,
				  uint32_t requests)
{
	ASSERT_EQ(0, iopf_inject(env->fd, dev->idev_id, pasid, grpid, ADDR, 1, requests,
				 IOMMU_TEST_IOPF_NO_LAST));
}

static inline void expect_empty(struct __test_metadata *_metadata, int fault_fd)
{
	struct iommu_hwpt_pgfault m;

	EXPECT_EQ(0, fault_read(fault_fd, &m, 1));
	EXPECT_EQ(POLLOUT, fault_poll(fault_fd, 0));
}

static inline int epoll_events(int epfd, int timeout_ms)
{
	struct epoll_event ev = {};
	int n = epoll_wait(epfd, &ev, 1, timeout_ms);

	return n < 0 ? -errno : n ? (int)ev.events : 0;
}

/* What debugfs says of the only mock device whose page requests are on, or -1. */
static inline long device_counter(const char *name)
{
	glob_t found = {};
	long value = -1;

	if (!glob("/sys/kernel/debug/iommu/iopf/iommufd_mock*", 0, NULL, &found) &&
	    found.gl_pathc == 1)
		value = named_number(found.gl_pathv[0], name, ' ');
	globfree(&found);
	return value;
}

/* Threads that inject and serve without end while the test attaches and detaches. */
struct race {
	int iommufd;
	int fault_fd;
	uint32_t dev_id;
	uint32_t pasid;
	bool stop;
	unsigned int injected;
	unsigned int failed;
	unsigned int answered;
	unsigned int late;
	unsigned int wrong;
	pthread_t injector;
	pthread_t server;
};

static inline void *race_injector(void *arg)
{
	struct race *r = arg;
	int rc;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		rc = iopf_inject(r->iommufd, r->dev_id, r->pasid, r->injected % 500, ADDR, 5, 2,
				 IOMMU_TEST_IOPF_UNLOCKED);
		if (rc == -ENOENT)
			break;
		r->failed += rc != 0;
		__atomic_fetch_add(&r->injected, 5, __ATOMIC_RELAXED);
	}
	return NULL;
}

#endif
