"""`edgekit evaluate`: how good a bundle is on a labelled set."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekit.cli._output import (
    BundlePath,
    Json,
    check_written,
    note,
    print_json,
    print_table,
    progress,
)
from edgekit.errors import InputError, require


def command(
    bundle: BundlePath,
    data: Annotated[
        str, typer.Option(help="Labelled set: image folder, FILE.npz[::X,Y], FILE.csv[::LABELS].")
    ],
    against: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Compare with the source model, or another bundle."),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Inference engine.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page for people.")
    ] = None,
    json: Json = None,
) -> None:
    """Measure a bundle on a labelled set, alone or against its source model or another bundle."""
    if against is not None and not against.exists():
        raise InputError(f"no such model: {against}")
    check_written({"report": report, "json": json}, {"data": data, "against": against})
    if report is not None:
        require("jinja2", "report")
    words = {"data": data, "against": against, "backend": backend, "report": report}
    given = [part for name, word in words.items() if word for part in (f"--{name}", str(word))]
    reproduce = shlex.join(["edgekit", "evaluate", str(bundle), *given])
    with progress() as show:
        result = _evaluate(bundle, data, against, backend, report, reproduce, show)
    print_table(f"{result['task']}, n = {result['n']}", *_table(result), json)
    for remark in result["notes"]:
        note(f"note: {remark}")
    print_json(result, json)


def _evaluate(
    bundle: Path,
    data: str,
    against: Path | None,
    backend: str | None,
    report: Path | None,
    reproduce: str,
    show: Any,
) -> Any:
    """Return an `Evaluation` as JSON values; only a source model needs a process of its own."""
    import msgspec

    from edgekit.bundle import MANIFEST
    from edgekit.data import load_data
    from edgekit.evaluation.evaluate import open_beside
    from edgekit.evaluation.report import run_evaluation
    from edgekit.isolated import run_isolated
    from edgekit.runtime.model import open_model

    if against is not None and not (against / MANIFEST).is_file():
        return run_isolated(
            "edgekit.converters.against:evaluate_against",
            {
                "bundle": str(bundle),
                "data": data,
                "model": str(against),
                "backend": backend,
                "report": None if report is None else str(report),
                "reproduce": reproduce,
            },
            what=f"evaluating against {against}",
            on_progress=show,
        )
    with (
        open_model(bundle, backend=backend) as model,
        open_beside(model, against, backend) as source,
    ):
        found = run_evaluation(model, load_data(data), source, report, reproduce, show)
        return msgspec.to_builtins(found)


def _table(result: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return columns and rows: each metric, its interval, and the same of the source."""
    metrics, intervals = result["metrics"], result["intervals"]
    prefixes = {"": "bundle", "source_": "source", "difference_": "difference"}
    shown = [p for p in prefixes if any(name.startswith(p) for name in intervals)]
    plain = [name for name in intervals if not name.startswith(("source_", "difference_"))]
    rows = []
    for name in plain:
        row = [name]
        for prefix in shown:
            value, ends = metrics[prefix + name], intervals[prefix + name]
            row.append("–" if value is None else f"{value:.4f}")
            row.append("" if ends is None else f"{ends['low']:.4f} … {ends['high']:.4f}")
        rows.append(tuple(row))
    others = [(name, f"{value:.4f}") for name, value in metrics.items() if name not in intervals]
    rows += [(*pair, *[""] * (2 * len(shown) - 1)) for pair in others]
    columns = [column for p in shown for column in (prefixes[p], "95 % interval")]
    return ("", *columns), rows
