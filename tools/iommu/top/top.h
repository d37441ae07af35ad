/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * iopf-top: the kernel's counters of page faults, for each fault queue and each
 * device.  collect.c reads them, show.c puts them on a screen or into JSON, replay.c
 * takes them from there again.
 *
 * Which counters there are is the kernel's business: they are taken by the names
 * that it gives them.  Only the short table of the live view knows some.
 */
#ifndef TOP_H
#define TOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define MAX_COUNTERS 96
#define NAME_SIZE 40

struct counter {
	char name[NAME_SIZE];
	uint64_t value;
};

/* A queue, as an open file of a process; or a device. */
struct source {
	bool is_device;
	/* command or device */
	char name[NAME_SIZE];
	/* of a queue */
	pid_t pid;
	int fd;
	unsigned int n;
	struct counter counters[MAX_COUNTERS];
};

struct sample {
	uint64_t ns;
	struct source *sources;
	size_t n, room;
	/* why there are no devices, or "" */
	char devices_error[160];
};

/* collect.c: 0 or a negative errno; what was in the sample before is gone. */
int sample_take(struct sample *sample);
void sample_free(struct sample *sample);
/* A source more, or NULL; a counter of a source, if there is room. */
struct source *sample_add(struct sample *sample);
void source_add(struct source *source, const char *name, size_t length, uint64_t value);
/* The same queue or device in another sample, or NULL. */
const struct source *sample_find(const struct sample *sample, const struct source *like);
const struct counter *counter_find(const struct source *source, const char *name);

/* replay.c: the next look of a record: 0, 1 at its end, or a negative errno */
int sample_read(struct sample *sample, FILE *file);

/* show.c: before is the last sample, or one without sources */
void show_json(const struct sample *now, FILE *file);
/* Every counter, with its rate if there is a sample before. */
void show_all(const struct sample *now, const struct sample *before, unsigned int width);
/* A line for each queue and device. */
void show_table(const struct sample *now, const struct sample *before);

#endif
