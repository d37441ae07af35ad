// SPDX-License-Identifier: GPL-2.0-only
/*
 * A mock driver that finds faults itself, for a mock device or for a mediated
 * device of its own making. Its file is the driver: what it reported ends with
 * the file, as with a driver that is unbound.
 */
#include <linux/anon_inodes.h>
#include <linux/device.h>
#include <linux/file.h>
#include <linux/iommufd.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "iommufd_private.h"
#include "iommufd_test.h"
#include "selftest_mock.h"

/* One fault; the callback writes @code before @done. */
struct mock_fault {
	struct iommufd_driver_fault *handle;
	bool withdrawn;
	u32 code;
	atomic_t done;
};

/**
 * struct mock_driver - A file
 * @ictx: the context; the file keeps it
 * @idev: the device, which the test destroys after the file, or
 * @access: the mediated device, which ends with the file
 * @parent: for @access
 * @lock: protects @faults but for what the callback writes
 * @faults: IOMMU_TEST_DRIVER_FAULTS faults
 */
struct mock_driver {
	struct iommufd_ctx *ictx;
	struct iommufd_device *idev;
	struct iommufd_access *access;
	struct device *parent;
	struct mutex lock;	/* protects faults */
	struct mock_fault *faults;
};

static const struct iommufd_access_ops mock_access_ops;

static void mock_driver_done(void *data, enum iommu_page_response_code code)
{
	struct mock_fault *fault = data;

	fault->code = code;
	atomic_inc_return_release(&fault->done);
}

static int mock_driver_report(struct mock_driver *driver, struct mock_fault *fault,
			      const struct iommu_test_driver_fault *arg)
{
	struct iommufd_fault_report report = {
		.dev = driver->idev ? driver->idev->dev : driver->parent,
		.iova = arg->iova,
		.length = arg->length,
		.perm = arg->perm,
		.pasid = arg->pasid,
		.done = mock_driver_done,
		.data = fault,
	};
	struct iommufd_driver_fault *handle;

	if (fault->handle)
		return -EBUSY;

	handle = driver->idev ? iommufd_device_report_fault(driver->idev, &report) :
				iommufd_access_report_fault(driver->access, &report);
	if (IS_ERR(handle))
		return PTR_ERR(handle);
	fault->handle = handle;
	return 0;
}

static void mock_driver_state(struct mock_fault *fault, struct iommu_test_driver_fault *arg)
{
	arg->out_done = atomic_read_acquire(&fault->done);
	arg->out_code = fault->code;
	if (!fault->handle)
		arg->out_state = IOMMU_TEST_DRIVER_FREE;
	else if (fault->withdrawn)
		arg->out_state = IOMMU_TEST_DRIVER_WITHDRAWN;
	else
		arg->out_state = arg->out_done ? IOMMU_TEST_DRIVER_DONE :
						 IOMMU_TEST_DRIVER_PENDING;
}

static int mock_driver_run(struct mock_driver *driver, unsigned int cmd,
			   struct iommu_test_driver_fault *arg)
{
	struct mock_fault *fault;
	int rc = 0;

	if (arg->index >= IOMMU_TEST_DRIVER_FAULTS || arg->__reserved)
		return -EINVAL;
	fault = &driver->faults[arg->index];

	mutex_lock(&driver->lock);
	switch (cmd) {
	case IOMMU_TEST_DRIVER_REPORT:
		rc = mock_driver_report(driver, fault, arg);
		break;
	case IOMMU_TEST_DRIVER_WITHDRAW:
		if (fault->handle)
			fault->withdrawn = iommufd_withdraw_fault(fault->handle);
		else
			rc = -ENOENT;
		break;
	case IOMMU_TEST_DRIVER_STATE:
		break;
	default:
		rc = -ENOTTY;
	}
	mock_driver_state(fault, arg);
	mutex_unlock(&driver->lock);
	return rc;
}

static long mock_driver_ioctl(struct file *filep, unsigned int cmd, unsigned long uptr)
{
	struct iommu_test_driver_fault arg;
	int rc;

	if (copy_from_user(&arg, (void __user *)uptr, sizeof(arg)))
		return -EFAULT;
	rc = mock_driver_run(filep->private_data, cmd, &arg);
	if (!rc && copy_to_user((void __user *)uptr, &arg, sizeof(arg)))
		rc = -EFAULT;
	return rc;
}

