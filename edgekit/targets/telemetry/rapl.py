"""Energy counters of x86 processors: `/sys/class/powercap/intel-rapl:*`, AMD's too.

https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edgekit.errors import EnvironmentLacks
from edgekit.targets.telemetry import Reader, Sample
from edgekit.targets.telemetry._sysfs import exists, folders, number, text


class Rapl:
    """Adds up what each domain used since the reader was made.

    Args:
        domains: folders with `energy_uj`, by name.
        clock: monotonic nanoseconds.
    """

    name = "rapl"

    def __init__(
        self, domains: dict[str, Path], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._domains = domains
        self._clock = clock
        self._energy_j = dict.fromkeys(domains, 0.0)
        self._then_ns = clock()
        self._counters = {name: number(domain / "energy_uj") for name, domain in domains.items()}

    def read(self) -> Sample:
        """Return energy so far, and the mean power since the read before.

        Raises:
            EnvironmentLacks: no counter can be read, as is usual without root.
        """
        now_ns = self._clock()
        seconds = (now_ns - self._then_ns) / 1e9
        power_mw, energy_j = {}, {}
        for name, domain in self._domains.items():
            before, now = self._counters[name], number(domain / "energy_uj")
            self._counters[name] = now
            used_uj = _used_uj(before, now, domain)
            if used_uj is None:
                continue
            self._energy_j[name] += used_uj / 1e6
            energy_j[name] = self._energy_j[name]
            if seconds > 0:
                power_mw[name] = used_uj / 1000 / seconds
        self._then_ns = now_ns
        if all(counter is None for counter in self._counters.values()):
            raise _unreadable(next(iter(self._domains.values())) / "energy_uj")
        return Sample(power_mw=power_mw, energy_j=energy_j)


def _used_uj(before: int | None, now: int | None, domain: Path) -> int | None:
    """Return the counter's advance; it begins anew after `max_energy_range_uj`."""
    if before is None or now is None:
        return None
    if now >= before:
        return now - before
    whole = number(domain / "max_energy_range_uj")
    return None if whole is None or whole < before else now - before + whole


def _unreadable(file: Path) -> EnvironmentLacks:
    try:
        file.read_bytes()
    except PermissionError:
        return EnvironmentLacks(
            f"{file} may only be read by root; run as root, or allow it until the next start: "
            "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
        )
    except OSError as error:
        return EnvironmentLacks(f"cannot read {file}: {error.strerror}")
    return EnvironmentLacks(f"{file} holds no energy in microjoules; expected a whole number")


def find(root: Path) -> Reader | None:
    """Return the reader, or None without a counter."""
    domains: dict[str, Path] = {}
    for domain in folders(root / "sys/class/powercap", "intel-rapl:*"):
        if not exists(domain / "energy_uj"):
            continue
        whole = text(domain.with_name(domain.name.rpartition(":")[0]) / "name")
        part = text(domain / "name") or domain.name
        # Every package has a part `core`; a package's own folder has no folder above it.
        name = f"{whole}/{part}" if domain.name.count(":") > 1 and whole else part
        domains[name if name not in domains else f"{name} {domain.name}"] = domain
    return Rapl(domains) if domains else None
