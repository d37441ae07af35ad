// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of faults that a device driver reports itself: for a device that has no
 * page requests, and for mediated devices that have no IOMMU at all. The mock
 * driver is a file; see struct iommu_test_driver_fault.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../../../iommu/lib/iopf.h"
#include "iommufd_harness.h"
#include "iommufd_fault_utils.h"

#define ADDR 0x40000000ULL
#define LENGTH 0x3000
#define PASID 77
#define DEPTH 4096 /* faults that a fault object holds */
#define ROUNDS 1000 /* of the race */
#define PERM_RW (IOMMU_PGFAULT_PERM_READ | IOMMU_PGFAULT_PERM_WRITE)

#define SUCCESS IOMMUFD_PAGE_RESP_SUCCESS
#define INVALID IOMMUFD_PAGE_RESP_INVALID
#define FAILURE IOMMUFD_PAGE_RESP_FAILURE

static int driver_report_pasid(int driver_fd, uint32_t index, uint32_t pasid)
{
	struct iommu_test_driver_fault arg = {
		.iova = ADDR + index * 4096ULL,
		.length = LENGTH,
		.perm = PERM_RW,
		.pasid = pasid,
		.index = index,
	};

	return iommufd_call(driver_fd, IOMMU_TEST_DRIVER_REPORT, &arg);
}

static int driver_report(int driver_fd, uint32_t index)
{
	return driver_report_pasid(driver_fd, index, 0);
}

static struct iommu_test_driver_fault driver_call(int driver_fd, unsigned long request,
						  uint32_t index)
{
	struct iommu_test_driver_fault arg = { .index = index };

	if (iommufd_call(driver_fd, request, &arg))
		arg.out_state = ~0U;
	return arg;
}

static uint32_t driver_state(int driver_fd, uint32_t index)
{
	return driver_call(driver_fd, IOMMU_TEST_DRIVER_STATE, index).out_state;
}

static uint32_t driver_withdraw(int driver_fd, uint32_t index)
{
	return driver_call(driver_fd, IOMMU_TEST_DRIVER_WITHDRAW, index).out_state;
}

/* The driver was told once, with @code. */
#define EXPECT_TOLD(driver_fd, index, code)					\
	do {									\
		struct iommu_test_driver_fault s_ =				\
			driver_call(driver_fd, IOMMU_TEST_DRIVER_STATE, index);	\
		EXPECT_EQ(IOMMU_TEST_DRIVER_DONE, s_.out_state);		\
		EXPECT_EQ(1, s_.out_done);					\
		EXPECT_EQ(code, s_.out_code);					\
	} while (0)

/* A fault object, and one device of each kind that feeds it. */
FIXTURE(driver)
{
	int fd;
	uint32_t ioas_id;
	uint32_t fault_id;
	int fault_fd;
	struct mock_device dev;
	uint32_t hwpt_id;
	uint32_t dev_id;
	int driver_fd;
};

FIXTURE_VARIANT(driver)
{
	bool mediated;
};

FIXTURE_VARIANT_ADD(driver, device)
{
};

FIXTURE_VARIANT_ADD(driver, mediated)
{
	.mediated = true,
};

FIXTURE_SETUP(driver)
{
	self->fd = open("/dev/iommu", O_RDWR);
	if (self->fd < 0)
		SKIP(return, "no /dev/iommu");
	ASSERT_EQ(0, ioas_alloc(self->fd, &self->ioas_id));
	ASSERT_EQ(0, fault_queue_alloc(self->fd, &self->fault_id, &self->fault_fd));

	if (variant->mediated) {
		ASSERT_EQ(0, driver_open(self->fd, 0, &self->dev_id, &self->driver_fd));
		ASSERT_EQ(0, fault_bind(self->fd, self->dev_id, self->fault_id));
		return;
	}
	ASSERT_EQ(0, mock_device_create(self->fd, self->ioas_id,
					MOCK_FLAGS_DEVICE_REPORTS_FAULTS | MOCK_FLAGS_DEVICE_PASID,
					&self->dev));
	ASSERT_EQ(0, driver_open(self->fd, self->dev.idev_id, &self->dev_id, &self->driver_fd));
	ASSERT_EQ(self->dev.idev_id, self->dev_id);
	ASSERT_EQ(0, hwpt_alloc_paging(self->fd, self->dev_id, self->ioas_id,
				       IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID,
				       self->fault_id, &self->hwpt_id));
	ASSERT_EQ(0, mock_replace(self->fd, self->dev.stdev_id, self->hwpt_id));
}

