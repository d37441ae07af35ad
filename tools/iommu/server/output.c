// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the server says while it runs, and its report for programs.  With --json
 * the standard output is JSON alone, a line for each object; the text for people
 * goes to standard error.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "server.h"

static struct json json;

int output_json(struct iopf *io)
{
	int fd;

	fflush(stdout);
	fd = dup(STDOUT_FILENO);
	if (fd < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		return iopf_fail(io, errno, "redirect the output");
	json.file = fdopen(fd, "w");
	return json.file ? 0 : iopf_fail(io, errno, "open the output");
}

/* In place on a terminal, else a line of its own. */
void progress_line(const struct server *server, const char *label, uint64_t bytes, uint64_t ns,
		   bool tty)
{
	uint64_t total = server->file.size * (uint64_t)server->n_targets;

	printf("%s%s: %3llu%%  %.1f of %.1f MiB  %llu faults in %llu groups  %.2f MB/s%s",
	       tty ? "\r" : "", label, (unsigned long long)(bytes * 100 / total),
	       (double)bytes / 1048576, (double)total / 1048576,
	       (unsigned long long)server->stats.faults,
	       (unsigned long long)server->stats.groups,
	       ns ? (double)bytes * 1000 / (double)ns : 0.0, tty ? "\033[K" : "\n");
	fflush(stdout);
}

static void stats_json(const struct server *server, const char *label, uint64_t bytes,
		       double seconds, double lap, const struct stats *d)
{
	json_open(&json, NULL, '{');
	json_string(&json, "type", "stats");
	json_string(&json, "phase", label);
	json_real(&json, "seconds", seconds);
	json_real(&json, "interval", lap);
	json_number(&json, "bytes", bytes);
	json_number(&json, "faults", d->faults);
	json_number(&json, "groups", d->groups);
	json_number(&json, "batches", d->batches);
	json_number(&json, "losses", d->losses);
	json_number(&json, "refused", d->refused);
	json_number(&json, "p50_ns", histogram_percentile(&d->latency, 50));
	json_number(&json, "p99_ns", histogram_percentile(&d->latency, 99));
	json_number(&json, "max_ns", server->stats.latency.max);
	json_close(&json, '}');
	json_line(&json);
}

void stats_line(struct server *server, const char *label, uint64_t bytes, uint64_t begin,
		uint64_t now)
{
	static struct stats lap;
	double seconds = (double)(now - begin) / 1e9;
	double length = (double)(now - server->lap_begin) / 1e9;

	stats_subtract(&lap, &server->stats, &server->lap);
	server->lap = server->stats;
	server->lap_begin = now;
	if (json.file)
		stats_json(server, label, bytes, seconds, length, &lap);
	if (length <= 0)
		return;
	printf("%s: %7.1f s  %8.0f faults/s  %8.0f groups/s  %5.1f groups a batch", label, seconds,
	       (double)lap.faults / length, (double)lap.groups / length,
	       lap.batches ? (double)lap.groups / (double)lap.batches : 0.0);
	printf("  %llu too late  p50 %.1f  p99 %.1f us\n", (unsigned long long)lap.refused,
	       (double)histogram_percentile(&lap.latency, 50) / 1000,
	       (double)histogram_percentile(&lap.latency, 99) / 1000);
	fflush(stdout);
}

static void json_resolved(const struct server *server, const struct target *target)
{
	static const char *const counters[] = { "groups", "pages", "around", "huge", "faulted" };
	unsigned int i;

	json_open(&json, "resolved", '{');
	for (i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		json_number(&json, counters[i], resolved(server, target, counters[i]));
	json_close(&json, '}');
}

static void json_device(const struct server *server, const struct target *target)
{
	struct pri_counts c;
	unsigned int i;

	pri_counts(&target->pri, &c);
	json_open(&json, NULL, '{');
	json_string(&json, "device", target->pri.vfio.bdf);
	json_number(&json, "dev_id", target->pri.vfio.id);
	json_string(&json, "state", pri_state_name(pri_state(&target->pri)));
	json_number(&json, "bytes", pri_get64(&target->pri, PTD_BYTES));
	json_number(&json, "requests", c.requests);
	json_number(&json, "groups", c.groups);
	json_number(&json, "responses", c.responses);
	json_number(&json, "success", c.success);
	json_number(&json, "invalid", c.invalid);
	json_number(&json, "failure", c.failure);
	json_number(&json, "unmatched", c.unmatched);
	json_number(&json, "pages_mapped", target->src.n_mapped + target->dst.n_mapped);
	if (server->options->resolve_kernel)
		json_resolved(server, target);
	json_open(&json, "response_ns", '[');
	for (i = 0; i < PTD_LATENCIES; i++) {
		if (!pri_latency(&target->pri, i))
			continue;
		json_open(&json, NULL, '[');
		json_number(&json, NULL, 1ull << i);
		json_number(&json, NULL, pri_latency(&target->pri, i));
		json_close(&json, ']');
	}
	json_close(&json, ']');
	json_close(&json, '}');
}

static void json_latency(const struct server *server)
{
	const struct histogram *h = &server->stats.latency;
	unsigned int i;

	json_open(&json, "latency", '{');
	json_string(&json, "until", latency_end(server->ring.mode));
	json_number(&json, "p50_ns", histogram_percentile(h, 50));
	json_number(&json, "p99_ns", histogram_percentile(h, 99));
	json_number(&json, "max_ns", h->max);
	json_open(&json, "buckets", '[');
	for (i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (!h->count[i])
			continue;
		json_open(&json, NULL, '[');
		json_number(&json, NULL, histogram_bucket_top(i));
		json_number(&json, NULL, h->count[i]);
		json_close(&json, ']');
	}
	json_close(&json, ']');
	json_close(&json, '}');
}

void report_json(const struct server *server, int status)
{
	const struct stats *s = &server->stats;
	int i;

	if (!json.file)
		return;
	json_open(&json, NULL, '{');
	json_string(&json, "type", "report");
	json_number(&json, "status", (uint64_t)status);
	if (status >= EXIT_SETUP)
		json_string(&json, "error", caught_signal ? strsignal(caught_signal) :
			    iopf_error(&server->io));
	json_string(&json, "file", server->options->file);
	if (server->has_ring)
		json_string(&json, "mode", iopf_mode_name(server->ring.mode));
	json_string(&json, "resolve", server->options->resolve_kernel ? "kernel" : "server");
	json_number(&json, "pasid", server->options->pasid);
	if (server->depth)
		json_number(&json, "depth", server->depth);
	json_number(&json, "deadline_ms", server->options->deadline);
	json_number(&json, "faults", s->faults);
	json_number(&json, "groups", s->groups);
	json_number(&json, "batches", s->batches);
	json_number(&json, "losses", s->losses);
	json_number(&json, "success", s->answers[IOMMUFD_PAGE_RESP_SUCCESS]);
	json_number(&json, "invalid", s->answers[IOMMUFD_PAGE_RESP_INVALID]);
	json_number(&json, "failure", s->answers[IOMMUFD_PAGE_RESP_FAILURE]);
	json_number(&json, "refused", s->refused);
	json_open(&json, "devices", '[');
	for (i = 0; i < server->n_targets; i++)
		json_device(server, &server->targets[i]);
	json_close(&json, ']');
	json_latency(server);
	json_close(&json, '}');
	json_line(&json);
}

int output_end(int status)
{
	bool lost = fflush(stdout) || ferror(stdout);

	if (json.file)
		lost |= ferror(json.file) != 0;
	if (!lost || status > EXIT_WRONG)
		return status;
	fputs("iopf-server: not all of the output could be written\n", stderr);
	return caught_signal ? EXIT_SIGNAL + caught_signal : EXIT_SETUP;
}
