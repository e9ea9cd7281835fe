"""The proof: planted distributions on a clock that only the planted model advances; nobody sleeps.

Every trial goes the way of a measurement: warm-up, number of runs from its pilot, that many runs,
intervals of their percentiles, and what is to be known of them.
"""

import itertools
import math
from collections import Counter
from statistics import NormalDist

import numpy as np
import pytest

from edgekit.profiling.quantiles import percentile_interval, runs_needed
from edgekit.profiling.results import Moment, Pressure
from edgekit.profiling.trust import Observed, examine
from edgekit.profiling.warm_up import warm_up

TRIALS = 2000
FEWEST, MOST = 370, 450
PERCENTILES = (50, 90, 99)
THREE_STANDARD_ERRORS = 3 * math.sqrt(0.05 * 0.95 / TRIALS)
QUIET = Pressure(
    wall_s=2.0, cpu_stalled=0.01, stolen=0.0, others=0.1, involuntary_switches=3, throttled_s=0.0
)


def normal(quantile):
    return NormalDist().inv_cdf(quantile)


def constant(generator, n):
    return 5e-3 * (1 + 0.005 * generator.standard_normal(n))


def lognormal(generator, n):
    return 5e-3 * np.exp(0.5 * generator.standard_normal(n))


def pareto(generator, n):
    return 4e-3 * generator.random(n) ** (-1 / 2.5)


def bimodal(generator, n):
    return np.where(generator.random(n) < 0.6, 1, 1.3) * constant(generator, n)


def drifting(generator, n):
    return constant(generator, n) * (1 + 0.1 * np.arange(n) / n)


def throttled(generator, n):
    return constant(generator, n) / np.where(np.arange(n) < generator.uniform(0.2, 0.8) * n, 1, 0.8)


def bimodal_quantile(share):
    low, high = 0.9, 1.4
    for _ in range(60):
        middle = (low + high) / 2
        below = 0.6 * NormalDist(1, 0.005).cdf(middle) + 0.4 * NormalDist(1.3, 0.0065).cdf(middle)
        low, high = (middle, high) if below < share else (low, middle)
    return low


TRUTH_S = {
    constant: lambda share: 5e-3 * (1 + 0.005 * normal(share)),
    lognormal: lambda share: 5e-3 * math.exp(0.5 * normal(share)),
    pareto: lambda share: 4e-3 * (1 - share) ** (-1 / 2.5),
    bimodal: lambda share: 5e-3 * bimodal_quantile(share),
}


class Clock:
    """Seconds that pass when the planted model runs."""

    def __init__(self):
        self.now_s = 0.0
        self.latencies_s = iter(())

    def run(self):
        self.now_s += next(self.latencies_s)

    def __call__(self):
        return self.now_s


def measure(plant, generator, sees_clocks):
    """Return what a measurement of a planted model sees; before it is measured it is healthy."""
    clock = Clock()
    before = constant if plant in (drifting, throttled) else plant
    clock.latencies_s = itertools.chain.from_iterable(
        before(generator, 100).tolist() for _ in itertools.count()
    )
    warmed = warm_up(clock.run, clock)
    runs = min(max(runs_needed(warmed.latest_ms, 50, 0.02), FEWEST), MOST)
    planted_s = plant(generator, runs)
    clock.latencies_s = iter(planted_s.tolist())
    times_s = [clock()]
    for _ in range(runs):
        clock.run()
        times_s.append(clock())
    times_s = np.array(times_s) - times_s[0]
    latencies_ms = np.diff(times_s) * 1000
    return Observed(
        latencies_ms=latencies_ms,
        starts_s=times_s[:-1],
        cpu_ms=latencies_ms * 0.99,
        pressure=QUIET,
        telemetry=moments(plant, generator, planted_s, times_s) if sees_clocks else (),
        steady=warmed.steady,
    )


def moments(plant, generator, planted_s, times_s):
    """Return ten readings of a clock a second, which falls where the planted one does."""
    at_s = np.arange(0, times_s[-1], 0.1)
    mhz = 1500 * (1 + 0.005 * generator.standard_normal(at_s.size))
    if plant is throttled:
        mhz *= np.where(planted_s[np.searchsorted(times_s, at_s, "right") - 1] > 5.6e-3, 0.8, 1)
    return tuple(
        Moment(at_s=at, clocks_mhz={"cpu0": one, "cpu1": 600.0})
        for at, one in zip(at_s.tolist(), mhz.tolist(), strict=True)
    )


