"""Thermal zones, and whether heat slows the device: `/sys/class/thermal`.

https://docs.kernel.org/driver-api/thermal/sysfs-api.html
"""

from __future__ import annotations

from pathlib import Path

from edgekit.targets.telemetry import Reader, Sample
from edgekit.targets.telemetry._sysfs import folders, number, text

_OFF_C = -250.0  # Jetson's zones say -256 while their unit has no power


class Thermal:
    """Reads every zone; Jetson's alerts of throttling too."""

    name = "thermal"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> Sample:
        """Return temperatures by the zones' types."""
        temperature_c: dict[str, float] = {}
        for zone in folders(self._folder, "thermal_zone*"):
            thousandths = number(zone / "temp")
            kind = text(zone / "type") or zone.name
            if thousandths is not None and thousandths / 1000 > _OFF_C:
                unique = f"{kind} {zone.name}" if kind in temperature_c else kind
                temperature_c[unique] = thousandths / 1000
        return Sample(temperature_c=temperature_c, throttled=self._alerts())

    def _alerts(self) -> tuple[str, ...]:
        devices = folders(self._folder, "cooling_device*")
        alerts = [(text(device / "type") or "", number(device / "cur_state")) for device in devices]
        return tuple(kind for kind, state in alerts if kind.endswith("throttle-alert") and state)


def find(root: Path) -> Reader | None:
    """Return the reader, or None without a thermal zone."""
    folder = root / "sys/class/thermal"
    return Thermal(folder) if folders(folder, "thermal_zone*") else None
