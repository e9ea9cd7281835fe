"""Small graphs, and what opens a file in a backend without a bundle around it."""

from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace

import pytest


@pytest.fixture
def opened():
    """Return a function that opens a model's file in a backend, with what `operators_of` needs."""

    @contextmanager
    def opened(path, backend, threads=1):
        module = import_module(f"edgekit.runtime.backends.{backend}")
        with module.Backend(path, threads) as engine:
            for index, spec in enumerate(engine.inputs):
                engine.input_buffer(index)[...] = 1
                assert spec.shape
            yield SimpleNamespace(
                bundle=SimpleNamespace(model_path=path), backend=engine, backend_name=backend
            )

    return opened


@pytest.fixture
def convolutions(tmp_path):
    """Return an .onnx file: Conv, Relu, Conv, GlobalAveragePool; their names are their outputs'."""
    onnx = pytest.importorskip("onnx")
    from onnx_graphs import GraphWriter

    graph = GraphWriter()
    picture = graph.input((1, 8, 32, 32))
    first = graph.op("Conv", picture, graph.weights(16, 8, 3, 3), name="first", pads=[1] * 4)
    clipped = graph.op("Relu", first, name="clipped")
    second = graph.op("Conv", clipped, graph.weights(4, 16, 3, 3), name="second", pads=[1] * 4)
    path = tmp_path / "convolutions.onnx"
    onnx.save(graph.model(graph.op("GlobalAveragePool", second, name="pooled")), path)
    return path
