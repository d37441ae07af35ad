// SPDX-License-Identifier: GPL-2.0-only
/*
 * Seeded fuzzer of the fault queue's uAPI, with a model that knows the result
 * of every call before it is made.
 *
 * One thread draws operations on two iommufds with a few mock devices, queues and
 * HWPTs each: good ones and every kind of bad one. The model predicts what each
 * returns, down to the errno, every byte of every message, which bytes of a buffer
 * stay untouched, and how often each device was answered with each code. The
 * first difference ends the run and names the operation.
 *
 * Where the kernel may do one or another the fuzzer does not go: limits of memory
 * (iommufd_fault_limits has these), faults of a device whose file is going away, flags
 * that give messages another meaning.
 */
#include <signal.h>
#include <sys/uio.h>

#include "../../../iommu/lib/iopf.h"
#include "iommufd_fault_fuzz.h"

static struct io_uring ring;
static uint64_t faults;
/* Answers of a call that reads messages as well, with a fence of their own */
static unsigned char *answers;
static unsigned char *read_buffers[CTXS][QUEUES];

/* ---- injecting ---- */

static bool model_last(struct dev *dev, struct group *group)
{
	struct hwpt *hwpt = dev->attached[group->pasid];
	struct queue *queue = hwpt ? hwpt->queue : NULL;

	dev->groups++;
	if (!queue || queue->fd < 0) {
		dev->answers[IOMMUFD_PAGE_RESP_INVALID]++;
		return false;
	}
	queue->queued[queue->n_queued++] = *group;
	return true;
}

/* A device without any queue reports nothing to the core. */
static bool model_reports(const struct dev *dev)
{
	int i;

	for (i = 0; i < PASIDS; i++) {
		if (dev->attached[i] && dev->attached[i]->queue)
			return true;
	}
	return false;
}

/* One group of a batch; returns how many requests the core accepts. */
static unsigned int model_group(struct dev *dev, uint32_t pasid, uint32_t grpid, uint64_t addr,
				unsigned int n, bool last, uint32_t perm)
{
	struct group *partial = model_partial(dev, pasid, grpid), group = {
		.dev = dev, .pasid = pasid, .grpid = grpid,
	};
	unsigned int i, taken = n;

	if (partial) {
		group = *partial;
		remove_group(dev->partials, &dev->n_partials,
			     (unsigned int)(partial - dev->partials));
	}
	for (i = 0; i < n; i++)
		group.requests[group.n++] =
			(struct request){ addr + i * PAGE, perm, last && i == n - 1 };
	dev->requests += n;
	faults += n;
	if (!last)
		dev->partials[dev->n_partials++] = group;
	else if (!model_last(dev, &group))
		taken--;
	return model_reports(dev) ? taken : 0;
}

static unsigned int partial_length(struct dev *dev, uint32_t pasid, uint32_t grpid)
{
	struct group *partial = model_partial(dev, pasid, grpid);

	return partial ? partial->n : 0;
}

/* The read that waits has the first groups, or cannot have the first. */
static void check_posted(struct ctx *ctx, struct queue *queue)
{
	unsigned char *bytes = read_buffers[ctx - ctxs][queue - ctx->queues];
	struct __kernel_timespec ts = { .tv_sec = 10 };
	unsigned int groups, messages;
	struct io_uring_cqe *cqe;

	if (!queue->reading || !queue->n_queued)
		return;
	if (io_uring_wait_cqe_timeout(&ring, &cqe, &ts))
		fail("a posted read that waited does not end");
	if (io_uring_cqe_get_data(cqe) != queue)
		fail("another posted read ended");
	groups = model_fit(queue, queue->read_room, &messages);
	expect("a posted read that waited", messages ? (long)(messages * MSG) : -EINVAL, cqe->res);
	io_uring_cqe_seen(&ring, cqe);
	queue->reading = false;
	take_groups(queue, groups, bytes);
	expect_untouched(bytes + messages * MSG, bytes + MAX_ROOM * MSG);
}

