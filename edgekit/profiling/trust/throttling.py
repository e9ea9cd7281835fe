"""The device ran slower than it can: it says so, or its clock fell and the latency rose."""

from __future__ import annotations

from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed

EXPLAINS = ("drift", "level-shift", "two-modes")

_REMEDY = "cool it, give it a supply that is strong enough, or measure at the clock it can hold"


def check(observed: Observed) -> Finding | None:
    """Tell reasons that the device gives itself, else a clock that fell while runs got longer."""
    throttled = [moment for moment in observed.moments if moment.throttled]
    change = observed.clock_change
    evidence: dict[str, float] = {}
    told = ""
    if change is not None and change.fell:
        evidence = {
            "high_mhz": change.high_mhz,
            "low_mhz": change.low_mhz,
            "slower_percent": 100 * change.slower,
        }
        told = (
            f"the {change.unit} clock fell from {change.high_mhz:.0f} to {change.low_mhz:.0f} MHz "
            f"and runs took {100 * change.slower:.1f} % longer"
        )
    if throttled:
        share = len(throttled) / len(observed.moments)
        reasons = sorted({reason for moment in throttled for reason in moment.throttled})
        evidence["throttled_percent"] = 100 * share
        said = f"the device throttled itself in {100 * share:.0f} % of the time ({_join(reasons)})"
        told = f"{said}; {told}" if told else said
    if not told:
        return None
    return Finding(
        code="throttling", is_doubt=True, message=f"{told}: {_REMEDY}", evidence=evidence
    )


def _join(reasons: list[str]) -> str:
    return ", ".join(reasons)
