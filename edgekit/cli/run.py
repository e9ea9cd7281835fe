"""`edgekit run`: a bundle on a camera, stream or file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli._output import BundlePath, Json, note, print_json, print_table, progress
from edgekit.errors import UsageError, expect_one_of

if TYPE_CHECKING:
    from edgekit.runtime.run import RunSummary


def command(
    bundle: BundlePath,
    source: Annotated[
        str,
        typer.Option(
            help="0, /dev/video0, rtsp://…, http://…, tcp://…, udp://…, csi://0, "
            "gstreamer:PIPELINE, FILE.mp4, image, folder, "
            "quoted glob, test://640x480@30; of steps: FILE.csv, FILE.npz[::X], - (standard input)."
        ),
    ],
    sink: Annotated[
        list[str] | None,
        typer.Option(help="FILE.jsonl, -, FILE.mp4, FOLDER/, display://; may be repeated."),
    ] = None,
    max_frames: Annotated[int | None, typer.Option(help="End after so many results.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="every (files) or latest (live sources).")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Inference engine.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Take the engine and threads that edgekit tune finds.")
    ] = False,
    open_timeout: Annotated[float, typer.Option(help="Seconds to open the source.")] = 5.0,
    read_timeout: Annotated[float, typer.Option(help="Seconds without a frame.")] = 5.0,
    json: Json = None,
) -> None:
    """Run a bundle on frames; Ctrl-C ends it cleanly."""
    import cv2

    from edgekit.runtime.camera import Timeouts
    from edgekit.runtime.events import Event, FrameDropped, SourceBack, SourceLost
    from edgekit.runtime.feed import POLICIES
    from edgekit.runtime.model import open_model
    from edgekit.runtime.run import check_sinks, run

    if policy is not None:
        expect_one_of("policy", policy, POLICIES)
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"`max_frames` must be at least 1; got {max_frames}")
    sinks = sink or []
    check_sinks(source, sinks, json)
    if "-" in sinks and json == "-":
        raise UsageError("`sink` - and `json` - both want standard output; give one of them a file")
    if auto:
        backend, threads = _tuned(bundle, backend, threads)
    cv2.setNumThreads(1)  # a resize to the model's size gains nothing from threads, and costs CPU

    drops: Counter[str] = Counter()

    def on_event(event: Event) -> None:
        if isinstance(event, FrameDropped):
            drops[event.reason] += 1
        elif isinstance(event, SourceLost):
            note(f"source lost: {event.detail}; trying to open it again")
        elif isinstance(event, SourceBack):
            note(f"source back after {event.lost_ms / 1000:.1f} s")

    with open_model(bundle, backend=backend, threads=threads) as model, progress() as show:
        summary = run(
            model,
            source,
            sinks,
            policy=policy,
            max_frames=max_frames,
            timeouts=Timeouts(open_timeout, read_timeout),
            on_event=on_event,
            on_result=lambda result: show("frames", result.frame_id + 1, max_frames or 0),
        )
    print_table(
        f"{summary.bundle} on {summary.source}",
        ("", "p50", "p90", "p99"),
        _rows(summary),
        "-" if "-" in sinks else json,
    )
    del drops["interrupted"]  # the frame in hand at the end is nobody's worry
    if drops:
        reasons = ", ".join(f"{count} {reason}" for reason, count in drops.items())
        note(f"dropped frames: {reasons}")
    print_json(summary, json)


def _tuned(bundle: Path, backend: str | None, threads: int | None) -> tuple[str, int]:
    """Return the fastest engine and thread count, measured now if that has not been done yet."""
    from edgekit.bundle import read_bundle
    from edgekit.profiling.tune import remembered, tune

    if backend is not None or threads is not None:
        raise UsageError("`auto` chooses backend and threads; leave --backend and --threads out")
    opened = read_bundle(bundle)
    best = remembered(opened)
    if best is None:
        with progress() as show:
            best = tune(opened, show).best
    note(f"--auto: {best.backend}, {best.threads} thread{'s' if best.threads > 1 else ''}")
    return best.backend, best.threads


def _rows(summary: RunSummary) -> list[tuple[str, str, str, str]]:
    rows = [
        ("frames", str(summary.frames), "", ""),
        ("frames per second", f"{summary.fps:.1f}", "", ""),
        ("CPU ms a frame", f"{summary.cpu_ms_per_frame:.2f}", "", ""),
    ]
    for name, times in {"age ms": summary.age_ms, **summary.stages_ms}.items():
        label = name if name.endswith("ms") else f"{name} ms"
        rows.append((label, f"{times.p50:.3f}", f"{times.p90:.3f}", f"{times.p99:.3f}"))
    return rows
