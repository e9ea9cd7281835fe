"""The ratio's interval covers the truth, and the verdict is right, on figures of known truth."""

import numpy as np
import pytest

from edgekit.profiling.compare.figures import memory_once
from edgekit.profiling.compare.ratio import ratio_of_groups, ratio_of_pairs
from edgekit.runtime.statistics import Interval

TRIALS = 400
ROUNDS = 10
ERROR = (0.95 * 0.05 / TRIALS) ** 0.5  # of the share of so many trials
LEAST_COVERAGE = 0.95 - 3 * ERROR


def openings(random, truth, count, of_opening, of_round):
    """Return the logarithms of the ratio in each opening: the median of its rounds."""
    rounds = np.log(truth) + random.normal(0, of_opening, (count, 1))
    return np.median(rounds + random.normal(0, of_round, (count, ROUNDS)), 1)


@pytest.mark.parametrize("count", [3, 8])
@pytest.mark.parametrize("of_opening, of_round", [(0.015, 0.0), (0.015, 0.02), (0.0, 0.03)])
def test_the_interval_of_pairs_covers_the_truth(count, of_opening, of_round):
    random = np.random.default_rng(1)
    found = [
        ratio_of_pairs(openings(random, 1.05, count, of_opening, of_round)).interval
        for _ in range(TRIALS)
    ]
    covered = np.mean([one.low <= 1.05 <= one.high for one in found])
    assert LEAST_COVERAGE <= covered <= 0.95 + 3 * ERROR


@pytest.mark.parametrize("blocks", [(3, 3), (3, 8), (5, 5), (10, 10)])
def test_the_interval_of_processes_covers_the_truth(blocks):
    random = np.random.default_rng(2)
    found = []
    for _ in range(TRIALS):
        a = 5.0 * random.lognormal(0, 0.015, blocks[0])
        b = 5.0 * 1.05 * random.lognormal(0, 0.03, blocks[1])
        found.append(ratio_of_groups(a, b).interval)
    assert np.mean([one.low <= 1.05 <= one.high for one in found]) >= LEAST_COVERAGE


@pytest.mark.parametrize("truth, right", [(1.0, "cannot tell"), (1.05, "slower"), (0.95, "faster")])
def test_the_verdict_is_right(truth, right):
    random = np.random.default_rng(3)
    verdicts = [
        ratio_of_pairs(openings(random, truth, 8, 0.012, 0.02)).verdict("p50")
        for _ in range(TRIALS)
    ]
    assert np.mean([verdict == right for verdict in verdicts]) >= 0.97


def test_what_reopening_alone_could_make_is_never_a_verdict():
    """Many openings make the interval narrow; one opening still differs more than that."""
    logs = np.log(1.01) + np.random.default_rng(4).normal(0, 0.03, 400)
    ratio = ratio_of_pairs(logs)
    assert ratio.interval.low > 1
    assert 0.02 < ratio.reopening < 0.04
    assert ratio.verdict("p50") == "cannot tell"


def test_both_directions_tell_the_same():
    random = np.random.default_rng(5)
    a, b = random.lognormal(0, 0.02, 5), 1.2 * random.lognormal(0, 0.02, 5)
    there, back = ratio_of_groups(a, b), ratio_of_groups(b, a)
    assert there.value == pytest.approx(1 / back.value)
    assert there.interval.low == pytest.approx(1 / back.interval.high, rel=0.01)
    assert (there.verdict("p50"), back.verdict("p50")) == ("slower", "faster")
    assert (there.verdict("cpu"), back.verdict("memory")) == ("more", "less")


def test_what_never_varies_has_an_interval_of_no_width():
    same = ratio_of_groups(np.full(3, 2.0), np.full(3, 2.0))
    assert same.interval == Interval(pytest.approx(1.0), pytest.approx(1.0))
    assert same.verdict("p50") == "cannot tell"
    twice = ratio_of_groups(np.full(3, 2.0), np.full(3, 4.0))
    assert twice.interval == Interval(pytest.approx(2.0), pytest.approx(2.0))
    assert twice.verdict("p50") == "slower"


def test_memory_that_was_measured_once_is_judged_by_what_repeats():
    assert memory_once(100.0, 101.0).verdict == "cannot tell"
    assert memory_once(100.0, 103.0).verdict == "more"
    assert memory_once(103.0, 100.0).verdict == "less"
    assert memory_once(100.0, 103.0).interval is None
