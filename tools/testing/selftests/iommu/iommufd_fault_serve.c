// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of IOMMU_FAULT_SERVE: each line of its contract, with the page requests
 * of a mock device.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include "iommufd_fault_env.h"

#define MANY 100
#define UNTOUCHED 0xa5a5a5a5

FIXTURE(serve)
{
	struct fault_env env;
	struct iommu_fault_serve cmd;
	struct iommu_hwpt_pgfault m[MANY];
	struct iommu_hwpt_page_response r[MANY];
};

typedef FIXTURE_DATA(serve) serve_t;

/* What a read does on an empty queue is nothing to this call. */
FIXTURE_VARIANT(serve)
{
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(serve, plain)
{
	.flags = 0,
};

FIXTURE_VARIANT_ADD(serve, blocking)
{
	.flags = IOMMU_FAULT_ALLOC_BLOCKING,
};

FIXTURE_SETUP(serve)
{
	fault_env_flags(_metadata, &self->env, variant->flags);
}

FIXTURE_TEARDOWN(serve)
{
	fault_env_close(_metadata, &self->env);
}

/* The call with the fixture's answers and room; what it is to return and to tell */
#define expect_serve(rc, given, taken, answers, room, timeout) do {			\
	EXPECT_EQ(rc, fault_serve(self->env.queue, &self->cmd, self->r, answers,	\
				  self->m, room, timeout));				\
	EXPECT_EQ(given, self->cmd.response_num);					\
	EXPECT_EQ(taken, self->cmd.message_num);					\
} while (0)

/* ---- the argument ---- */

TEST_F(serve, other_files)
{
	int queue = self->env.queue, pipes[2];

	ASSERT_EQ(0, pipe(pipes));
	EXPECT_EQ(-ENOTTY, fault_serve(pipes[0], &self->cmd, NULL, 0, self->m, 1, 0));
	EXPECT_EQ(-ENOTTY, fault_serve(eventfd(0, 0), &self->cmd, NULL, 0, self->m, 1, 0));
	EXPECT_EQ(-ENOTTY, fault_serve(self->env.fd, &self->cmd, NULL, 0, self->m, 1, 0));
	EXPECT_EQ(-ENOTTY, fault_serve(open("/dev/null", O_RDWR), &self->cmd, NULL, 0, self->m, 1,
				       0));
	EXPECT_EQ(-EBADF, fault_serve(-1, &self->cmd, NULL, 0, self->m, 1, 0));
	/* and it is the only call of its file */
	EXPECT_EQ(-ENOTTY, iommufd_call(queue, IOMMU_FAULT_QUEUE_ALLOC, &self->cmd));
	EXPECT_EQ(-ENOTTY, iommufd_call(queue, IOMMU_FAULT_BIND, &self->cmd));
	EXPECT_EQ(-ENOTTY, iommufd_call(queue, IOMMU_DESTROY, &self->cmd));
	EXPECT_EQ(-ENOTTY, iommufd_call(queue, _IO(IOMMUFD_TYPE, 0xc0), &self->cmd));
	expect_serve(0, 0, 0, 0, 1, 0);
}

TEST_F(serve, size)
{
	struct {
		struct iommu_fault_serve cmd;
		uint64_t tail[2];
	} arg;
	uint32_t size;

	ASSERT_EQ(40, sizeof(arg.cmd));
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	for (size = 0; size <= sizeof(arg); size++) {
		memset(&arg, 0, sizeof(arg));
		arg.cmd.size = size;
		EXPECT_EQ(size < sizeof(arg.cmd) ? -EINVAL : 0,
			  iommufd_call(self->env.queue, IOMMU_FAULT_SERVE, &arg));
	}
	for (size = sizeof(arg.cmd) + 1; size <= sizeof(arg); size++) {
		memset(&arg, 0, sizeof(arg));
		arg.cmd.size = size;
		arg.cmd.response_num = 1;
		arg.cmd.message_num = 1;
		((char *)&arg)[size - 1] = 1;
		EXPECT_EQ(-E2BIG, iommufd_call(self->env.queue, IOMMU_FAULT_SERVE, &arg));
		/* nothing was done, and it says so */
		EXPECT_EQ(0, arg.cmd.response_num);
		EXPECT_EQ(0, arg.cmd.message_num);
	}
	/* a byte behind what the size says is nothing to it */
	memset(&arg, 0, sizeof(arg));
	arg.cmd.size = sizeof(arg.cmd);
	arg.tail[0] = 1;
	EXPECT_EQ(0, iommufd_call(self->env.queue, IOMMU_FAULT_SERVE, &arg));
	take(_metadata, self->env.queue);
}

/* A call that is refused for what it asks gives nothing and takes nothing. */
TEST_F(serve, flags)
{
	struct iommu_fault_serve *cmd = &self->cmd;
	int bit;

	ASSERT_EQ(0, inject(&self->env, 1, 2, 1));
	take_many(_metadata, self->env.queue, self->r, 1);
	for (bit = 0; bit < 32; bit++) {
		*cmd = (struct iommu_fault_serve){
			.size = sizeof(*cmd), .flags = 1U << bit,
			.responses_uptr = (uintptr_t)self->r, .response_num = 1,
			.messages_uptr = (uintptr_t)self->m, .message_num = 1,
		};
		EXPECT_EQ(-EOPNOTSUPP, iommufd_call(self->env.queue, IOMMU_FAULT_SERVE, cmd));
		EXPECT_EQ(0, cmd->response_num);
		EXPECT_EQ(0, cmd->message_num);
	}
	expect_answers(_metadata, &self->env, 0, 0);
	expect_serve(0, 1, 1, 1, 1, 0);
}

