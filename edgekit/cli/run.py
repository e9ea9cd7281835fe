"""`edgekit run`: a bundle on a camera, stream or file."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli._output import BundlePath, Json, note, print_json, print_table, progress
from edgekit.errors import DataError, OutputError, UsageError

if TYPE_CHECKING:
    from edgekit.runtime.events import Event
    from edgekit.runtime.run import RunSummary

_WORDS = {
    "out_of_order": "out of order",
    "every_nth": "every nth",
    "rate_limit": "rate limit",
    "outside_roi": "outside the region",
}


def command(
    bundle: BundlePath,
    source: Annotated[
        list[str],
        typer.Option(
            help="0, /dev/video0, rtsp://…, http://…, tcp://…, udp://…, csi://0, "
            "gstreamer:PIPELINE, FILE.mp4, image, folder, "
            "quoted glob, test://640x480@30; of steps: FILE.csv, FILE.npz[::X], "
            "- (standard input). May be repeated."
        ),
    ],
    sink: Annotated[
        list[str] | None,
        typer.Option(help="FILE.jsonl, -, FILE.mp4, FOLDER/, display://; may be repeated."),
    ] = None,
    max_frames: Annotated[int | None, typer.Option(help="End after so many results.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="every (files), latest (live sources) or bounded:N.")
    ] = None,
    max_age: Annotated[
        str | None, typer.Option(metavar="TIME", help="Age budget of a result, like 100ms.")
    ] = None,
    late: Annotated[str, typer.Option(help="What becomes of older ones: mark or drop.")] = "mark",
    max_rate: Annotated[
        float | None, typer.Option(help="Frames a second of each source, at most.")
    ] = None,
    every_nth: Annotated[int, typer.Option(help="Take one of so many frames.")] = 1,
    roi: Annotated[
        str | None, typer.Option(metavar="X,Y,W,H", help="What the model sees, in pixels.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Inference engine.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Take the engine and threads that edgekit tune finds.")
    ] = False,
    preprocess_on: Annotated[
        str, typer.Option(metavar="WHERE", help="auto, cpu, or gpu: by TensorRT's GPU, or fail.")
    ] = "auto",
    open_timeout: Annotated[float, typer.Option(help="Seconds to open the source.")] = 5.0,
    read_timeout: Annotated[float, typer.Option(help="Seconds without a frame.")] = 5.0,
    watchdog: Annotated[
        bool, typer.Option("--watchdog", help="Tell systemd that it is alive (Type=notify).")
    ] = False,
    json: Json = None,
) -> None:
    """Run a bundle on frames; Ctrl-C ends it cleanly."""
    import cv2

    from edgekit.runtime.camera import Timeouts
    from edgekit.runtime.model import open_model
    from edgekit.runtime.notify import Watchdog
    from edgekit.runtime.options import StreamOptions, parse_age_ms, parse_region
    from edgekit.runtime.run import check_sinks, run
    from edgekit.runtime.stream import check_max_frames

    options = StreamOptions(
        policy=policy,
        timeouts=Timeouts(open_timeout, read_timeout),
        every_nth=every_nth,
        max_rate_hz=max_rate,
        max_age_ms=None if max_age is None else parse_age_ms(max_age),
        late=late,  # type: ignore[arg-type]
        roi=None if roi is None else parse_region(roi),
    )
    check_max_frames(max_frames)
    sinks = sink or []
    check_sinks(source, sinks, json)
    if "-" in sinks and json == "-":
        raise UsageError("`sink` - and `json` - both want standard output; give one of them a file")
    if auto:
        backend, threads = _tuned(bundle, backend, threads)
    cv2.setNumThreads(1)  # a resize to the model's size gains nothing from threads, and costs CPU

    with ExitStack() as stack:
        told = stack.enter_context(Watchdog()) if watchdog else None
        opened = open_model(
            bundle,
            backend=backend,
            threads=threads,
            preprocess_on=preprocess_on,  # type: ignore[arg-type]
        )
        model = stack.enter_context(opened)
        show = stack.enter_context(progress())
        count = itertools.count(1)
        summary = run(
            model,
            source,
            sinks,
            options=options,
            max_frames=max_frames,
            on_event=_tell,
            on_turn=None if told is None else told.turn,
            on_result=lambda result: show("frames", next(count), max_frames or 0),
        )
    print_table(
        f"{summary.bundle} on {summary.source}",
        ("", "p50", "p90", "p99"),
        _rows(summary),
        "-" if "-" in sinks else json,
    )
    print_json(summary, json)
    failed = [f"{sink.sink}: {sink.error}" for sink in summary.sinks if sink.error]
    if failed:
        raise OutputError(f"not all results were kept: {'; '.join(failed)}")
    failed = [source.error for source in summary.sources if source.error]
    if failed:
        raise DataError(f"not all sources were read to their end: {'; '.join(failed)}")


def _tell(event: Event) -> None:
    from edgekit.runtime.events import Adapted, SinkLost, SourceBack, SourceFailed, SourceLost

    if isinstance(event, SourceLost):
        note(f"source lost: {event.detail}; trying to open it again")
    elif isinstance(event, SourceBack):
        note(f"source {event.source} back after {event.lost_ms / 1000:.1f} s")
    elif isinstance(event, SourceFailed):
        note(f"source {event.source} ended: {event.detail}; the others go on")
    elif isinstance(event, SinkLost):
        note(f"sink {event.sink} closed: {event.detail}; the others go on")
    elif isinstance(event, Adapted):
        note(f"{event.source}: {event.detail}")


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
        ("frames captured", str(summary.captured), "", ""),
        ("frames delivered", str(summary.frames), "", ""),
        *((f"dropped: {_WORDS.get(why, why)}", str(n), "", "") for why, n in summary.drops.items()),
        ("frames per second", f"{summary.fps:.1f}", "", ""),
        ("CPU ms a frame", f"{summary.cpu_ms_per_frame:.2f}", "", ""),
    ]
    if summary.late:
        rows.insert(2, ("delivered late", str(summary.late), "", ""))
    if len(summary.sources) > 1:
        rows += [(f"from {s.source}", str(s.delivered), "", "") for s in summary.sources]
    rows += [(f"lost by {s.sink}", str(s.dropped), "", "") for s in summary.sinks if s.dropped]
    for name, times in {"age ms": summary.age_ms, **summary.stages_ms}.items():
        label = name if name.endswith("ms") else f"{name} ms"
        rows.append((label, f"{times.p50:.3f}", f"{times.p90:.3f}", f"{times.p99:.3f}"))
    return rows
