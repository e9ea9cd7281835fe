"""Rules about where Q/DQ stand: what TensorRT computes in float though int8 was meant.

Sources: "Explicit Quantization" in NVIDIA's documentation, and the layers of built engines
(`docs/tensorrt-rules.md` says which rule rests on what).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.converters.onnx.lint.finding import Finding
from edgekit.converters.onnx.lint.quantization import axis_of, is_per_channel
from edgekit.converters.onnx.lint.scope import MOVES, WEIGHTED, Scope, label, names

if TYPE_CHECKING:
    import onnx

_PAIRS = frozenset(("QuantizeLinear", "DequantizeLinear"))


def check(scope: Scope) -> Iterator[Finding]:
    """Yield where Q/DQ in `scope` keep TensorRT from int8."""
    if not any(node.op_type in _PAIRS for node in scope.nodes):
        return
    between = _between_int8(scope)
    for node in scope.nodes:
        if node.op_type in _PAIRS:
            yield from _per_channel_activation(scope, node)
        elif node.op_type in WEIGHTED and len(node.input) > 1:
            yield from _weighted(scope, node, label(node) in between)
        elif node.op_type == "Add" and len(node.input) == 2:
            yield from _residual(scope, node)
        elif node.op_type == "Concat":
            yield from _concat(scope, node)


def _per_channel_activation(scope: Scope, node: onnx.NodeProto) -> Iterator[Finding]:
    maker = scope.producer(node.input[0]) if node.input else None
    is_second = maker is not None and maker.op_type == "QuantizeLinear"  # told at the first
    if not is_second and is_per_channel(scope, node) and not scope.is_constant(node.input[0]):
        yield Finding(
            "not fused",
            "per-channel-activation",
            label(node),
            "an activation with one scale a channel: what reads it runs in float",
            "quantize activations per tensor",
        )


def _weighted(scope: Scope, node: onnx.NodeProto, is_between: bool) -> Iterator[Finding]:
    first, second = node.input[:2]
    weights = first if scope.is_constant(first) and not scope.is_constant(second) else second
    data = second if weights == first else first
    has_int8_data, has_int8_weights = scope.is_quantized(data), scope.is_quantized(weights)
    if has_int8_data and has_int8_weights:
        yield from _weight_axis(scope, node, weights)
    elif has_int8_data:
        what = "its weights are" if scope.is_constant(weights) else f"its input {weights!r} is"
        yield Finding(
            "not fused",
            "one-sided",
            label(node),
            f"its input {data!r} is quantized, {what} not: {node.op_type} runs in float",
            "quantize both, or neither",
        )
    elif has_int8_weights and not _is_weight_only(scope, weights):
        makers = [scope.producer(end) for end in scope.ends(data)]
        ops = ", ".join(label(m) if m is not None else "a graph input" for m in makers)
        yield Finding(
            "not fused",
            "one-sided",
            label(node),
            f"its weights are quantized, its input, which comes in float from {ops}, is not: "
            f"{node.op_type} runs in float",
            "put QuantizeLinear and DequantizeLinear before it",
        )
    elif is_between:
        yield Finding(
            "not fused",
            "float-island",
            label(node),
            f"{node.op_type} in float between int8 layers: each border costs a conversion",
            "quantize it, or keep the layers around it float too",
        )


def _is_weight_only(scope: Scope, weights: str) -> bool:
    """Whether the weights are of 4 or fp8 bits, which are meant to be used with float inputs."""
    makers = [scope.producer(end) for end in scope.ends(weights)]
    return all(m is not None and scope.dtype(m.input[0]) not in ("INT8", None) for m in makers)


def _weight_axis(scope: Scope, node: onnx.NodeProto, weights: str) -> Iterator[Finding]:
    axis = _per_channel_axis(scope, weights)
    shape = scope.shape(weights)
    if axis is None or shape is None:
        return
    if node.op_type == "ConvTranspose":
        yield Finding(
            "not fused",
            "deconvolution-per-channel",
            label(node),
            f"transposed convolution with a weight scale for each channel of axis {axis}: TensorRT "
            "has no kernel with one for each output channel; it ran such files wrongly or refused",
            "quantize these weights per tensor",
        )
        return
    rank = len(shape)
    if node.op_type == "Conv":
        expected = 0
    elif node.op_type == "Gemm":
        expected = 0 if scope.attribute(node, "transB", 0) else 1
    else:
        expected = rank - 2 if node.input[0] == weights else rank - 1
    if axis != expected:
        yield Finding(
            "not fused",
            "weight-axis",
            label(node),
            f"weight scales along axis {axis}; along any but {expected}, that of the output "
            f"channels, {node.op_type} runs in float",
            f"quantize the weights along axis {expected}, or per tensor",
        )


def _per_channel_axis(scope: Scope, name: str) -> int | None:
    """Return the axis of tensor `name` that its DQ's scales run along; None: none, or not known."""
    maker = scope.producer(name)
    turns: list[list[int]] = []
    while maker is not None and maker.op_type in ("Transpose", "Identity") and maker.input:
        if maker.op_type == "Transpose":
            turns.append(list(scope.attribute(maker, "perm", [])))
        maker = scope.producer(maker.input[0])
    if maker is None or maker.op_type != "DequantizeLinear" or not is_per_channel(scope, maker):
        return None
    shape = scope.shape(maker.input[0])
    scales = scope.shape(maker.input[1])
    if shape is None or scales is None or len(scales) > 1:
        return None
    axis = axis_of(scope, maker, len(shape))
    for turn in reversed(turns):
        turn = turn or list(reversed(range(len(shape))))
        axis = turn.index(axis) if axis in turn else axis
    return axis