TEST_F(serve, unaligned)
{
	struct iommu_hwpt_pgfault *odd;
	unsigned int i, given = 0;

	ASSERT_EQ(0, inject(&self->env, 1, 8, 1));
	take_many(_metadata, self->env.queue, self->r, 7);
	for (i = 1; i < 8; i++) {
		odd = (void *)((char *)self->m + i);
		EXPECT_EQ(-EINVAL, fault_serve(self->env.queue, &self->cmd, self->r + given,
					       7 - given, odd, 1, LONG_NS));
		EXPECT_EQ(0, self->cmd.message_num);
		given += self->cmd.response_num;
		expect_answers(_metadata, &self->env, given, 0);
	}
	/* without room nobody looks where it is */
	EXPECT_EQ(0, fault_serve(self->env.queue, &self->cmd, self->r + given, 7 - given, odd, 0,
				 FOREVER));
	EXPECT_EQ(7 - given, self->cmd.response_num);
	expect_answers(_metadata, &self->env, 7, 0);
	EXPECT_EQ(8, take(_metadata, self->env.queue).grpid);
}

/* Answers may lie anywhere, as in a write. */
TEST_F(serve, unaligned_answers)
{
	char bytes[3 * ANSWER + 8];
	unsigned int i;

	for (i = 1; i < 8; i++) {
		ASSERT_EQ(0, inject(&self->env, 1, 3, 1));
		take_many(_metadata, self->env.queue, self->r, 3);
		memcpy(bytes + i, self->r, 3 * ANSWER);
		EXPECT_EQ(0, fault_serve(self->env.queue, &self->cmd, (void *)(bytes + i), 3,
					 self->m, 1, 0));
		EXPECT_EQ(3, self->cmd.response_num);
	}
	expect_answers(_metadata, &self->env, 21, 0);
}

/* The structure cannot be read. */
TEST_F(serve, efault_argument)
{
	char *end = fence(_metadata, PAGE);
	struct iommu_fault_serve cmd = {
		.size = sizeof(cmd), .messages_uptr = (uintptr_t)self->m, .message_num = 1,
	};
	unsigned int there;

	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	EXPECT_EQ(-EFAULT, iommufd_call(self->env.queue, IOMMU_FAULT_SERVE, NULL));
	EXPECT_EQ(-EFAULT, iommufd_call(self->env.queue, IOMMU_FAULT_SERVE, (void *)(1UL << 63)));
	for (there = 0; there < sizeof(cmd); there += 4) {
		memcpy(end - there, &cmd, there);
		EXPECT_EQ(-EFAULT, iommufd_call(self->env.queue, IOMMU_FAULT_SERVE, end - there));
	}
	/* a larger one, of which the zeros behind cannot be read */
	cmd.size += 8;
	memcpy(end - there, &cmd, there);
	EXPECT_EQ(-EFAULT, iommufd_call(self->env.queue, IOMMU_FAULT_SERVE, end - there));
	take(_metadata, self->env.queue);
}

/* It cannot be written: nothing is done that could not be told. */
TEST_F(serve, efault_result)
{
	char *end = fence(_metadata, PAGE);
	struct iommu_fault_serve *cmd = (void *)(end - sizeof(*cmd));

	ASSERT_EQ(0, inject(&self->env, 1, 2, 1));
	take_many(_metadata, self->env.queue, self->r, 1);
	*cmd = (struct iommu_fault_serve){
		.size = sizeof(*cmd),
		.responses_uptr = (uintptr_t)self->r, .response_num = 1,
		.messages_uptr = (uintptr_t)self->m, .message_num = 1,
	};
	ASSERT_EQ(0, mprotect(end - PAGE, PAGE, PROT_READ));
	EXPECT_EQ(-EFAULT, iommufd_call(self->env.queue, IOMMU_FAULT_SERVE, cmd));
	expect_answers(_metadata, &self->env, 0, 0);
	expect_serve(0, 1, 1, 1, 1, FOREVER);
	EXPECT_EQ(2, self->m[0].grpid);
}

/* ---- messages ---- */

TEST_F(serve, one_group)
{
	unsigned int i;

	memset(self->m, 0xa5, sizeof(self->m));
	ASSERT_EQ(0, inject(&self->env, 7, 1, 3));
	expect_serve(0, 0, 3, 0, ROOM, FOREVER);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(7, self->m[i].grpid);
		EXPECT_EQ(ADDR + i * PAGE, self->m[i].addr);
		EXPECT_EQ(self->env.dev.idev_id, self->m[i].dev_id);
		EXPECT_EQ(self->m[0].cookie, self->m[i].cookie);
		EXPECT_EQ(i == 2 ? IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0, self->m[i].flags);
		EXPECT_EQ(0, self->m[i].__reserved);
	}
	EXPECT_EQ(UNTOUCHED, self->m[3].cookie);
	self->r[0] = (struct iommu_hwpt_page_response){ self->m[0].cookie, SUCCESS };
	expect_serve(0, 1, 0, 1, ROOM, 0);
	expect_answers(_metadata, &self->env, 1, 0);
}

