// SPDX-License-Identifier: GPL-2.0-only
/* What is counted apart from time: system calls by ptrace, allocations by kmem's tracepoints. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define TRACING "/sys/kernel/tracing/"
#define TRACE_KB "65536"
#define MAX_SITES 32
#define SYSCALL_STOP (SIGTRAP | 0x80)

/* Nothing else here calls it. */
#define MARK SYS_getppid

void count_mark(void)
{
	syscall(MARK);
}

/*
 * The system call at whose entry the child has stopped, or -1 at an exit; an ioctl by
 * which it serves faults is NR_SERVE.
 */
#define NR_SERVE -2
static long entered(pid_t child)
{
	struct __ptrace_syscall_info info;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof(info), &info) <= 0 ||
	    info.op != PTRACE_SYSCALL_INFO_ENTRY)
		return -1;
	if (info.entry.nr == SYS_ioctl && info.entry.args[1] == IOMMU_FAULT_SERVE)
		return NR_SERVE;
	return (long)info.entry.nr;
}

int count_syscalls(pid_t child, uint64_t *calls)
{
	int status, marks = 0, pass = 0;
	long nr;

	*calls = 0;
	if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status))
		return -ECHILD;
	ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	for (;;) {
		ptrace(PTRACE_SYSCALL, child, 0, pass);
		if (waitpid(child, &status, 0) < 0)
			return -errno;
		if (!WIFSTOPPED(status))
			return marks == 2 ? status : -ECHILD;
		pass = WSTOPSIG(status) == SYSCALL_STOP ? 0 : WSTOPSIG(status);
		nr = pass ? -1 : entered(child);
		if (nr == MARK)
			marks++;
		else if (nr != -1 && nr != SYS_ioctl && marks == 1)
			++*calls;
	}
}

static int put(struct iopf *io, const char *file, const char *text)
{
	char path[128];
	int fd, rc = 0;

	snprintf(path, sizeof(path), TRACING "%s", file);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		rc = iopf_fail(io, errno, "write %s to %s", text, path);
	if (fd >= 0)
		close(fd);
	return rc;
}

static const char *const events[] = {
	"kmalloc", "kmem_cache_alloc", "mm_page_alloc",
};

static int enable(struct iopf *io, const char *on)
{
	char file[64];
	unsigned int i;
	int rc = 0;

	for (i = 0; i < sizeof(events) / sizeof(*events) && !rc; i++) {
		snprintf(file, sizeof(file), "events/kmem/%s/enable", events[i]);
		rc = put(io, file, on);
	}
	return rc;
}

int count_allocations_begin(struct iopf *io, int *on)
{
	char pid[16];
	int rc;

	*on = open(TRACING "tracing_on", O_WRONLY | O_CLOEXEC);
	if (*on < 0 || write(*on, "0", 1) != 1)
		return iopf_fail(io, errno, "open tracing_on");

	snprintf(pid, sizeof(pid), "%d", getpid());
	rc = put(io, "set_event_pid", pid);
	if (!rc)
		rc = put(io, "buffer_size_kb", TRACE_KB);
	if (!rc)
		rc = put(io, "trace", "");
	if (!rc)
		rc = enable(io, "1");
	return rc;
}

struct site {
	char name[64];
	uint64_t n;
};

/* The allocation's caller, without offset; page allocations of slabs have none. */
static void site_name(const char *line, char name[64])
{
	const char *at = strstr(line, "call_site=");

	if (at)
		sscanf(at + strlen("call_site="), "%63[^+ ]", name);
	else
		strcpy(name, strstr(line, "mm_page_alloc:") ? "pages" : "");
}

static void add_site(struct site *sites, const char *name)
{
	unsigned int i;

	for (i = 0; i < MAX_SITES - 1 && sites[i].n; i++)
		if (!strcmp(sites[i].name, name))
			break;
	if (!sites[i].n)
		strcpy(sites[i].name, name);
	sites[i].n++;
}

/* The injector allocates an array for each batch: inlined, it counts as its caller. */
static bool is_injector(const char *name)
{
	return !strcmp(name, "iommufd_mock_iopf_batch") ||
	       !strcmp(name, "iommufd_mock_iopf_test") || !strcmp(name, "iommufd_test");
}

/* Each case keeps to the first CPU. */
static uint64_t lost_events(void)
{
	unsigned long long lost = 0, n;
	char line[128];
	FILE *f = fopen(TRACING "per_cpu/cpu0/stats", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "overrun: %llu", &n) == 1 ||
		    sscanf(line, "commit overrun: %llu", &n) == 1 ||
		    sscanf(line, "dropped events: %llu", &n) == 1)
			lost += n;
	if (f)
		fclose(f);
	return lost;
}

int count_allocations_end(struct iopf *io, uint64_t *n, char *sites, size_t room)
{
	struct site found[MAX_SITES] = {};
	char line[1024], name[64];
	size_t used = 0;
	unsigned int i;
	FILE *f;
	int rc;

	rc = enable(io, "0");
	if (rc)
		return rc;
	if (lost_events())
		return iopf_fail(io, ENOBUFS, "the trace buffer overflowed");
	f = fopen(TRACING "trace", "re");
	if (!f)
		return iopf_fail(io, errno, "open the trace");
	*n = 0;
	while (fgets(line, sizeof(line), f)) {
		site_name(line, name);
		if (line[0] == '#' || !name[0] || is_injector(name))
			continue;
		add_site(found, name);
		++*n;
	}
	fclose(f);
	sites[0] = 0;
	for (i = 0; i < MAX_SITES && found[i].n && used < room; i++)
		used += snprintf(sites + used, room - used, "%s%s %llu", i ? ", " : "",
				 found[i].name, (unsigned long long)found[i].n);
	return put(io, "trace", "");
}
