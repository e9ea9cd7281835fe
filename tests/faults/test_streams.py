"""One camera and all its faults: what is told, what is delivered, and that it adds up."""

import pytest
from faults.staged import FAULTS, Staged, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.errors import DataError
from edgekit.runtime.events import Adapted, Gap, SourceBack, SourceLost
from edgekit.runtime.opening import open_inlets
from edgekit.runtime.options import StreamOptions
from edgekit.runtime.reader import Frame


def test_a_camera_faster_than_the_model_gives_its_newest_frames(clock):
    run = Staged(clock, {"cam": World(clock)}).run(for_s=10)
    assert len(run.results) == pytest.approx(10 / 0.06, rel=0.05)
    assert {e.reason for e in run.drops()} <= {"superseded", "interrupted"}
    assert max(r.age_ms for r in run.results) <= 60 + 1000 / 30 + 0.1


def test_bounded_keeps_as_many_as_asked_and_drops_the_oldest(clock):
    run = Staged(clock, {"cam": World(clock, ends_s=1.0)}, model_s=0.5, policy="bounded:3")
    run.run()
    delivered = [r.frame_id for r in run.results]
    # The first, those that wait when it is done, and at the end the newest three.
    assert delivered[0] == 0
    assert delivered[-3:] == [26, 27, 28]
    assert [e.reason for e in run.drops()] == ["superseded"] * len(run.drops())


def test_every_second_of_a_burst_is_kept_by_a_queue_that_holds_it(clock):
    run = Staged(clock, {"cam": World(clock, ends_s=1.0)}, model_s=0.5, policy="bounded:40")
    run.run()
    assert [r.frame_id for r in run.results] == list(range(29))
    assert run.drops() == []