/* As many whole groups as fit; the rest stays, in its order. */
TEST_F(serve, several_groups)
{
	ASSERT_EQ(0, inject(&self->env, 1, 5, 2));
	expect_serve(0, 0, 4, 0, 5, 0);
	EXPECT_EQ(2, self->m[3].grpid);
	EXPECT_EQ(0, self->m[4].cookie);
	expect_serve(0, 0, 6, 0, ROOM, FOREVER);
	EXPECT_EQ(3, self->m[0].grpid);
	EXPECT_EQ(5, self->m[5].grpid);
	expect_serve(0, 0, 0, 0, ROOM, 0);
}

/* More than the kernel takes in one step */
TEST_F(serve, many_groups)
{
	unsigned int i;

	ASSERT_EQ(0, inject(&self->env, 0, MANY + 20, 1));
	expect_serve(0, 0, MANY, 0, MANY, LONG_NS);
	for (i = 0; i < MANY; i++) {
		EXPECT_EQ(i, self->m[i].grpid);
		self->r[i] = (struct iommu_hwpt_page_response){ self->m[i].cookie, SUCCESS };
	}
	expect_serve(0, MANY, 20, MANY, MANY, LONG_NS);
	expect_answers(_metadata, &self->env, MANY, 0);
}

/* The number of the room that is needed, and the group is there for it. */
TEST_F(serve, emsgsize)
{
	static const unsigned int sizes[] = { 2, 5, 16, 17, 64, 250 };
	struct iommu_hwpt_pgfault *m = calloc(256, MSG);
	unsigned int i, room;

	ASSERT_NE(NULL, m);
	for (i = 0; i < 6; i++) {
		ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
		take_many(_metadata, self->env.queue, self->r, 1);
		ASSERT_EQ(0, inject(&self->env, i, 1, sizes[i]));
		/* the answer is good, and is given */
		expect_serve(-EMSGSIZE, 1, sizes[i], 1, 1, FOREVER);
		for (room = 1; room < sizes[i] && room < MANY; room += room)
			expect_serve(-EMSGSIZE, 0, sizes[i], 0, room, LONG_NS);
		EXPECT_EQ(0, fault_serve(self->env.queue, &self->cmd, NULL, 0, m, sizes[i], 0));
		EXPECT_EQ(sizes[i], self->cmd.message_num);
		EXPECT_EQ(i, m[sizes[i] - 1].grpid);
		EXPECT_EQ(0, fault_answer(self->env.queue, m[0].cookie, SUCCESS));
	}
	expect_answers(_metadata, &self->env, 12, 0);
	free(m);
}

/* One that does not fit behind one that does is no error. */
TEST_F(serve, second_does_not_fit)
{
	ASSERT_EQ(0, inject(&self->env, 1, 1, 2));
	ASSERT_EQ(0, inject(&self->env, 2, 1, 3));
	expect_serve(0, 0, 2, 0, 4, FOREVER);
	expect_serve(-EMSGSIZE, 0, 3, 0, 2, FOREVER);
	expect_serve(0, 0, 3, 0, 3, FOREVER);
}

/* Groups of one, two and one request; memory ends at every place it can. */
TEST_F(serve, efault_messages)
{
	static const unsigned int whole[] = { 0, 1, 1, 3, 4 };
	char *end = fence(_metadata, PAGE);
	unsigned int there, taken, i;
	struct iommu_hwpt_pgfault *m;

	for (there = 0; there <= 4 * MSG; there += 8) {
		ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
		ASSERT_EQ(0, inject(&self->env, 2, 1, 2));
		ASSERT_EQ(0, inject(&self->env, 3, 1, 1));
		m = (void *)(end - there);
		taken = whole[there / MSG];
		EXPECT_EQ(taken ? 0 : -EFAULT, fault_serve(self->env.queue, &self->cmd, NULL, 0,
							   m, 4, LONG_NS));
		EXPECT_EQ(taken, self->cmd.message_num);
		memcpy(self->m, m, taken * MSG);
		ASSERT_EQ(4 - taken, fault_read(self->env.queue, self->m + taken, 4 - taken));
		for (i = 0; i < 4; i++)
			EXPECT_EQ(i ? i / 3 + 2 : 1, self->m[i].grpid);
		EXPECT_EQ(0, fault_answer(self->env.queue, self->m[0].cookie, SUCCESS));
		EXPECT_EQ(0, fault_answer(self->env.queue, self->m[2].cookie, SUCCESS));
		EXPECT_EQ(0, fault_answer(self->env.queue, self->m[3].cookie, SUCCESS));
	}
	/* the answers ahead of it are given, and it says so */
	ASSERT_EQ(0, inject(&self->env, 1, 3, 1));
	take_many(_metadata, self->env.queue, self->r, 2);
	EXPECT_EQ(-EFAULT, fault_serve(self->env.queue, &self->cmd, self->r, 2, (void *)end, 1,
				       FOREVER));
	EXPECT_EQ(2, self->cmd.response_num);
	EXPECT_EQ(0, self->cmd.message_num);
	EXPECT_EQ(-EFAULT, fault_serve(self->env.queue, &self->cmd, NULL, 0, (void *)(1UL << 63),
				       1, FOREVER));
	EXPECT_EQ(-EFAULT, fault_serve(self->env.queue, &self->cmd, NULL, 0, NULL, 1, FOREVER));
	EXPECT_EQ(3, take(_metadata, self->env.queue).grpid);
}

