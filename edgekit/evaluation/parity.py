"""How close the compiled model's outputs are to its source's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Parity
from edgekit.errors import CheckFailed
from edgekit.runtime.postprocess import ClassScore, SegmentationMap

MOST_SNR_DB = 200.0
"""Stands for "equal": a difference of zero has no logarithm, and JSON no infinity."""


class ParityMeter:
    """Compares outputs sample by sample, in constant memory."""

    def __init__(self) -> None:
        self._signal = self._noise = self._max_abs = 0.0
        self._same = 0.0
        self._n = 0
        self._classes = True

    def add(
        self,
        source: Sequence[NDArray[Any]],
        converted: Sequence[NDArray[Any]],
        source_value: Any,
        converted_value: Any,
    ) -> None:
        """Take one sample: all outputs of both as real numbers, and both decoded values.

        Raises:
            CheckFailed: an output is infinite or NaN where the source gives a number.
        """
        for place, (one, other) in enumerate(zip(source, converted, strict=True)):
            reference = np.asarray(one, np.float64).ravel()
            compared = np.asarray(other, np.float64).ravel()
            finite = np.isfinite(reference)  # as a masked logit, -inf, is not
            if not np.isfinite(compared[finite]).all():
                raise CheckFailed(
                    f"sample {self._n}: output {place} of the converted model is infinite or NaN "
                    "where its source gives numbers; float16 ends at 65,504: choose fp32, or scale "
                    "what goes in"
                )
            reference = reference[finite]
            difference = reference - compared[finite]
            self._signal += float((reference**2).sum())
            self._noise += float((difference**2).sum())
            self._max_abs = max(self._max_abs, float(np.abs(difference).max(initial=0.0)))
        same = agreement(source_value, converted_value)
        self._classes = self._classes and same is not None
        self._same += same or 0.0
        self._n += 1

    def result(self) -> Parity:
        """Return the parity over all samples taken."""
        share = self._same / self._n if self._classes and self._n else None
        return Parity(snr_db(self._signal, self._noise), self._max_abs, share, self._n)


def snr_db(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise) of two powers, within ±`MOST_SNR_DB`."""
    if noise <= 0:
        return MOST_SNR_DB
    ratio = max(signal / noise, 10 ** (-MOST_SNR_DB / 10))
    return min(MOST_SNR_DB, 10 * math.log10(ratio))


def agreement(one: Any, other: Any) -> float | None:
    """Return the share of equal top-1 classes in two decoded values; None if there are none."""
    if isinstance(one, SegmentationMap):
        return float((one.class_map == other.class_map).mean())
    if isinstance(one, tuple) and one and isinstance(one[0], ClassScore):
        return float(one[0].index == other[0].index)
    return None
