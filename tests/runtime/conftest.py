"""Small .onnx models, written with the package `onnx`, for the tests of what reads them."""

import hashlib
import importlib.machinery
import json
import sys
import types

import numpy as np
import pytest


class OnnxModels:
    """Makes ModelProtos and writes them into a folder."""

    def __init__(self, folder):
        onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
        self.helper, self.from_array = onnx.helper, onnx.numpy_helper.from_array
        self.folder = folder

    def model(self, nodes, inputs, outputs, constants=(), **more):
        """Return a model; inputs and outputs are (name, dtype, shape), constants name and array."""
        infos = [
            [
                self.helper.make_tensor_value_info(
                    name, self.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
                )
                for name, dtype, shape in values
            ]
            for values in (inputs, outputs)
        ]
        tensors = [self.from_array(array, name) for name, array in constants]
        graph = self.helper.make_graph(nodes, "graph", *infos, tensors)
        opsets = [self.helper.make_opsetid("", 17)]
        return self.helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)

    def classifier(self, dtype="float32", side=16, batch=1):
        """Return the classifier of tests/assets: the colour that fills a picture, raw RGB."""
        weights = np.array([[8, -8, -8, 4], [-8, 8, -8, 4], [-8, -8, 8, 4]]) / 255
        node = self.helper.make_node
        return self.model(
            [
                node("ReduceMean", ["picture"], ["mean"], axes=[1, 2], keepdims=0),
                node("Gemm", ["mean", "weights", "bias"], ["logits"]),
                node("Softmax", ["logits"], ["scores"], axis=-1),
            ],
            [("picture", dtype, [batch, side, side, 3])],
            [("scores", dtype, [batch, 4])],
            [("weights", weights.astype(dtype)), ("bias", np.array([0, 0, 0, -4], dtype))],
        )

    def elementwise(self, dtypes, operator="Identity", shape=(1, 3)):
        """Return a model with one operator, one input and one output for each dtype."""
        return self.model(
            [self.helper.make_node(operator, [f"x{i}"], [f"y{i}"]) for i in range(len(dtypes))],
            [(f"x{i}", dtype, shape) for i, dtype in enumerate(dtypes)],
            [(f"y{i}", dtype, shape) for i, dtype in enumerate(dtypes)],
        )

    def handing_through(self):
        """Return a model with an input and a constant among its outputs."""
        node, row = self.helper.make_node, ("float32", [1, 3])
        return self.model(
            [node("Relu", ["x"], ["y"]), node("Identity", ["c"], ["k"])],
            [("x", *row)],
            [("x", *row), ("y", *row), ("k", *row)],
            [("c", np.array([[7, 8, 9]], np.float32))],
        )

    def looking_up(self):
        """Return a model that fails when it runs, by an index that is out of range."""
        return self.model(
            [self.helper.make_node("Gather", ["table", "index"], ["value"])],
            [("index", "int64", [1])],
            [("value", "float32", [1, 2])],
            [("table", np.arange(6, dtype=np.float32).reshape(3, 2))],
        )

    def save(self, model, name="model"):
        """Write a ModelProto, or bytes, as NAME.onnx; return the path."""
        path = self.folder / f"{name}.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path


@pytest.fixture
def onnx_models(tmp_path):
    return OnnxModels(tmp_path)


@pytest.fixture
def onnx_bundle(make_bundle, onnx_models):
    """Return a bundle of format onnx, with golden samples that LiteRT computed."""
    bundle = make_bundle(precision="fp32")
    (bundle / "model.tflite").unlink()
    content = onnx_models.classifier().SerializeToString()
    (bundle / "model.onnx").write_bytes(content)
    manifest = json.loads((bundle / "bundle.json").read_bytes())
    del manifest["files"]["model.tflite"]
    manifest["files"]["model.onnx"] = hashlib.sha256(content).hexdigest()
    manifest.update(format="onnx", model="model.onnx")
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    return bundle


@pytest.fixture
def gpu_stand_in(monkeypatch):
    """Return a function that puts a stand-in for CUDA in reach, and returns it."""
    from stand_in_gpu import Compiler, Driver

    from edgekit.runtime import cuda
    from edgekit.runtime.engines.gpu import Gpu

    def install(**choices):
        driver = Driver(**choices)
        package = types.ModuleType("pycuda")
        package.__spec__ = importlib.machinery.ModuleSpec("pycuda", None)
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
        monkeypatch.setitem(sys.modules, "pycuda.compiler", Compiler(driver))
        monkeypatch.setattr(cuda, "first_gpu", lambda: Gpu("Stand-in GPU", "8.7"))
        return driver

    cuda.open_cuda.cache_clear()
    yield install
    cuda.open_cuda.cache_clear()


@pytest.fixture
def install(gpu_stand_in, monkeypatch):
    """Return a function that puts stand-ins for a GPU and TensorRT modules in reach."""
    from stand_in_gpu import Tensorrt

    from edgekit.runtime.backends import tensorrt
    from edgekit.runtime.engines import Engine

    installed = []

    def install(*flavours, **choices):
        driver = gpu_stand_in(**choices)
        for flavour in flavours or ("tensorrt",):
            installed.append(Tensorrt(driver, flavour))
            monkeypatch.setitem(sys.modules, flavour, installed[-1])
        trt = installed[-1]
        trt.asked = []

        def engine_for(model, flavour):
            trt.asked.append(flavour)
            return Engine(model.read_bytes(), "key", False, None)

        monkeypatch.setattr(tensorrt, "engine_for", engine_for)
        monkeypatch.setattr(tensorrt, "first_gpu", lambda: object())
        return trt

    yield install
    for trt in installed:
        assert trt.mistakes == trt.driver.mistakes == []
        assert trt.driver.stack == []


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    """Return the GPU's preprocessing kernel as a function of the CPU."""
    from kernel_on_cpu import compiled

    return compiled(tmp_path_factory.mktemp("kernel"))
