// SPDX-License-Identifier: GPL-2.0-only
/*
 * vtd-nest: the guest's tables, from the root to a leaf of either stage or of one that is
 * nested in the other
 */
#include "vtd-nest-device.h"

/* What translates to itself or not at all has no size of its own. */
#define ANY_SHIFT	30

/* ---- tables ---- */

bool find_context(uint16_t sid, uint64_t context[4])
{
	uint64_t root;

	if (!(get(GSTS, 4) & GSTS_TES))
		return false;
	/* a root entry has a table for either half of the functions of a bus */
	if (!read_memory(ADDR(get(RTADDR, 8)) + (sid >> 8) * 16 + (sid >> 7 & 1) * 8, &root, 8) ||
	    !(root & 1))
		return false;
	return read_memory(ADDR(root) + (sid & 127) * 32, context, 32) &&
	       context[0] & CONTEXT_PRESENT;
}

bool find_entry(const uint64_t context[4], uint32_t pasid, struct pasid_entry *pe)
{
	uint64_t directory;

	if (pasid >> 6 >= 1u << (CONTEXT_PDTS(context[0]) + 7))
		return false;
	if (!read_memory(ADDR(context[0]) + (pasid >> 6) * 8, &directory, 8) || !(directory & 1))
		return false;
	return read_memory(ADDR(directory) + (pasid & 63) * 64, pe, 64) && PE_PRESENT(pe);
}

/* ---- the walk ---- */

/* Bits of an entry that a guest's processor may be changing: AGAIN if it did. */
static enum outcome set_bits(uint64_t at, uint64_t entry, uint64_t bits)
{
	hwaddr len = 8;
	uint64_t *where;
	bool done;

	if ((entry & bits) == bits)
		return DONE;
	where = address_space_map(&address_space_memory, at, &len, true, 0);
	if (!where)
		return FAULT;
	done = len == 8 && __atomic_compare_exchange_n(where, &entry, entry | bits, false,
						       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	address_space_unmap(&address_space_memory, where, len, true, done ? 8 : 0);
	return done ? DONE : AGAIN;
}

static uint64_t entry_at(uint64_t table, uint64_t addr, unsigned int shift)
{
	return table + (addr >> shift & 511) * 8;
}

static uint64_t within(uint64_t page, uint64_t addr, unsigned int shift)
{
	uint64_t mask = (1ull << shift) - 1;

	return (page & ~mask) | (addr & mask);
}

#define LARGE		(1ull << 7)	/* in both stages, of the levels of 2 MiB and 1 GiB */
#define SS_ACCESSED	(1ull << 8)
#define SS_DIRTY	(1ull << 9)

/*
 * Second stage (9.9). With @write the leaf becomes dirty. @addr becomes the result, and
 * @perm and @shift lose what it has less.
 */
static enum outcome second_stage(const struct pasid_entry *pe, bool write, uint64_t *addr,
				 int *perm, unsigned int *shift)
{
	unsigned int now = 12 + 9 * (PE_AW(pe) + 1);
	uint64_t table = ADDR(pe->word[0]), at, entry, bits;
	enum outcome outcome;
	int allowed = READ | WRITE;
	bool leaf;

	if (PE_AW(pe) < 1 || PE_AW(pe) > 3 || *addr >> (now + 9))
		return FAULT;
	for (;; now -= 9) {
		at = entry_at(table, *addr, now);
		if (!read_memory(at, &entry, 8) || !(entry & (READ | WRITE)))
			return FAULT;
		if (entry & LARGE && now > 30)
			return FAULT;
		leaf = now == 12 || entry & LARGE;
		allowed &= entry & (READ | WRITE);
		bits = SS_ACCESSED | (leaf && write && allowed & WRITE ? SS_DIRTY : 0);
		outcome = PE_SSADE(pe) ? set_bits(at, entry, bits) : DONE;
		if (outcome != DONE)
			return outcome;
		table = ADDR(entry);
		if (leaf)
			break;
	}
	*addr = within(table, *addr, now);
	*perm &= allowed;
	if (now < *shift)
		*shift = now;
	return DONE;
}

#define FS_PRESENT	(1ull << 0)
#define FS_WRITE	(1ull << 1)
#define FS_USER		(1ull << 2)
#define FS_ACCESSED	(1ull << 5)
#define FS_DIRTY	(1ull << 6)
#define FS_EXTENDED	(1ull << 10)	/* accessed by a device */

/* Where an entry of a first stage is; of a nested one its table is the guest's memory. */
static enum outcome table_addr(const struct walk *w, bool write, uint64_t *at)
{
	unsigned int shift = ANY_SHIFT;
	int perm = READ | WRITE;
	enum outcome outcome;