def _residual(scope: Scope, node: onnx.NodeProto) -> Iterator[Finding]:
    branches = [name for name in node.input if not scope.is_constant(name)]
    if len(branches) < 2 or not _leads_to_quantize(scope, node):
        return
    floats = [name for name in branches if not scope.is_quantized(name)]
    # TensorRT adds the other branch inside an int8 layer, if that layer's output goes nowhere else.
    inside = [name for name in floats if _is_int8_layer(scope, name)]
    left = [name for name in floats if name not in inside[:1]]
    has_int8 = len(floats) < 2 or inside
    for name in left if has_int8 else ():
        maker = scope.producer(name)
        yield Finding(
            "not fused",
            "residual-branch",
            label(node),
            f"its branch {name!r}, from {label(maker) if maker is not None else 'a graph input'}, "
            "has no Q/DQ, so the sum and what leads to it leave int8",
            "put QuantizeLinear and DequantizeLinear on both branches of the Add",
        )


def _is_int8_layer(scope: Scope, name: str) -> bool:
    maker = scope.producer(name)
    if maker is None or maker.op_type not in WEIGHTED or len(maker.input) < 2:
        return False
    only_here = len(scope.readers(name)) == 1 and name not in scope.outputs
    return only_here and all(scope.is_quantized(given) for given in maker.input[:2])


def _leads_to_quantize(scope: Scope, node: onnx.NodeProto) -> bool:
    """Whether only activations and moves stand between `node` and a Q."""
    left = list(node.output)
    seen: set[str] = set()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        for reader in scope.readers(name):
            if reader.op_type == "QuantizeLinear":
                return True
            if reader.op_type in _ACTIVATIONS | MOVES:
                left += reader.output
    return False


_ACTIVATIONS = names(
    "Relu Clip LeakyRelu PRelu Elu Selu Sigmoid Tanh HardSigmoid HardSwish Softplus Mish Gelu "
    "BatchNormalization"
)


def _concat(scope: Scope, node: onnx.NodeProto) -> Iterator[Finding]:
    branches = [name for name in node.input if name and not scope.is_constant(name)]
    before = {name: _scales(scope, name) for name in branches}
    if not any(before.values()):
        return  # all float: a Q behind it is moved before it
    after = {
        value
        for made in node.output
        for reader in scope.readers(made)
        if reader.op_type == "QuantizeLinear"
        for value in _scale(scope, reader)
    }
    floats = [name for name, scales in before.items() if not scales]
    if floats and not after:
        yield Finding(
            "not fused",
            "concat-branch",
            label(node),
            f"its inputs {', '.join(map(repr, floats))} have no Q/DQ, others have: it is joined in "
            "float",
            "put Q/DQ with one scale on all inputs",
        )
    scales = sorted({value for found in before.values() for value in found} | after)
    if len(scales) > 1:
        listed = ", ".join(f"{value:.6g}" for value in scales[:4])
        yield Finding(
            "not fused",
            "concat-scales",
            label(node),
            f"{len(scales)} different scales around it ({listed}): each input whose scale is not "
            "the output's is requantized",
            "give all inputs and the output one scale: the largest",
        )


def _scales(scope: Scope, name: str) -> set[float]:
    found: set[float] = set()
    for end in scope.ends(name):
        maker = scope.producer(end)
        if maker is None or maker.op_type != "DequantizeLinear":
            return set()
        found |= _scale(scope, maker)
    return found


def _scale(scope: Scope, node: onnx.NodeProto) -> set[float]:
    values = scope.values(node.input[1]) if len(node.input) > 1 else None
    if values is None or values.size != 1:
        return set()
    return {float(np.float32(values.reshape(-1)[0]))}


def _between_int8(scope: Scope) -> set[str]:
    """Return the labels of the nodes that an activation's DQ leads to and that lead to a Q."""
    behind: set[str] = set()
    before: set[str] = set()
    for node in scope.nodes:
        if node.op_type not in _PAIRS or not node.input or scope.is_constant(node.input[0]):
            continue
        if node.op_type == "DequantizeLinear":
            _spread(node.output, behind, lambda name: _made_of(scope, name))
        else:
            _spread(node.input[:1], before, lambda name: _needed_for(scope, name))
    return {
        label(node)
        for node in scope.nodes
        if behind.intersection(node.input) and before.intersection(node.output)
    }


def _spread(names: Sequence[str], found: set[str], onward: Callable[[str], Iterable[str]]) -> None:
    """Add to `found` all that `onward` leads to from `names`."""
    left = [name for name in names if name not in found]
    found.update(left)
    while left:
        new = {name for name in onward(left.pop()) if name not in found}
        found |= new
        left += new


def _made_of(scope: Scope, name: str) -> Iterator[str]:
    for reader in scope.readers(name):
        yield from reader.output


def _needed_for(scope: Scope, name: str) -> Sequence[str]:
    maker = scope.producer(name)
    return maker.input if maker is not None else ()
