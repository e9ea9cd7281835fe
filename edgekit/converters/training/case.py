"""What a labelled set and a model's output say about how to train it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
_METRICS = {
    "classification": "accuracy",
    "segmentation": "mean_iou",
    "sequence": "accuracy",
    "regression": "mae",
}
_FIRST_SAMPLES = 4


@dataclass(frozen=True)
class Case:
    """A model of one input and one output, and what its output means.

    Attributes:
        source: the model.
        preprocess: how samples become its input.
        task: what the output means; a sequence has a class each step.
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

    def loss(self, focal: float | None = None) -> Any:
        """Return the loss to train with.

        Args:
            focal: gamma of the focal loss (Lin et al., "Focal Loss for Dense Object Detection",
                ICCV 2017), for classes; None: cross-entropy.
        """
        losses = require("keras", "convert").losses
        if self.task == "regression":
            return losses.MeanSquaredError()
        if focal is not None:
            return self._focal_loss(focal)
        if self.is_binary:
            return losses.BinaryCrossentropy(from_logits=self.gives_logits)
        ignored = _IGNORED_CLASS if self.task == "segmentation" else None
        return losses.SparseCategoricalCrossentropy(
            from_logits=self.gives_logits, ignore_class=ignored
        )

    def _focal_loss(self, gamma: float) -> Any:
        keras: Any = require("keras", "convert")
        if self.is_binary:
            return keras.losses.BinaryFocalCrossentropy(from_logits=self.gives_logits, gamma=gamma)
        settings = {"alpha": 1.0, "gamma": gamma, "from_logits": self.gives_logits}

        def focal_loss(labels: Any, outputs: Any) -> Any:
            # The class that is ignored is beyond the others: a row of zeros, and no loss.
            shares = keras.ops.one_hot(keras.ops.cast(labels, "int32"), outputs.shape[-1])
            return keras.losses.categorical_focal_crossentropy(shares, outputs, **settings)

        return focal_loss

    def metric(self) -> Any:
        """Return the metric to report."""
        metrics = require("keras", "convert").metrics
        if self.task == "regression":
            return metrics.MeanAbsoluteError()
        if self.is_binary:
            return metrics.BinaryAccuracy(threshold=0.0 if self.gives_logits else 0.5)
        if self.task != "segmentation":
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

    def inputs(self, data: Dataset) -> NDArray[Any]:
        """Return the inputs of a small set, as the model takes them."""
        return stacked_inputs(data, self.preprocess, self.source.inputs[0])

    def targets(self, data: Dataset) -> NDArray[Any]:
        """Return the labels of a set, in the form that the loss takes."""
        labels = data.labelled()
        is_dense = self.is_binary or self.task == "regression"
        return labels.reshape(-1, *self.output.shape[1:]) if is_dense else labels


def case_of(
    source: SourceModel,
    data: Dataset,
    preprocess: str | Preprocess | None,
    *,
    otherwise: str,
    task: Task | None = None,
) -> Case:
    """Tell from a few answers of the model, and from the labels, how to train it.

    Args:
        source: the model.
        data: labelled, unless `task` is given.
        preprocess: how samples become its input.
        otherwise: what to do with a model of several inputs or outputs, for the message.
        task: what the output means, if the labels cannot tell.

    Raises:
        ModelError: not the plain case: a Keras 3 model of one input and one output.
    """
    model = trainable(source)
    if len(source.inputs) != 1 or len(source.outputs) != 1:
        raise ModelError(
            "models of one input and one output are trained; this one has "
            f"{len(source.inputs)} and {len(source.outputs)}: {otherwise}"
        )
    form, outputs = first_answers(source, data, preprocess)
    if task is None:
        task, labels = "regression", data.labelled()
        if labels.dtype.kind != "f":
            task = guess_task(source.outputs[0], outputs, labels, form.size is not None)
    return Case(model, form, task, gives_logits(source, outputs))


def trainable(source: SourceModel) -> FrozenGraph:
    """Return a source that Keras 3 can train, or raise `ModelError`."""
    if not isinstance(source, FrozenGraph) or source.model is None:
        raise ModelError(
            f"only models that Keras 3 loads can be trained; this one is of kind {source.kind}"
        )
    return source


def first_answers(
    source: SourceModel, data: Dataset, preprocess: str | Preprocess | None
) -> tuple[Preprocess, list[NDArray[Any]]]:
    """Return how samples become a model's input, and its answers to a few of them."""
    form = (
        preprocess if isinstance(preprocess, Preprocess) else Preprocess.parse(preprocess or "raw")
    )
    form = form.for_input(source.inputs[0])
    few = model_inputs(subset(data, _FIRST_SAMPLES), form, source.inputs)
    return form, [source.predict(inputs)[0] for inputs in few]


def stacked_inputs(data: Dataset, form: Preprocess, spec: TensorSpec) -> NDArray[Any]:
    """Return the inputs of a small set as one array, batch first."""
    return np.concatenate([sample[0] for sample in model_inputs(data, form, (spec,))])


def gives_logits(source: SourceModel, outputs: Sequence[NDArray[Any]]) -> bool:
    """Tell whether a model answers with logits: by its last layer, or else by its answers."""
    model = getattr(source, "model", None)
    activation = _last_activation(model) if model is not None else None
    if activation is not None:
        return activation not in ("softmax", "sigmoid")
    return not all(map(are_shares, outputs))


def _last_activation(model: Any) -> str | None:
    """Return the name of the activation that a Keras model ends with; None: it does not tell."""
    history = getattr((getattr(model, "outputs", None) or [None])[0], "_keras_history", None)
    layer = getattr(history, "operation", None)
    if hasattr(layer, "outputs") and hasattr(layer, "layers"):
        return _last_activation(layer)
    if type(layer).__name__ == "Softmax":
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", None)


def are_shares(output: NDArray[Any]) -> bool:
    """Whether an answer holds probabilities, and no logits."""
    is_bounded = output.min() >= -1e-4 and output.max() <= 1 + 1e-4
    return bool(is_bounded and (output.shape[-1] == 1 or np.allclose(output.sum(-1), 1, atol=1e-3)))
