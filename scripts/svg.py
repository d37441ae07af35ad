# SPDX-License-Identifier: GPL-2.0-only
"""A drawing of rectangles, lines and words, as SVG.  For the scripts that plot."""
from xml.sax.saxutils import escape

OURS, PEER, GRID, BAD = "#1f6f5c", "#b9b2a6", "#dddddd", "#8a3b2e"


class Drawing:
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
