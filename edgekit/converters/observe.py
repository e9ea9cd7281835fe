"""Observers: a float model runs over the calibration set with its activations as outputs.

As fast as the model itself, and one sample at a time, so that memory does not grow with the set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.ranges import Observer, Range
from edgekit.errors import DataError

Array = NDArray[Any]
Samples = Callable[[], Iterator[tuple[Array, ...]]]
Key = TypeVar("Key", int, str)
_MEMORY_LIMIT = 256 << 20  # of activations kept at a time
_BINS = 2048
_PERCENTILE = 0.9999


class Probe(Protocol[Key]):
    """A float model whose activations can be read.

    Attributes:
        observed: keys of the tensors that need a range of their own.
        never_clipped: those of outputs, and of what alone decides on one: clipped logits tie.
    """

    @property
    def observed(self) -> Sequence[Key]: ...  # noqa: D102

    @property
    def never_clipped(self) -> set[Key]: ...  # noqa: D102

    def name(self, key: Key) -> str:
        """Return a tensor's name, for messages."""

    def size(self, key: Key) -> int:
        """Return how many values a tensor has."""

    def run(self, keys: Sequence[Key], samples: Samples) -> Iterator[list[NDArray[np.float32]]]:
        """Yield the values of some tensors for each sample; they hold until the next one."""


@dataclass(frozen=True)
class Extremes(Generic[Key]):
    """Smallest and largest value of each tensor in each sample.

    Attributes:
        tensors: keys of the tensors.
        low: [samples, tensors], float32.
        high: likewise.
    """

    tensors: tuple[Key, ...]
    low: Array
    high: Array

    def ranges(self) -> dict[Key, Range]:
        """Return the range over all samples, by the tensor's key."""
        low, high = self.low.min(axis=0), self.high.max(axis=0)
        return {
            key: Range(float(low[place]), float(high[place]))
            for place, key in enumerate(self.tensors)
        }


def observe(probe: Probe[Key], samples: Samples) -> Extremes[Key]:
    """Return the extremes of a float model's inputs and of activations with a range of their own.

    Args:
        probe: the model.
        samples: starts a pass over the calibration set, one tuple of inputs (batch 1) a sample.

    Raises:
        DataError: an activation is not finite.
    """
    columns = []
    for group in _groups(probe, probe.observed):
        rows = [
            [(values.min(), values.max()) for values in activations]
            for activations in probe.run(group, samples)
        ]
        columns.append(np.array(rows, np.float32).reshape(len(rows), len(group), 2))
    found = np.concatenate(columns, axis=1)
    if not np.isfinite(found).all():
        sample, place, _ = np.argwhere(~np.isfinite(found))[0]
        raise DataError(
            f"calibration sample {sample + 1} makes {probe.name(probe.observed[place])} infinite "
            "or NaN in the float model; look at that sample and at its preprocess"
        )
    return Extremes(tuple(probe.observed), found[..., 0], found[..., 1])


def clipped_ranges(
    probe: Probe[Key], found: Mapping[Key, Range], samples: Samples, observer: Observer
) -> dict[Key, Range]:
    """Return narrower ranges, where clipping rare values makes the others finer.

    Args:
        probe: the model.
        found: the ranges from smallest to largest value.
        samples: see `observe`.
        observer: ``percentile`` keeps 99.99 % of the values, ``mse`` makes the mean square error of
            int8 least.
    """
    kept = probe.never_clipped
    tensors = [key for key in found if key not in kept and found[key].max > found[key].min]
    counts = {key: np.zeros(_BINS, np.int64) for key in tensors}
    for group in _groups(probe, tensors):
        for activations in probe.run(group, samples):
            for place, key in enumerate(group):  # no name keeps a view of the engine's memory
                counts[key] += _histogram(activations[place], found[key])
    choose = _percentile_range if observer == "percentile" else _least_error_range
    return {**found, **{key: choose(counts[key], found[key]) for key in tensors}}


def _groups(probe: Probe[Key], keys: Sequence[Key]) -> Iterator[list[Key]]:
    """Split tensors into groups whose values fit in memory together."""
    group: list[Key] = []
    total = 0
    for key in keys:
        size = 4 * probe.size(key)
        if group and total + size > _MEMORY_LIMIT:
            yield group
            group, total = [], 0
        group.append(key)
        total += size
    yield group


def _histogram(values: Array, full: Range) -> Array:
    bins = ((values.reshape(-1) - full.min) * (_BINS / (full.max - full.min))).astype(np.int32)
    return np.bincount(np.clip(bins, 0, _BINS - 1), minlength=_BINS)


def _percentile_range(counts: Array, full: Range) -> Range:
    edges = np.linspace(full.min, full.max, _BINS + 1)
    share = np.cumsum(counts) / counts.sum()
    low = edges[np.searchsorted(share, (1 - _PERCENTILE) / 2)]
    high = edges[np.searchsorted(share, (1 + _PERCENTILE) / 2) + 1]
    return Range(min(0.0, float(low)), max(0.0, float(high)))


def _least_error_range(counts: Array, full: Range) -> Range:
    """Return the best of ranges that are cut evenly on both sides, as far as they hold zero."""
    edges = np.linspace(full.min, full.max, _BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    best, least = full, np.inf
    for share in np.linspace(1, 0.3, 71):
        low, high = min(0.0, full.min * float(share)), max(0.0, full.max * float(share))
        step = (high - low) / 255
        clipped = middles - np.clip(middles, low, high)
        error = float((counts * (clipped**2 + (clipped == 0) * step**2 / 12)).sum())
        if error < least:
            best, least = Range(low, high), error
    return best