/* More room than there can be memory: only what is taken is written. */
TEST_F(serve, room_without_end)
{
	char *end = fence(_metadata, PAGE);

	ASSERT_EQ(0, inject(&self->env, 1, 3, 1));
	EXPECT_EQ(0, fault_serve(self->env.queue, &self->cmd, NULL, 0, (void *)(end - 3 * MSG),
				 UINT32_MAX, FOREVER));
	EXPECT_EQ(3, self->cmd.message_num);
}

/* ---- answers ---- */

/* One is bad: those ahead are given, nothing is taken, and the rest can be given later. */
static void bad_answer(struct __test_metadata *_metadata, serve_t *self, unsigned int at,
		       struct iommu_hwpt_page_response bad)
{
	struct iommu_hwpt_page_response good;

	ASSERT_EQ(0, iopf_stats_reset(self->env.fd, self->env.dev.idev_id));
	ASSERT_EQ(0, inject(&self->env, 0, MANY + 1, 1));
	take_many(_metadata, self->env.queue, self->r, MANY);
	good = self->r[at];
	if (bad.cookie)
		bad.cookie = good.cookie;
	self->r[at] = bad;
	expect_serve(-EINVAL, at, 0, MANY, 1, FOREVER);
	expect_answers(_metadata, &self->env, at, 0);
	/* who goes on behind the number gives none twice */
	memmove(self->r, self->r + at, (MANY - at) * ANSWER);
	expect_serve(-EINVAL, 0, 0, MANY - at, 1, FOREVER);
	expect_answers(_metadata, &self->env, at, 0);
	self->r[0] = good;
	expect_serve(0, MANY - at, 1, MANY - at, 1, FOREVER);
	expect_answers(_metadata, &self->env, MANY, 0);
	expect_serve(-EINVAL, 0, 0, 1, 1, FOREVER);
	EXPECT_EQ(0, fault_answer(self->env.queue, self->m[0].cookie, SUCCESS));
}

static const unsigned int places[] = { 0, 1, 15, 31, 32, 33, 63, 64, MANY - 1 };

TEST_F(serve, unknown_cookie)
{
	unsigned int i;

	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		bad_answer(_metadata, self, places[i], (struct iommu_hwpt_page_response){});
}

TEST_F(serve, bad_code)
{
	unsigned int i;

	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		bad_answer(_metadata, self, places[i], (struct iommu_hwpt_page_response){
			.cookie = 1, .code = i % 2 ? UINT32_MAX : FAILURE + 1,
		});
}

/* A cookie that is answered twice, one of a group that nobody has read */
TEST_F(serve, cookies)
{
	ASSERT_EQ(0, inject(&self->env, 0, 3, 1));
	take_many(_metadata, self->env.queue, self->r, 1);
	self->r[1] = self->r[0];
	expect_serve(-EINVAL, 1, 0, 2, 1, FOREVER);
	expect_answers(_metadata, &self->env, 1, 0);
	self->r[0].cookie++;
	expect_serve(-EINVAL, 0, 0, 1, 1, FOREVER);
	expect_serve(0, 0, 2, 0, 2, FOREVER);
	expect_answers(_metadata, &self->env, 1, 0);
}

/* Each of the codes is given as it is. */
TEST_F(serve, codes)
{
	struct iommu_test_iopf_stats s;

	ASSERT_EQ(0, inject(&self->env, 0, 6, 1));
	take_many(_metadata, self->env.queue, self->r, 6);
	self->r[1].code = INVALID;
	self->r[4].code = INVALID;
	self->r[2].code = FAILURE;
	expect_serve(0, 6, 0, 6, 1, 0);
	ASSERT_EQ(0, iopf_stats(self->env.fd, self->env.dev.idev_id, &s));
	EXPECT_EQ(3, s.responses[SUCCESS]);
	EXPECT_EQ(2, s.responses[INVALID]);
	EXPECT_EQ(1, s.responses[FAILURE]);
}

/* Memory ends at every place that it can in three answers. */
TEST_F(serve, efault_answers)
{
	char *end = fence(_metadata, PAGE);
	unsigned int there, whole;

	for (there = 0; there < 3 * ANSWER; there++) {
		whole = there / ANSWER;
		ASSERT_EQ(0, inject(&self->env, 1, 4, 1));
		take_many(_metadata, self->env.queue, self->r, 3);
		memcpy(end - there, self->r, there);
		EXPECT_EQ(-EFAULT, fault_serve(self->env.queue, &self->cmd, (void *)(end - there),
					       3, self->m, 1, FOREVER));
		EXPECT_EQ(whole, self->cmd.response_num);
		EXPECT_EQ(0, self->cmd.message_num);
		memmove(self->r, self->r + whole, (3 - whole) * ANSWER);
		expect_serve(0, 3 - whole, 1, 3 - whole, 1, FOREVER);
		EXPECT_EQ(0, fault_answer(self->env.queue, self->m[0].cookie, SUCCESS));
	}
	expect_answers(_metadata, &self->env, 4 * there, 0);
	EXPECT_EQ(-EFAULT, fault_serve(self->env.queue, &self->cmd, NULL, 1, self->m, 1, FOREVER));
	EXPECT_EQ(-EFAULT, fault_serve(self->env.queue, &self->cmd, (void *)(1UL << 63), 1,
				       self->m, 1, FOREVER));
	/* more of them than there can be memory */
	ASSERT_EQ(0, inject(&self->env, 1, 3, 1));
	take_many(_metadata, self->env.queue, self->r, 3);
	memcpy(end - 3 * ANSWER, self->r, 3 * ANSWER);
	EXPECT_EQ(-EFAULT, fault_serve(self->env.queue, &self->cmd, (void *)(end - 3 * ANSWER),
				       UINT32_MAX, self->m, 1, FOREVER));
	EXPECT_EQ(3, self->cmd.response_num);
}

