"""The board as Prometheus reads it: its text exposition format 0.0.4."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(status: dict[str, Any], telemetry: dict[str, Any]) -> str:
    """Return the metrics.

    Args:
        status: as `Board.status` gives it.
        telemetry: as `Telemetry.read` gives it.
    """
    lines: list[str] = []
    sources = status["sources"]
    _add(lines, "edgekit_up_seconds", "gauge", "since the page was opened", [("", status["up_s"])])
    _add(
        lines,
        "edgekit_source_live",
        "gauge",
        "1 where results come, 0 where the source is lost or stalled",
        [(_labels(source=s["source"]), int(s["health"] == "live")) for s in sources],
    )
    _add(
        lines,
        "edgekit_frames_total",
        "counter",
        "results delivered",
        [(_labels(source=s["source"]), s["frames"]) for s in sources],
    )
    _add(
        lines,
        "edgekit_frames_dropped_total",
        "counter",
        "frames captured that got no result",
        [
            (_labels(source=s["source"], reason=reason), count)
            for s in sources
            for reason, count in s["dropped"].items()
        ],
    )
    for key, text in (
        ("age", "from the capture of a frame to its result"),
        ("latency", "preprocessing, inference and postprocessing of a frame"),
    ):
        _add(lines, f"edgekit_{key}_seconds", "histogram", text, _buckets(status, key))
    for name, unit, key in (
        ("edgekit_temperature_celsius", 1, "temperature_c"),
        ("edgekit_power_watts", 1e-3, "power_mw"),
        ("edgekit_clock_hertz", 1e6, "clocks_mhz"),
    ):
        values = [(_labels(sensor=n), v * unit) for n, v in telemetry.get(key, {}).items()]
        _add(lines, name, "gauge", "as the device says it", values)
    return "".join(f"{line}\n" for line in lines)


def _add(
    lines: list[str], name: str, kind: str, text: str, samples: list[tuple[str, float]]
) -> None:
    if not samples:
        return
    lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        suffix, _, inner = labels.partition("{") if labels.startswith("_") else ("", "", "")
        shown = f"{{{inner}" if suffix else labels
        lines.append(f"{name}{suffix}{shown} {value:.12g}")


def _buckets(status: dict[str, Any], key: str) -> list[tuple[str, float]]:
    samples: list[tuple[str, float]] = []
    bounds = [f"{bound / 1000:g}" for bound in status["bounds_ms"]] + ["+Inf"]
    for source in status["sources"]:
        counts = list(accumulate(source[key]["counts"]))
        for bound, count in zip(bounds, counts, strict=True):
            samples.append(("_bucket" + _labels(source=source["source"], le=bound), count))
        labels = _labels(source=source["source"])
        samples.append((f"_sum{labels}", source[key]["sum_ms"] / 1000))
        samples.append((f"_count{labels}", counts[-1]))
    return samples


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(v)}"' for name, v in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
