"""Source model -> .tflite, the format of LiteRT (formerly TensorFlow Lite)."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Fallback
from edgekit.converters.isolated import Progress
from edgekit.converters.quantize import INT8_STEPS
from edgekit.converters.quantize.static import prepare_static
from edgekit.converters.quantize_tflite import quantize_tflite
from edgekit.converters.recurrent import emit_recurrent
from edgekit.converters.sources import SourceModel
from edgekit.converters.sources.graph import FrozenGraph, checked_inputs, freeze, one_line
from edgekit.converters.sources.tflite import TfliteSource
from edgekit.errors import DataError, ModelError, UsageError, expect_one_of, require
from edgekit.runtime.tflite import OperatorSpec, TfliteDescription, describe_tflite
from edgekit.specs import PRECISIONS

Calibration = Callable[[], Iterator[tuple[NDArray[Any], ...]]]
_FLOATS = ("float32", "float16", "bfloat16", "float64")
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_VARIABLES = ("READ_VARIABLE", "VAR_HANDLE", "ASSIGN_VARIABLE", "CALL_ONCE")


_NO_INT8_LOOPS = (
    "this model runs a loop (LSTM, GRU or RNN), which cannot be made int8 from this kind of file; "
    "give the .keras file, choose fp32, fp16 or dynamic, or build the layer with unroll=True"
)


class Emitted(msgspec.Struct, frozen=True):
    """A compiled model.

    Attributes:
        content: the .tflite file.
        fallbacks: what does not run in the precision asked for.
        notes: how weights were prepared for int8 where that is not as usual.
    """

    content: bytes
    fallbacks: tuple[Fallback, ...] = ()
    notes: tuple[str, ...] = ()


def emit(
    source: SourceModel,
    precision: str,
    calibration: Calibration | None,
    on_progress: Progress | None = None,
    int8_steps: Sequence[str] = INT8_STEPS,
) -> Emitted:
    """Convert `source` to a .tflite of `precision`.

    Args:
        source: as `open_source` gives it.
        precision: ``fp32``, ``fp16``, ``dynamic`` or ``int8``. int8 models take and give int8.
        calibration: starts a new pass over the calibration set, one tuple of the model's inputs
            (batch 1) a sample; needed to make a model ``int8``. It is called several times.
        on_progress: called with (phase, done, total), total 0 where it is not known.
        int8_steps: what is done to a Keras 3 model before it is made ``int8``.

    Raises:
        UsageError: an unknown precision, or int8 without calibration.
        DataError: the calibration set is empty or does not fit the model's inputs.
        ModelError: the model cannot be converted to that precision.
    """
    expect_one_of("precision", precision, PRECISIONS)
    is_done = isinstance(source, TfliteSource) and source.precision == precision
    samples = None
    if precision == "int8" and not is_done:
        samples = _int8_samples(source, calibration, on_progress)
    notes: tuple[str, ...] = ()
    if samples is not None and isinstance(source, FrozenGraph) and not source.has_loops:
        first_pass = _int8_samples(source, calibration, on_progress, "read samples")
        source, notes = _prepared(source, first_pass, int8_steps, on_progress)
    if on_progress is not None:
        on_progress("convert", 0, 0)
    if isinstance(source, TfliteSource):
        content = _emit_tflite(source, precision, samples)
    elif isinstance(source, FrozenGraph):
        content = _emit_graph(source, precision, samples)
    else:
        raise UsageError(f"`source` must come from open_source; got {type(source).__name__}")
    description = describe_tflite(content, f"the converted {precision} model")
    _check_operators(description)
    return Emitted(content, _fallbacks(description, precision), notes)


def _prepared(
    source: FrozenGraph,
    samples: Calibration,
    steps: Sequence[str],
    on_progress: Progress | None,
) -> tuple[FrozenGraph, tuple[str, ...]]:
    """Return the source made ready for int8 where it is a Keras 3 model, and what to know."""
    if not steps:
        return source, ()
    if source.model is None:
        return source, (f"{', '.join(steps)}: only for models that Keras 3 loads, not done here",)
    prepared = prepare_static(source, samples, steps, on_progress)
    model = prepared.model
    if model is None:
        return source, prepared.notes

    keras: Any = require("keras", "convert")

    def call(*tensors: Any) -> Any:
        return keras.tree.flatten(model(list(tensors), training=False))

    names = [spec.name for spec in source.outputs]
    return freeze(source.kind, call, source.inputs, names, model), prepared.notes


def _int8_samples(
    source: SourceModel,
    calibration: Calibration | None,
    on_progress: Progress | None,
    phase: str = "calibrate",
) -> Calibration:
    """Return the calibration set as passes that are checked and counted."""
    if calibration is None:
        raise UsageError(
            "int8 needs a calibration set, which is never invented: give --data, "
            "or choose fp32, fp16 or dynamic"
        )

    def passes() -> Iterator[tuple[NDArray[Any], ...]]:
        done = 0
        for done, sample in enumerate(calibration(), 1):
            try:
                arrays = tuple(checked_inputs(source.inputs, sample))
            except ModelError as error:
                raise DataError(f"calibration sample {done} does not fit: {error}") from error
            if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays):
                raise DataError(f"calibration sample {done} holds NaN or infinite values")
            yield arrays
            if on_progress is not None:
                on_progress(phase, done, 0)
        if not done:
            raise DataError("the calibration set is empty; int8 needs some 100 typical samples")

    return passes


def _emit_tflite(source: TfliteSource, precision: str, samples: Calibration | None) -> bytes:
    if source.precision == precision:
        return source.content
    if source.precision != "fp32":
        raise ModelError(
            f"this .tflite is {source.precision} already and cannot become {precision}; say "
            f"{source.precision}, or convert from the float model that it was made of"
        )
    if samples is not None and source.description.subgraphs > 1:
        raise ModelError(_NO_INT8_LOOPS)
    return quantize_tflite(source, precision, None if samples is None else samples())


def _emit_graph(source: FrozenGraph, precision: str, samples: Calibration | None) -> bytes:
    if samples is None:
        return _convert(source, precision)
    if source.has_loops and source.model is not None:
        return emit_recurrent(source, _convert, samples())
    if source.has_loops:
        raise ModelError(_NO_INT8_LOOPS)
    try:
        return _convert(source, precision, samples)
    except ModelError:
        # Some operator has no int8 kernel: let such ones be float. They are reported.
        return _convert(source, precision, samples, allow_float=True)


def _convert(
    source: FrozenGraph,
    precision: str,
    samples: Calibration | None = None,
    allow_float: bool = False,
) -> bytes:
    tf: Any = require("tensorflow", "convert")
    with _quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([source.concrete], source.owner)
    if precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if samples is not None:
        converter.representative_dataset = lambda: (list(sample) for sample in samples())
        operators = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.target_spec.supported_ops = (
            [*operators, tf.lite.OpsSet.TFLITE_BUILTINS] if allow_float else operators
        )
        converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        with _quiet():
            return bytes(converter.convert())
    except DataError:
        raise
    except Exception as error:
        raise ModelError(
            f"TensorFlow's converter cannot make this model {precision}: {_useful(str(error))}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the two warnings that say nothing here.

    There is no trackable object behind a frozen function, and inputs have statistics.
    """

    def says_something(record: logging.LogRecord) -> bool:
        return "trackable_obj" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(says_something)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
            yield
    finally:
        logger.removeFilter(says_something)


