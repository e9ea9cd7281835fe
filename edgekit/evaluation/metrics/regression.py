"""Metrics of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import CheckFailed, DataError
from edgekit.evaluation.metrics.sums import Measured, Statistics, Sums, ratio


class Regression:
    """Mean absolute error, root mean squared error, coefficient of determination.

    Over all numbers of all samples together; resamples are of samples.
    """

    main, class_main = "r2", ""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._answers: list[NDArray[np.float64]] = []
        self._labels: list[NDArray[np.float64]] = []

    def add(self, answer: NDArray[np.float32], label: Any) -> None:
        """Take numbers and the right numbers, as many.

        Raises:
            DataError: another number of them.
            CheckFailed: NaN or infinity, of which there is no error.
        """
        found, right = (np.asarray(a, np.float64).reshape(-1) for a in (answer, label))
        if found.shape != right.shape:
            raise DataError(
                f"a label has {right.size} numbers; the model's output has {found.size}"
            )
        if not np.isfinite(found).all():
            raise CheckFailed(
                f"sample {len(self._labels)}: the output holds NaN or infinity; look at the "
                "model's inputs, or convert in fp32"
            )
        self._answers.append(found)
        self._labels.append(right)

    def score(self) -> float:
        """Return the coefficient of determination."""
        return float(self.statistics().of_the_set().whole[self.main][0])

    def goodness(self) -> NDArray[np.float64]:
        """Return minus the mean absolute error of each sample, [n]."""
        pairs = zip(self._answers, self._labels, strict=True)
        return np.array([-np.abs(found - right).mean() for found, right in pairs])

    def statistics(self) -> Statistics:
        """Return the sums: numbers, their errors, and the labels about their mean."""
        mean = np.concatenate(self._labels).mean()
        rows = []
        for found, right in zip(self._answers, self._labels, strict=True):
            error, centred = found - right, right - mean
            parts = (np.abs(error), error**2, centred, centred**2)
            rows.append([found.size, *(part.sum() for part in parts)])
        amounts = np.array(rows)
        sample, column = np.indices(amounts.shape).reshape(2, -1)
        n, width = amounts.shape
        return Statistics(Sums(n, width, sample, column, amounts.reshape(-1)), _measure)


def _measure(totals: NDArray[np.float64]) -> Measured:
    count, absolute, squared, labels, labels_squared = totals.T
    spread = labels_squared - labels**2 / count
    # Labels that are all the same have no spread to explain: as scikit-learn says it.
    is_flat = spread <= 1e-12 * labels_squared
    alike = np.where(squared > 0, 0.0, 1.0)
    whole = {
        "mae": absolute / count,
        "rmse": np.sqrt(squared / count),
        "r2": np.where(is_flat, alike, 1 - ratio(squared, np.where(is_flat, 1, spread))),
    }
    return Measured(whole, {})
