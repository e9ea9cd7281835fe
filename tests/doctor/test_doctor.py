"""The doctor on fake trees of devices: it finds what was planted, and nothing else."""

import dataclasses
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.doctor import SEVERITIES, diagnose
from edgekit.doctor.machine import Disk, Node, OpencvAnswer, User

JETSONS = ("jetpack_6", "jetpack_7")
PIS = ("bookworm", "trixie")
COMPUTERS = ("debian", "rtx")
ALL = JETSONS + PIS + COMPUTERS
VIDEO = 44


def told(machine):
    """Return the findings that are not ok, as severity:check."""
    return {f"{f.severity}:{f.check}" for f in diagnose(machine) if f.severity != "ok"}


@pytest.mark.parametrize("name", ALL)
def test_a_healthy_machine_has_nothing_to_tell(fake, name):
    assert told(fake(name).machine()) == set()


# Each plants one fault in a fake machine: (machines, what is found, how it comes about).
FAULTS = {}


def fault(machines, *expected):
    def keep(plant):
        FAULTS[plant.__name__] = (machines, set(expected), plant)
        return plant

    return keep


@fault(PIS + COMPUTERS, "fault:python.version")
def python_3_9(f):
    f.change_python(version=(3, 9, 2))


@fault(PIS + COMPUTERS, "warning:python.version")
def python_3_14(f):
    f.change_python(version=(3, 14, 0))


@fault(PIS, "fault:python.bits")
def a_32_bit_userland_on_a_64_bit_kernel(f):
    f.change_python(bits=32)


@fault(ALL, "warning:python.glibc")
def an_old_c_library(f):
    f.change_python(libc="glibc 2.27")


@fault(COMPUTERS, "fault:python.glibc")
def another_c_library(f):
    f.change_python(libc="")


@fault(JETSONS, "fault:python.jetpack")
def a_python_that_is_not_jetpacks(f):
    site = "/home/me/.pyenv/versions/own/lib/python/site-packages"
    f.change_python(base_prefix="/home/me/.pyenv/versions/own", path=(site,))
    f.site = site
    for module in ("numpy", "cv2", "ai_edge_litert"):
        f.install(module, "1.0")
    f.opencv = OpencvAnswer("4.12.0", "GStreamer: NO")


@fault(JETSONS, "fault:numpy.version")
def numpy_2_before_the_systems(f):
    f.install("numpy", "2.2.6")


@fault(JETSONS, "fault:numpy.version")
def numpy_2_that_opencv_refuses(f):
    f.install("numpy", "2.2.6")
    f.opencv = OpencvAnswer(failure="ImportError: numpy.core.multiarray failed to import")


@fault(JETSONS, "warning:numpy.version")
def numpy_2_beside_the_systems_tensorrt_only(f):
    f.install("numpy", "2.2.6")
    f.install("cv2", "4.12.0.88", "opencv-python")
    f.opencv = OpencvAnswer("4.12.0", "    GStreamer:       YES (1.20.3)")


@fault(COMPUTERS, "fault:numpy.version")
def a_wheel_of_opencv_that_refuses_this_numpy(f):
    f.opencv = OpencvAnswer(failure="AttributeError: _ARRAY_API not found")


@fault(JETSONS, "warning:opencv.shadowed")
def a_wheel_of_opencv_before_jetpacks(f):
    f.install("cv2", "4.12.0.88", "opencv-python-headless")
    f.opencv = OpencvAnswer("4.12.0", "    GStreamer:       NO")


@fault(JETSONS, "warning:opencv.shadowed", "fault:tensorrt.module")
def a_wheel_of_opencv_in_an_environment_of_its_own(f):
    f.change_python(path=f.python.path[:2])
    f.install("ai_edge_litert", "2.3.0")
    f.install("cv2", "4.12.0.88", "opencv-python-headless")
    f.opencv = OpencvAnswer("4.12.0", "    GStreamer:       NO")


@fault(("debian", "bookworm"), "note:opencv.shadowed")
def a_wheel_of_opencv_before_debians(f):
    f.write("/usr/lib/python3/dist-packages/cv2.cpython-311-aarch64-linux-gnu.so")
    f.see_system_packages()


@fault(JETSONS, "warning:opencv.import")
def a_system_opencv_without_gstreamer(f):
    f.opencv = OpencvAnswer("4.8.0", "    GStreamer:       NO")


@fault(ALL, "fault:opencv.import")
def an_opencv_that_crashes(f):
    f.opencv = OpencvAnswer(failure="importing it ended the process by signal 11")


@fault(ALL, "fault:opencv.import")
def an_opencv_without_its_libraries(f):
    f.opencv = OpencvAnswer(failure="ImportError: libGL.so.1: cannot open shared object file")


