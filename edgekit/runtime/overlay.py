"""Predictions drawn on frames, for people."""

from __future__ import annotations

from collections import defaultdict, deque
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.runtime.postprocess import NOT_SEEN, SegmentationMap
from edgekit.runtime.stream import Result

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE = (255, 255, 255)
_LINES = 3
_MAP_LINES = 6
_RATE_OVER = 30  # results
_TRACE_STEPS, _TRACES = 150, 4
_LEAST_HEIGHT = 120


class History:
    """What the pictures of one source show of the results before: their rate, and their numbers."""

    def __init__(self) -> None:
        self._captured_ns: deque[int] = deque(maxlen=_RATE_OVER)
        self._numbers: deque[NDArray[np.float32]] = deque(maxlen=_TRACE_STEPS)

    def add(self, result: Result) -> None:
        """Take the next result."""
        self._captured_ns.append(result.captured_ns)
        if isinstance(result.value, np.ndarray) and result.value.dtype.kind == "f":
            numbers = result.value.reshape(-1)[:_TRACES].astype(np.float32)
            if self._numbers and self._numbers[-1].shape != numbers.shape:
                self._numbers.clear()
            self._numbers.append(numbers)

    def copy(self) -> History:
        """Return one that does not change when this one does."""
        other = History()
        other._captured_ns = self._captured_ns.copy()
        other._numbers = self._numbers.copy()
        return other

    @property
    def fps(self) -> float:
        """Results a second, by when their frames were captured; 0 where that cannot be told."""
        times = list(self._captured_ns)
        spent_ns = times[-1] - times[0] if times else 0
        return (len(times) - 1) / spent_ns * 1e9 if spent_ns > 0 else 0.0

    def trace(self) -> NDArray[np.float32]:
        """Return the first numbers of the results before, [steps, numbers]; both may be 0."""
        numbers = list(self._numbers)
        return np.stack(numbers) if numbers else np.empty((0, 0), np.float32)


class Annotator:
    """`annotate` for sinks, which get every result of all sources: it keeps their histories."""

    def __init__(self) -> None:
        self._histories: defaultdict[str, History] = defaultdict(History)

    def __call__(self, result: Result) -> NDArray[np.uint8]:
        """Return the annotated picture of the next result."""
        history = self._histories[result.source]
        history.add(result)
        return annotate(result, history)


def annotate(result: Result, history: History) -> NDArray[np.uint8]:
    """Return a result's frame with value, region, rate and age on it, uint8 BGR [h, w, 3].

    Numbers are drawn as curves over the results before, each from its least to its largest.

    Args:
        result: a picture's.
        history: of the source, `result` included.

    Raises:
        DataError: the frame is no picture.
    """
    canvas = draw(result.frame, result.value, result.roi)
    if canvas.shape[0] < _LEAST_HEIGHT:
        return canvas  # no room beside the value
    _draw_trace(canvas, history.trace())
    rate = f"{history.fps:.1f} fps, " if history.fps else ""
    text = f"{rate}age {result.age_ms:.0f} ms{', LATE' if result.late else ''}"
    _write_lines(canvas, [(text, _WHITE)], at_bottom=True)
    return canvas


def _draw_trace(canvas: NDArray[np.uint8], trace: NDArray[np.float32]) -> None:
    """Draw curves into the lower half, above the line of text."""
    height, width = canvas.shape[:2]
    if len(trace) < 2:
        return
    foot, tall = height - round(0.15 * height), 0.35 * height
    x = np.linspace(0, width - 1, _TRACE_STEPS)[: len(trace)]
    for number, values in enumerate(trace.T):
        finite = np.nan_to_num(values, posinf=0, neginf=0)
        spread = float(np.ptp(finite)) or 1.0
        y = foot - tall * (finite - finite.min()) / spread
        points = np.stack([x, y], 1).round().astype(np.int32)
        color = class_colors()[number].tolist()
        cv2.polylines(canvas, [points], False, color, 1 + int(height > 600), cv2.LINE_AA)


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


def _write_lines(
    canvas: NDArray[np.uint8],
    lines: list[tuple[str, tuple[int, ...]]],
    *,
    at_bottom: bool = False,
) -> None:
    """Write coloured text in the upper or lower left corner on a darkened field."""
    scale = max(0.35, min(canvas.shape[:2]) / 600)
    step = round(34 * scale)
    widest = max(cv2.getTextSize(text, _FONT, scale, 1)[0][0] for text, _ in lines)
    tall = step * len(lines) + step // 2
    part = canvas[-tall:] if at_bottom else canvas[:tall]
    field = part[:, : widest + step]
    field[...] = field // 3
    for number, (text, color) in enumerate(lines, 1):
        # Hershey fonts hold ASCII only; other characters would become question marks anyway.
        plain = text.encode("ascii", "replace").decode()
        place = (step // 2, step * number - step // 8)
        cv2.putText(part, plain, place, _FONT, scale, color, 1 + int(scale > 0.8), cv2.LINE_AA)
