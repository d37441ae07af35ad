// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a queued group to who waits for it
 *
 * There are two wait queues:
 *
 *	readers	those who take groups: blocking reads, IOMMU_FAULT_SERVE, and
 *		the reads that io_uring has posted, multishot ones too. One is
 *		woken for each group, first come, first served.
 *	pollers	those who want to know: poll, select, epoll, IORING_POLL_ADD. Every
 *		group is a new edge for all of them.
 *
 *	a report			fault_wake_work()	the tenant
 *	--------			-----------------	----------
 *	queue the group
 *	iommufd_fault_wake()
 *	  one reader ------------------------------------------> takes groups; if it
 *	  pollers --- FAULT_TELL_POLLERS --> all pollers ------>   leaves some, it calls
 *	  watch ----- fault_look() --+                             iommufd_fault_wake()
 *	                             +---------> more readers -->
 *
 * A report runs in a context that the devices of many owners share. There a
 * group costs the same however many wait for it: one reader is taken off the
 * head of its queue. How many pollers there are, and what hangs behind each of
 * them (an epoll can be polled itself), is up to user space, so they are woken
 * by a work item of the object.
 *
 * Nobody goes to sleep beside a group, because
 *
 *	who waits				who queues a group
 *	joins the wait queue			@queued becomes non-zero
 *	full barrier (prepare_to_wait_		full barrier (in
 *	  exclusive(), poll_wait())		  iommufd_fault_wake())
 *	reads @queued				is somebody on the wait queue?
 *
 * and at least one of the two sees what the other wrote. The same holds for
 * @alarm, which iommufd_fault_is_empty() reads beside @queued, and for @hung_up,
 * see iommufd_fault_hang_up(). Nothing of this can be left out, says
 * tools/iommu/models/wake.pml: JOIN_NO_BARRIER, JOIN_NO_CHECK, JOIN_NO_HANG_UP,
 * POLL_NO_BARRIER, POLL_NO_CHECK, POLL_NO_HANG_UP, WAKE_NO_BARRIER, and for @alarm
 * JOIN_NO_ALARM, POLL_NO_ALARM. Comments here and elsewhere name more of that model's
 * changes.
 *
 * A reader that was woken tries to take groups, and wakes the next one if it
 * leaves some. But a wake-up may come to nothing: io_uring cancels the read, its
 * task ends, or does not come to its ring for a while. So while groups are queued
 * and readers wait, fault_look() looks every millisecond whether somebody has
 * taken a group since. If not, another reader is woken, then two, four and so on.
 * wake.pml: NO_LOOK, LOOK_ENDS, NUDGE_ENDS
 *
 * FAULT_WATCHED belongs to who sets it, until the bit is cleared again: to the
 * timer, or to the work that the timer queues. It protects @looked and @nudge.
 */
#include <linux/iommufd.h>
#include <linux/poll.h>

#include "fault_wake.h"

#define FAULT_LOOK_NS	NSEC_PER_MSEC
#define FAULT_MAX_NUDGE	65536U

/* Bits of &iommufd_fault.wake */
enum {
	FAULT_TELL_POLLERS,	/* the work is to wake pollers */
	FAULT_NUDGE_READERS,	/* the work is to wake @nudge readers */
	FAULT_WATCHED,		/* the timer is set, or has queued the work */
};

#define FAULT_EVENTS	(EPOLLIN | EPOLLRDNORM)

static void fault_defer(struct iommufd_fault *fault, unsigned int bit)
{
	/* If it was set, the work clears it later, and then wakes (wake.pml: TELL_CLEARED_LATE). */
	if (!test_and_set_bit(bit, &fault->wake))
		queue_work(system_dfl_wq, &fault->wake_work);
}

/* Under FAULT_WATCHED */
static void fault_set_look(struct iommufd_fault *fault)
{
	unsigned int taken = READ_ONCE(fault->taken);

	if (fault->looked != taken)
		fault->nudge = 1;
	fault->looked = taken;
	hrtimer_start(&fault->look, FAULT_LOOK_NS, HRTIMER_MODE_REL_SOFT);
}

static void fault_watch(struct iommufd_fault *fault)
{
	if (!test_and_set_bit(FAULT_WATCHED, &fault->wake))
		fault_set_look(fault);
}

static bool fault_is_waited_for(struct iommufd_fault *fault)
{
	/* Who joins later than this looks at the queue itself. */
	return !iommufd_fault_is_empty(fault) && waitqueue_active(&fault->readers);
}

static enum hrtimer_restart fault_look(struct hrtimer *timer)
{
	struct iommufd_fault *fault = container_of(timer, struct iommufd_fault, look);

	clear_bit_unlock(FAULT_WATCHED, &fault->wake);
	/* Who finds the bit set queued a group before: seen here (wake.pml: LOOK_NO_BARRIER). */
	smp_mb__after_atomic();
	if (!fault_is_waited_for(fault) || test_and_set_bit(FAULT_WATCHED, &fault->wake))
		return HRTIMER_NORESTART;

	if (fault->looked == READ_ONCE(fault->taken))
		fault_defer(fault, FAULT_NUDGE_READERS);
	else
		fault_set_look(fault);
	return HRTIMER_NORESTART;
}

/*
 * The one that waits longest. If it stays, as a multishot read does, it goes last
 * (wake.pml: STAYS_FIRST). Then it is returned, to be compared alone: it may be gone.
 */
