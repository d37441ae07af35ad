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
 *	- The group's memory is freed once, when it is in no table and nobody copies from it.
 *	- User space answers only when it has read all.
 *	- It is told that a group has ended, once, if it knows the group and still is attached.
 *	- After the detach nothing is left but what a reader has in its hands.
 *
 * What happens under a lock is one step, but that a report holds the device's lock over
 * many. There is one group of two requests, and one slot.
 *
 * Each of these parts is searched to the end, by itself:
 *
 *	RECALL	a reader whose copy may fail, its answer, the deadline, an overflow
 *	LEAVE	the same, and the detach instead of the overflow
 *	CLOSE	the same, and the close of the file
 *
 * With one of the following changes, a part does not hold:
 *
 *	OPEN_NO_LOCK		CLOSE	iopf_end_open() takes no lock
 *	OPEN_NO_UNHASH		CLOSE	it leaves the group in the table
 *	PART_NO_CHECK		CLOSE	iommufd_fault_part_add() does not look at the state
 *	END_NO_REFERENCE	RECALL	iommufd_fault_end() takes no reference for the message
 *	END_NO_READER		RECALL	iommufd_fault_part_end() does not look for a reader
 *	SETTLE_NO_OPEN		RECALL	part_settle() does not look whether more will come
 *	SETTLE_NO_TELL		RECALL	nor whether the reader is to be told of the end
 *	DROP_NO_READER		LEAVE	iommufd_fault_part_drop() does not look for a reader
 *	DRAIN_NO_DROP		LEAVE	iommufd_fault_drain() looks at @outstanding alone
 */

mtype = { GONE, QUEUED, ANSWERING };				/* iopf_group::state */
mtype = { S_FREE, S_STALE, S_QUEUED, S_OPEN, S_DELIVERED };	/* iommufd_fault_slot::state */

/* The group */
mtype state = GONE;
byte refs, count;		/* iopf_group::refs, ::fault_count */
bool open, hashed;
bool returned, freed;		/* freed: another group uses the memory */
byte answers;			/* to its last request */

/* The fault state of the device */
bool locked, voided;

/* The slot, its struct iommufd_fault_part, and the object's list */
mtype slot = S_FREE;
byte pending, taken;
bool more;			/* iommufd_fault_part::open */
bool reading, seen, ended, tell;
byte told;			/* messages that it has ended */
bool late;			/* the deadline is over */
bool closed;			/* iommufd_fault::closed */
bool user;			/* uses the file no more */

hidden byte tells;		/* used within one step */

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

/* The same and iommufd_fault_put_group(), under the object's lock */
inline let_go(free)
{
	count_down();
	put_group(free)
}

/* iommufd_fault_end(), iommufd_fault_part_end() */
inline end_group(to_tell)
{
	tells = to_tell && !closed;
	if
#ifdef END_NO_READER
	:: !(tells && seen) ->
#else
	:: !reading && !(tells && seen) ->
#endif
		slot = (tells -> S_STALE : S_FREE)
	:: else ->
		ended = true;
		tell = tells;
		pending = 0;
		more = false;
		slot = (reading -> slot : S_QUEUED);
#ifndef END_NO_REFERENCE
		refs++
#endif
	fi
}

/* iopf_answer_apart(), iopf_answered() or iopf_groups_gone(), then fault_finish() */
inline finish(is_open, free)
{
	is_open = open;
#ifndef OPEN_NO_LOCK
	if
	:: is_open ->
		atomic {	/* iopf_end_open(), iopf_mark_void() */
			!locked -> is_open = open;
			if
			:: open && hashed ->
#ifndef OPEN_NO_UNHASH
				hashed = false;
#endif
				voided = true
			:: else
			fi
		}
	:: !is_open
	fi;
#else
	if
	:: is_open && hashed -> hashed = false; voided = true
	:: else
	fi;
#endif
	atomic {
		TOUCH_GROUP;
		answers = answers + (is_open -> 0 : 1);
		is_open = false
	};
	state = GONE;
	/* The attachment may go between the two; the reference is ours or under the lock. */
	atomic { count_down() };
	atomic { put_group(free) };
	free_group(free)
}

/* iommufd_fault_part_add() */
inline part_add()
{
	if
#ifndef PART_NO_CHECK
	:: state == ANSWERING || state == GONE
#endif
	:: else ->
		if
		:: IS_USED && !ended ->		/* part_append() */
			pending++;
			more = open;
			slot = (slot == S_OPEN && !reading -> S_QUEUED : slot)
		:: else ->
			assert(count == 1 && !attachment_freed);
			slot = S_QUEUED;
			pending = count;
			more = open;
			refs = 1;
			outstanding++
		fi
	fi
}

