"""What each measured run took, in bounded memory, and when a measurement ends."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.runtime.statistics import Summary, summarize

MOST_KEPT = 1 << 17
"""Runs kept at most; of more, every second one is left out, then every second of the rest …"""


def kept_of(count: int, most_kept: int = MOST_KEPT) -> int:
    """Return how many of `count` runs a recording keeps."""
    every = 1
    while -(-count // every) >= most_kept:
        every *= 2
    return -(-count // every)


class Run(NamedTuple):
    """One run; times are in nanoseconds.

    Attributes:
        start_ns: when it began, on the measurement's clock.
        stages_ns: in the order of `Recording.stages`; one that is no work of the run comes first.
        latency_ns: from the frame in hand to the decoded result.
        cpu_ns: CPU time of the process meanwhile; None: not taken.
        age_ns: of the frame at its result; None: it was never captured.
    """

    start_ns: int
    stages_ns: Sequence[int]
    latency_ns: int
    cpu_ns: int | None = None
    age_ns: int | None = None


class Recording:
    """Runs in their order, spread over the whole measurement however long it is.

    Attributes:
        stages: names of the stages.
        count: runs so far.
        drops: frames that were not run, by reason.
        wall_s: of the measurement, where runs overlap or wait; None: they came one after the other.
        others_ms: stages that are not of each run, such as sinks.
    """

    def __init__(self, stages: Sequence[str], most_kept: int = MOST_KEPT) -> None:
        self.stages = tuple(stages)
        self.count = 0
        self.drops: dict[str, int] = {}
        self.wall_s: float | None = None
        self.others_ms: dict[str, Summary] = {}
        self._most_kept = most_kept
        self._every = 1
        self._cpu_ns = 0
        self._longest_ns = self._sum_ns = 0
        columns = ("start_ns", "latency_ns", "cpu_ns", "age_ns", *self.stages)
        self._columns = {name: array("q") for name in columns}
        self._sums_ns = [0] * len(self.stages)
        self._most_ns = [0] * len(self.stages)
        self._gpu: dict[str, array[float]] = {}

    def add(self, run: Run) -> None:
        """Take one run."""
        kept = self.count % self._every == 0
        self.count += 1
        self._sum_ns += run.latency_ns
        self._longest_ns = max(self._longest_ns, run.latency_ns)
        self._cpu_ns += run.cpu_ns or 0
        for place, stage_ns in enumerate(run.stages_ns):
            self._sums_ns[place] += stage_ns
            self._most_ns[place] = max(self._most_ns[place], stage_ns)
        if not kept:
            return
        columns = self._columns
        columns["start_ns"].append(run.start_ns)
        columns["latency_ns"].append(run.latency_ns)
        if run.cpu_ns is not None:
            columns["cpu_ns"].append(run.cpu_ns)
        if run.age_ns is not None:
            columns["age_ns"].append(run.age_ns)
        for name, stage_ns in zip(self.stages, run.stages_ns, strict=True):
            columns[name].append(stage_ns)
        if len(columns["start_ns"]) >= self._most_kept:
            self._every *= 2
            for name, values in columns.items():
                columns[name] = values[::2]

    def share_cpu(self, cpu_ns: int) -> None:
        """Take the CPU time of all runs together, where they overlap."""
        self._cpu_ns = cpu_ns

    def add_gpu(self, **times_ms: float) -> None:
        """Take what the GPU's own clock said of the run that was added last."""
        for name, time_ms in times_ms.items():
            values = self._gpu.setdefault(name, array("d"))
            if len(values) < self._most_kept:
                values.append(time_ms)

    @property
    def latencies_ms(self) -> NDArray[np.float64]:
        """Of the runs that were kept, [n]."""
        return self._ms("latency_ns")

    @property
    def ages_ms(self) -> NDArray[np.float64]:
        """Ages at the result, [n], or empty."""
        return self._ms("age_ns")

    @property
    def cpu_ms(self) -> NDArray[np.float64] | None:
        """CPU time of each run, [n], or None."""
        return self._ms("cpu_ns") if self._columns["cpu_ns"] else None

    @property
    def starts_s(self) -> NDArray[np.float64]:
        """When the runs began, since the first, [n]; in the order in which they ended."""
        starts = np.asarray(self._columns["start_ns"], np.float64)
        since_first: NDArray[np.float64] = (starts - starts.min(initial=np.inf)) / 1e9
        return since_first

    @property
    def first_start_ns(self) -> int:
        """When the first run began."""
        return min(self._columns["start_ns"])

    @property
    def cpu_mean_ms(self) -> float:
        """CPU time of a run, over all runs."""
        return self._cpu_ns / 1e6 / self.count

    @property
    def mean_ms(self) -> float:
        """Latency, over all runs."""
        return self._sum_ns / 1e6 / self.count

    def stage_ms(self, name: str) -> NDArray[np.float64]:
        """Return a stage's times, [n]."""
        return self._ms(name)

    def latency_summary(self) -> Summary:
        """Summarize; mean and largest are of all runs, percentiles of those that were kept."""
        return summarize(self.latencies_ms, self._longest_ns / 1e6, self.mean_ms)

    def stage_summaries(self) -> dict[str, Summary]:
        """Summarize each stage, and what the GPU's clock said."""
        found = {
            name: summarize(self._ms(name), most_ns / 1e6, sum_ns / 1e6 / self.count)
            for name, most_ns, sum_ns in zip(self.stages, self._most_ns, self._sums_ns, strict=True)
        }
        for name, values in self._gpu.items():
            found[name] = summary_of(np.asarray(values))
        return {**found, **self.others_ms}

    def _ms(self, name: str) -> NDArray[np.float64]:
        return np.asarray(self._columns[name], np.float64) / 1e6


class Until(NamedTuple):
    """When a measurement ends: after so many runs, or when the time is over.

    Attributes:
        runs: how many; None: as many as there is time for, at least ten.
        seconds: of the measurement's clock; None: as long as `runs` take.
    """

    runs: int | None
    seconds: float | None

    def is_over(self, recording: Recording, elapsed_ns: int) -> bool:
        """Whether no further run begins."""
        if self.runs is not None and recording.count >= self.runs:
            return True
        if self.seconds is None:
            return False
        return elapsed_ns >= 1e9 * self.seconds and (self.runs is not None or recording.count >= 10)


def summary_of(values: NDArray[np.float64]) -> Summary:
    """Summarize at least one value."""
    return summarize(values, float(values.max()), float(values.mean()))
