// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the I/O page fault core
 *
 * Two IOMMUs are registered like real ones, with a device and a fault queue each.
 * A domain is attached to the devices' RIDs and to two PASIDs of the first one.
 * Its handler keeps the groups, and the IOMMUs count what they are answered.
 */
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/hash.h>
#include <linux/ktime.h>
#include <linux/kthread.h>
#include <linux/platform_device.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>

#include "iommu-priv.h"
#include "io-pgfault.h"

#define TEST_IOMMUS	2
#define TEST_PASIDS	2
#define TEST_BATCH	64

struct test_iommu {
	struct iommu_device iommu;
	struct iopf_queue *queue;
	struct platform_device *pdev;
	struct iommu_attach_handle rid;

	spinlock_t lock;	/* the answers below */
	unsigned int responses[IOPF_NR_CODES];
	unsigned int batches;
	unsigned int drains;
	bool late_request;
	bool switch_request;
	int switch_error;
	struct iommu_page_response last;
};

struct iopf_test {
	struct test_iommu iommus[TEST_IOMMUS];
	struct iommu_ops ops;
	struct iommu_domain domain;
	struct iommu_attach_handle pasids[TEST_PASIDS];

	spinlock_t lock;	/* what the handler knows: all below */
	struct list_head held;
	struct list_head recalled_groups;
	unsigned int queued;
	unsigned int requests;
	unsigned int closed;
	unsigned int recalled[IOPF_NR_CAUSES];
	unsigned int lost[IOPF_NR_CAUSES];
	int request_error;
	int handler_error;
};

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

static int test_attach_dev(struct iommu_domain *domain, struct device *dev)
{
	return test_switch(dev, IOMMU_NO_PASID);
}

static int test_set_dev_pasid(struct iommu_domain *domain, struct device *dev,
			      ioasid_t pasid, struct iommu_domain *old)
{
	return test_switch(dev, pasid);
}

static void test_remove_dev_pasid(struct device *dev, ioasid_t pasid,
				  struct iommu_domain *domain)
{
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

static const struct iommu_domain_ops test_domain_ops = {
	.attach_dev = test_attach_dev,
	.set_dev_pasid = test_set_dev_pasid,
};

static struct iommu_domain test_default_domain = {
	.type = IOMMU_DOMAIN_IDENTITY,
	.ops = &test_domain_ops,
};

static const struct iommu_ops test_ops = {
	.probe_device = test_probe_device,
	.device_group = generic_device_group,
	.remove_dev_pasid = test_remove_dev_pasid,
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

static const struct iopf_handler_ops test_immediate_ops = {
	.request = test_request,
	.recall = test_recall,
	.lost = test_lost,
};

/* What the tests do and see */

static struct device *test_dev(struct iopf_test *ft, unsigned int i)
{
	return &ft->iommus[i].pdev->dev;
}

static struct iopf_device *test_fdev(struct iopf_test *ft)
{
	return to_iopf_device(rcu_access_pointer(test_dev(ft, 0)->iommu->fault_param));
}

static struct iopf_fault test_request_of(ioasid_t pasid, u32 grpid, bool last)
{
	struct iopf_fault evt = {
		.fault.type = IOMMU_FAULT_PAGE_REQ,
		.fault.prm = { .pasid = pasid, .grpid = grpid },
	};

	if (pasid != IOMMU_NO_PASID)
		evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
	if (last)
		evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	return evt;
}

static int test_report(struct iopf_test *ft, unsigned int i, ioasid_t pasid, u32 grpid,
		       bool last)
{
	struct iopf_fault evt = test_request_of(pasid, grpid, last);

	return iommu_report_device_fault(test_dev(ft, i), &evt);
}

static int test_partial(struct iopf_test *ft, u32 grpid)
{
	return test_report(ft, 0, IOMMU_NO_PASID, grpid, false);
}

static int test_last(struct iopf_test *ft, u32 grpid)
{
	return test_report(ft, 0, IOMMU_NO_PASID, grpid, true);
}

/* The newest group that the handler holds */
static struct iopf_group *test_newest(struct iopf_test *ft)
{
	return list_last_entry(&ft->held, struct iopf_group, node);
}

/* Answer what the handler holds. Returns how many groups could be claimed. */
static unsigned int test_answer(struct iopf_test *ft, enum iommu_page_response_code code)
{
	struct iopf_answer answers[TEST_BATCH];
	unsigned int won = 0, n;
	struct iopf_group *group;
	LIST_HEAD(done);

	do {
		n = 0;
		spin_lock_bh(&ft->lock);
		while (n < TEST_BATCH && !list_empty(&ft->held)) {
			group = list_first_entry(&ft->held, struct iopf_group, node);
			list_move_tail(&group->node, &done);
			if (iopf_group_claim(group))
				answers[n++] = (struct iopf_answer){ group, code };
		}
		spin_unlock_bh(&ft->lock);
		iopf_answer_groups(answers, n);
		iopf_free_groups(&done);
		won += n;
	} while (n == TEST_BATCH);
	return won;
}

static unsigned int test_responses(struct iopf_test *ft, unsigned int i)
{
	unsigned int *responses = ft->iommus[i].responses;

	return responses[IOMMU_PAGE_RESP_SUCCESS] + responses[IOMMU_PAGE_RESP_INVALID] +
	       responses[IOMMU_PAGE_RESP_FAILURE];
}

static unsigned int test_invalid(struct iopf_test *ft)
{
	return ft->iommus[0].responses[IOMMU_PAGE_RESP_INVALID];
}

/* Let the first device join its queue again with so many credits. */
static void test_set_credits(struct kunit *test, unsigned int credits)
{
	struct iopf_test *ft = test->priv;
	struct iopf_queue *queue = ft->iommus[0].queue;

	iopf_queue_remove_device(queue, test_dev(ft, 0));
	queue->credits = credits;
	KUNIT_ASSERT_EQ(test, iopf_queue_add_device(queue, test_dev(ft, 0)), 0);
}

/* What the file in debugfs says of @name, or -1 */
static long long test_counter(struct kunit *test, const char *name)
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

/* Groups */

static void one_group_one_answer(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, ft->queued, 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_ASSERT_EQ(test, ft->queued, 1);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 3);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&test_newest(ft)->faults), 3);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_FAILURE), 1);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].responses[IOMMU_PAGE_RESP_FAILURE], 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);
}

