// SPDX-License-Identifier: GPL-2.0-only
/*
 * iopf-server: let PRI-capable devices copy a file by DMA out of memory that is
 * mapped page by page, as the devices' page requests come in.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server.h"

/* what the kernel takes */
#define MAX_DEPTH 65536
#define MAX_DEADLINE_MS 3600000

volatile sig_atomic_t caught_signal;

static const char help[] =
"usage: iopf-server [OPTION]...\n"
"Serve the page faults of devices (pri-testdev, 1234:9171) that copy a file by DMA.\n"
"Nothing is mapped for them at the start; each fault maps the pages that it asks\n"
"for, in the file or in the place of the copy.  Then everything is verified.\n"
"\n"
"  --device BDF     use this device; may be repeated (default: the first)\n"
"  --all            use all such devices, at the same time\n"
"  --pasid N        address space of the DMA (default 1)\n"
"  --file F         file to copy (default: this program)\n"
"  --group N        page requests in a group, 1..256 (default 4)\n"
"  --in-flight N    groups that a device has in flight, 1..256 (default 8)\n"
"  --depth N        groups that the fault queue holds (default: the kernel's)\n"
"  --deadline MS    let the kernel answer INVALID what has no answer by then\n"
"                   (default: never)\n"
"  --reads N        with io_uring: reads kept posted, 1..256 (default 8)\n"
"  --mode M         how: serve (one system call that answers and waits, where the\n"
"                   kernel has it; default), poll (poll, read and write), or with\n"
"                   io_uring read (one-shot reads and writes), multishot (one read\n"
"                   that stays, with N buffers)\n"
"  --pin RANGE      map this from the start, and verify that it never faults;\n"
"                   RANGE is src:OFFSET+SIZE or dst:OFFSET+SIZE, in whole pages,\n"
"                   with K, M or G\n"
"  --fault-outside  then access a page outside the file, and verify that the\n"
"                   answer INVALID stops the device\n"
"  --stats SEC      a line of rates and latencies every so many seconds\n"
"  --json           JSON on standard output, all else on standard error\n"
"  --help           print this\n"
"\n"
"Exit status: 0 all is as it must be; 1 something is not (a line with WRONG);\n"
"2 usage; 3 a file, the device or the kernel did not permit it; 128+N signal N.\n";

static void usage_error(const char *option, const char *value)
{
	fprintf(stderr, "iopf-server: bad value '%s' for %s (see --help)\n", value, option);
	exit(EXIT_USAGE);
}

static uint32_t number(const char *option, const char *text, unsigned long min, unsigned long max)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 0);
	if (errno || end == text || *end || value < min || value > max)
		usage_error(option, text);
	return (uint32_t)value;
}

/* A number with K, M or G; *end is what follows. */
static uint64_t size_of(const char *text, char **end)
{
	uint64_t value = strtoull(text, end, 0);
	const char *unit = "KMG", *at = **end ? strchr(unit, **end) : NULL;

	if (!at)
		return value;
	++*end;
	return value << (10 * (at - unit + 1));
}

static void parse_pin(struct pin *pin, const char *text)
{
	char *end;

	pin->dst = !strncmp(text, "dst:", 4);
	if (!pin->dst && strncmp(text, "src:", 4))
		usage_error("--pin", text);
	pin->offset = size_of(text + 4, &end);
	if (*end != '+')
		usage_error("--pin", text);
	pin->size = size_of(end + 1, &end);
	pin->on = true;
	if (*end || !pin->size || (pin->offset | pin->size) % PAGE_SIZE ||
	    pin->offset > UINT64_MAX - pin->size)
		usage_error("--pin", text);
}

static void add_device(struct options *options, const char *bdf)
{
	struct pri_address *device = &options->devices[options->n_devices];

	if (options->n_devices == MAX_TARGETS || strlen(bdf) >= sizeof(device->bdf))
		usage_error("--device", bdf);
	memcpy(device->bdf, bdf, strlen(bdf) + 1);
	options->n_devices++;
}

static enum iopf_mode parse_mode(const char *text)
{
	enum iopf_mode mode;

	for (mode = IOPF_SERVE; mode <= IOPF_POLL; mode++) {
		if (!strcmp(text, iopf_mode_name(mode)))
			return mode;
	}
	usage_error("--mode", text);
	return mode;
}

enum {
	DEVICE, ALL, PASID, FILENAME, GROUP, IN_FLIGHT, DEPTH, DEADLINE, READS, MODE, PIN, OUTSIDE,
	STATS, JSON, HELP,
};

