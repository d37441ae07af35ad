// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server.h"

/* A memfd, so that another program can read it, too. */
int buffer_create(struct iopf *io, struct buffer *buffer, const char *name, size_t size)
{
	size_t pages = (size + PAGE_SIZE - 1) / PAGE_SIZE;
	char *base;
	int fd;

	fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0)
		return iopf_fail(io, errno, "memfd for the %s", name);
	if (ftruncate(fd, (off_t)size)) {
		close(fd);
		return iopf_fail(io, errno, "%zu bytes for the %s", size, name);
	}
	base = mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) {
		close(fd);
		return iopf_fail(io, errno, "mmap of the %s", name);
	}
	*buffer = (struct buffer){ fd, base, size, pages };
	return 0;
}

static int read_all(int fd, char *to, size_t size)
{
	size_t done = 0;
	ssize_t n;

	while (done < size) {
		n = read(fd, to + done, size - done);
		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
		done += (size_t)n;
	}
	return 0;
}

int buffer_load(struct iopf *io, struct buffer *buffer, const char *path)
{
	struct stat st;
	int fd, rc;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return iopf_fail(io, errno, "open %s", path);
	if (fstat(fd, &st))
		rc = iopf_fail(io, errno, "stat %s", path);
	else if (!S_ISREG(st.st_mode) || !st.st_size)
		rc = iopf_say(io, EINVAL, "%s is no file with content", path);
	else
		rc = buffer_create(io, buffer, "file", (size_t)st.st_size);
	if (!rc) {
		rc = read_all(fd, buffer->base, buffer->size);
		if (rc) {
			buffer_free(buffer);
			rc = iopf_fail(io, -rc, "read %s", path);
		}
	}
	close(fd);
	return rc;
}

void buffer_free(struct buffer *buffer)
{
	if (!buffer->base)
		return;
	munmap(buffer->base, buffer->pages * PAGE_SIZE);
	close(buffer->fd);
	buffer->base = NULL;
}

static void exec_sha256sum(int input, int output)
{
	lseek(input, 0, SEEK_SET);
	if (dup2(input, 0) == 0 && dup2(output, 1) == 1)
		execlp("sha256sum", "sha256sum", (char *)NULL);
	perror("sha256sum");
	_exit(127);
}

int buffer_hash(struct iopf *io, const struct buffer *buffer, char hash[65])
{
	int link[2], status, rc;
	pid_t child;

	if (pipe2(link, O_CLOEXEC))
		return iopf_fail(io, errno, "pipe");
	child = fork();
	if (!child)
		exec_sha256sum(buffer->fd, link[1]);
	close(link[1]);
	rc = read_all(link[0], hash, 64);
	hash[64] = 0;
	close(link[0]);
	if (child < 0 || waitpid(child, &status, 0) != child)
		return iopf_fail(io, errno, "run sha256sum");
	if (rc || status || strspn(hash, "0123456789abcdef") != 64)
		return iopf_say(io, EPROTO, "no hash from sha256sum");
	return 0;
}

int window_init(struct iopf *io, struct window *window, const struct buffer *buffer,
		const char *name, uint64_t iova, uint32_t access)
{
	*window = (struct window){
		.name = name, .buffer = buffer, .iova = iova, .access = access,
		.mapped = calloc(buffer->pages, sizeof(bool)),
	};
	return window->mapped ? 0 : iopf_fail(io, ENOMEM, "the map of window %s", name);
}

void window_free(struct window *window)
{
	free(window->mapped);
	window->mapped = NULL;
}

bool window_allows(const struct window *window, uint64_t iova, uint32_t perm)
{
	uint32_t known = IOMMU_PGFAULT_PERM_READ | IOMMU_PGFAULT_PERM_WRITE;

	if (iova < window->iova || (iova - window->iova) / PAGE_SIZE >= window->buffer->pages)
		return false;
	if (perm & IOMMU_PGFAULT_PERM_WRITE && !(window->access & IOMMU_IOAS_MAP_WRITEABLE))
		return false;
	return !(perm & ~known);
}

static int map_run(struct iopf *io, uint32_t ioas, struct window *window, size_t first, size_t n,
		   uint32_t flags)
{
	uint64_t offset = first * PAGE_SIZE;
	int rc;

	rc = iopf_map(io, ioas, window->iova + offset, window->buffer->base + offset,
		      n * PAGE_SIZE, window->access | flags);
	if (rc || flags & IOMMU_IOAS_MAP_ON_FAULT)
		return rc;
	memset(window->mapped + first, true, n);
	window->n_mapped += n;
	window->n_maps++;
	return 0;
}

static int map_unmapped(struct iopf *io, uint32_t ioas, struct window *window, size_t page,
			size_t n, uint32_t flags)
{
	size_t end = page + n, next;
	int rc;

	for (; page < end; page = next + 1) {
		for (next = page; next < end && !window->mapped[next]; next++)
			;
		if (next == page)
			continue;
		rc = map_run(io, ioas, window, page, next - page, flags);
		if (rc)
			return rc;
	}
	return 0;
}

int window_map(struct iopf *io, uint32_t ioas, struct window *window, uint64_t iova, size_t n)
{
	return map_unmapped(io, ioas, window, (iova - window->iova) / PAGE_SIZE, n, 0);
}

int window_map_on_demand(struct iopf *io, uint32_t ioas, struct window *window)
{
	return map_unmapped(io, ioas, window, 0, window->buffer->pages, IOMMU_IOAS_MAP_ON_FAULT);
}
