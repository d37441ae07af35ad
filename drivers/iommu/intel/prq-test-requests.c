// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of page requests: what a raw descriptor means to the fault core
 */
#include <kunit/static_stub.h>

#include "prq-test.h"
#include "../io-pgfault-test-kinds.h"

struct field_case {
	const char *name;
	u64 qw0, qw1;
	u64 entry, bits;		/* the PASID's entry: type, third word */
	struct iommu_fault_page_request prm;
};

#define WITH_PASID	(PRQ_PASID_PRESENT | FIELD_PREP_CONST(PRQ_PASID, PASID))
#define SUPERVISOR	BIT_ULL(0)
#define FIVE_LEVELS	BIT_ULL(2)
#define FLAGS_LAST	IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE
#define FLAGS_PASID	(FLAGS_LAST | IOMMU_FAULT_PAGE_REQUEST_PASID_VALID | \
			 IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID)

static const struct field_case field_cases[] = {
	{ "read", WITH_PASID, 0x7000 | PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0x7000 } },
	{ "write", WITH_PASID, 0x7000 | PRQ_WRITE | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_WRITE, 0x7000 } },
	{ "execute", WITH_PASID | PRQ_EXEC, PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_EXEC, 0 } },
	{ "execute bit without read", WITH_PASID | PRQ_EXEC, PRQ_WRITE | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_WRITE, 0 } },
	{ "privileged", WITH_PASID | PRQ_PRIV, PRQ_WRITE | PRQ_LPIG, FIRST, SUPERVISOR,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_WRITE | IOMMU_FAULT_PERM_PRIV, 0 } },
	{ "privileged, nested", WITH_PASID | PRQ_PRIV, PRQ_READ | PRQ_LPIG, NESTED, SUPERVISOR,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_PRIV, 0 } },
	{ "privileged, second stage", WITH_PASID | PRQ_PRIV, PRQ_READ | PRQ_LPIG, SECOND, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_PRIV, 0 } },
	{ "no PASID", 0, 0x7000 | PRQ_READ | PRQ_WRITE | PRQ_LPIG, FIRST, 0,
	  { FLAGS_LAST, IOMMU_NO_PASID, 0, IOMMU_FAULT_PERM_READ | IOMMU_FAULT_PERM_WRITE,
	    0x7000 } },
	{ "PASID bits without the present bit", WITH_PASID & ~PRQ_PASID_PRESENT,
	  PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_LAST, IOMMU_NO_PASID, 0, IOMMU_FAULT_PERM_READ, 0 } },
	{ "highest group", WITH_PASID, PRQ_INDEX | PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 511, IOMMU_FAULT_PERM_READ, 0 } },
	{ "lower half", WITH_PASID, 0x7ffffffff000 | PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0x7ffffffff000 } },
	{ "upper half", WITH_PASID, 0xffff800000000000 | PRQ_READ | PRQ_LPIG, NESTED, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0xffff800000000000 } },
	{ "five levels", WITH_PASID, 0x800000000000 | PRQ_READ | PRQ_LPIG, FIRST, FIVE_LEVELS,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0x800000000000 } },
	{ "second stage", WITH_PASID, 0x800000000000 | PRQ_READ | PRQ_LPIG, SECOND, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0x800000000000 } },
	{ "reserved bits", WITH_PASID | GENMASK_ULL(15, 9) | GENMASK_ULL(63, 54),
	  PRQ_READ | PRQ_LPIG, FIRST, 0,
	  { FLAGS_PASID, PASID, 0, IOMMU_FAULT_PERM_READ, 0 } },
};

static struct {
	unsigned int count;
	struct device *dev;
	struct iommu_fault fault;
} reported;

static void keep_report(struct device *dev, struct iopf_fault *evt)
{
	reported.count++;
	reported.dev = dev;
	reported.fault = evt->fault;
}