static int mock_driver_release(struct inode *inode, struct file *filep)
{
	struct mock_driver *driver = filep->private_data;
	struct mock_fault *fault = driver->faults;
	unsigned int i;

	for (i = 0; i != IOMMU_TEST_DRIVER_FAULTS; i++, fault++) {
		if (!fault->handle)
			continue;
		WARN_ON(iommufd_withdraw_fault(fault->handle) == !!atomic_read(&fault->done));
		iommufd_driver_fault_put(fault->handle);
	}
	if (driver->access)
		iommufd_access_destroy(driver->access);
	if (driver->parent)
		root_device_unregister(driver->parent);
	iommufd_ctx_put(driver->ictx);
	kvfree(driver->faults);
	kfree(driver);
	return 0;
}

static const struct file_operations mock_driver_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = mock_driver_ioctl,
	.release = mock_driver_release,
};

/* From here on mock_driver_release() undoes everything. */
static struct file *mock_driver_file(struct iommufd_ctx *ictx)
{
	struct mock_driver *driver;
	struct file *filep;

	driver = kzalloc_obj(*driver, GFP_KERNEL_ACCOUNT);
	if (!driver)
		return ERR_PTR(-ENOMEM);
	driver->faults = kvcalloc(IOMMU_TEST_DRIVER_FAULTS, sizeof(*driver->faults),
				  GFP_KERNEL_ACCOUNT);
	if (!driver->faults) {
		kfree(driver);
		return ERR_PTR(-ENOMEM);
	}
	mutex_init(&driver->lock);

	filep = anon_inode_getfile("[iommufd_mock_driver]", &mock_driver_fops, driver, O_RDWR);
	if (IS_ERR(filep)) {
		kvfree(driver->faults);
		kfree(driver);
		return filep;
	}
	iommufd_ctx_get(ictx);
	driver->ictx = ictx;
	return filep;
}

static int mock_driver_set_device(struct mock_driver *driver, struct iommufd_ucmd *ucmd, u32 id)
{
	struct iommufd_device *idev = iommufd_get_device(ucmd, id);
	int rc = 0;

	if (IS_ERR(idev))
		return PTR_ERR(idev);
	if (iommufd_selftest_is_mock_dev(idev->dev))
		driver->idev = idev;
	else
		rc = -EINVAL;
	iommufd_put_object(ucmd->ictx, &idev->obj);
	return rc;
}

static int mock_driver_make_access(struct mock_driver *driver, bool silent, u32 *id)
{
	static atomic_t number = ATOMIC_INIT(0);
	struct iommufd_access *access;
	struct device *parent;
	char name[32];

	snprintf(name, sizeof(name), "iommufd_mock_mdev%d", atomic_inc_return(&number));
	parent = root_device_register(name);
	if (IS_ERR(parent))
		return PTR_ERR(parent);
	driver->parent = parent;

	access = iommufd_access_create(driver->ictx, &mock_access_ops, driver, id);
	if (IS_ERR(access))
		return PTR_ERR(access);
	driver->access = access;
	if (!silent)
		iommufd_access_reports_faults(access);
	return 0;
}

/* IOMMU_TEST_OP_DRIVER_OPEN */
int iommufd_mock_driver_open(struct iommufd_ucmd *ucmd)
{
	struct iommu_test_cmd *cmd = ucmd->cmd;
	struct mock_driver *driver;
	struct file *filep;
	int fd, rc;

	filep = mock_driver_file(ucmd->ictx);
	if (IS_ERR(filep))
		return PTR_ERR(filep);
	driver = filep->private_data;

	cmd->driver_open.out_dev_id = cmd->id;
	rc = cmd->id ? mock_driver_set_device(driver, ucmd, cmd->id) :
		       mock_driver_make_access(driver, cmd->driver_open.silent,
					       &cmd->driver_open.out_dev_id);
	if (rc)
		goto err_put;

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		rc = fd;
		goto err_put;
	}
	cmd->driver_open.out_fd = fd;
	rc = iommufd_ucmd_respond(ucmd, sizeof(*cmd));
	if (rc) {
		put_unused_fd(fd);
		goto err_put;
	}
	fd_install(fd, filep);
	return 0;

err_put:
	fput(filep);
	return rc;
}
