// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stress of iommufd's fault queue on mock devices: everything at once, from a
 * seed.
 *
 * A supervisor keeps WORLDS worlds alive. A world is a process with an iommufd,
 * some devices, queues and HWPTs. Some of its threads inject page requests,
 * others attach, replace, detach, create and destroy at random, and its main
 * thread starts servers, each a process that gets a queue's file in one of five
 * ways. Servers die of themselves or by SIGKILL; worlds end in order, by _exit(),
 * by exec() or by SIGKILL from the supervisor, and the next one starts. Beside
 * that a process eats memory, and some worlds live in a cgroup with too little
 * of it.
 *
 * Each actor draws its numbers from a stream of its own, so a seed gives the same
 * decisions again; how they interleave is up to the scheduler. What must hold
 * however they do is checked:
 *
 *	- each device was answered once for each group, and for nothing else;
 *	- every message is well formed, every system call fails only as it may;
 *	- a world that ends in order finds its queues empty, and can destroy all
 *	  of its objects; nothing else is left in its iommufd.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "../../../iommu/lib/iopf.h"
#include "../kselftest.h"
#include "iommufd_fault_utils.h"
#include "iommufd_stress_server.h"

#define WORLDS 2
#define MAX_DEVS 4
#define MAX_QUEUES 3
#define MAX_HWPTS 6
#define MAX_SERVERS 4
#define MAX_PASID 3
#define MAX_RETIRED 512
#define INJECTORS 2
#define CHURNERS 2
#define SHARED_FD 700 /* the shared memory, for a server that comes by exec() */
#define STUCK_MS 600000
#define ADDR 0x40000000ull
#define CGROUP "/tmp/iommufd-stress"

static struct stress_shared *shared;

/* ---- a world ---- */

/* Both at once, so that they are those of one device */
struct dev_slot {
	uint32_t stdev_id;
	uint32_t idev_id;
} __attribute__((aligned(8)));

struct queue_slot {
	uint32_t id;
	int fd;
	bool immediate;
};

/*
 * The slots are read and changed without a lock: an id that is stale by the time
 * it is used is one more thing to survive. Only files have one, as a number that
 * was closed may be anything.
 */
struct world {
	int fd;
	uint32_t ioas_id;
	uint32_t plain_id;
	struct dev_slot devs[MAX_DEVS];
	struct queue_slot queues[MAX_QUEUES];
	uint32_t hwpts[MAX_HWPTS];
	/* queues and HWPTs that are in no slot any more, but in use */
	uint32_t retired[MAX_RETIRED];
	uint32_t n_retired;
	pid_t servers[MAX_SERVERS];
	pthread_mutex_t files;
	bool stop;
	bool poor; /* has too little memory: anything may say ENOMEM */
	uint64_t seed;
	struct rng rng;
};

struct actor {
	struct world *world;
	struct rng rng;
	pthread_t thread;
	bool started;
};

static bool world_over(const struct world *world)
{
	return stress_over(shared) || __atomic_load_n(&world->stop, __ATOMIC_RELAXED);
}

/* What an operation on objects that others change may say. */
static void expect_usual(const struct world *world, const char *what, int rc)
{
	if (!rc || rc == -ENOENT || rc == -EINVAL || rc == -EBUSY)
		return;
	/* A device of another world in the same group, a queue's file in use up */
	if (rc == -EPERM || rc == -EEXIST || rc == -EOPNOTSUPP)
		return;
	if (rc == -ENOMEM && world->poor)
		return;
	stress_fail(shared, "%s: %s", what, strerror(-rc));
}

/* To be destroyed at the end. */
static void retire(struct world *world, uint32_t id)
{
	uint32_t at = __atomic_fetch_add(&world->n_retired, 1, __ATOMIC_SEQ_CST);

	if (at < MAX_RETIRED)
		world->retired[at] = id;
	else
		stress_fail(shared, "more than %u objects in use", MAX_RETIRED);
}

/* An object is busy for as long as another thread's system call uses it. */
static void destroy_device(struct world *world, uint32_t id)
{
	int rc;

	do {
		rc = iommufd_destroy(world->fd, id);
	} while (rc == -EBUSY && !stress_over(shared));
	expect_usual(world, "destroy a device", rc);
}

