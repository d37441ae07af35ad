// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "top.h"

#define CELL 40
#define CELL_NAME 22
#define CELL_VALUE 10

/* The table's columns: what queues and devices call it; as a rate or as it is. */
static const struct column {
	const char *title;
	bool rate;
	const char *of_queue, *of_device;
} columns[] = {
	{ "LIMIT", false, "depth", "pool_limit" },
	{ "QUEUED", false, "queued", NULL },
	{ "OPEN", false, "delivered", "depth" },
	{ "PEAK", false, "peak", "depth_peak" },
	{ "REQ/s", true, "total-requests", "requests" },
	{ "GROUPS/s", true, "total-groups", "groups" },
	{ "OK/s", true, "answered-success", "answered_success" },
	{ "INVALID/s", true, "answered-invalid", "answered_invalid" },
	{ "FAILURE/s", true, "answered-failure", "answered_failure" },
	{ "NO-ROOM", false, "no-room", "no_room" },
	{ "LATE", false, "answers-stale", "stale" },
};

#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

static void json_source(struct json *json, const struct source *source)
{
	unsigned int i;

	json_open(json, NULL, '{');
	json_string(json, source->is_device ? "device" : "command", source->name);
	if (!source->is_device) {
		json_number(json, "pid", (uint64_t)source->pid);
		json_number(json, "fd", (uint64_t)source->fd);
	}
	json_open(json, "counters", '{');
	for (i = 0; i < source->n; i++)
		json_number(json, source->counters[i].name, source->counters[i].value);
	json_close(json, '}');
	json_close(json, '}');
}

static void json_sources(struct json *json, const struct sample *now, const char *key,
			 bool devices)
{
	size_t i;

	json_open(json, key, '[');
	for (i = 0; i < now->n; i++) {
		if (now->sources[i].is_device == devices)
			json_source(json, &now->sources[i]);
	}
	json_close(json, ']');
}

void show_json(const struct sample *now, FILE *file)
{
	struct json json = { .file = file };

	json_open(&json, NULL, '{');
	json_number(&json, "monotonic_ns", now->ns);
	json_sources(&json, now, "queues", false);
	json_sources(&json, now, "devices", true);
	if (now->devices_error[0])
		json_string(&json, "devices_error", now->devices_error);
	json_close(&json, '}');
	json_line(&json);
}

/* What a counter has grown by, in a second. */
static double rate(const struct sample *now, const struct sample *before,
		   const struct source *source, const struct counter *counter)
{
	const struct source *old = sample_find(before, source);
	const struct counter *was = old ? counter_find(old, counter->name) : NULL;

	if (!was || now->ns <= before->ns)
		return 0;
	return (double)(int64_t)(counter->value - was->value) * 1e9 /
	       (double)(now->ns - before->ns);
}

static void print_title(const struct source *source)
{
	if (source->is_device)
		printf("device %s\n", source->name);
	else
		printf("queue of %s, pid %d, fd %d\n", source->name, source->pid, source->fd);
}

static void print_cell(const struct counter *counter, double per_second, bool last)
{
	char growth[32] = "";

	if (per_second != 0)
		snprintf(growth, sizeof(growth), " %+.0f/s", per_second);
	printf("  %-*s%*llu%-*s%s", CELL_NAME, counter->name, CELL_VALUE,
	       (unsigned long long)counter->value, last ? 0 : CELL - CELL_NAME - CELL_VALUE - 2,
	       growth, last ? "\n" : "");
}

void show_all(const struct sample *now, const struct sample *before, unsigned int width)
{
	unsigned int per_line = width / CELL ? width / CELL : 1, i;
	size_t s;

	for (s = 0; s < now->n; s++) {
		const struct source *source = &now->sources[s];

		print_title(source);
		for (i = 0; i < source->n; i++)
			print_cell(&source->counters[i],
				   rate(now, before, source, &source->counters[i]),
				   (i + 1) % per_line == 0 || i + 1 == source->n);
	}
	if (!now->n)
		printf("no fault queue is open%s\n",
		       now->devices_error[0] ? "" : ", and no device has page requests");
}

static void print_column(const struct sample *now, const struct sample *before,
			 const struct source *source, const struct column *column)
{
	const char *name = source->is_device ? column->of_device : column->of_queue;
	const struct counter *counter = name ? counter_find(source, name) : NULL;

	if (!counter)
		printf(" %9s", "-");
	else if (column->rate)
		printf(" %9.0f", rate(now, before, source, counter));
	else
		printf(" %9llu", (unsigned long long)counter->value);
}

void show_table(const struct sample *now, const struct sample *before)
{
	char who[64];
	size_t s, c;

	printf("%-24s", "QUEUE OR DEVICE");
	for (c = 0; c < COLUMNS; c++)
		printf(" %9s", columns[c].title);
	putchar('\n');
	for (s = 0; s < now->n; s++) {
		const struct source *source = &now->sources[s];

		if (source->is_device)
			snprintf(who, sizeof(who), "%.24s", source->name);
		else
			snprintf(who, sizeof(who), "%.12s %d:%d", source->name, source->pid,
				 source->fd);
		printf("%-24.24s", who);
		for (c = 0; c < COLUMNS; c++)
			print_column(now, before, source, &columns[c]);
		putchar('\n');
	}
}
