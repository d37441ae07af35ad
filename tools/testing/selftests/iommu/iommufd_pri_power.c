// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page requests and device-TLB invalidations across the sleep of the system, D3hot,
 * resets, and the PRI capability switched off and on.
 *
 * The device counts what it is sent while it cannot answer, and a PRI that is enabled
 * before it has stopped: both stay 0 in every test.
 */
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include "iommufd_pri_utils.h"

#define PM_CAP 0x40
#define SHORT (64 * PAGE)

FIXTURE(pri_power)
{
	struct server server;
	struct unit *unit;
};

FIXTURE_SETUP(pri_power)
{
	struct pri_address found;
	uint8_t cap = 0;
	int rc;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	self->unit = &self->server.unit[0];
	ASSERT_EQ(0, server_open(&self->server, 0, 1));
	rc = iopf_device_config_read(&self->unit->pri.vfio, PM_CAP, &cap, 1);
	if (rc)
		server_give_back(&self->server);
	ASSERT_EQ(0, rc);
	if (cap != PCI_CAP_ID_PM) {
		server_close(&self->server);
		self->server = (struct server){ .n_units = 0 };
		SKIP(return, "pri-testdev has no power management: it was loaded without pm=");
	}
}

static void check_never_disturbed(struct __test_metadata *_metadata, const struct unit *unit)
{
	EXPECT_EQ(0, reg(unit, PTD_N_MUTE));
	EXPECT_EQ(0, reg(unit, PTD_N_EARLY));
	EXPECT_EQ(0, reg(unit, PTD_N_UNMATCHED));
	EXPECT_EQ(0, reg(unit, PTD_N_STALE));
}

FIXTURE_TEARDOWN(pri_power)
{
	if (!self->server.n_units)
		return;
	check_server(_metadata, &self->server);
	check_never_disturbed(_metadata, self->unit);
}

/* ---- helpers ---- */

/* DMA with faults works: each page of both sides is asked for again. */
static void check_copy(struct __test_metadata *_metadata, struct server *server)
{
	struct unit *unit = &server->unit[0];
	uint32_t before = reg(unit, PTD_N_REQUESTS);

	iopf_unmap(&server->io, unit->ioas, SRC, WINDOW);
	iopf_unmap(&server->io, unit->ioas, DST, WINDOW);
	memset(unit->memory + HALF, 0, SHORT);
	ASSERT_EQ(0, start_copy(unit, SHORT, 1, 8));
	EXPECT_EQ(0, serve(server));
	EXPECT_TRUE(copied(unit, SHORT));
	EXPECT_LE(2 * SHORT / PAGE, reg(unit, PTD_N_REQUESTS) - before);
}

/* Whoever runs the machine wakes it. */
static int sleep_as(const char *kind)
{
	int rc = write_file("/sys/power/mem_sleep", kind);

	return rc ? rc : write_file("/sys/power/state", "mem");
}

static int sleep_to_ram(void)
{
	return sleep_as("deep");
}

static int sleep_to_idle(void)
{
	return sleep_as("s2idle");
}

static int set_power(struct unit *unit, uint8_t state)
{
	return iopf_device_config_write(&unit->pri.vfio, PM_CAP + PCI_PM_CTRL, &state, 1);
}

