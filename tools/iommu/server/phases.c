// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "server.h"

static const char *name(const struct target *target)
{
	return target->pri.vfio.bdf;
}

/* One line for each thing looked at; returns EXIT_OK or EXIT_WRONG. */
static int verdict(bool good, const struct target *target, const char *text)
{
	printf("%s %s: %s\n", good ? "ok   " : "WRONG", name(target), text);
	return good ? EXIT_OK : EXIT_WRONG;
}

static int start_all(struct server *server, struct pri_copy copy)
{
	const struct options *options = server->options;
	int i, rc;

	copy.pasid = options->pasid;
	copy.group = options->group;
	copy.depth = options->in_flight;
	for (i = 0; i < server->n_targets; i++) {
		rc = pri_start(&server->targets[i].pri, &copy);
		if (rc)
			return iopf_fail(&server->io, -rc, "%s: start",
					 name(&server->targets[i]));
	}
	return 0;
}

static int check_state(const struct target *target, enum ptd_state wanted, uint64_t addr)
{
	enum ptd_state state = pri_state(&target->pri);
	uint64_t at = pri_get64(&target->pri, PTD_FAULT_ADDR);
	char text[120];
	int n;

	n = snprintf(text, sizeof(text), "%s", pri_state_name(state));
	if (state != PTD_STATE_DONE)
		n += snprintf(text + n, sizeof(text) - n, " at %#llx", (unsigned long long)at);
	if (state == PTD_STATE_STOPPED_ERROR)
		snprintf(text + n, sizeof(text) - n, ", stage %u: %s",
			 pri_get(&target->pri, PTD_STAGE),
			 strerror(-(int)pri_get(&target->pri, PTD_ERRNO)));
	return verdict(state == wanted && (state == PTD_STATE_DONE || at == addr), target, text);
}

int run_copy(struct server *server)
{
	struct target *target = &server->targets[0];
	struct pri_copy copy = {
		.src = target->src.iova,
		.dst = target->dst.iova,
		.length = server->file.size,
	};
	int i, rc;

	rc = start_all(server, copy);
	if (!rc)
		rc = serve(server, "copy");
	if (rc)
		return rc;
	for (i = 0; i < server->n_targets; i++)
		rc |= check_state(&server->targets[i], PTD_STATE_DONE, 0);
	return rc;
}

int check_copy(struct server *server)
{
	char want[65], have[65];
	int i, rc, result = EXIT_OK;
	bool good;

	rc = buffer_hash(&server->io, &server->file, want);
	if (rc)
		return rc;
	printf("sha256 %s  %s\n", want, server->options->file);
	for (i = 0; i < server->n_targets; i++) {
		struct target *target = &server->targets[i];

		rc = buffer_hash(&server->io, &target->copy, have);
		if (rc)
			return rc;
		printf("sha256 %s  copy by %s\n", have, name(target));
		good = !strcmp(want, have);
		result |= verdict(good, target, good ? "the copy is as the file" :
				  "the copy differs from the file");
	}
	return result;
}

int check_pin(struct server *server)
{
	const struct pin *pin = &server->options->pin;
	uint64_t pages = pin->all ? 2 * server->file.pages : pin->size / PAGE_SIZE;
	struct pri_counts counts;
	char text[120];
	int i, result = EXIT_OK;

	for (i = 0; pin->on && i < server->n_targets; i++) {
		struct target *target = &server->targets[i];

		pri_counts(&target->pri, &counts);
		snprintf(text, sizeof(text),
			 "%u page requests in the %llu pinned pages, %u elsewhere", counts.watched,
			 (unsigned long long)pages,
			 counts.requests - counts.watched);
		result |= verdict(!counts.watched && (pin->all || counts.requests), target, text);
	}
	return result;
}

/* Read the first page behind the file: no window has it, so the device must be told INVALID. */
int run_outside(struct server *server)
{
	const struct window *src = &server->targets[0].src;
	uint64_t outside = src->iova + src->buffer->pages * PAGE_SIZE;
	struct pri_copy touch = { .src = outside, .length = 8, .flags = PTD_F_TOUCH };
	uint64_t before = server->stats.answers[IOMMUFD_PAGE_RESP_INVALID];
	int i, rc;

	if (!server->options->fault_outside)
		return EXIT_OK;
	printf("an access outside the file, at %#llx:\n", (unsigned long long)outside);
	rc = start_all(server, touch);
	if (!rc)
		rc = serve(server, NULL);
	if (rc)
		return rc;
	for (i = 0; i < server->n_targets; i++)
		rc |= check_state(&server->targets[i], PTD_STATE_STOPPED_INVALID, outside);
	if (server->stats.answers[IOMMUFD_PAGE_RESP_INVALID] - before !=
	    (uint64_t)server->n_targets)
		rc |= verdict(false, &server->targets[0], "not one INVALID for each device");
	return rc;
}

