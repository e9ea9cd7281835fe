"""OpenCV: whether there is one, whose build it is, and what that build can open."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgekit.doctor.finding import Finding
from edgekit.doctor.machine import Machine
from edgekit.doctor.python import numpy_refusal

_WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
OWN_VENV = "python3 -m venv --system-site-packages .venv"


def build(machine: Machine) -> Iterator[Finding]:
    """Look which OpenCV is imported, and whether it opens GStreamer pipelines."""
    folder, answer = machine.module("cv2"), machine.opencv
    if folder is None or answer is None:
        yield _missing(machine)
    elif numpy_refusal(answer.failure):
        return  # told as numpy's
    elif answer.failure:
        yield Finding(
            "fault",
            "opencv.import",
            f"OpenCV in {folder} cannot be imported: {answer.failure}",
            _import_remedy(answer.failure),
        )
    else:
        has = has_gstreamer(answer.build)
        what = f"OpenCV {answer.version} in {folder}, {'with' if has else 'without'} GStreamer"
        # A Python that is not JetPack's, and a wheel before JetPack's build, are told elsewhere.
        is_told = _is_shadowing(machine) or not machine.python.is_system
        if has or is_told or not machine.probe.is_jetson:
            yield Finding("ok", "opencv.import", what)
        else:
            yield Finding(
                "warning",
                "opencv.import",
                f"{what}: it opens no CSI camera",
                "sudo apt install nvidia-opencv, and pip uninstall every opencv wheel",
            )


def shadowed(machine: Machine) -> Iterator[Finding]:
    """Look for a wheel of OpenCV that stands before the distribution's build with GStreamer."""
    answer = machine.opencv
    if not _is_shadowing(machine) or answer is None or has_gstreamer(answer.build):
        return
    theirs, ours = machine.system_module("cv2"), machine.module("cv2")
    wheels = " ".join(p.name for p in machine.packages if p.name in _WHEELS) or "opencv-python"
    is_jetson = machine.probe.is_jetson
    yield Finding(
        "warning" if is_jetson else "note",
        "opencv.shadowed",
        f"OpenCV in {ours} is imported in place of the {'JetPack' if is_jetson else 'system'} "
        f"build in {theirs}: csi:// and GStreamer pipelines do not open",
        f"pip uninstall {wheels}"
        + ("" if theirs in machine.python.path else f", in an environment made with: {OWN_VENV}"),
    )


def wheels(machine: Machine) -> Iterator[Finding]:
    """Look for several wheels of OpenCV, which overwrite each other's files."""
    found = {p.name: p for p in machine.packages if p.name in _WHEELS}
    if len(found) < 2:
        return
    names = [f"{package.name} {package.version}" for package in found.values()]
    yield Finding(
        "warning",
        "opencv.wheels",
        f"{' and '.join(names)} are installed; they overwrite each other's files",
        f"pip uninstall {' '.join(found)}, then install the one that is wanted",
    )


def has_gstreamer(build: str) -> bool:
    """Return whether `cv2.getBuildInformation()` names GStreamer as built in."""
    return re.search(r"^\s*GStreamer:\s*YES\b", build, re.MULTILINE) is not None


def _is_shadowing(machine: Machine) -> bool:
    """Return whether another OpenCV than the distribution's is imported, and both are there.

    On a Jetson a virtual environment without the distribution's modules counts too: there it is
    the wrong kind. Elsewhere it is the usual one.
    """
    theirs, ours = machine.system_module("cv2"), machine.module("cv2")
    if theirs is None or ours is None or ours in machine.python.system_folders:
        return False
    is_jetpacks = machine.probe.is_jetson and machine.python.is_system
    return is_jetpacks or theirs in machine.python.path


def _missing(machine: Machine) -> Finding:
    theirs = machine.system_module("cv2")
    is_hidden = theirs is not None and theirs not in machine.python.path
    what = (
        f"the system's OpenCV in {theirs} is not visible from {machine.python.prefix}"
        if is_hidden
        else "there is no OpenCV; images need it"
    )
    if not machine.probe.is_jetson:
        remedy = "pip install 'edgekit[cpu]'"
    elif is_hidden:
        remedy = f"make the environment with: {OWN_VENV}"
    else:
        remedy = f"sudo apt install nvidia-opencv, and make the environment with: {OWN_VENV}"
    return Finding("fault", "opencv.import", what, remedy)


def _import_remedy(failure: str) -> str:
    if re.search(r"libGL|libgthread|libglib", failure):
        return "pip uninstall opencv-python, then pip install opencv-python-headless"
    return "install it again, and see python3 -c 'import cv2' for all that it says"
