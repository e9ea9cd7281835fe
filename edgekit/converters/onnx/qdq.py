"""Float ONNX + ranges -> ONNX with explicit Q/DQ, as TensorRT takes it.

Activations are int8 around zero (zero point 0), or uint8 where a CPU is to run the model; weights
are int8 with a scale for each output channel, biases stay real. What TensorRT asks for is in
docs/tensorrt-rules.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Fallback
from edgekit.converters.onnx.graph import RECURRENT, OnnxGraph, weights_axis
from edgekit.converters.onnx.lint.scope import WEIGHTED
from edgekit.converters.onnx.simplify import drop_unread, names_read
from edgekit.converters.quantize.ranges import Range, int8_grid
from edgekit.errors import require

LIMIT = 127


@dataclass(frozen=True)
class WithQdq:
    """A model with Q/DQ.

    Attributes:
        model: an `onnx.ModelProto`.
        fallbacks: what stays float, and why.
    """

    model: Any
    fallbacks: tuple[Fallback, ...]


def insert_qdq(
    model: Any,
    ranges: Mapping[str, Range],
    float_layers: Iterable[str] = (),
    *,
    symmetric: bool = True,
) -> WithQdq:
    """Return `model` with Q/DQ behind the tensors that are read by what gains from int8.

    Both inputs of a residual sum get it; what is concatenated, and what goes into and comes out of
    operators that only move values, has one scale. Outputs of the model stay real.

    Args:
        model: a float `onnx.ModelProto`, simplified, with fixed dimensions.
        ranges: of the tensors' real values, by name.
        float_layers: names of layers that stay float.
        symmetric: steps of activations lie around zero, as TensorRT wants them; else they span the
            range, as CPUs like them: there ReLU is what the lowest step says.
    """
    onnx: Any = require("onnx", "convert")
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = OnnxGraph(model)
    floats = set(float_layers)
    kept = [node for node in graph.nodes if graph.layer_of(node) in floats]
    wanted = quantized_tensors(graph, kept)
    found = _joined(graph, wanted, ranges)
    grids = {name: _symmetric(one) if symmetric else _spanning(one) for name, one in found.items()}
    fallbacks = [Fallback(graph.layer_of(node), "said to stay float") for node in kept]
    fallbacks += _unquantized(graph, grids, kept)
    _Writer(onnx, graph, grids, {id(node) for node in kept}).write()
    return WithQdq(onnx.shape_inference.infer_shapes(model), tuple(fallbacks))


def quantized_tensors(graph: OnnxGraph, kept: Iterable[Any] = ()) -> list[str]:
    """Return the tensors that get Q/DQ, in order of execution.

    Args:
        graph: float.
        kept: nodes that stay float.
    """
    skipped = {id(node) for node in kept}
    wanted = {
        name
        for node in graph.nodes
        if id(node) not in skipped and graph.gains(node)
        for name in graph.activations(node)
    }
    # The output of what only moves int8 values, so that it moves them as int8.
    wanted |= {
        output
        for node in graph.nodes
        if graph.hands_on(node) and wanted.intersection(node.input)
        for output in node.output
        if output in graph.readers and output in graph.shapes and output not in graph.outputs
    }
    order = [*graph.inputs, *(output for node in graph.nodes for output in node.output)]
    return [name for name in order if name in wanted]


def _joined(graph: OnnxGraph, wanted: list[str], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the range of each tensor: one for all tensors that hold the same values."""
    group = {name: name for name in wanted}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for node in graph.nodes:
        if not graph.hands_on(node):
            continue
        inputs = node.input if node.op_type == "Concat" else node.input[:1]
        same = [name for name in (*inputs, *node.output) if name in group]
        for name in same[1:]:
            group[root(name)] = root(same[0])
    joined: dict[str, Range] = {}
    for name in wanted:
        if name in ranges:
            joined[root(name)] = ranges[name].union(joined.get(root(name), ranges[name]))
    for node in graph.nodes:  # what is stored is concatenated, too
        if node.op_type != "Concat" or node.output[0] not in group:
            continue
        place = root(node.output[0])
        for name in node.input:
            values = graph.constants.get(name)
            if values is not None and values.size and place in joined:
                stored = Range(float(values.min()), float(values.max()))
                joined[place] = stored.union(joined[place])
    return {name: joined[root(name)] for name in wanted if root(name) in joined}


def _symmetric(found: Range) -> tuple[float, Any]:
    """Return step and zero point of int8 around zero."""
    return step_of(max(abs(found.min), abs(found.max))), np.int8(0)


def _spanning(found: Range) -> tuple[float, Any]:
    """Return step and zero point of uint8 over a range."""
    step, zero = int8_grid(found)
    return step, np.uint8(zero)


def step_of(largest: float) -> float:
    """Return the step of int8 around zero that reaches `largest`; never 0, nor not a float32."""
    return max(largest / LIMIT, float(np.finfo(np.float32).tiny)) if largest else 1.0


