"""What the sources that OpenCV's VideoCapture reads have in common."""

from __future__ import annotations

import os
import threading
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, SourceError
from edgekit.runtime.camera import Timeouts, without_secrets

# OpenCV takes decoder options from this variable alone, and reads it while opening. From 4.7 on it
# takes the number of a decoder's threads besides; Debian 12 and Ubuntu 24.04 have 4.6.
_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_LOW_DELAY = "flags;low_delay|fpsprobesize;3"
N_THREADS: int | None = getattr(cv2, "CAP_PROP_N_THREADS", None)
opening = threading.Lock()


class CaptureCamera:
    """A `Camera` over a VideoCapture that a subclass has opened."""

    live = True
    inter_coded = False

    def __init__(self, capture: cv2.VideoCapture, description: str) -> None:
        self._capture = capture
        self.description = description
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = rate_hz if 0 < rate_hz <= 1000 else None

    def grab(self) -> int | None:
        if self._capture.grab():
            return self._captured_ns()
        if self.live:
            raise SourceError(f"{self.description} gives no more frames")
        return None

    def retrieve(self) -> NDArray[np.uint8]:
        found, frame = self._capture.retrieve()
        if not found or frame is None:
            raise DataError(f"a frame of {self.description} cannot be decoded")
        return np.asarray(frame, np.uint8)

    def close(self) -> None:
        self._capture.release()

    def _captured_ns(self) -> int:
        return time.monotonic_ns()


def timeout_settings(timeouts: Timeouts) -> list[int]:
    """Return the time-outs as VideoCapture takes them when it opens."""
    return [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        int(timeouts.open_s * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        int(timeouts.read_s * 1000),
    ]


class NetworkCamera(CaptureCamera):
    """A network stream through FFMPEG, with low-delay options and time-outs.

    Three frames are enough to guess the rate: twenty take 0.7 s of opening, and with fewer the
    guess is wrong. What was read for that is kept: `nobuffer`, which low-delay recipes have, throws
    the first key frame away and waits for the next one, and makes no frame younger afterwards. A
    smaller `probesize` would keep a stream that is joined between two key frames from opening.

    Args:
        uri: as FFMPEG takes it.
        timeouts: to open, and for each frame.
        options: more of FFMPEG's, as ``key;value|key;value``.

    Raises:
        SourceError: no video stream within the time-out.
    """

    inter_coded = True

    def __init__(self, uri: str, timeouts: Timeouts, options: str = "") -> None:
        description = without_secrets(uri)
        settings = timeout_settings(timeouts)
        if N_THREADS is not None:  # frame threads of a decoder each hold back one frame
            settings += [N_THREADS, 1]
        with opening:
            before = os.environ.get(_OPTIONS)
            os.environ.setdefault(_OPTIONS, "|".join(filter(None, (_LOW_DELAY, options))))
            try:
                capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, settings)
            finally:
                if before is None:
                    del os.environ[_OPTIONS]
        if not capture.isOpened():
            raise SourceError(
                f"cannot open {description} within {timeouts.open_s:g} s: no answer, or no video "
                "stream; check the address, or raise --open-timeout"
            )
        super().__init__(capture, description)
        self._read_s = timeouts.read_s

    def grab(self) -> int | None:
        started_s = time.monotonic()
        grabbed = self._capture.grab()
        # When reading times out, FFMPEG first gives what its decoder still holds: an old frame.
        if time.monotonic() - started_s >= self._read_s:
            raise SourceError(f"{self.description} gave no frame within {self._read_s:g} s")
        if not grabbed:
            raise SourceError(f"{self.description} gives no more frames")
        return self._captured_ns()
