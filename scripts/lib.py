# SPDX-License-Identifier: GPL-2.0-only
"""What the scripts in Python share: places, guests, results of tests as KTAP, drawings."""
import importlib.machinery
import os
import subprocess
from xml.sax.saxutils import escape

SCRIPTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(SCRIPTS)
# The base, and what is made for it; what is fetched serves them all.
FIRST = "6.12"
BASE = os.environ.get("BASE") or FIRST
SHARED = os.path.join(ROOT, "build")
BUILD = SHARED if BASE == FIRST else os.path.join(SHARED, BASE)
SKIPPED = 4  # how a program ends that lacks what it needs
OURS, PEER, GRID, BAD = "#1f6f5c", "#b9b2a6", "#dddddd", "#8a3b2e"


def load(name):
    """The script NAME as a module."""
    return importlib.machinery.SourceFileLoader(name, f"{SCRIPTS}/{name}").load_module()


def shell(command):
    """Run COMMAND, that may use lib.sh's functions; what it said if it failed, or nothing."""
    run = subprocess.run(["bash", "-c", f'. "{SCRIPTS}/lib.sh"; {command}'], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return run.stdout[-3000:] or f"status {run.returncode}" if run.returncode else ""


def guest(*args):
    """A run of scripts/vm, with what it printed."""
    return subprocess.run([SCRIPTS + "/vm", *args], cwd=ROOT, capture_output=True, text=True)


class Results:
    """Results of tests as KTAP."""

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


class Drawing:
    """Rectangles, lines and words, as SVG."""

    def __init__(self, width, height):
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                      'font-family="sans-serif">',
                      "<!-- SPDX-License-Identifier: GPL-2.0-only -->"]
        self.rect(0, 0, width, height, "#ffffff")

    def rect(self, x, y, width, height, fill):
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:.1f}" height="{height:.1f}" '
                          f'fill="{fill}"/>')

    def line(self, x1, y1, x2, y2, stroke=GRID):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                          f'stroke="{stroke}"/>')

    def text(self, x, y, words, **attributes):
        """Attributes are SVG's, with _ for -: text_anchor="end"."""
        more = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in attributes.items())
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="12"{more}>'
                          f'{escape(str(words))}</text>')

    def write(self, path):
        with open(path, "w", encoding="ascii") as f:
            f.write("\n".join(self.parts + ["</svg>", ""]))
