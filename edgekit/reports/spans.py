"""Bars of shares with their intervals, one row a class."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from edgekit.reports.svg import Drawing, Svg, percent

_MOST_ROWS = 40
_BAR_PX, _LEGEND_PX = 11, 20
_CLASSES = ("", " beside")

Span = tuple[float, float, float]
"""A value and the ends of its interval, 0..1; ends that are NaN are not drawn."""


def plot_spans(
    title: str, series: Sequence[str], rows: Sequence[tuple[str, Sequence[Span | None]]]
) -> Drawing:
    """Draw a row for each of `rows` (name, a span a series), a bar for each of `series`, 2 at most.

    Of many rows the first are drawn.
    """
    shown = rows[:_MOST_ROWS]
    if not shown:
        return Drawing("", ["No values to draw."])
    top = _LEGEND_PX * len(series) + 4 if len(series) > 1 else 0
    each = 24 + _BAR_PX * len(series) + 5
    svg = Svg(f"{title or 'Classes'}: {len(rows)} rows", top + each * len(shown))
    if top:
        svg.legend(list(zip(series, _CLASSES, strict=False)), "bar", _LEGEND_PX)
    for number, (name, spans) in enumerate(shown):
        y = top + each * number
        text = name if len(name) <= 30 else name[:29] + "…"
        svg.add("title", svg.add("text", class_="name", text=text, x=0, y=y + 16), name)
        values = " · ".join(_value(span) for span in spans)
        svg.add("text", class_="value end", text=values, x="100%", y=y + 16)
        for place, span in enumerate(spans):
            _bar(svg, span, _CLASSES[place], y + 22 + _BAR_PX * place)
    rest = len(rows) - len(shown)
    return Drawing(svg.text(), [f"{rest:,} more rows are not drawn."] if rest else [])


def _bar(svg: Svg, span: Span | None, style: str, y: float) -> None:
    svg.add("rect", class_="track", x=0, y=y, width="100%", height=_BAR_PX - 2)
    if span is None:
        return
    value, low, high = (min(max(part, 0.0), 1.0) for part in span)
    width = percent(value)
    svg.add("rect", class_=f"bar{style}", x=0, y=y, width=width, height=_BAR_PX - 2)
    if isfinite(span[1]) and isfinite(span[2]):
        middle = y + (_BAR_PX - 2) / 2
        x1, x2 = percent(low), percent(high)
        svg.add("line", class_="whisker", x1=x1, x2=x2, y1=middle, y2=middle)
        for end in (x1, x2):
            svg.add("line", class_="whisker", x1=end, x2=end, y1=middle - 3, y2=middle + 3)


def _value(span: Span | None) -> str:
    return "–" if span is None else f"{100 * span[0]:.1f} %"