static uint32_t random_hwpt(struct world *world, struct rng *rng)
{
	if (rng_one_in(rng, 10))
		return rng_one_in(rng, 2) ? world->plain_id : world->ioas_id;
	return __atomic_load_n(&world->hwpts[rng_below(rng, MAX_HWPTS)], __ATOMIC_RELAXED);
}

static struct dev_slot random_dev(struct world *world, struct rng *rng)
{
	struct dev_slot dev;

	__atomic_load(&world->devs[rng_below(rng, MAX_DEVS)], &dev, __ATOMIC_RELAXED);
	return dev;
}

/* ---- injecting ---- */

static void inject(struct actor *actor)
{
	struct world *world = actor->world;
	struct rng *rng = &actor->rng;
	uint32_t ids[2] = { random_dev(world, rng).idev_id, random_dev(world, rng).idev_id };
	struct iommu_test_iopf_batch batch = {
		.dev_ids = (uintptr_t)ids,
		.addr = ADDR + rng_below(rng, 1 << 20) * 4096ull,
		.nr_devs = ids[0] == ids[1] ? 1 : 1 + rng_below(rng, 2),
		.flags = IOMMU_TEST_IOPF_UNLOCKED,
		.groups = 1 + rng_below(rng, 64),
		.requests = 1 + rng_below(rng, 6),
		.grpid = rng_below(rng, 512),
		/* PASIDs are attached nowhere more often than RIDs are. */
		.pasid = rng_one_in(rng, 2) ? 0 : rng_below(rng, MAX_PASID + 1),
		.nr_pasids = 1,
		.perm = STRESS_PERM,
	};

	if (!ids[0] || !ids[1])
		return;
	if (rng_one_in(rng, 20))
		batch.flags |= IOMMU_TEST_IOPF_NO_LAST;
	if (rng_one_in(rng, 3))
		batch.flags |= IOMMU_TEST_IOPF_INTERLEAVE;
	/* The last of these may be one that is attached nowhere. */
	if (batch.pasid)
		batch.nr_pasids = 1 + rng_below(rng, 2);
	expect_usual(world, "inject", iopf_batch(world->fd, &batch));
}

static void *inject_thread(void *arg)
{
	struct actor *actor = arg;

	while (!world_over(actor->world)) {
		inject(actor);
		/* Leave the servers some time, and sometimes none. */
		if (rng_one_in(&actor->rng, 3))
			usleep(rng_below(&actor->rng, 3000));
	}
	return NULL;
}

/* ---- changing ---- */

/* In an empty slot a device is made, one that is there may go: a hot-unplug. */
static void churn_device(struct world *world, struct rng *rng)
{
	struct dev_slot *slot = &world->devs[rng_below(rng, MAX_DEVS)], none = {}, old;
	uint32_t flags = rng_one_in(rng, 4) ? 0 : MOCK_FLAGS_DEVICE_PASID;
	struct mock_device dev;
	struct dev_slot new;
	int rc;

	if (slot->stdev_id && !rng_one_in(rng, 6))
		return;
	__atomic_exchange(slot, &none, &old, __ATOMIC_SEQ_CST);
	if (old.stdev_id) {
		destroy_device(world, old.stdev_id);
		return;
	}
	if (rng_one_in(rng, 3))
		flags |= MOCK_FLAGS_DEVICE_SHARED_GROUP;
	rc = mock_device_create(world->fd, random_hwpt(world, rng), flags, &dev);
	expect_usual(world, "create a device", rc);
	if (rc)
		return;
	new = (struct dev_slot){ dev.stdev_id, dev.idev_id };
	__atomic_exchange(slot, &new, &old, __ATOMIC_SEQ_CST);
	if (old.stdev_id)
		destroy_device(world, old.stdev_id);
}

static void churn_hwpt(struct world *world, struct rng *rng)
{
	uint32_t *slot = &world->hwpts[rng_below(rng, MAX_HWPTS)];
	uint32_t queue = world->queues[rng_below(rng, MAX_QUEUES)].id;
	uint32_t flags = rng_one_in(rng, 4) ? 0 : IOMMU_HWPT_ALLOC_PASID;
	uint32_t dev = random_dev(world, rng).idev_id, old, id = 0;
	int rc;

	if (*slot && !rng_one_in(rng, 6))
		return;
	old = __atomic_exchange_n(slot, 0, __ATOMIC_SEQ_CST);
	if (old) {
		rc = iommufd_destroy(world->fd, old);
		expect_usual(world, "destroy a HWPT", rc);
		if (rc != -EBUSY)
			return;
		id = old;
	} else if (dev) {
		if (queue)
			flags |= IOMMU_HWPT_FAULT_ID_VALID;
		rc = hwpt_alloc_paging(world->fd, dev, world->ioas_id, flags, queue, &id);
		expect_usual(world, "create a HWPT", rc);
	}
	old = __atomic_exchange_n(slot, id, __ATOMIC_SEQ_CST);
	if (old)
		retire(world, old);
}

