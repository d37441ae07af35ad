// SPDX-License-Identifier: GPL-2.0-only
/*
 * User memory of reads and answers that is not there, up to each byte, or does not
 * come: a copy is held by userfaultfd.
 */
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "iommufd_fault_sides.h"

/* ---- user memory that is not there ---- */

FIXTURE(boundary)
{
	struct sides env;
	struct io_uring ring;
};

FIXTURE_SETUP(boundary)
{
	sides_open(_metadata, &self->env);
	if (self->env.plain_id)
		ASSERT_EQ(0, io_uring_queue_init(4, &self->ring, 0));
}

FIXTURE_TEARDOWN(boundary)
{
	if (self->env.plain_id)
		io_uring_queue_exit(&self->ring);
	sides_close(_metadata, &self->env);
}

static int or_errno(ssize_t rc)
{
	return rc == -1 ? -errno : (int)rc;
}

static int uring_result(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	int rc = io_uring_submit_and_wait(ring, 1);

	if (rc < 0 || io_uring_peek_cqe(ring, &cqe))
		return -EIO;
	rc = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return rc;
}

static int by_ring(struct io_uring *ring, uint8_t op, int fd, void *bytes, unsigned int size)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	io_uring_prep_rw(op, sqe, fd, bytes, size, 0);
	return uring_result(ring);
}

/* Bytes, as a read returns them */
static int serve_messages(int fd, void *to, unsigned int room)
{
	struct iommu_fault_serve cmd;
	int rc = fault_serve(fd, &cmd, NULL, 0, to, room, 0);

	return rc ?: (int)cmd.message_num * MSG;
}

/* Bytes, as a write returns them: an error is for the first answer */
static int serve_answers(int fd, const void *from, unsigned int n)
{
	struct iommu_fault_serve cmd;
	int rc = fault_serve(fd, &cmd, from, n, NULL, 0, 0);

	return cmd.response_num ? (int)cmd.response_num * ANSWER : rc;
}

enum way { BY_CALL, BY_VECTOR, BY_RING, BY_SERVE };

/* The same bytes, in two pieces that begin and end anywhere */
static int in_pieces(struct iovec *iov, char *bytes, size_t size, size_t there)
{
	iov[0] = (struct iovec){ bytes, there / 2 };
	iov[1] = (struct iovec){ bytes + there / 2, size - there / 2 };
	return 2;
}

static int take_by(int queue, struct io_uring *ring, enum way way, char *to, int there)
{
	struct iovec iov[2];

	if (way == BY_CALL)
		return (int)fault_read_bytes(queue, to, 4 * MSG);
	if (way == BY_RING)
		return by_ring(ring, IORING_OP_READ, queue, to, 4 * MSG);
	if (way == BY_SERVE)
		return serve_messages(queue, to, 4);
	return or_errno(readv(queue, iov, in_pieces(iov, to, 4 * MSG, there)));
}

/* Groups of one, two and one request; as many bytes of the buffer as there can be */
static void take_at(struct __test_metadata *_metadata, struct _test_data_boundary *self,
		    enum way way, int there)
{
	static const int whole[] = { 0, 1, 1, 3, 4 };
	struct sides *env = &self->env;
	int queue = env->bad.queue, wanted = whole[there / MSG], n;
	struct iommu_hwpt_pgfault m[4];

	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 1, 1));
	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 2, 1, 2));
	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 3, 1, 1));
	n = take_by(queue, &self->ring, way, env->fence - there, there);
	ASSERT_EQ(wanted ? wanted * MSG : -EFAULT, n);
	memcpy(m, env->fence - there, wanted * MSG);
	/* What was not read is there, in its order, and nothing twice. */
	n = (int)fault_read(queue, m + wanted, 4 - wanted);
	ASSERT_EQ(4 - wanted, n);
	EXPECT_EQ(1, m[0].grpid);
	EXPECT_EQ(2, m[1].grpid);
	EXPECT_EQ(2, m[2].grpid);
	EXPECT_EQ(3, m[3].grpid);
	EXPECT_EQ(0, fault_answer(queue, m[0].cookie, SUCCESS));
	EXPECT_EQ(0, fault_answer(queue, m[2].cookie, SUCCESS));
	EXPECT_EQ(0, fault_answer(queue, m[3].cookie, SUCCESS));
	EXPECT_EQ(0, stats_of(env, &env->bad).outstanding);
}

TEST_F(boundary, read)
{
	int there;

	for (there = 0; there <= 4 * MSG; there++)
		take_at(_metadata, self, BY_CALL, there);
}

TEST_F(boundary, readv)
{
	int there;

	for (there = 0; there <= 4 * MSG; there++)
		take_at(_metadata, self, BY_VECTOR, there);
}

TEST_F(boundary, uring)
{
	int there;

	for (there = 0; there <= 4 * MSG; there++)
		take_at(_metadata, self, BY_RING, there);
}

