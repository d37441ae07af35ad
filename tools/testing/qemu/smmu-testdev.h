/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Register map of smmu-testdev, the emulated PCI function whose accesses stall
 * in the SMMU. It has the ids of a function that the kernel knows to stall: PCI
 * 19e5:a250, revision 0x30. Shared by the device and the tests.
 *
 * BAR0 is 4 KiB of little-endian registers of 4 bytes. 64-bit values: low half
 * first. A driver writes the parameters, then the number of a slot to
 * STD_ACCESS: the slot makes one access of 8 bytes, and STD_SLOT_STATE tells
 * what became of it.
 */
#ifndef SMMU_TESTDEV_H
#define SMMU_TESTDEV_H

#define STD_VENDOR_ID		0x19e5
#define STD_DEVICE_ID		0xa250
#define STD_REVISION		0x30
#define STD_BAR_SIZE		0x1000
#define STD_SLOTS		64
#define STD_MAGIC_VALUE		0x5354414c

enum std_register {
	STD_MAGIC		= 0x00,

	/* parameters */
	STD_IOVA		= 0x08,		/* 64, a multiple of 8 */
	STD_PASID		= 0x10,
	STD_FLAGS		= 0x14,		/* STD_F_* */
	STD_DATA		= 0x18,		/* 64: what is written */
	STD_ACCESS		= 0x20,		/* slot: acts on the write; it must not be stalled */

	/* counters */
	STD_N_ACCESSES		= 0x24,
	STD_N_STALLS		= 0x28,		/* stall events, of retries as well */
	STD_N_RETRY		= 0x2c,		/* CMD_RESUMEs, by action */
	STD_N_ABORT		= 0x30,
	STD_N_UNMATCHED		= 0x34,		/* CMD_RESUMEs that matched no stall: must stay 0 */
	STD_STALLED		= 0x38,		/* slots that are stalled now */
	STD_REGISTERS_END	= 0x3c,

	STD_SLOT		= 0x100,	/* slot n at STD_SLOT + 16 * n: */
	STD_SLOT_STATE		= 0x0,		/*   STD_STATE_* */
	STD_SLOT_DATA		= 0x8,		/*   64: what was read */
};

#define STD_F_WRITE		0x1
#define STD_F_PASID		0x2
#define STD_F_EXEC		0x4
#define STD_F_PRIV		0x8

enum std_state {
	STD_STATE_IDLE,
	STD_STATE_STALLED,
	STD_STATE_DONE,
	STD_STATE_ABORTED,	/* after a stall, by CMD_RESUME */
	STD_STATE_TERMINATED,	/* at once: the translation does not stall */
};

#endif
