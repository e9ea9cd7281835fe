import importlib.util
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgekit
from edgekit import plugins
from edgekit.errors import BackendError, CheckFailed, MissingPackage, ModelError, UsageError
from edgekit.runtime.backends import openvino as openvino_backend
from edgekit.runtime.backends.litert import Backend as LiteRT
from edgekit.runtime.backends.openvino import Backend
from edgekit.runtime.model import replay_golden
from edgekit.runtime.postprocess import to_json

# Not importorskip: only Backend imports it so that it reports nothing.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="openvino is not installed: pip install -e '.[openvino]'",
)
ASSETS = Path(__file__).parent.parent / "assets"
COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1)}


def run(backend, *values):
    for index, value in enumerate(values):
        backend.input_buffer(index)[...] = value
    outputs = [np.empty(spec.shape, spec.dtype) for spec in backend.outputs]
    backend.run(outputs)
    return outputs


def has_bf16():
    openvino = openvino_backend._import_openvino()
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("name", ["classifier", "segmenter"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_tflite_has_the_specs_that_litert_gives_it(name, precision):
    path = ASSETS / f"{name}_{precision}.tflite"
    with Backend(path, 1) as backend, LiteRT(path, 1) as reference:
        for ours, theirs in (
            (backend.inputs, reference.inputs),
            (backend.outputs, reference.outputs),
        ):
            assert [(s.shape, s.dtype, s.zero_point) for s in ours] == [
                (s.shape, s.dtype, s.zero_point) for s in theirs
            ]
            assert [s.scale for s in ours] == pytest.approx([s.scale for s in theirs])
        assert (backend.inputs[0].scale is None) == (precision == "fp32")
        assert backend.threads == 1


@pytest.mark.parametrize("name", ["classifier", "segmenter"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-6), ("int8", 1)])
def test_a_tflite_computes_what_litert_computes(name, precision, tolerance):
    path = ASSETS / f"{name}_{precision}.tflite"
    random = np.random.default_rng(0)
    with Backend(path, 1) as backend, LiteRT(path, 1) as reference:
        for _ in range(10):
            value = backend.inputs[0].quantize(random.uniform(0, 255, (1, 16, 16, 3)))
            (ours,), (theirs,) = run(backend, value), run(reference, value)
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours.astype(float), theirs, atol=tolerance)


def test_an_onnx_file_runs_too(onnx_models):
    with Backend(onnx_models.save(onnx_models.classifier()), 1) as backend:
        (given,), (output,) = backend.inputs, backend.outputs
        assert (given.name, given.shape, given.dtype) == ("picture", (1, 16, 16, 3), "float32")
        assert (output.name, output.shape, output.dtype) == ("scores", (1, 4), "float32")
        assert given.scale is None
        for index, colour in enumerate(COLOURS.values()):
            assert run(backend, 255 * np.array(colour))[0][0].argmax() == index


def test_several_inputs_and_outputs_keep_their_places(onnx_models):
    dtypes = ["float32", "float16", "int8", "uint8", "int32", "int64"]
    with Backend(onnx_models.save(onnx_models.elementwise(dtypes, "Abs")), 1) as backend:
        assert [spec.name for spec in backend.outputs] == [f"y{i}" for i in range(len(dtypes))]
        assert [spec.dtype for spec in backend.inputs] == dtypes
        values = [np.array([[0, 1, 2 + index]]).astype(t) for index, t in enumerate(dtypes)]
        for value, output in zip(values, run(backend, *values), strict=True):
            np.testing.assert_array_equal(output, value, strict=True)


def test_float32_is_computed_in_float32_unless_bfloat16_is_asked_for(onnx_models):
    """2 ** -12 beside 1 is lost in 8 bits of mantissa."""
    openvino = openvino_backend._import_openvino()
    version = openvino.__version__.partition("-")[0]
    path = onnx_models.save(product(onnx_models))
    with Backend(path, 1) as backend:
        assert backend.executes == f"OpenVINO {version}, CPU, f32"
        exact = run(backend, 1)[0]
        np.testing.assert_allclose(exact, 64 * (1 + 2**-12), rtol=1e-6)
    if not has_bf16():
        pytest.skip("this CPU has no bfloat16")
    with plugins.load("backend", "openvino_bf16").Backend(path, 1) as backend:
        assert backend.executes == f"OpenVINO {version}, CPU, bf16"
        np.testing.assert_array_equal(run(backend, 1)[0], 64)


