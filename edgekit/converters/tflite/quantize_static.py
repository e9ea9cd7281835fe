"""Float .tflite + ranges of its activations -> integer .tflite.

Written here, not by TensorFlow's converter or ai-edge-quantizer, for what both lack: ranges from a
table, int8, int16 and float layers in one file, every layer of the list in docs/converting.md
(ai-edge-quantizer 0.10 has no PReLU, LeakyReLU or maximum pooling over all), and no second
conversion by TensorFlow, which is most of the time. docs/converting.md has the figures.

Indices and names of the float model's tensors stay, so the two can be compared tensor by tensor.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Fallback
from edgekit.converters.quantize.ranges import Range, Scheme
from edgekit.converters.tflite.flatbuffer import pack, schema, unpack
from edgekit.converters.tflite.grids import (
    Grid,
    IntegerType,
    grid_of,
    quantized_bias,
    quantized_weights,
)
from edgekit.converters.tflite.operators import OPERATORS, Operator

Array = NDArray[Any]
LayerPrecision = Literal["int8", "int16x8", "fp32"]
_DTYPES: dict[str, IntegerType] = {"int8": "int8", "int16x8": "int16"}
_STATED = {"fp32": "it was asked to be float", "int16x8": "it was asked to be int16"}


@dataclass(frozen=True)
class Quantized:
    """An integer model.

    Attributes:
        content: the .tflite file.
        fallbacks: layers that are not in the precision of the model, and why.
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
) -> Quantized:
    """Return a float model in integers, its inputs and outputs too.

    Args:
        content: a float .tflite of one subgraph.
        ranges: of its activations, by the tensor's index; layers whose output has none stay float.
        names: of its activations, by the tensor's index: what layers are called.
        precision: of every layer that `precisions` does not name, and of inputs and outputs.
        precisions: of single layers, by the name of their output.
        scheme: grid of int8 activations.
    """
    rewriter = _Rewriter(unpack(content), ranges, names, scheme, precision)
    rewriter.rewrite(precisions or {})
    return Quantized(pack(rewriter.model), tuple(rewriter.fallbacks), tuple(rewriter.operators))


