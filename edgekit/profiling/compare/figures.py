"""Figures of both sides from what was measured: in pairs, apart, or once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.profiling.compare.ratio import Ratio, ratio_of_groups, ratio_of_pairs
from edgekit.profiling.compare.results import Figure, FigureName, Unit

# Peaks of fresh processes that do the same differ by up to 1 %.
_MEMORY_REPEATS_WITHIN = 1.02


def figure_of_pairs(name: FigureName, values: NDArray[np.float64]) -> Figure:
    """Return a figure of both, measured in turns.

    Args:
        name: which.
        values: [openings, 3]: seconds of a, of b, and the logarithm of the ratio.
    """
    a, b, logs = values.T
    each = tuple(float(one) for one in np.exp(logs))
    return _figure(name, "ms", 1000 * a, 1000 * b, ratio_of_pairs(logs), each)


def figure_of_groups(
    name: FigureName, unit: Unit, a: Sequence[float], b: Sequence[float]
) -> Figure:
    """Return a figure of both, measured apart, in two processes each at least; one value each."""
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return _figure(name, unit, one, other, ratio_of_groups(one, other))


def memory_once(a_mb: float, b_mb: float) -> Figure:
    """Return the figure of memory where each was measured once: it hardly varies."""
    ratio = b_mb / a_mb
    is_clear = max(ratio, 1 / ratio) > _MEMORY_REPEATS_WITHIN
    return Figure(
        name="memory",
        unit="MB",
        a=a_mb,
        b=b_mb,
        ratio=ratio,
        interval=None,
        reopening=None,
        verdict="cannot tell" if not is_clear else "more" if ratio > 1 else "less",
    )


def _figure(
    name: FigureName,
    unit: Unit,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    ratio: Ratio,
    each: tuple[float, ...] = (),
) -> Figure:
    return Figure(
        name=name,
        unit=unit,
        a=float(np.exp(np.log(a).mean())),
        b=float(np.exp(np.log(b).mean())),
        ratio=ratio.value,
        interval=ratio.interval,
        reopening=ratio.reopening,
        verdict=ratio.verdict(name),
        each=each,
    )
