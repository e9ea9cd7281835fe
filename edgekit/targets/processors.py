"""Cores and clocks as the kernel has set them: what they may do, not what they do now."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import msgspec

from edgekit.targets.files import SystemFiles

_CPU = "/sys/devices/system/cpu"
_DEVFREQ = "/sys/class/devfreq"
_JETSON_GPU = re.compile(r"\.gpu$|ga10b$|^gpu-gpc")  # Orin, Orin on newer kernels, Thor


class CpuClocks(msgspec.Struct, frozen=True):
    """How the clocks of the CPUs are set.

    Attributes:
        governors: of all CPUs, each once, sorted.
        drivers: likewise.
        low_mhz, high_mhz: least and most that any CPU may run at now; None where not told.
        is_fixed: whether each CPU's least is its most.
    """

    governors: tuple[str, ...]
    drivers: tuple[str, ...]
    low_mhz: float | None
    high_mhz: float | None
    is_fixed: bool


def allowed_cpus() -> frozenset[int]:
    """Return the numbers of the CPUs that this process may use."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return frozenset(range(os.cpu_count() or 1))


def physical_cores(files: SystemFiles, cpus: Iterable[int]) -> int:
    """Return how many cores `cpus` are of: Linux names the siblings that share one."""
    siblings = {
        files.line(f"{_CPU}/cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in cpus
    }
    return len(siblings)


def cpu_clocks(files: SystemFiles) -> CpuClocks | None:
    """Return how the CPUs' clocks are set, or None where the kernel does not set them."""
    policies = [
        f"{_CPU}/{name}/cpufreq"
        for name in files.names(_CPU)
        if re.fullmatch(r"cpu\d+", name) and files.is_there(f"{_CPU}/{name}/cpufreq")
    ]
    governors = sorted({g for p in policies if (g := files.line(f"{p}/scaling_governor"))})
    if not governors:
        return None
    lows = [files.number(f"{p}/scaling_min_freq") for p in policies]
    highs = [files.number(f"{p}/scaling_max_freq") for p in policies]
    return CpuClocks(
        governors=tuple(governors),
        drivers=tuple(sorted({files.line(f"{p}/scaling_driver") for p in policies})),
        low_mhz=min((low / 1000 for low in lows if low is not None), default=None),
        high_mhz=max((high / 1000 for high in highs if high is not None), default=None),
        is_fixed=all(low == high is not None for low, high in zip(lows, highs, strict=True)),
    )


def jetson_gpu_clocks_mhz(files: SystemFiles) -> dict[str, tuple[float, float]]:
    """Return least and most that each clock domain of a Jetson's GPU may run at now."""
    clocks = {}
    for name in files.names(_DEVFREQ):
        low = files.number(f"{_DEVFREQ}/{name}/min_freq")
        high = files.number(f"{_DEVFREQ}/{name}/max_freq")
        if _JETSON_GPU.search(name) and low is not None and high is not None:
            clocks[name] = (low / 1e6, high / 1e6)
    return clocks
