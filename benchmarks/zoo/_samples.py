"""What the zoo's networks are fed: drawn pictures and smooth sequences, as model inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.demo.frames import make_set

Floats = NDArray[np.float32]

CALIBRATION, HELD_OUT = 128, 32
"""Number of samples that ranges are made from, and of others that are judged."""

FITTING = 64
"""Number of calibration samples that weights are fitted to."""


def samples(kind: str, shapes: list[tuple[int, ...]]) -> list[tuple[Floats, ...]]:
    """Return `CALIBRATION` + `HELD_OUT` samples, each a tuple of arrays without a batch.

    Args:
        kind: signed or raw pictures, or sequences.
        shapes: of the model's inputs, without the batch.
    """
    count, rng = CALIBRATION + HELD_OUT, np.random.default_rng(6)
    make = {"signed": _pictures, "raw": _pictures, "sequences": _sequences}[kind]
    columns = [make(count, shape, rng) for shape in shapes]
    if kind == "signed":
        columns = [column / np.float32(127.5) - 1 for column in columns]
    return [tuple(column[index] for column in columns) for index in range(count)]


def _pictures(count: int, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    height, width, channels = shape
    pictures, _ = make_set(count, int(rng.integers(1 << 30)), (height, width))
    real = pictures.astype(np.float32)
    return real if channels == 3 else real.mean(axis=-1, keepdims=True)


def _sequences(count: int, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Return sums of two waves for each feature, with a little noise."""
    steps, features = shape
    time = np.arange(steps)[None, :, None]
    size = (2, count, 1, features)
    period, phase = rng.uniform(6, 40, size), rng.uniform(0, 2 * np.pi, size)
    height = rng.uniform(0.2, 1.0, size)
    waves = (height * np.sin(2 * np.pi * time / period + phase)).sum(axis=0)
    return np.asarray(waves + rng.normal(0, 0.05, waves.shape), np.float32)


def stacked(chosen: list[tuple[Floats, ...]]) -> Any:
    """Return samples as a Keras model takes a batch: an array, or a list of them."""
    arrays = [np.stack(column) for column in zip(*chosen, strict=True)]
    return arrays[0] if len(arrays) == 1 else arrays
