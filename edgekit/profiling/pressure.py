"""What else the machine did while something was measured.

All of it comes from the kernel's own counters, read twice: nothing runs in between.
https://docs.kernel.org/accounting/psi.html and proc_stat(5).
"""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Callable
from typing import NamedTuple

from edgekit.errors import UsageError
from edgekit.profiling.results import Pressure
from edgekit.targets.cgroup import Cgroups
from edgekit.targets.files import SystemFiles
from edgekit.targets.processors import allowed_cpus

_IDLE, _IOWAIT, _STEAL = 3, 4, 7  # columns of /proc/stat; from 8 on they are in the first two


class _Reading(NamedTuple):
    at_s: float
    stalled_s: dict[str, float | None]
    busy_s: float | None
    stolen_s: float | None
    cpus: int
    own_s: float
    switches: int
    faults: int
    throttled_s: float | None


class PressureMeter:
    """Watches the machine between `start` and `stop`.

    Args:
        files: of the system; a copy of some in tests.
        clock: monotonic seconds.
        usage: what this process has used, as `resource.getrusage` says it.
        cpus: that this process may use; None: as the system says.
    """

    def __init__(
        self,
        files: SystemFiles | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        usage: Callable[[], resource.struct_rusage] = lambda: resource.getrusage(
            resource.RUSAGE_SELF
        ),
        cpus: frozenset[int] | None = None,
    ) -> None:
        self._files = files or SystemFiles()
        self._clock, self._usage = clock, usage
        self._cpus = cpus if cpus is not None else allowed_cpus()
        self._cgroups = Cgroups(self._files)
        self._then: _Reading | None = None

    def start(self) -> None:
        """Begin to watch, anew if it was watching."""
        self._then = self._read()

    def stop(self) -> Pressure:
        """Return what there was since `start`.

        Raises:
            UsageError: it was not started.
        """
        if self._then is None:
            raise UsageError("the pressure meter was not started")
        then, now = self._then, self._read()
        self._then = None
        wall_s = max(now.at_s - then.at_s, 1e-9)

        def share(before_s: float | None, after_s: float | None, of_s: float) -> float | None:
            rise_s = _rise(before_s, after_s)
            return None if rise_s is None else min(rise_s / of_s, 1.0)

        stalled = {
            name: share(then.stalled_s[name], now.stalled_s[name], wall_s) for name in now.stalled_s
        }
        busy_s = _rise(then.busy_s, now.busy_s)
        return Pressure(
            wall_s=wall_s,
            cpu_stalled=stalled["cpu"],
            memory_stalled=stalled["memory"],
            io_stalled=stalled["io"],
            stolen=share(then.stolen_s, now.stolen_s, wall_s * max(now.cpus, 1)),
            # Ticks of 10 ms for others, exact for this process: the difference can be below zero.
            others=None if busy_s is None else max(busy_s - (now.own_s - then.own_s), 0.0) / wall_s,
            involuntary_switches=now.switches - then.switches,
            major_faults=now.faults - then.faults,
            throttled_s=_rise(then.throttled_s, now.throttled_s),
        )

    def _read(self) -> _Reading:
        usage = self._usage()
        busy_s, stolen_s, cpus = self._processor_times()
        return _Reading(
            at_s=self._clock(),
            stalled_s={name: self._stalled_s(name) for name in ("cpu", "memory", "io")},
            busy_s=busy_s,
            stolen_s=stolen_s,
            cpus=cpus,
            own_s=usage.ru_utime + usage.ru_stime,
            switches=usage.ru_nivcsw,
            faults=usage.ru_majflt,
            throttled_s=self._cgroups.throttled_s(),
        )

    def _stalled_s(self, resource_name: str) -> float | None:
        # "some avg10=0.00 avg60=0.00 avg300=0.00 total=13006574924", in microseconds
        text = self._files.text(f"/proc/pressure/{resource_name}")
        found = re.search(r"^some .*\btotal=(\d{1,18})$", text, re.MULTILINE)
        return int(found[1]) / 1e6 if found else None

    def _processor_times(self) -> tuple[float | None, float | None, int]:
        """Return seconds that all CPUs worked; that those of this process lost; how many it has."""
        rows = re.findall(r"^cpu(\d*)((?: +\d{1,18}){8,})", self._files.text("/proc/stat"), re.M)
        ticks = {name: [int(n) for n in numbers.split()[:8]] for name, numbers in rows}
        if "" not in ticks:
            return None, None, 0
        per_s = os.sysconf("SC_CLK_TCK")
        whole = ticks.pop("")
        busy = sum(whole) - whole[_IDLE] - whole[_IOWAIT] - whole[_STEAL]
        ours = [row[_STEAL] for name, row in ticks.items() if int(name) in self._cpus]
        return busy / per_s, sum(ours) / per_s if ours else None, len(ours)


def _rise(before: float | None, after: float | None) -> float | None:
    """Return by how much a counter rose; None where it is not there or began anew."""
    if before is None or after is None or after < before:
        return None
    return after - before
