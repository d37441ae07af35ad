// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stress of iommufd's fault queues with page requests of real PCIe devices (QEMU's
 * pri-testdev behind its VT-d), from a seed.
 *
 * One world after the other: a process takes two devices through VFIO. A thread
 * for each lets it send bursts of groups, some larger than the hardware queue,
 * some without an end; another thread attaches, replaces and detaches its PASIDs;
 * servers, processes that get a queue's file, come and go. The world ends in
 * order, by _exit() or by SIGKILL; then its devices are looked at from outside,
 * and now and then unbound, or unplugged and found again, before the next begins.
 *
 * What must hold: each device has an answer for each group, and none for nothing;
 * messages are well formed; what is taken down in order can be.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "iommufd_pri_utils.h"
#include "iommufd_stress_server.h"

#define MAX_SERVERS 3
#define PASIDS 3
/* A few devices, so that each sees much. */
#define UNITS 2
#define STUCK_MS 600000

static struct stress_shared *shared;

struct world {
	struct server server;
	/* a second queue, and a table for each device that feeds it */
	struct iopf_queue queue;
	uint32_t faulting[UNITS];
	pid_t servers[MAX_SERVERS];
	bool stop;
	uint64_t seed;
	struct rng rng;
};

struct actor {
	struct world *world;
	struct unit *unit;
	struct rng rng;
	pthread_t thread;
};

static bool world_over(const struct world *world)
{
	return stress_over(shared) || __atomic_load_n(&world->stop, __ATOMIC_RELAXED);
}

/* ---- what the devices do ---- */

static void device_burst(struct actor *actor)
{
	struct rng *rng = &actor->rng;
	uint32_t n = 1 + rng_below(rng, 200), group = 1 + rng_below(rng, 16);
	uint32_t pasid = 1 + rng_below(rng, PASIDS + 1), flags = PTD_F_WRITE;
	int rc;

	if (rng_one_in(rng, 20)) {
		/* Beyond the credits and the queue: its overflow loses some. */
		flags |= PTD_F_NO_CREDIT;
		n *= 8;
	}
	if (rng_one_in(rng, 20))
		flags |= PTD_F_NO_CREDIT | PTD_F_NO_LAST;
	rc = burst(actor->unit, pasid, n, group, flags);
	if (rc > 0)
		stress_count(&shared->faults, rc);
	/* No table for the PASID, a full queue, or no credit left */
	else if (rc && rc != -EINVAL && rc != -ENOSPC && rc != -EPERM && rc != -EBUSY)
		stress_fail(shared, "burst: %s", strerror(-rc));
}

static void *device_thread(void *arg)
{
	struct actor *actor = arg;

	while (!world_over(actor->world)) {
		device_burst(actor);
		usleep(rng_below(&actor->rng, 4000));
	}
	return NULL;
}

static void *churn_thread(void *arg)
{
	struct actor *actor = arg;
	struct world *world = actor->world;
	struct rng *rng = &actor->rng;
	uint32_t pasid, table;
	struct unit *unit;
	int rc, i;

	while (!world_over(world)) {
		i = (int)rng_below(rng, (uint32_t)world->server.n_units);
		unit = &world->server.unit[i];
		pasid = 1 + rng_below(rng, PASIDS);
		table = rng_one_in(rng, 2) ? unit->faulting : world->faulting[i];
		if (rng_one_in(rng, 10))
			table = unit->plain;
		rc = rng_one_in(rng, 3) ? iopf_device_detach_pasid(&unit->pri.vfio, pasid) :
					  iopf_device_attach_pasid(&unit->pri.vfio, pasid, table);
		if (rc && rc != -ENOENT && rc != -EINVAL)
			stress_fail(shared, "attach or detach: %s", strerror(-rc));
		usleep(rng_below(rng, 10000));
	}
	return NULL;
}

/* ---- servers ---- */

static void __attribute__((noreturn)) server_main(struct rng rng, int fd)
{
	struct server_plan plan = {
		.shared = shared, .fd = fd, .mode = rng_below(&rng, SERVER_HOARD),
		.end = rng_below(&rng, SERVER_ENDS), .ms = 50 + rng_below(&rng, 600),
		.seed = rng_next(&rng),
	};

	/* What the world ends with must not live on in here. */
	syscall(SYS_close_range, 3, fd - 1, 0);
	syscall(SYS_close_range, fd + 1, ~0u, 0);
	server_run(&plan);
}

