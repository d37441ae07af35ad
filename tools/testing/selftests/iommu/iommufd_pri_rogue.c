// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest that drives its VT-d as no kernel would: in a virtual machine to which a
 * pri-testdev is passed through, this program is the IOMMU's driver. It answers page
 * requests wrongly, or not at all, and puts nonsense into tables and the invalidation
 * queue. The VMM and the host have to bear that, and the device's groups have one answer
 * each in the end.
 *
 * It needs CONFIG_DEVMEM, a kernel that leaves the IOMMU alone, and memory at 240 MiB
 * (intel_iommu=off intremap=off mem=240M), and a VMM that sets a deadline: scripts/vm
 * --nested --vmm-deadline.
 */
#include "iommufd_pri_utils.h"

#define VTD 0xfed90000

/* Registers */
#define GCMD 0x18
#define GCMD_TE (1u << 31)
#define GCMD_SRTP (1u << 30)
#define GCMD_QIE (1u << 26)
#define GSTS 0x1c
#define RTADDR 0x20
#define RTADDR_SCALABLE (1u << 10)
#define FSTS 0x34
#define FSTS_IQE (1u << 4)
#define IQH 0x80
#define IQT 0x88
#define IQA 0x90
#define IQA_WIDE (1u << 11)
#define PQH 0xc0
#define PQT 0xc8
#define PQA 0xd0
#define PRS 0xdc

/* The memory, and where things are in it */
#define MEMORY (240ull << 20)
#define MEMORY_SIZE (2ull << 20)
enum {
	ROOT = 0x0, CONTEXT = 0x1000, DIRECTORY = 0x2000, PASIDS = 0x3000, STATUS = 0x4000,
	QUEUE = 0x8000, QUEUE_SIZE = 0x1000, REQUESTS = 0x10000, REQUESTS_SIZE = 0x4000,
	TABLES = 0x20000, DATA = 0x40000,
};

/* Groups, fewer than the device may have open, and how often */
#define FLOOD 128
#define FLOODS 32

#define DOMAIN 1
#define CONTEXT_ALL 0x1d	/* present, device TLB, PASIDs, page requests */
#define ENTRY_FIRST (1u << 6 | 2u << 2 | 1u)
#define ENTRY_SIZE 64
#define DESC_SIZE 32

/* Descriptors */
enum { D_CONTEXT = 1, D_IOTLB, D_DEVICE, D_IEC, D_WAIT, D_PIOTLB, D_PASID, D_PDEVICE, D_RESPONSE };
#define ALL (1u << 4)		/* of context entries, of an IOTLB */
#define WAIT_WRITES (1u << 5)

struct rogue {
	struct unit unit;
	volatile unsigned char *regs;
	unsigned char *memory;
	uint32_t rid;
	uint64_t seed;
};

FIXTURE(rogue)
{
	struct rogue rogue;
	struct iopf io;
};

static volatile uint32_t *reg4(const struct rogue *r, unsigned int at)
{
	return (volatile uint32_t *)(r->regs + at);
}

static volatile uint64_t *reg8(const struct rogue *r, unsigned int at)
{
	return (volatile uint64_t *)(r->regs + at);
}

static uint64_t *word(const struct rogue *r, unsigned int at)
{
	return (uint64_t *)(r->memory + at);
}

static uint64_t random64(struct rogue *r)
{
	r->seed ^= r->seed << 13;
	r->seed ^= r->seed >> 7;
	r->seed ^= r->seed << 17;
	return r->seed;
}

/* ---- the invalidation queue ---- */

/* A wait that writes: what can stand in for any descriptor */
static void put_wait(const struct rogue *r, unsigned int at)
{
	*word(r, QUEUE + at) = D_WAIT | WAIT_WRITES | 1ull << 32;
	*word(r, QUEUE + at + 8) = MEMORY + STATUS;
	*word(r, QUEUE + at + 16) = 0;
	*word(r, QUEUE + at + 24) = 0;
}

