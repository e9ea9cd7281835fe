"""Run a graph layer by layer over a calibration set, as the float and as the quantized model.

All samples pass one layer before any passes the next: so a layer can be changed for good once,
on what the quantized layers before it really give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.correct import fake_quantize, mean_shift
from edgekit.converters.quantize.explicit import activation_name
from edgekit.converters.quantize.graph import Graph, Step
from edgekit.converters.quantize.linear import (
    is_linear,
    patches,
    set_weights,
    to_columns,
    weights_of,
)
from edgekit.converters.quantize.rounding import rounded_kernel
from edgekit.errors import require

Array = NDArray[Any]
Batches = list[Array]
Progress = Callable[[str, int, int], None]

MEMORY_LIMIT = 512 << 20
_MOST_PATCHES = 40_000
_MOST_INPUTS = 4_608  # 3 x 3 x 512: the inverse of its moments takes seconds and 0.2 GB
_BATCH_LIMIT = 8 << 20
_ARITHMETIC = ("Add", "Subtract", "Multiply")


@dataclass(frozen=True)
class Samples:
    """A bounded part of a calibration set.

    Attributes:
        batches: for each of the graph's inputs, the batches.
        kept: samples in them.
        seen: samples in the set.
    """

    batches: list[Batches]
    kept: int
    seen: int


def draw(graph: Graph, samples: Iterable[tuple[Array, ...]]) -> Samples:
    """Keep as many samples as the walk has memory for, drawn evenly from the set."""
    per_sample = _bytes_alive(graph)
    most = max(1, MEMORY_LIMIT // per_sample)
    random = np.random.default_rng(0)
    kept: list[tuple[Array, ...]] = []
    seen = 0
    for seen, sample in enumerate(samples, 1):
        if len(kept) < most:
            kept.append(sample)
        elif (place := int(random.integers(seen))) < most:
            kept[place] = sample
    random.shuffle(kept)
    size = int(np.clip(_BATCH_LIMIT // per_sample, 1, 64))
    batches = [
        [np.concatenate(arrays[start : start + size]) for start in range(0, len(kept), size)]
        for arrays in zip(*kept, strict=True)
    ]
    return Samples(batches, len(kept), seen)


def channel_ranges(
    graph: Graph, samples: Samples, on_progress: Progress
) -> dict[int, NDArray[Any]]:
    """Return the largest |value| of each channel of the tensors that will be int8, by id."""
    fused = fused_tensors(graph)
    ranges: dict[int, NDArray[Any]] = {}
    values = _Values(graph, samples)
    for number, step in enumerate(graph.steps, 1):
        for tensor, batches in zip(step.outputs, values.run(step), strict=True):
            values.keep(tensor, batches)
            if id(tensor) not in fused and batches[0].dtype.kind == "f":
                axes = tuple(range(batches[0].ndim - 1))
                ranges[id(tensor)] = np.max([np.abs(b).max(axis=axes) for b in batches], axis=0)
        values.release(step)
        on_progress("equalize", number, len(graph.steps))
    return ranges


def compensate(
    graph: Graph, samples: Samples, *, rounds: bool, corrects: bool, on_progress: Progress
) -> tuple[str, ...]:
    """Round the weights and correct the biases of `graph` in place, in the order of the layers.

    Args:
        graph: folded; its weights are the float ones.
        samples: as `draw` gives them.
        rounds: adapt the rounding; else weights are only rounded to the nearest, to correct.
        corrects: correct the biases.
        on_progress: called with ("round and correct", layers done, layers).

    Returns:
        What was not rounded, and why.
    """
    fused = fused_tensors(graph)
    wanted, given = _Values(graph, samples), _Values(graph, samples)
    for tensor in graph.inputs:
        _make_int8(given.of(tensor))
    notes = []
    for number, step in enumerate(graph.steps, 1):
        targets = wanted.run(step)
        if is_linear(step):
            notes += _round(step, given.of(step.inputs[0]), rounds)
        results = given.run(step)
        if is_linear(step) and corrects:
            kernel, bias = weights_of(step.layer)
            shift = mean_shift(targets[0], results[0])
            set_weights(step.layer, kernel, bias + shift)
            for index, batch in enumerate(results[0]):
                results[0][index] = batch + shift.astype(np.float32)
        for tensor, target, result in zip(step.outputs, targets, results, strict=True):
            wanted.keep(tensor, target)
            if id(tensor) not in fused:
                _make_int8(result)
            given.keep(tensor, result)
        wanted.release(step)
        given.release(step)
        on_progress("round and correct", number, len(graph.steps))
    return tuple(notes)


def fused_tensors(graph: Graph) -> set[int]:
    """Return the ids of tensors that the converter fuses away: what only a ReLU reads."""
    users = graph.users()
    return {
        id(step.outputs[0])
        for step in graph.steps
        if takes_relu(step) and is_fused_relu(users.get(id(step.outputs[0]), []))
    }


def takes_relu(step: Step) -> bool:
    """Whether the step's operator can have a ReLU in it."""
    return is_linear(step) or type(step.layer).__name__ in _ARITHMETIC


