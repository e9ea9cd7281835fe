"""Power, temperature and clocks while something is measured, on the clock that measures it.

Verified on planted files only: no device with power rails or RAPL counters was at hand.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgekit.errors import EnvironmentLacks
from edgekit.profiling.results import Energy, Moment
from edgekit.targets.telemetry import Reader, Sample, readers

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST_SHARE = 0.002  # of a CPU, for reading
_MOST_MOMENTS = 4096
_TAKE_THEIR_TIME = {"tegrastats"}  # 100 ms for a line; the others see what it prints
# What a whole board or module draws, by NVIDIA's names: TX2 to Orin Nano, Thor, the first Nano.
_INPUT_RAILS = ("VDD_IN", "VIN", "POM_5V_IN")
# AGX Orin has no such rail: these three are fed side by side. Unverified.
_RAILS_TOGETHER = frozenset({"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"})


def _own_and_childrens_cpu_s() -> float:
    """Return CPU seconds of this thread and of programs that were run and have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.thread_time() + children.ru_utime + children.ru_stime


class _Read(NamedTuple):
    at_s: float
    samples: dict[str, Sample]


class Recorder:
    """Reads telemetry in a thread of its own until it is stopped.

    What reading costs is measured, and the pauses become so long that it stays below 0.2 % of a
    CPU. A long recording is thinned out, to at most 4,096 moments.

    Args:
        sources: the readers; None: this machine's, as `quiet_readers` gives them.
        period_s: seconds between two readings, at least.
        clock: the clock that the latencies are measured by, seconds.
        cost_clock: CPU seconds of the thread that reads, and of what it runs.

    Attributes:
        refusals: why a reader is not read, by its name; it is tried once.
    """

    def __init__(
        self,
        sources: Sequence[Reader] | None = None,
        period_s: float = 0.25,
        *,
        clock: Callable[[], float] = time.perf_counter,
        cost_clock: Callable[[], float] = _own_and_childrens_cpu_s,
    ) -> None:
        self.refusals: dict[str, str] = {}
        self._sources = list(quiet_readers() if sources is None else sources)
        self._period_s = period_s
        self._clock, self._cost_clock = clock, cost_clock
        self._reads: list[_Read] = []
        self._idle: tuple[float, float] | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="telemetry", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Read once, here, so that what begins now has a moment before it; then go on."""
        self.read()
        if self._sources:
            self._thread.start()

    def stop(self) -> None:
        """Stop, and read once more, so that what ends now has a moment after it."""
        if self._thread.is_alive():
            self._stopped.set()
            self._thread.join()
            self.read()

    def read(self) -> float:
        """Read all sources now; return the seconds to wait before the next time."""
        with self._lock:
            cost_s, at_s = self._cost_clock(), self._clock()
            samples = {}
            for source in list(self._sources):
                try:
                    samples[source.name] = source.read()
                except (EnvironmentLacks, OSError) as error:
                    self.refusals[source.name] = str(error)
                    self._sources.remove(source)
            if samples:
                self._reads.append(_Read(at_s, samples))
            if len(self._reads) > _MOST_MOMENTS:
                del self._reads[1:-1:2]
                self._period_s *= 2
            return max(self._period_s, (self._cost_clock() - cost_s) / _MOST_SHARE)

    def rest(self, seconds: float = 1.0, sleep: Callable[[float], None] = time.sleep) -> None:
        """Do nothing for a while, to see what the machine draws idle, if it tells power at all.

        Args:
            seconds: how long, after the recorder's start and before the engine works.
            sleep: waits.
        """
        begin_s = self._clock()
        self.read()
        if self._meter() is None:
            return
        sleep(seconds)
        self._idle = (begin_s, self._clock())
        self.read()

    def moments(self, since_s: float) -> tuple[Moment, ...]:
        """Return what was seen.

        Args:
            since_s: by the recorder's clock: when the first measured run began.
        """
        with self._lock:
            reads = list(self._reads)
        return tuple(_moment(read, since_s) for read in reads)

    def energy(self, since_s: float, until_s: float, inferences: int) -> Energy | None:
        """Return the energy between two times of the recorder's clock; None where nothing tells it.

        Energy counters are taken where there are some, else power is integrated.

        Args:
            since_s: when the first measured run began.
            until_s: when the last one ended.
            inferences: that ran in between.
        """
        meter = self._meter()
        if meter is None or inferences < 1:
            return None
        joules = meter.joules(since_s, until_s)
        if joules is None:
            return None
        idle_j = meter.joules(*self._idle) if self._idle else None
        return Energy(
            rail=meter.rail,
            joules_per_inference=joules / inferences,
            mean_power_w=joules / (until_s - since_s),
            idle_power_w=idle_j / (self._idle[1] - self._idle[0])
            if self._idle and idle_j is not None
            else None,
        )

    def _repeat(self) -> None:
        while not self._stopped.wait(self.read()):
            continue

    def _meter(self) -> _Meter | None:
        with self._lock:
            reads = list(self._reads)
        names = {name: None for read in reads for name in read.samples}
        counted = (_counter(name, reads) for name in names)
        integrated = (_integral(name, reads) for name in names)
        return next((m for m in (*counted, *integrated) if m is not None), None)


class _Meter(NamedTuple):
    """Joules used since the recorder's start, at some times."""

    rail: str
    at_s: list[float]
    used_j: list[float]

    def joules(self, since_s: float, until_s: float) -> float | None:
        """Return what was used in between; None where the times before or after are missing."""
        if not self.at_s[0] <= since_s < until_s <= self.at_s[-1]:
            return None
        begin_j, end_j = np.interp([since_s, until_s], self.at_s, self.used_j)
        return float(end_j - begin_j)


