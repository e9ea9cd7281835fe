"""Slow runs come at a regular pace: something with a timer makes them."""

from __future__ import annotations

import numpy as np

from edgekit.profiling.change_points import median
from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed

_FEWEST = 6
_MOST_OF_ALL = 0.1
_SPREADS, _TIMES_P50 = 8.0, 1.2
_REGULAR = 0.15  # standard deviation / mean of the time between them; 1 by chance


def check(observed: Observed) -> Finding | None:
    """Tell, as no doubt, outliers whose distances hardly vary."""
    latencies_ms = observed.latencies_ms
    if latencies_ms.size < _FEWEST / _MOST_OF_ALL:
        return None
    p50_ms = observed.p50_ms
    spread_ms = median(np.abs(latencies_ms - p50_ms))
    is_slow = latencies_ms > max(p50_ms + _SPREADS * spread_ms, _TIMES_P50 * p50_ms)
    slow = np.flatnonzero(is_slow)
    if not _FEWEST <= slow.size <= _MOST_OF_ALL * latencies_ms.size:
        return None
    # In time as a timer has it, or in runs as what is done every so many runs.
    for places in (observed.starts_s[slow], slow.astype(np.float64)):
        gaps = np.diff(places)
        if gaps.std() <= _REGULAR * gaps.mean():
            break
    else:
        return None
    every_s = float(np.diff(observed.starts_s[slow]).mean())
    slow_ms = median(latencies_ms[slow])
    return Finding(
        code="periodic-outliers",
        is_doubt=False,
        message=(
            f"{slow.size} of {latencies_ms.size} runs take about {slow_ms:.3f} ms, one every "
            f"{every_s:.3f} s: a timer, a garbage collection or a periodic task; it will be there "
            "in use too, so find it or plan with p99"
        ),
        evidence={"runs": slow.size, "every_s": every_s, "slow_ms": slow_ms},
    )