/* Each field, as the core is told of it */
static void prq_test_fields(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[1];
	const struct field_case *c;

	kunit_activate_static_stub(test, prq_report, keep_report);
	for (c = field_cases; c < field_cases + ARRAY_SIZE(field_cases); c++) {
		set_entry(device, PASID, c->entry, c->bits);
		reported.count = 0;
		put_raw(fake, word0(device, IOMMU_NO_PASID) | c->qw0, c->qw1);
		run(fake);
		KUNIT_EXPECT_EQ_MSG(test, 1, reported.count, "%s", c->name);
		KUNIT_EXPECT_PTR_EQ(test, device->dev, reported.dev);
		KUNIT_EXPECT_EQ(test, IOMMU_FAULT_PAGE_REQ, reported.fault.type);
		KUNIT_EXPECT_MEMEQ_MSG(test, &c->prm, &reported.fault.prm, sizeof(c->prm), "%s",
				       c->name);
	}
}

/* One request of each kind is the same message as of other IOMMUs. */
static void prq_test_kinds(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[1];
	const struct iopf_kind *kind;
	u64 qw0, qw1;

	kunit_activate_static_stub(test, prq_report, keep_report);
	set_entry(device, PASID, FIRST, SUPERVISOR);
	for (kind = iopf_kinds; kind < iopf_kinds + ARRAY_SIZE(iopf_kinds); kind++) {
		qw0 = word0(device, kind->with_pasid ? PASID : IOMMU_NO_PASID) |
		      (kind->perm & IOMMU_FAULT_PERM_EXEC ? PRQ_EXEC : 0) |
		      (kind->perm & IOMMU_FAULT_PERM_PRIV ? PRQ_PRIV : 0);
		qw1 = kind->addr | FIELD_PREP(PRQ_INDEX, kind->grpid) | PRQ_LPIG |
		      (kind->perm & IOMMU_FAULT_PERM_READ ? PRQ_READ : 0) |
		      (kind->perm & IOMMU_FAULT_PERM_WRITE ? PRQ_WRITE : 0);
		reported.count = 0;
		put_raw(fake, qw0, qw1);
		run(fake);
		KUNIT_EXPECT_EQ_MSG(test, 1, reported.count, "%s", kind->name);
		iopf_kind_expect(test, kind, PASID, &reported.fault);
	}
}

/* What cannot be served is answered INVALID, with nobody bothered. */
static const struct field_case refused_cases[] = {
	{ "privileged, not allowed by the domain", WITH_PASID | PRQ_PRIV, PRQ_READ, FIRST, 0 },
	{ "privileged, nested and not allowed", WITH_PASID | PRQ_PRIV, PRQ_READ, NESTED, 0 },
	{ "privileged without PASID", PRQ_PRIV, PRQ_READ, FIRST, SUPERVISOR },
	{ "execute without PASID", PRQ_EXEC, PRQ_READ, FIRST, 0 },
	{ "nothing, without PASID", 0, 0, FIRST, 0 },
	{ "not canonical", WITH_PASID, 0x800000000000 | PRQ_READ, FIRST, 0 },
	{ "not canonical, upper", WITH_PASID, 0xffff7ffffffff000 | PRQ_READ, NESTED, 0 },
	{ "not canonical, five levels", WITH_PASID, 1ULL << 56 | PRQ_READ, FIRST, FIVE_LEVELS },
	{ "beyond the second stage", WITH_PASID, 0xffff800000000000 | PRQ_READ, SECOND, 0 },
	{ "PASID that nothing is attached to",
	  PRQ_PASID_PRESENT | FIELD_PREP_CONST(PRQ_PASID, PASIDS), PRQ_READ, FIRST, 0 },
	{ "PASID beyond the table", PRQ_PASID_PRESENT | PRQ_PASID, PRQ_READ, FIRST, 0 },
};

