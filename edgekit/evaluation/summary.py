"""The figures of an evaluation, as `edgekit evaluate --json` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Parity
from edgekit.evaluation.changed import MOST_LISTED, Changed, ChangedSamples
from edgekit.evaluation.intervals import Estimate, SignTest, estimates, sign_test
from edgekit.evaluation.metrics import Metrics
from edgekit.evaluation.metrics.classification import CALIBRATION_BINS, Classification
from edgekit.evaluation.metrics.segmentation import Segmentation
from edgekit.evaluation.metrics.sums import Measured
from edgekit.runtime.postprocess import ClassScore
from edgekit.runtime.statistics import Interval
from edgekit.specs import Task

SOURCE, DIFFERENCE = "source_", "difference_"
"""Prefixes of a metric's name: of the source's, and of bundle - source."""

_MOST_CONFUSION = 1000  # classes of which a matrix is written

Figures = dict[str, Estimate]


class ClassFigures(msgspec.Struct, frozen=True):
    """One class: `n` labels of it (of segmentations, pixels) and its figures."""

    name: str
    n: int
    metrics: dict[str, float | None]
    intervals: dict[str, Interval | None]


class CalibrationBin(msgspec.Struct, frozen=True):
    """The answers with a score in (low, high]: how many, their mean score, the share that is right.

    Mean and share are None where there are none.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


class ChangedSample(msgspec.Struct, frozen=True):
    """One sample that changed; the names of classes are None where the task has none."""

    index: int
    amount: float
    label: str | None
    source: str | None
    converted: str | None
    source_score: float | None
    converted_score: float | None


class ChangedList(msgspec.Struct, frozen=True):
    """How many samples changed (None where the task tells numbers), and the gravest of them."""

    n: int | None
    samples: tuple[ChangedSample, ...]


class Evaluation(msgspec.Struct, frozen=True):
    """Metrics of a bundle on a set; `docs/json.md` describes the fields."""

    task: Task
    n: int
    metrics: dict[str, float | None]
    intervals: dict[str, Interval | None]
    classes: tuple[ClassFigures, ...] = ()
    confusion: list[list[int]] | None = None
    calibration: tuple[CalibrationBin, ...] = ()
    sign_test: SignTest | None = None
    changed: ChangedList | None = None
    notes: tuple[str, ...] = ()


def summarize(
    task: Task,
    metrics: Metrics,
    source: Metrics | None,
    parity: Parity | None,
    names: Sequence[str],
    changed: ChangedSamples,
) -> Evaluation:
    """Return all figures of a bundle, beside those of its `source` where there is one.

    Args:
        task: of the bundle.
        metrics: of the bundle, on the whole set.
        source: of the source, on the same samples.
        parity: of the two.
        names: of the classes, as far as they are known.
        changed: what the two answer otherwise.
    """
    goodness = metrics.goodness()
    whole, classes = _figures(metrics, source, len(goodness))
    counts = _counts(metrics)
    values: dict[str, float | None] = {name: figure.value for name, figure in whole.items()}
    if parity is not None:
        values |= {"snr_db": parity.snr_db, "max_abs": parity.max_abs}
        if parity.agreement is not None:
            values["agreement"] = parity.agreement
    main, main_source = values[metrics.main], values.get(f"{SOURCE}{metrics.main}")
    if main is not None and main_source is not None:
        values["drop"] = main_source - main
    has_matrix = counts is not None and len(counts) <= _MOST_CONFUSION
    notes = list(metrics.notes)
    if counts is not None and not has_matrix:
        notes.append(f"The confusion matrix of {len(counts):,} classes is not written.")
    if values.get("calibration_error", 0.0) is None:
        notes.append("No calibration error: the scores are no probabilities, 0..1.")
    return Evaluation(
        task=task,
        n=len(goodness),
        metrics=values,
        intervals={name: figure.interval for name, figure in whole.items()},
        classes=tuple(
            ClassFigures(
                class_name(names, index),
                0 if counts is None else int(counts[index].sum()),
                {name: figure.value for name, figure in of_class.items()},
                {name: figure.interval for name, figure in of_class.items()},
            )
            for index, of_class in enumerate(classes)
        ),
        confusion=counts.tolist() if counts is not None and has_matrix else None,
        calibration=_bins(metrics),
        sign_test=None if source is None else sign_test(goodness, source.goodness()),
        changed=None if source is None else _changed(changed, names),
        notes=tuple(notes),
    )


def class_name(names: Sequence[str], index: int) -> str:
    """Return the name of a class, or its number."""
    return names[index] if index < len(names) else str(index)


def _figures(metrics: Metrics, source: Metrics | None, n: int) -> tuple[Figures, list[Figures]]:
    """Return the figures of the whole set, and those of each class."""
    ours = metrics.statistics()
    sides = [("", ours.of_the_set(), ours.of_resamples())]
    if source is not None:
        theirs = source.statistics()
        sides.append((SOURCE, theirs.of_the_set(), theirs.of_resamples()))
        # Both were resampled alike: the differences are paired.
        (_, of_set, of_resamples), (_, their_set, their_resamples) = sides
        differences = _minus(of_set, their_set), _minus(of_resamples, their_resamples)
        sides.append((DIFFERENCE, *differences))
    whole: Figures = {}
    by_class: dict[str, list[Estimate]] = {}
    for prefix, of_set, of_resamples in sides:
        for name, value in of_set.whole.items():
            (whole[prefix + name],) = estimates(value, of_resamples.whole[name][:, None], n)
        for name, values in of_set.classes.items():
            by_class[prefix + name] = estimates(values[0], of_resamples.classes[name], n)
    each = zip(*by_class.values(), strict=True)
    return whole, [dict(zip(by_class, row, strict=True)) for row in each]


def _minus(one: Measured, other: Measured) -> Measured:
    return Measured(
        {name: values - other.whole[name] for name, values in one.whole.items()},
        {name: values - other.classes[name] for name, values in one.classes.items()},
    )


def _counts(metrics: Metrics) -> NDArray[np.int64] | None:
    """Return the confusion matrix, where there are classes."""
    return metrics.confusion() if isinstance(metrics, Classification | Segmentation) else None


def _bins(metrics: Metrics) -> tuple[CalibrationBin, ...]:
    bins = metrics.calibration() if isinstance(metrics, Classification) else None
    if bins is None:
        return ()
    return tuple(
        CalibrationBin(
            low=index / CALIBRATION_BINS,
            high=(index + 1) / CALIBRATION_BINS,
            n=int(count),
            confidence=float(confidence) if count else None,
            accuracy=float(accuracy) if count else None,
        )
        for index, (count, confidence, accuracy) in enumerate(bins.T)
    )


def _changed(changed: ChangedSamples, names: Sequence[str]) -> ChangedList:
    listed = changed.gravest_first()[:MOST_LISTED]
    return ChangedList(changed.n, tuple(_sample(one, names) for one in listed))


def _sample(changed: Changed, names: Sequence[str]) -> ChangedSample:
    source, converted = (_class(value) for value in (changed.source, changed.converted))
    label = None if changed.label is None or source is None else class_name(names, changed.label)
    return ChangedSample(
        index=changed.index,
        amount=changed.amount,
        label=label,
        source=None if source is None else source.label,
        converted=None if converted is None else converted.label,
        source_score=None if source is None else source.score,
        converted_score=None if converted is None else converted.score,
    )


def _class(value: Any) -> ClassScore | None:
    return value if isinstance(value, ClassScore) else None