static void op_inject(struct ctx *ctx)
{
	struct dev *dev = random_dev(ctx);
	uint32_t pasid = rng_below(&rng, PASIDS), id = dev->idev_id, i;
	struct hwpt *hwpt = dev->attached[pasid];
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)&id, .nr_devs = 1, .nr_pasids = 1, .pasid = pasid,
		.addr = ADDR + rng_below(&rng, 1 << 20) * PAGE,
		.groups = 1 + rng_below(&rng, 4), .requests = 1 + rng_below(&rng, 5),
		.grpid = rng_below(&rng, 16), .perm = rng_below(&rng, 4),
		.flags = rng_one_in(&rng, 6) ? IOMMU_TEST_IOPF_NO_LAST : 0,
	};
	bool last = !(batch.flags & IOMMU_TEST_IOPF_NO_LAST);
	unsigned int taken = 0;

	/* Where nobody handles faults, requests that wait for their last are not defined. */
	if (!last && (!hwpt || !hwpt->queue || dev->n_partials + batch.groups > MAX_PARTIALS))
		return;
	if (hwpt && hwpt->queue &&
	    hwpt->queue->n_queued + hwpt->queue->n_delivered > MAX_GROUPS - 8)
		return;
	for (i = 0; i < batch.groups; i++) {
		if (partial_length(dev, pasid, batch.grpid + i) + batch.requests > MAX_REQUESTS)
			return;
	}
	expect("inject", 0, iopf_batch(ctx->fd, &batch));
	for (i = 0; i < batch.groups; i++)
		taken += model_group(dev, pasid, batch.grpid + i,
				     batch.addr + (uint64_t)i * batch.requests * PAGE,
				     batch.requests, last, batch.perm);
	expect("requests accepted", taken, batch.out_accepted);
	if (hwpt && hwpt->queue)
		check_posted(ctx, hwpt->queue);
}

/* ---- reading ---- */

static long empty_read(const struct queue *queue)
{
	return queue->blocking && queue->nonblock ? -EAGAIN : 0;
}

/* Into @room messages at @bytes, of which @there bytes can be written. */
static void read_into(struct queue *queue, unsigned char *bytes, unsigned int room, size_t there)
{
	unsigned int groups, messages;
	size_t size = room * MSG;
	long wanted;

	memset(bytes, UNTOUCHED, there < size ? there : size);
	groups = model_fit(queue, room, &messages);
	if (!room) {
		wanted = 0;
	} else if (!queue->n_queued) {
		wanted = empty_read(queue);
	} else if (!groups) {
		wanted = -EINVAL;
	} else {
		if (messages * MSG > there)
			groups = model_fit(queue, there / MSG, &messages);
		wanted = groups ? (long)(messages * MSG) : -EFAULT;
	}
	expect("read", wanted, fault_read_bytes(queue->fd, bytes, size));
	if (wanted > 0)
		take_groups(queue, groups, bytes);
	if (there >= size)
		expect_untouched(bytes + (wanted > 0 ? wanted : 0), bytes + size);
}

static void read_vector(struct queue *queue, unsigned int room)
{
	size_t size = room * MSG, cut = rng_below(&rng, size + 1);
	struct iovec iov[2] = { { buffer + PAGE, cut }, { buffer, size - cut } };
	unsigned char bytes[MAX_ROOM * MSG];
	unsigned int groups, messages;
	ssize_t rc;

	if (size > PAGE)
		return;
	memset(buffer, UNTOUCHED, BUFFER);
	groups = model_fit(queue, room, &messages);
	rc = readv(queue->fd, iov, 2);
	expect("readv", !size ? 0 : !queue->n_queued ? empty_read(queue) :
			messages ? (long)(messages * MSG) : -EINVAL, rc < 0 ? -errno : rc);
	memcpy(bytes, iov[0].iov_base, cut);
	memcpy(bytes + cut, iov[1].iov_base, size - cut);
	if (size && groups)
		take_groups(queue, groups, bytes);
	expect_untouched(bytes + (size ? messages : 0) * MSG, bytes + size);
}

