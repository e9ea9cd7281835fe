"""A bundle on a labelled set: `edgekit evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Accuracy, Parity
from edgekit.data import Dataset, Sample
from edgekit.errors import DataError, ModelError
from edgekit.evaluation.metrics import Metrics, metrics_for
from edgekit.evaluation.parity import ParityMeter
from edgekit.runtime.model import Model, Prediction
from edgekit.runtime.postprocess import Postprocessor
from edgekit.runtime.preprocess import preprocessors
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


class Evaluation(msgspec.Struct, frozen=True):
    """Metrics of a bundle on a set; `docs/json.md` describes the fields."""

    task: Task
    n: int
    metrics: dict[str, float]


class Comparison(msgspec.Struct, frozen=True):
    """A converted model beside its source, on the same samples."""

    parity: Parity
    accuracy: Accuracy | None
    source_metrics: dict[str, float]
    metrics: dict[str, float]


def evaluate(model: Model, data: Dataset, on_sample: OnSample | None = None) -> Evaluation:
    """Return the metrics of `model` on labelled `data`.

    Raises:
        DataError: no labels, or labels and samples of a form that the model has no use for.
    """
    data = data.with_labels_of(model.bundle.labels)
    labels = data.labelled()
    task = model.bundle.manifest.task
    metrics = metrics_for(task, labels, _classes(model))
    for index, sample in enumerate(data):
        metrics.add(_predicted(model, data, index, sample).value, labels[index])
        if on_sample is not None:
            on_sample(index + 1, len(data))
    return Evaluation(task, len(data), metrics.results())


def evaluate_reference(reference: Reference, model: Model, data: Dataset) -> tuple[float, str]:
    """Return the task's metric of a source on labelled `data`, and its name.

    Args:
        reference: the source.
        model: what was made of it, whose preprocessing and decoding it gets.
        data: the set.

    Raises:
        DataError: see `evaluate`.
    """
    data = data.with_labels_of(model.bundle.labels)
    labels = data.labelled()
    metrics = metrics_for(model.bundle.manifest.task, labels, _classes(model))
    source = ReferenceModel(reference, model)
    for index, sample in enumerate(data):
        metrics.add(source(sample)[1], labels[index])
    return metrics.results()[metrics.main], metrics.main


def _classes(model: Model) -> int | None:
    manifest = model.bundle.manifest
    return class_count(manifest.task, model.backend.outputs[0], manifest.preprocess.layout)


def _predicted(model: Model, data: Dataset, index: int, sample: Sample) -> Prediction:
    try:
        return model(sample)
    except DataError as error:
        raise DataError(f"{data.name}, sample {index}: {error}") from error


class ReferenceModel:
    """A source model behind the same preprocessing and decoding as its bundle."""

    def __init__(self, reference: Reference, model: Model) -> None:
        manifest = model.bundle.manifest
        self._reference = reference
        self._preprocessors = preprocessors(manifest.preprocess, reference.inputs)
        self._buffers = [np.empty(s.shape, s.dtype) for s in reference.inputs]
        self._postprocessor = Postprocessor(
            manifest.task,
            manifest.postprocess,
            reference.outputs[0],
            model.bundle.labels,
            self._preprocessors[0],
        )

    def __call__(self, sample: Sample) -> tuple[list[NDArray[Any]], Any]:
        """Return the outputs as real numbers, and the decoded value, for `sample`."""
        parts = sample if isinstance(sample, tuple) else (sample,)
        for preprocessor, part, out in zip(self._preprocessors, parts, self._buffers, strict=True):
            preprocessor(part, out)
        outputs = self._reference.predict(self._buffers)
        value = self._postprocessor(outputs[0], parts[0])
        return [
            s.dequantize(o) for s, o in zip(self._reference.outputs, outputs, strict=True)
        ], value


def compare_with_source(
    reference: Reference, model: Model, data: Dataset, on_sample: OnSample | None = None
) -> Comparison:
    """Run both models on `data`; accuracy only if it is labelled.

    Raises:
        ModelError: the source's outputs are not finite numbers, so nothing can be compared.
    """
    data = data.with_labels_of(model.bundle.labels)
    source = ReferenceModel(reference, model)
    _check_same_outputs(reference, model)
    meter = ParityMeter()
    task = model.bundle.manifest.task
    scored: tuple[Metrics, Metrics] | None = None
    if data.labels is not None:
        classes = _classes(model)
        scored = metrics_for(task, data.labels, classes), metrics_for(task, data.labels, classes)
    for index, sample in enumerate(data):
        prediction = _predicted(model, data, index, sample)
        expected, expected_value = source(sample)
        if not all(np.isfinite(output).all() for output in expected):
            raise ModelError(f"the source model gives NaN or infinity on sample {index}")
        real = [
            s.dequantize(o) for s, o in zip(model.backend.outputs, prediction.outputs, strict=True)
        ]
        meter.add(expected, real, expected_value, prediction.value)
        if scored is not None and data.labels is not None:
            scored[0].add(expected_value, data.labels[index])
            scored[1].add(prediction.value, data.labels[index])
        if on_sample is not None:
            on_sample(index + 1, len(data))
    return _comparison(meter, scored, len(data))


def _comparison(meter: ParityMeter, scored: tuple[Metrics, Metrics] | None, n: int) -> Comparison:
    if scored is None:
        return Comparison(meter.result(), None, {}, {})
    before, after = scored[0].results(), scored[1].results()
    main = scored[0].main
    drop = before[main] - after[main]
    accuracy = Accuracy(main, before[main], after[main], drop, n)
    return Comparison(meter.result(), accuracy, before, after)


def _check_same_outputs(reference: Reference, model: Model) -> None:
    here, there = (
        [list(s.shape) for s in specs] for specs in (model.backend.outputs, reference.outputs)
    )
    if here != there:
        raise ModelError(f"the compiled model has outputs {here}; its source has {there}")