def product(models):
    weights = np.full((64, 64), 1 + 2**-12, np.float32)
    return models.model(
        [models.helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", "float32", [1, 64])],
        [("y", "float32", [1, 64])],
        [("w", weights)],
    )


def test_bfloat16_on_a_cpu_without_it_says_what_there_is(monkeypatch):
    openvino = openvino_backend._import_openvino()

    class OldCore(openvino.Core):
        def get_property(self, device, name):
            return (
                ["FP32", "INT8"] if name == "OPTIMIZATION_CAPABILITIES" else super()(device, name)
            )

    monkeypatch.setattr(openvino, "Core", OldCore)
    backend = plugins.load("backend", "openvino_bf16")
    with pytest.raises(BackendError, match="has FP32, INT8: use the backend openvino"):
        backend.Backend(ASSETS / "classifier_fp32.tflite", 1)


def test_threads_are_those_that_it_uses():
    allowed = len(os.sched_getaffinity(0))
    with Backend(ASSETS / "classifier_fp32.tflite", 1) as backend:
        assert backend.threads == 1
    with Backend(ASSETS / "classifier_fp32.tflite", 4096) as backend:
        assert 1 <= backend.threads <= allowed


def test_an_open_dimension_of_a_tflite_is_run_at_the_stored_size(tmp_path):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    import flatbuffers

    content = (ASSETS / "classifier_fp32.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].shapeSignature = np.array([-1, 16, 16, 3], np.int32)
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "open.tflite"
    path.write_bytes(bytes(builder.Output()))
    with Backend(path, 1) as backend:
        assert backend.inputs[0].shape == (1, 16, 16, 3)
        assert run(backend, 255 * np.array(COLOURS["blue"]))[0][0].argmax() == 2


def test_open_dimensions_of_an_onnx_file_are_refused(onnx_models):
    path = onnx_models.save(onnx_models.classifier(batch="n"))
    with pytest.raises(ModelError, match=r"'picture' has open dimensions, .*--input-shape"):
        Backend(path, 1)


def test_inputs_and_constants_can_be_outputs(onnx_models):
    with Backend(onnx_models.save(onnx_models.handing_through()), 1) as backend:
        for value in ([[-1, 0, 2]], [[3, -4, 5]]):
            handed, rectified, constant = run(backend, value)
            assert handed.tolist() == value
            assert rectified.tolist() == np.maximum(value, 0).tolist()
            assert constant.tolist() == [[7, 8, 9]]


def test_outputs_belong_to_the_caller():
    with Backend(ASSETS / "classifier_int8.tflite", 1) as backend:
        (dark,) = run(backend, -128)
        before = dark.copy()
        assert (run(backend, 127)[0] != before).any()
        np.testing.assert_array_equal(dark, before)


def test_the_input_is_one_memory_that_is_written_in_place(onnx_models):
    with Backend(onnx_models.save(onnx_models.elementwise(["float32"], "Abs")), 1) as backend:
        held = backend.input_buffer(0)
        held[0, 1] = -7
        assert backend.input_buffer(0)[0, 1] == -7
        assert run(backend)[0].tolist() == [[0, 7, 0]]


def test_a_run_allocates_nothing_of_the_tensors_size(onnx_models):
    path = onnx_models.save(onnx_models.elementwise(["float32"], "Abs", (1, 100_000)))
    with Backend(path, 1) as backend:
        outputs = run(backend, 1)
        tracemalloc.start()
        backend.input_buffer(0)[...] = -2
        backend.run(outputs)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (outputs[0] == 2).all()
    assert peak_bytes < 40_000  # one tensor has 400,000


def test_closing_twice_is_harmless_and_use_afterwards_is_told():
    backend = Backend(ASSETS / "classifier_int8.tflite", 1)
    outputs = run(backend, 0)
    backend.close()
    backend.close()
    for use in (lambda: backend.input_buffer(0), lambda: backend.run(outputs)):
        with pytest.raises(UsageError, match="the model is closed; open it again"):
            use()


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
@pytest.mark.parametrize(
    "content",
    [None, b"", b"no model", b"<net name='m' version='11'/>", b"\x1c\0\0\0TFL3" + bytes(64)],
    ids=["missing", "empty", "text", "OpenVINO's own", "only a head"],
)
def test_what_is_no_model_is_a_model_error_of_one_line(tmp_path, capfd, suffix, content):
    path = tmp_path / f"m.{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"m\.{suffix}") as caught:
        Backend(path, 1)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_what_the_engine_refuses_is_a_model_error_of_one_line(onnx_models):
    path = onnx_models.save(onnx_models.elementwise(["float32"], "Transmogrify"))
    with pytest.raises(ModelError, match=r"OpenVINO \S+ cannot load .*Transmogrify") as caught:
        Backend(path, 1)
    assert "\n" not in str(caught.value)


def test_weights_outside_the_file_are_refused(onnx_models):
    onnx = pytest.importorskip("onnx")
    model = onnx_models.classifier()
    weights = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weights, "/etc/passwd")
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="'weights' is stored in another file"):
        Backend(onnx_models.save(model), 1)


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackage, match=r"pip install 'edgekit\[openvino\]'") as caught:
        Backend(ASSETS / "classifier_fp32.tflite", 1)
    assert caught.value.exit_code == 3


