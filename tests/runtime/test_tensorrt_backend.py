"""The backend `tensorrt` over stand-ins for CUDA and TensorRT, and over the real ones on a GPU."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import vendor

import edgekit
from edgekit import plugins
from edgekit.bundle import read_bundle, write_bundle
from edgekit.errors import BackendError, CheckFailed, EnvironmentLacks, ModelError, UsageError
from edgekit.profiling.child import memory
from edgekit.runtime.backends import onnxruntime as onnxruntime_backend
from edgekit.runtime.backends import tensorrt, tensorrt_rtx
from edgekit.runtime.engines.gpu import first_gpu

needs_onnxruntime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None,
    reason="onnxruntime is not installed: pip install -e '.[onnx]'",
)
pytestmark = needs_onnxruntime


@pytest.fixture(params=[False, True], ids=["discrete", "integrated"])
def integrated(request):
    return request.param


def run(backend, *values):
    for index, value in enumerate(values):
        backend.input_buffer(index)[...] = value
    outputs = [np.empty(spec.shape, spec.dtype) for spec in backend.outputs]
    backend.run(outputs)
    return outputs


def test_it_computes_the_network_and_says_on_what(install, onnx_models, integrated):
    trt = install(integrated=integrated)
    path = onnx_models.save(onnx_models.classifier())
    picture = np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3)).astype(np.float32)
    with onnxruntime_backend.Backend(path, 1) as reference, tensorrt.Backend(path, 4) as backend:
        assert backend.inputs == reference.inputs
        assert backend.outputs == reference.outputs
        np.testing.assert_array_equal(run(backend, picture)[0], run(reference, picture)[0])
        words = "TensorRT 10.3.0, Stand-in GPU (8.7)" + (", zero-copy" if integrated else "")
        assert backend.executes == words
        assert backend.threads == 1
    assert trt.asked == ["tensorrt"]


def test_several_tensors_of_all_types_keep_their_places(install, onnx_models, integrated):
    install(integrated=integrated)
    dtypes = ["float32", "float16", "int8", "uint8", "int32", "int64", "bool"]
    with tensorrt.Backend(onnx_models.save(onnx_models.elementwise(dtypes)), 1) as backend:
        assert [spec.dtype for spec in backend.inputs] == dtypes
        assert [spec.name for spec in backend.outputs] == [f"y{i}" for i in range(len(dtypes))]
        values = [np.array([[0, 1, 2 + index]]).astype(t) for index, t in enumerate(dtypes)]
        for value, output in zip(values, run(backend, *values), strict=True):
            np.testing.assert_array_equal(output, value, strict=True)


@pytest.mark.parametrize(
    ("integrated", "calls"),
    [
        (False, ["memcpy_htod_async", "execute_async_v3", "memcpy_dtoh_async"]),
        (True, ["execute_async_v3"]),
    ],
)
def test_a_run_is_one_order_and_one_wait(install, onnx_models, integrated, calls):
    trt = install(integrated=integrated)
    with tensorrt.Backend(onnx_models.save(onnx_models.classifier()), 1) as backend:
        run(backend, 1)
        trt.driver.calls.clear()
        run(backend, 2)
        ordered = [call for call in trt.driver.calls if call != "record"]
        assert ordered == [*calls, "synchronize"]


def test_outputs_belong_to_the_caller_and_inputs_to_the_engine(install, onnx_models, integrated):
    install(integrated=integrated)
    path = onnx_models.save(onnx_models.elementwise(["float32"], "Abs"))
    with tensorrt.Backend(path, 1) as backend:
        (first,) = run(backend, [[-1, 2, -3]])
        held = backend.input_buffer(0)
        held[0, 1] = -7
        assert run(backend)[0].tolist() == [[1, 7, 3]]
        assert first.tolist() == [[1, 2, 3]]


def test_times_are_with_and_without_the_copies(install, onnx_models):
    install()
    with tensorrt.Backend(onnx_models.save(onnx_models.classifier()), 1) as backend:
        with pytest.raises(UsageError, match="no times before the first run"):
            _ = backend.last_times_ms
        run(backend, 1)
        assert backend.last_times_ms == tensorrt.RunTimes(compute_ms=1, total_ms=3)  # of marks


def test_layers_have_times_and_runs_go_on_afterwards(install, onnx_models):
    trt = install()
    with tensorrt.Backend(onnx_models.save(onnx_models.classifier()), 1) as backend:
        before = run(backend, 100)
        assert backend.layer_times() == [("the whole network", 0.5)]
        assert trt.alive == ["runtime", "engine", "context"]
        np.testing.assert_array_equal(run(backend), before)


def test_closing_frees_all_in_order(install, onnx_models, integrated):
    trt = install(integrated=integrated)
    backend = tensorrt.Backend(onnx_models.save(onnx_models.classifier()), 1)
    outputs = run(backend, 0)
    held = backend.input_buffer(0)
    trt.driver.calls.clear()
    backend.close()
    backend.close()
    assert trt.alive == []
    freed = [] if integrated else ["free", "free"]
    assert trt.driver.calls == ["context gone", "engine gone", "runtime gone", *freed]
    held[...] = 1  # whoever still holds the memory does not write into freed one
    for use in (
        lambda: backend.input_buffer(0),
        lambda: backend.run(outputs),
        lambda: backend.layer_times(),
        lambda: backend.last_times_ms,
    ):
        with pytest.raises(UsageError, match="the model is closed; open it again"):
            use()


@pytest.mark.parametrize(
    "call", ["Runtime", "deserialize_cuda_engine", "create_execution_context", "set_tensor_address"]
)
def test_an_engine_that_cannot_be_opened_says_why_and_leaves_nothing(install, onnx_models, call):
    trt = install()
    trt.fails[call] = "[rt.cpp::load::1] Serialization:\nversion tag does not match"
    with pytest.raises(
        BackendError, match=r"TensorRT 10\.3\.0 .*: \[rt\.cpp.*tag does not match"
    ) as caught:
        tensorrt.Backend(onnx_models.save(onnx_models.classifier()), 1)
    assert "\n" not in str(caught.value)
    assert trt.alive == []
    assert trt.driver.memory == {}
    assert trt.driver.stack == []


def test_a_run_that_fails_says_why_and_the_next_may_work(install, onnx_models):
    trt = install()
    with tensorrt.Backend(onnx_models.save(onnx_models.classifier()), 1) as backend:
        before = run(backend, 3)
        for _ in range(2):
            trt.fails["execute_async_v3"] = "illegal memory access"
            with pytest.raises(BackendError, match="failed to run the model: illegal memory acc"):
                run(backend)
        trt.fails.clear()
        np.testing.assert_array_equal(run(backend)[0], before[0])
        trt.fails["create_execution_context"] = "out of memory"
        with pytest.raises(BackendError, match="cannot time its layers: out of memory"):
            backend.layer_times()


@pytest.mark.parametrize("capacity", [100, 3100])  # 3072 for the input, 16 for the output
def test_too_little_gpu_memory_is_told(install, onnx_models, capacity):
    trt = install(capacity=capacity - 20)
    with pytest.raises(BackendError, match="too little free memory"):
        tensorrt.Backend(onnx_models.save(onnx_models.classifier()), 1)
    assert trt.alive == []
    assert trt.driver.memory == {}


def test_two_models_share_one_logger(install, onnx_models):
    trt = install()
    path = onnx_models.save(onnx_models.classifier())
    with tensorrt.Backend(path, 1) as one, tensorrt.Backend(path, 1) as other:
        assert len({id(logger) for logger in trt.loggers}) == 1
        np.testing.assert_array_equal(run(one, 7), run(other, 7))
        one.close()
        run(other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda m: m.classifier(batch="n"),
            r"'scores' has open dimensions, \[-1, 4\].*input-shape",
        ),
        (lambda m: m.elementwise(["bfloat16"]), r"'y0' is BF16; expected one of FLOAT, HALF"),
    ],
)
def test_engines_that_no_bundle_has_are_refused(install, onnx_models, make, message):
    install()
    with pytest.raises(ModelError, match=message):
        tensorrt.Backend(onnx_models.save(make(onnx_models)), 1)


def test_tensorrt_rtx_is_the_same_with_its_own_module(install, onnx_models):
    trt = install("tensorrt_rtx")
    trt.__version__ = "1.7.1"
    with tensorrt_rtx.Backend(onnx_models.save(onnx_models.classifier()), 1) as backend:
        assert backend.executes == "TensorRT-RTX 1.7.1, Stand-in GPU (8.7)"
        assert run(backend, (0, 255, 0))[0][0].argmax() == 1
    assert trt.asked == ["tensorrt_rtx"]


def test_a_bundle_runs_and_its_golden_samples_are_replayed(install, onnx_bundle):
    trt = install()
    with edgekit.open(onnx_bundle) as model:
        assert model.backend_name == "tensorrt"
        assert model(np.full((20, 20, 3), (0, 0, 255), np.uint8)).value[0].label == "red"
    trt.wrong = 0.5
    with pytest.raises(CheckFailed, match=r"golden sample 0: tensorrt \(TensorRT 10\.3\.0, Stand-"):
        edgekit.open(onnx_bundle)
    assert trt.alive == []


def test_memory_of_the_gpu_is_what_the_model_took(install, onnx_bundle):
    trt = install()
    with edgekit.open(onnx_bundle, backend="tensorrt"):
        allocated = sum(map(len, trt.driver.memory.values()))
    found = memory(str(onnx_bundle), "tensorrt", None, None)
    assert found["gpu_mb"] == allocated / 1e6 > 0
    assert memory(str(onnx_bundle), "onnxruntime", 1, None)["gpu_mb"] is None


def of_target(bundle, target):
    """Return a copy of a bundle, made for a target."""
    read = read_bundle(bundle)
    manifest = msgspec.structs.replace(read.manifest, target=target)
    files = {name: (bundle / name).read_bytes() for name in manifest.files}
    return write_bundle(bundle.with_name(f"{target}.edgekit"), manifest, files).path


@pytest.mark.parametrize(
    ("target", "here", "expected"),
    [
        (None, "", "onnxruntime"),
        (None, "tensorrt", "tensorrt"),
        (None, "tensorrt_rtx", "onnxruntime"),
        ("jetson-orin-nano", "tensorrt", "tensorrt"),
        ("jetson-orin-nano", "", "onnxruntime"),
        ("x86-rtx", "tensorrt_rtx tensorrt", "tensorrt_rtx"),
        ("x86-rtx", "tensorrt", "tensorrt"),
        ("of-another-version", "tensorrt", "tensorrt"),
    ],
)
def test_the_target_says_which_backend_opens_a_bundle(
    install, onnx_bundle, monkeypatch, target, here, expected
):
    install("tensorrt", "tensorrt_rtx").__version__ = "1.7.1"
    for module in (tensorrt, tensorrt_rtx):
        name = module.Backend.flavour
        monkeypatch.setattr(module, "available", lambda name=name: name in here.split())
    with edgekit.open(of_target(onnx_bundle, target)) as model:
        assert model.backend_name == expected


@pytest.mark.parametrize("lacking", ["tensorrt", "pycuda", "gpu", None])
def test_it_is_available_where_nothing_lacks(install, monkeypatch, lacking):
    install()
    if lacking == "gpu":
        monkeypatch.setattr(tensorrt, "first_gpu", lambda: None)
    elif lacking:
        monkeypatch.delitem(sys.modules, lacking)
        monkeypatch.setattr(
            tensorrt, "find_spec", lambda name: None if name == lacking else object()
        )
    assert tensorrt.available() == (lacking is None)


def test_a_machine_without_a_gpu_says_so(onnx_models, install, monkeypatch):
    install()
    monkeypatch.setattr("edgekit.runtime.cuda.first_gpu", lambda: None)
    with pytest.raises(EnvironmentLacks, match="no NVIDIA GPU here"):
        tensorrt.Backend(onnx_models.save(onnx_models.classifier()), 1)


REAL_RTX = """
import pathlib, sys
import stand_in_gpu
from edgekit.errors import EdgeKitError
from edgekit.runtime import cuda
from edgekit.runtime.backends import tensorrt, tensorrt_rtx
from edgekit.runtime.engines import Engine

