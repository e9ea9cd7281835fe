import importlib.util
import os
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

import edgekit
from edgekit.errors import BackendError, MissingPackage, ModelError, UsageError
from edgekit.runtime.backends.onnxruntime import Backend, import_onnxruntime

# Not importorskip: only Backend imports it so that it reports nothing.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None,
    reason="onnxruntime is not installed: pip install -e '.[onnx]'",
)
COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1)}


def run(backend, *values):
    for index, value in enumerate(values):
        backend.input_buffer(index)[...] = value
    outputs = [np.empty(spec.shape, spec.dtype) for spec in backend.outputs]
    backend.run(outputs)
    return outputs


def one_line(caught):
    return "\n" not in str(caught.value)


def test_specs_are_those_of_the_file(onnx_models):
    with Backend(onnx_models.save(onnx_models.classifier()), 1) as backend:
        (given,), (output,) = backend.inputs, backend.outputs
        assert (given.name, given.shape, given.dtype) == ("picture", (1, 16, 16, 3), "float32")
        assert (output.name, output.shape, output.dtype) == ("scores", (1, 4), "float32")
        assert given.scale is None
        assert given.zero_point is None
        version = import_onnxruntime().__version__
        assert backend.executes == f"ONNX Runtime {version}, CPU"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("threads", [1, 3])
def test_real_values_come_out_as_the_network_computes_them(onnx_models, dtype, threads):
    path = onnx_models.save(onnx_models.classifier(dtype, side=4))
    with Backend(path, threads) as backend:
        assert backend.threads == threads
        assert backend.inputs[0].dtype == backend.outputs[0].dtype == dtype
        for index, colour in enumerate(COLOURS.values()):
            (scores,) = run(backend, 255 * np.array(colour))
            logits = np.array(colour) @ [[8, -8, -8, 4], [-8, 8, -8, 4], [-8, -8, 8, 4]]
            expected = np.exp(logits + [0, 0, 0, -4])
            assert scores.dtype == dtype
            assert scores[0].argmax() == index
            tolerance = 1e-5 if dtype == "float32" else 5e-3
            np.testing.assert_allclose(scores[0], expected / expected.sum(), atol=tolerance)


def test_several_inputs_and_outputs_of_every_dtype_keep_their_places(onnx_models):
    dtypes = ["float32", "float16", "float64", "bool", "int8", "uint8", "int16", "uint16"]
    dtypes += ["int32", "uint32", "int64", "uint64"]
    path = onnx_models.save(onnx_models.elementwise(dtypes))
    with Backend(path, 1) as backend:
        assert [spec.dtype for spec in backend.inputs] == dtypes
        values = [np.array([[0, 1, index]]).astype(dtype) for index, dtype in enumerate(dtypes)]
        for value, output in zip(values, run(backend, *values), strict=True):
            np.testing.assert_array_equal(output, value, strict=True)


def test_inputs_and_constants_can_be_outputs(onnx_models):
    with Backend(onnx_models.save(onnx_models.handing_through()), 1) as backend:
        for value in ([[-1, 0, 2]], [[3, -4, 5]]):
            handed, rectified, constant = run(backend, value)
            assert handed.tolist() == value
            assert rectified.tolist() == np.maximum(value, 0).tolist()
            assert constant.tolist() == [[7, 8, 9]]


def test_outputs_belong_to_the_caller(onnx_models):
    with Backend(onnx_models.save(onnx_models.classifier()), 1) as backend:
        (dark,) = run(backend, 0)
        before = dark.copy()
        assert (run(backend, 255)[0] != before).any()
        np.testing.assert_array_equal(dark, before)


def test_the_input_is_one_memory_that_is_written_in_place(onnx_models):
    with Backend(onnx_models.save(onnx_models.elementwise(["float32"])), 1) as backend:
        held = backend.input_buffer(0)
        held[0, 1] = 7
        assert backend.input_buffer(0)[0, 1] == 7
        assert run(backend)[0].tolist() == [[0, 7, 0]]
    assert held[0, 1] == 7


