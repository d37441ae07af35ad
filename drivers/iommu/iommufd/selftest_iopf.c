// SPDX-License-Identifier: GPL-2.0-only
/*
 * The mock device's page requests: injecting them, alone and in batches, and
 * checking that each group gets exactly one answer.
 *
 * A group is "open" from just before its last request is handed to the core
 * until an answer with its PASID and group id comes. Several groups may be
 * open under the same two numbers. Batches bring the memory for this along, so
 * that a benchmark's clock sees no allocation.
 */
#include <linux/ktime.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "iommufd_private.h"
#include "selftest_mock.h"

static_assert(sizeof(struct iommu_test_iopf_cmd) == sizeof(struct iommu_test_cmd));

/* One device of a batch, and its entries for the groups to come. */
struct batch_dev {
	struct iommufd_device *idev;
	struct hlist_head entries;
};

/* Sum of the devices that have gone away. */
static struct iommu_test_iopf_stats gone_stats;
static DEFINE_SPINLOCK(gone_lock);

void iommufd_mock_init(struct device *dev, struct mock_state *state,
		       struct rw_semaphore *attach_rwsem)
{
	state->attach_rwsem = attach_rwsem;
	xa_init(&state->installed);
	xa_init(&state->attached);
	spin_lock_init(&state->lock);
	dev_set_drvdata(dev, state);
}

static void free_groups(struct hlist_head *head)
{
	struct mock_group *group;
	struct hlist_node *next;

	hlist_for_each_entry_safe(group, next, head, node)
		kfree(group);
}

static void add_to_gone(const struct iommu_test_iopf_stats *stats)
{
	unsigned int code;

	spin_lock(&gone_lock);
	gone_stats.requests += stats->requests;
	gone_stats.groups += stats->groups;
	for (code = 0; code != ARRAY_SIZE(stats->responses); code++)
		gone_stats.responses[code] += stats->responses[code];
	gone_stats.bad_codes += stats->bad_codes;
	gone_stats.unmatched += stats->unmatched;
	gone_stats.outstanding += stats->outstanding;
	gone_stats.forgotten += stats->forgotten;
	spin_unlock(&gone_lock);
}

void iommufd_mock_release(struct mock_state *state)
{
	unsigned int i;

	add_to_gone(&state->stats);
	for (i = 0; i != ARRAY_SIZE(state->open); i++)
		free_groups(&state->open[i]);
	free_groups(&state->spare);
	xa_destroy(&state->installed);
	xa_destroy(&state->attached);
}

static struct mock_group *pop_group(struct hlist_head *head)
{
	struct mock_group *group = hlist_entry_safe(head->first, struct mock_group, node);

	if (group)
		hlist_del(&group->node);
	return group;
}

/* Bring @nr entries to @entries, spare ones of the device first. */
static int reserve_groups(struct mock_state *state, struct hlist_head *entries, unsigned int nr)
{
	struct mock_group *group;

	for (; nr; nr--) {
		spin_lock(&state->lock);
		group = pop_group(&state->spare);
		spin_unlock(&state->lock);
		if (!group)
			group = kmalloc(sizeof(*group), GFP_KERNEL);
		if (!group)
			return -ENOMEM;
		hlist_add_head(&group->node, entries);
	}
	return 0;
}

static void unreserve_groups(struct mock_state *state, struct hlist_head *entries)
{
	struct mock_group *group;

	spin_lock(&state->lock);
	while ((group = pop_group(entries)))
		hlist_add_head(&group->node, &state->spare);
	spin_unlock(&state->lock);
}

/* Hand a request to the core; the last one of a group takes one of @entries. */
static int inject(struct device *dev, struct iopf_fault *evt, struct hlist_head *entries)
{
	const struct iommu_fault_page_request *prm = &evt->fault.prm;
	struct mock_state *state = dev_get_drvdata(dev);
	struct mock_group *group;

	spin_lock(&state->lock);
	state->stats.requests++;
	if (prm->flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE) {
		group = pop_group(entries);
		group->pasid = prm->pasid;
		group->grpid = prm->grpid;
		hlist_add_head(&group->node, mock_open_bucket(state, prm->pasid, prm->grpid));
		state->stats.groups++;
		state->stats.outstanding++;
	}
	spin_unlock(&state->lock);

	return iommu_report_device_fault(dev, evt);
}

