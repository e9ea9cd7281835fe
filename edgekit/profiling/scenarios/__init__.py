"""How frames come to the model, one file a scenario; the file's name is the scenario's.

The first ones are those of MLPerf Inference (Reddi et al. 2020, ISCA, 446-459). A module here has
`PERCENTILE`, the one that the scenario is judged by, `STAGES`, the names of a run's stages, and
`measure(work, recording)`, which adds one `Run` a run until `work.until` is over. With `IS_COLD`
nothing is warmed up before.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from edgekit.profiling.recording import Recording, Run, Until
from edgekit.runtime.camera import Source
from edgekit.runtime.model import Frame, Model

STAGES = ("preprocess", "infer", "postprocess")

_READINGS = 200


@dataclass
class Work:
    """What is measured, and on what clock.

    Attributes:
        model: opened and warm.
        frames: never end.
        until: when the measurement ends.
        source, sinks: of scenario camera.
        rate_hz: of scenario paced.
        streams: of scenario multi-stream.
        on_run: told how many runs are done.
        clock_ns: monotonic, nanoseconds.
        cpu_ns: CPU time of the process, nanoseconds.
        sleep: waits so many seconds of `clock_ns`.
    """

    model: Model
    frames: Iterator[Frame]
    until: Until
    source: Source | None = None
    sinks: Sequence[str] = ()
    rate_hz: float = 30.0
    streams: int = 8
    on_run: Callable[[int], None] = field(default=lambda count: None)
    clock_ns: Callable[[], int] = time.perf_counter_ns
    cpu_ns: Callable[[], int] = time.process_time_ns
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        """Measure what a reading of the clock takes."""
        readings_ns = [self.clock_ns() for _ in range(_READINGS)]
        steps_ns = [after - before for before, after in itertools.pairwise(readings_ns)]
        self._reading_ns = min(steps_ns)

    def run_once(self, frame: Frame) -> tuple[int, int, int, int]:
        """Run one frame; return when it began, was preprocessed, was inferred and was decoded.

        The two readings of the clock between the stages are no work of the model's: what they take
        is taken off (0.2 µs in all, 1.4 % of the smallest models' latency).
        """
        model, clock_ns, reading_ns = self.model, self.clock_ns, self._reading_ns
        start_ns = clock_ns()
        model.preprocess(frame)
        ready_ns = clock_ns()
        outputs = model.infer()
        inferred_ns = clock_ns()
        model.postprocess(frame, outputs)
        done_ns = clock_ns()
        return start_ns, ready_ns, inferred_ns - reading_ns, done_ns - 2 * reading_ns

    def record(
        self,
        recording: Recording,
        times_ns: tuple[int, int, int, int],
        cpu_ns: int,
        age_ns: int | None = None,
    ) -> None:
        """Add the run that `run_once` told of."""
        start_ns, ready_ns, inferred_ns, done_ns = times_ns
        stages_ns = (ready_ns - start_ns, inferred_ns - ready_ns, done_ns - inferred_ns)
        recording.add(Run(start_ns, stages_ns, done_ns - start_ns, cpu_ns, age_ns))
        self.record_gpu(recording)
        if recording.count % 64 == 0:
            self.on_run(recording.count)

    def record_gpu(self, recording: Recording) -> None:
        """Add what the GPU's own clock says of the model's last run, where there is one."""
        gpu = getattr(self.model.backend, "last_times_ms", None)
        if gpu is not None:
            recording.add_gpu(gpu_compute=gpu.compute_ms, gpu_with_transfers=gpu.total_ms)
