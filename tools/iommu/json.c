// SPDX-License-Identifier: GPL-2.0-only
#include "json.h"

static void put_string(struct json *json, const char *s)
{
	fputc('"', json->file);
	for (; *s; s++) {
		if ((unsigned char)*s < ' ' || *s == '"' || *s == '\\')
			fprintf(json->file, "\\u%04x", (unsigned char)*s);
		else if ((unsigned char)*s < 0x80)
			fputc(*s, json->file);
		else
			fputc('?', json->file);
	}
	fputc('"', json->file);
}

static void put_key(struct json *json, const char *key)
{
	if (json->comma)
		fputs(", ", json->file);
	json->comma = true;
	if (!key)
		return;
	put_string(json, key);
	fputs(": ", json->file);
}

void json_open(struct json *json, const char *key, char bracket)
{
	put_key(json, key);
	fputc(bracket, json->file);
	json->comma = false;
}

void json_close(struct json *json, char bracket)
{
	fputc(bracket, json->file);
	json->comma = true;
}

void json_number(struct json *json, const char *key, uint64_t value)
{
	put_key(json, key);
	fprintf(json->file, "%llu", (unsigned long long)value);
}

void json_real(struct json *json, const char *key, double value)
{
	put_key(json, key);
	fprintf(json->file, "%.6f", value);
}

void json_string(struct json *json, const char *key, const char *value)
{
	put_key(json, key);
	put_string(json, value);
}

void json_line(struct json *json)
{
	fputc('\n', json->file);
	fflush(json->file);
	json->comma = false;
}
