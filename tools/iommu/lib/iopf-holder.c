// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Who keeps a device from us: found as /proc shows it, so of processes that we may look at. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "impl.h"

static bool is_link_to(const char *link, const char *path)
{
	char target[64];
	ssize_t n = readlink(link, target, sizeof(target));

	return n == (ssize_t)strlen(path) && !memcmp(target, path, (size_t)n);
}

/* Does the process have the file open, but for the descriptor fd, or -1? */
static bool has_open(const char *pid, const char *path, int fd)
{
	char link[300];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(link, sizeof(link), "/proc/%.16s/fd", pid);
	dir = opendir(link);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)entry->d_name[0]) || atoi(entry->d_name) == fd)
			continue;
		snprintf(link, sizeof(link), "/proc/%.16s/fd/%s", pid, entry->d_name);
		found = is_link_to(link, path);
	}
	closedir(dir);
	return found;
}

static void name_process(const char *pid, char *who, size_t size)
{
	char path[40], name[32] = "?";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
	file = fopen(path, "re");
	if (file) {
		if (fgets(name, sizeof(name), file))
			name[strcspn(name, "\n")] = 0;
		fclose(file);
	}
	snprintf(who, size, "%s, pid %s", name, pid);
}

bool find_holder(const char *path, int fd, char *who, size_t size)
{
	struct dirent *entry;
	bool found = false;
	DIR *dir = opendir("/proc");

	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		found = has_open(entry->d_name, path, atoi(entry->d_name) == getpid() ? fd : -1);
		if (found)
			name_process(entry->d_name, who, size);
	}
	closedir(dir);
	return found;
}
