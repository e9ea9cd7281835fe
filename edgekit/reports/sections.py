"""What a report can hold, from top to bottom; how each looks is `views`' matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from edgekit.reports.spans import Span

Cell = str | int | float | bool | None


class Fact(msgspec.Struct, frozen=True):
    """A figure to be read first, set large.

    Attributes:
        label: what it is ("latency p50").
        value: the number, or finished text.
        unit: set small, after the value.
        hint: one line below it ("limit 0.5").
    """

    label: str
    value: Cell
    unit: str = ""
    hint: str = ""


class _Section(msgspec.Struct, frozen=True, kw_only=True, tag=str.lower):
    """What all sections have: a heading ("" continues the one before) and a line below."""

    title: str = ""
    note: str = ""


class Text(_Section, frozen=True, kw_only=True):
    """Plain paragraphs, separated by empty lines."""

    text: str


class Table(_Section, frozen=True, kw_only=True):
    """Rows of cells; columns of numbers are set right. From 500 rows on, the rest is counted.

    Readers sort tables of more than a few rows by a click on a column's head. Rows come sorted by
    `sorted_by`, the largest first; numbers of `bars` have a bar, relative to the column's largest.
    `decimals` (column: how many) are else those that four digits of the largest number need.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sorted_by: str = ""
    bars: Sequence[str] = ()
    decimals: Mapping[str, int] = {}


class Histogram(_Section, frozen=True, kw_only=True):
    """How often `values` occur; `marks` (name: value) are lines, such as p50 and p99.

    `intervals` (name of a mark: its ends) are bands behind them.
    """

    values: Sequence[float]
    unit: str = ""
    marks: Mapping[str, float] = {}
    intervals: Mapping[str, tuple[float, float]] = {}


class Ecdf(_Section, frozen=True, kw_only=True):
    """The share of `values` at or below each, in steps of tenfold rarity: 0, 90, 99, 99.9 %.

    `intervals` (share 0..1, low, high) are those of percentiles.
    """

    values: Sequence[float]
    unit: str = ""
    intervals: Sequence[tuple[float, float, float]] = ()


class Spread(msgspec.Struct, frozen=True):
    """Percentiles of one row of `Spreads`, with the 95 % interval of p50 where there is one."""

    name: str
    p50: float
    p90: float
    p99: float
    interval: tuple[float, float] | None = None


class Spreads(_Section, frozen=True, kw_only=True):
    """A row for each of `spreads` on one axis: what is compared."""

    spreads: Sequence[Spread]
    unit: str = ""


class Trace(msgspec.Struct, frozen=True):
    """Values y at times x, seconds."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Panel(msgspec.Struct, frozen=True):
    """One plot of a `Timeline`: lines of like unit, the first two by name, the rest behind them.

    `is_dots` draws each value of its one trace, and the median of the values around it as a line.
    """

    title: str
    unit: str
    traces: Sequence[Trace]
    is_dots: bool = False


class Timeline(_Section, frozen=True, kw_only=True):
    """Panels one below the other over the same time; `bands` (start, end) are shaded in all."""

    panels: Sequence[Panel]
    index: str = "s"
    bands: Sequence[tuple[float, float]] = ()
    marks: Mapping[str, float] = {}


class RoofPoint(msgspec.Struct, frozen=True):
    """An operator in a roofline plot.

    Attributes:
        name: shown where the reader points.
        intensity: operations a byte, above 0.
        gflops: achieved, above 0.
        share: of the time, 0..1: the point's area.
        is_memory_bound: left of the ridge.
        label: stands beside it.
    """

    name: str
    intensity: float
    gflops: float
    share: float
    is_memory_bound: bool
    label: str = ""


class Roofline(_Section, frozen=True, kw_only=True):
    """Operators under what the machine can do at most, both axes logarithmic.

    Williams, Waterman, Patterson (2009).
    """

    peak_gflops: float
    bandwidth_gb_s: float
    points: Sequence[RoofPoint]


class Bars(_Section, frozen=True, kw_only=True):
    """Stages of a whole (name, value), one after the other: a waterfall."""

    stages: Sequence[tuple[str, float]]
    unit: str = ""


class Series(_Section, frozen=True, kw_only=True):
    """Values in their order; `index` names the horizontal axis.

    Few far values are drawn at the edge, unless `is_whole`. `names`, one a value, are shown where
    the reader points; `marks` (name: position) are lines.
    """

    values: Sequence[float]
    unit: str = ""
    index: str = "run"
    names: Sequence[str] = ()
    marks: Mapping[str, float] = {}
    is_whole: bool = False


class Curve(msgspec.Struct, frozen=True):
    """A line through points (x, y); NaN lifts the pen. `rank` says how it looks.

    0 is the line that the plot is about, 1 what it is compared with, 2 the background.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    rank: Literal[0, 1, 2] = 0


class Curves(_Section, frozen=True, kw_only=True):
    """Lines on common axes, with a legend of those that have a name."""

    curves: Sequence[Curve]
    x_name: str = ""
    y_name: str = ""
    is_square: bool = False


class Spans(_Section, frozen=True, kw_only=True):
    """A bar of 0..1 with its interval for each row and each of `series`; None: not defined."""

    series: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Span | None]]]


class Matrix(_Section, frozen=True, kw_only=True):
    """A confusion matrix: counts [true class][predicted class]."""

    labels: Sequence[str]
    counts: Sequence[Sequence[float]]


class Picture(msgspec.Struct, frozen=True):
    """An encoded PNG or JPEG."""

    data: bytes
    caption: str = ""


class Pictures(_Section, frozen=True, kw_only=True):
    """Pictures side by side, `small` ones five in a row.

    Beyond 1 MB a report, the rest is counted.
    """

    pictures: Sequence[Picture]
    small: bool = False


class Fold(_Section, frozen=True, kw_only=True):
    """Sections that are shown when the reader opens them; `title` is what he clicks."""

    sections: Sequence[Section]


Section = (
    Text
    | Table
    | Histogram
    | Ecdf
    | Spreads
    | Timeline
    | Roofline
    | Bars
    | Series
    | Curves
    | Spans
    | Matrix
    | Pictures
    | Fold
)