class Outcomes:
    """Of all trials of one plant: what was covered, told and doubted."""

    def __init__(self, plant, sees_clocks=False):
        self.covered, self.known = Counter(), Counter()
        self.told, self.doubted = Counter(), 0
        generator = np.random.default_rng(8)
        for _ in range(TRIALS):
            observed = measure(plant, generator, sees_clocks)
            findings = examine(observed)
            self.told.update(finding.code for finding in findings)
            self.doubted += any(finding.is_doubt for finding in findings)
            if plant in TRUTH_S:
                self._cover(observed.latencies_ms, TRUTH_S[plant])

    def _cover(self, latencies_ms, truth_s):
        for percentile in PERCENTILES:
            interval = percentile_interval(latencies_ms, percentile)
            if interval is not None:
                self.known[percentile] += 1
                truth_ms = 1000 * truth_s(percentile / 100)
                self.covered[percentile] += interval.low <= truth_ms <= interval.high

    def coverage(self, percentile):
        return self.covered[percentile] / self.known[percentile]

    def __str__(self):
        shares = [f"p{p} covered in {100 * self.coverage(p):.2f} %" for p in self.known]
        shares += [f"{code} told in {100 * n / TRIALS:.2f} %" for code, n in self.told.items()]
        return ", ".join([*shares, f"doubted in {100 * self.doubted / TRIALS:.2f} %"])


def assert_covered(outcomes):
    for percentile in PERCENTILES:
        assert outcomes.known[percentile] >= 0.97 * TRIALS
        assert abs(outcomes.coverage(percentile) - 0.95) <= THREE_STANDARD_ERRORS, str(outcomes)


@pytest.mark.parametrize("plant", [constant, lognormal, pareto])
def test_healthy_runs_are_covered_and_not_accused(plant):
    outcomes = Outcomes(plant, sees_clocks=True)
    print(plant.__name__, outcomes)
    assert_covered(outcomes)
    assert outcomes.doubted <= (0.05 + THREE_STANDARD_ERRORS) * TRIALS, str(outcomes)
    if plant is not constant:
        assert outcomes.told["heavy-tail"] >= 0.95 * TRIALS, str(outcomes)


def test_two_modes_are_covered_and_named():
    outcomes = Outcomes(bimodal)
    print(outcomes)
    assert_covered(outcomes)
    assert outcomes.told["two-modes"] >= 0.95 * TRIALS, str(outcomes)


@pytest.mark.parametrize(
    ("plant", "sees_clocks", "code"),
    [
        (drifting, False, "drift"),
        (throttled, True, "throttling"),
        (throttled, False, "level-shift"),
    ],
)
def test_what_changes_meanwhile_is_named(plant, sees_clocks, code):
    outcomes = Outcomes(plant, sees_clocks)
    print(plant.__name__, outcomes)
    assert outcomes.told[code] >= 0.95 * TRIALS, str(outcomes)
    assert outcomes.doubted >= 0.95 * TRIALS, str(outcomes)


@pytest.mark.parametrize("memory", [0.5, 0.8])
def test_healthy_runs_that_depend_on_each_other_are_covered_nearly_as_well(memory):
    """Runs whose latency wanders by 3 %: no accusation, and intervals that are wide enough."""
    generator = np.random.default_rng(30)
    trials, runs, settling = 600, 1000, 100
    steps = generator.standard_normal((trials, runs + settling)) * math.sqrt(1 - memory**2)
    wander = np.zeros_like(steps)
    for index in range(1, runs + settling):
        wander[:, index] = memory * wander[:, index - 1] + steps[:, index]
    covered, doubted = Counter(), 0
    for latencies_ms in 5 * (1 + 0.03 * wander[:, settling:]):
        starts_s = (np.cumsum(latencies_ms) - latencies_ms) / 1000
        findings = examine(Observed(latencies_ms=latencies_ms, starts_s=starts_s))
        doubted += any(finding.is_doubt for finding in findings)
        for percentile in (50, 90):
            interval = percentile_interval(latencies_ms, percentile)
            truth_ms = 5 * (1 + 0.03 * normal(percentile / 100))
            covered[percentile] += interval.low <= truth_ms <= interval.high
    print(memory, {p: n / trials for p, n in covered.items()}, doubted / trials)
    error = math.sqrt(0.05 * 0.95 / trials)
    assert min(covered.values()) / trials >= 0.95 - 3 * error
    assert doubted / trials <= 0.05 + 3 * error
