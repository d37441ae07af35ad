// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest that reboots while the device that is passed through to it waits for pages: the
 * machine stays, and with it the VMM and what that knows of the guest's page requests.
 *
 * The program runs twice in a guest. The first time it asks for pages, answers none, and
 * reboots; or, with PANIC in the environment, has the kernel panic, which then tells no
 * driver that the machine starts again. The second time, which it knows by what it has left
 * in a register of the device, it tests. It needs a VMM that lets its guest reboot:
 * scripts/vm --nested --vmm-reboots, or --vmm-panics.
 */
#include <linux/reboot.h>
#include <sys/syscall.h>

#include "iommufd_pri_utils.h"

#define BEEN_HERE 0x7265626f6f746564

static void give_up(const char *what)
{
	printf("Bail out! first boot: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(KSFT_FAIL);
}

static void reboot_with_requests(void)
{
	static struct iommu_hwpt_pgfault m[PENDING / 2];
	static struct server server;

	if (server_open(&server, 0, 1))
		give_up("no pri-testdev");
	if (burst(&server.unit[0], PASID, PENDING / 2, 1, 0) != PENDING / 2 ||
	    read_all(&server.queue, m, PENDING / 2) != PENDING / 2 ||
	    burst(&server.unit[0], PASID, PENDING / 2, 1, 0) != PENDING / 2)
		give_up("no requests");
	pri_set64(&server.unit[0].pri, PTD_DATA, BEEN_HERE);
	if (getenv("PANIC"))
		write_file("/proc/sysrq-trigger", "c");
	else
		syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
			LINUX_REBOOT_CMD_RESTART, NULL);
	give_up("reboot");
}

static uint32_t open_groups;

/* Before the harness prints anything */
static void __attribute__((constructor)) first_boot(void)
{
	struct pri_address found;
	struct iopf io = { 0 };
	struct unit unit;

	if (pri_find(&found, 1) < 1)
		return;
	if (map_regs(&io, found.bdf, &unit))
		give_up(iopf_error(&io));
	if (pri_get64(&unit.regs, PTD_DATA) != BEEN_HERE)
		reboot_with_requests();
	open_groups = reg(&unit, PTD_OPEN_GROUPS);
}

FIXTURE(pri_reboot)
{
	struct server server;
	struct unit *unit;
};

FIXTURE_SETUP(pri_reboot)
{
	struct pri_address found;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	self->unit = &self->server.unit[0];
	ASSERT_EQ(0, server_open(&self->server, 0, 1));
}

FIXTURE_TEARDOWN(pri_reboot)
{
	check_server(_metadata, &self->server);
}

/* The first boot's requests are answered, and their ids are free: its answers are not missed. */
TEST_F(pri_reboot, same_ids)
{
	struct iommu_hwpt_pgfault m[PENDING];
	int i;

	EXPECT_EQ(0, open_groups);
	ASSERT_EQ(PENDING, burst(self->unit, PASID, PENDING, 1, 0));
	ASSERT_EQ(PENDING, read_all(&self->server.queue, m, PENDING));
	for (i = 0; i < PENDING; i++)
		EXPECT_EQ(1, answer(&self->server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(PENDING, wait_reg(self->unit, PTD_N_SUCCESS, PENDING));
}

TEST_F_TIMEOUT(pri_reboot, copy, 600)
{
	ASSERT_EQ(0, start_copy(self->unit, HALF / 4, 2, 8));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, HALF / 4));
}

TEST_HARNESS_MAIN
