"""Sources as they are given, opened and made into feeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgekit.errors import SourceError
from edgekit.runtime.ahead import Ahead
from edgekit.runtime.camera import Camera, Source, open_camera, without_secrets
from edgekit.runtime.clock import SYSTEM, Clock, Condition
from edgekit.runtime.feed import Feed, InTurn, Threaded
from edgekit.runtime.freshness import Freshness
from edgekit.runtime.inlets import Inlet, Inlets, Stop
from edgekit.runtime.ledger import Ledger
from edgekit.runtime.options import StreamOptions
from edgekit.runtime.reader import Reader
from edgekit.runtime.windows import camera_for

Sources = Source | Sequence[str | Path | int]
Open = Callable[[Any], Camera]

_STALL_MARGIN_S = 0.1


def open_inlets(
    sources: Sources,
    options: StreamOptions,
    model: object = None,
    *,
    clock: Clock = SYSTEM,
    stop: Stop | None = None,
    open_one: Open | None = None,
) -> Inlets:
    """Open one source, or each of a list of names, and return what gives their frames.

    A live source of several that is not there is waited for; a single one is an error.

    Args:
        sources: see `open_camera`; or a list of those that are names.
        options: how frames are chosen.
        model: what they are for: steps of a sequence become its windows.
        clock: see `Inlets`.
        stop: see `Inlets`.
        open_one: opens a camera; by default `open_camera` with the options' time-outs.

    Raises:
        UsageError, DataError, SourceError: as `open_camera`; the others are closed then.
    """
    each = split(sources)
    opened_as_is = open_one or (lambda source: open_camera(source, options.timeouts))

    def open_for_model(source: Any) -> Camera:
        return camera_for(model, opened_as_is(source))

    news = clock.condition()
    cameras: list[Camera] = []
    with ExitStack() as unless_opened:
        for source in each:
            camera = _opened(source, open_for_model, alone=len(each) == 1)
            unless_opened.callback(camera.close)
            cameras.append(camera)
        unless_opened.pop_all()
    names = _unique([camera.description for camera in cameras])
    inlets = []
    alone = len(each) == 1
    for source, camera, name in zip(each, cameras, names, strict=True):
        ledger = Ledger()
        feed = _feed(source, camera, ledger, options, news, clock, open_for_model, alone=alone)
        inlets.append(Inlet(name, feed, ledger, camera))
    return Inlets(inlets, news, clock, stop)


def split(sources: Sources) -> list[Source]:
    """Return each source of a list of names; anything else is one source.

    >>> split(["a.mp4", "b.mp4"])
    ['a.mp4', 'b.mp4']
    """
    if isinstance(sources, list | tuple) and sources:
        names = [source for source in sources if isinstance(source, str | Path | int)]
        if len(names) == len(sources):
            return list(names)
    return [sources]


def _opened(source: Source, open_one: Open, *, alone: bool) -> Camera:
    try:
        return open_one(source)
    except SourceError as error:
        if alone:
            raise
        return _Absent(without_secrets(str(source)), str(error))


class _Absent:
    """A live source that was not there at the start: lost from its first frame on."""

    live = True
    rate_hz: float | None = None

    def __init__(self, description: str, detail: str) -> None:
        self.description = description
        self._detail = detail

    def grab(self) -> int | None:
        raise SourceError(self._detail)

    def retrieve(self) -> Any:
        raise SourceError(self._detail)

    def close(self) -> None:
        """Nothing is open."""


def _feed(
    source: Source,
    camera: Camera,
    ledger: Ledger,
    options: StreamOptions,
    news: Condition,
    clock: Clock,
    open_one: Open,
    *,
    alone: bool,
) -> Feed:
    reader = Reader(
        camera,
        ledger,
        clock,
        every_nth=options.every_nth,
        max_rate_hz=options.max_rate_hz,
        # Of a file equal pictures may well be what it holds.
        fault_of=Freshness.of(camera).check if camera.live else None,
    )
    waiting = options.waiting(live=camera.live)
    if waiting is None and getattr(camera, "may_be_read_ahead", False) and not options.max_rate_hz:
        return Ahead(reader, news)
    if waiting is None:
        return InTurn(reader, paced=not camera.live)
    return Threaded(
        reader,
        news,
        waiting=waiting,
        reopen=lambda: open_one(source),
        # The camera's own time-out comes first; this one is for drivers that have none.
        stall_s=options.timeouts.read_s + _STALL_MARGIN_S,
        may_be_lazy=alone and waiting == 1,
    )


def _unique(names: list[str]) -> list[str]:
    """Return `names`, those that are the same with their number behind."""
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{name} #{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    ]
