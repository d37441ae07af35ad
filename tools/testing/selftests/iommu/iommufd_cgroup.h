/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A memory cgroup of a test's own
 */
#ifndef __SELFTEST_IOMMUFD_CGROUP_H
#define __SELFTEST_IOMMUFD_CGROUP_H

#include <sched.h>
#include <stdbool.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "iommufd_fdinfo.h"

#define CGROUP_ROOT "/tmp/iommufd-cgroup"
#define CGROUP CGROUP_ROOT "/test"

/*
 * Put the calling process into the cgroup. The mount is for it and its children alone, and
 * ends with them.
 */
static inline bool cgroup_enter(void)
{
	if (access(CGROUP_ROOT "/cgroup.procs", F_OK)) {
		mkdir(CGROUP_ROOT, 0755);
		if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount("cgroup2", CGROUP_ROOT, "cgroup2", 0, NULL))
			return false;
	}
	write_file(CGROUP_ROOT "/cgroup.subtree_control", "+memory");
	mkdir(CGROUP, 0755);
	return !write_file(CGROUP "/cgroup.procs", "0") && !access(CGROUP "/memory.high", F_OK);
}

/* Back to where all are; the cgroup stays. */
static inline void cgroup_leave(void)
{
	write_file(CGROUP_ROOT "/cgroup.procs", "0");
}

/* How often something happened there, or -1: a counter of memory.events */
static inline long cgroup_event(const char *name)
{
	return named_number(CGROUP "/memory.events", name, ' ');
}

#endif
