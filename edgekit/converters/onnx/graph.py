"""An ONNX graph, read for placing Q/DQ: who computes and who reads each tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.onnx.lint.scope import WEIGHTED
from edgekit.converters.onnx.simplify import names_read
from edgekit.errors import require

# Operators whose outputs are values of their first input, or lie between them: one scale for both.
# Not all forms of them do, see `OnnxGraph.moves`.
_MOVING = (
    "AveragePool",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
# Operators that gain from int8 inputs, beside those with weights.
_GAINING = (*_MOVING, "Add", "Concat", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean")
RECURRENT = ("LSTM", "GRU", "RNN", "Loop", "Scan")
_ACTIVATIONS = ("Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu")


class OnnxGraph:
    """The main graph of a float model with fixed dimensions.

    Attributes:
        model: an `onnx.ModelProto`.
        nodes: in order of execution.
        constants: content of the float32 initializers, by name.
        shapes: of the float32 tensors that are computed or given, by name; not of those whose
            shape is not known before the model runs, as around loops.
        readers: nodes that read each tensor.
        outputs: names of the model's outputs.
    """

    def __init__(self, model: Any) -> None:
        onnx: Any = require("onnx", "convert")
        graph = model.graph
        self.model = model
        self.nodes: list[Any] = list(graph.node)
        real = onnx.TensorProto.FLOAT
        self.constants: dict[str, NDArray[np.float32]] = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in graph.initializer
            if tensor.data_type == real
        }
        shapes = {
            info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
            for info in (*graph.input, *graph.value_info, *graph.output)
            if info.type.tensor_type.elem_type == real and info.name not in self.constants
        }
        self.shapes = {name: shape for name, shape in shapes.items() if math.prod(shape)}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in names_read(node):
                self.readers.setdefault(name, []).append(node)
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.inputs = [tensor.name for tensor in graph.input]
        self.outputs = [tensor.name for tensor in graph.output]

    def size(self, name: str) -> int:
        """Return how many values a tensor has."""
        return math.prod(self.shapes[name])

    def moves(self, node: Any) -> bool:
        """Whether a node's outputs are values of its first input, or lie between them."""
        if node.op_type == "Pad":
            value = node.input[2] if len(node.input) > 2 else ""
            is_zero = not value or not self.constants.get(value, np.ones(1)).any()
            # Every grid holds zero; a maximum is not of what lies below all, and is clipped.
            return is_zero or {r.op_type for r in self.readers.get(node.output[0], ())} == {
                "MaxPool"
            }
        if node.op_type == "Resize":  # cubic interpolation overshoots
            return not any(a.name == "mode" and a.s == b"cubic" for a in node.attribute)
        return node.op_type in _MOVING

    def hands_on(self, node: Any) -> bool:
        """Whether a node's outputs have the range of what goes into it, together."""
        return node.op_type == "Concat" or self.moves(node)

    def gains(self, node: Any) -> bool:
        """Whether a node is faster, or needs no conversion around it, with int8 inputs."""
        if node.op_type in WEIGHTED:
            return not any(
                attribute.name == "transA" and attribute.i for attribute in node.attribute
            )
        if self.moves(node):  # only where something behind it gains
            return any(
                self.gains(reader) for o in node.output for reader in self.readers.get(o, ())
            )
        if node.op_type == "Add":  # of a constant it belongs to what is before it
            return len(self.activations(node)) == 2
        return node.op_type in _GAINING

    def activations(self, node: Any) -> list[str]:
        """Return the computed or given real tensors among a node's inputs."""
        return [name for name in node.input if name in self.shapes]

    def layer_of(self, node: Any) -> str:
        """Return the name of what a node is a part of: of the activation behind it, if any."""
        name = str(node.output[0])
        readers = self.readers.get(name, [])
        if node.op_type in (*WEIGHTED, "Add") and name not in self.outputs and len(readers) == 1:
            reader = readers[0]
            is_bias = reader.op_type == "Add" and len(self.activations(reader)) == 1
            if reader.op_type in _ACTIVATIONS or is_bias:
                return self.layer_of(reader)
        return name


def weights_axis(node: Any, rank: int) -> int | None:
    """Return the axis of the output channels of what stands second in a `WEIGHTED` operator.

    None: one scale for all; TensorRT takes a transposed convolution's axis 0 for its outputs.

    Args:
        node: the operator.
        rank: of its weights.
    """
    if node.op_type == "ConvTranspose" or (node.op_type == "MatMul" and rank != 2):
        return None
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1
