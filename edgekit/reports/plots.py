"""Histogram, waterfall and time series. Many values are binned or thinned first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.reports.axis import (
    Axis,
    Scale,
    axis,
    column,
    log_axis,
    number,
    round_step,
    rounded_axis,
    with_unit,
)
from edgekit.reports.curves import curve_path
from edgekit.reports.svg import HEIGHT, LABEL_ROW_PX, Drawing, Svg, percent, place_marks

_MOST_BINS, _LOG_BINS = 60, 48
# From this ratio of p99 to the median on.
_LOG_FROM = 4.0
_MOST_POINTS = 1200
_MOST_BARS = 40


class Bins(NamedTuple):
    """Counts between `edges` (one more than counts); values outside are in the outermost bins."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]


def finite(values: Sequence[float]) -> tuple[NDArray[np.float64], int]:
    """Return the finite ones of `values` and how many are not.

    They are clipped to ±1e100, so that no sum or difference below overflows.
    """
    numbers = np.asarray(values, np.float64).ravel()
    kept = numbers[np.isfinite(numbers)]
    return np.clip(kept, -1e100, 1e100), numbers.size - kept.size


def core_range(values: NDArray[np.float64], reach: float) -> tuple[float, float]:
    """Return the range to draw: all of the values, unless few of them would dwarf the others.

    Then it ends `reach` times the distance from the median to the 1st and 99th percentile beyond
    these.
    """
    least, p1, q1, middle, q3, p99, most = np.percentile(values, [0, 1, 25, 50, 75, 99, 100])
    low = max(least, p1 - reach * (middle - p1) - (q3 - q1))
    high = min(most, p99 + reach * (p99 - middle) + (q3 - q1))
    if high <= low or most - least < 2 * (high - low):
        return float(least), float(most)
    return float(low), float(high)


def bin_values(values: NDArray[np.float64]) -> Bins:
    """Count finite `values` (at least one) in bins of a round width.

    The width follows Freedman and Diaconis (1981). Far outliers do not stretch the axis: they are
    counted in the outermost bins.
    """
    whole = axis(*core_range(values, reach=1))
    q1, q3 = np.percentile(values, [25, 75])
    width = 2 * (q3 - q1) / values.size ** (1 / 3)
    span = whole.high - whole.low
    wanted = span / width if width > span / _MOST_BINS else _MOST_BINS
    # Two modes far apart make a wide quartile range, whose few bins would not show them.
    least = min(30, max(10, int(values.size**0.5 / 2)))
    step = round_step(span, max(least, int(wanted)))
    first, last = np.floor(whole.low / step), np.ceil(whole.high / step)
    edges = np.arange(first, last + 1) * step
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Bins(edges, counts)


def is_long_tailed(values: NDArray[np.float64]) -> bool:
    """Tell whether a linear axis would press most `values` into one corner."""
    middle, p99 = np.percentile(values, [50, 99])
    return bool(values.min() > 0 and p99 >= _LOG_FROM * middle)