def quantize_weights(
    weights: NDArray[np.float32], axis: int | None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return weights as int8, and their step: a scalar, or one a place along `axis`."""
    if axis is None:
        scale = np.float32(step_of(float(np.abs(weights).max(initial=0))))
        return _rounded(weights, scale), np.asarray(scale, np.float32)
    others = tuple(place for place in range(weights.ndim) if place != axis)
    scales = np.array([step_of(float(v)) for v in np.abs(weights).max(axis=others)], np.float32)
    shape = [1] * weights.ndim
    shape[axis] = -1
    return _rounded(weights, scales.reshape(shape)), scales


def _rounded(weights: NDArray[np.float32], scale: Any) -> NDArray[np.int8]:
    steps: NDArray[np.int8] = np.clip(np.rint(weights / scale), -LIMIT, LIMIT).astype(np.int8)
    return steps


class _Writer:
    """Writes Q/DQ into a graph."""

    def __init__(
        self, onnx: Any, graph: OnnxGraph, grids: Mapping[str, tuple[float, Any]], kept: set[int]
    ) -> None:
        self._onnx, self._graph, self._grids, self._kept = onnx, graph, grids, kept
        self._weights: dict[tuple[str, int | None], str] = {}
        self._dequantized: dict[str, str] = {}
        self._nodes: list[Any] = []
        self._taken = {
            name for node in graph.nodes for name in (*names_read(node), *node.output)
        } | {*graph.inputs}

    def write(self) -> None:
        graph = self._graph.model.graph
        for name in self._graph.inputs:
            self._quantize(name)
        for node in self._graph.nodes:
            if id(node) not in self._kept:
                self._quantize_weights(node)
                node.input[:] = [self._dequantized.get(name, name) for name in node.input]
            self._nodes.append(node)
            for output in node.output:
                self._quantize(output)
        del graph.node[:]
        graph.node.extend(self._nodes)
        drop_unread(graph)

    def _quantize(self, name: str) -> None:
        """Add Q and DQ behind a tensor, if it has a grid."""
        if name not in self._grids:
            return
        step, zero_point = self._grids[name]
        parameters = [
            self._constant(f"{name}/scale", np.asarray(step, np.float32)),
            self._constant(f"{name}/zero_point", np.asarray(zero_point)),
        ]
        quantized = self._free(f"{name}/quantized")
        self._dequantized[name] = self._free(f"{name}/dequantized")
        for kind, given, made in (
            ("QuantizeLinear", name, quantized),
            ("DequantizeLinear", quantized, self._dequantized[name]),
        ):
            self._nodes.append(
                self._onnx.helper.make_node(kind, [given, *parameters], [made], name=made)
            )

    def _quantize_weights(self, node: Any) -> None:
        """Put int8 weights and their DQ in the place of real ones."""
        if node.op_type not in WEIGHTED or node.input[0] not in self._grids:
            return
        name = node.input[1]
        weights = self._graph.constants.get(name)
        if weights is None:
            return
        axis = weights_axis(node, weights.ndim)
        if (name, axis) not in self._weights:
            self._weights[name, axis] = self._written(name, weights, axis)
        node.input[1] = self._weights[name, axis]

    def _written(self, name: str, weights: NDArray[np.float32], axis: int | None) -> str:
        stem = name if axis is None else f"{name}/axis{axis}"
        values, scales = quantize_weights(weights, axis)
        inputs = [
            self._constant(f"{stem}/int8", values),
            self._constant(f"{stem}/scale", scales),
            self._constant(f"{stem}/zero_point", np.zeros(scales.shape, np.int8)),
        ]
        made = self._free(f"{stem}/dequantized")
        attributes = {} if axis is None else {"axis": axis}
        self._nodes.append(
            self._onnx.helper.make_node("DequantizeLinear", inputs, [made], name=made, **attributes)
        )
        return made

    def _free(self, name: str) -> str:
        """Return `name`, or where the model has a tensor of that name, one that it has not."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def _constant(self, wanted: str, values: NDArray[Any]) -> str:
        name = self._free(wanted)
        tensor = self._onnx.numpy_helper.from_array(values, name)
        self._graph.model.graph.initializer.append(tensor)
        return name


def _unquantized(graph: OnnxGraph, grids: Mapping[str, Any], kept: Iterable[Any]) -> list[Fallback]:
    """Say which nodes that could be int8 are not."""
    skipped = {id(node) for node in kept}
    found = []
    for node in graph.nodes:
        if id(node) in skipped:
            continue
        if node.op_type in RECURRENT:
            reason = f"neither ONNX Runtime nor TensorRT has an int8 {node.op_type}"
            found.append(Fallback(graph.layer_of(node), reason))
        elif node.op_type in WEIGHTED and node.input[0] not in grids:
            reason = f"{node.op_type}: no range is known of its input"
            found.append(Fallback(graph.layer_of(node), reason))
    return found
