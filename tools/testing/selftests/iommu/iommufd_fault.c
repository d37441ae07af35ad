// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the file of iommufd's fault queue: how it is allocated, what is read from
 * it, and what is written to it.
 */
#include <sys/resource.h>
#include <sys/uio.h>

/* Some send as many requests as a mock device ever may have outstanding. */
#define HARNESS_RESERVE 8448

#include "../../../iommu/lib/iopf.h"
#include "iommufd_fault_queue.h"

static unsigned int count_fds(void)
{
	unsigned int fd, n = 0;

	for (fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

TEST_F(fault, alloc_errors)
{
	struct iommu_fault_alloc cmd = { .size = sizeof(cmd) };
	struct rlimit old, tight = {};
	unsigned int fds = count_fds();
	int fd = self->env.fd;
	char *end = fence(_metadata, PAGE);
	struct queue q;

	EXPECT_EQ(-EOPNOTSUPP, fault_queue_alloc_flags(fd, 1U << 31, &q.id, &q.fd));
	EXPECT_EQ(-EOPNOTSUPP, fault_queue_alloc_flags(fd, UINT32_MAX, &q.id, &q.fd));
	cmd.size = offsetof(struct iommu_fault_alloc, depth) - 1;
	EXPECT_EQ(-EINVAL, iommufd_call(fd, IOMMU_FAULT_QUEUE_ALLOC, &cmd));
	EXPECT_EQ(-EFAULT, iommufd_call(fd, IOMMU_FAULT_QUEUE_ALLOC, end));

	/* The arguments can be read, but what comes out cannot be written. */
	cmd.size = sizeof(cmd);
	memcpy(end - PAGE, &cmd, sizeof(cmd));
	ASSERT_EQ(0, mprotect(end - PAGE, PAGE, PROT_READ));
	EXPECT_EQ(-EFAULT, iommufd_call(fd, IOMMU_FAULT_QUEUE_ALLOC, end - PAGE));

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	tight.rlim_max = old.rlim_max;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &tight));
	EXPECT_EQ(-EMFILE, fault_queue_alloc(fd, &q.id, &q.fd));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	EXPECT_EQ(fds, count_fds());

	/* A descriptor that one of these gave back too often would be found now. */
	ASSERT_EQ(0, fault_queue_alloc(fd, &q.id, &q.fd));
	EXPECT_EQ(fds + 1, count_fds());
	EXPECT_EQ(FD_CLOEXEC, fcntl(q.fd, F_GETFD));
	EXPECT_EQ(0, close(q.fd));
	EXPECT_EQ(0, iommufd_destroy(fd, q.id));
	EXPECT_EQ(-ENOENT, iommufd_destroy(fd, q.id));
}

/* A larger structure is one of a later kernel: good as long as the rest is 0. */
TEST_F(fault, alloc_larger)
{
	struct {
		struct iommu_fault_alloc cmd;
		char rest[64];
	} large = { .cmd.size = sizeof(large) };
	int fd = self->env.fd;

	ASSERT_EQ(0, iommufd_call(fd, IOMMU_FAULT_QUEUE_ALLOC, &large));
	EXPECT_EQ(0, close((int)large.cmd.out_fault_fd));
	EXPECT_EQ(0, iommufd_destroy(fd, large.cmd.out_fault_id));
	large.rest[63] = 1;
	EXPECT_EQ(-E2BIG, iommufd_call(fd, IOMMU_FAULT_QUEUE_ALLOC, &large));
}

