/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One answer for each group, and the lives of what has to do with it
 *
 * The model of claims in drivers/iommu/io-pgfault*.c, drivers/iommu/iommufd/fault.c,
 * fault_answer.c and fault_read.c, and of the coming and going in attach.c, fault_object.c
 * and fault_driver.c there. At each step stands the function that it is.
 *
 * What is shown, of every order in which the steps can be done:
 *
 *	- Each group is answered once, or recalled and not answered.
 *	- An answer for one group is never given to another that got its slot.
 *	- Nobody touches a group, an attachment, a handle, a device's fault state, a fault
 *	  object, its id, or a driver's fault, after it was freed; all of them are freed.
 *	- A detach, an unbind, a close, a removal, a reset and a withdrawal come to an end.
 *	- What they promise is true then: no group is queued at a closed file, no answer goes
 *	  to a device that was removed or reset, no callback runs after a withdrawal.
 *
 * What happens under the object's lock is one step here: of the things in it only the
 * group's state is also changed without the lock, and each step looks at that once.
 * There is memory for one group, and a slot for one. Immediate delivery is in immediate.pml.
 *
 * Each of these parts is searched to the end, by itself:
 *
 *	ANSWER	two users of the file that read and answer, one group after another,
 *		the deadline, the close of the file
 *	DETACH	a group after another, a user, the close; the detach of the device while
 *		another one of its iommu group reports, the end of the page table and the id
 *	SHARED	the same while another device stays attached by the handle
 *	CONTEXT	a group, a user, the close; all descriptors of the context are closed
 *	RESET	a group, a user, the deadline, the close, the detach; a reset of the device
 *	REMOVE	a group, a user, the close; a reset, the device leaves its queue
 *	DRIVER	a fault that a driver reports and withdraws, a user, the deadline, the close,
 *		the unbinding, the end of the id
 *
 * With one of the following changes, a part does not hold:
 *
 *	CLAIM_BY_SLOT		RESET	fault_claim_delivered() trusts the slot's state
 *	CLAIM_IN_TWO		REMOVE	iopf_group_claim() looks, then writes
 *	COOKIE_NO_COUNT		ANSWER	the cookie is the slot's index alone
 *	COPY_NO_REFERENCE	ANSWER	fault_hold() takes no reference of the group
 *	RESTORE_NO_CHECK	ANSWER	fault_restore() does not look at the slot
 *	LOSER_KEEPS_SLOT	RESET	fault_claim() leaves what it could not claim
 *	RECALL_NO_CHECK		RESET	fault_recall() does not look at the slot
 *	CLOSED_LATE		ANSWER	iommufd_fault_close() answers, then sets @closed
 *	HELD_LATE		ANSWER	iopf_hand_over() counts the group behind the handler
 *	LISTED_LATE		SHARED	attach_del() settles, then takes it off the list
 *	NO_QUIESCE		DETACH	attach_free_handle() does not wait for other devices
 *	NO_SETTLE_WAIT		DETACH	iommufd_fault_settle() does not wait for others
 *	SHARED_UNLOCKED		ANSWER	it puts a group that a reader has without the lock
 *	SETTLE_NO_ORDER		DETACH	it looks for waiters, then counts the attachment down
 *	NO_RECALL_SYNC		RESET	attach_del() without iopf_recall_sync()
 *	RESET_NO_WAIT		RESET	iopf_device_reset() does not wait for answers
 *	ANSWERED_NO_BARRIER	REMOVE	iopf_answered() looks for waiters before it writes
 *	DYING_LATE		REMOVE	iopf_queue_remove_device() aborts, then sets @dying
 *	GET_NO_RCU		REMOVE	an iopf_device is freed without a grace period
 *	GET_FROM_ZERO		REMOVE	iopf_device_get() takes a reference of one without
 *	REMOVE_NO_MUTEX		REMOVE	a device leaves its queue while it is detached
 *	FREE_NO_CANCEL		RESET	fault_free() does not wait for the work
 *	FREE_TIMER_LATE		RESET	it waits for the work, then stops the timer
 *	LEAVE_NO_CHECK		CONTEXT	iommufd_fault_leave() does not look at @has_file
 *	PUT_BEFORE_LEAVE	CONTEXT	the file lets go of the object, then leaves the id
 *	WITHDRAW_NO_REFERENCE	DRIVER	iommufd_fault_claim() takes none of the object
 *	ANSWER_KEEPS_FAULT	DRIVER	driver_fault_answer() does not clear @fault
 *	WITHDRAW_NO_LOCK	DRIVER	iommufd_withdraw_fault() without the fault's lock
 *	WITHDRAW_NO_WAIT	DRIVER	it does not wait for the callback
 *	WITHDRAWN_LATE		DRIVER	it sets @withdrawn when it has answered
 *	DRIVER_REF_LATE		DRIVER	driver_fault_queue() takes it when it has queued
 *	WAKE_UNLOCKED		DRIVER	it wakes when the lock of the source is free
 */

