"""Video4Linux cameras: `0`, `/dev/video0`, `v4l2:///dev/video0`."""

from __future__ import annotations

from pathlib import Path

import cv2

from edgekit.errors import SourceError
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.camera._opencv import CaptureCamera


class Camera(CaptureCamera):
    """A USB or built-in camera in its default mode, with one buffer, so that frames are fresh."""

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        name = uri.removeprefix("v4l2://")
        device = f"/dev/video{name}" if name.isdigit() else name
        if not Path(device).exists():
            there = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "none"
            raise SourceError(f"no camera {device}; cameras on this machine: {there}")
        capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise SourceError(
                f"cannot open camera {device}: it is in use, gives no video, or you may not read "
                "it; try: sudo usermod -aG video $USER"
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        super().__init__(capture, device)