TEST_F(fault, hwpt_errors)
{
	struct env *env = &self->env;
	uint32_t id, dev = self->dev->idev_id;
	int rc;

	EXPECT_EQ(-EOPNOTSUPP,
		  hwpt_alloc_paging(env->fd, dev, env->ioas_id,
				    IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_FAULT_ID_VALID,
				    self->queue->id, &id));
	EXPECT_EQ(-EOPNOTSUPP, hwpt_alloc_paging(env->fd, dev, env->ioas_id, 1U << 31, 0, &id));
	if (!env->additions)
		return;
	/* The mock device has no PASIDs, which Linux 7.3 allows; no such queue; not a queue. */
	rc = hwpt_alloc_paging(env->fd, dev, env->ioas_id, IOMMU_HWPT_ALLOC_PASID, 0, &id);
	if (!rc)
		rc = iommufd_destroy(env->fd, id);
	else if (rc == -EOPNOTSUPP)
		rc = 0;
	EXPECT_EQ(0, rc);
	EXPECT_EQ(-ENOENT, hwpt_alloc_paging(env->fd, dev, env->ioas_id,
					     IOMMU_HWPT_FAULT_ID_VALID, UINT32_MAX, &id));
	EXPECT_EQ(-ENOENT, hwpt_alloc_paging(env->fd, dev, env->ioas_id,
					     IOMMU_HWPT_FAULT_ID_VALID, env->ioas_id, &id));
}

/* Every byte of a message is the kernel's, whatever was in the buffer. */
TEST_F(fault, message)
{
	struct iommu_hwpt_pgfault got[2], want = {
		.dev_id = self->dev->idev_id,
		.grpid = 0x1fe,
		.perm = IOMMU_PGFAULT_PERM_EXEC | IOMMU_PGFAULT_PERM_PRIV,
		.addr = 0xfedcba9876543000,
	};
	uint32_t ids = self->dev->idev_id;
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)&ids,
		.nr_devs = 1,
		.addr = want.addr,
		.groups = 1,
		.requests = 2,
		.grpid = want.grpid,
		.nr_pasids = 1,
		.perm = want.perm,
		/* all that the kernel has no use for */
		.prm_flags = ~(IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE |
			       PRM_REFUSED),
	};

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	memset(got, 0xaa, sizeof(got));
	ASSERT_EQ(0, iopf_batch(self->env.fd, &batch));
	EXPECT_EQ(2, batch.out_accepted);
	ASSERT_EQ(2, fault_read(self->queue->fd, got, 2));
	EXPECT_NE(0, got[0].cookie);
	want.cookie = got[0].cookie;
	EXPECT_EQ(0, memcmp(&want, &got[0], sizeof(want)));
	want.flags = IOMMU_PGFAULT_FLAGS_LAST_PAGE;
	want.addr += PAGE;
	EXPECT_EQ(0, memcmp(&want, &got[1], sizeof(want)));
}

TEST_F(fault, read_sizes_and_offsets)
{
	char buffer[3 * MSG];
	struct iovec iov = { buffer, sizeof(buffer) };
	int fd = self->queue->fd;
	struct iommu_hwpt_pgfault m;
	int i;

	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, fault_read_bytes(fd, buffer, 0));
		EXPECT_EQ(-ESPIPE, fault_read_bytes(fd, buffer, 1));
		EXPECT_EQ(-ESPIPE, fault_read_bytes(fd, buffer, MSG - 1));
		EXPECT_EQ(-ESPIPE, fault_read_bytes(fd, buffer, MSG + 1));
		EXPECT_EQ(-1, pread(fd, buffer, MSG, MSG));
		EXPECT_EQ(ESPIPE, errno);
		EXPECT_EQ(-1, preadv2(fd, &iov, 1, MSG, 0));
		EXPECT_EQ(ESPIPE, errno);
		EXPECT_EQ(-1, lseek(fd, 0, SEEK_SET));
		EXPECT_EQ(ESPIPE, errno);
		if (!self->env.additions)
			return;
		/* the same again with a fault, which must survive all that */
		if (!i)
			inject_from(_metadata, &self->env, self->dev, 7, 1, 1);
	}
	m = take(_metadata, fd);
	EXPECT_EQ(7, m.grpid);
	EXPECT_EQ(0, fault_answer(fd, m.cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
}

TEST_F(fault, read_empty)
{
	struct iommu_hwpt_pgfault m;
	int fd = self->queue->fd;

	EXPECT_EQ(0, fault_read(fd, &m, 1));
	ASSERT_EQ(0, fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK));
	EXPECT_EQ(0, fault_read(fd, &m, 1));
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	take(_metadata, fd);
	EXPECT_EQ(0, fault_read(fd, &m, 1));
}

