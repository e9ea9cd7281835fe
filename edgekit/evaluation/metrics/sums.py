"""Sums of statistics over samples: all that a metric needs, for the set and for its resamples.

A metric is a function of sums (how often a class was found, squared errors), so a bootstrap
resample is the same sums with other weights, and the models are never asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
"""As Efron and Tibshirani advise for intervals (An Introduction to the Bootstrap, 1993, 13.3)."""

_SEED = 0
_MOST_WEIGHTS = 1 << 22  # at a time: 16 MB of float32


class Sums(NamedTuple):
    """Statistics of `n` samples, to be summed over them: sparse ones, then dense ones.

    Attributes:
        n: number of samples.
        width: number of sparse statistics.
        sample: int64 [entries], the sample of each entry.
        column: int64 [entries], its statistic, below `width`.
        amount: float64 [entries].
        rows: int64 [kept], the samples of the rows of `dense`.
        dense: float32 [kept, statistics].
    """

    n: int
    width: int
    sample: NDArray[np.int64]
    column: NDArray[np.int64]
    amount: NDArray[np.float64]
    rows: NDArray[np.int64] = np.zeros(0, np.int64)
    dense: NDArray[np.float32] = np.zeros((0, 0), np.float32)

    def total(self) -> NDArray[np.float64]:
        """Return the sums over the set, [1, statistics]."""
        sparse = np.bincount(self.column, self.amount, self.width)
        return np.concatenate([sparse, self.dense.sum(0, dtype=np.float64)])[None]

    def resampled(self) -> NDArray[np.float64]:
        """Return the sums over each of `RESAMPLES` resamples, [RESAMPLES, statistics].

        They are the same resamples for any two models on a set: what they give is paired.
        """
        totals = []
        for weights in _weights(self.n):
            sparse = [
                np.bincount(self.column, self.amount * row[self.sample], self.width)
                for row in weights
            ]
            totals.append(np.hstack([np.array(sparse), weights[:, self.rows] @ self.dense]))
        return np.concatenate(totals)


class Measured(NamedTuple):
    """Metrics of R sets at once: by name, of the whole set [R] and of each class [R, classes].

    NaN stands for what is not defined, as the recall of a class that does not occur.
    """

    whole: dict[str, NDArray[np.float64]]
    classes: dict[str, NDArray[np.float64]]


class Statistics(NamedTuple):
    """The sums of a model on a set, and what they mean: [R, statistics] to metrics."""

    sums: Sums
    measure: Callable[[NDArray[np.float64]], Measured]

    def of_the_set(self) -> Measured:
        """Return the metrics of the set, R = 1."""
        return self.measure(self.sums.total())

    def of_resamples(self) -> Measured:
        """Return the metrics of its resamples, R = `RESAMPLES`."""
        return self.measure(self.sums.resampled())


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return part / whole, NaN where whole is 0."""
    found: NDArray[np.float64] = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=found, where=whole != 0)
    return found


def mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(-1), defined.sum(-1).astype(np.float64))


def _weights(n: int) -> Iterator[NDArray[np.float32]]:
    """Yield how often each of `n` samples occurs in each resample, a few resamples at a time."""
    random = np.random.default_rng(_SEED)
    each = max(1, min(RESAMPLES, _MOST_WEIGHTS // n))
    for first in range(0, RESAMPLES, each):
        count = min(each, RESAMPLES - first)
        drawn = (np.bincount(random.integers(0, n, n), minlength=n) for _ in range(count))
        yield np.array(list(drawn), np.float32)
