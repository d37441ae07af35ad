# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
# Shared by the findings; source it first.  It makes a temporary folder, removed at the end,
# and in it a private apt that knows trixie and trixie-backports, and a root (a folder to chroot
# into) for the tools that a finding runs.  The host gives Debian's apt and dpkg, bash, xz and
# unshare; nothing is installed on it.  Who is not root needs user namespaces.
#
#   FINDINGS_MIRROR=URL  a Debian mirror; else the host's own, or deb.debian.org
#   FINDINGS_CACHE=DIR   keep the packages there for the next finding
#
# Status: 0 as described, 1 something changed, 2 it cannot run here.

set -euo pipefail
export LC_ALL=C

tmp=$(realpath "$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")")
root=$tmp/root
cache=$(realpath -m "${FINDINGS_CACHE:-$tmp/debs}")
running=

# What is looked at.  What merely helps (compiler, busybox, libraries) has no version here.
kernel73=7.3.4+deb13 kernel73_version=7.3.4-1~bpo13+1
kernel612=6.12.117+deb13 kernel612_version=6.12.117-1
qemu_version=1:11.1.3+ds-1~bpo13+1

clean() {
	trap '' INT TERM HUP
	if [ -n "$running" ]; then
		kill -TERM -- "-$running" 2>/dev/null || true
		wait "$running" 2>/dev/null || true
	fi
	rm -rf "$tmp"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

say() { printf '%s\n' "$*"; }
broken() { printf 'cannot run: %s\n' "$*" >&2; exit 2; }
different() { printf 'DIFFERENT from what this file says: %s\n' "$*" >&2; exit 1; }

# expect TEXT WHAT: WHAT is so only if $tmp/out has a line like TEXT, an extended expression.
expect() {
	grep -qE -e "$1" "$tmp/out" || different "$2 (the output has no line like '$1')"
}

# step NAME COMMAND...: COMMAND in a process group of its own, with its output in $tmp/log.
# Past five seconds a line now and then says that it goes on.
step() {
	local name=$1 begin=$SECONDS next=5 rc=0

	shift
	set -m
	"$@" >"$tmp/log" 2>&1 </dev/null &
	running=$!
	set +m
	while kill -0 "$running" 2>/dev/null; do
		sleep 0.2
		[ $((SECONDS - begin)) -ge "$next" ] || continue
		next=$((next + 10))
		printf '... %s: %d s\n' "$name" $((SECONDS - begin)) >&2
	done
	wait "$running" || rc=$?
	running=
	return "$rc"
}

# must WHY NAME COMMAND...: a step without which the finding cannot run.
must() {
	local why=$1

	shift
	step "$@" || broken "$why: $(grep -v '^$' "$tmp/log" | tail -n 3)"
}

mirror() {
	local file

	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources}; do
		[ -r "$file" ] || continue
		sed -n -E '/^(deb|URIs:) /s!.* (https?://[^ ]*/debian/?)( .*|$)!\1!p' "$file"
	done | head -n 1
}

# apt COMMAND...: apt-get with lists, state and sources of its own.
apt() {
	apt-get -q -y -o Dir::Etc::sourcelist="$tmp/apt/sources" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
		-o Dir::State="$tmp/apt" -o Dir::State::status="$tmp/apt/status" \
		-o Dir::Cache="$tmp/apt/cache" -o Dir::Cache::archives="$cache" \
		-o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User= \
		-o APT::Install-Recommends=false -o Debug::NoLocking=true -o Acquire::Retries=3 \
		${release:+-t "$release"} "$@"
}

apt_start() {
	local from=${FINDINGS_MIRROR:-$(mirror)} keys=/usr/share/keyrings/debian-archive-keyring release

	[ ! -e "$tmp/apt" ] || return 0
	command -v apt-get dpkg unshare xz >/dev/null || broken "apt-get, dpkg, unshare or xz is missing"
	[ "$(dpkg --print-architecture)" = amd64 ] || broken "this is for amd64"
	for keys in $keys.gpg $keys.pgp; do [ ! -e "$keys" ] || break; done
	[ -e "$keys" ] || broken "Debian's keys are missing: package debian-archive-keyring"
	mkdir -p "$tmp/apt/lists/partial" "$cache/partial"
	: >"$tmp/apt/status"
	for release in trixie trixie-backports; do
		say "deb [signed-by=$keys] ${from:-http://deb.debian.org/debian} $release main"
	done >"$tmp/apt/sources"
	must "apt-get update" "list of packages" apt update
}

