"""Inline SVG that fits any width and follows the page's colours.

x runs over 0..100 % of the width that the page gives, y over CSS pixels, so text keeps its size on
a phone. Colours come from the page's style sheet by class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import NamedTuple
from xml.etree import ElementTree

from edgekit.reports.axis import Scale, number

HEIGHT = 180
LABEL_ROW_PX = 15
# Labels are kept apart for a plot of this width, a phone's; wider ones have room to spare.
_NARROW_PX, _CHARACTER_PX = 300, 6.4
# Labels of lines right of here stand on the left of them.
_TURN = 0.65
_LONGEST_UNIT = 6


class Drawing(NamedTuple):
    """A plot: its SVG markup ("" where there is nothing to draw) and what to say below it."""

    svg: str
    notes: list[str]


class Svg:
    """An SVG under construction: `root`, and `add` for its parts; ElementTree escapes all text."""

    def __init__(self, title: str, height: int | None, up: Scale | None = None) -> None:
        self.root = ElementTree.Element("svg", {"class": "plot", "role": "img"})
        if height is not None:
            self.root.set("height", str(height))
        if up is not None:
            self.gutter([up])
        self.add("title", text=title)

    def gutter(self, scales: Sequence[Scale]) -> None:
        """Make room at the left for the labels of vertical axes."""
        longest = max(5, *(len(label) for up in scales for _, label in up.ticks()))
        self.root.set("style", f"--gutter:{10 + _CHARACTER_PX * longest:.0f}px")

    def frame(self, top: int, height: int) -> ElementTree.Element:
        """Return a box for paths that begins at y = `top`: 1000 wide and `height` high."""
        frame = self.add("svg", x=0, y=top, width="100%", height=height, preserveAspectRatio="none")
        frame.set("viewBox", f"0 0 1000 {height}")
        return frame

    def add(
        self,
        tag: str,
        parent: ElementTree.Element | None = None,
        text: str = "",
        **attributes: str | float,
    ) -> ElementTree.Element:
        """Append to `parent`, else to the root; `class_` stands for ``class``, and so on."""
        named = {
            key.rstrip("_").replace("_", "-"): value if isinstance(value, str) else f"{value:.6g}"
            for key, value in attributes.items()
        }
        element = ElementTree.SubElement(self.root if parent is None else parent, tag, named)
        element.text = text or None
        return element

    def text(self) -> str:
        """Return the markup."""
        return ElementTree.tostring(self.root, encoding="unicode")

    def legend(
        self, names: Sequence[tuple[str, str]], style: str, row_px: int, top: int = 0
    ) -> None:
        """Name what is drawn, from `top`: (name, style class), as lines ("curve") or bars."""
        for row, (name, variant) in enumerate(names):
            y = top + row * row_px + 9
            if style == "curve":
                self.add("path", class_=f"curve{variant}", d=f"M0 {y}L22 {y}")
            else:
                self.add("rect", class_=f"{style}{variant}", x=0, y=y - 5, width=22, height=9)
            self.add("text", text=name, x=30, y=y + 4)

    def y_axis(self, up: Scale, top: int, name: str, height: int = HEIGHT) -> None:
        """Draw grid lines with their labels, `name` above them."""
        is_unit = len(name) <= _LONGEST_UNIT  # else there is no room for it left of the axis
        anchor, x = ("tick end", -8) if is_unit else ("tick", 0)
        self.add("text", class_=anchor, text=name, x=x, y=top - 12)
        for position, label in up.ticks():
            y = top + (1 - position) * height
            self.add("line", class_="grid", x1=0, x2="100%", y1=y, y2=y)
            self.add("text", class_="tick end", text=label, x=-8, y=y, dy=4)

    def x_axis(self, across: Scale, bottom: int, name: str) -> None:
        """Draw the horizontal axis at y = `bottom`, `name` below it."""
        for position, label in across.ticks():
            x = percent(position)
            self.add("line", class_="axis", x1=x, x2=x, y1=bottom, y2=bottom + 4)
            self.add("text", class_="tick middle", text=label, x=x, y=bottom + 18)
        self.add("line", class_="axis", x1=0, x2="100%", y1=bottom, y2=bottom)
        self.add("text", class_="tick end", text=name, x="100%", y=bottom + 36)

    def marks(self, placed: list[tuple[float, str, int]], top: int, height: int = HEIGHT) -> None:
        """Draw vertical lines with labels above a plot that starts at y = `top`."""
        # Lines first: the labels' halo then lies above all of them.
        for position, _, row in placed:
            x, y = percent(position), top - 14 - LABEL_ROW_PX * row
            self.add("line", class_="mark", x1=x, x2=x, y1=y, y2=top + height)
        for position, label, row in placed:
            anchor, dx = ("label end", -5) if position > _TURN else ("label", 5)
            y = top - 5 - LABEL_ROW_PX * row
            self.add("text", class_=anchor, text=label, x=percent(position), y=y, dx=dx)


def place_marks(marks: Mapping[str, float], across: Scale) -> list[tuple[float, str, int]]:
    """Return (position, label, row) of finite marks; rows keep labels off each other and lines."""
    found = []
    for name, value in marks.items():
        if isfinite(value):
            beyond = " →" if value > across.high else " ←" if value < across.low else ""
            found.append((across.position(value), f"{name} {number(float(value), 3)}{beyond}"))
    # A label stands beside its line, away from the near edge; whichever is next on that side gets
    # the lower row, so that its line ends below this label.
    found.sort(key=lambda mark: (mark[0] > _TURN, mark[0] if mark[0] > _TURN else -mark[0]))
    taken: list[tuple[float, float, int]] = []
    placed = []
    for position, label in found:
        length = (len(label) * _CHARACTER_PX + 8) / _NARROW_PX
        left = position - length if position > _TURN else position
        over = {row for start, end, row in taken if start < left + length and left < end}
        row = max(over) + 1 if over else 0
        taken.append((left, left + length, row))
        placed.append((position, label, row))
    return placed


def percent(position: float) -> str:
    """Return 0..1 as an SVG length."""
    return f"{100 * position:.3f}%"
