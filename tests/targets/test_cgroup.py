"""Limits of control groups, on small trees like those of machines and containers."""

import pytest

from edgekit.targets.cgroup import Cgroups
from edgekit.targets.files import SystemFiles

V2 = {
    "proc/self/cgroup": "0::/user.slice/app.scope",
    "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw",
    "sys/fs/cgroup/user.slice/cpu.max": "300000 100000",
    "sys/fs/cgroup/user.slice/memory.max": "max",
    "sys/fs/cgroup/user.slice/cpu.stat": "usage_usec 9\nnr_throttled 1\nthrottled_usec 250000",
    "sys/fs/cgroup/user.slice/app.scope/cpu.max": "max 100000",
    "sys/fs/cgroup/user.slice/app.scope/memory.max": 1073741824,
    "sys/fs/cgroup/user.slice/app.scope/cpu.stat": "usage_usec 9\nthrottled_usec 500000",
}
# Docker without a namespace of groups: the mount's root is the container's own group.
V1_CONTAINER = {
    "proc/self/cgroup": "5:memory:/docker/1a2b\n4:cpu,cpuacct:/docker/1a2b\n1:name=systemd:/x",
    "proc/self/mountinfo": (
        "36 35 0:30 /docker/1a2b /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
        "37 35 0:31 /docker/1a2b /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n"
        "38 35 0:32 / /proc rw - proc proc rw\nnot a mount\n"
    ),
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": 50000,
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
    "sys/fs/cgroup/cpu,cpuacct/cpu.stat": "nr_periods 8\nnr_throttled 3\nthrottled_time 1500000000",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": 536870912,
}
UNLIMITED = {
    "proc/self/cgroup": "2:memory:/\n1:cpu:/\n0::/",
    "proc/self/mountinfo": (
        "36 35 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "37 35 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    ),
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
    "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
}
DAMAGED = {
    "proc/self/cgroup": "nonsense\n0::../../etc",
    "proc/self/mountinfo": "31 23 - cgroup2 cgroup2 rw\n31 23 0:28 / /c rw - cgroup2 c rw",
    "c/cpu.max": "lots 0",
    "c/cpu.stat": "throttled_usec none",
    "c/memory.max": "",
}


@pytest.fixture
def system(tmp_path):
    """Return a function that writes a tree and returns its files."""

    def system(tree):
        for name, content in tree.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{content}\n")
        return SystemFiles(tmp_path)

    return system


@pytest.mark.parametrize(
    ("tree", "cpus", "memory_bytes", "throttled_s"),
    [
        (V2, 3.0, 1 << 30, 0.75),
        (V1_CONTAINER, 0.5, 1 << 29, 1.5),
        (UNLIMITED, None, None, None),
        (DAMAGED, None, None, None),
        ({}, None, None, None),
    ],
    ids=["v2", "v1 container", "unlimited", "damaged", "none"],
)
def test_limits_are_the_narrowest_from_the_own_group_up(
    system, tree, cpus, memory_bytes, throttled_s
):
    groups = Cgroups(system(tree))
    assert groups.cpu_limit() == cpus
    assert groups.memory_limit_bytes() == memory_bytes
    assert groups.throttled_s() == throttled_s