/* Queue one, of which it does not matter whether it is good; whether it was taken as that. */
static bool submit(const struct rogue *r, uint64_t low, uint64_t high)
{
	unsigned int at = (unsigned int)*reg8(r, IQT), next = (at + DESC_SIZE) % QUEUE_SIZE;

	put_wait(r, at);
	*word(r, QUEUE + at) = low;
	*word(r, QUEUE + at + 8) = high;
	*reg8(r, IQT) = next;
	if (*reg8(r, IQH) == next)
		return true;
	put_wait(r, at);
	*reg4(r, FSTS) = FSTS_IQE;
	return false;
}

/* A queue can be switched off when a wait was its last. */
static void switch_off(const struct rogue *r)
{
	if (*reg4(r, GSTS) & GCMD_QIE)
		submit(r, D_WAIT | WAIT_WRITES | 1ull << 32, MEMORY + STATUS);
	*reg4(r, GCMD) = 0;
}

static bool forget_entry(const struct rogue *r)
{
	return submit(r, D_CONTEXT | ALL, 0) && submit(r, D_PASID | 3u << 4, 0) &&
	       submit(r, D_IOTLB | ALL, 0);
}

static bool respond(const struct rogue *r, uint32_t pasid, uint32_t id, uint32_t code)
{
	return submit(r, (uint64_t)pasid << 32 | (uint64_t)r->rid << 16 | code << 12 | ALL |
			 D_RESPONSE, (uint64_t)id << 3 | 1u << 2);
}

/* ---- page requests ---- */

/* The id of the next one, or -1 after a while. */
static int next_request(const struct rogue *r)
{
	uint64_t end = now_ms() + WAIT_MS, head = *reg8(r, PQH);
	uint64_t request;

	while (*reg8(r, PQT) == head) {
		if (now_ms() > end)
			return -1;
		usleep(1000);
	}
	request = *word(r, REQUESTS + (unsigned int)head + 8);
	*reg8(r, PQH) = (head + DESC_SIZE) % REQUESTS_SIZE;
	*reg4(r, PRS) = 1;
	return request >> 3 & 511;
}

static void drop_requests(const struct rogue *r)
{
	*reg8(r, PQH) = *reg8(r, PQT);
	*reg4(r, PRS) = 3;
}

/* A group of one request, for a page that may be there or not */
static int ask(struct rogue *r, uint32_t id)
{
	return request(&r->unit, PASID, SRC, FLAGS_READ, id);
}

/* The device is served as by an honest guest. */
static void expect_works(struct __test_metadata *_metadata, struct rogue *r)
{
	uint32_t before = reg(&r->unit, PTD_N_SUCCESS);

	EXPECT_EQ(0, wait_reg(&r->unit, PTD_OPEN_GROUPS, 0));
	drop_requests(r);
	ASSERT_EQ(0, ask(r, 5));
	ASSERT_EQ(5, next_request(r));
	EXPECT_TRUE(respond(r, PASID, 5, 0));
	EXPECT_EQ(before + 1, wait_reg(&r->unit, PTD_N_SUCCESS, before + 1));
	EXPECT_EQ(*word(r, DATA), dma_read(&r->unit, PASID, SRC));
}

/* ---- setting up ---- */

static void *map_physical(uint64_t at, size_t length)
{
	int fd = open("/dev/mem", O_RDWR | O_SYNC | O_CLOEXEC);
	void *place;

	if (fd < 0)
		return MAP_FAILED;
	place = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)at);
	close(fd);
	return place;
}

static void put_entry(const struct rogue *r)
{
	unsigned int i, at;

	for (i = 0; i <= PASID; i++) {
		at = PASIDS + i * ENTRY_SIZE;
		memset(r->memory + at, 0, ENTRY_SIZE);
		*word(r, at + 8) = DOMAIN;
		*word(r, at + 16) = MEMORY + TABLES;
		*word(r, at) = ENTRY_FIRST;
	}
}

