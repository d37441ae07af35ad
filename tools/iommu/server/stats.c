// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <time.h>

#include "server.h"

#define BAR_WIDTH 40

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Values below HISTOGRAM_SUB have a bucket each. */
static unsigned int bucket_of(uint64_t value)
{
	unsigned int shift;

	if (value < HISTOGRAM_SUB)
		return (unsigned int)value;
	/* how far to shift for a number from SUB to 2 * SUB - 1 */
	shift = 60 - (unsigned int)__builtin_clzll(value);
	return shift * HISTOGRAM_SUB + (unsigned int)(value >> shift);
}

uint64_t histogram_bucket_top(unsigned int bucket)
{
	unsigned int shift;

	if (bucket < 2 * HISTOGRAM_SUB)
		return bucket;
	shift = bucket / HISTOGRAM_SUB - 1;
	return ((bucket % HISTOGRAM_SUB + HISTOGRAM_SUB + 1ull) << shift) - 1;
}

void stats_subtract(struct stats *since, const struct stats *all, const struct stats *before)
{
	unsigned int i;

	*since = *all;
	since->faults -= before->faults;
	since->groups -= before->groups;
	since->batches -= before->batches;
	since->losses -= before->losses;
	since->refused -= before->refused;
	for (i = 0; i < 3; i++)
		since->answers[i] -= before->answers[i];
	since->latency.total -= before->latency.total;
	for (i = 0; i < HISTOGRAM_BUCKETS; i++)
		since->latency.count[i] -= before->latency.count[i];
}

void histogram_add(struct histogram *histogram, uint64_t value, uint64_t n)
{
	histogram->count[bucket_of(value)] += n;
	histogram->total += n;
	if (n && value > histogram->max)
		histogram->max = value;
}

uint64_t histogram_percentile(const struct histogram *histogram, unsigned int percent)
{
	uint64_t wanted = (histogram->total * percent + 99) / 100, seen = 0;
	unsigned int i;

	for (i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->count[i];
		if (seen && seen >= wanted)
			break;
	}
	if (i == HISTOGRAM_BUCKETS || histogram_bucket_top(i) > histogram->max)
		return histogram->max;
	return histogram_bucket_top(i);
}

/* What went into the buckets between two powers of two. */
static uint64_t octave(const struct histogram *histogram, unsigned int index)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < HISTOGRAM_SUB; i++)
		sum += histogram->count[index * HISTOGRAM_SUB + i];
	return sum;
}

/* One line for each power of two from the lowest to the highest that has a value. */
void histogram_print(const struct histogram *histogram)
{
	unsigned int octaves = HISTOGRAM_BUCKETS / HISTOGRAM_SUB, low = octaves, high = 0, i;
	uint64_t most = 0, n;
	int width;

	for (i = 0; i < octaves; i++) {
		n = octave(histogram, i);
		if (!n)
			continue;
		low = i < low ? i : low;
		high = i;
		most = n > most ? n : most;
	}
	for (i = low; i < octaves && i <= high; i++) {
		n = octave(histogram, i);
		width = (int)((n * BAR_WIDTH + most - 1) / most);
		printf("  < %9.1f us %9llu  %.*s\n",
		       (double)(histogram_bucket_top((i + 1) * HISTOGRAM_SUB - 1) + 1) / 1000,
		       (unsigned long long)n, width, "########################################");
	}
}
