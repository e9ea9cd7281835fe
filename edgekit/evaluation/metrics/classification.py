"""Metrics of classes: of a whole sample, or of each step of a sequence."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import CheckFailed, DataError
from edgekit.evaluation.metrics.ranking import Ranking, rank
from edgekit.evaluation.metrics.sums import Measured, Statistics, Sums, mean_of_defined, ratio

CALIBRATION_BINS = 15
"""Of equal width, as Guo et al. 2017 (arXiv:1706.04599) measure the expected calibration error."""

MOST_SCORES = 1 << 24
"""Scores that are kept, 64 MiB of float32; of larger sets every second, third … row counts for
ROC-AUC."""

_TOP = 5
_SLACK = 1e-3  # beyond 0..1, as float16 and int8 round


class Classification:
    """Accuracy, precision, recall, F1, ROC-AUC and calibration.

    Precision, recall and F1 of a class are 0 where scikit-learn's are (`zero_division=0`), and are
    not defined for a class that occurs neither in the labels nor in the answers. The macro averages
    are over the classes for which they are defined. A row is a sample, or a step of a sequence;
    resamples are of samples. Figures are asked for after the last sample.

    Args:
        classes: number of them.
        n: number of samples that will be added.
    """

    main, class_main = "accuracy", "f1"

    def __init__(self, classes: int, n: int) -> None:
        self.classes = classes
        self.notes: list[str] = []
        self._n = n
        self._every = 1
        self._labels: list[NDArray[np.int64]] = []
        self._answers: list[NDArray[np.int64]] = []
        self._confidences: list[NDArray[np.float32]] = []
        self._in_top: list[NDArray[np.bool_]] = []
        self._scores = np.zeros((0, classes), np.float32)
        self._rows = self._kept = 0
        self._are_shares = True

    def add(self, answer: NDArray[np.float32], label: Any) -> None:
        """Take the scores of all classes, [classes] or [steps, classes], and the right indices.

        Raises:
            DataError: another number of steps.
            CheckFailed: NaN, of which no class is the best.
        """
        scores = np.asarray(answer, np.float32).reshape(-1, self.classes)
        right = np.asarray(label, np.int64).reshape(-1)
        if len(scores) != len(right):
            raise DataError(f"a label has {len(right)} steps; the model's output has {len(scores)}")
        if np.isnan(scores).any():
            raise CheckFailed(
                f"sample {len(self._labels)}: the scores hold NaN, of which no class is the best; "
                "look at the model's inputs, or convert in fp32"
            )
        if not self._labels:
            self._reserve(len(scores))
        mine = np.take_along_axis(scores, right[:, None], 1)
        # Equal scores rank by class number, as the runtime's answers do.
        before = (np.arange(self.classes) < right[:, None]) & (scores == mine)
        self._in_top.append((scores > mine).sum(1) + before.sum(1) < _TOP)
        self._labels.append(right)
        self._answers.append(scores.argmax(1))
        self._confidences.append(scores.max(1))
        self._are_shares &= bool(scores.min() >= -_SLACK and scores.max() <= 1 + _SLACK)
        kept = scores[-self._rows % self._every :: self._every]
        self._scores[self._kept : self._kept + len(kept)] = kept
        self._kept += len(kept)
        self._rows += len(scores)

    def _reserve(self, steps: int) -> None:
        rows = self._n * steps
        self._every = -(-rows * self.classes // MOST_SCORES)
        self._scores = np.empty((-(-rows // self._every), self.classes), np.float32)
        if self._every > 1:
            self.notes.append(
                f"ROC-AUC is of every {self._every}th sample, {len(self._scores):,} of {rows:,}: "
                f"the scores of all {self.classes:,} classes would not fit in memory."
            )

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The right class of each row."""
        return np.concatenate(self._labels)

    @cached_property
    def answers(self) -> NDArray[np.int64]:
        """The best class of each row."""
        return np.concatenate(self._answers)

    @cached_property
    def ranking(self) -> Ranking:
        """How well the scores rank, over the rows whose scores were kept."""
        return rank(self._scores[: self._kept], self.labels[:: self._every])

    def score(self) -> float:
        """Return the accuracy, without ranking anything."""
        return float(self.goodness().mean())

    def goodness(self) -> NDArray[np.float64]:
        """Return the share of each sample's rows that are right, [n]."""
        right = (self.labels == self.answers).reshape(len(self._labels), -1)
        return np.asarray(right.mean(1), np.float64)

    def confusion(self) -> NDArray[np.int64]:
        """Return counts [true class, predicted class]."""
        flat = self.labels * self.classes + self.answers
        return np.bincount(flat, minlength=self.classes**2).reshape(self.classes, -1)

    def calibration(self) -> NDArray[np.float64] | None:
        """Return rows, mean confidence and accuracy of each bin, [3, CALIBRATION_BINS].

        None where the scores are no probabilities.
        """
        if not self._are_shares:
            return None
        totals = self.statistics().sums.total()[0, _bins(self.classes)]
        count, confidence, right = totals.reshape(3, -1)
        return np.stack([count, ratio(confidence, count), ratio(right, count)])

    def statistics(self) -> Statistics:
        """Return the sums: right, labels and answers of each class, top 5, bins, ranking."""
        return Statistics(self._sums, self._measure)

    @cached_property
    def _sums(self) -> Sums:
        n, classes = len(self._labels), self.classes
        per_sample = len(self.labels) // n
        sample = np.repeat(np.arange(n), per_sample)
        right = self.labels == self.answers
        confidence = np.concatenate(self._confidences).astype(np.float64)
        bins = np.ceil(confidence * CALIBRATION_BINS).clip(1, CALIBRATION_BINS).astype(int) - 1
        first = _bins(classes).start
        ranked = np.arange(0, len(self.labels), self._every)
        after = first + 3 * CALIBRATION_BINS
        own = self.labels[ranked]
        placed = self.ranking.placements[np.arange(len(ranked)), own]
        entries: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = [
            (sample[right], self.labels[right], np.ones(int(right.sum()))),
            (sample, classes + self.labels, np.ones(len(sample))),
            (sample, 2 * classes + self.answers, np.ones(len(sample))),
            (sample, np.full(len(sample), 3 * classes), np.concatenate(self._in_top)),
            (sample, first + bins, np.ones(len(sample))),
            (sample, first + CALIBRATION_BINS + bins, confidence),
            (sample, first + 2 * CALIBRATION_BINS + bins, right),
            (sample[ranked], after + own, np.ones(len(ranked))),
            (sample[ranked], after + classes + own, placed),
        ]
        samples, columns, amounts = (np.concatenate(part) for part in zip(*entries, strict=True))
        width = after + 2 * classes
        dense = self.ranking.placements
        return Sums(n, width, samples, columns, amounts, sample[ranked], dense)

    def _measure(self, totals: NDArray[np.float64]) -> Measured:
        classes = self.classes
        right, labels, answers = (totals[:, i * classes : (i + 1) * classes] for i in range(3))
        rows = labels.sum(1)
        occurs = (labels + answers) > 0
        precision, recall, f1 = (
            np.where(occurs, np.nan_to_num(ratio(part, whole)), np.nan)
            for part, whole in (
                (right, answers),
                (right, labels),
                (2 * right, labels + answers),
            )
        )
        roc_auc = self._auc(totals[:, _bins(classes).stop :])
        count, confidence, hits = np.split(totals[:, _bins(classes)], 3, axis=1)
        gap = np.abs(confidence - hits).sum(1) / count.sum(1)
        whole = {
            "accuracy": right.sum(1) / rows,
            "top5_accuracy": totals[:, 3 * classes] / rows,
            "macro_precision": mean_of_defined(precision),
            "macro_recall": mean_of_defined(recall),
            "macro_f1": mean_of_defined(f1),
            "macro_roc_auc": mean_of_defined(roc_auc),
            "calibration_error": gap if self._are_shares else np.full(len(gap), np.nan),
        }
        return Measured(
            whole, {"precision": precision, "recall": recall, "f1": f1, "roc_auc": roc_auc}
        )

    def _auc(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the ROC-AUC of each class: of resamples by the placements of their samples.

        A resample's own AUC would have to be ranked anew; this is its linear part, from which it
        differs in the second order of 1 / n (Hajek's projection).
        """
        inside, placed, everything = np.split(totals, 3, axis=1)
        outside = inside.sum(1, keepdims=True) - inside
        return ratio(placed, inside) + ratio(everything - placed, outside) - self.ranking.auc


def _bins(classes: int) -> slice:
    """Return where the sums of the calibration bins stand: count, confidence, right."""
    first = 3 * classes + 1
    return slice(first, first + 3 * CALIBRATION_BINS)
