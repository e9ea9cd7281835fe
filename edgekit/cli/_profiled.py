"""A profile on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.cli._output import note, print_table

if TYPE_CHECKING:
    from edgekit.profiling.results import LatencyProfile, Profile

_MOST_OPERATORS = 10


def print_profile(measured: Profile, json: str | None) -> None:
    """Print tables, and what is to be known of the figures on standard error.

    Args:
        measured: of one bundle.
        json: where JSON goes; the tables leave standard output to it.
    """
    from edgekit.profiling.wording import configuration, findings_lines, scenario_name

    columns = ("", "p50 ms", "95 %", "p90 ms", "p99 ms", "CPU ms", "per s", "peak MB", "runs")
    scenarios = list(dict.fromkeys(scenario_name(p) for p in measured.profiles))
    # Of several scenarios, which only --resume can bring together, the table tells which is whose.
    several = len(scenarios) > 1
    names = [
        f"{configuration(p)}, {scenario_name(p)}" if several else configuration(p)
        for p in measured.profiles
    ]
    rows = [(name, *_figures(p)) for name, p in zip(names, measured.profiles, strict=True)]
    print_table(f"latency of {measured.bundle}, {'; '.join(scenarios)}", columns, rows, json)
    for name, p in zip(names, measured.profiles, strict=True):
        if p.age_ms is not None:
            age = f"age at the result p50 {p.age_ms.p50:.3f}, p99 {p.age_ms.p99:.3f} ms"
            note(f"{name}: {age}; {sum(p.drops.values())} frames dropped")
        _print_details(name, p, json)
    for line in findings_lines(measured):
        note(line)
    for name, reason in measured.left_out.items():
        note(f"note: {name} is left out: {reason}")


def _figures(p: LatencyProfile) -> tuple[str, ...]:
    times, interval = p.latency_ms, p.intervals_ms.get("p50")
    return (
        f"{times.p50:.3f}",
        "" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}",
        f"{times.p90:.3f}",
        f"{times.p99:.3f}",
        f"{p.cpu_ms:.3f}",
        f"{p.throughput_fps:.0f}",
        f"{(p.memory.peak_rss_mb if p.memory else p.peak_rss_mb):.0f}",
        str(p.runs),
    )


def _print_details(name: str, p: LatencyProfile, json: str | None) -> None:
    if p.cold_start is not None:
        cold = p.cold_start
        note(
            f"{name}: from nothing to the first result {cold.total_ms:.0f} ms: import "
            f"{cold.import_ms:.0f}, open {cold.open_ms:.0f}, first inference {cold.first_ms:.1f}"
        )
    if p.energy is not None:
        note(
            f"{name}: {p.energy.joules_per_inference:.4f} J an inference, "
            f"{p.energy.mean_power_w:.1f} W on {p.energy.rail}"
        )
    if p.operators is None:
        return
    if p.operators.operators:
        slowest = sorted(p.operators.operators, key=lambda o: -o.ms)[:_MOST_OPERATORS]
        rows = [
            (
                o.name,
                f"{o.ms:.3f}",
                f"{o.share:.1%}",
                "x".join(map(str, o.shape or ())),
                "" if o.gflops is None else f"{o.gflops:.1f}",
                o.bound,
            )
            for o in slowest
        ]
        columns = ("", "ms", "share", "shape", "GFLOP/s", "bound by")
        total = len(p.operators.operators)
        print_table(f"slowest of {total} operators, {name}", columns, rows, json)
    if p.operators.note:
        note(f"note: {name}: {p.operators.note}")
