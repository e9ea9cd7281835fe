"""What a run has done so far, in constant memory: written by the pipeline, read by the web page."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from edgekit.runtime.events import (
    Event,
    FrameDropped,
    SinkLost,
    SourceBack,
    SourceFailed,
    SourceLost,
)
from edgekit.runtime.overlay import History
from edgekit.runtime.stream import Result

BOUNDS_MS = (
    0.5,
    1,
    2,
    3,
    5,
    7.5,
    10,
    15,
    20,
    30,
    50,
    75,
    100,
    150,
    200,
    300,
    500,
    1000,
    2000,
    5000,
)
"""Upper bounds of the histograms' buckets; one more bucket is beyond the last."""

LIVE_S = 5.0
"""A source without a result for so long counts as stalled."""

_COMPUTING = ("preprocess", "infer", "postprocess")
_RATE_WINDOW_S = 2.0


class Histogram:
    """Counts of milliseconds between `BOUNDS_MS`, since the start."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_MS) + 1)
        self.sum_ms = 0.0
        self.max_ms = 0.0

    def add(self, value_ms: float) -> None:
        """Take one measurement."""
        self.counts[bisect_left(BOUNDS_MS, value_ms)] += 1
        self.sum_ms += value_ms
        self.max_ms = max(self.max_ms, value_ms)

    def quantile(self, share: float) -> float:
        """Return a bound in ms that at least `share` of the measurements do not exceed."""
        wanted, seen = share * sum(self.counts), 0
        for bound, count in zip(BOUNDS_MS, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return min(bound, self.max_ms)
        return self.max_ms

    def as_json(self) -> dict[str, Any]:
        """Return counts and quantiles for the page."""
        return {
            "counts": list(self.counts),
            "p50_ms": self.quantile(0.5),
            "p99_ms": self.quantile(0.99),
            "max_ms": self.max_ms,
            "sum_ms": self.sum_ms,
        }


class Channel:
    """One source's part of the board."""

    def __init__(self) -> None:
        self.newest: Result | None = None
        self.history = History()
        self.newest_ns = 0
        self.frames = 0
        self.dropped: Counter[str] = Counter()
        self.age = Histogram()
        self.latency = Histogram()
        self.lost = ""
        self.fps = 0.0
        self._window_ns = 0
        self._window_frames = 0

    def add(self, result: Result, now_ns: int) -> None:
        """Take one result."""
        if self.newest is None:
            self._window_ns = now_ns
        else:
            self._window_frames += 1
        self.newest, self.newest_ns = result, now_ns
        self.history.add(result)
        self.frames += 1
        self.age.add(result.age_ms)
        self.latency.add(sum(result.stages_ns.get(name, 0) for name in _COMPUTING) / 1e6)
        elapsed_s = (now_ns - self._window_ns) / 1e9
        if elapsed_s >= _RATE_WINDOW_S or (not self.fps and self._window_frames):
            self.fps = self._window_frames / elapsed_s if elapsed_s else 0.0
        if elapsed_s >= _RATE_WINDOW_S:
            self._window_ns, self._window_frames = now_ns, 0

    def health(self, now_ns: int) -> str:
        """Return ``starting``, ``live``, ``stalled`` or ``lost``."""
        if self.lost:
            return "lost"
        if self.newest is None:
            return "starting"
        return "live" if now_ns - self.newest_ns <= LIVE_S * 1e9 else "stalled"


class Board:
    """All sources of a run.

    Args:
        clock_ns: monotonic; `time.monotonic_ns` but in tests.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._channels: dict[str, Channel] = {}
        self._started_ns = clock_ns()

    def begin(self, sources: Sequence[str]) -> None:
        """Take the names of all sources, in their order: also one that gives nothing counts."""
        with self._lock:
            for name in sources:
                self._channel(name)

    def result(self, result: Result) -> None:
        """Take a result: some microseconds, whoever is looking."""
        with self._lock:
            self._channel(_source_of(result)).add(result, self._clock_ns())

    def event(self, event: Event) -> None:
        """Take what else happens to a source."""
        if isinstance(event, SinkLost):
            return
        with self._lock:
            channel = self._channel(_source_of(event))
            if isinstance(event, FrameDropped):
                channel.dropped[event.reason] += 1
            elif isinstance(event, SourceLost | SourceFailed):
                channel.lost = event.detail
            elif isinstance(event, SourceBack):
                channel.lost = ""

    def newest(self, number: int) -> tuple[Result, History] | None:
        """Return a source's newest result and what came before, by the source's number."""
        with self._lock:
            channels = list(self._channels.values())
            if not 0 <= number < len(channels):
                return None
            channel = channels[number]
            return None if channel.newest is None else (channel.newest, channel.history.copy())

    def status(self) -> dict[str, Any]:
        """Return all figures; `docs/json.md` describes the keys."""
        with self._lock:
            now_ns = self._clock_ns()
            sources = [
                {
                    "source": name,
                    "health": channel.health(now_ns),
                    "detail": channel.lost,
                    "frames": channel.frames,
                    "fps": channel.fps,
                    "dropped": dict(channel.dropped),
                    "age": channel.age.as_json(),
                    "latency": channel.latency.as_json(),
                }
                for name, channel in self._channels.items()
            ]
            healthy = bool(sources) and all(s["health"] == "live" for s in sources)
            return {
                "healthy": healthy,
                "up_s": (now_ns - self._started_ns) / 1e9,
                "bounds_ms": list(BOUNDS_MS),
                "sources": sources,
            }

    def _channel(self, name: str) -> Channel:
        return self._channels.setdefault(name, Channel())


def _source_of(thing: Result | Event) -> str:
    return str(getattr(thing, "source", ""))
