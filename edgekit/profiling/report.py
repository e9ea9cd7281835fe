"""A latency profile as a page for people."""

from __future__ import annotations

from edgekit.profiling.results import LatencyProfile, Profile
from edgekit.reports import Bars, Fact, Histogram, Report, Section, Series, Table, Verdict


def profile_report(profile: Profile) -> Report:
    """Return the report of one bundle's profiles; the fastest by p50 is shown first."""
    best = min(profile.profiles, key=lambda p: p.latency_ms.p50)
    unsteady = [p for p in profile.profiles if not p.steady]
    verdict: Verdict = "warn" if unsteady else "info"
    sentence = (
        f"p50 {best.latency_ms.p50:.3f} ms, p99 {best.latency_ms.p99:.3f} ms with {_name(best)}."
    )
    if unsteady:
        sentence += " The latency did not become steady in 10 s of warm-up: take it with care."
    sections: list[Section] = []
    if len(profile.profiles) > 1:
        sections.append(_table(profile))
    for measured in sorted(profile.profiles, key=lambda p: p.latency_ms.p50):
        sections += _details(measured)
    return Report(
        title=f"Latency of {profile.bundle}",
        subtitle="one frame: preprocess + infer + postprocess",
        verdict=verdict,
        verdict_text=sentence,
        facts=(
            Fact("p50", round(best.latency_ms.p50, 3), "ms"),
            Fact("p90", round(best.latency_ms.p90, 3), "ms"),
            Fact("p99", round(best.latency_ms.p99, 3), "ms"),
            Fact("throughput", round(best.throughput_fps), "frames/s"),
            Fact("CPU time", round(best.cpu_ms, 3), "ms", "a frame, all threads"),
            Fact("peak memory", round(best.peak_rss_mb), "MB"),
        ),
        sections=tuple(sections),
        reproduce=f"edgekit profile {profile.bundle} --threads {_threads(profile)}",
        environment={**profile.environment, "engine": best.executes},
    )


def _name(profile: LatencyProfile) -> str:
    threads = f"{profile.threads} thread" + ("s" if profile.threads > 1 else "")
    return f"{profile.backend}, {profile.precision}, {threads}"


def _threads(profile: Profile) -> str:
    return ",".join(str(p.threads) for p in profile.profiles)


def _table(profile: Profile) -> Table:
    columns = ("configuration", "p50 ms", "p90 ms", "p99 ms", "max ms", "CPU ms", "frames/s")
    rows = [
        (
            _name(p),
            p.latency_ms.p50,
            p.latency_ms.p90,
            p.latency_ms.p99,
            p.latency_ms.max,
            p.cpu_ms,
            round(p.throughput_fps),
        )
        for p in profile.profiles
    ]
    return Table(title="Configurations", columns=columns, rows=rows)


def _details(profile: LatencyProfile) -> list[Section]:
    times = profile.latency_ms
    marks = {"p50": times.p50, "p90": times.p90, "p99": times.p99}
    warm_up = (
        f"{profile.runs:,} runs after {profile.warm_up_runs:,} of warm-up; "
        f"slowest {times.max:.3f} ms."
    )
    stages = [(name, stage.mean) for name, stage in profile.stages_ms.items()]
    return [
        Histogram(
            title=f"Latency with {_name(profile)}",
            values=profile.samples_ms,
            unit="ms",
            marks=marks,
            note=warm_up,
        ),
        Series(title="", values=profile.samples_ms, unit="ms"),
        Bars(title="Where the time goes (mean)", stages=stages, unit="ms"),
    ]
