"""Annotated video: `.mp4`, `.avi`, `.mkv`, `.mov`."""

from __future__ import annotations

import secrets
from pathlib import Path

import cv2

from edgekit.atomic import output_errors
from edgekit.errors import OutputError
from edgekit.runtime.overlay import Annotator
from edgekit.runtime.stream import Result


class Sink:
    """Writes MPEG-4 (AVI: Motion JPEG) into a hidden sibling that takes the name when closed.

    The size is the first frame's; later frames of another size are resized.
    """

    needs_pictures = True

    def __init__(self, uri: str, rate_hz: float | None) -> None:
        self._annotated = Annotator()
        self._path = Path(uri.removeprefix("video://"))
        self._partial = self._path.with_name(f".{secrets.token_hex(4)}.{self._path.name}")
        self._rate_hz = rate_hz or 30.0
        self._writer: cv2.VideoWriter | None = None
        self._frames = 0
        with output_errors(self._path):
            self._partial.touch(exist_ok=False)

    def write(self, result: Result) -> None:
        picture = self._annotated(result)
        if self._writer is None:
            self._open(picture.shape[1], picture.shape[0])
        assert self._writer is not None
        if picture.shape[:2] != (self._height, self._width):
            picture = cv2.resize(picture, (self._width, self._height))  # type: ignore[assignment]
        self._writer.write(picture)
        self._frames += 1

    def _open(self, width: int, height: int) -> None:
        # The codecs want even sides.
        self._width, self._height = width - width % 2, height - height % 2
        code = "MJPG" if self._path.suffix.lower() == ".avi" else "mp4v"
        writer = cv2.VideoWriter(
            str(self._partial),
            cv2.VideoWriter.fourcc(*code),
            self._rate_hz,
            (self._width, self._height),
        )
        if not writer.isOpened():
            raise OutputError(
                f"cannot write {self._path}: this OpenCV has no encoder for {width}x{height} "
                f"pixels as {self._path.suffix}"
            )
        self._writer = writer

    def close(self) -> None:
        writer, self._writer = self._writer, None
        try:
            if writer is None:
                return
            writer.release()
            self._verify()
            with output_errors(self._path):
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)

    def _verify(self) -> None:
        """The writer swallows a full disk; a video that is whole can be opened and counted."""
        check = cv2.VideoCapture(str(self._partial))
        # A header may promise frames that the disk did not take: go through them, not decoding.
        found = 0
        while found < self._frames and check.grab():
            found += 1
        check.release()
        # Ctrl-C between writing a frame and counting it leaves one more than was counted.
        if found < self._frames:
            raise OutputError(
                f"cannot write {self._path}: the video came out incomplete, most likely the disk "
                "is full; free space or choose another place"
            )
