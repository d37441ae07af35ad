// SPDX-License-Identifier: GPL-2.0-only
/*
 * A server is killed while its device sends page requests: the next one, and another,
 * find all in order.
 */
#include <sys/wait.h>

#include "iommufd_pri_utils.h"

enum victim {
	VICTIM_SERVES,		/* reads and answers, through io_uring */
	VICTIM_READS,		/* reads, never answers */
	VICTIM_SLEEPS,		/* does not even read */
};

FIXTURE(pri_killed)
{
	/* the device as the survivor sees it */
	struct unit watched;
	volatile unsigned long *groups;
	pid_t victim;
};

FIXTURE_VARIANT(pri_killed)
{
	enum victim what;
	/* served, or pending, when it is time to die */
	unsigned int groups;
};

FIXTURE_VARIANT_ADD(pri_killed, serving)
{
	.what = VICTIM_SERVES,
	.groups = 200,
};

FIXTURE_VARIANT_ADD(pri_killed, holding_faults)
{
	.what = VICTIM_READS,
	.groups = 4,
};

FIXTURE_VARIANT_ADD(pri_killed, asleep)
{
	.what = VICTIM_SLEEPS,
	.groups = 4,
};

/* The whole life of a server whose device copies without end; returns what went wrong. */
static int victim_main(enum victim what, volatile unsigned long *groups)
{
	struct iommu_hwpt_pgfault m[16];
	struct server server;
	struct iopf_ring ring;

	if (server_open(&server, 0, 1))
		return 1;
	if (what == VICTIM_SERVES &&
	    iopf_ring_init_mode(&ring, &server.queue, IOPF_READ, 8, PTD_CREDITS_MAX))
		return 2;
	if (start_copy(&server.unit[0], WINDOW, 2, 4))
		return 3;
	if (what == VICTIM_SERVES)
		return serve_ring(&server, &ring, groups) ? 4 : 5;
	/* as many as 4 groups of 2 have */
	if (what == VICTIM_READS && read_all(&server.queue, m, 8) != 8)
		return 6;
	*groups = 4;
	for (;;)
		pause();
}

FIXTURE_SETUP(pri_killed)
{
	struct pri_address found;
	struct iopf io;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	ASSERT_EQ(0, map_regs(&io, found.bdf, &self->watched));
	self->groups = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->groups);
	self->victim = fork();
	ASSERT_GE(self->victim, 0);
	if (!self->victim)
		_exit(victim_main(variant->what, self->groups));
}

FIXTURE_TEARDOWN(pri_killed)
{
	kill(self->victim, SIGKILL);
	waitpid(self->victim, NULL, 0);
}

static void check_kill(struct __test_metadata *_metadata, pid_t victim)
{
	int status;

	ASSERT_EQ(0, kill(victim, SIGKILL));
	ASSERT_EQ(victim, waitpid(victim, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(SIGKILL, WTERMSIG(status));
}

/* Nobody cleans up: the device gets its answers from the kernel, the next server a good device. */
TEST_F(pri_killed, next_server)
{
	uint64_t end = now_ms() + WAIT_MS;
	struct server server;

	while (*self->groups < variant->groups && now_ms() < end)
		usleep(200);
	EXPECT_GE(*self->groups, variant->groups);
	EXPECT_EQ(PTD_STATE_RUNNING, reg(&self->watched, PTD_STATE));
	if (variant->what != VICTIM_SERVES)
		EXPECT_EQ(variant->groups,
			  wait_reg(&self->watched, PTD_OPEN_GROUPS, variant->groups));
	check_kill(_metadata, self->victim);

	EXPECT_NE(PTD_STATE_RUNNING, wait_stopped(&self->watched));
	EXPECT_EQ(0, wait_reg(&self->watched, PTD_OPEN_GROUPS, 0));
	if (variant->what != VICTIM_SERVES) {
		EXPECT_EQ(PTD_STATE_STOPPED_INVALID, reg(&self->watched, PTD_STATE));
		EXPECT_EQ(variant->groups, reg(&self->watched, PTD_N_INVALID));
	}
	check_unit(_metadata, &self->watched);

	ASSERT_EQ(0, server_open(&server, 0, 1));
	ASSERT_EQ(0, start_copy(&server.unit[0], HALF, 4, 8));
	EXPECT_EQ(0, serve(&server));
	EXPECT_TRUE(copied(&server.unit[0], HALF));
	check_server(_metadata, &server);
}

/* Another server, with another device and iommufd, does not notice. */
TEST_F(pri_killed, other_server)
{
	struct pri_address found[2];
	struct server server;

	if (pri_find(found, 2) < 2)
		SKIP(return, "fewer than two pri-testdev (1234:9171) here");
	ASSERT_EQ(0, server_open(&server, 1, 1));
	ASSERT_EQ(0, start_copy(&server.unit[0], HALF, 2, 8));
	while (server.groups < HALF_PAGES / 4)
		ASSERT_GE(serve_some(&server, WAIT_MS), 1);
	check_kill(_metadata, self->victim);
	EXPECT_EQ(0, serve(&server));
	EXPECT_TRUE(copied(&server.unit[0], HALF));
	EXPECT_EQ(0, reg(&server.unit[0], PTD_N_INVALID));
	check_server(_metadata, &server);
	check_unit(_metadata, &self->watched);
}

TEST_HARNESS_MAIN
