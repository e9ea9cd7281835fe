"""Intervals hold what they promise, and agree with a bootstrap written out the long way."""

import itertools
import math

import numpy as np
import pytest

from edgekit.evaluation.changed import ChangedSamples
from edgekit.evaluation.intervals import estimates, sign_test
from edgekit.evaluation.metrics import Classification, Regression
from edgekit.evaluation.metrics.sums import RESAMPLES
from edgekit.evaluation.summary import summarize
from edgekit.runtime.statistics import Interval


def classification(scores, labels):
    metrics = Classification(scores.shape[1], len(labels))
    for one, label in zip(scores, labels, strict=True):
        metrics.add(one, label)
    return metrics


def noisy(random, labels, classes, sureness=0.3):
    scores = random.dirichlet(np.ones(classes), len(labels)) + sureness * np.eye(classes)[labels]
    return (scores / scores.sum(1, keepdims=True)).astype(np.float32)


def interval(metrics, name, n):
    statistics = metrics.statistics()
    value = statistics.of_the_set().whole[name]
    return estimates(value, statistics.of_resamples().whole[name][:, None], n)[0].interval


def test_resampled_sums_equal_metrics_of_the_resampled_samples():
    """The bootstrap the long way: samples drawn, each drawn set measured from its scores."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 150)
    scores = noisy(random, labels, 4)
    drawn = [random.integers(0, 150, 150) for _ in range(300)]
    long_way = [
        classification(scores[one], labels[one]).statistics().of_the_set().whole for one in drawn
    ]
    resamples = classification(scores, labels).statistics().of_resamples().whole
    for name in ("accuracy", "macro_precision", "macro_f1", "macro_roc_auc", "calibration_error"):
        there = np.array([one[name][0] for one in long_way])
        here = resamples[name]
        assert here.shape == (RESAMPLES,)
        # Both are random: five standard errors of the means, and a fifth of the spread.
        assert abs(here.mean() - there.mean()) < 5 * there.std() / np.sqrt(300)
        assert 0.8 < here.std() / there.std() < 1.25


def test_an_intervals_ends_are_those_of_a_normal_approximation_where_that_holds():
    labels = np.zeros(1000, int)
    right = np.arange(1000) % 4 != 0
    scores = np.stack([right, ~right], 1).astype(np.float32)
    found = interval(classification(scores, labels), "accuracy", 1000)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 1000)
    assert (found.low, found.high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.003)


def test_the_same_set_gives_the_same_interval():
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, 40)
    scores = noisy(random, labels, 3)
    one, other = (interval(classification(scores, labels), "macro_f1", 40) for _ in range(2))
    assert one == other


def test_what_is_not_defined_has_no_value_and_one_sample_no_interval():
    values = np.array([np.nan, 0.5])
    (nothing, half) = estimates(values, np.full((9, 2), 0.5), 10)
    assert (nothing.value, nothing.interval) == (None, None)
    assert half.interval == Interval(0.5, 0.5)
    assert estimates(values, np.full((9, 2), 0.5), 1)[1].interval is None


def test_figures_defined_in_few_resamples_only_have_no_interval():
    drawn = np.full((100, 1), np.nan)
    drawn[0] = 1.0
    assert estimates(np.array([1.0]), drawn, 10)[0].interval is None


def test_the_interval_moves_against_the_bias_of_resamples():
    """Resamples that lie above the value mostly, as of the calibration error."""
    drawn = np.linspace(0.09, 0.29, 1001)[:, None]
    found = estimates(np.array([0.1]), drawn, 50)[0].interval
    assert found.low <= 0.1 < found.high < np.quantile(drawn, 0.9)


def test_the_interval_of_a_difference_is_paired():
    """Two models that err alike differ by little, however unsure each is by itself."""
    random = np.random.default_rng(2)
    labels = random.integers(0, 3, 60)
    scores = noisy(random, labels, 3, 0.2)
    nudged = scores.copy()
    nudged[0] = np.roll(nudged[0], 1)
    one, other = classification(scores, labels), classification(nudged, labels)
    found = summarize("classification", one, other, None, (), ChangedSamples("classification"))
    alone, paired = (found.intervals[name] for name in ("accuracy", "difference_accuracy"))
    assert alone.high - alone.low > 0.15
    assert paired.high - paired.low < 0.08
    assert found.metrics["difference_accuracy"] == pytest.approx(
        found.metrics["accuracy"] - found.metrics["source_accuracy"]
    )


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (3, 9), (7, 7), (40, 12)])
def test_the_sign_test_counts_all_splits_as_uneven(better, worse):
    found = sign_test(
        np.array([1] * better + [0] * worse + [1, 0], float),
        np.array([0] * better + [1] * worse + [1, 0], float),
    )
    n = better + worse
    uneven = abs(better - worse)
    expected = sum(math.comb(n, k) for k in range(n + 1) if abs(n - 2 * k) >= uneven) / 2**n
    assert (found.better, found.worse) == (better, worse)
    assert found.p_value == pytest.approx(min(1, expected))


def test_the_sign_test_of_many_samples_neither_overflows_nor_ends_at_zero_early():
    found = sign_test(
        np.r_[np.ones(50_500), np.zeros(49_500)], np.r_[np.zeros(50_500), np.ones(49_500)]
    )
    # By the normal approximation z = 1000 / sqrt(100000), two-sided.
    assert found.p_value == pytest.approx(math.erfc(3.1591 / math.sqrt(2)), rel=0.02)


def test_single_numbers_are_resampled_without_a_warning():
    metrics = Regression()
    for one, other in itertools.islice(zip(range(4), range(4), strict=True), 4):
        metrics.add(np.array([one + 0.5]), np.array([other]))
    assert interval(metrics, "mae", 4) == Interval(0.5, 0.5)
    found = interval(metrics, "r2", 4)
    assert found.low <= found.high <= 1
