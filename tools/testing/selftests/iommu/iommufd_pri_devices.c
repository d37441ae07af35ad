// SPDX-License-Identifier: GPL-2.0-only
/*
 * Several devices of one IOMMU, through one queue: two, and all there are.
 */
#include <pthread.h>

#include "iommufd_pri_utils.h"

/* ---- two devices ---- */

FIXTURE(pri_pair)
{
	struct server server;
};

FIXTURE_SETUP(pri_pair)
{
	struct pri_address found[2];

	if (pri_find(found, 2) < 2)
		SKIP(return, "fewer than two pri-testdev (1234:9171) here");
	ASSERT_EQ(0, server_open(&self->server, 0, 2));
}

FIXTURE_TEARDOWN(pri_pair)
{
	check_server(_metadata, &self->server);
}

/* Both at once, through one queue; the same PASID and addresses, other memory. */
TEST_F(pri_pair, copy)
{
	struct unit *unit = self->server.unit;
	size_t i;

	for (i = 0; i < HALF; i++)
		unit[1].memory[i] ^= 0xff;
	ASSERT_EQ(0, start_copy(&unit[0], HALF, 2, 8));
	ASSERT_EQ(0, start_copy(&unit[1], HALF, 3, 5));
	/* depth groups each before the first is answered: they do run together */
	EXPECT_EQ(8, wait_reg(&unit[0], PTD_OPEN_GROUPS, 8));
	EXPECT_EQ(5, wait_reg(&unit[1], PTD_OPEN_GROUPS, 5));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(&unit[0], HALF));
	EXPECT_TRUE(copied(&unit[1], HALF));
	EXPECT_NE(0, memcmp(unit[0].memory + HALF, unit[1].memory + HALF, PAGE));
}

/* One table for both: messages name the device that asked, and only it is answered. */
TEST_F(pri_pair, one_table)
{
	struct unit *unit = self->server.unit;
	struct iommu_hwpt_pgfault m[2];

	ASSERT_EQ(0, iopf_device_attach_pasid(&unit[1].pri.vfio, OTHER_PASID, unit[0].faulting));
	ASSERT_EQ(0, request(&unit[0], PASID, SRC, FLAGS_READ, 3));
	ASSERT_EQ(0, request(&unit[1], OTHER_PASID, SRC, FLAGS_READ, 3));
	ASSERT_EQ(2, read_all(&self->server.queue, m, 2));
	EXPECT_EQ(unit[0].pri.vfio.id, m[0].dev_id);
	EXPECT_EQ(unit[1].pri.vfio.id, m[1].dev_id);
	ASSERT_EQ(0, map_page(&self->server, &unit[0], SRC, READ_WRITE));
	EXPECT_EQ(1, answer(&self->server, m[1].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(1, wait_reg(&unit[1], PTD_N_SUCCESS, 1));
	EXPECT_EQ(1, reg(&unit[0], PTD_OPEN_GROUPS));
	EXPECT_EQ(memory_read(&unit[0], SRC), dma_read(&unit[1], OTHER_PASID, SRC));

	/* detached from the one, it serves the other on */
	EXPECT_EQ(0, iopf_device_detach_pasid(&unit[1].pri.vfio, OTHER_PASID));
	EXPECT_EQ(1, reg(&unit[0], PTD_OPEN_GROUPS));
	EXPECT_EQ(1, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_FAILURE));
	EXPECT_EQ(1, wait_reg(&unit[0], PTD_N_FAILURE, 1));
	EXPECT_EQ(memory_read(&unit[0], SRC), dma_read(&unit[0], PASID, SRC));
}

/* One device fills the queue, of which nobody reads; the other still has its share. */
TEST_F(pri_pair, crowded_out)
{
	enum { ROOM = 64, MOST = ROOM / 2 + ROOM / 4 };
	struct iopf_queue_options options = { .depth = ROOM };
	struct unit *unit = self->server.unit;
	uint64_t end = now_ms() + WAIT_MS;

	ASSERT_EQ(0, server_close(&self->server));
	ASSERT_EQ(0, server_open_with(&self->server, &options, 0, 2));
	ASSERT_LT(MOST, burst(&unit[0], PASID, 200, 1, 0));
	EXPECT_EQ(MOST, wait_reg(&unit[0], PTD_OPEN_GROUPS, MOST));
	ASSERT_EQ(0, start_copy(&unit[1], 4 * PAGE, 1, 1));
	while (fdinfo_number(self->server.queue.fd, "iommufd-fault-queued") <= MOST &&
	       now_ms() < end)
		usleep(200);
	EXPECT_EQ(MOST + 1, fdinfo_number(self->server.queue.fd, "iommufd-fault-queued"));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(&unit[1], 4 * PAGE));
	EXPECT_EQ(0, reg(&unit[0], PTD_N_INVALID));
	EXPECT_EQ(0, reg(&unit[1], PTD_N_INVALID));
}