FIXTURE_TEARDOWN(driver)
{
	close(self->driver_fd);
	if (self->dev.stdev_id)
		EXPECT_EQ(0, iommufd_destroy(self->fd, self->dev.stdev_id));
	if (self->hwpt_id)
		EXPECT_EQ(0, iommufd_destroy(self->fd, self->hwpt_id));
	if (self->fault_fd >= 0)
		close(self->fault_fd);
	if (self->fault_id)
		EXPECT_EQ(0, iommufd_destroy(self->fd, self->fault_id));
	close(self->fd);
}

/* End what makes the driver's faults reach the fault object. */
#define LEAVE()									\
	(variant->mediated ? fault_bind(self->fd, self->dev_id, 0) :		\
			     mock_replace(self->fd, self->dev.stdev_id, self->ioas_id))

TEST_F(driver, message)
{
	struct iommu_hwpt_pgfault fault;

	EXPECT_EQ(0, driver_report(self->driver_fd, 3));
	EXPECT_EQ(POLLIN | POLLOUT, fault_poll(self->fault_fd, 0));
	ASSERT_EQ(1, fault_read(self->fault_fd, &fault, 1));
	EXPECT_EQ(IOMMU_PGFAULT_FLAGS_LAST_PAGE, fault.flags);
	EXPECT_EQ(self->dev_id, fault.dev_id);
	EXPECT_EQ(0, fault.pasid);
	EXPECT_EQ(PERM_RW, fault.perm);
	EXPECT_EQ(ADDR + 3 * 4096, fault.addr);
	EXPECT_EQ(LENGTH, fault.length);
	EXPECT_NE(0, fault.cookie);

	EXPECT_EQ(IOMMU_TEST_DRIVER_PENDING, driver_state(self->driver_fd, 3));
	EXPECT_EQ(0, fault_answer(self->fault_fd, fault.cookie, SUCCESS));
	EXPECT_TOLD(self->driver_fd, 3, SUCCESS);
	EXPECT_EQ(-EINVAL, fault_answer(self->fault_fd, fault.cookie, SUCCESS));
	EXPECT_TOLD(self->driver_fd, 3, SUCCESS);
}

TEST_F(driver, pasid)
{
	struct iommu_hwpt_pgfault fault;

	if (!variant->mediated) {
		EXPECT_EQ(-ENODEV, driver_report_pasid(self->driver_fd, 0, PASID));
		ASSERT_EQ(0, mock_pasid_attach(self->fd, self->dev.stdev_id, PASID,
					       self->hwpt_id));
	}
	EXPECT_EQ(0, driver_report_pasid(self->driver_fd, 0, PASID));
	ASSERT_EQ(1, fault_read(self->fault_fd, &fault, 1));
	EXPECT_EQ(IOMMU_PGFAULT_FLAGS_LAST_PAGE | IOMMU_PGFAULT_FLAGS_PASID_VALID, fault.flags);
	EXPECT_EQ(PASID, fault.pasid);
	EXPECT_EQ(0, fault_answer(self->fault_fd, fault.cookie, FAILURE));
	EXPECT_TOLD(self->driver_fd, 0, FAILURE);
}

TEST_F(driver, order_and_codes)
{
	struct iommu_hwpt_page_response answers[3];
	struct iommu_hwpt_pgfault faults[4];
	uint32_t i;

	for (i = 0; i != 3; i++)
		ASSERT_EQ(0, driver_report(self->driver_fd, i));
	ASSERT_EQ(3, fault_read(self->fault_fd, faults, 4));
	for (i = 0; i != 3; i++) {
		EXPECT_EQ(ADDR + i * 4096, faults[i].addr);
		answers[i].cookie = faults[i].cookie;
		answers[i].code = i;
	}
	EXPECT_EQ(3, fault_write(self->fault_fd, answers, 3));
	for (i = 0; i != 3; i++)
		EXPECT_TOLD(self->driver_fd, i, i);
}

