"""Frames of a source, through the whole runtime: how old a frame is at its result."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import SourceError, UsageError
from edgekit.profiling.recording import Recording, Run
from edgekit.profiling.scenarios import Work
from edgekit.runtime.camera import without_secrets
from edgekit.runtime.inlets import Inlets, Stop
from edgekit.runtime.run import run
from edgekit.runtime.stream import Result

PERCENTILE = 99
STAGES = ("capture", "preprocess", "infer", "postprocess")

_SILENT_S = 30.0
"""A live source that gives nothing for so long is not waited for, as `edgekit run` would."""


def measure(work: Work, recording: Recording) -> None:
    """Run `work.source` as `edgekit run` does.

    Raises:
        UsageError: there is no source.
        SourceError: a live one fell silent.
        KeyboardInterrupt: a signal came; what was measured by then is no measurement.
    """
    if work.source is None:
        raise UsageError("scenario camera needs `source`: frames to measure on, like test://")

    stop = Stop()
    last_ns, is_silent = work.clock_ns(), False

    def record(result: Result) -> None:
        nonlocal last_ns
        last_ns = work.clock_ns()
        stages_ns = [result.stages_ns[name] for name in STAGES]
        latency_ns = sum(stages_ns[1:])
        age_ns = int(1e6 * result.age_ms)
        recording.add(Run(last_ns - latency_ns, stages_ns, latency_ns, age_ns=age_ns))
        work.record_gpu(recording)
        work.on_run(recording.count)

    def watch(inlets: Inlets) -> None:
        nonlocal is_silent
        is_live = any(inlet.camera.live for inlet in inlets.inlets)
        if is_live and work.clock_ns() - last_ns > 1e9 * _SILENT_S:
            is_silent = stop.is_asked = True

    try:
        summary = run(
            work.model,
            work.source,
            work.sinks,
            max_frames=work.until.runs,
            live_s=work.until.seconds,
            on_result=record,
            on_turn=watch,
            stop=stop,
        )
        if stop.is_asked:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        if not is_silent:
            raise
        name = work.source if isinstance(work.source, str | Path | int) else "the source"
        raise SourceError(
            f"{without_secrets(str(name))} gave nothing for {_SILENT_S:g} s after "
            f"{recording.count} frames, so there is no measurement; look at the source, then "
            "measure again"
        ) from None
    recording.wall_s = summary.wall_s
    recording.share_cpu(int(1e9 * summary.cpu_s))
    # What was in hand at the end is no frame that the model was too slow for.
    recording.drops = {why: n for why, n in summary.drops.items() if why != "interrupted"}
    recording.others_ms = {
        name: times for name, times in summary.stages_ms.items() if name not in STAGES
    }
