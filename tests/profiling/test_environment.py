"""The fingerprint of a machine, of small trees like those of devices; none of them was at hand."""

import pytest

from edgekit.profiling.environment import conditions, cpu_numbers, cpu_ranges, environment
from edgekit.targets.files import SystemFiles

CPU = "sys/devices/system/cpu"

ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1",
    "var/lib/dpkg/status": "Package: nvidia-jetpack\nStatus: install ok installed\n"
    "Version: 6.2+b77",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >",
    "var/lib/nvpmodel/status": "pmode:0002",
    "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"',
    "proc/sys/kernel/osrelease": "5.15.148-tegra",
    "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n\n"
    "processor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
    "proc/meminfo": "MemTotal:  7802072 kB\nMemAvailable: 2097152 kB\nSwapTotal: 1048576 kB\n"
    "SwapFree: 524288 kB",
    f"{CPU}/online": "0-1",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "schedutil",
    f"{CPU}/cpu0/cpufreq/scaling_driver": "tegra194",
    f"{CPU}/cpu0/cpufreq/cpuinfo_min_freq": 115200,
    f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq": 1728000,
    f"{CPU}/cpu0/cpufreq/scaling_min_freq": 729600,
    f"{CPU}/cpu0/cpufreq/scaling_max_freq": 1510400,
    "sys/class/devfreq/17000000.gpu/min_freq": 1020000000,
    "sys/class/devfreq/17000000.gpu/max_freq": 1020000000,
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": 48000,
    "sys/class/thermal/thermal_zone1/type": "tj-thermal",
    "sys/class/thermal/thermal_zone1/temp": 51400,
    "proc/loadavg": "0.52 0.61 0.70 1/512 4242",
}
SERVER_IN_A_CONTAINER = {
    "proc/cpuinfo": "".join(
        f"processor\t: {n}\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: sse hypervisor avx\n\n"
        for n in range(4)
    ),
    f"{CPU}/online": "0-3",
    f"{CPU}/smt/control": "on",
    f"{CPU}/intel_pstate/no_turbo": 1,
    **{f"{CPU}/cpu{n}/topology/thread_siblings_list": f"{n % 2},{n % 2 + 2}" for n in range(4)},
    "sys/class/dmi/id/sys_vendor": "Amazon EC2",
    "sys/class/dmi/id/product_name": "c7i.xlarge",
    ".dockerenv": "",
    "proc/self/cgroup": "0::/",
    "proc/self/mountinfo": "1 2 0:3 / /cg rw - cgroup2 c rw",
    "cg/cpu.max": "150000 100000",
    "cg/memory.max": 2147483648,
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t NVIDIA L4",
}
LAPTOP = {
    "sys/class/power_supply/AC/type": "Mains",
    "sys/class/power_supply/BAT0/type": "Battery",
    "sys/class/power_supply/BAT0/status": "Discharging",
    "sys/class/power_supply/mouse/type": "Battery",
    "sys/class/power_supply/mouse/scope": "Device",
    "sys/class/power_supply/mouse/status": "Discharging",
}
PI = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "50005",
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


def test_a_jetson(system):
    files = system(ORIN)
    fingerprint = {
        "board": "NVIDIA Jetson Orin Nano Developer Kit",
        "cpu": "Cortex-A78AE",
        "cpus": "2",
        "cores": "2",
        "cpu_clock_mhz": "115-1728",
        "governor": "schedutil",
        "clock_driver": "tegra194",
        "gpu_clock": "fixed",
        "power_mode": "MAXN_SUPER",
        "jetson_linux": "36.4.3",
        "jetpack": "6.2",
        "memory_gib": "7.4",
        "swap_gib": "1.0",
        "distribution": "Ubuntu 22.04.5 LTS",
        "system": "Linux 5.15.148-tegra",
    }
    momentary = {
        "load_1_5_15_min": "0.52 0.61 0.70",
        "memory_available_gib": "2.0",
        "swap_used_gib": "0.5",
        "temperature_c": "51 (tj-thermal)",
        "cpu_clock_limits_mhz": "730-1510",
    }
    assert environment(files, {}).items() >= fingerprint.items()
    assert conditions(files).items() >= momentary.items()


def test_a_container_on_a_virtual_machine(system):
    fingerprint = {
        "cpu": "Intel(R) Xeon(R)",
        "cpus": "4",
        "cores": "2",
        "smt": "on",
        "turbo": "off",
        "virtual": "Amazon EC2 c7i.xlarge",
        "container": "docker",
        "cpu_limit": "1.5",
        "memory_limit_gib": "2.0",
        "gpu": "NVIDIA L4",
    }
    assert environment(system(SERVER_IN_A_CONTAINER), {}).items() >= fingerprint.items()


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        (LAPTOP, {"supply": "battery"}),
        ({**LAPTOP, "sys/class/power_supply/BAT0/status": "Full"}, {"supply": "mains"}),
        (PI, {"throttled": "under-voltage, throttled"}),
        ({**PI, next(reversed(PI)): "what?"}, {"throttled": "not to be read"}),
    ],
)
def test_what_slows_a_machine_for_a_while_is_a_condition(system, tree, told):
    files = system(tree)
    assert conditions(files).items() >= told.items()
    assert not environment(files, {}).keys() & {"supply", "throttled"}


def test_only_variables_that_change_speed_are_told_and_only_plain_values(system):
    variables = {
        "OMP_NUM_THREADS": "2",
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=1\nsecond line",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "ORT_TOKEN": "hush",
        "HOME": "/home/me",
    }
    found = environment(system({}), variables)
    assert found["OMP_NUM_THREADS"] == "2"
    assert found["GLIBC_TUNABLES"] == "(set)"
    assert not found.keys() & {"AWS_SECRET_ACCESS_KEY", "ORT_TOKEN", "HOME"}


def test_the_fingerprint_of_this_machine_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = environment()
    assert found == environment()
    assert found["OMP_NUM_THREADS"] == "3"
    assert not found.keys() & conditions().keys()


def test_a_machine_that_tells_nothing_has_no_empty_entries(system):
    files = system({})
    assert all(environment(files, {}).values())
    assert "supply" not in conditions(files)


@pytest.mark.parametrize("text", ["0", "0-3", "1,5", "0-1,4-7,9"])
def test_cpus_are_read_and_written_as_linux_does(text):
    assert cpu_ranges(cpu_numbers(text)) == text


@pytest.mark.parametrize("text", ["", "0-", "a", "0,,1", "999999"])
def test_other_texts_name_no_cpus(text):
    assert cpu_numbers(text) == frozenset()
