"""Readers of files, on small trees like those of the devices; no such device was at hand."""

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import EnvironmentLacks
from edgekit.targets.telemetry import Sample, readers
from edgekit.targets.telemetry.rapl import Rapl
from edgekit.targets.telemetry.raspberry_pi import FLAGS, parse

HWMON = "sys/class/hwmon/hwmon"
ZONE = "sys/class/thermal/thermal_zone"
POWERCAP = "sys/class/powercap/intel-rapl:"

ORIN_NANO = {
    f"{HWMON}0/name": "pwmfan",
    f"{HWMON}1/name": "ina3221",
    f"{HWMON}1/in1_label": "VDD_IN",
    f"{HWMON}1/in1_input": 5000,
    f"{HWMON}1/curr1_input": 960,
    f"{HWMON}1/in2_label": "VDD_CPU_GPU_CV",
    f"{HWMON}1/in2_input": 4992,
    f"{HWMON}1/curr2_input": 100,
    f"{HWMON}1/in3_label": "NC",
    f"{HWMON}1/in3_input": 4992,
    f"{HWMON}1/curr3_input": 0,
    f"{HWMON}1/in4_input": 12,  # a shunt, which is no rail
    f"{HWMON}1/curr4_input": 12,
    f"{ZONE}0/type": "cpu-thermal",
    f"{ZONE}0/temp": 47500,
    f"{ZONE}1/type": "gpu-thermal",  # without power: it has no temp that could be read
    f"{ZONE}10/type": "cv0-thermal",
    f"{ZONE}10/temp": -256000,
    f"{ZONE}2/type": "tj-thermal",
    f"{ZONE}2/temp": 48031,
    "sys/class/thermal/cooling_device0/type": "gpu-throttle-alert",
    "sys/class/thermal/cooling_device0/cur_state": 1,
    "sys/class/thermal/cooling_device1/type": "cpu-throttle-alert",
    "sys/class/thermal/cooling_device1/cur_state": 0,
    "sys/class/thermal/cooling_device2/type": "pwm-fan",
    "sys/class/thermal/cooling_device2/cur_state": 2,
    "sys/class/devfreq/17000000.gpu/cur_freq": 624750000,
    "sys/class/devfreq/17000000.gpu/device/load": 355,
}
THOR = {
    f"{HWMON}3/name": "ina3221",
    f"{HWMON}3/in1_label": "VDD_GPU",
    f"{HWMON}3/in1_input": 19700,
    f"{HWMON}3/curr1_input": -20,
    f"{HWMON}4/name": "ina238",
    f"{HWMON}4/in1_label": "VIN",
    f"{HWMON}4/in1_input": 20000,
    f"{HWMON}4/curr1_input": 7000,
    f"{HWMON}4/power1_input": 150_000_000,
    "sys/class/devfreq/gpu-gpc-0/cur_freq": 1575000000,
    "sys/class/devfreq/gpu-nvd-0/cur_freq": 1692000000,
    "sys/class/devfreq/bwmgr/cur_freq": 4266000000,
}
XEON = {
    f"{POWERCAP}0/name": "package-0",
    f"{POWERCAP}0/energy_uj": 1_000_000,
    f"{POWERCAP}0/max_energy_range_uj": 262_143_328_850,
    f"{POWERCAP}0:0/name": "dram",
    f"{POWERCAP}0:0/energy_uj": 500_000,
    f"{POWERCAP}0:0/max_energy_range_uj": 600_000,
    f"{ZONE}0/type": "acpitz",
    f"{ZONE}0/temp": 27800,
    f"{ZONE}1/type": "acpitz",
    f"{ZONE}1/temp": 29800,
}
PI_5 = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "50005",
    f"{ZONE}0/type": "cpu-thermal",
    f"{ZONE}0/temp": 61200,
}


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else str(content).encode() + b"\n")


def samples(root, files):
    write(root, files)
    return {reader.name: reader.read() for reader in readers(root)}


