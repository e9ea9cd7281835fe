"""What a latency was measured on."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("edgekit", "numpy", "opencv-python-headless", "opencv-python", "ai-edge-litert")


def environment() -> dict[str, str]:
    """Return this machine's fingerprint: processor, memory, governor, kernel, library versions."""
    facts = {
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpus": str(os.cpu_count() or 0),
        "memory_gib": f"{_memory_bytes() / 2**30:.1f}",
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "board": _first_line("/proc/device-tree/model"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return {name: value for name, value in facts.items() if value}


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").splitlines()[0].strip("\0 ")
    except (OSError, IndexError):
        return ""


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return platform.processor()
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
