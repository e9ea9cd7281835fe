"""Frames from Python: any iterable of arrays."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from numpy.typing import NDArray


class Camera:
    """Every item of an iterable: uint8 BGR frames, or float model inputs."""

    live = False
    rate_hz: float | None = None
    description = "an iterable"

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames: Iterator[Any] = iter(frames)

    def grab(self) -> int | None:
        try:
            self._frame = next(self._frames)
        except StopIteration:
            return None
        return time.monotonic_ns()

    def retrieve(self) -> NDArray[Any]:
        frame: NDArray[Any] = self._frame
        return frame

    def close(self) -> None:
        self._frames = iter(())
