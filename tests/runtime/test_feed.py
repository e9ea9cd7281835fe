"""A camera is hardware: `Scripted` stands for one whose every frame, loss and hang is known."""

import threading
import time

import numpy as np
import pytest

from edgekit.errors import DataError, SourceError
from edgekit.runtime.clock import SYSTEM
from edgekit.runtime.events import FrameDropped, Gap, Reset, SourceBack, SourceLost
from edgekit.runtime.feed import InTurn, Threaded
from edgekit.runtime.inlets import Inlet, Inlets
from edgekit.runtime.ledger import Ledger
from edgekit.runtime.reader import Frame, Reader

PIXELS = np.zeros((2, 2, 3), np.uint8)
SOON_S = 10.0


class Scripted:
    """Plays a list: after an int of ms comes a frame; an Event is waited for; an error raised."""

    live = True
    description = "scripted"

    def __init__(self, script, rate_hz=None):
        self.rate_hz = rate_hz
        self.closed = 0
        self.captured = 0
        self._script = iter(script)

    def grab(self):
        for step in self._script:
            if isinstance(step, threading.Event):
                step.wait(SOON_S)
                continue
            if isinstance(step, Exception) and not isinstance(step, DataError):
                raise step
            self._broken = step if isinstance(step, DataError) else None
            self.captured += 1
            if self._broken is None:
                time.sleep(step / 1000)
            return time.monotonic_ns()
        return None

    def retrieve(self):
        if self._broken:
            raise self._broken
        return PIXELS

    def close(self):
        self.closed += 1


class Feed:
    """A feed as the model's loop sees it: the next thing, waited for."""

    def __init__(self, make, camera):
        self.ledger = Ledger()
        news = SYSTEM.condition()
        self.inner = make(Reader(camera, self.ledger), news)
        self._inlets = Inlets([Inlet("", self.inner, self.ledger, camera)], news)

    def next(self):
        found = self._inlets.next()
        if found is None:
            return None
        if isinstance(found[1], Frame):
            self.ledger.deliver(found[1].frame_id)
        return found[1]

    def close(self):
        return self._inlets.close()

    def dropped(self):
        return sum(self.ledger.totals().dropped.values())


def every(camera):
    return Feed(lambda reader, news: InTurn(reader), camera)


def latest(camera, *more, stall_s=SOON_S, waiting=1):
    cameras = iter(more)

    def reopen():
        following = next(cameras, SourceError("still away"))
        if isinstance(following, Exception):
            raise following
        return following

    def make(reader, news):
        return Threaded(reader, news, waiting=waiting, reopen=reopen, stall_s=stall_s)

    return Feed(make, camera)


def drain(feed):
    items = []
    while (item := feed.next()) is not None:
        items.append(item)
    return items


def kinds(items):
    return [type(item).__name__ for item in items]