/* A last request without others, and one that comes twice */
static void last_alone(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

static void id_reused_before_answer(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

static void interleaved_groups(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	u32 i, grpid;

	for (i = 0; i < 5; i++) {
		for (grpid = 0; grpid < 8; grpid++)
			KUNIT_EXPECT_EQ(test, test_partial(ft, grpid), 0);
	}
	for (grpid = 8; grpid--;) {
		KUNIT_EXPECT_EQ(test, test_last(ft, grpid), 0);
		KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 6);
		KUNIT_EXPECT_EQ(test, test_newest(ft)->last_fault.fault.prm.grpid, grpid);
	}
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 8);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 8);
}

/* One group id without a PASID and on two: three groups */
static void one_id_two_pasids(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	ioasid_t pasid;

	for (pasid = 0; pasid <= TEST_PASIDS; pasid++) {
		KUNIT_EXPECT_EQ(test, test_report(ft, 0, pasid, 7, false), 0);
		KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, pasid + 1);
	}
	for (pasid = 0; pasid <= TEST_PASIDS; pasid++) {
		KUNIT_EXPECT_EQ(test, test_report(ft, 0, pasid, 7, true), 0);
		KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
		KUNIT_EXPECT_PTR_EQ(test, test_newest(ft)->attach_handle,
				    pasid ? &ft->pasids[pasid - 1] : &ft->iommus[0].rid);
	}
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1 + TEST_PASIDS);
}

/* Requests that are not the last are never answered, the last one always is. */
static void nobody_handles(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	ioasid_t pasid = TEST_PASIDS + 1;

	KUNIT_EXPECT_EQ(test, test_report(ft, 0, pasid, 7, false), 0);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, pasid, 7, true), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].last.pasid, pasid);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].last.grpid, 7);

	iopf_queue_remove_device(ft->iommus[0].queue, test_dev(ft, 0));
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -ENODEV);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -ENODEV);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 2);
	KUNIT_EXPECT_EQ(test, ft->queued, 0);
	iopf_queue_add_device(ft->iommus[0].queue, test_dev(ft, 0));
}

/* A request that the driver refuses takes its whole group with it. */
static void refused_by_driver(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_fault evt = {
		.fault.type = IOMMU_FAULT_PAGE_REQ,
		.fault.prm.grpid = 7,
		.fault.prm.flags = IOMMU_FAULT_PAGE_REQUEST_REFUSED,
	};

	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, iommu_report_device_fault(test_dev(ft, 0), &evt), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
	KUNIT_EXPECT_NE(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);

	evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, iommu_report_device_fault(test_dev(ft, 0), &evt), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 2);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	KUNIT_EXPECT_EQ(test, ft->queued, 0);
}

/* Where user space owns the PASID table, the RID's domain stands for all PASIDs. */
static void nested_takes_all_pasids(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->ops.user_pasid_table = 1;
	ft->domain.type = IOMMU_DOMAIN_NESTED;
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 77, 7, true), 0);
	KUNIT_ASSERT_EQ(test, ft->queued, 1);
	KUNIT_EXPECT_PTR_EQ(test, test_newest(ft)->attach_handle, &ft->iommus[0].rid);
}

