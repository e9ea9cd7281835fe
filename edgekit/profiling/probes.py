"""Models of one convolution, which show what an engine can do at most; a function a format.

They are written when they are needed, so that a device needs no converter and no download.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.runtime.protobuf import message_field, number_field
from edgekit.runtime.tflite_file import pack, schema

_SCALE = 1 / 64  # of int8: nothing of the work depends on it
_IR_VERSION, _OPSET = 8, 17  # read by ONNX Runtime from 1.14 on, OpenVINO and TensorRT
_FLOAT, _UINT8, _INT8 = 1, 2, 3  # ONNX's numbers of types


@dataclass(frozen=True)
class Convolution:
    """A padded convolution that keeps the size of what goes through it.

    Attributes:
        side: height and width.
        channels: in and out.
        window: height and width of its filters.
    """

    side: int
    channels: int
    window: int

    @property
    def macs(self) -> int:
        """Multiplications with addition of one run."""
        return (self.side * self.channels * self.window) ** 2

    def weights(self, *, is_int8: bool) -> NDArray[Any]:
        """Return filters [out, in, height, width], the same each time."""
        random = np.random.default_rng(0)
        shape = (self.channels, self.channels, self.window, self.window)
        if is_int8:
            return random.integers(-127, 128, shape, np.int8)
        return random.uniform(-0.1, 0.1, shape).astype(np.float32)


def litert(probe: Convolution, *, is_int8: bool) -> bytes:
    """Return the convolution as a .tflite.

    Raises:
        MissingPackage: ai-edge-litert, which brings the schema, is not installed.
    """
    kinds = schema()
    floats, integers = kinds.TensorType.FLOAT32, kinds.TensorType.INT8
    kind = integers if is_int8 else floats
    weights = probe.weights(is_int8=is_int8).transpose(0, 2, 3, 1)  # [out, height, width, in]
    bias = np.zeros(probe.channels, np.int32 if is_int8 else np.float32)
    pixels = (1, probe.side, probe.side, probe.channels)
    model, graph, operator = kinds.ModelT(), kinds.SubGraphT(), kinds.OperatorT()
    model.buffers = [kinds.BufferT() for _ in range(3)]
    for buffer, stored in zip(model.buffers[1:], (weights, bias), strict=True):
        buffer.data = np.frombuffer(stored.tobytes(), np.uint8)
    graph.tensors = [
        _tensor(kinds, "x", pixels, kind, 0, _SCALE if is_int8 else None),
        _tensor(kinds, "weights", weights.shape, kind, 1, _SCALE if is_int8 else None),
        _tensor(
            kinds,
            "bias",
            bias.shape,
            kinds.TensorType.INT32 if is_int8 else floats,
            2,
            _SCALE**2 if is_int8 else None,
        ),
        _tensor(kinds, "y", pixels, kind, 0, 1.0 if is_int8 else None),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [3], [operator]
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptionsType = kinds.BuiltinOptions.Conv2DOptions
    operator.builtinOptions = kinds.Conv2DOptionsT()
    operator.builtinOptions.padding = kinds.Padding.SAME
    operator.builtinOptions.strideH = operator.builtinOptions.strideW = 1
    code = kinds.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kinds.BuiltinOperator.CONV_2D
    code.version = 3
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    return pack(model)


def _tensor(
    kinds: Any, name: str, shape: tuple[int, ...], kind: int, buffer: int, scale: float | None
) -> Any:
    tensor = kinds.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, buffer
    if scale is not None:
        tensor.quantization = kinds.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
    return tensor


def onnx(probe: Convolution, *, is_int8: bool) -> bytes:
    """Return the convolution as an .onnx.

    In integers it has Q/DQ around it, and activations of uint8: ONNX Runtime turns those of int8
    into uint8 itself on x86-64, but not at a model's ends, where it would compute in floats.
    """
    convolution = _node(
        "Conv", "float_x", "float_w", result="float_y", pads=[probe.window // 2] * 4
    )
    weights = probe.weights(is_int8=is_int8)
    if is_int8:
        nodes = [
            _node("DequantizeLinear", "x", "scale", "middle", result="float_x"),
            _node("DequantizeLinear", "w", "scale", "zero", result="float_w"),
            convolution,
            _node("QuantizeLinear", "float_y", "one", "middle", result="y"),
        ]
        stored = [
            _stored("w", weights, _INT8),
            _stored("scale", np.float32(_SCALE), _FLOAT),
            _stored("one", np.float32(1), _FLOAT),
            _stored("zero", np.int8(0), _INT8),
            _stored("middle", np.uint8(128), _UINT8),
        ]
        ends = ("x", "y")
    else:
        nodes, stored = [convolution], [_stored("float_w", weights, _FLOAT)]
        ends = ("float_x", "float_y")
    kind = _UINT8 if is_int8 else _FLOAT
    pixels = (1, probe.channels, probe.side, probe.side)
    values = [
        message_field(slot, _value(name, kind, pixels))
        for slot, name in zip((11, 12), ends, strict=True)
    ]
    graph = b"".join(
        (
            *(message_field(1, node) for node in nodes),
            message_field(2, b"probe"),
            *(message_field(5, one) for one in stored),
            *values,
        )
    )
    opset = message_field(8, message_field(1, b"") + number_field(2, _OPSET))
    return number_field(1, _IR_VERSION) + message_field(7, graph) + opset


def _node(kind: str, *inputs: str, result: str, pads: list[int] | None = None) -> bytes:
    names = b"".join(message_field(1, name.encode()) for name in inputs)
    node = names + message_field(2, result.encode()) + message_field(4, kind.encode())
    if pads is None:
        return node
    numbers = b"".join(number_field(8, pad) for pad in pads)
    return node + message_field(5, message_field(1, b"pads") + numbers + number_field(20, 7))


def _stored(name: str, values: Any, kind: int) -> bytes:
    array = np.asarray(values)
    dimensions = b"".join(number_field(1, size) for size in array.shape)
    named = message_field(8, name.encode()) + message_field(9, array.tobytes())
    return dimensions + number_field(2, kind) + named


def _value(name: str, kind: int, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(message_field(1, number_field(1, size)) for size in shape)
    tensor = number_field(1, kind) + message_field(2, sizes)
    return message_field(1, name.encode()) + message_field(2, message_field(1, tensor))
