"""How often `edgekit compare` is right: a bundle beside itself, and beside itself 5 % slower.

Ours: the verdict of `edgekit compare A B` on p50, from 10 seconds of turns, on whatever this
machine does meanwhile. A is int8 MobileNetV2 on one thread (without TensorFlow the tests' small
classifier).

Peer: the truth. B is the same bundle, or the same with a loop behind each inference that keeps the
CPU busy for 5 % of the CPU time that the inference took.

It must show: of 20 comparisons of the bundle with itself at least 18 say "cannot tell", and of 20
with the slowed one at least 18 say "slower". The estimates beside them are for information, and so
are two ways that others compare by, on the same times: the ratio of the two medians over all runs
with the interval of a bootstrap over runs, and a Mann-Whitney test at 5 %.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from benchmarks._measure import Effort, Row, Spread
from benchmarks._subjects import ModelFile, network, picture, small_classifier
from edgekit.profiling.compare.interleaved import (
    Clocks,
    Opener,
    Round,
    Run,
    figures_of,
    measure_in_turns,
    times_s,
    waited_share,
)
from edgekit.profiling.turns import waiting_clock

_SLOW_DOWN = 0.05
_REPEATS = {"tiny": 2, "normal": 20, "full": 40}
_DURATION_S = {"tiny": 0.2, "normal": 10.0, "full": 10.0}


def measure(effort: Effort) -> list[Row]:
    model = None if effort == "tiny" else network("mobilenet_v2_int8")
    model = model or small_classifier("int8")
    frame = picture()  # one for both: two of them lie differently, for as long as they live
    itself, rows = _opener(model, frame), []
    for name, other, right in (
        ("itself", itself, "cannot tell"),
        ("5 % slower", _opener(model, frame, _SLOW_DOWN), "slower"),
    ):
        seeds = range(_REPEATS[effort])
        runs = [_compare(itself, other, _DURATION_S[effort], seed) for seed in seeds]
        figures = [figures_of(openings)[0] for openings in runs]
        verdicts = [100.0 * (figure.verdict == right) for figure in figures]
        rows += [
            Row(f"{name}: says {right!r}", _share(verdicts), "%", at_least=90.0),
            Row(f"{name}: p50 of B / p50 of A", Spread.of(np.array([f.ratio for f in figures]))),
            Row(
                f"{name}: time that runs waited for a CPU, taken off",
                Spread.of(100 * np.array([waited_share(openings) or 0.0 for openings in runs])),
                "%",
            ),
            Row(
                f"{name}: a bootstrap over runs would be right",
                _share([100.0 * (_bootstrap(openings) == right) for openings in runs]),
                "%",
            ),
            Row(
                f"{name}: a Mann-Whitney test would be right",
                _share([100.0 * (_mann_whitney(openings) == right) for openings in runs]),
                "%",
            ),
        ]
    return rows


def _share(right: Sequence[float]) -> Spread:
    share = float(np.mean(right))
    return Spread(share, share, share)


def _compare(a: Opener, b: Opener, duration_s: float, seed: int) -> list[list[Round]]:
    random = np.random.default_rng(seed)
    with waiting_clock() as waited:
        clocks = Clocks(waited=waited)
        return measure_in_turns(a, b, duration_s, random, lambda *progress: None, clocks)


def _opener(model: ModelFile, frame: NDArray[np.uint8], slow_down: float = 0.0) -> Opener:
    @contextmanager
    def opened() -> Iterator[Run]:
        with model.opened() as one:
            yield lambda: _slowed(lambda: one(frame), slow_down) if slow_down else one(frame)

    return opened


def _slowed(run: Run, slow_down: float) -> None:
    start_ns = time.thread_time_ns()
    run()
    end_ns = time.thread_time_ns()
    end_ns += int(slow_down * (end_ns - start_ns))
    while time.thread_time_ns() < end_ns:
        continue


def _both_s(openings: Sequence[Sequence[Round]]) -> tuple[NDArray[np.float64], ...]:
    rounds = [one for opening in openings for one in opening]
    return times_s(rounds, "a"), times_s(rounds, "b")


def _bootstrap(openings: Sequence[Sequence[Round]]) -> str:
    random = np.random.default_rng(0)
    a, b = (
        np.array([np.median(times[random.integers(0, len(times), len(times))]) for _ in range(400)])
        for times in _both_s(openings)
    )
    low, high = np.quantile(b / a, [0.025, 0.975])
    return "slower" if low > 1 else "faster" if high < 1 else "cannot tell"


def _mann_whitney(openings: Sequence[Sequence[Round]]) -> str:
    a, b = _both_s(openings)
    ranks = np.argsort(np.argsort(np.concatenate([a, b]))) + 1
    mean = len(a) * len(b) / 2
    deviation = math.sqrt(len(a) * len(b) * (len(a) + len(b) + 1) / 12)
    above = float(ranks[len(a) :].sum()) - len(b) * (len(b) + 1) / 2
    z = (above - mean) / deviation
    return "cannot tell" if abs(z) < 1.96 else "slower" if z > 0 else "faster"
