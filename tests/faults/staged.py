"""Cameras, sinks and models that fail on cue, in virtual time."""

import numpy as np

from edgekit.errors import DataError, OutputError, SourceError
from edgekit.runtime.events import FrameDropped, SinkLost
from edgekit.runtime.inlets import Stop
from edgekit.runtime.opening import open_inlets
from edgekit.runtime.options import StreamOptions
from edgekit.runtime.outlet import Outlets
from edgekit.runtime.stream import Result, results

SMALL, LARGE = (4, 6, 3), (8, 10, 3)
RATE_HZ = 30.0
FAULTS = ("stall", "unplug", "corrupt", "reorder", "jump", "past", "resize")
FAULTS += ("silence", "black", "freeze")


class World:
    """What a camera looks at: a frame each period, and faults that begin and end at set times.

    Args:
        clock: virtual.
        faults: (start_s, duration_s, kind) from the world's beginning on.
            ``stall``: reads block, and fail after the read time-out; ``hang``: reads block to the
            fault's end; ``silence``: as a hang, of a driver that has no time-out, but short;
            ``unplug``: reads fail, opening too; ``corrupt``: frames cannot be decoded; ``reorder``:
            every second frame is older than the one before; ``jump``, ``past``: stamps are an hour
            ahead or behind; ``resize``: another resolution; ``black``: a grabber without a signal;
            ``freeze``: the same picture again and again.
        ends_s: when the stream ends; None: never.
    """

    def __init__(self, clock, faults=(), *, rate_hz=RATE_HZ, ends_s=None, decode_s=0.0, read_s=1.0):
        self.clock = clock
        self.start_ns = clock.now_ns()
        self.faults = sorted(faults)
        self.rate_hz, self.ends_s = rate_hz, ends_s
        self.decode_s, self.read_s = decode_s, read_s
        self.opened = self.closed = self.grabbed = self.retrieved = 0
        self.noise = np.random.default_rng(0)
        self.seen = np.zeros(SMALL, np.uint8)
        self._first = 0

    def now_s(self):
        return (self.clock.now_ns() - self.start_ns) / 1e9

    def fault(self):
        """Return the kind of the fault of this moment and when it ends, or (None, None)."""
        now_s = self.now_s()
        while self._first < len(self.faults) and sum(self.faults[self._first][:2]) <= now_s:
            self._first += 1
        if self._first < len(self.faults) and self.faults[self._first][0] <= now_s:
            start_s, duration_s, kind = self.faults[self._first]
            return kind, start_s + duration_s
        return None, None

    def open(self, source="virtual"):
        if self.fault()[0] == "unplug":
            raise SourceError(f"{source} is not there")
        self.opened += 1
        return Camera(self, str(source))


class Camera:
    live = True

    def __init__(self, world, description):
        self.world, self.description = world, description
        self.rate_hz = world.rate_hz
        self._index = int(world.now_s() * world.rate_hz)

    def grab(self):
        world = self.world
        self._index = max(self._index + 1, int(world.now_s() * world.rate_hz))
        due_s = self._index / world.rate_hz
        world.clock.sleep(due_s - world.now_s())
        kind, until_s = world.fault()
        if kind == "stall":
            world.clock.sleep(min(world.read_s, until_s - world.now_s()))
            raise SourceError(f"{self.description} gave nothing for {world.read_s} s")
        if kind in ("hang", "silence"):
            world.clock.sleep(until_s - world.now_s())
        if kind == "unplug":
            raise SourceError(f"{self.description} was unplugged")
        if world.ends_s is not None and world.now_s() >= world.ends_s:
            return None
        world.grabbed += 1
        stamp_ns = world.clock.now_ns()
        if kind == "reorder" and self._index % 2:
            stamp_ns -= round(1.5e9 / world.rate_hz)
        return stamp_ns + {"jump": 1, "past": -1}.get(kind, 0) * 3600 * 10**9

    def retrieve(self):
        self.world.clock.sleep(self.world.decode_s)
        self.world.retrieved += 1
        kind = self.world.fault()[0]
        if kind == "corrupt":
            raise DataError("torn")
        if kind == "black":
            return np.zeros(SMALL, np.uint8)
        if kind != "freeze":  # else what was seen last
            shape = LARGE if kind == "resize" else SMALL
            self.world.seen = self.world.noise.integers(0, 255, shape, np.uint8)
        return self.world.seen

    def close(self):
        self.world.closed += 1