static const void *fault_wake_reader(struct iommufd_fault *fault)
{
	struct wait_queue_head *readers = &fault->readers;
	struct wait_queue_entry *first;
	unsigned long flags;
	bool stays = false;

	spin_lock_irqsave(&readers->lock, flags);
	first = list_first_entry_or_null(&readers->head, struct wait_queue_entry, entry);
	if (first) {
		list_move_tail(&first->entry, &readers->head);
		first->func(first, TASK_NORMAL, 0, poll_to_key(FAULT_EVENTS));
		stays = readers->head.prev == &first->entry;
	}
	spin_unlock_irqrestore(&readers->lock, flags);
	return stays ? first : NULL;
}

/*
 * Wake @nudge readers, or all that there are. One by one, as a report that comes meanwhile
 * takes the lock of the queue, too, and must not wait for as many as a tenant chooses.
 */
static void fault_nudge(struct iommufd_fault *fault)
{
	const void *stays, *seen = NULL;
	unsigned int left;

	for (left = fault->nudge; left; left--) {
		/* Who joins later looks at the queue itself. */
		if (!waitqueue_active(&fault->readers))
			break;
		stays = fault_wake_reader(fault);
		if (stays && stays == seen)
			break;
		seen = seen ?: stays;
		cond_resched();
	}
	fault->nudge = min(2 * fault->nudge, FAULT_MAX_NUDGE);
	fault_set_look(fault);
}

static void fault_wake_work(struct work_struct *work)
{
	struct iommufd_fault *fault = container_of(work, struct iommufd_fault, wake_work);

	if (test_and_clear_bit(FAULT_TELL_POLLERS, &fault->wake))
		wake_up_poll(&fault->pollers, FAULT_EVENTS);
	if (test_and_clear_bit(FAULT_NUDGE_READERS, &fault->wake))
		fault_nudge(fault);
}

/**
 * iommufd_fault_wake_next() - A group is there for another reader
 * @fault: the object
 *
 * For who leaves a group that pollers need not be told of again.
 *
 * Context: Any but hard interrupts, not under the object's lock.
 */
void iommufd_fault_wake_next(struct iommufd_fault *fault)
{
	/* The barrier of who queues, see the head of this file */
	smp_mb();
	/* Behind that barrier */
	if (waitqueue_active(&fault->readers)) {
		fault_wake_reader(fault);
		fault_watch(fault);
	}
}

/**
 * iommufd_fault_wake() - A group, or an alarm, was queued, or was left in the queue
 * @fault: the object
 *
 * One reader is woken now. Pollers are told soon.
 *
 * Context: Any but hard interrupts, not under the object's lock.
 */
void iommufd_fault_wake(struct iommufd_fault *fault)
{
	iommufd_fault_wake_next(fault);
	/* The barrier is in iommufd_fault_wake_next(). */
	if (waitqueue_active(&fault->pollers))
		fault_defer(fault, FAULT_TELL_POLLERS);
}

/**
 * iommufd_fault_wait() - Wait in turn until there is something to read
 * @fault: the object
 * @until: the time of CLOCK_MONOTONIC when to give up, or NULL
 *
 * The caller tries to read again whatever this returns: it may have been woken
 * for a group that nobody else is woken for (wake.pml: LEAVE_NO_TRY).
 *
 * Context: Process context, sleeps.
 *
 * Return: 0, -ERESTARTSYS for a signal, or -ETIME.
 */
int iommufd_fault_wait(struct iommufd_fault *fault, ktime_t *until)
{
	DEFINE_WAIT(wait);
	int rc = 0;

	for (;;) {
		prepare_to_wait_exclusive(&fault->readers, &wait, TASK_INTERRUPTIBLE);
		if (!iommufd_fault_is_empty(fault) || READ_ONCE(fault->hung_up))
			break;
		if (signal_pending(current)) {
			rc = -ERESTARTSYS;
			break;
		}
		if (!schedule_hrtimeout_range(until, current->timer_slack_ns,
					      HRTIMER_MODE_ABS)) {
			rc = -ETIME;
			break;
		}
	}
	finish_wait(&fault->readers, &wait);
	return rc;
}

/**
 * iommufd_fault_hang_up() - No fault can come any more
 * @fault: the object, which no HWPT and no device uses
 *
 * Everybody who waits is woken, to find @hung_up (wake.pml: HANG_UP_LATE,
 * HANG_UP_ONE, HANG_UP_NO_EDGE).
 *
 * Context: Process context.
 */
void iommufd_fault_hang_up(struct iommufd_fault *fault)
{
	WRITE_ONCE(fault->hung_up, true);
	smp_mb(); /* see the head of this file */
	__wake_up(&fault->readers, TASK_NORMAL, 0, poll_to_key(FAULT_EVENTS));
	__wake_up(&fault->pollers, TASK_NORMAL, 0, poll_to_key(FAULT_EVENTS | EPOLLHUP));
}

/**
 * iommufd_fault_init_wake() - Set up what this file keeps in an object
 * @fault: the object
 */
void iommufd_fault_init_wake(struct iommufd_fault *fault)
{
	init_waitqueue_head(&fault->readers);
	init_waitqueue_head(&fault->pollers);
	hrtimer_setup(&fault->look, fault_look, CLOCK_MONOTONIC, HRTIMER_MODE_REL_SOFT);
	INIT_WORK(&fault->wake_work, fault_wake_work);
	fault->nudge = 1;
}

/**
 * iommufd_fault_stop_wake() - End what may still be under way
 * @fault: the object, which nobody waits for or queues at
 *
 * Context: Process context, sleeps.
 */
void iommufd_fault_stop_wake(struct iommufd_fault *fault)
{
	hrtimer_cancel(&fault->look);
	cancel_work_sync(&fault->wake_work);
	/*
	 * Which the work may have set; with nothing queued it does no more than end.
	 * Neither is needless (wake.pml: STOP_NO_FIRST, STOP_NO_LAST).
	 */
	hrtimer_cancel(&fault->look);
}
