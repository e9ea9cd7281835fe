"""Train a small U-Net on pictures of cells and run it, in int8, on tiles of larger pictures.

    python examples/membranes.py

Without arguments: generated cells. With pictures of your own, grey or RGB, and a class a pixel:

    python examples/membranes.py --data membranes.npz::image,mask --steps 400

It learns from parts of 64x64; the bundle takes pictures of any size.
"""

import argparse
from typing import Any

import cv2
import keras
import numpy as np

import edgekit
from edgekit.data import load_data
from edgekit.runtime.overlay import draw

SIDE = 64


def unet() -> Any:
    """Return a U-Net: grey pictures 0..1 [n, 64, 64, 1] to the probability of class 1."""
    layers = keras.layers

    def block(tensor: Any, channels: int) -> Any:
        for _ in range(2):
            tensor = layers.Conv2D(channels, 3, padding="same", use_bias=False)(tensor)
            tensor = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(tensor))
        return tensor

    picture = keras.Input((SIDE, SIDE, 1))
    top = block(picture, 8)
    low = block(layers.MaxPooling2D()(top), 16)
    larger = layers.Conv2DTranspose(8, 2, 2)(low)
    tensor = block(layers.Concatenate()([larger, top]), 8)
    return keras.Model(picture, layers.Conv2D(1, 1, activation="sigmoid")(tensor))


def cells(count: int, side: int) -> tuple[Any, Any]:
    """Return noisy grey pictures uint8 [n, side, side] of cells, and where their inside is."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    pictures, masks = [], []
    for _ in range(count):
        centres = random.uniform(0, side, (side * side // 400, 2))
        away = np.hypot(rows - centres[:, :1, None], columns - centres[:, 1:, None])
        nearest = np.partition(away, 1, axis=0)
        masks.append((nearest[1] - nearest[0] > 3).astype(np.uint8))  # else between two cells
        noise = random.normal(0, 25, (side, side))
        pictures.append(np.clip(90 + 80 * masks[-1] + noise, 0, 255).astype(np.uint8))
    return np.array(pictures), np.array(masks)


def train(pictures: list[Any], masks: Any, steps: int) -> Any:
    """Return a U-Net that learned from `steps` batches of 16 parts."""
    random = np.random.default_rng(0)

    def lessons() -> Any:
        while True:
            parts = []
            for index in random.integers(0, len(pictures), 16):
                rooms = np.array(masks[index].shape) - SIDE
                top, left = random.integers(0, rooms, endpoint=True)
                place = np.s_[top : top + SIDE, left : left + SIDE, None]
                turn = np.s_[:: random.choice([1, -1]), :: random.choice([1, -1])]
                parts.append((pictures[index][place][turn] / 255, masks[index][place][turn]))
            yield tuple(np.array(part, np.float32) for part in zip(*parts, strict=True))

    keras.utils.set_random_seed(0)
    model = unet()
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", jit_compile=False)
    model.fit(lessons(), steps_per_epoch=steps, shuffle=False, verbose=0)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="FILE.npz::X,Y, masks of 0 and 1")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--output", default="membranes.edgekit")
    parser.add_argument("--picture", default="membranes.jpg")
    options = parser.parse_args()

    data = load_data(options.data or cells(12, 160))
    masks = data.labelled()
    frames = [data.read(index) for index in range(len(data))]
    frames = [cv2.cvtColor(f, cv2.COLOR_BGR2GRAY) if f.ndim == 3 else f for f in frames]
    held_out = len(frames) // 4  # the last quarter is for the evaluation
    model = train(frames[:-held_out], masks[:-held_out], options.steps)
    bundle = edgekit.convert(
        model,
        options.output,
        precision="int8",
        preprocess="unit,resize=tile",
        data=np.array(frames[:-held_out]),
        eval_data=(np.array(frames[-held_out:]), masks[-held_out:]),
        labels=["membrane", "cell"],
    )
    accuracy = bundle.manifest.accuracy
    print(f"{accuracy.metric}: {accuracy.source:.1%} before, {accuracy.converted:.1%} in int8")

    with edgekit.open(bundle.path) as opened:
        prediction = opened(frames[-1])
        probabilities = opened.probabilities(frames[-1], prediction)  # [height, width, 1]
    print(f"a picture of {frames[-1].shape}: probabilities {probabilities.shape}")
    cv2.imwrite(options.picture, draw(frames[-1], prediction.value))


if __name__ == "__main__":
    main()
