#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The histogram of latencies that Documentation/driver-api/iopf.rst shows: is it
# one of events and fields that the kernel has?  And, of bpftrace, trace-cmd and perf
# those that are here: do they see the faults of the mock device, and decode them?
#
# usage: iommufd_tracers.sh [PAGE [PROGRAM]]
#   PAGE     the page (default: that of the source tree)
#   PROGRAM  makes faults and answers them (default: a test of iommufd_fault)
here=$(dirname "$0")
page=${1:-$here/../../../../Documentation/driver-api/iopf.rst}
faults=${2:-$here/iommufd_fault -f fault -t codes}
events=/sys/kernel/tracing/events
dir=$(mktemp -d)
log=$dir/log
failed=0

# result NUMBER TEXT: of the command before
result() {
	if [ $? = 0 ]; then
		echo "ok $1 $2"
	else
		sed 's/^/# /' "$log"
		echo "not ok $1 $2"
		failed=1
	fi
}

# with NUMBER TEXT TRACER ARGUMENT...: is there such a program, and does this work here?
with() {
	if ! command -v "$3" >/dev/null; then
		echo "ok $1 $2 # SKIP there is no $3 here"
		return 1
	fi
	tracer=$3 number=$1 text=$2
	shift 2
	"$@" >"$log" 2>&1 && return
	echo "ok $number $text # SKIP $tracer fails: $(tail -n 1 "$log")"
	return 1
}

# Every field that the program names is in the format of its event.
fields_exist() {
	event=$(echo "$program" | sed -n 's/^t:\([a-z_]*\):\([a-z_]*\) .*/\1\/\2/p')
	[ -r "$events/$event/format" ] || return 1
	for field in $(echo "$program" | grep -o 'args->[a-z_]*' | sed 's/.*>//'); do
		grep -q "field:.* $field;" "$events/$event/format" || return 1
	done
}

# Rows of a histogram, of answers that user space (0) gave.
histogram() {
	bpftrace -e "$program" -c "$faults" >"$log" 2>&1 &&
		grep -q '^@ns\[0\]:' "$log" && grep -q '^\[.*@.*|$' "$log"
}

# The log has each of the three answers by name, and who gave them.
decoded() {
	for code in success invalid failure; do
		grep -q "iopf_page_response: .* code=$code by=user " "$log" || return 1
	done
}

echo "TAP version 13"
echo "1..5"
program=$(sed -n "s/^ *bpftrace -e '\(.*\)'$/\1/p" "$page")
: >"$log"
[ "$(echo "$program" | grep -c 'args->')" = 1 ]
result 1 "the page has one program"
fields_exist
result 2 "the kernel has its event and fields"
if with 3 "bpftrace: a histogram of the answers" bpftrace -e 'BEGIN { exit(); }'; then
	histogram
	result 3 "bpftrace: a histogram of the answers"
fi
if with 4 "trace-cmd: names of codes and causes" trace-cmd list -e iopf; then
	trace-cmd record -o "$dir/trace" -e iopf $faults >"$log" 2>&1 &&
		trace-cmd report -i "$dir/trace" >"$log" 2>&1 && decoded
	result 4 "trace-cmd: names of codes and causes"
fi
if with 5 "perf: names of codes and causes" perf stat -e 'iopf:*' true; then
	perf record -a -o "$dir/perf" -e 'iopf:*' $faults >"$log" 2>&1 &&
		perf script -i "$dir/perf" >"$log" 2>&1 && decoded
	result 5 "perf: names of codes and causes"
fi
rm -rf "$dir"
exit $failed
