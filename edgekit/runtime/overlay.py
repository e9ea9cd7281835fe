"""Predictions drawn on frames, for people."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.runtime.postprocess import NOT_SEEN, SegmentationMap

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE = (255, 255, 255)
_LINES = 3
_MAP_LINES = 6


def draw(
    frame: NDArray[Any], value: Any, roi: tuple[int, int, int, int] | None = None
) -> NDArray[np.uint8]:
    """Return a copy of `frame` with `value` drawn on it, uint8 BGR [h, w, 3].

    Classes: the best three with their probability. Class map: colours blended in, with names.
    Numbers and anything else: as text.

    Args:
        frame: uint8 BGR [h, w, 3], BGRA [h, w, 4] or grey [h, w] or [h, w, 1].
        value: a model's decoded prediction, or what a callable returned.
        roi: what `value` is of: left, top, width, height, which are outlined; None: all of it.

    Raises:
        DataError: the frame is no picture.
    """
    canvas = _copied(frame)
    left, top, width, height = roi or (0, 0, canvas.shape[1], canvas.shape[0])
    if isinstance(value, SegmentationMap):
        _blend_map(canvas[top : top + height, left : left + width], value)
    if roi is not None:
        cv2.rectangle(canvas, (left, top, width, height), _WHITE, 1)
    _write_lines(canvas, _lines(value))
    return canvas


def _copied(frame: NDArray[Any]) -> NDArray[np.uint8]:
    channels = frame.shape[2] if frame.ndim == 3 else 1
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise DataError(
            f"results can be drawn on uint8 pictures [h, w, 3]; the frames are {frame.dtype} "
            f"{list(frame.shape)}: write them to FILE.jsonl"
        )
    if channels == 1:
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), np.uint8)
    return frame[:, :, :3].copy()


def _lines(value: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Return the lines of text that describe `value`, each with its colour."""
    if isinstance(value, SegmentationMap):
        largest = sorted(value.shares().items(), key=lambda item: -item[1])[:_MAP_LINES]
        return [
            (f"{value.name(index)}  {100 * share:.0f} %", tuple(class_colors()[index].tolist()))
            for index, share in largest
        ]
    if isinstance(value, np.ndarray):
        return [(", ".join(f"{v:.3g}" for v in value.reshape(-1)[:6]), _WHITE)]
    if isinstance(value, tuple) and value and hasattr(value[0], "label"):
        return [(f"{score.label}  {100 * score.score:.0f} %", _WHITE) for score in value[:_LINES]]
    return [(str(value)[:60], _WHITE)]


def _blend_map(canvas: NDArray[np.uint8], value: SegmentationMap) -> None:
    if value.class_map.shape != canvas.shape[:2]:
        return  # of a float model input: there is no picture that it lies on
    tint = class_colors()[value.class_map]
    seen = (value.class_map != NOT_SEEN)[..., None]
    np.copyto(canvas, cv2.addWeighted(canvas, 0.55, tint, 0.45, 0), where=seen)


@cache
def class_colors() -> NDArray[np.uint8]:
    """Return 256 distinct colours, uint8 BGR [256, 3]; hues step by the golden ratio."""
    numbers = np.arange(256)
    # OpenCV has 180 hues; 113/180 is close to the golden ratio and meets each once.
    hues = (numbers * 113 % 180).astype(np.uint8)
    brightness = np.where(numbers < 180, 255, 180).astype(np.uint8)
    hsv = np.dstack([hues, np.full(256, 170, np.uint8), brightness])
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0], np.uint8)


def _write_lines(canvas: NDArray[np.uint8], lines: list[tuple[str, tuple[int, ...]]]) -> None:
    """Write coloured text in the upper left corner on a darkened field."""
    scale = max(0.35, min(canvas.shape[:2]) / 600)
    step = round(34 * scale)
    widest = max(cv2.getTextSize(text, _FONT, scale, 1)[0][0] for text, _ in lines)
    field = canvas[: step * len(lines) + step // 2, : widest + step]
    field[...] = field // 3
    for number, (text, color) in enumerate(lines, 1):
        # Hershey fonts hold ASCII only; other characters would become question marks anyway.
        plain = text.encode("ascii", "replace").decode()
        place = (step // 2, step * number - step // 8)
        cv2.putText(canvas, plain, place, _FONT, scale, color, 1 + int(scale > 0.8), cv2.LINE_AA)
