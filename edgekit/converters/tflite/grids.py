"""Integer grids: real value = (integer - zero point) * scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.ranges import Range, Scheme, int8_grid

Array = NDArray[Any]
IntegerType = Literal["int8", "int16"]
_LARGEST = {"int8": 127, "int16": 32767}
# XNNPACK refuses a layer if input scale * weight scale / output scale is below 2^-32.
_LEAST_RATIO = 2.0**-30
# It also refuses one if that is 2^8 or above.
_LARGEST_RATIO = 2.0**7
_LARGEST_BIAS = 2.0**30
# Products and quotients of scales must be float32 too; no model has a finer step on purpose.
_LEAST_SCALE = 1e-12


@dataclass(frozen=True)
class Grid:
    """One scale and zero point for a whole tensor."""

    dtype: IntegerType
    scale: float
    zero_point: int

    def no_finer_than(self, product: float) -> Grid:
        """Return a grid that kernels can bring a layer's sum to, as all but absurd ones are.

        Args:
            product: scale of the layer's input times its largest weight.
        """
        least = product / _LARGEST["int8"] / _LARGEST_RATIO
        return self if self.scale >= least else replace(self, scale=float(np.float32(least)))

    def quantize(self, values: Array) -> Array:
        """Return real values as integers, rounded and saturated."""
        limits = np.iinfo(self.dtype)
        whole = np.rint(np.asarray(values, np.float64) / self.scale) + self.zero_point
        return np.asarray(np.clip(whole, limits.min, limits.max), self.dtype)


def grid_of(found: Range, dtype: IntegerType, scheme: Scheme = "litert") -> Grid:
    """Return the grid over a range, which is widened to hold zero.

    Args:
        found: smallest and largest real value.
        dtype: ``int8`` (asymmetric) or ``int16`` (symmetric).
        scheme: ``tensorrt``: int8 is symmetric too.
    """
    low, high = min(0.0, found.min), max(0.0, found.max)
    if low == high:
        return Grid(dtype, 1.0, 0)
    if dtype == "int16" or scheme == "tensorrt":
        return Grid(dtype, _scale(max(-low, high) / _LARGEST[dtype]), 0)
    scale, zero = int8_grid(found)
    return Grid(dtype, _scale(scale), zero - 128)


def _scale(step: float) -> float:
    return float(np.float32(max(step, _LEAST_SCALE)))


def quantized_weights(
    weights: Array, axis: int, bias: Array | None, into: float, out: float
) -> tuple[Array, Array]:
    """Return weights as int8 with a scale a channel, and the scales (float32).

    Args:
        weights: of any shape.
        axis: their channels.
        bias: one a channel, which must fit into int32 in steps of input times weights.
        into: scale of the layer's input.
        out: scale of its output.
    """
    others = tuple(index for index in range(weights.ndim) if index != axis)
    scales = np.abs(weights).max(axis=others).astype(np.float64) / _LARGEST["int8"]
    scales = np.maximum(scales, _LEAST_RATIO * out / into)
    if bias is not None:
        scales = np.maximum(scales, np.abs(bias.astype(np.float64)) / (into * _LARGEST_BIAS))
    scales = scales.astype(np.float32)
    shape = [1] * weights.ndim
    shape[axis] = -1
    whole = np.rint(weights / scales.reshape(shape))
    return np.clip(whole, -127, 127).astype(np.int8), scales


def quantized_bias(bias: Array, scales: Array, dtype: IntegerType) -> Array:
    """Return a bias in steps of `scales`: int32, beside int16 activations int64."""
    limits = np.iinfo(np.int32)
    whole = np.clip(np.rint(bias / scales.astype(np.float64)), limits.min, limits.max)
    return whole.astype(np.int32 if dtype == "int8" else np.int64)
