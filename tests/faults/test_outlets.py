"""Sinks that are slow, die or hang: what they lose is theirs alone."""

import pytest
from faults.staged import File, Staged, StagedSink, World

from edgekit.errors import OutputError
from edgekit.runtime.events import SinkLost


def accounts(run):
    return {account.sink: account for account in run.outlets.accounts()}


def test_a_slow_sink_loses_results_and_slows_neither_camera_nor_the_others(clock):
    alone = Staged(clock, {"cam": World(clock)}).run(for_s=20)
    slow, fast = StagedSink(clock, write_s=0.25), StagedSink(clock, write_s=0.001)
    sinks = {"slow.mp4": slow, "fast.mp4": fast}
    run = Staged(clock, {"cam": World(clock)}, sinks=sinks).run(for_s=20)
    assert len(run.results) == len(alone.results)
    assert max(r.age_ms for r in run.results) == max(r.age_ms for r in alone.results)
    of_slow, of_fast = accounts(run)["slow.mp4"], accounts(run)["fast.mp4"]
    assert (of_fast.written, of_fast.dropped) == (len(run.results), 0)
    assert of_slow.written == pytest.approx(80, abs=5)
    assert of_slow.dropped == len(run.results) - of_slow.written
    assert of_slow.write_ms.p50 == pytest.approx(250)
    taken = [r.frame_id for r in slow.taken]
    assert taken == sorted(taken)
    assert slow.closed == fast.closed == 1


def test_of_a_file_a_slow_sink_gets_every_result_while_the_model_works_ahead(clock):
    slow = StagedSink(clock, write_s=0.1)
    world = World(clock)
    run = Staged(
        clock,
        {"file": world},
        sinks={"slow.mp4": slow},
        opens=lambda name: File(world, frames=50),
        model_s=0.08,
    )
    run.run()
    assert [r.frame_id for r in slow.taken] == list(range(50))
    assert world.now_s() == pytest.approx(50 * 0.1 + 0.08, abs=0.06)  # one after the other: 9 s


@pytest.mark.parametrize("uri", ["dead.mp4", "dead.jsonl"])
def test_a_sink_that_dies_is_told_and_closed_and_the_others_go_on(clock, uri):
    dead, other = StagedSink(clock, dies_at=5), StagedSink(clock)
    run = Staged(clock, {"cam": World(clock)}, sinks={uri: dead, "other.mp4": other})
    run.run(frames=30)
    assert run.sinks_lost() == [uri]
    (event,) = (e for e in run.events if isinstance(e, SinkLost))
    assert event.detail == "the disk is full"
    assert (accounts(run)[uri].written, accounts(run)[uri].dropped) == (5, 25)
    assert accounts(run)[uri].error == "the disk is full"
    assert len(other.taken) == 30
    assert dead.closed == other.closed == 1
    assert isinstance(run.outlets.failure(), OutputError)


def test_without_any_sink_left_the_run_ends(clock):
    sinks = {"a.mp4": StagedSink(clock, dies_at=3), "b.mp4": StagedSink(clock, dies_at=9)}
    run = Staged(clock, {"cam": World(clock)}, sinks=sinks)
    with pytest.raises(OutputError, match="the disk is full"):
        run.run(for_s=60)
    assert run.sinks_lost() == ["a.mp4"]
    assert 10 <= len(run.results) <= 12
    assert clock.alive() == []


def test_of_a_file_the_first_dead_sink_ends_the_run(clock):
    world = World(clock)
    sinks = {"dead.mp4": StagedSink(clock, dies_at=3), "other.mp4": StagedSink(clock)}
    run = Staged(clock, {"file": world}, sinks=sinks, opens=lambda name: File(world, frames=50))
    with pytest.raises(OutputError, match="the disk is full"):
        run.run()
    assert 4 <= len(run.results) <= 10
    assert len(sinks["other.mp4"].taken) == len(run.results)


@pytest.mark.parametrize("kind", ["live", "file"])
def test_a_sink_that_hangs_does_not_keep_the_run_from_ending(clock, kind):
    world = World(clock)
    hanging, other = StagedSink(clock, hangs_at=3), StagedSink(clock)
    opens = world.open if kind == "live" else lambda name: File(world, frames=10**6)
    sinks = {"hanging.mp4": hanging, "other.mp4": other}
    run = Staged(clock, {"cam": world}, sinks=sinks, opens=opens)
    # Of a file the model waits for the sink: only a signal ends that, which comes from outside.
    clock.start(lambda: (clock.sleep(10), setattr(run.stop, "is_asked", True)), "signal")
    run.run(for_s=100)
    assert 10 <= world.now_s() <= 11
    assert accounts(run)["hanging.mp4"].written == 3
    assert "takes nothing any more" in accounts(run)["hanging.mp4"].error
    assert accounts(run)["other.mp4"].written == len(run.results)
    assert other.closed == 1
    assert clock.alive() == ["edgekit-sink"]


def test_a_window_that_is_closed_ends_the_run(clock):
    class Window(StagedSink):
        def write(self, result):
            super().write(result)
            if len(self.taken) == 4:
                raise KeyboardInterrupt

    run = Staged(clock, {"cam": World(clock)}, sinks={"display://": Window(clock)}).run(for_s=60)
    assert 4 <= len(run.results) <= 6
    assert run.outlets.failure() is None


def test_a_sink_that_cannot_be_opened_is_told_and_the_others_are_closed(clock):
    class Broken(StagedSink):
        def __init__(self):
            raise OutputError("no such folder")

    first = StagedSink(clock)

    def opens(uri, rate_hz):
        return first if uri == "first.mp4" else Broken()

    from edgekit.runtime.inlets import Stop
    from edgekit.runtime.outlet import Outlets

    with pytest.raises(OutputError, match="no such folder"):
        Outlets(
            ["first.mp4", "broken.mp4"],
            30.0,
            lossless=False,
            stop=Stop(),
            tell=print,
            clock=clock,
            open_one=opens,
        )
    assert first.closed == 1
    assert clock.alive() == []


def test_what_waits_when_a_run_ends_by_itself_is_still_written(clock):
    sink = StagedSink(clock, write_s=0.4)
    run = Staged(clock, {"cam": World(clock)}, sinks={"slow.mp4": sink}).run(frames=4)
    assert len(sink.taken) == len(run.results) == 4
