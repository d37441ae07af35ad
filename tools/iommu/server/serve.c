// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "server.h"

/* How long to wait for a fault before looking at the devices. */
#define WAIT_MS 5
#define LOOK_NS (WAIT_MS * 1000000ull)
#define STALL_NS (STALL_SECONDS * 1000000000ull)
/* A stopped device's groups are answered by then, or never. */
#define STOP_NS 5000000000ull
#define LINE_NS 1000000000ull
#define TTY_LINE_NS 100000000ull

static struct target *target_by_id(struct server *server, uint32_t dev_id)
{
	int i;

	for (i = 0; i < server->n_targets; i++) {
		if (server->targets[i].pri.vfio.id == dev_id)
			return &server->targets[i];
	}
	return NULL;
}

static struct window *window_at(struct target *target, const struct iommu_hwpt_pgfault *request)
{
	if (window_allows(&target->src, request->addr, request->perm))
		return &target->src;
	if (window_allows(&target->dst, request->addr, request->perm))
		return &target->dst;
	return NULL;
}

static bool group_allowed(const struct server *server, struct target *target,
			  const struct iopf_group *group)
{
	unsigned int i;

	if (!target || !group->has_pasid || group->pasid != server->options->pasid)
		return false;
	/* What the kernel has passed on is not to be resolved by anybody. */
	if (server->options->resolve_kernel)
		return false;
	for (i = 0; i < group->n; i++) {
		if (!window_at(target, &group->requests[i]))
			return false;
	}
	return true;
}

/* Map a group's pages, as many at a time as follow each other. */
static uint32_t serve_group(struct server *server, const struct iopf_group *group)
{
	struct target *target = target_by_id(server, group->dev_id);
	const struct iommu_hwpt_pgfault *r = group->requests;
	struct window *window;
	unsigned int i, n;

	if (target) {
		target->groups++;
		target->faults += group->n;
	}
	if (!group_allowed(server, target, group))
		return IOMMUFD_PAGE_RESP_INVALID;
	for (i = 0; i < group->n; i += n) {
		window = window_at(target, &r[i]);
		for (n = 1; i + n < group->n; n++) {
			if (r[i + n].addr != r[i].addr + n * PAGE_SIZE ||
			    window_at(target, &r[i + n]) != window)
				break;
		}
		if (window_map(&server->io, target->ioas, window, r[i].addr, n)) {
			fprintf(stderr, "iopf-server: %s\n", iopf_error(&server->io));
			return IOMMUFD_PAGE_RESP_FAILURE;
		}
	}
	return IOMMUFD_PAGE_RESP_SUCCESS;
}

static int serve_slot(struct server *server, struct iopf_slot *slot)
{
	struct iopf_iter iter = iopf_groups(slot->messages, slot->n_messages);
	struct iopf_group group;
	uint32_t code;
	int rc;

	slot->user = now_ns();
	server->stats.batches++;
	server->stats.losses += iopf_lost(slot->messages, slot->n_messages);
	while ((rc = iopf_next_group(&iter, &group)) > 0) {
		code = serve_group(server, &group);
		iopf_slot_answer(slot, group.cookie, code);
		server->stats.groups++;
		server->stats.faults += group.n;
		server->stats.answers[code]++;
	}
	if (rc)
		return iopf_fail(&server->io, -rc, "a message that ends no group");
	/* The call that gives the answers ends with the next fault. */
	if (server->ring.mode == IOPF_SERVE)
		histogram_add(&server->stats.latency, now_ns() - slot->user, slot->n_answers);
	iopf_ring_reply(&server->ring, slot);
	return 0;
}

static void slot_answered(struct server *server, const struct iopf_slot *slot)
{
	if (server->ring.mode != IOPF_SERVE)
		histogram_add(&server->stats.latency, now_ns() - slot->user, slot->n_answers);
	server->stats.refused += slot->n_refused;
}

