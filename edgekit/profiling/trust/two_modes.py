"""Latencies gather around two values or more, so that p50 may be a latency that no run has."""

from __future__ import annotations

import math

import numpy as np

from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed

_WINDOW, _SMALLEST_MODE = 0.05, 0.1  # of the runs
_FEWEST_IN_MODE = 10
_DEPTH = 2.0  # times more runs at the lower of two modes than between them, at least
_CERTAIN = 4.8  # standard errors of the logarithm of that depth: 1 in 1,000 of uniform latencies
_APART = 0.05  # of p50
_NANOSECOND_MS = 1e-6


def check(observed: Observed) -> Finding | None:
    """Tell two modes with a valley between them that chance does not dig.

    The gap over k neighbours in the sorted latencies is long where runs are rare. Between two
    modes it is longer than on both sides of it. How much longer it gets by chance was counted
    for uniform latencies, which of all with one mode look most like two (as Hartigan and
    Hartigan 1985 have it for their dip); k is a twentieth of the runs.
    """
    ordered, n = observed.ordered_ms, observed.ordered_ms.size
    k = max(_FEWEST_IN_MODE, int(_WINDOW * n))
    if n < 4 * k or ordered[-1] - ordered[0] < _NANOSECOND_MS:
        return None
    steps = np.diff(ordered)
    tick = steps[steps > _NANOSECOND_MS].min(initial=ordered[-1])  # gaps are known no better
    gaps = ordered[k:] - ordered[:-k] + tick
    left, right = np.minimum.accumulate(gaps), np.minimum.accumulate(gaps[::-1])[::-1]
    depths = gaps[k:-k] / np.maximum(left[: -2 * k], right[2 * k :])
    place = int(np.argmax(depths))
    depth = float(depths[place])
    if depth < max(_DEPTH, math.exp(_CERTAIN * math.sqrt(2 / k))):
        return None
    low = int(np.argmin(gaps[: place + 1])) + k // 2
    high = place + 2 * k + int(np.argmin(gaps[place + 2 * k :])) + k // 2
    low_ms, high_ms = float(ordered[low]), float(ordered[high])
    widest = place + k + int(np.argmax(steps[place + k : place + 2 * k]))
    share = (widest + 1) / n
    if high_ms - low_ms < _APART * observed.p50_ms or min(share, 1 - share) < _SMALLEST_MODE:
        return None
    return Finding(
        code="two-modes",
        is_doubt=True,
        message=(
            f"latencies gather around {low_ms:.3f} ms ({100 * share:.0f} % of the runs) and "
            f"{high_ms:.3f} ms, with few between: two clocks, kinds of core or kinds of input; "
            "read both, not p50, and keep the process on one kind of core (`taskset`)"
        ),
        evidence={"low_ms": low_ms, "high_ms": high_ms, "low_percent": 100 * share},
    )
