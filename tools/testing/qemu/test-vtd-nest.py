#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Test vtd-nest.c without a kernel: KTAP on standard output.

With the machine of testdev.py: a test writes the entries of VT-d's
tables into guest memory and looks at what pri-testdev, which asks by ATS and PRI, gets
from them.  Guest-physical memory begins at GPA, where host memory begins at 0.

Environment: QEMU, CC as there, VTD_NEST and PRI_TESTDEV (the built plugins, default:
built for this run), PRI_DEBUG=1.
"""
import subprocess
import sys
import tempfile

import testdev as pri

PAGE, VTD, PASID, EFAULT, EPERM = pri.PAGE, pri.VTD, pri.PASID, pri.EFAULT, pri.EPERM
equal, flags = pri.equal, pri.flags
FIRST, SECOND, NESTED, PASS = 1, 2, 3, 4
GPA = 0x40000000
IOVA = 0x7F1234400000  # a multiple of 2 MiB
DOMAIN = 7
# first stage: present, writable, user, accessed, dirty, large, accessed by a device
P, W, U, A, D, PS, EA = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 10
# second stage: read, write, accessed, dirty
SR, SW, SA, SD = 1, 2, 1 << 8, 1 << 9
SSADE, EAFE = 1 << 9, 1 << 7


class Tables:
    """Four levels of one stage.  OFFSET: where guest memory has host memory's address 0."""

    def __init__(self, iommu, link, offset=0):
        self.iommu, self.m, self.link, self.offset = iommu, iommu.m, link, offset
        self.top = iommu.table()

    def path(self, addr, shift=12):
        """Host addresses of the entries for ADDR, from the top; tables are made."""
        at, table = [], self.top
        for now in (39, 30, 21, 12):
            at.append(table + (addr >> now & 511) * 8)
            if now == shift:
                return at
            entry = self.m.readq(at[-1])
            if not entry:
                entry = self.iommu.table() + self.offset | self.link
                self.m.writeq(at[-1], entry)
            table = (entry & 0xFFFFFFFFFF000) - self.offset

    def map(self, addr, to, bits, shift=12):
        """Return where the leaf is."""
        leaf = self.path(addr, shift)[-1]
        self.m.writeq(leaf, to | bits | (PS if shift > 12 else 0))
        return leaf

    def entries(self, addr, shift=12):
        return [self.m.readq(at) for at in self.path(addr, shift)]


class Nest:
    """A machine whose PASID, and whose requests without one, have the tables of this."""

    def __init__(self, machine):
        self.m = machine
        self.devices = [pri.Device(self.m, i) for i in range(2)]
        self.iommu = pri.Iommu(self.m, self.devices)
        for d in self.devices:
            d.enable()
        self.d = self.devices[0]
        self.second = Tables(self.iommu, SR | SW)
        self.first = Tables(self.iommu, P | W | U, GPA)
        # all memory, in large pages
        for at in range(0, 0x10000000, 0x200000):
            self.second.map(GPA + at, at, SR | SW, 21)
        self.page = self.iommu.next_page
        self.iommu.next_page += 64 * PAGE

    def use(self, kind, bits=0, third=0, aw=2, did=DOMAIN):
        """Write the PASID table entries, and forget what was cached."""
        self.first.offset = GPA if kind == NESTED else 0
        for pasid in (0, PASID):
            at = self.iommu.pasids + pasid * 64
            self.m.writeq(at + 8, did)
            self.m.writeq(at + 16, self.first.top + self.first.offset | third)
            self.m.writeq(at, self.second.top | bits | kind << 6 | aw << 2 | 1)
        self.forget()

    def forget(self, *which):
        iotlb, device, pasid_device = 1 << 4 | 2, self.d.rid << 32 | 3, self.d.rid << 16 | 8
        everything = (1 << 63) - 1 & -PAGE
        for low, high in which or ((iotlb, 0), (device, everything | 1),
                                   (pasid_device, everything | 1 << 11 | 1)):
            self.iommu.submit(low, high)

    def ats(self, iova, *names, pasid=True, device=None):
        """(address, permissions), or None if it cannot be translated."""
        d = device or self.d
        names = (names or ("READ", "WRITE")) + (("PASID",) if pasid else ())
        result = d.do("ATS", IOVA=iova, PASID=PASID, FLAGS=flags(*names))
        if result not in (0, -EFAULT):
            raise AssertionError(f"ATS: {result}")
        perm = d.get("ATS_PERM")
        return (d.get("ATS_ADDR"), perm) if perm else None


