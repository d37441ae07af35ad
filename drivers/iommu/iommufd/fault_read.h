/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From the queue to a reader's memory
 */
#ifndef __IOMMUFD_FAULT_READ_H
#define __IOMMUFD_FAULT_READ_H

#include "fault.h"

struct iov_iter;

ssize_t iommufd_fault_read(struct iommufd_fault *fault, struct iov_iter *to, size_t room);
ssize_t iommufd_fault_read_on(struct iommufd_fault *fault, struct iov_iter *to, size_t room,
			      size_t done);
u32 iommufd_fault_first(struct iommufd_fault *fault);

#endif
