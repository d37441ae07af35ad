// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer's operations on objects: queues, HWPTs and devices come, are attached,
 * detached and bound, and go.
 */
#include "iommufd_fault_fuzz.h"

unsigned char *buffer;

/* ---- objects ---- */

/* Fields that came later: what the kernel says to them, and those it takes */
static long random_limits(struct iommu_fault_alloc *cmd)
{
	switch (rng_below(&rng, 6)) {
	case 0:
		cmd->depth = 65537 + rng_below(&rng, 1u << 31);
		return -EINVAL;
	case 1:
		cmd->deadline_ms = 3600001 + rng_below(&rng, 1u << 31);
		return -EINVAL;
	case 2:
		cmd->deadline_code = 1 + rng_below(&rng, 1u << 31);
		return -EINVAL;
	case 3:
		cmd->__reserved = 1u << rng_below(&rng, 32);
		return -EOPNOTSUPP;
	default:
		/* More than the model uses, later than the run ends */
		cmd->depth = 2 * MAX_GROUPS + rng_below(&rng, 65536 - 2 * MAX_GROUPS);
		cmd->deadline_ms = 3600000;
		cmd->deadline_code = rng_below(&rng, 3);
		return 0;
	}
}

void op_queue(struct ctx *ctx)
{
	struct {
		struct iommu_fault_alloc cmd;
		uint32_t tail[2];
	} arg = { .cmd = { .size = sizeof(arg.cmd) } };
	struct queue *queue = &ctx->queues[rng_below(&rng, QUEUES)];
	long wanted = 0;

	switch (rng_below(&rng, 7)) {
	case 0:
		arg.cmd.flags = 1u << (8 + rng_below(&rng, 24));
		wanted = -EOPNOTSUPP;
		break;
	case 1:
		arg.cmd.size = rng_below(&rng, 16);
		wanted = -EINVAL;
		break;
	case 2:
		arg.cmd.size = sizeof(arg);
		arg.tail[rng_below(&rng, 2)] = 1;
		wanted = -E2BIG;
		break;
	case 3:
		arg.cmd.size = sizeof(arg);
		break;
	case 4:
		wanted = random_limits(&arg.cmd);
		break;
	default:
		break;
	}
	if (!wanted && queue->id)
		return;
	if (!wanted && rng_one_in(&rng, 2))
		arg.cmd.flags = IOMMU_FAULT_ALLOC_BLOCKING;
	expect("FAULT_QUEUE_ALLOC", wanted,
	       iommufd_call(ctx->fd, IOMMU_FAULT_QUEUE_ALLOC, &arg));
	if (wanted)
		return;
	add_object(ctx, arg.cmd.out_fault_id, QUEUE);
	*queue = (struct queue){
		.id = arg.cmd.out_fault_id, .fd = (int)arg.cmd.out_fault_fd,
		.blocking = arg.cmd.flags, .nonblock = arg.cmd.flags,
	};
	if (queue->blocking)
		fcntl(queue->fd, F_SETFL, O_RDWR | O_NONBLOCK);
}

/* The argument cannot be read, or the result cannot be written: nothing is left. */
static void op_queue_efault(struct ctx *ctx)
{
	struct iommu_fault_alloc *cmd = (void *)(buffer + BUFFER - sizeof(*cmd));
	int before = open("/dev/null", O_RDONLY), after;

	close(before);
	*cmd = (struct iommu_fault_alloc){ .size = sizeof(*cmd) };
	mprotect(buffer + PAGE, PAGE, PROT_READ);
	expect("FAULT_QUEUE_ALLOC into read-only memory", -EFAULT,
	       iommufd_call(ctx->fd, IOMMU_FAULT_QUEUE_ALLOC, cmd));
	mprotect(buffer + PAGE, PAGE, PROT_READ | PROT_WRITE);
	expect("FAULT_QUEUE_ALLOC from nowhere", -EFAULT,
	       iommufd_call(ctx->fd, IOMMU_FAULT_QUEUE_ALLOC, buffer + BUFFER));
	expect("FAULT_QUEUE_ALLOC from half nowhere", -EFAULT,
	       iommufd_call(ctx->fd, IOMMU_FAULT_QUEUE_ALLOC, memcpy(buffer + BUFFER - 8, cmd, 8)));
	after = open("/dev/null", O_RDONLY);
	close(after);
	expect("the next file descriptor", before, after);
}