/* The pointers need not be valid if their numbers are 0. */
TEST_F(serve, nothing_to_do)
{
	struct iommu_fault_serve *cmd = &self->cmd;
	void *nowhere = (void *)(1UL << 63);

	ASSERT_EQ(0, inject(&self->env, 1, 2, 1));
	EXPECT_EQ(0, fault_serve(self->env.queue, cmd, nowhere, 0, nowhere, 0, FOREVER));
	EXPECT_EQ(0, cmd->response_num);
	EXPECT_EQ(0, cmd->message_num);
	EXPECT_EQ(0, fault_serve(self->env.queue, cmd, nowhere, 0, self->m, 1, FOREVER));
	EXPECT_EQ(1, cmd->message_num);
	self->r[0] = (struct iommu_hwpt_page_response){ self->m[0].cookie, SUCCESS };
	EXPECT_EQ(0, fault_serve(self->env.queue, cmd, self->r, 1, nowhere, 0, FOREVER));
	EXPECT_EQ(1, cmd->response_num);
	EXPECT_EQ(0, cmd->message_num);
	expect_answers(_metadata, &self->env, 1, 0);
	/* and with nothing queued it does not wait, either */
	take(_metadata, self->env.queue);
	EXPECT_EQ(0, fault_serve(self->env.queue, cmd, nowhere, 0, nowhere, 0, FOREVER));
}

/* What the other ways have read and what they answer is the same. */
TEST_F(serve, with_read_and_write)
{
	unsigned int i;

	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, inject(&self->env, i, 2, 1));
		take_many(_metadata, self->env.queue, self->r, 1);
		expect_serve(0, 1, 1, 1, ROOM, FOREVER);
		EXPECT_EQ(i + 1, self->m[0].grpid);
		EXPECT_EQ(0, fault_answer(self->env.queue, self->m[0].cookie, SUCCESS));
	}
	expect_answers(_metadata, &self->env, 40, 0);
}

/* ---- waiting ---- */

TEST_F(serve, no_wait)
{
	unsigned int i;

	for (i = 0; i < 100; i++)
		expect_serve(0, 0, 0, 0, ROOM, 0);
}

TEST_F(serve, time_is_over)
{
	static const uint64_t timeouts[] = { 1, 1000, 1000000, 20000000 };
	unsigned int i;

	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
		take_many(_metadata, self->env.queue, self->r, 1);
		expect_serve(0, 1, 0, 1, ROOM, timeouts[i]);
	}
	expect_answers(_metadata, &self->env, 4, 0);
}

/* Any time that is longer than the test: no number is too large, none counts as past. */
TEST_F(serve, waits)
{
	static const uint64_t timeouts[] = {
		60000000000, INT64_MAX - 1, INT64_MAX, INT64_MAX + 1ULL, UINT64_MAX - 1, FOREVER,
	};
	struct iommu_hwpt_page_response r;
	struct waiter w = {
		.by = WAIT_SERVE, .fd = self->env.queue, .room = ROOM, .answers = &r,
		.n_answers = 1,
	};
	unsigned int i;

	for (i = 0; i < 6; i++) {
		ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
		take_many(_metadata, self->env.queue, &r, 1);
		w.timeout_ns = timeouts[i];
		waiter_start(_metadata, &w);
		/* the answer does not wait for the next fault */
		expect_answers(_metadata, &self->env, 2 * i + 1, 0);
		EXPECT_EQ(-ETIME, waiter_result(&w, SHORT_MS));
		ASSERT_EQ(0, inject(&self->env, i, 1, 3));
		EXPECT_EQ(3, waiter_result(&w, LONG_MS));
		EXPECT_EQ(1, w.cmd.response_num);
		EXPECT_EQ(i, w.m[2].grpid);
		EXPECT_EQ(0, fault_answer(self->env.queue, w.m[0].cookie, SUCCESS));
	}
}

/* Of those that wait the first has too small a room: it is told, and the other has it. */
TEST_F(serve, waits_with_too_small_a_room)
{
	struct waiter w[2] = {};
	unsigned int i;

	for (i = 0; i < 2; i++) {
		w[i] = (struct waiter){
			.by = WAIT_SERVE, .fd = self->env.queue, .room = i + 2,
			.timeout_ns = FOREVER,
		};
		waiter_start(_metadata, &w[i]);
	}
	ASSERT_EQ(0, inject(&self->env, 1, 1, 3));
	EXPECT_EQ(3, waiter_result(&w[1], LONG_MS));
	/* the other may have been faster, then this is what the first waits for */
	ASSERT_EQ(0, inject(&self->env, 2, 1, 3));
	EXPECT_EQ(-EMSGSIZE, waiter_result(&w[0], LONG_MS));
	EXPECT_EQ(3, w[0].cmd.message_num);
	EXPECT_EQ(3, fault_read(self->env.queue, self->m, 3));
}

