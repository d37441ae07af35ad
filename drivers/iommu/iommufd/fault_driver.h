/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Faults that device drivers find
 */
#ifndef __IOMMUFD_FAULT_DRIVER_H
#define __IOMMUFD_FAULT_DRIVER_H

#include "attach.h"

struct iommufd_access;
struct iommufd_fault;
struct iommufd_ucmd;

/**
 * struct iommufd_fault_source - A fault object bound to an emulated device
 * @fault: the object; the source is one of its users
 * @attachment: the device, in no handle's list
 */
struct iommufd_fault_source {
	struct iommufd_fault *fault;
	struct iommufd_attachment attachment;
};

int iommufd_fault_bind(struct iommufd_ucmd *ucmd);
void iommufd_fault_unbind(struct iommufd_access *access,
			  struct iommufd_fault_source *source);

#endif
