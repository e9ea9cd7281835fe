"""Warm-up on a clock that only the planted model advances."""

import itertools

import numpy as np
import pytest

from edgekit.profiling.warm_up import keeps_its_level, warm_up


class Clock:
    """Seconds that pass when a run takes them."""

    def __init__(self, latencies_s):
        self.now_s = 0.0
        self._latencies_s = iter(latencies_s)

    def run(self):
        self.now_s += next(self._latencies_s)

    def __call__(self):
        return self.now_s


def warmed(latencies_s, **options):
    clock = Clock(latencies_s)
    return warm_up(clock.run, clock, **options)


def noise(seed, spread=0.02, n=3000):
    return 1 + spread * np.abs(np.random.default_rng(seed).normal(size=n))


@pytest.mark.parametrize(
    ("latency_s", "fewest", "most"),
    [(50e-6, 3000, 7000), (5e-3, 38, 100), (0.05, 40, 100), (0.5, 12, 20)],
)
def test_runs_of_any_length_are_judged_in_time(latency_s, fewest, most):
    found = warmed(latency_s * noise(1, n=20000))
    assert found.steady
    assert fewest <= found.runs <= most
    assert 0.2 <= found.seconds < 10
    assert found.latest_ms == pytest.approx(1000 * latency_s, rel=0.2)
    assert len(found.latest_ms) >= found.runs // 2


def test_a_latency_that_settles_is_waited_for():
    decay = 1 + 2 * np.exp(-np.arange(3000) / 100)
    found = warmed(5e-3 * decay * noise(2))
    assert found.steady
    assert np.median(found.latest_ms) < 5 * 1.05 * np.median(noise(2))


def test_a_slow_first_run_is_forgotten():
    found = warmed(itertools.chain([3.0], 5e-3 * noise(3)))
    assert found.steady
    assert found.latest_ms.max() < 10


def test_what_never_settles_ends_in_time_and_is_told():
    found = warmed(5e-3 * noise(4) * np.exp(np.arange(3000) / 100), most_s=6.0)
    assert not found.steady
    assert 6.0 <= found.seconds < 7.0


def test_a_run_longer_than_the_time_there_is_is_not_called_steady():
    found = warmed([20.0, 20.0])
    assert (found.runs, found.steady, found.seconds) == (1, False, 20.0)


def test_a_heavy_tail_is_steady():
    generator = np.random.default_rng(5)
    steady = [warmed(5e-3 * generator.lognormal(0, 0.7, 3000)).steady for _ in range(50)]
    assert all(steady)


@pytest.mark.parametrize("n", [12, 50, 500])
def test_a_level_that_moved_is_seen_and_noise_is_not(n):
    level = 5 * noise(6, n=n)
    assert keeps_its_level(level)
    assert not keeps_its_level(level * np.where(np.arange(n) < n // 2, 1.3, 1))
    assert not keeps_its_level(level * np.where(np.arange(n) < n // 2, 1, 1.3))
    assert keeps_its_level(level * (1 + 0.01 * (np.arange(n) >= n // 2)))  # 1 % does not matter
