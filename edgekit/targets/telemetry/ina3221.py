"""Jetson's power rails: the INA3221 and its kin, `/sys/class/hwmon`.

https://docs.kernel.org/hwmon/ina3221.html (three channels, voltage and current) and
https://docs.kernel.org/hwmon/ina238.html (one channel, which Thor's input has; power too).
"""

from __future__ import annotations

from pathlib import Path

from edgekit.targets.telemetry import Reader, Sample
from edgekit.targets.telemetry._sysfs import folders, number, text

_CHANNELS = (1, 2, 3)  # from 4 on, an INA3221 counts its shunts


class Ina3221:
    """Reads each channel that has a name."""

    name = "ina3221"

    def __init__(self, chips: list[Path]) -> None:
        self._chips = chips

    def read(self) -> Sample:
        """Return power by the rails' names."""
        power_mw: dict[str, float] = {}
        for chip in self._chips:
            for channel in _CHANNELS:
                rail = text(chip / f"in{channel}_label")
                power = _power_mw(chip, channel)
                if rail and rail != "NC" and power is not None:  # NC: not connected
                    power_mw[rail] = power
        return Sample(power_mw=power_mw)


def _power_mw(chip: Path, channel: int) -> float | None:
    microwatts = number(chip / f"power{channel}_input")
    if microwatts is not None:
        return microwatts / 1000
    millivolts = number(chip / f"in{channel}_input")
    milliamperes = number(chip / f"curr{channel}_input")
    if millivolts is None or milliamperes is None:
        return None  # the channel is switched off
    return millivolts * milliamperes / 1000


def find(root: Path) -> Reader | None:
    """Return the reader, or None without such a chip."""
    monitors = folders(root / "sys/class/hwmon", "hwmon*")
    chips = [monitor for monitor in monitors if (text(monitor / "name") or "").startswith("ina")]
    return Ina3221(chips) if chips else None
