"""Operators of TensorRT, by its layer profiler.

The GPU stops after each layer, so that the sum is more than an inference takes.
"""

from __future__ import annotations

import re
from typing import Any

from edgekit.profiling.operators._timing import (
    Budget,
    Kernel,
    Run,
    Timing,
    in_turns,
    mean_of_faster_half,
    mean_run,
    plain_run,
)
from edgekit.runtime.model import Model


def times(model: Model, budget: Budget) -> Timing:
    """Return the times of the engine's layers, named after what they were fused from."""
    backend: Any = model.backend
    plain_ms, runs = in_turns(plain_run(model), backend.layer_times, budget)
    mean, count = mean_run([Run(tuple(run), sum(ms for _, ms in run)) for run in runs])
    infer_ms = mean_of_faster_half(plain_ms)
    return Timing(
        kernels=tuple(_kernel(name, ms) for name, ms in mean.kernels),
        infer_ms=infer_ms,
        plain_ms=infer_ms,
        runs=count,
        source=f"TensorRT's layer profiler ({backend.executes})",
        note="TensorRT stops after each layer to time it, and an inference copies its inputs and "
        "outputs too: the sum is not an inference's time.",
    )


def _kernel(name: str, ms: float) -> Kernel:
    """Return a layer such as ``conv1 + relu1`` or ``weights + QuantizeLinear + conv1``."""
    parts = re.split(r"\s*\+\s*|\s*\|\|\s*", name)
    return Kernel(name=name, kind="", ms=ms, layers=tuple(part.strip("[]() ") for part in parts))
