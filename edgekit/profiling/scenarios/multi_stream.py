"""The newest frames of several cameras at once: the latency until the last of them is done."""

from __future__ import annotations

from edgekit.profiling.recording import Recording, Run
from edgekit.profiling.scenarios import STAGES as STAGES
from edgekit.profiling.scenarios import Work

PERCENTILE = 99


def measure(work: Work, recording: Recording) -> None:
    """Run sets of `work.streams` frames, one frame after the other as the runtime does."""
    began_ns = work.clock_ns()
    while not work.until.is_over(recording, work.clock_ns() - began_ns):
        frames = [next(work.frames) for _ in range(work.streams)]
        cpu_ns = work.cpu_ns()
        times_ns = [work.run_once(frame) for frame in frames]
        spent_ns = work.cpu_ns() - cpu_ns
        stages_ns = [sum(t[place + 1] - t[place] for t in times_ns) for place in range(3)]
        start_ns, done_ns = times_ns[0][0], times_ns[-1][-1]
        recording.add(Run(start_ns, stages_ns, done_ns - start_ns, spent_ns))
        work.on_run(recording.count)
