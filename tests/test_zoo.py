"""Eight mechanisms of the conformance zoo, small; and its runner, results and table."""

import importlib
import multiprocessing
import os
import time
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def zoo(monkeypatch):
    """Return what imports a module of the zoo."""
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"benchmarks.zoo.{name}")


def normalized(zoo):
    """Return a network with AlexNet's local response normalization."""
    import keras

    layers = keras.layers
    picture = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 5, 2, activation="relu")(picture)
    x = layers.MaxPooling2D(3, 2)(zoo("_layers").local_response_normalization()(x))
    x = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(x))
    return keras.Model(picture, layers.Dense(5, activation="softmax")(x))


def dilated_and_grouped():
    import keras

    layers = keras.layers
    picture = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, dilation_rate=2, activation="relu")(picture)
    x = layers.Conv2D(8, 3, groups=4, activation="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", dilation_rate=3, activation="relu")(x)
    return keras.Model(picture, layers.Conv2D(3, 1, activation="softmax")(x))


def mechanism(zoo, name):
    architecture = zoo("__init__").Architecture
    small = {
        "Local response normalization": partial(normalized, zoo),
        "Dilated and grouped convolutions": dilated_and_grouped,
        "Hypercolumns": partial(zoo("pixels").pixelnet, 32, (4, 8, 8)),
    }
    if name in small:
        return architecture(name, small[name])
    return zoo("__init__").architectures()[name]


# Of the two formats the quicker; both for two of them.
@pytest.mark.convert
@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("Local response normalization", "litert"),
        ("Local response normalization", "onnx"),
        ("Spatial pyramid pooling", "litert"),
        ("Squeeze-and-excitation", "onnx"),
        ("CBAM attention", "litert"),
        ("Dilated and grouped convolutions", "litert"),
        ("Dilated and grouped convolutions", "onnx"),
        ("Hypercolumns", "litert"),
        ("Encoder-decoder, repeated vector", "onnx"),
        ("Multi-output", "litert"),
    ],
)
def test_a_mechanism_becomes_int8_that_answers_as_keras_does(zoo, tmp_path, name, format_):
    outcome = zoo("_cell").judge(mechanism(zoo, name), format_, "int8", tmp_path / "small.edgekit")
    assert outcome.parity_db >= 20, outcome


@pytest.fixture
def spawning(zoo, monkeypatch):
    """Have the zoo's processes start without TensorFlow, which takes seconds."""
    process = zoo("_process")
    monkeypatch.setattr(process, "_SERVER", multiprocessing.get_context("spawn"))
    return process


def test_a_cell_that_crashes_has_the_signal_as_its_reason(spawning):
    outcome = spawning.in_child(os.abort, (), limit_s=300)
    assert not outcome.completed
    assert "signal 6" in outcome.reason


def test_a_cell_that_hangs_is_ended_and_says_so(spawning):
    outcome = spawning.in_child(time.sleep, (3600,), limit_s=1)
    assert outcome.reason == "not done after 1 s"


def line(zoo, architecture, engine, precision, **outcome):
    module = zoo("_outcome")
    cell = module.Cell(architecture, engine, precision)
    return module.Line(
        cell, {"keras": "3.0"}, "2026-11-21", module.Outcome(**{"completed": True, **outcome})
    )


def test_results_are_read_back_and_one_that_a_kill_cut_short_is_left_out(zoo, tmp_path):
    module, file = zoo("_outcome"), tmp_path / "kept" / "zoo.jsonl"
    kept = [line(zoo, "LeNet-5", "litert", one, parity_db=120.0) for one in ("fp32", "int8")]
    assert module.read_lines(file) == []
    module.append_line(file, kept[0])
    file.write_bytes(file.read_bytes() + b'{"cell": {"archi')
    assert module.read_lines(file) == kept[:1]
    module.append_line(file, kept[1])
    assert module.read_lines(file) == kept
    file.write_bytes(b"nonsense\n" + file.read_bytes())
    with pytest.raises(SystemExit, match="line 1 is not a cell's result"):
        module.read_lines(file)


def test_a_result_holds_for_the_versions_that_made_it(zoo):
    kept = line(zoo, "GRU", "litert", "fp32")
    assert kept.holds_with({"keras": "3.0"})
    assert not kept.holds_with({"keras": "3.1"})
    assert kept.holds_with({"keras": "3.0", "tensorrt-rtx-cu13": "1.7"})  # it had no say
    built = line(zoo, "GRU", "tensorrt_rtx", "fp32")
    assert not built.holds_with({"keras": "3.0", "tensorrt-rtx-cu13": "1.7"})


def test_the_table_shows_parity_reasons_and_what_was_not_run(zoo, tmp_path):
    rows = [zoo("__init__").architectures()[name] for name in ("LeNet-5", "GRU")]
    lines = [
        line(zoo, "LeNet-5", "litert", "int8", parity_db=12.0),
        line(zoo, "LeNet-5", "litert", "int8", parity_db=31.4),
        line(zoo, "LeNet-5", "litert", "fp16", parity_db=39.0),
        line(zoo, "LeNet-5", "tensorrt_rtx", "fp32"),
        line(zoo, "GRU", "onnxruntime", "fp16", completed=False, reason="a loop <1>"),
        line(zoo, "GRU", "tensorrt_rtx", "fp16", completed=False, reason="a loop <1>"),
        line(zoo, "GRU", "litert", "int8", parity_db=30.0, fallbacks=("no kernel",)),
        line(zoo, "no longer there", "litert", "int8", parity_db=30.0),
    ]
    page = tmp_path / "page.md"
    zoo("_table").write_table(page, lines, rows)
    text = page.read_text("utf-8")
    assert (
        "| LeNet-5 | not run | (39.0) <sup>1</sup> | 31 | not run | not run | not run | built |"
        in text
    )
    assert "| GRU | not run | not run | 30 <sup>2</sup> |" in text
    assert "no <sup>3</sup> | not run | not run | no <sup>3</sup> |" in text
    assert "\n2. in part float: no kernel\n3. a loop &lt;1>" in text
    assert "| LiteRT | 0 of 2, 2 not run | 0 of 2, 1 not run | 2 of 2 |" in text
    assert "no longer there" not in text
    zoo("_table").write_table(page, lines, rows)
    assert page.read_text("utf-8") == text


def test_a_run_goes_on_where_it_was_stopped(zoo, tmp_path, monkeypatch, capsys):
    runner, outcome = zoo("__main__"), zoo("_outcome").Outcome(completed=True, parity_db=90.0)
    asked = []
    monkeypatch.setattr(
        runner, "in_child", lambda work, arguments, limit_s: asked.append(arguments) or outcome
    )
    options = ["LeNet-5", "GRU", "--precision", "fp32", "--tensorrt-rtx", str(tmp_path)]
    options += ["--results", str(tmp_path / "zoo.jsonl"), "--page", str(tmp_path / "page.md")]
    assert runner.main(["LeNet-5", *options[2:]]) == 0
    assert [(given[0].name, given[1]) for given in asked] == [
        ("LeNet-5", "litert"),
        ("LeNet-5", "onnx"),
    ]
    asked.clear()
    assert runner.main(options) == 0
    assert {given[0].name for given in asked} == {"GRU"}
    assert "GRU, litert fp32: 90.0 dB pass" in capsys.readouterr().out
    asked.clear()
    assert runner.main([*options, "--again"]) == 0
    assert len(asked) == 4
