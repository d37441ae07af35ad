// SPDX-License-Identifier: GPL-2.0-only
/*
 * What 'iopf-top --json' has written, back into samples.  A line is read as pairs of a
 * key and a value, in their order: "command" and "device" begin a source, and numbers in
 * "counters" are counters of it, whatever their names are.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "top.h"

/* The character behind a backslash; *at is moved to its last digit. */
static char escaped(const char **at)
{
	char digits[5] = "";

	if (**at != 'u' || strlen(*at) < 5)
		return **at;
	memcpy(digits, *at + 1, 4);
	*at += 4;
	return (char)strtoul(digits, NULL, 16);
}

/* A string without its quotes, as far as there is room; returns what follows it, or NULL. */
static const char *take_string(const char *at, char *text, size_t size)
{
	size_t n = 0;
	char c;

	for (at++; *at && *at != '"'; at++) {
		c = *at;
		if (c == '\\') {
			at++;
			c = escaped(&at);
		}
		if (!c)
			return NULL;
		if (n + 1 < size)
			text[n++] = c;
	}
	text[n] = 0;
	return *at ? at + 1 : NULL;
}

/* A string value. */
static bool set_text(struct sample *sample, const char *key, const char *text)
{
	bool is_device = !strcmp(key, "device");
	struct source *source;

	if (!strcmp(key, "devices_error"))
		snprintf(sample->devices_error, sizeof(sample->devices_error), "%s", text);
	if (!is_device && strcmp(key, "command"))
		return true;
	source = sample_add(sample);
	if (!source)
		return false;
	source->is_device = is_device;
	snprintf(source->name, sizeof(source->name), "%.*s", NAME_SIZE - 1, text);
	return true;
}

static void set_number(struct sample *sample, const char *key, uint64_t value, bool in_counters)
{
	struct source *source = sample->n ? &sample->sources[sample->n - 1] : NULL;

	if (!strcmp(key, "monotonic_ns") && !source)
		sample->ns = value;
	else if (source && in_counters)
		source_add(source, key, strlen(key), value);
	else if (source && !strcmp(key, "pid"))
		source->pid = (pid_t)value;
	else if (source && !strcmp(key, "fd"))
		source->fd = (int)value;
}

/* The value behind a key; returns what follows, or NULL. */
static const char *take_value(struct sample *sample, const char *at, const char *key,
			      bool *in_counters)
{
	char text[sizeof(sample->devices_error)], *end;

	if (*at == '"') {
		at = take_string(at, text, sizeof(text));
		return at && set_text(sample, key, text) ? at : NULL;
	}
	if (isdigit((unsigned char)*at)) {
		set_number(sample, key, strtoull(at, &end, 10), *in_counters);
		return end;
	}
	*in_counters |= !strcmp(key, "counters");
	return *at == '{' || *at == '[' ? at + 1 : NULL;
}

static int parse_look(struct sample *sample, const char *at)
{
	bool in_counters = false;
	char key[NAME_SIZE];

	while (at && *at && *at != '\n') {
		if (*at != '"') {
			in_counters &= *at != '}';
			at++;
			continue;
		}
		at = take_string(at, key, sizeof(key));
		if (!at || *at != ':')
			return -EPROTO;
		at += 1 + strspn(at + 1, " ");
		at = take_value(sample, at, key, &in_counters);
	}
	return at && sample->ns ? 0 : -EPROTO;
}

int sample_read(struct sample *sample, FILE *file)
{
	char *line = NULL;
	size_t room = 0;
	int rc = 1;

	sample->n = 0;
	sample->ns = 0;
	sample->devices_error[0] = 0;
	if (getline(&line, &room, file) > 0)
		rc = parse_look(sample, line);
	else if (ferror(file))
		rc = -EIO;
	free(line);
	return rc;
}
