/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Register map of pri-testdev, the emulated PCIe device that raises page
 * requests (PCI 1234:9171).  Shared by the device, the client library and the
 * tests.
 *
 * BAR0 is 4 KiB of little-endian registers, read and written 4 or 8 bytes at a
 * time.  Addresses and lengths are 64 bit wide: low half first.  Three blocks:
 * parameters (written by the driver), status and counters (read-only).  A
 * driver writes the parameters, then PTD_COMMAND, then reads PTD_RESULT: 0 or
 * a count, or a negative errno of Linux.  Only PTD_CMD_START goes on after the
 * write; PTD_STATE tells when it has ended.
 *
 * What QEMU's VT-d says to a request: -EPERM when bus mastering, ATS, PASID or
 * PRI is off or the request has no PASID, -EINVAL for a PASID without a page
 * table, -ENOSPC for a full page request queue and until its overflow is
 * cleared.  A refused request is not answered.  With vtd-nest.c requests need no PASID,
 * and a PASID no page table.
 *
 * Page requests carry FLAGS' READ, WRITE, EXEC and PRIV, and PASID if FLAGS
 * has PTD_F_PASID.  A request group is {PASID, group id}; the id has 9 bits.
 */
#ifndef PRI_TESTDEV_H
#define PRI_TESTDEV_H

#define PTD_VENDOR_ID		0x1234
#define PTD_DEVICE_ID		0x9171
#define PTD_VF_DEVICE_ID	0x9172	/* a virtual function's, with the same registers */
#define PTD_BAR_SIZE		0x1000

#define PTD_MAGIC_VALUE		0x50524954
#define PTD_VERSION_VALUE	1

/*
 * PRI Status: a FAILURE, which stops the page requests with failure=stops, and a response
 * to nothing are noted until they are cleared by writing ones, or PRI is enabled again.
 * Stopped is set when PRI is off and no response is awaited, be it that a reset of PRI has
 * it forget what it waits for. To enable PRI before that is an error of the driver, which
 * is counted.
 *
 * A function that lost its state or is in D3hot is mute until ATS is enabled again, or
 * until it is in D0: it sends nothing, and device-TLB invalidations that reach it then,
 * which a real one might never complete, are counted. What is counted of the driver's
 * mistakes, this and PRI that was enabled early, survives such a loss.
 */

/*
 * Virtual functions have ATS alone in their configuration space. PRI and PASID are those
 * of their physical function: they send page requests while it has these enabled, out of
 * its credits, and a FAILURE of one of them stops all.
 */

/* Limits of the device. */
#define PTD_GROUP_IDS		512	/* group ids are 0..511 */
#define PTD_CREDITS_MAX		256	/* requests in flight, as in the PRI capability */
#define PTD_BURST_MAX		65535	/* requests of one PTD_CMD_BURST */
#define PTD_PASIDS_MAX		64	/* PASIDs with unanswered groups at a time */
#define PTD_ASKS_MAX		8	/* times the copy asks for one page */
#define PTD_REFUSALS_MAX	1000	/* full page request queues in a row, 1 ms apart */
#define PTD_LATENCIES		32	/* buckets of PTD_LATENCY */

enum ptd_register {
	PTD_MAGIC		= 0x000,
	PTD_VERSION		= 0x004,

	/* parameters */
	PTD_IOVA		= 0x008,	/* 64: PRI, ATS, DMA_*, first page of BURST */
	PTD_PASID		= 0x010,
	PTD_FLAGS		= 0x014,	/* PTD_F_* */
	PTD_GRPID		= 0x018,	/* PRI, first id of BURST */
	PTD_COUNT		= 0x01c,	/* BURST: requests */
	PTD_STRIDE		= 0x020,	/* 64: BURST: bytes from page to page */
	PTD_DATA		= 0x028,	/* 64: DMA_*, pattern of FILL */
	PTD_SRC			= 0x030,	/* 64: START */
	PTD_DST			= 0x038,	/* 64: START */
	PTD_LENGTH		= 0x040,	/* 64: START: bytes */
	PTD_GROUP		= 0x048,	/* START, BURST: requests in a group, 1..256 */
	PTD_DEPTH		= 0x04c,	/* START: groups in flight, 1..256 */
	PTD_WATCH_LO		= 0x050,	/* 64: requests in [LO, HI) are counted */
	PTD_WATCH_HI		= 0x058,	/* 64 */
	PTD_COMMAND		= 0x060,	/* PTD_CMD_*: acts on the write */

