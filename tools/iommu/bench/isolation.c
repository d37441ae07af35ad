// SPDX-License-Identifier: GPL-2.0-only
/*
 * What tenants pay for one whose queue a great many reads wait for: the context that
 * reports faults is that of all devices, and may not go through them.
 *
 *   report  the injecting ioctl, one fault of the device with that queue
 *   tenant  from the report of a fault of both devices, first of the one with that
 *           queue, until the other one's was read and answered: the 99th percentile
 *
 * Each is measured alone, when nobody waits, and beside those reads.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

#define ROUNDS 1000

/* Queue 0 is that of the reads. */
enum { BUSY, OTHER };

static uint64_t ns[ROUNDS];

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t percentile(unsigned int percent)
{
	qsort(ns, ROUNDS, sizeof(ns[0]), compare);
	return ns[ROUNDS * percent / 100];
}

/* One fault of each device; the time until the report, or the other one's answer, is over. */
static int one_round(struct bench *b, struct bench *reads, uint64_t *time)
{
	uint64_t begin = now();
	int rc = b->spec.source->inject(b);

	if (!rc && b->n_queues > OTHER)
		rc = take_by_read(b, &b->queues[OTHER]) == 1 ? 0 : -1;
	*time = now() - begin;
	if (rc)
		return rc;
	if (reads)
		return reads->spec.mode->serve(reads);
	return take_by_read(b, &b->queues[BUSY]) == 1 ? 0 : -1;
}

static int rounds(struct bench *b, struct bench *reads)
{
	unsigned int i, warm_up;
	int rc = 0;

	for (warm_up = 0; warm_up < 2; warm_up++)
		for (i = 0; i < ROUNDS && !rc; i++)
			rc = one_round(b, reads, &ns[i]);
	return rc;
}

static int beside(struct bench *b, unsigned int waiters)
{
	struct bench reads = *b;
	int rc;

	reads.n_queues = 1;
	reads.spec.mode = &posted_mode;
	reads.spec.batch = 1;
	reads.spec.waiters = waiters;
	rc = posted_mode.open(&reads);
	if (!rc)
		rc = rounds(b, &reads);
	if (!rc)
		rc = posted_mode.flush(&reads);
	posted_mode.close(&reads);
	if (rc)
		b->io = reads.io;
	return rc;
}

static int isolation(const char *name, unsigned int devices, unsigned int percent,
		     unsigned int waiters)
{
	struct bench b = {
		.spec = {
			.source = &mock_source, .batch = devices, .devices = devices,
			.objects = devices,
		},
	};
	uint64_t alone = 0;
	int rc;

	rc = iopf_open(&b.io);
	while (!rc && b.n_queues < devices)
		rc = iopf_queue_alloc(&b.io, 0, &b.queues[b.n_queues++]);
	if (!rc)
		rc = mock_source.open(&b);
	if (!rc)
		rc = rounds(&b, NULL);
	if (!rc)
		alone = percentile(percent);
	if (!rc)
		rc = beside(&b, waiters);
	if (!rc)
		rc = mock_source.check(&b, 4ull * ROUNDS * devices);
	printf("{\"case\": \"isolation: %s\", \"waiters\": %u, ", name, waiters);
	printf("\"alone\": %llu, \"beside\": %llu, \"error\": \"%s\"}\n", (unsigned long long)alone,
	       rc ? 0 : (unsigned long long)percentile(percent), rc ? iopf_error(&b.io) : "");
	mock_source.close(&b);
	iopf_close(&b.io);
	return rc;
}

int print_isolation(unsigned int waiters)
{
	return isolation("report", 1, 50, waiters) || isolation("tenant", 2, 99, waiters);
}
