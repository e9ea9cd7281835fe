"""Train the demo's MobileNet on generated frames: about five minutes on two CPU cores.

    python examples/train_demo_model.py --output model.keras

The model takes 96x96 RGB pixels as the preset ``signed`` scales them (pixel / 127.5 - 1) and gives
the probabilities of `edgekit.demo.frames.LABELS`; their names go to ``labels.txt`` beside it.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgekit.demo.frames import LABELS, make_set
from edgekit.specs import PRESETS

SIDE = 96
BATCH = 32
TRAIN_SEED, TEST_SEED = 1, 2
TEST_SAMPLES = 800
# (filters, stride) of the depthwise-separable blocks of a MobileNetV1 (arXiv:1704.04861).
BLOCKS = ((24, 1), (32, 2), (48, 1), (64, 2), (64, 1), (96, 2), (128, 1))


def build_model() -> Any:
    """Return the untrained model: images [n, 96, 96, 3] in -1..1 to probabilities [n, 8]."""
    layers = keras.layers

    def normalized(x: Any) -> Any:
        return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.95)(x))

    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(image)
    x = normalized(x)
    for filters, stride in BLOCKS:
        x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.Conv2D(filters, 1, use_bias=False)(normalized(x))
        x = normalized(x)
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    x = layers.Dense(len(LABELS), activation="softmax", name="probabilities")(x)
    return keras.Model(image, x, name="shapes_mobilenet")


def scaled(frames: Any) -> Any:
    """Return uint8 RGB `frames` as float32 model inputs of the same shape."""
    signed = PRESETS["signed"]
    return tf.cast(frames, tf.float32) * signed.scale - signed.mean[0]


def train(model: Any, samples: int, epochs: int) -> None:
    """Train `model` in place on `samples` generated frames."""
    frames, labels = make_set(samples, TRAIN_SEED, (SIDE, SIDE))
    flip = keras.layers.RandomFlip(seed=0)
    batches = (
        tf.data.Dataset.from_tensor_slices((frames, labels))
        .shuffle(samples, seed=0)
        .batch(BATCH)
        .map(lambda x, y: (flip(scaled(x), training=True), y))
        .prefetch(2)
    )
    # A second model over the same layers is compiled, so that the first is saved without
    # the optimizer's state.
    trainee = keras.Model(model.inputs, model.outputs)
    steps = epochs * len(batches)
    trainee.compile(
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                0.0, steps, alpha=0.01, warmup_target=4e-3, warmup_steps=steps // 10
            ),
            weight_decay=1e-3,
        ),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # XLA's depthwise convolutions are several times slower on a CPU
    )
    trainee.fit(batches, epochs=epochs, shuffle=False, verbose=2)


def measure_accuracy(model: Any) -> float:
    """Return the part of frames from another seed that `model` names rightly."""
    frames, labels = make_set(TEST_SAMPLES, TEST_SEED, (SIDE, SIDE))
    answers = model.predict(scaled(frames), batch_size=BATCH, verbose=0)
    return float(np.mean(answers.argmax(1) == labels))


def main() -> None:
    """Train, measure and save."""
    folder = Path(__file__).resolve().parents[1] / "edgekit" / "demo"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=folder / "model.keras")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--samples", type=int, default=6400)
    options = parser.parse_args()

    start_ns = time.monotonic_ns()
    keras.utils.set_random_seed(0)
    model = build_model()
    train(model, options.samples, options.epochs)
    accuracy = measure_accuracy(model)
    model.save(options.output)
    options.output.with_name("labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    print(
        f"{options.output}: {model.count_params():,} parameters, "
        f"{options.output.stat().st_size / 1000:.0f} kB, accuracy {accuracy:.1%} on "
        f"{TEST_SAMPLES} held-out frames, {(time.monotonic_ns() - start_ns) / 1e9:.0f} s"
    )


if __name__ == "__main__":
    main()