static void op_read(struct ctx *ctx)
{
	struct queue *queue = random_queue(ctx);
	unsigned int room = rng_below(&rng, MAX_ROOM + 1);
	size_t there;

	if (!queue || (queue->blocking && !queue->nonblock))
		return;
	switch (rng_below(&rng, 8)) {
	case 0:
		expect("read of an odd size", -ESPIPE,
		       fault_read_bytes(queue->fd, buffer, room * MSG + 1 +
						    rng_below(&rng, MSG - 1)));
		break;
	case 1:
		expect("pread", -ESPIPE, or_errno(pread(queue->fd, buffer, room * MSG, 8)));
		break;
	case 2:
		read_vector(queue, room);
		break;
	case 3 ... 4:
		there = rng_below(&rng, room * MSG + 1);
		read_into(queue, buffer + BUFFER - there, room, there);
		break;
	default:
		read_into(queue, buffer + BUFFER - room * MSG, room, room * MSG);
	}
}

/* ---- answering ---- */

/* A cookie of this queue, of another one, of another user, or of nothing */
static uint32_t random_cookie(struct queue *queue)
{
	struct queue *other = random_queue(random_ctx());

	if (queue->n_delivered && !rng_one_in(&rng, 8))
		return queue->delivered[rng_below(&rng, queue->n_delivered)].cookie;
	if (other && other->n_delivered && rng_one_in(&rng, 2))
		return other->delivered[rng_below(&rng, other->n_delivered)].cookie;
	return rng_one_in(&rng, 4) ? 0 : rng_one_in(&rng, 2) ? rng_below(&rng, 8192) :
							      (uint32_t)rng_next(&rng);
}

static struct iommu_hwpt_page_response random_answer(struct queue *queue)
{
	return (struct iommu_hwpt_page_response){
		.cookie = random_cookie(queue),
		.code = rng_one_in(&rng, 20) ? (uint32_t)rng_next(&rng) : rng_below(&rng, 3),
	};
}

/* How many of the answers at @from are taken, of the first @n */
static unsigned int model_answers(struct queue *queue, const unsigned char *from, unsigned int n)
{
	struct iommu_hwpt_page_response answer;
	unsigned int i;

	for (i = 0; i < n; i++) {
		memcpy(&answer, from + i * ANSWER, ANSWER);
		if (!model_answer(queue, &answer))
			break;
	}
	return i;
}

static void fill_answers(struct queue *queue, unsigned char *to, size_t bytes)
{
	struct iommu_hwpt_page_response answer;
	size_t n;

	for (; bytes; bytes -= n, to += n) {
		answer = random_answer(queue);
		n = bytes < ANSWER ? bytes : ANSWER;
		memcpy(to, &answer, n);
	}
}

static void write_from(struct queue *queue, unsigned int n, size_t there)
{
	unsigned char *from = buffer + BUFFER - there;
	unsigned int given, readable = there / ANSWER;
	long wanted;

	fill_answers(queue, from, there);
	given = model_answers(queue, from, readable < n ? readable : n);
	if (!n || given)
		wanted = (long)(given * ANSWER);
	else
		wanted = readable ? -EINVAL : -EFAULT;
	expect("write", wanted, fault_write_bytes(queue->fd, from, n * ANSWER));
}

static void op_write(struct ctx *ctx)
{
	struct queue *queue = random_queue(ctx);
	unsigned int n = rng_below(&rng, rng_one_in(&rng, 4) ? MAX_ANSWERS : 6);

	if (!queue)
		return;
	switch (rng_below(&rng, 8)) {
	case 0:
		expect("write of an odd size", -ESPIPE,
		       fault_write_bytes(queue->fd, buffer, n * ANSWER + 1 +
						     rng_below(&rng, ANSWER - 1)));
		break;
	case 1:
		expect("pwrite", -ESPIPE, or_errno(pwrite(queue->fd, buffer, n * ANSWER, 8)));
		break;
	case 2:
		write_from(queue, n, rng_below(&rng, n * ANSWER + 1));
		break;
	default:
		write_from(queue, n, n * ANSWER);
	}
}

/* ---- io_uring ---- */

static struct io_uring_sqe *prep(struct queue *queue, uint8_t op, const void *bytes, size_t size)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (!sqe)
		fail("no SQE");
	io_uring_prep_rw(op, sqe, queue->fd, bytes, (unsigned int)size, 0);
	io_uring_sqe_set_data(sqe, queue);
	return sqe;
}

