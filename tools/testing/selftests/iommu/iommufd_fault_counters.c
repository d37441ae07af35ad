// SPDX-License-Identifier: GPL-2.0-only
/*
 * What debugfs says of a device, fdinfo of its queues, and the device of itself, however
 * its groups come to an end: each is counted once by all of them.
 *
 * A second PASID, on a queue of its own, keeps the page requests of the device on when
 * the first is detached: its counters in debugfs begin anew with them.
 */
#include "iommufd_fault_object.h"

#define PASID 1
#define OTHER_PASID 2
#define GROUPS 10
#define OPEN_GROUPS 3
#define DEADLINE_MS 50

FIXTURE(counters)
{
	struct env env;
	struct mock_device *dev;
	struct queue *queue;
	struct queue *other;
	uint32_t other_id;
};

FIXTURE_VARIANT(counters)
{
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(counters, whole)
{
};

FIXTURE_VARIANT_ADD(counters, immediate)
{
	.flags = IOMMU_FAULT_ALLOC_IMMEDIATE,
};

/* PASID gets a queue, the first or another one. */
static uint32_t counters_queue(struct __test_metadata *_metadata,
			       struct _test_data_counters *self, uint32_t flags,
			       uint32_t deadline_ms)
{
	struct iommu_fault_alloc fields = {
		.flags = flags, .deadline_ms = deadline_ms,
		.deadline_code = deadline_ms ? INVALID : 0,
	};
	struct env *env = &self->env;

	self->queue = &env->queues[env->n_queues];
	ASSERT_EQ(0, fault_queue_alloc_fields(env->fd, &fields, &self->queue->id,
					      &self->queue->fd));
	env->n_queues++;
	return env_hwpt(_metadata, env, self->dev, false, IOMMU_HWPT_ALLOC_PASID, self->queue);
}

FIXTURE_SETUP(counters)
{
	struct env *env = &self->env;
	uint32_t id;

	self->dev = env_open_device(_metadata, env, MOCK_FLAGS_DEVICE_PASID);
	if (!self->dev)
		return;
	id = env_hwpt(_metadata, env, self->dev, false, IOMMU_HWPT_ALLOC_PASID, NULL);
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, id));
	self->other = env_queue(_metadata, env);
	self->other_id = env_hwpt(_metadata, env, self->dev, false, IOMMU_HWPT_ALLOC_PASID,
				  self->other);
	ASSERT_EQ(0, mock_pasid_attach(env->fd, self->dev->stdev_id, OTHER_PASID,
				       self->other_id));

	id = counters_queue(_metadata, self, variant->flags, 0);
	ASSERT_EQ(0, mock_pasid_attach(env->fd, self->dev->stdev_id, PASID, id));
}

FIXTURE_TEARDOWN(counters)
{
	env_close(_metadata, &self->env);
}

static long of_queues(const struct _test_data_counters *self, const char *name)
{
	char line[64];
	long n = 0;

	snprintf(line, sizeof(line), "iommufd-fault-%s", name);
	if (self->queue->fd >= 0)
		n += fdinfo_number(self->queue->fd, line);
	return n + fdinfo_number(self->other->fd, line);
}

static long of_device(const char *prefix, const char * const names[])
{
	char name[64];
	long n = 0;

	for (; *names; names++) {
		snprintf(name, sizeof(name), "%s_%s", prefix, *names);
		n += device_counter(name);
	}
	return n;
}

static const char * const answerers[] = {
	"user", "handler", "detach", "close", "deadline", "no_handler", "no_room", "remove", NULL
};

static const char * const recallers[] = {
	"detach", "no_room", "remove", "overflow", "reset", "age", "stop", NULL
};

/* What the core and the device say of groups that came, and of their answers */
static void device_agrees(struct __test_metadata *_metadata, struct _test_data_counters *self)
{
	struct iommu_test_iopf_stats s;

	ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
	EXPECT_EQ(s.responses[SUCCESS], device_counter("answered_success"));
	EXPECT_EQ(s.responses[INVALID], device_counter("answered_invalid"));
	EXPECT_EQ(s.responses[FAILURE], device_counter("answered_failure"));
	EXPECT_EQ(s.responses[SUCCESS] + s.responses[INVALID] + s.responses[FAILURE],
		  of_device("answered_by", answerers));
	EXPECT_EQ(s.requests, device_counter("requests"));
	EXPECT_EQ(s.groups, device_counter("groups"));
	EXPECT_EQ(s.groups, s.responses[SUCCESS] + s.responses[INVALID] + s.responses[FAILURE] +
		  s.outstanding + s.forgotten);
}

