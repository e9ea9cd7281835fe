"""One way to train, in a process of its own: `python -m benchmarks._training_route ROUTE FOLDER`.

ROUTE is ``float`` (Keras 3 as it is), ``ours`` (`edgekit.quantize_aware`) or ``tfmot``, which needs
neither Keras 3 nor EdgeKit. Everything else is in FOLDER, the same for all: the name of the network
and its weights, and the pictures and answers in the order of the steps. Standard input holds a line
FIRST LAST for each part of the training; its costs come back as a line of JSON. At the end
ROUTE.npz holds what the model answers, and ROUTE.tflite is the int8 model. With `--layers`, each
of `_twins.LAYERS` that standard input names is made quantize-aware and int8 instead.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._child import answering
from benchmarks._twins import BATCH, LAYERS, NETWORKS


def main(route: str, folder: Path) -> None:
    """Train as told by the lines of standard input, and write the results to `folder`."""
    with answering() as answer:
        if route == "--layers":
            _try_layers(folder.name, answer)
        else:
            _train(_Route(route), folder, answer)


class _Route:
    """What differs between the libraries."""

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "tfmot":
            os.environ["TF_USE_LEGACY_KERAS"] = "1"
            import tf_keras as keras
        else:
            import keras
        self.keras: Any = keras

    def aware(self, model: Any, calibration: Any, freeze_after: int | None) -> Any:
        """Return what trains; tfmot finds its ranges without calibration."""
        if self.name == "ours":
            import edgekit

            return edgekit.quantize_aware(model, calibration=calibration, freeze_after=freeze_after)
        if self.name == "tfmot":
            from tensorflow_model_optimization.python.core.quantization.keras import quantize

            return quantize.quantize_model(model)
        return model

    def int8(self, model: Any) -> bytes:
        """Return the int8 `.tflite` of what `aware` gave."""
        if self.name == "ours":
            from edgekit.converters.formats.litert import emit
            from edgekit.converters.sources import open_source

            return emit(open_source(model, scratch=Path()), "int8", None, int8_steps=()).content
        import tensorflow as tf

        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return bytes(converter.convert())


def _train(route: _Route, folder: Path, answer: Any) -> None:
    keras = route.keras
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("pictures", "answers", "test")}
    weights = np.load(folder / "weights.npz")
    source = NETWORKS[task["network"]](keras)
    source.set_weights([weights[name] for name in weights.files])
    before = source.predict(arrays["test"], verbose=0)
    model = route.aware(source, np.load(folder / "calibration.npy"), task["freeze_after"])
    rate = keras.optimizers.schedules.CosineDecay(task["rate"], task["steps"])
    loss = getattr(keras.losses, task["loss"])(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    answer({"ready": True})
    for line in sys.stdin:
        first, last = map(int, line.split())
        costs = list(_steps(model, arrays, first, last))
        answer({"wall_s": [wall for wall, _ in costs], "cpu_s": [cpu for _, cpu in costs]})
    after = model.predict(arrays["test"], verbose=0)
    np.savez(folder / f"{route.name}.npz", before=before, after=after)
    if route.name != "float":
        (folder / f"{route.name}.tflite").write_bytes(route.int8(model))


def _steps(model: Any, arrays: Any, first: int, last: int) -> Iterator[tuple[float, float]]:
    """Train on some batches; yield what each costs in wall and CPU time, in seconds."""
    for step in range(first, last):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        pictures = arrays["pictures"][rows].astype(np.float32) / 127.5 - 1
        begun = time.perf_counter(), time.process_time()
        model.train_on_batch(pictures, arrays["answers"][rows])
        yield time.perf_counter() - begun[0], time.process_time() - begun[1]


def _try_layers(name: str, answer: Any) -> None:
    """Answer with one line a layer type: why it is refused, or the size of its int8 model."""
    route, random = _Route(name), np.random.default_rng(0)
    for line in sys.stdin:
        layer = line.strip()
        source = LAYERS[layer](route.keras)
        pictures = random.uniform(-1, 1, (32, *source.input_shape[1:])).astype(np.float32)
        try:
            model = route.aware(source, pictures, None)
            model.compile("sgd", "mse", jit_compile=False)
            model.train_on_batch(pictures, source.predict(pictures, verbose=0))
            content = route.int8(model)
        except Exception as error:  # whatever a library raises: it does not take this layer
            answer({"layer": layer, "refused": f"{type(error).__name__}: {error}"[:300]})
        else:
            answer({"layer": layer, "content": base64.b64encode(content).decode()})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