static long complete(void)
{
	struct __kernel_timespec ts = { .tv_sec = 10 };
	struct io_uring_cqe *cqe;
	long res;

	io_uring_submit(&ring);
	if (io_uring_wait_cqe_timeout(&ring, &cqe, &ts))
		fail("a request does not end");
	res = cqe->res;
	io_uring_cqe_seen(&ring, cqe);
	return res;
}

/* Of any size: what does not hold a message is of no use. */
static void uring_read(struct queue *queue, unsigned char *bytes, unsigned int room)
{
	unsigned int groups, messages, rest = rng_below(&rng, 2) ? rng_below(&rng, MSG) : 0;

	if (queue->reading)
		return;
	memset(bytes, UNTOUCHED, MAX_ROOM * MSG);
	prep(queue, IORING_OP_READ, bytes, room * MSG + (room < MAX_ROOM ? rest : 0));
	queue->read_room = room;
	if (!queue->n_queued) {
		io_uring_submit(&ring);
		queue->reading = true;
		return;
	}
	groups = model_fit(queue, room, &messages);
	expect("posted read", groups ? (long)(messages * MSG) : -EINVAL, complete());
	take_groups(queue, groups, bytes);
	expect_untouched(bytes + messages * MSG, bytes + MAX_ROOM * MSG);
}

static void uring_write(struct queue *queue)
{
	unsigned int n = 1 + rng_below(&rng, 5), given;
	size_t there = n * ANSWER;
	unsigned char *from;

	if (rng_one_in(&rng, 6))
		there = rng_below(&rng, there);
	from = buffer + BUFFER - there;
	fill_answers(queue, from, there);
	given = model_answers(queue, from, there / ANSWER);
	prep(queue, IORING_OP_WRITE, from, n * ANSWER);
	expect("write by io_uring", given ? (long)(given * ANSWER) :
				    there >= ANSWER ? -EINVAL : -EFAULT, complete());
}

static void uring_bad(struct queue *queue)
{
	struct io_uring_sqe *sqe;

	switch (rng_below(&rng, 4)) {
	case 0:
		sqe = prep(queue, IORING_OP_URING_CMD, buffer, MSG);
		sqe->cmd_op = (uint32_t)rng_next(&rng);
		expect("a command", -EOPNOTSUPP, complete());
		break;
	case 1:
		prep(queue, IORING_OP_READ, buffer, 0);
		expect("read of nothing", 0, complete());
		break;
	case 2:
		prep(queue, IORING_OP_READ, buffer, 1 + rng_below(&rng, MSG - 1));
		expect("read of less than a message", -EINVAL, complete());
		break;
	default:
		prep(queue, IORING_OP_READ, buffer, MSG)->off = 1 + rng_below(&rng, 1000);
		expect("read at an offset", -ESPIPE, complete());
	}
}

static void op_uring(struct ctx *ctx)
{
	struct queue *queue = random_queue(ctx);
	unsigned int room = 1 + rng_below(&rng, MAX_ROOM);

	if (!queue)
		return;
	switch (rng_below(&rng, 5)) {
	case 0:
		uring_bad(queue);
		break;
	case 1 ... 2:
		uring_write(queue);
		break;
	default:
		uring_read(queue, read_buffers[ctx - ctxs][queue - ctx->queues], room);
	}
}

/* ---- answers and messages in one call ---- */

/* What the call gives back, beside its result */
static void serve(struct queue *queue, struct iommu_fault_serve *cmd, long wanted,
		  unsigned int given, unsigned int taken)
{
	expect("SERVE", wanted, iommufd_call(queue->fd, IOMMU_FAULT_SERVE, cmd));
	expect("answers given", given, cmd->response_num);
	expect("messages taken", taken, cmd->message_num);
}

