"""Percentiles of several configurations on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from edgekit.reports.axis import Scale, column, log_axis, rounded_axis, with_unit
from edgekit.reports.svg import Drawing, Svg, percent

_MOST_ROWS = 40
_ROW_PX = 40
# Slower ones would press the fast ones to the edge of a linear axis.
_LOG_FROM = 12.0

Percentiles = tuple[float, float, float]
"""p50, p90, p99."""


def plot_spreads(
    title: str,
    rows: Sequence[tuple[str, Percentiles, tuple[float, float] | None]],
    unit: str,
) -> Drawing:
    """Draw a line from p50 to p99 for each of `rows` (name, percentiles, interval of p50).

    Of many rows the first are drawn.
    """
    shown = [row for row in rows if all(isfinite(value) and value >= 0 for value in row[1])]
    rest, shown = len(rows) - len(shown[:_MOST_ROWS]), shown[:_MOST_ROWS]
    notes = [f"{rest:,} more rows are not drawn."] if rest else []
    if not shown:
        return Drawing("", ["No values to draw."])
    across = _axis([value for _, values, _ in shown for value in values])
    amounts, _ = column([float(values[0]) for _, values, _ in shown])
    height = _ROW_PX * len(shown)
    svg = Svg(f"{title or 'Configurations'}: {len(shown)} rows", height + 42)
    for row, ((name, values, interval), amount) in enumerate(zip(shown, amounts, strict=True)):
        y = _ROW_PX * row
        label = svg.add("text", class_="name", text=_shorten(name), x=0, y=y + 14)
        svg.add("title", label, name)
        svg.add("text", class_="value end", text=with_unit(amount, unit), x="100%", y=y + 14)
        _spread(svg, across, values, interval, y + 26)
    svg.x_axis(across, height + 2, unit)
    box = ", the box around it its 95 % interval" if any(interval for *_, interval in shown) else ""
    notes.append(f"A dot is p50{box}; the line ends at p90 and p99.")
    return Drawing(svg.text(), notes)


def _spread(
    svg: Svg, across: Scale, values: Percentiles, interval: tuple[float, float] | None, y: float
) -> None:
    p50, p90, p99 = (percent(across.position(value)) for value in values)
    svg.add("line", class_="grid", x1=0, x2="100%", y1=y, y2=y)
    svg.add("line", class_="reach", x1=p50, x2=p99, y1=y, y2=y)
    for end in (p90, p99):
        svg.add("line", class_="reach", x1=end, x2=end, y1=y - 4, y2=y + 4)
    if interval is not None and all(map(isfinite, interval)):
        low, high = (across.position(end) for end in interval)
        svg.add(
            "rect", class_="span", x=percent(low), y=y - 7, width=percent(high - low), height=14
        )
    svg.add("circle", class_="dot", cx=p50, cy=y, r=4.5)


def _axis(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    return log_axis(low, high) if low > 0 and high / low >= _LOG_FROM else rounded_axis(low, high)


def _shorten(text: str) -> str:
    return text if len(text) <= 34 else text[:33] + "…"
