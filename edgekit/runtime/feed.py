"""How frames get from a camera to the model: in turn, or through a thread of the camera's own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Literal, Protocol, TypeVar

from edgekit.errors import SourceError
from edgekit.runtime.camera import Camera
from edgekit.runtime.clock import Condition
from edgekit.runtime.events import (
    Adapted,
    FrameDropped,
    Gap,
    OfSource,
    Reset,
    SourceBack,
    SourceLost,
)
from edgekit.runtime.reader import Frame, Grabbed, Reader
from edgekit.runtime.reopen import Backoff

Health = Literal["live", "stalled", "lost", "reconnecting", "ended"]

_GAP_PERIODS = 2.5
_CLOSING_S = 0.3
_MOST_EVENTS = 4096
_PROBED_FRAMES = 8
_LAZY_FROM = 0.02
_T = TypeVar("_T")


class Feed(Protocol):
    """Gives frames in order, and events no later than the frame that follows them."""

    @property
    def health(self) -> Health:
        """Of the source; ``stalled``: a read hangs, ``lost``: it gave an error."""

    def poll(self) -> Frame | OfSource | None:
        """Return the next frame or event, or None if there is none now.

        Raises:
            Exception: what went wrong in the camera; the feed has ended.
        """

    def wait_ns(self) -> int:
        """Return for how long `poll` will certainly have nothing; 0 if that is not known."""

    def close(self) -> list[OfSource]:
        """Stop, release the camera, and return the events that are left."""


class InTurn:
    """Each frame of the camera in order, read in the caller's thread when it is asked for."""

    def __init__(self, reader: Reader, *, paced: bool = False) -> None:
        self.health: Health = "live"
        self._reader = reader
        self._paced = paced
        self._is_closed = False
        self._held: Frame | None = None  # behind the event that precedes it

    def poll(self) -> Frame | OfSource | None:
        if self._held is not None:
            frame, self._held = self._held, None
            return frame
        if self.health == "ended" or self.wait_ns():
            return None
        try:
            item = self._reader.read()
        except Exception:
            self.health = "ended"
            raise
        if item is None:
            self.health = "ended"
        if isinstance(item, Frame) and item.starts_sequence:
            self._held = item
            return Reset(item.frame_id, "end of sequence")
        return item

    def wait_ns(self) -> int:
        return self._reader.wait_ns() if self._paced else 0

    def close(self) -> list[OfSource]:
        self.health = "ended"
        if not self._is_closed:
            self._is_closed = True
            self._reader.camera.close()
        return list(self._reader.ledger.close())


