# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of the QEMU plugins share: a machine, and the driver's side of it.

QEMU runs under its qtest protocol.  The test plays the driver: it builds the VT-d
tables and an address space in guest memory, reads page requests from the IOMMU's queue
and answers them through its invalidation queue.

Environment: QEMU (command, default: the sysroot's QEMU through scripts/lib.sh), CC,
PRI_DEBUG=1.
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
