// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults from the emulated PRI device, from end to end: the doorbell, the page
 * request queue's interrupt and thread, the queue's file, and the response
 * that the device gets.  Nothing is mapped, as the device is not to go on.
 *
 * Or each request is for the first page of 16 that are in memory, and all 16 are mapped
 * before it is answered: a device that asked for the next page would find it mapped. The
 * kernel does that, and nobody serves; or the server, by one call for the 16. The 16 lie
 * together in physical memory, as most of a guest's do, or all of them apart.
 *
 * Or the faults are a guest's: of a first stage, which stays empty, in memory that the
 * second stage maps.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "../pri.h"

#define PASID 5
#define FIRST_IOVA 0x100000000ull
#define DEMAND_PAGE 4096u
#define DEMAND_STRIDE (16 * DEMAND_PAGE)
#define DEMAND_HUGE (2u << 20)
#define DEMAND_STEPS 5120
#define DEMAND_LENGTH ((uint64_t)DEMAND_STEPS * DEMAND_STRIDE)
/* where the guest's page table is, in its memory */
#define GUEST_TABLE 0x1000u
#define GUEST_WIDTH 48

struct pri_state {
	struct pri_device pri;
	uint32_t ioas_id;
	uint32_t rid_hwpt, pasid_hwpt;
	/* the guest's second stage, and all the memory it has */
	uint32_t parent;
	void *table;
	bool opened;
	/* of what the kernel resolves: the memory, and how often a page of it was asked for */
	void *memory;
	unsigned int step;
};

static bool on_demand(const struct bench *b)
{
	return b->spec.source == &demand_source || b->spec.source == &scattered_source;
}

static bool by_kernel(const struct bench *b)
{
	return b->spec.mode == &kernel_mode;
}

/* Huge pages, each mapped by small entries as a part of it was protected for a moment */
static void fill_together(char *memory)
{
	uint64_t at;

	madvise(memory, DEMAND_LENGTH, MADV_HUGEPAGE);
	for (at = 0; at < DEMAND_LENGTH; at += DEMAND_PAGE)
		memory[at] = 1;
	for (at = 0; at < DEMAND_LENGTH; at += DEMAND_HUGE)
		mprotect(memory + at, DEMAND_PAGE, PROT_READ);
	mprotect(memory, DEMAND_LENGTH, PROT_READ | PROT_WRITE);
	madvise(memory, DEMAND_LENGTH, MADV_NOHUGEPAGE);
}

/* Of the 16 no two are made one after the other. */
static void fill_scattered(char *memory)
{
	uint64_t first, at;

	madvise(memory, DEMAND_LENGTH, MADV_NOHUGEPAGE);
	for (first = 0; first < DEMAND_STRIDE; first += DEMAND_PAGE) {
		for (at = first; at < DEMAND_LENGTH; at += DEMAND_STRIDE)
			memory[at] = 1;
	}
}

