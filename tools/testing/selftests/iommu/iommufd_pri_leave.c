// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices that leave with page requests open, and come back: taken from their driver,
 * removed, unplugged, and after errors that their port tells of.
 *
 * Those that need a root port are for scripts/vm --port, where QEMU's monitor is at
 * MONITOR. There VFIO resets the bus when it closes the device, which then has forgotten
 * what it counted, but for the driver's mistakes.
 */
#include <dirent.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "iommufd_pri_utils.h"

#define MONITOR "/dev/vm.monitor"
#define SHORT (64 * PAGE)

FIXTURE(pri_leave)
{
	struct server server;
	struct unit *unit;
	struct pri_address found;
	bool forgets;
	int monitor;
};

typedef FIXTURE_DATA(pri_leave) leave_t;

/* Is there a way to reset it? */
static bool is_reset_by_vfio(const char *bdf)
{
	char path[80], method;
	bool resets = false;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset_method", bdf);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		resets = read(fd, &method, 1) == 1 && method != '\n';
		close(fd);
	}
	return resets;
}

FIXTURE_SETUP(pri_leave)
{
	if (pri_find(&self->found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	self->monitor = -1;
	self->unit = &self->server.unit[0];
	self->forgets = is_reset_by_vfio(self->found.bdf);
	ASSERT_EQ(0, server_open(&self->server, 0, 1));
}

FIXTURE_TEARDOWN(pri_leave)
{
	if (!self->server.n_units)
		return;
	if (self->monitor >= 0)
		close(self->monitor);
	check_server(_metadata, &self->server);
	EXPECT_EQ(0, reg(self->unit, PTD_N_MUTE));
	EXPECT_EQ(0, reg(self->unit, PTD_N_EARLY));
}

/* ---- helpers ---- */

struct request_to_leave {
	const char *path, *text;
	int rc;
};

/* Returns when the device is closed. */
static void *ask_to_leave(void *arg)
{
	struct request_to_leave *ask = arg;

	ask->rc = write_file(ask->path, ask->text);
	return NULL;
}

static bool is_readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, WAIT_MS) == 1 && pfd.revents & POLLIN;
}

/* The other half is the kernel's to answer. */
static void answer_half(struct __test_metadata *_metadata, struct server *server,
			const struct iommu_hwpt_pgfault *m)
{
	int i;

	EXPECT_EQ(PENDING, reg(&server->unit[0], PTD_OPEN_GROUPS));
	for (i = 0; i < PENDING / 2; i++)
		EXPECT_EQ(1, answer(server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(PENDING / 2, wait_reg(&server->unit[0], PTD_N_SUCCESS, PENDING / 2));
}

/* Somebody wants the device away by writing to a file of sysfs: it is served until closed. */
static void leave(struct __test_metadata *_metadata, leave_t *self,
		  const char *path, const char *text)
{
	struct request_to_leave ask = { .path = path, .text = text };
	struct iommu_hwpt_pgfault m[PENDING];
	pthread_t thread;
	int fd;

	make_pending(_metadata, &self->server, m);
	fd = iopf_device_watch(&self->unit->pri.vfio);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pthread_create(&thread, NULL, ask_to_leave, &ask));
	ASSERT_TRUE(is_readable(fd));
	answer_half(_metadata, &self->server, m);
	ASSERT_EQ(0, pri_close(&self->unit->pri));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, ask.rc);
	EXPECT_EQ(0, read_some(&self->server.queue, m, PENDING, 0));
}

static void wait_present(struct __test_metadata *_metadata, const struct pri_address *found)
{
	uint64_t end = now_ms() + WAIT_MS;
	struct pri_address now;

	while (pri_find(&now, 1) < 1 && now_ms() < end)
		usleep(10000);
	ASSERT_STREQ(found->bdf, now.bdf);
}

/* What it has counted, if it was not reset: each group had one answer. */
static void check_left(struct __test_metadata *_metadata, leave_t *self)
{
	struct unit unit = { .memory = NULL };

	ASSERT_EQ(0, map_regs(&self->server.io, self->found.bdf, &unit));
	EXPECT_EQ(0, reg(&unit, PTD_OPEN_GROUPS));
	EXPECT_EQ(0, reg(&unit, PTD_N_UNMATCHED));
	EXPECT_EQ(0, reg(&unit, PTD_N_MUTE));
	if (!self->forgets) {
		EXPECT_EQ(PENDING, reg(&unit, PTD_N_RESPONSES));
		EXPECT_EQ(PENDING / 2, reg(&unit, PTD_N_INVALID));
	}
	munmap((void *)unit.regs.bar.base, PTD_BAR_SIZE);
}

