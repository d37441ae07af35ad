// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "top.h"

static const char help[] =
"usage: iopf-top [OPTION]...\n"
"Show the counters of I/O page faults: of each fault queue that a process has open,\n"
"and of each device that can send page requests.\n"
"\n"
"  --interval SEC   from one look to the next, 0.1..3600 (default 1)\n"
"  --once           look once and end\n"
"  --json           a line of JSON for each look\n"
"  --help           print this\n"
"\n"
"On a terminal: d shows or hides every counter, space looks at once, q ends.\n"
"Queues of other users, and all devices, are seen by root alone.\n"
"\n"
"Exit status: 0; 2 usage; 3 the counters could not be read; 128+N signal N.\n";

enum { EXIT_USAGE = 2, EXIT_READ = 3, EXIT_SIGNAL = 128 };

struct options {
	double interval;
	bool once, json;
};

static volatile sig_atomic_t caught_signal;
static struct termios cooked;
static bool details;

static void on_signal(int number)
{
	caught_signal = number;
}

static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

enum { INTERVAL, ONCE, JSON, HELP };

static const struct option long_options[] = {
	[INTERVAL] = { "interval", required_argument, NULL, 0 },
	[ONCE] = { "once", no_argument, NULL, 0 },
	[JSON] = { "json", no_argument, NULL, 0 },
	[HELP] = { "help", no_argument, NULL, 0 },
	{ 0 },
};

static void usage_error(void)
{
	fputs("iopf-top: see --help\n", stderr);
	exit(EXIT_USAGE);
}

static void parse_options(struct options *options, int argc, char **argv)
{
	int c, which;
	char *end;

	while ((c = getopt_long(argc, argv, "", long_options, &which)) == 0) {
		switch (which) {
		case INTERVAL:
			options->interval = strtod(optarg, &end);
			if (*end || !(options->interval >= 0.1 && options->interval <= 3600))
				usage_error();
			break;
		case ONCE:
			options->once = true;
			break;
		case JSON:
			options->json = true;
			break;
		case HELP:
			fputs(help, stdout);
			exit(0);
		}
	}
	if (c != -1 || optind != argc)
		usage_error();
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
	if (details || now->devices_errno || !now->n)
		show_all(now, before, screen_width());
	fputs("\033[?7h", stdout);
}

/* Wait for the next look: false if it is the end. */
static bool wait_next(const struct options *options, bool tty)
{
	struct pollfd pfd = { .fd = tty ? STDIN_FILENO : -1, .events = POLLIN };
	char key;

	if (poll(&pfd, 1, (int)(options->interval * 1000)) <= 0)
		return !caught_signal;
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

static int run(const struct options *options, bool tty)
{
	struct sample samples[2] = { 0 };
	unsigned int turn = 0;
	int rc;

	do {
		turn = !turn;
		rc = sample_take(&samples[turn]);
		if (rc)
			break;
		show(options, &samples[turn], &samples[!turn], tty);
	} while (!options->once && wait_next(options, tty));
	sample_free(&samples[0]);
	sample_free(&samples[1]);
	return rc;
}

int main(int argc, char **argv)
{
	struct options options = { .interval = 1 };
	bool tty;
	int rc;

	parse_options(&options, argc, argv);
	tty = !options.once && !options.json && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
	catch_signals();
	if (tty)
		screen_begin();
	rc = run(&options, tty);
	if (tty)
		screen_end();
	if (rc) {
		fprintf(stderr, "iopf-top: %s\n", strerror(-rc));
		return EXIT_READ;
	}
	return caught_signal ? EXIT_SIGNAL + caught_signal : 0;
}
