"""One self-contained HTML page, for `convert`, `evaluate` and `profile` alike.

A `Report` says what to show (`sections.py`), `views.py` turns it into text, tables and plots, and
how it looks stands in `report.html.j2`. The page loads nothing, follows the reader's light or dark
theme, and fits a phone and a printer. The one script that it may run sorts tables (`sort.js`);
without it they stay as they are.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from edgekit import atomic, errors
from edgekit.reports import axis
from edgekit.reports.sections import (
    Bars,
    Cell,
    Curve,
    Curves,
    Ecdf,
    Fact,
    Fold,
    Histogram,
    Matrix,
    Panel,
    Picture,
    Pictures,
    Roofline,
    RoofPoint,
    Section,
    Series,
    Spans,
    Spread,
    Spreads,
    Table,
    Text,
    Timeline,
    Trace,
)
from edgekit.reports.views import Views

__all__ = [
    "Bars",
    "Cell",
    "Curve",
    "Curves",
    "Ecdf",
    "Fact",
    "Fold",
    "Histogram",
    "Matrix",
    "Panel",
    "Picture",
    "Pictures",
    "Report",
    "RoofPoint",
    "Roofline",
    "Section",
    "Series",
    "Spans",
    "Spread",
    "Spreads",
    "Table",
    "Text",
    "Timeline",
    "Trace",
    "Verdict",
    "render",
    "write",
]

Verdict = Literal["pass", "fail", "warn", "info"]
_HERE = Path(__file__).parent


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a page shows, from top to bottom.

    Attributes:
        title: what was done ("Conversion of mobilenet.keras").
        subtitle: one line more: bundle, target, precision.
        verdict: decides colour and word of the first line.
        verdict_text: one sentence that says why.
        reasons: what the verdict rests on, a line each.
        facts: large figures.
        sections: all else.
        reproduce: the command line that does it again; "" leaves it out.
        environment: machine and versions.
    """

    title: str
    subtitle: str = ""
    verdict: Verdict
    verdict_text: str
    reasons: tuple[str, ...] = ()
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
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = axis.number
    views = Views().of(report.sections)
    script = _sorting_script() if any(view.is_sortable for view in views) else ""
    page: str = environment.get_template("report.html.j2").render(
        report=report, views=views, script=script, script_hash=_hash(script)
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


def _sorting_script() -> str:
    return (_HERE / "sort.js").read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """Return what a Content-Security-Policy calls this script, and no other."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return "sha256-" + b64encode(digest).decode("ascii")
