#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# One KTAP log has three tests for prove and seven for kunit.py; a runner's has one of ten.
#
# Expected: KTAP is TAP with subtests, so its readers agree on how many tests passed, failed and
#   were skipped; what a kselftest says are subtests of the runner's line for it.
# Seen: prove (TAP::Parser) takes a suite for one test and passes over its lines; kunit.py counts
#   the tests of the suites and not the suites. So one log has 3 tests, 1 failed, 1 skipped, or 7
#   tests, 1 failed, 3 skipped. run_kselftest.sh puts "# " before a program's lines, which makes
#   them comments: for both a program of ten tests, five skipped, is one test that passed.
# Versions: perl 5.40.1-6+deb13u1; kunit.py and kselftest of Debian's linux-source-7.3,
#   7.3.4-1~bpo13+1.
# Why it matters: numbers of tests can be compared only if one program counted them, and a test
#   that is no longer there, or is skipped now, changes no number of the runner's.
# Date: 2026-11-29
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

prove() { inside prove --exec cat "$1"; }
kunit() { inside python3 "$tmp/linux/tools/testing/kunit/kunit.py" parse --summary "$1"; }
run() { inside sh -c "cd $tmp/kselftest && sh run_kselftest.sh | cat"; }

# count LOG: what both say of it, as two lines in $tmp/out; a failed test is a status of 1.
count() {
	step prove prove "$1" || true
	sed -n 's/.*(less \([0-9]*\) skipped.*/prove: \1 skipped/p
		s/.*(Wstat: .* Tests: \([0-9]*\) Failed: \([0-9]*\)).*/prove: \1 tests, \2 failed/p
		s/^Files=1, Tests=\([0-9]*\),.*/prove: \1 tests in all/p' "$tmp/log" >"$tmp/out"
	step kunit.py kunit "$1" || true
	sed -n 's/.*Testing complete. Ran/kunit.py: ran/p' "$tmp/log" >>"$tmp/out"
	cat "$tmp/out"
}

source_files 'tools/testing/kunit/*.py' 'tools/testing/kunit/*/*' \
	tools/testing/selftests/run_kselftest.sh 'tools/testing/selftests/kselftest/*.*'
tools coreutils grep sed dash python3 perl=5.40.1-6+deb13u1

cat >"$tmp/suites.log" <<'K'
KTAP version 1
1..3
    KTAP version 1
    # Subtest: queue
    1..4
    ok 1 alloc
    ok 2 pasid # SKIP there is no PASID
    ok 3 depth # XFAIL known
    not ok 4 overflow
not ok 1 queue
ok 2 header
    KTAP version 1
    # Subtest: device
    1..2
    ok 1 bind # SKIP there is no device
    ok 2 unbind # SKIP there is no device
ok 3 device # SKIP all of it
K
say "suites with subtests:"
count "$tmp/suites.log"
expect '^prove: 3 tests, 1 failed$' "what prove counts"
expect '^prove: 1 skipped$' "what prove takes for skipped"
expect '^kunit.py: ran 7 tests: passed: 3, failed: 1, skipped: 3$' "what kunit.py counts"

mkdir -p "$tmp/kselftest/mine"
cp -r "$tmp"/linux/tools/testing/selftests/{kselftest,run_kselftest.sh} "$tmp/kselftest"
chmod +x "$tmp/kselftest/kselftest/prefix.pl"
cat >"$tmp/kselftest/mine/ten.sh" <<'T'
#!/bin/sh
echo TAP version 13
echo 1..10
for i in 1 2 3 4 5; do echo "ok $i works"; done
for i in 6 7 8 9 10; do echo "ok $i device # SKIP there is no device"; done
T
chmod +x "$tmp/kselftest/mine/ten.sh"
say mine:ten.sh >"$tmp/kselftest/kselftest-list.txt"
must run_kselftest.sh run_kselftest.sh run
cp "$tmp/log" "$tmp/runner.log"
say "run_kselftest.sh with one program of ten tests:"
count "$tmp/runner.log"
expect '^prove: 1 tests in all$' "what prove counts of the runner's output"
expect '^kunit.py: ran 1 tests: passed: 1$' "what kunit.py counts of the runner's output"
say "as described: 3 or 7 tests, and 1 instead of 10"
