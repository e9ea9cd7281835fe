"""Metrics of each task, computed from decoded values, one sample at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.runtime.postprocess import NOT_SEEN, ClassScore, SegmentationMap
from edgekit.specs import Task


class Metrics(Protocol):
    """Collects pairs of value and label.

    Attributes:
        main: name of the metric that `--max-drop` is about.
    """

    main: str

    def add(self, value: Any, label: Any) -> None:
        """Take one sample's decoded value and its label."""

    def results(self) -> dict[str, float]:
        """Return all metrics by name."""


def metrics_for(task: Task, labels: NDArray[Any], classes: int | None = None) -> Metrics:
    """Return empty metrics for `task`.

    Args:
        task: what the model does.
        labels: the evaluation set's whole label array.
        classes: how many the model tells apart, as `class_count` says.

    Raises:
        DataError: labels of a form that the task has no use for, or classes that there are not.
    """
    expected: dict[Task, tuple[Callable[[NDArray[Any]], bool], str, Callable[[], Metrics]]] = {
        "classification": (
            lambda y: y.dtype.kind in "ui" and y.ndim == 1,
            "class indices [n]",
            Classification,
        ),
        "segmentation": (
            lambda y: y.dtype.kind in "ui" and y.ndim == 3,
            "class masks [n, h, w]",
            Segmentation,
        ),
        "regression": (lambda y: True, "numbers [n, …]", Regression),
        "sequence": (lambda y: True, "numbers [n, …]", Regression),
    }
    fits, form, make = expected[task]
    if not fits(labels):
        raise DataError(f"labels are {labels.dtype} {list(labels.shape)}; {task} expects {form}")
    known = labels[labels != NOT_SEEN] if task == "segmentation" else labels
    if classes is not None and known.size and not 0 <= known.min() <= known.max() < classes:
        raise DataError(
            f"labels go from {known.min()} to {known.max()}; the model has {classes} classes, "
            f"numbered 0 to {classes - 1}"
        )
    return make()


def format_metric(name: str, value: float) -> str:
    """Return a metric for people: shares in percent, errors and r2 as plain numbers.

    >>> format_metric("accuracy", 0.8645), format_metric("r2", -3.2)
    ('86.45 %', '-3.2')
    """
    return f"{value:.4g}" if name in ("r2", "mae", "rmse") else f"{100 * value:.2f} %"


class Classification:
    """Share of samples whose best class, or one of the best five, is right."""

    main = "accuracy"

    def __init__(self) -> None:
        self._n = self._first = self._five = 0

    def add(self, value: tuple[ClassScore, ...], label: int) -> None:
        """Take class scores, best first, and the right class index."""
        best = [score.index for score in value[:5]]
        self._n += 1
        self._first += best[0] == int(label)
        self._five += int(label) in best

    def results(self) -> dict[str, float]:
        """Return accuracy and top5_accuracy."""
        return {"accuracy": self._first / self._n, "top5_accuracy": self._five / self._n}


class Segmentation:
    """Pixel accuracy and mean intersection over union, over all pixels of the set.

    Pixels of label 255, and those that the model did not see, do not count. A class that occurs
    neither in the masks nor in the predictions has no IoU and does not enter the mean.
    """

    main = "mean_iou"

    def __init__(self) -> None:
        self._pairs = np.zeros((256, 256), np.int64)

    def add(self, value: SegmentationMap, label: NDArray[Any]) -> None:
        """Take a class map and the right mask; the map is brought to the mask's size."""
        found = value.class_map
        if found.shape != label.shape:
            size = (label.shape[1], label.shape[0])
            found = np.asarray(cv2.resize(found, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        if label.min() < 0 or label.max() > 255:
            raise DataError(f"mask values must be 0..255; got {label.min()}..{label.max()}")
        counts = np.bincount((label.astype(np.int64) * 256 + found).reshape(-1), minlength=65536)
        self._pairs += counts.reshape(256, 256)

    def results(self) -> dict[str, float]:
        """Return pixel_accuracy and mean_iou."""
        pairs = self._pairs[:NOT_SEEN, :NOT_SEEN]
        right = np.diag(pairs)
        union = pairs.sum(0) + pairs.sum(1) - right
        occurs = union > 0
        total = max(1, int(pairs.sum()))
        return {
            "pixel_accuracy": float(right.sum() / total),
            "mean_iou": float((right[occurs] / union[occurs]).mean()) if occurs.any() else 0.0,
        }


class Regression:
    """Mean absolute error, root mean squared error, coefficient of determination."""

    main = "r2"

    def __init__(self) -> None:
        self._values: list[NDArray[np.float64]] = []
        self._labels: list[NDArray[np.float64]] = []

    def add(self, value: NDArray[np.float32], label: Any) -> None:
        """Take numbers and the right numbers, as many."""
        found, right = (np.asarray(a, np.float64).reshape(-1) for a in (value, label))
        if found.shape != right.shape:
            raise DataError(
                f"a label has {right.size} numbers; the model's output has {found.size}"
            )
        self._values.append(found)
        self._labels.append(right)

    def results(self) -> dict[str, float]:
        """Return mae, rmse and r2 (over all numbers of all samples together)."""
        error = np.concatenate(self._values) - np.concatenate(self._labels)
        right = np.concatenate(self._labels)
        spread = float(((right - right.mean()) ** 2).sum())
        return {
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt((error**2).mean())),
            "r2": 1 - float((error**2).sum()) / spread if spread > 0 else 0.0,
        }
