// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the I/O page fault core: the IOMMUs, their devices and the handler
 */
#include <linux/seq_file.h>

#include "io-pgfault-test.h"

/* The driver */

static struct iommu_device *test_probe_device(struct device *dev)
{
	return &((struct test_iommu *)dev_get_drvdata(dev))->iommu;
}

/* The device faults as soon as it has moved, or is not moved, once. */
static int test_switch(struct device *dev, ioasid_t pasid)
{
	struct test_iommu *ti = dev_get_drvdata(dev);
	int rc = 0;
	struct iopf_fault evt = {
		.fault.type = IOMMU_FAULT_PAGE_REQ,
		.fault.prm.pasid = pasid,
		.fault.prm.grpid = 98,
		.fault.prm.flags = IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE,
	};

	if (pasid != IOMMU_NO_PASID)
		evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
	if (ti && ti->switch_request)
		iommu_report_device_fault(dev, &evt);
	if (ti)
		swap(rc, ti->switch_error);
	return rc;
}

static int test_attach_dev(struct iommu_domain *domain, struct device *dev,
			   struct iommu_domain *old)
{
	return test_switch(dev, IOMMU_NO_PASID);
}

static int test_set_dev_pasid(struct iommu_domain *domain, struct device *dev,
			      ioasid_t pasid, struct iommu_domain *old)
{
	return test_switch(dev, pasid);
}

static int test_block_dev_pasid(struct iommu_domain *domain, struct device *dev,
				ioasid_t pasid, struct iommu_domain *old)
{
	return 0;
}

static void test_page_response(struct device *dev, struct iopf_fault *evt,
			       struct iommu_page_response *resp)
{
	struct test_iommu *ti = dev_get_drvdata(dev);

	/* As hardware may: whoever answers under a spinlock is told. */
	might_sleep();
	spin_lock(&ti->lock);
	ti->responses[resp->code]++;
	ti->last = *resp;
	spin_unlock(&ti->lock);
}

static void test_page_response_batch(struct iommu_device *iommu,
				     const struct iopf_answer *answers, unsigned int count)
{
	struct test_iommu *ti = container_of(iommu, struct test_iommu, iommu);
	unsigned int i;

	might_sleep();
	spin_lock(&ti->lock);
	ti->batches++;
	for (i = 0; i < count; i++)
		ti->responses[answers[i].code]++;
	spin_unlock(&ti->lock);
}

/* What the hardware queue holds, if anything, is reported by the first drain. */
static void test_page_drain(struct device *dev)
{
	struct iopf_fault evt = {
		.fault.type = IOMMU_FAULT_PAGE_REQ,
		.fault.prm.grpid = 99,
		.fault.prm.flags = IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE,
	};
	struct test_iommu *ti = dev_get_drvdata(dev);

	if (!ti->drains++ && ti->late_request)
		iommu_report_device_fault(dev, &evt);
}

const struct iommu_domain_ops iopf_test_domain_ops = {
	.attach_dev = test_attach_dev,
	.set_dev_pasid = test_set_dev_pasid,
};

static struct iommu_domain test_default_domain = {
	.type = IOMMU_DOMAIN_IDENTITY,
	.ops = &iopf_test_domain_ops,
};

static struct iommu_domain test_blocked_domain = {
	.type = IOMMU_DOMAIN_BLOCKED,
	.ops = &(const struct iommu_domain_ops){ .set_dev_pasid = test_block_dev_pasid },
};

static const struct iommu_ops test_ops = {
	.probe_device = test_probe_device,
	.device_group = generic_device_group,
	.blocked_domain = &test_blocked_domain,
	.page_response = test_page_response,
	.page_response_batch = test_page_response_batch,
	.page_drain = test_page_drain,
	.default_domain = &test_default_domain,
};

/* The handler */

static struct iopf_test *test_of(struct iommu_attach_handle *handle)
{
	return container_of(handle->domain, struct iopf_test, domain);
}

