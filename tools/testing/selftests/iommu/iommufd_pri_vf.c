// SPDX-License-Identifier: GPL-2.0-only
/*
 * Virtual functions beside a physical one whose faults are served. They share its page
 * request interface, so their own requests are refused, and in a way that does not stop
 * those of the physical function.
 *
 * With failure=stops, as it is loaded for this, pri-testdev stops all of them at a FAILURE.
 */
#include <dirent.h>

#include "iommufd_pri_utils.h"

#define REQUESTS 64

FIXTURE(pri_vf)
{
	struct server server;
	struct unit *unit;
	char pf[16], vf[16];
	/* the virtual function, with tables on an address space of its own */
	struct unit virt;
	bool opened;
};

typedef FIXTURE_DATA(pri_vf) vf_t;

/* What VFIO in Linux 7.3 says to whoever does not show a token of the physical function */
#define NEEDS_TOKEN "VFIO binds a virtual function to an iommufd by its token alone"

static int write_attribute(const char *bdf, const char *name, const char *value)
{
	char path[96];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, name);
	return write_file(path, value);
}

/* The first virtual function, which is made for it; the physical one is bound to VFIO. */
static int make_vfs(const char *pf, char *vf)
{
	int rc = write_file("/sys/module/vfio_pci/parameters/enable_sriov", "Y");
	char path[96], target[96];
	ssize_t n;

	rc = rc ? rc : write_attribute(pf, "sriov_numvfs", "2");
	if (rc)
		return rc;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/virtfn0", pf);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 12)
		return -ENODEV;
	target[n] = 0;
	strcpy(vf, target + n - 12);
	return 0;
}

static int open_vf(struct server *server, const char *bdf, struct unit *virt)
{
	struct iopf *io = &server->io;
	struct iopf_device *vfio = &virt->pri.vfio;
	int rc;

	virt->memory = server->unit[0].memory;
	rc = iopf_device_open(io, bdf, vfio);
	if (!rc)
		rc = iopf_device_map_bar(vfio, 0, &virt->pri.bar);
	if (!rc)
		rc = map_regs(io, bdf, virt);
	if (!rc)
		rc = pri_command(&virt->pri, PTD_CMD_RESET);
	if (!rc)
		rc = iopf_device_bus_master(vfio, true);
	if (!rc)
		rc = iopf_ioas_alloc(io, &virt->ioas);
	if (!rc)
		rc = iopf_hwpt_alloc(io, vfio->id, virt->ioas, IOMMU_HWPT_ALLOC_PASID, 0,
				     &virt->plain);
	if (!rc)
		rc = iopf_hwpt_alloc(io, vfio->id, virt->ioas, IOMMU_HWPT_ALLOC_PASID,
				     server->queue.id, &virt->faulting);
	if (!rc)
		rc = iopf_device_attach(vfio, virt->plain);
	if (!rc)
		rc = iopf_device_attach_pasid(vfio, PASID, virt->plain);
	if (rc)
		pri_close(&virt->pri);
	return rc;
}

FIXTURE_SETUP(pri_vf)
{
	struct pri_address found;
	int rc;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	snprintf(self->pf, sizeof(self->pf), "%s", found.bdf);
	self->unit = &self->server.unit[0];
	ASSERT_EQ(0, server_open(&self->server, 0, 1));
	if (write_attribute(self->pf, "sriov_numvfs", "0")) {
		server_close(&self->server);
		self->server = (struct server){ .n_units = 0 };
		SKIP(return, "pri-testdev has no virtual functions: it was loaded without vfs=");
	}
	rc = make_vfs(self->pf, self->vf);
	if (!rc)
		rc = open_vf(&self->server, self->vf, &self->virt);
	if (rc) {
		ksft_print_msg("%s\n", iopf_error(&self->server.io));
		write_attribute(self->pf, "sriov_numvfs", "0");
		server_give_back(&self->server);
	}
	if (rc == -EACCES)
		SKIP(return, NEEDS_TOKEN);
	ASSERT_EQ(0, rc);
	self->opened = true;
}

static void close_vf(struct __test_metadata *_metadata, vf_t *self)
{
	struct iopf *io = &self->server.io;

	self->opened = false;
	check_unit(_metadata, &self->virt);
	EXPECT_EQ(0, pri_close(&self->virt.pri));
	EXPECT_EQ(0, iopf_destroy(io, self->virt.plain));
	EXPECT_EQ(0, iopf_destroy(io, self->virt.faulting));
	EXPECT_EQ(0, iopf_destroy(io, self->virt.ioas));
}