def camera_threads():
    return [t for t in threading.enumerate() if t.name == "edgekit-camera"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    for thread in camera_threads():
        thread.join(SOON_S)
    assert not camera_threads()


def test_every_frame_comes_in_order_and_the_undecodable_is_told_in_its_place():
    camera = Scripted([0, DataError("torn"), 0])
    feed = every(camera)
    items = drain(feed)
    assert items[1] == FrameDropped(1, "undecodable", "torn")
    assert [item.frame_id for item in items] == [0, 1, 2]
    assert feed.close() == []
    assert camera.closed == 1


def test_every_frame_does_not_read_ahead():
    camera = Scripted([0] * 5)
    feed = every(camera)
    feed.next()
    assert camera.captured == 1


def test_the_newest_frame_is_taken_and_the_others_are_told_once_each():
    read_on, all_read = threading.Event(), threading.Event()
    feed = latest(Scripted([0, read_on, 0, 0, 0, all_read]))
    first = feed.next()
    read_on.set()
    while feed.dropped() < 2:
        time.sleep(0.001)
    items = [feed.next(), feed.next(), feed.next()]
    assert items[:2] == [FrameDropped(1, "superseded"), FrameDropped(2, "superseded")]
    assert (first.frame_id, items[2].frame_id) == (0, 3)
    all_read.set()
    assert feed.next() is None
    feed.close()


def test_no_frame_is_lost_from_the_ledger_when_the_consumer_is_slow():
    camera = Scripted([1] * 200 + [DataError("torn")] * 3)
    feed = latest(camera)
    delivered, dropped = [], []
    while (item := feed.next()) is not None:
        (delivered if isinstance(item, Frame) else dropped).append(item.frame_id)
        if isinstance(item, Frame):
            time.sleep(0.005)
    dropped += [event.frame_id for event in feed.close()]
    assert sorted(delivered + dropped) == list(range(camera.captured))
    assert delivered == sorted(delivered)
    assert len(dropped) > 50


def test_while_nobody_asks_drops_behind_another_event_are_forgotten_too(monkeypatch):
    monkeypatch.setattr("edgekit.runtime.feed._MOST_EVENTS", 8)
    feed = latest(Scripted([0, 60, *[0] * 40], rate_hz=100))
    while feed.inner.health != "ended":
        time.sleep(0.005)
    told = []
    while (item := feed.next()) is not None:
        told.append(item)
    assert len(told) <= 8
    assert any(isinstance(item, Gap) for item in told)
    assert told[-1].frame_id == 41
    assert feed.dropped() == 41


def test_closing_tells_the_frame_in_hand():
    hold = threading.Event()
    feed = latest(Scripted([0, hold]))
    while not feed.ledger.totals().captured:
        time.sleep(0.001)
    threading.Timer(0.05, hold.set).start()
    assert feed.close() == [FrameDropped(0, "interrupted")]
    assert feed.close() == []
    assert feed.next() is None


def test_a_lost_source_is_told_before_it_is_back_and_followed_by_a_reset():
    back = Scripted([0])
    pull = threading.Event()
    gone = Scripted([0, pull, SourceError("cable pulled")])
    feed = latest(gone, SourceError("not yet"), SourceError("not yet"), back)
    assert isinstance(feed.next(), Frame)
    pull.set()
    lost = feed.next()
    assert isinstance(lost, SourceLost)
    assert lost.detail == "cable pulled"
    returned, reset, frame = feed.next(), feed.next(), feed.next()
    assert isinstance(returned, SourceBack)
    assert returned.at_ns == frame.captured_ns
    assert returned.lost_ms == pytest.approx((frame.captured_ns - lost.at_ns) / 1e6)
    assert reset == Reset(frame.frame_id, "source back")
    assert frame.frame_id == 1
    assert feed.next() is None
    assert gone.closed == back.closed == 1
    feed.close()


def test_a_read_that_hangs_is_told_by_the_consumer_and_so_is_its_return():
    hang = threading.Event()
    feed = latest(Scripted([0, hang, 0]), stall_s=0.05)
    assert isinstance(feed.next(), Frame)
    lost = feed.next()
    assert isinstance(lost, SourceLost)
    assert "scripted stalled for 0.05 s" in lost.detail
    hang.set()
    assert kinds(drain(feed)) == ["SourceBack", "Reset", "Frame"]
    feed.close()


def test_a_hang_that_ends_in_an_error_is_one_loss():
    hang = threading.Event()
    feed = latest(Scripted([hang, SourceError("timed out")]), Scripted([0]), stall_s=0.05)
    assert isinstance(feed.next(), SourceLost)
    hang.set()
    assert kinds(drain(feed)) == ["SourceBack", "Reset", "Frame"]
    feed.close()


def test_a_gap_is_told_before_the_frame_that_ends_it():
    feed = latest(Scripted([0, 10, 10, 200, 10], rate_hz=100))
    gaps = {}
    while (item := feed.next()) is not None:
        if isinstance(item, Gap):
            gaps[item.frame_id] = item.silent_ms
        elif isinstance(item, Frame):
            last = item.frame_id
    assert gaps[3] >= 200
    assert last == 4
    feed.close()


def test_a_source_that_is_slower_than_it_says_is_no_chain_of_gaps():
    feed = latest(Scripted([20] * 40, rate_hz=1000))
    gaps = [item.frame_id for item in drain(feed) if isinstance(item, Gap)]
    assert len(gaps) < 10
    feed.close()


def test_a_source_without_a_rate_has_no_gaps():
    feed = latest(Scripted([0, 100, 0]))
    assert "Gap" not in kinds(drain(feed))
    feed.close()


@pytest.mark.parametrize("error", [RuntimeError("driver bug"), DataError("bad"), ValueError()])
def test_what_goes_wrong_in_the_camera_reaches_the_consumer_after_the_last_frame(error):
    class Breaking(Scripted):
        def grab(self):
            captured_ns = super().grab()
            if captured_ns is None:
                raise error
            return captured_ns

    camera = Breaking([0])
    feed = latest(camera)
    assert isinstance(feed.next(), Frame)
    with pytest.raises(type(error)) as caught:
        feed.next()
    assert caught.value is error
    assert camera.closed == 1
    feed.close()


def test_a_camera_that_cannot_be_closed_does_not_leave_the_consumer_waiting():
    class Unclosable(Scripted):
        def close(self):
            raise RuntimeError("stuck")

    feed = latest(Unclosable([]))
    with pytest.raises(RuntimeError, match="stuck"):
        feed.next()
    feed.close()


def test_closing_while_the_source_is_away_ends_the_thread():
    feed = latest(Scripted([SourceError("away")]))
    assert isinstance(feed.next(), SourceLost)
    feed.close()
    assert not camera_threads()


def test_closing_while_a_read_hangs_returns_and_the_thread_ends_with_the_read():
    hang = threading.Event()
    camera = Scripted([hang, 0])
    feed = latest(camera)
    feed.close()
    assert camera_threads()
    hang.set()
    camera_threads()[0].join(SOON_S)
    assert camera.closed == 1
