"""What a person would quantize a Keras model with otherwise: each takes the same samples.

A route takes a Keras model with one input and one output, and a calibration set [n, h, w, c]; it
gives what answers as the quantized model does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

Array = NDArray[Any]
Answers = Callable[[Array], Array]
"""Takes images [n, h, w, c] and returns outputs [n, classes] as real values."""


def edgekit(model: Any, calibration: Array) -> Answers:
    """Quantize as `edgekit.convert` does, without its comparison and report."""
    from edgekit.converters.formats.litert import emit
    from edgekit.converters.sources import open_source

    source = open_source(model, scratch=Path())  # a model in memory writes nothing there
    return tflite_answers(emit(source, "int8", lambda: _samples(calibration)).content)


def tensorflow(model: Any, calibration: Array) -> Answers:
    """Quantize as TensorFlow's guide says."""
    return tflite_answers(tensorflow_int8(model, lambda: map(list, _samples(calibration))))


def tensorflow_int8(model: Any, samples: Callable[[], Iterator[list[Array]]]) -> bytes:
    """Return TFLiteConverter's fully int8 `.tflite` of a Keras model."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def ai_edge_quantizer(model: Any, calibration: Array) -> Answers:
    """Quantize the float `.tflite` by the static recipe, with the package's own calibration."""
    import tensorflow as tf
    from ai_edge_quantizer import quantizer, recipe

    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    ((signature, names),) = Interpreter(model_content=content).get_signature_list().items()
    samples = [{names["inputs"][0]: sample} for (sample,) in _samples(calibration)]
    peer = quantizer.Quantizer(bytearray(content))
    peer.load_quantization_recipe(recipe.static_wi8_ai8())
    return tflite_answers(
        bytes(peer.quantize(peer.calibrate({signature: samples})).quantized_model)
    )


def onnx_runtime(model: Any, calibration: Array) -> Answers:
    """Quantize by `quantize_static`: Q/DQ, per channel, min-max, after its own preparation."""
    import tensorflow as tf
    import tf2onnx

    from edgekit.runtime.backends.onnxruntime import import_onnxruntime

    ort = import_onnxruntime()
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    signature = [tf.TensorSpec((1, *calibration.shape[1:]), tf.float32, name="image")]
    function = tf.function(lambda image: model(image, training=False))
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / f"{name}.onnx") for name in ("float", "prepared", "int8")]
        tf2onnx.convert.from_function(function, signature, opset=17, output_path=files[0])
        quant_pre_process(files[0], files[1], skip_symbolic_shape=True)
        quantization.quantize_static(
            files[1],
            files[2],
            _Reader(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        session = ort.InferenceSession(files[2], providers=["CPUExecutionProvider"])
    return partial(_onnx_answers, session)


ROUTES: dict[str, tuple[Callable[[Any, Array], Answers], tuple[str, ...]]] = {
    "ours": (edgekit, ()),
    "TensorFlow": (tensorflow, ()),
    "ai-edge-quantizer": (ai_edge_quantizer, ("ai_edge_quantizer",)),
    "ONNX Runtime": (onnx_runtime, ("onnx", "onnxruntime", "tf2onnx")),
}
"""The routes, and the packages that each needs beside TensorFlow."""


def installed() -> dict[str, Callable[[Any, Array], Answers]]:
    """Return the routes that can be taken here, and say which cannot."""
    found = {}
    for name, (route, packages) in ROUTES.items():
        missing = [package for package in packages if find_spec(package) is None]
        if missing:
            print(
                f"note: {name} is left out, since {', '.join(missing)} is not installed: "
                "pip install -e '.[cpu,convert]'"
            )
        else:
            found[name] = route
    return found


def tflite_answers(content: bytes) -> Answers:
    """Return what answers as a `.tflite` with one input and one output, on one thread."""
    return partial(_tflite_answers, content)


def _tflite_answers(content: bytes, images: Array) -> Array:
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for image in images:
        value = image[None]
        if taken["dtype"] == np.int8:
            scale, zero_point = taken["quantization"]
            value = np.clip(np.round(value / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(taken["index"], value)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(given["index"])[0].astype(np.float64))
    result = np.array(outputs)
    if given["dtype"] != np.float32:
        scale, zero_point = given["quantization"]
        result = (result - zero_point) * scale
    return result


def _onnx_answers(session: Any, images: Array) -> Array:
    (taken,) = session.get_inputs()
    return np.array([session.run(None, {taken.name: image[None]})[0][0] for image in images])


def snr_db(wanted: Array, given: Array) -> float:
    """Return the signal to noise of a quantized model's outputs."""
    return float(10 * np.log10((wanted**2).sum() / ((wanted - given) ** 2).sum()))


class _Reader:
    """The calibration set as ONNX Runtime's quantizer takes it."""

    def __init__(self, calibration: Array) -> None:
        self._samples = _samples(calibration)

    def get_next(self) -> dict[str, Array] | None:
        return next(({"image": sample} for (sample,) in self._samples), None)


def _samples(images: Array) -> Iterator[tuple[Array]]:
    return ((image[None],) for image in images)
