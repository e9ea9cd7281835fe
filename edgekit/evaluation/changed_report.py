"""The samples that changed their answer, shown: pictures, class maps or traces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.changed import Changed
from edgekit.evaluation.evaluate import Assessment
from edgekit.evaluation.metrics.segmentation import sized_as
from edgekit.evaluation.pictures import changed_picture, frame_of, map_picture, sample_picture
from edgekit.evaluation.summary import class_name
from edgekit.reports import Curve, Curves, Picture, Pictures, Section, Table, Text
from edgekit.runtime.postprocess import ClassScore

_TITLE = "Samples that changed their answer"
_MOST_PICTURES = 24


def changed_sections(assessment: Assessment) -> list[Section]:
    """Return what the two models of `assessment` answer otherwise, the gravest first."""
    if assessment.source is None:
        return []
    changed = assessment.changed.gravest_first()
    if not changed:
        return [Text(title=_TITLE, text="None: both models answer alike on every sample.")]
    if assessment.task == "classification":
        return _classes(assessment, changed)
    if assessment.task == "segmentation":
        return _maps(assessment, changed)
    return _numbers(assessment, changed)


def _classes(assessment: Assessment, changed: list[Changed]) -> list[Section]:
    count = f"{len(changed):,} of {len(assessment.data):,} samples"
    shown = changed[:_MOST_PICTURES]
    pictures = [
        sample_picture(assessment.data.read(one.index), _caption(assessment, one)) for one in shown
    ]
    found = [picture for picture in pictures if picture is not None]
    order = "first those that were right and are wrong now, then by the change of the score."
    if found:
        note = f"{count}; {len(found)} are shown, {order}"
        return [Pictures(title=_TITLE, pictures=found, note=note)]
    rows = [
        (
            one.index,
            class_name(assessment.names, one.label),
            one.source.label,
            round(one.source.score, 4),
            one.converted.label,
            round(one.converted.score, 4),
        )
        for one in changed
    ]
    columns = ("sample", "label", "source", "score", "bundle", "score")
    return [Table(title=_TITLE, columns=columns, rows=rows, note=f"{count}; {order}")]


def _caption(assessment: Assessment, changed: Changed) -> str:
    return (
        f"sample {changed.index}: label {class_name(assessment.names, changed.label)}; "
        f"source {_scored(changed.source)}; bundle {_scored(changed.converted)}"
    )


def _scored(one: ClassScore) -> str:
    return f"{one.label} {one.score:.2f}"


def _maps(assessment: Assessment, changed: list[Changed]) -> list[Section]:
    """Return for each sample: frame, mask, both maps, and the changed pixels on the frame."""
    sections: list[Section] = []
    for one in changed:
        source, ours = (
            sized_as(value.class_map, one.label) for value in (one.source, one.converted)
        )
        frame = frame_of(assessment.data.read(one.index))
        differs = source != ours
        classes = max(len(assessment.names), int(max(source.max(), ours.max())) % 255 + 1)
        rows: list[Picture | None] = [
            sample_picture(frame, "frame"),
            map_picture(one.label, classes, "label"),
            map_picture(source, classes, "source"),
            map_picture(ours, classes, "bundle"),
            changed_picture(frame, differs, "changed pixels, magenta"),
        ]
        note = f"Sample {one.index}: {100 * one.amount:.2f} % of the pixels changed."
        sections.append(
            Pictures(
                title="" if sections else "Pixels that changed their class",
                pictures=[picture for picture in rows if picture is not None],
                small=True,
                note=note,
            )
        )
    return sections


def _numbers(assessment: Assessment, changed: list[Changed]) -> list[Section]:
    """Return traces of sequences, or a table of numbers; the largest differences first."""
    title = "Largest differences"
    if assessment.task == "sequence" and np.ndim(changed[0].source):
        return [_trace(one, "" if number else title) for number, one in enumerate(changed)]
    columns = ("sample", "output", "label", "source", "bundle")
    return [Table(title=title, columns=columns, rows=[_worst_number(one) for one in changed])]


def _worst_number(changed: Changed) -> tuple[int, int, float, float, float]:
    """Return the sample, and of its output that differs most number, label and both answers."""
    label, source, ours = (
        np.asarray(value, np.float64).reshape(-1)
        for value in (changed.label, changed.source, changed.converted)
    )
    worst = int(np.abs(source - ours).argmax())
    return changed.index, worst, float(label[worst]), float(source[worst]), float(ours[worst])


def _trace(changed: Changed, title: str) -> Curves:
    source, ours = (np.asarray(v, np.float64) for v in (changed.source, changed.converted))
    curves, what = _traces(source, ours, changed.label)
    note = f"Sample {changed.index}: differs by {changed.amount:.4g} at most."
    return Curves(title=title, curves=curves, x_name="step", y_name=what, note=note)


def _traces(
    source: NDArray[np.float64], ours: NDArray[np.float64], label: Any
) -> tuple[list[Curve], str]:
    """Return both traces and the label's, of the output that differs most; or classes by step."""
    steps = [float(step) for step in range(len(source))]
    source, ours = (values.reshape(len(steps), -1) for values in (source, ours))
    right = np.asarray(label).reshape(len(label), -1) if np.ndim(label) else np.zeros((0, 0))
    if len(right) == len(steps) and right.shape[1] == 1 and source.shape[1] > 1:
        traces = (ours.argmax(1), source.argmax(1), right[:, 0])  # a class each step
        what = "class"
    else:
        worst = int(np.abs(source - ours).max(0).argmax())
        known = right[:, worst] if right.shape == source.shape else np.full(len(steps), np.nan)
        traces, what = (ours[:, worst], source[:, worst], known), f"output {worst}"
    named = zip(("bundle", "source", "label"), traces, (0, 1, 2), strict=True)
    curves = [
        Curve(name, steps, trace.astype(float).tolist(), rank)  # type: ignore[arg-type]
        for name, trace, rank in named
        if not np.isnan(trace.astype(float)).all()
    ]
    return curves, what
