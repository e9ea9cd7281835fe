"""Rules about each QuantizeLinear and DequantizeLinear: what the parser takes."""

from __future__ import annotations

from collections.abc import Iterator
from operator import ne
from typing import TYPE_CHECKING

import numpy as np

from edgekit.converters.onnx.lint.finding import Finding
from edgekit.converters.onnx.lint.scope import MOVES, WEIGHTED, Scope, label, type_name

if TYPE_CHECKING:
    import onnx

QUANTIZED = frozenset(("INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1"))
"""Types that TensorRT quantizes to."""


_PAIRS = frozenset(("QuantizeLinear", "DequantizeLinear"))


def check(scope: Scope) -> Iterator[Finding]:
    """Yield what is wrong with the Q/DQ nodes of `scope`, each by itself."""
    for node in scope.nodes:
        if node.op_type in _PAIRS:
            yield from _type(scope, node)
            if not _repeats_quantize(scope, node):
                yield from _zero_point(scope, node)
                yield from _scale(scope, node)
                yield from _axis(scope, node)
            yield from _partner(scope, node)
    yield from _stored_integers(scope)


def is_per_channel(scope: Scope, node: onnx.NodeProto) -> bool:
    """Whether a Q or DQ has more than one scale."""
    return (scale_count(scope, node) or 1) != 1


def scale_count(scope: Scope, node: onnx.NodeProto) -> int | None:
    """Return how many scales a Q or DQ has, or None: not known."""
    shape = scope.shape(node.input[1]) if len(node.input) > 1 else None
    if shape is None or None in shape:
        return None
    return int(np.prod([size or 0 for size in shape], dtype=np.int64))


def axis_of(scope: Scope, node: onnx.NodeProto, rank: int) -> int:
    """Return the axis, 0..rank-1, that the scales of a Q or DQ run along."""
    default = 0 if scope.opset < 13 else 1  # the attribute came with opset 13
    axis = int(scope.attribute(node, "axis", default))
    return axis + rank if axis < 0 else axis


def _repeats_quantize(scope: Scope, node: onnx.NodeProto) -> bool:
    """Whether a DQ has the scale and zero point of the Q before it, where all was said."""
    maker = scope.producer(node.input[0]) if node.input else None
    if node.op_type != "DequantizeLinear" or maker is None:
        return False
    return maker.op_type == "QuantizeLinear" and list(maker.input[1:]) == list(node.input[1:])


