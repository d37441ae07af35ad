// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of domains that take turns while the device sends requests
 */
#include <kunit/static_stub.h>
#include <linux/kthread.h>
#include <linux/moduleparam.h>

#include "prq-test.h"

/* For longer runs: prq_test.moves=2000 on the kernel's command line */
static unsigned int moves = 100;
module_param(moves, uint, 0);
MODULE_PARM_DESC(moves, "How often domains are replaced under load");

/* Requests to a domain, at most; after the first few it may be replaced. */
#define MOVE_REQUESTS 16
#define MOVE_FEW 3

struct move_case {
	const char *name;
	u64 type;			/* of the PASID table's entry */
	unsigned int domain_type;
	bool at_once;			/* the entry stays present */
};

static const struct move_case move_cases[] = {
	{ "first stage", FIRST, IOMMU_DOMAIN_UNMANAGED, true },
	{ "first stage, walked in another way", FIRST, IOMMU_DOMAIN_UNMANAGED },
	{ "second stage", SECOND, IOMMU_DOMAIN_UNMANAGED, true },
	{ "nested", NESTED, IOMMU_DOMAIN_NESTED, true },
	{ "nested, on another parent", NESTED, IOMMU_DOMAIN_NESTED },
};

KUNIT_ARRAY_PARAM_DESC(move, move_cases, name);

/* A device that is not stopped, and the thread of its IOMMU */
struct mover {
	struct fake *fake;
	struct fake_device *device;
	const struct move_case *how;
	ioasid_t pasid;
	struct task_struct *thread;
	wait_queue_head_t wait;
	bool stop;
	struct iommu_domain_ops ops;
	struct iommu_domain domain[2];

	spinlock_t bus;			/* below: what the hardware goes by */
	bool present;			/* the entry */
	u64 epoch;			/* number of the domain */
	unsigned int sent;
	unsigned int left;		/* to be sent to this domain */
	u64 shown;			/* the domain that a replace has ended with */

	spinlock_t lock;		/* below, and the groups of a turn */
	unsigned int n_groups;
	unsigned int n_strays;
};

/* A domain's turn; freed when it is over, for KASAN to see who still looks at it */
struct turn {
	struct iommu_attach_handle handle;
	struct mover *mover;
	u64 epoch;
	struct list_head groups;
};

/* The address of a request is the epoch that it was sent in. */
static int mover_handler(struct iopf_group *group)
{
	struct turn *turn = container_of(group->attach_handle, struct turn, handle);
	struct mover *mover = turn->mover;

	spin_lock_bh(&mover->lock);
	mover->n_groups++;
	mover->n_strays += group->last_fault.fault.prm.addr >> PAGE_SHIFT < turn->epoch;
	list_add_tail(&group->node, &turn->groups);
	spin_unlock_bh(&mover->lock);
	return 0;
}

static void mover_send(struct mover *mover)
{
	spin_lock(&mover->bus);
	if (mover->present && mover->left) {
		mover->left--;
		put_raw(mover->fake, word0(mover->device, mover->pasid),
			mover->epoch << PAGE_SHIFT | PRQ_READ | PRQ_LPIG |
			FIELD_PREP(PRQ_INDEX, mover->sent % GROUP_IDS));
		mover->sent++;
	}
	spin_unlock(&mover->bus);
}

static int mover_thread(void *data)
{
	struct mover *mover = data;
	unsigned int n, passes = 0;

	current->kunit_test = mover->fake->test;
	while (!READ_ONCE(mover->stop)) {
		for (n = 0; n < MOVE_FEW; n++)
			mover_send(mover);
		wake_up_all(&mover->wait);
		/* Who drains may meet the one or the other. */
		if (++passes % 2 || run_bottom_half(mover->fake))
			run_thread(mover->fake);
		wait_event(mover->wait, READ_ONCE(mover->stop) ||
			   (READ_ONCE(mover->present) && READ_ONCE(mover->left)));
	}
	current->kunit_test = NULL;
	return 0;
}

static void mover_set_present(struct mover *mover, bool present)
{
	spin_lock(&mover->bus);
	mover->present = present;
	mover->epoch += present;
	mover->left = MOVE_REQUESTS;
	entry_of(mover->device, mover->pasid)->val[0] =
		present ? mover->how->type << 6 | PASID_PTE_PRESENT : 0;
	spin_unlock(&mover->bus);
	wake_up_all(&mover->wait);
}

/*
 * As the driver does it: non-present, drained, and present with another domain; or that
 * at once, and drained
 */
static int mover_set_dev_pasid(struct iommu_domain *domain, struct device *dev, ioasid_t pasid,
			       struct iommu_domain *old)
{
	struct mover *mover = container_of(domain->ops, struct mover, ops);
	bool at_once = mover->present && mover->how->at_once;

	if (mover->present && !at_once) {
		mover_set_present(mover, false);
		intel_iommu_drain_pasid_prq(dev, pasid, FLPT_DEFAULT_DID);
	}
	mover_set_present(mover, true);
	if (at_once)
		intel_iommu_drain_pasid_prq(dev, pasid, FLPT_DEFAULT_DID);
	return 0;
}

