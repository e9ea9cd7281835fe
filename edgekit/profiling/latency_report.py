"""How long runs took: distribution, course and stages, as sections of a profile's page."""

from __future__ import annotations

from itertools import accumulate, pairwise

from edgekit.profiling.recording import kept_of
from edgekit.profiling.results import LatencyProfile, Moment
from edgekit.reports import (
    Bars,
    Ecdf,
    Histogram,
    Panel,
    Section,
    Series,
    Spread,
    Spreads,
    Table,
    Timeline,
    Trace,
)
from edgekit.runtime.statistics import Interval

_OF_MODEL = ("preprocess", "infer", "postprocess")
_MOST_MARKED = 6
_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def latency_sections(measured: LatencyProfile, name: str) -> list[Section]:
    """Return distribution, time series, stages and process blocks of one configuration.

    Args:
        measured: its figures; without `samples_ms`, what needs each run is left out.
        name: of the configuration, where there are several; else "".
    """
    sections: list[Section] = []
    if measured.samples_ms:
        sections += _distribution(measured, name)
    sections += _course(measured)
    if measured.age_ms is not None:
        sections += _age(measured)
    if measured.stages_ms:
        stages = [(stage, times.mean) for stage, times in measured.stages_ms.items()]
        waits = "Capture holds the wait for the next frame of a live source."
        sections.append(
            Bars(
                title="Where the time goes (mean)",
                stages=stages,
                unit="ms",
                note=waits if "capture" in measured.stages_ms else "",
            )
        )
    if len(measured.blocks) > 1:
        sections.append(_blocks(measured))
    return sections


def _distribution(measured: LatencyProfile, name: str) -> list[Section]:
    times = measured.latency_ms
    known = _intervals(measured)
    warm_up = (
        f"{measured.runs:,} runs after {measured.warm_up_runs:,} of warm-up; slowest "
        f"{times.max:.3f} ms."
    )
    bands = " Bands are the 95 % intervals of the percentiles." if known else ""
    return [
        Histogram(
            title=f"Latency with {name}" if name else "Latency",
            values=measured.samples_ms,
            unit="ms",
            marks={"p50": times.p50, "p90": times.p90, "p99": times.p99},
            intervals={key: (interval.low, interval.high) for key, interval in known.items()},
            note=warm_up + bands,
        ),
        Ecdf(
            values=measured.samples_ms,
            unit="ms",
            intervals=[(_SHARES[key], i.low, i.high) for key, i in known.items()],
            note="The same with its tail drawn out: one run in ten lies above 90 %, one in a "
            "hundred above 99 %.",
        ),
    ]


def _intervals(measured: LatencyProfile) -> dict[str, Interval]:
    return {
        key: interval
        for key, interval in measured.intervals_ms.items()
        if interval is not None and key in _SHARES
    }


def _course(measured: LatencyProfile) -> list[Section]:
    """Return the latency over time, above what telemetry saw meanwhile."""
    panels: list[Panel] = []
    sections: list[Section] = []
    title = "Over time"
    timed = len(measured.starts_s) == len(measured.samples_ms) > 0
    if timed:
        latency = Trace("latency", measured.starts_s, measured.samples_ms)
        panels.append(Panel("latency", "ms", (latency,), is_dots=True))
    elif measured.samples_ms:
        sections.append(Series(title=title, values=measured.samples_ms, unit="ms"))
        title = ""
    panels += _telemetry_panels(measured.telemetry)
    if not panels:
        return sections
    bands = _throttled(measured.telemetry)
    reasons = sorted({reason for moment in measured.telemetry for reason in moment.throttled})
    sections.append(
        Timeline(
            title=title,
            panels=panels,
            bands=bands,
            marks=_marks(measured),
            note=f"Shaded: throttled ({', '.join(reasons)})." if bands else "",
        )
    )
    return sections


def _telemetry_panels(moments: tuple[Moment, ...]) -> list[Panel]:
    kinds = (
        ("clocks", "MHz", "clocks_mhz", 1.0),
        ("temperature", "°C", "temperature_c", 1.0),
        ("power", "W", "power_mw", 1e-3),
    )
    panels = []
    for title, unit, attribute, factor in kinds:
        values = [(moment.at_s, getattr(moment, attribute)) for moment in moments]
        names = list(dict.fromkeys(name for _, found in values for name in found))
        traces = []
        for name in names:
            points = [(at_s, found[name] * factor) for at_s, found in values if name in found]
            traces.append(Trace(name, [at_s for at_s, _ in points], [y for _, y in points]))
        if traces:
            panels.append(Panel(title, unit, tuple(_merged(traces))))
    return panels


def _merged(traces: list[Trace]) -> list[Trace]:
    """Return `traces` with those that are the same as one: the cores of a cluster."""
    groups: dict[tuple[tuple[float, ...], tuple[float, ...]], list[str]] = {}
    for trace in traces:
        groups.setdefault((tuple(trace.x), tuple(trace.y)), []).append(trace.name)
    return [
        Trace(names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}", x, y)
        for (x, y), names in groups.items()
    ]


def _throttled(moments: tuple[Moment, ...]) -> list[tuple[float, float]]:
    """Return the times (start, end) in which the device said that it was throttled."""
    bands: list[tuple[float, float]] = []
    for before, after in pairwise((*moments, *moments[-1:])):
        if not before.throttled:
            continue
        if bands and bands[-1][1] == before.at_s:
            bands[-1] = (bands[-1][0], after.at_s)
        else:
            bands.append((before.at_s, after.at_s))
    return bands


def _marks(measured: LatencyProfile) -> dict[str, float]:
    """Return when what the findings tell of began and ended; of several processes, when each began.

    A finding's time counts from its own process' first run, of which the course does not know.
    """
    if 1 < len(measured.blocks) <= _MOST_MARKED:
        firsts = accumulate(kept_of(block.runs) for block in measured.blocks[:-1])
        starts = [measured.starts_s[n] for n in firsts if n < len(measured.starts_s)]
        return {f"process {number}:": at_s for number, at_s in enumerate(starts, start=2)}
    if len(measured.blocks) > 1:
        return {}
    ends = (("from_s", "from"), ("until_s", "until"))
    return {
        f"{finding.code} {word}": finding.evidence[key]
        for finding in measured.findings
        for key, word in ends
        if key in finding.evidence
    }


def _age(measured: LatencyProfile) -> list[Section]:
    """Return how old frames were at their result, and where that age came from."""
    age, times = measured.age_ms, measured.latency_ms
    assert age is not None
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in measured.drops.items() if count)
    rows = [
        (name, found.p50, found.p90, found.p99, found.max)
        for name, found in (("age at the result", age), ("latency of the model", times))
    ]
    table = Table(
        columns=("", "p50 ms", "p90 ms", "p99 ms", "max ms"),
        rows=rows,
        note="From the capture of a frame to its result. Dropped: "
        f"{dropped or 'none'} of {measured.runs + sum(measured.drops.values()):,} frames.",
    )
    stages = [("capture and waiting", max(0.0, age.mean - times.mean))]
    stages += [
        (name, measured.stages_ms[name].mean) for name in _OF_MODEL if name in measured.stages_ms
    ]
    return [Bars(title="Age at the result (mean)", stages=stages, unit="ms"), table]


def _blocks(measured: LatencyProfile) -> Section:
    spreads = [
        Spread(
            f"process {number}, {block.runs:,} runs",
            block.latency_ms.p50,
            block.latency_ms.p90,
            block.latency_ms.p99,
        )
        for number, block in enumerate(measured.blocks, start=1)
    ]
    return Spreads(title="Each process", spreads=spreads, unit="ms")