static int make_queue(struct world *world, struct rng *rng, struct queue_slot *slot)
{
	struct iommu_fault_alloc cmd = { .size = sizeof(cmd) };
	int rc;

	if (rng_one_in(rng, 2))
		cmd.flags |= IOMMU_FAULT_ALLOC_BLOCKING;
	if (rng_one_in(rng, 2))
		cmd.flags |= IOMMU_FAULT_ALLOC_REPORT_LOSS;
	if (rng_one_in(rng, 4))
		cmd.flags |= IOMMU_FAULT_ALLOC_IMMEDIATE;
	if (rng_one_in(rng, 4))
		cmd.flags |= IOMMU_FAULT_ALLOC_REFUSE;
	if (rng_one_in(rng, 2))
		cmd.depth = 1 + rng_below(rng, 512);
	if (rng_one_in(rng, 3)) {
		cmd.deadline_ms = 1 + rng_below(rng, 100);
		cmd.deadline_code = rng_below(rng, 3);
	}
	rc = iommufd_call(world->fd, IOMMU_FAULT_QUEUE_ALLOC, &cmd);
	if (!rc)
		*slot = (struct queue_slot){
			cmd.out_fault_id, (int)cmd.out_fault_fd,
			cmd.flags & IOMMU_FAULT_ALLOC_IMMEDIATE,
		};
	return rc;
}

/* The file goes at once; the object goes too, or is still used by HWPTs. */
static void churn_queue(struct world *world, struct rng *rng)
{
	struct queue_slot *slot = &world->queues[rng_below(rng, MAX_QUEUES)];
	int rc;

	pthread_mutex_lock(&world->files);
	if (slot->fd >= 0 && (!rng_one_in(rng, 6) || world->n_retired > MAX_RETIRED / 2))
		goto out;
	if (slot->fd >= 0)
		close(slot->fd);
	if (slot->id) {
		rc = iommufd_destroy(world->fd, slot->id);
		expect_usual(world, "destroy a queue", rc);
		if (rc == -EBUSY)
			retire(world, slot->id);
	}
	*slot = (struct queue_slot){ .fd = -1 };
	expect_usual(world, "create a queue", make_queue(world, rng, slot));
out:
	pthread_mutex_unlock(&world->files);
}

static void churn_pasid(struct world *world, struct rng *rng)
{
	uint32_t dev = random_dev(world, rng).stdev_id, hwpt = random_hwpt(world, rng);
	uint32_t pasid = 1 + rng_below(rng, MAX_PASID);

	if (!dev)
		return;
	if (rng_one_in(rng, 6))
		expect_usual(world, "detach a PASID", mock_pasid_detach(world->fd, dev, pasid));
	else if (rng_one_in(rng, 2))
		expect_usual(world, "replace a PASID",
			     mock_pasid_replace(world->fd, dev, pasid, hwpt));
	else
		expect_usual(world, "attach a PASID",
			     mock_pasid_attach(world->fd, dev, pasid, hwpt));
}

static void churn(struct world *world, struct rng *rng)
{
	struct dev_slot dev = random_dev(world, rng);

	switch (rng_below(rng, 16)) {
	case 0:
		churn_device(world, rng);
		break;
	case 1:
		churn_queue(world, rng);
		break;
	case 2 ... 4:
		churn_hwpt(world, rng);
		break;
	case 5 ... 9:
		churn_pasid(world, rng);
		break;
	default:
		if (dev.stdev_id)
			expect_usual(world, "replace", mock_replace(world->fd, dev.stdev_id,
								    random_hwpt(world, rng)));
	}
}

static void *churn_thread(void *arg)
{
	struct actor *actor = arg;

	while (!world_over(actor->world)) {
		churn(actor->world, &actor->rng);
		usleep(rng_below(&actor->rng, 4000));
	}
	return NULL;
}