def quiet_readers(root: Path = Path("/")) -> list[Reader]:
    """Return the machine's readers, without those that take long for each reading."""
    return [reader for reader in readers(root) if reader.name not in _TAKE_THEIR_TIME]


def _moment(read: _Read, since_s: float) -> Moment:
    samples = read.samples.values()
    return Moment(
        at_s=read.at_s - since_s,
        power_mw={rail: mw for sample in samples for rail, mw in sample.power_mw.items()},
        temperature_c={zone: c for sample in samples for zone, c in sample.temperature_c.items()},
        clocks_mhz={unit: mhz for sample in samples for unit, mhz in sample.clocks_mhz.items()},
        throttled=tuple(dict.fromkeys(why for sample in samples for why in sample.throttled)),
    )


def _counter(source: str, reads: Sequence[_Read]) -> _Meter | None:
    """Return a meter of energy counters: the whole platform's, else those of all packages."""
    told = [(r.at_s, r.samples[source].energy_j) for r in reads if source in r.samples]
    known = [(at_s, energy_j) for at_s, energy_j in told if energy_j]
    if not known:
        return None
    names = known[0][1]
    # `package-0/core` is a part of `package-0`; `psys` is all that the platform measures.
    rails = ["psys"] if "psys" in names else [n for n in names if n.startswith("package-")]
    rails = [rail for rail in rails if "/" not in rail]
    whole = [(at_s, energy_j) for at_s, energy_j in known if energy_j.keys() >= set(rails)]
    if not rails or len(whole) < 2:
        return None
    used_j = [sum(energy_j[rail] for rail in rails) for _, energy_j in whole]
    return _Meter(f"{source}: {' + '.join(rails)}", [at_s for at_s, _ in whole], used_j)


def _integral(source: str, reads: Sequence[_Read]) -> _Meter | None:
    """Return a meter that integrates the power of the board's input, by the trapezoidal rule."""
    told = [(r.at_s, r.samples[source].power_mw) for r in reads if source in r.samples]
    names = told[0][1].keys() if told else set()
    rails = next(([rail] for rail in _INPUT_RAILS if rail in names), None)
    if rails is None and names >= _RAILS_TOGETHER:
        rails = sorted(_RAILS_TOGETHER)
    if rails is None:
        return None
    whole = [(at_s, power_mw) for at_s, power_mw in told if power_mw.keys() >= set(rails)]
    if len(whole) < 2:
        return None
    watts = [(at_s, sum(power_mw[rail] for rail in rails) / 1000) for at_s, power_mw in whole]
    used_j = [0.0]
    for (before_s, before_w), (after_s, after_w) in pairwise(watts):
        used_j.append(used_j[-1] + (after_s - before_s) * (before_w + after_w) / 2)
    return _Meter(f"{source}: {' + '.join(rails)}", [at_s for at_s, _ in watts], used_j)
