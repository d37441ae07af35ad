/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Helpers for tests of iommufd's fault queue on the mock device.
 *
 * Each one does one system call. They return 0 (or a count, where it says so)
 * or -errno, so that a test states the error it wants:
 *
 *	EXPECT_EQ(-EBUSY, iommufd_destroy(self->fd, hwpt_id));
 */
#ifndef __SELFTEST_IOMMUFD_FAULT_UTILS_H
#define __SELFTEST_IOMMUFD_FAULT_UTILS_H

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../../../../drivers/iommu/iommufd/iommufd_test_iopf.h"
#include "iommufd_fdinfo.h"

static inline int iommufd_call(int fd, unsigned long request, void *cmd)
{
	return ioctl(fd, request, cmd) ? -errno : 0;
}

static inline int iommufd_destroy(int fd, uint32_t id)
{
	struct iommu_destroy cmd = { .size = sizeof(cmd), .id = id };

	return iommufd_call(fd, IOMMU_DESTROY, &cmd);
}

static inline int ioas_alloc(int fd, uint32_t *ioas_id)
{
	struct iommu_ioas_alloc cmd = { .size = sizeof(cmd) };
	int rc = iommufd_call(fd, IOMMU_IOAS_ALLOC, &cmd);

	if (!rc)
		*ioas_id = cmd.out_ioas_id;
	return rc;
}

static inline int ioas_map(int fd, uint32_t ioas_id, uint64_t iova, const void *va,
			   uint64_t length, uint32_t flags)
{
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | flags,
		.ioas_id = ioas_id,
		.user_va = (uintptr_t)va,
		.length = length,
		.iova = iova,
	};

	return iommufd_call(fd, IOMMU_IOAS_MAP, &cmd);
}

static inline int ioas_unmap(int fd, uint32_t ioas_id, uint64_t iova, uint64_t length)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd),
		.ioas_id = ioas_id,
		.iova = iova,
		.length = length,
	};

	return iommufd_call(fd, IOMMU_IOAS_UNMAP, &cmd);
}

/* The fault queue: its object and its file. */

/* @fields: what is asked for, without the size. */
static inline int fault_queue_alloc_fields(int fd, const struct iommu_fault_alloc *fields,
					   uint32_t *fault_id, int *fault_fd)
{
	struct iommu_fault_alloc cmd = *fields;
	int rc;

	cmd.size = sizeof(cmd);
	rc = iommufd_call(fd, IOMMU_FAULT_QUEUE_ALLOC, &cmd);
	if (rc)
		return rc;
	*fault_id = cmd.out_fault_id;
	*fault_fd = cmd.out_fault_fd;
	return 0;
}

static inline int fault_queue_alloc_flags(int fd, uint32_t flags, uint32_t *fault_id,
					  int *fault_fd)
{
	struct iommu_fault_alloc fields = { .flags = flags };

	return fault_queue_alloc_fields(fd, &fields, fault_id, fault_fd);
}

static inline int fault_queue_alloc(int fd, uint32_t *fault_id, int *fault_fd)
{
	return fault_queue_alloc_flags(fd, 0, fault_id, fault_fd);
}

/* Whether the kernel has more than Linux's own fault queue. */
static inline bool fault_additions(int fd)
{
	uint32_t id;
	int file;

	if (fault_queue_alloc_flags(fd, IOMMU_FAULT_ALLOC_BLOCKING, &id, &file))
		return false;
	close(file);
	return !iommufd_destroy(fd, id);
}

/* Returns the bytes read. */
static inline ssize_t fault_read_bytes(int fault_fd, void *buffer, size_t bytes)
{
	ssize_t rc = read(fault_fd, buffer, bytes);

	return rc < 0 ? -errno : rc;
}

/* Returns the messages read into the @room of @faults. */
static inline ssize_t fault_read(int fault_fd, struct iommu_hwpt_pgfault *faults, size_t room)
{
	ssize_t rc = fault_read_bytes(fault_fd, faults, room * sizeof(*faults));

	return rc < 0 ? rc : rc / (ssize_t)sizeof(*faults);
}

/* Returns the bytes written. */
static inline ssize_t fault_write_bytes(int fault_fd, const void *buffer, size_t bytes)
{
	ssize_t rc = write(fault_fd, buffer, bytes);

	return rc < 0 ? -errno : rc;
}

/* Returns the answers taken. */
static inline ssize_t fault_write(int fault_fd, const struct iommu_hwpt_page_response *answers,
				  size_t nr)
{
	ssize_t rc = fault_write_bytes(fault_fd, answers, nr * sizeof(*answers));

	return rc < 0 ? rc : rc / (ssize_t)sizeof(*answers);
}

static inline int fault_answer(int fault_fd, uint32_t cookie, uint32_t code)
{
	struct iommu_hwpt_page_response answer = { .cookie = cookie, .code = code };
	ssize_t rc = fault_write(fault_fd, &answer, 1);

	return rc < 0 ? rc : rc == 1 ? 0 : -EIO;
}

/*
 * IOMMU_FAULT_SERVE: give @answers of @nr, take messages into the @room of @faults.
 * What it says of both is in @cmd, also after an error.
 */
