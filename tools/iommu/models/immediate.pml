/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A group that user space gets request by request
 *
 * The model of drivers/iommu/iommufd/fault_immediate.c, and of open groups in fault.c and
 * fault_answer.c there and in drivers/iommu/io-pgfault*.c. At each step stands the function
 * that it is.
 *
 * What is shown, of every order in which the steps can be done:
 *
 *	- The group's last request is answered once, by whoever.
 *	- The group's memory is freed once, when it is in no table and no message is left.
 *	- User space answers only when it has read all.
 *	- It is told that a group has ended, once, if it knows the group and still is attached.
 *	- After the detach the slot is free, and after the close nothing is told.
 *
 * What happens under a lock is one step, but that a report and a drop hold the device's
 * lock over many. There is one group of two requests, and one slot.
 *
 * Each of these parts is searched to the end, by itself:
 *
 *	RECALL	a reader, its answer, the deadline, an overflow
 *	LEAVE	the same, and the detach instead of the overflow
 *	CLOSE	the same, and the close of the file before the detach
 *
 * With one of the following changes, a part does not hold:
 *
 *	END_NO_REFERENCE	RECALL	iommufd_fault_end() takes no reference for the message
 *	READ_NO_OPEN		RECALL	part_delivered() does not look whether more will come
 *	SETTLE_NO_DROP		LEAVE	iommufd_fault_settle() looks at @outstanding alone
 *	CLOSE_OPEN		CLOSE	iommufd_fault_part_drop() drops open groups, too
 *	END_CLOSED		CLOSE	iommufd_fault_part_end() does not look at @closed
 */

mtype = { GONE, COLLECTING, QUEUED, ANSWERING };		/* iopf_group::state */
mtype = { S_FREE, S_STALE, S_QUEUED, S_OPEN, S_DELIVERED };	/* iommufd_fault_slot::state */

/* The group */
mtype state = GONE;
byte refs, count;		/* iopf_group::refs, ::fault_count */
bool open, hashed;
bool returned, freed;		/* freed: another group uses the memory */
byte answers;			/* to its last request */

/* The fault state of the device */
bool locked, voided;

/* The slot, its struct iommufd_fault_part, and the object */
mtype slot = S_FREE;
byte pending;
bool more;			/* iommufd_fault_part::open */
bool seen, ended;
byte told;			/* messages that it has ended */
bool owed;			/* one is to come */
bool late;			/* the deadline is over */
bool closed;			/* iommufd_fault::closed */
bool user;			/* uses the file no more */

/* The attachment */
bool published = true, listed = true;
byte outstanding;
bool attachment_freed;

#define IS_CLAIMABLE	(state == QUEUED)
#define IS_USED		(slot == S_QUEUED || slot == S_OPEN || slot == S_DELIVERED)
#define TOUCH_GROUP	assert(!freed)

/* iommufd_fault_put_group() */
inline put_group(free)
{
	TOUCH_GROUP;
	assert(refs > 0);
	refs--;
	free = refs == 0
}

/* iopf_free_group(), under whatever lock */
inline free_group(free)
{
	if
	:: free ->
		atomic { TOUCH_GROUP; assert(!hashed && state == GONE && !returned) };
		returned = true;
		free = false
	:: !free
	fi
}

/* iopf_pool_get(): who has the device's lock can look at the group until then */
active proctype Reuse()
{
end:
	atomic { returned && !locked -> freed = true }
}

/* iommufd_fault_let_go() */
inline count_down()
{
	assert(!attachment_freed && outstanding > 0);
	outstanding--
}

/* iommufd_fault_end(), iommufd_fault_part_end() */
inline end_group(tell)
{
	assert(!ended);
	more = false;
	if
#ifdef END_CLOSED
	:: tell && seen ->
#else
	:: tell && seen && !closed ->
#endif
		assert(!closed);
		ended = true;
		owed = true;
		slot = S_QUEUED;
#ifndef END_NO_REFERENCE
		refs++
#endif
	:: else -> slot = (tell -> S_STALE : S_FREE)
	fi
}

/* iopf_answer_groups(), then fault_finish() */
inline finish(free)
{
	atomic {
		TOUCH_GROUP;
		assert(!open && count == 2);
		answers++
	};
	state = GONE;
	atomic { count_down() };
	atomic { put_group(free) };
	free_group(free)
}

/* iopf_recall(), iommufd_fault_recall(); what the core takes is in a slot */
inline recall(tell, free)
{
	if
	:: atomic { IS_CLAIMABLE -> state = GONE };
		atomic {
			assert(IS_USED);
			end_group(tell);
			count_down();
			put_group(free)
		};
		free_group(free)
	:: !IS_CLAIMABLE
	fi
}

