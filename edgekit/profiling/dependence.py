"""Whether runs depend on their neighbours, and how much less such runs tell."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

_FALSE_ALARMS = 0.01


def is_clustered(flags: NDArray[np.bool_]) -> bool:
    """Return whether the true values of a series stand together more than chance would have it.

    The clusters of true values are counted. Where the order is chance, their number is
    hypergeometric (Wald and Wolfowitz 1940: the runs test, one-sided), so the test is exact for
    two flags of a thousand as for five hundred. It is wrong in at most 1 % of series.

    Args:
        flags: [n].
    """
    count = int(np.count_nonzero(flags))
    clusters = int(np.count_nonzero(flags[1:] & ~flags[:-1])) + int(flags[0])
    return clusters < _fewest_clusters(flags.size, count)


def variance_inflation(series: NDArray[np.float64]) -> float:
    """Return how many dependent values tell as much of the mean as one independent value, >= 1.

    That is 1 + 2 × the sum of the autocorrelations, taken as far as the sums of two neighbours are
    positive and falling (initial monotone sequence, Geyer 1992). What the sample's own mean takes
    away from each is given back.

    Args:
        series: [n], at least 2.
    """
    n = series.size
    centred = series - series.mean()
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    covariances = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[:n]
    if covariances[0] <= 0:
        return 1.0
    correlations = covariances / covariances[0]
    inflation = _sum_of_pairs(correlations)
    return max(1.0, _sum_of_pairs(correlations + inflation / n))


def _sum_of_pairs(correlations: NDArray[np.float64]) -> float:
    even = correlations.size // 2 * 2
    pairs = correlations[:even:2] + correlations[1:even:2]
    ended = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: ended[0] if ended.size else None])
    return max(1.0, float(2 * pairs.sum() - 1))


@functools.lru_cache(maxsize=4096)
def _fewest_clusters(n: int, count: int) -> int:
    """Return the fewest clusters of `count` true values among n that chance still makes."""
    others = n - count
    if count < 2 or others < 1:
        return 0
    # P(c clusters) = C(count - 1, c - 1) C(others + 1, c) / C(n, count)
    most = min(count, others + 1)
    spread = math.sqrt(count * (count - 1.0) * (others + 1.0) * others / (n * n * (n - 1.0)))
    clusters = max(1, int(count * (others + 1) / n - 8 * spread) - 1)
    probability = math.exp(
        _log_choose(count - 1, clusters - 1)
        + _log_choose(others + 1, clusters)
        - _log_choose(n, count)
    )
    total = probability
    while total <= _FALSE_ALARMS and clusters < most:
        probability *= (count - clusters) * (others + 1 - clusters) / (clusters * (clusters + 1.0))
        clusters += 1
        total += probability
    return clusters


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