/* What cannot be asked: nothing is done. */
static void serve_bad(struct queue *queue)
{
	struct {
		struct iommu_fault_serve cmd;
		uint64_t tail[2];
	} arg = { .cmd = {
		.size = sizeof(arg.cmd), .messages_uptr = (uintptr_t)buffer,
		.responses_uptr = (uintptr_t)buffer,
		.message_num = 1 + rng_below(&rng, MAX_ROOM), .response_num = 1,
	} };

	fill_answers(queue, buffer, ANSWER);
	switch (rng_below(&rng, 6)) {
	case 0:
		arg.cmd.flags = 1u << rng_below(&rng, 32);
		serve(queue, &arg.cmd, -EOPNOTSUPP, 0, 0);
		break;
	case 1:
		arg.cmd.messages_uptr += 1 + rng_below(&rng, 7);
		serve(queue, &arg.cmd, -EINVAL, 0, 0);
		break;
	case 2:
		arg.cmd.size = rng_below(&rng, sizeof(arg.cmd));
		expect("SERVE, short", -EINVAL,
		       iommufd_call(queue->fd, IOMMU_FAULT_SERVE, &arg));
		break;
	case 3:
		arg.cmd.size = sizeof(arg);
		arg.tail[rng_below(&rng, 2)] = 1;
		expect("SERVE, long", -E2BIG, iommufd_call(queue->fd, IOMMU_FAULT_SERVE, &arg));
		break;
	case 4:
		expect("SERVE from nowhere", -EFAULT,
		       iommufd_call(queue->fd, IOMMU_FAULT_SERVE, buffer + BUFFER));
		break;
	default:
		memcpy(buffer + BUFFER - 24, &arg.cmd, 24);
		expect("SERVE from half nowhere", -EFAULT,
		       iommufd_call(queue->fd, IOMMU_FAULT_SERVE, buffer + BUFFER - 24));
	}
}

/* A time to wait that is over, or that is not needed */
static uint64_t serve_timeout(const struct queue *queue, unsigned int room)
{
	if (rng_one_in(&rng, 2))
		return rng_one_in(&rng, 4) ? rng_below(&rng, 1000000) : 0;
	if (queue->n_queued || !room || queue->nonblock)
		return rng_one_in(&rng, 2) ? IOMMU_FAULT_SERVE_FOREVER : rng_next(&rng);
	return 0;
}

/* The messages: into @room, of which @there bytes can be written */
static void serve_messages(struct queue *queue, struct iommu_fault_serve *cmd,
			   unsigned char *bytes, unsigned int given, size_t there)
{
	unsigned int groups, messages, room = cmd->message_num;
	long wanted = 0;

	groups = model_fit(queue, room, &messages);
	if (!room) {
		groups = 0;
		messages = 0;
	} else if (!queue->n_queued) {
		wanted = cmd->timeout_ns && queue->nonblock ? -EAGAIN : 0;
	} else if (!groups) {
		wanted = -EMSGSIZE;
		messages = queue->queued[0].n;
	} else if (messages * MSG > there) {
		groups = model_fit(queue, there / MSG, &messages);
		wanted = groups ? 0 : -EFAULT;
	}
	serve(queue, cmd, wanted, given, messages);
	take_groups(queue, groups, bytes);
	if (there >= room * MSG)
		expect_untouched(bytes + (wanted ? 0 : messages * MSG), bytes + room * MSG);
}

static void op_serve(struct ctx *ctx)
{
	unsigned int n = rng_below(&rng, rng_one_in(&rng, 8) ? MAX_ANSWERS : 3), given, readable;
	unsigned int room = rng_below(&rng, rng_one_in(&rng, 2) ? MAX_ROOM + 1 : 4);
	size_t to = room * MSG, from = n * ANSWER;
	struct queue *queue = random_queue(ctx);
	struct iommu_fault_serve cmd;

	if (!queue)
		return;
	if (rng_one_in(&rng, 8)) {
		serve_bad(queue);
		return;
	}
	if (rng_one_in(&rng, 4))
		to = rng_below(&rng, (uint32_t)to + 1) & ~7ul;
	if (rng_one_in(&rng, 4))
		from = rng_below(&rng, (uint32_t)from + 1);
	memset(buffer + BUFFER - to, UNTOUCHED, to);
	fill_answers(queue, answers + PAGE - from, from);
	readable = from / ANSWER;
	given = model_answers(queue, answers + PAGE - from, readable);
	cmd = (struct iommu_fault_serve){
		.size = sizeof(cmd),
		.responses_uptr = (uintptr_t)(answers + PAGE - from), .response_num = n,
		.messages_uptr = (uintptr_t)(buffer + BUFFER - to), .message_num = room,
		.timeout_ns = serve_timeout(queue, room),
	};
	if (given < n)
		serve(queue, &cmd, given < readable ? -EINVAL : -EFAULT, given, 0);
	else
		serve_messages(queue, &cmd, buffer + BUFFER - to, given, to);
}

