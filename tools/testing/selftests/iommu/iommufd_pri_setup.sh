#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A setup that fails leaves no device bound, for the harness runs no teardown then: each
# program is given one file descriptor more than the last time, until its test passes, and
# so fails at each place that needs one.
#
# usage: iommufd_pri_setup.sh [DIRECTORY]     of the programs (default: beside this)
dir=${1:-$(dirname "$0")}
driver=/sys/bus/pci/drivers/vfio-pci
most=40
n=0 failed=0 passed=0

# A program of each way to open a device, and a short test of it
tests="iommufd_pri:single_fault iommufd_pri_vf:refused iommufd_pri_power:enable_after_failure
	iommufd_pri_demand:dontneed"

bound() { (cd "$driver" 2>/dev/null && ls -d [0-9]*:* 2>/dev/null); }

# try PROGRAM TEST: what is wrong is in $why; 4 if there is no such device.
try() {
	fails=0 fds=5
	while [ $fds -lt $most ]; do
		said=$( (ulimit -n $fds && exec "$dir/$1" -t "$2") 2>&1)
		rc=$?
		why="with $fds descriptors this stays bound: $(echo $(bound))"
		[ -z "$(bound)" ] || return 1
		if [ $rc = 0 ]; then
			why="it has never failed"
			[ $fails != 0 ]
			return
		fi
		# what has so many and finds no device has none
		[ $rc != 4 ] || [ $fds -lt 20 ] || return 4
		fails=$((fails + (rc == 1)))
		fds=$((fds + 1))
	done
	why="it has never passed"
	echo "$said" | sed 's/^/# /'
	return 1
}

echo "TAP version 13"
echo "1..$(echo $tests | wc -w)"
if [ -n "$(bound)" ]; then
	echo "Bail out! In use is $(echo $(bound))"
	exit 1
fi
for test in $tests; do
	n=$((n + 1))
	try "${test%:*}" "${test#*:}"
	case $? in
	0) echo "ok $n $test, after $fails that failed"; passed=1 ;;
	4) echo "ok $n $test # SKIP no such device here" ;;
	*) echo "not ok $n $test: $why"; failed=1 ;;
	esac
done
[ $failed = 0 ] || exit 1
[ $passed = 1 ] || exit 4
