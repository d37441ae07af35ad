/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From an answer to the hardware
 */
#ifndef __IOMMUFD_FAULT_ANSWER_H
#define __IOMMUFD_FAULT_ANSWER_H

#include "fault.h"

struct iov_iter;

/**
 * struct iommufd_fault_exchanged - What iommufd_fault_exchange() has done
 * @given: answers that were given
 * @taken: messages that were taken, or why the next answer was not given
 */
struct iommufd_fault_exchanged {
	u32 given;
	int taken;
};

unsigned int iommufd_fault_write(struct iommufd_fault *fault, struct iov_iter *from,
				 size_t count, int *rc);
struct iommufd_fault_exchanged
iommufd_fault_exchange(struct iommufd_fault *fault,
		       const struct iommu_hwpt_page_response __user *from, size_t count,
		       struct iommu_hwpt_pgfault __user *to, size_t room);
void iommufd_fault_settle(struct iommufd_fault *fault, struct iommufd_attachment *attachment,
			  enum iommu_page_response_code code);
void iommufd_fault_close(struct iommufd_fault *fault);
bool iommufd_fault_claim(struct iommufd_fault *fault, struct iopf_group *group);
void iommufd_fault_finish(struct iommufd_fault *fault, struct iopf_group *group,
			  enum iommu_page_response_code code);
void iommufd_fault_work(struct work_struct *work);

#endif
