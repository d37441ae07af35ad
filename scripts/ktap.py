# SPDX-License-Identifier: GPL-2.0-only
"""Results of tests as KTAP.  For the scripts that judge something."""


class Results:
    def __init__(self, plan=None):
        """Without PLAN the end says how many there were."""
        self.number, self.plan, self.failed = 0, plan, False
        print("TAP version 13" + (f"\n1..{plan}" if plan else ""), flush=True)

    def result(self, name, good, said=(), skip=""):
        """One test, after what is SAID about it; SKIP: why it was not made."""
        self.number += 1
        self.failed |= not good
        for text in said:
            print("# " + text.replace("\n", "\n# "))
        print(f"{'ok' if good else 'not ok'} {self.number} {name}"
              f"{' # SKIP ' + skip if skip else ''}", flush=True)

    def errors(self, name, errors, skip=""):
        """One test, that fails if there are errors."""
        self.result(name, not errors, errors, skip)

    def end(self):
        """The exit status."""
        if not self.plan:
            print(f"1..{self.number}")
        return int(self.failed)
