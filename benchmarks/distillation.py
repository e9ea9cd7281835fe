"""Distillation: what a small network gains by a teacher, and again when it is trained for int8.

Ours: `edgekit.distill`. A MobileNet of 39 thousand weights learns CIFAR-10 from the 10,000
training pictures of the development data and from the answers of MLPerf Tiny's ResNet-8, which saw
five times as many. Then the student is trained on for int8 by the same teacher.

Peer: the same networks by labels alone, from the same first weights, with the same pictures in the
same order for as many steps; three seeds each. Training for int8 begins with the distilled student
in both cases.

All are judged by the labels of 2,000 pictures that nothing was trained or chosen on; of its states
each training keeps the one with the smallest loss on other 1,000. With `--full` the pictures are
shifted and mirrored, and it learns longer.

It must show: 1.5 points more for the distilled student. Trained networks are kept in `results/`,
so that a benchmark that was stopped goes on where it was. Without the development data or
TensorFlow there are no rows.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import edgekit
from benchmarks._measure import Effort, Row, Spread
from benchmarks._subjects import RESULTS, development_data
from benchmarks._trained import teacher
from benchmarks._twins import BATCH

_BLOCKS = ((32, 2), (64, 1), (64, 1), (128, 2), (128, 1))
_PICTURES = {"tiny": 128, "normal": 10_000, "full": 10_000}
_JUDGED = {"tiny": 64, "normal": 2000, "full": 2000}
_CHOOSING = {"tiny": 32, "normal": 1000, "full": 1000}
_SEEDS = {"tiny": 1, "normal": 3, "full": 3}
_EPOCHS = {"tiny": 1, "normal": 8, "full": 30}
_INT8_EPOCHS = {"tiny": 1, "normal": 2, "full": 5}
_AUGMENT = {"tiny": None, "normal": None, "full": "shift,flip"}
_TEMPERATURE, _ALPHA = 4.0, 0.9
_SETTINGS: dict[str, Any] = {
    "preprocess": "signed",
    "teacher_preprocess": "raw",
    "batch_size": BATCH,
    "patience": 1000,
    "cosine": True,
    "temperature": _TEMPERATURE,
}


def measure(effort: Effort) -> list[Row]:
    cifar = development_data("cifar10_dev.npz")
    if cifar is None or find_spec("tensorflow") is None:
        print("note: distillation needs TensorFlow and the development data; set EDGEKIT_DATA")
        return []
    with redirect_stdout(sys.stderr):  # TensorFlow says much
        seeds = range(_SEEDS[effort])
        alone, distilled = np.array([_students_right(cifar, effort, seed) for seed in seeds]).T
        plain, taught = np.array([_int8_right(cifar, effort, seed) for seed in seeds]).T
    return [
        _row("student trained alone, right", alone),
        _row("student distilled, right", distilled),
        _row("gain by distillation", distilled - alone, at_least=1.5),
        _row("distilled student trained for int8 by labels, int8 model right", plain),
        _row("distilled student trained for int8 by the teacher, int8 model right", taught),
        _row("gain by distillation in training for int8", taught - plain),
    ]


def _students_right(cifar: Path, effort: Effort, seed: int) -> list[float]:
    """Return the accuracies in %: of the student trained alone, and of the distilled one."""
    import keras

    x, y = _judged(cifar, effort)
    accuracies = []
    for share in (0.0, _ALPHA):
        model = keras.models.load_model(_student(cifar, effort, seed, share), compile=False)
        answers = model.predict(x.astype(np.float32) / 127.5 - 1, verbose=0)
        accuracies.append(100 * float(np.mean(answers.argmax(axis=1) == y)))
    return accuracies


def _int8_right(cifar: Path, effort: Effort, seed: int) -> list[float]:
    """Return the accuracies in % of the int8 models: trained by labels, and by the teacher."""
    accuracies = []
    for share in (0.0, _ALPHA):
        with tempfile.TemporaryDirectory() as folder:
            bundle = edgekit.convert(
                _aware(cifar, effort, seed, share),
                Path(folder) / "int8.edgekit",
                precision="int8",
                preprocess="signed",
                eval_data=_judged(cifar, effort),
            )
        accuracy = bundle.manifest.accuracy
        assert accuracy is not None
        accuracies.append(100 * accuracy.converted)
    return accuracies


def _judged(cifar: Path, effort: Effort) -> tuple[Any, Any]:
    data, count = np.load(cifar), _JUDGED[effort]
    return data["x_test"][:count], data["y_test"][:count]


def _student(cifar: Path, effort: Effort, seed: int, share: float) -> Path:
    """Return the student that learned with this share of the teacher's, as a `.keras` file."""
    import keras

    keras.utils.set_random_seed(seed)
    rate = {"learning_rate": 3e-3, "epochs": _EPOCHS[effort]}
    return _learned("student", cifar, effort, seed, share, small_mobilenet(), rate)


def _aware(cifar: Path, effort: Effort, seed: int, share: float) -> Path:
    student = _student(cifar, effort, seed, _ALPHA)
    rate = {"learning_rate": 3e-4, "epochs": _INT8_EPOCHS[effort], "qat": True}
    return _learned("student_int8", cifar, effort, seed, share, student, rate)


def _learned(
    name: str,
    cifar: Path,
    effort: Effort,
    seed: int,
    share: float,
    student: Any,
    settings: dict[str, Any],
) -> Path:
    kind = "distilled" if share else "alone"
    path = RESULTS / f"{name}_{kind}_{effort}_{settings['epochs']}_epochs_seed_{seed}.keras"
    if not path.is_file():
        RESULTS.mkdir(exist_ok=True)
        data, count = np.load(cifar), _PICTURES[effort]
        few = _CHOOSING[effort]
        edgekit.distill(
            teacher(cifar),
            student,
            (data["x_train"][:count], data["y_train"][:count]),
            path,
            eval_data=(data["x_calib"][:few], data["y_calib"][:few]),
            alpha=share,
            seed=seed,
            augment=_AUGMENT[effort],
            **_SETTINGS,
            **settings,
        )
    return path


def small_mobilenet() -> Any:
    """Return an untrained MobileNetV1-like network: 32x32 pictures -1..1 to 10 logits."""
    import keras

    layers = keras.layers

    def block(layer: Any, tensor: Any) -> Any:
        return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(layer(tensor)))

    image = keras.Input((32, 32, 3))
    tensor = block(layers.Conv2D(16, 3, 2, padding="same", use_bias=False), image)
    for channels, strides in _BLOCKS:
        depthwise = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)
        tensor = block(depthwise, tensor)
        tensor = block(layers.Conv2D(channels, 1, use_bias=False), tensor)
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(tensor)))


def _row(name: str, values: Any, at_least: float | None = None) -> Row:
    return Row(name, Spread.of(values), "%", at_least=at_least)
