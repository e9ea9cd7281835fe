"""How sure a figure is: bootstrap intervals, and a sign test for two models on the same samples."""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.runtime.statistics import Interval

CONFIDENCE = 0.95
_NORMAL = NormalDist()
_TAIL = _NORMAL.inv_cdf((1 - CONFIDENCE) / 2)


class Estimate(msgspec.Struct, frozen=True):
    """A figure and its interval of 95 % confidence; None: not defined on this set.

    An interval needs two samples, and a figure that is defined in two resamples.
    """

    value: float | None
    interval: Interval | None


class SignTest(msgspec.Struct, frozen=True):
    """On how many samples the one model is better, and the other.

    Attributes:
        better: samples on which the converted model is better than its source.
        worse: on which it is worse.
        p_value: of as uneven a split, if neither were better: exact, two-sided. For classes that
            is McNemar's test (1947, Psychometrika 12, 153-157).
    """

    better: int
    worse: int
    p_value: float


def estimates(
    values: NDArray[np.float64], resamples: NDArray[np.float64], n: int
) -> list[Estimate]:
    """Return each of `values` [k] with its interval.

    The interval is the bias-corrected percentile one (Efron 1981, Canadian Journal of Statistics
    9, 139-158): the percentiles of the resamples, moved by how many of them lie below the value.

    Args:
        values: of the set, NaN where not defined.
        resamples: of its resamples, [R, k].
        n: samples in the set.
    """
    return [
        Estimate(
            None if math.isnan(value) else float(value),
            None if math.isnan(value) or n < 2 else _interval(float(value), drawn),
        )
        for value, drawn in zip(values, resamples.T, strict=True)
    ]


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval | None:
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size < 2:
        return None
    # Sums of other weights differ in the last digits: those are equal.
    slack = 1e-9 * (abs(value) + 1e-300)
    is_below, is_equal = drawn < value - slack, np.abs(drawn - value) <= slack
    below = float(is_below.mean() + is_equal.mean() / 2)
    shift = _NORMAL.inv_cdf(min(max(below, 0.5 / drawn.size), 1 - 0.5 / drawn.size))
    shares = [_NORMAL.cdf(2 * shift + tail) for tail in (_TAIL, -_TAIL)]
    low, high = np.quantile(drawn, shares)
    return Interval(float(low), float(high))


def sign_test(converted: NDArray[np.float64], source: NDArray[np.float64]) -> SignTest:
    """Compare how good two models' answers are, sample by sample [n]."""
    better, worse = int((converted > source).sum()), int((converted < source).sum())
    n, fewer = better + worse, min(better, worse)
    log_half = n * math.log(0.5)
    tail = math.fsum(
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + log_half)
        for k in range(fewer + 1)
    )
    return SignTest(better, worse, min(1.0, 2 * tail))