#if defined(ANSWER)
#define GROUPS	2
#define USERS	2
#define WITH_WORK
#elif defined(DETACH)
#define GROUPS	2
#define USERS	1
#define WITH_OWNER
#elif defined(SHARED)
#define GROUPS	2
#define USERS	1
#define WITH_OWNER
#elif defined(CONTEXT)
#define GROUPS	1
#define USERS	1
#define WITH_OWNER
#elif defined(RESET)
#define GROUPS	1
#define USERS	1
#define WITH_OWNER
#define WITH_WORK
#define WITH_RESET
#elif defined(REMOVE)
#define GROUPS	1
#define USERS	1
#define WITH_OWNER
#define WITH_REMOVE
#define WITH_RESET
#elif defined(DRIVER)
#define GROUPS	1
#define USERS	1
#define WITH_OWNER
#define WITH_WORK
#endif

mtype = { GONE, QUEUED, ANSWERING };			/* iopf_group::state */
mtype = { S_FREE, S_STALE, S_QUEUED, S_DELIVERED };	/* iommufd_fault_slot::state */

/* The memory of a group: which one it holds, 0 for none */
byte group;
mtype state = GONE;
byte refs;			/* iopf_group::refs */

/* What became of each group */
byte answers[GROUPS + 1], recalled[GROUPS + 1];

/* The fault object. Its lock is only written down where something is done under it. */
bool locked, fault_freed;
mtype slot = S_FREE;
byte cookie;			/* the slot's: the number of the group */
byte fault_refs = 2;		/* iommufd_fault::refs: the id, the file */
byte id_users = 2;		/* of the id: the file, and the HWPT or the source */
bool id_freed, has_file = true, closed;
byte files = USERS;		/* that use the file */
byte outstanding;		/* iommufd_attachment::outstanding */
bool settle_waits;		/* somebody is on iommufd_fault::settle_wait */
bool work, works;		/* iommufd_fault::work is queued, runs */
#ifdef WITH_WORK
bool aged, timer;		/* iommufd_fault::timer was, is set; once is enough */
#endif

/* The attachment and its handle; for an emulated device the source is both */
bool published = true, listed = true, attachment_freed, handle_freed;
bool mutex;			/* igroup->lock, iommufd_access::source_lock */

#ifdef DRIVER
/* What the driver has reported; the group is a part of it */
byte df_users = 1;
bool df_freed, df_fault, withdrawn, ended, running, called, quiet;
#else
/* The fault state of the device */
bool param = true;		/* dev_iommu::fault_param points to it */
bool locked_device, dying, device_dead, device_freed;
byte device_users = 1, readers;	/* readers: of RCU */
byte waiters;			/* iopf_device::waiters */
bool idle_waits[2];		/* who is on iopf_device::idle: a reset, a removal */
byte reported, forgotten;	/* the last group that came, that a reset made old */
bool removed;
#endif

#define TOUCH_FAULT	assert(!fault_freed)
#define IS_CLAIMABLE	(state == QUEUED)
#define IS_USED		(slot == S_QUEUED || slot == S_DELIVERED)

