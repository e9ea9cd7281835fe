"""Operators of TensorRT, by its layer profiler.

The GPU stops after each layer, so that the sum is more than an inference takes.
"""

from __future__ import annotations

import re
from typing import Any

from edgekit.profiling.operators._timing import (
    Budget,
    Kernel,
    Timing,
    faster_half,
    in_turns,
    plain_run,
    usual,
)
from edgekit.runtime.model import Model


def times(model: Model, budget: Budget) -> Timing:
    """Return the times of the engine's layers, named after what they were fused from."""
    backend: Any = model.backend
    plain_ms, runs = in_turns(plain_run(model), backend.layer_times, budget)
    names, layer_ms = usual(runs)
    means_ms, count = faster_half(layer_ms)
    infer_ms, _ = faster_half([[ms] for ms in plain_ms])
    return Timing(
        kernels=tuple(_kernel(name, ms) for name, ms in zip(names, means_ms, strict=True)),
        infer_ms=infer_ms[0],
        runs=count,
        source=f"TensorRT's layer profiler ({backend.executes})",
        note="TensorRT stops after each layer to time it, and an inference copies its inputs and "
        "outputs too: the sum is not an inference's time.",
    )


def _kernel(name: str, ms: float) -> Kernel:
    """Return a layer such as ``conv1 + relu1`` or ``weights + QuantizeLinear + conv1``."""
    parts = re.split(r"\s*\+\s*|\s*\|\|\s*", name)
    return Kernel(name=name, kind="", ms=ms, layers=tuple(part.strip("[]() ") for part in parts))