TEST_F(fault, read_nowait)
{
	struct iommu_hwpt_pgfault m;
	struct iovec iov = { &m, sizeof(m) };
	int fd = self->queue->fd;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	EXPECT_EQ(-1, preadv2(fd, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_EQ(EAGAIN, errno);
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	EXPECT_EQ(MSG, preadv2(fd, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_EQ(-1, preadv2(fd, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_EQ(EAGAIN, errno);
}

/* One read into several pieces of memory, none of which holds whole messages. */
TEST_F(fault, readv)
{
	struct iommu_hwpt_pgfault m[4];
	struct iovec iov[3] = {
		{ m, 50 }, { (char *)m + 50, 3 }, { (char *)m + 53, sizeof(m) - 53 },
	};
	unsigned int i;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	memset(m, 0xaa, sizeof(m));
	inject_from(_metadata, &self->env, self->dev, 5, 2, 2);
	ASSERT_EQ(sizeof(m), readv(self->queue->fd, iov, 3));
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(5 + i / 2, m[i].grpid);
		EXPECT_EQ(ADDR + i * PAGE, m[i].addr);
		EXPECT_EQ(0, m[i].__reserved);
	}
}

/* Only whole groups, as many as fit, in their order. */
TEST_F(fault, whole_groups)
{
	static const unsigned int room[] = { 5, 3, 4, 7 }, want[] = { 3, 3, 3, 6 };
	struct iommu_hwpt_pgfault m[8];
	int fd = self->queue->fd;
	struct iopf_group group;
	struct iopf_iter iter;
	uint32_t grpid = 10;
	unsigned int i;
	ssize_t n;

	inject_from(_metadata, &self->env, self->dev, 10, 5, 3);
	for (i = 0; i < 4; i++) {
		memset(m, 0, sizeof(m));
		n = fault_read(fd, m, room[i]);
		ASSERT_EQ(want[i], n);
		EXPECT_EQ(0, m[n].cookie);
		iter = iopf_groups(m, n);
		while (iopf_next_group(&iter, &group) == 1) {
			EXPECT_EQ(3, group.n);
			EXPECT_EQ(grpid++, group.grpid);
			EXPECT_EQ(0, fault_answer(fd, group.cookie, SUCCESS));
		}
		EXPECT_EQ(iter.end, iter.next);
	}
	EXPECT_EQ(15, grpid);
	expect_empty(_metadata, fd);
	expect_answers_of(_metadata, &self->env, self->dev, 5, 0);
}

TEST_F(fault, first_group_too_large)
{
	struct iommu_hwpt_pgfault m[4];
	int i, fd = self->queue->fd;

	inject_from(_metadata, &self->env, self->dev, 1, 1, 3);
	inject_from(_metadata, &self->env, self->dev, 2, 1, 1);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(-EINVAL, fault_read(fd, m, 1));
		EXPECT_EQ(-EINVAL, fault_read(fd, m, 2));
		EXPECT_EQ(POLLIN | POLLOUT, fault_poll(fd, 0));
	}
	ASSERT_EQ(4, fault_read(fd, m, 4));
	EXPECT_EQ(1, m[0].grpid);
	EXPECT_EQ(2, m[3].grpid);
	EXPECT_EQ(0, fault_answer(fd, m[3].cookie, SUCCESS));
	EXPECT_EQ(0, fault_answer(fd, m[2].cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 2, 0);
}

static const unsigned int efault_sizes[] = { 1, 3, 2, 1, 9, 8 };

/* How many of the first @n messages of these groups are whole groups. */
static unsigned int efault_whole(unsigned int n)
{
	unsigned int i, whole = 0;

	for (i = 0; i < 6 && whole + efault_sizes[i] <= n; i++)
		whole += efault_sizes[i];
	return whole;
}

/* A copy that faults may stop as many bytes short of the fault: arm64 copies blocks. */
#ifdef __aarch64__
#define COPY_BLOCK	64
#else
#define COPY_BLOCK	0
#endif

/* How many items of @size are surely copied if the fault is @fits bytes away. */
static unsigned int efault_surely(size_t fits, size_t size)
{
	return fits < COPY_BLOCK ? 0 : (fits - COPY_BLOCK) / size;
}

/*
 * The buffer ends early, behind each message and amid each: whole groups that
 * fit arrive, the others are read next, in order and as often as they were sent.
 */
TEST_F(fault, read_efault)
{
	unsigned int i, cut, extra, whole, round = 0, total = efault_whole(UINT32_MAX);
	char *end = fence(_metadata, 2 * PAGE);
	struct iommu_hwpt_pgfault m[64];
	int fd = self->queue->fd;
	ssize_t rc;

	for (cut = 0; cut < total; cut++) {
		for (extra = 0; extra < MSG; extra += 16) {
			for (i = 0; i < 6; i++)
				inject_from(_metadata, &self->env, self->dev, i, 1,
					    efault_sizes[i]);
			rc = fault_read_bytes(fd, end - cut * MSG - extra, total * MSG);
			ASSERT_NE(0, rc);
			whole = rc < 0 ? 0 : rc / MSG;
			ASSERT_EQ(whole ? (ssize_t)(whole * MSG) : -EFAULT, rc);
			ASSERT_EQ(whole, efault_whole(whole));
			ASSERT_LE(whole, efault_whole(cut));
			ASSERT_GE(whole, efault_whole(efault_surely(cut * MSG + extra, MSG)));
			memcpy(m, end - cut * MSG - extra, whole * MSG);
			EXPECT_EQ(POLLIN | POLLOUT, fault_poll(fd, 0));
			ASSERT_EQ(total - whole, fault_read(fd, m + whole, 64 - whole));
			for (i = 0, rc = 0; i < total; rc += efault_sizes[m[i].grpid],
			     i += efault_sizes[m[i].grpid]) {
				ASSERT_EQ(i, efault_whole(i));
				EXPECT_EQ(0, fault_answer(fd, m[i].cookie, SUCCESS));
			}
			EXPECT_EQ(total, rc);
			expect_empty(_metadata, fd);
			round++;
		}
	}
	expect_answers_of(_metadata, &self->env, self->dev, round * 6, 0);
}

TEST_F(fault, write_errors)
{
	struct iommu_hwpt_page_response r = { .code = SUCCESS };
	struct iovec iov = { &r, sizeof(r) };
	int fd = self->queue->fd;

	inject_from(_metadata, &self->env, self->dev, 3, 1, 1);
	r.cookie = take(_metadata, fd).cookie;
	EXPECT_EQ(0, fault_write_bytes(fd, &r, 0));
	EXPECT_EQ(-ESPIPE, fault_write_bytes(fd, &r, ANSWER - 1));
	EXPECT_EQ(-ESPIPE, fault_write_bytes(fd, &r, 1));
	EXPECT_EQ(-1, pwrite(fd, &r, ANSWER, ANSWER));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, pwritev2(fd, &iov, 1, ANSWER, 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-EFAULT, fault_write_bytes(fd, fence(_metadata, PAGE), ANSWER));
	EXPECT_EQ(-EFAULT, fault_write_bytes(fd, fence(_metadata, PAGE) - 4, ANSWER));
	EXPECT_EQ(-EINVAL, fault_answer(fd, r.cookie, FAILURE + 1));
	EXPECT_EQ(-EINVAL, fault_answer(fd, r.cookie, 0xf));
	EXPECT_EQ(-EINVAL, fault_answer(fd, r.cookie, UINT32_MAX));
	EXPECT_EQ(-EINVAL, fault_answer(fd, r.cookie + 1, SUCCESS));
	EXPECT_EQ(-EINVAL, fault_answer(fd, r.cookie - 1, SUCCESS));
	EXPECT_EQ(-EINVAL, fault_answer(fd, r.cookie ^ 1U << 31, SUCCESS));
	EXPECT_EQ(-EINVAL, fault_answer(fd, 0, SUCCESS));
	EXPECT_EQ(-EINVAL, fault_answer(fd, UINT32_MAX, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 0, 0);
	/* nothing of this has touched the group */
	EXPECT_EQ(0, fault_answer(fd, r.cookie, SUCCESS));
	EXPECT_EQ(-EINVAL, fault_answer(fd, r.cookie, SUCCESS));
	EXPECT_EQ(-EINVAL, fault_answer(fd, r.cookie, INVALID));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
}

/* A write stops at the first bad answer and tells how far it came. */
TEST_F(fault, partial_write)
{
	/* The kernel takes 64 at a time. */
	static const unsigned int bad[] = { 0, 1, 2, 31, 32, 33, 70, 99, 63, 64, 65 };
	struct iommu_hwpt_page_response r[100];
	int fd = self->queue->fd;
	uint32_t cookie;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		ASSERT_EQ(0, iopf_stats_reset(self->env.fd, self->dev->idev_id));
		inject_from(_metadata, &self->env, self->dev, 0, 100, 1);
		take_many(_metadata, fd, r, 100);
		cookie = r[bad[i]].cookie;
		if (i % 2)
			r[bad[i]].cookie = 0;
		else
			r[bad[i]].code = FAILURE + 1;
		EXPECT_EQ(bad[i] ? (int)bad[i] : -EINVAL, fault_write(fd, r, 100));
		EXPECT_EQ(-EINVAL, fault_write(fd, r + bad[i], 100 - bad[i]));
		expect_answers_of(_metadata, &self->env, self->dev, bad[i], 0);
		r[bad[i]].cookie = cookie;
		r[bad[i]].code = INVALID;
		EXPECT_EQ(100 - bad[i], fault_write(fd, r + bad[i], 100 - bad[i]));
		expect_answers_of(_metadata, &self->env, self->dev, 99, 1);
	}
}

/* A duplicate within one write is as unknown as one in the next. */
TEST_F(fault, duplicate_in_write)
{
	struct iommu_hwpt_page_response r[3];
	int fd = self->queue->fd;

	inject_from(_metadata, &self->env, self->dev, 0, 2, 1);
	take_many(_metadata, fd, r, 2);
	r[2] = r[1];
	r[1] = r[0];
	EXPECT_EQ(1, fault_write(fd, r, 3));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
	EXPECT_EQ(1, fault_write(fd, r + 2, 1));
	expect_answers_of(_metadata, &self->env, self->dev, 2, 0);
}

TEST_F(fault, write_efault)
{
	static const unsigned int readable[] = { 1, 31, 32, 33, 64, 99 };
	char *end = fence(_metadata, PAGE);
	struct iommu_hwpt_page_response r[100];
	int fd = self->queue->fd;
	unsigned int i, n;
	ssize_t done;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	for (i = 0; i < 6; i++) {
		n = readable[i];
		ASSERT_EQ(0, iopf_stats_reset(self->env.fd, self->dev->idev_id));
		inject_from(_metadata, &self->env, self->dev, 0, 100, 1);
		take_many(_metadata, fd, r, 100);
		/* three bytes of the next answer can be read, too */
		memcpy(end - n * ANSWER - 3, r, n * ANSWER + 3);
		done = fault_write(fd, (void *)(end - n * ANSWER - 3), 100);
		if (done == -EFAULT)
			done = 0;
		EXPECT_GE(n, done);
		EXPECT_LE(efault_surely(n * ANSWER + 3, ANSWER), done);
		expect_answers_of(_metadata, &self->env, self->dev, done, 0);
		EXPECT_EQ(100 - done, fault_write(fd, r + done, 100 - done));
		expect_answers_of(_metadata, &self->env, self->dev, 100, 0);
	}
}

TEST_F(fault, codes)
{
	struct iommu_test_iopf_stats s;
	struct iommu_hwpt_pgfault m[2];
	int fd = self->queue->fd;
	uint32_t code;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	for (code = SUCCESS; code <= FAILURE; code++) {
		inject_from(_metadata, &self->env, self->dev, 100 + code, 1, 2);
		inject_from(_metadata, &self->env, self->dev, 200, 1, 1);
		ASSERT_EQ(2, fault_read(fd, m, 2));
		EXPECT_EQ(0, fault_answer(fd, m[1].cookie, code));
		ASSERT_EQ(0, iopf_stats(self->env.fd, self->dev->idev_id, &s));
		EXPECT_EQ(1, s.responses[code]);
		EXPECT_EQ(code, s.last_code);
		EXPECT_EQ(100 + code, s.last_grpid);
		EXPECT_EQ(IOMMU_PGFAULT_FLAGS_LAST_PAGE, s.last_flags);
		take(_metadata, fd);
	}
}

static int compare_cookies(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* More groups than the queue has slots: each cookie is new, and old ones are dead. */
TEST_F(fault, cookies_are_not_reused)
{
	enum { BATCH = 100, TIMES = 100 };
	struct iommu_hwpt_page_response r[BATCH], old[BATCH];
	uint32_t *cookies = anonymous(_metadata, BATCH * TIMES * sizeof(*cookies));
	int fd = self->queue->fd;
	unsigned int i, j;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	for (i = 0; i < TIMES; i++) {
		inject_from(_metadata, &self->env, self->dev, 0, BATCH, 1);
		take_many(_metadata, fd, r, BATCH);
		for (j = 0; j < BATCH; j++)
			cookies[i * BATCH + j] = r[j].cookie;
		for (j = 0; i && j < BATCH; j++)
			ASSERT_EQ(-EINVAL, fault_write(fd, old + j, 1));
		ASSERT_EQ(BATCH, fault_write(fd, r, BATCH));
		memcpy(old, r, sizeof(r));
	}
	/* the first ones by now name slots that were used again */
	for (j = 0; j < BATCH; j++)
		ASSERT_EQ(-EINVAL, fault_answer(fd, cookies[j], SUCCESS));
	qsort(cookies, BATCH * TIMES, sizeof(*cookies), compare_cookies);
	EXPECT_NE(0, cookies[0]);
	for (i = 1; i < BATCH * TIMES; i++)
		ASSERT_NE(cookies[i - 1], cookies[i]);
	expect_answers_of(_metadata, &self->env, self->dev, BATCH * TIMES, 0);
}

/*
 * With the slot in use again, its old cookie still answers nothing. The queue
 * is kept full but for one group, so that one slot is all there is to use.
 */
TEST_F(fault, stale_cookie_of_used_slot)
{
	struct iommu_hwpt_page_response r[DEPTH - 1];
	uint32_t first, second;
	int fd = self->queue->fd;

	if (!self->env.additions)
		SKIP(return, ONLY_INJECTOR);
	inject_from(_metadata, &self->env, self->dev, 0, DEPTH - 1, 1);
	take_many(_metadata, fd, r, DEPTH - 1);
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	first = take(_metadata, fd).cookie;
	EXPECT_EQ(0, fault_answer(fd, first, SUCCESS));
	inject_from(_metadata, &self->env, self->dev, 1, 1, 1);
	second = take(_metadata, fd).cookie;
	EXPECT_NE(first, second);
	EXPECT_EQ(-EINVAL, fault_answer(fd, first, SUCCESS));
	EXPECT_EQ(0, fault_answer(fd, second, SUCCESS));
	EXPECT_EQ(DEPTH - 1, fault_write(fd, r, DEPTH - 1));
	expect_answers_of(_metadata, &self->env, self->dev, DEPTH + 1, 0);
}

/* A read that failed has leaked the cookie, but the group was not delivered. */
TEST_F(fault, cookie_of_queued_group)
{
	char *end = fence(_metadata, PAGE);
	struct iommu_hwpt_pgfault *leaked = (void *)(end - MSG), m[2];
	int fd = self->queue->fd;

	inject_from(_metadata, &self->env, self->dev, 9, 1, 2);
	ASSERT_EQ(-EFAULT, fault_read(fd, leaked, 2));
	EXPECT_EQ(9, leaked->grpid);
	EXPECT_EQ(-EINVAL, fault_answer(fd, leaked->cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 0, 0);
	ASSERT_EQ(2, fault_read(fd, m, 2));
	EXPECT_EQ(0, fault_answer(fd, m[1].cookie, SUCCESS));
	expect_answers_of(_metadata, &self->env, self->dev, 1, 0);
}

TEST_HARNESS_MAIN
