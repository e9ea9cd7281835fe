"""How frames get from a camera to the model: every frame, or the newest one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args

import msgspec
from numpy.typing import NDArray

from edgekit.errors import DataError, SourceError
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
    """Delivers frames in order, and events no later than the frame that follows them."""

    def next(self) -> Frame | Event | None:
        """Return the next frame to work on or the next event, or None at the end."""

    def close(self) -> list[Event]:
        """Stop, release the camera, and return the events that are left."""


class EveryFrame:
    """Each frame of the camera in order, read when the model is ready for it.

    Attributes:
        camera: may be replaced by another one between two frames; the numbers go on.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self._next_id = 0
        self._starts_sequence = False
        self._held: Frame | None = None  # behind the event that precedes it

    def next(self) -> Frame | FrameDropped | Reset | None:
        if self._held is not None:
            frame, self._held = self._held, None
            return frame
        started_ns = time.monotonic_ns()
        captured_ns = self.camera.grab()
        if captured_ns is None:
            return None
        self._starts_sequence |= getattr(self.camera, "starts_sequence", False)
        frame_id = self._next_id
        self._next_id += 1
        try:
            image = self.camera.retrieve()
        except DataError as error:
            return FrameDropped(frame_id, "undecodable", str(error))
        frame = Frame(frame_id, captured_ns, image, time.monotonic_ns() - started_ns)
        starts, self._starts_sequence = self._starts_sequence, False
        if starts and frame_id:  # before the first frame there is nothing to forget
            self._held = frame
            return Reset(frame_id, "end of sequence")
        return frame

    def close(self) -> list[Event]:
        self.camera.close()
        held, self._held = self._held, None
        return [FrameDropped(held.frame_id, "interrupted")] if held is not None else []


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
        self._frames = EveryFrame(camera)
        self._reopen = reopen
        self._stall_s = stall_s
        # `_news` guards what both threads touch: these five.
        self._news = threading.Condition()
        self._events: deque[Event] = deque()  # all older than, or about, the frame in the slot
        self._slot: Frame | None = None
        self._lost_ns: int | None = None
        self._ended = False
        self._failure: Exception | None = None
        self._closing = threading.Event()
        self._last_ns: int | None = None
        self._period_ns = 0.0
        self._intervals = 0
        self._thread = threading.Thread(target=self._read, name="edgekit-camera", daemon=True)
        self._thread.start()

    def next(self) -> Frame | Event | None:
        with self._news:
            while True:
                if self._events:
                    return self._events.popleft()
                if self._slot is not None:
                    frame, self._slot = self._slot, None
                    return frame
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    return None
                if not self._news.wait(self._stall_s):
                    self._lose(f"{self._frames.camera.description} stalled for {self._stall_s:g} s")

    def close(self) -> list[Event]:
        self._closing.set()
        # A read that hangs in a driver cannot be interrupted; its thread ends when it returns, or
        # with the process.
        self._thread.join(timeout=1.0)
        with self._news:
            if self._slot is not None:
                self._events.append(FrameDropped(self._slot.frame_id, "interrupted"))
                self._slot = None
            left = list(self._events)
            self._events.clear()
        return left

    def _read(self) -> None:
        failure: Exception | None = None
        try:
            try:
                while not self._closing.is_set() and self._read_one():
                    continue
            finally:
                self._frames.camera.close()
        except Exception as error:  # a camera's bug must reach the caller, not die with the thread
            failure = error
        with self._news:
            self._failure = failure
            self._ended = True
            self._news.notify()

    def _read_one(self) -> bool:
        """Read one frame into the slot; False at the end of the stream."""
        try:
            frame = self._frames.next()
        except SourceError as error:
            with self._news:
                self._lose(str(error))
            return self._open_again()
        if frame is None:
            return False
        if isinstance(frame, FrameDropped | Reset):
            with self._news:
                self._tell(frame)
            return True
        with self._news:
            if self._slot is not None:
                self._tell(FrameDropped(self._slot.frame_id, "superseded"))
            self._tell_what_was_missed(frame)
            self._slot = frame
            self._news.notify()
        return True

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        self._news.notify()

    def _tell_what_was_missed(self, frame: Frame) -> None:
        if self._last_ns is not None and self._frames.camera.rate_hz:
            silent_ns = frame.captured_ns - self._last_ns
            # The nominal rate of a network stream may be a guess (25 Hz for every MJPEG): the
            # measured period, smoothed, counts where it is longer.
            if silent_ns > _GAP_PERIODS * max(1e9 / self._frames.camera.rate_hz, self._period_ns):
                self._tell(Gap(frame.frame_id, silent_ns / 1e6))
            self._intervals = min(self._intervals + 1, 16)
            self._period_ns += (silent_ns - self._period_ns) / self._intervals
        self._last_ns = frame.captured_ns
        if self._lost_ns is not None:
            lost_ms = (frame.captured_ns - self._lost_ns) / 1e6
            self._tell(SourceBack(frame.captured_ns, lost_ms))
            self._tell(Reset(frame.frame_id, "source back"))
            self._lost_ns = None

    def _lose(self, detail: str) -> None:
        if self._lost_ns is None:
            self._lost_ns = time.monotonic_ns()
            self._tell(SourceLost(self._lost_ns, detail))

    def _open_again(self) -> bool:
        self._frames.camera.close()
        delay_s = _FIRST_RETRY_S
        while not self._closing.wait(delay_s):
            try:
                self._frames.camera = self._reopen()
            except SourceError:
                delay_s = min(2 * delay_s, _LAST_RETRY_S)
            else:
                return True
        return False
