// SPDX-License-Identifier: GPL-2.0-only
/*
 * iopf-server: let PRI-capable devices copy a file by DMA out of memory that is
 * mapped page by page, as the devices' page requests come in.
 */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server.h"

/* what the kernel takes */
#define MAX_DEPTH 65536
#define MAX_DEADLINE_MS 3600000
#define DEFAULT_READS 8
#define MIN_STATS 0.1
#define MAX_STATS 86400

volatile sig_atomic_t caught_signal;

static const char help[] =
"usage: iopf-server [OPTION]...\n"
"Serve the page faults of devices (pri-testdev, 1234:9171) that copy a file by DMA.\n"
"Nothing is mapped for them at the start; each fault maps the pages that it asks\n"
"for, in the file or in the place of the copy.  Then everything is verified.\n"
"\n"
"  --device BDF     use this device; may be repeated (default: the first that is\n"
"                   free)\n"
"  --all            use all such devices, up to 16, at the same time\n"
"  --pasid N        address space of the DMA (default 1)\n"
"  --file F         file to copy (default: this program)\n"
"  --group N        page requests in a group, 1..256 (default 4)\n"
"  --in-flight N    groups that a device has in flight, 1..256 (default 8)\n"
"  --depth N        groups that the fault queue holds (default: the kernel's)\n"
"  --deadline MS    let the kernel answer INVALID what has no answer by then\n"
"                   (default: never)\n"
"  --reads N        with mode read or multishot: reads kept posted, 1..256\n"
"                   (default 8)\n"
"  --mode M         how: serve (one system call that answers and waits, where the\n"
"                   kernel has it; default), poll (poll, read and write), or with\n"
"                   io_uring read (one-shot reads and writes), multishot (one read\n"
"                   that stays, with N buffers)\n"
"  --resolve WHO    server: map what a fault asks for, and answer it (default);\n"
"                   kernel: let the kernel do so, without a pin; what it cannot\n"
"                   resolve is answered INVALID\n"
"  --pin RANGE      map this from the start, and verify that it never faults;\n"
"                   RANGE is src:OFFSET+SIZE or dst:OFFSET+SIZE, in whole pages,\n"
"                   with K, M or G, or all\n"
"  --fault-outside  then access a page outside the file, and verify that the\n"
"                   answer INVALID stops the device\n"
"  --stats SEC      a line of rates and latencies every so many seconds,\n"
"                   0.1..86400\n"
"  --json           JSON on standard output, all else on standard error\n"
"  --version, -V    print the version\n"
"  --help, -h       print this\n"
"\n"
"Exit status: 0 all is as it must be; 1 something is not (a line with WRONG);\n"
"2 usage; 3 a file, the device or the kernel did not permit it; 5 a device was asked\n"
"back (unbound, unplugged) and given up; 128+N signal N.\n";

__attribute__((format(printf, 1, 2), noreturn))
static void usage_error(const char *what, ...)
{
	va_list args;

	fputs("iopf-server: ", stderr);
	va_start(args, what);
	vfprintf(stderr, what, args);
	va_end(args);
	fputs("\nTry 'iopf-server --help'.\n", stderr);
	exit(EXIT_USAGE);
}

/* Decimal, or hexadecimal after 0x: *end is what follows; 0 and no progress if it is neither. */
static unsigned long long digits(const char *text, char **end)
{
	*end = (char *)text;
	if (!isdigit((unsigned char)*text))
		return 0;
	errno = 0;
	return strtoull(text, end, strncmp(text, "0x", 2) ? 10 : 16);
}

static uint32_t number(const char *option, const char *text, unsigned long min, unsigned long max)
{
	char *end;
	unsigned long long value = digits(text, &end);

	if (end == text || *end || errno || value < min || value > max)
		usage_error("%s %s: a number from %lu to %lu is wanted", option, text, min, max);
	return (uint32_t)value;
}

static double seconds(const char *option, const char *text)
{
	char *end;
	double value = strtod(text, &end);

	/* a value that is no number is not in the range */
	if (end == text || *end || !(value >= MIN_STATS && value <= MAX_STATS))
		usage_error("%s %s: seconds from %g to %d are wanted", option, text, MIN_STATS,
			    MAX_STATS);
	return value;
}

/* A number with K, M or G, in whole pages; *end is what follows, NULL if it is none. */
static uint64_t size_of(const char *text, char **end)
{
	static const char units[] = "KMG";
	uint64_t value = digits(text, end);
	const char *unit = **end ? strchr(units, **end) : NULL;
	unsigned int shift = unit ? 10 * (unsigned int)(unit - units + 1) : 0;

	if (*end == text || errno || value > UINT64_MAX >> shift || (value << shift) % PAGE_SIZE)
		*end = NULL;
	else if (unit)
		++*end;
	return value << shift;
}

