"""Memory, swap and disk: what ends a process, or leaves a bundle unwritten."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgekit.doctor.finding import Finding
from edgekit.doctor.machine import Machine
from edgekit.targets.probe import memory_bytes

_SMALL_BYTES = 4.5e9  # boards sold with 4 GB or less
_FULL_DISK_BYTES, _LOW_DISK_BYTES = 50e6, 1e9


def swap(machine: Machine) -> Iterator[Finding]:
    """Look whether a board with little memory has swap, and whether that is already full."""
    total = machine.probe.memory_bytes
    if total is None:
        return
    # Filename, type, size, used, priority; sizes in KiB.
    rows = re.findall(
        r"^(\S+)\s+(?:partition|file)\s+(\d{1,15})\s+(\d{1,15})\b",
        machine.files.text("/proc/swaps"),
        re.MULTILINE,
    )
    size = sum(int(row[1]) * 1024 for row in rows)
    used = sum(int(row[2]) * 1024 for row in rows)
    available = memory_bytes(machine.files, "MemAvailable")
    what = f"{total / 1e9:.1f} GB of memory, " + (
        f"{size / 1e9:.1f} GB of swap ({', '.join(row[0] for row in rows)})" if rows else "no swap"
    )
    if available is not None and available < 0.05 * total and used > 0.8 * size:
        what += (
            f"; {available / 1e9:.2f} GB are left and {used / size if size else 1:.0%} of it used"
        )
        remedy = "stop other programs, or use a smaller model; the system ends processes soon"
        yield Finding("warning", "memory.swap", what, remedy)
    elif not rows and total < _SMALL_BYTES:
        what += "; a peak of memory ends the process"
        is_jetson = machine.probe.is_jetson
        way = "systemctl enable --now nvzramconfig" if is_jetson else "apt install zram-tools"
        remedy = f"add swap in compressed memory: sudo {way}"
        yield Finding("warning", "memory.swap", what, remedy)
    else:
        yield Finding("ok", "memory.swap", what)


def disks(machine: Machine) -> Iterator[Finding]:
    """Look whether there is room where EdgeKit writes."""
    for disk in machine.disks:
        free = f"{disk.free_bytes / 1e9:.1f} GB free for {disk.use} ({disk.folder})"
        name = "disk.space"
        if not disk.writable:
            what = f"{disk.folder} cannot be written by {machine.user.name}; it is for {disk.use}"
            yield Finding("warning", "disk.access", what, "change its owner, or work elsewhere")
        elif disk.free_bytes < _FULL_DISK_BYTES:
            yield Finding("fault", name, free, "free some space: nothing can be written")
        elif disk.free_bytes < _LOW_DISK_BYTES:
            yield Finding("warning", name, free, "free some space: bundles and engines are large")
        else:
            yield Finding("ok", name, free)
