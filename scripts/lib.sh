# SPDX-License-Identifier: GPL-2.0-only
# Shared by every script here; source it first.  Nothing runs at load time
# but the settings below.

set -euo pipefail
export LC_ALL=C
# A script is the same by hand and from a make, whose level and flags are its own.
unset MAKEFLAGS MAKELEVEL MFLAGS

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scripts=$root/scripts
# What is made for another base than 6.12 has a place of its own; what is fetched for all
# of them has not.
base=${BASE:-6.12}
shared=$root/build
build=$shared
if [ "$base" != 6.12 ]; then build=$shared/$base; fi
jobs=${JOBS:-$(nproc)}
user_dirs=(tools/testing/selftests/iommu tools/iommu)

say() { printf '%s\n' "$*" >&2; }
die() { printf '%s: error: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# base_version: the base's line in scripts/base-version, without its first word: the version
# and, unless 'make deps' installs the package, the suite of Debian that has it.
base_version() {
	local name rest

	while read -r name rest; do
		if [ "$name" = "$base" ]; then
			echo "$rest"
			return
		fi
	done <"$scripts/base-version"
	die "BASE=$base is not in scripts/base-version"
}

# places: read names of overlay files; the files of the tree that they are, or are patches for.
places() { sed -E 's/(\.[0-9]+\.[0-9]+)?\.patch$//'; }

# Hold build/.lock.NAME until this process ends; say so if another has it.
lock() {
	local fd

	mkdir -p "$build"
	exec {fd}>"$build/.lock.$1"
	flock -n "$fd" && return
	say "waiting for another run that uses $1"
	flock "$fd"
}

# Bring the base and ours' or the peer's copy of it up to date.
refresh() {
	"$scripts/base"
	"$scripts/overlay" "$1"
}

# step NAME LOG COMMAND...: run COMMAND with its output in LOG.  Silent when it
# is quick; else a line with the clock and the log's last line follows: in a log each
# minute, on a terminal after five seconds, and rewritten.  On failure the end of the
# log is shown.  COMMAND gets a process group of its own, so that nothing of it
# survives an interrupt.
step() {
	local name=$1 log=$2 begin=$SECONDS next=60 every=60 rc=0 pid

	shift 2
	mkdir -p "$(dirname "$log")"
	if [ -t 2 ]; then next=5 every=2; fi
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	set +m
	trap 'kill -TERM -- "-$pid"; exit 130' INT TERM HUP
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		[ $((SECONDS - begin)) -ge "$next" ] || continue
		next=$((next + every))
		progress "$name" $((SECONDS - begin)) "$log"
	done
	wait "$pid" || rc=$?
	trap - INT TERM HUP
	if [ -t 2 ] && [ "$next" -gt 5 ]; then printf '\r\e[K' >&2; fi
	if [ "$rc" -ne 0 ]; then
		tail -n 25 "$log" >&2
		say "$name failed (status $rc); the whole log: $log"
	elif [ $((SECONDS - begin)) -gt 5 ]; then
		say "$name: done in $((SECONDS - begin)) s"
	fi
	return "$rc"
}

progress() {
	local text

	text=$(printf '%s: %s s: %s' "$1" "$2" "$(tail -n 1 "$3" | tr -d '\r\033' | cut -c1-90)")
	if [ -t 2 ]; then
		printf '\r\e[K%.*s' "$(($(tput cols 2>/dev/null || echo 80) - 1))" "$text" >&2
	else
		say "$text"
	fi
}

# ktap [PLAN]: begin KTAP, whose tests are by result(). Without PLAN "1..$number" ends it.
ktap() {
	number=0 failed=0
	echo "TAP version 13"
	[ -z "${1:-}" ] || echo "1..$1"
}

# result NAME COMMAND...: a test, which fails if COMMAND does, or prints something: that goes
# before it. Status 4 is a test that could not be made, and the last line says why.
result() {
	local said rc=0 verdict=ok

	number=$((number + 1))
	said=$("${@:2}") || rc=$?
	if [ "$rc" = 4 ]; then
		echo "ok $number $1 # SKIP ${said##*$'\n'}"
		return
	fi
	if [ -n "$said" ]; then printf '%s\n' "$said" | sed 's/^/# /'; fi
	if [ -n "$said" ] || [ "$rc" != 0 ]; then verdict="not ok" failed=1; fi
	echo "$verdict $number $1"
}

# Write standard input to FILE unless it holds just that already, so that
# make sees a new time stamp only where something changed.
update_file() {
	local new=$1.new.$$

	cat >"$new"
	if cmp -s "$new" "$1"; then rm -f "$new"; else mv -f "$new" "$1"; fi
}

# Mirror of the Debian archive that this machine itself uses.
debian_mirror() {
	local uri

	uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' \
		2>/dev/null | head -n 1) || true
	echo "${DEBIAN_MIRROR:-${uri:-http://deb.debian.org/debian/}}"
}

# private_apt DIR SUITE: make DIR the state of an apt that knows SUITE alone.
private_apt() {
	rm -rf "$1"
	mkdir -p "$1/lists/partial" "$1/cache/archives/partial" "$1/parts" "$1/deb"
	touch "$1/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
		"$(debian_mirror) $2 main" >"$1/sources.list"
	apt_in "$1" apt-get update
}

# apt_in DIR COMMAND...: run apt-get or apt-cache with that state.
apt_in() {
	"$2" -o Dir::Etc::sourcelist="$1/sources.list" -o Dir::Etc::sourceparts="$1/parts" \
		-o Dir::Etc::preferences="$1/none" -o Dir::Etc::preferencesparts="$1/parts" \
		-o Dir::State="$1" -o Dir::Cache="$1/cache" \
		-o Dir::State::status="$1/status" -o APT::Architectures=amd64,arm64 \
		-o APT::Sandbox::User= "${@:3}"
}

# qemu ARCH ARGS...: replace this process by the sysroot's QEMU.
qemu() {
	local lib=$shared/qemu/usr/lib/x86_64-linux-gnu share=$shared/qemu/usr/share arch=$1

	shift
	QEMU_MODULE_DIR=$lib/qemu exec "$lib/ld-linux-x86-64.so.2" --library-path "$lib" \
		"$shared/qemu/usr/bin/qemu-system-${arch/arm64/aarch64}" \
		-L "$share/qemu" -L "$share/seabios" "$@"
}

# kmake KIND SRC OUT ARGS...: the kernel's own make, out of tree, with ccache.  That has its
# own place, so that a second clone compiles next to nothing.
# Nothing that changes from run to run gets into the objects, and paths below
# build/ count as relative ones, so that the trees share the cache.
kmake() {
	local kind=$1 src=$2 out=$3 arch=x86_64 cross=

	shift 3
	if [ "$kind" = arm64 ]; then arch=arm64 cross=aarch64-linux-gnu-; fi
	CCACHE_BASEDIR=$build CCACHE_NOHASHDIR=1 \
	KBUILD_BUILD_TIMESTAMP='Thu Jan 1 00:00:00 UTC 1970' KBUILD_BUILD_USER=build \
	KBUILD_BUILD_HOST=localhost \
		make -C "$src" O="$out" ARCH=$arch CROSS_COMPILE="$cross" CC="ccache ${cross}gcc" \
		HOSTCC='ccache gcc' LOCALVERSION= -j"$jobs" "$@"
}

kernel_image() { if [ "$1" = arm64 ]; then echo Image; else echo bzImage; fi; }

# umake ARCH DIR OUTPUT ARGS...: make the user programs of DIR, static, into OUTPUT.
# The makefiles take the names that every selftest's makefile takes, and LIBURING:
# where its include/ and lib/ are. UMAKE_SRC and UMAKE_HEADERS name another tree
# than ours and its headers.
umake() {
	local cross= src=${UMAKE_SRC:-$build/ours/src} headers=${UMAKE_HEADERS:-$build/headers/$1}

	if [ "$1" = arm64 ]; then cross=aarch64-linux-gnu-; fi
	mkdir -p "$3"
	LDFLAGS="-static -L$shared/debs/$1/lib" CFLAGS="-O2 -g -Werror" \
		make -C "$src/$2" -j"$jobs" OUTPUT="$3" \
		CROSS_COMPILE="$cross" KHDR_INCLUDES="-isystem $headers/usr/include" \
		LIBURING="$shared/debs/$1" "${@:4}"
}

# Make the kernel's headers for user programs of ARCH.
user_headers() {
	mkdir -p "$build/headers/$1"
	step "headers $1" "$build/log/headers-$1.log" \
		kmake "$1" "$build/ours/src" "$build/headers/$1" headers
}

# configure KIND SRC OUT FRAGMENT...: make OUT/.config from the fragments alone, and
# fail if an option did not come out as asked for.  An equal .config is not touched.
configure() {
	new_config "$@" &&
		config_check "$3/.config.new" "${@:4}" &&
		update_file "$3/.config" <"$3/.config.new"
}

# config_options FILE...: the options that they set, as lines NAME=VALUE.
config_options() { sed -nE 's/^# (CONFIG_\w+) is not set$/\1=n/p; /^CONFIG_/p' "$@"; }

# config_check CONFIG FRAGMENT...: name the options that CONFIG does not have as asked for.
config_check() {
	local said

	said=$(awk -F= '{ value = substr($0, length($1) + 2) }
		FNR == NR { have[$1] = value; next }
		{ wanted[$1] = value }
		END {
			for (name in wanted) {
				got = name in have ? have[name] : "n"
				if (got != wanted[name])
					print name ": wanted " wanted[name] ", got " got
			}
		}' <(config_options "$1") <(config_options "${@:2}") | sort)
	[ -n "$said" ] || return 0
	printf '%s\n' "$1: options that did not come out as asked for:" "$said"
	return 1
}

# fragments KIND: the files that make the configuration of such a kernel.
fragments() {
	local parts=(common)

	case $1 in
	x86_64 | arm64) parts+=("$1") ;;
	debug | kcsan | rt) parts+=(x86_64 "$1") ;;
	*) die "unknown kind of kernel '$1'" ;;
	esac
	printf "$scripts/config/%s.config\n" "${parts[@]}"
	# What a kernel of this base has besides
	if [ -e "$scripts/config/$base.config" ]; then echo "$scripts/config/$base.config"; fi
	# The peer has the options, too: see series/peer.
	case $1 in
	arm64) echo "$root/drivers/iommu/arm/arm-smmu-v3/.kunitconfig" ;;
	*) echo "$root/drivers/iommu/intel/.kunitconfig" ;;
	esac
}

