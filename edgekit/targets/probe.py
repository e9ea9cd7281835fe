"""What machine this is: which target, and the facts of board, system and GPU that say so."""

from __future__ import annotations

import platform
import re

import msgspec

from edgekit.targets.files import SystemFiles

# The device tree names the module in `compatible`, whatever carrier board it sits on. Sources:
# docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/IN/QuickStart.html (module part numbers)
# and the Linux kernel's arch/arm64/boot/dts/{nvidia,broadcom}.
_MODULES = (
    (r"p3767-000[01]\b", "jetson-orin-nx"),
    (r"p3767-000[345]\b", "jetson-orin-nano"),
    (r"p3701-\d", "jetson-agx-orin"),
    (r"p3834-\d", "jetson-agx-thor"),
    (r"\bbrcm,bcm2711\b", "raspberry-pi-4"),
    (r"\bbrcm,bcm2712\b", "raspberry-pi-5"),
)
# For trees without part numbers.
_MODELS = (
    (r"Jetson Orin NX", "jetson-orin-nx"),
    (r"Jetson Orin Nano", "jetson-orin-nano"),
    (r"Jetson AGX Orin", "jetson-agx-orin"),
    (r"Jetson (AGX )?Thor", "jetson-agx-thor"),
    (r"Raspberry Pi (4|400|Compute Module 4S?)\b", "raspberry-pi-4"),
    (r"Raspberry Pi (5|500\+?|Compute Module 5)\b", "raspberry-pi-5"),
)
# Of Arm's cores, those of the targets: arch/arm64/include/asm/cputype.h in the Linux kernel.
_ARM = "0x41"
_ARM_CORES = {"0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd42": "Cortex-A78AE"}


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What was found on a machine; None where nothing says it.

    Attributes:
        target: name of the target that it is, or None.
        because: what the target was told by, or why there is none.
        model: of the board, as the device tree names it.
        architecture: as `uname -m` says it.
        kernel: its release.
        system: name and version of the distribution.
        cpu: model of the processor.
        cores: logical CPUs that are on.
        memory_bytes: main memory.
        gpus: NVIDIA GPUs on a bus, as their driver names them; not those of a Jetson's chip.
        nvidia_driver: version of NVIDIA's kernel driver.
        jetson_linux: version of Jetson Linux (L4T), like 36.4.3.
        jetpack: version of JetPack, where its package is installed.
    """

    target: str | None
    because: str
    model: str | None
    architecture: str
    kernel: str | None
    system: str | None
    cpu: str | None
    cores: int | None
    memory_bytes: int | None
    gpus: tuple[str, ...]
    nvidia_driver: str | None
    jetson_linux: str | None
    jetpack: str | None

    @property
    def is_jetson(self) -> bool:
        """Whether this is a Jetson, of a kind that is a target or another."""
        return self.jetson_linux is not None or (self.target or "").startswith("jetson-")


def probe(files: SystemFiles | None = None, architecture: str | None = None) -> Probe:
    """Return what machine this is, from the files of its system alone.

    Args:
        files: of the system; None: of this one.
        architecture: as `uname -m` says it; None: what it says here.
    """
    files = files or SystemFiles()
    architecture = architecture or platform.machine()
    model = files.line("/proc/device-tree/model") or None
    compatible = files.text("/proc/device-tree/compatible")
    gpus = _gpus(files)
    target, because = _target(model, compatible, architecture, gpus)
    cpu_info = files.text("/proc/cpuinfo")
    return Probe(
        target=target,
        because=because,
        model=model,
        architecture=architecture,
        kernel=files.line("/proc/sys/kernel/osrelease") or None,
        system=_system(files),
        cpu=_field(cpu_info, "model name") or _arm_cores(cpu_info),
        cores=len(re.findall(r"^processor\s*:", cpu_info, re.MULTILINE)) or None,
        memory_bytes=memory_bytes(files, "MemTotal"),
        gpus=gpus,
        nvidia_driver=_driver(files),
        jetson_linux=_jetson_linux(files),
        jetpack=_jetpack(files),
    )


def memory_bytes(files: SystemFiles, name: str) -> int | None:
    """Return a value of /proc/meminfo, like MemTotal, in bytes."""
    found = re.search(rf"^{name}:\s*(\d{{1,15}}) kB", files.text("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def package_version(files: SystemFiles, name: str) -> str | None:
    """Return the version of a Debian package that is installed, or None."""
    for entry in files.text("/var/lib/dpkg/status").split("\n\n"):
        if f"Package: {name}" in entry.splitlines() and " installed" in (
            _field(entry, "Status") or ""
        ):
            return _field(entry, "Version")
    return None


def _target(
    model: str | None, compatible: str, architecture: str, gpus: tuple[str, ...]
) -> tuple[str | None, str]:
    for patterns, text, where in ((_MODULES, compatible, "compatible"), (_MODELS, model, "model")):
        for pattern, name in patterns:
            if found := re.search(pattern, text or ""):
                return name, f"/proc/device-tree/{where} holds {found[0]!r}"
    if model is not None:
        return None, f"the board {model!r} is none of the targets"
    if architecture not in ("x86_64", "AMD64"):
        return None, f"{architecture} without a device tree that names a board"
    if rtx := [gpu for gpu in gpus if "RTX" in gpu]:
        return "x86-rtx", f"{architecture} with {rtx[0]}"
    return "x86-cpu", f"{architecture} with {', '.join(gpus) or 'no NVIDIA GPU in use'}"


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}[ \t]*:[ \t]*(\S.*)$", text, re.MULTILINE)
    return found[1].strip() if found else None


def _arm_cores(cpu_info: str) -> str | None:
    """Return the kinds of cores that an Arm's /proc/cpuinfo tells by numbers."""
    makers = re.findall(r"^CPU implementer\s*:\s*(0x[0-9a-f]{1,4})$", cpu_info, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*(0x[0-9a-f]{1,4})$", cpu_info, re.MULTILINE)
    kinds = [
        _ARM_CORES[part] if maker == _ARM and part in _ARM_CORES else f"Arm core {maker} {part}"
        for maker, part in zip(makers, parts, strict=False)
    ]
    return ", ".join(dict.fromkeys(kinds)) or None


def _system(files: SystemFiles) -> str | None:
    release = files.text("/etc/os-release") or files.text("/usr/lib/os-release")
    found = re.search(r"^PRETTY_NAME=[\"']?([^\"'\n]+)", release, re.MULTILINE)
    return found[1].strip() if found else None


def _gpus(files: SystemFiles) -> tuple[str, ...]:
    folder = "/proc/driver/nvidia/gpus"
    told = (
        _field(files.text(f"{folder}/{slot}/information"), "Model") for slot in files.names(folder)
    )
    return tuple(gpu for gpu in told if gpu)


def _driver(files: SystemFiles) -> str | None:
    # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu …", or
    # "… NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build …".
    line = files.line("/proc/driver/nvidia/version")
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", line)
    return found[1] if found else None


def _jetson_linux(files: SystemFiles) -> str | None:
    # "# R36 (release), REVISION: 4.3, GCID: …": 36.4.3.
    line = files.line("/etc/nv_tegra_release")
    found = re.search(r"R(\d{1,4}) \(release\), REVISION: (\d{1,4}(?:\.\d{1,4})*)", line)
    return f"{found[1]}.{found[2]}" if found else None


def _jetpack(files: SystemFiles) -> str | None:
    version = package_version(files, "nvidia-jetpack")  # "6.2.1+b38", earlier "5.1.1-b56"
    return re.split(r"[+-]", version)[0] if version else None
