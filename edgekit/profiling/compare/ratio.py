"""How sure a ratio is, from openings (or processes) that each hold many runs.

Where an engine's memory happens to lie makes two openings of one bundle differ by some percent, for
as long as they are open. So the runs of one opening are not independent, however many there are:
what is resampled are openings, each with all its runs. (To draw the runs within them again would
count their noise twice: Davison and Hinkley 1997, Bootstrap Methods and their Application, 3.8.)
Openings are few, so the ends of the interval are the bootstrap's standard error times Student's t,
as far as so few allow (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 12), on
logarithms, so that b / a and a / b tell the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.profiling.compare.results import FigureName, Verdict
from edgekit.runtime.statistics import Interval

RESAMPLES = 1000
_SEED = 0
_CONFIDENCE = 0.95
_ROUNDING = 1e-9  # of logarithms: a clock that tells whole milliseconds gives equal times


class Ratio(NamedTuple):
    """A ratio, its 95 % interval, and by what share re-opening alone changes it."""

    value: float
    interval: Interval
    reopening: float

    def verdict(self, name: FigureName) -> Verdict:
        """Say what the ratio means for b.

        An interval that lies beside 1 is not enough where re-opening makes a larger difference.
        """
        is_open = self.interval.low <= 1 + _ROUNDING and self.interval.high >= 1 - _ROUNDING
        if is_open or abs(math.log(self.value)) <= math.log1p(self.reopening):
            return "cannot tell"
        if name in ("cpu", "memory"):
            return "more" if self.value > 1 else "less"
        return "slower" if self.value > 1 else "faster"


class _Level(NamedTuple):
    """Mean of some logarithms, how sure it is, and how much they differ among themselves."""

    mean: float
    variance: float
    spread: float
    n: int


def ratio_of_pairs(logs: NDArray[np.float64]) -> Ratio:
    """Return the ratio of what was measured in pairs.

    Args:
        logs: of the ratio in each opening, [openings], two at least.
    """
    return _ratio([_level(logs, np.random.default_rng(_SEED))], 1)


def ratio_of_groups(a: NDArray[np.float64], b: NDArray[np.float64]) -> Ratio:
    """Return the ratio b / a of figures that were measured apart, two values at least."""
    random = np.random.default_rng(_SEED)
    return _ratio([_level(np.log(one), random) for one in (b, a)], -1)


def _level(logs: NDArray[np.float64], random: np.random.Generator) -> _Level:
    n = len(logs)
    drawn = logs[random.integers(0, n, (RESAMPLES, n))].mean(axis=1)
    # Of few values a bootstrap's variance is too small by this factor.
    return _Level(float(logs.mean()), float(drawn.var()) * n / (n - 1), float(logs.var(ddof=1)), n)


def _ratio(levels: list[_Level], sign: int) -> Ratio:
    difference = levels[0].mean + sum(sign * level.mean for level in levels[1:])
    variance = sum(level.variance for level in levels)
    reach = 0.0
    if variance > 0:
        # Welch and Satterthwaite: the degrees of freedom of a sum of variances.
        shares = sum(level.variance**2 / (level.n - 1) for level in levels)
        reach = student(variance**2 / shares) * math.sqrt(variance)
    spread = math.sqrt(sum(level.spread for level in levels))
    return Ratio(
        math.exp(difference),
        Interval(math.exp(difference - reach), math.exp(difference + reach)),
        math.expm1(spread),
    )


def student(freedom: float) -> float:
    """Return the quantile of Student's t that leaves 2.5 % above it, of any degrees of freedom.

    With t = sqrt(freedom) tan(angle), its density is a power of the angle's cosine.
    """
    angles = np.linspace(0, math.pi / 2, 20001)
    density = np.cos(angles) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    angle = np.interp(_CONFIDENCE * below[-1], below, angles)
    return math.sqrt(freedom) * math.tan(float(angle))