# with PACKAGE[=VERSION]...: tell of those whose version matters.
with() {
	local package

	for package; do
		case $package in *=*) say "with ${package%%=*} ${package#*=}" ;; esac
	done
}

# package PACKAGE[=VERSION]: have its file in the cache; $deb is its path.
package() {
	apt_start
	must "the archive no longer has $1" "$1" apt download --print-uris "$1"
	deb=$cache/$(sed -n "s/^'[^']*' \([^ ]*\) .*/\1/p" "$tmp/log")
	[ -e "$deb" ] || must "download of $1" "$1" download "$1"
	with "$1"
}

# fetch DIR PACKAGE[=VERSION]...: unpack these packages, without what they depend on, into DIR.
fetch() {
	local dir=$1 name

	shift
	mkdir -p "$dir"
	for name; do
		package "$name"
		must "unpacking $name" "unpacking $name" dpkg -x "$deb" "$dir"
	done
}

# A file is in the cache only when it is whole.
download() { mkdir -p "$tmp/new" && cd "$tmp/new" && apt download "$1" && mv ./*.deb "$cache"; }

unpack() {
	sed 's/:/%3a/g' "$tmp/plan" | while read -r file; do
		dpkg -x "$cache/$file" "$root" || exit
	done
}

# tools PACKAGE[=VERSION]...: put them, with all that they depend on, into the root.  With
# release=trixie-backports what they depend on is of there, too.
tools() {
	local name

	apt_start
	if [ ! -e "$root" ]; then
		mkdir -p "$root"/{proc,dev,tmp,etc} "$root"/usr/{bin,sbin,lib,lib64} "$root$tmp"
		for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
		ln -s dash "$root/usr/bin/sh"
		ln -s mawk "$root/usr/bin/awk"
	fi
	must "the archive no longer has one of $*" "list of packages" apt install --simulate "$@"
	sed -n 's/^Inst \([^ :]*\)[^ ]* (\([^ ]*\) .*\[\([a-z0-9]*\)\]).*/\1_\2_\3.deb/p' "$tmp/log" >"$tmp/plan"
	must "download of $*" "download of packages" apt install --download-only "$@"
	must "unpacking $*" "unpacking packages" unpack
	with "$@"
}

# inside COMMAND...: run it in the root, where $tmp has the same name.  It does not come back, so
# it is for step and must.
inside() {
	local user=()

	if [ "$(id -u)" != 0 ]; then user=(--map-root-user); fi
	# shellcheck disable=SC2016 # the inner shell expands these
	exec unshare "${user[@]}" --mount bash -c '
		mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" &&
		mount --bind "$1" "$0$1" && cd / &&
		exec chroot "$0" /usr/bin/env -i PATH=/usr/bin:/usr/sbin HOME=/tmp LC_ALL=C "${@:2}"' \
		"$root" "$tmp" "$@"
}

# compile PROGRAM: C from standard input to $tmp/PROGRAM, static, with Debian's liburing.
compile() {
	cat >"$tmp/$1.c"
	[ -e "$root/usr/include/liburing.h" ] ||
		tools gcc-14 libc6-dev coreutils liburing-dev=2.9-1 "linux-libc-dev=$kernel73_version"
	must "$1 does not compile" "$1" inside x86_64-linux-gnu-gcc-14 -O1 -Wall -Wno-unused-result \
		-static -D_GNU_SOURCE "$tmp/$1.c" -o "$tmp/$1" -luring
}

# source_files PATTERN...: what matches, of Debian's linux-source-7.3, into $tmp/linux.
source_files() {
	fetch "$tmp/source" "linux-source-7.3=$kernel73_version"
	mkdir -p "$tmp/linux"
	must "linux-source-7.3 has no $*" "unpacking the kernel's source" \
		tar -xJf "$tmp/source/usr/src/linux-source-7.3.tar.xz" -C "$tmp/linux" \
		--strip-components=1 --wildcards "${@/#/*/}"
}

