"""Make a float .tflite fp16 or dynamic with ai-edge-quantizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit.converters.sources.graph import one_line
from edgekit.converters.sources.tflite import TfliteSource
from edgekit.errors import ModelError, require


def lower_tflite(source: TfliteSource, precision: str) -> bytes:
    """Return the float model `source` as .tflite of `precision`.

    Args:
        source: a float model.
        precision: ``fp16`` or ``dynamic``.

    Raises:
        ModelError: ai-edge-quantizer cannot do it.
        MissingPackage: ai-edge-quantizer is not installed.
    """
    quantizer_module: Any = require("ai_edge_quantizer.quantizer", "convert")
    quantizer = quantizer_module.Quantizer(bytearray(source.content))
    try:
        _RECIPES[precision](quantizer)
        result = quantizer.quantize(None, enable_progress_bar=False, enable_progress_report=False)
        return bytes(result.quantized_model)
    except Exception as error:
        raise ModelError(
            f"ai-edge-quantizer cannot make this .tflite {precision}: {one_line(error)}; "
            f"convert from the Keras model or SavedModel that it was made of"
        ) from error


def _cast_to_half(quantizer: Any) -> None:
    types: Any = require("ai_edge_quantizer.qtyping", "convert")
    algorithms: Any = require("ai_edge_quantizer.algorithm_manager", "convert")
    half = types.TensorQuantizationConfig(num_bits=16, dtype=types.TensorDataType.FLOAT)
    quantizer.update_quantization_recipe(
        ".*",
        types.TFLOperationName.ALL_SUPPORTED,
        types.OpQuantizationConfig(
            weight_tensor_config=half,
            compute_precision=types.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithms.AlgorithmName.FLOAT_CASTING,
    )


def _load_recipe(name: str) -> Callable[[Any], None]:
    def load(quantizer: Any) -> None:
        recipes: Any = require("ai_edge_quantizer.recipe", "convert")
        quantizer.load_quantization_recipe(getattr(recipes, name)())

    return load


_RECIPES: dict[str, Callable[[Any], None]] = {
    "fp16": _cast_to_half,
    "dynamic": _load_recipe("dynamic_wi8_afp32"),
}
