"""The latency stepped to another level while it was measured, for good or for a while."""

from __future__ import annotations

from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed

EXPLAINS = ("two-modes",)


def check(observed: Observed) -> Finding | None:
    """Tell a step or a bump that chance does not explain and that is large enough to matter."""
    change = observed.change
    if change is None or change.shape == "trend":
        return None
    from_s = float(observed.starts_s[change.first])
    evidence = {"change_percent": 100 * change.size, "from_s": from_s}
    when = f"from {from_s:.1f} s on"
    if change.end < observed.starts_s.size:
        evidence["until_s"] = float(observed.starts_s[change.end])
        when = f"from {from_s:.1f} to {evidence['until_s']:.1f} s"
    return Finding(
        code="level-shift",
        is_doubt=True,
        message=(
            f"runs took {100 * abs(change.size):.1f} % {'more' if change.size > 0 else 'less'} "
            f"{when}: another clock, another process or another core, so these are two figures "
            "in one; fix the clock (`edgekit doctor` says how), stop what else runs, measure again"
        ),
        evidence=evidence,
    )
