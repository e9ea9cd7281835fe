"""Permissions: whether this user may open the cameras, and on a Jetson the GPU's memory."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.doctor.finding import Finding, Severity
from edgekit.doctor.machine import Machine, Node

_READ, _WRITE = 0o4, 0o2


def cameras(machine: Machine) -> Iterator[Finding]:
    """Look whether the user may open each /dev/video*."""
    nodes = [node for node in machine.nodes if node.path.startswith("/dev/video")]
    yield from _nodes(machine, nodes, _READ | _WRITE, "access.camera", "warning", "cameras")


def gpu(machine: Machine) -> Iterator[Finding]:
    """Look whether the user may open the GPU: without, CUDA says that there is none."""
    # JetPack makes nvmap readable by the group `video`, and no more.
    nodes = [node for node in machine.nodes if node.path == "/dev/nvmap"]
    yield from _nodes(machine, nodes, _READ, "access.gpu", "fault", "the GPU")
    nodes = [node for node in machine.nodes if node.path.startswith("/dev/nvidia")]
    yield from _nodes(machine, nodes, _READ | _WRITE, "access.gpu", "fault", "the GPU")


def _nodes(
    machine: Machine, nodes: list[Node], wanted: int, check: str, severity: Severity, what: str
) -> Iterator[Finding]:
    closed = [node for node in nodes if not _is_open(machine, node, wanted)]
    if not nodes:
        return
    if not closed:
        yield Finding(
            "ok", check, f"{machine.user.name} may open {', '.join(n.path for n in nodes)}"
        )
        return
    node = closed[0]
    group = machine.groups.get(node.gid, str(node.gid))
    paths = ", ".join(node.path for node in closed)
    yield Finding(
        severity,
        check,
        f"{machine.user.name} may not open {what} {paths} of group {group}",
        f"sudo usermod -aG {group} {machine.user.name}, then log in again",
    )


def _is_open(machine: Machine, node: Node, wanted: int) -> bool:
    user = machine.user
    if user.uid == 0:
        return True
    shift = 6 if node.uid == user.uid else 3 if node.gid in user.groups else 0
    return node.mode >> shift & wanted == wanted
