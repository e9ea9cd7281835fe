"""A model on a source, into sinks, with an account of it: what `edgekit run` does."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from edgekit.errors import DataError, UsageError
from edgekit.runtime.camera import Source, Timeouts, open_camera
from edgekit.runtime.events import Event, FrameDropped, OnEvent
from edgekit.runtime.model import Model
from edgekit.runtime.sinks import Sink, check_pictures, kind_of, open_sink
from edgekit.runtime.statistics import Samples, Summary
from edgekit.runtime.stream import Result, stream_camera


class RunSummary(msgspec.Struct, frozen=True):
    """What a run did; `docs/json.md` describes the fields."""

    bundle: str
    backend: str
    source: str
    frames: int
    dropped: int
    wall_s: float
    cpu_s: float
    fps: float
    cpu_ms_per_frame: float
    age_ms: Summary
    stages_ms: dict[str, Summary]


def run(
    model: Model,
    source: Source,
    sinks: Sequence[str] = (),
    *,
    policy: str | None = None,
    max_frames: int | None = None,
    live_s: float | None = None,
    timeouts: Timeouts | None = None,
    on_event: OnEvent | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> RunSummary:
    """Run `model` on `source` until it ends, `max_frames` are done, or Ctrl-C; write to `sinks`.

    Args:
        model: an opened bundle.
        source: see `open_camera`.
        sinks: see `open_sink`.
        policy: ``every`` or ``latest``; see `stream`.
        max_frames: end after so many results.
        live_s: seconds after which the next result ends a live source, which has no end of its own.
        timeouts: for sources that can hang.
        on_event: told what else happens.
        on_result: told each result, before the sinks get it.

    Raises:
        DataError: the source gave no frame.
        OutputError: a sink cannot be written; the others are closed and readable.
    """
    check_sinks(source, sinks)
    account = _Account(on_event)
    camera = open_camera(source, timeouts)
    with ExitStack() as stack:
        try:
            check_pictures(camera, sinks)
            opened = [_opened(uri, camera.rate_hz, stack) for uri in sinks]
        except BaseException:
            camera.close()
            raise
        results = stream_camera(camera, model, account.event, policy, max_frames, source, timeouts)
        stack.callback(results.close)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        try:
            for result in results:
                if on_result is not None:
                    on_result(result)
                account.result(result, opened)
                if live_s is not None and camera.live and time.perf_counter() - wall_s >= live_s:
                    break
        except KeyboardInterrupt:
            pass  # the usual end of a live run; sinks and camera are closed below
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    if account.ages_ms.count == 0:
        detail = f": {account.last_drop}" if account.last_drop else ""
        raise DataError(f"{camera.description} gave no frame{detail}")
    frames = account.ages_ms.count
    return RunSummary(
        bundle=str(model.bundle.path),
        backend=model.backend_name,
        source=camera.description,
        frames=frames,
        dropped=account.dropped,
        wall_s=wall_s,
        cpu_s=cpu_s,
        fps=frames / wall_s,
        cpu_ms_per_frame=1000 * cpu_s / frames,
        age_ms=account.ages_ms.summary(),
        stages_ms={name: samples.summary() for name, samples in account.stages_ms.items()},
    )


def check_sinks(source: Source, sinks: Sequence[str], *others: str | None) -> None:
    """Raise `UsageError` for an unknown sink, and for one file that is to serve twice.

    Args:
        source: see `open_camera`.
        sinks: see `open_sink`.
        others: further files that will be written.
    """
    for uri in sinks:
        kind_of(uri)
    named = [source] if isinstance(source, str | Path) else []
    paths = [Path(str(p)).resolve() for p in (*named, *sinks, *others) if p not in (None, "-")]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is named twice among source and outputs; it would be lost")


def _opened(uri: str, rate_hz: float | None, stack: ExitStack) -> Sink:
    sink = open_sink(uri, rate_hz)
    stack.callback(sink.close)
    return sink


class _Account:
    """Counts results, drops and times."""

    def __init__(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event
        self.dropped = 0
        self.last_drop = ""
        self.ages_ms = Samples()
        self.stages_ms: dict[str, Samples] = defaultdict(Samples)

    def event(self, event: Event) -> None:
        if isinstance(event, FrameDropped):
            self.dropped += 1
            self.last_drop = event.detail or self.last_drop
        if self._on_event is not None:
            self._on_event(event)

    def result(self, result: Result, sinks: list[Any]) -> None:
        self.ages_ms.add(result.age_ms)
        for stage, spent_ns in result.stages_ns.items():
            self.stages_ms[stage].add(spent_ns / 1e6)
        if sinks:
            start_ns = time.perf_counter_ns()
            for sink in sinks:
                sink.write(result)
            self.stages_ms["sink"].add((time.perf_counter_ns() - start_ns) / 1e6)
