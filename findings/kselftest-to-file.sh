#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# run_kselftest.sh overwrites what its tests said, if its output goes to a file.
#
# Expected: "run_kselftest.sh >log" writes what "run_kselftest.sh | cat >log" writes.
# Seen: the runner's own lines go to its standard output, those of the tests to /dev/stdout, which
#   is opened anew for appending. A pipe is the same place for both; in a file each has a position
#   of its own, and the runner's lines are written over those of the tests. Of the three tests
#   here nothing is left. With ">>log" all is there.
# Versions: kselftest of Debian's linux-source-7.3, 7.3.4-1~bpo13+1.
# Why it matters: the results and the totals are right, so nobody looks until a test fails, and
#   then the reason is missing in the log that was kept.
# Date: 2026-11-29
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

# run COMMAND: in the folder of the tests
run() { inside sh -c "cd $tmp/kselftest && $1"; }

source_files 'tools/testing/selftests/kselftest/*.*' tools/testing/selftests/run_kselftest.sh
mkdir -p "$tmp/kselftest/mine"
cp -r "$tmp"/linux/tools/testing/selftests/{kselftest,run_kselftest.sh} "$tmp/kselftest"
chmod +x "$tmp/kselftest/kselftest/prefix.pl"
tools coreutils grep sed dash perl-base
for number in 1 2 3; do
	printf '#!/bin/sh\necho "test %d tells why"\n' $number >"$tmp/kselftest/mine/test$number.sh"
	chmod +x "$tmp/kselftest/mine/test$number.sh"
	say "mine:test$number.sh"
done >"$tmp/kselftest/kselftest-list.txt"

# tell LOG: how many of the tests are told of, in $tmp/out
tell() {
	local results told

	results=$(grep -c '^ok [123] selftests: mine: test[123].sh$' "$tmp/kselftest/$1" || true)
	told=$(grep -c '^# test [123] tells why$' "$tmp/kselftest/$1" || true)
	say "$1: $results results, $told of the 3 tests' lines" | tee "$tmp/out"
}

must "run_kselftest.sh" "to a pipe" run "sh run_kselftest.sh 2>&1 | cat >pipe"
tell pipe
expect '3 results, 3 of' "what a pipe gets"
must "run_kselftest.sh" "to a file's end" run "sh run_kselftest.sh >>append 2>&1"
tell append
expect '3 results, 3 of' "what a file gets by >>"
must "run_kselftest.sh" "to a file" run "sh run_kselftest.sh >file 2>&1"
tell file
sed 's/^/    /' "$tmp/kselftest/file"
expect '3 results, 0 of' "what a file gets by >"
say "as described: a file gets the results, and not what the tests said"
