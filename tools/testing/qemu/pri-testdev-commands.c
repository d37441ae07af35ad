// SPDX-License-Identifier: GPL-2.0-only
/*
 * pri-testdev: its registers, and the commands that are written to them
 */
#include "pri-testdev-device.h"

static int single_request(struct device *s, uint32_t pasid)
{
	if (R(s, PTD_GRPID) >= PTD_GROUP_IDS)
		return -EINVAL;
	return request_page(s, pasid, get64(s, PTD_IOVA), R(s, PTD_FLAGS), R(s, PTD_GRPID));
}

static int burst(struct device *s, uint32_t pasid)
{
	uint32_t flags = R(s, PTD_FLAGS) & ~PTD_F_LAST, group = R(s, PTD_GROUP), i, taken = 0;
	uint32_t count = R(s, PTD_COUNT), id = R(s, PTD_GRPID);
	uint64_t iova = get64(s, PTD_IOVA), stride = get64(s, PTD_STRIDE);

	if (!count || count > PTD_BURST_MAX || !group || group > PTD_CREDITS_MAX ||
	    id >= PTD_GROUP_IDS)
		return -EINVAL;
	if (!(flags & PTD_F_NO_CREDIT) && count > free_credits(s))
		return -EBUSY;
	for (i = 0; i < count; i++, iova += stride) {
		bool last = i % group == group - 1 || i == count - 1;
		uint16_t now = (id + i / group) % PTD_GROUP_IDS;
		struct listener *l;
		int rc;

		rc = request_page(s, pasid, iova,
				  flags | (last && !(flags & PTD_F_NO_LAST) ? PTD_F_LAST : 0), now);
		/* go on past a full queue, as a device that ignores credits would */
		if (rc && rc != -ENOSPC) {
			/* The PASID left amid the burst: this group gets no LAST. */
			l = find_listener(s, pasid);
			if (l)
				forget_group(l, now);
			return rc;
		}
		taken += !rc;
	}
	return taken;
}

static int ats(struct device *s, uint32_t pasid)
{
	uint64_t addr;
	int rc;

	rc = translate(s, pasid, R(s, PTD_FLAGS), get64(s, PTD_IOVA), &addr, &R(s, PTD_ATS_PERM));
	set64(s, PTD_ATS_ADDR, addr);
	return rc > 0 ? 0 : rc ? rc : -EFAULT;
}

static int single_access(struct device *s, uint32_t pasid, bool write)
{
	uint64_t iova = get64(s, PTD_IOVA), addr, data = get64(s, PTD_DATA);
	uint32_t perm;
	int rc;

	if (iova % 8)
		return -EINVAL;
	rc = translate(s, pasid, write ? PTD_F_WRITE : PTD_F_READ, iova, &addr, &perm);
	if (rc <= 0)
		return rc ? rc : -EFAULT;
	rc = access_memory(addr, &data, sizeof(data), write);
	if (!rc)
		set64(s, PTD_DATA, data);
	return rc;
}

static void clear_counters(struct device *s)
{
	memset(&R(s, PTD_N_REQUESTS), 0, PTD_REGISTERS_END - PTD_N_REQUESTS);
	set64(s, PTD_LOWEST, UINT64_MAX);
}

void reset(struct device *s)
{
	struct engine *e = &s->engine;

	forget_requests(s);
	memset(s->regs, 0, sizeof(s->regs));
	memset(e->flight, 0, sizeof(e->flight));
	e->flights = 0;
	R(s, PTD_MAGIC) = PTD_MAGIC_VALUE;
	R(s, PTD_VERSION) = PTD_VERSION_VALUE;
	R(s, PTD_GROUP) = 1;
	R(s, PTD_DEPTH) = 1;
	set64(s, PTD_STRIDE, PAGE);
	clear_counters(s);
}

/* QEMU looks for PRI and PASID in the function that asks: there they are as the owner's. */
static void borrow_capabilities(struct device *vf)
{
	PCIDevice *pf = vf->pf->pci;

	pci_default_write_config(vf->pci, CONFIG_PRI + 4,
				 pci_default_read_config(pf, CONFIG_PRI + 4, 2), 2);
	pci_default_write_config(vf->pci, CONFIG_PASID + 6,
				 pci_default_read_config(pf, CONFIG_PASID + 6, 2), 2);
}

static int command(struct device *s, uint32_t cmd)
{
	uint32_t pasid = R(s, PTD_FLAGS) & PTD_F_PASID ? R(s, PTD_PASID) : NO_PASID;

	if (s->pf)
		borrow_capabilities(s);
	if (pasid != NO_PASID && pasid >> 20)
		return -EINVAL;
	switch (cmd) {
	case PTD_CMD_PRI:
		return single_request(s, pasid);
	case PTD_CMD_ATS:
		return ats(s, pasid);
	case PTD_CMD_DMA_READ:
	case PTD_CMD_DMA_WRITE:
		return single_access(s, pasid, cmd == PTD_CMD_DMA_WRITE);
	case PTD_CMD_BURST:
		return burst(s, pasid);
	case PTD_CMD_START:
		return start_engine(s, pasid);
	case PTD_CMD_ABORT:
		if (running(s))
			set_state(s, PTD_STATE_STOPPED_ERROR, PTD_STAGE_ABORT, -ECANCELED, 0);
		return 0;
	case PTD_CMD_CLEAR:
		if (running(s) || R(s, PTD_OPEN_GROUPS))
			return -EBUSY;
		clear_counters(s);
		return 0;
	case PTD_CMD_RESET:
		reset(s);
		return 0;
	}
	return -EINVAL;
}

static uint64_t mmio_read(void *opaque, hwaddr addr, unsigned int size)
{
	struct device *s = opaque;

	(void)size;
	if (addr == PTD_CREDITS)
		return credits(s);
	return addr < PTD_REGISTERS_END ? R(s, addr) : 0;
}

static void mmio_write(void *opaque, hwaddr addr, uint64_t value, unsigned int size)
{
	struct device *s = opaque;
	int rc;

	(void)size;
	if (addr >= PTD_IOVA && addr < PTD_COMMAND) {
		R(s, addr) = value;
	} else if (addr == PTD_COMMAND) {
		rc = command(s, value);
		R(s, PTD_RESULT) = rc;
		say(s, "command %u -> %d", (uint32_t)value, rc);
	}
}

const struct mmio_ops mmio_ops = {
	.read = mmio_read, .write = mmio_write, .endianness = DEVICE_LITTLE_ENDIAN,
	.valid = { .min = 4, .max = 8 }, .impl = { .min = 4, .max = 4 },
};
