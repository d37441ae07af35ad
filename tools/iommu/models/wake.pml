/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a queued group to who waits for it
 *
 * The model of drivers/iommu/iommufd/fault_wake.c, and of what fault.c, fault_read.c and
 * fault_file.c there have to do with it. At each step stands the function that it is.
 *
 * What is shown, of every order in which the steps can be done:
 *
 *	- When nothing moves any more, nobody who could take a group sleeps while one is
 *	  queued, and no poller that was told once of several groups is left with one.
 *	- That is so without the look, unless a wake-up is lost: as io_uring loses them,
 *	  by a read that is cancelled after it was woken, or whose task does not come.
 *	- If wake-ups are lost, a reader that could take the group is woken by the fifth
 *	  look at the latest after the others came to rest.
 *	- A reader is passed by each of the others once at the most.
 *	- After the end of life nobody sleeps.
 *
 * What happens under a lock, or is one atomic operation, is one step here. A missing
 * barrier lets the processor look before others see what it wrote: in a model without
 * the barrier the two steps change places.
 *
 * Each of these parts is searched to the end, by itself:
 *
 *	TURN	two reports, a blocking read that a signal may end, a posted read,
 *		and a copy to user space that fails; no look
 *	EDGES	two reports, a blocking read, a copy that fails, and a poller that
 *		reads one group each time it is told; no look
 *	ORDER	two reports, a blocking, a posted and a multishot read; no look
 *	LOST	the same, with reads that are cancelled, tasks that do not come, the look
 *	STUCK	two reports, a blocking read, two multishot reads whose tasks do not come
 *	FREE	two reports, a posted read that is cancelled, the look, the freeing
 *	END	a report, a blocking, a posted and a multishot read; the end of life
 *	LAST	two reports, a blocking read, a poller; the end of life
 *	ALARM	a loss that need not come again, a report, a blocking and a posted read, a
 *		copy that fails; no look
 *	TOLD	two such losses, a report, a read that does not wait, a copy that fails,
 *		and a poller; no look
 *
 * With one of the following changes, a part does not hold:
 *
 *	WAKE_NO_BARRIER		TURN	smp_mb() in iommufd_fault_wake_next()
 *	WAKE_NO_BARRIER		EDGES	the same, for the pollers
 *	JOIN_NO_BARRIER		TURN	that of prepare_to_wait_exclusive()
 *	POLL_NO_BARRIER		TURN	that of poll_wait(), for a posted read
 *	POLL_NO_BARRIER		EDGES	the same, for a poller
 *	JOIN_NO_CHECK		TURN	the look at @queued in iommufd_fault_wait()
 *	POLL_NO_CHECK		TURN	that in iommufd_fault_poll(), for a posted read
 *	POLL_NO_CHECK		EDGES	the same, for a poller
 *	LEAVE_NO_TRY		TURN	who leaves by a signal does not read once more
 *	SMALL_NO_WAKE		TURN	nor does one that has no room for the group
 *	LEFT_NO_EDGE		EDGES	a read that leaves a group does not tell pollers
 *	RESTORE_NO_WAKE		TURN	a read that puts a group back wakes nobody
 *	TELL_CLEARED_LATE	EDGES	fault_wake_work() wakes, then clears the bit
 *	STAYS_FIRST		ORDER	an entry that stays is not moved to the end
 *	NO_LOOK			LOST	nobody calls fault_watch()
 *	LOOK_NO_BARRIER		LOST	smp_mb__after_atomic() in fault_look()
 *	LOOK_ENDS		LOST	fault_look() is not set again if one was taken
 *	NUDGE_ENDS		LOST	nor by fault_nudge()
 *	STOP_NO_FIRST		FREE	iommufd_fault_stop_wake() stops the work, then the timer
 *	STOP_NO_LAST		FREE	it stops the timer, then the work
 *	HANG_UP_LATE		END	iommufd_fault_hang_up() wakes, then sets @hung_up
 *	HANG_UP_ONE		END	it wakes one reader
 *	HANG_UP_NO_EDGE		LAST	it does not wake pollers
 *	HANG_UP_LATE		LAST	the same, for the pollers
 *	JOIN_NO_HANG_UP		END	iommufd_fault_wait() does not look at @hung_up
 *	POLL_NO_HANG_UP		END	nor does iommufd_fault_poll(), for a posted read
 *	POLL_NO_HANG_UP		LAST	the same, for a poller
 *	LOSS_NO_WAKE		ALARM	who notes a loss wakes nobody
 *	JOIN_NO_ALARM		ALARM	iommufd_fault_wait() looks at @queued alone
 *	POLL_NO_ALARM		ALARM	so does iommufd_fault_poll(), for a posted read
 *	POLL_NO_ALARM		TOLD	the same, for a poller
 *	UNTOLD_NO_WAKE		ALARM	nor does a read that could not copy it
 *	UNTOLD_NO_WAKE		TOLD	the same, for a poller
 */

