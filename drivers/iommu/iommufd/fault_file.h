/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The file of a fault object
 */
#ifndef __IOMMUFD_FAULT_FILE_H
#define __IOMMUFD_FAULT_FILE_H

struct file;
struct iommufd_fault;

struct file *iommufd_fault_file_create(struct iommufd_fault *fault);

/* fault_serve.c */
long iommufd_fault_file_ioctl(struct file *filep, unsigned int op, unsigned long arg);

#endif
