"""The builder with a real parser and compiler: TensorRT-RTX, which needs no GPU for that."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from vendor import tensorrt_rtx

import edgekit

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[lint]'")

from onnx_graphs import GraphWriter  # noqa: E402

pytestmark = pytest.mark.vendor

CHILD = Path(__file__).with_name("vendor_child.py")
ROOT = Path(edgekit.__file__).parents[1]
RANDOM = np.random.default_rng(0)
LIMIT_S = 120


@pytest.fixture(scope="module")
def rtx():
    return tensorrt_rtx()


@pytest.fixture
def build(rtx):
    """Return a function that builds .onnx files and says what became of each."""

    def build(*models, **options):
        request = {"models": [str(model) for model in models], "options": options}
        return rtx.ask(request, CHILD, [ROOT])

    return build


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves a graph and returns its file."""

    def saved(name, graph, *outputs):
        onnx.save(graph.model(*outputs), tmp_path / f"{name}.onnx")
        return tmp_path / f"{name}.onnx"

    return saved


def chain(convolutions=3):
    graph = GraphWriter()
    x = graph.input()
    for _ in range(convolutions):
        x = graph.op("Relu", graph.conv(graph.qdq(x)))
    return graph, x


@pytest.mark.convert
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", ["mobilenet", "resnet", "unet", "lstm"])
def test_bundles_of_four_families_build(name, precision, build, tmp_path):
    """int8 of the LSTM: its dense layer is in int8, the LSTM itself in float."""
    from keras_models import MODELS, SIDE, with_statistics

    pictures = RANDOM.integers(0, 256, (8, SIDE, SIDE, 3)).astype(np.uint8)
    sequences = RANDOM.normal(size=(8, 10, 6)).astype(np.float32)
    bundle = edgekit.convert(
        with_statistics(MODELS[name](), RANDOM),
        tmp_path / "m.edgekit",
        format="onnx",
        precision=precision,
        data=sequences if name == "lstm" else pictures,
    )
    (found,) = build(bundle.model_path)
    assert found["error"] is None and found["size"] > 1000
    assert found["steps"]


@pytest.mark.slow
@pytest.mark.convert
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_networks_of_full_size_build(name, precision, build, tmp_path):
    import keras

    model = getattr(keras.applications, name)(weights=None)
    bundle = edgekit.convert(
        model,
        tmp_path / "m.edgekit",
        format="onnx",
        precision=precision,
        data=RANDOM.integers(0, 256, (4, 224, 224, 3)).astype(np.uint8),
        **({"int8_steps": ()} if precision == "int8" else {}),
    )
    (found,) = build(bundle.model_path)
    assert found["error"] is None
    assert found["size"] > bundle.size_bytes / 2


def test_wrong_graphs_are_refused_with_the_node_and_what_to_do(build, saved):
    def quantized(**wrong):
        graph = GraphWriter()
        return graph, graph.op("Relu", graph.qdq(graph.input(), **wrong))

    unknown = GraphWriter()
    unknown_out = unknown.op("Bogus", unknown.input(), name="odd")
    open_ = GraphWriter()
    open_out = open_.op("Relu", open_.input(("n", 8, 16, 16)))
    files = [
        saved("zero", *quantized(zero=3)),
        saved("scale", *quantized(scale=-1)),
        saved("unknown", unknown, unknown_out),
        saved("open", open_, open_out),
    ]
    found = build(*files)
    assert [each["error"][0] for each in found] == ["ModelError"] * 4
    zero, scale, unknown, opened = (each["error"][1] for each in found)
    assert "QuantizeLinear 'QuantizeLinear_3'" in zero and "zero point" in zero
    assert "positive" in scale
    assert "Bogus 'odd'" in unknown
    assert "'x' has the open shape [-1, 8, 16, 16]" in opened
    for message in (zero, scale, unknown):
        assert message.startswith("TensorRT-RTX 1.") and message.endswith("nodes and remedies")
        assert "\n" not in message


def test_an_optimization_profile_opens_dimensions(build, saved):
    graph = GraphWriter()
    file = saved("open", graph, graph.op("Relu", graph.input(("n", 8, 16, 16))))
    fits = {"smallest": [1, 8, 16, 16], "usual": [2, 8, 16, 16], "largest": [4, 8, 16, 16]}
    (found,) = build(file, shapes={"x": fits})
    assert found["error"] is None
    (wrong,) = build(file, shapes={"x": {**fits, "largest": [1, 8, 16, 16]}})
    assert wrong["error"][0] == "UsageError"


def test_memory_and_compute_capabilities_reach_the_compiler(build, saved):
    file = saved("chain", *chain())
    (turing,), (several,) = (
        build(file, compute_capabilities=["7.5"]),
        build(file, compute_capabilities=["8.6", "12.0"]),
    )
    assert turing["error"] is None and several["error"] is None
    assert turing["size"] != several["size"]
    (other,) = build(file, compute_capabilities=["5.3"])
    assert other["error"][0] == "UsageError" and "7.5, 8.0, 8.6, 8.9, 12.0" in other["error"][1]
    (small,) = build(file, memory_mb=1)
    assert small["error"][0] == "ModelError" and "--memory-mb 1" in small["error"][1]


def test_ctrl_c_ends_a_real_build_and_leaves_nothing(rtx, saved, tmp_path):
    """Some hundred layers have many steps; the first waits until Python has seen the signal."""
    file = saved("long", *chain(300))
    cache = tmp_path / "cache"
    program = (
        "import signal, sys, threading; from pathlib import Path\n"
        "from edgekit.runtime.engines import engine_for\n"
        "seen = threading.Event()\n"
        "def interrupt(*_): seen.set(); raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGINT, interrupt)\n"
        "def show(*step): print('step', flush=True); seen.wait()\n"
        "engine_for(Path(sys.argv[1]), 'tensorrt_rtx', on_progress=show)\n"
        "print('built', flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(file)],
        env={**rtx.environment(ROOT), "EDGEKIT_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "step\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.communicate()
    assert "built" not in output
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert [each.suffix for each in cache.iterdir()] == [".lock"]


def test_the_command_builds_ahead_of_time_once(rtx, saved, tmp_path, bundle_of_onnx):
    bundle = bundle_of_onnx(saved("chain", *chain()))
    environment = {**rtx.environment(ROOT), "EDGEKIT_CACHE": str(tmp_path / "cache")}
    results = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "edgekit", "build", str(bundle), "--for", "rtx", "--json", "-"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    assert [result["from_cache"] for result in results] == [False, True]
    assert Path(results[0]["file"]).stat().st_size == results[0]["size_bytes"]
    assert results[0]["golden"] is None and [e["kind"] for e in results[0]["events"]] == [
        "building"
    ]
