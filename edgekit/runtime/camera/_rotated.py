"""A source whose pictures are turned: the option `rotate` of every source."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.runtime import camera

_CODES = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


class Camera:
    """The frames of another source, turned clockwise by 90, 180 or 270 degrees."""

    def __init__(self, source: camera.Camera, degrees: int) -> None:
        if not getattr(source, "gives_pictures", True):
            source.close()
            raise UsageError(f"`source` {source.description!r} gives no pictures: take rotate away")
        self._source = source
        self._code = _CODES[degrees]
        self.live = source.live
        self.rate_hz = source.rate_hz
        self.may_be_read_ahead = getattr(source, "may_be_read_ahead", False)
        self.inter_coded = getattr(source, "inter_coded", False)
        self.description = f"{source.description} (rotated by {degrees} degrees)"

    def grab(self) -> int | None:
        return self._source.grab()

    def retrieve(self) -> NDArray[np.uint8]:
        return np.asarray(cv2.rotate(self._source.retrieve(), self._code), np.uint8)

    def decode_faster(self) -> bool:
        return camera.decode_faster(self._source)

    def close(self) -> None:
        self._source.close()
