"""Empirical bias correction: quantization must not move the mean of a channel.

After Nagel et al., ICCV 2019 (see `equalize`), section 4.2, with the means measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.ranges import STEPS, Range, int8_grid


def mean_shift(
    wanted: Sequence[NDArray[Any]], given: Sequence[NDArray[Any]]
) -> NDArray[np.float64]:
    """Return by how much each channel of `given` lies below `wanted`, on average.

    Args:
        wanted: batches of a float layer's output, channels last.
        given: the same of the quantized layer.
    """
    axes = tuple(range(wanted[0].ndim - 1))
    totals = [(w - g).sum(axis=axes, dtype=np.float64) for w, g in zip(wanted, given, strict=True)]
    return np.asarray(sum(totals) / sum(w[..., 0].size for w in wanted))


def fake_quantize(batches: list[NDArray[Any]]) -> None:
    """Replace float batches by what int8 would hold, with the range from min to max over all."""
    low = min(0.0, *(float(batch.min()) for batch in batches))
    high = max(0.0, *(float(batch.max()) for batch in batches))
    if high == low:
        return
    step, zero = int8_grid(Range(low, high))
    for index, batch in enumerate(batches):  # one after the other: twice the set is much memory
        whole = np.clip(np.round(batch / step) + zero, 0, STEPS) - zero
        batches[index] = (whole * step).astype(np.float32)
