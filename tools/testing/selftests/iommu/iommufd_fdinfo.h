/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Files of text: numbers that the kernel shows, of a fault queue or a device, and what it
 * is told
 */
#ifndef __SELFTEST_IOMMUFD_FDINFO_H
#define __SELFTEST_IOMMUFD_FDINFO_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The number behind @name and @end in a line of a file, or -1. */
static inline long named_number(const char *path, const char *name, char end)
{
	size_t n = strlen(name);
	char line[128];
	long value = -1;
	FILE *f;

	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, name, n) && line[n] == end)
			value = strtol(line + n + 1, NULL, 10);
	}
	if (f)
		fclose(f);
	return value;
}

/* The first line of a file, "" if there is none */
static inline void first_line(const char *path, char *line, int size)
{
	FILE *f = fopen(path, "re");

	if (!f || !fgets(line, size, f))
		line[0] = 0;
	if (f)
		fclose(f);
}

/* The lines of /dev/kmsg since the last call that have @text in them */
static inline int log_lines(int kmsg, const char *text)
{
	char line[1024];
	int lines = 0;
	ssize_t n;

	/* each read gives one line, or EPIPE for those that were lost */
	while ((n = read(kmsg, line, sizeof(line) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		line[n > 0 ? n : 0] = 0;
		lines += !!strstr(line, text);
	}
	return lines;
}

/* To a file of sysfs, say */
static inline int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

/*
 * Let the devices that are attached from now on have memory for so many page requests from
 * the start, so that none is told to try again. Returns the number of before, or -1 for a
 * kernel that has no such thing.
 */
static inline long reserve_requests(unsigned int number)
{
	const char *path = "/sys/module/io_pgfault/parameters/reserve";
	char before[16], now[16];

	first_line(path, before, sizeof(before));
	snprintf(now, sizeof(now), "%u", number);
	if (!before[0] || write_file(path, now))
		return -1;
	return atol(before);
}

static long reserved_before;
static pid_t reserved_by;

static inline void reserve_as_before(void)
{
	if (getpid() == reserved_by && reserved_before >= 0)
		reserve_requests(reserved_before);
}

/* The same until this program ends, but not those that it forks. */
static inline void reserve_until_exit(unsigned int number)
{
	reserved_by = getpid();
	reserved_before = reserve_requests(number);
	atexit(reserve_as_before);
}

/* The number behind @name in the fdinfo of a descriptor, or -1. */
static inline long fdinfo_number(int fd, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	return named_number(path, name, ':');
}

#endif
