#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The histogram of latencies that Documentation/driver-api/iopf.rst shows: is it
# one of events and fields that the kernel has, and, if there is bpftrace, does it
# see the faults of the mock device?
#
# usage: iommufd_bpftrace.sh [PAGE [PROGRAM]]
#   PAGE     the page (default: that of the source tree)
#   PROGRAM  makes faults and answers them (default: a test of iommufd_fault)
here=$(dirname "$0")
page=${1:-$here/../../../../Documentation/driver-api/iopf.rst}
faults=${2:-$here/iommufd_fault -f fault -t codes}
events=/sys/kernel/tracing/events
log=$(mktemp)
failed=0

# result NUMBER TEXT: of the command before
result() {
	if [ $? = 0 ]; then
		echo "ok $1 $2"
	else
		echo "not ok $1 $2"
		failed=1
	fi
}

# Every field that the program names is in the format of its event.
fields_exist() {
	event=$(echo "$program" | sed -n 's/^t:\([a-z_]*\):\([a-z_]*\) .*/\1\/\2/p')
	[ -r "$events/$event/format" ] || return 1
	for field in $(echo "$program" | grep -o 'args->[a-z_]*' | sed 's/.*>//'); do
		grep -q "field:.* $field;" "$events/$event/format" || return 1
	done
}

echo "TAP version 13"
echo "1..3"
program=$(sed -n "s/^ *bpftrace -e '\(.*\)'$/\1/p" "$page")
[ "$(echo "$program" | grep -c 'args->')" = 1 ]
result 1 "the page has one program"
fields_exist
result 2 "the kernel has its event and fields"
if ! command -v bpftrace >/dev/null; then
	echo "ok 3 a histogram of the answers # SKIP there is no bpftrace here"
elif ! bpftrace -e 'BEGIN { exit(); }' >"$log" 2>&1; then
	echo "ok 3 a histogram of the answers # SKIP bpftrace fails: $(tail -n 1 "$log")"
else
	bpftrace -e "$program" -c "$faults" >"$log" 2>&1 && grep -q '^@ns\[0\]:' "$log"
	result 3 "a histogram of the answers"
fi
rm -f "$log"
exit $failed
