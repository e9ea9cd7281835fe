"""Which operators LiteRT runs in integers, and what their grids must be.

After https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec and the
kernels themselves; a test runs each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OutputGrid = Literal["own", "input", "fixed"]


@dataclass(frozen=True)
class Operator:
    """How an operator runs in integers.

    Attributes:
        output: where the output's grid comes from: a range of its ``own``, the ``input``'s (all
            data inputs and outputs share one grid), or ``fixed`` by the kernel.
        weights: index of the input that is a constant with a scale a channel.
        bias: index of the input that is a bias in the scale of input times weights.
        axis: channel axis of the weights.
        scales: of a fixed grid, for int8 and for int16.
        zero_point: of a fixed int8 grid.
        has_int16: whether there is a kernel for int16 activations.
    """

    output: OutputGrid
    weights: int | None = None
    bias: int | None = None
    axis: int = 0
    scales: tuple[float, float] = (0, 0)
    zero_point: int = 0
    has_int16: bool = True


def _fixed(int8: float, zero_point: int, int16: float = 0) -> Operator:
    return Operator("fixed", scales=(int8, int16), zero_point=zero_point, has_int16=bool(int16))


_OWN = Operator("own")
_OWN_INT8 = Operator("own", has_int16=False)
_SAME = Operator("input")
_SAME_INT8 = Operator("input", has_int16=False)

OPERATORS: dict[str, Operator] = {
    "CONV_2D": Operator("own", weights=1, bias=2),
    "DEPTHWISE_CONV_2D": Operator("own", weights=1, bias=2, axis=3),
    "FULLY_CONNECTED": Operator("own", weights=1, bias=2),
    "TRANSPOSE_CONV": Operator("own", weights=1, bias=3),
    "SOFTMAX": _fixed(1 / 256, -128, 1 / 32768),
    "LOGISTIC": _fixed(1 / 256, -128, 1 / 32768),
    "TANH": _fixed(1 / 128, 0, 1 / 32768),
    "L2_NORMALIZATION": _fixed(1 / 128, 0),
    "LOG_SOFTMAX": _fixed(16 / 256, 127),
    **dict.fromkeys(("ADD", "SUB", "MUL", "BATCH_MATMUL", "MEAN", "LEAKY_RELU"), _OWN),
    **dict.fromkeys(("RELU", "RELU6", "SUM", "EXP", "RSQRT", "ABS"), _OWN),
    **dict.fromkeys(("RELU_N1_TO_1", "HARD_SWISH", "PRELU", "ELU", "GELU"), _OWN_INT8),
    **dict.fromkeys(("SQUARED_DIFFERENCE", "ARG_MAX"), _OWN_INT8),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _SAME),
    **dict.fromkeys(("TRANSPOSE", "PAD", "PADV2", "MIRROR_PAD", "CONCATENATION", "PACK"), _SAME),
    **dict.fromkeys(("STRIDED_SLICE", "SLICE", "SPLIT", "SPLIT_V", "UNPACK", "GATHER"), _SAME),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REDUCE_MAX"), _SAME),
    **dict.fromkeys(("MAXIMUM", "MINIMUM", "REDUCE_MIN", "REVERSE_V2", "TILE"), _SAME),
    **dict.fromkeys(("SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "GATHER_ND", "SELECT_V2"), _SAME_INT8),
    **dict.fromkeys(("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "BROADCAST_TO"), _SAME_INT8),
}
"""By the builtin's name."""

_VERSIONS: dict[str, tuple[int, int]] = {
    "CONV_2D": (3, 4),
    "DEPTHWISE_CONV_2D": (3, 5),
    "FULLY_CONNECTED": (4, 7),
    "SUB": (2, 5),
    "TRANSPOSE": (2, 5),
    "LEAKY_RELU": (1, 2),
    "GATHER_ND": (1, 3),
    "QUANTIZE": (1, 2),
    **dict.fromkeys(("TRANSPOSE_CONV", "REVERSE_V2", "TILE", "BROADCAST_TO"), (3, 3)),
    **dict.fromkeys(("SLICE", "SPLIT", "UNPACK", "GATHER", "MAXIMUM", "MINIMUM"), (2, 4)),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), (2, 4)),
    **dict.fromkeys(("SUM", "EXP", "STRIDED_SLICE", "SPLIT_V"), (2, 2)),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SELECT_V2"), (1, 1)),
    **dict.fromkeys(("RELU_N1_TO_1", "HARD_SWISH", "PRELU", "ELU"), (1, 1)),
    "MUL": (3, 4),
}


def version_of(kind: str, is_int16: bool) -> int:
    """Return the version from which on an operator takes integers, as LiteRT's own tools write it.

    A runtime too old for it then says so, where it would compute nonsense. After
    https://github.com/google-ai-edge/LiteRT/blob/main/tflite/tools/versioning/op_version.cc
    """
    return _VERSIONS.get(kind, (2, 3))[is_int16]
