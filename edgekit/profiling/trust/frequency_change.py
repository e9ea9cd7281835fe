"""A clock went up, or up and down, and the latency followed it."""

from __future__ import annotations

from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed

EXPLAINS = ("drift", "level-shift", "two-modes")


def check(observed: Observed) -> Finding | None:
    """Tell a clock that the latency followed; one that fell for good is `throttling`."""
    change = observed.clock_change
    if change is None or change.fell:
        return None
    return Finding(
        code="frequency-change",
        is_doubt=True,
        message=(
            f"the {change.unit} clock changed between {change.high_mhz:.0f} and "
            f"{change.low_mhz:.0f} MHz and runs took {100 * change.slower:.1f} % longer at the "
            "lower: a governor or a power limit sets it; fix the clock (`edgekit doctor` says "
            "how), or measure at the rate of your camera (scenario paced)"
        ),
        evidence={
            "high_mhz": change.high_mhz,
            "low_mhz": change.low_mhz,
            "slower_percent": 100 * change.slower,
        },
    )