def registers(s):
    ecap = s.m.readq(VTD + 0x10)
    equal([ecap >> bit & 1 for bit in (26, 29, 40, 43, 45, 46, 47, 48)], [1] * 8)
    equal((s.m.readl(VTD + 0x10), s.m.readl(VTD + 0x14)), (ecap & 0xFFFFFFFF, ecap >> 32))
    equal(s.m.readq(VTD + 0x88), s.iommu.iq_tail)
    equal(s.m.readl(VTD + 0xE0), 1 << 31)


def second_stage(s):
    s.use(SECOND)
    s.second.map(IOVA, s.page, SR | SW)
    s.second.map(IOVA + PAGE, s.page + PAGE, SR)
    equal(s.ats(IOVA + 8), (s.page + 8, 3))
    equal(s.ats(IOVA + PAGE), (s.page + PAGE, 1))
    equal(s.ats(GPA + s.page + 5 * PAGE), (s.page + 5 * PAGE, 3))
    equal((s.ats(IOVA + 2 * PAGE), s.ats(1 << 48)), (None, None))
    s.use(SECOND, aw=1)
    equal(s.ats(IOVA), None)
    s.use(SECOND, aw=0)
    equal(s.ats(IOVA), None)


def no_permission_unasked(s):
    s.first.map(IOVA, GPA + s.page, P | W | U)
    equal(s.ats(IOVA, "READ"), (s.page, 1))
    equal(s.ats(IOVA), (s.page, 3))


def nested(s):
    s.m.writeq(s.page + 16, 0x1122334455667788)
    s.first.map(IOVA, GPA + s.page, P | W | U)
    s.first.map(IOVA + 0x200000, GPA + 0x5000000, P | W | U, 21)
    s.first.map(-1 << 40 & 2**64 - 1, GPA + s.page + PAGE, P | W | U)
    for pasid in (True, False):
        equal(s.ats(IOVA + 8, pasid=pasid), (s.page + 8, 3))
        equal(s.ats(IOVA + 0x200000 + 0x12345, pasid=pasid), (0x5012345, 3))
        equal(s.ats(-1 << 40 & 2**64 - 1, pasid=pasid), (s.page + PAGE, 3))
        # not canonical
        equal(s.ats(1 << 47, pasid=pasid), None)
    equal((s.d.do("DMA_READ", IOVA=IOVA + 16, PASID=PASID, FLAGS=flags("PASID")),
           s.d.get("DATA")), (0, 0x1122334455667788))
    equal(s.d.do("DMA_WRITE", DATA=99, IOVA=IOVA + 16), 0)
    equal(s.m.readq(s.page + 16), 99)


def other_types(s):
    s.use(PASS)
    equal(s.ats(0x123456789008), (0x123456789008, 3))
    s.use(FIRST)
    first = Tables(s.iommu, P | W | U)
    s.m.writeq(s.iommu.pasids + PASID * 64 + 16, first.top)
    first.map(IOVA, s.page, P | W | U)
    equal(s.ats(IOVA), (s.page, 3))
    for kind in (0, 5):
        s.use(kind)
        equal(s.ats(IOVA), None)


