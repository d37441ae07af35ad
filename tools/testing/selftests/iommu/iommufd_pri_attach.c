// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page tables of a device's RID and PASIDs are attached, replaced and detached, and
 * all is closed, while page requests are on their way.
 */
#include <linux/pci_regs.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include "iommufd_pri_device.h"

/* A second address space, with its own queue, for the fixture's device. */
struct other {
	struct iopf_queue queue;
	uint32_t ioas;
	uint32_t plain;
	uint32_t faulting;
};

static int other_open(struct server *server, struct other *other)
{
	struct iopf *io = &server->io;
	uint32_t dev_id = server->unit[0].pri.vfio.id;

	return iopf_queue_alloc(io, 0, &other->queue) ?:
	       iopf_ioas_alloc(io, &other->ioas) ?:
	       iopf_hwpt_alloc(io, dev_id, other->ioas, IOMMU_HWPT_ALLOC_PASID, 0,
			       &other->plain) ?:
	       iopf_hwpt_alloc(io, dev_id, other->ioas, IOMMU_HWPT_ALLOC_PASID, other->queue.id,
			       &other->faulting);
}

/* Nothing may use its objects any more. */
static int other_close(struct server *server, struct other *other)
{
	return iopf_destroy(&server->io, other->plain) ?:
	       iopf_destroy(&server->io, other->faulting) ?:
	       iopf_destroy(&server->io, other->ioas) ?:
	       iopf_queue_close(&other->queue);
}