static struct mover *mover_init(struct kunit *test, ioasid_t pasid)
{
	struct mover *mover = kunit_kzalloc(test, sizeof(*mover), GFP_KERNEL);
	struct fake *fake = test->priv;
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, mover);
	fake->mover = mover;
	mover->fake = fake;
	mover->device = &fake->device[0];
	mover->how = test->param_value;
	mover->pasid = pasid;
	init_waitqueue_head(&mover->wait);
	spin_lock_init(&mover->bus);
	spin_lock_init(&mover->lock);
	mover->ops.set_dev_pasid = mover_set_dev_pasid;
	for (i = 0; i < 2; i++)
		mover->domain[i] = (struct iommu_domain){
			.type = mover->how->domain_type, .owner = &fake->ops,
			.ops = &mover->ops, .iopf_handler = mover_handler,
		};
	return mover;
}

/* From here on the device sends. */
static void mover_start(struct mover *mover)
{
	mover->thread = kthread_run(mover_thread, mover, "prq-mover");
	KUNIT_ASSERT_FALSE(mover->fake->test, IS_ERR(mover->thread));
	get_task_struct(mover->thread);
}

/* Let a few requests go to the domain whose turn it is. */
static void mover_wait(struct mover *mover)
{
	wait_event(mover->wait, READ_ONCE(mover->left) <= MOVE_REQUESTS - MOVE_FEW);
}

static void mover_stop(struct mover *mover)
{
	WRITE_ONCE(mover->stop, true);
	wake_up_all(&mover->wait);
	kthread_stop_put(mover->thread);
}

/* The next domain's turn; the first one's has @old NULL. */
static struct turn *mover_next(struct mover *mover, struct turn *old)
{
	struct iommu_domain *domain = &mover->domain[mover->epoch % 2];
	struct turn *turn = kzalloc(sizeof(*turn), GFP_KERNEL);
	struct device *dev = mover->device->dev;
	int rc;

	KUNIT_ASSERT_NOT_NULL(mover->fake->test, turn);
	turn->mover = mover;
	turn->epoch = mover->epoch + 1;
	INIT_LIST_HEAD(&turn->groups);
	if (old)
		rc = iommu_replace_device_pasid(domain, dev, mover->pasid, &turn->handle);
	else
		rc = iommu_attach_device_pasid(domain, dev, mover->pasid, &turn->handle);
	KUNIT_ASSERT_EQ(mover->fake->test, 0, rc);
	return turn;
}

/* As an owner of domains does it, see iopf_quiesce(). The handle is hidden already. */
static void mover_over(struct mover *mover, struct turn *turn)
{
	struct device *dev = mover->device->dev;

	iopf_quiesce(dev, mover->pasid, &turn->handle);
	list_splice(&turn->groups, &mover->fake->groups);
	prq_fake_answer_all(mover->fake, 64, IOMMU_PAGE_RESP_SUCCESS);
	iopf_recall_sync(dev);
	kfree(turn);
}

/* No request that was sent to a domain reaches the next one, or a handle that is gone. */
static void prq_test_replace(struct kunit *test)
{
	struct mover *mover = mover_init(test, PASIDS);
	struct fake *fake = test->priv;
	struct turn *turn, *old;
	unsigned int i;

	turn = mover_next(mover, NULL);
	mover_start(mover);
	for (i = 0; i < moves; i++) {
		mover_wait(mover);
		old = turn;
		turn = mover_next(mover, old);
		mover_over(mover, old);
	}
	mover_set_present(mover, false);
	intel_iommu_drain_pasid_prq(mover->device->dev, PASIDS, FLPT_DEFAULT_DID);
	iommu_detach_device_pasid(turn->handle.domain, mover->device->dev, PASIDS);
	mover_over(mover, turn);
	mover_stop(mover);
	KUNIT_EXPECT_EQ(test, 0, mover->n_strays);
	KUNIT_EXPECT_GT(test, mover->n_groups, moves);
	KUNIT_EXPECT_EQ(test, mover->sent, fake->n_answers);
}

static void mover_report(struct device *dev, struct iopf_fault *evt)
{
	struct fake *fake = kunit_get_current_test()->priv;
	struct mover *mover = fake->mover;

	mover->n_groups++;
	mover->n_strays += evt->fault.prm.addr >> PAGE_SHIFT < READ_ONCE(mover->shown);
}

/* The same for the RID, whose domain only a real device can get: the driver's part */
static void prq_test_replace_rid(struct kunit *test)
{
	struct mover *mover = mover_init(test, IOMMU_NO_PASID);
	unsigned int i;

	kunit_activate_static_stub(test, prq_report, mover_report);
	mover_set_present(mover, true);
	mover_start(mover);
	for (i = 0; i < moves; i++) {
		mover_wait(mover);
		mover_set_dev_pasid(&mover->domain[i % 2], mover->device->dev, IOMMU_NO_PASID,
				    NULL);
		WRITE_ONCE(mover->shown, mover->epoch);
	}
	mover_set_present(mover, false);
	intel_iommu_drain_pasid_prq(mover->device->dev, IOMMU_NO_PASID, FLPT_DEFAULT_DID);
	KUNIT_EXPECT_EQ(test, mover->sent, mover->n_groups);
	mover_stop(mover);
	KUNIT_EXPECT_EQ(test, 0, mover->n_strays);
}

static struct kunit_case prq_test_replace_cases[] = {
	KUNIT_CASE_PARAM(prq_test_replace, move_gen_params),
	KUNIT_CASE_PARAM(prq_test_replace_rid, move_gen_params),
	{}
};

static struct kunit_suite prq_test_replace_suite = {
	.name = "intel-prq-replace",
	.init = prq_test_init,
	.exit = prq_test_exit,
	.test_cases = prq_test_replace_cases,
};

kunit_test_suite(prq_test_replace_suite);
