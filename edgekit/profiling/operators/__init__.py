"""Where an inference's time goes: each operator, as the engine itself times it.

One file a backend, of the backend's name, with a function `times`; another backend is added by
another file. Files with a leading underscore are what they share.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

from edgekit.errors import BackendError, EnvironmentLacks, ModelError, UsageError
from edgekit.profiling.operators._join import join
from edgekit.profiling.operators._timing import Budget, Timing
from edgekit.profiling.results import Cost, Operators, Roofline
from edgekit.runtime.model import Model

_WITHIN = 0.05
"""By what share of an inference the operators' sum may differ before `note` tells of it."""
_AS_FAST = 0.15
"""The same of an inference with the profiler and one without, which other work disturbs too."""


def operators_of(
    model: Model,
    *,
    runs: int | None = None,
    duration_s: float = 2.0,
    cost: Cost | None = None,
    roofline: Roofline | None = None,
) -> Operators:
    """Profile an opened bundle's operators on what its input buffers hold.

    They hold a golden sample after opening, and else the last frame. The engine is opened once
    more, with the same threads and precision and its profiler on, and runs in turns with the one
    that is open.

    Args:
        model: an opened bundle, which runs meanwhile.
        runs: of each; by default as many as `duration_s` allows, 3 to 1,000.
        duration_s: seconds to measure.
        cost: the graph's; each of its operators that can be told to be a kernel fills in that
            one's MACs and bytes.
        roofline: of this machine; with `cost` it fills in what bounds an operator.

    Returns:
        The operators, or none and a note that says why.

    Raises:
        UsageError: a duration or a count that makes no sense.
    """
    if not 0 < duration_s < 86400 or (runs is not None and not 1 <= runs <= 100_000):
        raise UsageError(
            f"`duration_s` must be above 0 s and `runs` from 1 to 100,000; got {duration_s}, {runs}"
        )
    timing = _times(model, Budget(runs=runs, duration_s=duration_s))
    if not timing.kernels:
        return Operators(source=timing.source, note=timing.note)
    operators = join(timing.kernels, () if cost is None else cost.layers, roofline)
    sum_ms = sum(operator.ms for operator in operators)
    return Operators(
        operators=operators,
        sum_ms=sum_ms,
        infer_ms=timing.infer_ms,
        plain_ms=timing.plain_ms,
        runs=timing.runs,
        source=timing.source,
        note=" ".join(filter(None, (timing.note, *_differences(sum_ms, timing)))),
    )


def _times(model: Model, budget: Budget) -> Timing:
    name = model.backend_name
    module = f"{__name__}.{name}"
    if not name.isidentifier() or name.startswith("_") or find_spec(module) is None:
        return Timing(note=f"EdgeKit has no way to time the operators of the backend {name}.")
    try:
        timing: Timing = import_module(module).times(model, budget)
    except (BackendError, ModelError, EnvironmentLacks, OSError) as error:
        return Timing(note=f"The operators could not be timed: {error}")
    return timing


def _differences(sum_ms: float, timing: Timing) -> Iterator[str]:
    share = sum_ms / timing.infer_ms
    if abs(share - 1) > _WITHIN:
        yield f"The operators sum to {share:.0%} of the inference."
    share = timing.infer_ms / timing.plain_ms
    if abs(share - 1) > _AS_FAST:
        yield f"With the profiler an inference took {share:.0%} of one without."
