/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The harness, for programs that need a device: where every test was skipped,
 * the program is skipped too. Otherwise who runs many programs would take it
 * for one that has passed. A test may take its time: an emulated machine beside
 * others, with KASAN, is a hundred times slower than most.
 */
#ifndef __SELFTEST_IOMMUFD_HARNESS_H
#define __SELFTEST_IOMMUFD_HARNESS_H

#include "../kselftest_harness.h"
#include "iommufd_fdinfo.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 300

/*
 * As many as a queue holds, for who does not ask for another number: tests count what is
 * delivered, so that no request of theirs is to be tried again.
 */
#ifndef HARNESS_RESERVE
#define HARNESS_RESERVE	4096
#endif

/* At the end of the program that has the plan: those that tests fork are not that far. */
static inline void harness_exit(void)
{
	if (ksft_plan && ksft_cnt.ksft_xskip == ksft_plan) {
		fflush(NULL);
		_exit(KSFT_SKIP);
	}
}

static void __attribute__((constructor)) harness_begin(void)
{
	atexit(harness_exit);
	/* What is registered last comes first. */
	reserve_until_exit(HARNESS_RESERVE);
}

#endif