/* As iopf_ring_next(), with the event served. */
static int serve_event(struct server *server)
{
	struct iopf_slot *slot;
	int event, rc = 0;

	event = iopf_ring_next(&server->ring, WAIT_MS, &slot);
	if (event == IOPF_FAULTS)
		rc = serve_slot(server, slot);
	if (event == IOPF_ANSWERED)
		slot_answered(server, slot);
	if (event == -EINTR && !caught_signal)
		event = IOPF_TIMEOUT;
	return rc ? rc : event;
}

/*
 * A device can be done before it has all its responses: what one group asked
 * for it may have found mapped.
 */
static bool is_busy(const struct target *target)
{
	return pri_state(&target->pri) == PTD_STATE_RUNNING ||
	       pri_get(&target->pri, PTD_OPEN_GROUPS);
}

static bool any_busy(const struct server *server)
{
	int i;

	for (i = 0; i < server->n_targets; i++) {
		if (is_busy(&server->targets[i]))
			return true;
	}
	return false;
}

static uint64_t total_bytes(const struct server *server)
{
	uint64_t sum = 0;
	int i;

	for (i = 0; i < server->n_targets; i++)
		sum += pri_get64(&server->targets[i].pri, PTD_BYTES);
	return sum;
}

static uint64_t line_interval(const struct server *server, bool tty)
{
	if (server->options->stats)
		return (uint64_t)(server->options->stats * 1e9);
	return tty ? TTY_LINE_NS : LINE_NS;
}

static void say_line(struct server *server, const char *label, uint64_t bytes, uint64_t begin,
		     uint64_t now, bool tty)
{
	if (server->options->stats)
		stats_line(server, label, bytes, begin, now);
	else
		progress_line(server, label, bytes, now - begin, tty);
}

int should_end(struct server *server)
{
	int i;

	if (caught_signal)
		return -EINTR;
	for (i = 0; i < server->n_targets && !server->leaving; i++) {
		const struct iopf_device *vfio = &server->targets[i].pri.vfio;

		if (!iopf_device_is_leaving(vfio))
			continue;
		server->leaving = true;
		iopf_say(&server->io, ENODEV, "%s was asked back", vfio->bdf);
	}
	return server->leaving ? -ENODEV : 0;
}

int serve(struct server *server, const char *label)
{
	bool tty = isatty(STDOUT_FILENO), running = true;
	uint64_t line_ns = line_interval(server, tty);
	uint64_t begin = now_ns(), now = begin, look = begin, line = begin, moved = begin;
	uint64_t bytes, last = 0, faults = server->stats.faults;
	int rc = 0, end = 0;

	server->lap_begin = begin;
	while (running && rc >= 0) {
		rc = end ? end : caught_signal ? -EINTR : serve_event(server);
		now = now_ns();
		if (rc < 0 || now - look < LOOK_NS)
			continue;
		look = now;
		running = any_busy(server);
		end = should_end(server);
		bytes = total_bytes(server);
		if (bytes != last || faults != server->stats.faults)
			moved = now;
		else if (running && now - moved > STALL_NS)
			rc = iopf_say(&server->io, ETIMEDOUT, "no progress in %d seconds",
				      STALL_SECONDS);
		last = bytes;
		faults = server->stats.faults;
		if (label && (!running || now - line >= line_ns)) {
			say_line(server, label, bytes, begin, now, tty);
			line = now;
		}
	}
	while (rc > 0)
		rc = serve_event(server);
	if (label && tty && !server->options->stats)
		putchar('\n');
	return rc;
}

void serve_stop(struct server *server)
{
	uint64_t begin = now_ns();
	int rc, i;

	for (i = 0; i < server->n_targets; i++)
		pri_command(&server->targets[i].pri, PTD_CMD_ABORT);
	/* a device may have its response before we are told that the answer was taken */
	do {
		rc = serve_event(server);
	} while ((rc > 0 || rc == -EINTR || (!rc && any_busy(server))) &&
		 now_ns() - begin < STOP_NS);
}
