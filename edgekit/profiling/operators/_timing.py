"""What a backend's file here gives, and how it measures: in turns with the engine as it is."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from edgekit.runtime.model import Model

_WARM_UP = 2
_LEAST_RUNS = 3
_MOST_RUNS = 1000

Result = TypeVar("Result")


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine runs and times as one.

    Attributes:
        name: the engine's.
        kind: what it computes, in the engine's words.
        ms: one inference's.
        shape: of its first output; None where the engine does not tell.
        dtype: it computes in; "" where the engine does not tell.
        layers: operators of the graph that the engine says it was made of.
    """

    name: str
    kind: str
    ms: float
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    layers: tuple[str, ...] = ()


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's kernels; without them `note` says why. See `Operators` for the attributes."""

    kernels: tuple[Kernel, ...] = ()
    infer_ms: float = 0.0
    runs: int = 0
    source: str = ""
    note: str = ""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How long to measure: `runs`, or for `duration_s` where it is None."""

    runs: int | None
    duration_s: float


def in_turns(
    plain: Callable[[], object], profiled: Callable[[], Result], budget: Budget
) -> tuple[list[float], list[Result]]:
    """Run both alternately, warm-up before it not counted.

    Args:
        plain: an inference of the engine as it is.
        profiled: the same with its profiler on.
        budget: at least 3 and at most 1,000 runs of each, unless `runs` says another number.

    Returns:
        Milliseconds of each run of `plain`, and what `profiled` returned each time.
    """
    for _ in range(_WARM_UP):
        plain()
        profiled()
    plain_ms: list[float] = []
    results: list[Result] = []
    start_s = time.perf_counter()

    def is_enough() -> bool:
        if budget.runs is not None:
            return len(results) >= budget.runs
        spent_s = time.perf_counter() - start_s
        return len(results) >= _LEAST_RUNS and (
            spent_s >= budget.duration_s or len(results) >= _MOST_RUNS
        )

    while not is_enough():
        before_ns = time.perf_counter_ns()
        plain()
        plain_ms.append((time.perf_counter_ns() - before_ns) / 1e6)
        results.append(profiled())
    return plain_ms, results


def faster_half(runs: Sequence[Sequence[float]]) -> tuple[list[float], int]:
    """Return the means over the half of the runs with the smallest sums, and how many these are.

    What else the machine did lengthens some runs, and in them some kernels at random.

    Args:
        runs: each kernel's time, for each run as many.
    """
    kept = sorted(runs, key=sum)[: (len(runs) + 1) // 2]
    return [statistics.fmean(times) for times in zip(*kept, strict=True)], len(kept)


def usual(runs: Sequence[Sequence[tuple[str, float]]]) -> tuple[list[str], list[list[float]]]:
    """Return the names of the kernels of most runs, and their times in each of these runs.

    Control flow in a model can run other kernels in another run.

    Args:
        runs: name and time of each kernel, for each run.
    """
    sequences = Counter(tuple(name for name, _ in run) for run in runs)
    names, _ = sequences.most_common(1)[0]
    same = [run for run in runs if tuple(name for name, _ in run) == names]
    return list(names), [[value for _, value in run] for run in same]


def plain_run(model: Model) -> Callable[[], None]:
    """Return one inference of `model`'s engine on what its input buffers hold."""
    outputs = [np.empty(spec.shape, spec.dtype) for spec in model.backend.outputs]
    return lambda: model.backend.run(outputs)