#if defined(TURN)
#define NR	2
#define REPORTS	2
#define WITH_POSTED
#define SIGNAL
#define FAIL
#elif defined(EDGES)
#define NR	1
#define REPORTS	2
#define WITH_POLLER
#define FAIL
#elif defined(ORDER)
#define NR	3
#define REPORTS	2
#define WITH_POSTED
#define WITH_MULTI
#elif defined(LOST)
#define NR	2
#define REPORTS	2
#define WITH_POSTED
#define WITH_LOOK
#define CANCEL
#elif defined(STUCK)
#define NR	3
#define REPORTS	2
#define WITH_LOOK
#elif defined(FREE)
#define NR	2
#define REPORTS	2
#define WITH_POSTED
#define WITH_LOOK
#define CANCEL
#elif defined(END)
#define NR	3
#define REPORTS	1
#define WITH_POSTED
#define WITH_MULTI
#define WITH_END
#elif defined(LAST)
#define NR	1
#define REPORTS	2
#define WITH_POLLER
#define WITH_END
#elif defined(ALARM)
#define NR	2
#define REPORTS	1
#define WITH_POSTED
#define LOSSES	1
#define WITH_LOSS
#define FAIL
#elif defined(TOLD)
#define NR	1
#define REPORTS	1
#define WITH_POLLER
#define LOSSES	2
#define WITH_LOSS
#define FAIL
#endif

/* Who waits on @readers; of STUCK all but the thread do not come */
#define THREAD	0
#define POSTED	1
#define MULTI	2
#ifdef STUCK
#define STAYS(r)	(r != THREAD)
#else
#define STAYS(r)	(r == MULTI)
#endif

mtype = { RUNS, SLEEPS, AWAY };

byte queued;			/* iommufd_fault::queued; under the lock, but for who looks */
chan readers = [NR] of { byte };	/* iommufd_fault::readers, each step under its lock */
mtype is[NR] = RUNS;
bool woken[NR];			/* since it joined; of a posted read: its task work is due */
byte reports = REPORTS;		/* that are to come, or under way */
hidden byte r, i, n;		/* used within one step */

#ifdef WITH_POLLER
bool polling;			/* on iommufd_fault::pollers */
bool event;			/* the poller is told */
bool idle;			/* it waits to be told */
bool tell;			/* FAULT_TELL_POLLERS; if it is set, the work is queued */
#endif
#ifdef FAIL
bool failed;			/* a copy to user space has */
#endif
#ifdef TURN
bool small;			/* a reader had no room for a group */
#endif
#ifdef WITH_END
bool detached;			/* the page tables are gone */
bool hung_up;			/* iommufd_fault::hung_up */
#else
#define hung_up	false
#endif
#ifdef WITH_LOSS
bool alarm;			/* iommufd_fault::alarm; under the lock, but for who looks */
#else
#define alarm	false
#endif
#ifdef WITH_LOOK
bool moved;			/* iommufd_fault::taken is not ::looked */
bool watched;			/* FAULT_WATCHED */
bool nudging;			/* FAULT_NUDGE_READERS; if it is set, the work is queued */
bool timer;			/* iommufd_fault::look is set */
byte nudge = 1;			/* iommufd_fault::nudge */
byte left;			/* of fault_nudge(): so many are still to be woken */
byte seen = NR;			/* and the first that stays, if there is one */
bool looking;			/* fault_look() runs */
bool nudges;			/* fault_wake_work() runs */
bool freed;			/* the object is */
byte looks;			/* since all came to rest, with a group and a sleeper */
#endif

