"""What the machine did meanwhile, from planted counters; nothing is waited for."""

import os
from types import SimpleNamespace

import pytest

from edgekit.errors import UsageError
from edgekit.profiling.pressure import PressureMeter
from edgekit.profiling.results import Pressure
from edgekit.targets.files import SystemFiles

PER_S = os.sysconf("SC_CLK_TCK")


class Machine:
    """A system's files, clock and usage, which a test puts forward."""

    def __init__(self, root):
        self.root = root
        self.now_s = 100.0
        self.used = {"ru_utime": 5.0, "ru_stime": 1.0, "ru_nivcsw": 70, "ru_majflt": 3}

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def stalls(self, **seconds):
        for name, some_s in seconds.items():
            averages = "avg10=1.00 avg60=2.00 avg300=3.00"
            self.write(
                f"proc/pressure/{name}",
                f"some {averages} total={some_s * 1e6:.0f}\nfull {averages} total=0\n",
            )

    def processors(self, *seconds):
        """Plant user, system, idle, iowait and steal seconds of each CPU."""
        each = [
            [int(s * PER_S) for s in (user, 0, system, idle, iowait, 0, 0, steal, 0, 0)]
            for user, system, idle, iowait, steal in seconds
        ]
        rows = [("cpu ", [sum(column) for column in zip(*each, strict=True)])]
        rows += [(f"cpu{number}", row) for number, row in enumerate(each)]
        lines = [f"{name} {' '.join(map(str, row))}" for name, row in rows]
        self.write("proc/stat", "\n".join([*lines, "intr 1 2 3", "ctxt 99"]) + "\n")

    def throttled(self, seconds):
        self.write("proc/self/cgroup", "0::/\n")
        self.write("proc/self/mountinfo", "1 2 0:3 / /cg rw - cgroup2 c rw\n")
        self.write("cg/cpu.stat", f"throttled_usec {seconds * 1e6:.0f}\n")

    def meter(self, cpus=(0, 1)):
        return PressureMeter(
            SystemFiles(self.root),
            clock=lambda: self.now_s,
            usage=lambda: SimpleNamespace(**self.used),
            cpus=frozenset(cpus),
        )


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_counters_become_shares_of_the_time_between(machine):
    machine.stalls(cpu=50, memory=10, io=20)
    machine.processors((10, 5, 100, 1, 2), (20, 5, 100, 1, 3), (0, 0, 200, 0, 50))
    machine.throttled(7)
    meter = machine.meter()
    meter.start()
    machine.now_s += 10
    machine.stalls(cpu=52, memory=10, io=20.5)
    machine.processors((14, 6, 105, 1, 2), (23, 6, 104, 1, 5), (0, 0, 201, 0, 59))
    machine.throttled(7.25)
    machine.used = {"ru_utime": 10.0, "ru_stime": 2.0, "ru_nivcsw": 75, "ru_majflt": 4}
    assert meter.stop() == Pressure(
        wall_s=10,
        cpu_stalled=0.2,
        memory_stalled=0.0,
        io_stalled=0.05,
        stolen=0.1,  # 2 s of the 20 s of the two CPUs that this process may use
        others=0.3,  # 9 s that all worked, less 6 s of its own
        involuntary_switches=5,
        major_faults=1,
        throttled_s=0.25,
    )


def test_what_the_system_does_not_tell_is_none_not_zero(machine):
    meter = machine.meter()
    meter.start()
    machine.now_s += 1
    assert meter.stop() == Pressure(wall_s=1, involuntary_switches=0, major_faults=0)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("proc/pressure/cpu", "some avg10=nan total=-1\n"),
        ("proc/pressure/cpu", "full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"),
        ("proc/stat", "cpu  1 2 3\ncpu0 1 2 3\n"),
        ("proc/stat", "\0\xff"),
    ],
)
def test_damaged_files_tell_nothing(machine, path, text):
    machine.write(path, text)
    meter = machine.meter()
    meter.start()
    found = meter.stop()
    assert found.cpu_stalled is found.stolen is found.others is None


def test_a_counter_that_began_anew_tells_nothing(machine):
    machine.stalls(cpu=50)
    meter = machine.meter()
    meter.start()
    machine.now_s += 1
    machine.stalls(cpu=1)
    assert meter.stop().cpu_stalled is None


def test_more_own_time_than_ticks_is_no_work_of_others(machine):
    machine.processors((1, 0, 0, 0, 0))
    meter = machine.meter()
    meter.start()
    machine.now_s += 1
    machine.used["ru_utime"] += 0.004  # less than a tick, which the other file has not seen yet
    assert meter.stop().others == 0.0


def test_it_is_started_before_it_is_stopped(machine):
    meter = machine.meter()
    with pytest.raises(UsageError, match="was not started"):
        meter.stop()
    meter.start()
    meter.stop()
    with pytest.raises(UsageError, match="was not started"):
        meter.stop()


def test_this_machine_has_something_to_tell():
    meter = PressureMeter()
    meter.start()
    found = meter.stop()
    assert found.wall_s > 0
    assert found.involuntary_switches >= 0
    if SystemFiles().is_there("/proc/stat"):
        assert found.others >= 0
