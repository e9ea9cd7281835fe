"""Trained model -> bundle: `edgekit.convert`."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from numpy.typing import NDArray

from edgekit.bundle import (
    Accuracy,
    Bundle,
    Fallback,
    Golden,
    Parity,
    check_destination,
    read_bundle,
    write_bundle,
)
from edgekit.converters.assemble import golden_samples
from edgekit.converters.audit import ENOUGH_SAMPLES, range_finding, unstable_ranges
from edgekit.converters.budget import Budget
from edgekit.converters.compile import compile_model, opened
from edgekit.converters.formats import Emitted
from edgekit.converters.job import (
    GOLDEN_SAMPLES,
    LAYER_SAMPLES,
    PARITY_SAMPLES,
    Job,
    open_job,
    resolve,
)
from edgekit.converters.quantize import INT8_STEPS
from edgekit.converters.quantize.ranges import FILE_NAME as RANGES_FILE
from edgekit.converters.quantize.ranges import Observer
from edgekit.converters.recipe import Recipe, recipe_of
from edgekit.converters.report import conversion_report
from edgekit.converters.samples import model_inputs, subset
from edgekit.converters.streaming.proof import measure_drift
from edgekit.converters.streaming.source import STREAM_TOLERANCE
from edgekit.errors import CheckFailed
from edgekit.evaluation.evaluate import Comparison, compare_with_source
from edgekit.evaluation.layers import LayerComparison, compare_layers
from edgekit.evaluation.metrics import format_metric
from edgekit.golden import write_golden
from edgekit.isolated import Progress
from edgekit.profiling.rss import peak_rss_mb
from edgekit.reports import render
from edgekit.runtime.model import Model
from edgekit.specs import Preprocess, Task
from edgekit.streaming import Drift, Streaming

if TYPE_CHECKING:
    import keras


class ConversionSummary(msgspec.Struct, frozen=True):
    """What a conversion did and cost; `docs/json.md` describes the fields."""

    bundle: str
    format: str
    precision: str
    size_bytes: int
    seconds: float
    peak_rss_mb: float
    parity: Parity
    accuracy: Accuracy | None
    fallbacks: tuple[Fallback, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    budget: Budget | None
    failure: str | None
    layers: LayerComparison | None = None
    drift: Drift | None = None


def convert(
    model: str | Path | keras.Model,
    out: str | Path,
    *,
    precision: str | None = None,
    format: str | None = None,  # noqa: A002
    data: Any = None,
    eval_data: Any = None,
    preprocess: str | Preprocess | None = None,
    labels: str | Path | Sequence[str] | None = None,
    task: Task | None = None,
    target: str | None = None,
    input_shape: Sequence[int] | None = None,
    max_drop: float | str | None = None,
    calibration_samples: int = 512,
    int8_steps: Sequence[str] = INT8_STEPS,
    observer: Observer = "minmax",
    ranges: str | Path | None = None,
    output_bits: int | None = None,
    golden_frames: bool = True,
    streaming: bool = False,
    reset_on: Sequence[str] | None = None,
    keep: bool = False,
    custom_objects: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> Bundle:
    """Convert a trained model to a bundle.

    Args:
        model: a Keras model, or the path of a `.keras`, `.h5`, SavedModel folder, float `.tflite`
            or `.onnx`.
        out: the bundle's folder, NAME.edgekit.
        precision: fp32, fp16, dynamic, int8, int16x8 or auto; the last three need `data`, unless
            the model comes from `quantize_aware`; auto needs `eval_data` and `max_drop` too. By
            default the best that `target` runs and that can be had, or fp32.
        format: litert or onnx; by default the best of `target`, or litert (onnx for an .onnx).
        data: calibration set: a path, an array [n, …], or an iterable of samples (RGB).
        eval_data: labelled set on which source and bundle are compared; also a pair (x, y).
        preprocess: how frames become the model's input: a preset, pairs, or a `Preprocess`.
        labels: class names, or the path of a file with one a line; by default those of the data.
        task: what the output means; by default told from its shape and values.
        target: name of a device, which must be able to run the result.
        input_shape: fixes open dimensions, batch first: (1, 224, 224, 3).
        max_drop: largest loss of the task's metric: 0.005 or "0.5%" is half a percentage point.
        calibration_samples: most samples used for calibration, spread over the set.
        int8_steps: what is done to a Keras model before it is made int8.
        observer: how ranges of activations are chosen: minmax, percentile or mse.
        ranges: a range table's file, or a bundle with one; its ranges replace observed ones.
        output_bits: of an int8 .tflite's outputs, 8 or 16; by default 16 where the layers that make
            them are next to nothing of the model's work.
        golden_frames: keep raw golden frames in the bundle, or tensors only.
        streaming: compile a recurrent model to one step of its sequence, with the state outside.
        reset_on: what makes the state zero in a stream: some of gap, dropped, source_back and
            end_of_sequence; by default all but dropped.
        keep: write the bundle even if it misses `max_drop`.
        custom_objects: the model's own classes by name; without them such models are refused.
        on_progress: called with (phase, done, total).

    Raises:
        UsageError: a setting that cannot be.
        ModelError: a model that cannot be read, or not be converted to this precision.
        DataError: a set that cannot be used.
        CheckFailed: `max_drop` is missed.

    >>> bundle = edgekit.convert(model, "out.edgekit", precision="int8", data=images,
    ...                          preprocess="imagenet")
    """
    recipe = recipe_of(
        {
            "precision": precision,
            "format": format,
            "data": _path_of(data),
            "eval_data": _path_of(eval_data),
            "preprocess": preprocess.as_text()
            if isinstance(preprocess, Preprocess)
            else preprocess,
            "labels": str(labels) if isinstance(labels, Path) else labels,
            "task": task,
            "target": target,
            "input_shape": None if input_shape is None else list(input_shape),
            "max_drop": max_drop,
            "calibration_samples": calibration_samples,
            "int8_steps": list(int8_steps),
            "observer": observer,
            "ranges": None if ranges is None else str(ranges),
            "output_bits": output_bits,
            "golden_frames": golden_frames,
            "streaming": streaming,
            "reset_on": None if reset_on is None else list(reset_on),
        }
    )
    summary = convert_with(
        recipe,
        model,
        Path(out),
        data=data,
        eval_data=eval_data,
        keep=keep,
        custom_objects=custom_objects,
        on_progress=on_progress,
    )
    if summary.failure is not None:
        raise CheckFailed(summary.failure)
    return read_bundle(out)


def convert_in_child(
    recipe: dict[str, Any], model: str, out: str, keep: bool, on_progress: Progress
) -> Any:
    """Convert as the command line does, with JSON values in and out (`run_isolated`)."""
    given = msgspec.convert(recipe, Recipe)
    summary = convert_with(
        given,
        model,
        Path(out),
        data=given.data,
        eval_data=given.eval_data,
        keep=keep,
        on_progress=on_progress,
    )
    return msgspec.to_builtins(summary)


def convert_with(
    recipe: Recipe,
    model: Any,
    out: Path,
    *,
    data: Any,
    eval_data: Any,
    keep: bool,
    custom_objects: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> ConversionSummary:
    """Convert `model` as `recipe` says; what can be refused early is refused early."""
    started_s = time.perf_counter()
    say = on_progress or (lambda phase, done, total: None)
    recipe = resolve(recipe, model, data, eval_data)
    check_destination(out)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        scratch = Path(folder)
        say("reading the model", 0, 0)
        job = open_job(recipe, model, data, eval_data, custom_objects, scratch)
        emitted, budget = compile_model(job, model, scratch, say)
        with opened(job, model, emitted, scratch) as compiled:
            comparison = compare_with_source(
                job.source,
                compiled,
                job.evaluation or job.unlabelled(PARITY_SAMPLES),
                lambda done, total: say("comparing with the source", done, total),
            )
            warnings = job.warnings(
                lambda done, total: say("auditing the calibration set", done, total)
            )
            warnings += _range_warnings(emitted)
            drift = _drift(job, compiled, say)
            summary = ConversionSummary(
                bundle=str(out),
                format=job.format,
                precision=job.precision,
                size_bytes=len(emitted.content),
                seconds=time.perf_counter() - started_s,
                peak_rss_mb=peak_rss_mb(),
                parity=comparison.parity,
                accuracy=comparison.accuracy,
                fallbacks=emitted.fallbacks,
                warnings=warnings,
                notes=(*emitted.notes, *_budget_notes(budget)),
                budget=budget,
                layers=_layers(job, emitted, compiled, say),
                failure=_missed_budget(recipe, comparison) or _unequal(job, comparison.parity),
                drift=drift,
            )
            if summary.failure is None or keep:
                _write(out, job, compiled, emitted, summary, comparison)
    return summary


def _layers(job: Job, emitted: Emitted, compiled: Model, say: Progress) -> LayerComparison | None:
    """Compare the model of integers with its float twin, layer by layer, on a few samples."""
    twin = emitted.twin
    if twin is None or (job.calibration is None and job.evaluation is None):
        return None  # synthetic inputs would say nothing about the ranges
    say("comparing layer by layer", 0, 0)
    manifest = compiled.bundle.manifest
    class_axis = None
    if manifest.task in ("classification", "segmentation"):
        class_axis = 1 if manifest.preprocess.layout == "nchw" else -1
    pairs = [(name, index, index) for name, index in twin.layers()]
    few = subset(job.samples, LAYER_SAMPLES)
    samples: Iterable[tuple[NDArray[Any], ...]]
    samples = model_inputs(few, job.preprocess, job.source.inputs)
    if job.stream is not None:
        steps = job.steps_of(few)
        samples = steps[:: max(1, len(steps) // LAYER_SAMPLES)]
    return compare_layers(twin.reference(), emitted.content, pairs, samples, class_axis)


def _range_warnings(emitted: Emitted) -> tuple[str, ...]:
    """Return what the audit says of ranges that single samples determine, as a few always do."""
    seen = emitted.extremes
    if seen is None or len(seen.low) < ENOUGH_SAMPLES:
        return ()
    names = list(seen.tensors)
    finding = range_finding(unstable_ranges(seen.low, seen.high, names), len(names))
    return () if finding is None else (finding.message,)


def _drift(job: Job, compiled: Model, say: Progress) -> Drift | None:
    if job.stream is None:
        return None
    say("streaming", 0, 0)
    return measure_drift(job.stream, compiled, job.samples)


def _unequal(job: Job, parity: Parity) -> str | None:
    """Say if a float stream does not lead to what the whole sequence gives."""
    if job.stream is None or job.precision != "fp32":
        return None
    if parity.max_abs <= STREAM_TOLERANCE or parity.snr_db >= -20 * math.log10(STREAM_TOLERANCE):
        return None
    return (
        f"the stream differs from the whole sequence by {parity.max_abs:.3g}; at most "
        f"{STREAM_TOLERANCE:g} is expected of fp32: please report it"
    )


def _missed_budget(recipe: Recipe, comparison: Comparison) -> str | None:
    accuracy = comparison.accuracy
    # A share of n samples moves in steps of 1/n: rounding must not decide.
    if recipe.max_drop is None or accuracy is None or accuracy.drop <= recipe.max_drop + 1e-9:
        return None
    return (
        f"{accuracy.metric} falls from {format_metric(accuracy.metric, accuracy.source)} to "
        f"{format_metric(accuracy.metric, accuracy.converted)}; a drop of at most "
        f"{format_metric(accuracy.metric, recipe.max_drop)} is allowed"
        + (
            ", which no mix of int8, int16x8 and fp32 layers keeps: this is the best of those "
            "tried; allow more, choose fp32, or train with edgekit qat"
            if recipe.precision == "auto"
            else ": try more or better calibration data, precision auto, or a higher one"
        )
    )


def _budget_notes(budget: Budget | None) -> tuple[str, ...]:
    if budget is None or budget.chosen.measured_ms is None:
        return ()
    measured_ms = budget.chosen.measured_ms
    if measured_ms < budget.fp32_ms:
        return ()
    return (
        f"the mix takes {measured_ms:.3g} ms here and fp32 {budget.fp32_ms:.3g} ms: on this "
        "machine it saves memory only",
    )


def _write(
    out: Path,
    job: Job,
    model: Model,
    emitted: Emitted,
    summary: ConversionSummary,
    comparison: Comparison,
) -> None:
    """Write the bundle with everything that was measured."""
    samples = golden_samples(model, subset(job.samples, GOLDEN_SAMPLES), job.recipe.golden_frames)
    manifest = msgspec.structs.replace(
        model.bundle.manifest,
        golden=Golden(
            len(samples),
            synthetic=job.calibration is None and job.evaluation is None,
            frames=samples[0].frame is not None,
        ),
        parity=comparison.parity,
        accuracy=comparison.accuracy,
        streaming=_with_drift(model.bundle.manifest.streaming, summary.drift),
    )
    report = conversion_report(manifest, summary, comparison, samples)
    files = {
        manifest.model: emitted.content,
        "golden.npz": write_golden(samples),
        "report.json": msgspec.json.format(msgspec.json.encode(summary), indent=1),
        "report.html": render(report).encode(),
    }
    if emitted.table is not None:
        table = msgspec.structs.replace(emitted.table, preprocess=job.preprocess.as_text())
        files[RANGES_FILE] = table.encode()
    if job.labels:
        files["labels.txt"] = "".join(f"{label}\n" for label in job.labels).encode()
    write_bundle(out, manifest, files)


def _with_drift(streaming: Streaming | None, drift: Drift | None) -> Streaming | None:
    return None if streaming is None else msgspec.structs.replace(streaming, drift=drift)


def _path_of(data: Any) -> str | None:
    """Return a set's path for the recipe; one that is in memory cannot be named there."""
    return str(data) if isinstance(data, str | Path) else None
