// SPDX-License-Identifier: GPL-2.0-only
/* Devices, address spaces, fault queue and ring: made in one order, undone in the other. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "server.h"

/* Far from each other and from what firmware reserves, within 39 bits. */
#define SRC_IOVA 0x1000000000ull
#define DST_IOVA 0x2000000000ull
/* Messages that a read can take; a group may have 256. */
#define SLOT_MESSAGES 256

static int add_windows(struct server *server, struct target *target)
{
	int rc;

	rc = buffer_create(&server->io, &target->copy, "copy", server->file.size);
	if (!rc)
		rc = window_init(&server->io, &target->src, &server->file, "src", SRC_IOVA,
				 IOMMU_IOAS_MAP_READABLE);
	if (!rc)
		rc = window_init(&server->io, &target->dst, &target->copy, "dst", DST_IOVA,
				 IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE);
	return rc;
}

/* Does the range to pin lie in the file?  The windows are as long as that. */
static int check_pin_range(struct server *server)
{
	const struct pin *pin = &server->options->pin;

	if (!pin->on || pin->all || pin->offset + pin->size <= server->file.pages * PAGE_SIZE)
		return 0;
	return iopf_say(&server->io, ERANGE, "--pin: the range ends behind the %zu pages of %s",
			server->file.pages, server->options->file);
}

static int pin_all(struct server *server, struct target *target)
{
	struct window *src = &target->src, *dst = &target->dst;
	size_t pages = server->file.pages;
	int rc;

	pri_watch(&target->pri, src->iova, dst->iova + pages * PAGE_SIZE);
	rc = window_map(&server->io, target->ioas, src, src->iova, pages);
	if (!rc)
		rc = window_map(&server->io, target->ioas, dst, dst->iova, pages);
	return rc;
}

static int pin_window(struct server *server, struct target *target)
{
	const struct pin *pin = &server->options->pin;
	struct window *window = pin->dst ? &target->dst : &target->src;
	uint64_t iova = window->iova + pin->offset;

	if (!pin->on)
		return 0;
	if (pin->all)
		return pin_all(server, target);
	pri_watch(&target->pri, iova, iova + pin->size);
	return window_map(&server->io, target->ioas, window, iova, pin->size / PAGE_SIZE);
}

/* One page table, as the kernel fills in all that an address space has. */
static int attach_on_demand(struct server *server, struct target *target)
{
	struct iopf_device *vfio = &target->pri.vfio;
	int rc;

	rc = iopf_hwpt_alloc(&server->io, vfio->id, target->ioas,
			     IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_ALLOC_ON_FAULT, server->queue.id,
			     &target->hwpts[0]);
	if (rc == -EOPNOTSUPP)
		return iopf_say(&server->io, EOPNOTSUPP,
				"%s: this kernel or IOMMU does not resolve page faults itself",
				vfio->bdf);
	if (rc)
		return rc;
	rc = iopf_device_attach(vfio, target->hwpts[0]);
	if (rc)
		goto destroy;
	rc = iopf_device_attach_pasid(vfio, server->options->pasid, target->hwpts[0]);
	if (!rc)
		return 0;
	/* what failed first stays in io->error: this does not fail */
	iopf_device_detach(vfio);
destroy:
	iopf_destroy(&server->io, target->hwpts[0]);
	return rc;
}

static void detach_target(struct server *server, struct target *target)
{
	struct iopf_device *vfio = &target->pri.vfio;

	if (!server->options->resolve_kernel) {
		iopf_device_detach_queue(vfio, server->options->pasid, target->hwpts);
		return;
	}
	iopf_device_detach_pasid(vfio, server->options->pasid);
	iopf_device_detach(vfio);
	iopf_destroy(&server->io, target->hwpts[0]);
}

static int map_on_demand(struct server *server, struct target *target)
{
	int rc = window_map_on_demand(&server->io, target->ioas, &target->src);

	return rc ? rc : window_map_on_demand(&server->io, target->ioas, &target->dst);
}

static int attach_target(struct server *server, struct target *target)
{
	bool by_kernel = server->options->resolve_kernel;
	struct iopf_device *vfio = &target->pri.vfio;
	int rc;

	rc = by_kernel ? attach_on_demand(server, target) :
	     iopf_device_attach_queue(vfio, target->ioas, server->options->pasid, &server->queue,
				      target->hwpts);
	if (rc)
		return rc;
	target->attached = true;
	rc = by_kernel ? map_on_demand(server, target) : 0;
	if (rc)
		return rc;
	rc = iopf_device_watch(vfio);
	return rc < 0 ? rc : iopf_device_bus_master(vfio, true);
}

static int add_target(struct server *server, const char *bdf)
{
	struct target *target = &server->targets[server->n_targets];
	int rc;

	rc = pri_open(&server->io, bdf, &target->pri);
	if (rc)
		return rc;
	server->n_targets++;
	rc = add_windows(server, target);
	if (!rc)
		rc = iopf_ioas_alloc(&server->io, &target->ioas);
	if (!rc)
		rc = pin_window(server, target);
	if (!rc)
		rc = attach_target(server, target);
	if (!rc)
		printf("%s: device %u, PASID %u, %lu pages mapped\n", target->pri.vfio.bdf,
		       target->pri.vfio.id, server->options->pasid,
		       target->src.n_mapped + target->dst.n_mapped);
	return rc;
}

