"""Video4Linux cameras: `0`, `/dev/video0`, `v4l2:///dev/video0?width=1280&height=720&rate=30`.

Options: ``width`` and ``height``, ``rate`` in Hz, ``format`` (``mjpg`` or ``yuyv``), ``exposure``
(``auto``, or milliseconds). Without them the driver's own mode is taken. The description says what
the driver gave, and what was asked for where that differs.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import cv2

from edgekit.errors import SourceError, UsageError
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.camera._opencv import CaptureCamera
from edgekit.runtime.camera._options import number, one_of, read_options, whole
from edgekit.runtime.camera._usb import DEV, device_of

# OpenCV waits that long for a driver, in whole seconds; it reads this at its first wait.
_WAIT = "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"
_OLDEST_NS = 10_000_000_000  # beyond it, a time stamp is of another clock
_MANUAL, _AUTO = 1, 3  # V4L2_EXPOSURE_MANUAL, and _APERTURE_PRIORITY, which is UVC's "auto"
_EXPOSURES_PER_MS = 10  # V4L2_CID_EXPOSURE_ABSOLUTE counts in 100 µs


def _exposure(text: str) -> float | None:
    """Read milliseconds, or None for ``auto``."""
    try:
        value: float | None = None if text.lower() == "auto" else number(0.1, 10_000)(text)
    except ValueError as error:
        raise ValueError(f"auto or milliseconds, {error}") from None
    return value


_OPTIONS = {
    "width": whole(16, 16384),
    "height": whole(16, 16384),
    "rate": number(0.1, 1000),
    "format": one_of("mjpg", "yuyv"),
    "exposure": _exposure,
}


class Camera(CaptureCamera):
    """A USB or built-in camera with one buffer, so that frames are fresh."""

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        address, options = read_options(uri, "?", _OPTIONS)
        if ("width" in options) != ("height" in options):
            raise UsageError(f"`source` {uri!r}: width and height belong together; give both")
        name = address.removeprefix("v4l2://")
        device = device_of(str(DEV / f"video{name}") if name.isdigit() else name)
        if not Path(device).exists():
            there = ", ".join(sorted(str(p) for p in DEV.glob("video*"))) or "none"
            raise SourceError(f"no camera {device}; cameras on this machine: {there}")
        os.environ.setdefault(_WAIT, str(math.ceil(timeouts.read_s)))
        capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise SourceError(
                f"cannot open camera {device}: it is in use, gives no video, or you may not read "
                "it; try: sudo usermod -aG video $USER"
            )
        _set(capture, options)
        super().__init__(capture, f"{device} ({_obtained(capture, options)})")

    def _captured_ns(self) -> int:
        """Return the kernel's stamp of the frame's buffer, which is taken as it arrives."""
        now_ns = time.monotonic_ns()
        stamp_ns = int(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        return stamp_ns if 0 <= now_ns - stamp_ns < _OLDEST_NS else now_ns


def _set(capture: cv2.VideoCapture, options: dict[str, Any]) -> None:
    """Ask the driver for a mode, in the order in which one choice limits the next."""
    if "format" in options:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*options["format"].upper()))
    if "width" in options:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, options["width"])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options["height"])
    if "rate" in options:
        capture.set(cv2.CAP_PROP_FPS, options["rate"])
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if "exposure" in options:
        milliseconds = options["exposure"]
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _AUTO if milliseconds is None else _MANUAL)
        if milliseconds is not None:
            capture.set(cv2.CAP_PROP_EXPOSURE, round(milliseconds * _EXPOSURES_PER_MS))


def _obtained(capture: cv2.VideoCapture, asked: dict[str, Any]) -> str:
    """Return the mode that the driver is in, and what was asked for where it did not follow."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    given: dict[str, Any] = {
        "width": int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        "height": int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        "rate": float(capture.get(cv2.CAP_PROP_FPS)),
        "format": code.to_bytes(4, "little").decode("latin-1").strip("\0 ").lower(),
    }
    if asked.get("exposure") is not None:
        given["exposure"] = float(capture.get(cv2.CAP_PROP_EXPOSURE)) / _EXPOSURES_PER_MS
    told = "{width}x{height} {format} at {rate:g} Hz".format(**given)
    told += f", exposure {given['exposure']:g} ms" if "exposure" in given else ""
    differs = [f"{k}={v}" for k, v in asked.items() if k in given and not _is_near(v, given[k])]
    return f"{told}; asked for {', '.join(differs)}" if differs else told


def _is_near(asked: Any, given: Any) -> bool:
    """Return whether a driver gave what was asked, or its nearest step (29.97 for 30 Hz)."""
    return bool(
        asked == given or (isinstance(asked, float) and math.isclose(asked, given, rel_tol=0.05))
    )
