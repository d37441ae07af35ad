// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page requests in a kernel that another one has started, which left the IOMMU's page
 * request queue in overflow, with its interrupt masked and nonsense for a head, and the
 * device's page requests on.
 *
 * The program runs twice in a guest. In the first kernel it makes that mess and starts
 * /kernel, with the same initramfs and one more parameter; in the second it tests. It
 * needs CONFIG_KEXEC_FILE, CONFIG_DEVMEM, the parameter retain_initrd, and a VT-d.
 */
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <sys/syscall.h>

#include "iommufd_pri_utils.h"

#define SECOND "second_kernel"

/* Registers of the IOMMU, and what the kernel has room for in its page request queue */
#define PQH	0xc0
#define PQT	0xc8
#define PRS	0xdc
#define PECTL	0xe0
#define PECTL_MASK	(1u << 31)
#define PRS_PENDING	1u
#define PRS_OVERFLOW	2u
#define RING		2048
#define GROUP		32

static volatile unsigned char *map_iommu(void)
{
	FILE *f = fopen("/sys/class/iommu/dmar0/intel-iommu/address", "re");
	unsigned long address = 0;
	void *regs;
	int fd;

	if (!f)
		return NULL;
	if (fscanf(f, "%lx", &address) != 1)
		address = 0;
	fclose(f);
	fd = open("/dev/mem", O_RDWR | O_SYNC | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	regs = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)address);
	close(fd);
	return regs == MAP_FAILED ? NULL : regs;
}

static volatile uint32_t *iommu_reg(volatile unsigned char *regs, unsigned int at)
{
	return (volatile uint32_t *)(regs + at);
}

/* ---- the first kernel ---- */

static void give_up(const char *what)
{
	printf("Bail out! first kernel: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(KSFT_FAIL);
}

/*
 * Nobody reads the queue, until it overflows. It takes few groups for that: the device
 * does not use the id of one again that nobody answers.
 */
static void make_mess(void)
{
	volatile unsigned char *regs = map_iommu();
	static struct server server;

	if (!regs)
		give_up("no registers of a VT-d");
	if (server_open(&server, 0, 1))
		give_up("no pri-testdev");
	*iommu_reg(regs, PECTL) = PECTL_MASK;
	if (burst(&server.unit[0], PASID, RING + 4 * GROUP, GROUP, PTD_F_NO_CREDIT) < 0)
		give_up("no requests");
	if (*iommu_reg(regs, PRS) != (PRS_PENDING | PRS_OVERFLOW))
		give_up("no overflow");
	*iommu_reg(regs, PQH) = 0x7fe0;
	*iommu_reg(regs, PQT) = 0x40;
}

static void start_second(const char *line)
{
	int kernel = open("/kernel", O_RDONLY | O_CLOEXEC);
	int initrd = open("/sys/firmware/initrd", O_RDONLY | O_CLOEXEC);
	char longer[2048];

	snprintf(longer, sizeof(longer), "%s " SECOND, line);
	if (kernel < 0 || initrd < 0)
		give_up("no kernel or no initramfs to start");
	if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(longer) + 1, longer, 0UL))
		give_up("kexec_file_load");
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	give_up("kexec");
}

/* Before the harness prints anything */
static void __attribute__((constructor)) first_kernel(void)
{
	char line[2000];

	first_line("/proc/cmdline", line, sizeof(line));
	line[strcspn(line, "\n")] = 0;
	if (strstr(line, SECOND))
		return;
	make_mess();
	start_second(line);
}

/* ---- the second ---- */

FIXTURE(pri_kexec)
{
	struct server server;
	struct unit *unit;
};

FIXTURE_SETUP(pri_kexec)
{
	self->unit = &self->server.unit[0];
	ASSERT_EQ(0, server_open(&self->server, 0, 1));
}

FIXTURE_TEARDOWN(pri_kexec)
{
	check_server(_metadata, &self->server);
	EXPECT_EQ(0, reg(self->unit, PTD_N_EARLY));
}

/*
 * Interrupts come, and nothing of what the first kernel was asked for: not even the
 * place in its ring has been read.
 */
TEST_F_TIMEOUT(pri_kexec, serves, 120)
{
	volatile unsigned char *regs = map_iommu();
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct iommu_hwpt_pgfault m;

	ASSERT_NE(NULL, regs);
	ASSERT_LE(0, kmsg);
	EXPECT_EQ(0, log_lines(kmsg, "page request queue"));
	EXPECT_EQ(0, read_some(&self->server.queue, &m, 1, QUIET_MS));
	ASSERT_EQ(0, start_copy(self->unit, HALF / 4, 2, 8));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, HALF / 4));
	EXPECT_EQ(0, *iommu_reg(regs, PRS) & PRS_OVERFLOW);
	EXPECT_EQ(*iommu_reg(regs, PQT), *iommu_reg(regs, PQH));
	close(kmsg);
}

/* An overflow of this kernel's own is cleared as any other. */
TEST_F_TIMEOUT(pri_kexec, overflows, 120)
{
	uint64_t end = now_ms() + WAIT_MS;

	ASSERT_LT(0, burst(self->unit, PASID, 2 * RING, 1, PTD_F_NO_CREDIT));
	ASSERT_EQ(0, request_when_cleared(self->unit, 7));
	while (reg(self->unit, PTD_OPEN_GROUPS) && now_ms() < end)
		ASSERT_LE(0, serve_some(&self->server, 1));
}

TEST_HARNESS_MAIN
