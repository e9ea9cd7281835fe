"""Whether a calibration set can be believed: what `convert` warns of. One file a kind of check.

NaN and infinity are refused when a set is opened (`edgekit.data`); what is judged here converts,
but to ranges that will not hold on the device. Each threshold says what it was tried on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.audit.finding import Check, Finding
from edgekit.converters.audit.pictures import Duplicates, Noise
from edgekit.converters.audit.ranges import UnstableRange, range_finding, unstable_ranges
from edgekit.converters.audit.scale import Scale
from edgekit.data import Dataset, Sample
from edgekit.specs import Preprocess, TensorSpec

__all__ = ["Finding", "UnstableRange", "audit", "range_finding", "unstable_ranges"]

ENOUGH_SAMPLES = 100
"""Of n samples and a new one, each is as likely to hold a tensor's largest value: below this,
more than 2 % of new samples leave a given range at one of its two ends."""

_FEWEST_VALUES = 16  # fewer are all equal by chance


def audit(
    calibration: Dataset,
    evaluation: Dataset | None,
    preprocess: Preprocess,
    inputs: Sequence[TensorSpec],
    on_sample: Callable[[int, int], None] | None = None,
) -> tuple[Finding, ...]:
    """Judge the samples that calibrate a model, in one pass over each set.

    Only a sample's first array is judged: it is the one that is preprocessed. Noise and
    near-duplicates are told for pictures, and for other arrays copies alone. Memory is that of
    one sample, of at most 512 thumbnails, and of a hash a calibration sample.

    Args:
        calibration: the samples that calibrate, not more.
        evaluation: the set on which the accuracy is measured, or None.
        preprocess: complete, as `Preprocess.for_input` returns it.
        inputs: of the model.
        on_sample: called with (done, total), over both sets.

    Raises:
        DataError: a sample that cannot be read.
    """
    total = len(calibration) + (0 if evaluation is None else len(evaluation))
    spec = inputs[0]
    checks: list[Check] = [_Constant(), Scale(preprocess, spec), Noise(spec), Duplicates(spec)]
    hashes: set[bytes] = set()
    for index, sample in enumerate(calibration):
        first = sample[0] if isinstance(sample, tuple) else sample
        digest = content_hash(sample)
        for check in checks:
            check.add(index, first, digest in hashes)
        hashes.add(digest)
        if on_sample is not None:
            on_sample(index + 1, total)
    found = [check.finding(calibration.name, len(calibration)) for check in checks]
    found.append(_few(calibration))
    if evaluation is not None:
        both = 0
        for index, sample in enumerate(evaluation):
            both += content_hash(sample) in hashes
            if on_sample is not None:
                on_sample(len(calibration) + index + 1, total)
        found.append(_overlap(calibration, evaluation, both))
    return tuple(finding for finding in found if finding is not None)


def content_hash(sample: Sample) -> bytes:
    """Return a hash of a sample's values and shape; axes of size 1 do not count."""
    digest = hashlib.sha256()
    for part in sample if isinstance(sample, tuple) else (sample,):
        digest.update(f"{part.dtype}{[n for n in part.shape if n != 1]}".encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.digest()


class _Constant:
    """Samples of one value; integers are left out: padding of token ids is one value too."""

    def __init__(self) -> None:
        self._count = self._first = 0

    def add(self, index: int, values: NDArray[Any], is_copy: bool) -> None:
        judged = values.dtype.kind == "f" or values.dtype == np.uint8
        if judged and values.size >= _FEWEST_VALUES and values.min() == values.max():
            self._first = self._first if self._count else index
            self._count += 1

    def finding(self, name: str, total: int) -> Finding | None:
        if not self._count:
            return None
        message = (
            f"{self._count} of {total} samples of {name} hold one value only (first: "
            f"calibration sample {self._first}), expected samples that vary: check how they are "
            "read, or remove them"
        )
        return Finding("constant", message, self._count)


def _few(data: Dataset) -> Finding | None:
    n = len(data)
    if n >= ENOUGH_SAMPLES:
        return None
    message = (
        f"{n} samples of {data.name} calibrate, expected {ENOUGH_SAMPLES} to 500: up to "
        f"{200 / (n + 1):.0f} % of new samples will leave the range of a given tensor: give more"
    )
    return Finding("few", message, n)


def _overlap(calibration: Dataset, evaluation: Dataset, both: int) -> Finding | None:
    if not both:
        return None
    message = (
        f"{both} of {len(evaluation)} samples of the evaluation set {evaluation.name} also "
        f"calibrate ({calibration.name}), expected none: what is measured on them flatters the "
        "result; keep the sets apart"
    )
    return Finding("overlap", message, both)