/* The same, and the queues */
static void all_agree(struct __test_metadata *_metadata, struct _test_data_counters *self)
{
	device_agrees(_metadata, self);
	EXPECT_EQ(of_queues(self, "by-user"), device_counter("answered_by_user"));
	EXPECT_EQ(of_queues(self, "by-detach"), device_counter("answered_by_detach"));
	EXPECT_EQ(of_queues(self, "by-deadline"), device_counter("answered_by_deadline"));
	EXPECT_EQ(of_queues(self, "total-delivered"), device_counter("delivered"));
	EXPECT_EQ(of_queues(self, "queued") + of_queues(self, "delivered"),
		  device_counter("depth"));
	EXPECT_EQ(of_queues(self, "recalled"), of_device("recalled", recallers));
}

/* Where a queue has no messages of groups that have ended: each is in one place. */
static void none_is_left(struct __test_metadata *_metadata, struct _test_data_counters *self)
{
	all_agree(_metadata, self);
	EXPECT_EQ(of_queues(self, "total-groups"),
		  of_queues(self, "answered-success") + of_queues(self, "answered-invalid") +
		  of_queues(self, "answered-failure") + of_queues(self, "recalled") +
		  of_queues(self, "queued") + of_queues(self, "delivered"));
}

/* Some groups are read, of which two are answered, some are not, some are not complete. */
static void load(struct __test_metadata *_metadata, struct _test_data_counters *self)
{
	struct iommu_hwpt_pgfault m[GROUPS];
	struct env *env = &self->env;

	ASSERT_EQ(0, iopf_inject(env->fd, self->dev->idev_id, PASID, 0, ADDR, GROUPS, 2, 0));
	ASSERT_EQ(0, iopf_inject(env->fd, self->dev->idev_id, PASID, 100, ADDR, OPEN_GROUPS, 1,
				 IOMMU_TEST_IOPF_NO_LAST));
	ASSERT_EQ(GROUPS, fault_read(self->queue->fd, m, GROUPS));
	EXPECT_EQ(0, fault_answer(self->queue->fd, m[1].cookie, SUCCESS));
	EXPECT_EQ(0, fault_answer(self->queue->fd, m[3].cookie, FAILURE));
	EXPECT_EQ(-EINVAL, fault_answer(self->queue->fd, m[3].cookie, SUCCESS));
	inject_pasid(_metadata, env, self->dev, OTHER_PASID, 0);
	none_is_left(_metadata, self);
	EXPECT_EQ(2, of_queues(self, "by-user"));
}

/* Take what is left to be told. */
static void read_rest(struct _test_data_counters *self)
{
	struct iommu_hwpt_pgfault m[4 * GROUPS];

	while (fault_read(self->queue->fd, m, 4 * GROUPS) > 0)
		;
}

/* What was not complete is now. */
static void complete(struct __test_metadata *_metadata, struct _test_data_counters *self)
{
	ASSERT_EQ(0, iopf_inject(self->env.fd, self->dev->idev_id, PASID, 100, ADDR, OPEN_GROUPS,
				 1, 0));
}

TEST_F(counters, user)
{
	struct iommu_hwpt_pgfault m[4 * GROUPS];
	ssize_t i, n;

	load(_metadata, self);
	complete(_metadata, self);
	n = fault_read(self->queue->fd, m, 4 * GROUPS);
	for (i = 0; i < n; i++) {
		if (m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)
			EXPECT_EQ(0, fault_answer(self->queue->fd, m[i].cookie, INVALID));
	}
	none_is_left(_metadata, self);
	/* all but those that were read first */
	EXPECT_EQ(GROUPS / 2 + OPEN_GROUPS + 2, of_queues(self, "by-user"));
}

TEST_F(counters, close)
{
	load(_metadata, self);
	env_close_queue(_metadata, self->queue);
	device_agrees(_metadata, self);
	EXPECT_EQ(GROUPS - 2, device_counter("answered_by_close"));
	complete(_metadata, self);
	device_agrees(_metadata, self);
	EXPECT_EQ(GROUPS - 2, device_counter("answered_by_close"));
	EXPECT_EQ(OPEN_GROUPS, device_counter("answered_by_no_handler"));
	EXPECT_EQ(1, device_counter("depth"));
	EXPECT_EQ(0, device_counter("partials"));
}