static void prq_test_refused(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[0];
	const struct field_case *c;
	u64 expected;

	for (c = refused_cases; c < refused_cases + ARRAY_SIZE(refused_cases); c++) {
		set_entry(device, PASID, c->entry, c->bits);
		put_raw(fake, word0(device, IOMMU_NO_PASID) | c->qw0, c->qw1 | PRQ_LPIG);
		run(fake);
		KUNIT_EXPECT_EQ_MSG(test, 0, fake->n_groups, "%s", c->name);
		expected = 0x20081009;
		if (c->qw0 & PRQ_PASID_PRESENT)
			expected |= BIT_ULL(4) | (c->qw0 & PRQ_PASID);
		KUNIT_EXPECT_EQ_MSG(test, expected, fake->last.qw0, "%s", c->name);
	}
	KUNIT_EXPECT_EQ(test, ARRAY_SIZE(refused_cases), fake->n_answers);
}

/* The device's capability must have a permission enabled. */
static void prq_test_device_permissions(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[0];

	device->info.pasid_supported = 1;
	set_entry(device, PASID, FIRST, SUPERVISOR);
	put_raw(fake, word0(device, PASID) | PRQ_EXEC, PRQ_READ | PRQ_LPIG);
	put_raw(fake, word0(device, PASID) | PRQ_PRIV, PRQ_READ | PRQ_LPIG);
	put_raw(fake, word0(device, PASID), PRQ_READ | PRQ_LPIG);
	run(fake);
	KUNIT_EXPECT_EQ(test, 2, fake->n_code[QI_RESP_INVALID]);
	KUNIT_EXPECT_EQ(test, 2, fake->n_answers);
	KUNIT_EXPECT_EQ(test, 1, fake->n_groups);
}

/* One bad request spoils its group, and leaves nothing behind for the next. */
static void prq_test_refused_in_group(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[0];

	put(fake, device, PASID, 7, false);
	put_raw(fake, word0(device, PASID), 1ULL << 60 | FIELD_PREP(PRQ_INDEX, 7) | PRQ_READ);
	put(fake, device, PASID, 8, false);
	put(fake, device, PASID, 7, true);
	run(fake);
	KUNIT_EXPECT_EQ(test, 0, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 1, fake->n_code[QI_RESP_INVALID]);
	KUNIT_EXPECT_EQ(test, 1, fake->answered[7]);

	/* a bad last one */
	put_raw(fake, word0(device, PASID),
		1ULL << 60 | FIELD_PREP(PRQ_INDEX, 8) | PRQ_READ | PRQ_LPIG);
	put(fake, device, PASID, 7, true);
	put(fake, device, PASID, 8, true);
	run(fake);
	KUNIT_EXPECT_EQ(test, 2, fake->n_code[QI_RESP_INVALID]);
	KUNIT_EXPECT_EQ(test, 2, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 2, fake->n_requests);
}

/* Malformed, and no request at all: no answer, and what follows is unharmed. */
static void prq_test_malformed(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[0];

	put_raw(fake, 0, 0);
	put_raw(fake, ~0ULL, ~0ULL);
	put_raw(fake, word0(device, PASID) ^ PRQ_TYPE_REQUEST ^ 2, PRQ_READ | PRQ_LPIG);
	put_raw(fake, word0(device, PASID), FIELD_PREP(PRQ_INDEX, 3));
	run(fake);
	KUNIT_EXPECT_EQ(test, 0, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 0, fake->n_answers);

	/* it was asked for nothing in group 3, so nothing is granted to it */
	put(fake, device, PASID, 3, true);
	put(fake, device, PASID, 4, true);
	run(fake);
	KUNIT_EXPECT_EQ(test, 1, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 1, fake->answered[3]);
}

static void prq_test_unknown_device(struct kunit *test)
{
	struct fake *fake = test->priv;
	u64 qw0 = word0(&fake->device[0], PASID) ^ FIELD_PREP(PRQ_SID, 0xffff);

	put_raw(fake, qw0, PRQ_READ);
	put_raw(fake, qw0, PRQ_READ | PRQ_LPIG | FIELD_PREP(PRQ_INDEX, 5));
	put(fake, &fake->device[0], PASID, 6, true);
	put_raw(fake, qw0, PRQ_LPIG);
	run(fake);
	KUNIT_EXPECT_EQ(test, 1, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 1, fake->n_answers);
	KUNIT_EXPECT_EQ(test, 0x00000001dff71019, fake->last.qw0);
	KUNIT_EXPECT_EQ(test, 5 << 3, fake->last.qw1);
}