/* That wants its memory aligned, so it gets the boundary at every eighth byte. */
TEST_F(boundary, serve)
{
	int there;

	for (there = 0; there <= 4 * MSG; there += 8)
		take_at(_metadata, self, BY_SERVE, there);
}

static int give(int queue, struct io_uring *ring, enum way way, char *from, int there)
{
	struct iovec iov[2];

	if (way == BY_CALL)
		return (int)fault_write_bytes(queue, from, 3 * ANSWER);
	if (way == BY_RING)
		return by_ring(ring, IORING_OP_WRITE, queue, from, 3 * ANSWER);
	if (way == BY_SERVE)
		return serve_answers(queue, from, 3);
	return or_errno(writev(queue, iov, in_pieces(iov, from, 3 * ANSWER, there)));
}

static void give_at(struct __test_metadata *_metadata, struct _test_data_boundary *self,
		    enum way way, int there)
{
	int queue = self->env.bad.queue, whole = there / ANSWER, i, rc;
	struct sides *env = &self->env;
	struct iommu_hwpt_page_response r[3];
	struct iommu_hwpt_pgfault m[3];

	ASSERT_EQ(0, inject_side(env, &env->bad, 0, 1, 3, 1));
	ASSERT_EQ(3, fault_read(queue, m, 3));
	for (i = 0; i < 3; i++)
		r[i] = (struct iommu_hwpt_page_response){ .cookie = m[i].cookie };
	memcpy(env->fence - there, r, there);
	rc = give(queue, &self->ring, way, env->fence - there, there);
	EXPECT_EQ(whole ? whole * ANSWER : -EFAULT, rc);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(i < whole ? -EINVAL : 0, fault_answer(queue, m[i].cookie, SUCCESS));
	EXPECT_EQ(0, stats_of(env, &env->bad).outstanding);
}

static void give_all(struct __test_metadata *_metadata, struct _test_data_boundary *self,
		     enum way way)
{
	int there;

	for (there = 0; there <= 3 * ANSWER; there++)
		give_at(_metadata, self, way, there);
}

TEST_F(boundary, write)
{
	give_all(_metadata, self, BY_CALL);
}

TEST_F(boundary, writev)
{
	give_all(_metadata, self, BY_VECTOR);
}

TEST_F(boundary, uring_write)
{
	give_all(_metadata, self, BY_RING);
}

TEST_F(boundary, serve_answers)
{
	give_all(_metadata, self, BY_SERVE);
}

/* ---- user memory that does not come: a copy is held by userfaultfd ---- */

enum held {
	HELD_READ, HELD_URING_READ, HELD_MESSAGES,
	HELD_WRITE, HELD_URING_WRITE, HELD_ANSWERS,
};

FIXTURE(held)
{
	struct sides env;
	int uffd;
	char *page;
	pthread_t thread;
	enum held what;
	ssize_t result;
	bool done;
	struct iommu_hwpt_pgfault m;
};

FIXTURE_VARIANT(held)
{
	enum held what;
};

FIXTURE_VARIANT_ADD(held, read)
{
	.what = HELD_READ,
};

FIXTURE_VARIANT_ADD(held, write)
{
	.what = HELD_WRITE,
};

FIXTURE_VARIANT_ADD(held, uring_read)
{
	.what = HELD_URING_READ,
};

FIXTURE_VARIANT_ADD(held, uring_write)
{
	.what = HELD_URING_WRITE,
};

FIXTURE_VARIANT_ADD(held, serve_messages)
{
	.what = HELD_MESSAGES,
};

FIXTURE_VARIANT_ADD(held, serve_answers)
{
	.what = HELD_ANSWERS,
};

static bool takes(enum held what)
{
	return what < HELD_WRITE;
}

static void *held_thread(void *arg)
{
	struct _test_data_held *self = arg;
	int queue = self->env.bad.queue;
	struct io_uring ring;

	if (io_uring_queue_init(4, &ring, 0))
		return NULL;
	switch (self->what) {
	case HELD_READ:
		self->result = fault_read_bytes(queue, self->page, MSG);
		break;
	case HELD_WRITE:
		self->result = fault_write_bytes(queue, self->page, ANSWER);
		break;
	case HELD_URING_READ:
		self->result = by_ring(&ring, IORING_OP_READ, queue, self->page, MSG);
		break;
	case HELD_URING_WRITE:
		self->result = by_ring(&ring, IORING_OP_WRITE, queue, self->page, ANSWER);
		break;
	case HELD_MESSAGES:
		self->result = serve_messages(queue, self->page, 1);
		break;
	case HELD_ANSWERS:
		self->result = serve_answers(queue, self->page, 1);
		break;
	}
	io_uring_queue_exit(&ring);
	__atomic_store_n(&self->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Make a page that a copy waits at, a group, and a thread that does the copy. */
FIXTURE_SETUP(held)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffd_msg msg;

	sides_open(_metadata, &self->env);
	if (!self->env.plain_id)
		return;
	self->what = variant->what;
	self->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (self->uffd < 0 || ioctl(self->uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd");
	self->page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->page);
	area.range.start = (uintptr_t)self->page;
	area.range.len = PAGE;
	ASSERT_EQ(0, ioctl(self->uffd, UFFDIO_REGISTER, &area));
	ASSERT_EQ(0, inject_side(&self->env, &self->env.bad, 0, 1, 1, 1));
	if (!takes(self->what))
		ASSERT_EQ(1, fault_read(self->env.bad.queue, &self->m, 1));
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, held_thread, self));
	ASSERT_EQ((ssize_t)sizeof(msg), read(self->uffd, &msg, sizeof(msg)));
	ASSERT_EQ((uintptr_t)self->page, msg.arg.pagefault.address);
}

