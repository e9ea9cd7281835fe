"""Quantization-aware training: what it regains, what it costs, which layers it takes.

Ours: `edgekit.quantize_aware` with Keras 3, and its int8 `.tflite` without further data.

Peer: the `quantize_model` of tensorflow-model-optimization (tfmot) with Keras 2: the same network
and weights, the same pictures and answers in the same order, the same optimizer, in turns with
ours, without XLA, which both leave off for such models. Also TFLiteConverter's post-training int8,
`edgekit.convert`'s, and the float model trained on for as many steps.

tfmot wants absl-py below 2, which the pins exclude: it needs an environment of its own (`pip
install tensorflow tf_keras tensorflow-model-optimization`), and EDGEKIT_TFMOT_PYTHON is its Python.

A MobileNet of width 0.25 with ReLU6 learns the answers of MLPerf Tiny's ResNet-8 on CIFAR-10 from
the development data (minutes, once). Its channels are made uneven as in `quantization`, sigma 1.5,
which leaves the float function as it is; it is calibrated on 16 pictures, and judged by the labels
of 2,000 that nothing was trained or calibrated on. The MobileNet as it was trains on briefly
for int8, and a ResNet and a U-Net do from random weights.

It must show: in these three's int8 models no operator with floats, at least 98 % of the answers
those of the trained Keras model, and 95 % of the outputs within 4 steps of it; where
TFLiteConverter loses at least 2 points by post-training quantization, at least 80 % of them
regained; every layer type becomes int8. Costs, tfmot's figures, and how near the uneven network's
int8 model is to Keras are for information. Without the development data or TensorFlow there are no
rows.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import _peers
from benchmarks._measure import Effort, Row, Spread
from benchmarks._subjects import development_data
from benchmarks._trained import lessons, narrow_mobilenet
from benchmarks._training import Task, Trained, peer_python, signed, train_in_turns, try_layers
from benchmarks._twins import BATCH, LAYERS, NETWORKS
from benchmarks.quantization import uneven
from edgekit.runtime.tflite import describe_tflite

Array = NDArray[Any]
_SIGMA = 1.5
_CALIBRATION = 16
_FLOAT_STEPS = {"tiny": 30, "normal": 2000, "full": 2000}
_STEPS = {"tiny": 4, "normal": 400, "full": 1200}
_TEST = {"tiny": 100, "normal": 2000, "full": 2000}
_BRIEF_STEPS = {"tiny": 4, "normal": 100, "full": 300}


def measure(effort: Effort) -> list[Row]:
    files = [development_data(name) for name in ("cifar10_dev.npz", "isbi_membrane_dev.npz")]
    if None in files or find_spec("tensorflow") is None:
        print("note: training needs TensorFlow and the development data; set EDGEKIT_DATA to it")
        return []
    cifar, membranes = (file for file in files if file is not None)
    peer = peer_python()
    rows = _regained_rows(cifar, effort, peer)
    tasks = (
        _pictures_task("MobileNet", _source(cifar, effort).get_weights(), cifar, effort),
        _pictures_task("ResNet", _fresh_weights("ResNet"), cifar, effort),
        _unet_task(membranes, effort),
    )
    for task in tasks:
        rows += _parity_rows(task, train_in_turns(task, {"ours": sys.executable})["ours"])
    return rows + _layer_rows(peer, effort)


def _regained_rows(cifar: Path, effort: Effort, peer: str | None) -> list[Row]:
    """Return the rows of the network that loses by post-training quantization."""
    data = np.load(cifar)
    labels = data["y_test"][: _TEST[effort]]
    source = uneven(_source(cifar, effort), _SIGMA, signed(data["x_calib"]), largest=6.0)
    pictures, answers = zip(*islice(lessons(cifar, seed=1), _STEPS[effort]), strict=True)
    chosen = np.linspace(0, len(data["x_calib"]) - 1, _CALIBRATION).round().astype(int)
    task = Task(
        "MobileNet",
        source.get_weights(),
        np.concatenate(pictures).astype(np.uint8),
        np.concatenate(answers),
        data["x_calib"][chosen],
        data["x_test"][: _TEST[effort]],
    )
    routes = {"float": sys.executable, "ours": sys.executable}
    if peer is not None:
        routes["tfmot"] = peer
    found = train_in_turns(task, routes)
    for route in found.values():
        _check_twins(found["float"].before, route.before)

    def right(outputs: Array) -> float:
        return _percent(outputs.argmax(axis=1) == labels)

    test = signed(task.test)
    after = {name: right(_int8(route, test)) for name, route in found.items() if name != "float"}
    with redirect_stdout(sys.stderr):  # converters say much
        post = {
            name: right(route(source, signed(task.calibration))(test))
            for name, route in (("TensorFlow", _peers.tensorflow), ("ours", _peers.edgekit))
        }
    whole, longer = right(found["float"].before), right(found["float"].after)
    lost = whole - post["TensorFlow"]
    title = "narrow MobileNet, right"
    rows = [
        _row(f"{title}: float", whole),
        _row(f"{title}: float, trained on", longer),
        *(_row(f"{title}: post-training, {name}", value) for name, value in post.items()),
        *(_row(f"{title}: trained for int8, {name}", value) for name, value in after.items()),
        _row("points that TensorFlow's post-training loses", lost, at_least=2),
    ]
    for name, value in after.items():
        share = 100 * (value - post["TensorFlow"]) / max(lost, 100 / len(labels))
        limit = 80.0 if name == "ours" else None
        rows.append(_row(f"share of them regained, {name}", share, at_least=limit))
    return rows + _parity_rows(task, found["ours"], "uneven ", judged=False) + _cost_rows(found)


def _source(cifar: Path, effort: Effort) -> Any:
    import keras

    return keras.models.load_model(narrow_mobilenet(cifar, _FLOAT_STEPS[effort]), compile=False)


def _pictures_task(network: str, weights: list[Array], cifar: Path, effort: Effort) -> Task:
    """Return a brief training on CIFAR-10."""
    data, count = np.load(cifar), _BRIEF_STEPS[effort]
    pictures, answers = zip(*islice(lessons(cifar, seed=2), count), strict=True)
    return Task(
        network,
        weights,
        np.concatenate(pictures).astype(np.uint8),
        np.concatenate(answers),
        data["x_calib"][:128],
        data["x_test"][: _TEST[effort]],
    )


def _unet_task(membranes: Path, effort: Effort) -> Task:
    """Return a training on squares of 64x64 of the membranes."""
    data, count = np.load(membranes), _BRIEF_STEPS[effort] * BATCH
    is_test = data["split"] != "train"
    random = np.random.default_rng(0)
    cut = {name: _squares(data[name][~is_test]) for name in ("image", "mask")}
    order = np.concatenate(
        [random.permutation(len(cut["image"])) for _ in range(-(-count // len(cut["image"])))]
    )[:count]
    return Task(
        "U-Net",
        _fresh_weights("U-Net"),
        cut["image"][order],
        cut["mask"][order].astype(np.float32),
        cut["image"][:64],
        _squares(data["image"][is_test])[:128],
        loss="BinaryCrossentropy",
    )


def _squares(pictures: Array, side: int = 64) -> Array:
    """Return [n, h, w] cut into [m, side, side, 1]."""
    count, height, width = pictures.shape
    rows = pictures.reshape(count, height // side, side, width // side, side)
    return rows.swapaxes(2, 3).reshape(-1, side, side, 1)


def _fresh_weights(network: str) -> list[Array]:
    import keras

    keras.utils.set_random_seed(0)
    weights: list[Array] = NETWORKS[network](keras).get_weights()
    return weights


def _parity_rows(task: Task, trained: Trained, kind: str = "", judged: bool = True) -> list[Row]:
    """Return how near the int8 model is to the Keras model that it was made of."""
    content = trained.content
    assert content is not None
    wanted, given = trained.after, _int8(trained, signed(task.test))
    step = describe_tflite(content, task.network).outputs[0].scale
    same = (wanted > 0) == (given > 0)
    if wanted.shape[-1] > 1:
        same = wanted.argmax(axis=-1) == given.argmax(axis=-1)
    near = np.abs(wanted - given) <= 4.5 * step  # the Keras model answers between the steps
    title = f"{kind}{task.network}, int8 as trained"
    return [
        _row(f"{title}: operators with floats", _float_share(content), at_most=0),
        _row(f"{title}: answers", _percent(same), at_least=98 if judged else None),
        _row(f"{title}: outputs within 4 steps", _percent(near), at_least=95 if judged else None),
    ]


def _cost_rows(found: dict[str, Trained]) -> list[Row]:
    """Return what a training step of 64 pictures costs."""
    rows = []
    for name, trained in found.items():
        for what, seconds in (("wall", trained.wall_s), ("CPU", trained.cpu_s)):
            rows.append(Row(f"training step, {name}: {what} time", Spread.of(1e3 * seconds), "ms"))
    if "tfmot" in found:
        ours, peer = found["ours"], found["tfmot"]
        rows += [
            Row("training step, ours / tfmot: wall time", Spread.of(ours.wall_s / peer.wall_s)),
            Row("training step, ours / tfmot: CPU time", Spread.of(ours.cpu_s / peer.cpu_s)),
        ]
    return rows


def _layer_rows(peer: str | None, effort: Effort) -> list[Row]:
    """Return the share of layer types that become int8, and a row for each other one."""
    rows = []
    tried = list(LAYERS)[:: 8 if effort == "tiny" else 1]
    for name, python in (("ours", sys.executable), ("tfmot", peer)):
        if python is None:
            continue
        failed = {}
        for layer, made in try_layers(name, python, tried).items():
            if isinstance(made, str):
                failed[layer] = "refused"
            elif _float_share(made) > 0:
                failed[layer] = "keeps floats"
        share = 100 * (1 - len(failed) / len(tried))
        limit = 100 if name == "ours" else None
        rows.append(_row(f"layer types that become int8, {name}", share, at_least=limit))
        rows += [_row(f"{layer}, {name}: {why}", 0) for layer, why in failed.items()]
    return rows


def _float_share(content: bytes) -> float:
    """Return the percentage of a `.tflite`'s operators that take or give floats."""
    operators = describe_tflite(content, "the int8 model").operators
    floats = [
        any(t is not None and t.dtype.startswith("float") for t in (*one.inputs, *one.outputs))
        for one in operators
    ]
    return _percent(np.array(floats))


def _int8(trained: Trained, images: Array) -> Array:
    assert trained.content is not None
    return _peers.tflite_answers(trained.content)(images)


def _check_twins(one: Array, other: Array) -> None:
    if np.abs(one - other).max() > 1e-3 * np.abs(one).max():
        raise AssertionError("Keras 2 and Keras 3 do not begin with the same function")


def _percent(hits: Array) -> float:
    return 100 * float(np.mean(hits))


def _row(
    name: str, value: float, at_least: float | None = None, at_most: float | None = None
) -> Row:
    return Row(name, Spread.of(np.array([value])), "%", at_least=at_least, at_most=at_most)
