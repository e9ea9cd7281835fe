"""Clocks of the CPUs, as they are now: `/sys/devices/system/cpu/cpufreq`.

CPUs of one policy run at one clock, which is told under the policy's number, that of its first CPU.
https://docs.kernel.org/admin-guide/pm/cpufreq.html
"""

from __future__ import annotations

from pathlib import Path

from edgekit.targets.telemetry import Reader, Sample
from edgekit.targets.telemetry._sysfs import folders, number


class Cpufreq:
    """Reads the clock of each policy."""

    name = "cpufreq"

    def __init__(self, policies: list[Path]) -> None:
        self._policies = policies

    def read(self) -> Sample:
        """Return the clocks: ``cpu0``, ``cpu4`` …; those of CPUs that are off are left out."""
        clocks_mhz = {}
        for policy in self._policies:
            kilohertz = number(policy / "scaling_cur_freq")
            if kilohertz is not None:
                clocks_mhz[policy.name.replace("policy", "cpu")] = kilohertz / 1000
        return Sample(clocks_mhz=clocks_mhz)


def find(root: Path) -> Reader | None:
    """Return the reader, or None where the kernel does not set the clocks."""
    policies = folders(root / "sys/devices/system/cpu/cpufreq", "policy*")
    return Cpufreq(policies) if policies else None
