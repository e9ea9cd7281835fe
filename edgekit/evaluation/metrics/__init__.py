"""Metrics of each task, one file a task: from sums over samples, so that resampling is cheap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.evaluation.metrics.classification import Classification
from edgekit.evaluation.metrics.regression import Regression
from edgekit.evaluation.metrics.segmentation import Segmentation
from edgekit.evaluation.metrics.sums import Statistics
from edgekit.runtime.postprocess import NOT_SEEN
from edgekit.specs import Task

_NUMBERS = frozenset({"r2", "mae", "rmse"})


class Metrics(Protocol):
    """Collects pairs of answer and label, one sample at a time.

    Attributes:
        main: name of the metric that `--max-drop` is about.
        class_main: name of the metric that classes are ranked by; "" without classes.
        notes: what the user should know of how it was computed.
    """

    main: str
    class_main: str
    notes: list[str]

    def add(self, answer: Any, label: Any) -> None:
        """Take one sample's answer and its label."""

    def statistics(self) -> Statistics:
        """Return what all metrics are computed from."""

    def score(self) -> float:
        """Return the metric `main` of the set, which is always defined."""

    def goodness(self) -> NDArray[np.float64]:
        """Return how good each answer is, [n]: its share that is right, or minus its error."""


def metrics_for(
    task: Task, labels: NDArray[Any], classes: int | None = None, shape: Sequence[int] = ()
) -> Metrics:
    """Return empty metrics for `task`.

    Args:
        task: what the model does.
        labels: the evaluation set's whole label array.
        classes: how many the model tells apart, as `class_count` says.
        shape: of the model's output, batch first: tells a sequence's classes from its numbers.

    Raises:
        DataError: labels of a form that the task has no use for, or classes that there are not.
    """
    is_whole = labels.dtype.kind in "ui"
    if task == "sequence" and is_whole and _is_class_a_step(labels, shape):
        _check_classes(labels, shape[-1])
        return Classification(shape[-1], len(labels))
    if task == "classification":
        if not is_whole or labels.ndim != 1:
            raise _unfit(task, labels, "class indices [n]")
        count = classes or int(labels.max(initial=0)) + 1
        _check_classes(labels, classes)
        return Classification(count, len(labels))
    if task == "segmentation":
        if not is_whole or labels.ndim != 3:
            raise _unfit(task, labels, "class masks [n, h, w]")
        _check_classes(labels[labels != NOT_SEEN], classes)
        return Segmentation(classes or NOT_SEEN)
    return Regression()


def format_metric(name: str, value: float) -> str:
    """Return a metric for people: shares in percent, errors and r2 as plain numbers.

    >>> format_metric("accuracy", 0.8645), format_metric("r2", -3.2)
    ('86.45 %', '-3.2')
    """
    return f"{value:.4g}" if name in _NUMBERS else f"{100 * value:.2f} %"


def format_difference(name: str, value: float) -> str:
    """Return the difference of a metric between two models for people, always with its sign.

    >>> format_difference("accuracy", -0.0045)
    '-0.45 points'
    """
    return f"{value:+.3g}" if name in _NUMBERS else f"{100 * value:+.2f} points"


def _is_class_a_step(labels: NDArray[Any], shape: Sequence[int]) -> bool:
    """Tell whether labels [n, steps] go with an output [1, steps, classes]."""
    return len(shape) > 2 and shape[-1] > 1 and labels.shape[1:] == tuple(shape[1:-1])


def _unfit(task: Task, labels: NDArray[Any], form: str) -> DataError:
    return DataError(f"labels are {labels.dtype} {list(labels.shape)}; {task} expects {form}")


def _check_classes(known: NDArray[Any], classes: int | None) -> None:
    if classes is not None and known.size and not 0 <= known.min() <= known.max() < classes:
        raise DataError(
            f"labels go from {known.min()} to {known.max()}; the model has {classes} classes, "
            f"numbered 0 to {classes - 1}"
        )