static int test_handler(struct iopf_group *group)
{
	struct iopf_test *ft = test_of(group->attach_handle);

	int rc;

	spin_lock_bh(&ft->lock);
	rc = ft->handler_error;
	if (!rc) {
		ft->queued++;
		if (ft->domain.iopf_ops->request && group->fault_count > 1)
			ft->closed++;
		else
			list_add_tail(&group->node, &ft->held);
	}
	spin_unlock_bh(&ft->lock);
	return rc;
}

static int test_request(struct iopf_group *group)
{
	struct iopf_test *ft = test_of(group->attach_handle);

	spin_lock_bh(&ft->lock);
	ft->requests++;
	if (!ft->request_error && group->fault_count == 1)
		list_add_tail(&group->node, &ft->held);
	spin_unlock_bh(&ft->lock);
	return ft->request_error;
}

static void test_recall(struct iopf_group *group, enum iopf_cause cause)
{
	struct iopf_test *ft = test_of(group->attach_handle);

	spin_lock_bh(&ft->lock);
	ft->recalled[cause]++;
	list_move_tail(&group->node, &ft->recalled_groups);
	spin_unlock_bh(&ft->lock);
}

static void test_lost(struct iommu_attach_handle *handle, enum iopf_cause cause)
{
	struct iopf_test *ft = test_of(handle);

	spin_lock_bh(&ft->lock);
	ft->lost[cause]++;
	spin_unlock_bh(&ft->lock);
}

static const struct iopf_handler_ops test_handler_ops = {
	.recall = test_recall,
	.lost = test_lost,
};

const struct iopf_handler_ops iopf_test_immediate_ops = {
	.request = test_request,
	.recall = test_recall,
	.lost = test_lost,
};

/* What the tests do and see */

unsigned int iopf_test_answer(struct iopf_test *ft, enum iommu_page_response_code code)
{
	struct iopf_answer answers[TEST_BATCH];
	unsigned int won = 0, n;
	struct iopf_group *group;

	do {
		n = 0;
		spin_lock_bh(&ft->lock);
		while (n < TEST_BATCH && !list_empty(&ft->held)) {
			group = list_first_entry(&ft->held, struct iopf_group, node);
			list_del(&group->node);
			if (iopf_group_claim(group))
				answers[n++] = (struct iopf_answer){ group, code };
			else
				iopf_free_group(group);
		}
		spin_unlock_bh(&ft->lock);
		iopf_answer_groups(answers, n);
		iopf_free_groups(answers, n);
		won += n;
	} while (n == TEST_BATCH);
	return won;
}

void iopf_test_free_recalled(struct iopf_test *ft)
{
	struct iopf_group *group, *next;

	list_for_each_entry_safe(group, next, &ft->recalled_groups, node)
		iopf_free_group(group);
	INIT_LIST_HEAD(&ft->recalled_groups);
}

void iopf_test_set_credits(struct kunit *test, unsigned int credits)
{
	struct iopf_test *ft = test->priv;
	struct iopf_queue *queue = ft->iommus[0].queue;

	iopf_queue_remove_device(queue, test_dev(ft, 0));
	queue->credits = credits;
	KUNIT_ASSERT_EQ(test, iopf_queue_add_device(queue, test_dev(ft, 0)), 0);
}

long long iopf_test_counter(struct kunit *test, const char *name)
{
	struct seq_file file = { .private = test_fdev(test->priv), .size = PAGE_SIZE };
	char *line, *text = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	size_t length = strlen(name);
	long long value = -1;

	KUNIT_ASSERT_NOT_NULL(test, text);
	file.buf = text;
	iopf_counters_show(&file, NULL);
	text[min(file.count, PAGE_SIZE - 1)] = 0;
	while ((line = strsep(&text, "\n"))) {
		if (!strncmp(line, name, length) && line[length] == ' ')
			KUNIT_EXPECT_EQ(test, kstrtoll(line + length + 1, 10, &value), 0);
	}
	return value;
}

/* Putting it up and taking it down */

static struct platform_device *test_add_device(struct test_iommu *ti, unsigned int id)
{
	static const struct property_entry properties[] = {
		PROPERTY_ENTRY_U32("pasid-num-bits", 8),
		{ }
	};
	struct iommu_fwspec *fwspec = kzalloc(struct_size(fwspec, ids, 1), GFP_KERNEL);
	struct dev_iommu *iommu = kzalloc(sizeof(*iommu), GFP_KERNEL);
	struct platform_device *pdev = platform_device_alloc("iopf-test", id);

