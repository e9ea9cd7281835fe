"""Float .tflite + ranges of its activations -> integer .tflite.

Written here, not by TensorFlow's converter or ai-edge-quantizer, for what both lack: ranges from a
table, int8, int16 and float layers in one file, every layer of the list in docs/converting.md
(ai-edge-quantizer 0.10 has no PReLU, LeakyReLU or maximum pooling over all), and no second
conversion by TensorFlow, which is most of the time. docs/converting.md has the figures.

Indices and names of the float model's tensors stay, so the two can be compared tensor by tensor.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Fallback
from edgekit.converters.quantize.ranges import Range, Scheme
from edgekit.converters.tflite.flatbuffer import code_of, pack, schema
from edgekit.converters.tflite.graph import FloatGraph, count_uses, extent, text
from edgekit.converters.tflite.grids import (
    Grid,
    IntegerType,
    grid_of,
    quantized_bias,
    quantized_weights,
)
from edgekit.converters.tflite.operators import OPERATORS, Operator, version_of
from edgekit.converters.tflite.plan import LayerPrecision, Plan, plan_of, shares_grid

Array = NDArray[Any]
_DTYPES: dict[str, IntegerType] = {"int8": "int8", "int16x8": "int16"}
_WIDE: LayerPrecision = "int16x8"


@dataclass(frozen=True)
class Quantized:
    """An integer model.

    Attributes:
        content: the .tflite file.
        fallbacks: operators that are not in the precision of the model, and why.
        operators: (name of the output, operator, precision) of each that computes with numbers.
    """

    content: bytes
    fallbacks: tuple[Fallback, ...]
    operators: tuple[tuple[str, str, LayerPrecision], ...]


def quantize_static(
    content: bytes,
    ranges: Mapping[int, Range],
    *,
    names: Mapping[int, str],
    precision: LayerPrecision = "int8",
    precisions: Mapping[str, LayerPrecision] | None = None,
    scheme: Scheme = "litert",
    states: int = 0,
    wide: Collection[str] = (),
) -> Quantized:
    """Return a float model in integers, its inputs and outputs too.

    Args:
        content: a float .tflite of one subgraph.
        ranges: of its activations, by the tensor's index; layers whose output has none stay float.
        names: of its activations, by the tensor's index: what layers are called.
        precision: of every layer that `precisions` does not name, and of inputs and outputs.
        precisions: of single layers, by the name of their output.
        scheme: grid of int8 activations.
        states: how many of the last inputs are the last outputs of the run before. They come out as
            they go in, in the precision that `precisions` has for the input's name.
        wide: names of layers, by their output, that are int16x8 in a model of int8 unless
            `precisions` names them; outputs that they make are int16.
    """
    graph = FloatGraph(content, names)
    if precision == "int8":
        precisions = {**dict.fromkeys(wide, _WIDE), **(precisions or {})}
        ranges = {
            index: found.with_headroom() if graph.label(index) in wide else found
            for index, found in ranges.items()
        }
    plan = plan_of(graph, ranges, precision, precisions or {}, wide)
    operators = tuple(
        (graph.label(operator.outputs[0]), kind, chosen)
        for operator, kind, chosen in zip(
            graph.operators, graph.kinds, plan.precisions, strict=True
        )
        if chosen is not None
    )
    _Rewriter(graph, plan, scheme).rewrite(precision, precisions or {}, states, wide)
    return Quantized(pack(graph.model), tuple(plan.fallbacks), operators)


class _Rewriter:
    """Changes a float model in place, operator by operator."""

    def __init__(self, graph: FloatGraph, plan: Plan, scheme: Scheme) -> None:
        self._source, self._plan, self._scheme = graph, plan, scheme
        self._model, self._graph = graph.model, graph.graph
        self._schema = schema()
        self._grids: dict[int, Grid] = {}  # of each activation as it is stored; absent: float
        self._copies: dict[tuple[Any, ...], int] = {}
        self._done: list[Any] = []

    def rewrite(
        self,
        precision: LayerPrecision,
        precisions: Mapping[str, LayerPrecision],
        states: int,
        wide: Collection[str],
    ) -> None:
        """Do all of it; `precision` is that of inputs and outputs, but for states and `wide`."""
        source, plan = self._source, self._plan
        fed_back = [int(index) for index in self._graph.inputs[len(self._graph.inputs) - states :]]
        if precision != "fp32":
            for index in source.activations(self._graph.inputs):
                if index in plan.ranges:
                    own = precisions.get(source.label(index), precision)
                    self._store(index, self._grid(plan.ranges[index], _DTYPES[own]))
        for operator, kind, chosen in zip(
            source.operators, source.kinds, plan.precisions, strict=True
        ):
            if chosen == "fp32":
                operator.inputs = [self._as_float(index) for index in operator.inputs]
            elif chosen is not None:
                self._make_integer(operator, kind, _DTYPES[chosen])
            self._done.append(operator)
        stored = self._grids
        kept = {i for i in stored if stored[i].dtype == "int16" and source.label(i) in wide}
        self._finish_outputs(precision, [stored.get(index) for index in fed_back], kept)
        self._graph.operators = self._done
        self._drop_unused()

    def _make_integer(self, operator: Any, kind: str, dtype: IntegerType) -> None:
        rule, outputs = OPERATORS[kind], self._source.activations(operator.outputs)
        data = [
            place
            for place, index in enumerate(operator.inputs)
            if index in self._source.real and place not in (rule.weights, rule.bias)
        ]
        target = None
        if rule.output == "input":
            target = self._shared_grid(operator, operator.inputs[data[0]], outputs[0], dtype)
        for place in data:
            operator.inputs[place] = self._as_integer(operator.inputs[place], dtype, target)
        for index in outputs:
            grid = target or self._output_grid(rule, index, dtype)
            if rule.weights is not None:
                weights = self._source.constants[operator.inputs[rule.weights]]
                into = self._grids[operator.inputs[data[0]]]
                grid = grid.no_finer_than(into.scale * float(np.abs(weights).max()))
            self._store(index, grid)
        if rule.weights is not None:
            self._make_weights_integer(operator, rule, operator.inputs[data[0]])
        if dtype == "int16" and hasattr(operator.builtinOptions, "potScaleInt16"):
            operator.builtinOptions.potScaleInt16 = False
        operator.opcodeIndex = code_of(self._model, kind, version_of(kind, dtype == "int16"))

    def _shared_grid(self, operator: Any, first: int, output: int, dtype: IntegerType) -> Grid:
        """Return the one grid of all inputs and outputs."""
        ranges = self._plan.ranges
        if shares_grid(self._source, operator) or first in self._source.constants:
            return self._grid(self._plan.imposed.get(output, ranges[output]), dtype)
        stored = self._grids.get(first)
        if stored is not None and stored.dtype == dtype:
            return stored
        return self._grid(ranges[first], dtype)

    def _output_grid(self, rule: Operator, index: int, dtype: IntegerType) -> Grid:
        if rule.output == "fixed":
            is_int8 = dtype == "int8"
            return Grid(dtype, rule.scales[not is_int8], rule.zero_point if is_int8 else 0)
        return self._grid(self._plan.imposed.get(index, self._plan.ranges[index]), dtype)

    def _make_weights_integer(self, operator: Any, rule: Operator, data: int) -> None:
        weights, bias = operator.inputs[rule.weights], None
        if rule.bias is not None and rule.bias < len(operator.inputs):
            bias = self._source.constants.get(operator.inputs[rule.bias])
        into, out = self._grids[data], self._grids[operator.outputs[0]]
        whole, scales = quantized_weights(
            self._source.constants[weights], rule.axis, bias, into.scale, out.scale
        )
        operator.inputs[rule.weights] = self._constant(weights, whole, scales, rule.axis)
        if bias is not None:
            steps = scales.astype(np.float64) * into.scale
            content = quantized_bias(bias, steps, into.dtype)
            source = operator.inputs[rule.bias]
            operator.inputs[rule.bias] = self._constant(source, content, steps, 0)

    def _as_integer(self, index: int, dtype: IntegerType, target: Grid | None) -> int:
        """Return a tensor with this one's values on a grid: `target`, or any of its dtype."""
        values = self._source.constants.get(index)
        if values is not None:
            grid = target or self._grid(extent(values), dtype)
            scales = np.array([grid.scale], np.float32)
            return self._constant(index, grid.quantize(values), scales, 0, grid.zero_point)
        stored = self._grids.get(index)
        if stored is not None and (stored == target or (target is None and stored.dtype == dtype)):
            return index
        return self._converted(index, target or self._grid(self._plan.ranges[index], dtype))

    def _as_float(self, index: int) -> int:
        return self._converted(index, None) if index in self._grids else index

    def _converted(self, index: int, grid: Grid | None) -> int:
        """Return the tensor that holds another's values on a grid, or as float; made once."""
        key = (index, grid)
        if key not in self._copies:
            tensor = copy.copy(self._graph.tensors[index])
            tensor.name = f"{text(tensor.name)}_{grid.dtype if grid else 'float'}"
            tensor.type, tensor.quantization = self._schema.TensorType.FLOAT32, None
            self._copies[key] = self._append(tensor)
            if grid is not None:
                self._store(self._copies[key], grid)
            operator = self._schema.OperatorT()
            kind = "QUANTIZE" if grid else "DEQUANTIZE"
            is_int16 = (grid or self._grids[index]).dtype == "int16"
            operator.opcodeIndex = code_of(self._model, kind, version_of(kind, is_int16))
            operator.inputs, operator.outputs = [index], [self._copies[key]]
            self._done.append(operator)
        return self._copies[key]

    def _finish_outputs(
        self, precision: LayerPrecision, states: Sequence[Grid | None], kept: Collection[int]
    ) -> None:
        """Bring outputs to the model's precision, or a state's grid, under their own names.

        Those of `kept` stay as they are.
        """
        indices = [int(index) for index in self._graph.outputs]
        grids = [None] * (len(indices) - len(states)) + [*states]
        real = set(self._source.activations(indices))
        results, renamed = [], set()
        for index, grid in zip(indices, grids, strict=True):
            result = index
            if index in real and precision == "fp32":
                result = self._as_float(index)
            elif index in real and index in self._plan.ranges and index not in kept:
                result = self._as_integer(index, _DTYPES[precision], grid)
            results.append(result)
            if index not in renamed:  # a tensor may be several outputs
                self._rename_output(index, result)
                renamed.add(index)
        self._graph.outputs = results

    def _rename_output(self, index: int, result: int) -> None:
        one, other = self._graph.tensors[index], self._graph.tensors[result]
        one.name, other.name = other.name, one.name
        for signature in self._model.signatureDefs or []:
            for entry in signature.outputs:
                if entry.tensorIndex == index:
                    entry.tensorIndex = result

    def _store(self, index: int, grid: Grid) -> None:
        self._grids[index] = grid
        tensor = self._graph.tensors[index]
        tensor.type = getattr(self._schema.TensorType, grid.dtype.upper())
        scales = np.array([grid.scale], np.float32)
        tensor.quantization = self._parameters(scales, 0, grid.zero_point)

    def _constant(
        self, source: int, content: Array, scales: Array, axis: int, zero_point: int = 0
    ) -> int:
        """Return a constant in the place of the float one `source`."""
        key = (source, content.dtype.str, axis, zero_point, scales.tobytes())
        if key not in self._copies:
            tensor = copy.copy(self._graph.tensors[source])
            tensor.type = getattr(self._schema.TensorType, content.dtype.name.upper())
            tensor.quantization = self._parameters(scales.astype(np.float32), axis, zero_point)
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(content.tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            tensor.buffer = len(self._model.buffers) - 1
            if self._source.uses[source] == 1:
                self._graph.tensors[source] = tensor
                self._copies[key] = source
            else:
                self._copies[key] = self._append(tensor)
        return self._copies[key]

    def _parameters(self, scales: Array, axis: int, zero_point: int) -> Any:
        found = self._schema.QuantizationParametersT()
        found.scale = scales
        found.zeroPoint = np.full(len(scales), zero_point, np.int64)
        found.quantizedDimension = axis if len(scales) > 1 else 0
        return found

    def _append(self, tensor: Any) -> int:
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _grid(self, found: Range, dtype: IntegerType) -> Grid:
        return grid_of(found, dtype, self._scheme)

    def _drop_unused(self) -> None:
        """Empty the constants that nothing reads any more; indices stay as they are."""
        kept = {self._graph.tensors[index].buffer for index in count_uses(self._graph)}
        kept |= {entry.buffer for entry in self._model.metadata or []}
        for index, buffer in enumerate(self._model.buffers):
            if index not in kept:
                buffer.data = None
