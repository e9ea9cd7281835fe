"""Samples for calibration, comparison and the golden set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.converters.observe import Samples
from edgekit.converters.sources.graph import checked_inputs
from edgekit.data import Dataset, Sample
from edgekit.errors import DataError, ModelError
from edgekit.isolated import Progress
from edgekit.runtime.preprocess import preprocessors, readings_of
from edgekit.specs import Preprocess, TensorSpec

_ENOUGH_TILES = 128  # of few frames; ranges want 100 samples or more


def subset(data: Dataset, count: int) -> Dataset:
    """Return at most `count` samples, spread evenly over `data`, so that every class is met."""
    if len(data) <= count:
        return data
    indices = np.linspace(0, len(data) - 1, count).round().astype(int)
    return msgspec.structs.replace(
        data,
        count=count,
        read=lambda index: data.read(int(indices[index])),
        labels=None if data.labels is None else data.labels[indices],
    )


def tiles_of(data: Dataset, preprocess: Preprocess) -> Dataset:
    """Return `data` as the model sees it with resize ``tile``, else as it is.

    Of each frame that is larger than the model's input, as many parts of that size at seeded places
    as make `_ENOUGH_TILES` of a small set; at least one. They have no labels.
    """
    if preprocess.resize != "tile" or preprocess.size is None:
        return data
    size, each = preprocess.size, -(-_ENOUGH_TILES // len(data))

    def read(index: int) -> Sample:
        sample = data.read(index // each)
        if isinstance(sample, tuple) or sample.dtype != np.uint8 or sample.ndim < 2:
            return sample
        rooms = [max(0, n - side) for n, side in zip(sample.shape, size, strict=False)]
        top, left = np.random.default_rng(index).integers(0, rooms, endpoint=True)
        return sample[top : top + size[0], left : left + size[1]]

    return msgspec.structs.replace(data, count=each * len(data), read=read, labels=None)


def synthetic(preprocess: Preprocess, inputs: Sequence[TensorSpec], count: int) -> Dataset:
    """Return `count` seeded samples for models that come without data.

    Pictures are smooth coloured noise; tensors are normally distributed once they are preprocessed;
    integers are small.
    """

    def read(index: int) -> Sample:
        random = np.random.default_rng(index)
        parts = tuple(
            _picture(random, *preprocess.size)
            if preprocess.size is not None and spec is inputs[0]
            else _tensor(random, spec, preprocess if spec is inputs[0] else Preprocess())
            for spec in inputs
        )
        return parts if len(parts) > 1 else parts[0]

    digest = hashlib.sha256(f"synthetic {count} {inputs}".encode()).hexdigest()
    return Dataset("synthetic samples", count, read, None, (), digest)


def _picture(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    import cv2

    # A tint of its own for each: the mean colour of plain noise is always grey.
    tint = random.uniform(0.2, 1.0, 3)
    coarse = (tint * random.integers(0, 256, (8, 8, 3))).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _tensor(random: np.random.Generator, spec: TensorSpec, preprocess: Preprocess) -> NDArray[Any]:
    if np.dtype(spec.dtype).kind in "iu":
        return random.integers(0, 2, spec.shape[1:]).astype(spec.dtype)
    return readings_of(preprocess, random.standard_normal(spec.shape[1:]))


def model_inputs(
    data: Dataset, preprocess: Preprocess, inputs: Sequence[TensorSpec]
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield the model inputs, batch 1, for each sample of `data`.

    Raises:
        DataError: samples that the model does not take.
    """
    prepare = preprocessors(preprocess, inputs)
    for index, sample in enumerate(data):
        parts = sample if isinstance(sample, tuple) else (sample,)
        if len(parts) != len(inputs):
            advice = (
                "give the inputs alone, without labels"
                if len(parts) > len(inputs)
                else "pass an iterable of tuples, one array an input, to edgekit.convert"
            )
            raise DataError(
                f"{data.name} gives {len(parts)} arrays a sample; the model takes {len(inputs)}: "
                f"{advice}"
            )
        buffers = tuple(np.empty(spec.shape, spec.dtype) for spec in inputs)
        for preprocessor, part, out in zip(prepare, parts, buffers, strict=True):
            try:
                preprocessor(part, out)
            except DataError as error:
                raise DataError(f"{data.name}, sample {index}: {error}") from error
        yield buffers


def checked_passes(
    inputs: Sequence[TensorSpec], calibration: Samples, say: Progress, phase: str
) -> Samples:
    """Return the calibration set as passes that are checked and counted.

    Args:
        inputs: of the model, batch 1.
        calibration: starts a pass, one tuple of inputs a sample.
        say: called with (phase, samples done, 0).
        phase: what the pass is for.

    Raises:
        DataError: from a pass: a sample does not fit or is not finite, or there are none.
    """

    def passes() -> Iterator[tuple[NDArray[Any], ...]]:
        done = 0
        for done, sample in enumerate(calibration(), 1):
            try:
                arrays = tuple(checked_inputs(inputs, sample))
            except ModelError as error:
                raise DataError(f"calibration sample {done} does not fit: {error}") from error
            if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays):
                raise DataError(f"calibration sample {done} holds NaN or infinite values")
            yield arrays
            say(phase, done, 0)
        if not done:
            raise DataError("the calibration set is empty; integers need some 100 typical samples")

    return passes