def test_a_long_run_of_faults(clock):
    """A fault every five seconds, of every kind, for half an hour: nothing hangs, all adds up."""
    hour_s = 1800
    faults = [(5 * i, 1 + i % 3, FAULTS[i % len(FAULTS)]) for i in range(1, hour_s // 5)]
    world = World(clock, faults, rate_hz=10)
    run = Staged(clock, {"cam": world}, model_s=0.15).run(for_s=hour_s)
    assert clock.now_ns() - world.start_ns >= 1e9 * hour_s
    assert len(run.results) > 3 * hour_s
    assert clock.alive() == []
    lost, back = (run.kinds().count(kind) for kind in ("SourceLost", "SourceBack"))
    assert lost == back > 50
    assert world.opened == world.closed
    reasons = {e.reason for e in run.drops()}
    assert reasons >= {"superseded", "undecodable", "out_of_order"}


@pytest.mark.parametrize("kind", ["stall", "unplug", "hang"])
def test_a_fault_is_noticed_in_time_and_frames_are_back_within_a_second(clock, kind):
    """A stall shows after the time-out; how long a source was away changes nothing for a minute."""
    from edgekit.runtime.camera import Timeouts

    world = World(clock, [(10, 20, kind)], read_s=1.0)
    run = Staged(clock, {"cam": world}, timeouts=Timeouts(5.0, 1.0)).run(for_s=60)
    (lost,) = (e for e in run.events if isinstance(e, SourceLost))
    (back,) = (e for e in run.events if isinstance(e, SourceBack))
    noticed_s = (lost.at_ns - world.start_ns) / 1e9 - 10
    assert 0 <= noticed_s <= 1.0 + 0.2 + 0.06
    first = next(r for r in run.results if r.captured_ns >= back.at_ns)
    assert (first.captured_ns - world.start_ns) / 1e9 <= 30 + 1
    assert run.kinds()[-2:] == ["SourceBack", "Reset"]
    assert lost.source == back.source == first.source == "cam"


def test_the_pauses_between_attempts_grow_after_a_minute(clock):
    tries = []

    def opens(name):
        tries.append(world.now_s())
        return world.open(name)

    world = World(clock, [(10, 600, "unplug")])
    Staged(clock, {"cam": world}, opens=opens).run(for_s=660)
    pauses = [b - a for a, b in zip(tries[1:], tries[2:], strict=False)]
    early = [p for t, p in zip(tries[2:], pauses, strict=True) if t < 70]
    late = [p for t, p in zip(tries[2:], pauses, strict=True) if t > 200]
    assert 0.05 < min(early) <= max(early) <= 0.5
    assert len(set(early)) > 10, "no jitter"
    assert 20 < min(late) <= max(late) <= 30


def test_a_camera_that_comes_back_with_another_resolution_goes_on(clock):
    run = Staged(clock, {"cam": World(clock, [(2, 3, "unplug"), (5, 60, "resize")])}).run(for_s=10)
    assert [r.value for r in run.results][0] != [r.value for r in run.results][-1]
    assert "outside_roi" not in {e.reason for e in run.drops()}


def test_stamps_that_jump_an_hour_make_no_frame_old_or_from_the_future(clock):
    world = World(clock, [(2, 2, "jump"), (6, 2, "past")])
    run = Staged(clock, {"cam": world}).run(for_s=10)
    assert min(r.age_ms for r in run.results) >= 0
    assert max(r.age_ms for r in run.results) < 200
    assert len(run.results) == pytest.approx(10 / 0.06, rel=0.1)


def test_frames_that_come_out_of_order_are_not_given(clock):
    run = Staged(clock, {"cam": World(clock, [(2, 2, "reorder")])}, model_s=0.001).run(for_s=6)
    stamps = [r.captured_ns for r in run.results]
    assert stamps == sorted(stamps)
    assert [e.reason for e in run.drops()].count("out_of_order") == pytest.approx(30, abs=2)


def test_pictures_that_are_not_fresh_are_not_given(clock):
    world = World(clock, [(2, 2, "black"), (6, 4, "freeze")])
    run = Staged(clock, {"cam": world}, model_s=0.001).run(for_s=12)
    reasons = [e.reason for e in run.drops()]
    assert reasons.count("black") == pytest.approx(60, abs=2)
    assert reasons.count("repeated") + reasons.count("frozen") == pytest.approx(120, abs=2)
    at_s = [(r.captured_ns - world.start_ns) / 1e9 for r in run.results]
    assert not [t for t in at_s if 2.04 < t < 3.96 or 6.04 < t < 9.96]
    assert all(r.frame.any() for r in run.results)


def test_a_silence_that_ends_by_itself_is_a_gap(clock):
    run = Staged(clock, {"cam": World(clock, [(2, 0.5, "silence")])}, model_s=0.01).run(for_s=4)
    (gap,) = (e for e in run.events if isinstance(e, Gap))
    assert gap.silent_ms == pytest.approx(500, abs=70)


def test_results_older_than_the_budget_are_marked_or_dropped_and_counted(clock):
    """Half of the frames wait for the model so long that the budget is missed."""
    marked = Staged(clock, {"cam": World(clock)}, max_age_ms=80).run(for_s=10)
    late = [r for r in marked.results if r.late]
    assert 0 < len(late) < len(marked.results)
    assert all(r.late == (r.age_ms > 80) for r in marked.results)
    dropped = Staged(clock, {"cam": World(clock)}, max_age_ms=80, late="drop").run(for_s=10)
    assert max(r.age_ms for r in dropped.results) <= 80
    assert sum(e.reason == "late" for e in dropped.drops()) == pytest.approx(len(late), abs=3)


def test_a_frame_that_is_late_already_does_not_cost_the_model_time(clock):
    run = Staged(clock, {"cam": World(clock)}, policy="bounded:20", max_age_ms=30, late="drop")
    calls = []
    model, run.model = run.model, lambda frame: calls.append(1) or model(frame)
    run.run(for_s=5)
    late = [e for e in run.drops() if e.reason == "late"]
    assert run.results == []
    assert len(late) > len(calls) > 0


def test_every_nth_and_the_rate_are_held_without_decoding_the_others(clock):
    world = World(clock)
    run = Staged(clock, {"cam": world}, model_s=0.001, every_nth=3).run(for_s=10)
    assert all(r.frame_id % 3 == 0 for r in run.results)
    assert len(run.results) == pytest.approx(100, abs=2)
    assert world.retrieved <= len(run.results) + 1
    world = World(clock)
    run = Staged(clock, {"cam": world}, model_s=0.001, max_rate_hz=7).run(for_s=10)
    assert len(run.results) == pytest.approx(70, abs=2)
    assert world.retrieved <= len(run.results) + 1


def test_a_rate_like_the_cameras_own_is_not_halved(clock):
    run = Staged(clock, {"cam": World(clock)}, model_s=0.001, max_rate_hz=30).run(for_s=10)
    assert len(run.results) == pytest.approx(300, abs=3)


def test_a_region_that_does_not_fit_is_wrong_use_at_first_and_a_drop_later(clock):
    with pytest.raises(DataError, match=r"`roi` 0,0,9,3 .* frames, which are 6x4"):
        Staged(clock, {"cam": World(clock)}, roi=(0, 0, 9, 3)).run(for_s=1)
    world = World(clock, [(0, 3, "resize"), (3, 1000, "none")])
    run = Staged(clock, {"cam": world}, roi=(1, 2, 9, 6)).run(for_s=6)
    assert {r.value for r in run.results} == {(6, 9, 3)}
    assert run.results[0].frame.shape == (8, 10, 3)
    assert run.results[0].roi == (1, 2, 9, 6)
    outside = [e for e in run.drops() if e.reason == "outside_roi"]
    assert len(outside) == pytest.approx(3 * 30, abs=3)
    assert "does not lie within the frames, which are 6x4" in outside[0].detail


def test_a_model_that_raises_ends_the_run_and_its_frame_is_accounted_for(clock):
    run = Staged(clock, {"cam": World(clock)})

    def model(frame):
        clock.sleep(0.06)
        if len(run.results) == 5:
            raise ZeroDivisionError("backend")
        return 0

    run.model = model
    with pytest.raises(ZeroDivisionError):
        run.run(for_s=10)
    assert len(run.results) == 5
    assert {e.reason for e in run.drops()} == {"superseded", "interrupted"}


def test_a_read_that_hangs_for_ever_does_not_keep_the_run_from_ending(clock):
    world = World(clock, [(2, 10**6, "hang")])
    run = Staged(clock, {"cam": world})
    run.run(for_s=30)
    assert world.now_s() <= 30 + 1
    assert run.kinds() == ["SourceLost"]
    assert clock.alive() == ["edgekit-camera"]  # it ends with the process


def test_frames_that_cost_much_to_decode_are_decoded_when_they_are_used(clock):
    """Decoding on request costs the result its time once, and saves that of all the others."""
    world = World(clock, decode_s=0.01)
    run = Staged(clock, {"cam": world}, model_s=0.1).run(for_s=20)
    (chosen,) = (e for e in run.events if isinstance(e, Adapted))
    assert chosen.detail == "frames take 10.0 ms to decode: only those that are used are"
    assert world.retrieved < len(run.results) + 20
    assert world.grabbed == pytest.approx(600, abs=20)
    assert len(run.results) == pytest.approx(20 / 0.11, rel=0.1)
    assert max(r.age_ms for r in run.results[10:]) <= 100 + 10 + 1000 / 30 + 1


def test_frames_that_cost_little_to_decode_are_decoded_ahead(clock):
    world = World(clock, decode_s=0.0005)
    run = Staged(clock, {"cam": world}, model_s=0.1).run(for_s=5)
    assert "Adapted" not in run.kinds()
    assert world.retrieved == world.grabbed


KINDS = st.sampled_from(FAULTS)
SCRIPTS = st.lists(
    # Not at 0: a single camera that is not there at the start is an error.
    st.tuples(st.floats(0, 10, exclude_min=True), st.floats(0.01, 3), KINDS),
    max_size=8,
    unique_by=lambda f: f[0],
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    SCRIPTS,
    st.sampled_from([None, "latest", "bounded:4"]),
    st.sampled_from([0.001, 0.05, 0.3]),
    st.sampled_from([0.0, 0.02]),
    st.sampled_from([{}, {"max_age_ms": 70, "late": "drop"}, {"every_nth": 2, "max_rate_hz": 9}]),
)
def test_the_ledger_adds_up_for_any_faults(script, policy, model_s, decode_s, options):
    """At every turn and at the end; `Staged.check` and `check_end` hold it."""
    from faults.virtual_time import VirtualClock

    clock = VirtualClock()
    try:
        world = World(clock, script, decode_s=decode_s)
        run = Staged(clock, {"cam": world}, model_s=model_s, policy=policy, **options)
        run.run(for_s=14)
        assert clock.alive() == []
    finally:
        clock.end()


def test_drops_that_nobody_asks_about_are_counted_and_forgotten(clock):
    """A model that takes five minutes: memory must not grow with all that passes meanwhile."""
    world = World(clock)
    inlets = open_inlets(["cam"], StreamOptions(), clock=clock, open_one=world.open)
    clock.sleep(300)
    (inlet,) = inlets.inlets
    told = []
    while (item := inlet.feed.poll()) is not None:
        told.append(item)
    totals = inlet.ledger.totals()
    assert totals.dropped["superseded"] > 8900
    assert len(told) <= 4100
    assert isinstance(told[-1], Frame)
    assert told[-1].frame_id == totals.captured - 1
    inlets.close()