#ifdef DRIVER

/* iommufd_driver_fault_put() */
inline put_df()
{
	atomic {
		assert(df_users > 0);
		df_users--;
		df_freed = df_users == 0
	}
}

/* iopf_free_groups(), driver_fault_release() */
inline free_group(g)
{
	put_df()
}

/* iopf_answer_apart(), driver_fault_answer() */
inline answer(g)
{
	atomic {
		assert(!df_freed);
#ifndef ANSWER_KEEPS_FAULT
		df_fault = false;
#endif
		silent = withdrawn
	};
	if
	:: !silent ->
		atomic { assert(!quiet); running = true };
		atomic { running = false; called = true; answers[g]++ }
	:: silent -> recalled[g]++
	fi;
	atomic { assert(!df_freed); ended = true }
}

#else

/* iopf_device_get() */
inline get_device()
{
	atomic { found = param; readers = readers + found };
	atomic {
		if
		:: !found
		:: found ->
			assert(!device_freed);
			readers--;
#ifdef GET_FROM_ZERO
			device_users++
#else
			found = device_users > 0;
			device_users = device_users + found
#endif
		fi
	}
}

/* iopf_device_put() */
inline put_device()
{
	atomic {
		assert(!device_freed && device_users > 0 && !device_dead);
		device_users--;
		device_dead = device_users == 0
	}
}

#if defined(WITH_REMOVE)
/* kfree_rcu() */
active proctype Rcu()
{
end:
#ifdef GET_NO_RCU
	device_dead -> device_freed = true
#else
	device_dead && readers == 0 -> device_freed = true
#endif
}
#endif

/* iopf_free_groups(): takes no lock, so it may be called under any */
inline free_group(g)
{
	atomic {
		assert(!device_freed && group == g);
		group = 0;
		put_device()
	}
}

/* iopf_answered(): wakes iopf_wait_answered() */
inline answered()
{
#ifdef ANSWERED_NO_BARRIER
	waiting = waiters > 0;
	state = GONE;
#else
	state = GONE;
	waiting = waiters > 0;
#endif
	atomic {
		if
		:: waiting -> idle_waits[0] = false; idle_waits[1] = false
		:: !waiting
		fi;
		waiting = false
	}
}

/* iopf_answer_groups(), for a claimed group */
inline answer(g)
{
	atomic {
		assert(!device_freed && group == g);
		assert(!removed && g > forgotten);
		answers[g]++
	};
	answered()
}

/* iopf_wait_answered() */
inline wait_answered(who)
{
	atomic { !locked_device -> waiters++ };
	do
	:: idle_waits[who] = true;
		if
		:: !locked_device && state != ANSWERING -> break
		:: !locked_device && state == ANSWERING -> !idle_waits[who]
		fi
	od;
	atomic { !locked_device -> waiters--; idle_waits[who] = false }
}

#endif

/* iommufd_fault_let_go() */
inline count_down()
{
	assert(!attachment_freed && outstanding > 0);
	outstanding--;
	settled = settled || outstanding == 0
}

/* The same and iommufd_fault_put_group(), under the lock */
inline let_go()
{
	count_down();
	assert(refs > 0);
	refs--;
	free = refs == 0
}

/* What fault_finish() does at last */
inline wake_and_free(g)
{
	if
	:: settled -> atomic { TOUCH_FAULT; settled = false; settle_waits = false }
	:: !settled
	fi;
	if
	:: free -> free = false; free_group(g)
	:: !free
	fi
}

/* fault_finish() for a group that was claimed */
inline finish(g)
{
	answer(g);
#ifdef SETTLE_NO_ORDER
	sleeper = settle_waits;
	atomic { count_down() };
	settled = settled && sleeper;
#else
	atomic { count_down() };
#endif
	if
	:: atomic { refs == 1 -> refs = 0; free = true }
#ifdef SHARED_UNLOCKED
	:: refs > 1 -> g = refs - 1; refs = g; free = g == 0; g = group
#else
	:: refs > 1 ->		/* fault_put_read() */
		atomic { !locked -> TOUCH_FAULT; assert(refs > 0); refs--; free = refs == 0 }
#endif
	fi;
	wake_and_free(g)
}