	/* status */
	PTD_RESULT		= 0x080,	/* of the last command */
	PTD_STATE		= 0x084,	/* PTD_STATE_* of the DMA engine */
	PTD_ERRNO		= 0x088,	/* why STOPPED_ERROR: negative errno */
	PTD_STAGE		= 0x08c,	/* where: PTD_STAGE_* */
	PTD_BYTES		= 0x090,	/* 64: bytes done, from the start */
	PTD_FAULT_ADDR		= 0x098,	/* 64: first page of what stopped the engine */
	PTD_SUM			= 0x0a0,	/* 64: sum of all bytes the engine has moved */
	PTD_ATS_ADDR		= 0x0a8,	/* 64: result of ATS */
	PTD_ATS_PERM		= 0x0b0,	/* 1 read, 2 write */
	PTD_RESP_CODE		= 0x0b4,	/* the last response */
	PTD_RESP_GRPID		= 0x0b8,
	PTD_RESP_PASID		= 0x0bc,
	PTD_OPEN_GROUPS		= 0x0c0,	/* LAST sent, no response yet */
	PTD_OPEN_REQUESTS	= 0x0c4,	/* requests of groups without response */
	PTD_CREDITS		= 0x0c8,	/* requests allowed in flight by the driver */

	/* counters, 32 bit unless said; CLEAR and RESET zero them */
	PTD_N_REQUESTS		= 0x100,	/* page requests taken by the IOMMU */
	PTD_N_GROUPS		= 0x104,	/* of these with LAST */
	PTD_N_REFUSED		= 0x108,	/* page requests refused by the IOMMU */
	PTD_N_RESPONSES		= 0x10c,	/* responses to our groups, any code */
	PTD_N_SUCCESS		= 0x110,
	PTD_N_INVALID		= 0x114,
	PTD_N_FAILURE		= 0x118,
	PTD_N_UNMATCHED		= 0x11c,	/* responses to nothing: must stay 0 */
	PTD_N_STALE		= 0x120,	/* responses to groups sent before RESET */
	PTD_N_CHUNKS		= 0x124,	/* engine: moves within one page of each side */
	PTD_N_ATS_HIT		= 0x128,	/* engine: translations found */
	PTD_N_ATS_MISS		= 0x12c,	/* engine: translations missing */
	PTD_N_WATCH		= 0x130,	/* requests in the watch window */
	PTD_N_EARLY		= 0x134,	/* PRI enabled before it was Stopped */
	PTD_LOWEST		= 0x138,	/* 64: lowest address requested, or ~0 */
	PTD_HIGHEST		= 0x140,	/* 64: highest address requested, or 0 */
	PTD_N_INVALIDATED	= 0x148,	/* device-TLB invalidations of PASIDs in use */
	PTD_N_MUTE		= 0x14c,	/* of these, while the function was mute */
	/* responses by the time since LAST: bucket N is from 2^N ns on, on the guest's clock */
	PTD_LATENCY		= 0x180,	/* 32 of 32 bit */
	PTD_REGISTERS_END	= 0x200,
};

#define PTD_F_READ		0x001
#define PTD_F_WRITE		0x002
#define PTD_F_EXEC		0x004	/* QEMU's VT-d drops it from the descriptor */
#define PTD_F_PRIV		0x008
#define PTD_F_LAST		0x010	/* PRI: ends its group */
#define PTD_F_PASID		0x020	/* everything: use PASID */
#define PTD_F_NO_CREDIT		0x040	/* BURST: ignore PTD_CREDITS */
#define PTD_F_NO_LAST		0x080	/* BURST: leave every group without LAST */
#define PTD_F_TOUCH		0x100	/* START: read SRC only */
#define PTD_F_FILL		0x200	/* START: write DATA, repeated, to DST only */

enum ptd_command {
	PTD_CMD_PRI = 1,	/* one page request; the driver answers for credits */
	PTD_CMD_ATS,		/* translate IOVA; -EFAULT unless it allows FLAGS' READ, WRITE */
	PTD_CMD_DMA_READ,	/* 8 bytes at IOVA -> DATA */
	PTD_CMD_DMA_WRITE,	/* DATA -> 8 bytes at IOVA */
	PTD_CMD_BURST,		/* COUNT page requests at once; RESULT: how many were taken */
	PTD_CMD_START,		/* the DMA engine: copy LENGTH bytes from SRC to DST */
	PTD_CMD_ABORT,		/* STOPPED_ERROR, -ECANCELED; unanswered groups stay open */
	PTD_CMD_CLEAR,		/* zero the counters; -EBUSY while groups are open */
	/* everything to zero, engine IDLE, open groups become stale; as does FLR */
	PTD_CMD_RESET,
};

enum ptd_state {
	PTD_STATE_IDLE,
	PTD_STATE_RUNNING,
	PTD_STATE_DONE,
	PTD_STATE_STOPPED_INVALID,	/* a group was answered Invalid Request */
	PTD_STATE_STOPPED_FAILURE,	/* a group was answered Response Failure */
	PTD_STATE_STOPPED_ERROR,	/* see ERRNO and STAGE */
};

enum ptd_stage {
	PTD_STAGE_NONE,
	PTD_STAGE_ATS,		/* the translation request failed */
	PTD_STAGE_PRI,		/* the page request was refused, or no credit (-EBUSY) */
	PTD_STAGE_DMA,		/* the translated access failed */
	PTD_STAGE_RETRY,	/* -EFAULT: still no page after PTD_ASKS_MAX answers */
	PTD_STAGE_ABORT,
};

enum ptd_response {
	PTD_RESP_SUCCESS,
	PTD_RESP_INVALID,
	PTD_RESP_FAILURE,
};

#endif
