"""Clock and load of Jetson's GPU: `/sys/class/devfreq`.

Orin's is `17000000.gpu`, with its load in tenths of a percent; Thor's are `gpu-gpc-0` and
`gpu-nvd-0`, without. https://docs.kernel.org/driver-api/devfreq.html
"""

from __future__ import annotations

from pathlib import Path

from edgekit.targets.telemetry import Reader, Sample
from edgekit.targets.telemetry._sysfs import folders, number

_PATTERNS = ("*.gpu", "*.ga10b", "*.gv11b", "gpu-*")


class Devfreq:
    """Reads the GPU's clock domains."""

    name = "devfreq"

    def __init__(self, domains: list[Path]) -> None:
        self._domains = domains

    def read(self) -> Sample:
        """Return the clocks by domain, and the load where it is told."""
        clocks_mhz: dict[str, float] = {}
        load_percent = None
        for domain in self._domains:
            hertz = number(domain / "cur_freq")
            if hertz is not None:
                clocks_mhz[domain.name if domain.name.startswith("gpu-") else "gpu"] = hertz / 1e6
            for file in (domain / "device/load", domain / "load"):  # since Jetson Linux 36.4: load
                tenths = number(file)
                load_percent = tenths / 10 if tenths is not None else load_percent
        return Sample(clocks_mhz=clocks_mhz, gpu_load_percent=load_percent)


def find(root: Path) -> Reader | None:
    """Return the reader, or None without such a GPU."""
    parent = root / "sys/class/devfreq"
    domains = [domain for pattern in _PATTERNS for domain in folders(parent, pattern)]
    return Devfreq(domains) if domains else None
