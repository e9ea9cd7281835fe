"""TensorRT and CUDA on a Jetson: there, visible from this environment, and found by the loader."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from edgekit.doctor.finding import Finding
from edgekit.doctor.machine import Machine
from edgekit.doctor.opencv import OWN_VENV

_INSTALL = "sudo apt update && sudo apt install nvidia-jetpack"
_DRIVER = "flash the board again, or: sudo apt install --reinstall nvidia-l4t-cuda nvidia-l4t-core"


def module(machine: Machine) -> Iterator[Finding]:
    """Look whether `import tensorrt` finds JetPack's module."""
    if not machine.probe.is_jetson:
        return
    ours, theirs = machine.module("tensorrt"), machine.system_module("tensorrt")
    if ours is None and not machine.python.is_system:
        return  # told by python.jetpack: no environment of that Python can see it
    if ours is None and theirs is None:
        what = "TensorRT's Python module is not installed"
        yield Finding("fault", "tensorrt.module", what, _INSTALL)
    elif ours is None:
        what = f"TensorRT in {theirs} is not visible from {machine.python.prefix}"
        remedy = f"make the environment with: {OWN_VENV}"
        yield Finding("fault", "tensorrt.module", what, remedy)
    elif theirs is not None and ours != theirs:
        what = f"TensorRT in {ours} is imported in place of JetPack's in {theirs}"
        yield Finding("warning", "tensorrt.module", what, "pip uninstall tensorrt")
    else:
        package = machine.package("tensorrt")
        version = f" {package.version}" if package else ""
        yield Finding("ok", "tensorrt.module", f"TensorRT{version} in {ours}")


def libraries(machine: Machine) -> Iterator[Finding]:
    """Look whether the loader finds the libraries that TensorRT needs."""
    if not machine.probe.is_jetson:
        return
    wanted = [("libcuda.so", _DRIVER), ("libcudart.so", _INSTALL), ("libnvinfer.so", _INSTALL)]
    if "orin" in (machine.probe.target or ""):
        wanted.append(("libcudla.so", _INSTALL))  # Orin's TensorRT is linked to it, DLA or not
    folders = loader_folders(machine)
    there = {name for folder in folders for name in machine.files.names(folder)}
    missing = [(n, r) for n, r in wanted if not any(f == n or f.startswith(f"{n}.") for f in there)]
    for name, remedy in missing:
        what = f"{name} is in none of the {len(folders)} folders that the loader searches"
        yield Finding("fault", f"cuda.{name.removesuffix('.so')}", what, remedy)
    if not missing:
        found = ", ".join(name for name, _ in wanted)
        yield Finding("ok", "cuda.libraries", f"the loader finds {found}")


def toolkit(machine: Machine) -> Iterator[Finding]:
    """Look for /usr/local/cuda, which building pycuda and the GPU's preprocessing need."""
    if not machine.probe.is_jetson or machine.files.is_there("/usr/local/cuda/bin/nvcc"):
        return
    what = "/usr/local/cuda/bin/nvcc is not there: pycuda cannot be built, and the CPU preprocesses"
    yield Finding("note", "cuda.toolkit", what, "sudo apt install nvidia-jetpack-dev")


def loader_folders(machine: Machine) -> list[str]:
    """Return the folders in which the loader searches, by environment and configuration."""
    folders = machine.environment.get("LD_LIBRARY_PATH", "").split(":")
    folders += _configured(machine, "/etc/ld.so.conf")
    multiarch = f"{machine.probe.architecture}-linux-gnu"
    folders += [
        f"{place}{kind}" for kind in (f"/{multiarch}", "") for place in ("/lib", "/usr/lib")
    ]
    return list(dict.fromkeys(folder for folder in folders if folder.startswith("/")))


def _configured(machine: Machine, path: str, *, is_included: bool = False) -> list[str]:
    """Return the folders that an ld.so.conf names; `include` goes one level deep, as it is used."""
    folders: list[str] = []
    for line in machine.files.text(path).splitlines():
        words = line.partition("#")[0].split()
        if words[:1] == ["include"] and not is_included:
            for pattern in words[1:]:
                folder, _, name = pattern.rpartition("/")
                for found in fnmatch.filter(machine.files.names(folder), name):
                    folders += _configured(machine, f"{folder}/{found}", is_included=True)
        elif words:
            folders.append(words[0])
    return folders