/* How many groups a look-up meets, summed over all that are there */
static unsigned int test_visits(struct iopf_device *fdev)
{
	unsigned int i, length, visits = 0;
	struct iopf_group *group;

	for (i = 0; i < 1U << fdev->partial_bits; i++) {
		length = 0;
		hlist_for_each_entry(group, &fdev->partial[i], partial_node)
			visits += ++length;
	}
	return visits;
}

static u64 test_time_last(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	u64 begin, least = U64_MAX;
	unsigned int i;

	for (i = 0; i < 16; i++) {
		KUNIT_ASSERT_EQ(test, test_partial(ft, 5000 + i), 0);
		begin = ktime_get_ns();
		KUNIT_ASSERT_EQ(test, test_last(ft, 5000 + i), 0);
		least = min(least, ktime_get_ns() - begin);
		KUNIT_ASSERT_EQ(test, test_newest(ft)->fault_count, 2);
		test_answer(ft, IOMMU_PAGE_RESP_SUCCESS);
	}
	return least;
}

/*
 * The last request must cost the same with 4096 other groups as with one. How
 * long it takes is printed, for a machine whose clock counts instructions; what
 * is judged here is how many groups a look-up meets.
 */
static void last_among_many(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	u64 among_one, among_many;
	u32 grpid;

	KUNIT_ASSERT_EQ(test, test_partial(ft, 0), 0);
	among_one = test_time_last(test);
	for (grpid = 1; grpid < 4096; grpid++)
		KUNIT_ASSERT_EQ(test, test_partial(ft, grpid), 0);
	among_many = test_time_last(test);

	kunit_info(test, "iopf last request among 1: %llu ns, among 4096: %llu ns\n",
		   among_one, among_many);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 4096);
	KUNIT_EXPECT_LE(test, test_visits(test_fdev(ft)), 2 * 4096);
}

/*
 * Ids that an adversary has chosen for one bucket of a hash without a key: how many
 * groups a look-up meets is as with any others.
 */
static void chosen_ids(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	unsigned int bits = test_fdev(ft)->partial_bits, n = 0;
	u32 grpid;

	for (grpid = 0; n < 1024; grpid++) {
		if (hash_64((u64)grpid << 32 | IOMMU_PASID_INVALID, bits))
			continue;
		KUNIT_ASSERT_EQ(test, test_partial(ft, grpid), 0);
		n++;
	}
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, n);
	KUNIT_EXPECT_LE(test, test_visits(test_fdev(ft)), 2 * n);
}

/* Without a PASID and with PASID 0: two groups, and one stop marker ends one. */
static void no_pasid_and_pasid_0(struct kunit *test)
{
	struct iopf_fault evt = test_request_of(0, 7, false);
	struct iopf_test *ft = test->priv;

	evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, iommu_report_device_fault(test_dev(ft, 0), &evt), 0);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 2);
	iopf_discard_pasid(test_dev(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 1);
	evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;
	KUNIT_EXPECT_EQ(test, iommu_report_device_fault(test_dev(ft, 0), &evt), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
	iopf_discard_pasid(test_dev(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);

	KUNIT_EXPECT_EQ(test, test_partial(ft, 8), 0);
	iopf_discard_pasid(test_dev(ft, 0), IOMMU_PASID_INVALID);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
}

/* Bounds */

static void no_room_for_group(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev;
	u32 i, room;

	test_set_credits(test, 8);
	fdev = test_fdev(ft);
	room = fdev->limit - IOPF_VOID_GROUPS;
	for (i = 0; i < room; i++)
		KUNIT_ASSERT_EQ(test, test_last(ft, i), 0);
	KUNIT_EXPECT_EQ(test, fdev->allocated, fdev->limit);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);

	KUNIT_EXPECT_EQ(test, test_last(ft, i), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, fdev->count.no_room, 1);
	KUNIT_EXPECT_EQ(test, ft->lost[IOPF_CAUSE_NO_ROOM], 1);
	KUNIT_EXPECT_EQ(test, fdev->count.depth_peak, room);

	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), room);
	KUNIT_EXPECT_EQ(test, test_last(ft, i), 0);
	KUNIT_EXPECT_EQ(test, fdev->allocated, fdev->limit);
}

/* A group that lost a request is not answered as if it were complete. */
static void no_room_for_request(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev;
	unsigned int i;

	test_set_credits(test, 8);
	fdev = test_fdev(ft);
	KUNIT_ASSERT_EQ(test, test_partial(ft, 1), 0);
	for (i = 0; i < fdev->limit - 1; i++)
		KUNIT_ASSERT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -ENOMEM);
	KUNIT_EXPECT_EQ(test, fdev->count.partials, 2);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, ft->queued, 0);

	/* The others, and the next one with that id, are as good as ever. */
	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
}

