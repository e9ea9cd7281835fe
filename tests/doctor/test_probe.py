"""Which target a machine is, told by the files of fake trees."""

import pytest

from edgekit.targets import target_names
from edgekit.targets.files import SystemFiles
from edgekit.targets.probe import package_version, probe


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "jetpack_6",
            {
                "target": "jetson-orin-nano",
                "jetson_linux": "36.4.3",
                "jetpack": "6.2",
                "cores": 6,
                "memory_bytes": 7802072 * 1024,
                "system": "Ubuntu 22.04.5 LTS",
                "kernel": "5.15.148-tegra",
                "is_jetson": True,
            },
        ),
        (
            "jetpack_7",
            {
                "target": "jetson-agx-thor",
                "jetson_linux": "38.2.0",
                "jetpack": "7.0",
                "nvidia_driver": "580.00",
                "model": "NVIDIA Jetson AGX Thor Developer Kit",
                "is_jetson": True,
            },
        ),
        ("bookworm", {"target": "raspberry-pi-4", "cores": 4, "is_jetson": False}),
        ("trixie", {"target": "raspberry-pi-5", "system": "Debian GNU/Linux 13 (trixie)"}),
        ("debian", {"target": "x86-cpu", "gpus": (), "nvidia_driver": None, "model": None}),
        (
            "rtx",
            {
                "target": "x86-rtx",
                "gpus": ("NVIDIA GeForce RTX 4070",),
                "nvidia_driver": "535.129.03",
            },
        ),
    ],
)
def test_machines_are_recognised(fake, name, expected):
    found = fake(name).machine().probe
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("compatible", "model", "target"),
    [
        ("nvidia,p3768-0000+p3767-0000-super", "a carrier board", "jetson-orin-nx"),
        ("nvidia,p3768-0000+p3767-0001", "", "jetson-orin-nx"),
        ("nvidia,p3768-0000+p3767-0004", "", "jetson-orin-nano"),
        ("nvidia,p3737-0000+p3701-0005\0nvidia,tegra234", "", "jetson-agx-orin"),
        ("", "NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "jetson-orin-nx"),
        ("", "NVIDIA Jetson AGX Orin Developer Kit", "jetson-agx-orin"),
        ("raspberrypi,4-compute-module\0brcm,bcm2711", "", "raspberry-pi-4"),
        ("", "Raspberry Pi 400 Rev 1.0", "raspberry-pi-4"),
        ("", "Raspberry Pi Compute Module 5 Rev 1.0", "raspberry-pi-5"),
        ("", "Raspberry Pi 500 Rev 1.0", "raspberry-pi-5"),
        ("raspberrypi,3-model-b\0brcm,bcm2837", "Raspberry Pi 3 Model B Rev 1.2", None),
        ("nvidia,p2972-0000\0nvidia,tegra194", "NVIDIA Jetson AGX Xavier Developer Kit", None),
        ("", "", None),
    ],
)
def test_boards_are_told_by_module_then_by_name(fake, compatible, model, target):
    machine = fake("trixie")
    machine.write("/proc/device-tree/compatible", f"{compatible}\0")
    machine.write("/proc/device-tree/model", f"{model}\0")
    found = machine.machine().probe
    assert found.target == target
    assert target is None or target in target_names()
    if target is None and model:
        assert found.because == f"the board {model!r} is none of the targets"


def test_a_gpu_that_is_no_rtx_is_named(fake):
    machine = fake("rtx")
    machine.write("/proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t NVIDIA H200\n")
    found = machine.machine().probe
    assert (found.target, found.because) == ("x86-cpu", "x86_64 with NVIDIA H200")


def test_a_package_that_was_removed_has_no_version(tmp_path):
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
        "Package: there-dev\nStatus: install ok installed\nVersion: 2\n\n"
        "Package: there\nStatus: install ok installed\nVersion: 3\n"
    )
    files = SystemFiles(tmp_path)
    assert [package_version(files, name) for name in ("gone", "there", "other")] == [
        None,
        "3",
        None,
    ]


def test_an_empty_system_is_told_by_its_architecture(tmp_path):
    files = SystemFiles(tmp_path)
    assert probe(files, "x86_64").target == "x86-cpu"
    found = probe(files, "riscv64")
    assert found.target is None
    assert found.because == "riscv64 without a device tree that names a board"


def test_this_machine_is_probed_by_its_own_files():
    found = probe()
    assert found.memory_bytes is None or found.memory_bytes > 0
    assert found.cores is None or found.cores > 0


def test_files_are_read_whole_up_to_a_limit_and_made_plain(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * (20 << 20))
    (tmp_path / "odd").write_bytes("one\0t\x1b[31mwo\r\ncafé".encode())
    files = SystemFiles(tmp_path)
    assert len(files.text("/large")) == 16 << 20
    assert files.text("/odd").splitlines()[:2] == ["one", "t [31mwo "]
    assert all(line.isprintable() for line in files.text("/odd").splitlines())
    assert (files.text("/none"), files.line("/none"), files.number("/odd")) == ("", "", None)
