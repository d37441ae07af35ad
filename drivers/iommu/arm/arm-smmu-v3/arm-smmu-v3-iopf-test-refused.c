// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of arm-smmu-v3-iopf.c: who is not served has an answer all the same
 */
#include "arm-smmu-v3-iopf-test.h"

static void unknown_stream(struct kunit *test)
{
	struct request r = { .sid = UNKNOWN_SID, .id = 0x101, .addr = 0x1000 };
	struct fake *f = stalling(test);

	push_stall(f, &r);
	run_evtq(f);
	expect_resume(f, UNKNOWN_SID, 0x101, ABORT);

	push_ppr(f, &r);
	run_priq(f);
	expect_no_command(f);	/* not the last of its group: no answer */
	r.last = true;
	push_ppr(f, &r);
	r.ssv = true;
	r.ssid = 0xfffff;
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, UNKNOWN_SID, false, 0, 0x101, 1);
	expect_pri_resp(f, UNKNOWN_SID, true, 0xfffff, 0x101, 1);
	expect_no_group(f);
	expect_no_command(f);
}

static void vanished_master(struct kunit *test)
{
	const struct request r = { .sid = FIRST_SID, .id = 3 };
	struct fake *f = stalling(test);

	push_stall(f, &r);
	push_stall(f, &r);
	run_evtq(f);
	push_stall(f, &r);
	/* gone between the stall and the thread, with groups in the handler's hands */
	smmu_fake_remove_streams(f);
	run_evtq(f);
	expect_resume(f, FIRST_SID, 3, ABORT);
	expect_no_command(f);
	arm_smmu_iopf_disable(&f->master);
	expect_resume(f, FIRST_SID, 3, ABORT);
	expect_resume(f, FIRST_SID, 3, ABORT);
	expect_no_command(f);

	/* the handler's late answers do nothing */
	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	expect_no_command(f);
	smmu_fake_insert_streams(f);
}

/* The same of a function, with one group that is not complete */
static void vanished_function(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .id = 3, .last = true };
	struct fake *f = requesting(test);

	push_ppr(f, &r);
	r.id = 4;
	r.last = false;
	push_ppr(f, &r);
	run_priq(f);
	push_ppr(f, &r);
	r.last = true;
	push_ppr(f, &r);
	smmu_fake_remove_streams(f);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, false, 0, 4, 1);
	expect_no_command(f);
	iopf_queue_remove_device(f->smmu.priq.iopf, f->dev);
	f->master.iopf_enabled = false;
	expect_pri_resp(f, FIRST_SID, false, 0, 3, 1);
	expect_no_command(f);

	answer(expect_group(f, 1), IOMMU_PAGE_RESP_SUCCESS);
	expect_no_group(f);
	expect_no_command(f);
	smmu_fake_insert_streams(f);
}

static void not_enabled(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .id = 3, .last = true };
	struct fake *f = test->priv;

	push_stall(f, &r);
	run_evtq(f);
	expect_resume(f, FIRST_SID, 3, ABORT);
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, false, 0, 3, 1);

	/* the PASID as the function wants it, although nobody asked it to request */
	r.ssv = true;
	r.ssid = PASID;
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, false, 0, 3, 1);
	f->master.prg_resp_pasid = true;
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, true, PASID, 3, 1);
	r.ssv = false;

	/* a device that stalls is not asked to request pages, and the reverse */
	stalling(test);
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, false, 0, 3, 1);
	arm_smmu_iopf_disable(&f->master);
	requesting(test);
	push_stall(f, &r);
	run_evtq(f);
	expect_resume(f, FIRST_SID, 3, ABORT);
	expect_no_group(f);
	expect_no_command(f);
}

static void no_handler(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .id = 3, .ssv = true, .ssid = PASID + 1 };
	struct fake *f = stalling(test);

	push_stall(f, &r);
	run_evtq(f);
	expect_resume(f, FIRST_SID, 3, ABORT);
	arm_smmu_iopf_disable(&f->master);

	requesting(test);
	r.last = true;
	push_ppr(f, &r);
	run_priq(f);
	expect_pri_resp(f, FIRST_SID, false, 0, 3, 1);
	expect_no_command(f);
}

static struct kunit_case arm_smmu_v3_iopf_refused_cases[] = {
	KUNIT_CASE(unknown_stream),
	KUNIT_CASE(vanished_master),
	KUNIT_CASE(vanished_function),
	KUNIT_CASE(not_enabled),
	KUNIT_CASE(no_handler),
	{}
};

static struct kunit_suite arm_smmu_v3_iopf_refused_suite = {
	.name = "arm-smmu-v3-iopf-refused",
	.init = smmu_fake_init,
	.exit = smmu_fake_exit,
	.test_cases = arm_smmu_v3_iopf_refused_cases,
};

kunit_test_suite(arm_smmu_v3_iopf_refused_suite);
