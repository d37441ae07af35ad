// SPDX-License-Identifier: GPL-2.0-only
/*
 * PASIDs of the mock device: the driver's two operations, which record what is
 * installed where, and the test operations that attach, replace, detach and
 * compare with that record.
 */
#include "iommufd_private.h"
#include "selftest_mock.h"

/*
 * A device that joined its group after the PASID was attached has nothing there:
 * the core only tells those that are there at the time.
 */
static bool is_installed(void *installed, struct iommu_domain *domain)
{
	return !installed || installed == domain;
}

int iommufd_mock_set_dev_pasid(struct iommu_domain *domain, struct device *dev, ioasid_t pasid,
			       struct iommu_domain *old)
{
	struct mock_state *state = dev_get_drvdata(dev);

	WARN_ON(!is_installed(xa_load(&state->installed, pasid), old));
	if (state->fail_pasid == pasid) {
		state->fail_pasid = IOMMU_NO_PASID;
		return -ENOMEM;
	}
	return xa_err(xa_store(&state->installed, pasid, domain, GFP_KERNEL));
}

void iommufd_mock_remove_dev_pasid(struct device *dev, ioasid_t pasid,
				   struct iommu_domain *domain)
{
	struct mock_state *state = dev_get_drvdata(dev);

	WARN_ON(!is_installed(xa_erase(&state->installed, pasid), domain));
}

/*
 * A group's PASIDs are installed on all of its devices, but each device detaches
 * only what was attached through it: hence the record of these beside the driver's.
 */
static int pasid_attach(struct iommufd_device *idev, ioasid_t pasid, u32 *pt_id)
{
	struct mock_state *state = dev_get_drvdata(idev->dev);
	bool again = xa_load(&state->attached, pasid);
	int rc;

	rc = xa_err(xa_store(&state->attached, pasid, idev, GFP_KERNEL));
	if (rc)
		return rc;
	rc = iommufd_device_attach(idev, pasid, pt_id);
	if (rc && !again)
		xa_erase(&state->attached, pasid);
	return rc;
}

static void pasid_detach(struct iommufd_device *idev, ioasid_t pasid)
{
	struct mock_state *state = dev_get_drvdata(idev->dev);

	if (xa_erase(&state->attached, pasid))
		iommufd_device_detach(idev, pasid);
}

/* For the destruction of the device; @alone says that its group has no other. */
void iommufd_mock_detach_pasids(struct iommufd_device *idev, bool alone)
{
	struct mock_state *state = dev_get_drvdata(idev->dev);
	unsigned long pasid;
	void *entry;

	xa_for_each(&state->attached, pasid, entry)
		pasid_detach(idev, pasid);
	WARN_ON(alone && !xa_empty(&state->installed));
}

/* Is @hwpt_id's domain, or nothing if it is 0, what the driver has at @pasid? */
static int pasid_check(struct iommufd_ucmd *ucmd, struct mock_state *state, ioasid_t pasid,
		       u32 hwpt_id)
{
	struct iommu_domain *domain = NULL;
	struct iommufd_object *obj = NULL;
	int rc;

	if (hwpt_id) {
		obj = iommufd_get_object(ucmd->ictx, hwpt_id, IOMMUFD_OBJ_ANY);
		if (IS_ERR(obj))
			return PTR_ERR(obj);
		if (obj->type != IOMMUFD_OBJ_HWPT_PAGING && obj->type != IOMMUFD_OBJ_HWPT_NESTED) {
			rc = -ENOENT;
			goto out_put;
		}
		domain = container_of(obj, struct iommufd_hw_pagetable, obj)->domain;
	}
	rc = xa_load(&state->installed, pasid) == domain ? 0 : -EINVAL;
out_put:
	if (obj)
		iommufd_put_object(ucmd->ictx, obj);
	return rc;
}

/* The test operations for the device @idev, which the caller holds. */
int iommufd_mock_pasid_test(struct iommufd_ucmd *ucmd, struct iommufd_device *idev)
{
	struct mock_state *state = dev_get_drvdata(idev->dev);
	struct iommu_test_cmd *cmd = ucmd->cmd;
	int rc;

	down_write(state->attach_rwsem);
	switch (cmd->op) {
	case IOMMU_TEST_OP_PASID_ATTACH:
		rc = -EINVAL;
		if (cmd->pasid_attach.pasid != IOMMU_NO_PASID)
			rc = pasid_attach(idev, cmd->pasid_attach.pasid, &cmd->pasid_attach.pt_id);
		break;
	case IOMMU_TEST_OP_PASID_REPLACE:
		rc = -EINVAL;
		if (cmd->pasid_replace.pasid != IOMMU_NO_PASID)
			rc = iommufd_device_replace(idev, cmd->pasid_replace.pasid,
						    &cmd->pasid_replace.pt_id);
		break;
	case IOMMU_TEST_OP_PASID_DETACH:
		pasid_detach(idev, cmd->pasid_detach.pasid);
		rc = 0;
		break;
	case IOMMU_TEST_OP_PASID_CHECK_HWPT:
		rc = pasid_check(ucmd, state, cmd->pasid_check.pasid, cmd->pasid_check.hwpt_id);
		break;
	case IOMMU_TEST_OP_PASID_FAIL_NEXT:
		state->fail_pasid = cmd->pasid_fail_next.pasid;
		rc = 0;
		break;
	default:
		rc = -EOPNOTSUPP;
	}
	up_write(state->attach_rwsem);
	return rc ?: iommufd_ucmd_respond(ucmd, sizeof(*cmd));
}
