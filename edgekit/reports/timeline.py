"""What happened when: latency, clocks, temperature and power over the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgekit.reports.axis import Axis, Scale, axis, log_axis, rounded_axis
from edgekit.reports.curves import curve_path
from edgekit.reports.plots import core_range, is_long_tailed, outside_notes
from edgekit.reports.svg import HEIGHT, LABEL_ROW_PX, Drawing, Svg, percent, place_marks

_SMALL_PX, _BETWEEN_PX, _LEGEND_PX = 84, 34, 18
_MOST_DOTS, _MOST_EXTREMES, _MOST_POINTS = 1500, 100, 400
_MEDIANS, _LEAST_AROUND = 120, 8
_CLASSES = ("", " beside", " behind")

Line = tuple[str, NDArray[np.float64], NDArray[np.float64]]
Trace = tuple[str, Sequence[float], Sequence[float]]


def plot_timeline(
    title: str,
    panels: Sequence[tuple[str, str, Sequence[Trace], bool]],
    index: str,
    bands: Sequence[tuple[float, float]],
    marks: Mapping[str, float],
) -> Drawing:
    """Draw panels (title, unit, traces, whether dots) one below the other over the same time.

    Args:
        title: of the plot.
        panels: those without a finite value are left out.
        index: unit of the time.
        bands: (start, end), shaded in all panels.
        marks: name: time, lines through all panels.
    """
    drawn = [
        (name, unit, kept, dots)
        for name, unit, traces, dots in panels
        if (kept := [line for trace in traces if (line := _finite(trace))[1].size])
    ]
    if not drawn:
        return Drawing("", ["No values to draw."])
    times = np.concatenate([x for _, _, lines, _ in drawn for _, x, _ in lines])
    across = axis(float(times.min()), float(times.max()), most=6)
    scales = [_up(lines, dots) for _, _, lines, dots in drawn]
    placed = place_marks(marks, across)
    first = LABEL_ROW_PX * (1 + max(row for *_, row in placed)) if placed else 0
    tops, bottom = _places(drawn, first)
    svg = Svg(f"{title or 'Over time'}: {', '.join(name for name, *_ in drawn)}", bottom + 40)
    svg.gutter(scales)
    for left, right in bands:
        x, width = across.position(left), across.position(right) - across.position(left)
        svg.add(
            "rect",
            class_="band",
            x=percent(x),
            y=tops[0],
            width=percent(max(width, 0.003)),
            height=bottom - tops[0],
        )
    notes: list[str] = []
    for (name, unit, lines, dots), up, top in zip(drawn, scales, tops, strict=True):
        notes += _panel(svg, (name, unit, lines, dots), across, up, top)
    svg.x_axis(across, bottom, index)
    svg.marks(placed, tops[0], bottom - tops[0])
    return Drawing(svg.text(), notes)


def _places(
    panels: Sequence[tuple[str, str, list[Line], bool]], first: int
) -> tuple[list[int], int]:
    """Return where each panel begins, and where the last one ends."""
    tops: list[int] = []
    y = first
    for number_, (_, _, lines, dots) in enumerate(panels):
        named = min(len(lines), 2) if len(lines) > 1 else 0
        y += _BETWEEN_PX * (number_ > 0) + 26 + _LEGEND_PX * named
        tops.append(y)
        y += HEIGHT if dots else _SMALL_PX
    return tops, y


def _panel(
    svg: Svg, panel: tuple[str, str, list[Line], bool], across: Axis, up: Scale, top: int
) -> list[str]:
    """Draw one panel whose axes begin at y = `top`; return what is to be said of it."""
    name, unit, lines, dots = panel
    height = HEIGHT if dots else _SMALL_PX
    ranks = [(line, _CLASSES[min(place, 2)]) for place, line in enumerate(_by_interest(lines))]
    named = [(line[0], rank) for line, rank in ranks[:2]] if len(lines) > 1 else []
    title_y = top - 12 - _LEGEND_PX * len(named)
    svg.add("text", class_="tick", text=f"{name}, {unit}", x=0, y=title_y)
    svg.legend(named, "curve", _LEGEND_PX, title_y + 4)
    svg.y_axis(up, top, "", height)
    frame = svg.frame(top, height)
    if dots:
        (_, x, y), _ = ranks[0]
        chosen = _dots(y)
        svg.add("path", frame, class_="dots", d=_dot_path(x[chosen], y[chosen], across, up))
        middle = curve_path(*_medians(x, y), across, up, height)
        svg.add("path", frame, class_="curve", d=middle)
        notes = outside_notes(y, (up.low, up.high), unit, "they are drawn at the edge")
        if chosen.size < y.size:
            notes.append(
                f"{chosen.size:,} of {y.size:,} runs are drawn, the slowest among them; the line "
                "is the median of the runs around it."
            )
        return notes
    for (_, x, y), rank in reversed(ranks):
        path = curve_path(*_thinned(x, y), across, up, height)
        svg.add("path", frame, class_=f"curve{rank}", d=path)
    rest = len(lines) - 2
    return [f"{name}: {rest} more in the background."] if rest > 0 else []


def _finite(trace: Trace) -> Line:
    """Return name, times and values of the points that can be drawn, in order of time."""
    name, x, y = trace
    times, values = (np.asarray(part, np.float64).ravel() for part in (x, y))
    kept = np.isfinite(times) & np.isfinite(values)
    order = np.argsort(times[kept], kind="stable")
    times, values = (np.clip(part[kept][order], -1e100, 1e100) for part in (times, values))
    return name, times, values


def _up(lines: Sequence[Line], dots: bool) -> Scale:
    values = np.concatenate([y for _, _, y in lines])
    if dots and is_long_tailed(values):
        return log_axis(float(values.min()), float(values.max()))
    if dots:
        return rounded_axis(*core_range(values, reach=3), most=4)
    return rounded_axis(float(values.min()), float(values.max()), most=3, zero=False)


def _by_interest(lines: Sequence[Line]) -> list[Line]:
    """Return the line that changes most first, and of steady ones the highest."""
    return sorted(lines, key=lambda line: (-float(np.ptp(line[2])), -float(line[2].mean())))


def _dots(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return which values to draw: evenly chosen ones, and the largest."""
    even = np.linspace(0, values.size - 1, min(values.size, _MOST_DOTS)).astype(np.int64)
    return np.unique(np.append(even, np.argsort(-values, kind="stable")[:_MOST_EXTREMES]))


def _dot_path(x: NDArray[np.float64], y: NDArray[np.float64], across: Axis, up: Scale) -> str:
    """Return lines of no length, whose round caps are dots of the same size on any screen."""
    return "".join(
        f"M{1000 * across.position(position):.1f} {HEIGHT * (1 - up.position(value)):.1f}h0"
        for position, value in zip(x, y, strict=True)
    )


def _medians(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count = min(max(1, y.size // _LEAST_AROUND), _MEDIANS)
    edges = np.linspace(0, y.size, count + 1).astype(int)
    pairs = list(pairwise(edges.tolist()))
    middles = ([float(np.median(part[a:b])) for a, b in pairs] for part in (x, y))
    across, up = (np.array(values, np.float64) for values in middles)
    return across, up


def _thinned(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    chosen = np.unique(np.linspace(0, x.size - 1, min(x.size, _MOST_POINTS)).astype(int))
    return x[chosen], y[chosen]
