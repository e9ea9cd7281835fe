"""Empirical distribution function with a logarithmic tail: what one in a hundred runs takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgekit.reports.axis import Scale, axis, log_axis, number, with_unit
from edgekit.reports.curves import curve_path
from edgekit.reports.plots import finite, left_out_notes
from edgekit.reports.svg import HEIGHT, Drawing, Svg, percent

_MOST_POINTS = 500
# From this ratio of the largest to the least on, a linear axis would hide where most values lie.
_LOG_FROM = 4.0


class TailAxis(NamedTuple):
    """Shares 0..1 in which 0 to 90 %, 90 to 99 % and 99 to 99.9 % have like lengths."""

    nines: float
    low: float = 0.0
    high: float = 1.0

    def position(self, value: float) -> float:
        """Return where the share `value` lies, 0..1, clipped."""
        return min(1.0, -math.log10(max(1.0 - value, 1e-12)) / self.nines)

    def ticks(self) -> list[tuple[float, str]]:
        """Return (position, label) of 0 and 50 %, and of each nine."""
        values = [0.0, 0.5, *(1 - 10.0**-n for n in range(1, math.floor(self.nines + 1e-9) + 1))]
        labels = (f"{100 * value:.{max(0, n - 3)}f} %" for n, value in enumerate(values))
        return list(zip(map(self.position, values), labels, strict=True))


def plot_ecdf(
    title: str,
    values: Sequence[float],
    unit: str,
    intervals: Sequence[tuple[float, float, float]],
) -> Drawing:
    """Draw the share of `values` at or below each of them.

    Args:
        title: of the plot.
        values: in any order.
        unit: of the values.
        intervals: (share 0..1, low, high) of percentiles, drawn as lines with ends.
    """
    numbers, left_out = finite(values)
    notes = left_out_notes(left_out)
    if not numbers.size:
        return Drawing("", [*notes, "No values to draw."])
    numbers.sort()
    # The i-th of n stands for i / (n + 1): the largest has a place on the axis, too.
    shares = np.arange(1, numbers.size + 1) / (numbers.size + 1)
    up = TailAxis(max(1.0, math.log10(numbers.size + 1)))
    across = _across(float(numbers[0]), float(numbers[-1]))
    heights = np.linspace(0, 1, min(_MOST_POINTS, numbers.size))
    places = np.searchsorted(shares, 1 - 10 ** (-up.nines * heights)).clip(0, numbers.size - 1)
    chosen = np.unique(np.append(places, [0, numbers.size - 1]))
    top = 28
    text = f"{title or 'Distribution'}: {numbers.size:,} values, median "
    text += with_unit(number(float(np.median(numbers))), unit)
    svg = Svg(text, top + HEIGHT + 40, up)
    svg.y_axis(up, top, "share of values at or below")
    svg.x_axis(across, top + HEIGHT, unit)
    frame = svg.frame(top, HEIGHT)
    svg.add(
        "path", frame, class_="curve", d=curve_path(numbers[chosen], shares[chosen], across, up)
    )
    for share, low, high in intervals:
        if share <= shares[-1]:
            y = top + (1 - up.position(share)) * HEIGHT
            _interval(svg, across.position(low), across.position(high), y)
    return Drawing(svg.text(), notes)


def _across(low: float, high: float) -> Scale:
    if low > 0 and high / low >= _LOG_FROM:
        return log_axis(low, high)
    return axis(low, high, most=6)


def _interval(svg: Svg, left: float, right: float, y: float) -> None:
    svg.add("line", class_="whisker", x1=percent(left), x2=percent(right), y1=y, y2=y)
    for end in (left, right):
        svg.add("line", class_="whisker", x1=percent(end), x2=percent(end), y1=y - 4, y2=y + 4)