	if (!fwspec || !iommu || !pdev) {
		kfree(fwspec);
		kfree(iommu);
		platform_device_put(pdev);
		return NULL;
	}
	/* As firmware code would: from now on they belong to the IOMMU core. */
	mutex_init(&iommu->lock);
	fwspec->iommu_fwnode = fwnode_handle_get(ti->iommu.fwnode);
	iommu->fwspec = fwspec;
	pdev->dev.iommu = iommu;
	platform_set_drvdata(pdev, ti);
	if (device_create_managed_software_node(&pdev->dev, properties, NULL) ||
	    platform_device_add(pdev)) {
		platform_device_put(pdev);
		return NULL;
	}
	return pdev;
}

static int test_add_iommu(struct iopf_test *ft, struct test_iommu *ti, unsigned int id)
{
	int rc;

	spin_lock_init(&ti->lock);
	ti->iommu.max_pasids = 1 << 8;
	ti->iommu.fwnode = fwnode_create_software_node(NULL, NULL);
	if (IS_ERR(ti->iommu.fwnode))
		return PTR_ERR(ti->iommu.fwnode);
	rc = iommu_device_sysfs_add(&ti->iommu, NULL, NULL, "iopf-test-iommu%u", id);
	if (rc)
		return rc;
	rc = iommu_device_register(&ti->iommu, &ft->ops, NULL);
	if (rc)
		return rc;
	ti->queue = iopf_queue_alloc("test");
	ti->pdev = test_add_device(ti, id);
	if (!ti->queue || !ti->pdev || !ti->pdev->dev.iommu_group)
		return -ENOMEM;
	rc = iopf_queue_add_device(ti->queue, &ti->pdev->dev);
	return rc ?: iommu_attach_group_handle(&ft->domain, ti->pdev->dev.iommu_group,
					       &ti->rid);
}

int iopf_test_init(struct kunit *test)
{
	struct iopf_test *ft = kunit_kzalloc(test, sizeof(*ft), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, ft);
	test->priv = ft;
	iopf_reserve = TEST_RESERVE;
	spin_lock_init(&ft->lock);
	INIT_LIST_HEAD(&ft->held);
	INIT_LIST_HEAD(&ft->recalled_groups);
	ft->ops = test_ops;
	ft->domain = (struct iommu_domain){
		.type = IOMMU_DOMAIN_UNMANAGED,
		.ops = &iopf_test_domain_ops,
		.owner = &ft->ops,
		.iopf_handler = test_handler,
		.iopf_ops = &test_handler_ops,
	};
	for (i = 0; i < TEST_IOMMUS; i++)
		KUNIT_ASSERT_EQ(test, test_add_iommu(ft, &ft->iommus[i], i), 0);
	for (i = 0; i < TEST_PASIDS; i++)
		KUNIT_ASSERT_EQ(test, iommu_attach_device_pasid(&ft->domain, test_dev(ft, 0),
								i + 1, &ft->pasids[i]), 0);
	return 0;
}

/* Also after a test that went wrong; what the set-up did not reach is not there. */
void iopf_test_exit(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct test_iommu *ti;
	unsigned int i;

	iopf_reserve = 0;
	if (!ft || !ft->iommus[TEST_IOMMUS - 1].rid.domain)
		return;
	iopf_test_answer(ft, IOMMU_PAGE_RESP_INVALID);
	iopf_test_free_recalled(ft);
	for (i = 0; i < TEST_PASIDS; i++)
		iommu_detach_device_pasid(&ft->domain, test_dev(ft, 0), i + 1);
	for (i = 0; i < TEST_IOMMUS; i++) {
		ti = &ft->iommus[i];
		iommu_detach_group_handle(&ft->domain, ti->pdev->dev.iommu_group);
		iopf_queue_free(ti->queue);
		platform_device_unregister(ti->pdev);
		iommu_device_unregister(&ti->iommu);
		iommu_device_sysfs_remove(&ti->iommu);
		fwnode_remove_software_node(ti->iommu.fwnode);
	}
}
