/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory on demand, for tests: what the kernel says of it, and userfaultfd
 *
 * To be included where a test has struct iommu_test_iopf_cmd.
 */
#ifndef __SELFTEST_IOMMUFD_DEMAND_UTILS_H
#define __SELFTEST_IOMMUFD_DEMAND_UTILS_H

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "iommufd_fdinfo.h"

#define ON_FAULT IOMMU_IOAS_MAP_ON_FAULT
#define READ_ONLY IOMMU_IOAS_MAP_READABLE
#define WRITE_TOO (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)

/* What is mapped on demand in an IOAS, compared with the memory of the owner */
static inline int demand_audit(int fd, uint32_t ioas_id, struct iommu_test_demand_audit *audit)
{
	struct iommu_test_iopf_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_DEMAND_AUDIT,
		.id = ioas_id,
		.arg = (uintptr_t)audit,
		.arg_size = sizeof(*audit),
	};

	return ioctl(fd, IOMMU_TEST_CMD, &cmd) ? -errno : 0;
}

/* A counter of an IOAS, or -1 */
static inline long demand_counter(int fd, uint32_t ioas_id, const char *name)
{
	char line[64];

	snprintf(line, sizeof(line), "iommufd-demand-%u-%s", ioas_id, name);
	return fdinfo_number(fd, line);
}

/*
 * A userfaultfd for a range, for what one of UFFDIO_REGISTER_MODE_* says, which needs some of
 * UFFD_FEATURE_*; or -errno
 */
static inline int demand_userfaultfd(void *va, uint64_t length, uint64_t mode, uint64_t features)
{
	struct uffdio_register range = {
		.range = { .start = (uintptr_t)va, .len = length },
		.mode = mode,
	};
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &range))
		return -errno;
	return uffd;
}

/* Give a page that is missing; 0 or -errno. */
static inline int demand_give(int uffd, void *to, const void *from, uint64_t length)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)to,
		.src = (uintptr_t)from,
		.len = length,
	};

	return ioctl(uffd, UFFDIO_COPY, &copy) ? -errno : 0;
}

#endif
