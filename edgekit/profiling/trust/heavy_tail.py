"""Slow runs are many times slower than ordinary ones: no fault of the figures, but good to know."""

from __future__ import annotations

from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed

_FEWEST_RUNS = 100
_MANY_TIMES = 2.0


def check(observed: Observed) -> Finding | None:
    """Tell, as no doubt, a p99 of many times p50."""
    runs = observed.ordered_ms.size
    if runs < _FEWEST_RUNS or observed.p50_ms <= 0:
        return None
    p99_ms = float(observed.ordered_ms[-(runs // 100) - 1])
    times = p99_ms / observed.p50_ms
    if times < _MANY_TIMES:
        return None
    return Finding(
        code="heavy-tail",
        is_doubt=False,
        message=(
            f"p99 is {times:.1f} times p50 ({p99_ms:.3f} against {observed.p50_ms:.3f} ms): some "
            "runs take far longer than most; plan with p99, not with the mean or p50"
        ),
        evidence={"p99_over_p50": times, "p99_ms": p99_ms},
    )
