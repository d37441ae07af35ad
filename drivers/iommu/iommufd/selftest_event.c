// SPDX-License-Identifier: GPL-2.0-only
/*
 * What else happens to the mock device's page requests: many are answered at once, the
 * hardware queue overflows, the device is reset.
 */
#include <linux/rcupdate.h>

#include "iommufd_private.h"
#include "selftest_mock.h"

void iommufd_mock_page_response_batch(struct iommu_device *iommu,
				      const struct iopf_answer *answers, unsigned int count)
{
	const struct iopf_answer *answer = answers, *end = answers + count;
	const struct iommu_fault_param *param;
	struct iommu_page_response resp;
	const struct iopf_fault *evt;
	struct mock_state *state;

	while (answer < end) {
		param = answer->group->fault_param;
		state = dev_get_drvdata(param->dev);
		spin_lock(&state->lock);
		/* As many as are for the same device in a row */
		do {
			evt = &answer->group->last_fault;
			resp.pasid = evt->fault.prm.pasid;
			resp.grpid = evt->fault.prm.grpid;
			resp.code = answer->code;
			mock_take_answer(state, &resp);
		} while (++answer < end && answer->group->fault_param == param);
		mock_note_answer(state, evt, &resp);
		spin_unlock(&state->lock);
	}
}

/* The queue outlives its devices. */
static struct iopf_queue *event_queue(struct device *dev)
{
	struct iommu_fault_param *param;
	struct iopf_queue *queue = NULL;

	rcu_read_lock();
	param = rcu_dereference(dev->iommu->fault_param);
	if (param)
		queue = param->queue;
	rcu_read_unlock();
	return queue;
}

/* The device waits for no answer any more. */
static void event_reset(struct device *dev)
{
	struct mock_state *state = dev_get_drvdata(dev);
	struct mock_group *group;
	struct hlist_node *next;
	unsigned int i;

	iopf_device_reset(dev);

	spin_lock(&state->lock);
	for (i = 0; i != ARRAY_SIZE(state->open); i++) {
		hlist_for_each_entry_safe(group, next, &state->open[i], node) {
			hlist_del(&group->node);
			hlist_add_head(&group->node, &state->spare);
		}
	}
	state->stats.forgotten += state->stats.outstanding;
	state->stats.outstanding = 0;
	spin_unlock(&state->lock);
}

/**
 * iommufd_mock_iopf_event() - IOMMU_TEST_OP_IOPF_EVENT
 * @ucmd: the ioctl, with a struct iommu_test_iopf_cmd
 *
 * Return: 0, -ENODEV if the device has no page requests enabled, or an error.
 */
int iommufd_mock_iopf_event(struct iommufd_ucmd *ucmd)
{
	const struct iommu_test_iopf_cmd *cmd = ucmd->cmd;
	struct iommufd_device *idev;
	struct iopf_queue *queue;
	int rc = 0;

	idev = iommufd_mock_get(ucmd, cmd->id);
	if (IS_ERR(idev))
		return PTR_ERR(idev);

	queue = event_queue(idev->dev);
	if (!queue)
		rc = -ENODEV;
	else if (cmd->flags == IOMMU_TEST_IOPF_OVERFLOW)
		rc = iopf_queue_discard_partial(queue);
	else if (cmd->flags == IOMMU_TEST_IOPF_RESET)
		event_reset(idev->dev);
	else
		rc = -EOPNOTSUPP;
	iommufd_put_object(ucmd->ictx, &idev->obj);
	return rc;
}
