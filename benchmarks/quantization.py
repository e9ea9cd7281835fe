"""int8 against the float model it was made of: what the conversion costs in answers.

Ours: the `int8` of `edgekit.convert` for a Keras model (`equalize,round,correct`).

Peer: TensorFlow's converter alone on the same model and samples, and ai-edge-quantizer's static
recipe with its own calibration on the float `.tflite`.

ResNet-8 on CIFAR-10 from the development data, 512 calibration images, 2,000 test images; and a
small MobileNet with ReLU, trained here on the same data for a minute, as it is and with its
channels made uneven (factors exp(normal(0, 1.2)) that cancel out between layers, so that the float
function stays, which is checked), its logits compared.

It must show: ResNet-8 at least 86.2 % right and 98.5 % of the answers those of the float model; the
uneven net at least 28 dB signal to noise, where the peers lose it. Seconds are wall time, for
information. Without the development data or TensorFlow there are no rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from benchmarks._measure import Effort, Row, Spread
from benchmarks._subjects import RESULTS, development_data

Array = NDArray[Any]
_SIGMA = 1.2
_EPOCHS = 12


def measure(effort: Effort) -> list[Row]:
    file = development_data("cifar10_dev.npz")
    if file is None or find_spec("tensorflow") is None:
        print(
            "note: quantization needs TensorFlow and the development data; set EDGEKIT_DATA to it"
        )
        return []
    import keras

    data = np.load(file)
    calibration, test = (data[name].astype("float32") for name in ("x_calib", "x_test"))
    labels = data["y_test"]
    if effort == "tiny":
        calibration, test, labels = calibration[:16], test[:64], labels[:64]
    spread = np.linspace(0, len(calibration) - 1, 512).round().astype(int)
    calibration = calibration[np.unique(spread)]
    resnet = keras.models.load_model(file.with_name("pretrainedResnet.h5"), compile=False)
    rows = _resnet_rows(resnet, calibration, test, labels)
    trained = _trained(data, epochs=1 if effort == "tiny" else _EPOCHS)
    for sigma in (0.0, _SIGMA):
        rows += _noise_rows(trained, sigma, calibration, test)
    return rows


def _resnet_rows(model: Any, calibration: Array, test: Array, labels: Array) -> list[Row]:
    wanted = model.predict(test, verbose=0)
    rows = [_row("ResNet-8, float: right", _percent(wanted.argmax(1) == labels), "%")]
    for name, convert in _ROUTES.items():
        content, seconds = _timed(convert, model, calibration)
        given = _run(content, test)
        judged = name == "ours"
        right = _percent(given.argmax(1) == labels)
        same = _percent(given.argmax(1) == wanted.argmax(1))
        title = f"ResNet-8, {name}"
        rows += [
            _row(f"{title}: right", right, "%", at_least=86.2 if judged else None),
            _row(f"{title}: as float", same, "%", at_least=98.5 if judged else None),
            _row(f"{title}: SNR", _snr_db(wanted, given), "dB"),
            _row(f"{title}: conversion", seconds, "s"),
        ]
    return rows


def _noise_rows(trained: Any, sigma: float, calibration: Array, test: Array) -> list[Row]:
    model = _uneven(trained, sigma)
    wanted = trained.predict(test, verbose=0)
    difference = np.abs(model.predict(test, verbose=0) - wanted).max()
    if difference > 1e-3 * np.abs(wanted).max():
        raise AssertionError(f"rescaling changed the float function by {difference}")
    rows = []
    for name, convert in _ROUTES.items():
        content, seconds = _timed(convert, model, calibration)
        given = _run(content, test)
        title = f"MobileNet, uneven by {sigma:g}, {name}"
        judged = sigma > 0 and name == "ours"
        rows += [
            _row(
                f"{title}: SNR",
                _snr_db(wanted, given),
                "dB",
                at_least=28 if judged else None,
            ),
            _row(f"{title}: as float", _percent(given.argmax(1) == wanted.argmax(1)), "%"),
            _row(f"{title}: conversion", seconds, "s"),
        ]
    return rows


def _ours(model: Any, calibration: Array) -> bytes:
    from edgekit.converters.litert import emit

    return emit(_opened(model), "int8", lambda: _samples(calibration)).content


def _tensorflow(model: Any, calibration: Array) -> bytes:
    from edgekit.converters.litert import emit

    passes = lambda: _samples(calibration)  # noqa: E731
    return emit(_opened(model), "int8", passes, int8_steps=()).content


def _ai_edge_quantizer(model: Any, calibration: Array) -> bytes:
    import tensorflow as tf
    from ai_edge_quantizer import quantizer, recipe

    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    signatures = Interpreter(model_content=content).get_signature_list()
    ((signature, names),) = signatures.items()
    samples = [{names["inputs"][0]: sample} for (sample,) in _samples(calibration)]
    peer = quantizer.Quantizer(bytearray(content))
    peer.load_quantization_recipe(recipe.static_wi8_ai8())
    return bytes(peer.quantize(peer.calibrate({signature: samples})).quantized_model)


_ROUTES: dict[str, Callable[[Any, Array], bytes]] = {
    "ours": _ours,
    "TensorFlow": _tensorflow,
    "ai-edge-quantizer": _ai_edge_quantizer,
}


def _opened(model: Any) -> Any:
    from edgekit.converters.sources import open_source

    return open_source(model, scratch=RESULTS)


def _samples(images: Array) -> Iterator[tuple[Array]]:
    return ((image[None],) for image in images)


def _trained(data: Any, epochs: int) -> Any:
    """Return a small MobileNet of images 0..255 that gives logits, trained once and kept."""
    import keras

    path = RESULTS / f"mobilenet_relu_{epochs}.keras"
    if path.is_file():
        return keras.models.load_model(path, compile=False)
    RESULTS.mkdir(exist_ok=True)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((32, 32, 3))

    def block(layer: Any, tensor: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(layer(tensor)))

    tensor = layers.RandomFlip("horizontal")(layers.Rescaling(1 / 255)(image))
    tensor = block(layers.Conv2D(16, 3, padding="same", use_bias=False), tensor)
    for channels, strides in ((32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        depthwise = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)
        tensor = block(depthwise, tensor)
        tensor = block(layers.Conv2D(channels, 1, use_bias=False), tensor)
    logits = layers.Dense(10)(layers.GlobalAveragePooling2D()(tensor))
    model = keras.Model(image, logits)
    steps = epochs * -(-len(data["x_train"]) // 64)
    model.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(3e-3, steps), 0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    pictures = data["x_train"].astype("float32")
    model.fit(pictures, data["y_train"], batch_size=64, epochs=epochs, verbose=0)
    model.save(path)
    return keras.models.load_model(path, compile=False)


def _uneven(model: Any, sigma: float) -> Any:
    """Return a copy whose BatchNormalization outputs grow unevenly and whose readers undo it.

    gamma and beta of each are multiplied by factors that ReLU lets through, and the weights that
    read the channels divided by them.
    """
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    random = np.random.default_rng(0)
    factors = None
    for layer in copy.layers:
        weights = layer.get_weights()
        if isinstance(layer, keras.layers.BatchNormalization):
            factors = np.exp(random.normal(0, sigma, len(weights[0])))
            layer.set_weights([weights[0] * factors, weights[1] * factors, *weights[2:]])
        elif hasattr(layer, "kernel") and factors is not None:
            layer.set_weights([weights[0] / factors[:, None], *weights[1:]])
    return copy


def _run(content: bytes, images: Array) -> Array:
    """Return a model's outputs as real values; the images are quantized if it takes int8."""
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
    if given["dtype"] == np.int8:
        scale, zero_point = given["quantization"]
        result = (result - zero_point) * scale
    return result


def _timed(
    convert: Callable[[Any, Array], bytes], model: Any, calibration: Array
) -> tuple[bytes, float]:
    start_s = time.perf_counter()
    return convert(model, calibration), time.perf_counter() - start_s


def _percent(hits: Array) -> float:
    return 100 * float(hits.mean())


def _snr_db(wanted: Array, given: Array) -> float:
    return float(10 * np.log10((wanted**2).sum() / ((wanted - given) ** 2).sum()))


def _row(name: str, value: float, unit: Any, at_least: float | None = None) -> Row:
    return Row(name, Spread.of(np.array([value])), unit, at_least=at_least)
