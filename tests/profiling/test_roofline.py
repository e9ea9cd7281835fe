"""The probe is right and runs in integers; what it gives says how it was measured."""

import importlib.util

import numpy as np
import pytest

from edgekit import plugins
from edgekit.errors import BackendError
from edgekit.profiling import probes, roofline
from edgekit.profiling.probes import Convolution
from edgekit.profiling.results import Roofline
from edgekit.profiling.roofline import cache_bytes, least_ms, measure_roofline

ENGINES = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime", "openvino": "openvino"}
SMALL = Convolution(4, 8, 3)


@pytest.fixture(params=ENGINES)
def engine(request):
    """Give the name of each engine that is here."""
    if importlib.util.find_spec(ENGINES[request.param]) is None:
        pytest.skip(f"{ENGINES[request.param]} is not installed")
    return request.param


@pytest.fixture
def quick(monkeypatch):
    """Measure next to nothing: what is shown is that it works, not how fast."""
    monkeypatch.setattr(roofline, "_CONVOLUTIONS", (SMALL, Convolution(4, 8, 1)))
    monkeypatch.setattr(roofline, "_ENGINE_S", 0)
    monkeypatch.setattr(roofline, "_CACHE_S", 0)
    monkeypatch.setattr(roofline, "_MEMORY_S", 0)
    monkeypatch.setattr(roofline, "_MEMORY_BYTES", (1 << 16, 1 << 16))
    monkeypatch.setattr(roofline, "_ROUND_BYTES", 1 << 16)


@pytest.mark.parametrize("is_int8", [False, True])
def test_the_probe_computes_the_convolution_that_is_counted(engine, is_int8, tmp_path):
    probe = Convolution(4, 8, 1)
    backend = plugins.load("backend", engine)
    model = roofline._written(backend.READS, probe, tmp_path, is_int8=is_int8)
    with backend.Backend(model, 1) as opened:
        (given,), (result,) = opened.inputs, opened.outputs
        assert given.dtype in (("int8", "uint8") if is_int8 else ("float32",))
        x = np.random.default_rng(0).integers(0, 100, given.shape)
        opened.input_buffer(0)[...] = x
        outputs = [np.empty(result.shape, result.dtype)]
        opened.run(outputs)
    last = "nchw" if given.shape[1] == 8 else "nhwc"
    pixels = x if last == "nhwc" else x.transpose(0, 2, 3, 1)
    real = (pixels - (128 if given.dtype == "uint8" else 0)) * (1 / 64 if is_int8 else 1)
    weights = probe.weights(is_int8=is_int8)[:, :, 0, 0] * (1 / 64 if is_int8 else 1)
    expected = real @ weights.T
    found = outputs[0] if last == "nhwc" else outputs[0].transpose(0, 2, 3, 1)
    found = found.astype(float) - (128 if given.dtype == "uint8" else 0)
    np.testing.assert_allclose(found, expected, atol=0.51 if is_int8 else 1e-3)


def test_the_probe_in_integers_is_computed_in_integers(tmp_path):
    """ONNX Runtime computes Q/DQ in floats where it does not find its pattern."""
    runtime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    content = probes.onnx(SMALL, is_int8=True)
    onnx.checker.check_model(content, full_check=True)
    runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "QLinearConv" in kinds
    assert "DequantizeLinear" not in kinds


@pytest.mark.parametrize(
    ("precision", "kind"), [("fp32", "float32"), ("fp16", "float32"), ("int8", "int8")]
)
def test_it_says_what_was_measured(engine, precision, kind, quick):
    shown = []
    found = measure_roofline(engine, precision, 2, lambda *progress: shown.append(progress))
    assert found.peak_gflops > 0
    assert found.cache_gb_s >= found.bandwidth_gb_s > 0
    assert f"best of 2 convolutions in {kind}" in found.source
    assert "2 threads" in found.source
    assert [done for _, done, _ in shown] == [0, 1, 2, 3]
    assert {total for _, _, total in shown} == {4}


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx", "of_somebody_else"])
def test_engines_with_memory_of_their_own_have_none(backend):
    assert measure_roofline(backend, "int8", 1) is None


def test_an_engine_that_cannot_run_the_probe_has_none(monkeypatch, quick):
    def fail(*arguments):
        raise BackendError("no kernel")

    monkeypatch.setattr("edgekit.runtime.backends.litert.Backend", fail)
    assert measure_roofline("litert", "fp32", 1) is None


def test_an_operator_is_bound_by_what_takes_longer():
    machine = Roofline(peak_gflops=100, bandwidth_gb_s=10, source="")
    assert least_ms(machine, 50_000_000, 1_000_000) == (1.0, "compute")
    assert least_ms(machine, 50_000_000, 20_000_000) == (2.0, "memory")
    assert least_ms(machine, 0, 10_000_000) == (1.0, "memory")


def test_what_fits_into_the_caches_may_come_from_there():
    machine = Roofline(
        peak_gflops=100, bandwidth_gb_s=10, source="", cache_gb_s=100, cache_bytes=4 << 20
    )
    assert least_ms(machine, 0, 1_000_000) == (0.01, "memory")
    assert least_ms(machine, 0, 10_000_000) == (1.0, "memory")


def test_the_last_cache_is_the_largest(tmp_path):
    for place, size in enumerate(("48K\n", "64K\n", "2M\n", "nonsense")):
        (tmp_path / f"index{place}").mkdir()
        (tmp_path / f"index{place}" / "size").write_text(size)
    assert cache_bytes(tmp_path) == 2 << 20
    assert cache_bytes(tmp_path / "none") is None


def test_a_peak_that_was_reached_once_is_told():
    assert roofline._doubts([1.0, 1.2, 1.05, 1.1]) == []
    (said,) = roofline._doubts([1.0, 1.2, 1.5, 1.6])
    assert "50% apart" in said