/* Which group is void is known exactly, as long as the device keeps to its credits. */
static void void_by_pasid(struct kunit *test)
{
	struct iopf_fault evt = test_request_of(1, 7, false);
	struct iopf_test *ft = test->priv;

	evt.fault.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_REFUSED;
	KUNIT_EXPECT_EQ(test, iommu_report_device_fault(test_dev(ft, 0), &evt), -EINVAL);
	/* The same id without a PASID and with another one, and other ids with this one */
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, true), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7 + 1024, true), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, false), -ENOMEM);
	KUNIT_EXPECT_NE(test, test_report(ft, 0, 1, 7, true), 0);
	KUNIT_EXPECT_EQ(test, ft->queued, 3);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	/* The next one of that name is a new group. */
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, true), 0);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 4);
}

/* More void groups than are kept back: the others are as after an overflow. */
static void void_without_room(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev;
	u32 i;

	test_set_credits(test, 8);
	fdev = test_fdev(ft);
	for (i = 0; i < fdev->limit - IOPF_VOID_GROUPS; i++)
		KUNIT_ASSERT_EQ(test, test_partial(ft, i), 0);
	for (; i < fdev->limit + 8; i++)
		KUNIT_EXPECT_EQ(test, test_partial(ft, i), -ENOMEM);
	KUNIT_EXPECT_EQ(test, fdev->count.partials, fdev->limit);
	for (i = 0; i < IOPF_VOID_GROUPS; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), 0);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), IOPF_VOID_GROUPS);
	KUNIT_EXPECT_EQ(test, test_last(ft, fdev->limit - 1), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, fdev->limit + 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
}

/* A handler that has no room now: the device is told to try again, a moment later. */
static void try_again(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev = test_fdev(ft);
	u32 i;

	ft->handler_error = -EAGAIN;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 0), 0);
	for (i = 0; i < 2 * IOPF_RETRY_BATCH + 1; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), -EAGAIN);
	flush_delayed_work(&fdev->retry_work);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].responses[IOMMU_PAGE_RESP_SUCCESS], i);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), i);
	KUNIT_EXPECT_EQ(test, fdev->count.depth, 0);
	KUNIT_EXPECT_EQ(test, test_counter(test, "answered_by_no_room"), i);
	ft->handler_error = 0;
	KUNIT_EXPECT_EQ(test, test_last(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
}

/* With immediate delivery that is known at the first request, and told at the last. */
static void try_again_immediate(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &test_immediate_ops;
	ft->request_error = -EAGAIN;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -EAGAIN);
	ft->request_error = 0;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -EAGAIN);
	flush_delayed_work(&test_fdev(ft)->retry_work);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].responses[IOMMU_PAGE_RESP_SUCCESS], 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, ft->requests, 1);
}

/* What is parked when its device is detached, reset or removed */
static void try_again_too_late(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev = test_fdev(ft);

	ft->handler_error = -EAGAIN;
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, true), -EAGAIN);
	iopf_quiesce(test_dev(ft, 0), 1, &ft->pasids[0]);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);

	/* The work does not run before these two have come. */
	disable_delayed_work_sync(&fdev->retry_work);
	KUNIT_EXPECT_EQ(test, test_last(ft, 8), -EAGAIN);
	iopf_device_reset(test_dev(ft, 0));
	KUNIT_EXPECT_EQ(test, fdev->count.recalled[IOPF_CAUSE_RESET], 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 9), -EAGAIN);
	test_set_credits(test, 0);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

/* No page can be had without waiting: the device tries again until there is one. */
static void memory_short(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev;
	u32 i, room;

	test_set_credits(test, 8);
	fdev = test_fdev(ft);
	room = fdev->allocated - IOPF_VOID_GROUPS;
	spin_lock_bh(&fdev->lock);
	fdev->grow_delay = 1;
	spin_unlock_bh(&fdev->lock);
	for (i = 0; i < room; i++)
		KUNIT_ASSERT_EQ(test, test_last(ft, i), 0);
	/* In the groups that are kept back, and when these are used up, at once */
	disable_delayed_work_sync(&fdev->retry_work);
	for (; i < room + IOPF_VOID_GROUPS; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), -EAGAIN);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, i), -EAGAIN);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].responses[IOMMU_PAGE_RESP_SUCCESS], 1);
	KUNIT_EXPECT_EQ(test, test_partial(ft, i), -EAGAIN);
	KUNIT_EXPECT_EQ(test, ft->lost[IOPF_CAUSE_NO_ROOM], IOPF_VOID_GROUPS + 2);
	enable_delayed_work(&fdev->retry_work);
	mod_delayed_work(fdev->param.queue->wq, &fdev->retry_work, 0);
	flush_delayed_work(&fdev->retry_work);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1 + IOPF_VOID_GROUPS);

	/* A group that loses a request has the same answer. */
	KUNIT_EXPECT_EQ(test, test_partial(ft, 99), -EAGAIN);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 99), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_last(ft, 99), -EAGAIN);
	flush_delayed_work(&fdev->retry_work);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].responses[IOMMU_PAGE_RESP_SUCCESS],
			2 + IOPF_VOID_GROUPS);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 0);

	queue_delayed_work(fdev->param.queue->wq, &fdev->grow_work, 0);
	flush_delayed_work(&fdev->grow_work);
	KUNIT_EXPECT_GT(test, fdev->allocated, room + IOPF_VOID_GROUPS);
	for (; fdev->count.depth < fdev->limit - IOPF_VOID_GROUPS; i++)
		KUNIT_ASSERT_EQ(test, test_last(ft, i), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, i), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
}

