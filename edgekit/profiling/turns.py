"""Taking turns: a block of runs of one engine, while another one waits for its own.

What is measured in turns meets the same machine: one that is slow for a while is slow for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

Clock = Callable[[], float]

# Another engine's threads and caches are still about.
_SETTLE_RUNS = 2


class Turn(NamedTuple):
    """A block of runs.

    Attributes:
        times_s: wall time of each run, seconds.
        cpu_s: CPU time of all of them together, all threads.
    """

    times_s: list[float]
    cpu_s: float


def take_turn(
    run: Callable[[], object],
    least_runs: int,
    least_s: float,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
) -> Turn:
    """Run until there are `least_runs` runs and they took `least_s`; the first two do not count."""
    for _ in range(_SETTLE_RUNS):
        run()
    times_s: list[float] = []
    spent_s = 0.0
    cpu_start_s = cpu_clock()
    while len(times_s) < least_runs or spent_s < least_s:
        start_s = clock()
        run()
        times_s.append(clock() - start_s)
        spent_s += times_s[-1]
    return Turn(times_s, cpu_clock() - cpu_start_s)
