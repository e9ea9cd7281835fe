"""Whether pictures are plausible: not noise, not many of one scene."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.audit.finding import Finding
from edgekit.specs import TensorSpec

NOISE_CORRELATION = 0.2
"""Of neighbouring pixels. Least of 12,000 CIFAR-10 images 0.48, 5,000 MNIST digits 0.54, 2,994 MFCC
arrays 0.59, 24 membrane micrographs 0.80, photographs 0.97; most of 100 16x16 noise images 0.16."""

NOISE_SHARE = 0.1
"""Of the samples: a few flat frames, of which only the sensor's noise is left, are no mistake."""

SAME_SCENE = 0.05
"""Squared distance of two thumbnails, as a share of their contrast. Nearly the same as an earlier
one, of 512: CIFAR-10 none, MNIST 1 %, MFCC 6 %, frames of a panning video 66 %, handheld 52 %."""

SAME_SHARE = 0.25
"""Of the samples."""

_FEWEST_PIXELS = 256  # of fewer, noise correlates by chance
_MOST_ROWS = 64  # of a picture, whose neighbours are compared
_THUMBNAIL = 16
_MOST_SCENES = 512  # kept to compare with: what bounds the memory


class Noise:
    """Pictures without structure, told by the correlation of pixels side by side."""

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._pictures = self._noisy = 0
        self._sum = 0.0

    def add(self, index: int, values: NDArray[Any], is_copy: bool) -> None:
        plane = _plane(values, self._spec)
        if plane is not None and plane.size >= _FEWEST_PIXELS and min(plane.shape) > 1:
            correlation = neighbour_correlation(plane)
            self._pictures += 1
            self._noisy += correlation < NOISE_CORRELATION
            self._sum += correlation

    def finding(self, name: str, total: int) -> Finding | None:
        if self._noisy <= NOISE_SHARE * total:
            return None
        message = (
            f"{self._noisy} of {total} samples of {name} look like noise: neighbouring pixels "
            f"correlate by {self._sum / self._pictures:.2f} on average, expected more than "
            f"{NOISE_CORRELATION}: use samples like those of the device, and check the order of "
            "rows and channels"
        )
        return Finding("noise", message, self._noisy)


class Duplicates:
    """Copies, and pictures of one scene, which add nothing to a range."""

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._scenes: NDArray[np.float32] = np.empty((_MOST_SCENES, _THUMBNAIL**2), np.float32)
        self._contrasts: NDArray[np.float32] = np.empty(_MOST_SCENES, np.float32)
        self._kept = self._count = self._first = 0

    def add(self, index: int, values: NDArray[Any], is_copy: bool) -> None:
        if is_copy or self._is_near_an_earlier_one(values):
            self._first = self._first if self._count else index
            self._count += 1

    def _is_near_an_earlier_one(self, values: NDArray[Any]) -> bool:
        plane = _plane(values, self._spec)
        if plane is None:
            return False
        thumbnail = _thumbnail(plane)
        contrast = float(((thumbnail - thumbnail.mean()) ** 2).sum())
        distances = ((self._scenes[: self._kept] - thumbnail) ** 2).sum(1)
        if (distances < SAME_SCENE * (self._contrasts[: self._kept] + contrast) / 2).any():
            return True
        if self._kept < _MOST_SCENES:
            self._scenes[self._kept], self._contrasts[self._kept] = thumbnail, contrast
            self._kept += 1
        return False

    def finding(self, name: str, total: int) -> Finding | None:
        if self._count <= SAME_SHARE * total:
            return None
        message = (
            f"{self._count} of {total} samples of {name} are the same as an earlier one, or nearly "
            f"(first: calibration sample {self._first}); expected at most {100 * SAME_SHARE:.0f} "
            "%: take fewer of each scene, from more scenes"
        )
        return Finding("duplicates", message, self._count)


def neighbour_correlation(plane: NDArray[Any]) -> float:
    """Return how pixels of `plane` [h, w] correlate with the next ones, down or along, -1..1.

    The larger of the two: a spectrogram is smooth in time only. A plane of one value gives 1.
    """
    step = -(-(len(plane) - 1) // _MOST_ROWS)
    rows = plane[:-1:step].astype(np.float32)
    next_rows = plane[1::step].astype(np.float32)
    return max(_correlation(rows, next_rows), _correlation(rows[:, :-1], rows[:, 1:]))


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    one, other = one - one.mean(), other - other.mean()
    energy = float(np.sqrt(np.vdot(one, one)) * np.sqrt(np.vdot(other, other)))
    return float(np.vdot(one, other)) / energy if energy else 1.0


def _plane(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any] | None:
    """Return one channel [h, w] of a picture, green of a coloured one; None: not a picture."""
    if not spec.is_image:
        return None
    if values.dtype == np.uint8:
        if values.ndim not in (2, 3):
            return None
        return values if values.ndim == 2 else values[..., values.shape[2] // 2]
    if values.size != np.prod(spec.shape):
        return None
    picture = values.reshape(spec.shape[1:])
    channel = -1 if spec.image_layout == "nhwc" else 0
    plane: NDArray[Any] = picture.take(picture.shape[channel] // 2, axis=channel)
    return plane


def _thumbnail(plane: NDArray[Any]) -> NDArray[np.float32]:
    import cv2

    # OpenCV averages neither float16 nor integers of 32 bits.
    known = plane if plane.dtype == np.uint8 else plane.astype(np.float32)
    size = (_THUMBNAIL, _THUMBNAIL)
    small = cv2.resize(np.ascontiguousarray(known), size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).reshape(-1)
