/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Page requests one by one
 */
#ifndef __IOMMUFD_FAULT_IMMEDIATE_H
#define __IOMMUFD_FAULT_IMMEDIATE_H

#include "fault.h"

struct iov_iter;

int iommufd_fault_part_add(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			   struct iopf_group *group);
bool iommufd_fault_part_end(struct iommufd_fault *fault, struct iommufd_fault_slot *slot);
bool iommufd_fault_part_drop(struct iommufd_fault *fault, struct iommufd_fault_slot *slot);
int iommufd_fault_part_refuse(const struct iommufd_fault *fault,
			      const struct iommufd_fault_slot *slot);
ssize_t iommufd_fault_read_parts(struct iommufd_fault *fault, struct iov_iter *to, size_t room);

#endif
