#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# A kselftest whose tests are all skipped ends with 0, and the runner says ok without SKIP.
#
# Expected: a program that skipped every test ends with 4, KSFT_SKIP, as one does that calls
#   ksft_exit_skip(), and run_kselftest.sh writes "ok ... # SKIP".
# Seen: with kselftest_harness.h each test is "ok N ... # SKIP", but the harness adds "PASSED: 2 /
#   2 tests passed" and the program ends with 0; the runner writes "ok 1" and counts it under
#   pass. Beside it, a program that calls ksft_exit_skip() is "# SKIP".
# Versions: kselftest of Debian's linux-source-7.3, 7.3.4-1~bpo13+1.
# Why it matters: tests of hardware that the machine has not, or of a kernel without the option,
#   read as if they had passed. Only who counts the tests within the program sees that nothing
#   ran.
# Date: 2026-11-29
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

run() { inside sh "$tmp/kselftest/run_kselftest.sh" | cat; }

source_files 'tools/testing/selftests/kselftest*.h' 'tools/testing/selftests/kselftest/*.*' \
	tools/testing/selftests/run_kselftest.sh
tests=$tmp/linux/tools/testing/selftests
mkdir -p "$tmp/kselftest/mine"
cp -r "$tests/kselftest" "$tests/run_kselftest.sh" "$tmp/kselftest"
chmod +x "$tmp/kselftest/kselftest/prefix.pl"
tools gcc-14 libc6-dev "linux-libc-dev=$kernel73_version" coreutils grep sed dash perl-base

cat >"$tmp/harness.c" <<'C'
#include "kselftest_harness.h"

FIXTURE(device) {
	int fd;
};

FIXTURE_SETUP(device)
{
	SKIP(return, "there is no such device");
}

FIXTURE_TEARDOWN(device)
{
}

TEST_F(device, reads)
{
	ASSERT_EQ(0, 1);
}

TEST_F(device, writes)
{
	ASSERT_EQ(0, 1);
}

TEST_HARNESS_MAIN
C
cat >"$tmp/plain.c" <<'C'
#include "kselftest.h"

int main(void)
{
	ksft_print_header();
	ksft_exit_skip("there is no such device\n");
}
C
for program in harness plain; do
	must "$program does not compile" $program inside x86_64-linux-gnu-gcc-14 -O1 -D_GNU_SOURCE \
		-I "$tests" "$tmp/$program.c" -o "$tmp/kselftest/mine/$program"
	say "mine:$program"
done >"$tmp/kselftest/kselftest-list.txt"

rc=0
step harness inside "$tmp/kselftest/mine/harness" || rc=$?
say "the program alone:"
{ cat "$tmp/log"; say "status $rc"; } | tee "$tmp/out"
expect '^ok 1 device.reads # SKIP ' "the first test"
expect '^ok 2 device.writes # SKIP ' "the second test"
expect '^# PASSED: 2 / 2 tests passed' "the harness's summary"
expect '^status 0$' "the program's status"

must "run_kselftest.sh" run_kselftest.sh run
say "run_kselftest.sh:"
grep -v '^# #' "$tmp/log" | tee "$tmp/out"
expect '^ok 1 selftests: mine: harness$' "the runner's line for the harness"
expect '^ok 2 selftests: mine: plain # SKIP' "the runner's line for ksft_exit_skip()"
expect '^# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:1 error:0$' "the runner's totals"
say "as described: all tests skipped is \"ok\" with the harness, and SKIP without it"
