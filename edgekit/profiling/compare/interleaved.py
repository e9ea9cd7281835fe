"""Runs of two contestants in turns, opened again and again; and the ratios that follow from them.

Both are open at the same time and run in short blocks, one after the other; who begins is drawn in
each round. So whatever the machine does meanwhile, it does to both. What it does to a single run is
mostly to let others have the CPU: that wait says nothing of an engine, and Linux tells how long it
was. Taken off, the medians of a 4 ms run vary by 0.1 % where without it they vary by a third
(measured with five busy processes on two cores).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.profiling.compare.figures import figure_of_pairs
from edgekit.profiling.compare.results import Figure, FigureName
from edgekit.profiling.turns import Clock, Turn, take_turn

OnProgress = Callable[[str, int, int], None]
Run = Callable[[], object]
Opener = Callable[[], AbstractContextManager[Run]]
"""Opens an engine; what it gives does one frame."""

OPENINGS = 8
_BLOCK_S, _LEAST_RUNS = 0.04, 2
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 1000
_MOST_PADDING_BYTES = 1 << 22
# Of shorter runs only few meet a wait, and to read its clock would cost too much beside them.
_LEAST_WAITED_RUN_S = 2e-4

# Fewer runs of an opening say nothing of such a percentile.
_LEAST_RUNS_OF: dict[FigureName, int] = {"p90": 20, "p99": 200}


class Clocks(NamedTuple):
    """Wall time, CPU time of this process, what this thread waited for a CPU (None: not known)."""

    wall: Clock = time.perf_counter
    cpu: Clock = time.process_time
    waited: Clock | None = None


class Round(NamedTuple):
    """A turn of each."""

    a: Turn
    b: Turn


def measure_in_turns(
    open_a: Opener,
    open_b: Opener,
    duration_s: float,
    random: np.random.Generator,
    on_progress: OnProgress,
    clocks: Clocks = Clocks(),  # noqa: B008
) -> list[list[Round]]:
    """Open both `OPENINGS` times and run them in turns; return the rounds of each opening.

    Args:
        open_a: opens the first.
        open_b: opens the second.
        duration_s: of all rounds together, about; slow ones take their three rounds all the same,
            and a busy machine up to twice as long.
        random: draws who is opened first and who begins.
        on_progress: called with (phase, done, total).
        clocks: to measure by.
    """
    openings: list[list[Round]] = []
    plan = _Plan(0, 0.0)
    for number in range(OPENINGS):
        with ExitStack() as stack:
            runs = _open(stack, (open_a, open_b), random)
            if number == 0:  # longer: libraries are loaded, clocks rise
                paces = [_Pace.of(_turn(run, 6 * _BLOCK_S, clocks)) for run in runs]
                plan = _plan(paces, duration_s / OPENINGS)
                if min(pace.own_s for pace in paces) < _LEAST_WAITED_RUN_S:
                    clocks = clocks._replace(waited=None)
            else:
                for run in runs:
                    _turn(run, plan.block_s, clocks)
            rounds = []
            for done in range(plan.rounds):
                on_progress(
                    "measuring in turns", number * plan.rounds + done, OPENINGS * plan.rounds
                )
                rounds.append(_round(runs, bool(random.integers(2)), plan.block_s, clocks))
        openings.append(rounds)
    return openings


def _open(stack: ExitStack, openers: Sequence[Opener], random: np.random.Generator) -> list[Run]:
    """Open both, in an order and at places in memory that differ each time."""
    runs: dict[int, Run] = {}
    for index in random.permutation(2):
        # Freed memory would be given out again at the same place.
        padding = bytearray(int(random.integers(_MOST_PADDING_BYTES)))
        runs[int(index)] = stack.enter_context(openers[index]())
        stack.callback(padding.clear)
    return [runs[0], runs[1]]


def _turn(run: Run, block_s: float, clocks: Clocks) -> Turn:
    return take_turn(run, _LEAST_RUNS, block_s, *clocks)


class _Pace(NamedTuple):
    """How long a run takes without what it waits for a CPU, and with it, seconds; means."""

    own_s: float
    wall_s: float

    @classmethod
    def of(cls, turn: Turn) -> _Pace:
        runs, own_s = len(turn.times_s), sum(turn.times_s)
        return cls(own_s / runs, (own_s + (turn.waited_s or 0.0)) / runs)


class _Plan(NamedTuple):
    """How many rounds an opening has, and how long a turn lasts, seconds."""

    rounds: int
    block_s: float


def _plan(paces: Sequence[_Pace], opening_s: float) -> _Plan:
    """Return many short turns; few where there is little time, but three rounds always.

    On a busy machine they may take up to twice the time, so that less of it is lost.
    """
    block_s = min(_BLOCK_S, opening_s / (2 * _LEAST_ROUNDS))
    paces_s = [max(pace.own_s, pace.wall_s / 2) for pace in paces]
    round_s = sum(max(block_s, _LEAST_RUNS * pace_s) + 2 * pace_s for pace_s in paces_s)
    rounds = int(np.clip(round(opening_s / round_s), _LEAST_ROUNDS, _MOST_ROUNDS))
    return _Plan(rounds, block_s)


def _round(runs: Sequence[Run], b_begins: bool, block_s: float, clocks: Clocks) -> Round:
    turns: dict[int, Turn] = {}
    for index in (1, 0) if b_begins else (0, 1):
        turns[index] = _turn(runs[index], block_s, clocks)
    return Round(turns[0], turns[1])


def waited_share(openings: Sequence[Sequence[Round]]) -> float | None:
    """Return what share of the runs' time they waited for a CPU, 0..1; None where not known."""
    turns = [turn for rounds in openings for one in rounds for turn in one]
    waits_s = [turn.waited_s for turn in turns if turn.waited_s is not None]
    if len(waits_s) < len(turns):
        return None
    return sum(waits_s) / (sum(waits_s) + sum(sum(turn.times_s) for turn in turns))


