"""Frames of a source, through the whole runtime: how old a frame is at its result."""

from __future__ import annotations

from edgekit.errors import UsageError
from edgekit.profiling.recording import Recording, Run
from edgekit.profiling.scenarios import Work
from edgekit.runtime.inlets import Stop
from edgekit.runtime.run import run
from edgekit.runtime.stream import Result

PERCENTILE = 99
STAGES = ("capture", "preprocess", "infer", "postprocess")


def measure(work: Work, recording: Recording) -> None:
    """Run `work.source` as `edgekit run` does.

    Raises:
        UsageError: there is no source.
        KeyboardInterrupt: a signal came; what was measured by then is no measurement.
    """
    if work.source is None:
        raise UsageError("scenario camera needs `source`: frames to measure on, like test://")

    def record(result: Result) -> None:
        stages_ns = [result.stages_ns[name] for name in STAGES]
        latency_ns = sum(stages_ns[1:])
        age_ns = int(1e6 * result.age_ms)
        recording.add(Run(work.clock_ns() - latency_ns, stages_ns, latency_ns, age_ns=age_ns))
        work.on_run(recording.count)

    stop = Stop()
    summary = run(
        work.model,
        work.source,
        work.sinks,
        max_frames=work.until.runs,
        live_s=work.until.seconds,
        on_result=record,
        stop=stop,
    )
    if stop.is_asked:
        raise KeyboardInterrupt
    recording.wall_s = summary.wall_s
    recording.share_cpu(int(1e9 * summary.cpu_s))
    # What was in hand at the end is no frame that the model was too slow for.
    recording.drops = {why: n for why, n in summary.drops.items() if why != "interrupted"}
    recording.others_ms = {
        name: times for name, times in summary.stages_ms.items() if name not in STAGES
    }
