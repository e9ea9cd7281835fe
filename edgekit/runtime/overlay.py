"""Predictions drawn on frames, for people."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.runtime.postprocess import NOT_SEEN, SegmentationMap

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LINES = 3


def draw(frame: NDArray[np.uint8], value: Any) -> NDArray[np.uint8]:
    """Return a copy of `frame` (uint8 BGR [h, w, 3]) with `value` drawn on it.

    Classes: the best three with their probability. Class map: colours blended in, with names.
    Numbers and anything else: as text.
    """
    canvas = np.ascontiguousarray(frame[:, :, :3] if frame.ndim == 3 else np.dstack([frame] * 3))
    if canvas is frame or np.shares_memory(canvas, frame):
        canvas = canvas.copy()
    if isinstance(value, SegmentationMap):
        return _draw_map(canvas, value)
    _write_lines(canvas, [(line, (255, 255, 255)) for line in _lines(value)])
    return canvas


def _lines(value: Any) -> list[str]:
    if isinstance(value, np.ndarray):
        return [", ".join(f"{v:.3g}" for v in value.reshape(-1)[:6])]
    if isinstance(value, tuple) and value and hasattr(value[0], "label"):
        return [f"{score.label}  {100 * score.score:.0f} %" for score in value[:_LINES]]
    return [str(value)[:60]]


def _draw_map(canvas: NDArray[np.uint8], value: SegmentationMap) -> NDArray[np.uint8]:
    if value.class_map.shape == canvas.shape[:2]:
        tint = class_colors()[value.class_map]
        seen = value.class_map != NOT_SEEN
        canvas[seen] = cv2.addWeighted(canvas, 0.55, tint, 0.45, 0)[seen]
    shares = sorted(value.shares().items(), key=lambda item: -item[1])[:6]
    colors = class_colors()
    lines = []
    for name, share in shares:
        index = value.labels.index(name) if name in value.labels else -1
        number = index if index >= 0 else int(name) if name.isdigit() else NOT_SEEN
        red_green_blue = tuple(int(c) for c in colors[number])
        lines.append((f"{name}  {100 * share:.0f} %", red_green_blue))
    _write_lines(canvas, lines)
    return canvas


def class_colors() -> NDArray[np.uint8]:
    """Return 256 distinct colours, uint8 BGR [256, 3]; hues step by the golden ratio."""
    hues = (np.arange(256) * 0.618034 * 180 % 180).astype(np.uint8)
    hsv = np.dstack([hues, np.full(256, 170, np.uint8), np.full(256, 255, np.uint8)])
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0], np.uint8)


def _write_lines(canvas: NDArray[np.uint8], lines: list[tuple[str, tuple[int, ...]]]) -> None:
    """Write coloured text in the upper left corner on a darkened field."""
    if not lines:
        return
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
