"""A frame every so often, as a camera gives them: clocks fall and caches cool in between.

A frame's age counts from when it was due, so that the frames that a slow one keeps waiting are not
left out of the figures ("coordinated omission"). Frames that are due while the model is busy for
more than a period are dropped, as a live stream drops them, and counted.
"""

from __future__ import annotations

from edgekit.profiling.recording import Recording
from edgekit.profiling.scenarios import STAGES as STAGES
from edgekit.profiling.scenarios import Work

PERCENTILE = 99


def measure(work: Work, recording: Recording) -> None:
    """Run a frame each 1 / `work.rate_hz` seconds, of an absolute timetable."""
    period_ns = 1e9 / work.rate_hz
    began_ns = work.clock_ns()
    number = 0
    while not work.until.is_over(recording, work.clock_ns() - began_ns):
        now_ns = work.clock_ns()
        missed = int((now_ns - began_ns - number * period_ns) // period_ns)
        if missed > 0:
            recording.drops["late"] = recording.drops.get("late", 0) + missed
            number += missed
        due_ns = int(began_ns + number * period_ns)
        if due_ns > now_ns:
            work.sleep((due_ns - now_ns) / 1e9)
        frame = next(work.frames)
        cpu_ns = work.cpu_ns()
        times_ns = work.run_once(frame)
        spent_ns = work.cpu_ns() - cpu_ns
        work.record(recording, times_ns, spent_ns, age_ns=times_ns[-1] - due_ns)
        number += 1
    # The last frame has its period too, or few of them would make more than the rate.
    recording.wall_s = max(work.clock_ns() - began_ns, number * period_ns) / 1e9
