"""Latency of a bundle: warm-up until steady, then percentiles of many runs."""

from __future__ import annotations

import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle import Bundle, read_bundle
from edgekit.errors import UsageError
from edgekit.profiling.environment import environment
from edgekit.profiling.results import Block, LatencyProfile, Profile
from edgekit.runtime.camera import Source, without_secrets
from edgekit.runtime.model import Frame, Model, open_model
from edgekit.runtime.preprocess import readings_of
from edgekit.runtime.run import run
from edgekit.runtime.statistics import Samples
from edgekit.runtime.stream import Result

_BLOCK = 10
_STEADY_BLOCKS = 3
_STEADY_WITHIN = 0.05
_LEAST_WARM_UP_S, _MOST_WARM_UP_S = 0.2, 10.0

OnProgress = Callable[[str, int, int], None]


def profile(
    model: Model | Bundle | str | Path,
    *,
    backend: str | None = None,
    threads: Sequence[int] | None = None,
    source: Source | None = None,
    sinks: Sequence[str] = (),
    duration_s: float = 3.0,
    runs: int | None = None,
    on_progress: OnProgress | None = None,
) -> Profile:
    """Measure the latency of a bundle on this machine: `edgekit.profile`.

    The latency is one frame's preprocess + infer + postprocess. Frames are the bundle's golden
    samples in turn; with `source` they are real ones, and capture and sinks are stages too.

    Args:
        model: an opened bundle (measured as it is), or a bundle's path.
        backend: as in `open_model`.
        threads: one profile for each number; by default the backend's own choice.
        source: frames to measure on; see `open_camera`.
        sinks: only with `source`.
        duration_s: time to measure after the warm-up; a source that ends is measured to its end.
        runs: measure so many frames instead.
        on_progress: called with (configuration, done, total).

    Raises:
        UsageError: a duration, count or combination that makes no sense.
    """
    if not 0 < duration_s < 86400 or (runs is not None and runs < 1):
        raise UsageError(
            f"`duration` must be above 0 s and `runs` at least 1; got {duration_s}, {runs}"
        )
    if sinks and source is None:
        raise UsageError("`sink` needs `source`: without one there are no results to write")
    measure = _Measurement(source, sinks, duration_s, runs, on_progress)
    if isinstance(model, Model):
        if threads or backend:
            raise UsageError("`threads` and `backend` belong to opening; give the bundle's path")
        return _profile(model.bundle, source, [measure(model)])
    bundle = model if isinstance(model, Bundle) else read_bundle(model)
    profiles = []
    for number in threads or (None,):
        with open_model(bundle, backend=backend, threads=number) as opened:
            profiles.append(measure(opened))
    return _profile(bundle, source, profiles)


def _profile(bundle: Bundle, source: Source | None, profiles: Sequence[LatencyProfile]) -> Profile:
    manifest = bundle.manifest
    return Profile(
        bundle=str(bundle.path),
        bundle_sha256=manifest.files[manifest.model],
        frames="golden" if source is None else _name(source),
        environment=environment(),
        profiles=tuple(profiles),
    )


def _name(source: Source) -> str:
    return without_secrets(str(source)) if isinstance(source, str | Path | int) else "iterator"


