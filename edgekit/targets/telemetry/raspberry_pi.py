"""Whether a Raspberry Pi is throttled, and why.

The firmware keeps eight flags:
https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from edgekit.errors import EnvironmentLacks
from edgekit.targets.telemetry import Reader, Sample
from edgekit.targets.telemetry._sysfs import exists, folders, text

FLAGS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""By bit; the same 16 bits higher: since the device was started."""

_SINCE_START = 16
_PATIENCE_S = 5
_BITS = re.compile(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})")


class RaspberryPi:
    """Reads the flags from the kernel's file, else from the program that comes with the system."""

    name = "raspberry_pi"

    def __init__(self, file: Path | None, program: Path) -> None:
        self._file = file
        self._program = program

    def read(self) -> Sample:
        """Return the flags.

        Raises:
            EnvironmentLacks: neither can be read.
        """
        found = text(self._file) if self._file else None
        return parse(found if found is not None else self._ask())

    def _ask(self) -> str:
        try:
            done = subprocess.run(
                [self._program, "get_throttled"],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE_S,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EnvironmentLacks(f"cannot ask for the throttling state: {error}") from error
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())
            raise EnvironmentLacks(
                f"{self._program} get_throttled failed: {said}; is this user in the group video?"
            )
        return done.stdout.strip()


def parse(found: str) -> Sample:
    """Read `50005` as the kernel writes it or `throttled=0x50005` as vcgencmd does.

    Raises:
        EnvironmentLacks: it is neither.
    """
    hexadecimal = _BITS.fullmatch(found)
    if hexadecimal is None:
        raise EnvironmentLacks(
            f"the throttling state must look like throttled=0x50005; got {found[:80]!r}"
        )
    bits = int(hexadecimal[1], 16)
    return Sample(
        throttled=tuple(name for bit, name in FLAGS.items() if bits >> bit & 1),
        throttled_before=tuple(n for bit, n in FLAGS.items() if bits >> bit + _SINCE_START & 1),
    )


def find(root: Path) -> Reader | None:
    """Return the reader, or None on any other machine."""
    if "Raspberry Pi" not in (text(root / "proc/device-tree/model") or ""):
        return None
    files = [
        firmware / "get_throttled"
        for soc in folders(root / "sys/devices/platform", "soc*")
        for firmware in folders(soc, "*:firmware")
    ]
    program = root / "usr/bin/vcgencmd"
    file = next((file for file in files if exists(file)), None)
    return RaspberryPi(file, program) if file or exists(program) else None