/* Let the copy go on with @bytes for the page; its result. */
static ssize_t held_finish(struct _test_data_held *self, const void *bytes, size_t size)
{
	static char page[PAGE] __attribute__((aligned(4096)));
	struct uffdio_copy copy = {
		.dst = (uintptr_t)self->page, .src = (uintptr_t)page, .len = PAGE,
	};

	memset(page, 0, PAGE);
	memcpy(page, bytes, size);
	if (!self->thread)
		return 0;
	if (ioctl(self->uffd, UFFDIO_COPY, &copy))
		return -errno;
	pthread_join(self->thread, NULL);
	self->thread = 0;
	return self->result;
}

FIXTURE_TEARDOWN(held)
{
	if (self->thread)
		held_finish(self, "", 1);
	close(self->uffd);
	sides_close(_metadata, &self->env);
}

static ssize_t held_end(struct _test_data_held *self)
{
	struct iommu_hwpt_page_response r = { .cookie = self->m.cookie };

	return held_finish(self, &r, takes(self->what) ? 0 : sizeof(r));
}

/* With nothing else going on it works. */
TEST_F(held, goes_on)
{
	struct iommu_hwpt_pgfault *m = (void *)self->page;

	if (!takes(variant->what)) {
		EXPECT_EQ(ANSWER, held_end(self));
	} else {
		EXPECT_EQ(MSG, held_end(self));
		EXPECT_EQ(0, fault_answer(self->env.bad.queue, m->cookie, SUCCESS));
	}
	EXPECT_EQ(1, stats_of(&self->env, &self->env.bad).responses[SUCCESS]);
}

/* The device of the held copy leaves: its groups are answered, the copy is late. */
TEST_F(held, detach)
{
	struct iommu_hwpt_pgfault *m = (void *)self->page;
	struct sides *env = &self->env;

	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->plain_id));
	EXPECT_FALSE(__atomic_load_n(&self->done, __ATOMIC_SEQ_CST));
	EXPECT_EQ(1, stats_of(env, &env->bad).responses[SUCCESS]);
	if (!takes(variant->what)) {
		EXPECT_EQ(-EINVAL, held_end(self));
	} else {
		EXPECT_EQ(MSG, held_end(self));
		EXPECT_EQ(-EINVAL, fault_answer(env->bad.queue, m->cookie, SUCCESS));
	}
	EXPECT_EQ(1, stats_of(env, &env->bad).responses[SUCCESS]);
	ASSERT_EQ(0, mock_replace(env->fd, env->bad.dev.stdev_id, env->bad.hwpt_id));
	EXPECT_TRUE(works(env, &env->bad));
}

/* The device itself goes. */
TEST_F(held, destroy_device)
{
	struct sides *env = &self->env;

	ASSERT_EQ(0, iommufd_destroy(env->fd, env->bad.dev.stdev_id));
	EXPECT_FALSE(__atomic_load_n(&self->done, __ATOMIC_SEQ_CST));
	EXPECT_EQ(takes(variant->what) ? MSG : -EINVAL, held_end(self));
	ASSERT_EQ(0, mock_device_create(env->fd, env->bad.hwpt_id, MOCK_FLAGS_DEVICE_PASID,
					&env->bad.dev));
	EXPECT_TRUE(works(env, &env->bad));
}

/* Another queue, and another reader and writer of the same one, do not notice. */
TEST_F(held, others_go_on)
{
	struct sides *env = &self->env;
	int i;

	for (i = 0; i < 10; i++) {
		ASSERT_TRUE(works(env, &env->good));
		ASSERT_EQ(0, mock_replace(env->fd, env->good.dev.stdev_id, env->plain_id));
		ASSERT_EQ(0, mock_replace(env->fd, env->good.dev.stdev_id, env->good.hwpt_id));
	}
	ASSERT_TRUE(works(env, &env->bad));
	EXPECT_FALSE(__atomic_load_n(&self->done, __ATOMIC_SEQ_CST));
	held_end(self);
}

TEST_HARNESS_MAIN