# new_config KIND SRC OUT FRAGMENT...: make OUT/.config.new, of the options that SRC knows.
new_config() {
	mkdir -p "$3" &&
		cat "${@:4}" >"$3/wanted.config" &&
		kmake "$1" "$2" "$3" KCONFIG_CONFIG=.config.new \
			KCONFIG_ALLCONFIG="$3/wanted.config" allnoconfig
}

# warnings LOG FILES: the compiler's in LOG about one of FILES, that has lines "path: ";
# as "path: text", and of the base's, ours' and the series' tree alike.
warnings() {
	sed -En 's,^[^ ]*/build/([0-9.]+/)?((ours|peer|series-src)/src|base)/,,; s,^(\.\./)+((ours/)?src|base)/,,
		s/^([^ :]+)(:[0-9]+)+: warning: /\1: /p' "$1" | sort -u | grep -F -f "$2" || true
}

# touched: what warnings() looks for in a compiler's output, a file of ours or one that we patch.
touched() { "$scripts/overlay" --list | places | sed 's/$/: /'; }

# What the base, 6.12.117, warns of itself in files that we touch: compiling it as well
# would take longer than all the rest.
base_warns() {
	cat <<-'END'
		drivers/iommu/intel/dmar.c: '%d' directive writing between 1 and 10 bytes into a region of size 9 [-Wformat-overflow=]
		drivers/iommu/intel/iommu.c: '%s' directive argument is null [-Wformat-overflow=]
	END
}

