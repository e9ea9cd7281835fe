"""Layers that Keras has not, as users write them."""

from __future__ import annotations

from typing import Any


def local_response_normalization() -> Any:
    """Return AlexNet's normalization over 5 channels (k 2, alpha 1e-4, beta 0.75) as a function.

    Drawn weights give activations near 1, AlexNet's were near 100: alpha is larger accordingly.
    """
    import keras
    import tensorflow as tf

    class LocalResponseNormalization(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.nn.local_response_normalization(x, 2, bias=2.0, alpha=0.1, beta=0.75)

        def compute_output_shape(self, input_shape: Any) -> Any:
            return input_shape

    return lambda x: LocalResponseNormalization()(x)
