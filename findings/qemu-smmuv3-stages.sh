#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The same SMMUv3 of QEMU has other stages as machine option than as device.
#
# Expected: -M virt,iommu=smmuv3 and -device arm-smmuv3 are two ways to say the same.
# Seen: the first says in IDR0 that it has both stages, the second has the first stage only; all
#   the other bits are equal. With stage=nested the device is like the machine's. None has ATS,
#   PRI or stalls, and ats=on and ssidsize=8 are refused unless accel=on, which wants an SMMU in
#   the host.
# Versions: QEMU 1:11.1.3+ds-1~bpo13+1 (trixie-backports).
# Why it matters: what a guest kernel can do with its SMMU changes when a command line is moved to
#   the newer form, and so do the tests that it skips. With neither has it a fault that it could
#   recover from.
# Date: 2026-11-29
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

# idr0 NAME ADDRESS QEMU-ARGUMENT...: what IDR0 says, as a line in $tmp/out.
idr0() {
	local name=$1 address=$2 value line

	shift 2
	registers aarch64 "$address" -- -cpu max "$@"
	value=$(awk '{ print $2 }' "$tmp/out")
	line="$name: IDR0 $value, stage 1 $(((value >> 1) & 1)), stage 2 $((value & 1))"
	line+=", ATS $(((value >> 10) & 1)), PRI $(((value >> 16) & 1)), stall model $(((value >> 24) & 3))"
	say "$line" | tee "$tmp/out"
}

# refused OPTION: by QEMU, without accel=on.
refused() {
	if step "refusal" monitor aarch64 -M virt -device "$device,$1"; then
		different "$1 is taken without accel=on"
	fi
	grep -o 'arm-smmuv3.*' "$tmp/log" | tee "$tmp/out"
	expect 'if accel=on$' "why $1 is refused"
}

qemu arm
device=arm-smmuv3,primary-bus=pcie.0
# In the architecture stall model 1 means: the SMMU never stalls.
idr0 "-M virt,iommu=smmuv3" 0x9050000 -M virt,iommu=smmuv3
expect 'IDR0 0x0d44101b, stage 1 1, stage 2 1, ATS 0, PRI 0, stall model 1$' "the machine's SMMU"
idr0 "-device arm-smmuv3" 0xc000000 -M virt -device $device
expect 'IDR0 0x0d44101a, stage 1 1, stage 2 0, ATS 0, PRI 0, stall model 1$' "the device"
idr0 "-device arm-smmuv3,stage=nested" 0xc000000 -M virt -device $device,stage=nested
expect 'IDR0 0x0d44101b, ' "the nested device"
refused ats=on
refused ssidsize=8
say "as described: the machine's SMMU is nested, the device has one stage, neither has faults"
