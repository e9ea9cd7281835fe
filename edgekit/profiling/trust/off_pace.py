"""Runs were to begin at a pace, as a camera's frames do, and began more slowly."""

from __future__ import annotations

from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed

_FEWEST_RUNS = 10
_REACHED = 0.97


def check(observed: Observed) -> Finding | None:
    """Tell a pace that was not kept: the device then never rested between runs."""
    runs = observed.starts_s.size
    if observed.rate_hz is None or runs < _FEWEST_RUNS:
        return None
    seconds = float(observed.starts_s[-1] - observed.starts_s[0])
    reached_hz = (runs - 1) / seconds if seconds > 0 else 0.0
    if reached_hz >= _REACHED * observed.rate_hz:
        return None
    return Finding(
        code="off-pace",
        is_doubt=True,
        message=(
            f"runs began at {reached_hz:.2f} Hz instead of {observed.rate_hz:g} Hz: the model or "
            "its input is too slow for this pace, so the latency is that of a device without "
            "rest; ask for a lower rate"
        ),
        evidence={"reached_hz": reached_hz, "rate_hz": observed.rate_hz},
    )
