"""Frames of a file read ahead by a thread, if that is measured to be faster here."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

from edgekit.runtime.camera import decode_faster
from edgekit.runtime.clock import Condition
from edgekit.runtime.events import Adapted, OfSource
from edgekit.runtime.feed import Feed, Health, InTurn, Threaded
from edgekit.runtime.reader import Frame, Reader

_WARM_UP, _IN_TURN, _AHEAD = 4, 8, 16  # frames
_WAITING = 2
_WORTH_IT = 0.97
# Up to a half the model, on another core, takes longer than one thread of the decoder.
_DOMINATES = 0.55


class Ahead:
    """Each frame in order: at first in turn, then by a thread, then in the way that was faster.

    The probe is a few frames of each, from one frame being had to the next, so that all that the
    model and the sinks do is in it. Reading ahead costs hand-overs; on one core, or where reading
    is a small part, it gains nothing. Where reading is most of a frame's time in turn, the camera
    is asked to decode with more threads, and the probe begins again.
    """

    def __init__(self, reader: Reader, news: Condition) -> None:
        self._reader = reader
        self._news = news
        self._in_turn = InTurn(reader)
        self._thread: Threaded | None = None
        self._is_stopping = False
        self._had_ns: list[tuple[int, int]] = []  # of each frame when, and the time of reading it
        self._reading_ns = 0
        self._may_decode_faster = True
        self._in_turn_ns: float | None = None
        self._is_chosen = False
        self._told: Adapted | None = None

    @property
    def health(self) -> Health:
        """Of the way that is used now; one that is being left does not end the source."""
        return "live" if self._is_stopping or self._told is not None else self._feed().health

    def poll(self) -> Frame | OfSource | None:
        if self._told is not None:
            told, self._told = self._told, None
            return told
        if self._is_stopping and self._thread is not None:
            has_ended = self._thread.health == "ended"
            left = self._thread.poll()
            if left is not None or not has_ended:
                return left
            self._thread, self._is_stopping = None, False
        if self._is_chosen:
            return self._feed().poll()
        asked_ns = self._reader.clock.now_ns()
        item = self._feed().poll()
        had_ns = self._reader.clock.now_ns()
        self._reading_ns += had_ns - asked_ns
        if isinstance(item, Frame):
            self._had_ns.append((had_ns, self._reading_ns))
            self._reading_ns = 0
            measured = _IN_TURN if self._thread is None else _AHEAD
            if len(self._had_ns) == _WARM_UP + measured + 1:
                self._judge()
        return item

    def wait_ns(self) -> int:
        return 0

    def close(self) -> list[OfSource]:
        left = [] if self._thread is None else self._thread.close()
        # A thread that is being left leaves the camera open.
        is_ours = self._thread is None or (self._is_stopping and self._thread.is_over())
        return left + (self._in_turn.close() if is_ours else [])

    def _feed(self) -> Feed:
        return self._in_turn if self._thread is None else self._thread

    def _judge(self) -> None:
        had_ns = self._had_ns[_WARM_UP:]
        self._had_ns.clear()
        typical_ns = _typical(had_ns)
        if self._in_turn_ns is not None:
            self._choose(typical_ns, self._in_turn_ns)
        elif not self._decodes_faster(typical_ns, median(reading for _, reading in had_ns)):
            self._in_turn_ns = typical_ns
            self._thread = Threaded(self._reader, self._news, waiting=_WAITING, lossless=True)

    def _decodes_faster(self, typical_ns: float, reading_ns: float) -> bool:
        """Have the camera decode with more threads where that decides; the probe is void then."""
        may, self._may_decode_faster = self._may_decode_faster, False
        if not may or reading_ns <= _DOMINATES * typical_ns:
            return False
        if not decode_faster(self._reader.camera):
            return False
        figures = f"reading took {reading_ns / 1e6:.2f} of {typical_ns / 1e6:.2f} ms a frame"
        self._tell(f"the decoder has more threads: {figures}")
        return True

    def _choose(self, ahead_ns: float, in_turn_ns: float) -> None:
        self._is_chosen = True
        is_faster = ahead_ns < _WORTH_IT * in_turn_ns
        if not is_faster and self._thread is not None:
            self._is_stopping = self._thread.leave()
        what = "frames are read ahead" if is_faster else "frames are read in turn"
        self._tell(f"{what}: {ahead_ns / 1e6:.2f} ms a frame ahead, {in_turn_ns / 1e6:.2f} in turn")

    def _tell(self, detail: str) -> None:
        self._told = Adapted(self._reader.clock.now_ns(), detail)


def _typical(had_ns: list[tuple[int, int]]) -> float:
    """Return the time from one frame being had to the next, ns."""
    return median(b - a for (a, _), (b, _) in pairwise(had_ns))
