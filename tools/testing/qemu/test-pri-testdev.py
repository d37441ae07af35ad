#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Test pri-testdev.c without a kernel: KTAP on standard output.

Environment: as testdev.py has it, and PRI_TESTDEV (the built plugin, default: built for
this run).
"""
import struct
import sys
import tempfile

from testdev import (BARS, DEBUG, EBUSY, ECANCELED, EFAULT, EINVAL, EIO, EPERM, FAILED, PAGE,
                     PASID, QEMU, STOPPED, UNEXPECTED, UNKNOWN_QEMU, H, Machine, QemuRefused,
                     Setup, built, equal, flags, pattern, request, run_all, with_machine)


# ---- the tests: each gets a fresh machine ----

def config_space(s):
    for d in s.devices:
        equal(s.m.readl(d.config), H["DEVICE_ID"] << 16 | H["VENDOR_ID"])
        equal([s.m.readl(d.config + at) & 0xFFFF for at in (0x100, 0x110, 0x120)],
              [0x0F, 0x1B, 0x13])
        equal(s.m.readl(d.config + 0x128), 256)


def registers(s):
    d = s.d
    equal((d.get("MAGIC"), d.get("VERSION")), (H["MAGIC_VALUE"], H["VERSION_VALUE"]))
    equal((d.get("STATE"), d.get("GROUP"), d.get("DEPTH"), d.get("STRIDE")), (0, 1, 1, PAGE))
    equal((d.get("LOWEST"), d.get("HIGHEST"), d.get("CREDITS")), (2**64 - 1, 0, 256))
    d.set(IOVA=0x1122334455667788, MAGIC=0, STATE=1, N_REQUESTS=7)
    equal(d.get("IOVA"), 0x1122334455667788)
    equal(s.m.readl(d.bar + H["IOVA"] + 4), 0x11223344)
    equal((d.get("MAGIC"), d.get("STATE"), d.get("N_REQUESTS")), (H["MAGIC_VALUE"], 0, 0))
    equal(s.devices[1].get("IOVA"), 0)
    d.enable(credits=17)
    equal(d.get("CREDITS"), 17)
    equal(d.do("RESET"), 0)
    equal(d.get("IOVA"), 0)


def bad_commands(s):
    d = s.d
    s.m.writel(d.bar + H["COMMAND"], 99)
    equal(d.get("RESULT"), 2**32 - EINVAL)
    good = {"SRC": s.SRC, "DST": s.DST, "LENGTH": PAGE, "GROUP": 1, "DEPTH": 1, "PASID": PASID,
            "FLAGS": flags("PASID")}
    for bad in ({"LENGTH": 0}, {"LENGTH": 2**63}, {"SRC": 2**64 - PAGE}, {"GROUP": 0},
                {"GROUP": 257}, {"DEPTH": 0}, {"DEPTH": 257}, {"PASID": 1 << 20},
                {"FLAGS": flags("TOUCH", "FILL")}):
        equal((bad, d.do("START", **{**good, **bad})), (bad, -EINVAL))
    equal(d.get("STATE"), H["STATE_IDLE"])
    equal(request(s, 0, "PASID", "READ", group=512), -EINVAL)
    equal(d.do("BURST", COUNT=0, GRPID=0), -EINVAL)
    equal(d.do("BURST", COUNT=65536), -EINVAL)
    equal(d.do("DMA_READ", IOVA=4, FLAGS=flags("PASID"), PASID=PASID), -EINVAL)


def not_enabled(s):
    d = s.d
    error = H["STATE_STOPPED_ERROR"]
    d.enable(ats=False)
    equal(d.do("ATS", IOVA=0, FLAGS=flags("PASID", "READ"), PASID=PASID), -EPERM)
    s.start(PAGE)
    s.serve()
    equal(d.state(), (error, H["STAGE_ATS"], EPERM))
    d.enable(pri=False)
    equal(request(s, 0, "PASID", "READ", "LAST"), -EPERM)
    s.start(PAGE)
    s.serve()
    equal(d.state(), (error, H["STAGE_PRI"], EPERM))
    equal(d.get("FAULT_ADDR"), s.SRC)
    d.enable(credits=0)
    s.start(PAGE)
    s.serve()
    equal(d.state(), (error, H["STAGE_PRI"], EBUSY))
    d.enable()
    equal(request(s, 0, "READ", "LAST"), -EPERM)
    equal(request(s, 0, "PASID", "READ", "LAST", pasid=77), -EINVAL)
    equal(s.iommu.requests(), [])
    equal(d.counters("REQUESTS", "REFUSED"), (0, 4))
    s.m.writel(d.config + 0x04, 0x2)
    equal(request(s, 0, "PASID", "READ", "LAST"), -EPERM)
    s.settled()


def single_fault(s):
    d = s.d
    access = {"IOVA": s.SRC + 8, "FLAGS": flags("PASID", "READ"), "PASID": PASID}
    equal(d.do("ATS", **access), -EFAULT)
    equal(request(s, s.SRC, "PASID", "READ", "LAST", "PRIV", group=300), 0)
    equal(s.iommu.requests(), [{
        "rid": d.rid, "pasid": PASID, "type": 0x101, "priv": 1, "read": 1, "write": 0, "last": 1,
        "group": 300, "iova": s.SRC}])
    equal((d.get("OPEN_GROUPS"), d.get("OPEN_REQUESTS")), (1, 1))
    equal(d.do("CLEAR"), -EBUSY)
    page = s.iommu.map(s.SRC, write=False)
    s.iommu.answer({"rid": d.rid, "pasid": PASID, "group": 300})
    equal((d.get("RESP_CODE"), d.get("RESP_GRPID"), d.get("RESP_PASID")), (0, 300, PASID))
    equal(d.counters("REQUESTS", "GROUPS", "RESPONSES", "SUCCESS", "UNMATCHED"), (1, 1, 1, 1, 0))
    equal(sum(s.m.readl(d.bar + H["LATENCY"] + 4 * i) for i in range(H["LATENCIES"])), 1)
    equal(d.do("ATS", **access), 0)
    equal((d.get("ATS_ADDR"), d.get("ATS_PERM")), (page + 8, 1))
    s.m.writeq(page + 8, 0xFEEDFACECAFEBEEF)
    equal((d.do("DMA_READ"), d.get("DATA")), (0, 0xFEEDFACECAFEBEEF))
    equal(d.do("DMA_WRITE"), -EFAULT)
    s.iommu.unmap(s.SRC)
    s.iommu.map(s.SRC)
    equal((d.do("DMA_WRITE", DATA=77), s.m.readq(page + 8)), (0, 77))
    s.settled()
    equal((d.do("CLEAR"), d.counters("REQUESTS", "RESPONSES"), d.get("LOWEST")),
          (0, (0, 0), 2**64 - 1))


def group_of_three(s):
    for i in range(3):
        names = ["PASID", "READ", "WRITE"] + ["LAST"] * (i == 2)
        equal(request(s, s.SRC + i * PAGE, *names, group=9), 0)
    got = s.iommu.requests()
    equal([(r["iova"], r["last"], r["group"]) for r in got],
          [(s.SRC, 0, 9), (s.SRC + PAGE, 0, 9), (s.SRC + 2 * PAGE, 1, 9)])
    equal((s.d.get("OPEN_GROUPS"), s.d.get("OPEN_REQUESTS")), (1, 3))
    s.iommu.answer(got[2])
    s.settled()
    equal((s.d.get("LOWEST"), s.d.get("HIGHEST")), (s.SRC, s.SRC + 2 * PAGE))


def unmatched_responses(s):
    equal(request(s, s.SRC, "PASID", "READ", "LAST", group=1), 0)
    (r,) = s.iommu.requests()
    s.iommu.answer({**r, "group": 2})
    equal(s.d.counters("RESPONSES", "UNMATCHED"), (0, 1))
    s.iommu.answer(r)
    s.iommu.answer(r)
    equal(s.d.counters("RESPONSES", "UNMATCHED"), (1, 2))


def copy(s, size, **how):
    src, dst = how.get("src", s.SRC), how.get("dst", s.DST)
    data = pattern(size)
    s.iommu.fill(src, data)
    for iova in range(src & -PAGE, src + size, PAGE):
        s.iommu.unmap(iova)
    s.start(size, **how)
    seen = s.serve()
    equal(s.d.state(), (H["STATE_DONE"], 0, 0))
    equal((s.d.get("BYTES"), s.d.get("SUM")), (size, sum(data)))
    equal(s.iommu.content(dst, size) == data, True)
    s.settled()
    return seen


def copy_by_page(s):
    seen = copy(s, 40 * PAGE)
    equal([(r["iova"], r["read"], r["write"], r["last"]) for r in seen],
          [q for i in range(40) for q in ((s.SRC + i * PAGE, 1, 0, 1), (s.DST + i * PAGE, 0, 1, 1))])
    equal(s.d.counters("REQUESTS", "GROUPS", "CHUNKS"), (80, 80, 40))
    # at each page: no source, no destination; no destination; both
    equal(s.d.counters("ATS_MISS", "ATS_HIT"), (3 * 40, 3 * 40))


def copy_odd(s):
    seen = copy(s, 5 * PAGE + 77, src=s.SRC + 123, dst=s.DST + 4001)
    equal(len(seen), 6 + 6)
    equal({r["iova"] % PAGE for r in seen}, {0})


def copy_in_groups(s):
    seen = copy(s, 100 * PAGE, group=8, depth=6)
    equal(len(seen), 200)
    equal(s.d.counters("REQUESTS", "GROUPS"), (200, 2 * 13))
    equal(max(r["iova"] for r in seen), max(s.SRC, s.DST) + 99 * PAGE)


def copy_prefetches(s):
    s.start(300 * PAGE, group=16, depth=3, extra=["TOUCH"])
    first = s.iommu.requests()
    equal([r["iova"] for r in first], [s.SRC + i * PAGE for i in range(48)])
    equal([i for i, r in enumerate(first) if r["last"]], [15, 31, 47])
    equal(len({r["group"] for r in first}), 3)
    for r in first:
        s.iommu.map(r["iova"])
    # answered out of order: the copy waits for its own page
    for i in (47, 31):
        s.iommu.answer(first[i])
    s.m.step(1000)
    equal(s.d.get("BYTES"), 0)
    s.iommu.answer(first[15])
    s.serve()
    equal(s.d.state()[0], H["STATE_DONE"])
    equal(s.d.get("OPEN_REQUESTS"), 0)
    s.settled()


def copy_within_credits(s):
    s.d.enable(credits=10)
    s.start(64 * PAGE, group=4, depth=256)
    most = 0
    while s.d.get("STATE") == H["STATE_RUNNING"]:
        most = max(most, s.d.get("OPEN_REQUESTS"))
        new = s.iommu.requests()
        for r in new:
            s.iommu.map(r["iova"])
            if r["last"]:
                s.iommu.answer(r)
        s.m.step(1000)
    equal((s.d.state()[0], most), (H["STATE_DONE"], 10))
    s.settled()


def pinned_window(s):
    lo, hi = s.SRC + 10 * PAGE, s.SRC + 20 * PAGE
    for iova in range(lo, hi, PAGE):
        s.iommu.map(iova)
    s.d.set(WATCH_LO=lo, WATCH_HI=hi)
    s.start(32 * PAGE, group=8, depth=2, extra=["TOUCH"])
    seen = s.serve()
    equal((len(seen), s.d.get("N_WATCH")), (22, 0))
    s.d.set(WATCH_LO=s.SRC, WATCH_HI=s.SRC + 32 * PAGE)
    s.iommu.unmap(lo)
    s.start(32 * PAGE, group=8, depth=2, extra=["TOUCH"])
    s.serve()
    equal(s.d.get("N_WATCH"), 1)


def stopped_by(s, code, state, counter):
    bad = s.SRC + 7 * PAGE
    s.start(20 * PAGE)
    s.serve(code=lambda r: code if r["iova"] == bad else 0)
    equal((s.d.state()[0], s.d.get("FAULT_ADDR"), s.d.get("BYTES")), (H[state], bad, 7 * PAGE))
    equal(s.d.counters(counter, "SUCCESS"), (1, 14))
    s.settled()


def goes_on(s):
    s.start(20 * PAGE)
    s.serve()
    equal(s.d.state()[0], H["STATE_DONE"])


def invalid_stops(s):
    stopped_by(s, 1, "STATE_STOPPED_INVALID", "INVALID")
    equal(s.d.pri_status(), 0)
    goes_on(s)


def failure_stops(s):
    stopped_by(s, 15, "STATE_STOPPED_FAILURE", "FAILURE")
    equal(s.d.pri_status(), FAILED)
    # no more requests until it is enabled again, or told to forget it
    equal(request(s, 0, "PASID", "READ", "LAST"), -EPERM)
    s.d.enable(pri=False)
    equal(s.d.pri_status(), FAILED | STOPPED)
    s.d.enable()
    equal((s.d.pri_status(), s.d.get("N_EARLY")), (0, 0))
    goes_on(s)


failure_stops.arguments = ",failure=stops"


def failure_is_cleared(s):
    equal(request(s, 0, "PASID", "READ", "LAST"), 0)
    s.iommu.answer(s.iommu.requests()[0], 15)
    s.m.writel(s.d.config + 0x124, FAILED << 16 | 1)
    equal(s.d.pri_status(), 0)
    goes_on(s)


failure_is_cleared.arguments = ",failure=stops"


def failure_is_noted(s):
    stopped_by(s, 15, "STATE_STOPPED_FAILURE", "FAILURE")
    equal(s.d.pri_status(), FAILED)
    goes_on(s)


def unexpected_response(s):
    equal(request(s, 0, "PASID", "READ", "LAST", group=1), 0)
    (r,) = s.iommu.requests()
    s.iommu.answer(r)
    s.iommu.answer(r)
    equal(s.d.pri_status(), UNEXPECTED)
    goes_on(s)
    s.m.writel(s.d.config + 0x124, UNEXPECTED << 16 | 1)
    equal(s.d.pri_status(), 0)


def stops_when_answered(s):
    equal(request(s, 0, "PASID", "READ", "LAST"), 0)
    equal(s.d.pri_status(), 0)
    s.d.enable(pri=False)
    equal(s.d.pri_status(), 0)
    s.iommu.answer(s.iommu.requests()[0])
    equal((s.d.pri_status(), s.d.get("N_EARLY")), (STOPPED, 0))
    s.d.enable()
    equal((s.d.pri_status(), s.d.get("N_EARLY")), (0, 0))


def enabled_early(s):
    equal(request(s, 0, "PASID", "READ", "LAST"), 0)
    s.d.enable(pri=False)
    s.d.enable()
    equal(s.d.get("N_EARLY"), 1)


def pri_reset(s):
    equal(request(s, 0, "PASID", "READ", "LAST"), 0)
    s.m.writel(s.d.config + 0x124, 3)
    equal((s.d.pri_status(), s.d.get("OPEN_REQUESTS")), (0, 1))
    s.m.writel(s.d.config + 0x124, 2)
    equal((s.d.pri_status(), s.d.get("OPEN_REQUESTS")), (STOPPED, 0))
    s.d.enable()
    equal(s.d.get("N_EARLY"), 0)
    s.iommu.answer(s.iommu.requests()[0])
    equal(s.d.counters("STALE", "UNMATCHED"), (1, 0))


def invalidations(s):
    equal(request(s, 0, "PASID", "READ", "LAST"), 0)
    s.iommu.invalidate_device(s.d, 0)
    equal(s.d.counters("INVALIDATED", "MUTE"), (1, 0))
    s.iommu.invalidate_device(s.devices[1], 0)
    equal(s.d.counters("INVALIDATED", "MUTE"), (1, 0))


def success_without_page(s):
    s.start(PAGE, extra=["TOUCH"])
    seen = s.serve(map_it=False)
    equal(len(seen), H["ASKS_MAX"])
    equal(s.d.state(), (H["STATE_STOPPED_ERROR"], H["STAGE_RETRY"], EFAULT))
    equal(s.d.get("FAULT_ADDR"), s.SRC)
    s.settled()


def read_only_page(s):
    s.iommu.map(s.SRC)
    s.iommu.map(s.DST, write=False)
    s.start(PAGE)
    (r,) = s.iommu.requests()
    equal((r["iova"], r["read"], r["write"]), (s.DST, 0, 1))
    s.iommu.map(s.DST)
    s.iommu.answer(r)
    s.serve()
    equal(s.d.state()[0], H["STATE_DONE"])


def fill(s):
    s.start(2 * PAGE, extra=["FILL"], dst=s.DST + 3)
    s.serve()
    equal(s.iommu.content(s.DST + 3, 2 * PAGE), bytes(2 * PAGE))
    s.d.set(DATA=0x0807060504030201)
    s.start(2 * PAGE, extra=["FILL"], dst=s.DST + 3)
    s.serve()
    equal(s.iommu.content(s.DST, 12), bytes([0, 0, 0, 4, 5, 6, 7, 8, 1, 2, 3, 4]))


def abort(s):
    s.start(50 * PAGE, group=4, depth=4)
    equal(s.d.do("START"), -EBUSY)
    pending = s.iommu.requests()
    equal(s.d.do("ABORT"), 0)
    equal(s.d.state(), (H["STATE_STOPPED_ERROR"], H["STAGE_ABORT"], ECANCELED))
    equal(s.d.get("OPEN_GROUPS"), 4)
    # the next copy uses other ids; late answers do not disturb it
    s.start(50 * PAGE, group=4, depth=4)
    new = s.iommu.requests()
    equal({r["group"] for r in new} & {r["group"] for r in pending}, set())
    for r in pending:
        if r["last"]:
            s.iommu.answer(r, 1)
    equal(s.d.get("STATE"), H["STATE_RUNNING"])
    for r in new:
        s.iommu.map(r["iova"])
        if r["last"]:
            s.iommu.answer(r)
    s.serve()
    equal((s.d.state()[0], s.d.get("N_INVALID")), (H["STATE_DONE"], 4))
    s.settled()


def reset_while_open(s):
    equal(request(s, s.SRC, "PASID", "READ", "LAST", group=1), 0)
    equal(s.d.do("RESET"), 0)
    s.iommu.answer(s.iommu.requests()[0])
    equal(s.d.counters("RESPONSES", "STALE", "UNMATCHED"), (0, 1, 0))


def function_level_reset(s):
    devcap, devctl = s.d.config + 0x64, s.d.config + 0x68
    equal(s.m.readl(devcap) >> 28 & 1, 1)
    equal(request(s, s.SRC, "PASID", "READ", "LAST", group=1), 0)
    s.m.writel(devctl, s.m.readl(devctl) | 0x8000)
    equal((s.m.readl(s.d.config + 0x04) & 7, s.m.readl(s.d.config + 0x104) >> 31,
           s.m.readl(s.d.config + 0x114) >> 16, s.m.readl(s.d.config + 0x124) & 1,
           s.m.readl(s.d.config + 0x12C)), (0, 0, 0, 0, 0))
    s.d.enable()
    equal((s.d.get("OPEN_GROUPS"), s.d.get("OPEN_REQUESTS")), (0, 0))
    s.iommu.answer(s.iommu.requests()[0])
    equal(s.d.counters("RESPONSES", "STALE", "UNMATCHED"), (0, 1, 0))
    equal(request(s, s.SRC, "PASID", "READ", "LAST", group=2), 0)
    s.iommu.answer(s.iommu.requests()[0])
    s.settled()


function_level_reset.arguments = ",flr=on"


def mute_after_reset(s):
    equal(request(s, 0, "PASID", "READ", "LAST"), 0)
    s.m.writel(s.d.config + 0x68, s.m.readl(s.d.config + 0x68) | 0x8000)
    s.iommu.invalidate_device(s.d, 0)
    s.d.enable(ats=False)
    equal(s.d.counters("INVALIDATED", "MUTE"), (1, 1))
    equal(request(s, 0, "PASID", "READ", "LAST"), -EPERM)
    s.d.enable()
    s.iommu.invalidate_device(s.d, 0)
    equal(s.d.counters("INVALIDATED", "MUTE"), (2, 1))


mute_after_reset.arguments = ",flr=on"


def mute_in_d3(s):
    equal((s.m.readl(s.d.config + 0x40) & 0xFF, s.m.readl(s.d.config + 0x44)), (1, 8))
    s.iommu.map(s.DST)
    equal(s.d.do("ATS", IOVA=s.DST, FLAGS=flags("PASID", "READ"), PASID=PASID), 0)
    s.start(2 * PAGE)
    (r,) = [r for r in s.iommu.requests() if r["iova"] == s.SRC]
    s.d.power(3)
    s.iommu.invalidate_device(s.d, 0)
    s.iommu.map(s.SRC)
    s.iommu.answer(r)
    s.m.step(1000)
    s.d.power(0)
    equal(s.d.counters("INVALIDATED", "MUTE"), (1, 1))
    equal(s.d.state(), (H["STATE_STOPPED_ERROR"], H["STAGE_ATS"], EPERM))
    equal(s.m.readl(s.d.config + 0x104) >> 31, 1)
    goes_on(s)


mute_in_d3.arguments = ",pm=keep"


def loses_state_in_d3(s):
    equal(s.m.readl(s.d.config + 0x44), 0)
    equal(request(s, 0, "PASID", "READ", "LAST"), 0)
    s.d.power(3)
    equal(s.m.readl(s.d.config + 0x104) >> 31, 1)
    s.d.power(0)
    equal((s.m.readl(s.d.config + 0x04) & 7, s.m.readl(s.d.config + 0x10),
           s.m.readl(s.d.config + 0x104) >> 31, s.m.readl(s.d.config + 0x124) & 1),
          (0, 0, 0, 0))
    s.d.enable()
    s.iommu.answer(s.iommu.requests()[0])
    equal(s.d.counters("RESPONSES", "STALE", "UNMATCHED"), (0, 1, 0))
    goes_on(s)


loses_state_in_d3.arguments = ",pm=on"


def virtual_functions(s):
    sriov, virt = s.d.config + 0x140, s.d.config + (1 << 12)
    s.m.writel(sriov + 0x10, 2)
    s.m.writel(sriov + 0x24, BARS + 16 * PAGE)
    s.m.writel(sriov + 0x08, 9)
    equal([s.m.readl(virt + at) for at in (0x08, 0x100, 0x110, 0x120)],
          [s.m.readl(s.d.config + 0x08), 0x1000F, 0, 0])
    s.m.writel(virt + 0x04, 6)
    equal(s.m.readl(BARS + 16 * PAGE + H["MAGIC"]), H["MAGIC_VALUE"])
    # its reset is its own
    equal(s.m.readl(virt + 0x64) >> 28 & 1, 1)
    s.m.writel(virt + 0x104, 1 << 31)
    s.m.writel(virt + 0x68, 0x8000)
    equal([s.m.readl(at + 0x104) >> 31 for at in (virt, s.d.config)], [0, 1])
    goes_on(s)


virtual_functions.arguments = ",vfs=2"


def burst(s, count, *names, group=1):
    return s.d.do("BURST", IOVA=s.SRC, STRIDE=PAGE, COUNT=count, GROUP=group, GRPID=500,
                  PASID=PASID, FLAGS=flags("PASID", "READ", *names))


def burst_256(s):
    equal(burst(s, 257), -EBUSY)
    equal(burst(s, 256), 256)
    equal(burst(s, 1), -EBUSY)
    seen = s.iommu.requests()
    equal([r["iova"] for r in seen], [s.SRC + i * PAGE for i in range(256)])
    equal([r["group"] for r in seen], [(500 + i) % 512 for i in range(256)])
    for r in reversed(seen):
        s.iommu.answer(r)
    s.settled()
    equal(burst(s, 10, group=4), 10)
    equal([i for i, r in enumerate(s.iommu.requests()) if r["last"]], [3, 7, 9])
    equal(s.d.do("RESET"), 0)
    equal(burst(s, 6, "NO_LAST", group=3), 6)
    equal((s.d.get("OPEN_GROUPS"), s.d.get("OPEN_REQUESTS")), (0, 6))


def overflow(s):
    room = s.iommu.PRQ_ENTRIES - 1
    equal(burst(s, 2000, "NO_CREDIT", group=2), room)
    equal(s.iommu.overflowed(), 1)
    equal(s.d.counters("REQUESTS", "REFUSED", "GROUPS"), (room, 2000 - room, room // 2))
    # the engine waits for the queue, then goes on
    s.d.set(STRIDE=0)
    s.d.do("RESET")
    s.start(4 * PAGE, extra=["TOUCH"])
    for _ in range(5):
        s.m.step(1000000)
    equal((s.d.get("STATE"), s.d.get("N_REFUSED") >= 5), (H["STATE_RUNNING"], True))
    taken = s.iommu.requests()
    equal(len(taken), room)
    s.iommu.clear_overflow()
    s.m.step(1000000)
    for r in taken:
        if r["last"]:
            s.iommu.answer(r)
    s.serve()
    equal(s.d.state()[0], H["STATE_DONE"])
    equal(s.d.counters("STALE", "UNMATCHED"), (room // 2, 0))
    s.settled()


def overflow_for_ever(s):
    burst(s, 600, "NO_CREDIT")
    s.d.do("RESET")
    s.start(PAGE)
    s.m.step((H["REFUSALS_MAX"] + 1) * 1000000)
    for _ in range(H["REFUSALS_MAX"]):
        s.m.step(1000000)
    equal(s.d.state(), (H["STATE_STOPPED_ERROR"], H["STAGE_PRI"], 28))


def two_devices(s):
    a, b = s.devices
    src, dst = (s.SRC, s.SRC + 2**30), (s.DST, s.DST + 2**30)
    data = [pattern(30 * PAGE, seed) for seed in (1, 2)]
    for i in range(2):
        s.iommu.fill(src[i], data[i])
        for page in range(30):
            s.iommu.unmap(src[i] + page * PAGE)
    for i, d in enumerate((a, b)):
        s.start(30 * PAGE, device=d, group=4, depth=4, src=src[i], dst=dst[i])
    seen = s.serve(devices=[a, b])
    equal({r["rid"] for r in seen}, {a.rid, b.rid})
    for i, d in enumerate((a, b)):
        equal((d.state()[0], d.get("N_REQUESTS")), (H["STATE_DONE"], 60))
        equal(s.iommu.content(dst[i], 30 * PAGE) == data[i], True)
        s.settled(d)


TESTS = (config_space, registers, bad_commands, not_enabled, single_fault, group_of_three,
         unmatched_responses, copy_by_page, copy_odd, copy_in_groups, copy_prefetches,
         copy_within_credits, pinned_window, invalid_stops, failure_stops, failure_is_cleared,
         failure_is_noted,
         unexpected_response, stops_when_answered, enabled_early, pri_reset, invalidations,
         success_without_page,
         read_only_page, fill, abort, reset_while_open, function_level_reset,
         mute_after_reset, mute_in_d3, loses_state_in_d3, virtual_functions, burst_256,
         overflow, overflow_for_ever, two_devices)


def refuses_other_version(qemu, plugin):
    try:
        Machine(qemu, plugin + ",version=99.0").stop()
    except QemuRefused as refused:
        status, errors = refused.args[0]
        equal((status, errors.count("\n")), (UNKNOWN_QEMU, 1))
        equal(errors.startswith("pri-testdev: unknown QEMU: version 99.0"), True)
        return
    raise AssertionError("it was taken")


def main():
    with tempfile.TemporaryDirectory() as scratch:
        plugin = built("pri-testdev", "PRI_TESTDEV", scratch) + DEBUG

        def machine(arguments=""):
            return Machine(QEMU, plugin + arguments)

        checks = [("refuses_other_version", lambda: refuses_other_version(QEMU, plugin))]
        checks += [(t.__name__, lambda t=t: with_machine(
            lambda: machine(getattr(t, "arguments", "")), Setup, t)) for t in TESTS]
        return run_all(machine, checks)


if __name__ == "__main__":
    sys.exit(main())