/* Open it again, as a device that was never there before. */
static void come_back(struct __test_metadata *_metadata, leave_t *self)
{
	struct server *server = &self->server;

	EXPECT_EQ(0, iopf_destroy(&server->io, self->unit->plain));
	EXPECT_EQ(0, iopf_destroy(&server->io, self->unit->faulting));
	EXPECT_EQ(0, iopf_destroy(&server->io, self->unit->ioas));
	*self->unit = (struct unit){ .memory = NULL };
	ASSERT_EQ(0, unit_open(server, self->found.bdf, self->unit)) {
		ksft_print_msg("%s\n", iopf_error(&server->io));
	}
	ASSERT_EQ(0, start_copy(self->unit, SHORT, 2, 8));
	EXPECT_EQ(0, serve(server));
	EXPECT_TRUE(copied(self->unit, SHORT));
}

/* ---- by way of sysfs ---- */

TEST_F_TIMEOUT(pri_leave, unbound, 120)
{
	leave(_metadata, self, "/sys/bus/pci/drivers/vfio-pci/unbind", self->found.bdf);
	check_left(_metadata, self);
	come_back(_metadata, self);
}

TEST_F_TIMEOUT(pri_leave, removed_and_rescanned, 120)
{
	char path[80];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", self->found.bdf);
	leave(_metadata, self, path, "1");
	ASSERT_EQ(0, write_file("/sys/bus/pci/rescan", "1"));
	wait_present(_metadata, &self->found);
	check_left(_metadata, self);
	come_back(_metadata, self);
}

/* ---- by way of QEMU ---- */

/* What the monitor says next that is an answer, not an event */
static void read_answer(int monitor, char *answer, size_t size)
{
	size_t n = 0;

	do {
		for (n = 0; n < size - 1 && read(monitor, answer + n, 1) == 1; n++) {
			if (answer[n] == '\n')
				break;
		}
		answer[n] = 0;
	} while (n && !strstr(answer, "\"return\"") && !strstr(answer, "\"error\""));
}

/* Does it do it? */
static bool tell(int monitor, const char *command)
{
	char answer[4096] = "";

	if (write(monitor, command, strlen(command)) >= 0 && write(monitor, "\n", 1) == 1)
		read_answer(monitor, answer, sizeof(answer));
	return strstr(answer, "\"return\"");
}

/* Only the first who opens it has to negotiate, and is believed here. */
static bool open_monitor(leave_t *self)
{
	self->monitor = open(MONITOR, O_RDWR | O_CLOEXEC);
	if (self->monitor < 0)
		return false;
	tell(self->monitor, "{\"execute\": \"qmp_capabilities\"}");
	return tell(self->monitor, "{\"execute\": \"query-status\"}");
}

/* The slot of a device, of which sysfs has the power */
static int find_slot(const char *bdf, char *path, size_t size)
{
	DIR *slots = opendir("/sys/bus/pci/slots");
	struct dirent *entry;
	char address[32];
	int rc = -ENOENT;
	FILE *f;

	while (rc && slots && (entry = readdir(slots))) {
		snprintf(path, size, "/sys/bus/pci/slots/%.16s/address", entry->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fgets(address, sizeof(address), f) && !strncmp(address, bdf, 10)) {
			snprintf(path, size, "/sys/bus/pci/slots/%.16s/power", entry->d_name);
			rc = 0;
		}
		fclose(f);
	}
	if (slots)
		closedir(slots);
	return rc;
}

#define ADD_DEVICE \
	"{\"execute\": \"device_add\", \"arguments\": {\"driver\": \"pri-testdev\", \"id\": \"behind\", \"bus\": \"root1\"}}"

/* Its slot loses power, so QEMU takes it away; then it gets a new one. */
TEST_F_TIMEOUT(pri_leave, unplugged, 120)
{
	uint64_t end = now_ms() + WAIT_MS;
	char slot[80];

	if (find_slot(self->found.bdf, slot, sizeof(slot)) || !open_monitor(self))
		SKIP(return, "the device is in no slot, or there is no monitor");
	leave(_metadata, self, slot, "0");
	EXPECT_EQ(0, pri_find(&(struct pri_address){ "" }, 1));
	while (!tell(self->monitor, ADD_DEVICE)) {
		ASSERT_GT(end, now_ms());
		usleep(100000);
	}
	wait_present(_metadata, &self->found);
	come_back(_metadata, self);
}

