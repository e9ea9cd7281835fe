"""Results to sinks: slow ones get a queue and a thread, so that they never slow the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from edgekit.errors import OutputError
from edgekit.runtime.camera import without_secrets
from edgekit.runtime.clock import SYSTEM, Clock
from edgekit.runtime.events import Event, OnEvent, SinkLost
from edgekit.runtime.inlets import Stop
from edgekit.runtime.sinks import Sink, open_sink, writes_at_once
from edgekit.runtime.statistics import Samples, Summary
from edgekit.runtime.stream import Result

_WAITING = 4
_STUCK_S, _STUCK_WHEN_STOPPED_S = 5.0, 0.3


class SinkAccount(msgspec.Struct, frozen=True):
    """What became of the results that a sink was given: ``written + dropped`` is all of them.

    Attributes:
        sink: as it was asked for, without passwords.
        dropped: results that came while its queue was full, or that it failed to take.
        error: why it was closed before the end, or None.
        write_ms: time in the sink for each result, or None where it got none.
    """

    sink: str
    written: int
    dropped: int
    error: str | None
    write_ms: Summary | None


class Outlet:
    """A sink that is written to in the caller's thread: for those that keep a result at once.

    Attributes:
        failure: why it takes nothing any more, or None.
    """

    def __init__(self, name: str, make: Callable[[], Sink], stop: Stop, clock: Clock) -> None:
        self.name = name
        self.failure: Exception | None = None
        self._stop = stop
        self._clock = clock
        self._written = self._dropped = 0
        self._write_ms = Samples()
        self._sink: Sink | None = None
        self._start(make)

    def _start(self, make: Callable[[], Sink]) -> None:
        self._sink = make()

    def write(self, result: Result) -> None:
        """Take a result; what goes wrong is `failure`."""
        if self.failure is not None:
            self._dropped += 1
        else:
            self._write(result)

    def event(self, event: Event) -> None:
        """Tell the sink what else happens, where it wants to know."""
        tell = getattr(self._sink, "event", None)
        if tell is not None and self.failure is None:
            tell(event)

    def begin(self, sources: Sequence[str]) -> None:
        """Tell the sink the sources in their order, where it wants to know."""
        tell = getattr(self._sink, "begin", None)
        if tell is not None:
            tell(sources)

    def close(self) -> None:
        """Close the sink: what it took is complete afterwards."""
        sink, self._sink = self._sink, None
        try:
            if sink is not None:
                sink.close()
        except Exception as error:
            self.failure = self.failure or error

    def account(self) -> SinkAccount:
        """Return what became of the results until now."""
        error = None if self.failure is None else str(self.failure) or repr(self.failure)
        write_ms = self._write_ms.summary() if self._write_ms.count else None
        return SinkAccount(self.name, self._written, self._dropped, error, write_ms)

    def _write(self, result: Result) -> None:
        assert self._sink is not None
        started_ns = self._clock.now_ns()
        failure: Exception | None = None
        is_written = False
        try:
            self._sink.write(result)
            is_written = True
        except KeyboardInterrupt:  # a window that was closed
            self._stop.is_asked = True
        except Exception as error:
            failure = error
        self._count(is_written, failure, (self._clock.now_ns() - started_ns) / 1e6)

    def _count(self, is_written: bool, failure: Exception | None, write_ms: float) -> None:
        self._written += is_written
        self._dropped += not is_written
        self.failure = failure
        self._write_ms.add(write_ms)


class QueuedOutlet(Outlet):
    """A sink with a queue and a thread of its own, which also makes and closes it, for windows.

    Args:
        lossless: wait for a sink that is slower than the results, instead of dropping the oldest.
    """

    def __init__(
        self, name: str, make: Callable[[], Sink], stop: Stop, clock: Clock, *, lossless: bool
    ) -> None:
        self._lossless = lossless
        self._news = clock.condition()
        self._queue: deque[Result] = deque()
        self._busy_since_ns: int | None = None
        self._is_closing = self._has_ended = False
        super().__init__(name, make, stop, clock)

    def _start(self, make: Callable[[], Sink]) -> None:
        self._thread = self._clock.start(lambda: self._work(make), "edgekit-sink")
        with self._news:
            while self._sink is None and self.failure is None:
                if self._stop.is_asked:  # a pipe without a reader is opened for ever
                    self._is_closing = True  # if it is opened after all, its thread closes it
                    raise KeyboardInterrupt
                self._news.wait(0.1)
        if self.failure is not None:
            raise self.failure

    def write(self, result: Result) -> None:
        """Put a result into the queue; a full one loses its oldest, or is waited for."""
        with self._news:
            while self._is_full() and self._lossless and not self._stop.is_asked:
                self._news.wait(0.1)
            if self.failure is not None:
                self._dropped += 1
                return
            if self._is_full():
                self._queue.popleft()
                self._dropped += 1
            self._queue.append(result)
            self._news.notify_all()

    def close(self) -> None:
        """Wait until all is written and closed, but not for a sink that takes nothing any more."""
        with self._news:
            self._is_closing = True
            self._news.notify_all()
            closed_ns = self._clock.now_ns()
            while not self._has_ended and not self._is_stuck(closed_ns):
                self._news.wait(0.05)
            if not self._has_ended:  # its thread ends with the process
                self.failure = self.failure or OutputError(
                    f"`sink` {self.name} takes nothing any more; {len(self._queue) + 1} results "
                    "that waited for it are lost"
                )
                self._dropped += 1
                self._busy_since_ns = None
            self._dropped += len(self._queue)
            self._queue.clear()

    def _count(self, is_written: bool, failure: Exception | None, write_ms: float) -> None:
        with self._news:
            if self._busy_since_ns is not None:  # else it was given up, and counted then
                super()._count(is_written, failure, write_ms)

    def _is_full(self) -> bool:
        return len(self._queue) == _WAITING and self.failure is None

    def _is_stuck(self, closed_ns: int) -> bool:
        """Whether one result has taken so long that the next ones need not be waited for."""
        if self._busy_since_ns is None or (self._lossless and not self._stop.is_asked):
            return False
        limit_s = _STUCK_WHEN_STOPPED_S if self._stop.is_asked else _STUCK_S
        return self._clock.now_ns() - max(self._busy_since_ns, closed_ns) > 1e9 * limit_s

    def _work(self, make: Callable[[], Sink]) -> None:
        try:
            sink = make()
        except Exception as error:
            with self._news:
                self.failure = error
                self._has_ended = True
                self._news.notify_all()
            return
        with self._news:
            self._sink = sink
            self._news.notify_all()
        while (result := self._next()) is not None:
            self._write(result)
        super().close()
        with self._news:
            self._has_ended = True
            self._news.notify_all()

    def _next(self) -> Result | None:
        with self._news:
            self._busy_since_ns = None
            while not self._queue and not self._is_closing and self.failure is None:
                self._news.wait()
            if not self._queue or self.failure is not None:
                return None
            self._busy_since_ns = self._clock.now_ns()
            self._news.notify_all()
            return self._queue.popleft()


class Outlets:
    """All sinks of a run.

    Under `lossless` (files) the first failure ends the run, whose results would not be whole. Live,
    a sink that fails is told and closed, and the others go on; without any left the run ends.
    """

    def __init__(
        self,
        uris: Sequence[str],
        rate_hz: float | None,
        *,
        lossless: bool,
        stop: Stop,
        tell: OnEvent,
        clock: Clock = SYSTEM,
        open_one: Callable[[str, float | None], Sink] = open_sink,
        sources: Sequence[str] = (),
    ) -> None:
        self._lossless = lossless
        self._tell = tell
        self._clock = clock
        self._all: list[Outlet] = []
        self._alive: list[Outlet] = []
        try:
            for uri in uris:
                self._all.append(self._opened(uri, rate_hz, stop, open_one))
                self._all[-1].begin(sources)
        except BaseException:
            self.close()
            raise
        self._alive = list(self._all)

    def _opened(
        self, uri: str, rate_hz: float | None, stop: Stop, open_one: Callable[..., Sink]
    ) -> Outlet:
        name = without_secrets(uri)

        def make() -> Sink:
            return open_one(uri, rate_hz)

        if writes_at_once(uri):
            return Outlet(name, make, stop, self._clock)
        return QueuedOutlet(name, make, stop, self._clock, lossless=self._lossless)

    def write(self, result: Result) -> None:
        """Hand a result to every sink.

        Raises:
            Exception: why the last sink, or under `lossless` one of them, takes no more.
        """
        for outlet in self._all:
            outlet.write(result)
        for outlet in [outlet for outlet in self._alive if outlet.failure is not None]:
            self._alive.remove(outlet)
            outlet.close()
            assert outlet.failure is not None
            if self._lossless or not self._alive:
                raise outlet.failure
            detail = str(outlet.failure) or repr(outlet.failure)
            self._tell(SinkLost(self._clock.now_ns(), outlet.name, detail))

    def event(self, event: Event) -> None:
        """Tell the sinks without a queue what else happens."""
        for outlet in self._all:
            if not isinstance(outlet, QueuedOutlet):
                outlet.event(event)

    def close(self) -> None:
        """Close all of them; what each took is complete."""
        for outlet in self._all:
            outlet.close()

    def failure(self) -> Exception | None:
        """Return what went wrong first among the sinks, or None."""
        return next((o.failure for o in self._all if o.failure is not None), None)

    def accounts(self) -> tuple[SinkAccount, ...]:
        """Return the account of each sink."""
        return tuple(outlet.account() for outlet in self._all)
