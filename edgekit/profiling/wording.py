"""A profile in words: the same ones on the terminal, in Markdown and on the page."""

from __future__ import annotations

import math
import shlex

from edgekit.profiling.results import Finding, LatencyProfile, Profile
from edgekit.runtime.statistics import Interval

# What MLPerf Inference quotes of each scenario, beside the median.
_TAILS = {"single-stream": ("p90",), "multi-stream": ("p99",), "paced": ("p99",)}


def best_of(profile: Profile) -> LatencyProfile:
    """Return the configuration to show first: the fastest by p50 of those without doubts."""
    return by_p50(profile)[0]


def by_p50(profile: Profile) -> list[LatencyProfile]:
    """Return the configurations, those without doubts first, the fastest first."""
    return sorted(profile.profiles, key=lambda p: (not p.is_trusted, p.latency_ms.p50))


def configuration(measured: LatencyProfile) -> str:
    """Return what was measured, short: ``litert, int8, 4 threads``."""
    threads = f"{measured.threads} thread" + ("s" if measured.threads != 1 else "")
    return f"{measured.backend}, {measured.precision}, {threads}"


def scenario_name(measured: LatencyProfile) -> str:
    """Return the scenario with its setting: ``paced at 30 Hz``."""
    if measured.rate_hz is not None:
        return f"{measured.scenario} at {measured.rate_hz:g} Hz"
    if measured.streams is not None:
        return f"{measured.scenario}, {measured.streams} frames at once"
    return measured.scenario


def quotable(profile: Profile, measured: LatencyProfile) -> str:
    """Return the one sentence that a reader may quote: figures, intervals, and of what."""
    where = profile.environment.get("board") or profile.environment.get("cpu", "")
    parts = (
        f"{profile.bundle} with {configuration(measured)}",
        scenario_name(measured),
        f"{measured.runs:,} runs",
        where,
    )
    return f"{headline(measured)}: {'; '.join(part for part in parts if part)}."


def headline(measured: LatencyProfile) -> str:
    """Return the scenario's figures: ``p50 5.12 ms (95 %: 5.10 to 5.15), p90 …``."""
    times, age = measured.latency_ms, measured.age_ms
    names = ("p50", *_TAILS.get(measured.scenario, ()))
    figures = ", ".join(
        f"{name} {ms(getattr(times, name), measured.intervals_ms.get(name))}" for name in names
    )
    if measured.scenario == "cold-start":
        return f"from nothing to the first result {figures}"
    if measured.scenario == "offline":
        return f"{measured.throughput_fps:,.4g} frames/s, {figures} a frame in a batch"
    if age is not None:
        return f"age at the result p50 {ms(age.p50)}, p99 {ms(age.p99)}; latency {figures}"
    return figures


def ms(value: float, interval: Interval | None = None) -> str:
    """Return milliseconds with as many decimals as their 95 % interval deserves."""
    amount = f"{decimals(value, value, interval)} ms"
    return amount if interval is None else f"{amount} ({interval_text(value, interval)})"


def interval_text(value: float, interval: Interval) -> str:
    """Return ``95 %: 5.10 to 5.15``."""
    low, high = (decimals(end, value, interval) for end in (interval.low, interval.high))
    return f"95 %: {low} to {high}"


def decimals(shown: float, value: float, interval: Interval | None) -> str:
    """Return `shown` with the decimals of `value`: two digits of its interval, else of three.

    However wide the interval is, of the value itself a digit stays: 0.042 is not 0.
    """
    width = 0.0 if interval is None else interval.high - interval.low
    scale = min(width / 2.5, abs(value) / 2) if width > 0 else abs(value) / 20
    if not math.isfinite(shown) or not math.isfinite(scale) or scale <= 0:
        return f"{shown:g}"
    return f"{shown:,.{min(6, max(0, math.ceil(-math.log10(scale))))}f}"


def doubts(measured: LatencyProfile) -> list[Finding]:
    """Return the findings that say why the figures do not deserve trust."""
    return [finding for finding in measured.findings if finding.is_doubt]


def findings_lines(profile: Profile) -> list[str]:
    """Return a line for each finding, the doubts first, with what it is about."""
    many = len(profile.profiles) > 1
    found = [(p, finding) for p in by_p50(profile) for finding in p.findings]
    found.sort(key=lambda pair: not pair[1].is_doubt)
    return [
        f"{'doubt' if finding.is_doubt else 'note'}: "
        + (f"{configuration(p)}: " if many else "")
        + finding.message
        for p, finding in found
    ]


def reproduce_line(profile: Profile, measured: LatencyProfile) -> str:
    """Return the command that measures one configuration again; "" where frames were Python's."""
    if profile.frames == "iterator":
        return ""
    processes = len(measured.blocks)
    runs = measured.blocks[0].runs if processes > 1 else measured.runs
    options: list[tuple[str, object]] = [
        ("--scenario", measured.scenario),
        ("--backend", measured.backend),
        ("--threads", measured.threads),
        ("--source", None if profile.frames == "golden" else profile.frames),
        ("--rate", None if measured.rate_hz is None else f"{measured.rate_hz:g}"),
        ("--streams", measured.streams),
        ("--runs", runs),
        ("--processes", processes if processes > 1 else None),
    ]
    words = ["edgekit", "profile", profile.bundle]
    words += [str(word) for pair in options if pair[1] is not None for word in pair]
    return shlex.join(words + (["--details"] if measured.operators is not None else []))
