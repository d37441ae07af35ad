// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Memory for a device without a server and without a pin:  ondemand BDF
 *
 *	cc ondemand.c $(pkg-config --cflags --libs libiopf) -o ondemand
 *
 * The kernel maps each page when the device asks for it, and takes it out when this
 * process loses it.  BDF is an emulated pri-testdev, as for demand.c.
 */
#include <errno.h>
#include <iopf.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define PASID 1
#define IOVA 0x40000000u
#define PATTERN 0x5a5a5a5au
#define LAST (sizeof(memory) / sizeof(memory[0]) - 1)
#define ACCESS (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)

static uint32_t memory[1 << 18] __attribute__((aligned(4096)));

/* Registers and values: reset it, let it fill the memory by DMA under the PASID. */
static const uint32_t fill[][2] = {
	{ 0x60, 9 }, { 0x10, PASID }, { 0x14, 0x220 }, { 0x28, PATTERN }, { 0x2c, PATTERN },
	{ 0x38, IOVA }, { 0x40, sizeof(memory) }, { 0x48, 4 }, { 0x4c, 8 }, { 0x60, 6 },
};

static bool is_running(const volatile uint32_t *registers)
{
	return registers[0x84 / 4] == 1 || registers[0xc0 / 4];
}

static bool fill_memory(volatile uint32_t *registers)
{
	for (size_t i = 0; i < sizeof(fill) / sizeof(fill[0]); i++)
		registers[fill[i][0] / 4] = fill[i][1];
	while (is_running(registers))
		usleep(1000);
	return memory[0] == PATTERN && memory[LAST] == PATTERN;
}

int main(int argc, char **argv)
{
	struct iopf_device dev = { .fd = -1 };
	bool filled = false, again = false;
	struct iopf_bar bar;
	uint32_t ioas, hwpt;
	struct iopf io;

	if (argc != 2 || iopf_open(&io) || iopf_pci_expect(&io, argv[1], 0x1234, 0x9171) ||
	    iopf_ioas_alloc(&io, &ioas) || iopf_device_open(&io, argv[1], &dev) ||
	    iopf_hwpt_alloc(&io, dev.id, ioas, IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_ALLOC_ON_FAULT,
			    0, &hwpt) ||
	    iopf_device_attach(&dev, hwpt) || iopf_device_attach_pasid(&dev, PASID, hwpt) ||
	    iopf_map(&io, ioas, IOVA, memory, sizeof(memory), ACCESS | IOMMU_IOAS_MAP_ON_FAULT) ||
	    iopf_device_map_bar(&dev, 0, &bar) || iopf_device_bus_master(&dev, true)) {
		fprintf(stderr, "ondemand: %s\n",
			argc == 2 ? iopf_error(&io) : "usage: ondemand BDF");
	} else {
		filled = fill_memory(bar.base);
		/* The memory goes, from the device too; the next access makes it anew. */
		madvise(memory, sizeof(memory), MADV_DONTNEED);
		again = !memory[0] && fill_memory(bar.base);
		printf("filled %s\n", again ? "twice" : filled ? "once" : "never");
	}
	iopf_device_close(&dev);	/* detaches; the driver of before gets it again */
	return !again;
}
