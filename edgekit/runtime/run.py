"""A model on sources, into sinks, with an account of it: what `edgekit run` does."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import msgspec

from edgekit.errors import DataError, UsageError
from edgekit.runtime.camera import places_of, without_secrets
from edgekit.runtime.events import Adapted, Event, FrameDropped, OnEvent, SourceFailed
from edgekit.runtime.inlets import Inlet, Inlets, Stop
from edgekit.runtime.model import Model
from edgekit.runtime.opening import Sources, open_inlets, split
from edgekit.runtime.options import StreamOptions
from edgekit.runtime.outlet import Outlets, SinkAccount
from edgekit.runtime.sinks import check_pictures, kind_of, path_of
from edgekit.runtime.statistics import Samples, Summary
from edgekit.runtime.stream import Result, check_max_frames, results

_DEFAULT = StreamOptions()


class SourceAccount(msgspec.Struct, frozen=True):
    """What became of one source's frames: captured = delivered + dropped, by reason.

    `error` says why it ended before its end, or is None.
    """

    source: str
    captured: int
    delivered: int
    late: int
    dropped: dict[str, int]
    age_ms: Summary | None
    error: str | None


class RunSummary(msgspec.Struct, frozen=True):
    """What a run did; `docs/json.md` describes the fields."""

    bundle: str
    backend: str
    source: str
    frames: int
    captured: int
    late: int
    dropped: int
    drops: dict[str, int]
    wall_s: float
    cpu_s: float
    fps: float
    cpu_ms_per_frame: float
    age_ms: Summary
    stages_ms: dict[str, Summary]
    sources: tuple[SourceAccount, ...]
    sinks: tuple[SinkAccount, ...]
    adapted: tuple[str, ...]


def run(
    model: Model,
    source: Sources,
    sinks: Sequence[str] = (),
    *,
    options: StreamOptions = _DEFAULT,
    max_frames: int | None = None,
    live_s: float | None = None,
    on_event: OnEvent | None = None,
    on_result: Callable[[Result], None] | None = None,
    on_turn: Callable[[Inlets], None] | None = None,
    stop: Stop | None = None,
) -> RunSummary:
    """Run `model` until all sources end, `max_frames` are done, or a signal; write to `sinks`.

    In the main thread SIGINT and SIGTERM end it cleanly: the result in hand is written. A second
    one is a `KeyboardInterrupt`.

    Args:
        model: an opened bundle.
        source: see `open_camera`; or a list of names: they share the model in turn.
        sinks: see `open_sink`. Slow ones are written to in a thread of their own; of live sources
            they lose results then, of files they are waited for.
        options: how frames are chosen.
        max_frames: end after so many results.
        live_s: seconds after which the next result ends live sources, which have no end of their
            own.
        on_event: told what else happens.
        on_result: told each result, before the sinks get it.
        on_turn: called at least ten times a second while the sources can be looked at.
        stop: says afterwards whether a signal ended it; ends it if it is set.

    Raises:
        DataError: the source gave no frame.
        OutputError: a sink cannot be written, and it was the last, or the source is a file; the
            others are closed and readable.
        KeyboardInterrupt: a signal came before the first result.
    """
    check_sinks(source, sinks)
    check_max_frames(max_frames)
    stop = stop or Stop()
    account = _Account(on_event)
    inlets = open_inlets(source, options, model, stop=stop)
    if on_turn is not None:
        inlets.on_turn = on_turn
    clock = inlets.clock
    is_live = any(inlet.camera.live for inlet in inlets.inlets)
    rate_hz = inlets.inlets[0].camera.rate_hz
    with ExitStack() as stack:
        stack.callback(inlets.close)  # a stream that has not begun does not
        stack.enter_context(_asking_on_signals(stop, inlets))
        for inlet in inlets.inlets:
            check_pictures(inlet.camera, sinks)
        outlets = Outlets(
            sinks,
            rate_hz,
            lossless=not is_live,
            stop=stop,
            tell=account.event,
            clock=clock,
            sources=[inlet.name for inlet in inlets.inlets],
        )
        stack.callback(outlets.close)
        account.tell_sinks = outlets.event
        stream = results(inlets, model, options, account.event, max_frames)
        stack.callback(stream.close)
        started_ns, cpu_s = clock.now_ns(), time.process_time()
        try:
            for result in stream:
                if on_result is not None:
                    on_result(result)
                account.result(result, outlets if sinks else None)
                if live_s is not None and is_live and clock.now_ns() - started_ns >= 1e9 * live_s:
                    break
        except KeyboardInterrupt:
            pass  # the usual end of a live run; sinks and sources are closed below
        wall_s, cpu_s = (clock.now_ns() - started_ns) / 1e9, time.process_time() - cpu_s
    failure = outlets.failure()
    if failure is not None and not is_live:  # found while closing
        raise failure
    if stop.is_asked and not account.frames:
        raise KeyboardInterrupt
    return account.summary(model, inlets, outlets, wall_s, cpu_s)


@contextmanager
def _asking_on_signals(stop: Stop, inlets: Inlets) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM ask for the end, so that nothing is cut in the middle.

    It interrupts a read, of which nothing has come yet and perhaps never will.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_asked or inlets.is_reading:
            stop.is_asked = True
            raise KeyboardInterrupt
        stop.is_asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_sinks(source: Sources, sinks: Sequence[str], *others: str | None) -> None:
    """Raise `UsageError` for an unknown sink, and for one file that is to serve twice.

    Args:
        source: see `open_inlets`.
        sinks: see `open_sink`.
        others: further files that will be written.
    """
    for uri in sinks:
        kind_of(uri)
    inputs: set[str] = set()
    for name in split(source):
        if isinstance(name, str | Path | int):
            inputs |= places_of(name)
    outputs = [str(name) for name in (*map(path_of, sinks), *others) if name not in (None, "-")]
    places = [_place(text) for text in outputs]
    twice = next((place for place in places if places.count(place) > 1 or place in inputs), None)
    if twice is not None:
        raise UsageError(
            f"{without_secrets(twice)} is named twice among source and outputs; it would be lost"
        )


def _place(output: str) -> str:
    """Return where an output lies on the disk, however it is written; or its address."""
    scheme, separator, rest = output.partition("://")
    if separator and scheme not in ("images", "jsonl", "video"):
        return output
    return str(Path(rest if separator else output).resolve())


class _Account:
    """Counts results, drops and times."""

    def __init__(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event
        self.tell_sinks: OnEvent = lambda event: None
        self._last_drop = ""
        self._adapted: list[str] = []
        self._ages_ms = Samples()
        self._stages_ms: dict[str, Samples] = defaultdict(Samples)
        self._late: Counter[str] = Counter()
        self._failed: dict[str, str] = {}
        self._ages_of: dict[str, Samples] = defaultdict(Samples)

    @property
    def frames(self) -> int:
        return self._ages_ms.count

    def event(self, event: Event) -> None:
        if isinstance(event, FrameDropped):
            self._last_drop = event.detail or self._last_drop
        elif isinstance(event, Adapted):
            self._adapted.append(event.detail)
        elif isinstance(event, SourceFailed):
            self._failed[event.source] = event.detail
        self.tell_sinks(event)
        if self._on_event is not None:
            self._on_event(event)

    def result(self, result: Result, outlets: Outlets | None) -> None:
        self._ages_ms.add(result.age_ms)
        self._ages_of[result.source].add(result.age_ms)
        self._late[result.source] += result.late
        for stage, spent_ns in result.stages_ns.items():
            self._stages_ms[stage].add(spent_ns / 1e6)
        if outlets is not None:
            start_ns = time.perf_counter_ns()
            outlets.write(result)
            self._stages_ms["sink"].add((time.perf_counter_ns() - start_ns) / 1e6)

    def summary(
        self, model: Model, inlets: Inlets, outlets: Outlets, wall_s: float, cpu_s: float
    ) -> RunSummary:
        """Return the account of the run, which has ended."""
        # A text has learnt the names of its columns by now, which people should see.
        sources = (
            inlets.inlets[0].camera.description
            if len(inlets.inlets) == 1
            else ", ".join(inlet.name for inlet in inlets.inlets)
        )
        if not self.frames:
            detail = f": {self._last_drop}" if self._last_drop else ""
            raise DataError(f"{sources} gave no frame{detail}")
        accounts = tuple(self._source(inlet) for inlet in inlets.inlets)
        drops = sum((Counter(account.dropped) for account in accounts), Counter[str]())
        frames = sum(account.delivered for account in accounts)
        return RunSummary(
            bundle=str(model.bundle.path),
            backend=model.backend_name,
            source=sources,
            frames=frames,
            captured=sum(account.captured for account in accounts),
            late=self._late.total(),
            dropped=drops.total(),
            drops=dict(drops),
            wall_s=wall_s,
            cpu_s=cpu_s,
            fps=frames / wall_s,
            cpu_ms_per_frame=1000 * cpu_s / frames,
            age_ms=self._ages_ms.summary(),
            stages_ms={name: samples.summary() for name, samples in self._stages_ms.items()},
            sources=accounts,
            sinks=outlets.accounts(),
            adapted=tuple(self._adapted),
        )

    def _source(self, inlet: Inlet) -> SourceAccount:
        totals, name = inlet.ledger.totals(), inlet.name
        ages_ms = self._ages_of[name].summary() if name in self._ages_of else None
        return SourceAccount(
            source=name,
            captured=totals.captured,
            delivered=totals.delivered,
            late=self._late[name],
            dropped=totals.dropped,
            age_ms=ages_ms,
            error=self._failed.get(name),
        )