/* What was asked before is taken back, and late answers hit nobody. */
static void check_forgotten(struct __test_metadata *_metadata, struct server *server,
			    const struct iommu_hwpt_pgfault *read, int recalled)
{
	int i;

	EXPECT_EQ(recalled, fdinfo_number(server->queue.fd, "iommufd-fault-recalled"));
	for (i = 0; i < PENDING / 2; i++)
		EXPECT_EQ(-ESTALE, answer(server, read[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(0, reg(&server->unit[0], PTD_OPEN_GROUPS));
	EXPECT_EQ(0, reg(&server->unit[0], PTD_OPEN_REQUESTS));
}

/* What the device has counted since its last reset says nothing of what was taken back. */
static void forget_counts(struct unit *unit)
{
	pri_command(&unit->pri, PTD_CMD_CLEAR);
}

/* ---- sleep ---- */

static void check_sleep(struct __test_metadata *_metadata, struct server *server,
			int (*sleep_now)(void), int recalled)
{
	struct iommu_hwpt_pgfault m[PENDING];

	check_copy(_metadata, server);
	make_pending(_metadata, server, m);
	ASSERT_EQ(0, sleep_now());
	check_forgotten(_metadata, server, m, recalled);
	check_never_disturbed(_metadata, &server->unit[0]);
	forget_counts(&server->unit[0]);
	check_copy(_metadata, server);
	/* more requests than were left in the ring */
	ASSERT_EQ(0, start_copy(&server->unit[0], HALF, 1, 8));
	EXPECT_EQ(0, serve(server));
	EXPECT_TRUE(copied(&server->unit[0], HALF));
}

/*
 * The IOMMU keeps what it has, the device does not. This is the first test, as the power
 * button of QEMU's machine wakes nobody any more once it has slept to RAM.
 */
TEST_F_TIMEOUT(pri_power, to_idle, 120)
{
	if (access("/sys/power/state", W_OK))
		SKIP(return, "the kernel cannot sleep");
	check_sleep(_metadata, &self->server, sleep_to_idle, PENDING);
	check_sleep(_metadata, &self->server, sleep_to_ram, 2 * PENDING);
}

TEST_F_TIMEOUT(pri_power, to_ram, 120)
{
	if (access("/sys/power/state", W_OK))
		SKIP(return, "the kernel cannot sleep");
	check_sleep(_metadata, &self->server, sleep_to_ram, PENDING);
	check_sleep(_metadata, &self->server, sleep_to_ram, 2 * PENDING);
}

/* ---- D3hot ---- */

/* Pages that the device has cached are unmapped while it cannot hear of it. */
TEST_F_TIMEOUT(pri_power, d3, 120)
{
	struct iommu_hwpt_pgfault m[PENDING];

	check_copy(_metadata, &self->server);
	ASSERT_EQ(0, iopf_unmap(&self->server.io, self->unit->ioas, SRC, PAGE));
	EXPECT_LT(0, reg(self->unit, PTD_N_INVALIDATED));
	make_pending(_metadata, &self->server, m);
	ASSERT_EQ(0, set_power(self->unit, 3));
	EXPECT_EQ(0, iopf_unmap(&self->server.io, self->unit->ioas, SRC, WINDOW));
	EXPECT_EQ(0, iopf_unmap(&self->server.io, self->unit->ioas, DST, WINDOW));
	ASSERT_EQ(0, set_power(self->unit, 0));
	check_forgotten(_metadata, &self->server, m, PENDING);
	check_never_disturbed(_metadata, self->unit);
	forget_counts(self->unit);
	ASSERT_EQ(0, iopf_device_bus_master(&self->unit->pri.vfio, true));
	check_copy(_metadata, &self->server);
}

/* What is attached first while the device is in D3hot, and with it perhaps its ATS */
TEST_F_TIMEOUT(pri_power, attach_in_d3, 120)
{
	struct iopf_device *vfio = &self->unit->pri.vfio;

	check_copy(_metadata, &self->server);
	ASSERT_EQ(0, iopf_device_detach_pasid(vfio, PASID));
	ASSERT_EQ(0, iopf_device_detach(vfio));
	ASSERT_EQ(0, set_power(self->unit, 3));
	ASSERT_EQ(0, iopf_device_attach(vfio, self->unit->plain));
	ASSERT_EQ(0, iopf_device_attach_pasid(vfio, PASID, self->unit->faulting));
	EXPECT_EQ(0, iopf_unmap(&self->server.io, self->unit->ioas, SRC, WINDOW));
	ASSERT_EQ(0, set_power(self->unit, 0));
	check_never_disturbed(_metadata, self->unit);
	ASSERT_EQ(0, iopf_device_bus_master(vfio, true));
	check_copy(_metadata, &self->server);
	ASSERT_EQ(0, iopf_unmap(&self->server.io, self->unit->ioas, SRC, PAGE));
	EXPECT_LT(0, reg(self->unit, PTD_N_INVALIDATED));
}

/* A table that goes while the device is in D3hot is not waited for at the device. */
TEST_F_TIMEOUT(pri_power, detach_in_d3, 120)
{
	check_copy(_metadata, &self->server);
	ASSERT_EQ(0, set_power(self->unit, 3));
	ASSERT_EQ(0, iopf_device_detach_pasid(&self->unit->pri.vfio, PASID));
	ASSERT_EQ(0, iopf_device_attach_pasid(&self->unit->pri.vfio, PASID,
					      self->unit->faulting));
	ASSERT_EQ(0, set_power(self->unit, 0));
	ASSERT_EQ(0, iopf_device_bus_master(&self->unit->pri.vfio, true));
	check_copy(_metadata, &self->server);
}

/* VFIO resets what is closed, and its power goes, with requests still open. */
TEST_F_TIMEOUT(pri_power, close_in_d3, 120)
{
	struct iommu_hwpt_pgfault m[PENDING];

	make_pending(_metadata, &self->server, m);
	ASSERT_EQ(0, set_power(self->unit, 3));
	ASSERT_EQ(0, pri_close(&self->unit->pri));
	check_forgotten(_metadata, &self->server, m, PENDING);
	forget_counts(&(struct unit){ .pri = self->unit->regs });
}

/* ---- reset ---- */

struct disturber {
	struct server *server;
	volatile bool *stop;
	unsigned long rounds;
};

/* Maps and unmaps a page all the time, which invalidates it in the device. */
static void *unmap_always(void *arg)
{
	struct disturber *u = arg;
	struct unit *unit = &u->server->unit[0];

	while (!*u->stop) {
		if (map_page(u->server, unit, SRC, READ_WRITE) ||
		    iopf_unmap(&u->server->io, unit->ioas, SRC, PAGE))
			break;
		u->rounds++;
	}
	return NULL;
}

/* While the device is reset Linux 7.3 attaches nothing. */
static int attach_both(struct unit *unit)
{
	int rc;

	while ((rc = iopf_device_attach(&unit->pri.vfio, unit->plain)) == -EBUSY)
		usleep(1000);
	if (rc)
		return rc;
	while ((rc = iopf_device_attach_pasid(&unit->pri.vfio, PASID, unit->faulting)) == -EBUSY)
		usleep(1000);
	return rc;
}

/*
 * Takes all tables off the device and attaches them again, by which ATS may go off and on,
 * and unmaps a page then.
 */
static void *attach_always(void *arg)
{
	struct disturber *a = arg;
	struct unit *unit = &a->server->unit[0];
	struct iopf_device *vfio = &unit->pri.vfio;

	while (!*a->stop) {
		if (iopf_device_detach_pasid(vfio, PASID) || iopf_device_detach(vfio) ||
		    attach_both(unit) ||
		    map_page(a->server, unit, SRC, READ_WRITE) ||
		    iopf_unmap(&a->server->io, unit->ioas, SRC, PAGE))
			break;
		a->rounds++;
	}
	return NULL;
}

static void check_resets(struct __test_metadata *_metadata, struct server *server, int resets,
			 void *(*disturb)(void *))
{
	struct unit *unit = &server->unit[0];
	volatile bool stop = false;
	struct disturber d = { server, &stop, 0 };
	pthread_t thread;
	int i;

	check_copy(_metadata, server);
	iopf_unmap(&server->io, unit->ioas, SRC, WINDOW);
	ASSERT_EQ(0, pthread_create(&thread, NULL, disturb, &d));
	for (i = 0; i < resets; i++) {
		ASSERT_EQ(0, ioctl(unit->pri.vfio.fd, VFIO_DEVICE_RESET));
		EXPECT_EQ(0, reg(unit, PTD_N_MUTE));
	}
	stop = true;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_LT(0, d.rounds);
	ASSERT_EQ(0, iopf_device_bus_master(&unit->pri.vfio, true));
	check_copy(_metadata, server);
}

TEST_F_TIMEOUT(pri_power, reset_amid_unmaps, 300)
{
	check_resets(_metadata, &self->server, times("PRI_ROUNDS", 3), unmap_always);
}

TEST_F_TIMEOUT(pri_power, reset_amid_attaches, 300)
{
	check_resets(_metadata, &self->server, times("PRI_ROUNDS", 10), attach_always);
}

/* ---- PRI off and on ---- */

static void detach_and_attach(struct __test_metadata *_metadata, struct unit *unit)
{
	ASSERT_EQ(0, iopf_device_detach_pasid(&unit->pri.vfio, PASID));
	ASSERT_EQ(0, iopf_device_attach_pasid(&unit->pri.vfio, PASID, unit->faulting));
}

/* A FAILURE ends all page requests of the device, until PRI is enabled again. */
TEST_F(pri_power, enable_after_failure)
{
	struct iommu_hwpt_pgfault m;

	ASSERT_EQ(0, request(self->unit, PASID, SRC, FLAGS_READ, 1));
	ASSERT_EQ(1, read_some(&self->server.queue, &m, 1, WAIT_MS));
	EXPECT_EQ(1, answer(&self->server, m.cookie, IOMMUFD_PAGE_RESP_FAILURE));
	EXPECT_EQ(1, wait_reg(self->unit, PTD_N_FAILURE, 1));
	EXPECT_EQ(-EPERM, request(self->unit, PASID, SRC, FLAGS_READ, 1));
	detach_and_attach(_metadata, self->unit);
	check_copy(_metadata, &self->server);
}

/* Requests on all ways to an answer when it is switched off */
TEST_F(pri_power, enable_after_burst)
{
	int i;

	for (i = 0; i < (int)times("PRI_ROUNDS", 10); i++) {
		ASSERT_EQ(PTD_CREDITS_MAX,
			  burst(self->unit, PASID, PTD_CREDITS_MAX, 1 + i % 3, 0));
		detach_and_attach(_metadata, self->unit);
		EXPECT_EQ(0, reg(self->unit, PTD_OPEN_GROUPS));
		EXPECT_EQ(0, reg(self->unit, PTD_N_EARLY));
	}
	check_copy(_metadata, &self->server);
}

TEST_HARNESS_MAIN
