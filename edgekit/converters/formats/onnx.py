"""Source model -> ONNX: float, float16 by type, or int8 with explicit Q/DQ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgekit.converters.formats import Emitted, expect_ranges
from edgekit.converters.observe import Extremes, Samples, clipped_ranges, observe
from edgekit.converters.onnx.export import export_layers, export_onnx
from edgekit.converters.onnx.graph import OnnxGraph
from edgekit.converters.onnx.half import to_half
from edgekit.converters.onnx.lint import lint
from edgekit.converters.onnx.observe import OnnxProbe
from edgekit.converters.onnx.qdq import insert_qdq
from edgekit.converters.onnx.simplify import name_outputs
from edgekit.converters.quantize import INT8_STEPS
from edgekit.converters.quantize.aware.read import trained_table
from edgekit.converters.quantize.ranges import Observer, RangeTable
from edgekit.converters.quantize.static import prepare_static
from edgekit.converters.samples import checked_passes
from edgekit.converters.sources import SourceModel
from edgekit.converters.sources.channels_first import (
    ChannelsFirst,
    channels_first,
    to_channels_last,
)
from edgekit.converters.sources.graph import FrozenGraph
from edgekit.converters.sources.onnx import OnnxSource
from edgekit.converters.static import has_trained_ranges
from edgekit.errors import ModelError, expect_one_of
from edgekit.isolated import Progress
from edgekit.targets import Target

MODEL_FILE = "model.onnx"
BACKEND = "onnxruntime"
PRECISIONS = ("fp32", "fp16", "int8")


def fitted(source: SourceModel) -> SourceModel:
    """Return the source with its pictures as NCHW, as the ONNX model has them."""
    return channels_first(source)


def source_shape(shape: tuple[int, ...], suffix: str) -> tuple[int, ...]:
    """Return an input's shape as it is in the source, of which `fitted` made this one.

    Args:
        shape: in the bundle, batch first.
        suffix: of the source's file.
    """
    if suffix == ".onnx" or len(shape) != 4:
        return shape
    return (shape[0], *shape[2:], shape[1])


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
    output_bits: None = None,
) -> Emitted:
    """Convert `source`, which is `fitted`, to ONNX of `precision`.

    Args and errors are those of `edgekit.converters.formats.litert.emit`; inputs and outputs of
    int8 models are real numbers here. Activations are int8 around zero, which TensorRT needs, but
    for a target that does not run ONNX by TensorRT: CPUs are faster with uint8 over the range.
    """
    expect_one_of("precision", precision, PRECISIONS)
    say = on_progress or (lambda phase, done, total: None)
    if isinstance(source, OnnxSource) and source.precision != "fp32":
        return _as_it_is(source, precision)
    if precision == "int8":
        symmetric = target is None or target.has_tensorrt
        return _emit_int8(source, calibration, say, int8_steps, observer, ranges, symmetric)
    if has_trained_ranges(_inner(source)):
        raise ModelError(
            f"this model was trained for integers and cannot become {precision}; choose int8, or "
            "convert the model that it was made of"
        )
    say("convert", 0, 0)
    model = source.model if isinstance(source, OnnxSource) else export_onnx(_frozen(source))
    if precision == "fp32":
        return Emitted(model.SerializeToString(), notes=_objections(model))
    half, fallbacks = to_half(model)
    return Emitted(half.SerializeToString(), fallbacks, _objections(half))


def _objections(model: Any) -> tuple[str, ...]:
    """Return what TensorRT has against a model, for people who mean to run it there."""
    return tuple(
        f"TensorRT: {finding.severity}: {finding.node}: {finding.message}; {finding.remedy}"
        for finding in lint(model)
        if finding.severity != "note"
    )


def _as_it_is(source: OnnxSource, precision: str) -> Emitted:
    if source.precision != precision:
        raise ModelError(
            f"this .onnx is {source.precision} already and cannot become {precision}; say "
            f"`precision` {source.precision}, or convert from the float model that it was made of"
        )
    return Emitted(source.model.SerializeToString(), notes=_objections(source.model))


def _emit_int8(
    source: SourceModel,
    calibration: Samples | None,
    say: Progress,
    steps: Sequence[str],
    observer: Observer,
    given: RangeTable | None,
    symmetric: bool,
) -> Emitted:
    if calibration is None:
        expect_ranges(_inner(source), "int8", given, steps)
    samples = None
    if calibration is not None:
        samples = checked_passes(source.inputs, calibration, say, "calibrate")
    float_model = _float_model(source, samples, steps, observer, say)
    model, table = float_model.model, float_model.table
    graph = model.graph
    if given is not None:  # before a long pass over the set
        given.over(table, float_model.known())
    extremes: Extremes[str] | None = None
    if samples is not None:
        probe = OnnxProbe(model)
        extremes = observe(probe, samples)
        found = extremes.ranges()
        if observer != "minmax":
            found = clipped_ranges(probe, found, samples, observer)
        table = table.with_ranges({**found, **table.tensors})
    inner = _inner(source)
    feedback = inner.feedback if isinstance(inner, FrozenGraph) else None
    if feedback is not None:
        inputs, outputs = ([one.name for one in ends] for ends in (graph.input, graph.output))
        table = feedback.over(table, inputs, outputs, float_model.known())
    if given is not None:
        table = given.over(table, float_model.known())
    floats = [name for name, chosen in table.precisions.items() if chosen != "int8"]
    done = insert_qdq(model, table.tensors, floats, symmetric=symmetric)
    name_outputs(done.model.graph, [spec.name for spec in source.outputs])
    content = done.model.SerializeToString()
    notes = (*float_model.notes, *(_objections(done.model) if symmetric else ()))
    fallbacks = done.fallbacks
    if feedback is not None:
        fallbacks, planned = feedback.without_planned(fallbacks)
        notes += planned
    return Emitted(content, fallbacks, notes, table, extremes)


@dataclass(frozen=True)
class _FloatModel:
    """What gets Q/DQ.

    Attributes:
        model: a float `onnx.ModelProto`.
        table: its ranges, as far as they are known before it runs.
        notes: how it was prepared, for people.
        layers: names of all layers that it came from.
    """

    model: Any
    table: RangeTable
    notes: tuple[str, ...]
    layers: tuple[str, ...] = ()

    def known(self) -> list[str]:
        """Return the names that a table may have."""
        graph = OnnxGraph(self.model)
        return list(dict.fromkeys((*graph.inputs, *graph.makers, *self.layers)))


def _float_model(
    source: SourceModel,
    samples: Samples | None,
    steps: Sequence[str],
    observer: Observer,
    say: Progress,
) -> _FloatModel:
    inner = _inner(source)
    table = RangeTable(origin=observer, tensors={})
    if isinstance(inner, OnnxSource):
        return _FloatModel(inner.model, table, _not_done(steps))
    frozen = _frozen(source)
    prepared, notes = None, _not_done(steps)
    if has_trained_ranges(frozen):
        prepared, table = trained_table(frozen.model)
        notes = (f"ranges trained for {table.scheme}; no steps before int8",)
    elif frozen.model is not None and frozen.has_loops:
        notes = ("recurrent layers stay float; no steps before int8",)
    elif frozen.model is not None:
        done = prepare_static(frozen, *_before_int8(samples, steps), say)
        prepared, notes = done.graph, done.notes
        table = msgspec.structs.replace(table, steps=tuple(steps) if prepared is not None else ())
    say("convert", 0, 0)
    if prepared is None:
        return _FloatModel(export_onnx(frozen), table, notes)
    model = export_layers(frozen, prepared)
    return _FloatModel(model, table, notes, tuple(prepared.names().values()))


def _before_int8(
    samples: Samples | None, steps: Sequence[str]
) -> tuple[Samples | None, Sequence[str]]:
    """Return the passes with channels last, as Keras takes them, and what they are for."""
    if samples is None:
        return None, ()
    passes = samples
    return (lambda: map(to_channels_last, passes())), steps


def _not_done(steps: Sequence[str]) -> tuple[str, ...]:
    if not steps:
        return ()
    return (f"{', '.join(steps)}: only for models that Keras 3 loads, not done here",)


def _inner(source: SourceModel) -> SourceModel:
    return source.source if isinstance(source, ChannelsFirst) else source


def _frozen(source: SourceModel) -> FrozenGraph:
    inner = _inner(source)
    if not isinstance(inner, FrozenGraph):
        raise ModelError(
            f"ONNX is made from Keras models, SavedModels and .onnx files, not from {inner.kind}; "
            "choose --format litert"
        )
    return inner
