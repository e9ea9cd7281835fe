"""What is wrong with a machine, or good to know of it: small checks over its files, one by one.

A family of checks is a file; each check takes a `Machine` and yields what it found. Nothing here
imports an engine or OpenCV; `this_machine` asks OpenCV in a process of its own.
"""

from __future__ import annotations

from edgekit.doctor import access, engines, memory, opencv, power, python, tensorrt
from edgekit.doctor.finding import SEVERITIES, Check, Finding
from edgekit.doctor.machine import Machine, this_machine

__all__ = ["CHECKS", "SEVERITIES", "Finding", "Machine", "diagnose", "this_machine"]

CHECKS: tuple[Check, ...] = (
    python.version,
    python.system_python,
    python.userland,
    python.c_library,
    python.numpy_abi,
    opencv.build,
    opencv.shadowed,
    opencv.wheels,
    engines.installed,
    engines.clashing,
    engines.superseded,
    tensorrt.module,
    tensorrt.libraries,
    tensorrt.toolkit,
    access.cameras,
    access.gpu,
    power.power_mode,
    power.gpu_clock,
    power.cpu_clock,
    power.throttling,
    power.temperature,
    memory.swap,
    memory.disks,
)


def diagnose(machine: Machine) -> list[Finding]:
    """Return what all checks find, the worst first, and otherwise in the order of the checks."""
    found = [finding for check in CHECKS for finding in check(machine)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
