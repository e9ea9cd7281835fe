"""Taking turns: a block of runs of one engine, while another one waits for its own.

What is measured in turns meets the same machine: one that is slow for a while is slow for all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

Clock = Callable[[], float]

# Another engine's threads and caches are still about.
_SETTLE_RUNS = 2
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class Turn(NamedTuple):
    """A block of runs.

    Attributes:
        times_s: wall time of each run, seconds, less what it waited for a CPU.
        cpu_s: CPU time of all of them together, all threads.
        waited_s: for a CPU, all of them together; None: not known, and not taken off.
    """

    times_s: list[float]
    cpu_s: float
    waited_s: float | None = None


def take_turn(
    run: Callable[[], object],
    least_runs: int,
    least_s: float,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
    waited: Clock | None = None,
) -> Turn:
    """Run until there are `least_runs` runs and `least_s` have passed; the first two do not count.

    Args:
        run: does one run.
        least_runs: of this turn.
        least_s: wall time of its runs, what they waited included.
        clock: wall time, seconds.
        cpu_clock: CPU time of the process, seconds.
        waited: what this thread has waited for a CPU, seconds; None: it is not taken off.
    """
    for _ in range(_SETTLE_RUNS):
        run()
    times_s: list[float] = []
    spent_s = waited_s = 0.0
    cpu_start_s = cpu_clock()
    while len(times_s) < least_runs or spent_s < least_s:
        before_s = waited() if waited is not None else 0.0
        start_s = clock()
        run()
        taken_s = clock() - start_s
        wait_s = waited() - before_s if waited is not None else 0.0
        if wait_s >= taken_s:  # it waited between two of these lines, not in the run
            wait_s = 0.0
        times_s.append(taken_s - wait_s)
        spent_s += taken_s
        waited_s += wait_s
    return Turn(times_s, cpu_clock() - cpu_start_s, None if waited is None else waited_s)


@contextmanager
def waiting_clock(file: Path = _SCHEDSTAT) -> Iterator[Clock | None]:
    """Give a clock of what the calling thread has waited for a CPU that others had, in seconds.

    It is the run delay of Linux (Documentation/scheduler/sched-stats.rst); None where the system
    does not tell. It holds for the thread that asks for it, and a reading takes about 2 µs.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        yield None
        return
    try:
        fields = os.pread(descriptor, 96, 0).split()
        is_known = len(fields) == 3 and all(field.isdigit() for field in fields)
        yield (lambda: int(os.pread(descriptor, 96, 0).split()[1]) / 1e9) if is_known else None
    finally:
        os.close(descriptor)
