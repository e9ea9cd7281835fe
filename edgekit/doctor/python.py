"""Python: its version, whose it is, the C library below it, and the numpy that modules expect."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgekit.doctor.finding import Finding
from edgekit.doctor.machine import Machine, packages_in

_OLDEST, _NEWEST = (3, 10), (3, 13)
_GLIBC = (2, 28)  # of the wheels of OpenCV, ONNX Runtime and OpenVINO; LiteRT's want 2.27


def version(machine: Machine) -> Iterator[Finding]:
    """Look whether EdgeKit runs on this Python."""
    python = machine.python
    what = f"Python {'.'.join(map(str, python.version))}" + (
        f", virtual environment {python.prefix}" if python.is_venv else ""
    )
    known = f"3.{_OLDEST[1]} to 3.{_NEWEST[1]} are known to work"
    if python.version[:2] < _OLDEST:
        yield Finding(
            "fault", "python.version", f"{what}; {known}", f"install Python 3.{_OLDEST[1]}"
        )
    elif python.version[:2] > _NEWEST:
        remedy = f"use Python 3.{_NEWEST[1]} where packages are missing"
        yield Finding("warning", "python.version", f"{what}; {known}", remedy)
    else:
        yield Finding("ok", "python.version", what)


def system_python(machine: Machine) -> Iterator[Finding]:
    """Look whether a Jetson's Python can load JetPack's modules, which are built for one Python."""
    if not machine.probe.is_jetson:
        return
    if machine.python.is_system:
        yield Finding("ok", "python.jetpack", f"JetPack's own Python {machine.python.minor}")
        return
    yield Finding(
        "fault",
        "python.jetpack",
        f"this Python comes from {machine.python.base_prefix}, not from JetPack: "
        "JetPack's TensorRT and OpenCV cannot be loaded by it",
        "make the environment with: /usr/bin/python3 -m venv --system-site-packages .venv",
    )


def userland(machine: Machine) -> Iterator[Finding]:
    """Look for 32-bit programs on a 64-bit kernel: no inference engine has wheels for them."""
    bits, architecture = machine.python.bits, machine.probe.architecture
    if bits == 64:
        yield Finding("ok", "python.bits", f"64-bit Python on {architecture}")
        return
    yield Finding(
        "fault",
        "python.bits",
        f"a {bits}-bit Python on {architecture}: the inference engines have 64-bit wheels only",
        "install the 64-bit system, like Raspberry Pi OS (64-bit)",
    )


def c_library(machine: Machine) -> Iterator[Finding]:
    """Look whether the C library is one that the wheels are built for."""
    found = re.fullmatch(r"glibc (\d{1,4})\.(\d{1,4})(\.\d+)*", machine.python.libc)
    needed = f"wheels of the inference engines are built for glibc {_GLIBC[0]}.{_GLIBC[1]} or later"
    if found is None:
        what = f"the C library is not glibc; {needed}"
        yield Finding("fault", "python.glibc", what, "use a system with glibc, like Debian")
    elif (int(found[1]), int(found[2])) < _GLIBC:
        remedy = "update the system, or accept the older versions that pip finds"
        yield Finding("warning", "python.glibc", f"{machine.python.libc}; {needed}", remedy)
    else:
        yield Finding("ok", "python.glibc", machine.python.libc)


def numpy_abi(machine: Machine) -> Iterator[Finding]:
    """Look for a numpy 2 that hides the numpy 1 which the distribution's modules are built for."""
    numpy = machine.package("numpy")
    if numpy is None:
        return
    broken = expects_numpy_1(machine)
    refused = machine.opencv is not None and numpy_refusal(machine.opencv.failure)
    if not broken and not refused:
        yield Finding("ok", "numpy.version", f"numpy {numpy.version}")
        return
    # A module in OpenCV's way is certain; TensorRT's has not been tried with numpy 2.
    is_fault = refused or "cv2" in broken
    yield Finding(
        "fault" if is_fault else "warning",
        "numpy.version",
        f"numpy {numpy.version} in {numpy.folder}, but {', '.join(broken or ['cv2'])} "
        f"{'is' if is_fault else 'may be'} built for numpy 1",
        "pip install 'numpy<2'",
    )


def expects_numpy_1(machine: Machine) -> list[str]:
    """Return the distribution's modules that this Python imports beside a newer numpy than theirs.

    A distribution builds its modules with its own numpy: where that is 1, they do not load with 2.
    """
    numpy, system = machine.package("numpy"), machine.python.system_folders
    theirs = [p for f in system for p in packages_in(machine.files, f) if p.name == "numpy"]
    if numpy is None or not numpy.version.startswith("2."):
        return []
    if not any(package.version.startswith("1.") for package in theirs):
        return []
    return [name for name in ("cv2", "tensorrt") if machine.module(name) in system]


def numpy_refusal(failure: str) -> bool:
    """Return whether an import's error says that the module was built for another numpy."""
    return bool(re.search(r"_ARRAY_API|numpy\.(core\.multiarray|dtype size changed)", failure))
