"""Inference engines: which are installed, seen from their files, without importing any."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.doctor.finding import Finding
from edgekit.doctor.machine import Machine
from edgekit.doctor.opencv import OWN_VENV

# Module, the distributions that bring it, and how to get it.
_ENGINES = (
    ("ai_edge_litert", ("ai-edge-litert",), "pip install ai-edge-litert"),
    ("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), "pip install 'edgekit[onnx]'"),
    ("openvino", ("openvino",), "pip install 'edgekit[openvino]'"),
    ("tensorrt", ("tensorrt",), "see docs/install.md"),
    ("tensorrt_rtx", ("tensorrt-rtx", "tensorrt-rtx-cu13"), "pip install 'edgekit[rtx]'"),
)


def installed(machine: Machine) -> Iterator[Finding]:
    """Look which engines can be imported, by their modules and metadata."""
    there = []
    for module, names, remedy in _ENGINES:
        package = machine.package(*names)
        if machine.module(module) is not None:
            there.append(f"{names[0]} {package.version if package else '(version unknown)'}")
        elif package is not None:
            yield Finding(
                "fault",
                f"engine.{module}",
                f"{package.name} {package.version} is listed in {package.folder}, "
                f"but its module {module} is not there for Python {machine.python.minor}",
                f"pip uninstall {package.name}, then {remedy}",
            )
    if there:
        yield Finding("ok", "engine.installed", ", ".join(there))
    else:
        what = "no inference engine is installed; nothing can run a bundle"
        # On a Jetson edgekit[cpu] would bring an OpenCV that hides JetPack's.
        remedy = (
            f"make the environment with: {OWN_VENV}; for the CPU: pip install ai-edge-litert"
            if machine.probe.is_jetson
            else "pip install 'edgekit[cpu]'"
        )
        yield Finding("fault", "engine.installed", what, remedy)


def clashing(machine: Machine) -> Iterator[Finding]:
    """Look for two builds of ONNX Runtime, which overwrite each other's files."""
    found = [p for name in _ENGINES[1][1] if (p := machine.package(name))]
    if len(found) > 1:
        names = " and ".join(f"{package.name} {package.version}" for package in found)
        yield Finding(
            "warning",
            "engine.onnxruntime",
            f"{names} are installed; they overwrite each other's files",
            "pip uninstall onnxruntime onnxruntime-gpu, then install the one that is wanted",
        )


def superseded(machine: Machine) -> Iterator[Finding]:
    """Look for tflite-runtime, which EdgeKit does not use: LiteRT took its place."""
    old = machine.package("tflite-runtime")
    if old is not None:
        what = f"tflite-runtime {old.version} is not used; ai-edge-litert took its place"
        yield Finding("note", "engine.tflite_runtime", what, "pip uninstall tflite-runtime")
