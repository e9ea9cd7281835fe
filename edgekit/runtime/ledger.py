"""The account of a source's frames: captured = delivered + dropped (by reason) + in flight."""

from __future__ import annotations

import threading

import msgspec

from edgekit.runtime.events import DropReason, FrameDropped


class Totals(msgspec.Struct, frozen=True):
    """A ledger at one moment; ``captured == delivered + sum(dropped.values()) + in_flight``."""

    captured: int
    delivered: int
    dropped: dict[str, int]
    in_flight: int


class Ledger:
    """Numbers the frames of one source and knows of each what became of it.

    It counts what has happened, not what should add up: a frame that is told twice, or was never
    captured, is a `RuntimeError`, because it is a bug. For several threads at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._captured = 0
        self._delivered = 0
        self._dropped: dict[str, int] = {}
        self._in_flight: set[int] = set()
        self._closed = False

    def capture(self) -> int:
        """Return the number of a new frame, which is in flight from now on."""
        with self._lock:
            number = self._captured
            if not self._closed:  # a read that hung until after the end has captured nothing
                self._captured += 1
                self._in_flight.add(number)
            return number

    def deliver(self, frame_id: int) -> None:
        """Say that the frame's result was delivered."""
        with self._lock:
            self._land(frame_id)
            self._delivered += 1

    def drop(self, frame_id: int, reason: DropReason, detail: str = "") -> FrameDropped:
        """Say that the frame gets no result; return the event that tells it."""
        with self._lock:
            if not self._closed:
                self._land(frame_id)
                self._dropped[reason] = self._dropped.get(reason, 0) + 1
        return FrameDropped(frame_id, reason, detail)

    def close(self) -> list[FrameDropped]:
        """Drop what is in flight as interrupted; nothing is counted afterwards."""
        with self._lock:
            left = [] if self._closed else sorted(self._in_flight)
            self._closed = True
            self._in_flight.clear()
            if left:
                self._dropped["interrupted"] = self._dropped.get("interrupted", 0) + len(left)
        return [FrameDropped(frame_id, "interrupted") for frame_id in left]

    def totals(self) -> Totals:
        """Return all counts of one moment."""
        with self._lock:
            in_flight = len(self._in_flight)
            return Totals(self._captured, self._delivered, dict(self._dropped), in_flight)

    def _land(self, frame_id: int) -> None:
        if frame_id not in self._in_flight:
            raise RuntimeError(f"frame {frame_id} is not in flight: it was accounted for already")
        self._in_flight.remove(frame_id)