/* ---- the file ---- */

static void op_file(struct ctx *ctx)
{
	struct queue *queue = random_queue(ctx);
	int fd;

	if (!queue)
		return;
	switch (rng_below(&rng, 8)) {
	case 0:
		fd = dup(queue->fd);
		close(queue->fd);
		queue->fd = fd;
		break;
	case 1:
		if (queue->blocking)
			break;
		queue->nonblock = !queue->nonblock;
		expect("O_NONBLOCK", 0, fcntl(queue->fd, F_SETFL,
					      O_RDWR | (queue->nonblock ? O_NONBLOCK : 0)));
		break;
	case 2:
		expect("queued", queue->n_queued,
		       fdinfo_number(queue->fd, "iommufd-fault-queued"));
		expect("delivered", queue->n_delivered,
		       fdinfo_number(queue->fd, "iommufd-fault-delivered"));
		break;
	case 3:
		expect("ioctl", -ENOTTY, iommufd_call(queue->fd, IOMMU_DESTROY, buffer));
		break;
	case 4:
		expect("mmap", -ENODEV,
		       or_errno((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, queue->fd, 0)));
		break;
	default:
		expect("poll", POLLOUT | (queue->n_queued ? POLLIN : 0),
		       fault_poll(queue->fd, 0));
	}
}

/* The file goes, and with it all that it held. */
static void op_close(struct ctx *ctx)
{
	struct queue *queue = random_queue(ctx);
	int i;

	if (!queue || queue->reading || !rng_one_in(&rng, 20))
		return;
	close(queue->fd);
	queue->fd = -1;
	model_drain(queue, NULL, 0, IOMMUFD_PAGE_RESP_INVALID);
	for (i = 0; i < DEVS; i++)
		check_dev(ctx, &ctx->devs[i]);
}

/* ---- running ---- */

static void ctx_open(struct ctx *ctx)
{
	struct mock_device mock = {};
	int i;

	ctx->fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (ctx->fd < 0)
		ksft_exit_skip("no /dev/iommu\n");
	if (iopf_stats_reset(ctx->fd, 0))
		ksft_exit_skip("no page request injector\n");
	expect("IOAS_ALLOC", 0, ioas_alloc(ctx->fd, &ctx->ioas_id));
	add_object(ctx, ctx->ioas_id, IOAS);
	/* The first device is there for the HWPT that the others begin with. */
	expect("create a device", 0, mock_device_create(ctx->fd, ctx->ioas_id,
							MOCK_FLAGS_DEVICE_PASID, &mock));
	ctx->plain = &ctx->hwpts[0];
	expect("HWPT_ALLOC", 0, hwpt_alloc_paging(ctx->fd, mock.idev_id, ctx->ioas_id,
						  IOMMU_HWPT_ALLOC_PASID, 0, &ctx->plain->id));
	ctx->plain->pasid_compat = true;
	add_object(ctx, ctx->plain->id, HWPT);
	expect("DESTROY", 0, iommufd_destroy(ctx->fd, mock.stdev_id));
	for (i = 0; i < DEVS; i++)
		make_device(ctx, &ctx->devs[i], i != 2);
	expect("open a driver", 0, driver_open(ctx->fd, 0, &ctx->emulated_id, &ctx->driver));
	add_object(ctx, ctx->emulated_id, EMULATED);
	for (i = 0; i < QUEUES; i++)
		ctx->queues[i].fd = -1;
}

