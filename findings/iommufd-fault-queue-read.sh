#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# On an empty fault queue of stock iommufd read(2) ends at once, and io_uring's read waits.
#
# Expected: a blocking read of an empty IOMMU_FAULT_QUEUE_ALLOC file waits for a fault; with
#   O_NONBLOCK it is -EAGAIN; a buffer of a page is as good as any; io_uring's read does as
#   read(2).
# Seen: the file is blocking, poll() says that there is nothing to read, and read(2) of 40 or 4000
#   bytes is 0 at once; with O_NONBLOCK it is 0, too. 4096 bytes, no multiple of 40, are -ESPIPE.
#   io_uring's read of the same blocking file stays posted, whatever its size: what is wrong with
#   4096 it cannot say before a fault comes. With O_NONBLOCK it ends at once, with what read(2)
#   says.
# Versions: iommufd of Debian's linux-source-7.3 7.3.4-1~bpo13+1, as a module for Debian's kernel
#   of that version, which is built without IOMMUFD.
# Why it matters: a loop that takes 0 for the end of the file ends before the first fault, one
#   that takes it for "nothing yet" spins. A program can wait in poll() or by io_uring, and by
#   io_uring only without O_NONBLOCK, contrary to what one is used to.
# Date: 2026-11-29
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

# Debian builds its kernels without IOMMUFD: build it from Debian's source, as a module for
# Debian's kernel.
module() {
	local m=$tmp/module

	tools gcc-14 make bash coreutils sed grep findutils mawk dash perl-base \
		libelf1t64 libssl3t64 libdw1t64
	fetch "$root" "linux-headers-$kernel73-amd64=$kernel73_version" \
		"linux-headers-$kernel73-common=$kernel73_version" \
		"linux-kbuild-$kernel73=$kernel73_version"
	source_files 'drivers/iommu/iommufd/*.[ch]' drivers/iommu/iommu-priv.h \
		drivers/iommu/iommu-pages.h lib/interval_tree.c
	mkdir "$m"
	cp "$tmp"/linux/drivers/iommu/iommufd/*.[ch] "$m"
	cp "$tmp"/linux/drivers/iommu/*.h "$tmp"
	# The kernel has interval trees, but not their spans, which only IOMMUFD uses.
	sed '/^INTERVAL_TREE_DEFINE/,/^#ifdef/d; /^EXPORT_SYMBOL/d; /^#endif/d' \
		"$tmp/linux/lib/interval_tree.c" >"$m/spans.c"
	cat >"$m/Kbuild" <<-'K'
		ccflags-y += -DCONFIG_IOMMUFD_MODULE=1 -DCONFIG_IOMMUFD_DRIVER_CORE=1
		ccflags-y += -DCONFIG_IOMMUFD_DRIVER=1 -DCONFIG_INTERVAL_TREE_SPAN_ITER=1
		iommufd-y := device.o eventq.o hw_pagetable.o io_pagetable.o ioas.o main.o pages.o
		iommufd-y += vfio_compat.o viommu.o iova_bitmap.o driver.o spans.o
		obj-m += iommufd.o
	K
	must "iommufd does not compile" "iommufd.ko" inside \
		make -C "/usr/src/linux-headers-$kernel73-amd64" M="$m" CC=x86_64-linux-gnu-gcc-14 \
		CONFIG_DEBUG_INFO_BTF_MODULES= -j2 modules
}

compile empty <<'C'
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/iommufd.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static char buffer[4096];

static const char *result(long rc)
{
	static char text[20];

	if (rc < 0)
		return strerrorname_np(-rc);
	snprintf(text, sizeof(text), "%ld", rc);
	return text;
}

static const char *posted(int fd, int size)
{
	struct __kernel_timespec limit = { .tv_sec = 1 };
	const char *text = "stays posted";
	struct io_uring_cqe *cqe;
	struct io_uring ring;

	io_uring_queue_init(4, &ring, 0);
	io_uring_prep_read(io_uring_get_sqe(&ring), fd, buffer, size, -1);
	io_uring_submit(&ring);
	if (!io_uring_wait_cqe_timeout(&ring, &cqe, &limit))
		text = result(cqe->res);
	io_uring_queue_exit(&ring);
	return text;
}

static void try(const char *name, int fd)
{
	static const int sizes[] = { 32, 40, 4000, 4096 };
	struct pollfd state = { .fd = fd, .events = POLLIN };
	unsigned int i;

	poll(&state, 1, 0);
	printf("%s: poll %#x\n", name, state.revents);
	for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		ssize_t rc = read(fd, buffer, sizes[i]);

		printf("%s, %d bytes: read(2) %s,", name, sizes[i], result(rc < 0 ? -errno : rc));
		printf(" io_uring %s\n", posted(fd, sizes[i]));
	}
}

int main(void)
{
	struct iommu_fault_alloc queue = { .size = sizeof(queue) };
	int iommufd = open("/dev/iommu", O_RDWR);

	if (ioctl(iommufd, IOMMU_FAULT_QUEUE_ALLOC, &queue)) {
		perror("IOMMU_FAULT_QUEUE_ALLOC");
		return 1;
	}
	try("blocking", queue.out_fault_fd);
	fcntl(queue.out_fault_fd, F_SETFL, O_NONBLOCK);
	try("O_NONBLOCK", queue.out_fault_fd);
	return 0;
}
C

module
kernel 73
boot "$tmp/empty" "$tmp/module/iommufd.ko"
for mode in blocking O_NONBLOCK; do
	expect "^$mode: poll 0$" "poll of an empty queue, $mode"
	for size in 32 40 4000 4096; do
		said=0 posted='stays posted'
		if [ $((size % 40)) != 0 ]; then said=ESPIPE; fi
		if [ $mode = O_NONBLOCK ]; then posted=$said; fi
		expect "^$mode, $size bytes: read\(2\) $said, io_uring $posted$" \
			"reads of $size bytes, $mode"
	done
done
say "as described: read(2) never waits, io_uring's read does, unless the file is O_NONBLOCK"
