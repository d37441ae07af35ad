// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Memory for a device, page by page as it asks:  demand BDF
 *
 *	cc demand.c $(pkg-config --cflags --libs libiopf) -o demand
 *
 * BDF is an emulated pri-testdev (tools/testing/qemu).  For another device write its
 * ids, fill[] and is_running() anew, and nothing else.
 */
#include <errno.h>
#include <iopf.h>
#include <stdio.h>

#define PASID 1
#define IOVA 0x40000000u
#define PAGE 4096u
#define PATTERN 0x5a5a5a5au
#define LAST (sizeof(memory) / sizeof(memory[0]) - 1)
#define ACCESS (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)

static uint32_t memory[1 << 18] __attribute__((aligned(PAGE)));
static struct iopf io;

/* Registers and values: reset it, let it fill the memory by DMA under the PASID. */
static const uint32_t fill[][2] = {
	{ 0x60, 9 }, { 0x10, PASID }, { 0x14, 0x220 }, { 0x28, PATTERN }, { 0x2c, PATTERN },
	{ 0x38, IOVA }, { 0x40, sizeof(memory) }, { 0x48, 4 }, { 0x4c, 8 }, { 0x60, 6 },
};

static bool is_running(const volatile uint32_t *registers)
{
	return registers[0x84 / 4] == 1 || registers[0xc0 / 4];
}

/*
 * Map the pages that a group asks for; a page may be asked for twice.  INVALID ends the
 * access that asked; FAILURE would end all page requests of the device.
 */
static uint32_t serve(void *ioas, const struct iopf_group *group)
{
	for (unsigned int i = 0; i < group->n; i++) {
		uint64_t addr = group->requests[i].addr, offset = addr - IOVA;

		if (offset >= sizeof(memory))
			return IOMMUFD_PAGE_RESP_INVALID;
		int rc = iopf_map(&io, *(uint32_t *)ioas, addr, (char *)memory + offset, PAGE,
				  ACCESS);

		if (rc && rc != -EEXIST)
			return IOMMUFD_PAGE_RESP_INVALID;
	}
	return IOMMUFD_PAGE_RESP_SUCCESS;
}

int main(int argc, char **argv)
{
	struct iopf_device dev = { .fd = -1 };
	struct iopf_queue queue;
	struct iopf_ring ring;
	struct iopf_bar bar;
	uint32_t ioas, hwpts[2];
	int rc = -1;

	if (argc == 2 && !iopf_open(&io) && !iopf_pci_expect(&io, argv[1], 0x1234, 0x9171) &&
	    !iopf_queue_alloc(&io, 0, &queue) && !iopf_ring_init(&ring, &queue, 1, 256) &&
	    !iopf_ioas_alloc(&io, &ioas) && !iopf_device_open(&io, argv[1], &dev) &&
	    iopf_device_watch(&dev) >= 0 &&
	    !iopf_device_attach_queue(&dev, ioas, PASID, &queue, hwpts) &&
	    !iopf_device_map_bar(&dev, 0, &bar) && !iopf_device_bus_master(&dev, true)) {
		for (size_t i = 0; i < sizeof(fill) / sizeof(fill[0]); i++)
			((volatile uint32_t *)bar.base)[fill[i][0] / 4] = fill[i][1];
		do
			rc = iopf_ring_serve(&ring, 10, serve, &ioas);
		while ((rc > 0 || (!rc && is_running(bar.base))) && !iopf_device_is_leaving(&dev));
		iopf_ring_exit(&ring);
	}
	if (rc < 0)
		fprintf(stderr, "demand: %s\n", argc == 2 ? iopf_error(&io) : "usage: demand BDF");
	else
		printf("first %#x, last %#x\n", memory[0], memory[LAST]);
	iopf_device_close(&dev);	/* detaches; the driver of before gets it again */
	return rc < 0 || memory[0] != PATTERN || memory[LAST] != PATTERN;
}
