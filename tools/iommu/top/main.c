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
"  --version, -V    print the version\n"
"  --help, -h       print this\n"
"\n"
"On a terminal: d shows or hides every counter, space looks at once, q ends.\n"
"Queues of other users, and all devices, are seen by root alone.\n"
"\n"
"Exit status: 0; 2 usage; 3 the counters, or those of devices, could not be read,\n"
"or the output not be written; 128+N signal N.\n";

enum { EXIT_USAGE = 2, EXIT_READ = 3, EXIT_SIGNAL = 128 };

struct options {
	double interval;
	bool once, json;
};

static volatile sig_atomic_t caught_signal, suspended;
static struct termios cooked;
static bool details;

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

enum { INTERVAL, ONCE, JSON, VERSION, HELP };

static const struct option long_options[] = {
	[INTERVAL] = { "interval", required_argument, NULL, 0 },
	[ONCE] = { "once", no_argument, NULL, 0 },
	[JSON] = { "json", no_argument, NULL, 0 },
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
	printf("\033[H\033[J\033[?7liopf-top  %s  every %g s   d details  q quit\n\n", at,
	       options->interval);
	show_table(now, before);
	putchar('\n');
	if (now->devices_error[0])
		printf("no counters of devices: %s\n", now->devices_error);
	if (details || !now->n)
		show_all(now, before, screen_width());
	fputs("\033[?7h", stdout);
}

/* Wait for the next look: false if it is the end. */
static bool wait_next(const struct options *options, bool tty)
{
	struct pollfd pfd = { .fd = tty ? STDIN_FILENO : -1, .events = POLLIN };
	char key;

	if (poll(&pfd, 1, (int)(options->interval * 1000)) <= 0) {
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
		show_json(now);
	else if (tty)
		draw(options, now, before);
	else
		show_all(now, before, screen_width());
	fflush(stdout);
}

static void complain(const struct sample *sample)
{
	if (sample->devices_error[0])
		fprintf(stderr, "iopf-top: no counters of devices: %s\n", sample->devices_error);
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
		rc = sample_take(&samples[turn]);
		if (rc)
			break;
		show(options, &samples[turn], &samples[!turn], tty);
		if (first && !tty)
			complain(&samples[turn]);
		first = false;
	} while (!ferror(stdout) && !options->once && wait_next(options, tty));
	if (tty) {
		screen_end();
		complain(&samples[turn]);
	}
	if (rc)
		fprintf(stderr, "iopf-top: look through /proc: %s\n", strerror(-rc));
	else if (ferror(stdout))
		fputs("iopf-top: not all of the output could be written\n", stderr);
	good = !rc && !ferror(stdout) && !samples[turn].devices_error[0];
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
	tty = !options.once && !options.json && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
	catch_signals(tty);
	if (tty)
		screen_begin();
	status = run(&options, tty);
	return caught_signal ? EXIT_SIGNAL + caught_signal : status;
}
