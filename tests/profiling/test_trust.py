"""Each disease planted once, named, and told so that somebody can act; and what is none."""

import re
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import UsageError
from edgekit.profiling import trust
from edgekit.profiling.results import Finding, Moment, Pressure
from edgekit.profiling.trust import Observed, examine

N = 400
RUN = np.arange(N)


def noise(seed=0, n=N, spread=0.02):
    return 5 * (1 + spread * np.random.default_rng(seed).normal(size=n))


def observed(latencies_ms, **seen):
    latencies_ms = np.asarray(latencies_ms, float)
    starts_s = (np.cumsum(latencies_ms) - latencies_ms) / 1000
    return Observed(**{"latencies_ms": latencies_ms, "starts_s": starts_s, **seen})


def clocks(mhz, seconds=2.0, **more):
    at_s = np.linspace(0, seconds, len(mhz), endpoint=False)
    return [
        Moment(at_s=at, clocks_mhz={"cpu0": clock, "cpu1": 600.0 + 300 * (i % 2)}, **more)
        for i, (at, clock) in enumerate(zip(at_s, mhz, strict=True))
    ]


def clocks_under(latencies_ms):
    """Return twenty readings of a clock under which these runs take 5 or 7 ms."""
    at_s = np.linspace(0, latencies_ms.sum() / 1000, 20, endpoint=False)
    under_way = np.searchsorted(np.cumsum(latencies_ms) / 1000, at_s)
    return clocks(np.where(latencies_ms[under_way] > 6, 1050.0, 1500.0), at_s[-1] * 20 / 19)


def put_off():
    wall_ms = noise() * np.where(RUN % 23 == 7, 4, 1)
    return observed(wall_ms, cpu_ms=noise())