class Threaded:
    """Frames that a thread of its own reads while the model works.

    Args:
        reader: of an open camera.
        news: notified of all that happens; its lock guards what both threads touch.
        waiting: so many frames may wait.
        lossless: with a full queue the camera is left alone, instead of the oldest being dropped.
        reopen: opens a live camera again, for as long as it takes; None: its loss is an error.
        stall_s: a read that lasts longer has hung.
        may_be_lazy: frames that nobody asks for need not be decoded.
    """

    def __init__(
        self,
        reader: Reader,
        news: Condition,
        *,
        waiting: int,
        lossless: bool = False,
        reopen: Callable[[], Camera] | None = None,
        stall_s: float | None = None,
        may_be_lazy: bool = False,
    ) -> None:
        self.health: Health = "live"
        self._reader = reader
        self._clock = reader.clock
        self._news = news
        self._waiting = waiting
        self._lossless = lossless
        self._reopen = reopen
        self._stall_ns = None if stall_s is None else round(1e9 * stall_s)
        self._may_be_lazy = may_be_lazy
        # Guarded by `news`, with `health`:
        self._items: deque[Frame | OfSource] = deque()
        self._frames = 0
        self._is_wanted = False
        self._reading_since_ns: int | None = None
        self._lost_ns: int | None = None
        self._failure: Exception | None = None
        self._is_closing = self._is_left = self._is_over = False
        # Of the reading thread alone:
        self._last_ns: int | None = None
        self._period_ns = 0.0
        self._intervals = 0
        self._held: Grabbed | None = None
        self._retrieve_ns: list[int] = []
        self._is_lazy = False
        self._thread = self._clock.start(self._read, "edgekit-camera")

    def poll(self) -> Frame | OfSource | None:
        with self._news:
            self._note_stall()
            if self._items:
                item = self._items.popleft()
                if isinstance(item, Frame):
                    self._frames -= 1
                    self._news.notify_all()
                return item
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            if not self._is_wanted:
                self._is_wanted = True
                self._news.notify_all()
            return None

    def wait_ns(self) -> int:
        return 0

    def close(self) -> list[OfSource]:
        self.stop()
        with self._news:
            self.health = "ended"
            left: list[OfSource] = [item for item in self._items if not isinstance(item, Frame)]
            self._items.clear()
        return left + list(self._reader.ledger.close())

    def leave(self) -> bool:
        """Ask the thread to end without closing the camera; what it has read can still be had.

        Returns:
            Whether the camera can be read by another; False: its end was reached.
        """
        with self._news:
            if self._is_over:
                return False
            self._is_closing = self._is_left = True
            self._news.notify_all()
            return True

    def is_over(self) -> bool:
        """Whether the thread touches the camera no more."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End the thread, which then closes the camera."""
        with self._news:
            if self._is_closing and not self._is_left:
                return
            self._is_closing = True
            self._news.notify_all()
        # A read that hangs in a driver cannot be interrupted; its thread ends when it returns, or
        # with the process.
        self._thread.join(_CLOSING_S)

    def _note_stall(self) -> None:
        since_ns = self._reading_since_ns
        if self._stall_ns is None or since_ns is None or self.health != "live":
            return
        if self._clock.now_ns() - since_ns > self._stall_ns:
            description = self._reader.camera.description
            self._lose("stalled", f"{description} stalled for {self._stall_ns / 1e9:g} s")

    def _read(self) -> None:
        failure: Exception | None = None
        try:
            try:
                while not self._is_closing and self._read_one():
                    continue
            finally:
                with self._news:
                    self._is_over = not self._is_left
                if self._is_over:
                    self._reader.camera.close()
        except Exception as error:  # a camera's bug must reach the caller, not die with the thread
            failure = error
        with self._news:
            self._failure = failure
            self._reading_since_ns = None
            self.health = "ended"
            self._news.notify_all()

    def _read_one(self) -> bool:
        """Read one frame into the queue; False at the end of the stream."""
        if self._lossless and not self._wait_for(lambda: self._frames < self._waiting, None):
            return False
        try:
            grabbed = self._in_camera(self._reader.grab)
        except SourceError as error:
            if self._reopen is None:
                raise
            self._lose("lost", str(error))
            return self._open_again(self._reopen)
        if self._held is not None:  # the camera has moved on: that one cannot be had any more
            self._tell(self._reader.ledger.drop(self._held.frame_id, "superseded"))
            self._held = None
        if grabbed is None:
            return False
        self._note_arrival(grabbed.frame_id)
        self._publish(self._decoded(grabbed) if isinstance(grabbed, Grabbed) else grabbed)
        return True

    def _in_camera(self, work: Callable[[], _T]) -> _T:
        """Do what may hang in a driver, so that it shows when it does."""
        with self._news:
            self._reading_since_ns = self._clock.now_ns()
        try:
            return work()
        finally:
            with self._news:
                self._reading_since_ns = None

    def _decoded(self, grabbed: Grabbed) -> Frame | FrameDropped | None:
        """Return the frame, or None where nobody asks for it while it is new."""
        if self._is_lazy and not self._wait_for(lambda: self._is_wanted, self._period_ns / 2):
            self._held = grabbed
            return None
        started_ns = self._clock.now_ns()
        item = self._in_camera(lambda: self._reader.retrieve(grabbed))
        if self._may_be_lazy and len(self._retrieve_ns) < _PROBED_FRAMES:
            self._retrieve_ns.append(self._clock.now_ns() - started_ns)
            if len(self._retrieve_ns) == _PROBED_FRAMES:
                self._choose()
        return item

    def _choose(self) -> None:
        """Decode on request from here on, where decoding costs enough for that."""
        cost_ns = sorted(self._retrieve_ns)[_PROBED_FRAMES // 2]
        self._is_lazy = cost_ns > _LAZY_FROM * self._period_ns > 0
        if self._is_lazy:
            detail = f"frames take {cost_ns / 1e6:.1f} ms to decode: only those that are used are"
            self._tell(Adapted(self._clock.now_ns(), detail))

    def _publish(self, item: Frame | FrameDropped | None) -> None:
        with self._news:
            if isinstance(item, Frame) and self._is_lazy and not self._is_wanted:
                # The last one that was decoded unasked: nothing newer would take its place.
                item = self._reader.ledger.drop(item.frame_id, "superseded")
            if isinstance(item, Frame):
                if self._frames == self._waiting:
                    self._drop_oldest()
                self._tell_return(item)
                if item.starts_sequence:
                    self._tell(Reset(item.frame_id, "end of sequence"))
                self._frames += 1
                self._is_wanted = False
                self.health = "live"
            if item is not None:
                self._tell(item)

    def _drop_oldest(self) -> None:
        # From the newest on: before the oldest frame there may be thousands of drops.
        frames = ((i, x) for i, x in enumerate(reversed(self._items), 1) if isinstance(x, Frame))
        place, oldest = next(islice(frames, self._frames - 1, None))
        self._items[-place] = self._reader.ledger.drop(oldest.frame_id, "superseded")
        self._frames -= 1

    def _tell(self, item: Frame | OfSource) -> None:
        with self._news:
            self._items.append(item)
            # While nobody asks, memory must not grow: the ledger has counted what is forgotten.
            if len(self._items) > _MOST_EVENTS:
                drops = (i for i, x in enumerate(self._items) if isinstance(x, FrameDropped))
                oldest = next(drops, None)
                if oldest is not None:
                    del self._items[oldest]
            self._news.notify_all()

    def _note_arrival(self, frame_id: int) -> None:
        """Keep the measured period of what is captured, and tell a silence."""
        last_ns, self._last_ns = self._last_ns, self._reader.last_ns
        if last_ns is None or self._last_ns is None or self._last_ns <= last_ns:
            return
        silent_ns = self._last_ns - last_ns
        rate_hz = self._reader.camera.rate_hz
        # The nominal rate of a network stream may be a guess (25 Hz for every MJPEG): the
        # measured period, smoothed, counts where it is longer.
        if rate_hz and silent_ns > _GAP_PERIODS * max(1e9 / rate_hz, self._period_ns):
            self._tell(Gap(frame_id, silent_ns / 1e6))
        self._intervals = min(self._intervals + 1, 16)
        self._period_ns += (silent_ns - self._period_ns) / self._intervals

    def _tell_return(self, frame: Frame) -> None:
        if self._lost_ns is not None:
            lost_ms = (frame.captured_ns - self._lost_ns) / 1e6
            self._tell(SourceBack(frame.captured_ns, lost_ms))
            self._tell(Reset(frame.frame_id, "source back"))
            self._lost_ns = None

    def _lose(self, health: Health, detail: str) -> None:
        with self._news:
            self.health = health
            if self._lost_ns is None:
                self._lost_ns = self._clock.now_ns()
                self._tell(SourceLost(self._lost_ns, detail))

    def _open_again(self, reopen: Callable[[], Camera]) -> bool:
        self._reader.camera.close()
        lost_ns, backoff = self._clock.now_ns(), Backoff()
        while True:
            away_s = (self._clock.now_ns() - lost_ns) / 1e9
            self._wait_for(lambda: False, 1e9 * backoff.delay_s(away_s))
            with self._news:
                if self._is_closing:
                    return False
                self.health = "reconnecting"
            try:
                self._reader.camera = reopen()
            except SourceError:
                continue
            return True

    def _wait_for(self, condition: Callable[[], bool], limit_ns: float | None) -> bool:
        """Wait until `condition`; False after the limit, or when the feed is being closed."""
        until_ns = None if limit_ns is None else self._clock.now_ns() + round(limit_ns)
        with self._news:
            while not (self._is_closing or condition()):
                left_s = None if until_ns is None else (until_ns - self._clock.now_ns()) / 1e9
                if left_s is not None and left_s <= 0:
                    return False
                self._news.wait(left_s)
            return not self._is_closing
