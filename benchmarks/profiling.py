"""What it costs to be measured: the latency that `edgekit profile` tells against a bare loop's.

Ours: the p50 of `edgekit.profile` of an opened bundle, with its stamps between the stages, CPU
times, telemetry and pressure counters.
Peer: the same opened bundle in a loop that reads the clock before and after each call, median. Both
take the same frames, in blocks in turns.

It must show: the p50 within 1 % of the bare loop's, for a small network and a large one.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

import edgekit
from benchmarks._measure import Effort, Row, Spread
from benchmarks._subjects import network, small_classifier
from edgekit.bundle import Bundle
from edgekit.profiling.frames import golden_frames
from edgekit.runtime.model import Model

_WITHIN = 1.0


def measure(effort: Effort) -> list[Row]:
    cv2.setNumThreads(1)
    rounds = {"tiny": 2, "normal": 40, "full": 120}[effort]
    with TemporaryDirectory() as folder:
        small = edgekit.convert(
            small_classifier("int8").path, Path(folder) / "small.edgekit", precision="int8"
        )
        rows = _compare("4 classes, int8", small, rounds)
    large = network("mobilenet_v2_int8") if effort != "tiny" else None
    if large is not None:
        rows += _compare(large.name, edgekit.read_bundle(large.path.parent), rounds)
    return rows


def _compare(name: str, bundle: Bundle, rounds: int) -> list[Row]:
    with edgekit.open(bundle, threads=1) as opened:
        ours_ms, bare_ms = np.empty(rounds), np.empty(rounds)
        runs = max(20, min(2000, int(200 / _bare_ms(opened, 20))))
        for turn in range(rounds):
            # Who begins changes: on a machine that gets slower the second one would look it.
            for place in (0, 1) if turn % 2 else (1, 0):
                if place:
                    ours_ms[turn] = edgekit.profile(opened, runs=runs).profiles[0].latency_ms.p50
                else:
                    bare_ms[turn] = _bare_ms(opened, runs)
    away = 100 * (ours_ms / bare_ms - 1)
    middle = abs(float(np.median(away)))
    return [
        Row(
            f"{name}: p50 told, away from the bare loop's",
            Spread(middle, middle, middle),
            "%",
            at_most=_WITHIN,
        ),
        Row(f"{name}: the same with its sign, by round", Spread.of(away), "%"),
    ]


def _bare_ms(model: Model, runs: int) -> float:
    frames = golden_frames(model)
    times_ms = []
    for _ in range(runs + runs // 5):
        frame = next(frames)
        start_ns = time.perf_counter_ns()
        model(frame)
        times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return statistics.median(times_ms[runs // 5 :])  # the first ones warm the caches
