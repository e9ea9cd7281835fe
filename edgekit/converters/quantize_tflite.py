"""Lower the precision of a float .tflite with ai-edge-quantizer.

Its own calibration follows ranges by a moving average, which clips the last layer's largest
values and with them the answer of a classifier. So the ranges are observed here, smallest and
largest value over all samples, and handed to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.sources.graph import one_line
from edgekit.converters.sources.tflite import TfliteSource, open_interpreter
from edgekit.errors import ModelError, require

Samples = Iterable[tuple[NDArray[Any], ...]]


def quantize_tflite(source: TfliteSource, precision: str, samples: Samples | None) -> bytes:
    """Return the float model `source` as .tflite of `precision` (not fp32).

    Args:
        source: a float model.
        precision: ``fp16``, ``dynamic`` or ``int8``.
        samples: calibration set, for ``int8``: one tuple of the model's inputs a sample.

    Raises:
        ModelError: ai-edge-quantizer cannot do it.
        MissingPackage: ai-edge-quantizer is not installed.
    """
    quantizer_module: Any = require("ai_edge_quantizer.quantizer", "convert")
    ranges = None if samples is None else _observe(source, samples)
    quantizer = quantizer_module.Quantizer(bytearray(source.content))
    try:
        _RECIPES[precision](quantizer)
        with _quiet():
            result = quantizer.quantize(
                ranges, enable_progress_bar=False, enable_progress_report=False
            )
        return bytes(result.quantized_model)
    except Exception as error:
        raise ModelError(
            f"ai-edge-quantizer cannot make this .tflite {precision}: {one_line(error)}; "
            f"convert from the Keras model or SavedModel that it was made of"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence LiteRT's warning that keeping all tensors takes memory: that is wanted here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors")
        yield


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
    "int8": _load_recipe("static_wi8_ai8"),
}


def _observe(source: TfliteSource, samples: Samples) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Return the smallest and largest value of every computed float tensor over all samples."""
    litert: Any = require("ai_edge_litert.interpreter", "convert")
    # Without delegates: what XNNPACK fuses away would not be seen.
    with _quiet():
        interpreter = open_interpreter(
            source.content,
            "the model for calibration",
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    inputs = interpreter.get_input_details()
    # With a range given for a weight too, it would be quantized by that instead of per channel.
    weights = {t.name for t in source.description.tensors if t.constant_bytes}
    floats = [
        detail
        for detail in interpreter.get_tensor_details()
        if detail["dtype"] == np.float32 and detail["name"] not in weights
    ]
    ranges: dict[str, tuple[float, float]] = {}
    for sample in samples:
        interpreter.reset_all_variables()
        for detail, array in zip(inputs, sample, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        for name, low, high in _extremes(interpreter, floats):
            before = ranges.get(name, (low, high))
            ranges[name] = min(before[0], low), max(before[1], high)
    return {
        name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
        for name, (low, high) in ranges.items()
    }


def _extremes(interpreter: Any, details: list[Any]) -> Iterator[tuple[str, float, float]]:
    for detail in details:
        try:
            values = interpreter.get_tensor(detail["index"])
        except ValueError:  # a scratch tensor of a kernel has no content
            continue
        if values.size:
            yield detail["name"], float(values.min()), float(values.max())
