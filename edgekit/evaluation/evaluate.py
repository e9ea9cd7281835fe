"""A bundle on a labelled set, alone or beside its source: `edgekit evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Accuracy, Parity
from edgekit.data import Dataset, Sample
from edgekit.errors import DataError, ModelError, UsageError
from edgekit.evaluation.changed import ChangedSamples
from edgekit.evaluation.metrics import Metrics, metrics_for
from edgekit.evaluation.parity import ParityMeter
from edgekit.evaluation.summary import Evaluation, summarize
from edgekit.runtime.model import Model, open_model
from edgekit.runtime.postprocess import Postprocessor
from edgekit.runtime.preprocess import preprocessors
from edgekit.runtime.tiles import Tiles
from edgekit.specs import Task, TensorSpec, class_count

OnSample = Callable[[int, int], None]


class Reference(Protocol):
    """A source model that can be run, as `edgekit.converters.sources` opens it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Batch 1, all dimensions fixed."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Likewise."""

    def predict(self, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Return the outputs for one sample, batch 1."""


class Answer(NamedTuple):
    """What a model says of a sample.

    Attributes:
        outputs: as real numbers, batch 1.
        value: decoded.
        rated: what metrics take: the scores of all classes, a class map or numbers.
    """

    outputs: list[NDArray[Any]]
    value: Any
    rated: Any


class Answering(Protocol):
    """A model that is compared: a sample in, its `Answer` out."""

    outputs: tuple[TensorSpec, ...]
    is_of_steps: bool
    """Whether `outputs` are those of one step of a sequence, and answers have all its steps."""

    def __call__(self, sample: Sample) -> Answer:
        """Answer `sample`."""


class BundleModel:
    """An opened bundle, as `assess` asks it."""

    def __init__(self, model: Model) -> None:
        streaming = model.bundle.manifest.streaming
        self.outputs = model.bundle.manifest.data_outputs
        self.is_of_steps = streaming is not None and streaming.every_step
        self._model = model

    def __call__(self, sample: Sample) -> Answer:
        """Answer `sample`."""
        prediction = self._model.predict_sample(sample)
        outputs = [s.dequantize(o) for s, o in zip(self.outputs, prediction.outputs, strict=True)]
        is_classes = self._model.bundle.manifest.task == "classification"
        rated = self._model.class_scores(prediction) if is_classes else prediction.value
        return Answer(outputs, prediction.value, rated)


class ReferenceModel:
    """A source model behind the same preprocessing and decoding as its bundle."""

    def __init__(self, reference: Reference, model: Model) -> None:
        manifest = model.bundle.manifest
        self.outputs = reference.outputs
        self.is_of_steps = False
        self._reference = reference
        self._is_classes = manifest.task == "classification"
        self._preprocessors = preprocessors(manifest.preprocess, reference.inputs)
        self._tiles = Tiles.of(
            manifest.task, manifest.preprocess, reference.inputs, reference.outputs
        )
        self._buffers = [np.empty(s.shape, s.dtype) for s in reference.inputs]
        self._postprocessor = Postprocessor(
            manifest.task,
            manifest.postprocess,
            reference.outputs[0],
            model.bundle.labels,
            self._preprocessors[0],
        )

    def __call__(self, sample: Sample) -> Answer:
        """Answer `sample`."""
        parts = sample if isinstance(sample, tuple) else (sample,)
        outputs: Sequence[NDArray[Any]]
        if self._tiles is None or self._tiles.is_one(parts[0]):
            outputs = self._predict(*parts)
        else:
            outputs = [self._tiles(parts[0], lambda part: self._predict(part)[0])]
        value = self._postprocessor(outputs[0], parts[0])
        rated = self._postprocessor.class_scores(outputs[0]) if self._is_classes else value
        return Answer(
            [s.dequantize(o) for s, o in zip(self.outputs, outputs, strict=True)], value, rated
        )

    def _predict(self, *parts: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        for preprocessor, part, out in zip(self._preprocessors, parts, self._buffers, strict=True):
            preprocessor(part, out)
        return self._reference.predict(self._buffers)


class Assessment(NamedTuple):
    """A bundle that went through a set, and its source where one was given.

    Attributes:
        task: of the bundle.
        data: the set, its labels in the order of the bundle's classes.
        names: of the classes, as far as they are known.
        metrics: of the bundle; None without labels.
        source: of the source; None without labels or source.
        parity: None without a source, or where the two have other outputs.
        changed: what the bundle answers otherwise than its source.
    """

    task: Task
    data: Dataset
    names: tuple[str, ...]
    metrics: Metrics | None
    source: Metrics | None
    parity: Parity | None
    changed: ChangedSamples


class Comparison(msgspec.Struct, frozen=True):
    """A converted model beside its source, on the same samples."""

    parity: Parity
    accuracy: Accuracy | None
    assessment: Assessment | None = None


def evaluate(model: Model, data: Dataset, on_sample: OnSample | None = None) -> Evaluation:
    """Return the metrics of `model` on labelled `data`, with their intervals.

    Raises:
        DataError: no labels, or labels and samples of a form that the model has no use for.
        CheckFailed: outputs that are NaN.
    """
    return summary_of(assess(model, data, on_sample=on_sample))


def summary_of(assessment: Assessment) -> Evaluation:
    """Return the figures of a labelled assessment."""
    assert assessment.metrics is not None
    return summarize(
        assessment.task,
        assessment.metrics,
        assessment.source,
        assessment.parity,
        assessment.names,
        assessment.changed,
    )


def main_metric(answering: Answering, model: Model, data: Dataset) -> float:
    """Return the task's metric on labelled `data` of what a bundle is or was made from.

    Args:
        answering: the bundle or its source.
        model: the bundle.
        data: the set.

    Raises:
        DataError, CheckFailed: see `evaluate`.
    """
    data = data.with_labels_of(model.bundle.labels)
    labels = data.labelled()
    metrics = _metrics(model, labels)
    for index, sample in enumerate(data):
        metrics.add(_answer(answering, data, index, sample).rated, labels[index])
    return metrics.score()


def assess(
    model: Model,
    data: Dataset,
    source: Answering | None = None,
    on_sample: OnSample | None = None,
) -> Assessment:
    """Run a bundle, and its source if there is one, on `data`.

    Raises:
        DataError: no labels where there is no source; else see `evaluate`.
        ModelError: the source's outputs are not finite numbers, so nothing can be compared.
        CheckFailed: the bundle's are not, where the source's are.
    """
    data = data.with_labels_of(model.bundle.labels)
    labels = data.labelled() if source is None else data.labels
    metrics = None if labels is None else _metrics(model, labels)
    beside = None if labels is None or source is None else _metrics(model, labels)
    bundle = BundleModel(model)
    meter = ParityMeter() if source is not None and _have_same_outputs(bundle, source) else None
    task = model.bundle.manifest.task
    changed = ChangedSamples(task)
    for index, sample in enumerate(data):
        label = None if labels is None else labels[index]
        answer = _answer(bundle, data, index, sample)
        if source is not None:
            expected = source(sample)
            if not all(np.isfinite(output).all() for output in expected.outputs):
                raise ModelError(f"the source model gives NaN or infinity on sample {index}")
            if [o.shape for o in expected.outputs] != [o.shape for o in answer.outputs]:
                meter = None  # as of a bundle on tiles beside one that resizes
            if meter is not None:
                meter.add(expected.outputs, answer.outputs, expected.value, answer.value)
            changed.add(index, label, expected.value, answer.value)
            if beside is not None:
                beside.add(expected.rated, label)
        if metrics is not None:
            metrics.add(answer.rated, label)
        if on_sample is not None:
            on_sample(index + 1, len(data))
    parity = None if meter is None else meter.result()
    names = model.bundle.labels or data.classes
    return Assessment(task, data, names, metrics, beside, parity, changed)


@contextmanager
def open_beside(
    model: Model, path: Path | None, backend: str | None
) -> Iterator[BundleModel | None]:
    """Open another bundle to compare `model` with; None gives None.

    Raises:
        UsageError: a bundle of another task, or of other classes.
        BundleError, CheckFailed: see `open_model`.
    """
    if path is None:
        yield None
        return
    with open_model(path, backend=backend) as other:
        here, there = (
            (m.bundle.manifest.task, _classes(m), m.bundle.labels) for m in (model, other)
        )
        if here != there:
            raise UsageError(
                f"`against` {path} does {_told(*there)}; the bundle does {_told(*here)}: only "
                "bundles of the same task and classes compare"
            )
        yield BundleModel(other)


def _told(task: Task, classes: int | None, labels: tuple[str, ...]) -> str:
    names = f" ({', '.join(labels[:5])})" if labels else ""
    return task if classes is None else f"{task} of {classes} classes{names}"


def compare_with_source(
    reference: Reference, model: Model, data: Dataset, on_sample: OnSample | None = None
) -> Comparison:
    """Run both models on `data`; accuracy only if it is labelled.

    Raises:
        ModelError: other outputs than the source's; else see `assess`.
    """
    source = ReferenceModel(reference, model)
    _check_same_outputs(source, model)
    found = assess(model, data, source, on_sample)
    assert found.parity is not None
    if found.metrics is None or found.source is None:
        return Comparison(found.parity, None)
    before, after = found.source.score(), found.metrics.score()
    accuracy = Accuracy(found.metrics.main, before, after, before - after, len(data))
    return Comparison(found.parity, accuracy, found)


def _classes(model: Model) -> int | None:
    manifest = model.bundle.manifest
    return class_count(manifest.task, model.backend.outputs[0], manifest.preprocess.layout)


def _metrics(model: Model, labels: NDArray[Any]) -> Metrics:
    shape, streaming = model.backend.outputs[0].shape, model.bundle.manifest.streaming
    if streaming is not None and streaming.every_step:
        shape = (1, *labels.shape[1:2], *shape[1:])
    return metrics_for(model.bundle.manifest.task, labels, _classes(model), shape)


def _answer(answering: Answering, data: Dataset, index: int, sample: Sample) -> Answer:
    try:
        return answering(sample)
    except DataError as error:
        raise DataError(f"{data.name}, sample {index}: {error}") from error


def _have_same_outputs(one: Answering, other: Answering) -> bool:
    def shapes(this: Answering, that: Answering) -> list[tuple[int, ...]]:
        if that.is_of_steps and not this.is_of_steps:
            return [(*spec.shape[:1], *spec.shape[2:]) for spec in this.outputs]
        return [spec.shape for spec in this.outputs]

    return shapes(one, other) == shapes(other, one)


def _check_same_outputs(source: Answering, model: Model) -> None:
    bundle = BundleModel(model)
    if not _have_same_outputs(source, bundle):
        here, there = ([list(s.shape) for s in one.outputs] for one in (bundle, source))
        raise ModelError(f"the compiled model has outputs {here}; its source has {there}")