static void make_tables(const struct rogue *r)
{
	uint64_t table = TABLES;
	int shift;

	*word(r, ROOT) = (MEMORY + CONTEXT) | 1;
	*word(r, CONTEXT + r->rid * 32) = (MEMORY + DIRECTORY) | CONTEXT_ALL;
	*word(r, DIRECTORY) = (MEMORY + PASIDS) | 1;
	put_entry(r);
	for (shift = 39; shift > 12; shift -= 9, table += PAGE)
		*word(r, table + (SRC >> shift & 511) * 8) = (MEMORY + table + PAGE) | 7;
	*word(r, table + (SRC >> 12 & 511) * 8) = (MEMORY + DATA) | 7;
	*word(r, DATA) = 0x1122334455667788;
}

static void switch_on(const struct rogue *r)
{
	*reg8(r, RTADDR) = (MEMORY + ROOT) | RTADDR_SCALABLE;
	*reg4(r, GCMD) = GCMD_SRTP;
	*reg8(r, IQT) = 0;
	*reg8(r, IQA) = (MEMORY + QUEUE) | IQA_WIDE;
	*reg4(r, GCMD) = GCMD_QIE;
	*reg8(r, PQA) = (MEMORY + REQUESTS) | 2;
	*reg8(r, PQH) = 0;
	*reg8(r, PQT) = 0;
	*reg4(r, PRS) = 3;
	*reg4(r, GCMD) = GCMD_TE | GCMD_QIE;
}

static int bus_master(const char *bdf)
{
	uint16_t command = 6;
	char path[80];
	int fd, rc;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", bdf);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = pwrite(fd, &command, sizeof(command), 4) == sizeof(command) ? 0 : -EIO;
	close(fd);
	return rc;
}

FIXTURE_SETUP(rogue)
{
	struct rogue *r = &self->rogue;
	struct pri_address found;
	unsigned int slot;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	if (!access("/sys/class/iommu/dmar0", F_OK))
		SKIP(return, "the kernel has the IOMMU");
	ASSERT_EQ(0, strncmp(found.bdf + 4, ":00:", 4));
	slot = strtoul(found.bdf + 8, NULL, 16);
	r->rid = slot << 3;
	r->seed = 0x9e3779b97f4a7c15;
	ASSERT_EQ(0, map_regs(&self->io, found.bdf, &r->unit));
	r->unit.pri.bar = r->unit.regs.bar;
	ASSERT_EQ(0, bus_master(found.bdf));
	r->memory = map_physical(MEMORY, MEMORY_SIZE);
	ASSERT_NE(MAP_FAILED, r->memory);
	r->regs = map_physical(VTD, PAGE);
	ASSERT_NE(MAP_FAILED, r->regs);
	switch_off(r);
	memset(r->memory, 0, MEMORY_SIZE);
	make_tables(r);
	switch_on(r);
	ASSERT_TRUE(forget_entry(r));
	expect_works(_metadata, r);
}

FIXTURE_TEARDOWN(rogue)
{
	struct rogue *r = &self->rogue;

	if (!r->regs)
		return;
	expect_works(_metadata, r);
	check_unit(_metadata, &r->unit);
	switch_off(r);
}

/* ---- tests ---- */

/* Ids and PASIDs that nobody asked for, and answers that were given before */
TEST_F(rogue, wrong_answers)
{
	struct rogue *r = &self->rogue;
	struct unit *unit = &r->unit;
	uint32_t before = reg(unit, PTD_N_RESPONSES), i;

	for (i = 1; i <= 3; i++) {
		ASSERT_EQ(0, ask(r, i));
		ASSERT_EQ(i, next_request(r));
	}
	for (i = 4; i < 512; i += 7)
		respond(r, PASID, i, 0);
	respond(r, OTHER_PASID, 1, 0);
	respond(r, 900, 1, 1);
	EXPECT_EQ(before, reg(unit, PTD_N_RESPONSES));
	EXPECT_EQ(3, reg(unit, PTD_OPEN_GROUPS));
	for (i = 3; i; i--) {
		EXPECT_TRUE(respond(r, PASID, i, i == 2));
		respond(r, PASID, i, 0);
	}
	EXPECT_EQ(before + 3, wait_reg(unit, PTD_N_RESPONSES, before + 3));
	EXPECT_EQ(0, reg(unit, PTD_OPEN_GROUPS));
}

