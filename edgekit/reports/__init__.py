"""One self-contained HTML page, for `convert`, `evaluate` and `profile` alike.

A `Report` says what to show; how it looks stands in `report.html.j2`. The page loads nothing, runs
no script, follows the reader's light or dark theme, and fits a phone and a printer.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from edgekit import atomic, errors
from edgekit.errors import UsageError
from edgekit.reports import axis, plots
from edgekit.reports.confusion import MOST_CELLS, Confusion, heat_map
from edgekit.reports.curves import plot_curves
from edgekit.reports.spans import Span, plot_spans
from edgekit.reports.svg import Drawing

Verdict = Literal["pass", "fail", "warn", "info"]
Cell = str | int | float | bool | None

_MOST_ROWS = 500
# Base64 makes 1.33 MB of it: the page stays under 2 MB.
_MOST_PICTURE_BYTES = 1_000_000


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
    """Rows of cells; columns of numbers are set right. From 500 rows on, the rest is counted."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Histogram(_Section, frozen=True, kw_only=True):
    """How often `values` occur; `marks` (name: value) are lines, such as p50 and p99."""

    values: Sequence[float]
    unit: str = ""
    marks: Mapping[str, float] = {}


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


Section = Text | Table | Histogram | Bars | Series | Curves | Spans | Matrix | Pictures


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a page shows, from top to bottom.

    Attributes:
        title: what was done ("Conversion of mobilenet.keras").
        subtitle: one line more: bundle, target, precision.
        verdict: decides colour and word of the first line.
        verdict_text: one sentence that says why.
        facts: large figures.
        sections: all else.
        reproduce: the command line that does it again; "" leaves it out.
        environment: machine and versions.
    """

    title: str
    subtitle: str = ""
    verdict: Verdict
    verdict_text: str
    facts: tuple[Fact, ...] = ()
    sections: tuple[Section, ...] = ()
    reproduce: str = ""
    environment: Mapping[str, str] = {}


def render(report: Report) -> str:
    """Return `report` as one HTML page that can be encoded as UTF-8.

    >>> page = render(Report(title="Latency", verdict="info", verdict_text="Steady."))

    Raises:
        MissingPackage: jinja2 is not installed.
        UsageError: a picture that is neither PNG nor JPEG.
    """
    jinja2 = errors.require("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = axis.number
    page: str = environment.get_template("report.html.j2").render(
        report=report, views=list(_views(report.sections))
    )
    # File names may hold bytes that are not UTF-8, as lone surrogates.
    return page.encode("utf-8", "replace").decode("utf-8")


def write(report: Report, path: Path) -> None:
    """Write `report` to `path`, whole or not at all.

    Raises:
        OutputError: the place cannot be written.
        MissingPackage, UsageError: as `render`.
    """
    atomic.write_file(path, render(report).encode("utf-8"))


class _Table(NamedTuple):
    """A table as text; `numeric` tells which columns are set right."""

    columns: Sequence[str]
    numeric: list[bool]
    rows: list[tuple[str, ...]]


class _View(NamedTuple):
    """A section as the template draws it: whichever parts it has, in this order."""

    title: str
    paragraphs: Sequence[str] = ()
    svg: str = ""
    labels: Sequence[str] = ()
    matrix: Sequence[Mapping[str, Any]] = ()
    table: _Table | None = None
    pictures: Sequence[tuple[str, str]] = ()
    small: bool = False
    notes: Sequence[str] = ()


def _views(sections: Sequence[Section]) -> Iterator[_View]:
    bytes_left = _MOST_PICTURE_BYTES
    for section in sections:
        if isinstance(section, Pictures):
            view, bytes_left = _pictures(section, bytes_left)
        else:
            view = _view(section)
        yield view._replace(notes=[*view.notes, section.note] if section.note else view.notes)


def _view(
    section: Text | Table | Histogram | Bars | Series | Curves | Spans | Matrix,
) -> _View:
    """Return all of `section` but its note."""
    match section:
        case Text(title=title, text=text):
            return _View(title, paragraphs=text.strip().split("\n\n"))
        case Table(title=title):
            return _table(title, section.columns, section.rows)
        case Histogram(title=title, values=values, unit=unit, marks=marks):
            return _drawn(title, plots.histogram(title, values, unit, marks))
        case Bars(title=title, stages=stages, unit=unit):
            return _drawn(title, plots.waterfall(title, stages, unit))
        case Series(title=title, values=values, unit=unit, index=index, marks=marks):
            whole = section.is_whole
            drawing = plots.series(title, values, unit, index, section.names, marks, whole)
            return _drawn(title, drawing)
        case Curves(title=title, x_name=x_name, y_name=y_name):
            lines = [(c.name, c.x, c.y, c.rank) for c in section.curves]
            return _drawn(title, plot_curves(title, lines, x_name, y_name, section.is_square))
        case Spans(title=title):
            return _drawn(title, plot_spans(title, section.series, section.rows))
        case Matrix():
            return _matrix(section)


def _drawn(title: str, drawing: Drawing) -> _View:
    return _View(title, svg=drawing.svg, notes=drawing.notes)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> _View:
    shown = rows[:_MOST_ROWS]
    texts = [axis.column([row[i] for row in shown]) for i in range(len(columns))]
    cells = zip(*(column for column, _ in texts), strict=True)
    notes = (
        [f"{len(rows) - _MOST_ROWS:,} more rows are left out."] if len(rows) > _MOST_ROWS else []
    )
    table = _Table(columns, [numeric for _, numeric in texts], list(cells))
    return _View(title, table=table, notes=notes)


def _matrix(section: Matrix) -> _View:
    confusion = Confusion.of(section.labels, section.counts)
    if not confusion.labels:
        return _View(section.title, notes=["No classes to show."])
    if len(confusion.labels) <= MOST_CELLS:
        notes = ["Rows are true classes, columns predicted ones."]
        return _View(section.title, labels=confusion.labels, matrix=confusion.cells(), notes=notes)
    drawing = heat_map(section.title, confusion.shares)
    columns = ("true class", "predicted", "count", "% of true class")
    return _table(section.title, columns, confusion.most_frequent())._replace(
        svg=drawing.svg, notes=drawing.notes
    )


def _pictures(section: Pictures, bytes_left: int) -> tuple[_View, int]:
    """Return the view with the pictures that `bytes_left` has room for, and what is left then."""
    shown = []
    for picture in section.pictures:
        kind = _image_type(picture)
        if len(picture.data) > bytes_left:
            break
        bytes_left -= len(picture.data)
        encoded = b64encode(picture.data).decode("ascii")
        shown.append((f"data:{kind};base64,{encoded}", picture.caption))
    rest = len(section.pictures) - len(shown)
    notes = [f"{rest:,} more pictures are left out to keep this page small."] if rest else []
    view = _View(section.title, pictures=shown, small=section.small, notes=notes)
    return view, bytes_left


def _image_type(picture: Picture) -> str:
    for start, kind in ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg")):
        if picture.data.startswith(start):
            return kind
    raise UsageError(
        f"`data` of picture {picture.caption!r} must be an encoded PNG or JPEG; it starts with "
        f"{picture.data[:4]!r}: encode pixels with cv2.imencode('.png', pixels)"
    )