void op_ioctl(struct ctx *ctx)
{
	struct iommu_hwpt_alloc cmd = { .size = sizeof(cmd) };

	switch (rng_below(&rng, 4)) {
	case 0:
		expect("an unknown ioctl", -ENOTTY,
		       iommufd_call(ctx->fd, _IO(';', 0xf0 + rng_below(&rng, 16)), &cmd));
		break;
	case 1:
		cmd.__reserved = 1;
		expect("HWPT_ALLOC, reserved", -EOPNOTSUPP,
		       iommufd_call(ctx->fd, IOMMU_HWPT_ALLOC, &cmd));
		break;
	case 2:
		cmd.data_len = 1;
		expect("HWPT_ALLOC, data", -EINVAL, iommufd_call(ctx->fd, IOMMU_HWPT_ALLOC, &cmd));
		break;
	default:
		op_queue_efault(ctx);
	}
}

static long model_hwpt(const struct ctx *ctx, uint32_t dev_id, uint32_t pt_id, uint32_t flags,
		       uint32_t fault_id)
{
	const uint32_t faulting_parent = IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_NEST_PARENT;
	int i;

	if (type_of(ctx, dev_id) != DEVICE)
		return -ENOENT;
	if (type_of(ctx, pt_id) != IOAS)
		return -EINVAL;
	if (flags & ~0xfu || (flags & faulting_parent) == faulting_parent)
		return -EOPNOTSUPP;
	for (i = 0; i < DEVS; i++) {
		if (ctx->devs[i].idev_id == dev_id && flags & IOMMU_HWPT_ALLOC_PASID &&
		    !ctx->devs[i].pasid_hwpts)
			return -EOPNOTSUPP;
	}
	if (flags & IOMMU_HWPT_FAULT_ID_VALID && type_of(ctx, fault_id) != QUEUE)
		return -ENOENT;
	return 0;
}

void op_hwpt(struct ctx *ctx)
{
	struct hwpt *hwpt = &ctx->hwpts[rng_below(&rng, HWPTS)];
	uint32_t queue_id = ctx->queues[rng_below(&rng, QUEUES)].id;
	uint32_t dev_id = rng_one_in(&rng, 10) ? any_id() : random_dev(ctx)->idev_id;
	uint32_t pt_id = rng_one_in(&rng, 10) ? any_id() : ctx->ioas_id;
	uint32_t fault_id = rng_one_in(&rng, 10) ? any_id() : queue_id;
	uint32_t flags = IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_FAULT_ID_VALID, id = 0;
	long wanted;

	if (rng_one_in(&rng, 3))
		flags = rng_below(&rng, 32);
	/* A HWPT as the parent would need the data of a nested one. */
	if (type_of(ctx, pt_id) == HWPT)
		return;
	wanted = model_hwpt(ctx, dev_id, pt_id, flags, fault_id);
	if (!wanted && hwpt->id)
		return;
	expect("HWPT_ALLOC", wanted,
	       hwpt_alloc_paging(ctx->fd, dev_id, pt_id, flags, fault_id, &id));
	if (wanted)
		return;
	add_object(ctx, id, HWPT);
	*hwpt = (struct hwpt){
		.id = id, .pasid_compat = flags & IOMMU_HWPT_ALLOC_PASID,
		.queue = flags & IOMMU_HWPT_FAULT_ID_VALID ? find_queue(ctx, fault_id) : NULL,
	};
	if (hwpt->queue)
		hwpt->queue->users++;
}

