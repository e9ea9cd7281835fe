"""Random changes of samples, the same for teacher and student."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.data import Dataset
from edgekit.errors import DataError, UsageError, expect_one_of, require

Array = NDArray[Any]
Augment = Callable[[Dataset], Dataset]
_SHIFT = 1 / 8


def check_augment(augment: Any) -> None:
    """Raise `UsageError` for what is neither names of `_CHANGES` nor callable."""
    if isinstance(augment, str):
        for name in augment.split(","):
            expect_one_of("augment", name, _CHANGES)
    elif augment is not None and not callable(augment):
        raise UsageError(
            f"`augment` must be names ({', '.join(_CHANGES)}) or a layer of Keras; got "
            f"{type(augment).__name__}"
        )


def augmenter(augment: Any, seed: int, *, masks: bool) -> Augment | None:
    """Return what changes a small set, or None for no change.

    Args:
        augment: names of changes, comma-separated; or a layer of Keras, or any callable, that
            takes a batch (float32 RGB 0..255 for frames) and `training`.
        seed: of the named changes.
        masks: labels are masks, which must move with their frames.

    Raises:
        UsageError: a layer cannot move masks.
    """
    if augment is None:
        return None
    if not isinstance(augment, str):
        if masks:
            raise UsageError(
                f"`augment` is a layer, which would not move the masks; use {', '.join(_CHANGES)}"
            )
        return lambda data: _with_samples(data, _by_layer(augment, _single(data)), data.labels)
    changes = [_CHANGES[name] for name in augment.split(",")]
    random = np.random.default_rng([seed, 1])  # not the numbers that order the batches

    def by_name(data: Dataset) -> Dataset:
        samples: list[Array] = []
        labels = None if data.labels is None else data.labels.copy()
        for index, sample in enumerate(_single(data)):
            mask = labels[index] if labels is not None and masks else None
            if mask is not None and mask.shape != sample.shape[:2]:
                raise DataError(
                    f"{data.name}: masks of {list(mask.shape)} cannot move with frames of "
                    f"{list(sample.shape)}; give masks of the frames' size"
                )
            for change in changes:
                sample, mask = change(sample, mask, random)
            samples.append(np.ascontiguousarray(sample))
            if labels is not None and mask is not None:
                labels[index] = mask
        return _with_samples(data, samples, labels)

    return by_name


def _single(data: Dataset) -> list[Array]:
    samples: list[Array] = []
    for sample in data:
        if isinstance(sample, tuple):
            raise DataError(f"{data.name} has several arrays a sample; they are not augmented")
        samples.append(sample)
    return samples


def _with_samples(data: Dataset, samples: list[Array], labels: Array | None) -> Dataset:
    return msgspec.structs.replace(data, read=samples.__getitem__, labels=labels)


def _shift(sample: Array, mask: Array | None, random: Any) -> tuple[Array, Array | None]:
    """Move a picture by up to an eighth of its sides, a sequence of its length; edges mirror."""
    axes = 2 if sample.ndim == 3 or sample.dtype == np.uint8 else 1
    most = [max(1, round(_SHIFT * side)) for side in sample.shape[:axes]]
    starts = [int(random.integers(0, 2 * room + 1)) for room in most]

    def moved(array: Array) -> Array:
        room = [(m, m) for m in most] + [(0, 0)] * (array.ndim - axes)
        padded = np.pad(array, room, mode="symmetric")
        return padded[
            tuple(
                slice(start, start + side)
                for start, side in zip(starts, array.shape[:axes], strict=True)
            )
        ]

    return moved(sample), None if mask is None else moved(mask)


def _flip(sample: Array, mask: Array | None, random: Any) -> tuple[Array, Array | None]:
    """Mirror every other picture from left to right."""
    if sample.ndim < 3 and sample.dtype != np.uint8:
        raise UsageError("`augment` flip is for pictures; for sequences there is shift")
    if random.integers(2):
        return sample[:, ::-1], None if mask is None else mask[:, ::-1]
    return sample, mask


_CHANGES = {"shift": _shift, "flip": _flip}


def _by_layer(layer: Any, samples: list[Array]) -> list[Array]:
    """Return samples as a layer changes them; frames of one size at once."""
    ops = require("keras", "convert").ops
    together = len({sample.shape for sample in samples}) == 1
    changed: list[Array] = []
    for group in [samples] if together else [[sample] for sample in samples]:
        is_frame = group[0].dtype == np.uint8
        batch = np.stack(group)
        batch = batch[..., ::-1] if is_frame and batch.ndim == 4 else batch
        result = ops.convert_to_numpy(layer(batch.astype(np.float32), training=True))
        if len(result) != len(group):
            raise DataError(
                f"`augment` gave {len(result)} samples for {len(group)}; it must keep their number"
            )
        if is_frame:
            result = np.clip(np.rint(result), 0, 255).astype(np.uint8)
            result = result[..., ::-1] if result.ndim == 4 else result
        changed += list(np.ascontiguousarray(result))
    return changed