def _binned(values: NDArray[np.float64]) -> tuple[Scale, Bins]:
    if not is_long_tailed(values):
        bins = bin_values(values)
        return axis(float(bins.edges[0]), float(bins.edges[-1]), most=6), bins
    across = log_axis(float(values.min()), float(values.max()))
    edges = np.geomspace(across.low, across.high, _LOG_BINS + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return across, Bins(edges, counts)


def histogram(
    title: str,
    values: Sequence[float],
    unit: str,
    marks: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> Drawing:
    """Draw how often values occur; `marks` are vertical lines with their names.

    `intervals` (name of a mark: its ends) are bands.
    """
    numbers, left_out = finite(values)
    notes = left_out_notes(left_out)
    if not numbers.size:
        return Drawing("", [*notes, "No values to draw."])
    across, bins = _binned(numbers)
    up = rounded_axis(0, float(bins.counts.max()), most=4, whole=True)
    placed = place_marks(marks, across)
    top = 22 + LABEL_ROW_PX * (1 + max((row for *_, row in placed), default=0))
    text = f"{title or 'Histogram'}: {numbers.size:,} values, {_range(numbers, unit)}"
    svg = Svg(text, top + HEIGHT + 40, up)
    svg.y_axis(up, top, "count")
    for low, high in intervals.values():
        left, right = across.position(low), across.position(high)
        width = percent(max(right - left, 0.003))
        svg.add("rect", class_="band", x=percent(left), y=top, width=width, height=HEIGHT)
    _draw_bars(svg, bins, across, up, top, unit)
    svg.x_axis(across, top + HEIGHT, unit)
    svg.marks(placed, top)
    drawn = float(bins.edges[0]), float(bins.edges[-1])
    outside = outside_notes(numbers, drawn, unit, "the outermost bar counts them")
    return Drawing(svg.text(), notes + outside)


def waterfall(title: str, stages: Sequence[tuple[str, float]], unit: str) -> Drawing:
    """Draw stages as horizontal bars, each starting where the one before it ends."""
    if not stages:
        return Drawing("", ["No values to draw."])
    kept = list(stages[:_MOST_BARS])
    if rest := stages[_MOST_BARS:]:
        kept.append((f"{len(rest)} more", sum(_drawable(value) for _, value in rest)))
    total = sum(_drawable(value) for _, value in kept)
    whole = with_unit(number(float(total)), unit)
    svg = Svg(f"{title or 'Stages'}: {len(stages)} in {whole}", 38 * len(kept) + 2)
    amounts, _ = column([float(value) for _, value in kept])
    start = 0.0
    for row, ((name, value), digits) in enumerate(zip(kept, amounts, strict=True)):
        share = _drawable(value) / total if total else 0.0
        y = 38 * row
        label = svg.add("text", class_="name", text=_shorten(name, 30), x=0, y=y + 14)
        svg.add("title", label, name)
        amount = with_unit(digits, unit)
        text = f"{amount} · {100 * share:.1f} %" if np.isfinite(value) else amount
        svg.add("text", class_="value end", text=text, x="100%", y=y + 14)
        svg.add("rect", class_="track", x=0, y=y + 20, width="100%", height=10)
        x, width = percent(start), percent(share)
        svg.add("rect", class_="bar", x=x, y=y + 20, width=width, height=10)
        start += share
    return Drawing(svg.text(), [f"Total {whole}."])


def series(
    title: str,
    values: Sequence[float],
    unit: str,
    index: str,
    names: Sequence[str],
    marks: Mapping[str, float],
    is_whole: bool,
) -> Drawing:
    """Draw values in their order; of many, the least and the most of each stretch."""
    numbers, left_out = finite(values)
    notes = left_out_notes(left_out)
    if not numbers.size:
        return Drawing("", [*notes, "No values to draw."])
    whole = float(numbers.min()), float(numbers.max())
    up = rounded_axis(*(whole if is_whole else core_range(numbers, reach=3)), most=4)
    count = len(values)
    across = axis(0, max(1, count - 1), most=6, whole=True)
    placed = place_marks(marks, across)
    top = 22 + LABEL_ROW_PX * (1 + max(row for *_, row in placed) if placed else 0)
    text = f"{title or 'Series'}: {count:,} values, {_range(numbers, unit)}"
    svg = Svg(text, top + HEIGHT + 40, up)
    svg.y_axis(up, top, unit)
    svg.x_axis(across, top + HEIGHT, index)
    frame = svg.frame(top, HEIGHT)
    svg.add("path", frame, class_="curve", d=curve_path(*thin(values), across, up))
    svg.marks(placed, top)
    _name_values(svg, values, names, unit, across, top)
    outside = outside_notes(numbers, (up.low, up.high), unit, "they are drawn at the edge")
    return Drawing(svg.text(), notes + outside)


def _name_values(
    svg: Svg, values: Sequence[float], names: Sequence[str], unit: str, across: Axis, top: int
) -> None:
    """Lay a strip over each of the first values, which says its name where the reader points."""
    for position, (name, value) in enumerate(zip(names[:_MOST_POINTS], values, strict=False)):
        left, right = across.position(position - 0.5), across.position(position + 0.5)
        strip = svg.add(
            "rect",
            class_="strip",
            x=percent(left),
            y=top,
            width=percent(right - left),
            height=HEIGHT,
        )
        svg.add("title", strip, f"{name}: {with_unit(number(float(value)), unit)}")


def thin(values: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return positions and values to draw: at most 1,200, every stretch's extremes among them.

    A stretch without finite values becomes one NaN, a gap in the curve.
    """
    numbers: NDArray[np.float64] = np.asarray(values, np.float64).ravel()
    numbers = np.where(np.isfinite(numbers), np.clip(numbers, -1e100, 1e100), np.nan)
    positions = np.arange(numbers.size, dtype=np.float64)
    if numbers.size <= _MOST_POINTS:
        return positions, numbers
    chosen: list[int] = []
    for stretch in np.array_split(np.arange(numbers.size), _MOST_POINTS // 2):
        part = numbers[stretch]
        if np.isnan(part).all():
            chosen.append(int(stretch[0]))
        else:
            extremes = {int(np.nanargmin(part)), int(np.nanargmax(part))}
            chosen += [int(stretch[0]) + offset for offset in sorted(extremes)]
    return positions[chosen], numbers[chosen]


def _draw_bars(svg: Svg, bins: Bins, across: Scale, up: Axis, top: int, unit: str) -> None:
    bottom = top + HEIGHT
    for left, right, count in zip(bins.edges[:-1], bins.edges[1:], bins.counts, strict=True):
        if not count:
            continue
        x = percent(across.position(left))
        width = percent(across.position(right) - across.position(left))
        # A single value among a million is still seen.
        height = max(1.0, up.position(count) * HEIGHT)
        y = bottom - height
        bar = svg.add("rect", class_="bar", x=x, y=y, width=width, height=height)
        interval = with_unit(f"{number(float(left))}…{number(float(right))}", unit)
        svg.add("title", bar, f"{interval}: {count:,}")
        svg.add("line", class_="gap", x1=x, x2=x, y1=y, y2=bottom)


def _drawable(value: float) -> float:
    return min(max(float(value), 0.0), 1e100) if np.isfinite(value) else 0.0


def left_out_notes(count: int) -> list[str]:
    """Say how many values `finite` left out."""
    return [f"{count:,} values that are not finite are left out."] if count else []


def outside_notes(
    numbers: NDArray[np.float64], drawn: tuple[float, float], unit: str, where: str
) -> list[str]:
    """Say which values lie outside the range that is drawn, and `where` they are seen."""
    below, above = int((numbers < drawn[0]).sum()), int((numbers > drawn[1]).sum())
    return [
        f"{count:,} of {numbers.size:,} values lie {side} {with_unit(number(edge), unit)}, as far "
        f"as {with_unit(number(float(extreme)), unit)}; {where}."
        for side, count, edge, extreme in (
            ("below", below, drawn[0], numbers.min()),
            ("above", above, drawn[1], numbers.max()),
        )
        if count
    ]


def _range(numbers: NDArray[np.float64], unit: str) -> str:
    return with_unit(f"{number(float(numbers.min()))} to {number(float(numbers.max()))}", unit)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