static inline int fault_serve(int fault_fd, struct iommu_fault_serve *cmd,
			      const struct iommu_hwpt_page_response *answers, uint32_t nr,
			      struct iommu_hwpt_pgfault *faults, uint32_t room,
			      uint64_t timeout_ns)
{
	*cmd = (struct iommu_fault_serve){
		.size = sizeof(*cmd),
		.responses_uptr = (uintptr_t)answers,
		.messages_uptr = (uintptr_t)faults,
		.response_num = nr,
		.message_num = room,
		.timeout_ns = timeout_ns,
	};

	return iommufd_call(fault_fd, IOMMU_FAULT_SERVE, cmd);
}

/* Returns the events of a file that are there before @timeout_ms is over. */
static inline int fault_poll(int fault_fd, int timeout_ms)
{
	struct pollfd pfd = { .fd = fault_fd, .events = POLLIN | POLLOUT };
	int rc = poll(&pfd, 1, timeout_ms);

	return rc < 0 ? -errno : pfd.revents;
}

/* HWPTs. @fault_id counts if @flags has IOMMU_HWPT_FAULT_ID_VALID. */

static inline int hwpt_alloc(int fd, uint32_t idev_id, uint32_t pt_id, uint32_t flags,
			     uint32_t fault_id, uint32_t data_type, const void *data,
			     size_t data_len, uint32_t *hwpt_id)
{
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.dev_id = idev_id,
		.pt_id = pt_id,
		.data_type = data_type,
		.data_len = data_len,
		.data_uptr = (uintptr_t)data,
		.fault_id = fault_id,
	};
	int rc = iommufd_call(fd, IOMMU_HWPT_ALLOC, &cmd);

	if (!rc)
		*hwpt_id = cmd.out_hwpt_id;
	return rc;
}

static inline int hwpt_alloc_paging(int fd, uint32_t idev_id, uint32_t ioas_id, uint32_t flags,
				    uint32_t fault_id, uint32_t *hwpt_id)
{
	return hwpt_alloc(fd, idev_id, ioas_id, flags, fault_id, IOMMU_HWPT_DATA_NONE, NULL, 0,
			  hwpt_id);
}

/* @parent_id is a paging HWPT with IOMMU_HWPT_ALLOC_NEST_PARENT. */
static inline int hwpt_alloc_nested(int fd, uint32_t idev_id, uint32_t parent_id, uint32_t flags,
				    uint32_t fault_id, uint32_t *hwpt_id)
{
	struct iommu_hwpt_selftest data = { .iotlb = IOMMU_TEST_IOTLB_DEFAULT };

	return hwpt_alloc(fd, idev_id, parent_id, flags, fault_id, IOMMU_HWPT_DATA_SELFTEST, &data,
			  sizeof(data), hwpt_id);
}

/* Mock devices. */

struct mock_device {
	uint32_t stdev_id; /* destroy this one to destroy the device */
	uint32_t idev_id;
	uint32_t hwpt_id; /* what the creation attached */
};

/* A new device with MOCK_FLAGS_DEVICE_*, attached to the IOAS or HWPT @pt_id. */
static inline int mock_device_create(int fd, uint32_t pt_id, uint32_t dev_flags,
				     struct mock_device *dev)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS,
		.id = pt_id,
		.mock_domain_flags.dev_flags = dev_flags,
	};
	int rc = iommufd_call(fd, IOMMU_TEST_CMD, &cmd);

	if (rc)
		return rc;
	dev->stdev_id = cmd.mock_domain_flags.out_stdev_id;
	dev->idev_id = cmd.mock_domain_flags.out_idev_id;
	dev->hwpt_id = cmd.mock_domain_flags.out_hwpt_id;
	return 0;
}

static inline int mock_replace(int fd, uint32_t stdev_id, uint32_t pt_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE,
		.id = stdev_id,
		.mock_domain_replace.pt_id = pt_id,
	};

	return iommufd_call(fd, IOMMU_TEST_CMD, &cmd);
}

static inline int mock_pasid_attach(int fd, uint32_t stdev_id, uint32_t pasid, uint32_t pt_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_PASID_ATTACH,
		.id = stdev_id,
		.pasid_attach = { .pasid = pasid, .pt_id = pt_id },
	};

	return iommufd_call(fd, IOMMU_TEST_CMD, &cmd);
}

static inline int mock_pasid_replace(int fd, uint32_t stdev_id, uint32_t pasid, uint32_t pt_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_PASID_REPLACE,
		.id = stdev_id,
		.pasid_replace = { .pasid = pasid, .pt_id = pt_id },
	};

	return iommufd_call(fd, IOMMU_TEST_CMD, &cmd);
}

static inline int mock_pasid_detach(int fd, uint32_t stdev_id, uint32_t pasid)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_PASID_DETACH,
		.id = stdev_id,
		.pasid_detach.pasid = pasid,
	};

	return iommufd_call(fd, IOMMU_TEST_CMD, &cmd);
}

