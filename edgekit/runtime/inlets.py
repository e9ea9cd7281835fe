"""The frames of one or several sources, taken in turn: what the model's loop draws from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from edgekit.runtime.camera import Camera
from edgekit.runtime.clock import SYSTEM, Clock, Condition
from edgekit.runtime.events import OfSource, SourceFailed
from edgekit.runtime.feed import Feed, Health, InTurn
from edgekit.runtime.ledger import Ledger, Totals
from edgekit.runtime.reader import Frame

# A signal's handler can only set a flag safely, and a stall is seen by looking: both within this.
_LOOK_AGAIN_S = 0.1


class Stop:
    """Asks a stream to end; may be set from anywhere, a signal's handler too."""

    is_asked = False


class Inlet(msgspec.Struct, frozen=True):
    """One source of a stream.

    Attributes:
        name: what `Result.source` and the events say; without passwords.
        camera: as it was opened first.
    """

    name: str
    feed: Feed
    ledger: Ledger
    camera: Camera


class SourceState(msgspec.Struct, frozen=True):
    """How a source is, and the account of its frames."""

    source: str
    health: Health
    totals: Totals


class Inlets:
    """Takes frames from the sources that have one, each in its turn.

    A source that fails does not touch the others; a stream of one raises what went wrong.

    Args:
        inlets: the sources.
        news: the condition that their feeds notify.
        clock: for waiting.
        stop: ends the stream.

    Attributes:
        on_turn: called whenever the sources are looked at, at least ten times a second, but while
            one is read in this thread.
        is_reading: one is, perhaps for ever (a pipe that falls silent): nobody looks at `stop`
            then, only an exception ends it.
    """

    def __init__(
        self,
        inlets: Sequence[Inlet],
        news: Condition,
        clock: Clock = SYSTEM,
        stop: Stop | None = None,
    ) -> None:
        self.inlets = tuple(inlets)
        self.clock = clock
        self._news = news
        self._stop = stop or Stop()
        self.on_turn: Callable[[Inlets], None] = lambda inlets: None
        self._turn = 0
        self._over: set[int] = set()
        self.is_reading = False

    def next(self) -> tuple[int, Frame | OfSource] | None:
        """Return the number of a source and its next frame or event; None at the end of all."""
        while not self._stop.is_asked:
            self.on_turn(self)
            found = self._poll()
            if found is not None:
                return found
            with self._news:
                # Again, for what came since; what is read in this thread has nothing now.
                found = self._poll()
                if found is not None:
                    return found
                if len(self._over) == len(self.inlets):
                    return None
                waiting = [inlet.feed.wait_ns() for inlet in self.inlets]
                # Only where all feeds are threads or wait for their time is there nothing to do.
                self._news.wait(min(_LOOK_AGAIN_S, min(filter(None, waiting), default=1e9) / 1e9))
        return None

    def states(self) -> tuple[SourceState, ...]:
        """Return how each source is now."""
        return tuple(SourceState(i.name, i.feed.health, i.ledger.totals()) for i in self.inlets)

    def close(self) -> list[OfSource]:
        """Stop all sources and return the events that are left."""
        left: list[OfSource] = []
        for inlet in self.inlets:
            left += [named(event, inlet.name) for event in inlet.feed.close()]
        return left

    def _poll(self) -> tuple[int, Frame | OfSource] | None:
        for step in range(len(self.inlets)):
            number = (self._turn + step) % len(self.inlets)
            if number in self._over:
                continue
            inlet = self.inlets[number]
            has_ended = inlet.feed.health == "ended"  # before looking: all it gave is there then
            try:
                item = self._poll_one(inlet.feed)
            except Exception as error:
                self._over.add(number)
                if len(self._over) == len(self.inlets):
                    raise
                detail = str(error) or type(error).__name__
                item = SourceFailed(self.clock.now_ns(), detail)
            if isinstance(item, Frame):
                self._turn = number + 1
                return number, item
            if item is not None:
                return number, named(item, inlet.name)
            if has_ended:
                self._over.add(number)
        return None

    def _poll_one(self, feed: Feed) -> Frame | OfSource | None:
        self.is_reading = isinstance(feed, InTurn)
        try:
            # Asked again: a signal between the last look and here found nothing to interrupt.
            return None if self._stop.is_asked else feed.poll()
        finally:
            self.is_reading = False


def named(event: OfSource, source: str) -> OfSource:
    """Return `event` with the source that it is of."""
    return msgspec.structs.replace(event, source=source)
