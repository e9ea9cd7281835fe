"""Generated frames: `test://640x480@30`, without `@30` as fast as they are taken."""

from __future__ import annotations

import re
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.runtime.camera import Timeouts


class Camera:
    """A moving colour pattern with the frame's number; with a rate, paced like a camera.

    A paced camera does not wait for a slow reader: frames whose time has passed are skipped.
    """

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        form = re.fullmatch(r"test://(\d+)x(\d+)(?:@(\d+(?:\.\d+)?))?", uri)
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
        self._index = -1
        self._start_ns = time.monotonic_ns()
        ramp = np.linspace(0, 255, 2 * width).astype(np.uint8)
        rows = np.linspace(0, 255, height).astype(np.uint8)
        self._wide: NDArray[np.uint8] = np.empty((height, 2 * width, 3), np.uint8)
        self._wide[..., 0] = np.minimum(ramp, 255 - ramp)
        self._wide[..., 1] = rows[:, None]
        self._wide[..., 2] = 255 - self._wide[..., 0]

    def grab(self) -> int | None:
        self._index += 1
        if self.rate_hz is None:
            return time.monotonic_ns()
        period_ns = 1e9 / self.rate_hz
        now_ns = time.monotonic_ns()
        self._index = max(self._index, int((now_ns - self._start_ns) / period_ns))
        due_ns = self._start_ns + round(self._index * period_ns)
        if due_ns > now_ns:
            time.sleep((due_ns - now_ns) / 1e9)
        return max(due_ns, self._start_ns)

    def retrieve(self) -> NDArray[np.uint8]:
        height, width = self._wide.shape[0], self._wide.shape[1] // 2
        left = 2 * self._index % width
        frame = self._wide[:, left : left + width].copy()
        centre = (5 * self._index % width, height // 2)
        cv2.circle(frame, centre, max(4, height // 8), (255, 255, 255), -1, cv2.LINE_AA)
        scale = max(0.4, height / 480)
        place = (8, int(28 * scale))
        cv2.putText(frame, str(self._index), place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 2)
        return frame

    def close(self) -> None:
        self._start_ns = time.monotonic_ns()
