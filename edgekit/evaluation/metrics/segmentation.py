"""Metrics of class maps."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.evaluation.metrics.sums import Measured, Statistics, Sums, mean_of_defined, ratio
from edgekit.runtime.postprocess import NOT_SEEN, SegmentationMap


class Segmentation:
    """Pixel accuracy, intersection over union and Dice, over all pixels of the set.

    Pixels of label 255, and those that the model did not see, do not count. A class that occurs
    neither in the masks nor in the predictions has no IoU and no Dice, and does not enter the
    means. Resamples are of pictures: pixels of one are alike.

    Args:
        classes: number of them, at most 255.
    """

    main, class_main = "mean_iou", "iou"

    def __init__(self, classes: int = NOT_SEEN) -> None:
        self.classes = classes
        self.notes: list[str] = []
        self._pairs = np.zeros((classes, classes), np.int64)
        self._counts: list[NDArray[np.int64]] = []

    def add(self, answer: SegmentationMap, label: NDArray[Any]) -> None:
        """Take a class map and the right mask; the map is brought to the mask's size."""
        found = sized_as(answer.class_map, label)
        if label.min() < 0 or label.max() > 255:
            raise DataError(f"mask values must be 0..255; got {label.min()}..{label.max()}")
        counts = np.bincount((label.astype(np.int64) * 256 + found).reshape(-1), minlength=65536)
        pairs = counts.reshape(256, 256)[: self.classes, : self.classes]
        self._pairs += pairs
        self._counts.append(np.stack([np.diag(pairs), pairs.sum(1), pairs.sum(0)]))

    def confusion(self) -> NDArray[np.int64]:
        """Return pixels [true class, predicted class]."""
        return self._pairs

    def score(self) -> float:
        """Return the mean IoU."""
        return float(self.statistics().of_the_set().whole[self.main][0])

    def goodness(self) -> NDArray[np.float64]:
        """Return the share of right pixels of each picture, [n]; 0 where none counts."""
        right, labels, _ = np.array(self._counts).sum(2).T.astype(np.float64)
        return np.nan_to_num(ratio(right, labels))

    def statistics(self) -> Statistics:
        """Return the sums: right, labelled and found pixels of each class."""
        counts = np.array(self._counts).reshape(len(self._counts), -1)
        sample, column = np.nonzero(counts)
        amount = counts[sample, column].astype(np.float64)
        n, width = counts.shape
        return Statistics(Sums(n, width, sample, column, amount), _measure)


def sized_as(class_map: NDArray[np.uint8], mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Return `class_map` at the size of `mask`, [h, w], by nearest pixels."""
    if class_map.shape == mask.shape:
        return class_map
    size = (mask.shape[1], mask.shape[0])
    return np.asarray(cv2.resize(class_map, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _measure(totals: NDArray[np.float64]) -> Measured:
    right, labels, found = np.split(totals, 3, axis=1)
    iou = ratio(right, labels + found - right)
    dice = ratio(2 * right, labels + found)
    whole = {
        "pixel_accuracy": ratio(right.sum(1), labels.sum(1)),
        "mean_iou": mean_of_defined(iou),
        "mean_dice": mean_of_defined(dice),
    }
    # A set without one pixel that counts has every figure at its worst.
    whole = {name: np.nan_to_num(values) for name, values in whole.items()}
    return Measured(whole, {"iou": iou, "dice": dice})
