"""Pictures that a live source gives although it sees nothing new: black, repeated, frozen.

A sensor's noise never gives the same picture twice; a grabber without signal, a driver that hands
out an old buffer and a decoder that fills a gap do. Measured on 90 frames of a still scene each,
with noise of 0.5 to 2.5 levels, by day and at night: two JPEG pictures were never equal, at any
quality, but h264 leaves out what changes little, and up to 58 pictures in a row (one less than the
distance of key frames) were equal bit for bit. So equal pictures say nothing of an inter-coded
stream before several key frames must have passed.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Fault = Literal["black", "repeated", "frozen"]

_ROWS = 32  # compared: 123 kB of a 1280x720 frame
_RECENT = 8  # drivers have 4 buffers or so, which come round again
_COLUMNS = 64
# Without signal: mean 0 to 16, deviation at most 0.02. Deep night, sigma 1, after h264: from 0.54.
_BLACK_MEAN, _BLACK_DEVIATION = 24.0, 0.25
_FROZEN_NS, _FROZEN_INTER_CODED_NS = 2_000_000_000, 10_000_000_000
_FROZEN_FRAMES = 5


class Freshness:
    """Tells pictures that are not fresh; for live sources alone, since still pictures may repeat.

    ``black``: dark and without any noise. ``repeated``: equal to one of the last 8 frames.
    ``frozen``: equal to the frame before for 2 s, of an inter-coded stream for 10 s.

    Equal means: in 32 rows, spread over the frame. Of a source without noise (a screen, a drawing)
    a change between those rows is not seen.

    Args:
        inter_coded: pictures come out of a video decoder, as of h264: they are never ``repeated``.

    >>> freshness = Freshness()
    >>> freshness.check(np.zeros((480, 640, 3), np.uint8), captured_ns=0)
    'black'
    """

    def __init__(self, inter_coded: bool = False) -> None:
        self._inter_coded = inter_coded
        self._frozen_ns = _FROZEN_INTER_CODED_NS if inter_coded else _FROZEN_NS
        self._recent: deque[bytes] = deque(maxlen=_RECENT)
        self._since_ns = 0  # when the picture that stays came first
        self._equal_frames = 0

    @classmethod
    def of(cls, camera: Any) -> Freshness:
        """Return one for an open camera, which may say that it is ``inter_coded``."""
        return cls(inter_coded=getattr(camera, "inter_coded", False))

    def check(self, frame: NDArray[Any], captured_ns: int) -> Fault | None:
        """Return why a frame is not fresh, or None if it is.

        Args:
            frame: uint8 BGR [h, w, 3]; anything else is taken for fresh.
            captured_ns: when it was captured, `time.monotonic_ns`.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.size == 0:
            return None
        rows = frame[:: -(-frame.shape[0] // _ROWS)]
        content = rows.tobytes()
        is_equal = bool(self._recent) and content == self._recent[-1]
        is_old = is_equal or content in self._recent
        self._recent.append(content)
        if not is_equal or captured_ns < self._since_ns:
            self._since_ns = captured_ns
            self._equal_frames = 0
        self._equal_frames += is_equal
        if _is_black(rows):
            return "black"
        stays_ns = captured_ns - self._since_ns
        if self._equal_frames >= _FROZEN_FRAMES and stays_ns >= self._frozen_ns:
            return "frozen"
        return "repeated" if is_old and not self._inter_coded else None


def _is_black(rows: NDArray[np.uint8]) -> bool:
    # A copy, because OpenCV would copy all of it to get rid of the steps.
    points = np.ascontiguousarray(rows[:, :: -(-rows.shape[1] // _COLUMNS)])
    mean, deviation = cv2.meanStdDev(points)
    return bool(mean.max() <= _BLACK_MEAN and deviation.max() <= _BLACK_DEVIATION)