#if NR == 1
#define A_READER_SLEEPS	(is[0] == SLEEPS)
#define ALL_REST	(is[0] != RUNS)
#elif NR == 2
#define A_READER_SLEEPS	(is[0] == SLEEPS || is[1] == SLEEPS)
#define ALL_REST	(is[0] != RUNS && is[1] != RUNS)
#else
#define A_READER_SLEEPS	(is[0] == SLEEPS || is[1] == SLEEPS || is[2] == SLEEPS)
#define ALL_REST	(is[0] != RUNS && is[1] != RUNS && is[2] != RUNS)
#endif

#ifdef ORDER
byte passed[NR];		/* readers that were woken before it, although it slept */

inline count_passes()
{
	for (i : 0 .. NR - 1) {
		if
		:: i == r -> passed[i] = 0
		:: i != r && readers??[eval(i)] -> passed[i]++; assert(passed[i] < NR)
		:: else
		fi
	}
}
#define JOINS(r)	passed[r] = 0; readers!r
#else
#define count_passes()	skip
#define JOINS(r)	readers!r
#endif

/*
 * The wake function of reader @r, which was taken off the queue before. A thread that
 * runs already stays there until finish_wait(), a posted read whose task work is due
 * until that removes it, and a multishot read always.
 */
inline wake_entry()
{
	if
	:: STAYS(r) || woken[r] -> readers!r
	:: else
	fi;
	woken[r] = true;
	if
	:: is[r] == SLEEPS -> is[r] = RUNS
	:: else
	fi
}

/* fault_wake_reader() */
inline wake_reader()
{
	atomic {
		if
#ifdef STAYS_FIRST
		:: readers?[MULTI] -> r = MULTI; count_passes(); woken[r] = true;
			if
			:: is[r] == SLEEPS -> is[r] = RUNS
			:: else
			fi
		:: nempty(readers) && !(readers?[MULTI]) ->
			readers?r;
#else
		:: nempty(readers) ->
			readers?r;
#endif
			count_passes();
			wake_entry()
		:: empty(readers)
		fi;
		r = 0; i = 0
	}
}

/* fault_set_look(), under FAULT_WATCHED */
inline set_look()
{
	if
	:: moved -> nudge = 1
	:: !moved
	fi;
	moved = false;
	timer = true
}

/* fault_watch() */
#if defined(WITH_LOOK) && !defined(NO_LOOK)
inline watch()
{
	atomic {
		if
		:: !watched -> watched = true; set_look()
		:: watched
		fi
	}
}
#else
#define watch()		skip
#endif

/* iommufd_fault_wake_next(), after the barrier; @there: is somebody on the queue? */
inline wake_next(there)
{
	if
	:: there -> wake_reader(); watch()
	:: !(there)
	fi
}

/* waitqueue_active() of the two queues */
#define READERS_WAIT	(len(readers) > 0)
#ifdef WITH_POLLER
#define POLLERS_WAIT	polling

/* The rest of iommufd_fault_wake() */
inline tell_pollers(there)
{
	atomic {
		if
		:: (there) && !tell -> tell = true
		:: !(there) || tell
		fi
	}
}
#else
#define POLLERS_WAIT	false
#define tell_pollers(there)	skip
#endif

