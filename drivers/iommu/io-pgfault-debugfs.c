// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page fault core: what an operator sees of a device
 */
#include <linux/debugfs.h>
#include <linux/iommu.h>
#include <linux/seq_file.h>

#include "io-pgfault.h"

static const char * const iopf_code_name[] = { "success", "invalid", "failure" };

static const char * const iopf_cause_name[] = {
	[IOPF_CAUSE_USER]	= "user",
	[IOPF_CAUSE_HANDLER]	= "handler",
	[IOPF_CAUSE_DETACH]	= "detach",
	[IOPF_CAUSE_CLOSE]	= "close",
	[IOPF_CAUSE_DEADLINE]	= "deadline",
	[IOPF_CAUSE_NO_HANDLER]	= "no_handler",
	[IOPF_CAUSE_NO_ROOM]	= "no_room",
	[IOPF_CAUSE_REMOVE]	= "remove",
	[IOPF_CAUSE_OVERFLOW]	= "overflow",
	[IOPF_CAUSE_RESET]	= "reset",
	[IOPF_CAUSE_AGE]	= "age",
	[IOPF_CAUSE_STOP]	= "stop",
};

static void iopf_show_answered(struct seq_file *file, struct iopf_device *fdev)
{
	u64 codes[IOPF_NR_CODES] = {}, causes[IOPF_NR_CAUSES] = {};
	unsigned int cause, code;
	u64 answered;

	for (cause = 0; cause < IOPF_NR_CAUSES; cause++) {
		for (code = 0; code < IOPF_NR_CODES; code++) {
			answered = atomic64_read(&fdev->answered[cause][code]);
			codes[code] += answered;
			causes[cause] += answered;
		}
	}
	for (code = 0; code < IOPF_NR_CODES; code++)
		seq_printf(file, "answered_%s %llu\n", iopf_code_name[code], codes[code]);
	for (cause = 0; cause < IOPF_CAUSE_OVERFLOW; cause++)
		seq_printf(file, "answered_by_%s %llu\n", iopf_cause_name[cause],
			   causes[cause]);
}

/* Those whose memory is in use for nothing else; @delivered counts the others. */
static unsigned int iopf_count_delivered(struct iopf_device *fdev)
{
	struct iopf_page *page = iopf_first_page(fdev);
	unsigned int i, n = 0;

	for (; page; page = page->next) {
		for (i = 0; i < IOPF_PAIRS_PER_PAGE; i++)
			n += READ_ONCE(page->pairs[i].group.delivered);
	}
	return n;
}

int iopf_counters_show(struct seq_file *file, void *unused)
{
	struct iopf_device *fdev = file->private;
	unsigned int allocated, limit, depth, cause;
	struct iopf_counters count;

	spin_lock_bh(&fdev->lock);
	count = fdev->count;
	depth = atomic_read(&fdev->depth);
	allocated = fdev->allocated;
	limit = fdev->limit;
	spin_unlock_bh(&fdev->lock);
	count.delivered += iopf_count_delivered(fdev);

	seq_printf(file, "requests %llu\n", count.requests);
	seq_printf(file, "groups %llu\n", count.groups);
	seq_printf(file, "delivered %llu\n", count.delivered);
	iopf_show_answered(file, fdev);
	seq_printf(file, "no_room %llu\n", count.no_room);
	seq_printf(file, "overflows %llu\n", count.overflows);
	for (cause = 0; cause < IOPF_NR_CAUSES; cause++) {
		if (cause == IOPF_CAUSE_DETACH || cause >= IOPF_CAUSE_NO_ROOM)
			seq_printf(file, "recalled_%s %llu\n", iopf_cause_name[cause],
				   count.recalled[cause]);
	}
	seq_printf(file, "stale %llu\n", count.stale);
	seq_printf(file, "partials %u\n", count.partials);
	seq_printf(file, "depth %u\n", depth);
	seq_printf(file, "depth_peak %u\n", count.depth_peak);
	seq_printf(file, "pool %u\n", allocated);
	seq_printf(file, "pool_limit %u\n", limit);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(iopf_counters);

/* iommu/iopf, also where the IOMMU drivers have nothing to show in iommu */
static struct dentry *iopf_debugfs_dir(void)
{
	static struct dentry *dir;
	static DEFINE_MUTEX(lock);

	guard(mutex)(&lock);
	if (dir)
		return dir;
#ifdef CONFIG_IOMMU_DEBUGFS
	dir = debugfs_create_dir("iopf", iommu_debugfs_dir);
#else
	dir = debugfs_create_dir("iopf", debugfs_create_dir("iommu", NULL));
#endif
	return dir;
}

/* The file of a device; iopf_queue_remove_device() removes it. */
struct dentry *iopf_debugfs_create(struct iopf_device *fdev)
{
	return debugfs_create_file(dev_name(fdev->param.dev), 0444, iopf_debugfs_dir(), fdev,
				   &iopf_counters_fops);
}
