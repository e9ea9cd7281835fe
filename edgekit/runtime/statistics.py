"""Summaries of many measurements in bounded memory."""

from __future__ import annotations

import random
from array import array

import msgspec
import numpy as np
from numpy.typing import NDArray


class Interval(msgspec.Struct, frozen=True):
    """Both ends of an interval of 95 % confidence."""

    low: float
    high: float


class Summary(msgspec.Struct, frozen=True):
    """Percentiles, largest value and mean of a set of measurements."""

    p50: float
    p90: float
    p99: float
    max: float
    mean: float


class Samples:
    """Measurements of a run that may last for weeks.

    Count, mean and largest value are exact; percentiles come from a uniform random sample of at
    most `limit` values (reservoir sampling, Vitter 1985), exact until then.
    """

    def __init__(self, limit: int = 16384) -> None:
        self.count = 0
        # Not a list: that is 32 bytes a value, 20 MB in a run of some stages.
        self.values = array("d")
        self._limit = limit
        self._sum = 0.0
        self._max = float("-inf")
        self._random = random.Random(0)

    def add(self, value: float) -> None:
        """Take one measurement."""
        self.count += 1
        self._sum += value
        self._max = max(self._max, value)
        if len(self.values) < self._limit:
            self.values.append(value)
        else:
            place = self._random.randrange(self.count)
            if place < self._limit:
                self.values[place] = value

    def summary(self) -> Summary:
        """Summarize; at least one measurement is needed."""
        return summarize(np.asarray(self.values), self._max, self._sum / self.count)


def summarize(values: NDArray[np.float64], largest: float, mean: float) -> Summary:
    """Summarize measurements of which at least one was kept.

    A percentile is the smallest kept value that at least that share does not exceed.

    Args:
        values: those kept, [n].
        largest: of all.
        mean: of all.
    """
    p50, p90, p99 = np.percentile(values, [50, 90, 99], method="inverted_cdf")
    return Summary(float(p50), float(p90), float(p99), largest, mean)
