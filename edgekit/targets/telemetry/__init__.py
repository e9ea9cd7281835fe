"""Power, temperature, clocks and load of the machine, read where the device keeps them.

One file a reader, whose name is the file's. Its function `find(root)` gives the reader, or None
where the machine has nothing for it.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Protocol

import msgspec


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What one reader saw at one moment; what it does not see is empty or None.

    Attributes:
        power_mw: by rail, milliwatts; a sensor near zero may say less than nothing. RAPL: the mean
            since the read before.
        energy_j: by rail, joules since the reader was made.
        temperature_c: by zone, degrees Celsius.
        clocks_mhz: by unit: ``cpu0``, ``gpu``, ``emc``; megahertz.
        gpu_load_percent: 0..100.
        emc_load_percent: of the memory controller, 0..100.
        cpu_load_percent: a core each, 0..100; None: the core is off.
        ram_used_mib, ram_total_mib, swap_used_mib, swap_total_mib: 2^20 bytes.
        throttled: why the device runs slower than it could, now.
        throttled_before: why it did at some time since it was started.
    """

    power_mw: dict[str, float] = {}
    energy_j: dict[str, float] = {}
    temperature_c: dict[str, float] = {}
    clocks_mhz: dict[str, float] = {}
    gpu_load_percent: float | None = None
    emc_load_percent: float | None = None
    cpu_load_percent: tuple[float | None, ...] = ()
    ram_used_mib: float | None = None
    ram_total_mib: float | None = None
    swap_used_mib: float | None = None
    swap_total_mib: float | None = None
    throttled: tuple[str, ...] = ()
    throttled_before: tuple[str, ...] = ()


class Reader(Protocol):
    """Reads one source of telemetry."""

    name: str

    def read(self) -> Sample:
        """Return what it shows now; `EnvironmentLacks` where it is there but cannot be read."""


def readers(root: Path = Path("/")) -> list[Reader]:
    """Return the readers that this machine has something for, by name.

    Args:
        root: folder that stands for ``/``, so that a copy of another machine's files can be read.
    """
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    found = (import_module(f"{__name__}.{name}").find(root) for name in names)
    return [reader for reader in found if reader is not None]
