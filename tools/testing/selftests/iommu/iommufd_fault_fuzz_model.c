// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer's model of queues, groups and attachments: what each call changes, and
 * whether the kernel's messages and counts are those of the model.
 */
#include <stdarg.h>

#include "iommufd_fault_fuzz.h"

_Static_assert(sizeof(struct iommu_hwpt_pgfault) == MSG, "the uAPI does not change");
_Static_assert(sizeof(struct iommu_hwpt_page_response) == ANSWER, "the uAPI does not change");

struct ctx ctxs[CTXS];
struct rng rng;
struct stress_options opt = {
	.program = "iommufd_fault_fuzz", .unit = "operations", .count = 1000000, .seconds = 20,
};

uint64_t operation;
const char *operation_name = "";
uint64_t results[128];

void fail(const char *what, ...)
{
	char text[300];
	va_list args;

	va_start(args, what);
	vsnprintf(text, sizeof(text), what, args);
	va_end(args);
	ksft_print_msg("operation %llu, %s: %s\n", (unsigned long long)operation, operation_name,
		       text);
	stress_print_repeat(&opt);
	ksft_test_result_fail("every result is the model's\n");
	ksft_finished();
}

void expect(const char *what, long wanted, long got)
{
	if (wanted != got)
		fail("%s: the model says %ld, the kernel %ld", what, wanted, got);
	results[wanted < 0 && wanted > -128 ? -wanted : 0]++;
}

long or_errno(long rc)
{
	return rc == -1 ? -errno : rc;
}

void add_object(struct ctx *ctx, uint32_t id, enum type type)
{
	if (!id || id >= MAX_ID || ctx->types[id] != NONE)
		fail("a new object got the id %u", id);
	ctx->types[id] = type;
}

enum type type_of(const struct ctx *ctx, uint32_t id)
{
	return id < MAX_ID ? ctx->types[id] : NONE;
}

/* An id that may be anything's */
uint32_t any_id(void)
{
	return rng_one_in(&rng, 8) ? (uint32_t)rng_next(&rng) : rng_below(&rng, 32);
}

struct hwpt *find_hwpt(struct ctx *ctx, uint32_t id)
{
	int i;

	for (i = 0; i < HWPTS; i++) {
		if (ctx->hwpts[i].id == id)
			return &ctx->hwpts[i];
	}
	return NULL;
}

struct queue *find_queue(struct ctx *ctx, uint32_t id)
{
	int i;

	for (i = 0; i < QUEUES; i++) {
		if (ctx->queues[i].id == id)
			return &ctx->queues[i];
	}
	return NULL;
}

struct ctx *random_ctx(void)
{
	return &ctxs[rng_below(&rng, CTXS)];
}

struct dev *random_dev(struct ctx *ctx)
{
	return &ctx->devs[rng_below(&rng, DEVS)];
}

/* One with an open file, or NULL */
struct queue *random_queue(struct ctx *ctx)
{
	struct queue *queue = &ctx->queues[rng_below(&rng, QUEUES)];

	return queue->id && queue->fd >= 0 ? queue : NULL;
}

struct hwpt *random_hwpt(struct ctx *ctx)
{
	struct hwpt *hwpt = &ctx->hwpts[rng_below(&rng, HWPTS)];

	return hwpt->id ? hwpt : ctx->plain;
}

/* ---- groups in the model ---- */

void remove_group(struct group *groups, unsigned int *n, unsigned int at)
{
	memmove(&groups[at], &groups[at + 1], (--*n - at) * sizeof(*groups));
}

/* What is outstanding of an attachment, or of the whole queue, is answered. */
static void model_abort(struct group *groups, unsigned int *n, const struct dev *dev,
			uint32_t pasid, uint32_t code)
{
	unsigned int i = 0;

	while (i < *n) {
		if (dev && (groups[i].dev != dev || groups[i].pasid != pasid)) {
			i++;
			continue;
		}
		groups[i].dev->answers[code]++;
		remove_group(groups, n, i);
	}
}

void model_drain(struct queue *queue, const struct dev *dev, uint32_t pasid, uint32_t code)
{
	model_abort(queue->queued, &queue->n_queued, dev, pasid, code);
	model_abort(queue->delivered, &queue->n_delivered, dev, pasid, code);
}

struct group *model_partial(struct dev *dev, uint32_t pasid, uint32_t grpid)
{
	unsigned int i;

	for (i = 0; i < dev->n_partials; i++) {
		if (dev->partials[i].pasid == pasid && dev->partials[i].grpid == grpid)
			return &dev->partials[i];
	}
	return NULL;
}

static void model_forget_partials(struct dev *dev, uint32_t pasid)
{
	unsigned int i = 0;

	while (i < dev->n_partials) {
		if (dev->partials[i].pasid == pasid)
			remove_group(dev->partials, &dev->n_partials, i);
		else
			i++;
	}
}

/* The device leaves what is attached at @pasid. */
static void model_leave(struct dev *dev, uint32_t pasid, uint32_t code)
{
	struct hwpt *hwpt = dev->attached[pasid];

	if (!hwpt)
		return;
	hwpt->users--;
	dev->attached[pasid] = NULL;
	if (hwpt->queue) {
		model_forget_partials(dev, pasid);
		model_drain(hwpt->queue, dev, pasid, code);
	}
}

