// SPDX-License-Identifier: GPL-2.0-only
/*
 * A QEMU plugin that counts where a guest spends its instructions:
 *
 *	cc -O2 -Wall -Wextra -shared -fPIC -o insn-profile.so insn-profile.c
 *	qemu-system-x86_64 ... -plugin /path/to/insn-profile.so,out=FILE
 *
 * FILE gets a line for each block of code that was run: address, instructions,
 * times.  No QEMU headers are used; the declarations are those of plugin API 7.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLUGIN_API 7
#define EXPORT __attribute__((visibility("default")))

struct plugin_tb;
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
						  void (*cb)(struct plugin_tb *tb, void *data),
						  void *data);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct plugin_tb *tb,
						 void (*cb)(unsigned int vcpu, void *data),
						 int registers, void *data);
extern size_t qemu_plugin_tb_n_insns(const struct plugin_tb *tb);
extern uint64_t qemu_plugin_tb_vaddr(const struct plugin_tb *tb);

struct block {
	struct block *next;
	uint64_t address, instructions, times;
};

static struct block *blocks;
static FILE *out;

static void executed(unsigned int vcpu, void *data)
{
	struct block *block = data;

	(void)vcpu;
	block->times++;
}

static void translated(struct plugin_tb *tb, void *data)
{
	struct block *block = calloc(1, sizeof(*block));

	(void)data;
	if (!block)
		abort();
	block->address = qemu_plugin_tb_vaddr(tb);
	block->instructions = qemu_plugin_tb_n_insns(tb);
	block->next = blocks;
	blocks = block;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, block);
}

static void print(void)
{
	struct block *block;

	for (block = blocks; block; block = block->next)
		if (block->times)
			fprintf(out, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", block->address,
				block->instructions, block->times);
	fclose(out);
}

EXPORT int qemu_plugin_version = PLUGIN_API;

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);
EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4))
		return -1;
	out = fopen(argv[0] + 4, "we");
	if (!out)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	atexit(print);
	return 0;
}
