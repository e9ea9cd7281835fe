"""Frames or steps from Python: any iterable of arrays."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from numpy.typing import NDArray


class Camera:
    """Every item of an iterable: uint8 BGR frames, float model inputs, or steps of a sequence.

    None between two steps ends a sequence.
    """

    live = False
    rate_hz: float | None = None
    description = "an iterable"

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames: Iterator[Any] = iter(frames)
        self.starts_sequence = False

    def grab(self) -> int | None:
        self.starts_sequence = False
        for frame in self._frames:
            if frame is not None:
                self._frame = frame
                return time.monotonic_ns()
            self.starts_sequence = True
        return None

    def retrieve(self) -> NDArray[Any]:
        frame: NDArray[Any] = self._frame
        return frame

    def close(self) -> None:
        self._frames = iter(())
