#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# A q35 guest that wakes from S3 has lost the PCIe configuration space beyond 256 bytes.
#
# Expected: suspend to RAM and resume on QEMU's q35 leave PCIe as it was: what the kernel saved of
#   the devices it restores, extended capabilities (AER, ATS, PRI, PASID) included.
# Seen: at boot SeaBIOS sets PCIEXBAR of the host bridge, by which extended configuration space is
#   mapped. To wake is a reset of the machine, and on that way SeaBIOS does not set its enable bit
#   again, nor does the kernel. Every read beyond 255 is 0 then, while the first 256 bytes, which
#   go by ports, are right. The ports of power management stay off as well.
# Versions: QEMU 1:11.1.3+ds-1~bpo13+1, with its own SeaBIOS; Debian's Linux 7.3.4-1~bpo13+1.
# Why it matters: a driver's test of resume sees capabilities that cannot be restored, and blames
#   the driver; a device model that wants more than the basic capabilities back has to see to it.
# Date: 2026-11-29
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

# The same machine, with a PCIe device that has extended capabilities.
machine() {
	inside timeout --foreground 300 qemu-system-x86_64 -nodefaults -display none -no-reboot -M q35 \
		-cpu max -accel tcg,thread=multi -smp 1 -m 1G -kernel "$image" -initrd "$tmp/initrd" \
		-device e1000e,addr=5 -serial stdio -append "console=ttyS0 panic=-1 no_timer_check quiet"
}

cat >"$tmp/sleep" <<'P'
#!/bin/busybox sh
pci=/sys/bus/pci/devices
at() { hexdump -v -s "$2" -n 4 -e '4/1 "%02x"' "$pci/0000:00:$1/config"; }
look() {
	echo "$1: PCIEXBAR $(at 00.0 96), device at 0 $(at 05.0 0), at 256 $(at 05.0 256)"
	echo "$1: PMBASE $(at 1f.0 64), enabled $(at 1f.0 68)"
}

look "at boot"
echo deep >/sys/power/mem_sleep
echo +5 >/sys/class/rtc/rtc0/wakealarm
echo mem >/sys/power/state && echo "woke"
look "after S3"
echo "=== end"
# to power off needs the ports that were lost
reboot -f
P
kernel 73
chmod +x "$tmp/sleep"
boot "$tmp/sleep"
expect '^at boot: PCIEXBAR 010000b0, device at 0 8680d310, at 256 01000214' "what there is at boot"
expect '^woke' "the guest woke by its clock"
expect '^after S3: PCIEXBAR 000000b0, device at 0 8680d310, at 256 00000000' "what there is after S3"
expect '^at boot: PMBASE 01060000, enabled 80' "power management at boot"
expect '^after S3: PMBASE 01000000, enabled 00' "power management after S3"
say "as described: extended configuration space is gone"
