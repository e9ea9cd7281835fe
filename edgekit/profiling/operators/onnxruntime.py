"""Operators of ONNX Runtime, by its own profiler, which writes each node's time into a file."""

from __future__ import annotations

import json
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import BackendError
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
from edgekit.runtime.backends.onnxruntime import Backend
from edgekit.runtime.model import Model

_SUFFIX = "_kernel_time"
_BLOCKED = "_nchwc"
_DTYPES = {"float": "float32", "double": "float64"}

Event = dict[str, Any]


def times(model: Model, budget: Budget) -> Timing:
    """Return the times of the nodes that ONNX Runtime runs, in a session of their own."""
    backend = model.backend
    outputs = [np.empty(spec.shape, spec.dtype) for spec in backend.outputs]
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        prefix = str(Path(folder) / "profile")
        with closing(Backend(model.bundle.model_path, backend.threads, prefix)) as profiled:
            for index in range(len(backend.inputs)):
                profiled.input_buffer(index)[...] = backend.input_buffer(index)
            plain_ms, runs = in_turns(plain_run(model), lambda: profiled.run(outputs), budget)
            file = profiled.end_profiling()
        found = nodes_by_run(_read(file))[-len(runs) :]
    if not found or not all(nodes for _, nodes in found):
        return Timing(note="The operators could not be timed: ONNX Runtime told none.")
    mean, count = mean_run([_run(whole, nodes) for whole, nodes in found])
    nodes = {_key(node): node for _, run in found for node in run}
    return Timing(
        kernels=tuple(_kernel(nodes[key], ms) for key, ms in mean.kernels),
        infer_ms=mean.infer_ms,
        plain_ms=mean_of_faster_half(plain_ms),
        runs=count,
        source=f"ONNX Runtime's profiler ({backend.executes})",
    )


def nodes_by_run(events: list[Event]) -> list[tuple[Event, list[Event]]]:
    """Return each run of the model with the events of its nodes, in the order they began.

    A Loop or If counts as a whole, what runs inside of it not once more.
    """
    runs = [event for event in events if event.get("name") == "model_run"]
    runs.sort(key=lambda event: int(event["ts"]))
    nodes = [
        event
        for event in events
        if event.get("cat") == "Node" and str(event.get("name")).endswith(_SUFFIX)
    ]
    nodes.sort(key=lambda event: (int(event["ts"]), -int(event["dur"])))
    found: list[list[Event]] = [[] for _ in runs]
    place, end_us = -1, 0
    for node in nodes:
        if node["ts"] < end_us:
            continue
        end_us = node["ts"] + node["dur"]
        while place + 1 < len(runs) and runs[place + 1]["ts"] <= node["ts"]:
            place += 1
        if place >= 0:
            found[place].append(node)
    return list(zip(runs, found, strict=True))


def _run(whole: Event, nodes: list[Event]) -> Run:
    times = tuple((_key(node), node["dur"] / 1e3) for node in nodes)
    return Run(times, whole["dur"] / 1e3)


def _read(file: Path) -> list[Event]:
    try:
        events: list[Event] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackendError(f"ONNX Runtime's profile cannot be read: {error}") from error
    return events


def _key(node: Event) -> str:
    """Return what tells a node from the others: optimized ones may share a name."""
    return f"{node['args'].get('node_index')} {node['name']}"


def _kernel(node: Event, ms: float) -> Kernel:
    told = node["args"]
    name = str(node["name"]).removesuffix(_SUFFIX)
    outputs = told.get("output_type_shape") or [{}]
    dtype, shape = next(iter(outputs[0].items()), ("", None))
    if name.endswith(_BLOCKED):  # channels filled up to a whole block
        name, shape = name.removesuffix(_BLOCKED), None
    return Kernel(
        name=name,
        kind=str(told.get("op_name", "")),
        ms=ms,
        shape=None if shape is None else tuple(int(n) for n in shape),
        dtype=_DTYPES.get(dtype, dtype),
        layers=(name,),
    )