TEST_F(counters, detach)
{
	load(_metadata, self);
	ASSERT_EQ(0, mock_pasid_detach(self->env.fd, self->dev->stdev_id, PASID));
	none_is_left(_metadata, self);
	EXPECT_EQ(GROUPS - 2, of_queues(self, "by-detach"));
	EXPECT_EQ(1, device_counter("depth"));
	complete(_metadata, self);
	none_is_left(_metadata, self);
	EXPECT_EQ(OPEN_GROUPS, device_counter("answered_by_no_handler"));
}

TEST_F(counters, replace)
{
	load(_metadata, self);
	ASSERT_EQ(0, mock_pasid_replace(self->env.fd, self->dev->stdev_id, PASID,
					self->other_id));
	none_is_left(_metadata, self);
	EXPECT_EQ(GROUPS - 2, of_queues(self, "by-detach"));
	/* what comes of the others is for the new queue */
	complete(_metadata, self);
	none_is_left(_metadata, self);
	EXPECT_EQ(OPEN_GROUPS + 1, fdinfo_number(self->other->fd, "iommufd-fault-queued"));
}

TEST_F(counters, overflow)
{
	load(_metadata, self);
	ASSERT_EQ(0, iopf_event(self->env.fd, self->dev->idev_id, IOMMU_TEST_IOPF_OVERFLOW));
	all_agree(_metadata, self);
	EXPECT_EQ(variant->flags ? OPEN_GROUPS : 0, of_queues(self, "recalled"));
	EXPECT_EQ(1, device_counter("overflows"));
	read_rest(self);
	none_is_left(_metadata, self);
}

TEST_F(counters, reset)
{
	load(_metadata, self);
	ASSERT_EQ(0, iopf_event(self->env.fd, self->dev->idev_id, IOMMU_TEST_IOPF_RESET));
	all_agree(_metadata, self);
	EXPECT_EQ(GROUPS - 2 + 1 + (variant->flags ? OPEN_GROUPS : 0),
		  of_queues(self, "recalled"));
	read_rest(self);
	none_is_left(_metadata, self);
	EXPECT_EQ(0, device_counter("depth"));
}

TEST_F(counters, timed_out)
{
	ASSERT_EQ(0, mock_pasid_replace(self->env.fd, self->dev->stdev_id, PASID,
					counters_queue(_metadata, self, variant->flags,
						       DEADLINE_MS)));
	ASSERT_EQ(0, iopf_inject(self->env.fd, self->dev->idev_id, PASID, 0, ADDR, GROUPS, 2, 0));
	ASSERT_EQ(0, iopf_inject(self->env.fd, self->dev->idev_id, PASID, 100, ADDR, OPEN_GROUPS,
				 1, IOMMU_TEST_IOPF_NO_LAST));
	wait_outstanding(_metadata, &self->env, self->dev, 0);
	complete(_metadata, self);
	wait_outstanding(_metadata, &self->env, self->dev, 0);
	read_rest(self);
	none_is_left(_metadata, self);
	EXPECT_EQ(GROUPS + OPEN_GROUPS, of_queues(self, "by-deadline"));
	EXPECT_EQ(0, device_counter("depth"));
}

/* The device goes, and its file in debugfs with it. */
TEST_F(counters, destroy)
{
	struct iommu_test_iopf_stats s;

	load(_metadata, self);
	env_destroy_device(_metadata, &self->env, self->dev);
	EXPECT_EQ(-1, device_counter("depth"));
	ASSERT_EQ(0, iopf_stats(self->env.fd, 0, &s));
	EXPECT_EQ(s.responses[SUCCESS], of_queues(self, "answered-success"));
	EXPECT_EQ(s.responses[INVALID], of_queues(self, "answered-invalid"));
	EXPECT_EQ(s.responses[FAILURE], of_queues(self, "answered-failure"));
	EXPECT_EQ(GROUPS - 2 + 1, of_queues(self, "by-detach"));
	EXPECT_EQ(0, of_queues(self, "queued") + of_queues(self, "delivered"));
}

TEST_HARNESS_MAIN