def _type(scope: Scope, node: onnx.NodeProto) -> Iterator[Finding]:
    if node.op_type == "DequantizeLinear":
        yield from _dequantized_type(scope, node)
        return
    stated = scope.dtype(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    attribute = int(scope.attribute(node, "output_dtype", 0))
    dtype = stated or (type_name(attribute) if attribute else "UINT8")
    if dtype == "UINT8" and (stated or not attribute):
        yield Finding(
            "not fused",
            "uint8",
            label(node),
            "quantizes to uint8" + ("" if stated else " (no zero point: ONNX's default)")
            + ": TensorRT reads it as int8, so all above 127 steps saturates; parsers of "
            "TensorRT 10 before that was so refuse it",
            "quantize to int8 with a zero point of type int8",
        )  # fmt: skip
    elif dtype not in QUANTIZED:
        yield _no_type(node, f"quantizes to {dtype}")


def _dequantized_type(scope: Scope, node: onnx.NodeProto) -> Iterator[Finding]:
    dtype = scope.dtype(node.input[0]) if node.input else None
    makers = [scope.producer(end) for end in scope.ends(node.input[0])] if node.input else []
    if dtype is None or dtype in QUANTIZED or any(
        maker is not None and maker.op_type == "QuantizeLinear" for maker in makers
    ):  # fmt: skip
        return
    if dtype == "INT32":
        readers = [reader for name in node.output for reader in scope.readers(name)]
        bias = next((r for r in readers if r.op_type in WEIGHTED and len(r.input) > 2), None)
        what = f"the bias of {label(bias)}" if bias is not None else "its input"
        yield Finding(
            "refused",
            "int32-bias",
            label(node),
            f"{what} is INT32: DequantizeLinear of TensorRT takes int8, int4 and fp8 only",
            "store the bias as float, without Q/DQ",
        )
    else:
        yield _no_type(node, f"dequantizes {dtype}")


def _no_type(node: onnx.NodeProto, what: str) -> Finding:
    return Finding(
        "refused",
        "quantized-type",
        label(node),
        f"{what}; TensorRT quantizes to signed int8, int4, fp8 (E4M3) and fp4 only",
        "quantize to int8 with zero point 0",
    )


def _zero_point(scope: Scope, node: onnx.NodeProto) -> Iterator[Finding]:
    if len(node.input) < 3 or not node.input[2]:
        return
    values = scope.values(node.input[2])
    if values is None:
        return
    if np.any(values != 0):
        worst = values.reshape(-1)[np.abs(values.astype(np.float64)).argmax()]
        yield Finding(
            "refused",
            "zero-point",
            label(node),
            f"zero point {worst}: TensorRT computes symmetric int8 only (DLA aside)",
            "quantize symmetrically: scale = max(|min|, |max|) / 127, zero point 0",
        )
    count = scale_count(scope, node)
    if count is not None and values.size != count:
        yield Finding(
            "refused",
            "scale-count",
            label(node),
            f"{values.size} zero points for {count} scales",
            "store one zero point a scale, or none",
        )


def _scale(scope: Scope, node: onnx.NodeProto) -> Iterator[Finding]:
    values = scope.values(node.input[1]) if len(node.input) > 1 else None
    if values is None:
        if len(node.input) > 1 and scope.producer(node.input[1]) is not None:
            yield Finding(
                "not fused",
                "computed-scale",
                label(node),
                "its scale is computed while the model runs; TensorRT's fusions need a constant",
                "store the scale in the model",
            )
        return
    with np.errstate(invalid="ignore"):  # what no float64 can hold becomes NaN, which is refused
        numbers = values.astype(np.float64).reshape(-1)
    if not numbers.size or not np.all(numbers > 0):  # NaN too
        yield Finding(
            "refused",
            "scale",
            label(node),
            f"scale {numbers[~(numbers > 0)][0]:g}: scales must all be above 0"
            if numbers.size
            else "no scale: there must be one, or one a channel",
            "calibrate again; a range of nothing but zeros takes any positive scale",
        )
    elif np.any(np.isinf(numbers)):
        yield Finding(
            "not fused",
            "scale",
            label(node),
            "scale inf: TensorRT takes it, and its outputs are no numbers",
            "calibrate again; a range was infinite",
        )


def _axis(scope: Scope, node: onnx.NodeProto) -> Iterator[Finding]:
    shape = scope.shape(node.input[0]) if node.input else None
    scales = scope.shape(node.input[1]) if len(node.input) > 1 else None
    count = scale_count(scope, node)
    if shape is None or scales is None or count is None or count <= 1:
        return
    axis = axis_of(scope, node, len(shape))
    if not 0 <= axis < len(shape):
        problem = f"axis {axis} of a tensor of rank {len(shape)}"
    elif len(scales) == 1 and shape[axis] not in (None, count):
        problem = f"{count} scales for {shape[axis]} channels on axis {axis}"
    elif len(scales) == len(shape) != 1 and sum(map(ne, scales, shape)) > 1:
        problem = f"scales of shape {list(scales)} for a tensor of shape {list(shape)}"
    elif len(scales) not in (1, len(shape)):
        problem = f"scales of rank {len(scales)} for a tensor of rank {len(shape)}"
    else:
        return
    yield Finding(
        "refused",
        "scale-count",
        label(node),
        problem,
        "store one scale, or one for each channel of the axis",
    )


def _partner(scope: Scope, node: onnx.NodeProto) -> Iterator[Finding]:
    if node.op_type != "QuantizeLinear" or not node.output:
        return
    left, seen = [node.output[0]], set()
    while left:
        name = left.pop()
        for reader in scope.readers(name):
            if reader.op_type in MOVES | {"Concat"} and reader.output:
                left += [made for made in reader.output if made not in seen]
                seen.update(reader.output)
            elif reader.op_type != "DequantizeLinear":
                yield Finding(
                    "not fused",
                    "no-dequantize",
                    label(node),
                    f"{label(reader)} ({reader.op_type}) takes its int8 output without a "
                    "DequantizeLinear between; TensorRT computes on int8 only what lies between "
                    "DequantizeLinear and QuantizeLinear",
                    "put a DequantizeLinear with the same scale behind it",
                )


def _stored_integers(scope: Scope) -> Iterator[Finding]:
    for name, tensor in scope.tensors():
        if type_name(tensor.data_type) not in QUANTIZED:
            continue
        for reader in scope.readers(name):
            place = list(reader.input).index(name)
            if reader.op_type != "DequantizeLinear" and not _is_zero_point(scope, reader, place):
                yield Finding(
                    "refused",
                    "stored-int8",
                    name,
                    f"stored int8 values go into {label(reader)} ({reader.op_type}); the builder "
                    "takes them before a DequantizeLinear only",
                    "dequantize first, or store integers that are no quantized values as int32",
                )


def _is_zero_point(scope: Scope, reader: onnx.NodeProto, place: int) -> bool:
    if reader.op_type in ("Identity", "Cast") and reader.output:
        made = reader.output[0]
        onward = [(node, list(node.input).index(made)) for node in scope.readers(made)]
        return bool(onward) and all(node.op_type in _PAIRS and at == 2 for node, at in onward)
    return reader.op_type in _PAIRS and place == 2
