/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of the library share. */
#ifndef LIB_TEST_H
#define LIB_TEST_H

#include <signal.h>
#include <stdbool.h>
#include <sys/time.h>

#define SLOT_SIZE 16
#define WAIT_MS 20000

static void on_alarm(int number)
{
	(void)number;
}

/* Let a signal come after a while, again and again, as one may come before the wait. */
static void alarms(bool on)
{
	struct itimerval timer = { { 0, on ? 20000 : 0 }, { 0, on ? 20000 : 0 } };
	struct sigaction action = { .sa_handler = on_alarm };

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

#endif