/* Groups that are not worth an answer */

static void overflow(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, iopf_queue_discard_partial(ft->iommus[0].queue), 0);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.overflows, 1);
	/* Everybody whom the device may have asked, nobody else */
	KUNIT_EXPECT_EQ(test, ft->lost[IOPF_CAUSE_OVERFLOW], 1 + TEST_PASIDS);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

static void reset(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 2), 0);
	KUNIT_EXPECT_TRUE(test, iopf_group_deliver(test_newest(ft)));
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 1, IOMMU_NO_PASID, 1, true), 0);

	ft->iommus[0].late_request = true;
	iopf_device_reset(test_dev(ft, 0));
	/* The two, and what the hardware queue held; and answers are pushed out. */
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_RESET], 3);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].drains, 2);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	KUNIT_EXPECT_FALSE(test, iopf_group_claim(list_first_entry(&ft->recalled_groups,
								   struct iopf_group, node)));
	/* Of the other device, and of the time after */
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 1), 1);
}

static void age(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct iopf_device *fdev = test_fdev(ft);
	struct iopf_group *group;

	KUNIT_EXPECT_FALSE(test, fdev->aging);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 2), 0);
	KUNIT_EXPECT_TRUE(test, fdev->aging);
	spin_lock_bh(&fdev->lock);
	list_for_each_entry(group, &fdev->partials, partial_list)
		group->queued -= iopf_partial_timeout();
	spin_unlock_bh(&fdev->lock);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 3), 0);

	mod_delayed_work(fdev->param.queue->wq, &fdev->age_work, 0);
	flush_delayed_work(&fdev->age_work);
	KUNIT_EXPECT_EQ(test, fdev->count.stale, 2);
	KUNIT_EXPECT_EQ(test, fdev->count.partials, 1);
	KUNIT_EXPECT_TRUE(test, fdev->aging);
	KUNIT_EXPECT_EQ(test, test_last(ft, 3), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);

	/* Nobody is waited for any more */
	mod_delayed_work(fdev->param.queue->wq, &fdev->age_work, 0);
	flush_delayed_work(&fdev->age_work);
	KUNIT_EXPECT_FALSE(test, fdev->aging);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
}

/* A stop marker: no more requests of one PASID */
static void stopped_pasid(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, false), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, false), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	iopf_discard_pasid(test_dev(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 2);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, true), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
}

static void detach(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, false), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, false), 0);
	iommu_detach_device_pasid(&ft->domain, test_dev(ft, 0), 1);
	iopf_quiesce(test_dev(ft, 0), 1, &ft->pasids[0]);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 1);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, true), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, true), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
	KUNIT_EXPECT_EQ(test, iommu_attach_device_pasid(&ft->domain, test_dev(ft, 0), 1,
							&ft->pasids[0]), 0);
}

/*
 * What a device asks for while its domain is replaced reaches a handler, if the old
 * domain or the new one has any; and if the driver refuses, the old one goes on.
 */
