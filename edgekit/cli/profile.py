"""`edgekit profile`: how fast a bundle is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
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
from edgekit.errors import UsageError


def command(
    bundle: BundlePath,
    threads: Annotated[
        str | None, typer.Option(help="Numbers of CPU threads to try: 1,2,4.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Inference engine.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Measure on these frames, capture included.")
    ] = None,
    sink: Annotated[
        list[str] | None, typer.Option(help="With --source: measure sinks too.")
    ] = None,
    duration: Annotated[
        float, typer.Option(help="Seconds to measure each; files to their end.")
    ] = 3.0,
    runs: Annotated[int | None, typer.Option(help="Measure so many frames instead.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page for people.")
    ] = None,
    json: Json = None,
) -> None:
    """Measure latency: warm-up until steady, then percentiles, stages, CPU time and memory."""
    import cv2

    from edgekit.bundle import read_bundle
    from edgekit.profiling.latency import profile

    cv2.setNumThreads(1)
    check_written({"report": report, "json": json}, {"source": source})
    opened = read_bundle(bundle)
    with progress() as on_progress:
        measured = profile(
            opened,
            backend=backend,
            threads=None if threads is None else _numbers(threads),
            source=source,
            sinks=sink or [],
            duration_s=duration,
            runs=runs,
            on_progress=on_progress,
        )
    rows = [
        (
            f"{p.backend}, {p.precision}, {p.threads} thread{'s' if p.threads > 1 else ''}",
            *(f"{value:.3f}" for value in (p.latency_ms.p50, p.latency_ms.p90, p.latency_ms.p99)),
            f"{p.cpu_ms:.3f}",
            f"{p.throughput_fps:.0f}",
            f"{p.peak_rss_mb:.0f}",
            str(p.runs),
        )
        for p in measured.profiles
    ]
    columns = ("", "p50 ms", "p90 ms", "p99 ms", "CPU ms", "per s", "peak MB", "runs")
    print_table(f"latency of {bundle}", columns, rows, json)
    if source is None and opened.manifest.preprocess.resize == "tile":
        note("note: measured on one tile; --source measures whole frames")
    for p in measured.profiles:
        if not p.steady:
            note(f"warning: latency with {p.threads} threads was not steady after 10 s of warm-up")
    if report is not None:
        from edgekit.profiling.report import profile_report
        from edgekit.reports import write

        write(profile_report(measured), report)
    result: dict[str, Any] = msgspec.to_builtins(measured)
    for entry in result["profiles"]:
        del entry["samples_ms"], entry["starts_s"]
    print_json(result, json)


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UsageError(f"`threads` must look like 1 or 1,2,4; got {text!r}")
    return numbers