static int tell_errors_to(struct iopf_device *vfio, int fd)
{
	union {
		struct vfio_irq_set head;
		char room[sizeof(struct vfio_irq_set) + sizeof(int)];
	} set = {
		.head = {
			.argsz = sizeof(set),
			.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = VFIO_PCI_ERR_IRQ_INDEX,
			.count = 1,
		},
	};

	memcpy(set.head.data, &fd, sizeof(fd));
	return ioctl(vfio->fd, VFIO_DEVICE_SET_IRQS, &set) ? -errno : 0;
}

/* Have the device tell its port of this error, and wait until VFIO tells us. */
static void make_error(struct __test_metadata *_metadata, leave_t *self,
		       const char *error)
{
	int fd = eventfd(0, EFD_CLOEXEC);
	char command[200];

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, tell_errors_to(&self->unit->pri.vfio, fd));
	snprintf(command, sizeof(command),
		 "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"pcie_aer_inject_error behind %s\"}}",
		 error);
	ASSERT_TRUE(tell(self->monitor, command));
	ASSERT_TRUE(is_readable(fd));
	close(fd);
}

/* One that the device has overcome: nothing happens to its page requests. */
TEST_F_TIMEOUT(pri_leave, error, 120)
{
	struct iommu_hwpt_pgfault m[PENDING];
	int i;

	if (!open_monitor(self))
		SKIP(return, "no monitor");
	make_pending(_metadata, &self->server, m);
	make_error(_metadata, self, "COMP_TIME");
	answer_half(_metadata, &self->server, m);
	ASSERT_EQ(PENDING / 2, read_all(&self->server.queue, m, PENDING / 2));
	for (i = 0; i < PENDING / 2; i++)
		EXPECT_EQ(1, answer(&self->server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	ASSERT_EQ(0, start_copy(self->unit, SHORT, 2, 8));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, SHORT));
}

/*
 * One for which the link is reset: what was asked is taken back, and until VFIO has given
 * the device its state back nothing is sent to it.
 */
TEST_F_TIMEOUT(pri_leave, fatal_error, 120)
{
	struct iommu_hwpt_pgfault m[PENDING];
	uint64_t end = now_ms() + WAIT_MS;
	struct iopf_device *vfio = &self->unit->pri.vfio;
	int i;

	if (!open_monitor(self))
		SKIP(return, "no monitor");
	make_pending(_metadata, &self->server, m);
	ASSERT_EQ(0, map_page(&self->server, self->unit, SRC, READ_WRITE));
	ASSERT_EQ(0, map_page(&self->server, self->unit, SRC + PAGE, READ_WRITE));
	EXPECT_EQ(memory_read(self->unit, SRC), dma_read(self->unit, PASID, SRC));
	make_error(_metadata, self, "MALF_TLP");
	while (fdinfo_number(self->server.queue.fd, "iommufd-fault-recalled") < PENDING &&
	       now_ms() < end)
		usleep(1000);
	EXPECT_EQ(PENDING, fdinfo_number(self->server.queue.fd, "iommufd-fault-recalled"));
	for (i = 0; i < PENDING / 2; i++)
		EXPECT_EQ(-ESTALE, answer(&self->server, m[i].cookie,
					  IOMMUFD_PAGE_RESP_SUCCESS));
	/* its registers went with its state: what is sent now would be noticed */
	while (reg(self->unit, PTD_MAGIC) == PTD_MAGIC_VALUE && now_ms() < end)
		usleep(1000);
	EXPECT_NE(PTD_MAGIC_VALUE, reg(self->unit, PTD_MAGIC));
	EXPECT_EQ(0, iopf_unmap(&self->server.io, self->unit->ioas, SRC, PAGE));
	EXPECT_EQ(0, iopf_device_detach_pasid(vfio, PASID));
	EXPECT_EQ(0, iopf_device_attach_pasid(vfio, PASID, self->unit->faulting));
	EXPECT_EQ(0, iopf_unmap(&self->server.io, self->unit->ioas, SRC + PAGE, PAGE));
	ASSERT_EQ(0, pri_close(&self->unit->pri));
	check_left(_metadata, self);
	come_back(_metadata, self);
}

TEST_HARNESS_MAIN