static void tend_servers(struct world *world)
{
	uint64_t seed;
	int i, fd;

	for (i = 0; i < MAX_SERVERS; i++) {
		if (world->servers[i] && rng_one_in(&world->rng, 200))
			kill(world->servers[i], SIGKILL);
		if (world->servers[i] && waitpid(world->servers[i], NULL, WNOHANG))
			world->servers[i] = 0;
		if (world->servers[i])
			continue;
		fd = rng_one_in(&world->rng, 2) ? world->queue.fd : world->server.queue.fd;
		seed = rng_next(&world->rng);
		world->servers[i] = fork();
		if (!world->servers[i])
			server_main(rng_of(seed, 0), fd);
	}
}

/* ---- a world ---- */

static int world_open(struct world *world)
{
	int rc = server_open(&world->server, 0, UNITS), i;

	if (!rc)
		rc = iopf_queue_alloc(&world->server.io, 0, &world->queue);
	for (i = 0; i < UNITS && !rc; i++)
		rc = iopf_hwpt_alloc(&world->server.io, world->server.unit[i].pri.vfio.id,
				     world->server.unit[i].ioas, IOMMU_HWPT_ALLOC_PASID,
				     world->queue.id, &world->faulting[i]);
	return rc;
}

static void world_close(struct world *world)
{
	int i, rc = 0;

	for (i = 0; i < MAX_SERVERS; i++) {
		if (world->servers[i] <= 0)
			continue;
		kill(world->servers[i], SIGKILL);
		waitpid(world->servers[i], NULL, 0);
	}
	for (i = 0; i < UNITS && !rc; i++) {
		for (uint32_t pasid = 1; pasid <= PASIDS; pasid++)
			iopf_device_detach_pasid(&world->server.unit[i].pri.vfio, pasid);
		rc = iopf_destroy(&world->server.io, world->faulting[i]);
	}
	if (!rc)
		rc = iopf_queue_close(&world->queue);
	if (!rc)
		rc = server_close(&world->server);
	if (rc)
		stress_fail(shared, "close: %s", strerror(-rc));
}

static void __attribute__((noreturn)) world_main(uint64_t seed)
{
	struct world world = { .seed = seed, .rng = rng_of(seed, 0) };
	uint32_t end = rng_below(&world.rng, 3);
	uint32_t rounds = 200 + rng_below(&world.rng, 1500);
	struct actor actors[UNITS + 1];
	int i, rc;

	rc = world_open(&world);
	if (rc) {
		stress_fail(shared, "open a world: %s", strerror(-rc));
		_exit(1);
	}
	for (i = 0; i <= UNITS; i++) {
		actors[i] = (struct actor){
			.world = &world, .rng = rng_of(seed, 10 + i),
			.unit = i < UNITS ? &world.server.unit[i] : NULL,
		};
		pthread_create(&actors[i].thread, NULL,
			       i < UNITS ? device_thread : churn_thread, &actors[i]);
	}
	/* Not by the clock: on a slow machine as much is to happen. */
	while (rounds-- && !stress_over(shared)) {
		tend_servers(&world);
		usleep(2000);
	}
	if (end == 0)
		_exit(0);
	__atomic_store_n(&world.stop, true, __ATOMIC_RELAXED);
	for (i = 0; i <= UNITS; i++)
		pthread_join(actors[i].thread, NULL);
	world_close(&world);
	_exit(0);
}

/* ---- from outside ---- */

struct supervisor {
	struct stress_options opt;
	struct rng rng;
	struct pri_address found[UNITS];
	unsigned int lives, kills, unplugged;
	uint64_t groups, success, invalid, failure;
};

static bool sysfs_put(const char *bdf, const char *what, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/%s%s%s", bdf ? "devices/" : "", bdf ?: "", what);
	return !write_file(path, text);
}

/* The world and its servers are gone: the device must have all its answers. */
static void check_device(struct supervisor *sv, const char *bdf)
{
	struct pri_counts n;
	struct unit unit;
	struct iopf io;

	if (map_regs(&io, bdf, &unit)) {
		stress_fail(shared, "no registers of %s", bdf);
		return;
	}
	wait_reg(&unit, PTD_OPEN_GROUPS, 0);
	pri_counts(&unit.regs, &n);
	if (n.groups != n.responses || n.unmatched || reg(&unit, PTD_N_STALE) ||
	    n.responses != n.success + n.invalid + n.failure)
		stress_fail(shared, "%s: %u groups, %u answers, %u unmatched, %u stale", bdf,
			    n.groups, n.responses, n.unmatched, reg(&unit, PTD_N_STALE));
	sv->groups += n.groups;
	sv->success += n.success;
	sv->invalid += n.invalid;
	sv->failure += n.failure;
	munmap((void *)unit.regs.bar.base, unit.regs.bar.size);
}

