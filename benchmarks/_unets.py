"""U-Nets that `segmentation` trains on the development data's membranes, once, and keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._trained import kept

Array = NDArray[Any]
Upsampling = Literal["transposed", "bilinear"]
SIDE = 256
_PART = 128  # of a picture, in training at full size


def unet(upsampling: Upsampling, side: int = SIDE, width: int = 16) -> Any:
    """Return a U-Net for grey pictures 0..1 [side, side, 1]; it gives the probability of class 1.

    After Ronneberger et al., "U-Net", 2015, with two poolings and batch normalization; some
    118,000 parameters at a width of 16.
    """
    import keras

    layers = keras.layers

    def block(tensor: Any, channels: int) -> Any:
        for _ in range(2):
            tensor = layers.Conv2D(channels, 3, padding="same", use_bias=False)(tensor)
            tensor = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(tensor))
        return tensor

    def larger(tensor: Any, channels: int) -> Any:
        if upsampling == "transposed":
            return layers.Conv2DTranspose(channels, 2, 2)(tensor)
        tensor = layers.UpSampling2D(interpolation="bilinear")(tensor)
        return layers.Conv2D(channels, 2, padding="same")(tensor)

    picture = keras.Input((side, side, 1))
    top = block(picture, width)
    middle = block(layers.MaxPooling2D()(top), 2 * width)
    tensor = block(layers.MaxPooling2D()(middle), 4 * width)
    tensor = block(layers.Concatenate()([larger(tensor, 2 * width), middle]), 2 * width)
    tensor = block(layers.Concatenate()([larger(tensor, width), top]), width)
    return keras.Model(picture, layers.Conv2D(1, 1, activation="sigmoid")(tensor))


def trained(membranes: Path, upsampling: Upsampling, steps: int, *, full_size: bool) -> Path:
    """Return a trained `unet` as a `.keras` file.

    All but the first begin as that one, which enlarges by transposed convolution and is not for
    full size, and learn a quarter of its steps more.

    Args:
        membranes: the development data's ISBI-2012 pictures.
        upsampling: what makes maps larger.
        steps: of training.
        full_size: learn from 8 parts of 128x128 a step, not from 4 pictures made 256x256.
    """

    def make() -> Any:
        import keras

        keras.utils.set_random_seed(0)
        model, more = unet(upsampling, _PART if full_size else SIDE), steps
        if full_size or upsampling != "transposed":
            first = trained(membranes, "transposed", steps, full_size=False)
            _begin_as(model, keras.models.load_model(first, compile=False))
            more = -(-steps // 4)
        model.compile(
            keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(3e-3, more), 1e-3),
            keras.losses.BinaryCrossentropy(),
            jit_compile=False,
        )
        model.fit(_lessons(membranes, full_size), steps_per_epoch=more, shuffle=False, verbose=0)
        whole = unet(upsampling)
        whole.set_weights(model.get_weights())
        return whole

    kind = "parts" if full_size else "whole"
    return kept(f"unet_{upsampling}_{kind}_{steps}_steps", make)


def split(membranes: Path, name: str) -> tuple[Array, Array]:
    """Return pictures uint8 [n, 512, 512] and masks of ``train`` or ``val``."""
    with np.load(membranes) as content:
        chosen = content["split"] == name
        return content["image"][chosen], content["mask"][chosen]


def halved(pictures: Array, masks: Array) -> tuple[Array, Array]:
    """Return pictures and masks at 256x256."""
    size = (SIDE, SIDE)
    return (
        np.array([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in pictures]),
        np.array([cv2.resize(one, size, interpolation=cv2.INTER_NEAREST) for one in masks]),
    )


def _begin_as(model: Any, other: Any) -> None:
    """Give `model` the weights of `other`, but for layers that enlarge in another way."""
    pairs = zip(*([a for a in m.layers if a.weights] for m in (model, other)), strict=True)
    for layer, begun in pairs:
        if [w.shape for w in layer.weights] == [w.shape for w in begun.weights]:
            layer.set_weights(begun.get_weights())


def _lessons(membranes: Path, full_size: bool) -> Iterator[tuple[Array, Array]]:
    """Yield pictures 0..1 and masks [n, h, w, 1] without end, turned and in another light."""
    pictures, masks = split(membranes, "train")
    if not full_size:
        pictures, masks = halved(pictures, masks)
    count, side = (8, _PART) if full_size else (4, SIDE)
    random = np.random.default_rng(0)
    while True:
        batch = [_lesson(pictures, masks, side, random) for _ in range(count)]
        yield np.stack([one for one, _ in batch]), np.stack([other for _, other in batch])


def _lesson(
    pictures: Array, masks: Array, side: int, random: np.random.Generator
) -> tuple[Array, Array]:
    index, turns, mirrored = random.integers(0, (len(pictures), 4, 2))
    top, left = random.integers(0, pictures.shape[1] - side + 1, 2)
    contrast, light = random.uniform(0.8, 1.2), random.uniform(-0.1, 0.1)
    parts = []
    for whole in (pictures[index], masks[index]):
        part = np.rot90(whole[top : top + side, left : left + side], turns)
        parts.append((part[:, ::-1] if mirrored else part).astype(np.float32)[..., None])
    picture = np.clip((parts[0] / 255 - 0.5) * contrast + 0.5 + light, 0, 1)
    return picture, parts[1]