static void replace_midway(struct kunit *test)
{
	struct iommu_attach_handle plain_handle = {}, other = {};
	struct iopf_test *ft = test->priv;
	struct test_iommu *ti = &ft->iommus[0];
	struct iommu_domain plain = {
		.type = IOMMU_DOMAIN_UNMANAGED, .ops = &test_domain_ops, .owner = &ft->ops,
	};
	struct iommu_group *group = test_dev(ft, 0)->iommu_group;

	ti->switch_request = true;
	/* Both queue: the old one has it. */
	KUNIT_EXPECT_EQ(test, iommu_replace_device_pasid(&plain, test_dev(ft, 0), 1,
							 &plain_handle), 0);
	KUNIT_ASSERT_EQ(test, ft->queued, 1);
	KUNIT_EXPECT_PTR_EQ(test, test_newest(ft)->attach_handle, &ft->pasids[0]);
	/* The driver refuses; what came is the new one's to answer. */
	ti->switch_error = -EINVAL;
	KUNIT_EXPECT_EQ(test, iommu_replace_device_pasid(&ft->domain, test_dev(ft, 0), 1,
							 &other), -EINVAL);
	KUNIT_EXPECT_EQ(test, ft->queued, 2);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, true), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);
	/* The new one has a handler, the old one none. */
	KUNIT_EXPECT_EQ(test, iommu_replace_device_pasid(&ft->domain, test_dev(ft, 0), 1,
							 &ft->pasids[0]), 0);
	KUNIT_EXPECT_EQ(test, ft->queued, 3);
	KUNIT_EXPECT_PTR_EQ(test, test_newest(ft)->attach_handle, &ft->pasids[0]);

	KUNIT_EXPECT_EQ(test, iommu_replace_group_handle(group, &plain, &plain_handle), 0);
	KUNIT_EXPECT_EQ(test, ft->queued, 4);
	ti->switch_error = -EINVAL;
	KUNIT_EXPECT_NE(test, iommu_replace_group_handle(group, &ft->domain, &other), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -EINVAL);
	KUNIT_EXPECT_EQ(test, iommu_replace_group_handle(group, &ft->domain, &ti->rid), 0);
	KUNIT_EXPECT_PTR_EQ(test, test_newest(ft)->attach_handle, &ti->rid);
	ti->switch_request = false;
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 2);
	test_answer(ft, IOMMU_PAGE_RESP_SUCCESS);
}

/* What was collected outlives an attach that the driver refuses. */
static void refused_attach(struct kunit *test)
{
	struct iommu_attach_handle other = {};
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, false), 0);
	iopf_quiesce(test_dev(ft, 0), IOMMU_PASID_INVALID, &other);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, true), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 2);
}

/* Immediate delivery */

static void immediate(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &test_immediate_ops;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, ft->requests, 1);
	KUNIT_EXPECT_TRUE(test, test_newest(ft)->open);
	KUNIT_EXPECT_TRUE(test, iopf_group_deliver(test_newest(ft)));
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, ft->requests, 2);
	KUNIT_EXPECT_EQ(test, ft->queued, 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, ft->closed, 1);
	KUNIT_EXPECT_FALSE(test, test_newest(ft)->open);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 3);
	KUNIT_EXPECT_TRUE(test, list_is_singular(&ft->held));
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 1);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.depth, 0);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.delivered, 1);
}

static void immediate_refused(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &test_immediate_ops;
	ft->request_error = -ENOSPC;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), -ENOSPC);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);

	ft->request_error = 0;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 8), 0);
	ft->request_error = -ENOSPC;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 8), -ENOSPC);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_NO_ROOM], 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 8), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 2);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

/* Open groups are taken back, complete ones stay. */
static void immediate_overflow(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &test_immediate_ops;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	iopf_queue_discard_partial(ft->iommus[0].queue);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_OVERFLOW], 1);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_newest(ft)->fault_count, 1);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

/* An answer to an open group is kept until the device asks for it. */
static void immediate_claimed(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &test_immediate_ops;
	KUNIT_EXPECT_EQ(test, test_partial(ft, 7), 0);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 7), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 1);

	/* Claimed before the last request, answered after it */
	KUNIT_EXPECT_EQ(test, test_partial(ft, 8), 0);
	KUNIT_ASSERT_FALSE(test, list_empty(&ft->held));
	KUNIT_EXPECT_TRUE(test, iopf_group_claim(test_newest(ft)));
	KUNIT_EXPECT_EQ(test, test_last(ft, 8), 0);
	KUNIT_EXPECT_EQ(test, ft->closed, 0);
	iopf_answer_groups(&(struct iopf_answer){ test_newest(ft) }, 1);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

static void immediate_detach(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	ft->domain.iopf_ops = &test_immediate_ops;
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 1, 7, false), 0);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, 2, 7, false), 0);
	iopf_quiesce(test_dev(ft, 0), 1, &ft->pasids[0]);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_DETACH], 1);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 1);
	/* A stop marker is no reset. */
	iopf_discard_pasid(test_dev(ft, 0), 2);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_STOP], 1);
	KUNIT_EXPECT_EQ(test, ft->recalled[IOPF_CAUSE_RESET], 0);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.partials, 0);
}

/* Answers */

static void batch_for_two_iommus(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	u32 grpid;

	for (grpid = 0; grpid < 6; grpid++)
		KUNIT_EXPECT_EQ(test, test_report(ft, grpid % 2, IOMMU_NO_PASID, grpid, true),
				0);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 6);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 3);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 1), 3);
	KUNIT_EXPECT_EQ(test, ft->iommus[0].batches, 1);
	KUNIT_EXPECT_EQ(test, ft->iommus[1].batches, 1);
}