def test_a_run_allocates_nothing_of_the_tensors_size(onnx_models):
    path = onnx_models.save(onnx_models.elementwise(["float32"], "Relu", (1, 100_000)))
    with Backend(path, 1) as backend:
        outputs = run(backend, 1)
        tracemalloc.start()
        backend.input_buffer(0)[...] = 2
        backend.run(outputs)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (outputs[0] == 2).all()
    assert peak_bytes < 40_000  # one tensor has 400,000


def test_closing_twice_is_harmless_and_use_afterwards_is_told(onnx_models):
    backend = Backend(onnx_models.save(onnx_models.classifier()), 1)
    outputs = run(backend, 0)
    backend.close()
    backend.close()
    for use in (lambda: backend.input_buffer(0), lambda: backend.run(outputs)):
        with pytest.raises(UsageError, match="the model is closed; open it again"):
            use()


@pytest.mark.parametrize("batch", ["n", None])
def test_open_dimensions_are_refused(onnx_models, batch):
    path = onnx_models.save(onnx_models.classifier(batch=batch))
    with pytest.raises(ModelError, match=r"'picture' has open dimensions, .*--input-shape"):
        Backend(path, 1)


def test_what_is_no_tensor_of_numbers_is_refused(onnx_models):
    model = onnx_models.elementwise(["float32"])
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = 8  # strings
    with pytest.raises(ModelError, match=r"'x0' is tensor\(string\); expected one of tensor\(flo"):
        Backend(onnx_models.save(model), 1)


def test_what_the_engine_refuses_is_a_model_error_of_one_line(onnx_models):
    path = onnx_models.save(onnx_models.elementwise(["float32"], "Transmogrify"))
    with pytest.raises(ModelError, match=r"ONNX Runtime \S+ cannot load .*Transmogrify") as caught:
        Backend(path, 1)
    assert one_line(caught)
    assert "ONNXRuntimeError" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"no model", b"ORTM" * 16])
def test_what_is_no_model_is_a_model_error_of_one_line(onnx_models, content):
    path = onnx_models.save(content or b"", "m")
    if content is None:
        path.unlink()
    with pytest.raises(ModelError, match=r"m\.onnx") as caught:
        Backend(path, 1)
    assert one_line(caught)


def test_weights_outside_the_file_are_refused_before_anything_reads_them(onnx_models):
    onnx = pytest.importorskip("onnx")
    (onnx_models.folder / "secret.bin").write_bytes(np.ones(12, np.float32).tobytes())
    model = onnx_models.classifier()
    weights = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weights, "secret.bin")
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    path = onnx_models.save(model)
    with pytest.raises(ModelError, match="'weights' is stored in another file") as caught:
        Backend(path, 1)
    assert one_line(caught)


def test_a_run_that_fails_is_a_backend_error_and_the_next_one_works(onnx_models):
    with Backend(onnx_models.save(onnx_models.looking_up()), 1) as backend:
        with pytest.raises(BackendError, match="ONNX Runtime failed to run the model: ") as caught:
            run(backend, 99)
        assert one_line(caught)
        assert run(backend, 2)[0].tolist() == [[4, 5]]


def test_without_the_package_the_message_says_how_to_get_it(onnx_models, monkeypatch):
    path = onnx_models.save(onnx_models.classifier())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match=r"pip install 'edgekit\[onnx\]'") as caught:
        Backend(path, 1)
    assert caught.value.exit_code == 3


def test_nothing_is_printed_and_nothing_is_written_into_the_home(onnx_models, tmp_path):
    """Its own log would name bad models, its telemetry would leave an id and a database."""
    good = onnx_models.save(onnx_models.looking_up(), "good")
    bad = onnx_models.save(onnx_models.elementwise(["float32"], "Transmogrify"), "bad")
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from edgekit.errors import EdgeKitError\n"
        "from edgekit.runtime.backends.onnxruntime import Backend\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        with Backend(Path(path), 2) as backend:\n"
        "            backend.input_buffer(0)[...] = 99\n"
        "            backend.run([np.empty((1, 2), np.float32)])\n"
        "    except EdgeKitError:\n"
        "        pass\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(good), str(bad)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("backend", [None, "onnxruntime"])