static int check_counts(const struct target *target)
{
	struct pri_counts c;
	bool good;

	pri_counts(&target->pri, &c);
	printf("%s: sent %u page requests in %u groups\n", name(target), c.requests, c.groups);
	printf("%s: got %u responses: %u success, %u invalid, %u failure; %u unmatched\n",
	       name(target), c.responses, c.success, c.invalid, c.failure, c.unmatched);
	good = c.groups == c.responses && !c.unmatched &&
	       c.success + c.invalid + c.failure == c.responses &&
	       !pri_get(&target->pri, PTD_OPEN_REQUESTS);
	return verdict(good, target, good ? "every group of requests got one response" :
		       "groups sent and responses do not match");
}

static void print_windows(const struct target *target, bool on_demand)
{
	const struct window *window[] = { &target->src, &target->dst };
	unsigned int i;

	for (i = 0; i < 2; i++)
		printf("%s: %s at %#llx: %lu of %zu pages mapped, by %lu calls%s\n", name(target),
		       window[i]->name, (unsigned long long)window[i]->iova, window[i]->n_mapped,
		       window[i]->buffer->pages, window[i]->n_maps,
		       on_demand ? ", the others on demand" : "");
}

/*
 * Who has answered: the kernel whatever could be mapped, the queue's server all else. What
 * came faster than memory for it was told to try again: SUCCESS, with nothing mapped.
 */
static int check_resolved(const struct server *server, const struct target *target)
{
	uint64_t groups = resolved(server, target, "groups");
	struct pri_counts c;
	char text[120];

	pri_counts(&target->pri, &c);
	printf("%s: the kernel mapped %llu pages it was asked for, %llu beside them, %llu huge\n",
	       name(target), (unsigned long long)resolved(server, target, "pages"),
	       (unsigned long long)resolved(server, target, "around"),
	       (unsigned long long)resolved(server, target, "huge"));
	printf("%s: of them %llu were not in the memory of the server yet\n", name(target),
	       (unsigned long long)resolved(server, target, "faulted"));
	snprintf(text, sizeof(text),
		 "%llu groups were resolved by the kernel, %llu by the server, %lld to try again",
		 (unsigned long long)groups, (unsigned long long)target->groups,
		 (long long)(c.success - groups));
	return verdict(groups <= c.success && target->groups == c.invalid, target, text);
}

const char *latency_end(enum iopf_mode mode)
{
	return mode == IOPF_SERVE ? "handed in" : "written";
}

static void print_totals(const struct stats *s, enum iopf_mode mode)
{
	printf("%llu faults in %llu groups, read in %llu batches\n",
	       (unsigned long long)s->faults, (unsigned long long)s->groups,
	       (unsigned long long)s->batches);
	if (s->losses)
		printf("lost: page requests found no room, before %llu of the batches\n",
		       (unsigned long long)s->losses);
	printf("answers: %llu success, %llu invalid, %llu failure; %llu of them too late\n",
	       (unsigned long long)s->answers[IOMMUFD_PAGE_RESP_SUCCESS],
	       (unsigned long long)s->answers[IOMMUFD_PAGE_RESP_INVALID],
	       (unsigned long long)s->answers[IOMMUFD_PAGE_RESP_FAILURE],
	       (unsigned long long)s->refused);
	printf("latency from read completed to answer %s: p50 %.1f, p99 %.1f, max %.1f us\n",
	       latency_end(mode),
	       (double)histogram_percentile(&s->latency, 50) / 1000,
	       (double)histogram_percentile(&s->latency, 99) / 1000,
	       (double)s->latency.max / 1000);
}

/* Of the whole way: the device tells, in steps of two, by the clock of the machine. */
static void print_device_latency(const struct server *server)
{
	static struct histogram all;
	unsigned int bucket;
	int i;

	for (i = 0; i < server->n_targets; i++) {
		for (bucket = 0; bucket < PTD_LATENCIES; bucket++)
			histogram_add(&all, 1ull << bucket,
				      pri_latency(&server->targets[i].pri, bucket));
	}
	printf("latency from the device's request to its response, %llu groups\n",
	       (unsigned long long)all.total);
	histogram_print(&all);
}

int report(struct server *server)
{
	int i, result = EXIT_OK;

	for (i = 0; i < server->n_targets; i++) {
		print_windows(&server->targets[i], server->options->resolve_kernel);
		result |= check_counts(&server->targets[i]);
		if (server->options->resolve_kernel)
			result |= check_resolved(server, &server->targets[i]);
	}
	print_totals(&server->stats, server->ring.mode);
	print_device_latency(server);
	return result;
}
