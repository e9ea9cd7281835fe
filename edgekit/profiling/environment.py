"""What a latency was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from edgekit.targets.files import SystemFiles
from edgekit.targets.probe import probe

_PACKAGES = (
    "edgekit",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "ai-edge-litert",
    "onnxruntime",
    "openvino",
    "tensorrt",
)


def environment() -> dict[str, str]:
    """Return this machine's fingerprint: processor, memory, governor, kernel, library versions."""
    files = SystemFiles()
    here = probe(files)
    facts = {
        "machine": here.architecture,
        "cpu": here.cpu or platform.processor(),
        "cpus": str(os.cpu_count() or 0),
        "memory_gib": f"{here.memory_bytes / 2**30:.1f}" if here.memory_bytes else "",
        "governor": files.line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "board": here.model or "",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return {name: value for name, value in facts.items() if value}