/* It has no answer and ends the PASID's collecting groups, those alone. */
static void prq_test_stop_marker(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct fake_device *device = &fake->device[0];

	put(fake, device, 1, 5, false);
	put(fake, device, 2, 5, false);
	put(fake, &fake->device[1], 1, 5, false);
	/* what else it may have of the PASID's prefix is reserved */
	put_raw(fake, word0(device, 1) | PRQ_EXEC | PRQ_PRIV, PRQ_LPIG);
	run(fake);
	KUNIT_EXPECT_EQ(test, 0, fake->n_answers);

	put(fake, device, 1, 5, true);
	run(fake);
	KUNIT_EXPECT_EQ(test, 1, fake->n_requests);
	put(fake, device, 2, 5, true);
	put(fake, &fake->device[1], 1, 5, true);
	run(fake);
	KUNIT_EXPECT_EQ(test, 3, fake->n_groups);
	KUNIT_EXPECT_EQ(test, 5, fake->n_requests);
}

/* The same group id under several PASIDs and none, from two devices, mixed */
static void prq_test_mixed(struct kunit *test)
{
	struct fake *fake = test->priv;
	unsigned int i, pass, seen[DEVICES][PASIDS] = {};
	struct iopf_group *group;
	struct iopf_fault *iopf;
	u32 pasid;

	for (pass = 0; pass < 3; pass++) {
		for (i = 0; i < DEVICES * PASIDS; i++)
			put(fake, &fake->device[i % DEVICES], i / DEVICES, 9, pass == 2);
	}
	run(fake);
	/* no domain is on the RIDs */
	KUNIT_EXPECT_EQ(test, DEVICES, fake->n_code[QI_RESP_INVALID]);
	KUNIT_EXPECT_EQ(test, DEVICES * (PASIDS - 1), fake->n_groups);
	list_for_each_entry(group, &fake->groups, node) {
		i = group->fault_param->dev == fake->device[1].dev;
		pasid = group->last_fault.fault.prm.pasid;
		seen[i][pasid]++;
		KUNIT_EXPECT_EQ(test, 3, group->fault_count);
		KUNIT_EXPECT_PTR_EQ(test, &fake->device[i].handles[pasid], group->attach_handle);
		list_for_each_entry(iopf, &group->faults, list)
			KUNIT_EXPECT_EQ(test, pasid, iopf->fault.prm.pasid);
	}
	for (i = DEVICES; i < DEVICES * PASIDS; i++)
		KUNIT_EXPECT_EQ(test, 1, seen[i % DEVICES][i / DEVICES]);
	prq_fake_answer_all(fake, 3, IOMMU_PAGE_RESP_SUCCESS);
	KUNIT_EXPECT_EQ(test, DEVICES * PASIDS, fake->answered[9]);
}

static struct kunit_case prq_test_requests_cases[] = {
	KUNIT_CASE(prq_test_fields),
	KUNIT_CASE(prq_test_kinds),
	KUNIT_CASE(prq_test_refused),
	KUNIT_CASE(prq_test_device_permissions),
	KUNIT_CASE(prq_test_refused_in_group),
	KUNIT_CASE(prq_test_malformed),
	KUNIT_CASE(prq_test_unknown_device),
	KUNIT_CASE(prq_test_stop_marker),
	KUNIT_CASE(prq_test_mixed),
	{}
};

static struct kunit_suite prq_test_requests_suite = {
	.name = "intel-prq-requests",
	.init = prq_test_init,
	.exit = prq_test_exit,
	.test_cases = prq_test_requests_cases,
};

kunit_test_suite(prq_test_requests_suite);
