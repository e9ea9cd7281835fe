"""Float ONNX -> ONNX whose weights and activations are float16, by type, with real edges."""

from __future__ import annotations

from typing import Any

from edgekit.bundle import Fallback
from edgekit.converters.onnx.simplify import sort_nodes
from edgekit.converters.sources.graph import one_line
from edgekit.errors import ModelError, require
from edgekit.runtime.backends.onnxruntime import import_onnxruntime

_CONTROL_FLOW = ("If", "Loop", "Scan")


def to_half(model: Any) -> tuple[Any, tuple[Fallback, ...]]:
    """Return `model` in float16, and what stays float32.

    TensorRT's strongly typed networks compute in the types that a graph has; no flag asks for
    fp16. Inputs and outputs stay float32.

    Args:
        model: a float `onnx.ModelProto`, simplified, with fixed dimensions.

    Raises:
        ModelError: it cannot be converted.
    """
    onnx: Any = require("onnx", "convert")
    import_onnxruntime()
    float16: Any = require("onnxruntime.transformers.float16", "convert")
    loops = [
        node.name or node.output[0] for node in model.graph.node if node.op_type in _CONTROL_FLOW
    ]
    if loops:
        raise ModelError(
            f"the model holds a loop or a branch ({loops[0]}), whose inside has types of its own: "
            "choose fp32, or in the model LSTM in the place of GRU and of cells of your own"
        )
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    try:
        half = float16.convert_float_to_float16(copy, keep_io_types=True)
        sort_nodes(half.graph)  # it appends its casts
        half = onnx.shape_inference.infer_shapes(half)
    except Exception as error:  # of many kinds
        raise ModelError(f"the model cannot be made fp16: {one_line(error)}") from error
    kept = [n for n in model.graph.node if n.op_type in float16.DEFAULT_OP_BLOCK_LIST]
    return half, tuple(
        Fallback(node.name or node.output[0], f"{node.op_type} stays fp32") for node in kept
    )
