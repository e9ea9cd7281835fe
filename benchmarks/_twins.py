"""Networks that Keras 3 and Keras 2 build alike, so that both can train from the same weights.

Each function takes the library, `keras` or `tf_keras`, and returns a model of it; weights are in
the same order in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Library = Any
BATCH = 64
"""Pictures a training step."""
_NARROW = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1))


def mobilenet(keras: Library) -> Any:
    """After Howard et al., "MobileNets", 2017, width 0.25: 32x32 pictures -1..1, 10 logits."""
    layers = keras.layers

    def block(layer: Any, tensor: Any) -> Any:
        return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(layer(tensor)))

    image = keras.Input((32, 32, 3))
    tensor = block(layers.Conv2D(8, 3, padding="same", use_bias=False), image)
    for channels, strides in _NARROW:
        depthwise = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)
        tensor = block(depthwise, tensor)
        tensor = block(layers.Conv2D(channels, 1, use_bias=False), tensor)
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(tensor)))


def resnet(keras: Library) -> Any:
    """After He et al., "Deep Residual Learning", 2016: 32x32 pictures -1..1, 10 logits."""
    layers = keras.layers

    def convolved(channels: int, size: int, strides: int, tensor: Any) -> Any:
        layer = layers.Conv2D(channels, size, strides, padding="same", use_bias=False)
        return layers.BatchNormalization(momentum=0.9)(layer(tensor))

    image = keras.Input((32, 32, 3))
    tensor = layers.ReLU()(convolved(16, 3, 2, image))
    for channels, strides in ((16, 1), (32, 2), (64, 2)):
        inner = layers.ReLU()(convolved(channels, 3, strides, tensor))
        inner = convolved(channels, 3, 1, inner)
        if strides > 1:
            tensor = convolved(channels, 1, strides, tensor)
        tensor = layers.ReLU()(layers.Add()([tensor, inner]))
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(tensor)))


def unet(
    keras: Library,
    shape: tuple[int, int, int] = (64, 64, 1),
    widths: Sequence[int] = (8, 16, 32),
) -> Any:
    """After Ronneberger et al., "U-Net", 2015: pictures -1..1, one logit a pixel."""
    layers = keras.layers

    def block(channels: int, tensor: Any) -> Any:
        layer = layers.Conv2D(channels, 3, padding="same", use_bias=False)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(layer(tensor)))

    image = keras.Input(shape)
    tensor, kept = image, []
    for channels in widths[:-1]:
        kept.append(block(channels, tensor))
        tensor = layers.MaxPooling2D()(kept[-1])
    tensor = block(widths[-1], tensor)
    for channels in widths[-2::-1]:
        larger = layers.Conv2DTranspose(channels, 2, strides=2)(tensor)
        tensor = block(channels, layers.Concatenate()([kept.pop(), larger]))
    return keras.Model(image, layers.Conv2D(1, 1)(tensor))


NETWORKS = {"MobileNet": mobilenet, "ResNet": resnet, "U-Net": unet}


def _one(shape: tuple[int, ...], make: Callable[[Any], Any]) -> Callable[[Library], Any]:
    """Return what makes a model of a convolution and then the layer of `make(layers)`."""

    def model(keras: Library) -> Any:
        layers = keras.layers
        given = keras.Input(shape)
        tensor = given if len(shape) < 3 else layers.Conv2D(4, 3, padding="same")(given)
        return keras.Model(given, make(layers)(tensor))

    return model


def _map(make: Callable[[Any], Any]) -> Callable[[Library], Any]:
    return _one((8, 8, 3), make)


def _row(make: Callable[[Any], Any]) -> Callable[[Library], Any]:
    return _one((8, 4), make)


def _merge(name: str) -> Callable[[Library], Any]:
    def model(keras: Library) -> Any:
        layers = keras.layers
        given = keras.Input((8, 8, 3))
        both = [layers.Conv2D(4, 3, padding="same")(given) for _ in range(2)]
        return keras.Model(given, getattr(layers, name)()(both))

    return model


def _batch_norm_alone(keras: Library) -> Any:
    layers = keras.layers
    given = keras.Input((8, 8, 3))
    tensor = layers.MaxPooling2D()(layers.ReLU()(layers.Conv2D(4, 3)(given)))
    return keras.Model(given, layers.Conv2D(4, 1)(layers.BatchNormalization()(tensor)))


def _hard_swish(keras: Library) -> Any:
    layers = keras.layers
    if hasattr(keras.activations, "hard_silu"):
        return _map(lambda layers: layers.Activation("hard_silu"))(keras)
    given = keras.Input((8, 8, 3))  # as in MobileNetV3 of Keras 2
    tensor = layers.Conv2D(4, 3, padding="same")(given)
    gate = layers.ReLU(6.0)(tensor + 3.0) * (1.0 / 6.0)
    return keras.Model(given, layers.Multiply()([gate, tensor]))


LAYERS: dict[str, Callable[[Library], Any]] = {
    "Conv1D": _row(lambda layers: layers.Conv1D(4, 3)),
    "Conv2D": _map(lambda layers: layers.Conv2D(4, 3)),
    "DepthwiseConv2D": _map(lambda layers: layers.DepthwiseConv2D(3)),
    "SeparableConv2D": _map(lambda layers: layers.SeparableConv2D(4, 3)),
    "Conv2DTranspose": _map(lambda layers: layers.Conv2DTranspose(4, 2, strides=2)),
    "Dense": _one((6,), lambda layers: layers.Dense(4)),
    "BatchNormalization after a convolution": _map(lambda layers: layers.BatchNormalization()),
    "BatchNormalization alone": _batch_norm_alone,
    **{name: _merge(name) for name in ("Add", "Multiply", "Average", "Concatenate")},
    "MaxPooling1D": _row(lambda layers: layers.MaxPooling1D(2)),
    "AveragePooling1D": _row(lambda layers: layers.AveragePooling1D(2)),
    "GlobalMaxPooling1D": _row(lambda layers: layers.GlobalMaxPooling1D()),
    "GlobalAveragePooling1D": _row(lambda layers: layers.GlobalAveragePooling1D()),
    "MaxPooling2D": _map(lambda layers: layers.MaxPooling2D()),
    "AveragePooling2D": _map(lambda layers: layers.AveragePooling2D(2)),
    "GlobalMaxPooling2D": _map(lambda layers: layers.GlobalMaxPooling2D()),
    "GlobalAveragePooling2D": _map(lambda layers: layers.GlobalAveragePooling2D()),
    "UpSampling2D": _map(lambda layers: layers.UpSampling2D()),
    "ZeroPadding2D": _map(lambda layers: layers.ZeroPadding2D()),
    "Cropping2D": _map(lambda layers: layers.Cropping2D()),
    "Reshape": _map(lambda layers: layers.Reshape((16, 16))),
    "Flatten": _map(lambda layers: layers.Flatten()),
    "Permute": _map(lambda layers: layers.Permute((2, 1, 3))),
    "Dropout": _map(lambda layers: layers.Dropout(0.2)),
    "ReLU": _map(lambda layers: layers.ReLU()),
    "ReLU6": _map(lambda layers: layers.ReLU(6.0)),
    "LeakyReLU": _map(lambda layers: layers.LeakyReLU()),
    "PReLU": _map(lambda layers: layers.PReLU(shared_axes=[1, 2])),
    "hard-swish": _hard_swish,
    "SiLU": _map(lambda layers: layers.Activation("swish")),
    "sigmoid": _map(lambda layers: layers.Activation("sigmoid")),
    "tanh": _map(lambda layers: layers.Activation("tanh")),
    "softmax": _map(lambda layers: layers.Activation("softmax")),
    "Rescaling": _one((8, 8, 3), lambda layers: layers.Rescaling(1 / 127.5, -1)),
    "Normalization": _one((8, 8, 3), lambda layers: layers.Normalization(mean=0.2, variance=0.5)),
}
"""One model a layer type: what `quantize_aware` takes."""
