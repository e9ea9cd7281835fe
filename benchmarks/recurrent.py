"""Recurrent nets on the rows of MNIST's digits: `.tflite` against Keras, its answers and its speed.

Ours: LSTM (32 units), two LSTMs (24), GRU (32) and bidirectional LSTM (20), trained briefly on
`mnist_rows_dev.npz` in the folder EDGEKIT_DATA, converted by `edgekit.convert` from uint8 rows.

Peer: the same models in Keras.

It must show: the same answer as Keras on at least 99.9 % of the test rows in fp32, 97 % in int8.
The time to convert and for one sequence (one thread) is for information.
"""

from __future__ import annotations

import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import edgekit
from benchmarks._measure import Effort, Row, Spread, in_turns, on_clock
from benchmarks._subjects import development_data
from edgekit.runtime.backends.litert import Backend

_LIMITS = {"fp32": 99.9, "int8": 97.0}


def measure(effort: Effort) -> list[Row]:
    file = development_data("mnist_rows_dev.npz")
    if file is None or find_spec("tensorflow") is None:
        print("note: recurrent needs TensorFlow and the development data (EDGEKIT_DATA)")
        return []
    data = np.load(file)
    return [row for name in _BODIES for row in _measure(name, data, effort)]


def _measure(name: str, data: Any, effort: Effort) -> list[Row]:
    model, rows = _trained(name, data, effort), []
    tests = data["x_test"][: 50 if effort == "tiny" else None]
    expected = model.predict(tests / np.float32(255), verbose=0).argmax(axis=1)
    with tempfile.TemporaryDirectory() as folder:
        for precision, limit in _LIMITS.items():
            out = Path(folder) / f"{precision}.edgekit"
            start_s = time.perf_counter()
            edgekit.convert(
                model,
                out,
                precision=precision,
                data=data["x_train"][:500],
                preprocess="unit",
                calibration_samples=200,
            )
            seconds = time.perf_counter() - start_s
            with edgekit.open(out) as bundle:
                found = [bundle(sequence).outputs[0].argmax() for sequence in tests]
            title = f"{name} {precision}: "
            agreement = 100 * np.mean(np.array(found) == expected)
            rows += [
                Row(title + "same answer", _once(agreement), unit="%", at_least=limit),
                Row(title + "to convert", _once(seconds), unit="s"),
                Row(title + "one sequence", _latency(out / "model.tflite"), unit="µs"),
            ]
    return rows


def _trained(name: str, data: Any, effort: Effort) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((28, 28)), *_BODIES[name](keras.layers)]
    model = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    epochs = 1 if effort == "tiny" else 6
    model.fit(data["x_train"] / np.float32(255), data["y_train"], 64, epochs=epochs, verbose=0)
    return model


_BODIES = {
    "LSTM": lambda layers: [layers.LSTM(32)],
    "two LSTMs": lambda layers: [layers.LSTM(24, return_sequences=True), layers.LSTM(24)],
    "GRU": lambda layers: [layers.GRU(32)],
    "bidirectional LSTM": lambda layers: [layers.Bidirectional(layers.LSTM(20))],
}


def _latency(path: Path) -> Spread:
    with Backend(path, 1) as backend:
        outputs = [np.empty(spec.shape, spec.dtype) for spec in backend.outputs]
        seconds = in_turns([on_clock(lambda: backend.run(outputs))], 5, 20)
    return Spread.of(1e6 * np.median(seconds[0], axis=1))


def _once(value: Any) -> Spread:
    return Spread.of(np.array([value], np.float64))
