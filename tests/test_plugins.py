import sys

import pytest

from edgekit import plugins
from edgekit.errors import UsageError


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that puts a package with entry points in reach, as pip would."""

    def install(name, points, module, source):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(points)
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(tmp_path)
    return install


@pytest.mark.parametrize(
    ("kind", "name"),
    [("backend", "litert"), ("camera", "v4l2"), ("camera", "test"), ("sink", "jsonl")],
)
def test_a_file_is_a_part_by_its_name(kind, name):
    assert name in plugins.names(kind)
    module = plugins.load(kind, name)
    assert module.__name__.endswith(f".{name}")
    assert hasattr(module, kind.capitalize())


@pytest.mark.parametrize("kind", ["backend", "camera", "sink"])
def test_every_part_has_its_class_and_none_is_private(kind):
    assert plugins.names(kind) == sorted(plugins.names(kind))
    for name in plugins.names(kind):
        assert not name.startswith("_")
        assert hasattr(plugins.load(kind, name), kind.capitalize())


def test_an_unknown_part_is_told_with_those_there_are():
    with pytest.raises(UsageError, match=r"`sink` must be one of .*jsonl.*; got 'jsn'"):
        plugins.load("sink", "jsn")


@pytest.mark.parametrize("name", ["../errors", "__init__", "_opencv", "camera.test", ""])
def test_only_parts_can_be_loaded(name):
    with pytest.raises(UsageError, match="must be one of"):
        plugins.load("camera", name)


def test_another_package_adds_a_sink_that_run_can_use(installed):
    installed(
        "edgekit-shelf",
        "[edgekit.sinks]\nshelf = edgekit_shelf\n",
        "edgekit_shelf",
        "class Sink:\n    def __init__(self, uri, rate_hz):\n        self.uri = uri\n",
    )
    from edgekit.runtime.sinks import kind_of, open_sink

    assert "shelf" in plugins.names("sink")
    assert "edgekit_shelf" not in sys.modules  # listing imports nothing
    assert kind_of("shelf://top") == "shelf"
    assert open_sink("shelf://top").uri == "shelf://top"


def test_a_name_that_two_packages_offer_still_loads(installed):
    for package in ("edgekit-one", "edgekit-two"):
        points = "[edgekit.cameras]\nsky = edgekit_sky\n"
        installed(package, points, "edgekit_sky", "class Camera:\n    pass\n")
    assert plugins.names("camera").count("sky") == 1
    assert plugins.load("camera", "sky").__name__ == "edgekit_sky"


def test_no_other_package_replaces_a_part_of_edgekit(installed):
    installed(
        "edgekit-false",
        "[edgekit.sinks]\njsonl = edgekit_false\n",
        "edgekit_false",
        "raise OSError",
    )
    assert plugins.load("sink", "jsonl").__name__ == "edgekit.runtime.sinks.jsonl"