TEST_F(serve, nonblock)
{
	ASSERT_EQ(0, fcntl(self->env.queue, F_SETFL, O_RDWR | O_NONBLOCK));
	expect_serve(-EAGAIN, 0, 0, 0, ROOM, 1);
	expect_serve(-EAGAIN, 0, 0, 0, ROOM, FOREVER);
	/* who does not want to wait, or has no room, is not told of it */
	expect_serve(0, 0, 0, 0, ROOM, 0);
	expect_serve(0, 0, 0, 0, 0, FOREVER);
	ASSERT_EQ(0, inject(&self->env, 1, 2, 1));
	expect_serve(0, 0, 1, 0, 1, FOREVER);
	self->r[0] = (struct iommu_hwpt_page_response){ self->m[0].cookie, SUCCESS };
	expect_serve(0, 1, 1, 1, 1, FOREVER);
	self->r[0] = (struct iommu_hwpt_page_response){ self->m[0].cookie, SUCCESS };
	expect_serve(-EAGAIN, 1, 0, 1, 1, FOREVER);
	expect_answers(_metadata, &self->env, 2, 0);
}

/* Wait in a thread that has an answer to give, and gets a signal. */
static void signal_waiter(struct __test_metadata *_metadata, serve_t *self, uint64_t timeout_ns)
{
	struct waiter w = {
		.by = WAIT_SERVE, .fd = self->env.queue, .room = ROOM, .answers = self->r,
		.n_answers = 1, .timeout_ns = timeout_ns,
	};

	ASSERT_EQ(0, iopf_stats_reset(self->env.fd, self->env.dev.idev_id));
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	take_many(_metadata, self->env.queue, self->r, 1);
	waiter_start(_metadata, &w);
	ASSERT_EQ(0, pthread_kill(w.thread, SIGUSR1));
	EXPECT_EQ(-EINTR, waiter_result(&w, LONG_MS));
	EXPECT_EQ(1, w.cmd.response_num);
	EXPECT_EQ(0, w.cmd.message_num);
	expect_answers(_metadata, &self->env, 1, 0);
}

/* Also with SA_RESTART: the kernel would give the answers a second time. */
TEST_F(serve, signal)
{
	struct sigaction action = { .sa_handler = on_signal };

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	signal_waiter(_metadata, self, FOREVER);
	signal_waiter(_metadata, self, LONG_NS);
	action.sa_flags = SA_RESTART;
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	signal_waiter(_metadata, self, FOREVER);
	signal_waiter(_metadata, self, LONG_NS);
	/* one that had come before is no reason to leave a message */
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	expect_serve(0, 0, 1, 0, ROOM, FOREVER);
}

/* In a child: the result goes to the exit status, its counts through memory. */
static pid_t serve_in_child(serve_t *self, struct iommu_fault_serve *cmd)
{
	pid_t pid = fork();

	if (!pid)
		_exit(-fault_serve(self->env.queue, cmd, self->r, 1, self->m, ROOM, FOREVER));
	return pid;
}

/* Stopping is no signal with a handler, but it is not waited through either. */
TEST_F(serve, stop_and_continue)
{
	struct iommu_fault_serve *cmd = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
					     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, cmd);
	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	take_many(_metadata, self->env.queue, self->r, 1);
	pid = serve_in_child(self, cmd);
	ASSERT_TRUE(task_falls_asleep(pid));
	ASSERT_EQ(0, kill(pid, SIGSTOP));
	ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
	/* it is not in the way of others meanwhile */
	ASSERT_EQ(0, inject(&self->env, 2, 1, 1));
	expect_serve(0, 0, 1, 0, 1, FOREVER);
	ASSERT_EQ(0, kill(pid, SIGCONT));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(EINTR, WEXITSTATUS(status));
	EXPECT_EQ(1, cmd->response_num);
	EXPECT_EQ(0, cmd->message_num);
	expect_answers(_metadata, &self->env, 1, 0);
}

TEST_F(serve, sigkill)
{
	struct iommu_fault_serve cmd;
	int status;
	pid_t pid;

	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	take_many(_metadata, self->env.queue, self->r, 1);
	pid = serve_in_child(self, &cmd);
	ASSERT_TRUE(task_falls_asleep(pid));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	expect_answers(_metadata, &self->env, 1, 0);
	ASSERT_EQ(0, inject(&self->env, 2, 1, 1));
	expect_serve(0, 0, 1, 0, ROOM, FOREVER);
}

#define WAITERS 8

static void start_waiters(struct __test_metadata *_metadata, serve_t *self, struct waiter *w,
			  unsigned int room)
{
	unsigned int i;

	for (i = 0; i < WAITERS; i++) {
		w[i] = (struct waiter){
			.by = WAIT_SERVE, .fd = self->env.queue, .room = room,
			.timeout_ns = i % 2 ? 100 * LONG_NS : FOREVER,
		};
		waiter_start(_metadata, &w[i]);
	}
}