/* All of them were answered before the call returned, and the cookies are void. */
static void check_pending_gone(struct __test_metadata *_metadata, struct server *server,
			       const struct iommu_hwpt_pgfault *read, unsigned int answers)
{
	struct iommu_hwpt_pgfault m[1];
	int i;

	EXPECT_EQ(0, reg(&server->unit[0], PTD_OPEN_GROUPS));
	EXPECT_EQ(PENDING, reg(&server->unit[0], answers));
	EXPECT_EQ(0, read_some(&server->queue, m, 1, 0));
	for (i = 0; i < PENDING / 2; i++)
		EXPECT_EQ(-EINVAL, answer(server, read[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
}

/* Where the user of VFIO finds an extended capability, or 0 */
static unsigned int find_capability(struct iopf_device *dev, uint16_t id)
{
	unsigned int at = PCI_CFG_SPACE_SIZE;
	uint32_t header;

	while (at && !iopf_device_config_read(dev, at, &header, sizeof(header))) {
		if (PCI_EXT_CAP_ID(header) == id)
			return at;
		at = PCI_EXT_CAP_NEXT(header);
	}
	return 0;
}

/* The same capability as the host has it */
static uint32_t in_hardware(const struct iopf_device *dev, unsigned int reg)
{
	uint32_t value = UINT32_MAX;
	char path[80];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", dev->bdf);
	fd = open(path, O_RDONLY);
	if (pread(fd, &value, sizeof(value), reg) != sizeof(value))
		value = UINT32_MAX;
	close(fd);
	return value;
}

/* What a VMM needs to know of the device's PASIDs, as Linux 6.15 tells it */
TEST_F(pri, pasids_in_hw_info)
{
	struct iopf_device *dev = &self->unit->pri.vfio;
	struct iommu_hw_info info = { .size = sizeof(info), .dev_id = dev->id };

	ASSERT_EQ(0, ioctl(self->server.io.fd, IOMMU_GET_HW_INFO, &info));
	/* 20 bits of its own, of which an IOMMU may take less */
	EXPECT_LE(10, info.out_max_pasid_log2);
	EXPECT_GE(20, info.out_max_pasid_log2);
	EXPECT_EQ(0, info.out_capabilities & (IOMMU_HW_CAP_PCI_PASID_EXEC |
					      IOMMU_HW_CAP_PCI_PASID_PRIV));
}

/* A guest's driver finds PRI as after a reset, and what it writes stays its own. */
TEST_F(pri, capability_is_virtual)
{
	struct iopf_device *dev = &self->unit->pri.vfio;
	unsigned int pri = find_capability(dev, PCI_EXT_CAP_ID_PRI);
	uint32_t on = PCI_PRI_CTRL_ENABLE, off = 0, reset = PCI_PRI_CTRL_RESET;
	uint32_t before, control, allocation, seven = 7;

	ASSERT_NE(0, pri);
	EXPECT_NE(0, find_capability(dev, PCI_EXT_CAP_ID_ATS));
	EXPECT_NE(0, find_capability(dev, PCI_EXT_CAP_ID_PASID));
	before = in_hardware(dev, pri + PCI_PRI_CTRL);
	ASSERT_EQ(PCI_PRI_CTRL_ENABLE, before & 0xffff);
	allocation = in_hardware(dev, pri + PCI_PRI_ALLOC_REQ);

	ASSERT_EQ(0, iopf_device_config_read(dev, pri + PCI_PRI_CTRL, &control, 4));
	EXPECT_EQ(0, control & 0xffff);
	EXPECT_EQ(PCI_PRI_STATUS_STOPPED | PCI_PRI_STATUS_PASID, control >> 16);

	EXPECT_EQ(0, iopf_device_config_write(dev, pri + PCI_PRI_ALLOC_REQ, &seven, 4));
	EXPECT_EQ(0, iopf_device_config_write(dev, pri + PCI_PRI_CTRL, &on, 2));
	EXPECT_EQ(0, iopf_device_config_read(dev, pri + PCI_PRI_CTRL, &control, 2));
	EXPECT_EQ(PCI_PRI_CTRL_ENABLE, control & 0xffff);
	EXPECT_EQ(0, iopf_device_config_read(dev, pri + PCI_PRI_ALLOC_REQ, &control, 4));
	EXPECT_EQ(7, control);
	EXPECT_EQ(0, iopf_device_config_write(dev, pri + PCI_PRI_CTRL, &off, 2));
	EXPECT_EQ(0, iopf_device_config_write(dev, pri + PCI_PRI_CTRL, &reset, 2));

	EXPECT_EQ(before, in_hardware(dev, pri + PCI_PRI_CTRL));
	EXPECT_EQ(allocation, in_hardware(dev, pri + PCI_PRI_ALLOC_REQ));
}

TEST_F(pri, detach_pasid)
{
	struct iommu_hwpt_pgfault m[PENDING];
	int rc;

	make_pending(_metadata, &self->server, m);
	ASSERT_EQ(0, iopf_device_detach_pasid(&self->unit->pri.vfio, PASID));
	check_pending_gone(_metadata, &self->server, m, PTD_N_INVALID);
	/*
	 * With the last table that has a queue Linux 6.12 switches PRI off. 7.3 does not, and
	 * answers what an IOMMU of two stages lets through.
	 */
	rc = request(self->unit, PASID, SRC, FLAGS_READ, 1);
	if (!rc && wait_reg(self->unit, PTD_N_INVALID, PENDING + 1) == PENDING + 1)
		rc = -EINVAL;
	EXPECT_TRUE(rc == -EPERM || rc == -EINVAL);

	ASSERT_EQ(0, iopf_device_attach_pasid(&self->unit->pri.vfio, PASID, self->unit->faulting));
	ASSERT_EQ(0, start_copy(self->unit, 4 * PAGE, 2, 2));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, 4 * PAGE));
}

TEST_F(pri, replace_pasid)
{
	struct iommu_hwpt_pgfault m[PENDING];
	struct other other;

	ASSERT_EQ(0, other_open(&self->server, &other));
	ASSERT_EQ(0, map_page(&self->server, self->unit, SRC, READ_WRITE));
	ASSERT_EQ(0, iopf_map(&self->server.io, other.ioas, SRC, memory_at(self->unit, SRC + PAGE),
			      PAGE, READ_WRITE));
	EXPECT_EQ(memory_read(self->unit, SRC), dma_read(self->unit, PASID, SRC));
	make_pending(_metadata, &self->server, m);
	ASSERT_EQ(0, iopf_device_attach_pasid(&self->unit->pri.vfio, PASID, other.faulting));
	check_pending_gone(_metadata, &self->server, m, PTD_N_SUCCESS);

	/* the new table, and the new queue alone */
	EXPECT_EQ(memory_read(self->unit, SRC + PAGE), dma_read(self->unit, PASID, SRC));
	ASSERT_EQ(0, request(self->unit, PASID, DST, FLAGS_WRITE, 9));
	ASSERT_EQ(1, read_some(&other.queue, m, PENDING, WAIT_MS));
	EXPECT_EQ(9, m[0].grpid);
	EXPECT_EQ(-EINVAL, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));

	ASSERT_EQ(0, iopf_device_attach_pasid(&self->unit->pri.vfio, PASID, self->unit->faulting));
	EXPECT_EQ(PENDING + 1, reg(self->unit, PTD_N_SUCCESS));
	EXPECT_EQ(0, reg(self->unit, PTD_N_INVALID));
	EXPECT_EQ(memory_read(self->unit, SRC), dma_read(self->unit, PASID, SRC));
	EXPECT_EQ(0, other_close(&self->server, &other));
}

