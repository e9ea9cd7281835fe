"""Source model -> .tflite, the format of LiteRT (formerly TensorFlow Lite)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgekit.bundle import Fallback
from edgekit.converters.formats import INTEGERS, Emitted, expect_ranges
from edgekit.converters.observe import Samples
from edgekit.converters.quantize import INT8_STEPS
from edgekit.converters.quantize.ranges import Observer, RangeTable
from edgekit.converters.recurrent import emit_recurrent
from edgekit.converters.samples import checked_passes
from edgekit.converters.sources import SourceModel
from edgekit.converters.sources.graph import FrozenGraph
from edgekit.converters.sources.tflite import TfliteSource
from edgekit.converters.static import float_twin, has_trained_ranges
from edgekit.converters.tflite.convert import convert_graph
from edgekit.converters.tflite.lower import lower_tflite
from edgekit.errors import ModelError, expect_one_of
from edgekit.isolated import Progress
from edgekit.runtime.tflite import TfliteDescription, describe_tflite
from edgekit.specs import PRECISIONS as ALL_PRECISIONS
from edgekit.targets import Target

MODEL_FILE = "model.tflite"
BACKEND = "litert"
PRECISIONS = ALL_PRECISIONS
_VARIABLES = ("READ_VARIABLE", "VAR_HANDLE", "ASSIGN_VARIABLE", "CALL_ONCE")


_NO_INTEGER_LOOPS = (
    "this model runs a loop (LSTM, GRU or RNN), which cannot be made int8 from this kind of file; "
    "give the .keras file, choose fp32, fp16 or dynamic, or build the layer with unroll=True"
)


def fitted(source: SourceModel) -> SourceModel:
    """Return the source: LiteRT has channels last, as TensorFlow does."""
    return source


def source_shape(shape: tuple[int, ...], suffix: str) -> tuple[int, ...]:
    """Return an input's shape as it is in the source."""
    return shape


def emit(
    source: SourceModel,
    precision: str,
    calibration: Samples | None,
    on_progress: Progress | None = None,
    int8_steps: Sequence[str] = INT8_STEPS,
    *,
    observer: Observer = "minmax",
    ranges: RangeTable | None = None,
    target: Target | None = None,
    output_bits: int | None = None,
) -> Emitted:
    """Convert `source` to a .tflite of `precision`.

    Args:
        source: as `open_source` gives it.
        precision: ``fp32``, ``fp16``, ``dynamic``, ``int8`` or ``int16x8``. Integer models take
            and give integers.
        calibration: starts a new pass over the calibration set, one tuple of the model's inputs
            (batch 1) a sample; needed to make a model of integers, unless it was trained for that
            or `ranges` are complete. It is called several times.
        on_progress: called with (phase, done, total), total 0 where it is not known.
        int8_steps: what is done to a Keras 3 model before it is made of integers.
        observer: how ranges are chosen from what is observed.
        ranges: in the place of observed ones.
        target: the device; all run the same .tflite.
        output_bits: of int8 models, 8 or 16; None: 16 where the layers that make them are next to
            nothing of the model's work.

    Raises:
        UsageError: an unknown precision, or integers without calibration.
        DataError: the calibration set is empty or does not fit the model's inputs.
        ModelError: the model cannot be converted to that precision.
    """
    expect_one_of("precision", precision, [name for name in PRECISIONS if name != "auto"])
    say = on_progress or (lambda phase, done, total: None)
    is_done = isinstance(source, TfliteSource) and source.precision == precision
    if isinstance(source, TfliteSource) and not is_done:
        _expect_float(source, precision)
    if output_bits is not None and (is_done or _has_loops(source)):
        why = f"this .tflite is {precision} already" if is_done else "recurrent layers give int8"
        raise ModelError(f"`output_bits` cannot be chosen here, since {why}: leave it out")
    if precision in INTEGERS and not is_done:
        emitted = _emit_integers(
            source, precision, calibration, say, int8_steps, observer, ranges, output_bits
        )
    else:
        if has_trained_ranges(source):
            raise ModelError(
                f"this model was trained for integers and cannot become {precision}; choose int8, "
                "int16x8 or auto, or convert the model that it was made of"
            )
        say("convert", 0, 0)
        emitted = _emit_real(source, precision)
    description = describe_tflite(emitted.content, f"the converted {precision} model")
    _check_operators(description)
    return msgspec.structs.replace(
        emitted, fallbacks=(*emitted.fallbacks, *_fallbacks(description, precision))
    )


def _emit_integers(
    source: SourceModel,
    precision: str,
    calibration: Samples | None,
    say: Progress,
    steps: Sequence[str],
    observer: Observer,
    ranges: RangeTable | None,
    output_bits: int | None,
) -> Emitted:
    def passes(phase: str) -> Samples | None:
        return checked_passes(source.inputs, calibration, say, phase) if calibration else None

    samples = passes("calibrate")
    if samples is None:
        expect_ranges(source, precision, ranges, steps)
    if _has_loops(source):
        return _emit_recurrent(source, precision, samples)
    twin = float_twin(
        source,
        samples,
        steps=steps,
        observer=observer,
        given=ranges,
        on_progress=say,
        read=checked_passes(source.inputs, calibration, say, "read samples")
        if calibration
        else None,
    )
    if precision == "int8":
        twin = twin.with_outputs(output_bits)
    quantized = twin.quantize("int16x8" if precision == "int16x8" else "int8")
    fallbacks, notes = quantized.fallbacks, twin.notes
    if isinstance(source, FrozenGraph) and source.feedback is not None:
        fallbacks, planned = source.feedback.without_planned(fallbacks)
        notes += planned
    return Emitted(quantized.content, fallbacks, notes, twin.table, twin.named_extremes(), twin)


def _expect_float(source: TfliteSource, precision: str) -> None:
    if source.precision != "fp32":
        raise ModelError(
            f"this .tflite is {source.precision} already and cannot become {precision}; say "
            f"{source.precision}, or convert from the float model that it was made of"
        )


def _emit_recurrent(source: SourceModel, precision: str, samples: Samples | None) -> Emitted:
    if not isinstance(source, FrozenGraph) or source.model is None:
        raise ModelError(_NO_INTEGER_LOOPS)
    if precision != "int8" or samples is None:
        raise ModelError(
            f"LiteRT has no kernel for recurrent layers in {precision}; choose int8, fp32, fp16 or "
            "dynamic"
        )
    return Emitted(emit_recurrent(source, convert_graph, samples()))


def _emit_real(source: SourceModel, precision: str) -> Emitted:
    """Emit what computes with real numbers, or is done already."""
    if isinstance(source, TfliteSource):
        if source.precision == precision:
            return Emitted(source.content)
        return Emitted(lower_tflite(source, precision))
    assert isinstance(source, FrozenGraph)
    return Emitted(convert_graph(source, precision))


def _has_loops(source: SourceModel) -> bool:
    if isinstance(source, TfliteSource):
        return source.description.subgraphs > 1
    return isinstance(source, FrozenGraph) and source.has_loops


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
    if precision != "dynamic" or any(tensor.scales for tensor in description.tensors):
        return ()
    reason = "none has 1,024 values in an operator that takes int8 weights, so all stay float"
    return (Fallback(what="all weights", reason=reason),)
