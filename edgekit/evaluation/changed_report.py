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
    """Return traces of sequences, or a table of single numbers; the largest differences first."""
    title = "Largest differences"
    sections: list[Section] = []
    for one in changed:
        source, ours = (np.asarray(value, np.float64) for value in (one.source, one.converted))
        if source.ndim == 0 or len(source) < 3:
            continue
        curves, what = _traces(source, ours, one.label)
        sections.append(
            Curves(
                title="" if sections else title,
                curves=curves,
                x_name="step",
                y_name=what,
                note=f"Sample {one.index}: differs by {one.amount:.4g} at most.",
            )
        )
    if sections:
        return sections
    rows = [(one.index, *map(_first, (one.label, one.source, one.converted))) for one in changed]
    columns = ("sample", "label", "source", "bundle")
    return [Table(title=title, columns=columns, rows=rows)]


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


def _first(value: Any) -> float:
    return float(np.asarray(value, np.float64).reshape(-1)[0])