void model_detach(struct dev *dev, uint32_t pasid)
{
	model_leave(dev, pasid, IOMMUFD_PAGE_RESP_INVALID);
}

void model_attach(struct dev *dev, uint32_t pasid, struct hwpt *hwpt)
{
	model_leave(dev, pasid, IOMMUFD_PAGE_RESP_SUCCESS);
	dev->attached[pasid] = hwpt;
	hwpt->users++;
}

/* How many groups at the head fit into the room, and their messages */
unsigned int model_fit(const struct queue *queue, unsigned int room, unsigned int *messages)
{
	unsigned int i;

	*messages = 0;
	for (i = 0; i < queue->n_queued; i++) {
		if (queue->queued[i].n > room - *messages)
			break;
		*messages += queue->queued[i].n;
	}
	return i;
}

static struct group *model_delivered(struct queue *queue, uint32_t cookie)
{
	unsigned int i;

	for (i = 0; i < queue->n_delivered; i++) {
		if (queue->delivered[i].cookie == cookie)
			return &queue->delivered[i];
	}
	return NULL;
}

bool model_answer(struct queue *queue, const struct iommu_hwpt_page_response *answer)
{
	struct group *group = model_delivered(queue, answer->cookie);

	if (!group || answer->code > IOMMUFD_PAGE_RESP_FAILURE)
		return false;
	group->dev->answers[answer->code]++;
	remove_group(queue->delivered, &queue->n_delivered,
		     (unsigned int)(group - queue->delivered));
	return true;
}

/* ---- comparing ---- */

static void expect_message(const struct group *group, unsigned int i, uint32_t cookie,
			   const unsigned char *got)
{
	const struct request *r = &group->requests[i];
	struct iommu_hwpt_pgfault wanted;
	size_t byte;

	memset(&wanted, 0, sizeof(wanted));
	wanted.flags = (group->pasid ? IOMMU_PGFAULT_FLAGS_PASID_VALID : 0) |
		       (r->last ? IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0);
	wanted.dev_id = group->dev->idev_id;
	wanted.pasid = group->pasid;
	wanted.grpid = group->grpid;
	wanted.perm = r->perm;
	wanted.addr = r->addr;
	wanted.cookie = cookie;
	for (byte = 0; byte < MSG; byte++) {
		if (got[byte] != ((unsigned char *)&wanted)[byte])
			fail("byte %zu of a message: the model says %#x, the kernel %#x", byte,
			     ((unsigned char *)&wanted)[byte], got[byte]);
	}
}

/* The first @n groups reached the user: check their messages, and move them. */
void take_groups(struct queue *queue, unsigned int n, const unsigned char *bytes)
{
	struct iommu_hwpt_pgfault first;
	struct group *group;
	unsigned int i;

	while (n--) {
		group = &queue->queued[0];
		memcpy(&first, bytes, MSG);
		if (!first.cookie || model_delivered(queue, first.cookie))
			fail("the cookie %u is 0, or used", first.cookie);
		for (i = 0; i < group->n; i++, bytes += MSG)
			expect_message(group, i, first.cookie, bytes);
		group->cookie = first.cookie;
		queue->delivered[queue->n_delivered++] = *group;
		remove_group(queue->queued, &queue->n_queued, 0);
	}
}

void expect_untouched(const unsigned char *from, const unsigned char *to)
{
	for (; from < to; from++) {
		if (*from != UNTOUCHED)
			fail("a byte behind what was read was written: %#x", *from);
	}
}

static bool same_stats(const struct dev *dev, const struct iommu_test_iopf_stats *s)
{
	return s->requests == dev->requests && s->groups == dev->groups &&
	       s->responses[0] == dev->answers[0] && s->responses[1] == dev->answers[1] &&
	       s->responses[2] == dev->answers[2] && !s->unmatched && !s->bad_codes &&
	       s->outstanding == dev->groups - dev->answers[0] - dev->answers[1] - dev->answers[2];
}

/* A file that io_uring has used is released a moment after it is closed. */
void check_dev(struct ctx *ctx, const struct dev *dev)
{
	uint64_t end = clock_ms() + 10000;
	struct iommu_test_iopf_stats s;

	do {
		expect("STATS", 0, iopf_stats(ctx->fd, dev->idev_id, &s));
		if (same_stats(dev, &s))
			return;
	} while (clock_ms() < end);
	ksft_print_msg("kernel: %llu requests, %llu groups, answers %llu %llu %llu, %llu open\n",
		       s.requests, s.groups, s.responses[0], s.responses[1], s.responses[2],
		       s.outstanding);
	fail("device: the model says %llu requests, %llu groups, answers %llu %llu %llu",
	     (unsigned long long)dev->requests, (unsigned long long)dev->groups,
	     (unsigned long long)dev->answers[0], (unsigned long long)dev->answers[1],
	     (unsigned long long)dev->answers[2]);
}

void op_check(struct ctx *ctx)
{
	check_dev(ctx, random_dev(ctx));
}
