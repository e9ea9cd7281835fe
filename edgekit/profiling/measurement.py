"""One configuration's figures: warm up, choose a length, measure, and say what to think of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from edgekit import plugins
from edgekit.profiling.device import Recorder
from edgekit.profiling.frames import golden_frames
from edgekit.profiling.pressure import PressureMeter
from edgekit.profiling.quantiles import fewest_runs, percentile_interval, runs_needed
from edgekit.profiling.recording import Recording, Until, summary_of
from edgekit.profiling.results import (
    Block,
    Cost,
    Finding,
    LatencyProfile,
    Moment,
    Pressure,
)
from edgekit.profiling.rss import peak_rss_mb
from edgekit.profiling.scenarios import Work
from edgekit.profiling.trust import Observed, examine
from edgekit.profiling.warm_up import WarmUp, warm_up
from edgekit.runtime.camera import Source
from edgekit.runtime.model import Model

OnProgress = Callable[[str, int, int], None]

_PERCENTILES = (50, 90, 99)
_PILOT_S = 0.3
_LEAST_S, _MOST_S = 2.0, 10.0
_MOST_FOR_AN_INTERVAL_S = 15.0
_SOURCE_S = 13.0  # at 30 frames a second p99 has an interval then
_FEWEST_RUNS = 10
_COLD_STARTS = 10


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; see `edgekit.profile`."""

    scenario: str
    source: Source | None = None
    sinks: tuple[str, ...] = ()
    rate_hz: float = 30.0
    streams: int = 8
    duration_s: float | None = None
    runs: int | None = None
    within: float = 0.02
    processes: int = 1
    details: bool = False


