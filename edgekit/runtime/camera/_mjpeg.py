"""MJPEG over HTTP, part by part: a frame that is dropped costs no decoding.

Form: multipart/x-mixed-replace, as browsers took it since 1995; parts as in RFC 2046, section 5.1.
"""

from __future__ import annotations

import http.client
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, SourceError
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.camera._http import Deadline

_LONGEST_LINE = 1 << 16
_LARGEST = 1 << 26  # bytes of a picture
_JPEG_BEGINS, _JPEG_ENDS = b"\xff\xd8", b"\xff\xd9"


class MjpegCamera:
    """The pictures of a multipart answer.

    Args:
        answer: to a GET, with a body of parts.
        description: for messages, without passwords.
        timeouts: `read_s` for each picture.
        deadline: of the answer; put off with each picture.

    Raises:
        SourceError: no picture before the deadline.
    """

    live = True
    rate_hz: float | None = 25.0  # no server says it; FFMPEG guesses the same

    def __init__(
        self,
        answer: http.client.HTTPResponse,
        description: str,
        timeouts: Timeouts,
        deadline: Deadline,
    ) -> None:
        self.description = description
        self._answer = answer
        self._read_s = timeouts.read_s
        self._deadline = deadline
        # Some servers write the dashes into the parameter too.
        self._boundary = b"--" + _boundary_of(answer).lstrip("-").encode("latin-1")
        self._at_boundary = False
        try:
            # Opened means that pictures come: a server that only says hello is no source.
            self._next: tuple[int, bytes] | None = self._picture(timeouts.open_s)
        except BaseException:
            self.close()
            raise
        self._picture_bytes = b""

    def grab(self) -> int | None:
        if self._next is None:
            self._deadline.put_off(self._read_s)
            self._next = self._picture(self._read_s)
        (captured_ns, self._picture_bytes), self._next = self._next, None
        return captured_ns

    def retrieve(self) -> NDArray[np.uint8]:
        content = self._picture_bytes
        # OpenCV fills what is missing of a picture with grey, and says nothing.
        if content.startswith(_JPEG_BEGINS) and _JPEG_ENDS not in content[-256:]:
            raise DataError(f"a frame of {self.description} was cut off after {len(content)} bytes")
        try:
            frame = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            frame = None
        if frame is None:
            raise DataError(f"a frame of {self.description} cannot be decoded")
        return np.asarray(frame, np.uint8)

    def close(self) -> None:
        self._answer.close()

    def _picture(self, limit_s: float) -> tuple[int, bytes]:
        """Return when the next picture's header came, and the picture."""
        try:
            while True:
                captured_ns, headers = self._headers()
                content = self._content(headers.get("content-length"))
                if content and headers.get("content-type", "image/").startswith("image/"):
                    return captured_ns, content
        except TimeoutError:
            raise SourceError(f"{self.description} gave no frame within {limit_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(f"{self.description} broke off: {type(error).__name__}") from error

    def _headers(self) -> tuple[int, dict[str, str]]:
        while not self._at_boundary:
            self._at_boundary = self._line().startswith(self._boundary)
        self._at_boundary = False
        # Many servers write a boundary right behind the picture before: only what follows it
        # belongs to the next picture.
        line = self._line()
        captured_ns = time.monotonic_ns()
        headers: dict[str, str] = {}
        while line.strip():
            key, _, value = line.decode("latin-1").partition(":")
            headers[key.strip().lower()] = value.strip().lower()
            line = self._line()
        return captured_ns, headers

    def _content(self, length: str | None) -> bytes:
        if length is not None:
            count = int(length)
            if not 0 <= count <= _LARGEST:
                raise SourceError(
                    f"{self.description} sends a frame of {count} bytes; at most {_LARGEST}"
                )
            content = self._answer.read(count)
            if len(content) < count:
                raise self._ended()
            return content
        lines: list[bytes] = []
        size = 0
        while True:
            line = self._line()
            if line.startswith(self._boundary):
                self._at_boundary = True
                return b"".join(lines).removesuffix(b"\n").removesuffix(b"\r")
            size += len(line)
            if size > _LARGEST:
                raise SourceError(f"{self.description} sends a frame of more than {_LARGEST} bytes")
            lines.append(line)

    def _line(self) -> bytes:
        line = self._answer.readline(_LONGEST_LINE)
        if not line:
            raise self._ended()
        return line

    def _ended(self) -> SourceError:
        return SourceError(f"{self.description} gives no more frames")


def is_multipart(answer: http.client.HTTPResponse) -> bool:
    """Return whether an answer's body is one of parts with a boundary."""
    return answer.headers.get_content_maintype() == "multipart" and bool(_boundary_of(answer))


def _boundary_of(answer: http.client.HTTPResponse) -> str:
    return str(answer.headers.get_param("boundary", "")).strip()
