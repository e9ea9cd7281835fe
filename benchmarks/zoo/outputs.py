"""What a network says: numbers, several things at once, the mean of two networks."""

from __future__ import annotations

from typing import Any

from benchmarks.zoo import Architecture

_SIDE = 48


def regression() -> Any:
    """Four numbers without bounds, as the corners of a box."""
    import keras

    layers = keras.layers
    x, picture = _features()
    x = layers.Dense(32, activation="relu")(x)
    return keras.Model(picture, layers.Dense(4)(x))


def multi_output() -> Any:
    """A class, a number and a map of one body."""
    import keras

    layers = keras.layers
    x = picture = keras.Input((_SIDE, _SIDE, 3))
    for filters in (16, 32):
        x = layers.Conv2D(filters, 3, 2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    pooled = layers.GlobalAveragePooling2D()(x)
    outputs = {
        "label": layers.Dense(6, activation="softmax", name="label")(pooled),
        "age": layers.Dense(1, name="age")(pooled),
        "map": layers.Conv2D(1, 1, activation="sigmoid", name="map")(x),
    }
    return keras.Model(picture, list(outputs.values()))


def ensemble() -> Any:
    """The mean of what two networks say, each a model called as a layer."""
    import keras

    layers = keras.layers
    members = []
    for _ in range(2):
        x, picture = _features()
        answer = layers.Dense(10, activation="softmax")(x)
        members.append(keras.Model(picture, answer))
    picture = keras.Input((_SIDE, _SIDE, 3))
    return keras.Model(picture, layers.Average()([member(picture) for member in members]))


def _features() -> tuple[Any, Any]:
    """Return 32 features and the picture they are of."""
    import keras

    layers = keras.layers
    x = picture = keras.Input((_SIDE, _SIDE, 3))
    for filters in (12, 24, 32):
        x = layers.Conv2D(filters, 3, 2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return layers.GlobalAveragePooling2D()(x), picture


ARCHITECTURES = (
    Architecture("CNN regression head", regression, note="48x48, four numbers"),
    Architecture("Multi-output", multi_output, note="48x48: a class, a number, a map"),
    Architecture("Two-model ensemble", ensemble, note="48x48, the mean of two classifiers"),
)