/* One device is closed in the midst of its copy; the other's goes on. */
TEST_F(pri_pair, close_one)
{
	struct unit *unit = self->server.unit;

	ASSERT_EQ(0, start_copy(&unit[0], HALF, 2, 8));
	ASSERT_EQ(0, start_copy(&unit[1], WINDOW, 4, 8));
	while (self->server.groups < 50)
		ASSERT_GE(serve_some(&self->server, WAIT_MS), 1);
	ASSERT_EQ(0, pri_close(&unit[1].pri));
	EXPECT_NE(PTD_STATE_RUNNING, wait_stopped(&unit[1]));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(&unit[0], HALF));
}

/* An overflow that one device has caused does not stop the other for good. */
TEST_F(pri_pair, overflow_of_the_other)
{
	struct unit *unit = self->server.unit;

	ASSERT_EQ(0, start_copy(&unit[0], HALF, 4, 8));
	while (self->server.groups < 20)
		ASSERT_GE(serve_some(&self->server, WAIT_MS), 1);
	EXPECT_GT(burst(&unit[1], PASID, 5000, 16, PTD_F_NO_CREDIT), 0);
	EXPECT_GT(reg(&unit[1], PTD_N_REFUSED), 0);
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(&unit[0], HALF));
}

#define TRACING "/sys/kernel/tracing/"