def _useful(message: str) -> str:
    """Return what matters of a converter's message of many lines."""
    missing = re.findall(r"(?:TF Select ops|Custom ops): (.+)", message)
    if missing:
        return f"LiteRT has no operator for TensorFlow's {'; '.join(missing)}"
    if "TensorListReserve" in message:
        return (
            "its recurrent layer was traced with an open batch; export it with a signature of "
            "batch 1, or give the .keras file instead"
        )
    errors = re.findall(r"error: (?:loc\(.*?\): )?(.+)", message)
    return one_line(errors[0] if errors else message)


def _check_operators(description: TfliteDescription) -> None:
    """Refuse what would fail or go wrong silently on the device."""
    for operator in description.operators:
        if operator.is_custom:
            raise ModelError(
                f"the converted model needs {operator.name}, which LiteRT has not built in; "
                f"replace that operation in the model by one of standard layers"
            )
        if operator.name in _VARIABLES:
            raise ModelError(
                f"the converted model keeps variables ({operator.name}) that were not frozen; "
                f"stateful models are not supported: make the state an input and an output"
            )


def _fallbacks(description: TfliteDescription, precision: str) -> tuple[Fallback, ...]:
    if precision == "dynamic" and not any(tensor.scales for tensor in description.tensors):
        reason = "none has 1,024 values in an operator that takes int8 weights, so all stay float"
        return (Fallback(what="all weights", reason=reason),)
    if precision != "int8":
        return ()
    return tuple(
        Fallback(
            what=f"{operator.name} {operator.outputs[0].name if operator.outputs else ''}".strip(),
            reason="it has no int8 kernel, so it runs in float",
        )
        for operator in description.operators
        if operator.name not in _CONVERSIONS and _touches_float(operator)
    )


def _touches_float(operator: OperatorSpec) -> bool:
    tensors = [*operator.inputs, *operator.outputs]
    return any(tensor is not None and tensor.dtype in _FLOATS for tensor in tensors)