def test_a_bundle_opens_and_agrees_with_its_golden_samples(onnx_bundle, backend):
    with edgekit.open(onnx_bundle, backend=backend) as model:
        assert model.backend_name == "onnxruntime"
        for name, colour in COLOURS.items():
            frame = np.full((40, 30, 3), 255 * np.array(colour)[::-1], np.uint8)
            assert model(frame).value[0].label == name


def test_a_backend_for_another_format_is_refused(onnx_bundle, make_bundle):
    with pytest.raises(UsageError, match="backend litert reads litert; the bundle is onnx"):
        edgekit.open(onnx_bundle, backend="litert")
    with pytest.raises(UsageError, match="backend onnxruntime reads onnx; the bundle is litert"):
        edgekit.open(make_bundle(), backend="onnxruntime")


@pytest.fixture
def with_gpu_build(monkeypatch):
    """Return a function that makes ONNX Runtime look like a build for GPUs, which is not at hand.

    `works` names the providers that a session gets; `fails` those whose session cannot be made.
    Both ways to do without a provider were seen on a real onnxruntime-gpu without a GPU.
    """
    real = import_onnxruntime()
    asked = []

    def fake(works, fails=()):
        def session(path, options, providers, enable_fallback):
            names = [name if isinstance(name, str) else name[0] for name in providers]
            asked.append([name.removesuffix("ExecutionProvider") for name in names])
            if set(asked[-1]) & set(fails):
                raise RuntimeError("please install the libraries")
            opened = real.InferenceSession(path, options, providers=[names[-1]])
            got = [name for name in names if name.removesuffix("ExecutionProvider") in works]
            monkeypatch.setattr(opened, "get_providers", lambda: [*got, names[-1]])
            return opened

        listed = [f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU")]
        module = SimpleNamespace(
            __version__="1.99",
            SessionOptions=real.SessionOptions,
            OrtValue=real.OrtValue,
            InferenceSession=session,
            get_available_providers=lambda: listed,
            set_default_logger_severity=lambda severity: None,
        )
        monkeypatch.setitem(sys.modules, "onnxruntime", module)
        return asked

    return fake


@pytest.mark.parametrize(
    ("works", "fails", "executes"),
    [
        (["Tensorrt", "CUDA"], [], "TensorRT, CUDA, CPU"),
        (["Tensorrt"], [], "TensorRT, CPU"),
        (["CUDA"], ["Tensorrt"], "CUDA, CPU"),
        (["CUDA"], [], "CUDA, CPU"),
        ([], ["Tensorrt"], "CPU"),
        ([], ["Tensorrt", "CUDA"], "CPU"),
    ],
)
def test_only_a_provider_that_the_session_has_is_claimed(
    onnx_models, with_gpu_build, works, fails, executes
):
    with_gpu_build(works, fails)
    with Backend(onnx_models.save(onnx_models.classifier()), 1) as backend:
        assert backend.executes == f"ONNX Runtime 1.99, {executes}"
        assert run(backend, 255)[0][0].argmax() == 3


def test_providers_are_tried_from_the_fastest_on(onnx_models, with_gpu_build):
    asked = with_gpu_build([], ["Tensorrt"])
    Backend(onnx_models.save(onnx_models.classifier()), 1).close()
    assert asked == [["Tensorrt", "CUDA", "CPU"], ["CUDA", "CPU"], ["CPU"]]


def test_a_bad_model_on_a_gpu_build_is_the_models_fault(onnx_models, with_gpu_build):
    with_gpu_build([], ["Tensorrt", "CUDA"])
    with pytest.raises(ModelError, match="cannot load .*Transmogrify"):
        Backend(onnx_models.save(onnx_models.elementwise(["float32"], "Transmogrify")), 1)
