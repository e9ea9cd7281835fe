"""Reading ahead: measured, chosen, and without a frame lost, whichever it is."""

import pytest
from faults.staged import File, Staged, World

from edgekit.runtime.events import Adapted


class SlowFile(File):
    """Each frame takes `read_s`; at number `breaks_at` the reader has a bug."""

    may_be_read_ahead = True

    def __init__(self, world, read_s, frames=200, breaks_at=None):
        super().__init__(world, frames=frames)
        self.read_s, self.breaks_at = read_s, breaks_at

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
    assert run.worlds["file"].now_s() == pytest.approx(200 * 0.03 + 21 * 0.02 + 0.02, abs=0.1)
    assert clock.alive() == []


def test_where_reading_costs_nothing_it_is_done_in_turn(clock):
    run = staged(clock, 0.0002, 0.03).run()
    (adapted,) = (e for e in run.events if isinstance(e, Adapted))
    assert adapted.detail.startswith("frames are read in turn: 30.00 ms a frame ahead, 30.20")
    assert [r.frame_id for r in run.results] == list(range(200))
    assert run.drops() == []
    assert run.worlds["file"].closed == 1
    assert clock.alive() == []


@pytest.mark.parametrize("read_s", [0.02, 0.0002])
@pytest.mark.parametrize("frames", [0, 1, 20, 21, 22, 41, 42, 43, 45, 60])
def test_a_file_may_end_anywhere(clock, read_s, frames):
    run = staged(clock, read_s, 0.03, frames=frames).run()
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