TEST_F(driver, withdraw_queued)
{
	struct iommu_hwpt_pgfault fault;

	ASSERT_EQ(0, driver_report(self->driver_fd, 0));
	ASSERT_EQ(0, driver_report(self->driver_fd, 1));
	EXPECT_EQ(IOMMU_TEST_DRIVER_WITHDRAWN, driver_withdraw(self->driver_fd, 0));
	EXPECT_EQ(0, driver_call(self->driver_fd, IOMMU_TEST_DRIVER_STATE, 0).out_done);

	/* Only the other one is there. */
	ASSERT_EQ(1, fault_read(self->fault_fd, &fault, 1));
	EXPECT_EQ(ADDR + 4096, fault.addr);
	EXPECT_EQ(0, fault_read(self->fault_fd, &fault, 1));
	EXPECT_EQ(POLLOUT, fault_poll(self->fault_fd, 0));
}

TEST_F(driver, withdraw_delivered)
{
	struct iommu_hwpt_pgfault fault;

	ASSERT_EQ(0, driver_report(self->driver_fd, 0));
	ASSERT_EQ(1, fault_read(self->fault_fd, &fault, 1));
	EXPECT_EQ(IOMMU_TEST_DRIVER_WITHDRAWN, driver_withdraw(self->driver_fd, 0));
	EXPECT_EQ(-EINVAL, fault_answer(self->fault_fd, fault.cookie, SUCCESS));
	EXPECT_EQ(0, driver_call(self->driver_fd, IOMMU_TEST_DRIVER_STATE, 0).out_done);
	/* Once more changes nothing. */
	EXPECT_EQ(IOMMU_TEST_DRIVER_WITHDRAWN, driver_withdraw(self->driver_fd, 0));
}

TEST_F(driver, withdraw_answered)
{
	struct iommu_hwpt_pgfault fault;

	ASSERT_EQ(0, driver_report(self->driver_fd, 0));
	ASSERT_EQ(1, fault_read(self->fault_fd, &fault, 1));
	ASSERT_EQ(0, fault_answer(self->fault_fd, fault.cookie, INVALID));
	EXPECT_EQ(IOMMU_TEST_DRIVER_DONE, driver_withdraw(self->driver_fd, 0));
	EXPECT_TOLD(self->driver_fd, 0, INVALID);
}

TEST_F(driver, leave)
{
	struct iommu_hwpt_pgfault fault;

	ASSERT_EQ(0, driver_report(self->driver_fd, 0));
	ASSERT_EQ(1, fault_read(self->fault_fd, &fault, 1));
	ASSERT_EQ(0, driver_report(self->driver_fd, 1));
	ASSERT_EQ(0, LEAVE());
	/* There is another table to be asked, or nobody. */
	EXPECT_TOLD(self->driver_fd, 0, variant->mediated ? INVALID : SUCCESS);
	EXPECT_TOLD(self->driver_fd, 1, variant->mediated ? INVALID : SUCCESS);
	EXPECT_EQ(-ENODEV, driver_report(self->driver_fd, 2));
	EXPECT_EQ(0, fault_read(self->fault_fd, &fault, 1));
	EXPECT_EQ(-EINVAL, fault_answer(self->fault_fd, fault.cookie, SUCCESS));
}

static long driver_counter(int fault_fd, const char *name)
{
	char line[64];

	snprintf(line, sizeof(line), "iommufd-fault-%s", name);
	return fdinfo_number(fault_fd, line);
}