	if (PE_TYPE(w->pe) != NESTED)
		return DONE;
	outcome = second_stage(w->pe, write, at, &perm, &shift);
	if (outcome != DONE)
		return outcome;
	return perm & READ && (!write || perm & WRITE) ? DONE : FAULT;
}

/* @at: of the entry, as the first stage has it */
static enum outcome mark_entry(const struct walk *w, uint64_t at, uint64_t entry, uint64_t bits)
{
	enum outcome outcome;

	if ((entry & bits) == bits)
		return DONE;
	outcome = table_addr(w, true, &at);
	return outcome == DONE ? set_bits(at, entry, bits) : outcome;
}

/* May the walk go on through this entry? */
static bool entry_allows(uint64_t entry, unsigned int shift)
{
	if (!(entry & FS_PRESENT) || !(entry & FS_USER))
		return false;
	if (!(entry & LARGE) || shift == 12)
		return true;
	/* bit 12 of a large page is no part of its address */
	return shift <= 30 && !(entry & ((1ull << shift) - 1) & ~0x1fffull);
}

static bool is_canonical(uint64_t addr, unsigned int bits)
{
	return (uint64_t)((int64_t)(addr << (64 - bits)) >> (64 - bits)) == addr;
}

/* The leaf of a first stage: through the second, and dirty if it may be written to. */
static enum outcome finish_leaf(struct walk *w, uint64_t at, uint64_t entry)
{
	uint64_t bits = FS_ACCESSED | (PE_EAFE(w->pe) ? FS_EXTENDED : 0);
	bool write = w->perm & WRITE && !w->no_write;
	enum outcome outcome = DONE;

	if (PE_TYPE(w->pe) == NESTED)
		outcome = second_stage(w->pe, write, &w->addr, &w->perm, &w->shift);
	if (outcome != DONE)
		return outcome;
	if (write && w->perm & WRITE)
		bits |= FS_DIRTY;
	return mark_entry(w, at, entry, bits);
}

/* First stage (9.8), nested if the entry says so */
static enum outcome first_stage(struct walk *w)
{
	unsigned int levels = 4 + PE_FSPM(w->pe), now = 12 + 9 * (levels - 1);
	uint64_t bits = FS_ACCESSED | (PE_EAFE(w->pe) ? FS_EXTENDED : 0);
	uint64_t table = ADDR(w->pe->word[2]), at, host, entry;
	enum outcome outcome;

	if (levels > 5 || !is_canonical(w->addr, now + 9))
		return FAULT;
	for (;; now -= 9) {
		at = entry_at(table, w->addr, now);
		host = at;
		outcome = table_addr(w, false, &host);
		if (outcome != DONE)
			return outcome;
		if (!read_memory(host, &entry, 8) || !entry_allows(entry, now))
			return FAULT;
		if (!(entry & FS_WRITE))
			w->perm &= ~WRITE;
		table = ADDR(entry);
		if (now == 12 || entry & LARGE)
			break;
		outcome = mark_entry(w, at, entry, bits);
		if (outcome != DONE)
			return outcome;
	}
	w->addr = within(table, w->addr, now);
	w->shift = now;
	return finish_leaf(w, at, entry);
}

static enum outcome walk_entry(struct walk *w)
{
	switch (PE_TYPE(w->pe)) {
	case FIRST:
	case NESTED:
		return first_stage(w);
	case SECOND:
		return second_stage(w->pe, !w->no_write, &w->addr, &w->perm, &w->shift);
	case PASS:
		w->shift = 12;
		return DONE;
	}
	return FAULT;
}

enum outcome walk(struct walk *w, uint64_t addr)
{
	enum outcome outcome;

	w->addr = addr;
	w->perm = READ | WRITE;
	w->shift = ANY_SHIFT;
	outcome = walk_entry(w);
	if (w->no_write)
		w->perm &= ~WRITE;
	return outcome;
}