/* fault_claim_some() */
inline claim_all()
{
	atomic {
		!locked;
		TOUCH_FAULT;
		g = cookie;
		if
		:: IS_USED && IS_CLAIMABLE -> state = ANSWERING; slot = S_FREE; won = true
#ifdef LOSER_KEEPS_SLOT
		:: IS_USED && !IS_CLAIMABLE
#else
		:: IS_USED && !IS_CLAIMABLE -> slot = S_FREE; let_go()
#endif
		:: !IS_USED
		fi
	}
}

/* fault_answer_all() */
inline answer_all()
{
	claim_all();
	if
	:: won -> won = false; finish(g)
	:: !won -> wake_and_free(g)
	fi
}

/* hrtimer_cancel() */
#ifdef WITH_WORK
#define stop_timer()	timer = false
#else
#define stop_timer()	skip
#endif

/* fault_free() */
inline free_fault()
{
#ifdef FREE_NO_CANCEL
	stop_timer();
#elif defined(FREE_TIMER_LATE)
	atomic { !works -> work = false };
	stop_timer();
#else
	stop_timer();
	atomic { !works -> work = false };	/* cancel_work_sync() */
#endif
	assert(!IS_USED);
	atomic { TOUCH_FAULT; fault_freed = true }
}

/* iommufd_fault_put() */
inline put_fault()
{
	atomic { TOUCH_FAULT; fault_refs--; last = fault_refs == 0 };
	if
	:: last -> last = false; free_fault()
	:: !last
	fi
}

/* iommufd_fault_leave() */
inline leave()
{
	atomic {
		!locked;
		TOUCH_FAULT;
		if
#ifdef LEAVE_NO_CHECK
		:: true ->
#else
		:: has_file ->
#endif
			assert(!id_freed && id_users > 0);
			id_users--;
			has_file = false
#ifndef LEAVE_NO_CHECK
		:: !has_file
#endif
		fi
	}
}

/* iommufd_fault_admit(), under the lock */
inline admit(g)
{
	assert(!attachment_freed && slot != S_QUEUED && slot != S_DELIVERED);
	slot = S_QUEUED;
	cookie = g;
	refs = 1;
#ifdef WITH_WORK
	timer = timer || !aged;		/* iommufd_fault_start_aging() */
	aged = true;
#endif
	outstanding++
}

#ifndef DRIVER
/* iommu_report_device_fault(), iopf_complete() */
active proctype Report()
{
	byte g = 1;
	bool found, taken;

	do
	:: g > GROUPS -> break
	:: g <= GROUPS ->
		/* rcu_read_lock() */
		atomic { found = param; readers = readers + found };
		if
		:: !found -> goto reject
		:: found
		fi;
		atomic {
			!locked_device;
			assert(!device_freed);
			if
			:: dying || !published -> goto refuse
			:: !dying && published -> locked_device = true
			fi;
			if
			:: group != 0
			:: group == 0 ->
				/* iopf_hand_over() */
				reported = g;
				group = g;
#ifndef HELD_LATE
				assert(!device_dead);
				device_users++;
#endif
				state = QUEUED;
				found = false
			fi
		};
		if
		:: found ->		/* iopf_no_room(), fault_lost() */
			atomic { !locked -> assert(!handle_freed); TOUCH_FAULT };
			atomic { assert(!device_freed); locked_device = false };
			goto refuse
		:: !found
		fi;
		/* iommufd_fault_iopf_handler() */
		atomic {
			!locked;
			assert(!handle_freed);
			TOUCH_FAULT;
			if
			:: !closed && listed -> admit(g); taken = true
			:: closed || !listed -> state = GONE; group = 0
			fi
		};
		if
		:: taken ->
			TOUCH_FAULT;		/* iommufd_fault_wake() */
#ifdef HELD_LATE
			atomic { assert(!device_dead); device_users++ };
#endif
			/* iopf_held(): given back maybe, but no other one's */
			assert(!device_freed && (group == g || group == 0))
		:: !taken
#ifndef HELD_LATE
			/* iopf_take_back() */
			-> atomic { assert(device_users > 1); device_users-- }
#endif
		fi;
		atomic { assert(!device_freed); locked_device = false };
		if
		:: taken -> taken = false; readers--; goto next
		:: !taken
		fi;
refuse:
		readers--;
reject:
		answers[g]++;			/* iopf_reject() */
next:
		found = false;
		g++
	od
}

