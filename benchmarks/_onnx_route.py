"""One export to ONNX in a process of its own: `python -m benchmarks._onnx_route ROUTE NET OUT`."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._networks import with_statistics
from benchmarks._twins import unet
from edgekit.runtime.backends.onnxruntime import import_onnxruntime

Array = NDArray[Any]
_SAMPLES = 4


def ours(model: Any, out: Path) -> None:
    """Do what `edgekit.convert` does for an fp32 ONNX model, up to the file."""
    import onnx

    from edgekit.converters.onnx.export import export_onnx
    from edgekit.converters.sources.keras import keras_source

    onnx.save(export_onnx(keras_source(model, None)), out)


def keras_own(model: Any, out: Path) -> None:
    """Do what Keras' guide says; the model must have been called before."""
    model(np.zeros((1, *model.input_shape[1:]), np.float32))
    model.export(out, format="onnx", verbose=False)


def _mobilenet_v2() -> Any:
    import keras

    return keras.applications.MobileNetV2(weights=None, classifier_activation=None)


def _resnet_50() -> Any:
    import keras

    return keras.applications.ResNet50(weights=None, classifier_activation=None)


def _unet() -> Any:
    import keras

    return unet(keras, (128, 128, 3), (16, 32, 64, 128))


def _lstm() -> Any:
    import keras

    layers = keras.layers
    inner = [layers.LSTM(32, return_sequences=True), layers.LSTM(32)]
    return keras.Sequential([keras.Input((28, 28)), *inner, layers.Dense(10)])


ROUTES = {"ours": ours, "Keras": keras_own}
NETWORKS = {
    "MobileNetV2": _mobilenet_v2,
    "ResNet-50": _resnet_50,
    "U-Net": _unet,
    "LSTM": _lstm,
}


def main() -> None:
    """Export, write the file, and print what it cost and how near it is, as JSON."""
    import keras
    import onnx
    import tf2onnx  # noqa: F401  # both routes need it: importing it is not exporting

    import_onnxruntime()
    keras.utils.set_random_seed(0)
    route, network, file = sys.argv[1:]
    out, model = Path(file), with_statistics(NETWORKS[network]())
    begun = time.perf_counter(), time.process_time()
    ROUTES[route](model, out)
    figures = {"wall_s": time.perf_counter() - begun[0], "cpu_s": time.process_time() - begun[1]}
    kinds = Counter(node.op_type for node in onnx.load(out).graph.node)
    figures |= {"nodes": kinds.total(), "transposes": kinds["Transpose"]}
    print(json.dumps({**figures, **_parity(model, out)}))


def _parity(model: Any, file: Path) -> dict[str, float]:
    """Return the largest difference to Keras, and its ratio to the largest output."""
    session = import_onnxruntime().InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    is_turned = len(given.shape) == 4 and given.shape[-1] != model.input_shape[-1]
    samples = np.random.default_rng(1).uniform(-1, 1, (_SAMPLES, *model.input_shape[1:]))
    difference = largest = 0.0
    for sample in samples.astype(np.float32)[:, None]:
        wanted = np.asarray(model(sample, training=False))
        taken = np.ascontiguousarray(np.moveaxis(sample, -1, 1)) if is_turned else sample
        (found,) = session.run(None, {given.name: taken})
        found = np.moveaxis(found, 1, -1) if is_turned and found.ndim == 4 else found
        if found.shape != wanted.shape:
            raise AssertionError(f"outputs are {found.shape}; the model's are {wanted.shape}")
        difference = max(difference, float(np.abs(found - wanted).max()))
        largest = max(largest, float(np.abs(wanted).max()))
    return {"difference": difference, "relative": difference / largest}


if __name__ == "__main__":
    main()