def faults_at_each_level(s):
    s.first.map(IOVA, GPA + s.page, P | W | U)
    for at in s.first.path(IOVA):
        entry = s.m.readq(at)
        s.m.writeq(at, entry & ~P)
        equal(s.ats(IOVA), None)
        s.m.writeq(at, entry)
    # the same of the tables, and of the page, in the second stage
    places = [GPA + (at & -PAGE) for at in s.first.path(IOVA)] + [GPA + s.page]
    for place in places:
        at = s.second.path(place, 21)[-1]
        entry = s.m.readq(at)
        s.m.writeq(at, 0)
        equal(s.ats(IOVA), None)
        s.m.writeq(at, entry)
    equal(s.ats(IOVA), (s.page, 3))


def reserved_bits(s):
    s.first.map(IOVA, GPA + 0x5000000 + 0x4000, P | W | U, 21)
    equal(s.ats(IOVA), None)
    s.first.map(IOVA, GPA + 0x5000000 + 0x1000, P | W | U, 21)
    equal(s.ats(IOVA), (0x5000000, 3))
    top = s.first.path(IOVA)[0]
    s.m.writeq(top, s.m.readq(top) | PS)
    s.forget()
    equal(s.ats(IOVA), None)


def permissions(s):
    leaf = s.first.map(IOVA, GPA + s.page, P | U)
    equal(s.ats(IOVA), (s.page, 1))
    s.m.writeq(leaf, GPA + s.page | P | W)
    s.forget()
    equal(s.ats(IOVA), None)
    s.m.writeq(leaf, GPA + s.page | P | W | U)
    # each of the levels, and the second stage, can take the right to write away
    for at in s.first.path(IOVA)[:-1]:
        entry = s.m.readq(at)
        s.m.writeq(at, entry & ~W)
        s.forget()
        equal(s.ats(IOVA), (s.page, 1))
        s.m.writeq(at, entry)
    for take, left in ((SW, (s.page, 1)), (SR | SW, None)):
        at = s.second.path(GPA + s.page, 21)[-1]
        entry = s.m.readq(at)
        s.m.writeq(at, entry & ~take)
        s.forget()
        equal(s.ats(IOVA), left)
        s.m.writeq(at, entry)


def accessed_and_dirty(s):
    s.first.map(IOVA, GPA + s.page, P | W | U)
    equal(s.ats(IOVA, "READ"), (s.page, 1))
    equal([e & (A | D | EA) for e in s.first.entries(IOVA)], [A] * 4)
    equal(s.ats(IOVA), (s.page, 3))
    equal([e & (A | D | EA) for e in s.first.entries(IOVA)], [A] * 3 + [A | D])
    # not dirty: the second stage would not let it write
    s.first.map(IOVA + PAGE, GPA + 0x6000000, P | W | U)
    at = s.second.path(GPA + 0x6000000, 21)[-1]
    s.m.writeq(at, s.m.readq(at) & ~SW)
    equal(s.ats(IOVA + PAGE), (0x6000000, 1))
    equal(s.first.entries(IOVA + PAGE)[-1] & (A | D), A)
    s.use(NESTED, third=EAFE)
    equal(s.ats(IOVA), (s.page, 3))
    equal([e & EA for e in s.first.entries(IOVA)], [EA] * 4)


def marks_need_a_writable_table(s):
    s.first.map(IOVA, GPA + s.page, P | W | U)
    at = s.second.path(GPA + (s.first.path(IOVA)[-1] & -PAGE), 21)[-1]
    entry = s.m.readq(at)
    s.m.writeq(at, entry & ~SW)
    equal(s.ats(IOVA), None)
    s.m.writeq(at, entry)
    equal(s.ats(IOVA), (s.page, 3))
    # marked already
    s.m.writeq(at, entry & ~SW)
    s.forget()
    equal(s.ats(IOVA), (s.page, 3))


