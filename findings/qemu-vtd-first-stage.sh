#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# First-stage translation takes the second stage away from QEMU's VT-d, and page requests need it.
#
# Expected: fsts=on adds first-stage translation to what -device intel-iommu has in scalable mode;
#   page requests (PRS) come with ATS and PASID, whatever the stage.
# Seen: fsts=on sets FSTS and clears SSTS, so there is one stage or the other, never both;
#   supervisor requests (SRS) go, too. PRS is set by svm=on alone, which QEMU refuses without
#   fsts=on. So QEMU's VT-d takes page requests only where it has no second stage.
# Versions: QEMU 1:11.1.3+ds-1~bpo13+1 (trixie-backports).
# Why it matters: a guest kernel whose page faults are tested there has first-stage page tables
#   alone, where hardware may have both. An option that is added for page faults changes the page
#   tables that all the other tests run on.
# Date: 2026-11-29
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

# Bits of the extended capability register, by the VT-d specification.
declare -A bits=([DT]=2 [PRS]=29 [SRS]=31 [PASID]=40 [SMTS]=43 [SSTS]=46 [FSTS]=47)

# vtd OPTIONS: the bits that are set, as a line in $tmp/out.
vtd() {
	local words value name line="$1:"

	registers x86_64 0xfed90010 0xfed90014 -- -M q35 -device "intel-iommu,$1"
	mapfile -t words < <(awk '{ print $2 }' "$tmp/out")
	value=$(((words[1] << 32) | words[0]))
	for name in DT SMTS SSTS FSTS SRS PASID PRS; do
		if (((value >> bits[$name]) & 1)); then line+=" $name"; fi
	done
	say "$line" | tee "$tmp/out"
}

qemu x86
basis=scalable-mode=on,device-iotlb=on,pasid-bits=20
vtd $basis
expect ': DT SMTS SSTS SRS PASID$' "the register without the first stage"
vtd $basis,fsts=on
expect ': DT SMTS FSTS PASID$' "the register with the first stage"
vtd $basis,fsts=on,svm=on
expect ': DT SMTS FSTS PASID PRS$' "the register with page requests"
if step "refusal" monitor x86_64 -M q35 -device intel-iommu,$basis,svm=on; then
	different "svm=on is taken without fsts=on"
fi
grep -o 'intel-iommu.*' "$tmp/log" | tee "$tmp/out"
expect 'Need to set fsts for svm' "why svm=on is refused without fsts=on"
say "as described: page requests and the second stage exclude each other"
