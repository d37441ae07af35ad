/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the SMMUv3 driver of Linux 7.3 has and that of 6.12 has in another form
 *
 * The Makefile of 6.12 includes this before the files that are in the form of 7.3.
 */
#ifndef _ARM_SMMU_V3_IOPF_COMPAT_H
#define _ARM_SMMU_V3_IOPF_COMPAT_H

#include <linux/module.h>

#include "arm-smmu-v3.h"

/* Commands are built when they are issued. */
#define arm_smmu_cmd arm_smmu_cmdq_ent

static inline struct arm_smmu_cmd arm_smmu_make_cmd_resume(u32 sid, u16 stag, u8 resp)
{
	return (struct arm_smmu_cmd) {
		.opcode = CMDQ_OP_RESUME,
		.resume = { .sid = sid, .stag = stag, .resp = resp },
	};
}

static inline struct arm_smmu_cmd
arm_smmu_make_cmd_pri_resp(u32 sid, u32 ssid, bool ssv, u16 grpid, enum pri_resp resp)
{
	return (struct arm_smmu_cmd) {
		.opcode = CMDQ_OP_PRI_RESP,
		.substream_valid = ssv,
		.pri = { .sid = sid, .ssid = ssid, .grpid = grpid, .resp = resp },
	};
}

/* Answers are issued without a CMD_SYNC. */
static inline int arm_smmu_cmdq_issue_cmd_p(struct arm_smmu_device *smmu,
					    struct arm_smmu_cmd *cmd, bool sync)
{
	return arm_smmu_cmdq_issue_cmd(smmu, cmd);
}

#define arm_smmu_cmdq_batch_init_cmd arm_smmu_cmdq_batch_init
#define arm_smmu_cmdq_batch_add_cmd_p arm_smmu_cmdq_batch_add

/* Faults are enabled by a feature flag, which iommufd drops after its last group. */
#define iopf_queue_join iopf_queue_add_device
#define iopf_queue_leave iopf_queue_remove_device

/* The name of a namespace is a string. */
#undef MODULE_IMPORT_NS
#define MODULE_IMPORT_NS(ns) MODULE_INFO(import_ns, ns)

#endif
