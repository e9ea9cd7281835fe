"""Random weights under which every layer matters, as after training; nothing is trained.

One forward pass over real inputs gives each convolution and dense layer outputs of mean 0 and
deviation 1 a channel (data-dependent initialization: Krähenbühl et al. 2016, arXiv:1511.06856),
and each BatchNormalization the statistics of what it then sees. As Keras draws them, activations of
deep networks vanish; fitted without measure, they become chaotic: what rounding changes in the
first layer decides the answer. What training brings about keeps them from that: no channel is
amplified by much, most of a channel passes its ReLU, and what is added to a residual is the
smaller part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST_SIZE = 1e-3
_MOST_GAIN = 2.0
"""How much what differs in a channel may grow against its mean."""


def give_statistics(model: Any, batch: Any) -> Any:
    """Draw and fit all weights of a Keras model; return it.

    Args:
        model: with weights as Keras draws them.
        batch: real inputs, which it computes once.
    """
    import keras

    rng = np.random.default_rng(0)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            _draw_normalization(layer, rng)
            _before_first_call(layer, _fit_normalization)
        elif _has_kernel(layer):
            _before_first_call(layer, _fit_kernel)
    model(batch, training=False)
    return model


def _draw_normalization(layer: Any, rng: np.random.Generator) -> None:
    low, high = (0.2, 0.6) if _feeds_sum(layer) else (0.5, 1.5)
    if layer.gamma is not None:
        layer.gamma.assign(rng.uniform(low, high, layer.gamma.shape))
    if layer.beta is not None:
        layer.beta.assign(rng.normal(1.0, 0.3, layer.beta.shape))


def _feeds_sum(layer: Any) -> bool:
    """Whether a layer is the end of a residual branch, through dropout too."""
    import keras

    readers = [node.operation for node in layer._outbound_nodes]
    return any(
        isinstance(reader, keras.layers.Add)
        or (isinstance(reader, keras.layers.Dropout) and _feeds_sum(reader))
        for reader in readers
    )


def _has_kernel(layer: Any) -> bool:
    """Whether a layer is a convolution or a dense one."""
    import keras

    layers = keras.layers
    plain = (layers.Conv1D, layers.Conv2D, layers.Conv2DTranspose, layers.Dense)
    by_channel = (layers.DepthwiseConv2D, layers.SeparableConv1D, layers.SeparableConv2D)
    return isinstance(layer, (*plain, *by_channel))


def _before_first_call(layer: Any, fit: Callable[[Any, Any], None]) -> None:
    """Have `fit` see a layer and its input before the layer computes for the first time."""
    import tensorflow as tf

    compute = layer.call

    def call(x: Any, **settings: Any) -> Any:
        layer.call = compute
        if tf.executing_eagerly():  # not inside TimeDistributed, where there are no numbers yet
            fit(layer, x)
        return compute(x, **settings)

    layer.call = call


def _fit_normalization(layer: Any, x: Any) -> None:
    mean, size = _statistics(np.asarray(x))
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(size**2)


def _fit_kernel(layer: Any, x: Any) -> None:
    import keras

    activation, layer.activation = layer.activation, keras.activations.linear
    plain = np.asarray(layer.call(x))
    layer.activation = activation
    mean, size = _statistics(plain)
    if plain.size == len(plain) * plain.shape[-1] and _leads_to_kernel(layer):
        # What has no place, as in a gate, differs little between samples: it is not amplified.
        mean, size = np.zeros_like(mean), _root_mean_square(plain)
    kernel = next(
        getattr(layer, name)
        for name in ("pointwise_kernel", "depthwise_kernel", "kernel")
        if getattr(layer, name, None) is not None
    )
    kernel.assign(kernel / _along_outputs(layer, kernel.shape, size))
    if layer.bias is not None:
        layer.bias.assign(-mean / size)


def _leads_to_kernel(layer: Any) -> bool:
    readers = [node.operation for node in layer._outbound_nodes]
    return any(_has_kernel(reader) or _leads_to_kernel(reader) for reader in readers)


def _statistics(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean and size of each channel, the last axis; the size is at least the deviation."""
    places = values.reshape(-1, values.shape[-1])
    least = _root_mean_square(values) / _MOST_GAIN
    return places.mean(axis=0), np.maximum(places.std(axis=0), least)


def _root_mean_square(values: NDArray[Any]) -> NDArray[Any]:
    places = values.reshape(-1, values.shape[-1])
    return np.maximum(np.sqrt((places**2).mean(axis=0)), _LEAST_SIZE)


def _along_outputs(layer: Any, kernel: tuple[int, ...], size: NDArray[Any]) -> NDArray[Any]:
    """Return a number for each output channel in a shape that divides the kernel."""
    import keras

    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return size.reshape(kernel[-2:])
    return size[:, None] if isinstance(layer, keras.layers.Conv2DTranspose) else size
