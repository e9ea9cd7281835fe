"""An evaluation as a page for people, and as a part of a conversion's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgekit.data import Dataset
from edgekit.evaluation.changed_report import changed_sections
from edgekit.evaluation.evaluate import Answering, Assessment, assess, summary_of
from edgekit.evaluation.metrics import format_difference, format_metric
from edgekit.evaluation.metrics.classification import Classification
from edgekit.evaluation.metrics.ranking import ROC_POINTS
from edgekit.evaluation.summary import DIFFERENCE, SOURCE, ClassFigures, Evaluation
from edgekit.profiling.environment import environment
from edgekit.reports import (
    Curve,
    Curves,
    Fact,
    Matrix,
    Report,
    Section,
    Spans,
    Table,
    Text,
    write,
)
from edgekit.reports.spans import Span
from edgekit.runtime.model import Model
from edgekit.runtime.recordings import samples_for

_NAN = float("nan")
_MOST_FAINT = 30  # ROC curves of single classes
_MOST_MATRIX = 100  # classes of which a page shows the matrix


def run_evaluation(
    model: Model,
    data: Dataset,
    source: Answering | None,
    report: Path | None,
    reproduce: str,
    on_progress: Callable[[str, int, int], None],
) -> Evaluation:
    """Do what `edgekit evaluate` does: run, count, and write the page.

    Args:
        model: an opened bundle.
        data: labelled.
        source: what the bundle is compared with, or None.
        report: where the page is written, or None.
        reproduce: the command line, for the page.
        on_progress: called with (phase, done, total).

    Raises:
        DataError, ModelError, CheckFailed: see `edgekit.evaluation.evaluate.assess`.
        OutputError, MissingPackage: see `edgekit.reports.write`.
    """
    samples = samples_for(model, data)
    assessment = assess(
        model, samples, source, lambda done, total: on_progress("evaluating", done, total)
    )
    on_progress("resampling", 0, 0)
    evaluation = summary_of(assessment)
    if report is not None:
        name = str(model.bundle.path)
        write(evaluation_report(assessment, evaluation, name, reproduce), report)
    return evaluation


def evaluation_report(
    assessment: Assessment, evaluation: Evaluation, bundle: str, reproduce: str
) -> Report:
    """Return the page of `edgekit evaluate --report`.

    Args:
        assessment: what was run, with labels.
        evaluation: its figures.
        bundle: its path, for the title.
        reproduce: the command line.
    """
    assert assessment.metrics is not None
    main = assessment.metrics.main
    text = f"{main} {_with_interval(evaluation, main)}."
    if SOURCE + main in evaluation.metrics:
        text = (
            f"{main} {_with_interval(evaluation, main)}, of the source "
            f"{_with_interval(evaluation, SOURCE + main)}; difference "
            f"{_with_interval(evaluation, DIFFERENCE + main)}."
        )
    facts = [
        Fact(name, format_metric(name, value), "", _hint(evaluation, name))
        for name, value in evaluation.metrics.items()
        if value is not None and name in evaluation.intervals and not _is_prefixed(name)
    ]
    return Report(
        title=f"Evaluation of {bundle}",
        subtitle=f"{evaluation.task}, {evaluation.n:,} samples of {assessment.data.name}",
        verdict="info",
        verdict_text=text,
        facts=tuple(facts),
        sections=tuple(evaluation_sections(assessment, evaluation)),
        reproduce=reproduce,
        environment=environment(),
    )


def evaluation_sections(assessment: Assessment, evaluation: Evaluation) -> list[Section]:
    """Return figures, plots and changed samples of a labelled assessment."""
    ours, source = assessment.metrics, assessment.source
    assert ours is not None
    sections: list[Section] = [_figures_table(evaluation)]
    if evaluation.sign_test is not None:
        sections.append(_sign_test_text(evaluation))
    if evaluation.notes:
        sections.append(Text(text="\n\n".join(evaluation.notes)))
    if evaluation.classes:
        sections += _class_sections(evaluation, ours.class_main)
    if evaluation.confusion is not None and len(evaluation.confusion) <= _MOST_MATRIX:
        names = [one.name for one in evaluation.classes]
        sections.append(Matrix(title="Confusion matrix", labels=names, counts=evaluation.confusion))
    if isinstance(ours, Classification):
        beside = source if isinstance(source, Classification) else None
        sections += [*_roc(ours, beside), *_reliability(ours, beside)]
    return sections + changed_sections(assessment)


def _figures_table(evaluation: Evaluation) -> Table:
    names = [name for name in evaluation.intervals if not _is_prefixed(name)]
    prefixes = [""]
    columns = ["metric", "bundle", "95 % interval"]
    if SOURCE + names[0] in evaluation.metrics:
        prefixes = [SOURCE, "", DIFFERENCE]
        columns = ["metric", "source", "95 % interval", "bundle", "95 % interval"]
        columns += ["difference", "95 % interval"]
    rows = []
    for name in names:
        row = [name]
        for prefix in prefixes:
            row.append(_unbroken(_shown(prefix + name, evaluation.metrics[prefix + name])))
            row.append(_unbroken(_hint(evaluation, prefix + name)))
        rows.append(row)
    return Table(
        title="Evaluation",
        columns=columns,
        rows=rows,
        note=f"{evaluation.n:,} labelled samples. Intervals are by bootstrap over samples"
        + ("; those of differences are paired." if len(prefixes) > 1 else "."),
    )


def _sign_test_text(evaluation: Evaluation) -> Text:
    test = evaluation.sign_test
    assert test is not None
    odds = f"{test.p_value:.2g}" if test.p_value >= 1e-4 else "less than 0.0001"
    return Text(
        text=f"The bundle is better than its source on {test.better:,} of {evaluation.n:,} samples "
        f"and worse on {test.worse:,}. If neither were better, so uneven a split had a probability "
        f"of {odds}."
    )


def _class_sections(evaluation: Evaluation, main: str) -> list[Section]:
    """Return bars with intervals, the worst classes first, and all figures as a table."""
    series = ["bundle"]
    prefixes = [""]
    if SOURCE + main in evaluation.classes[0].metrics:
        series, prefixes = ["bundle", "source"], ["", SOURCE]
    occurring = [one for one in evaluation.classes if one.metrics[main] is not None]
    occurring.sort(key=lambda one: one.metrics[main] or 0.0)
    rows = [(one.name, [_span(one, prefix + main) for prefix in prefixes]) for one in occurring]
    names = [name for name in evaluation.classes[0].metrics if not _is_prefixed(name)]
    absent = len(evaluation.classes) - len(occurring)
    note = f"{absent} classes that do not occur are left out." if absent else ""
    sections: list[Section] = [
        Spans(title=f"{_title(main)} of each class, the worst first", series=series, rows=rows)
    ]
    columns = ["class", "labels", *(f"{name}, %" for name in names)]
    extra = [f"{DIFFERENCE}{name}" for name in names] if len(series) > 1 else []
    columns += [f"Δ {name}, points" for name in names] if extra else []
    sections.append(
        Table(
            columns=columns,
            rows=[
                (one.name, one.n, *(_percent(one.metrics[name]) for name in [*names, *extra]))
                for one in occurring
            ],
            note=" ".join(
                filter(None, (note, "Δ is bundle - source." if extra else "")),
            ),
        )
    )
    return sections


def _roc(ours: Classification, source: Classification | None) -> list[Section]:
    faint = [curve.tolist() for curve in ours.ranking.curves if curve[0] == curve[0]]
    if not faint:  # one class only: nothing is ranked before anything
        return []
    grid = [index / (ROC_POINTS - 1) for index in range(ROC_POINTS)]
    curves = [Curve("bundle, mean of classes", grid, _mean_curve(ours))]
    if source is not None:
        curves.append(Curve("source, mean of classes", grid, _mean_curve(source), 1))
    if 2 < len(faint) <= _MOST_FAINT:
        curves += [Curve("", grid, curve, 2) for curve in faint]
    return [
        Curves(
            title="ROC, each class against the rest",
            curves=curves,
            x_name="false positive rate",
            y_name="true positive rate",
            is_square=True,
        )
    ]


def _mean_curve(metrics: Classification) -> Sequence[float]:
    defined = [curve for curve in metrics.ranking.curves if curve[0] == curve[0]]
    return [float(sum(rates) / len(defined)) for rates in zip(*defined, strict=True)]


def _reliability(ours: Classification, source: Classification | None) -> list[Section]:
    curves = []
    for name, metrics, rank in (("bundle", ours, 0), ("source", source, 1)):
        bins = None if metrics is None else metrics.calibration()
        if bins is not None:
            _, confidence, accuracy = bins[:, bins[0] > 0]
            curves.append(Curve(name, confidence.tolist(), accuracy.tolist(), 1 if rank else 0))
    if not curves:
        return []
    curves.append(Curve("perfect", [0.0, 1.0], [0.0, 1.0], 2))
    return [
        Curves(
            title="Reliability: how often is an answer of that score right?",
            curves=curves,
            x_name="score of the answer",
            y_name="share that is right",
            is_square=True,
            note="15 bins of equal width; empty ones have no point.",
        )
    ]


def _is_prefixed(name: str) -> bool:
    return name.startswith((SOURCE, DIFFERENCE))


def _title(name: str) -> str:
    return {"f1": "F1", "iou": "IoU"}.get(name, name)


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


def _span(figures: ClassFigures, name: str) -> Span | None:
    value, interval = figures.metrics[name], figures.intervals[name]
    if value is None:
        return None
    return (value, _NAN, _NAN) if interval is None else (value, interval.low, interval.high)


def _unbroken(text: str) -> str:
    return text.replace(" … ", "…").replace(" ", "\N{NO-BREAK SPACE}")


def _shown(name: str, value: float | None) -> str:
    """Return a figure as text, by its name with prefix."""
    plain = name.removeprefix(SOURCE).removeprefix(DIFFERENCE)
    if value is None:
        return "–"
    if name.startswith(DIFFERENCE):
        return format_difference(plain, value).replace("-", "\N{MINUS SIGN}")
    return format_metric(plain, value)


def _with_interval(evaluation: Evaluation, name: str) -> str:
    value, hint = _shown(name, evaluation.metrics[name]), _hint(evaluation, name)
    return f"{value} ({hint})" if hint else value


def _hint(evaluation: Evaluation, name: str) -> str:
    """Return the interval of a figure as text without unit, "" where there is none."""
    interval = evaluation.intervals[name]
    ends = () if interval is None else (interval.low, interval.high)
    return " … ".join(_shown(name, end).removesuffix(" %").removesuffix(" points") for end in ends)
