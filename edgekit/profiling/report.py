"""A latency profile as a page for people."""

from __future__ import annotations

import re

from edgekit.profiling.latency_report import latency_sections
from edgekit.profiling.machine_report import cost_sections, filled, machine_sections
from edgekit.profiling.results import LatencyProfile, Profile
from edgekit.profiling.wording import (
    best_of,
    by_p50,
    configuration,
    decimals,
    doubts,
    headline,
    interval_text,
    quotable,
    reproduce_line,
    scenario_name,
)
from edgekit.reports import Fact, Fold, Report, Section, Spread, Spreads, Table, Text, Verdict
from edgekit.reports.axis import number

# Of each, a page holds all plots; 65,536 runs and 200 operators take 0.2 MB.
_MOST_DETAILED = 6


def profile_report(profile: Profile) -> Report:
    """Return the page of one bundle's profiles.

    What comes first is what may be quoted of the fastest configuration without doubts, or that
    there is none. Parts that were not measured leave no section.

    Args:
        profile: with at least one configuration.
    """
    best, *others = by_p50(profile)
    verdict, sentence, reasons = _verdict(profile)
    sections: list[Section] = []
    if others:
        sections += _comparison(profile)
    if profile.left_out:
        reasons_out = (f"{name}: {reason}" for name, reason in profile.left_out.items())
        sections.append(Text(title="Left out", text="\n".join(reasons_out)))
    sections += _configuration(best, several=bool(others))
    for measured in others[: _MOST_DETAILED - 1]:
        detailed = _configuration(measured, several=False)
        again = reproduce_line(profile, measured)
        if again:
            detailed.append(Text(title="Reproduce", text=again))
        title = f"Details: {_name(measured, profile)}"
        sections.append(Fold(title=title, sections=detailed))
    if profile.cost is not None:
        sections += cost_sections(profile.cost)
    return Report(
        title=f"Latency of {profile.bundle}",
        subtitle=_subtitle(profile),
        verdict=verdict,
        verdict_text=_unbroken(sentence),
        reasons=reasons,
        facts=_facts(best),
        sections=tuple(sections),
        reproduce=reproduce_line(profile, best),
        environment={
            **profile.environment,
            **{f"{name} (before)": value for name, value in profile.conditions.items()},
            "engine": best.executes,
            "frames": profile.frames,
            "model's SHA-256": profile.bundle_sha256,
        },
    )


def _verdict(profile: Profile) -> tuple[Verdict, str, tuple[str, ...]]:
    """Return the verdict, what may be quoted, and each doubt with what to do."""
    best = best_of(profile)
    found = [(p, finding) for p in by_p50(profile) for finding in doubts(p)]
    several = len(profile.profiles) > 1
    reasons = tuple(
        f"{_name(p, profile)}: {_ended(finding.message)}" if several else _sentence(finding.message)
        for p, finding in found
    )
    if not found:
        return "pass", quotable(profile, best), ()
    if best.is_trusted:
        count = sum(not p.is_trusted for p in profile.profiles)
        text = f"{quotable(profile, best)}\nDo not quote {count} of {len(profile.profiles)}:"
    elif several:
        text = f"Do not quote any of these figures. The fastest: {headline(best)}."
    else:
        text = f"Do not quote this figure: {headline(best)}."
    return "warn", text, reasons


def _sentence(message: str) -> str:
    # Not of "p99 is …": that is a name.
    return _ended(message[:1].upper() + message[1:] if message[:2].isalpha() else message)


def _ended(text: str) -> str:
    text = text.replace("`", "")  # marks of Markdown, which a page does not know
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _unbroken(text: str) -> str:
    """Return `text` with numbers that no line break parts from their unit."""
    return re.sub(r"(?<=\d) (?=(ms|%)\b|%:)", "\N{NO-BREAK SPACE}", text)


