"""How well a measured percentile is known, and how many runs it takes to know it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.profiling.dependence import is_clustered, variance_inflation
from edgekit.runtime.statistics import Interval

_TAIL = 0.1
_ENOUGH_OUTSIDE = 50
_FEWEST_IN_PILOT = 10
_KEEPS_ITS_WIDTH = NormalDist().inv_cdf(0.9)

Values = Sequence[float] | NDArray[np.float64]


def percentile_interval(values: Values, percentile: float, level: float = 0.95) -> Interval | None:
    """Return the confidence interval of a percentile, whatever the distribution.

    Its ends are order statistics, whose ranks follow from the binomial distribution of the number
    of runs below the percentile. Between ranks they are interpolated, because whole ranks cover
    more than was asked: for the median after Hettmansperger and Sheather (1986), for other
    percentiles after Nyblom (1992), both in Statistics & Probability Letters.

    Runs that depend on their neighbours tell less. Where the runs outside the percentile, or the
    outer fifty where those are fewer, stand together (`dependence.is_clustered`, 1 % by mistake),
    both ranks move away from the percentile by the square root of `dependence.variance_inflation`
    of the series 1[run is outside], times Student's t over the normal distribution's, for half as
    many degrees of freedom as the series holds independent runs. What no test finds is not in it.

    Args:
        values: latencies in the order they were measured, [n], any unit.
        percentile: above 0 and below 100.
        level: confidence, 0..1.

    Returns:
        The interval in the unit of the values; None where there are too few of them: below
        `fewest_runs`, or more where they depend on each other.

    Raises:
        UsageError: a percentile, level or value that makes no sense.
    """
    series = _checked(values, percentile)
    share = percentile / 100
    if series.size < fewest_runs(percentile, level):
        return None
    ends = _ranks(series.size, share, _level(level))
    if ends is None:
        return None
    ordered = np.sort(series)
    wider = _widening(series, ordered, share, level)
    if wider > 1:
        middle = series.size * share + 0.5
        ends = (middle + (ends[0] - middle) * wider, middle + (ends[1] - middle) * wider)
        if ends[0] < 1 or ends[1] > series.size:
            return None
    return Interval(_at(ordered, ends[0]), _at(ordered, ends[1]))


def fewest_runs(percentile: float, level: float = 0.95) -> int:
    """Return how many independent runs a confidence interval of a percentile takes at least.

    >>> fewest_runs(50), fewest_runs(90), fewest_runs(99)
    (6, 36, 368)
    """
    share = _share(percentile)
    rarer = min(share, 1 - share)
    return math.ceil(math.log((1 - _level(level)) / 2) / math.log1p(-rarer))


def runs_needed(pilot: Values, percentile: float, relative_width: float) -> int:
    """Return how many runs make the 95 % interval of a percentile narrow enough.

    A design in two stages (Stein 1945): a pilot fixes the number of runs, then that many NEW runs
    are measured and nobody looks in between, so the interval covers what it says. To stop once it
    happens to be narrow would not. The width falls with the square root of the number. The pilot's
    and the final width are chance both, so the number is made so much larger that nine
    measurements in ten keep the width.

    Args:
        pilot: latencies that were measured before, [n], at least 10; more make a better guess.
        percentile: above 0 and below 100.
        relative_width: of the interval, both sides together, as a share of the percentile.

    Returns:
        The number of runs, not limited: see that it fits into the time there is.

    Raises:
        UsageError: a percentile, width or pilot that makes no sense.
    """
    series = _checked(pilot, percentile)
    if not (0 < relative_width < math.inf and series.size >= _FEWEST_IN_PILOT):
        raise UsageError(
            f"`relative_width` must be above 0 and `pilot` hold at least {_FEWEST_IN_PILOT} "
            f"latencies; got {relative_width}, {series.size}"
        )
    share = percentile / 100
    fewest = fewest_runs(percentile)
    interval = percentile_interval(series, percentile)
    if interval is not None:
        width, known = interval.high - interval.low, _runs_inside(series.size, share)
    else:
        width, known = _width_of_tail(series, share)
    estimate = np.sort(series)[max(math.ceil(series.size * share) - 1, 0)]
    wanted = relative_width * abs(float(estimate))
    if width <= 0 or wanted <= 0:
        return fewest
    runs = series.size * (width / wanted) ** 2
    chance = math.sqrt(1 / known + 1 / _runs_inside(max(runs, fewest), share))
    return max(fewest, math.ceil(runs * (1 + _KEEPS_ITS_WIDTH * chance) ** 2))


def _runs_inside(n: float, share: float) -> float:
    """Return how many of n runs lie inside the interval: its width is a sum of so many gaps."""
    return max(1.0, 2 * 1.96 * math.sqrt(n * share * (1 - share)))


def _width_of_tail(series: NDArray[np.float64], share: float) -> tuple[float, int]:
    """Return the interval's width with as many runs, were the outer tenth exponential.

    Also of how many runs it was learned.
    """
    towards = series if share >= 0.5 else -series
    outside = min(share, 1 - share)
    count = max(3, round(_TAIL * series.size))
    tail = np.sort(towards)[-count - 1 :]
    scale = float(tail[1:].mean() - tail[0])
    return 2 * 1.96 * scale * math.sqrt((1 - outside) / (outside * series.size)), count


def _widening(
    series: NDArray[np.float64], ordered: NDArray[np.float64], share: float, level: float
) -> float:
    """Return by how much dependence moves the ranks away from the percentile, 1 without any."""
    inflation = 1.0
    outside = math.floor(series.size * min(share, 1 - share))
    for count in {outside, min(max(outside, _ENOUGH_OUTSIDE), series.size // 2)}:
        outer = series > ordered[-count - 1] if share >= 0.5 else series < ordered[count]
        if is_clustered(outer):
            inflation = max(inflation, variance_inflation(outer.astype(np.float64)))
    if inflation == 1:
        return 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    freedom = max(2.0, series.size / (2 * inflation))
    # Student's t by its expansion in 1 / degrees of freedom (Fisher and Cornish 1960).
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return math.sqrt(inflation) * t / z


def _at(ordered: NDArray[np.float64], rank: float) -> float:
    """Return the value at a rank from 1 on, between two values where it is between two ranks."""
    lower = min(int(rank), ordered.size - 1)
    low, high = ordered[lower - 1], ordered[lower]
    return float(low + (rank - lower) * (high - low))


@functools.lru_cache(maxsize=1024)
def _ranks(n: int, share: float, level: float) -> tuple[float, float] | None:
    low, from_top = _lower_rank(n, share, level), _lower_rank(n, 1 - share, level)
    return None if low is None or from_top is None else (low, n + 1 - from_top)


def _lower_rank(n: int, share: float, level: float) -> float | None:
    """Return the rank below which the quantile lies with half of what the interval may miss."""
    misses = (1 - level) / 2
    first = max(0, int(n * share - 12 * math.sqrt(n * share * (1 - share)) - 12))
    counts = np.arange(first, max(first + 2, int(n * share) + 2))
    # P(quantile < r-th smallest) = P(at most r - 1 of n values are below it): at index r - 1.
    at_most = np.cumsum(_binomial(counts, n, share))
    place = int(np.searchsorted(at_most, misses, side="right"))
    if place == 0:
        return None
    rank = first + place
    inner, outer = at_most[place] - misses, misses - at_most[place - 1]
    return rank + float(1 / (1 + rank * (1 - share) * inner / ((n - rank) * share * outer)))


def _binomial(counts: NDArray[np.int64], n: int, share: float) -> NDArray[np.float64]:
    """Return the probabilities of consecutive counts."""
    first = int(counts[0])
    log_first = (
        math.lgamma(n + 1)
        - math.lgamma(first + 1)
        - math.lgamma(n - first + 1)
        + first * math.log(share)
        + (n - first) * math.log1p(-share)
    )
    steps = np.log((n - counts[:-1]) / (counts[:-1] + 1.0) * (share / (1 - share)))
    logs: NDArray[np.float64] = log_first + np.concatenate(([0.0], np.cumsum(steps)))
    return np.exp(logs)


def _checked(values: Values, percentile: float) -> NDArray[np.float64]:
    _share(percentile)
    series = np.asarray(values, np.float64)
    if series.ndim != 1 or not series.size or not np.isfinite(series).all():
        raise UsageError(
            f"`values` must be a series of finite numbers; got shape {list(series.shape)}"
            + (" with NaN or infinity" if series.ndim == 1 and series.size else "")
        )
    return series


def _share(percentile: float) -> float:
    if not 0 < percentile < 100:
        raise UsageError(f"`percentile` must be above 0 and below 100; got {percentile}")
    return percentile / 100


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise UsageError(f"`level` must be above 0 and below 1, as 0.95; got {level}")
    return level
