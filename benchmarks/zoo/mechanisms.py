"""Mechanisms, each in a small residual or plain network."""

from __future__ import annotations

from typing import Any

from benchmarks.zoo import Architecture

_SIDE = 48


def spatial_pyramid_pooling() -> Any:
    """He et al. 2014: maxima over grids of 1x1, 2x2 and 4x4 cells, side by side."""
    import keras

    layers = keras.layers
    x = picture = keras.Input((_SIDE, _SIDE, 3))
    for filters in (16, 32):
        x = _convolved(x, filters)
        x = layers.MaxPooling2D()(x)
    side = x.shape[1]
    cells = [layers.Flatten()(layers.MaxPooling2D(side // grid)(x)) for grid in (2, 4)]
    x = layers.Concatenate()([layers.GlobalMaxPooling2D()(x), *cells])
    return _classifier(picture, x)


def squeeze_and_excitation() -> Any:
    """Hu et al. 2018: channels are weighted by what the whole picture says of them."""
    import keras

    layers = keras.layers
    picture = keras.Input((_SIDE, _SIDE, 3))
    x = _convolved(picture, 16, stride=2)
    for filters in (16, 32):
        x = _convolved(x, filters, stride=2)
        y = _convolved(x, filters)
        weights = layers.GlobalAveragePooling2D(keepdims=True)(y)
        weights = layers.Dense(filters // 4, activation="relu")(weights)
        weights = layers.Dense(filters, activation="sigmoid")(weights)
        x = layers.ReLU()(layers.Add()([x, layers.Multiply()([y, weights])]))
    return _classifier(picture, layers.GlobalAveragePooling2D()(x))


def cbam() -> Any:
    """Woo et al. 2018: attention over channels, by one shared perceptron, then over places."""
    import keras

    layers, ops = keras.layers, keras.ops
    picture = keras.Input((_SIDE, _SIDE, 3))
    x = _convolved(picture, 16, stride=2)
    for filters in (16, 32):
        x = _convolved(x, filters, stride=2)
        first = layers.Dense(filters // 4, activation="relu")
        second = layers.Dense(filters)
        pooled = (layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x))
        channels = layers.Add()([second(first(one)) for one in pooled])
        channels = layers.Reshape((1, 1, filters))(layers.Activation("sigmoid")(channels))
        x = layers.Multiply()([x, channels])
        mean, most = ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)
        places = layers.Concatenate()([mean, most])
        places = layers.Conv2D(1, 7, padding="same", activation="sigmoid")(places)
        x = layers.Multiply()([x, places])
    return _classifier(picture, layers.GlobalAveragePooling2D()(x))


def dilated() -> Any:
    """Yu and Koltun 2016: convolutions with holes of 1, 2, 4 and 8 pixels."""
    import keras

    layers = keras.layers
    x = picture = keras.Input((_SIDE, _SIDE, 3))
    for rate in (1, 2, 4, 8):
        x = layers.Conv2D(16, 3, padding="same", dilation_rate=rate, activation="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2, activation="relu")(x)
    return keras.Model(picture, layers.Conv2D(4, 1, activation="softmax")(x))


def grouped() -> Any:
    """Xie et al. 2017: residual blocks whose middle convolution has 8 groups."""
    import keras

    layers = keras.layers
    picture = keras.Input((_SIDE, _SIDE, 3))
    x = _convolved(picture, 32, stride=2)
    for stride in (1, 2):
        y = _convolved(_convolved(x, 32, size=1), 32, stride=stride, groups=8)
        y = layers.BatchNormalization()(layers.Conv2D(64, 1, use_bias=False)(y))
        x = layers.BatchNormalization()(layers.Conv2D(64, 1, stride, use_bias=False)(x))
        x = layers.ReLU()(layers.Add()([x, y]))
    return _classifier(picture, layers.GlobalAveragePooling2D()(x))


def _convolved(x: Any, filters: int, *, size: int = 3, stride: int = 1, groups: int = 1) -> Any:
    from keras import layers

    x = layers.Conv2D(filters, size, stride, padding="same", groups=groups, use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def _classifier(picture: Any, features: Any) -> Any:
    import keras

    return keras.Model(picture, keras.layers.Dense(10, activation="softmax")(features))


ARCHITECTURES = (
    Architecture("Spatial pyramid pooling", spatial_pyramid_pooling, note="48x48, 21 cells"),
    Architecture("Squeeze-and-excitation", squeeze_and_excitation, note="48x48, two blocks"),
    Architecture("CBAM attention", cbam, note="48x48, two blocks"),
    Architecture("Dilated convolutions", dilated, note="48x48, rates 1, 2, 4, 8"),
    Architecture("Grouped convolutions", grouped, note="48x48, ResNeXt blocks of 8 groups"),
)
