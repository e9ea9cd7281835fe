"""Reading ahead: measured, chosen, and without a frame lost, whichever it is."""

import pytest
from faults.staged import File, Staged, World

from edgekit.runtime.events import Adapted


class SlowFile(File):
    """Each frame takes `read_s`; at number `breaks_at` the reader has a bug.

    `faster_s`: what a frame takes with more threads; None: the decoder has one.
    """

    may_be_read_ahead = True

    def __init__(self, world, read_s, frames=200, breaks_at=None, faster_s=None):
        super().__init__(world, frames=frames)
        self.read_s, self.breaks_at, self.faster_s = read_s, breaks_at, faster_s
        self.asked_at = []

    def decode_faster(self):
        self.asked_at.append(self.world.grabbed)
        self.read_s = self.faster_s or self.read_s
        return self.faster_s is not None

    def retrieve(self):
        self.world.clock.sleep(self.read_s)
        if self.world.grabbed == self.breaks_at:
            raise RuntimeError("torn")
        return super().retrieve()


def staged(clock, read_s, model_s, **more):
    world = World(clock)
    opens = lambda name: SlowFile(world, read_s, **more)  # noqa: E731
    return Staged(clock, {"file": world}, model_s=model_s, opens=opens)


def test_where_reading_takes_long_it_is_done_ahead(clock):
    run = staged(clock, 0.02, 0.03).run()
    (adapted,) = (e for e in run.events if isinstance(e, Adapted))
    assert adapted.detail == "frames are read ahead: 30.00 ms a frame ahead, 50.00 in turn"
    assert adapted.source == "file"
    assert [r.frame_id for r in run.results] == list(range(200))
    assert run.drops() == []
    assert run.worlds["file"].now_s() == pytest.approx(200 * 0.03 + 13 * 0.02 + 0.02, abs=0.1)
    assert clock.alive() == []


def test_where_reading_costs_nothing_it_is_done_in_turn(clock):
    run = staged(clock, 0.0002, 0.03).run()
    (adapted,) = (e for e in run.events if isinstance(e, Adapted))
    assert adapted.detail.startswith("frames are read in turn: 30.00 ms a frame ahead, 30.20")
    assert [r.frame_id for r in run.results] == list(range(200))
    assert run.drops() == []
    assert run.worlds["file"].closed == 1
    assert clock.alive() == []


def details(run):
    return [event.detail for event in run.events if isinstance(event, Adapted)]


def camera_of(run):
    return run.inlets.inlets[0].camera


def test_where_reading_is_most_of_a_frame_the_decoder_gets_more_threads(clock):
    run = staged(clock, 0.02, 0.005, faster_s=0.008).run()
    assert details(run) == [
        "the decoder has more threads: reading took 20.00 of 25.00 ms a frame",
        "frames are read ahead: 8.00 ms a frame ahead, 13.00 in turn",
    ]
    assert camera_of(run).asked_at == [13]
    assert [r.frame_id for r in run.results] == list(range(200))
    assert run.drops() == []
    assert clock.alive() == []


def test_a_decoder_that_has_no_more_threads_is_asked_once(clock):
    run = staged(clock, 0.02, 0.005).run()
    assert details(run) == ["frames are read ahead: 20.00 ms a frame ahead, 25.00 in turn"]
    assert camera_of(run).asked_at == [13]
    assert [r.frame_id for r in run.results] == list(range(200))


@pytest.mark.parametrize(("read_s", "asked_at"), [(0.0265, []), (0.0285, [13])])
def test_the_decoder_is_asked_where_the_model_would_wait_for_it(clock, read_s, asked_at):
    run = staged(clock, read_s, 0.05 - read_s, faster_s=0.01).run()
    assert camera_of(run).asked_at == asked_at


def test_reading_what_every_nth_drops_counts_as_reading(clock):
    world = World(clock)
    opens = lambda name: GrabsSlowly(world, 0.01, faster_s=0.005)  # noqa: E731
    run = Staged(clock, {"file": world}, model_s=0.02, opens=opens, every_nth=3).run()
    told = "the decoder has more threads: reading took 30.00 of 50.00 ms a frame"
    assert details(run)[0] == told
    assert [r.frame_id for r in run.results] == list(range(0, 200, 3))


class GrabsSlowly(SlowFile):
    """Decodes when a frame is grabbed, as FFMPEG does."""

    def grab(self):
        self.world.clock.sleep(self.read_s)
        return super().grab()

    def retrieve(self):
        return File.retrieve(self)


@pytest.mark.parametrize("read_s", [0.02, 0.0002])
@pytest.mark.parametrize("frames", [0, 1, 12, 13, 14, 33, 34, 35, 37, 60])
def test_a_file_may_end_anywhere(clock, read_s, frames):
    run = staged(clock, read_s, 0.03, frames=frames).run()
    assert [r.frame_id for r in run.results] == list(range(frames))
    assert run.worlds["file"].closed == 1
    assert clock.alive() == []


@pytest.mark.parametrize("frames", [12, 13, 14, 25, 26, 27, 46, 47, 48, 70])
def test_a_file_may_end_anywhere_where_the_decoder_gets_more_threads(clock, frames):
    run = staged(clock, 0.02, 0.005, frames=frames, faster_s=0.01).run()
    assert [r.frame_id for r in run.results] == list(range(frames))
    assert run.worlds["file"].closed == 1
    assert clock.alive() == []


@pytest.mark.parametrize("read_s", [0.02, 0.0002])
@pytest.mark.parametrize("most", [1, 21, 23, 42, 43, 44, 60])
def test_a_run_may_end_anywhere(clock, read_s, most):
    run = staged(clock, read_s, 0.03).run(frames=most)
    assert len(run.results) == most
    assert {e.reason for e in run.drops()} <= {"interrupted"}
    assert len(run.drops()) <= 3
    assert run.worlds["file"].closed == 1
    assert clock.alive() == []


@pytest.mark.parametrize("place", [10, 30, 100])
def test_an_error_comes_after_the_frames_before_it(clock, place):
    run = staged(clock, 0.02, 0.03, breaks_at=place)
    with pytest.raises(RuntimeError, match="torn"):
        run.run()
    assert len(run.results) == place - 1


def test_a_rate_that_is_asked_for_slows_the_reading_and_drops_nothing(clock):
    world = World(clock)
    opens = lambda name: SlowFile(world, 0.01, frames=50)  # noqa: E731
    run = Staged(clock, {"file": world}, model_s=0.01, opens=opens, max_rate_hz=10)
    run.run()
    assert len(run.results) == 50
    assert run.drops() == []
    assert world.now_s() == pytest.approx(5, abs=0.2)