# new_warnings LOG: what it has of files that we touch, and the base has not.
new_warnings() {
	# make hides our locale from the compiler, whose quotes may be of two kinds
	comm -23 <(warnings "$1" <(touched) | sed "s/‘\|’/'/g") <(base_warns)
}

# checkpatch NAME OPTION...: what the base's own says with these options of the file NAME,
# or of its standard input, which is NAME then; but for what is excluded.
checkpatch() {
	cd "$build"	# it leaves a file where it runs
	# Standard error is from helpers that want packages and a git history we lack.
	# It ends with 1 when it says something, also if that is excluded.
	perl base/scripts/checkpatch.pl --root=base --strict --terse --show-types --showfile \
		--no-summary --quiet --max-line-length=100 "${@:2}" 2>/dev/null |
		sed "s,^$root/,,; s,^:,$1:," | checkpatch_excluded ||
		[ "$?" = 1 ] || echo "checkpatch failed"
}

# checkpatch_excluded: read lines of 'checkpatch --terse --show-types --showfile' and
# print those that scripts/checkpatch-excluded does not name.
checkpatch_excluded() {
	local line excluded types=() patterns=() type pattern i

	while read -r type pattern _; do
		types+=("$type") patterns+=("$pattern")
	done < <(grep -v '^#' "$scripts/checkpatch-excluded")
	while IFS= read -r line; do
		excluded=
		for i in "${!types[@]}"; do
			if [[ $line = *:${types[i]}:* && ${line%%:*} = ${patterns[i]} ]]; then excluded=1; fi
		done
		[ -n "$excluded" ] || printf '%s\n' "$line"
	done
}