/*
 * Each fault ends one wait. Returns whether that was always the oldest: one that
 * does not come within a millisecond after it was woken may lose its turn.
 */
static bool served_in_order(struct __test_metadata *_metadata, serve_t *self)
{
	struct waiter w[WAITERS] = {};
	unsigned int i, next, done = 0;
	bool in_order = true;

	start_waiters(_metadata, self, w, ROOM);
	for (i = 0; i < WAITERS; i++) {
		ASSERT_EQ(0, inject(&self->env, 50 + i, 1, 1));
		next = next_waiter(w, WAITERS, done);
		ASSERT_GT(WAITERS, next);
		EXPECT_EQ(1, waiter_result(&w[next], LONG_MS));
		EXPECT_EQ(50 + i, w[next].m[0].grpid);
		in_order &= next == i;
		done |= 1 << next;
		EXPECT_EQ(WAITERS, next_waiter_in(w, WAITERS, done, i ? 0 : SHORT_MS));
	}
	return in_order;
}

TEST_F(serve, first_come_first_served)
{
	unsigned int round;

	for (round = 0; round < ROUNDS && !served_in_order(_metadata, self); round++)
		;
	if (round == ROUNDS)
		SKIP(return, NEVER_IN_ORDER);
}

/* With room for one group each, a burst is for all of them. */
TEST_F(serve, burst)
{
	struct waiter w[WAITERS] = {};
	unsigned int i, seen = 0;

	start_waiters(_metadata, self, w, 1);
	ASSERT_EQ(0, inject(&self->env, 0, WAITERS, 1));
	for (i = 0; i < WAITERS; i++) {
		ASSERT_EQ(1, waiter_result(&w[i], LONG_MS));
		seen |= 1 << w[i].m[0].grpid;
	}
	EXPECT_EQ((1 << WAITERS) - 1, seen);
}

/* A group that was what it was woken for is answered by a detach: it waits on. */
TEST_F(serve, detach)
{
	struct waiter w = {
		.by = WAIT_SERVE, .fd = self->env.queue, .room = ROOM, .timeout_ns = FOREVER,
	};
	struct fault_env *env = &self->env;
	unsigned int i;

	waiter_start(_metadata, &w);
	ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->plain_id));
	ASSERT_EQ(0, iommufd_destroy(env->fd, env->hwpt_id));
	EXPECT_EQ(-ETIME, waiter_result(&w, SHORT_MS));
	ASSERT_EQ(0, hwpt_alloc_paging(env->fd, env->dev.idev_id, env->ioas_id,
				       IOMMU_HWPT_FAULT_ID_VALID, env->queue_id, &env->hwpt_id));
	for (i = 0; i < 100 && !__atomic_load_n(&w.done, __ATOMIC_ACQUIRE); i++) {
		ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->hwpt_id));
		ASSERT_EQ(0, inject(env, 1, 1, 1));
		ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->plain_id));
	}
	ASSERT_EQ(0, mock_replace(env->fd, env->dev.stdev_id, env->hwpt_id));
	if (!__atomic_load_n(&w.done, __ATOMIC_ACQUIRE))
		ASSERT_EQ(0, inject(env, 1, 1, 1));
	EXPECT_EQ(1, waiter_result(&w, LONG_MS));
}

/* Another descriptor of the file, also one of another process; the call keeps the file. */
TEST_F(serve, dup_and_close)
{
	struct waiter w = {
		.by = WAIT_SERVE, .fd = dup(self->env.queue), .room = ROOM, .timeout_ns = FOREVER,
	};
	struct iommu_test_iopf_stats s = {};
	unsigned int ms;

	waiter_start(_metadata, &w);
	EXPECT_EQ(0, close(w.fd));
	fault_env_close_queue(&self->env);
	EXPECT_EQ(-EBUSY, iommufd_destroy(self->env.fd, self->env.queue_id));
	ASSERT_EQ(0, inject(&self->env, 3, 1, 1));
	EXPECT_EQ(1, waiter_result(&w, LONG_MS));
	EXPECT_EQ(3, w.m[0].grpid);
	/* that was the last who could have answered */
	for (ms = 0; ms < LONG_MS && !s.responses[INVALID]; ms++) {
		usleep(1000);
		ASSERT_EQ(0, iopf_stats(self->env.fd, self->env.dev.idev_id, &s));
	}
	EXPECT_EQ(1, s.responses[INVALID]);
}

