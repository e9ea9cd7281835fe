"""Fake trees of devices that are not at hand, in the formats that their systems write.

Each function makes a healthy machine below a folder: JetPack 6.2 and 7.0, Raspberry Pi OS Bookworm
and Trixie, Debian on x86-64 without and with an RTX card. Tests plant faults in them.
"""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from edgekit.doctor.machine import Disk, Interpreter, Machine, Node, OpencvAnswer, User
from edgekit.targets.files import SystemFiles
from edgekit.targets.probe import probe

VIDEO = 44
GSTREAMER = (
    "  Video I/O:\n    FFMPEG:                      YES\n    GStreamer:                   {}\n"
)
WITH_GSTREAMER = GSTREAMER.format("YES (1.20.3)")
WITHOUT_GSTREAMER = GSTREAMER.format("NO")


class FakeMachine:
    """A tree of files, and what Python sees there; `machine()` gives what the checks take."""

    def __init__(self, root, *, architecture, python, libc, venv="/home/me/.venv"):
        self.files = SystemFiles(root)
        self.architecture = architecture
        self.environment = {}
        self.user = User("me", 1000, frozenset({1000, VIDEO}))
        self.groups = {0: "root", 1000: "me", VIDEO: "video"}
        self.nodes = ()
        self.disks = (Disk("the working folder", "/home/me", 20_000_000_000, True),)
        self.opencv = None
        major, minor, _ = python
        self.site = f"{venv}/lib/python{major}.{minor}/site-packages"
        self.system = f"/usr/lib/python{major}.{minor}/dist-packages"
        self.python = Interpreter(
            version=python,
            prefix=venv,
            base_prefix="/usr",
            path=(f"/usr/lib/python{major}.{minor}", self.site),
            bits=64,
            libc=libc,
        )

    def change_python(self, **changes):
        self.python = dataclasses.replace(self.python, **changes)

    def see_system_packages(self):
        """What `--system-site-packages` does."""
        path = (*self.python.path, "/usr/lib/python3/dist-packages", self.system)
        self.change_python(path=path)

    def write(self, path, content=""):
        place = self.files.place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())

    def remove(self, path):
        place = self.files.place(path)
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    def install(self, module, version, package=None, folder=None):
        """A module with the metadata that pip writes."""
        folder = folder or self.site
        self.write(f"{folder}/{module}/__init__.py")
        self.write(f"{folder}/{(package or module).replace('-', '_')}-{version}.dist-info/METADATA")

    def machine(self):
        return Machine(
            files=self.files,
            probe=probe(self.files, self.architecture),
            python=self.python,
            environment=self.environment,
            user=self.user,
            groups=self.groups,
            nodes=self.nodes,
            disks=self.disks,
            opencv=self.opencv,
        )


def memory(fake, total_kb, swaps=""):
    fake.write(
        "/proc/meminfo", f"MemTotal:       {total_kb} kB\nMemAvailable:   {total_kb // 2} kB\n"
    )
    fake.write("/proc/swaps", f"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n{swaps}")


def cpus(fake, count, governor, driver, low=729600, high=1728000):
    fake.write(
        "/proc/cpuinfo", "".join(f"processor\t: {n}\nBogoMIPS\t: 62\n\n" for n in range(count))
    )
    for n in range(count):
        folder = f"/sys/devices/system/cpu/cpu{n}/cpufreq"
        fake.write(f"{folder}/scaling_governor", f"{governor}\n")
        fake.write(f"{folder}/scaling_driver", f"{driver}\n")
        fake.write(f"{folder}/scaling_min_freq", f"{low}\n")
        fake.write(f"{folder}/scaling_max_freq", f"{high}\n")


def dpkg(fake, **versions):
    entries = (
        f"Package: {name.replace('_', '-')}\nStatus: install ok installed\nVersion: {version}\n"
        for name, version in versions.items()
    )
    fake.write("/var/lib/dpkg/status", "\n".join(entries))