def test_orin_nano(tmp_path):
    assert samples(tmp_path, ORIN_NANO) == {
        "devfreq": Sample(clocks_mhz={"gpu": 624.75}, gpu_load_percent=35.5),
        "ina3221": Sample(power_mw={"VDD_IN": 4800, "VDD_CPU_GPU_CV": 499.2}),
        "thermal": Sample(
            temperature_c={"cpu-thermal": 47.5, "tj-thermal": 48.031},
            throttled=("gpu-throttle-alert",),
        ),
    }


def test_thor(tmp_path):
    assert samples(tmp_path, THOR) == {
        "devfreq": Sample(clocks_mhz={"gpu-gpc-0": 1575, "gpu-nvd-0": 1692}),
        "ina3221": Sample(power_mw={"VDD_GPU": -394, "VIN": 150_000}),
    }


def test_raspberry_pi_5(tmp_path):
    assert samples(tmp_path, PI_5) == {
        "raspberry_pi": Sample(
            throttled=("under-voltage", "throttled"),
            throttled_before=("under-voltage", "throttled"),
        ),
        "thermal": Sample(temperature_c={"cpu-thermal": 61.2}),
    }


def test_zones_of_one_type_are_told_apart(tmp_path):
    zones = samples(tmp_path, XEON)["thermal"].temperature_c
    assert zones == {"acpitz": 27.8, "acpitz thermal_zone1": 29.8}


def test_an_empty_machine_has_no_readers(tmp_path):
    assert readers(tmp_path) == []
    assert readers(tmp_path / "nowhere") == []


def test_this_machines_readers_can_be_listed():
    assert {reader.name for reader in readers()} <= {
        "devfreq",
        "ina3221",
        "rapl",
        "raspberry_pi",
        "tegrastats",
        "thermal",
    }


class Clock:
    now_ns = 0

    def __call__(self):
        return self.now_ns


def test_rapl_adds_up_and_counts_on_where_the_counter_begins_anew(tmp_path):
    write(tmp_path, XEON)
    folder = tmp_path / "sys/class/powercap"
    clock = Clock()
    domains = {"package-0": folder / "intel-rapl:0", "package-0/dram": folder / "intel-rapl:0:0"}
    reader = Rapl(domains, clock)
    (found,) = (reader for reader in readers(tmp_path) if reader.name == "rapl")
    assert list(found.read().energy_j) == list(domains)

    clock.now_ns = 2_000_000_000
    write(tmp_path, {f"{POWERCAP}0/energy_uj": 21_000_000, f"{POWERCAP}0:0/energy_uj": 100_000})
    assert reader.read() == Sample(
        power_mw={"package-0": 10_000, "package-0/dram": 100},
        energy_j={"package-0": 20, "package-0/dram": 0.2},
    )
    clock.now_ns = 3_000_000_000
    write(tmp_path, {f"{POWERCAP}0/energy_uj": 22_000_000})
    assert reader.read() == Sample(
        power_mw={"package-0": 1_000, "package-0/dram": 0},
        energy_j={"package-0": 21, "package-0/dram": 0.2},
    )


def test_rapl_leaves_out_an_advance_that_it_cannot_know(tmp_path):
    write(tmp_path, {**XEON, f"{POWERCAP}0:0/max_energy_range_uj": "?"})
    (reader,) = (reader for reader in readers(tmp_path) if reader.name == "rapl")
    write(tmp_path, {f"{POWERCAP}0:0/energy_uj": 1})
    assert list(reader.read().energy_j) == ["package-0"]


@pytest.fixture
def open_root():
    """Return a folder that every user may look into, which tmp_path is not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def without_rights():
    """Go on as a user that may not read what is closed to others."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_rapl_says_what_to_do_where_only_root_may_read(open_root):
    write(open_root, {f"{POWERCAP}0/name": "package-0", f"{POWERCAP}0/energy_uj": 1})
    (open_root / f"{POWERCAP}0/energy_uj").chmod(0o000)
    with without_rights():
        (reader,) = readers(open_root)
        with pytest.raises(EnvironmentLacks, match=r"only be read by root; .* sudo chmod a\+r"):
            reader.read()


