"""Telemetry beside a measurement: planted readers on a clock of their own, and small trees."""

import subprocess
import sys
import threading

import pytest

from edgekit.errors import EnvironmentLacks
from edgekit.profiling.device import Recorder, quiet_readers
from edgekit.profiling.results import Energy, Moment
from edgekit.targets.telemetry import Sample


class Device:
    """A device of planted telemetry: each reading takes `cost_s`; `watts` draws at each time."""

    name = "planted"

    def __init__(self, name="ina3221", watts=lambda s: 5.0, cost_s=0.0):
        self.name = name
        self.now_s = 100.0
        self.cpu_s = 0.0
        self.cost_s = cost_s
        self.watts = watts
        self.reads = 0

    def read(self):
        self.reads += 1
        self.cpu_s += self.cost_s
        return self.sample()

    def sample(self):
        milliwatts = 1000 * self.watts(self.now_s)
        return Sample(power_mw={"VDD_CPU_GPU_CV": 1.0, "VDD_IN": milliwatts})

    def recorder(self, *others, **options):
        return Recorder(
            [self, *others], clock=lambda: self.now_s, cost_clock=lambda: self.cpu_s, **options
        )

    def wait(self, recorder, seconds, step_s=0.25):
        """Let time pass as the recorder's thread would."""
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            recorder.read()


class Counters(Device):
    """Energy counters like those of RAPL, which also give a mean power."""

    rails = {"package-0": 1.0, "package-1": 1.0, "package-0/core": 0.5, "dram": 0.1}

    def sample(self):
        used_j = self.watts(0) * (self.now_s - 100)
        return Sample(
            energy_j={rail: share * used_j for rail, share in self.rails.items()},
            power_mw=dict.fromkeys(self.rails, 1e9),
        )


class Broken:
    name = "rapl"
    tried = 0

    def read(self):
        self.tried += 1
        raise EnvironmentLacks("energy_uj may only be read by root")


def test_moments_are_on_the_clock_of_the_latencies():
    device = Device(watts=lambda s: s / 10)
    recorder = device.recorder()
    recorder.read()
    device.wait(recorder, 0.5)
    assert recorder.moments(since_s=100.25) == tuple(
        Moment(at_s=at_s, power_mw={"VDD_CPU_GPU_CV": 1.0, "VDD_IN": pytest.approx(mw)})
        for at_s, mw in ((-0.25, 10_000), (0.0, 10_025), (0.25, 10_050))
    )


def test_all_readers_of_a_moment_are_one():
    class Heat:
        name = "thermal"

        def read(self):
            return Sample(
                temperature_c={"cpu": 61.0}, clocks_mhz={"cpu0": 1500.0}, throttled=("hot", "weak")
            )

    class Flags:
        name = "raspberry_pi"

        def read(self):
            return Sample(throttled=("weak",), temperature_c={"soc": 60.0})

    recorder = Recorder([Heat(), Flags()], clock=lambda: 7.0)
    recorder.read()
    assert recorder.moments(7.0) == (
        Moment(
            at_s=0,
            temperature_c={"cpu": 61.0, "soc": 60.0},
            clocks_mhz={"cpu0": 1500.0},
            throttled=("hot", "weak"),
        ),
    )


def test_a_reader_that_fails_is_told_once_and_the_others_go_on():
    device, broken = Device(), Broken()
    recorder = device.recorder(broken)
    recorder.read()
    device.wait(recorder, 1)
    assert recorder.refusals == {"rapl": "energy_uj may only be read by root"}
    assert broken.tried == 1
    assert len(recorder.moments(0)) == device.reads == 5


@pytest.mark.parametrize(("cost_s", "pause_s"), [(0.0, 0.25), (0.0004, 0.25), (0.002, 1.0)])
def test_reading_costs_less_than_a_five_hundredth_of_a_cpu(cost_s, pause_s):
    assert Device(cost_s=cost_s).recorder().read() == pytest.approx(pause_s)


def test_what_a_reader_runs_is_a_part_of_its_cost():
    class Program:
        name = "program"

        def read(self):
            subprocess.run([sys.executable, "-S", "-c", "sum(range(300_000))"], check=True)
            return Sample()

    # The program alone takes some 10 ms of CPU time, 5 s at a five-hundredth.
    assert Recorder([Program()]).read() > 1


def test_a_long_recording_is_thinned_out_and_keeps_its_ends():
    device = Device()
    recorder = device.recorder(period_s=1.0)
    recorder.read()
    device.wait(recorder, 9000, step_s=1.0)
    moments = recorder.moments(100.0)
    assert 2048 <= len(moments) <= 4096
    assert (moments[0].at_s, moments[-1].at_s) == (0, 9000)
    assert recorder.read() == 8.0  # thinned three times, and the pauses doubled each time


