"""A float .tflite as operators and tensors, read once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.ranges import Range
from edgekit.converters.tflite.flatbuffer import code_of, kinds_of, schema, unpack

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
        _write_products(self.model)
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

    def maker(self, index: int) -> tuple[Any, str] | None:
        """Return the operator that computes a tensor, and its kind; None for what is given."""
        for operator, kind in zip(self.operators, self.kinds, strict=True):
            if index in operator.outputs:
                return operator, kind
        return None

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


def _write_products(model: Any) -> None:
    """Write NEG and SQUARE, which have no integer kernel, as the products that they are."""
    graph, classes, minus_one = model.subgraphs[0], schema(), -1
    for operator, kind in zip(graph.operators, kinds_of(model), strict=True):
        data = int(operator.inputs[0]) if kind in ("NEG", "SQUARE") else -1
        if data < 0 or graph.tensors[data].type != classes.TensorType.FLOAT32:
            continue
        if kind == "NEG" and minus_one < 0:
            minus_one = _append_scalar(model, -1.0)
        operator.inputs = [data, minus_one if kind == "NEG" else data]
        operator.opcodeIndex = code_of(model, "MUL")
        operator.builtinOptionsType = classes.BuiltinOptions.MulOptions
        operator.builtinOptions = classes.MulOptionsT()


def _append_scalar(model: Any, value: float) -> int:
    tensor, buffer = schema().TensorT(), schema().BufferT()
    tensor.name, tensor.shape = f"constant {value}", []
    tensor.type, tensor.buffer = schema().TensorType.FLOAT32, len(model.buffers)
    buffer.data = np.frombuffer(np.float32(value).tobytes(), np.uint8)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


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
    # What is stored of a sparse tensor are not its values in order.
    return data is not None and len(data) > 0 and tensor.sparsity is None


def _content(model: Any, tensor: Any) -> Array:
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    return np.frombuffer(data.tobytes(), np.float32).reshape(shape)
