"""What limits this process by control groups, as those of a container do.

Versions 1 and 2, https://docs.kernel.org/admin-guide/cgroup-v2.html and
https://docs.kernel.org/scheduler/sched-bwc.html.
"""

from __future__ import annotations

import re

from edgekit.targets.files import SystemFiles

_UNLIMITED_BYTES = 1 << 62  # version 1 writes the largest multiple of a page


class Cgroups:
    """The groups that this process is in, with all that are above them.

    Args:
        files: of the system.
    """

    def __init__(self, files: SystemFiles) -> None:
        self._files = files
        self._mounts = _mounts(files)
        self._paths = _paths(files)

    def cpu_limit(self) -> float | None:
        """Return how many CPUs' time all of a group may use at most; None: no limit is seen."""
        limits = []
        for folder in self._folders("cpu"):
            # Version 2: "150000 100000" or "max 100000"; version 1: two files, -1 for no limit.
            found = re.fullmatch(r"(\d{1,18}) (\d{1,18})", self._files.line(f"{folder}/cpu.max"))
            quota = int(found[1]) if found else self._files.number(f"{folder}/cpu.cfs_quota_us")
            period = int(found[2]) if found else self._files.number(f"{folder}/cpu.cfs_period_us")
            if quota and period:
                limits.append(quota / period)
        return min(limits, default=None)

    def memory_limit_bytes(self) -> int | None:
        """Return the most memory that all of a group may hold; None: no limit is seen."""
        limits = []
        for folder in self._folders("memory"):
            for name in ("memory.max", "memory.limit_in_bytes"):
                limit = self._files.number(f"{folder}/{name}")
                if limit is not None and limit < _UNLIMITED_BYTES:
                    limits.append(limit)
        return min(limits, default=None)

    def throttled_s(self) -> float | None:
        """Return how long the limits of CPU have held the groups back, or None.

        It is summed over CPUs: two that stood still for a second are two seconds.
        """
        told = []
        for folder in self._folders("cpu"):
            statistics = self._files.text(f"{folder}/cpu.stat")
            for name, per_s in (("throttled_usec", 1e6), ("throttled_time", 1e9)):
                if found := re.search(rf"^{name} (\d{{1,18}})$", statistics, re.MULTILINE):
                    told.append(int(found[1]) / per_s)
        return sum(told) if told else None

    def _folders(self, controller: str) -> list[str]:
        """Return the folders of this process's group and of those above it, as far as mounted."""
        folders = []
        for name in (controller, ""):
            if name not in self._mounts or name not in self._paths:
                continue
            root, point = self._mounts[name]
            path = self._paths[name]
            # Of a container that sees its own group as the mount's root, the path is the host's.
            inside = path.removeprefix(root) if f"{path}/".startswith(f"{root}/") else ""
            parts = [part for part in inside.split("/") if part]
            folders += ["/".join([point, *parts[:n]]) for n in range(len(parts), -1, -1)]
        return folders


def _paths(files: SystemFiles) -> dict[str, str]:
    """Return this process's group by controller; "" is version 2's, which has all others."""
    paths: dict[str, str] = {}
    for line in files.text("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths |= dict.fromkeys(controllers.split(","), path)
    return paths


def _mounts(files: SystemFiles) -> dict[str, tuple[str, str]]:
    """Return root within the hierarchy and mount point, by controller."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in files.text("/proc/self/mountinfo").splitlines():
        # "36 35 98:0 /root /point rw,noatime master:1 - cgroup cgroup rw,cpu,cpuacct"
        fields, _, behind = line.partition(" - ")
        kind, _, options = behind.partition(" ")
        if kind not in ("cgroup", "cgroup2") or len(fields.split()) < 5:
            continue
        root, point = fields.split()[3:5]
        names = [""] if kind == "cgroup2" else options.split(" ")[-1].split(",")
        for name in names:
            mounts.setdefault(name, (root.rstrip("/"), point))
    return mounts