static int demand_open(struct bench *b, struct pri_state *s)
{
	char *memory = mmap(NULL, DEMAND_LENGTH + DEMAND_HUGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return iopf_fail(&b->io, errno, "memory for the device");
	memory += -(uintptr_t)memory % DEMAND_HUGE;
	if (b->spec.source == &demand_source)
		fill_together(memory);
	else
		fill_scattered(memory);
	s->memory = memory;
	return !by_kernel(b) ? 0 :
	       iopf_map(&b->io, s->ioas_id, FIRST_IOVA, memory, DEMAND_LENGTH,
			IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_ON_FAULT);
}

static uint32_t demand_resolve(struct bench *b, const struct iommu_hwpt_pgfault *message)
{
	struct pri_state *s = b->source;
	char *page = (char *)s->memory + (message->addr - FIRST_IOVA);

	return iopf_map(&b->io, s->ioas_id, message->addr, page, DEMAND_STRIDE,
			IOMMU_IOAS_MAP_READABLE) ?
	       IOMMUFD_PAGE_RESP_INVALID : IOMMUFD_PAGE_RESP_SUCCESS;
}

static int nested_open(struct bench *b, struct pri_state *s)
{
	struct iommu_hwpt_vtd_s1 stage = { .pgtbl_addr = GUEST_TABLE, .addr_width = GUEST_WIDTH };
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd), .dev_id = s->pri.vfio.id, .fault_id = b->queues[0].id,
		.flags = IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_FAULT_ID_VALID,
		.data_type = IOMMU_HWPT_DATA_VTD_S1, .data_len = sizeof(stage),
		.data_uptr = (uintptr_t)&stage,
	};
	int rc;

	s->table = mmap(NULL, DEMAND_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			0);
	if (s->table == MAP_FAILED)
		return iopf_fail(&b->io, errno, "memory for the guest");
	rc = iopf_hwpt_alloc(&b->io, s->pri.vfio.id, s->ioas_id, IOMMU_HWPT_ALLOC_NEST_PARENT, 0,
			     &s->parent);
	if (!rc)
		rc = iopf_map(&b->io, s->ioas_id, GUEST_TABLE, s->table, DEMAND_PAGE,
			      IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE);
	if (rc)
		return rc;
	cmd.pt_id = s->parent;
	if (ioctl(b->io.fd, IOMMU_HWPT_ALLOC, &cmd))
		return iopf_fail(&b->io, errno, "allocate a nested HWPT");
	s->pasid_hwpt = cmd.out_hwpt_id;
	return 0;
}

static int pri_attach(struct bench *b, struct pri_state *s)
{
	uint32_t flags = IOMMU_HWPT_ALLOC_PASID | (by_kernel(b) ? IOMMU_HWPT_ALLOC_ON_FAULT : 0);
	struct iopf_device *vfio = &s->pri.vfio;
	int rc;

	rc = iopf_ioas_alloc(&b->io, &s->ioas_id);
	if (!rc)
		rc = iopf_hwpt_alloc(&b->io, vfio->id, s->ioas_id, flags, 0, &s->rid_hwpt);
	/* Of several tables on demand each gets every page: one is enough for both. */
	s->pasid_hwpt = s->rid_hwpt;
	if (!rc && b->spec.source == &nested_source)
		rc = nested_open(b, s);
	else if (!rc && !by_kernel(b))
		rc = iopf_hwpt_alloc(&b->io, vfio->id, s->ioas_id, flags, b->queues[0].id,
				     &s->pasid_hwpt);
	if (!rc && on_demand(b))
		rc = demand_open(b, s);
	if (!rc)
		rc = iopf_device_attach(vfio, s->rid_hwpt);
	if (!rc)
		rc = iopf_device_attach_pasid(vfio, PASID, s->pasid_hwpt);
	if (!rc)
		rc = iopf_device_bus_master(vfio, true);
	return rc;
}

static int pri_source_open(struct bench *b)
{
	struct pri_state *s = calloc(1, sizeof(*s));
	struct pri_address found[1];
	int rc;

	if (!s)
		return iopf_fail(&b->io, ENOMEM, "PRI device");
	b->source = s;
	if (on_demand(b) && b->spec.batch != 1)
		return iopf_fail(&b->io, EINVAL, "ask for more than one at a time");
	if (!pri_find(found, 1))
		return iopf_fail(&b->io, ENODEV, "look for a PRI device");
	rc = pri_open(&b->io, found[0].bdf, &s->pri);
	if (rc)
		return rc;
	s->opened = true;
	rc = pri_attach(b, s);
	if (rc)
		return rc;
	pri_set(&s->pri, PTD_PASID, PASID);
	pri_set(&s->pri, PTD_FLAGS, PTD_F_PASID | PTD_F_READ);
	pri_set64(&s->pri, PTD_IOVA, FIRST_IOVA);
	pri_set64(&s->pri, PTD_STRIDE, 4096);
	pri_set(&s->pri, PTD_GROUP, 1);
	pri_set(&s->pri, PTD_COUNT, b->spec.batch);
	return 0;
}

