"""Frames out of one camera: numbered, stamped, chosen and accounted for; knows no thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.runtime.camera import Camera
from edgekit.runtime.clock import SYSTEM, Clock
from edgekit.runtime.events import DropReason, FrameDropped
from edgekit.runtime.ledger import Ledger

_OLDEST_NS = 10_000_000_000


class Frame(msgspec.Struct, frozen=True):
    """A captured frame: its number, its time (`time.monotonic_ns`), its pixels, its cost.

    `starts_sequence`: it does not continue the frame before it.
    """

    frame_id: int
    captured_ns: int
    image: NDArray[Any]
    capture_ns: int
    starts_sequence: bool = False


class Grabbed(msgspec.Struct, frozen=True):
    """A frame that was captured but not decoded yet."""

    frame_id: int
    captured_ns: int
    grab_ns: int


class Reader:
    """Takes frames from a camera in two steps, as the camera does.

    Args:
        camera: may be replaced by another one between two frames; the numbers go on.
        ledger: gets each frame.
        clock: for costs and for stamps that cannot be true.
        every_nth, max_rate_hz: see `StreamOptions`; what they refuse is not decoded.
        fault_of: names what is wrong with a decoded picture that was captured then (``frozen``,
            ``black``, ``repeated``), or None.

    Attributes:
        last_ns: when the newest frame was captured, or None.
    """

    def __init__(
        self,
        camera: Camera,
        ledger: Ledger | None = None,
        clock: Clock = SYSTEM,
        *,
        every_nth: int = 1,
        max_rate_hz: float | None = None,
        fault_of: Callable[[NDArray[Any], int], DropReason | None] | None = None,
    ) -> None:
        self.camera = camera
        self.ledger = ledger or Ledger()
        self.clock = clock
        self._every_nth = every_nth
        self._step_ns = round(1e9 / max_rate_hz) if max_rate_hz else 0
        self._due_ns: int | None = None
        self.last_ns: int | None = None
        self._fault_of = fault_of
        self._starts_sequence = False

    def read(self) -> Frame | FrameDropped | None:
        """Return the next frame, or what became of it; None at the end."""
        grabbed = self.grab()
        return self.retrieve(grabbed) if isinstance(grabbed, Grabbed) else grabbed

    def grab(self) -> Grabbed | FrameDropped | None:
        """Capture a frame without decoding it; None at the end."""
        started_ns = self.clock.now_ns()
        stamp_ns = self.camera.grab()
        if stamp_ns is None:
            return None
        now_ns = self.clock.now_ns()
        self._starts_sequence |= getattr(self.camera, "starts_sequence", False)
        frame_id = self.ledger.capture()
        # A stamp of the future or of long ago is of a clock that jumped: arrival is the best known.
        captured_ns = stamp_ns if 0 <= now_ns - stamp_ns <= _OLDEST_NS else now_ns
        if self.last_ns is not None and captured_ns < self.last_ns:
            return self.ledger.drop(frame_id, "out_of_order")
        self.last_ns = captured_ns
        if frame_id % self._every_nth:
            return self.ledger.drop(frame_id, "every_nth")
        if self._is_too_soon(captured_ns):
            return self.ledger.drop(frame_id, "rate_limit")
        return Grabbed(frame_id, captured_ns, now_ns - started_ns)

    def retrieve(self, grabbed: Grabbed) -> Frame | FrameDropped:
        """Decode the frame that was grabbed last."""
        started_ns = self.clock.now_ns()
        try:
            image = self.camera.retrieve()
        except DataError as error:
            return self.ledger.drop(grabbed.frame_id, "undecodable", str(error))
        cost_ns = grabbed.grab_ns + self.clock.now_ns() - started_ns
        fault = self._fault_of(image, grabbed.captured_ns) if self._fault_of is not None else None
        if fault is not None:
            return self.ledger.drop(grabbed.frame_id, fault)
        # Before the first frame there is nothing to forget.
        starts, self._starts_sequence = self._starts_sequence and grabbed.frame_id > 0, False
        return Frame(grabbed.frame_id, grabbed.captured_ns, image, cost_ns, starts)

    def wait_ns(self) -> int:
        """Return how long a source that waits for its reader is to be left alone."""
        return max(0, self._due_ns - self.clock.now_ns()) if self._due_ns is not None else 0

    def _is_too_soon(self, captured_ns: int) -> bool:
        """Keep to the rate on average: a frame a little late does not delay the ones behind it."""
        if not self._step_ns:
            return False
        due_ns = self._due_ns
        # Half a millisecond of jitter must not halve the rate of a camera that has just that rate.
        if due_ns is not None and captured_ns < due_ns - min(500_000, self._step_ns // 10):
            return True
        is_behind = due_ns is None or captured_ns - due_ns > self._step_ns
        self._due_ns = self._step_ns + (captured_ns if is_behind or due_ns is None else due_ns)
        return False
