/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who waits for groups
 */
#ifndef __IOMMUFD_FAULT_WAKE_H
#define __IOMMUFD_FAULT_WAKE_H

#include "fault.h"

void iommufd_fault_init_wake(struct iommufd_fault *fault);
void iommufd_fault_stop_wake(struct iommufd_fault *fault);
void iommufd_fault_wake(struct iommufd_fault *fault);
void iommufd_fault_wake_next(struct iommufd_fault *fault);
int iommufd_fault_wait(struct iommufd_fault *fault, ktime_t *until);
void iommufd_fault_hang_up(struct iommufd_fault *fault);

#endif
