// SPDX-License-Identifier: GPL-2.0-only
/*
 * iopf-scale: the kernel memory of fault objects and of devices that fault
 *
 * For 1 to 64 of iommufd's mock devices, on one fault object and on one each, in
 * a memory cgroup of its own: what the cgroup is charged for objects, for page
 * tables that report faults instead of such that do not, and for faults that
 * nobody answers. A line of JSON for each case, and an error if something is
 * left when all is closed. It sleeps a lot, which costs nothing under QEMU's -icount.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "../testing/selftests/iommu/iommufd_fault_utils.h"

#define CGROUP "/sys/fs/cgroup"
#define OURS CGROUP "/iopf-scale"
#define MAX_DEVICES 64
/* Unanswered requests of each device: a usual PRI credit, if the object has room */
#define OUTSTANDING 256
#define DEPTH 4096
#define FIRST_IOVA 0x100000000ull
/* What may stay: the pages that each CPU keeps to charge the next ones from */
#define SLACK (64 * 4096)

static void fail(const char *what, int error)
{
	fprintf(stderr, "iopf-scale: %s: %s\n", what, strerror(error));
	exit(1);
}

static void check(int rc, const char *what)
{
	if (rc)
		fail(what, -rc);
}

static void must_write(const char *path, const char *text)
{
	check(write_file(path, text), path);
}

static void enter_cgroup(void)
{
	if (mount("cgroup2", CGROUP, "cgroup2", 0, NULL))
		fail("mount cgroup2", errno);
	must_write(CGROUP "/cgroup.subtree_control", "+memory");
	if (mkdir(OURS, 0755))
		fail("mkdir " OURS, errno);
	must_write(OURS "/cgroup.procs", "0");
}

/* Bytes of kernel memory that the cgroup is charged for. */
static long charged(void)
{
	char line[256];
	long bytes = -1;
	FILE *f;

	/* The kernel adds the CPUs' counters up every two seconds. */
	sleep(5);
	f = fopen(OURS "/memory.stat", "r");
	if (!f)
		fail(OURS "/memory.stat", errno);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "kernel %ld", &bytes) == 1)
			break;
	fclose(f);
	return bytes;
}

struct scene {
	int fd;
	uint32_t ioas_id;
	unsigned int devices;
	unsigned int objects;
	struct mock_device dev[MAX_DEVICES];
	uint32_t fault_id[MAX_DEVICES];
	int fault_fd[MAX_DEVICES];
};

static void add_objects(struct scene *s)
{
	unsigned int i;

	for (i = 0; i < s->objects; i++)
		check(fault_queue_alloc(s->fd, &s->fault_id[i], &s->fault_fd[i]),
		      "allocate a fault object");
}

/* A page table for each device, that reports to its object, or to nobody. */
static void attach(struct scene *s, bool faults)
{
	unsigned int i;
	uint32_t hwpt_id;

	for (i = 0; i < s->devices; i++) {
		check(hwpt_alloc_paging(s->fd, s->dev[i].idev_id, s->ioas_id,
					faults ? IOMMU_HWPT_FAULT_ID_VALID : 0,
					s->fault_id[i % s->objects], &hwpt_id),
		      "allocate a HWPT");
		check(mock_replace(s->fd, s->dev[i].stdev_id, hwpt_id), "attach");
		iommufd_destroy(s->fd, s->dev[i].hwpt_id);
		s->dev[i].hwpt_id = hwpt_id;
	}
}

/* Not faster than the memory of the devices grows: none of them is to try again. */
static void fault(struct scene *s, unsigned int each)
{
	long queued = 0;
	unsigned int i;

	for (i = 0; i < s->devices * each; i++) {
		check(iopf_inject(s->fd, s->dev[i % s->devices].idev_id, 0, i, FIRST_IOVA, 1, 1,
				  0), "inject faults");
		if (i % s->devices == s->devices - 1)
			usleep(1000);
	}
	for (i = 0; i < s->objects; i++)
		queued += fdinfo_number(s->fault_fd[i], "iommufd-fault-queued");
	if (queued != (long)s->devices * each)
		fail("faults that are not queued", ENOBUFS);
}

static void open_scene(struct scene *s)
{
	unsigned int i;

	s->fd = open("/dev/iommu", O_RDWR);
	if (s->fd < 0)
		fail("/dev/iommu", errno);
	check(ioas_alloc(s->fd, &s->ioas_id), "allocate an IOAS");
	for (i = 0; i < s->devices; i++)
		check(mock_device_create(s->fd, s->ioas_id, 0, &s->dev[i]), "create a device");
}

static void close_scene(struct scene *s)
{
	unsigned int i;

	for (i = 0; i < s->objects; i++)
		close(s->fault_fd[i]);
	for (i = 0; i < s->devices; i++)
		iommufd_destroy(s->fd, s->dev[i].stdev_id);
	close(s->fd);
}

static void run(unsigned int devices, unsigned int objects)
{
	unsigned int each = DEPTH / (devices / objects);
	struct scene s = { .devices = devices, .objects = objects };
	long begin = charged(), opened, with_objects, plain, attached, faulted, left;

	if (each > OUTSTANDING)
		each = OUTSTANDING;
	open_scene(&s);
	opened = charged();
	add_objects(&s);
	with_objects = charged();
	attach(&s, false);
	plain = charged();
	attach(&s, true);
	attached = charged();
	fault(&s, each);
	faulted = charged();
	close_scene(&s);
	left = charged() - begin;
	if (left > SLACK)
		fail("memory is left after the end", EBUSY);
	printf("{\"devices\": %u, \"objects\": %u, ", devices, objects);
	printf("\"object\": %ld, ", (with_objects - opened) / objects);
	printf("\"device\": %ld, ", (attached - plain) / devices);
	printf("\"outstanding\": %u, \"faults\": %ld, ", each, (faulted - attached) / devices);
	printf("\"left\": %ld}\n", left);
	fflush(stdout);
}

int main(void)
{
	cpu_set_t cpu;
	unsigned int n;

	CPU_ZERO(&cpu);
	CPU_SET(0, &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
	enter_cgroup();
	for (n = 1; n <= MAX_DEVICES; n *= 4)
		run(n, 1);
	for (n = 4; n <= MAX_DEVICES; n *= 4)
		run(n, n);
	return 0;
}
