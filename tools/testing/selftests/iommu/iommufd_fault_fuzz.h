/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of the fuzzer share: what there is of everything, the model of it,
 * and the operations.
 */
#ifndef __SELFTEST_IOMMUFD_FAULT_FUZZ_H
#define __SELFTEST_IOMMUFD_FAULT_FUZZ_H

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sys/mman.h>

#include "../kselftest.h"
#include "iommufd_fault_utils.h"
#include "iommufd_stress_utils.h"

#define CTXS 2
#define DEVS 3
#define QUEUES 3
#define HWPTS 6
#define PASIDS 4		/* 0 stands for the RID */
#define MAX_ID 64
#define MAX_REQUESTS 24		/* of one group */
#define MAX_GROUPS 256		/* that one queue holds, in this program */
#define MAX_PARTIALS 8
#define MAX_ROOM 40		/* messages of one read */
#define MAX_ANSWERS 100
#define MSG ((size_t)40)
#define ANSWER ((size_t)8)
#define PAGE 4096ul
#define UNTOUCHED 0xa5
#define ADDR 0x40000000ull
#define BUFFER (2 * PAGE)

enum type { NONE, IOAS, DEVICE, MOCK, HWPT, QUEUE, EMULATED };

struct queue;

struct hwpt {
	uint32_t id;
	bool pasid_compat;
	struct queue *queue;
	unsigned int users;
};

struct request {
	uint64_t addr;
	uint32_t perm;
	bool last;
};

struct group {
	struct dev *dev;
	uint32_t pasid;
	uint32_t grpid;
	uint32_t cookie;
	unsigned int n;
	struct request requests[MAX_REQUESTS];
};

struct dev {
	uint32_t stdev_id;
	uint32_t idev_id;
	bool has_pasids;
	/* Linux 7.3 makes HWPTs for PASIDs also for a device that has none. */
	bool pasid_hwpts;
	struct hwpt *attached[PASIDS];
	struct group partials[MAX_PARTIALS];
	unsigned int n_partials;
	uint64_t requests, groups, answers[3];
};

struct queue {
	uint32_t id;
	int fd;
	bool blocking, nonblock;
	unsigned int users;
	struct group queued[MAX_GROUPS];
	unsigned int n_queued;
	struct group delivered[MAX_GROUPS];
	unsigned int n_delivered;
	/* a posted read that waits, and the room it has */
	bool reading;
	unsigned int read_room;
};

struct ctx {
	int fd;
	uint32_t ioas_id;
	struct hwpt *plain;
	/* an emulated device, its driver, and where that would report faults to */
	uint32_t emulated_id;
	int driver;
	struct queue *bound;
	enum type types[MAX_ID];
	struct dev devs[DEVS];
	struct queue queues[QUEUES];
	struct hwpt hwpts[HWPTS];
};

extern struct ctx ctxs[CTXS];
extern struct rng rng;
extern struct stress_options opt;
extern uint64_t operation;
extern const char *operation_name;
/* Results that were compared: those that are no error, and each errno */
extern uint64_t results[128];
/* Messages are read into the end of this, so that the page behind is a fence. */
extern unsigned char *buffer;

/* ---- the model, and comparing with it ---- */

void __attribute__((format(printf, 1, 2), noreturn)) fail(const char *what, ...);
void expect(const char *what, long wanted, long got);
long or_errno(long rc);
void add_object(struct ctx *ctx, uint32_t id, enum type type);
enum type type_of(const struct ctx *ctx, uint32_t id);
uint32_t any_id(void);
struct hwpt *find_hwpt(struct ctx *ctx, uint32_t id);
struct queue *find_queue(struct ctx *ctx, uint32_t id);
struct ctx *random_ctx(void);
struct dev *random_dev(struct ctx *ctx);
struct queue *random_queue(struct ctx *ctx);
struct hwpt *random_hwpt(struct ctx *ctx);
void remove_group(struct group *groups, unsigned int *n, unsigned int at);
void model_drain(struct queue *queue, const struct dev *dev, uint32_t pasid, uint32_t code);
struct group *model_partial(struct dev *dev, uint32_t pasid, uint32_t grpid);
void model_detach(struct dev *dev, uint32_t pasid);
void model_attach(struct dev *dev, uint32_t pasid, struct hwpt *hwpt);
unsigned int model_fit(const struct queue *queue, unsigned int room, unsigned int *messages);
bool model_answer(struct queue *queue, const struct iommu_hwpt_page_response *answer);
void take_groups(struct queue *queue, unsigned int n, const unsigned char *bytes);
void expect_untouched(const unsigned char *from, const unsigned char *to);
void check_dev(struct ctx *ctx, const struct dev *dev);
void op_check(struct ctx *ctx);

/* ---- operations on objects and devices ---- */

void op_queue(struct ctx *ctx);
void op_ioctl(struct ctx *ctx);
void op_hwpt(struct ctx *ctx);
void op_bind(struct ctx *ctx);
void op_attach(struct ctx *ctx);
void op_detach(struct ctx *ctx);
void make_device(struct ctx *ctx, struct dev *dev, bool has_pasids);
void drop_device(struct ctx *ctx, struct dev *dev);
void op_destroy(struct ctx *ctx);

#endif