static long model_bind(struct ctx *ctx, uint32_t dev_id, uint32_t fault_id, uint32_t flags)
{
	if (flags)
		return -EOPNOTSUPP;
	if (type_of(ctx, dev_id) != EMULATED || (fault_id && type_of(ctx, fault_id) != QUEUE))
		return -ENOENT;
	if (ctx->bound)
		ctx->bound->users--;
	ctx->bound = fault_id ? find_queue(ctx, fault_id) : NULL;
	if (ctx->bound)
		ctx->bound->users++;
	return 0;
}

void op_bind(struct ctx *ctx)
{
	struct iommu_fault_bind cmd = {
		.size = sizeof(cmd), .flags = rng_one_in(&rng, 8) ? 1u << rng_below(&rng, 32) : 0,
		.dev_id = rng_one_in(&rng, 4) ? any_id() : ctx->emulated_id,
		.fault_id = ctx->queues[rng_below(&rng, QUEUES)].id,
	};

	if (rng_one_in(&rng, 3))
		cmd.fault_id = rng_one_in(&rng, 2) ? any_id() : 0;
	expect("FAULT_BIND", model_bind(ctx, cmd.dev_id, cmd.fault_id, cmd.flags),
	       iommufd_call(ctx->fd, IOMMU_FAULT_BIND, &cmd));
}

/* ---- devices ---- */

static bool has_pasid_attached(const struct dev *dev)
{
	int i;

	for (i = 1; i < PASIDS; i++) {
		if (dev->attached[i])
			return true;
	}
	return false;
}

static bool model_compatible(const struct dev *dev, uint32_t pasid, const struct hwpt *hwpt)
{
	if (!pasid)
		return hwpt->pasid_compat || !has_pasid_attached(dev);
	if (!dev->has_pasids || !hwpt->pasid_compat)
		return false;
	return dev->attached[0]->pasid_compat;
}

/* What an id that is to be attached is good for: 0, or an errno */
static long model_pt(const struct ctx *ctx, uint32_t pt_id)
{
	switch (type_of(ctx, pt_id)) {
	case NONE:
		return -ENOENT;
	case HWPT:
		return 0;
	default:
		return -EINVAL;
	}
}

static long model_replace(struct ctx *ctx, struct dev *dev, uint32_t pasid, uint32_t pt_id)
{
	struct hwpt *hwpt = find_hwpt(ctx, pt_id);
	long wanted = model_pt(ctx, pt_id);

	if (wanted)
		return wanted;
	if (!dev->attached[pasid])
		return -EINVAL;
	if (dev->attached[pasid] == hwpt)
		return 0;
	if (!model_compatible(dev, pasid, hwpt))
		return -EINVAL;
	model_attach(dev, pasid, hwpt);
	return 0;
}

static long model_attach_pasid(struct ctx *ctx, struct dev *dev, uint32_t pasid, uint32_t pt_id)
{
	struct hwpt *hwpt = find_hwpt(ctx, pt_id);
	long wanted = model_pt(ctx, pt_id);

	if (wanted)
		return wanted;
	if (dev->attached[pasid])
		return -EBUSY;
	if (!model_compatible(dev, pasid, hwpt))
		return -EINVAL;
	model_attach(dev, pasid, hwpt);
	return 0;
}