inline wake()
{
	wake_next(READERS_WAIT);
	tell_pollers(POLLERS_WAIT)
}

/* The end of iommufd_fault_read(), for one that got a group */
inline wake_left()
{
	if
	:: queued > 0 || alarm ->
#ifdef LEFT_NO_EDGE
		wake_next(READERS_WAIT)
#else
		wake()
#endif
	:: queued == 0 && !alarm
	fi
}

/* fault_restore(), then the end of iommufd_fault_read() */
inline restore()
{
	queued++;
#ifndef RESTORE_NO_WAKE
	wake_left()
#endif
}

#ifdef TURN
/* The group has more messages than the reader has room for: -EINVAL */
inline too_small()
{
#ifdef SMALL_NO_WAKE
	skip
#else
	if
	:: queued > 0 -> wake_next(READERS_WAIT)
	:: queued == 0
	fi
#endif
}
#endif

#ifdef WITH_LOSS
/* The end of fault_read_loss(), for a message that could not be copied */
inline restore_loss()
{
	alarm = true;
#ifndef UNTOLD_NO_WAKE
	wake_left()
#endif
}
#endif

#ifdef WITH_LOOK
#define TAKE	queued--; moved = true
#elif defined(WITH_LOSS)
#define TAKE	queued--; alarm = false		/* The loss is told with the group. */
#else
#define TAKE	queued--
#endif

/* iommufd_fault_read() of one group: goes on at @got, or behind if there is none */
#if defined(TURN)
#define READ(got)						\
	if							\
	:: atomic { queued > 0 -> TAKE };			\
		wake_left();					\
		goto got					\
	:: atomic { queued > 0 && !failed -> failed = true; TAKE };	\
		restore();					\
		goto got					\
	:: atomic { queued > 0 && !small -> small = true };	\
		too_small();					\
		goto finish					\
	:: queued == 0						\
	fi
#elif defined(WITH_LOSS)
#define READ(got)						\
	if							\
	:: atomic { queued > 0 -> TAKE };			\
		wake_left();					\
		goto got					\
	:: atomic { queued > 0 && !failed -> failed = true; TAKE };	\
		restore();					\
		goto got					\
	:: queued == 0 && !alarm				\
	:: queued == 0 && alarm ->	/* fault_read_loss() */	\
		if						\
		:: atomic { queued == 0 && alarm -> alarm = false };	\
			wake_left();				\
			goto got				\
		:: atomic { queued == 0 && alarm && !failed ->	\
			failed = true; alarm = false };		\
			restore_loss();				\
			goto got				\
		:: queued > 0 -> wake_next(READERS_WAIT)	\
		:: queued == 0 && !alarm			\
		fi						\
	fi
#elif defined(FAIL)
#define READ(got)						\
	if							\
	:: atomic { queued > 0 -> TAKE };			\
		wake_left();					\
		goto got					\
	:: atomic { queued > 0 && !failed -> failed = true; TAKE };	\
		restore();					\
		goto got					\
	:: queued == 0						\
	fi
#else
#define READ(got)						\
	if							\
	:: atomic { queued > 0 -> TAKE };			\
		wake_left();					\
		goto got					\
	:: queued == 0						\
	fi
#endif

/* iommufd_fault_iopf_handler(), iommufd_fault_queue() */
active [REPORTS] proctype Report()
{
#ifdef WAKE_NO_BARRIER
	bool reader, poller;

	reader = READERS_WAIT;
	poller = POLLERS_WAIT;
	queued++;
	wake_next(reader);
	tell_pollers(poller);
#elif defined(WITH_END)
	if
	:: atomic { !detached -> queued++ };
		wake()
	:: detached
	fi;
#else
	queued++;
	wake();
#endif
	reports--
}

#ifdef WITH_LOSS
/* iommufd_fault_note_loss() with @alarm, and who calls it */
active [LOSSES] proctype Loss()
{
	if
	:: atomic { !alarm -> alarm = true };
#ifndef LOSS_NO_WAKE
		wake()
#else
		skip
#endif
	:: alarm
	fi
}
#endif