static int trace_write(const char *file, const char *text)
{
	int fd = open(file, O_WRONLY | O_TRUNC | O_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

/* Lines of the trace that have the event, or -errno. */
static int trace_count(const char *event)
{
	FILE *trace = fopen(TRACING "trace", "re");
	char line[512];
	int n = 0;

	if (!trace)
		return -errno;
	while (fgets(line, sizeof(line), trace))
		n += line[0] != '#' && strstr(line, event);
	fclose(trace);
	return n;
}

/* 512 answers of one write: few doorbells of the invalidation queue. */
TEST_F(pri_pair, answers_share_doorbells)
{
	struct iommu_hwpt_page_response responses[2 * PTD_CREDITS_MAX];
	struct iommu_hwpt_pgfault m[2 * PTD_CREDITS_MAX];
	struct unit *unit = self->server.unit;
	int i;

	if (trace_write(TRACING "events/intel_iommu/qi_post/enable", "1"))
		SKIP(return, "no tracepoint intel_iommu:qi_post");
	for (i = 0; i < 2; i++)
		ASSERT_EQ(PTD_CREDITS_MAX, burst(&unit[i], PASID, PTD_CREDITS_MAX, 1, 0));
	ASSERT_EQ(2 * PTD_CREDITS_MAX, read_all(&self->server.queue, m, 2 * PTD_CREDITS_MAX));
	for (i = 0; i < 2 * PTD_CREDITS_MAX; i++)
		responses[i] = (struct iommu_hwpt_page_response){ .cookie = m[i].cookie };
	EXPECT_EQ(0, trace_write(TRACING "trace", ""));
	EXPECT_EQ(2 * PTD_CREDITS_MAX,
		  iopf_queue_write(&self->server.queue, responses, 2 * PTD_CREDITS_MAX));
	i = trace_count("qi_post:");
	EXPECT_EQ(0, trace_write(TRACING "events/intel_iommu/qi_post/enable", "0"));
	ksft_print_msg("512 answers: %d submissions\n", i);
	EXPECT_GE(i, 1);
	EXPECT_LE(i, 32);
	for (i = 0; i < 2; i++)
		EXPECT_EQ(PTD_CREDITS_MAX, wait_reg(&unit[i], PTD_N_SUCCESS, PTD_CREDITS_MAX));
}

/* What drives the device, or "". */
static void driver_of(const char *bdf, char *name, size_t size)
{
	char path[80];
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", bdf);
	n = readlink(path, name, size - 1);
	name[n < 0 ? 0 : n] = '\0';
}

/* The second device is in use: the first one is given back, with nobody to run a teardown. */
TEST(failed_setup)
{
	struct server owner, late;
	char before[128], after[128];
	struct pri_address found[2];

	if (pri_find(found, 2) < 2)
		SKIP(return, "fewer than two pri-testdev (1234:9171) here");
	driver_of(found[0].bdf, before, sizeof(before));
	ASSERT_EQ(0, server_open(&owner, 1, 1));
	EXPECT_GT(0, server_open(&late, 0, 2));
	driver_of(found[0].bdf, after, sizeof(after));
	EXPECT_STREQ(before, after);
	check_server(_metadata, &owner);
}

/* ---- all devices at once ---- */

/* One device's requests, in bursts of random groups, until there were enough */
struct flood {
	struct server *server;
	struct unit *unit;
	unsigned int target;
	unsigned int seed;
	/* by direction */
	unsigned int sent[2];
	volatile bool *stop;
};

static void *flood_send(void *arg)
{
	struct flood *flood = arg;
	unsigned int size, write, pasid;
	int taken;

	while (flood->sent[0] < flood->target || flood->sent[1] < flood->target) {
		size = 1 + (unsigned int)rand_r(&flood->seed) % 32;
		write = (unsigned int)rand_r(&flood->seed) % 2;
		pasid = rand_r(&flood->seed) % 4 ? PASID : OTHER_PASID;
		pri_set(&flood->unit->pri, PTD_GRPID, (uint32_t)rand_r(&flood->seed) % 512);
		pri_set(&flood->unit->pri, PTD_COUNT, size * (1 + 32 / size));
		pri_set(&flood->unit->pri, PTD_GROUP, size);
		pri_set64(&flood->unit->pri, PTD_STRIDE, PAGE);
		taken = command(flood->unit, PTD_CMD_BURST, pasid, write ? DST : SRC,
				write ? FLAGS_WRITE : FLAGS_READ);
		if (taken > 0)
			flood->sent[write] += (unsigned int)taken;
		else
			usleep(100);
	}
	return NULL;
}

/* A PASID that comes and goes while its device sends requests to it, and to others */
static void *flood_attach(void *arg)
{
	struct flood *flood = arg;
	struct iopf_device *vfio = &flood->unit->pri.vfio;

	while (!*flood->stop) {
		if (iopf_device_attach_pasid(vfio, OTHER_PASID, flood->unit->faulting))
			return arg;
		usleep(500);
		if (iopf_device_detach_pasid(vfio, OTHER_PASID))
			return arg;
	}
	return NULL;
}

/* Read all there is and answer in one go, a few of them INVALID. */
static int flood_serve(struct server *server, unsigned int *seed)
{
	struct iommu_hwpt_page_response responses[512];
	struct iommu_hwpt_pgfault m[512];
	int n, i, count = 0, done, rc;

	n = read_some(&server->queue, m, 512, 5);
	for (i = 0; i < n; i++) {
		if (m[i].flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)
			responses[count++] = (struct iommu_hwpt_page_response){
				.cookie = m[i].cookie,
				.code = rand_r(seed) % 8 ? IOMMUFD_PAGE_RESP_SUCCESS :
							   IOMMUFD_PAGE_RESP_INVALID,
			};
	}
	for (done = 0; done < count; done += rc > 0 ? rc : 1)
		/* what was detached meanwhile is skipped */
		rc = iopf_queue_write(&server->queue, responses + done, (size_t)(count - done));
	return n;
}

FIXTURE(pri_all)
{
	struct server server;
};

FIXTURE_SETUP(pri_all)
{
	struct pri_address found[MAX_UNITS];
	int n = pri_find(found, MAX_UNITS);

	if (n < 2)
		SKIP(return, "fewer than two pri-testdev (1234:9171) here");
	ASSERT_EQ(0, server_open(&self->server, 0, n < MAX_UNITS ? n : MAX_UNITS));
}

FIXTURE_TEARDOWN(pri_all)
{
	check_server(_metadata, &self->server);
}

static bool flood_over(struct server *server, struct flood *floods, unsigned int target)
{
	int i;

	for (i = 0; i < server->n_units; i++) {
		if (floods[i].sent[0] < target || floods[i].sent[1] < target ||
		    reg(&server->unit[i], PTD_OPEN_GROUPS))
			return false;
	}
	return true;
}

/*
 * PRI_FAULTS requests in all for each direction, in groups of 1 to 32 on two
 * PASIDs of each device, one of which is attached and detached all the time.
 */
TEST_F_TIMEOUT(pri_all, flood, 600)
{
	unsigned int seed = 3, faults = times("PRI_FAULTS", 4000);
	pthread_t sender[MAX_UNITS], attacher[MAX_UNITS];
	struct server *server = &self->server;
	struct flood floods[MAX_UNITS];
	volatile bool stop = false;
	struct pri_counts c;
	void *failed;
	int i;

	for (i = 0; i < server->n_units; i++) {
		floods[i] = (struct flood){
			.server = server, .unit = &server->unit[i], .seed = 7 + (unsigned int)i,
			.target = faults / (unsigned int)server->n_units, .stop = &stop,
		};
		ASSERT_EQ(0, pthread_create(&attacher[i], NULL, flood_attach, &floods[i]));
		ASSERT_EQ(0, pthread_create(&sender[i], NULL, flood_send, &floods[i]));
	}
	while (!flood_over(server, floods, floods[0].target))
		ASSERT_GE(flood_serve(server, &seed), 0);
	stop = true;
	ksft_print_msg("device  reads  writes  groups responses success invalid failure refused\n");
	for (i = 0; i < server->n_units; i++) {
		EXPECT_EQ(0, pthread_join(sender[i], NULL));
		EXPECT_EQ(0, pthread_join(attacher[i], &failed));
		EXPECT_EQ(NULL, failed);
		pri_counts(&server->unit[i].regs, &c);
		ksft_print_msg("%6d %6u %7u %7u %9u %7u %7u %7u %7u\n", i, floods[i].sent[0],
			       floods[i].sent[1], c.groups, c.responses, c.success, c.invalid,
			       c.failure, c.refused);
		EXPECT_EQ(c.groups, c.responses);
		EXPECT_GT(c.success, 0);
		EXPECT_GT(c.invalid, 0);
	}
}

TEST_HARNESS_MAIN
