"""Latencies take a few values only: the clock's step is as large as what it measures."""

from __future__ import annotations

import numpy as np

from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed

EXPLAINS = ("two-modes",)

_FEWEST_RUNS = 20
_RUNS_A_VALUE = 10
_COARSE = 0.005  # of p50
_NANOSECOND = 6  # decimals of a millisecond; what follows is what float64 makes of a difference


def check(observed: Observed) -> Finding | None:
    """Tell a clock whose steps are coarse enough to move a percentile."""
    runs = observed.latencies_ms.size
    if runs < _FEWEST_RUNS:
        return None
    values = np.unique(observed.latencies_ms.round(_NANOSECOND))
    if values.size * _RUNS_A_VALUE > runs:
        return None
    step_ms = float(np.diff(values).min()) if values.size > 1 else observed.p50_ms
    if step_ms < _COARSE * observed.p50_ms:
        return None
    return Finding(
        code="coarse-clock",
        is_doubt=True,
        message=(
            f"{runs} latencies have {values.size} different values, {step_ms:g} ms apart, at a p50 "
            f"of {observed.p50_ms:g} ms: the clock cannot resolve them; measure several "
            "inferences as one run, or on a system with a finer clock"
        ),
        evidence={"values": values.size, "step_ms": step_ms},
    )
