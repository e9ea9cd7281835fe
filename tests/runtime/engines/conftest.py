"""What the tests of engines share: a model, a stand-in TensorRT, a cache of their own."""

import importlib.util
import sys

import pytest
from stand_in_tensorrt import stand_in

from edgekit.runtime import engines
from edgekit.runtime.engines.gpu import Gpu


@pytest.fixture(scope="session")
def onnx_model(tmp_path_factory):
    """Return a small .onnx file."""
    if importlib.util.find_spec("onnx") is None:
        pytest.skip("onnx is not installed: pip install -e '.[lint]'")
    from onnx_graphs import GraphWriter

    graph = GraphWriter()
    content = graph.model(graph.op("Relu", graph.input())).SerializeToString()
    file = tmp_path_factory.mktemp("model") / "model.onnx"
    file.write_bytes(content)
    return file


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the folder of a cache that is not there yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGEKIT_CACHE", str(folder))
    return folder


@pytest.fixture
def tensorrt(monkeypatch, cache):
    """Return a stand-in for TensorRT 10.3 on an Orin, and import it as `tensorrt`."""
    module = stand_in()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(engines, "first_gpu", lambda: Gpu("Orin", "8.7"))
    return module


@pytest.fixture
def events():
    """Return a list of what happened; its `append` is `on_event`."""
    return []
