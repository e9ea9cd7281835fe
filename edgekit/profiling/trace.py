"""A profile on a time axis, for https://ui.perfetto.dev and chrome://tracing.

Written is the JSON object form of the Trace Event Format:
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from edgekit import atomic
from edgekit.profiling.results import LatencyProfile, Moment, Operator, Profile

_MEANS, _OPERATORS, _RUNS = 1, 2, 3  # threads; runs that overlap take the numbers after
_GAUGES = (
    ("power_mw", "power", "mW"),
    ("temperature_c", "temperature", "°C"),
    ("clocks_mhz", "clock", "MHz"),
)

Event = dict[str, Any]


def write_trace(profile: Profile, path: Path) -> None:
    """Write a profile as a trace: a process for each configuration.

    Its threads hold the measured runs and their stages at the time they began, the stages of a
    mean run, and the operators of a mean inference end to end; its counters are the telemetry.

    Args:
        profile: with `LatencyProfile.starts_s` and `samples_ms` for the runs, with `operators`
            and `telemetry` for the rest; what is not there is left out.
        path: of the file, ``.json``.

    Raises:
        OutputError: the place cannot be written.
    """
    atomic.write_file(path, json.dumps(trace(profile), allow_nan=False).encode())


def trace(profile: Profile) -> dict[str, Any]:
    """Return what `write_trace` writes; times are in µs since the earliest event."""
    events = [
        event
        for number, measured in enumerate(profile.profiles, start=1)
        for event in _configuration(number, measured)
    ]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "bundle": profile.bundle,
            "bundle_sha256": profile.bundle_sha256,
            "frames": profile.frames,
            **profile.environment,
        },
    }


def _configuration(number: int, measured: LatencyProfile) -> Iterator[Event]:
    """Yield the events of one configuration, all in process `number`."""
    threads = f"{measured.threads} thread" + ("s" if measured.threads > 1 else "")
    name = f"{measured.scenario}: {measured.backend}, {measured.precision}, {threads}"
    yield _named(number, 0, "process_name", name)
    found = [*_runs(measured), *_means(measured), *_operators(measured), *_telemetry(measured)]
    # Telemetry may begin before the first run, and viewers take no time before 0.
    begin_us = min((event["ts"] for event in found), default=0.0)
    threads_used = {event["tid"]: event["cat"] for event in found if event["ph"] == "X"}
    for thread, title in sorted(threads_used.items()):
        yield _named(number, thread, "thread_name", title)
    for event in found:
        yield {**event, "pid": number, "ts": round(event["ts"] - begin_us, 3)}


def _named(process: int, thread: int, what: str, name: str) -> Event:
    return {"ph": "M", "pid": process, "tid": thread, "name": what, "args": {"name": name}}


def _slice(
    name: str,
    thread: int,
    title: str,
    start_us: float,
    ms: float,
    told: Mapping[str, Any] = MappingProxyType({}),
) -> Event:
    """Return a stretch of time; `title` names its thread."""
    return {
        "ph": "X",
        "name": name,
        "cat": title,
        "tid": thread,
        "ts": start_us,
        "dur": round(1e3 * ms, 3),
        "args": dict(told),
    }


def _runs(measured: LatencyProfile) -> Iterator[Event]:
    """Yield the measured runs and, where they were kept, the stages of each.

    Runs that overlap, as in several streams, get threads of their own: slices of one thread must
    lie within or beside each other.
    """
    free_us: list[float] = []  # when each of these threads has ended its last run
    # Of scenarios that keep none of these both are empty.
    runs = zip(measured.starts_s, measured.samples_ms, strict=False)
    for number, (start_s, ms) in enumerate(runs):
        start_us = round(1e6 * start_s, 3)
        lane = next((i for i, end in enumerate(free_us) if end <= start_us), len(free_us))
        free_us[lane : lane + 1] = [start_us + round(1e3 * ms, 3)]
        title = "runs" if lane == 0 else f"runs that overlap, {lane + 1}"
        yield _slice("run", _RUNS + lane, title, start_us, ms, {"number": number})
        stages = {name: values[number] for name, values in measured.stage_samples_ms.items()}
        if sum(stages.values()) <= ms + 1e-6:  # else they are not of the run alone
            yield from _end_to_end(stages, _RUNS + lane, title, start_us)


def _means(measured: LatencyProfile) -> Iterator[Event]:
    means = {name: stage.mean for name, stage in measured.stages_ms.items()}
    return _end_to_end(means, _MEANS, "stages of a mean run", 0.0)


def _end_to_end(
    stages_ms: Mapping[str, float], thread: int, title: str, start_us: float
) -> Iterator[Event]:
    for name, ms in stages_ms.items():
        yield _slice(name, thread, title, start_us, ms)
        start_us += round(1e3 * ms, 3)


def _operators(measured: LatencyProfile) -> Iterator[Event]:
    if measured.operators is None:
        return
    start_us = 0.0
    title = "operators of a mean inference"
    for operator in measured.operators.operators:
        name = operator.layer or operator.name
        yield _slice(name, _OPERATORS, title, start_us, operator.ms, _told(operator))
        start_us += round(1e3 * operator.ms, 3)


def _told(operator: Operator) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(operator)
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _telemetry(measured: LatencyProfile) -> Iterator[Event]:
    before: tuple[str, ...] = ()
    for moment in measured.telemetry:
        yield from _counters(moment)
        if moment.throttled != before:
            before = moment.throttled
            name = f"throttled: {', '.join(before)}" if before else "no longer throttled"
            yield {
                "ph": "i",
                "name": name,
                "cat": "telemetry",
                "tid": 0,
                "ts": 1e6 * moment.at_s,
                "s": "p",
                "args": {},
            }


def _counters(moment: Moment) -> Iterator[Event]:
    for field, what, unit in _GAUGES:
        for name, value in getattr(moment, field).items():
            yield {
                "ph": "C",
                "name": f"{what}: {name} ({unit})",
                "cat": "telemetry",
                "tid": 0,
                "ts": 1e6 * moment.at_s,
                "args": {unit: value},
            }
