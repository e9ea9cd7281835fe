"""Every benchmark runs and gives figures; how large they are is for `make bench` to say."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(file.stem for file in (ROOT / "benchmarks").glob("[!_]*.py"))

# They convert several networks, train them, or wait for streams; the others take seconds.
SLOW = (
    *("conversion", "distillation", "onnx", "quantization", "segmentation", "streaming"),
    *("streams", "training"),
)

needs_runtime = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("cv2", "ai_edge_litert")),
    reason="no OpenCV or no LiteRT: pip install -e '.[cpu]'",
)


def benchmarks(*arguments, environment=None):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@needs_runtime
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NAMES]
)
def test_a_benchmark_runs_and_gives_finite_positive_ratios(name, tmp_path):
    done = benchmarks(name, "--tiny", "--json", str(tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    rows = figures["rows"][name]
    if not rows:
        pytest.skip(done.stdout.splitlines()[0])
    assert any(row["at_most"] or row["at_least"] for row in rows), "no row has a limit to meet"
    for row in rows:
        value = row["value"]
        assert all(math.isfinite(figure) for figure in value.values()), row
        assert value["least"] <= value["median"] <= value["most"], row
        assert row["unit"] != "times" or value["least"] > 0, row
        assert row["name"] in done.stdout
    missed = "MISS" in done.stdout
    assert missed or "PASS" in done.stdout
    assert done.returncode == int(missed), done.stderr


@needs_runtime
def test_a_peer_that_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    peers = importlib.import_module("benchmarks._peers")
    routes = {"ours": (peers.edgekit, ()), "Other": (peers.tensorflow, ("json", "no_such_package"))}
    monkeypatch.setattr(peers, "ROUTES", routes)
    assert list(peers.installed()) == ["ours"]
    told = capsys.readouterr().out
    assert "Other is left out, since no_such_package is not installed" in told
    assert "pip install -e '.[cpu,convert]'" in told


@needs_runtime
def test_tfmot_that_is_not_installed_is_named_and_may_be_elsewhere(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    training = importlib.import_module("benchmarks._training")
    monkeypatch.setenv("EDGEKIT_TFMOT_PYTHON", "/elsewhere/bin/python")
    assert training.peer_python() == "/elsewhere/bin/python"
    monkeypatch.delenv("EDGEKIT_TFMOT_PYTHON")
    child = importlib.import_module("benchmarks._child")
    monkeypatch.setattr(child, "find_spec", lambda name: None)
    assert training.peer_python() is None
    told = capsys.readouterr().out
    assert "tfmot is left out" in told and "EDGEKIT_TFMOT_PYTHON" in told


@needs_runtime
def test_what_the_onnx_lane_needs_is_named(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    lane = importlib.import_module("benchmarks.onnx")
    monkeypatch.setattr(lane, "find_spec", lambda name: None if name == "tf2onnx" else name)
    assert lane.measure("tiny") == []
    told = capsys.readouterr().out
    assert "onnx needs tf2onnx, not installed: pip install -e '.[cpu,onnx,convert]'" in told


@needs_runtime
def test_a_route_that_fails_says_why(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT)
    training = importlib.import_module("benchmarks._training")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such package >&2\nexit 3\n", encoding="utf-8")
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match="no such package"):
        training.try_layers("tfmot", str(python), ["Conv2D"])


def test_a_benchmark_that_does_not_exist_is_refused_with_the_names_that_do():
    done = benchmarks("speed_of_light")
    assert done.returncode == 2
    assert "speed_of_light" in done.stderr
    assert all(name in done.stderr for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_what_it_compares_and_what_it_must_show(name):
    source = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    docstring = source.split('"""')[1]
    assert "Ours:" in docstring and "Peer:" in docstring and "It must show:" in docstring


def test_the_readme_of_the_benchmarks_names_them_all():
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in readme] == []


@pytest.mark.parametrize(
    ("median", "limits", "misses"),
    [
        (2.0, {"at_least": 2.0}, False),
        (1.9, {"at_least": 2.0}, True),
        (10.0, {"at_most": 10.0}, False),
        (10.1, {"at_most": 10.0}, True),
        (1e9, {}, False),
    ],
)
def test_a_median_beyond_its_limit_misses(median, limits, misses, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    measure = importlib.import_module("benchmarks._measure")
    row = measure.Row("ours / peer", measure.Spread(median, 0.1, 2e9), **limits)
    assert row.misses is misses


def test_costs_are_taken_in_turns_and_who_begins_changes(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    measure = importlib.import_module("benchmarks._measure")
    order = []

    def cost(name, seconds):
        return lambda: order.append(name) or seconds

    seconds = measure.in_turns([cost("ours", 1.0), cost("peer", 4.0)], rounds=3, calls=2)
    assert order[:2] == ["ours", "peer"]  # the warm-up
    assert order[2:] == ["ours", "peer", "peer", "ours"] * 3
    assert seconds.shape == (2, 3, 2)
    assert measure.ratio(seconds[1], seconds[0]) == measure.Spread(4.0, 4.0, 4.0)
    assert measure.difference_us(seconds[0], seconds[1]).median == -3e6