static void removal_answers(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 2), 0);
	KUNIT_EXPECT_TRUE(test, iopf_group_deliver(test_newest(ft)));
	test_set_credits(test, 0);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 2);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 0);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 2);
}

struct test_racer {
	struct iopf_group **groups;
	struct completion *start;
	struct completion done;
	unsigned int won;
};

static int test_race(void *data)
{
	struct test_racer *racer = data;
	unsigned int i;

	wait_for_completion(racer->start);
	for (i = 0; i < TEST_BATCH; i++) {
		struct iopf_answer answer = { racer->groups[i] };

		if (iopf_group_claim(answer.group)) {
			iopf_answer_groups(&answer, 1);
			racer->won++;
		}
	}
	complete(&racer->done);
	return 0;
}

/* Several threads claim the same groups; then @against happens to them as well. */
static unsigned int test_run_race(struct kunit *test, void (*against)(struct kunit *test))
{
	struct iopf_group *groups[TEST_BATCH], *group;
	struct iopf_test *ft = test->priv;
	DECLARE_COMPLETION_ONSTACK(start);
	struct test_racer racers[4] = {};
	unsigned int i, won = 0;

	for (i = 0; i < TEST_BATCH; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), 0);
	i = 0;
	list_for_each_entry(group, &ft->held, node)
		groups[i++] = group;

	for (i = 0; i < ARRAY_SIZE(racers); i++) {
		racers[i].groups = groups;
		racers[i].start = &start;
		init_completion(&racers[i].done);
		if (IS_ERR(kthread_run(test_race, &racers[i], "iopf-test/%u", i)))
			complete(&racers[i].done);
	}
	complete_all(&start);
	against(test);
	for (i = 0; i < ARRAY_SIZE(racers); i++) {
		wait_for_completion(&racers[i].done);
		won += racers[i].won;
	}
	return won;
}

static void test_race_reset(struct kunit *test)
{
	iopf_device_reset(test_dev(test->priv, 0));
}

static void test_race_remove(struct kunit *test)
{
	test_set_credits(test, 0);
}

static void racing_claims(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	unsigned int round, won = 0;

	for (round = 0; round < 20; round++) {
		won += test_run_race(test, test_race_reset);
		KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 0);
		iopf_free_groups(&ft->recalled_groups);
	}
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), won);
	KUNIT_EXPECT_EQ(test, won + ft->recalled[IOPF_CAUSE_RESET], round * TEST_BATCH);
	KUNIT_EXPECT_EQ(test, test_fdev(ft)->count.depth, 0);
}

static void racing_removal(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	unsigned int round, won = 0;

	for (round = 0; round < 20; round++) {
		won += test_run_race(test, test_race_remove);
		KUNIT_EXPECT_EQ(test, test_responses(ft, 0), (round + 1) * TEST_BATCH);
		KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 0);
	}
	KUNIT_EXPECT_EQ(test, won + test_invalid(ft), round * TEST_BATCH);
}

static void counters(struct kunit *test)
{
	struct iopf_test *ft = test->priv;

	KUNIT_EXPECT_EQ(test, test_partial(ft, 1), 0);
	KUNIT_EXPECT_EQ(test, test_last(ft, 1), 0);
	KUNIT_EXPECT_TRUE(test, iopf_group_deliver(test_newest(ft)));
	KUNIT_EXPECT_EQ(test, test_last(ft, 2), 0);
	KUNIT_EXPECT_EQ(test, test_partial(ft, 3), 0);
	KUNIT_EXPECT_EQ(test, test_counter(test, "requests"), 4);
	KUNIT_EXPECT_EQ(test, test_counter(test, "groups"), 2);
	KUNIT_EXPECT_EQ(test, test_counter(test, "delivered"), 1);
	KUNIT_EXPECT_EQ(test, test_counter(test, "depth"), 2);
	KUNIT_EXPECT_EQ(test, test_counter(test, "partials"), 1);
	KUNIT_EXPECT_EQ(test, test_counter(test, "answered_success"), 0);

	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_SUCCESS), 2);
	KUNIT_EXPECT_EQ(test, test_report(ft, 0, TEST_PASIDS + 1, 1, true), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_counter(test, "answered_success"), 2);
	KUNIT_EXPECT_EQ(test, test_counter(test, "answered_by_user"), 2);
	KUNIT_EXPECT_EQ(test, test_counter(test, "answered_invalid"), 1);
	KUNIT_EXPECT_EQ(test, test_counter(test, "answered_by_no_handler"), 1);
	KUNIT_EXPECT_EQ(test, test_counter(test, "delivered"), 1);
	KUNIT_EXPECT_EQ(test, test_counter(test, "depth"), 0);
	KUNIT_EXPECT_EQ(test, test_counter(test, "depth_peak"), 2);
	KUNIT_EXPECT_EQ(test, test_counter(test, "pool_limit"), 2 * 4096 + 256);

	KUNIT_EXPECT_EQ(test, test_last(ft, 4), 0);
	iopf_device_reset(test_dev(ft, 0));
	KUNIT_EXPECT_EQ(test, test_counter(test, "recalled_reset"), 1);
}