def _subtitle(profile: Profile) -> str:
    scenarios = sorted({scenario_name(p) for p in profile.profiles})
    frames = "golden frames" if profile.frames == "golden" else f"frames of {profile.frames}"
    if all(p.scenario == "cold-start" for p in profile.profiles):
        return "cold-start: from the start of a process to its first result"
    return f"{', '.join(scenarios)}; {frames}; one frame: preprocess + infer + postprocess"


def _name(measured: LatencyProfile, profile: Profile) -> str:
    """Return what tells this configuration from the others."""
    name = configuration(measured)
    scenarios = {scenario_name(p) for p in profile.profiles}
    return name if len(scenarios) == 1 else f"{name}; {scenario_name(measured)}"


def _facts(best: LatencyProfile) -> tuple[Fact, ...]:
    times = best.latency_ms
    facts = [
        Fact(
            name,
            decimals(value, value, best.intervals_ms.get(name)),
            "ms",
            _interval_hint(best, name, value),
        )
        for name, value in (("p50", times.p50), ("p90", times.p90), ("p99", times.p99))
    ]
    if best.age_ms is not None:
        facts.insert(0, Fact("age at the result", best.age_ms.p50, "ms", "p50"))
    is_cold = best.scenario == "cold-start"
    if not is_cold:
        facts += [
            Fact("throughput", number(best.throughput_fps, 3), "frames/s"),
            Fact("CPU time", best.cpu_ms, "ms", "a frame, all threads"),
        ]
    if best.memory is not None:
        hint = "most that a fresh process held"
        facts.append(Fact("peak memory", best.memory.peak_rss_mb, "MB", hint))
    else:
        facts.append(Fact("peak memory", best.peak_rss_mb, "MB", "this process, so far"))
    if best.energy is not None:
        joules = best.energy.joules_per_inference
        facts.append(Fact("energy", 1000 * joules, "mJ", "an inference, whole rail"))
    if best.cold_start is not None and not is_cold:
        hint = "from nothing to a result"
        facts.append(Fact("cold start", best.cold_start.total_ms, "ms", hint))
    return tuple(facts)


def _interval_hint(best: LatencyProfile, name: str, value: float) -> str:
    interval = best.intervals_ms.get(name)
    return (
        "too few runs for an interval"
        if interval is None
        else _unbroken(interval_text(value, interval))
    )


def _comparison(profile: Profile) -> list[Section]:
    """Return table and plot of all configurations, in the order of their latency."""
    ordered = sorted(profile.profiles, key=lambda p: p.latency_ms.p50)
    spreads = [
        Spread(
            _name(p, profile),
            p.latency_ms.p50,
            p.latency_ms.p90,
            p.latency_ms.p99,
            None if (i := p.intervals_ms.get("p50")) is None else (i.low, i.high),
        )
        for p in ordered
    ]
    columns = (
        *("configuration", "p50 ms", "p90 ms", "p99 ms", "frames/s", "CPU ms", "peak MB"),
        *("mJ", "in doubt"),
    )
    rows = [
        (
            _name(p, profile),
            p.latency_ms.p50,
            p.latency_ms.p90,
            p.latency_ms.p99,
            p.throughput_fps,
            p.cpu_ms,
            p.memory.peak_rss_mb if p.memory else p.peak_rss_mb,
            None if p.energy is None else 1000 * p.energy.joules_per_inference,
            ", ".join(finding.code for finding in doubts(p)),
        )
        for p in ordered
    ]
    rest = len(ordered) - _MOST_DETAILED
    note = f"Details of {rest:,} of them are left out to keep this page small." if rest > 0 else ""
    return [
        Spreads(title="Configurations", spreads=spreads, unit="ms"),
        filled(Table(columns=columns, rows=rows, decimals={"peak MB": 0}, note=note)),
    ]


def _configuration(measured: LatencyProfile, *, several: bool) -> list[Section]:
    """Return all sections of one configuration."""
    notes = [_sentence(f.message) for f in measured.findings if not f.is_doubt]
    sections = latency_sections(measured, configuration(measured) if several else "")
    if notes:
        sections.insert(0, Text(title="Also to be known", text="\n\n".join(notes)))
    return [*sections, *machine_sections(measured)]