def figures_of(openings: Sequence[Sequence[Round]]) -> tuple[Figure, ...]:
    """Return the figures that so many runs allow: p50, mean, cpu, and p90 and p99 of many runs."""
    least = min(len(times_s(rounds, side)) for rounds in openings for side in _SIDES)
    names: list[FigureName] = ["p50"]
    names += [name for name, runs in _LEAST_RUNS_OF.items() if least >= runs]
    names.append("mean")
    if all(turn.cpu_s > 0 for rounds in openings for one in rounds for turn in one):
        names.append("cpu")
    return tuple(
        figure_of_pairs(name, np.array([_values(name, rounds) for rounds in openings]))
        for name in names
    )


def _values(name: FigureName, rounds: Sequence[Round]) -> tuple[float, float, float]:
    """Return a figure of an opening: of a, of b, and the logarithm of b / a."""
    if name in _OF_TURN:
        of_turn = _OF_TURN[name]
        a, b = np.array([[of_turn(turn) for turn in one] for one in rounds]).T
        return float(np.median(a)), float(np.median(b)), float(np.median(np.log(b / a)))
    one, other = (_OF_RUNS[name](times_s(rounds, side)) for side in _SIDES)
    return one, other, math.log(other / one)


def _percentile(times: NDArray[np.float64], percent: int) -> float:
    """Return the smallest time that at least this share does not exceed."""
    place = (len(times) * percent + 99) // 100 - 1
    return float(np.partition(times, place)[place])


_SIDES: tuple[Literal["a"], Literal["b"]] = ("a", "b")
# Of a pair of turns, so that a machine that is slow for a while leaves no trace in the ratio.
_OF_TURN: dict[FigureName, Callable[[Turn], float]] = {
    "p50": lambda turn: float(np.median(turn.times_s)),
    "cpu": lambda turn: turn.cpu_s / len(turn.times_s),
}
# Of all runs of an opening: one turn has too few.
_OF_RUNS: dict[FigureName, Callable[[NDArray[np.float64]], float]] = {
    "p90": lambda times: _percentile(times, 90),
    "p99": lambda times: _percentile(times, 99),
    "mean": lambda times: float(times.mean()),
}


def times_s(rounds: Sequence[Round], side: Literal["a", "b"]) -> NDArray[np.float64]:
    """Return the time of every run of one side, seconds, in their order."""
    return np.concatenate([getattr(one, side).times_s for one in rounds])
