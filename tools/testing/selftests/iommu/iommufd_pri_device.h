/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One device, with a server that has nothing read yet.
 */
#ifndef __SELFTEST_IOMMUFD_PRI_DEVICE_H
#define __SELFTEST_IOMMUFD_PRI_DEVICE_H

#include "iommufd_pri_utils.h"

FIXTURE(pri)
{
	struct server server;
	struct unit *unit;
};

FIXTURE_SETUP(pri)
{
	struct pri_address found;

	if (pri_find(&found, 1) < 1)
		SKIP(return, "no pri-testdev (1234:9171) here");
	self->unit = &self->server.unit[0];
	ASSERT_EQ(0, server_open(&self->server, 0, 1));
}

FIXTURE_TEARDOWN(pri)
{
	check_server(_metadata, &self->server);
}

#endif