/* Take a device from its driver, or out of the machine, and put it back. */
static void shake_device(struct supervisor *sv, const char *bdf)
{
	uint32_t what = rng_below(&sv->rng, 6);
	bool done = true;

	/* It has a driver still if its world was killed. */
	if (what == 0)
		sysfs_put(bdf, "/driver/unbind", bdf);
	if (what == 1) {
		done = sysfs_put(bdf, "/remove", "1") && sysfs_put(NULL, "rescan", "1") &&
		       sysfs_put(bdf, "/enable", "1");
		sv->unplugged++;
	}
	if (!done)
		stress_fail(shared, "%s cannot be unplugged and found again", bdf);
}

static void reap_all(void)
{
	uint64_t end = clock_ms() + STUCK_MS;
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0 && clock_ms() < end) {
		if (!pid)
			usleep(2000);
	}
	if (pid >= 0)
		stress_fail(shared, "a process does not end");
}

static void live(struct supervisor *sv)
{
	uint64_t seed = rng_of(sv->opt.seed, 1000 + sv->lives++).state;
	uint32_t ms = rng_one_in(&sv->rng, 3) ? 200 + rng_below(&sv->rng, 4000) : STUCK_MS;
	uint64_t until = clock_ms() + ms;
	pid_t pid = fork();
	int i;

	if (!pid)
		world_main(seed);
	while (waitpid(pid, NULL, WNOHANG) == 0) {
		if (clock_ms() > until) {
			kill(pid, SIGKILL);
			sv->kills++;
			if (ms == STUCK_MS)
				stress_fail(shared, "a world does not end");
			until += STUCK_MS;
		}
		usleep(5000);
	}
	/*
	 * Its servers, now without any device. One that was just born may have held
	 * the device open until now, and while VFIO closes a device its memory is off
	 * and all registers read 0: they tell nothing before that is over.
	 */
	reap_all();
	for (i = 0; i < UNITS; i++)
		check_device(sv, sv->found[i].bdf);
	for (i = 0; i < UNITS; i++)
		shake_device(sv, sv->found[i].bdf);
}

/* Enough was done, or it took long enough and what must happen has happened. */
static bool is_enough(const struct supervisor *sv, uint64_t end)
{
	return shared->faults >= sv->opt.count ||
	       (clock_ms() >= end && sv->success && sv->invalid && sv->failure);
}

int main(int argc, char **argv)
{
	struct supervisor sv = {
		.opt = { .program = "iommufd_pri_stress", .unit = "faults",
			 .count = 10000000, .seconds = 20 },
	};
	uint64_t end;

	stress_begin(&sv.opt, argc, argv);
	if (pri_find(sv.found, UNITS) < UNITS)
		ksft_exit_skip("fewer than two pri-testdev (1234:9171) here\n");
	if (can_be_reset(&sv.found[0]))
		ksft_exit_skip("resets clear what pri-testdev counts: load it without flr=on\n");
	ksft_set_plan(2);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (shared == MAP_FAILED)
		ksft_exit_fail_msg("no shared memory\n");
	sv.rng = rng_of(sv.opt.seed, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);

	end = clock_ms() + sv.opt.seconds * 1000;
	while (!stress_over(shared) && !is_enough(&sv, end))
		live(&sv);
	ksft_print_msg("%u worlds, %u killed; devices unplugged %u times\n", sv.lives, sv.kills,
		       sv.unplugged);
	ksft_print_msg("%llu faults, %llu groups; answers %llu good, %llu invalid, %llu failure\n",
		       (unsigned long long)shared->faults, (unsigned long long)sv.groups,
		       (unsigned long long)sv.success, (unsigned long long)sv.invalid,
		       (unsigned long long)sv.failure);
	ksft_test_result(!shared->failed, "each group has one answer, all went as it may %s\n",
			 shared->failed ? shared->failure : "");
	ksft_test_result(sv.success && sv.invalid && sv.failure,
			 "answers of each kind were given\n");
	stress_finish(&sv.opt);
}
