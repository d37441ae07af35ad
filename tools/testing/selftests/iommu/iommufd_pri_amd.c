// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device behind an AMD IOMMU, whose driver reports page requests for SVA alone: a table
 * with a queue is refused, where its faults would never be heard of.
 */
#include "iommufd_pri_utils.h"

static bool is_behind_amd(const char *bdf)
{
	char path[96], target[256];
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu", bdf);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	return strstr(target, "ivhd");
}

TEST(pri_amd_refused)
{
	struct iopf_queue queue = { .fd = -1 };
	uint32_t ioas, plain, faulting;
	struct pri_address found;
	struct pri_device pri;
	struct iopf io;

	if (pri_find(&found, 1) < 1 || !is_behind_amd(found.bdf))
		SKIP(return, "no pri-testdev (1234:9171) behind an AMD IOMMU here");
	ASSERT_EQ(0, iopf_open(&io));
	ASSERT_EQ(0, pri_open(&io, found.bdf, &pri)) {
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

TEST_HARNESS_MAIN
