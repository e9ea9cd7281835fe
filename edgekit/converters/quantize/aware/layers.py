"""The layers that a quantize-aware model has beside Keras' own.

Importing this module registers them, so that `keras.saving.load_model` finds them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.converters.quantize.aware.placement import LEAST_WIDTH, range_on
from edgekit.converters.quantize.linear import is_depthwise, kind_of, output_axes
from edgekit.converters.quantize.ranges import NEGLIGIBLE, STEPS, Range, Scheme
from edgekit.errors import require

keras: Any = require("keras", "convert")
_registered = keras.saving.register_keras_serializable(package="edgekit")

_MOMENTUM = 0.99


@_registered
class FakeQuantize(keras.layers.Layer):  # type: ignore[misc]
    """Rounds a tensor to the int8 grid of its range, and learns that range in training.

    The range follows the smallest and largest value of each batch as a moving average; with
    `trainable` False it stays. Zero is always on the grid. Gradients pass straight through where
    nothing is clipped.

    Args:
        scheme: ``litert`` (any zero point) or ``tensorrt`` (zero point 0).
        fixed: smallest and largest value if they are known beforehand; else they are learned.
        widest: never clip: the range grows at once, and only shrinks slowly.
    """

    def __init__(
        self,
        scheme: Scheme = "litert",
        fixed: tuple[float, float] | None = None,
        widest: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scheme = scheme
        self.fixed = None if fixed is None else tuple(fixed)
        self.widest = widest
        self.supports_jit = False  # XLA makes training on a CPU several times slower

    def build(self, input_shape: Any) -> None:
        """Make the range's two weights."""
        self.lowest, self.highest = (
            self.add_weight(shape=(), initializer="zeros", trainable=False, name=name)
            for name in ("lowest", "highest")
        )
        if self.fixed is not None:
            self.lowest.assign(self.fixed[0])
            self.highest.assign(self.fixed[1])
        self.built = True

    def call(self, inputs: Any, training: bool | None = None, follows: bool = True) -> Any:
        """Return `inputs` on the grid; with `follows` False the range does not learn from them."""
        if training and follows and self.trainable and self.fixed is None:
            self._follow(inputs)
        lowest, highest = self._ends()
        return keras.quantizers.fake_quant_with_min_max_vars(inputs, lowest, highest)

    def range(self) -> Range:
        """Return the range for the table; a symmetric one has ends of the same size."""
        return range_on(
            self.scheme, float(np.asarray(self.lowest)), float(np.asarray(self.highest))
        )

    def _follow(self, inputs: Any) -> None:
        ops = keras.ops
        lowest, highest = ops.min(inputs), ops.max(inputs)
        slow = self.lowest + (lowest - self.lowest) * (1 - _MOMENTUM)
        self.lowest.assign(ops.minimum(lowest, slow) if self.widest else slow)
        slow = self.highest + (highest - self.highest) * (1 - _MOMENTUM)
        self.highest.assign(ops.maximum(highest, slow) if self.widest else slow)

    def _ends(self) -> tuple[Any, Any]:
        """Return the ends of the 256 steps, zero among them, as `int8_grid` places them."""
        ops = keras.ops
        lowest = ops.minimum(self.lowest, 0.0)
        highest = ops.maximum(self.highest, 0.0)
        if self.scheme == "tensorrt":
            step = ops.maximum(ops.maximum(-lowest, highest), LEAST_WIDTH) / 127
            return -128 * step, 127 * step
        highest = ops.maximum(highest, lowest + LEAST_WIDTH)
        exact = -lowest * STEPS / (highest - lowest)
        up, down = ops.ceil(exact - NEGLIGIBLE), ops.floor(exact + NEGLIGIBLE)
        zero = ops.where(exact <= STEPS / 2, up, down)
        below = -lowest / ops.maximum(zero, 1.0)
        above = highest / ops.maximum(STEPS - zero, 1.0)
        step = ops.maximum(ops.where(zero > 0, below, 0.0), ops.where(zero < STEPS, above, 0.0))
        return -zero * step, (STEPS - zero) * step

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        own = {"scheme": self.scheme, "fixed": self.fixed, "widest": self.widest}
        return {**super().get_config(), **own}

    def compute_output_shape(self, input_shape: Any, **kwargs: Any) -> Any:
        """Return the shape of the input."""
        return input_shape


@_registered
class QuantizedWeights(keras.layers.Wrapper):  # type: ignore[misc]
    """A convolution or dense layer that computes with int8 weights, one scale an output channel.

    The scale is max |w| / 127 of the weights as they are in this step, so none is clipped, and
    gradients reach the float weights unchanged. As a factor on a channel changes its scale and
    nothing else, a BatchNormalization behind may be folded later: it would find the same integers.

    Args:
        layer: one of `linear.KINDS`, without activation.
    """

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.supports_jit = False

    def call(self, inputs: Any) -> Any:
        """Return what the layer answers with rounded weights."""
        layer, ops = self.layer, keras.ops
        kernel = round_weights(layer.kernel, output_axes(layer))
        outputs = _linear(layer, inputs, kernel)
        return ops.add(outputs, layer.bias) if layer.use_bias else outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the layer's output shape."""
        return self.layer.compute_output_shape(input_shape)


@_registered
class FreezingBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """BatchNormalization that keeps its statistics after a number of training steps.

    Args:
        freeze_after: calls in training that use and update the statistics of the batch; None: all.
    """

    def __init__(self, freeze_after: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.freeze_after = freeze_after

    def build(self, input_shape: Any) -> None:
        """Make the weights and the step counter, which comes last."""
        super().build(input_shape)
        self.steps = self.add_weight(
            shape=(), initializer="zeros", dtype="int32", trainable=False, name="steps"
        )

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize by the batch until the statistics are frozen, then by the moving ones."""
        batch_norm = super().call
        if not training or self.freeze_after is None:
            return batch_norm(inputs, training=training, mask=mask)
        self.steps.assign_add(1)
        return keras.ops.cond(
            self.steps <= self.freeze_after,
            lambda: batch_norm(inputs, training=True, mask=mask),
            lambda: batch_norm(inputs, training=False, mask=mask),
        )

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        return {**super().get_config(), "freeze_after": self.freeze_after}


def round_weights(weights: Any, axes: tuple[int, ...]) -> Any:
    """Return weights on the grid of [-127, 127] steps; gradients pass straight through.

    Args:
        weights: of any shape.
        axes: those over which weights share a scale.
    """
    ops = keras.ops
    weights = ops.convert_to_tensor(weights)
    largest = ops.max(ops.abs(weights), axis=axes, keepdims=True)
    step = ops.where(largest > 0, largest, 1.0) / 127
    return weights + ops.stop_gradient(ops.round(weights / step) * step - weights)


def _linear(layer: Any, inputs: Any, kernel: Any) -> Any:
    """Return what a layer of `linear.KINDS` answers with this kernel, without bias."""
    kind, ops = str(kind_of(layer)), keras.ops
    if kind == "Dense":
        return ops.matmul(inputs, kernel)
    padding = layer.padding
    if padding == "causal":
        before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        inputs, padding = ops.pad(inputs, [[0, 0], [before, 0], [0, 0]]), "valid"
    settings = {
        "strides": tuple(layer.strides),
        "padding": padding,
        "data_format": "channels_last",
        "dilation_rate": layer.dilation_rate,
    }
    if "Transpose" in kind:
        settings["output_padding"] = layer.output_padding
        return ops.conv_transpose(inputs, kernel, **settings)
    return (ops.depthwise_conv if is_depthwise(layer) else ops.conv)(inputs, kernel, **settings)
