import weakref
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import BackendError, ModelError
from edgekit.runtime.backends import default_threads
from edgekit.runtime.backends.litert import Backend

ASSETS = Path(__file__).parent.parent / "assets"


def classify(backend, value):
    backend.input_buffer(0)[...] = value
    outputs = [np.empty(spec.shape, spec.dtype) for spec in backend.outputs]
    backend.run(outputs)
    return outputs[0]


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("classifier_fp32", (1, 4), "float32"),
        ("classifier_int8", (1, 4), "int8"),
        ("segmenter_fp32", (1, 8, 8, 3), "float32"),
        ("segmenter_int8", (1, 8, 8, 3), "int8"),
    ],
)
def test_specs_are_those_of_the_file(name, shape, dtype):
    with Backend(ASSETS / f"{name}.tflite", 1) as backend:
        (given,), (output,) = backend.inputs, backend.outputs
        assert (given.shape, given.dtype) == ((1, 16, 16, 3), dtype)
        assert (output.shape, output.dtype) == (shape, dtype)
        assert (given.scale is None) == (dtype == "float32")
        assert backend.executes.startswith("ai-edge-litert ")
        assert backend.threads == 1


@pytest.mark.parametrize("name", ["classifier_fp32", "classifier_int8"])
@pytest.mark.parametrize("threads", [1, 3])
def test_real_values_come_out_as_the_network_computes_them(name, threads):
    colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0.2, 0.5, 0.1]])
    weights = np.array([[8, -8, -8, 4], [-8, 8, -8, 4], [-8, -8, 8, 4]])
    logits = colours @ weights + [0, 0, 0, -4]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    with Backend(ASSETS / f"{name}.tflite", threads) as backend:
        for colour, probability in zip(colours, expected, strict=True):
            raw = classify(backend, backend.inputs[0].quantize(255 * colour))
            # int8: logits of +-8 in 256 steps, then a softmax.
            tolerance = 1e-5 if raw.dtype == np.float32 else 0.02
            np.testing.assert_allclose(
                backend.outputs[0].dequantize(raw)[0], probability, atol=tolerance
            )


def test_outputs_belong_to_the_caller():
    with Backend(ASSETS / "classifier_int8.tflite", 1) as backend:
        dark = classify(backend, -128)
        before = dark.copy()
        assert (classify(backend, 127) != before).any()
        np.testing.assert_array_equal(dark, before)


def test_the_input_is_one_memory_that_is_written_in_place():
    with Backend(ASSETS / "classifier_int8.tflite", 1) as backend:
        backend.input_buffer(0)[0, 3, 4] = 77
        assert (backend.input_buffer(0)[0, 3, 4] == 77).all()
        assert backend.input_buffer(0).flags.writeable


def test_a_held_input_is_told_instead_of_computing_on_freed_memory():
    with Backend(ASSETS / "classifier_int8.tflite", 1) as backend:
        held = backend.input_buffer(0)
        with pytest.raises(BackendError, match="LiteRT failed to run"):
            classify(backend, 0)
        del held
        classify(backend, 0)


def test_closing_twice_is_harmless_and_frees_the_engine():
    backend = Backend(ASSETS / "classifier_int8.tflite", 1)
    engine = weakref.ref(backend._interpreter)
    backend.close()
    backend.close()
    assert engine() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"no model", b"\x1c\0\0\0TFL3" + bytes(64)],
    ids=["empty", "text", "only a head"],
)
def test_what_is_no_model_is_a_model_error_of_one_line(tmp_path, content):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="LiteRT cannot load") as caught:
        Backend(path, 1)
    assert "\n" not in str(caught.value)


def test_a_missing_model_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.tflite"):
        Backend(tmp_path / "absent.tflite", 1)


def test_default_threads_leave_a_core_for_the_camera():
    import os

    assert 1 <= default_threads() <= max(1, (os.cpu_count() or 1) - 1)
