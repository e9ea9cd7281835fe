"""A profile as GitHub-flavoured Markdown: what a pull request shows of it."""

from __future__ import annotations

import re

from edgekit.profiling.results import LatencyProfile, Profile
from edgekit.profiling.wording import (
    best_of,
    by_p50,
    configuration,
    decimals,
    doubts,
    findings_lines,
    quotable,
    reproduce_line,
    scenario_name,
)

_MOST_FINDINGS = 20
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def profile_markdown(profile: Profile) -> str:
    """Return verdict, table, findings and the line that measures it again; it ends with a newline.

    Args:
        profile: with at least one configuration.
    """
    best = best_of(profile)
    lines = [f"### Latency of {escape(profile.bundle)}", "", _verdict(profile, best), ""]
    header = ("configuration", "p50 ms", "95 %", "p90 ms", "p99 ms", "frames/s", "CPU ms", "trust")
    lines += [_row(header), _row(["---", *["---:"] * (len(header) - 2), "---"])]
    lines += [_row(_cells(p)) for p in by_p50(profile)]
    found = findings_lines(profile)
    lines += ["", *(f"- {escape(line)}" for line in found[:_MOST_FINDINGS])]
    if len(found) > _MOST_FINDINGS:
        lines.append(f"- … and {len(found) - _MOST_FINDINGS} more findings")
    lines += [
        f"- {escape(f'left out: {name}: {reason}')}" for name, reason in profile.left_out.items()
    ]
    again = reproduce_line(profile, best)
    if again:
        lines += [
            *([""] if lines[-1] else []),
            "Measure it again:",
            "",
            "```sh",
            again.replace("\n", " "),
            "```",
        ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Return `text` on one line, with what Markdown or HTML would read as marks taken literally."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _verdict(profile: Profile, best: LatencyProfile) -> str:
    sentence = escape(quotable(profile, best))
    if best.is_trusted:
        return f"**{sentence}**"
    codes = ", ".join(finding.code for finding in doubts(best))
    return f"**Do not quote this figure ({escape(codes)}):** {sentence}"


def _cells(measured: LatencyProfile) -> list[str]:
    times, interval = measured.latency_ms, measured.intervals_ms.get("p50")
    codes = ", ".join(finding.code for finding in doubts(measured))
    spread = ""
    if interval is not None:
        low, high = (decimals(end, times.p50, interval) for end in (interval.low, interval.high))
        spread = f"{low} to {high}"
    return [
        escape(f"{configuration(measured)}; {scenario_name(measured)}"),
        decimals(times.p50, times.p50, interval),
        spread,
        f"{times.p90:.3f}",
        f"{times.p99:.3f}",
        f"{measured.throughput_fps:,.0f}",
        f"{measured.cpu_ms:.3f}",
        f"doubt: {escape(codes)}" if codes else "yes",
    ]


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