SLOW_LATER = noise() * np.where(RUN < N // 2, 1, 1.4)
TO_AND_FRO = noise() * np.where(RUN // 50 % 2, 1.4, 1)

PLANTED = {
    "drift": lambda: observed(noise() * (1 + 0.1 * RUN / N)),
    "level-shift": lambda: observed(SLOW_LATER),
    "throttling": lambda: observed(SLOW_LATER, telemetry=clocks_under(SLOW_LATER)),
    "frequency-change": lambda: observed(TO_AND_FRO, telemetry=clocks_under(TO_AND_FRO)),
    "contention": put_off,
    "two-modes": lambda: observed(noise() * np.random.default_rng(1).choice([1, 1.3], N)),
    "unsteady-warm-up": lambda: observed(noise(), steady=False),
    "few-runs": lambda: observed(noise(n=35), percentile=90),
    "coarse-clock": lambda: observed(np.round(noise())),
    "heavy-tail": lambda: observed(5 * np.random.default_rng(2).lognormal(0, 0.7, N)),
    "periodic-outliers": lambda: observed(noise() * np.where(RUN % 40 == 39, 3, 1)),
    "rate-not-kept": lambda: observed(noise(), rate_hz=300.0, dropped=100),
}
TOLD_ONLY = {"heavy-tail", "periodic-outliers", "rate-not-kept"}


def codes(seen):
    return [finding.code for finding in examine(seen)]


def test_every_file_is_a_disease_that_is_planted_here():
    files = {file.stem for file in Path(trust.__file__).parent.glob("[a-z]*.py")}
    assert files == {code.replace("-", "_") for code in PLANTED}


def test_every_finding_is_explained_to_its_reader():
    page = (Path(__file__).parents[2] / "docs" / "trust.md").read_text("utf-8")
    assert all(f"| `{code}` |" in page for code in PLANTED)


@pytest.mark.parametrize("code", PLANTED)
def test_a_planted_disease_is_named_with_figures_and_a_remedy(code):
    findings = examine(PLANTED[code]())
    named = [finding for finding in findings if finding.code == code]
    assert len(named) == 1, findings
    (finding,) = named
    assert finding.is_doubt == (code not in TOLD_ONLY)
    assert "\n" not in finding.message
    assert len(finding.message) < 400
    if code != "unsteady-warm-up":
        assert re.search(r"\d", finding.message)
        assert finding.evidence
    assert all(isinstance(value, float | int) for value in finding.evidence.values())


@pytest.mark.parametrize("code", sorted(PLANTED.keys() - TOLD_ONLY))
def test_a_disease_is_the_only_doubt(code):
    assert [finding.code for finding in examine(PLANTED[code]()) if finding.is_doubt] == [code]


@pytest.mark.parametrize("spread", [0.001, 0.02, 0.2])
def test_a_healthy_measurement_has_no_finding(spread):
    quiet = Pressure(wall_s=2.0, cpu_stalled=0.01, stolen=0.0, involuntary_switches=4, others=0.1)
    healthy = np.abs(noise(spread=spread))
    telemetry = clocks(1500 + 5 * np.random.default_rng(3).normal(size=20))
    assert not examine(
        observed(healthy, cpu_ms=4 * healthy, threads=4, pressure=quiet, telemetry=telemetry)
    )


def test_what_is_certain_but_small_is_no_disease():
    assert "drift" not in codes(observed(noise(spread=0.001) * (1 + 0.003 * RUN / N)))
    assert "level-shift" not in codes(observed(noise(spread=0.001) * (1 + 0.02 * (RUN > 200))))
    assert "two-modes" not in codes(
        observed(noise(spread=0.001) * np.random.default_rng(1).choice([1, 1.04], N))
    )


def test_doubts_come_first():
    seen = observed(np.random.default_rng(2).lognormal(0, 0.7, N), steady=False)
    assert codes(seen) == ["unsteady-warm-up", "heavy-tail"]


def test_a_change_says_when():
    (shift,) = examine(observed(SLOW_LATER))
    assert shift.evidence["from_s"] == pytest.approx(1.0, abs=0.05)
    assert shift.evidence["change_percent"] == pytest.approx(40, abs=2)
    assert "40" in shift.message or "39" in shift.message
    (bump,) = examine(observed(noise() * (1 + 0.2 * ((RUN >= 100) & (RUN < 200)))))
    assert bump.code == "level-shift"
    assert bump.evidence["until_s"] == pytest.approx(1.1, abs=0.05)


def test_a_device_that_says_it_throttles_is_believed_without_a_clock():
    telemetry = [Moment(at_s=0.1 * i, throttled=("undervoltage",) * (i > 4)) for i in range(20)]
    (finding,) = examine(observed(noise(), telemetry=telemetry))
    assert finding.code == "throttling"
    assert "undervoltage" in finding.message
    assert finding.evidence == {"throttled_percent": 75.0}


def test_clocks_that_the_latency_does_not_follow_are_no_disease():
    for mhz in ([1500.0] * 10 + [1000.0] * 10, [1000.0, 1500.0] * 10):
        assert not examine(observed(noise(), telemetry=clocks(mhz)))
    # One core of two that is busy now and then: the highest clock is that of the one at work.
    telemetry = [
        Moment(
            at_s=0.1 * i, clocks_mhz={"cpu0": 1500.0 - 900 * (i % 2), "cpu1": 600 + 900.0 * (i % 2)}
        )
        for i in range(20)
    ]
    assert not examine(observed(noise(), telemetry=telemetry))
    assert "two-modes" in codes(
        observed(PLANTED["two-modes"]().latencies_ms, telemetry=clocks([1500.0] * 20))
    )


@pytest.mark.parametrize(
    ("high", "words"),
    [
        ({"stolen": 0.05}, "the hypervisor took 5.0 %"),
        ({"cpu_stalled": 0.3}, "waited for a CPU 30.0 %"),
        ({"memory_stalled": 0.04}, "waited for memory 4.0 %"),
        ({"io_stalled": 0.4}, "waited for storage 40.0 %"),
        ({"others": 1.5}, "other processes kept 1.5 CPUs busy"),
        ({"throttled_s": 0.5}, "the container's CPU limit stopped it 25.0 %"),
        ({"involuntary_switches": 400}, "put off its CPU 200 times a second"),
    ],
)
def test_every_sign_of_other_work_is_told(high, words):
    (finding,) = examine(observed(noise(), pressure=Pressure(wall_s=2.0, **high)))
    assert finding.code == "contention"
    assert words in finding.message


def test_slow_runs_that_compute_are_no_contention():
    heavy = 5 * np.random.default_rng(4).lognormal(0, 0.7, N)
    assert codes(observed(heavy, cpu_ms=heavy)) == ["heavy-tail"]
    # Of a model that waits for a GPU, CPU time says nothing.
    assert codes(observed(heavy, cpu_ms=np.full(N, 0.3))) == ["heavy-tail"]
    assert not examine(observed(noise(), pressure=Pressure(wall_s=0.0, involuntary_switches=9)))


def test_a_frame_in_a_thousand_is_no_rate_that_is_not_kept():
    (told,) = examine(PLANTED["rate-not-kept"]())
    assert told.message.startswith("20.0 % of the frames")
    assert not examine(observed(noise(), rate_hz=300.0, dropped=1, runs=1000))


def test_a_device_that_rests_before_and_after_does_not_change_its_clock():
    resting = [Moment(at_s=at, clocks_mhz={"cpu0": 400.0}) for at in (-2.0, -1.0, -0.1, 2.5, 3.0)]
    telemetry = resting[:3] + clocks([1500.0] * 20) + resting[3:]
    assert not examine(observed(noise(), telemetry=telemetry))


def test_runs_that_end_out_of_order_are_examined():
    order = np.random.default_rng(6).permutation(8)
    seen = PLANTED["throttling"]()
    shuffled = np.concatenate([8 * block + order for block in range(N // 8)])
    mixed = Observed(
        latencies_ms=seen.latencies_ms[shuffled],
        starts_s=seen.starts_s[shuffled],
        telemetry=seen.telemetry,
    )
    assert codes(mixed) == ["throttling"]


def test_few_runs_are_a_doubt_of_the_wanted_percentile_only():
    (told,) = examine(observed(noise(n=100), percentile=50))
    assert (told.code, told.is_doubt) == ("few-runs", False)
    assert "p99" in told.message
    assert "368" in told.message
    (doubt,) = examine(observed(noise(n=100), percentile=99))
    assert doubt.is_doubt


@pytest.mark.parametrize(
    "latencies_ms", [[], [5.0], [5.0, 5.1], [0.0] * 50, [5.0] * 50, [1e-9] * 30, [1e12, 1.0] * 30]
)
def test_odd_series_are_examined_without_a_warning(latencies_ms):
    seen = observed(
        latencies_ms,
        cpu_ms=np.array(latencies_ms),
        pressure=Pressure(wall_s=0.0),
        telemetry=clocks([1500.0] * 5 + [900.0] * 5),
        rate_hz=30.0,
    )
    assert all(isinstance(finding, Finding) for finding in examine(seen))


def test_series_that_do_not_belong_together_are_refused():
    for starts_s, cpu_ms in ((np.zeros(3), None), (np.zeros(4), np.zeros(5))):
        with pytest.raises(UsageError, match="must be one finite number a run; got 4, "):
            Observed(latencies_ms=np.ones(4), starts_s=starts_s, cpu_ms=cpu_ms)
    with pytest.raises(UsageError, match="finite"):
        Observed(latencies_ms=np.array([np.nan]), starts_s=np.zeros(1))