/* ---- servers ---- */

/* Keep the standard files, @keep, and the shared memory. */
static void close_others(int keep)
{
	int low = keep < SHARED_FD ? keep : SHARED_FD, high = keep < SHARED_FD ? SHARED_FD : keep;

	syscall(SYS_close_range, 3, low - 1, 0);
	syscall(SYS_close_range, low + 1, high - 1, 0);
	syscall(SYS_close_range, high + 1, ~0u, 0);
}

/* The file goes through a socket and back. */
static int pass_by_socket(int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {}, byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int pair[2], got = -1;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return -1;
	*cmsg = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	if (sendmsg(pair[0], &msg, 0) == 1) {
		close(fd); /* for a moment it is in the socket alone */
		msg.msg_controllen = sizeof(control);
		if (recvmsg(pair[1], &msg, 0) == 1 && msg.msg_controllen)
			memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(got));
	}
	close(pair[0]);
	close(pair[1]);
	return got;
}

static void exec_server(const struct server_plan *plan)
{
	char words[6][24];

	snprintf(words[0], sizeof(words[0]), "%d", plan->fd);
	snprintf(words[1], sizeof(words[1]), "%d", plan->mode);
	snprintf(words[2], sizeof(words[2]), "%d", plan->end);
	snprintf(words[3], sizeof(words[3]), "%u", plan->ms);
	snprintf(words[4], sizeof(words[4]), "%llu", (unsigned long long)plan->seed);
	snprintf(words[5], sizeof(words[5]), "%d", plan->immediate);
	fcntl(plan->fd, F_SETFD, 0);
	execl("/proc/self/exe", "iommufd_fault_stress", "--serve", words[0], words[1], words[2],
	      words[3], words[4], words[5], NULL);
	_exit(0);
}

static int shared_map(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, SHARED_FD, 0);
	return shared == MAP_FAILED ? -errno : 0;
}

/* What exec_server() starts. */
static int serve_main(char **words)
{
	struct server_plan plan;

	if (shared_map())
		return 1;
	plan = (struct server_plan){
		.shared = shared, .fd = atoi(words[0]), .mode = atoi(words[1]),
		.end = atoi(words[2]), .ms = atoi(words[3]),
		.seed = strtoull(words[4], NULL, 10), .immediate = atoi(words[5]),
	};
	server_run(&plan);
}

static void server_main(struct rng rng, int fd, bool immediate)
{
	struct server_plan plan = {
		.shared = shared, .fd = fd, .immediate = immediate,
		.mode = rng_below(&rng, SERVER_MODES), .end = rng_below(&rng, SERVER_ENDS),
		.ms = rng_below(&rng, 1000), .seed = rng_next(&rng),
	};
	uint32_t way = rng_below(&rng, 4);

	if (way == 1)
		plan.fd = dup(fd);
	if (way == 2)
		plan.fd = pass_by_socket(fd);
	if (plan.fd < 0)
		_exit(0);
	/* One that is only forked may keep the iommufd, and so the world, alive. */
	if (way || rng_one_in(&rng, 2))
		close_others(plan.fd);
	if (way == 3)
		exec_server(&plan);
	server_run(&plan);
}

static void start_server(struct world *world, struct rng *rng, pid_t *pid)
{
	int fd = -1, i = rng_below(rng, MAX_QUEUES);
	bool immediate;
	uint64_t seed;

	pthread_mutex_lock(&world->files);
	if (world->queues[i].fd >= 0)
		fd = dup(world->queues[i].fd);
	immediate = world->queues[i].immediate;
	pthread_mutex_unlock(&world->files);
	if (fd < 0)
		return;
	seed = rng_next(rng);
	*pid = fork();
	if (!*pid)
		server_main(rng_of(seed, 0), fd, immediate);
	if (*pid < 0)
		*pid = 0;
	close(fd);
}

/* Reap what ended, kill one now and then, start new ones. */
static void tend_servers(struct world *world)
{
	struct rng *rng = &world->rng;
	int i;

	for (i = 0; i < MAX_SERVERS; i++) {
		pid_t *pid = &world->servers[i];

		if (*pid && rng_one_in(rng, 200))
			kill(*pid, SIGKILL);
		if (*pid && rng_one_in(rng, 400)) {
			kill(*pid, SIGSTOP);
			usleep(rng_below(rng, 20000));
			kill(*pid, SIGCONT);
		}
		if (*pid && waitpid(*pid, NULL, WNOHANG) == *pid)
			*pid = 0;
		if (!*pid)
			start_server(world, rng, pid);
	}
}

