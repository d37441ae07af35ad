// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of arm-smmu-v3-iopf.c: what a raw queue entry means to the fault core
 */
#include "arm-smmu-v3-iopf-test.h"
#include "../../io-pgfault-test-kinds.h"

static void expect_fault(struct kunit *test, const struct iopf_group *group,
			 const struct request *r, u32 perm)
{
	const struct iommu_fault_page_request *prm = &group->last_fault.fault.prm;
	u32 flags = IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE;

	if (r->ssv)
		flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
	KUNIT_EXPECT_EQ(test, group->last_fault.fault.type, IOMMU_FAULT_PAGE_REQ);
	KUNIT_EXPECT_EQ(test, prm->flags, flags);
	KUNIT_EXPECT_EQ(test, prm->pasid, r->ssv ? r->ssid : 0);
	KUNIT_EXPECT_EQ(test, prm->grpid, r->id | (r->sid - FIRST_SID) << 16);
	KUNIT_EXPECT_EQ(test, prm->perm, perm);
	KUNIT_EXPECT_EQ(test, prm->addr, r->addr);
}

static const struct {
	struct request r;
	u32 perm;
} accesses[] = {
	{ { .sid = FIRST_SID, .id = 0, .addr = 0 }, IOMMU_FAULT_PERM_READ },
	{ { .sid = FIRST_SID, .id = 0x1ff, .addr = ~0xfffULL, .write = true },
	  IOMMU_FAULT_PERM_WRITE },
	{ { .sid = FIRST_SID, .id = 1, .addr = 0x1000, .exec = true },
	  IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_EXEC },
	{ { .sid = FIRST_SID, .id = 2, .addr = 0x123456789000, .priv = true },
	  IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_PRIV },
	{ { .sid = FIRST_SID, .id = 3, .addr = 0x2000, .ssv = true, .ssid = PASID },
	  IOMMU_FAULT_PERM_READ },
	{ { .sid = FIRST_SID + 2, .id = 4, .addr = 0x3000, .ssv = true, .ssid = PASID,
	    .write = true, .priv = true }, IOMMU_FAULT_PERM_WRITE | IOMMU_FAULT_PERM_PRIV },
	/* without a PASID its field is unknown */
	{ { .sid = FIRST_SID, .id = 5, .addr = 0x4000, .ssid = 0xabcde }, IOMMU_FAULT_PERM_READ },
};

static void stall_fields(struct kunit *test)
{
	struct fake *f = stalling(test);
	struct iopf_group *group;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		KUNIT_ASSERT_TRUE(test, push_stall(f, &accesses[i].r));
		run_evtq(f);
		group = expect_group(f, 1);
		expect_fault(test, group, &accesses[i].r, accesses[i].perm);
		answer(group, IOMMU_PAGE_RESP_SUCCESS);
		expect_resume(f, accesses[i].r.sid, accesses[i].r.id, RETRY);
	}
}

/* What the access table, shared with page requests, cannot say */
static void stall_bits(struct kunit *test)
{
	const struct request r = {
		.sid = FIRST_SID, .id = 0xffff, .addr = 0xfedcba9876543210,
	};
	struct fake *f = stalling(test);
	struct iopf_group *group;
	u64 id;

	KUNIT_ASSERT_TRUE(test, push_stall(f, &r));
	run_evtq(f);
	group = expect_group(f, 1);
	expect_fault(test, group, &r, IOMMU_FAULT_PERM_READ);
	answer(group, IOMMU_PAGE_RESP_SUCCESS);
	expect_resume(f, FIRST_SID, 0xffff, RETRY);

	/* F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION; all reserved bits set */
	for (id = 0x10; id <= 0x13; id++) {
		const u64 evt[EVTQ_ENT_DWORDS] = {
			id | (u64)FIRST_SID << 32 | GENMASK_ULL(10, 8),
			7 | BIT_ULL(31) | BIT_ULL(35) | GENMASK_ULL(30, 16) | BIT_ULL(32),
			0x5000, ~0ULL,
		};

		KUNIT_ASSERT_TRUE(test, push_event(f, evt));
		run_evtq(f);
		group = expect_group(f, 1);
		KUNIT_EXPECT_EQ(test, group->last_fault.fault.prm.perm, IOMMU_FAULT_PERM_READ);
		answer(group, IOMMU_PAGE_RESP_INVALID);
		expect_resume(f, FIRST_SID, 7, ABORT);
	}
}

static void other_events(struct kunit *test)
{
	static const u64 events[][EVTQ_ENT_DWORDS] = {
		/* a translation fault that did not stall */
		{ 0x10 | (u64)FIRST_SID << 32, BIT_ULL(35) | 5, 0x1000 },
		/* C_BAD_STREAMID, F_UUT, E_PAGE_REQUEST, with the bit that is Stall elsewhere */
		{ 0x02 | (u64)UNKNOWN_SID << 32, BIT_ULL(31), 0 },
		{ 0x01 | (u64)FIRST_SID << 32, BIT_ULL(31), 0x1000 },
		{ 0x24 | (u64)FIRST_SID << 32, BIT_ULL(31), 0x1000 },
	};
	struct fake *f = stalling(test);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(events); i++)
		KUNIT_ASSERT_TRUE(test, push_event(f, events[i]));
	run_evtq(f);
	expect_no_group(f);
	expect_no_command(f);
}

static void ppr_fields(struct kunit *test)
{
	struct fake *f = requesting(test);
	struct iopf_group *group;
	struct request r;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		r = accesses[i].r;
		r.last = true;
		KUNIT_ASSERT_TRUE(test, push_ppr(f, &r));
		run_priq(f);
		group = expect_group(f, 1);
		expect_fault(test, group, &r, accesses[i].perm);
		answer(group, IOMMU_PAGE_RESP_SUCCESS);
		expect_pri_resp(f, r.sid, false, 0, r.id, 2);
	}
}

