"""The samples that a converted model answers otherwise than its source."""

from __future__ import annotations

import heapq
from typing import Any

import msgspec
import numpy as np

from edgekit.runtime.postprocess import ClassScore, SegmentationMap
from edgekit.specs import Task

MOST_LISTED = 1000
"""Of the JSON; the gravest come first."""

_MOST_KEPT = 6  # class maps and traces: as many as a report shows


class Changed(msgspec.Struct, frozen=True):
    """One sample.

    Attributes:
        index: in the set.
        amount: how much changed: of classes the difference of the best score, of class maps the
            share of pixels, of numbers the largest difference.
        label: as in the set; None without labels.
        source: the source's decoded value, None where it was not kept.
        converted: the converted model's.
    """

    index: int
    amount: float
    label: Any
    source: Any
    converted: Any


class ChangedSamples:
    """Collects them in bounded memory: class scores of all, class maps and numbers of the worst.

    Attributes:
        n: how many samples changed; None for numbers, of which all do.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.n = 0 if task in ("classification", "segmentation") else None
        self._classes: list[Changed] = []
        self._worst: list[tuple[float, int, Changed]] = []

    def add(self, index: int, label: Any, source: Any, converted: Any) -> None:
        """Take the decoded values that both models give for a sample."""
        amount = _amount(source, converted)
        if not amount > 0:
            return
        if self.n is not None:
            self.n += 1
        if self.task == "classification":
            self._classes.append(Changed(index, amount, label, source[0], converted[0]))
            return
        heapq.heappush(
            self._worst, (amount, -index, Changed(index, amount, label, source, converted))
        )
        if len(self._worst) > _MOST_KEPT:
            heapq.heappop(self._worst)

    def gravest_first(self) -> list[Changed]:
        """Return what was kept: of classes, right answers that became wrong come first."""
        if self.task == "classification":
            return sorted(self._classes, key=_gravity)
        return [found for *_, found in sorted(self._worst, key=lambda w: w[:2], reverse=True)]


def _gravity(changed: Changed) -> tuple[int, float, int]:
    was_right, is_right = (
        changed.label is not None and one.index == int(changed.label)
        for one in (changed.source, changed.converted)
    )
    return is_right - was_right, -changed.amount, changed.index


def _amount(source: Any, converted: Any) -> float:
    if isinstance(source, SegmentationMap):
        return float((source.class_map != converted.class_map).mean())
    if isinstance(source, tuple) and source and isinstance(source[0], ClassScore):
        if source[0].index == converted[0].index:
            return 0.0
        # A tie at the same score is a change too.
        return float(max(abs(source[0].score - converted[0].score), 1e-12))
    difference = np.abs(np.asarray(source, np.float64) - np.asarray(converted, np.float64))
    return float(difference.max(initial=0.0))