/* Each fault is counted once, as the driver was told of it, or not. */
TEST_F(driver, counters)
{
	struct iommu_hwpt_page_response answers[3];
	struct iommu_hwpt_pgfault faults[4];
	long told[3] = { 0 };
	uint32_t i;

	for (i = 0; i != 6; i++)
		ASSERT_EQ(0, driver_report(self->driver_fd, i));
	ASSERT_EQ(4, fault_read(self->fault_fd, faults, 4));
	for (i = 0; i != 3; i++)
		answers[i] = (struct iommu_hwpt_page_response){ faults[i].cookie, i };
	ASSERT_EQ(3, fault_write(self->fault_fd, answers, 3));
	EXPECT_EQ(IOMMU_TEST_DRIVER_WITHDRAWN, driver_withdraw(self->driver_fd, 3));
	EXPECT_EQ(IOMMU_TEST_DRIVER_WITHDRAWN, driver_withdraw(self->driver_fd, 4));
	EXPECT_EQ(1, driver_counter(self->fault_fd, "queued"));
	EXPECT_EQ(0, driver_counter(self->fault_fd, "delivered"));
	ASSERT_EQ(0, LEAVE());

	for (i = 0; i != 6; i++) {
		struct iommu_test_driver_fault fault =
			driver_call(self->driver_fd, IOMMU_TEST_DRIVER_STATE, i);

		if (fault.out_done)
			told[fault.out_code]++;
	}
	EXPECT_EQ(told[SUCCESS], driver_counter(self->fault_fd, "answered-success"));
	EXPECT_EQ(told[INVALID], driver_counter(self->fault_fd, "answered-invalid"));
	EXPECT_EQ(told[FAILURE], driver_counter(self->fault_fd, "answered-failure"));
	EXPECT_EQ(4, told[SUCCESS] + told[INVALID] + told[FAILURE]);
	EXPECT_EQ(6, driver_counter(self->fault_fd, "total-groups"));
	EXPECT_EQ(4, driver_counter(self->fault_fd, "total-delivered"));
	EXPECT_EQ(3, driver_counter(self->fault_fd, "by-user"));
	EXPECT_EQ(1, driver_counter(self->fault_fd, "by-detach"));
	EXPECT_EQ(2, driver_counter(self->fault_fd, "withdrawn"));
	EXPECT_EQ(0, driver_counter(self->fault_fd, "queued"));
}

TEST_F(driver, fd_closed)
{
	struct iommu_hwpt_pgfault fault;

	ASSERT_EQ(0, driver_report(self->driver_fd, 0));
	ASSERT_EQ(1, fault_read(self->fault_fd, &fault, 1));
	ASSERT_EQ(0, driver_report(self->driver_fd, 1));
	close(self->fault_fd);
	self->fault_fd = -1;
	EXPECT_TOLD(self->driver_fd, 0, INVALID);
	EXPECT_TOLD(self->driver_fd, 1, INVALID);
	EXPECT_EQ(-EPIPE, driver_report(self->driver_fd, 2));
}

/* What finds no room is told to try again, a moment later. */
TEST_F(driver, full)
{
	struct iommu_hwpt_pgfault fault;
	uint32_t i;

	for (i = 0; i != DEPTH; i++)
		ASSERT_EQ(0, driver_report(self->driver_fd, i));
	ASSERT_EQ(0, driver_report(self->driver_fd, DEPTH));
	while (driver_state(self->driver_fd, DEPTH) == IOMMU_TEST_DRIVER_PENDING)
		usleep(100);
	EXPECT_TOLD(self->driver_fd, DEPTH, SUCCESS);

	/* A driver that does not wait for it has been told when it has taken it back. */
	for (i = DEPTH + 1; i != DEPTH + 32; i++) {
		ASSERT_EQ(0, driver_report(self->driver_fd, i));
		EXPECT_EQ(IOMMU_TEST_DRIVER_DONE, driver_withdraw(self->driver_fd, i));
		EXPECT_TOLD(self->driver_fd, i, SUCCESS);
	}
	EXPECT_EQ(32, fdinfo_number(self->fault_fd, "iommufd-fault-refused"));
	EXPECT_EQ(DEPTH, fdinfo_number(self->fault_fd, "iommufd-fault-queued"));

	ASSERT_EQ(1, fault_read(self->fault_fd, &fault, 1));
	ASSERT_EQ(0, fault_answer(self->fault_fd, fault.cookie, SUCCESS));
	ASSERT_EQ(0, driver_report(self->driver_fd, DEPTH + 32));
	EXPECT_EQ(DEPTH, fdinfo_number(self->fault_fd, "iommufd-fault-queued"));
}

/* Or its report fails, if user space wants it so. */
TEST_F(driver, full_refused)
{
	struct iommu_fault_alloc fields = { .depth = 1, .flags = IOMMU_FAULT_ALLOC_REFUSE };
	uint32_t fault_id, hwpt_id = 0;
	int fault_fd;

	ASSERT_EQ(0, fault_queue_alloc_fields(self->fd, &fields, &fault_id, &fault_fd));
	if (variant->mediated) {
		ASSERT_EQ(0, fault_bind(self->fd, self->dev_id, fault_id));
	} else {
		ASSERT_EQ(0, hwpt_alloc_paging(self->fd, self->dev_id, self->ioas_id,
					       IOMMU_HWPT_FAULT_ID_VALID, fault_id, &hwpt_id));
		ASSERT_EQ(0, mock_replace(self->fd, self->dev.stdev_id, hwpt_id));
	}
	ASSERT_EQ(0, driver_report(self->driver_fd, 0));
	EXPECT_EQ(-ENOSPC, driver_report(self->driver_fd, 1));
	EXPECT_EQ(IOMMU_TEST_DRIVER_FREE, driver_state(self->driver_fd, 1));

	ASSERT_EQ(0, LEAVE());
	if (hwpt_id)
		EXPECT_EQ(0, iommufd_destroy(self->fd, hwpt_id));
	close(fault_fd);
	EXPECT_EQ(0, iommufd_destroy(self->fd, fault_id));
}

