"""`edgekit compare`: which of two is faster, with how much certainty."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.atomic import write_file
from edgekit.cli._output import Json, check_written, note, print_json, print_table, progress
from edgekit.errors import CheckFailed, UsageError, require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgekit.profiling.compare.interleaved import Round
    from edgekit.profiling.compare.results import Comparisons, Gate

    _Found = tuple[Comparisons, list[list[Round]]]

_DURATION_S = 10.0


def command(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="Folder NAME.edgekit, or JSON of edgekit profile.")
    ],
    b: Annotated[
        Path | None,
        typer.Argument(
            metavar="[B]", help="The same of what is compared with it.", show_default=False
        ),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Inference engine of both.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of both.")] = None,
    backend_b: Annotated[str | None, typer.Option(help="Inference engine of B only.")] = None,
    threads_b: Annotated[int | None, typer.Option(help="CPU threads of B only.")] = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds to measure both; by default 10.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Draws who begins; by default 0.")] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Compare memory too, in fresh processes.")
    ] = False,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(metavar="LIMIT", help="Exit 1 if it is sure that, e.g., 'p50>+5%'."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare although inputs, or machines, differ.")
    ] = False,
    markdown: Annotated[
        str | None, typer.Option(metavar="FILE.md", help="Write a summary for CI; - is stdout.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page for people.")
    ] = None,
    json: Json = None,
) -> None:
    """Compare two bundles in turns, or two saved profiles: faster, slower or cannot tell."""
    from edgekit.profiling.compare.gates import read_gate

    gates = [read_gate(text) for text in fail_if or []]
    if json == "-" == markdown:
        raise UsageError("`json` and `markdown` both want standard output; name a file for one")
    check_written({"report": report, "json": json, "markdown": markdown}, {"A": a, "B": b})
    if report is not None:
        require("jinja2", "report")
    of_bundles = {
        "backend": backend,
        "threads": threads,
        "backend-b": backend_b,
        "threads-b": threads_b,
        "duration": duration,
        "seed": seed,
        "memory": memory or None,
    }
    result, openings = (
        _saved(a, b, of_bundles, gates, force)
        if _is_saved(a, b)
        else _in_turns(a, b, of_bundles, gates, force)
    )
    reproduce = _line(a, b, of_bundles | {"fail-if": fail_if, "force": force or None})
    _show(result, json, markdown)
    if markdown is not None:
        _write_markdown(result, reproduce, markdown)
    if report is not None:
        from edgekit.profiling.compare.report import comparison_report
        from edgekit.reports import write

        write(comparison_report(result, reproduce, openings), report)
    print_json(result, json)
    if result.fails:
        raise CheckFailed("; ".join(f"{gate.gate}: {gate.message}" for gate in result.fails))


def _is_saved(a: Path, b: Path | None) -> bool:
    """Whether files were given; bundles are folders, and what is not there tells by its name."""
    given = [path for path in (a, b) if path is not None]
    kinds = {path.is_file() or (path.suffix == ".json" and not path.is_dir()) for path in given}
    if len(kinds) > 1:
        raise UsageError(
            f"A and B must be two bundles NAME.edgekit or two files of edgekit profile --json; got "
            f"{a} and {b}"
        )
    return kinds.pop()


def _saved(
    a: Path, b: Path | None, of_bundles: Mapping[str, Any], gates: Sequence[Gate], force: bool
) -> _Found:
    from edgekit.profiling.compare.saved import compare_profiles

    if b is None:
        raise UsageError(f"give a second profile to compare {a} with")
    given = [f"--{name}" for name, value in of_bundles.items() if value is not None]
    if given:
        raise UsageError(
            f"{', '.join(given)}: saved profiles are compared as they are; give two bundles to "
            "measure them"
        )
    return compare_profiles(a, b, gates=gates, force=force), []


def _in_turns(
    a: Path, b: Path | None, given: Mapping[str, Any], gates: Sequence[Gate], force: bool
) -> _Found:
    import cv2

    from edgekit.bundle import read_bundle
    from edgekit.profiling.compare.bundles import Configuration, compare_bundles

    if b is None and given["backend-b"] is None and given["threads-b"] is None:
        raise UsageError(
            f"give a second bundle, or another way to run {a}: --backend-b NAME, --threads-b NUMBER"
        )
    cv2.setNumThreads(1)
    bundle = read_bundle(a)
    one = Configuration(bundle, given["backend"], given["threads"])
    other = Configuration(
        bundle if b is None else read_bundle(b),
        given["backend-b"] or given["backend"],
        given["threads"] if given["threads-b"] is None else given["threads-b"],
    )
    with progress() as show:
        measured = compare_bundles(
            one,
            other,
            duration_s=_DURATION_S if given["duration"] is None else given["duration"],
            gates=gates,
            memory=bool(given["memory"]),
            force=force,
            seed=given["seed"] or 0,
            on_progress=show,
        )
    return measured.result, measured.openings


def _line(a: Path, b: Path | None, given: Mapping[str, Any]) -> str:
    """Return the command line that compares again."""
    words = ["edgekit", "compare", str(a), *([] if b is None else [str(b)])]
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                words += [f"--{name}"] if one is True else [f"--{name}", str(one)]
    return shlex.join(words)


def _show(result: Comparisons, json: str | None, markdown: str | None) -> None:
    """Print tables for people; standard output may be taken by what machines read."""
    from edgekit.profiling.compare import words

    taken = "-" if "-" in (json, markdown) else None
    for comparison in result.comparisons:
        print_table(words.verdict(comparison), words.COLUMNS, words.rows(comparison), taken)
        for line in words.sides(comparison):
            note(line)
    for line in (*words.gate_lines(result), *(f"note: {one}" for one in result.notes)):
        note(line)


def _write_markdown(result: Comparisons, reproduce: str, destination: str) -> None:
    from edgekit.profiling.compare.markdown import comparison_markdown

    text = comparison_markdown(result, reproduce).encode("utf-8", "replace")
    if destination == "-":
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    else:
        write_file(Path(destination), text)