#ifdef DETACH
bool locked_other;		/* the fault state of another device of the group */

/* A report of a device that is not attached, but finds the handle: it is refused */
active proctype Other()
{
	atomic { !locked_other -> locked_other = published };
	if
	:: locked_other ->
		atomic { !locked -> assert(!handle_freed); TOUCH_FAULT };
		locked_other = false
	:: !locked_other
	fi
}
#endif
#else
/* iommufd_access_report_fault(), then iommufd_withdraw_fault() or not */
active proctype Driver()
{
	byte g = 1;
	bool taken, won, silent, settled, free, last, fault;

	atomic { !mutex -> mutex = true };
	if
	:: published ->
		/* driver_fault_queue() */
#ifndef DRIVER_REF_LATE
		df_users++;
#endif
		atomic { df_fault = true; state = QUEUED };
		atomic {
			!locked;
			TOUCH_FAULT;
			if
			:: !closed -> admit(g); taken = true
			:: closed
			fi
		};
#ifndef WAKE_UNLOCKED
		TOUCH_FAULT;
#endif
		if
#ifdef DRIVER_REF_LATE
		:: taken -> atomic { assert(!df_freed); df_users++ }
		:: !taken
#else
		:: taken
		:: !taken -> df_users--
#endif
		fi
	:: !published
	fi;
	mutex = false;
#ifdef WAKE_UNLOCKED
	TOUCH_FAULT;
#endif
	if
	:: !taken -> answers[g]++; goto put
	:: taken
	:: taken -> goto put
	fi;

	/* iommufd_withdraw_fault(), iommufd_fault_claim() */
#ifdef WITHDRAW_NO_LOCK
	fault = df_fault;
	atomic {
		!locked;
#else
	atomic {
		!locked;
		fault = df_fault;
#endif
		if
		:: fault ->
			TOUCH_FAULT;
			won = IS_USED && IS_CLAIMABLE
		:: !fault
		fi;
		if
		:: won ->
			state = ANSWERING;
			slot = S_FREE;
#ifndef WITHDRAW_NO_REFERENCE
			fault_refs++;
#endif
#ifndef WITHDRAWN_LATE
			withdrawn = true
#endif
		:: !won
		fi;
		fault = false
	};
	if
	:: won ->
		won = false;
		finish(g);		/* iommufd_fault_finish() */
#ifndef WITHDRAW_NO_REFERENCE
		put_fault();
#endif
#ifdef WITHDRAWN_LATE
		withdrawn = true
#endif
	:: !won
	fi;
#ifndef WITHDRAW_NO_WAIT
	ended;				/* wait_for_completion() */
#endif
	atomic { quiet = true; assert(!running && called != withdrawn) };
put:
	put_df()
}
#endif

/* The file's user: reads and answers, late and repeated answers included */
active [USERS] proctype User()
{
	byte g, times;
	bool won, silent, settled, free, waiting, sleeper;

	do
	:: break
	:: times < 2 ->
		times++;
		if
		:: atomic {		/* fault_take() */
			!locked && slot == S_QUEUED;
			TOUCH_FAULT;
			slot = S_DELIVERED
		   }
		:: atomic {		/* fault_hold() */
			!locked && slot == S_QUEUED;
			TOUCH_FAULT;
			g = cookie;
			slot = S_DELIVERED;
#ifndef COPY_NO_REFERENCE
			refs++
#endif
		   };
#ifndef DRIVER
			assert(group == g);	/* fault_copy_group() */
#else
			assert(!df_freed);
#endif
			atomic {	/* fault_unhold() */
				!locked;
				TOUCH_FAULT;
				if
				:: true
#ifdef RESTORE_NO_CHECK
				:: true ->
#else
				:: cookie == g && slot == S_DELIVERED ->
#endif
					slot = S_QUEUED		/* fault_restore() */
				fi;
#ifndef COPY_NO_REFERENCE
				assert(refs > 0);
				refs--;
				free = refs == 0
#endif
			};
			wake_and_free(g);
			g = 0
		:: g = 1; goto respond
		:: g = GROUPS; goto respond
		fi;
		goto next;
respond:	/* iommufd_fault_write(), fault_claim_delivered() */
		atomic {
			!locked;
			TOUCH_FAULT;
			if
#if defined(COOKIE_NO_COUNT)
			:: slot == S_DELIVERED && IS_CLAIMABLE ->
#elif defined(CLAIM_BY_SLOT)
			:: slot == S_DELIVERED && cookie == g ->
#else
			:: slot == S_DELIVERED && cookie == g && IS_CLAIMABLE ->
#endif
				assert(cookie == g);
				state = ANSWERING;
				slot = S_FREE;
				won = true
			:: else
			fi
		};
		if
		:: won -> won = false; finish(g)
		:: !won
		fi;
		g = 0;
next:
		skip
	od;
	files--
}

/* iommufd_fault_release(), when nobody uses the file */
active proctype Close()
{
	byte g;
	bool won, silent, settled, free, last, waiting, sleeper;

	files == 0;
	/* iommufd_fault_close() */
#ifndef CLOSED_LATE
	atomic { !locked -> TOUCH_FAULT; closed = true };
#endif
	answer_all();
#ifdef CLOSED_LATE
	atomic { !locked -> closed = true };
#endif
	assert(!IS_USED);
#ifdef PUT_BEFORE_LEAVE
	put_fault();
	leave()
#else
	leave();
	put_fault()
#endif
}

#ifdef WITH_WORK
/* iommufd_fault_timeout() of the oldest deadline, iommufd_fault_work() */
active proctype Work()
{
	byte g;
	bool won, silent, settled, free, waiting, sleeper, late;

end:
	do
	:: atomic { timer -> timer = false; late = true; work = true }
	:: atomic { work -> work = false; works = true };
		atomic {
			!locked;
			TOUCH_FAULT;
			g = cookie;
			if
			:: late && IS_USED && IS_CLAIMABLE ->
				state = ANSWERING;
				slot = S_STALE;
				won = true
			:: !late || !IS_USED || !IS_CLAIMABLE
			fi
		};
		if
		:: won -> won = false; finish(g)
		:: !won
		fi;
		g = 0;
		atomic { TOUCH_FAULT; works = false }
	od
}
#endif

#ifdef WITH_OWNER
/* iommufd_fault_settle() */
inline settle()
{
	if
	:: outstanding == 0
	:: outstanding > 0 -> answer_all()
	fi;
#ifndef NO_SETTLE_WAIT
	do
	:: settle_waits = true;
		if
		:: outstanding == 0 -> break
		:: outstanding > 0 -> !settle_waits
		fi
	od;
	settle_waits = false
#endif
}

/* iopf_quiesce(), iopf_recall_sync() */
#ifdef DRIVER
#define SYNC	skip
#else
#define SYNC	if :: param -> !locked_device :: !param fi
#endif

/* iommufd_detach() or iommufd_fault_unbind(), then the HWPT goes, and IOMMU_DESTROY */
active proctype Owner()
{
	byte g;
	bool won, silent, settled, free, last, waiting, sleeper;

#ifdef DRIVER
	atomic { !mutex -> published = false };
	settle();
#else
	atomic { !mutex -> mutex = true };
#ifndef SHARED
	published = false;
#endif
	/* attach_del() */
#ifndef LISTED_LATE
	atomic { !locked -> listed = false };
#endif
	SYNC;
	settle();
#ifdef LISTED_LATE
	atomic { !locked -> listed = false };
#endif
#ifndef NO_RECALL_SYNC
	SYNC;
#endif
#if defined(DETACH) && !defined(NO_QUIESCE)
	!locked_other;	/* attach_free_handle() */
#endif
#endif
#ifdef SHARED
	attachment_freed = true;
	mutex = false
#else
	atomic { attachment_freed = true; handle_freed = true };
#ifndef DRIVER
	mutex = false;
#endif
#ifdef CONTEXT
	leave();
#endif
	atomic { assert(!id_freed); TOUCH_FAULT; id_users-- };
	/* iommufd_fault_destroy() */
	id_users == 0;
	TOUCH_FAULT;
	put_fault();
	id_freed = true
#endif
}
#endif

#ifdef WITH_RESET
/* iopf_device_reset() */
active proctype Reset()
{
	byte g, old;
	bool found, won, settled, free;

	get_device();
	if
	:: !found -> goto out
	:: found
	fi;
	atomic { !locked_device -> locked_device = true; old = reported };
	atomic {	/* iopf_recall() */
		if
		:: IS_CLAIMABLE -> g = group; state = GONE; recalled[g]++; won = true
		:: !IS_CLAIMABLE
		fi
	};
	if
	:: won ->
		assert(!handle_freed);
		atomic {	/* fault_recall() */
			!locked;
			TOUCH_FAULT;
			if
#ifdef RECALL_NO_CHECK
			:: true ->
#else
			:: IS_USED && cookie == g ->
#endif
				slot = S_STALE;
				let_go()
#ifndef RECALL_NO_CHECK
			:: !IS_USED || cookie != g
#endif
			fi
		};
		wake_and_free(g)
	:: !won
	fi;
	locked_device = false;
#ifndef RESET_NO_WAIT
	wait_answered(0);
#endif
	forgotten = old;
	put_device();
out:
	skip
}
#endif

#ifdef WITH_REMOVE
/* iopf_queue_remove_device(); who attaches and detaches does not meanwhile */
active proctype Remove()
{
	byte g;
	bool won, waiting;

#ifndef REMOVE_NO_MUTEX
	atomic { !mutex -> mutex = true };
#endif
	param = false;
#ifndef DYING_LATE
	atomic { !locked_device -> dying = true };
#endif
	/* iopf_abort() */
#ifdef CLAIM_IN_TWO
	won = IS_CLAIMABLE;
	g = group;
	if
	:: won -> state = ANSWERING
	:: !won
	fi;
#else
	atomic {
		if
		:: IS_CLAIMABLE -> g = group; state = ANSWERING; won = true
		:: !IS_CLAIMABLE
		fi
	};
#endif
	if
	:: won ->
		/* The handler may have let go of it; the device keeps the memory. */
		atomic { assert(!device_freed); answers[g]++ };
		answered()
	:: !won
	fi;
	wait_answered(1);
#ifdef DYING_LATE
	atomic { !locked_device -> dying = true };
#endif
	removed = true;
	put_device();
#ifndef REMOVE_NO_MUTEX
	mutex = false
#endif
}
#endif

/* When all have come to their ends */
active proctype Rest()
{
	byte g = 1;

end:
	timeout;
	do
	:: g <= GROUPS ->
		assert(answers[g] + recalled[g] == 1);
		g++
	:: g > GROUPS -> break
	od;
	assert(!IS_USED && outstanding == 0);
#if defined(ANSWER) || defined(SHARED)
	assert(fault_refs == 1);
#else
	assert(fault_freed && id_freed);
#endif
#ifdef DRIVER
	assert(df_freed)
#elif defined(WITH_REMOVE)
	assert(device_freed)
#else
	assert(group == 0 && device_users == 1)
#endif
}
