"""One profile of the same measurement in several processes."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from edgekit.profiling.compare.ratio import student
from edgekit.profiling.results import Energy, Finding, LatencyProfile, Moment, Pressure
from edgekit.runtime.statistics import Interval, Summary

_FEWEST_PROCESSES = 3  # for an interval
_APART_S = 1e-6  # of the last run of one and the first of the next, which else would overlap


def merged(parts: Sequence[LatencyProfile]) -> LatencyProfile:
    """Return one profile of the same measurement in several processes.

    Each percentile is the mean of the processes', and its interval Student's over them: runs of one
    process are more alike than processes are, so that all runs together would seem surer than
    they are. The samples of all are kept, one process after the other, and so is the telemetry of
    their runs. A finding of several processes is told once, as a doubt if it is one in any.
    """
    first = parts[0]
    blocks = tuple(block for part in parts for block in part.blocks)
    intervals = {
        name: _over_blocks([getattr(block.latency_ms, name) for block in blocks])
        for name in first.intervals_ms
    }
    starts_s, telemetry, offset_s = [], list[Moment](), 0.0
    for part in parts:
        starts_s += [offset_s + start_s for start_s in part.starts_s]
        runs = zip(part.starts_s, part.samples_ms, strict=True)
        end_s = offset_s + max((start_s + ms / 1000 for start_s, ms in runs), default=0.0)
        telemetry += [
            msgspec.structs.replace(moment, at_s=offset_s + moment.at_s)
            for moment in part.telemetry
            if 0 <= moment.at_s <= end_s - offset_s
        ]
        offset_s = end_s + _APART_S
    return msgspec.structs.replace(
        first,
        latency_ms=_mean_summary([part.latency_ms for part in parts]),
        intervals_ms=intervals,
        cpu_ms=statistics.fmean(part.cpu_ms for part in parts),
        throughput_fps=statistics.fmean(part.throughput_fps for part in parts),
        stages_ms={
            name: _mean_summary([part.stages_ms[name] for part in parts])
            for name in first.stages_ms
        },
        peak_rss_mb=max(part.peak_rss_mb for part in parts),
        runs=sum(part.runs for part in parts),
        warm_up_runs=sum(part.warm_up_runs for part in parts),
        steady=all(part.steady for part in parts),
        findings=_findings(parts),
        blocks=blocks,
        age_ms=None
        if first.age_ms is None
        else _mean_summary([part.age_ms for part in parts if part.age_ms is not None]),
        drops=dict(sum((Counter(part.drops) for part in parts), Counter[str]())),
        pressure=_pressure([part.pressure for part in parts]),
        energy=_energy(parts),
        telemetry=tuple(telemetry),
        samples_ms=tuple(itertools.chain(*(part.samples_ms for part in parts))),
        starts_s=tuple(starts_s),
        stage_samples_ms={
            name: tuple(itertools.chain(*(part.stage_samples_ms[name] for part in parts)))
            for name in first.stage_samples_ms
        },
    )


def _findings(parts: Sequence[LatencyProfile]) -> tuple[Finding, ...]:
    """Return a finding of each code, doubts first, with the first process that has it."""
    told = [
        msgspec.structs.replace(
            finding, message=f"in process {number} of {len(parts)}: {finding.message}"
        )
        for number, part in enumerate(parts, 1)
        for finding in part.findings
    ]
    if len(parts) < _FEWEST_PROCESSES:
        told.append(
            Finding(
                code="few-runs",
                is_doubt=True,
                message=f"{len(parts)} processes are too few to say how well a percentile is "
                f"known: its interval over them takes {_FEWEST_PROCESSES}; measure in more",
                evidence={"processes": len(parts), "fewest_processes": _FEWEST_PROCESSES},
            )
        )
    told.sort(key=lambda finding: not finding.is_doubt)
    return tuple({finding.code: finding for finding in reversed(told)}.values())[::-1]


def _pressure(parts: Sequence[Pressure | None]) -> Pressure | None:
    """Return shares over the time of all processes, and what is counted of all together."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    wall_s = sum(part.wall_s for part in known)

    def added(name: str) -> Any:
        values = [getattr(part, name) for part in known]
        return None if None in values else sum(values)

    def share(name: str) -> Any:
        values = [getattr(part, name) for part in known]
        if None in values:
            return None
        return sum(v * part.wall_s for v, part in zip(values, known, strict=True)) / wall_s

    shares = ("cpu_stalled", "memory_stalled", "io_stalled", "stolen", "others")
    sums = ("involuntary_switches", "major_faults", "throttled_s")
    told: dict[str, Any] = {name: share(name) for name in shares}
    return Pressure(wall_s=wall_s, **told, **{name: added(name) for name in sums})


def _energy(parts: Sequence[LatencyProfile]) -> Energy | None:
    """Return the energy of all runs; None where a process could not tell that of its own."""
    known = [(part.energy, part.runs) for part in parts if part.energy is not None]
    if len(known) < len(parts) or len({energy.rail for energy, _ in known}) > 1:
        return None
    idle_w = [energy.idle_power_w for energy, _ in known if energy.idle_power_w is not None]
    return Energy(
        rail=known[0][0].rail,
        joules_per_inference=sum(energy.joules_per_inference * runs for energy, runs in known)
        / sum(runs for _, runs in known),
        mean_power_w=statistics.fmean(energy.mean_power_w for energy, _ in known),
        idle_power_w=statistics.fmean(idle_w) if idle_w else None,
    )


def _over_blocks(values: Sequence[float]) -> Interval | None:
    if len(values) < _FEWEST_PROCESSES:
        return None
    half = student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return Interval(mean - half, mean + half)


def _mean_summary(parts: Sequence[Summary]) -> Summary:
    mean = {
        name: statistics.fmean(getattr(part, name) for part in parts)
        for name in ("p50", "p90", "p99", "mean")
    }
    return Summary(**mean, max=max(part.max for part in parts))
