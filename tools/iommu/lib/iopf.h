/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * libiopf: I/O page faults in user space, a thin layer over iommufd, its fault
 * queues, VFIO devices and io_uring.
 *
 * A server opens an iommufd, makes a queue and an address space, opens a device
 * and attaches a page table that reports to the queue.  Then it asks a ring for
 * what comes next, which takes one system call a fault:
 *
 *	uint32_t serve(void *arg, const struct iopf_group *group)
 *	{
 *		... iopf_map() what group->requests ask for ...
 *		return IOMMUFD_PAGE_RESP_SUCCESS;
 *	}
 *
 *	while (iopf_ring_serve(&ring, 1000, serve, arg) >= 0)
 *		;
 *
 * examples/demand.c is such a server, whole.  libiopf(3) has the same as this
 * header in the form of a manual page.
 *
 * Handles are structs of the caller, filled in by an open, alloc or init
 * function and undone by the matching close or exit; the library keeps no state
 * of its own.  A handle points to those it was made from, so these must stay
 * where they are while it lives.
 *
 * Functions return 0 (or a count, where said) or a negative errno.  After a
 * failure iopf_error() tells in words what failed, but for iopf_serve(),
 * iopf_queue_read() and iopf_queue_write(), which leave it alone.
 *
 * Threads: the handles made from one struct iopf share its error text, so they are
 * to be used by one thread at a time.  iopf_serve(), iopf_queue_read() and
 * iopf_queue_write() touch nothing but the file: any number of threads may call
 * them on one queue, and each group goes to one of them.  A ring is used by the
 * thread that made it and by no other, with its queue's other readers beside it.
 *
 * An event loop of the caller's own: poll iopf_ring_fd() for EPOLLIN, level or edge
 * triggered.  Once before the first wait, which submits what is to be posted, and
 * whenever it is readable, call
 *
 *	while ((event = iopf_ring_serve(&ring, 0, serve, arg)) > 0)
 *		;
 *
 * up to IOPF_TIMEOUT: one call tells one event, and what was read or is still to
 * be given may wait in the ring, where the descriptor does not show it.  At
 * IOPF_TIMEOUT all answers have gone to the kernel.  Who replies to a slot later,
 * outside of such a loop, calls iopf_ring_flush() then.  Without a ring poll
 * queue->fd, and call iopf_serve() with a timeout of 0 until it returns 0.
 *
 * What a kernel lacks is found out when the program runs: iopf_probe() tells
 * it, and iopf_serve() and a ring fall back to what there is.  With Linux 6.11 or
 * later at the least, faults of nested page tables are served by poll, read and
 * write.  No function that serves faults allocates memory.
 *
 * Within a major version, programs that compile keep to do so: structs get new
 * members at their end only, enums new values.  A program that is linked with the shared
 * library runs with every later one of the same name (libiopf.so.1): there structs do
 * not change.
 */
#ifndef IOPF_H
#define IOPF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/iommufd.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IOPF_VERSION "2.0"

/* An open iommufd. */
struct iopf {
	int fd;
	char error[160];
};

/* -ENOENT: there is no /dev/iommu, and iopf_error() names the kernel's option. */
int iopf_open(struct iopf *io);
/* An iommufd that the caller has opened, or was given; iopf_close() closes it. */
void iopf_adopt(struct iopf *io, int fd);
void iopf_close(struct iopf *io);
/* What failed last, in words; never NULL. */
const char *iopf_error(const struct iopf *io);
/* Note a failure of the caller's own for iopf_error(), with err in words; returns -err. */
int iopf_fail(struct iopf *io, int err, const char *what, ...)
	__attribute__((format(printf, 3, 4)));