def second_stage_dirty(s):
    data = s.second.path(GPA + s.page, 21)
    table = s.second.path(GPA + s.first.top, 21)
    s.first.map(IOVA, GPA + s.page, P | W | U)
    equal(s.ats(IOVA), (s.page, 3))
    equal([s.m.readq(at) & (SA | SD) for at in data], [0] * 3)
    s.use(NESTED, bits=SSADE)
    equal(s.ats(IOVA, "READ"), (s.page, 1))
    equal([s.m.readq(at) & (SA | SD) for at in data], [SA] * 3)
    equal([s.m.readq(at) & (SA | SD) for at in table], [SA] * 3)
    s.m.writeq(s.first.path(IOVA)[0], s.m.readq(s.first.path(IOVA)[0]) & ~A)
    equal(s.ats(IOVA), (s.page, 3))
    equal([s.m.readq(at) & SD for at in data], [0, 0, SD])
    # of the first stage's table, too: the accessed bit was written
    equal([s.m.readq(at) & SD for at in table], [0, 0, SD])


def move(s, device=None, pasid=True):
    """Translate, let IOVA's leaf point elsewhere, and say how to learn if that is seen."""
    s.first.map(IOVA, GPA + s.page, P | W | U)
    s.forget()
    equal(s.ats(IOVA, pasid=pasid), (s.page, 3))
    s.first.map(IOVA, GPA + s.page + PAGE, P | W | U)
    return lambda: s.ats(IOVA, pasid=pasid) == (s.page + PAGE, 3)


def cached_until_invalidated(s):
    rid = s.d.rid
    everything = (1 << 63) - 1 & -PAGE
    for pasid in (True, False):
        number = PASID if pasid else 0
        iotlbs = ((1 << 4 | 2, 0), (DOMAIN << 16 | 2 << 4 | 2, 0), (DOMAIN << 16 | 3 << 4 | 2, 0),
                  (number << 32 | DOMAIN << 16 | 2 << 4 | 6, 0),
                  (number << 32 | DOMAIN << 16 | 3 << 4 | 6, IOVA),
                  (number << 32 | DOMAIN << 16 | 3 << 4 | 6, IOVA + 0x10000 | 9))
        if pasid:
            devices = [(number << 32 | rid << 16 | 8, IOVA),
                       (number << 32 | rid << 16 | 8, IOVA | 7 << 12 | 1 << 11),
                       (rid << 16 | 8, everything | 1 << 11 | 1)]
        else:
            devices = [(rid << 32 | 3, IOVA), (rid << 32 | 3, everything | 1)]
        for iotlb in iotlbs:
            for device in devices:
                seen = move(s, pasid=pasid)
                equal(seen(), False)
                s.forget(iotlb)
                equal(seen(), False)
                s.forget(device)
                equal((seen(), iotlb, device), (True, iotlb, device))
                seen = move(s, pasid=pasid)
                s.forget(device)
                equal(seen(), False)
                s.forget(iotlb)
                equal(seen(), True)


def other_invalidations_do_not_count(s):
    rid, other = s.d.rid, s.devices[1].rid
    good_iotlb = PASID << 32 | DOMAIN << 16 | 3 << 4 | 6, IOVA
    good_device = PASID << 32 | rid << 16 | 8, IOVA
    for bad in ((DOMAIN + 1 << 16 | 2 << 4 | 2, 0),
                (PASID + 1 << 32 | DOMAIN << 16 | 2 << 4 | 6, 0),
                (PASID << 32 | DOMAIN + 1 << 16 | 2 << 4 | 6, 0),
                (PASID << 32 | DOMAIN << 16 | 3 << 4 | 6, IOVA + PAGE)):
        seen = move(s)
        s.forget(bad, good_device)
        equal((seen(), bad), (False, bad))
        s.forget(good_iotlb)
        equal(seen(), True)
    for bad in ((PASID << 32 | other << 16 | 8, IOVA), (PASID + 1 << 32 | rid << 16 | 8, IOVA),
                (rid << 32 | 3, IOVA), (PASID << 32 | rid << 16 | 8, IOVA + PAGE)):
        seen = move(s)
        s.forget(bad, good_iotlb)
        equal((seen(), bad), (False, bad))
        s.forget(good_device)
        equal(seen(), True)


