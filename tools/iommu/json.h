/* SPDX-License-Identifier: GPL-2.0-only */
/* Writes JSON, with commas where they belong; the caller closes what it opens. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
	FILE *file;
	/* something precedes at this level */
	bool comma;
};

/* key is NULL in an array and at the top. */
void json_open(struct json *json, const char *key, char bracket);
void json_close(struct json *json, char bracket);
void json_number(struct json *json, const char *key, uint64_t value);
void json_real(struct json *json, const char *key, double value);
void json_string(struct json *json, const char *key, const char *value);
/* Ends a line of its own, so that each can be taken at once. */
void json_line(struct json *json);

#endif