#define MOVE_US 200 /* from one replace to the next */

struct mover {
	struct iopf_device *vfio;
	bool rid;
	uint32_t hwpts[2];
	unsigned int rounds;
	bool *stop;
	int rc;
};

static void *move_back_and_forth(void *arg)
{
	struct mover *mover = arg;
	unsigned int i;

	for (i = 0; i < mover->rounds || i % 2; i++) {
		/* Each tells the device to try again, which it does a few times for one page. */
		usleep(MOVE_US);
		if (mover->rid)
			mover->rc |= iopf_device_attach(mover->vfio, mover->hwpts[i % 2]);
		else
			mover->rc |= iopf_device_attach_pasid(mover->vfio, PASID,
							      mover->hwpts[i % 2]);
	}
	__atomic_store_n(mover->stop, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Serve a copy; the kernel may have answered in a replace what was read. */
static void serve_copy(struct __test_metadata *_metadata, struct server *server)
{
	struct iommu_hwpt_pgfault messages[PTD_CREDITS_MAX];
	struct iopf_group group;
	struct iopf_iter iter;
	int n;

	while (is_busy(server)) {
		n = read_some(&server->queue, messages, PTD_CREDITS_MAX, 1);
		ASSERT_LE(0, n);
		iter = iopf_groups(messages, (size_t)n);
		while (iopf_next_group(&iter, &group) > 0)
			answer(server, group.cookie, serve_group(server, &group));
	}
}

/* The device met a moment in which its PASID had no table. */
static bool had_no_table(const struct unit *unit)
{
	return reg(unit, PTD_STATE) == PTD_STATE_STOPPED_ERROR &&
	       reg(unit, PTD_STAGE) != PTD_STAGE_RETRY;
}

/*
 * A device copies while a table is replaced all the time, and no answer ends that, and no
 * moment without a table. The emulated device gives up by itself when it was told to try
 * again too often, as each replace of its PASID's table does; then it begins again.
 */
static void replace_while_it_copies(struct __test_metadata *_metadata,
				    struct _test_data_pri *self, bool rid)
{
	bool stop = false;
	struct mover mover = {
		.vfio = &self->unit->pri.vfio, .rid = rid,
		.rounds = times("PRI_ROUNDS", 1000), .stop = &stop,
	};
	unsigned int copies = 0, starts = 0, gaps = 0, i;
	pthread_t thread;

	/* two tables of one address space, with one queue */
	mover.hwpts[1] = rid ? self->unit->plain : self->unit->faulting;
	ASSERT_EQ(0, iopf_hwpt_alloc(&self->server.io, self->unit->pri.vfio.id,
				     self->unit->ioas, IOMMU_HWPT_ALLOC_PASID,
				     rid ? 0 : self->server.queue.id, &mover.hwpts[0]));
	ASSERT_EQ(0, pthread_create(&thread, NULL, move_back_and_forth, &mover));
	do {
		ASSERT_EQ(0, start_copy(self->unit, 16 * PAGE, 2, 4));
		serve_copy(_metadata, &self->server);
		EXPECT_NE(PTD_STATE_STOPPED_INVALID, reg(self->unit, PTD_STATE));
		copies += copied(self->unit, 16 * PAGE);
		gaps += had_no_table(self->unit);
		for (i = 0; i < 16; i++) {
			iopf_unmap(&self->server.io, self->unit->ioas, SRC + i * PAGE, PAGE);
			iopf_unmap(&self->server.io, self->unit->ioas, DST + i * PAGE, PAGE);
		}
		starts++;
	} while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, mover.rc);
	EXPECT_EQ(0, reg(self->unit, PTD_N_INVALID));
	ksft_print_msg("%u replaces, %u copies of %u, %u met no table\n",
		       mover.rounds, copies, starts, gaps);
	EXPECT_EQ(0, gaps);
	EXPECT_LT(0, copies);
	ASSERT_EQ(0, start_copy(self->unit, 16 * PAGE, 2, 4));
	serve_copy(_metadata, &self->server);
	EXPECT_TRUE(copied(self->unit, 16 * PAGE));
	EXPECT_EQ(0, iopf_destroy(&self->server.io, mover.hwpts[0]));
}

TEST_F_TIMEOUT(pri, replace_while_it_copies, 600)
{
	replace_while_it_copies(_metadata, self, false);
}

/* While the RID has no table QEMU's VT-d serves no PASID either. */
TEST_F_TIMEOUT(pri, replace_rid_while_it_copies, 600)
{
	replace_while_it_copies(_metadata, self, true);
}

/* So they come and go while a PASID has faults pending: none is lost. */
TEST_F(pri, replace_rid)
{
	struct iommu_hwpt_pgfault m[PENDING];
	struct other other;
	int i;

	ASSERT_EQ(0, other_open(&self->server, &other));
	make_pending(_metadata, &self->server, m);
	EXPECT_EQ(0, iopf_device_attach(&self->unit->pri.vfio, other.plain));
	EXPECT_EQ(0, iopf_device_attach(&self->unit->pri.vfio, other.faulting));
	EXPECT_EQ(0, iopf_device_attach(&self->unit->pri.vfio, self->unit->faulting));
	EXPECT_EQ(0, iopf_device_attach(&self->unit->pri.vfio, self->unit->plain));
	EXPECT_EQ(PENDING, reg(self->unit, PTD_OPEN_GROUPS));
	ASSERT_EQ(PENDING / 2, read_all(&self->server.queue, m + PENDING / 2, PENDING / 2));
	for (i = 0; i < PENDING; i++)
		EXPECT_EQ(1, answer(&self->server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(PENDING, wait_reg(self->unit, PTD_N_SUCCESS, PENDING));
	EXPECT_EQ(0, other_close(&self->server, &other));
}

/*
 * The same when the RID has no table for a while.  QEMU's VT-d then serves no
 * PASID either, so that new faults have to wait for the RID's next table.
 */
TEST_F(pri, detach_rid)
{
	struct iommu_hwpt_pgfault m[PENDING];
	int i;

	make_pending(_metadata, &self->server, m);
	ASSERT_EQ(0, iopf_device_detach(&self->unit->pri.vfio));
	EXPECT_EQ(PENDING, reg(self->unit, PTD_OPEN_GROUPS));
	ASSERT_EQ(PENDING / 2, read_all(&self->server.queue, m + PENDING / 2, PENDING / 2));
	for (i = 0; i < PENDING; i++)
		EXPECT_EQ(1, answer(&self->server, m[i].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(PENDING, wait_reg(self->unit, PTD_N_SUCCESS, PENDING));

	ASSERT_EQ(0, iopf_device_attach(&self->unit->pri.vfio, self->unit->plain));
	ASSERT_EQ(0, start_copy(self->unit, 4 * PAGE, 2, 2));
	EXPECT_EQ(0, serve(&self->server));
	EXPECT_TRUE(copied(self->unit, 4 * PAGE));
}

/* A PASID on a queue of its own, beside the first: each is detached alone. */
TEST_F(pri, two_pasids)
{
	struct iommu_hwpt_pgfault m[PENDING];
	struct other other;
	uint32_t invalid;

	ASSERT_EQ(0, other_open(&self->server, &other));
	ASSERT_EQ(0, iopf_device_attach_pasid(&self->unit->pri.vfio, OTHER_PASID, other.faulting));
	make_pending(_metadata, &self->server, m);
	ASSERT_EQ(0, request(self->unit, OTHER_PASID, SRC, FLAGS_READ, 0));
	ASSERT_EQ(0, iopf_device_detach_pasid(&self->unit->pri.vfio, PASID));
	EXPECT_EQ(PENDING, reg(self->unit, PTD_N_INVALID));
	EXPECT_TRUE(is_refused(self->unit, PASID));
	invalid = reg(self->unit, PTD_N_INVALID);
	ASSERT_EQ(1, read_some(&other.queue, m, PENDING, WAIT_MS));
	EXPECT_EQ(OTHER_PASID, m[0].pasid);
	EXPECT_EQ(1, reg(self->unit, PTD_OPEN_GROUPS));
	EXPECT_EQ(-EBUSY, iopf_destroy(&self->server.io, other.faulting));
	EXPECT_EQ(0, iopf_device_detach_pasid(&self->unit->pri.vfio, OTHER_PASID));
	EXPECT_EQ(invalid + 1, reg(self->unit, PTD_N_INVALID));
	EXPECT_EQ(0, other_close(&self->server, &other));
}

/* The queue's file is closed with faults pending, later ones find nobody. */
TEST_F(pri, close_queue)
{
	struct iommu_hwpt_pgfault m[PENDING];

	make_pending(_metadata, &self->server, m);
	ASSERT_EQ(0, close(self->server.queue.fd));
	EXPECT_EQ(PENDING, wait_reg(self->unit, PTD_N_INVALID, PENDING));
	ASSERT_EQ(0, request(self->unit, PASID, SRC, FLAGS_READ, 1));
	EXPECT_EQ(PENDING + 1, wait_reg(self->unit, PTD_N_INVALID, PENDING + 1));
	/* for iopf_queue_close() */
	self->server.queue.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
}

/* The VFIO device is closed as it stands; the queue outlives it. */
TEST_F(pri, close_device)
{
	struct iommu_hwpt_pgfault m[PENDING];

	make_pending(_metadata, &self->server, m);
	ASSERT_EQ(0, pri_close(&self->unit->pri));
	check_pending_gone(_metadata, &self->server, m, PTD_N_INVALID);
}

TEST_F(pri, close_device_while_it_copies)
{
	ASSERT_EQ(0, start_copy(self->unit, WINDOW, 4, 8));
	while (self->server.groups < 100)
		ASSERT_GE(serve_some(&self->server, WAIT_MS), 1);
	ASSERT_EQ(0, pri_close(&self->unit->pri));
	EXPECT_NE(PTD_STATE_RUNNING, wait_stopped(self->unit));
	EXPECT_NE(PTD_STATE_DONE, reg(self->unit, PTD_STATE));
}

/* The file of the iommufd goes first; the kernel must cope with any order. */
TEST_F(pri, close_iommufd_first)
{
	struct iommu_hwpt_pgfault m[PENDING];

	make_pending(_metadata, &self->server, m);
	iopf_close(&self->server.io);
	EXPECT_EQ(PENDING, reg(self->unit, PTD_OPEN_GROUPS));
	EXPECT_EQ(1, answer(&self->server, m[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(1, wait_reg(self->unit, PTD_N_SUCCESS, 1));
	ASSERT_EQ(0, pri_close(&self->unit->pri));
	EXPECT_EQ(PENDING - 1, wait_reg(self->unit, PTD_N_INVALID, PENDING - 1));
	EXPECT_EQ(0, close(self->server.queue.fd));
	/* nothing is left to be closed */
	self->server.queue.fd = -1;
	check_unit(_metadata, self->unit);
	ASSERT_EQ(0, server_open(&self->server, 0, 1));
}

static void *churn_faults(void *arg)
{
	struct churn *churn = arg;
	uint32_t round;

	for (round = 0; !*churn->stop; round++)
		burst(&churn->server->unit[0], PASID, 24, 1 + round % 3, 0);
	return NULL;
}

/* Faults and answers at all times while the PASID is attached, moved and detached. */
TEST_F_TIMEOUT(pri, churn, 600)
{
	volatile bool stop = false;
	struct iopf_device *vfio = &self->unit->pri.vfio;
	struct churn first = { &self->server, &self->server.queue, &stop }, second = first;
	struct other other;
	pthread_t threads[3];
	int i;

	ASSERT_EQ(0, other_open(&self->server, &other));
	second.queue = &other.queue;
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, churn_answers, &first));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, churn_answers, &second));
	ASSERT_EQ(0, pthread_create(&threads[2], NULL, churn_faults, &first));
	for (i = 0; i < (int)times("PRI_ROUNDS", 40); i++) {
		usleep(2000);
		EXPECT_EQ(0, iopf_device_attach_pasid(vfio, PASID, other.faulting));
		EXPECT_EQ(0, iopf_device_attach(vfio, i % 2 ? other.plain : self->unit->plain));
		usleep(2000);
		EXPECT_EQ(0, iopf_device_detach_pasid(vfio, PASID));
		EXPECT_EQ(0, iopf_device_attach_pasid(vfio, PASID, self->unit->faulting));
	}
	stop = true;
	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, pthread_join(threads[i], NULL));
	EXPECT_GT(reg(self->unit, PTD_N_SUCCESS), 0);
	EXPECT_GT(reg(self->unit, PTD_N_INVALID), 0);
	EXPECT_EQ(0, iopf_device_attach(vfio, self->unit->plain));
	EXPECT_EQ(0, iopf_device_detach_pasid(vfio, PASID));
	EXPECT_EQ(0, other_close(&self->server, &other));
}

/*
 * Requests that are numbered by their address, and the epoch each was sent in.
 * The main thread makes it odd before it replaces the PASID's table, and even
 * after that: a request with the same even epoch before and after it was sent
 * belongs to the table, and the queue, of that epoch.
 */
struct epochs {
	struct server *server;
	volatile unsigned int now;
	volatile bool stop;
	volatile unsigned int sent;
	/* of this epoch no more will be sent */
	volatile unsigned int spent;
	/* by request: its epoch, or EPOCH_UNKNOWN, and 1 + the queue it came to */
	unsigned int of[WINDOW / PAGE];
	unsigned char queue[WINDOW / PAGE];
};

#define EPOCH_UNKNOWN 1
#define EPOCH_REQUESTS 16

static void *epochs_send(void *arg)
{
	struct epochs *epochs = arg;
	unsigned int before, last = 0, left = EPOCH_REQUESTS, n = 0;

	while (!epochs->stop && n < WINDOW / PAGE) {
		before = __atomic_load_n(&epochs->now, __ATOMIC_SEQ_CST);
		if (before != last)
			left = EPOCH_REQUESTS;
		last = before;
		if (!left--) {
			left = 0;
			epochs->spent = before;
			sched_yield();
			continue;
		}
		epochs->of[n] = before;
		if (request(&epochs->server->unit[0], PASID, SRC + n * PAGE, FLAGS_READ, n % 512))
			usleep(50);
		if (before & 1 || before != __atomic_load_n(&epochs->now, __ATOMIC_SEQ_CST))
			epochs->of[n] = EPOCH_UNKNOWN;
		epochs->sent = ++n;
	}
	return NULL;
}

/* Read what queue @which has, and answer it. */
static void epochs_read(struct epochs *epochs, const struct iopf_queue *queue, unsigned int which)
{
	struct iommu_hwpt_page_response response = {};
	struct iommu_hwpt_pgfault m[256];
	int i, n;

	while ((n = read_some(queue, m, 256, 0)) > 0) {
		for (i = 0; i < n; i++) {
			epochs->queue[(m[i].addr - SRC) / PAGE] = (unsigned char)(1 + which);
			response.cookie = m[i].cookie;
			/* it may be gone */
			iopf_queue_write(queue, &response, 1);
		}
	}
}

/* How many requests of a known epoch came to a queue, and how many to a wrong one */
static unsigned int epochs_judge(const struct epochs *epochs, unsigned int *known)
{
	unsigned int n, strays = 0;

	for (n = 0; n < epochs->sent; n++) {
		if (epochs->of[n] == EPOCH_UNKNOWN || !epochs->queue[n])
			continue;
		(*known)++;
		strays += epochs->queue[n] != 1 + epochs->of[n] / 2 % 2;
	}
	return strays;
}

/* No request that was sent to the old table reaches the new one's queue. */
TEST_F_TIMEOUT(pri, replace_never_crosses, 600)
{
	struct iopf_device *vfio = &self->unit->pri.vfio;
	unsigned int rounds = times("PRI_ROUNDS", 300), known = 0, sent, i;
	struct epochs *epochs;
	struct other other;
	pthread_t thread;

	epochs = calloc(1, sizeof(*epochs));
	ASSERT_NE(NULL, epochs);
	epochs->server = &self->server;
	epochs->spent = EPOCH_UNKNOWN;
	ASSERT_EQ(0, other_open(&self->server, &other));
	ASSERT_EQ(0, pthread_create(&thread, NULL, epochs_send, epochs));
	for (i = 0; i < rounds; i++) {
		/* a few requests of this epoch, and some in flight */
		sent = epochs->sent;
		do {
			epochs_read(epochs, &self->server.queue, 0);
			epochs_read(epochs, &other.queue, 1);
		} while (epochs->sent - sent < 3 && epochs->spent != epochs->now &&
			 epochs->sent < WINDOW / PAGE);
		__atomic_add_fetch(&epochs->now, 1, __ATOMIC_SEQ_CST);
		ASSERT_EQ(0, iopf_device_attach_pasid(vfio, PASID, i % 2 ? self->unit->faulting :
						      other.faulting));
		__atomic_add_fetch(&epochs->now, 1, __ATOMIC_SEQ_CST);
	}
	epochs->stop = true;
	EXPECT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, iopf_device_detach_pasid(vfio, PASID));
	EXPECT_EQ(0, epochs_judge(epochs, &known));
	EXPECT_GT(known, rounds);
	ksft_print_msg("%u rounds, %u requests, %u of a known epoch\n", rounds, epochs->sent,
		       known);
	EXPECT_EQ(0, other_close(&self->server, &other));
	free(epochs);
}

/* ---- dirty tracking ---- */

static int track(struct server *server, uint32_t hwpt, bool on)
{
	struct iommu_hwpt_set_dirty_tracking set = {
		.size = sizeof(set), .hwpt_id = hwpt,
		.flags = on ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0,
	};

	return ioctl(server->io.fd, IOMMU_HWPT_SET_DIRTY_TRACKING, &set) ? -errno : 0;
}

/* Which of the first eight pages at SRC were written since this was asked last, by bits */
static uint64_t dirty_pages(struct server *server, uint32_t hwpt)
{
	uint64_t bits = 0;
	struct iommu_hwpt_get_dirty_bitmap get = {
		.size = sizeof(get), .hwpt_id = hwpt, .iova = SRC, .length = 8 * PAGE,
		.page_size = PAGE, .data = (uintptr_t)&bits,
	};

	return ioctl(server->io.fd, IOMMU_HWPT_GET_DIRTY_BITMAP, &get) ? ~0ull : bits;
}

static int write_page(struct unit *unit, uint32_t flags, uint32_t pasid, unsigned int page)
{
	pri_set64(&unit->pri, PTD_DATA, page);
	return command(unit, PTD_CMD_DMA_WRITE, pasid, SRC + page * PAGE, flags | PTD_F_WRITE);
}

/*
 * A table with a queue and dirty tracking is attached to PASIDs and to the RID, before
 * tracking begins and after that, and what is written through each of them is found.
 */
TEST_F(pri, dirty_pages)
{
	struct iopf_device *vfio = &self->unit->pri.vfio;
	struct server *server = &self->server;
	struct iommu_hwpt_pgfault m;
	uint32_t hwpt, i;
	int rc;

	rc = iopf_hwpt_alloc(&server->io, vfio->id, self->unit->ioas,
			     IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
			     server->queue.id, &hwpt);
	if (rc == -EOPNOTSUPP)
		SKIP(return, "the IOMMU has no dirty tracking");
	ASSERT_EQ(0, rc);
	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, map_page(server, self->unit, SRC + i * PAGE, READ_WRITE));
	ASSERT_EQ(0, iopf_device_attach_pasid(vfio, PASID, hwpt));
	ASSERT_EQ(0, track(server, hwpt, true));
	ASSERT_EQ(0, iopf_device_attach_pasid(vfio, OTHER_PASID, hwpt));
	ASSERT_EQ(0, iopf_device_attach(vfio, hwpt));
	EXPECT_EQ(memory_read(self->unit, SRC), dma_read(self->unit, PASID, SRC));
	EXPECT_EQ(0, dirty_pages(server, hwpt));
	EXPECT_EQ(0, write_page(self->unit, PTD_F_PASID, PASID, 1));
	EXPECT_EQ(0, write_page(self->unit, PTD_F_PASID, OTHER_PASID, 2));
	EXPECT_EQ(0, write_page(self->unit, 0, 0, 3));
	EXPECT_EQ(0xe, dirty_pages(server, hwpt));
	EXPECT_EQ(0, dirty_pages(server, hwpt));
	EXPECT_EQ(0, write_page(self->unit, PTD_F_PASID, PASID, 1));
	EXPECT_EQ(0x2, dirty_pages(server, hwpt));

	/* a page that comes by a fault */
	ASSERT_EQ(0, iopf_unmap(&server->io, self->unit->ioas, SRC + 4 * PAGE, PAGE));
	ASSERT_EQ(0, request(self->unit, PASID, SRC + 4 * PAGE, FLAGS_WRITE, 1));
	ASSERT_EQ(1, read_some(&server->queue, &m, 1, WAIT_MS));
	ASSERT_EQ(0, map_page(server, self->unit, SRC + 4 * PAGE, READ_WRITE));
	EXPECT_EQ(1, answer(server, m.cookie, IOMMUFD_PAGE_RESP_SUCCESS));
	EXPECT_EQ(0, dirty_pages(server, hwpt));
	EXPECT_EQ(0, write_page(self->unit, PTD_F_PASID, PASID, 4));
	EXPECT_EQ(0x10, dirty_pages(server, hwpt));

	/* one of them leaves, the others are tracked on, and switched off together */
	ASSERT_EQ(0, iopf_device_detach_pasid(vfio, OTHER_PASID));
	EXPECT_EQ(0, write_page(self->unit, PTD_F_PASID, PASID, 5));
	EXPECT_EQ(0x20, dirty_pages(server, hwpt));
	ASSERT_EQ(0, track(server, hwpt, false));
	EXPECT_EQ(0, write_page(self->unit, PTD_F_PASID, PASID, 6));
	ASSERT_EQ(0, iopf_device_attach_pasid(vfio, PASID, self->unit->faulting));
	ASSERT_EQ(0, iopf_device_attach(vfio, self->unit->plain));
	EXPECT_EQ(0, iopf_destroy(&server->io, hwpt));
}

TEST_HARNESS_MAIN