#ifdef WITH_POLLER
/* Each of the pollers' wake functions: epoll puts the file on its list */
inline wake_pollers()
{
	atomic {
		if
		:: polling -> event = true; idle = false
		:: !polling
		fi
	}
}
#endif

#ifdef WITH_POLLER
#define WAKE_POLLERS	wake_pollers()
#else
#define WAKE_POLLERS	skip
#endif

#if defined(WITH_POLLER) || defined(WITH_LOOK)
/* fault_wake_work(), fault_nudge() */
active proctype Work()
{
end:
	do
#ifdef WITH_POLLER
#ifdef TELL_CLEARED_LATE
	:: tell -> wake_pollers(); tell = false
#else
	:: atomic { tell -> tell = false };
		wake_pollers()
#endif
#endif
#ifdef WITH_LOOK
	:: atomic { nudging -> nudging = false; nudges = true; left = nudge; seen = NR };
		do
		:: atomic {
			left > 0 && nempty(readers) ->
			assert(!freed);
			readers?r;
			n = STAYS(r) || woken[r];
			wake_entry();
			left--;
			if
			:: n && seen == NR -> seen = r
			:: n && seen == r -> left = 0
			:: else
			fi;
			r = 0; n = 0
		   }
		:: left == 0 || empty(readers) -> break
		od;
		atomic {
			left = 0;
			seen = NR;
			nudge = (nudge < NR -> 2 * nudge : nudge);
#ifndef NUDGE_ENDS
			set_look();
#endif
			nudges = false
		}
#endif
	od
}
#endif

#ifdef WITH_LOOK
/* At rest a look finds a group and a sleeper, but only until that one is woken. */
inline count_looks()
{
	if
	:: reports == 0 && ALL_REST && A_READER_SLEEPS && queued > 0 -> looks++
	:: else -> looks = 0
	fi;
	assert(looks < 5)
}

/* fault_look(), the timer's function */
active proctype Look()
{
#ifdef LOOK_NO_BARRIER
	bool waited;
#endif
end:
	do
	:: atomic { timer -> timer = false; looking = true; count_looks() };
#ifdef LOOK_NO_BARRIER
		waited = queued > 0 && READERS_WAIT;
		watched = false;
		if
		:: waited -> waited = false; goto waits
		:: !waited
		fi;
#else
		atomic { assert(!freed); watched = false };
		if
		:: queued > 0 ->
			if
			:: nempty(readers) -> goto waits
			:: empty(readers)
			fi
		:: queued == 0
		fi;
#endif
		looking = false
	od;
waits:
	atomic {
		assert(!freed);
		if
		:: watched
#ifdef LOOK_ENDS
		:: !watched && moved
#else
		:: !watched && moved -> watched = true; set_look()
#endif
		:: !watched && !moved -> watched = true; nudging = true
		fi;
		looking = false
	};
	goto end
}
#endif

