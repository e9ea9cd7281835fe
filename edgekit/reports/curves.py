"""Lines on common axes: ROC, reliability, a trace beside another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.reports.axis import Axis, Scale, rounded_axis
from edgekit.reports.svg import HEIGHT, Drawing, Svg

_MOST_POINTS = 400
_SQUARE_PX = 280
_LEGEND_PX = 20
# By rank: of the line, and what it is compared with, and the background.
_CLASSES = ("", " beside", " behind")

Line = tuple[str, Sequence[float], Sequence[float], int]


def plot_curves(
    title: str, lines: Sequence[Line], x_name: str, y_name: str, is_square: bool
) -> Drawing:
    """Draw lines (name, x, y, rank 0..2), the background first; NaN lifts the pen.

    Args:
        title: of the plot.
        lines: those with a name stand in the legend.
        x_name: below the horizontal axis.
        y_name: above the vertical one.
        is_square: both axes are 0..1 and of like length.
    """
    arrays = [(_finite(x), _finite(y)) for _, x, y, _ in lines]
    points = [part[~np.isnan(x + y)] for x, y in arrays for part in (x, y)]
    if not any(part.size for part in points):
        return Drawing("", ["No values to draw."])
    across, up = (
        Axis(0.0, 1.0, 0.2) if is_square else _axis(np.concatenate(points[side::2]))
        for side in (0, 1)
    )
    height = _SQUARE_PX if is_square else HEIGHT
    named = [(name, rank) for name, *_, rank in lines if name]
    top = 22 + _LEGEND_PX * len(named)
    svg = Svg(f"{title or 'Curves'}: {', '.join(name for name, _ in named)}", top + height + 40, up)
    if is_square:
        svg.root.set("class", "plot square")
    svg.legend([(name, _CLASSES[rank]) for name, rank in named], "curve", _LEGEND_PX)
    svg.y_axis(up, top, y_name, height)
    svg.x_axis(across, top + height, x_name)
    frame = svg.frame(top, height)
    drawn = sorted(zip(lines, arrays, strict=True), key=lambda pair: -pair[0][3])
    for (_, _, _, rank), (x, y) in drawn:
        path = curve_path(*_thinned(x, y), across, up, height)
        svg.add("path", frame, class_=f"curve{_CLASSES[rank]}", d=path)
    return Drawing(svg.text(), [])


def curve_path(
    x: NDArray[Any], y: NDArray[Any], across: Scale, up: Scale, height: int = HEIGHT
) -> str:
    """Return the path's data in a box of 1000 by `height`; NaN lifts the pen."""
    parts: list[str] = []
    pen = "M"
    for position, value in zip(x, y, strict=True):
        if np.isnan(value) or np.isnan(position):
            pen = "M"
            continue
        point = f"{1000 * across.position(position):.1f} {height * (1 - up.position(value)):.1f}"
        # A line to the same place: round caps make a lone point visible.
        parts.append(f"{pen}{point}" + (f"L{point}" if pen == "M" else ""))
        pen = "L"
    return "".join(parts)


def _axis(values: NDArray[np.float64]) -> Axis:
    return rounded_axis(float(values.min()), float(values.max()), most=5)


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = np.asarray(values, np.float64).ravel()
    return np.where(np.isfinite(numbers), np.clip(numbers, -1e100, 1e100), np.nan)


def _thinned(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most so many points as a screen shows, evenly chosen, the last among them."""
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(int))
    return x[chosen], y[chosen]
