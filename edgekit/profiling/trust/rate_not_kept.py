"""Frames came while the model was still busy, and were dropped."""

from __future__ import annotations

from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed

_MATTERS = 0.01


def check(observed: Observed) -> Finding | None:
    """Tell, as no doubt, a rate that the model does not keep."""
    if observed.rate_hz is None or not observed.dropped:
        return None
    share = observed.dropped / (observed.dropped + (observed.runs or observed.latencies_ms.size))
    if share < _MATTERS:
        return None
    return Finding(
        code="rate-not-kept",
        is_doubt=False,
        message=(
            f"{100 * share:.1f} % of the frames came while the model was busy and were dropped: it "
            f"does not keep {observed.rate_hz:g} a second; lower the rate, or use a faster model"
        ),
        evidence={"dropped_percent": 100 * share},
    )