class Measurement:
    """Measures opened models, one after the other, in the same way."""

    def __init__(self, settings: Settings, cost: Cost | None, on_progress: OnProgress) -> None:
        self._settings, self._cost = settings, cost
        self._scenario = plugins.load("scenario", settings.scenario.replace("-", "_"))
        self._is_cold = getattr(self._scenario, "IS_COLD", False)
        self._on_progress = on_progress

    def __call__(self, model: Model) -> LatencyProfile:
        """Return the figures of `model`, an opened bundle."""
        settings = self._settings
        measured = self._in_processes(model) if settings.processes > 1 else self._here(model)
        return self._detailed(model, measured) if settings.details else measured

    def _here(self, model: Model) -> LatencyProfile:
        settings = self._settings
        threads = model.backend.threads
        name = f"{model.backend_name}, {threads} thread{'s' if threads > 1 else ''}"
        recording, meter = Recording(self._scenario.STAGES), PressureMeter()
        with Recorder() as recorder:
            recorder.rest()
            if self._is_cold:
                warm = WarmUp(runs=0, steady=True, seconds=0.0, latest_ms=np.empty(0))
                runs = settings.runs or (None if settings.duration_s else _COLD_STARTS)
                until = Until(runs, settings.duration_s)
            else:
                self._on_progress(f"{name}: warming up", 0, 0)
                frames = golden_frames(model)
                warm = warm_up(lambda: model(next(frames)))
                until = self._until(model, warm)
            work = self._work(model, until)
            work.on_run = lambda count: self._on_progress(name, count, until.runs or 0)
            meter.start()
            self._scenario.measure(work, recording)
            pressure, end_s = meter.stop(), time.perf_counter()
        since_s = recording.first_start_ns / 1e9
        a_run = settings.streams if settings.scenario == "multi-stream" else 1
        measured = self._figures(model, recording, warm, pressure, recorder.moments(since_s))
        unread = [
            Finding(
                code="telemetry-unread",
                is_doubt=False,
                message=f"{reader} tells nothing of power, heat or clocks here: {reason}",
            )
            for reader, reason in recorder.refusals.items()
        ]
        return msgspec.structs.replace(
            measured,
            energy=recorder.energy(since_s, end_s, a_run * recording.count),
            findings=(*measured.findings, *unread),
        )

    def _work(self, model: Model, until: Until) -> Work:
        settings = self._settings
        return Work(
            model=model,
            frames=golden_frames(model),
            until=until,
            source=settings.source,
            sinks=settings.sinks,
            rate_hz=settings.rate_hz,
            streams=settings.streams,
        )

    def _until(self, model: Model, warm: WarmUp) -> Until:
        """Return when to stop: what was asked for, or what a pilot says.

        The length is fixed before the measurement begins, by runs that do not count: to look at
        the interval in between and stop when it is narrow would make it too narrow (Stein 1945,
        Annals of Mathematical Statistics 16, 243-258).
        """
        settings = self._settings
        if settings.runs is not None:
            return Until(settings.runs, settings.duration_s)
        if settings.duration_s is not None or settings.source is not None:
            return Until(None, settings.duration_s or _SOURCE_S)
        if settings.scenario == "paced" and settings.rate_hz * _MOST_S <= _FEWEST_RUNS:
            return Until(_FEWEST_RUNS, None)  # a pilot would take as long
        if settings.scenario == "single-stream":
            pilot_ms = warm.latest_ms
            period_s = float(pilot_ms.mean()) / 1000
        else:
            pilot = Recording(self._scenario.STAGES)
            self._scenario.measure(self._work(model, Until(None, _PILOT_S)), pilot)
            pilot_ms = pilot.latencies_ms
            period_s = float(np.ptp(pilot.starts_s)) / (pilot.count - 1) or pilot.mean_ms / 1000
        percentile = self._scenario.PERCENTILE
        needed = runs_needed(pilot_ms, percentile, settings.within)
        return Until(runs_in_time(period_s, needed, fewest_runs(percentile)), None)

    def _figures(
        self,
        model: Model,
        recording: Recording,
        warm: WarmUp,
        pressure: Pressure,
        moments: tuple[Moment, ...],
    ) -> LatencyProfile:
        settings, name = self._settings, self._settings.scenario
        latency_ms, latencies_ms = recording.latency_summary(), recording.latencies_ms
        starts_s = recording.starts_s
        ages_ms = recording.ages_ms
        a_run = settings.streams if name == "multi-stream" else 1
        # Between runs that come one after the other the profile itself works: that is left out.
        wall_s = recording.wall_s or recording.mean_ms / 1000 * recording.count
        rate_hz = settings.rate_hz if name == "paced" else None
        observed = Observed(
            latencies_ms=latencies_ms,
            starts_s=starts_s,
            cpu_ms=recording.cpu_ms,
            pressure=pressure,
            telemetry=moments,
            steady=warm.steady,
            threads=model.backend.threads,
            rate_hz=rate_hz,
            percentile=self._scenario.PERCENTILE,
            runs=recording.count,
            dropped=sum(recording.drops.values()),
        )
        return LatencyProfile(
            scenario=name,
            backend=model.backend_name,
            executes=model.backend.executes,
            threads=model.backend.threads,
            precision=model.bundle.manifest.precision,
            latency_ms=latency_ms,
            intervals_ms={
                f"p{percent}": percentile_interval(latencies_ms, percent)
                for percent in _PERCENTILES
            },
            cpu_ms=recording.cpu_mean_ms / a_run,
            throughput_fps=a_run * recording.count / wall_s,
            stages_ms=recording.stage_summaries(),
            peak_rss_mb=peak_rss_mb(),
            runs=recording.count,
            warm_up_runs=warm.runs,
            steady=warm.steady,
            findings=examine(observed),
            blocks=(
                Block(latency_ms=latency_ms, runs=recording.count, cpu_ms=recording.cpu_mean_ms),
            ),
            rate_hz=rate_hz,
            streams=settings.streams if name == "multi-stream" else None,
            age_ms=summary_of(ages_ms) if ages_ms.size else None,
            drops=recording.drops,
            pressure=pressure,
            telemetry=moments,
            samples_ms=tuple(latencies_ms.tolist()),
            starts_s=tuple(starts_s.tolist()),
            stage_samples_ms={
                stage: tuple(recording.stage_ms(stage).tolist()) for stage in recording.stages
            },
        )

    def _in_processes(self, model: Model) -> LatencyProfile:
        """Measure in fresh processes: figures differ from one to the next more than within one."""
        from edgekit.profiling.fresh import blocks
        from edgekit.profiling.processes import merged

        settings = self._settings
        request: dict[str, Any] = {
            "model": model.bundle.path,
            "backend": model.backend_name,
            "threads": [model.backend.threads],
            "scenario": settings.scenario,
            "source": settings.source,
            "rate_hz": settings.rate_hz,
            "streams": settings.streams,
            "duration_s": settings.duration_s,
            "runs": settings.runs,
            "within": settings.within,
        }
        return merged(blocks(request, settings.processes, on_progress=self._on_progress))

    def _detailed(self, model: Model, measured: LatencyProfile) -> LatencyProfile:
        """Add what takes further measurements."""
        from edgekit.profiling.fresh import cold_start
        from edgekit.profiling.fresh import memory as memory_of
        from edgekit.profiling.operators import operators_of
        from edgekit.profiling.roofline import measure_roofline

        name, threads = model.backend_name, model.backend.threads
        self._on_progress(f"{name}: roofline", 0, 0)
        roofline = measure_roofline(
            name, model.bundle.manifest.precision, threads, self._on_progress
        )
        self._on_progress(f"{name}: operators", 0, 0)
        operators = operators_of(model, cost=self._cost, roofline=roofline)
        self._on_progress(f"{name}: memory and start of a fresh process", 0, 0)
        memory = memory_of(model.bundle.path, name, threads)
        if memory.arena_mb is None and self._cost is not None:
            memory = msgspec.structs.replace(memory, arena_mb=self._cost.activations_bytes / 1e6)
        return msgspec.structs.replace(
            measured,
            roofline=roofline,
            operators=operators,
            memory=memory,
            cold_start=None if self._is_cold else cold_start(model.bundle.path, name, threads),
        )


def runs_in_time(period_s: float, needed: int, fewest: int) -> int:
    """Return how many runs to measure.

    Args:
        period_s: from the beginning of one run to that of the next.
        needed: runs for an interval as narrow as was asked for: as many as 2 to 10 s hold.
        fewest: runs for any interval; they may take 15 s, because a figure without one is in doubt.

    >>> runs_in_time(1 / 30, 5000, 368), runs_in_time(1, 5000, 368), runs_in_time(0.001, 40, 36)
    (368, 10, 2000)
    """
    seconds = min(max(needed * period_s, _LEAST_S), _MOST_S)
    runs = max(_FEWEST_RUNS, math.ceil(seconds / period_s))
    return max(runs, fewest) if fewest * period_s <= _MOST_FOR_AN_INTERVAL_S else runs
