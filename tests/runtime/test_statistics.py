import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.runtime.statistics import Samples


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values):
    samples = Samples()
    for value in values:
        samples.add(value)
    summary = samples.summary()
    for share, found in ((50, summary.p50), (90, summary.p90), (99, summary.p99)):
        enough = [v for v in values if 100 * sum(w <= v for w in values) >= share * len(values)]
        assert found == min(enough)
    assert summary.max == max(values)
    assert summary.mean == pytest.approx(sum(values) / len(values), rel=1e-9, abs=1e-9)


def test_memory_is_bounded_and_the_sample_is_fair():
    samples = Samples(limit=500)
    count = 20_000
    for value in range(count):
        samples.add(value)
    assert len(samples.values) == 500
    summary = samples.summary()
    assert samples.count == count
    assert summary.max == count - 1
    assert summary.mean == (count - 1) / 2
    # Six standard deviations of a sample of 500.
    assert abs(summary.p50 - count / 2) < 6 * count * np.sqrt(0.25 / 500)
    assert abs(summary.p90 - 0.9 * count) < 6 * count * np.sqrt(0.09 / 500)


def test_two_runs_of_the_same_measurements_say_the_same():
    one, other = Samples(limit=10), Samples(limit=10)
    for value in range(1000):
        one.add(value)
        other.add(value)
    assert one.summary() == other.summary()
