// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where a device's faults would never be heard of, a table with a queue is refused: behind
 * an AMD IOMMU, whose driver reports page requests for SVA alone, and without an IOMMU.
 */
#include "iommufd_pri_utils.h"

#define NOIOMMU "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"

/* @where gets what the device's IOMMU is, or nothing. Returns false if there is no device. */
static bool find_device(struct pri_address *found, char *where, size_t size)
{
	char path[96];
	ssize_t n;

	if (pri_find(found, 1) < 1)
		return false;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu", found->bdf);
	n = readlink(path, where, size - 1);
	where[n < 0 ? 0 : n] = 0;
	return true;
}

static void check_refused(struct __test_metadata *_metadata, const char *bdf)
{
	struct iopf_queue queue = { .fd = -1 };
	uint32_t ioas, plain, faulting;
	struct pri_device pri;
	struct iopf io;

	ASSERT_EQ(0, iopf_open(&io));
	ASSERT_EQ(0, pri_open(&io, bdf, &pri)) {
		ksft_print_msg("%s\n", iopf_error(&io));
	}
	ASSERT_EQ(0, iopf_queue_alloc_with(&io, &(struct iopf_queue_options){ 0 }, &queue));
	ASSERT_EQ(0, iopf_ioas_alloc(&io, &ioas));
	ASSERT_EQ(0, iopf_hwpt_alloc(&io, pri.vfio.id, ioas, 0, 0, &plain));
	ASSERT_EQ(0, iopf_hwpt_alloc(&io, pri.vfio.id, ioas, 0, queue.id, &faulting));

	EXPECT_EQ(-EOPNOTSUPP, iopf_device_attach(&pri.vfio, faulting));
	EXPECT_EQ(0, iopf_device_attach(&pri.vfio, plain));
	EXPECT_EQ(-EOPNOTSUPP, iopf_device_attach(&pri.vfio, faulting));
	EXPECT_EQ(0, iopf_device_detach(&pri.vfio));

	EXPECT_EQ(0, pri_close(&pri));
	EXPECT_EQ(0, iopf_destroy(&io, plain));
	EXPECT_EQ(0, iopf_destroy(&io, faulting));
	EXPECT_EQ(0, iopf_destroy(&io, ioas));
	EXPECT_EQ(0, iopf_queue_close(&queue));
	iopf_close(&io);
}

TEST(behind_amd)
{
	struct pri_address found;
	char iommu[256];

	if (!find_device(&found, iommu, sizeof(iommu)) || !strstr(iommu, "ivhd"))
		SKIP(return, "no pri-testdev (1234:9171) behind an AMD IOMMU here");
	check_refused(_metadata, found.bdf);
}

/* As VFIO lets a device be used, at the user's risk, if the kernel can (Linux 7.3) */
TEST(without_iommu)
{
	struct pri_address found;
	char iommu[256];

	if (!find_device(&found, iommu, sizeof(iommu)) || *iommu)
		SKIP(return, "no pri-testdev (1234:9171) without an IOMMU here");
	if (write_file(NOIOMMU, "1"))
		SKIP(return, "VFIO needs an IOMMU in this kernel");
	check_refused(_metadata, found.bdf);
	EXPECT_EQ(0, write_file(NOIOMMU, "0"));
}

TEST_HARNESS_MAIN
