// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O page faults with the Arm SMMUv3: the commands that answer them
 *
 * Answers take no lock. Section numbers as in arm-smmu-v3-iopf.c.
 */
#include <kunit/visibility.h>

#include "arm-smmu-v3.h"
#include "../../io-pgfault-priv.h"

static struct arm_smmu_cmd arm_smmu_resume_cmd(u32 sid, u16 stag,
					       enum iommu_page_response_code code)
{
	return arm_smmu_make_cmd_resume(sid, stag, code == IOMMU_PAGE_RESP_SUCCESS ?
					CMDQ_RESUME_0_RESP_RETRY : CMDQ_RESUME_0_RESP_ABORT);
}

static enum pri_resp arm_smmu_pri_code(enum iommu_page_response_code code)
{
	switch (code) {
	case IOMMU_PAGE_RESP_SUCCESS:
		return PRI_RESP_SUCC;
	case IOMMU_PAGE_RESP_INVALID:
		return PRI_RESP_FAIL;	/* "InvalidRequest" */
	default:
		return PRI_RESP_DENY;	/* "ResponseFailure": the function stops its requests */
	}
}

static struct arm_smmu_cmd arm_smmu_pri_resp_cmd(u32 sid, u16 index, bool with_pasid, u32 pasid,
						 enum iommu_page_response_code code)
{
	return arm_smmu_make_cmd_pri_resp(sid, with_pasid ? pasid : 0, with_pasid, index,
					  arm_smmu_pri_code(code));
}

static struct arm_smmu_cmd
arm_smmu_response_cmd(struct arm_smmu_master *master,
		      const struct iommu_fault_page_request *prm,
		      enum iommu_page_response_code code)
{
	u32 sid = master->streams[FIELD_GET(ARM_SMMU_GROUP_STREAM, prm->grpid)].id;
	u16 id = FIELD_GET(ARM_SMMU_GROUP_ID, prm->grpid);

	if (!master->iopf_pri)
		return arm_smmu_resume_cmd(sid, id, code);

	/* PCIe 6.0, 10.5.2.3: a function that does not require the PASID cannot take it */
	return arm_smmu_pri_resp_cmd(sid, id,
				     master->prg_resp_pasid &&
				     prm->flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID,
				     prm->pasid, code);
}

/**
 * arm_smmu_page_response() - Answer one stall or page request group
 * @dev: the device
 * @fault: its fault, or the last one of the group
 * @resp: the answer
 *
 * No CMD_SYNC: it does nothing for CMD_RESUME, which is done once it is
 * consumed, nor for CMD_PRI_RESP, of which nothing says when it arrives (4.7.3).
 *
 * Context: Any in which the command queue may be polled for room.
 */
void arm_smmu_page_response(struct device *dev, struct iopf_fault *fault,
			    struct iommu_page_response *resp)
{
	struct arm_smmu_master *master = dev_iommu_priv_get(dev);
	struct arm_smmu_cmd cmd;

	cmd = arm_smmu_response_cmd(master, &fault->fault.prm, resp->code);
	arm_smmu_cmdq_issue_cmd_p(master->smmu, &cmd, false);
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_page_response);

/**
 * arm_smmu_page_response_batch() - Answer many at once
 * @iommu: the SMMU that all the devices are behind
 * @answers: the groups and their answers
 * @count: number of @answers, at least one
 *
 * One list of commands for each CMDQ_BATCH_ENTRIES answers, which is never more
 * than the command queue holds. Without a CMD_SYNC, as for single answers.
 *
 * Context: As arm_smmu_page_response().
 */
void arm_smmu_page_response_batch(struct iommu_device *iommu,
				  const struct iopf_answer *answers,
				  unsigned int count)
{
	struct arm_smmu_device *smmu = container_of(iommu, struct arm_smmu_device, iommu);
	struct arm_smmu_cmdq_batch cmds;
	struct arm_smmu_cmd cmd;
	unsigned int i;

	for (i = 0; i < count; i++) {
		struct iopf_group *group = answers[i].group;

		cmd = arm_smmu_response_cmd(dev_iommu_priv_get(group->fault_param->dev),
					    &group->last_fault.fault.prm, answers[i].code);
		if (!i)
			arm_smmu_cmdq_batch_init_cmd(smmu, &cmds, &cmd);
		arm_smmu_cmdq_batch_add_cmd_p(smmu, &cmds, &cmd);
	}
	arm_smmu_cmdq_issue_cmdlist(smmu, cmds.cmdq, cmds.cmds, cmds.num, false);
}
EXPORT_SYMBOL_IF_KUNIT(arm_smmu_page_response_batch);

/**
 * arm_smmu_refuse() - Answer a fault that nobody serves
 * @smmu: the SMMU
 * @sid: the stream
 * @pri: whether it is a page request, not a stall
 * @master: the stream's device, or NULL
 * @prm: the fault
 *
 * Its device is gone, or its faults are not enabled in this way. The transaction is
 * aborted, the request invalid. Not a failure: that would disable the page request
 * interface, which a physical function shares with its virtual functions, who may
 * be somebody else's. If nothing is known of the function, it gets the PASID back
 * that it sent.
 *
 * Context: As arm_smmu_page_response().
 */
void arm_smmu_refuse(struct arm_smmu_device *smmu, u32 sid, bool pri,
		     const struct arm_smmu_master *master,
		     const struct iommu_fault_page_request *prm)
{
	bool wants_pasid = !master || master->prg_resp_pasid;
	struct arm_smmu_cmd cmd;

	dev_warn_ratelimited(smmu->dev, "%s of stream 0x%x refused: id %u, pasid 0x%x, iova 0x%llx\n",
			     pri ? "page request" : "stall", sid, prm->grpid, prm->pasid,
			     prm->addr);
	if (!(prm->flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE))
		return;

	if (pri)
		cmd = arm_smmu_pri_resp_cmd(sid, prm->grpid, wants_pasid &&
					    prm->flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID,
					    prm->pasid, IOMMU_PAGE_RESP_INVALID);
	else
		cmd = arm_smmu_resume_cmd(sid, prm->grpid, IOMMU_PAGE_RESP_INVALID);
	arm_smmu_cmdq_issue_cmd_p(smmu, &cmd, false);
}