def test_the_import_starts_no_process_and_writes_nothing_into_the_home(tmp_path):
    code = (
        "import multiprocessing, sys\n"
        "from pathlib import Path\n"
        "def refuse(process):\n"
        "    raise SystemExit(f'started {process}')\n"
        "multiprocessing.Process.start = refuse\n"
        "from edgekit.runtime.backends.openvino import Backend\n"
        "Backend(Path(sys.argv[1]), 1).close()\n"
        "import openvino\n"
        "assert callable(openvino.convert_model)\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ASSETS / "classifier_fp32.tflite")],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["classifier", "segmenter"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_litert_bundle_agrees_with_its_golden_samples(make_bundle, name, precision):
    bundle = make_bundle(name=name, precision=precision)
    with edgekit.open(bundle, backend="openvino") as model:
        assert model.backend_name == "openvino"
        frame = np.full((40, 30, 3), (0, 0, 255), np.uint8)
        value = model(frame).value
        label = value[0].label if name == "classifier" else value.name(value.class_map[0, 0])
        assert label == "red"


def test_an_onnx_bundle_agrees_with_its_golden_samples(onnx_bundle):
    with edgekit.open(onnx_bundle, backend="openvino") as model:
        assert model(np.full((8, 8, 3), 255, np.uint8)).value[0].label == "white"


@pytest.mark.parametrize(
    ("backend", "passes", "fails"), [("openvino", 0.005, 0.03), ("openvino_bf16", 0.03, 0.1)]
)
def test_golden_samples_catch_another_model(onnx_bundle, backend, passes, fails):
    if backend == "openvino_bf16" and not has_bf16():
        pytest.skip("this CPU has no bfloat16")
    with edgekit.open(onnx_bundle, backend=backend) as model:
        sample = model.bundle.golden()[0]

        def replay_with(difference):
            outputs = tuple(output + np.float32(difference) for output in sample.outputs)
            value = to_json(model.postprocess(sample.inputs, list(outputs)).value)
            replay_golden(model, [msgspec.structs.replace(sample, outputs=outputs, value=value)])

        replay_with(passes * sample.outputs[0].max())
        with pytest.raises(CheckFailed, match=rf"{backend} \(OpenVINO \S+, CPU, b?f\d+\) computes"):
            replay_with(fails * sample.outputs[0].max())
