// SPDX-License-Identifier: GPL-2.0-only
/*
 * SVA, for a test: a process hands its memory to a device that it has opened by way of
 * VFIO. Drivers of accelerators let it do so; the emulated device has no such driver.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/iommu.h>

#include "iommufd_private.h"
#include "selftest_mock.h"

static int sva_release(struct inode *inode, struct file *filep)
{
	iommu_sva_unbind_device(filep->private_data);
	return 0;
}

static const struct file_operations sva_fops = {
	.owner = THIS_MODULE,
	.release = sva_release,
};

static int sva_install(const struct iommu_test_iopf_cmd *cmd, struct file *filep)
{
	struct iommu_test_sva sva = { .pasid = iommu_sva_get_pasid(filep->private_data) };
	int fd = get_unused_fd_flags(O_CLOEXEC);

	if (fd < 0)
		return fd;
	sva.fd = fd;
	if (copy_to_user(u64_to_user_ptr(cmd->arg), &sva,
			 min_t(size_t, sizeof(sva), cmd->arg_size))) {
		put_unused_fd(fd);
		return -EFAULT;
	}
	fd_install(fd, filep);
	return 0;
}

/*
 * IOMMU_TEST_OP_SVA_BIND: until the descriptor is closed, which has to be before VFIO's
 * is, the device may use the caller's memory.
 */
int iommufd_test_sva_bind(struct iommufd_ucmd *ucmd)
{
	const struct iommu_test_iopf_cmd *cmd = ucmd->cmd;
	struct iommufd_device *idev;
	struct iommu_sva *handle;
	struct file *filep;
	int rc;

	idev = iommufd_get_device(ucmd, cmd->id);
	if (IS_ERR(idev))
		return PTR_ERR(idev);
	handle = iommu_sva_bind_device(idev->dev, current->mm);
	iommufd_put_object(ucmd->ictx, &idev->obj);
	if (IS_ERR(handle))
		return PTR_ERR(handle);

	filep = anon_inode_getfile("[iommufd_test_sva]", &sva_fops, handle, O_RDWR);
	if (IS_ERR(filep)) {
		iommu_sva_unbind_device(handle);
		return PTR_ERR(filep);
	}
	rc = sva_install(cmd, filep);
	if (rc)
		fput(filep);
	return rc;
}
