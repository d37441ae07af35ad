#!/bin/sh
# SPDX-License-Identifier: GPL-2.0 OR MIT
# iopf-raw in a guest with a pri-testdev: every way it ends, and whose the device is then. KTAP.
bdf=0000:00:02.0
pci=/sys/bus/pci
out=/tmp/out
number=0

result() {
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number $2"
	else
		sed 's/^/# /' $out
		echo "not ok $number $2"
	fi
}

driver() { basename "$(readlink -f $pci/devices/$bdf/driver)"; }

has() { grep -q "$1" $out; }

begin() {
	: >$out
	iopf-raw $bdf wait >$out 2>&1 &
	server=$!
	until has waiting || [ ! -d /proc/$server ]; do usleep 10000; done
}

[ -e $pci/devices/$bdf ] || { echo "1..0 # SKIP no PCI device"; exit 4; }
echo "TAP version 13"
echo "1..9"
echo 1234 9171 >$pci/drivers/pci-stub/new_id

iopf-raw $bdf >$out 2>&1
result $? "it serves a device"
has "groups of up to 4 requests, 64 pages made writable, 1 refused"
result $? "groups of several, pages that are written after they were read, one outside"
has "loss: 1 told, 16 answered, 48 refused by the kernel: ok"
result $? "it is told of loss"
[ "$(driver) $(cat $pci/devices/$bdf/driver_override)" = "pci-stub (null)" ]
result $? "the driver has the device again"

begin
kill -INT $server
wait $server
result $? "a signal ends it"
[ "$(driver)" = pci-stub ]
result $? "and the driver has the device again"

begin
echo $bdf >$pci/drivers/vfio-pci/unbind
wait $server && has "asked back"
result $? "so does who wants the device"
[ ! -e $pci/devices/$bdf/driver ]
result $? "who gets it without a driver"

iopf-raw 0000:00:00.0 >$out 2>&1
[ $? = 1 ] && has "0000:00:00.0 is no pri-testdev"
result $? "another device is left alone"