/* What the access table, shared with stalls, cannot say; all reserved bits set */
static void ppr_bits(struct kunit *test)
{
	const u64 ppr[PRIQ_ENT_DWORDS] = {
		FIRST_SID | GENMASK_ULL(57, 52) | BIT_ULL(60) | BIT_ULL(61) | BIT_ULL(62),
		0x7000 | GENMASK_ULL(11, 9) | 9,
	};
	struct fake *f = requesting(test);
	struct iopf_group *group;

	KUNIT_ASSERT_TRUE(test, push(&f->smmu.priq.q, f->priq_regs, ppr, true));
	run_priq(f);
	group = expect_group(f, 1);
	KUNIT_EXPECT_EQ(test, group->last_fault.fault.prm.perm,
			IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_WRITE);
	KUNIT_EXPECT_EQ(test, group->last_fault.fault.prm.addr, 0x7000);
	KUNIT_EXPECT_EQ(test, group->last_fault.fault.prm.grpid, 9);
	answer(group, IOMMU_PAGE_RESP_SUCCESS);
	expect_pri_resp(f, FIRST_SID, false, 0, 9, 2);
}

static struct request request_of(const struct iopf_kind *kind)
{
	return (struct request){
		.sid = FIRST_SID, .id = kind->grpid, .addr = kind->addr, .last = true,
		.ssv = kind->with_pasid, .ssid = kind->with_pasid ? PASID : 0,
		.write = kind->perm & IOMMU_FAULT_PERM_WRITE,
		.exec = kind->perm & IOMMU_FAULT_PERM_EXEC,
		.priv = kind->perm & IOMMU_FAULT_PERM_PRIV,
	};
}

/* One request of each kind is the same message as of other IOMMUs. */
static void expect_kinds(struct kunit *test, struct fake *f,
			 bool (*push)(struct fake *f, const struct request *r),
			 void (*run)(struct fake *f))
{
	const struct iopf_kind *kind;
	struct iopf_group *group;
	struct request r;

	for (kind = iopf_kinds; kind < iopf_kinds + ARRAY_SIZE(iopf_kinds); kind++) {
		r = request_of(kind);
		KUNIT_ASSERT_TRUE(test, push(f, &r));
		run(f);
		group = expect_group(f, 1);
		iopf_kind_expect(test, kind, PASID, &group->last_fault.fault);
		answer(group, IOMMU_PAGE_RESP_SUCCESS);
	}
}

static void stall_kinds(struct kunit *test)
{
	expect_kinds(test, stalling(test), push_stall, run_evtq);
}

static void ppr_kinds(struct kunit *test)
{
	expect_kinds(test, requesting(test), push_ppr, run_priq);
}

static void groups(struct kunit *test)
{
	struct request a = { .sid = FIRST_SID, .id = 1, .addr = 0x1000 };
	struct request b = { .sid = FIRST_SID, .id = 1, .addr = 0x9000,
			     .ssv = true, .ssid = PASID };
	struct fake *f = requesting(test);
	struct iopf_group *group;

	/* one index, with and without a PASID: two groups, interleaved */
	push_ppr(f, &a);
	push_ppr(f, &b);
	a.addr = 0x2000;
	push_ppr(f, &a);
	run_priq(f);
	expect_no_group(f);
	b.last = true;
	push_ppr(f, &b);
	a.last = true;
	push_ppr(f, &a);
	run_priq(f);

	group = expect_group(f, 2);
	KUNIT_EXPECT_PTR_EQ(test, group->attach_handle, &f->pasid);
	answer(group, IOMMU_PAGE_RESP_SUCCESS);
	group = expect_group(f, 3);
	KUNIT_EXPECT_PTR_EQ(test, group->attach_handle, &f->rid);
	answer(group, IOMMU_PAGE_RESP_INVALID);
	expect_pri_resp(f, FIRST_SID, false, 0, 1, 2);
	expect_pri_resp(f, FIRST_SID, false, 0, 1, 1);
	expect_no_command(f);
}

static void stop_marker(struct kunit *test)
{
	struct request r = { .sid = FIRST_SID, .last = true, .none = true,
			     .ssv = true, .ssid = PASID };
	struct fake *f = requesting(test);
	struct iopf_group *group;

	push_ppr(f, &r);
	run_priq(f);
	expect_no_group(f);
	expect_no_command(f);

	/* without a PASID it is a request, and has an answer */
	r.ssv = false;
	r.ssid = 0;
	push_ppr(f, &r);
	run_priq(f);
	group = expect_group(f, 1);
	KUNIT_EXPECT_EQ(test, group->last_fault.fault.prm.perm, 0);
	answer(group, IOMMU_PAGE_RESP_SUCCESS);
	expect_pri_resp(f, FIRST_SID, false, 0, 0, 2);
}

static struct kunit_case arm_smmu_v3_iopf_entries_cases[] = {
	KUNIT_CASE(stall_fields),
	KUNIT_CASE(stall_bits),
	KUNIT_CASE(other_events),
	KUNIT_CASE(ppr_fields),
	KUNIT_CASE(ppr_bits),
	KUNIT_CASE(stall_kinds),
	KUNIT_CASE(ppr_kinds),
	KUNIT_CASE(groups),
	KUNIT_CASE(stop_marker),
	{}
};

static struct kunit_suite arm_smmu_v3_iopf_entries_suite = {
	.name = "arm-smmu-v3-iopf-entries",
	.init = smmu_fake_init,
	.exit = smmu_fake_exit,
	.test_cases = arm_smmu_v3_iopf_entries_cases,
};

kunit_test_suite(arm_smmu_v3_iopf_entries_suite);
