import numpy as np
import pytest

from edgekit.errors import UsageError
from edgekit.profiling.dependence import is_clustered, variance_inflation
from edgekit.profiling.quantiles import fewest_runs, percentile_interval, runs_needed


def autoregressive(generator, n, memory):
    """Return a stationary AR(1) series of standard normal values."""
    noise = generator.normal(size=n) * np.sqrt(1 - memory**2)
    series = np.empty(n)
    value = generator.normal()
    for index in range(n):
        value = memory * value + noise[index]
        series[index] = value
    return series


@pytest.mark.parametrize(("percentile", "fewest"), [(50, 6), (90, 36), (10, 36), (99, 368)])
def test_an_interval_needs_as_many_runs_as_its_percentile_is_rare(percentile, fewest):
    assert fewest_runs(percentile) == fewest
    values = np.random.default_rng(0).normal(10, 1, fewest)
    assert percentile_interval(values[1:], percentile) is None
    assert percentile_interval(values, percentile) is not None


@pytest.mark.parametrize("n", [40, 400, 5000, 1_000_000])
@pytest.mark.parametrize("percentile", [10, 50, 90])
def test_an_interval_lies_around_its_percentile(n, percentile):
    values = np.random.default_rng(n).exponential(5, n)
    narrow = percentile_interval(values, percentile, level=0.8)
    wide = percentile_interval(values, percentile)
    measured = np.percentile(values, percentile, method="inverted_cdf")
    assert wide.low < narrow.low < measured < narrow.high < wide.high
    mirrored = percentile_interval(-values, 100 - percentile)
    assert (-mirrored.high, -mirrored.low) == pytest.approx((wide.low, wide.high))


def test_the_ends_lie_where_the_binomial_distribution_puts_them():
    # n = 10, the median: P(B <= 1) = 11/1024 = 1.07 %, P(B <= 2) = 56/1024 = 5.47 %: between the
    # second and the third value, by the weight of Hettmansperger and Sheather (1986).
    within = (0.025 - 11 / 1024) / (45 / 1024)
    weight = 8 * within / (8 * within + 2 * (1 - within))
    interval = percentile_interval(np.arange(1.0, 11.0), 50)
    assert interval.low == pytest.approx(2 + weight)
    assert interval.high == pytest.approx(9 - weight)


def test_equal_values_have_an_interval_of_no_width():
    interval = percentile_interval([5.0] * 400, 99)
    assert (interval.low, interval.high) == (5, 5)
    assert runs_needed([5.0] * 400, 99, 0.01) == 368


def test_runs_that_depend_on_each_other_tell_less():
    generator = np.random.default_rng(7)
    series = 100 + autoregressive(generator, 2000, 0.9)
    shuffled = generator.permutation(series)
    for percentile in (50, 90):
        dependent = percentile_interval(series, percentile)
        independent = percentile_interval(shuffled, percentile)
        widths = [i.high - i.low for i in (dependent, independent)]
        assert widths[0] > 2 * widths[1]
    assert percentile_interval(series[:500], 99) is None
    assert percentile_interval(shuffled[:500], 99) is not None


def test_the_test_of_dependence_is_exact_for_few_and_for_many():
    generator = np.random.default_rng(3)
    for outside in (4, 40, 200):
        flags = np.arange(400) < outside
        assert is_clustered(flags)
        found = sum(is_clustered(generator.permutation(flags)) for _ in range(1000))
        assert found <= 10 + 3 * np.sqrt(10)
    assert not is_clustered(np.zeros(10, bool))
    assert not is_clustered(np.ones(10, bool))


@pytest.mark.parametrize(("memory", "inflation"), [(0.0, 1.0), (0.5, 3.0), (0.8, 9.0)])
def test_dependence_is_measured_as_it_is(memory, inflation):
    generator = np.random.default_rng(11)
    found = [variance_inflation(autoregressive(generator, 2000, memory)) for _ in range(30)]
    assert np.mean(found) == pytest.approx(inflation, rel=0.15)


@pytest.mark.parametrize("pilot_runs", [30, 400])
@pytest.mark.parametrize(("percentile", "width"), [(50, 0.03), (90, 0.05), (99, 0.2)])
def test_the_runs_of_a_pilot_make_the_interval_narrow_enough(percentile, width, pilot_runs):
    generator = np.random.default_rng(percentile)
    kept = 0
    for _ in range(100):
        runs = runs_needed(generator.lognormal(1, 0.15, pilot_runs), percentile, width)
        values = generator.lognormal(1, 0.15, runs)
        interval = percentile_interval(values, percentile)
        kept += interval is not None and interval.high - interval.low <= width * np.percentile(
            values, percentile
        )
    assert kept >= 75  # nine in ten, but for a small pilot's guess of the tail


def test_wrong_arguments_are_told():
    good = np.ones(100)
    for percentile in (0, 100, -1, float("nan")):
        with pytest.raises(UsageError, match="`percentile` must be above 0 and below 100"):
            percentile_interval(good, percentile)
    for level in (0, 1, 95):
        with pytest.raises(UsageError, match=f"`level` must be above 0 .* got {level}"):
            percentile_interval(good, 50, level)
    for values in ([], [[1.0, 2.0]], [1.0, float("nan")], [float("inf")] * 9):
        with pytest.raises(UsageError, match="`values` must be a series of finite numbers"):
            percentile_interval(values, 50)
    for width, pilot in ((0, good), (-1, good), (float("nan"), good), (0.1, good[:9])):
        with pytest.raises(UsageError, match="`relative_width` must be above 0 and `pilot` hold"):
            runs_needed(pilot, 50, width)
