"""What one layer of a quantized model loses against the same layer in float."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.parity import MOST_SNR_DB, snr_db
from edgekit.runtime.tflite import TensorDetail


class Grid(NamedTuple):
    """The real values that one quantized tensor can hold: (q - zero_point) * scale."""

    scale: float
    zero_point: int
    least: int
    most: int

    @classmethod
    def of(cls, tensor: TensorDetail) -> Grid | None:
        """Return the grid of an activation, or None where it has none."""
        if len(tensor.scales) != 1 or tensor.scales[0] <= 0 or tensor.dtype not in _INTEGERS:
            return None
        limits = np.iinfo(tensor.dtype)
        return cls(tensor.scales[0], tensor.zero_points[0], int(limits.min), int(limits.max))

    @property
    def low(self) -> float:
        """Smallest real value."""
        return (self.least - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """Largest real value."""
        return (self.most - self.zero_point) * self.scale

    def real(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return stored integers as the values that they stand for."""
        centred = stored.astype(np.float32) - np.float32(self.zero_point)
        return np.asarray(centred * np.float32(self.scale), np.float32)

    def nearest(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the value of the grid that is nearest to each of `values`."""
        steps = np.rint(values / np.float32(self.scale))
        low, high = self.least - self.zero_point, self.most - self.zero_point
        return np.asarray(np.clip(steps, low, high) * np.float32(self.scale), np.float32)


_INTEGERS = ("int8", "uint8", "int16")


class LayerMeter:
    """Compares one layer's float and quantized values sample by sample, in constant memory.

    Sums are kept for each channel, the last dimension, because one scale serves them all.

    Attributes:
        grid: of the quantized tensor; None where that is float.
        signal: [channels] sum of squares of the float values.
        noise: [channels] sum of squares of the difference.
        rounding: part of the error that the grid alone makes, by rounding.
        clipping: part of the error that the grid alone makes, because it ends.
        low: [channels] smallest float value.
        high: [channels] largest float value.
        answers: decisions counted: places whose largest float value along `class_axis` is unique.
        tied: those of them whose quantized value shares the maximum with another class.
    """

    def __init__(self, grid: Grid | None, class_axis: int | None = None) -> None:
        self.grid = grid
        self.signal: NDArray[np.float64] = np.zeros(1)
        self.noise: NDArray[np.float64] = np.zeros(1)
        self.low: NDArray[np.float64] = np.full(1, np.inf)
        self.high: NDArray[np.float64] = np.full(1, -np.inf)
        self.rounding = self.clipping = 0.0
        self.answers = self.tied = 0
        self._class_axis = class_axis
        self._quantized_power = 0.0
        self._saturated = self._count = 0

    def add(self, real: NDArray[np.float32], stored: NDArray[Any]) -> None:
        """Take one sample: the layer's float values, and the quantized model's as it stores them.

        Both have the shape of the tensor.
        """
        values = real.reshape(-1, real.shape[-1] if real.ndim > 1 else 1)
        integers = stored.reshape(values.shape)
        found = integers.astype(np.float32) if self.grid is None else self.grid.real(integers)
        self._count += values.size
        self.signal = self.signal + _power(values)
        self.noise = self.noise + _power(values - found)
        self._quantized_power += float(np.vdot(found, found))
        self.low = np.minimum(self.low, values.min(axis=0))
        self.high = np.maximum(self.high, values.max(axis=0))
        if self.grid is not None:
            self._add_grid(self.grid, values, integers)
        if self._class_axis is not None:
            self._add_answers(real, stored, self._class_axis)

    def _add_grid(self, grid: Grid, values: NDArray[np.float32], integers: NDArray[Any]) -> None:
        error = values - grid.nearest(values)
        total = float(np.vdot(error, error))
        half = grid.scale / 2
        beyond = (values < grid.low - half) | (values > grid.high + half)
        clipped = 0.0
        if beyond.any():
            clipped = float((error[beyond] ** 2).sum())
            ends = integers[beyond]
            self._saturated += int(((ends == grid.least) | (ends == grid.most)).sum())
        self.clipping += clipped
        self.rounding += max(0.0, total - clipped)

    def _add_answers(self, real: NDArray[np.float32], stored: NDArray[Any], axis: int) -> None:
        if real.ndim == 0 or real.shape[axis] < 2:
            return
        first = real.argmax(axis, keepdims=True)
        is_unique = (real == real.max(axis, keepdims=True)).sum(axis) == 1
        tops = stored == stored.max(axis, keepdims=True)
        shares = np.take_along_axis(tops, first, axis).squeeze(axis) & (tops.sum(axis) > 1)
        self.answers += int(is_unique.sum())
        self.tied += int((is_unique & shares).sum())

    @property
    def places(self) -> int:
        """How many values of each channel were compared."""
        return self._count // self.signal.size

    @property
    def is_finite(self) -> bool:
        """Whether no float value so far was NaN or infinite."""
        return bool(np.isfinite(self.signal).all())

    @property
    def snr_db(self) -> float:
        """Signal to noise over all values."""
        return snr_db(float(self.signal.sum()), float(self.noise.sum()))

    @property
    def channel_snr_db(self) -> float:
        """Signal to noise that a quarter of the channels fall short of; dead ones do not count.

        A channel of small values may weigh as much in the next layer as one of large values, which
        `snr_db` does not show.
        """
        alive = self.signal > 0
        if not alive.any():
            return MOST_SNR_DB
        return snr_db(1.0, float(np.quantile(self.noise[alive] / self.signal[alive], 0.75)))

    @property
    def cosine(self) -> float:
        """Cosine similarity of the float and the quantized values; 1 where both are zero."""
        signal, noise = float(self.signal.sum()), float(self.noise.sum())
        lengths = math.sqrt(signal * self._quantized_power)
        if lengths == 0:
            return 1.0 if noise == 0 else 0.0
        product = (signal + self._quantized_power - noise) / 2
        return min(1.0, max(-1.0, product / lengths))

    @property
    def saturated(self) -> float | None:
        """Share of values at an end of the grid whose float value lies beyond it."""
        return None if self.grid is None else self._saturated / max(1, self._count)

    @property
    def unused(self) -> float | None:
        """Share of the grid's steps below the smallest or above the largest float value."""
        if self.grid is None:
            return None
        scale, zero_point, least, most = self.grid
        low = max(least, round(float(self.low.min()) / scale) + zero_point)
        high = min(most, round(float(self.high.max()) / scale) + zero_point)
        return 1 - max(0, high - low + 1) / (most - least + 1)

    @property
    def range_ratio(self) -> float | None:
        """How many times the widest channel's range is that of the lower quartile's.

        None where fewer than two channels have other values than zero.
        """
        ranges = np.maximum(self.high, 0) - np.minimum(self.low, 0)
        ranges = ranges[ranges > 0]
        return float(ranges.max() / np.quantile(ranges, 0.25)) if ranges.size > 1 else None


def _power(values: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->j", values, values), np.float64)
