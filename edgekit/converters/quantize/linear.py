"""What convolutions and dense layers have in common: channels, and columns of weights.

Columns are the weights as [groups, values that go into one output, outputs a group]: a convolution
is a matrix product of its input's patches with them, a depthwise one has a group a channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.graph import Step
from edgekit.errors import require

Array = NDArray[Any]
_CONVOLUTIONS = ("Conv1D", "Conv2D")
_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose")
KINDS = (*_CONVOLUTIONS, *_DEPTHWISE, *_TRANSPOSED, "Dense")


def kind_of(layer: Any) -> str | None:
    """Return the layer's class name if it is one of `KINDS` itself, no subclass; else None."""
    name = type(layer).__name__
    known = name in KINDS and type(layer) is getattr(require("keras", "convert").layers, name)
    return name if known else None


def is_linear(step: Step) -> bool:
    """Whether a step is a plain call of a layer of `KINDS` on one tensor."""
    return kind_of(step.layer) is not None and len(step.args) == 1 and not step.kwargs


def is_depthwise(layer: Any) -> bool:
    """Whether each output channel sees one input channel only."""
    return kind_of(layer) in _DEPTHWISE


def weights_of(layer: Any) -> tuple[Array, Array]:
    """Return kernel and bias (zeros without one), float32."""
    kernel = np.asarray(layer.kernel)
    bias = np.asarray(layer.bias) if layer.use_bias else np.zeros(out_channels(layer), np.float32)
    return kernel, bias


def set_weights(layer: Any, kernel: Array, bias: Array) -> None:
    """Set kernel and bias; the layer must have one."""
    layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])


def out_channels(layer: Any) -> int:
    """Return the size of the output's last axis."""
    shape, kind = layer.kernel.shape, kind_of(layer)
    if kind in _DEPTHWISE:
        return int(shape[-1] * shape[-2])
    return int(shape[-2] if kind in _TRANSPOSED else shape[-1])


def per_output(layer: Any, factors: Array) -> Array:
    """Return a factor for each output channel in a shape that multiplies the kernel."""
    kind = kind_of(layer)
    if kind in _DEPTHWISE:
        return factors.reshape(layer.kernel.shape[-2:])
    return factors[:, None] if kind in _TRANSPOSED else factors


def per_input(layer: Any, factors: Array) -> Array:
    """Return a factor for each input channel in a shape that multiplies the kernel."""
    kernel, kind = layer.kernel, kind_of(layer)
    if kind in _TRANSPOSED:
        return factors
    groups = getattr(layer, "groups", 1)
    if kind in _DEPTHWISE or groups == 1:
        return factors[:, None]
    by_group = factors.reshape(groups, kernel.shape[-2]).T
    return np.repeat(by_group, kernel.shape[-1] // groups, axis=1)


def output_axes(layer: Any) -> tuple[int, ...]:
    """Return the kernel's axes over which the weights of one output channel lie."""
    rank, kind = len(layer.kernel.shape), kind_of(layer)
    if kind in _DEPTHWISE:
        return tuple(range(rank - 2))
    return (*range(rank - 2), rank - 1 if kind in _TRANSPOSED else rank - 2)


def output_range(layer: Any, kernel: Array) -> Array:
    """Return the largest |weight| of each output channel."""
    return np.asarray(np.abs(kernel).max(axis=output_axes(layer)).reshape(-1))


def litert_kernel(layer: Any, kernel: Array) -> Array:
    """Return a kernel in the order of a `.tflite`: outputs first, but for depthwise ones."""
    kind = kind_of(layer)
    if kind in _DEPTHWISE:
        return kernel.reshape(1, *kernel.shape[:-2], -1)
    axis = -2 if kind in _TRANSPOSED else -1
    return np.moveaxis(kernel, axis, 0)


def to_columns(layer: Any, kernel: Array) -> Array:
    """Return an array of the kernel's shape as columns [groups, inputs, outputs]."""
    kind = kind_of(layer)
    taps = int(np.prod(kernel.shape[:-2], dtype=int))
    one, two = kernel.shape[-2:]
    if kind in _DEPTHWISE:
        return kernel.reshape(taps, one, two).transpose(1, 0, 2)
    if kind in _TRANSPOSED:  # each tap is a matrix product of its own with the same inputs
        return kernel.reshape(taps * one, two).T[None]
    groups = getattr(layer, "groups", 1)
    return kernel.reshape(taps * one, groups, two // groups).transpose(1, 0, 2)


def from_columns(layer: Any, columns: Array) -> Array:
    """Return columns in the kernel's shape; undoes `to_columns`."""
    shape, kind = tuple(layer.kernel.shape), kind_of(layer)
    if kind in _TRANSPOSED:
        return np.asarray(columns[0].T.reshape(shape))
    return np.asarray(columns.transpose(1, 0, 2).reshape(shape))


def patches(layer: Any, values: Array, most: int, random: np.random.Generator) -> Array:
    """Return at most `most` rows of what the columns are multiplied with.

    Args:
        layer: built.
        values: a batch of its input.
        most: rows; they are drawn from as few samples as give so many.
        random: draws them.

    Returns:
        [groups, rows, inputs].
    """
    kind = kind_of(layer)
    if kind == "Dense" or kind in _TRANSPOSED:
        rows = values.reshape(-1, values.shape[-1])[None]
        return _drawn(rows, most, random)
    size, strides, rates, padding = _geometry(layer)
    if values.ndim == 3:
        if padding == "CAUSAL":
            values = np.pad(values, ((0, 0), (rates[1] * (size[1] - 1), 0), (0, 0)))
            padding = "VALID"
        values = values[:, None]
    tf: Any = require("tensorflow", "convert")
    places = max(1, values[0, ..., 0].size // (strides[0] * strides[1]))
    values = values[: -(-most // places)]
    found = tf.image.extract_patches(
        values, (1, *size, 1), (1, *strides, 1), (1, *rates, 1), padding
    )
    channels = values.shape[-1]
    rows = np.asarray(found).reshape(-1, size[0] * size[1], channels)
    rows = _drawn(rows[None], most, random)[0]
    groups = channels if kind in _DEPTHWISE else getattr(layer, "groups", 1)
    split = rows.reshape(len(rows), size[0] * size[1], groups, channels // groups)
    return np.asarray(split.transpose(2, 0, 1, 3).reshape(groups, len(rows), -1))


def _geometry(layer: Any) -> tuple[list[int], list[int], list[int], str]:
    """Return kernel size, strides and dilation as of two dimensions, and the padding."""

    def of_two(value: Any) -> list[int]:
        values = list(np.atleast_1d(value))
        if len(values) == 1:
            values = [1, *values]
        return [int(v) for v in values]

    return (
        of_two(layer.kernel_size),
        of_two(layer.strides),
        of_two(layer.dilation_rate),
        layer.padding.upper(),
    )


def _drawn(rows: Array, most: int, random: np.random.Generator) -> Array:
    if rows.shape[1] <= most:
        return rows
    return rows[:, random.choice(rows.shape[1], most, replace=False)]
