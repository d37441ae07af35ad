// SPDX-License-Identifier: GPL-2.0-only
/*
 * SVA: a process hands its own memory to the device, which finds it by the process's page
 * tables and asks the kernel for what is not there. iommufd's own tests (IOMMUFD_TEST)
 * have an operation for it, as the device has no driver that would.
 *
 * On x86 Linux has it since 6.19, and wants an IOMMU with SMPWC: scripts/vm --nest; in
 * a guest, scripts/vm --nested --vmm-smpwc.
 */
#include <sys/ioctl.h>

#include "iommufd_pri_utils.h"
#include "../../../../drivers/iommu/iommufd/iommufd_test_iopf.h"

#define LENGTH (64 * PAGE)

FIXTURE(pri_sva)
{
	struct iopf io;
	struct unit unit;
	struct iommu_test_sva sva;
	unsigned char *src, *dst;
};

static int sva_bind(int fd, uint32_t dev_id, struct iommu_test_sva *sva)
{
	struct iommu_test_iopf_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_SVA_BIND,
		.id = dev_id,
		.arg = (uintptr_t)sva,
		.arg_size = sizeof(*sva),
	};

	return ioctl(fd, IOMMU_TEST_CMD, &cmd) ? -errno : 0;
}

static unsigned char *untouched(void)
{
	void *memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static void fill_with(unsigned char *memory, unsigned int first)
{
	unsigned int i;

	for (i = 0; i < LENGTH; i++)
		memory[i] = (unsigned char)(i * 7 + i / PAGE + first);
}

FIXTURE_SETUP(pri_sva)
{
	unsigned char *src = untouched(), *dst = untouched();
	struct pri_address found;
	int rc;

	ASSERT_TRUE(src && dst);
	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	ASSERT_EQ(0, iopf_open(&self->io));
	ASSERT_EQ(0, unit_open_device(&self->io, found.bdf, &self->unit));
	rc = iopf_hwpt_alloc(&self->io, self->unit.pri.vfio.id, self->unit.ioas,
			     IOMMU_HWPT_ALLOC_PASID, 0, &self->unit.plain);
	if (!rc)
		rc = iopf_device_attach(&self->unit.pri.vfio, self->unit.plain);
	if (!rc)
		rc = sva_bind(self->io.fd, self->unit.pri.vfio.id, &self->sva);
	if (rc) {
		pri_close(&self->unit.pri);
		if (rc == -EOPNOTSUPP || rc == -ENODEV)
			SKIP(return, "this kernel or this IOMMU has no SVA: %s", strerror(-rc));
		ASSERT_EQ(0, rc);
	}
	self->src = src;
	self->dst = dst;
	fill_with(src, 1);
}

FIXTURE_TEARDOWN(pri_sva)
{
	if (!self->src)
		return;
	check_unit(_metadata, &self->unit);
	EXPECT_EQ(0, close(self->sva.fd));
	EXPECT_EQ(0, pri_close(&self->unit.pri));
	iopf_close(&self->io);
}

typedef FIXTURE_DATA(pri_sva) sva_t;

/* By the device, from one place of this program's to another; how it has ended. */
static enum ptd_state copy(sva_t *self, const void *src, void *dst)
{
	struct pri_copy copy = {
		.src = (uintptr_t)src, .dst = (uintptr_t)dst, .length = LENGTH,
		.pasid = self->sva.pasid, .group = 4, .depth = 4,
	};

	if (pri_start(&self->unit.pri, &copy))
		return PTD_STATE_IDLE;
	return wait_stopped(&self->unit);
}

/* Memory that nobody has touched is there when the device has asked for it. */
TEST_F(pri_sva, untouched)
{
	uint32_t before = reg(&self->unit, PTD_N_GROUPS);
	unsigned char present;

	ASSERT_EQ(0, mincore(self->dst, PAGE, &present));
	EXPECT_EQ(0, present & 1);
	EXPECT_EQ(PTD_STATE_DONE, copy(self, self->src, self->dst));
	EXPECT_EQ(0, memcmp(self->src, self->dst, LENGTH));
	EXPECT_LE(before + LENGTH / PAGE / 4, reg(&self->unit, PTD_N_GROUPS));
}

/* What the process gives back the device has lost, too: it asks again. */
TEST_F(pri_sva, given_back)
{
	uint32_t before;

	ASSERT_EQ(PTD_STATE_DONE, copy(self, self->src, self->dst));
	before = reg(&self->unit, PTD_N_GROUPS);
	ASSERT_EQ(0, madvise(self->dst, LENGTH, MADV_DONTNEED));
	fill_with(self->src, 2);
	EXPECT_EQ(PTD_STATE_DONE, copy(self, self->src, self->dst));
	EXPECT_EQ(0, memcmp(self->src, self->dst, LENGTH));
	EXPECT_LE(before + LENGTH / PAGE / 4, reg(&self->unit, PTD_N_GROUPS));
}

/* It may do what the process may. */
TEST_F(pri_sva, not_allowed)
{
	ASSERT_EQ(PTD_STATE_DONE, copy(self, self->src, self->dst));
	ASSERT_EQ(0, mprotect(self->dst, LENGTH, PROT_READ));
	fill_with(self->src, 2);
	EXPECT_EQ(PTD_STATE_STOPPED_INVALID, copy(self, self->src, self->dst));
	EXPECT_NE(0, memcmp(self->src, self->dst, PAGE));
	ASSERT_EQ(0, munmap(self->dst, LENGTH));
	EXPECT_EQ(PTD_STATE_STOPPED_INVALID, copy(self, self->src, self->dst));
}

TEST_HARNESS_MAIN
