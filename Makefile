# SPDX-License-Identifier: GPL-2.0-only
# Front door of the project; the work is done in scripts/.  'make help' lists the targets.
#
# BASE=7.3              the base, of those in scripts/base-version (default: 6.12)
# KDIR=/path/to/linux   build on this (clean) tree of that version instead of Debian's
# CONFIG=/path/to/config   for 'make deb': the kernel's .config (default: the running kernel's)
# TREE=DIR              the tree of 'make tree' and 'make take', instead of linux
# JOBS=N                compilers at once (default: one per CPU)

SHELL := /bin/bash
.NOTPARALLEL:
.DEFAULT_GOAL := help

vm := scripts/vm
build := build$(if $(filter-out 6.12,$(BASE)),/$(BASE))
real_file := $(build)/ours/x86_64/vmlinux

export BASE

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 16

.PHONY: deps
deps: ## install the Debian packages that are missing, fetch QEMU, liburing, busybox
	@scripts/deps
	@scripts/deps qemu
	@scripts/deps debs

.PHONY: run
run: deps kernel user ## a PCIe device copies a real file by demand-paged DMA, served from user space
	$(vm) --pri --timeout 900 --file $(real_file):/data/file \
		--file tools/iommu/examples/compare.sh:/bin/iopf-compare -- \
		sh -c "iopf-server --file /data/file --pin src:1M+1M --fault-outside && \
			echo 'and in each way to serve them:' && iopf-compare --file /data/file"

.PHONY: check
check: deps deps-docs kernels user ## run every test
	@scripts/check

.PHONY: quick
quick: deps kernel user ## run the tests that need only the plain kernel
	@scripts/check --kernel x86_64

.PHONY: stress
stress: deps kernel debug kcsan rt peer user ## run the long forms of the seeded tests: ten million faults, minutes
	@scripts/deps stress
	@scripts/check --tests scripts/tests-stress

.PHONY: bench
bench: deps kernel peer user ## measure what a fault costs, beside the peer
	@scripts/bench

.PHONY: scale
scale: deps kernel user ## cost and memory of 1 to 64 devices, and 1 to 8 PCIe devices
	@scripts/figures scale

.PHONY: pictures
pictures: deps kernel user ## draw how long a server holds a fault, and iopf-top
	@scripts/figures latency
	@scripts/figures top

.PHONY: vmm
vmm: deps kernel user ## faults of a guest's own page tables: QEMU in QEMU, a guest in a guest (minutes)
	@scripts/check --tests scripts/tests-vmm

# Two at a time, as each has minutes in which it has work for one CPU only. The peer has
# most of its objects from the first, by ccache. arm64's is made of 6.12 alone: that
# of 7.3 is for 'BASE=7.3 make arm64' and 'BASE=7.3 scripts/check --kernel arm64'.
first := $(filter 6.12,$(or $(BASE),6.12))
.PHONY: kernels
kernels: deps ## build all the kernels that 'make check' needs, and arm64's programs
	@scripts/base
	@printf '%s\n' x86_64 debug '--peer x86_64' $(if $(first),arm64) | xargs -P 2 -L 1 scripts/kernel
	@$(if $(first),scripts/user arm64)

.PHONY: kernel
kernel: ## build the kernel with the overlay (x86_64)
	@scripts/kernel x86_64

.PHONY: debug
debug: ## build it with KASAN, lockdep, kmemleak
	@scripts/kernel debug

.PHONY: kcsan
kcsan: ## build it with KCSAN, which looks for data races in our files
	@scripts/kernel kcsan

.PHONY: rt
rt: ## build it fully preemptible (PREEMPT_RT), with lockdep
	@scripts/kernel rt

.PHONY: arm64
arm64: ## build it, and the programs, for arm64
	@scripts/kernel arm64
	@scripts/user arm64

.PHONY: peer
peer: ## build the kernel that we are compared with: the base and the test injector
	@scripts/kernel --peer x86_64

.PHONY: user
user: ## build the programs, the selftests and QEMU's PRI device
	@scripts/user x86_64

.PHONY: tree
tree: ## a kernel tree in git to work in, the base and the series: TREE=linux
	@scripts/base
	@scripts/tree make $(TREE)

.PHONY: take
take: ## take what was committed there back into the overlay, as commits
	@scripts/tree take $(TREE)

.PHONY: build-matrix
build-matrix: deps ## build with W=1 in every configuration; no warning that the base has not
	@scripts/build-test matrix

.PHONY: docs
docs: deps-docs ## the pages of Documentation/ as HTML, without a warning: build/docs/html
	@scripts/docs

.PHONY: deps-docs
deps-docs: deps
	@scripts/deps docs

.PHONY: series
series: ## write the series as patches with a cover letter: build/series
	@scripts/base
	@scripts/series

.PHONY: check-series
check-series: deps ## build every patch of the series by itself, in order (an hour)
	@scripts/build-test series

.PHONY: deb
deb: deps ## make Debian packages of library, tools and kernel (CONFIG=...): build/deb
	@scripts/deps deb
	@scripts/package tools
	@scripts/package kernel $(CONFIG)

.PHONY: clean
clean: ## remove build/, but for the downloads
	rm -rf build/ours build/peer build/matrix build/sparse build/headers build/user build/bench build/check build/deb build/docs build/mutants build/vm build/log \
		build/series build/series-* build/pri-testdev.so build/smmu-testdev.so

.PHONY: distclean
distclean: ## remove build/
	rm -rf build