def jetson(fake, *, cuda, libraries):
    """What all JetPacks have: TensorRT, OpenCV and numpy of the system, and where libraries lie."""
    fake.write("/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n")
    fake.write("/etc/ld.so.conf.d/988_cuda.conf", f"# CUDA\n/usr/local/cuda-{cuda}/lib64\n")
    fake.write("/etc/ld.so.conf.d/nvidia-tegra.conf", "/usr/lib/aarch64-linux-gnu/nvidia\n")
    fake.write("/usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1.1")
    fake.write("/usr/lib/aarch64-linux-gnu/libnvinfer.so.10")
    for library in libraries:
        fake.write(f"/usr/local/cuda-{cuda}/lib64/{library}")
    fake.write("/usr/local/cuda/bin/nvcc")
    fake.write(f"{fake.system}/cv2/__init__.py")
    fake.write("/usr/lib/python3/dist-packages/numpy/__init__.py")
    fake.opencv = OpencvAnswer("4.8.0", WITH_GSTREAMER)
    fake.see_system_packages()
    fake.nodes = (
        Node("/dev/nvmap", 0o440, 0, VIDEO),
        Node("/dev/video0", 0o660, 0, VIDEO),
    )


def jetpack_6(root):
    """Jetson Orin Nano 8 GB with JetPack 6.2, in its fastest mode, clocks fixed."""
    fake = FakeMachine(root, architecture="aarch64", python=(3, 10, 12), libc="glibc 2.35")
    fake.write(
        "/proc/device-tree/model",
        b"NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    )
    fake.write(
        "/proc/device-tree/compatible",
        b"nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    )
    fake.write(
        "/etc/nv_tegra_release",
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
        "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n"
        "TARGET_USERSPACE_LIB_DIR=nvidia\n",
    )
    fake.write("/etc/os-release", 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n')
    fake.write("/proc/sys/kernel/osrelease", "5.15.148-tegra\n")
    dpkg(fake, nvidia_jetpack="6.2+b77", python3_libnvinfer="10.3.0.30-1+cuda12.5")
    memory(fake, 7802072, "/dev/zram0 partition\t650168\t\t0\t\t5\n")
    cpus(fake, 6, "schedutil", "tegra194", low=1728000)
    fake.write("/sys/class/devfreq/17000000.gpu/min_freq", "1020000000\n")
    fake.write("/sys/class/devfreq/17000000.gpu/max_freq", "1020000000\n")
    fake.write(
        "/etc/nvpmodel.conf",
        "# < POWER_MODEL ID=9 NAME=COMMENT >\n< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n"
        "GPU MAX_FREQ 612000000\n< POWER_MODEL ID=1 NAME=25W >\n"
        "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
        "< POWER_MODEL ID=3 NAME=7W >\n< PM_CONFIG DEFAULT=1 >\n",
    )
    fake.write("/var/lib/nvpmodel/status", "pmode:0002")
    zone(fake, "cpu-thermal", 48_000, 99_000)
    jetson(fake, cuda="12.6", libraries=("libcudart.so.12.6.68", "libcudla.so.1.0.0"))
    fake.install("tensorrt", "10.3.0", folder=fake.system)
    fake.write("/usr/lib/python3/dist-packages/numpy-1.21.5.egg-info/PKG-INFO")
    return fake


def jetpack_7(root):
    """Jetson AGX Thor with JetPack 7.0, in its fastest mode, clocks fixed."""
    fake = FakeMachine(root, architecture="aarch64", python=(3, 12, 3), libc="glibc 2.39")
    fake.write("/proc/device-tree/model", b"NVIDIA Jetson AGX Thor Developer Kit\0")
    fake.write("/proc/device-tree/compatible", b"nvidia,p3971-0089+p3834-0008\0nvidia,tegra264\0")
    fake.write(
        "/etc/nv_tegra_release",
        "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64, "
        "DATE: Fri Aug 22 00:55:42 UTC 2025\n# KERNEL_VARIANT: oot\nINSTALL_TYPE=\n",
    )
    fake.write("/etc/os-release", 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n')
    fake.write(
        "/proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.00  Release Build\n",
    )
    dpkg(fake, nvidia_jetpack="7.0-b128")
    memory(fake, 128_821_000)
    cpus(fake, 14, "performance", "cppc_cpufreq")
    fake.write("/sys/class/devfreq/gpu-gpc-0/min_freq", "1575000000\n")
    fake.write("/sys/class/devfreq/gpu-gpc-0/max_freq", "1575000000\n")
    fake.write(
        "/etc/nvpmodel.conf",
        "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=120W >\n< PM_CONFIG DEFAULT=1 >\n",
    )
    fake.write("/var/lib/nvpmodel/status", "pmode:0000")
    jetson(fake, cuda="13.0", libraries=("libcudart.so.13.0.48",))
    fake.nodes += (Node("/dev/nvidiactl", 0o666, 0, 0),)
    fake.install("tensorrt", "10.13.2.6", folder=fake.system)
    fake.write("/usr/lib/python3/dist-packages/numpy-1.26.4.egg-info/PKG-INFO")
    return fake


def raspberry_pi(fake, model, soc, firmware, release, governor):
    fake.write("/proc/device-tree/model", f"{model}\0")
    fake.write("/proc/device-tree/compatible", f"raspberrypi,model-b\0brcm,{soc}\0")
    fake.write("/etc/os-release", f'PRETTY_NAME="Debian GNU/Linux {release}"\n')
    fake.write(f"/sys/devices/platform/{firmware}/get_throttled", "0\n")
    fake.nodes = (Node("/dev/video0", 0o660, 0, VIDEO), Node("/dev/video10", 0o660, 0, VIDEO))
    cpus(fake, 4, governor, "cpufreq-dt")
    zone(fake, "cpu-thermal", 51_000, 110_000)
    wheels(fake)


def bookworm(root):
    """Raspberry Pi 4 with 4 GB and Raspberry Pi OS 12, clocks fixed."""
    fake = FakeMachine(root, architecture="aarch64", python=(3, 11, 2), libc="glibc 2.36")
    firmware = "soc/soc:firmware"
    model = "Raspberry Pi 4 Model B Rev 1.5"
    raspberry_pi(fake, model, "bcm2711", firmware, "12 (bookworm)", "performance")
    memory(fake, 3_884_000, "/var/swap                               file\t\t524284\t\t0\t\t-2\n")
    return fake


def trixie(root):
    """Raspberry Pi 5 with 8 GB and Raspberry Pi OS 13, clocks fixed."""
    fake = FakeMachine(root, architecture="aarch64", python=(3, 13, 5), libc="glibc 2.41")
    firmware = "soc@107c000000/soc@107c000000:firmware"
    model = "Raspberry Pi 5 Model B Rev 1.0"
    raspberry_pi(fake, model, "bcm2712", firmware, "13 (trixie)", "performance")
    memory(
        fake, 8_255_000, "/dev/zram0                              partition\t2097136\t\t0\t\t100\n"
    )
    return fake


def debian(root):
    """An x86-64 computer with Debian 12, its processor choosing the clock."""
    fake = FakeMachine(root, architecture="x86_64", python=(3, 11, 2), libc="glibc 2.36")
    fake.write("/etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    fake.nodes = (Node("/dev/video0", 0o660, 0, VIDEO),)
    memory(fake, 16_000_000, "/dev/nvme0n1p3 partition 999420 0 -2\n")
    cpus(fake, 8, "performance", "intel_pstate")
    wheels(fake)
    return fake


def rtx(root):
    """The same with an RTX card and NVIDIA's driver."""
    fake = debian(root)
    folder = "/proc/driver/nvidia"
    fake.write(
        f"{folder}/gpus/0000:01:00.0/information",
        "Model: \t\t NVIDIA GeForce RTX 4070\nIRQ:   \t\t 168\nVideo BIOS: \t 95.04.3e.00.1e\n",
    )
    fake.write(
        f"{folder}/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n",
    )
    fake.nodes += (Node("/dev/nvidia0", 0o666, 0, 0), Node("/dev/nvidiactl", 0o666, 0, 0))
    return fake


def wheels(fake):
    """What `pip install edgekit[cpu]` brings."""
    fake.install("numpy", "2.2.6")
    fake.install("ai_edge_litert", "2.3.0")
    fake.install("cv2", "4.12.0.88", "opencv-python-headless")
    fake.opencv = OpencvAnswer("4.12.0", WITHOUT_GSTREAMER)


def zone(fake, kind, now, limit):
    folder = "/sys/class/thermal/thermal_zone0"
    fake.write(f"{folder}/type", f"{kind}\n")
    fake.write(f"{folder}/temp", f"{now}\n")
    fake.write(f"{folder}/trip_point_0_type", "critical\n")
    fake.write(f"{folder}/trip_point_0_temp", "104500\n")
    fake.write(f"{folder}/trip_point_1_type", "passive\n")
    fake.write(f"{folder}/trip_point_1_temp", f"{limit}\n")


@pytest.fixture
def fake(tmp_path):
    """Return a function that makes the fake machine of that name."""
    return lambda name: globals()[name](tmp_path)
