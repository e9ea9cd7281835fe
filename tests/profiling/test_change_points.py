import numpy as np
import pytest

from edgekit.profiling.change_points import find_change

N = 400
RUN = np.arange(N)


def noise(seed=0, n=N):
    return 5 * (1 + 0.02 * np.random.default_rng(seed).normal(size=n))


def test_a_step_is_found_where_it_is():
    change = find_change(noise() * (1 + 0.1 * (RUN >= 150)), 0.001)
    assert change.shape == "step"
    assert (change.first, change.end) == (pytest.approx(150, abs=2), N)
    assert change.size == pytest.approx(0.1, abs=0.01)


def test_a_while_at_another_level_is_found():
    change = find_change(noise() * (1 + 0.1 * ((RUN >= 150) & (RUN < 260))), 0.001)
    assert change.shape == "bump"
    assert (change.first, change.end) == (pytest.approx(150, abs=2), pytest.approx(260, abs=2))
    assert change.size == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("rise", [0.1, -0.1])
def test_a_slow_trend_is_told_from_a_step(rise):
    change = find_change(noise() * (1 + rise * RUN / N), 0.001)
    assert change.shape == "trend"
    assert change.size == pytest.approx(rise, abs=0.02)


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_chance_is_no_change_with_or_without_memory(memory):
    generator = np.random.default_rng(1)
    found = 0
    for _ in range(300):
        steps = generator.normal(size=N + 50)
        series = steps.copy()
        for index in range(1, steps.size):
            series[index] = memory * series[index - 1] + steps[index]
        found += find_change(100 + series[50:], 0.01) is not None
    assert found <= 3 + 3 * np.sqrt(3)


def test_outliers_and_equal_values_are_no_change():
    outliers = noise() * np.where(RUN % 40 == 39, 100, 1)
    assert find_change(outliers, 0.001) is None
    assert find_change(np.full(N, 5.0), 0.1) is None
    assert find_change(np.tile([5.0, 6.0], N), 0.01) is None
    assert find_change(np.r_[np.zeros(N), np.ones(N)], 0.01) is None  # no size can be told


@pytest.mark.parametrize("n", [0, 1, 19])
def test_few_runs_show_nothing(n):
    assert find_change(noise(n=n), 0.1) is None
