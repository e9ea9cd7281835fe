"""Two contestants in turns on a virtual clock: the slower one is found, on any machine."""

from contextlib import contextmanager

import numpy as np
import pytest

from edgekit.profiling.compare.interleaved import (
    OPENINGS,
    Clocks,
    figures_of,
    measure_in_turns,
)

TRIALS = 30


class Machine:
    """A clock that only runs move, of a machine that slows down, and is used by others too."""

    def __init__(self, seed):
        self.now_s = self.cpu_s = 0.0
        self.random = np.random.default_rng(seed)
        self.log = []

    def opener(self, name, run_s):
        """Return what opens a contestant; each opening is lucky or unlucky by 1 %."""

        @contextmanager
        def opened():
            self.log.append(f"open {name}")
            luck = self.random.lognormal(0, 0.01)

            def run():
                self.log.append(name)
                slower = 1.0 + 0.3 * (int(self.now_s) % 3 == 0)  # others, for a second of three
                cpu_s = run_s * luck * self.random.lognormal(0, 0.02)
                self.cpu_s += cpu_s
                self.now_s += cpu_s * slower + (self.random.random() < 0.03) * 0.004

            yield run
            self.log.append(f"close {name}")

        return opened

    def measure(self, run_s_of_b, duration_s=4.0, run_s=0.01):
        clocks = Clocks(lambda: self.now_s, lambda: self.cpu_s)
        a, b = self.opener("a", run_s), self.opener("b", run_s_of_b)
        nothing = lambda phase, done, total: None  # noqa: E731
        return measure_in_turns(a, b, duration_s, np.random.default_rng(0), nothing, clocks)


@pytest.mark.parametrize("slower, right", [(1.0, "cannot tell"), (1.05, "slower")])
def test_the_verdict_is_right_in_nine_of_ten(slower, right):
    found = [figures_of(Machine(seed).measure(0.01 * slower)) for seed in range(TRIALS)]
    assert sum(figures[0].verdict == right for figures in found) >= 0.9 * TRIALS
    ratios = [figures[0].ratio for figures in found]
    assert np.mean(ratios) == pytest.approx(slower, rel=0.005)
    covers = [f[0].interval.low <= slower <= f[0].interval.high for f in found]
    assert np.mean(covers) >= 0.95 - 3 * (0.95 * 0.05 / TRIALS) ** 0.5
    of_cpu = [figure for figures in found for figure in figures if figure.name == "cpu"]
    assert {figure.verdict for figure in of_cpu} <= {"cannot tell", "more", "less"}
    assert np.mean([figure.ratio for figure in of_cpu]) == pytest.approx(slower, rel=0.005)


def test_both_are_open_together_and_opened_again_each_time():
    machine = Machine(0)
    machine.measure(0.01)
    doors = [entry for entry in machine.log if " " in entry]
    assert len(doors) == 4 * OPENINGS
    orders = set()
    for start in range(0, len(doors), 4):
        orders.add(tuple(doors[start : start + 2]))
        assert sorted(doors[start : start + 2]) == ["open a", "open b"]
        assert sorted(doors[start + 2 : start + 4]) == ["close a", "close b"]
    assert len(orders) == 2, "who is opened first must not always be the same"


def test_who_begins_is_drawn_and_can_be_repeated():
    logs = []
    for _ in range(2):
        machine = Machine(0)
        machine.measure(0.01)
        logs.append(machine.log)
    assert logs[0] == logs[1]
    turns = [one for one, before in zip(logs[0][1:], logs[0], strict=False) if one != before]
    runs = [entry for entry in turns if " " not in entry]
    assert "".join(runs) not in ("ab" * (len(runs) // 2), "ba" * (len(runs) // 2))


def test_the_duration_is_kept_and_slow_ones_get_three_rounds():
    machine = Machine(0)
    openings = machine.measure(0.01, duration_s=4.0)
    assert {len(rounds) for rounds in openings} == {len(openings[0])}
    assert machine.now_s < 4.0 + OPENINGS * 0.3 + 2.5  # warm-ups, and others on the machine
    slow = Machine(0).measure(1.0, duration_s=4.0, run_s=1.0)
    assert [len(rounds) for rounds in slow] == [3] * OPENINGS


def test_percentiles_are_there_where_there_are_runs_enough():
    names = [figure.name for figure in figures_of(Machine(0).measure(0.005, run_s=0.005))]
    assert names == ["p50", "p90", "mean", "cpu"]
    names = [f.name for f in figures_of(Machine(0).measure(0.0005, run_s=0.0005))]
    assert names == ["p50", "p90", "p99", "mean", "cpu"]
    names = [f.name for f in figures_of(Machine(0).measure(1.0, run_s=1.0))]
    assert names == ["p50", "mean", "cpu"]


def test_a_clock_of_cpu_time_that_stands_still_gives_no_figure_of_it():
    machine = Machine(0)
    openings = measure_in_turns(
        machine.opener("a", 0.01),
        machine.opener("b", 0.01),
        0.5,
        np.random.default_rng(0),
        lambda phase, done, total: None,
        Clocks(lambda: machine.now_s, lambda: 0.0),
    )
    assert "cpu" not in [figure.name for figure in figures_of(openings)]


def test_progress_counts_all_rounds():
    machine, seen = Machine(0), []
    openings = measure_in_turns(
        machine.opener("a", 0.01),
        machine.opener("b", 0.01),
        0.5,
        np.random.default_rng(0),
        lambda phase, done, total: seen.append((done, total)),
        Clocks(lambda: machine.now_s, lambda: machine.cpu_s),
    )
    total = sum(map(len, openings))
    assert seen == [(done, total) for done in range(total)]