def is_fused_relu(readers: Sequence[Step | None]) -> bool:
    """Whether a tensor's only reader is a ReLU that goes into the operator before it."""
    if len(readers) != 1 or readers[0] is None:
        return False
    return activation_name(readers[0].layer) in ("relu", "relu6")


def _round(step: Step, inputs: Batches, adaptively: bool) -> list[str]:
    """Set the step's kernel to a rounded one; returns why that was not adaptive, if so."""
    layer = step.layer
    kernel, bias = weights_of(layer)
    width = to_columns(layer, kernel).shape[1]
    moments = None
    if adaptively and width <= _MOST_INPUTS:
        moments = _moments(layer, inputs)
    set_weights(layer, rounded_kernel(layer, moments), bias)
    if moments is None and adaptively:
        reason = f"{width} weights go into one output, and at most {_MOST_INPUTS} are adapted"
        return [f"{layer.name}: weights rounded to the nearest, since {reason}"]
    return []


def _moments(layer: Any, inputs: Batches) -> Array:
    tf: Any = require("tensorflow", "convert")
    random = np.random.default_rng(0)
    quota = -(-_MOST_PATCHES // len(inputs))
    total: Any = 0
    for batch in inputs:
        rows = patches(layer, batch, quota, random)
        # By TensorFlow: numpy's threads beside TensorFlow's take seconds for this, now and then.
        product = tf.linalg.matmul(rows, rows, transpose_a=True)
        total = total + np.asarray(product, np.float64)
    return np.asarray(total)


def _make_int8(batches: Batches) -> None:
    if batches[0].dtype.kind == "f":
        fake_quantize(batches)


class _Values:
    """Batches of the tensors that are still needed."""

    def __init__(self, graph: Graph, samples: Samples) -> None:
        self._left = {key: len(users) for key, users in graph.users().items()}
        self._batches: dict[int, Batches] = {
            id(tensor): list(batches)
            for tensor, batches in zip(graph.inputs, samples.batches, strict=True)
        }

    def of(self, tensor: Any) -> Batches:
        return self._batches[id(tensor)]

    def keep(self, tensor: Any, batches: Batches) -> None:
        self._batches[id(tensor)] = batches

    def run(self, step: Step) -> list[Batches]:
        """Return the batches of each of the step's outputs; inputs last needed here are gone."""
        columns = list(self._run(step))
        return [list(batches) for batches in zip(*columns, strict=True)]

    def _run(self, step: Step) -> Iterator[list[Array]]:
        keys = [id(tensor) for tensor in step.inputs]
        last = {key for key in keys if self._left[key] == keys.count(key)}
        for index in range(len(self._batches[keys[0]])):
            values = {key: self._batches[key][index] for key in keys}
            for key in last:
                self._batches[key][index] = np.empty(0)
            yield [np.asarray(result) for result in step.run(values)]

    def release(self, step: Step) -> None:
        """Forget what no later step needs."""
        for tensor in [*step.inputs, *step.outputs]:
            self._left.setdefault(id(tensor), 0)
        for tensor in step.inputs:
            self._left[id(tensor)] -= 1
        for tensor in [*step.inputs, *step.outputs]:
            if self._left[id(tensor)] <= 0:
                self._batches.pop(id(tensor), None)


def _bytes_alive(graph: Graph) -> int:
    """Return the most memory that one sample's tensors take at a time, in both models."""
    left = {key: len(users) for key, users in graph.users().items()}
    sizes = {id(tensor): _bytes(tensor) for tensor in graph.inputs}
    most = 2 * sum(sizes.values())
    for step in graph.steps:
        before = sum(sizes.values())
        sizes |= {id(tensor): _bytes(tensor) for tensor in step.outputs}
        for tensor in step.inputs:
            left[id(tensor)] -= 1
        for key in [key for key in sizes if left.get(key, 0) <= 0]:
            del sizes[key]
        after = sum(sizes.values())
        most = max(most, after + max(before, after))
    return most


def _bytes(tensor: Any) -> int:
    return 4 * int(np.prod([size or 1 for size in tensor.shape[1:]], dtype=np.int64))
