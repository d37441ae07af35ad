#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Test pri-testdev.c without a kernel: KTAP on standard output.

QEMU runs under its qtest protocol.  The test plays the driver: it builds the
VT-d tables and an address space in guest memory, reads page requests from the
IOMMU's queue and answers them through its invalidation queue.

Environment: QEMU (command, default: the sysroot's QEMU through scripts/lib.sh),
PRI_TESTDEV (the built plugin, default: built for this run), CC, PRI_DEBUG=1.
"""
import glob
import os
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
LIB = os.path.join(HERE, "../../../scripts/lib.sh")
PAGE = 4096
VTD = 0xFED90000
ECAM = 0xB0000000
BARS = 0xC0000000
PASID = 5
EPERM, EIO, EFAULT, EBUSY, EINVAL, ECANCELED = 1, 5, 14, 16, 22, 125
FAILED, UNEXPECTED, STOPPED = 1, 2, 0x100  # PRI Status
UNKNOWN_QEMU = 3


def read_header():
    """Names and numbers of pri-testdev.h."""
    with open(os.path.join(HERE, "pri-testdev.h"), encoding="ascii") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    names = {m[1]: int(m[2], 0) for m in re.finditer(r"#define (PTD_\w+)\s+(\w+)", text)}
    for body in re.findall(r"enum \w+ \{(.*?)\}", text, flags=re.S):
        value = 0
        for name, number in re.findall(r"(PTD_\w+)(?:\s*=\s*(\w+))?", body):
            value = int(number, 0) if number else value
            names[name] = value
            value += 1
    return {name[4:]: value for name, value in names.items()}


H = read_header()
WIDE = {"IOVA", "STRIDE", "DATA", "SRC", "DST", "LENGTH", "WATCH_LO", "WATCH_HI", "BYTES",
        "FAULT_ADDR", "SUM", "ATS_ADDR", "LOWEST", "HIGHEST"}


def flags(*names):
    return sum(H["F_" + name] for name in names)


class QemuRefused(Exception):
    pass


class Machine:
    """A QEMU with an intel-iommu and COUNT pri-testdevs, driven by qtest."""

    def __init__(self, qemu, plugin, count=2, more=()):
        iommu = "intel-iommu,scalable-mode=on,fsts=on,device-iotlb=on,svm=on,pasid-bits=20"
        command = qemu + ["-machine", "q35", "-accel", "qtest", "-m", "256", "-display", "none",
                          "-nodefaults", "-qtest", "stdio", "-qtest-log", "/dev/null", *more,
                          "-plugin", plugin, "-device", iommu]
        for i in range(count):
            command += ["-device", f"pri-testdev,addr={i + 4:#x}"]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True)
        self.command("outl", 0xCF8, 0x80000060)
        self.command("outl", 0xCFC, ECAM | 1)

    def command(self, *words):
        line = " ".join(w if isinstance(w, str) else hex(w) for w in words)
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        while True:
            answer = self.process.stdout.readline()
            if not answer:
                raise QemuRefused(self.stop())
            if answer.startswith("OK"):
                return answer.split()[1:]
            if answer.startswith("FAIL") or answer.startswith("ERR"):
                raise RuntimeError(f"{line}: {answer}")

    def stop(self):
        """End it: (exit status, standard error)."""
        self.process.terminate()
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.process.stdout.close()
        self.errors.seek(0)
        return status, self.errors.read()

    def readl(self, addr):
        return int(self.command("readl", addr)[0], 0)

    def readq(self, addr):
        return int(self.command("readq", addr)[0], 0)

    def writel(self, addr, value):
        self.command("writel", addr, value)

    def writeq(self, addr, value):
        self.command("writeq", addr, value)

    def read(self, addr, size):
        return bytes.fromhex(self.command("read", addr, size)[0][2:])

    def write(self, addr, data):
        self.command("write", addr, len(data), "0x" + data.hex())

    def step(self, nanoseconds):
        self.command("clock_step", str(nanoseconds))


class Device:
    """One pri-testdev, by its slot on bus 0."""

    def __init__(self, machine, index):
        self.m = machine
        self.rid = (index + 4) << 3
        self.config = ECAM + (self.rid << 12)
        self.bar = BARS + index * PAGE

    def enable(self, ats=True, pasid=True, pri=True, credits=256):
        m = self.m
        m.writel(self.config + 0x10, self.bar)
        m.writel(self.config + 0x04, 0x6)
        m.writel(self.config + 0x104, int(ats) << 31)
        m.writel(self.config + 0x114, m.readl(self.config + 0x114) | int(pasid) << 16)
        m.writel(self.config + 0x12C, credits)
        m.writel(self.config + 0x124, int(pri))

    def pri_status(self):
        return self.m.readl(self.config + 0x124) >> 16 & (FAILED | UNEXPECTED | STOPPED)

    def power(self, state):
        self.m.writel(self.config + 0x44, state)

    def get(self, name):
        return (self.m.readq if name in WIDE else self.m.readl)(self.bar + H[name])

    def set(self, **registers):
        for name, value in registers.items():
            (self.m.writeq if name in WIDE else self.m.writel)(self.bar + H[name], value)

    def do(self, name, **registers):
        """Set parameters, give a command, return its result."""
        self.set(**registers)
        self.m.writel(self.bar + H["COMMAND"], H["CMD_" + name])
        return struct.unpack("<i", struct.pack("<I", self.get("RESULT")))[0]

    def counters(self, *names):
        return tuple(self.get("N_" + name) for name in names)

    def state(self):
        """(state, stage, errno)"""
        return self.get("STATE"), self.get("STAGE"), -self.get("ERRNO") & 0xFFFFFFFF


class Iommu:
    """The driver's side of VT-d in scalable mode, and PASID's address space."""

    TABLES, DATA = 0x1000000, 0x4000000
    PRQ_ENTRIES = 512

    def __init__(self, machine, devices):
        self.m = machine
        self.next_table, self.next_page = self.TABLES, self.DATA
        self.tables, self.pages, self.iq_tail = {}, {}, 0
        root, context, directory, pasids, self.top = (self.table() for _ in range(5))
        self.pasids, self.iq = pasids, self.table()
        self.prq = self.table(self.PRQ_ENTRIES * 32)
        machine.writeq(root, context | 1)
        for d in devices:
            # present, device TLB, PASIDs, page requests
            machine.writeq(context + d.rid * 32, directory | 0x1D)
            machine.writeq(context + d.rid * 32 + 8, 0)
        machine.writeq(directory, pasids | 1)
        # first stage, domain 1, four levels; PASID 0, of requests without one, must be good too
        for pasid in (0, PASID):
            machine.writeq(pasids + pasid * 64, 1 << 6 | 2 << 2 | 1)
            machine.writeq(pasids + pasid * 64 + 8, 1)
            machine.writeq(pasids + pasid * 64 + 16, self.top)
        self.root = root
        self.write(0x20, root | 1 << 10)
        machine.writel(VTD + 0x18, 1 << 30)
        self.write(0x90, self.iq | 1 << 11)
        machine.writel(VTD + 0x18, 1 << 26)
        self.write(0xD0, self.prq | 2)
        machine.writel(VTD + 0x18, 1 << 31 | 1 << 26)

    def write(self, reg, value):
        self.m.writeq(VTD + reg, value)

    def table(self, size=PAGE):
        at = self.next_table
        self.next_table += size
        self.m.command("memset", at, size, 0)
        return at

    def leaf(self, iova):
        table = self.top
        for shift in (39, 30, 21):
            key = table, iova >> shift & 511
            if key not in self.tables:
                self.tables[key] = self.table()
                self.m.writeq(table + key[1] * 8, self.tables[key] | 7)
            table = self.tables[key]
        return table + (iova >> 12 & 511) * 8

    def map(self, iova, write=True):
        """Back the page with memory that keeps its content; return where it is."""
        iova &= -PAGE
        if iova not in self.pages:
            self.pages[iova] = self.next_page
            self.next_page += PAGE
        self.m.writeq(self.leaf(iova), self.pages[iova] | 5 | int(write) << 1)
        return self.pages[iova]

    def unmap(self, iova):
        self.m.writeq(self.leaf(iova), 0)
        # first-stage IOTLB, one page of domain 1 and PASID
        self.submit(PASID << 32 | 1 << 16 | 3 << 4 | 6, iova & -PAGE)

    def invalidate_device(self, device, iova):
        """The device TLB of one page of PASID."""
        self.submit(PASID << 32 | device.rid << 16 | 8, iova & -PAGE)

    def fill(self, iova, data):
        while data:
            n = min(len(data), PAGE - iova % PAGE)
            self.m.write(self.map(iova) + iova % PAGE, data[:n])
            iova, data = iova + n, data[n:]

    def content(self, iova, size):
        parts = []
        while size:
            n = min(size, PAGE - iova % PAGE)
            parts.append(self.m.read(self.pages[iova & -PAGE] + iova % PAGE, n))
            iova, size = iova + n, size - n
        return b"".join(parts)

    def submit(self, low, high):
        self.m.write(self.iq + self.iq_tail, struct.pack("<4Q", low, high, 0, 0))
        self.iq_tail = (self.iq_tail + 32) % PAGE
        self.write(0x88, self.iq_tail)
        assert self.m.readq(VTD + 0x80) == self.iq_tail, "invalidation queue stopped"

    def requests(self):
        """Take all page requests off the queue: dicts, oldest first."""
        head, tail = self.m.readq(VTD + 0xC0), self.m.readq(VTD + 0xC8)
        taken = []
        while head != tail:
            a, b = struct.unpack("<2Q", self.m.read(self.prq + head, 16))
            taken.append({"rid": a >> 16 & 0xFFFF, "pasid": a >> 32 & 0xFFFFF, "type": a & 0x1FF,
                          "priv": a >> 53 & 1, "read": b & 1, "write": b >> 1 & 1,
                          "last": b >> 2 & 1, "group": b >> 3 & 511, "iova": b & -PAGE})
            head = (head + 32) % (self.PRQ_ENTRIES * 32)
        self.write(0xC0, head)
        self.m.writel(VTD + 0xDC, 1)
        return taken

    def answer(self, request, code=0):
        """code: VT-d's: 0 success, 1 invalid, 15 failure."""
        self.submit(request["pasid"] << 32 | request["rid"] << 16 | code << 12 | 1 << 4 | 9,
                    request["group"] << 3 | 4)

    def overflowed(self):
        return self.m.readl(VTD + 0xDC) >> 1 & 1

    def clear_overflow(self):
        self.m.writel(VTD + 0xDC, 2)


class Setup:
    """Two enabled devices behind an IOMMU, and a server for their faults."""

    SRC, DST = 0x7F0000000000, 0x400000

    def __init__(self, machine):
        self.m = machine
        self.devices = [Device(self.m, i) for i in range(2)]
        self.iommu = Iommu(self.m, self.devices)
        for d in self.devices:
            d.enable()
        self.d = self.devices[0]

    def serve(self, devices=None, code=lambda request: 0, map_it=True, rounds=4000):
        """Answer groups until no engine runs; return all requests."""
        seen = []
        devices = devices or [self.d]
        for _ in range(rounds):
            new = self.iommu.requests()
            seen += new
            for request in new:
                if map_it and not code(request):
                    self.iommu.map(request["iova"])
                if request["last"]:
                    self.iommu.answer(request, code(request))
            if not new and all(d.get("STATE") != H["STATE_RUNNING"] for d in devices):
                return seen
            self.m.step(1000)
        raise AssertionError("the engine does not come to an end")

    def start(self, length, device=None, group=1, depth=1, src=SRC, dst=DST, extra=()):
        result = (device or self.d).do(
            "START", SRC=src, DST=dst, LENGTH=length, GROUP=group, DEPTH=depth, PASID=PASID,
            FLAGS=flags("PASID", *extra))
        equal(result, 0)

    def settled(self, device=None):
        """Every group was answered, each response belonged to one."""
        d = device or self.d
        groups, responses, unmatched = d.counters("GROUPS", "RESPONSES", "UNMATCHED")
        equal((groups, unmatched, d.get("OPEN_GROUPS"), d.get("OPEN_REQUESTS")),
              (responses, 0, 0, 0))


def equal(got, expected):
    if got != expected:
        raise AssertionError(f"{got!r}, expected {expected!r}")


def pattern(size, seed=1):
    return b"".join(struct.pack("<I", (i * 2654435761 + seed) & 0xFFFFFFFF)
                    for i in range((size + 3) // 4))[:size]


def request(s, iova, *names, group=0, device=None, pasid=PASID):
    return (device or s.d).do("PRI", IOVA=iova, PASID=pasid, GRPID=group, FLAGS=flags(*names))


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
         mute_after_reset, mute_in_d3, loses_state_in_d3, burst_256,
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


def run_test(number, name, test):
    try:
        test()
    except Exception as error:  # one failing test must not hide the others
        at = traceback.extract_tb(error.__traceback__)[1:]
        print("#", ", ".join(f"{f.name}:{f.lineno}" for f in at))
        print("#", repr(error))
        print(f"not ok {number} {name}", flush=True)
        return False
    print(f"ok {number} {name}", flush=True)
    return True


def with_machine(machine, setup, test):
    """Run TEST on what SETUP makes of a machine that is just started."""
    m = machine()
    try:
        test(setup(m))
    finally:
        status, errors = m.stop()
        if os.environ.get("PRI_DEBUG"):
            sys.stderr.write(errors)
    equal(status, 0)


def built(name, variable, scratch):
    """The plugin that VARIABLE names, or one built from NAME*.c in SCRATCH."""
    if os.environ.get(variable):
        return os.path.abspath(os.environ[variable])
    out = f"{scratch}/{name}.so"
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-Werror", "-shared",
                    "-fPIC", "-fvisibility=hidden", "-o", out,
                    *sorted(glob.glob(f"{HERE}/{name}*.c"))], check=True)
    return out


def run_all(machine, checks):
    """Run CHECKS, by name, unless MACHINE does not know this QEMU; return an exit status."""
    print("KTAP version 1")
    try:
        machine().stop()
    except QemuRefused as refused:
        status, errors = refused.args[0]
        if status == UNKNOWN_QEMU:
            print("1..0 # SKIP", errors.strip())
            return 0
        sys.exit(f"QEMU ended with {status}: {errors}")
    print(f"1..{len(checks)}")
    return 1 - all([run_test(i + 1, name, test) for i, (name, test) in enumerate(checks)])


QEMU = shlex.split(os.environ.get("QEMU", "")) or ["bash", "-c", '. "$0"; qemu x86_64 "$@"', LIB]
DEBUG = ",debug=on" if os.environ.get("PRI_DEBUG") else ""


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
