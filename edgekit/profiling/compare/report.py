"""A comparison as a page for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from edgekit.profiling.compare import words
from edgekit.profiling.compare.interleaved import Round, times_s
from edgekit.profiling.compare.results import Comparison, Comparisons, Figure
from edgekit.reports import Curve, Curves, Fact, Report, Section, Series, Table, Text, Verdict

_MOST_POINTS = 400
_SHOWN_SHARE = 0.99  # of the runs: the slowest would leave no room for the others


def comparison_report(
    result: Comparisons, reproduce: str, openings: Sequence[Sequence[Round]] = ()
) -> Report:
    """Return the page.

    Args:
        result: of at least one comparison; the first is the verdict.
        reproduce: the command line that does it again.
        openings: the runs, where both were measured in turns.
    """
    first = result.comparisons[0]
    sections: list[Section] = [_table(comparison) for comparison in result.comparisons]
    if openings:
        sections += _runs(first.figures[0], openings)
    lines = [*words.gate_lines(result), *result.notes]
    if lines:
        sections.append(Text(title="Gates and notes", text="\n\n".join(lines)))
    return Report(
        title=f"{first.b.bundle} beside {first.a.bundle}",
        subtitle=f"one frame: preprocess + infer + postprocess; {result.method}",
        verdict=_colour(result),
        verdict_text=words.verdict(first) + ".",
        facts=tuple(_fact(figure) for figure in first.figures),
        sections=tuple(sections),
        reproduce=reproduce,
        environment=result.environment,
    )


def _colour(result: Comparisons) -> Verdict:
    if result.fails:
        return "fail"
    is_trusted = all(one.is_trusted for one in result.comparisons)
    gates = [gate for one in result.comparisons for gate in one.gates]
    if not is_trusted or any(gate.outcome == "cannot tell" for gate in gates):
        return "warn"
    return "pass" if gates else "info"


def _fact(figure: Figure) -> Fact:
    hint: str = figure.verdict
    if figure.interval is not None:
        low, high = words.percent(figure.interval.low), words.percent(figure.interval.high)
        hint = f"{low} to {high}: {figure.verdict}"
    return Fact(f"{figure.name}, B / A", words.percent(figure.ratio), hint=hint)


def _table(comparison: Comparison) -> Table:
    return Table(
        title=words.verdict(comparison),
        columns=words.COLUMNS,
        rows=words.rows(comparison),
        note="; ".join(words.sides(comparison)) + ".",
    )


def _runs(p50: Figure, openings: Sequence[Sequence[Round]]) -> list[Section]:
    rounds = [one for opening in openings for one in opening]
    times_ms = [np.sort(1000 * times_s(rounds, side)) for side in ("a", "b")]
    curves = []
    for name, values in zip("AB", times_ms, strict=True):
        places = np.linspace(0, _SHOWN_SHARE * (len(values) - 1), _MOST_POINTS).astype(int)
        shares = (places + 1) / len(values)
        rank: Literal[0, 1] = 1 if name == "A" else 0
        curves.append(Curve(name, values[places].tolist(), shares.tolist(), rank))
    return [
        Curves(
            title="All runs",
            curves=curves,
            x_name="ms",
            y_name="share of the runs that are not slower",
            note="The slowest hundredth is not drawn.",
        ),
        Series(
            title="p50 of B / A by opening",
            values=p50.each,
            unit="times",
            index="opening",
            note="Both are opened again each time: what lies between the openings is chance.",
        ),
    ]
