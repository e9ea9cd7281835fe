"""Samples, masks and what changed between them, as small pictures for a report."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.data import Sample
from edgekit.reports import Picture
from edgekit.runtime.postprocess import NOT_SEEN

_LONGEST_PX = 200
_JPEG_QUALITY = 80
_CHANGED_BGR = (255, 0, 255)  # magenta: no scene has much of it
_NOT_SEEN_GREY = 128


def sample_picture(sample: Sample, caption: str) -> Picture | None:
    """Return a frame as it is, and an array of two dimensions as a heat map; None for others."""
    first = sample[0] if isinstance(sample, tuple) else sample
    if first.dtype == np.uint8 and first.ndim in (2, 3):
        return encoded(np.ascontiguousarray(first[..., :3] if first.ndim == 3 else first), caption)
    if first.ndim == 3 and 1 in (first.shape[0], first.shape[2]):
        first = first.reshape(max(first.shape[0], 1) if first.shape[2] == 1 else first.shape[1], -1)
    if first.ndim == 3 and first.shape[2] == 3:
        return encoded(np.ascontiguousarray(_stretched(first)[..., ::-1]), caption)
    if first.ndim != 2 or min(first.shape) < 2:
        return None
    # Time, the first dimension of a sequence, runs to the right.
    heat = cv2.applyColorMap(np.ascontiguousarray(_stretched(first).T), cv2.COLORMAP_VIRIDIS)
    return encoded(np.asarray(heat, np.uint8), caption, smooth=False)


def frame_of(sample: Sample) -> NDArray[np.uint8]:
    """Return the picture of a segmentation's sample, BGR [h, w, 3]."""
    first = sample[0] if isinstance(sample, tuple) else sample
    if first.dtype != np.uint8:
        first = _stretched(first[..., ::-1] if first.ndim == 3 and first.shape[2] == 3 else first)
    if first.ndim == 3 and first.shape[2] >= 3:
        return np.ascontiguousarray(first[..., :3])
    grey = np.ascontiguousarray(first.reshape(first.shape[:2] if first.ndim == 3 else first.shape))
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


def map_picture(class_map: NDArray[Any], classes: int, caption: str) -> Picture:
    """Return a class map [h, w] in colours that stay told apart in grey; not seen is grey."""
    steps = np.linspace(0, 255, max(classes, 2)).astype(np.uint8)
    table = cv2.applyColorMap(steps, cv2.COLORMAP_VIRIDIS).reshape(-1, 3)
    colours = np.full((256, 3), _NOT_SEEN_GREY, np.uint8)
    colours[: min(len(table), NOT_SEEN)] = table[:NOT_SEEN]
    return encoded(colours[np.asarray(class_map, np.uint8)], caption, smooth=False)


def changed_picture(frame: NDArray[np.uint8], changed: NDArray[np.bool_], caption: str) -> Picture:
    """Return `frame` [h, w, 3] darkened, the pixels where `changed` [h', w'] in magenta.

    Each stays visible: one changed pixel makes the picture's whole pixel magenta.
    """
    size = _size(frame.shape[:2])
    small = cv2.resize(frame, size, interpolation=_method(frame.shape, size)) // 2
    share = cv2.resize(changed.astype(np.float32), size, interpolation=_method(changed.shape, size))
    small[share > 0] = _CHANGED_BGR
    done, content = cv2.imencode(".png", small)
    assert done
    return Picture(content.tobytes(), caption)


def encoded(pixels: NDArray[np.uint8], caption: str, *, smooth: bool = True) -> Picture:
    """Return pixels, grey [h, w] or BGR [h, w, 3], as a small JPEG; PNG unless `smooth`."""
    size = _size(pixels.shape[:2])
    method = _method(pixels.shape, size) if smooth else cv2.INTER_NEAREST
    small = cv2.resize(pixels, size, interpolation=method)
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if smooth else []
    done, content = cv2.imencode(".jpg" if smooth else ".png", small, options)
    assert done
    return Picture(content.tobytes(), caption)


def _method(shape: tuple[int, ...], size: tuple[int, int]) -> int:
    """Return OpenCV's interpolation: means of areas, but single pixels stay squares."""
    return cv2.INTER_AREA if size[0] < shape[1] else cv2.INTER_NEAREST


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return width and height at which the longer side of [h, w] is `_LONGEST_PX`."""
    scale = _LONGEST_PX / max(shape)
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return numbers of any range as 0..255."""
    low, high = float(values.min()), float(values.max())
    span = high - low or 1.0
    return np.asarray((values.astype(np.float64) - low) * (255 / span), np.uint8)