#ifdef FREE
/* Nobody waits, reports, or has the file: fault_free(), iommufd_fault_stop_wake() */
active proctype Free()
{
end:
	atomic { reports == 0 && is[POSTED] == AWAY && empty(readers) -> queued = 0 };
#ifndef STOP_NO_FIRST
	atomic { !looking -> timer = false };	/* hrtimer_cancel() */
#endif
	atomic { !nudges -> nudging = false };	/* cancel_work_sync() */
#ifndef STOP_NO_LAST
	atomic { !looking -> timer = false };
#endif
	freed = true
}
#elif !defined(TOLD)
/* A blocking read or IOMMU_FAULT_SERVE: iommufd_fault_read_iter(), iommufd_fault_wait() */
active proctype Thread()
{
	bool quit;
#ifdef JOIN_NO_BARRIER
	bool nonempty;
#endif

again:
	READ(got);
	if
	:: hung_up || quit -> goto finish
	:: !hung_up && !quit
	fi;
wait:	/* prepare_to_wait_exclusive() */
#ifdef JOIN_NO_BARRIER
	nonempty = queued > 0;
#endif
	atomic {
		woken[THREAD] = false;
		if
		:: readers??[THREAD]
		:: !(readers??[THREAD]) -> JOINS(THREAD)
		fi
	};
#ifdef JOIN_NO_BARRIER
	if
	:: nonempty -> nonempty = false; goto leave
	:: !nonempty
	fi;
#elif !defined(JOIN_NO_CHECK)
	if
	:: queued > 0 -> goto leave
	:: queued == 0
	fi;
#endif
#if defined(WITH_LOSS) && !defined(JOIN_NO_ALARM)
	if
	:: alarm -> goto leave
	:: !alarm
	fi;
#endif
#ifndef JOIN_NO_HANG_UP
	if
	:: hung_up -> goto leave
	:: !hung_up
	fi;
#endif
	atomic {	/* schedule() */
		if
		:: woken[THREAD] -> goto wait
		:: !woken[THREAD] -> is[THREAD] = SLEEPS
		fi
	};
#ifdef SIGNAL
	if
	:: goto end_sleep
	:: !quit
	fi;
	atomic {
		quit = true;
		if
		:: is[THREAD] == SLEEPS -> woken[THREAD] = true; is[THREAD] = RUNS
		:: is[THREAD] == RUNS
		fi
	};
#endif
end_sleep:
	is[THREAD] == RUNS;
	if
	:: quit -> goto leave
	:: !quit -> goto wait
	fi;
leave:	/* finish_wait() */
	atomic {
		if
		:: readers??[THREAD] -> readers??THREAD
		:: !(readers??[THREAD])
		fi;
		woken[THREAD] = false
	};
#ifdef LEAVE_NO_TRY
	if
	:: quit -> goto finish
	:: !quit
	fi;
#endif
	goto again;
got:
#ifndef LOST
	if
	:: goto again
	:: goto finish
	fi;
#endif
finish:
	is[THREAD] = AWAY
}
#endif

#ifdef WITH_POSTED
/* A read that io_uring has posted: it is tried, armed by ->poll, and tried once woken */
active proctype Posted()
{
#ifdef POLL_NO_BARRIER
	bool nonempty;
#endif

again:
	READ(finish);
	if
	:: hung_up -> goto finish
	:: !hung_up
	fi;
#ifdef POLL_NO_BARRIER
	nonempty = queued > 0;
#endif
	atomic { JOINS(POSTED) };
	/* iommufd_fault_poll() */
#ifdef POLL_NO_BARRIER
	if
	:: nonempty -> nonempty = false; goto ready
	:: !nonempty
	fi;
#elif !defined(POLL_NO_CHECK)
	if
	:: queued > 0 -> goto ready
	:: queued == 0
	fi;
#endif
#if defined(WITH_LOSS) && !defined(POLL_NO_ALARM)
	if
	:: alarm -> goto ready
	:: !alarm
	fi;
#endif
#ifndef POLL_NO_HANG_UP
	if
	:: hung_up -> goto ready
	:: !hung_up
	fi;
#endif
	atomic {
		if
		:: woken[POSTED]
		:: !woken[POSTED] -> is[POSTED] = SLEEPS
		fi
	};
#ifdef CANCEL
	if
	:: goto end_sleep
	:: true
	fi;
	/* Cancelled: until its task comes, if it does, it takes wake-ups and loses them. */
	atomic {
		if
		:: is[POSTED] == SLEEPS -> woken[POSTED] = true; is[POSTED] = AWAY
		:: is[POSTED] == RUNS -> goto finish
		fi
	};
	if
	:: atomic { readers??POSTED; woken[POSTED] = false }
	:: true
	fi;
	goto stuck;
#endif
end_sleep:
	atomic { is[POSTED] == RUNS -> woken[POSTED] = false };
	if
	:: goto again
#ifdef CANCEL
	/* Cancelled after it was woken, or its task does not come */
	:: goto finish
#endif
	fi;
ready:	/* Armed in vain, unless it was woken meanwhile: then its task work is due. */
	atomic {
		if
		:: woken[POSTED] -> woken[POSTED] = false
		:: !woken[POSTED] -> readers??POSTED
		fi
	};
	goto again;
finish:
	is[POSTED] = AWAY;
stuck:
	skip
}
#endif

