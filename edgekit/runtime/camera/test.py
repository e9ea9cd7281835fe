"""Generated frames: `test://640x480@30`, without `@30` as fast as they are taken.

Options: ``pattern=moving`` (the default), ``still``, ``black`` or ``noise`` (a night picture), and
``stamp=on``, which draws each frame's capture time into it (`edgekit.runtime.timestamp`).
"""

from __future__ import annotations

import re
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.camera._options import one_of, read_options
from edgekit.runtime.timestamp import draw_timestamp

_OPTIONS = {"pattern": one_of("moving", "still", "black", "noise"), "stamp": one_of("on", "off")}


class Camera:
    """A moving colour pattern with the frame's number; with a rate, paced like a camera.

    A paced camera does not wait for a slow reader: frames whose time has passed are skipped.
    """

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        address, options = read_options(uri, "?", _OPTIONS)
        form = re.fullmatch(r"test://(\d+)x(\d+)(?:@(\d+(?:\.\d+)?))?", address, re.ASCII)
        width, height = (int(form[1]), int(form[2])) if form else (0, 0)
        rate_hz = float(form[3]) if form and form[3] else None
        if not (16 <= width <= 8192 and 16 <= height <= 8192 and (rate_hz is None or rate_hz > 0)):
            raise UsageError(
                f"`source` {uri!r}: expected test://WIDTHxHEIGHT@RATE, sides 16 to 8192, "
                "like test://640x480@30"
            )
        self.live = rate_hz is not None
        self.rate_hz = rate_hz
        self.description = uri
        self._pattern = options.get("pattern", "moving")
        self._stamps = options.get("stamp") == "on"
        self._index = -1
        self._start_ns = self._captured_ns = time.monotonic_ns()
        # Twice as wide as a frame, which is a window in it.
        self._wide = _wide_picture(self._pattern, width, height)

    def grab(self) -> int | None:
        self._index += 1
        self._captured_ns = time.monotonic_ns() if self.rate_hz is None else self._wait()
        return self._captured_ns

    def retrieve(self) -> NDArray[np.uint8]:
        width = self._wide.shape[1] // 2
        steps = {"moving": 2, "noise": 37}.get(self._pattern, 0)
        left = steps * self._index % width
        frame = self._wide[:, left : left + width].copy()
        if self._pattern == "moving":
            _draw_ball_and_number(frame, self._index)
        if self._stamps:
            draw_timestamp(frame, self._captured_ns)
        return frame

    def close(self) -> None:
        self._start_ns = time.monotonic_ns()

    def _wait(self) -> int:
        """Wait until a frame is due, and return when it was."""
        period_ns = 1e9 / (self.rate_hz or 1.0)
        now_ns = time.monotonic_ns()
        self._index = max(self._index, int((now_ns - self._start_ns) / period_ns))
        due_ns = self._start_ns + round(self._index * period_ns)
        if due_ns > now_ns:
            time.sleep((due_ns - now_ns) / 1e9)
        return due_ns


def _wide_picture(pattern: str, width: int, height: int) -> NDArray[np.uint8]:
    wide: NDArray[np.uint8] = np.zeros((height, 2 * width, 3), np.uint8)
    if pattern == "noise":
        return np.random.default_rng(0).integers(4, 13, wide.shape, np.uint8)
    if pattern != "black":
        ramp = np.linspace(0, 255, 2 * width).astype(np.uint8)
        rows = np.linspace(0, 255, height).astype(np.uint8)
        wide[..., 0] = np.minimum(ramp, 255 - ramp)
        wide[..., 1] = rows[:, None]
        wide[..., 2] = 255 - wide[..., 0]
    return wide


def _draw_ball_and_number(frame: NDArray[np.uint8], index: int) -> None:
    height, width = frame.shape[:2]
    centre = (5 * index % width, height // 2)
    cv2.circle(frame, centre, max(4, height // 8), (255, 255, 255), -1, cv2.LINE_AA)
    scale = max(0.4, height / 480)
    place = (8, int(28 * scale))
    cv2.putText(frame, str(index), place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 2)
