"""Operators of OpenVINO, by its own performance counters."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import numpy as np

from edgekit.profiling.operators._timing import Budget, Kernel, Timing, in_turns, plain_run
from edgekit.runtime.model import Model

_DTYPES = {"f": "float", "i": "int", "u": "uint", "bf": "bfloat"}


def times(model: Model, budget: Budget) -> Timing:
    """Return the times of the layers that were executed, in an engine of their own.

    OpenVINO tells means over all runs so far, in whole µs: the first, the slowest, is taken off.
    """
    backend: Any = model.backend
    first: list[Any] = []
    count, infer_ns = 0, 0
    with closing(
        type(backend)(model.bundle.model_path, backend.threads, is_profiled=True)
    ) as profiled:
        for index in range(len(backend.inputs)):
            profiled.input_buffer(index)[...] = backend.input_buffer(index)
        outputs = [np.empty(spec.shape, spec.dtype) for spec in backend.outputs]

        def run() -> None:
            nonlocal first, count, infer_ns
            before_ns = time.perf_counter_ns()
            profiled.run(outputs)
            infer_ns += time.perf_counter_ns() - before_ns
            count += 1
            if count == 1:  # it makes ready for the others
                first, _ = profiled.layer_times()
                infer_ns = 0

        plain_ms, runs = in_turns(plain_run(model), run, budget)
        last, graph = profiled.layer_times()
    told = {node.get_friendly_name(): node for node in graph.get_ops()}
    before_us = {layer.node_name: _us(layer) for layer in first}
    kernels = [
        _kernel(layer, (count * _us(layer) - before_us[layer.node_name]) / (count - 1), told)
        for layer in last
        if layer.status == type(layer).Status.EXECUTED
    ]
    return Timing(
        kernels=tuple(kernels),
        infer_ms=infer_ns / 1e6 / (count - 1),
        plain_ms=sum(plain_ms) / len(plain_ms),
        runs=len(runs),
        source=f"OpenVINO's performance counters ({backend.executes})",
    )


def _us(layer: Any) -> float:
    return float(layer.real_time.total_seconds() * 1e6)


def _kernel(layer: Any, us: float, told: dict[str, Any]) -> Kernel:
    node = told.get(layer.node_name)
    facts = {} if node is None else dict(node.get_rt_info())

    def fact(name: str) -> str:
        value = facts.get(name)
        return "" if value is None else str(value.astype(str))

    return Kernel(
        name=f"{layer.node_name} ({layer.exec_type})",
        kind=layer.node_type,
        ms=max(us, 0.0) / 1e3,
        shape=None if node is None else _shape(node),
        dtype=_dtype(fact("runtimePrecision")),
        layers=tuple(filter(None, fact("originalLayersNames").split(","))),
    )


def _shape(node: Any) -> tuple[int, ...] | None:
    shape = node.output(0).get_partial_shape()
    return tuple(int(n) for n in shape.to_shape()) if shape.is_static else None


def _dtype(name: str) -> str:
    """Return numpy's name for OpenVINO's: ``f32``, ``i8``, ``bf16``."""
    letters = name.rstrip("0123456789")
    return _DTYPES[letters] + name[len(letters) :] if letters in _DTYPES else ""
