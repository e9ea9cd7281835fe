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
    plain_ms: float = 0.0
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


class Run(msgspec.Struct, frozen=True):
    """What an engine told of one inference.

    Attributes:
        kernels: name and ms of each, in order.
        infer_ms: the whole inference.
    """

    kernels: tuple[tuple[str, float], ...]
    infer_ms: float


def mean_run(runs: Sequence[Run]) -> tuple[Run, int]:
    """Return the mean over the faster half of the runs, and how many these are.

    What else the machine did lengthens some runs, and in them some kernels at random. Runs of
    other kernels than most, by control flow in the model, do not count.
    """
    sequences = Counter(tuple(name for name, _ in run.kernels) for run in runs)
    names, _ = sequences.most_common(1)[0]
    same = [run for run in runs if tuple(name for name, _ in run.kernels) == names]
    kept = sorted(same, key=lambda run: run.infer_ms)[: (len(same) + 1) // 2]
    columns = zip(*([ms for _, ms in run.kernels] for run in kept), strict=True)
    means_ms = map(statistics.fmean, columns)
    whole_ms = statistics.fmean(run.infer_ms for run in kept)
    return Run(tuple(zip(names, means_ms, strict=True)), whole_ms), len(kept)


def mean_of_faster_half(times_ms: Sequence[float]) -> float:
    """Return the same of inferences of which nothing else is known."""
    return statistics.fmean(sorted(times_ms)[: (len(times_ms) + 1) // 2])


def plain_run(model: Model) -> Callable[[], None]:
    """Return one inference of `model`'s engine on what its input buffers hold."""
    outputs = [np.empty(spec.shape, spec.dtype) for spec in model.backend.outputs]
    return lambda: model.backend.run(outputs)