/* iommu_report_device_fault() of one request and the last */
active proctype Report()
{
	bool free;

	atomic {	/* iopf_collect(), iopf_offer(), iommufd_fault_part_add() */
		!locked;
		if
		:: published && (closed || !listed) -> freed = true; voided = true
		:: published && !closed && listed ->
			count = 1;
			open = true;
			hashed = true;
			state = COLLECTING;
			slot = S_QUEUED;
			pending = 1;
			more = true;
			refs = 1;
			outstanding++
		:: !published -> freed = true
		fi
	};
	/* iopf_complete() */
	atomic { !locked -> locked = true };
	if
	:: voided -> voided = false; answers++
	:: !voided && !hashed -> answers++	/* as a group of its own */
	:: !voided && hashed ->
		hashed = false;
		TOUCH_GROUP;
		count = 2;
		open = false;			/* iopf_close() */
		state = QUEUED;
		if
		:: atomic { listed && !closed ->
			assert(IS_USED && !ended);
			pending++;
			more = false;
			slot = S_QUEUED
		   }
		:: atomic { !listed || closed };
			recall(true, free);
			answers++		/* iopf_reject() */
		fi
	fi;
	locked = false
}

/* The file's user reads messages as long as there are some, and answers */
active proctype User()
{
	bool free;

end:
	do
	:: atomic {	/* part_copy(), part_delivered(): one message */
		slot == S_QUEUED;
		TOUCH_GROUP;
		if
		:: ended ->
			told++;
			assert(told == 1);
			owed = false;
			ended = false;
			slot = S_STALE;
			put_group(free)
		:: else ->
			seen = true;
			pending--;
			if
			:: pending -> skip
#ifdef READ_NO_OPEN
			:: else -> slot = S_DELIVERED
#else
			:: else -> slot = (more -> S_OPEN : S_DELIVERED)
#endif
			fi
		fi
	   };
		free_group(free)
	:: atomic {	/* fault_claim_delivered() */
		slot == S_DELIVERED ->
		assert(!more && !pending);
		if
		:: IS_CLAIMABLE -> state = ANSWERING; slot = S_FREE; free = true
		:: !IS_CLAIMABLE -> assert(state != COLLECTING)
		fi
	   };
		if
		:: free -> free = false; finish(free)
		:: !free
		fi
#ifdef CLOSE
	:: break
#endif
	od;
	user = true
}

/* iommufd_fault_work(); only what is complete has a deadline */
active proctype Work()
{
	bool free, won;

end:
	do
	:: atomic { !late && IS_USED && !ended && !more -> late = true;
		if
		:: IS_CLAIMABLE -> state = ANSWERING; end_group(true); won = true
		:: !IS_CLAIMABLE
		fi };
		if
		:: won -> won = false; finish(free)
		:: !won
		fi
	od
}

/* iopf_drop_all() of an overflow, iopf_quiesce() of a detach: iopf_drop() */
inline drop(tell, free)
{
	atomic { !locked -> locked = true };
	if
	:: hashed ->
		hashed = false;
		open = false;
		state = QUEUED;
		recall(tell, free)
	:: !hashed
	fi;
	locked = false
}

/* fault_answer_all(), of what is in the slot */
inline answer_all(won, free)
{
	atomic {
		if
		:: IS_USED && ended ->		/* iommufd_fault_part_drop() */
			ended = false;
			owed = false;
			slot = S_FREE;
			put_group(free)
#ifdef CLOSE_OPEN
		:: IS_USED && !ended && more -> slot = S_FREE
#else
		:: IS_USED && !ended && more
#endif
		:: IS_USED && !ended && !more && IS_CLAIMABLE ->
			state = ANSWERING;
			end_group(false);
			won = true
		:: IS_USED && !ended && !more && !IS_CLAIMABLE
		:: !IS_USED
		fi
	};
	if
	:: won -> won = false; finish(free)
	:: !won -> free_group(free)
	fi
}

#ifdef RECALL
active proctype Overflow()
{
	bool free;

	drop(true, free)
}
#endif

/* iommufd_fault_close(), attach_del() */
#ifndef RECALL
active proctype Leave()
{
	bool won, free;

#ifdef CLOSE
	user -> closed = true;
	answer_all(won, free);
	assert(!IS_USED || more || !IS_CLAIMABLE);
#endif
	published = false;
	listed = false;
	drop(false, free);
	/* iommufd_fault_settle() */
#ifdef SETTLE_NO_DROP
	if
	:: outstanding > 0 -> answer_all(won, free)
	:: outstanding == 0
	fi;
#else
	answer_all(won, free);
#endif
	outstanding == 0;
	!locked;		/* iopf_recall_sync() */
	atomic { assert(!IS_USED); attachment_freed = true }
}
#endif

/* When nothing moves any more */
active proctype Rest()
{
	timeout;
	assert(answers == 1 && freed && !IS_USED && outstanding == 0);
	assert(!owed)
}
