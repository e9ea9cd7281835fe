"""Area under the ROC curve, one class against the rest, and what each sample adds to it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROC_POINTS = 101


class Ranking(NamedTuple):
    """How well scores rank the samples of each class before all others.

    Attributes:
        auc: float64 [classes]; NaN where all samples are of the class, or none.
        placements: float32 [samples, classes]: of a sample of the class, the share of the others
            that it ranks before; of another, the share of the class that ranks before it (DeLong
            et al. 1988, Biometrics 44, 837-845). Ties count half.
        curves: float64 [classes, ROC_POINTS], true positive rate at false positive rates 0..1.
    """

    auc: NDArray[np.float64]
    placements: NDArray[np.float32]
    curves: NDArray[np.float64]


def rank(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> Ranking:
    """Return the ranking by `scores` [samples, classes], higher is first.

    Args:
        scores: finite or infinite, never NaN.
        labels: the right class of each sample.
    """
    classes = scores.shape[1]
    auc = np.full(classes, np.nan)
    placements = np.zeros_like(scores)
    curves = np.full((classes, ROC_POINTS), np.nan)
    for index in range(classes):
        is_class = labels == index
        column = scores[:, index]
        inside, outside = np.sort(column[is_class]), np.sort(column[~is_class])
        if not inside.size or not outside.size:
            continue
        share = _share_below(outside, column[is_class])
        auc[index] = share.mean()
        placements[is_class, index] = share
        placements[~is_class, index] = 1 - _share_below(inside, column[~is_class])
        curves[index] = _curve(inside, outside)
    return Ranking(auc, placements, curves)


def _share_below(ordered: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the share of `ordered` that lies below each of `values`; equal ones count half."""
    below = ordered.searchsorted(values, "left")
    upto = ordered.searchsorted(values, "right")
    return (below + upto) / (2.0 * ordered.size)


def _curve(inside: NDArray[np.float32], outside: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the true positive rates at `ROC_POINTS` false positive rates, both sorted upwards."""
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    hits = 1 - inside.searchsorted(thresholds, "left") / inside.size
    alarms = 1 - outside.searchsorted(thresholds, "left") / outside.size
    # Where the curve rises vertically, numpy takes the upper end.
    rates: NDArray[np.float64] = np.interp(
        np.linspace(0, 1, ROC_POINTS), np.append(0.0, alarms), np.append(0.0, hits)
    )
    return rates
