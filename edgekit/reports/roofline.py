"""Operators under the roofs of what a machine can do: Williams, Waterman, Patterson (2009)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from edgekit.reports.axis import log_axis, number
from edgekit.reports.svg import Drawing, Svg, percent

_HEIGHT, _MOST_POINTS = 300, 500
_LEAST_R_PX, _MOST_R_PX, _LABEL_PX = 2.5, 11.0, 13.0

Point = tuple[str, float, float, float, bool, str]
"""Name, operations a byte, GFLOP/s, share of the time, whether memory bounds it, label."""


def plot_roofline(
    title: str, peak_gflops: float, bandwidth_gb_s: float, points: Sequence[Point]
) -> Drawing:
    """Draw `points` under min(peak, bandwidth · intensity), both axes logarithmic.

    Args:
        title: of the plot.
        peak_gflops: 10^9 operations a second at most.
        bandwidth_gb_s: 10^9 bytes a second at most.
        points: those with a label carry it.
    """
    # Large points first, so that small ones lie on them.
    drawable = (p for p in points if all(isfinite(v) and v > 0 for v in p[1:3]) and isfinite(p[3]))
    kept = sorted(drawable, key=lambda p: -p[3])
    rest, kept = len(kept[_MOST_POINTS:]), kept[:_MOST_POINTS]
    roofs = (peak_gflops, bandwidth_gb_s)
    if not kept or not all(isfinite(roof) and roof > 0 for roof in roofs):
        return Drawing("", ["No values to draw."])
    ridge = peak_gflops / bandwidth_gb_s
    across = log_axis(min(ridge / 4, *(p[1] for p in kept)), max(ridge * 4, *(p[1] for p in kept)))
    roof_left = min(peak_gflops, bandwidth_gb_s * across.low)
    up = log_axis(min(roof_left, *(p[2] for p in kept)), max(peak_gflops, *(p[2] for p in kept)))
    top = 28
    words = f"{title or 'Roofline'}: {len(kept)} operators, peak {number(float(peak_gflops), 3)} "
    words += f"GFLOP/s, {number(float(bandwidth_gb_s), 3)} GB/s"
    svg = Svg(words, top + _HEIGHT + 40, up)
    svg.y_axis(up, top, "GFLOP/s", _HEIGHT)
    svg.x_axis(across, top + _HEIGHT, "operations a byte")

    def place(intensity: float, gflops: float) -> tuple[str, float]:
        return percent(across.position(intensity)), top + (1 - up.position(gflops)) * _HEIGHT

    # Where the memory's roof enters the box: at its left edge, or at its floor.
    start = max(across.low, up.low / bandwidth_gb_s)
    (x0, y0), (x1, y1) = place(start, bandwidth_gb_s * start), place(ridge, peak_gflops)
    svg.add("line", class_="roof", x1=x0, y1=y0, x2=x1, y2=y1)
    svg.add("line", class_="roof", x1=x1, y1=y1, x2="100%", y2=y1)
    svg.add("line", class_="ridge", x1=x1, y1=y1, x2=x1, y2=top + _HEIGHT)
    largest = kept[0][3] if kept[0][3] > 0 else 1.0
    for name, intensity, gflops, share, is_memory_bound, _ in kept:
        x, y = place(intensity, gflops)
        radius = max(_LEAST_R_PX, _MOST_R_PX * max(0.0, share / largest) ** 0.5)
        bound = " memory" if is_memory_bound else ""
        point = svg.add("circle", class_=f"point{bound}", cx=x, cy=y, r=radius)
        amounts = f"{number(float(gflops), 3)} GFLOP/s at {number(float(intensity), 3)} a byte"
        svg.add("title", point, f"{name}: {amounts}, {100 * share:.1f} % of the time")
    for _, intensity, gflops, _, _, label in kept:
        if label:
            x, y = place(intensity, gflops)
            side = "label end" if across.position(intensity) > 0.9 else "label"
            dx = (-_LABEL_PX if side == "label end" else _LABEL_PX) + 0.0
            svg.add("text", class_=side, text=label, x=x, y=y, dx=dx, dy=4)
    return Drawing(svg.text(), [f"{rest:,} more operators are not drawn."] if rest else [])
