"""`--fail-if "p50>+5%"`: what fails a check, and only where the figures are sure of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

from msgspec import structs

from edgekit.errors import UsageError
from edgekit.profiling.compare.results import (
    Comparison,
    Figure,
    FigureName,
    Gate,
    GateOutcome,
    Outcome,
)
from edgekit.profiling.compare.words import sentence

_GATE = re.compile(r"\s*([a-z0-9]+)\s*>\s*\+?\s*(\d{1,6}(?:\.\d{1,6})?)\s*%\s*", re.ASCII)
_NAMES: tuple[FigureName, ...] = get_args(FigureName)
# What a run of another length, or on another day, may have: their absence is no wrong use.
_BY_COUNT = ("p90", "p99")


def read_gate(text: str) -> Gate:
    """Read a limit such as ``p50>+5%``.

    >>> read_gate("p50>+5%").most_percent
    5.0

    Raises:
        UsageError: it is none; the message holds the grammar.
    """
    found = _GATE.fullmatch(text)
    if found is not None and found[1] in _NAMES:
        name = next(name for name in _NAMES if name == found[1])
        return Gate(figure=name, most_percent=float(found[2]))
    raise UsageError(
        f"`fail-if` must look like 'p50>+5%': one of {', '.join(_NAMES)}, then >+, a number from 0 "
        f"and %; got {text!r}"
    )


def judge(comparison: Comparison, gates: Sequence[Gate]) -> Comparison:
    """Return `comparison` with what came of `gates`.

    Raises:
        UsageError: a gate on a figure that is not there.
    """
    outcomes = tuple(_judge(comparison, gate) for gate in gates)
    return structs.replace(comparison, gates=outcomes)


def _judge(comparison: Comparison, gate: Gate) -> GateOutcome:
    figure = comparison.figure(gate.figure)
    if figure is None:
        missing = _missing(gate.figure)
        if gate.figure not in _BY_COUNT:
            raise UsageError(f"`fail-if` {gate}: {missing}")
        return GateOutcome(gate=str(gate), outcome="cannot tell", message=missing)
    outcome = _outcome(figure, gate.most_percent)
    return GateOutcome(gate=str(gate), outcome=outcome, message=sentence(figure))


def _missing(name: FigureName) -> str:
    if name == "memory":
        return "memory is not in both profiles; save both again with edgekit profile --details"
    advice = "measure longer" if name in _BY_COUNT else "measure p50 or mean"
    return f"{name} is not there: too few runs, or not measured; {advice}"


def _outcome(figure: Figure, most_percent: float) -> Outcome:
    limit = 1 + most_percent / 100
    low = high = figure.ratio
    if figure.interval is not None:
        low, high = figure.interval.low, figure.interval.high
    if low > limit and figure.verdict in ("slower", "more"):
        return "fails"
    return "holds" if high <= limit else "cannot tell"