/* A group that ends before its last request is counted with the answer to that one. */
static void open_groups_counted_once(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	u32 i;

	ft->domain.iopf_ops = &test_immediate_ops;
	for (i = 0; i < 10; i++)
		KUNIT_EXPECT_EQ(test, test_partial(ft, i), 0);
	KUNIT_EXPECT_EQ(test, test_answer(ft, IOMMU_PAGE_RESP_INVALID), 10);
	KUNIT_EXPECT_EQ(test, test_responses(ft, 0), 0);
	KUNIT_EXPECT_EQ(test, test_counter(test, "answered_invalid"), 0);
	KUNIT_EXPECT_EQ(test, test_counter(test, "depth"), 0);
	for (i = 0; i < 10; i++)
		KUNIT_EXPECT_EQ(test, test_last(ft, i), -ENOMEM);
	KUNIT_EXPECT_EQ(test, test_invalid(ft), 10);
	KUNIT_EXPECT_EQ(test, test_counter(test, "groups"), 10);
	KUNIT_EXPECT_EQ(test, test_counter(test, "answered_invalid"), 10);
	KUNIT_EXPECT_EQ(test, test_counter(test, "answered_by_user"), 10);
	KUNIT_EXPECT_EQ(test, test_counter(test, "answered_success"), 0);
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

static int iopf_test_init(struct kunit *test)
{
	struct iopf_test *ft = kunit_kzalloc(test, sizeof(*ft), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, ft);
	test->priv = ft;
	spin_lock_init(&ft->lock);
	INIT_LIST_HEAD(&ft->held);
	INIT_LIST_HEAD(&ft->recalled_groups);
	ft->ops = test_ops;
	ft->domain = (struct iommu_domain){
		.type = IOMMU_DOMAIN_UNMANAGED,
		.ops = &test_domain_ops,
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
static void iopf_test_exit(struct kunit *test)
{
	struct iopf_test *ft = test->priv;
	struct test_iommu *ti;
	unsigned int i;

	if (!ft || !ft->iommus[TEST_IOMMUS - 1].rid.domain)
		return;
	test_answer(ft, IOMMU_PAGE_RESP_INVALID);
	iopf_free_groups(&ft->recalled_groups);
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

static struct kunit_case iopf_test_cases[] = {
	KUNIT_CASE(one_group_one_answer),
	KUNIT_CASE(last_alone),
	KUNIT_CASE(id_reused_before_answer),
	KUNIT_CASE(interleaved_groups),
	KUNIT_CASE(one_id_two_pasids),
	KUNIT_CASE(nobody_handles),
	KUNIT_CASE(refused_by_driver),
	KUNIT_CASE(nested_takes_all_pasids),
	KUNIT_CASE(last_among_many),
	KUNIT_CASE(chosen_ids),
	KUNIT_CASE(no_pasid_and_pasid_0),
	KUNIT_CASE(no_room_for_group),
	KUNIT_CASE(no_room_for_request),
	KUNIT_CASE(void_by_pasid),
	KUNIT_CASE(void_without_room),
	KUNIT_CASE(try_again),
	KUNIT_CASE(try_again_immediate),
	KUNIT_CASE(try_again_too_late),
	KUNIT_CASE(memory_short),
	KUNIT_CASE(overflow),
	KUNIT_CASE(reset),
	KUNIT_CASE(age),
	KUNIT_CASE(stopped_pasid),
	KUNIT_CASE(detach),
	KUNIT_CASE(replace_midway),
	KUNIT_CASE(refused_attach),
	KUNIT_CASE(immediate),
	KUNIT_CASE(immediate_refused),
	KUNIT_CASE(immediate_overflow),
	KUNIT_CASE(immediate_claimed),
	KUNIT_CASE(immediate_detach),
	KUNIT_CASE(batch_for_two_iommus),
	KUNIT_CASE(removal_answers),
	KUNIT_CASE(counters),
	KUNIT_CASE(open_groups_counted_once),
	KUNIT_CASE(racing_claims),
	KUNIT_CASE(racing_removal),
	{ }
};

static struct kunit_suite iopf_test_suite = {
	.name = "iopf",
	.init = iopf_test_init,
	.exit = iopf_test_exit,
	.test_cases = iopf_test_cases,
};

kunit_test_suite(iopf_test_suite);