TEST_F(serve, fork)
{
	struct iommu_fault_serve cmd;
	int status;
	pid_t pid;

	ASSERT_EQ(0, inject(&self->env, 1, 1, 1));
	take_many(_metadata, self->env.queue, self->r, 1);
	pid = serve_in_child(self, &cmd);
	ASSERT_TRUE(task_falls_asleep(pid));
	ASSERT_EQ(0, inject(&self->env, 2, 1, 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	expect_answers(_metadata, &self->env, 1, 0);
}

/* ---- queues with more than the plain contract ---- */

FIXTURE(special)
{
	struct fault_env env;
	struct iommu_fault_serve cmd;
	struct iommu_hwpt_pgfault m[ROOM];
	struct iommu_hwpt_page_response r[ROOM];
};

FIXTURE_SETUP(special)
{
}

FIXTURE_TEARDOWN(special)
{
	fault_env_close(_metadata, &self->env);
}

/* The deadline was faster than the answers: one is late, first, amid or last. */
TEST_F(special, stale)
{
	struct iommu_fault_alloc fields = { .deadline_ms = 1000, .deadline_code = INVALID };
	struct iommu_test_iopf_stats s = {};
	unsigned int ms, i;

	fault_env_open(_metadata, &self->env, &fields);
	if (_metadata->exit_code)
		return;
	ASSERT_EQ(0, inject(&self->env, 0, 3, 1));
	take_many(_metadata, self->env.queue, self->r, 3);
	for (ms = 0; ms < LONG_MS && s.responses[INVALID] < 3; ms++) {
		usleep(1000);
		ASSERT_EQ(0, iopf_stats(self->env.fd, self->env.dev.idev_id, &s));
	}
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(-ESTALE, fault_serve(self->env.queue, &self->cmd, &self->r[i], 3 - i,
					       self->m, ROOM, FOREVER));
		EXPECT_EQ(0, self->cmd.response_num);
		EXPECT_EQ(0, self->cmd.message_num);
	}
	expect_answers(_metadata, &self->env, 0, 3);
}

/* Single messages, whatever the room; a group is answered when all of it was read. */
TEST_F(special, immediate)
{
	struct fault_env *env = &self->env;
	unsigned int i;

	fault_env_flags(_metadata, env, IOMMU_FAULT_ALLOC_IMMEDIATE);
	if (_metadata->exit_code)
		return;
	ASSERT_EQ(0, iopf_inject(env->fd, env->dev.idev_id, 0, 7, ADDR, 1, 2,
				 IOMMU_TEST_IOPF_NO_LAST));
	for (i = 0; i < 2; i++) {
		expect_serve(0, 0, 1, 0, 1, FOREVER);
		EXPECT_EQ(IOMMU_PGFAULT_FLAGS_OPEN, self->m[0].flags);
		self->r[1] = (struct iommu_hwpt_page_response){ self->m[0].cookie, SUCCESS };
	}
	/* an answer that comes too early, behind a good one */
	ASSERT_EQ(0, inject(env, 8, 1, 1));
	expect_serve(0, 0, 1, 0, ROOM, FOREVER);
	self->r[0] = (struct iommu_hwpt_page_response){ self->m[0].cookie, SUCCESS };
	expect_serve(-EBUSY, 1, 0, 2, ROOM, FOREVER);
	expect_answers(_metadata, env, 1, 0);
	/* its last */
	ASSERT_EQ(0, inject(env, 7, 1, 1));
	expect_serve(0, 0, 1, 0, ROOM, FOREVER);
	EXPECT_EQ(self->r[1].cookie, self->m[0].cookie);
	EXPECT_EQ(IOMMU_PGFAULT_FLAGS_LAST_PAGE, self->m[0].flags);
	self->r[0] = self->r[1];
	expect_serve(0, 1, 0, 1, ROOM, 0);
	expect_answers(_metadata, env, 2, 0);
}

/* A group that a waiter has a part of is recalled: that is a message, too. */
TEST_F(special, recalled)
{
	struct fault_env *env = &self->env;
	struct waiter w = { .by = WAIT_SERVE, .room = ROOM, .timeout_ns = FOREVER };

	fault_env_flags(_metadata, env, IOMMU_FAULT_ALLOC_IMMEDIATE);
	if (_metadata->exit_code)
		return;
	w.fd = env->queue;
	ASSERT_EQ(0, iopf_inject(env->fd, env->dev.idev_id, 0, 7, ADDR, 1, 2,
				 IOMMU_TEST_IOPF_NO_LAST));
	expect_serve(0, 0, 2, 0, ROOM, FOREVER);
	waiter_start(_metadata, &w);
	ASSERT_EQ(0, iopf_event(env->fd, env->dev.idev_id, IOMMU_TEST_IOPF_OVERFLOW));
	ASSERT_EQ(1, waiter_result(&w, LONG_MS));
	EXPECT_EQ(IOMMU_PGFAULT_FLAGS_RECALLED, w.m[0].flags);
	EXPECT_EQ(self->m[0].cookie, w.m[0].cookie);
	self->r[0] = (struct iommu_hwpt_page_response){ w.m[0].cookie, SUCCESS };
	expect_serve(-ESTALE, 0, 0, 1, ROOM, FOREVER);
}

/* Nothing can come: whoever calls hears of it at once, also with answers that are late. */
TEST_F(special, no_device)
{
	static const uint64_t timeouts[] = { 0, LONG_NS, FOREVER };
	struct fault_env *env = &self->env;
	unsigned int i, fd;

	fault_env_flags(_metadata, env, 0);
	if (_metadata->exit_code)
		return;
	fd = env->queue;
	close(env->fd);
	for (i = 0; i < 3; i++)
		expect_serve(-ENODEV, 0, 0, 0, ROOM, timeouts[i]);
	EXPECT_EQ(POLLIN | POLLOUT | POLLHUP, fault_poll(fd, 0));
	/* for the teardown */
	close(fd);
	fault_env_flags(_metadata, env, 0);
}

TEST_HARNESS_MAIN
