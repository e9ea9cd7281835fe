"""How frames get from a camera to the model: every frame, or the newest one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args

import msgspec
from numpy.typing import NDArray

from edgekit.errors import DataError, EdgeKitError, SourceError
from edgekit.runtime.camera import Camera
from edgekit.runtime.events import Event, FrameDropped, Gap, Reset, SourceBack, SourceLost

Policy = Literal["every", "latest"]
POLICIES: tuple[str, ...] = get_args(Policy)

_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 0.5
_GAP_PERIODS = 2.5


class Frame(msgspec.Struct, frozen=True):
    """A captured frame: its number, its time (`time.monotonic_ns`), its pixels, its cost."""

    frame_id: int
    captured_ns: int
    image: NDArray[Any]
    capture_ns: int


class Feed(Protocol):
    """Delivers frames; `events` holds what happened since it was last emptied, oldest first."""

    events: deque[Event]

    def next(self) -> Frame | None:
        """Return the next frame to work on, or None at the end."""

    def close(self) -> None:
        """Stop, and release the camera."""


class EveryFrame:
    """Each frame of the camera in order, read when the model is ready for it."""

    def __init__(self, camera: Camera) -> None:
        self.events: deque[Event] = deque()
        self._camera = camera
        self._next_id = 0

    def next(self) -> Frame | None:
        while True:
            started_ns = time.monotonic_ns()
            captured_ns = self._camera.grab()
            if captured_ns is None:
                return None
            frame_id = self._next_id
            self._next_id += 1
            try:
                image = self._camera.retrieve()
            except DataError as error:
                self.events.append(FrameDropped(frame_id, "undecodable", str(error)))
                continue
            return Frame(frame_id, captured_ns, image, time.monotonic_ns() - started_ns)

    def close(self) -> None:
        self._camera.close()


class LatestFrame:
    """The newest frame of a live camera, read by a thread of its own.

    A frame that was not taken before the next one arrived is dropped, and told. A lost source is
    opened again, for as long as it takes.

    Args:
        camera: an open live camera.
        reopen: opens it again.
        stall_s: silence after which the source counts as lost.
    """

    def __init__(self, camera: Camera, reopen: Callable[[], Camera], stall_s: float) -> None:
        self.events: deque[Event] = deque()
        self._camera = camera
        self._reopen = reopen
        self._stall_s = stall_s
        self._news = threading.Condition()
        self._slot: Frame | None = None
        self._ended = False
        self._failure: Exception | None = None
        self._closing = threading.Event()
        self._next_id = 0
        self._last_ns: int | None = None
        self._lost_ns: int | None = None
        self._thread = threading.Thread(target=self._read, name="edgekit-camera", daemon=True)
        self._thread.start()

    def next(self) -> Frame | None:
        with self._news:
            while self._slot is None:
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    return None
                if not self._news.wait(self._stall_s):
                    self._lose(f"{self._camera.description} stalled for {self._stall_s:g} s")
            frame, self._slot = self._slot, None
            return frame

    def close(self) -> None:
        self._closing.set()
        # A read that hangs in a driver cannot be interrupted; its thread dies with the process.
        self._thread.join(timeout=1.0)
        with self._news:
            if self._slot is not None:
                self.events.append(FrameDropped(self._slot.frame_id, "interrupted"))
                self._slot = None

    def _read(self) -> None:
        try:
            while not self._closing.is_set() and self._read_one():
                continue
        except EdgeKitError as error:
            self._failure = error
        except Exception as error:  # a camera's bug must reach the caller, not die with the thread
            self._failure = error
        finally:
            self._camera.close()
            with self._news:
                self._ended = True
                self._news.notify()

    def _read_one(self) -> bool:
        """Read one frame into the slot; False at the end of the stream."""
        started_ns = time.monotonic_ns()
        try:
            captured_ns = self._camera.grab()
        except SourceError as error:
            with self._news:
                self._lose(str(error))
            return self._open_again()
        if captured_ns is None:
            return False
        frame_id = self._next_id
        self._next_id += 1
        try:
            image = self._camera.retrieve()
        except DataError as error:
            self.events.append(FrameDropped(frame_id, "undecodable", str(error)))
            return True
        frame = Frame(frame_id, captured_ns, image, time.monotonic_ns() - started_ns)
        with self._news:
            self._tell_what_was_missed(frame)
            if self._slot is not None:
                self.events.append(FrameDropped(self._slot.frame_id, "superseded"))
            self._slot = frame
            self._news.notify()
        return True

    def _tell_what_was_missed(self, frame: Frame) -> None:
        if self._last_ns is not None and self._camera.rate_hz:
            silent_ms = (frame.captured_ns - self._last_ns) / 1e6
            if silent_ms > _GAP_PERIODS * 1000 / self._camera.rate_hz:
                self.events.append(Gap(frame.frame_id, silent_ms))
        self._last_ns = frame.captured_ns
        if self._lost_ns is not None:
            lost_ms = (frame.captured_ns - self._lost_ns) / 1e6
            self.events.append(SourceBack(frame.captured_ns, lost_ms))
            self.events.append(Reset(frame.frame_id, "source back"))
            self._lost_ns = None

    def _lose(self, detail: str) -> None:
        if self._lost_ns is None:
            self._lost_ns = time.monotonic_ns()
            self.events.append(SourceLost(self._lost_ns, detail))
            self._news.notify()

    def _open_again(self) -> bool:
        self._camera.close()
        delay_s = _FIRST_RETRY_S
        while not self._closing.wait(delay_s):
            try:
                self._camera = self._reopen()
            except SourceError:
                delay_s = min(2 * delay_s, _LAST_RETRY_S)
            else:
                return True
        return False
