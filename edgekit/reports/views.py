"""What the template draws of each section: text, SVG, a table, pictures."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edgekit.errors import UsageError
from edgekit.reports import axis, plots
from edgekit.reports.confusion import MOST_CELLS, Confusion, heat_map
from edgekit.reports.curves import plot_curves
from edgekit.reports.ecdf import plot_ecdf
from edgekit.reports.roofline import plot_roofline
from edgekit.reports.sections import (
    Bars,
    Curves,
    Ecdf,
    Fold,
    Histogram,
    Matrix,
    Picture,
    Pictures,
    Roofline,
    Section,
    Series,
    Spans,
    Spreads,
    Table,
    Text,
    Timeline,
)
from edgekit.reports.spans import plot_spans
from edgekit.reports.spreads import plot_spreads
from edgekit.reports.svg import Drawing
from edgekit.reports.timeline import plot_timeline

_MOST_ROWS = 500
# Shorter tables are taken in at a glance; longer ones than _MOST_WHOLE scroll in a window.
_LEAST_SORTABLE, _MOST_WHOLE = 5, 24
_LEAST_WIDE = 8
# Base64 makes 1.33 MB of it: the page stays under 2 MB.
_MOST_PICTURE_BYTES = 1_000_000


class Grid(NamedTuple):
    """A table as text, a list each column.

    Attributes:
        columns: their names.
        numeric: which are set right.
        sorts: "descending" for the column that the rows are sorted by, else "".
        rows: (text, bar 0..1 or None) each cell.
        is_sortable: whether readers may sort it.
        style: classes of the box around it: ``tall``, ``wide``.
    """

    columns: Sequence[str]
    numeric: list[bool]
    sorts: list[str]
    rows: list[tuple[tuple[str, float | None], ...]]
    is_sortable: bool
    style: str


class View(NamedTuple):
    """A section as the template draws it: whichever parts it has, in this order."""

    title: str
    paragraphs: Sequence[str] = ()
    svg: str = ""
    labels: Sequence[str] = ()
    matrix: Sequence[Mapping[str, Any]] = ()
    table: Grid | None = None
    pictures: Sequence[tuple[str, str]] = ()
    small: bool = False
    folded: Sequence[View] = ()
    notes: Sequence[str] = ()

    @property
    def is_sortable(self) -> bool:
        """Whether any table of it can be sorted."""
        own = self.table is not None and self.table.is_sortable
        return own or any(view.is_sortable for view in self.folded)


class Views:
    """Makes the views of one page, whose pictures have a common limit."""

    def __init__(self) -> None:
        self._bytes_left = _MOST_PICTURE_BYTES

    def of(self, sections: Sequence[Section]) -> list[View]:
        """Return the view of each section, its note last.

        Raises:
            UsageError: a picture that is neither PNG nor JPEG.
        """
        views = ((self._view(section), section.note) for section in sections)
        return [
            view._replace(notes=[*view.notes, note] if note else view.notes) for view, note in views
        ]

    def _view(self, section: Section) -> View:
        match section:
            case Text(title=title, text=text):
                return View(title, paragraphs=text.strip().split("\n\n"))
            case Table():
                return _table(section)
            case Matrix():
                return _matrix(section)
            case Pictures():
                return self._pictures(section)
            case Fold(title=title, sections=sections):
                return View(title, folded=self.of(sections))
        drawing = _drawing(section)
        return View(section.title, svg=drawing.svg, notes=drawing.notes)

    def _pictures(self, section: Pictures) -> View:
        """Return the view with the pictures that there is room for."""
        shown = []
        for picture in section.pictures:
            kind = _image_type(picture)
            if len(picture.data) > self._bytes_left:
                break
            self._bytes_left -= len(picture.data)
            encoded = b64encode(picture.data).decode("ascii")
            shown.append((f"data:{kind};base64,{encoded}", picture.caption))
        rest = len(section.pictures) - len(shown)
        notes = [f"{rest:,} more pictures are left out to keep this page small."] if rest else []
        return View(section.title, pictures=shown, small=section.small, notes=notes)


def _drawing(
    section: Histogram | Ecdf | Spreads | Timeline | Roofline | Bars | Series | Curves | Spans,
) -> Drawing:
    match section:
        case Histogram(title=title, values=values, unit=unit, marks=marks):
            return plots.histogram(title, values, unit, marks, section.intervals)
        case Ecdf(title=title, values=values, unit=unit):
            return plot_ecdf(title, values, unit, section.intervals)
        case Spreads():
            rows = [(s.name, (s.p50, s.p90, s.p99), s.interval) for s in section.spreads]
            return plot_spreads(section.title, rows, section.unit)
        case Timeline(title=title, bands=bands, marks=marks):
            panels = [
                (p.title, p.unit, [(t.name, t.x, t.y) for t in p.traces], p.is_dots)
                for p in section.panels
            ]
            return plot_timeline(title, panels, section.index, bands, marks)
        case Roofline():
            points = [
                (p.name, p.intensity, p.gflops, p.share, p.is_memory_bound, p.label)
                for p in section.points
            ]
            return plot_roofline(section.title, section.peak_gflops, section.bandwidth_gb_s, points)
        case Bars(title=title, stages=stages, unit=unit):
            return plots.waterfall(title, stages, unit)
        case Series(title=title, values=values, unit=unit, index=index, marks=marks):
            whole = section.is_whole
            return plots.series(title, values, unit, index, section.names, marks, whole)
        case Curves(title=title, x_name=x_name, y_name=y_name):
            lines = [(c.name, c.x, c.y, c.rank) for c in section.curves]
            return plot_curves(title, lines, x_name, y_name, section.is_square)
        case Spans(title=title):
            return plot_spans(title, section.series, section.rows)


def _table(section: Table) -> View:
    shown = section.rows[:_MOST_ROWS]
    columns = [[row[i] for row in shown] for i in range(len(section.columns))]
    texts = [
        axis.column(column, section.decimals.get(name))
        for name, column in zip(section.columns, columns, strict=True)
    ]
    bars = [
        axis.shares(column) if name in section.bars else [None] * len(column)
        for name, column in zip(section.columns, columns, strict=True)
    ]
    cells = [
        list(zip(column, lengths, strict=True))
        for (column, _), lengths in zip(texts, bars, strict=True)
    ]
    rest = len(section.rows) - len(shown)
    grid = Grid(
        section.columns,
        [numeric for _, numeric in texts],
        ["descending" if name and name == section.sorted_by else "" for name in section.columns],
        list(zip(*cells, strict=True)),
        len(shown) >= _LEAST_SORTABLE,
        " tall" * (len(shown) > _MOST_WHOLE) + " wide" * (len(columns) >= _LEAST_WIDE),
    )
    return View(
        section.title, table=grid, notes=[f"{rest:,} more rows are left out."] if rest else []
    )


def _matrix(section: Matrix) -> View:
    confusion = Confusion.of(section.labels, section.counts)
    if not confusion.labels:
        return View(section.title, notes=["No classes to show."])
    if len(confusion.labels) <= MOST_CELLS:
        notes = ["Rows are true classes, columns predicted ones."]
        return View(section.title, labels=confusion.labels, matrix=confusion.cells(), notes=notes)
    drawing = heat_map(section.title, confusion.shares)
    columns = ("true class", "predicted", "count", "% of true class")
    table = Table(title=section.title, columns=columns, rows=confusion.most_frequent())
    return _table(table)._replace(svg=drawing.svg, notes=drawing.notes)


def _image_type(picture: Picture) -> str:
    for start, kind in ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg")):
        if picture.data.startswith(start):
            return kind
    raise UsageError(
        f"`data` of picture {picture.caption!r} must be an encoded PNG or JPEG; it starts with "
        f"{picture.data[:4]!r}: encode pixels with cv2.imencode('.png', pixels)"
    )
