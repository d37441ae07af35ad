/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The coming and going of a fault object, and its id
 */
#ifndef __IOMMUFD_FAULT_OBJECT_H
#define __IOMMUFD_FAULT_OBJECT_H

#include "fault.h"
#include "iommufd_private.h"

/**
 * struct iommufd_fault_id - The id of a fault object in an iommufd context
 * @obj: the iommufd object
 * @fault: what is behind it; holds a reference
 * @filep: the file, only valid until the allocation is finished
 */
struct iommufd_fault_id {
	struct iommufd_object obj;
	struct iommufd_fault *fault;
	struct file *filep;
};

static inline struct iommufd_fault *iommufd_obj_to_fault(struct iommufd_object *obj)
{
	return container_of(obj, struct iommufd_fault_id, obj)->fault;
}

/* The caller lets go with iommufd_put_object() of &iommufd_fault.obj. */
static inline struct iommufd_fault *
iommufd_get_fault(struct iommufd_ucmd *ucmd, u32 id)
{
	struct iommufd_object *obj;

	obj = iommufd_get_object(ucmd->ictx, id, IOMMUFD_OBJ_FAULT);
	return IS_ERR(obj) ? ERR_CAST(obj) : iommufd_obj_to_fault(obj);
}

int iommufd_fault_alloc(struct iommufd_ucmd *ucmd);
void iommufd_fault_destroy(struct iommufd_object *obj);
void iommufd_fault_leave(struct iommufd_fault *fault);
void iommufd_fault_put(struct iommufd_fault *fault);
void iommufd_fault_put_hwpt(struct iommufd_fault *fault);
struct iommufd_fault *iommufd_fault_alloc_closed(void);

#endif