static void stop_servers(struct world *world)
{
	int i;

	for (i = 0; i < MAX_SERVERS; i++) {
		if (!world->servers[i])
			continue;
		kill(world->servers[i], SIGKILL);
		waitpid(world->servers[i], NULL, 0);
		world->servers[i] = 0;
	}
}

/* ---- the end of a world ---- */

static void expect_empty_queue(int fd)
{
	long queued = fdinfo_number(fd, "iommufd-fault-queued");
	long delivered = fdinfo_number(fd, "iommufd-fault-delivered");

	if (queued || delivered)
		stress_fail(shared, "no device is left, but %ld queued, %ld delivered", queued,
			    delivered);
}

/* A ring, or a killed server, lets go of the queue's file a moment later. */
static void destroy_late(const struct world *world, uint32_t id)
{
	uint64_t end = clock_ms() + STUCK_MS / 2;
	int rc;

	while ((rc = iommufd_destroy(world->fd, id)) == -EBUSY && clock_ms() < end)
		usleep(1000);
	if (rc && rc != -ENOENT)
		stress_fail(shared, "object %u cannot be destroyed: %s", id, strerror(-rc));
}

/* All in order: every object can be destroyed, and no other is left. */
static void world_close(struct world *world)
{
	uint32_t id;
	int i;

	stop_servers(world);
	for (i = 0; i < MAX_DEVS; i++) {
		if (world->devs[i].stdev_id)
			destroy_late(world, world->devs[i].stdev_id);
	}
	for (i = 0; i < MAX_QUEUES; i++) {
		if (world->queues[i].fd < 0)
			continue;
		expect_empty_queue(world->queues[i].fd);
		close(world->queues[i].fd);
	}
	for (i = 0; i < MAX_HWPTS; i++) {
		if (world->hwpts[i])
			destroy_late(world, world->hwpts[i]);
	}
	/* HWPTs, and queues that are free by now; the rest below */
	for (i = (int)world->n_retired - 1; i >= 0; i--)
		iommufd_destroy(world->fd, world->retired[i]);
	destroy_late(world, world->plain_id);
	for (i = 0; i < MAX_QUEUES; i++) {
		if (world->queues[i].id)
			destroy_late(world, world->queues[i].id);
	}
	for (i = 0; i < (int)world->n_retired; i++)
		destroy_late(world, world->retired[i]);
	destroy_late(world, world->ioas_id);
	for (id = 1; id < 256; id++) {
		if (iommufd_destroy(world->fd, id) != -ENOENT)
			stress_fail(shared, "object %u is left behind", id);
	}
	close(world->fd);
}

/* ---- the life of a world ---- */

/* Move into the cgroup with too little memory, where there is one. */
static bool become_poor(void)
{
	FILE *f = fopen(CGROUP "/poor/cgroup.procs", "w");
	bool done = f && fprintf(f, "%d", getpid()) > 0;

	return f && !fclose(f) && done;
}

static int world_open(struct world *world)
{
	struct mock_device dev;
	int rc, i;

	world->fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (world->fd < 0)
		return -errno;
	for (i = 0; i < MAX_QUEUES; i++)
		world->queues[i].fd = -1;
	rc = ioas_alloc(world->fd, &world->ioas_id);
	if (!rc)
		rc = mock_device_create(world->fd, world->ioas_id, MOCK_FLAGS_DEVICE_PASID, &dev);
	if (rc)
		return rc;
	world->devs[0] = (struct dev_slot){ dev.stdev_id, dev.idev_id };
	return hwpt_alloc_paging(world->fd, dev.idev_id, world->ioas_id, IOMMU_HWPT_ALLOC_PASID, 0,
				 &world->plain_id);
}

static void start_actors(struct world *world, struct actor *actors)
{
	int i;

	for (i = 0; i < INJECTORS + CHURNERS; i++) {
		actors[i] = (struct actor){ .world = world, .rng = rng_of(world->seed, 10 + i) };
		actors[i].started = !pthread_create(&actors[i].thread, NULL,
						    i < INJECTORS ? inject_thread : churn_thread,
						    &actors[i]);
	}
}