/* Before anything is made: are the devices there that were asked for? */
static int check_devices(struct server *server)
{
	const struct options *options = server->options;
	struct pri_address found;
	int i, rc = 0;

	for (i = 0; i < options->n_devices && !rc; i++)
		rc = pri_present(&server->io, options->devices[i].bdf);
	if (!options->n_devices && !pri_find(&found, 1))
		rc = iopf_say(&server->io, ENODEV, "there is no pri-testdev (%04x:%04x)",
			      PTD_VENDOR_ID, PTD_DEVICE_ID);
	return rc;
}

/* The first that nobody has. */
static int add_free_target(struct server *server, const struct pri_address *found, int n)
{
	char last[sizeof(server->io.error)];
	int i, rc = -ENODEV;

	for (i = 0; i < n; i++) {
		rc = add_target(server, found[i].bdf);
		/* one that is ours is not tried again */
		if (rc != -EBUSY || server->n_targets)
			return rc;
	}
	snprintf(last, sizeof(last), "%s", iopf_error(&server->io));
	return n == 1 ? rc : iopf_say(&server->io, EBUSY, "none of %d devices is free: %.100s", n,
				      last);
}

static int add_targets(struct server *server)
{
	const struct options *options = server->options;
	const struct pri_address *device = options->devices;
	struct pri_address found[MAX_TARGETS];
	int n = options->n_devices, i, rc = 0;

	if (!n) {
		device = found;
		n = pri_find(found, MAX_TARGETS);
		if (n > MAX_TARGETS) {
			printf("%d devices more than %d are left alone\n", n - MAX_TARGETS,
			       MAX_TARGETS);
			n = MAX_TARGETS;
		}
		if (!options->all)
			return add_free_target(server, found, n);
	}
	for (i = 0; i < n && !rc; i++)
		rc = add_target(server, device[i].bdf);
	return rc;
}

static void say_mode(enum iopf_mode mode, const struct options *options)
{
	printf("mode %s", iopf_mode_name(mode));
	if (mode == IOPF_READ || mode == IOPF_MULTISHOT)
		printf(", %u reads at a time", options->reads);
	puts(options->resolve_kernel ? ", and the kernel resolves what it can" : "");
}

/* A number that the kernel shows of a descriptor; 0 if it does not. */
static uint64_t shown(int fd, const char *name)
{
	unsigned long long value = 0;
	size_t n = strlen(name);
	char path[64], line[128];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		if (!strncmp(line, name, n) && line[n] == ':')
			sscanf(line + n + 1, "%llu", &value);
	}
	fclose(file);
	return value;
}

uint64_t resolved(const struct server *server, const struct target *target, const char *counter)
{
	char name[64];

	snprintf(name, sizeof(name), "iommufd-demand-%u-%s", target->ioas, counter);
	return shown(server->io.fd, name);
}

static int add_queue(struct server *server)
{
	const struct options *options = server->options;
	struct iopf_queue_options queue = {
		.flags = IOMMU_FAULT_ALLOC_REPORT_LOSS,
		.depth = options->depth,
		.deadline_ms = options->deadline,
		.deadline_code = options->deadline ? IOMMUFD_PAGE_RESP_INVALID : 0,
	};
	int rc;

	rc = iopf_queue_alloc_with(&server->io, &queue, &server->queue);
	if (rc == -EOPNOTSUPP) {
		queue.flags = 0;
		rc = iopf_queue_alloc_with(&server->io, &queue, &server->queue);
	}
	if (rc)
		return rc;
	server->has_queue = true;
	/* What the kernel made of --depth */
	server->depth = (uint32_t)shown(server->queue.fd, "iommufd-fault-depth");
	rc = iopf_ring_init_mode(&server->ring, &server->queue, options->mode, options->reads,
				 SLOT_MESSAGES);
	server->has_ring = !rc;
	if (!rc)
		say_mode(server->ring.mode, options);
	return rc;
}

int setup(struct server *server, const struct options *options)
{
	int rc;

	memset(server, 0, sizeof(*server));
	server->options = options;
	rc = iopf_open(&server->io);
	if (!rc)
		rc = check_devices(server);
	if (!rc)
		rc = buffer_load(&server->io, &server->file, options->file);
	if (!rc)
		rc = check_pin_range(server);
	if (!rc)
		rc = add_queue(server);
	if (rc)
		return rc;
	printf("%s: %zu pages, to be copied from %#llx to %#llx\n", options->file,
	       server->file.pages, SRC_IOVA, DST_IOVA);
	return add_targets(server);
}

static void remove_target(struct server *server, struct target *target)
{
	struct iopf_device *vfio = &target->pri.vfio;

	iopf_device_bus_master(vfio, false);
	if (target->attached)
		detach_target(server, target);
	if (pri_close(&target->pri))
		fprintf(stderr, "iopf-server: %s\n", iopf_error(&server->io));
	if (target->ioas)
		iopf_destroy(&server->io, target->ioas);
	window_free(&target->src);
	window_free(&target->dst);
	buffer_free(&target->copy);
}

void teardown(struct server *server)
{
	int i;

	for (i = server->n_targets - 1; i >= 0; i--)
		remove_target(server, &server->targets[i]);
	if (server->has_ring)
		iopf_ring_exit(&server->ring);
	if (server->has_queue && iopf_queue_close(&server->queue))
		fprintf(stderr, "iopf-server: %s\n", iopf_error(&server->io));
	buffer_free(&server->file);
	iopf_close(&server->io);
}
