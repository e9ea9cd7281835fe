"""A window: `display://`; closing it, q or Esc ends the run."""

from __future__ import annotations

import os

import cv2

from edgekit.errors import EnvironmentLacks
from edgekit.runtime.overlay import Annotator
from edgekit.runtime.stream import Result

_TITLE = "EdgeKit"


class Sink:
    """Shows each result in a window."""

    needs_pictures = True

    def __init__(self, uri: str, rate_hz: float | None) -> None:
        self._annotated = Annotator()
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise EnvironmentLacks(
                "`sink` display:// needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is "
                "set; write a file instead: --sink out.mp4"
            )
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise EnvironmentLacks(
                "`sink` display:// needs an OpenCV with windows, this one has none or cannot reach "
                "the display; install it with: pip install 'edgekit[desktop]'"
            ) from error

    def write(self, result: Result) -> None:
        cv2.imshow(_TITLE, self._annotated(result))
        key = cv2.waitKey(1) & 0xFF
        if key in (27, ord("q")) or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
            raise KeyboardInterrupt

    def close(self) -> None:
        cv2.destroyAllWindows()
