"""What a recipe asks for, compiled: one emission, or a search for the mix that keeps a budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from edgekit import plugins
from edgekit.bundle import Bundle, Manifest
from edgekit.converters.assemble import (
    draft_manifest,
    guess_postprocess,
    guess_task,
    provenance_of,
)
from edgekit.converters.budget import Budget, Search, meet_budget
from edgekit.converters.formats import Emitted
from edgekit.converters.job import GOLDEN_SAMPLES, Job
from edgekit.converters.quantize.ranges import RangeTable, read_ranges
from edgekit.converters.samples import model_inputs
from edgekit.converters.tflite.quantize_static import Quantized
from edgekit.errors import ModelError, UsageError
from edgekit.evaluation.evaluate import BundleModel, ReferenceModel, main_metric
from edgekit.isolated import Progress
from edgekit.runtime.backends import Backend, default_threads
from edgekit.runtime.model import Model
from edgekit.specs import class_count
from edgekit.streaming import DEFAULT_RESETS, StatePair, Streaming
from edgekit.targets import read_target


def compile_model(
    job: Job, model: Any, scratch: Path, on_progress: Progress
) -> tuple[Emitted, Budget | None]:
    """Return the compiled model, and how its mix of precisions was found if it has one.

    Args:
        job: opened.
        model: what was given, a path or a Keras model.
        scratch: an existing folder for intermediate files.
        on_progress: called with (phase, done, total).

    Raises:
        ModelError: a model that cannot be converted to that precision.
        UsageError: settings that cannot be together.
    """
    recipe = job.recipe
    on_progress(f"compiling to {job.format} {job.precision}", 0, 0)
    is_auto = job.precision == "auto"
    emitted = plugins.load("format", job.format).emit(
        job.compiled_source,
        "int8" if is_auto else job.precision,
        job.calibration_inputs(),
        on_progress,
        recipe.int8_steps,
        observer=recipe.observer,
        ranges=None if recipe.ranges is None else _given_ranges(recipe.ranges, job),
        target=None if recipe.target is None else read_target(recipe.target),
        output_bits=recipe.output_bits,
    )
    return _mixed(job, model, emitted, scratch, on_progress) if is_auto else (emitted, None)


def _given_ranges(path: str, job: Job) -> RangeTable:
    table, here = read_ranges(path), job.preprocess.as_text()
    if table.preprocess not in (None, here):
        raise UsageError(
            f"`ranges` were found with `preprocess` {table.preprocess}, and this conversion has "
            f"{here}: they do not fit; say --preprocess {table.preprocess}"
        )
    return table


def _mixed(
    job: Job, model: Any, emitted: Emitted, scratch: Path, on_progress: Progress
) -> tuple[Emitted, Budget]:
    twin, samples, evaluation = emitted.twin, job.calibration_inputs(), job.evaluation
    if twin is None:
        raise ModelError(
            "precisions can be mixed in models without recurrent layers that are float so far; "
            "choose int8, or fp32, for this one"
        )
    if samples is None or evaluation is None or job.recipe.max_drop is None:
        raise UsageError("`precision` auto needs `data`, `eval_data` and `max_drop`")
    with opened(job, model, emitted, scratch) as plain:
        wanted = main_metric(ReferenceModel(job.source, plain), plain, evaluation)

    def drop_of(quantized: Quantized) -> float:
        candidate = msgspec.structs.replace(emitted, content=quantized.content)
        with opened(job, model, candidate, scratch) as tried:
            return wanted - main_metric(BundleModel(tried), tried, evaluation)

    quantized, budget = meet_budget(
        Search(twin, samples, drop_of, job.recipe.max_drop, on_progress)
    )
    table = msgspec.structs.replace(twin.table, precisions=dict(budget.chosen.layers))
    done = msgspec.structs.replace(
        emitted,
        content=quantized.content,
        fallbacks=quantized.fallbacks,
        table=table,
        twin=twin.with_table(table),
    )
    return done, budget


def _streaming(job: Job, backend: Backend) -> Streaming | None:
    if job.stream is None:
        return None
    count, chosen = job.stream.state_count, job.recipe.reset_on
    first = len(backend.inputs) - count, len(backend.outputs) - count
    streaming = Streaming(
        states=tuple(StatePair(first[0] + place, first[1] + place) for place in range(count)),
        every_step=job.stream.every_step,
        reset_on=DEFAULT_RESETS if chosen is None else chosen,
    )
    wrong = streaming.wrong_with(backend.inputs, backend.outputs)
    if wrong is not None:
        raise ModelError(
            f"the compiled model {wrong}; please report it, and convert without streaming"
        )
    return streaming


@contextmanager
def opened(job: Job, model: Any, emitted: Emitted, scratch: Path) -> Iterator[Model]:
    """Open a compiled model as the bundle that it will be."""
    module = plugins.load("format", job.format)
    file = scratch / module.MODEL_FILE
    file.write_bytes(emitted.content)
    with plugins.load("backend", module.BACKEND).Backend(file, default_threads()) as backend:
        draft = _draft(job, model, backend, emitted, file.name)
        yield Model(Bundle(scratch, draft, job.labels), backend, module.BACKEND)


def _draft(job: Job, model: Any, backend: Backend, emitted: Emitted, model_file: str) -> Manifest:
    few = islice(model_inputs(job.samples, job.preprocess, job.source.inputs), GOLDEN_SAMPLES)
    outputs = [job.source.predict(inputs)[0] for inputs in few]
    labelled = next((d.labels for d in (job.evaluation, job.calibration) if d is not None), None)
    spec = job.source.outputs[0]
    is_image = job.preprocess.size is not None
    task = job.recipe.task or guess_task(spec, outputs, labelled, is_image)
    if job.stream is not None and job.stream.every_step and task != "sequence":
        raise UsageError(f"`task` must be sequence of a stream that answers each step; got {task}")
    classes = class_count(task, spec, job.preprocess.layout)
    if job.labels and classes not in (None, len(job.labels)):
        raise UsageError(
            f"`labels` has {len(job.labels)} names; the model's output has {classes} classes"
        )
    return draft_manifest(
        backend,
        streaming=_streaming(job, backend),
        format=job.format,
        model_file=model_file,
        task=task,
        precision=job.precision,
        preprocess=job.preprocess,
        postprocess=guess_postprocess(task, classes, spec, outputs),
        target=job.recipe.target,
        fallbacks=emitted.fallbacks,
        recipe=msgspec.to_builtins(job.recipe),
        provenance=provenance_of(model, job.source.kind, job.calibration),
    )