static void stop_actors(struct world *world, struct actor *actors)
{
	int i;

	__atomic_store_n(&world->stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < INJECTORS + CHURNERS; i++) {
		if (actors[i].started)
			pthread_join(actors[i].thread, NULL);
	}
}

static void __attribute__((noreturn)) world_main(uint64_t seed)
{
	struct world world = { .seed = seed, .rng = rng_of(seed, 0) };
	struct actor actors[INJECTORS + CHURNERS];
	uint32_t end, rounds = 50 + rng_below(&world.rng, 1000);
	int i;

	end = rng_below(&world.rng, 4);
	if (rng_one_in(&world.rng, 4))
		world.poor = become_poor();
	pthread_mutex_init(&world.files, NULL);
	i = world_open(&world);
	if (i && !world.poor)
		stress_fail(shared, "open a world: %s", strerror(-i));
	if (i)
		_exit(0);
	for (i = 0; i < 40; i++)
		churn(&world, &world.rng);
	start_actors(&world, actors);
	/* Not by the clock: on a slow machine as much is to happen. */
	while (rounds-- && !stress_over(shared)) {
		tend_servers(&world);
		usleep(2000);
	}
	/* In the midst of it: threads at work, servers with the queues */
	if (end == 0)
		_exit(0);
	if (end == 1)
		execl("/proc/self/exe", "iommufd_fault_stress", "--nothing", NULL);
	stop_actors(&world, actors);
	world_close(&world);
	_exit(0);
}

/* ---- the supervisor ---- */

struct supervisor {
	struct stress_options opt;
	struct rng rng;
	int fd;
	pid_t worlds[WORLDS];
	uint64_t born[WORLDS];
	pid_t hog;
	unsigned int lives;
	unsigned int kills;
};

/* The mount is for this process and its children alone, and ends with them. */
static void make_cgroup(void)
{
	FILE *f;

	mkdir(CGROUP, 0755);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("cgroup2", CGROUP, "cgroup2", 0, NULL))
		return;
	f = fopen(CGROUP "/cgroup.subtree_control", "w");
	if (!f || fputs("+memory", f) < 0 || fclose(f) || (mkdir(CGROUP "/poor", 0755) &&
							   errno != EEXIST))
		return;
	f = fopen(CGROUP "/poor/memory.max", "w");
	if (f) {
		fputs("6M", f);
		fclose(f);
	}
}

/* Takes memory until little is left, gives it back, drops caches, and again. */
static void __attribute__((noreturn)) hog_main(struct rng rng)
{
	size_t size = (size_t)sysconf(_SC_AVPHYS_PAGES) * 4096 / 10 * 7, at;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FILE *f;

	while (memory != MAP_FAILED && !stress_over(shared)) {
		for (at = 0; at < size && !stress_over(shared); at += 4096) {
			memory[at] = 1;
			/* It wants memory, not the processor that clears it. */
			if (at % (4 << 20) == 0)
				usleep(10000 + rng_below(&rng, 40000));
		}
		madvise(memory, size, MADV_DONTNEED);
		f = fopen("/proc/sys/vm/drop_caches", "w");
		if (f) {
			fputs("3", f);
			fclose(f);
		}
	}
	_exit(0);
}

static void start_world(struct supervisor *sv, int i)
{
	uint64_t seed = rng_of(sv->opt.seed, 1000 + sv->lives++).state;

	sv->born[i] = clock_ms();
	sv->worlds[i] = fork();
	if (!sv->worlds[i])
		world_main(seed);
	if (sv->worlds[i] < 0)
		stress_fail(shared, "fork: %s", strerror(errno));
}

/* Worlds, and servers that outlived theirs */
static void reap(struct supervisor *sv)
{
	int status, i;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (i = 0; i < WORLDS; i++) {
			if (sv->worlds[i] == pid)
				sv->worlds[i] = 0;
		}
		if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
			stress_fail(shared, "a process ended by signal %d", WTERMSIG(status));
	}
}

static void tend_world(struct supervisor *sv, int i)
{
	if (sv->worlds[i] && rng_one_in(&sv->rng, 300)) {
		kill(sv->worlds[i], SIGKILL);
		sv->kills++;
	}
	if (sv->worlds[i] && clock_ms() > sv->born[i] + STUCK_MS)
		stress_fail(shared, "a world does not end");
	if (!sv->worlds[i])
		start_world(sv, i);
}

