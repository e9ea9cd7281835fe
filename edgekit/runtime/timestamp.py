"""A time that travels in the picture itself, so that age is measured through any encoder.

The bottom quarter of a frame holds 64 black or white blocks, in four rows of 16: the microseconds
of the time (48 bits) and a checksum (16 bits). Blocks are that large so that they survive h264,
JPEG and changes of size.
"""

from __future__ import annotations

import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

_COLUMNS, _ROWS = 16, 4
_SHIFTS = np.arange(63, -1, -1, dtype=np.uint64)


def draw_timestamp(frame: NDArray[np.uint8], at_ns: int) -> None:
    """Draw a time over the bottom quarter of a frame.

    Args:
        frame: uint8 BGR [h, w, 3], at least 16x16; changed in place.
        at_ns: what `time.monotonic_ns` gave; the last three digits are lost.
    """
    at_us = at_ns // 1000 % (1 << 48)
    word = np.uint64(at_us << 16 | _checksum(at_us))
    bits = ((word >> _SHIFTS) & np.uint64(1)).astype(np.uint8).reshape(_ROWS, _COLUMNS)
    strip = _strip(frame)
    size = (strip.shape[1], strip.shape[0])
    strip[:] = cv2.resize(255 * bits, size, interpolation=cv2.INTER_NEAREST)[..., None]


def read_timestamp(frame: NDArray[np.uint8]) -> int | None:
    """Return the time in ns that `draw_timestamp` drew, or None if the checksum does not fit.

    Args:
        frame: uint8 BGR [h, w, 3], perhaps encoded, decoded and resized since.
    """
    strip = _strip(frame)
    if strip.size == 0:
        return None
    means = cv2.resize(strip, (_COLUMNS, _ROWS), interpolation=cv2.INTER_AREA).mean(axis=2)
    word = int.from_bytes(np.packbits(means > 127).tobytes(), "big")
    at_us = word >> 16
    return 1000 * at_us if word & 0xFFFF == _checksum(at_us) else None


def _strip(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[0] // 4 // _ROWS * _ROWS, frame.shape[1] // _COLUMNS * _COLUMNS
    return frame[frame.shape[0] - height :, :width]


def _checksum(at_us: int) -> int:
    return zlib.crc32(at_us.to_bytes(6, "big")) & 0xFFFF
