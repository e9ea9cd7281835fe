"""The table of differences, its page, and the GPU that an engine is for."""

import re
from pathlib import Path

import pytest

from edgekit.runtime.engines.gpu import Gpu, first_gpu
from edgekit.runtime.engines.versions import DIFFERENCES, OLDEST, Api

PAGE = Path(__file__).parents[3] / "docs" / "tensorrt-versions.md"


def shown(version):
    return ".".join(map(str, version)) if version else ""


def test_the_page_shows_the_table():
    section = PAGE.read_text("utf-8").split("\n## Versions\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{each.name}` | {shown(each.since) or 'never'} | {shown(each.until)} "
        f"| {'yes' if each.rtx else 'no'} | {each.here} |"
        for each in DIFFERENCES
    ]


def test_the_table_names_each_difference_once_and_from_the_oldest_version_on():
    assert len({each.name for each in DIFFERENCES}) == len(DIFFERENCES)
    for each in DIFFERENCES:
        assert each.since is None or each.since >= OLDEST["tensorrt"]
        assert each.until is None or each.until > each.since


@pytest.mark.parametrize(
    ("version", "has", "has_not"),
    [
        ("8.6.2", "BuilderFlag.INT8", "IProgressMonitor"),
        ("10.3.0.30", "IProgressMonitor", "ComputeCapability"),
        ("10.16.0", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "ICudaEngine.num_bindings"),
        ("11.4.0", "ITimingCache", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"),
    ],
)
def test_versions_are_compared_as_numbers(version, has, has_not):
    api = Api("tensorrt", version)
    assert api.has(has) and not api.has(has_not)


def test_what_is_not_in_the_table_cannot_be_asked_for():
    with pytest.raises(KeyError):
        Api("tensorrt", "10.3.0").has("IProgresMonitor")


def test_every_question_that_the_code_asks_is_in_the_table():
    folder = Path(__file__).parents[3] / "edgekit" / "runtime" / "engines"
    asked = {
        name
        for file in folder.glob("*.py")
        for name in re.findall(r'\.has\(\s*"([^"]+)"', file.read_text("utf-8"))
    }
    assert {"IProgressMonitor", "ITimingCache"} <= asked <= {each.name for each in DIFFERENCES}


class FakeCuda:
    """Stands for libcuda, where there is no driver; the functions return CUDA's error codes."""

    def __init__(self, count=1, fails=None):
        self._count, self._fails = count, fails

    def _code(self, name):
        return 100 if name == self._fails else 0

    def cuInit(self, flags):
        return self._code("cuInit")

    def cuDeviceGetCount(self, count):
        count._obj.value = self._count
        return self._code("cuDeviceGetCount")

    def cuDeviceGet(self, device, ordinal):
        device._obj.value = 0
        return self._code("cuDeviceGet")

    def cuDeviceGetName(self, name, size, device):
        name.value = b"Orin"
        return self._code("cuDeviceGetName")

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 8, 76: 7}[attribute]
        return self._code("cuDeviceGetAttribute")


def test_the_gpu_is_the_first_that_cuda_shows():
    assert first_gpu(FakeCuda()) == Gpu("Orin", "8.7")
    assert first_gpu(FakeCuda(count=0)) is None


@pytest.mark.parametrize(
    "name",
    ["cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"],
)
def test_what_cuda_refuses_is_no_gpu(name):
    assert first_gpu(FakeCuda(fails=name)) is None


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    def absent(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", absent)
    assert first_gpu() is None
