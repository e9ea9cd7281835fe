"""Networks that classify each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from benchmarks.zoo import Architecture

_SIDE = 64


def unet(up: Literal["transposed", "bilinear"]) -> Any:
    """Ronneberger et al. 2015, three levels; upwards by transposed convolution or resizing."""
    import keras

    layers = keras.layers

    def block(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    x = picture = keras.Input((_SIDE, _SIDE, 3))
    skips = []
    for filters in (8, 16, 32):
        skips.append(block(x, filters))
        x = layers.MaxPooling2D()(skips[-1])
    x = block(x, 64)
    for filters, skip in zip((32, 16, 8), reversed(skips), strict=True):
        if up == "transposed":
            x = layers.Conv2DTranspose(filters, 2, 2)(x)
        else:
            x = layers.UpSampling2D(interpolation="bilinear")(x)
        x = block(layers.Concatenate()([skip, x]), filters)
    return keras.Model(picture, layers.Conv2D(3, 1, activation="softmax")(x))


def pixelnet(side: int = _SIDE, filters: Sequence[int] = (8, 16, 32, 32)) -> Any:
    """Bansal et al. 2017: a perceptron reads each pixel's hypercolumn, all levels' features."""
    import keras

    layers = keras.layers
    x = picture = keras.Input((side, side, 3))
    levels = []
    for step, width in enumerate(filters):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        scale = 2**step
        large = layers.UpSampling2D(scale, interpolation="bilinear")(x) if scale > 1 else x
        levels.append(large)
        x = layers.MaxPooling2D()(x)
    x = layers.Concatenate()(levels)
    for _ in range(2):
        x = layers.Conv2D(64, 1, activation="relu")(x)
    return keras.Model(picture, layers.Conv2D(5, 1, activation="softmax")(x))


ARCHITECTURES = (
    Architecture(
        "U-Net, transposed convolution", partial(unet, "transposed"), note="64x64, 8 to 64 filters"
    ),
    Architecture("U-Net, bilinear", partial(unet, "bilinear"), note="64x64, 8 to 64 filters"),
    Architecture("PixelNet", pixelnet, note="64x64, hypercolumns of four levels"),
)
