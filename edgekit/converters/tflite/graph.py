"""A float .tflite as operators and tensors, read once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.ranges import Range
from edgekit.converters.tflite.flatbuffer import kinds_of, schema, unpack

Array = NDArray[Any]


class FloatGraph:
    """The main subgraph of a float model.

    Attributes:
        model: the unpacked file, whose inputs and outputs are lists of int.
        operators: in order of execution.
        kinds: builtin's name of each.
        real: indices of the tensors that hold real numbers.
        constants: content of those that are constant, by index.
        uses: how many operators and model outputs read each tensor.
    """

    def __init__(self, content: bytes, names: Mapping[int, str]) -> None:
        self.model = unpack(content)
        graph = self.graph
        graph.inputs, graph.outputs = _integers(graph.inputs), _integers(graph.outputs)
        self.operators: list[Any] = list(graph.operators)
        for operator in self.operators:
            operator.inputs, operator.outputs = (
                _integers(operator.inputs),
                _integers(operator.outputs),
            )
        self.kinds = kinds_of(self.model)
        self.real = {
            index
            for index, tensor in enumerate(graph.tensors)
            if tensor.type == schema().TensorType.FLOAT32
        }
        self.constants: dict[int, Array] = {
            index: _content(self.model, graph.tensors[index])
            for index in self.real
            if _has_content(self.model, graph.tensors[index])
        }
        self.uses = count_uses(graph)
        self._names = names

    @property
    def graph(self) -> Any:
        """The unpacked subgraph."""
        return self.model.subgraphs[0]

    def label(self, index: int) -> str:
        """Return what a tensor is called: its layer's name where that is known."""
        return self._names.get(index) or text(self.graph.tensors[index].name)

    def activations(self, indices: list[int]) -> list[int]:
        """Return those of some tensors that hold computed real numbers."""
        return [i for i in indices if i in self.real and i not in self.constants]


def count_uses(graph: Any) -> dict[int, int]:
    """Return how many operators and model outputs read each tensor."""
    found: dict[int, int] = {}
    for indices in (*(operator.inputs for operator in graph.operators), graph.outputs):
        for index in indices:
            if index >= 0:
                found[index] = found.get(index, 0) + 1
    return found


def extent(values: Array) -> Range:
    """Return the range of a constant, which holds zero."""
    return Range(float(values.min(initial=0)), float(values.max(initial=0)))


def text(name: bytes | str) -> str:
    """Return a tensor's name, which is bytes where it was read from a file."""
    return name.decode() if isinstance(name, bytes) else name


def _integers(indices: Any) -> list[int]:
    return [] if indices is None else [int(index) for index in indices]


def _has_content(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _content(model: Any, tensor: Any) -> Array:
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    return np.frombuffer(data.tobytes(), np.float32).reshape(shape)
