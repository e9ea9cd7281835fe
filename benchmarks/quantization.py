"""int8 against the float model it was made of: what the conversion costs in answers.

Ours: what `edgekit.convert` does by default for a Keras model, comparison and report left out.

Peer: TensorFlow's converter, ai-edge-quantizer's static recipe with its own calibration, and ONNX
Runtime's `quantize_static` (Q/DQ, per channel, min-max), on the same model and samples. One whose
package is missing is named.

ResNet-8 on CIFAR-10 from the development data, 512 calibration images, 2,000 test images; and
MobileNets with ReLU and with ReLU6 that are trained on the same data (minutes, once), compared by
their logits on all pictures that they have not seen. Each as it is, and with its channels made
uneven: factors exp(normal(0, 1.2)) that cancel out between layers, so that the float function
stays, which is checked; with ReLU6 only channels that stay below 6 grow or shrink, none beyond 6.

It must show: ResNet-8 at least 86.2 % right and 98.5 % of the answers those of the float model; the
MobileNet with ReLU at most half as many other answers as TensorFlow's; uneven at least 28 dB signal
to noise, where the peers lose it. ReLU6 and seconds (wall time) are for information. Without the
development data or TensorFlow there are no rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._measure import Effort, Row, Spread
from benchmarks._peers import Answers, installed, snr_db
from benchmarks._subjects import development_data
from benchmarks._trained import mobilenet, teacher

Array = NDArray[Any]
_SIGMA = 1.2
_STEPS = 1872  # 12 epochs


def measure(effort: Effort) -> list[Row]:
    file = development_data("cifar10_dev.npz")
    if file is None or find_spec("tensorflow") is None:
        print(
            "note: quantization needs TensorFlow and the development data; set EDGEKIT_DATA to it"
        )
        return []
    data = np.load(file)
    calibration, test = (data[name].astype("float32") for name in ("x_calib", "x_test"))
    labels, count = data["y_test"], 512
    if effort == "tiny":
        calibration, test, labels, count = calibration[:80], test[:64], labels[:64], 16
    chosen = np.linspace(0, len(calibration) - 1, count).round().astype(int)
    unseen = np.concatenate([test, np.delete(calibration, chosen, axis=0)])
    calibration = calibration[chosen]
    rows = _resnet_rows(teacher(file), calibration, test, labels)
    for largest in (None, 6.0):
        path = mobilenet(file, 4 if effort == "tiny" else _STEPS, largest=largest)
        rows += _mobilenet_rows(path, largest, calibration, unseen, labels)
    return rows


def _resnet_rows(model: Any, calibration: Array, test: Array, labels: Array) -> list[Row]:
    wanted = model.predict(test, verbose=0)
    rows = [_row("ResNet-8, float: right", _percent(wanted.argmax(1) == labels), "%")]
    for name, route in installed().items():
        answers, seconds = _timed(route, model, calibration)
        given = answers(test)
        judged = name == "ours"
        right = _percent(given.argmax(1) == labels)
        same = _percent(given.argmax(1) == wanted.argmax(1))
        title = f"ResNet-8, {name}"
        rows += [
            _row(f"{title}: right", right, "%", at_least=86.2 if judged else None),
            _row(f"{title}: as float", same, "%", at_least=98.5 if judged else None),
            _row(f"{title}: SNR", snr_db(wanted, given), "dB"),
            _row(f"{title}: conversion", seconds, "s"),
        ]
    return rows


def _mobilenet_rows(
    path: Path, largest: float | None, calibration: Array, unseen: Array, labels: Array
) -> list[Row]:
    """Return the rows of a net as it is and made uneven; the first of `unseen` have `labels`."""
    import keras

    trained = keras.models.load_model(path, compile=False)
    wanted = trained.predict(unseen, verbose=0)
    title = f"MobileNet, {'ReLU' if largest is None else f'ReLU{largest:g}'}"
    right = _percent(wanted[: len(labels)].argmax(1) == labels)
    rows = [_row(f"{title}, float: right", right, "%")]
    for sigma in (0.0, _SIGMA):
        model = uneven(trained, sigma, np.concatenate([calibration, unseen]), largest)
        if np.abs(model.predict(unseen, verbose=0) - wanted).max() > 1e-3 * np.abs(wanted).max():
            raise AssertionError("rescaling changed the float function")
        heading = f"{title}, uneven" if sigma else title
        given, costs = {}, {}
        for name, route in installed().items():
            answers, costs[name] = _timed(route, model, calibration)
            given[name] = answers(unseen)
        others = {name: _percent(g.argmax(1) != wanted.argmax(1)) for name, g in given.items()}
        for name, outputs in given.items():
            judged = name == "ours" and largest is None
            rows += [
                _row(
                    f"{heading}, {name}: not as float",
                    others[name],
                    "%",
                    at_most=others["TensorFlow"] / 2 if judged and not sigma else None,
                ),
                _row(
                    f"{heading}, {name}: SNR",
                    snr_db(wanted, outputs),
                    "dB",
                    at_least=28 if judged and sigma else None,
                ),
                _row(f"{heading}, {name}: conversion", costs[name], "s"),
            ]
    return rows


def uneven(model: Any, sigma: float, pictures: Array, largest: float | None) -> Any:
    """Return a copy whose BatchNormalization outputs grow unevenly and whose readers undo it.

    gamma and beta of each are multiplied by factors that the activation lets through, and the
    weights that read the channels divided by them.

    Args:
        model: a chain of layers, each BatchNormalization with a ReLU behind it.
        sigma: of the factors' logarithm.
        pictures: on which the function must stay.
        largest: limit of the activation, or None.
    """
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    random = np.random.default_rng(0)
    peaks = iter(_peaks(model, pictures) if largest is not None else ())
    factors = None
    for layer in copy.layers:
        weights = layer.get_weights()
        if isinstance(layer, keras.layers.BatchNormalization):
            factors = np.exp(random.normal(0, sigma, len(weights[0])))
            if largest is not None:
                room = 0.99 * largest / np.maximum(next(peaks), 1e-6)
                factors = np.where(room > 1, np.minimum(factors, room), 1.0)
            layer.set_weights([weights[0] * factors, weights[1] * factors, *weights[2:]])
        elif hasattr(layer, "kernel") and factors is not None:
            layer.set_weights([weights[0] / factors[:, None], *weights[1:]])
    return copy


def _peaks(model: Any, pictures: Array) -> list[Array]:
    """Return the largest value of each channel of each BatchNormalization's output."""
    import keras

    outputs = [
        keras.layers.GlobalMaxPooling2D()(layer.output)
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    observer = keras.Model(model.inputs, outputs)
    return [found.max(axis=0) for found in observer.predict(pictures, verbose=0)]


def _timed(
    route: Callable[[Any, Array], Answers], model: Any, calibration: Array
) -> tuple[Answers, float]:
    start_s = time.perf_counter()
    with redirect_stdout(sys.stderr):  # converters say much
        answers = route(model, calibration)
    return answers, time.perf_counter() - start_s


def _percent(hits: Array) -> float:
    return 100 * float(hits.mean())


def _row(
    name: str,
    value: float,
    unit: Any,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    return Row(name, Spread.of(np.array([value])), unit, at_least=at_least, at_most=at_most)