@fault(PIS + COMPUTERS, "fault:opencv.import")
def no_opencv(f):
    f.remove(f"{f.site}/cv2")
    f.opencv = None


@fault(PIS, "fault:opencv.import")
def no_opencv_but_the_systems(f):
    no_opencv(f)
    tag = "".join(map(str, f.python.version[:2]))
    f.write(f"/usr/lib/python3/dist-packages/cv2.cpython-{tag}-aarch64-linux-gnu.so")


@fault(PIS + COMPUTERS, "warning:opencv.wheels")
def two_wheels_of_opencv(f):
    f.install("cv2", "4.12.0.88", "opencv-python")


@fault(COMPUTERS + PIS, "fault:engine.installed")
def no_engine(f):
    f.remove(f"{f.site}/ai_edge_litert")
    f.remove(f"{f.site}/ai_edge_litert-2.3.0.dist-info")


@fault(COMPUTERS, "fault:engine.openvino")
def an_engine_that_was_half_removed(f):
    f.write(f"{f.site}/openvino-2026.4.1.dist-info/METADATA")


@fault(COMPUTERS, "fault:engine.onnxruntime")
def an_engine_of_another_python(f):
    f.write(f"{f.site}/onnxruntime.cpython-39-x86_64-linux-gnu.so")
    f.write(f"{f.site}/onnxruntime-1.31.1.dist-info/METADATA")


@fault(COMPUTERS, "warning:engine.onnxruntime")
def two_builds_of_onnx_runtime(f):
    f.install("onnxruntime", "1.31.1")
    f.install("onnxruntime", "1.31.1", "onnxruntime-gpu")


@fault(PIS, "note:engine.tflite_runtime")
def the_runtime_before_litert(f):
    f.install("tflite_runtime", "2.14.0")


@fault(JETSONS, "fault:tensorrt.module", "fault:opencv.import", "fault:engine.installed")
def an_environment_without_the_systems_packages(f):
    f.change_python(path=f.python.path[:2])
    f.opencv = None


@fault(JETSONS, "fault:tensorrt.module")
def no_tensorrt(f):
    f.install("ai_edge_litert", "2.3.0")
    for name in f.files.names(f.system):
        if name.startswith("tensorrt"):
            f.remove(f"{f.system}/{name}")


@fault(JETSONS, "warning:tensorrt.module")
def a_wheel_of_tensorrt_before_jetpacks(f):
    f.install("tensorrt", "10.7.0")


@fault(("jetpack_6",), "fault:cuda.libcudart", "fault:cuda.libcudla")
def a_loader_that_does_not_know_cudas_folder(f):
    f.remove("/etc/ld.so.conf.d/988_cuda.conf")


@fault(JETSONS, "fault:cuda.libnvinfer")
def no_libnvinfer(f):
    f.remove("/usr/lib/aarch64-linux-gnu/libnvinfer.so.10")


@fault(JETSONS, "fault:cuda.libcuda")
def no_driver_library(f):
    f.remove("/usr/lib/aarch64-linux-gnu/nvidia")


@fault(JETSONS, "note:cuda.toolkit")
def no_toolkit(f):
    f.remove("/usr/local/cuda")


@fault(PIS + COMPUTERS, "warning:access.camera")
def a_user_who_may_not_open_cameras(f):
    f.user = User("me", 1000, frozenset({1000}))


@fault(JETSONS, "warning:access.camera", "fault:access.gpu")
def a_user_who_may_not_open_the_gpu(f):
    f.user = User("me", 1000, frozenset({1000}))


@fault(("rtx",), "fault:access.gpu")
def a_gpu_for_root_alone(f):
    f.nodes = tuple(
        dataclasses.replace(n, mode=0o600) if "nvidia" in n.path else n for n in f.nodes
    )


@fault(("jetpack_6",), "warning:power.mode")
def a_power_mode_below_the_default(f):
    f.write("/var/lib/nvpmodel/status", "pmode:0003 fmode:fanNull\n")


@fault(("jetpack_6",), "note:power.mode")
def a_power_mode_that_is_not_the_fastest(f):
    f.write("/var/lib/nvpmodel/status", "pmode:0001")


@fault(JETSONS, "note:power.mode")
def a_power_mode_that_was_never_changed(f):
    f.remove("/var/lib/nvpmodel/status")


@fault(JETSONS, "warning:power.mode")
def a_power_mode_that_is_only_in_a_comment(f):
    f.write("/var/lib/nvpmodel/status", "pmode:0009")


@fault(("jetpack_6",), "note:power.gpu_clock")
def a_gpu_clock_that_follows_the_load(f):
    f.write("/sys/class/devfreq/17000000.gpu/min_freq", "306000000\n")