class _Measurement:
    """Measures opened models, one after the other, in the same way."""

    def __init__(
        self,
        source: Source | None,
        sinks: Sequence[str],
        duration_s: float,
        runs: int | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._source, self._sinks = source, sinks
        self._duration_s, self._runs = duration_s, runs
        self._on_progress = on_progress or (lambda phase, done, total: None)

    def __call__(self, model: Model) -> LatencyProfile:
        frames = golden_frames(model)
        warm_up_runs, steady = warm_up(model, frames)
        latencies_ms = Samples()
        stages_ms = {stage: Samples() for stage in ("preprocess", "infer", "postprocess")}
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        if self._source is None:
            self._repeat(model, frames, latencies_ms, stages_ms)
            cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
            summaries = {name: samples.summary() for name, samples in stages_ms.items()}
        else:
            summary = run(
                model,
                self._source,
                self._sinks,
                max_frames=self._runs,
                live_s=None if self._runs else self._duration_s,
                on_result=lambda result: _add_result(result, latencies_ms),
            )
            cpu_s, wall_s, summaries = summary.cpu_s, summary.wall_s, summary.stages_ms
        count = latencies_ms.count
        summary_ms = latencies_ms.summary()
        return LatencyProfile(
            scenario="single-stream" if self._source is None else "camera",
            backend=model.backend_name,
            executes=model.backend.executes,
            threads=model.backend.threads,
            precision=model.bundle.manifest.precision,
            latency_ms=summary_ms,
            intervals_ms={},
            cpu_ms=1000 * cpu_s / count,
            throughput_fps=count / wall_s,
            stages_ms=summaries,
            peak_rss_mb=peak_rss_mb(),
            runs=count,
            warm_up_runs=warm_up_runs,
            steady=steady,
            blocks=(Block(latency_ms=summary_ms, runs=count, cpu_ms=1000 * cpu_s / count),),
            samples_ms=tuple(latencies_ms.values),
        )

    def _repeat(
        self,
        model: Model,
        frames: Iterator[Frame],
        latencies_ms: Samples,
        stages_ms: dict[str, Samples],
    ) -> None:
        clock = time.perf_counter_ns
        name = f"{model.backend_name}, {model.backend.threads} threads"
        end_ns = clock() + int(self._duration_s * 1e9)
        while (
            latencies_ms.count < self._runs
            if self._runs
            else clock() < end_ns or latencies_ms.count < _BLOCK
        ):
            frame = next(frames)
            start = clock()
            model.preprocess(frame)
            ready = clock()
            outputs = model.infer()
            inferred = clock()
            model.postprocess(frame, outputs)
            done = clock()
            latencies_ms.add((done - start) / 1e6)
            stages_ms["preprocess"].add((ready - start) / 1e6)
            stages_ms["infer"].add((inferred - ready) / 1e6)
            stages_ms["postprocess"].add((done - inferred) / 1e6)
            if latencies_ms.count % 100 == 0:
                self._on_progress(name, latencies_ms.count, self._runs or 0)


def warm_up(model: Callable[[Any], Any], frames: Iterator[Frame]) -> tuple[int, bool]:
    """Run until the medians of three blocks of ten runs lie within 5 %; at most 10 s.

    Returns:
        The number of runs, and whether the latency became steady.
    """
    medians: list[float] = []
    start_s = time.perf_counter()
    while True:
        block = []
        for frame in itertools.islice(frames, _BLOCK):
            before = time.perf_counter()
            model(frame)
            block.append(time.perf_counter() - before)
        medians.append(statistics.median(block))
        spent_s = time.perf_counter() - start_s
        recent = medians[-_STEADY_BLOCKS:]
        steady = len(recent) == _STEADY_BLOCKS and max(recent) <= (1 + _STEADY_WITHIN) * min(recent)
        if (steady and spent_s >= _LEAST_WARM_UP_S) or spent_s >= _MOST_WARM_UP_S:
            return _BLOCK * len(medians), steady


def golden_frames(model: Model) -> Iterator[Frame]:
    """Yield the bundle's golden samples again and again, as frames where it holds frames."""
    manifest = model.bundle.manifest
    kept: list[Frame] = []
    golden = model.bundle.golden()
    for sample in (
        itertools.chain(*(one.steps() for one in golden)) if manifest.streaming else golden
    ):
        if sample.frame is not None:
            kept.append(sample.frame)
            continue
        real = tuple(
            np.asarray(spec.dequantize(array), np.float32)
            for spec, array in zip(manifest.data_inputs, sample.inputs, strict=True)
        )
        real = (readings_of(model.bundle.manifest.preprocess, real[0]), *real[1:])
        kept.append(real if len(real) > 1 else real[0])
    return itertools.cycle(kept)


def _add_result(result: Result, latencies_ms: Samples) -> None:
    stages = (result.stages_ns[name] for name in ("preprocess", "infer", "postprocess"))
    latencies_ms.add(sum(stages) / 1e6)


def peak_rss_mb() -> float:
    """Return the most memory that this process has held, in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
