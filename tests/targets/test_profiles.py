"""The profiles that are shipped: whole, sourced, and of one mind with the rest of the package."""

import string
import urllib.parse

import msgspec
import pytest

from edgekit import plugins, targets
from edgekit.cli import main
from edgekit.converters.recipe import recipe_of
from edgekit.errors import UsageError
from edgekit.specs import PRECISIONS
from edgekit.targets import Fact, Target, read_target, target_names

NAMES = target_names()
JETSONS = [name for name in NAMES if name.startswith("jetson-")]
LITERT_ONLY = {"dynamic", "int16x8", "auto"}
PLANNED = {"tensorrt", "tensorrt_rtx"}  # backends that are still to be written


def facts(value):
    """Yield every table of a profile, itself first."""
    if isinstance(value, Fact):
        yield value
        for field in value.__struct_fields__:
            yield from facts(getattr(value, field))
    elif isinstance(value, tuple):
        for part in value:
            yield from facts(part)


def test_the_devices_of_the_first_release():
    assert NAMES == [
        "jetson-agx-orin",
        "jetson-agx-thor",
        "jetson-orin-nano",
        "jetson-orin-nx",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "x86-cpu",
        "x86-rtx",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_table_has_a_page_as_its_source(name):
    for fact in facts(read_target(name)):
        page = urllib.parse.urlsplit(fact.source)
        assert page.scheme == "https" and "." in page.netloc and page.path, fact


@pytest.mark.parametrize("name", NAMES)
def test_formats_precisions_and_backends_are_those_that_edgekit_knows(name):
    target = read_target(name)
    assert set(target.formats) == {"litert", "onnx"}
    assert len(target.runs) == len(target.formats)
    assert target.formats[0] == ("onnx" if target.gpu else "litert")
    for support in target.runs:
        assert set(support.precisions) <= set(PRECISIONS)
        assert len(set(support.precisions)) == len(support.precisions)
        assert not (support.format == "onnx" and LITERT_ONLY & set(support.precisions))
        assert support.backends and set(support.backends) <= {*plugins.names("backend"), *PLANNED}
        assert target.precisions(support.format) == support.precisions
    assert target.precisions("papyrus") == ()
    assert target.architecture in ("aarch64", "x86_64")


@pytest.mark.parametrize("name", NAMES)
def test_camera_pipelines_have_known_placeholders_and_end_in_newest_bgr_frames(name):
    target = read_target(name)
    assert {camera.kind for camera in target.cameras} >= {"v4l2", "v4l2-mjpeg", "rtsp-h264"}
    for camera in target.cameras:
        used = {field for _, field, _, _ in string.Formatter().parse(camera.gstreamer) if field}
        assert "device" in used and used <= {"device", "width", "height", "fps"}, camera
        text = camera.gstreamer.format(device="/dev/video0", width=640, height=480, fps=30)
        *_, caps, sink = text.split(" ! ")
        assert caps == "video/x-raw,format=BGR"
        assert sink == "appsink drop=true max-buffers=1 sync=false"


@pytest.mark.parametrize("name", JETSONS)
def test_jetsons_have_modes_and_libraries(name):
    target = read_target(name)
    assert [mode.id for mode in target.power_modes] == list(range(len(target.power_modes)))
    for mode in target.power_modes:
        assert (mode.budget_w is None) == mode.name.startswith("MAXN")
        assert mode.budget_w is None or f"{mode.budget_w}W" in mode.name
    known = {distribution.name for distribution in target.distributions}
    assert {jetpack.distribution for jetpack in target.jetpacks} <= known
    assert target.cameras[0].kind == "csi"
    assert target.memory.shared_with_gpu


def test_a_jetpack_holds_the_same_on_every_jetson():
    seen = {}
    for name in JETSONS:
        for jetpack in read_target(name).jetpacks:
            assert seen.setdefault(jetpack.version, jetpack) == jetpack
    assert {"6.0", "6.1", "6.2", "7.0", "7.1", "7.2"} <= set(seen)


@pytest.mark.parametrize(
    ("name", "capability", "dla_cores"),
    [
        ("jetson-orin-nano", "8.7", 0),
        ("jetson-orin-nx", "8.7", 2),
        ("jetson-agx-orin", "8.7", 2),
        ("jetson-agx-thor", "11.0", 0),
    ],
)
def test_jetson_gpus(name, capability, dla_cores):
    gpu = read_target(name).gpu
    assert gpu.compute_capability == (capability,)
    assert gpu.dla_cores == dla_cores


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder that profiles are read from."""
    monkeypatch.setattr(targets, "_FOLDER", tmp_path)
    return tmp_path


SMALL = """
title = "Board"
architecture = "aarch64"
verified = "never"
source = "https://example.org/board"
[[runs]]
format = "litert"
precisions = ["int8"]
backends = ["litert"]
source = "https://example.org/runs"
"""


def test_one_file_adds_a_target(folder):
    (folder / "board.toml").write_text(SMALL)
    (folder / "board-2.toml").write_text('like = "board"\ntitle = "Board 2"\n')
    assert target_names() == ["board", "board-2"]
    first, second = read_target("board"), read_target("board-2")
    assert isinstance(first, Target)
    assert second == msgspec.structs.replace(first, title="Board 2")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("title", "tittle"), "unknown field `tittle`|missing required field `title`"),
        (("backends", "engines"), r"runs\[0\]"),
        (('source = "https://example.org/runs"', ""), "missing required field `source`"),
        (('["int8"]', '"int8"'), "Expected `array`"),
    ],
)
def test_a_profile_with_a_slip_is_refused(folder, damage, message):
    (folder / "board.toml").write_text(SMALL.replace(*damage))
    with pytest.raises(msgspec.ValidationError, match=message):
        read_target("board")


def test_an_unknown_target_names_those_there_are():
    with pytest.raises(UsageError, match=r"must be one of jetson-agx-orin, .*; got 'toaster'"):
        read_target("toaster")


def test_a_recipe_takes_what_the_target_runs():
    assert recipe_of({"target": "raspberry-pi-5", "precision": "fp16"}).check()


@pytest.mark.parametrize("name", NAMES)
def test_one_profile_on_the_command_line(name, capsys):
    assert main(["targets", name]) == 0
    text = capsys.readouterr().out
    target = read_target(name)
    assert target.title in text
    for fact in facts(target):
        assert fact.source[:60] in text
    assert ("unverified" in text) == any(fact.unverified for fact in facts(target))


def test_an_unknown_profile_on_the_command_line(capsys):
    assert main(["targets", "toaster"]) == 2
    assert "must be one of jetson-agx-orin" in capsys.readouterr().err