@fault(("jetpack_7",), "note:power.gpu_clock")
def a_gpu_clock_of_thor_that_follows_the_load(f):
    f.write("/sys/class/devfreq/gpu-gpc-0/min_freq", "315000000\n")


def set_governor(f, governor):
    for cpu in f.files.names("/sys/devices/system/cpu"):
        folder = f"/sys/devices/system/cpu/{cpu}/cpufreq"
        f.write(f"{folder}/scaling_governor", f"{governor}\n")
        f.write(f"{folder}/scaling_min_freq", "600000\n")


@fault(ALL, "note:power.cpu_clock")
def a_cpu_clock_that_follows_the_load(f):
    set_governor(f, "ondemand")


@fault(JETSONS + PIS, "warning:power.cpu_clock")
def the_lowest_cpu_clock(f):
    set_governor(f, "powersave")


@fault(COMPUTERS, "note:power.cpu_clock")
def powersave_of_a_processor_that_clocks_itself(f):
    set_governor(f, "powersave")


def throttle(f, flags):
    platform = "/sys/devices/platform"
    for soc in f.files.names(platform):
        for node in f.files.names(f"{platform}/{soc}"):
            f.write(f"{platform}/{soc}/{node}/get_throttled", flags)


@fault(PIS, "warning:power.throttling")
def too_low_a_voltage(f):
    throttle(f, "50005\n")


@fault(PIS, "warning:power.throttling")
def too_low_a_voltage_once(f):
    throttle(f, "10000\n")


@fault(PIS, "note:power.throttling")
def heat_at_some_time(f):
    throttle(f, "80000\n")


@fault(PIS, "note:power.throttling")
def throttling_flags_that_are_none(f):
    throttle(f, "what\n")


@fault(("jetpack_6",), "warning:power.temperature")
def heat_of_a_jetson(f):
    f.write("/sys/class/thermal/thermal_zone0/temp", "99500\n")


@fault(("jetpack_6",), "warning:power.temperature")
def a_jetson_that_says_that_heat_slows_it(f):
    f.write("/sys/class/thermal/cooling_device0/type", "cpu-throttle-alert\n")
    f.write("/sys/class/thermal/cooling_device0/cur_state", "1\n")


@fault(("bookworm",), "warning:memory.swap")
def little_memory_and_no_swap(f):
    f.write("/proc/swaps", "Filename Type Size Used Priority\n")


@fault(ALL, "warning:memory.swap")
def memory_and_swap_that_are_full(f):
    total = f.files.text("/proc/meminfo").splitlines()[0]
    f.write("/proc/meminfo", f"{total}\nMemAvailable:   40000 kB\n")
    f.write("/proc/swaps", "Filename Type Size Used Priority\n/swap file 524284 520000 -2\n")


@fault(ALL, "warning:disk.space")
def little_room(f):
    f.disks = (Disk("the working folder", "/home/me", 400_000_000, True),)


@fault(ALL, "fault:disk.space")
def no_room(f):
    f.disks = (Disk("the working folder", "/home/me", 0, True),)


@fault(ALL, "warning:disk.access")
def a_folder_that_is_not_the_users(f):
    f.disks += (Disk("caches", "/root/.cache", 20_000_000_000, False),)


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        pytest.param(name, plant, id=f"{name}-{plant}")
        for plant, (names, _, _) in FAULTS.items()
        for name in names
    ],
)
def test_it_finds_what_was_planted_and_nothing_else(fake, name, plant):
    _, expected, planting = FAULTS[plant]
    machine = fake(name)
    planting(machine)
    assert told(machine.machine()) == expected


def test_every_check_is_planted_somewhere(fake):
    """A check that no test can make speak would not be noticed when it breaks."""
    planted = {found.partition(":")[2] for _, expected, _ in FAULTS.values() for found in expected}
    seen = {f.check for name in ALL for f in diagnose(fake(name).machine())}
    assert seen - planted == {"cuda.libraries"}  # it speaks as cuda.NAME, library by library


def test_faults_come_first_and_only_what_is_not_ok_has_a_remedy(fake):
    machine = fake("jetpack_6")
    machine.change_python(path=machine.python.path[:2])
    machine.opencv = None
    machine.remove("/usr/local/cuda")
    machine.write("/var/lib/nvpmodel/status", "pmode:0003")
    found = diagnose(machine.machine())
    order = [SEVERITIES.index(finding.severity) for finding in found]
    assert order == sorted(order)
    assert set(order) == set(range(len(SEVERITIES)))
    assert all(bool(finding.remedy) == (finding.severity != "ok") for finding in found)