class File(Camera):
    """As many frames as it has, each as soon as it is asked for."""

    live = False

    def __init__(self, world, description="file", frames=10**9):
        super().__init__(world, description)
        self.rate_hz = None
        self._left = frames

    def grab(self):
        if not self._left:
            return None
        self._left -= 1
        self.world.grabbed += 1
        return self.world.clock.now_ns()


class StagedSink:
    """Takes `write_s` for each result, raises at result number `dies_at`."""

    def __init__(self, clock, write_s=0.0, dies_at=None, hangs_at=None):
        self.clock, self.write_s = clock, write_s
        self.dies_at, self.hangs_at = dies_at, hangs_at
        self.taken, self.closed = [], 0

    def write(self, result):
        assert not self.closed
        self.clock.sleep(self.write_s)
        if len(self.taken) == self.hangs_at:
            self.clock.hang()
        if len(self.taken) == self.dies_at:
            raise OutputError("the disk is full")
        self.taken.append(result)

    def close(self):
        self.closed += 1


class Staged:
    """A run in virtual time: worlds, a model and sinks, and all that is told of them."""

    def __init__(self, clock, worlds, *, model_s=0.06, sinks=None, opens=None, **options):
        self.clock, self.worlds = clock, worlds
        self.options = StreamOptions(**options)
        self.stop = Stop()
        self.events, self.results = [], []
        self.model_s = model_s
        self.sinks = sinks or {}
        names = list(worlds)
        opens = opens or (lambda name: worlds[name].open(name))
        self.inlets = open_inlets(names, self.options, clock=clock, stop=self.stop, open_one=opens)
        live = any(inlet.camera.live for inlet in self.inlets.inlets)
        self.outlets = Outlets(
            list(self.sinks),
            RATE_HZ,
            lossless=not live,
            stop=self.stop,
            tell=self.events.append,
            clock=clock,
            open_one=lambda uri, rate_hz: self.sinks[uri],
        )

    def model(self, frame):
        self.clock.sleep(self.model_s)
        return frame.shape

    def run(self, *, for_s=None, frames=None, on_result=None):
        """Run to the end, for so long or so many results; then hold that all adds up."""
        stream = results(self.inlets, self.model, self.options, self.events.append, frames)
        until_ns = self.clock.now_ns() + round(1e9 * (for_s or 1e6))
        self.inlets.on_turn = lambda inlets: self.check(until_ns)
        try:
            for result in stream:
                assert isinstance(result, Result)
                self.results.append(result)
                self.outlets.write(result)
                if on_result is not None:
                    on_result(result)
        finally:
            stream.close()
            self.inlets.close()
            self.outlets.close()
            self.check_end()
        return self

    def check(self, until_ns):
        """Hold the ledgers' invariant in the middle of a run, and end it in time."""
        for state in self.inlets.states():
            totals = state.totals
            accounted = totals.delivered + sum(totals.dropped.values()) + totals.in_flight
            assert totals.captured == accounted
            assert totals.in_flight <= 3 + (self.options.waiting(live=True) or 0)
        if self.clock.now_ns() >= until_ns:
            self.stop.is_asked = True

    def check_end(self):
        for inlet in self.inlets.inlets:
            totals = inlet.ledger.totals()
            assert totals.in_flight == 0
            assert totals.captured == totals.delivered + sum(totals.dropped.values())
            delivered = [r.frame_id for r in self.results if r.source == inlet.name]
            assert delivered == sorted(delivered), "out of order"
            assert len(delivered) == totals.delivered
            told = [e.frame_id for e in self.drops() if e.source == inlet.name]
            assert sorted(delivered + told) == list(range(totals.captured))
        for account in self.outlets.accounts():
            assert account.written + account.dropped == len(self.results)

    def drops(self):
        return [event for event in self.events if isinstance(event, FrameDropped)]

    def kinds(self):
        """Return the names of the events that are no drops, in order."""
        return [type(e).__name__ for e in self.events if not isinstance(e, FrameDropped)]

    def sinks_lost(self):
        return [event.sink for event in self.events if isinstance(event, SinkLost)]