/* The same, where what says it all. */
int iopf_say(struct iopf *io, int err, const char *what, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- what the kernel can do ---- */

enum iopf_feature {
	IOPF_HAS_QUEUE = 1 << 0,	/* fault queues (Linux 6.11) */
	IOPF_HAS_POSTED_READ = 1 << 1,	/* reads of io_uring that wait: IOPF_READ, ..._MULTISHOT */
	IOPF_HAS_SERVE = 1 << 2,	/* IOMMU_FAULT_SERVE: IOPF_SERVE */
	IOPF_HAS_BLOCKING = 1 << 3,	/* IOMMU_FAULT_ALLOC_BLOCKING */
	IOPF_HAS_LIMITS = 1 << 4,	/* depth and deadline of a queue */
	IOPF_HAS_IMMEDIATE = 1 << 5,	/* IOMMU_FAULT_ALLOC_IMMEDIATE */
	IOPF_HAS_REPORT_LOSS = 1 << 6,	/* IOMMU_FAULT_ALLOC_REPORT_LOSS */
	/* with a device: */
	IOPF_HAS_PAGING = 1 << 7,	/* a queue for a table on an IOAS, not only a nested one */
	IOPF_HAS_PASID = 1 << 8,	/* tables for PASIDs */
};

/* Which of these; found by trying, on queues that are closed again. */
int iopf_probe(struct iopf *io, uint32_t *features);
/* The same, and what device dev_id can do. */
int iopf_probe_device(struct iopf *io, uint32_t dev_id, uint32_t *features);
/* In a word; NULL if there is no such feature. */
const char *iopf_feature_name(enum iopf_feature feature);

/* ---- address spaces and page tables ---- */

int iopf_destroy(struct iopf *io, uint32_t id);
int iopf_ioas_alloc(struct iopf *io, uint32_t *ioas_id);
/*
 * Map [va, va + len) at iova; access is IOMMU_IOAS_MAP_READABLE and/or
 * IOMMU_IOAS_MAP_WRITEABLE, as the device sees it.  -EEXIST: a part of the
 * range is mapped already, and nothing was changed.
 */
int iopf_map(struct iopf *io, uint32_t ioas_id, uint64_t iova, void *va, uint64_t len,
	     uint32_t access);
int iopf_unmap(struct iopf *io, uint32_t ioas_id, uint64_t iova, uint64_t len);
/*
 * A page table for the device dev_id on an IOAS (or on a parent HWPT).
 * fault_id: the queue that gets the faults, or 0 for a table that has none.
 * flags: IOMMU_HWPT_ALLOC_*; IOMMU_HWPT_FAULT_ID_VALID is added if need be.
 */
int iopf_hwpt_alloc(struct iopf *io, uint32_t dev_id, uint32_t pt_id, uint32_t flags,
		    uint32_t fault_id, uint32_t *hwpt_id);

/* ---- the fault queue ---- */

struct iopf_queue {
	struct iopf *io;
	uint32_t id;
	int fd;
	/* the kernel does not have IOMMU_FAULT_SERVE: iopf_serve() need not try */
	bool no_serve;
};

/* As in struct iommu_fault_alloc; 0 is the kernel's default each time. */
struct iopf_queue_options {
	/* IOMMU_FAULT_ALLOC_* */
	uint32_t flags;
	/* groups that the queue holds */
	uint32_t depth;
	/* a group that has no answer by then is given this code by the kernel */
	uint32_t deadline_ms;
	uint32_t deadline_code;
};

/*
 * -EOPNOTSUPP: a flag that the kernel does not know; -E2BIG: it has neither depth
 * nor deadline, and one is not 0.
 */
int iopf_queue_alloc_with(struct iopf *io, const struct iopf_queue_options *options,
			  struct iopf_queue *queue);
/* The same with flags alone. */
int iopf_queue_alloc(struct iopf *io, uint32_t flags, struct iopf_queue *queue);
/* A queue that is there already, by its id and file; iopf_queue_close() ends both. */
void iopf_queue_adopt(struct iopf *io, uint32_t id, int fd, struct iopf_queue *queue);
/*
 * Closes the file and destroys the object: no HWPT may use it any more.  A ring
 * of io_uring lets go of the file a moment after its end; this waits for it.
 */
int iopf_queue_close(struct iopf_queue *queue);

/*
 * read(2) into n messages; returns how many there are, 0 for an empty queue (with
 * IOMMU_FAULT_ALLOC_BLOCKING it waits).  -EINVAL: the first group has more than n.
 */
int iopf_queue_read(const struct iopf_queue *queue, struct iommu_hwpt_pgfault *messages,
		    size_t n);
/*
 * write(2) n answers; returns how many were taken, up to the first that is refused.  If
 * that is the very first it is the error: -EINVAL, -ESTALE (it came too late) or -EBUSY,
 * as of iopf_serve().  Leave that one out and go on behind it.
 */
int iopf_queue_write(const struct iopf_queue *queue,
		     const struct iommu_hwpt_page_response *answers, size_t n);

/* A group of page requests, which gets one answer. */
struct iopf_group {
	const struct iommu_hwpt_pgfault *requests;
	unsigned int n;
	uint32_t cookie;
	uint32_t dev_id;
	uint32_t grpid;
	uint32_t pasid;
	bool has_pasid;
};

/* Walks over the groups of a buffer of messages. */
struct iopf_iter {
	const struct iommu_hwpt_pgfault *next;
	const struct iommu_hwpt_pgfault *end;
};

static inline struct iopf_iter iopf_groups(const struct iommu_hwpt_pgfault *messages, size_t n)
{
	struct iopf_iter iter = { messages, messages + n };

	return iter;
}

/*
 * 1: *group is the next group; 0: that was all; -EPROTO: the rest is no whole group.
 * A message with cookie 0 is no fault, and is passed over: iopf_lost() tells of it.
 * Not for a queue with IOMMU_FAULT_ALLOC_IMMEDIATE, whose groups come in pieces:
 * look at its messages one by one.
 */
int iopf_next_group(struct iopf_iter *iter, struct iopf_group *group);

/*
 * Whether one of the messages says that page requests were lost before it, in a queue
 * with IOMMU_FAULT_ALLOC_REPORT_LOSS.
 */
static inline bool iopf_lost(const struct iommu_hwpt_pgfault *messages, size_t n)
{
	while (n--)
		if (messages[n].flags & IOMMU_PGFAULT_FLAGS_LOST)
			return true;
	return false;
}

/* ---- answers in, messages out ---- */

/* A timeout: until something comes. */
#define IOPF_FOREVER UINT32_MAX

/* For iopf_serve(); its out fields begin as 0. */
struct iopf_serve {
	/* in: answers to give */
	const struct iommu_hwpt_page_response *answers;
	unsigned int n_answers;
	/* in and out: how many of them are dealt with; it goes on behind these */
	unsigned int n_done;
	/* out: adds those of them that came too late: the kernel has answered for you */
	unsigned int n_late;
	/* in: where messages go, and how many there is room for */
	struct iommu_hwpt_pgfault *messages;
	unsigned int room;
	/* out: with -EMSGSIZE the messages of the first group, or 0 if the kernel keeps that */
	unsigned int needed;
};

/*
 * Give answers, then take messages, whole groups, as many as fit; wait for the
 * first one for so many milliseconds, 0 or IOPF_FOREVER.  One system call where the
 * kernel has IOMMU_FAULT_SERVE, else a write, a poll and a read.
 *
 * Returns how many messages there are: 0 if there is room for none, or none came.
 * Nothing is lost by an error; after any, see first if n_done is less than
 * n_answers.  Then it is that of the answer with this index, which was not given, as
 * those behind it; no message was taken.  To go on without that one, add 1 to n_done.
 *	-EINVAL		an unknown cookie or code; the cookies of a device that was
 *			detached are unknown from then on
 *	-EBUSY		the group has not been read to its end
 * If all answers are dealt with it is one of
 *	-EMSGSIZE	the first group does not fit; see needed
 *	-EAGAIN		it had to wait, but the file is O_NONBLOCK
 *	-EINTR		a signal came before a message: call again
 *	-ENODEV		no fault can come any more
 * or another one that an ioctl(2), a write, poll or read can have.
 */
int iopf_serve(const struct iopf_queue *queue, struct iopf_serve *serve, unsigned int timeout_ms);
/* Is that one system call? */
bool iopf_queue_has_serve(const struct iopf_queue *queue);

/* ---- serving faults ---- */

/* How faults come in. */
enum iopf_mode {
	IOPF_SERVE,	/* iopf_serve() by one system call, without io_uring */
	IOPF_READ,	/* reads of io_uring that are posted; a write for the answers of each */
	IOPF_MULTISHOT,	/* one read that stays posted, and a buffer for each slot */
	IOPF_POLL,	/* poll, read and write, without io_uring */
};

/* Room for the messages of a read and for as many answers. */
struct iopf_slot {
	struct iommu_hwpt_pgfault *messages;
	unsigned int n_messages;
	struct iommu_hwpt_page_response *answers;
	unsigned int n_answers;
	/* answers to groups that were gone by then, known at IOPF_ANSWERED */
	unsigned int n_refused;
	/* the caller's own */
	uint64_t user;
};

/*
 * Made and used by one and the same thread.  But for IOPF_POLL, nothing is given
 * to the kernel before the next iopf_ring_next(): one system call gives the answers
 * to what was ready, and waits for what comes next.
 */
struct iopf_ring {
	/* what it came to be, see iopf_ring_init_mode() */
	enum iopf_mode mode;
	/* the library's own */
	struct iopf_ring_impl *impl;
};

enum iopf_event {
	IOPF_TIMEOUT,	/* nothing happened in time, or no slot is free */
	IOPF_FAULTS,	/* slot->messages are whole groups: answer them and reply */
	/*
	 * The kernel has taken slot->answers; the slot waits for faults again.  With
	 * IOPF_SERVE this is said when the wait for something else is over.
	 */
	IOPF_ANSWERED,
};

/*
 * Have n_slots reads of slot_size messages each; iopf_device_pri_capacity() says how
 * large the groups of a device can be.  A group that has no room in a slot comes in one
 * that the ring has beside them, at the cost of a system call more.  There is one such
 * slot: until it is replied to, the next group of that kind waits, and those behind it.
 * Without io_uring one slot is filled at a time; more than one are for who answers later.
 * ring->mode says how: where posted reads do not wait for faults (Linux up to now),
 * or the process may not use io_uring, IOPF_SERVE; and IOPF_POLL where the kernel
 * does not have IOMMU_FAULT_SERVE.
 */
int iopf_ring_init_mode(struct iopf_ring *ring, const struct iopf_queue *queue,
			enum iopf_mode mode, unsigned int n_slots, unsigned int slot_size);
/* The same with IOPF_SERVE. */
int iopf_ring_init(struct iopf_ring *ring, const struct iopf_queue *queue, unsigned int n_slots,
		   unsigned int slot_size);
/* "serve", "read", "multishot", "poll" */
const char *iopf_mode_name(enum iopf_mode mode);
/*
 * Cancel what is posted, so that the queue can be closed next.
 * Groups that come in meanwhile are answered INVALID; those of slots without
 * a reply remain unanswered.
 */
void iopf_ring_exit(struct iopf_ring *ring);
/* Reads and writes of io_uring that the kernel has not completed; 0 after the exit. */
unsigned int iopf_ring_in_flight(const struct iopf_ring *ring);
/* To poll for EPOLLIN in an event loop of the caller's own; see the top of this file. */
int iopf_ring_fd(const struct iopf_ring *ring);
/*
 * Give the kernel the answers of all slots that were replied to, without waiting and
 * without taking faults.  0 or as iopf_ring_next(), which tells of them next.
 */
int iopf_ring_flush(struct iopf_ring *ring);
/*
 * The next enum iopf_event, with its slot; waits if there is none, for so many
 * milliseconds: 0 does not wait, IOPF_FOREVER until there is one.  -EINTR: a
 * signal came.  -ENODEV: no fault can come any more.  After any error but -EINTR the
 * ring is of no more use.
 */
int iopf_ring_next(struct iopf_ring *ring, unsigned int timeout_ms, struct iopf_slot **slot);
/* Add an answer to a slot that came with IOPF_FAULTS: one for each group at most. */
void iopf_slot_answer(struct iopf_slot *slot, uint32_t cookie, uint32_t code);
/* Give the slot's answers, if any, and let it wait for faults again. */
void iopf_ring_reply(struct iopf_ring *ring, struct iopf_slot *slot);
/*
 * All that in one, for who answers at once: iopf_ring_next(), and if faults came,
 * each group gets the answer that serve() returns.  Returns the event, or as
 * iopf_ring_next(); -EPROTO: a message that ends no group.
 */
int iopf_ring_serve(struct iopf_ring *ring, unsigned int timeout_ms,
		    uint32_t (*serve)(void *arg, const struct iopf_group *group), void *arg);

/* ---- devices, through VFIO ---- */

#define IOPF_BARS 6

struct iopf_bar;

struct iopf_device {
	struct iopf *io;
	int fd;
	/* as iommufd knows it: HWPTs are made for it, messages come with it */
	uint32_t id;
	char bdf[16];
	uint64_t config_offset;
	/* what to put back on close */
	char old_driver[64];
	char old_override[64];
	bool rebind;
	/* those that are mapped; the device cannot be given back before */
	struct iopf_bar *bars[IOPF_BARS];
	/* of iopf_device_watch() */
	bool watched;
	int leave_fd;
};

/* "0:3.0" and the like to "0000:00:03.0", as sysfs has it. */
int iopf_full_bdf(struct iopf *io, const char *bdf, char full[16]);
/*
 * Before it is taken from its driver: is it that kind of device?  -ENODEV: it is
 * another, or there is none, and iopf_error() tells.
 */
int iopf_pci_expect(struct iopf *io, const char *bdf, uint16_t vendor, uint16_t device);
/*
 * Take the PCI device at bdf from its driver, give it to vfio-pci and bind it
 * to the iommufd.  Who does so for the same device at the same time waits.
 * -EBUSY: it is in use, and iopf_error() names by whom; -ENODEV: there is none.
 */
int iopf_device_open(struct iopf *io, const char *bdf, struct iopf_device *dev);
/*
 * A VFIO device that is open at fd and bound to the iommufd, which knows it as id; bdf
 * names it in sysfs.  iopf_device_close() closes it, and leaves it with its driver.
 */
int iopf_device_adopt(struct iopf *io, const char *bdf, int fd, uint32_t id,
		      struct iopf_device *dev);
/*
 * How many page requests the device can have outstanding (PRI's capacity), so that no
 * group is larger: enough for a slot of a ring.  0: the device has no PRI.
 */
int iopf_device_pri_capacity(struct iopf_device *dev);
/*
 * Detaches everything and unmaps the BARs; the device goes back to the driver that
 * it had.  If it is watched and was asked back, it is left without a driver, as who
 * asked for it decides what comes next.
 */
int iopf_device_close(struct iopf_device *dev);
/*
 * A device that is to leave (its driver is unbound, it is unplugged) has to be closed:
 * until then whoever asked for it waits, without a limit.  Returns a descriptor that
 * is readable from when it is asked back, to poll beside the queue's; do not read it.
 * iopf_device_close() closes it.
 */
int iopf_device_watch(struct iopf_device *dev);
/* Was a device that is watched asked back? */
bool iopf_device_is_leaving(const struct iopf_device *dev);

/* pt_id is an IOAS or HWPT.  Attaching to another one replaces the first. */
int iopf_device_attach(struct iopf_device *dev, uint32_t pt_id);
int iopf_device_detach(struct iopf_device *dev);
int iopf_device_attach_pasid(struct iopf_device *dev, uint32_t pasid, uint32_t pt_id);
int iopf_device_detach_pasid(struct iopf_device *dev, uint32_t pasid);
/*
 * Let the PASID's faults on an IOAS go to a queue.  PASIDs work only while the device
 * itself is attached to a table that allows for them, so two are made and attached:
 * hwpt_ids[0], without a queue, and hwpt_ids[1].  After a failure there is none.
 */
int iopf_device_attach_queue(struct iopf_device *dev, uint32_t ioas_id, uint32_t pasid,
			     const struct iopf_queue *queue, uint32_t hwpt_ids[2]);
/* The reverse. */
void iopf_device_detach_queue(struct iopf_device *dev, uint32_t pasid,
			      const uint32_t hwpt_ids[2]);

int iopf_device_config_read(struct iopf_device *dev, unsigned int reg, void *buf, size_t len);
int iopf_device_config_write(struct iopf_device *dev, unsigned int reg, const void *buf,
			     size_t len);
/* Let the device send requests of its own (DMA, ATS, PRI, MSI), or not. */
int iopf_device_bus_master(struct iopf_device *dev, bool on);

struct iopf_bar {
	volatile void *base;
	size_t size;
	struct iopf_device *dev;
	unsigned int index;
};

/* -EBUSY: it is mapped already. */
int iopf_device_map_bar(struct iopf_device *dev, unsigned int index, struct iopf_bar *bar);
void iopf_device_unmap_bar(struct iopf_bar *bar);

#ifdef __cplusplus
}
#endif

#endif