class _Rewriter:
    """Changes a `ModelT` in place, operator by operator.

    Attributes:
        grids: of each activation as it is stored now, by index; absent: float.
    """

    def __init__(
        self,
        model: Any,
        ranges: Mapping[int, Range],
        names: Mapping[int, str],
        scheme: Scheme,
        precision: LayerPrecision,
    ) -> None:
        self.model, self.graph = model, model.subgraphs[0]
        self.graph.outputs = [int(index) for index in self.graph.outputs]
        self.fallbacks: list[Fallback] = []
        self.operators: list[tuple[str, str, LayerPrecision]] = []
        self.grids: dict[int, Grid] = {}
        self._ranges = dict(ranges)
        self._scheme, self._precision = scheme, precision
        self._schema = schema()
        self._types = self._schema.TensorType
        self._kinds = {
            code: name
            for name, code in vars(self._schema.BuiltinOperator).items()
            if name[0] != "_"
        }
        self._names = names
        self._float = {
            index
            for index, tensor in enumerate(self.graph.tensors)
            if tensor.type == self._types.FLOAT32
        }
        self._constants = {
            index: _content(model, tensor)
            for index, tensor in enumerate(self.graph.tensors)
            if index in self._float and _has_content(model, tensor)
        }
        self._uses = _uses(self.graph)
        self._copies: dict[tuple[Any, ...], int] = {}
        self._done: list[Any] = []

    def rewrite(self, precisions: Mapping[str, LayerPrecision]) -> None:
        operators = list(self.graph.operators)
        chosen = [self._choice(operator, precisions) for operator in operators]
        imposed = self._imposed(operators, chosen)
        if self._precision != "fp32":
            for index in self.graph.inputs:
                if index in self._float and index in self._ranges:
                    self._store(index, self._grid(self._ranges[index], _DTYPES[self._precision]))
        for operator, precision in zip(operators, chosen, strict=True):
            if precision == "fp32":
                operator.inputs = [self._as_float(index) for index in operator.inputs]
            elif precision is not None:
                self._integer(operator, _DTYPES[precision], imposed)
            self._done.append(operator)
        if self._precision == "fp32":
            self.graph.outputs = [self._as_float(index) for index in self.graph.outputs]
        else:
            self._integer_outputs()
        self.graph.operators = self._done
        self._drop_unused()

    # Which precision an operator has

    def _choice(
        self, operator: Any, precisions: Mapping[str, LayerPrecision]
    ) -> LayerPrecision | None:
        """Return an operator's precision; None: it touches no real numbers."""
        touched = [*operator.inputs, *operator.outputs]
        if not any(index in self._float and index not in self._constants for index in touched):
            return None
        kind, name = self._kind(operator), self._name(operator)
        wanted = precisions.get(name, self._precision)
        reason = self._obstacle(operator, kind, wanted)
        if reason is not None:
            wanted = "fp32"
        elif wanted != self._precision:
            reason = _STATED.get(wanted, f"it was asked to be {wanted}")
        if reason is not None:
            self.fallbacks.append(Fallback(what=f"{kind} {name}", reason=reason))
        self.operators.append((name, kind, wanted))
        self._note_range(operator, kind)
        return wanted

    def _obstacle(self, operator: Any, kind: str, wanted: LayerPrecision) -> str | None:
        """Return why an operator must stay float, or None."""
        if wanted == "fp32":
            return _STATED["fp32"]
        rule = OPERATORS.get(kind)
        if rule is None:
            return "LiteRT has no integer kernel for it that is known to work, so it runs in float"
        if wanted == "int16x8" and not rule.has_int16:
            return "LiteRT has no kernel for it with int16 activations, so it runs in float"
        if rule.weights is not None and operator.inputs[rule.weights] not in self._constants:
            return "its weights are computed, not constant, so it runs in float"
        needed = [i for i in operator.inputs if i in self._float and i not in self._constants]
        if rule.output == "own":
            needed += [index for index in operator.outputs if index in self._float]
        missing = [self._label(index) for index in needed if index not in self._ranges]
        if missing:
            return f"the range table has no range for {', '.join(missing)}, so it runs in float"
        return None

    def _note_range(self, operator: Any, kind: str) -> None:
        """Give outputs without a range of their own the one that their operator gives them."""
        rule = OPERATORS.get(kind)
        if rule is None or rule.output == "own":
            return
        if rule.output == "fixed":
            low = -rule.scales[0] * (128 + rule.zero_point)
            found = Range(low, low + 255 * rule.scales[0])
        else:
            known = [self._range(index) for index in operator.inputs if index in self._float]
            given = [one for one in known if one is not None]
            if not given:
                return
            found = given[0]
            for other in given[1:]:
                found = found.union(other)
            if len(given) > 1:
                own = [self._ranges[i] for i in operator.outputs if i in self._ranges]
                found = own[0].union(self._constant_range(operator)) if own else found
        for index in operator.outputs:
            if index in self._float:
                self._ranges[index] = found

    def _constant_range(self, operator: Any) -> Range:
        found = Range(0.0, 0.0)
        for index in operator.inputs:
            if index in self._constants:
                found = found.union(_extent(self._constants[index]))
        return found

    def _range(self, index: int) -> Range | None:
        if index in self._constants:
            return _extent(self._constants[index])
        return self._ranges.get(index)

    def _imposed(
        self, operators: list[Any], chosen: list[LayerPrecision | None]
    ) -> dict[int, Range]:
        """Return the ranges that tensors take over from the only operator that reads them.

        What only a Concatenation reads is best rounded once, to the grid of the whole.
        """
        imposed: dict[int, Range] = {}
        for operator, precision in zip(reversed(operators), reversed(chosen), strict=True):
            rule = OPERATORS.get(self._kind(operator))
            if precision in (None, "fp32") or rule is None or rule.output != "input":
                continue
            inputs = [i for i in operator.inputs if i in self._float and i not in self._constants]
            outputs = [index for index in operator.outputs if index in self._float]
            several = len(inputs) > 1 or any(i in self._constants for i in operator.inputs)
            found = imposed.get(outputs[0])
            if found is None and several:
                found = self._ranges[outputs[0]]
            if found is not None:
                imposed |= {index: found for index in inputs if self._uses.get(index) == 1}
        return imposed

    # Rewriting

    def _integer(self, operator: Any, dtype: IntegerType, imposed: Mapping[int, Range]) -> None:
        kind = self._kind(operator)
        rule = OPERATORS[kind]
        outputs = [index for index in operator.outputs if index in self._float]
        data = [
            (place, index)
            for place, index in enumerate(operator.inputs)
            if index in self._float and place not in (rule.weights, rule.bias)
        ]
        target = None
        if rule.output == "input":
            target = self._shared_grid([index for _, index in data], outputs, dtype, imposed)
        for place, index in data:
            operator.inputs[place] = self._as_integer(index, dtype, target)
        for index in outputs:
            if target is not None:
                grid = target
            elif rule.output == "fixed":
                is_int8 = dtype == "int8"
                grid = Grid(dtype, rule.scales[not is_int8], rule.zero_point if is_int8 else 0)
            else:
                grid = self._grid(imposed.get(index, self._ranges[index]), dtype)
            self._store(index, grid)
        if rule.weights is not None:
            self._integer_weights(operator, rule, data[0][0])
        if dtype == "int16" and hasattr(operator.builtinOptions, "potScaleInt16"):
            operator.builtinOptions.potScaleInt16 = False
        operator.opcodeIndex = self._code(kind)

    def _shared_grid(
        self,
        inputs: list[int],
        outputs: list[int],
        dtype: IntegerType,
        imposed: Mapping[int, Range],
    ) -> Grid:
        """Return the one grid of all inputs and outputs."""
        if len(inputs) == 1 and inputs[0] not in self._constants:
            grid = self.grids.get(inputs[0])
            if grid is not None and grid.dtype == dtype:
                return grid
            return self._grid(self._ranges[inputs[0]], dtype)
        return self._grid(imposed.get(outputs[0], self._ranges[outputs[0]]), dtype)

    def _integer_weights(self, operator: Any, rule: Operator, place: int) -> None:
        assert rule.weights is not None
        assert rule.bias is not None
        into = self.grids[operator.inputs[place]]
        out = self.grids[operator.outputs[0]]
        weights = self._constants[operator.inputs[rule.weights]]
        bias = None
        if len(operator.inputs) > rule.bias and operator.inputs[rule.bias] >= 0:
            bias = self._constants[operator.inputs[rule.bias]]
        whole, scales = quantized_weights(weights, rule.axis, bias, into.scale, out.scale)
        source = operator.inputs[rule.weights]
        operator.inputs[rule.weights] = self._constant(source, whole, scales, rule.axis)
        if bias is not None:
            steps = scales.astype(np.float64) * into.scale
            source = operator.inputs[rule.bias]
            content = quantized_bias(bias, steps, into.dtype)
            operator.inputs[rule.bias] = self._constant(source, content, steps, 0)

    def _as_integer(self, index: int, dtype: IntegerType, target: Grid | None) -> int:
        """Return a tensor with this one's values on a grid: `target`, or any of its dtype."""
        if index in self._constants:
            values = self._constants[index]
            grid = target or self._grid(_extent(values), dtype)
            scales = np.array([grid.scale], np.float32)
            return self._constant(index, grid.quantize(values), scales, 0, grid.zero_point)
        stored = self.grids.get(index)
        if stored is not None and (stored == target or (target is None and stored.dtype == dtype)):
            return index
        grid = target or self._grid(self._ranges[index], dtype)
        return self._converted(index, "QUANTIZE", grid)

    def _as_float(self, index: int) -> int:
        return self._converted(index, "DEQUANTIZE", None) if index in self.grids else index

    def _converted(self, index: int, kind: str, grid: Grid | None) -> int:
        """Return the tensor that holds another's values on a grid, or as float; made once."""
        key = (index, grid)
        if key not in self._copies:
            tensor = copy.copy(self.graph.tensors[index])
            tensor.name = f"{_text(tensor.name)}_{grid.dtype if grid else 'float'}"
            tensor.type, tensor.quantization = self._types.FLOAT32, None
            self._copies[key] = self._append(tensor)
            if grid is not None:
                self._store(self._copies[key], grid)
            operator = self._schema.OperatorT()
            operator.opcodeIndex = self._code(kind)
            operator.inputs, operator.outputs = [index], [self._copies[key]]
            self._done.append(operator)
        return self._copies[key]

    def _integer_outputs(self) -> None:
        """Make the model's outputs integers, under their own names."""
        for place, index in enumerate(self.graph.outputs):
            if index not in self._float or index in self._constants:
                continue
            dtype = _DTYPES[self._precision]
            stored = self.grids.get(index)
            if index not in self._ranges or (stored is not None and stored.dtype == dtype):
                continue
            grid = self._grid(self._ranges[index], dtype)
            result = self._converted(index, "QUANTIZE", grid)
            tensors = self.graph.tensors
            tensors[result].name, tensors[index].name = (
                tensors[index].name,
                tensors[result].name,
            )
            self.graph.outputs[place] = result
            for signature in self.model.signatureDefs or []:
                for entry in signature.outputs:
                    if entry.tensorIndex == index:
                        entry.tensorIndex = result

    # Tensors and operators

    def _store(self, index: int, grid: Grid) -> None:
        self.grids[index] = grid
        tensor = self.graph.tensors[index]
        tensor.type = getattr(self._types, grid.dtype.upper())
        tensor.quantization = self._parameters(
            np.array([grid.scale], np.float32), 0, grid.zero_point
        )

    def _constant(
        self, source: int, content: Array, scales: Array, axis: int, zero_point: int = 0
    ) -> int:
        """Return a new constant in the place of the float one `source`."""
        key = (source, content.dtype.str, axis, zero_point, scales.tobytes())
        if key not in self._copies:
            tensor = copy.copy(self.graph.tensors[source])
            tensor.type = getattr(self._types, content.dtype.name.upper())
            tensor.quantization = self._parameters(scales.astype(np.float32), axis, zero_point)
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(content.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
            if self._uses[source] == 1:
                self.graph.tensors[source] = tensor
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
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _grid(self, found: Range, dtype: IntegerType) -> Grid:
        return grid_of(found, dtype, self._scheme)

    def _kind(self, operator: Any) -> str:
        code = self.model.operatorCodes[operator.opcodeIndex]
        return str(self._kinds[max(code.builtinCode, code.deprecatedBuiltinCode)])

    def _code(self, kind: str) -> int:
        """Return the index of an operator's code, in a version that knows integers."""
        builtin = getattr(self._schema.BuiltinOperator, kind)
        codes = self.model.operatorCodes
        for index, code in enumerate(codes):
            if code.builtinCode == builtin:
                return index
        code = self._schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
        codes.append(code)
        return len(codes) - 1

    def _name(self, operator: Any) -> str:
        return self._label(operator.outputs[0])

    def _label(self, index: int) -> str:
        return self._names.get(index) or _text(self.graph.tensors[index].name)

    def _drop_unused(self) -> None:
        """Empty the constants that nothing reads any more; indices stay as they are."""
        used = set(_uses(self.graph))
        kept = {self.graph.tensors[index].buffer for index in used}
        for entry in self.model.metadata or []:
            kept.add(entry.buffer)
        for index, buffer in enumerate(self.model.buffers):
            if index not in kept:
                buffer.data = None


def _uses(graph: Any) -> dict[int, int]:
    """Return how many operators and model outputs read each tensor."""
    found: dict[int, int] = {}
    for index in (*_reads(graph), *graph.outputs):
        found[int(index)] = found.get(int(index), 0) + 1
    return found


def _reads(graph: Any) -> Iterator[int]:
    for operator in graph.operators:
        operator.inputs = [int(index) for index in operator.inputs]
        yield from (index for index in operator.inputs if index >= 0)


def _has_content(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _content(model: Any, tensor: Any) -> Array:
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    return np.frombuffer(data.tobytes(), np.float32).reshape(shape)


def _extent(values: Array) -> Range:
    return Range(float(values.min(initial=0)), float(values.max(initial=0)))


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
