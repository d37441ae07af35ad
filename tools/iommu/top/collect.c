// SPDX-License-Identifier: GPL-2.0-only
/*
 * Queues are found as open files: /proc/PID/fd/N is a link to their name, and
 * /proc/PID/fdinfo/N has their counters.  A file that several descriptors or
 * processes share is taken once, if the kernel can tell (kcmp).  Devices have a
 * file or a directory each in debugfs.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <linux/kcmp.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "top.h"

#define QUEUE_FILE "anon_inode:[iommufd-pgfault]"
#define QUEUE_PREFIX "iommufd-fault-"
#define DEBUGFS "/sys/kernel/debug"
#define DEVICES DEBUGFS "/iommu/iopf"

struct source *sample_add(struct sample *sample)
{
	struct source *grown;

	if (sample->n == sample->room) {
		sample->room = sample->room ? 2 * sample->room : 16;
		grown = realloc(sample->sources, sample->room * sizeof(*grown));
		if (!grown)
			return NULL;
		sample->sources = grown;
	}
	grown = &sample->sources[sample->n++];
	memset(grown, 0, sizeof(*grown));
	return grown;
}

void source_add(struct source *source, const char *name, size_t length, uint64_t value)
{
	struct counter *counter = &source->counters[source->n];

	if (source->n == MAX_COUNTERS)
		return;
	snprintf(counter->name, sizeof(counter->name), "%.*s", (int)length, name);
	counter->value = value;
	source->n++;
}

/*
 * "name: number", the colon being optional; of names with a prefix only those, if
 * one is given.  A number alone is a counter called default_name.
 */
static void parse_line(struct source *source, const char *line, const char *prefix,
		       const char *default_name)
{
	size_t length;
	char *end;
	uint64_t value;

	if (prefix && strncmp(line, prefix, strlen(prefix)))
		return;
	line += prefix ? strlen(prefix) : 0;
	length = strcspn(line, ": \t");
	value = strtoull(line + length + strspn(line + length, ": \t"), &end, 0);
	if (isdigit((unsigned char)line[0]) && default_name) {
		value = strtoull(line, &end, 0);
		line = default_name;
		length = strlen(default_name);
	}
	if (length && (!*end || isspace((unsigned char)*end)))
		source_add(source, line, length, value);
}

static int parse_file(struct source *source, const char *path, const char *prefix,
		      const char *default_name)
{
	FILE *file = fopen(path, "re");
	char line[256];

	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file))
		parse_line(source, line, prefix, default_name);
	fclose(file);
	return 0;
}

static int is_number(const struct dirent *entry)
{
	return isdigit((unsigned char)entry->d_name[0]) != 0;
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* Call each() with every name of a directory that is chosen, in order. */
static int visit_names(struct sample *sample, const char *path,
		       int (*chosen)(const struct dirent *),
		       int (*each)(struct sample *sample, const char *dir, const char *name))
{
	struct dirent **entries;
	int n = scandir(path, &entries, chosen, versionsort), i, rc = 0;

	if (n < 0)
		return -errno;
	for (i = 0; i < n; i++) {
		if (!rc)
			rc = each(sample, path, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

static bool same_file(const struct source *a, pid_t pid, int fd)
{
	return !syscall(SYS_kcmp, a->pid, pid, KCMP_FILE, a->fd, fd);
}

static bool is_new(const struct sample *sample, pid_t pid, int fd)
{
	size_t i;

	for (i = 0; i < sample->n; i++) {
		if (same_file(&sample->sources[i], pid, fd))
			return false;
	}
	return true;
}

/* dir is /proc/PID/fd.  The file may be closed meanwhile: no error. */
static int take_fd(struct sample *sample, const char *dir, const char *name)
{
	char path[340], target[64];
	struct source *source;
	pid_t pid = atoi(dir + strlen("/proc/"));
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return 0;
	target[n] = 0;
	if (strcmp(target, QUEUE_FILE) || !is_new(sample, pid, atoi(name)))
		return 0;
	source = sample_add(sample);
	if (!source)
		return -ENOMEM;
	source->pid = pid;
	source->fd = atoi(name);
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", pid, name);
	if (parse_file(source, path, QUEUE_PREFIX, NULL))
		sample->n--;
	return 0;
}

static void name_process(struct source *source)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", source->pid);
	file = fopen(path, "re");
	if (!file || !fgets(source->name, sizeof(source->name), file))
		strcpy(source->name, "?");
	source->name[strcspn(source->name, "\n")] = 0;
	if (file)
		fclose(file);
}

/* A process that ends, or that is not ours to look at, has no queues. */
static int take_process(struct sample *sample, const char *dir, const char *name)
{
	size_t i = sample->n;
	char path[64];
	int rc;

	snprintf(path, sizeof(path), "%s/%.20s/fd", dir, name);
	rc = visit_names(sample, path, is_number, take_fd);
	for (; i < sample->n; i++)
		name_process(&sample->sources[i]);
	return rc == -ENOMEM ? rc : 0;
}

/* A file of a device's directory, for the device that was added last. */
static int take_device_file(struct sample *sample, const char *dir, const char *name)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	parse_file(&sample->sources[sample->n - 1], path, NULL, name);
	return 0;
}

static int take_device(struct sample *sample, const char *dir, const char *name)
{
	struct source *source = sample_add(sample);
	char path[320];

	if (!source)
		return -ENOMEM;
	source->is_device = true;
	snprintf(source->name, sizeof(source->name), "%.39s", name);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (visit_names(sample, path, is_visible, take_device_file))
		parse_file(source, path, NULL, NULL);
	return 0;
}

/* What keeps us from the counters of devices, and where. */
static void explain(struct sample *sample, int err)
{
	const char *hint = "";
	struct statfs fs;

	if (statfs(DEBUGFS, &fs) || (unsigned long)fs.f_type != DEBUGFS_MAGIC)
		hint = " (debugfs is not mounted on " DEBUGFS ")";
	else if (err == ENOENT)
		hint = " (this kernel has none)";
	else if (err == EACCES)
		hint = " (they are for root alone)";
	snprintf(sample->devices_error, sizeof(sample->devices_error), "%s: %s%s", DEVICES,
		 strerror(err), hint);
}

int sample_take(struct sample *sample)
{
	struct timespec ts;
	int rc;

	sample->n = 0;
	sample->devices_error[0] = 0;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	sample->ns = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	rc = visit_names(sample, "/proc", is_number, take_process);
	if (rc)
		return rc;
	rc = visit_names(sample, DEVICES, is_visible, take_device);
	if (rc && rc != -ENOMEM)
		explain(sample, -rc);
	return rc == -ENOMEM ? rc : 0;
}

void sample_free(struct sample *sample)
{
	free(sample->sources);
	*sample = (struct sample){ 0 };
}

const struct source *sample_find(const struct sample *sample, const struct source *like)
{
	size_t i;

	for (i = 0; i < sample->n; i++) {
		const struct source *s = &sample->sources[i];

		if (s->is_device == like->is_device && s->pid == like->pid && s->fd == like->fd &&
		    !strcmp(s->name, like->name))
			return s;
	}
	return NULL;
}

const struct counter *counter_find(const struct source *source, const char *name)
{
	unsigned int i;

	for (i = 0; i < source->n; i++) {
		if (!strcmp(source->counters[i].name, name))
			return &source->counters[i];
	}
	return NULL;
}
