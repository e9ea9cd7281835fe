"""The latency still changed when the warm-up had to end."""

from __future__ import annotations

from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed


def check(observed: Observed) -> Finding | None:
    """Tell a warm-up that ended by its time and not by the latency's level."""
    if observed.steady:
        return None
    return Finding(
        code="unsteady-warm-up",
        is_doubt=True,
        message=(
            "the latency did not become steady before the warm-up's time was over: caches, clocks "
            "or temperature still changed, so these runs are partly warm-up; measure again now "
            "that the device is warm, and longer"
        ),
    )