def large_pages_go_as_a_whole(s):
    s.first.map(IOVA, GPA + 0x5000000, P | W | U, 21)
    equal(s.ats(IOVA + 0x1FF000), (0x51FF000, 3))
    s.first.map(IOVA, GPA + 0x5200000, P | W | U, 21)
    equal(s.ats(IOVA + 0x1FF000), (0x51FF000, 3))
    s.forget((PASID << 32 | DOMAIN << 16 | 3 << 4 | 6, IOVA),
             (PASID << 32 | s.d.rid << 16 | 8, IOVA))
    equal(s.ats(IOVA + 0x1FF000), (0x53FF000, 3))


def second_stage_page_invalidation(s):
    s.use(SECOND)
    s.second.map(IOVA, s.page, SR | SW)
    equal(s.ats(IOVA), (s.page, 3))
    s.second.map(IOVA, s.page + PAGE, SR | SW)
    device = PASID << 32 | s.d.rid << 16 | 8, IOVA
    s.forget((DOMAIN << 16 | 3 << 4 | 2, IOVA + PAGE), (PASID << 32 | DOMAIN << 16 | 2 << 4 | 6, 0),
             device)
    equal(s.ats(IOVA), (s.page, 3))
    s.forget((DOMAIN << 16 | 3 << 4 | 2, IOVA))
    equal(s.ats(IOVA), (s.page + PAGE, 3))


def page_requests(s):
    for i, names in enumerate((("PASID", "PRIV", "EXEC"), ())):
        equal(pri.request(s, IOVA + i * PAGE, "READ", "LAST", *names, group=3 + i), 0)
    got = s.iommu.requests()
    equal([(r["pasid"], r["type"], r["priv"], r["group"], r["iova"], r["last"]) for r in got],
          [(PASID, 0x101, 1, 3, IOVA, 1), (0, 1, 0, 4, IOVA + PAGE, 1)])
    # a PASID without an entry may ask: it is the guest that knows
    equal(pri.request(s, IOVA, "PASID", "READ", "LAST", group=5, pasid=77), 0)
    equal(s.iommu.requests()[0]["pasid"], 77)


def answers_with_and_without_pasid(s):
    equal(pri.request(s, IOVA, "PASID", "READ", "LAST", group=3), 0)
    s.iommu.answer(s.iommu.requests()[0])
    equal(s.d.counters("RESPONSES", "SUCCESS", "UNMATCHED"), (1, 1, 0))
    equal(pri.request(s, IOVA, "READ", "LAST", group=4), 0)
    s.iommu.requests()
    s.iommu.submit(s.d.rid << 16 | 1 << 12 | 9, 4 << 3)
    equal(s.d.counters("RESPONSES", "INVALID", "UNMATCHED"), (2, 1, 0))
    equal(s.d.get("OPEN_GROUPS"), 0)


def not_allowed(s):
    context = s.m.readq(s.iommu.root) & -PAGE
    at = context + s.d.rid * 32
    entry = s.m.readq(at)
    s.m.writeq(at, entry & ~(1 << 4))
    equal(pri.request(s, IOVA, "PASID", "READ", "LAST"), -EPERM)
    s.first.map(IOVA, GPA + s.page, P | W | U)
    for bit in (2, 3, 0):
        s.m.writeq(at, entry & ~(1 << bit))
        equal(s.ats(IOVA), None)
    s.m.writeq(at, entry)
    equal((s.ats(IOVA), pri.request(s, IOVA, "PASID", "READ", "LAST")), ((s.page, 3), 0))


def interrupt(s):
    """The message of the queue's interrupt goes to memory here."""
    message = s.page + 63 * PAGE
    s.m.writel(VTD + 0xE4, 0x5678)
    s.m.writel(VTD + 0xE8, message)
    s.m.writel(VTD + 0xEC, 0)
    equal(pri.request(s, IOVA, "PASID", "READ", "LAST"), 0)
    equal((s.m.readl(message), s.m.readl(VTD + 0xE0)), (0, 3 << 30))
    s.m.writel(VTD + 0xE0, 0)
    equal((s.m.readl(message), s.m.readl(VTD + 0xE0)), (0x5678, 0))
    # one for all that come before it is acknowledged
    s.m.writel(message, 0)
    equal(pri.request(s, IOVA, "PASID", "READ", "LAST"), 0)
    equal(s.m.readl(message), 0)
    equal(len(s.iommu.requests()), 2)
    equal(pri.request(s, IOVA, "PASID", "READ", "LAST"), 0)
    equal(s.m.readl(message), 0x5678)
    # acknowledged while it was masked: there is nothing to be told of
    s.iommu.requests()
    s.m.writel(VTD + 0xE0, 1 << 31)
    equal(pri.request(s, IOVA, "PASID", "READ", "LAST"), 0)
    s.iommu.requests()
    equal(s.m.readl(VTD + 0xE0), 1 << 31)