sys.modules["pycuda"] = sys.modules["pycuda.driver"] = stand_in_gpu.Driver()
cuda.first_gpu = lambda: object()
tensorrt.engine_for = lambda model, flavour: Engine(b"no engine at all" * 8, "key", False, None)
try:
    tensorrt_rtx.Backend(pathlib.Path("model.onnx"), 1)
except EdgeKitError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.vendor
def test_what_the_real_tensorrt_rtx_refuses_is_one_line():
    """CUDA is a stand-in here; TensorRT-RTX is NVIDIA's."""
    places = [vendor.installed(vendor.PACKAGE), Path(vendor.__file__).parent, *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", REAL_RTX],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert re.match(
        r"BackendError TensorRT-RTX \d[\d.]+ cannot load the engine of model\.onnx: "
        r".*deserializeCudaEngine.*magicTag",
        line,
    )


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_on_a_gpu_it_computes_what_onnx_runtime_computes(onnx_models, name, monkeypatch, tmp_path):
    module = plugins.load("backend", name)
    if first_gpu() is None:
        pytest.skip("no NVIDIA GPU")
    if not module.available():
        pytest.skip(f"{name} or pycuda is not installed")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    path = onnx_models.save(onnx_models.classifier())
    picture = np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3)).astype(np.float32)
    with onnxruntime_backend.Backend(path, 1) as reference, module.Backend(path, 1) as backend:
        (expected,) = run(reference, picture)
        for _ in range(3):
            (here,) = run(backend, picture)
            np.testing.assert_allclose(here, expected, atol=0.01 * np.abs(expected).max())
        times = backend.last_times_ms
        assert 0 < times.compute_ms <= times.total_ms
        layers = backend.layer_times()
        assert layers
        assert all(ms >= 0 for _, ms in layers)
        np.testing.assert_array_equal(run(backend, picture)[0], here)
