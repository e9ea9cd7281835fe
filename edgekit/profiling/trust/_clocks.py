"""Clocks that changed while the latency was measured, and the latency with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.profiling.change_points import centred_ranks, median
from edgekit.profiling.results import Moment
from edgekit.profiling.trust import MATTERS

_CLOCKS_DIFFER = 0.05
_FEWEST_MOMENTS = 3  # of either clock
_CERTAIN = 2.5  # standard errors; five moments of either clock can reach it
_SETTLED = 0.75  # of the moments in the first and in the last quarter


@dataclass(frozen=True)
class ClockChange:
    """Two clocks of one unit, and the runs under each.

    Attributes:
        unit: ``cpu``, ``gpu``, ``emc`` …
        high_mhz, low_mhz: median clock of the faster and the slower moments.
        slower: how much longer runs took at the lower clock, as a share.
        fell: whether it was high first and low in the end.
    """

    unit: str
    high_mhz: float
    low_mhz: float
    slower: float
    fell: bool


def find_clock_change(
    latencies_ms: NDArray[np.float64], starts_s: NDArray[np.float64], telemetry: Sequence[Moment]
) -> ClockChange | None:
    """Return the unit's clock that the latency followed most, or None where it followed none.

    Args:
        latencies_ms: [n].
        starts_s: when each run began, [n].
        telemetry: in order.
    """
    if len(telemetry) < 2 * _FEWEST_MOMENTS or not latencies_ms.size:
        return None
    at_s = np.array([moment.at_s for moment in telemetry])
    order = np.argsort(starts_s, kind="stable")  # runs that overlap are noted as they end
    moment_of_run = np.searchsorted((at_s[1:] + at_s[:-1]) / 2, starts_s[order])  # the nearest
    names = {name for moment in telemetry for name in moment.clocks_mhz}
    changes = []
    for unit in sorted({name.rstrip("0123456789") for name in names}):
        clocks_mhz = _highest(telemetry, [n for n in names if n.rstrip("0123456789") == unit])
        changes.append(_follows(unit, clocks_mhz, latencies_ms[order], moment_of_run))
    return max((c for c in changes if c is not None), key=lambda c: c.slower, default=None)


def _highest(telemetry: Sequence[Moment], names: Sequence[str]) -> NDArray[np.float64]:
    """Return the clock of a core at work at each moment: idle ones go up and down by nature."""
    return np.array([max(m.clocks_mhz.get(name, 0.0) for name in names) for m in telemetry])


def _follows(
    unit: str,
    clocks_mhz: NDArray[np.float64],
    latencies_ms: NDArray[np.float64],
    moment_of_run: NDArray[np.int64],
) -> ClockChange | None:
    low, high = clocks_mhz.min(), clocks_mhz.max()
    if low <= 0 or high - low < _CLOCKS_DIFFER * high:
        return None
    is_low = clocks_mhz < (low + high) / 2
    # A moment's median each, because neighbouring runs may depend on each other.
    moments, firsts = np.unique(moment_of_run, return_index=True)
    medians_ms = np.array([median(runs) for runs in np.split(latencies_ms, firsts[1:])])
    slow, fast = medians_ms[is_low[moments]], medians_ms[~is_low[moments]]
    if min(slow.size, fast.size) < _FEWEST_MOMENTS or median(fast) <= 0:
        return None
    slower = median(slow) / median(fast) - 1
    if slower < MATTERS or _rank_difference(medians_ms, is_low[moments]) < _CERTAIN:
        return None
    quarter = max(1, is_low.size // 4)
    fell = is_low[:quarter].mean() <= 1 - _SETTLED and is_low[-quarter:].mean() >= _SETTLED
    return ClockChange(
        unit, median(clocks_mhz[~is_low]), median(clocks_mhz[is_low]), slower, bool(fell)
    )


def _rank_difference(medians_ms: NDArray[np.float64], is_slow: NDArray[np.bool_]) -> float:
    """Return how much higher the slow ones' ranks are, in standard errors (Mann, Whitney 1947)."""
    ranks = centred_ranks(medians_ms)
    slow, fast = ranks[is_slow], ranks[~is_slow]
    n = ranks.size
    error = np.sqrt((1 + 1 / n) / 12 * (1 / slow.size + 1 / fast.size))
    return float((slow.mean() - fast.mean()) / error)