FIXTURE_TEARDOWN(pri_vf)
{
	if (!self->server.n_units)
		return;
	if (self->opened)
		close_vf(_metadata, self);
	EXPECT_EQ(0, write_attribute(self->pf, "sriov_numvfs", "0"));
	check_server(_metadata, &self->server);
	EXPECT_EQ(0, reg(self->unit, PTD_N_EARLY));
}

/* Tables with a queue are not for it, and what it is attached to stays. */
TEST_F(pri_vf, refused)
{
	struct iopf_device *vfio = &self->virt.pri.vfio;

	EXPECT_EQ(-EINVAL, iopf_device_attach(vfio, self->virt.faulting));
	EXPECT_EQ(-EINVAL, iopf_device_attach_pasid(vfio, PASID, self->virt.faulting));
	EXPECT_EQ(-EINVAL, iopf_device_attach_pasid(vfio, OTHER_PASID, self->virt.faulting));
	EXPECT_EQ(-EINVAL, iopf_device_attach_pasid(vfio, PASID, self->unit->faulting));
	ASSERT_EQ(0, map_page(&self->server, &self->virt, SRC, READ_WRITE));
	EXPECT_EQ(memory_read(&self->virt, SRC), dma_read(&self->virt, PASID, SRC));
	EXPECT_EQ(0, iopf_unmap(&self->server.io, self->virt.ioas, SRC, PAGE));
	EXPECT_EQ(0, dma_read(&self->virt, PASID, SRC));
}

/* It asks all the same: each group is INVALID, and the other's copy goes on. */
TEST_F_TIMEOUT(pri_vf, stops_nobody, 120)
{
	struct unit *virt = &self->virt;
	int i, sent = 0;

	ASSERT_EQ(0, start_copy(self->unit, HALF, 2, 8));
	for (i = 0; i < REQUESTS; i++) {
		ASSERT_EQ(0, request(virt, PASID, SRC + i * PAGE, FLAGS_READ, i));
		sent++;
		ASSERT_LE(0, serve_some(&self->server, 0));
		EXPECT_EQ(PTD_STATE_RUNNING, reg(self->unit, PTD_STATE));
	}
	EXPECT_EQ(sent, wait_reg(virt, PTD_N_INVALID, sent));
	EXPECT_EQ(sent, reg(virt, PTD_N_RESPONSES));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, HALF));
	EXPECT_EQ(0, reg(self->unit, PTD_N_FAILURE));
	EXPECT_EQ(0, reg(self->unit, PTD_N_REFUSED));
}

/* Nor do groups of several pages, nor those of a PASID that nothing is attached to. */
TEST_F(pri_vf, stops_nobody_without_table)
{
	struct unit *virt = &self->virt;
	struct iommu_hwpt_pgfault m;

	ASSERT_EQ(0, request(self->unit, PASID, SRC, FLAGS_READ, 1));
	EXPECT_EQ(32, burst(virt, PASID, 32, 4, 0));
	EXPECT_EQ(8, wait_reg(virt, PTD_N_INVALID, 8));
	EXPECT_TRUE(is_refused(virt, OTHER_PASID));
	ASSERT_EQ(1, read_some(&self->server.queue, &m, 1, WAIT_MS));
	EXPECT_EQ(self->unit->pri.vfio.id, m.dev_id);
	EXPECT_EQ(0, read_some(&self->server.queue, &m, 1, 0));
	EXPECT_EQ(1, answer(&self->server, m.cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(1, wait_reg(self->unit, PTD_N_SUCCESS, 1));
}

/* The physical function's table goes and comes back while the other asks. */
TEST_F(pri_vf, pri_off_and_on)
{
	struct unit *virt = &self->virt;
	struct iopf_device *vfio = &self->unit->pri.vfio;
	struct iommu_hwpt_pgfault m[PENDING];

	make_pending(_metadata, &self->server, m);
	EXPECT_EQ(8, burst(virt, PASID, 8, 1, 0));
	ASSERT_EQ(0, iopf_device_detach_pasid(vfio, PASID));
	EXPECT_EQ(-EPERM, request(virt, PASID, SRC, FLAGS_READ, 1));
	EXPECT_EQ(8, wait_reg(virt, PTD_N_INVALID, 8));
	ASSERT_EQ(0, iopf_device_attach_pasid(vfio, PASID, self->unit->faulting));
	EXPECT_EQ(0, request(virt, PASID, SRC, FLAGS_READ, 1));
	EXPECT_EQ(9, wait_reg(virt, PTD_N_INVALID, 9));
	ASSERT_EQ(0, start_copy(self->unit, 16 * PAGE, 1, 4));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, 16 * PAGE));
}