/* One request from IOMMU_TEST_OP_TRIGGER_IOPF, which hides the core's verdict. */
int iommufd_mock_trigger_iopf(struct device *dev, struct iopf_fault *evt)
{
	struct mock_state *state = dev_get_drvdata(dev);
	HLIST_HEAD(entries);
	int rc;

	rc = reserve_groups(state, &entries, 1);
	if (rc)
		return rc;
	down_read(state->attach_rwsem);
	inject(dev, evt, &entries);
	up_read(state->attach_rwsem);
	unreserve_groups(state, &entries);
	return 0;
}

void iommufd_mock_page_response(struct device *dev, const struct iopf_fault *evt,
				const struct iommu_page_response *resp)
{
	struct mock_state *state = dev_get_drvdata(dev);

	spin_lock(&state->lock);
	mock_take_answer(state, resp);
	mock_note_answer(state, evt, resp);
	spin_unlock(&state->lock);
}

static int check_batch(const struct iommu_test_iopf_batch *batch)
{
	const u32 own_flags = IOMMU_FAULT_PAGE_REQUEST_PASID_VALID |
			      IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;

	if (batch->flags & ~(IOMMU_TEST_IOPF_NO_LAST | IOMMU_TEST_IOPF_INTERLEAVE |
			     IOMMU_TEST_IOPF_UNLOCKED))
		return -EOPNOTSUPP;
	if (!batch->nr_devs || batch->nr_devs > IOMMU_TEST_IOPF_MAX_DEVS ||
	    !batch->nr_pasids || (batch->pasid == IOMMU_NO_PASID && batch->nr_pasids != 1) ||
	    (batch->prm_flags & own_flags))
		return -EINVAL;
	if (!batch->groups || !batch->requests ||
	    (u64)batch->groups * batch->requests > IOMMU_TEST_IOPF_MAX_REQUESTS)
		return -EINVAL;
	return 0;
}

/* The @i-th request of the batch, and the device it comes from. */
static struct batch_dev *batch_request(const struct iommu_test_iopf_batch *batch,
				       struct batch_dev *devs, u32 i, struct iopf_fault *evt)
{
	struct iommu_fault_page_request *prm = &evt->fault.prm;
	bool interleave = batch->flags & IOMMU_TEST_IOPF_INTERLEAVE;
	u32 group = interleave ? i % batch->groups : i / batch->requests;
	u32 nth = interleave ? i / batch->groups : i % batch->requests;

	*evt = (struct iopf_fault){ .fault.type = IOMMU_FAULT_PAGE_REQ };
	prm->flags = batch->prm_flags;
	if (nth == batch->requests - 1 && !(batch->flags & IOMMU_TEST_IOPF_NO_LAST))
		prm->flags |= IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	if (batch->pasid != IOMMU_NO_PASID) {
		prm->flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
		prm->pasid = batch->pasid + group / batch->nr_devs % batch->nr_pasids;
	}
	prm->grpid = batch->grpid + group;
	prm->perm = batch->perm;
	prm->addr = batch->addr + (u64)i * PAGE_SIZE;
	return &devs[group % batch->nr_devs];
}

static int run_batch(struct iommu_test_iopf_batch *batch, struct batch_dev *devs)
{
	u32 i, nr = batch->groups * batch->requests;
	u64 begin = ktime_get_ns();

	for (i = 0; i != nr; i++) {
		struct iopf_fault evt;
		struct batch_dev *from = batch_request(batch, devs, i, &evt);
		struct device *dev = from->idev->dev;
		struct mock_state *state = dev_get_drvdata(dev);

		if (!(batch->flags & IOMMU_TEST_IOPF_UNLOCKED))
			down_read(state->attach_rwsem);
		if (!inject(dev, &evt, &from->entries))
			batch->out_accepted++;
		if (!(batch->flags & IOMMU_TEST_IOPF_UNLOCKED))
			up_read(state->attach_rwsem);
		if (i % 256 == 255) {
			if (fatal_signal_pending(current))
				return -EINTR;
			cond_resched();
		}
	}
	batch->out_elapsed = ktime_get_ns() - begin;
	return 0;
}

/* The device with an idev id; the caller puts it back. */
struct iommufd_device *iommufd_mock_get(struct iommufd_ucmd *ucmd, u32 id)
{
	struct iommufd_device *idev = iommufd_get_device(ucmd, id);

	if (IS_ERR(idev) || iommufd_selftest_is_mock_dev(idev->dev))
		return idev;
	iommufd_put_object(ucmd->ictx, &idev->obj);
	return ERR_PTR(-EINVAL);
}

