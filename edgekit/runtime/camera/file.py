"""Video files: a path, or `file:///path#rotate=90`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import cv2

from edgekit.errors import DataError
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.camera._opencv import N_THREADS, CaptureCamera, opening
from edgekit.runtime.camera._options import read_options
from edgekit.targets.processors import allowed_cpus


class Camera(CaptureCamera):
    """Every frame of a video file, as fast as it is taken.

    One thread decodes: that costs 0.5 of 4.4 ms of CPU time less than two do (h264, 1280x720), and
    leaves the other cores to the model. In a loop that only reads, two threads take 0.8 of 3.8 ms
    less by the clock: that is what `decode_faster` is for.
    """

    live = False
    may_be_read_ahead = True

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        path = Path(uri)
        if "://" in uri:
            address, _ = read_options(uri, "#", {})
            path = Path(unquote(address.removeprefix("file://")))
        if not path.is_file():
            raise DataError(f"no such video: {path}")
        single = _open_on_one_thread(path)
        capture = single or cv2.VideoCapture(str(path))
        if not capture.isOpened():
            raise DataError(
                f"cannot open video {path} ({path.stat().st_size} bytes): damaged, or in a format "
                "that this OpenCV does not decode"
            )
        super().__init__(capture, str(path))
        self._path = path
        self._may_be_faster = single is not None and len(allowed_cpus()) > 1
        self._grabbed = 0

    def grab(self) -> int | None:
        stamp_ns = super().grab()
        self._grabbed += stamp_ns is not None
        return stamp_ns

    def decode_faster(self) -> bool:
        """Open the file again, with the decoder's own choice of threads, at the same frame.

        Frames before it are decoded once more: seeking is not exact in every format.
        """
        if not self._may_be_faster:
            return False
        self._may_be_faster = False
        if not opening.acquire(blocking=False):  # a stream: the environment holds its options
            return False
        try:
            capture = cv2.VideoCapture(str(self._path))
        finally:
            opening.release()
        skipped = all(capture.grab() for _ in range(self._grabbed))
        if not (capture.isOpened() and skipped and _place(capture) == _place(self._capture)):
            capture.release()
            return False
        self._capture.release()
        self._capture = capture
        return True


def _open_on_one_thread(path: Path) -> cv2.VideoCapture | None:
    """Return the opened file, or None where its decoder's threads cannot be chosen."""
    # Where another reader is to come first (OPENCV_VIDEOIO_PRIORITY_LIST), it does.
    if N_THREADS is None or cv2.CAP_FFMPEG not in cv2.videoio_registry.getStreamBackends()[:1]:
        return None
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [N_THREADS, 1])
    return capture if capture.isOpened() else None


def _place(capture: cv2.VideoCapture) -> tuple[float, float]:
    """Return the number and the time of the frame that was grabbed."""
    return capture.get(cv2.CAP_PROP_POS_FRAMES), capture.get(cv2.CAP_PROP_POS_MSEC)