/* They go while the physical function waits for answers. */
TEST_F(pri_vf, vfs_leave)
{
	struct iommu_hwpt_pgfault m[PENDING];
	int i;

	make_pending(_metadata, &self->server, m);
	EXPECT_EQ(8, burst(&self->virt, PASID, 8, 1, 0));
	EXPECT_EQ(8, wait_reg(&self->virt, PTD_N_INVALID, 8));
	close_vf(_metadata, self);
	ASSERT_EQ(0, write_attribute(self->pf, "sriov_numvfs", "0"));
	EXPECT_EQ(PENDING, reg(self->unit, PTD_OPEN_GROUPS));
	ASSERT_EQ(PENDING / 2, read_all(&self->server.queue, m + PENDING / 2, PENDING / 2));
	for (i = 0; i < PENDING; i++)
		EXPECT_EQ(1, answer(&self->server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(PENDING, wait_reg(self->unit, PTD_N_SUCCESS, PENDING));
}

/* ---- of a function that has no page request interface to be shared ---- */

/* One with virtual functions that is not ours */
static int find_other(char *bdf, size_t size)
{
	DIR *devices = opendir("/sys/bus/pci/devices");
	struct pri_address ours;
	struct dirent *entry;
	char path[300];
	int rc = -ENOENT;

	if (pri_find(&ours, 1) < 1)
		ours.bdf[0] = 0;
	while (rc && devices && (entry = readdir(devices))) {
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/sriov_numvfs",
			 entry->d_name);
		if (strcmp(entry->d_name, ours.bdf) && !access(path, W_OK)) {
			snprintf(bdf, size, "%.15s", entry->d_name);
			rc = 0;
		}
	}
	if (devices)
		closedir(devices);
	return rc;
}

/* What comes of a table with a queue; one without is attached. */
static int attach_faulting(struct __test_metadata *_metadata, struct iopf *io,
			   struct iopf_device *vfio, uint32_t ioas, uint32_t queue)
{
	uint32_t plain, faulting;
	int rc;

	EXPECT_EQ(0, iopf_hwpt_alloc(io, vfio->id, ioas, 0, 0, &plain));
	EXPECT_EQ(0, iopf_hwpt_alloc(io, vfio->id, ioas, 0, queue, &faulting));
	rc = iopf_device_attach(vfio, faulting);
	EXPECT_EQ(0, iopf_device_attach(vfio, plain));
	EXPECT_EQ(0, iopf_device_detach(vfio));
	EXPECT_EQ(0, iopf_destroy(io, faulting));
	EXPECT_EQ(0, iopf_destroy(io, plain));
	return rc;
}

/* It is not refused for being virtual: what it lacks is what its physical function lacks. */
TEST(pri_vf_without_pri)
{
	struct iopf_queue queue = { .fd = -1 };
	struct iopf_device physical, virtual;
	char pf[16], vf[16];
	struct iopf io;
	uint32_t ioas;
	int rc;

	if (find_other(pf, sizeof(pf)))
		SKIP(return, "no other device with virtual functions here");
	ASSERT_EQ(0, iopf_open(&io));
	ASSERT_EQ(0, iopf_queue_alloc_with(&io, &(struct iopf_queue_options){ 0 }, &queue));
	ASSERT_EQ(0, iopf_ioas_alloc(&io, &ioas));
	ASSERT_EQ(0, iopf_device_open(&io, pf, &physical)) {
		ksft_print_msg("%s\n", iopf_error(&io));
	}
	ASSERT_EQ(0, make_vfs(pf, vf));
	rc = iopf_device_open(&io, vf, &virtual);
	if (rc == -EACCES) {
		EXPECT_EQ(0, write_attribute(pf, "sriov_numvfs", "0"));
		EXPECT_EQ(0, iopf_device_close(&physical));
		SKIP(return, NEEDS_TOKEN);
	}
	ASSERT_EQ(0, rc) {
		ksft_print_msg("%s\n", iopf_error(&io));
	}

	rc = attach_faulting(_metadata, &io, &physical, ioas, queue.id);
	EXPECT_GT(0, rc);
	EXPECT_NE(-EINVAL, rc);
	EXPECT_EQ(rc, attach_faulting(_metadata, &io, &virtual, ioas, queue.id));

	EXPECT_EQ(0, iopf_device_close(&virtual));
	EXPECT_EQ(0, write_attribute(pf, "sriov_numvfs", "0"));
	EXPECT_EQ(0, iopf_device_close(&physical));
	EXPECT_EQ(0, iopf_destroy(&io, ioas));
	EXPECT_EQ(0, iopf_queue_close(&queue));
	iopf_close(&io);
}

TEST_HARNESS_MAIN
