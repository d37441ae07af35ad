#!/bin/sh
# SPDX-License-Identifier: GPL-2.0 OR MIT
# Let a device copy a file in each of the ways to serve its page faults: by a program, by the
# kernel, and with everything pinned, where there are none. One line each.
#
# usage: iopf-compare [OPTION OF iopf-server]...

status=0
for how in "--mode poll" "--mode read" "--mode multishot" "--mode serve" "--resolve kernel" \
	"--pin all"; do
	# shellcheck disable=SC2086 # an option and its value
	said=$(iopf-server "$@" $how) || status=1
	copied=$(printf '%s\n' "$said" | sed -n 's/^copy: 100%.* MiB  //p' | tail -n 1)
	printf '  %-18s%s\n' "$how" "$copied"
done
exit $status