void op_attach(struct ctx *ctx)
{
	uint32_t pasid = rng_below(&rng, PASIDS), pt_id = random_hwpt(ctx)->id;
	struct dev *dev = random_dev(ctx);

	if (rng_one_in(&rng, 8))
		pt_id = any_id();
	/* The kernel would make a HWPT of its own for this one. */
	if (type_of(ctx, pt_id) == IOAS)
		return;
	/* A replaced RID may or may not take the PASIDs' partial groups along. */
	if (!pasid && dev->n_partials)
		return;
	if (!pasid)
		expect("replace", model_replace(ctx, dev, 0, pt_id),
		       mock_replace(ctx->fd, dev->stdev_id, pt_id));
	else if (rng_one_in(&rng, 3))
		expect("replace a PASID", model_replace(ctx, dev, pasid, pt_id),
		       mock_pasid_replace(ctx->fd, dev->stdev_id, pasid, pt_id));
	else
		expect("attach a PASID", model_attach_pasid(ctx, dev, pasid, pt_id),
		       mock_pasid_attach(ctx->fd, dev->stdev_id, pasid, pt_id));
}

void op_detach(struct ctx *ctx)
{
	uint32_t pasid = 1 + rng_below(&rng, PASIDS - 1);
	struct dev *dev = random_dev(ctx);

	model_detach(dev, pasid);
	expect("detach a PASID", 0, mock_pasid_detach(ctx->fd, dev->stdev_id, pasid));
}

void make_device(struct ctx *ctx, struct dev *dev, bool has_pasids)
{
	struct mock_device mock = {};
	uint32_t id = 0;

	expect("create a device", 0,
	       mock_device_create(ctx->fd, ctx->plain->id,
				  has_pasids ? MOCK_FLAGS_DEVICE_PASID : 0, &mock));
	*dev = (struct dev){
		.stdev_id = mock.stdev_id, .idev_id = mock.idev_id, .has_pasids = has_pasids,
	};
	add_object(ctx, dev->stdev_id, MOCK);
	add_object(ctx, dev->idev_id, DEVICE);
	model_attach(dev, 0, ctx->plain);

	dev->pasid_hwpts = !hwpt_alloc_paging(ctx->fd, dev->idev_id, ctx->ioas_id,
					      IOMMU_HWPT_ALLOC_PASID, 0, &id);
	if (dev->pasid_hwpts)
		expect("destroy a HWPT for PASIDs", 0, iommufd_destroy(ctx->fd, id));
}

void drop_device(struct ctx *ctx, struct dev *dev)
{
	int i;

	for (i = 0; i < PASIDS; i++)
		model_detach(dev, i);
	ctx->types[dev->stdev_id] = NONE;
	ctx->types[dev->idev_id] = NONE;
	dev->n_partials = 0;
}

/* What IOMMU_DESTROY says to an id; the model's object goes with it. */
static long model_destroy(struct ctx *ctx, uint32_t id)
{
	struct hwpt *hwpt = find_hwpt(ctx, id);
	struct queue *queue = find_queue(ctx, id);

	switch (type_of(ctx, id)) {
	case NONE:
		return -ENOENT;
	case HWPT:
		if (hwpt->users || hwpt == ctx->plain)
			return -EBUSY;
		if (hwpt->queue)
			hwpt->queue->users--;
		hwpt->id = 0;
		break;
	case QUEUE:
		if (queue->users || queue->fd >= 0)
			return -EBUSY;
		queue->id = 0;
		break;
	default:
		return -EBUSY;
	}
	ctx->types[id] = NONE;
	return 0;
}

static bool is_plain_idle(const struct ctx *ctx, uint32_t id)
{
	return id == ctx->plain->id && !ctx->plain->users;
}

void op_destroy(struct ctx *ctx)
{
	struct dev *dev = random_dev(ctx);
	uint32_t id = any_id();

	/* A device goes and comes back. */
	if (rng_one_in(&rng, 20)) {
		drop_device(ctx, dev);
		expect("destroy a device", 0, iommufd_destroy(ctx->fd, dev->stdev_id));
		make_device(ctx, dev, dev != &ctx->devs[2]);
		return;
	}
	if (type_of(ctx, id) == MOCK || is_plain_idle(ctx, id))
		return;
	expect("DESTROY", model_destroy(ctx, id), iommufd_destroy(ctx->fd, id));
}
