"""Which of its power modes a Jetson is in, from the files of `nvpmodel`."""

from __future__ import annotations

import re

import msgspec

from edgekit.targets.files import SystemFiles


class PowerMode(msgspec.Struct, frozen=True):
    """The mode, and what others there are.

    Attributes:
        number: of the mode.
        default: number of the one that the device starts with; None where not told.
        names: of all modes that are defined, by number.
    """

    number: int
    default: int | None
    names: dict[int, str]

    @property
    def name(self) -> str | None:
        """Of the mode, like ``MAXN``; None if it is not defined."""
        return self.names.get(self.number)


def power_mode(files: SystemFiles) -> PowerMode | None:
    """Return the power mode, or None where there are none."""
    config = files.text("/etc/nvpmodel.conf")
    # Only lines that begin so count: "# < POWER_MODEL …" is a comment.
    found = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d{1,9})\s+NAME=([\w.-]+)", config, re.MULTILINE)
    default = re.search(r"^\s*<\s*PM_CONFIG\s+DEFAULT=(\d{1,9})\b", config, re.MULTILINE)
    status = re.search(r"pmode:(\d{1,9})\b", files.text("/var/lib/nvpmodel/status"))
    told = status or default  # before the first change there is no status
    if not found or told is None:
        return None
    names = {int(number): name for number, name in found}
    return PowerMode(int(told[1]), int(default[1]) if default else None, names)
