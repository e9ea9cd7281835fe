"""Runs before the measured ones: until their latency keeps its level, however many that takes."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.profiling.change_points import find_change, median

_ENOUGH, _FEWEST = 40, 12
_LONG = 0.25  # of the time there is, after which the fewest runs do
_SETTLED = 10  # of the fewest runs: only the first two are left out
_PATIENCE = 1.25  # times as long until it is looked at again
_FALSE_ALARMS = 0.1  # one more look costs little, a level that is not there yet costs the figure
_MATTERS = 0.02
_FEW = 100  # runs, in which two halves tell more than all places where the level may change
_ONE_SIDED = 1.645  # standard errors, 5 %


@dataclass(frozen=True)
class WarmUp:
    """What came before the measurement.

    Attributes:
        runs: how many.
        steady: whether the latency became steady.
        seconds: how long it took.
        latest_ms: latencies of the latest part, which was judged, [m]: a pilot for `runs_needed`.
    """

    runs: int
    steady: bool
    seconds: float
    latest_ms: NDArray[np.float64]


def warm_up(
    run: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
    least_s: float = 0.2,
    most_s: float = 10.0,
) -> WarmUp:
    """Run until the latest half of the runs shows no change of level.

    It is looked at after `least_s` and 40 runs, or 12 where those take a quarter of `most_s`, and
    again whenever it has taken a quarter longer. So looking costs next to nothing for runs of
    microseconds, and runs of half a second are judged after six seconds. A change is one that is
    larger than 2 % and that `find_change` sees; of fewer than 100 runs, a difference between their
    halves that their ranks confirm (Mann and Whitney 1947).

    Args:
        run: one run, as it is measured later.
        clock: gives seconds.
        least_s: no shorter, however steady.
        most_s: no longer, but for the run that is under way.
    """
    latencies_s = array("d")
    began_s = before_s = clock()
    look_s = least_s
    while True:
        run()
        now_s = clock()
        latencies_s.append(now_s - before_s)
        before_s = now_s
        spent_s = now_s - began_s
        runs = len(latencies_s)
        is_over = spent_s >= most_s
        enough = _FEWEST if spent_s >= _LONG * most_s else _ENOUGH
        if is_over or (spent_s >= look_s and runs >= enough):
            latest = np.array(latencies_s[min(runs // 2, max(runs - _SETTLED, 2)) :])
            steady = keeps_its_level(latest)
            if steady or is_over:
                return WarmUp(runs, steady, spent_s, latest * 1000)
            look_s = _PATIENCE * spent_s
            before_s = clock()


def keeps_its_level(latencies: NDArray[np.float64]) -> bool:
    """Return whether latencies show no change of level that matters; see `warm_up`."""
    if latencies.size >= _FEW:
        change = find_change(latencies, _FALSE_ALARMS)
        return change is None or abs(change.size) <= _MATTERS
    half = latencies.size // 2
    if half == 0:
        return False
    older, newer = latencies[:half], latencies[-half:]
    higher, lower = sorted((median(older), median(newer)), reverse=True)
    if higher <= (1 + _MATTERS) * lower:
        return True
    # Mann and Whitney's U: of all pairs, how often the newer run is the slower one.
    slower = float(np.sign(newer[:, None] - older[None, :]).sum()) / 2
    return abs(slower) <= _ONE_SIDED * half * float(np.sqrt((2 * half + 1) / 12))
