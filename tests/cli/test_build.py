"""`edgekit build`, with a stand-in for TensorRT; tests/runtime/engines has a real compiler."""

import json
import sys
from contextlib import nullcontext

import pytest
from stand_in_tensorrt import stand_in

from edgekit.cli import main
from edgekit.errors import CheckFailed
from edgekit.runtime import engines, model
from edgekit.runtime.engines import gpu

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[lint]'")

from onnx_graphs import GraphWriter  # noqa: E402


@pytest.fixture
def bundle(bundle_of_onnx, tmp_path, monkeypatch):
    """Return a bundle of an .onnx, and have the cache in a folder of the test."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    graph = GraphWriter()
    content = graph.model(graph.op("Relu", graph.input())).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content)
    return bundle_of_onnx(tmp_path / "m.onnx")


@pytest.fixture
def rtx(monkeypatch):
    """Return a stand-in for TensorRT-RTX, on a machine without a GPU."""
    monkeypatch.setattr(gpu, "first_gpu", lambda: None)
    module = stand_in("tensorrt_rtx", "1.7.1")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    return module


@pytest.fixture
def orin(monkeypatch):
    """Return a stand-in for TensorRT, beside a GPU."""
    module = stand_in()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    for place in (engines, gpu):
        monkeypatch.setattr(place, "first_gpu", lambda: gpu.Gpu("Orin", "8.7"))
    return module


def test_rtx_is_built_ahead_of_time(bundle, rtx, capsys):
    arguments = ["build", str(bundle), "--for", "rtx"]
    more = ["--compute-capability", "8.6", "--compute-capability", "12.0", "--memory-mb", "64"]
    assert main([*arguments, *more]) == 0
    output = capsys.readouterr()
    assert (
        "built" in output.out and "no GPU here" in output.out and "can take minutes" in output.err
    )
    (config,) = rtx.configs
    assert config.limits == {0: 64 << 20} and config.capabilities == {0: 86, 1: 120}
    assert main([*arguments, *more, "--json", "-"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["from_cache"] and len(rtx.configs) == 1
    assert "kept before" in output.err


def test_the_golden_samples_are_replayed_beside_a_gpu(bundle, orin, monkeypatch, capsys):
    opened = []

    def open_model(bundle, *, backend):
        opened.append(backend)
        return nullcontext()

    monkeypatch.setattr(model, "open_model", open_model)
    assert main(["build", str(bundle)]) == 0
    assert opened == ["tensorrt"] and "3 agree" in capsys.readouterr().out

    def other_outputs(bundle, *, backend):
        raise CheckFailed("golden sample 0: tensorrt computes other outputs")

    monkeypatch.setattr(model, "open_model", other_outputs)
    assert main(["build", str(bundle)]) == 1
    assert "other outputs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--for", "cuda"], 2, "--for` must be one of tensorrt, rtx; got 'cuda'"),
        (["--memory-mb", "0"], 2, "1 to"),
        (["--memory-mb", "much"], 2, "is not a valid int"),
        (["--compute-capability", "8.6"], 2, "TensorRT-RTX"),
        (["--for", "rtx", "--compute-capability", "x"], 2, "written like 8.6"),
    ],
)
def test_wrong_use(arguments, code, message, bundle, rtx, orin, capsys):
    assert main(["build", str(bundle), *arguments]) == code
    errors = capsys.readouterr().err.strip()
    assert message in errors.splitlines()[-1] and "Traceback" not in errors


def test_json_inside_the_bundle_is_exit_3(bundle, rtx, capsys):
    assert main(["build", str(bundle), "--for", "rtx", "--json", str(bundle / "x.json")]) == 3
    assert "lies in a bundle" in capsys.readouterr().err


def test_without_a_gpu_tensorrt_is_exit_3(bundle, orin, monkeypatch, capsys):
    monkeypatch.setattr(engines, "first_gpu", lambda: None)
    assert main(["build", str(bundle)]) == 3
    assert "--for rtx needs none" in capsys.readouterr().err


def test_a_bundle_that_is_none_or_of_another_format(classifier_bundle, orin, tmp_path, capsys):
    assert main(["build", str(tmp_path / "none.edgekit")]) == 2
    assert main(["build", str(classifier_bundle)]) == 2
    assert "is litert; TensorRT takes onnx" in capsys.readouterr().err


def test_a_model_that_tensorrt_refuses_is_exit_2(bundle, orin, capsys):
    orin.fails, orin.errors = True, ["no tactics"]
    assert main(["build", str(bundle)]) == 2
    assert "builds no engine: no tactics" in capsys.readouterr().err


def test_an_unwritable_cache_is_told_and_the_build_goes_on(bundle, rtx, capsys, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", "/proc/edgekit")
    assert main(["build", str(bundle), "--for", "rtx", "--json", "-"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["file"] is None
    assert output.err.count("EDGEKIT_CACHE names another folder") == 1


def test_what_is_kept_is_listed(bundle, rtx, monkeypatch, capsys):
    assert main(["build", "--list"]) == 0
    assert "0 kept, 0.0 MB, of 4000 MB" in capsys.readouterr().out
    assert main(["build", str(bundle), "--for", "rtx"]) == 0
    capsys.readouterr()
    assert main(["build", "--list", "--json", "-"]) == 0
    output = capsys.readouterr()
    assert "built.edgekit/model.onnx" in output.err
    assert "tensorrt_rtx 1.7.1" in output.err and "yes" in output.err
    (engine,) = json.loads(output.out)["engines"]
    assert engine["model"] == str(bundle / "model.onnx")
    assert (engine["fits"], engine["reason"], engine["gpu"]) == (True, None, None)
    rtx.__version__ = "1.8.0"
    monkeypatch.setenv("EDGEKIT_CACHE_MB", "0")
    assert main(["build", "--list"]) == 0
    output = capsys.readouterr().out
    assert "no limit" in output and "version: here 1.8.0" in output
    monkeypatch.delitem(sys.modules, "tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert main(["build", "--list"]) == 0
    assert "edgekit[rtx]" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "limit", "message"),
    [
        ([], "", "give a BUNDLE to build, or --list alone"),
        (["some.edgekit", "--list"], "", "give a BUNDLE to build, or --list alone"),
        (["--list"], "much", "EDGEKIT_CACHE_MB must be a whole number of megabytes"),
    ],
)
def test_lists_that_make_no_sense(arguments, limit, message, monkeypatch, capsys):
    monkeypatch.setenv("EDGEKIT_CACHE_MB", limit)
    assert main(["build", *arguments]) == 2
    assert message in capsys.readouterr().err
