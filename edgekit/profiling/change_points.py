"""Whether a series of latencies keeps its level: steps, slow trends, a while at another level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.profiling.dependence import variance_inflation

FEWEST_RUNS = 20
"""Even a perfect step is no surprise in fewer."""

_MUCH_MORE = 1.3  # times what a step or a trend explains, for a bump to be told instead


@dataclass(frozen=True)
class Change:
    """How the level of a series changed.

    Attributes:
        shape: a ``step`` that stays, a slow ``trend``, or a ``bump``: a while at another level.
        first: index of the first run at the other level; 0 of a trend.
        end: index after the last one.
        size: of the change, as a share of the median before it; of a trend, from end to end.
    """

    shape: Literal["step", "trend", "bump"]
    first: int
    end: int
    size: float


def median(values: NDArray[np.float64]) -> float:
    """Return the middle value, the upper of two; `np.median` takes ten times as long for few."""
    return float(np.partition(values, values.size // 2)[values.size // 2])


def find_change(values: NDArray[np.float64], false_alarms: float) -> Change | None:
    """Return the change of level that chance cannot explain, or None.

    The statistic is Kuiper's (1960): the range of the cumulated, centred ranks, a Brownian bridge
    where the order is chance. So neither the distribution nor outliers matter, and a level that
    returns is seen too. Where it is exceeded, the shape that fits the ranks best is taken out; what
    is left says how much wider dependence of neighbours (`variance_inflation`) makes chance.

    Args:
        values: in order, [n].
        false_alarms: share of series without a change in which one may be found.
    """
    n = values.size
    if n < FEWEST_RUNS:
        return None
    ranks = centred_ranks(values)
    spread = float(ranks @ ranks) / n
    if spread == 0 or values.min() <= 0:  # a clock that cannot tell a run from none
        return None
    walk = np.cumsum(ranks)
    reach = float(walk.max() - min(walk.min(), 0.0)) / math.sqrt(n * spread)
    if _by_chance(reach) > false_alarms:
        return None
    shape, first, end, rest = _best_shape(ranks, walk)
    # Whether dependent or not: in a hundred runs no test would find what matters here.
    if _by_chance(reach / math.sqrt(variance_inflation(rest))) > false_alarms:
        return None
    if shape == "trend":
        return Change("trend", 0, n, _size_of_trend(values))
    inside = np.zeros(n, bool)
    inside[first:end] = True
    return Change(shape, first, end, median(values[inside]) / median(values[~inside]) - 1)


def _best_shape(
    ranks: NDArray[np.float64], walk: NDArray[np.float64]
) -> tuple[Literal["step", "trend", "bump"], int, int, NDArray[np.float64]]:
    """Return shape, first, end and what the shape leaves of the ranks."""
    n = ranks.size
    time = np.arange(n) - (n - 1) / 2
    trend = ranks - time * float(time @ ranks) / float(time @ time)
    before = np.arange(1, n)
    split = int(np.argmax(walk[:-1] ** 2 / (before * (n - before)))) + 1  # least squares
    step = _without_level(ranks, split, n)
    low, high = _bump(walk)
    bump = _without_level(ranks, low, high)
    total = float(ranks @ ranks)
    by_trend, by_step, by_bump = (total - float(rest @ rest) for rest in (trend, step, bump))
    if by_bump > _MUCH_MORE * max(by_trend, by_step):
        return "bump", low, high, bump
    return ("step", split, n, step) if by_step >= by_trend else ("trend", 0, n, trend)


def _bump(walk: NDArray[np.float64]) -> tuple[int, int]:
    """Return first and end of the while whose level is the most of its own, by least squares."""
    n = walk.size
    sums = np.concatenate(([0.0], walk))
    low, high = sorted((int(np.argmin(sums)), int(np.argmax(sums))))
    for _ in range(2):
        runs = high - np.arange(high)
        low = int(np.argmax((sums[high] - sums[:high]) ** 2 / (runs * np.maximum(n - runs, 1))))
        runs = np.arange(low + 1, n + 1) - low
        gain = (sums[low + 1 :] - sums[low]) ** 2 / (runs * np.maximum(n - runs, 1))
        high = low + 1 + int(np.argmax(gain))
    return low, high


def _without_level(ranks: NDArray[np.float64], first: int, end: int) -> NDArray[np.float64]:
    rest = ranks.copy()
    outside = max(ranks.size - (end - first), 1)
    inner = float(ranks[first:end].sum())
    rest[first:end] -= inner / (end - first)
    # Ranks are centred: what the inside has too much, the outside has too little.
    rest[:first] += inner / outside
    rest[end:] += inner / outside
    return rest


def _size_of_trend(values: NDArray[np.float64]) -> float:
    third = values.size // 3
    before, after = median(values[:third]), median(values[-third:])
    # The middles of the outer thirds are two thirds of the series apart.
    return (after - before) * 1.5 / (before - (after - before) / 4)


def centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from -1/2 to 1/2; equal values share one, so that ties make no trend."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ranks = np.empty(values.size)
    ranks[order] = np.arange(values.size) - (values.size - 1) / 2
    if (ordered[1:] == ordered[:-1]).any():
        left, right = np.searchsorted(ordered, values), np.searchsorted(ordered, values, "right")
        ranks = (left + right - float(values.size)) / 2
    return ranks / values.size


def _by_chance(reach: float) -> float:
    """Return how often a Brownian bridge ranges as far: Kuiper's series, which is 1 below 0.5."""
    return min(1.0, sum(_term(term * reach) for term in (1, 2, 3))) if reach > 0.5 else 1.0


def _term(reach: float) -> float:
    return (8 * reach * reach - 2) * math.exp(-2 * reach * reach)