def test_power_is_integrated_over_the_measured_runs_alone():
    """10 W from 104 s on; before it the load of the warm-up, and 2 W idle."""
    device = Device(watts=lambda s: 2.0 if s <= 102 else 50.0 if s < 104 else 10.0)
    recorder = device.recorder()
    recorder.read()
    recorder.rest(1.0, sleep=lambda seconds: device.wait(recorder, seconds))
    device.wait(recorder, 9)
    assert recorder.energy(104.0, 109.0, 25) == Energy(
        rail="ina3221: VDD_IN",
        joules_per_inference=pytest.approx(2.0),
        mean_power_w=pytest.approx(10.0),
        idle_power_w=pytest.approx(2.0),
    )


def test_power_between_two_readings_is_taken_as_a_ramp():
    device = Device(watts=lambda s: s - 100)
    recorder = device.recorder()
    recorder.read()
    device.wait(recorder, 4, step_s=4)
    found = recorder.energy(101.0, 103.0, 1)
    # What the trapezoidal rule has at the ends is joined by a line: 4 of 8 J in half of the time.
    assert found.joules_per_inference == pytest.approx(4.0)


def test_energy_counters_go_before_power_and_packages_are_added_up():
    device = Counters("rapl", watts=lambda s: 15.0)
    recorder = device.recorder()
    recorder.read()
    device.wait(recorder, 4)
    assert recorder.energy(101.1, 103.1, 100) == Energy(
        rail="rapl: package-0 + package-1",
        joules_per_inference=pytest.approx(0.6),
        mean_power_w=pytest.approx(30.0),
    )


def test_the_counter_of_the_whole_platform_goes_first():
    device = Counters("rapl")
    device.rails = {**Counters.rails, "psys": 4.0}
    recorder = device.recorder()
    recorder.read()
    device.wait(recorder, 1)
    assert recorder.energy(100, 101, 10).rail == "rapl: psys"


@pytest.mark.parametrize(
    ("power_mw", "rail"),
    [
        ({"VIN": 9.0, "VDD_GPU": 3.0}, "ina3221: VIN"),
        (
            {"VDD_GPU_SOC": 1.0, "VDD_CPU_CV": 1.0, "VIN_SYS_5V0": 1.0, "VDDQ_VDD2_1V8AO": 1.0},
            "ina3221: VDD_CPU_CV + VDD_GPU_SOC + VIN_SYS_5V0",
        ),
        ({"VDD_GPU": 3.0}, None),  # a part of what is drawn, and nobody knows which
        ({}, None),
    ],
)
def test_the_rail_is_all_that_the_board_draws(power_mw, rail):
    device = Device()
    device.sample = lambda: Sample(power_mw=power_mw)
    recorder = device.recorder()
    recorder.read()
    device.wait(recorder, 1)
    found = recorder.energy(100, 101, 1)
    assert (found and found.rail) == rail


@pytest.mark.parametrize(
    ("since_s", "until_s", "inferences"),
    [(99, 101, 5), (100, 102, 5), (101, 100, 5), (100, 101, 0)],
)
def test_energy_of_a_time_that_was_not_recorded_is_not_known(since_s, until_s, inferences):
    device = Device()
    recorder = device.recorder()
    recorder.read()
    device.wait(recorder, 1)
    assert recorder.energy(since_s, until_s, inferences) is None


def test_a_machine_without_power_does_not_rest():
    def sleep(seconds):
        raise AssertionError("there is nothing to wait for")

    with Recorder([]) as recorder:
        recorder.rest(60, sleep)
    assert recorder.moments(0) == ()
    assert recorder.energy(0, 1, 1) is None


def test_the_thread_reads_until_it_is_stopped():
    several = threading.Event()

    class Counting(Device):
        def sample(self):
            if self.reads >= 4:
                several.set()
            return super().sample()

    device = Counting()
    with device.recorder(period_s=0.001) as recorder:
        assert several.wait(60)
    reads = device.reads
    assert len(recorder.moments(0)) == reads >= 5
    recorder.stop()  # once more does nothing
    assert device.reads == reads
    assert not [t for t in threading.enumerate() if t.name == "telemetry"]


def test_readers_that_take_long_are_left_out(tmp_path):
    for name, text in {
        "usr/bin/tegrastats": "",
        "sys/class/hwmon/hwmon1/name": "ina3221",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1510400\n",
        "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "729600\n",
        "sys/devices/system/cpu/cpufreq/policy8/related_cpus": "8\n",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = {reader.name: reader for reader in quiet_readers(tmp_path)}
    assert found.keys() == {"cpufreq", "ina3221"}
    assert found["cpufreq"].read().clocks_mhz == {"cpu0": 1510.4, "cpu4": 729.6}
