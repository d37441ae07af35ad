#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Build test-vmm-prq.c around vmm-prq.c, and run it: KTAP on standard output.
#
# usage: test-vmm-prq.sh [HEADERS]    HEADERS: the kernel's, as 'make headers' installs them
here=$(dirname "$(realpath "$0")")
build=$here/../../../build
if [ "${BASE:-6.12}" != 6.12 ]; then build=$build/$BASE; fi
headers=${1:-$build/headers/x86_64/usr/include}
work=$(mktemp -d) || exit
trap 'rm -r "$work"' EXIT

flags=(-O2 -Wall -Wextra -Werror -D_GNU_SOURCE -isystem "$headers" -I"$here/../../iommu")
lib=$here/../../iommu/lib
cc "${flags[@]}" -shared -fPIC -fvisibility=hidden -o "$work/vmm-prq.so" "$here/vmm-prq.c" \
	"$lib/iopf.c" "$lib/iopf-serve.c" || exit
cc -shared -fPIC -o "$work/kernel.so" -xc - <<-'C' || exit
	#include <stdarg.h>
	int kernel_ioctl(int fd, unsigned long request, void *arg);
	int ioctl(int fd, unsigned long request, ...)
	{
		va_list args;
		void *arg;

		va_start(args, request);
		arg = va_arg(args, void *);
		va_end(args);
		return kernel_ioctl(fd, request, arg);
	}
C
cc "${flags[@]}" -rdynamic -o "$work/test" "$here/test-vmm-prq.c" \
	-Wl,--no-as-needed -Wl,-rpath,"$work" "$work/vmm-prq.so" "$work/kernel.so" || exit

"$work/test"
status=$?
said=$("$work/test" with-a-queue-of-its-own 2>&1) &&
	[[ $said == *"needs no preload any more"* ]] && result=ok || result="not ok"
echo "$result 8 left_alone"
[ "$status" = 0 ] && [ "$result" = ok ]