/* As many as can be, and half of them in vain: nobody has to wait for this guest. */
TEST_F_TIMEOUT(rogue, floods, 600)
{
	struct rogue *r = &self->rogue;
	int turn, id, i;

	for (turn = 0; turn < FLOODS; turn++) {
		ASSERT_EQ(FLOOD, burst(&r->unit, PASID, FLOOD, 1, 0));
		for (i = 0; i < FLOOD; i++) {
			id = next_request(r);
			ASSERT_LE(0, id);
			respond(r, PASID, id, id % 2);
		}
		ASSERT_EQ(0, wait_reg(&r->unit, PTD_OPEN_GROUPS, 0));
	}
}

/* Of each kind: any bits, and bits in the places where the kind has some. */
static uint64_t nonsense(struct rogue *r)
{
	static const uint64_t has[16] = {
		[D_CONTEXT] = 0x00030000ffffff30, [D_IOTLB] = 0xffff00f0,
		[D_DEVICE] = 0x0000ffff001f0000, [D_IEC] = 0x0000ffff1f000010,
		[D_PIOTLB] = 0x000fffffffff0030, [D_PASID] = 0x000fffffffff0030,
		[D_PDEVICE] = 0x000fffffffff01f0, [D_RESPONSE] = 0x000fffffffffff70,
	};
	uint64_t any = random64(r);
	unsigned int kind = random64(r) % 10;

	/* one that writes would hit this guest's own memory */
	if (kind == D_WAIT)
		return D_WAIT;
	return (random64(r) % 2 ? any & has[kind] : any & ~0xfull & ~0xe00ull) | kind;
}

TEST_F_TIMEOUT(rogue, nonsense_to_be_invalidated, 600)
{
	struct rogue *r = &self->rogue;
	unsigned int i, taken = 0;

	for (i = 0; i < times("ROGUE_ROUNDS", 2000); i++)
		taken += submit(r, nonsense(r), random64(r) & ~(random64(r) % 2 ? 0xfc0ull : 0));
	TH_LOG("%u of %u were taken", taken, i);
	EXPECT_LT(0, taken);
}

/* Tables that are nowhere, or not tables */
TEST_F_TIMEOUT(rogue, nonsense_for_tables, 600)
{
	struct rogue *r = &self->rogue;
	unsigned int i, at = PASIDS + PASID * ENTRY_SIZE;
	uint64_t value;

	for (i = 0; i < 24; i++) {
		*word(r, at + 8) = random64(r) & 0xffff;
		*word(r, at + 16) = random64(r) & 0x000ffffffffff000 >> i % 4 * 8;
		*word(r, at) = ENTRY_FIRST | (i % 3 == 2 ? random64(r) & ~0x1ffull : 0);
		EXPECT_TRUE(forget_entry(r));
		command(&r->unit, PTD_CMD_DMA_READ, PASID, SRC, FLAGS_READ);
		ask(r, i);
	}
	put_entry(r);
	EXPECT_TRUE(forget_entry(r));
	/* what was asked for under the last of them is answered by nobody else */
	for (i = 0; i < 24; i++)
		respond(r, PASID, i, 1);
	EXPECT_EQ(0, wait_reg(&r->unit, PTD_OPEN_GROUPS, 0));
	value = dma_read(&r->unit, PASID, SRC);
	EXPECT_EQ(*word(r, DATA), value);
}

/* Nobody answers: the deadline does, and an answer that comes then is for nothing. */
TEST_F(rogue, never_answers)
{
	struct rogue *r = &self->rogue;
	uint32_t before = reg(&r->unit, PTD_N_INVALID), responses, i;

	for (i = 0; i < PENDING; i++) {
		ASSERT_EQ(0, ask(r, i));
		ASSERT_EQ(i, next_request(r));
	}
	EXPECT_EQ(before + PENDING, wait_reg(&r->unit, PTD_N_INVALID, before + PENDING));
	responses = reg(&r->unit, PTD_N_RESPONSES);
	for (i = 0; i < PENDING; i++)
		EXPECT_TRUE(respond(r, PASID, i, 0));
	EXPECT_EQ(responses, reg(&r->unit, PTD_N_RESPONSES));
}

TEST_HARNESS_MAIN
