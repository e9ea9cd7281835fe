"""Video files: a path, or `file:///path#rotate=90`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import cv2

from edgekit.errors import DataError
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.camera._opencv import CaptureCamera
from edgekit.runtime.camera._options import read_options


class Camera(CaptureCamera):
    """Every frame of a video file, as fast as it is taken."""

    live = False
    may_be_read_ahead = True

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        path = Path(uri)
        if "://" in uri:
            address, _ = read_options(uri, "#", {})
            path = Path(unquote(address.removeprefix("file://")))
        if not path.is_file():
            raise DataError(f"no such video: {path}")
        capture = cv2.VideoCapture(str(path))
        if not capture.isOpened():
            raise DataError(
                f"cannot open video {path} ({path.stat().st_size} bytes): damaged, or in a format "
                "that this OpenCV does not decode"
            )
        super().__init__(capture, str(path))