def overflow(s):
    room = s.iommu.PRQ_ENTRIES - 1
    equal(s.d.do("BURST", IOVA=IOVA, STRIDE=PAGE, COUNT=600, GROUP=1, GRPID=0, PASID=PASID,
                 FLAGS=flags("PASID", "READ", "NO_CREDIT")), room)
    equal((s.iommu.overflowed(), s.d.counters("REQUESTS", "REFUSED")), (1, (room, 600 - room)))
    taken = s.iommu.requests()
    equal([r["iova"] for r in taken], [IOVA + i * PAGE for i in range(room)])
    # the room alone does not end it
    equal(pri.request(s, IOVA, "PASID", "READ", "LAST"), -28)
    s.iommu.clear_overflow()
    equal(pri.request(s, IOVA, "PASID", "READ", "LAST"), 0)
    equal(len(s.iommu.requests()), 1)


TESTS = (registers, second_stage, no_permission_unasked, nested, other_types,
         faults_at_each_level, reserved_bits, permissions, accessed_and_dirty,
         marks_need_a_writable_table, second_stage_dirty, cached_until_invalidated,
         other_invalidations_do_not_count, large_pages_go_as_a_whole,
         second_stage_page_invalidation, page_requests, answers_with_and_without_pasid,
         not_allowed, interrupt, overflow)


def refuses(plugin, nest, says, iommu=None):
    try:
        if iommu is None:
            pri.Machine(pri.QEMU, plugin, more=("-plugin", nest)).stop()
        else:
            command = pri.QEMU + ["-machine", "q35", "-accel", "qtest", "-display", "none",
                              "-nodefaults", "-plugin", nest, *iommu]
            run = subprocess.run(command, capture_output=True, text=True, timeout=60,
                                 stdin=subprocess.DEVNULL, check=False)
            raise pri.QemuRefused((run.returncode, run.stderr))
    except pri.QemuRefused as refused:
        status, errors = refused.args[0]
        equal((status, errors.count("\n")), (pri.UNKNOWN_QEMU, 1))
        equal(errors[:len(says) + 10], "vtd-nest: " + says)
        return
    raise AssertionError("it was taken")


def nested_first(test):
    """TEST begins with nested tables."""
    def run(s):
        s.use(NESTED)
        test(s)
    return run


def main():
    with tempfile.TemporaryDirectory() as scratch:
        plugin = pri.built("pri-testdev", "PRI_TESTDEV", scratch)
        nest = pri.built("vtd-nest", "VTD_NEST", scratch)

        def machine():
            return pri.Machine(pri.QEMU, plugin, more=("-plugin", nest + pri.DEBUG))

        checks = [("refuses_other_version", lambda: refuses(
                      plugin, nest + ",version=99.0", "unknown QEMU: version 99.0")),
                  ("refuses_no_iommu", lambda: refuses(
                      plugin, nest, "unknown QEMU: there is no intel-iommu", [])),
                  ("refuses_lesser_iommu", lambda: refuses(
                      plugin, nest, "unknown QEMU: intel-iommu with fsts",
                      ["-device", "intel-iommu"]))]
        checks += [(t.__name__, lambda t=t: pri.with_machine(machine, Nest, nested_first(t)))
                   for t in TESTS]
        return pri.run_all(machine, checks)


if __name__ == "__main__":
    sys.exit(main())