/* Of the mock devices that have gone */
static struct iommu_test_iopf_stats counters(const struct supervisor *sv)
{
	struct iommu_test_iopf_stats s;

	if (iopf_stats(sv->fd, 0, &s))
		ksft_exit_fail_msg("no counters\n");
	return s;
}

/* Enough was done, or it took long enough and what must happen has happened. */
static bool is_enough(const struct supervisor *sv, uint64_t end)
{
	struct iommu_test_iopf_stats s = counters(sv);

	return s.requests >= sv->opt.count ||
	       (clock_ms() >= end && s.responses[0] && s.responses[1] && s.responses[2]);
}

static void run(struct supervisor *sv)
{
	uint64_t end = clock_ms() + sv->opt.seconds * 1000, say = clock_ms() + 10000;
	int i;

	while (!stress_over(shared) && !is_enough(sv, end)) {
		reap(sv);
		for (i = 0; i < WORLDS; i++)
			tend_world(sv, i);
		usleep(10000);
		if (clock_ms() > say) {
			say = clock_ms() + 10000;
			ksft_print_msg("%llu faults, %u worlds\n",
				       (unsigned long long)counters(sv).requests, sv->lives);
		}
	}
	__atomic_store_n(&shared->stop, true, __ATOMIC_SEQ_CST);
}

/* Every process, also those whose parents were killed, has to end by itself. */
static void wait_all(void)
{
	uint64_t end = clock_ms() + STUCK_MS;
	pid_t pid;

	/* Servers that were stopped when their world was killed */
	kill(0, SIGCONT);
	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0 && clock_ms() < end) {
		if (!pid)
			usleep(5000);
	}
	if (pid >= 0)
		stress_fail(shared, "a process does not end");
}

static void check_answers(const struct supervisor *sv)
{
	struct iommu_test_iopf_stats s = counters(sv);

	ksft_print_msg("%llu requests, %llu groups; %llu good, %llu invalid, %llu failure\n",
		       s.requests, s.groups, s.responses[0], s.responses[1], s.responses[2]);
	ksft_print_msg("servers: %llu, read %llu groups, gave about %llu answers, %llu refused\n",
		       (unsigned long long)shared->servers, (unsigned long long)shared->groups,
		       (unsigned long long)shared->answered, (unsigned long long)shared->refused);
	ksft_test_result(s.groups == s.responses[0] + s.responses[1] + s.responses[2],
			 "each group has one answer\n");
	ksft_test_result(!s.outstanding && !s.unmatched && !s.bad_codes,
			 "none is without, none is for nothing, all codes are known\n");
	ksft_test_result(s.responses[0] && s.responses[1] && s.responses[2],
			 "answers of each kind were given\n");
}

int main(int argc, char **argv)
{
	struct supervisor sv = {
		.opt = { .program = "iommufd_fault_stress", .unit = "faults",
			 .count = 10000000, .seconds = 20 },
	};
	int i;

	if (argc == 8 && !strcmp(argv[1], "--serve"))
		return serve_main(argv + 2);
	if (argc == 2 && !strcmp(argv[1], "--nothing"))
		return 0;
	stress_begin(&sv.opt, argc, argv);
	ksft_set_plan(4);
	sv.fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (sv.fd < 0 || iopf_stats_reset(sv.fd, 0))
		ksft_exit_skip("no /dev/iommu, or no page request injector\n");
	i = memfd_create("shared", 0);
	if (i < 0 || ftruncate(i, sizeof(*shared)) || dup2(i, SHARED_FD) < 0 || shared_map())
		ksft_exit_fail_msg("no shared memory\n");
	close(i);

	sv.rng = rng_of(sv.opt.seed, 0);
	setpgid(0, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	make_cgroup();
	sv.hog = fork();
	if (!sv.hog)
		hog_main(rng_of(sv.opt.seed, 1));
	run(&sv);
	wait_all();
	rmdir(CGROUP "/poor");

	ksft_print_msg("%u worlds, %u of them killed\n", sv.lives, sv.kills);
	ksft_test_result(!shared->failed, "all system calls, all messages, all objects %s\n",
			 shared->failed ? shared->failure : "");
	check_answers(&sv);
	stress_finish(&sv.opt);
}
