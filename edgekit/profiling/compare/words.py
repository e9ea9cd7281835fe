"""A comparison in words, for the terminal, Markdown and the page alike."""

from __future__ import annotations

from edgekit.profiling.compare.results import Comparison, Comparisons, Figure, Side
from edgekit.runtime.statistics import Interval

_TITLES = {"mean": "mean latency", "cpu": "CPU time", "memory": "memory"}
_OUTCOMES = {"fails": "FAILS", "holds": "holds", "cannot tell": "cannot tell"}

COLUMNS = ("", "A", "B", "B / A", "95 % interval", "re-opening", "verdict")


def sentence(figure: Figure) -> str:
    """Say how B compares: ``B is 4.8 % slower at p50 (95 %: 4.1 to 5.6 %)``."""
    title = _TITLES.get(figure.name, figure.name)
    if figure.verdict == "cannot tell":
        told = f"cannot tell at {title}: B / A is {percent(figure.ratio)}"
        if figure.interval is not None:
            told += f" (95 %: {_ends(figure.interval, 1)})"
        if figure.reopening is not None:
            told += f", and re-opening alone changes it by about {100 * figure.reopening:.1f} %"
        return told
    sign = 1 if figure.ratio > 1 else -1
    reach = "" if figure.interval is None else f" (95 %: {_ends(figure.interval, sign)})"
    difference = f"{100 * abs(figure.ratio - 1):.1f} % {figure.verdict}"
    if figure.verdict in ("more", "less"):
        return f"B needs {difference} {title}{reach}"
    return f"B is {difference} at {title}{reach}"


def _ends(interval: Interval, sign: int) -> str:
    ends = sorted(100 * sign * (end - 1) for end in (interval.low, interval.high))
    return f"{ends[0] + 0.0:.1f} to {ends[1] + 0.0:.1f} %"


def percent(ratio: float) -> str:
    """Return a ratio as a change: ``+4.8 %``."""
    return f"{round(100 * (ratio - 1), 1) + 0.0:+.1f} %"  # -0.0 becomes 0.0


def verdict(comparison: Comparison) -> str:
    """Return the verdict, which is that on p50, as one sentence."""
    doubt = "" if comparison.is_trusted else "; do not rely on it: a profile is in doubt (notes)"
    return sentence(comparison.figures[0]) + doubt


def configuration(side: Side) -> str:
    """Return what was run: ``litert, int8, 2 threads``."""
    threads = f"{side.threads} thread{'s' if side.threads > 1 else ''}"
    return f"{side.backend}, {side.precision}, {threads}"


def sides(comparison: Comparison) -> tuple[str, str]:
    """Return a line on each: which bundle, how it was run, and how much."""
    a, b = (
        f"{name}: {side.bundle} ({configuration(side)}; opened {side.blocks} times, "
        f"{side.runs:,} runs)"
        for name, side in (("A", comparison.a), ("B", comparison.b))
    )
    return a, b


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return a row a figure, under `COLUMNS`."""
    return [_row(figure) for figure in comparison.figures]


def _row(figure: Figure) -> tuple[str, ...]:
    interval = figure.interval
    return (
        figure.name,
        f"{_value(figure.a)} {figure.unit}",
        f"{_value(figure.b)} {figure.unit}",
        percent(figure.ratio),
        "" if interval is None else f"{percent(interval.low)} to {percent(interval.high)}",
        "" if figure.reopening is None else f"± {100 * figure.reopening:.1f} %",
        figure.verdict,
    )


def _value(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:.0f}"


def gate_lines(result: Comparisons) -> list[str]:
    """Return a line on each gate, those that fail first."""
    lines = [
        (gate.outcome != "fails", f"{gate.gate} {_OUTCOMES[gate.outcome]}: {gate.message}")
        for comparison in result.comparisons
        for gate in comparison.gates
    ]
    return [line for _, line in sorted(lines, key=lambda one: one[0])]
