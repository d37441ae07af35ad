// SPDX-License-Identifier: GPL-2.0-only
/*
 * A QEMU plugin that counts where a guest spends its instructions:
 *
 *	cc -O2 -Wall -Wextra -shared -fPIC -o insn-profile.so insn-profile.c
 *	qemu-system-x86_64 ... -plugin /path/to/insn-profile.so,out=FILE[,mark=ADDRESS]
 *
 * FILE gets a line for each block of code that was run: address, instructions,
 * times.  With mark nothing is counted until a block at ADDRESS is run, and there are
 * as many times as that was run: from the first to the second time, and so on.  No QEMU
 * headers are used; the declarations are those of plugin API 7.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLUGIN_API 7
#define EXPORT __attribute__((visibility("default")))

struct plugin_tb;
extern void qemu_plugin_reset(uint64_t id, void (*cb)(void *data), void *data);
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
						  void (*cb)(struct plugin_tb *tb, void *data),
						  void *data);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct plugin_tb *tb,
						 void (*cb)(unsigned int vcpu, void *data),
						 int registers, void *data);
extern size_t qemu_plugin_tb_n_insns(const struct plugin_tb *tb);
extern uint64_t qemu_plugin_tb_vaddr(const struct plugin_tb *tb);

#define PHASES 8	/* the last goes on to the end */

struct block {
	struct block *next;
	uint64_t address, instructions, times[PHASES];
};

static struct block *blocks;
static unsigned int phase, phases = 1;
static uint64_t plugin, mark;
static bool counts = true;
static FILE *out;

static void executed(unsigned int vcpu, void *data)
{
	struct block *block = data;

	(void)vcpu;
	if (block->address == mark && mark && phase < PHASES - 1)
		phase++;
	block->times[phase]++;
}

static void translated(struct plugin_tb *tb, void *data);

static void begin(void *data)
{
	(void)data;
	qemu_plugin_register_vcpu_tb_trans_cb(plugin, translated, NULL);
}

/* What was translated until now counts nothing: forget it. */
static void marked(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	if (!counts)
		qemu_plugin_reset(plugin, begin, NULL);
	counts = true;
}

static void translated(struct plugin_tb *tb, void *data)
{
	struct block *block;

	(void)data;
	if (!counts) {
		if (qemu_plugin_tb_vaddr(tb) == mark)
			qemu_plugin_register_vcpu_tb_exec_cb(tb, marked, 0, NULL);
		return;
	}
	block = calloc(1, sizeof(*block));
	if (!block)
		abort();
	block->address = qemu_plugin_tb_vaddr(tb);
	block->instructions = qemu_plugin_tb_n_insns(tb);
	block->next = blocks;
	blocks = block;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, block);
}

static bool was_run(const struct block *block)
{
	unsigned int i;

	for (i = 0; i < phases; i++)
		if (block->times[i])
			return true;
	return false;
}

static void print(void)
{
	struct block *block;
	unsigned int i;

	for (block = blocks; block; block = block->next) {
		if (!was_run(block))
			continue;
		fprintf(out, "%" PRIx64 " %" PRIu64, block->address, block->instructions);
		for (i = 0; i < phases; i++)
			fprintf(out, " %" PRIu64, block->times[i]);
		fputc('\n', out);
	}
	fclose(out);
}

EXPORT int qemu_plugin_version = PLUGIN_API;

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);
EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	(void)info;
	if (argc < 1 || argc > 2 || strncmp(argv[0], "out=", 4))
		return -1;
	if (argc == 2) {
		if (strncmp(argv[1], "mark=", 5))
			return -1;
		mark = strtoull(argv[1] + 5, NULL, 16);
		phases = PHASES;
		counts = false;
	}
	plugin = id;
	out = fopen(argv[0] + 4, "we");
	if (!out)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	atexit(print);
	return 0;
}
