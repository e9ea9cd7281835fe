"""The page `docs/supported-models.md`, from the results that were kept."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.zoo import Architecture
from benchmarks.zoo._outcome import ENGINES, LEAST_DB, PRECISIONS, RTX_PACKAGE, Cell, Line
from edgekit.atomic import write_file

_TITLES = {"litert": "LiteRT", "onnxruntime": "ONNX Runtime", "tensorrt_rtx": "TensorRT-RTX"}
_COLUMNS = [(engine, precision) for engine in ENGINES for precision in PRECISIONS]
_NOT_RUN = "not run"


def write_table(page: Path, lines: Sequence[Line], rows: Sequence[Architecture]) -> None:
    """Write the page; of several results of a cell the last counts.

    Args:
        page: the Markdown file, replaced.
        lines: in the order in which they were kept.
        rows: in the order of the table.
    """
    newest = {line.cell: line for line in lines}
    cells = {
        cell: line
        for cell, line in newest.items()
        if cell.architecture in {row.name for row in rows}
    }
    footnotes: dict[str, int] = {}
    text = "\n\n".join(
        [
            "# Supported models",
            _introduction(cells.values()),
            "## Counts",
            _counts(cells, len(rows)),
            "## Parity",
            _PARITY,
            _parity(cells, rows, footnotes),
            "## Why not",
            _footnotes(footnotes),
            "## What was converted",
            _COST,
            _rows(cells, rows),
        ]
    )
    write_file(page, f"{text}\n".encode())


def _introduction(lines: Iterable[Line]) -> str:
    lines = list(lines)
    dates = sorted({line.date for line in lines})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "never"
    known = {(name, value) for line in lines for name, value in line.versions.items()}
    packages = sorted(
        f"{name} {value}" for name, value in known if value != "none" or name == RTX_PACKAGE
    )
    written = (
        "Which architectures convert, to what, and how exactly. This page is written by a run of "
        f"the conformance zoo, last on {when}, with {', '.join(packages)}:"
    )
    return f"""\
{textwrap.fill(written, 100)}

```sh
make zoo
```

Every architecture is built in Keras and converted by `edgekit.convert` to LiteRT and to ONNX, in
fp32, fp16 and int8, each in a process of its own. A run that was stopped goes on where it was.
Results are of one machine, x86-64 without a GPU.

**Weights are random**, nothing is trained. One forward pass over drawn pictures gives every layer
outputs of a usual size, so that all layers matter. A trained network may come out better or worse
in int8: measure yours with `edgekit evaluate`. int8 is calibrated on 128 drawn pictures or smooth
sequences, with the default settings of `edgekit convert` (the largest networks without adaptive
rounding, which would take minutes); other 32 are judged."""


_PARITY = f"""\
Signal to noise in dB against the Keras model, of the worst output; 20 dB more is a tenth of the
error. In brackets where it is below what is asked:

- fp32: {LEAST_DB["fp32"]:g} dB. It differs only by the order of sums, which depth amplifies.
- fp16: {LEAST_DB["fp16"]:g} dB. One rounding to 11 bits is 67 dB; a hundred layers' stay above 40.
- int8: {LEAST_DB["int8"]:g} dB. There a trained MobileNet v1 still gave 94 % of its answers.

LiteRT computes fp16 models in float32, ONNX Runtime in float16. ONNX int8 is the form for TensorRT,
with real outputs. `built` means that TensorRT-RTX made an engine of the ONNX file; without a GPU it
computes nothing. A number after a cell is a line [below](#why-not)."""

_COST = """\
Input sizes are the smallest that an architecture allows or that are sensible. CPU time and memory
are those of the cell that took most, without TensorFlow's import; they depend on the machine."""


def _counts(cells: dict[Cell, Line], rows: int) -> str:
    text = ["| | " + " | ".join(PRECISIONS) + " |", "|---|" + "---|" * len(PRECISIONS)]
    for engine in ENGINES:
        shown = []
        for precision in PRECISIONS:
            column = [
                line.outcome.passes(precision)
                for cell, line in cells.items()
                if (cell.engine, cell.precision) == (engine, precision)
            ]
            missing = f", {rows - len(column)} {_NOT_RUN}" if len(column) < rows else ""
            shown.append(f"{sum(column)} of {rows}{missing}")
        text.append(f"| {_TITLES[engine]} | " + " | ".join(shown) + " |")
    return "\n".join(text)


def _parity(
    cells: dict[Cell, Line], rows: Sequence[Architecture], footnotes: dict[str, int]
) -> str:
    titles = [f"{_TITLES[engine]} {precision}" for engine, precision in _COLUMNS]
    text = ["| | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(_COLUMNS)]
    for row in rows:
        shown = [_shown(cells.get(Cell(row.name, *column)), footnotes) for column in _COLUMNS]
        text.append(f"| {row.name} | " + " | ".join(shown) + " |")
    return "\n".join(text)


def _shown(line: Line | None, footnotes: dict[str, int]) -> str:
    """Return a cell's text; its reasons become footnotes, numbered as they come."""
    if line is None:
        return _NOT_RUN
    outcome = line.outcome
    told = "built" if outcome.parity_db is None else f"{outcome.parity_db:.0f}"
    reasons = []
    if not outcome.passes(line.cell.precision):
        told = "no" if outcome.parity_db is None else f"({outcome.parity_db:.1f})"
        reasons = [outcome.reason or "what the layers round adds up to more than is asked"]
    reasons += [f"in part float: {one}" for one in outcome.fallbacks]
    numbers = [str(footnotes.setdefault(one, len(footnotes) + 1)) for one in reasons]
    return " ".join([told, *(f"<sup>{number}</sup>" for number in numbers)])


def _footnotes(footnotes: dict[str, int]) -> str:
    if not footnotes:
        return "Everything converts."
    return "\n".join(f"{number}. {_plain(reason)}" for reason, number in footnotes.items())


def _plain(reason: str) -> str:
    """Return a message so that Markdown shows it as it is."""
    return " ".join(reason.replace("<", "&lt;").replace("*", r"\*").replace("_", r"\_").split())


def _rows(cells: dict[Cell, Line], rows: Sequence[Architecture]) -> str:
    text = ["| | form | CPU time, s | memory, MB |", "|---|---|---:|---:|"]
    for row in rows:
        own = [line.outcome for cell, line in cells.items() if cell.architecture == row.name]
        most = [
            f"{max(one.cpu_seconds for one in own):.0f}" if own else "",
            f"{max(one.peak_rss_mb for one in own):.0f}" if own else "",
        ]
        form = row.note if row.rounds else f"{row.note}; int8 without adaptive rounding"
        text.append(f"| {row.name} | {form} | " + " | ".join(most) + " |")
    return "\n".join(text)
