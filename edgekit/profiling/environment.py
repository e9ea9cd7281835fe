"""What a latency was measured on: what stays the same from run to run, and what does not."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby

from edgekit.errors import EnvironmentLacks
from edgekit.targets.cgroup import Cgroups
from edgekit.targets.files import SystemFiles
from edgekit.targets.power_mode import power_mode
from edgekit.targets.probe import Probe, memory_bytes, probe
from edgekit.targets.processors import (
    allowed_cpus,
    cpu_clocks,
    jetson_gpu_clocks_mhz,
    physical_cores,
)
from edgekit.targets.telemetry import raspberry_pi, thermal

_PACKAGES = (
    "edgekit",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "ai-edge-litert",
    "tflite-runtime",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "pycuda",
)
# Those that make engines, their threads or memory faster or slower, and never hold a secret.
_VARIABLES = (
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "CUDA_VISIBLE_DEVICES",
    "DNNL_MAX_CPU_ISA",
    "GLIBC_TUNABLES",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "MALLOC_ARENA_MAX",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_DYNAMIC",
    "OMP_NUM_THREADS",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "OMP_THREAD_LIMIT",
    "OMP_WAIT_POLICY",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "PYTHONMALLOC",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
_VALUE = re.compile(r"[\w.,:;=+{}()*/ -]{1,120}", re.ASCII)
_CPU = "/sys/devices/system/cpu"
_SUPPLY = "/sys/class/power_supply"


def environment(
    files: SystemFiles | None = None, variables: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return this machine's fingerprint: hardware, limits, settings, system, library versions.

    Nothing in it changes by itself from one run to the next; that is in `conditions`.

    Args:
        files: of the system; None: of this one.
        variables: of the environment; None: this process's. Only those that change speed are taken.
    """
    files = files or SystemFiles()
    here = probe(files)
    facts = {
        **_processor(files, here),
        **_limits(files, here),
        **_settings(files, here),
        **_system(files, here),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    facts |= _variables(os.environ if variables is None else variables)
    return {name: value for name, value in facts.items() if value}


def conditions(files: SystemFiles | None = None) -> dict[str, str]:
    """Return what changes from minute to minute: load, heat, free memory, power supply.

    Args:
        files: of the system; None: of this one.
    """
    files = files or SystemFiles()
    clocks = cpu_clocks(files)
    available = memory_bytes(files, "MemAvailable")
    total_swap, free_swap = memory_bytes(files, "SwapTotal"), memory_bytes(files, "SwapFree")
    used_swap = total_swap - free_swap if total_swap and free_swap is not None else None
    cv2 = sys.modules.get("cv2")
    facts = {
        "load_1_5_15_min": " ".join(files.line("/proc/loadavg").split()[:3]),
        "memory_available_gib": _gib(available),
        "swap_used_gib": _gib(used_swap),
        "temperature_c": _hottest(files),
        "throttled": _throttled(files),
        "supply": _supply(files),
        "cpu_clock_limits_mhz": _range(clocks.low_mhz, clocks.high_mhz) if clocks else "",
        "opencv_threads": str(cv2.getNumThreads()) if cv2 is not None else "",
    }
    return {name: value for name, value in facts.items() if value}


def _processor(files: SystemFiles, here: Probe) -> dict[str, str]:
    online = cpu_numbers(files.line(f"{_CPU}/online")) or range(here.cores or os.cpu_count() or 1)
    folder = f"{_CPU}/cpu{{}}/cpufreq/cpuinfo_{{}}_freq"
    low_khz = [files.number(folder.format(cpu, "min")) for cpu in online]
    high_khz = [files.number(folder.format(cpu, "max")) for cpu in online]
    smt = files.line(f"{_CPU}/smt/control")
    return {
        "machine": here.architecture,
        "cpu": here.cpu or platform.processor(),
        "cpus": str(len(online)),
        "cores": str(physical_cores(files, online)),
        "smt": smt if smt in ("on", "off", "forceoff") else "",
        "cpu_clock_mhz": _range(
            min((khz / 1000 for khz in low_khz if khz is not None), default=None),
            max((khz / 1000 for khz in high_khz if khz is not None), default=None),
        ),
        "turbo": _turbo(files),
    }


def _limits(files: SystemFiles, here: Probe) -> dict[str, str]:
    groups = Cgroups(files)
    cpu_limit = groups.cpu_limit()
    return {
        "allowed_cpus": cpu_ranges(allowed_cpus()),
        "cpu_limit": f"{cpu_limit:g}" if cpu_limit is not None else "",
        "memory_gib": _gib(here.memory_bytes),
        "memory_limit_gib": _gib(groups.memory_limit_bytes()),
        "swap_gib": _gib(memory_bytes(files, "SwapTotal")),
    }


def _settings(files: SystemFiles, here: Probe) -> dict[str, str]:
    clocks, mode = cpu_clocks(files), power_mode(files)
    gpu_clocks = jetson_gpu_clocks_mhz(files).values()
    fixed = all(low == high for low, high in gpu_clocks)
    return {
        "governor": ", ".join(clocks.governors) if clocks else "",
        "clock_driver": ", ".join(clocks.drivers) if clocks else "",
        "power_mode": (mode.name or str(mode.number)) if mode else "",
        "gpu_clock": ("fixed" if fixed else "follows the load") if gpu_clocks else "",
        "board": here.model or "",
        "gpu": ", ".join(here.gpus),
        "nvidia_driver": here.nvidia_driver or "",
        "jetson_linux": here.jetson_linux or "",
        "jetpack": here.jetpack or "",
    }


def _system(files: SystemFiles, here: Probe) -> dict[str, str]:
    return {
        "system": f"{platform.system()} {here.kernel or platform.release()}",
        "distribution": here.system or "",
        "virtual": _virtual(files),
        "container": _container(files),
        "libc": " ".join(platform.libc_ver()).strip(),
        "python": platform.python_version(),
    }


def _virtual(files: SystemFiles) -> str:
    """Return what the machine's maker says of itself if it is virtual, as far as files tell."""
    is_virtual = re.search(r"^flags\s*:.* hypervisor\b", files.text("/proc/cpuinfo"), re.MULTILINE)
    kind = files.line("/sys/hypervisor/type")
    if not is_virtual and not kind:
        return ""
    names = (files.line(f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    return " ".join(name for name in names if name) or kind or "yes"


def _container(files: SystemFiles) -> str:
    if told := files.line("/run/systemd/container"):
        return told
    for file, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if files.is_there(file):
            return kind
    return ""


def _turbo(files: SystemFiles) -> str:
    no_turbo = files.number(f"{_CPU}/intel_pstate/no_turbo")
    boost = files.number(f"{_CPU}/cpufreq/boost")
    if no_turbo is None and boost is None:
        return ""
    return "off" if no_turbo == 1 or boost == 0 else "on"


def _hottest(files: SystemFiles) -> str:
    reader = thermal.find(files.root)
    zones = reader.read().temperature_c if reader else {}
    name = max(zones, key=lambda zone: zones[zone], default=None)
    return f"{zones[name]:.0f} ({name})" if name is not None else ""


def _throttled(files: SystemFiles) -> str:
    reader = raspberry_pi.find(files.root)
    try:
        return ", ".join(reader.read().throttled) if reader else ""
    except EnvironmentLacks:
        return "not to be read"


def _supply(files: SystemFiles) -> str:
    """Return ``mains`` or ``battery``, where the machine has a battery of its own."""
    supplies = [f"{_SUPPLY}/{name}" for name in files.names(_SUPPLY)]
    batteries = [s for s in supplies if files.line(f"{s}/type") == "Battery"]
    own = [s for s in batteries if files.line(f"{s}/scope") != "Device"]  # not a mouse's
    if not own:
        return ""
    discharging = any(files.line(f"{s}/status") == "Discharging" for s in own)
    return "battery" if discharging else "mains"


def _variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those of `_VARIABLES` that are set, if their values are plain; else that they are."""
    found = {name: variables[name] for name in _VARIABLES if name in variables}
    return {name: v if _VALUE.fullmatch(v) else "(set)" for name, v in found.items()}


def cpu_ranges(cpus: Iterable[int]) -> str:
    """Return CPUs as Linux writes them.

    >>> cpu_ranges({0, 1, 2, 5})
    '0-2,5'
    """
    ordered = sorted(cpus)
    runs = groupby(enumerate(ordered), lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(group) for _, group in runs)]
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ends)


def cpu_numbers(text: str) -> frozenset[int]:
    """Return the CPUs of a text as Linux writes them; none of any other text.

    >>> sorted(cpu_numbers("0-2,5"))
    [0, 1, 2, 5]
    """
    if not re.fullmatch(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", text):
        return frozenset()
    ends = [part.split("-") for part in text.split(",")]
    return frozenset(n for end in ends for n in range(int(end[0]), int(end[-1]) + 1))


def _gib(count: int | None) -> str:
    return f"{count / 2**30:.1f}" if count else ""


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{high:.0f}" if high is not None else ""
    return f"{low:.0f}-{high:.0f}" if low < high else f"{high:.0f}"
