"""What a comparison holds; `docs/json.md` describes the same as JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgekit.runtime.statistics import Interval

FigureName = Literal["p50", "p90", "p99", "mean", "cpu", "memory"]
Unit = Literal["ms", "MB"]
Verdict = Literal["faster", "slower", "less", "more", "cannot tell"]
Outcome = Literal["holds", "fails", "cannot tell"]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two that are compared.

    Attributes:
        bundle: its path.
        bundle_sha256: of its model's file.
        precision: of the bundle.
        backend: inference engine.
        executes: what truly runs.
        threads: CPU threads of the engine.
        blocks: how often it was opened: in this process, or in processes of a saved profile.
        runs: measured, in all of them.
    """

    bundle: str
    bundle_sha256: str
    precision: str
    backend: str
    executes: str
    threads: int
    blocks: int
    runs: int


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both.

    Attributes:
        name: p50, p90, p99 and mean of a frame's latency; cpu: CPU time a frame; memory: most that
            a fresh process held.
        unit: of `a` and `b`: ms or MB.
        a: the first one's; geometric mean over its blocks.
        b: the second one's.
        ratio: b / a, estimated.
        interval: 95 % of `ratio`; None where each was measured once.
        reopening: by what share re-opening alone changes the ratio: its standard deviation from
            one opening (or process) to the next; None likewise.
        verdict: of b; times are faster or slower, cpu and memory less or more.
        each: the ratio in each opening, where both were measured in turns.
    """

    name: FigureName
    unit: Unit
    a: float
    b: float
    ratio: float
    interval: Interval | None
    reopening: float | None
    verdict: Verdict
    each: tuple[float, ...] = ()


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A limit on how much worse b may be, as `--fail-if` gives it.

    Attributes:
        figure: which one.
        most_percent: how much more it may be, in percent of a.
    """

    figure: FigureName
    most_percent: float

    def __str__(self) -> str:
        return f"{self.figure}>+{self.most_percent:g}%"


class GateOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a gate.

    Attributes:
        gate: as it was given.
        outcome: ``fails`` where all of the interval is above the limit, ``holds`` where all of it
            is below, else ``cannot tell``.
        message: the same in words, with the figures.
    """

    gate: str
    outcome: Outcome
    message: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two configurations beside each other; p50 comes first and is the verdict.

    Attributes:
        scenario: how frames came, as in a profile.
        a, b: what is compared.
        figures: those that could be measured.
        waited: share of the runs' time, 0..1, that they waited for a CPU which others had; it is
            taken off all latencies. None where it is not known, and not taken off.
        gates: what came of each.
        is_trusted: whether neither is of a saved profile that is in doubt.
    """

    scenario: str
    a: Side
    b: Side
    figures: tuple[Figure, ...]
    waited: float | None = None
    gates: tuple[GateOutcome, ...] = ()
    is_trusted: bool = True

    def figure(self, name: str) -> Figure | None:
        """Return the figure `name`, or None where there is none."""
        return next((figure for figure in self.figures if figure.name == name), None)


class Comparisons(msgspec.Struct, frozen=True, kw_only=True):
    """All that `edgekit compare` found.

    Attributes:
        method: ``in turns``, or from ``saved`` profiles.
        frames: what was measured on, as in a profile.
        comparisons: one a configuration.
        notes: what is to be known of them.
        environment: the machine and its library versions; of the first profile where saved.
    """

    method: Literal["in turns", "saved"]
    frames: str
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    environment: dict[str, str]

    @property
    def fails(self) -> tuple[GateOutcome, ...]:
        """The gates that fail."""
        return tuple(g for c in self.comparisons for g in c.gates if g.outcome == "fails")
