// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device goes from one VMM to another, before its memory or after it.
 */
#include <pthread.h>

#include "iommufd_pri_device.h"
#include "../../../../drivers/iommu/iommufd/iommufd_test_iopf.h"
#include "iommufd_demand_utils.h"

/*
 * A VMM stops a device, of which it holds faults and has not read others, and goes on with
 * it elsewhere. The memory goes along and what the device has of state, but no fault.
 */
TEST_F_TIMEOUT(pri, migrate, 600)
{
	struct server *server = &self->server;
	struct iommu_hwpt_pgfault m[4];
	unsigned char *memory;
	uint64_t done;
	int n;

	ASSERT_EQ(0, start_copy(self->unit, HALF, 2, 8));
	while (server->groups < HALF_PAGES / 4)
		ASSERT_LE(1, serve_some(server, WAIT_MS));
	n = read_some(&server->queue, m, 4, WAIT_MS);
	ASSERT_LE(2, n);
	ASSERT_EQ(PTD_STATE_RUNNING, reg(self->unit, PTD_STATE));

	ASSERT_EQ(0, pri_command(&self->unit->pri, PTD_CMD_ABORT));
	EXPECT_LE(1, reg(self->unit, PTD_OPEN_GROUPS));
	ASSERT_EQ(0, put_off(server, m, n));
	EXPECT_EQ(0, wait_reg(self->unit, PTD_OPEN_GROUPS, 0));
	EXPECT_EQ(0, reg(self->unit, PTD_N_INVALID));
	EXPECT_EQ(0, fdinfo_number(server->queue.fd, "iommufd-fault-queued"));
	EXPECT_EQ(0, fdinfo_number(server->queue.fd, "iommufd-fault-delivered"));
	done = pri_get64(&self->unit->pri, PTD_BYTES);
	EXPECT_LT(0, done);
	EXPECT_GT(HALF, done);
	memory = self->unit->memory;
	ASSERT_EQ(0, server_close(server));
	check_unit(_metadata, self->unit);

	ASSERT_EQ(0, server_open(server, 0, 1));
	memcpy(self->unit->memory, memory, 2 * HALF);
	ASSERT_EQ(0, pri_start(&self->unit->pri, &(struct pri_copy){
		.src = SRC + done, .dst = DST + done, .length = HALF - done,
		.pasid = PASID, .group = 2, .depth = 8,
	}));
	EXPECT_EQ(0, serve(server));
	EXPECT_LE(1, server->groups);
	EXPECT_TRUE(copied(self->unit, HALF));
}

#define LENGTH (HALF / 4)

/* Memory whose pages are at another place until somebody asks for them */
struct elsewhere {
	struct unit *unit;
	unsigned char *pages;
	int uffd;
	bool here[2 * HALF_PAGES];
	unsigned int brought;
	uint64_t sum;
};

/* In place for the processor first: IOMMU_IOAS_MAP would wait for it. */
static int bring(struct elsewhere *elsewhere, const void *place)
{
	uint64_t offset = ((uintptr_t)place & -PAGE) - (uintptr_t)elsewhere->unit->memory;
	int rc;

	if (elsewhere->here[offset / PAGE])
		return 0;
	rc = demand_give(elsewhere->uffd, elsewhere->unit->memory + offset,
			 elsewhere->pages + offset, PAGE);
	elsewhere->here[offset / PAGE] = !rc;
	elsewhere->brought += !rc;
	return rc;
}

static void serve_device(struct __test_metadata *_metadata, struct server *server,
			 struct elsewhere *elsewhere)
{
	struct iommu_hwpt_pgfault m[PTD_CREDITS_MAX];
	int i, n = iopf_queue_read(&server->queue, m, PTD_CREDITS_MAX);

	ASSERT_LE(0, n);
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, bring(elsewhere, memory_at(elsewhere->unit, m[i].addr)));
		ASSERT_EQ(0, map_page(server, elsewhere->unit, m[i].addr, READ_WRITE));
		if (m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)
			ASSERT_EQ(1, answer(server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	}
}

static void serve_processor(struct __test_metadata *_metadata, struct elsewhere *elsewhere)
{
	struct uffd_msg message;

	if (read(elsewhere->uffd, &message, sizeof(message)) == sizeof(message))
		ASSERT_EQ(0, bring(elsewhere,
				   (void *)(uintptr_t)message.arg.pagefault.address));
}

/* The guest's processor, from the end to the beginning */
static void *touch_all(void *arg)
{
	struct elsewhere *elsewhere = arg;
	uint64_t at = LENGTH;

	while (at) {
		at -= PAGE;
		elsewhere->sum += *(volatile unsigned char *)(elsewhere->unit->memory + at);
	}
	return NULL;
}

static void open_elsewhere(struct __test_metadata *_metadata, struct unit *unit,
			   struct elsewhere *elsewhere)
{
	elsewhere->unit = unit;
	elsewhere->pages = malloc(2 * HALF);
	ASSERT_NE(NULL, elsewhere->pages);
	memcpy(elsewhere->pages, unit->memory, 2 * HALF);
	ASSERT_EQ(unit->memory, mmap(unit->memory, 2 * HALF, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	elsewhere->uffd = demand_userfaultfd(unit->memory, 2 * HALF,
					     UFFDIO_REGISTER_MODE_MISSING, 0);
	ASSERT_LE(0, elsewhere->uffd);
}

/*
 * Both run on here while the pages are elsewhere, and ask for the same: each page comes
 * once, and whoever asked for it goes on.
 */
TEST_F_TIMEOUT(pri, post_copy, 600)
{
	static struct elsewhere elsewhere;
	struct pollfd pfd[2] = { { .events = POLLIN }, { .events = POLLIN } };
	uint64_t end = now_ms() + 4 * WAIT_MS, sum = 0, at;
	pthread_t thread;
	bool running = true;

	open_elsewhere(_metadata, self->unit, &elsewhere);
	pfd[0].fd = self->server.queue.fd;
	pfd[1].fd = elsewhere.uffd;
	ASSERT_EQ(0, start_copy(self->unit, LENGTH, 4, 8));
	ASSERT_EQ(0, pthread_create(&thread, NULL, touch_all, &elsewhere));
	do {
		ASSERT_GT(end, now_ms());
		poll(pfd, 2, 1);
		serve_device(_metadata, &self->server, &elsewhere);
		serve_processor(_metadata, &elsewhere);
		running = running && pthread_tryjoin_np(thread, NULL);
	} while (running || is_busy(&self->server));
	EXPECT_EQ(PTD_STATE_DONE, reg(self->unit, PTD_STATE));
	EXPECT_EQ(2 * LENGTH / PAGE, elsewhere.brought);
	EXPECT_EQ(0, memcmp(elsewhere.pages, self->unit->memory + HALF, LENGTH));
	for (at = 0; at < LENGTH; at += PAGE)
		sum += elsewhere.pages[at];
	EXPECT_EQ(sum, elsewhere.sum);
	free(elsewhere.pages);
	close(elsewhere.uffd);
}

TEST_HARNESS_MAIN