/*
 * The command's result is not asked for: a read of a register is a trip of its
 * own, and the counters tell in the end.
 */
static int pri_inject(struct bench *b)
{
	struct pri_state *s = b->source;

	pri_set(&s->pri, PTD_COMMAND, PTD_CMD_BURST);
	return 0;
}

static int pri_check(struct bench *b, uint64_t groups)
{
	struct pri_state *s = b->source;
	struct pri_counts counts;

	pri_counts(&s->pri, &counts);
	if (counts.groups == groups && counts.success == groups && counts.responses == groups &&
	    !counts.unmatched && !counts.refused)
		return 0;
	return iopf_fail(&b->io, EPROTO,
			 "%llu groups wanted, %u raised, %u refused, %u answered, %u unmatched",
			 (unsigned long long)groups, counts.groups, counts.refused,
			 counts.success, counts.unmatched);
}

static void pri_source_close(struct bench *b)
{
	struct pri_state *s = b->source;

	if (s && s->opened) {
		iopf_device_bus_master(&s->pri.vfio, false);
		iopf_device_detach_pasid(&s->pri.vfio, PASID);
		iopf_device_detach(&s->pri.vfio);
		if (s->pasid_hwpt != s->rid_hwpt)
			iopf_destroy(&b->io, s->pasid_hwpt);
		if (s->parent)
			iopf_destroy(&b->io, s->parent);
		iopf_destroy(&b->io, s->rid_hwpt);
		pri_close(&s->pri);
		if (s->memory)
			munmap(s->memory, DEMAND_LENGTH);
		if (s->table)
			munmap(s->table, DEMAND_PAGE);
	}
	free(s);
}

const struct source pri_source = {
	.name = "pri", .open = pri_source_open, .inject = pri_inject, .check = pri_check,
	.close = pri_source_close,
};

const struct source nested_source = {
	.name = "nested", .open = pri_source_open, .inject = pri_inject, .check = pri_check,
	.close = pri_source_close,
};

static int demand_inject(struct bench *b)
{
	struct pri_state *s = b->source;

	if (s->step == DEMAND_STEPS)
		return iopf_fail(&b->io, EOVERFLOW, "ask for more than %u", DEMAND_STEPS);
	pri_set64(&s->pri, PTD_IOVA, FIRST_IOVA + (uint64_t)s->step++ * DEMAND_STRIDE);
	return pri_inject(b);
}

const struct source demand_source = {
	.name = "demand", .open = pri_source_open, .inject = demand_inject, .check = pri_check,
	.resolve = demand_resolve, .close = pri_source_close,
};

const struct source scattered_source = {
	.name = "scattered", .open = pri_source_open, .inject = demand_inject,
	.check = pri_check, .resolve = demand_resolve, .close = pri_source_close,
};

static int kernel_open(struct bench *b)
{
	if (!on_demand(b))
		return iopf_fail(&b->io, EINVAL, "let the kernel serve a fault queue");
	if (b->spec.awake && sysconf(_SC_NPROCESSORS_ONLN) < 2)
		return iopf_fail(&b->io, EINVAL, "keep two threads awake on one CPU");
	return 0;
}

static void cpu_pause(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#else
	__asm__ volatile("yield");
#endif
}

/*
 * The processor is given to the kernel's thread until the device has its answer. If that
 * has one of its own nothing is to be counted meanwhile: a CPU that pauses lets QEMU go on
 * with the other one.
 */
static int kernel_serve(struct bench *b)
{
	struct pri_state *s = b->source;

	while (pri_get(&s->pri, PTD_N_RESPONSES) != s->step) {
		if (b->spec.awake)
			cpu_pause();
		else
			sched_yield();
	}
	b->messages++;
	b->answers++;
	return 0;
}

static void kernel_close(struct bench *b)
{
	(void)b;
}

const struct mode kernel_mode = {
	.name = "kernel", .open = kernel_open, .serve = kernel_serve, .close = kernel_close,
};
