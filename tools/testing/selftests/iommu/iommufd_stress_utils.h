/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the seeded programs share: random numbers that a seed repeats, their
 * options, and the line that tells how to repeat a run that failed.
 */
#ifndef __SELFTEST_IOMMUFD_STRESS_UTILS_H
#define __SELFTEST_IOMMUFD_STRESS_UTILS_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../kselftest.h"

struct rng {
	uint64_t state;
};

/* splitmix64: every state is a good one, so streams may be made by counting. */
static inline uint64_t rng_next(struct rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* The numbers of one actor: they do not depend on what the others draw. */
static inline struct rng rng_of(uint64_t seed, uint64_t actor)
{
	struct rng rng = { seed };

	rng.state = rng_next(&rng) ^ actor * 0xd1342543de82ef95ull;
	return rng;
}

/* 0 .. n - 1 */
static inline uint32_t rng_below(struct rng *rng, uint32_t n)
{
	return (uint64_t)(uint32_t)rng_next(rng) * n >> 32;
}

static inline bool rng_one_in(struct rng *rng, uint32_t n)
{
	return !rng_below(rng, n);
}

static inline uint64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* The program ends at what comes first: so much was done, or so long it took. */
struct stress_options {
	const char *program;
	const char *unit; /* what is counted: "faults", "operations" */
	uint64_t seed;
	uint64_t count;
	uint64_t seconds;
};

static inline void stress_usage(const struct stress_options *opt, int status)
{
	fprintf(status ? stderr : stdout,
		"usage: %s [--seed N] [--%s N] [--seconds N]\n", opt->program, opt->unit);
	exit(status);
}

static inline uint64_t stress_number(const struct stress_options *opt, const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (!*text || *end)
		stress_usage(opt, 2);
	return n;
}

/* @opt holds the defaults. Without --seed the clock gives one. */
static inline void stress_parse(struct stress_options *opt, int argc, char **argv)
{
	const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ opt->unit, required_argument, NULL, 'n' },
		{ "seconds", required_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' },
		{},
	};
	struct timespec ts;
	int c;

	clock_gettime(CLOCK_REALTIME, &ts);
	opt->seed = (uint64_t)ts.tv_sec * 1000003 + (uint64_t)ts.tv_nsec;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			opt->seed = stress_number(opt, optarg);
		else if (c == 'n')
			opt->count = stress_number(opt, optarg);
		else if (c == 't')
			opt->seconds = stress_number(opt, optarg);
		else
			stress_usage(opt, c == 'h' ? 0 : 2);
	}
	if (optind != argc)
		stress_usage(opt, 2);
}

static inline void stress_print_repeat(const struct stress_options *opt)
{
	printf("# repeat: %s --seed %llu --%s %llu --seconds %llu\n", opt->program,
	       (unsigned long long)opt->seed, opt->unit, (unsigned long long)opt->count,
	       (unsigned long long)opt->seconds);
	fflush(stdout);
}

/* @opt holds the defaults. The plan is the caller's: it may have to skip all instead. */
static inline void stress_begin(struct stress_options *opt, int argc, char **argv)
{
	stress_parse(opt, argc, argv);
	ksft_print_header();
	stress_print_repeat(opt);
}

/* Says once more, where something failed, how to see it again. */
static inline void __attribute__((noreturn)) stress_finish(const struct stress_options *opt)
{
	if (ksft_get_fail_cnt())
		stress_print_repeat(opt);
	ksft_finished();
}

#endif
