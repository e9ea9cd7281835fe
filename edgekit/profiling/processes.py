"""One profile of the same measurement in several processes."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

import msgspec

from edgekit.profiling.compare.ratio import student
from edgekit.profiling.results import LatencyProfile
from edgekit.runtime.statistics import Interval, Summary


def merged(parts: Sequence[LatencyProfile]) -> LatencyProfile:
    """Return one profile of the same measurement in several processes.

    Each percentile is the mean of the processes', and its interval Student's over them: runs of one
    process are more alike than processes are, so that all runs together would seem surer than
    they are. The samples of all are kept, one process after the other.
    """
    first = parts[0]
    blocks = tuple(block for part in parts for block in part.blocks)
    intervals = {
        name: _over_blocks([getattr(block.latency_ms, name) for block in blocks])
        for name in first.intervals_ms
    }
    findings = {
        finding.code: msgspec.structs.replace(
            finding, message=f"in process {number} of {len(parts)}: {finding.message}"
        )
        for number, part in reversed(list(enumerate(parts, 1)))
        for finding in part.findings
    }
    starts_s, offset_s = [], 0.0
    for part in parts:
        starts_s += [offset_s + start_s for start_s in part.starts_s]
        offset_s = starts_s[-1] + part.samples_ms[-1] / 1000 if starts_s else 0.0
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
        findings=tuple(findings.values()),
        blocks=blocks,
        age_ms=None
        if first.age_ms is None
        else _mean_summary([part.age_ms for part in parts if part.age_ms is not None]),
        samples_ms=tuple(itertools.chain(*(part.samples_ms for part in parts))),
        starts_s=tuple(starts_s),
        stage_samples_ms={
            name: tuple(itertools.chain(*(part.stage_samples_ms[name] for part in parts)))
            for name in first.stage_samples_ms
        },
    )


def _over_blocks(values: Sequence[float]) -> Interval | None:
    if len(values) < 3:
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
