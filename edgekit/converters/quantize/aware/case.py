"""What a labelled set and a model's output say about how to train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.converters.assemble import guess_task
from edgekit.converters.samples import model_inputs, subset
from edgekit.converters.sources import SourceModel
from edgekit.converters.sources.graph import FrozenGraph
from edgekit.data import Dataset
from edgekit.errors import DataError, ModelError, require
from edgekit.specs import Preprocess, Task, TensorSpec

_IGNORED_CLASS = 255
_METRICS = {"classification": "accuracy", "segmentation": "mean_iou", "regression": "mae"}
_FIRST_SAMPLES = 4


@dataclass(frozen=True)
class Case:
    """A model of one input and one output, and what its output means.

    Attributes:
        source: the model.
        preprocess: how samples become its input.
        task: one of classification, segmentation and regression.
        gives_logits: whether a loss must make shares of the output first.
    """

    source: FrozenGraph
    preprocess: Preprocess
    task: Task
    gives_logits: bool

    @property
    def output(self) -> TensorSpec:
        """The model's output, batch first."""
        return self.source.outputs[0]

    @property
    def is_binary(self) -> bool:
        """Whether one unit tells two classes apart."""
        return self.task != "regression" and self.output.shape[-1] == 1

    @property
    def metric_name(self) -> str:
        """What `metric` measures."""
        return _METRICS[self.task]

    def loss(self) -> Any:
        """Return the loss to train with."""
        losses = require("keras", "convert").losses
        if self.task == "regression":
            return losses.MeanSquaredError()
        if self.is_binary:
            return losses.BinaryCrossentropy(from_logits=self.gives_logits)
        ignored = _IGNORED_CLASS if self.task == "segmentation" else None
        return losses.SparseCategoricalCrossentropy(
            from_logits=self.gives_logits, ignore_class=ignored
        )

    def metric(self) -> Any:
        """Return the metric to report."""
        metrics = require("keras", "convert").metrics
        if self.task == "regression":
            return metrics.MeanAbsoluteError()
        if self.is_binary:
            return metrics.BinaryAccuracy(threshold=0.0 if self.gives_logits else 0.5)
        if self.task == "classification":
            return metrics.SparseCategoricalAccuracy()
        return metrics.MeanIoU(
            self.output.shape[-1], ignore_class=_IGNORED_CLASS, sparse_y_pred=False
        )

    def check_labels(self, data: Dataset) -> None:
        """Raise `DataError` for labels that the model's output cannot match."""
        labels, shape = data.labelled(), self.output.shape[1:]
        if self.task == "regression":
            fits = labels[0].size == np.prod(shape)
        else:
            fits = labels.dtype.kind in "ui" and labels.shape[1:] == shape[:-1]
        if not fits:
            raise DataError(
                f"labels of {data.name} are {labels.dtype} {list(labels.shape)}; an output of "
                f"shape {[None, *shape]} for {self.task} does not fit them"
            )
        classes = 2 if self.is_binary else shape[-1]
        used = labels[labels != _IGNORED_CLASS]
        if self.task != "regression" and used.size and not 0 <= used.min() <= used.max() < classes:
            raise DataError(
                f"labels of {data.name} go from {used.min()} to {used.max()}; the model tells "
                f"{classes} classes apart"
            )

    def batch(self, data: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return inputs and labels of a small set, in the forms that model and loss take."""
        inputs = model_inputs(data, self.preprocess, self.source.inputs)
        x, y = np.concatenate([sample[0] for sample in inputs]), data.labelled()
        is_dense = self.is_binary or self.task == "regression"
        return x, y.reshape(-1, *self.output.shape[1:]) if is_dense else y


def case_of(source: SourceModel, data: Dataset, preprocess: str | None) -> Case:
    """Tell from a few answers of the model, and from the labels, how to train it.

    Raises:
        ModelError: not the plain case: one input, one output, a task that has a usual loss.
    """
    if not isinstance(source, FrozenGraph) or source.model is None:
        raise ModelError(
            f"only models that Keras 3 loads can be trained; this one is of kind {source.kind}"
        )
    if len(source.inputs) != 1 or len(source.outputs) != 1:
        raise ModelError(
            "edgekit qat trains models of one input and one output; this one has "
            f"{len(source.inputs)} and {len(source.outputs)}: use edgekit.quantize_aware in Python"
        )
    form = Preprocess.parse(preprocess or "raw").for_input(source.inputs[0])
    few = model_inputs(subset(data, _FIRST_SAMPLES), form, source.inputs)
    outputs = [source.predict(inputs)[0] for inputs in few]
    labels = data.labelled()
    task: Task = "regression"
    if labels.dtype.kind != "f":
        task = guess_task(source.outputs[0], outputs, labels, form.size is not None)
    if task not in _METRICS:
        raise ModelError(
            f"edgekit qat trains {', '.join(_METRICS)}; this is {task}: use "
            "edgekit.quantize_aware in Python"
        )
    return Case(source, form, task, gives_logits=not all(map(_are_shares, outputs)))


def _are_shares(output: NDArray[Any]) -> bool:
    """Whether an answer holds probabilities, and no logits."""
    is_bounded = output.min() >= -1e-4 and output.max() <= 1 + 1e-4
    return bool(is_bounded and (output.shape[-1] == 1 or np.allclose(output.sum(-1), 1, atol=1e-3)))


def batches_of(case: Case, data: Dataset, size: int, seed: int | None) -> Any:
    """Return a set as Keras reads it, each batch made when it is needed.

    Args:
        case: says the forms of inputs and labels.
        data: labelled.
        size: samples a batch.
        seed: of the order, another one each epoch; None: the order of the set.
    """
    keras: Any = require("keras", "convert")
    random = np.random.default_rng(seed)

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.on_epoch_end()

        def __len__(self) -> int:
            return -(-len(data) // size)

        def __getitem__(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
            return case.batch(chosen(data, self._order[index * size : (index + 1) * size]))

        def on_epoch_end(self) -> None:
            count = len(data)
            self._order = np.arange(count) if seed is None else random.permutation(count)

    return Batches()


def chosen(data: Dataset, indices: NDArray[Any]) -> Dataset:
    """Return some samples of a labelled set."""
    return msgspec.structs.replace(
        data,
        count=len(indices),
        read=lambda index: data.read(int(indices[index])),
        labels=data.labelled()[indices],
    )