/* Nothing is left that cannot be destroyed in order. */
static void ctx_close(struct ctx *ctx)
{
	int i;

	close(ctx->driver);
	for (i = 0; i < DEVS; i++) {
		drop_device(ctx, &ctx->devs[i]);
		expect("destroy a device", 0, iommufd_destroy(ctx->fd, ctx->devs[i].stdev_id));
	}
	for (i = 0; i < HWPTS; i++) {
		if (ctx->hwpts[i].id)
			expect("destroy a HWPT", 0, iommufd_destroy(ctx->fd, ctx->hwpts[i].id));
	}
	for (i = 0; i < QUEUES; i++) {
		if (!ctx->queues[i].id)
			continue;
		expect("queued at the end", 0, ctx->queues[i].n_queued);
		expect("delivered at the end", 0, ctx->queues[i].n_delivered);
		if (ctx->queues[i].fd >= 0)
			close(ctx->queues[i].fd);
		expect("destroy a queue", 0, iommufd_destroy(ctx->fd, ctx->queues[i].id));
	}
	expect("destroy the IOAS", 0, iommufd_destroy(ctx->fd, ctx->ioas_id));
	for (i = 1; i < MAX_ID; i++)
		expect("destroy nothing", -ENOENT, iommufd_destroy(ctx->fd, i));
	close(ctx->fd);
}

static const struct {
	const char *name;
	void (*run)(struct ctx *ctx);
	uint32_t weight;
} operations[] = {
	{ "inject", op_inject, 20 },	{ "read", op_read, 16 },
	{ "write", op_write, 20 },	{ "io_uring", op_uring, 12 },
	{ "serve", op_serve, 16 },
	{ "file", op_file, 6 },		{ "close", op_close, 3 },
	{ "queue", op_queue, 4 },	{ "ioctl", op_ioctl, 2 },
	{ "HWPT", op_hwpt, 5 },		{ "attach", op_attach, 6 },
	{ "detach", op_detach, 2 },	{ "destroy", op_destroy, 6 },
	{ "bind", op_bind, 3 },		{ "check", op_check, 8 },
};

static void run_one(void)
{
	uint32_t at = 0, i, total = 0;

	for (i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		total += operations[i].weight;
	at = rng_below(&rng, total);
	for (i = 0; at >= operations[i].weight; i++)
		at -= operations[i].weight;
	operation_name = operations[i].name;
	operations[i].run(random_ctx());
}

/* @size bytes, and behind them nothing */
static unsigned char *fenced(size_t size)
{
	unsigned char *bytes = mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (bytes == MAP_FAILED || mprotect(bytes + size, PAGE, PROT_NONE))
		ksft_exit_fail_msg("no memory\n");
	return bytes;
}

static void make_buffers(void)
{
	int i, j;

	buffer = fenced(BUFFER);
	answers = fenced(PAGE);
	for (i = 0; i < CTXS; i++) {
		for (j = 0; j < QUEUES; j++)
			read_buffers[i][j] = aligned_alloc(64, MAX_ROOM * MSG);
	}
}

static void print_results(void)
{
	int i;

	ksft_print_msg("%llu operations, %llu faults\n", (unsigned long long)operation,
		       (unsigned long long)faults);
	for (i = 0; i < 128; i++) {
		if (results[i])
			ksft_print_msg("%10llu %s\n", (unsigned long long)results[i],
				       i ? strerror(i) : "no error");
	}
}

int main(int argc, char **argv)
{
	uint64_t end;
	int i;

	stress_begin(&opt, argc, argv);
	/* Whether there is memory yet is nothing that the model knows. */
	reserve_until_exit(8448);
	ksft_set_plan(1);
	rng = rng_of(opt.seed, 0);
	make_buffers();
	if (io_uring_queue_init(32, &ring, 0))
		ksft_exit_skip("no io_uring\n");
	for (i = 0; i < CTXS; i++)
		ctx_open(&ctxs[i]);
	end = clock_ms() + opt.seconds * 1000;
	while (operation < opt.count && clock_ms() < end) {
		operation++;
		run_one();
	}
	operation_name = "the end";
	/* A posted read that waits holds the file. */
	io_uring_queue_exit(&ring);
	usleep(200000);
	for (i = 0; i < CTXS; i++)
		ctx_close(&ctxs[i]);
	print_results();
	ksft_test_result_pass("every result is the model's\n");
	ksft_finished();
}
