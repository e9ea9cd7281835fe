"""One frame after the other, as fast as they go: the latency of a frame that need not wait."""

from __future__ import annotations

from edgekit.profiling.recording import Recording
from edgekit.profiling.scenarios import STAGES as STAGES
from edgekit.profiling.scenarios import Work

PERCENTILE = 90


def measure(work: Work, recording: Recording) -> None:
    """Run frames until `work.until` is over."""
    began_ns = work.clock_ns()
    while not work.until.is_over(recording, work.clock_ns() - began_ns):
        frame = next(work.frames)
        cpu_ns = work.cpu_ns()
        times_ns = work.run_once(frame)
        work.record(recording, times_ns, work.cpu_ns() - cpu_ns)