struct race {
	int fault_fd;
	uint32_t cookie;
	int rc;
};

static void *race_answer(void *arg)
{
	struct race *race = arg;

	race->rc = fault_answer(race->fault_fd, race->cookie, SUCCESS);
	return NULL;
}

struct unbinding {
	int fd;
	uint32_t dev_id;
	uint32_t fault_id;
	int fault_fd;
	bool go;
	int rc;
};

/* Unbind, close and destroy the queue, one after the other, as soon as told to. */
static void *unbind_and_destroy(void *arg)
{
	struct unbinding *u = arg;

	while (!__atomic_load_n(&u->go, __ATOMIC_ACQUIRE))
		sched_yield();
	u->rc = fault_bind(u->fd, u->dev_id, 0);
	close(u->fault_fd);
	u->rc = u->rc ?: iommufd_destroy(u->fd, u->fault_id);
	return NULL;
}

/*
 * The queue goes as soon as the last fault has let go of it, while the driver is
 * still taking that one back.
 */
TEST_F_TIMEOUT(driver, withdraw_destroy, 120)
{
	struct unbinding u = { .fd = self->fd, .dev_id = self->dev_id };
	struct iommu_test_driver_fault state;
	pthread_t thread;
	uint32_t i;

	if (!variant->mediated)
		SKIP(return, "of mediated devices alone");
	for (i = 0; i != ROUNDS / 10; i++) {
		ASSERT_EQ(0, fault_queue_alloc(self->fd, &u.fault_id, &u.fault_fd));
		ASSERT_EQ(0, fault_bind(self->fd, self->dev_id, u.fault_id));
		ASSERT_EQ(0, driver_report(self->driver_fd, i));
		u.go = false;
		ASSERT_EQ(0, pthread_create(&thread, NULL, unbind_and_destroy, &u));
		if (i % 2)
			sched_yield();
		__atomic_store_n(&u.go, true, __ATOMIC_RELEASE);
		state = driver_call(self->driver_fd, IOMMU_TEST_DRIVER_WITHDRAW, i);
		ASSERT_EQ(0, pthread_join(thread, NULL));
		ASSERT_EQ(0, u.rc);
		ASSERT_EQ(state.out_done ? IOMMU_TEST_DRIVER_DONE : IOMMU_TEST_DRIVER_WITHDRAWN,
			  state.out_state);
	}
}

/* Either the answer arrives or the withdrawal does, never both, never neither. */
TEST_F(driver, race)
{
	struct race race = { .fault_fd = self->fault_fd };
	struct iommu_test_driver_fault state;
	struct iommu_hwpt_pgfault fault;
	pthread_t thread;
	uint32_t i;

	for (i = 0; i != ROUNDS; i++) {
		ASSERT_EQ(0, driver_report(self->driver_fd, i));
		ASSERT_EQ(1, fault_read(self->fault_fd, &fault, 1));
		race.cookie = fault.cookie;
		ASSERT_EQ(0, pthread_create(&thread, NULL, race_answer, &race));
		if (i % 2)
			sched_yield();
		state = driver_call(self->driver_fd, IOMMU_TEST_DRIVER_WITHDRAW, i);
		ASSERT_EQ(0, pthread_join(thread, NULL));

		if (state.out_state == IOMMU_TEST_DRIVER_WITHDRAWN) {
			ASSERT_EQ(-EINVAL, race.rc);
			ASSERT_EQ(0, state.out_done);
		} else {
			ASSERT_EQ(IOMMU_TEST_DRIVER_DONE, state.out_state);
			ASSERT_EQ(0, race.rc);
			ASSERT_EQ(1, state.out_done);
		}
	}
}