static const struct option long_options[] = {
	[DEVICE] = { "device", required_argument, NULL, 0 },
	[ALL] = { "all", no_argument, NULL, 0 },
	[PASID] = { "pasid", required_argument, NULL, 0 },
	[FILENAME] = { "file", required_argument, NULL, 0 },
	[GROUP] = { "group", required_argument, NULL, 0 },
	[IN_FLIGHT] = { "in-flight", required_argument, NULL, 0 },
	[DEPTH] = { "depth", required_argument, NULL, 0 },
	[DEADLINE] = { "deadline", required_argument, NULL, 0 },
	[READS] = { "reads", required_argument, NULL, 0 },
	[MODE] = { "mode", required_argument, NULL, 0 },
	[PIN] = { "pin", required_argument, NULL, 0 },
	[OUTSIDE] = { "fault-outside", no_argument, NULL, 0 },
	[STATS] = { "stats", required_argument, NULL, 0 },
	[JSON] = { "json", no_argument, NULL, 0 },
	[HELP] = { "help", no_argument, NULL, 0 },
	{ 0 },
};

static void set_option(struct options *options, int which, const char *value)
{
	switch (which) {
	case DEVICE:
		add_device(options, value);
		break;
	case ALL:
		options->all = true;
		break;
	case PASID:
		options->pasid = number("--pasid", value, 1, (1 << 20) - 1);
		break;
	case FILENAME:
		options->file = value;
		break;
	case GROUP:
		options->group = number("--group", value, 1, PTD_CREDITS_MAX);
		break;
	case IN_FLIGHT:
		options->in_flight = number("--in-flight", value, 1, PTD_CREDITS_MAX);
		break;
	case DEPTH:
		options->depth = number("--depth", value, 1, MAX_DEPTH);
		break;
	case DEADLINE:
		options->deadline = number("--deadline", value, 1, MAX_DEADLINE_MS);
		break;
	case READS:
		options->reads = number("--reads", value, 1, 256);
		break;
	case MODE:
		options->mode = parse_mode(value);
		break;
	case PIN:
		parse_pin(&options->pin, value);
		break;
	case OUTSIDE:
		options->fault_outside = true;
		break;
	case STATS:
		options->stats = number("--stats", value, 1, 86400);
		break;
	case JSON:
		options->json = true;
		break;
	case HELP:
		fputs(help, stdout);
		exit(EXIT_OK);
	}
}

static void parse_options(struct options *options, int argc, char **argv)
{
	int c, which;

	while ((c = getopt_long(argc, argv, "", long_options, &which)) == 0)
		set_option(options, which, optarg);
	if (c != -1 || optind != argc) {
		fputs("iopf-server: see --help\n", stderr);
		exit(EXIT_USAGE);
	}
}

static void on_signal(int number)
{
	caught_signal = number;
}

/* Without SA_RESTART: a wait for faults is to end. */
static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	const int numbers[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE };
	size_t i;

	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		sigaction(numbers[i], &action, NULL);
}

static void complain(const struct server *server)
{
	fprintf(stderr, "iopf-server: %s\n", caught_signal ? strsignal(caught_signal) :
		iopf_error(&server->io));
}

/*
 * Later checks are done although one went wrong, but not after an error or a
 * signal: then the devices are stopped, and what was sent must still be answered.
 */
static int run(struct server *server)
{
	int (*const phases[])(struct server *) = {
		run_copy, check_copy, check_pin, run_outside, report,
	};
	int result = EXIT_OK, rc;
	size_t i;

	for (i = 0; i < sizeof(phases) / sizeof(phases[0]); i++) {
		rc = caught_signal ? -EINTR : phases[i](server);
		if (rc < 0) {
			complain(server);
			serve_stop(server);
			report(server);
			return rc;
		}
		result |= rc;
	}
	return result;
}

int main(int argc, char **argv)
{
	struct options options = {
		.pasid = 1, .group = 4, .in_flight = 8, .reads = 8, .mode = IOPF_SERVE,
		.file = "/proc/self/exe",
	};
	static struct server server;
	int rc;

	parse_options(&options, argc, argv);
	catch_signals();
	setvbuf(stdout, NULL, _IOLBF, 0);
	rc = options.json ? output_json(&server.io) : 0;
	if (!rc)
		rc = setup(&server, &options);
	if (rc)
		complain(&server);
	else
		rc = run(&server);
	if (rc < 0)
		rc = caught_signal ? EXIT_SIGNAL + caught_signal : EXIT_SETUP;
	report_json(&server, rc);
	teardown(&server);
	return rc;
}
