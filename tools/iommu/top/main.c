// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "lib/iopf.h"
#include "top.h"

static const char help[] =
"usage: iopf-top [OPTION]...\n"
"Show the counters of I/O page faults: of each fault queue that a process has open,\n"
"and of each device that can send page requests.\n"
"\n"
"  --interval SEC   from one look to the next, 0.1..3600 (default 1)\n"
"  --once           look once and end\n"
"  --json           a line of JSON for each look\n"
"  --record FILE    write these lines to FILE, too\n"
"  --replay FILE    show what was recorded, on a terminal at the pace of then\n"
"  --version, -V    print the version\n"
"  --help, -h       print this\n"
"\n"
"On a terminal: d shows or hides every counter, space looks at once, q ends.\n"
"What --replay shows last stays until then.\n"
"Queues of other users, and all devices, are seen by root alone.\n"
"\n"
"Exit status: 0; 2 usage; 3 the counters, or those of devices, or a record could not\n"
"be read, or the output not be written; 128+N signal N.\n";

enum { EXIT_USAGE = 2, EXIT_READ = 3, EXIT_SIGNAL = 128 };

struct options {
	double interval;
	bool once, json;
	const char *record, *replay;
};

static volatile sig_atomic_t caught_signal, suspended;
static struct termios cooked;
static bool details;
static FILE *record, *replay;
/* when what is replayed began */
static uint64_t replay_begin;

static void on_signal(int number)
{
	caught_signal = number;
}

static void on_suspend(int number)
{
	(void)number;
	suspended = true;
}

/* On a terminal all that end or stop a program: it is to be left as it was. */
static void catch_signals(bool tty)
{
	struct sigaction end = { .sa_handler = on_signal };
	struct sigaction suspend = { .sa_handler = on_suspend };

	sigaction(SIGINT, &end, NULL);
	sigaction(SIGTERM, &end, NULL);
	if (!tty)
		return;
	sigaction(SIGHUP, &end, NULL);
	sigaction(SIGQUIT, &end, NULL);
	sigaction(SIGTSTP, &suspend, NULL);
}

enum { INTERVAL, ONCE, JSON, RECORD, REPLAY, VERSION, HELP };

static const struct option long_options[] = {
	[INTERVAL] = { "interval", required_argument, NULL, 0 },
	[ONCE] = { "once", no_argument, NULL, 0 },
	[JSON] = { "json", no_argument, NULL, 0 },
	[RECORD] = { "record", required_argument, NULL, 0 },
	[REPLAY] = { "replay", required_argument, NULL, 0 },
	[VERSION] = { "version", no_argument, NULL, 'V' },
	[HELP] = { "help", no_argument, NULL, 'h' },
	{ 0 },
};

__attribute__((format(printf, 1, 2), noreturn))
static void usage_error(const char *what, ...)
{
	va_list args;

	fputs("iopf-top: ", stderr);
	va_start(args, what);
	vfprintf(stderr, what, args);
	va_end(args);
	fputs("\nTry 'iopf-top --help'.\n", stderr);
	exit(EXIT_USAGE);
}

static double parse_interval(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	/* a value that is no number is not in the range */
	if (end == text || *end || !(value >= 0.1 && value <= 3600))
		usage_error("--interval %s: seconds from 0.1 to 3600 are wanted", text);
	return value;
}

static void parse_options(struct options *options, int argc, char **argv)
{
	int c, which;

	while ((c = getopt_long(argc, argv, "hV", long_options, &which)) != -1) {
		switch (c) {
		case 0:
			if (which == INTERVAL)
				options->interval = parse_interval(optarg);
			options->once |= which == ONCE;
			options->json |= which == JSON;
			if (which == RECORD)
				options->record = optarg;
			if (which == REPLAY)
				options->replay = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			exit(0);
		case 'V':
			puts("iopf-top " IOPF_VERSION);
			exit(0);
		default:	/* getopt_long() has said what is wrong */
			fputs("Try 'iopf-top --help'.\n", stderr);
			exit(EXIT_USAGE);
		}
	}
	if (optind != argc)
		usage_error("unexpected argument '%s'", argv[optind]);
	if (options->replay && (options->record || options->once))
		usage_error("--replay excludes --record and --once");
}

static FILE *open_file(const char *path, const char *mode)
{
	FILE *file = fopen(path, mode);

	if (file)
		return file;
	fprintf(stderr, "iopf-top: %s: %s\n", path, strerror(errno));
	exit(EXIT_READ);
}

static void screen_begin(void)
{
	struct termios raw;

	tcgetattr(STDIN_FILENO, &cooked);
	raw = cooked;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	fputs("\033[?1049h\033[?25l", stdout);
}

static void screen_end(void)
{
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSANOW, &cooked);
}