/* The driver goes with faults queued and delivered: it takes them back. */
TEST_F(driver, driver_gone)
{
	struct iommu_hwpt_pgfault fault;

	ASSERT_EQ(0, driver_report(self->driver_fd, 0));
	ASSERT_EQ(1, fault_read(self->fault_fd, &fault, 1));
	ASSERT_EQ(0, driver_report(self->driver_fd, 1));
	close(self->driver_fd);
	self->driver_fd = -1;
	EXPECT_EQ(0, fault_read(self->fault_fd, &fault, 1));
	EXPECT_EQ(-EINVAL, fault_answer(self->fault_fd, fault.cookie, SUCCESS));
}

TEST_F(driver, bind)
{
	uint32_t other_id, other_dev, ioas_id = self->ioas_id;
	struct iommu_fault_bind cmd = { .size = sizeof(cmd), .flags = 1 };
	struct iommu_hwpt_pgfault fault;
	int other_fd, other_driver;

	if (!variant->mediated) {
		EXPECT_EQ(-ENOENT, fault_bind(self->fd, self->dev_id, self->fault_id));
		return;
	}
	cmd.dev_id = self->dev_id;
	cmd.fault_id = self->fault_id;
	EXPECT_EQ(-EOPNOTSUPP, iommufd_call(self->fd, IOMMU_FAULT_BIND, &cmd));
	EXPECT_EQ(-ENOENT, fault_bind(self->fd, self->dev_id, ioas_id));
	EXPECT_EQ(-ENOENT, fault_bind(self->fd, ioas_id, self->fault_id));
	EXPECT_EQ(-EBUSY, iommufd_destroy(self->fd, self->fault_id));

	/* Two devices, one object: each fault under its own device's id */
	ASSERT_EQ(0, driver_open(self->fd, 0, &other_dev, &other_driver));
	EXPECT_NE(self->dev_id, other_dev);
	EXPECT_EQ(-ENODEV, driver_report(other_driver, 0));
	ASSERT_EQ(0, fault_bind(self->fd, other_dev, self->fault_id));
	ASSERT_EQ(0, driver_report(other_driver, 0));
	ASSERT_EQ(1, fault_read(self->fault_fd, &fault, 1));
	EXPECT_EQ(other_dev, fault.dev_id);
	ASSERT_EQ(0, driver_report(self->driver_fd, 0));

	/* One moves to another object: its faults end, the other's do not. */
	ASSERT_EQ(0, fault_queue_alloc(self->fd, &other_id, &other_fd));
	ASSERT_EQ(0, fault_bind(self->fd, other_dev, other_id));
	EXPECT_TOLD(other_driver, 0, INVALID);
	EXPECT_EQ(IOMMU_TEST_DRIVER_PENDING, driver_state(self->driver_fd, 0));
	ASSERT_EQ(0, driver_report(other_driver, 1));
	ASSERT_EQ(1, fault_read(other_fd, &fault, 1));
	EXPECT_EQ(other_dev, fault.dev_id);

	/* The device's end unbinds. */
	close(other_driver);
	close(other_fd);
	EXPECT_EQ(0, iommufd_destroy(self->fd, other_id));
}

/* Nothing would ever come from a device whose driver does not report. */
TEST_F(driver, bind_silent)
{
	uint32_t silent;
	int silent_fd;

	if (!variant->mediated)
		SKIP(return, "of mediated devices alone");
	ASSERT_EQ(0, driver_open_as(self->fd, 0, true, &silent, &silent_fd));
	EXPECT_EQ(-ENODEV, fault_bind(self->fd, silent, self->fault_id));
	EXPECT_EQ(-ENODEV, fault_bind(self->fd, silent, 0));
	EXPECT_EQ(-ENODEV, driver_report(silent_fd, 0));
	close(silent_fd);
}

/* Without page requests it could not be attached if its driver did not report. */
TEST_F(driver, needs_no_page_requests)
{
	struct iommu_hwpt_pgfault fault;

	if (variant->mediated)
		SKIP(return, "a mediated device is not attached to a HWPT");
	EXPECT_EQ(0, iopf_trigger(self->fd, self->dev_id, 0, 1, PERM_RW, ADDR));
	EXPECT_EQ(0, fault_read(self->fault_fd, &fault, 1));
}

TEST_HARNESS_MAIN