/* iommu_report_device_fault() of one request and the last */
active proctype Report()
{
	atomic {	/* iopf_collect(), iopf_offer() */
		!locked;
		if
		:: published && (closed || !listed) -> freed = true; voided = true
		:: published && !closed && listed ->
			count = 1;
			open = true;
			hashed = true;
			state = QUEUED;
			part_add()
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
		open = false;		/* iopf_close() */
		if
		:: IS_CLAIMABLE -> atomic { part_add() }
		:: !IS_CLAIMABLE
		fi
	fi;
	locked = false
}

/* The file's user reads messages as long as there are some, and answers */
active proctype User()
{
	bool free, is_open, failed;
	byte copied;

end:
	do
	:: atomic {	/* part_deliver() */
		slot == S_QUEUED;
		TOUCH_GROUP;
		taken = pending;
		reading = true;
		slot = S_OPEN;
		refs++
	   };
		/* Room for one message, or a copy that fails */
		if
		:: taken > 1 -> taken = 1
		:: true
		fi;
		TOUCH_GROUP;	/* part_copy() */
		if
		:: copied = (taken -> taken : 1)
		:: !failed -> failed = true
		fi;
		atomic {	/* part_delivered(), part_settle() */
			TOUCH_GROUP;
			assert(IS_USED && slot == S_OPEN);
			told = told + (ended && !taken && copied);
			assert(told <= 1);
			reading = false;
			seen = seen || copied;
			pending = (ended -> 0 : pending - copied);
			if
#ifdef SETTLE_NO_TELL
			:: ended ->
#else
			:: ended && ((!taken && copied) || !tell || !seen) ->
#endif
				slot = (tell -> S_STALE : S_FREE);
				put_group(free)
			:: else ->
				if
				:: ended || pending -> slot = S_QUEUED
#ifdef SETTLE_NO_OPEN
				:: else -> slot = S_DELIVERED
#else
				:: else -> slot = (more -> S_OPEN : S_DELIVERED)
#endif
				fi
			fi;
			assert(!free);
			put_group(free);
			copied = 0;
			taken = 0
		};
		free_group(free)
	:: atomic {	/* fault_claim_delivered() */
		slot == S_DELIVERED && IS_CLAIMABLE;
		assert(!open && count == 2);
		state = ANSWERING;
		slot = S_FREE
	   };
		finish(is_open, free)
#ifdef CLOSE
	:: break
#endif
	od;
	user = true
}

/* iommufd_fault_work(); only what is complete has a deadline */
active proctype Work()
{
	bool free, won, is_open;

end:
	do
	:: atomic { !late && IS_USED && !ended && !more -> late = true;
		if
		:: IS_CLAIMABLE -> state = ANSWERING; end_group(true); won = true
		:: !IS_CLAIMABLE
		fi };
		if
		:: won -> won = false; finish(is_open, free)
		:: !won
		fi
	od
}

#ifdef RECALL
#define TELLS	true
#else
#define TELLS	false
#endif

/* iopf_drop_all() of an overflow, iopf_quiesce() of a detach: iopf_drop(), fault_recall() */
inline drop(free)
{
	atomic { !locked -> locked = true };
	if
	:: hashed && IS_CLAIMABLE ->
		hashed = false;
		if
		:: atomic { IS_CLAIMABLE -> state = GONE };
			atomic {
				if
				:: IS_USED -> end_group(TELLS); let_go(free)
				:: !IS_USED
				fi
			};
			free_group(free)
		:: !IS_CLAIMABLE
		fi
	:: hashed && !IS_CLAIMABLE -> hashed = false
	:: !hashed
	fi;
	locked = false
}

/* fault_answer_all() */
inline answer_all(won, is_open, free)
{
	atomic {
		if
		:: IS_USED && ended ->		/* iommufd_fault_part_drop() */
			tell = false;
			if
#ifndef DROP_NO_READER
			:: reading
#endif
			:: else ->
				slot = S_FREE;
				put_group(free)
			fi
		:: IS_USED && !ended && IS_CLAIMABLE ->
			state = ANSWERING;
			end_group(false);
			won = true
		:: IS_USED && !ended && !IS_CLAIMABLE -> end_group(false); let_go(free)
		:: !IS_USED
		fi
	};
	if
	:: won -> won = false; finish(is_open, free)
	:: !won -> free_group(free)
	fi
}

#ifdef RECALL
active proctype Overflow()
{
	bool free;

	drop(free)
}
#endif

#ifdef LEAVE
/* attach_del() */
active proctype Detach()
{
	bool won, is_open, free;

	published = false;
	listed = false;
	drop(free);
	/* iommufd_fault_drain() */
#ifdef DRAIN_NO_DROP
	if
	:: outstanding > 0 -> answer_all(won, is_open, free)
	:: outstanding == 0
	fi;
#else
	answer_all(won, is_open, free);
#endif
	outstanding == 0;
	!locked;		/* iopf_recall_sync() */
	atomic { assert(!IS_USED || (reading && !tell)); attachment_freed = true }
}
#endif

#ifdef CLOSE
/* iommufd_fault_close() */
active proctype Close()
{
	bool won, is_open, free;

	user -> closed = true;
	answer_all(won, is_open, free);
	assert(!IS_USED)
}
#endif

/* When nothing moves any more */
active proctype Rest()
{
	timeout;
	assert(answers == 1 && freed && !IS_USED && outstanding == 0);
	assert(!(ended && tell && seen) || told == 1)
}