static int get_batch_devs(struct iommufd_ucmd *ucmd, const struct iommu_test_iopf_batch *batch,
			  struct batch_dev *devs)
{
	u32 __user *ids = u64_to_user_ptr(batch->dev_ids);
	u32 i, id, share = DIV_ROUND_UP(batch->groups, batch->nr_devs);
	int rc;

	for (i = 0; i != batch->nr_devs; i++) {
		struct iommufd_device *idev;

		if (get_user(id, &ids[i]))
			return -EFAULT;
		idev = iommufd_mock_get(ucmd, id);
		if (IS_ERR(idev))
			return PTR_ERR(idev);
		devs[i].idev = idev;
		rc = reserve_groups(dev_get_drvdata(idev->dev), &devs[i].entries, share);
		if (rc)
			return rc;
	}
	return 0;
}

static void put_batch_devs(struct iommufd_ucmd *ucmd, struct batch_dev *devs, u32 nr_devs)
{
	for (; nr_devs && devs->idev; nr_devs--, devs++) {
		unreserve_groups(dev_get_drvdata(devs->idev->dev), &devs->entries);
		iommufd_put_object(ucmd->ictx, &devs->idev->obj);
	}
}

int iommufd_mock_iopf_batch(struct iommufd_ucmd *ucmd, const struct iommu_test_iopf_cmd *cmd)
{
	void __user *arg = u64_to_user_ptr(cmd->arg);
	struct iommu_test_iopf_batch batch;
	struct batch_dev *devs;
	int rc;

	rc = copy_struct_from_user(&batch, sizeof(batch), arg, cmd->arg_size);
	if (!rc)
		rc = check_batch(&batch);
	if (rc)
		return rc;
	batch.out_accepted = 0;

	devs = kcalloc(batch.nr_devs, sizeof(*devs), GFP_KERNEL);
	if (!devs)
		return -ENOMEM;
	rc = get_batch_devs(ucmd, &batch, devs);
	if (!rc)
		rc = run_batch(&batch, devs);
	put_batch_devs(ucmd, devs, batch.nr_devs);
	kfree(devs);
	if (!rc && copy_to_user(arg, &batch, min_t(size_t, sizeof(batch), cmd->arg_size)))
		rc = -EFAULT;
	return rc;
}

static void take_stats(spinlock_t *lock, struct iommu_test_iopf_stats *stats,
		       struct iommu_test_iopf_stats *copy, bool reset, bool keep_outstanding)
{
	spin_lock(lock);
	*copy = *stats;
	if (reset)
		*stats = (struct iommu_test_iopf_stats){
			.outstanding = keep_outstanding ? copy->outstanding : 0,
		};
	spin_unlock(lock);
}

static int test_stats(struct iommufd_ucmd *ucmd, const struct iommu_test_iopf_cmd *cmd)
{
	bool reset = cmd->flags & IOMMU_TEST_IOPF_STATS_RESET;
	struct iommu_test_iopf_stats copy;
	struct iommufd_device *idev;
	struct mock_state *state;

	if (cmd->flags & ~IOMMU_TEST_IOPF_STATS_RESET)
		return -EOPNOTSUPP;
	if (!cmd->id) {
		take_stats(&gone_lock, &gone_stats, &copy, reset, false);
	} else {
		idev = iommufd_mock_get(ucmd, cmd->id);
		if (IS_ERR(idev))
			return PTR_ERR(idev);
		state = dev_get_drvdata(idev->dev);
		take_stats(&state->lock, &state->stats, &copy, reset, true);
		iommufd_put_object(ucmd->ictx, &idev->obj);
	}
	if (copy_to_user(u64_to_user_ptr(cmd->arg), &copy,
			 min_t(size_t, sizeof(copy), cmd->arg_size)))
		return -EFAULT;
	return 0;
}

int iommufd_mock_iopf_test(struct iommufd_ucmd *ucmd)
{
	const struct iommu_test_iopf_cmd *cmd = ucmd->cmd;

	switch (cmd->op) {
	case IOMMU_TEST_OP_IOPF_BATCH:
		return iommufd_mock_iopf_batch(ucmd, cmd);
	case IOMMU_TEST_OP_IOPF_STATS:
		return test_stats(ucmd, cmd);
	default:
		return -EOPNOTSUPP;
	}
}