/* 0 if the driver has @hwpt_id (0: nothing) at @pasid, -EINVAL if another. */
static inline int mock_pasid_check(int fd, uint32_t stdev_id, uint32_t pasid, uint32_t hwpt_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_PASID_CHECK_HWPT,
		.id = stdev_id,
		.pasid_check = { .pasid = pasid, .hwpt_id = hwpt_id },
	};

	return iommufd_call(fd, IOMMU_TEST_CMD, &cmd);
}

/* Let the driver's next installation at @pasid fail with -ENOMEM. */
static inline int mock_pasid_fail_next(int fd, uint32_t stdev_id, uint32_t pasid)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_PASID_FAIL_NEXT,
		.id = stdev_id,
		.pasid_fail_next.pasid = pasid,
	};

	return iommufd_call(fd, IOMMU_TEST_CMD, &cmd);
}

/* Returns out_max_pasid_log2. */
static inline int mock_max_pasid_log2(int fd, uint32_t idev_id)
{
	struct iommu_hw_info cmd = { .size = sizeof(cmd), .dev_id = idev_id };
	int rc = iommufd_call(fd, IOMMU_GET_HW_INFO, &cmd);

	return rc ?: cmd.out_max_pasid_log2;
}

/* Page requests of mock devices; see iommufd_test_iopf.h. */

/* One request that is its group's last; @pasid 0 sends none. */
static inline int iopf_trigger(int fd, uint32_t idev_id, uint32_t pasid, uint32_t grpid,
			       uint32_t perm, uint64_t addr)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_TRIGGER_IOPF,
		.trigger_iopf = {
			.dev_id = idev_id,
			.pasid = pasid,
			.grpid = grpid,
			.perm = perm,
			.addr = addr,
		},
	};

	return iommufd_call(fd, IOMMU_TEST_CMD, &cmd);
}

static inline int iopf_batch(int fd, struct iommu_test_iopf_batch *batch)
{
	struct iommu_test_iopf_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_IOPF_BATCH,
		.arg = (uintptr_t)batch,
		.arg_size = sizeof(*batch),
	};

	return iommufd_call(fd, IOMMU_TEST_CMD, &cmd);
}

/* @groups groups of @requests requests from one device under one PASID (0: none). */
static inline int iopf_inject(int fd, uint32_t idev_id, uint32_t pasid, uint32_t grpid,
			      uint64_t addr, uint32_t groups, uint32_t requests, uint32_t flags)
{
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)&idev_id,
		.addr = addr,
		.nr_devs = 1,
		.flags = flags,
		.groups = groups,
		.requests = requests,
		.grpid = grpid,
		.pasid = pasid,
		.nr_pasids = 1,
		.perm = IOMMU_PGFAULT_PERM_READ | IOMMU_PGFAULT_PERM_WRITE,
	};

	return iopf_batch(fd, &batch);
}

static inline int iopf_stats_flags(int fd, uint32_t idev_id, uint32_t flags,
				   struct iommu_test_iopf_stats *stats)
{
	struct iommu_test_iopf_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_IOPF_STATS,
		.id = idev_id,
		.flags = flags,
		.arg = (uintptr_t)stats,
		.arg_size = sizeof(*stats),
	};

	return iommufd_call(fd, IOMMU_TEST_CMD, &cmd);
}

static inline int iopf_event(int fd, uint32_t idev_id, enum iommu_test_iopf_event event)
{
	struct iommu_test_iopf_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_IOPF_EVENT,
		.id = idev_id,
		.flags = event,
	};

	return iommufd_call(fd, IOMMU_TEST_CMD, &cmd);
}

/* Counters of a device, or (@idev_id 0) of all devices that have gone away. */
static inline int iopf_stats(int fd, uint32_t idev_id, struct iommu_test_iopf_stats *stats)
{
	return iopf_stats_flags(fd, idev_id, 0, stats);
}

static inline int iopf_stats_reset(int fd, uint32_t idev_id)
{
	struct iommu_test_iopf_stats stats;

	return iopf_stats_flags(fd, idev_id, IOMMU_TEST_IOPF_STATS_RESET, &stats);
}

/* Faults that a driver reports; see iommufd_test_iopf.h. */

/* A mock driver of the device, or of an emulated one (@idev_id 0) */
static inline int driver_open_as(int fd, uint32_t idev_id, bool silent, uint32_t *dev_id,
				 int *driver_fd)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_DRIVER_OPEN,
		.id = idev_id,
		.driver_open = { .silent = silent },
	};
	int rc = iommufd_call(fd, IOMMU_TEST_CMD, &cmd);

	if (rc)
		return rc;
	*dev_id = cmd.driver_open.out_dev_id;
	*driver_fd = cmd.driver_open.out_fd;
	return 0;
}

static inline int driver_open(int fd, uint32_t idev_id, uint32_t *dev_id, int *driver_fd)
{
	return driver_open_as(fd, idev_id, false, dev_id, driver_fd);
}

static inline int fault_bind(int fd, uint32_t dev_id, uint32_t fault_id)
{
	struct iommu_fault_bind cmd = {
		.size = sizeof(cmd),
		.dev_id = dev_id,
		.fault_id = fault_id,
	};

	return iommufd_call(fd, IOMMU_FAULT_BIND, &cmd);
}

#endif
