"""`edgekit build`, then the backend on what was built; TensorRT and the GPU are stand-ins."""

import sys

import pytest
import stand_in_gpu
from stand_in_tensorrt import stand_in

import edgekit
from edgekit.cli import main
from edgekit.errors import CheckFailed
from edgekit.runtime import engines
from edgekit.runtime.engines import gpu


@pytest.fixture
def tensorrt(gpu_stand_in, onnx_bundle, cache, monkeypatch):
    """Return a stand-in whose engine is the bundle's .onnx, which ONNX Runtime computes."""
    builds = stand_in(engine=(onnx_bundle / "model.onnx").read_bytes())
    module = stand_in_gpu.Tensorrt(gpu_stand_in())
    for name, value in vars(builds).items():
        if not name.startswith("_") and not hasattr(module, name):
            setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    for place in (engines, gpu):
        monkeypatch.setattr(place, "first_gpu", lambda: gpu.Gpu("Stand-in GPU", "8.7"))
    return module


def test_what_was_built_is_what_opens(tensorrt, onnx_bundle, capsys):
    assert main(["build", str(onnx_bundle), "--memory-mb", "64"]) == 0
    assert "agree" in capsys.readouterr().out
    with edgekit.open(onnx_bundle, backend="tensorrt"):
        assert [config.limits for config in tensorrt.configs] == [{0: 64 << 20}]


def test_an_engine_that_computes_something_else_is_exit_1(tensorrt, onnx_bundle, capsys):
    tensorrt.wrong = 1
    assert main(["build", str(onnx_bundle)]) == 1
    assert "computes other outputs here" in capsys.readouterr().err
    with pytest.raises(CheckFailed):
        edgekit.open(onnx_bundle, backend="tensorrt")
