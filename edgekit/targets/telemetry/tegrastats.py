"""What NVIDIA's `tegrastats` prints on a Jetson, one line an interval.

https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/AT/JetsonLinuxDevelopmentTools/TegrastatsUtility.html
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from pathlib import Path

from edgekit.errors import EnvironmentLacks
from edgekit.targets.telemetry import Reader, Sample
from edgekit.targets.telemetry._sysfs import exists

_INTERVAL_MS = 100
_PATIENCE_S = 5.0
_MOST_CHARACTERS = 8192

_N = r"[0-9]{1,9}"
_RAM = re.compile(rf"\bRAM ({_N})/({_N})MB")
_SWAP = re.compile(rf"\bSWAP ({_N})/({_N})MB")
_CPU = re.compile(r"\bCPU \[([^\]]{0,4096})\]")
_CORE = re.compile(rf"({_N})%(?:@({_N}))?")
_EMC = re.compile(rf"\bEMC_FREQ ({_N})%(?:@({_N}))?")
# 0%   10%@1000   0%@[1300,1300]   @[1000,1000]
_GPU = re.compile(rf"\bGR3D_FREQ (?:({_N})%)?(?:@\[?({_N}(?:,{_N}){{0,15}}))?")
# Some releases add the limit: gpu@62.906C/114.5C
_TEMPERATURE = re.compile(rf"(?<!\S)(\w{{1,40}})@(-?{_N}(?:\.{_N})?)C(?![^\s/])")
# now/mean, now/mean/peak, and before JetPack 5 without the unit
_POWER = re.compile(rf"(?<!\S)([A-Z]\w{{1,40}}) (-?{_N})(?:mW)?(?:/-?{_N}(?:mW)?){{1,2}}(?!\S)")
_OFF_C = -250.0


class Tegrastats:
    """Runs the program for one line."""

    name = "tegrastats"

    def __init__(self, program: Path) -> None:
        self._program = program

    def read(self) -> Sample:
        """Return what the next line says, which takes about an interval of 100 ms.

        Raises:
            EnvironmentLacks: the program cannot be run or prints nothing.
        """
        try:
            with subprocess.Popen(
                [self._program, "--interval", str(_INTERVAL_MS)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as process:
                try:
                    line = _first_line(process)
                finally:
                    process.kill()
        except OSError as error:
            raise EnvironmentLacks(f"cannot run {self._program}: {error.strerror}") from error
        if not line:
            raise EnvironmentLacks(
                f"{self._program} printed no line within {_PATIENCE_S:g} s; "
                "try it in a terminal, and see that no other program of that name is in its place"
            )
        return parse(line)


def _first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    until_s = time.monotonic() + _PATIENCE_S
    said = b""
    while b"\n" not in said and len(said) < _MOST_CHARACTERS:
        left_s = until_s - time.monotonic()
        if left_s <= 0 or not select.select([pipe], [], [], left_s)[0]:
            return ""
        more = os.read(pipe, _MOST_CHARACTERS)
        if not more:
            break
        said += more
    return said.partition(b"\n")[0].decode("utf-8", "replace").strip()


def parse(line: str) -> Sample:
    """Return what a line of tegrastats says; of any other text, nothing.

    >>> parse("RAM 3162/7620MB GR3D_FREQ 10%@1000 tj@50.031C VDD_IN 4952mW/4800mW").power_mw
    {'VDD_IN': 4952.0}
    """
    line = line[:_MOST_CHARACTERS]
    ram, swap = _pair(_RAM, line), _pair(_SWAP, line)
    emc, gpu = _EMC.search(line), _GPU.search(line)
    cores = _cores(line)
    clocks = {f"cpu{i}": float(core[2]) for i, core in enumerate(cores) if core and core[2]}
    if emc and emc[2]:
        clocks["emc"] = float(emc[2])
    if gpu and gpu[2]:
        each = gpu[2].split(",")
        names = ["gpu"] if len(each) == 1 else [f"gpu{i}" for i in range(len(each))]
        clocks |= dict(zip(names, map(float, each), strict=True))
    zones = ((name, float(degrees)) for name, degrees in _TEMPERATURE.findall(line))
    rails = ((name, float(now)) for name, now in _POWER.findall(line))
    return Sample(
        power_mw={name: now for name, now in rails if name != "NC"},  # NC: not connected
        temperature_c={name: degrees for name, degrees in zones if degrees > _OFF_C},
        clocks_mhz=clocks,
        gpu_load_percent=float(gpu[1]) if gpu and gpu[1] else None,
        emc_load_percent=float(emc[1]) if emc else None,
        cpu_load_percent=tuple(float(core[1]) if core else None for core in cores),
        ram_used_mib=ram[0],
        ram_total_mib=ram[1],
        swap_used_mib=swap[0],
        swap_total_mib=swap[1],
    )


def _pair(pattern: re.Pattern[str], line: str) -> tuple[float, float] | tuple[None, None]:
    found = pattern.search(line)
    return (float(found[1]), float(found[2])) if found else (None, None)


def _cores(line: str) -> list[re.Match[str] | None]:
    """Return a match of `12%@1420` for each core, None for `off`."""
    found = _CPU.search(line)
    cores = found[1].split(",") if found and found[1] else []
    return [_CORE.fullmatch(core.strip()) for core in cores]


def find(root: Path) -> Reader | None:
    """Return the reader, or None where the program is not installed."""
    program = root / "usr/bin/tegrastats"
    return Tegrastats(program) if exists(program) else None