static bool parse_range(struct pin *pin, const char *text)
{
	char *end;

	pin->all = !strcmp(text, "all");
	if (pin->all)
		return pin->on = true;
	pin->dst = !strncmp(text, "dst:", 4);
	if (!pin->dst && strncmp(text, "src:", 4))
		return false;
	pin->offset = size_of(text + 4, &end);
	if (!end || *end != '+')
		return false;
	pin->size = size_of(end + 1, &end);
	pin->on = true;
	return end && !*end && pin->size && pin->offset <= UINT64_MAX - pin->size;
}

static void parse_pin(struct pin *pin, const char *text)
{
	if (!parse_range(pin, text))
		usage_error("--pin %s: all, src: or dst:, OFFSET+SIZE in whole pages is wanted",
			    text);
}

static bool parse_resolve(const char *text)
{
	bool kernel = !strcmp(text, "kernel");

	if (!kernel && strcmp(text, "server"))
		usage_error("--resolve %s: server or kernel is wanted", text);
	return kernel;
}

static void add_device(struct options *options, const char *bdf)
{
	struct iopf io;
	char full[16];
	int i;

	if (iopf_full_bdf(&io, bdf, full))
		usage_error("--device: %s", iopf_error(&io));
	if (options->n_devices == MAX_TARGETS)
		usage_error("--device %s: there are %d already", bdf, MAX_TARGETS);
	for (i = 0; i < options->n_devices; i++) {
		if (!strcmp(options->devices[i].bdf, full))
			usage_error("--device %s: it is there already", bdf);
	}
	memcpy(options->devices[options->n_devices++].bdf, full, sizeof(full));
}

static enum iopf_mode parse_mode(const char *text)
{
	enum iopf_mode mode;

	for (mode = IOPF_SERVE; mode <= IOPF_POLL; mode++) {
		if (!strcmp(text, iopf_mode_name(mode)))
			return mode;
	}
	usage_error("--mode %s: serve, read, multishot or poll is wanted", text);
}

enum {
	DEVICE, ALL, PASID, FILENAME, GROUP, IN_FLIGHT, DEPTH, DEADLINE, READS, MODE, RESOLVE,
	PIN, OUTSIDE, STATS, JSON, VERSION, HELP,
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
	[RESOLVE] = { "resolve", required_argument, NULL, 0 },
	[PIN] = { "pin", required_argument, NULL, 0 },
	[OUTSIDE] = { "fault-outside", no_argument, NULL, 0 },
	[STATS] = { "stats", required_argument, NULL, 0 },
	[JSON] = { "json", no_argument, NULL, 0 },
	[VERSION] = { "version", no_argument, NULL, 'V' },
	[HELP] = { "help", no_argument, NULL, 'h' },
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
	case RESOLVE:
		options->resolve_kernel = parse_resolve(value);
		break;
	case PIN:
		parse_pin(&options->pin, value);
		break;
	case OUTSIDE:
		options->fault_outside = true;
		break;
	case STATS:
		options->stats = seconds("--stats", value);
		break;
	case JSON:
		options->json = true;
		break;
	}
}

static void check_options(struct options *options)
{
	bool posts = options->mode == IOPF_READ || options->mode == IOPF_MULTISHOT;

	if (options->all && options->n_devices)
		usage_error("--all and --device exclude each other");
	if (options->reads && !posts)
		usage_error("--reads needs --mode read or --mode multishot");
	if (!options->reads)
		options->reads = DEFAULT_READS;
}

static void parse_options(struct options *options, int argc, char **argv)
{
	int c, which;

	while ((c = getopt_long(argc, argv, "hV", long_options, &which)) != -1) {
		switch (c) {
		case 0:
			set_option(options, which, optarg);
			break;
		case 'h':
			fputs(help, stdout);
			exit(EXIT_OK);
		case 'V':
			puts("iopf-server " IOPF_VERSION);
			exit(EXIT_OK);
		default:	/* getopt_long() has said what is wrong */
			fputs("Try 'iopf-server --help'.\n", stderr);
			exit(EXIT_USAGE);
		}
	}
	if (optind != argc)
		usage_error("unexpected argument '%s'", argv[optind]);
	check_options(options);
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
		rc = should_end(server);
		if (!rc)
			rc = phases[i](server);
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
		.pasid = 1, .group = 4, .in_flight = 8, .mode = IOPF_SERVE,
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
		rc = caught_signal ? EXIT_SIGNAL + caught_signal :
		     server.leaving ? EXIT_LEAVING : EXIT_SETUP;
	report_json(&server, rc);
	teardown(&server);
	return output_end(rc);
}
