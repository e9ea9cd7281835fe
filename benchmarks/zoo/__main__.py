"""`python -m benchmarks.zoo [NAME ...]`: convert every architecture, judge it, write the table.

Results are kept, so a run that was stopped goes on where it was. Each cell has a process of its
own: what crashes or hangs there is a result like any other. TensorRT-RTX is taken from
`build/tensorrt-rtx`, which `make zoo` fills; without it its cells are left open.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path

from benchmarks._subjects import ROOT
from benchmarks.zoo import architectures
from benchmarks.zoo._cell import judge
from benchmarks.zoo._engine import build
from benchmarks.zoo._outcome import (
    ENGINES,
    LEAST_DB,
    PRECISIONS,
    RTX_PACKAGE,
    Cell,
    Line,
    Outcome,
    append_line,
    read_lines,
    versions,
)
from benchmarks.zoo._process import in_child
from benchmarks.zoo._table import write_table

RESULTS = ROOT / "benchmarks" / "results" / "zoo.jsonl"
PAGE = ROOT / "docs" / "supported-models.md"
_FORMATS = {"litert": ("litert",), "onnx": ("onnxruntime", "tensorrt_rtx")}
"""What runs or builds a format; the model is converted once for all of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells that `arguments` ask for and have no result yet; then write the table."""
    options = _parser().parse_args(arguments)
    rtx = _version_of_rtx(options.tensorrt_rtx)
    here, lines = versions(rtx), read_lines(options.results)
    known = {line.cell for line in lines if line.holds_with(here)}
    engines = [one for one in ENGINES if rtx is not None or one != "tensorrt_rtx"]
    for precision in options.precisions:
        for format_, runners in _FORMATS.items():
            for name in options.names or architectures():
                cells = [Cell(name, runner, precision) for runner in runners if runner in engines]
                if not options.again and all(cell in known for cell in cells):
                    continue
                for cell, outcome in _outcomes(cells, format_, options):
                    today = datetime.date.today().isoformat()
                    append_line(options.results, Line(cell, here, today, outcome))
                    print(_told(cell, outcome), flush=True)
    write_table(options.page, read_lines(options.results), list(architectures().values()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        choices=[[], *architectures()],
        help=f"one or more of: {'; '.join(architectures())}. By default all",
    )
    parser.add_argument(
        "--precision", dest="precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS
    )
    parser.add_argument("--again", action="store_true", help="also what has a result")
    parser.add_argument("--limit-s", type=float, default=900, help="of one cell; 900")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table goes")
    parser.add_argument(
        "--tensorrt-rtx",
        type=Path,
        default=ROOT / "build" / "tensorrt-rtx",
        metavar="FOLDER",
        help=f"what `pip install --target FOLDER {RTX_PACKAGE}` made",
    )
    return parser


def _version_of_rtx(folder: Path) -> str | None:
    found = {
        one.metadata["Name"].replace("_", "-"): one.version
        for one in distributions(path=[str(folder)])
    }
    return found.get(RTX_PACKAGE)


def _outcomes(
    cells: list[Cell], format_: str, options: argparse.Namespace
) -> Iterator[tuple[Cell, Outcome]]:
    """Yield each cell with what became of it: the conversion first, then who builds from it."""
    with tempfile.TemporaryDirectory(prefix="edgekit-zoo-") as folder:
        first, *builders = cells
        out = Path(folder) / "model.edgekit"
        asked = (architectures()[first.architecture], format_, first.precision, out)
        converted = in_child(judge, asked, options.limit_s)
        yield first, converted
        for cell in builders:
            if out.is_dir():
                asked_for = (out / "model.onnx", options.tensorrt_rtx)
                yield cell, in_child(build, asked_for, options.limit_s)
            else:
                yield cell, Outcome(completed=False, reason=converted.reason)


def _told(cell: Cell, outcome: Outcome) -> str:
    parity = "" if outcome.parity_db is None else f" {outcome.parity_db:.1f} dB"
    below = f"{LEAST_DB[cell.precision]:g} dB are asked"
    passes = outcome.passes(cell.precision)
    verdict = "pass" if passes else f"FAIL: {outcome.reason or below}"
    return (
        f"{cell.architecture}, {cell.engine} {cell.precision}:{parity} {verdict} "
        f"({outcome.cpu_seconds:.0f} s CPU, {outcome.peak_rss_mb:.0f} MB)"
    )


if __name__ == "__main__":
    sys.exit(main())