# kernel 73|612: fetch Debian's kernel; $image is its path.
kernel() {
	local dir=$tmp/kernel$1

	case $1 in
	73) package "linux-binary-$kernel73-amd64=$kernel73_version" ;;
	612) package "linux-image-$kernel612-amd64=$kernel612_version" ;;
	esac
	mkdir "$dir"
	must "no kernel in $deb" "unpacking the kernel" vmlinuz "$dir"
	image=$(find "$dir" -name 'vmlinuz*')
}

vmlinuz() { dpkg --fsys-tarfile "$deb" | tar -x -C "$1" --wildcards '*/vmlinuz*'; }

# qemu PACKAGE: put QEMU, of qemu-system-PACKAGE, into the root.
qemu() {
	release=trixie-backports tools coreutils "qemu-system-$1=$qemu_version" \
		"qemu-system-common=$qemu_version" "qemu-system-data=$qemu_version"
}

initrd() {
	local r=$tmp/initrd.d file

	rm -rf "$r"
	mkdir -p "$r"/{bin,proc,sys,dev,tmp}
	cp "$tmp/busybox/usr/bin/busybox" "$r/bin/"
	for file; do cp "$file" "$r/"; done
	cat >"$r/init" <<-'I'
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		export PATH=/bin
		mount -t proc proc /proc
		mount -t sysfs sysfs /sys
		mount -t devtmpfs dev /dev
		mount -t tmpfs tmp /tmp
		exec </dev/console >/dev/console 2>&1
		echo "=== begin $(uname -r)"
		for module in /*.ko; do [ ! -e "$module" ] || insmod "$module"; done
		/program
		echo "=== end"
		poweroff -f
	I
	chmod +x "$r/init"
	(cd "$r" && find . | bin/busybox cpio -o -H newc) >"$tmp/initrd"
}

machine() {
	inside timeout --foreground 300 qemu-system-x86_64 -nodefaults -display none -no-reboot -M q35 \
		-cpu max -accel tcg,thread=multi -smp 2 -m 1G -kernel "$image" -initrd "$tmp/initrd" \
		-serial stdio -append "console=ttyS0 panic=-1 no_timer_check quiet"
}

# boot PROGRAM [MODULE.ko]...: boot $image and run the program there, as root, with busybox.
# What it printed goes to $tmp/out, and is shown.
boot() {
	local program=$1

	shift
	[ -e "$tmp/busybox" ] || fetch "$tmp/busybox" busybox-static
	[ -e "$root/usr/bin/qemu-system-x86_64" ] || qemu x86
	cp "$program" "$tmp/program"
	initrd "$tmp/program" "$@" 2>/dev/null
	step "guest with $(basename "$image")" machine || broken "QEMU: $(tail -n 3 "$tmp/log")"
	tr -d '\r' <"$tmp/log" | sed -n '/=== begin/,/=== end/p' >"$tmp/out"
	grep -q '=== end' "$tmp/out" || broken "the guest did not end: $(tail -n 15 "$tmp/log")"
	cat "$tmp/out"
}

# registers SYSTEM ADDRESS... -- QEMU-ARGUMENT...: 32-bit registers of a machine that does not run,
# one a line, to $tmp/out.
registers() {
	local system=$1 commands=

	shift
	while [ "$1" != -- ]; do
		commands+="xp /1wx $1"$'\n'
		shift
	done
	shift
	say "${commands}quit" >"$tmp/commands"
	must "qemu-system-$system" "qemu-system-$system" monitor "$system" "$@"
	tr -d '\r' <"$tmp/log" | sed -n 's/^0*\([0-9a-f]*\): 0x/\1 0x/p' >"$tmp/out"
}

monitor() {
	local system=$1

	shift
	inside timeout --foreground 60 qemu-system-"$system" -nodefaults -display none -S -accel tcg \
		-monitor stdio "$@" <"$tmp/commands"
}