def test_messages_name_what_was_seen_and_what_mends_it(fake):
    machine = fake("jetpack_6")
    machine.change_python(path=machine.python.path[:2])
    found = {finding.check: finding for finding in diagnose(machine.machine())}
    module = found["tensorrt.module"]
    assert "/usr/lib/python3.10/dist-packages is not visible from /home/me/.venv" in module.what
    assert "--system-site-packages" in module.remedy
    assert "MAXN_SUPER (2)" in found["power.mode"].what


def test_a_jetson_is_never_told_to_install_a_wheel_of_opencv(fake):
    """`edgekit[cpu]` brings one, which would hide the build that opens CSI cameras."""
    for name in JETSONS:
        machine = fake(name)
        machine.change_python(path=machine.python.path[:2])
        machine.opencv = None
        remedies = [f.remedy for f in diagnose(machine.machine()) if f.severity == "fault"]
        assert len(remedies) == 3
        assert not any("edgekit[" in remedy for remedy in remedies)


def test_libraries_are_searched_where_the_environment_says(fake):
    machine = fake("jetpack_6")
    machine.remove("/etc/ld.so.conf.d/988_cuda.conf")
    machine.environment["LD_LIBRARY_PATH"] = ":/nowhere:/usr/local/cuda-12.6/lib64"
    assert told(machine.machine()) == set()


def test_root_may_open_everything(fake):
    machine = fake("jetpack_6")
    machine.user = User("root", 0, frozenset({0}))
    machine.nodes += (Node("/dev/video1", 0o000, 0, 0),)
    assert told(machine.machine()) == set()


def files_of(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def hold_up(machine):
    """Diagnose, and hold that each finding is one printable line of a known severity."""
    for finding in diagnose(machine):
        assert finding.severity in SEVERITIES
        for text in (finding.what, finding.remedy):
            assert text.isprintable(), text


CONTENT = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\0", b"\xff" * 50, b"-1\n", b"9" * 30, b"NaN", b"\x1b[2J", b"\n" * 9]),
    st.from_regex(r"(include|pmode:|# R|MemTotal:|/|<|Package: )[ -~]{0,40}\n?").map(str.encode),
)


@pytest.mark.parametrize("name", ALL)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_content_of_a_file_can_crash_it(fake, name, data):
    machine = fake(name)
    file = data.draw(st.sampled_from(files_of(machine.files.root)))
    before = file.read_bytes()
    file.write_bytes(data.draw(CONTENT))
    hold_up(machine.machine())
    file.write_bytes(before)


@pytest.mark.parametrize("name", ALL)
def test_nothing_that_stands_for_a_file_can_crash_it(fake, name):
    """A folder, a dangling link, a link to itself, a pipe, or nothing, in place of each file."""
    machine = fake(name)
    for file in files_of(machine.files.root):
        before = file.read_bytes()
        file.unlink()
        hold_up(machine.machine())
        file.mkdir()
        hold_up(machine.machine())
        file.rmdir()
        for target in ("nowhere", file.name):
            file.symlink_to(target)
            hold_up(machine.machine())
            file.unlink()
        if file.is_relative_to(machine.files.root / "etc"):  # /proc and /sys have none
            os.mkfifo(file)
            hold_up(machine.machine())
            file.unlink()
        file.write_bytes(before)


@pytest.mark.parametrize("name", ALL)
def test_files_that_may_not_be_read_count_as_absent(fake, name, tmp_path):
    machine = fake(name)
    as_root = os.geteuid() == 0
    folders = sorted({file.parent for file in files_of(tmp_path)})
    for folder in folders:
        folder.chmod(0o000)
    try:
        if as_root:
            os.seteuid(65534)  # nobody: root may read everything
        hold_up(machine.machine())
    finally:
        if as_root:
            os.seteuid(0)
        for folder in folders:
            folder.chmod(0o755)


def test_an_empty_machine_is_diagnosed_too(fake, tmp_path):
    machine = fake("debian")
    machine.remove("/")
    found = diagnose(machine.machine())
    assert {f.check for f in found if f.severity == "fault"} == {
        "opencv.import",
        "engine.installed",
    }


def test_every_check_is_in_the_document(fake):
    document = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text("utf-8")
    patterns = [
        re.escape(name).replace("NAME", r"\w+")
        for line in re.findall(r"^\| (`\w+\..+?) \|", document, re.M)
        for name in re.findall(r"`([\w.]+)`", line)
    ]
    found = {f.check for name in ALL for f in diagnose(fake(name).machine())}
    found |= {one.partition(":")[2] for _, expected, _ in FAULTS.values() for one in expected}
    undocumented = {c for c in found if not any(re.fullmatch(p, c) for p in patterns)}
    assert undocumented == set()
    assert all(any(re.fullmatch(p, c) for c in found) for p in patterns)
