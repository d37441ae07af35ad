/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A queue with room, deadline and delivery as each test asks for, which one device
 * feeds; and a reader that is held amid a read.
 */
#ifndef __SELFTEST_IOMMUFD_FAULT_OBJECT_H
#define __SELFTEST_IOMMUFD_FAULT_OBJECT_H

#include <linux/userfaultfd.h>
#include <sys/syscall.h>

#include "iommufd_fault_devs.h"

FIXTURE(object)
{
	struct env env;
	struct mock_device *dev;
	struct queue *queue;
	uint32_t hwpt_id;
	uint32_t plain_id;
};

FIXTURE_SETUP(object)
{
	struct env *env = &self->env;

	self->dev = env_open_device(_metadata, env, 0);
	if (!self->dev)
		return;
	self->plain_id = env_hwpt(_metadata, env, self->dev, false, 0, NULL);
}

FIXTURE_TEARDOWN(object)
{
	env_close(_metadata, &self->env);
}

/* Attach the device to a HWPT with a queue that was allocated with @fields. */
static inline int object_attach(struct __test_metadata *_metadata, struct _test_data_object *self,
				struct iommu_fault_alloc fields)
{
	struct env *env = &self->env;

	self->queue = &env->queues[env->n_queues];
	ASSERT_GT(MAX_QUEUES, env->n_queues);
	ASSERT_EQ(0, fault_queue_alloc_fields(env->fd, &fields, &self->queue->id,
					      &self->queue->fd));
	env->n_queues++;
	self->hwpt_id = env_hwpt(_metadata, env, self->dev, false, 0, self->queue);
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, self->hwpt_id));
	return self->queue->fd;
}

static inline int object_event(struct _test_data_object *self, enum iommu_test_iopf_event event)
{
	return iopf_event(self->env.fd, self->dev->idev_id, event);
}

/* Wait until the device waits for @n answers. */
static inline void wait_outstanding(struct __test_metadata *_metadata, struct env *env,
				    const struct mock_device *dev, uint64_t n)
{
	struct iommu_test_iopf_stats s;
	int ms;

	for (ms = 0; ms < LONG_MS; ms++) {
		ASSERT_EQ(0, iopf_stats(env->fd, dev->idev_id, &s));
		if (s.outstanding == n)
			return;
		usleep(1000);
	}
	EXPECT_EQ(n, s.outstanding);
}

/* A page that a reader waits for, until it is given. */
struct held_page {
	int uffd;
	void *page;
	int fault_fd;
	unsigned int room;	/* messages; 0: as many as the page has */
	ssize_t rc;
	pthread_t reader;
};

static inline void *held_reader(void *arg)
{
	struct held_page *held = arg;

	held->rc = fault_read(held->fault_fd, held->page, held->room ?: PAGE / MSG);
	return NULL;
}

/* A reader has taken what is queued and cannot go on. */
static inline void hold_reader(struct __test_metadata *_metadata, struct held_page *held,
			       int fault_fd)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct pollfd pfd = { .events = POLLIN };

	held->page = anonymous(_metadata, PAGE);
	held->fault_fd = fault_fd;
	held->uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	ASSERT_LE(0, held->uffd);
	ASSERT_EQ(0, ioctl(held->uffd, UFFDIO_API, &api));
	reg.range.start = (uintptr_t)held->page;
	reg.range.len = PAGE;
	ASSERT_EQ(0, ioctl(held->uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, pthread_create(&held->reader, NULL, held_reader, held));
	pfd.fd = held->uffd;
	ASSERT_EQ(1, poll(&pfd, 1, LONG_MS));
	ASSERT_EQ(POLLIN, pfd.revents);
}

/* Returns what the read did. */
static inline ssize_t release_reader(struct __test_metadata *_metadata, struct held_page *held)
{
	struct uffdio_zeropage zero = {
		.range = { .start = (uintptr_t)held->page, .len = PAGE },
	};

	EXPECT_EQ(0, ioctl(held->uffd, UFFDIO_ZEROPAGE, &zero));
	EXPECT_EQ(0, pthread_join(held->reader, NULL));
	close(held->uffd);
	return held->rc;
}

#endif