/* Until somebody says SIGCONT, with the terminal as it was. */
static void suspend(void)
{
	suspended = false;
	screen_end();
	raise(SIGSTOP);
	screen_begin();
}

static unsigned int screen_width(void)
{
	struct winsize size;

	return !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col ? size.ws_col : 80;
}

static void draw(const struct options *options, const struct sample *now,
		 const struct sample *before)
{
	time_t clock = time(NULL);
	char at[16];

	strftime(at, sizeof(at), "%H:%M:%S", localtime(&clock));
	/* no wrapping: what is wider than the screen is cut */
	fputs("\033[H\033[J\033[?7liopf-top  ", stdout);
	if (replay)
		printf("%.200s, second %.1f", options->replay,
		       (double)(now->ns - replay_begin) / 1e9);
	else
		printf("%s  every %g s", at, options->interval);
	fputs("   d details  q quit\n\n", stdout);
	show_table(now, before);
	putchar('\n');
	if (now->devices_error[0])
		printf("no counters of devices: %s\n", now->devices_error);
	if (details || !now->n)
		show_all(now, before, screen_width());
	fputs("\033[?7h", stdout);
}

/* Wait for the next look, so many milliseconds or (-1) for a key: false if it is the end. */
static bool wait_next(int ms, bool tty)
{
	struct pollfd pfd = { .fd = tty ? STDIN_FILENO : -1, .events = POLLIN };
	char key;

	if (poll(&pfd, 1, ms) <= 0) {
		if (suspended)
			suspend();
		return !caught_signal;
	}
	if (read(STDIN_FILENO, &key, 1) != 1 || key == 'q')
		return false;
	if (key == 'd')
		details = !details;
	return true;
}

static void show(const struct options *options, const struct sample *now,
		 const struct sample *before, bool tty)
{
	if (options->json)
		show_json(now, stdout);
	else if (tty)
		draw(options, now, before);
	else
		show_all(now, before, screen_width());
	fflush(stdout);
	if (record)
		show_json(now, record);
}

static void complain(const struct sample *sample)
{
	if (sample->devices_error[0])
		fprintf(stderr, "iopf-top: no counters of devices: %s\n", sample->devices_error);
}

/* Is all that was written at its place? */
static bool is_written(void)
{
	return !ferror(stdout) && !(record && (fflush(record) || ferror(record)));
}

/* Of a record: after the last look on a terminal until a key. 1: the end. */
static int next_look(struct sample *sample, const struct sample *before, bool tty)
{
	int rc, ms;

	if (!replay)
		return sample_take(sample);
	rc = sample_read(sample, replay);
	if (!before->ns)
		replay_begin = sample->ns;
	if (!tty || !before->ns || rc < 0)
		return rc;
	do {
		ms = rc ? -1 : (int)((sample->ns - before->ns) / 1000000);
		if (!wait_next(ms, tty))
			return 1;
	} while (rc);
	return 0;
}

static void say_errors(int rc)
{
	if (rc < 0 && replay)
		fprintf(stderr, "iopf-top: the record: %s\n", strerror(-rc));
	else if (rc < 0)
		fprintf(stderr, "iopf-top: look through /proc: %s\n", strerror(-rc));
	else if (!is_written())
		fputs("iopf-top: not all of the output could be written\n", stderr);
}

/* The program's exit status, but for signals. */
static int run(const struct options *options, bool tty)
{
	struct sample samples[2] = { 0 };
	unsigned int turn = 0;
	bool first = true, good;
	int rc;

	do {
		turn = !turn;
		rc = next_look(&samples[turn], &samples[!turn], tty);
		if (rc)
			break;
		show(options, &samples[turn], &samples[!turn], tty);
		if (first && !tty)
			complain(&samples[turn]);
		first = false;
	} while (is_written() && !caught_signal && !options->once &&
		 (replay || wait_next((int)(options->interval * 1000), tty)));
	if (tty) {
		screen_end();
		complain(&samples[turn]);
	}
	say_errors(rc);
	good = rc >= 0 && is_written() && (replay || !samples[turn].devices_error[0]);
	sample_free(&samples[0]);
	sample_free(&samples[1]);
	return good ? 0 : EXIT_READ;
}

int main(int argc, char **argv)
{
	struct options options = { .interval = 1 };
	bool tty;
	int status;

	parse_options(&options, argc, argv);
	if (options.record)
		record = open_file(options.record, "we");
	if (options.replay)
		replay = open_file(options.replay, "re");
	tty = !options.once && !options.json && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
	catch_signals(tty);
	if (tty)
		screen_begin();
	status = run(&options, tty);
	return caught_signal ? EXIT_SIGNAL + caught_signal : status;
}