@pytest.mark.parametrize("closed", ["usr/bin", "sys/class", f"{POWERCAP}0", "proc/device-tree"])
def test_closed_folders_hold_no_readers(open_root, closed):
    write(
        open_root, {**ORIN_NANO, **XEON, **PI_5, "usr/bin/tegrastats": "", "usr/bin/vcgencmd": ""}
    )
    with_all = {reader.name for reader in readers(open_root)}
    (open_root / closed).chmod(0o000)
    try:
        with without_rights():
            assert {reader.name for reader in readers(open_root)} <= with_all
    finally:
        (open_root / closed).chmod(0o755)


@pytest.mark.parametrize("content", ["", "many", b"\xff\0", "1" * 100_000])
def test_rapl_says_what_a_damaged_counter_should_hold(tmp_path, content):
    write(tmp_path, {f"{POWERCAP}0/name": "package-0", f"{POWERCAP}0/energy_uj": content})
    (reader,) = readers(tmp_path)
    with pytest.raises(EnvironmentLacks, match="expected a whole number"):
        reader.read()


@pytest.mark.parametrize("bit", FLAGS)
def test_each_throttling_flag_now_and_before(bit):
    assert parse(f"throttled={1 << bit:#x}") == Sample(throttled=(FLAGS[bit],))
    assert parse(f"{1 << bit + 16:x}") == Sample(throttled_before=(FLAGS[bit],))
    assert parse("throttled=0x0") == parse("0") == Sample()


def vcgencmd(root, script):
    """Write a stand-in for vcgencmd, which only Raspberry Pi's systems have."""
    write(root, {"proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0"})
    path = root / "usr/bin/vcgencmd"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!{sys.executable}\nimport sys\n{script}")
    path.chmod(0o755)


def test_without_the_kernels_file_vcgencmd_is_asked(tmp_path):
    vcgencmd(tmp_path, "assert sys.argv[1:] == ['get_throttled']\nprint('throttled=0x20002')")
    (reader,) = readers(tmp_path)
    assert reader.read() == Sample(
        throttled=("frequency capped",), throttled_before=("frequency capped",)
    )


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("sys.exit('VCHI initialization failed')", "VCHI initialization failed; .* group video"),
        ("print('throttled=maybe')", "must look like throttled=0x50005; got 'throttled=maybe'"),
        ("", "must look like throttled=0x50005; got ''"),
    ],
)
def test_what_vcgencmd_says_wrong(tmp_path, script, message):
    vcgencmd(tmp_path, script)
    (reader,) = readers(tmp_path)
    with pytest.raises(EnvironmentLacks, match=message) as error:
        reader.read()
    assert "\n" not in str(error.value)


@settings(max_examples=40, deadline=None)  # trees of files, on a disk that may be busy
@given(st.data())
def test_damaged_files_raise_nothing_but_our_error(data):
    content = st.binary(max_size=40) | st.integers().map(str)
    with tempfile.TemporaryDirectory() as folder:
        tree = {**ORIN_NANO, **THOR, **XEON, **PI_5}
        names = data.draw(st.sets(st.sampled_from(sorted(tree)), min_size=1, max_size=8))
        write(Path(folder), {**tree, **{name: data.draw(content) for name in sorted(names)}})
        for reader in readers(Path(folder)):
            try:
                sample = reader.read()
            except EnvironmentLacks as error:
                assert reader.name in ("rapl", "raspberry_pi")
                assert "\n" not in str(error)
            else:
                assert isinstance(sample, Sample)


def test_folders_in_the_place_of_files_are_sensors_that_are_off(tmp_path):
    for name in ("temp", "type"):
        (tmp_path / f"{ZONE}0" / name).mkdir(parents=True)
    (reader,) = readers(tmp_path)
    assert reader.read() == Sample()