#ifdef WITH_MULTI
/* A multishot read: it stays on the queue, and reads until nothing is left */
active proctype Multi()
{
	atomic { JOINS(MULTI) };
	if
	:: queued > 0 || hung_up -> goto again
	:: queued == 0 && !hung_up
	fi;
wait:
	atomic {
		if
		:: woken[MULTI] -> woken[MULTI] = false; goto again
		:: !woken[MULTI] -> is[MULTI] = SLEEPS
		fi
	};
end_sleep:
	atomic { is[MULTI] == RUNS -> woken[MULTI] = false };
again:
	READ(again);
	if
	:: hung_up
	:: !hung_up -> goto wait
	fi;
	atomic { readers??MULTI; is[MULTI] = AWAY }
}
#endif

#if defined(LOST) || defined(TOLD)
/* A read that does not wait */
active proctype Passer()
{
	READ(finish);
finish:
	skip
}
#endif

#ifdef STUCK
/* Two multishot reads whose tasks do not come: they take wake-ups, and stay */
active [2] proctype Stuck()
{
	atomic {
		is[POSTED + _pid % 2] = AWAY;
		JOINS(POSTED + _pid % 2)
	}
}
#endif

#ifdef WITH_POLLER
/* A program with EPOLLET that reads one group for each event */
active proctype Poller()
{
#ifdef POLL_NO_BARRIER
	bool nonempty;

	nonempty = queued > 0;
	polling = true;
	event = event || nonempty;
#else
	polling = true;
#ifndef POLL_NO_CHECK
	if
	:: queued > 0 -> event = true
	:: queued == 0
	fi;
#endif
#if defined(WITH_LOSS) && !defined(POLL_NO_ALARM)
	if
	:: alarm -> event = true
	:: !alarm
	fi;
#endif
#ifndef POLL_NO_HANG_UP
	if
	:: hung_up -> event = true
	:: !hung_up
	fi;
#endif
#endif
end_wait:
	do
	:: atomic { !event && !idle -> idle = true }
	:: atomic { event -> event = false };
		if
		:: queued > 0 || alarm -> READ(end_wait)
		:: queued == 0 && hung_up -> break
		:: queued == 0 && !alarm && !hung_up
		fi
	od;
	polling = false
}
#endif

#ifdef WITH_END
/* Detaching leaves nothing queued; then iommufd_fault_hang_up() */
active proctype HangUp()
{
	atomic { detached = true; queued = 0 };
#ifndef HANG_UP_LATE
	hung_up = true;
#endif
	atomic {
		n = len(readers);
		for (i : 1 .. n) {
			readers?r;
#ifdef HANG_UP_ONE
			if
			:: i == 1 -> wake_entry()
			:: else -> readers!r
			fi
#else
			wake_entry()
#endif
		};
		r = 0; i = 0; n = 0
	};
#ifndef HANG_UP_NO_EDGE
	WAKE_POLLERS;
#endif
#ifdef HANG_UP_LATE
	hung_up = true;
#endif
	skip
}
#endif

#ifdef WITH_POLLER
#define SOMEBODY_SLEEPS	(A_READER_SLEEPS || idle)
#else
#define SOMEBODY_SLEEPS	A_READER_SLEEPS
#endif

active proctype Rest()
{
	timeout -> assert(!((queued > 0 || alarm || hung_up) && SOMEBODY_SLEEPS))
}
