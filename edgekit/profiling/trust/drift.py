"""The latency slowly rises or falls while it is measured."""

from __future__ import annotations

from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed


def check(observed: Observed) -> Finding | None:
    """Tell a trend that is longer than chance and larger than what matters."""
    change = observed.change
    if change is None or change.shape != "trend":
        return None
    seconds = float(observed.starts_s[-1])
    verb = "rose" if change.size > 0 else "fell"
    cause = "the device grows warm, or memory fills" if change.size > 0 else "caches still fill"
    return Finding(
        code="drift",
        is_doubt=True,
        message=(
            f"the latency slowly {verb} by {100 * abs(change.size):.1f} % in {seconds:.1f} s: "
            f"{cause}, so no percentile of it holds for longer; measure longer, until it settles"
        ),
        evidence={"change_percent": 100 * change.size, "seconds": seconds},
    )
