/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A queue that one device feeds, by a nested HWPT or a paging one.
 */
#ifndef __SELFTEST_IOMMUFD_FAULT_QUEUE_H
#define __SELFTEST_IOMMUFD_FAULT_QUEUE_H

#include "iommufd_fault_devs.h"

FIXTURE(fault)
{
	struct env env;
	struct queue *queue;
	struct mock_device *dev;
	uint32_t hwpt_id;
	/* a HWPT of the same kind that has no queue */
	uint32_t plain_id;
};

FIXTURE_VARIANT(fault)
{
	bool nested;
};

FIXTURE_VARIANT_ADD(fault, nested)
{
	.nested = true,
};

FIXTURE_VARIANT_ADD(fault, paging)
{
	.nested = false,
};

FIXTURE_SETUP(fault)
{
	struct env *env = &self->env;

	env_open(_metadata, env);
	if (_metadata->exit_code)
		return;
	self->dev = env_device(_metadata, env, env->ioas_id, 0);
	if (!variant->nested && !env->additions)
		SKIP(return, ONLY_INJECTOR);
	self->queue = env_queue(_metadata, env);
	self->hwpt_id = env_hwpt(_metadata, env, self->dev, variant->nested, 0, self->queue);
	self->plain_id = env_hwpt(_metadata, env, self->dev, variant->nested, 0, NULL);
	ASSERT_EQ(0, mock_replace(env->fd, self->dev->stdev_id, self->hwpt_id));
}

FIXTURE_TEARDOWN(fault)
{
	env_close(_metadata, &self->env);
}

#endif
