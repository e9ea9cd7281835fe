"""Observers: the float .tflite runs over the calibration set with its activations as outputs.

Through XNNPACK, as fast as the model itself, and one sample at a time, so that memory does not
grow with the set. What kernels fuse (a ReLU behind a convolution) is one operator already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.ranges import Observer, Range
from edgekit.converters.sources.tflite import open_interpreter
from edgekit.converters.tflite.flatbuffer import kinds_of, pack, schema, size_of, unpack
from edgekit.converters.tflite.operators import OPERATORS
from edgekit.errors import DataError
from edgekit.runtime.backends import default_threads

Array = NDArray[Any]
Samples = Callable[[], Iterator[tuple[Array, ...]]]
_MEMORY_LIMIT = 256 << 20  # of activations kept at a time
_BINS = 2048
_PERCENTILE = 0.9999


@dataclass(frozen=True)
class Extremes:
    """Smallest and largest value of each tensor in each sample.

    Attributes:
        tensors: indices in the file.
        low: [samples, tensors], float32.
        high: likewise.
    """

    tensors: tuple[int, ...]
    low: Array
    high: Array

    def ranges(self) -> dict[int, Range]:
        """Return the range over all samples, by the tensor's index."""
        low, high = self.low.min(axis=0), self.high.max(axis=0)
        return {
            index: Range(float(low[place]), float(high[place]))
            for place, index in enumerate(self.tensors)
        }


def observe(content: bytes, samples: Samples) -> Extremes:
    """Return the extremes of a float model's inputs and of activations with a range of their own.

    Args:
        content: a float .tflite of one subgraph.
        samples: starts a pass over the calibration set, one tuple of inputs (batch 1) a sample.

    Raises:
        DataError: an activation is not finite.
    """
    model = unpack(content)
    tensors = observed(model)
    columns = []
    for group in _groups(model, tensors):
        rows = [
            [(values.min(), values.max()) for values in activations]
            for activations in run_with(content, group, samples)
        ]
        columns.append(np.array(rows, np.float32).reshape(len(rows), len(group), 2))
    found = np.concatenate(columns, axis=1)
    if not np.isfinite(found).all():
        sample, place, _ = np.argwhere(~np.isfinite(found))[0]
        name = model.subgraphs[0].tensors[tensors[place]].name.decode()
        raise DataError(
            f"calibration sample {sample + 1} makes {name} infinite or NaN in the float model; "
            "look at that sample and at its preprocess"
        )
    return Extremes(tuple(tensors), found[..., 0], found[..., 1])


def observed(model: Any) -> list[int]:
    """Return the tensors that need a range: real inputs and outputs of operators, no constants."""
    graph = model.subgraphs[0]
    found = [int(index) for index in graph.inputs]
    for operator, kind in zip(graph.operators, kinds_of(model), strict=True):
        rule = OPERATORS.get(kind)
        data = [index for index in operator.inputs if index >= 0 and _is_real(graph, index)]
        if rule is None or rule.output == "own" or (rule.output == "input" and len(data) > 1):
            found += [int(index) for index in operator.outputs]
    return [index for index in found if _is_real(graph, index)]


def run_with(
    content: bytes, tensors: Sequence[int], samples: Samples
) -> Iterator[list[NDArray[np.float32]]]:
    """Yield the values of some activations for each sample; they hold until the next one.

    Args:
        content: a float .tflite of one subgraph.
        tensors: indices.
        samples: see `observe`.
    """
    model = unpack(content)
    model.subgraphs[0].outputs = np.array(tensors, np.int32)
    model.signatureDefs = None
    interpreter = open_interpreter(
        pack(model), "the model for calibration", num_threads=default_threads()
    )
    inputs = [detail["index"] for detail in interpreter.get_input_details()]
    for sample in samples():
        interpreter.reset_all_variables()
        for index, array in zip(inputs, sample, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        # Views cost no copy, but none may be alive when the interpreter runs again.
        views = [interpreter.tensor(index)() for index in tensors]
        yield views
        views.clear()


def _groups(model: Any, tensors: Sequence[int]) -> Iterator[list[int]]:
    """Split tensors into groups whose values fit in memory together."""
    group: list[int] = []
    total = 0
    for index in tensors:
        size = 4 * size_of(model.subgraphs[0].tensors[index])
        if group and total + size > _MEMORY_LIMIT:
            yield group
            group, total = [], 0
        group.append(index)
        total += size
    yield group


def _is_real(graph: Any, index: int) -> bool:
    return bool(graph.tensors[index].type == schema().TensorType.FLOAT32)


def clipped_ranges(
    content: bytes, found: Mapping[int, Range], samples: Samples, observer: Observer
) -> dict[int, Range]:
    """Return narrower ranges, where clipping rare values makes the others finer.

    Never those of the model's outputs and of what goes into a softmax: clipped logits tie.

    Args:
        content: a float .tflite of one subgraph.
        found: the ranges from smallest to largest value.
        samples: see `observe`.
        observer: ``percentile`` keeps 99.99 % of the values, ``mse`` makes the mean square error of
            int8 least.
    """
    model = unpack(content)
    kept = _never_clipped(model)
    tensors = [i for i in found if i not in kept and found[i].max > found[i].min]
    counts = {index: np.zeros(_BINS, np.int64) for index in tensors}
    for group in _groups(model, tensors):
        for activations in run_with(content, group, samples):
            for place, index in enumerate(group):
                counts[index] += _histogram(activations[place], found[index])
    choose = _percentile_range if observer == "percentile" else _least_error_range
    return {**found, **{index: choose(counts[index], found[index]) for index in tensors}}


def _histogram(values: Array, full: Range) -> Array:
    bins = ((values.reshape(-1) - full.min) * (_BINS / (full.max - full.min))).astype(np.int32)
    return np.bincount(np.clip(bins, 0, _BINS - 1), minlength=_BINS)


def _percentile_range(counts: Array, full: Range) -> Range:
    edges = np.linspace(full.min, full.max, _BINS + 1)
    share = np.cumsum(counts) / counts.sum()
    low = edges[np.searchsorted(share, (1 - _PERCENTILE) / 2)]
    high = edges[np.searchsorted(share, (1 + _PERCENTILE) / 2) + 1]
    return Range(min(0.0, float(low)), max(0.0, float(high)))


def _least_error_range(counts: Array, full: Range) -> Range:
    """Return the best of ranges that are cut evenly on both sides, as far as they hold zero."""
    edges = np.linspace(full.min, full.max, _BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    best, least = full, np.inf
    for share in np.linspace(1, 0.3, 71):
        low, high = min(0.0, full.min * float(share)), max(0.0, full.max * float(share))
        step = (high - low) / 255
        clipped = middles - np.clip(middles, low, high)
        error = float((counts * (clipped**2 + (clipped == 0) * step**2 / 12)).sum())
        if error < least:
            best, least = Range(low, high), error
    return best


def _never_clipped(model: Any) -> set[int]:
    """Return the model's outputs, what goes into a softmax, and what alone decides on either.

    That is what becomes one by an operator that has no range of its own.
    """
    kinds, graph = kinds_of(model), model.subgraphs[0]
    kept = {int(index) for index in graph.outputs}
    for operator, kind in zip(reversed(graph.operators), reversed(kinds), strict=True):
        rule = OPERATORS.get(kind)
        follows = rule is not None and rule.output != "own"
        if kind in ("SOFTMAX", "LOG_SOFTMAX", "ARG_MAX") or (
            follows and any(int(index) in kept for index in operator.outputs)
        ):
            kept |= {int(index) for index in operator.inputs}
    return kept
