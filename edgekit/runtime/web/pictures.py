"""Each source's newest picture with its result drawn on it, encoded once for all who look."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import cv2
import msgspec
import numpy as np

from edgekit.errors import DataError
from edgekit.runtime.overlay import History, annotate
from edgekit.runtime.stream import Result
from edgekit.runtime.web.board import Board

RATE_HZ = 15.0
_WIDEST = 960
_QUALITY = 75


class Picture(NamedTuple):
    """A JPEG and the number of the frame in it."""

    frame_id: int
    jpeg: bytes


class Pictures:
    """One source's pictures. They are made only while somebody looks, at most `RATE_HZ` a second.

    Args:
        board: has the newest result.
        number: of the source on the board.
    """

    def __init__(self, board: Board, number: int) -> None:
        self.viewers = 0
        self._board = board
        self._number = number
        self._newest: Picture | None = None
        self._news = asyncio.Event()
        self._maker: asyncio.Task[None] | None = None

    async def after(self, frame_id: int | None) -> Picture:
        """Return the newest picture as soon as it is another one than that of `frame_id`."""
        while True:
            # Again after each wait: it may have ended just before this viewer was counted.
            if self._maker is None or self._maker.done():
                self._maker = asyncio.create_task(self._make())
            if self._newest is not None and self._newest.frame_id != frame_id:
                break
            maker = self._maker
            await self._news.wait()
            if maker.done():
                maker.result()  # what is wrong with a frame must not wait for ever
        return self._newest

    async def _make(self) -> None:
        """Encode what is new until nobody looks any more."""
        idle = 0
        try:
            while idle < 2 * RATE_HZ:
                found = self._board.newest(self._number)
                shown = None if self._newest is None else self._newest.frame_id
                if found is not None and found[0].frame_id != shown:
                    jpeg = await asyncio.to_thread(encoded, *found)
                    self._newest = Picture(found[0].frame_id, jpeg)
                    self._tell()
                idle = 0 if self.viewers else idle + 1
                await asyncio.sleep(1 / RATE_HZ)
            self._newest = None  # the next one who looks gets no old picture
        finally:
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def encoded(result: Result, history: History) -> bytes:
    """Return an annotated result as a JPEG of at most 960 pixels in width."""
    try:
        drawn = annotate(result, history)
    except DataError:  # no picture, such as a step of a sequence: the value alone
        blank = np.zeros((360, 640, 3), np.uint8)
        drawn = annotate(msgspec.structs.replace(result, frame=blank, roi=None), history)
    if drawn.shape[1] > _WIDEST:
        height = max(1, round(drawn.shape[0] * _WIDEST / drawn.shape[1]))
        size = (_WIDEST, height)
        drawn = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, jpeg = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done  # every uint8 picture with an area has a JPEG
    return jpeg.tobytes()
