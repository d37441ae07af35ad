/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef SERVER_H
#define SERVER_H

#include <signal.h>

#include "lib/iopf.h"
#include "pri.h"

#define PAGE_SIZE 4096ull
#define MAX_TARGETS 16

/* Exit status. */
enum {
	EXIT_OK,
	EXIT_WRONG,	/* it ran, and a result is not what it must be */
	EXIT_USAGE,
	EXIT_SETUP,	/* a file, a device or the kernel did not let it run */
	/* a device was asked back; 4 would be a test that is skipped */
	EXIT_LEAVING = 5,
	EXIT_SIGNAL = 128,
};

/* ---- window.c: memory that a device reaches at an IOVA, page by page as it asks ---- */

/* Pages in memory: the file, or the place for a copy of it. */
struct buffer {
	int fd;
	char *base;
	size_t size;
	size_t pages;
};

struct window {
	const char *name;
	const struct buffer *buffer;
	uint64_t iova;
	/* IOMMU_IOAS_MAP_* */
	uint32_t access;
	/* one byte a page */
	bool *mapped;
	unsigned long n_mapped, n_maps;
};

int buffer_create(struct iopf *io, struct buffer *buffer, const char *name, size_t size);
int buffer_load(struct iopf *io, struct buffer *buffer, const char *path);
void buffer_free(struct buffer *buffer);
/* The SHA-256 in hex, by sha256sum(1). */
int buffer_hash(struct iopf *io, const struct buffer *buffer, char hash[65]);

int window_init(struct iopf *io, struct window *window, const struct buffer *buffer,
		const char *name, uint64_t iova, uint32_t access);
void window_free(struct window *window);
bool window_allows(const struct window *window, uint64_t iova, uint32_t perm);
/* Map those of n pages from iova on that are not mapped yet, a run at a time. */
int window_map(struct iopf *io, uint32_t ioas, struct window *window, uint64_t iova, size_t n);
/* Let the kernel map all others when the device asks for them. */
int window_map_on_demand(struct iopf *io, uint32_t ioas, struct window *window);

/* ---- stats.c ---- */

/* Log-linear: eight buckets for each power of two, so within 1/8 of the value. */
#define HISTOGRAM_SUB 8
#define HISTOGRAM_BUCKETS (64 * HISTOGRAM_SUB)

struct histogram {
	uint64_t count[HISTOGRAM_BUCKETS];
	uint64_t total, max;
};

void histogram_add(struct histogram *histogram, uint64_t value, uint64_t n);
uint64_t histogram_percentile(const struct histogram *histogram, unsigned int percent);
/* The highest value that goes into the bucket. */
uint64_t histogram_bucket_top(unsigned int bucket);
void histogram_print(const struct histogram *histogram);

struct stats {
	uint64_t faults, groups, batches;
	/* batches before which page requests were lost, or refused for want of room */
	uint64_t losses;
	/* by IOMMUFD_PAGE_RESP_*, and those that came too late */
	uint64_t answers[3], refused;
	/*
	 * ns from seeing the completed read to seeing its answers written, or to
	 * handing them to the next call
	 */
	struct histogram latency;
};

/* What came to all since before; the greatest latency stays that of all. */
void stats_subtract(struct stats *since, const struct stats *all, const struct stats *before);

uint64_t now_ns(void);

/* ---- serve.c: the event loop ---- */

/* A device with an address space of its own. */
struct target {
	struct pri_device pri;
	uint32_t ioas;
	/* the device's, that of the PASID; with resolve_kernel the first one is both */
	uint32_t hwpts[2];
	bool attached;
	struct buffer copy;
	struct window src, dst;
	uint64_t faults, groups;
};

/* A part of a window that is mapped from the start, or all of both. */
struct pin {
	bool on, all, dst;
	uint64_t offset, size;
};

struct options {
	struct pri_address devices[MAX_TARGETS];
	int n_devices;
	bool all;
	uint32_t pasid, group, in_flight, reads;
	/* of the fault queue, the kernel's if 0 */
	uint32_t depth, deadline;
	/* seconds from line to line, 0 for the usual ones */
	double stats;
	bool json;
	enum iopf_mode mode;
	/* the kernel maps what is asked for */
	bool resolve_kernel;
	const char *file;
	struct pin pin;
	bool fault_outside;
};

struct server {
	const struct options *options;
	struct iopf io;
	struct iopf_queue queue;
	struct iopf_ring ring;
	bool has_queue, has_ring;
	/* a device was asked back */
	bool leaving;
	/* groups that the queue holds, 0 if the kernel does not tell */
	uint32_t depth;
	struct buffer file;
	struct target targets[MAX_TARGETS];
	int n_targets;
	struct stats stats;
	/* where the last line of --stats ended */
	struct stats lap;
	uint64_t lap_begin;
};

extern volatile sig_atomic_t caught_signal;

/* -EINTR after a signal; -ENODEV if a device is asked back; else 0. */
int should_end(struct server *server);
/*
 * Serve faults until every device has stopped: 0, as should_end(), or
 * -ETIMEDOUT if no device has come on for STALL_SECONDS.  label: the progress
 * line's, NULL for none.
 */
#define STALL_SECONDS 30
int serve(struct server *server, const char *label);
/* Make the devices stop, and serve until no group of theirs is without a response. */
void serve_stop(struct server *server);

/* ---- output.c ---- */

/* From here on standard output is for JSON. */
int output_json(struct iopf *io);
void progress_line(const struct server *server, const char *label, uint64_t bytes, uint64_t ns,
		   bool tty);
/* What happened since the last one. */
void stats_line(struct server *server, const char *label, uint64_t bytes, uint64_t begin,
		uint64_t now);
/* All that is known at the end; nothing without --json. */
void report_json(const struct server *server, int status);
/* Returns the status, or EXIT_SETUP if not all of the output could be written. */
int output_end(int status);

/* ---- setup.c ---- */

int setup(struct server *server, const struct options *options);
/* What the kernel has counted for the target's memory on demand: "groups", "pages", ... */
uint64_t resolved(const struct server *server, const struct target *target, const char *counter);
void teardown(struct server *server);

/* ---- phases.c: each returns EXIT_OK, EXIT_WRONG, or what serve() failed with ---- */

int run_copy(struct server *server);
int check_copy(struct server *server);
int check_pin(struct server *server);
int run_outside(struct server *server);
int report(struct server *server);
/* Up to where the latency is measured: "written" or "handed in". */
const char *latency_end(enum iopf_mode mode);

#endif
