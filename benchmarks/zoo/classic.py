"""The classic convolutional classifiers."""

from __future__ import annotations

from typing import Any

from benchmarks.zoo import Architecture
from benchmarks.zoo._layers import local_response_normalization


def lenet_5() -> Any:
    """LeCun et al. 1998: average pooling and tanh."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            layers.Conv2D(6, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(120, 5, activation="tanh"),
            layers.Flatten(),
            layers.Dense(84, activation="tanh"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def alexnet() -> Any:
    """Krizhevsky et al. 2012: local response normalization, overlapping pooling, two groups."""
    import keras

    layers = keras.layers
    normalization = local_response_normalization()
    x = picture = keras.Input((96, 96, 3))
    x = normalization(layers.Conv2D(96, 11, 4, activation="relu")(x))
    x = layers.MaxPooling2D(3, 2)(x)
    x = normalization(layers.Conv2D(256, 5, padding="same", groups=2, activation="relu")(x))
    x = layers.MaxPooling2D(3, 2)(x)
    x = layers.Conv2D(384, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(384, 3, padding="same", groups=2, activation="relu")(x)
    x = layers.Conv2D(256, 3, padding="same", groups=2, activation="relu")(x)
    x = layers.Flatten()(layers.MaxPooling2D(3, 2)(x))
    for _ in range(2):
        x = layers.Dropout(0.5)(layers.Dense(512, activation="relu")(x))
    return keras.Model(picture, layers.Dense(10, activation="softmax")(x))


def vgg_16() -> Any:
    import keras

    layers = keras.layers
    body = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    x = layers.Flatten()(body.output)
    for _ in range(2):
        x = layers.Dense(512, activation="relu")(x)
    return keras.Model(body.input, layers.Dense(10, activation="softmax")(x))


def inception_v3() -> Any:
    return _application("InceptionV3", 75)


def xception() -> Any:
    return _application("Xception", 71)


def resnet_50() -> Any:
    return _application("ResNet50", 32)


def densenet_121() -> Any:
    return _application("DenseNet121", 32)


def _application(name: str, side: int) -> Any:
    import keras

    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(side, side, 3), classes=10)


ARCHITECTURES = (
    Architecture("LeNet-5", lenet_5, note="32x32x1"),
    Architecture(
        "AlexNet", alexnet, rounds=False, note="96x96, its dense layers have 512 units, not 4,096"
    ),
    Architecture(
        "VGG-16", vgg_16, rounds=False, note="32x32, its dense layers have 512 units, not 4,096"
    ),
    Architecture("Inception-v3", inception_v3, rounds=False, note="75x75"),
    Architecture("Xception", xception, rounds=False, note="71x71"),
    Architecture("ResNet-50", resnet_50, rounds=False, note="32x32"),
    Architecture("DenseNet-121", densenet_121, rounds=False, note="32x32"),
)
